"""Responses out of bytes: aiohttp's C parser for the heads, driven without a socket; bodies are framed here.

Sans-io. One per connection; `expect`, then `feed` until `ended` or `fault`. A cut anywhere gives the same response.
What is no response, or too much of one, is a fault in words for the log. The parser is told that no answer has a body,
so that it stops behind each head: its own way to a body is an object per answer and four calls per chunk.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import hdrs
from aiohttp.http import RawResponseMessage
from aiohttp.http_parser import HttpResponseParser

from newapi_proxy.web.chunks import Chunks

MAX_HEAD: Final = 64 * 1024  # bytes of all heads of one exchange, 1xx included
MAX_FIELD: Final = 16 * 1024
MAX_FIELDS: Final = 256
MAX_INTERIM: Final = 16  # 1xx before the answer
_INTERIM: Final = frozenset(range(100, 200)) - {101}  # nobody asked for another protocol
_BODYLESS: Final = frozenset({204, 304})
_OPEN: Final = -1  # a body that ends with the connection


class _Flow:
    """What the parser wants of a protocol and of a loop: nothing, as there are no bodies."""

    _reading_paused = False


_FLOW: Final[Any] = _Flow()


class Reading:
    """The state of one connection's answers.

    `head` is the final response's head once it is there, `fault` why there will be no more, `reusable` whether the
    next answer may come over the same connection.
    """

    __slots__ = (
        "_chunks", "_fed", "_interim", "_kept", "_last", "_left", "_parser", "ended", "fault", "head", "reusable"
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = HttpResponseParser(
            _FLOW,
            _FLOW,
            0,
            max_line_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
            max_field_size=MAX_FIELD,
            response_with_body=False,
            auto_decompress=False,
        )
        self.expect("GET")

    def expect(self, method: str) -> None:
        """Begins a new answer; the last one has ended and was `reusable`, or there was none."""
        self._kept = b""  # of a head that has not come to its end
        self._fed = 0  # bytes of heads that the parser has taken
        self._interim = 0
        self._left = 0  # bytes of the body that have not come, or _OPEN
        self._chunks: Chunks | None = None
        self.head: RawResponseMessage | None = None
        self.fault: str | None = None
        self.ended = False
        self.reusable = False
        self._last = method == "HEAD"  # whether its answer has no body, whatever its head says

    def feed(self, data: bytes) -> bytes:
        """The body's bytes among these."""
        if self.head is None:
            data = self._headed(data)
            if self.head is None:
                return b""
        if self._chunks is not None:
            return self._unchunked(self._chunks, data)
        if self._left < 0:
            return data
        if len(data) < self._left:
            self._left -= len(data)
            return data
        left, self._left = self._left, 0
        if len(data) == left:
            self._end(b"")
            return data
        self._end(data[left:])
        return data[:left]

    def eof(self) -> None:
        """The peer has closed its side: the end of a body without a length, a fault anywhere else."""
        if self.ended or self.fault is not None:
            return
        if self.head is None:
            self.fault = "closed inside the head" if self._fed or self._kept else "closed before an answer"
        elif self._chunks is None and self._left < 0:
            self.ended = True
        else:
            self.fault = "closed inside the body"

    def _headed(self, data: bytes) -> bytes:
        """Hands heads to the parser; what stands behind the final one."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        while self.head is None and self.fault is None:
            end = _head_end(data)
            if end < 0:
                self._kept = data
                if self._fed + len(data) > MAX_HEAD:
                    self.fault = "the head is too large"
                elif not _answers(data):
                    self.fault = "no HTTP"  # its end may never come
                break
            try:
                messages, _, _ = self._parser.feed_data(data[:end])
            except Exception as error:  # the parser's own tree, and whatever broken bytes make of it
                self.fault = _words(error)
                break
            data = data[end:]
            self._fed += end
            if self._fed > MAX_HEAD:
                self.fault = "the head is too large"
                break
            for message, _ in messages:
                if 200 <= message.code <= 599:
                    self.head = message
                    self._frame(message)
                else:
                    self._pass(message.code)
        return data

    def _pass(self, code: int) -> None:
        """A head that is not the answer's."""
        if code in _INTERIM:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self.fault = "too many 1xx responses"
        else:
            self.fault = f"status {code}"

    def _frame(self, message: RawResponseMessage) -> None:
        """How the body will end (RFC 9112 §6.3); the parser has refused a length that is none, or two of them."""
        if self._last or message.code in _BODYLESS:
            self._left = 0
        elif message.chunked:
            self._chunks = Chunks()
        elif hdrs.TRANSFER_ENCODING in message.headers:
            self._left = _OPEN
        else:
            self._left = int(message.headers.get(hdrs.CONTENT_LENGTH, _OPEN))

    def _unchunked(self, chunks: Chunks, data: bytes) -> bytes:
        body = chunks.feed(data)
        if chunks.fault is not None:
            self.fault = chunks.fault
        elif chunks.ended:
            self._end(chunks.rest)
        return body

    def _end(self, rest: bytes) -> None:
        """The body is complete; `rest` came with it: another answer that nobody asked for, or what is no answer."""
        assert self.head is not None
        self.ended = True
        self.reusable = not (rest or self.head.should_close or self.head.upgrade)
        if rest and not _answers(rest):
            self.fault = "more bytes than the body's length"


def _answers(data: bytes) -> bool:
    """Whether an answer may begin with these bytes."""
    return b"HTTP/".startswith(data.lstrip(b"\r\n")[:5])


def _head_end(data: bytes) -> int:
    """Where the first empty line ends, -1 while there is none. A line may end in a bare line feed."""
    end = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, end if end >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return end + 3 if end >= 0 else -1


def _words(error: Exception) -> str:
    """The parser's complaint without the bytes it quotes, which may be an answer's text."""
    text = str(getattr(error, "message", "") or error)
    return f"{type(error).__name__}: {text.strip().partition(':')[0][:80]}"
