"""The OpenAI chat dialect as providers speak it: requests, readers, failures; Azure, Mistral, Zhipu and custom URLs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS, BY_NUMBER, _failures, _tools
from newapi_proxy.adapters._openai_stream import MOST_CALLS, read_answer
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters._tools import sealed_id
from newapi_proxy.adapters.base import Outgoing, Target
from newapi_proxy.errors import ProxyError, Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import (
    Ask,
    Choice,
    Controls,
    Format,
    Media,
    Reasoning,
    ServerBlock,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from newapi_proxy.ir.events import (
    Answer,
    CallDelta,
    CallStarted,
    Cited,
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    Skipped,
    Started,
    TextDelta,
    fold,
)
from newapi_proxy.ir.thinking import Split
from newapi_proxy.ir.usage import Usage
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.tree import Document

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
NOW = 1_750_000_123
FACE = Face(model="asked", id="ours", created=1)


def target(type_: str, model: str = "m", **more: Any) -> Target:
    """A target of this type; the option struct's fields and the target's own go by name."""
    own = {name: more.pop(name) for name in ("base_url", "key", "organization", "usage_in_stream") if name in more}
    return Target(
        channel="c",
        base_url=own.get("base_url", "https://h.example"),
        key=Secret(own.get("key", "k")),
        model=model,
        options=ADAPTERS[type_].options(**more),
        organization=own.get("organization"),
        now=NOW,
        usage_in_stream=own.get("usage_in_stream", True),
    )


def ask(messages: Any = HI, model: str = "asked", **more: Any) -> Ask:
    """A chat client's ask."""
    return CHAT.read(orjson.dumps({"model": model, "messages": messages, **more}), {})


def request(type_: str, asked: Ask, to: Target | None = None) -> Outgoing:
    """What goes out."""
    return ADAPTERS[type_].chat[0].request(asked, to or target(type_))


def body(type_: str, asked: Ask, to: Target | None = None) -> dict[str, Any]:
    """The body that goes out."""
    sent = request(type_, asked, to).body
    assert isinstance(sent, dict)
    return sent


def stranger(*turns: Turn, **more: Any) -> Ask:
    """An ask of another format."""
    return Ask(dialect="other", model="asked", tree={}, size=0, turns=turns, **more)


