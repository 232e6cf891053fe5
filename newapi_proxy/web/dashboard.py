"""Who asks on the routes of New API's pages, an account by its access token or a key, and how these are answered.

A key acts for the account that it belongs to, as far as the account gains by it; a key of ours belongs to nobody who
could be credited, so it acts for itself. Knows headers and the forms of answers; nothing of what is asked. Source:
tasks-and-accounts 0.3, 8.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import hdrs
from sqlalchemy import Connection

from newapi_proxy.accounts.topup import BAD_REQUEST, Refused
from newapi_proxy.config.model import Config
from newapi_proxy.config.portal import TopUp
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.snapshot import Token
from newapi_proxy.store import users
from newapi_proxy.store.db import Database
from newapi_proxy.store.groups import unavailable
from newapi_proxy.web import body, browser, keys, portal
from newapi_proxy.web.account_routes import FRESH, Answer, Pace, plain
from newapi_proxy.web.app import Action, Call, Edge, bare_404, wait
from newapi_proxy.web.ops_routes import is_admin
from newapi_proxy.web.relay_routes import received
from newapi_proxy.wire import tree

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

MOST_BODY: Final = 16 * 1024
COMMIT_SECONDS: Final = 4.0  # for a write: gateways want their answer within five
_USER: Final = "New-Api-User"
_LONGEST: Final = 128  # characters of an access token
_NOT: Final = "无权进行此操作\uff0c"
NOBODY: Final = f"{_NOT}未登录且未提供 access token"
NO_HEADER: Final = f"{_NOT}请刷新页面或清空缓存后重试"
_UNKNOWN: Final = f"{_NOT}access token 无效"
_NO_NUMBER: Final = f"{_NOT}登录信息无效\uff0c请重新登录"
_OTHER: Final = f"{_NOT}与登录用户不匹配\uff0c请重新登录"
_BANNED: Final = "用户已被封禁"
_TOO_LOW: Final = f"{_NOT}权限不足"
_SOFT: Final = frozenset({"invalid_access_token", "user_disabled", "role_too_low"})
"""Refusals that New API answers with status 200: its pages read the body."""


class Holder(msgspec.Struct, frozen=True):
    """Who asks. `token_id` is 0 but for a key that acts for itself; `token`: the key that was used."""

    user: users.User
    token_id: int = 0
    token: Token | None = None

    @property
    def whose(self) -> tuple[int, int]:
        """Who is credited: a user, and the key where it is one of ours."""
        return self.user.id, self.token_id


_OPERATOR: Final = Holder(users.User(id=0, username="", group="", role=users.ADMIN, status=users.ENABLED))
"""Who holds one of `admin.keys`: nobody's account."""


class Guest(msgspec.Struct, frozen=True):
    """A call whose caller is known. `config` and `sold` are those of the snapshot that the call began with."""

    edge: Edge
    call: Call
    holder: Holder
    config: Config
    sold: TopUp
    share: body.Share

    @property
    def at(self) -> int:
        """Now, in unix seconds."""
        return int(self.edge.house.clock.wall())

    async def fields(self) -> dict[str, Any]:
        """The body's JSON object. Raises Refused for anything else, and what `received` does."""
        data = await received(self.call, self.share)
        try:
            return tree.read(data)
        except ClientError:
            raise Refused(BAD_REQUEST) from None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A route: whether this configuration has it, what is answered, and how a refusal is worded. `broken`: what is told
    where the database does not answer; `admin`: for administrators; `personal`: not for a key that others may hold."""

    wanted: Callable[[TopUp], bool]
    serve: Callable[[Guest], Awaitable[Answer]]
    refused: Callable[[str], Answer]
    broken: str = ""
    admin: bool = False
    personal: bool = False


def failed(message: str) -> Answer:
    """A refusal in the pages' usual envelope."""
    return {"success": False, "message": message}


def unsold(message: str) -> Answer:
    """A refusal in the envelope of everything that ends in a payment."""
    return {"message": "error", "data": message}


def selling(edge: Edge) -> TopUp | None:
    """What the configuration in use says of top-up."""
    portal = edge.house.snapshot.config.portal
    return portal.topup if portal is not None else None


def action(page: Page, pace: Pace) -> Action:
    """The route's action: who asks, then what is served, refusals in the page's own words."""

    async def act(edge: Edge, call: Call) -> None:
        config, sold = edge.house.snapshot.config, selling(edge)
        if sold is None or not page.wanted(sold):
            bare_404(edge, call)
            return
        share = body.Share(edge.budget, MOST_BODY)
        try:
            pace.count(call.visit.client_ip, edge.house.clock.monotonic())
            holder = await _holder(edge, call, page)
            call = call if holder.token is None else msgspec.structs.replace(call, visit=call.by(holder.token))
            told = await page.serve(Guest(edge, call, holder, config, sold, share))
            call.arrival.reply.whole(200, FRESH, tree.encode(told))
            edge.note(call.visit)
        except Refused as refused:
            _tell(edge, call, page.refused(str(refused)), ClientError(str(refused), code="not_sold"))
        except OurError as fault:
            _tell(edge, call, page.refused(page.broken or fault.message), fault)
        except ClientError as fault:
            status = 200 if fault.code in _SOFT else fault.status
            call.arrival.reply.whole(status, (*FRESH, *wait(fault)), plain(fault, call.visit.request_id))
            edge.note(call.visit, fault, status=status)
        except ConnectionError:
            edge.gone(call.visit)
        finally:
            share.hold(0)

    return act


