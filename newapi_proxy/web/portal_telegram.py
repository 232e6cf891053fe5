"""Signing in by Telegram, and tying its account to a key's holder: New API's two routes, and the pages' own way.

The pages' way back from the widget is an address that only the browser which asked for the widget has a cookie for, so
nobody can be led to sign in as somebody else, or to tie somebody else's account. New API's routes are believed where
the request comes from our own pages, or brings the header that its pages send. Source: tasks-and-accounts 7.1, T-18.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from multidict import istr

from newapi_proxy import log, metrics
from newapi_proxy.accounts import sessions, telegram
from newapi_proxy.config.portal import Telegram
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.snapshot import Token
from newapi_proxy.store import logins, users
from newapi_proxy.store import sessions as rows
from newapi_proxy.store.users import User
from newapi_proxy.web import browser, dashboard, keys, portal
from newapi_proxy.web.account_routes import Pace
from newapi_proxy.web.app import Action, wait
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.pages import signing
from newapi_proxy.web.pages.markup import NOTHING, element
from newapi_proxy.web.pages.words import say
from newapi_proxy.web.portal import SETTING, SIGNINS, USAGE, Account, Guest, KeyHolder
from newapi_proxy.web.router import Route
from newapi_proxy.wire import tree

NAME: Final = "Telegram"
TICKET: Final = "ticket"  # the cookie that says which browser has asked for the widget
TICKET_SECONDS: Final = 600
_USER: Final = istr("New-Api-User")
_OFF: Final = "管理员未开启通过 Telegram 登录以及注册"
_WRONG: Final = "无效的请求"
_UNBOUND: Final = "该 Telegram 账户未绑定"
_TAKEN: Final = "该 Telegram 账户已被绑定"
_GONE: Final = "用户已注销"
_BANNED: Final = "用户已被封禁"
_JSON: Final = (("Content-Type", "application/json"),)
_ZERO: Final[dict[str, Any]] = {
    "password": "", "email": "", "github_id": "", "wechat_id": "", "telegram_id": "", "verification_code": "",
    "access_token": None, "quota": 0, "used_quota": 0, "request_count": 0, "aff_code": "", "aff_count": 0,
    "aff_quota": 0, "aff_history_quota": 0, "inviter_id": 0, "DeletedAt": None,
}  # fmt: skip
_ALLOW: Final = f"form-action 'self'; script-src {telegram.SCRIPTS}; frame-src {telegram.FRAMES}"
_SAID: Final = {"bound": "said_bound", "unbound": "said_unbound"}


class Refusal(msgspec.Struct, frozen=True):
    """Why nobody is signed in or tied: New API's words, ours, and the code of the log."""

    theirs: str
    ours: str
    code: str
    status: int = 401


_REFUSED: Final = {
    "garbled": Refusal(_WRONG, "way_garbled", "login_garbled"),
    "sign": Refusal(_WRONG, "way_garbled", "login_sign"),
    "stale": Refusal(_WRONG, "way_stale", "login_stale"),
    "unbound": Refusal(_UNBOUND, "way_unbound", "login_unbound"),
    "banned": Refusal(_BANNED, "way_banned", "user_disabled", 403),
    "taken": Refusal(_TAKEN, "way_taken", "login_taken", 409),
    "gone": Refusal(_GONE, "way_banned", "user_gone", 403),
}
_OFFERED: Final = Refusal(_OFF, "error_no_page", "login_off", 404)


class _Refused(Exception):
    def __init__(self, why: Refusal) -> None:
        super().__init__(why.code)
        self.why = why


def ways(guest: Guest) -> tuple[tuple[str, str], ...]:
    """What the form for a key says of this way, nothing where it is not offered."""
    return ((say("way_in", name=NAME), "login/telegram"),) if guest.portal.telegram is not None else ()


def routes(pace: Pace, attempts: Pace) -> list[Route[Action]]:
    """The pages' routes, and New API's."""
    return [
        Route("/login/telegram", {"GET": portal.action(_ask, pace)}),
        Route("/login/telegram/{ticket}", {"GET": portal.action(_returned(_sign_in), pace, attempts)}),
        Route("/setting", {"GET": portal.action(_setting, pace)}),
        Route("/setting/telegram", {"GET": portal.action(_ask_to_bind, pace)}),
        Route("/setting/telegram/unbind", {"POST": portal.action(_unbind, pace)}),
        Route("/setting/telegram/{ticket}", {"GET": portal.action(_returned(_bind), pace, attempts)}),
        Route("/api/oauth/telegram/login", {"GET": portal.action(_told(_sign_in_told), pace, attempts, told=_plain)}),
        Route("/api/oauth/telegram/bind", {"GET": portal.action(_told(_bind_told), pace, attempts, told=_plain)}),
    ]


