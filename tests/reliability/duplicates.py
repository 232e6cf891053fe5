"""RF4: many copies of one request under one idempotency key, with kills: one charge, the same bytes for everybody.

python -m tests.reliability.duplicates --seed 7 --keys 1000 --copies 100 --kills 20
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, TCPConnector

from tests.reliability import kills as killing
from tests.reliability import storm

AT_ONCE: Final = 8  # keys
TRIES: Final = 200
AGAIN: Final = (0, 409, 503)  # no answer, one that runs, a daemon that is ending
PATIENCE: Final = 0.1  # seconds before the next try


async def run(folder: Path, seed: int, keys: int, copies: int, kills: int) -> tuple[list[str], str]:
    """What the oracle finds, and the run in one line. Copies try again until they have an answer, as SDKs do."""
    dice = random.Random(seed)
    over = asyncio.Event()
    turns = asyncio.Semaphore(AT_ONCE)
    async with storm.world(folder) as one, ClientSession(connector=TCPConnector(limit=0)) as session:

        async def copy(plan: storm.Plan, number: int) -> None:
            leaves = plan.leave if number % 3 == 0 else None
            for attempt in range(TRIES):
                sent = replace(plan, copy=f".{number}.{attempt}", leave=leaves if attempt == 0 else None)
                await one.up.wait()
                answer = await one.send(session, sent)
                if not (answer.broken or answer.left or answer.status in AGAIN):
                    return
                await asyncio.sleep(dice.uniform(0, PATIENCE))

        async def key(number: int) -> None:
            drawn = storm.plan(seed, number)
            # A stream of one piece that is cut in its middle has no answer whoever asks, and this run wants one a key.
            plan = replace(drawn, token="rich", fault=drawn.fault if drawn.pieces > 1 else "")
            async with turns:
                await asyncio.gather(*(copy(plan, index) for index in range(copies)))

        async def kill() -> None:
            for _ in range(kills):
                await asyncio.sleep(dice.uniform(0.1, 0.8))
                if over.is_set():
                    return
                await killing.strike(one)

        async with asyncio.TaskGroup() as group:
            group.create_task(kill())
            await asyncio.gather(*(key(number) for number in range(keys)))
            over.set()
    finished = _finished(one)
    faults = [*one.faults(), *_unanswered(one, keys)]
    faults += [f"{id} was asked of upstream {count} times" for id, count in finished.items() if count > 1 and not kills]
    times = dict(Counter(finished.values()))
    return faults, f"{storm.tally(one)}; upstream finished {times} (times: keys)"


def _unanswered(one: storm.World, keys: int) -> list[str]:
    """Keys under which no copy saw an answer."""
    seen = {plan.id for plan, answer in one.answers.values() if answer.status == 200 and not answer.broken}
    return [f"{keys - len(seen)} keys were never answered"] if len(seen) < keys else []


def _finished(one: storm.World) -> Counter[str]:
    """Per key how many calls upstream answered to the end; more than one where a kill took the first answer."""
    return Counter(storm.orjson.loads(call.prompt)[0] for call in one.upstream.calls if call.end == "done")


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, keys=1_000, copies=100, kills=20)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.keys, given.copies, given.kills), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
