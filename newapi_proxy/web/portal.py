"""Who is signed in at the pages, and what every page does before and after its own work.

A session ends with what it began with: a key that is disabled, has expired or is gone, an account that is banned, a key
of the operator's that is no longer one. Knows nothing of what pages say. Source: tasks-and-accounts 0.3, T-39 to T-41.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import msgspec

from newapi_proxy.accounts import sessions
from newapi_proxy.config.model import Config
from newapi_proxy.config.portal import Portal
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.store import sessions as rows
from newapi_proxy.store import users
from newapi_proxy.web import body, browser, keys, surveys
from newapi_proxy.web.account_routes import Pace
from newapi_proxy.web.app import Action, Call, Edge, bare_404, wait
from newapi_proxy.web.browser import Shown
from newapi_proxy.web.pages import layout
from newapi_proxy.web.pages.words import say


class KeyHolder(msgspec.Struct, frozen=True):
    """Signed in with a key: sees this one. `digest` in hex."""

    token: Token
    digest: str


class Account(msgspec.Struct, frozen=True):
    """Signed in as a user: sees all keys of the account."""

    user: users.User
    tokens: tuple[Token, ...]


class Operator(msgspec.Struct, frozen=True):
    """Signed in with one of `admin.keys`: sees everybody's use."""


Visitor: TypeAlias = KeyHolder | Account | Operator
LOGIN: Final = "login"
USAGE: Final = "usage"
DASHBOARD: Final = "dashboard"
SETTING: Final = "setting"  # where New API's pages have it, too
SIGNINS: Final = "newapi_signins_total"
FOREIGN: Final = "foreign_form"
_TWICE: Final = "the number of a session was taken"


class _Answered(Exception):
    """The answer is another one than the page's own."""

    def __init__(self, shown: Shown) -> None:
        super().__init__(shown.status)
        self.shown = shown


