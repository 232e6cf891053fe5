"""The pages' own routes: signing in with a key and out again, what a key's holder sees, the style.

Loaded by the first request for one of them, where the configuration has a portal. Knows paths and forms; figures come
from `accounts`, what is shown from `pages`. Source: decisions 4, tasks-and-accounts 0.3, 0.6, 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Final

import msgspec

from newapi_proxy import metrics
from newapi_proxy.accounts import sessions
from newapi_proxy.errors import ClientError
from newapi_proxy.snapshot import Token
from newapi_proxy.web import browser, holders, keys, operators, portal, portal_telegram
from newapi_proxy.web.account_routes import MOST, SPAN, Pace
from newapi_proxy.web.app import Action, Call, Edge
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.ops_routes import operates
from newapi_proxy.web.pages import layout, signing
from newapi_proxy.web.pages.words import say
from newapi_proxy.web.portal import DASHBOARD, LOGIN, SIGNINS, USAGE, Guest
from newapi_proxy.web.router import Route
from newapi_proxy.web.surveys import Surveys

ATTEMPTS: Final = 20  # to sign in, of one address within `WHILE` seconds (tasks-and-accounts 0.6)
WHILE: Final = 1200.0
STYLE: Final = (("Content-Type", "text/css; charset=utf-8"), ("Cache-Control", "public, max-age=86400"))
_LONGEST: Final = 512  # characters of what somebody enters for a key
_SAID: Final = {"over": "session_over", "out": "signed_out"}


def routes() -> list[Route[Action]]:
    """Every page that any portal has."""
    pace, attempts = Pace(MOST, SPAN), Pace(ATTEMPTS, WHILE)
    surveys = Surveys()
    pages: dict[str, portal.Serve] = {
        "/": _home,
        "/login": _login,
        "/usage": partial(holders.usage, surveys),
        "/usage.csv": partial(holders.sheet, surveys),
        "/requests/{id}": holders.request,
        "/requests": operators.search,
        "/dashboard": partial(operators.dashboard, surveys),
    }
    shown = [Route(path, _read(portal.action(serve, pace))) for path, serve in pages.items()]
    return [
        *shown,
        Route("/login", {"POST": portal.action(_signing_in(attempts), pace)}),
        Route("/logout", {"POST": portal.action(_sign_out, pace)}),
        Route("/pages/style.css", _read(_style)),
        *portal_telegram.routes(pace, attempts),
    ]


def _read(action: Action) -> Mapping[str, Action]:
    return {"GET": action, "HEAD": action}


async def _style(edge: Edge, call: Call) -> None:
    call.arrival.reply.page(200, (*STYLE, *browser.SAFE), layout.STYLE)
    edge.note(call.visit)


async def _home(guest: Guest) -> Shown:
    match guest.visitor:
        case None:
            return portal.to_login(guest)
        case portal.Operator():
            return guest.away(DASHBOARD)
        case portal.KeyHolder() | portal.Account():
            return guest.away(USAGE)


async def _login(guest: Guest) -> Shown:
    if guest.visitor is not None:
        return await _home(guest)
    said = _SAID.get(guest.asked("why"))
    return _form(guest, say(said) if said else "")


def _form(guest: Guest, message: str, fault: ClientError | None = None) -> Shown:
    content = signing.key(message, wrong=fault is not None, others=portal_telegram.ways(guest))
    return guest.page(say("sign_in"), content, status=fault.status if fault else 200, fault=fault)


def _signing_in(attempts: Pace) -> portal.Serve:
    """The form's way. What is refused counts as an attempt: an office that signs in at nine is nobody who guesses."""

    async def sign_in(guest: Guest) -> Shown:
        place, now = guest.call.visit.client_ip, guest.edge.house.clock.monotonic()
        attempts.check(place, now)
        text = (await browser.form(guest.call, guest.share)).get("key", "").strip()
        try:
            return await _sign_in(guest, text)
        except ClientError as fault:
            metrics.count(SIGNINS, sessions.KEY, str(fault.code))
            if text:
                attempts.count(place, now)
            return _form(guest, fault.message, fault)

    return sign_in


async def _sign_in(guest: Guest, text: str) -> Shown:
    """A key, or one of the operator's. The answer to every unknown key is the same. Raises ClientError."""
    edge, visit = guest.edge, guest.call.visit
    edge.guesses.check(visit.client_ip, visit.arrived)
    if not text:
        raise ClientError(say("sign_in_key_missing"), code="key_missing")
    if operates(edge, text):
        cookie = await portal.begin(guest, sessions.OPERATOR, lambda session: sessions.operator(session, text))
        metrics.count(SIGNINS, sessions.OPERATOR, "ok")
        return guest.away(DASHBOARD, (cookie,))
    token = _token(guest, text)
    cookie = await portal.begin(guest, sessions.KEY, lambda _: _digest(guest, text, token))
    metrics.count(SIGNINS, sessions.KEY, "ok")
    return msgspec.structs.replace(guest.away(USAGE, (cookie,)), token=token)


def _token(guest: Guest, text: str) -> Token:
    """Whose key it is. Raises ClientError in words for people."""
    edge, visit = guest.edge, guest.call.visit
    token = edge.keys.find(guest.snapshot, text) if len(text) <= _LONGEST else None
    if token is None:
        edge.guesses.note(visit.client_ip, [text], visit.arrived)
    if token is None or not token.enabled:
        raise ClientError(say("sign_in_unknown"), status=401, kind="unauthorized", code="invalid_api_key")
    now = edge.house.clock.wall()
    if token.expired or (token.expires is not None and token.expires < now):
        raise ClientError(say("sign_in_expired"), status=401, kind="unauthorized", code="key_expired")
    keys.admit(token, visit.client_ip, now, drained=True)
    return token


def _digest(guest: Guest, text: str, token: Token) -> str:
    """The digest under which the key stands, in hex."""
    bare = text.removeprefix("sk-")
    found = (sha256(form.encode("utf-8", "surrogateescape")).digest() for form in (bare, "sk-" + bare))
    return next(digest.hex() for digest in found if guest.snapshot.tokens.get(digest) is token)


async def _sign_out(guest: Guest) -> Shown:
    return guest.away(f"{LOGIN}?why=out", await portal.finish(guest))