def _bot(guest: Guest) -> Telegram:
    """The bot. Raises _Refused where this way is not offered."""
    if guest.portal.telegram is None:
        raise _Refused(_OFFERED)
    return guest.portal.telegram


def _page(guest: Guest, title: str, path: str, lead: str) -> Shown:
    """The page with the widget, and the cookie without which its way back leads nowhere."""
    ticket = secrets.token_urlsafe(16)
    back = f"{browser.address(guest.config, guest.call.arrival)}/{path}/{ticket}"
    script = element(
        "script",
        NOTHING,
        src=telegram.WIDGET,
        async_=True,
        data_telegram_login=_bot(guest).bot,
        data_size="large",
        data_auth_url=back,
    )
    shown = guest.page(title, signing.widget(lead, NAME, script), allow=_ALLOW)
    cookie = browser.cookie(guest.config, guest.call.arrival, ticket, TICKET_SECONDS, TICKET)
    return msgspec.structs.replace(shown, cookies=(cookie,))


async def _ask(guest: Guest) -> Shown:
    _offered(guest)
    return _page(guest, say("way_title", name=NAME), "login/telegram", say("way_lead", name=NAME))


async def _ask_to_bind(guest: Guest) -> Shown:
    _offered(guest)
    portal.holder(guest)
    return _page(guest, say("setting_title"), "setting/telegram", say("bind_lead", name=NAME))


def _offered(guest: Guest) -> None:
    """Raises ClientError 404 where this way is not offered."""
    if guest.portal.telegram is None:
        raise ClientError(say("error_no_page"), status=404, kind="not_found", code="unknown_path")


def _returned(serve: Callable[[Guest], Awaitable[Shown]]) -> portal.Serve:
    """The way back from the widget, for the browser that it was shown to; refusals in our words."""

    async def back(guest: Guest) -> Shown:
        _offered(guest)
        ticket = browser.kept(guest.call.arrival.headers, TICKET)
        over = browser.cookie(guest.config, guest.call.arrival, "", 0, TICKET)
        try:
            if not ticket or not hmac.compare_digest(ticket.encode(), guest.call.tail.encode()):
                raise _Refused(_REFUSED["stale"])
            shown = await serve(guest)
        except _Refused as refused:
            why = refused.why
            metrics.count(SIGNINS, telegram.WAY, why.code)
            fault = ClientError(
                say(why.ours, **_named(why.ours)), status=why.status, kind="unauthorized", code=why.code
            )
            shown = portal.failure(guest, fault)
        return msgspec.structs.replace(shown, cookies=(*shown.cookies, over))

    return back


def _named(key: str) -> dict[str, str]:
    return {"name": NAME} if key in ("way_unbound", "way_taken") else {}


async def _believed(guest: Guest) -> telegram.Person:
    """Who comes from Telegram, once. Raises _Refused, OurError."""
    bot, at = _bot(guest), guest.at
    found = telegram.person(guest.call.query, bot.token.reveal(), guest.edge.house.clock.wall())
    if not isinstance(found, telegram.Person):
        raise _Refused(_REFUSED[found])
    if not await guest.edge.house.db.write(rows.begin, sessions.used(found.proof, at, 2 * telegram.FRESH)):
        raise _Refused(_REFUSED["stale"])
    return found


async def _entered(guest: Guest) -> tuple[User | Token, str]:
    """Whom the account signs in, and the cookie of the session. Raises _Refused, OurError."""
    person = await _believed(guest)
    found = await guest.edge.house.db.read(lambda conn: logins.find(conn, telegram.COLUMN, person.id))
    if isinstance(found, User):
        if found.status != users.ENABLED:
            raise _Refused(_REFUSED["banned"])
        cookie = await portal.begin(guest, sessions.USER, lambda _: str(found.id))
        metrics.count(SIGNINS, telegram.WAY, "ok")
        return found, cookie
    token = guest.snapshot.tokens.get(bytes.fromhex(found)) if found is not None else None
    if found is None or token is None:
        raise _Refused(_REFUSED["unbound"])
    try:
        keys.admit(token, guest.call.visit.client_ip, guest.edge.house.clock.wall(), drained=True)
    except ClientError:
        raise _Refused(_REFUSED["banned"]) from None
    cookie = await portal.begin(guest, sessions.KEY, lambda _: found)
    metrics.count(SIGNINS, telegram.WAY, "ok")
    return token, cookie


