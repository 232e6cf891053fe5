"""A look at a database as it stands, of any age and any program: nothing is made, completed, locked or left behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from newapi_proxy.errors import OurError
from newapi_proxy.store import groups, sqlite

_WAL: Final = 2  # the header's write version of a file with a write-ahead log


@contextmanager
def peek(url: str, base: Path) -> Iterator[Connection | None]:
    """A connection that cannot change anything; None where there is no file yet, or none at all. Raises OurError."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise OurError("The database's URL cannot be read.", code="database_invalid") from None
    path = sqlite.locate(parsed, base) if parsed.get_backend_name() == "sqlite" else None
    if path is None or not path.exists():  # who only looks does not call a server: it may be elsewhere than the file
        yield None
        return
    engine = create_engine("sqlite://", creator=lambda: _opened(path), poolclass=NullPool)
    try:
        with engine.connect() as conn:
            yield conn
    except (DBAPIError, sqlite3.Error, OSError) as error:
        raise OurError(f"The database cannot be read: {groups.reason(error)}.", code="database_invalid") from error
    finally:
        engine.dispose()


def _opened(path: Path) -> sqlite3.Connection:
    # A reader of a WAL file that nobody has open would leave an empty log beside it, unless told that nobody writes.
    with path.open("rb") as file:
        head = file.read(20)
    idle = len(head) == 20 and head[18] == _WAL and not path.with_name(path.name + "-wal").exists()
    how = "mode=ro&immutable=1" if idle else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=sqlite.BUSY)
