"""Adds the ledger up: the invariants O1 to O3 of reliability 3, as queries over the tables. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, literal, or_, select

from newapi_proxy.billing import budgets
from newapi_proxy.billing.refunds import MARK
from newapi_proxy.store.logs import TOP_UP
from newapi_proxy.store.orders import SUCCESS
from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.schema import channels, ledger, logs, proxy_replies, proxy_tokens, tokens, top_ups, users

_STATES: Final = ("held", "settled", "voided", "refunded")


def check(conn: Connection) -> list[str]:
    """What does not add up, one sentence each; nothing where all is well."""
    return [finding for one in _CHECKS for finding in one(conn)]


def open_holds(conn: Connection) -> int:
    """How many holds wait for their request's end; with no daemon running, its next start gives them back."""
    return number(conn.execute(select(func.count()).where(ledger.c.state == "held")).scalar())


def _rows(conn: Connection) -> Iterator[str]:
    """O3: a row is held, or resolved once and for all with a sum that its state allows."""
    odd = or_(
        ledger.c.state.not_in(_STATES),
        ledger.c.held < 0,
        and_(ledger.c.charged < 0, ledger.c.state != "refunded"),
        ledger.c.shortfall < 0,
        and_(ledger.c.state != "held", ledger.c.resolved_at.is_(None)),
        and_(ledger.c.state.not_in(("settled", "refunded")), func.coalesce(ledger.c.charged, 0) != 0),
    )
    for row in conn.execute(select(ledger.c.request_id, ledger.c.state).where(odd)):
        yield f"request {row.request_id}: its row is impossible for the state {row.state}"


def _refunds(conn: Connection) -> Iterator[str]:
    """O3: what was given back is what was charged, to the unit and to the same key; old charges are forgotten first."""
    paid = ledger.alias("paid")
    asked = (
        select(ledger.c.request_id, ledger.c.charged, paid.c.charged.label("paid"))
        .join(paid, literal(MARK) + paid.c.request_id == ledger.c.request_id)
        .where(ledger.c.state == "refunded")
        .where(or_(paid.c.charged + ledger.c.charged != 0, paid.c.token_id != ledger.c.token_id))
    )
    for row in conn.execute(asked):
        yield f"{row.request_id}: {-row.charged} given back of {row.paid} charged"


def _overdrawn(conn: Connection) -> Iterator[str]:
    """O3: nobody whom the ledger limits is below zero."""
    sides: tuple[tuple[str, Table, Any, Any, Any], ...] = (
        ("token", tokens, tokens.c.remain_quota, ledger.c.token_id, ledger.c.token_limited),
        ("user", users, users.c.quota, ledger.c.user_id, ledger.c.user_limited),
    )
    for name, table, balance, key, limited in sides:
        seen = select(key).where(limited)
        for row in conn.execute(select(table.c.id, balance.label("left")).where(balance < 0, table.c.id.in_(seen))):
            yield f"{name} {row.id}: its balance is {row.left}"


def _conserved(conn: Connection) -> Iterator[str]:
    """O1: what was put on a key of ours = its balance + open holds + charges."""
    moved = func.sum(case((ledger.c.state == "held", ledger.c.held), else_=ledger.c.charged))
    sums = (
        select(ledger.c.token_id, moved.label("units")).where(ledger.c.token_limited).group_by(ledger.c.token_id)
    ).subquery()
    asked = (
        select(tokens.c.id, tokens.c.remain_quota, tokens.c.unlimited_quota, proxy_tokens.c.granted, sums.c.units)
        .select_from(
            tokens.join(proxy_tokens, proxy_tokens.c.token_id == tokens.c.id).outerjoin(
                sums, sums.c.token_id == tokens.c.id
            )
        )
        .order_by(tokens.c.id)
    )
    for row in conn.execute(asked):
        left, granted, units = number(row.remain_quota), number(row.granted), number(row.units)
        if not truth(row.unlimited_quota) and left + units != granted:
            yield f"token {row.id}: {granted} granted, but {left} left and {units} held or charged"


