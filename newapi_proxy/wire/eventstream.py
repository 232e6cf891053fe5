"""AWS event streams (application/vnd.amazon.eventstream): bytes to messages to frames.

One message is a prelude (total length, length of the headers, CRC-32 of both), headers, payload, CRC-32 of all before
it. Both sums are checked, the prelude's before its lengths are believed. Knows no provider: what a message means for
the stream's reader is told by the function that makes it a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal
from zlib import crc32

from newapi_proxy.wire.sse import CAP, Frame

Kind = Literal["event", "exception", "error", "broken"]

_PRELUDE: Final = 12
_AROUND: Final = 16  # bytes of a message beside its headers and payload
_HEADERS: Final = 128 * 1024  # bytes of headers at most, as the format says
_REMEMBERED: Final = 512  # bytes of headers that are worth remembering; most messages of a stream have the same
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value by its type
_KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "event": ("event", ":event-type"),
    "exception": ("exception", ":exception-type"),
    "error": ("error", ":error-code"),
}


class Message:
    """One message. `name` is its event type, exception type or error code; `note` the text of an `error`.

    A message that cannot be believed is `broken`: `note` says why, for logs, and nothing comes after it.
    """

    __slots__ = ("kind", "name", "note", "payload", "raw")

    def __init__(self, kind: Kind, name: str, payload: bytes = b"", raw: bytes = b"", note: str = "") -> None:
        self.kind = kind
        self.name = name
        self.payload = payload
        self.raw = raw
        self.note = note


def plain(message: Message) -> Frame:
    """A frame that holds the message as it is: its bytes, its name, its payload."""
    return Frame(message.raw, message.name, message.payload)


class Decoder:
    """Any cut of a stream in, whole frames out, at most `cap` bytes of a message in memory.

    Damage is told as a last message of kind `broken`, so that what came before it is not lost; then all is ignored.
    """

    def __init__(self, told: Callable[[Message], Frame | None] = plain, cap: int = CAP) -> None:
        """`told` makes a message a frame, or None for one that says nothing."""
        self._told = told
        self._cap = cap
        self._buffer = bytearray()
        self._need = _PRELUDE  # bytes in the buffer before anything can be done
        self._broken = False

    def feed(self, data: bytes) -> list[Frame]:
        """Takes the next bytes; returns the frames that they complete."""
        if self._broken:
            return []
        self._buffer += data
        frames: list[Frame] = []
        while len(self._buffer) >= self._need:
            message = self._next()
            if message is not None:
                frame = self._told(message)
                if frame is not None:
                    frames.append(frame)
        return frames

    def close(self) -> list[Frame]:
        """The stream has ended: a message that was cut says nothing; what is missing is the reader's to notice."""
        self._buffer.clear()
        self._need = _PRELUDE
        return []

    @property
    def empty(self) -> bool:
        """Whether the last byte that came ended a frame."""
        return not self._buffer

    def _next(self) -> Message | None:
        """The message at the start of the buffer, or None where only its prelude is there and good."""
        buffer = self._buffer
        if self._need == _PRELUDE:
            total, headers = int.from_bytes(buffer[:4], "big"), int.from_bytes(buffer[4:8], "big")
            if crc32(buffer[:8]) != int.from_bytes(buffer[8:12], "big"):
                return self._break("the prelude's sum is wrong")
            if headers > _HEADERS or not _AROUND + headers <= total <= self._cap:
                return self._break(f"lengths that cannot be: {headers} of {total} bytes")
            self._need = total
            return None
        raw = bytes(buffer[: self._need])
        del buffer[: self._need]
        self._need = _PRELUDE
        if crc32(raw[:-4]) != int.from_bytes(raw[-4:], "big"):
            return self._break("a message's sum is wrong")
        end = _PRELUDE + int.from_bytes(raw[4:8], "big")
        block = raw[_PRELUDE:end]
        described = _described(block) if len(block) <= _REMEMBERED else _described.__wrapped__(block)
        if described is None:
            return self._break("headers that cannot be read")
        kind, name, note = described
        return Message(kind, name, raw[end:-4], raw, note)

    def _break(self, why: str) -> Message:
        self._broken = True
        self._buffer.clear()
        return Message("broken", "", note=why)


@lru_cache(maxsize=128)
def _described(block: bytes) -> tuple[Kind, str, str] | None:
    """Kind, name and note of a message by its headers; None where they cannot be read."""
    found = _texts(block)
    if found is None:
        return None
    kind, name = _KINDS.get(found.get(":message-type", "event"), ("event", ":event-type"))
    return kind, found.get(name, ""), found.get(":error-message", "")


def _texts(block: bytes) -> dict[str, str] | None:
    """The headers that are texts, values of other types left out; None where the block breaks off or lies."""
    found: dict[str, str] = {}
    at, size = 0, len(block)
    while at < size:
        named = at + 1 + block[at]
        if named >= size:
            return None
        kind = block[named]
        start = named + 1
        if kind in (6, 7):
            start += 2
            end = start + int.from_bytes(block[start - 2 : start], "big")
        elif kind in _FIXED:
            end = start + _FIXED[kind]
        else:
            return None
        if end > size:
            return None
        if kind == 7:
            found[block[at + 1 : named].decode("utf-8", "replace")] = block[start:end].decode("utf-8", "replace")
        at = end
    return found
