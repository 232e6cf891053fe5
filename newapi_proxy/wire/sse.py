"""Server-sent events: bytes to frames, fields to bytes.

The decoder follows the WHATWG event-stream rules (CR, LF, CRLF, BOM, comments, multi-line data, no blank line at the
end), is fed any cut of the stream and keeps each frame's raw bytes, so that a frame can be forwarded untouched.
"""

from __future__ import annotations

import re
from typing import Any, Final

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.wire import tree

CAP: Final = 32 * 1024 * 1024  # one event; providers send whole images as base64 in one
_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class Frame:
    """One event: `raw` as it came (terminator included), `event` its name, `data` its payload.

    `data` is None for a frame that carries none (comments, bare fields). `tree` is the payload as JSON, parsed once:
    None where it is not JSON.
    """

    __slots__ = ("_tree", "data", "event", "raw")

    def __init__(self, raw: bytes, event: str, data: bytes | None) -> None:
        self.raw = raw
        self.event = event
        self.data = data
        self._tree: Any = _UNREAD

    @property
    def tree(self) -> Any:
        """The payload parsed; None where it is no JSON (`[DONE]`, broken text)."""
        if self._tree is _UNREAD:
            self._tree = None if self.data is None or self.data == b"[DONE]" else tree.lenient(self.data)
        return self._tree

    @property
    def done(self) -> bool:
        """OpenAI's terminator."""
        return self.data is not None and self.data.strip() == b"[DONE]"


_UNREAD: Final = object()


class Decoder:
    """Any cut of a stream in, whole frames out. Raises UpstreamFailure above `cap` bytes without a frame's end."""

    def __init__(self, cap: int = CAP) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._cap = cap
        self._begun = False

    def feed(self, data: bytes) -> list[Frame]:
        """Takes the next bytes; returns the frames that they complete."""
        buffer = self._buffer
        if not buffer and data.endswith(b"\n\n") and data.find(b"\r") < 0:
            pieces = data.split(b"\n\n")
            if not pieces.pop():  # whole frames, as usual: nothing to look for and nothing to keep
                return [self._frame(piece + b"\n\n") for piece in pieces]
        buffer += data
        frames: list[Frame] = []
        start = 0
        while True:
            end = self._end(max(start, self._scanned))
            if end < 0:
                break
            frames.append(self._frame(bytes(buffer[start:end])))
            start = end
        if start:
            del buffer[:start]
        if len(buffer) > self._cap:
            size = len(buffer)
            buffer.clear()
            raise UpstreamFailure(
                "The upstream sent an event that is too large.", detail=f"event above {self._cap} bytes ({size})"
            )
        self._scanned = max(0, len(buffer) - 3)
        return frames

    def close(self) -> list[Frame]:
        """The stream has ended: what is left is a last frame without its blank line, if it holds anything."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        if not rest.strip():
            return []
        return [self._frame(rest)]

    @property
    def empty(self) -> bool:
        """Whether the last byte that came ended a frame."""
        return not self._buffer

    def _end(self, start: int) -> int:
        buffer = self._buffer
        plain = buffer.find(b"\n\n", start)
        if buffer.find(b"\r", start, plain if plain >= 0 else len(buffer)) < 0:
            return plain + 2 if plain >= 0 else -1
        found = _END.search(buffer, start)
        if found is None:
            return -1
        if found.end() == len(buffer) and buffer.endswith(b"\r"):
            return -1  # a line feed that belongs to this carriage return may still come
        return found.end()

    def _frame(self, raw: bytes) -> Frame:
        body = raw
        if not self._begun:
            self._begun = True
            body = body.removeprefix(_BOM)
        if body.startswith(b"data:") and body.find(b"\n") == len(body) - 2 and body.find(b"\r") < 0:
            return Frame(raw, "", body[6:-2] if body[5:6] == b" " else body[5:-2])
        event, lines = "", []
        for line in _LINE.split(body):
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                lines.append(value)
            elif name == b"event":
                event = value.decode("utf-8", "replace")
        return Frame(raw, event, b"\n".join(lines) if lines else None)


def encode(data: bytes, event: str = "") -> bytes:
    """One frame of one-line data, LF line ends."""
    if event:
        return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
