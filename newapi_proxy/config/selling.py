"""What must hold for the portal: a session that ends, amounts and factors that make sense, gateways to be believed.

Rules as in `rules`, for `portal` alone. The keys of a gateway are read here, so that a broken one is told with
its place and not by the first customer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from newapi_proxy.config import addresses
from newapi_proxy.config.nodes import Fault, Path
from newapi_proxy.config.portal import EasyPay, TopUp, WechatPay
from newapi_proxy.config.rules import Rule, View
from newapi_proxy.wire import sealing

_AT: Final[Path] = ("portal", "topup")
SHORTEST, LONGEST = 60.0, 30 * 86400.0  # seconds of a session
_BOT: Final = re.compile(r"[A-Za-z0-9_]{3,64}")
_BOT_TOKEN: Final = re.compile(r"[!-~]{16,128}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_WORD: Final = re.compile(r"[\x21-\x7e]{1,128}")
_CNY: Final = "CNY"  # WeChat Pay takes nothing else


def _pages(view: View) -> Iterator[Fault]:
    """A sign-in lasts for a while, and the service has a name."""
    portal = view.config.portal
    if portal is None:
        return
    if not SHORTEST <= portal.session <= LONGEST:
        yield view.wrong(("portal", "session"), "must be between a minute and 30 days")
    if not portal.title.strip() or not portal.title.isprintable():
        yield view.wrong(("portal", "title"), "must be printable text")
    if portal.telegram is not None:
        if not _BOT.fullmatch(portal.telegram.bot):
            bare = portal.telegram.bot.removeprefix("@")
            hint = bare if _BOT.fullmatch(bare) else ""
            yield view.wrong(("portal", "telegram", "bot"), "is no bot's user name: letters, digits and _", hint)
        if not _BOT_TOKEN.fullmatch(portal.telegram.token.reveal()):
            yield view.wrong(("portal", "telegram", "token"), "is no bot's token: NUMBER:TEXT, without blanks")


def _sold(view: View) -> Iterator[Fault]:
    """Prices are above zero, amounts fit each other; what cannot be sold is not offered."""
    sold = view.config.portal.topup if view.config.portal is not None else None
    if sold is None:
        return
    if sold.price <= 0:
        yield view.wrong((*_AT, "price"), "must be above 0")
    if not _CURRENCY.fullmatch(sold.currency):
        yield view.wrong((*_AT, "currency"), f"{sold.currency!r} is no currency such as CNY or USD")
    if sold.max_topup < sold.min_topup:
        yield view.wrong((*_AT, "max_topup"), "is below min_topup")
    yield from _amounts(view, sold)
    if sold.easypay is not None:
        yield from _easypay(view, sold.easypay)
    if sold.wechat is not None:
        yield from _wechat(view, sold, sold.wechat)


def _amounts(view: View, sold: TopUp) -> Iterator[Fault]:
    for index, amount in enumerate(sold.amounts):
        if amount <= 0:
            yield view.wrong((*_AT, "amounts", index), "must be above 0")
    for name, ratio in sold.group_ratios.items():
        if ratio < 0:
            yield view.wrong((*_AT, "group_ratios", name), "is negative")
    for amount, factor in sold.discounts.items():
        if factor <= 0:
            yield view.wrong((*_AT, "discounts", str(amount)), "must be above 0; leave it out for none")


def _easypay(view: View, gateway: EasyPay) -> Iterator[Fault]:
    at: Path = (*_AT, "easypay")
    if wrong := addresses.url(gateway.address):
        yield view.wrong((*at, "address"), wrong)
    if not _WORD.fullmatch(gateway.id):
        yield view.wrong((*at, "id"), "must be printable ASCII without spaces")
    for method in gateway.methods:
        if method and not _WORD.fullmatch(method):
            yield view.wrong((*at, "methods", method), "must be printable ASCII without spaces")
    if view.config.public_url is None:
        yield view.wrong(at, "needs public_url, the address that the gateway and the browser come back to")


def _wechat(view: View, sold: TopUp, gateway: WechatPay) -> Iterator[Fault]:
    at: Path = (*_AT, "wechat")
    for name in ("app_id", "mch_id", "serial"):
        if not _WORD.fullmatch(getattr(gateway, name)) or '"' in getattr(gateway, name):
            yield view.wrong((*at, name), "must be printable ASCII without spaces or quotes")
    if wrong := addresses.url(gateway.address):
        yield view.wrong((*at, "address"), wrong)
    if sold.currency != _CNY:
        yield view.wrong((*_AT, "currency"), f"must be {_CNY} for WeChat Pay")
    if len(gateway.api_v3_key.reveal().encode()) != sealing.AES_KEY:
        yield view.wrong((*at, "api_v3_key"), f"must be {sealing.AES_KEY} bytes long")
    if wrong := _unreadable(sealing.private_key, gateway.private_key.reveal()):
        yield view.wrong((*at, "private_key"), wrong)
    if not gateway.public_keys:
        yield view.wrong((*at, "public_keys"), "needs at least one key: nothing could be believed without")
    for id, key in gateway.public_keys.items():
        if wrong := _unreadable(sealing.public_key, key.reveal()):
            yield view.wrong((*at, "public_keys", id), wrong)
    yield from _notified(view, at, gateway)


def _notified(view: View, at: Path, gateway: WechatPay) -> Iterator[Fault]:
    """WeChat Pay refuses a notify_url that is not https, or has a query."""
    if gateway.notify_url is None and view.config.public_url is None:
        yield view.wrong(at, "needs notify_url, or public_url to make it from")
        return
    name, address = ("notify_url", gateway.notify_url) if gateway.notify_url else ("", view.config.public_url or "")
    path: Path = (*at, name) if name else ("public_url",)
    if wrong := addresses.url(address):
        yield view.wrong(path, wrong)
    elif urlsplit(address).scheme != "https" or urlsplit(address).query:
        yield view.wrong(path, "must be https and have no query: WeChat Pay calls nothing else")


def _unreadable(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except ValueError as error:
        return f"holds {error}"
    return ""


RULES: Final[tuple[Rule, ...]] = (_pages, _sold)
