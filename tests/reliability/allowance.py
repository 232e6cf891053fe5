"""A budget for exactly 50 calls under a crowd that is killed in the middle: 50 are charged, whatever dies.

python -m tests.reliability.allowance --seed 7 --calls 500 --kills 5
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import ClientSession, TCPConnector

from tests.reliability import storm
from tests.reliability.kills import settled

PRICE: Final = 50  # quota units a call
ENOUGH: Final = 50  # calls that the budget pays for
PLENTY: Final = 10**9
CONFIG: Final = f"""\
listen: 127.0.0.1:{{port}}
database: sqlite:///newapi.db
prices:
  storm: {{{{call: 0.0001}}}}
channels:
  - {{{{name: first, type: openai, base_url: "{{upstream}}/first", key: {storm.UPSTREAM_KEYS[0]}, models: [storm]}}}}
tokens:
  - name: poor
    key: {storm.CLIENT_KEYS["poor"]}
    quota: {PLENTY}
    budget: [{{{{amount: {PRICE * ENOUGH}, every: month}}}}, {{{{amount: {PRICE * (ENOUGH + 1)}, every: week}}}}]
"""


async def run(folder: Path, seed: int, calls: int, kills: int) -> tuple[list[str], str]:
    """What went wrong, and the run in one line. Every kill has its share of the calls, the last share has none."""
    dice = random.Random(seed)
    share = calls // (kills + 1)
    async with storm.world(folder, CONFIG) as one:
        for number in range(kills + 1):
            first = number * share
            plans = [replace(storm.plan(seed, first + n, faults=False), token="poor") for n in range(share)]
            async with ClientSession(connector=TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
                for plan in plans:
                    group.create_task(one.send(session, plan))
                if number < kills:
                    await asyncio.sleep(dice.uniform(0.01, 0.15))
                    await asyncio.to_thread(one.daemon.kill)
            if number < kills:
                one.settled = settled(folder)
                await one.start()
    faults = one.faults(units=(0, 0, PRICE), tokens={"poor": PLENTY})
    return faults + _spent(folder, one), storm.tally(one)


def _spent(folder: Path, one: storm.World) -> list[str]:
    """Neither more nor less than the budget is spent. A month that ends meanwhile gives as much again."""
    with closing(sqlite3.connect(folder / "newapi.db")) as conn:
        windows = conn.execute("SELECT used FROM proxy_budgets WHERE every = 'month'").fetchall()
    faults = [f"a month's budget has {used} of {PRICE * ENOUGH} spent" for (used,) in windows if used != PRICE * ENOUGH]
    complete = sum(1 for _, answer in one.answers.values() if answer.complete)
    if complete > ENOUGH * len(windows):
        faults.append(f"{complete} calls were served, the budget is for {ENOUGH}")
    return faults


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, calls=500, kills=5)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.calls, given.kills), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
