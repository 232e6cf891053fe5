"""The load: a seeded mix of whole and streamed requests, some of which leave, and the journals of both sides.

    python -m tests.reliability.storm --seed 7 --rate 200 --seconds 10

Every prompt carries its own plan (how upstream shall answer), so that one seed decides everything and both journals
can be matched without the daemon's help.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import ClientSession, TCPConnector

from tests.fakes import chat_upstream, clients
from tests.fakes.chat_upstream import Call, ChatUpstream, Reply
from tests.fakes.process import Daemon, free_port
from tests.reliability import oracle

MODEL: Final = "storm"
CLIENT_KEYS: Final = {name: f"sk-canary-client-{name}-0123456789" for name in ("rich", "poor")}
UPSTREAM_KEYS: Final = tuple(f"sk-canary-upstream-{name}-0123456789" for name in ("one", "two", "three"))
START: Final = {"rich": 2_000_000_000, "poor": 30_000}
UNITS: Final = (1, 2, 0)  # quota units per input token, per output token, per call
MAX_ATTEMPTS: Final = 3
MOST: Final = 10_000  # requests at a time
CHAT: Final = "/v1/chat/completions"
MESSAGES: Final = "/v1/messages"  # the same in another language than upstream's

CONFIG: Final = """\
listen: 127.0.0.1:{port}
database: sqlite:///newapi.db
relay: {{max_attempts: 3, first_token_timeout: 10s}}
prices:
  storm: {{input: 2, output: 4}}
channels:
  - name: first
    type: openai
    base_url: {upstream}/first
    keys: [{one}, {two}]
    models: [storm]
    priority: 1
    auto_disable: false
    headers: {{X-Conf: "{mark}"}}
    override: {{set: {{user: "{mark}"}}}}
  - name: second
    type: openai
    base_url: {upstream}/second
    key: {three}
    models: [storm]
    auto_disable: false
    headers: {{X-Conf: "{mark}"}}
    override: {{set: {{user: "{mark}"}}}}
tokens:
  - {{name: rich, key: {rich}, quota: {rich_quota}, budget: {{amount: $2000, every: day}}}}
  - {{name: poor, key: {poor}, quota: {poor_quota}}}
"""


def config(port: int, upstream: str, mark: str = "a") -> str:
    """The configuration; `mark` goes to upstream twice, so that a mixture of two configurations would show."""
    one, two, three = UPSTREAM_KEYS
    return CONFIG.format(
        port=port, upstream=upstream, mark=mark, one=one, two=two, three=three, **CLIENT_KEYS,
        rich_quota=START["rich"], poor_quota=START["poor"],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One request: who sends it, how upstream answers, when the client leaves.

    `copy` tells copies apart that are sent under one idempotency key, which is the id; `twice`: there are two.
    """

    id: str
    token: str
    stream: bool
    prompt: int
    completion: int
    pieces: int
    pause: float
    fault: str
    leave: float | None
    copy: str = ""
    twice: bool = False
    path: str = CHAT

    @property
    def sent(self) -> str:
        """The request's own id."""
        return self.id + self.copy

    def body(self) -> dict[str, Any]:
        """What the client sends."""
        text = orjson.dumps([self.id, self.prompt, self.completion, self.pieces, self.pause, self.fault]).decode()
        body = clients.chat(MODEL, text, stream=self.stream, max_tokens=self.completion)
        if self.path == MESSAGES:
            body.pop("stream_options", None)
        return body

    def journal(self) -> dict[str, Any]:
        """What the oracle must know of it."""
        size = len(orjson.dumps(self.body()))
        return {"prompt": self.prompt, "completion": self.completion, "pieces": self.pieces, "bytes": size}


