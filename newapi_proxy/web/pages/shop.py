"""Buying credit: what is sold, the way to the payment, a code to scan, an order's state, codes to redeem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from zoneinfo import ZoneInfo

import msgspec

from newapi_proxy.billing.prices import UNITS_PER_USD
from newapi_proxy.store.orders import EXPIRED, FAILED, PENDING, SUCCESS, Order
from newapi_proxy.web.pages import qr
from newapi_proxy.web.pages.layout import Column, message, post, table
from newapi_proxy.web.pages.markup import NOTHING, Content, Html, element, joined
from newapi_proxy.web.pages.words import moment, money, say

_STATUS = {PENDING: "order_pending", SUCCESS: "order_success", FAILED: "order_failed", EXPIRED: "order_expired"}


class Choice(msgspec.Struct, frozen=True):
    """An amount of whole USD, and what it costs as text."""

    amount: int
    price: str


class Sale(msgspec.Struct, frozen=True):
    """What is on offer: amounts with their prices, the bounds of others, methods with their names."""

    choices: Sequence[Choice]
    least: int
    most: int
    methods: Sequence[tuple[str, str]]


def credit(amount: int) -> str:
    """Whole USD of credit."""
    return money(amount * UNITS_PER_USD)


def top(said: str, left: int, *, account: bool, wrong: bool = False) -> Html:
    """What has happened, and the balance that credit goes to."""
    told = message(said, wrong=wrong) if said else NOTHING
    tile = element("div", element("b", money(left)), element("span", say("balance")), class_="tile")
    lead = element("p", say("topup_account" if account else "topup_key"))
    return joined(told, element("div", tile, class_="tiles"), lead)


def sale(found: Sale) -> Html:
    """The form that begins an order."""
    amounts = [
        _radio("amount", str(one.amount), say("topup_price", credit=credit(one.amount), money=one.price), place == 0)
        for place, one in enumerate(found.choices)
    ]
    methods = [_radio("method", name, told, place == 0) for place, (name, told) in enumerate(found.methods)]
    other = element(
        "input",
        id="other",
        name="other",
        type="number",
        min=found.least,
        max=found.most,
        step=1,
        inputmode="numeric",
        aria_describedby="other-hint",
    )
    hint = say("topup_other_hint", least=credit(found.least), most=credit(found.most))
    form = post(
        "topup",
        element("fieldset", element("legend", say("topup_amount")), element("div", amounts, class_="choices")),
        element("label", say("topup_other"), for_="other"),
        other,
        element("p", hint, id="other-hint", class_="hint"),
        element("fieldset", element("legend", say("topup_method")), element("div", methods, class_="choices")),
        element("button", say("topup_go"), type="submit"),
    )
    return element("section", element("h2", say("topup_buy")), form, class_="card")


def _radio(name: str, value: str, told: str, chosen: bool) -> Html:
    entry = element("input", type="radio", name=name, value=value, checked=chosen)
    return element("label", entry, told)


def redeeming() -> Html:
    """The form for a code."""
    entry = element(
        "input", id="code", name="code", required=True, autocomplete="off", spellcheck="false", maxlength=64
    )
    label = element("label", say("topup_code_label"), for_="code")
    button = element("button", say("topup_redeem"), type="submit")
    form = post("topup/redeem", label, element("div", entry, button, class_="line"))
    return element("section", element("h2", say("topup_code")), form, class_="card")


def orders(found: Sequence[Order], zone: ZoneInfo) -> Html:
    """One's own orders, the newest first."""
    head = element("h2", say("topup_orders"))
    if not found:
        return joined(head, element("p", say("topup_orders_none")))
    columns = (
        Column(say("time")),
        Column(say("order_credit"), figures=True),
        Column(say("order_money"), figures=True),
        Column(say("order_status")),
        Column(say("order")),
    )
    return joined(head, table(columns, [_order(one, zone) for one in found], say("topup_orders")))


def _order(one: Order, zone: ZoneInfo) -> tuple[Content, ...]:
    status = say(_STATUS[one.status]) if one.status in _STATUS else one.status
    paid = f"{one.money_minor / 100:,.2f} {one.currency}".strip()
    link = element("a", one.trade_no, href=f"topup/order?trade_no={one.trade_no}", class_="code")
    return (moment(one.created, zone), credit(one.amount), paid, status, link)


def checkout(amount: int, price: str, url: str, fields: Mapping[str, str]) -> Html:
    """The gateway's form, which the browser takes there."""
    hidden = [element("input", type="hidden", name=name, value=value) for name, value in fields.items()]
    button = element("button", say("checkout_pay", money=price), type="submit")
    lead = element("p", say("checkout_lead", credit=credit(amount), money=price))
    return joined(lead, element("form", hidden, button, method="post", action=url), _back())


def scan(amount: int, price: str, code: str, number: str) -> Html:
    """The code that is paid by scanning it."""
    lead = element("p", say("scan_lead", credit=credit(amount), money=price))
    drawn = qr.picture(code, say("scan_label", code=code))
    link = element("p", say("scan_link"), element("a", code, href=code, class_="code"))
    done = element("a", say("scan_done"), href=f"topup/order?trade_no={number}", class_="button")
    return joined(lead, drawn, link, element("p", done), _back())


def order(one: Order, zone: ZoneInfo) -> Html:
    """One order's state, in words."""
    said = {PENDING: "order_waiting", SUCCESS: "order_paid"}.get(one.status, "order_over")
    told = message(say(said), wrong=said == "order_over")
    again = element("a", say("order_check"), href=f"topup/order?trade_no={one.trade_no}", class_="button")
    return joined(told, orders([one], zone), element("p", again) if one.status == PENDING else None, _back())


def _back() -> Html:
    return element("p", element("a", say("back"), href="topup"))
