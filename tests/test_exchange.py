"""The exchange against fake ports: what the client gets, what is charged and logged, for each way a request goes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy import log
from newapi_proxy.clock import SystemClock
from newapi_proxy.config.model import Channel, Config, Override, Price, Relay, Token
from newapi_proxy.daemon.view import joined
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import Pieces
from newapi_proxy.relay import exchange
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Snapshot, build, token_digest
from newapi_proxy.store.db import Database
from newapi_proxy.surfaces.anthropic import MESSAGES
from newapi_proxy.surfaces.embeddings import EMBEDDINGS
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.surfaces.responses import RESPONSES
from tests.fakes.ports import HANG, ListSink, Script, ScriptedClient

UNIT = 500_000


def chunk(**delta: Any) -> bytes:
    finish = delta.pop("finish", None)
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


def metered(prompt: int = 10, completion: int = 5) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [],
        "usage": usage,
    }
    return b"data: " + orjson.dumps(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
START = chunk(role="assistant", content="")
STREAM = (START, chunk(content="Hel"), chunk(content="lo"), chunk(finish="stop"), metered(), DONE)
WHOLE = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
)
JSON = {"content-type": "application/json"}
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def whole(body: bytes = WHOLE, status: int = 200, **headers: str) -> Script:
    return Script(body, status=status, headers={**JSON, **headers})


def broken(status: int, **headers: str) -> Script:
    return whole(orjson.dumps({"error": {"message": "no", "type": "t", "code": "c", "param": None}}), status, **headers)


class Play:
    """One house, its client's scripts, and what came of each request."""

    def __init__(self, house: House, client: ScriptedClient, database: Database, path: Path) -> None:
        self.house = house
        self.path = path
        self.client = client
        self.database = database
        self.count = 0
        self.lines: list[dict[str, Any]] = []

    async def ask(
        self, sink: ListSink | None = None, *, surface: Any = CHAT, **changes: Any
    ) -> tuple[ListSink, dict[str, Any]]:
        """Sends a request; the client's end and the ledger's row."""
        self.count += 1
        sink = sink or ListSink()
        body = orjson.dumps({**ASK, **changes})
        token = next(iter(self.house.snapshot.tokens.values()))
        visit = Visit(
            request_id=f"r{self.count}",
            method="POST",
            path="/x",
            route="/x",
            client_ip="127.0.0.1",
            arrived=self.house.clock.monotonic(),
            token=token,
        )
        await exchange.chat(self.house, visit, surface, body, {}, sink)
        return sink, await self.row(visit.request_id)

    async def row(self, request_id: str) -> dict[str, Any]:
        await self.database.write(lambda conn, items: [None], None)  # what was asked for before is written
        sql = "SELECT state, held, charged, channel_id FROM ledger WHERE request_id = ?"

        def read(conn: Any) -> dict[str, Any]:
            found = conn.exec_driver_sql(sql, (request_id,)).mappings().first()
            return dict(found) if found else {}

        return await self.database.read(read)

    async def balance(self) -> int:
        return await self.database.read(
            lambda conn: conn.exec_driver_sql("SELECT remain_quota FROM tokens ORDER BY id LIMIT 1").scalar()
        )


