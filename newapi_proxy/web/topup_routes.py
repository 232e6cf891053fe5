"""Credit over HTTP: orders paid by an EasyPay gateway, codes redeemed, orders told.

Loaded by the first request to one of its routes, where the configuration sells credit. Knows paths, bodies and answers;
prices and signatures stand in `accounts`, what is credited in `billing.credits`. A gateway's notice is answered
`success` only when what it says is in the database. Source: tasks-and-accounts 6.
"""

from __future__ import annotations

import secrets
import string
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.accounts import easypay, topup
from newapi_proxy.accounts.topup import Quote, Refused
from newapi_proxy.billing import credits
from newapi_proxy.billing.prices import UNITS_PER_USD
from newapi_proxy.config.model import Config
from newapi_proxy.config.portal import EasyPay, TopUp
from newapi_proxy.errors import ClientError
from newapi_proxy.store import options, orders
from newapi_proxy.web import body, browser, dashboard
from newapi_proxy.web.account_routes import Answer, Pace
from newapi_proxy.web.app import Action, Call, Edge, bare_404
from newapi_proxy.web.dashboard import Guest, Page, committed, failed, heard, unsold
from newapi_proxy.web.relay_routes import received
from newapi_proxy.web.router import Route

ORDERS: Final = "newapi_topups_total"
TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
BACK: Final = b"Thank you. What you have paid for is on your balance as soon as the gateway has told us.\n"
_LETTERS: Final = string.ascii_letters + string.digits
_MONTH: Final = 30 * 86400  # how far back a search goes; older orders are told without one
_MOST_ROWS: Final = 100
_ROWS: Final = 10
_LONGEST_WORD: Final = 64
_GROUP: Final = "获取用户分组失败"


def routes() -> list[Route[Action]]:
    """Everything but what belongs to a gateway with routes of its own."""
    pace = Pace()
    pages: dict[tuple[str, str], Page] = {
        ("POST", "/api/user/amount"): Page(wanted=_easypay, serve=priced, refused=unsold, broken=_GROUP),
        ("POST", "/api/user/pay"): Page(wanted=_easypay, serve=_pay, refused=unsold, broken=topup.NOT_MADE),
        ("POST", "/api/user/topup"): Page(wanted=_codes, serve=_redeem, refused=failed),
        ("GET", "/api/user/topup/info"): Page(wanted=_any, serve=_info, refused=failed),
        ("GET", "/api/user/topup/self"): Page(wanted=_any, serve=_own, refused=failed, personal=True),
        ("GET", "/api/user/topup"): Page(wanted=_any, serve=_all, refused=failed, admin=True),
        ("POST", "/api/user/topup/complete"): Page(wanted=_any, serve=_complete, refused=failed, admin=True),
    }
    return [
        *(Route(path, {method: dashboard.action(page, pace)}) for (method, path), page in pages.items()),
        Route(easypay.NOTIFY, {"GET": _notified, "POST": _notified}),
        Route(easypay.RETURN, {"GET": _back}),
    ]


def _easypay(sold: TopUp) -> bool:
    return sold.easypay is not None


def _codes(sold: TopUp) -> bool:
    return sold.redeem


def _any(sold: TopUp) -> bool:
    return True


async def asked(guest: Guest, fields: dict[str, Any]) -> Quote:
    """What the amount costs who asks. Raises Refused, OurError where the database does not answer."""
    raw = not await guest.edge.house.db.read(lambda conn: options.flag(conn, "DisplayInCurrencyEnabled", True))
    return topup.quote(fields.get("amount"), guest.sold, guest.holder.user.group, raw=raw)


async def priced(guest: Guest) -> Answer:
    """What an amount costs."""
    return {"message": "success", "data": (await asked(guest, await guest.fields())).text}


async def begun(guest: Guest, quote: Quote, provider: str, method: str) -> orders.Order:
    """An order that is in the database. Raises Refused, OurError where it could not be written."""
    user_id, token_id = guest.holder.whose
    chance = "".join(secrets.choice(_LETTERS) for _ in range(6))
    order = orders.Order(
        user_id=user_id,
        token_id=token_id,
        amount=quote.units // UNITS_PER_USD,
        quota=quote.units,
        money_minor=quote.minor,
        currency=guest.sold.currency,
        trade_no=topup.trade_no(user_id, chance, guest.at),
        method=method,
        provider=provider,
        created=guest.at,
    )
    id = await committed(guest.edge.house.db, orders.begin, order)
    if not id:
        raise Refused(topup.TOO_MANY)
    metrics.count(ORDERS, provider, "begun")
    return msgspec.structs.replace(order, id=id)


