"""Tasks under load: random failures, duplicates, late and reordered news, several pollers, kill -9 in between.

    python -m tests.reliability.drawing --seed 7 --tasks 10000 --kills 20
    python -m tests.reliability.drawing --seed 7 --tasks 10000 --kills 20 --daemons 3     (PostgreSQL)

Every prompt carries its task's fate. The upstream tells the truth in the end and lies on the way: it repeats itself,
goes back, mixes in tasks that nobody asked for, and answers nonsense now and then.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.fakes import servers
from tests.fakes.engines import statement
from tests.fakes.midjourney import listening
from tests.fakes.process import Daemon, free_port
from tests.reliability import oracle, several, storm

KEYS: Final = {name: f"sk-canary-{name}-0123456789" for name in ("rich", "poor")}
SECRET: Final = "canary-upstream-secret-0123456789"
PRICE: Final = 50
START: Final = {"rich": 50_000_000, "poor": 2_000}
DEADLINE: Final = 8  # seconds, for tasks that upstream forgets
SETTLED: Final = 60.0  # seconds after the load within which every task has ended
TABLES: Final = (*several.TABLES, "users", "midjourneys", "proxy_tasks")
CONFIG: Final = """\
listen: 127.0.0.1:{port}
database: {database}
tasks: {{interval: 0.4s}}
prices:
  mj_imagine: {{call: 0.0001}}
channels:
  - name: draw
    type: midjourney-plus
    base_url: {upstream}
    key: {secret}
    models: [mj_imagine]
    auto_disable: false
    options: {{deadline: {deadline}}}
tokens:
  - {{name: rich, key: {rich}, quota: {rich_quota}}}
  - {{name: poor, key: {poor}, quota: {poor_quota}}}
"""
FATES: Final = (("success", 60), ("failure", 25), ("cancel", 5), ("forgotten", 10))
ANSWERS: Final = (("taken", 70), ("queued", 10), ("refused", 8), ("banned", 4), ("broken", 4), ("slow", 4))
STATES: Final = (("SUBMITTED", "0%"), ("IN_PROGRESS", "10%"), ("IN_PROGRESS", "50%"), ("IN_PROGRESS", "90%"))
ENDS: Final = {
    "success": {"status": "SUCCESS", "progress": "100%", "failReason": None, "imageUrl": "https://x.example/a.png"},
    "failure": {"status": "FAILURE", "progress": "", "failReason": "it broke"},
    "cancel": {"status": "CANCEL", "progress": "50%", "failReason": ""},
}


@dataclass
class Life:
    """One task upstream."""

    request: str
    fate: str
    steps: int
    asked: int = 0


@dataclass
class Upstream:
    """The other end of the daemon."""

    dice: random.Random
    lives: dict[str, Life] = field(default_factory=dict)
    given: int = 0

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Takes a task, or does not, as its prompt says."""
        name, answer, fate, steps = orjson.loads((await request.json())["prompt"])
        if answer == "broken":
            return web.Response(status=500, text="<html>")
        if answer == "slow":
            await asyncio.sleep(0.3)
        self.given += 1
        id = f"{10**15 + self.given}"
        if answer in ("refused", "banned"):
            return _said({"code": 23 if answer == "refused" else 24, "description": answer, "result": id})
        self.lives[id] = Life(name, fate, steps)
        return _said({"code": 22 if answer == "queued" else 1, "description": "ok", "result": id})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """What it says of tasks now, mixed with what it said before."""
        if self.dice.random() < 0.05:
            return web.Response(
                status=self.dice.choice((200, 500)), text=self.dice.choice(("", "{}", "<html>", "null"))
            )
        ids = (await request.json())["ids"]
        found: list[Any] = [item for id in ids if id in self.lives for item in self._items(id)]
        if self.dice.random() < 0.3:
            found += [{"id": "1", **ENDS["failure"]}, None, {"id": 3}, *found[:3]]
        self.dice.shuffle(found)
        return _said(found)

    def _items(self, id: str) -> list[dict[str, Any]]:
        life = self.lives[id]
        life.asked += 1
        step = min(life.asked, life.steps)
        ended = step >= life.steps
        if ended and life.fate == "forgotten":
            return []
        status, progress = STATES[min(step, len(STATES) - 1)]
        now: dict[str, Any] = {"id": id, "status": status, "progress": progress, "failReason": None, "submitTime": None}
        if ended:
            return [{"id": id, **ENDS[life.fate]}]
        old, before = STATES[self.dice.randrange(min(step, len(STATES) - 1) + 1)]
        stale = {"id": id, "status": old, "progress": before, "failReason": ""}
        return self.dice.choice(([now], [stale], [stale, now], [now, stale], []))

    def journal(self) -> list[dict[str, Any]]:
        """What became of tasks here."""
        return [{"task": id, "request": life.request, "fate": life.fate} for id, life in self.lives.items()]


