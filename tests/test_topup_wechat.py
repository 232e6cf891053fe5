"""Credit sold by WeChat Pay, through a real daemon and a fake API: orders, notices, questions, and the traps."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import orjson
import pytest

from tests.fakes import wechatpay as fake
from tests.fakes.process import Daemon
from tests.fakes.till import ADA, BEN, Till, kept, selling
from tests.fakes.wechatpay import Told, WechatPay, serving

Start = Callable[..., Daemon]
NOTIFY = "/api/wechatpay/notify"
PORTAL = """\
    easypay: {{address: "http://127.0.0.1:9", id: "1001", key: k3yForTests0123456789}}
    wechat:
      app_id: {app}
      mch_id: "{merchant}"
      serial: {serial}
      private_key: {own}
      api_v3_key: {seal}
      public_keys:
        {key}: {now}
        {old}: {then}
      notify_url: https://gw.example.com/api/wechatpay/notify
      address: "{url}"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """One daemon of a configuration for all of these tests."""
    with kept(tmp_path_factory.mktemp("till")) as start:
        yield start


@pytest.fixture(scope="module")
def door() -> Iterator[socket.socket]:
    """Where the API is: the same place for all of these tests."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@asynccontextmanager
async def shop(daemon: Start, door: socket.socket) -> AsyncIterator[tuple[Till, WechatPay]]:
    """The daemon and the API."""
    names = fake.named(f"http://127.0.0.1:{door.getsockname()[1]}")
    async with serving(door) as api, selling(daemon, PORTAL.format(**names)) as till:
        yield till, api


async def ordered(till: Till, by: str = ADA, **fields: Any) -> str:
    """An order whose code the payer has; its number."""
    answer = await till.post("/api/user/wechatpay/native", {"amount": 10, **fields}, by)
    assert answer.tree["message"] == "success", answer.body
    assert answer.tree["data"]["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")
    return str(answer.tree["data"]["trade_no"])


async def status(till: Till, number: str, by: str = ADA) -> Any:
    """What the page is told of an order."""
    return (await till.get(f"/api/user/wechatpay/order?trade_no={number}", by)).tree


def _because(why: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a line says that this was the reason."""
    return lambda line: line["event"] == "topup_refused" and line["reason"] == why


async def test_scenario_17(daemon: Start, door: socket.socket) -> None:
    """WeChat native, 10 units: a notice of 7299 is refused with 4xx, one of 7300 credits +5000000 once."""
    async with shop(daemon, door) as (till, api):
        path, body = "/api/user/wechatpay/native", {"amount": 10, "payment_method": "wechat_native"}
        assert (await till.post("/api/user/wechatpay/amount", {"amount": 10})).tree["data"] == "73.00"
        answer = (await till.post(path, body)).tree
        number = answer["data"]["trade_no"]
        assert answer == {
            "message": "success",
            "data": {"code_url": f"weixin://wxpay/bizpayurl?pr={number[-6:]}", "trade_no": number},
        }
        assert api.faults == []
        assert api.headers[0]["wechatpay-serial"] == fake.KEY_ID
        assert api.orders[number] == {
            "appid": fake.APP,
            "mchid": fake.MERCHANT,
            "description": "TUC10",
            "out_trade_no": number,
            "notify_url": "https://gw.example.com/api/wechatpay/notify",
            "amount": {"total": 7300, "currency": "CNY"},
        }
        assert await status(till, number) == {"message": "success", "data": {"status": "pending"}}

        to = till.url + NOTIFY
        (refused,) = await api.tell(number, Told(change={"amount": {"total": 7299}}), to)
        assert 400 <= refused < 500
        assert orjson.loads(api.answers[0])["code"] == "FAIL"
        assert (till.quota(), till.told(), till.orders()[0]["status"]) == (500_000, [], "pending")

        assert await api.tell(number, Told(change={"amount": {"payer_total": 7000}}), to) == [204]
        assert await api.tell(number, Told(), to) == [204]
        assert till.quota() == 5_500_000
        (row,) = till.told()
        assert row["content"] == "使用在线充值成功，充值金额: ＄10.000000 额度，支付金额：73.000000"
        (order,) = till.orders()
        assert (order["status"], order["payment_method"], order["payment_provider"]) == (
            "success",
            "wechat_native",
            "wechatpay",
        )
        assert order["provider_trade_no"] == "4200000000202410150000000001"
        assert await status(till, number) == {"message": "success", "data": {"status": "success"}}


