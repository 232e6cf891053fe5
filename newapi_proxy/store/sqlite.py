"""SQLite: the engine with its settings, the one daemon's lock, the copy before an upgrade, the writer's thread.

Settings: WAL, so that readers and the writer never wait for each other; a busy timeout for the moments when the command
line writes too; `synchronous` NORMAL or FULL (decision 9). Knows nothing of what is written.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from newapi_proxy.errors import OurError

R = TypeVar("R")
Durability = Literal["normal", "full"]
BUSY: Final = 15.0  # seconds to wait for another process's transaction
WAL_LIMIT: Final = 64 << 20  # bytes that a WAL file keeps after a checkpoint
FOLDED_AT: Final = 1000  # pages in the WAL
READERS: Final = 2
_STATEMENTS: Final = 256  # prepared statements kept: more than we have, or each group would parse SQL again
_OLDEST: Final = (3, 33, 0)  # UPDATE … FROM


def locate(url: URL, base: Path) -> Path:
    """The file behind a URL; relative ones lie beside the configuration. Raises OurError for a nameless one."""
    if not url.database or url.database == ":memory:":
        raise OurError("The database needs a file: sqlite:///name.db.", code="database_invalid")
    if sqlite3.sqlite_version_info < _OLDEST:
        raise OurError(f"SQLite {sqlite3.sqlite_version} is too old: 3.33 or newer is needed.", code="database_invalid")
    return (base / url.database).resolve()


def engine(path: Path, durability: Durability, *, wait: float = BUSY, folds: bool = True) -> Engine:
    """For the writer and the command line. Transactions are ours to begin: the driver's own begin too late.

    `wait`: seconds for another process's transaction. `folds`: whether a commit may have to wait until the disk has
    taken a long WAL back into the file; else somebody calls `fold`.
    """
    made = create_engine(
        URL.create("sqlite", database=str(path)),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        connect_args={
            "timeout": wait,
            "check_same_thread": False,
            "cached_statements": _STATEMENTS,
        },
    )
    synchronous = "FULL" if durability == "full" else "NORMAL"

    @event.listens_for(made, "connect")
    def _set(raw: Any, _: Any) -> None:
        for setting in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            f"journal_size_limit = {WAL_LIMIT}",
            "cache_size = -8192",
            "temp_store = MEMORY",
            f"wal_autocheckpoint = {FOLDED_AT if folds else 0}",
        ):
            raw.execute(f"PRAGMA {setting}")

    return made


def fold(conn: Connection) -> int:
    """Copies what the WAL holds back into the file, beside writers; the WAL's length in pages, -1 if it failed."""
    try:
        found: Any = conn.connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error:
        return -1  # the next one will do it; nothing is lost while the WAL is there
    return int(found[1])


class Readers:
    """The connections that read beside the writer and cannot change anything: some for reports, one for surveys.

    All are opened at once and stay: how many files the process holds does not change with what is asked of it, and
    what a statement was compiled to is there the next time.
    """

    __slots__ = ("_reports", "_surveys")

    def __init__(self, path: Path) -> None:
        self._reports = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            pool_size=READERS,
            max_overflow=0,
            connect_args={"timeout": BUSY},
        )
        self._surveys = create_engine(
            URL.create("sqlite", database=str(path)),
            pool_size=1,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": BUSY, "check_same_thread": False},
        )
        for made in (self._reports.sync_engine, self._surveys):
            event.listen(made, "connect", _read_only)

    @classmethod
    async def open(cls, path: Path) -> Readers:
        """Connects to a file that is up to date. Raises what the driver raises."""
        made = cls(path)
        async with AsyncExitStack() as all_at_once:
            for _ in range(READERS):
                await all_at_once.enter_async_context(made._reports.connect())
        await made.survey(lambda conn: None)
        return made

    async def report(self, fn: Callable[[Connection], R]) -> R:
        """Runs the function on the loop; its statements are waited for."""
        async with self._reports.connect() as conn:
            return await conn.run_sync(fn)

    async def survey(self, fn: Callable[[Connection], R]) -> R:
        """Runs the function in a thread, one after the other, over one state of the database."""
        return await asyncio.get_running_loop().run_in_executor(None, self._surveyed, fn)

    async def close(self) -> None:
        """Closes all connections."""
        await self._reports.dispose()
        self._surveys.dispose()

    def _surveyed(self, fn: Callable[[Connection], R]) -> R:
        with self._surveys.connect() as conn:
            conn.exec_driver_sql("BEGIN")  # ended when the pool has it back
            return fn(conn)


def _read_only(raw: Any, _: Any) -> None:
    cursor = raw.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.execute("SELECT count(*) FROM sqlite_master")  # opens the WAL too
    cursor.close()


def begin(path: Path) -> None:
    """An empty file where there is none yet, for its owner alone: it holds keys and what people spent.

    One that exists keeps its mode. Raises OurError.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise _shut(path, error) from error


def _shut(path: Path, error: OSError) -> OurError:
    folder = path.parent
    why = f"cannot be written: {error.strerror}" if folder.is_dir() else "does not exist"
    return OurError(f"The database's folder {folder} {why}.", status=503, code="ledger_unavailable")


class Lock:
    """Keeps a second daemon off the same file: two would each believe their own view of the balances."""

    __slots__ = ("_file",)

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _shut(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise OurError(
                "Another newapi-proxy serves this database already.", status=503, code="database_in_use"
            ) from None

    def release(self) -> None:
        """Lets the next daemon in; the file stays, as removing it would race with that one."""
        os.close(self._file)


def copy(conn: Connection, to: Path) -> None:
    """An online copy of the whole database: consistent, while others write. Never over an existing file.

    Raises OSError, and OurError for a server's database.
    """
    if conn.dialect.name != "sqlite":
        raise OurError("A server's database is copied by its own tools: pg_dump, mariadb-dump.", code="not_a_file")
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    raw: Any = conn.connection.dbapi_connection
    target = sqlite3.connect(to)
    try:
        raw.backup(target)
    finally:
        target.close()


def damage(conn: Connection) -> list[str]:
    """What SQLite itself finds wrong with the file, reading all of it; a server looks after itself."""
    if conn.dialect.name != "sqlite":
        return []
    return [found for (found,) in conn.exec_driver_sql("PRAGMA integrity_check") if found != "ok"]


class Writer:
    """One thread with one connection; a job in, one call on the loop out.

    The thread sleeps in the queue without the interpreter's lock, and a group costs one hand-over each way.
    """

    __slots__ = ("_conn", "_jobs", "_loop", "_thread")

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[Connection], Callable[[], None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="newapi-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Connection], Callable[[], None]]) -> None:
        """Runs the job in the thread, then on the loop what it returns. A job raises nothing."""
        self._jobs.put(job)

    async def close(self) -> None:
        """Ends the thread after the jobs that are in the queue."""
        self._jobs.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _work(self) -> None:
        with self._conn as conn:  # closing it folds the WAL back into the file
            while (job := self._jobs.get()) is not None:
                self._loop.call_soon_threadsafe(job(conn))
