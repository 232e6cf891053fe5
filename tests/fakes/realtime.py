"""A scripted provider of realtime sessions on the loopback, a house in front of it, and its money by plain SQL.

What the provider does is said in the client's own `response.create`, under `do`; see `Peer`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from newapi_proxy.config.model import Channel, Price, Token
from newapi_proxy.relay.house import House
from newapi_proxy.secret import Secret
from newapi_proxy.web import edges
from newapi_proxy.web.app import Edge
from newapi_proxy.web.dial import SocketDialer
from newapi_proxy.web.server import Server
from tests.fakes.stage import stage

MODEL: Final = "gpt-4o-realtime-preview"
USAGE: Final[Mapping[str, Any]] = {
    "total_tokens": 150,
    "input_tokens": 100,
    "output_tokens": 50,
    "input_token_details": {
        "cached_tokens": 20,
        "text_tokens": 40,
        "audio_tokens": 60,
        "cached_tokens_details": {"text_tokens": 15, "audio_tokens": 5},
    },
    "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
}
PRICE: Final = Price(input=2, output=4, cache_read=1, audio_input=10, audio_output=20)
COST: Final = 25 + 20 // 2 + 550 // 2 + 40 // 2 + 800 // 2  # USAGE at PRICE, a unit being 2 USD per million tokens


@dataclass
class Peer:
    """The provider. `do`: `answer` (the default), `silent` (no usage), `hold` (begins and waits), `die`, `leave`
    (close code 1000), `refuse` (1008), `fault` (an error event that blames the key), `hear` (a transcription),
    `large` (a message above every limit), `flood` (MiBs until nobody takes more), `talk` (three minutes of sound)."""

    url: str = ""
    port: int = 0
    shakes: list[web.Request] = field(default_factory=list)
    open: set[web.WebSocketResponse] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)  # as they came
    said: list[Any] = field(default_factory=list)  # those that are events
    codes: list[int | None] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)  # statuses of the next handshakes
    number: int = 0  # of responses
    spoken: int = 0  # seconds of sound that went out
    flood: int = 0  # MiB that went out before it was held up
    stuck: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One handshake, and its session."""
        self.shakes.append(request)
        if self.refusals:
            away = {"Location": f"{self.url}/v1/realtime?model=elsewhere"}
            return web.json_response({"error": {"message": "no"}}, status=self.refusals.pop(0), headers=away)
        socket = web.WebSocketResponse(protocols=("realtime",), max_msg_size=32 << 20)
        await socket.prepare(request)
        self.open.add(socket)
        try:
            model = request.query.get("model", request.query.get("deployment"))
            await send(socket, type="session.created", session={"model": model})
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
                elif message.type is WSMsgType.TEXT:
                    self.texts.append(message.data)
                    if message.data.startswith('{"type":'):
                        event = orjson.loads(message.data)
                        self.said.append(event)
                        await self._react(socket, event)
        except ConnectionError:
            pass
        finally:
            self.open.discard(socket)
            self.codes.append(socket.close_code)
            async with self.news:
                self.news.notify_all()
        return socket

    async def _react(self, socket: web.WebSocketResponse, event: Any) -> None:
        if event["type"] != "response.create":
            return
        match event.get("do", "answer"):
            case "die":
                assert socket._req is not None
                assert socket._req.transport is not None
                socket._req.transport.abort()
            case "leave":
                await socket.close(code=1000)
            case "refuse":
                await socket.close(code=1008)
            case "fault":
                told = {
                    "type": "invalid_request_error",
                    "code": "invalid_api_key",
                    "message": "Incorrect key sk-abcdefgh",
                }
                await send(socket, type="error", error=told)
            case "hear":
                usage = {"type": "tokens", "input_tokens": 30, "output_tokens": 10, "total_tokens": 40}
                await send(socket, type="conversation.item.input_audio_transcription.completed", usage=usage)
            case "large":
                await send(socket, type="x", pad="x" * (17 << 20))
            case "flood":
                try:
                    while True:
                        async with asyncio.timeout(0.5):
                            await send(socket, type="response.audio.delta", delta="x" * (1 << 20))
                        self.flood += 1
                except TimeoutError:
                    self.stuck.set()
            case "talk":
                self.number += 1
                id = f"resp_{self.number}"
                await send(socket, type="response.created", response={"id": id})
                second = b64encode(bytes(48_000)).decode()
                for _ in range(180):
                    await send(socket, type="response.audio.delta", response_id=id, delta=second)
                    self.spoken += 1
                    await asyncio.sleep(0)
            case how:
                self.number += 1
                id = f"resp_{self.number}"
                await send(socket, type="response.created", response={"id": id})
                await send(socket, type="response.text.delta", response_id=id, delta="One two three four five.")
                if how != "hold":
                    usage = dict(USAGE) if how == "answer" else None
                    await send(socket, type="response.done", response={"id": id, "usage": usage})

    async def empty(self) -> None:
        """Waits until every session has ended."""
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: not self.open)


