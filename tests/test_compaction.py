"""Conversations shortened for their clients: what goes up, what comes back, what it costs, and who cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
import orjson
import pytest
from openai.types.responses import CompactedResponse

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.billing import count
from newapi_proxy.billing.charge import GUESS, hold_tokens
from newapi_proxy.config.model import Channel, Override, Price, Relay
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.compaction import COMPACTION
from newapi_proxy.surfaces.responses import RESPONSES
from tests.fakes.ports import ListSink, Script
from tests.fakes.stage import JSON, Stage, stage

Node = dict[str, Any]

SEALED: Final = "gAAAAAB" + "x" * 2793  # 2800 characters: about 188 tokens of a summary
OUTPUT: Final = [
    {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "What is 7 times 6?"}],
    },
    {"id": "cmp_1", "type": "compaction", "encrypted_content": SEALED},
]
USAGE: Final = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 10},
    "total_tokens": 130,
}
ANSWER: Final[Node] = {
    "id": "resp_1",
    "object": "response.compaction",
    "created_at": 1790000000,
    "output": OUTPUT,
    "usage": USAGE,
}
ASKED: Final[Node] = {  # as Codex asks
    "model": "asked",
    "instructions": "Keep what matters.",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is 7 times 6?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "42."}]},
        {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "done"},
    ],
    "tools": [{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": False}],
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "text": {"verbosity": "low"},
    "prompt_cache_key": "thread-1",
    "service_tier": "priority",
    "of_tomorrow": {"deep": [1]},
}


def channel(type: str = "openai", name: str = "c", **more: Any) -> Channel:
    """A channel of the type, where the model has another name."""
    more = {"base_url": "https://h.example", "model_mapping": {"asked": "gpt-5"}, **more}
    return Channel(name=name, type=type, key=Secret("k"), models=("asked",), **more)


def says(body: Any, status: int = 200) -> Script:
    """An upstream's answer."""
    return Script(orjson.dumps(body), status=status, headers=JSON)


@asynccontextmanager
async def staged(
    folder: Path, *scripts: Script, channels: tuple[Channel, ...] = (), **more: Any
) -> AsyncIterator[Stage]:
    """A stage with one channel of OpenAI's, or with these; a token of prompt costs one unit, of output two."""
    more = {"prices": {"asked": Price(input=2, output=4)}, **more}
    async with stage(folder, channels or (channel(),), *scripts, **more) as made:
        yield made


async def row(made: Stage) -> Node:
    """The ledger's row of the one request; {} where there is none."""
    await made.house.db.write(lambda conn, items: [None], None)
    sql = "SELECT state, held, charged FROM ledger"
    found = await made.house.db.read(lambda conn: conn.exec_driver_sql(sql).mappings().fetchall())
    return dict(found[0]) if found else {}


def went(made: Stage) -> Outgoing:
    """The one request that went out."""
    (script,) = made.client.opened
    assert script.sent is not None
    return script.sent


def error(sink: ListSink) -> Node:
    """What the client is told."""
    told: Node = orjson.loads(sink.body)["error"]
    return told


async def test_it_passes_both_ways(tmp_path: Path) -> None:
    """Upstream gets the client's body under its own name of the model, the client upstream's answer to the byte."""
    async with staged(tmp_path, says(ANSWER)) as made:
        sink = await made.ask(SURFACES["/v1/responses/compact"], **ASKED)
        assert (sink.status, sink.body) == (200, orjson.dumps(ANSWER))
        assert made.sent == [{**ASKED, "model": "gpt-5"}]
        sent = went(made)
        assert (sent.url, sent.headers["accept"]) == ("https://h.example/v1/responses/compact", "application/json")


async def test_it_is_held_and_charged_like_a_chat(tmp_path: Path) -> None:
    """The hold has room for a summary that nobody limited; the charge is that of the usage which the answer tells."""
    async with staged(tmp_path, says(ANSWER)) as made:
        await made.ask(COMPACTION, **ASKED)
        told = await row(made)
        assert told["state"] == "settled"
        assert told["held"] > GUESS * 2
        assert told["charged"] == 100 + 30 * 2  # the price has no other one for cached input


