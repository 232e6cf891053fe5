"""Fake ports: a client that plays scripts, a sink that keeps what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.ports import Departure, Interrupt, Take

HANG = object()  # from here on upstream stays silent
Piece = object  # bytes, an exception to raise, or HANG


class Script:
    """One upstream answer: a status, headers, and what its body does piece by piece."""

    def __init__(
        self,
        *pieces: Piece,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        refuse: Exception | None = None,
    ) -> None:
        self.pieces = list(pieces)
        self.status = status
        self.headers = dict(headers or {"content-type": "text/event-stream"})
        self.refuse = refuse
        self.closed = False
        self.sent: Outgoing | None = None


class ScriptedIncoming:
    """Plays a script's body; waits obey the interrupt."""

    def __init__(self, script: Script, interrupt: Interrupt) -> None:
        self.status = script.status
        self.headers = script.headers
        self._script = script
        self._interrupt = interrupt

    async def read(self) -> bytes:
        while self._script.pieces:
            piece = self._script.pieces.pop(0)
            if piece is HANG:
                await self._interrupt.wait(asyncio.get_running_loop().create_future())
            if isinstance(piece, Exception):
                raise piece
            assert isinstance(piece, bytes)
            return piece
        return b""

    async def flow(self, take: Take) -> bool:
        while data := await self.read():
            if not take(data):
                return False
        return True

    async def whole(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self._all()])

    async def _all(self):
        while piece := await self.read():
            yield piece

    def close(self) -> None:
        self._script.closed = True


class ScriptedClient:
    """Opens the next script, in order; remembers what was asked."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.opened: list[Script] = []

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> ScriptedIncoming:
        script = self.scripts.pop(0)
        script.sent = outgoing
        self.opened.append(script)
        if script.refuse is not None:
            raise script.refuse
        return ScriptedIncoming(script, interrupt)


class ListSink:
    """A client's end that keeps everything; `leave()` is the client going."""

    def __init__(self, leave_after: int | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.writes: list[bytes] = []
        self.ended = False
        self.started = False
        self.departed = False
        self.full = False
        self._leave_after = leave_after
        self._gone: Departure | None = None
        self.before_end: list[object] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def watch(self, gone: Departure | None) -> None:
        self._gone = gone
        if gone is not None and self.departed:
            gone()

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        assert not self.started
        self.started = True
        self.status, self.headers = status, dict(headers)

    def write(self, data: bytes, *, more: bool = False) -> None:
        assert self.started
        assert not self.ended
        if data and not self.departed:
            self.writes.append(data)
            if self._leave_after is not None and len(self.writes) >= self._leave_after:
                self.leave()

    async def drain(self) -> None:
        self.full = False

    def end(self, data: bytes = b"") -> None:
        self.write(data)
        assert not self.ended
        self.ended = True

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.start(status, headers)
        self.write(body)
        self.end()

    def leave(self) -> None:
        self.departed = True
        if self._gone is not None:
            self._gone()
