"""The Anthropic adapter: requests from OpenAI and Anthropic clients, answers and streams as events, errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters import _schema
from newapi_proxy.adapters._anthropic_json import Fence
from newapi_proxy.adapters._anthropic_models import traits
from newapi_proxy.adapters.anthropic import ADAPTER, AnthropicOptions
from newapi_proxy.adapters.base import Target
from newapi_proxy.errors import ProxyError, Unsupported
from newapi_proxy.ir.ask import Ask, CacheMark, Controls, Media, Text, Thinking, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.ir.events import (
    Block,
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
from newapi_proxy.ir.usage import MOST, Usage
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.anthropic import COUNT, MESSAGES
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.tree import Document
from tests.fakes import anthropic as fake

(DIALECT,) = ADAPTER.chat
SONNET = "claude-sonnet-4-5"  # budget thinking, structured output
OLD = "claude-3-5-sonnet-20240620"  # neither
ADAPTIVE = "claude-sonnet-4-6"
OPUS = "claude-opus-4-8"  # adaptive, no sampling, system turns
FABLE = "claude-fable-5"
HI = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def target(model: str = SONNET, **options: Any) -> Target:
    return Target(
        channel="c",
        base_url="https://h.example",
        key=Secret("k"),
        model=model,
        options=AnthropicOptions(**options),
    )


def oc(messages: list[Any], upstream: str = SONNET, options: dict[str, Any] | None = None, **more: Any) -> Any:
    """What an OpenAI client's request becomes."""
    ask = CHAT.read(json.dumps({"model": "asked", "messages": messages, **more}).encode(), {})
    return DIALECT.request(ask, target(upstream, **(options or {})))


def sent(messages: list[Any], **more: Any) -> Any:
    return oc(messages, **more).body


def upstream(ask: Ask, model: str = SONNET) -> Any:
    """The body that an ask of any client becomes."""
    return DIALECT.request(ask, target(model)).body


def said(*messages: Any, **more: Any) -> Any:
    """The messages upstream gets."""
    return sent(list(messages), **more)["messages"]


def am(body: dict[str, Any], headers: dict[str, str] | None = None, model: str = SONNET, **options: Any) -> Any:
    """What an Anthropic client's request becomes."""
    body = {"model": "asked", "max_tokens": 5, "messages": [HI], **body}
    return DIALECT.request(MESSAGES.read(json.dumps(body).encode(), headers or {}), target(model, **options))


ASK = MESSAGES.read(json.dumps({"model": "m", "max_tokens": 5, "messages": [HI]}).encode(), {})
OC_ASK = CHAT.read(json.dumps({"model": "m", "messages": [HI]}).encode(), {})


def events(raw: bytes, ask: Ask = ASK, size: int = 0) -> list[Event]:
    """A stream's events, read in pieces of `size`."""
    decoder, reader = DIALECT.frames(), DIALECT.reader(ask)
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)] if size else [raw]
    frames = [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.close()
    found = [event for frame in frames for event in reader.read(frame)]
    return [*found, *reader.close()]


def answer(content: list[Any], ask: Ask = ASK, **more: Any) -> list[Event]:
    body = {
        "id": "msg_01A",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 9},
        **more,
    }
    return list(DIALECT.answer(ask, Document(json.dumps(body).encode())))


def used(found: Iterable[Event]) -> Usage:
    return [event.usage for event in found if isinstance(event, Metered)][-1]


def test_one_user_text() -> None:
    """T-ANTH-001: a text goes to /v1/messages with the key in its place; an Anthropic body changes its model."""
    out = oc([HI])
    assert out.url == "https://h.example/v1/messages"
    assert out.headers == {
        "x-api-key": "k",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
    }
    assert out.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    body = {"odd": {"deep": [1]}, "temperature": 1.6, "messages": [HI, {"role": "assistant", "content": "x "}]}
    passed = am(body)
    assert passed.body == {"model": SONNET, "max_tokens": 5, **body}
    assert list(passed.body) == ["model", "max_tokens", "messages", "odd", "temperature"]
    assert passed.dropped == ()


def test_leading_system_messages() -> None:
    """T-ANTH-002: system and developer messages become blocks of `system`, in order."""
    body = sent([{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, HI])
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert len(body["messages"]) == 1


def test_a_system_message_in_the_middle() -> None:
    """T-ANTH-003, T-ANTH-004: its own entry where the model knows it, else tagged text of the user at its place."""
    talk = [{"role": "system", "content": "top"}, HI, {"role": "system", "content": "mid"}, HI]
    capable = sent(talk, upstream=OPUS)
    assert [message["role"] for message in capable["messages"]] == ["user", "system", "user"]
    other = sent(talk)
    assert other["messages"][0]["content"][1] == {"type": "text", "text": "<system>mid</system>"}
    assert other["system"] == capable["system"] == [{"type": "text", "text": "top"}]


def test_a_system_entry_follows_a_user() -> None:
    """T-ANTH-003: behind an assistant's message a filler of the user comes first; behind open calls it is text."""
    after = said(HI, {"role": "assistant", "content": "x"}, {"role": "system", "content": "s"}, upstream=OPUS)
    assert [message["role"] for message in after] == ["user", "assistant", "user", "system"]
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    talk = [
        HI,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "system", "content": "s"},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
    ]
    last = said(*talk, upstream=OPUS)[-1]
    assert [block["type"] for block in last["content"]] == ["tool_result", "text"]


def test_only_a_system_message() -> None:
    """T-ANTH-005: the last system text becomes the user's turn."""
    body = sent([{"role": "system", "content": "a"}, {"role": "system", "content": "b"}])
    assert body["system"] == [{"type": "text", "text": "a"}]
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "b"}]}]


def test_empty_texts_are_dropped() -> None:
    """T-ANTH-006, T-CORE-028: no blank block goes up; an empty turn between two others becomes a filler."""
    parts = [{"type": "text", "text": ""}, {"type": "text", "text": "x"}, {"type": "text", "text": " "}]
    assert said({"role": "user", "content": parts})[0]["content"] == [{"type": "text", "text": "x"}]
    talk = said(HI, {"role": "assistant", "content": None}, HI)
    assert [(one["role"], one["content"][0]["text"]) for one in talk] == [
        ("user", "hi"),
        ("assistant", "."),
        ("user", "hi"),
    ]
    assert said(HI, {"role": "user", "content": ""}) == said(HI)
    assert said({"role": "user", "content": ""}) == [{"role": "user", "content": [{"type": "text", "text": "."}]}]


