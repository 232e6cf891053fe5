"""Realtime sessions: who may open one, where it leads, what each response costs, and every way in which it ends."""

from __future__ import annotations

import asyncio
import copy
import os
import random
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from openai import AsyncOpenAI

from newapi_proxy import log, metrics
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.config.model import Limits, Price, Relay, Token
from newapi_proxy.daemon.drain import drain
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.relay.health import KEY_PAUSE
from newapi_proxy.relay.sockets import Refusal, Socket
from newapi_proxy.relay.talk import RESPONSES
from newapi_proxy.secret import Secret
from tests.fakes.clock import Clock
from tests.fakes.realtime import COST, MODEL, PRICE, USAGE, Line, channel, heard, line, seen, send, until

PUT: Final = 1_000_000
HELD: Final = 500  # units of a first hold at PRICE
USED: Final = USAGE["total_tokens"]
PLAIN: Final = {"Authorization": "Bearer sk-t"}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Only the lines that a test looks for."""
    log.setup("error")
    yield
    log.setup()


async def respond(socket: ClientWebSocketResponse, **event: Any) -> Any:
    """Asks for a response; its last event."""
    await send(socket, type="response.create", **event)
    return await until(socket, "response.done")


def dropped(socket: ClientWebSocketResponse) -> None:
    """The client dies without a word."""
    assert socket._conn is not None
    assert socket._conn.transport is not None
    socket._conn.transport.abort()


async def test_each_response_is_charged_before_its_end(tmp_path: Path) -> None:
    """A response's last event finds its charge in the ledger, under the session's id and a number."""
    async with line(tmp_path) as made:
        async with made.connect(headers=PLAIN | {"X-Request-Id": "talk"}) as socket:
            assert socket._response.headers["X-Request-Id"] == "talk"
            for number in (1, 2, 3):
                await respond(socket)
                settled = [row for row in made.rows() if row["state"] == "settled"]
                assert [row["charged"] for row in settled] == [COST] * number
            await socket.close()
        rows = await made.settled()
        assert [row["request_id"] for row in rows] == ["talk", "talk.2", "talk.3", "talk.4"]
        assert [(row["state"], row["held"]) for row in rows] == [
            ("settled", HELD),
            ("settled", COST),
            ("settled", COST),
            ("voided", COST),
        ]
        (first, *_) = made.sql("SELECT other, prompt_tokens, completion_tokens FROM logs WHERE request_id = 'talk'")
        other = orjson.loads(first["other"])
        assert (other["ws"], other["audio_input"], other["audio_output"]) == (True, 55, 40)
        assert (first["prompt_tokens"], first["completion_tokens"]) == (100, 50)
        assert made.faults(PUT) == []
        await made.peer.empty()
        assert made.peer.codes == [1000]


@pytest.mark.parametrize(
    ("named", "query"),
    [
        ({"protocols": ("realtime", "openai-insecure-api-key.sk-t", "openai-beta.realtime-v1")}, ""),
        ({"protocols": ("realtime", "openai-insecure-api-key.t"), "headers": {"Authorization": "Bearer wrong"}}, ""),
        ({"headers": PLAIN}, ""),
        ({"headers": {"Authorization": "sk-t"}}, ""),
        ({}, "&key=sk-t"),
    ],
)
async def test_forms_of_the_key(tmp_path: Path, named: dict[str, Any], query: str) -> None:
    """The key may come in every known form; upstream gets the channel's own in the same, never the client's."""
    async with line(tmp_path) as made:
        url = f"{made.url}/v1/realtime?model={MODEL}{query}"
        async with made.client.ws_connect(url, **named) as socket:
            assert (await heard(socket))["type"] == "session.created"
            assert socket.protocol == ("realtime" if "protocols" in named else None)
            await socket.close()
        (shake,) = made.peer.shakes
        assert shake.headers["Authorization"] == "Bearer sk-upstream"
        offered = shake.headers.get("Sec-WebSocket-Protocol", "")
        wanted = [one.replace("sk-t", "sk-upstream") for one in named.get("protocols", ())]
        if "openai-insecure-api-key.t" in wanted:
            wanted[1] = "openai-insecure-api-key.sk-upstream"
        assert [one.strip() for one in offered.split(",") if one] == wanted
        assert ("openai-beta" in shake.headers) == ("protocols" not in named)
        assert shake.query_string == f"model={MODEL}"


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (f"/v1/realtime?model={MODEL}", {}, 401, "invalid_api_key"),
        (f"/v1/realtime?model={MODEL}", {"Authorization": "Bearer sk-no"}, 401, "invalid_api_key"),
        ("/v1/realtime", PLAIN, 400, None),
        ("/v1/realtime?model=unknown", PLAIN, 503, "model_not_found"),
        ("/v1/realtime?model=unpriced", PLAIN, 400, "model_price_missing"),
        ("/v1/realtime?model=elsewhere", PLAIN, 400, "unsupported_endpoint"),
        (f"/v1/realtime?model={MODEL}&intent=transcription", PLAIN, 400, None),
    ],
)
async def test_refusals_are_answers(
    tmp_path: Path, path: str, headers: dict[str, str], status: int, code: str | None
) -> None:
    """Whatever is wrong before a session is an HTTP answer with its status; nothing reaches the provider."""
    shake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    other = channel("http://127.0.0.1:1", "g", type="gemini", models=("elsewhere",))
    prices = {MODEL: PRICE, "elsewhere": PRICE}
    async with line(tmp_path, {"models": (MODEL, "unpriced")}, other, prices=prices) as made:
        async with made.client.get(f"{made.url}{path}", headers=headers | shake) as answer:
            assert answer.status == status
            error = (await answer.json())["error"]
        assert code is None or error["code"] == code
        assert made.peer.shakes == []
        async with made.client.get(f"{made.url}/v1/realtime?model={MODEL}", headers=PLAIN) as plain:
            assert plain.status == 426
        async with made.client.get(
            f"{made.url}/v1/realtime?model={MODEL}", headers=PLAIN | shake | {"Sec-WebSocket-Key": "short"}
        ) as plain:
            assert plain.status == 400


async def test_another_channel_before_the_session(tmp_path: Path) -> None:
    """A provider that refuses the handshake gives way to the next; the last refusal is the client's answer."""
    async with line(tmp_path, {"name": "a", "priority": 1}, {"name": "b"}) as made:
        made.peer.refusals[:] = [500]
        async with made.connect() as socket:
            await respond(socket)
            await socket.close()
        rows = await made.settled()
        assert [orjson.loads(row["detail"])["channel"] for row in rows if row["state"] == "settled"] == ["b"]
        made.peer.refusals[:] = [401, 401]
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 502
        await made.settled()
        assert made.faults(PUT) == []


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The key would go along."""
    async with line(tmp_path) as made:
        made.peer.refusals[:] = [302] * 3
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 502
        assert {shake.query_string for shake in made.peer.shakes} == {f"model={MODEL}"}
        await made.settled()
        assert made.faults(PUT) == []


async def test_a_handshake_that_nobody_answers(tmp_path: Path) -> None:
    """It ends with the connect timeout; a client that leaves meanwhile ends it at once."""
    reached = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        while await reader.read(65536):
            continue
        writer.close()

    far = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{far.sockets[0].getsockname()[1]}"
    relay = Relay(connect_timeout=0.2, max_attempts=1)
    async with line(tmp_path, {"base_url": url}, relay=relay) as made:
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 504
    (tmp_path / "second").mkdir()
    async with line(tmp_path / "second", {"base_url": url}, relay=Relay(connect_timeout=60.0)) as made:
        reached.clear()
        leaving = asyncio.ensure_future(made.connect().__aenter__())
        await reached.wait()
        leaving.cancel()
        (row,) = await made.settled()
        assert row["state"] == "voided"
    far.close()


@pytest.mark.parametrize(
    ("options", "path", "query"),
    [
        ({}, "/openai/v1/realtime", "model=gpt-4o-realtime-preview"),
        (
            {"api_version": "2024-10-01-preview", "strip_dots": True},
            "/openai/realtime",
            "api-version=2024-10-01-preview&deployment=gpt-4o-realtime-preview",
        ),
    ],
)
async def test_azure(tmp_path: Path, options: dict[str, Any], path: str, query: str) -> None:
    """Azure's two addresses, with its own header for the key."""
    async with line(tmp_path, {"type": "azure", "options": options}) as made:
        async with made.connect() as socket:
            await respond(socket)
            await socket.close()
        (shake,) = made.peer.shakes
        assert (shake.path, shake.query_string) == (path, query)
        assert shake.headers["api-key"] == "sk-upstream"
        assert "Authorization" not in shake.headers


