"""Many writes as one transaction: which of them go together, in what order, and whose errors are whose.

Pure but for the connection it is given; knows no engine's way to begin, and nothing of what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from newapi_proxy.errors import OurError
from newapi_proxy.store.rows import savepoint

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
Function = Callable[[Connection, Sequence[I]], Sequence[R]]
Waiting = tuple[Function[Any, Any], Any, "asyncio.Future[Any]", bool]  # the last: whether it must be written
Living = Select[tuple[str]] | tuple[str, ...]
GROUP: Final = 256  # items in one transaction: bounds how long it holds the tables


class Part:
    """Items of one function, in their order, and what became of them."""

    __slots__ = ("error", "fn", "items", "passing", "results", "waiting")

    def __init__(self, fn: Function[Any, Any], waiting: Iterable[Waiting] = ()) -> None:
        self.fn = fn
        self.waiting = list(waiting)
        self.items = [entry[1] for entry in self.waiting]
        self.results: Sequence[Any] = ()
        self.error: Exception | None = None
        self.passing = False  # whether the same items may be written later (a lock, a full disk)

    def run(self, conn: Connection, nested: bool) -> None:
        """Calls the function; what it raises is its own items' error and undoes only what it did."""
        self.error = None
        try:
            if nested:
                with savepoint(conn):
                    self._call(conn)
            else:
                self._call(conn)
        except Exception as error:  # handed to the callers who wait for it
            if _lost(conn):
                raise
            self.error = error

    def _call(self, conn: Connection) -> None:
        self.results = self.fn(conn, self.items)
        assert len(self.results) == len(self.items)

    def resolve(self) -> None:
        """Tells those who wait; on the loop."""
        error = self.error
        if error is None:
            for (_, _, future, _), result in zip(self.waiting, self.results, strict=True):
                if not future.done():
                    future.set_result(result)
            return
        for _, _, future, _ in self.waiting:
            if not future.done():
                future.set_exception(error)


class Source(Protocol):
    """The queue as an engine sees it; on the loop."""

    def take(self, most: int) -> list[Waiting]:
        """The next group, at most so many, out of the queue."""
        ...

    def written(self, parts: Sequence[Part], since: float) -> None:
        """The group that was taken is committed, or failed as its parts say. `since`: `perf_counter` at its begin."""
        ...

    def refuse(self, cause: OurError | None) -> None:
        """Nothing can be written for now: takes and keeps only what must be. With None it is as before."""
        ...

    @property
    def closing(self) -> bool:
        """Whether the process ends: then nothing is worth a long wait."""
        ...


class Engine(Protocol):
    """How a group becomes a transaction of one kind of database, and how it is read beside."""

    @property
    def boot(self) -> str:
        """The name under which this process holds money."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the same database."""
        ...

    @property
    def instant(self) -> bool:
        """Whether a group that is sent now is written when `send` returns, as far as can be foreseen."""
        ...

    def living(self, conn: Connection) -> Living:
        """The names of the processes that answer for their holds, this one among them; in a writing transaction."""
        ...

    def send(self, source: Source) -> None:
        """Takes one group and says when it is written. Called on the loop, never while one is under way."""
        ...

    async def read(self, fn: Callable[[Connection], R]) -> R:
        """Runs a query that sees what is committed. Raises what the driver raises, and what `fn` does."""
        ...

    async def survey(self, fn: Callable[[Connection], R]) -> R:
        """The same for what reads much: by a thread, so that nobody waits for it. Raises OurError too."""
        ...

    async def close(self) -> None:
        """Lets the database go. Nothing is under way."""
        ...


