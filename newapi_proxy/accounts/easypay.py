"""EasyPay: a signed form for the client's browser, and the gateway's signed notice.

Pure: parameters in, parameters or a verdict out. A signature is MD5 over the sorted parameters and the merchant's key,
because that is what these gateways have. Source: tasks-and-accounts 6.3 to 6.5, vectors 13.1.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import md5
from typing import Final, Literal
from urllib.parse import parse_qsl

import msgspec

from newapi_proxy.config.portal import EasyPay

PROVIDER: Final = "epay"
NOTIFY: Final = "/api/user/epay/notify"
RETURN: Final = "/log"
PAID: Final = b"success"
REFUSED: Final = b"fail"
MOST: Final = 64  # parameters of a notice
_UNSIGNED: Final = frozenset({"sign", "sign_type"})
_MD5: Final = "MD5"
_SUCCESS: Final = "TRADE_SUCCESS"
_MONEY: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,2})0*)?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9A-Za-z_|*-]{1,64}", re.ASCII)
_OLD: Final = {"zfb": "alipay", "wx": "wxpay"}  # how New API's first pages name the gateway's types

Fault = Literal["garbled", "sign", "merchant"]


class Form(msgspec.Struct, frozen=True):
    """An order as the browser takes it to the gateway. `own`: our address as the gateway and the browser reach it."""

    trade_no: str
    method: str
    name: str
    money: str
    own: str


class Notice(msgspec.Struct, frozen=True):
    """What the gateway says of an order. `money_minor` None: not an amount; `paid`: that it was paid."""

    trade_no: str
    provider_trade_no: str
    money_minor: int | None
    paid: bool


def sign(parameters: Mapping[str, str], key: str) -> str:
    """The signature over everything that is neither empty nor a signature."""
    told = sorted((name, value) for name, value in parameters.items() if value and name not in _UNSIGNED)
    text = "&".join(f"{name}={value}" for name, value in told) + key
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def method(asked: str, gateway: EasyPay) -> str | None:
    """The gateway's type for what a page asks for, "" where it leaves the choice to the gateway; None: not offered."""
    meant = _OLD.get(asked, asked)
    return meant if not meant or meant in gateway.methods else None


def target(gateway: EasyPay) -> str:
    """Where the form goes."""
    return f"{gateway.address.rstrip('/')}/submit.php"


def form(order: Form, gateway: EasyPay) -> dict[str, str]:
    """The parameters, signed."""
    fields = {
        "pid": gateway.id,
        "type": order.method,
        "out_trade_no": order.trade_no,
        "notify_url": order.own + NOTIFY,
        "name": order.name,
        "money": order.money,
        "device": "pc",
        "sign_type": _MD5,
        "return_url": order.own + RETURN,
    }
    return {**fields, "sign": sign(fields, gateway.key.reveal())}


def notice(query: str, gateway: EasyPay) -> Notice | Fault:
    """What came, as a query or a form; or why it is not to be believed, which never says more than one word."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST, errors="strict")
    except ValueError:
        return "garbled"
    given = dict(pairs)
    if len(given) != len(pairs):
        return "garbled"
    right = sign(given, gateway.key.reveal())
    if given.get("sign_type") != _MD5 or not hmac.compare_digest(given.get("sign", "").encode(), right.encode()):
        return "sign"
    if given.get("pid") != gateway.id:
        return "merchant"
    number = given.get("out_trade_no", "")
    if not _NUMBER.fullmatch(number):
        return "garbled"
    theirs = "".join(char for char in given.get("trade_no", "") if char.isprintable())
    return Notice(number, theirs, _minor(given.get("money", "")), given.get("trade_status") == _SUCCESS)


def _minor(text: str) -> int | None:
    """An amount in hundredths, to the digit."""
    found = _MONEY.fullmatch(text)
    return int(found[1]) * 100 + int(f"{found[2] or '':0<2}") if found else None
