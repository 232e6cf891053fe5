"""The fetcher: what clients name by URL is fetched from the internet's web servers, and from nowhere else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from newapi_proxy.config.model import Fetch
from newapi_proxy.errors import ClientError
from newapi_proxy.web.fetch import HttpFetcher, public

OPEN = Fetch(allow_private=True, max_size=100_000)
PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 70_000

INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.1.2.3 169.254.169.254 169.254.170.2
172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 168.63.129.16
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:7f00:1 ::ffff:0:127.0.0.1
64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::8.8.8.8 100::1 2001::1 2001:2::1
2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe:: 2002:c0a8:101::1 fc00::1 fd00:ec2::254
fd12:3456::1 fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 feff::1 ff02::1 ff0e::1 3fff::1 4000::1
2606:4700::5efe:127.0.0.1 2606:4700::200:5efe:10.0.0.1
"""
OUTSIDE = """
1.1.1.1 8.8.8.8 93.184.215.14 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.167.1.1 223.255.255.254
2606:4700::1111 2a00:1450:4001::200e ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
"""
NOT_ADDRESSES = [
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "127.0.0.1.",
    "1.2.3.4.5",
    "fe80::1%25eth0",
]


class Names(AbstractResolver):
    """A resolver that answers with given addresses, one list per call, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for one in answer
        ]

    async def close(self) -> None:
        """Nothing."""


class Site:
    """A server on the loopback, and how often it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.url = ""
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        match request.path:
            case "/a.png":
                return web.Response(body=PNG, headers={"content-type": "Image/PNG; x=y"})
            case "/bare":
                return web.Response(body=b"x", headers={"content-type": ""})
            case "/moved":
                return web.Response(status=302, headers={"location": "/a.png"})
            case "/empty":
                return web.Response(body=b"")
            case "/declared":
                return web.Response(body=b"x" * 100_001)
            case "/endless":
                return await self._endless(request)
            case "/silent":
                await asyncio.sleep(60)
            case "/packed":
                return web.Response(body=b"x", headers={"content-encoding": "gzip"})
        return web.Response(status=404)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A running one."""
    one = Site()
    server = web.Server(one.answer)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0)
    await place.start()
    one.port = runner.addresses[0][1]
    one.url = f"http://127.0.0.1:{one.port}"
    yield one
    await runner.cleanup()


async def refused(url: str, limits: Fetch = OPEN, fetcher: HttpFetcher | None = None) -> str:
    """The words with which a download is refused; the error is the client's, at the medium's place."""
    with pytest.raises(ClientError) as told:
        await (fetcher or HttpFetcher()).fetch(url, "messages.0.content.1", limits)
    error = told.value
    assert (error.status, error.code, error.param) == (400, "invalid_image_url", "messages.0.content.1")
    return error.message


@pytest.mark.parametrize("address", INSIDE.split())
def test_addresses_inside(address: str) -> None:
    """Private, local, reserved and multicast addresses are not public, in whatever form they hide."""
    assert not public(address)


@pytest.mark.parametrize("address", OUTSIDE.split())
def test_addresses_outside(address: str) -> None:
    """The internet's addresses are, those written through a translation to it too."""
    assert public(address)


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_what_is_no_address(text: str) -> None:
    """What some other parser may take for an address is none."""
    assert not public(text)


async def test_a_file_is_fetched(site: Site) -> None:
    """The bytes as they came, with the server's word for their type; nothing of ours goes along."""
    fetched = await HttpFetcher().fetch(f"{site.url}/a.png", "p", OPEN)
    assert (fetched.data, fetched.media_type) == (PNG, "image/png")
    (request,) = site.requests
    assert set(request.headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}
    assert (await HttpFetcher().fetch(f"{site.url}/bare", "p", OPEN)).media_type == ""


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/none", "status 404"),  # T-CORE-024
        ("/moved", "redirects"),
        ("/empty", "empty"),
        ("/declared", "larger than 100000"),
        ("/endless", "larger than 100000"),
        ("/packed", "encoding"),
    ],
)
async def test_what_is_no_file(site: Site, path: str, words: str) -> None:
    """T-CORE-024: another status, a redirect, nothing, too much: a 400 that says so."""
    assert words in await refused(f"{site.url}{path}")
    assert len(site.requests) == 1


