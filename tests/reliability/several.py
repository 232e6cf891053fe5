"""Four daemons on one PostgreSQL (or MariaDB) and one Redis, behind one address: killed, limited, cut off.

python -m tests.reliability.several kills --seed 7 --seconds 30
python -m tests.reliability.several limit
python -m tests.reliability.several outages --cut 10
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, TCPConnector
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.fakes import chat_upstream, servers
from tests.fakes.cable import Cable, cable
from tests.fakes.engines import statement
from tests.fakes.process import Daemon, free_port
from tests.reliability import storm

COUNT: Final = 4
TABLES: Final = ("ledger", "tokens", "channels", "logs", "proxy_budgets", "proxy_replies")
DATABASE: Final = "several"
BACK: Final = 5.0  # seconds after the end of an outage within which there must be service


@dataclass
class Site:
    """The daemons, their servers and the way to them, the provider and the load."""

    folder: Path
    daemons: list[Daemon]
    database: Any
    redis: servers.Redis
    lines: list[Cable]
    world: storm.World
    slowest: dict[str, float] = field(default_factory=dict)

    async def end(self) -> None:
        """Stops all, gives back what the killed ones held, and writes the tables where the oracle reads them."""
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in self.daemons))
        url = self.database.url(DATABASE)
        await asyncio.to_thread(statement, url, "UPDATE proxy_processes SET at = at - 3600 WHERE at > 0")
        await asyncio.to_thread(self.daemons[0].start)
        await asyncio.to_thread(self.daemons[0].stop)
        await export(url, self.folder / "newapi.db")


@asynccontextmanager
async def site(
    folder: Path, database: Any, redis: servers.Redis, extra: str = "", *, alone: bool = False
) -> AsyncIterator[Site]:
    """Everything that runs; `extra` is appended to the configuration, which names no Redis where `alone`."""
    await asyncio.to_thread(statement, database.url(_default(database)), f"DROP DATABASE IF EXISTS {DATABASE}")
    await asyncio.to_thread(statement, database.url(_default(database)), f"CREATE DATABASE {DATABASE}")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(chat_upstream.serving(storm.script))
        lines = [await stack.enter_async_context(cable(one.port)) for one in (database, redis)]
        port = free_port()
        config = folder / "config.yaml"
        where = f"database: {database.url(DATABASE, lines[0].port)}\n"
        where += "reuse_port: true\n" + ("" if alone else f"redis: {redis.url(lines[1].port)}\n")
        config.write_text(storm.config(port, upstream.url).replace("database: sqlite:///newapi.db\n", where) + extra)
        config.chmod(0o600)
        url = f"http://127.0.0.1:{port}"
        daemons = [Daemon(config, url, log=folder / f"log{number}.jsonl") for number in range(COUNT)]
        world = storm.World(folder, upstream, daemons[0])
        try:
            await asyncio.gather(*(asyncio.to_thread(one.start) for one in daemons))
            world.up.set()  # somebody always serves
            yield Site(folder, daemons, database, redis, lines, world)
        finally:
            await asyncio.gather(*(asyncio.to_thread(one.stop) for one in daemons))


def _default(database: Any) -> str:
    return "postgres" if database.name == "postgresql" else "mysql"


async def export(url: str, to: Path, tables: Iterable[str] = TABLES) -> None:
    """Writes the tables into an SQLite file, where the oracle reads them."""
    driver = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}[url.partition(":")[0]]
    engine = create_async_engine(driver + url[url.index(":") :], poolclass=NullPool)
    async with engine.connect() as conn:
        found = {name: await conn.execute(text(f"SELECT * FROM {name}")) for name in tables}
        read = {name: (list(result.keys()), result.all()) for name, result in found.items()}
    await engine.dispose()
    with closing(sqlite3.connect(to)) as file:
        for name, (columns, rows) in read.items():
            file.execute(f"CREATE TABLE {name} ({', '.join(json.dumps(one) for one in columns)})")
            marks = ", ".join("?" for _ in columns)
            file.executemany(f"INSERT INTO {name} VALUES ({marks})", [[*map(_plain, row)] for row in rows])
        file.commit()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, str, bytes, type(None))) else str(value)


async def killed(
    folder: Path, database: Any, redis: servers.Redis, seed: int, *, seconds: float, rate: float
) -> tuple[list[str], str]:
    """One of four is killed every second under load: what the oracle finds, and the run in one line."""
    dice, count, kills = random.Random(seed), 0, 0
    async with site(folder, database, redis) as one:
        over, living = asyncio.Event(), list(one.daemons)

        async def again(victim: Daemon) -> None:
            await asyncio.to_thread(victim.start)
            living.append(victim)

        async with asyncio.TaskGroup() as group:
            group.create_task(storm.blow(one.world, seed, rate, over))
            begin = time.monotonic()
            while time.monotonic() < begin + seconds:
                await asyncio.sleep(max(0.0, begin + count + 1 - time.monotonic()))
                count += 1
                if len(living) > 1:  # a machine that starts them slowly keeps one
                    victim = living.pop(dice.randrange(len(living)))
                    await asyncio.to_thread(victim.kill)
                    kills += 1
                    group.create_task(again(victim))
            over.set()
        await one.end()
    return one.world.faults(), f"{kills} kills in {count} s, {storm.tally(one.world)}"


async def limit(
    folder: Path, database: Any, redis: servers.Redis, seed: int, *, calls: int = 300, alone: bool = False
) -> tuple[list[str], str]:
    """A key that may have 100 requests a minute, through four daemons: what went wrong, and the run in one line.

    `alone`: without Redis, so that the database counts.
    """
    key = "sk-canary-client-limited-0123456789"
    extra = f"  - {{name: limited, key: {key}, limits: {{rpm: 100}}}}\n"
    async with site(folder, database, redis, extra, alone=alone) as one:
        storm.CLIENT_KEYS["limited"] = key
        plans = [replace(storm.plan(seed, number, faults=False), token="limited", pause=0.0) for number in range(calls)]
        begin = time.monotonic()
        async with ClientSession(connector=TCPConnector(limit=64, force_close=True)) as session:
            await asyncio.gather(*(one.world.send(session, plan) for plan in plans))
        took = time.monotonic() - begin
        await one.end()
    del storm.CLIENT_KEYS["limited"]
    statuses = Counter(answer.status for _, answer in one.world.answers.values())
    faults = one.world.faults()
    served = [(folder / f"log{number}.jsonl").read_text().count('"event":"request"') for number in range(COUNT)]
    if took < 60 and (statuses[200], statuses[429]) != (100, calls - 100):
        faults.append(f"{dict(statuses)} of {calls} within {took:.1f} s")
    return faults, f"{dict(statuses)} in {took:.1f} s, by daemon {served}; {storm.tally(one.world)}"


async def outages(
    folder: Path, database: Any, redis: servers.Redis, seed: int, *, cut: float, rate: float
) -> tuple[list[str], str]:
    """The database restarted, Redis emptied, the network cut, under load: what went wrong, and the run in one line."""
    async with site(folder, database, redis) as one:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.blow(one.world, seed, rate, over))
            for name, outage in _outages(one, cut).items():
                await asyncio.sleep(0.7)
                await outage()
                one.slowest[name] = await _back(one)
            await asyncio.sleep(0.5)
            over.set()
        await one.end()
    faults = one.world.faults()
    faults += [f"service came {seconds:.1f} s after: {name}" for name, seconds in one.slowest.items() if seconds > BACK]
    waits = {name: round(seconds, 2) for name, seconds in one.slowest.items()}
    return faults, f"service after {waits} s; {storm.tally(one.world)}"


def _outages(one: Site, cut: float) -> dict[str, Callable[[], Awaitable[None]]]:
    async def restart() -> None:
        await asyncio.to_thread(one.database.stop)
        await asyncio.to_thread(one.database.start)

    async def crash() -> None:
        await asyncio.to_thread(one.database.kill)
        await asyncio.to_thread(one.database.start)

    async def empty() -> None:
        await asyncio.to_thread(one.redis.stop)
        await asyncio.to_thread(one.redis.start)

    async def silence() -> None:
        for line in one.lines:
            line.freeze()
        await asyncio.sleep(cut)
        for line in one.lines:
            line.thaw()

    return {"restart": restart, "crash": crash, "redis emptied": empty, f"cut of {cut:.0f} s": silence}


async def _back(one: Site) -> float:
    """Seconds until every daemon has served again."""
    begin = time.monotonic()
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        served = 0
        while served < 2 * COUNT:
            plan = replace(storm.plan(1, len(one.world.answers), faults=False), id=f"probe-{time.monotonic_ns()}")
            plan = replace(plan, stream=False, pieces=3, pause=0.0)
            await one.world.send(session, plan)
            _, answer = one.world.answers[plan.id]
            served = served + 1 if answer.status == 200 else 0
    return time.monotonic() - begin


async def main() -> int:
    """The script."""
    what = sys.argv.pop(1)
    given = storm.options(__doc__, seconds=30.0, rate=100.0, cut=10.0)
    database, redis = servers.Postgres(), servers.Redis()
    try:
        async with storm.place(given) as folder:
            match what:
                case "kills":
                    run = killed(folder, database, redis, given.seed, seconds=given.seconds, rate=given.rate)
                case "limit":
                    run = limit(folder, database, redis, given.seed)
                case _:
                    run = outages(folder, database, redis, given.seed, cut=given.cut, rate=given.rate)
            return storm.report(*await run, given.seed)
    finally:
        database.remove()
        redis.remove()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
