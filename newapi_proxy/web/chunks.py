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
MANY: Final = 1024  # bytes that may hold so many chunks that they are worth another look
_sizes: Final[dict[bytes, int]] = {}  # size lines seen lately, without their ends


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
        if len(data) - at > MANY:
            at = _whole(data, at, pieces)
        while not self._left:
            start = data.find(b"\n", at) + 1
            if not start:
                break
            size = self._size(data[at:start])
            if size < 0:
                break
            at = start
            if not size:
                self._trailers = 0
                break
            self._left = size
            at = self._opened(data, at, pieces)
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
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        size = _sizes.get(bare, -1)
        if size >= 0:
            return size
        found = _SIZE.fullmatch(bare)
        if found is None or len(line) > LONGEST_LINE:
            self.fault = "a chunk's size is not a number"
            return -1
        size = int(found[1], 16)
        if len(_sizes) >= _MOST_SIZES:
            _sizes.clear()
        if len(bare) <= 16:  # extensions may be anything
            _sizes[bare] = size
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


def _whole(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Takes the whole chunks at the front of many, all in a few steps; where what is not taken begins.

    Cut at each line end, bytes are sizes and chunks in turn, as long as no chunk holds a line end itself: then the
    lengths do not fit the sizes, and nothing is taken here.
    """
    parts = data[at:].split(b"\r\n")
    count = (len(parts) - 1) // 2  # what stands behind the last line end is not whole
    lines = parts[0 : 2 * count : 2]
    sizes = list(map(_sizes.get, lines))
    if 0 in sizes:
        count = sizes.index(0)
        lines, sizes = lines[:count], sizes[:count]
    chunks = parts[1 : 2 * count : 2]
    if sizes != list(map(len, chunks)):
        return at
    pieces += chunks
    return at + 4 * count + sum(map(len, lines)) + sum(map(len, chunks))
