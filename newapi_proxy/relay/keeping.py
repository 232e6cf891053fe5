"""A client's end that keeps what goes out, so that it can be told once more, byte for byte.

The client's departure is none of the exchange's business here: who asks with an idempotency key will come back for the
answer, so it is finished, charged and kept. Knows the port, no HTTP library and no database.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from newapi_proxy.config.model import Idempotency
from newapi_proxy.ports import Departure, Sink
from newapi_proxy.relay.memory import Shelf
from newapi_proxy.store.replies import Answer, Place
from newapi_proxy.wire import tree

Headers = Sequence[tuple[str, str]]
OK: Final = 200
_LEVEL, _WINDOW, _MEMORY = 1, 13, 6  # of the packer, whose frames repeat each other closely
_PACKER: Final = 64 * 1024  # bytes that it takes


class Keeping:
    """One request's sink. `settled`: whether a charge that keeps the answer is with the ledger, or may still come."""

    __slots__ = (
        "_headers",
        "_held",
        "_how",
        "_memory",
        "_owner",
        "_packer",
        "_pieces",
        "_place",
        "_shelf",
        "_sink",
        "_size",
        "_status",
        "settled",
    )

    def __init__(self, sink: Sink, place: Place, owner: str, shelf: Shelf, how: Idempotency) -> None:
        """An answer that is too large for `how`, or that there is no room for, is not kept."""
        self._sink = sink
        self._memory = shelf.memory
        self._shelf = shelf
        self._how = how
        self._held = 0
        self._place = place
        self._owner = owner
        self._status = OK
        self._headers: Headers = ()
        self._packer: zlib._Compress | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self.settled = False

    @property
    def started(self) -> bool:
        """See Sink."""
        return self._sink.started

    @property
    def departed(self) -> bool:
        """Never: see above."""
        return False

    @property
    def left(self) -> bool:
        """Whether the client has gone, for the line."""
        return self._sink.departed

    @property
    def full(self) -> bool:
        """See Sink; nobody waits for a client that has gone."""
        return self._sink.full and not self._sink.departed

    def watch(self, gone: Departure | None) -> None:
        """Nobody is told."""

    def start(self, status: int, headers: Headers) -> None:
        """See Sink."""
        self._status, self._headers = status, headers
        if self._lent(_PACKER):
            self._packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
        self._sink.start(status, headers)

    def write(self, data: bytes, *, more: bool = False) -> None:
        """See Sink."""
        self._pack(data)
        self._sink.write(data, more=more)

    async def drain(self) -> None:
        """See Sink."""
        await self._sink.drain()

    def end(self, data: bytes = b"") -> None:
        """See Sink; the last bytes were kept with the charge."""
        self._sink.end(data)

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """See Sink."""
        self.settled = self.settled and status == OK  # an error in the answer's place: nothing is charged
        self._sink.whole(status, headers, body)

    def answer(self, headers: Headers, last: bytes, at: int, *, status: int = OK, mute: bool = False) -> Answer:
        """What is kept from `at` (unix seconds) on: the stream with its last bytes, which are not out yet, or the whole
        answer, which is in `last`. The caller charges for it now. `mute`: it breaks off and nothing in it says so, so
        that told again it would look whole: its bytes are not kept."""
        self.settled = True
        streamed = self.started
        body: bytes | None = last
        if streamed:
            headers = self._headers
            self._pack(last)
            body = b"".join([*self._pieces, self._packer.flush()]) if self._packer is not None else None
            self._pieces.clear()
        else:
            self._status, self._size = status, len(last)
        if mute or self._size > self._how.max_answer:
            body = None
        if body is not None and not self._shelf.room(self._place.token_id, len(body), self._how):
            body = None
        return Answer(
            place=self._place,
            owner=self._owner,
            status=self._status,
            streamed=streamed,
            headers=tree.dumps([[name, value] for name, value in headers]),
            size=self._size,
            body=body,
            expires=at + int(self._how.ttl),
        )

    def _pack(self, data: bytes) -> None:
        self._size += len(data)
        if self._packer is None:
            return
        fits = self._size <= self._how.max_answer
        packed = self._packer.compress(data) if fits else b""
        if not fits or not self._lent(len(packed)):
            self._packer = None
            self._pieces.clear()
            self.close()
        elif packed:
            self._pieces.append(packed)

    def _lent(self, size: int) -> bool:
        """Whether there is memory for so many bytes more; they are held then."""
        lent = self._memory.lend(size)
        self._held += size if lent else 0
        return lent

    def close(self) -> None:
        """Holds no memory any more: what was kept is written, or is not wanted."""
        self._memory.back(self._held)
        self._held = 0


def unpacked(body: bytes, size: int) -> bytes:
    """The bytes of a stream that was packed, `size` of them."""
    return zlib.decompressobj(_WINDOW).decompress(body, size)
