"""The client's end of a realtime session: the handshake on its HTTP connection, then aiohttp's reader and writer.

Knows the WebSocket protocol (RFC 6455); nothing of what is said in it. Messages are handed on unread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Final

from aiohttp import WSMsgType, hdrs
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WS_KEY, WebSocketError, WebSocketReader, WebSocketWriter
from aiohttp.streams import EofStream

from newapi_proxy.errors import ClientError
from newapi_proxy.relay.sockets import Closed, Message
from newapi_proxy.web.dial import FAREWELL, LARGEST, cut, sendable
from newapi_proxy.web.server import Arrival

VERSION: Final = "13"
QUEUED: Final = 65536  # bytes of messages that wait here before the client is slowed down
PING: Final = b"\x89\x00"  # the whole frame
_KEY_BYTES: Final = 16


def checked(arrival: Arrival) -> str:
    """The handshake's key, where the request is a handshake that can be met. Raises ClientError."""
    headers = arrival.headers
    if headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket" or not arrival.connection.upgradable:
        raise ClientError("This route is a WebSocket: ask for an upgrade.", status=426, code="upgrade_required")
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION, "").strip() != VERSION:
        raise ClientError(f"Only version {VERSION} of WebSocket is spoken.", status=426, code="upgrade_required")
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "").strip()
    try:
        sound = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        sound = False
    if not sound:
        raise ClientError("Sec-WebSocket-Key is not valid.", code="invalid_handshake")
    return key


class ServedSocket:
    """`relay.sockets.Socket`: the client's end, from the moment the upgrade is granted."""

    def __init__(self, arrival: Arrival, key: str, protocol: str | None, keepalive: float) -> None:
        """Grants the upgrade. After `keepalive` seconds without a message the client gets a ping: a proxy between would
        cut it off. Raises ConnectionError where the client has gone."""
        self._inlet, self._reply = arrival.connection, arrival.reply
        transport = self._inlet.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._reply.started = self._reply.ended = True
        self._reply.keep_alive = False
        accept = base64.b64encode(hashlib.sha1(key.encode() + WS_KEY, usedforsecurity=False).digest()).decode()
        named = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        transport.write(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{named}X-Request-Id: {self._reply.request_id}\r\n\r\n".encode()
        )
        self._loop = asyncio.get_running_loop()
        self._queue = WebSocketDataQueue(self._inlet, QUEUED, loop=self._loop)
        # kept, because the queue knows a reader that it holds up only weakly
        self._reader = WebSocketReader(self._queue, LARGEST, compress=False, decode_text=False)
        self._writer = WebSocketWriter(self._inlet, transport, limit=QUEUED)
        self._end: Closed | None = None
        self._closed = self._spoken = False
        self._keepalive = keepalive
        self._timer = self._loop.call_later(keepalive, self._ping)
        self._inlet.set_parser(self._reader)

    async def receive(self) -> Message | Closed:
        """See `relay.sockets.Socket`; pings are answered here."""
        while self._end is None:
            try:
                got = await self._queue.read()
            except EofStream:
                self._end = Closed(1006)
            except WebSocketError as error:
                self._end = Closed(error.code, faulty=True)
            else:
                match got.type:
                    case WSMsgType.TEXT if _readable(got.data):
                        return Message(got.data)
                    case WSMsgType.TEXT:
                        self._end = Closed(1007, faulty=True)
                    case WSMsgType.BINARY:
                        return Message(got.data, text=False)
                    case WSMsgType.PING:
                        await self._pong(got.data)
                    case WSMsgType.CLOSE:
                        self._end = Closed(got.data or 1005, str(got.extra or ""))
                    case _:
                        continue
        return self._end

    async def send(self, message: Message) -> None:
        """See `relay.sockets.Socket`."""
        self._spoken = True
        await self._writer.send_frame(message.data, WSMsgType.TEXT if message.text else WSMsgType.BINARY)
        if self._inlet.writing_paused:
            await self._inlet.drained()

    async def close(self, code: int, reason: str = "") -> None:
        """See `relay.sockets.Socket`. What the client still sends is read: unread, it would take the farewell along."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        try:
            await self._writer.close(sendable(code), cut(reason))
            async with asyncio.timeout(FAREWELL):
                while self._end is None:
                    await self.receive()
                if self._end.faulty:  # what still comes is not looked at, but it is read
                    gone: asyncio.Future[None] = self._loop.create_future()
                    self._reply.watch(lambda: None if gone.done() else gone.set_result(None))
                    await gone
        except (ConnectionError, TimeoutError):
            return

    def _ping(self) -> None:
        """One where nothing has been said; comes back."""
        transport = self._inlet.transport
        if self._end is not None or transport is None or transport.is_closing():
            return
        if not self._spoken and not self._inlet.writing_paused:
            transport.write(PING)
        self._spoken = False
        self._timer = self._loop.call_later(self._keepalive, self._ping)

    async def _pong(self, data: bytes) -> None:
        try:
            await self._writer.send_frame(data, WSMsgType.PONG)
        except ConnectionError:
            self._end = Closed(1006)


def _readable(text: bytes) -> bool:
    """Whether it is UTF-8, as text must be: a provider would end the session over it."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True
