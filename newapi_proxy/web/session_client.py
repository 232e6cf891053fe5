"""The second implementation of `ports.Client`, over aiohttp.ClientSession: the one that knows proxies.

It costs a task per wait, which is why it is not the first. What differs from the wire client: an interrupted connect
is cancelled instead of finishing in the background, and interim 1xx answers are not counted, the deadlines end them.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.errors import OurError, UpstreamFailure
from newapi_proxy.ports import Interrupt, Take
from newapi_proxy.spawn import spawn
from newapi_proxy.web import faults
from newapi_proxy.web.connection import READ, SEND, encoding, plain
from newapi_proxy.web.decoding import Decoder
from newapi_proxy.web.heads import Place, Places
from newapi_proxy.web.pool import HAPPY, Limits
from newapi_proxy.web.reading import MAX_FIELD, MAX_FIELDS
from newapi_proxy.wire.multipart import Upload

T = TypeVar("T")

SESSIONS: Final = 64  # SOCKS proxies known at a time
SOCKS: Final = ("socks4://", "socks4a://", "socks5://", "socks5h://")
_BROKEN: Final = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError)
_AUTOMATIC: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


class SessionClient:
    """Sessions: one for everything, one per SOCKS proxy, and for second chances one that reuses nothing."""

    def __init__(self, *, limits: Limits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits or Limits()
        self._tls = tls
        self._places = Places()
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._closed = False

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> SessionResponse:
        """See `ports.Client`."""
        if interrupt.cause is not None:
            raise interrupt.cause
        place = self._places.find(outgoing.url)
        place.request(outgoing.method, outgoing.headers, 0)  # refuses what may not be sent
        try:
            return await self._once(place, outgoing, interrupt, (connect_timeout, proxy, True))
        except _StaleError:
            return await self._once(place, outgoing, interrupt, (connect_timeout, proxy, False))

    async def close(self) -> None:
        """Closes every connection at once."""
        self._closed = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()

    async def _once(
        self, place: Place, outgoing: Outgoing, interrupt: Interrupt, how: tuple[float, str | None, bool]
    ) -> SessionResponse:
        timeout, proxy, reuse = how
        socks = proxy if proxy is not None and proxy.startswith(SOCKS) else None
        session = self._session(socks, reuse)
        seen = SimpleNamespace(reused=False)
        request = session.request(
            outgoing.method,
            place.url,
            data=_data(outgoing),
            headers=_headers(place, outgoing),
            allow_redirects=False,
            proxy=None if socks else proxy,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout),
            trace_request_ctx=seen,
        )
        response = await run(interrupt, declared(request, seen), "upstream request", aiohttp.ClientResponse.close)
        return SessionResponse(response, interrupt)

    def _session(self, socks: str | None, reuse: bool) -> aiohttp.ClientSession:
        if self._closed:
            raise OurError("The server is shutting down.", status=503, code="shutting_down")
        session = self._sessions.get((socks, reuse))
        if session is None:
            if len(self._sessions) >= SESSIONS:  # the one made first, a proxy of some configuration long past
                spawn(self._sessions.pop(next(iter(self._sessions))).close(), "session close")
            session = self._sessions[socks, reuse] = self._made(socks, reuse)
        return session

    def _made(self, socks: str | None, reuse: bool) -> aiohttp.ClientSession:
        options: dict[str, Any] = {"limit": 0, "ssl": self._tls if self._tls is not None else True}
        if reuse:
            options["keepalive_timeout"] = self._limits.idle_timeout
        else:
            options["force_close"] = True
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_reused)
        return aiohttp.ClientSession(
            connector=socks_connector(socks, options)
            if socks
            else aiohttp.TCPConnector(happy_eyeballs_delay=HAPPY, **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=_Answer,
            skip_auto_headers=_AUTOMATIC,
            read_bufsize=READ,
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            trace_configs=[trace],
        )


class SessionResponse:
    """`ports.Incoming` over aiohttp's response."""

    __slots__ = ("_closed", "_decoder", "_encoding", "_headers", "_interrupt", "_response", "status")

    def __init__(self, response: aiohttp.ClientResponse, interrupt: Interrupt) -> None:
        self.status = response.status
        self._response = response
        self._interrupt = interrupt
        self._encoding = encoding(",".join(response.headers.getall(hdrs.CONTENT_ENCODING, ())))
        self._headers: dict[str, str] | None = None
        self._decoder: Decoder | None = None
        self._closed = self._watched(response)

    @staticmethod
    def _watched(response: aiohttp.ClientResponse) -> asyncio.Future[None] | None:
        """The connection's end, which alone tells of a chunk that could not be parsed, or of RST without a length."""
        connection, content = response.connection, response.content
        closed = connection.protocol.closed if connection is not None and connection.protocol is not None else None
        if closed is None:
            return None

        def lost(future: asyncio.Future[None]) -> None:
            if not future.cancelled():
                future.exception()  # seen
            if not content.is_eof() and content.exception() is None:
                content.set_exception(aiohttp.ClientPayloadError("closed"))

        def done() -> None:
            closed.remove_done_callback(lost)

        closed.add_done_callback(lost)
        content.on_eof(done)
        return closed

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case, the first value of each; without length and encoding where the body is decoded."""
        if self._headers is None:
            self._headers = plain(self._response.headers, bool(self._encoding))
        return self._headers

    async def read(self) -> bytes:
        """What has arrived since the last read, decoded; b"" at the end."""
        while True:
            if self._interrupt.cause is not None:
                self.close()
                raise self._interrupt.cause
            try:
                data = await self._more()
            except BaseException:
                self.close()
                raise
            if data is not None:
                return data

    async def flow(self, take: Take) -> bool:
        """Hands on what comes."""
        while data := await self.read():
            if not take(data):
                return False
        return True

    async def whole(self, limit: int) -> bytes:
        """The rest of the body."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.close()
                raise faults.too_large(limit)
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Lets go; an unfinished response takes its connection with it."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()

    async def _more(self) -> bytes | None:
        """Bytes, b"" at the end, None when these gave nothing decoded."""
        content = self._response.content
        if self._decoder is not None and self._decoder.pending:
            return self._decoder.decode(b"") or None
        data = _ready(content)
        if not data and not content.at_eof():
            data = await run(self._interrupt, _body(content), "upstream read", None)
        if not data:
            if self._closed is not None and self._closed.done() and self._closed.exception() is not None:
                raise faults.broken("reset inside the body")
            if self._decoder is not None:
                self._decoder.finish()
            return b""
        if not self._encoding:
            return data
        if self._decoder is None:
            self._decoder = Decoder(self._encoding)
        return self._decoder.decode(data) or None


