"""The one async face of the database: writes in groups, one group at a time, reads beside them.

A commit that need not wait for the disk costs less than handing it to a thread and back, and a lone request waits for
nobody: so groups are written on the loop as long as that is quick, which is watched. Where each commit waits for the
disk, another process is writing, or the disk is slow, a thread writes them.

A write is a function of a connection over a batch of items. What waits while a group is written goes into the next
one, so under load the price of a commit is shared, and a lone write waits for nobody. Nothing here knows what is
written. Balances are never read on a request's path: guarded updates decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from newapi_proxy import log
from newapi_proxy.clock import SystemClock
from newapi_proxy.errors import OurError
from newapi_proxy.store import sqlite, upgrades
from newapi_proxy.store.rows import savepoint

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
Function = Callable[[Connection, Sequence[I]], Sequence[R]]
OnCommit = Callable[[float, int], None]

GROUP: Final = 256  # items in one transaction: bounds how long it holds the file
AT_ONCE: Final = 64  # items in a transaction on the loop: bounds how long it holds the loop
SLOW: Final = 0.05  # seconds; a group on the loop that took longer sends the next ones to the thread
WARY: Final = 2.0  # seconds, for so long
FOLD: Final = 250  # items on the loop, after which the thread folds the WAL back
FAR: Final = 4096  # pages of WAL; above, one group is written by the thread, which folds before the next may write
PENDING: Final = 20_000  # writes that may wait; above, the database is too slow to promise anything
KEPT: Final = 100_000  # failed writes that must be done and are kept to be tried again
AGAIN: Final = 1.0  # seconds between two tries


class _Part:
    """Items of one function, in their order, and what became of them."""

    __slots__ = ("error", "fn", "items", "passing", "results", "waiting")

    def __init__(self, fn: Function[Any, Any]) -> None:
        self.fn = fn
        self.items: list[Any] = []
        self.waiting: list[_Waiting] = []
        self.results: Sequence[Any] = ()
        self.error: Exception | None = None
        self.passing = False  # whether the same items may be written later (a lock, a full disk)

    def run(self, conn: Connection, nested: bool) -> None:
        """Calls the function; what it raises is its own items' error and undoes only what it did."""
        try:
            with savepoint(conn) if nested else nullcontext():
                self.results = self.fn(conn, self.items)
                assert len(self.results) == len(self.items)
        except Exception as error:  # handed to the callers who wait for it
            if _lost(conn):
                raise
            self.error = error

    def resolve(self) -> None:
        """Tells those who wait; on the loop."""
        error = self.error
        for place, (_, _, future, _) in enumerate(self.waiting):
            if future.done():
                continue
            if error is None:
                future.set_result(self.results[place])
            else:
                future.set_exception(error)


_Waiting = tuple[Function[Any, Any], Any, "asyncio.Future[Any]", bool]  # the last: whether it must be written


def _parts(group: Sequence[_Waiting]) -> list[_Part]:
    """Items of one function together, as far as order does not matter.

    Items that name the same `request_id` stay in their order (a hold that was given up is voided after it is made);
    items that name none stay in theirs, between what came before and after.
    """
    parts: list[_Part] = []
    last: dict[Any, int] = {}
    seen: dict[str, int] = {}
    for entry in group:
        fn, item, _, _ = entry
        key = getattr(item, "request_id", None)
        place = last.get(fn, -1)
        if place < 0 or (key is not None and seen.get(key, 0) > place) or (key is None and place < len(parts) - 1):
            if key is None:
                last.clear()
            place = last[fn] = len(parts)
            parts.append(_Part(fn))
        if key is not None:
            seen[key] = place
        parts[place].items.append(item)
        parts[place].waiting.append(entry)
    return parts


def _lost(conn: Connection) -> bool:
    """Whether the engine has given up the whole transaction by itself (SQLite does on a full disk)."""
    return conn.dialect.name == "sqlite" and not getattr(conn.connection.dbapi_connection, "in_transaction", True)


