"""Accounts that keys belong to; the one that owns keys made here has no limit of its own.

Source: relay-and-billing 7.3. Balances of users move in the ledger only.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from newapi_proxy.store.row import made
from newapi_proxy.store.schema import users

ENABLED: Final = 1
SYSTEM: Final = "newapi-proxy"  # owns YAML's and the command line's keys; New API takes 12 characters at most
_NOBODY: Final = "!"  # no bcrypt hash: nobody can log in with it


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