def parts_of(group: Sequence[Waiting]) -> list[Part]:
    """Items of one function together, as far as order does not matter.

    Items that name the same `request_id` stay in their order (a hold that was given up is voided after it is made);
    items that name none stay in theirs, between what came before and after.
    """
    if len(group) == 1:
        return [Part(group[0][0], group)]
    parts: list[Part] = []
    last: dict[Any, int] = {}
    seen: dict[str, int] = {}
    for entry in group:
        fn, item, _, _ = entry
        place = last.get(fn, -1)
        try:
            key = item.request_id
        except AttributeError:
            key = None
        if place < 0 or (place < len(parts) - 1 if key is None else key in seen and seen[key] > place):
            if key is None:
                last.clear()
            place = last[fn] = len(parts)
            parts.append(Part(fn))
        if key is not None:
            seen[key] = place
        part = parts[place]
        part.items.append(item)
        part.waiting.append(entry)
    return parts


def _lost(conn: Connection) -> bool:
    """Whether the engine has given up the whole transaction by itself (SQLite does on a full disk)."""
    return conn.dialect.name == "sqlite" and not getattr(conn.connection.dbapi_connection, "in_transaction", True)


def perform(conn: Connection, parts: Sequence[Part], *, begun: bool = False) -> None:
    """One transaction for the parts, `begun` or not; never raises, errors are in the parts."""
    try:
        if not begun:
            begin(conn)
        for part in parts:
            part.run(conn, nested=False)
        if len(parts) > 1 and any(part.error is not None for part in parts):
            # Savepoints around every part would cost all groups; one that needs them is rare, and is done once more.
            rollback(conn)
            begin(conn)
            for part in parts:
                part.run(conn, nested=True)
        if all(part.error is not None for part in parts):
            rollback(conn)
        else:
            commit(conn)
    except Exception as error:  # the whole group's error
        for part in parts:
            part.error = error
        rollback(conn)
    told(conn, parts)


def told(conn: Connection, parts: Sequence[Part]) -> None:
    """Turns the database's own errors into what callers hear."""
    for part in parts:
        if part.error is not None:
            part.passing = passing(conn, part.error)
            part.error = _declared(conn, part.error)


def begin(conn: Connection) -> None:
    """Begins where the engine does not by itself. Raises the driver's errors."""
    if conn.dialect.name == "sqlite":  # takes the write lock now: a later upgrade from a read lock cannot wait
        raw: Any = conn.connection.dbapi_connection
        raw.execute("BEGIN IMMEDIATE")


def commit(conn: Connection) -> None:
    """Commits, whoever began. Raises the driver's errors."""
    # SQLAlchemy knows of the transaction only where a function went through its `execute`
    if conn.in_transaction():
        conn.commit()
    else:
        conn.connection.commit()


def rollback(conn: Connection) -> None:
    """Undoes, whoever began; a connection that cannot even do that is given up."""
    try:
        if conn.in_transaction():
            conn.rollback()
        conn.connection.rollback()
    except (SQLAlchemyError, conn.dialect.loaded_dbapi.Error):
        conn.invalidate()  # the next use of the connection opens it anew


def passing(conn: Connection, error: Exception) -> bool:
    """Whether the database could not write at the moment; what breaks its rules will do so again."""
    driver = conn.dialect.loaded_dbapi
    cause = error.orig if isinstance(error, DBAPIError) else error
    refused = (driver.IntegrityError, driver.DataError, driver.ProgrammingError, driver.NotSupportedError)
    return isinstance(cause, (SQLAlchemyError, driver.Error)) and not isinstance(cause, refused)


def _declared(conn: Connection, error: Exception) -> Exception:
    driver = conn.dialect.loaded_dbapi.Error
    if not isinstance(error, (SQLAlchemyError, driver)):
        return error  # a bug stays what it is
    return unavailable(error)


def unavailable(cause: BaseException | None = None) -> OurError:
    """What a caller hears whose write could not be done."""
    failed = OurError(
        "The ledger cannot be written at the moment.", status=503, code="ledger_unavailable", retry_after=5.0
    )
    failed.__cause__ = cause
    return failed


def reason(error: BaseException) -> str:
    """The driver's own words, without the statement and its values."""
    cause = error.__cause__ or error
    return str(cause.orig if isinstance(cause, DBAPIError) else cause) or type(cause).__name__
