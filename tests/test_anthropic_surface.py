"""The Anthropic surface: reading requests, writing answers and errors, passing streams of the same format."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.errors import ClientError, OurError, ProxyError, UpstreamFailure
from newapi_proxy.ir.ask import Choice, Format, Media, Reasoning, ServerBlock, Text, Thinking, ToolCall, ToolResult
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.anthropic import COUNT, MESSAGES
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document
from tests.fakes import anthropic as fake

FACE = Face(model="asked", id="20260101-abc", created=7, usage=Usage(prompt=5, source="counted"))
USAGE = Usage(prompt=100, completion=20, cache_read=60, cache_write=10, cache_write_1h=5, reasoning=4)
PLAIN = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
ASK = MESSAGES.read(json.dumps(PLAIN).encode(), {})


def read(**more: Any) -> Any:
    return MESSAGES.read(json.dumps({**PLAIN, **more}).encode(), {})


def parts(*blocks: Any, role: str = "user") -> Any:
    return read(messages=[{"role": role, "content": list(blocks)}]).turns[0].parts


def written(*events: Event, usage: Usage = USAGE) -> fake.Received:
    writer = MESSAGES.writer(ASK, FACE)
    return fake.Received(b"".join(writer.feed(event) for event in events) + writer.close(usage))


def whole(*events: Event) -> Any:
    return json.loads(MESSAGES.answer(ASK, FACE, events, USAGE))


def passed(raw: bytes, face: Face = FACE) -> bytes:
    passer = MESSAGES.passer(ASK, face)
    decoder = sse.Decoder()
    frames = decoder.feed(raw) + decoder.close()
    return b"".join(passer.frame(frame, []) for frame in frames) + passer.close(USAGE)


def test_routes_have_their_surfaces() -> None:
    """Both Anthropic routes and the chat route are mounted."""
    assert SURFACES["/v1/messages"] is MESSAGES
    assert SURFACES["/v1/messages/count_tokens"] is COUNT
    assert "/v1/chat/completions" in SURFACES


def test_reads_every_block_of_a_user() -> None:
    """Texts, images and documents from every source become parts that know their place."""
    found = parts(
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
        {"type": "image", "source": {"type": "url", "url": "https://e.example/i.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}, "title": "T"},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]}},
        {"type": "document", "source": {"type": "content", "content": "bare"}},
        {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "c"}]},
        {"type": "container_upload", "file_id": "file_2"},
    )
    assert [type(part) for part in found] == [Text, Media, Media, Media, Media, Text, Text, Text, ServerBlock]
    assert found[0].cache is not None
    assert found[0].cache.ttl == "1h"
    assert (found[1].media_type, found[1].data) == ("image/png", "AA")
    assert (found[2].url, found[3].file_id) == ("https://e.example/i.png", "file_1")
    assert (found[4].text, found[4].filename) == ("t", "T")
    assert (found[5].text, found[6].text, found[7].text) == ("inner", "bare", "t\ns\nc")
    assert [part.path for part in found[:2]] == ["messages.0.content.0", "messages.0.content.1"]


def test_reads_thinking_and_calls() -> None:
    """Signed thinking is Anthropic's own, a labelled signature is its provider's, an unsigned block is nobody's."""
    found = parts(
        {"type": "thinking", "thinking": "t", "signature": "sig=="},
        {"type": "thinking", "thinking": "t", "signature": "google-gemini-v1.abc"},
        {"type": "thinking", "thinking": "t", "signature": ""},
        {"type": "redacted_thinking", "data": "DD"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"é": 1}},
        role="assistant",
    )
    assert found[:4] == (
        Reasoning(text="t", signature="sig==", format="anthropic-claude-v1"),
        Reasoning(text="t", signature="abc", format="google-gemini-v1"),
        Reasoning(text="t"),
        Reasoning(data="DD", format="anthropic-claude-v1"),
    )
    assert found[4] == ToolCall(id="toolu_1", name="f", arguments='{"é":1}', path="messages.0.content.4")