def read(*payloads: Any, event: str = "") -> list[Event]:
    """The events of a stream of these payloads, its end included."""
    dialect = ADAPTERS["openai"].chat[0]
    decoder, reader = dialect.frames(), dialect.reader(ask())
    name = f"event: {event}\n".encode() if event else b""
    data = b"".join(
        name + b"data: " + (one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n\n" for one in payloads
    )
    frames = [*decoder.feed(data), *decoder.close()]
    return [told for one in frames for told in reader.read(one)] + list(reader.close())


def chunk(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    return {
        "id": "up",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def whole(node: Any) -> Answer:
    """A whole answer, folded."""
    return fold(ADAPTERS["openai"].chat[0].answer(ask(), Document(orjson.dumps(node))))


def failed(events: list[Event]) -> UpstreamFailure:
    """The failure among these events."""
    (found,) = [one.failure for one in events if isinstance(one, Failed)]
    return found


def test_pass_through() -> None:
    """T-OPEN-001, T-CORE-001, T-CORE-007: the body is the client's own but for the model; the ask stays untouched."""
    asked = ask(temperature=0, n=2, vendor={"deep": [1]}, metadata={"a": "b"})
    sent = request("openai", asked, target("openai", "mapped"))
    assert sent.body == {**asked.tree, "model": "mapped"}
    assert asked.tree["model"] == "asked"
    assert sent.dropped == ()
    assert sent.url == "https://h.example/v1/chat/completions"
    assert sent.headers["authorization"] == "Bearer k"


def test_usage_is_asked_for() -> None:
    """T-CORE-033, demand S8: a stream asks for usage, unless the channel says no or the switch is off."""
    asked = ask(stream=True, stream_options={"include_obfuscation": False})
    wish = body("openai", asked)["stream_options"]
    assert wish == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in body("openai", asked, target("openai", no_stream_options=True))
    assert body("openai", asked, target("openai", usage_in_stream=False))["stream_options"] == {
        "include_obfuscation": False
    }


def test_organization() -> None:
    """The channel's organisation goes into a header."""
    assert request("openai", ask(), target("openai", organization="org-1")).headers["openai-organization"] == "org-1"


@pytest.mark.parametrize(
    ("model", "fields", "sent", "dropped"),
    [
        ("o3-mini", {"max_tokens": 5}, {"max_completion_tokens": 5}, ()),  # T-OPEN-003
        ("gpt-5", {"max_tokens": 5, "temperature": 0.5}, {"max_completion_tokens": 5}, ("temperature",)),  # T-OPEN-004
        ("gpt-5", {"temperature": 1}, {"temperature": 1}, ()),
        ("gpt-5.2", {"temperature": 0.5}, {"temperature": 0.5}, ()),
        ("gpt-5.2", {"temperature": 0.5, "reasoning_effort": "low"}, {"reasoning_effort": "low"}, ("temperature",)),
        (
            "gpt-5.6",
            {"temperature": 0.5, "reasoning_effort": "none"},
            {"temperature": 0.5, "reasoning_effort": "none"},
            (),
        ),
        ("gpt-5.6", {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}, ("reasoning_effort~",)),  # T-OPEN-005
        ("gpt-5-chat-latest", {"max_tokens": 5, "top_p": 0.5}, {"max_tokens": 5, "top_p": 0.5}, ()),
        ("gpt-4o", {"max_tokens": 5, "temperature": 0.5}, {"max_tokens": 5, "temperature": 0.5}, ()),
        ("olmo-7b", {"max_tokens": 5}, {"max_tokens": 5}, ()),
    ],
)
def test_openai_models(model: str, fields: dict[str, Any], sent: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """T-OPEN-003 to T-OPEN-005: reasoning models get the names and values they take, others what the client said."""
    out = request("openai", ask(**fields), target("openai", model))
    assert out.body == {"model": model, "messages": HI, **sent}
    assert out.dropped == dropped


def test_system_on_o1_mini() -> None:
    """T-OPEN-006: a model without a system role is told as a user."""
    messages = [{"role": "system", "content": "S"}, *HI]
    assert body("openai", ask(messages), target("openai", "o1-mini"))["messages"][0]["role"] == "user"


def test_flatten_content() -> None:
    """A channel option turns lists of texts into strings, and leaves other lists alone."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    seen = [*parts, {"type": "image_url", "image_url": {"url": "https://h.example/a.png"}}]
    asked = ask([{"role": "user", "content": parts}, {"role": "user", "content": seen}])
    sent = body("openai", asked, target("openai", flatten_content=True))["messages"]
    assert [one["content"] for one in sent] == ["a\nb", seen]
    assert asked.tree["messages"][0]["content"] == parts


def test_turns_of_another_format() -> None:
    """B.11: one system message, results before the rest, media of results behind the last of them."""
    image = Media(kind="image", media_type="image/png", data="AA")
    sent = body(
        "openai",
        stranger(
            Turn(role="system", parts=(Text(text="A"), Text(text="B"))),
            Turn(role="user", parts=(Text(text="Hi"),)),
            Turn(
                role="assistant",
                parts=(
                    Reasoning(text="t", signature="s"),
                    Text(text="Let me"),
                    ToolCall(id="1", name="f", arguments='{"a":1}'),
                    ToolCall(id="2", name="f", arguments=""),
                    ServerBlock(family="other", value={}),
                ),
            ),
            Turn(role="user", parts=(ToolResult(id="1", parts=(Text(text="one"), image)),)),
            Turn(role="user", parts=(ToolResult(id="2", parts=(Text(text="two"),)), Text(text="And?"))),
        ),
    )["messages"]
    assert sent[0] == {"role": "system", "content": "A\n\nB"}
    assert sent[2] == {
        "role": "assistant",
        "content": "Let me",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ],
    }
    assert [one["role"] for one in sent[3:]] == ["tool", "tool", "user"]
    assert sent[3]["content"].startswith("one\n[image")
    assert sent[5]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "text", "text": "And?"},
    ]


@pytest.mark.parametrize(
    ("type_", "model", "signed"),
    [("openai", "gemini-3-pro", True), ("openrouter", "google/gemini-3-pro", True), ("groq", "qwen", False)],
)
def test_a_call_with_a_signature(type_: str, model: str, signed: bool) -> None:
    """Gemini behind a server of this format gets its signature again; others would refuse the field."""
    call = ToolCall(id="c", name="f", arguments="{}", signature="c2ln")
    asked = stranger(Turn(role="user", parts=(Text(text="x"),)), Turn(role="assistant", parts=(call,)))
    (told,) = body(type_, asked, target(type_, model))["messages"][1]["tool_calls"]
    assert told.get("extra_content") == ({"google": {"thought_signature": "c2ln"}} if signed else None)


def moved(client: str, id_: str) -> list[Any]:
    """A history with one call of this id, in a client's format."""
    call = {"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    if client == "chat":
        return [
            *HI,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id_, "content": "x"},
        ]
    told = Turn(role="tool", parts=(ToolResult(id=id_, parts=(Text(text="x"),)),))
    return [Turn(role="assistant", parts=(ToolCall(id=id_, name="f", arguments="{}"),)), told]


@pytest.mark.parametrize("client", ["chat", "another"])
@pytest.mark.parametrize(
    ("type_", "id_", "bare"),
    [
        ("openai", sealed_id("call_1", "c2ln" * 99), "call_1"),
        ("groq", sealed_id("call_1", "c2ln" * 99), "call_1"),
        ("openai", "f" * 40, "f" * 40),
        ("openai", "f" * 41, None),
        ("groq", "f" * 41, "f" * 41),
    ],
)
def test_ids_of_a_conversation_that_moves_on(client: str, type_: str, id_: str, bare: str | None) -> None:
    """A signature in a call's id stays here; OpenAI refuses ids above 40 characters, other servers may want theirs."""
    history = moved(client, id_)
    _, said, told = body(
        type_, ask(history) if client == "chat" else stranger(Turn(role="user", parts=(Text(text="x"),)), *history)
    )["messages"]
    (call,) = said["tool_calls"]
    assert call["id"] == told["tool_call_id"] == (bare or told["tool_call_id"])
    assert bare or len(call["id"]) <= 40


def test_a_search_of_another_format() -> None:
    """What this format's search cannot be told is said to be left out."""
    search = {"search_context_size": "low", "filters": {"allowed_domains": ["a.example"]}}
    turn = Turn(role="user", parts=(Text(text="x"),))
    out = request("perplexity", stranger(turn, controls=Controls(steering={"web_search_options": search})))
    assert isinstance(out.body, dict)
    assert out.body["web_search_options"] == {"search_context_size": "low"}
    assert out.dropped == ("web_search_options.filters",)


def test_media_of_another_format() -> None:
    """Documents are files or text, sounds have a format; what has no place is refused with its path."""

    def part(one: Media) -> Any:
        (message,) = body("openai", stranger(Turn(role="user", parts=(one, Text(text="x")))))["messages"]
        return message["content"][0]

    pdf = Media(kind="file", media_type="application/pdf", data="AA")
    assert part(pdf)["file"] == {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AA"}
    text = base64.b64encode("é".encode()).decode()
    assert part(Media(kind="file", media_type="text/plain", data=text)) == {"type": "text", "text": "é"}
    sound = Media(kind="audio", media_type="audio/mpeg", data="AA")
    assert part(sound)["input_audio"] == {"data": "AA", "format": "mp3"}
    with pytest.raises(Unsupported) as told:
        part(Media(kind="file", url="https://h.example/a", path="messages.0.content.0"))
    assert (told.value.param, told.value.code) == ("messages.0.content.0", "unsupported_content")


def test_controls_of_another_format() -> None:
    """T-CORE-002, T-CORE-003: what has an equal is translated, what has none is listed in order."""
    out = request(
        "openai",
        stranger(
            Turn(role="user", parts=(Text(text="x"),)),
            stream=True,
            unknown=("zeta", "alpha"),
            tools=(Tool(name="f", schema={"type": "object"}), Tool(name="g")),
            choice=Choice(mode="required", allowed=("g",)),
            controls=Controls(
                max_tokens=9,
                top_k=3,
                stop=("a", "b", "c", "d", "e"),
                parallel_tools=False,
                service_tier="standard_only",
                format=Format(kind="json_schema", schema={"type": "object"}),
                steering={"seed": 1, "mystery": 2},
            ),
        ),
        target("openai", "gpt-4o"),
    )
    assert isinstance(out.body, dict)
    assert out.dropped == ("alpha", "mystery", "service_tier", "stop~", "top_k", "zeta")
    assert [tool["function"]["name"] for tool in out.body["tools"]] == ["g"]
    assert out.body["tool_choice"] == "required"
    assert out.body["stop"] == ["a", "b", "c", "d"]
    assert out.body["seed"] == 1
    assert out.body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert out.body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("thinking", "word"),
    [
        (Thinking(budget=2048), "low"),
        (Thinking(budget=8192), "medium"),
        (Thinking(budget=24576), "high"),
        (Thinking(budget=24577), "xhigh"),
        (Thinking(adaptive=True, effort="medium"), "medium"),
        (Thinking(disabled=True), "none"),
        (Thinking(adaptive=True), None),
    ],
)
def test_effort_of_another_format(thinking: Thinking, word: str | None) -> None:
    """B.11: a budget becomes an effort."""
    asked = stranger(Turn(role="user", parts=(Text(text="x"),)), controls=Controls(thinking=thinking))
    assert body("openai", asked, target("openai", "gpt-5.6")).get("reasoning_effort") == word
    if word is not None:
        assert request("openai", asked, target("openai", "gpt-4o")).dropped == ("reasoning",)


def test_server_tools_are_refused() -> None:
    """B.11: a tool that only its own provider has is refused by name."""
    tool = Tool(name="web_search", kind="server", server={}, family="anthropic", path="tools.0")
    with pytest.raises(Unsupported) as told:
        body("openai", stranger(Turn(role="user", parts=(Text(text="x"),)), tools=(tool,)))
    assert told.value.param == "tools.0"
    assert "web_search" in told.value.message


def test_text_stream() -> None:
    """A stream's events, its terminator included."""
    told = read(chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({}, "stop"), b"[DONE]")
    assert told == [Started("up", "m", 1), TextDelta("a"), Finished("stop", native="stop"), Ended()]


def test_reasoning_under_either_name() -> None:
    """T-GROQ-001, T-DEEP-001: both names are one; null content is no text."""
    told = read(chunk({"content": None, "reasoning_content": "a"}), chunk({"reasoning": "b", "content": ""}))
    assert [one.text for one in told if isinstance(one, ReasoningDelta)] == ["a", "b"]
    assert not [one for one in told if isinstance(one, TextDelta)]


def test_reasoning_details() -> None:
    """T-ORTR-007: signatures and payloads are told beside the text, which is told once."""
    detail = {"type": "reasoning.text", "text": "a", "format": "f", "index": 0}
    told = read(
        chunk({"reasoning": "a", "reasoning_details": [detail]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "signature": "s", "format": "f", "index": 0}]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "d", "format": "g"}]}),
    )
    assert [one.text for one in told if isinstance(one, ReasoningDelta)] == ["a"]
    assert [one for one in told if isinstance(one, ReasoningSealed)] == [
        ReasoningSealed("s", None, "f"),
        ReasoningSealed(None, "d", "g"),
    ]


