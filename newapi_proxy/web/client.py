"""`ports.Client`: the wire client for direct connections, the session-based one for proxies.

Both read the same fault matrix in the same way; the session-based one can be chosen for everything, so that each can
check the other: `HttpClient(implementation="session")` or NEWAPI_PROXY_CLIENT=session. One client lives as long as
the process; its pools do not know that the configuration was reloaded.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable
from typing import Final, Literal

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.ports import Incoming, Interrupt
from newapi_proxy.web import faults
from newapi_proxy.web.heads import Places
from newapi_proxy.web.pool import Limits, Pool
from newapi_proxy.web.session_client import SessionClient

VARIABLE: Final = "NEWAPI_PROXY_CLIENT"
Implementation = Literal["wire", "session"]


class HttpClient:
    """`ports.Client` as the daemon makes it."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        implementation: Implementation | None = None,
    ) -> None:
        """`tls` replaces the default context, certificate checks included. Needs no running loop."""
        named: Implementation = "session" if os.environ.get(VARIABLE) == "session" else "wire"
        self.implementation: Final[Implementation] = implementation or named
        self._session = SessionClient(limits=limits, tls=tls)
        self._wire = WireClient(limits=limits, tls=tls) if self.implementation == "wire" else None

    def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Awaitable[Incoming]:
        """See `ports.Client`. `proxy`: http:// or https://; socks4:// and socks5:// with the extra `socks`."""
        if proxy is None and self._wire is not None:
            return self._wire.open(outgoing, interrupt, connect_timeout=connect_timeout)
        return self._session.open(outgoing, interrupt, connect_timeout=connect_timeout, proxy=proxy)

    async def close(self) -> None:
        """Closes every connection at once."""
        if self._wire is not None:
            await self._wire.close()
        await self._session.close()


class WireClient:
    """HTTP/1.1 over connections of our own."""

    def __init__(self, *, limits: Limits | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.pool = Pool(limits or Limits(), tls)
        self._places = Places()

    async def open(self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float) -> Incoming:
        """See `ports.Client`. A reused connection that closes before its first byte is replaced once, by a new one."""
        if interrupt.cause is not None:
            raise interrupt.cause
        place = self._places.find(outgoing.url)
        assert not isinstance(outgoing.body, dict), "overrides come before the wire"
        head = place.request(outgoing.method, outgoing.headers, len(outgoing.body))
        waiting = self.pool.take(place.origin)
        if waiting is not None:
            response = waiting.send(outgoing.method, head, outgoing.body, interrupt)
            await response.arrival()
            if response.status:
                return response
            if response.heard:
                raise faults.unreadable(str(response.fault))
        fresh = await self.pool.connect(place, interrupt, connect_timeout)
        if not fresh.alive:
            raise faults.unreachable("closed right after the connect")
        response = fresh.send(outgoing.method, head, outgoing.body, interrupt)
        await response.arrival()
        if not response.status:
            raise (faults.unreadable if response.heard else faults.unreachable)(str(response.fault))
        return response

    async def close(self) -> None:
        """Closes every connection at once."""
        await self.pool.close()
