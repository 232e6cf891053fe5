"""The relay's routes: each surface on its path. Key, address, body; then the exchange has it.

Knows which paths there are; must not know formats. Sources: relay-and-billing §1.2, §2, §9.3, reliability §5.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, TypeVar

from aiohttp import hdrs
from aiohttp.web_protocol import RequestPayloadError
from multidict import istr

from newapi_proxy import metrics
from newapi_proxy.errors import ClientError, ProxyError, internal
from newapi_proxy.relay import exchange, once
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY, Surface
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.web import body, keys
from newapi_proxy.web.app import Action, Call, Edge, holder, missing, not_implemented
from newapi_proxy.web.router import Route
from newapi_proxy.web.spool import Spool, spooled
from newapi_proxy.wire import multipart

T = TypeVar("T")

ONCE: Final = istr(once.HEADER)
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
NOT_IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/edits": ("POST",),
    "/v1/files": ("GET", "POST"),
    "/v1/files/{id}": ("GET", "DELETE"),
    "/v1/fine-tunes": ("GET", "POST"),
    "/v1/fine-tunes/{id}": ("GET", "POST"),
    "/v1/fine_tuning/jobs": ("GET", "POST"),
    "/v1/fine_tuning/jobs/{id}": ("GET", "POST"),
    "/v1/responses/{id}": ("GET", "DELETE"),
    "/v1/responses/{id}/cancel": ("POST",),
    "/v1/responses/{id}/input_items": ("GET",),
}
NATIVE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "/v1/chat": ("POST /v1/chat/completions", ("POST",)),
    "/v2/chat": ("POST /v1/chat/completions", ("POST",)),
    "/v1/embed": ("POST /v1/embeddings", ("POST",)),
    "/v2/embed": ("POST /v1/embeddings", ("POST",)),
    "/v2/rerank": ("POST /v1/rerank", ("POST",)),
    "/v1/messages/batches": ("POST /v1/messages, one by one", ("GET", "POST")),
    "/v1/messages/batches/{id}": ("POST /v1/messages, one by one", ("GET", "POST", "DELETE")),
    "/v1/batches": ("each request by itself", ("GET", "POST")),
    "/v1/batches/{id}": ("each request by itself", ("GET", "POST")),
    "/v1/realtime/sessions": ("the WebSocket /v1/realtime", ("POST",)),
    "/v1/realtime/transcription_sessions": ("the WebSocket /v1/realtime", ("POST",)),
    "/v1/realtime/client_secrets": ("the WebSocket /v1/realtime", ("POST",)),
    "/v1/realtime/calls": ("the WebSocket /v1/realtime", ("POST",)),
    "/v1/realtime/calls/{id}": ("the WebSocket /v1/realtime", ("POST",)),
    "/v1beta/files": ("inline data", ("GET", "POST")),
    "/v1beta/files/{id}": ("inline data", ("GET", "DELETE")),
    "/upload/v1beta/files": ("inline data", ("POST",)),
    "/v1beta/cachedContents": ("the whole prompt", ("GET", "POST")),
    "/v1beta/cachedContents/{id}": ("the whole prompt", ("GET", "PATCH", "DELETE")),
    "/v1beta/models/{model}:predict": ("POST /v1/images/generations", ("POST",)),
    "/v1beta/models/{model}:predictLongRunning": ("nothing yet", ("POST",)),
    "/v1beta/models/{model}:batchGenerateContent": ("generateContent, one by one", ("POST",)),
    "/v1beta/models/{model}:asyncBatchEmbedContent": ("batchEmbedContents", ("POST",)),
}
"""Providers' own routes that are not passed on, because nothing that can spend goes by unmetered (demand B10): what to
use in their place, and their methods."""


def routes() -> list[Route[Action]]:
    """Every surface on its path; what New API knows beyond them, and providers' own routes, answered with 501."""
    found = [Route(pattern, {"POST": _relay(surface)}) for pattern, surface in SURFACES.items()]
    known = {route.pattern for route in found}
    for pattern, methods in NOT_IMPLEMENTED.items():
        if pattern not in known:
            found.append(Route(pattern, dict.fromkeys(methods, not_implemented)))
    for pattern, (instead, methods) in NATIVE.items():
        found.append(Route(pattern, dict.fromkeys(methods, _native(instead))))
    return found


def _native(instead: str) -> Action:
    """Refuses a provider's own route, in the words of its format; the key is checked first."""

    async def refuse(edge: Edge, call: Call) -> None:
        known = holder(edge, call)
        if known is not None:
            message = f"{call.visit.method} {call.visit.route} is not passed on to providers; use {instead}."
            edge.refuse(known, missing(message))

    return refuse


