"""How a database server writes a group: one task, one connection, and never a guess about what a lost commit did.

What failed before its commit was sent is undone by the server and done again, for a moment; after that its callers are
refused. A commit whose answer is lost is in doubt: its callers wait until the server can be asked (`processes.last`).
While the server cannot be reached nothing new is taken but what must be written (fail closed, reliability 5.3).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from time import perf_counter
from typing import Any, Final

from sqlalchemy import URL, Connection, Select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from newapi_proxy import log, metrics
from newapi_proxy.errors import OurError
from newapi_proxy.spawn import spawn
from newapi_proxy.store import dialects, processes, upgrades
from newapi_proxy.store.groups import GROUP, Part, R, Source, commit, parts_of, reason, rollback, unavailable
from newapi_proxy.store.schema import OWN

Work = Callable[[Connection, Sequence[Part], int], None]

DEADLINE: Final = 4.0  # seconds for one try of a group: above, the connection is given up
TRIES: Final = 3  # for the first connection: a machine that has just started may be slow
GRACE: Final = 2.0  # seconds of failing after which callers are refused
PAUSE: Final = 0.25  # seconds between two tries
BEAT: Final = 3.0  # seconds without a group after which an empty one says that this process lives
READERS: Final = 2
READING: Final = 30.0  # seconds; a connection that was lost without a word would keep its reader for ever


class Passing(Exception):
    """The transaction could not be done at the moment; `__cause__` says why."""


class Taken(Exception):
    """This process was taken for dead: its row must be made anew before it may write."""


class Server:
    """The engine of one server's database. Opened by `open`; all methods belong to the loop's thread."""

    __slots__ = (
        "_blamed", "_committing", "_conn", "_ended", "_failing_since", "_kind", "_number", "_raw", "_readers",
        "_source", "_task", "_url", "_wanted", "_writer", "boot",
    )  # fmt: skip
    shared: Final = True
    instant: Final = False

    def __init__(self, url: URL, boot: str) -> None:
        self.boot = boot
        self._url = url
        self._kind = dialects.of(url)
        self._writer = engine(url, self._kind)
        self._readers = _readers(url, self._kind)
        self._conn: AsyncConnection | None = None
        self._raw: Any = None  # the driver's own connection, which can be cut off
        self._number = 0  # of the last group that is known to be written
        self._committing = False
        self._failing_since: float | None = None
        self._blamed = False  # whether this failing has been told as ours
        self._source: Source | None = None
        self._wanted = asyncio.Event()
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: URL, boot: str) -> Server:
        """Connects, and enters this process into the list of those that live. Raises OurError."""
        made = cls(url, boot)
        try:
            await _patiently(made._connected)
        except Exception as error:
            await made._drop()
            raise unreachable(error) from error
        made._task = spawn(made._work(), "ledger")
        return made

    def living(self, conn: Connection) -> Select[tuple[str]]:
        return processes.bury(conn)

    def send(self, source: Source) -> None:
        self._source = source
        self._wanted.set()

    async def read(self, fn: Callable[[Connection], R]) -> R:
        async with asyncio.timeout(READING), self._readers.connect() as conn:
            return await conn.run_sync(fn)

    async def survey(self, fn: Callable[[Connection], R]) -> R:
        run = asyncio.get_running_loop().run_in_executor
        return await run(None, lambda: asyncio.run(once(self._url, fn, write=False)))

    async def close(self) -> None:
        self._ended = True
        self._wanted.set()
        if self._task is not None:
            await self._task
        if self._conn is not None and self._failing_since is None:
            try:
                async with asyncio.timeout(DEADLINE):
                    await self._conn.run_sync(_left, self.boot)
            except Exception:  # the lease ends by itself
                self._committing = False
        await self._drop()
        await self._readers.dispose()

    async def _work(self) -> None:
        """Group after group until the end; an empty one where nobody wrote for a while."""
        while not self._ended:
            try:
                async with asyncio.timeout(BEAT if self._failing_since is None else PAUSE):
                    await self._wanted.wait()
            except TimeoutError:
                await self._write([], perf_counter())
                continue
            self._wanted.clear()
            if self._source is not None and not self._ended:
                since = perf_counter()
                parts = parts_of(self._source.take(GROUP))
                await self._write(parts, since)
                self._source.written(parts, since)

    async def _write(self, parts: Sequence[Part], since: float) -> None:
        """Returns when it is known what became of the parts: it stands in them."""
        number, doubt = self._number + 1, False
        while (error := await self._tried(self._settled if doubt else self._transact, parts, number)) is not None:
            doubt, self._committing = doubt or self._committing, False
            self._fails(error, since)
            hopeless = not doubt or (self._source is not None and self._source.closing)
            if hopeless and perf_counter() - since > GRACE:
                for part in parts:
                    part.passing, part.error = True, unavailable(error.__cause__ or error)
                return
            await asyncio.sleep(PAUSE)
        self._number = number
        self._works()

    async def _tried(self, work: Work, parts: Sequence[Part], number: int) -> Exception | None:
        """What went wrong, if anything did; then the connection is gone."""
        try:
            await self._within(work, parts, number)
        except Exception as error:
            await self._drop()
            return error
        return None

    async def _within(self, work: Work, parts: Sequence[Part], number: int) -> None:
        """Runs the work on the connection, which is cut off where it takes too long."""
        conn = await self._connected()
        timer = asyncio.get_running_loop().call_later(DEADLINE, self._kind.cut, self._raw)
        try:
            await conn.run_sync(work, parts, number)
        finally:
            timer.cancel()

    def _settled(self, conn: Connection, parts: Sequence[Part], number: int) -> None:
        """Ends a doubt: what did not come through is done again."""
        if processes.last(conn, self.boot) >= number:
            rollback(conn)
            return
        rollback(conn)
        self._transact(conn, parts, number)

    def _transact(self, conn: Connection, parts: Sequence[Part], number: int) -> None:
        """One transaction. Raises Passing, Taken, and what the driver raises; other errors are in the parts."""
        self._mark(conn, number)
        if not self._run(conn, parts, nested=False):
            rollback(conn)
            if len(parts) == 1:
                return
            self._mark(conn, number)
            self._run(conn, parts, nested=True)
        self._committing = True
        commit(conn)
        self._committing = False

    def _mark(self, conn: Connection, number: int) -> None:
        if not processes.mark(conn, self.boot, number):
            raise Taken

    def _run(self, conn: Connection, parts: Sequence[Part], *, nested: bool) -> bool:
        """Whether all parts were done; without savepoints the first error ends it."""
        for part in parts:
            part.run(conn, nested)
            if (error := part.error) is None:
                continue
            if (cause := driver_error(conn, error)) is not None:
                if self._kind.passing(cause):
                    raise Passing from error
                part.error = unavailable(error)
            if not nested:
                return False
        return True

    async def _connected(self) -> AsyncConnection:
        """The writer's connection, made where there is none, with this process among the living."""
        if self._conn is None:
            async with asyncio.timeout(DEADLINE):
                self._conn = await self._writer.connect()
                self._raw = (await self._conn.get_raw_connection()).driver_connection
                await self._conn.run_sync(_entered, self.boot)
        return self._conn

    async def _drop(self) -> None:
        """Gives the connection up without a word to the server, which may not listen."""
        conn, raw, self._conn = self._conn, self._raw, None
        if conn is not None:
            self._kind.cut(raw)
            await forget(conn)

    def _works(self) -> None:
        if self._failing_since is not None:
            self._failing_since, self._blamed = None, False
            if self._source is not None:
                self._source.refuse(None)

    def _fails(self, error: Exception, since: float) -> None:
        self._failing_since = self._failing_since or since
        if self._source is not None and perf_counter() - self._failing_since > GRACE:
            # drivers have trees of their own; these two are what the network makes
            if not self._blamed and type(error).__module__ == "builtins" and not isinstance(error, (OSError, EOFError)):
                self._blamed = True
                metrics.bug()
                log.bug(error, where="ledger")
            self._source.refuse(unavailable(error.__cause__ or error))


