"""Whether somebody else has written to the database, asked as cheaply as the engine allows.

SQLite counts the commits of all other connections for each of ours; other engines have nothing so cheap, there one must
read. Who asks from inside a writing transaction never takes what this process writes for somebody else's doing, as long
as it writes by one connection.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


class Watermarks:
    """What each writing connection had seen when it was asked last. Belongs to the writer."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def moved(self, conn: Connection) -> bool:
        """Whether others may have committed since this connection was asked; the first time they may."""
        if conn.dialect.name != "sqlite":
            return True
        raw: Any = conn.connection.dbapi_connection
        version = int(raw.execute("PRAGMA data_version").fetchone()[0])
        before = self._seen.get(id(raw))
        self._seen[id(raw)] = version
        return before != version