async def test_the_operator_has_the_last_word(tmp_path: Path) -> None:
    """A channel's overrides reach these bodies as they do others."""
    one = channel(override=Override(remove=("service_tier",), set={"prompt_cache_key": "ours"}))
    async with staged(tmp_path, says(ANSWER), channels=(one,)) as made:
        await made.ask(COMPACTION, **ASKED)
        (sent,) = made.sent
        assert ("service_tier" in sent, sent["prompt_cache_key"]) == (False, "ours")


def test_a_ceiling_of_tokens_reserves_the_summary_too() -> None:
    """What a token's minute must have room for is the history and what becomes of it."""
    least, most = hold_tokens(COMPACTION.read(orjson.dumps(ASKED), {}))
    assert (least > 100, most - least) == (True, GUESS)


@pytest.mark.parametrize(
    ("type", "options", "url"),
    [
        ("azure", {}, "https://h.example/openai/v1/responses/compact"),
        ("azure", {"api_version": "2024-10-21"}, "https://h.example/openai/v1/responses/compact"),
        ("xai", {}, "https://h.example/v1/responses/compact"),
    ],
)
async def test_who_else_has_it(tmp_path: Path, type: str, options: Node, url: str) -> None:
    """Azure has it beside its Responses, whatever version its deployments are asked in; xAI as OpenAI has."""
    one = channel(type, options=options)
    async with staged(tmp_path, says(ANSWER), channels=(one,)) as made:
        sink = await made.ask(COMPACTION, model="asked", input="Hi")
        assert (sink.status, went(made).url) == (200, url)


@pytest.mark.parametrize(
    "one",
    [
        channel("anthropic"),
        channel("openrouter"),
        channel("deepseek"),
        channel("openai", options={"responses": False}),
        channel("openai", model_mapping={"asked": "gpt-4o-search-preview"}),
    ],
    ids=["anthropic", "openrouter", "deepseek", "no responses", "chat only"],
)
async def test_who_cannot(tmp_path: Path, one: Channel) -> None:
    """Where no channel of the model has it, the client is told so at once; nothing is sent or held."""
    async with staged(tmp_path, channels=(one,)) as made:
        sink = await made.ask(COMPACTION, **ASKED)
        assert (sink.status, error(sink)["code"], error(sink)["param"]) == (400, "unsupported_endpoint", "model")
        assert (made.client.opened, await row(made)) == ([], {})


async def test_it_finds_the_channel_that_can(tmp_path: Path) -> None:
    """A channel of another format is left out of the plan, wherever it stands."""
    channels = (channel("anthropic", "a", priority=9), channel(name="o"))
    async with staged(tmp_path, says(ANSWER), channels=channels) as made:
        assert (await made.ask(COMPACTION, **ASKED)).status == 200
        assert went(made).url.startswith("https://h.example/v1/responses")


@pytest.mark.parametrize("said", [None, False])
async def test_it_is_never_streamed(tmp_path: Path, said: bool | None) -> None:
    """A stream is refused before anything goes out; upstream is not told that none is wanted, which it would refuse."""
    async with staged(tmp_path, says(ANSWER)) as made:
        sink = await made.ask(COMPACTION, **ASKED, stream=True)
        assert (sink.status, error(sink)["code"], error(sink)["param"]) == (400, "unsupported_parameter", "stream")
        assert (made.client.opened, await row(made)) == ([], {})
        sink = await made.ask(COMPACTION, **ASKED, stream=said)
        assert (sink.status, made.sent) == (200, [{**ASKED, "model": "gpt-5"}])


