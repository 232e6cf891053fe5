"""Credit bought by an EasyPay gateway, through a real daemon and a fake gateway: the money's way, and the traps."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fakes.easypay import EasyPay, Told, serving, signature
from tests.fakes.process import Daemon
from tests.fakes.till import ADA, BEN, EVE, KEYS, ROOT, Till, kept, selling

Start = Callable[..., Daemon]
PORTAL = """\
    group_ratios: {vip: 0.9}
    discounts: {100: 0.95}
    easypay: {address: "https://pay.example.org/base/", id: "1001", key: k3yForTests0123456789}
"""
NOTIFY = "/api/user/epay/notify"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """One daemon of a configuration for all of these tests."""
    with kept(tmp_path_factory.mktemp("till")) as start:
        yield start


@asynccontextmanager
async def shop(daemon: Start, *, keys: bool = False) -> AsyncIterator[tuple[Till, EasyPay]]:
    """The daemon and its gateway."""
    async with serving() as gateway, selling(daemon, PORTAL, keys=keys) as till:
        yield till, gateway


async def ordered(till: Till, gateway: EasyPay, by: str = ADA, **fields: Any) -> str:
    """An order that the customer's browser has taken to the gateway; its number."""
    answer = await till.post("/api/user/pay", {"amount": 10, "payment_method": "wx", **fields}, by)
    assert answer.tree["message"] == "success", answer.body
    assert answer.tree["url"] == "https://pay.example.org/base/submit.php"
    assert await gateway.submit(answer.tree["data"]) == 200
    return str(answer.tree["data"]["out_trade_no"])