def plan(seed: int, number: int, *, faults: bool = True) -> Plan:
    """The seed's request of this number."""
    dice = random.Random(f"{seed}/{number}")
    stream = dice.random() < 0.5
    pieces = dice.randint(1, 30) if stream else 3
    pause = dice.choice((0.0, 0.0, 0.002, 0.01))
    fault = dice.choices(("", "busy", "cut"), (90, 6, 4))[0] if faults else ""
    leaves = faults and dice.random() < 0.1
    return Plan(
        id=f"storm-{seed}-{number}",
        token=dice.choices(("rich", "poor"), (95, 5))[0] if faults else "rich",
        stream=stream,
        prompt=dice.randint(1, 3_000),
        completion=dice.randint(pieces, 500),
        pieces=pieces,
        pause=pause,
        fault=fault if stream or fault != "cut" else "",
        leave=dice.uniform(0.001, 0.25) if leaves else None,
        twice=faults and dice.random() < 0.1,
        path=dice.choices((CHAT, MESSAGES), (75, 25))[0],
    )


def script(call: Call) -> Reply:
    """What the plan inside the prompt says."""
    _, prompt, completion, pieces, pause, fault = orjson.loads(call.prompt)
    if fault == "busy" and call.path.startswith("/first"):
        return Reply(status=503, message="busy")
    return Reply(
        pieces=tuple(f"word{number} " for number in range(pieces)),
        prompt=prompt,
        completion=completion,
        pause=pause,
        cut=pieces // 2 if fault == "cut" else None,
    )


@dataclass
class World:
    """A daemon between a mock provider and the load, with the folder that the oracle reads afterwards."""

    folder: Path
    upstream: ChatUpstream
    daemon: Daemon
    answers: dict[str, tuple[Plan, clients.Answer]] = field(default_factory=dict)
    settled: list[dict[str, Any]] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    up: asyncio.Event = field(default_factory=lambda: _set(asyncio.Event()))

    def reconfigure(self, text: str) -> None:
        """Replaces the configuration file at once."""
        fresh = self.daemon.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.replace(self.daemon.config)

    async def start(self) -> None:
        """Starts the daemon off the loop, which goes on serving as upstream."""
        await asyncio.to_thread(self.daemon.start)

    async def stop(self) -> int:
        """Stops it the same way."""
        return await asyncio.to_thread(self.daemon.stop)

    async def send(self, session: ClientSession, one: Plan) -> clients.Answer:
        """Sends one request and keeps its answer."""
        headers = {"x-request-id": one.sent} | ({"idempotency-key": one.id} if one.copy else {})
        url = f"{self.daemon.url}{one.path}"
        key = CLIENT_KEYS[one.token]
        answer = await clients.post(session, url, one.body(), key=key, headers=headers, leave=one.leave)
        self.answers[one.sent] = (one, answer)
        return answer

    def faults(self, units: tuple[int, int, int] = UNITS, tokens: dict[str, int] | None = None) -> list[str]:
        """Writes the journals and asks the oracle. The daemon must have ended."""
        secrets = [*CLIENT_KEYS.values(), *UPSTREAM_KEYS]
        meta = {"tokens": tokens or START, "units": units, "max_attempts": MAX_ATTEMPTS, "secrets": secrets}
        meta["stale"] = self.stale
        (self.folder / "run.json").write_bytes(orjson.dumps(meta))
        (self.folder / "stderr.txt").write_text(self.daemon.errors)
        _write(self.folder / "settled.jsonl", self.settled)
        _write(self.folder / "upstream.jsonl", [_call(call) for call in self.upstream.calls])
        _write(self.folder / "clients.jsonl", [_answer(one, answer) for one, answer in self.answers.values()])
        return oracle.check(oracle.read(self.folder))


def _set(event: asyncio.Event) -> asyncio.Event:
    event.set()
    return event


def _call(call: Call) -> dict[str, Any]:
    text = repr(call.headers) + repr(call.body)
    return {
        "id": orjson.loads(call.prompt)[0],
        "channel": call.path.split("/")[1],
        "key": call.key,
        "end": call.end,
        "sent": call.sent,
        "pieces": call.pieces,
        "leak": any(key in text for key in CLIENT_KEYS.values()),
    }