def _entered(conn: Connection, boot: str) -> None:
    processes.enter(conn, boot)
    commit(conn)


def _left(conn: Connection, boot: str) -> None:
    processes.leave(conn, boot)
    commit(conn)


def driver_error(conn: Connection, error: Exception) -> Any:
    """The driver's error inside, None where it is none: then it is a bug, and stays what it is."""
    if isinstance(error, DBAPIError):
        return error.orig
    if isinstance(error, (SQLAlchemyError, OSError, TimeoutError, conn.dialect.loaded_dbapi.Error)):
        return error
    return None


def engine(url: URL, kind: dialects.Kind) -> AsyncEngine:
    """For the writer and the command line: one connection at a time, kept by who opens it."""
    logging.getLogger(kind.module).setLevel(logging.ERROR)  # a row that is there already is no warning to anybody
    arguments = kind.options(url.query) | dict(kind.writing)
    return create_async_engine(
        dialects.location(url, kind), poolclass=NullPool, isolation_level="READ COMMITTED", connect_args=arguments
    )


def _readers(url: URL, kind: dialects.Kind) -> AsyncEngine:
    """For reports beside the writer; they cannot change anything, and begin anew where a connection was lost."""
    arguments = kind.options(url.query) | dict(kind.reading)
    return create_async_engine(
        dialects.location(url, kind),
        pool_size=READERS,
        max_overflow=0,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args=arguments,
    )