def _counted(conn: Connection) -> Iterator[str]:
    """O1: the lifetime counters hold at least what the ledger charged; other programs may have added to them."""
    for name, table, key in (
        ("token", tokens, ledger.c.token_id),
        ("user", users, ledger.c.user_id),
        ("channel", channels, ledger.c.channel_id),
    ):
        sums = select(key.label("id"), func.sum(ledger.c.charged).label("units")).group_by(key).subquery()
        less: ColumnElement[bool] = func.coalesce(table.c.used_quota, 0) < sums.c.units
        asked = select(table.c.id, table.c.used_quota, sums.c.units).join(sums, sums.c.id == table.c.id).where(less)
        for row in conn.execute(asked):
            yield f"{name} {row.id}: {row.units} charged, but only {number(row.used_quota)} counted as used"


def _told(conn: Connection) -> Iterator[str]:
    """O2: a settled row has one log row with its amount (none where somebody cleared the log)."""
    rows = (
        select(logs.c.request_id, func.count().label("rows"), func.sum(logs.c.quota).label("units"))
        .where(logs.c.type == 2, logs.c.request_id != "")
        .group_by(logs.c.request_id)
    ).subquery()
    asked = (
        select(ledger.c.request_id, ledger.c.charged, rows.c.rows, rows.c.units)
        .join(rows, rows.c.request_id == ledger.c.request_id)
        .where(or_(rows.c.rows != 1, rows.c.units != ledger.c.charged))
    )
    for row in conn.execute(asked):
        yield f"request {row.request_id}: {row.charged} charged, but {row.rows} log rows say {row.units}"


def _paid(conn: Connection) -> Iterator[str]:
    """A paid order of ours was credited once, by its amount (none where somebody cleared the log)."""
    rows = (
        select(logs.c.request_id, func.count().label("rows"), func.sum(logs.c.quota).label("units"))
        .where(logs.c.type == TOP_UP, logs.c.request_id != "")
        .group_by(logs.c.request_id)
    ).subquery()
    asked = (
        select(top_ups.c.trade_no, top_ups.c.status, top_ups.c.quota, rows.c.rows, rows.c.units)
        .join(rows, rows.c.request_id == top_ups.c.trade_no)
        .where(or_(rows.c.rows != 1, rows.c.units != top_ups.c.quota, top_ups.c.status != SUCCESS))
    )
    for row in conn.execute(asked):
        units = number(row.units)  # a decimal on some engines
        yield f"order {row.trade_no}: worth {row.quota} and {row.status}, but {row.rows} log rows credit {units}"


def _budgeted(conn: Connection) -> Iterator[str]:
    """O1: what a budget's window has taken = open holds and charges that count in it."""
    counted = budgets.everything(conn)
    moved = func.sum(case((ledger.c.state == "held", ledger.c.held), else_=ledger.c.charged))
    asked = select(ledger.c.token_id, ledger.c.budgets, moved.label("units")).where(ledger.c.budgets != "")
    sums = dict.fromkeys(counted, 0)
    for row in conn.execute(asked.group_by(ledger.c.token_id, ledger.c.budgets)):
        for one in budgets.read(words(row.budgets)):
            key = (number(row.token_id), one.every, one.starts)
            sums[key] = sums.get(key, 0) + number(row.units)
    for (token_id, every, starts), units in sorted(sums.items()):
        used = counted.get((token_id, every, starts), 0)
        if used != units:
            begun = budgets.moment(starts)
            yield f"token {token_id}: its budget of the {every} from {begun} counts {used}, but {units} are due"


def _answered(conn: Connection) -> Iterator[str]:
    """Demand B11: an answer is kept under a client's key with the charge for it, and only so."""
    joined = proxy_replies.outerjoin(ledger, ledger.c.request_id == proxy_replies.c.owner)
    unpaid = or_(ledger.c.state.is_(None), ledger.c.state != "settled")
    asked = select(proxy_replies.c.owner, ledger.c.state).select_from(joined)
    for row in conn.execute(asked.where(proxy_replies.c.state != "open", unpaid)):
        yield f"request {row.owner}: its answer is kept under a client's key, but it is {row.state or 'not there'}"


_CHECKS: Final[tuple[Callable[[Connection], Iterator[str]], ...]] = (
    _rows,
    _refunds,
    _overdrawn,
    _conserved,
    _counted,
    _told,
    _paid,
    _budgeted,
    _answered,
)
