"""Long reads for people, one at a time: each takes one of few threads, which the relay needs too; the others wait here.

Knows no page. Whoever would wait too long, or behind too many, is told to come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from newapi_proxy.errors import OurError
from newapi_proxy.store.db import Database

R = TypeVar("R")

MOST: Final = 20  # that wait at once
MINE: Final = 3  # of one visitor's that wait or are read at once, so that nobody fills the line alone
PATIENCE: Final = 15.0  # seconds of waiting
CODE: Final = "reports_busy"


class Surveys:
    """The one place at which to read, and those who wait for it."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._own: dict[str, int] = {}  # reads by visitor

    async def read(self, database: Database, fn: Callable[[Connection], R], whose: str) -> R:
        """What the function finds, in a thread. Raises OurError: 503 also where too many wait, or of `whose`."""
        own = self._own.get(whose, 0)
        if own >= MINE:
            raise _busy()
        self._own[whose] = own + 1
        try:
            return await self._read(database, fn)
        finally:
            self._own[whose] -= 1
            if not self._own[whose]:
                del self._own[whose]

    async def _read(self, database: Database, fn: Callable[[Connection], R]) -> R:
        if self._waiting >= MOST:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1
        try:
            return await database.survey(fn)
        finally:
            self._turn.release()


def _busy() -> OurError:
    return OurError("Too many reports are being read: try again.", status=503, code=CODE, retry_after=PATIENCE)