def test_neighbours_of_one_role_are_merged() -> None:
    """T-ANTH-007: their parts stay apart; a conversation that begins with the assistant gets a user's filler."""
    assert [block["text"] for block in said(HI, HI)[0]["content"]] == ["hi", "hi"]
    assert said({"role": "assistant", "content": "x"}, HI)[0]["content"] == [{"type": "text", "text": "."}]


def test_prefill() -> None:
    """T-ANTH-008: the last assistant turn loses its trailing white space; an Anthropic client's own stays."""
    assert said(HI, {"role": "assistant", "content": "{ \n"})[-1]["content"][0]["text"] == "{"
    messages = [HI, {"role": "assistant", "content": "{ "}]
    assert am({"messages": messages}).body["messages"] == messages


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpg", "gif", "webp"])
def test_image_bytes(kind: str) -> None:
    """T-ANTH-009: the four kinds of images that Anthropic takes."""
    part = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,AAAA"}}
    media_type = f"image/{kind.replace('jpg', 'jpeg')}"
    (block,) = said({"role": "user", "content": [part]})[0]["content"]
    assert block == {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": "AAAA"}}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "ftp://e.example/i.png"}},
        {"type": "file", "file": {"file_data": "data:application/msword;base64,AAAA", "filename": "a.docx"}},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://e.example/v.mp4"}},
    ],
)
def test_media_that_anthropic_cannot_see(part: dict[str, Any]) -> None:
    """T-ANTH-010, 015, 016, 017, 018: refused with the part's path, before anything is sent."""
    with pytest.raises(Unsupported, match="Anthropic") as caught:
        oc([{"role": "user", "content": [{"type": "text", "text": "x"}, part]}])
    assert (caught.value.code, caught.value.status) == ("unsupported_content", 400)
    assert (caught.value.param or "").startswith("messages.0.content.1")


def test_image_address_and_detail() -> None:
    """T-ANTH-011, T-ANTH-012: Anthropic fetches the address itself; `detail` is dropped and named."""
    url = "https://e.example/i.png"
    out = oc([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}])
    assert out.body["messages"][0]["content"] == [{"type": "image", "source": {"type": "url", "url": url}}]
    assert out.dropped == ("messages.0.content.0.image_url.detail",)


def test_files() -> None:
    """T-ANTH-013, T-ANTH-014: PDF and text become documents with a title; a Files API id brings its beta."""
    text = base64.b64encode("héllo".encode()).decode()
    content = [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": f"data:text/plain;base64,{text}", "filename": "b.txt"}},
        {"type": "file", "file": {"file_data": "JVBERi0="}},
        {"type": "file", "file": {"file_id": "file_011"}},
    ]
    out = oc([{"role": "user", "content": content}])
    blocks = out.body["messages"][0]["content"]
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    assert blocks[0] == {"type": "document", "source": pdf, "title": "a.pdf"}
    assert blocks[1]["source"] == {"type": "text", "media_type": "text/plain", "data": "héllo"}
    assert blocks[2]["source"] == pdf
    assert blocks[3] == {"type": "document", "source": {"type": "file", "file_id": "file_011"}}
    assert out.headers["anthropic-beta"] == "files-api-2025-04-14"


def test_tools() -> None:
    """T-ANTH-019, T-ANTH-020: no parameters become an empty object; `strict` goes where structured output is."""
    tools = [
        {"type": "function", "function": {"name": "a"}},
        {"type": "function", "function": {"name": "b", "description": "d", "parameters": SCHEMA, "strict": True}},
    ]
    first, second = sent([HI], tools=tools)["tools"]
    assert first == {"name": "a", "input_schema": {"type": "object", "properties": {}}}
    assert second["strict"] is True
    assert second["input_schema"]["additionalProperties"] is False
    old = oc([HI], upstream=OLD, tools=tools)
    assert "strict" not in old.body["tools"][1]
    assert old.dropped == ("tools.1.function.strict",)


def test_custom_tools_are_refused() -> None:
    """T-ANTH-021: a free-form tool cannot be expressed."""
    with pytest.raises(Unsupported) as caught:
        oc([HI], tools=[{"type": "custom", "custom": {"name": "c"}}])
    assert caught.value.param == "tools.0"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
    ],
)
def test_tool_choice(choice: Any, expected: dict[str, Any]) -> None:
    """T-ANTH-022, T-ANTH-024: each choice has its form; no parallel calls is a field of it, but for none."""
    assert sent([HI], tools=[FUNCTION], tool_choice=choice)["tool_choice"] == expected
    alone = sent([HI], tools=[FUNCTION], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    assert alone == (expected if choice == "none" else {**expected, "disable_parallel_tool_use": True})


def test_no_parallel_calls_without_a_choice() -> None:
    """T-ANTH-024: the choice defaults to auto."""
    body = sent([HI], tools=[FUNCTION], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in sent([HI], tools=[FUNCTION])


def test_allowed_tools() -> None:
    """T-ANTH-023: the list is filtered, the mode stays."""
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    body = sent([HI], tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["name"] for tool in body["tools"]] == ["b"]
    assert body["tool_choice"] == {"type": "any"}


def test_a_forced_tool_and_budget_thinking() -> None:
    """T-ANTH-025: thinking goes and is named; an Anthropic client's request is its own affair."""
    out = oc([HI], tools=[FUNCTION], tool_choice="required", reasoning_effort="high")
    assert "thinking" not in out.body
    assert out.dropped == ("reasoning_effort",)
    body = {"tool_choice": {"type": "any"}, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    assert am(body).body["thinking"] == body["thinking"]


def test_models_that_let_no_tool_be_forced() -> None:
    """B.1: `required` becomes auto and is named as changed, a named tool is refused."""
    out = oc([HI], upstream=FABLE, tools=[FUNCTION], tool_choice="required")
    assert (out.body["tool_choice"], out.dropped) == ({"type": "auto"}, ("tool_choice~",))
    with pytest.raises(Unsupported) as caught:
        oc([HI], upstream=FABLE, tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "f"}})
    assert caught.value.param == "tool_choice"


def assistant(*ids: str, content: Any = None, **more: Any) -> dict[str, Any]:
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls, **more}


