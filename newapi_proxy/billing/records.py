"""The ledger's rows as people read them. Functions of a connection; nothing moves here."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from newapi_proxy.billing import budgets
from newapi_proxy.billing.budgets import Window
from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import ledger


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