def calls(told: list[Event]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls."""
    return [(one.id, one.name, one.arguments) for one in fold(told).choices[0].calls]


def call(index: Any = None, id_: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """A delta with one call's fragment; None leaves a field out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given = {key: value for key, value in (("index", index), ("id", id_), ("function", function)) if value is not None}
    return {"tool_calls": [given]}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (
            [call(0, "a", "f", ""), call(1, "b", "g", ""), call(1, None, None, "{}"), call(0, None, None, '{"x":1}')],
            [("a", "f", '{"x":1}'), ("b", "g", "{}")],
        ),
        (
            [call(None, "a", "f", "{"), call(None, None, None, "}"), call(None, "b", "g", "{}")],
            [("a", "f", "{}"), ("b", "g", "{}")],
        ),
        ([call(0, "a", "f", "{}"), call(0, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([call(0, "a", "f", {"x": "é"})], [("a", "f", '{"x":"é"}')]),
        ([call(0, "a", "f", "")], [("a", "f", "{}")]),
        ([call(0, "a", None, '{"x"'), call(0, None, "f", ":1}")], [("a", "f", '{"x":1}')]),
        ([call(0, "a", "f", "{"), call(0, "a", "f", "}")], [("a", "f", "{}")]),
        ([call(3, "a", "f", "{}")], [("a", "f", "{}")]),
    ],
    ids=["interleaved", "unnumbered", "all-zero", "object", "no-arguments", "late-name", "repeated", "gap"],
)
def test_calls(deltas: list[dict[str, Any]], expected: list[tuple[str, str, str]]) -> None:
    """Demand R2: calls are put together whatever the server does with numbers, ids, names and arguments."""
    assert calls(read(*[chunk(one) for one in deltas])) == expected


def test_calls_without_ids_get_stable_ones() -> None:
    """A call without an id gets one, the same whenever the same answer is read, another in another answer."""
    first = calls(read(chunk(call(0, "", "f", "{}")), chunk(call(1, "", "f", "{}"))))
    assert first == calls(read(chunk(call(0, "", "f", "{}")), chunk(call(1, "", "f", "{}"))))
    other = calls(read({**chunk(call(0, "", "f", "{}")), "id": "else"}))
    assert len({first[0][0], first[1][0], other[0][0]}) == 3
    assert all(one[0].startswith("call_") for one in first)


def test_calls_are_bounded() -> None:
    """A server that never stops calling is cut off."""
    told = read(*[chunk(call(number, f"i{number}", "f", "{}")) for number in range(MOST_CALLS + 10)])
    assert len([one for one in told if isinstance(one, CallStarted)]) == MOST_CALLS


def test_random_splits_rebuild_the_same_calls() -> None:
    """Demand R2: one to eight parallel calls, their arguments cut anywhere and interleaved, come out whole."""
    dice = random.Random(3)
    for many in range(1, 9):
        texts = [orjson.dumps({"n": number, "t": "é\n" * number}).decode() for number in range(many)]
        deltas = [call(number, f"c{number}", f"f{number}", "") for number in range(many)]
        rest = dict(enumerate(texts))
        while rest:
            number = dice.choice(list(rest))
            cut = dice.randint(1, 5)
            deltas.append(call(number, None, None, rest[number][:cut]))
            rest[number] = rest[number][cut:]
            if not rest[number]:
                del rest[number]
        assert [one[2] for one in calls(read(*[chunk(one) for one in deltas]))] == texts


def test_legacy_call() -> None:
    """A `function_call` is a call."""
    told = read(chunk({"function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": "{}"}}))
    assert calls(told)[0][1:] == ("f", "{}")
    assert CallDelta(0, "{}") in told


def test_typed_content() -> None:
    """T-MIST-007: typed chunks are text and thinking."""
    content = [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "x"}]
    told = read(chunk({"content": content}))
    assert [type(one) for one in told[1:3]] == [ReasoningDelta, TextDelta]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("model_length", "length"),  # T-MIST-011
        ("sensitive", "content_filter"),  # T-ZHIP-011
        ("eos", "stop"),
        ("model_context_window_exceeded", "context_overflow"),
        ("function_call", "tool_calls"),
        ("network_error", "error"),
        ("nobody knows", "stop"),
    ],
)
def test_finish_words(word: str, reason: str) -> None:
    """Servers' own words are understood."""
    told = read(chunk({"content": "x"}, word))
    assert [one.reason for one in told if isinstance(one, Finished)] == [reason]


