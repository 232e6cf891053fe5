"""Keeps the tables of past requests as short as the configuration wants, in steps between which everybody else writes.

Source: `retention` in the configuration. Absent, everything is kept.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from newapi_proxy import log, metrics
from newapi_proxy.billing import forgetting
from newapi_proxy.errors import OurError
from newapi_proxy.relay.house import House
from newapi_proxy.store import retention
from newapi_proxy.store.db import Database
from newapi_proxy.store.retention import Step

EVERY: Final = 3600.0  # seconds between two passes
REST: Final = 0.02  # seconds between two steps, at least
SHARE: Final = 4  # a step is followed by so many times its own time
FOUND: Final = 1000  # rows of the ledger that one read looks up


async def retain(house: House, end: asyncio.Event) -> None:
    """Passes until the end. One that fails is made again with the next."""
    while not end.is_set():
        kept = house.snapshot.config.retention
        try:
            if kept is not None:
                await sweep(house.db, int(house.clock.wall()), int(kept))
        except OurError:
            pass  # the ledger says by itself that it cannot be written
        except Exception as error:
            metrics.bug()
            log.bug(error, where="retention")
        try:
            async with asyncio.timeout(EVERY):
                await end.wait()
        except TimeoutError:
            continue


async def sweep(database: Database, now: int, kept: int) -> tuple[int, int]:
    """Deletes what is older than `kept` seconds; how many rows of the log and of the ledger. Raises OurError."""
    step = await database.write(retention.prune, Step(now - kept))
    while not step.done:
        await asyncio.sleep(max(REST, SHARE * step.seconds))
        step = await database.write(retention.prune, step)
    forgotten, size = 0, retention.FIRST
    before = now - max(kept, forgetting.KEPT)
    while ids := await database.read(lambda conn: forgetting.due(conn, before, FOUND)):
        while ids:
            since = perf_counter()
            forgotten += await database.write(forgetting.forget, ids[:size])
            seconds = perf_counter() - since
            ids, size = ids[size:], retention.paced(size, seconds)
            await asyncio.sleep(max(REST, SHARE * seconds))
    if step.deleted or forgotten:
        log.logger().info("rows_pruned", logs=step.deleted, ledger=forgotten)
    return step.deleted, forgotten