def result(id: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def test_calls_follow_text() -> None:
    """T-ANTH-026: text first, then the calls in order; their arguments are objects."""
    blocks = said(HI, assistant("a", "b", content="so"), result("a"), result("b"))[1]["content"]
    assert [block["type"] for block in blocks] == ["text", "tool_use", "tool_use"]
    assert blocks[1] == {"type": "tool_use", "id": "a", "name": "f", "input": {"a": 1}}


def test_broken_arguments_are_replayed_wrapped() -> None:
    """T-CORE-025, T-CORE-029, T-CORE-030: no JSON is wrapped; characters and key order stay."""
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{broken"}},
        {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"z":"é✓","a":1}'}},
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}},
    ]
    blocks = said(HI, {"role": "assistant", "content": None, "tool_calls": calls}, result("a"))[1]["content"]
    assert blocks[0]["input"] == {"__raw_arguments__": "{broken"}
    assert list(blocks[1]["input"].items()) == [("z", "é✓"), ("a", 1)]
    assert blocks[2]["input"] == {}


def test_results_share_one_turn() -> None:
    """T-ANTH-027, T-ANTH-028: all results in one user turn, in order, the user's text behind them."""
    talk = said(HI, assistant("a", "b", "c"), result("a"), result("b"), result("c"), {"role": "user", "content": "go"})
    assert len(talk) == 3
    assert [block.get("tool_use_id") or block["text"] for block in talk[2]["content"]] == ["a", "b", "c", "go"]
    assert talk[2]["content"][0] == {"type": "tool_result", "tool_use_id": "a", "content": "r"}


def test_results_with_media() -> None:
    """T-ANTH-029, T-ANTH-030: images and documents stand inside the result."""
    content = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    (block,) = said(HI, assistant("a"), result("a", content))[2]["content"]
    assert [one["type"] for one in block["content"]] == ["text", "image", "document"]


def test_a_failed_result() -> None:
    """T-ANTH-031: an error of the tool is told as one."""
    failed = ToolResult(id="a", parts=(Text(text="no"),), plain=True, is_error=True)
    turns = (
        Turn(role="user", parts=(Text(text="hi"),)),
        Turn(role="assistant", parts=(ToolCall(id="a", name="f", arguments="{}"),)),
        Turn(role="tool", parts=(failed,)),
    )
    body = upstream(Ask(dialect="gemini", model="m", tree={}, size=0, turns=turns))
    assert body["messages"][-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": "no", "is_error": True}
    ]


def test_unanswered_calls_and_orphan_results() -> None:
    """T-ANTH-032, T-ANTH-033: a call without result gets an error result, a result without call becomes text."""
    talk = said(HI, assistant("a", "b"), result("b"), result("x", "lost"), HI)
    assert talk[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "b", "content": "r"},
        {"type": "tool_result", "tool_use_id": "a", "content": "no result", "is_error": True},
        {"type": "text", "text": "lost"},
        {"type": "text", "text": "hi"},
    ]
    assert said(result("x", "lost"))[0]["content"] == [{"type": "text", "text": "lost"}]


def test_tool_ids_are_made_legal() -> None:
    """T-ANTH-034: an id with other characters is hashed, the same for call and result; legal ones stay."""
    talk = said(HI, assistant("call:1/é", "ok_1"), result("call:1/é"), result("ok_1"))
    first, second = (block["id"] for block in talk[1]["content"])
    assert first.startswith("toolu_")
    assert first.isascii()
    assert [block["tool_use_id"] for block in talk[2]["content"]] == [first, second] == [first, "ok_1"]


def test_signed_thinking_is_replayed() -> None:
    """T-ANTH-035, 036, 037: blocks go back unmodified, before text and calls, in their order."""
    details = [
        {"type": "reasoning.text", "text": "t1", "signature": "S1", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "DD", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.text", "text": "", "signature": "S2", "format": "anthropic-claude-v1", "index": 2},
    ]
    blocks = said(HI, assistant("a", content="x", reasoning_details=details), result("a"))[1]["content"]
    assert blocks[:3] == [
        {"type": "thinking", "thinking": "t1", "signature": "S1"},
        {"type": "redacted_thinking", "data": "DD"},
        {"type": "thinking", "thinking": "", "signature": "S2"},
    ]
    assert [block["type"] for block in blocks[3:]] == ["text", "tool_use"]


def test_unsigned_thinking_is_not_sent() -> None:
    """T-ANTH-038: thinking that no Claude model signed never becomes a thinking block, from either client."""
    out = oc([HI, {"role": "assistant", "content": "x", "reasoning_content": "hm"}, HI])
    assert "hm" not in json.dumps(out.body)
    assert out.dropped == ("messages.1.reasoning_content",)
    unsigned = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    shown = oc([HI, unsigned], options={"thinking_as_text": True})
    assert "<thinking>hm</thinking>" in json.dumps(shown.body)
    own = {"type": "thinking", "thinking": "a", "signature": "S"}
    content = [
        {"type": "thinking", "thinking": "b", "signature": ""},
        {"type": "thinking", "thinking": "c", "signature": "google-gemini-v1.x"},
        own,
        {"type": "text", "text": "x"},
    ]
    alone = {"role": "assistant", "content": content[:1]}
    body: Any = am({"messages": [HI, {"role": "assistant", "content": content}, HI, alone]}).body
    assert body["messages"] == [HI, {"role": "assistant", "content": [own, content[3]]}, HI]


@pytest.mark.parametrize(
    ("effort", "upstream", "expected"),
    [
        ("minimal", ADAPTIVE, "low"),
        ("low", ADAPTIVE, "low"),
        ("medium", ADAPTIVE, "medium"),
        ("high", ADAPTIVE, "high"),
        ("xhigh", ADAPTIVE, "max"),
        ("xhigh", OPUS, "xhigh"),
        ("max", OPUS, "max"),
    ],
)
def test_effort_on_adaptive_models(effort: str, upstream: str, expected: str) -> None:
    """T-ANTH-039: adaptive thinking with the effort, xhigh only where it is known."""
    body = sent([HI], upstream=upstream, reasoning_effort=effort)
    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"] == {"effort": expected}


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1024), ("low", 2048), ("medium", 8192), ("high", 16384), ("max", 32768)]
)
def test_effort_on_budget_models(effort: str, budget: int) -> None:
    """T-ANTH-040: a budget, max_tokens raised above it, sampling dropped."""
    out = oc([HI], reasoning_effort=effort, max_tokens=100, temperature=0.3, top_k=4)
    assert out.body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert out.body["max_tokens"] == budget + 1024
    assert out.dropped == ("temperature", "top_k")
    assert oc([HI], reasoning_effort=effort, temperature=1).dropped == ()


