"""JSON objects one a line (application/x-ndjson, application/stream+json): bytes to frames, any cut.

Lines end in LF or CRLF; blank ones say nothing and are left out. The last line may lack its end.
"""

from __future__ import annotations

from typing import Final

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.wire.sse import CAP, Frame

_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"


class Decoder:
    """Any cut of a stream in, whole lines out as frames. Raises UpstreamFailure above `cap` bytes without an end."""

    def __init__(self, cap: int = CAP) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # no line ends before this place
        self._cap = cap
        self._begun = False

    @property
    def empty(self) -> bool:
        """Whether the last byte that came ended a line."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Frame]:
        """Takes the next bytes; returns the frames of the lines that they end."""
        self._buffer += data
        end = self._buffer.rfind(b"\n", self._scanned) + 1
        if not end:
            self._scanned = len(self._buffer)
            self._bound()
            return []
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._scanned = len(self._buffer)
        frames = [frame for line in whole.split(b"\n")[:-1] if (frame := self._frame(line + b"\n")) is not None]
        self._bound()
        return frames

    def close(self) -> list[Frame]:
        """The stream has ended: what is left is a last line without its end, if it holds anything."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        frame = self._frame(rest)
        return [] if frame is None else [frame]

    def _bound(self) -> None:
        size = len(self._buffer)
        if size > self._cap:
            self._buffer.clear()
            self._scanned = 0
            raise UpstreamFailure(
                "The upstream sent an event that is too large.", detail=f"line above {self._cap} bytes ({size})"
            )

    def _frame(self, raw: bytes) -> Frame | None:
        data = raw
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        data = data.strip(_BLANK)
        return Frame(raw, "", data) if data else None
