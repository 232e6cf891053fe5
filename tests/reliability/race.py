"""RF3: 500 parallel calls on a balance for exactly 50.

python -m tests.reliability.race --seed 7 --calls 500
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, TCPConnector

from tests.reliability import storm

PRICE: Final = 50  # quota units a call
ENOUGH: Final = 50  # calls that the balance pays for
CONFIG: Final = f"""\
listen: 127.0.0.1:{{port}}
database: sqlite:///newapi.db
prices:
  storm: {{{{call: 0.0001}}}}
channels:
  - {{{{name: first, type: openai, base_url: "{{upstream}}/first", key: {storm.UPSTREAM_KEYS[0]}, models: [storm]}}}}
tokens:
  - {{{{name: poor, key: {storm.CLIENT_KEYS["poor"]}, quota: {PRICE * ENOUGH}}}}}
"""


async def run(folder: Path, seed: int, calls: int) -> tuple[list[str], str]:
    """What went wrong, and the run in one line."""
    async with storm.world(folder, CONFIG) as one, ClientSession(connector=TCPConnector(limit=0)) as session:
        plans = [replace(storm.plan(seed, number, faults=False), token="poor") for number in range(calls)]
        await asyncio.gather(*(one.send(session, plan) for plan in plans))
    faults = one.faults(units=(0, 0, PRICE), tokens={"poor": PRICE * ENOUGH})
    answers = [answer for _, answer in one.answers.values()]
    if (won := sum(1 for answer in answers if answer.complete)) != min(calls, ENOUGH):
        faults.append(f"{won} calls were served, the balance is for {ENOUGH}")
    faults += [
        f"status {answer.status}: {answer.body[:200]!r}" for answer in answers if answer.status not in (200, 401, 403)
    ]
    return faults, storm.tally(one)


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, calls=500)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.calls), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