async def test_slow_servers(site: Site, free_port: int) -> None:
    """The time is the whole download's; nobody there is as bad."""
    assert "too long" in await refused(f"{site.url}/silent", Fetch(allow_private=True, timeout=0.05))
    assert "cannot be reached" in await refused(f"http://127.0.0.1:{free_port}/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h.example/a",
        "file:///etc/passwd",
        "gopher://h.example/",
        "data:image/png;base64,AA",
        "//h.example/a",
        "a.png",
        "",
        "http://",
        "http://user:secret@h.example/",
        "http://user@h.example/",
        "http://h.example/a b",
        "http://h.example\\@127.0.0.1/",
        "http://h.example/\r\nX: y",
        "http://h.example:99999/",
        "http://h.example/" + "a" * 9000,
    ],
)
async def test_what_is_not_asked_for(url: str) -> None:
    """Other schemes, credentials, control characters: no name is resolved for them."""
    names = Names(["127.0.0.1"])
    await refused(url, fetcher=HttpFetcher(resolver=names))
    assert names.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "017700000001", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "[::]",
        "[64:ff9b::7f00:1]", "１２７.0.0.1", "0.0.0.0", "169.254.169.254", "[fe80::1%25lo]", "[2002:7f00:1::]",
    ],
)  # fmt: skip
async def test_addresses_are_not_connected_to(host: str) -> None:
    """T-CORE-023: an address inside, in every spelling that a connector takes for one, is refused unasked."""
    names = Names(["93.184.215.14"])
    assert "not a public one" in await refused(f"http://{host}:8080/", Fetch(), HttpFetcher(resolver=names))
    assert names.asked == []


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:10.0.0.1"], ["::1"]])
async def test_names_that_mean_an_address_inside(answer: list[str]) -> None:
    """T-CORE-023: one address inside is enough to refuse the name."""
    names = Names(answer)
    assert "not a public one" in await refused("http://h.example/a.png", Fetch(), HttpFetcher(resolver=names))
    assert names.asked == ["h.example"]


async def test_a_name_is_resolved_once() -> None:
    """T-CORE-023: what the name means a moment later (rebinding) is never asked."""
    names = Names(["93.184.215.14"], ["127.0.0.1"])
    assert "cannot be reached" in await refused("http://h.example/a.png", Fetch(), HttpFetcher(resolver=names))
    assert names.asked == ["h.example"]


async def test_the_systems_own_names() -> None:
    """What the system's resolver knows of this machine is checked behind it."""
    assert "not a public one" in await refused("http://localhost:8080/", Fetch())


async def test_the_connection_goes_to_the_resolved_address(site: Site) -> None:
    """The name stays in the Host header, the address is the resolver's."""
    fetcher = HttpFetcher(resolver=Names(["127.0.0.1"]))
    await fetcher.fetch(f"http://h.example:{site.port}/a.png", "p", OPEN)
    assert site.requests[0].headers["host"] == f"h.example:{site.port}"


@pytest.mark.parametrize("port", [22, 25, 6379, 3306, 0])
async def test_ports(port: int) -> None:
    """Only the ports of web servers."""
    names = Names(["93.184.215.14"])
    assert "port" in await refused(f"http://h.example:{port}/", Fetch(), HttpFetcher(resolver=names))
    assert names.asked == []


async def test_switched_off(site: Site) -> None:
    """`enabled: false` fetches nothing."""
    assert "not fetched here" in await refused(f"{site.url}/a.png", Fetch(enabled=False, allow_private=True))
    assert site.requests == []
