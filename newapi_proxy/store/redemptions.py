"""Redemption codes: rows of `redemptions`, made and switched here; redeeming one moves money and is not done here.

Source: tasks-and-accounts 6.9, relay-and-billing 7.3. A code is kept as text, because New API reads it there.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from sqlalchemy import Connection, RowMapping, and_, func, insert, select, update

from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import redemptions

USABLE: Final = 1
DISABLED: Final = 2
USED: Final = 3
_BYTES: Final = 16  # as 32 hex digits
_ALIVE: Final = redemptions.c.deleted_at.is_(None)


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A code as the database knows it. `quota` units; times in unix seconds, 0 for none; `used_by` a user's id."""

    id: int
    key: str
    name: str
    status: int
    quota: int
    created_time: int = 0
    redeemed_time: int = 0
    expired_time: int = 0
    used_by: int = 0


class NewCodes(msgspec.Struct, frozen=True, kw_only=True):
    """So many codes of the same worth. `expired_time` 0: they do not end. `owner`: the id of the user who made them."""

    name: str
    quota: int
    count: int = 1
    expired_time: int = 0
    owner: int = 0


def load(conn: Connection) -> list[Code]:
    """Every code that is not deleted, by id."""
    return [_code(row) for row in conn.execute(select(redemptions).where(_ALIVE).order_by(redemptions.c.id)).mappings()]


def find(conn: Connection, key: str) -> Code | None:
    """The code that people type so."""
    row = conn.execute(select(redemptions).where(redemptions.c.key == key, _ALIVE)).mappings().first()
    return None if row is None else _code(row)


def _code(row: RowMapping) -> Code:
    return Code(
        id=row["id"],
        key=words(row["key"]),
        name=words(row["name"]),
        status=number(row["status"], USABLE),
        quota=number(row["quota"]),
        created_time=number(row["created_time"]),
        redeemed_time=number(row["redeemed_time"]),
        expired_time=number(row["expired_time"]),
        used_by=number(row["used_user_id"]),
    )


def use(conn: Connection, id: int, user_id: int, at: int) -> bool:
    """Takes a usable code to used, once, whoever asks; whether it was usable."""
    meant = and_(redemptions.c.id == id, func.coalesce(redemptions.c.status, USABLE) == USABLE, _ALIVE)
    values = {"status": USED, "redeemed_time": at, "used_user_id": user_id}
    return conn.execute(update(redemptions).where(meant).values(**values)).rowcount == 1


def add(conn: Connection, new: NewCodes, at: int) -> list[str]:
    """Makes codes; themselves, as people type them."""
    keys = [secrets.token_hex(_BYTES) for _ in range(new.count)]
    row = {"user_id": new.owner, "status": USABLE, "name": new.name, "quota": new.quota, "created_time": at}
    conn.execute(insert(redemptions), [{**row, "key": key, "expired_time": new.expired_time} for key in keys])
    return keys


def switch(conn: Connection, ids: Sequence[int], status: int) -> int:
    """Sets codes that were not used usable or disabled; how many it were."""
    meant = redemptions.c.id.in_(ids) & _ALIVE & (redemptions.c.status != USED)
    return conn.execute(update(redemptions).where(meant).values(status=status)).rowcount


def remove(conn: Connection, ids: Sequence[int], at: int) -> int:
    """Deletes codes softly, as New API does; how many it were."""
    when = datetime.fromtimestamp(at, UTC)
    return conn.execute(update(redemptions).where(redemptions.c.id.in_(ids) & _ALIVE).values(deleted_at=when)).rowcount
