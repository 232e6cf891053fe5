"""What a key or an account has left and has used, in units, as its row says now; nothing where there is no row."""

from __future__ import annotations

from sqlalchemy import Connection, select

from newapi_proxy.store.row import number
from newapi_proxy.store.schema import tokens, users


def of_key(conn: Connection, id: int) -> tuple[int, int]:
    """Left, used."""
    row = conn.execute(select(tokens.c.remain_quota, tokens.c.used_quota).where(tokens.c.id == id)).first()
    return (0, 0) if row is None else (number(row.remain_quota), number(row.used_quota))


def of_account(conn: Connection, id: int) -> tuple[int, int]:
    """Left, used."""
    row = conn.execute(select(users.c.quota, users.c.used_quota).where(users.c.id == id)).first()
    return (0, 0) if row is None else (number(row.quota), number(row.used_quota))