def test_finishes() -> None:
    """T-CORE-035, T-CORE-036: missing ones are made up, empty ones are none, second ones are ignored."""

    def finishes(*given: Any) -> list[str]:
        return [one.reason for one in read(*given) if isinstance(one, Finished)]

    assert finishes(chunk({"content": "x"})) == ["stop"]
    assert finishes(chunk(call(0, "a", "f", "{}"))) == ["tool_calls"]
    assert finishes(chunk(call(0, "a", "f", "{}")), chunk({}, "stop")) == ["tool_calls"]
    assert finishes(chunk({"content": "x"}, ""), chunk({}, "length"), chunk({"content": "y"}, "stop")) == ["length"]
    assert finishes() == []


def test_dead_servers() -> None:
    """T-DEEP-007: a server that gave up is a failure, 503."""
    failure = failed(read(chunk({"content": "x"}, "insufficient_system_resource")))
    assert (failure.status, failure.kind) == (503, "overloaded")
    assert failed(read(chunk({}, "error"))).status == 502


@pytest.mark.parametrize(
    ("payload", "event", "status", "code"),
    [
        ({"error": {"message": "m", "code": 429}}, "", 429, 429),
        ({"error": {"message": "m", "type": "overloaded_error"}}, "", 503, "overloaded"),
        ({"error": {"message": "m", "code": "tool_use_failed", "status_code": 400}}, "error", 400, "tool_use_failed"),
        ({"error": "words", "code": "x"}, "", 502, "bad_response"),
        ({"error": {"message": "m", "code": "invalid_api_key"}}, "", 502, "upstream_credentials"),
        ({"object": "error", "message": "m", "type": "invalid_request_error"}, "", 400, None),
        ({"success": False, "errors": [{"code": 7, "message": "m"}]}, "", 502, "bad_response"),
        ([{"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}], "", 503, "overloaded"),
        ({"detail": "m"}, "error", 502, "bad_response"),
    ],
)
def test_errors_in_a_stream(payload: Any, event: str, status: int, code: Any) -> None:
    """Demand R6, T-GROQ-005, T-ORTR-004, T-ORTR-005: an error inside a 200 is one, with the status that it means."""
    failure = failed(read(payload, event=event))
    assert (failure.status, failure.code) == (status, code)
    assert failure.upstream_status != 200
    found = whole(payload).failure if isinstance(payload, dict) else failure
    assert found is not None
    assert found.status == status


def test_error_beside_usage() -> None:
    """T-ORTR-004: usage in the chunk of an error is billed."""
    told = read({**chunk({}, "error"), "error": {"message": "m", "code": 502}, "usage": {"prompt_tokens": 3}})
    assert Metered(Usage(prompt=3)) in told
    assert failed(told).status == 502


def test_unreadable_frames_are_skipped() -> None:
    """Broken JSON is skipped and said, pings and empty data are nothing."""
    assert read(b"{broken") == [Skipped("not a JSON object")]
    assert read(b"3") == [Skipped("not a JSON object")]
    assert read(b" ") == []
    assert read({"type": "ping"}) == []
    assert [type(one) for one in read(b'{"choices":[{"delta":{"content":"x\xff"}}]}')] == [TextDelta, Finished]


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(prompt=5, completion=2)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2}, Usage(prompt=5, completion=2)),
        ({"prompt_tokens": 5, "total_tokens": 5}, Usage(prompt=5)),
        # T-XAI-001, T-CORE-010: reasoning beside the completion
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 10}, Usage(prompt=5, completion=5, reasoning=3)),
        # T-DEEP-004, T-MIST-010, T-CORE-011: cached tokens are inside the prompt
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4},
            Usage(prompt=5, completion=2, cache_read=4),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "num_cached_tokens": 4},
            Usage(prompt=5, completion=2, cache_read=4),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(prompt=5, completion=2, cache_read=5, cache_told=9),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cache_write_tokens": 4}},
            Usage(prompt=9, completion=2, cache_write=4),
        ),
        # T-OPEN-009, T-OPEN-010
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 8,
                "prompt_tokens_details": {"audio_tokens": 3},
                "completion_tokens_details": {"audio_tokens": 2, "rejected_prediction_tokens": 1},
            },
            Usage(prompt=9, completion=8, audio_in=3, audio_out=2, rejected_prediction=1),
        ),
        ({"prompt_tokens": -5, "completion_tokens": 2}, None),
        ({"prompt_tokens": "5", "completion_tokens": 2}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": 10**12, "completion_tokens": 2}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage(given: Any, usage: Usage | None) -> None:
    """A.0.3: every provider's usage is one record; numbers that make no sense are none."""
    assert read_usage(given) == usage


def test_usage_places() -> None:
    """T-GROQ-003, T-GROQ-008, T-MIST-009: wherever usage stands it is read, and the last one counts."""
    assert fold(read(chunk({"content": "x"}, x_groq={"usage": {"prompt_tokens": 3}}))).usage == Usage(prompt=3)
    both = chunk({}, "stop", usage={"prompt_tokens": 4}, x_groq={"usage": {"prompt_tokens": 3}})
    assert fold(read(chunk({}, usage={"prompt_tokens": 1}), both)).usage == Usage(prompt=4)
    inner = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 6}}]}
    assert fold(read(inner)).usage == Usage(prompt=6)