async def test_an_error_of_upstream(tmp_path: Path) -> None:
    """The client gets upstream's words and status, and pays nothing."""
    words = {"error": {"message": "Too long.", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    async with staged(tmp_path, says(words, 400)) as made:
        sink = await made.ask(COMPACTION, **ASKED)
        assert (sink.status, error(sink)["code"]) == (400, "context_length_exceeded")
        told = await row(made)
        assert (told["state"], told["charged"]) == ("voided", 0)


@pytest.mark.parametrize("body", [{"object": "response.compaction"}, {"error": {"message": "No."}}, [], "x"])
async def test_a_200_that_is_no_compaction(tmp_path: Path, body: Any) -> None:
    """Is a failure like any other: the next channel is asked, and it costs nothing."""
    channels = (channel(name="a", priority=9), channel(name="b"))
    async with staged(tmp_path, says(body), says(ANSWER), channels=channels) as made:
        sink = await made.ask(COMPACTION, **ASKED)
        assert (sink.status, sink.body, len(made.client.opened)) == (200, orjson.dumps(ANSWER), 2)
        assert (await row(made))["charged"] == 160


async def test_an_untold_usage_is_counted(tmp_path: Path) -> None:
    """The prompt by its text, the summary by the size of what was sealed; the client gets what SDKs insist on."""
    async with staged(tmp_path, says({"output": OUTPUT})) as made:
        sink = await made.ask(COMPACTION, **ASKED)
        told = orjson.loads(sink.body)
        usage = told["usage"]
        assert (told["object"], told["output"]) == ("response.compaction", OUTPUT)
        assert (40 < usage["input_tokens"] < 240, usage["output_tokens"]) == (True, 188)
        assert (await row(made))["charged"] == usage["input_tokens"] + 188 * 2
        sealed = {**told, "output": OUTPUT[1:]}  # the SDK's type knows no words of the user's there, upstream does
        assert CompactedResponse.model_validate(sealed, strict=True).id.startswith("resp_")


def test_the_prompt_is_counted_with_what_upstream_says_in_front() -> None:
    """OpenAI counts for a history that it shortens what it would for the same as a prompt, and 93 more: as recorded."""
    body = orjson.dumps({**ASKED, "model": "gpt-4o-mini"})
    assert count.prompt(COMPACTION.read(body, {})) == count.prompt(RESPONSES.read(body, {})) + 93


async def test_without_a_model(tmp_path: Path) -> None:
    """Refused, unless `relay.responses_model` names one: then routed and charged so, while upstream is told none."""
    body = {**ASKED, "model": None, "previous_response_id": "resp_0"}
    async with staged(tmp_path) as made:
        sink = await made.ask(COMPACTION, **body)
        assert (sink.status, error(sink)["param"], await row(made)) == (400, "model", {})
    (tmp_path / "set").mkdir()
    one, relay = channel(model_mapping={}), Relay(responses_model="asked")
    async with staged(tmp_path / "set", says(ANSWER), channels=(one,), relay=relay) as made:
        assert (await made.ask(COMPACTION, **body)).status == 200
        assert (made.sent, (await row(made))["charged"]) == ([body], 160)


async def test_what_others_have_sealed_stays_here(tmp_path: Path) -> None:
    """A history that another provider's model thought in loses those thoughts, as on the way to an answer."""
    thought = {"type": "reasoning", "id": "rs_local_1", "summary": [], "encrypted_content": "anthropic-claude-v1.s.abc"}
    sealed = {"type": "compaction", "encrypted_content": SEALED}
    async with staged(tmp_path, says(ANSWER)) as made:
        await made.ask(COMPACTION, model="asked", input=[sealed, thought, *ASKED["input"]])
        assert made.sent[0]["input"] == [sealed, *ASKED["input"]]


async def test_openais_sdk_reads_it(tmp_path: Path) -> None:
    """`responses.compact` of the official SDK asks at this path and reads what comes back."""
    async with staged(tmp_path, says({"output": OUTPUT, "usage": USAGE})) as made:

        async def carry(request: httpx2.Request) -> httpx2.Response:
            surface = SURFACES[request.url.path]
            sink = await made.ask(surface, **orjson.loads(request.content))
            return httpx2.Response(sink.status, headers=JSON, content=sink.body)

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(carry))
        async with openai.AsyncOpenAI(base_url="http://here/v1", api_key="sk-t", http_client=http) as client:
            done = await client.responses.compact(model="asked", input="Hi", instructions="Be brief.")
        assert (done.object, done.usage.total_tokens) == ("response.compaction", 130)
        assert done.output[-1].type == "compaction"
        assert made.sent == [{"model": "gpt-5", "input": "Hi", "instructions": "Be brief."}]