class _Answer(aiohttp.ClientResponse):
    """A response that is not one which somebody else's request left behind on the connection (U31)."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        if protocol is None or protocol.should_close:  # something was there before the request could be answered
            raise aiohttp.ServerDisconnectedError
        return await super().start(connection)


class _StaleError(Exception):
    """A reused connection closed before its first byte."""


async def _reused(session: aiohttp.ClientSession, context: Any, params: object) -> None:
    context.trace_request_ctx.reused = True


def _data(outgoing: Outgoing) -> bytes | io.BytesIO | AsyncIterator[bytes]:
    body = outgoing.body
    assert not isinstance(body, dict), "overrides come before the wire"
    if isinstance(body, Upload):
        return _pieces(body)
    return body if len(body) <= SEND else io.BytesIO(body)  # in pieces


async def _pieces(upload: Upload) -> AsyncIterator[bytes]:
    for piece in upload.pieces(SEND):
        yield piece


def _headers(place: Place, outgoing: Outgoing) -> dict[str, str]:
    headers = place.headers(outgoing.headers)
    if isinstance(outgoing.body, Upload):
        headers["content-length"] = str(len(outgoing.body))
    elif not outgoing.body and outgoing.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = "0"
    return headers


async def run(interrupt: Interrupt, work: Coroutine[Any, Any, T], name: str, undo: Callable[[T], object] | None) -> T:
    """The coroutine's result or its failure, or the interrupt's cause; then the coroutine is cancelled.

    `undo` takes a result that came when nobody waited for it any more.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    task = spawn(_settled(work, future, undo), name)
    try:
        return await interrupt.wait(future)
    except BaseException:
        task.cancel()
        raise


async def _settled(work: Coroutine[Any, Any, T], future: asyncio.Future[T], undo: Callable[[T], object] | None) -> None:
    try:
        result = await work
    except Exception as error:
        if future.done() and not isinstance(error, (UpstreamFailure, _StaleError)):
            raise
        if not future.done():
            future.set_exception(error)
        return
    if not future.done():
        future.set_result(result)
    elif undo is not None:
        undo(result)


async def declared(request: Coroutine[Any, Any, object], seen: SimpleNamespace) -> Any:
    """The response, or a declared failure."""
    try:
        return await request
    except (aiohttp.ServerTimeoutError, TimeoutError):
        raise faults.too_slow("no connection in time") from None
    except aiohttp.ServerDisconnectedError as error:
        if seen.reused and isinstance(error.message, str):
            raise _StaleError from None
        raise faults.unreachable("closed before an answer") from None
    except aiohttp.ClientConnectorError as error:
        raise faults.unreachable(f"connect: {faults.reason(getattr(error, 'os_error', error))}") from None
    except (aiohttp.ClientOSError, ConnectionError) as error:
        if seen.reused:
            raise _StaleError from None
        raise faults.unreachable(faults.reason(error)) from None
    except aiohttp.ClientHttpProxyError as error:
        raise faults.unreachable(f"the proxy answered {error.status}") from None
    except aiohttp.ClientResponseError as error:
        raise faults.unreadable(type(error).__name__) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise faults.unreachable(faults.reason(error)) from None
    except Exception as error:  # python-socks has a tree of its own, which is not imported here
        if type(error).__module__.partition(".")[0] not in ("python_socks", "aiohttp_socks"):
            raise
        raise faults.unreachable(f"proxy: {type(error).__name__}") from None


def _ready(content: aiohttp.StreamReader) -> bytes:
    try:
        return content.read_nowait()
    except _BROKEN as error:
        raise faults.broken(type(error).__name__) from None


async def _body(content: aiohttp.StreamReader) -> bytes:
    try:
        return await content.readany()
    except _BROKEN as error:
        raise faults.broken(type(error).__name__) from None


def socks_connector(proxy: str, options: Mapping[str, Any]) -> aiohttp.BaseConnector:
    """A connector through a SOCKS proxy. Raises OurError without the extra, UpstreamFailure for what is no address."""
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError:
        raise faults.refused("SOCKS proxies need the extra `socks`") from None
    try:
        connector: aiohttp.BaseConnector = ProxyConnector.from_url(proxy, **options)
    except ValueError:
        raise faults.refused("not a proxy address") from None
    return connector
