"""The upstream client, both implementations, against a scripted server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import uvloop

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.errors import OurError, ProxyError, UpstreamFailure
from newapi_proxy.ports import Incoming, Interrupt
from newapi_proxy.spawn import spawn
from newapi_proxy.web.client import HttpClient, WireClient
from newapi_proxy.web.pool import Limits
from tests.fakes.upstream import (
    CLOSE,
    END,
    GONE,
    HEAD,
    REQUEST,
    RESET,
    Peer,
    Upstream,
    again,
    chunked,
    free_port,
    ok,
    play,
)

T = TypeVar("T")
C = TypeVar("C", HttpClient, WireClient)
PATIENCE = 5.0  # seconds before a hanging test fails
MIB = 1024 * 1024


@pytest.fixture(params=["wire", "session"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[HttpClient]:
    """A client of either implementation, which leaves nothing behind."""
    async with clean(HttpClient(implementation=request.param)) as one:
        yield one


@pytest.fixture
async def wire() -> AsyncIterator[WireClient]:
    """The wire client alone, for what only it promises."""
    async with clean(WireClient()) as one:
        yield one
        await one.close()
        assert one.pool.open == 0


@asynccontextmanager
async def clean(one: C) -> AsyncIterator[C]:
    """The client, closed at the end, when no task and no socket may be left."""
    tasks, files = asyncio.all_tasks(), _files()
    try:
        yield one
    finally:
        await one.close()
    await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()} and _files() <= files)


def _files() -> int:
    """Open sockets of this process."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return count


async def until(holds: Any) -> None:
    """Turns the loop until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def soon(work: Awaitable[T]) -> T:
    """The result, or a failed test instead of a hanging one."""
    async with asyncio.timeout(PATIENCE):
        return await work


async def ask(client: HttpClient | WireClient, url: str, **named: Any) -> Incoming:
    """Opens one request."""
    interrupt = named.pop("interrupt", None) or Interrupt()
    extra = {"proxy": named.pop("proxy")} if "proxy" in named else {}
    patience = named.pop("connect_timeout", PATIENCE)
    outgoing = Outgoing(url=url, **{"body": b"{}", "headers": {}, **named})
    opened: Awaitable[Incoming] = client.open(outgoing, interrupt, connect_timeout=patience, **extra)
    return await soon(opened)


async def fetch(client: HttpClient | WireClient, url: str, **named: Any) -> bytes:
    """The whole body of one answer."""
    return await soon((await ask(client, url, **named)).whole(100 * MIB))


BODY = b'{"id":"x","choices":[]}'
PACKED = gzip.compress(BODY)
GOOD = {
    "length": (ok(BODY), BODY, True),
    "empty": (ok(b""), b"", True),
    "chunked": (chunked(BODY[:5], BODY[5:]), BODY, True),
    "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n", b"hi", True),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n", b"hi", True),
    "no chunk": (chunked(), b"", True),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", b"hi", True),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, BODY, False),
    "connection close": (ok(BODY, "Connection: close"), BODY, False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0 until close": (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi", False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok(BODY), BODY, True),
    "gzip": (ok(gzip.compress(BODY), "Content-Encoding: gzip"), BODY, True),
    "gzip in chunks": (chunked(PACKED[:3], PACKED[3:11], PACKED[11:], lines=["Content-Encoding: gzip"]), BODY, True),
    "gzip members": (ok(gzip.compress(b"a") + gzip.compress(b"b"), "Content-Encoding: gzip"), b"ab", True),
    "deflate": (ok(zlib.compress(BODY), "Content-Encoding: deflate"), BODY, True),
    "raw deflate": (ok(zlib.compress(BODY)[2:-4], "Content-Encoding: deflate"), BODY, True),
    "identity": (ok(BODY, "Content-Encoding: identity"), BODY, True),
    "encoded nothing": (ok(b"", "Content-Encoding: gzip"), b"", True),
}


@pytest.mark.parametrize("name", GOOD)
async def test_bodies(client: HttpClient, name: str) -> None:
    """Every way to frame and encode a body is understood, and the connection is kept exactly where it may be."""
    answer, body, kept = GOOD[name]
    end = GONE if kept else CLOSE
    second = again(REQUEST, ok(b"2"))
    async with Upstream(play(REQUEST, answer, *([REQUEST, ok(b"2")] if kept else []), end), second) as up:
        assert await fetch(client, up.url) == body
        assert await fetch(client, up.url) == b"2"
        assert len(up.peers) == (1 if kept else 2)


async def test_request(client: HttpClient) -> None:
    """The request carries the caller's headers and body, our framing and no more."""
    async with Upstream(again(REQUEST, ok())) as up:
        sent = {"Authorization": "Bearer k", "x-a": "ü"}
        await fetch(client, up.url + "/v1/x?a=%20b&c", body=b'{"m":1}', headers=sent)
        await fetch(client, up.url + "/get", method="GET", body=b"")
        ours = {"content-length": "7", "transfer-encoding": "chunked"}
        await fetch(client, up.url + "/empty", body=b"", headers=ours)
        post, get, empty = up.requests
    assert (post.line, post.body) == ("POST /v1/x?a=%20b&c HTTP/1.1", b'{"m":1}')
    assert post.header("authorization") == "Bearer k"
    assert post.header("x-a") == "ü"
    assert post.header("host") == up.url.removeprefix("http://")
    assert post.header("accept-encoding") == "gzip, deflate"
    assert (get.line, get.body) == ("GET /get HTTP/1.1", b"")
    assert get.header("content-length") in (None, "0")
    assert (empty.header("content-length"), empty.header("transfer-encoding")) == ("0", None)


