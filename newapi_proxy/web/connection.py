"""One connection to an upstream and the response that is under way on it.

Bytes are pushed from the protocol's callback; whoever waits is woken once per read, through one future, without a
task or a timer. Knows `Reading` for the bytes and a `Lot` to go back to; nothing of addresses, retries or deadlines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final, Protocol, cast

from aiohttp import hdrs
from aiohttp.http import RawResponseMessage

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt, Take
from newapi_proxy.web import faults
from newapi_proxy.web.decoding import Decoder
from newapi_proxy.web.reading import Reading
from newapi_proxy.wire.multipart import Upload

READ: Final = 32 * 1024  # one read; with HIGH it bounds what a stream holds unread to 64 KiB
HIGH: Final = 32 * 1024  # reading stops above this many unread bytes
SEND: Final = 64 * 1024  # pieces in which a large body is handed to the transport, and its high-water mark


class Lot(Protocol):
    """Where connections without work stand."""

    def release(self, connection: Connection) -> None:
        """The connection may be used again."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""
        ...


class Response:
    """`ports.Incoming` over a connection of our own. `fault` is why there will be no more, None while all is well."""

    __slots__ = (
        "_connection",
        "_decoder",
        "_encoding",
        "_ended",
        "_error",
        "_headers",
        "_interrupt",
        "_loop",
        "_message",
        "_pieces",
        "_take",
        "_unread",
        "_waiter",
        "fault",
        "heard",
        "status",
    )

    def __init__(self, connection: Connection, interrupt: Interrupt, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.fault: str | None = None
        self.heard = False  # whether a single byte has come: a reused connection is given a second chance until then
        self._connection: Connection | None = connection
        self._interrupt = interrupt
        self._loop = loop
        self._message: RawResponseMessage | None = None
        self._headers: dict[str, str] | None = None
        self._encoding = ""
        self._decoder: Decoder | None = None
        self._pieces: list[bytes] = []
        self._unread = 0
        self._ended = False
        self._take: Take | None = None
        self._error: Exception | None = None  # what `take` raised
        self._waiter: asyncio.Future[None] | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case, the first value of each; without length and encoding where the body is decoded."""
        if self._headers is None:
            self._headers = plain(self._message.headers if self._message is not None else {}, bool(self._encoding))
        return self._headers

    async def arrival(self) -> None:
        """Waits for the head, or a fault instead of it."""
        while not self.status and self.fault is None:
            await self._wait()

    async def read(self) -> bytes:
        """What has arrived since the last read, decoded; b"" at the end."""
        while True:
            if self._interrupt.cause is not None:
                self.close()
                raise self._interrupt.cause
            if self._pieces or (self._decoder is not None and self._decoder.pending):
                data = self._taken()
                if data:
                    return data
            elif self.fault is not None:
                raise faults.broken(self.fault)
            elif self._ended:
                if self._decoder is not None:
                    self._decoder.finish()
                return b""
            else:
                await self._wait()

    async def flow(self, take: Take) -> bool:
        """Hands on what comes, in the callback in which it comes: no task is woken for it."""
        while True:
            if self._pieces or self._ended or self._interrupt.cause is not None or self._decoder is not None:
                data = await self.read()
                if not data:
                    return True
                if not take(data):
                    return False
                continue
            self._take = take
            try:
                await self._wait()
            finally:
                flowing, self._take = self._take is not None, None
            if self._error is not None:
                raise self._error
            if not flowing:
                return False

    def hand(self, body: bytes) -> bool:
        """Gives the bytes to who takes them at once, if anybody does."""
        take = self._take
        if take is None or self._interrupt.cause is not None or self._encoding:
            return False
        try:
            more = take(body)
        except Exception as error:  # the taker's own, for the one who waits
            self._error, more = error, False
        if not more:
            self._take = None
            self.wake()
        return True

    async def whole(self, limit: int) -> bytes:
        """The rest of the body."""
        if self._ended and self._unread <= limit and not (self._encoding or self.fault or self._interrupt.cause):
            return self._taken()  # it came with its head, as answers that are not streamed do
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > limit:
                self.close()
                raise faults.too_large(limit)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Lets go; an unfinished response takes its connection with it, and whoever waits for it learns so."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            self.end("closed before the end of the response")
            self._pieces.clear()
            self._decoder = None

    def begin(self, message: RawResponseMessage) -> None:
        """The head is there."""
        self._message = message
        self.status = message.code
        if hdrs.CONTENT_ENCODING in message.headers:
            self._encoding = encoding(",".join(message.headers.getall(hdrs.CONTENT_ENCODING)))

    def push(self, body: bytes) -> bool:
        """More of the body; whether there is now so much of it unread that the connection should stop reading."""
        self._pieces.append(body)
        self._unread += len(body)
        return self._unread > HIGH

    def end(self, fault: str | None) -> None:
        """No more will come: the end, or the reason."""
        self._connection = None
        self._ended = True
        self.fault = fault
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wake(self) -> None:
        """Tells the one who waits that something has happened."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = waiter = self._loop.create_future()
        try:
            self._interrupt.watch(waiter)
            await waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    def _taken(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._encoding:
            try:
                data = self._decoded(data)
            except UpstreamFailure as failure:
                self.close()
                self.fault, self._decoder = failure.detail, None
                raise
            if self._decoder is not None and self._decoder.pending:
                return data  # what waits inside the decoder still counts as unread
        if self._unread > HIGH and self._connection is not None:
            self._connection.resume()
        self._unread = 0
        return data

    def _decoded(self, data: bytes) -> bytes:
        if self._decoder is None:
            self._decoder = Decoder(self._encoding)
        return self._decoder.decode(data)


class Connection(asyncio.BufferedProtocol):
    """A protocol that carries one exchange after the other; `idle_since` in the loop's time while it carries none."""

    __slots__ = (
        "_buffer",
        "_closed",
        "_cut_short",
        "_lot",
        "_reading",
        "_response",
        "_stopped",
        "_transport",
        "_unsent",
        "_write_paused",
        "idle_since",
        "loop",
        "origin",
    )

    def __init__(self, origin: str, buffer: memoryview, lot: Lot, loop: asyncio.AbstractEventLoop) -> None:
        """`buffer` may be shared: it is filled and emptied within one callback."""
        self.origin = origin
        self.idle_since = 0.0
        self._buffer = buffer
        self.loop = loop
        self._lot = lot
        self._reading = Reading()
        self._response: Response | None = None
        self._transport: asyncio.Transport | None = None
        self._unsent: Iterator[bytes | memoryview] | None = None
        self._cut_short = False  # the request was not sent to its end
        self._stopped = False  # reading
        self._write_paused = False
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether a request may be sent."""
        return not self._closed

    def send(self, method: str, head: bytes, body: bytes | Upload, interrupt: Interrupt) -> Response:
        """Begins an exchange. The response wakes whoever waits on it."""
        assert self._response is None
        assert self._transport is not None
        self._reading.expect(method)
        self._response = response = Response(self, interrupt, self.loop)
        if isinstance(body, bytes) and len(body) <= SEND:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = _sliced(body) if isinstance(body, bytes) else body.pieces(SEND)
            self._send_more()
        return response

    def abort(self) -> None:
        """Closes at once; what is unsent is dropped, the response under way is not told."""
        self._response = None
        self._unsent = None
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """The reader has caught up."""
        if self._stopped and self._transport is not None:
            self._stopped = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=SEND)
        if self._closed:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read into."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes have come. The one path that every response takes."""
        response = self._response
        if response is None:
            self.abort()  # an answer nobody asked for (U31)
            return
        response.heard = True
        reading = self._reading
        body = reading.feed(bytes(self._buffer[:nbytes]))
        if reading.head is None:
            if reading.fault is not None:
                self._finish(response)
            return
        if not response.status:
            response.begin(reading.head)
            if self._unsent is not None:  # an early answer: stop sending, use it (U32)
                self._unsent = None
                self._cut_short = True
        elif not body and not reading.ended and reading.fault is None:
            return
        handed = full = False
        if body:
            handed = response.hand(body)
            full = not handed and response.push(body)
        if reading.ended or reading.fault is not None:
            self._finish(response)
            return
        if full and not self._stopped and self._transport is not None:
            self._stopped = True
            self._transport.pause_reading()
        if not handed:
            response.wake()

    def eof_received(self) -> bool:
        """asyncio: the peer has sent its last byte."""
        self._cut(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: gone, for whatever reason."""
        self._cut(exc)
        self._closed = True
        self._transport = None
        self._lot.lost(self)

    def pause_writing(self) -> None:
        """asyncio: the peer is slow."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """asyncio: the peer has caught up."""
        self._write_paused = False
        self._send_more()

    def _send_more(self) -> None:
        while self._unsent is not None and not self._write_paused and self._transport is not None:
            piece = next(self._unsent, None)
            if piece is None:
                self._unsent = None
            else:
                self._transport.write(piece)

    def _cut(self, exc: Exception | None) -> None:
        self._closed = True
        response = self._response
        if response is None:
            return
        if exc is not None and not self._reading.ended:
            self._reading.fault = faults.reason(exc)
        else:
            self._reading.eof()
        self._finish(response)

    def _finish(self, response: Response) -> None:
        reading = self._reading
        self._response = None
        transport = self._transport
        sent = not self._cut_short and transport is not None and transport.get_write_buffer_size() == 0
        if reading.reusable and reading.fault is None and sent and not self._closed:
            if self._stopped:
                self.resume()
            response.end(None)
            self._lot.release(self)
        else:
            self.abort()
            response.end(reading.fault)


def _sliced(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    for at in range(0, len(view), SEND):
        yield view[at : at + SEND]


def encoding(value: str) -> str:
    """The one content encoding that a header names, "" for none; several stay as they are and will be refused."""
    names = [name for part in value.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    return ",".join(names)


def plain(headers: Mapping[str, str], decoded: bool) -> dict[str, str]:
    """Names in lower case, the first value of each, bytes that are not UTF-8 replaced.

    What described the encoded body is left out where it is decoded.
    """
    found: dict[str, str] = {}
    for name, value in headers.items():
        low = name.lower()
        if low not in found and not (decoded and low in ("content-encoding", "content-length")):
            raw = value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found[low] = raw
    return found