def _paid(number: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a line says that this order was paid."""
    return lambda line: line["event"] == "topup_paid" and line["trade_no"] == number


async def test_scenario_16(daemon: Start) -> None:
    """EasyPay, 10 units: pay, notify, notify again: 73.00, +5000000 once, one type-1 row, the order is a success."""
    async with shop(daemon) as (till, gateway):
        assert (await till.post("/api/user/amount", {"amount": 10, "top_up_code": ""})).tree == {
            "message": "success",
            "data": "73.00",
        }
        answer = await till.post("/api/user/pay", {"amount": 10, "payment_method": "zfb", "top_up_code": ""})
        assert answer.tree["url"] == "https://pay.example.org/base/submit.php"
        form = answer.tree["data"]
        number = form["out_trade_no"]
        assert {name: form[name] for name in form if name not in ("out_trade_no", "sign")} == {
            "pid": "1001",
            "type": "alipay",
            "notify_url": f"{till.url}/api/user/epay/notify",
            "name": "TUC10",
            "money": "73.00",
            "device": "pc",
            "sign_type": "MD5",
            "return_url": f"{till.url}/log",
        }
        assert form["sign"] == signature(form)
        assert number.startswith("USR7NO")
        assert len(number) == len("USR7NOaB3xY91729000000")
        (order,) = till.orders()
        assert (order["status"], order["amount"], order["money"]) == ("pending", 10, 73.0)
        assert (order["quota"], order["money_minor"], order["currency"]) == (5_000_000, 7300, "CNY")
        assert (order["payment_method"], order["payment_provider"]) == ("alipay", "epay")
        assert till.quota() == 500_000

        assert await gateway.submit(form) == 200
        assert await gateway.pay(number) == ["success"]
        assert await gateway.pay(number, Told(post=True)) == ["success"]

        assert till.quota() == 5_500_000
        (row,) = till.told()
        assert row["content"] == "使用在线充值成功，充值金额: ＄10.000000 额度，支付金额：73.000000"
        assert (row["user_id"], row["username"], row["quota"]) == (7, "ada", 5_000_000)
        (order,) = till.orders()
        assert order["status"] == "success"
        assert order["complete_time"] >= order["create_time"] > 1_700_000_000
        assert order["provider_trade_no"] == "2024101512000012345"
        line = await asyncio.to_thread(till.daemon.wait, _paid(number))
        assert (line["trade_no"], line["user_id"], line["quota"]) == (number, 7, 5_000_000)


async def test_prices_follow_groups_and_amounts(daemon: Start) -> None:
    """The user's group and the amount's discount are in the price; what is credited is the amount."""
    async with shop(daemon) as (till, gateway):
        for by, amount, money in ((BEN, 10, "65.70"), (ADA, 100, "693.50"), (BEN, 100, "624.15")):
            assert (await till.post("/api/user/amount", {"amount": amount}, by)).tree["data"] == money
        number = await ordered(till, gateway, BEN, amount=100)
        assert gateway.orders[number]["money"] == "624.15"
        assert await gateway.pay(number) == ["success"]
        assert till.quota(8) == 500_000 + 50_000_000


@pytest.mark.parametrize("post", [False, True])
async def test_a_burst_of_notices(daemon: Start, post: bool) -> None:
    """Thirty at once credit once, and all are told `success` (T-02)."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        assert await gateway.pay(number, Told(at_once=30, post=post)) == ["success"] * 30
        assert (till.quota(), len(till.told())) == (5_500_000, 1)


async def test_notices_that_are_refused(daemon: Start) -> None:
    """Another sum, another merchant, another key, no signature, capitals, anything twice or behind: `fail`, nothing
    moves, the order stays open; other states are acknowledged and do nothing (T-01, T-07)."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        right = gateway.notice(number, Told())["sign"]
        wrong = (
            Told(change={"money": "0.01"}),
            Told(change={"money": "73.01"}),
            Told(change={"money": "73"}, key=""),
            Told(change={"money": "7.3e1"}),
            Told(change={"pid": "1002"}),
            Told(change={"out_trade_no": "USR7NOaB3xY91729000000"}),
            Told(change={"sign": right.upper()}),
            Told(change={"sign": ""}),
            Told(change={"sign_type": "RSA"}),
            Told(key="another"),
            Told(behind="&extra=1"),
            Told(behind="&money=73.00"),
            Told(behind="&money=0.01"),
        )
        for told in wrong:
            for post in (False, True):
                changed = Told(change=told.change, key=told.key, behind=told.behind, post=post)
                assert await gateway.pay(number, changed) == ["fail"], changed
        assert await gateway.pay(number, Told(change={"trade_status": "WAIT_BUYER_PAY"})) == ["success"]
        for query in ("", "?", "?sign=x", "?" + "a=1&" * 200, "?%ff=%fe"):
            assert (await till.get(NOTIFY + query, by="")).body == b"fail"
        assert (await till.post(NOTIFY, b"x" * 20_000, by="")).body == b"fail"
        assert (till.quota(), till.told(), till.orders()[0]["status"]) == (500_000, [], "pending")

        def refused() -> list[str]:
            return [line["reason"] for line in till.lines if line["event"] == "topup_refused"]

        await asyncio.to_thread(till.daemon.wait, lambda _: len(refused()) == 8)
        assert refused() == ["other_money"] * 6 + ["no_order"] * 2
        assert await gateway.pay(number) == ["success"]
        assert till.quota() == 5_500_000
        assert "k3yForTests" not in str(till.lines) + till.daemon.errors
        assert ADA not in str(till.lines)


async def test_a_notice_for_another_gateways_order(daemon: Start) -> None:
    """A valid notice does not pay an order that was begun with another gateway (T-07)."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        till.run("UPDATE top_ups SET payment_provider = 'wechatpay'")
        assert await gateway.pay(number) == ["fail"]
        till.run("UPDATE top_ups SET payment_provider = NULL")
        assert await gateway.pay(number) == ["fail"]
        till.run("UPDATE top_ups SET payment_provider = 'epay', status = 'expired'")
        assert await gateway.pay(number) == ["fail"]
        assert till.quota() == 500_000


async def test_a_database_that_is_locked(daemon: Start) -> None:
    """The gateway is told `fail` in time, and tells it again: then it is credited, once (T-03)."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        loop = asyncio.get_running_loop()
        with closing(sqlite3.connect(till.database, timeout=20, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            since = loop.time()
            assert await gateway.pay(number) == ["fail"]
            assert loop.time() - since < 5
            refused = (await till.post("/api/user/pay", {"amount": 10})).tree
            assert refused == {"message": "error", "data": "创建订单失败"}
            other.execute("ROLLBACK")
        assert (await gateway.pay(number, Told(repeats=5)))[-1] == "success"
        assert (till.quota(), len(till.told())) == (5_500_000, 1)


async def test_a_kill_between_credit_and_answer(daemon: Start) -> None:
    """Killed while it answers a burst, the daemon has credited once; told again after its start, still once (T-02)."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        burst = asyncio.ensure_future(gateway.pay(number, Told(at_once=20)))
        await asyncio.to_thread(till.daemon.wait, _paid(number))
        await asyncio.to_thread(till.daemon.kill)
        await asyncio.gather(burst, return_exceptions=True)
        await asyncio.to_thread(till.daemon.start)
        assert await gateway.pay(number) == ["success"]
        assert (till.quota(), len(till.told())) == (5_500_000, 1)


async def test_orders_that_are_not_made(daemon: Start) -> None:
    """Bad bodies, amounts and methods: status 200 and New API's words, without `success`; no order is left."""
    bad, less, more = "参数错误", "充值数量不能小于 1", "充值数量不能大于 10000"
    cases: tuple[tuple[Any, str], ...] = (
        (b"{", bad),
        (b"", bad),
        (b"[]", bad),
        ({}, bad),
        ({"amount": 1.5}, bad),
        ({"amount": "1"}, bad),
        ({"amount": True}, bad),
        ({"amount": 10, "payment_method": 5}, bad),
        ({"amount": 0}, less),
        ({"amount": -1}, less),
        ({"amount": 10**12}, more),
        ({"amount": 10, "payment_method": "paypal"}, "支付方式不存在"),
    )
    async with shop(daemon) as (till, _):
        for body, told in cases:
            answer = await till.post("/api/user/pay", body)
            assert (answer.status, answer.tree) == (200, {"message": "error", "data": told}), body
        assert till.orders() == []


ODD: tuple[bytes, ...] = (
    b"null", b"1", b'"x"', b"[{}]", b"{}", b'{"amount": null}', b'{"amount": 1e400}', b'{"amount": NaN}',
    b'{"amount": 99999999999999999999999}', b'{"amount": [10]}', b'{"amount": {"a": 1}}', b"\xff\xfe", b"{" * 5000,
    b'{"amount": 10, "payment_method": "\\ud800"}', b'{"amount": 10, "payment_method": null}', b'{"key": "\\ud800"}',
    b'{"key": ["x"]}', b'{"trade_no": "\\u0000"}', b'{"trade_no": "\\ud83d\\ude00"}', b'{"amount": 10, "amount": -5}',
)  # fmt: skip


async def test_odd_bodies(daemon: Start) -> None:
    """Whatever a body holds, the answer is one JSON object, its status is below 500, and nothing is sold (T-47)."""
    posts = ("/api/user/amount", "/api/user/pay", "/api/user/topup/complete")
    async with shop(daemon) as (till, _):
        for path in posts:
            for body in ODD:
                answer = await till.post(path, body, ROOT)
                assert answer.status < 500, (path, body)
                assert answer.tree.get("success", False) is False, (path, body)
        for query in ("p=0", "p=-1", "p=9" * 50, "page_size=1e9", "keyword=%00", "keyword=%ff", "p=%D9%A1", "a&" * 99):
            assert (await till.get(f"/api/user/topup/self?{query}")).tree["success"] is True, query
        assert till.orders() == []


async def test_raw_units(daemon: Start) -> None:
    """Where New API shows units, amounts are units: what is paid for is credited to the unit (T-17)."""
    async with shop(daemon) as (till, gateway):
        till.run("INSERT INTO options(key, value) VALUES ('DisplayInCurrencyEnabled', 'false')")
        assert (await till.post("/api/user/amount", {"amount": 10})).tree["data"] == "充值数量不能小于 500000"
        number = await ordered(till, gateway, amount=950_000)
        assert gateway.orders[number]["money"] == "13.87"
        assert await gateway.pay(number) == ["success"]
        assert till.quota() == 500_000 + 950_000
        (order,) = till.orders()
        assert (order["amount"], order["quota"]) == (1, 950_000)


async def test_open_orders_are_limited(daemon: Start) -> None:
    """After ten that nobody paid within the hour there is no eleventh, not even in a burst; other users have theirs."""
    async with shop(daemon) as (till, gateway):
        asked = (till.post("/api/user/pay", {"amount": 10}) for _ in range(20))
        answers = [answer.tree for answer in await asyncio.gather(*asked)]
        made = [answer for answer in answers if answer["message"] == "success"]
        assert (len(made), len(till.orders())) == (10, 10)
        assert len({answer["data"]["out_trade_no"] for answer in made}) == 10
        refused = {answer["data"] for answer in answers if answer["message"] == "error"}
        assert refused == {"There are 10 unpaid orders of the last hour: pay one of them, or wait."}
        assert await ordered(till, gateway, BEN)
        assert await gateway.submit(made[0]["data"]) == 200
        assert await gateway.pay(made[0]["data"]["out_trade_no"]) == ["success"]
        assert await ordered(till, gateway)


async def test_who_may_ask(daemon: Start) -> None:
    """Nobody, a wrong token, a number that is not the account's, a banned and a deleted account: New API's answers."""
    async with shop(daemon) as (till, _):
        path, body = "/api/user/amount", {"amount": 10}
        nobody = await till.post(path, body, "")
        assert (nobody.status, nobody.tree) == (
            401,
            {"success": False, "message": "无权进行此操作，未登录且未提供 access token"},
        )
        for token in ("wrong", f"{ADA}x", "ä" * 5, "a b", ADA.upper(), "x" * 5000):
            answer = await till.post(path, body, token.encode().decode("latin-1"))
            assert (answer.status, answer.tree["message"]) == (200, "无权进行此操作，access token 无效")
        for named, words in (("7x", "登录信息无效，请重新登录"), ("8", "与登录用户不匹配，请重新登录")):
            answer = await till.post(path, body, ADA, New_Api_User=named)
            assert (answer.status, answer.tree["message"]) == (401, f"无权进行此操作，{words}")
        for by in (ADA, f"Bearer {ADA}"):
            assert (await till.post(path, body, by, New_Api_User="7")).tree["data"] == "73.00"
        till.run("UPDATE users SET status = 2 WHERE id = 5")
        assert (await till.post(path, body, EVE)).tree == {"success": False, "message": "用户已被封禁"}
        till.run("UPDATE users SET status = 1, deleted_at = '2026-01-01' WHERE id = 5")
        assert (await till.post(path, body, EVE)).tree["success"] is False


async def test_keys_act_for_whom_they_belong_to(daemon: Start) -> None:
    """A user's key buys for the user; a key of the file for itself, drained or not; an unlimited one needs nothing."""
    async with shop(daemon, keys=True) as (till, gateway):
        ada, ben = (f"Bearer sk-{key}" for _, _, key in KEYS)
        assert (await till.post("/api/user/amount", {"amount": 10}, ben)).tree["data"] == "65.70"
        assert await gateway.pay(await ordered(till, gateway, ada)) == ["success"]
        assert (till.quota(), till.left("key9")) == (5_500_000, 0)
        till.run("UPDATE tokens SET remain_quota = 10 WHERE name = 'yaml'")
        assert await till.chat("sk-yaml") == 403
        number = await ordered(till, gateway, "Bearer sk-yaml")
        assert await gateway.pay(number, Told(at_once=5)) == ["success"] * 5
        assert till.left("yaml") == 5_000_010
        assert await till.chat("sk-yaml") == 200
        assert till.rows("SELECT token_name, username FROM logs WHERE type = 1")[1] == {
            "token_name": "yaml",
            "username": "newapi-proxy",
        }
        free = await till.post("/api/user/pay", {"amount": 10}, "Bearer sk-free")
        assert (free.status, free.tree["success"]) == (403, False)


async def test_orders_are_told(daemon: Start) -> None:
    """One's own by token or key, all of them to administrators; a keyword is no pattern (T-19, T-21)."""
    async with shop(daemon, keys=True) as (till, gateway):
        mine = [await ordered(till, gateway) for _ in range(3)]
        other = await ordered(till, gateway, BEN)
        key = await ordered(till, gateway, "Bearer sk-yaml")
        await gateway.pay(mine[0])

        async def listed(by: str, path: str = "/api/user/topup/self") -> list[str]:
            return [row["trade_no"] for row in (await till.get(path, by)).tree["data"]["items"]]

        assert await listed(ADA) == mine[::-1]
        assert await listed(BEN) == [other]
        assert await listed("Bearer sk-yaml") == [key]
        assert await listed(ROOT, "/api/user/topup") == [key, other, *mine[::-1]]
        assert await listed(ROOT, "/api/user/topup/?p=2&page_size=2") == mine[:0:-1]
        assert await listed(ADA, f"/api/user/topup/self?keyword={mine[1][4:12]}") == [mine[1]]
        assert await listed(ADA, "/api/user/topup/self?keyword=%25_%25") == []
        row = (await till.get("/api/user/topup/self?p=3&page_size=1")).tree["data"]
        assert (row["total"], row["page"], row["page_size"]) == (3, 3, 1)
        assert (row["items"][0]["status"], row["items"][0]["money"], row["items"][0]["amount"]) == ("success", 73.0, 10)
        for by, path in ((f"Bearer sk-{KEYS[0][2]}", "/api/user/topup/self"), (ADA, "/api/user/topup")):
            assert (await till.get(path, by)).tree == {"success": False, "message": "无权进行此操作，权限不足"}
        info = (await till.get("/api/user/topup/info")).tree["data"]
        assert (info["enable_online_topup"], info["enable_redemption"], info["min_topup"]) == (True, False, 1)
        assert info["pay_methods"][1] == {"name": "WeChat Pay", "type": "wxpay", "min_topup": "1"}
        assert info["discount"] == {"100": 0.95}


async def test_an_administrator_completes(daemon: Start) -> None:
    """An order whose notice never came, by its number, once: with an administrator's token or an admin key only."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        path, body = "/api/user/topup/complete", {"trade_no": number}
        for by in (ADA, "Bearer sk-yaml", "Bearer admin-key-012345"):
            assert (await till.post(path, body, by)).tree["success"] is False
        assert till.quota() == 500_000
        for by in (ROOT, "Bearer admin-key-0123456"):
            assert (await till.post(path, body, by)).tree["success"] is True
        assert len((await till.get("/api/user/topup", "Bearer admin-key-0123456")).tree["data"]["items"]) == 1
        assert (await till.get("/api/user/topup/self", "Bearer admin-key-0123456")).tree["success"] is False
        assert await gateway.pay(number) == ["success"]
        assert (till.quota(), len(till.told())) == (5_500_000, 1)
        for wrong in ({"trade_no": "nothing"}, {"trade_no": ""}, {}, {"trade_no": 5}):
            assert (await till.post(path, wrong, ROOT)).tree["success"] is False


async def test_the_way_back_credits_nothing(daemon: Start) -> None:
    """The browser returns with the same signed parameters: it gets a page, and no credit."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        page = await till.get(f"/log?{urlencode(gateway.notice(number, Told()))}", by="")
        assert (page.status, page.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert till.quota() == 500_000


async def test_a_reload_mounts_and_removes(daemon: Start) -> None:
    """Without `portal` in the file nothing is there, not even for a valid notice; a reload brings it back."""
    async with shop(daemon) as (till, gateway):
        number = await ordered(till, gateway)
        config = till.daemon.config
        whole = config.read_text()

        def loads() -> int:
            return sum(line["event"] == "config_loaded" and line["cause"] == "file" for line in till.lines)

        paths = {
            "/api/user/amount": "POST",
            "/api/user/pay": "POST",
            "/api/user/topup": "POST",
            NOTIFY: "GET",
            "/log": "GET",
            "/api/user/topup/info": "GET",
        }

        async def reloaded(text: str) -> None:
            count = loads()
            config.write_text(text)
            till.daemon.signal(signal.SIGHUP)
            await asyncio.to_thread(till.daemon.wait, lambda _: loads() > count)

        await reloaded(whole.partition("portal:")[0])
        for path, method in paths.items():
            answer = await (till.post(path, {}) if method == "POST" else till.get(path))
            assert answer.status == 404, path
        assert await gateway.pay(number) != ["success"]
        await reloaded(whole.replace("easypay:", "redeem: true\n    # easypay:"))
        assert (await till.get(NOTIFY)).status == 404
        assert (await till.post("/api/user/pay", {"amount": 10})).status == 404
        assert (await till.post("/api/user/topup", {"key": "x"})).status == 200
        assert till.quota() == 500_000
        await reloaded(whole)
        assert await gateway.pay(number) == ["success"]