async def _pay(guest: Guest) -> Answer:
    fields = await guest.fields()
    wanted = fields.get("payment_method", "")
    if not isinstance(wanted, str):
        raise Refused(topup.BAD_REQUEST)
    return await ordered(guest, await asked(guest, fields), wanted)


async def ordered(guest: Guest, quote: Quote, wanted: str) -> Answer:
    """An order by the EasyPay gateway: `url`, and the form's fields as `data`. Raises Refused, OurError."""
    gateway = guest.sold.easypay
    assert gateway is not None
    method = easypay.method(wanted, gateway)
    if method is None:
        raise Refused(topup.NO_METHOD)
    order = await begun(guest, quote, easypay.PROVIDER, method)
    form = easypay.Form(order.trade_no, method, topup.subject(quote.amount), quote.text, own(guest.config))
    return {"message": "success", "url": easypay.target(gateway), "data": easypay.form(form, gateway)}


def own(config: Config) -> str:
    """Our own address, which the configuration's check has asked for."""
    return (config.public_url or "").rstrip("/")


async def _notified(edge: Edge, call: Call) -> None:
    """A gateway's notice: plain `success` ends its repetitions, anything else does not."""
    sold = dashboard.selling(edge)
    gateway = sold.easypay if sold is not None else None
    if sold is None or gateway is None:
        bare_404(edge, call)
        return
    currency = sold.currency

    async def work(share: body.Share) -> ClientError | None:
        return await _noticed(edge, call, share, gateway, currency)

    fault = await heard(edge, call, dashboard.MOST_BODY, work)
    call.arrival.reply.whole(200, TEXT, easypay.PAID if fault is None else easypay.REFUSED)
    edge.note(call.visit, fault, status=200)


async def _noticed(edge: Edge, call: Call, share: body.Share, gateway: EasyPay, currency: str) -> ClientError | None:
    """Why a notice is not to be acknowledged, None where it is. Raises what reading and writing raise."""
    query = call.query
    if call.arrival.method == "POST":
        form = (await received(call, share)).decode("utf-8", "surrogateescape")
        query = "&".join(part for part in (query, form) if part)
    found = easypay.notice(query, gateway)
    if not isinstance(found, easypay.Notice):
        return ClientError("The notice is not to be believed.", code=f"notice_{found}")
    if not found.paid:
        return None
    payment = credits.Payment(
        trade_no=found.trade_no,
        provider=easypay.PROVIDER,
        currency=currency,
        money_minor=-1 if found.money_minor is None else found.money_minor,
        at=int(edge.house.clock.wall()),
        provider_trade_no=found.provider_trade_no,
    )
    return settled(payment, await committed(edge.house.db, credits.pay, payment))


def counted(provider: str, outcome: str, units: int) -> None:
    """A notice or a code came, with this outcome; `units` were credited by it."""
    metrics.count(ORDERS, provider, outcome)
    if units:
        metrics.count("newapi_topup_quota_total", provider, amount=units)


def settled(payment: credits.Payment, paid: credits.Paid) -> ClientError | None:
    """Counts and tells what became of a payment; why it is refused, None where it is credited now or was before."""
    provider = payment.provider or "operator"
    counted(provider, paid.verdict, paid.units)
    order = paid.order
    if paid.verdict == "paid" and order is not None:
        log.logger().info(
            "topup_paid",
            trade_no=order.trade_no,
            provider=provider,
            user_id=order.user_id,
            token_id=order.token_id,
            quota=paid.units,
            money_minor=order.money_minor,
            currency=order.currency,
        )
    if paid.verdict in ("paid", "again"):
        return None
    log.logger().warning("topup_refused", trade_no=payment.trade_no, provider=provider, reason=paid.verdict)
    return ClientError("The order cannot be paid so.", code=f"notice_{paid.verdict}")


async def _back(edge: Edge, call: Call) -> None:
    """Where the browser comes back to, and goes on to our page where somebody is signed in. It brings signed parameters
    along, which credit nothing here."""
    if dashboard.selling(edge) is None:
        bare_404(edge, call)
        return
    if browser.kept(call.arrival.headers):
        on = browser.elsewhere(edge.house.snapshot.config, "topup?said=returned")
        call.arrival.reply.page(on.status, on.head(), on.body)
        edge.note(call.visit, status=on.status)
        return
    call.arrival.reply.whole(200, TEXT, BACK)
    edge.note(call.visit)


