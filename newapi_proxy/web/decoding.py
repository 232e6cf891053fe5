"""Content encodings, undone in bounded pieces: a bomb costs its reader time, never memory (U19).

Sans-io. Knows gzip and deflate, which is what requests ask for.
"""

from __future__ import annotations

import zlib
from typing import Final

from newapi_proxy.web import faults

PIECE: Final = 256 * 1024  # most that one call gives
MEMBERS: Final = 64  # gzip members in one body
_MODES: Final = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Decoder:
    """Undoes one encoding: `decode` while there is input or `pending`, then `finish`."""

    __slots__ = ("_encoding", "_members", "_object", "_rest", "pending")

    def __init__(self, encoding: str) -> None:
        """Raises UpstreamFailure for an encoding that we did not ask for."""
        if encoding not in _MODES:
            raise faults.broken(f"unknown content encoding {encoding[:40]!r}")
        self._encoding = encoding
        self._object: zlib._Decompress | None = None
        self._rest = b""
        self._members = 0
        self.pending = False  # whether more can be had without more input

    def decode(self, data: bytes) -> bytes:
        """At most PIECE bytes of what the input so far gives. Raises UpstreamFailure for what is not that encoding."""
        data = self._rest + data if self._rest else data
        self._rest = b""
        if self._object is None:
            if not data:
                return b""
            self._object = self._start(data)
        elif self._object.eof:
            self._object = self._next(data)
        try:
            out = self._object.decompress(data, PIECE)
        except zlib.error as error:
            raise faults.broken(f"the body is not {self._encoding}: {error}") from None
        self._rest = self._object.unused_data if self._object.eof else self._object.unconsumed_tail
        self.pending = bool(self._rest) or (len(out) == PIECE and not self._object.eof)
        return out

    def finish(self) -> None:
        """The body has ended. Raises UpstreamFailure when the encoding has not."""
        if self._object is not None and not self._object.eof:
            raise faults.broken(f"the {self._encoding} stream stops before its end")

    def _start(self, data: bytes) -> zlib._Decompress:
        mode = _MODES[self._encoding]
        if self._encoding == "deflate" and data[0] & 0x0F != 8:
            mode = -zlib.MAX_WBITS  # servers that send raw deflate under that name
        return zlib.decompressobj(mode)

    def _next(self, data: bytes) -> zlib._Decompress:
        self._members += 1
        if self._encoding == "deflate" or self._members >= MEMBERS:
            raise faults.broken(f"data after the end of the {self._encoding} stream")
        return self._start(data)