async def test_the_balance_ends(tmp_path: Path) -> None:
    """Where no further hold fits, the session is told so and cut on both sides; nothing is overdrawn."""
    put = COST * 2 + 100
    async with line(tmp_path, quota=put) as made:
        async with made.connect() as socket:
            await respond(socket)
            await respond(socket)
            error = (await until(socket, "error"))["error"]
            assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
            assert await heard(socket) == 1008
        await made.peer.empty()
        await made.settled()
        assert made.faults(put) == []
        assert made.sql("SELECT remain_quota FROM tokens") == [{"remain_quota": 100}]
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 403


async def test_the_balance_ends_among_responses(tmp_path: Path) -> None:
    """A response that is cut because another one took the last of the balance is charged as far as that reaches."""
    put = 2 * HELD + 50
    async with line(tmp_path, quota=put) as made:
        async with made.connect() as socket:
            await send(socket, type="response.create", do="hold")
            await until(socket, "response.text.delta")
            await respond(socket)
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            assert await heard(socket) == 1008
        rows = await made.settled()
        assert [(row["state"], row["charged"]) for row in rows] == [("settled", COST), ("settled", 12)]
        assert made.faults(put) == []


async def test_each_of_several_responses_is_held_for(tmp_path: Path) -> None:
    """Responses beside each other that the balance does not reach for end the session as they begin."""
    put = 2 * HELD + 50
    async with line(tmp_path, quota=put) as made:
        async with made.connect() as socket:
            for _ in range(6):
                await send(socket, type="response.create", do="hold")
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            assert await heard(socket) == 1008
        await made.peer.empty()
        rows = await made.settled()
        assert made.faults(put) == []
        assert sum(row["shortfall"] for row in rows) == 0