class Guest(msgspec.Struct, frozen=True):
    """A call at the pages; `snapshot` is that of its beginning. `session`: the number of the session that is open;
    `over`: the browser has brought one that is not."""

    edge: Edge
    call: Call
    snapshot: Snapshot
    portal: Portal
    share: body.Share
    visitor: Visitor | None = None
    session: str = ""
    over: bool = False

    @property
    def config(self) -> Config:
        """The configuration that the call began with."""
        return self.snapshot.config

    @property
    def at(self) -> int:
        """Now, in unix seconds."""
        return int(self.edge.house.clock.wall())

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of everything that is told."""
        return ZoneInfo(self.config.timezone)

    @property
    def frame(self) -> layout.Frame:
        """What stands around every page for this visitor."""
        match self.visitor:
            case KeyHolder(token):
                name, links = token.name, [USAGE]
            case Account(user):
                name, links = user.display_name or user.username, [USAGE]
            case Operator():
                name, links = say("operator"), [DASHBOARD]
            case None:
                name, links = "", []
        if isinstance(self.visitor, KeyHolder | Account):
            links += ["topup"] if self.portal.topup is not None else []
            links += [SETTING] if self.portal.telegram is not None else []
        here = self.call.visit.path.strip("/")
        return layout.Frame(self.portal.title, browser.base(self.config), name, tuple(links), here)

    def asked(self, name: str) -> str:
        """What the query says under a name, "" for nothing."""
        try:
            return dict(parse_qsl(self.call.query, max_num_fields=20)).get(name, "")
        except ValueError:
            return ""

    def page(self, title: str, *content: layout.Content, **more: object) -> Shown:
        """A page of these contents; `more` is what else `Shown` has."""
        data, headers = browser.html(layout.page(self.frame, title, *content))
        return msgspec.structs.replace(Shown(body=data, headers=headers), **more)

    def away(self, path: str, cookies: tuple[str, ...] = ()) -> Shown:
        """Sends the browser to another page."""
        return browser.elsewhere(self.config, path, cookies)


Serve = Callable[[Guest], Awaitable[Shown]]
_Told = Callable[[Guest, ProxyError], Shown]


def action(serve: Serve, *paces: Pace, told: _Told | None = None) -> Action:
    """A page's action: who comes, from where, how often; then what is served. `told`: how a refusal is told, as a page
    unless somebody knows better."""

    async def act(edge: Edge, call: Call) -> None:
        snapshot = edge.house.snapshot
        if snapshot.config.portal is None:
            bare_404(edge, call)
            return
        share = body.Share(edge.budget, browser.MOST_FORM)
        guest = Guest(edge, call, snapshot, snapshot.config.portal, share)
        try:
            for pace in paces:
                pace.count(call.visit.client_ip, edge.house.clock.monotonic())
            if call.arrival.method == "POST" and not browser.own(guest.config, call.arrival):
                raise ClientError(say("error_origin"), status=403, kind="permission", code=FOREIGN)
            guest = await known(guest)
            shown = await serve(guest)
        except _Answered as answered:
            shown = answered.shown
        except (ClientError, OurError) as fault:
            shown = (told or failure)(guest, fault)
        except ConnectionError:
            edge.gone(call.visit)
            return
        finally:
            share.hold(0)
        call.arrival.reply.page(shown.status, shown.head(), shown.body, shown.cookies)
        visit = guest.call.visit if shown.token is None else call.by(shown.token)
        edge.note(visit, shown.fault, status=shown.status)

    return act


def failure(guest: Guest, fault: ProxyError) -> Shown:
    """A refusal in words."""
    message = fault.message
    if fault.code == "ledger_unavailable":
        message = say("error_database")
    elif fault.code == surveys.CODE:
        message = say("error_busy")
    elif fault.retry_after is not None:
        message = say("error_often", seconds=math.ceil(fault.retry_after))
    content = layout.error(message, fault.status, guest.call.visit.request_id)
    shown = guest.page(say("error_title"), content, status=fault.status, fault=fault)
    return msgspec.structs.replace(shown, headers=(*shown.headers, *wait(fault)))


async def known(guest: Guest) -> Guest:
    """The guest as whom its session says; one that stands for nobody any more ends here. Raises OurError."""
    text = browser.kept(guest.call.arrival.headers)
    if not text:
        return guest
    number, at, db = sessions.number(text), guest.at, guest.edge.house.db
    session = await db.read(lambda conn: rows.find(conn, number, at))
    visitor = await _visitor(guest, session, text) if session is not None else None
    if visitor is not None:
        call = guest.call
        if isinstance(visitor, KeyHolder):
            call = msgspec.structs.replace(call, visit=call.by(visitor.token))
        return msgspec.structs.replace(guest, call=call, visitor=visitor, session=number)
    if session is not None:
        await db.write(rows.end, number)
    return msgspec.structs.replace(guest, over=True)


async def _visitor(guest: Guest, session: rows.Session, text: str) -> Visitor | None:
    """Whom the session stands for, None where it has ended."""
    config = guest.config
    match session.kind:
        case sessions.KEY:
            token = guest.snapshot.tokens.get(bytes.fromhex(session.subject))
            if token is None or not _admitted(guest, token):
                return None
            return KeyHolder(token, session.subject)
        case sessions.USER:
            id = int(session.subject)
            user = await guest.edge.house.db.read(lambda conn: users.find(conn, id))
            if user is None or user.status != users.ENABLED:
                return None
            return Account(user, tuple(one for one in guest.snapshot.tokens.values() if one.account.user_id == id))
        case sessions.OPERATOR if sessions.still(text, session.subject, config.admin.keys):
            return Operator()
        case _:
            return None


def _admitted(guest: Guest, token: Token) -> bool:
    try:
        keys.admit(token, guest.call.visit.client_ip, guest.edge.house.clock.wall(), drained=True)
    except ClientError:
        return False
    return True


async def begin(guest: Guest, kind: str, subject: Callable[[str], str]) -> str:
    """Opens a session, and ends the one that was open; its cookie. `subject` is given the session's text."""
    text, db = secrets.token_urlsafe(sessions.BYTES), guest.edge.house.db
    opened = sessions.opened(text, kind, subject(text), guest.at, guest.portal.session)
    if guest.session:
        await db.write(rows.end, guest.session)
    free = await db.write(rows.begin, opened)
    assert free, _TWICE
    return browser.cookie(guest.config, guest.call.arrival, text, guest.portal.session)


async def finish(guest: Guest) -> tuple[str, ...]:
    """Ends the session that is open; the cookies that take it from the browser."""
    if guest.session:
        await guest.edge.house.db.write(rows.end, guest.session)
    return (_gone(guest),)


def _gone(guest: Guest) -> str:
    return browser.cookie(guest.config, guest.call.arrival, "", 0)


def holder(guest: Guest) -> KeyHolder | Account:
    """Who is signed in with a key or as a user. Raises _Answered: to the sign-in, or to the operator's own page."""
    match guest.visitor:
        case KeyHolder() | Account() as visitor:
            return visitor
        case Operator():
            raise _Answered(guest.away(DASHBOARD))
        case None:
            raise _Answered(to_login(guest))


def to_login(guest: Guest) -> Shown:
    """Sends somebody who is not signed in to where that is done."""
    return guest.away(f"{LOGIN}?why=over", (_gone(guest),)) if guest.over else guest.away(LOGIN)


def operator(guest: Guest) -> None:
    """Lets nobody but the operator on. Raises _Answered, ClientError 403, 404 where no key is an operator's."""
    if not guest.config.admin.keys:
        raise ClientError(say("error_no_page"), status=404, kind="not_found", code="unknown_path")
    if guest.visitor is None:
        raise _Answered(to_login(guest))
    if not isinstance(guest.visitor, Operator):
        raise ClientError(say("error_not_yours"), status=403, kind="permission", code="role_too_low")