async def forget(conn: AsyncConnection) -> None:
    """Lets go of a connection that is cut off, whatever state it is in."""
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            await conn.invalidate()
    with suppress(Exception):
        async with asyncio.timeout(1.0):
            await conn.close()


async def _patiently(connect: Callable[[], Awaitable[R]]) -> R:
    for _ in range(TRIES - 1):
        with suppress(TimeoutError):
            return await connect()
    return await connect()


def unreachable(error: BaseException) -> OurError:
    """Why a server's database cannot be used, for people."""
    if isinstance(error, OurError):
        return error
    words = "no answer in time" if isinstance(error, TimeoutError) else reason(error)
    return OurError(f"The database cannot be opened: {words}.", status=503, code="ledger_unavailable")


async def prepare(url: URL, at: int) -> list[str]:
    """Upgrades the schema where it needs it, one process at a time; the upgrades done. `at` unix seconds."""
    kind = dialects.of(url)
    made = engine(url, kind)
    try:
        async with aclosing(await _patiently(lambda: made.connect().start())) as conn:
            return await conn.run_sync(_upgraded, kind, at)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise unreachable(error) from error
    finally:
        await made.dispose()


def _upgraded(conn: Connection, kind: dialects.Kind, at: int) -> list[str]:
    if not upgrades.pending(conn):
        return []
    rollback(conn)
    if conn.dialect.name == "postgresql":
        _partial()
    conn.exec_driver_sql(kind.lock)
    done = upgrades.upgrade(conn, at)
    commit(conn)
    conn.exec_driver_sql(kind.unlock)
    commit(conn)
    return done


def _partial() -> None:
    """PostgreSQL has partial indexes as SQLite has; told in the schema, its dialect would be loaded by everybody."""
    for index in [index for table in OWN.sorted_tables for index in table.indexes]:
        where = index.dialect_options["sqlite"]["where"]
        if where is not None:
            index.dialect_options["postgresql"]["where"] = where


async def once(url: URL, work: Callable[[Connection], R], *, write: bool) -> R:
    """One transaction for the command line, beside running daemons; committed where `work` returns. Raises OurError."""
    kind = dialects.of(url)
    made = engine(url, kind)
    try:
        async with made.connect() as conn:
            return await conn.run_sync(_worked, work, write)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise unreachable(error) from error
    finally:
        await made.dispose()


def _worked(conn: Connection, work: Callable[[Connection], R], write: bool) -> R:
    if upgrades.pending(conn):
        raise OurError("The database needs `newapi-proxy db upgrade` first.", code="schema_older")
    rollback(conn)
    if write:
        processes.take_turn(conn)
    result = work(conn)
    if write:
        commit(conn)
    return result