def test_no_effort() -> None:
    """T-ANTH-041: none is disabled on adaptive models and absent on budget models."""
    assert sent([HI], upstream=ADAPTIVE, reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent([HI], reasoning_effort="none")


def test_models_that_do_not_think() -> None:
    """B.1: on models without thinking the effort is dropped and named."""
    out = oc([HI], upstream=OLD, reasoning_effort="high")
    assert ("thinking" in out.body, out.dropped) == (False, ("reasoning_effort",))


def test_a_budget_becomes_an_effort() -> None:
    """B.11: a budget that an adaptive model cannot take becomes the nearest effort."""

    def effort(budget: int) -> Any:
        controls = Controls(thinking=Thinking(budget=budget))
        ask = Ask(dialect="gemini", model="m", tree={}, size=0, turns=OC_ASK.turns, controls=controls)
        return upstream(ask, OPUS)["output_config"]["effort"]

    assert [effort(budget) for budget in (1, 2048, 8192, 24576, 30000)] == ["low", "low", "medium", "high", "xhigh"]


def test_a_suffix_on_the_same_format() -> None:
    """Decision 15: thinking that the model's name asked for reaches an Anthropic client's body too."""
    ask = MESSAGES.read(json.dumps({"model": "m", "max_tokens": 5, "temperature": 0, "messages": [HI]}).encode(), {})
    asked = Ask(**{name: getattr(ask, name) for name in ask.__struct_fields__} | {"controls": _think(ask)})
    body = upstream(asked)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert "temperature" not in body


def _think(ask: Ask) -> Controls:
    fields = {name: getattr(ask.controls, name) for name in ask.controls.__struct_fields__}
    return Controls(**fields | {"thinking": Thinking(effort="low")})


def test_sampling() -> None:
    """T-ANTH-042, 043, 044: temperature is clamped and named, sampling goes where it is refused, top_k passes."""
    out = oc([HI], upstream=OLD, temperature=1.6, top_p=0.5, top_k=3)
    assert (out.body["temperature"], out.body["top_p"], out.body["top_k"]) == (1, 0.5, 3)
    assert out.dropped == ("temperature~",)
    refused = oc([HI], upstream=OPUS, temperature=0.5, top_p=0.5, top_k=3)
    assert refused.dropped == ("temperature", "top_k", "top_p")
    assert not {"temperature", "top_p", "top_k"} & set(refused.body)
    assert oc([HI], temperature=0.5, top_p=0.5).dropped == ("top_p",)


def test_stops() -> None:
    """T-ANTH-045: any number of stops, blank ones dropped."""
    assert sent([HI], stop="x")["stop_sequences"] == ["x"]
    assert sent([HI], stop=["a", " ", "b\n"])["stop_sequences"] == ["a", "b\n"]
    assert "stop_sequences" not in sent([HI], stop=["\n"])


def test_max_tokens() -> None:
    """T-ANTH-046, decision 14: the client's number, else the channel's, else the model's limit, else 8192."""
    assert sent([HI], max_completion_tokens=7, max_tokens=9)["max_tokens"] == 7
    assert sent([HI], options={"default_max_tokens": 100})["max_tokens"] == 100
    assert sent([HI], upstream="claude-3-haiku-20240307")["max_tokens"] == 4096
    assert sent([HI])["max_tokens"] == 64000
    assert sent([HI], upstream="some-model")["max_tokens"] == 8192


def format_of(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, **more}}


def test_json_schema() -> None:
    """T-ANTH-047: the schema goes to output_config, closed, its limits told in words."""
    schema = sent([HI], response_format=format_of())["output_config"]["format"]["schema"]
    assert schema == {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": "(minimum: 1)"}},
        "additionalProperties": False,
    }


def test_json_by_words() -> None:
    """T-ANTH-048, T-ANTH-049: without a mode the system text asks for JSON; a strict channel refuses strict schemas."""
    body = sent([{"role": "system", "content": "s"}, HI], upstream=OLD, response_format=format_of())
    assert "output_config" not in body
    assert body["system"][0]["text"] == "s"
    assert '"minimum":1' in body["system"][1]["text"]
    assert "JSON object" in sent([HI], response_format={"type": "json_object"})["system"][0]["text"]
    with pytest.raises(Unsupported) as caught:
        oc([HI], upstream=OLD, options={"strict_params": True}, response_format=format_of(strict=True))
    assert caught.value.param == "response_format"


JSON_ASK = CHAT.read(
    json.dumps({"model": "m", "messages": [HI], "response_format": {"type": "json_object"}}).encode(), {}
)


@pytest.mark.parametrize(
    "text",
    ['```json\n{"a": "```"}\n```', '{"a": "```"}', '\n```\n{"a": "```"}\n```\n', '``` {"a": "```"} ```'],
)
def test_the_fence_comes_off(text: str) -> None:
    """T-ANTH-048, T-ANTH-049: the answer parses as JSON, whole and streamed in single characters."""
    whole = fold(answer([{"type": "text", "text": text}], JSON_ASK)).choices[0].text
    streamed = fold(events(fake.stream([fake.text(*text)]), JSON_ASK)).choices[0].text
    assert json.loads(whole) == json.loads(streamed) == {"a": "```"}


