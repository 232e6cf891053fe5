"""The edge: from a parsed request to its route, and what holds for all routes.

Knows request ids, addresses, CORS and what to answer when no route fits. Must not know what a route does. Sources:
relay-and-billing §1.1, §9.2, interfaces §4.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import msgspec
from aiohttp import hdrs
from multidict import istr

from newapi_proxy import log, metrics
from newapi_proxy.errors import ClientError, ProxyError, internal
from newapi_proxy.relay.house import House
from newapi_proxy.relay.memory import Budget
from newapi_proxy.relay.record import Record, Visit
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.web import guesses, inbound, keys
from newapi_proxy.web.body import DISK
from newapi_proxy.web.router import UNKNOWN, Match, Route, Router, split
from newapi_proxy.web.server import CLOSED, KEPT, Arrival, Sent
from newapi_proxy.wire import tree

LONGEST_ECHO: Final = 4096
PRINTED_PATH: Final = 256
REQUEST_ID: Final = istr("X-Request-Id")


class Call(msgspec.Struct, frozen=True):
    """One request at its route: what arrived, the path's variable part, the query, who came."""

    arrival: Arrival
    tail: str
    query: str
    visit: Visit

    def by(self, token: Token, snapshot: Snapshot | None = None) -> Visit:
        """The visit of a caller who is known now, by the snapshot in which the token was found."""
        return msgspec.structs.replace(self.visit, token=token, snapshot=snapshot)


Action = Callable[["Edge", Call], Awaitable[None]]
Failure = Callable[[ProxyError, str], bytes]


class Part(msgspec.Struct, frozen=True):
    """Routes that only some configurations have: `wanted` by this one?; `routes` imports what serves them."""

    wanted: Callable[[Snapshot], bool]
    routes: Callable[[], Iterable[Route[Action]]]


class Edge:
    """What all connections share. `draining` is set once, by the daemon; `budget` is all bodies' memory, `disk` that of
    forms in files."""

    def __init__(
        self,
        house: House,
        routes: Iterable[Route[Action]],
        failure: Failure,
        own: Mapping[str, Failure] | None = None,
        parts: Iterable[Part] = (),
    ) -> None:
        """`parts` are looked at where no route fits. `own`: the error bodies of patterns, and of unknown paths below a
        prefix that ends in a slash, that have another format than `failure`'s."""
        self.house = house
        self.ids = inbound.Ids()
        self.keys = keys.Keys()
        self.guesses = guesses.Guesses()
        self.draining = False
        self.budget = house.memory
        self.disk = Budget(DISK)
        self.routes = tuple(routes)
        self._router = Router(self.routes)
        self._parts = tuple(parts)
        self._opened: dict[Part, Router[Action]] = {}
        self._failure = failure
        self._own = own or {}

    async def handle(self, arrival: Arrival) -> Sent:
        """Serves one request; whatever happens, the client gets an answer or a broken connection, and we a line."""
        reply = arrival.reply
        path, query = split(arrival.target)
        match = self._router.find(path)
        if match is None:
            match = self._beyond(path)
        call = Call(arrival, match.tail if match else "", query, self._visit(arrival, path, match))
        reply.request_id = call.visit.request_id
        try:
            action = match.route.actions.get(arrival.method) if match is not None else None
            if action is not None:
                await action(self, call)
            elif arrival.method == "OPTIONS":
                self._preflight(call)
            else:
                self._astray(call, match)
        except Exception as error:
            self.failed(call, error)
            self.note(call.visit, internal())
        if not reply.ended and arrival.connection.transport is not None:
            arrival.connection.transport.abort()  # a stream that broke off must look like one
            return CLOSED
        return KEPT if reply.keep_alive else CLOSED

    def _beyond(self, path: str) -> Match[Action] | None:
        """The match among the routes of optional parts that the configuration in use has."""
        for part in self._parts:
            if part.wanted(self.house.snapshot):
                if part not in self._opened:
                    self._opened[part] = Router(part.routes())
                match = self._opened[part].find(path)
                if match is not None:
                    return match
        return None

    def _visit(self, arrival: Arrival, path: str, match: Match[Action] | None) -> Visit:
        headers, house = arrival.headers, self.house
        forwarded = headers.getall(hdrs.X_FORWARDED_FOR, ())
        trusted = inbound.networks(house.snapshot.config.trusted_proxies) if forwarded else ()
        return Visit(
            request_id=self.ids.of(headers.get(REQUEST_ID)),
            method=arrival.method,
            path=path[:PRINTED_PATH],
            route=match.route.pattern if match is not None else UNKNOWN,
            client_ip=inbound.client_ip(arrival.connection.peer, forwarded, trusted),
            arrived=house.clock.monotonic(),
        )

    def caller(self, call: Call, snapshot: Snapshot, headers: Mapping[str, str] | None = None) -> Token:
        """Whose key is in the request's headers, or these. Raises ClientError 401; 429 for an address that guesses."""
        visit = call.visit
        if headers is None:
            headers = call.arrival.headers
        if self.guesses.known:
            self.guesses.check(visit.client_ip, visit.arrived)
        try:
            return self.keys.caller(snapshot, visit.path, call.query, headers)
        except ClientError:
            tried = keys.presented(visit.path, call.query, headers)
            self.guesses.note(visit.client_ip, tried, visit.arrived)
            raise

    def failed(self, call: Call, error: Exception, failure: Failure | None = None) -> None:
        """An exception that nobody expected: counted, logged without its text, 500 where nothing is out yet."""
        metrics.bug()
        log.bug(error, request_id=call.visit.request_id, route=call.visit.route)
        reply = call.arrival.reply
        if not reply.started:
            reply.keep_alive = False
            reply.whole(500, (), (failure or self._voice(call))(internal(), call.visit.request_id))

    def refuse(self, call: Call, error: ProxyError, *, headers: Iterable[tuple[str, str]] = ()) -> None:
        """An error outside the relay, in the route's format, with its line."""
        told = (*headers, *wait(error))
        call.arrival.reply.whole(error.status, told, self._voice(call)(error, call.visit.request_id))
        self.note(call.visit, error)

    def _voice(self, call: Call) -> Failure:
        return self._own.get(call.visit.route) or self.below(call.visit.path) or self._failure

    def below(self, path: str) -> Failure | None:
        """The error bodies of whatever stands below a prefix with a format of its own."""
        return next((own for prefix, own in self._own.items() if prefix[-1] == "/" and path.startswith(prefix)), None)

    def note(self, visit: Visit, error: ProxyError | None = None, *, status: int | None = None) -> None:
        """The line and the count of a request that was served outside the relay. `status`: where it is neither 200 nor
        the error's own."""
        record = Record(visit, self.house.clock)
        if error is not None:
            record.failed(error, status or error.status)
        elif status is not None:
            record.status = status
        record.finish()

    def gone(self, visit: Visit) -> None:
        """The line of a client that left while it was still sending."""
        record = Record(visit, self.house.clock)
        record.end, record.status = "client_gone", 499
        record.finish()

    def unparsed(self, arrival: Arrival, status: int) -> None:
        """Answers what was no HTTP request, or had been a handler's failure; the connection ends with it."""
        visit = Visit(
            request_id=self.ids.own(),
            method="UNKNOWN",
            path="",
            route=UNKNOWN,
            client_ip=inbound.client_ip(arrival.connection.peer, (), ()),
            arrived=self.house.clock.monotonic(),
        )
        arrival.reply.request_id = visit.request_id
        self.refuse(
            Call(arrival, "", "", visit),
            ClientError("This is not a valid HTTP request.", status=status, code="invalid_http")
            if status < 500
            else internal(),
        )

    def _preflight(self, call: Call) -> None:
        """CORS: any origin, never with credentials; the requested headers echoed, as `*` does not cover
        Authorization (relay-and-billing §9.2)."""
        wanted = call.arrival.headers.get("Access-Control-Request-Headers", "*")[:LONGEST_ECHO]
        call.arrival.reply.whole(
            204,
            (
                ("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"),
                ("Access-Control-Allow-Headers", wanted),
                ("Access-Control-Max-Age", "43200"),
                ("Vary", "Access-Control-Request-Headers"),
            ),
            b"",
        )
        metrics.request(call.visit.route, 204, "ok", 0.0, None)

    def _astray(self, call: Call, match: Match[Action] | None) -> None:
        """No such path, or no such method there (405)."""
        method = call.visit.method
        if match is None:
            bare_404(self, call)
            return
        allowed = ", ".join([*match.route.actions, "OPTIONS"])
        error = ClientError(
            f"{method} is not possible here, only {allowed}.",
            status=405,
            type="invalid_request_error",
            code="method_not_allowed",
        )
        self.refuse(call, error, headers=[("Allow", allowed)])