def test_citations() -> None:
    """T-OPEN-012, T-XAI-004: annotations and addresses beside the answer are citations, each once."""
    note = {
        "type": "url_citation",
        "url_citation": {"url": "https://a", "title": "A", "start_index": 0, "end_index": 1},
    }
    told = read(
        chunk({"content": "x", "annotations": [note]}, citations=["https://a", "https://b"]),
        chunk({}, citations=["https://b"]),
    )
    assert [one.value["url"] for one in told if isinstance(one, Cited)] == ["https://a", "https://b"]


def test_whole_equals_stream() -> None:
    """A whole answer has the events that its stream would have."""
    message = {"role": "assistant", "content": "x", "reasoning_content": "r", **call(0, "a", "f", '{"x":1}')}
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    node = {
        "id": "up",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    streamed = fold(read(chunk(message), chunk({}, "stop"), {**chunk({}), "choices": [], "usage": usage}))
    assert whole({**node, "usage": usage}) == streamed


@pytest.mark.parametrize("given", [b"", b"<html>", b"3", b"[]", b'"x"', b"{}", b'{"choices":[]}', b'{"choices":null}'])
def test_no_answer_at_all(given: bytes) -> None:
    """Demand R6: a 200 without an answer is a failure."""
    failure = fold(ADAPTERS["openai"].chat[0].answer(ask(), Document(given))).failure
    assert failure is not None
    assert failure.status == 502


@pytest.mark.parametrize(
    ("status", "given", "expected"),
    [
        (401, {"error": {"message": "bad key"}}, (502, "upstream_auth", "upstream_credentials", "key")),
        (402, {"error": {"message": "Insufficient Balance"}}, (502, "upstream_auth", "upstream_credentials", "key")),
        (403, {}, (502, "upstream_auth", "upstream_credentials", "key")),
        (400, {"error": {"message": "API key not valid."}}, (502, "upstream_auth", "upstream_credentials", "key")),
        (
            400,
            {"error": {"message": "Your credit balance is too low"}},
            (502, "upstream_auth", "upstream_credentials", "key"),
        ),
        (400, {"error": {"message": "m", "code": "c", "param": "p"}}, (400, "bad_request", "c", "nobody")),
        (
            400,
            {"error": {"message": "m", "code": "content_filter"}},
            (400, "content_policy", "content_filter", "nobody"),
        ),
        (
            404,
            {"error": {"message": "m", "code": "DeploymentNotFound"}},
            (404, "not_found", "DeploymentNotFound", "nobody"),
        ),
        (404, {"error": {"message": "m"}}, (404, "not_found", "model_not_found", "nobody")),
        (413, {"error": {"message": "m"}}, (413, "too_large", "request_too_large", "nobody")),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "bad"}]}, (400, "bad_request", None, "nobody")),
        (429, {"error": {"message": "m"}}, (429, "rate_limit", "rate_limit_exceeded", "key")),
        (
            429,
            {"error": {"message": "m", "code": "insufficient_quota"}},
            (429, "rate_limit", "rate_limit_exceeded", "key"),
        ),
        (408, {}, (504, "timeout", "upstream_timeout", "channel")),
        (500, {"error": {"message": "m"}}, (502, "upstream", "bad_response", "channel")),
        (503, {}, (503, "overloaded", "overloaded", "channel")),
        (529, {}, (503, "overloaded", "overloaded", "channel")),
        (504, {}, (504, "timeout", "upstream_timeout", "channel")),
        (524, {}, (504, "timeout", "upstream_timeout", "channel")),
    ],
)
def test_failures(status: int, given: Any, expected: tuple[int, str, Any, str]) -> None:
    """A.0.5, decision 10, T-CORE-013: a provider's status becomes the client's, with kind, code and blame."""
    failure = ADAPTERS["openai"].chat[0].failure(status, {}, orjson.dumps(given))
    assert (failure.status, failure.kind, failure.code, failure.blames) == expected
    assert failure.upstream_status == status
    assert failure.message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"error": {"message": "m"}}, "m"),
        ({"error": "m", "code": "x"}, "m"),  # T-XAI-002
        ({"message": "m"}, "m"),
        ({"msg": "m"}, "m"),
        ({"detail": "m"}, "m"),
        ({"errors": [{"message": "m"}]}, "m"),
        ({"header": {"message": "m"}}, "m"),
        ({"response": {"error": {"message": "m"}}}, "m"),
        ([{"error": {"message": "m"}}], "m"),
        ({"detail": [{"loc": ["body", "n"], "msg": "bad"}, {"msg": "worse"}]}, "body.n: bad; worse"),  # T-MIST-014
        ({"error": {"message": "m", "metadata": {"raw": "why"}}}, "m: why"),  # T-ORTR-006
    ],
)
def test_error_shapes(given: Any, message: str) -> None:
    """T-CUST-005: the message is found in every shape that servers give it."""
    assert ADAPTERS["custom"].chat[0].failure(400, {}, orjson.dumps(given)).message == message


