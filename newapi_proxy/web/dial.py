"""`relay.sockets.Dialer` over aiohttp's sessions, and the provider's end of a realtime session.

Knows the WebSocket protocol; nothing of what is said in it. Its aiohttp sessions are made by the first use.
"""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType, hdrs

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.errors import OurError, UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.relay.sockets import Closed, Message, Refusal, Socket
from newapi_proxy.web.connection import plain
from newapi_proxy.web.heads import Places
from newapi_proxy.web.pool import HAPPY
from newapi_proxy.web.session_client import SOCKS, declared, run, socks_connector

LARGEST: Final = 16 << 20  # bytes of one message, either way; providers take 15 MiB
HEARTBEAT: Final = 30.0  # seconds of silence after which a provider must show that it lives
FAREWELL: Final = 1.0  # seconds that the other side has to answer a close
PROXIES: Final = 64  # SOCKS proxies known at a time
_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_LONGEST: Final = 123  # bytes of a close frame's reason


class SocketDialer:
    """The sessions of aiohttp: one, and one per SOCKS proxy."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls` replaces the default context, certificate checks included. Needs no running loop."""
        self._tls = tls
        self._places = Places()
        self._sessions: dict[str | None, aiohttp.ClientSession] = {}
        self._closed = False

    async def dial(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Socket | Refusal:
        """See `relay.sockets.Dialer`."""
        if interrupt.cause is not None:
            raise interrupt.cause
        place = self._places.find(outgoing.url)
        place.request(outgoing.method, outgoing.headers, 0)  # refuses what may not be sent
        offered = outgoing.headers.get("sec-websocket-protocol", "")
        headers = {name: value for name, value in outgoing.headers.items() if name != "sec-websocket-protocol"}
        socks = proxy if proxy is not None and proxy.startswith(SOCKS) else None
        session = self._session(socks)

        async def connected() -> aiohttp.ClientWebSocketResponse[bool] | Refusal:
            try:
                async with asyncio.timeout(connect_timeout):
                    return await session.ws_connect(
                        place.url,
                        headers=headers,
                        protocols=[one.strip() for one in offered.split(",") if one.strip()],
                        proxy=None if socks else proxy,
                        timeout=ClientWSTimeout(ws_receive=None, ws_close=FAREWELL),
                        heartbeat=HEARTBEAT,
                        max_msg_size=LARGEST,
                        decode_text=False,
                    )
            except aiohttp.WSServerHandshakeError as error:
                if error.status == 101:
                    raise
                return Refusal(error.status, plain(error.headers, False) if error.headers is not None else {})

        made = await run(interrupt, declared(connected(), SimpleNamespace(reused=False)), "dial", _dropped)
        return made if isinstance(made, Refusal) else DialedSocket(made)

    async def close(self) -> None:
        """Closes every connection at once."""
        self._closed = True
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()

    def _session(self, socks: str | None) -> aiohttp.ClientSession:
        if self._closed:
            raise OurError("The server is shutting down.", status=503, code="shutting_down")
        session = self._sessions.get(socks)
        if session is None:
            if len(self._sessions) >= PROXIES:
                raise OurError("Too many proxies are in use.", status=503, code="too_many_proxies")
            options: dict[str, Any] = {
                "limit": 0,
                "force_close": True,
                "ssl": self._tls if self._tls is not None else True,
            }
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_redirected)
            session = self._sessions[socks] = aiohttp.ClientSession(
                connector=socks_connector(socks, options)
                if socks
                else aiohttp.TCPConnector(happy_eyeballs_delay=HAPPY, **options),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
                trace_configs=[trace],
            )
        return session


async def _redirected(*_: object) -> None:
    """A redirect is not followed: the key would go along."""
    raise UpstreamFailure("The upstream redirected the request.", detail="redirect not followed")


def _dropped(made: aiohttp.ClientWebSocketResponse[bool] | Refusal) -> None:
    """It came when nobody waited any more."""
    if not isinstance(made, Refusal):
        made._response.close()


class DialedSocket:
    """`relay.sockets.Socket`: the provider's end."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._socket = socket
        self._end: Closed | None = None

    async def receive(self) -> Message | Closed:
        """See `relay.sockets.Socket`."""
        if self._end is not None:
            return self._end
        got = await self._socket.receive()
        match got.type:
            case WSMsgType.TEXT:
                return Message(got.data)
            case WSMsgType.BINARY:
                return Message(got.data, text=False)
            case WSMsgType.CLOSE:
                self._end = Closed(got.data or 1005, str(got.extra or ""))
            case WSMsgType.ERROR:
                code = getattr(got.data, "code", None)
                self._end = Closed(code or 1006, faulty=code is not None)
            case _:
                self._end = Closed(1006)
        return self._end

    async def send(self, message: Message) -> None:
        """See `relay.sockets.Socket`."""
        if self._socket.closed:
            raise ConnectionResetError("the session has ended")
        await self._socket.send_frame(message.data, WSMsgType.TEXT if message.text else WSMsgType.BINARY)

    async def close(self, code: int, reason: str = "") -> None:
        """See `relay.sockets.Socket`."""
        if self._end is None:  # a `receive` that was given up is no end, or aiohttp would not wait for the answer,
            self._socket._close_code = None  # and over TLS the provider could not even give it
        try:
            async with asyncio.timeout(2 * FAREWELL):
                await self._socket.close(code=sendable(code), message=cut(reason))
        except (OSError, TimeoutError, aiohttp.ClientError):
            self._socket._response.close()


def sendable(code: int) -> int:
    """A close code that may be sent for this one: those that only say that none came become their nearest."""
    if code in _SENDABLE or 3000 <= code <= 4999:
        return code
    return 1000 if code == 1005 else 1011


def cut(reason: str) -> bytes:
    """A close frame's reason: whole characters, as many as it holds."""
    return reason.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore").encode()
