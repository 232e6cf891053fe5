"""The load: raw uvloop client protocols that do as little as possible, so that the proxy is what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

TERMINATOR: Final = b"0\r\n\r\n"


class Tally:
    """What came back so far: finished answers, stream chunks, faults (wrong status, broken connection)."""

    __slots__ = ("chunks", "done", "faults", "first_fault")

    def __init__(self) -> None:
        self.done = 0
        self.chunks = 0
        self.faults = 0
        self.first_fault = b""

    def fault(self, what: bytes) -> None:
        """Counts what should not have happened and keeps the first for the report."""
        self.faults += 1
        self.first_fault = self.first_fault or what[:400]


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way; `finished` is called at each answer's end."""

    __slots__ = ("_buffer", "_kind", "_newline", "_request", "_tail", "finished", "started", "tally", "transport")

    def __init__(self, request: bytes, tally: Tally, finished: Callable[[Connection], None]) -> None:
        self.tally = tally
        self.finished = finished
        self.started = 0.0
        self.transport: asyncio.Transport | None = None
        self._request = request
        self._buffer = b""
        self._kind = ""  # "" before the head, then "whole" or "stream"
        self._tail = b""
        self._newline = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass of it

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None and self.started:
            self.tally.fault(b"connection lost " + repr(error).encode())
        self.transport = None

    def send(self) -> None:
        """Sends the request again."""
        assert self.transport is not None
        self._kind = ""
        self._buffer = self._tail = b""
        self._newline = False
        self.started = time.perf_counter()
        self.transport.write(self._request)

    def close(self) -> None:
        """Leaves."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._kind == "stream":
            self._stream(data)
            return
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        if data[9:12] != b"200":
            self.tally.fault(data)
        length = data[:end].lower().find(b"content-length:")
        if length < 0:
            self._kind = "stream"
            self._buffer = b""
            self._stream(data[end + 4 :])
        elif len(data) >= end + 4 + int(data[length + 15 : data.index(b"\r\n", length)]):
            self._end()
        else:
            self._buffer = data

    def _stream(self, data: bytes) -> None:
        # an event ends in an empty line; one that two reads share is counted at the second
        self.tally.chunks += data.count(b"\n\n") + (self._newline and data[:1] == b"\n")
        self._newline = data[-1:] == b"\n" and data[-2:] != b"\n\n"
        self._tail = (self._tail + data)[-5:] if len(data) < 5 else data[-5:]
        if self._tail == TERMINATOR:
            self._end()

    def _end(self) -> None:
        self.tally.done += 1
        self.finished(self)


class Group:
    """Some connections to one address that send the same request."""

    def __init__(self, port: int, request: bytes) -> None:
        self.tally = Tally()
        self.connections: list[Connection] = []
        self.running = True
        self._port = port
        self._request = request

    async def connect(self, count: int, finished: Callable[[Connection], None] | None = None) -> Group:
        """Opens `count` connections more, a hundred at a time."""
        loop = asyncio.get_running_loop()
        heard = finished or self._again

        def made() -> Connection:
            return Connection(self._request, self.tally, heard)

        for start in range(0, count, 100):
            opened = (
                loop.create_connection(made, "127.0.0.1", self._port) for _ in range(start, min(start + 100, count))
            )
            self.connections += [protocol for _, protocol in await asyncio.gather(*opened)]
        return self

    def _again(self, connection: Connection) -> None:
        if self.running and connection.transport is not None:
            connection.send()

    def close(self) -> None:
        """Ends every connection, whatever it is doing."""
        self.running = False
        for connection in self.connections:
            connection.close()


async def closed_loop(port: int, request: bytes, count: int) -> Group:
    """`count` connections that send the next request when an answer is complete; already under way."""
    group = await Group(port, request).connect(count)
    for connection in group.connections:
        connection.send()
    return group


async def staggered(port: int, request: bytes, count: int, span: float) -> Group:
    """The same, their starts spread over `span` seconds, so that their chunks do not come together."""
    group = await Group(port, request).connect(count)
    loop = asyncio.get_running_loop()
    for number, connection in enumerate(group.connections):
        loop.call_later(span * number / count, group._again, connection)
    return group


async def open_loop(port: int, request: bytes, rate: float, seconds: float) -> tuple[list[float], Tally]:
    """Requests at a fixed rate whatever the answers do; each answer's seconds."""
    times: list[float] = []
    idle: list[Connection] = []

    def finished(connection: Connection) -> None:
        times.append(time.perf_counter() - connection.started)
        idle.append(connection)

    group = await Group(port, request).connect(16, finished)
    idle += group.connections
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    total = int(rate * seconds)
    begin = loop.time()

    def tick(number: int) -> None:
        if number == total:
            loop.call_later(0.2, over.set_result, None)
            return
        if idle:
            idle.pop(0).send()
        else:
            group.tally.fault(b"no idle connection: answers take longer than the rate allows")
        loop.call_at(begin + (number + 1) / rate, tick, number + 1)

    tick(0)
    await over
    group.close()
    return times, group.tally