@given(st.lists(st.text(alphabet="`a\n {}", max_size=5), max_size=8))
def test_a_fence_never_depends_on_the_cut(pieces: list[str]) -> None:
    """The same text in any pieces gives the same answer."""

    def through(given: Iterable[str]) -> str:
        fence = Fence()
        return "".join(fence.feed(piece) for piece in given) + fence.close()

    assert through(pieces) == through("".join(pieces)) == through(["".join(pieces)])


def test_cache_marks() -> None:
    """T-ANTH-050, 051, 052: marks stay on their blocks with their ttl; of more than four the last ones are kept."""

    def marked(text: str, **mark: Any) -> dict[str, Any]:
        return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **mark}}

    system = {"role": "system", "content": [marked("s", ttl="1h")]}
    user = {"role": "user", "content": [marked("a"), marked("b"), marked("c", ttl="5m")]}
    body = sent([system, user], tools=[{**FUNCTION, "cache_control": {"type": "ephemeral"}}])
    assert "cache_control" not in body["tools"][0]
    assert body["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["messages"][0]["content"][2]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    automatic = sent([system, user], prompt_cache_retention="24h")
    assert automatic["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in automatic["system"][0]
    turn = Turn(role="user", parts=(Text(text="x", cache=CacheMark(ttl="30m")),))
    ask = Ask(dialect="x", model="m", tree={}, size=0, turns=(turn,))
    block = upstream(ask)["messages"][0]["content"][0]
    assert block["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


def test_usage_with_cache() -> None:
    """T-ANTH-053, 054, 057, 058: input joins what was cached; the 1h part, thinking and searches have their fields."""
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    }
    assert used(answer([], usage=usage)) == Usage(
        prompt=140,
        completion=50,
        cache_read=100,
        cache_write=10,
        cache_write_1h=20,
        reasoning=40,
        server_tools={"web_search_requests": 2},
    )
    del usage["cache_creation"]
    assert (used(answer([], usage=usage)).cache_write, used(answer([], usage=usage)).cache_write_1h) == (30, 0)


def test_compaction_is_summed() -> None:
    """T-ANTH-055: what the same model did beside is in the sum."""
    iterations = [
        {"type": "compaction", "input_tokens": 100, "output_tokens": 83, "cache_read_input_tokens": 5000},
        {"type": "message", "input_tokens": 181, "output_tokens": 8},
    ]
    usage = used(answer([], usage={"input_tokens": 181, "output_tokens": 8, "iterations": iterations}))
    assert (usage.prompt, usage.completion, usage.cache_read, usage.others) == (5281, 91, 5000, ())


def test_an_advisor_is_billed_apart() -> None:
    """T-ANTH-056: another model's iterations stand beside, under its name."""
    iterations = [
        {"type": "message", "input_tokens": 10, "output_tokens": 3},
        {"type": "advisor_message", "model": "claude-opus-4-7", "input_tokens": 27, "output_tokens": 38},
        {"type": "message", "input_tokens": 36, "output_tokens": 4},
    ]
    usage = used(answer([], usage={"input_tokens": 46, "output_tokens": 7, "iterations": iterations}))
    assert (usage.prompt, usage.completion) == (46, 7)
    assert usage.others == (("claude-opus-4-7", Usage(prompt=27, completion=38)),)


@pytest.mark.parametrize("number", [-1, MOST + 1, 2**63, "7", None, True, 1.5, [], {}])
def test_absurd_counts_are_not_there(number: Any) -> None:
    """Fault U27: what cannot be a count is not taken for one."""
    counts = {"input_tokens": number, "output_tokens": 3, "cache_read_input_tokens": number, "iterations": number}
    assert used(answer([], usage=counts)).prompt == 0
    found = answer([], usage={"input_tokens": number, "output_tokens": number})
    assert not [event for event in found if isinstance(event, Metered)]


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "context_overflow"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        ("pause_turn", "pause"),
        ("compaction", "stop"),
        ("made_up", "stop"),
    ],
)
def test_stop_reasons(native: str, reason: str) -> None:
    """T-ANTH-059, T-ANTH-061: every reason has its finish, whole and streamed, and its own word beside it."""
    for found in (answer([], stop_reason=native), events(fake.stream([], stop=native))):
        (finished,) = [event for event in found if isinstance(event, Finished)]
        assert (finished.reason, finished.native) == (reason, native)


def test_stop_sequence_and_refusal() -> None:
    """T-ANTH-045, T-ANTH-060: the matched sequence and a refusal's explanation are told."""
    found = answer([], stop_reason="stop_sequence", stop_sequence="END")
    assert Finished("stop", 0, "END", "stop_sequence") in found
    details = {"type": "refusal", "category": "x", "explanation": "because"}
    found = events(fake.stream([], stop="refusal", stop_details=details))
    assert Finished("refusal", 0, None, "refusal", "because") in found


def test_web_citations_know_their_place() -> None:
    """T-ANTH-062, T-ANTH-063: web citations get offsets into the joined text, others stay verbatim."""
    web = {"type": "web_search_result_location", "url": "https://e.example", "title": "T", "encrypted_index": "x"}
    page = {"type": "char_location", "cited_text": "c"}
    blocks = [
        {"type": "text", "text": "Héllo "},
        {"type": "text", "text": "you", "citations": [web, page]},
    ]
    delta = [{"type": "citations_delta", "citation": web}, {"type": "citations_delta", "citation": page}]
    cited_text = ({"type": "text", "text": "", "citations": []}, [*delta, *fake.text("you")[1]])
    raw = fake.stream([fake.text("Héllo "), cited_text])
    for found in (answer(blocks), events(raw)):
        cited = [event for event in found if isinstance(event, Cited)]
        assert Cited({"url": "https://e.example", "title": "T", "start": 6, "end": 9}, "web", 0, 1) in cited
        assert Cited(page, "anthropic", 0, 1) in cited


