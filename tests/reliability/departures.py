"""RF17: clients leave at random moments of a stream; upstream is let go at once, and the ledger closes every account.

python -m tests.reliability.departures --seed 7 --clients 1000
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import replace
from pathlib import Path

from aiohttp import ClientSession, TCPConnector

from tests.reliability import storm


async def run(folder: Path, seed: int, clients: int, within: float) -> tuple[list[str], str]:
    """What went wrong: an upstream stream that ran on for more than `within` seconds, an account that is off."""
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    left: dict[str, float] = {}

    async with storm.world(folder) as one, ClientSession(connector=TCPConnector(limit=0)) as session:

        async def leave(number: int) -> None:
            plan = storm.plan(seed, number, faults=False)
            plan = replace(plan, stream=True, pieces=200, completion=400, pause=0.02, leave=dice.uniform(0.01, 1.5))
            await one.send(session, plan)
            left[plan.id] = loop.time()

        for start in range(0, clients, 100):
            await asyncio.gather(*(leave(number) for number in range(start, min(start + 100, clients))))
        await _ended(one, within)
    faults = one.faults()
    slowest = 0.0
    for call in one.upstream.calls:
        id = storm.orjson.loads(call.prompt)[0]
        slowest = max(slowest, call.ended - left[id])
        if call.end != "gone" or call.ended - left[id] > within:
            faults.append(f"{id}: upstream's stream is {call.end}, {call.ended - left[id]:.3f} s after the client left")
    return faults, f"{storm.tally(one)}; the slowest was let go after {slowest * 1000:.0f} ms"


async def _ended(one: storm.World, within: float) -> None:
    for _ in range(round(within / 0.02) + 1):
        if all(call.end != "open" for call in one.upstream.calls):
            return
        await asyncio.sleep(0.02)


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, clients=1_000, within=1.0)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.clients, given.within), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
