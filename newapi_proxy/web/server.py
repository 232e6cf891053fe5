"""Client connections on aiohttp's server protocol: parsing, limits and keep-alive are aiohttp's, the rest is here.

Added: the departure is told to the answer in progress at once, deadlines for a dripping head and for a client that
stops reading, answers written without response objects, retiring while the daemon drains. aiohttp's own parts that this
file relies on (of 3.14): `start` is the connection's one task, here without a task, a writer and a response of
aiohttp's for each request; `data_received` fills `_messages` and wakes `_waiter`; `shutdown` reads what `_serve` keeps;
`finish_response` takes up what came behind an upgrade that was declined, and needs `_finish`, `prepare` and
`write_eof`; the parser is paused by `pause_reading` only, or by a full queue; a payload's pieces are its `_buffer`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestPayloadError
from multidict import CIMultiDictProxy

from newapi_proxy import log, metrics
from newapi_proxy.web.sink import Reply

HEAD_SECONDS: Final = 10.0  # from a head's first byte to its last
STALL_SECONDS: Final = 60.0  # in which a client with a full buffer must read something
IDLE_SECONDS: Final = 75.0  # between two requests
LINGER_SECONDS: Final = 5.0  # for the rest of a request that was answered early
HIGH_WATER: Final = 65536
SMALL: Final = 65536  # bytes of a body below aiohttp's mark: they hold no reading up, whether they are taken or not
HTTP10: Final = (1, 0)
LIMITS: Final[dict[str, Any]] = {
    "keepalive_timeout": IDLE_SECONDS,
    "access_log": None,
    "auto_decompress": False,  # bounded inflation is `inbound`'s
    "max_line_size": 8190,
    "max_field_size": 16384,
    "max_headers": 128,
}


class Sent(web.StreamResponse):
    """What aiohttp gets in place of a response: the bytes are out already."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._reusable = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection goes on."""
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing left to write."""


KEPT: Final = Sent(True)
CLOSED: Final = Sent(False)


class Arrival:
    """One request as the parser left it, with the answer that belongs to it. In place of aiohttp's request object."""

    __slots__ = ("connection", "headers", "method", "payload", "reply", "target")

    def __init__(self, message: RawRequestMessage, payload: StreamReader, connection: Inlet) -> None:
        self.method: str = message.method
        self.target: str = message.path
        self.headers: CIMultiDictProxy[str] = message.headers
        self.payload = payload
        self.connection = connection
        self.reply = connection.reply = Reply(
            connection,
            http10=message.version <= HTTP10,
            reusable=not message.should_close,
            bare=message.method == "HEAD",
            complete=payload.is_eof,
        )
        connection.payload = payload

    def body(self) -> bytes | None:
        """The body, where all of it came at once and no larger than the parser's buffer; None: it must be read."""
        if self.payload is EMPTY_PAYLOAD:  # which has no buffer
            return b""
        pieces = self.payload._buffer
        return pieces[0] if len(pieces) == 1 and self.payload.is_eof() and len(pieces[0]) <= SMALL else None

    def _finish(self) -> None:
        """aiohttp: the handler is done."""
        self.connection.reply = self.connection.payload = None

    def _cancel(self, error: BaseException) -> None:
        """aiohttp: the connection broke; whoever reads the body learns it."""
        self.payload.set_exception(error)


Handler = Callable[[Arrival], Awaitable[Sent]]
Refusal = Callable[[Arrival, int], None]


class Server(web.Server):
    """Makes connections, and keeps them until they end. `refuse` answers what could not be parsed."""

    def __init__(self, handler: Handler, refuse: Refusal) -> None:
        super().__init__(cast("Any", handler), handler_cancellation=False, **LIMITS)
        self.handler = handler
        self.refuse = refuse
        self.retiring = False

    def __call__(self) -> Inlet:
        """A connection's protocol, for `create_server`."""
        return Inlet(self, loop=self._loop, **self._kwargs)

    def retire(self) -> None:
        """From now on each answer is its connection's last."""
        self.retiring = True

    def close_idle(self) -> int:
        """Closes the connections that serve nothing now; the number of those that do."""
        busy = 0
        for connection in cast("list[Inlet]", self.connections):
            if connection.busy:
                busy += 1
            else:
                connection.force_close()
        return busy

    def abort(self) -> None:
        """Drops every connection at once."""
        for connection in cast("list[Inlet]", self.connections):
            if connection.transport is not None:
                connection.transport.abort()