def test_a_calls_signature_survives_a_client_that_knows_nothing_of_it() -> None:
    """A signature on a call goes out as an empty thinking block and comes back as the call's own."""
    started = CallStarted(0, "c1", "f", signature="SIG")
    answer = written(Started("x"), started, CallDelta(0, "{}"), Finished("tool_calls"))
    assert [block["type"] for block in answer.blocks] == ["thinking", "tool_use"]
    (part,) = parts(*answer.blocks, role="assistant")
    assert (part.signature, part.id) == ("SIG", "c1")


def test_reads_tool_results() -> None:
    """A result's string stays plain, its blocks become parts, a reference to a tool its name."""
    found = parts(
        {"type": "tool_result", "tool_use_id": "a", "content": "ok", "is_error": True},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
                {"type": "tool_reference", "tool_name": "later"},
                {"type": "never_heard_of"},
            ],
        },
        {"type": "tool_result", "tool_use_id": "c"},
    )
    assert (found[0].plain, found[0].is_error, found[0].parts[0].text) == (True, True, "ok")
    assert [type(part) for part in found[1].parts] == [Text, Media, Text]
    assert found[2] == ToolResult(id="c", path="messages.0.content.2")


def test_reads_system_everywhere() -> None:
    """The top-level system leads, one in the conversation keeps its place."""
    system = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": "x"}, {"role": "system", "content": "later"}]
    ask = read(system=system, messages=messages)
    assert [turn.role for turn in ask.turns] == ["system", "user", "system"]
    assert [part.text for part in ask.turns[0].parts] == ["a", "b"]
    assert (ask.leading(), ask.turns[0].path, ask.turns[1].path) == (1, "system", "messages.0")
    assert read(system="s").turns[0].plain