MIXED = fake.stream(
    [
        fake.thinking("h✓m", "S=="),
        ({"type": "redacted_thinking", "data": "DD"}, []),
        fake.text("Hé", "", "llo"),
        fake.call("toolu_1", "f", "", '{"a"', ': "é"}'),
        fake.call("toolu_2", "g"),
        (
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            [{"type": "input_json_delta", "partial_json": '{"q":1}'}],
        ),
        ({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}, []),
        ({"type": "compaction", "content": ""}, [{"type": "compaction_delta", "content": "short"}]),
    ],
    stop="tool_use",
    usage={"output_tokens": 30},
    start={"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 1},
)
MIXED_WHOLE: list[Any] = [
    {"type": "thinking", "thinking": "h✓m", "signature": "S=="},
    {"type": "redacted_thinking", "data": "DD"},
    {"type": "text", "text": "Héllo"},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "é"}},
    {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
    {"type": "compaction", "content": "short"},
]


def test_a_stream_of_everything() -> None:
    """T-ANTH-064 to 069, 082: calls count from 0 whatever their block, silence is {}, server blocks come whole."""
    found = events(MIXED)
    assert [event for event in found if not isinstance(event, (Metered, TextDelta))] == [
        Started("msg_01A", "claude-sonnet-4-5-20250929"),
        ReasoningDelta("h✓m", 0, 0),
        ReasoningSealed("S==", None, "anthropic-claude-v1", 0, 0),
        ReasoningSealed(None, "DD", "anthropic-claude-v1", 0, 1),
        CallStarted(0, "toolu_1", "f", 0, 3),
        CallDelta(0, '{"a"'),
        CallDelta(0, ': "é"}'),
        CallStarted(1, "toolu_2", "g", 0, 4),
        CallDelta(1, "{}"),
        Block(MIXED_WHOLE[5], "anthropic", 0, 5),
        Block(MIXED_WHOLE[6], "anthropic", 0, 6),
        Block(MIXED_WHOLE[7], "anthropic", 0, 7),
        Finished("tool_calls", 0, None, "tool_use"),
        Ended(),
    ]
    assert used(found) == Usage(prompt=15, completion=30, cache_read=3)


def test_a_stream_equals_its_whole() -> None:
    """Stream equals whole: the same answer folded from both."""
    usage = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 30}
    whole = fold(answer(MIXED_WHOLE, stop_reason="tool_use", usage=usage))
    streamed = fold(events(MIXED))
    for call in (*whole.choices[0].calls, *streamed.choices[0].calls):
        call.arguments = json.loads(call.arguments)
    assert streamed == whole


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_any_cut_gives_the_same_events(size: int) -> None:
    """T-CORE-021: pieces of any size, line ends of either kind."""
    assert events(MIXED, size=size) == events(MIXED)
    assert events(MIXED.replace(b"\n", b"\r\n"), size=size) == events(MIXED)


