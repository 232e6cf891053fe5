"""Money that comes in, on every engine: each order and code once, and only as it was said; failures leave no trace."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from newapi_proxy.billing import audit, credits
from newapi_proxy.billing.credits import Paid, Payment, Redeem
from newapi_proxy.store import logs, orders, redemptions, tokens, users
from newapi_proxy.store.orders import Order
from newapi_proxy.store.schema import logs as log_table
from newapi_proxy.store.schema import options, top_ups
from newapi_proxy.store.schema import tokens as token_table
from newapi_proxy.store.schema import users as user_table

AT = 1_729_000_000
ORDER = Order(
    user_id=7,
    amount=10,
    quota=5_000_000,
    money_minor=7300,
    currency="CNY",
    trade_no="USR7NOaB3xY91729000000",
    method="wxpay",
    provider="epay",
    created=AT,
)
PAYMENT = Payment(
    trade_no=ORDER.trade_no,
    at=AT + 60,
    provider="epay",
    currency="CNY",
    money_minor=7300,
    provider_trade_no="2024101512000012345",
)


def begin(conn: Connection, **fields: Any) -> Order:
    """User 7 with 500 000 units, and the order of 13.7 with these changes."""
    if users.find(conn, 7) is None:
        conn.execute(insert(user_table).values(id=7, username="ada", password="!", quota=500_000, aff_code="a7"))
    order = Order(**{name: getattr(ORDER, name) for name in ORDER.__struct_fields__} | fields)
    (id,) = orders.begin(conn, [order])
    assert id > 0
    found = orders.find(conn, order.trade_no)
    assert found is not None
    return found


def payment(**fields: Any) -> Payment:
    """The payment with these changes."""
    return Payment(**{name: getattr(PAYMENT, name) for name in PAYMENT.__struct_fields__} | fields)


def balance(conn: Connection, id: int = 7) -> int:
    """A user's."""
    return int(conn.execute(select(user_table.c.quota).where(user_table.c.id == id)).scalar() or 0)


def told(conn: Connection) -> list[tuple[int, str, int]]:
    """Type, text and units of every log row."""
    rows = conn.execute(select(log_table.c.type, log_table.c.content, log_table.c.quota).order_by(log_table.c.id))
    return [(row.type, row.content, row.quota) for row in rows]


def test_an_order_is_paid_once(conn: Connection) -> None:
    """Twice in a group and once more afterwards: one credit, told in New API's words; `db check` would see a second."""
    before = begin(conn)
    first, second = credits.pay(conn, [PAYMENT, PAYMENT])
    assert (first, second.verdict, second.units) == (Paid("paid", before, 5_000_000), "again", 0)
    assert credits.pay(conn, [payment(at=AT + 90)])[0].verdict == "again"
    assert balance(conn) == 5_500_000
    assert told(conn) == [(1, "使用在线充值成功，充值金额: ＄10.000000 额度，支付金额：73.000000", 5_000_000)]
    found = orders.find(conn, ORDER.trade_no)
    assert found is not None
    assert (found.status, found.completed) == ("success", AT + 60)
    assert conn.execute(select(top_ups.c.provider_trade_no)).scalar() == "2024101512000012345"
    assert audit.check(conn) == []
    conn.execute(update(top_ups).values(status="pending"))
    assert audit.check(conn) == [f"order {ORDER.trade_no}: worth 5000000 and pending, but 1 log rows credit 5000000"]
    credits.pay(conn, [PAYMENT])
    assert audit.check(conn) == [f"order {ORDER.trade_no}: worth 5000000 and success, but 2 log rows credit 10000000"]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"money_minor": 1}, "other_money"),
        ({"money_minor": 7301}, "other_money"),
        ({"money_minor": -1}, "other_money"),
        ({"currency": "USD"}, "other_money"),
        ({"provider": "wechatpay"}, "other_provider"),
        ({"trade_no": "USR7NOaB3xY91729000001"}, "no_order"),
    ],
)
def test_what_is_not_paid(conn: Connection, change: dict[str, Any], verdict: str) -> None:
    """Another sum, currency, gateway or number moves nothing; the right notice is taken afterwards (T-01, T-07)."""
    begin(conn)
    assert credits.pay(conn, [payment(**change)])[0].verdict == verdict
    assert (balance(conn), told(conn)) == (500_000, [])
    assert [one.verdict for one in credits.pay(conn, [PAYMENT])] == ["paid"]