def test_reads_controls() -> None:
    """Every control has its field; what only steers and what is unknown keeps its name."""
    ask = read(
        temperature=0.5,
        top_p=1,
        top_k=4,
        stop_sequences=["x"],
        stream=True,
        thinking={"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
        metadata={"user_id": "u"},
        service_tier="standard_only",
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        container="c",
        made_up=1,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    controls = ask.controls
    assert (controls.temperature, controls.top_p, controls.top_k, controls.stop) == (0.5, 1, 4, ("x",))
    assert controls.thinking == Thinking(effort="high", budget=2000, display="omitted")
    assert controls.format == Format(kind="json_schema", schema={"type": "object"}, strict=True)
    assert (controls.user, controls.service_tier, controls.parallel_tools) == ("u", "default", False)
    assert (ask.choice, ask.stream, ask.unknown) == (Choice(mode="required"), True, ("made_up",))
    assert controls.steering == {"container": "c"}


def test_reads_tools() -> None:
    """Functions are tools for everyone; server tools and MCP servers are Anthropic's, verbatim."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    ask = read(
        tools=[{"name": "f", "input_schema": {"type": "object"}, "strict": True}, search],
        mcp_servers=[{"type": "url", "url": "https://m.example", "name": "m"}],
        tool_choice={"type": "tool", "name": "f"},
    )
    assert [(tool.kind, tool.name, tool.path) for tool in ask.tools] == [
        ("function", "f", "tools.0"),
        ("server", "web_search_20250305", "tools.1"),
        ("server", "mcp_servers", "mcp_servers.0"),
    ]
    assert ask.tools[1].server == search
    assert ask.choice == Choice(mode="named", name="f")


def test_keeps_the_callers_dialect_headers() -> None:
    """T-ANTH-081: anthropic-beta and anthropic-version travel with the ask, nothing else does."""
    headers = {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01", "x-api-key": "k"}
    ask = MESSAGES.read(json.dumps(PLAIN).encode(), headers)
    assert ask.headers == {"anthropic-beta": "a,b", "anthropic-version": "2023-06-01"}


def test_counting_needs_no_max_tokens() -> None:
    """T-ANTH-046: max_tokens is required, but for counting."""
    body = json.dumps({"model": "m", "messages": PLAIN["messages"]}).encode()
    assert COUNT.read(body, {}).count_only
    with pytest.raises(ClientError, match="max_tokens: Field required") as caught:
        MESSAGES.read(body, {})
    assert (caught.value.param, caught.value.status) == ("max_tokens", 400)
    assert COUNT.count(12) == b'{"input_tokens":12}'


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["x"]}, "messages.0"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"thinking": {"type": "much"}}, "thinking.type"),
        ({"stop_sequences": [1]}, "stop_sequences.0"),
        ({"system": 4}, "system"),
        ({"metadata": {"user_id": 4}}, "metadata.user_id"),
    ],
)
def test_faults_name_their_place(change: dict[str, Any], path: str) -> None:
    """A wrong type anywhere is a 400 whose message begins with the path."""
    with pytest.raises(ClientError) as caught:
        read(**change)
    error = caught.value
    assert (error.param, error.status, error.kind) == (path, 400, "bad_request")
    assert error.message.startswith(f"{path}: ")


_NAMES = ("type", "text", "content", "source", "id", "name", "input", "role", "data", "thinking", "url")
_KINDS = ("text", "image", "document", "tool_use", "tool_result", "thinking", "content", "user")
_CONTROLS = ("system", "tools", "tool_choice", "thinking", "metadata", "output_config", "mcp_servers", "messages")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner | st.sampled_from(_KINDS),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(_CONTROLS),
        _JSON,
        max_size=4,
    ),
    st.lists(_JSON, max_size=2),
)
@settings(max_examples=200)
def test_garbage_is_an_ask_or_a_declared_error(more: dict[str, Any], blocks: list[Any]) -> None:
    """Any JSON body is read or refused with a ClientError."""
    body = {**PLAIN, "messages": [{"role": "assistant", "content": blocks}], **more}
    with suppress(ClientError):
        assert MESSAGES.read(json.dumps(body).encode(), {}).turns


def test_writes_a_stream_of_text() -> None:
    """T-ANTH-064: text is one block between start and stop; usage is an estimate first and whole at the end."""
    got = written(Started("gen-1"), TextDelta(""), TextDelta("He"), TextDelta("llo ✓"), Finished("stop"))
    assert got.message["id"] == "msg_20260101abc"
    assert (got.message["model"], got.message["usage"]["input_tokens"]) == ("asked", 5)
    assert got.blocks == [{"type": "text", "text": "Hello ✓"}]
    assert got.stop == {"stop_reason": "end_turn", "stop_sequence": None}
    assert got.usage == {
        "input_tokens": 25,
        "cache_creation_input_tokens": 15,
        "cache_read_input_tokens": 60,
        "output_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 5},
        "output_tokens_details": {"thinking_tokens": 4},
    }


def test_keeps_an_anthropic_id() -> None:
    """An upstream's own message id is the client's."""
    assert written(Started("msg_9"), TextDelta("x")).message["id"] == "msg_9"


def test_writes_thinking_text_and_calls_in_order() -> None:
    """T-ANTH-067, T-ANTH-068: blocks follow each other, the signature last in its own, redacted ones whole."""
    got = written(
        ReasoningDelta("hm", 0, 0),
        ReasoningSealed("S", format="anthropic-claude-v1", block=0),
        ReasoningSealed(data="DD", format="anthropic-claude-v1", block=1),
        ReasoningSealed("only", format="anthropic-claude-v1", block=2),
        TextDelta("a", 0, 3),
        TextDelta("b", 0, 4),
        CallStarted(0, "c", "f", 0, 5),
        Block({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}}, "anthropic", 0, 6),
        Block({"type": "foreign"}, "other"),
        Finished("tool_calls"),
    )
    assert [block["type"] for block in got.blocks] == [
        "thinking",
        "redacted_thinking",
        "thinking",
        "text",
        "text",
        "tool_use",
        "server_tool_use",
    ]
    assert (got.blocks[0]["signature"], got.blocks[1]["data"], got.blocks[2]["signature"]) == ("S", "DD", "only")
    assert got.stop["stop_reason"] == "tool_use"


def test_foreign_signatures_carry_their_label() -> None:
    """A signature of another provider comes back with the provider's name, so that nobody else is sent it."""
    got = written(ReasoningDelta("t"), ReasoningSealed("abc", format="google-gemini-v1"), Finished("stop"))
    assert got.blocks[0]["signature"] == "google-gemini-v1.abc"
    (part,) = parts(*got.blocks, role="assistant")
    assert part == Reasoning(text="t", signature="abc", format="google-gemini-v1")


def test_parallel_calls_never_interleave() -> None:
    """Fragments of calls that upstream mixes are held back until the block before them is complete."""
    events: list[Event] = [CallStarted(0, "a", "f"), CallStarted(1, "b", "g")]
    for left, right in zip('{"x": 1}', '{"y":22}', strict=True):
        events += [CallDelta(0, left), CallDelta(1, right)]
    got = written(*events, TextDelta("after"), Finished("tool_calls"))
    assert [block.get("input") for block in got.blocks] == [{"x": 1}, {"y": 22}, None]
    assert [block["type"] for block in got.blocks] == ["tool_use", "tool_use", "text"]


def test_a_complete_call_gives_way_at_once() -> None:
    """A call whose arguments are complete is closed when the next begins: nothing waits for the end."""
    writer = MESSAGES.writer(ASK, FACE)
    for event in (CallStarted(0, "a", "f"), CallDelta(0, '{"x":'), CallDelta(0, "1}")):
        writer.feed(event)
    assert b'"content_block_start","index":1' in writer.feed(CallStarted(1, "b", "g"))
    assert b'"partial_json":"{"' in writer.feed(CallDelta(1, "{"))


@pytest.mark.parametrize("text", ["[1]", '"x"', "null", "{broken"])
def test_arguments_that_are_no_object_are_wrapped_or_left_as_they_came(text: str) -> None:
    """Whole, arguments that are no object stand in __raw_arguments__; streamed, those that cannot become one do."""
    events = (CallStarted(0, "a", "f"), CallDelta(0, text), Finished("tool_calls"))
    assert whole(*events)["content"][0]["input"] == {"__raw_arguments__": text}
    if text[0] != "{":
        assert written(*events).blocks[0]["input"] == {"__raw_arguments__": text}


@pytest.mark.parametrize(
    ("finished", "reason"),
    [
        (Finished("stop"), "end_turn"),
        (Finished("length"), "max_tokens"),
        (Finished("context_overflow"), "model_context_window_exceeded"),
        (Finished("tool_calls"), "tool_use"),
        (Finished("content_filter"), "refusal"),
        (Finished("refusal"), "refusal"),
        (Finished("pause"), "pause_turn"),
        (Finished("error"), "end_turn"),
        (Finished("stop", stop_sequence="END"), "stop_sequence"),
    ],
)
def test_stop_reasons(finished: Finished, reason: str) -> None:
    """T-ANTH-059: every finish has its word, streamed and whole."""
    assert written(TextDelta("x"), finished).stop["stop_reason"] == reason
    answer = whole(TextDelta("x"), finished)
    assert answer["stop_reason"] == reason
    assert answer["stop_sequence"] == finished.stop_sequence


def test_a_missing_finish_follows_from_the_content() -> None:
    """T-CORE-035, T-CORE-036: without a finish it is end_turn, or tool_use after a call; the first of two counts."""
    assert written(TextDelta("x")).stop["stop_reason"] == "end_turn"
    assert written(CallStarted(0, "a", "f")).stop["stop_reason"] == "tool_use"
    assert written(CallStarted(0, "a", "f"), Finished("stop")).stop["stop_reason"] == "tool_use"
    assert written(TextDelta("x"), Finished("length"), Finished("stop")).stop["stop_reason"] == "max_tokens"


def test_refusals_are_told() -> None:
    """T-ANTH-060: words of refusal are no text: they are the explanation of stop_details, whatever the finish."""
    for finish, reason in (("stop", "end_turn"), ("content_filter", "refusal")):
        events = (RefusalDelta("N"), RefusalDelta("o."), Finished(finish))  # type: ignore[arg-type]
        told = {"type": "refusal", "category": None, "explanation": "No."}
        got = written(*events)
        assert (got.blocks, got.stop["stop_reason"], got.stop["stop_details"]) == ([], reason, told)
        kept = whole(*events)
        assert (kept["content"], kept["stop_reason"], kept["stop_details"]) == ([], reason, told)
    details = written(Finished("refusal", detail="why")).stop["stop_details"]
    assert details == {"type": "refusal", "category": None, "explanation": "why"}


def test_citations_stand_at_their_text() -> None:
    """T-ANTH-062, T-ANTH-063: own citations are verbatim, web ones get this format's shape, strangers are left out."""
    own = {"type": "char_location", "cited_text": "c"}
    web = Cited({"url": "https://e.example", "title": "T", "start": 0, "end": 1}, "web")
    events = (Cited(own, "anthropic"), TextDelta("x"), web, Cited({}, "other"), Finished("stop"))
    for block in (written(*events).blocks[0], whole(*events)["content"][0]):
        assert block["citations"][0] == own
        assert block["citations"][1]["type"] == "web_search_result_location"
        assert len(block["citations"]) == 2


def test_only_the_first_choice_is_told() -> None:
    """Other choices, usage and skipped frames leave no trace."""
    got = written(TextDelta("a"), TextDelta("b", 1), Skipped("x"), Failed(UpstreamFailure("x")), Finished("stop"))
    assert got.blocks == [{"type": "text", "text": "a"}]


_EVENTS = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=3), st.just(0), st.integers(0, 2)),
        st.builds(ReasoningDelta, st.text(max_size=3), st.just(0), st.integers(0, 2)),
        st.builds(ReasoningSealed, signature=st.sampled_from([None, "s"]), data=st.sampled_from([None, "d"])),
        st.builds(RefusalDelta, st.text(max_size=2)),
        st.builds(CallStarted, st.integers(0, 3), st.just("i"), st.just("n")),
        st.builds(CallDelta, st.integers(0, 3), st.sampled_from(["{", "}", '"a":1', " ", "", "[", "{}"])),
        st.builds(Cited, st.just({"type": "char_location"}), st.just("anthropic"), st.just(0), st.integers(0, 2)),
        st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls", "refusal"])),
    ),
    max_size=20,
)