async def test_responses_have_a_number(tmp_path: Path) -> None:
    """More responses at once than are told apart end the session, whatever money there is."""
    async with line(tmp_path, quota=None) as made:
        async with made.connect() as socket:
            for _ in range(RESPONSES):
                await send(socket, type="response.create", do="hold")
            assert (await until(socket, "error"))["error"]["code"] == "too_many_responses"
        await made.settled()


async def test_a_long_response_is_held_for_while_it_comes(tmp_path: Path) -> None:
    """A response that has come to cost more than is held is held for, and cut where the balance ends: what is lost is a
    part of what was paid."""
    put = 5_000  # of 25 000 that the whole response costs
    async with line(tmp_path, quota=put) as made:
        async with made.connect() as socket:
            await send(socket, type="response.create", do="talk")
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            assert await heard(socket) == 1008
        await made.peer.empty()
        (row,) = [row for row in await made.settled() if row["state"] == "settled"]
        assert 3_500 < row["charged"] <= put
        assert row["charged"] + row["shortfall"] < put * 1.4
        assert made.faults(put) == []


@pytest.mark.parametrize("do", ["die", "leave", "refuse", "large"])
async def test_the_provider_ends_it(tmp_path: Path, do: str) -> None:
    """A provider's end is the client's: a clean one as it is, any other with an error event; nothing stays held."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            assert (await heard(socket))["type"] == "session.created"
            await send(socket, type="response.create", do=do)
            if do != "leave":
                error = (await until(socket, "error"))["error"]
                assert error["code"] == "upstream_closed"
            assert await heard(socket) == {"die": 1011, "leave": 1000, "refuse": 1008, "large": 1011}[do]
        await made.peer.empty()
        (row,) = await made.settled()
        assert row["state"] == "voided"
        assert made.faults(PUT) == []


async def test_the_provider_dies_in_a_response(tmp_path: Path) -> None:
    """What was delivered of it is counted here and charged."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            await send(socket, type="response.create", do="hold")
            await until(socket, "response.text.delta")
            await send(socket, type="response.create", do="die")
            assert (await until(socket, "error"))["error"]["code"] == "upstream_closed"
            assert await heard(socket) == 1011
        (row,) = await made.settled()
        usage = orjson.loads(row["detail"])["usage"]
        assert (row["state"], usage["source"], usage["output"]) == ("settled", "counted", 6)
        assert made.faults(PUT) == []


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("clean", [True, False])
async def test_the_client_ends_it(tmp_path: Path, busy: bool, clean: bool) -> None:
    """The provider is let go within a second; a response in progress is charged, an idle session costs nothing."""
    async with line(tmp_path) as made:
        socket = await made.connect()
        assert (await heard(socket))["type"] == "session.created"
        if busy:
            await send(socket, type="response.create", do="hold")
            await until(socket, "response.text.delta")
        began = asyncio.get_running_loop().time()
        if clean:
            await socket.close()
        else:
            dropped(socket)
        await made.peer.empty()
        assert asyncio.get_running_loop().time() - began < 1.0
        (row,) = await made.settled()
        assert row["state"] == ("settled" if busy else "voided")
        assert made.faults(PUT) == []
        await socket.close()


