"""A request's body as bytes: in time, within the cap, inflated.

Knows lengths and codings, nothing of what the bytes say. Sources: relay-and-billing §9.3, reliability §2.6, §5.2.
Raises ClientError for everything that is the caller's fault.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from aiohttp.streams import StreamReader

from newapi_proxy.errors import ClientError, OurError
from newapi_proxy.relay.memory import Budget

BODY_SECONDS: Final = 120.0
BODY_GRACE: Final = 10.0  # after it a body must have come at BODY_RATE on the average
BODY_RATE: Final = 1024  # bytes per second
SMALL: Final = 65536  # compressed bytes that are inflated on the loop, if they give no more than a PIECE
PIECE: Final = 1 << 20  # bytes that are inflated at once
DISK: Final = 8 << 30  # bytes of forms kept in files at once; above, as well


class Share:
    """One request's part of the budget, from its head to its answer's end. `limit` is the most one body may have."""

    __slots__ = ("_budget", "_held", "limit")

    def __init__(self, budget: Budget, limit: int) -> None:
        self._budget = budget
        self._held = 0
        self.limit = limit

    def hold(self, size: int) -> None:
        """Holds so many bytes from now on, 0 gives all back. Raises OurError 503 where memory is short."""
        more = size - self._held
        if more > 0 and self._budget.held + more > max(self._budget.most, self.limit):
            raise OurError(
                "Too many large requests are being served: try again.", status=503, code="overloaded", retry_after=1.0
            )
        self._budget.held += more
        self._held = size

    def reach(self, size: int) -> None:
        """Holds at least so many bytes. Raises OurError 503 where memory is short."""
        if size > self._held:
            self.hold(size)


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


def complete(payload: StreamReader, share: Share) -> bytes:
    """A body that has come. Raises ClientError 413 above the limit, OurError where memory is short."""
    data = payload.read_nowait()
    if len(data) > share.limit:
        raise too_large(share.limit)
    share.hold(len(data))
    return data


async def whole(payload: StreamReader, share: Share) -> bytes:
    """The whole body as it was sent, counted while it comes.

    Raises ClientError 413 above the limit, 408 when it comes too slowly, OurError where memory is short.
    """
    if payload.is_eof():
        return complete(payload, share)
    data = b"".join([piece async for piece in pieces(payload, share)])
    share.hold(len(data))
    return data


async def pieces(payload: StreamReader, share: Share, most: int = -1) -> AsyncGenerator[bytes, None]:
    """The body as it comes, counted; at most so many bytes at once. Raises what `whole` raises."""
    slow = _Slow(payload)
    try:
        while piece := await (payload.readany() if most < 0 else payload.read(most)):
            slow.size += len(piece)
            if slow.size > share.limit:
                raise too_large(share.limit)
            share.reach(slow.size)
            yield piece
    finally:
        slow.close()


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


async def inflated(data: bytes, share: Share) -> bytes:
    """A gzipped body as it was meant, no larger than the limit, counted as it grows; large ones off the loop.

    Raises ClientError, OurError where memory is short.
    """
    loop = asyncio.get_running_loop()
    engine = zlib.decompressobj(31)
    pieces: list[bytes] = []
    size = used = 0
    while not engine.eof:
        rest = engine.unconsumed_tail
        if not rest:
            rest = data[used : used + PIECE]
            used += len(rest)
        if len(data) <= SMALL and not pieces:
            piece = _inflate(engine, rest)
        else:
            piece = await loop.run_in_executor(None, _inflate, engine, rest)
        if not piece and not rest:
            break
        size += len(piece)
        if size > share.limit:
            raise too_large(share.limit)
        share.reach(min(len(data) + size, share.limit))
        pieces.append(piece)
    if not engine.eof or engine.unused_data or used < len(data):
        raise _broken()
    share.hold(size)
    return b"".join(pieces)


def _inflate(engine: zlib._Decompress, data: bytes) -> bytes:
    try:
        return engine.decompress(data, PIECE)
    except zlib.error:
        raise _broken() from None


def _broken() -> ClientError:
    return ClientError("The gzipped request body is broken.", code="invalid_body")
