"""A request's body as bytes: in time, within the cap, inflated.

Knows lengths and codings, nothing of what the bytes say. Sources: relay-and-billing §9.3, reliability §2.6, §5.2.
Raises ClientError for everything that is the caller's fault.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Final

from aiohttp.streams import StreamReader

from newapi_proxy.errors import ClientError

BODY_SECONDS: Final = 120.0
BODY_GRACE: Final = 10.0  # after it a body must have come at BODY_RATE on the average
BODY_RATE: Final = 1024  # bytes per second
SMALL: Final = 65536  # compressed bytes that are inflated on the loop


def too_large(limit: int) -> ClientError:
    """The answer to a body above the cap."""
    return ClientError(
        f"The request body is larger than {limit} bytes.", status=413, kind="too_large", code="request_too_large"
    )


def coding(headers: Mapping[str, str]) -> bool:
    """Whether the body is gzipped. Raises ClientError 415 for any other coding (reliability §5.2, C14)."""
    value = headers.get("content-encoding", "").strip().lower()
    if value in ("", "identity"):
        return False
    if value in ("gzip", "x-gzip"):
        return True
    raise ClientError(
        "This Content-Encoding is not accepted: send the body as it is, or gzipped.",
        status=415,
        code="unsupported_content_encoding",
    )


def declared(headers: Mapping[str, str], limit: int) -> int:
    """The length that the head promises, 0 where it promises none. Raises ClientError 413 above the limit."""
    length = headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) < 20 else 0
    if size > limit:
        raise too_large(limit)
    return size


async def whole(payload: StreamReader, limit: int) -> bytes:
    """The whole body as it was sent. Raises ClientError 413 above the limit, 408 when it comes too slowly."""
    if payload.is_eof():
        data = payload.read_nowait()
        if len(data) > limit:
            raise too_large(limit)
        return data
    slow = _Slow(payload)
    pieces: list[bytes] = []
    try:
        while piece := await payload.readany():
            pieces.append(piece)
            slow.size += len(piece)
            if slow.size > limit:
                raise too_large(limit)
    finally:
        slow.close()
    return b"".join(pieces)


class _Slow:
    """The deadline of a body that has not come at once: a rate after the grace, and an end."""

    __slots__ = ("_began", "_loop", "_payload", "_timer", "size")

    def __init__(self, payload: StreamReader) -> None:
        self._loop = asyncio.get_running_loop()
        self._payload = payload
        self._began = self._loop.time()
        self.size = 0
        self._timer = self._loop.call_later(BODY_GRACE, self._look)

    def _look(self) -> None:
        spent = self._loop.time() - self._began
        if spent >= BODY_SECONDS or self.size < (spent - BODY_GRACE + 1) * BODY_RATE:
            error = ClientError("The request body came too slowly.", status=408, code="request_timeout")
            self._payload.set_exception(error)
            return
        self._timer = self._loop.call_later(1.0, self._look)

    def close(self) -> None:
        self._timer.cancel()


async def inflated(data: bytes, limit: int) -> bytes:
    """A gzipped body as it was meant, no larger than the limit; large ones off the loop. Raises ClientError."""
    if len(data) <= SMALL:
        return _inflate(data, limit)
    return await asyncio.get_running_loop().run_in_executor(None, _inflate, data, limit)


def _inflate(data: bytes, limit: int) -> bytes:
    engine = zlib.decompressobj(31)
    try:
        plain = engine.decompress(data, limit + 1)
    except zlib.error:
        raise ClientError("The gzipped request body is broken.", code="invalid_body") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not engine.eof or engine.unused_data:
        raise ClientError("The gzipped request body is broken.", code="invalid_body")
    return plain
