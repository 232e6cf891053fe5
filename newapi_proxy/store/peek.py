"""A look at a database as it stands, of any age and any program: nothing is made, completed, locked or left behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from newapi_proxy.errors import OurError
from newapi_proxy.store import groups, sqlite

R = TypeVar("R")
_PATIENCE: Final = 5.0  # seconds for a server
_WAL: Final = 2  # the header's write version of a file with a write-ahead log


def look(url: str, base: Path, work: Callable[[Connection], R]) -> R | None:
    """What `work` finds by a connection that changes nothing; None where there is no file yet, or no server answers.

    Raises OurError for a file that cannot be read and for a driver that is missing, and what `work` raises.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise OurError("The database's URL cannot be read.", code="database_invalid") from None
    if parsed.get_backend_name() != "sqlite":
        return asyncio.run(_far(parsed, work))
    path = sqlite.locate(parsed, base)
    if not path.exists():
        return None
    engine = create_engine("sqlite://", creator=lambda: _opened(path), poolclass=NullPool)
    try:
        with engine.connect() as conn:
            return work(conn)
    except (DBAPIError, sqlite3.Error, OSError) as error:
        raise OurError(f"The database cannot be read: {groups.reason(error)}.", code="database_invalid") from error
    finally:
        engine.dispose()


async def _far(url: URL, work: Callable[[Connection], R]) -> R | None:
    """A server may be elsewhere than who checks the file: one that does not answer says nothing."""
    from newapi_proxy.store import dialects, server

    kind = dialects.of(url)  # its driver is missing: `serve` would not start
    try:
        made = server.engine(url, kind)
        try:
            async with asyncio.timeout(_PATIENCE), made.connect() as conn:
                return await conn.run_sync(work)
        finally:
            await made.dispose()
    except (OurError, SQLAlchemyError, OSError, TimeoutError):
        return None


def _opened(path: Path) -> sqlite3.Connection:
    # A reader of a WAL file that nobody has open would leave an empty log beside it, unless told that nobody writes.
    with path.open("rb") as file:
        head = file.read(20)
    idle = len(head) == 20 and head[18] == _WAL and not path.with_name(path.name + "-wal").exists()
    how = "mode=ro&immutable=1" if idle else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=sqlite.BUSY)