def test_orders_that_are_over(conn: Connection) -> None:
    """What has failed or expired is not paid any more; where the account is gone the order stays open."""
    order = begin(conn)
    assert orders.move(conn, order.id, orders.FAILED, AT)
    assert not orders.move(conn, order.id, orders.EXPIRED, AT)
    assert credits.pay(conn, [PAYMENT])[0].verdict == "closed"
    begin(conn, trade_no="gone", user_id=70)
    begin(conn, trade_no="here")
    paid = credits.pay(conn, [payment(trade_no="gone"), payment(trade_no="here")])
    assert [one.verdict for one in paid] == ["nobody", "paid"]
    assert balance(conn) == 5_500_000
    statuses = {one.trade_no: one.status for one in orders.listed(conn, None, "", 0, (0, 10)).orders}
    assert statuses == {ORDER.trade_no: "failed", "gone": "pending", "here": "success"}


def test_an_operator_vouches(conn: Connection) -> None:
    """An order completed by hand needs no sum and no gateway, is told as such, and is not paid by its notice again."""
    begin(conn)
    assert credits.pay(conn, [Payment(trade_no=ORDER.trade_no, at=AT)])[0].verdict == "paid"
    assert told(conn)[0][1].startswith("管理员补单成功，")
    assert credits.pay(conn, [PAYMENT])[0].verdict == "again"
    assert balance(conn) == 5_500_000


def test_orders_of_another_program(conn: Connection) -> None:
    """An order that New API has begun is paid by its own columns: units of a dollar, money as a float."""
    begin(conn)
    conn.execute(update(top_ups).values(quota=None, money_minor=None, token_id=None, money=19.99, amount=3))
    conn.execute(update(top_ups).values(currency=None))
    assert credits.pay(conn, [payment(money_minor=1998)])[0].verdict == "other_money"
    assert credits.pay(conn, [payment(money_minor=1999)])[0].verdict == "paid"
    assert balance(conn) == 2_000_000


def test_what_raw_displays_say(conn: Connection) -> None:
    """Where New API's pages show units, the row does; the exact units are credited, not whole dollars (T-17)."""
    begin(conn, quota=950_000, amount=1, money_minor=1387)
    conn.execute(insert(options).values(key="DisplayInCurrencyEnabled", value="false"))
    assert credits.pay(conn, [payment(money_minor=1387)])[0].units == 950_000
    assert (balance(conn), told(conn)[0][1]) == (
        1_450_000,
        "使用在线充值成功，充值金额: 950000 点额度，支付金额：13.870000",
    )


def test_a_key_of_ours(conn: Connection) -> None:
    """A key that belongs to nobody is credited itself, by the rule of `token topup`; the books add up."""
    id, _ = tokens.add(conn, tokens.NewToken(name="mine", quota=0), AT)
    owner = users.system(conn) or 0
    tokens.set_status(conn, id, tokens.EXHAUSTED)
    begin(conn, user_id=owner, token_id=id)
    assert credits.pay(conn, [PAYMENT])[0].verdict == "paid"
    (row,) = tokens.find(conn, "mine")
    assert (row.remain_quota, row.status) == (5_000_000, tokens.ENABLED)
    assert balance(conn, owner) == 0
    assert conn.execute(select(log_table.c.token_name, log_table.c.username)).first() == ("mine", users.SYSTEM)
    assert audit.check(conn) == []
    conn.execute(token_table.delete())
    begin(conn, user_id=owner, token_id=id, trade_no="gone")
    assert credits.pay(conn, [payment(trade_no="gone")])[0].verdict == "nobody"


