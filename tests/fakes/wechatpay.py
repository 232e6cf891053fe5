"""WeChat Pay, API v3, of our own making: checks every signature strictly, signs all that it says, and tells notices.

Written from tasks-and-accounts 6.7 and 11.6, with signatures of its own. The knobs of `Told` are what goes wrong with a
notice, those of `Knobs` what goes wrong with an answer.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import re
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import ClientSession, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.fakes.midjourney import listening

APP, MERCHANT, SERIAL = "wx0000000000000001", "1900000001", "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"
SEAL: Final = "0123456789abcdef0123456789abcdef"
KEY_ID: Final = "PUB_KEY_ID_0119000000012024101500000000000001"
OLD_ID: Final = "7132D72A03E93CDDF8C03BBD1F37EEDF"  # a platform certificate's
PROBE: Final = "WECHATPAY/SIGNTEST/"
_FIELDS: Final = re.compile(r'([a-z_]+)="([^"]*)"')


@functools.cache
def key(whose: str) -> RSAPrivateKey:
    """The RSA key of the merchant, the platform, or anybody else; made once per run."""
    return generate_private_key(65537, 2048)


def private_pem(whose: str) -> str:
    """It in PEM form."""
    return key(whose).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(whose: str) -> str:
    """Its public half."""
    return key(whose).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signature(text: bytes, whose: str) -> str:
    """RSA over SHA-256, in base64."""
    return base64.b64encode(key(whose).sign(text, PKCS1v15(), SHA256())).decode()


def signed(body: bytes, whose: str = "platform", serial: str = KEY_ID, at: int | None = None) -> dict[str, str]:
    """The headers by which a body is WeChat Pay's."""
    moment, nonce = str(int(time.time()) if at is None else at), "EqtXjA9kPqz0"
    text = f"{moment}\n{nonce}\n".encode() + body + b"\n"
    return {
        "Wechatpay-Timestamp": moment,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature": signature(text, whose),
    }


@dataclass(kw_only=True)
class Told:
    """How a notice is told. `change`: of the transaction; `headers`: instead of the right ones, None leaves one out."""

    change: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    whose: str = "platform"
    serial: str = KEY_ID
    seal: str = SEAL
    event: str = "TRANSACTION.SUCCESS"
    late: int = 0  # seconds by which the moment is wrong
    at_once: int = 1
    body: bytes | None = None
    spaced: bool = False  # other blanks, signed as they are
    garbled: bool = False  # other blanks, after the signature
    flip: bool = False  # one bit of what is sealed


@dataclass(kw_only=True)
class Knobs:
    """What can be set while it runs."""

    status: int = 200
    code: str = ""
    whose: str = "platform"
    serial: str = KEY_ID
    unsigned: bool = False
    hang: bool = False
    text: bytes | None = None
    state: Mapping[str, Any] = field(default_factory=dict)