async def test_a_message_that_is_too_large(tmp_path: Path) -> None:
    """The client is told so, by event and by close code, and nothing of it reaches the provider."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            assert (await heard(socket))["type"] == "session.created"
            await send(socket, type="x", pad="x" * (16 << 20))
            assert (await until(socket, "error"))["error"]["code"] == "message_too_large"
            assert await heard(socket) == 1009
        assert made.peer.said == []
        await made.peer.empty()


async def test_text_that_is_none(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 end the session as the client's fault: they do not reach the provider."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            assert (await heard(socket))["type"] == "session.created"
            await socket.send_frame(b'{"type":"\xff"}', WSMsgType.TEXT)
            assert (await until(socket, "error"))["error"]["code"] == "invalid_message"
            assert await heard(socket) == 1007
        assert made.peer.texts == []


async def test_messages_pass_as_they_are(tmp_path: Path) -> None:
    """Text keeps its bytes, bytes stay bytes, a ping is answered, and large messages pass both ways."""
    async with line(tmp_path) as made, made.connect() as socket:
        assert (await heard(socket))["type"] == "session.created"
        big = bytes(range(256)) * 4096 * 8
        await socket.send_bytes(big)
        message = await socket.receive(10)
        assert (message.type, message.data) == (WSMsgType.BINARY, big)
        await socket.ping(b"here")
        odd = ['{"type" : "x",  "n": 1.0, "u": "\\u00e9"}', "no JSON", ' {"a":' * 200_000]
        for text in odd[:3]:
            await socket.send_str(text)
        await respond(socket)
        assert made.peer.texts[:3] == odd[:3]
        await socket.close()


async def test_silence_is_filled_with_pings(tmp_path: Path) -> None:
    """A client that nothing is said to gets pings; its answers keep no idle session open."""
    relay = Relay(keepalive=0.02, session_idle=0.5)
    async with line(tmp_path, relay=relay) as made, made.connect(autoping=False) as socket:
        assert (await heard(socket))["type"] == "session.created"
        kinds = []
        while (message := await socket.receive(10)).type is WSMsgType.PING:
            kinds.append(message.type)
            await socket.pong(message.data)
        assert len(kinds) > 3
        assert orjson.loads(message.data)["error"]["code"] == "session_idle"
        assert await heard(socket) == 1001
        await made.settled()


async def test_a_slow_client_slows_the_provider(tmp_path: Path) -> None:
    """What the client does not take, the provider cannot send."""
    async with line(tmp_path) as made:
        socket = await made.connect()
        assert (await heard(socket))["type"] == "session.created"
        assert socket._conn is not None
        assert socket._conn.transport is not None
        socket._conn.transport.pause_reading()  # type: ignore[attr-defined]
        await send(socket, type="response.create", do="flood")
        async with asyncio.timeout(20):
            await made.peer.stuck.wait()
        assert made.peer.flood < 40
        dropped(socket)
        await made.settled()
        assert made.faults(PUT) == []
        await socket.close()


async def test_a_silent_provider_is_counted(tmp_path: Path) -> None:
    """A response without usage costs what was said and delivered, text and sound."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            await send(socket, type="input_audio_buffer.append", audio="A" * 64_000)  # a second of PCM
            item = {"type": "message", "content": [{"type": "input_text", "text": "One two three four five."}]}
            await send(socket, type="conversation.item.create", item=item)
            await respond(socket, do="silent")
            await socket.close()
        (row, _) = await made.settled()
        usage = orjson.loads(row["detail"])["usage"]
        assert (usage["source"], usage["input"], usage["audio_in"], usage["output"]) == ("counted", 33, 27, 6)
        assert made.faults(PUT) == []


