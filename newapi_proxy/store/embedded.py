"""How SQLite writes a group: on the loop as long as that is quick, which is watched, else in a thread.

A commit that need not wait for the disk costs less than handing it to a thread and back, and a lone request waits for
nobody. Where each commit waits for the disk, another process is writing, or the disk is slow, a thread writes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from newapi_proxy.store import sqlite
from newapi_proxy.store.groups import GROUP, R, Source, begin, parts_of, perform, rollback

AT_ONCE: Final = 64  # items in a transaction on the loop: bounds how long it holds the loop
SLOW: Final = 0.05  # seconds; a group on the loop that took longer sends the next ones to the thread
WARY: Final = 2.0  # seconds, for so long
FOLD: Final = 1000  # pages of WAL written on the loop, by estimate, after which the thread folds it back
PER_GROUP: Final = 9  # pages that a transaction writes whatever is in it: its tables' and indexes' last ones
FAR: Final = 4096  # pages of WAL; above, one group is written by the thread, which folds before the next may write


class Embedded:
    """The engine of one file. Opened by `open`; all methods belong to the loop's thread."""

    __slots__ = (
        "_far", "_folding", "_here", "_lock", "_loop", "_readers", "_unfolded", "_wary", "_writer", "boot",
    )  # fmt: skip
    shared: Final = False  # the lock keeps others off

    def __init__(
        self, writer: sqlite.Writer, here: Connection | None, readers: sqlite.Readers, lock: sqlite.Lock, boot: str
    ) -> None:
        self.boot = boot
        self._writer = writer
        self._here = here  # the loop's own connection, where commits do not wait
        self._readers = readers
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._wary = 0.0  # until then, in the loop's time, the thread writes
        self._unfolded = 0
        self._folding = False
        self._far = False

    @classmethod
    async def open(
        cls, path: Path, lock: sqlite.Lock, durability: sqlite.Durability, patience: float, boot: str
    ) -> Embedded:
        """Connects to a file that is up to date. `patience`: seconds for another process's transaction."""
        run = asyncio.get_running_loop().run_in_executor
        conn = await run(None, sqlite.engine(path, durability, wait=patience).connect)
        hasty = sqlite.engine(path, durability, wait=0, folds=False) if durability == "normal" else None
        here = await run(None, hasty.connect) if hasty is not None else None
        return cls(sqlite.Writer(conn), here, await sqlite.Readers.open(path), lock, boot)

    @property
    def instant(self) -> bool:
        return self._here is not None

    def living(self, conn: Connection) -> tuple[str, ...]:
        return (self.boot,)

    async def read(self, fn: Callable[[Connection], R]) -> R:
        return await self._readers.report(fn)

    async def survey(self, fn: Callable[[Connection], R]) -> R:
        return await self._readers.survey(fn)

    async def close(self) -> None:
        if self._here is not None:
            self._here.close()
        await self._writer.close()
        await self._readers.close()
        self._lock.release()

    def send(self, source: Source) -> None:
        since = perf_counter()
        here = None if self._far or self._loop.time() < self._wary else self._here
        if here is not None and _begun(here):
            self._write_here(source, here, since)
            return
        self._far = False
        group = source.take(GROUP)

        def job(conn: Connection) -> Callable[[], None]:
            parts = parts_of(group)
            perform(conn, parts)
            return lambda: source.written(parts, since)

        self._writer.submit(job)

    def _write_here(self, source: Source, conn: Connection, since: float) -> None:
        group = source.take(AT_ONCE)
        parts = parts_of(group)
        perform(conn, parts, begun=True)
        if perf_counter() - since > SLOW:
            self._wary = self._loop.time() + WARY
        self._unfolded += PER_GROUP + len(group) // 2
        if self._unfolded >= FOLD and not self._folding:
            self._folding, self._unfolded = True, 0
            self._writer.submit(lambda other: partial(self._folded, sqlite.fold(other)))
        source.written(parts, since)

    def _folded(self, pages: int) -> None:
        self._folding = False
        self._far = pages > FAR  # a WAL starts anew only when nobody wrote while it was folded


def _begun(conn: Connection) -> bool:
    """Whether a transaction could be begun without waiting; why not is found out by who can wait."""
    try:
        begin(conn)
    except (SQLAlchemyError, conn.dialect.loaded_dbapi.Error):
        rollback(conn)
        return False
    return True
