"""Forms through the whole daemon's path, over real sockets: large files with flat memory, again on the next channel."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import signal
import tracemalloc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy import log
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Endpoint, Outgoing, Target
from newapi_proxy.config.model import Channel, Override, Relay
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, Metered, Yielded
from newapi_proxy.ir.matter import Ranked
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay import once
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Snapshot
from newapi_proxy.surfaces.endpoint import EndpointSurface, Through
from newapi_proxy.web import relay_routes
from newapi_proxy.web.app import Edge
from newapi_proxy.web.client import HttpClient
from newapi_proxy.web.router import Route
from newapi_proxy.web.server import Server
from newapi_proxy.wire import multipart, raw
from newapi_proxy.wire.multipart import Form, Upload
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document
from tests.fakes.stage import stage

MIB: Final = 1 << 20
BOUNDARY: Final = "----the-boundary"


def read(form: Form, headers: Mapping[str, str]) -> Ask:
    """Any form with a model."""
    return Ask(
        dialect="files",
        model=form.fields["model"],
        tree=form.fields,
        size=form.size,
        stream=form.fields.get("stream") == "true",
        controls=Controls(max_tokens=0),
        kind="transcription",
        texts="one two",
        form=form,
    )


def request(ask: Ask, to: Target) -> Outgoing:
    """The form with upstream's model."""
    assert ask.form is not None
    body = Upload(fields={**ask.tree, "model": to.model}, files=ask.form.files, boundary=ask.form.boundary)
    return Outgoing(url=f"{to.base_url}/files", body=body, headers={"authorization": f"Bearer {to.key.reveal()}"})


def answer(ask: Ask, body: Document) -> Sequence[Event]:
    """Whatever there is."""
    return (Metered(Usage(prompt=5)),)


def failure(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailure:
    """Whatever it is."""
    return UpstreamFailure("no", upstream_status=status)


class Hearing:
    """Content from the first byte on, usage at the end."""

    def __init__(self, ask: Ask) -> None:
        """Nothing of it."""

    def read(self, frame: Frame) -> Sequence[Event]:
        """See Reader."""
        return (Yielded(Ranked(0, 0.0)),)

    def close(self) -> Sequence[Event]:
        """See Reader."""
        return (Metered(Usage(prompt=7)),)


SURFACE: Final = EndpointSurface(
    dialect="files",
    read=lambda body, headers: read(Form(fields=orjson.loads(body), files=(), boundary=b"", size=len(body)), headers),
    form=read,
    answer=lambda ask, face, events, usage: b"",
    same=lambda ask, face, body, usage: body.raw,
    passer=Through,
    keepalive=lambda ask: b"",
    stream_type=lambda ask: "",
)
ENDPOINT: Final = Endpoint(
    dialect="files", request=request, answer=answer, failure=failure, frames=raw.Decoder, reader=Hearing, raw=True
)


class Upstream:
    """A server that reads bodies without keeping them, and answers what it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.bodies: list[tuple[int, str]] = []  # length and digest
        self.heads: list[str] = []
        self.fails = 0
        self.size = 0  # of the answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        digest, rest = hashlib.sha256(), length
        while rest:
            piece = await reader.read(min(rest, 65536))
            digest.update(piece)
            rest -= len(piece)
        self.bodies.append((length, digest.hexdigest()))
        self.fails -= 1
        if self.fails >= 0:
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        elif self.size:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/x\r\nContent-Length: %d\r\n\r\n" % self.size)
            for at in range(0, self.size, 65536):
                writer.write(b"{" * min(65536, self.size - at))
                await writer.drain()
        else:
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"text":"two"}'[:-1])
        await writer.drain()
        writer.close()


class Place:
    """The edge's port, and how to send it a form."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(
        self, size: int, *, length: int | None = None, kind: str = "", **fields: str
    ) -> tuple[int, str, Any]:
        """A form with these fields and a file of so many bytes; status, head, and the body's length and digest."""
        head, tail = pieces(**fields)
        whole = len(head) + size + len(tail) if length is None else length
        kind = kind or f"multipart/form-data; boundary={BOUNDARY}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = f"POST /f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-t\r\nContent-Type: {kind}\r\n"
        writer.write(f"{lines}Connection: close\r\nContent-Length: {whole}\r\n\r\n".encode() + head)
        for at in range(0, size, 65536):
            writer.write(b"\0" * min(65536, size - at))
            await writer.drain()
        writer.write(tail)
        async with asyncio.timeout(60):
            answered = (await reader.readuntil(b"\r\n\r\n")).decode()
            count, body = 0, b""
            while piece := await reader.read(65536):
                count += len(piece)
                body = (body + piece)[:65536]
        writer.close()
        return int(answered.split()[1]), answered, (count, body)


def pieces(**fields: str) -> tuple[bytes, bytes]:
    """What stands before and behind the file's bytes."""
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'
    return (head + file).encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