Start = Callable[..., Any]


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a house: scripts in the order in which they are opened; channels a, b … of type openai."""
    opened: list[Database] = []

    async def start(
        *scripts: Script,
        channels: int = 1,
        quota: int | None = None,
        channel: dict[str, Any] | None = None,
        price: Price | None = None,
        prices: dict[str, Price] | None = None,
        type: str = "openai",
        key: str = "",
        **relay: Any,
    ) -> Play:
        config = Config(
            relay=Relay(**relay),
            prices={"m": price or Price(input=2, output=4), **(prices or {})},
            channels=tuple(
                Channel(
                    name="abc"[n],
                    type=type,
                    base_url="http://up",
                    key=Secret(key or f"k{n}"),
                    models=("m",),
                    priority=-n,
                    **(channel or {}),
                )
                for n in range(channels)
            ),
            tokens=(Token(name="t", key=Secret("sk-t"), quota=quota),),
        )
        database = await Database.open(f"sqlite:///{tmp_path}/{len(opened)}.db", tmp_path, "normal", None)
        opened.append(database)
        rows = await database.write(lambda conn, items: [joined(conn, config, 1)], None)
        clock = SystemClock()
        client = ScriptedClient(*scripts)
        snapshot = build(config, rows.tokens, rows.channel_ids)
        assert token_digest(config.tokens[0]) in snapshot.tokens
        house = House(snapshot, database, client, Health(clock, lambda channel, state: None), clock, boot="b")
        return Play(house, client, database, tmp_path / f"{len(opened) - 1}.db")

    yield start
    for database in opened:
        await database.close()


@pytest.fixture(autouse=True)
def lines(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[[], list[dict[str, Any]]]:
    """The log lines so far."""
    log.setup("info", "json")
    return lambda: [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]


async def test_a_whole_answer_is_passed_on_charged_and_logged(play: Start, lines: Any) -> None:
    """The client gets upstream's bytes, the ledger the exact charge, the log one line with it all."""
    stage = await play(whole(), quota=UNIT)
    sink, row = await stage.ask()
    assert (sink.status, sink.ended) == (200, True)
    assert orjson.loads(sink.body) == orjson.loads(WHOLE)
    assert (row["state"], row["charged"]) == ("settled", 10 + 10)
    assert await stage.balance() == UNIT - 20
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert line["status"] == 200
    assert line["end"] == "ok"
    assert line["quota"] == 20
    assert line["usd"] == "0.000040"
    assert line["usage"]["input"] == 10
    assert line["usage"]["source"] == "upstream"
    assert [one["channel"] for one in line["attempts"]] == ["a"]
    assert stage.client.opened[0].closed


async def test_a_stream_is_settled_before_its_last_byte(play: Start) -> None:
    """The terminator leaves only after the charge is in the database."""
    stage = await play(Script(*STREAM))
    seen: list[str] = []

    class Looking(ListSink):
        def write(self, data: bytes, *, more: bool = False) -> None:
            super().write(data)
            if b"[DONE]" in data:
                seen.append(_state(stage.path, "r1"))  # readable from outside by now

    sink, row = await stage.ask(Looking(), stream=True)
    assert sink.body.endswith(DONE)
    assert sink.body.count(DONE) == 1
    assert b'"usage"' not in sink.body
    assert seen == ["settled"]
    assert row["charged"] == 20