async def _sign_in(guest: Guest) -> Shown:
    who, cookie = await _entered(guest)
    return msgspec.structs.replace(guest.away(USAGE, (cookie,)), token=who if isinstance(who, Token) else None)


def _who(guest: Guest, id: str = "") -> logins.Login:
    """Whom an account is to stand for. Raises what sends the browser elsewhere where nobody is signed in."""
    match portal.holder(guest):
        case Account(user):
            return logins.Login(telegram.COLUMN, id, user.id, "")
        case KeyHolder(token, digest):
            return logins.Login(telegram.COLUMN, id, token.account.user_id if token.account.user_limited else 0, digest)


async def _tied(guest: Guest) -> None:
    """Ties the account to who is signed in. Raises _Refused, OurError."""
    portal.holder(guest)
    one = _who(guest, (await _believed(guest)).id)
    verdict = await dashboard.committed(guest.edge.house.db, logins.bind, one)
    if verdict != "bound":
        raise _Refused(_REFUSED[verdict])
    _tell(guest, one, bound=True)


def _tell(guest: Guest, one: logins.Login, *, bound: bool) -> None:
    visit = guest.call.visit
    log.logger().info(
        "login_bound",
        request_id=visit.request_id,
        way=telegram.WAY,
        bound=bound,
        user_id=one.user_id or None,
        token=visit.token.name if visit.token is not None else None,
        client_ip=visit.client_ip,
    )


async def _bind(guest: Guest) -> Shown:
    await _tied(guest)
    return guest.away(f"{SETTING}?said=bound")


async def _unbind(guest: Guest) -> Shown:
    _offered(guest)
    one = _who(guest)
    if await dashboard.committed(guest.edge.house.db, logins.unbind, one):
        _tell(guest, one, bound=False)
    return guest.away(f"{SETTING}?said=unbound")


async def _setting(guest: Guest) -> Shown:
    _offered(guest)
    one = _who(guest)
    bound = await guest.edge.house.db.read(lambda conn: logins.told(conn, one))
    said = _SAID.get(guest.asked("said"))
    return guest.page(say("setting_title"), signing.bindings(say(said) if said else "", bound, NAME))


def _told(serve: Callable[[Guest], Awaitable[Shown]]) -> portal.Serve:
    """A route of New API's, whose refusals have its words and status 200."""

    async def answer(guest: Guest) -> Shown:
        try:
            return await serve(guest)
        except _Refused as refused:
            why = refused.why
            metrics.count(SIGNINS, telegram.WAY, why.code)
            fault = ClientError(why.theirs, status=why.status, code=why.code)
            return msgspec.structs.replace(_plain(guest, fault), status=200)

    return answer


def _plain(guest: Guest, fault: ProxyError) -> Shown:
    """A refusal as New API's pages read it."""
    status = 200 if isinstance(fault, OurError) else fault.status
    headers = (*_JSON, *wait(fault))
    return Shown(status=status, body=tree.encode(dashboard.failed(fault.message)), headers=headers, fault=fault)


def _here(guest: Guest) -> None:
    """Lets on who comes from a page of ours, or is a program that says whose it is. Raises ClientError 401."""
    arrival = guest.call.arrival
    if _USER not in arrival.headers and not browser.own(guest.config, arrival, proven=True):
        raise ClientError(dashboard.NO_HEADER, status=401, kind="unauthorized", code=portal.FOREIGN)


async def _sign_in_told(guest: Guest) -> Shown:
    _bot(guest)
    _here(guest)
    who, cookie = await _entered(guest)
    data = tree.encode({"success": True, "message": "", "data": _ZERO | _known(who)})
    return Shown(body=data, headers=_JSON, cookies=(cookie,))


def _known(who: User | Token) -> dict[str, Any]:
    if isinstance(who, User):
        facts = {"id": who.id, "username": who.username, "display_name": who.display_name, "group": who.group}
        return {**facts, "role": who.role, "status": who.status}
    facts = {"id": who.account.user_id, "username": who.name, "display_name": who.name, "group": who.group}
    return {**facts, "role": 1, "status": users.ENABLED}


async def _bind_told(guest: Guest) -> Shown:
    _bot(guest)
    match guest.visitor:
        case Account(user):
            id = user.id
        case KeyHolder(token):
            id = token.account.user_id
        case portal.Operator() | None:
            raise ClientError(dashboard.NOBODY, status=401, kind="unauthorized", code="not_logged_in")
    _here(guest)
    dashboard.same(id, guest.call.arrival.headers.get(_USER))
    await _tied(guest)
    return msgspec.structs.replace(guest.away(SETTING), status=302)
