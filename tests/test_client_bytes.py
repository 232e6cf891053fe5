"""The wire client's bytes without a socket: every cut of an answer, broken answers, encodings."""

from __future__ import annotations

import asyncio
import gzip
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.spawn import spawn
from newapi_proxy.web.connection import HIGH, READ, Connection
from newapi_proxy.web.decoding import PIECE, Decoder
from newapi_proxy.web.reading import MAX_HEAD, Reading
from tests.fakes.upstream import ok
from tests.test_client import BODIES, GOOD, HEADS, WIRE_HEADS


class Wire(asyncio.Transport):
    """A transport that goes nowhere: what was written, and what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Not needed."""

    def get_write_buffer_size(self) -> int:
        """Everything is sent at once."""
        return 0

    def write(self, data: Any) -> None:
        """Keeps it."""
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        """Noted."""
        self.reading = False

    def resume_reading(self) -> None:
        """Noted."""
        self.reading = True

    def abort(self) -> None:
        """Noted."""
        self.aborted = True


class Kept:
    """A lot that remembers what came back."""

    def __init__(self) -> None:
        self.released: list[Connection] = []

    def release(self, connection: Connection) -> None:
        """Noted."""
        self.released.append(connection)

    def lost(self, connection: Connection) -> None:
        """Nothing to do."""