def _state(path: Path, request_id: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        found = conn.execute("SELECT state FROM ledger WHERE request_id = ?", (request_id,)).fetchone()
    return str(found[0])


FAULTS: dict[str, Callable[[], Script]] = {
    "refused": lambda: Script(refuse=UpstreamFailure("x", blames="channel")),
    "500": lambda: broken(500),
    "503": lambda: broken(503),
    "529": lambda: broken(529),
    "429": lambda: broken(429, **{"retry-after": "7"}),
    "401": lambda: broken(401),
    "403": lambda: broken(403),
    "404": lambda: broken(404),
    "200 with an error": lambda: whole(orjson.dumps({"error": {"message": "overloaded", "type": "server_error"}})),
    "200 of HTML": lambda: Script(b"<html>login</html>", headers={"content-type": "text/html"}),
    "truncated": lambda: Script(b'{"id": "x", "cho', UpstreamFailure("ended early"), headers=JSON),
    "empty": lambda: Script(b"", headers=JSON),
    "redirect": lambda: whole(b"", 302),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_fault_before_content_moves_on_to_the_next_channel(play: Start, fault: str, stream: bool) -> None:
    """The second channel's answer is the only one the client sees, and the only one it pays for."""
    good = Script(*STREAM) if stream else whole()
    stage = await play(FAULTS[fault](), good, channels=2)
    sink, row = await stage.ask(stream=stream)
    assert sink.status == 200
    assert sink.body.count(b"Hel") == 1
    assert row["charged"] == 20
    assert all(script.closed for script in stage.client.opened if script.refuse is None)


STREAM_FAULTS: dict[str, tuple[Any, ...]] = {
    "reset": (UpstreamFailure("reset"),),
    "error frame": (b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n',),
    "garbage": (b"data: {\n\n", b"data: {\n\n", b"data: {\n\n"),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_a_stream_that_breaks_before_content_moves_on(play: Start, fault: str) -> None:
    """A role chunk is no content: the attempt can still be replaced, and one answer arrives."""
    stage = await play(Script(START, *STREAM_FAULTS[fault]), Script(*STREAM), channels=2)
    sink, row = await stage.ask(stream=True)
    assert sink.body.count(b'"role"') == 1
    assert sink.body.endswith(DONE)
    assert row["charged"] == 20


@pytest.mark.parametrize("surface", [CHAT, MESSAGES])
@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_a_stream_that_breaks_after_content_ends_in_an_error_of_its_dialect(
    play: Start, fault: str, surface: Any, lines: Any
) -> None:
    """No second attempt, no terminator; what was delivered is charged by local count."""
    stage = await play(Script(START, chunk(content="Hello there"), *STREAM_FAULTS[fault]), Script(*STREAM), channels=2)
    sink, row = await stage.ask(stream=True, surface=surface, max_tokens=50)
    assert len(stage.client.opened) == 1
    assert b"Hello there" in sink.body
    assert sink.ended
    tail = sink.body.rsplit(b"data: ", 1)[1]
    assert orjson.loads(tail)["error"]["message"]
    assert DONE not in sink.body
    assert b"message_stop" not in sink.body
    assert row["state"] == "settled"
    assert 0 < row["charged"] < 200
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert line["end"] == "upstream_error"
    assert line["usage"]["source"] == "counted"


async def test_all_attempts_failed_costs_nothing_and_tells_the_last_failure(play: Start) -> None:
    """The client gets the last failure in its own dialect, the hold is given back."""
    stage = await play(broken(500), broken(429, **{"retry-after": "7"}), channels=2, quota=UNIT)
    sink, row = await stage.ask()
    assert sink.status == 429
    assert sink.headers["retry-after"] == "7"
    assert row["state"] == "voided"
    assert await stage.balance() == UNIT


async def test_the_budget_of_attempts_is_kept(play: Start) -> None:
    """Upstreams see at most max_attempts requests."""
    stage = await play(broken(500), broken(500), broken(500), channels=3, max_attempts=2)
    await stage.ask()
    assert len(stage.client.opened) == 2


@pytest.mark.parametrize("status", [400, 504, 524])
async def test_statuses_that_are_not_retried_end_the_request(play: Start, status: int) -> None:
    """The inherited list: another channel is not asked."""
    stage = await play(broken(status), whole(), channels=2)
    await stage.ask()
    assert len(stage.client.opened) == 1


async def test_a_400_rewritten_to_500_is_retried_and_shown_as_500(play: Start) -> None:
    """status_code_mapping as New API's README teaches it."""
    stage = await play(broken(400), broken(400), channels=2, channel={"status_code_mapping": {"400": 500}})
    sink, _ = await stage.ask()
    assert len(stage.client.opened) == 2
    assert sink.status == 500


async def test_a_dead_credential_is_never_shown_as_the_callers(play: Start) -> None:
    """Upstream's 401 becomes 502 upstream_credentials (decision 10)."""
    stage = await play(broken(401))
    sink, _ = await stage.ask()
    assert sink.status == 502
    assert orjson.loads(sink.body)["error"]["code"] == "upstream_credentials"


async def test_a_client_that_leaves_a_whole_request_pays_nothing(play: Start) -> None:
    """Nothing was delivered; upstream is let go at once."""
    script = Script(HANG, WHOLE, headers=JSON)
    stage = await play(script, quota=UNIT)
    sink = ListSink()
    asyncio.get_running_loop().call_later(0.01, sink.leave)
    _, row = await stage.ask(sink)
    assert script.closed
    assert row["state"] == "voided"
    assert await stage.balance() == UNIT


async def test_a_client_that_leaves_a_stream_pays_for_what_it_got(play: Start, lines: Any) -> None:
    """Upstream is let go at once; the delivered text and the prompt are counted here."""
    script = Script(START, chunk(content="Hello there"), HANG, *STREAM)
    stage = await play(script)
    _, row = await stage.ask(ListSink(leave_after=1), stream=True)
    assert script.closed
    assert row["state"] == "settled"
    assert 0 < row["charged"] < 200
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert line["end"] == "client_gone"


async def test_a_client_that_leaves_after_usage_was_told_pays_for_it(play: Start) -> None:
    """Leaving before the first word is no way to have a prompt read for nothing, where upstream has said its cost."""
    told = orjson.loads(metered(prompt=100, completion=1)[6:])
    script = Script(b"data: " + orjson.dumps(told) + b"\n\n", HANG)
    stage = await play(script)
    sink = ListSink()
    asyncio.get_running_loop().call_later(0.02, sink.leave)
    _, row = await stage.ask(sink, stream=True)
    assert (row["state"], row["charged"]) == ("settled", 102)


async def test_a_silent_upstream_is_abandoned_for_the_next_channel(play: Start) -> None:
    """The first-token deadline fails over; the client sees one coherent stream."""
    silent = Script(START, HANG)
    stage = await play(silent, Script(*STREAM), channels=2, first_token_timeout=0.02)
    sink, row = await stage.ask(stream=True)
    assert silent.closed
    assert sink.body.count(b'"role"') == 1
    assert row["charged"] == 20


async def test_silence_inside_a_stream_ends_it_with_an_error(play: Start, lines: Any) -> None:
    """The silence deadline is shown as an error, not as a success."""
    stage = await play(Script(START, chunk(content="Hello"), HANG), streaming_timeout=0.02)
    sink, row = await stage.ask(stream=True)
    assert b"upstream_timeout" in sink.body
    assert DONE not in sink.body
    assert row["charged"] > 0
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert line["end"] == "timeout"


async def test_the_total_deadline_covers_all_attempts(play: Start) -> None:
    """A drip that never ends is ended; a whole answer that never comes is a 504."""
    stage = await play(Script(HANG, headers=JSON), total_timeout=0.02)
    sink, row = await stage.ask()
    assert sink.status == 504
    assert row["state"] == "voided"


async def test_keepalives_start_with_the_request_and_do_not_fix_the_attempt(play: Start) -> None:
    """Comments go out while upstream is silent; another channel may still answer, errors then go in-band."""
    stage = await play(Script(HANG), Script(*STREAM), channels=2, keepalive=0.01, first_token_timeout=0.05)
    sink, row = await stage.ask(stream=True)
    assert sink.body.startswith(b": ")
    assert sink.body.count(b'"role"') == 1
    assert sink.body.endswith(DONE)
    assert row["charged"] == 20
    stage = await play(Script(HANG), keepalive=0.01, first_token_timeout=0.05)
    sink, row = await stage.ask(stream=True)
    assert sink.status == 200
    assert b'"error"' in sink.body
    assert row["state"] == "voided"


async def test_unknown_fields_arrive_and_overrides_apply_in_the_same_request(play: Start) -> None:
    """User-demand R1."""
    stage = await play(
        whole(),
        channel={
            "override": Override(set={"temperature": 1, "x.y": 2}, default={"seed": 3, "deep.a": 0}, remove=("user",)),
            "headers": {"X-Team": "blue"},
            "model_mapping": {"m": "up"},
        },
    )
    await stage.ask(user="u", temperature=0.5, deep={"a": {"unknown": [1, None]}}, vendor_flag=True)
    sent = stage.client.opened[0].sent
    body = orjson.loads(sent.body)
    assert body["model"] == "up"
    assert body["temperature"] == 1
    assert body["x"] == {"y": 2}
    assert body["seed"] == 3
    assert body["deep"] == {"a": {"unknown": [1, None]}}
    assert body["vendor_flag"] is True
    assert "user" not in body
    assert sent.headers["X-Team"] == "blue"


DEEP = '{"a":' * 300 + "1" + "}" * 300
CALLED = {"id": "t", "type": "function", "function": {"name": "f", "arguments": DEEP}}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_nested_too_deep_costs_nothing_and_blames_nobody(play: Start, stream: bool, lines: Any) -> None:
    """JSON that can be read, and not be written for another format: a refusal without a charge."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
    from_openai = orjson.loads(WHOLE)
    from_openai["choices"][0].update(message=message, finish_reason="tool_calls")
    head = (
        b'{"id":"m","type":"message","role":"assistant","model":"m","stop_reason":"tool_use","usage":{"input_tokens":1'
    )
    block = b',"output_tokens":9},"content":[{"type":"tool_use","id":"t","name":"f","input":' + DEEP.encode() + b"}]}"
    for type, body, surface in (
        ("openai", orjson.dumps(from_openai), MESSAGES),
        ("anthropic", head + block, CHAT),
    ):
        if stream and type == "openai":  # a stream has arguments as text
            continue
        stage = await play(*(whole(body) for _ in range(12)), type=type, quota=UNIT, max_attempts=1)
        for _ in range(12):
            sink, row = await stage.ask(surface=surface, max_tokens=9, stream=stream)
            assert sink.status == 502
            assert b"nested too deep" in sink.body
            assert (row["state"], row["charged"]) == ("void", None) or not row["charged"]
        assert await stage.balance() == UNIT
    assert not [line for line in lines() if line["event"] == "bug"]


async def test_what_is_nested_deep_is_passed_on_as_it_came(play: Start) -> None:
    """In the same format, where it cannot be written again with the name that was asked for; of a stream it is left
    out."""
    extra = b'{"extra":' + DEEP.encode() + b","
    stage = await play(
        whole(extra + WHOLE[1:]),
        Script(START, b"data: " + extra + chunk(content="Hel")[7:], chunk(content="lo"), chunk(finish="stop"), DONE),
        channel={"model_mapping": {"m": "up"}},
    )
    sink, row = await stage.ask()
    assert (sink.status, sink.body, row["charged"]) == (200, extra + WHOLE[1:], 20)
    sink, row = await stage.ask(stream=True)
    assert (sink.status, sink.body.endswith(DONE), row["state"]) == (200, True, "settled")
    assert b"lo" in sink.body


async def test_a_stream_nested_too_deep_ends_in_an_error(play: Start, lines: Any) -> None:
    """The client is told, and pays for what it got; that what came has no form here is no bug."""
    start = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
    frames = [f"event: {one['type']}\ndata: ".encode() + orjson.dumps(one) + b"\n\n" for one in (start, block, text)]
    call = b'{"type":"tool_use","id":"t","name":"f","input":' + DEEP.encode() + b"}"
    deep = (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":' + call + b"}\n\n"
    )
    stop = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n'
    stage = await play(Script(*frames, deep, stop), type="anthropic")
    sink, row = await stage.ask(stream=True, max_tokens=9)
    assert sink.status == 200
    assert b"Hello" in sink.body
    assert b"nested too deep" in sink.body
    assert (row["state"], row["charged"] > 0) == ("settled", True)
    assert not [line for line in lines() if line["event"] == "bug"]


async def test_an_end_nested_too_deep_is_an_error(play: Start, lines: Any) -> None:
    """What a stream's last event holds back until the usage is known cannot be told: the client is told that."""
    start = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hello"}}
    frames = [f"event: {one['type']}\ndata: ".encode() + orjson.dumps(one) + b"\n\n" for one in (start, block)]
    end = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"x":' + DEEP.encode()
    stop = b'}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    stage = await play(Script(*frames, end + stop), type="anthropic")
    sink, row = await stage.ask(stream=True, max_tokens=9, surface=MESSAGES)
    assert (sink.status, row["state"]) == (200, "settled")
    assert b"Hello" in sink.body
    assert b"nested too deep" in sink.body
    assert not [line for line in lines() if line["event"] == "bug"]


async def test_calls_nested_too_deep_for_a_provider_are_the_callers_fault(play: Start) -> None:
    """Where arguments are JSON, and no text; one who takes a text gets it."""
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "t", "content": "1"},
    ]
    for type in ("anthropic", "gemini", "cohere", "ollama"):
        stage = await play(type=type)
        sink, row = await stage.ask(messages=messages, max_tokens=9)
        assert sink.status == 400, sink.body
        assert b"nested too deep" in sink.body
        assert not row["charged"]
    stage = await play(whole())
    sink, _ = await stage.ask(messages=messages)
    assert sink.status == 200


@pytest.mark.parametrize("key", ["quite-a-secret", "first.part|quite-a-secret|r"])
async def test_a_provider_that_quotes_the_key_is_not_quoted(play: Start, key: str, lines: Any) -> None:
    """Whatever keys look like there: in a refusal, inside a stream, and in the log."""
    error = orjson.dumps({"error": {"message": "quite-a-secret is not good", "type": "t"}})
    for script, stream in (
        (whole(error, 401), False),
        (Script(START, chunk(content="a"), b"data: " + error + b"\n\n"), True),
    ):
        stage = await play(script, key=key)
        sink, _ = await stage.ask(stream=stream)
        assert b"*** is not good" in sink.body
        assert b"quite-a-secret" not in sink.body
    assert "quite-a-secret" not in str(lines())


async def test_a_stream_asked_for_and_answered_whole_is_told_as_a_stream(play: Start) -> None:
    """Some upstreams ignore `stream`; the client still gets its grammar."""
    stage = await play(whole())
    sink, row = await stage.ask(stream=True)
    assert b'"delta"' in sink.body
    assert sink.body.endswith(DONE)
    assert row["charged"] == 20


async def test_usage_that_cannot_be_is_counted_here(play: Start, lines: Any) -> None:
    """Negative and absurd numbers from upstream never reach the bill."""
    for prompt in (-5, 10**12, "12", None, 1.5):
        body = orjson.loads(WHOLE)
        body["usage"] = {"prompt_tokens": prompt, "completion_tokens": prompt, "total_tokens": prompt}
        stage = await play(whole(orjson.dumps(body)), quota=UNIT)
        _, row = await stage.ask()
        assert row["state"] == "settled"
        assert 0 < row["charged"] < 100


async def test_too_little_money_is_refused_before_any_upstream_call(play: Start, lines: Any) -> None:
    """403 with the inherited code; nothing is sent, the line says rejected."""
    stage = await play(whole(), quota=10)
    sink, _ = await stage.ask()
    assert sink.status == 403
    assert orjson.loads(sink.body)["error"]["code"] == "pre_consume_token_quota_failed"
    assert stage.client.opened == []
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert line["end"] == "rejected"


async def test_unknown_and_unpriced_models_are_refused(play: Start) -> None:
    """503 for what no channel serves, 400 for what has no price, in words that name the model."""
    stage = await play(channel={})
    sink, _ = await stage.ask(model="nothing")
    assert sink.status == 503
    assert orjson.loads(sink.body)["error"]["code"] == "model_not_found"
    assert sink.headers["x-should-retry"] == "false"


async def test_a_client_that_reads_nothing_cannot_switch_off_the_deadline(play: Start) -> None:
    """Waiting for the client's buffer ends with the total deadline too, and what was delivered is charged."""

    class Stuffed(ListSink):
        async def drain(self) -> None:
            await asyncio.get_running_loop().create_future()

    stage = await play(Script(START + chunk(content="Hello"), *STREAM[2:]), total_timeout=0.05)
    sink = Stuffed()
    sink.full = True
    _, row = await stage.ask(sink, stream=True)
    assert row["state"] == "settled"
    assert b"upstream_timeout" in sink.body


async def test_a_total_deadline_tries_and_blames_nobody_else(play: Start) -> None:
    """When the time of the whole request is over, the next channel is neither asked nor held responsible."""
    stage = await play(Script(HANG, headers=JSON), whole(), channels=2, total_timeout=0.02)
    sink, _ = await stage.ask()
    assert sink.status == 504
    assert len(stage.client.opened) == 1


async def test_a_channel_whose_model_has_no_price_is_no_way_out(play: Start) -> None:
    """Fail-over never leads to an answer that cannot be charged."""
    stage = await play(broken(500), whole(), channels=2)
    snapshot = stage.house.snapshot
    changed = [
        msgspec.structs.replace(one, models=("n",), model_mapping={"n": "m" if one.name == "a" else "nobody-knows"})
        for one in snapshot.channels
    ]
    stage.house.snapshot = Snapshot(snapshot.config, changed, snapshot.tokens, snapshot.prices)
    sink, row = await stage.ask(model="n")
    assert sink.status == 502
    assert len(stage.client.opened) == 1
    assert row["state"] == "voided"


async def test_a_charge_that_cannot_be_written_stays_due(play: Start) -> None:
    """What a client has read of a stream is charged when the ledger works again; the client is told of the fault."""
    stage = await play(Script(*STREAM), quota=UNIT)

    class Locking(ListSink):
        def start(self, status: int, headers: Any) -> None:
            super().start(status, headers)
            self.lock = sqlite3.connect(stage.path, isolation_level=None)
            self.lock.execute("BEGIN IMMEDIATE")
            asyncio.get_running_loop().call_later(0.1, self.lock.close)

    _, row = await stage.ask(Locking(), stream=True)
    assert (row["state"], row["charged"]) == ("settled", 20)
    assert await stage.balance() == UNIT - 20


async def test_no_word_of_a_provider_reaches_the_log(play: Start, lines: Any) -> None:
    """A provider's error may quote the prompt: the log has its status and code only."""
    body = orjson.dumps({"error": {"message": "you said PRIVATE", "type": "invalid_request_error", "code": "c" * 300}})
    stage = await play(whole(body, 400))
    await stage.ask()
    written = lines()
    assert not any("PRIVATE" in str(line) for line in written)
    assert max(len(str(line)) for line in written) < 2000


async def test_concurrent_requests_never_overdraw(play: Start) -> None:
    """500 parallel requests on a balance for exactly 50 of them: 50 served, the rest refused, nothing below zero."""
    stage = await play(*[whole() for _ in range(500)], quota=1)
    config = stage.house.snapshot.config
    price = Price(call=0.00002)  # 10 units
    rich = msgspec.structs.replace(
        config, prices={"m": price}, tokens=(Token(name="t", key=Secret("sk-t"), quota=500),)
    )
    rows = await stage.database.write(lambda conn, items: [joined(conn, rich, 1)], None)
    stage.house.snapshot = build(rich, rows.tokens, rows.channel_ids)
    results = await asyncio.gather(*[stage.ask() for _ in range(500)])
    served = [sink for sink, _ in results if sink.status == 200]
    assert len(served) == 50
    assert {sink.status for sink, _ in results} == {200, 403}
    assert await stage.balance() == 0


VECTORS = {"object": "list", "model": "up", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}]}