def _said(tree: Any) -> web.Response:
    return web.Response(body=orjson.dumps(tree), headers={"content-type": "application/json"})


@dataclass
class Place:
    """What runs: daemons on one database behind one address, and the upstream."""

    folder: Path
    upstream: Upstream
    daemons: list[Daemon]
    open: Callable[[], Awaitable[int]]
    end: Callable[[], Awaitable[None]]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)


@asynccontextmanager
async def place(folder: Path, seed: int, daemons: int, database: Any) -> AsyncIterator[Place]:
    """One daemon on SQLite, or several on a server's database."""
    url = "sqlite:///newapi.db"
    if database is not None:
        default = "postgres" if database.name == "postgresql" else "mysql"
        await asyncio.to_thread(statement, database.url(default), "DROP DATABASE IF EXISTS drawing")
        await asyncio.to_thread(statement, database.url(default), "CREATE DATABASE drawing")
        url = database.url("drawing")
    upstream = Upstream(random.Random(seed))
    app = web.Application()
    app.router.add_post("/mj/submit/imagine", upstream.submit)
    app.router.add_post("/mj/task/list-by-condition", upstream.list)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(app))
        port = free_port()
        config = folder / "config.yaml"
        wanted = CONFIG.format(
            port=port, database=url, upstream=address, secret=SECRET, deadline=DEADLINE, **KEYS,
            rich_quota=START["rich"], poor_quota=START["poor"],
        )  # fmt: skip
        config.write_text(wanted + ("reuse_port: true\n" if database is not None else ""))
        config.chmod(0o600)
        running = [
            Daemon(config, f"http://127.0.0.1:{port}", log=folder / f"log{number}.jsonl") for number in range(daemons)
        ]
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in running))

        async def left() -> int:
            if database is None:
                with closing(sqlite3.connect(folder / "newapi.db", timeout=10)) as conn:
                    return int(conn.execute("SELECT COUNT(*) FROM proxy_tasks WHERE open = 1").fetchone()[0])
            return await _count(url)

        async def end() -> None:
            await asyncio.gather(*(asyncio.to_thread(one.stop) for one in running))
            if database is not None:
                await asyncio.to_thread(statement, url, "UPDATE proxy_processes SET at = at - 3600 WHERE at > 0")
            await asyncio.to_thread(running[0].start)  # gives back what the killed ones held
            await asyncio.to_thread(running[0].stop)
            if database is not None:
                await several.export(url, folder / "newapi.db", TABLES)

        try:
            yield Place(folder, upstream, running, left, end)
        finally:
            await asyncio.gather(*(asyncio.to_thread(one.stop) for one in running))


async def _count(url: str) -> int:
    driver = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}[url.partition(":")[0]]
    engine = create_async_engine(driver + url[url.index(":") :], poolclass=NullPool)
    async with engine.connect() as conn:
        found = (await conn.execute(text("SELECT COUNT(*) FROM proxy_tasks WHERE open = 1"))).scalar_one()
    await engine.dispose()
    return int(found)


