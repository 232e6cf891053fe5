"""Money that comes in: a paid order, a redeemed code; each once, with the log row that tells it.

The rest of `ledger`, with its statements. What says that the money has come (an order's status, a code's) is taken from
one state to the other by a conditional UPDATE in the same transaction; who finds it taken already moves nothing. So a
notice may come twice, at once, and to several daemons. Source: tasks-and-accounts 6.5, 6.9, traps T-01 to T-03, T-07,
T-16. Runs inside the caller's transaction, is safe to repeat. A part of its items that fails leaves no trace, and never
takes the others with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from sqlalchemy import Connection, select

from newapi_proxy.billing.ledger import MOVE_USER
from newapi_proxy.billing.prices import UNITS_PER_USD
from newapi_proxy.store import logs, options, orders, redemptions, tokens
from newapi_proxy.store.row import words
from newapi_proxy.store.rows import savepoint
from newapi_proxy.store.schema import tokens as token_table
from newapi_proxy.store.schema import users

Verdict = Literal["paid", "again", "no_order", "other_provider", "other_money", "closed", "nobody"]
Redeemed = Literal["redeemed", "unknown", "used", "expired", "nobody"]


# New API's words: its pages show them, and people search for them.
_ONLINE: Final = "使用在线充值成功"
_BY_HAND: Final = "管理员补单成功"
_DOLLAR: Final = "\uff04"


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says: so much, in hundredths, has been paid for that order. Without provider and money: what an
    operator vouches for."""

    trade_no: str
    at: int
    provider: str | None = None
    currency: str = ""
    money_minor: int | None = None
    provider_trade_no: str = ""


class Paid(msgspec.Struct, frozen=True):
    """What became of it: `paid` now or `again`, or why not; the order, and what was credited by this very call."""

    verdict: Verdict
    order: orders.Order | None = None
    units: int = 0


class Redeem(msgspec.Struct, frozen=True):
    """A code for a user, or for a key of ours where `token_id` says so."""

    key: str
    user_id: int
    token_id: int
    at: int


class _Nobody(Exception):
    """Whoever is to be credited is gone."""


def pay(conn: Connection, payments: Sequence[Payment]) -> list[Paid]:
    """Credits orders that were paid; per payment what became of it."""
    return [_paid(conn, one) for one in payments]


def _paid(conn: Connection, one: Payment) -> Paid:
    order = orders.find(conn, one.trade_no)
    wrong = _wrong(order, one)
    if order is None or wrong is not None:
        return Paid(wrong or "no_order", order)
    units = order.quota if order.quota is not None else order.amount * UNITS_PER_USD
    try:
        with savepoint(conn, "credit"):
            if not orders.move(conn, order.id, orders.SUCCESS, one.at, one.provider_trade_no):
                return Paid("again" if orders.state(conn, order.id) == orders.SUCCESS else "closed", order)
            how = _BY_HAND if one.provider is None else _ONLINE
            told = f"{how}\uff0c充值金额: {_told(conn, units)}\uff0c支付金额\uff1a{order.money_minor / 100:f}"
            _credit(conn, (order.user_id, order.token_id), units, (told, order.trade_no), one.at)
    except _Nobody:
        return Paid("nobody", order)
    return Paid("paid", order, units)


def _wrong(order: orders.Order | None, one: Payment) -> Verdict | None:
    if order is None:
        return "no_order"
    if one.provider is None:
        return None
    if order.provider != one.provider:
        return "other_provider"
    currency = order.currency or one.currency  # New API has none: a gateway has one
    return None if (one.money_minor, one.currency) == (order.money_minor, currency) else "other_money"


def redeem(conn: Connection, asked: Sequence[Redeem]) -> list[tuple[Redeemed, int]]:
    """Credits codes; per code what became of it, and the units."""
    return [_redeemed(conn, one) for one in asked]


def _redeemed(conn: Connection, one: Redeem) -> tuple[Redeemed, int]:
    code = redemptions.find(conn, one.key)
    if code is None:
        return "unknown", 0
    if code.status == redemptions.USABLE and 0 < code.expired_time < one.at:
        return "expired", 0
    try:
        with savepoint(conn, "credit"):
            if not redemptions.use(conn, code.id, one.user_id, one.at):
                return "used", 0
            told = f"通过兑换码充值 {_told(conn, code.quota)}\uff0c兑换码ID {code.id}"
            _credit(conn, (one.user_id, one.token_id), code.quota, (told, ""), one.at)
    except _Nobody:
        return "nobody", 0
    return "redeemed", code.quota


def _credit(conn: Connection, whom: tuple[int, int], units: int, told: tuple[str, str], at: int) -> None:
    """Puts units on a user's balance, or on that of a key of ours, by the rule of `token topup`; and tells it.

    `told`: the row's text, and the order's number, by which `audit` finds it.
    """
    user_id, token_id = whom
    name = ""
    if token_id:
        asked = select(token_table.c.name, token_table.c.status).where(token_table.c.id == token_id)
        found = conn.execute(asked).first()
        if found is None or not tokens.grant(conn, token_id, units):
            raise _Nobody
        name = words(found.name)
        if found.status == tokens.EXHAUSTED:
            tokens.set_status(conn, token_id, tokens.ENABLED)
    elif MOVE_USER.run(conn, [(user_id, units, 0, 0)]) != 1:
        raise _Nobody
    username = words(conn.execute(select(users.c.username).where(users.c.id == user_id)).scalar())
    row = logs.Entry(
        user_id=user_id,
        created_at=at,
        type=logs.TOP_UP,
        content=told[0],
        username=username,
        token_name=name,
        token_id=token_id,
        quota=units,
        request_id=told[1],
    )
    logs.add(conn, [row])


def _told(conn: Connection, units: int) -> str:
    """An amount as New API's log has it (0.5)."""
    if options.flag(conn, "DisplayInCurrencyEnabled", True):
        return f"{_DOLLAR}{units / UNITS_PER_USD:.6f} 额度"
    return f"{units} 点额度"
