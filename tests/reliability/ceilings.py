"""RF28: a crowd runs into every kind of limit at once; nothing gets above one, and in the end no slot is in use.

python -m tests.reliability.ceilings --seed 7 --calls 10000
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import ClientSession, TCPConnector

from tests.fakes.chat_upstream import Call, Reply
from tests.reliability import storm

PRICE: Final = 50  # quota units a call
ALONE, TOGETHER, BY_CHANNEL, BY_KEY = 12, 10, 6, 4  # at the same time: a key's, its group's, a channel's, its key's
DAY: Final = 200  # calls that the key has
FIRST, EACH, SECOND = 120, 70, 60  # calls that the first channel has, each of its keys, the second channel
SERVED: Final = FIRST + SECOND  # less than the key has, and than both keys and the second channel have
ENOUGH: Final = 50  # calls of the poor one: its quota, both its budgets and its own limit say so
PLENTY: Final = 10**9
CONFIG: Final = f"""\
listen: 127.0.0.1:{{port}}
database: sqlite:///newapi.db
groups: {{{{default: {{{{ratio: 1, limits: {{{{concurrency: {TOGETHER}}}}}}}}}, poor: 1}}}}
prices: {{{{storm: {{{{call: 0.0001}}}}}}}}
channels:
  - name: first
    type: openai
    base_url: {{upstream}}/first
    keys: [{storm.UPSTREAM_KEYS[0]}, {storm.UPSTREAM_KEYS[1]}]
    models: [storm]
    priority: 1
    limits: {{{{concurrency: {BY_CHANNEL}, rpd: {FIRST}}}}}
    key_limits: {{{{concurrency: {BY_KEY}, rpd: {EACH}, tpm: 100000000}}}}
  - name: second
    type: openai
    base_url: {{upstream}}/second
    key: {storm.UPSTREAM_KEYS[2]}
    models: [storm]
    limits: {{{{rpd: {SECOND}}}}}
  - name: third
    type: openai
    base_url: {{upstream}}/third
    key: {storm.UPSTREAM_KEYS[2]}
    models: [storm]
    groups: [poor]
    limits: {{{{rpd: {ENOUGH}}}}}
tokens:
  - name: rich
    key: {storm.CLIENT_KEYS["rich"]}
    quota: {PLENTY}
    limits: {{{{concurrency: {ALONE}, rpd: {DAY}, tpm: 100000000}}}}
  - name: poor
    key: {storm.CLIENT_KEYS["poor"]}
    group: poor
    quota: {PRICE * ENOUGH}
    budget: [{{{{amount: {PRICE * ENOUGH}, every: day}}}}, {{{{amount: {PRICE * ENOUGH}, every: month}}}}]
    limits: {{{{rpd: {ENOUGH * 2}}}}}
"""


class Watcher:
    """Counts at the provider how many run at once, by channel and by key."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.most: Counter[str] = Counter()

    def script(self, call: Call) -> Reply:
        """What the storm's plan says, after a look at who else is there."""
        self.calls.append(call)
        here = [one for one in self.calls if one.end == "open"]
        for name in {one.path.split("/")[1] for one in here} | {one.key for one in here}:
            count = sum(1 for one in here if name in (one.path.split("/")[1], one.key))
            self.most[name] = max(self.most[name], count)
        self.calls = here
        return storm.script(call)


async def run(folder: Path, seed: int, calls: int) -> tuple[list[str], str]:
    """What went wrong, and the run in one line. Calls come in crowds, until everything is used up."""
    watcher = Watcher()
    async with storm.world(folder, CONFIG) as one:
        one.upstream.script = watcher.script
        number = 0
        async with ClientSession(connector=TCPConnector(limit=0)) as session:
            while number < calls:
                crowd = range(number, min(calls, number + 250))
                plans = [_plan(seed, place) for place in crowd]
                await asyncio.gather(*(one.send(session, plan) for plan in plans))
                number += len(plans)
        one.daemon.signal(signal.SIGUSR1)
        state = await asyncio.to_thread(_state, folder / "log.jsonl")
    faults = one.faults(units=(0, 0, PRICE), tokens={"rich": PLENTY, "poor": PRICE * ENOUGH})
    faults += [f"{name} is still counted: {count}" for name, count in state.items() if "concurrency" in name]
    return faults + _judged(one, watcher.most), storm.tally(one)


def _plan(seed: int, number: int) -> storm.Plan:
    plan = storm.plan(seed, number, faults=False)
    return replace(plan, token="poor" if number % 4 == 0 else "rich", pieces=min(plan.pieces, 5))


def _state(log: Path) -> dict[str, int]:
    """The limits in the daemon's state line."""
    while True:
        for line in log.read_bytes().splitlines():
            if b'"event":"state"' in line:
                found: dict[str, int] = orjson.loads(line)["limits"]
                return found


def _judged(one: storm.World, most: Counter[str]) -> list[str]:
    keys = storm.UPSTREAM_KEYS
    ceilings = {"first": BY_CHANNEL, "second": TOGETHER, keys[0]: BY_KEY, keys[1]: BY_KEY}
    faults = [f"{most[name]} at once for {name}, not {limit}" for name, limit in ceilings.items() if most[name] > limit]
    asked: Counter[Any] = Counter(call.path.split("/")[1] for call in one.upstream.calls)
    asked.update(call.key for call in one.upstream.calls if call.path.startswith("/first"))
    for name, limit in {"first": FIRST, keys[0]: EACH, keys[1]: EACH, "second": SECOND, "third": ENOUGH}.items():
        if asked[name] > limit:
            faults.append(f"{asked[name]} calls for {name}, not {limit}")
    served = Counter(plan.token for plan, answer in one.answers.values() if answer.complete)
    for name, limit in {"rich": SERVED, "poor": ENOUGH}.items():
        if served[name] > limit or (served[name] < limit and len(one.answers) >= 5_000):
            faults.append(f"{served[name]} calls of {name} were served, not {limit}")
    for _, answer in one.answers.values():
        if answer.status not in (200, 403, 429):
            faults.append(f"status {answer.status}: {answer.body[:200]!r}")
        elif answer.status == 429 and not 1 <= int(answer.headers.get("retry-after", 0)) <= 86_400:
            faults.append(f"429 with Retry-After {answer.headers.get('retry-after')}")
    return faults


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, calls=10_000)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.calls), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