class Inlet(web.RequestHandler):
    """The protocol of one connection. `peer` is the address as the socket has it, "" for a unix socket."""

    __slots__ = ("_head_timer", "_server", "_stall_left", "_stall_timer", "_stream", "payload", "peer", "reply")

    def __init__(self, server: Server, *, loop: asyncio.AbstractEventLoop, **named: Any) -> None:
        super().__init__(server, loop=loop, **named)
        self._server = server
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._stall_left = 0
        self._stream: asyncio.Transport | None = None  # `transport` is forgotten when closing begins, this one is not
        self.peer = ""
        self.reply: Reply | None = None
        self.payload: StreamReader | None = None  # of the request that `reply` answers

    @property
    def retiring(self) -> bool:
        """Whether the answer in progress must be the last."""
        return self._server.retiring

    @property
    def upgradable(self) -> bool:
        """Whether the last request asks for another protocol, and nothing came before it that waits."""
        return self._upgraded and not self._messages

    @property
    def busy(self) -> bool:
        """Whether a request is being served or waits to be."""
        return self._request_in_progress or bool(self._messages)

    def log_exception(self, *args: Any, **named: Any) -> None:
        """What got past the edge: counted, and a line with its place."""
        error = named.get("exc_info")
        metrics.bug()
        if isinstance(error, BaseException):
            log.bug(error, where="connection")
        else:
            log.logger().error("bug", where="connection")

    async def drained(self) -> None:
        """Waits until the write buffer is below its mark; raises ConnectionError when the connection breaks."""
        await self._drain_helper()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        super().connection_made(transport)
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=HIGH_WATER)
        self._stream = stream
        address = stream.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""

    async def start(self) -> None:
        """aiohttp: the connection's task, from its first request to its last."""
        loop = self._loop
        while not self._force_close:
            if not self._messages:
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, payload = self._taken()
            try:
                await self._serve(message, payload)
            except ConnectionError:
                break
            except Exception as error:
                self.log_exception("Unhandled exception", exc_info=error)
                self.force_close()
            except BaseException:
                self.force_close()
                raise
            if not self._keepalive or self._close or self._force_close:
                break
            self._next_keepalive_close_time = due = loop.time() + IDLE_SECONDS
            if self._keepalive_handle is None:
                self._keepalive_handle = loop.call_at(due, self._process_keepalive)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def _taken(self) -> tuple[Any, StreamReader]:
        """The next message; what waits behind a full queue gets its place."""
        taken = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return taken

    async def _serve(self, message: Any, payload: StreamReader) -> None:
        """One request to its answer's end. Raises ConnectionError when there is nobody to answer."""
        self._server.requests_count += 1
        sound = isinstance(message, RawRequestMessage)
        arrival = Arrival(message if sound else ERROR, payload, self)
        self._request_in_progress = True
        self._current_request = arrival  # type: ignore[assignment]
        try:
            try:
                sent = await self._server.handler(arrival) if sound else self._refused(arrival, message.status)
            except Exception as error:
                self.log_exception("Unhandled exception", exc_info=error)
                sent = self._refused(arrival, 500)
            self._current_request = None
            if self._upgraded:
                await self.finish_response(cast("Any", arrival), sent, None)
            else:
                arrival._finish()
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        self._keepalive = bool(sent.keep_alive)
        if not payload.is_eof():
            await self._linger(payload)

    async def _linger(self, payload: StreamReader) -> None:
        """Reads the rest of a request that was answered before its end: a reset would take the answer along."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not payload.is_eof() and not self._force_close:
                    await payload.readany()
        except TimeoutError:
            self.close()
        except Exception:
            if payload.exception() is None:
                raise
            self.close()  # the body broke off, which is what the answer said: no more of it will come

    def data_received(self, data: bytes) -> None:
        """Bytes of a request. A head that is not complete with them has its deadline from now on."""
        super().data_received(data)
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            self._garbled()
        if self._messages or self._request_in_progress:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None and not self._force_close:
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._head_late)

    def _garbled(self) -> None:
        """What came is no HTTP: aiohttp answers that in its turn, but a body it stands in would be waited for."""
        payload = self._messages[-2][1] if len(self._messages) > 1 else self.payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(RequestPayloadError("the body's framing is broken"))

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.busy:
            self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The body's buffer has room again; asked after each read, though hardly ever was reading paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """The buffer is above its mark: the client must read something within the deadline."""
        super().pause_writing()
        self._stall_left = self._unsent()
        self._stall_timer = self._loop.call_later(STALL_SECONDS, self._stalled)

    def resume_writing(self) -> None:
        """The buffer is below its mark."""
        super().resume_writing()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _unsent(self) -> int:
        return self._stream.get_write_buffer_size() if self._stream is not None else 0

    def _stalled(self) -> None:
        self._stall_timer = None
        left = self._unsent()
        if self._stream is not None and left >= self._stall_left:
            self._stream.abort()
        else:
            self._stall_left = left
            self._stall_timer = self._loop.call_later(STALL_SECONDS, self._stalled)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone: the answer in progress is told at once."""
        reply = self.reply
        super().connection_lost(exc)
        self._stream = None
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = None
        if reply is not None:
            reply.lost()

    def _refused(self, arrival: Arrival, status: int) -> Sent:
        """Answers what could not be parsed, and is the last resort for a handler that failed."""
        if arrival.reply.started:
            raise ConnectionError("an answer is out already")
        arrival.reply.keep_alive = False
        self._server.refuse(arrival, status)
        return CLOSED


def bounded(listener: socket.socket) -> None:
    """Lets the kernel drop clients that acknowledge nothing for the stall deadline; accepted sockets inherit it."""
    if listener.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_SECONDS * 1000))