async def test_a_burst_of_notices(daemon: Start, door: socket.socket) -> None:
    """Twenty at once, some with other blanks of their own: all are taken, one credits (T-02, T-44)."""
    async with shop(daemon, door) as (till, api):
        number = await ordered(till)
        told = [api.tell(number, Told(at_once=20, spaced=spaced), till.url + NOTIFY) for spaced in (False, True)]
        assert await asyncio.gather(*told) == [[204] * 20] * 2
        assert (till.quota(), len(till.told())) == (5_500_000, 1)
        number = await ordered(till)
        assert await api.tell(number, Told(whose="older", serial=fake.OLD_ID), till.url + NOTIFY) == [204]
        assert till.quota() == 10_500_000


async def test_notices_that_are_refused(daemon: Start, door: socket.socket) -> None:
    """Everything that the contract lists: 4xx with FAIL, never a 200, and nothing moves (T-01, T-27, T-44 to T-46)."""
    async with shop(daemon, door) as (till, api):
        number = await ordered(till)
        probe = {"Wechatpay-Signature": fake.PROBE + "abcd"}
        wrong: list[tuple[Told, int]] = [
            (Told(whose="third"), 401),
            (Told(headers=probe), 401),
            (Told(late=301), 401),
            (Told(late=-310), 401),
            (Told(serial="44" * 16), 401),
            (Told(garbled=True), 401),
            *((Told(headers={name: None}), 401) for name in fake.signed(b"")),
            (Told(seal=fake.SEAL[::-1]), 400),
            (Told(flip=True), 400),
            (Told(body=b"{}"), 400),
            (Told(body=b""), 400),
            (Told(body=b"\xff"), 400),
            (Told(body=b"x" * 100_000), 413),
            (Told(change={"appid": "wx1"}), 400),
            (Told(change={"mchid": "1"}), 400),
            (Told(change={"out_trade_no": "USR7NOaB3xY91729000000"}), 400),
            (Told(change={"amount": {"total": 1}}), 400),
            (Told(change={"amount": {"total": 7301}}), 400),
            (Told(change={"amount": {"total": "7300"}}), 400),
            (Told(change={"amount": {"total": 7300.0}}), 400),
            (Told(change={"amount": {"currency": "USD"}}), 400),
            (Told(change={"amount": {"currency": ""}}), 400),
        ]
        for told, expected in wrong:
            assert await api.tell(number, told, till.url + NOTIFY) == [expected], told
            assert orjson.loads(api.answers[0])["code"] == "FAIL"
        idle = [Told(event="REFUND.SUCCESS"), *(Told(change={"trade_state": state}) for state in ("NOTPAY", "REFUND"))]
        for told in idle:
            assert await api.tell(number, told, till.url + NOTIFY) == [204], told
        assert (till.quota(), till.told(), till.orders()[0]["status"]) == (500_000, [], "pending")
        printed = str(till.lines) + till.daemon.errors
        assert fake.SEAL not in printed
        assert fake.private_pem("merchant").splitlines()[3] not in printed
        assert await api.tell(number, Told(), till.url + NOTIFY) == [204]
        assert (await till.get(NOTIFY, by="")).status == 405


async def test_orders_of_the_other_gateway(daemon: Start, door: socket.socket) -> None:
    """A notice does not pay an order that was begun with EasyPay, though its number and sum are right (T-07)."""
    async with shop(daemon, door) as (till, api):
        form = (await till.post("/api/user/pay", {"amount": 10})).tree["data"]
        number = form["out_trade_no"]
        api.orders[number] = {"amount": {"total": 7300}}
        assert await api.tell(number, Told(), till.url + NOTIFY) == [400]
        assert (await status(till, number))["message"] == "error"
        assert till.quota() == 500_000