async def test_another_kind_goes_the_way_of_a_chat(play: Start, lines: Any) -> None:
    """Embeddings are held for, tried again elsewhere, charged for their input alone, and logged, like any chat."""
    usage = {"prompt_tokens": 6, "total_tokens": 6}
    stage = await play(broken(500), whole(orjson.dumps(VECTORS | {"usage": usage})), channels=2, quota=UNIT)
    sink, row = await stage.ask(surface=EMBEDDINGS, input=["hello"], unknown={"kept": True})
    assert (sink.status, orjson.loads(sink.body)) == (200, VECTORS | {"usage": usage})
    assert (row["state"], row["charged"]) == ("settled", 6)
    assert await stage.balance() == UNIT - 6
    sent = orjson.loads(stage.client.opened[1].sent.body)
    assert (sent["input"], sent["unknown"]) == (["hello"], {"kept": True})
    assert stage.client.opened[1].sent.url == "http://up/v1/embeddings"
    (line,) = [one for one in lines() if one["event"] == "request"]
    assert (line["quota"], line["usage"]["input"], len(line["attempts"])) == (6, 6, 2)


class Selling:
    """A surface whose requests ask for so many pieces."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(EMBEDDINGS, name)

    def read(self, body: bytes, headers: dict[str, str]) -> Ask:
        return msgspec.structs.replace(EMBEDDINGS.read(body, headers), pieces=self._pieces)


async def test_what_is_sold_by_the_piece_is_held_and_charged_so(play: Start) -> None:
    """A price by the piece is enough for who sells such pieces; for a chat, or other pieces, it is none."""
    answer = orjson.dumps(VECTORS | {"usage": {"prompt_tokens": 6, "total_tokens": 6}})
    stage = await play(whole(answer), price=Price(characters=15))
    _, row = await stage.ask(surface=Selling(Pieces(characters=1000)), input="hello")
    assert (row["state"], row["held"], row["charged"]) == ("settled", 7500, 7500)
    for surface, body in ((CHAT, {}), (Selling(Pieces(pictures=1)), {"input": "hello"})):
        sink, row = await stage.ask(surface=surface, **body)
        assert (sink.status, orjson.loads(sink.body)["error"]["code"]) == (400, "model_price_missing")
        assert row == {}


async def test_another_kind_is_counted_here_where_upstream_is_silent(play: Start) -> None:
    """An answer without usage is counted, charged and told with what was charged."""
    stage = await play(whole(orjson.dumps(VECTORS)))
    sink, row = await stage.ask(surface=EMBEDDINGS, input=["hello", [1, 2, 3]])
    assert orjson.loads(sink.body)["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert row["charged"] == 4


async def test_a_chat_is_counted_as_it_was_sent(play: Start) -> None:
    """What the channel says in front is in the count, as it would be in upstream's."""
    body = {name: value for name, value in orjson.loads(WHOLE).items() if name != "usage"}
    charged = []
    for more in ({}, {"system_prompt": "one two three four five"}):
        stage = await play(whole(orjson.dumps(body)), channel=more)
        _, row = await stage.ask()
        charged.append(row["charged"])
    assert charged[1] == charged[0] + 5 + 4  # the words and a message around them


