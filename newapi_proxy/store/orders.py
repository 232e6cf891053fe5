"""Orders of credit: rows of `top_ups`, made, found and told here; paying one moves money and is not done here.

Source: tasks-and-accounts 6.1. Amounts of money are whole hundredths of the currency, beside New API's float; credit is
quota units, fixed when the order is made. An order that New API made has neither: its own columns say them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, func, insert, select, update

from newapi_proxy.store.row import made, number, words
from newapi_proxy.store.schema import top_ups

PENDING: Final = "pending"
SUCCESS: Final = "success"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
OPEN_SECONDS: Final = 3600
MOST_OPEN: Final = 10  # orders of one payer, of that time, that nobody has paid
_MINOR: Final = 100


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order. `amount` whole USD of credit for people, `quota` the units to credit, None where another program made
    it; `token_id` the key that gets them, 0 for the user; times in unix seconds, 0 for none."""

    user_id: int
    amount: int
    quota: int | None
    money_minor: int
    currency: str
    trade_no: str
    method: str
    provider: str
    created: int
    token_id: int = 0
    status: str = PENDING
    completed: int = 0
    id: int = 0


def begin(conn: Connection, wanted: Sequence[Order]) -> list[int]:
    """Writes pending orders; per order its row's id, 0 where its payer has too many open ones already.

    Raises the driver's error where a number is taken.
    """
    return [0 if _unpaid(conn, one) >= MOST_OPEN else _add(conn, one) for one in wanted]


def _add(conn: Connection, order: Order) -> int:
    return made(
        conn,
        insert(top_ups).values(
            user_id=order.user_id,
            amount=order.amount,
            money=order.money_minor / _MINOR,
            trade_no=order.trade_no,
            payment_method=order.method,
            payment_provider=order.provider,
            create_time=order.created,
            complete_time=0,
            status=PENDING,
            quota=order.quota,
            token_id=order.token_id,
            money_minor=order.money_minor,
            currency=order.currency,
        ),
    )


def _unpaid(conn: Connection, one: Order) -> int:
    open = and_(top_ups.c.status == PENDING, top_ups.c.create_time > one.created - OPEN_SECONDS)
    return number(conn.execute(select(func.count()).where(_whose(one.user_id, one.token_id), open)).scalar())


def _whose(user_id: int, token_id: int) -> ColumnElement[bool]:
    return and_(top_ups.c.user_id == user_id, func.coalesce(top_ups.c.token_id, 0) == token_id)


def find(conn: Connection, trade_no: str) -> Order | None:
    """The order of that number; None where there is none, or where old rows share it."""
    rows = conn.execute(select(top_ups).where(top_ups.c.trade_no == trade_no).limit(2)).mappings().all()
    return _order(rows[0]) if len(rows) == 1 else None


def state(conn: Connection, id: int) -> str:
    """An order's status as it is now, whatever this transaction has read before."""
    return words(conn.execute(select(top_ups.c.status).where(top_ups.c.id == id).with_for_update()).scalar())


def move(conn: Connection, id: int, status: str, at: int, provider_trade_no: str = "") -> bool:
    """Takes a pending order to another status, once, whoever asks; whether it was pending."""
    values = {"status": status, "complete_time": at}
    if provider_trade_no:
        values["provider_trade_no"] = provider_trade_no[:128]
    meant = and_(top_ups.c.id == id, top_ups.c.status == PENDING)
    return conn.execute(update(top_ups).where(meant).values(**values)).rowcount == 1


class End(msgspec.Struct, frozen=True):
    """An order that nobody will pay any more."""

    id: int
    status: str
    at: int


def end(conn: Connection, ends: Sequence[End]) -> list[bool]:
    """Takes pending orders to another end than being paid; which of them were pending."""
    return [move(conn, one.id, one.status, one.at) for one in ends]


def _order(row: RowMapping) -> Order:
    return Order(
        id=row["id"],
        user_id=number(row["user_id"]),
        amount=number(row["amount"]),
        quota=None if row["quota"] is None else number(row["quota"]),
        money_minor=number(row["money_minor"], round(float(row["money"] or 0) * _MINOR)),
        currency=words(row["currency"]),
        trade_no=words(row["trade_no"]),
        method=words(row["payment_method"]),
        provider=words(row["payment_provider"]),
        created=number(row["create_time"]),
        token_id=number(row["token_id"]),
        status=words(row["status"]),
        completed=number(row["complete_time"]),
    )


class Page(msgspec.Struct, frozen=True):
    """Orders, the newest first, and how many there are in all."""

    orders: Sequence[Order]
    total: int


def listed(conn: Connection, whose: tuple[int, int] | None, keyword: str, since: int, span: tuple[int, int]) -> Page:
    """A page of the orders of a user and key, or of everybody; `keyword`: what numbers hold, to the letter; `since`:
    unix seconds; `span`: how many are passed over, and how many are told."""
    meant = top_ups.c.create_time >= since
    if whose is not None:
        meant = and_(meant, _whose(*whose))
    if keyword:
        meant = and_(meant, top_ups.c.trade_no.contains(keyword, autoescape=True))
    total = number(conn.execute(select(func.count()).select_from(top_ups).where(meant)).scalar())
    asked = select(top_ups).where(meant).order_by(top_ups.c.id.desc()).offset(span[0]).limit(span[1])
    return Page([_order(row) for row in conn.execute(asked).mappings()], total)
