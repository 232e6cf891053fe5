"""The client's end of one exchange: HTTP bytes straight to the connection, none of aiohttp's response objects.

Knows HTTP framing (length, chunks, close), the headers that every answer carries, keep-alive. Must not know what an
answer says. Header values that came from elsewhere cannot break out of their line (reliability §2.7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from time import gmtime, strftime
from typing import Final, Protocol

from newapi_proxy.clock import SystemClock
from newapi_proxy.ports import Departure

SSE: Final = "text/event-stream; charset=utf-8"
JSON: Final = "application/json"
_UNBUFFERED: Final = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_NO_BODY: Final = frozenset({204, 304})
_OURS: Final = frozenset(
    {
        "access-control-allow-origin",
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-oneapi-request-id",
        "x-request-id",
    }
)
LONGEST: Final = 4096  # of a header's value: some name what the request held, and clients and proxies bound theirs
_LINES: Final = {one.value: b"HTTP/1.1 %d %b\r\n" % (one.value, one.phrase.encode()) for one in HTTPStatus}
_ANY_ORIGIN: Final = b"Access-Control-Allow-Origin: *\r\n"
_COPIED_BELOW: Final = 65536  # larger pieces go to the transport as they are, beside their frame
_date: list[int | bytes] = [0, b""]


class Line(Protocol):
    """The connection as an answer needs it."""

    transport: asyncio.Transport | None

    @property
    def retiring(self) -> bool:
        """Whether this answer must be the connection's last."""
        ...

    @property
    def writing_paused(self) -> bool:
        """Whether the write buffer is above its mark."""
        ...

    async def drained(self) -> None:
        """Waits until it is below again; raises ConnectionError when the connection breaks."""
        ...


class Reply:
    """One answer. `keep_alive` afterwards says whether the connection may serve another request.

    `bare`: a HEAD request, whose answer has no body. `reusable`: the client would keep the connection. `complete`:
    whether the request has come to its end; an answer before that is the connection's last.
    """

    __slots__ = (
        "_chunked", "_complete", "_gone", "_head", "_line", "bare", "ended", "http10", "keep_alive", "request_id",
        "started",
    )  # fmt: skip

    def __init__(self, line: Line, *, http10: bool, reusable: bool, bare: bool, complete: Callable[[], bool]) -> None:
        self._line = line
        self._complete = complete
        self._gone: Departure | None = None
        self._head = b""
        self._chunked = False
        self.request_id = ""
        self.http10 = http10
        self.keep_alive = reusable
        self.bare = bare
        self.started = False
        self.ended = False

    @property
    def departed(self) -> bool:
        """Whether the client has gone."""
        transport = self._line.transport
        return transport is None or transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether the client's buffer is above its mark."""
        return self._line.writing_paused

    def watch(self, gone: Departure | None) -> None:
        """Whom to tell when the client goes; told at once if it has gone already."""
        self._gone = gone
        if gone is not None and self.departed:
            gone()

    def lost(self) -> None:
        """The connection broke: whoever watches is told."""
        if self._gone is not None:
            self._gone()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begins a streamed answer; the head leaves with the first write. A stream of events unless typed otherwise."""
        assert not self.started, "one answer per request"
        self.started = True
        self._chunked = not self.http10
        self.keep_alive = self.keep_alive and self._chunked
        self._head = self._made(status, headers, _CHUNKED if self._chunked else b"", streamed=True)

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Hands bytes to the connection; what a departed client would have got is lost."""
        transport = self._line.transport
        if transport is None or transport.is_closing() or not data:
            return
        if more and len(data) < _COPIED_BELOW and not self.bare:  # one write less: they wait for the last ones
            self._head += b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
            return
        head, self._head = self._head, b""
        if self.bare:
            transport.write(head)
        elif not self._chunked:
            transport.write(head + data)
        elif len(data) < _COPIED_BELOW:
            transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        else:
            transport.writelines((b"%b%x\r\n" % (head, len(data)), data, b"\r\n"))

    async def drain(self) -> None:
        """Waits until the buffer is below its mark, or the client has gone."""
        try:
            await self._line.drained()
        except ConnectionError:
            return

    def end(self, data: bytes = b"") -> None:
        """Ends a streamed answer; its last bytes and its end leave together."""
        if self.ended:
            return
        self.ended = True
        transport = self._line.transport
        if transport is not None and not transport.is_closing():
            tail = b"" if self.bare else data
            if self._chunked and not self.bare:
                tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
            if self._head or tail:
                transport.write(self._head + tail)
        self._head = b""

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """A whole answer at once; JSON unless typed otherwise."""
        assert not self.started, "one answer per request"
        self.started = self.ended = True
        length = b"" if status in _NO_BODY else b"Content-Length: %d\r\n" % len(body)
        head = self._made(status, headers, length, streamed=False)
        transport = self._line.transport
        if transport is None or transport.is_closing():
            return
        if self.bare or status in _NO_BODY:
            transport.write(head)
        elif len(body) < _COPIED_BELOW:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    def page(self, status: int, headers: Sequence[tuple[str, str]], body: bytes, cookies: Sequence[str] = ()) -> None:
        """A whole answer of our own pages: it sets cookies, and other origins' scripts may not read it."""
        assert not self.started, "one answer per request"
        self.started = self.ended = True
        framing = b"".join(b"Set-Cookie: %b\r\n" % _clean(one).encode("latin-1", "replace") for one in cookies)
        framing += b"Content-Length: %d\r\n" % len(body)
        head = self._made(status, headers, framing, streamed=False).replace(_ANY_ORIGIN, b"", 1)
        transport = self._line.transport
        if transport is not None and not transport.is_closing():
            transport.write(head if self.bare else head + body)

    def _made(self, status: int, headers: Sequence[tuple[str, str]], framing: bytes, *, streamed: bool) -> bytes:
        """The head's bytes."""
        if self._line.retiring or not self._complete():
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif self.http10:
            framing += b"Connection: keep-alive\r\n"
        request_id = self.request_id.encode()
        return b"%b%bX-Request-Id: %b\r\nX-Oneapi-Request-Id: %b\r\nDate: %b\r\n\r\n" % (
            _given(status, tuple([(name, value[:LONGEST]) for name, value in headers]) if headers else (), streamed),
            framing,
            request_id,
            request_id,
            _now(),
        )


@lru_cache(maxsize=512)
def _given(status: int, headers: tuple[tuple[str, str], ...], streamed: bool) -> bytes:
    """What an answer's head says before its framing: mostly the same few, so made once."""
    lines = [_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status, _ANY_ORIGIN]
    kind = next((value for name, value in headers if name.lower() == "content-type"), None)
    more: list[tuple[str, str]] = []
    if kind is None and status not in _NO_BODY:
        more.append(("Content-Type", SSE if streamed else JSON))
    if streamed and (kind is None or kind.startswith("text/event-stream")):
        more += _UNBUFFERED
    names = {name.lower() for name, _ in headers}
    for name, value in (*headers, *(one for one in more if one[0].lower() not in names)):
        if name.lower() not in _OURS:
            lines.append(f"{_clean(name)}: {_clean(value)}\r\n".encode("latin-1", "replace"))
    return b"".join(lines)


def _clean(text: str) -> str:
    """The text without anything that could end the line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _now() -> bytes:
    """The time as HTTP writes it; made once a second."""
    second = int(SystemClock.wall())
    if _date[0] != second:
        _date[0], _date[1] = second, strftime("%a, %d %b %Y %H:%M:%S GMT", gmtime(second)).encode()
    text = _date[1]
    assert isinstance(text, bytes)
    return text
