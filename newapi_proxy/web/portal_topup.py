"""The pages on which credit is bought and codes are redeemed, by the same orders and credits as New API's routes.

Knows forms and pages; what something costs stands in `accounts.topup`, money moves in `billing.credits` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from newapi_proxy.accounts import topup
from newapi_proxy.accounts.topup import Quote, Refused
from newapi_proxy.config.portal import TopUp
from newapi_proxy.errors import ClientError
from newapi_proxy.store import orders, standing
from newapi_proxy.web import browser, dashboard, portal, topup_routes
from newapi_proxy.web.account_routes import MOST, SPAN, Pace
from newapi_proxy.web.app import Action
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.dashboard import Holder
from newapi_proxy.web.pages import shop as view
from newapi_proxy.web.pages.layout import message
from newapi_proxy.web.pages.words import say
from newapi_proxy.web.portal import Account, Guest, KeyHolder
from newapi_proxy.web.router import Route

ROWS: Final = 20  # orders of a page
CODES: Final = 20  # tried by one address within `WHILE` seconds
WHILE: Final = 1200.0
AGAIN: Final = (("Refresh", "5"),)  # seconds, while an order is open
SCANNED: Final = "wechat_native"  # the method whose code is shown here
_SAID: Final = {"redeemed": "said_redeemed", "returned": "said_returned"}
_WORDS: Final[Mapping[str, str]] = {
    topup.TOO_CHEAP: "topup_cheap",
    topup.NO_METHOD: "topup_bad_method",
    topup.NOT_BEGUN: "topup_not_begun",
    topup.NO_CODE: "topup_code_missing",
    topup.NOT_REDEEMED["used"]: "topup_code_used",
    topup.NOT_REDEEMED["expired"]: "topup_code_expired",
    topup.NOT_REDEEMED["unknown"]: "topup_code_unknown",
    topup.NOT_REDEEMED["nobody"]: "topup_code_unknown",
}


def routes() -> list[Route[Action]]:
    """The pages' routes."""
    pace, attempts = Pace(MOST, SPAN), Pace(CODES, WHILE)
    recent: Any = None

    async def state(guest: Guest) -> Shown:
        nonlocal recent
        if recent is None and _sold(guest).wechat is not None:
            from newapi_proxy.web import wechat_routes  # with the cryptography that only this way to pay needs

            recent = wechat_routes.Recent()
        return await _order(guest, recent)

    return [
        Route("/topup", {"GET": portal.action(_show, pace), "POST": portal.action(_buy, pace)}),
        Route("/topup/redeem", {"POST": portal.action(_redeem, pace, attempts)}),
        Route("/topup/order", {"GET": portal.action(state, pace)}),
    ]


def _sold(guest: Guest) -> TopUp:
    """What is sold. Raises ClientError 404 where nothing is."""
    sold = guest.portal.topup
    if sold is None:
        raise ClientError(say("error_no_page"), status=404, kind="not_found", code="unknown_path")
    return sold


async def _shopper(guest: Guest) -> dashboard.Guest:
    """Who is signed in, as New API's routes know them. Raises ClientError 403 for a key that has no balance."""
    sold, edge = _sold(guest), guest.edge
    match portal.holder(guest):
        case Account(user):
            holder = Holder(user)
        case KeyHolder(token):
            holder = await dashboard.buyer(edge, guest.call, token)
    return dashboard.Guest(edge, guest.call, holder, guest.config, sold, guest.share)


async def _show(guest: Guest) -> Shown:
    try:
        shopper = await _shopper(guest)
    except ClientError as fault:
        if fault.code != "unlimited_key":
            raise
        return guest.page(say("topup"), message(say("topup_unlimited")))
    said = _SAID.get(guest.asked("said"))
    return await _page(guest, shopper, say(said) if said else "")


async def _page(guest: Guest, shopper: dashboard.Guest, said: str, fault: ClientError | None = None) -> Shown:
    sold, whose, zone = shopper.sold, shopper.holder.whose, guest.zone
    user_id, token_id = whose

    def read(conn: Any) -> tuple[int, orders.Page]:
        left, _ = standing.of_key(conn, token_id) if token_id else standing.of_account(conn, user_id)
        return left, orders.listed(conn, whose, "", 0, (0, ROWS))

    left, own = await guest.edge.house.db.read(read)
    found = [view.top(said, left, account=not token_id, wrong=fault is not None)]
    if methods := _methods(sold):
        choices = [view.Choice(one, _price(shopper, one)) for one in sold.amounts if _fits(one, sold)]
        found.append(view.sale(view.Sale(choices, sold.min_topup, sold.max_topup, methods)))
    if sold.redeem:
        found.append(view.redeeming())
    found.append(view.orders(own.orders, zone))
    return guest.page(say("topup"), *found, status=fault.status if fault else 200, fault=fault)


