"""Client connections on aiohttp's server protocol: parsing, limits and keep-alive are aiohttp's, the rest is here.

Added: the departure is told to the answer in progress at once, deadlines for a dripping head and for a client that
stops reading, answers written without response objects, retiring while the daemon drains. aiohttp's own hooks that this
file relies on (of 3.14): the handler gets what `request_factory` makes, which needs `_finish`, `_cancel` and `_task`;
the handler's result needs `keep_alive`, `prepare` and `write_eof`; `handle_error` answers what could not be parsed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDictProxy

from newapi_proxy.web.sink import Reply

HEAD_SECONDS: Final = 10.0  # from a head's first byte to its last
STALL_SECONDS: Final = 60.0  # in which a client with a full buffer must read something
IDLE_SECONDS: Final = 75.0  # between two requests
HIGH_WATER: Final = 65536
HTTP10: Final = (1, 0)
LIMITS: Final[dict[str, Any]] = {
    "keepalive_timeout": IDLE_SECONDS,
    "access_log": None,
    "auto_decompress": False,  # bounded inflation is `inbound`'s
    "lingering_time": 5.0,
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

    __slots__ = ("_task", "connection", "headers", "method", "payload", "reply", "target")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.method: str = message.method
        self.target: str = message.path
        self.headers: CIMultiDictProxy[str] = message.headers
        self.payload = payload
        self.connection = cast("Inlet", connection)
        self._task = task
        self.reply = Reply(
            self.connection,
            http10=message.version <= HTTP10,
            reusable=not message.should_close,
            bare=message.method == "HEAD",
            complete=payload.is_eof,
        )
        self.connection.reply = self.reply
        self.connection.payload = payload

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
        super().__init__(
            cast("Any", handler), request_factory=cast("Any", Arrival), handler_cancellation=False, **LIMITS
        )
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
    def busy(self) -> bool:
        """Whether a request is being served or waits to be."""
        return self._request_in_progress or bool(self._messages)

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

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what could not be parsed, and is the last resort for a handler that failed."""
        arrival = cast("Arrival", request)
        if arrival.reply.started:
            raise ConnectionError("an answer is out already")
        arrival.reply.keep_alive = False
        self._server.refuse(arrival, status)
        return CLOSED


def bounded(listener: socket.socket) -> None:
    """Lets the kernel drop clients that acknowledge nothing for the stall deadline; accepted sockets inherit it."""
    if listener.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_SECONDS * 1000))
