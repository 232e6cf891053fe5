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
        frames: list[Frame] = []
        buffer = self._buffer
        if buffer:
            buffer += data
            end = self._end(buffer, self._scanned)
            if end < 0:
                self._keep(b"")
                return frames
            frames.append(self.frame(bytes(buffer[:end])))
            data = bytes(buffer[end:])
            buffer.clear()
        blank = _blank_line(data)
        if blank:  # one kind of line ends, as usual: nothing to look for
            pieces = data.split(blank)
            rest = pieces.pop()
            frames += [self.frame(piece + blank) for piece in pieces]
        else:
            start = 0
            while (end := self._end(data, start)) >= 0:
                frames.append(self.frame(data[start:end]))
                start = end
            rest = data[start:]
        if rest:
            self._keep(rest)
        return frames

    def _keep(self, rest: bytes) -> None:
        """Keeps what is no whole frame yet, within bounds."""
        buffer = self._buffer
        buffer += rest
        if len(buffer) > self._cap:
            size = len(buffer)
            buffer.clear()
            raise UpstreamFailure(
                "The upstream sent an event that is too large.", detail=f"event above {self._cap} bytes ({size})"
            )
        self._scanned = max(0, len(buffer) - 3)

    def close(self) -> list[Frame]:
        """The stream has ended: what is left is a last frame without its blank line, if it holds anything."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if not rest.strip():
            return []
        return [self.frame(rest)]

    @property
    def empty(self) -> bool:
        """Whether the last byte that came ended a frame."""
        return not self._buffer

    @staticmethod
    def _end(data: bytes | bytearray, start: int) -> int:
        """Where the first frame ends that begins before `start`; -1 where its end has not come."""
        if data.find(b"\r", start) < 0:
            plain = data.find(b"\n\n", start)
            return plain + 2 if plain >= 0 else -1
        found = _END.search(data, start)
        if found is None:
            return -1
        if found.end() == len(data) and data.endswith(b"\r"):
            return -1  # a line feed that belongs to this carriage return may still come
        return found.end()

    def frame(self, raw: bytes) -> Frame:
        """These bytes as one frame, its end with them; not while the beginning of another waits."""
        body = raw
        if not self._begun:
            self._begun = True
            body = body.removeprefix(_BOM)
        first = body.find(b"\n")
        if body.startswith(b"data:"):
            if first == len(body) - 2 and body.find(b"\r") < 0:
                return Frame(raw, "", body[6:-2] if body[5:6] == b" " else body[5:-2])
            if first == len(body) - 3 and body.find(b"\r") == first - 1 and body.endswith(b"\r\n\r\n"):
                return Frame(raw, "", body[6:-4] if body[5:6] == b" " else body[5:-4])
        elif (
            body.startswith(b"event: ")
            and body.startswith(b"data: ", first + 1)
            and body.find(b"\n", first + 1) == len(body) - 2
            and body.find(b"\r") < 0
        ):
            return Frame(raw, body[7:first].decode("utf-8", "replace"), body[first + 7 : -2])
        event, lines = "", []
        for line in _LINE.split(body):
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                lines.append(value)
            elif name == b"event":
                event = value.decode("utf-8", "replace")
        return Frame(raw, event, b"\n".join(lines) if lines else None)


def _blank_line(data: bytes) -> bytes:
    """What a blank line looks like in these bytes, where all of their lines end in the same way; b"" where not."""
    returns = data.count(b"\r")
    if not returns:
        return b"\n\n"
    if returns - data.endswith(b"\r") == data.count(b"\n") == data.count(b"\r\n"):
        return b"\r\n\r\n"
    return b""


def encode(data: bytes, event: str = "") -> bytes:
    """One frame of one-line data, LF line ends."""
    if event:
        return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"