async def _redeem(guest: Guest) -> Answer:
    units = await redeemed(guest, (await guest.fields()).get("key"))
    return {"success": True, "message": "", "data": units}


async def redeemed(guest: Guest, key: Any) -> int:
    """The units that a code was worth, credited now. Raises Refused, OurError."""
    if not isinstance(key, str) or not key.strip():
        raise Refused(topup.NO_CODE)
    key = key.strip()
    if len(key) > _LONGEST_WORD or not key.isascii() or not key.isprintable():
        raise Refused(topup.NOT_REDEEMED["unknown"])
    user_id, token_id = guest.holder.whose
    wanted = credits.Redeem(key, user_id, token_id, guest.at)
    verdict, units = await committed(guest.edge.house.db, credits.redeem, wanted)
    counted("code", verdict, units)
    if verdict != "redeemed":
        raise Refused(topup.NOT_REDEEMED[verdict])
    log.logger().info("topup_paid", provider="code", user_id=user_id, token_id=token_id, quota=units)
    return units


async def _info(guest: Guest) -> Answer:
    """What a page needs to know in order to offer credit."""
    sold = guest.sold
    methods = [] if sold.easypay is None else [*sold.easypay.methods.items()]
    methods += [] if sold.wechat is None else [("wechat_native", "WeChat Pay")]
    data = {
        "enable_online_topup": sold.easypay is not None,
        "enable_wechatpay_topup": sold.wechat is not None,
        "enable_stripe_topup": False,
        "enable_redemption": sold.redeem,
        "pay_methods": [{"name": name, "type": kind, "min_topup": str(sold.min_topup)} for kind, name in methods],
        "min_topup": sold.min_topup,
        "max_topup": sold.max_topup,
        "price": sold.price,
        "currency": sold.currency,
        "amount_options": sold.amounts,
        "discount": {str(amount): factor for amount, factor in sold.discounts.items()},
    }
    return {"success": True, "message": "", "data": data}


async def _own(guest: Guest) -> Answer:
    return await _listed(guest, guest.holder.whose)


async def _all(guest: Guest) -> Answer:
    return await _listed(guest, None)


async def _listed(guest: Guest, whose: tuple[int, int] | None) -> Answer:
    """A page of orders, the newest first (8.2, the later style); a keyword is looked for in the last month's."""
    query = guest.call.query
    keyword = wanted(query, "keyword")
    page = _positive(wanted(query, "p"), 1)
    size = min(_MOST_ROWS, _positive(wanted(query, "page_size", "size", "ps"), _ROWS))
    since = guest.at - _MONTH if keyword else 0
    span = ((page - 1) * size, size)
    found = await guest.edge.house.db.read(lambda conn: orders.listed(conn, whose, keyword, since, span))
    items = [_row(one) for one in found.orders]
    return {
        "success": True,
        "message": "",
        "data": {"page": page, "page_size": size, "total": found.total, "items": items},
    }


def wanted(query: str, *names: str) -> str:
    """What a query says under the first of these names that it has; "" where there is none, or no plain text."""
    try:
        given = dict(parse_qsl(query, max_num_fields=20))
    except ValueError:
        return ""
    found = next((given[name] for name in names if name in given), "")
    return found if len(found) <= _LONGEST_WORD and found.isascii() and found.isprintable() else ""


def _positive(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else otherwise


def _row(order: orders.Order) -> Answer:
    return {
        "id": order.id,
        "user_id": order.user_id,
        "amount": order.amount,
        "money": order.money_minor / 100,
        "trade_no": order.trade_no,
        "payment_method": order.method,
        "payment_provider": order.provider,
        "create_time": order.created,
        "complete_time": order.completed,
        "status": order.status,
    }


async def _complete(guest: Guest) -> Answer:
    """An administrator vouches for an order whose notice never came."""
    number = (await guest.fields()).get("trade_no")
    if not isinstance(number, str) or not number or len(number) > _LONGEST_WORD or not number.isprintable():
        raise Refused(topup.BAD_REQUEST)
    payment = credits.Payment(trade_no=number, at=guest.at)
    fault = settled(payment, await committed(guest.edge.house.db, credits.pay, payment))
    if fault is not None:
        raise Refused(fault.message)
    return {"success": True, "message": "", "data": None}