async def test_a_kind_that_no_channel_has(play: Start) -> None:
    """Nothing is sent, nothing held; the client learns that the model has no such endpoint."""
    stage = await play()
    snapshot = stage.house.snapshot
    (channel,) = snapshot.channels
    adapter = msgspec.structs.replace(channel.adapter, embeddings=None)
    channels = (msgspec.structs.replace(channel, adapter=adapter),)
    stage.house.snapshot = Snapshot(snapshot.config, channels, snapshot.tokens, snapshot.prices)
    sink, row = await stage.ask(surface=EMBEDDINGS, input="hello")
    assert (sink.status, orjson.loads(sink.body)["error"]["code"]) == (400, "unsupported_endpoint")
    assert row == {}


ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "their-choice",
    "status": "completed",
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
}
TOLD = tuple(
    b"data: " + orjson.dumps({"type": f"response.{kind}", "response": {**ANSWER, **still}}) + b"\n\n"
    for kind, still in (("created", {"usage": None, "output": []}), ("completed", {}))
)


async def unnamed(stage: Play, **changes: Any) -> tuple[ListSink, dict[str, Any]]:
    """A Responses request by a stored prompt, which names no model."""
    return await stage.ask(surface=RESPONSES, model=None, **{"prompt": {"id": "pmpt_1"}, **changes})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("theirs", "charged"), [(3, 30 + 30), (0.5, 10 + 10), (None, 10 + 10)])
