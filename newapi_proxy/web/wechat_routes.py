"""Credit sold by WeChat Pay: an order as a code to scan, its state, and the notice that it was paid.

Loaded by the first request to one of its routes, where the configuration has such a gateway. Knows paths, calls and
statuses; signatures stand in `accounts.wechatpay`, orders and their credit are those of `topup_routes`. A notice that
is not taken gets 4xx or 5xx, as WeChat Pay takes any 200 for a yes. Source: tasks-and-accounts 6.7, traps T-27, T-44.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from newapi_proxy import log
from newapi_proxy.accounts import topup, wechatpay
from newapi_proxy.accounts.topup import Quote, Refused
from newapi_proxy.accounts.wechatpay import Transaction
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.billing import credits
from newapi_proxy.config.portal import TopUp, WechatPay
from newapi_proxy.errors import ClientError, UpstreamFailure
from newapi_proxy.ports import Interrupt, Patience, whole
from newapi_proxy.store import orders
from newapi_proxy.web import body, dashboard
from newapi_proxy.web.account_routes import Answer, Pace
from newapi_proxy.web.app import Action, Call, Edge, bare_404
from newapi_proxy.web.dashboard import Guest, Page, committed, heard, unsold
from newapi_proxy.web.relay_routes import received
from newapi_proxy.web.router import Route
from newapi_proxy.web.topup_routes import asked, begun, own, priced, settled, wanted
from newapi_proxy.wire import tree

MOST_NOTICE: Final = 64 * 1024
MOST_ANSWER: Final = 64 * 1024
BEGIN_SECONDS: Final = 10.0
ASK_SECONDS: Final = 3.0  # for one question, and between two about an order
CONNECT_SECONDS: Final = 3.0
MOST_ASKED: Final = 10_000  # orders whose last question is remembered
NO_ORDER: Final = "There is no such order."
_FAIL: Final = "FAIL"
_DOUBTED: Final = 401  # the status of a notice that is not WeChat Pay's


def routes() -> list[Route[Action]]:
    """The routes of this gateway."""
    pace, recent = Pace(), Recent()

    async def told(guest: Guest) -> Answer:
        return await _state(guest, recent)

    pages: dict[tuple[str, str], Page] = {
        ("POST", "/api/user/wechatpay/amount"): Page(wanted=_sold, serve=priced, refused=unsold, broken=topup.NOT_MADE),
        ("POST", "/api/user/wechatpay/native"): Page(
            wanted=_sold, serve=_native, refused=unsold, broken=topup.NOT_MADE
        ),
        ("GET", "/api/user/wechatpay/order"): Page(wanted=_sold, serve=told, refused=unsold),
    }
    made = [Route(path, {method: dashboard.action(page, pace)}) for (method, path), page in pages.items()]
    return [*made, Route(wechatpay.NOTIFY, {"POST": _notified})]


class Recent:
    """When each order was last asked after, so that a page that asks each second does not make us do so."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}

    def due(self, trade_no: str, now: float) -> bool:
        """Whether it may be asked after again; then it counts as asked. `now` in monotonic seconds."""
        last = self._asked.pop(trade_no, None)
        due = last is None or now - last >= ASK_SECONDS
        if len(self._asked) >= MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[trade_no] = now if due or last is None else last
        return due


def _sold(sold: TopUp) -> bool:
    return sold.wechat is not None


def _gateway(guest: Guest) -> WechatPay:
    gateway = guest.sold.wechat
    assert gateway is not None
    return gateway


async def _native(guest: Guest) -> Answer:
    fields = await guest.fields()
    if fields.get("payment_method", wechatpay.METHOD) != wechatpay.METHOD:
        raise Refused(topup.NO_METHOD)
    code, number = await ordered(guest, await asked(guest, fields))
    return {"message": "success", "data": {"code_url": code, "trade_no": number}}


async def ordered(guest: Guest, quote: Quote) -> tuple[str, str]:
    """An order: the code that its payer scans, and its number. Raises Refused, OurError."""
    gateway = _gateway(guest)
    order = await begun(guest, quote, wechatpay.PROVIDER, wechatpay.METHOD)
    notify = gateway.notify_url or own(guest.config) + wechatpay.NOTIFY
    data = wechatpay.order(gateway, order.trade_no, topup.subject(quote.amount), quote.minor, notify)
    told = await _called(guest.edge, gateway, ("POST", wechatpay.NATIVE, data), order.trade_no, BEGIN_SECONDS)
    code = told.get("code_url") if told is not None else None
    if not isinstance(code, str) or not code:
        await committed(guest.edge.house.db, orders.end, orders.End(order.id, orders.FAILED, guest.at))
        raise Refused(topup.NOT_BEGUN)
    return code, order.trade_no


