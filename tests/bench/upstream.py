"""The provider that is not there: a raw uvloop protocol that answers from prepared bytes.

python -m tests.bench.upstream PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from tests.bench import traffic, voices

_BEHAVIOURS = tuple((name.encode(), name) for name in traffic.MODELS)


class Upstream(asyncio.Protocol):
    """One connection: finds a request's end, answers as its model's name says."""

    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None
        self.left = 0
        self.writable = True
        self.voice = voices.CHAT

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass of it

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.timer is not None:
            self.timer.cancel()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.left and self.timer is None:
            self._burst()

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data if self.buffer else data
        while data:
            size = _size(data)
            if not size or size > len(data):
                break
            self._answer(data[:size])
            data = data[size:]
        self.buffer = data

    def _answer(self, request: bytes) -> None:
        assert self.transport is not None
        model = next((name for mark, name in _BEHAVIOURS if mark in request), traffic.WHOLE)
        if model == traffic.WHOLE:
            self.transport.write(traffic.ANSWER)
            return
        self.voice = voices.of(request)
        self.transport.write(traffic.STREAM_HEAD + self.voice.first)
        if model == traffic.IDLE:
            self.transport.write(self.voice.piece)
        elif model == traffic.SHORT:
            self.transport.write(self.voice.piece * (traffic.SHORT_CHUNKS - 1) + self.voice.last)
        elif model == traffic.BURST:
            self.left = traffic.BURST_CHUNKS - 1
            self._burst()
        elif model == traffic.PACED:
            self.left = traffic.PACED_CHUNKS - 1
            self.timer = self.loop.call_later(traffic.PACE, self._pace, self.loop.time() + traffic.PACE)

    def _burst(self) -> None:
        while self.left and self.writable and self.transport is not None:
            self.transport.write(self.voice.piece)
            self.left -= 1
        if not self.left and self.transport is not None:
            self.transport.write(self.voice.last)

    def _pace(self, due: float) -> None:
        if self.transport is None:
            return
        self.transport.write(self.voice.piece)
        self.left -= 1
        if self.left:
            due += traffic.PACE
            self.timer = self.loop.call_at(due, self._pace, due)
        else:
            self.timer = None
            self.transport.write(self.voice.last)


def _size(data: bytes) -> int:
    """The whole request's length, 0 while its head is unfinished. Bodies come by length or in one run of chunks."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        return end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0])
    if b"\r\ntransfer-encoding: chunked" in head:
        last = data.find(b"\r\n0\r\n\r\n", end)
        return last + 7 if last >= 0 else 0
    return end + 4


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
