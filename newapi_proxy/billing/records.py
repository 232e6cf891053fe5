"""The ledger's rows as people read them. Functions of a connection; nothing moves here."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, select

from newapi_proxy.billing import budgets
from newapi_proxy.billing.budgets import Window
from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import ledger, tokens


class Record(msgspec.Struct, frozen=True):
    """A row of the ledger, for people. `detail` is JSON text, "" while the hold is open."""

    request_id: str
    token_id: int
    user_id: int
    state: str
    held: int
    charged: int
    shortfall: int
    at: int
    resolved_at: int
    model: str
    channel_id: int
    reason: str
    price_version: str
    detail: str
    windows: tuple[Window, ...] = ()


def explain(conn: Connection, request_id: str) -> Record | None:
    """What the ledger knows of one request."""
    row = conn.execute(select(ledger).where(ledger.c.request_id == request_id)).mappings().first()
    if row is None:
        return None
    return Record(
        request_id=words(row["request_id"]),
        token_id=number(row["token_id"]),
        user_id=number(row["user_id"]),
        state=words(row["state"]),
        held=number(row["held"]),
        charged=number(row["charged"]),
        shortfall=number(row["shortfall"]),
        at=number(row["at"]),
        resolved_at=number(row["resolved_at"]),
        model=words(row["model"]),
        channel_id=number(row["channel_id"]),
        reason=words(row["reason"]),
        price_version=words(row["price_version"]),
        detail=words(row["detail"]),
        windows=budgets.read(words(row["budgets"])),
    )


class Hold(msgspec.Struct, frozen=True):
    """What is held for a request that runs: units, since when (unix seconds)."""

    request_id: str
    token: str
    model: str
    units: int
    at: int


class Holds(msgspec.Struct, frozen=True):
    """The oldest open holds, how many there are in all, and their units."""

    oldest: tuple[Hold, ...]
    count: int
    units: int


def holds(conn: Connection, most: int) -> Holds:
    """What is held now."""
    open = ledger.c.state == "held"
    asked = (
        select(ledger.c.request_id, tokens.c.name, ledger.c.model, ledger.c.held, ledger.c.at)
        .select_from(ledger.outerjoin(tokens, tokens.c.id == ledger.c.token_id))
        .where(open)
        .order_by(ledger.c.at, ledger.c.request_id)
        .limit(most)
    )
    oldest = tuple(
        Hold(words(row.request_id), words(row.name), words(row.model), number(row.held), number(row.at))
        for row in conn.execute(asked)
    )
    row = conn.execute(select(func.count().label("count"), func.sum(ledger.c.held).label("units")).where(open)).one()
    return Holds(oldest, number(row.count), number(row.units))
