"""The edge over real sockets: framing, keep-alive, departure, back-pressure, what is answered when nothing fits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any

import orjson
import pytest

from newapi_proxy import log, metrics
from newapi_proxy.billing.ledger import Account
from newapi_proxy.clock import SystemClock
from newapi_proxy.config.model import Config
from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.web import ops_routes, relay_routes, server
from newapi_proxy.web.app import Call, Edge
from newapi_proxy.web.body import Share
from newapi_proxy.web.router import Route
from newapi_proxy.web.server import Server
from newapi_proxy.web.sink import Reply

BIG = 8 * 1024 * 1024
Step = Callable[[Call], Awaitable[None]]


def house(config: Config | None = None) -> House:
    """What an edge needs of a house; nothing here reaches its database or its client."""
    view = Snapshot(config or Config(), (), {}, None)  # type: ignore[arg-type]
    clock = SystemClock()
    health = Health(clock, lambda *_: None)
    return House(view, None, None, health, clock, boot="test")  # type: ignore[arg-type]


def failure(error: Any, request_id: str) -> bytes:
    """An error body for the routes of these tests."""
    return orjson.dumps({"error": {"message": error.message, "code": error.code}, "id": request_id})


class Peer:
    """A client that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, text: str) -> None:
        """A request, written with bare line ends."""
        self.writer.write(text.replace("\n", "\r\n").encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """The next answer's status and headers."""
        async with asyncio.timeout(10):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer with its body, by length or in chunks."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return status, headers, body
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def closed(self) -> bytes:
        """What comes until the connection ends."""
        async with asyncio.timeout(10):
            return await self.reader.read()


class Place:
    """A server on the loopback with an edge of the given steps, by path."""

    def __init__(self, edge: Edge, made: Server, port: int) -> None:
        self.edge = edge
        self.server = made
        self.port = port
        self.peers: list[Peer] = []

    async def peer(self) -> Peer:
        """A fresh connection."""
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.peers[-1]

    async def close(self) -> None:
        """The end of every connection."""
        for peer in self.peers:
            peer.writer.close()
            with suppress(ConnectionError):
                await peer.writer.wait_closed()


@asynccontextmanager
async def serving(steps: dict[str, Step], *, config: Config | None = None) -> AsyncIterator[Place]:
    """Each step serves GET and POST of its path."""
    log.setup("error")
    metrics.reset()

    def action(step: Step) -> Callable[[Edge, Call], Awaitable[None]]:
        return lambda _, call: step(call)

    routes = [Route(path, dict.fromkeys(("GET", "POST", "HEAD"), action(step))) for path, step in steps.items()]
    edge = Edge(house(config), [*routes, *ops_routes.routes()], failure)
    made = Server(edge.handle, edge.unparsed)
    listener = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
    place = Place(edge, made, listener.sockets[0].getsockname()[1])
    try:
        yield place
    finally:
        await place.close()
        listener.close()
        await made.shutdown(1.0)
        log.setup()


async def hello(call: Call) -> None:
    """A whole answer."""
    call.arrival.reply.whole(200, (), b'{"hello":1}')


async def counted(call: Call) -> None:
    """A stream of three writes."""
    reply = call.arrival.reply
    reply.start(200, ())
    for number in range(3):
        reply.write(b"data: %d\n\n" % number)
    reply.end()


GET = "GET {} HTTP/1.1\nHost: x\n{}\n"


async def test_whole_answers_keep_the_connection() -> None:
    """Whole answers carry length, ids and CORS, and the connection serves the next request."""
    async with serving({"/a": hello}) as place:
        peer = await place.peer()
        for _ in range(3):
            peer.send(GET.format("/a", "X-Request-Id: mine\n"))
            status, headers, body = await peer.answer()
            assert (status, body) == (200, b'{"hello":1}')
            assert headers["x-request-id"] == headers["x-oneapi-request-id"]
            assert headers["x-request-id"].startswith("mine")
            assert headers["content-type"] == "application/json"
            assert headers["access-control-allow-origin"] == "*"
            assert "connection" not in headers
            assert "date" in headers


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests that come together are answered one after the other, streams and whole answers mixed."""
    async with serving({"/a": hello, "/s": counted}) as place:
        peer = await place.peer()
        peer.send(GET.format("/a", "") + GET.format("/s", "") + GET.format("/a", ""))
        assert [(await peer.answer())[2] for _ in range(3)] == [
            b'{"hello":1}',
            b"data: 0\n\ndata: 1\n\ndata: 2\n\n",
            b'{"hello":1}',
        ]


async def test_streams_are_chunked() -> None:
    """A stream has its headers, and its end leaves the connection usable."""
    async with serving({"/s": counted}) as place:
        peer = await place.peer()
        for _ in range(2):
            peer.send(GET.format("/s", ""))
            _, headers, _ = await peer.answer()
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-cache"
            assert headers["x-accel-buffering"] == "no"
            assert "content-length" not in headers


async def test_http_10() -> None:
    """An HTTP/1.0 client gets its stream bare, ended by the close; it keeps a connection only for known lengths."""
    async with serving({"/a": hello, "/s": counted}) as place:
        peer = await place.peer()
        peer.send("GET /s HTTP/1.0\n\n")
        status, headers = await peer.head()
        assert (status, headers["connection"]) == (200, "close")
        assert "transfer-encoding" not in headers
        assert await peer.closed() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        peer = await place.peer()
        peer.send("GET /a HTTP/1.0\nConnection: keep-alive\n\n")
        assert (await peer.answer())[1]["connection"] == "keep-alive"
        peer.send("GET /a HTTP/1.0\n\n")
        assert (await peer.answer())[1]["connection"] == "close"
        assert await peer.closed() == b""


async def test_head_has_no_body() -> None:
    """HEAD gets GET's head alone."""
    async with serving({"/a": hello, "/s": counted}) as place:
        peer = await place.peer()
        for path in ("/a", "/s", "/a"):
            peer.send(f"HEAD {path} HTTP/1.1\nHost: x\n\n")
            assert (await peer.head())[0] == 200


async def test_connection_close_is_obeyed() -> None:
    """A client that wants the connection closed gets it closed."""
    async with serving({"/a": hello}) as place:
        peer = await place.peer()
        peer.send(GET.format("/a", "Connection: close\n"))
        assert (await peer.answer())[1]["connection"] == "close"
        assert await peer.closed() == b""


async def test_headers_cannot_break_out() -> None:
    """A header value with line ends stays one header; framing headers of others are not taken over."""

    async def evil(call: Call) -> None:
        call.arrival.reply.whole(
            200, (("X-A", "1\r\nX-B: 2\x00"), ("Content-Length", "999"), ("Set-Cookie", "a=b"), ("X-U", "é☃")), b"ok"
        )

    async with serving({"/a": evil}) as place:
        peer = await place.peer()
        peer.send(GET.format("/a", ""))
        _, headers, body = await peer.answer()
        assert headers["x-a"] == "1  x-b: 2 "
        assert {"x-b", "set-cookie"}.isdisjoint(headers)
        assert body == b"ok"


@pytest.mark.parametrize("reset", [False, True])
async def test_departure_is_told_at_once(reset: bool) -> None:
    """A client that leaves a silent stream is noticed without a write, by FIN or RST."""
    gone, went_on = asyncio.Event(), asyncio.Event()

    async def silent(call: Call) -> None:
        reply = call.arrival.reply
        reply.start(200, ())
        reply.write(b": hi\n\n")
        reply.watch(gone.set)
        await gone.wait()
        assert reply.departed
        reply.write(b"lost")
        await reply.drain()
        reply.end()
        went_on.set()

    async with serving({"/s": silent}) as place, asyncio.timeout(10):
        peer = await place.peer()
        peer.send(GET.format("/s", ""))
        await peer.head()
        if reset:
            peer.writer.transport.abort()
        else:
            peer.writer.close()
        await went_on.wait()
    assert metrics.bugs() == 0


async def test_watching_a_departed_client_tells_at_once() -> None:
    """Whoever begins to watch after the departure is told all the same."""
    told = []

    class Line:
        transport: asyncio.Transport | None = None
        retiring = False
        writing_paused = False

        async def drained(self) -> None:
            raise ConnectionResetError

    reply = Reply(Line(), http10=False, reusable=True, bare=False, complete=lambda: True)
    reply.watch(lambda: told.append(1))
    await reply.drain()
    assert told == [1]


async def test_back_pressure() -> None:
    """A client that does not read fills its buffer, draining waits for it, and it gets every byte."""
    was_full = asyncio.Event()

    async def much(call: Call) -> None:
        reply = call.arrival.reply
        reply.start(200, ())
        for _ in range(BIG // 65536 * 2):
            reply.write(b"x" * 65536)
            if reply.full:
                was_full.set()
                await reply.drain()
                assert not reply.full
        reply.end()

    async with serving({"/s": much}) as place, asyncio.timeout(30):
        peer = await place.peer()
        peer.send(GET.format("/s", ""))
        await was_full.wait()
        assert len((await peer.answer())[2]) == BIG // 65536 * 2 * 65536


async def test_a_client_that_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full buffer out of which nothing is read within the deadline ends the connection."""
    monkeypatch.setattr(server, "STALL_SECONDS", 0.05)
    ended = asyncio.Event()

    async def endless(call: Call) -> None:
        reply = call.arrival.reply
        reply.start(200, ())
        while not reply.departed:
            reply.write(b"x" * 65536)
            await reply.drain()
        reply.end()
        ended.set()

    async with serving({"/s": endless}) as place, asyncio.timeout(20):
        peer = await place.peer()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET.format("/s", ""))
        await ended.wait()


async def test_a_dripping_head_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that does not end within its deadline ends the connection; an idle connection may wait longer."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    async with serving({"/a": hello}) as place:
        idle, slow = await place.peer(), await place.peer()
        slow.send("GET /a HT")
        assert await slow.closed() == b""
        idle.send(GET.format("/a", ""))
        assert (await idle.answer())[0] == 200


@pytest.mark.parametrize(
    "request_text",
    [
        "nonsense\n\n",
        "GET /a HTTP/9.9\nHost: x\n\n",
        "GET /a HTTP/1.1\nHost: x\nX: a\n b\n\n",
        "GET /a HTTP/1.1\nHost: x\nHost: y\n\n",
        "POST /a HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 2\n\nab",
        "POST /a HTTP/1.1\nHost: x\nContent-Length: 1\nTransfer-Encoding: chunked\n\n0\n\n",
        "GET /a HTTP/1.1\nHost: x\nX-Long: " + "x" * 20000 + "\n\n",
        "GET /a HTTP/1.1\nHost: x\nX: a\0b\n\n",
    ],
)
async def test_what_is_no_http_gets_400(request_text: str) -> None:
    """A head that could be read in two ways is refused with an id, and the connection ends."""
    async with serving({"/a": hello}) as place:
        peer = await place.peer()
        peer.send(request_text)
        status, headers, body = await peer.answer()
        assert status == 400
        assert headers["connection"] == "close"
        assert orjson.loads(body)["id"] == headers["x-request-id"]
        assert await peer.closed() == b""


async def test_unknown_path_and_wrong_method() -> None:
    """404 in the words that clients of One API know, 405 with what is allowed."""
    async with serving({"/v1/a": hello}) as place:
        peer = await place.peer()
        peer.send(GET.format("/v1/nothing", ""))
        status, _, body = await peer.answer()
        message = "Invalid URL (GET /v1/nothing)"
        assert status == 404
        assert orjson.loads(body) == {
            "error": {"message": message, "type": "invalid_request_error", "param": "", "code": ""}
        }
        peer.send("DELETE /v1/a HTTP/1.1\nHost: x\n\n")
        status, headers, _ = await peer.answer()
        assert (status, headers["allow"]) == (405, "get, post, head, options")


async def test_preflight_needs_no_key() -> None:
    """A browser's preflight is answered on any path, with the headers that it asked for."""
    async with serving({}) as place:
        peer = await place.peer()
        peer.send(
            "OPTIONS /v1/chat/completions HTTP/1.1\nHost: x\nOrigin: https://app.example\n"
            "Access-Control-Request-Method: POST\nAccess-Control-Request-Headers: authorization,x-stainless-os\n\n"
        )
        status, headers = await peer.head()
        assert status == 204
        assert headers["access-control-allow-headers"] == "authorization,x-stainless-os"
        assert "post" in headers["access-control-allow-methods"]
        assert headers["access-control-max-age"] == "43200"
        assert "access-control-allow-credentials" not in headers
        peer.send(GET.format("/healthz", ""))
        assert (await peer.answer())[0] == 200


async def test_a_bug_is_a_500_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody expected: 500, a line with its place, a count; the next request is served."""

    async def broken(call: Call) -> None:
        raise KeyError("the prompt")

    async with serving({"/b": broken, "/a": hello}) as place:
        peer = await place.peer()
        peer.send(GET.format("/b", ""))
        status, _, body = await peer.answer()
        assert status == 500
        assert b"prompt" not in body
        peer = await place.peer()
        peer.send(GET.format("/a", ""))
        assert (await peer.answer())[0] == 200
    assert metrics.bugs() == 1
    out = capfd.readouterr().out
    assert '"exception":"KeyError"' in out
    assert "the prompt" not in out
    assert b'newapi_requests_total{end="rejected",route="/b",status="500"} 1.0' in metrics.text()


async def test_a_broken_stream_looks_broken() -> None:
    """A stream that a bug cuts does not end as if it were whole."""

    async def broken(call: Call) -> None:
        call.arrival.reply.start(200, ())
        call.arrival.reply.write(b"data: 1\n\n")
        raise KeyError

    async with serving({"/s": broken}) as place:
        peer = await place.peer()
        peer.send(GET.format("/s", ""))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await peer.answer()


async def test_upgrade_is_declined() -> None:
    """An upgrade to something we do not speak is an ordinary request, and the connection goes on."""
    async with serving({"/a": hello}) as place:
        peer = await place.peer()
        for _ in range(2):
            peer.send(GET.format("/a", "Connection: Upgrade\nUpgrade: websocket\n"))
            assert (await peer.answer())[0] == 200


async def test_expect_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks before it sends its body is told to go on, or what is wrong before it sent anything."""

    async def reads(call: Call) -> None:
        try:
            body = await relay_routes.received(call, Share(place.edge.budget, 10))
        except ProxyError as error:
            place.edge.refuse(call, error)
            return
        call.arrival.reply.whole(200, (), body)

    config = Config(relay=Config().relay.__class__(max_body=10))
    async with serving({"/a": reads}, config=config) as place:
        peer = await place.peer()
        peer.send("POST /a HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 5\n\n")
        assert (await peer.head())[0] == 100
        peer.send("hello")
        assert (await peer.answer())[2] == b"hello"
        peer.send("POST /a HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 11\n\n")
        assert (await peer.answer())[0] == 413
        peer = await place.peer()
        peer.send("POST /a HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nb\nhello world\n")
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (413, "close")


async def test_one_request_sees_one_configuration() -> None:
    """A reload between a request's head and its body changes nothing for it: key, limits and channels are the old."""
    chat = relay_routes._relay(SURFACES["/v1/chat/completions"])
    account = Account(1, 1, token_limited=False, user_limited=False)
    token = Token(name="demo", account=account, group="default")
    old = Snapshot(Config(), (), {sha256(b"demo").digest(): token}, None)  # type: ignore[arg-type]
    async with serving({"/a": lambda call: chat(place.edge, call)}) as place:
        place.edge.house.snapshot = old
        peer = await place.peer()
        body = '{"model":"m","messages":[{"role":"user","content":"x"}]}'
        peer.send(
            "POST /a HTTP/1.1\nHost: x\nAuthorization: Bearer sk-demo\nExpect: 100-continue\n"
            f"Content-Length: {len(body)}\n\n"
        )
        assert (await peer.head())[0] == 100
        assert place.edge.budget.held == len(body)
        place.edge.house.snapshot = None  # type: ignore[assignment]
        peer.send(body)
        status, _, told = await peer.answer()
        assert (status, orjson.loads(told)["error"]["code"]) == (503, "model_not_found")
    assert place.edge.budget.held == 0


@pytest.mark.parametrize(
    ("framing", "sent", "code"),
    [
        ("", "", "invalid_json"),
        ("Content-Length: 0\n", "", "invalid_json"),
        ("Transfer-Encoding: chunked\n", "0\n\n", "invalid_json"),
        ("Transfer-Encoding: chunked\n", "2\n{}\n0\n\n", "invalid_text_request"),
        ("Transfer-Encoding: chunked\n", "1\n{\n1\n}\n0\n\n", "invalid_text_request"),
        ("Content-Length: 2\n", "{}", "invalid_text_request"),
    ],
)
async def test_a_body_is_read_however_it_comes(framing: str, sent: str, code: str) -> None:
    """No body, an empty one, one piece or several, with the head or after it: the client's fault, in its format."""
    chat = relay_routes._relay(SURFACES["/v1/chat/completions"])
    token = Token(name="demo", account=Account(1, 1, token_limited=False, user_limited=False), group="default")
    async with serving({"/a": lambda call: chat(place.edge, call)}) as place:
        view = Snapshot(Config(), (), {sha256(b"demo").digest(): token}, None)  # type: ignore[arg-type]
        place.edge.house.snapshot = view
        for together in (True, False):
            peer = await place.peer()
            head = f"POST /a HTTP/1.1\nHost: x\nAuthorization: Bearer sk-demo\n{framing}\n"
            peer.send(head + sent if together else head)
            if not together:
                peer.send(sent)
            status, _, told = await peer.answer()
            assert (status, orjson.loads(told)["error"]["code"]) == (400, code)
    assert metrics.bugs() == 0
    assert place.edge.budget.held == 0


async def test_a_body_that_broke_off_is_not_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    """After the answer to a body that came too slowly the connection ends, without a word in the log."""

    async def slow(call: Call) -> None:
        error = ClientError("too slow", status=408, code="request_timeout")
        call.arrival.payload.set_exception(error)
        place.edge.refuse(call, error)

    async with serving({"/a": slow}) as place:
        peer = await place.peer()
        peer.send("POST /a HTTP/1.1\nHost: x\nContent-Length: 100\n\n{")
        assert (await peer.answer())[0] == 408
        assert await peer.closed() == b""
    assert "nhandled" not in capfd.readouterr().out


async def test_broken_chunks() -> None:
    """A body whose chunks cannot be read is the client's fault."""

    async def reads(call: Call) -> None:
        try:
            await relay_routes.received(call, Share(place.edge.budget, 10))
        except ProxyError as error:
            place.edge.refuse(call, error)

    async with serving({"/a": reads}) as place:
        peer = await place.peer()
        peer.send("POST /a HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n")
        peer.send("zz\nhello\n")
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (400, "close")
    assert metrics.bugs() == 0


async def test_retiring() -> None:
    """When the daemon drains, answers are their connection's last, and idle connections are closed."""
    async with serving({"/a": hello}) as place:
        idle, busy = await place.peer(), await place.peer()
        for peer in (idle, busy):
            peer.send(GET.format("/a", ""))
            await peer.answer()
        place.server.retire()
        busy.send(GET.format("/a", ""))
        assert (await busy.answer())[1]["connection"] == "close"
        assert await busy.closed() == b""
        assert place.server.close_idle() == 0
        assert await idle.closed() == b""


async def test_metrics_are_for_admins() -> None:
    """On the public listener the metrics are there only for an admin key."""
    admin = Config().admin.__class__(keys=(Config().database.__class__("root-key"),))
    async with serving({}, config=Config(admin=admin)) as place:
        peer = await place.peer()
        peer.send(GET.format("/metrics", "Authorization: Bearer nobody\n"))
        assert (await peer.answer())[0] == 404
        peer.send(GET.format("/metrics", "Authorization: Bearer root-key\n"))
        status, headers, body = await peer.answer()
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"newapi_inflight" in body


async def test_readiness_while_draining() -> None:
    """While draining the process is up but not ready."""
    async with serving({}) as place:
        place.edge.draining = True
        peer = await place.peer()
        for path, expected in (("/healthz", 200), ("/readyz", 503)):
            peer.send(GET.format(path, ""))
            assert (await peer.answer())[0] == expected
