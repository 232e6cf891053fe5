"""What the holder of a key asks about it, at New API's paths and in its shapes; it costs nothing.

A key that is drained or expired may ask, a disabled one not: its holder shall see why it does not serve. Knows keys,
addresses and error bodies; must not know what is told. Sources: tasks-and-accounts §0.6, §5, relay-and-billing §1.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import hdrs
from sqlalchemy import Connection

from newapi_proxy.accounts import reports
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.snapshot import Token
from newapi_proxy.web import keys
from newapi_proxy.web.app import Action, Call, Edge, Failure, wait
from newapi_proxy.web.inbound import customer
from newapi_proxy.web.router import Route
from newapi_proxy.wire import tree

Answer = dict[str, Any]

LIMIT: Final = "/v1/dashboard/billing/subscription"  # the router finds these two without /v1 as well
USAGE: Final = "/v1/dashboard/billing/usage"
BALANCE: Final = "/api/usage/token"
CALLS: Final = "/api/log/token"
MOST: Final = 180  # questions of one address within `SPAN` seconds
SPAN: Final = 180.0
FRESH: Final = (("Cache-Control", "no-store"),)
MOST_ADDRESSES: Final = 10_000  # counted apart; above, the others share one count


def plain(error: ProxyError, request_id: str) -> bytes:
    """An error as the pages of New API read it."""
    return tree.encode(_plainly(error.message))


def _plainly(message: str) -> Answer:
    return {"success": False, "message": message}


class Report(msgspec.Struct, frozen=True):
    """A question. `unread`: the answer where the database cannot be read, with status 200 as in New API; `unknown`: the
    answer to a key that nobody has, None where that is an error like others."""

    tell: Callable[[Connection, Token, reports.Windows], Answer]
    failure: Failure
    unread: Callable[[str], Answer]
    unknown: Callable[[str], Answer] | None = None


def routes(openai: Failure) -> list[Route[Action]]:
    """The questions; given: error bodies of OpenAI's clients."""
    found = {
        LIMIT: Report(reports.subscription, openai, _enveloped("upstream_error")),
        USAGE: Report(reports.usage, openai, _enveloped("new_api_error")),
        BALANCE: Report(reports.token_usage, plain, _plainly, unknown=_plainly),
        CALLS: Report(reports.calls, plain, _plainly, unknown=lambda _: reports.nothing()),
    }
    pace = Pace()
    return [Route(pattern, {"GET": _answering(report, pace)}) for pattern, report in found.items()]


def _enveloped(type: str) -> Callable[[str], Answer]:
    return lambda message: {"error": {"message": message, "type": type, "param": "", "code": None}}


class Pace:
    """How often each address has asked since the present span began; spans are the same for all."""

    def __init__(self, most: int = MOST, span: float = SPAN) -> None:
        self._most, self._span = most, span
        self._until = 0.0
        self._counts: dict[str, int] = {}

    def count(self, address: str, now: float) -> None:
        """Counts one question. Raises ClientError 429 where it is one too many."""
        address = self._begun(address, now)
        count = self._counts[address] = self._counts.get(address, 0) + 1
        if count > self._most:
            raise self._full(now)

    def check(self, address: str, now: float) -> None:
        """Raises ClientError 429 where one more would be too many."""
        if self._counts.get(self._begun(address, now), 0) >= self._most:
            raise self._full(now)

    def _begun(self, address: str, now: float) -> str:
        """Begins a new span where one is due; under what is counted: of IPv6 addresses one customer has millions."""
        if now >= self._until:
            self._until = now + self._span
            self._counts.clear()
        place = customer(address)
        return "" if place not in self._counts and len(self._counts) >= MOST_ADDRESSES else place

    def _full(self, now: float) -> ClientError:
        message = f"More than {self._most} questions within {self._span:.0f} seconds."
        wait = self._until - now
        return ClientError(message, status=429, kind="rate_limit", code="too_many_questions", retry_after=wait)


def _answering(report: Report, pace: Pace) -> Action:
    async def answer(edge: Edge, call: Call) -> None:
        visit, reply = call.visit, call.arrival.reply
        try:
            pace.count(visit.client_ip, edge.house.clock.monotonic())
            token = _token(edge, call, report)
            visit, now = call.by(token), edge.house.clock.wall()
            keys.admit(token, visit.client_ip, now, drained=True, expired=True)
            windows = edge.house.snapshot.windows(token, int(now)) if token.budgets else ()
            told = await edge.house.db.read(lambda conn: report.tell(conn, token, windows))
            reply.whole(200, FRESH, tree.encode(told))
            edge.note(visit)
        except _Unknown as stranger:
            reply.whole(200, FRESH, tree.encode(stranger.told))
            edge.note(visit, keys.bad_key(), status=200)
        except OurError as unread:
            reply.whole(200, FRESH, tree.encode(report.unread(unread.message)))
            edge.note(visit, unread, status=200)
        except ClientError as fault:
            reply.whole(fault.status, wait(fault), report.failure(fault, visit.request_id))
            edge.note(visit, fault)

    return answer


class _Unknown(Exception):
    """A key that nobody has, where that is no error."""

    def __init__(self, told: Answer) -> None:
        self.told = told


def _token(edge: Edge, call: Call, report: Report) -> Token:
    """Whose key it is. Raises ClientError 401, or 429 for an address that guesses; _Unknown."""
    headers = call.arrival.headers
    try:
        return edge.caller(call, edge.house.snapshot)
    except ClientError as error:
        if report.unknown is None or error.status != 401:
            raise
    written = headers.get(hdrs.AUTHORIZATION, "").strip()
    odd = bool(written) and not written.lower().startswith("bearer ")
    if not odd and any(keys.presented(call.visit.path, call.query, headers)):
        raise _Unknown(report.unknown(keys.bad_key().message))
    message = "Invalid Bearer token" if odd else "No Authorization header"
    raise ClientError(message, status=401, kind="unauthorized", code="invalid_api_key")
