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
    token_id, user_id, channel_id = number(row["token_id"]), number(row["user_id"]), number(row["channel_id"])
    of_token, of_user = truth(row["token_limited"]), truth(row["user_limited"])
    whose = (MARK + one.request_id, token_id, user_id, of_token, of_user)
    what = ("refunded", 0, -units, one.at, one.at, row["boot"], row["model"], channel_id, one.reason)
    if _ENTER.run(conn, [(*whose, *what, row["price_version"], row["budgets"])]) != 1:
        return 0
    moves = budgets.Moves()
    moves.add(token_id, budgets.read(words(row["budgets"])), -units)
    moves.run(conn)
    MOVE_TOKEN.run(conn, [(token_id, units if of_token else 0, -units, one.at)])
    MOVE_USER.run(conn, [(user_id, units if of_user else 0, -units, 0)])
    MOVE_CHANNEL.run(conn, [(channel_id, -units)])
    name = words(conn.execute(select(tokens.c.name).where(tokens.c.id == token_id)).scalar())
    logs.add(conn, [msgspec.structs.replace(one.entry, quota=units, model_name=words(row["model"]), token_name=name)])
    return units
