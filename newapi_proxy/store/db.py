"""The one async face of a database: writes in groups, one group at a time, reads beside them.

A write is a function of a connection over a batch of items. What waits while a group is written goes into the next
one, so under load the price of a commit is shared, and a lone write waits for nobody. How a group becomes a
transaction is the engine's affair; nothing here knows what is written. Balances are never read on a request's path:
guarded updates decide.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from newapi_proxy import log
from newapi_proxy.clock import SystemClock
from newapi_proxy.errors import OurError
from newapi_proxy.store import groups, sqlite, upgrades
from newapi_proxy.store.embedded import Embedded
from newapi_proxy.store.groups import Function, I, Living, Part, R, Waiting, reason

OnCommit = Callable[[float, int], None]

PENDING: Final = 20_000  # writes that may wait; above, the database is too slow to promise anything
KEPT: Final = 100_000  # failed writes that must be done and are kept to be tried again
AGAIN: Final = 1.0  # seconds between two tries
TURNS: Final = 2  # of the loop, in which a group waits for more under load


class Database:
    """Opened once per process by `open`; all methods belong to the loop's thread."""

    __slots__ = (
        "_again", "_bound", "_closed", "_ended", "_engine", "_failing", "_idle", "_kept", "_last", "_loop",
        "_on_commit", "_pending", "_scheduled", "_sent",
    )  # fmt: skip

    def __init__(self, engine: groups.Engine, on_commit: OnCommit | None) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._pending: list[Waiting] = []
        self._bound = PENDING  # how many may wait; none while the engine cannot write
        self._scheduled = False  # a group is with the engine, or about to go there
        self._last = 0  # items in the last group
        self._sent = False  # whether a write was sent off at once in this turn of the loop
        self._kept: list[Waiting] = []  # must be written, and could not be: to be tried again
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended = False  # the engine takes nothing any more
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

        `durability` and `patience` (seconds that a group waits for another process's transaction) are SQLite's; a
        server has settings of its own.

        Raises OurError: `database_in_use`, `schema_newer`, `database_invalid`, `ledger_unavailable`.
        """
        made, boot = _url(url), secrets.token_hex(8)
        if not _is_file(made):
            from newapi_proxy.store import server  # loaded where it is used

            await server.prepare(made, int(SystemClock.wall()))
            return cls(await server.Server.open(made, boot), on_commit)
        path = sqlite.locate(made, base)
        lock = sqlite.Lock(path)
        try:
            await asyncio.get_running_loop().run_in_executor(None, _prepared, path, durability)
            return cls(await Embedded.open(path, lock, durability, patience, boot), on_commit)
        except BaseException:
            lock.release()
            raise

    @property
    def boot(self) -> str:
        """The name under which this process holds money; another one after each start."""
        return self._engine.boot

    @property
    def shared(self) -> bool:
        """Whether other processes may write to the same database."""
        return self._engine.shared

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def living(self, conn: Connection) -> Living:
        """The processes whose holds are theirs to end, in a write's transaction: for `ledger.recover`."""
        return self._engine.living(conn)

    def write(self, fn: Function[I, R], item: I, *, must: bool = False) -> asyncio.Future[R]:
        """Puts the item into the writer's queue at once; the future has its result once it is committed.

        Cancelling the future does not cancel the write. The future fails with OurError `ledger_unavailable` where the
        database cannot be written, and with what `fn` raised.

        `must`: not refused while there is a writer, and where the database could not be written at the moment the item
        is kept and tried again, until it is written or the database is closed; the future fails all the same. `fn` must
        be safe to repeat.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        if self._ended or (not must and (self._closed or len(self._pending) >= self._bound)):
            future.set_exception(groups.unavailable())
            return future
        entry = (fn, item, future, must)
        if must and self._kept and len(self._kept) < KEPT:
            self._kept.append(entry)  # in the order in which they were asked for: a settlement before what voids it
            return future
        self._pending.append(entry)
        if not self._scheduled:
            self._schedule()
        return future

    def _schedule(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        if self._last <= 1 and not self._sent and self._engine.instant:
            self._sent = True
            self._loop.call_soon(self._turned)
            self._send()  # one alone waits for nobody, not even for the loop
        else:
            # What else this turn of the loop writes comes along, and where requests follow each other closely what the
            # next turns do, too: a group costs its pages, not its rows.
            self._gather(TURNS if self._last > 1 else 0)

    def _turned(self) -> None:
        self._sent = False

    def _gather(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._gather, turns - 1)
        else:
            self._loop.call_soon(self._send)

    async def read(self, fn: Callable[[Connection], R]) -> R:
        """Runs a query beside the writer; it sees what is committed. Raises OurError, or what `fn` raises."""
        with _readable():
            return await self._engine.read(fn)

    async def survey(self, fn: Callable[[Connection], R]) -> R:
        """The same in a thread, for what reads whole tables: neither the loop nor a report waits for it."""
        with _readable():
            return await self._engine.survey(fn)

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
        await self._engine.close()

    async def _written_out(self) -> None:
        """Waits until nothing is with the engine, nor asked for by those who have just got their results."""
        while self._scheduled:
            self._idle = self._loop.create_future()
            await self._idle

    def _keep(self, parts: Sequence[Part]) -> None:
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
        self._engine.send(self)

    def take(self, most: int) -> list[Waiting]:
        """The next group: for the engine."""
        group = self._pending[:most]
        del self._pending[:most]
        self._last = len(group)
        return group

    def refuse(self, cause: OurError | None) -> None:
        """Refuses what waits and what comes, but for what must be written; None ends it: for the engine."""
        self._bound = PENDING if cause is None else 0
        if cause is None:
            return
        waiting, self._pending = self._pending, [entry for entry in self._pending if entry[3]]
        for _, _, future, must in waiting:
            if not must and not future.done():
                future.set_exception(cause)
        self._note(cause)

    def written(self, parts: Sequence[Part], since: float) -> None:
        """Tells those who wait, and sends the next group: for the engine."""
        broken = [part for part in parts if part.error is not None]
        if broken:
            self._keep(broken)
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
        if broken or self._failing or self._kept:
            self._note(next((part.error for part in broken if isinstance(part.error, OurError)), None))

    def _note(self, error: OurError | None) -> None:
        """One line when the ledger fails, one when it works again."""
        if error is not None and not self._failing:
            log.logger().error("ledger_unavailable", reason=reason(error))
        elif error is None and self._failing and not self._kept:
            log.logger().info("ledger_recovered")
        self._failing = error is not None or bool(self._kept)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise OurError("The database cannot be read.", status=503, code="ledger_unavailable") from error


def _prepared(path: Path, durability: sqlite.Durability) -> None:
    prepare(sqlite.engine(path, durability), path)


def prepare(engine: Engine, path: Path) -> list[str]:
    """Upgrades the file where it needs it, after a copy if there is data in it; the upgrades done. Raises OurError."""
    sqlite.begin(path)
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
        groups.rollback(conn)
        raise
    groups.commit(conn)
    return result


def _unused(path: Path) -> Path:
    number = 1
    while (to := path.with_name(f"{path.name}.before-upgrade-{number}")).exists():
        number += 1
    return to


def _url(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        raise OurError("The database's URL cannot be read.", code="database_invalid") from None


def _is_file(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def upgrade(url: str, base: Path) -> list[str]:
    """Brings the schema up to date, as opening does; the upgrades done. Raises OurError."""
    made = _url(url)
    if not _is_file(made):
        from newapi_proxy.store import server

        return asyncio.run(server.prepare(made, int(SystemClock.wall())))
    path = sqlite.locate(made, base)
    return prepare(sqlite.engine(path, "full"), path)


def run(url: str, base: Path, work: Callable[[Connection], R], *, write: bool) -> R:
    """Runs the work in one transaction on any engine, beside running daemons: for the command line.

    `write` as `connect` has it. Raises OurError, and what `work` raises: then nothing is changed.
    """
    made = _url(url)
    if not _is_file(made):
        from newapi_proxy.store import server

        if write:
            asyncio.run(server.prepare(made, int(SystemClock.wall())))
        return asyncio.run(server.once(made, work, write=write))
    with connect(url, base, write=write) as conn:
        return work(conn)


@contextmanager
def connect(url: str, base: Path, *, write: bool = True) -> Iterator[Connection]:
    """A connection to a file beside a running daemon; one transaction, committed on a clean exit.

    With `write` the schema is upgraded where needed; without, nothing is changed and an old schema is an error.
    Raises OurError.
    """
    path = sqlite.locate(_url(url), base)
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
                groups.rollback(conn)
                raise
            groups.commit(conn)
    except DBAPIError as error:
        raise OurError(f"The database cannot be used: {reason(error)}.", code="ledger_unavailable") from error
    finally:
        engine.dispose()
