"""WeChat Pay's messages, signatures and seals by the published vectors, and everything that may be wrong with them."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.accounts import wechatpay
from newapi_proxy.config.portal import WechatPay
from newapi_proxy.secret import Secret
from newapi_proxy.wire import sealing
from tests.fakes import wechatpay as fake

GATEWAY = WechatPay(
    app_id=fake.APP,
    mch_id=fake.MERCHANT,
    serial=fake.SERIAL,
    private_key=Secret(fake.private_pem("merchant")),
    api_v3_key=Secret(fake.SEAL),
    public_keys={fake.KEY_ID: Secret(fake.public_pem("platform")), fake.OLD_ID: Secret(fake.public_pem("older"))},
)
NONCE = "593BEC0C930BF1AFEB40B4A08C8FB242"
NUMBER = "USR7NOaB3xY91729000000"
PLAIN = (
    '{"appid":"wx0000000000000001","mchid":"1900000001","out_trade_no":"USR7NOaB3xY91729000000",'
    '"transaction_id":"4200000000202410150000000001","trade_type":"NATIVE","trade_state":"SUCCESS",'
    '"trade_state_desc":"ok","bank_type":"OTHERS","attach":"","success_time":"2024-10-15T20:00:00+08:00",'
    '"payer":{"openid":"o-test-openid"},'
    '"amount":{"total":7300,"payer_total":7300,"currency":"CNY","payer_currency":"CNY"}}'
)
SEALED = (
    "DUcSk7X3A8MEOkEDtMPWwAdqzVngwd+QDAMbIzZp7Le7Yh4fwJp7KJPSO4KcjLkLW6SrqBdzgGy/sMCWIPKVQdMoXvJZp25bGEIMTzRnD84Q7liM9R"
    "kHjXz9cc6GGYGHEl/OjEHUjFFCTSauJxUOzUSUdSAagusEnnqoNC4D4NQEMLenoEF4L3Lc/n+q97H4IbSWL9pTKvw7LEDHYYHyypLql1iWXju4ffwx"
    "gLgRVNklHwtf/TUt3N8ITcNQDgiP/jri6aGqtdeuPFZpdOuOUGFthHlBMrsk0b893CFWelg3Pp6lZMSoAI3L05rEyhd0S1dz/CUrpnkk7eHx2gTiMw"
    "TsRQtv6OuzePf6Ajwo8QF6XA+xbW1IQIKXQ3uSlJMD5UK3dQwjNrFLJ1BMgHwtDFNxinZuZuNLsuz2pBMAqjQBrm3Pu5x10lKlzdzayslzzINsbRop"
    "tNBX1IdCfiDXA/lH4WchB/PjWgzYyyje+NJcjHXfy/8RSUqHLH0Cf/N7SXQkyu54ykAteCWJK3AQagH3QjJfehzOBfYv2LVLhU7iJoQ="
)


def opened(sealed: str, key: str = fake.SEAL, nonce: bytes = b"fdasflkja484", data: bytes = b"transaction") -> Any:
    """What is under a seal."""
    return sealing.opened(key.encode(), nonce, base64.b64decode(sealed), data)


def test_messages() -> None:
    """What is signed, to the byte (13.4); the body that begins an order is the one there."""
    body = wechatpay.order(GATEWAY, NUMBER, "TUC10", 7300, "https://gw.example.com/api/wechatpay/notify")
    begin = wechatpay.lines("POST", wechatpay.NATIVE, "1729000000", NONCE, body.decode())
    ask = wechatpay.lines("GET", wechatpay.question(GATEWAY, NUMBER), "1729000000", NONCE, "")
    told = wechatpay.lines("1729000005", "EqtXjA9kPqz0", '{"id":"x"}')
    scan = wechatpay.lines(fake.APP, "1729000000", NONCE, "prepay_id=wx201410272009395522657a690389285100")
    assert [(len(one), hashlib.sha256(one).hexdigest()) for one in (begin, ask, told, scan)] == [
        (291, "d594ad04b3526076594387a591352239bc24391a626980a719c9055dab602f66"),
        (123, "0ed2d71048ffae09d6187a1467adcdaf0071b263c2bcfea887dd5aaff14bea6a"),
        (35, "171faf3bbe7e9969e99b129602104f7c1834ab417006bb39d614537e8584bac2"),
        (110, "df5901e246ea69452586c0db8a9f3c30a5cd22dbe536a2dca538254e78dc50cc"),
    ]


def test_seals() -> None:
    """The vectors of 13.3; another key, nonce, associated data or a single bit opens nothing (T-45)."""
    assert opened("DUcSwf+vGlappypHfVVpZvzrQqhccy4=") == b'{"a":1}'
    assert opened(SEALED) == PLAIN.encode()
    assert len(PLAIN) == 403
    assert opened(SEALED, key=fake.SEAL[::-1]) is None
    assert opened(SEALED, key="short") is None
    assert opened(SEALED, nonce=b"fdasflkja485") is None
    assert opened(SEALED, nonce=b"") is None
    assert opened(SEALED, data=b"") is None
    flipped = bytearray(base64.b64decode(SEALED))
    flipped[7] ^= 1
    assert opened(base64.b64encode(flipped).decode()) is None
    assert opened("") is None


def notice(**resource: Any) -> bytes:
    """A notice with the vector in it, but for these fields."""
    given = {
        "original_type": "transaction",
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": SEALED,
        "associated_data": "transaction",
        "nonce": "fdasflkja484",
        **resource,
    }
    return orjson.dumps({"event_type": "TRANSACTION.SUCCESS", "resource": given})


def test_a_notice() -> None:
    """The transaction of the vector; another event is nothing to do; what cannot be opened or read is in doubt."""
    paid = wechatpay.Transaction(
        fake.APP, fake.MERCHANT, NUMBER, "4200000000202410150000000001", "SUCCESS", 7300, "CNY"
    )
    assert wechatpay.notice(GATEWAY, notice()) == paid
    assert wechatpay.notice(GATEWAY, notice().replace(b"TRANSACTION.SUCCESS", b"REFUND.SUCCESS")) is None
    for wrong, word in (
        ({"ciphertext": "!"}, "garbled"),
        ({"ciphertext": 5}, "sealed"),
        ({"algorithm": "AES"}, "garbled"),
        ({"nonce": "x"}, "sealed"),
        ({"nonce": None}, "sealed"),
        ({"associated_data": None}, "sealed"),
    ):
        assert wechatpay.notice(GATEWAY, notice(**wrong)) == word, wrong
    for body in (b"", b"[]", b"{}", b'{"resource": 5}', b"\xff"):
        assert wechatpay.notice(GATEWAY, body) == "garbled"


def test_whose_transaction() -> None:
    """A paid one names our application and merchant; a sum that is no whole number is none (T-01)."""
    told = orjson.loads(PLAIN)
    for name in ("appid", "mchid"):
        assert wechatpay.transaction(GATEWAY, {**told, name: "other"}) == "merchant"
        assert wechatpay.transaction(GATEWAY, {**told, name: None}) == "merchant"
        waiting = wechatpay.transaction(GATEWAY, {**told, name: "other", "trade_state": "NOTPAY"})
        assert isinstance(waiting, wechatpay.Transaction)
    for total in (7300.0, "7300", True, None):
        found = wechatpay.transaction(GATEWAY, {**told, "amount": {"total": total, "currency": "CNY"}})
        assert isinstance(found, wechatpay.Transaction)
        assert found.total is None
    assert wechatpay.transaction(GATEWAY, None) == wechatpay.transaction(GATEWAY, []) == "garbled"


def doubt(body: bytes, headers: dict[str, str], now: float | None = None) -> str | None:
    """What is doubted of the body under these headers."""
    given = {name.lower(): value for name, value in headers.items()}
    return wechatpay.doubt(GATEWAY, given, body, time.time() if now is None else now)


def test_who_has_signed() -> None:
    """Two keys in turn, by id in any case, and no third; PSS, probes, other bytes and old moments are refused."""
    body = b'{"id": "x"}'
    good = fake.signed(body)
    assert doubt(body, good) is None
    assert doubt(body, fake.signed(body, "older", fake.OLD_ID)) is None
    assert doubt(body, fake.signed(body, "older", fake.OLD_ID.lower())) is None
    assert doubt(body, good | {"Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048"}) is None
    assert doubt(body, fake.signed(body, "third", "44" * 16)) == "serial"
    assert doubt(body, fake.signed(body, "third")) == "sign"
    assert doubt(body, fake.signed(body, "older")) == "sign"
    assert doubt(b'{"id":"x"}', good) == "sign"
    assert doubt(body, good | {"Wechatpay-Nonce": "other"}) == "sign"
    for wrong in (fake.PROBE + good["Wechatpay-Signature"], fake.PROBE + "abcd", "!", "ä"):
        assert doubt(body, good | {"Wechatpay-Signature": wrong}) == "sign"
    assert doubt(body, good | {"Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}) == "headers"
    for name in good:
        assert doubt(body, {key: value for key, value in good.items() if key != name}) == "headers"
    at = int(good["Wechatpay-Timestamp"])
    assert [doubt(body, good, now) for now in (at - 300, at + 300)] == [None, None]
    assert [doubt(body, good, now) for now in (at - 301, at + 301)] == ["moment", "moment"]
    for wrong in ("x", "-5", "1e9", "9" * 400, "١"):
        assert doubt(body, good | {"Wechatpay-Timestamp": wrong}) == "moment"
    binary = b"\xff\x00{}"
    assert doubt(binary, fake.signed(binary)) is None


def test_keys_as_people_have_them() -> None:
    """PEM with and without its armour, with escaped line ends, a certificate; what is none of these says so (T-46)."""
    pem = fake.public_pem("platform")
    bare = "".join(pem.splitlines()[1:-1])
    body = b"x"
    good = fake.signed(body)
    for form in (pem, bare, pem.replace("\n", "\\n"), f"  {bare[:70]}\n{bare[70:]}\n"):
        gateway = msgspec.structs.replace(GATEWAY, public_keys={fake.KEY_ID: Secret(form)})
        given = {name.lower(): value for name, value in good.items()}
        assert wechatpay.doubt(gateway, given, body, time.time()) is None
    private = fake.private_pem("merchant")
    assert sealing.signed(b"x", private) == sealing.signed(b"x", "".join(private.splitlines()[1:-1]))
    for wrong in ("", "nonsense", private, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"):
        with pytest.raises(ValueError, match="no public key or certificate in PEM form"):
            sealing.public_key(wrong)
    with pytest.raises(ValueError, match="no private key in PEM form"):
        sealing.private_key(pem)


def test_the_key_that_is_asked_for() -> None:
    """A public key's id is named in requests; a certificate's serial number is not."""
    call = ("GET", wechatpay.question(GATEWAY, NUMBER), b"")
    assert wechatpay.headers(GATEWAY, call, 1, NONCE)["wechatpay-serial"] == fake.KEY_ID
    old = msgspec.structs.replace(GATEWAY, public_keys={fake.OLD_ID: Secret(fake.public_pem("older"))})
    assert "wechatpay-serial" not in wechatpay.headers(old, call, 1, NONCE)