class WechatPay:
    """The running API."""

    def __init__(self) -> None:
        self.url = ""
        self.knobs = Knobs()
        self.orders: dict[str, dict[str, Any]] = {}
        self.paid: set[str] = set()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.released = asyncio.Event()

    def transaction(self, number: str, **change: Any) -> dict[str, Any]:
        """An order as it is told."""
        order = self.orders[number]
        total = order["amount"]["total"]
        told = {
            "appid": APP,
            "mchid": MERCHANT,
            "out_trade_no": number,
            "transaction_id": "4200000000202410150000000001",
            "trade_type": "NATIVE",
            "trade_state": "SUCCESS" if number in self.paid else "NOTPAY",
            "trade_state_desc": "ok",
            "bank_type": "OTHERS",
            "attach": "",
            "success_time": "2024-10-15T20:00:00+08:00",
            "payer": {"openid": "o-test-openid"},
            "amount": {"total": total, "payer_total": total, "currency": "CNY", "payer_currency": "CNY"},
        }
        amount = change.pop("amount", None)
        return told | change | ({"amount": told["amount"] | amount} if isinstance(amount, dict) else {})

    def notice(self, number: str, told: Told) -> tuple[bytes, dict[str, str]]:
        """A notice's body and headers."""
        self.paid.add(number)
        plain = orjson.dumps(self.transaction(number, **told.change))
        sealed = bytearray(AESGCM(told.seal.encode()).encrypt(b"fdasflkja484", plain, b"transaction"))
        sealed[0] ^= told.flip
        body = orjson.dumps(
            {
                "id": "EV-2018022511223320873",
                "create_time": "2024-10-15T20:00:01+08:00",
                "resource_type": "encrypt-resource",
                "event_type": told.event,
                "summary": "paid",
                "resource": {
                    "original_type": "transaction",
                    "algorithm": "AEAD_AES_256_GCM",
                    "ciphertext": base64.b64encode(sealed).decode(),
                    "associated_data": "transaction",
                    "nonce": "fdasflkja484",
                },
            },
            option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS if told.spaced else 0,
        )
        body = told.body if told.body is not None else body
        headers: dict[str, str | None] = {**signed(body, told.whose, told.serial, int(time.time()) - told.late)}
        headers |= told.headers
        body = body.replace(b",", b", ", 1) if told.garbled else body
        return body, {name: value for name, value in headers.items() if value is not None}

    async def tell(self, number: str, told: Told | None = None, to: str = "") -> list[int]:
        """Tells the shop that an order was paid; the statuses that came back. The API's own retries are the test's."""
        told = told or Told()
        body, headers = self.notice(number, told)
        self.answers: list[bytes] = []

        async def once() -> int:
            async with session.post(to, data=body, headers=headers) as answer:
                self.answers.append(await answer.read())
                return answer.status

        async with ClientSession() as session:
            return list(await asyncio.gather(*(once() for _ in range(told.at_once))))

    async def _ask(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.append(f"{request.method} {request.path_qs}")
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.knobs.hang:
            await self.released.wait()
        if fault := self._fault(request, body):
            self.faults.append(fault)
            return self._said({"code": "SIGN_ERROR", "message": fault}, 401)
        if self.knobs.status != 200:
            return self._said({"code": self.knobs.code, "message": "no"}, self.knobs.status)
        if request.method == "POST" and request.path.endswith("/native"):
            return self._native(orjson.loads(body))
        number = request.path.rpartition("/")[2]
        if request.query.get("mchid") != MERCHANT or number not in self.orders:
            return self._said({"code": "ORDER_NOT_EXIST", "message": "no"}, 404)
        return self._said(self.transaction(number, **self.knobs.state), 200)

    def _native(self, order: dict[str, Any]) -> web.Response:
        number = str(order["out_trade_no"])
        wrong = (
            not re.fullmatch(r"[0-9A-Za-z_|*-]{6,32}", number)
            or not str(order["notify_url"]).startswith("https://")
            or "?" in order["notify_url"]
            or not isinstance(order["amount"]["total"], int)
            or order["amount"]["currency"] != "CNY"
            or (order["appid"], order["mchid"]) != (APP, MERCHANT)
            or len(order["description"]) > 127
        )
        if wrong:
            return self._said({"code": "PARAM_ERROR", "message": "no"}, 400)
        if number in self.orders:
            return self._said({"code": "OUT_TRADE_NO_USED", "message": "no"}, 403)
        self.orders[number] = order
        return self._said({"code_url": f"weixin://wxpay/bizpayurl?pr={number[-6:]}"}, 200)

    def _fault(self, request: web.Request, body: bytes) -> str:
        """What is wrong with a request's signature, to the letter of the contract."""
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        fields = dict(_FIELDS.findall(rest))
        if scheme != "WECHATPAY2-SHA256-RSA2048":
            return "scheme"
        if set(fields) != {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}:
            return "fields"
        if (fields["mchid"], fields["serial_no"]) != (MERCHANT, SERIAL):
            return "merchant"
        if abs(time.time() - int(fields["timestamp"])) > 300:
            return "moment"
        if request.headers.get("Accept") != "application/json" or "User-Agent" not in request.headers:
            return "headers"
        told = (request.method, request.path_qs, fields["timestamp"], fields["nonce_str"], body.decode())
        text = "".join(f"{part}\n" for part in told).encode()
        try:
            key("merchant").public_key().verify(base64.b64decode(fields["signature"]), text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return "signature"
        return ""

    def _said(self, tree: Any, status: int) -> web.Response:
        body = orjson.dumps(tree) if self.knobs.text is None else self.knobs.text
        headers = {} if self.knobs.unsigned else signed(body, self.knobs.whose, self.knobs.serial)
        return web.Response(body=body, status=status, headers={"content-type": "application/json", **headers})

    def app(self) -> web.Application:
        """The application."""
        made = web.Application()
        made.router.add_route("*", "/{path:.*}", self._ask)
        return made


@asynccontextmanager
async def serving(door: socket.socket) -> AsyncIterator[WechatPay]:
    """The API behind a listening socket."""
    one = WechatPay()
    async with listening(one.app(), door) as url:
        one.url = url
        yield one
        one.released.set()


def named(url: str) -> dict[str, str]:
    """What a configuration's text says of this account at that address; keys as YAML takes them."""
    names = {"app": APP, "merchant": MERCHANT, "serial": SERIAL, "seal": SEAL, "key": KEY_ID, "old": OLD_ID, "url": url}
    pems = {"own": private_pem("merchant"), "now": public_pem("platform"), "then": public_pem("older")}
    return names | {name: orjson.dumps(pem).decode() for name, pem in pems.items()}
