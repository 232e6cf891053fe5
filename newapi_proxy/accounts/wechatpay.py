"""WeChat Pay, API v3: requests signed by the merchant, answers and notices signed by WeChat Pay, what is sealed there.

Pure: keys, bytes and the moment in; headers, a transaction or one word of doubt out. Signatures are over the bytes as
they came, before anybody reads them. Source: tasks-and-accounts 6.7, vectors 13.3 and 13.4, traps T-44 to T-46.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from newapi_proxy.config.portal import WechatPay
from newapi_proxy.wire import sealing, tree

PROVIDER: Final = "wechatpay"
METHOD: Final = "wechat_native"
NOTIFY: Final = "/api/wechatpay/notify"
CURRENCY: Final = "CNY"
NATIVE: Final = "/v3/pay/transactions/native"
WINDOW: Final = 300  # seconds by which a signature's moment may differ from ours
PAID: Final = "SUCCESS"
OVER: Final = frozenset({"CLOSED", "REVOKED", "PAYERROR"})  # states from which nothing is paid any more
_SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
_SEAL: Final = "AEAD_AES_256_GCM"
_EVENT: Final = "TRANSACTION.SUCCESS"
_BY_KEY: Final = "PUB_KEY_ID_"
_DIGITS: Final = 12  # of a moment: more would be no number that anybody sends

Fault = Literal["headers", "moment", "serial", "sign", "garbled", "sealed", "merchant"]


class Transaction(msgspec.Struct, frozen=True):
    """What WeChat Pay says of an order. `total` fen, None for no whole number: what the order costs, whatever a coupon
    took off it."""

    app_id: str
    mch_id: str
    trade_no: str
    number: str
    state: str
    total: int | None
    currency: str


def lines(*parts: str) -> bytes:
    """What is signed: each part with a line's end."""
    return "".join(f"{part}\n" for part in parts).encode("utf-8", "surrogateescape")


def order(gateway: WechatPay, trade_no: str, description: str, total: int, notify_url: str) -> bytes:
    """The body that begins an order. `total` fen."""
    return tree.encode(
        {
            "appid": gateway.app_id,
            "mchid": gateway.mch_id,
            "description": description,
            "out_trade_no": trade_no,
            "notify_url": notify_url,
            "amount": {"total": total, "currency": CURRENCY},
        }
    )


def question(gateway: WechatPay, trade_no: str) -> str:
    """Path and query that ask for an order's state."""
    return f"/v3/pay/transactions/out-trade-no/{trade_no}?mchid={quote(gateway.mch_id, safe='')}"


def headers(gateway: WechatPay, call: tuple[str, str, bytes], at: int, nonce: str) -> dict[str, str]:
    """The headers of a request: method, path with query, body; at this moment (unix seconds), with a text of chance."""
    method, path, body = call
    told = lines(method, path, str(at), nonce, body.decode("utf-8", "surrogateescape"))
    signature = b64encode(sealing.signed(told, gateway.private_key.reveal())).decode()
    fields = {
        "mchid": gateway.mch_id,
        "nonce_str": nonce,
        "signature": signature,
        "timestamp": str(at),
        "serial_no": gateway.serial,
    }
    made = {
        "authorization": f"{_SCHEME} " + ",".join(f'{name}="{value}"' for name, value in fields.items()),
        "accept": "application/json",
        "user-agent": "newapi-proxy",
    }
    if body:
        made["content-type"] = "application/json"
    asked = next(iter(gateway.public_keys), "")
    return made | ({"wechatpay-serial": asked} if asked.startswith(_BY_KEY) else {})


def doubt(gateway: WechatPay, given: Mapping[str, str], body: bytes, now: float) -> Fault | None:
    """Why what came with these headers (names in lower case, or in any) is not WeChat Pay's; None where it is.

    `body`: the bytes as they came. Any of the configured keys may have signed, so that one can be replaced by another.
    """
    moment, nonce, signature, serial = (
        given.get(f"wechatpay-{name}", "") for name in ("timestamp", "nonce", "signature", "serial")
    )
    if not (moment and nonce and signature and serial):
        return "headers"
    if given.get("wechatpay-signature-type", _SCHEME) != _SCHEME:
        return "headers"
    if not (moment.isascii() and moment.isdecimal() and len(moment) <= _DIGITS) or abs(now - int(moment)) > WINDOW:
        return "moment"
    key = next((pem for id, pem in gateway.public_keys.items() if id.lower() == serial.lower()), None)
    if key is None:
        return "serial"
    told = lines(moment, nonce, body.decode("utf-8", "surrogateescape"))
    return None if sealing.vouched(told, signature, key.reveal()) else "sign"


def notice(gateway: WechatPay, body: bytes) -> Transaction | Fault | None:
    """The transaction in a notice that is WeChat Pay's, None where it tells of something else than a payment."""
    told = tree.lenient(body)
    if not isinstance(told, dict):
        return "garbled"
    sealed = told.get("resource")
    if not isinstance(sealed, dict) or sealed.get("algorithm") != _SEAL:
        return "garbled"
    nonce, associated = _word(sealed, "nonce").encode(), _word(sealed, "associated_data").encode()
    try:
        hidden = b64decode(_word(sealed, "ciphertext"), validate=True)
    except (binascii.Error, ValueError):
        return "garbled"
    plain = sealing.opened(gateway.api_v3_key.reveal().encode(), nonce, hidden, associated)
    if plain is None:
        return "sealed"
    if told.get("event_type") != _EVENT:
        return None
    return transaction(gateway, tree.lenient(plain))


def transaction(gateway: WechatPay, told: Any) -> Transaction | Fault:
    """A transaction; a paid one is of ours, or it is not to be believed."""
    if not isinstance(told, dict):
        return "garbled"
    amount = told.get("amount")
    amount = amount if isinstance(amount, dict) else {}
    total = amount.get("total")
    found = Transaction(
        app_id=_word(told, "appid"),
        mch_id=_word(told, "mchid"),
        trade_no=_word(told, "out_trade_no"),
        number=_word(told, "transaction_id"),
        state=_word(told, "trade_state"),
        total=total if isinstance(total, int) and not isinstance(total, bool) else None,
        currency=_word(amount, "currency"),
    )
    ours = (found.app_id, found.mch_id) == (gateway.app_id, gateway.mch_id)
    return found if ours or found.state != PAID else "merchant"


def _word(told: Mapping[str, Any], name: str) -> str:
    found = told.get(name)
    return found if isinstance(found, str) else ""