def test_error_page() -> None:
    """T-CORE-018: a page instead of JSON is a bad response, its first 300 characters are for the log alone."""
    failure = ADAPTERS["openai"].chat[0].failure(404, {}, b"<html>" + b"secret " * 100)
    assert (failure.status, failure.code) == (502, "bad_response")
    assert "secret" not in failure.message
    assert len(failure.detail) == 300


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error":{"message":"Invalid content: PRIVATE"}}'),
        (400, b'{"error":{"message":"Invalid content: PRIVATE'),
        (400, b'"PRIVATE"'),
        (500, b'data: {"error":{"message":"PRIVATE"}}\n\n'),
        (200, b"PRIVATE"),
    ],
)
@pytest.mark.parametrize("adapter", ["openai", "anthropic", "zhipu"])
def test_no_words_in_the_log(adapter: str, status: int, body: bytes) -> None:
    """What an API says may quote the prompt: the log gets its size and type."""
    failure = ADAPTERS[adapter].chat[0].failure(status, {"content-type": "text/x"}, body)
    assert failure.detail == f"{len(body)} bytes of text/x"


def test_no_answer_in_the_log() -> None:
    """A whole answer that breaks off in its text is told by its size."""
    (event,) = read_answer(Document(b'{"choices":[{"message":{"content":"PRIVATE'))
    assert isinstance(event, Failed)
    assert event.failure.detail == "42 bytes that are no JSON object"


@pytest.mark.parametrize(
    "secret",
    [
        "https://api.upstream.example.com/v1/x?key=1",
        "api.upstream-host.com",
        "10.1.2.3:8080",
        "sk-proj-abcdefgh12345678",
        "sk-abcd****wxyz",
        "Bearer abc.def",
        "AIzaSyA1234567890abcdefghijk",
        "org-Abcdefgh12345678",
        "someone@upstream.example.com",
        "0b4c6a1e-1111-2222-3333-444455556666",
        "abcdef0123456789abcdef0123456789",
        "req_011CSabcdef12345",
    ],
)
def test_messages_are_scrubbed(secret: str) -> None:
    """Demand R7: no address, key, organisation or request id gets to a client."""
    told = _failures.scrubbed(f"The model gpt-4.1-mini said no to {secret} at messages.0.content today")
    assert secret not in told
    assert told.startswith("The model gpt-4.1-mini said no to ***")
    assert told.endswith("at messages.0.content today")


@pytest.mark.parametrize("secret", ["sk-" + "a1" * 40, "https://api.upstream.example/" + "x" * 80, "0b" * 40])
@pytest.mark.parametrize("cut", range(0, 84, 7))
def test_half_a_secret_is_not_told(secret: str, cut: int) -> None:
    """A message that is too long does not end inside something that would be masked if it were whole."""
    before = "word " * 796
    told = _failures.scrubbed(f"{before}{'.' * (20 - cut % 20)} {secret} {'word ' * 300}")
    assert not any(secret[at : at + 12] in told for at in range(len(secret) - 11))
    assert told.startswith(before)