def _methods(sold: TopUp) -> list[tuple[str, str]]:
    found = [] if sold.easypay is None else [*sold.easypay.methods.items()]
    return found if sold.wechat is None else [*found, (SCANNED, "WeChat Pay")]


def _fits(amount: int, sold: TopUp) -> bool:
    return sold.min_topup <= amount <= sold.max_topup


def _quote(shopper: dashboard.Guest, amount: int) -> Quote:
    """What whole USD of credit cost. Raises Refused."""
    return topup.quote(amount, shopper.sold, shopper.holder.user.group, raw=False)


def _price(shopper: dashboard.Guest, amount: int) -> str:
    try:
        return _told(shopper, _quote(shopper, amount))
    except Refused:
        return ""


def _told(shopper: dashboard.Guest, quote: Quote) -> str:
    return f"{quote.text} {shopper.sold.currency}"


async def _buy(guest: Guest) -> Shown:
    """Begins an order. What is wrong is told beside the form."""
    shopper = await _shopper(guest)
    fields = await browser.form(guest.call, guest.share)
    sold, text = shopper.sold, fields.get("other", "").strip() or fields.get("amount", "")
    try:
        if not (text.isascii() and text.isdecimal() and len(text) < 9 and _fits(int(text), sold)):
            raise _wrong(say("topup_bad_amount", least=view.credit(sold.min_topup), most=view.credit(sold.max_topup)))
        method = fields.get("method", "")
        if method not in dict(_methods(sold)):
            raise _wrong(say("topup_bad_method"))
        return await _ordered(guest, shopper, _quote(shopper, int(text)), method)
    except Refused as refused:
        fault = _wrong(_words(str(refused)))
    except ClientError as wrong:
        fault = wrong
    return await _page(guest, shopper, fault.message, fault)


async def _ordered(guest: Guest, shopper: dashboard.Guest, quote: Quote, method: str) -> Shown:
    price = _told(shopper, quote)
    if method == SCANNED:
        from newapi_proxy.web import wechat_routes

        code, number = await wechat_routes.ordered(shopper, quote)
        return guest.page(say("checkout"), view.scan(quote.amount, price, code, number))
    answer = await topup_routes.ordered(shopper, quote, method)
    content = view.checkout(quote.amount, price, answer["url"], answer["data"])
    # a gateway sends the form on to other addresses, which browsers hold against the policy as well
    schemes = "https: http:" if urlsplit(answer["url"]).scheme == "http" else "https:"
    return guest.page(say("checkout"), content, allow=f"form-action 'self' {schemes}")


def _wrong(message: str) -> ClientError:
    return ClientError(message, code="not_sold")


def _words(refused: str) -> str:
    """Why, in the pages' words; what has none of its own is in English already."""
    key = _WORDS.get(refused)
    return say(key) if key is not None else refused


async def _redeem(guest: Guest) -> Shown:
    shopper = await _shopper(guest)
    if not shopper.sold.redeem:
        raise ClientError(say("error_no_page"), status=404, kind="not_found", code="unknown_path")
    fields = await browser.form(guest.call, guest.share)
    try:
        await topup_routes.redeemed(shopper, fields.get("code"))
    except Refused as refused:
        fault = _wrong(_words(str(refused)))
        return await _page(guest, shopper, fault.message, fault)
    return guest.away("topup?said=redeemed")


async def _order(guest: Guest, recent: Any) -> Shown:
    """One order of one's own; an open one is looked after again."""
    shopper, number = await _shopper(guest), guest.asked("trade_no")
    db = guest.edge.house.db
    order = await db.read(lambda conn: orders.find(conn, number)) if 0 < len(number) <= topup.LONGEST else None
    if order is None or (order.user_id, order.token_id) != shopper.holder.whose:
        raise ClientError(say("order_unknown"), status=404, kind="not_found", code="order_unknown")
    if order.status == orders.PENDING and recent is not None:
        from newapi_proxy.web import wechat_routes

        try:
            order = msgspec.structs.replace(order, status=await wechat_routes.state(shopper, recent, number))
        except Refused:
            pass  # it is another gateway's
    shown = guest.page(say("order"), view.order(order, guest.zone))
    if order.status != orders.PENDING:
        return shown
    return msgspec.structs.replace(shown, headers=(*shown.headers, *AGAIN))
