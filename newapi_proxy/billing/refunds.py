"""Charges that come back: one more entry of the ledger, with a key that is made of the charge's, so that there is one.

The rest of `ledger`, with its statements, for work that turns out to have failed after it was paid for. Source:
tasks-and-accounts traps T-08 and T-12, decision 23. Runs inside the caller's transaction, is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from newapi_proxy.billing import budgets
from newapi_proxy.billing.ledger import MOVE_CHANNEL, MOVE_TOKEN, MOVE_USER
from newapi_proxy.store import logs
from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import ledger, tokens

MARK: Final = "refund:"  # before the request's id: no request can have such an id
_ENTER: Final = inserting(
    ledger,
    "request_id", "token_id", "user_id", "token_limited", "user_limited", "state", "held", "charged", "at",
    "resolved_at", "boot", "model", "channel_id", "reason", "price_version", "budgets",
    once=True,
)  # fmt: skip


class Refund(msgspec.Struct, frozen=True):
    """A settled charge to be given back whole, because what it paid for came to nothing.

    `request_id` is the settled request's. The log row's `entry` gets its quota, model and token's name here.
    """

    request_id: str
    at: int
    reason: str
    entry: logs.Entry


def refund(conn: Connection, refunds: Sequence[Refund]) -> list[int]:
    """Gives charges back, to every balance and budget and out of every counter; per refund the units.

    0 where nothing was charged, or where it is back already: a charge comes back once, whoever asks how often. A key or
    an account that is gone is passed over.
    """
    return [_refund(conn, one) for one in refunds]


def _refund(conn: Connection, one: Refund) -> int:
    found = conn.execute(select(ledger).where(ledger.c.request_id == one.request_id, ledger.c.state == "settled"))
    row = found.mappings().first()
    units = number(row["charged"]) if row is not None else 0
    if row is None or not units:
        return 0
    paid = Paid(
        token_id=number(row["token_id"]),
        user_id=number(row["user_id"]),
        channel_id=number(row["channel_id"]),
        token_limited=truth(row["token_limited"]),
        user_limited=truth(row["user_limited"]),
        units=units,
        boot=words(row["boot"]),
        model=words(row["model"]),
        price_version=words(row["price_version"]),
        budgets=words(row["budgets"]),
    )
    return _given(conn, one, paid)


def foreign(conn: Connection, one: Refund, units: int) -> int:
    """Gives back what another program took, of which the ledger has no entry: `entry` says whose it was; the units."""
    if units <= 0:
        return 0
    token_id, user_id = one.entry.token_id, one.entry.user_id
    unlimited = conn.execute(select(tokens.c.unlimited_quota).where(tokens.c.id == token_id)).scalar()
    paid = Paid(
        token_id=token_id,
        user_id=user_id,
        channel_id=one.entry.channel_id,
        token_limited=token_id > 0 and not truth(unlimited),
        user_limited=True,
        units=units,
    )
    return _given(conn, one, paid)


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """A charge that comes back: whose it was, and where it counts."""

    token_id: int
    user_id: int
    channel_id: int
    token_limited: bool
    user_limited: bool
    units: int
    boot: str = ""
    model: str = ""
    price_version: str = ""
    budgets: str = ""


def _given(conn: Connection, one: Refund, paid: Paid) -> int:
    units, token_id, user_id = paid.units, paid.token_id, paid.user_id
    whose = (MARK + one.request_id, token_id, user_id, paid.token_limited, paid.user_limited)
    what = ("refunded", 0, -units, one.at, one.at, paid.boot, paid.model, paid.channel_id, one.reason)
    if _ENTER.run(conn, [(*whose, *what, paid.price_version, paid.budgets)]) != 1:
        return 0
    moves = budgets.Moves()
    moves.add(token_id, budgets.read(paid.budgets), -units)
    moves.run(conn)
    MOVE_TOKEN.run(conn, [(token_id, units if paid.token_limited else 0, -units, one.at)])
    MOVE_USER.run(conn, [(user_id, units if paid.user_limited else 0, -units, 0)])
    MOVE_CHANNEL.run(conn, [(paid.channel_id, -units)])
    name = words(conn.execute(select(tokens.c.name).where(tokens.c.id == token_id)).scalar())
    logs.add(conn, [msgspec.structs.replace(one.entry, quota=units, model_name=paid.model, token_name=name)])
    return units