HOSTILE = (
    "a.", "1.", "a-", "a-b.", "aA1", "@", "a@", "x@a.", "Bearer ", "sk-", "[:", "[", "org-", "0123abcd-", "a.co/",
    ".com", "http://", "api key ", "invalid", "incorrect ", "apikey", "-", ".", " ", "://", "user_", "[a", "\n", "é",
)  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_messages_take_no_time(part: str) -> None:
    """A megabyte that is made to hurt is read in the time of an honest message, whatever of it is kept."""
    error = {"error": {"message": "no: " + part * (1_000_000 // len(part)), "type": "t"}}
    short = part * (3900 // len(part))
    since = time.process_time()
    for _ in range(10):
        _failures.normalise(400, _failures.told(error), {})
        _failures.scrubbed(short)
    assert time.process_time() - since < 0.25


def test_extras_of_errors() -> None:
    """T-GROQ-004, T-AZUR-010: fields that clients of the provider use stay in its error."""
    given = {"error": {"message": "m", "code": "tool_use_failed", "failed_generation": "f("}}
    failure = ADAPTERS["groq"].chat[0].failure(400, {}, orjson.dumps(given))
    assert failure.extra == {"failed_generation": "f("}
    assert orjson.loads(CHAT.failure(failure, ""))["error"]["failed_generation"] == "f("


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:27:00 GMT"}, 60),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2099 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 3600),
        ({"retry-after": "Wed, 99 Oct 99999999999 99:99:99 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "999999999999"}, 3600),
        ({"retry-after-ms": "99999999999"}, 3600),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """T-CORE-014: the pause that a provider asks for is known in seconds."""
    assert ADAPTERS["openai"].chat[0].failure(429, headers, b"{}").retry_after == seconds


def test_tool_arguments() -> None:
    """B.0, T-CORE-025: arguments as object and as text, broken ones included."""
    assert _tools.as_object("") == {}
    assert _tools.as_object('{"a":"é"}') == {"a": "é"}
    assert _tools.as_object("[1]") == {"__raw_arguments__": "[1]"}
    assert _tools.as_text({"__raw_arguments__": "[1]"}) == "[1]"
    assert _tools.as_text({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'


def test_azure_routes() -> None:
    """T-AZUR-001, T-AZUR-002, T-AZUR-003, T-AZUR-011: classic and v1 routes, both credentials, refused fields."""
    base = "https://r.example"
    classic = target("azure", "gpt-4.1", base_url=base, api_version="2025-01-01-preview", strip_dots=True)
    sent = request("azure", ask(stream=True), classic)
    assert sent.url == f"{base}/openai/deployments/gpt-41/chat/completions?api-version=2025-01-01-preview"
    assert sent.headers["api-key"] == "k"
    newest = request("azure", ask(), target("azure", "gpt-4.1", base_url=f"{base}/openai", bearer=True))
    assert newest.url == f"{base}/openai/v1/chat/completions"
    assert newest.headers["authorization"] == "Bearer k"
    old = target("azure", base_url=base, api_version="2023-05-15", strip_params=("seed",))
    stripped = request("azure", ask(stream=True, seed=1), old)
    assert isinstance(stripped.body, dict)
    assert "stream_options" not in stripped.body
    assert stripped.dropped == ("seed",)


def test_custom_urls() -> None:
    """T-CUST-001, T-CUST-002, T-CUST-003: the URL is the operator's, the model in it is escaped, the header theirs."""
    to = target("custom", "a/b c", base_url="https://h.example/x/{model}?q=1", header="X-Key")
    sent = request("custom", ask(), to)
    assert sent.url == "https://h.example/x/a%2Fb%20c?q=1"
    assert sent.headers["x-key"] == "k"
    assert "authorization" not in sent.headers


def test_mistral_request() -> None:
    """T-MIST-001 to T-MIST-005, T-MIST-012, T-MIST-013: names, roles, ids, documents and prefill are Mistral's."""
    messages = [
        {"role": "developer", "content": "S"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_long_id", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "call_long_id", "content": "1"},
        {
            "role": "user",
            "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}}],
        },
        {"role": "assistant", "content": "So"},
    ]
    asked = ask(messages, seed=4, store=True, user="u", reasoning_effort="low", stream=True)
    out = request("mistral", asked, target("mistral", "mistral-small-latest"))
    assert isinstance(out.body, dict)
    sent = out.body["messages"]
    assert [one["role"] for one in sent] == ["system", "assistant", "tool", "assistant", "user", "assistant"]
    id_ = sent[1]["tool_calls"][0]["id"]
    assert id_ == sent[2]["tool_call_id"]
    assert len(id_) == 9
    assert sent[4]["content"][0]["type"] == "document_url"
    assert sent[-1]["prefix"] is True
    assert out.body["random_seed"] == 4
    assert out.body["reasoning_effort"] == "high"
    assert out.dropped == ("reasoning_effort~", "store", "user")
    assert "stream_options" not in out.body


def test_zhipu_token() -> None:
    """T-ZHIP-001, T-ZHIP-002: `id.secret` is signed, the same for three minutes; another key goes as it is."""
    auth = request("zhipu", ask(), target("zhipu", key="id1.secret2")).headers["authorization"]
    head, claims, signature = auth.removeprefix("Bearer ").split(".")

    def plain(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    assert orjson.loads(plain(head)) == {"alg": "HS256", "sign_type": "SIGN"}
    told = orjson.loads(plain(claims))
    assert told["api_key"] == "id1"
    assert 0 <= NOW * 1000 - told["timestamp"] < 180_000
    assert told["exp"] - told["timestamp"] == 210_000
    assert plain(signature) == hmac.new(b"secret2", f"{head}.{claims}".encode(), hashlib.sha256).digest()
    assert request("zhipu", ask(), target("zhipu", key="plain")).headers["authorization"] == "Bearer plain"


@pytest.mark.parametrize(
    ("fields", "sent", "dropped"),
    [
        ({"temperature": 0}, {"do_sample": False}, ()),  # T-ZHIP-003
        ({"temperature": 1}, {"temperature": 0.99}, ()),  # T-ZHIP-004
        ({"temperature": 1.5}, {"temperature": 0.99}, ("temperature~",)),
        ({"top_p": 1}, {"top_p": 0.99}, ()),
        ({"stop": ["a", "b"]}, {"stop": ["a"]}, ("stop~",)),  # T-ZHIP-005
        ({"user": "somebody"}, {"user_id": "somebody"}, ()),
        ({"user": "u"}, {}, ("user",)),
        ({"seed": 1, "store": True}, {}, ("seed", "store")),
    ],
)
def test_zhipu_request(fields: dict[str, Any], sent: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """T-ZHIP-003 to T-ZHIP-005: the narrow sampling of GLM models."""
    out = request("zhipu", ask(**fields), target("zhipu", "glm-4"))
    assert out.body == {"model": "glm-4", "messages": HI, **sent}
    assert out.dropped == dropped
    assert out.url.endswith("/api/paas/v4/chat/completions")


def test_zhipu_images() -> None:
    """T-ZHIP-006, T-ZHIP-007, T-ZHIP-008: bare bytes, addresses as they are, five at most."""

    def image(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url}}

    parts = [image("data:image/png;base64,AA"), image("https://h.example/a.png")]
    sent = body("zhipu", ask([{"role": "user", "content": parts}]), target("zhipu", "glm-4v"))["messages"]
    assert [one["image_url"]["url"] for one in sent[0]["content"]] == ["AA", "https://h.example/a.png"]
    with pytest.raises(Unsupported) as told:
        body("zhipu", ask([{"role": "user", "content": parts * 3}]), target("zhipu", "glm-4v"))
    assert told.value.param == "messages.0.content.5"


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("1002", 502, "upstream_auth"),
        ("1113", 502, "upstream_auth"),
        ("1211", 404, "not_found"),
        ("1214", 400, "bad_request"),
        ("1301", 400, "content_policy"),
        ("1302", 429, "rate_limit"),
    ],
)
def test_zhipu_errors(code: str, status: int, kind: str) -> None:
    """T-ZHIP-013: its codes say more than its status."""
    given = orjson.dumps({"error": {"code": code, "message": "m"}})
    failure = ADAPTERS["zhipu"].chat[0].failure(400, {}, given)
    assert (failure.status, failure.kind, failure.upstream_status) == (status, kind, 400)


def test_think_tags() -> None:
    """T-GROQ-002: a leading tagged span is thinking, wherever it is cut; text without one stays as it is."""

    def told(text: str, cut: int) -> tuple[str, str]:
        pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
        answer = fold(Split().all([*map(TextDelta, pieces), Finished("stop")])).choices[0]
        return "".join(one.text for one in answer.thoughts), answer.text

    for cut in range(1, 30):
        assert told("\n<think>\na < b</th</think>\n\nx</think>", cut) == ("a < b</th", "x</think>")
        assert told("<thin ice>", cut) == ("", "<thin ice>")
        assert told("<think>never closed</thi", cut) == ("never closed</thi", "")


def test_registry() -> None:
    """Every name is its record's, no number is claimed twice, and nothing is both served and not."""
    assert all(name == adapter.name for name, adapter in ADAPTERS.items())
    claimed = [number for adapter in ADAPTERS.values() for number in adapter.numbers]
    assert len(claimed) == len(set(claimed))
    assert {name for name, _ in BY_NUMBER.values()} <= ADAPTERS.keys()
    assert BY_NUMBER[1] == ("openai", "https://api.openai.com")


GARBAGE: list[Any] = [None, True, 0, -1, 1e300, 2**62, "", "x", [], {}, [None], {"a": None}, [[]], "é" * 9]
FULL = {
    "id": "up",
    "created": 1,
    "model": "m",
    "x_groq": {"usage": {"prompt_tokens": 1}},
    "citations": ["https://a", {"url": "https://b"}],
    "choices": [
        {
            "index": 0,
            "delta": {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": [{"text": "t"}]}, {"type": "text", "text": "x"}],
                "reasoning": "r",
                "reasoning_details": [{"type": "reasoning.text", "text": "t", "signature": "s", "index": 0}],
                "tool_calls": [
                    {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
                "function_call": {"name": "f", "arguments": "{}"},
                "annotations": [{"url_citation": {"url": "https://c"}}],
                "audio": {"transcript": "x"},
                "refusal": "n",
            },
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 1},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 1}},
    "error": {"message": "m", "code": 400, "metadata": {"raw": "x"}},
}


def mutated(node: Any, dice: random.Random) -> Any:
    """A copy with one place of it replaced by something foreign."""
    if not isinstance(node, (dict, list)) or not node or dice.random() < 0.15:
        return dice.choice(GARBAGE)
    if isinstance(node, dict):
        name = dice.choice(list(node))
        return {**node, name: mutated(node[name], dice)}
    at = dice.randrange(len(node))
    return [*node[:at], mutated(node[at], dice), *node[at + 1 :]]


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_events_or_a_failure(seed: int) -> None:
    """Mutated upstream bytes end in events, a passed frame or a declared error, nothing else."""
    dice = random.Random(seed)
    dialect = ADAPTERS["openai"].chat[0]
    asked = ask(stream=True, stream_options={"include_usage": True})
    face_of = ask()
    for _ in range(60):
        node = {name: value for name, value in FULL.items() if name != "error" or dice.random() < 0.3}
        node = mutated(node, dice)
        data = b"data: " + orjson.dumps(node) + b"\n\n"
        if dice.random() < 0.2:
            at = dice.randrange(len(data))
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        reader, passer = dialect.reader(asked), CHAT.passer(asked, FACE)
        writer = CHAT.writer(asked, FACE)
        for one in [*(decoder := dialect.frames()).feed(data * 2), *decoder.close()]:
            events = list(reader.read(one))
            assert isinstance(passer.frame(one, events), bytes)
            assert all(isinstance(writer.feed(event), bytes) for event in events)
        assert all(isinstance(writer.feed(event), bytes) for event in reader.close())
        assert passer.close(Usage()).endswith(b"[DONE]\n\n")
        assert writer.close(Usage()).endswith(b"[DONE]\n\n")
        answer = Document(orjson.dumps(mutated({**FULL, "choices": [{"message": FULL["choices"]}]}, dice)))  # type: ignore[dict-item]
        assert list(dialect.answer(face_of, answer)) is not None
        assert isinstance(CHAT.same(face_of, FACE, answer, Usage()), bytes)
        status = dice.choice([400, 401, 404, 429, 500])
        assert isinstance(dialect.failure(status, {}, answer.raw), ProxyError)
