"""RF1: kill -9 at random moments under mixed load, restart, and let the oracle add up.

python -m tests.reliability.kills --seed 7 --kills 50
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.reliability import storm


async def run(folder: Path, seed: int, kills: int, rate: float) -> tuple[list[str], str]:
    """What the oracle finds after `kills` kills, and the run in one line."""
    dice = random.Random(seed)
    async with storm.world(folder) as one:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.blow(one, seed, rate, over))
            for _ in range(kills):
                await asyncio.sleep(dice.uniform(0.2, 1.2))
                await strike(one)
            await asyncio.sleep(0.5)
            over.set()
    return one.faults(), storm.tally(one)


async def strike(one: storm.World) -> None:
    """Kills the daemon and starts it again; what stands in the database in between is kept for the oracle."""
    await asyncio.to_thread(one.daemon.kill)
    one.up.clear()  # what comes now finds nobody, which says nothing of the daemon
    _remember(one, settled(one.folder))
    left = held(one.folder)
    await one.start()
    one.up.set()
    one.stale += sorted(left & held(one.folder))


def _remember(one: storm.World, now: list[dict[str, Any]]) -> None:
    """Keeps each row as it was first seen resolved."""
    known = {row["request_id"] for row in one.settled}
    one.settled += [row for row in now if row["request_id"] not in known]


def held(folder: Path) -> set[str]:
    """What is held at this moment."""
    with closing(sqlite3.connect(folder / "newapi.db")) as conn:
        return {id for (id,) in conn.execute("SELECT request_id FROM ledger WHERE state = 'held'")}


def settled(folder: Path) -> list[dict[str, Any]]:
    """What stands resolved in a database that nobody has open: it must never change again."""
    with closing(sqlite3.connect(folder / "newapi.db")) as conn:
        found = conn.execute("SELECT request_id, state, charged FROM ledger WHERE state <> 'held'")
        return [{"request_id": id, "state": state, "charged": charged} for id, state, charged in found]


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, kills=50, rate=200.0)
    async with storm.place(given) as folder:
        return storm.report(*await run(folder, given.seed, given.kills, given.rate), given.seed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
