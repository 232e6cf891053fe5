"""Chunked transfer coding, undone: any cut in, the body's bytes out (RFC 9112 §7.1).

Sans-io. A stream's chunks are many and alike, so a size line that was seen is looked up and not read again. Extensions
are skipped, trailers dropped, both within a bound; a line may end in a bare line feed, as heads may.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_LINE: Final = 4096  # a size with its extensions, or one trailer
MOST_TRAILERS: Final = 64 * 1024  # bytes
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?")
_MOST_SIZES: Final = 1024
_sizes: Final[dict[bytes, int]] = {}  # lines seen lately


class Chunks:
    """One body. `ended` once its last trailer has come, `rest` what came behind it; `fault` why it cannot be read."""

    __slots__ = ("_kept", "_left", "_trailers", "ended", "fault", "rest")

    def __init__(self) -> None:
        self._kept = b""  # of a line that has not come to its end
        self._left = 0  # bytes of the open chunk that have not come; -1: its line end has not
        self._trailers = -1  # bytes of them so far, -1 before the last chunk
        self.ended = False
        self.rest = b""
        self.fault: str | None = None

    def feed(self, data: bytes) -> bytes:
        """The body's bytes among these."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        pieces: list[bytes] = []
        at = 0
        if self._trailers < 0:
            at = self._opened(data, 0, pieces) if self._left else 0
            if not self._left and self.fault is None:
                at = self._run(data, at, pieces)
        if self._trailers >= 0 and self.fault is None:
            at = self._trail(data, at)
        if at < len(data) and self.fault is None and not self.ended:
            self._kept = data[at:]
            if len(self._kept) > LONGEST_LINE:
                self.fault = "a line of the chunked body is too long"
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _run(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Takes chunks from a size line on; where what is not taken begins."""
        while not self._left:
            start = data.find(b"\n", at) + 1
            if not start:
                break
            line = data[at:start]
            size = _sizes.get(line, -1)
            if size < 0 and (size := self._size(line)) < 0:
                break
            end = start + size
            if not size:
                self._trailers = 0
                return start
            if data.startswith(b"\r\n", end):  # the whole chunk is here, as usual
                pieces.append(data[start:end])
                at = end + 2
            else:
                self._left = size
                at = self._opened(data, start, pieces)
        return at

    def _opened(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Takes what there is of the open chunk and its line end; where what is not taken begins."""
        if self._left > 0:
            end = at + self._left
            pieces.append(data[at:end])
            if end > len(data):
                self._left = end - len(data)
                return len(data)
            at, self._left = end, -1
        after = self._line_end(data, at)
        if after > at:
            self._left = 0
        return after

    def _line_end(self, data: bytes, at: int) -> int:
        """Where the chunk's line end is over; `at` while it has not come, or where something else stands."""
        if data.startswith(b"\r\n", at):
            return at + 2
        if data.startswith(b"\n", at):
            return at + 1
        if data[at:] not in (b"", b"\r"):
            self.fault = "a chunk is longer than its size"
        return at

    def _size(self, line: bytes) -> int:
        """What a size line says; -1 and a fault where it says nothing."""
        found = _SIZE.fullmatch(line.removesuffix(b"\n").removesuffix(b"\r"))
        if found is None or len(line) > LONGEST_LINE:
            self.fault = "a chunk's size is not a number"
            return -1
        size = int(found[1], 16)
        if len(_sizes) >= _MOST_SIZES:
            _sizes.clear()
        if len(line) <= 18:  # extensions may be anything
            _sizes[line] = size
        return size

    def _trail(self, data: bytes, at: int) -> int:
        """Passes over trailers up to the empty line."""
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at : end + 1]
            at = end + 1
            if line in (b"\r\n", b"\n"):
                self.ended, self.rest = True, data[at:]
                break
            self._trailers += len(line)
            if self._trailers > MOST_TRAILERS or len(line) > LONGEST_LINE or b":" not in line:
                self.fault = "the chunked body's trailers cannot be read"
                break
        return at
