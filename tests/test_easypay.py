"""EasyPay's signature and notices by the published vectors, and everything that a notice may have wrong."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from newapi_proxy.accounts import easypay
from newapi_proxy.config.portal import EasyPay
from newapi_proxy.secret import Secret
from tests.fakes.easypay import KEY, signature

GATEWAY = EasyPay(address="https://pay.example/", id="1001", key=Secret(KEY))
ORDER = {
    "pid": "1001",
    "type": "wxpay",
    "out_trade_no": "USR7NOaB3xY91729000000",
    "notify_url": "https://gw.example.com/api/user/epay/notify",
    "name": "TUC10",
    "money": "73.00",
    "device": "pc",
    "sign_type": "MD5",
    "return_url": "https://gw.example.com/log",
}
NOTICE = {
    "pid": "1001",
    "trade_no": "2024101512000012345",
    "out_trade_no": "USR7NOaB3xY91729000000",
    "type": "wxpay",
    "name": "TUC10",
    "money": "73.00",
    "trade_status": "TRADE_SUCCESS",
    "param": "",
    "sign_type": "MD5",
}


@pytest.mark.parametrize(
    ("fields", "key", "sign"),
    [
        (ORDER, KEY, "8b112695dfadedf4ac15dc272856fabb"),
        (NOTICE, KEY, "1ffb61ec15c2ec3399c041fdb7f06a0d"),
        (NOTICE | {"money": "0.01"}, KEY, "4ab40f5bb433170b40e3f423bf035732"),
        (NOTICE | {"name": "充值 a&b=c"}, KEY, "c660c768bd3dfa5f63b24f8ebf3b257c"),
        ({"device": "devicev", "money": "moneyv"}, "1234567", "3854cc9f022e0fb821bd2e002260245d"),
    ],
)
def test_vectors(fields: dict[str, str], key: str, sign: str) -> None:
    """The signatures of 13.1, by us and by the fake."""
    assert easypay.sign(fields, key) == signature(fields, key) == sign
    assert easypay.sign({**fields, "sign": "x", "empty": ""}, key) == sign


def test_the_form() -> None:
    """The form of 13.1, from an order and our address; the gateway's own path is kept."""
    made = easypay.form(
        easypay.Form(ORDER["out_trade_no"], "wxpay", "TUC10", "73.00", "https://gw.example.com"), GATEWAY
    )
    assert made == {**ORDER, "sign": "8b112695dfadedf4ac15dc272856fabb"}
    assert easypay.target(GATEWAY) == "https://pay.example/submit.php"
    assert easypay.target(EasyPay(address="https://x/base", id="1", key=Secret("k"))) == "https://x/base/submit.php"


def test_methods() -> None:
    """New API's old names mean the gateway's types; no name leaves it to the gateway; others are not sold."""
    asked = {"zfb": "alipay", "wx": "wxpay", "alipay": "alipay", "": "", "qqpay": None, "ALIPAY": None}
    assert {name: easypay.method(name, GATEWAY) for name in asked} == asked


def noticed(change: dict[str, str] | None = None, behind: str = "", key: str = KEY) -> object:
    """What is made of a notice that is signed with the changes in it."""
    fields = NOTICE | (change or {})
    fields = {"sign": signature(fields, key)} | fields
    return easypay.notice(urlencode(fields) + behind, GATEWAY)


def test_a_notice() -> None:
    """What was paid is told to the hundredth, however many zeros stand behind it."""
    paid = easypay.Notice("USR7NOaB3xY91729000000", "2024101512000012345", 7300, paid=True)
    assert noticed() == paid
    assert noticed({"name": "充值 a&b=c"}) == paid
    for money in ("73", "73.0", "73.000"):
        assert noticed({"money": money}) == paid
    for money, minor in (("0.01", 1), ("0.1", 10), ("19.99", 1999), ("73.001", None), ("-73", None), ("7e1", None)):
        found = noticed({"money": money})
        assert isinstance(found, easypay.Notice)
        assert found.money_minor == minor
    for status in ("WAIT_BUYER_PAY", "TRADE_CLOSED", "trade_success"):
        found = noticed({"trade_status": status})
        assert isinstance(found, easypay.Notice)
        assert not found.paid


def test_what_is_not_believed() -> None:
    """Another key or an empty one, capitals, no or another kind of signature, another merchant, anything twice."""
    right = signature(NOTICE)
    assert noticed(key="another") == noticed(key="") == "sign"
    assert noticed({"sign": right.upper()}) == noticed({"sign": ""}) == noticed({"sign": "ä"}) == "sign"
    assert noticed({"sign_type": "RSA"}) == noticed({"sign_type": "md5"}) == "sign"
    assert noticed(behind="&extra=1") == "sign"
    assert noticed(behind="&param=&extra=") == noticed(behind="&money=73.00") == noticed(behind="&sign=x") == "garbled"
    assert noticed({"pid": "1002"}) == noticed({"pid": ""}) == "merchant"
    assert noticed({"out_trade_no": ""}) == noticed({"out_trade_no": "x' OR 1=1"}) == "garbled"
    assert easypay.notice("%ff=1", GATEWAY) == easypay.notice("&".join("a" * 70), GATEWAY) == "garbled"
    assert easypay.notice("", GATEWAY) == "sign"
