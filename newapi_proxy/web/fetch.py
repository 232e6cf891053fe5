"""`ports.Fetcher` over aiohttp: files that clients name by URL, fetched without becoming their way into our network.

One resolution, whose every address must be public; the connection goes to exactly these addresses, whatever the name
means a moment later. No redirect, no credentials, no proxy, few ports, a bound on size, time and number. Source:
reliability §2.8, provider-translation B.0, interfaces §3.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from newapi_proxy.config.model import Fetch
from newapi_proxy.errors import Unsupported
from newapi_proxy.ports import Fetched

AT_ONCE: Final = 16  # downloads of the whole process
LONGEST: Final = 8192  # characters of an address
PORTS: Final = frozenset({80, 443, 8080, 8443})
PIECE: Final = 64 * 1024
_HEADERS: Final = {hdrs.ACCEPT: "*/*", hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "newapi-proxy"}
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f\\]")
_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in ("0.0.0.0/8", "192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "168.63.129.16/32")
)
"""Not private by name, and nobody's web server: relays, reserved ranges, a cloud's own agent."""
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # all that is given out to networks
_V6: Final = (ipaddress.IPv6Network("2001::/23"), ipaddress.IPv6Network("3fff::/20"))
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def public(address: str) -> bool:
    """Whether this is the address of some server on the internet, in every form that hides an IPv4 address."""
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(one, ipaddress.IPv4Address):
        return one.is_global and not one.is_multicast and not any(one in network for network in _V4)
    if one.scope_id is not None:
        return False
    hidden = one.ipv4_mapped or one.sixtofour
    if one in _TRANSLATED or (int(one) >> 32) & 0xFFFFFFFF in _ISATAP:
        hidden = ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)
    if hidden is not None and not public(str(hidden)):
        return False
    if one.ipv4_mapped is not None or one in _TRANSLATED:
        return True
    return one in _UNICAST and one.is_global and not any(one in network for network in _V6)


class HttpFetcher:
    """The fetcher; each download has a connection of its own."""

    def __init__(self, *, resolver: AbstractResolver | None = None, tls: ssl.SSLContext | None = None) -> None:
        """`resolver` replaces the system's, `tls` the default context. Needs no running loop."""
        self._resolver = resolver
        self._tls = tls
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str, path: str, limits: Fetch) -> Fetched:
        """See `ports.Fetcher`."""
        if not limits.enabled:
            raise _refused(path, "files are not fetched here, send them as data")
        place = _place(url, path, limits.allow_private)
        try:
            async with asyncio.timeout(limits.timeout), self._turns:
                return await self._download(place, path, limits)
        except TimeoutError:
            raise _refused(path, "it took too long") from None
        except _NotPublicError:
            raise _refused(path, "the address is not a public one", blocked=True) from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError, ValueError):
            raise _refused(path, "the server cannot be reached") from None

    async def _download(self, place: URL, path: str, limits: Fetch) -> Fetched:
        guard = _Guard(self._resolver or aiohttp.ThreadedResolver(), limits.allow_private)
        connector = aiohttp.TCPConnector(
            resolver=guard,
            use_dns_cache=False,
            force_close=True,
            limit=1,
            ssl=self._tls if self._tls is not None else True,
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                requote_redirect_url=False,
            ) as session,
            session.get(place, headers=_HEADERS, allow_redirects=False) as response,
        ):
            return await _read(response, path, limits.max_size)


async def _read(response: aiohttp.ClientResponse, path: str, limit: int) -> Fetched:
    """The body of a 200, whole."""
    if 300 <= response.status < 400:
        raise _refused(path, "the server redirects, and redirects are not followed", blocked=True)
    if response.status != 200:
        raise _refused(path, f"the server answers with status {response.status}", answered=response.status)
    if response.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise _refused(path, "the server sends it in an encoding that was not asked for")
    if (response.content_length or 0) > limit:
        raise _refused(path, f"it is larger than {limit} bytes")
    pieces: list[bytes] = []
    size = 0
    while piece := await response.content.read(PIECE):
        size += len(piece)
        if size > limit:
            raise _refused(path, f"it is larger than {limit} bytes")
        pieces.append(piece)
    if not size:
        raise _refused(path, "it is empty")
    declared = response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    return Fetched(media_type=declared, data=b"".join(pieces))


def _place(url: str, path: str, private: bool) -> URL:
    """The address, taken apart. Raises Unsupported for what is no plain address of a web server."""
    if len(url) > LONGEST or _CONTROL.search(url):
        raise _refused(path, "this is not an address", blocked=True)
    try:
        place = URL(url)
        scheme, host, port = place.scheme, place.raw_host, place.port
    except ValueError:
        raise _refused(path, "this is not an address") from None
    if scheme not in ("http", "https") or not host:
        raise _refused(path, "only http and https addresses are fetched", blocked=True)
    if place.raw_user is not None or place.raw_password is not None:
        raise _refused(path, "the address may not hold a user or a password", blocked=True)
    if not private:
        if port not in PORTS:
            raise _refused(path, "the port is not one of web servers", blocked=True)
        if _literal(host) and not public(host):
            raise _refused(path, "the address is not a public one", blocked=True)
    return place


def _literal(host: str) -> bool:
    """Whether the connector takes the host for an address and asks no resolver: `127.1` and `2130706433` too."""
    return ":" in host or host.replace(".", "").isdigit()


def _refused(path: str, why: str, *, blocked: bool = False, answered: int = 0) -> FetchError:
    error = FetchError(f"Error while downloading {path or 'a file'}: {why}.", path, "invalid_image_url")
    error.blocked, error.answered = blocked, answered
    return error


class FetchError(Unsupported):
    """Why a file was not fetched. `blocked`: its address is none that may be asked; `answered`: the server's status."""

    blocked = False
    answered = 0


class _NotPublicError(Exception):
    """A name that means an address inside."""


class _Guard(AbstractResolver):
    """Resolves once and lets through public addresses only: one bad address is enough to refuse the name."""

    def __init__(self, resolver: AbstractResolver, private: bool) -> None:
        self._resolver = resolver
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See AbstractResolver."""
        found = await self._resolver.resolve(host, port, family)
        if not self._private and not all(public(one["host"]) for one in found):
            raise _NotPublicError
        return found

    async def close(self) -> None:
        """Nothing of its own."""
