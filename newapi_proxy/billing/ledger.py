"""Money moves here only, in `extending`, `refunds` and `credits`: hold, then settle or void. Functions of a connection.

Source: architecture-examples 4.6, reliability 2 and 3, decisions 6 to 8. Each function runs inside the caller's
transaction, is safe to repeat and says what it did. A batch is done in few statements; where one of its members cannot
be (a poor account, an id seen before), the batch is undone and its members are done one by one, in their order.

For an account that is limited, at any time: what was put in = balance + open holds + charges - refunds. No balance
goes below zero by what is done here, and no budget above its amount. Amounts are whole quota units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Table, and_, func, or_, select, update
from sqlalchemy import text as sql

from newapi_proxy.billing import budgets
from newapi_proxy.billing.budgets import Every, Window
from newapi_proxy.store import logs, replies
from newapi_proxy.store.groups import Living
from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.rows import INT, TEXT, inserting, savepoint, updating
from newapi_proxy.store.schema import channels, ledger, tokens, users

Refusal = Literal["token", "user", "duplicate"] | Every
Side = Literal["token", "user"]
_Item = TypeVar("_Item")
_Done = TypeVar("_Done")
_ZERO: Final = sql("0")
_IS_HELD: Final = ledger.c.state == sql("'held'")
_SIDES: Final = {
    "token": (ledger.c.token_id, ledger.c.token_limited),
    "user": (ledger.c.user_id, ledger.c.user_limited),
}
ENDED: Final = "the process that held it ended"  # a reason
_BATCH: Final = 500  # open holds that one step of `recover` reads


class Account(msgspec.Struct, frozen=True):
    """Who pays. Only a limited side has a balance that moves; user 0 is nobody."""

    token_id: int
    user_id: int
    token_limited: bool
    user_limited: bool


class Hold(msgspec.Struct, frozen=True):
    """Money set aside before the first upstream byte; `boot` names the process that answers for it.

    `windows`: the budgets' windows that it counts in, here as in what resolves it.
    """

    request_id: str
    account: Account
    amount: int
    at: int
    boot: str
    model: str
    windows: tuple[Window, ...] = ()


class Settlement(msgspec.Struct, frozen=True):
    """A request's end that costs: `charge` units in place of the `held` ones. `detail` is JSON for `explain`, `answer`
    what is to be told again to who asks with the same idempotency key."""

    request_id: str
    account: Account
    held: int
    charge: int
    at: int
    channel_id: int
    entry: logs.Entry
    detail: bytes
    price_version: str = ""
    answer: replies.Answer | None = None
    windows: tuple[Window, ...] = ()


class Void(msgspec.Struct, frozen=True):
    """A request's end that costs nothing. `detail` is JSON for `explain`, None where there is nothing to tell."""

    request_id: str
    account: Account
    held: int
    at: int
    reason: str
    windows: tuple[Window, ...] = ()
    detail: bytes | None = None


def _n(column: Column[int]) -> ColumnElement[int]:
    return func.coalesce(column, _ZERO)  # inherited rows may hold NULL


def _bears(units: ColumnElement[int], balance: Column[int]) -> ColumnElement[bool]:
    return or_(units >= _ZERO, balance + units >= _ZERO)


def _take(table: Table, balance: str) -> Callable[[Connection, dict[int, int]], bool]:
    """A guarded UPDATE per account; whether every account could give what was asked."""
    column = table.c[balance]
    taking = updating(
        table,
        {"id": INT, "units": INT},
        lambda given: {balance: column - given.units},
        lambda given: and_(table.c.id == given.id, column >= given.units),
    )
    return lambda conn, sums: taking.run(conn, sorted(sums.items())) == len(sums)


