"""What a key's holder is told, on every engine: equal to the ledger, about this key alone, in New API's shapes."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, insert, update

from newapi_proxy.accounts import reports
from newapi_proxy.billing import budgets, ledger
from newapi_proxy.billing.ledger import Account
from newapi_proxy.snapshot import Token
from newapi_proxy.store import logs
from newapi_proxy.store.schema import logs as log_table
from newapi_proxy.store.schema import options, tokens
from newapi_proxy.wire import tree
from tests.fakes import money

# Balances of keys and their accounts: a limited key, one without a limit, one of another account.
PEOPLE: Final = ((1_000_000, 3_000_000), (-1, 500), (70, 70))


def holder(id: int = 1, *, limited: bool = True, by_user: bool = True, **named: object) -> Token:
    """The key of that number as the daemon knows it."""
    token = Token(name=f"t{id}", account=Account(id, id, token_limited=limited, user_limited=by_user), group="default")
    return msgspec.structs.replace(token, **named)


def spend(conn: Connection, request: str, token: Token, held: int, charge: int) -> None:
    """One request that was charged."""
    ledger.hold(conn, [money.hold(request, token.account, held)])
    assert ledger.settle(conn, [money.settlement(request, token.account, held, charge)]) == [charge]


def option(conn: Connection, name: str, value: str) -> None:
    """Saves an option as New API's pages do."""
    conn.execute(insert(options).values(key=name, value=value))


def test_balance_equals_the_ledger(conn: Connection) -> None:
    """Limit and use follow every charge and void, and the limit does not move while requests run."""
    money.people(conn, PEOPLE)
    token = holder()
    spend(conn, "a", token, 500, 250_000)
    assert reports.subscription(conn, token, ())["hard_limit_usd"] == 2.0
    assert reports.usage(conn, token, ()) == {"object": "list", "total_usage": 50.0}
    ledger.hold(conn, [money.hold("b", token.account, 100_000)])
    assert reports.subscription(conn, token, ())["hard_limit_usd"] == 2.0
    assert reports.usage(conn, token, ())["total_usage"] == 70.0
    ledger.void(conn, [money.void("b", token.account, 100_000)])
    assert reports.usage(conn, token, ())["total_usage"] == 50.0


def test_subscription_shape(conn: Connection) -> None:
    """All three limits are the same number, a plain one where the key has no limit."""
    money.people(conn, PEOPLE)
    assert reports.subscription(conn, holder(expires=1_900_000_000), ()) == {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": 2.0,
        "hard_limit_usd": 2.0,
        "system_hard_limit_usd": 2.0,
        "access_until": 1_900_000_000,
    }
    unlimited = reports.subscription(conn, holder(2, limited=False), ())
    assert {unlimited[f"{name}_limit_usd"] for name in ("soft", "hard", "system_hard")} == {100_000_000}
    assert unlimited["access_until"] == 0


def test_a_unit_is_not_lost(conn: Connection) -> None:
    """The smallest charge there is can be seen."""
    money.people(conn, PEOPLE)
    spend(conn, "a", holder(), 5, 1)
    assert reports.usage(conn, holder(), ())["total_usage"] == 0.0002


def test_use_of_a_key_without_a_limit(conn: Connection) -> None:
    """What it spent is counted all the same; what runs is not, as nothing is held of it."""
    money.people(conn, PEOPLE)
    token = holder(2, limited=False, by_user=False)
    spend(conn, "a", token, 10, 500_000)
    ledger.hold(conn, [money.hold("b", token.account, 400)])
    assert reports.usage(conn, token, ())["total_usage"] == 100.0
    data = reports.token_usage(conn, token, ())["data"]
    assert (data["unlimited_quota"], data["total_used"]) == (True, 500_000)


def test_token_usage(conn: Connection) -> None:
    """Raw units, with the key's models and expiry."""
    money.people(conn, PEOPLE)
    spend(conn, "a", holder(), 1, 1234)
    told = reports.token_usage(conn, holder(models=("gpt-4o", ""), expires=1_900_000_000), ())
    assert told == {
        "code": True,
        "message": "ok",
        "data": {
            "object": "token_usage",
            "name": "t1",
            "total_granted": 1_000_000,
            "total_used": 1234,
            "total_available": 998_766,
            "unlimited_quota": False,
            "model_limits": {"gpt-4o": True},
            "model_limits_enabled": True,
            "expires_at": 1_900_000_000,
        },
    }