async def test_transcriptions_beside_responses_are_charged(tmp_path: Path) -> None:
    """What a session's listener uses costs too, though no response holds it."""
    async with line(tmp_path) as made, made.connect() as socket:
        await send(socket, type="response.create", do="hear")
        await until(socket, "conversation.item.input_audio_transcription.completed")
        (row, _) = made.rows()
        assert (row["state"], row["charged"]) == ("settled", 30 + 20)
        await socket.close()


async def test_a_price_per_call_is_paid_once(tmp_path: Path) -> None:
    """It is the session's, paid with the first response."""
    async with line(tmp_path, prices={MODEL: Price(call=0.002)}) as made:
        async with made.connect() as socket:
            await respond(socket)
            await respond(socket)
            await socket.close()
        rows = await made.settled()
        assert [row["charged"] for row in rows] == [1000, 0, 0]
        assert made.faults(PUT) == []


async def test_names_are_the_clients(tmp_path: Path) -> None:
    """Upstream's name of a mapped model is not shown, and the client's not sent; the model cannot be changed."""
    mapped = {"models": ("asked",), "model_mapping": {"asked": MODEL}}
    async with line(tmp_path, mapped) as made, made.connect("asked") as socket:
        assert (await heard(socket))["session"]["model"] == "asked"
        await send(socket, type="session.update", session={"model": "dearer", "instructions": "Be brief."})
        await respond(socket)
        assert made.peer.said[0]["session"] == {"model": MODEL, "instructions": "Be brief."}
        await socket.close()


async def test_a_key_of_ours_that_fails_is_not_the_clients(tmp_path: Path) -> None:
    """An error that speaks of the channel's key is told as upstream's, and parks the key."""
    async with line(tmp_path, {"auto_disable": True}) as made:
        async with made.connect() as socket:
            await send(socket, type="response.create", do="fault")
            error = (await until(socket, "error"))["error"]
            assert error["code"] == "upstream_credentials"
            assert "sk-abc" not in error["message"]
            await socket.close()
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert KEY_PAUSE - 60 < int(refused.value.headers["Retry-After"]) <= KEY_PAUSE


async def test_a_session_takes_a_slot(tmp_path: Path) -> None:
    """A key's limit of requests at the same time holds for sessions, until they end."""
    token = Token(name="t", key=Secret("sk-t"), limits=Limits(concurrency=1))
    async with line(tmp_path, tokens=(token,)) as made:
        async with made.connect() as socket:
            assert (await heard(socket))["type"] == "session.created"
            with pytest.raises(WSServerHandshakeError) as refused:
                await made.connect()
            assert refused.value.status == 429
            await socket.close()
        await made.settled()
        async with made.connect() as socket:
            await respond(socket)
            await socket.close()


@pytest.mark.parametrize(
    ("relay", "code"),
    [(Relay(session_idle=0.05), "session_idle"), (Relay(session_timeout=0.2), "session_expired")],
)
async def test_limits_of_time(tmp_path: Path, relay: Relay, code: str) -> None:
    """A session in which nothing is said, and one that lasts too long, are told why they end."""
    async with line(tmp_path, relay=relay) as made:
        async with made.connect() as socket:
            assert (await until(socket, "error"))["error"]["code"] == code
            assert await heard(socket) == 1001
        await made.peer.empty()
        (row,) = await made.settled()
        assert row["state"] == "voided"