async def _submit(one: Place, session: ClientSession, seed: int, number: int) -> None:
    dice = random.Random(f"{seed}/{number}")
    name = f"draw-{seed}-{number}"
    answer = dice.choices([a for a, _ in ANSWERS], [w for _, w in ANSWERS])[0]
    fate = dice.choices([f for f, _ in FATES], [w for _, w in FATES])[0]
    token = "poor" if dice.random() < 0.05 else "rich"
    prompt = orjson.dumps([name, answer, fate, dice.randint(1, 6)]).decode()
    headers = {"authorization": f"Bearer {KEYS[token]}", "x-request-id": name, "content-type": "application/json"}
    told: dict[str, Any] = {"id": name, "token": token, "answer": answer, "status": 0, "code": None, "task": None}
    try:
        async with session.post(
            f"{one.daemons[0].url}/mj/submit/imagine", data=orjson.dumps({"prompt": prompt}), headers=headers
        ) as response:
            body = await response.read()
            told["status"] = response.status
            tree = orjson.loads(body)
            told["code"], told["task"] = tree.get("code"), tree.get("result")
            told["leak"] = any(secret.encode() in body for secret in (SECRET, *KEYS.values()))
    except (ClientError, OSError, TimeoutError, orjson.JSONDecodeError):
        pass  # killed: whether it was taken is not known here
    one.answers[name] = told


async def run(
    folder: Path, seed: int, tasks: int, kills: int, *, daemons: int = 1, database: Any = None
) -> tuple[list[str], str]:
    """What the oracle finds, and the run in one line."""
    dice = random.Random(seed)
    async with place(folder, seed, daemons, database) as one:
        turns = asyncio.Semaphore(48)
        calm = asyncio.Event()
        calm.set()
        connector = TCPConnector(limit=0, force_close=True)
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=30)) as session:

            async def send(number: int) -> None:
                async with turns:
                    await calm.wait()
                    await _submit(one, session, seed, number)

            async with asyncio.TaskGroup() as group:
                load = group.create_task(_all(send, tasks))
                for _ in range(kills):
                    await asyncio.sleep(dice.uniform(0.3, 1.0))
                    victim = dice.choice(one.daemons)
                    if daemons == 1:
                        calm.clear()  # what is on its way dies with it, what is not waits
                    await asyncio.to_thread(victim.kill)
                    await asyncio.to_thread(victim.start)
                    calm.set()
                await load
        late = await _ended(one)
        await one.end()
    return faults(one, late), tally(one, late)


async def _all(send: Callable[[int], Awaitable[None]], tasks: int) -> None:
    await asyncio.gather(*(send(number) for number in range(tasks)))


async def _ended(one: Place) -> int:
    """Waits until no task is open; how many still are."""
    for _ in range(round(SETTLED / 0.2)):
        if not await one.open():
            return 0
        await asyncio.sleep(0.2)
    return await one.open()


def faults(one: Place, late: int) -> list[str]:
    """Writes the journals and asks the oracle."""
    meta = {"tokens": START, "price": PRICE, "deadline": DEADLINE, "secrets": [SECRET, *KEYS.values()]}
    (one.folder / "run.json").write_bytes(orjson.dumps(meta))
    (one.folder / "stderr.txt").write_text("".join(daemon.errors for daemon in one.daemons))
    for name, rows in (("upstream", one.upstream.journal()), ("clients", list(one.answers.values()))):
        (one.folder / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = oracle.check_tasks(oracle.read_tasks(one.folder))
    return [*found, *([f"{late} tasks have not ended"] if late else [])]


def tally(one: Place, late: int) -> str:
    """A run in one line."""
    statuses = Counter((told["status"], told["code"]) for told in one.answers.values())
    fates = Counter(life.fate for life in one.upstream.lives.values())
    upstream = f"{len(one.upstream.lives)} tasks upstream: {dict(fates)}"
    return f"{len(one.answers)} submissions, {dict(statuses)}; {upstream}; {late} left open"


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, tasks=10_000, kills=20, daemons=1)
    database = servers.Postgres() if given.daemons > 1 else None
    try:
        async with storm.place(given) as folder:
            found = await run(folder, given.seed, given.tasks, given.kills, daemons=given.daemons, database=database)
            return storm.report(*found, given.seed)
    finally:
        if database is not None:
            database.remove()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