@given(_EVENTS)
@settings(max_examples=200)
def test_any_order_of_events_keeps_the_grammar(events: list[Event]) -> None:
    """Whatever a reader says, the stream's grammar holds, and all text arrives."""
    writer = MESSAGES.writer(ASK, FACE)
    raw = b"".join(writer.feed(event) for event in events) + writer.close(USAGE)
    types = [json.loads(frame.data or b"")["type"] for frame in sse.Decoder().feed(raw)]
    assert types[0] == "message_start"
    assert types[-2:] == ["message_delta", "message_stop"]
    assert raw.count(b"event: content_block_start") == raw.count(b"event: content_block_stop")
    deltas = [json.loads(frame.data or b"").get("delta", {}) for frame in sse.Decoder().feed(raw)]
    for name, kind in (("text", TextDelta), ("explanation", RefusalDelta)):
        said = [(delta.get("stop_details") or delta).get(name, "") for delta in deltas]
        assert "".join(said) == "".join(event.text for event in events if isinstance(event, kind))
    MESSAGES.answer(ASK, FACE, events, USAGE)


def test_errors_speak_this_format() -> None:
    """A.0.5: each kind has its type; the request id is in the message and beside it."""
    error = ClientError("no", status=403, kind="quota")
    body = json.loads(MESSAGES.failure(error, "r1"))
    assert body == {
        "type": "error",
        "error": {"type": "permission_error", "message": "no (request id: r1)"},
        "request_id": "r1",
    }
    kinds = {
        "bad_request": "invalid_request_error",
        "too_large": "request_too_large",
        "unauthorized": "authentication_error",
        "permission": "permission_error",
        "not_found": "not_found_error",
        "rate_limit": "rate_limit_error",
        "content_policy": "invalid_request_error",
        "upstream_auth": "api_error",
        "timeout": "timeout_error",
        "overloaded": "overloaded_error",
        "upstream": "api_error",
        "internal": "api_error",
    }
    for kind, type_ in kinds.items():
        made = ProxyError("x", status=500, kind=kind)  # type: ignore[arg-type]
        assert json.loads(MESSAGES.failure(made, "r"))["error"]["type"] == type_


