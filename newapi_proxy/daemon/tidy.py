"""What is done now and then beside the requests, in steps that keep no request waiting.

Answers whose time is over are deleted, and the log is counted into the hourly sums. A round that fails is done again
with the next one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from newapi_proxy import log, metrics
from newapi_proxy.clock import Clock
from newapi_proxy.errors import OurError
from newapi_proxy.store import hourly, replies
from newapi_proxy.store.db import Database

EVERY: Final = 60.0  # seconds between two rounds


async def tidy(database: Database, clock: Clock, over: asyncio.Event) -> None:
    """Rounds until it is over."""
    seen = 0
    while not over.is_set():
        try:
            seen = await one_round(database, int(clock.wall()), seen)
        except OurError:  # the ledger says by itself that it cannot be written
            pass
        except Exception as error:
            metrics.bug()
            log.bug(error, where="tidy")
        try:
            async with asyncio.timeout(EVERY):
                await over.wait()
        except TimeoutError:
            continue


async def one_round(database: Database, now: int, seen: int = 0) -> int:
    """Everything that is due at `now` (unix seconds). `seen` is what the last round returned: the log's last row then.

    Where several processes write the log, a row may come after one with a higher number; a round later it is there.
    """
    pruned = replies.BATCH
    while pruned == replies.BATCH:
        pruned = await database.write(replies.prune, now)
    newest = await database.read(hourly.newest)
    more = True
    while more:
        more = await database.write(hourly.gather, seen if database.shared else newest)
    return newest