@pytest.mark.parametrize("busy", ["", "hold", "finish"])
async def test_drain(tmp_path: Path, busy: str) -> None:
    """A stop closes an idle session at once, a busy one after its response, and one that lasts at the deadline."""
    relay = Relay(drain_timeout=0.5 if busy == "hold" else 20.0)
    async with line(tmp_path, relay=relay) as made:
        async with made.connect() as socket:
            assert (await heard(socket))["type"] == "session.created"
            if busy:
                await send(socket, type="response.create", do="hold")
                await until(socket, "response.text.delta")
            stopping = asyncio.ensure_future(drain(made.house, [made.server], asyncio.Event()))
            if busy == "finish":
                await seen(lambda: made.server.retiring)
                await respond(socket)  # another one, beside the one that runs
                (far,) = made.peer.open
                await send(far, type="response.done", response={"id": "resp_1"})
                await until(socket, "response.done")
            if busy == "hold":
                assert (await until(socket, "error"))["error"]["code"] == "shutting_down"
            while isinstance(told := await heard(socket), dict):
                assert told["type"] != "error"
            assert told == 1001
            assert await stopping
        rows = await made.settled()
        assert any(row["state"] == "settled" for row in rows) == bool(busy)
        assert made.faults(PUT) == []


class Looking:
    """A dialer that opens nothing: it looks whether money is held, and ends as told."""

    def __init__(self, made: Line, then: Exception) -> None:
        self.made, self.then = made, then
        self.held: list[int] = []

    async def dial(self, outgoing: Outgoing, interrupt: Interrupt, **named: Any) -> Socket | Refusal:
        """See relay.sockets.Dialer."""
        self.held += [row["held"] for row in self.made.rows() if row["state"] == "held"]
        raise self.then


async def test_money_is_held_before_the_handshake(tmp_path: Path) -> None:
    """Nothing leaves for a provider before its hold is in the ledger; where nobody is reached it is given back."""
    async with line(tmp_path) as made:
        looking = made.house.dialer = Looking(made, UpstreamFailure("nobody there"))
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert (refused.value.status, looking.held) == (502, [HELD])
        assert [row["state"] for row in await made.settled()] == ["voided"]


async def test_responses_count_against_tokens_per_minute(tmp_path: Path) -> None:
    """Each response counts when it is done, for its key and its channel; one that the key has no room for is paid, and
    the session's last. What was counted leaves with its own minute."""
    clock = Clock()
    token = Token(name="t", key=Secret("sk-t"), limits=Limits(tpm=4 * USED, concurrency=2))
    async with line(tmp_path, {"limits": Limits(tpm=4 * USED - 1)}, tokens=(token,), clock=clock) as made:
        async with made.connect() as socket:
            for minutes, key, channel in ((0, 1, 1), (0.5, 2, 2), (0.4, 3, 3), (0.2, 3, 3), (0, 4, 3)):
                clock.pass_(60 * minutes)
                await respond(socket)
                counts = {(one.scope, one.limit): one.count for one in made.house.windows.used()}
                assert counts["token", "concurrency"] == 1
                assert (counts["token", "tpm"], counts["channel", "tpm"]) == (key * USED, channel * USED)
            await respond(socket)
            assert (await until(socket, "error"))["error"]["code"] == "rate_limit_exceeded"
            assert await heard(socket) == 1008
        assert [row["charged"] for row in await made.settled()] == [COST] * 6
        with pytest.raises(WSServerHandshakeError) as refused:
            await made.connect()
        assert refused.value.status == 429


async def test_a_session_without_money_is_not_counted(tmp_path: Path) -> None:
    """A session that is refused at its hold costs its key none of the requests it has."""
    token = Token(name="t", key=Secret("sk-t"), quota=1, limits=Limits(rpm=1))
    async with line(tmp_path, tokens=(token,)) as made:
        for _ in range(2):
            with pytest.raises(WSServerHandshakeError) as refused:
                await made.connect()
            assert refused.value.status == 403
        assert made.house.windows.used() == []


class Broken:
    """A dialer whose sockets break in our own hands."""

    def __init__(self, dialer: Any) -> None:
        self._dialer = dialer

    async def dial(self, outgoing: Outgoing, interrupt: Interrupt, **named: Any) -> Any:
        self._socket = await self._dialer.dial(outgoing, interrupt, **named)
        return self

    async def receive(self) -> Any:
        if self._socket is not None and (got := await self._socket.receive()) and b"response.done" in got.data:
            raise KeyError("what was said")
        return got

    async def send(self, message: Any) -> None:
        await self._socket.send(message)

    async def close(self, code: int, reason: str = "") -> None:
        await self._socket.close(code, reason)


