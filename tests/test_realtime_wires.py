"""Sessions over TLS and through proxies: whom the daemon trusts, what a proxy learns, what happens when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from aiohttp import WSServerHandshakeError

from newapi_proxy import log
from newapi_proxy.config.model import Relay
from tests.fakes.realtime import COST, Line, channel, heard, line, seen, send, until
from tests.fakes.tunnel import Kind, Tunnel, tunnel
from tests.test_client_tls import Authority

NAME: Final = "upstream.invalid"  # known to nobody here: only the proxy is asked for it
LARGE: Final = "y" * (3 << 20)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Only the lines that a test looks for."""
    log.setup("error")
    yield
    log.setup()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority for the module."""
    return Authority(tmp_path_factory.mktemp("tls"))


async def _talk(made: Line) -> None:
    """A session of two responses and a large message each way; paid for, and closed in order."""
    async with made.connect() as socket:
        for _ in range(2):
            await send(socket, type="response.create")
            await until(socket, "response.done")
        await socket.send_bytes(LARGE.encode())
        assert len((await socket.receive()).data) == len(LARGE)
        await socket.close()
    rows = await made.settled()
    assert [row["charged"] for row in rows] == [COST, COST, 0]
    await made.peer.empty()
    assert made.peer.codes == [1000]
    (shake,) = made.peer.shakes
    assert shake.headers["Authorization"] == "Bearer sk-upstream"


async def _refused(made: Line) -> Any:
    """The error that a client gets in place of a session, for which nothing is held any more."""
    with pytest.raises(WSServerHandshakeError) as caught:
        async with made.connect():
            pass
    assert caught.value.status in (502, 504)
    assert [row["charged"] for row in await made.settled()] == [0]
    assert made.peer.shakes == []
    return caught.value


async def _direct(folder: Path, authority: Authority) -> None:
    async with line(folder, far_tls=authority.server(), own_tls=authority.trust()) as made:
        await _talk(made)


async def _unknown_authority(folder: Path, authority: Authority) -> None:
    async with line(folder, far_tls=authority.server()) as made:
        await _refused(made)


async def _another_name(folder: Path, authority: Authority) -> None:
    async with line(folder, far_tls=authority.server("elsewhere.invalid"), own_tls=authority.trust()) as made:
        await _refused(made)


async def _expired(folder: Path, authority: Authority) -> None:
    async with line(folder, far_tls=authority.server(expired=True), own_tls=authority.trust()) as made:
        await _refused(made)


async def _dies(folder: Path, authority: Authority) -> None:
    async with line(folder, far_tls=authority.server(), own_tls=authority.trust()) as made, made.connect() as socket:
        assert (await heard(socket))["type"] == "session.created"
        await send(socket, type="response.create", do="die")
        assert (await until(socket, "error"))["error"]["code"] == "upstream_closed"
        assert await heard(socket) == 1011


def _through(kind: Kind) -> Callable[[Path, Authority], Awaitable[None]]:
    async def case(folder: Path, authority: Authority) -> None:
        if kind == "socks5":
            pytest.importorskip("aiohttp_socks")
        own = authority.server("127.0.0.1", "localhost") if kind == "https" else None
        async with tunnel(0, kind, own) as proxy:
            # the proxy's certificate is for its name
            url = proxy.url.replace("127.0.0.1", "localhost") if kind == "https" else proxy.url
            there = channel(f"https://{NAME}", proxy=url.replace("//", "//u:p@") if kind == "http" else url)
            tls = {"far_tls": authority.server(NAME), "own_tls": authority.trust()}
            async with line(folder, there, **tls) as made:
                proxy.port = made.peer.port
                await _talk(made)
                await seen(lambda: proxy.open == 0)
            _learnt(proxy)

    return case


def _learnt(proxy: Tunnel) -> None:
    """What a proxy learns: the name, its own password, and nothing of the request."""
    (asked,) = proxy.asked
    assert "sk-upstream" not in asked
    assert "realtime" not in asked
    if proxy.kind == "socks5":
        assert asked == f"{NAME}:443"
    else:
        assert asked.startswith(f"CONNECT {NAME}:443 HTTP/1.1\r\n")
        assert ("Basic dTpw" in asked) == (proxy.kind == "http")


async def _refusing(folder: Path, authority: Authority) -> None:
    async with tunnel(0) as proxy, tunnel(0) as other:
        proxy.refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        first = channel(f"https://{NAME}", "first", proxy=proxy.url, priority=1)
        spare = channel(f"https://{NAME}", "spare", proxy=other.url)
        tls = {"far_tls": authority.server(NAME), "own_tls": authority.trust()}
        async with line(folder, first, spare, **tls) as made:
            other.port = made.peer.port
            await _talk(made)
        assert len(proxy.asked) == len(other.asked) == 1


async def _silent(folder: Path, authority: Authority) -> None:
    async with tunnel(0) as proxy:
        proxy.silent = True
        there = channel(f"https://{NAME}", proxy=proxy.url)
        relay = Relay(connect_timeout=0.2)
        async with line(folder, there, relay=relay, own_tls=authority.trust()) as made:
            assert (await _refused(made)).status == 504
            await seen(lambda: proxy.open == 0)


async def _gone(folder: Path, authority: Authority) -> None:
    there = channel(f"https://{NAME}", proxy="http://127.0.0.1:1")
    async with line(folder, there, own_tls=authority.trust()) as made:
        await _refused(made)


CASES: dict[str, Callable[[Path, Authority], Awaitable[None]]] = {
    "direct": _direct,
    "an unknown authority": _unknown_authority,
    "a certificate for another name": _another_name,
    "an expired certificate": _expired,
    "a provider that dies": _dies,
    "an HTTP proxy": _through("http"),
    "an HTTPS proxy": _through("https"),
    "a SOCKS proxy": _through("socks5"),
    "a proxy that refuses: another channel": _refusing,
    "a proxy that is silent": _silent,
    "a proxy that is not there": _gone,
}


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("name", CASES)
def test_wires(name: str, loop: Any, tmp_path: Path, authority: Authority) -> None:
    """A session reaches whom it should by the way it should, or is refused with an HTTP answer and costs nothing."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(CASES[name](tmp_path, authority))