async def test_a_response_that_names_no_model(
    play: Start, theirs: float | None, charged: int, stream: bool, lines: Any
) -> None:
    """Upstream gets the request as it came; the charge is that of the dearer of the configured model and upstream's."""
    prices = {} if theirs is None else {"their-choice": Price(input=theirs * 2, output=theirs * 4)}
    script = Script(*TOLD) if stream else whole(orjson.dumps(ANSWER))
    stage = await play(script, prices=prices, responses_model="m", channel={"model_mapping": {"m": "up"}})
    sink, row = await unnamed(stage, stream=stream, temperature=0.5)
    assert sink.status == 200
    assert b'"their-choice"' in sink.body
    sent = orjson.loads(stage.client.opened[0].sent.body)
    assert sent == {**ASK, "model": None, "prompt": {"id": "pmpt_1"}, "stream": stream, "temperature": 0.5}
    assert (row["state"], row["charged"]) == ("settled", charged)
    (line,) = [line for line in lines() if line["event"] == "request"]
    assert (line["model"], line["upstream_model"]) == ("m", "their-choice")


async def test_without_a_model_for_them_such_responses_are_refused(play: Start) -> None:
    """Nothing goes upstream, and the answer names the key that would change it."""
    stage = await play()
    sink, row = await unnamed(stage)
    assert (sink.status, row, stage.client.opened) == (400, {}, [])
    assert b"relay.responses_model" in sink.body


