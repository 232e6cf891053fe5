"""No framing at all: what comes is handed on as it comes (sounds, pictures, large documents)."""

from __future__ import annotations

from newapi_proxy.wire.sse import Frame


class Decoder:
    """Every read is a frame. Keeps nothing."""

    __slots__ = ()

    @property
    def empty(self) -> bool:
        """There is never half a frame."""
        return True

    def feed(self, data: bytes) -> list[Frame]:
        """The bytes as one frame."""
        return [Frame(data, "", data)] if data else []

    def close(self) -> list[Frame]:
        """Nothing is left."""
        return []