_take_token: Final = _take(tokens, "remain_quota")
_take_user: Final = _take(users, "quota")
_OPEN: Final = inserting(
    ledger,
    "request_id", "token_id", "user_id", "token_limited", "user_limited", "state", "held", "at", "boot", "model",
    "budgets",
    once=True,
)  # fmt: skip
_FINISH: Final = updating(
    ledger,
    {"id": TEXT, "token": INT, "held": INT, "state": TEXT, "charged": INT, "shortfall": INT, "at": INT}
    | {"channel": INT, "reason": TEXT, "price": TEXT, "detail": TEXT},
    lambda given: {
        "state": given.state,
        "charged": given.charged,
        "shortfall": given.shortfall,
        "resolved_at": given.at,
        "channel_id": given.channel,
        "reason": given.reason,
        "price_version": given.price,
        "detail": given.detail,
    },
    # a hold is resolved once, by whose it is, and who knows what it holds
    lambda given: and_(
        ledger.c.request_id == given.id, _IS_HELD, ledger.c.held == given.held, ledger.c.token_id == given.token
    ),
)
# A balance may only be lowered as far as it reaches, but a refund is never refused.
MOVE_TOKEN: Final = updating(
    tokens,
    {"id": INT, "units": INT, "used": INT, "at": INT},
    lambda given: {
        "remain_quota": _n(tokens.c.remain_quota) + given.units,
        "used_quota": _n(tokens.c.used_quota) + given.used,
        "accessed_time": given.at,
    },
    lambda given: and_(tokens.c.id == given.id, _bears(given.units, tokens.c.remain_quota)),
)
MOVE_USER: Final = updating(
    users,
    {"id": INT, "units": INT, "used": INT, "requests": INT},
    lambda given: {
        "quota": _n(users.c.quota) + given.units,
        "used_quota": _n(users.c.used_quota) + given.used,
        "request_count": _n(users.c.request_count) + given.requests,
    },
    lambda given: and_(users.c.id == given.id, _bears(given.units, users.c.quota)),
)
MOVE_CHANNEL: Final = updating(
    channels,
    {"id": INT, "used": INT},
    lambda given: {"used_quota": _n(channels.c.used_quota) + given.used},
    lambda given: channels.c.id == given.id,
)


class _Alone(Exception):
    """A batch cannot be done together."""


def _each(
    conn: Connection,
    items: Sequence[_Item],
    together: Callable[[Connection, Sequence[_Item]], list[_Done]],
    alone: Callable[[Connection, _Item], _Done],
) -> list[_Done]:
    if len(items) > 1:
        try:
            with savepoint(conn, "batch"):
                return together(conn, items)
        except _Alone:
            pass
    return [alone(conn, item) for item in items]


def hold(conn: Connection, holds: Sequence[Hold]) -> list[Refusal | None]:
    """Sets money aside; per hold None, or why not: a balance, a budget, or an id that exists already."""
    assert all(one.amount >= 0 for one in holds)
    return _each(conn, holds, _hold_together, _hold_alone)


def _hold_together(conn: Connection, holds: Sequence[Hold]) -> list[Refusal | None]:
    by_token: dict[int, int] = {}
    by_user: dict[int, int] = {}
    moves = budgets.Moves()
    for one in holds:
        if one.windows:
            moves.add(one.account.token_id, one.windows, one.amount)
        if one.amount and one.account.token_limited:
            by_token[one.account.token_id] = by_token.get(one.account.token_id, 0) + one.amount
        if one.amount and one.account.user_limited:
            by_user[one.account.user_id] = by_user.get(one.account.user_id, 0) + one.amount
    if _open(conn, holds) != len(holds) or not _take_token(conn, by_token) or not _take_user(conn, by_user):
        raise _Alone
    if not moves.run(conn):
        raise _Alone
    return [None] * len(holds)


def _hold_alone(conn: Connection, one: Hold) -> Refusal | None:
    # Balances first, the row last: what was taken before a refusal is put back, the row would have to be deleted.
    sides: list[Refusal] = []
    refusal = withdraw(conn, one, sides) if one.amount else None
    if refusal is None and _open(conn, [one]) == 1:
        return None
    put_back(conn, one, sides)
    return refusal if refusal is not None and _unseen(conn, one.request_id) else "duplicate"


def withdraw(conn: Connection, one: Hold, sides: list[Refusal]) -> Refusal | None:
    """Takes the amount from one side after the other, noting which, up to the one that lacks it."""
    account, amount = one.account, one.amount
    if account.token_limited:
        if not _take_token(conn, {account.token_id: amount}):
            return "token"
        sides.append("token")
    if account.user_limited:
        if not _take_user(conn, {account.user_id: amount}):
            return "user"
        sides.append("user")
    for window in one.windows:
        if not budgets.take(conn, account.token_id, window, amount):
            return window.every
        sides.append(window.every)
    return None


