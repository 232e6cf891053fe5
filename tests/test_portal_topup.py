"""Credit bought and redeemed on the pages: the same orders, prices and credits as by New API's routes."""

from __future__ import annotations

import asyncio
import html
import itertools
import re
import socket
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from newapi_proxy.store import redemptions
from tests.fakes import easypay
from tests.fakes import wechatpay as fake
from tests.fakes.process import Daemon
from tests.fakes.till import KEYS, Start, Till, kept, selling
from tests.fakes.visitor import Seen, Visitor

PORTAL: Final = """\
    amounts: [10, 100, 20000]
    group_ratios: {{vip: 0.9}}
    discounts: {{100: 0.95}}
    redeem: true
    easypay: {{address: "https://pay.example.org/base/", id: "1001", key: k3yForTests0123456789}}
    wechat:
      app_id: {app}
      mch_id: "{merchant}"
      serial: {serial}
      private_key: {own}
      api_v3_key: {seal}
      public_keys: {{{key}: {now}}}
      notify_url: https://gw.example.com/api/wechatpay/notify
      address: "{url}"
"""
ADA, BEN = f"sk-{KEYS[0][2]}", f"sk-{KEYS[1][2]}"
_PLACES = itertools.count(1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """One daemon of a configuration for all of these tests."""
    with kept(tmp_path_factory.mktemp("till")) as start:
        yield start


@pytest.fixture(scope="module")
def door() -> Iterator[socket.socket]:
    """Where WeChat Pay's API is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def portal(door: socket.socket) -> str:
    """What the file says of top-up: every way to pay."""
    return PORTAL.format(**fake.named(f"http://127.0.0.1:{door.getsockname()[1]}"))


async def shopper(till: Till, key: str = ADA) -> Visitor:
    """Somebody who is signed in with a key and stands before the shop."""
    visitor = Visitor(till.url, f"203.0.113.{next(_PLACES)}")
    await asyncio.to_thread(visitor.sign_in, key)
    return visitor


async def buys(visitor: Visitor, **fields: str) -> Seen:
    """Sends the shop's form."""
    return await asyncio.to_thread(visitor.post, "/topup", fields)


async def sees(visitor: Visitor, path: str) -> Seen:
    """Goes there."""
    return await asyncio.to_thread(visitor.get, path)


def checkout(page: Seen) -> tuple[str, dict[str, str]]:
    """Where the page's form goes, and what it takes along."""
    (action,) = re.findall(r'<form method="post" action="(https?://[^"]*)"', page.text)
    fields = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    return html.unescape(action), {name: html.unescape(value) for name, value in fields}


async def test_by_a_gateway(daemon: Start, portal: str) -> None:
    """What the shop shows is what the order says; the gateway's notice credits it, and the pages say so."""
    async with easypay.serving() as gateway, selling(daemon, portal, keys=True) as till:
        visitor = await shopper(till)
        page = await sees(visitor, "/topup")
        assert "goes to the account of your keys" in page.words
        assert "$1.00 Balance" in page.words
        assert "$10.00 for 73.00 CNY" in page.words
        assert "$100.00 for 693.50 CNY" in page.words
        assert "$20,000.00" not in page.words  # above max_topup
        page = await buys(visitor, amount="10", method="wxpay")
        assert "Pay 73.00 CNY" in page.words
        target, form = checkout(page)
        assert (target, form["money"], form["type"]) == ("https://pay.example.org/base/submit.php", "73.00", "wxpay")
        assert form["sign"] == easypay.signature(form)
        assert "form-action 'self' https:" in page.headers["content-security-policy"]
        number = form["out_trade_no"]
        assert await gateway.submit(form) == 200
        waiting = await sees(visitor, f"/topup/order?trade_no={number}")
        assert ("is not paid yet" in waiting.words, waiting.headers["refresh"]) == (True, "5")
        assert await gateway.pay(number) == ["success"]
        back = await sees(visitor, f"/log?{urlencode(gateway.notice(number, easypay.Told()))}")
        assert back.place == "/topup?said=returned"
        page = await sees(visitor, back.place)
        assert "Thank you. What you have paid for" in page.words
        assert "$11.00 Balance" in page.words
        ((_, credit, paid, status, shown),) = page.table("Your orders")[1:]
        assert (credit, paid, status, shown) == ("$10.00", "73.00 CNY", "paid", number)
        assert till.quota() == 5_500_000
        done = await sees(visitor, f"/topup/order?trade_no={number}")
        assert ("This order is paid" in done.words, "refresh" in done.headers) == (True, False)
        assert (await sees(await shopper(till, BEN), f"/topup/order?trade_no={number}")).status == 404


async def test_by_a_code_to_scan(daemon: Start, portal: str, door: socket.socket) -> None:
    """WeChat Pay's code is drawn, its state is asked after, and what it tells then is credited once."""
    async with fake.serving(door) as api, selling(daemon, portal, keys=True) as till:
        visitor = await shopper(till, BEN)
        page = await buys(visitor, amount="10", method="wechat_native")
        (order,) = till.orders()
        number = order["trade_no"]
        code = f"weixin://wxpay/bizpayurl?pr={number[-6:]}"
        assert f'aria-label="The code to scan: {code}"' in page.text
        assert f'href="{code}"' in page.text
        assert "pay 65.70 CNY for $10.00" in page.words
        assert api.orders[number]["amount"]["total"] == 6570
        assert "is not paid yet" in (await sees(visitor, f"/topup/order?trade_no={number}")).words
        assert await api.tell(number, fake.Told(), f"{till.url}/api/wechatpay/notify") == [204]
        assert "This order is paid" in (await sees(visitor, f"/topup/order?trade_no={number}")).words
        assert till.quota(8) == 500_000 + 5_000_000


async def test_what_is_not_sold(daemon: Start, portal: str) -> None:
    """What is wrong with a form is told beside it with its status, and no order is begun."""
    async with selling(daemon, portal, keys=True) as till:
        visitor = await shopper(till)
        for fields, words in (
            ({"amount": "10"}, "choose how to pay"),
            ({"amount": "10", "method": "cash"}, "choose how to pay"),
            ({"method": "alipay"}, "whole number from $1.00 to $10,000.00"),
            ({"amount": "0", "method": "alipay"}, "whole number from"),
            ({"amount": "10", "other": "1.5", "method": "alipay"}, "whole number from"),
            ({"amount": "10", "other": "10001", "method": "alipay"}, "whole number from"),
            ({"other": "-5", "method": "alipay"}, "whole number from"),
            ({"other": "٣", "method": "alipay"}, "whole number from"),
        ):
            page = await buys(visitor, **fields)
            assert (page.status, words in page.words, 'role="alert"' in page.text) == (400, True, True), fields
        page = await asyncio.to_thread(
            visitor.post, "/topup", {"amount": "10", "method": "alipay"}, Origin="https://evil.example"
        )
        assert page.status == 403
        assert till.orders() == []
        assert checkout(await buys(visitor, amount="10", other="33", method="alipay"))[1]["money"] == "240.90"
        for _ in range(9):
            await buys(visitor, amount="10", method="alipay")
        page = await buys(visitor, amount="10", method="alipay")
        assert (page.status, "unpaid orders of the last hour" in page.words) == (400, True)
        assert len(till.orders()) == 10


async def test_units_of_new_api(daemon: Start, portal: str) -> None:
    """Where New API's option shows units, the pages go on to speak of USD, and an order is worth the same."""
    async with selling(daemon, portal, keys=True) as till:
        till.run("INSERT INTO options VALUES ('DisplayInCurrencyEnabled', 'false')")
        visitor = await shopper(till)
        assert checkout(await buys(visitor, amount="10", method="alipay"))[1]["money"] == "73.00"
        assert [order["quota"] for order in till.orders()] == [5_000_000]


async def test_codes(daemon: Start, portal: str) -> None:
    """A code credits once what it is worth, to the key or the account of who enters it; what is wrong is told."""
    async with selling(daemon, portal, keys=True) as till:
        codes = ["0123456789abcdef" * 2, "f" * 32, "e" * 32]
        for code, worth, expires in zip(codes, (250_000, 1_000, 1_000), (0, 0, 1), strict=True):
            till.run(
                "INSERT INTO redemptions(key, status, name, quota, expired_time) VALUES (?, ?, 'gift', ?, ?)",
                *(code, redemptions.USABLE, worth, expires),
            )
        visitor = await shopper(till)

        async def redeem(code: str) -> Seen:
            return await asyncio.to_thread(visitor.post, "/topup/redeem", {"code": code})

        answer = await redeem(f" {codes[0]} ")
        assert answer.place == "/topup?said=redeemed"
        page = await sees(visitor, answer.place)
        assert ("The code was redeemed" in page.words, "$1.50 Balance" in page.words) == (True, True)
        for code, words in (
            (codes[0], "was used already"),
            (codes[2], "has expired"),
            ("nobodys", "is not valid"),
            ("", "enter a code"),
            ("é", "is not valid"),
        ):
            page = await redeem(code)
            assert (page.status, words in page.words) == (400, True), code
        assert till.quota() == 750_000
        visitor = await shopper(till, "sk-yaml")
        assert "goes to this key" in (await sees(visitor, "/topup")).words
        assert (await redeem(codes[1])).status == 303
        assert till.left("yaml") == 501_000


async def test_a_key_without_a_limit(daemon: Start, portal: str) -> None:
    """There is nothing to buy for it, which is said, and no form is taken."""
    async with selling(daemon, portal, keys=True) as till:
        visitor = await shopper(till, "sk-free")
        page = await sees(visitor, "/topup")
        assert (page.status, "no limit of its own" in page.words) == (200, True)
        assert 'action="topup' not in page.text
        assert (await buys(visitor, amount="10", method="alipay")).status == 403
        assert till.orders() == []


def test_where_nothing_is_sold(daemon: Start, tmp_path_factory: Any) -> None:
    """A portal without `topup` has no shop, and does not speak of one."""
    text = (
        "channels: [{name: e, type: echo, models: [echo]}]\ntokens: [{name: t, key: sk-demo, quota: $1}]\nportal: {}\n"
    )
    running: Daemon = daemon(text)
    visitor = Visitor(running.url)
    assert "Top up" not in visitor.sign_in("sk-demo").words
    for path in ("/topup", "/topup/order?trade_no=x", "/log"):
        assert visitor.get(path).status == 404
    assert visitor.post("/topup", {}).status == 404
    assert visitor.post("/topup/redeem", {}).status == 404