async def test_answer(client: HttpClient) -> None:
    """Status and headers come as they are, names in lower case, a redirect is not followed."""
    answer = ok(b"", "Location: http://127.0.0.1:1/", "X-A: 1", "x-a: 2", "X-B: \xff", status="302 Found")
    async with Upstream(again(REQUEST, answer)) as up:
        incoming = await ask(client, up.url)
        assert incoming.status == 302
        assert incoming.headers["location"] == "http://127.0.0.1:1/"
        assert incoming.headers["x-a"] == "1"
        assert incoming.headers["x-b"].encode()
        assert await incoming.read() == b""
        assert len(up.requests) == 1


async def test_decoded_headers(client: HttpClient) -> None:
    """Where a body was decoded, nothing describes the encoded one."""
    async with Upstream(again(REQUEST, ok(gzip.compress(BODY), "Content-Encoding: gzip"))) as up:
        incoming = await ask(client, up.url)
        assert not {"content-encoding", "content-length"} & set(incoming.headers)
        incoming.close()


async def test_head(client: HttpClient) -> None:
    """The answer to HEAD has a length and no body."""
    async with Upstream(again(REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as up:
        incoming = await ask(client, up.url, method="HEAD", body=b"")
        assert incoming.headers["content-length"] == "5"
        assert await soon(incoming.read()) == b""


HEADS = {
    "nothing": [CLOSE],
    "reset": [RESET],
    "cut head": [b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE],
    "another protocol": [b"SSH-2.0-server\r\n", GONE],
    "HTTP/2": [b"HTTP/2 200\r\n\r\n", GONE],
    "binary": [bytes(range(256)), GONE],
    "no status": [b"HTTP/1.1 OK\r\n\r\n", GONE],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi", GONE],
    "length and chunks": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", GONE],
    "negative length": [b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", GONE],
    "endless length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nhi", GONE],
    "NUL": [b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", GONE],
    "bare CR": [b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", GONE],
    "huge header": [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", GONE],
    "10 000 headers": [b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", GONE],
    "huge status line": [b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\n\r\n", GONE],
}
WIRE_HEADS = {
    "1xx flood": [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, GONE],
    "1xx of great size": [(b"HTTP/1.1 103 Early Hints\r\nX: " + b"a" * 9000 + b"\r\n\r\n") * 15 + ok(), GONE],
    "blank lines": [b"\r\n" * 100_000, GONE],
    "another protocol on request": [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", GONE],
    "status 999": [b"HTTP/1.1 999 Much\r\nContent-Length: 0\r\n\r\n", GONE],
    "status 099": [b"HTTP/1.1 099 Little\r\nContent-Length: 0\r\n\r\n", GONE],
}


@pytest.mark.parametrize("name", HEADS)
async def test_bad_heads(client: HttpClient, name: str) -> None:
    """What is no answer is a failure of the channel without a status, and the connection is not kept."""
    async with Upstream(play(REQUEST, *HEADS[name])) as up:
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, up.url)
        failure = caught.value
        assert (failure.upstream_status, failure.blames, failure.status) == (0, "channel", 502)
        assert failure.code == "do_request_failed"
        assert str(up.port) not in failure.message + failure.detail
        assert len(up.requests) == 1


@pytest.mark.parametrize("name", WIRE_HEADS)
async def test_bad_heads_on_the_wire(wire: WireClient, name: str) -> None:
    """What only the wire client refuses: floods before the answer, and statuses that HTTP does not have."""
    async with Upstream(play(REQUEST, *WIRE_HEADS[name])) as up:
        with pytest.raises(UpstreamFailure):
            await ask(wire, up.url)
        await soon(up.peers[0].done.wait())


BODIES = {
    "length too long": [ok(BODY)[:-1], CLOSE],
    "reset in the body": [ok(BODY)[:-1], RESET],
    "cut chunks": [chunked(BODY)[:-5], CLOSE],
    "cut inside a chunk": [chunked(BODY)[:-9], CLOSE],
    "bad chunk size": [chunked(BODY)[:-5], b"zz\r\n", GONE],
    "chunk without its end": [chunked(BODY)[:-7], b"xx", GONE],
    "endless chunk size": [chunked(BODY)[:-5], b"f" * 40 + b"\r\n", GONE],
    "unknown encoding": [ok(BODY, "Content-Encoding: br"), GONE],
    "two encodings": [ok(BODY, "Content-Encoding: gzip, gzip"), GONE],
    "encoding lie": [ok(BODY, "Content-Encoding: gzip"), GONE],
    "deflate lie": [ok(BODY, "Content-Encoding: deflate"), GONE],
    "cut gzip": [ok(gzip.compress(BODY)[:-5], "Content-Encoding: gzip"), GONE],
    "gzip and more": [ok(gzip.compress(BODY) + b"more", "Content-Encoding: gzip"), GONE],
    "a thousand members": [ok(gzip.compress(b"") * 1000, "Content-Encoding: gzip"), GONE],
    "reset before the close": [b"HTTP/1.1 200 OK\r\n\r\n" + BODY, RESET],
}


@pytest.mark.parametrize("name", BODIES)
async def test_bad_bodies(client: HttpClient, name: str) -> None:
    """A body that stops or lies fails while it is read, and its connection is not kept."""
    go = asyncio.Event()
    first, *rest = BODIES[name]
    async with Upstream(play(REQUEST, first, go, *rest)) as up:
        incoming = await ask(client, up.url)
        assert incoming.status == 200
        go.set()
        with pytest.raises(UpstreamFailure) as caught:
            await soon(incoming.whole(MIB))
        assert (caught.value.upstream_status, caught.value.code) == (0, "read_response_body_failed")
        incoming.close()
        with pytest.raises(UpstreamFailure):
            await soon(incoming.whole(MIB))


async def test_what_came_before_a_fault_is_read_first(wire: WireClient) -> None:
    """The bytes that arrived before a connection broke are handed out, then the failure."""
    async with Upstream(play(REQUEST, ok(b"x" * 10)[:-5], END, GONE)) as up:
        incoming = await ask(wire, up.url)
        assert await soon(incoming.read()) == b"xxxxx"
        with pytest.raises(UpstreamFailure):
            await soon(incoming.read())


async def test_length_too_short(wire: WireClient) -> None:
    """Bytes after the end of a body are a fault when they come with it."""
    go = asyncio.Event()
    async with Upstream(play(REQUEST, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", go, b"hi there", GONE)) as up:
        incoming = await ask(wire, up.url)
        go.set()
        with pytest.raises(UpstreamFailure):
            await soon(incoming.whole(100))
        await soon(up.peers[0].gone.wait())


@pytest.mark.parametrize("surplus", [ok(b"two"), b"HTTP/1.1 200", b"H"])
async def test_two_answers(wire: WireClient, surplus: bytes) -> None:
    """A second answer, begun or whole, is never given to the next request (U31)."""
    async with Upstream(play(REQUEST, ok(b"one") + surplus, GONE), again(REQUEST, ok(b"three"))) as up:
        assert await fetch(wire, up.url) == b"one"
        await soon(up.peers[0].gone.wait())
        assert await fetch(wire, up.url) == b"three"


async def test_late_surplus(client: HttpClient) -> None:
    """An answer that comes while nobody asked is not given to the next who asks."""
    late = asyncio.Event()
    async with Upstream(play(REQUEST, ok(b"one"), late, ok(b"two"), GONE), again(REQUEST, ok(b"three"))) as up:
        assert await fetch(client, up.url) == b"one"
        late.set()
        for _ in range(100):
            await asyncio.sleep(0)
        assert await fetch(client, up.url) == b"three"


async def test_late_surplus_on_the_wire(wire: WireClient) -> None:
    """An answer that comes while nobody asked closes the connection."""
    late = asyncio.Event()
    async with Upstream(play(REQUEST, ok(b"one"), late, b"H", GONE)) as up:
        assert await fetch(wire, up.url) == b"one"
        late.set()
        await soon(up.peers[0].gone.wait())
        assert wire.pool.idle == 0


async def test_refused(client: HttpClient) -> None:
    """A port where nobody listens is unreachable."""
    with pytest.raises(UpstreamFailure) as caught:
        await ask(client, f"http://127.0.0.1:{free_port()}")
    assert (caught.value.status, caught.value.message) == (502, "The upstream could not be reached.")
    assert "refused" in caught.value.detail.lower()


async def test_unknown_host(client: HttpClient) -> None:
    """A name that does not resolve is unreachable, and stands neither in message nor detail."""
    with pytest.raises(UpstreamFailure) as caught:
        await ask(client, "http://nowhere.invalid/")
    assert caught.value.code == "do_request_failed"
    assert "nowhere" not in caught.value.message + caught.value.detail


async def test_addresses(client: HttpClient) -> None:
    """A name with several addresses, and one of the sixth version, are reached."""
    async with Upstream(again(REQUEST, ok(b"4"))) as four, Upstream(again(REQUEST, ok(b"6")), host="::1") as six:
        assert await fetch(client, f"http://localhost:{four.port}/") == b"4"
        assert await fetch(client, six.url) == b"6"
        assert six.requests[0].header("host") == f"[::1]:{six.port}"


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_stale(client: HttpClient, end: Any) -> None:
    """A reused connection that closes before the first byte is replaced once."""
    async with Upstream(play(REQUEST, ok(b"1"), REQUEST, end), again(REQUEST, ok(b"2"))) as up:
        assert await fetch(client, up.url) == b"1"
        assert await fetch(client, up.url, body=b'{"n":2}') == b"2"
        assert [len(peer.requests) for peer in up.peers] == [2, 1]
        assert up.peers[1].requests[0].body == b'{"n":2}'


async def test_stale_once(client: HttpClient) -> None:
    """The second chance is a fresh connection, and there is no third."""
    async with Upstream(play(REQUEST, ok(b"1"), REQUEST, CLOSE), play(REQUEST, CLOSE)) as up:
        assert await fetch(client, up.url) == b"1"
        with pytest.raises(UpstreamFailure):
            await ask(client, up.url)
        assert [len(peer.requests) for peer in up.peers] == [2, 1]


async def test_stale_after_a_byte(client: HttpClient) -> None:
    """A reused connection that has begun to answer is not replaced: the request may have been served."""
    cut = b"HTTP/1.1 200 OK\r\nX: y\r\n"
    async with Upstream(play(REQUEST, ok(b"1"), REQUEST, cut, CLOSE), again(REQUEST, ok(b"2"))) as up:
        assert await fetch(client, up.url) == b"1"
        with pytest.raises(UpstreamFailure):
            await ask(client, up.url)
        assert len(up.peers) == 1


async def test_stale_noticed(wire: WireClient) -> None:
    """A connection that closes while it waits is not offered again."""
    bye = asyncio.Event()
    async with Upstream(play(REQUEST, ok(b"1"), bye, CLOSE), again(REQUEST, ok(b"2"))) as up:
        assert await fetch(wire, up.url) == b"1"
        assert wire.pool.idle == 1
        bye.set()
        await until(lambda: wire.pool.idle == 0)
        assert await fetch(wire, up.url) == b"2"
        assert [len(peer.requests) for peer in up.peers] == [1, 1]


async def test_early_answer(client: HttpClient) -> None:
    """An answer that comes before the request is sent is used, and the rest of the request is not sent (U32)."""
    late = ok(b"too large", status="413 Payload Too Large")
    async with Upstream(play(HEAD, late, GONE), again(REQUEST, ok(b"2"))) as up:
        incoming = await ask(client, up.url, body=bytes(30 * MIB))
        assert incoming.status == 413
        assert await soon(incoming.whole(100)) == b"too large"
        incoming.close()
        await soon(up.peers[0].gone.wait())
        assert await fetch(client, up.url) == b"2"


async def test_large_body(client: HttpClient) -> None:
    """A request body larger than every buffer arrives whole while the upstream reads slowly."""
    body = os.urandom(MIB) * 5
    async with Upstream(again(REQUEST, ok(b"got it"))) as up:
        assert await fetch(client, up.url, body=body) == b"got it"
        assert up.requests[0].body == body


async def test_slow_reader(client: HttpClient) -> None:
    """Ten megabytes for a reader that does not read stay with the sender (S7)."""
    piece, count = os.urandom(64 * 1024), 160
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(piece) * count}\r\n\r\n".encode())
        for _ in range(count):
            await peer.send(piece)
            sent += 1
        await peer.until_gone()

    async with Upstream(flood) as up:
        tracemalloc.start()
        try:
            incoming = await ask(client, up.url)
            for _ in range(500):
                await asyncio.sleep(0)
            assert tracemalloc.get_traced_memory()[1] < MIB
            size = 0
            while data := await soon(incoming.read()):
                assert len(data) <= 512 * 1024
                size += len(data)
            assert tracemalloc.get_traced_memory()[1] < 3 * MIB
        finally:
            tracemalloc.stop()
        assert (size, sent) == (len(piece) * count, count)


async def test_bomb(client: HttpClient) -> None:
    """A small body that decodes to a large one is handed out in pieces, and refused above its reader's limit (U19)."""
    bomb = gzip.compress(bytes(48 * MIB))
    async with Upstream(again(REQUEST, ok(bomb, "Content-Encoding: gzip"))) as up:
        incoming = await ask(client, up.url)
        tracemalloc.start()
        try:
            size = 0
            while data := await soon(incoming.read()):
                size += len(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert size == 48 * MIB
        assert peak < 4 * MIB
        with pytest.raises(UpstreamFailure):
            await fetch_limited(client, up.url, MIB)


async def fetch_limited(client: HttpClient, url: str, limit: int) -> bytes:
    """The whole body, if it is no larger than that."""
    return await soon((await ask(client, url)).whole(limit))


async def test_whole_above_its_limit(client: HttpClient) -> None:
    """A body above the limit fails and closes its connection."""
    async with Upstream(play(REQUEST, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(2000), GONE)) as up:
        with pytest.raises(UpstreamFailure):
            await fetch_limited(client, up.url, 1000)
        await soon(up.peers[0].gone.wait())


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {"x": "a\r\nevil: 1"}},
        {"headers": {"x": "a\nevil: 1"}},
        {"headers": {"x": "a\0"}},
        {"headers": {"x\r\nevil": "1"}},
        {"headers": {"x y": "1"}},
        {"headers": {"": "1"}},
        {"headers": {"x": "\ud800"}},
        {"headers": {"host": "a\r\nevil: 1"}},
        {"method": "GET / HTTP/1.1\r\nevil: 1\r\n\r\nGET"},
        {"path": "/a\r\nevil: 1"},
        {"path": "/a\0"},
        {"path": "/a\tb"},
    ],
)
async def test_injection(client: HttpClient, wrong: dict[str, Any]) -> None:
    """Whatever stands in a header, a method or an address, one request leaves or none, and no channel is blamed."""
    async with Upstream(again(REQUEST, ok())) as up:
        named = dict(wrong)
        path = named.pop("path", "/")
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, up.url + path, **named)
        assert caught.value.blames == "nobody"
        assert not up.peers


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nothing", "http://", "http:///x", "http://h:99999/", ""])
async def test_no_address(client: HttpClient, url: str) -> None:
    """Only http and https addresses with a host are asked."""
    with pytest.raises(UpstreamFailure):
        await ask(client, url)


async def test_odd_path(client: HttpClient) -> None:
    """A path with blanks and other scripts is quoted, user and password in an address become a header."""
    async with Upstream(again(REQUEST, ok())) as up:
        await fetch(client, up.url + "/модель a")
        await fetch(client, up.url.replace("//", "//u:p@") + "/x")
        assert up.requests[0].line == "POST /%D0%BC%D0%BE%D0%B4%D0%B5%D0%BB%D1%8C%20a HTTP/1.1"
        assert up.requests[1].header("authorization") == "Basic dTpw"


class Deadline(Exception):
    """What an interrupt is fired with here."""


async def test_interrupted_before(client: HttpClient) -> None:
    """An interrupt that has fired already keeps a request from being sent."""
    interrupt = Interrupt()
    interrupt.fire(Deadline())
    async with Upstream(again(REQUEST, ok())) as up:
        with pytest.raises(Deadline):
            await ask(client, up.url, interrupt=interrupt)
        assert not up.peers


async def test_interrupted_while_connecting(wire: WireClient) -> None:
    """A connect that nobody waits for any more ends in the pool, ready for the next request."""
    interrupt = Interrupt()
    async with Upstream(again(REQUEST, ok(b"1"))) as up:
        asking = spawn(_outcome(ask(wire, up.url, interrupt=interrupt)), "asking")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        interrupt.fire(Deadline())
        assert isinstance(await soon(asking), Deadline)
        await until(lambda: wire.pool.idle == 1)
        assert await fetch(wire, up.url) == b"1"
        assert len(up.peers) == 1


async def _outcome(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (Deadline, ProxyError, asyncio.CancelledError) as error:
        return error


@pytest.mark.parametrize("how", ["interrupt", "cancel"])
async def test_interrupted_while_waiting(client: HttpClient, how: str) -> None:
    """A deadline while the upstream is silent closes the connection at once (U4, S4)."""
    interrupt = Interrupt()
    async with Upstream(play(REQUEST, GONE)) as up:
        asking = spawn(_outcome(ask(client, up.url, interrupt=interrupt)), "asking")
        peer = await soon(up.peer())
        await soon(peer.asked.wait())
        if how == "interrupt":
            interrupt.fire(Deadline())
        else:
            asking.cancel()
        assert isinstance(await soon(asking), Deadline if how == "interrupt" else asyncio.CancelledError)
        await soon(peer.gone.wait())


@pytest.mark.parametrize("how", ["interrupt", "cancel", "close"])
async def test_interrupted_while_reading(client: HttpClient, how: str) -> None:
    """A departure in the middle of a stream closes the connection at once (S4)."""
    interrupt = Interrupt()
    async with Upstream(play(REQUEST, chunked(b"data: 1\n\n")[:-5], GONE)) as up:
        incoming = await ask(client, up.url, interrupt=interrupt)
        assert await soon(incoming.read()) == b"data: 1\n\n"
        reading = spawn(_outcome(incoming.read()), "reading")
        await asyncio.sleep(0)
        match how:
            case "interrupt":
                interrupt.fire(Deadline())
            case "cancel":
                reading.cancel()
            case _:
                incoming.close()
        await soon(up.peers[0].gone.wait())
        expected = {"interrupt": Deadline, "cancel": asyncio.CancelledError, "close": UpstreamFailure}
        assert isinstance(await soon(reading), expected[how])
        if how == "interrupt":
            with pytest.raises(Deadline):
                await incoming.read()


async def test_head_drip(client: HttpClient) -> None:
    """A head that comes byte by byte is understood, and its waiting ends when the deadline fires (U5)."""
    interrupt = Interrupt()
    pieces = [ok(BODY)[i : i + 1] for i in range(len(ok(BODY)))]
    async with Upstream(play(REQUEST, *pieces, REQUEST, *pieces[:20], GONE)) as up:
        assert await fetch(client, up.url) == BODY
        asking = spawn(_outcome(ask(client, up.url, interrupt=interrupt)), "asking")
        await until(lambda: len(up.requests) == 2)
        interrupt.fire(Deadline())
        assert isinstance(await soon(asking), Deadline)
        await soon(up.peers[0].gone.wait())


async def test_close_unfinished(client: HttpClient) -> None:
    """Letting go of an unfinished answer closes its connection, letting go of a finished one keeps it."""
    async with Upstream(play(REQUEST, ok(b"1"), REQUEST, ok(b"22")[:-1], GONE)) as up:
        first = await ask(client, up.url)
        await soon(first.whole(10))
        first.close()
        first.close()
        second = await ask(client, up.url)
        second.close()
        second.close()
        await soon(up.peers[0].gone.wait())
        assert len(up.peers) == 1


async def test_shutdown() -> None:
    """Closing the client closes what waits and what is at work, and nothing is opened afterwards."""
    client = HttpClient(implementation="wire")
    async with Upstream(play(REQUEST, GONE), play(REQUEST, ok(), GONE)) as up:
        asking = spawn(_outcome(ask(client, up.url)), "asking")
        await soon((await soon(up.peer())).asked.wait())
        await fetch(client, up.url)
        await soon(client.close())
        for peer in up.peers:
            await soon(peer.gone.wait())
        with pytest.raises(OurError):
            await ask(client, up.url)
        asking.cancel()
        await soon(asking)


async def test_pool_limits() -> None:
    """No more connections wait than allowed, and none longer than allowed."""
    client = WireClient(limits=Limits(idle_per_host=1, idle_timeout=0.05))
    async with Upstream(again(REQUEST, ok(b"1"))) as up:
        await asyncio.gather(*(fetch(client, up.url) for _ in range(3)))
        assert client.pool.idle == 1
        await until(lambda: client.pool.idle == 0 and client.pool.open == 0)
        assert len(up.peers) == 3
        assert await fetch(client, up.url) == b"1"
    await client.close()


async def test_parallel(client: HttpClient) -> None:
    """Many requests at a time are not mixed up."""

    async def echo(peer: Peer) -> None:
        while True:
            await peer.send(ok((await peer.request()).body))

    async with Upstream(echo) as up:
        bodies = [b"%d" % n * 50 for n in range(60)]
        for _ in range(3):
            assert await asyncio.gather(*(fetch(client, up.url, body=body) for body in bodies)) == bodies
        assert len(up.peers) <= 60


async def test_http_proxy(client: HttpClient) -> None:
    """A plain address is asked of an HTTP proxy in its absolute form, with the proxy's own password."""
    async with Upstream(again(REQUEST, ok(b"by proxy"))) as proxy:
        asked = proxy.url.replace("//", "//u:p@")
        assert await fetch(client, "http://upstream.invalid/x", proxy=asked) == b"by proxy"
        assert proxy.requests[0].line == "POST http://upstream.invalid/x HTTP/1.1"
        assert proxy.requests[0].header("proxy-authorization") == "Basic dTpw"


async def test_proxy_refuses(client: HttpClient) -> None:
    """A proxy that opens no tunnel makes the upstream unreachable."""
    async with Upstream(play(HEAD, ok(b"", status="403 Forbidden"), GONE)) as proxy:
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, "https://upstream.invalid/x", proxy=proxy.url)
        assert caught.value.code == "do_request_failed"
        assert proxy.requests[0].line == "CONNECT upstream.invalid:443 HTTP/1.1"


async def test_socks_proxy(client: HttpClient) -> None:
    """A SOCKS proxy is told the name and passes the rest through."""
    pytest.importorskip("aiohttp_socks")

    async def socks(peer: Peer) -> None:
        assert await peer.reader.readexactly(3) == b"\5\1\0"
        await peer.send(b"\5\0")
        assert await peer.reader.readexactly(4) == b"\5\1\0\3"
        size = (await peer.reader.readexactly(1))[0]
        assert await peer.reader.readexactly(size + 2) == b"upstream.invalid\0\x50"
        await peer.send(b"\5\0\0\1" + bytes(6))
        await play(REQUEST, ok(b"by socks"), GONE)(peer)

    async def refusing(peer: Peer) -> None:
        await peer.reader.readexactly(3)
        await peer.send(b"\5\xff")

    async with Upstream(socks) as proxy, Upstream(refusing) as wall:
        there = {"proxy": proxy.url.replace("http", "socks5")}
        assert await fetch(client, "http://upstream.invalid/x", **there) == b"by socks"
        with pytest.raises(UpstreamFailure):
            await ask(client, "http://upstream.invalid/x", proxy=wall.url.replace("http", "socks5"))
        assert not proxy.failures


async def test_socks_without_the_extra(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel whose proxy needs a package that is missing: the next channel serves, and nobody is parked."""
    monkeypatch.setitem(sys.modules, "aiohttp_socks", None)
    with pytest.raises(UpstreamFailure) as caught:
        await ask(client, "http://upstream.invalid/x", proxy="socks5://127.0.0.1:1")
    assert (caught.value.blames, caught.value.code) == ("nobody", "convert_request_failed")


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the implementation, the argument wins."""
    assert HttpClient().implementation == "wire"
    monkeypatch.setenv("NEWAPI_PROXY_CLIENT", "session")
    assert HttpClient().implementation == "session"
    assert HttpClient(implementation="wire").implementation == "wire"


SERVED: list[Callable[..., Awaitable[None]]] = [
    test_request,
    test_answer,
    test_head,
    test_late_surplus,
    test_refused,
    test_addresses,
    test_stale_once,
    test_stale_after_a_byte,
    test_early_answer,
    test_large_body,
    test_slow_reader,
    test_bomb,
    test_whole_above_its_limit,
    test_head_drip,
    test_close_unfinished,
    test_parallel,
    test_http_proxy,
    test_proxy_refuses,
]
TABLES: list[tuple[Callable[..., Awaitable[None]], list[Any]]] = [
    (test_bodies, list(GOOD)),
    (test_bad_heads, list(HEADS)),
    (test_bad_bodies, list(BODIES)),
    (test_stale, [CLOSE, RESET]),
    (test_interrupted_while_waiting, ["interrupt", "cancel"]),
    (test_interrupted_while_reading, ["interrupt", "cancel", "close"]),
]
WIRED: list[Callable[..., Awaitable[None]]] = [
    test_what_came_before_a_fault_is_read_first,
    test_length_too_short,
    test_stale_noticed,
    test_interrupted_while_connecting,
]


@pytest.mark.parametrize("implementation", ["wire", "session"])
def test_on_the_serving_loop(implementation: Any) -> None:
    """The same holds on the event loop that serves."""

    async def one(test: Callable[..., Awaitable[None]], *row: Any) -> None:
        async with clean(HttpClient(implementation=implementation)) as client:
            await test(client, *row)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for test in SERVED:
            runner.run(one(test))
        for test, rows in TABLES:
            for row in rows:
                runner.run(one(test, row))


def test_wire_on_the_serving_loop() -> None:
    """What only the wire client promises holds on the event loop that serves, too."""

    async def one(test: Callable[..., Awaitable[None]], *row: Any) -> None:
        async with clean(WireClient()) as client:
            await test(client, *row)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for test in WIRED:
            runner.run(one(test))
        for name in WIRE_HEADS:
            runner.run(one(test_bad_heads_on_the_wire, name))
