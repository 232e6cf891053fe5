"""A request's form kept in a file while it is served: memory stays flat, and every attempt can send it anew.

The file has no name and vanishes with the process. Knows bytes, nothing of what they say. Source: provider-translation
A.5 (multipart bodies), reliability §2.6.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import aclosing
from typing import IO, Final

from aiohttp.streams import StreamReader

from newapi_proxy.errors import OurError
from newapi_proxy.web import body
from newapi_proxy.wire import multipart

PIECE: Final = 64 * 1024
SMALL: Final = 256 * 1024  # bytes that stay in memory, and that are written at once


class Spool:
    """`multipart.Source`: in memory while small, then in a file."""

    __slots__ = ("_data", "_file", "_size", "_writing", "share")

    def __init__(self, share: body.Share) -> None:
        """`share`: its part of what all forms together may take of the disk."""
        self.share = share
        self._data = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0
        self._writing: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return self._size + len(self._data)

    def read(self, at: int, size: int) -> bytes:
        """See multipart.Source; all has been written."""
        if self._file is None:
            return bytes(self._data[at : at + size])
        return os.pread(self._file.fileno(), size, at)

    def close(self) -> None:
        """Nobody reads any more: the file is gone."""
        self.share.hold(0)
        self._data = bytearray()
        if self._writing is not None and not self._writing.done():
            self._writing.add_done_callback(lambda _: self._drop())  # the thread still has the file
        else:
            self._drop()

    async def add(self, piece: bytes) -> None:
        """More bytes. Raises OurError where the disk takes no more."""
        self._data += piece
        if len(self._data) > SMALL:
            await self.settle()

    async def settle(self) -> None:
        """Writes what waits in memory, where a file has been begun or must be."""
        if self._data and (self._file is not None or len(self._data) > SMALL):
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, self._data)
            self._data = bytearray()
            await asyncio.shield(self._writing)

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, data: bytearray) -> None:
        rest = memoryview(data)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OurError(
                f"An upload cannot be stored: {error.strerror}.", status=503, code="disk_full", retry_after=5.0
            ) from None
        self._size += len(data)


async def spooled(payload: StreamReader, spool: Spool, boundary: bytes) -> multipart.Form:
    """The form, once all of it has come. Raises ClientError for what is none, too large or too slow."""
    async with aclosing(body.pieces(payload, spool.share, PIECE)) as pieces:
        async for piece in pieces:
            await spool.add(piece)
    await spool.settle()
    if len(spool) <= SMALL:
        return multipart.read(spool, boundary)
    return await asyncio.get_running_loop().run_in_executor(None, multipart.read, spool, boundary)