def _tell(edge: Edge, call: Call, told: Answer, fault: ProxyError) -> None:
    call.arrival.reply.whole(200, FRESH, tree.encode(told))
    edge.note(call.visit, fault, status=200)


async def _holder(edge: Edge, call: Call, page: Page) -> Holder:
    """Who asks, where they may. Raises ClientError, OurError where the database does not answer."""
    visit, headers = call.visit, call.arrival.headers
    text = next(keys.presented("", "", {"authorization": headers.get(hdrs.AUTHORIZATION, "")}), "")
    if not text:
        return await _signed_in(edge, call, page)
    if page.admin and edge.house.snapshot.config.admin.keys and is_admin(edge, call):
        return _OPERATOR
    edge.guesses.check(visit.client_ip, visit.arrived)
    token = edge.keys.find(edge.house.snapshot, text)
    holder = await _account(edge, call, text) if token is None else await buyer(edge, call, token)
    same(holder.user.id, headers.get(_USER))
    return _allowed(holder, page)


async def _signed_in(edge: Edge, call: Call, page: Page) -> Holder:
    """Who is signed in at the pages, if the request names the account as New API's pages do: a form of another site
    cannot (T-39)."""
    headers, snapshot = call.arrival.headers, edge.house.snapshot
    if snapshot.config.portal is None or not browser.kept(headers):
        raise ClientError(NOBODY, status=401, kind="unauthorized", code="not_logged_in")
    named = headers.get(_USER)
    if named is None:
        raise ClientError(NO_HEADER, status=401, kind="unauthorized", code="wrong_user")
    guest = portal.Guest(edge, call, snapshot, snapshot.config.portal, body.Share(edge.budget, 0))
    match (await portal.known(guest)).visitor:
        case portal.Account(user):
            holder = Holder(user)
        case portal.KeyHolder(token):
            holder = await buyer(edge, call, token)
        case portal.Operator() | None:
            raise ClientError(NOBODY, status=401, kind="unauthorized", code="not_logged_in")
    same(holder.user.id, named)
    return _allowed(holder, page)


def _allowed(holder: Holder, page: Page) -> Holder:
    """Whether they may. Raises ClientError."""
    if holder.user.status != users.ENABLED and not holder.token_id:
        raise ClientError(_BANNED, status=403, kind="permission", code="user_disabled")
    if page.admin and (holder.token is not None or holder.user.role < users.ADMIN):
        raise ClientError(_TOO_LOW, status=403, kind="permission", code="role_too_low")
    if page.personal and holder.token is not None and not holder.token_id:
        raise ClientError(_TOO_LOW, status=403, kind="permission", code="role_too_low")
    return holder


async def _account(edge: Edge, call: Call, text: str) -> Holder:
    found = None
    if len(text) <= _LONGEST and text.isascii() and text.isprintable():
        found = await edge.house.db.read(lambda conn: users.by_access_token(conn, text))
    if found is None:
        edge.guesses.note(call.visit.client_ip, [text], call.visit.arrived)
        raise ClientError(_UNKNOWN, status=401, kind="unauthorized", code="invalid_access_token")
    return Holder(found)


async def buyer(edge: Edge, call: Call, token: Token) -> Holder:
    """The account of a key, which may be out of money: that is why it comes. Raises ClientError for a key without a
    balance, OurError."""
    keys.admit(token, call.visit.client_ip, edge.house.clock.wall(), drained=True)
    account = token.account
    found = await edge.house.db.read(lambda conn: users.find(conn, account.user_id))
    if found is None:
        raise keys.bad_key()
    if account.user_limited:
        return Holder(found, 0, token)
    if not account.token_limited:
        message = "This key is unlimited: there is no balance to change."
        raise ClientError(message, status=403, kind="permission", code="unlimited_key")
    return Holder(msgspec.structs.replace(found, group=token.group), account.token_id, token)


def same(id: int, named: str | None) -> None:
    """The number that New API's newer pages send along is that of the account; older clients send none.

    Raises ClientError 401.
    """
    if named is None:
        return
    if not (named.isascii() and named.isdecimal()):
        raise ClientError(_NO_NUMBER, status=401, kind="unauthorized", code="wrong_user")
    if int(named[:_LONGEST]) != id:
        raise ClientError(_OTHER, status=401, kind="unauthorized", code="wrong_user")


async def committed(db: Database, fn: Callable[[Connection, Sequence[I]], Sequence[R]], item: I) -> R:
    """The write's result, in time for whoever waits. Raises OurError; it may be done later all the same."""
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            return await db.write(fn, item)
    except TimeoutError:
        raise unavailable() from None


async def heard(
    edge: Edge, call: Call, most: int, work: Callable[[body.Share], Awaitable[ClientError | None]]
) -> ProxyError | None:
    """A gateway's notice, its body of at most so many bytes: what `work` has against it or raises, None for nothing."""
    share = body.Share(edge.budget, most)
    try:
        return await work(share)
    except (ClientError, OurError) as fault:
        return fault
    except ConnectionError:
        return ClientError("The client has gone.", code="client_gone")
    finally:
        share.hold(0)