class Line:
    """A connection, its transport and its lot."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.buffer = bytearray(READ)
        self.lot, self.wire = Kept(), Wire()
        self.connection = Connection("x", memoryview(self.buffer), self.lot, loop)
        self.connection.connection_made(self.wire)

    def push(self, data: bytes) -> None:
        """Bytes from the upstream, as many reads as they need."""
        for at in range(0, len(data), READ):
            if self.wire.aborted:
                return
            piece = data[at : at + READ]
            self.connection.get_buffer(-1)[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))

    def shut(self) -> None:
        """The upstream closes."""
        if not self.wire.aborted:
            self.connection.eof_received()
        self.connection.connection_lost(None)


async def _answer(line: Line, pieces: list[bytes]) -> tuple[int, bytes]:
    response = line.connection.send("POST", b"", b"", Interrupt())
    for piece in pieces:
        line.push(piece)
    kept = bool(line.lot.released)
    if not kept:
        line.shut()
    await response.arrival()
    if not response.status:
        raise UpstreamFailure(str(response.fault))
    return response.status, await response.whole(1 << 20)


def _run(pieces: list[bytes]) -> tuple[tuple[int, bytes], bool]:
    async def main() -> tuple[tuple[int, bytes], bool]:
        line = Line(asyncio.get_running_loop())
        return await _answer(line, pieces), bool(line.lot.released)

    with asyncio.Runner() as runner:
        return runner.run(main())


@pytest.mark.parametrize("name", GOOD)
async def test_every_cut(name: str) -> None:
    """An answer cut anywhere, once or into single bytes, gives the same body and the same fate of its connection."""
    data, body, kept = GOOD[name]
    loop = asyncio.get_running_loop()
    cuts = [[data[:at], data[at:]] for at in range(1, len(data))] + [[data[i : i + 1] for i in range(len(data))]]
    for pieces in [[data], *cuts]:
        line = Line(loop)
        assert await _answer(line, pieces) == ((204 if name == "no content" else 200), body)
        assert bool(line.lot.released) == kept
        assert line.wire.aborted != kept


@pytest.mark.parametrize("name", [name for name, row in GOOD.items() if row[2]])
async def test_every_answer_after_every_other(name: str) -> None:
    """A kept connection has no memory of the answer before."""
    line = Line(asyncio.get_running_loop())
    for other, (data, body, kept) in GOOD.items():
        if kept:
            assert (await _answer(line, [GOOD[name][0]]))[1] == GOOD[name][1]
            assert (await _answer(line, [data]))[1] == body, other
    assert not line.wire.aborted


ALL = [row[0] for row in GOOD.values()] + [
    b"".join(step for step in steps if isinstance(step, bytes))
    for steps in (*HEADS.values(), *WIRE_HEADS.values(), *BODIES.values())
]
SMALL = [data for data in ALL if len(data) < 2000]


@given(st.sampled_from(SMALL), st.integers(0, 2**32), st.integers(0, 6))
@settings(max_examples=300)
def test_mutations(data: bytes, seed: int, changes: int) -> None:
    """Mutated answers in arbitrary pieces end in a body or a declared failure, never in anything else."""
    dice = random.Random(seed)
    bent = bytearray(data)
    for _ in range(changes):
        at = dice.randrange(len(bent) + 1)
        match dice.randrange(4):
            case 0:
                bent[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 5)))
            case 1:
                del bent[at : at + dice.randrange(1, 9)]
            case 2 if at < len(bent):
                bent[at] = dice.randrange(256)
            case _:
                bent[at:at] = dice.choice([b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"Content-Length: 9\r\n", data[:40]])
    cuts = sorted(dice.randrange(len(bent) + 1) for _ in range(dice.randrange(5)))
    edges = [0, *cuts, len(bent)]
    pieces = [bytes(bent[a:b]) for a, b in pairwise(edges) if a < b]
    try:
        (status, body), _ = _run(pieces)
    except UpstreamFailure:
        return
    assert 200 <= status <= 599
    assert isinstance(body, bytes)


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_noise(data: bytes) -> None:
    """Arbitrary bytes are no answer, and nothing else happens."""
    with pytest.raises(UpstreamFailure):
        _run([data])


async def test_pressure() -> None:
    """Reading stops above the mark and goes on when the reader has caught up; never more than 64 KiB wait."""
    line = Line(asyncio.get_running_loop())
    response = line.connection.send("POST", b"", b"", Interrupt())
    line.push(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    line.push(bytes(HIGH))
    assert line.wire.reading
    line.push(b"x")
    assert not line.wire.reading
    assert len(await response.read()) == HIGH + 1 <= 64 * 1024
    assert line.wire.reading
    line.push(bytes(HIGH) + b"x")
    assert not line.wire.reading
    response.close()
    assert line.wire.aborted


async def test_pressure_at_the_end() -> None:
    """A connection whose last answer was too fast for its reader waits in the pool with open ears."""
    line = Line(asyncio.get_running_loop())
    response = line.connection.send("POST", b"", b"", Interrupt())
    size = HIGH + 2
    line.push(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    line.push(bytes(HIGH))
    line.push(b"x")
    assert not line.wire.reading
    line.push(b"x")
    assert line.wire.reading
    assert line.lot.released
    assert len(await response.whole(size)) == size


async def test_pressure_of_what_is_decoded() -> None:
    """While a decoder still holds output, its connection does not read on."""
    line = Line(asyncio.get_running_loop())
    response = line.connection.send("POST", b"", b"", Interrupt())
    noise = random.Random(1).randbytes(HIGH)
    packed = gzip.compress(bytes(40 * PIECE) + noise, compresslevel=9)
    line.push(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
    line.push(packed[: HIGH + 100])
    assert not line.wire.reading
    for _ in range(39):
        assert len(await response.read()) == PIECE
        assert not line.wire.reading
    size = 39 * PIECE
    line_rest = packed[HIGH + 100 :]
    while size < 40 * PIECE:
        size += len(await response.read())
    while not line.wire.reading:
        size += len(await response.read())
    line.push(line_rest)
    assert size + len(await response.whole(1 << 20)) == 40 * PIECE + HIGH


async def test_request_follows_the_peer() -> None:
    """A large request is handed over in pieces, waits while the peer is slow, and stops at an early answer."""
    line = Line(asyncio.get_running_loop())
    body = bytes(1 << 20)
    line.connection.pause_writing()
    response = line.connection.send("POST", b"head", body, Interrupt())
    assert line.wire.written == [b"head"]
    line.connection.resume_writing()
    assert b"".join(line.wire.written) == b"head" + body
    line.push(ok())
    assert await response.whole(10) == b""
    assert line.lot.released

    line.wire.written.clear()
    line.connection.pause_writing()
    response = line.connection.send("POST", b"head", body, Interrupt())
    line.push(ok(b"no", status="413 Too Large"))
    line.connection.resume_writing()
    assert line.wire.written == [b"head"]
    assert await response.whole(10) == b"no"
    assert line.wire.aborted


def test_head_limit() -> None:
    """A head that never ends is given up after a fixed number of bytes."""
    reading = Reading()
    reading.feed(b"HTTP/1.1 200 OK\r\n")
    fed = 0
    while reading.fault is None:
        fed += len(reading.feed(b"X" * 20 + b": y\r\n") or b"X" * 25)
        assert fed <= MAX_HEAD + 100
    assert reading.head is None


@given(st.binary(max_size=3000), st.integers(1, 400))
@settings(max_examples=100)
def test_decoder_cuts(data: bytes, size: int) -> None:
    """An encoded body gives the same bytes however it is cut."""
    packed = gzip.compress(data)
    decoder, out = Decoder("gzip"), b""
    for at in range(0, len(packed), size):
        out += decoder.decode(packed[at : at + size])
        while decoder.pending:
            out += decoder.decode(b"")
    decoder.finish()
    assert out == data


async def test_stream_wakes_once_per_read() -> None:
    """Whoever waits gets all that came until it ran, in one piece."""
    line = Line(asyncio.get_running_loop())
    response = line.connection.send("POST", b"", b"", Interrupt())
    line.push(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    async with asyncio.timeout(5):
        reader = spawn(response.read(), "reader")
        await asyncio.sleep(0)
        line.push(b"1\r\na\r\n")
        line.push(b"1\r\nb\r\n")
        assert await reader == b"ab"
    response.close()