def test_open_orders(conn: Connection) -> None:
    """Ten of a payer that are unpaid for an hour are enough; paid ones, older ones and other payers' do not count."""
    for number in range(10):
        begin(conn, trade_no=f"n{number}", created=AT + number)
    more = Order(**{name: getattr(ORDER, name) for name in ORDER.__struct_fields__} | {"created": AT + 20})
    assert orders.begin(conn, [more]) == [0]
    begin(conn, trade_no="other-key", token_id=5, created=AT + 20)
    begin(conn, trade_no="other-user", user_id=8, created=AT + 20)
    assert credits.pay(conn, [payment(trade_no="n3")])[0].verdict == "paid"
    assert orders.begin(conn, [more]) != [0]
    begin(conn, trade_no="later", created=AT + 3600)


def test_a_code_is_redeemed_once(conn: Connection) -> None:
    """By two at once: one gets it; its row, its time and its taker are kept, and one row tells it (T-16)."""
    begin(conn)
    conn.execute(insert(user_table).values(id=8, username="ben", password="!", quota=1, aff_code="a8"))
    (key,) = redemptions.add(conn, redemptions.NewCodes(name="gift", quota=250_000), AT)
    asked = [Redeem(key, user, 0, AT + 5) for user in (7, 8, 7)]
    assert credits.redeem(conn, asked) == [("redeemed", 250_000), ("used", 0), ("used", 0)]
    assert (balance(conn), balance(conn, 8)) == (750_000, 1)
    (code,) = redemptions.load(conn)
    assert (code.status, code.redeemed_time, code.used_by) == (redemptions.USED, AT + 5, 7)
    assert told(conn) == [(1, f"通过兑换码充值 ＄0.500000 额度，兑换码ID {code.id}", 250_000)]
    assert logs.TOP_UP == 1


def test_codes_that_are_worth_nothing(conn: Connection) -> None:
    """Unknown, deleted, disabled and expired ones; an account that is gone leaves its code usable."""
    begin(conn)
    keys = redemptions.add(conn, redemptions.NewCodes(name="c", quota=5, count=4, expired_time=AT), AT - 100)
    ids = [code.id for code in redemptions.load(conn)]
    redemptions.remove(conn, ids[:1], AT)
    redemptions.switch(conn, ids[1:2], redemptions.DISABLED)
    asked = [Redeem(key, 7, 0, AT + 1) for key in ("0" * 32, *keys[:3])]
    assert [verdict for verdict, _ in credits.redeem(conn, asked)] == ["unknown", "unknown", "used", "expired"]
    assert credits.redeem(conn, [Redeem(keys[3], 70, 0, AT), Redeem(keys[3], 7, 0, AT)]) == [
        ("nobody", 0),
        ("redeemed", 5),
    ]
    assert balance(conn) == 500_005


def test_searches_are_literal(conn: Connection) -> None:
    """`%` and `_` in a keyword are letters; only one's own orders are found, the newest first (T-19)."""
    for number in ("a_b", "axb", "a%b", "other"):
        begin(conn, trade_no=number, user_id=8 if number == "other" else 7)

    def numbers(keyword: str, whose: tuple[int, int] | None = (7, 0), since: int = 0) -> list[str]:
        return [one.trade_no for one in orders.listed(conn, whose, keyword, since, (0, 10)).orders]

    assert numbers("a_b") == ["a_b"]
    assert numbers("%") == ["a%b"]
    assert numbers("") == ["a%b", "axb", "a_b"]
    assert numbers("", None)[0] == "other"
    assert numbers("a", since=AT + 1) == []
    page = orders.listed(conn, (7, 0), "", 0, (1, 1))
    assert ([one.trade_no for one in page.orders], page.total) == (["axb"], 3)


def test_access_tokens_are_read_to_the_letter(conn: Connection) -> None:
    """Whatever the engine's collation and padding: another case is another token; deleted accounts have none."""
    text = "Ada-Access-Token-0123456789abcde"
    conn.execute(
        insert(user_table).values(id=7, username="ada", password="!", access_token=text, group="vip", aff_code="a7")
    )
    conn.execute(insert(user_table).values(id=8, username="ben", password="!", access_token="short", aff_code="a8"))
    found = users.by_access_token(conn, text)
    assert found is not None
    assert (found.id, found.group, found.role, found.status) == (7, "vip", 1, 1)
    assert users.by_access_token(conn, "short") is not None
    assert users.by_access_token(conn, text.lower()) is None
    assert users.by_access_token(conn, "") is None