async def test_a_bug_ends_the_session_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The client is told in the protocol's words, both ends are closed, and the bug has its line and its count."""
    bugs = metrics.bugs()
    async with line(tmp_path) as made:
        made.house.dialer = Broken(made.house.dialer)
        async with made.connect() as socket:
            await send(socket, type="response.create")
            assert (await until(socket, "error"))["error"]["code"] == "internal_error"
            assert await heard(socket) == 1011
        await made.settled()
        await made.peer.empty()
        assert made.faults(PUT) == []
    assert metrics.bugs() == bugs + 1
    out = capfd.readouterr().out
    assert '"event":"bug","exception":"KeyError"' in out
    assert "what was said" not in out


async def test_a_key_that_is_taken_away(tmp_path: Path) -> None:
    """A session whose key a reload has switched off ends with its next response."""
    async with line(tmp_path) as made:
        async with made.connect() as socket:
            await respond(socket)
            made.house.snapshot = copy.copy(made.house.snapshot)
            made.house.snapshot.tokens = {}
            await respond(socket)
            assert (await until(socket, "error"))["error"]["code"] == "invalid_api_key"
            assert await heard(socket) == 1008
        assert [row["charged"] for row in await made.settled()] == [COST, COST]


async def test_the_sdk(tmp_path: Path) -> None:
    """OpenAI's own client opens a session, asks and reads."""
    async with line(tmp_path) as made:
        async with (
            AsyncOpenAI(base_url=f"{made.url}/v1", api_key="sk-t") as sdk,
            sdk.realtime.connect(model=MODEL) as session,
        ):
            await session.response.create()
            seen = [event.type async for event in _through(session)]
            assert seen[0] == "session.created"
        rows = await made.settled()
        assert [row["charged"] for row in rows] == [COST, 0]


async def _through(session: Any) -> Any:
    async for event in session:
        yield event
        if event.type == "response.done":
            return


async def storm(made: Line, sessions: int, seed: int) -> None:
    """So many sessions at once, each of some responses, ended in every way by either side."""
    dice = random.Random(seed)
    gate = asyncio.Semaphore(200)

    async def one(script: list[str], end: str) -> None:
        async with gate:
            socket = await made.connect()
        try:
            for do in script:
                await send(socket, type="response.create", do=do)
                await until(socket, "response.text.delta" if do == "hold" else "response.done")
            if end in ("die", "leave", "refuse"):
                await send(socket, type="response.create", do=end)
                while isinstance(await heard(socket), dict):
                    continue
            elif end == "drop":
                dropped(socket)
        finally:
            await socket.close()

    plans = [
        (
            [dice.choice(("answer", "answer", "silent", "hold")) for _ in range(dice.randrange(4))],
            dice.choice(("die", "leave", "refuse", "drop", "close")),
        )
        for _ in range(sessions)
    ]
    await asyncio.gather(*(one(*plan) for plan in plans))
    await made.peer.empty()


def sockets() -> int:
    """Sockets that this process has open."""
    found = 0
    for one in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{one}").startswith("socket:")
        except OSError:  # the listing's own
            continue
    return found


@pytest.mark.parametrize("sessions", [60, pytest.param(1000, marks=pytest.mark.soak)])
async def test_storm(tmp_path: Path, sessions: int) -> None:
    """After many sessions and sudden deaths on either side nothing is held or open, and every unit is found."""
    async with line(tmp_path, quota=100_000_000) as made:
        before, files = len(asyncio.all_tasks()), sockets()
        await storm(made, sessions, 7)
        await made.settled()
        assert made.faults(100_000_000) == []
        await seen(lambda: not any(one.busy for one in made.server.connections))
        assert (made.house.sessions, made.house.watches) == (set(), set())
        made.server.close_idle()
        await seen(lambda: len(asyncio.all_tasks()) <= before)
        await seen(lambda: sockets() <= files)