def test_overloaded_is_529() -> None:
    """T-ANTH-071: an overloaded upstream is 529 here, everything else keeps its status."""
    assert MESSAGES.status(UpstreamFailure("x", status=503, kind="overloaded")) == 529
    assert MESSAGES.status(OurError("x", status=503)) == 503


def test_an_error_ends_the_stream() -> None:
    """T-ANTH-070: an error event is the last one, whatever is asked for afterwards."""
    for made in (MESSAGES.writer(ASK, FACE), MESSAGES.passer(ASK, FACE)):
        raw = made.fail(UpstreamFailure("broke"), "r1")
        assert raw.startswith(b"event: error\ndata: ")
        assert made.close(USAGE) == b""
        assert made.fail(UpstreamFailure("again"), "r1") == b""


def test_keepalive_is_a_ping() -> None:
    """The keep-alive is an event that every client of this format ignores."""
    assert MESSAGES.keepalive(ASK) == b'event: ping\ndata: {"type": "ping"}\n\n'


UPSTREAM = fake.stream([fake.text("He", "llo"), fake.call("toolu_1", "f", "", '{"a":', "1}")], stop="tool_use")


def test_same_format_streams_pass_untouched() -> None:
    """T-ANTH-064, T-ANTH-072: the client gets upstream's bytes, unknown events too."""
    odd = fake.event({"type": "brand_new", "x": 1})
    raw = UPSTREAM.replace(fake.event({"type": "ping"}), fake.event({"type": "ping"}) + odd, 1)
    assert passed(raw) == raw