def test_one_cut_anywhere_gives_the_same_bytes() -> None:
    """Cut once at every position, both clients get the same bytes, and the grammar of both holds."""

    def shown(pieces: list[bytes]) -> tuple[bytes, bytes]:
        decoder, reader = DIALECT.frames(), DIALECT.reader(OC_ASK)
        passer = MESSAGES.passer(ASK, FACE)
        writer = MESSAGES.writer(ASK, FACE)
        out, own = b"", b""
        frames = [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.close()
        for frame in frames:
            told = list(reader.read(frame))
            own += passer.frame(frame, told)
            out += b"".join(writer.feed(event) for event in told)
        usage = Usage(prompt=15, completion=30)
        return out + writer.close(usage), own + passer.close(usage)

    written, passed = shown([MIXED])
    assert passed == MIXED
    assert fake.Received(written).blocks == MIXED_WHOLE
    for at in range(1, len(MIXED)):
        assert shown([MIXED[:at], MIXED[at:]]) == (written, passed)


def test_padded_data_and_pings() -> None:
    """T-ANTH-064: trailing blanks in data and pings anywhere mean nothing."""
    padded = MIXED.replace(b"}\n\n", b'}      \n\nevent: ping\ndata: {"type": "ping"}\n\n')
    ended = padded.index(b'"message_stop"')
    assert events(padded[: padded.index(b"\n\n", ended) + 2]) == events(MIXED)


def test_usage_of_a_delta_replaces_that_of_the_start() -> None:
    """T-ANTH-069: the last count of each field is the one, also where it is smaller; nothing is summed."""
    start = {"input_tokens": 100, "cache_read_input_tokens": 55, "output_tokens": 1}
    delta = {"input_tokens": 181, "cache_read_input_tokens": 0, "output_tokens": 8}
    assert used(events(fake.stream([], usage=delta, start=start))) == Usage(prompt=181, completion=8)
    second = fake.event({"type": "message_start", "message": {"usage": start}})
    again = fake.stream([], usage=delta, start=start).replace(b"event: message_stop", second + b"event: message_stop")
    assert sum(isinstance(event, Started) for event in events(again)) == 1


def test_errors_inside_a_stream() -> None:
    """T-ANTH-070, T-ANTH-071: an error event is the failure it names."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    (failed,) = [event for event in events(fake.event(error)) if isinstance(event, Failed)][:1]
    assert (failed.failure.kind, failed.failure.status, failed.failure.message) == ("overloaded", 503, "Overloaded")
    (whole,) = DIALECT.answer(ASK, Document(json.dumps(error).encode()))
    assert isinstance(whole, Failed)


def test_a_cut_stream_is_a_failure() -> None:
    """A stream without its stop reason and its end was cut; with either it is complete."""
    cut = MIXED[: MIXED.index(b"event: message_delta")]
    assert isinstance(events(cut)[-1], Failed)
    assert not any(isinstance(event, Failed) for event in events(MIXED[: MIXED.index(b"event: message_stop")]))
    found = events(fake.stream([fake.call("a", "f")], stop=None))
    assert Finished("tool_calls") in found


def test_what_is_unknown_is_ignored() -> None:
    """T-ANTH-072: unknown events and deltas yield nothing, broken frames are counted."""
    odd = fake.event({"type": "brand_new"}) + fake.event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "brand_new_delta"}}
    )
    assert [event for event in events(odd + MIXED) if isinstance(event, Started)]
    assert isinstance(events(b"event: x\ndata: {broken\n\n")[0], Skipped)
    assert not any(isinstance(event, Skipped) for event in events(b"data: [DONE]\n\n: comment\n\ndata:\n\n" + MIXED))


@pytest.mark.parametrize(
    ("status", "type_", "message", "expected"),
    [
        (400, "invalid_request_error", "effort: xhigh is not supported", (400, "bad_request", "nobody")),
        (404, "not_found_error", "model: nope", (404, "not_found", "nobody")),
        (413, "request_too_large", "too large", (413, "too_large", "nobody")),
        (529, "overloaded_error", "Overloaded", (503, "overloaded", "channel")),
        (500, "api_error", "Internal", (502, "upstream", "channel")),
        (429, "rate_limit_error", "slow down", (429, "rate_limit", "key")),
        (401, "authentication_error", "invalid x-api-key", (502, "upstream_auth", "key")),
        (400, "invalid_request_error", "Your credit balance is too low", (502, "upstream_auth", "key")),
        (200, "overloaded_error", "Overloaded", (503, "overloaded", "channel")),
    ],
)
def test_failures(status: int, type_: str, message: str, expected: tuple[int, str, str]) -> None:
    """T-ANTH-073 to 076, T-CORE-013: the type speaks first, the message is kept, dead keys are the channel's."""
    body = json.dumps({"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}).encode()
    failure = DIALECT.failure(status, {"retry-after": "7"}, body)
    assert (failure.status, failure.kind, failure.blames) == expected
    assert failure.upstream_status == status
    assert failure.message == message
    assert failure.retry_after == 7
    assert "req_1" not in failure.message


def test_not_found_has_the_models_code() -> None:
    """T-ANTH-074, T-CORE-018: an unknown model is model_not_found; a page of HTML is bad_response, never shown."""
    body = b'{"type":"error","error":{"type":"not_found_error","message":"model: x"}}'
    assert DIALECT.failure(404, {}, body).code == "model_not_found"
    page = DIALECT.failure(502, {}, b"<html>secret</html>")
    assert (page.status, page.code, "secret" in page.message) == (502, "bad_response", False)


def test_the_user_and_the_tier() -> None:
    """T-ANTH-077, T-ANTH-078: safety_identifier before user; known tiers are mapped, others dropped."""
    assert sent([HI], user="u", safety_identifier="s")["metadata"] == {"user_id": "s"}
    assert sent([HI], user="u")["metadata"] == {"user_id": "u"}
    assert [sent([HI], service_tier=tier).get("service_tier") for tier in ("auto", "default", "flex")] == [
        "auto",
        "standard_only",
        None,
    ]
    assert oc([HI], service_tier="flex").dropped == ("service_tier",)


def test_what_only_steers_is_dropped_and_named() -> None:
    """T-ANTH-079, T-CORE-002, T-CORE-003: absent upstream, listed in order; a strict channel refuses it."""
    more: dict[str, Any] = {
        "seed": 0,
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logit_bias": {"1": 2},
        "store": True,
        "verbosity": "low",
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "made_up": 1,
    }
    out = oc([HI], **more)
    assert out.dropped == tuple(sorted(more))
    assert not set(more) & set(out.body)
    with pytest.raises(Unsupported) as caught:
        oc([HI], options={"strict_params": True}, seed=1)
    assert (caught.value.param, caught.value.code) == ("seed", "unsupported_parameter")


@pytest.mark.parametrize(
    ("more", "param"),
    [({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"modalities": ["text", "audio"]}, "modalities")],
)
def test_promises_that_cannot_be_kept(more: dict[str, Any], param: str) -> None:
    """T-CORE-031, T-CORE-032: refused with the parameter's name."""
    with pytest.raises(Unsupported) as caught:
        oc([HI], **more)
    assert caught.value.param == param
    assert oc([HI], n=1, logprobs=False, modalities=["text"]).dropped == ()


def test_web_search() -> None:
    """B.1: web_search_options become the server tool; the context's size is dropped."""
    options = {"search_context_size": "low", "user_location": {"type": "approximate", "approximate": {"city": "Bern"}}}
    options |= {"filters": {"allowed_domains": ["a.example"], "blocked_domains": []}}  # a wish of Responses clients
    out = oc([HI], web_search_options=options)
    assert out.body["tools"] == [
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "user_location": {"type": "approximate", "city": "Bern"},
            "allowed_domains": ["a.example"],
        }
    ]
    assert out.dropped == ("web_search_options.search_context_size",)


def test_counting() -> None:
    """T-ANTH-080: counted by Anthropic itself, without what only steers the answer."""
    counting = ADAPTER.counting
    assert counting is not None
    ask = COUNT.read(json.dumps({"model": "m", "messages": [HI], "max_tokens": 3, "system": "s"}).encode(), {})
    out = counting.request(ask, target())
    assert out.url == "https://h.example/v1/messages/count_tokens"
    assert out.body == {"model": SONNET, "messages": [HI], "system": "s"}
    assert counting.tokens(b'{"input_tokens": 7}') == 7
    assert counting.tokens(b'{"input_tokens": "7"}') is None
    assert counting.tokens(b"[]") is None
    translated: Any = counting.request(OC_ASK, target()).body
    assert "max_tokens" not in translated


def test_betas_and_versions() -> None:
    """T-ANTH-081: the client's betas and the channel's, each once; the client's version wins."""
    headers = {"anthropic-beta": "a, b", "anthropic-version": "2024-01-01"}
    out = am({}, headers, beta=("b", "c"))
    assert out.headers["anthropic-beta"] == "a,b,c"
    assert out.headers["anthropic-version"] == "2024-01-01"
    assert am({}, auth="bearer").headers["authorization"] == "Bearer k"
    assert am({}, auth="api-key").headers["api-key"] == "k"


def test_server_tools() -> None:
    """T-ANTH-082: verbatim for an Anthropic client, with their blocks in history; another family's are refused."""
    body = {
        "tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}],
        "mcp_servers": [{"type": "url", "url": "https://m.example", "name": "m"}],
        "messages": [HI, {"role": "assistant", "content": [MIXED_WHOLE[5], MIXED_WHOLE[6]]}, HI],
    }
    assert am(body).body == {"model": SONNET, "max_tokens": 5, **body}
    tool = Tool(name="file_search", kind="server", server={}, family="openai", path="tools.0")
    with pytest.raises(Unsupported):
        DIALECT.request(Ask(dialect="x", model="m", tree={}, size=0, turns=OC_ASK.turns, tools=(tool,)), target())


def test_no_vendor_needs_the_version_path() -> None:
    """Interfaces §3: a base that ends in the version path is not doubled."""
    to = Target(channel="c", base_url="https://h.example/v1", key=Secret("k"), model="m", options=AnthropicOptions())
    assert DIALECT.request(ASK, to).url == "https://h.example/v1/messages"


def test_the_key_is_nowhere_but_in_its_header() -> None:
    """The key shows in one header and in no form of the rest."""
    out = DIALECT.request(ASK, target())
    assert [name for name, value in out.headers.items() if value == "k"] == ["x-api-key"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-3-opus-20240229", ("none", 4096, False, True)),
        ("claude-2.1", ("none", 4096, False, True)),
        ("anthropic.claude-v2:1", ("none", 4096, False, True)),
        ("claude-3-7-sonnet-latest", ("budget", 64000, False, True)),
        ("claude-opus-4-20250514", ("budget", 32000, False, True)),
        ("claude-opus-4-1-20250805", ("budget", 32000, True, True)),
        ("claude-haiku-4-5-20251001", ("budget", 64000, True, True)),
        ("anthropic/claude-sonnet-4.5", ("budget", 64000, True, True)),
        ("us.anthropic.claude-opus-4-8-v1:0", ("adaptive", 128000, True, False)),
        ("claude-sonnet-5", ("adaptive", 64000, True, False)),
        ("claude-mythos-preview", ("adaptive", 64000, True, False)),
        ("kimi-k2", ("budget", None, False, True)),
    ],
)
def test_what_models_take(model: str, expected: tuple[str, int | None, bool, bool]) -> None:
    """The table knows a model in any cloud's spelling."""
    known = traits(model)
    assert (known.thinking, known.limit, known.structured, known.sampling) == expected


def test_schemas_are_closed_everywhere() -> None:
    """Every object is closed, properties named like keywords are left alone, the given schema is not changed."""
    schema = {
        "type": "object",
        "properties": {
            "minimum": {"type": "string", "maxLength": 3, "description": "d"},
            "list": {"type": "array", "items": {"properties": {"x": True}}},
            "any": {"anyOf": [{"type": ["object", "null"]}, {"$ref": "#/$defs/d"}]},
        },
        "$defs": {"d": {"type": "object", "additionalProperties": {"type": "object"}}},
        "required": ["minimum"],
    }
    before = json.dumps(schema)
    closed = _schema.closed(schema)
    assert json.dumps(schema) == before
    assert closed["properties"]["minimum"] == {"type": "string", "description": "d (maxLength: 3)"}
    assert closed["properties"]["list"]["items"]["additionalProperties"] is False
    assert closed["properties"]["any"]["anyOf"][0]["additionalProperties"] is False
    assert closed["$defs"]["d"] == {"type": "object", "additionalProperties": False}
    assert closed["required"] == ["minimum"]


FACE = Face(model="asked", id="r1", created=0)


@given(st.data())
@settings(max_examples=150)
def test_mutated_streams_end_in_events_or_a_declared_error(data: st.DataObject) -> None:
    """Mutated bytes in arbitrary pieces never raise anything but a ProxyError, in reader, writer and passer."""
    raw = bytearray(MIXED)
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "copy", "swap"])):
            case "flip":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 30))]
            case "copy":
                raw[at:at] = raw[at : at + 60]
            case _:
                word = data.draw(st.sampled_from([b"null", b"[]", b"{}", b"-1", b'"x"', b"text_delta", b"tool_use"]))
                raw[at : at + len(word)] = word
        if not raw:
            return
    try:
        decoder, reader = DIALECT.frames(), DIALECT.reader(OC_ASK)
        passer, writer = MESSAGES.passer(ASK, FACE), MESSAGES.writer(ASK, FACE)
        chat = CHAT.writer(OC_ASK, FACE)
        for frame in [*decoder.feed(bytes(raw)), *decoder.close()]:
            told = list(reader.read(frame))
            passer.frame(frame, told)
            for event in told:
                writer.feed(event)
                chat.feed(event)
        list(reader.close())
        passer.close(Usage())
        writer.close(Usage())
    except ProxyError:
        pass