async def seen(what: Callable[[], bool]) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def send(socket: web.WebSocketResponse | ClientWebSocketResponse, **event: Any) -> None:
    """One event."""
    await socket.send_str(orjson.dumps(event).decode())


async def heard(socket: ClientWebSocketResponse) -> Any:
    """The next event, or the close code."""
    async with asyncio.timeout(10):
        message = await socket.receive()
    return orjson.loads(message.data) if message.type is WSMsgType.TEXT else socket.close_code


async def until(socket: ClientWebSocketResponse, kind: str) -> Any:
    """The next event of that type."""
    while True:
        event = await heard(socket)
        assert isinstance(event, dict), f"closed with {event} before {kind}"
        if event["type"] == kind:
            return event


@dataclass(frozen=True)
class Line:
    """A house on a socket, and the provider behind it."""

    peer: Peer
    house: House
    edge: Edge
    server: Server
    url: str
    client: ClientSession
    path: Path

    def connect(self, model: str = MODEL, **named: Any) -> Any:
        """A session, as a client opens it."""
        named = {"headers": {"Authorization": "Bearer sk-t"}, "max_msg_size": 64 << 20, **named}
        return self.client.ws_connect(f"{self.url}/v1/realtime?model={model}", **named)

    def rows(self) -> list[dict[str, Any]]:
        """The ledger."""
        return self.sql("SELECT * FROM ledger ORDER BY rowid")

    def sql(self, query: str) -> list[dict[str, Any]]:
        """What plain SQL finds."""
        with closing(sqlite3.connect(self.path)) as conn:
            conn.row_factory = sqlite3.Row
            return [dict(row) for row in conn.execute(query)]

    async def settled(self) -> list[dict[str, Any]]:
        """The ledger once no session is left and nothing is held."""
        await seen(lambda: not self.house.watches and not self.sql("SELECT 1 FROM ledger WHERE state = 'held'"))
        return self.rows()

    def faults(self, put: int) -> list[str]:
        """What does not add up; `put`: what the key had at first."""
        found = []
        (token,) = self.sql("SELECT remain_quota, used_quota FROM tokens")
        rows = self.rows()
        charged = sum(row["charged"] for row in rows)
        if token["remain_quota"] + charged != put or token["used_quota"] != charged:
            found.append(f"{put} put in, {token}, {charged} charged")
        told = {
            row["request_id"]: row["quota"] for row in self.sql("SELECT request_id, quota FROM logs WHERE type = 2")
        }
        if told != {row["request_id"]: row["charged"] for row in rows if row["state"] == "settled"}:
            found.append("log rows differ from settled rows")
        found += [f"{row['request_id']} is {row['state']}" for row in rows if row["state"] not in ("settled", "voided")]
        return found


@asynccontextmanager
async def peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """The provider, listening; with `tls` as `localhost`, for which certificates are."""
    made = Peer()
    app = web.Application()
    for path in ("/v1/realtime", "/openai/realtime", "/openai/v1/realtime"):
        app.router.add_get(path, made.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{made.port}" if tls is None else f"https://localhost:{made.port}"
    try:
        yield made
    finally:
        await runner.cleanup()


def channel(url: str, name: str = "o", **named: Any) -> Channel:
    """A channel to that provider."""
    given = {"type": "openai", "key": Secret("sk-upstream"), "models": (MODEL,), "base_url": url, "auto_disable": False}
    return Channel(name=name, **{**given, **named})


@asynccontextmanager
async def line(
    folder: Path,
    *channels: Channel,
    quota: int | None = 1_000_000,
    far_tls: ssl.SSLContext | None = None,
    own_tls: ssl.SSLContext | None = None,
    **config: Any,
) -> AsyncIterator[Line]:
    """A house with a provider behind it; channels without an address get the provider's."""
    async with peer(far_tls) as far:
        given = channels or (channel(far.url),)
        given = tuple(channel(far.url, **one) if isinstance(one, dict) else one for one in given)
        config = {
            "prices": {MODEL: PRICE, "asked": PRICE},
            "tokens": (Token(name="t", key=Secret("sk-t"), quota=quota),),
            **config,
        }
        async with stage(folder, given, **config) as made:
            dialer = made.house.dialer = SocketDialer(tls=own_tls)
            edge = edges.relay_edge(made.house)
            server = Server(edge.handle, edge.unparsed)
            listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
            url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            try:
                async with ClientSession() as client:
                    yield Line(far, made.house, edge, server, url, client, folder / "stage.db")
            finally:
                listener.close()
                server.abort()
                await seen(lambda: not made.house.watches)
                await dialer.close()