@asynccontextmanager
async def serving(folder: Path, up: Upstream, channels: int = 1, **more: Any) -> AsyncIterator[Place]:
    """A route for forms, a real client, and channels that all lead to the upstream."""
    log.setup("error")
    loop = asyncio.get_running_loop()
    listener = await asyncio.start_server(up.serve, "127.0.0.1", 0)
    up.port = listener.sockets[0].getsockname()[1]
    client = HttpClient(implementation=more.pop("implementation", "wire"))
    many = tuple(
        Channel(
            name=f"c{number}",
            type="openai",
            base_url=f"http://127.0.0.1:{up.port}",
            key=Secret("k"),
            models=("m",),
            model_mapping={"m": "up"},
            **more,
        )
        for number in range(channels)
    )
    async with stage(folder, many, client=client, relay=Relay(max_body=64 * MIB)) as made:
        adapter = msgspec.structs.replace(ADAPTERS["openai"], transcription=ENDPOINT)
        seen = made.house.snapshot
        views = [msgspec.structs.replace(one, adapter=adapter) for one in seen.channels]
        made.house.snapshot = Snapshot(seen.config, views, seen.tokens, seen.prices)
        edge = Edge(made.house, [Route("/f", {"POST": relay_routes._relay(SURFACE)})], SURFACE.failure)
        server = Server(edge.handle, edge.unparsed)
        mine = await loop.create_server(server, "127.0.0.1", 0)
        try:
            yield Place(mine.sockets[0].getsockname()[1])
        finally:
            mine.close()
            listener.close()
            await server.shutdown(1.0)
            await client.close()
            log.setup()
        assert (edge.disk.held, edge.budget.held) == (0, 0)


def wanted(size: int, **fields: str) -> tuple[int, str]:
    """Length and digest of the form that should arrive."""
    head, tail = pieces(**fields)
    data = head + bytes(size) + tail
    return len(data), hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 10, 300_000, 3_000_000])
@pytest.mark.parametrize("implementation", ["wire", "session"])
async def test_a_form_arrives(tmp_path: Path, size: int, implementation: str) -> None:
    """Fields edited by mapping and overrides, the file byte by byte, in memory or out of it, by either client."""
    up = Upstream()
    rules = Override(set={"temperature": 0}, remove=("secret",))
    async with serving(tmp_path, up, override=rules, implementation=implementation) as place:
        status, _, (_, body) = await place.send(size, model="m", secret="x", language="de")
    assert (status, body) == (200, b'{"text":"two"')
    assert up.bodies == [wanted(size, model="up", language="de", temperature="0")]
    assert f'multipart/form-data; boundary="{BOUNDARY}"' in up.heads[0]


async def test_a_form_goes_to_the_next_channel(tmp_path: Path) -> None:
    """What failed is sent again from the start, all of it."""
    up = Upstream()
    up.fails = 2
    async with serving(tmp_path, up, channels=3) as place:
        status, _, _ = await place.send(2_000_000, model="m")
    assert status == 200
    assert up.bodies == [wanted(2_000_000, model="up")] * 3


async def test_memory_stays_flat(tmp_path: Path) -> None:
    """24 MiB of sound up and 20 MiB of anything down: at no moment is more than 2 MiB of it in memory."""
    up = Upstream()
    up.size = 20 * MIB
    async with serving(tmp_path, up) as place:
        await place.send(MIB, model="m", stream="true")
        tracemalloc.start()
        try:
            status, head, (count, _) = await place.send(24 * MIB, model="m", stream="true")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert status == 200
    assert "content-type: audio/x" in head.lower()
    assert count > 20 * MIB  # chunks and their frames
    assert up.bodies[1] == wanted(24 * MIB, model="up", stream="true")
    assert peak < 2 * MIB


async def test_forms_that_are_none(tmp_path: Path) -> None:
    """Too large, without a boundary, without an end: told to the client, nothing sent, nothing kept."""
    up = Upstream()
    async with serving(tmp_path, up) as place:
        assert (await place.send(0, length=65 * MIB, model="m"))[0] == 413
        assert (await place.send(0, kind="multipart/form-data", model="m"))[0] == 400
        assert (await place.send(0, kind="multipart/form-data; boundary=other", model="m"))[0] == 400
    assert up.bodies == []


async def test_a_form_is_the_same_with_another_boundary() -> None:
    """An idempotency key knows a form again whatever its boundary, and another file for another request."""
    visit = Visit(request_id="r", method="POST", path="/f", route="/f", client_ip="", arrived=0.0)

    def form(boundary: str, data: bytes) -> Form:
        head, tail = (piece.replace(BOUNDARY.encode(), boundary.encode()) for piece in pieces(model="m"))
        return multipart.read(multipart.Held(head + data + tail), boundary.encode())

    first = await once.fingerprint(visit, form("a", b"xyz"), {})
    assert await once.fingerprint(visit, form("bcd", b"xyz"), {}) == first
    assert await once.fingerprint(visit, form("a", b"xyZ"), {}) != first


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A form that cannot be kept is refused with 503, and leaves nothing behind; a small one needs no disk."""
    up = Upstream()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with serving(tmp_path, up) as place:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
        try:
            status, _, (_, body) = await place.send(3 * MIB, model="m")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert (status, b"disk_full" in body) == (503, True)
        assert (await place.send(1000, model="m"))[0] == 200


async def test_a_client_that_leaves_while_it_sends(tmp_path: Path) -> None:
    """Nothing of its form is kept, nothing is sent on."""
    up = Upstream()
    async with serving(tmp_path, up) as place:
        head, _ = pieces(model="m")
        _, writer = await asyncio.open_connection("127.0.0.1", place.port)
        lines = f"POST /f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-t\r\nContent-Length: {4 * MIB}\r\n"
        kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        writer.write(f"{lines}{kind}".encode() + head + bytes(MIB))
        await writer.drain()
        writer.transport.abort()
        assert (await place.send(10, model="m"))[0] == 200
    assert len(up.bodies) == 1