def wait(error: ProxyError) -> tuple[tuple[str, str], ...]:
    """The header that says when to come back, where that is known."""
    return () if error.retry_after is None else (("Retry-After", str(max(1, math.ceil(error.retry_after)))),)


def _plain(message: str, type: str, code: str) -> bytes:
    return tree.encode({"error": {"message": message, "type": type, "param": "", "code": code}})


def bare_404(edge: Edge, call: Call) -> None:
    """No such path, in the words that One API's clients know (relay-and-billing §1.1)."""
    message = f"Invalid URL ({call.visit.method} {call.visit.path})"
    error = ClientError(message, status=404, kind="not_found", type="invalid_request_error", code="unknown_path")
    own = edge.below(call.visit.path)
    plain = _plain(message, "invalid_request_error", "")
    call.arrival.reply.whole(404, (), own(error, call.visit.request_id) if own is not None else plain)
    edge.note(call.visit, error)


async def not_implemented(edge: Edge, call: Call) -> None:
    """A route that New API has and answers with 501 (relay-and-billing §1.2); the key is checked first, as there."""
    known = holder(edge, call)
    if known is not None:
        call.arrival.reply.whole(501, (), _plain("API not implemented", "new_api_error", "api_not_implemented"))
        edge.note(known.visit, missing("API not implemented"))


def missing(message: str) -> ClientError:
    """The error of a route that is known and not served."""
    return ClientError(message, status=501, kind="not_found", code="api_not_implemented")


def holder(edge: Edge, call: Call) -> Call | None:
    """The call as its key's holder's, who may be out of money; None where it has been refused."""
    try:
        token = edge.caller(call, edge.house.snapshot)
        keys.admit(token, call.visit.client_ip, edge.house.clock.wall(), drained=True)
    except ClientError as error:
        edge.refuse(call, error)
        return None
    return msgspec.structs.replace(call, visit=call.by(token))