def perform(conn: Connection, parts: Sequence[_Part], *, begun: bool = False) -> None:
    """One transaction for the parts, `begun` or not; never raises, errors are in the parts."""
    try:
        if not begun:
            _begin(conn)
        for part in parts:
            part.run(conn, nested=False)
        if len(parts) > 1 and any(part.error is not None for part in parts):
            # Savepoints around every part would cost all groups; one that needs them is rare, and is done once more.
            _rollback(conn)
            _begin(conn)
            for part in parts:
                part.error = None
                part.run(conn, nested=True)
        if all(part.error is not None for part in parts):
            _rollback(conn)
        else:
            _commit(conn)
    except Exception as error:  # the whole group's error
        for part in parts:
            part.error = error
        _rollback(conn)
    for part in parts:
        if part.error is not None:
            part.passing = _passing(conn, part.error)
            part.error = declared(conn, part.error)


def _begin(conn: Connection) -> None:
    if conn.dialect.name == "sqlite":  # takes the write lock now: a later upgrade from a read lock cannot wait
        conn.connection.cursor().execute("BEGIN IMMEDIATE")


def _begun(conn: Connection) -> bool:
    """Whether a transaction could be begun without waiting; why not is found out by who can wait."""
    try:
        _begin(conn)
    except (SQLAlchemyError, conn.dialect.loaded_dbapi.Error):
        _rollback(conn)
        return False
    return True


def _commit(conn: Connection) -> None:
    # SQLAlchemy knows of the transaction only where a function went through its `execute`
    if conn.in_transaction():
        conn.commit()
    else:
        conn.connection.commit()


def _rollback(conn: Connection) -> None:
    try:
        if conn.in_transaction():
            conn.rollback()
        conn.connection.rollback()
    except (SQLAlchemyError, conn.dialect.loaded_dbapi.Error):
        conn.invalidate()  # the next use of the connection opens it anew


def _passing(conn: Connection, error: Exception) -> bool:
    """Whether the database could not write at the moment; what breaks its rules will do so again."""
    driver = conn.dialect.loaded_dbapi
    cause = error.orig if isinstance(error, DBAPIError) else error
    refused = (driver.IntegrityError, driver.DataError, driver.ProgrammingError, driver.NotSupportedError)
    return isinstance(cause, (SQLAlchemyError, driver.Error)) and not isinstance(cause, refused)


def declared(conn: Connection, error: Exception) -> Exception:
    """The database's own errors as OurError; a bug stays what it is."""
    driver = conn.dialect.loaded_dbapi.Error
    if not isinstance(error, (SQLAlchemyError, driver)):
        return error
    failed = OurError(
        "The ledger cannot be written at the moment.", status=503, code="ledger_unavailable", retry_after=5.0
    )
    failed.__cause__ = error
    return failed


