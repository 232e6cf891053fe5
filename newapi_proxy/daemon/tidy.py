"""What is done now and then beside the requests, in steps that keep no request waiting.

Answers whose time is over are deleted. A round that fails is done again with the next one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from newapi_proxy import log, metrics
from newapi_proxy.clock import Clock
from newapi_proxy.errors import OurError
from newapi_proxy.store import replies
from newapi_proxy.store.db import Database

EVERY: Final = 60.0  # seconds between two rounds


async def tidy(database: Database, clock: Clock, over: asyncio.Event) -> None:
    """Rounds until it is over."""
    while not over.is_set():
        try:
            await one_round(database, int(clock.wall()))
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


async def one_round(database: Database, now: int) -> None:
    """Everything that is due at `now` (unix seconds)."""
    pruned = replies.BATCH
    while pruned == replies.BATCH:
        pruned = await database.write(replies.prune, now)