def _relay(surface: Surface) -> Action:
    """The route's action: whatever is wrong before the exchange is told in the surface's own format."""
    forms = isinstance(surface, EndpointSurface) and surface.form is not None

    async def relay(edge: Edge, call: Call) -> None:
        house, arrival, visit = edge.house, call.arrival, call.visit
        snapshot = house.snapshot  # one for the whole request, however long its body takes to come
        share = body.Share(edge.budget, snapshot.config.relay.max_body)
        spool: Spool | None = None
        carried = False
        metrics.inflight(1)
        try:
            token = edge.caller(call, snapshot)
            visit = call.by(token, snapshot)
            keys.admit(token, visit.client_ip, house.clock.wall())
            boundary = multipart.boundary(arrival.headers.get(hdrs.CONTENT_TYPE, "")) if forms else None
            data: bytes | multipart.Form
            if boundary is None:
                came = received_at_once(call, share)
                data = came if came is not None else await received(call, share)
            else:
                spool = Spool(body.Share(edge.disk, share.limit))
                data = await _form(call, spool, boundary)
            headers: Mapping[str, str] = arrival.headers
            if call.tail:
                headers = {name.lower(): value for name, value in headers.items()}
                headers |= {PATH: call.tail, QUERY: call.query}
            carried = True
            carry = once.chat if ONCE in arrival.headers and snapshot.config.idempotency.enabled else exchange.chat
            await carry(house, visit, surface, data, headers, arrival.reply)
        except ProxyError as error:
            exchange.reject(house, visit, surface, arrival.reply, error)
        except ConnectionError:
            edge.gone(visit)
        except Exception as error:
            edge.failed(call, error, surface.failure)
            if not carried:
                edge.note(visit, internal())
        finally:
            share.hold(0)
            if spool is not None:
                spool.close()
            metrics.inflight(-1)

    return relay


def received_at_once(call: Call, share: body.Share) -> bytes | None:
    """The body where it came with the head, as it is meant: most do. Raises ClientError, OurError."""
    arrival = call.arrival
    data, headers = arrival.body(), arrival.headers
    if data is None or hdrs.CONTENT_ENCODING in headers or hdrs.EXPECT in headers:
        return None
    if len(data) > share.limit:
        raise body.too_large(share.limit)
    share.hold(len(data))
    return data


async def received(call: Call, share: body.Share) -> bytes:
    """The body, inflated. Raises ClientError, OurError where memory is short, ConnectionError when the client left."""
    arrival = call.arrival
    headers, payload = arrival.headers, arrival.payload
    gzipped = hdrs.CONTENT_ENCODING in headers and body.coding(headers)
    share.hold(body.declared(headers, share.limit))
    if hdrs.EXPECT in headers:
        _expected(call)
    data = await _received(call, body.whole(payload, share))
    return await body.inflated(data, share) if gzipped else data


async def _form(call: Call, spool: Spool, boundary: bytes) -> multipart.Form:
    """The body as a form, its files kept aside. Raises what `_body` does."""
    headers = call.arrival.headers
    if hdrs.CONTENT_ENCODING in headers and body.coding(headers):
        raise ClientError("A form is not taken gzipped.", status=415, code="unsupported_content_encoding")
    spool.share.hold(body.declared(headers, spool.share.limit))
    if hdrs.EXPECT in headers:
        _expected(call)
    return await _received(call, spooled(call.arrival.payload, spool, boundary))


async def _received(call: Call, body: Awaitable[T]) -> T:
    """What comes of the body; a broken one, and a client that leaves, in our terms."""
    try:
        return await body
    except RequestPayloadError:
        raise ClientError("The request body is broken.", code="invalid_body") from None
    except RuntimeError:  # aiohttp's stream on a connection that has gone
        if call.arrival.reply.departed:
            raise ConnectionResetError("the client has gone") from None
        raise


def _expected(call: Call) -> None:
    """`Expect: 100-continue`: the client waits for leave to send its body (C4)."""
    arrival = call.arrival
    if arrival.headers["Expect"].strip().lower() != "100-continue":
        raise ClientError("Only Expect: 100-continue can be met.", status=417, code="expectation_failed")
    transport = arrival.connection.transport
    if transport is not None and not arrival.reply.http10 and not arrival.payload.is_eof():
        transport.write(CONTINUE)