class Database:
    """Opened once per process by `open`; all methods belong to the loop's thread."""

    __slots__ = (
        "_again", "_closed", "_ended", "_failing", "_far", "_folding", "_here", "_idle", "_kept", "_lock", "_loop",
        "_on_commit", "_pending", "_readers", "_scheduled", "_unfolded", "_wary", "_writer",
    )  # fmt: skip

    def __init__(
        self,
        writer: sqlite.Writer,
        here: Connection | None,
        readers: AsyncEngine,
        lock: sqlite.Lock,
        on_commit: OnCommit | None,
    ) -> None:
        self._writer = writer
        self._here = here  # the loop's own connection, where commits do not wait
        self._wary = 0.0  # until then, in the loop's time, the thread writes
        self._unfolded = 0
        self._folding = False
        self._far = False
        self._readers = readers
        self._lock = lock
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._pending: list[_Waiting] = []
        self._scheduled = False  # a group is with the writer, or about to go there
        self._kept: list[_Waiting] = []  # must be written, and could not be: to be tried again
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended = False  # the writer takes nothing any more
        self._failing = False
        self._idle: asyncio.Future[None] | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        base: Path,
        durability: sqlite.Durability = "normal",
        on_commit: OnCommit | None = None,
        *,
        patience: float = sqlite.BUSY,
    ) -> Database:
        """Opens and upgrades. `on_commit(seconds, pending)` is called on the loop after each group.

        `patience`: seconds that a group waits for another process's transaction, in the thread.

        Raises OurError: `database_in_use`, `schema_newer`, `database_invalid`, `ledger_unavailable`.
        """
        path = sqlite.locate(_sqlite_url(url), base)
        lock = sqlite.Lock(path)
        try:
            loop = asyncio.get_running_loop()
            engine = sqlite.engine(path, durability, wait=patience)
            await loop.run_in_executor(None, prepare, engine, path)
            conn = await loop.run_in_executor(None, engine.connect)
            hasty = sqlite.engine(path, durability, wait=0, folds=False) if durability == "normal" else None
            here = await loop.run_in_executor(None, hasty.connect) if hasty is not None else None
            return cls(sqlite.Writer(conn), here, sqlite.readers(path), lock, on_commit)
        except BaseException:
            lock.release()
            raise

    def write(self, fn: Function[I, R], item: I, *, must: bool = False) -> asyncio.Future[R]:
        """Puts the item into the writer's queue at once; the future has its result once it is committed.

        Cancelling the future does not cancel the write. The future fails with OurError `ledger_unavailable` where the
        database cannot be written, and with what `fn` raised.

        `must`: not refused while there is a writer, and where the database could not be written at the moment the item
        is kept and tried again, until it is written or the database is closed; the future fails all the same. `fn` must
        be safe to repeat.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        if self._ended or (not must and (self._closed or len(self._pending) >= PENDING)):
            future.set_exception(
                OurError("The ledger takes no writes at the moment.", status=503, code="ledger_unavailable")
            )
            return future
        entry = (fn, item, future, must)
        if must and self._kept and len(self._kept) < KEPT:
            self._kept.append(entry)  # in the order in which they were asked for: a settlement before what voids it
            return future
        self._pending.append(entry)
        self._schedule()
        return future

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._send)  # what else this turn of the loop writes comes along

    async def read(self, fn: Callable[[Connection], R]) -> R:
        """Runs a query beside the writer; it sees what is committed. Raises OurError, or what `fn` raises."""
        try:
            async with self._readers.connect() as conn:
                return await conn.run_sync(fn)
        except DBAPIError as error:
            raise OurError("The database cannot be read.", status=503, code="ledger_unavailable") from error

    async def close(self) -> None:
        """Takes no more writes, waits for those it has, tries once more what must be written, and lets the file go."""
        if self._closed:
            return
        self._closed = True
        await self._written_out()
        if self._kept:
            self._repeat()
            await self._written_out()
        self._ended = True
        if self._again is not None:
            self._again.cancel()
        if self._kept:
            log.logger().error("ledger_unavailable", reason=f"{len(self._kept)} writes were given up at the end")
        if self._here is not None:
            self._here.close()
        await self._writer.close()
        await self._readers.dispose()
        self._lock.release()

    async def _written_out(self) -> None:
        """Waits until nothing is with the writer, nor asked for by those who have just got their results."""
        while self._scheduled:
            self._idle = self._loop.create_future()
            await self._idle

    def _keep(self, parts: Sequence[_Part]) -> None:
        """Puts aside what must be written and could not be now, what waits behind it too: their order stays."""
        failed = [entry for part in parts if part.passing for entry in part.waiting if entry[3]]
        if not failed:
            return
        failed += [entry for entry in self._pending if entry[3]]
        self._pending = [entry for entry in self._pending if not entry[3]]
        self._kept = [*failed, *self._kept][:KEPT]
        if self._again is None and not self._closed:
            self._again = self._loop.call_later(AGAIN, self._repeat)

    def _repeat(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._pending[:0] = self._kept
        self._kept = []
        self._schedule()

    def _send(self) -> None:
        since = perf_counter()
        here = None if self._far or self._loop.time() < self._wary else self._here
        if here is not None and _begun(here):
            self._write_here(here, since)
            return
        self._far = False
        group = self._pending[:GROUP]
        del self._pending[:GROUP]

        def job(conn: Connection) -> Callable[[], None]:
            parts = _parts(group)
            perform(conn, parts)
            return lambda: self._written(parts, since)

        self._writer.submit(job)

    def _write_here(self, conn: Connection, since: float) -> None:
        group = self._pending[:AT_ONCE]
        del self._pending[:AT_ONCE]
        parts = _parts(group)
        perform(conn, parts, begun=True)
        if perf_counter() - since > SLOW:
            self._wary = self._loop.time() + WARY
        self._unfolded += len(group)
        if self._unfolded >= FOLD and not self._folding:
            self._folding, self._unfolded = True, 0
            self._writer.submit(lambda other: partial(self._folded, sqlite.fold(other)))
        self._written(parts, since)

    def _folded(self, pages: int) -> None:
        self._folding = False
        self._far = pages > FAR  # a WAL starts anew only when nobody wrote while it was folded

    def _written(self, parts: Sequence[_Part], since: float) -> None:
        self._keep(parts)
        for part in parts:
            part.resolve()
        if self._pending:
            self._loop.call_soon(self._send)
        else:
            self._scheduled = False
            if self._idle is not None:
                self._idle.set_result(None)
                self._idle = None
        if self._on_commit is not None:
            self._on_commit(perf_counter() - since, len(self._pending))
        self._note(next((part.error for part in parts if isinstance(part.error, OurError)), None))

    def _note(self, error: OurError | None) -> None:
        """One line when the ledger fails, one when it works again."""
        if error is not None and not self._failing:
            log.logger().error("ledger_unavailable", reason=reason(error))
        elif error is None and self._failing and not self._kept:
            log.logger().info("ledger_recovered")
        self._failing = error is not None or bool(self._kept)


def reason(error: BaseException) -> str:
    """The driver's own words, without the statement and its values."""
    cause = error.__cause__ or error
    return str(cause.orig if isinstance(cause, DBAPIError) else cause)