def _answer(one: Plan, answer: clients.Answer) -> dict[str, Any]:
    text = answer.body + repr(answer.headers).encode()
    seen = one.copy and answer.status == 200 and not answer.broken and not answer.left
    return {
        "id": one.sent,
        "key": one.id if one.copy else None,
        "seen": hashlib.sha256(answer.body).hexdigest() if seen else None,
        "plan": one.journal(),
        "status": answer.status,
        "complete": answer.complete,
        "left": answer.left,
        "pieces": _pieces(answer),
        "usage": _usage(answer) if answer.complete else None,
        "leak": any(key.encode() in text for key in (*CLIENT_KEYS.values(), *UPSTREAM_KEYS)),
    }


def _usage(answer: clients.Answer) -> dict[str, int] | None:
    """The usage that the client saw, by one language's names."""
    told = answer.usage
    if not told or "input_tokens" not in told:
        return told
    cached = (told.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    return {"prompt_tokens": told["input_tokens"] + sum(cached), "completion_tokens": told["output_tokens"]}


def _pieces(answer: clients.Answer) -> int:
    """How many pieces of the answer's text the client saw: of a whole answer all or none."""
    if answer.status != 200 or not (answer.streamed or answer.complete):
        return 0
    return answer.text.count("word")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


@asynccontextmanager
async def world(folder: Path, text: str = "") -> AsyncIterator[World]:
    """A provider that follows the plans and a daemon that serves; both end with the block."""
    async with chat_upstream.serving(script) as upstream:
        port = free_port()
        path = folder / "config.yaml"
        made = text.format(port=port, upstream=upstream.url) if text else config(port, upstream.url)
        path.write_text(made)
        path.chmod(0o600)
        one = World(folder, upstream, Daemon(path, f"http://127.0.0.1:{port}", log=folder / "log.jsonl"))
        await one.start()
        try:
            yield one
        finally:
            await one.stop()


async def blow(
    one: World, seed: int, rate: float, over: asyncio.Event, *, faults: bool = True, most: int = MOST
) -> None:
    """Sends the seed's requests at a rate while somebody is up, until it is over; then waits for the last answers.

    `most`: so many at a time; where they are answered more slowly than they come, they come more slowly.
    """
    loop = asyncio.get_running_loop()
    due, number, free = loop.time(), 0, asyncio.Semaphore(most)
    async with ClientSession(connector=TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        while not over.is_set():
            wanted = plan(seed, number, faults=faults)
            copies = [replace(wanted, copy=mark) for mark in (".a", ".b")] if wanted.twice else [wanted]
            for copy in copies:
                await free.acquire()
                group.create_task(one.send(session, copy)).add_done_callback(lambda _: free.release())
            number += 1
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not one.up.is_set():
                await one.up.wait()
                due = loop.time()


def tally(one: World) -> str:
    """A run in one line."""
    answers = [answer for _, answer in one.answers.values()]
    statuses = dict(Counter(answer.status for answer in answers))
    complete = sum(1 for answer in answers if answer.complete)
    calls = len(one.upstream.calls)
    return f"{len(answers)} requests, {complete} complete, statuses {statuses}, {calls} upstream calls"


async def run(folder: Path, seed: int, rate: float, seconds: float) -> tuple[list[str], str]:
    """A storm without kills: what the oracle finds, and the run in one line."""
    async with world(folder) as one:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        await blow(one, seed, rate, over)
    return one.faults(), tally(one)


def options(description: str | None, **defaults: float) -> argparse.Namespace:
    """A script's command line: --seed, --keep and a number each for the script's own sizes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", metavar="FOLDER", help="where the run's files stay")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def report(faults: list[str], summary: str, seed: int) -> int:
    """Prints a run's end; the exit status."""
    print("\n".join(faults[:50]))
    print(f"seed {seed}: {summary}; {len(faults)} faults")
    return 1 if faults else 0


@asynccontextmanager
async def place(given: argparse.Namespace) -> AsyncIterator[Path]:
    """The folder of a run."""
    if given.keep:
        Path(given.keep).mkdir(parents=True, exist_ok=True)
        yield Path(given.keep)
    else:
        with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
            yield Path(folder)


async def main() -> int:
    """The script."""
    given = options(__doc__, rate=200.0, seconds=10.0)
    async with place(given) as folder:
        return report(*await run(folder, given.seed, given.rate, given.seconds), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