def put_back(conn: Connection, one: Hold, sides: Sequence[Refusal]) -> None:
    """Gives the amount back to the sides that it was taken from."""
    back = budgets.Moves()
    back.add(one.account.token_id, [window for window in one.windows if window.every in sides], -one.amount)
    back.run(conn)
    if "user" in sides:
        MOVE_USER.run(conn, [(one.account.user_id, one.amount, 0, 0)])
    if "token" in sides:
        MOVE_TOKEN.run(conn, [(one.account.token_id, one.amount, 0, one.at)])


def _open(conn: Connection, holds: Sequence[Hold]) -> int:
    return _OPEN.run(
        conn,
        [
            (
                one.request_id,
                one.account.token_id,
                one.account.user_id,
                one.account.token_limited,
                one.account.user_limited,
                "held",
                one.amount,
                one.at,
                one.boot,
                one.model,
                budgets.told(one.windows) if one.windows else "",
            )
            for one in holds
        ],
    )


def _unseen(conn: Connection, request_id: str) -> bool:
    return conn.execute(select(ledger.c.request_id).where(ledger.c.request_id == request_id)).first() is None


def settle(conn: Connection, settlements: Sequence[Settlement]) -> list[int | None]:
    """Charges; per settlement the units taken, or None where no such hold was open: then nothing moved.

    Above the hold the rest is taken as far as balances and budgets reach; what is missing is recorded as shortfall.
    """
    assert all(one.charge >= 0 for one in settlements)
    taken = _each(conn, settlements, _settle_together, _settle_alone)
    for one, units in zip(settlements, taken, strict=True):
        if one.answer is not None and units is not None:
            replies.keep(conn, one.answer)
    return taken


def _settle_together(conn: Connection, settlements: Sequence[Settlement]) -> list[int | None]:
    taken = [one.charge for one in settlements]
    if not _charge(conn, settlements, taken) or not _pay(conn, settlements, taken):
        raise _Alone
    return list(taken)


def _settle_alone(conn: Connection, one: Settlement) -> int | None:
    extra = one.charge - one.held
    taken = one.held + min(extra, _reach(conn, one)) if extra > 0 else one.charge
    if _charge(conn, [one], [taken]):
        if not one.held:  # so there may be no counter yet
            counted = budgets.Moves()
            counted.add(one.account.token_id, one.windows, 1)
            counted.begin(conn)
        _pay(conn, [one], [taken])
        return taken
    return _settle_alone(conn, msgspec.structs.replace(one, held=0)) if _reopened(conn, one) else None


def _reopened(conn: Connection, one: Settlement) -> bool:
    """Whether the hold was given back because its process was taken for dead: it lives, and charges what is left."""
    mine = and_(ledger.c.request_id == one.request_id, ledger.c.token_id == one.account.token_id)
    lost = and_(mine, ledger.c.state == "voided", ledger.c.reason == ENDED)
    return conn.execute(update(ledger).where(lost).values(state="held", held=0)).rowcount > 0


def _reach(conn: Connection, one: Settlement) -> int:
    """The most that balances and budgets can give, at least 0; without limits there is no end to it."""
    account = one.account
    balances: list[int] = []
    if account.token_limited:
        asked = select(tokens.c.remain_quota).where(tokens.c.id == account.token_id).with_for_update()
        balances.append(number(conn.execute(asked).scalar()))
    if account.user_limited:
        asked = select(users.c.quota).where(users.c.id == account.user_id).with_for_update()
        balances.append(number(conn.execute(asked).scalar()))
    # in the order in which rows are locked everywhere
    balances += [window.amount - budgets.used(conn, account.token_id, window) for window in one.windows]
    return max(0, min(balances, default=1 << 62))


def _charge(conn: Connection, settlements: Sequence[Settlement], taken: Sequence[int]) -> bool:
    rows = [
        (
            one.request_id,
            one.account.token_id,
            one.held,
            "settled",
            units,
            one.charge - units,
            one.at,
            one.channel_id,
            "",
            one.price_version,
            one.detail.decode(),
        )
        for one, units in zip(settlements, taken, strict=True)
    ]
    return _unique(settlements) and _FINISH.run(conn, rows) == len(rows)