def test_budgets(conn: Connection) -> None:
    """What comes back is told beside what does not, each window with what is held or spent in it."""
    money.people(conn, PEOPLE)
    day, month = budgets.Window("day", 1000, 2000, 500), budgets.Window("month", 0, 9000, 600)
    ledger.hold(conn, [msgspec.structs.replace(money.hold("a", holder().account, 120), windows=(day, month))])
    told = reports.token_usage(conn, holder(), (day, msgspec.structs.replace(month, starts=5)))["data"]["budgets"]
    assert told == [
        {"every": "day", "amount": 500, "used": 120, "left": 380, "resets_at": 2000},
        {"every": "month", "amount": 600, "used": 0, "left": 600, "resets_at": 9000},
    ]


def test_display_options(conn: Connection) -> None:
    """New API's options decide whether units are shown, and whether the account is shown in place of the key."""
    money.people(conn, PEOPLE)
    spend(conn, "a", holder(), 1, 1000)
    option(conn, "DisplayInCurrencyEnabled", "false")
    assert reports.usage(conn, holder(), ())["total_usage"] == 100_000
    option(conn, "DisplayTokenStatEnabled", "false")
    shown = reports.subscription(conn, holder(expires=5), ())
    assert (shown["hard_limit_usd"], shown["access_until"]) == (3_000_000, 0)
    assert reports.subscription(conn, holder(by_user=False), ())["hard_limit_usd"] == 1_000_000


def test_a_key_that_is_gone(conn: Connection) -> None:
    """A key whose row was deleted under us has nothing; it is no fault."""
    money.people(conn, PEOPLE)
    assert reports.subscription(conn, holder(99, by_user=False), ())["hard_limit_usd"] == 0.0
    assert reports.calls(conn, holder(99), ())["data"] == []


def test_calls(conn: Connection) -> None:
    """A key's own rows, oldest first, in the fields that the key tool reads, without the operator's."""
    money.people(conn, PEOPLE)
    spend(conn, "a", holder(), 1, 1000)
    spend(conn, "b", holder(3), 1, 7)
    other = '{"model_ratio":2.5,"admin_info":{"use_channel":["3"]},"model_price":-1}'
    logs.add(conn, [logs.Entry(user_id=1, created_at=1002, token_id=1, ip="10.0.0.1", other=other, is_stream=True)])
    conn.execute(insert(log_table).values(user_id=1, created_at=None, type=1, token_id=1, model_name=None))
    first, second, third = reports.calls(conn, holder(), ())["data"]
    assert (first["quota"], first["model_name"], first["request_id"], first["id"]) == (1000, "m", "a", 1)
    assert tree.lenient(second["other"].encode()) == {"model_ratio": 2.5, "model_price": -1}
    assert (second["is_stream"], second["type"]) == (True, 2)
    assert (third["type"], third["model_name"], third["created_at"]) == (1, "", 0)
    shown = set(first) | set(second)
    assert not shown & {"user_id", "ip", "channel", "channel_id", "channel_name"}
    assert shown >= {"token_name", "use_time", "prompt_tokens", "completion_tokens", "content"}


def test_hidden_facts_stay_hidden(conn: Connection) -> None:
    """A text that holds the operator's facts and cannot be read is not told."""
    money.people(conn, PEOPLE)
    logs.add(conn, [logs.Entry(user_id=1, created_at=1, token_id=1, other='{"admin_info": {"use_channel"')])
    assert reports.calls(conn, holder(), ())["data"][0]["other"] == ""


def test_calls_are_bounded(conn: Connection) -> None:
    """Of many rows the newest are told."""
    money.people(conn, PEOPLE)
    rows = [logs.Entry(user_id=1, created_at=at, token_id=1) for at in range(reports.MOST_CALLS + 20)]
    logs.add(conn, rows)
    conn.execute(update(tokens).where(tokens.c.id == 1).values(name="renamed"))
    told = reports.calls(conn, holder(), ())["data"]
    assert [row["created_at"] for row in told] == list(range(20, reports.MOST_CALLS + 20))