async def _state(guest: Guest, recent: Recent) -> Answer:
    """An order of one's own."""
    return {"message": "success", "data": {"status": await state(guest, recent, wanted(guest.call.query, "trade_no"))}}


async def state(guest: Guest, recent: Recent, number: str) -> str:
    """The status of an order of the guest's; WeChat Pay is asked after one that is open, as its notice may be late or
    lost. Raises Refused, OurError."""
    db, clock = guest.edge.house.db, guest.edge.house.clock
    order = await db.read(lambda conn: orders.find(conn, number)) if number else None
    mine = order is not None and (order.user_id, order.token_id) == guest.holder.whose
    if order is None or not mine or order.provider != wechatpay.PROVIDER:
        raise Refused(NO_ORDER)
    if order.status == orders.PENDING and recent.due(number, clock.monotonic()):
        return await _asked_after(guest, order)
    return order.status


async def _asked_after(guest: Guest, order: orders.Order) -> str:
    gateway, db = _gateway(guest), guest.edge.house.db
    call = "GET", wechatpay.question(gateway, order.trade_no), b""
    told = await _called(guest.edge, gateway, call, order.trade_no, ASK_SECONDS)
    found = wechatpay.transaction(gateway, told)
    if not isinstance(found, Transaction) or found.trade_no != order.trade_no:
        return order.status
    if found.state == wechatpay.PAID:
        payment = _payment(found, guest.at)
        refused = settled(payment, await committed(db, credits.pay, payment))
        return orders.SUCCESS if refused is None else order.status
    ended = found.state in wechatpay.OVER
    if ended and await committed(db, orders.end, orders.End(order.id, orders.EXPIRED, guest.at)):
        return orders.EXPIRED
    return order.status


def _payment(found: Transaction, at: int) -> credits.Payment:
    return credits.Payment(
        trade_no=found.trade_no,
        provider=wechatpay.PROVIDER,
        currency=found.currency,
        money_minor=-1 if found.total is None else found.total,
        at=at,
        provider_trade_no=found.number,
    )


async def _called(
    edge: Edge, gateway: WechatPay, call: tuple[str, str, bytes], trade_no: str, seconds: float
) -> dict[str, Any] | None:
    """The answer's object, where there is one and it is WeChat Pay's; else None, with a line that says why."""
    house = edge.house
    method, path, data = call
    headers = wechatpay.headers(gateway, call, int(house.clock.wall()), secrets.token_hex(16))
    outgoing = Outgoing(url=gateway.address.rstrip("/") + path, body=data, headers=headers, method=method)
    try:
        patience = Patience(seconds, CONNECT_SECONDS, MOST_ANSWER)
        answer = await whole(house.client, outgoing, Interrupt(), patience)
        told, why = tree.lenient(answer.body), ""
        if not 200 <= answer.status < 300:
            code = told.get("code") if isinstance(told, dict) else None
            why = f"{answer.status} {code}" if isinstance(code, str) else str(answer.status)
        elif doubt := wechatpay.doubt(gateway, answer.headers, answer.body, house.clock.wall()):
            why = f"answer: {doubt}"
    except UpstreamFailure as failure:
        told, why = None, str(failure.code)
    if not why and isinstance(told, dict):
        return told
    log.logger().warning("topup_refused", trade_no=trade_no, provider=wechatpay.PROVIDER, reason=why or "garbled")
    return None


async def _notified(edge: Edge, call: Call) -> None:
    """A notice: 204 once it is in the database, or where nothing is to do; what gets anything else is repeated."""
    sold = dashboard.selling(edge)
    gateway = sold.wechat if sold is not None else None
    if gateway is None:
        bare_404(edge, call)
        return

    async def work(share: body.Share) -> ClientError | None:
        return await _noticed(edge, call, share, gateway)

    fault = await heard(edge, call, MOST_NOTICE, work)
    if fault is None:
        call.arrival.reply.whole(204, (), b"")
        edge.note(call.visit)
    else:
        told = tree.encode({"code": _FAIL, "message": fault.message})
        call.arrival.reply.whole(fault.status, (), told)
        edge.note(call.visit, fault)


async def _noticed(edge: Edge, call: Call, share: body.Share, gateway: WechatPay) -> ClientError | None:
    """Why a notice is not taken, None where it is. Raises what reading and writing raise."""
    now = edge.house.clock.wall()
    data = await received(call, share)
    if doubt := wechatpay.doubt(gateway, call.arrival.headers, data, now):
        return ClientError("The notice is not to be believed.", status=_DOUBTED, code=f"notice_{doubt}")
    found = wechatpay.notice(gateway, data)
    if found is None or (isinstance(found, Transaction) and found.state != wechatpay.PAID):
        return None
    if not isinstance(found, Transaction):
        return ClientError("The notice is not to be believed.", code=f"notice_{found}")
    payment = _payment(found, int(now))
    return settled(payment, await committed(edge.house.db, credits.pay, payment))