def test_the_terminator_waits_for_close() -> None:
    """Decision 8: message_stop is kept back until the charge is made."""
    passer = MESSAGES.passer(ASK, FACE)
    out = b"".join(passer.frame(frame, []) for frame in sse.Decoder().feed(UPSTREAM))
    assert b"message_stop" not in out
    assert out + passer.close(USAGE) == UPSTREAM


def test_a_mapped_model_shows_the_asked_name() -> None:
    """T-CORE-006: only message_start is edited, and only its model."""
    raw = passed(UPSTREAM, Face(model="alias", id="1", created=0, rename=True))
    assert fake.Received(raw).message["model"] == "alias"
    assert b"claude-sonnet" not in raw
    assert raw.partition(b"event: ping")[2] == UPSTREAM.partition(b"event: ping")[2]


def test_a_second_start_comments_and_broken_frames_are_left_out() -> None:
    """One message_start, no comments, no frames that are no JSON, nothing behind the end."""
    start, _, rest = UPSTREAM.partition(b"event: ping")
    raw = start + start + b": hello\n\nevent: content_block_delta\ndata: {broken\n\nevent: ping" + rest
    assert passed(raw + b"data: [DONE]\n\n" + start) == UPSTREAM


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
def test_what_upstream_leaves_out_is_made_up(cut: int) -> None:
    """A stream that ends early still ends by the grammar."""
    frames = fake.stream([fake.text("He", "llo"), fake.text("you")]).split(b"\n\n")[:-1]
    got = fake.Received(passed(b"\n\n".join(frames[:-cut])))
    assert got.stop["stop_reason"]


def test_an_empty_stream_is_an_empty_message() -> None:
    """Nothing at all still makes a message."""
    assert fake.Received(passed(b"")).blocks == []


def test_nameless_events_get_their_name() -> None:
    """Clients go by `event:`; hosts that leave it out, or say something else, are mended."""
    bare = b"".join(line + b"\n" for line in UPSTREAM.split(b"\n")[:-1] if not line.startswith(b"event:"))
    assert fake.Received(passed(bare)).blocks == fake.Received(UPSTREAM).blocks
    wrong = UPSTREAM.replace(b"event: content_block_delta", b"event: message")
    assert fake.Received(passed(wrong)).blocks == fake.Received(UPSTREAM).blocks


def test_same_format_answers_pass_untouched() -> None:
    """T-ANTH-001: the body is the client's answer; only the model's name, or usage that is not there, is written."""
    body = b'{"id": "msg_1",  "model":"up","content":[],"usage":{"input_tokens":1}}'
    assert MESSAGES.same(ASK, FACE, Document(body), USAGE) is body
    renamed = json.loads(MESSAGES.same(ASK, Face(model="alias", id="1", created=0, rename=True), Document(body), USAGE))
    assert renamed == {**json.loads(body), "model": "alias"}
    without = json.loads(MESSAGES.same(ASK, FACE, Document(b'{"id":"msg_1","content":[]}'), USAGE))
    assert without["usage"]["input_tokens"] == 25