_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "id", "name", "input", "citations", "content", "error", "message", "usage"]
            ),
            inner | st.sampled_from(["text", "tool_use", "thinking", "error", "message"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(_VALUE, _VALUE)
@settings(max_examples=150)
def test_any_body_is_an_answer_or_a_failure(content: Any, usage: Any) -> None:
    """Arbitrary JSON as an answer, an error or a count raises nothing but a ProxyError."""
    for body in (content, {"content": [content, usage], "usage": usage, "stop_reason": content}):
        raw = json.dumps(body).encode()
        found = DIALECT.answer(OC_ASK, Document(raw))
        assert found
        MESSAGES.answer(ASK, FACE, found, Usage())
        assert DIALECT.failure(400, {}, raw).status >= 400
        assert ADAPTER.counting is not None
        ADAPTER.counting.tokens(raw)


def test_a_media_part_of_another_dialect() -> None:
    """A picture that came as a file is sent as a picture; a type that nobody gave is read from the bytes."""
    parts = (
        Media(kind="file", media_type="image/png", data="AAAA", path="p"),
        Media(kind="image", data="/9j/4AAQ", path="p"),
    )
    ask = Ask(dialect="gemini", model="m", tree={}, size=0, turns=(Turn(role="user", parts=parts),))
    blocks = upstream(ask)["messages"][0]["content"]
    assert [block["source"]["media_type"] for block in blocks] == ["image/png", "image/jpeg"]


def test_the_record() -> None:
    """What the rest of the program reads of this type."""
    assert (ADAPTER.numbers, ADAPTER.base_url, ADAPTER.retry_400, ADAPTER.owner) == (
        (14,),
        "https://api.anthropic.com",
        True,
        "claude",
    )
