"""Responses out of bytes: aiohttp's C parser, driven without a socket.

Sans-io. One per connection; `expect`, then `feed` until `ended` or `fault`. A cut anywhere gives the same response.
What is no response, or too much of one, is a fault in words for the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from aiohttp import StreamReader
from aiohttp.http import RawResponseMessage
from aiohttp.http_parser import HttpResponseParser

MAX_HEAD: Final = 64 * 1024  # bytes of all heads of one exchange, 1xx included
MAX_FIELD: Final = 16 * 1024
MAX_FIELDS: Final = 256
MAX_INTERIM: Final = 16  # 1xx before the answer
_INTERIM: Final = frozenset(range(100, 200)) - {101}  # nobody asked for another protocol
_UNBOUNDED: Final = 1 << 30  # the parser's own back-pressure stays silent: each feed is emptied at once


class _Flow:
    """What the parser's stream wants of a protocol: nothing."""

    _reading_paused = False

    def pause_reading(self) -> None:
        """Never called below _UNBOUNDED."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called at each response's end."""


_FLOW: Final[Any] = _Flow()


class Reading:
    """The state of one connection's answers.

    `head` is the final response's head once it is there, `fault` why there will be no more, `reusable` whether the
    next answer may come over the same connection.
    """

    __slots__ = ("_fed", "_interim", "_last", "_parser", "_payload", "_surplus", "ended", "fault", "head", "reusable")

    def __init__(self) -> None:
        self._parser = _parser(bodied=True)
        self.expect("GET")

    def expect(self, method: str) -> None:
        """Begins a new answer; the last one has ended and was `reusable`, or there was none."""
        self._payload: StreamReader | None = None
        self._fed = 0
        self._interim = 0
        self._surplus = False
        self.head: RawResponseMessage | None = None
        self.fault: str | None = None
        self.ended = False
        self.reusable = False
        self._last = method == "HEAD"  # such an answer needs a parser of its own
        if self._last:
            self._parser = _parser(bodied=False)

    def feed(self, data: bytes) -> bytes:
        """The body's bytes among these."""
        try:
            messages, _, _ = self._parser.feed_data(data)
        except Exception as error:  # the parser's own tree, and whatever broken bytes make of it
            self.fault = _words(error)
            return b"" if self._payload is None else self._payload.read_nowait()
        if messages:
            self._take(messages)
        payload = self._payload
        if payload is None:
            self._fed += len(data)
            if self._fed > MAX_HEAD and self.fault is None:
                self.fault = "the head is too large"
            return b""
        body = payload.read_nowait()
        if payload.is_eof():
            self._end()
        return body

    def eof(self) -> None:
        """The peer has closed its side: the end of a body without a length, a fault anywhere else."""
        if self.ended or self.fault is not None:
            return
        try:
            self._parser.feed_eof()
        except Exception as error:
            self.fault = _words(error)
            return
        if self._payload is None:
            self.fault = "closed before an answer" if not self._fed else "closed inside the head"
        elif self._payload.is_eof():
            self.ended = True
        else:
            self.fault = "closed inside the body"

    def _take(self, messages: Iterable[tuple[RawResponseMessage, StreamReader]]) -> None:
        for message, payload in messages:
            if self.head is not None:
                self._surplus = True
            elif message.code in _INTERIM:
                self._interim += 1
                if self._interim > MAX_INTERIM:
                    self.fault = "too many 1xx responses"
            elif not 200 <= message.code <= 599:
                self.fault = f"status {message.code}"
            else:
                self.head, self._payload = message, payload

    def _end(self) -> None:
        assert self.head is not None
        self.ended = True
        if self._last or self._surplus or self.head.should_close or self.head.upgrade:
            return
        try:
            # a parser that has begun another message answers its end with that message
            self.reusable = self._parser.feed_eof() is None
        except Exception:
            self.reusable = False


def _parser(*, bodied: bool) -> HttpResponseParser:
    return HttpResponseParser(
        _FLOW,
        _FLOW,  # stands for the loop, which only a waiting reader would need
        _UNBOUNDED,
        max_line_size=MAX_FIELD,
        max_headers=MAX_FIELDS,
        max_field_size=MAX_FIELD,
        response_with_body=bodied,
        read_until_eof=True,
        auto_decompress=False,
    )


def _words(error: Exception) -> str:
    """The parser's complaint without the bytes it quotes, which may be an answer's text."""
    text = str(getattr(error, "message", "") or error)
    return f"{type(error).__name__}: {text.strip().partition(':')[0][:80]}"
