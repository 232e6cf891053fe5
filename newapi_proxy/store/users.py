"""Accounts that keys belong to; the one that owns keys made here has no limit of its own.

Source: relay-and-billing 7.3. Balances of users move in the ledger only.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, select

from newapi_proxy.store.row import made, number, words
from newapi_proxy.store.schema import users

ENABLED: Final = 1
ADMIN: Final = 10  # the least role that may see everybody's
SYSTEM: Final = "newapi-proxy"  # owns YAML's and the command line's keys; New API takes 12 characters at most
_NOBODY: Final = "!"  # no bcrypt hash: nobody can log in with it


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account as its holder is known by."""

    id: int
    username: str
    group: str
    role: int
    status: int
    display_name: str = ""


def find(conn: Connection, id: int) -> User | None:
    """The account of that id, deleted ones left out."""
    return _one(conn, users.c.id == id)


def by_access_token(conn: Connection, text: str) -> User | None:
    """Whose access token this is, to the letter, whatever the engine's collation says."""
    return _one(conn, users.c.access_token == text, text) if text else None


def by_column(conn: Connection, column: str, text: str) -> User | None:
    """Who has this text in a column of that name, such as the number of an account elsewhere."""
    return _one(conn, users.c[column] == text) if text else None


def _one(conn: Connection, meant: ColumnElement[bool], token: str | None = None) -> User | None:
    row = conn.execute(select(users).where(meant, users.c.deleted_at.is_(None))).mappings().first()
    if row is None or (token is not None and not compare_digest(words(row["access_token"]).encode(), token.encode())):
        return None
    return User(
        id=row["id"],
        username=words(row["username"]),
        group=words(row["group"]) or "default",
        role=number(row["role"], 1),
        status=number(row["status"]),
        display_name=words(row["display_name"]),
    )


def system(conn: Connection) -> int | None:
    """The id of the account that owns our keys, None before the first key."""
    found: int | None = conn.execute(select(users.c.id).where(users.c.username == SYSTEM)).scalar()
    return found


def ensure_system(conn: Connection, at: int) -> int:
    """The id of the account that owns our keys, made where it is missing. `at` unix seconds."""
    found = system(conn)
    if found is not None:
        return found
    return made(
        conn,
        users.insert().values(
            username=SYSTEM,
            password=_NOBODY,
            display_name=SYSTEM,
            role=1,
            status=ENABLED,
            quota=0,
            group="default",
            created_at=at,
        ),
    )