async def test_a_provider_of_another_format_is_asked_for_the_configured_model(play: Start) -> None:
    """It has to be told some model, and serves no request that rests on what only OpenAI knows."""
    stage = await play(whole(), responses_model="m", channel={"options": {"responses": False}})
    sink, row = await unnamed(stage, prompt=None, input="hi")
    assert sink.status == 200
    assert orjson.loads(stage.client.opened[0].sent.body)["model"] == "m"
    assert row["charged"] == 20
    sink, _ = await unnamed(stage)
    assert (sink.status, b"nothing like prompt" in sink.body) == (400, True)
    sink, _ = await unnamed(stage, prompt=None)
    assert (sink.status, b"input is required" in sink.body) == (400, True)
    assert len(stage.client.opened) == 1


async def test_a_bug_inside_a_stream_is_told_in_it(play: Start) -> None:
    """The client gets an error of its dialect and no terminator, the money is given back, the bug goes on its way."""
    stage = await play(Script(START, chunk(content="Hel"), KeyError("the prompt")), quota=UNIT)
    sink = ListSink()
    with pytest.raises(KeyError):
        await stage.ask(sink, stream=True)
    assert sink.ended
    assert orjson.loads(sink.body.rsplit(b"data: ", 1)[1])["error"]["code"] == "internal_error"
    assert DONE not in sink.body
    assert (await stage.row("r1"))["state"] == "voided"
    assert await stage.balance() == UNIT
