"""The upstream client over TLS: whom it trusts, what it says in the handshake, how it gives up."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.spawn import spawn
from newapi_proxy.web.client import HttpClient, WireClient
from tests.fakes.upstream import CLOSE, GONE, HEAD, REQUEST, Upstream, again, chunked, ok, play
from tests.test_client import MIB, Deadline, _outcome, ask, clean, fetch, soon, until

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        own = own.add_extension(
            x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True
        )
        self.file = folder / "ca.pem"
        self.file.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts it, with every check of the default one."""
        context = ssl.create_default_context(cafile=str(self.file))
        context.set_alpn_protocols(["http/1.1"])
        return context

    def server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context for these names and the loopback address, or for a name alone."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if not names:
            alternatives = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
        builder = self._builder(subject, key, expired=expired)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        path = self._folder / f"{id(key)}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def _builder(self, subject: x509.Name, key: Any, *, expired: bool = False) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - 9 * DAY).not_valid_after(now - DAY if expired else now + 9 * DAY)
        return builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority for the module."""
    return Authority(tmp_path_factory.mktemp("tls"))


async def _works(client: HttpClient, authority: Authority) -> None:
    seen: list[str | None] = []
    context = authority.server()
    context.sni_callback = lambda _, name, __: seen.append(name)
    body = os.urandom(3 * MIB)

    async def script(peer: Any) -> None:
        for _ in range(2):
            request = await peer.request()
            await peer.send(ok(request.body))
        assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        await peer.until_gone()

    async with Upstream(script, tls=context) as up:
        url = f"https://localhost:{up.port}/"
        assert await fetch(client, url) == b"{}"
        assert await fetch(client, url, body=body) == body
        assert (len(up.peers), seen) == (1, ["localhost"])
        await client.close()
        await soon(up.peers[0].gone.wait())
        assert not up.failures


async def _distrusts(client: HttpClient, authority: Authority) -> None:
    contexts = [authority.server(expired=True), authority.server("elsewhere.invalid")]
    for context in contexts:
        async with Upstream(again(REQUEST, ok()), tls=context) as up:
            with pytest.raises(UpstreamFailure) as caught:
                await ask(client, up.url)
            assert (caught.value.status, caught.value.code) == (502, "do_request_failed")
            assert "ertificate" in caught.value.detail
            assert not up.requests


async def _unknown_authority(client: HttpClient, authority: Authority) -> None:
    async with (
        clean(HttpClient(implementation=client.implementation)) as other,
        Upstream(again(REQUEST, ok()), tls=authority.server()) as up,
    ):
        with pytest.raises(UpstreamFailure):
            await ask(other, up.url)
        assert not up.requests


async def _stalls(client: HttpClient, authority: Authority) -> None:
    async with Upstream(play(GONE)) as up:
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, up.url.replace("http", "https"), connect_timeout=0.2)
        assert (caught.value.status, caught.value.kind) == (504, "timeout")
        assert (caught.value.code, caught.value.upstream_status) == ("upstream_timeout", 0)
        await soon(up.peers[0].gone.wait())


async def _speaks_plain(client: HttpClient, authority: Authority) -> None:
    async with Upstream(play(b"HTTP/1.1 400 Bad Request\r\n\r\n", GONE)) as up:
        with pytest.raises(UpstreamFailure):
            await ask(client, up.url.replace("http", "https"))


async def _breaks(client: HttpClient, authority: Authority) -> None:
    async with Upstream(
        play(REQUEST, chunked(b"a" * 9)[:-5], CLOSE), play(REQUEST, CLOSE), play(HEAD, CLOSE), tls=authority.server()
    ) as up:
        incoming = await ask(client, up.url)
        with pytest.raises(UpstreamFailure):
            await soon(incoming.whole(100))
        with pytest.raises(UpstreamFailure):
            await ask(client, up.url)


async def _leaves(client: HttpClient, authority: Authority) -> None:
    async with Upstream(play(REQUEST, chunked(b"a" * 9)[:-5], GONE), tls=authority.server()) as up:
        incoming = await ask(client, up.url)
        assert await soon(incoming.read()) == b"a" * 9
        incoming.close()
        await soon(up.peers[0].gone.wait())


async def _leaves_in_the_handshake(client: HttpClient, authority: Authority) -> None:
    interrupt = Interrupt()
    go = asyncio.Event()
    async with Upstream(play(go, CLOSE)) as up:
        url = up.url.replace("http", "https")
        asking = spawn(_outcome(ask(client, url, interrupt=interrupt)), "asking")
        await soon(up.peer())
        interrupt.fire(Deadline())
        assert isinstance(await soon(asking), Deadline)
        go.set()


async def _never_connects(client: HttpClient, authority: Authority) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = []
        for _ in range(3):  # the queue is full, whoever comes now is not answered
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
            waiting.append(one)
        with pytest.raises(UpstreamFailure) as caught:
            await ask(client, f"http://127.0.0.1:{deaf.getsockname()[1]}/", connect_timeout=0.2)
        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")
        interrupt = Interrupt()
        asking = spawn(
            _outcome(ask(client, f"http://127.0.0.1:{deaf.getsockname()[1]}/", interrupt=interrupt)), "asking"
        )
        for _ in range(20):
            await asyncio.sleep(0)
        interrupt.fire(Deadline())
        assert isinstance(await soon(asking), Deadline)
        for one in waiting:
            one.close()


Case = Callable[[HttpClient, Authority], Awaitable[None]]
CASES: dict[str, Case] = {
    "an authority that is trusted": _works,
    "expired, or for another name": _distrusts,
    "an unknown authority": _unknown_authority,
    "a handshake that stalls": _stalls,
    "no TLS at all": _speaks_plain,
    "a connection that breaks": _breaks,
    "a client that leaves": _leaves,
    "a client that leaves in the handshake": _leaves_in_the_handshake,
    "a host that does not answer": _never_connects,
}


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("implementation", ["wire", "session"])
@pytest.mark.parametrize("name", CASES)
def test_connecting(name: str, implementation: Any, loop: Any, authority: Authority) -> None:
    """Connections are made to whom they should be, in time, and leave nothing behind."""

    async def main() -> None:
        async with clean(HttpClient(implementation=implementation, tls=authority.trust())) as client:
            await CASES[name](client, authority)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_handshake_of_nobody(authority: Authority) -> None:
    """A handshake that ends after its asker has left puts the connection into the pool."""
    async with (
        clean(WireClient(tls=authority.trust())) as client,
        Upstream(again(REQUEST, ok(b"1")), tls=authority.server()) as up,
    ):
        interrupt = Interrupt()
        asking = spawn(_outcome(ask(client, up.url, interrupt=interrupt)), "asking")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        interrupt.fire(Deadline())
        assert isinstance(await soon(asking), Deadline)
        await until(lambda: client.pool.idle == 1)
        assert await fetch(client, up.url) == b"1"
        assert len(up.peers) == 1