async def test_a_database_that_is_locked(daemon: Start, door: socket.socket) -> None:
    """The notice gets 503 within five seconds, and is taken when it comes again (T-03)."""
    async with shop(daemon, door) as (till, api):
        number = await ordered(till)
        loop = asyncio.get_running_loop()
        with closing(sqlite3.connect(till.database, timeout=20, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            since = loop.time()
            assert await api.tell(number, Told(), till.url + NOTIFY) == [503]
            assert loop.time() - since < 5
            other.execute("ROLLBACK")
        assert await api.tell(number, Told(), till.url + NOTIFY) == [204]
        assert (till.quota(), len(till.told())) == (5_500_000, 1)


async def test_a_notice_that_never_comes(daemon: Start, door: socket.socket) -> None:
    """A page that asks makes us ask, at most every three seconds; what is paid is credited once, late notice or not."""
    async with shop(daemon, door) as (till, api):
        number = await ordered(till)
        asked = f"GET /v3/pay/transactions/out-trade-no/{number}?mchid={fake.MERCHANT}"
        answers = await asyncio.gather(*(status(till, number) for _ in range(20)))
        assert answers == [{"message": "success", "data": {"status": "pending"}}] * 20
        assert api.asked.count(asked) == 1
        api.paid.add(number)

        for _ in range(100):
            if (await status(till, number))["data"]["status"] == "success":
                break
            await asyncio.sleep(0.2)  # as a page does
        assert api.asked.count(asked) == 2
        assert (till.quota(), len(till.told())) == (5_500_000, 1)
        assert await api.tell(number, Told(), till.url + NOTIFY) == [204]
        assert (await status(till, number))["data"]["status"] == "success"
        assert api.asked.count(asked) == 2
        assert till.quota() == 5_500_000


async def test_answers_that_prove_nothing(daemon: Start, door: socket.socket) -> None:
    """An answer with another sum, order or merchant, unsigned, signed by another, or no answer credits nothing."""
    paid = {"trade_state": "SUCCESS"}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"state": {**paid, "amount": {"total": 7299}}}, "pending"),
        ({"state": {**paid, "mchid": "1"}}, "pending"),
        ({"state": {**paid, "out_trade_no": "another"}}, "pending"),
        ({"state": paid, "whose": "third"}, "pending"),
        ({"state": paid, "unsigned": True}, "pending"),
        ({"state": paid, "status": 500, "code": "SYSTEM_ERROR"}, "pending"),
        ({"text": b"<html>"}, "pending"),
        ({"state": {"trade_state": "CLOSED"}}, "expired"),
    )
    async with shop(daemon, door) as (till, api):
        for knobs, expected in cases:
            api.knobs = fake.Knobs()
            number = await ordered(till)
            api.knobs = fake.Knobs(**knobs)
            assert (await status(till, number))["data"]["status"] == expected, knobs
            assert (till.quota(), till.orders()[-1]["status"]) == (500_000, expected)


async def test_orders_that_are_not_begun(daemon: Start, door: socket.socket) -> None:
    """Refused, broken, unsigned or unreachable: the page hears it, the order has failed, the reason is in the log."""
    async with shop(daemon, door) as (till, api):
        cases: tuple[tuple[dict[str, Any], str], ...] = (
            ({"status": 400, "code": "PARAM_ERROR"}, "400 PARAM_ERROR"),
            ({"status": 429, "code": "FREQUENCY_LIMITED"}, "429 FREQUENCY_LIMITED"),
            ({"unsigned": True}, "answer: headers"),
            ({"whose": "third"}, "answer: sign"),
            ({"serial": "44"}, "answer: serial"),
            ({"text": b"[]"}, "garbled"),
            ({"text": b'{"code_url": ""}'}, ""),
        )
        for knobs, why in cases:
            api.knobs = fake.Knobs(**knobs)
            answer = await till.post("/api/user/wechatpay/native", {"amount": 10})
            assert (answer.status, answer.tree) == (200, {"message": "error", "data": "拉起支付失败"}), knobs
            if why:
                await asyncio.to_thread(till.daemon.wait, lambda _, why=why: any(map(_because(why), till.lines)))
        assert {order["status"] for order in till.orders()} == {"failed"}
        api.knobs = fake.Knobs()
        for body, told in (
            ({"amount": 1.5}, "参数错误"),
            ({"amount": 0}, "充值数量不能小于 1"),
            ({"amount": 10, "payment_method": "alipay"}, "支付方式不存在"),
        ):
            assert (await till.post("/api/user/wechatpay/native", body)).tree == {"message": "error", "data": told}
        assert len(till.orders()) == len(cases)
        number = await ordered(till)
        assert await status(till, number, BEN) == {"message": "error", "data": "There is no such order."}
        assert (await status(till, "nothing"))["message"] == "error"
