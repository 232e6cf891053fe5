"""Connections that wait for work, and how new ones are made.

One list per origin, last in first out, bounded in number and age; one timer for all, armed only while something
waits. A connect runs in a task of its own, so that whoever asked for it may leave at any moment: then the connection
goes to its list instead.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

import aiohappyeyeballs
import msgspec

from newapi_proxy.errors import OurError, UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.spawn import spawn
from newapi_proxy.web import faults
from newapi_proxy.web.connection import READ, Connection
from newapi_proxy.web.heads import Place

HAPPY: Final = 0.25  # seconds between one address family and the next
FAREWELLS: Final = 20  # turns of the loop that close() gives its transports
ALPN: Final = ("http/1.1",)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections may wait, and for how many seconds."""

    idle_per_host: int = 64
    idle_total: int = 1024
    idle_timeout: float = 75.0


class Pool:
    """The idle connections by origin, and the ones at work, for the day they must all close."""

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None) -> None:
        self._limits = limits
        self._tls = tls
        self._buffer = memoryview(bytearray(READ))
        self._idle: dict[str, list[Connection]] = {}
        self._waiting = 0
        self._open: set[Connection] = set()
        self._dials: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return self._waiting

    @property
    def open(self) -> int:
        """Connections, waiting or at work."""
        return len(self._open)

    def take(self, origin: str) -> Connection | None:
        """The connection that was used last, if one is there."""
        waiting = self._idle.get(origin)
        while waiting:
            self._waiting -= 1
            connection = waiting.pop()
            if connection.alive:
                return connection
        return None

    def release(self, connection: Connection) -> None:
        """The connection may be used again, if there is room for it."""
        waiting = self._idle.get(connection.origin)
        if waiting is None:
            waiting = self._idle[connection.origin] = []
        limits = self._limits
        if self._closed or len(waiting) >= limits.idle_per_host or self._waiting >= limits.idle_total:
            connection.abort()
            return
        loop = connection.loop
        connection.idle_since = loop.time()
        waiting.append(connection)
        self._waiting += 1
        if self._timer is None:
            self._timer = loop.call_later(limits.idle_timeout, self._sweep, loop)

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""
        self._open.discard(connection)
        waiting = self._idle.get(connection.origin)
        if waiting and connection in waiting:
            waiting.remove(connection)
            self._waiting -= 1

    async def connect(self, place: Place, interrupt: Interrupt, timeout: float) -> Connection:
        """A new connection. Raises UpstreamFailure when there is none within `timeout` seconds."""
        if self._closed:
            raise OurError("The server is shutting down.", status=503, code="shutting_down")
        loop = asyncio.get_running_loop()
        asker: asyncio.Future[Connection] = loop.create_future()
        task = spawn(self._dial(place, timeout, asker, loop), "connect")
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        try:
            return await interrupt.wait(asker)
        except BaseException:
            if asker.done() and not asker.cancelled() and asker.exception() is None:
                self.release(asker.result())  # it came in the same moment
            raise

    async def close(self) -> None:
        """Closes everything at once, waiting or at work, and refuses what comes later."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dials = list(self._dials)
        for task in dials:
            task.cancel()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        self._waiting = 0
        await asyncio.gather(*dials, return_exceptions=True)
        for _ in range(FAREWELLS):
            if self._open:
                await asyncio.sleep(0)  # until the transports have told

    async def _dial(
        self, place: Place, timeout: float, asker: asyncio.Future[Connection], loop: asyncio.AbstractEventLoop
    ) -> None:
        try:
            connection = await self._connected(place, timeout, loop)
        except Exception as error:
            if asker.done() and not isinstance(error, UpstreamFailure):
                raise
            if not asker.done():
                asker.set_exception(error)
            return
        except asyncio.CancelledError:  # by close(), nobody else knows the task
            if not asker.done():
                asker.set_exception(faults.unreachable("shutting down"))
            raise
        if not asker.done():
            asker.set_result(connection)
        elif connection.alive:
            self.release(connection)

    async def _connected(self, place: Place, timeout: float, loop: asyncio.AbstractEventLoop) -> Connection:
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=HAPPY, interleave=1, loop=loop
                )
        except TimeoutError:
            raise faults.too_slow("no connection in time") from None
        except (OSError, UnicodeError) as error:
            raise faults.unreachable(f"connect: {faults.reason(error)}") from None
        options: dict[str, Any] = {}
        if place.tls:
            # by the transport's own timer, which ends a stalled handshake without waiting for a farewell
            rest = max(deadline - loop.time(), 0.001)
            options = {"ssl": self._context(), "server_hostname": place.host, "ssl_handshake_timeout": rest}
        connection = Connection(place.origin, self._buffer, self, loop)
        self._open.add(connection)
        try:
            await loop.create_connection(lambda: connection, sock=sock, **options)
        except BaseException as error:
            self._open.discard(connection)
            connection.abort()
            if isinstance(error, (ConnectionAbortedError, TimeoutError)):
                raise faults.too_slow("TLS handshake not done in time") from None
            if isinstance(error, (OSError, ValueError)):
                raise faults.unreachable(f"TLS: {faults.reason(error)}") from None
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(list(ALPN))
        return self._tls

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes what has waited too long; comes back when the next one is due."""
        self._timer = None
        now = loop.time()
        oldest = now
        for origin, waiting in list(self._idle.items()):
            due = [one for one in waiting if now - one.idle_since >= self._limits.idle_timeout]
            kept = waiting[len(due) :]  # appended in the order of time
            self._waiting -= len(due)
            if kept:
                self._idle[origin] = kept
                oldest = min(oldest, kept[0].idle_since)
            else:
                del self._idle[origin]
            for one in due:
                one.abort()
        if self._waiting:
            self._timer = loop.call_later(oldest + self._limits.idle_timeout - now, self._sweep, loop)