def _pay(conn: Connection, settlements: Sequence[Settlement], taken: Sequence[int]) -> bool:
    """Moves balances, counts what was used and logs; whether every account could follow."""
    by_token: dict[int, list[int]] = {}
    by_user: dict[int, list[int]] = {}
    by_channel: dict[int, int] = {}
    moves, fresh = budgets.Moves(), False
    for one, units in zip(settlements, taken, strict=True):
        account, rest = one.account, one.held - units
        if one.windows:
            moves.add(account.token_id, one.windows, -rest)
            fresh |= not one.held  # a hold of nothing counts nowhere, so there may be no counter yet
        _add(by_token, account.token_id, rest if account.token_limited else 0, units, 1)
        _add(by_user, account.user_id, rest if account.user_limited else 0, units, 1)
        by_channel[one.channel_id] = by_channel.get(one.channel_id, 0) + units
    at = settlements[-1].at
    moved = MOVE_TOKEN.run(conn, [(id, *sums[:2], at) for id, sums in sorted(by_token.items())]) == len(by_token)
    by_user.pop(0, None)
    moved &= MOVE_USER.run(conn, [(id, *sums) for id, sums in sorted(by_user.items())]) == len(by_user)
    if fresh:
        moves.begin(conn)
    moved &= moves.run(conn)
    MOVE_CHANNEL.run(conn, sorted(by_channel.items()))
    logs.add(
        conn,
        [
            one.entry if one.entry.quota == units else msgspec.structs.replace(one.entry, quota=units)
            for one, units in zip(settlements, taken, strict=True)
        ],
    )
    return moved


def _add(sums: dict[int, list[int]], key: int, units: int, used: int, requests: int) -> None:
    known = sums.get(key)
    if known is None:
        sums[key] = [units, used, requests]
    else:
        known[0] += units
        known[1] += used
        known[2] += requests


def _unique(items: Sequence[Settlement] | Sequence[Void]) -> bool:
    return len(items) == 1 or len({one.request_id for one in items}) == len(items)


def void(conn: Connection, voids: Sequence[Void]) -> list[bool]:
    """Gives what is held back; per void whether such a hold was open."""
    return _each(conn, voids, _void_together, lambda conn, one: _return(conn, [one]))


def _void_together(conn: Connection, voids: Sequence[Void]) -> list[bool]:
    if not _return(conn, voids):
        raise _Alone
    return [True] * len(voids)


def _return(conn: Connection, voids: Sequence[Void]) -> bool:
    rows = [
        (
            one.request_id,
            one.account.token_id,
            one.held,
            "voided",
            0,
            0,
            one.at,
            0,
            one.reason,
            "",
            one.detail and one.detail.decode(),
        )
        for one in voids
    ]
    if not _unique(voids) or _FINISH.run(conn, rows) != len(rows):
        return False
    by_token: dict[int, list[int]] = {}
    by_user: dict[int, list[int]] = {}
    moves = budgets.Moves()
    for one in voids:
        if one.windows:
            moves.add(one.account.token_id, one.windows, -one.held)
        if one.held and one.account.token_limited:
            _add(by_token, one.account.token_id, one.held, 0, 0)
        if one.held and one.account.user_limited:
            _add(by_user, one.account.user_id, one.held, 0, 0)
    MOVE_TOKEN.run(conn, [(id, *sums[:2], voids[-1].at) for id, sums in sorted(by_token.items())])
    MOVE_USER.run(conn, [(id, *sums) for id, sums in sorted(by_user.items())])
    moves.run(conn)
    return True


def recover(conn: Connection, living: Living, at: int) -> int:
    """Voids what processes that are not among the living left open; how many. Run at start, and on where others die."""
    asked = select(ledger).where(_IS_HELD, ledger.c.boot.not_in(living))
    count = 0
    while found := conn.execute(asked.limit(_BATCH)).mappings().all():
        voided = sum(
            void(
                conn,
                [
                    Void(
                        row["request_id"],
                        Account(
                            number(row["token_id"]),
                            number(row["user_id"]),
                            truth(row["token_limited"]),
                            truth(row["user_limited"]),
                        ),
                        number(row["held"]),
                        at,
                        ENDED,
                        budgets.read(words(row["budgets"])),
                    )
                    for row in found
                ],
            )
        )
        if not voided:
            break
        count += voided
    return count


def held(conn: Connection, side: Side, id: int) -> int:
    """Units that running requests hold of the balance of a key or an account; of one without a limit none."""
    whose, limited = _SIDES[side]
    return number(conn.execute(select(func.sum(ledger.c.held)).where(_IS_HELD, limited, whose == id)).scalar())
