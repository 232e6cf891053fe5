"""What `check` says of `portal.topup`: every fault with its place; secrets masked, nothing loaded that is not named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from newapi_proxy.cli.show import render
from newapi_proxy.config.load import Loaded, read
from tests.fakes import wechatpay as fake
from tests.laws import ROOT

EASYPAY: dict[str, Any] = {"address": "https://pay.example.org", "id": "1001", "key": "k3yForTests0123456789"}
WECHAT: dict[str, Any] = {
    "app_id": fake.APP,
    "mch_id": fake.MERCHANT,
    "serial": fake.SERIAL,
    "private_key": fake.private_pem("merchant"),
    "api_v3_key": fake.SEAL,
    "public_keys": {fake.KEY_ID: fake.public_pem("platform")},
}
OWN = "https://gw.example.org"


def loaded(folder: Path, topup: dict[str, Any] | None, url: str | None = OWN, **more: Any) -> Loaded:
    """A configuration that sells so."""
    path = folder / "config.yaml"
    tree: dict[str, Any] = {"portal": {"topup": topup, **more}, **({"public_url": url} if url else {})}
    path.write_text(yaml.safe_dump(tree))
    path.chmod(0o600)
    return read(path, {})


def faults(folder: Path, topup: dict[str, Any] | None, url: str | None = OWN, **more: Any) -> list[str]:
    """Its faults."""
    return [f"{one.key}: {one.message}" for one in loaded(folder, topup, url, **more).faults]


def test_what_is_right(tmp_path: Path) -> None:
    """Each way to pay alone, and all of them."""
    for topup in ({"redeem": True}, {"easypay": EASYPAY}, {"wechat": WECHAT}, {"easypay": EASYPAY, "wechat": WECHAT}):
        assert faults(tmp_path, topup) == []
    assert faults(tmp_path, {"redeem": True}, None) == []
    assert faults(tmp_path, {"wechat": {**WECHAT, "notify_url": f"{OWN}/n"}}, None) == []
    certificate = {
        **WECHAT,
        "public_keys": {"7132D72A": fake.public_pem("older"), fake.KEY_ID: WECHAT["public_keys"][fake.KEY_ID]},
    }
    assert faults(tmp_path, {"wechat": certificate}) == []


@pytest.mark.parametrize(
    ("topup", "where", "words"),
    [
        ({"price": 0}, "price", "must be above 0"),
        ({"price": "nan"}, "price", "is no number"),
        ({"currency": "yuan"}, "currency", "is no currency"),
        ({"min_topup": 0}, "min_topup", "is below 1"),
        ({"min_topup": 5, "max_topup": 4}, "max_topup", "is below min_topup"),
        ({"max_topup": 10_000_000}, "max_topup", "is above 1000000"),
        ({"amounts": [10, 0]}, "amounts[1]", "must be above 0"),
        ({"group_ratios": {"vip": -0.5}}, "group_ratios.vip", "is negative"),
        ({"discounts": {100: 0}}, 'discounts["100"]', "must be above 0"),
        ({"discounts": {"many": 1}}, "discounts.many", "is no whole number"),
        ({"stripe": {}}, "stripe", "unknown key"),
        ({"easypay": {**EASYPAY, "address": "pay.example.org"}}, "easypay.address", "must be a URL"),
        ({"easypay": {**EASYPAY, "id": "10 01"}}, "easypay.id", "must be printable ASCII"),
        ({"easypay": {**EASYPAY, "key": ""}}, "easypay.key", "has no value"),
        ({"easypay": {"address": "https://x.example", "id": "1"}}, "easypay.key", "is required"),
        ({"easypay": {**EASYPAY, "methods": {"": "x"}}}, "easypay.methods", "an empty key"),
        ({"wechat": {**WECHAT, "api_v3_key": "short"}}, "wechat.api_v3_key", "must be 32 bytes long"),
        ({"wechat": {**WECHAT, "api_v3_key": ""}}, "wechat.api_v3_key", "has no value"),
        ({"wechat": {**WECHAT, "private_key": "x"}}, "wechat.private_key", "holds no private key in PEM form"),
        ({"wechat": {**WECHAT, "public_keys": {}}}, "wechat.public_keys", "needs at least one key"),
        ({"wechat": {**WECHAT, "public_keys": {"A": "x"}}}, "wechat.public_keys.A", "holds no public key"),
        ({"wechat": {**WECHAT, "serial": 'A"B'}}, "wechat.serial", "must be printable ASCII"),
        ({"wechat": {**WECHAT, "address": "x"}}, "wechat.address", "must be a URL"),
        ({"wechat": {**WECHAT, "notify_url": "http://gw.example.org/n"}}, "wechat.notify_url", "must be https"),
        ({"wechat": {**WECHAT, "notify_url": f"{OWN}/n?a=1"}}, "wechat.notify_url", "have no query"),
        ({"wechat": WECHAT, "currency": "USD"}, "currency", "must be CNY for WeChat Pay"),
    ],
)
def test_what_is_wrong(tmp_path: Path, topup: dict[str, Any], where: str, words: str) -> None:
    """Amounts, factors, addresses, keys (an empty one too, T-07): one fault, at its key."""
    (fault,) = faults(tmp_path, topup)
    assert fault.startswith(f"portal.topup.{where}: ")
    assert words in fault


@pytest.mark.parametrize(
    ("bot", "token", "wrong"),
    [
        ("light_bot", "123456789:AAE-test-bot-token_abcdefghijklmnopqr", []),
        ("@light_bot", "123456789:AAE-test-bot-token_abcdefghijklmnopqr", ["bot: is no bot's user name"]),
        ("light_bot", "123456789", ["token: is no bot's token"]),
        ("light_bot", "", ["token: has no value"]),
        ("a b", "x:y", ["bot: is no bot's user name", "token: is no bot's token"]),
    ],
)
def test_a_bot(tmp_path: Path, bot: str, token: str, wrong: list[str]) -> None:
    """A bot has a name as Telegram has it, and a token that is one; an empty token would let in anybody."""
    found = faults(tmp_path, None, telegram={"bot": bot, "token": token})
    assert [one.removeprefix("portal.telegram.").partition(",")[0].partition(":")[0] for one in found] == [
        one.partition(":")[0] for one in wrong
    ]
    assert all(words in one for one, words in zip(found, wrong, strict=True))
    config = loaded(tmp_path, None, telegram={"bot": "light_bot", "token": "123456789:AAE-test-bot-token"}).config
    assert "AAE-test" not in "\n".join(render(config, None))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("session", "30s", "must be between a minute and 30 days"),
        ("session", "31d", "must be between a minute and 30 days"),
        ("title", " ", "must be printable text"),
        ("title", "a\nb", "must be printable text"),
    ],
)
def test_what_is_wrong_with_pages(tmp_path: Path, key: str, value: str, words: str) -> None:
    """A session ends, and the service has a name."""
    (fault,) = faults(tmp_path, None, **{key: value})
    assert fault == f"portal.{key}: {words}"


def test_our_own_address(tmp_path: Path) -> None:
    """A gateway needs the address at which it finds us (T-38); WeChat Pay one that is https."""
    (fault,) = faults(tmp_path, {"easypay": EASYPAY}, None)
    assert fault.startswith("portal.topup.easypay: needs public_url")
    (fault,) = faults(tmp_path, {"wechat": WECHAT}, None)
    assert fault.startswith("portal.topup.wechat: needs notify_url, or public_url")
    (fault,) = faults(tmp_path, {"wechat": WECHAT}, "http://gw.example.org")
    assert fault.startswith("public_url: must be https and have no query")


def test_unknown_parts(tmp_path: Path) -> None:
    """Other keys of the portal are faults, and what was meant is told; all faults are told at once."""
    (fault,) = loaded(tmp_path, {"redeem": True}, OWN, topop={}).faults
    assert (fault.key, fault.hint) == ("portal.topop", "topup")
    assert len(faults(tmp_path, {"price": 0, "wrong": 1, "easypay": {**EASYPAY, "id": ""}})) == 3


def test_secrets_are_masked(tmp_path: Path) -> None:
    """`show` prints no key of a gateway, and says where an amount's discount comes from."""
    config = loaded(tmp_path, {"easypay": EASYPAY, "wechat": WECHAT}).config
    shown = "\n".join(render(config, None))
    for secret in (EASYPAY["key"], fake.SEAL, WECHAT["private_key"].splitlines()[1]):
        assert secret not in shown
    assert "      key: '***'" in shown
    found = loaded(tmp_path, {"redeem": True, "discounts": {100: 0.95}})
    (line,) = [one for one in render(found.config, found.origins) if one.startswith("      100: 0.95")]
    assert line.endswith("config.yaml:4")
    assert f"      id: '{EASYPAY['id']}'" in shown


def test_nothing_is_loaded_that_nobody_configured() -> None:
    """A daemon that sells nothing loads none of what sells, and no cryptography for it (decision 2)."""
    code = "import sys, newapi_proxy.daemon.life; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    words = ("topup", "easypay", "wechat", "dashboard", "billing.credits", "store.orders", "cryptography")
    words += ("web.portal", "web.pages", "web.browser", "accounts.sessions", "accounts.sums")
    assert [one for one in run.stdout.split() if any(word in one for word in words)] == []