def prepare(engine: Engine, path: Path) -> list[str]:
    """Upgrades the file where it needs it, after a copy if there is data in it; the upgrades done. Raises OurError."""
    try:
        with engine.connect() as conn:
            names = upgrades.pending(conn)
            if names and upgrades.holds_data(conn):
                sqlite.copy(conn, _unused(path))
            if names:
                names = _transaction(conn, lambda: upgrades.upgrade(conn, int(SystemClock.wall())))
            return names
    except (DBAPIError, OSError) as error:
        raise OurError(
            f"The database cannot be opened: {reason(error)}.", status=503, code="ledger_unavailable"
        ) from error


def _transaction(conn: Connection, change: Callable[[], R]) -> R:
    conn.rollback()
    conn.connection.cursor().execute("BEGIN IMMEDIATE")
    try:
        result = change()
    except BaseException:
        _rollback(conn)
        raise
    _commit(conn)
    return result


def _unused(path: Path) -> Path:
    number = 1
    while (to := path.with_name(f"{path.name}.before-upgrade-{number}")).exists():
        number += 1
    return to


def _sqlite_url(url: str) -> URL:
    try:
        made = make_url(url)
    except ArgumentError:
        raise OurError("The database's URL cannot be read.", code="database_invalid") from None
    if made.get_backend_name() != "sqlite":
        raise OurError(f"No driver for {made.get_backend_name()} databases is installed.", code="database_invalid")
    return made


def upgrade(url: str, base: Path) -> list[str]:
    """Brings the schema up to date, as opening does; the upgrades done. Raises OurError."""
    path = sqlite.locate(_sqlite_url(url), base)
    return prepare(sqlite.engine(path, "full"), path)


@contextmanager
def connect(url: str, base: Path, *, write: bool = True) -> Iterator[Connection]:
    """A connection for the command line, beside a running daemon; one transaction, committed on a clean exit.

    With `write` the schema is upgraded where needed; without, nothing is changed and an old schema is an error.
    Raises OurError.
    """
    path = sqlite.locate(_sqlite_url(url), base)
    if not write and not path.exists():
        raise OurError("The database does not exist yet: it is made by the first `serve`.", code="database_missing")
    engine = sqlite.engine(path, "full")
    try:
        if write:
            prepare(engine, path)
        with engine.connect() as conn:
            if not write and upgrades.pending(conn):
                raise OurError("The database needs `newapi-proxy db upgrade` first.", code="schema_older")
            conn.rollback()
            conn.connection.cursor().execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield conn
            except BaseException:
                _rollback(conn)
                raise
            _commit(conn)
    except DBAPIError as error:
        raise OurError(f"The database cannot be used: {reason(error)}.", code="ledger_unavailable") from error
    finally:
        engine.dispose()
