"""Follows what others change in the database while the daemon runs: New API's pages, the command line, plain SQL.

A look each second asks the engine's own signal first; only then rows are read, and only rows that configure differently
make a new snapshot. Reading takes a small share of the time, however large the tables are. Source: interfaces §3.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

from newapi_proxy import log, metrics
from newapi_proxy.daemon.reload import Reloader
from newapi_proxy.daemon.view import Views
from newapi_proxy.errors import OurError

EVERY: Final = 1.0  # seconds between two looks
READING: Final = 5.0  # the same where each look has to read
SHARE: Final = 20  # at most one part in so many of the time is spent on it


async def follow(views: Views, reloader: Reloader, end: asyncio.Event, *, shared: bool) -> None:
    """Looks until the end. A database that does not answer is asked at the next look."""
    least = READING if shared else EVERY
    pause = least
    while not end.is_set():
        try:
            async with asyncio.timeout(pause):
                await end.wait()
        except TimeoutError:
            pause = max(least, SHARE * await _look(views, reloader))


async def _look(views: Views, reloader: Reloader) -> float:
    """One look; the seconds it took."""
    since = perf_counter()
    try:
        if await views.moved():
            await reloader.refresh()
    except OurError:
        pass  # the writer has said so
    except Exception as error:
        metrics.bug()
        log.bug(error, where="following the database")
    return perf_counter() - since
