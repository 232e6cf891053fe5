"""The OpenAI chat surface: reading asks, whole answers, the stream writer, the passer."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from newapi_proxy.errors import ClientError, OurError, UpstreamFailure
from newapi_proxy.ir.ask import (
    Ask,
    CacheMark,
    Choice,
    Format,
    Media,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.surfaces._openai_write import MOST_THOUGHT
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
FACE = Face(model="asked", id="chatcmpl-ours", created=7)
USAGE = Usage(prompt=10, completion=4, cache_read=3, cache_write=2, reasoning=1)


def ask(messages: Any = HI, **more: Any) -> Ask:
    """An ask out of a body with these messages and fields."""
    return CHAT.read(orjson.dumps({"model": "asked", "messages": messages, **more}), {})


def fault(**more: Any) -> ClientError:
    """What reading this body raises."""
    with pytest.raises(ClientError) as told:
        CHAT.read(orjson.dumps({"model": "asked", "messages": HI, **more}), {})
    return told.value


def chunks(data: bytes) -> list[Any]:
    """The payloads of a stream; `[DONE]` as a string."""
    frames = sse.Decoder()
    found = [*frames.feed(data), *frames.close()]
    return ["[DONE]" if one.done else orjson.loads(one.data) for one in found if one.data is not None]


def written(events: list[Event], asked: Ask | None = None, face: Face = FACE, usage: Usage = USAGE) -> list[Any]:
    """What a writer makes of the events."""
    writer = CHAT.writer(asked or ask(stream=True), face)
    return chunks(b"".join([writer.feed(one) for one in events]) + writer.close(usage))


def deltas(told: list[Any], choice: int = 0) -> list[Any]:
    """The deltas of one choice."""
    return [
        one["delta"] for chunk in told if isinstance(chunk, dict) for one in chunk["choices"] if one["index"] == choice
    ]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": ""}, "model", "model is required"),
    ({"model": None}, "model", "model is required"),
    ({"model": 3}, "model", "must be a string"),
    ({"messages": []}, "messages", "field messages is required"),
    ({"messages": None}, "messages", "field messages is required"),
    ({"messages": "x"}, "messages", "must be an array"),
    ({"messages": [3]}, "messages.0", "must be an object"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "must be one of"),
    ({"messages": [{"content": "x"}]}, "messages.0.role", "must be one of"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role", "must be a string"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "must be an array"),
    ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0", "must be an object"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "messages.0.content.0.text",
        "must be a string",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content.0.image_url.url",
        "must be a string",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}]},
        "messages.0.content.0.image_url",
        "base64",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"filename": "a"}}]}]},
        "messages.0.content.0.file",
        "file_data or file_id",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id", "is required"),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.name", "is required"),
    ({"messages": [{"role": "user", "content": "x", "name": 3}]}, "messages.0.name", "must be a string"),
    ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages.0.tool_calls", "must be an array"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}]},
        "messages.0.tool_calls.0.function.name",
        "must be a string",
    ),
    (
        {"messages": [{"role": "assistant", "reasoning_details": [3]}]},
        "messages.0.reasoning_details.0",
        "must be an object",
    ),
    ({"max_tokens": -1}, "max_tokens", "max_tokens is invalid"),
    ({"max_completion_tokens": 2**31}, "max_completion_tokens", "max_tokens is invalid"),
    ({"max_tokens": "9"}, "max_tokens", "must be a number"),
    ({"max_tokens": 1.5}, "max_tokens", "must be a whole number"),
    ({"temperature": "hot"}, "temperature", "must be a number"),
    ({"temperature": True}, "temperature", "must be a number"),
    ({"n": 0}, "n", "between 1 and 128"),
    ({"n": 129}, "n", "between 1 and 128"),
    ({"stop": [1]}, "stop.0", "must be a string"),
    ({"stop": {}}, "stop", "must be an array"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed"),
    ({"stream": True, "stream_options": []}, "stream_options", "must be an object"),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "must be an object"),
    (
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
        "tools.0.function.parameters",
        "must be an object",
    ),
    ({"tool_choice": "maybe"}, "tool_choice", "must be none"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function", "must be an object"),
    ({"response_format": "json"}, "response_format", "must be an object"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "must be an object"),
    ({"seed": "x"}, "seed", "must be a number"),
    ({"metadata": []}, "metadata", "must be an object"),
    ({"reasoning_effort": 3}, "reasoning_effort", "must be a string"),
]


@pytest.mark.parametrize(("fields", "param", "message"), WRONG, ids=[f"{one[1]}-{n}" for n, one in enumerate(WRONG)])
def test_wrong_fields(fields: dict[str, Any], param: str, message: str) -> None:
    """A wrong field is a 400 `invalid_text_request` that names its path."""
    told = fault(**fields)
    assert (told.status, told.code, told.param) == (400, "invalid_text_request", param)
    assert message in told.message


def test_text_turns() -> None:
    """Plain messages become turns of one text each, in order."""
    read = ask([{"role": "system", "content": "S"}, {"role": "developer", "content": "D"}, *HI])
    assert [(turn.role, turn.plain, turn.path) for turn in read.turns] == [
        ("system", True, "messages.0"),
        ("developer", True, "messages.1"),
        ("user", True, "messages.2"),
    ]
    assert read.turns[0].parts == (Text(text="S"),)
    assert read.leading() == 2


def test_content_parts() -> None:
    """Images, sounds, files and films are media with bytes, an address or an id."""
    parts = [
        {"type": "text", "text": "T", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": "https://h.example/a.png"},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,CCCC"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://h.example/a.mp4", "fps": 2}},
        {"type": "hologram", "hologram": 1},
    ]
    (turn,) = ask([{"role": "user", "content": parts}]).turns
    text, image, linked, sound, file, stored, film, other = turn.parts
    assert isinstance(text, Text)
    assert text.cache == CacheMark(ttl="1h")
    assert image == Media(kind="image", media_type="image/png", data="AAAA", detail="low", path="messages.0.content.1")
    assert isinstance(linked, Media)
    assert linked.url == "https://h.example/a.png"
    assert isinstance(sound, Media)
    assert (sound.media_type, sound.data) == ("audio/mpeg", "BBBB")
    assert isinstance(file, Media)
    assert (file.media_type, file.data, file.filename) == ("application/pdf", "CCCC", "a.pdf")
    assert isinstance(stored, Media)
    assert stored.file_id == "file-1"
    assert isinstance(film, Media)
    assert film.extra == {"fps": 2}
    assert isinstance(other, ServerBlock)
    assert other.value == parts[-1]


def test_calls_and_results() -> None:
    """An assistant's calls keep their raw arguments, their signature and their kind; results keep their call's id."""
    messages = [
        {
            "role": "assistant",
            "content": "Let me",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"x": '},
                    "extra_content": {"google": {"thought_signature": "sig"}},
                },
                {"id": "b", "type": "custom", "custom": {"name": "g", "input": "raw"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}]},
    ]
    said, result = ask(messages).turns
    text, first, second = said.parts
    assert isinstance(text, Text)
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.arguments, first.signature) == ('{"x": ', "sig")
    assert (second.kind, second.arguments) == ("custom", "raw")
    (part,) = result.parts
    assert isinstance(part, ToolResult)
    assert (part.id, part.plain) == ("a", False)


def test_legacy_functions() -> None:
    """T-CORE-026, T-CORE-027: functions are tools, and a function message answers the last call of its name."""
    messages = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
    ]
    read = ask(messages, functions=[{"name": "f", "parameters": {"type": "object"}}], function_call={"name": "f"})
    call, result = read.turns[0].parts[0], read.turns[1].parts[0]
    assert isinstance(call, ToolCall)
    assert isinstance(result, ToolResult)
    assert call.id == result.id
    assert read.turns[1].role == "tool"
    assert read.legacy_functions
    assert read.tools[0].name == "f"
    assert read.choice == Choice(mode="named", name="f")


def test_null_content_is_empty_text() -> None:
    """T-CORE-028: `content: null` without calls is empty text."""
    assert ask([{"role": "assistant", "content": None}]).turns[0].parts == (Text(text=""),)
    assert ask([{"role": "user", "content": None}]).turns[0].parts == (Text(text=""),)


def test_refusal_in_the_history() -> None:
    """A refusal is a part of its own."""
    assert ask([{"role": "assistant", "content": None, "refusal": "No."}]).turns[0].parts == (Refusal(text="No."),)


def test_reasoning_in_the_history() -> None:
    """Reasoning is read from its text, from its details, and from fragments of details as streams give them."""

    def parts(**more: Any) -> tuple[Any, ...]:
        return ask([{"role": "assistant", "content": "x", **more}]).turns[0].parts[:-1]

    assert parts(reasoning_content="A") == (Reasoning(text="A"),)
    assert parts(reasoning="A") == (Reasoning(text="A"),)
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    pieces = [{**detail, "text": "A"}, {**detail, "text": "B"}, {**detail, "signature": "s"}]
    whole = Reasoning(text="AB", signature="s", format="anthropic-claude-v1")
    assert parts(reasoning_details=pieces) == (whole,)
    assert parts(reasoning_details=[{**detail, "signature": "s"}], reasoning_content="AB") == (whole,)
    hidden = {"type": "reasoning.encrypted", "data": "d", "format": "google-gemini-v1", "index": 1}
    assert parts(reasoning_details=[hidden]) == (Reasoning(data="d", format="google-gemini-v1"),)


def test_controls() -> None:
    """Controls are read once, steering keeps its names, and unknown names are listed."""
    read = ask(
        max_tokens=1,
        max_completion_tokens=2,
        temperature=0,
        stop="x",
        seed=None,
        logit_bias={"1": 2},
        parallel_tool_calls=False,
        user="u",
        vendor={"a": 1},
    )
    controls = read.controls
    assert (controls.max_tokens, controls.temperature, controls.stop, controls.parallel_tools) == (2, 0, ("x",), False)
    assert controls.steering == {"logit_bias": {"1": 2}}
    assert controls.user == "u"
    assert read.unknown == ("vendor",)
    assert read.tree["vendor"] == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_effort": "high"}, Thinking(effort="high")),
        ({"reasoning_effort": "none"}, Thinking(effort="none", disabled=True)),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, Thinking(budget=9)),
        ({"thinking": {"type": "disabled"}}, Thinking(disabled=True)),
        ({"reasoning": {"effort": "low", "max_tokens": 5}}, Thinking(effort="low", budget=5)),
        ({"enable_thinking": False}, Thinking(disabled=True)),
        ({"reasoning_effort": "default"}, None),
        ({}, None),
    ],
)
def test_thinking(fields: dict[str, Any], thinking: Thinking | None) -> None:
    """Effort and budget are understood in each of their spellings."""
    assert ask(**fields).controls.thinking == thinking


def test_formats_and_choices() -> None:
    """Structured output and the choice of tools, the list of allowed ones included."""
    schema = {"name": "a", "schema": {"type": "object"}, "strict": True}
    read = ask(response_format={"type": "json_schema", "json_schema": schema})
    assert read.controls.format == Format(kind="json_schema", name="a", schema={"type": "object"}, strict=True)
    assert ask(response_format={"type": "text"}).controls.format is None
    tool = {"type": "function", "function": {"name": "f"}}
    assert ask(tools=[tool], tool_choice=tool).choice == Choice(mode="named", name="f")
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool]}}
    assert ask(tools=[tool], tool_choice=allowed).choice == Choice(mode="required", allowed=("f",))


def test_stream_grammar() -> None:
    """Role first and once, one id, one finish, usage alone in its chunk, `[DONE]` last (T-CORE-034)."""
    events: list[Event] = [Started("up-1", "up", 5), TextDelta("Hé"), TextDelta(""), TextDelta("\n🦉")]
    events.append(Finished("stop"))
    told = written(events, ask(stream=True, stream_options={"include_usage": True}))
    assert told[-1] == "[DONE]"
    assert {(one["id"], one["created"], one["model"], one["object"]) for one in told[:-1]} == {
        ("up-1", 5, "asked", "chat.completion.chunk")
    }
    assert deltas(told) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hé"},
        {"content": "\n🦉"},
        {},
    ]
    assert [one["usage"] for one in told[:-2]] == [None] * 4
    assert told[-2]["choices"] == []
    assert told[-2]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0, "cache_write_tokens": 2},
        "completion_tokens_details": {
            "reasoning_tokens": 1,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def test_usage_is_not_told_unasked() -> None:
    """T-CORE-033: no usage for a client that did not ask."""
    assert all("usage" not in one for one in written([TextDelta("x"), Finished("stop")])[:-1])


def test_tool_deltas() -> None:
    """A call's first delta has id, type, name and no arguments; later ones only its number and arguments."""
    events: list[Event] = [
        CallStarted(0, "a", "f"),
        CallDelta(0, '{"x":'),
        CallStarted(1, "b", "g", signature="sig"),
        CallDelta(1, "{}"),
        CallDelta(0, "1}"),
        Finished("stop"),
    ]
    told = written(events)
    assert deltas(told)[1:-1] == [
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "b",
                    "type": "function",
                    "function": {"name": "g", "arguments": ""},
                    "extra_content": {"google": {"thought_signature": "sig"}},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_legacy_stream() -> None:
    """T-CORE-026: a client that spoke `functions` gets `function_call`."""
    asked = ask(stream=True, functions=[{"name": "f"}])
    told = written([CallStarted(0, "a", "f"), CallDelta(0, "{}"), Finished("tool_calls")], asked)
    assert deltas(told)[1:] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "function_call"


def test_custom_tool_stream() -> None:
    """A free-form tool's input is told under its own name."""
    told = written([CallStarted(0, "a", "f", kind="custom"), CallDelta(0, "raw"), Finished("tool_calls")])
    assert deltas(told)[2] == {"tool_calls": [{"index": 0, "custom": {"input": "raw"}}]}


def test_thinking_stream_and_whole_agree() -> None:
    """Decision 27: blocks are joined by a blank line, and what is sealed can be replayed, streamed or whole."""
    events: list[Event] = [
        ReasoningDelta("A", 0, 0),
        ReasoningDelta("B", 0, 0),
        ReasoningSealed("s1", None, "anthropic-claude-v1", 0, 0),
        ReasoningSealed(None, "secret", "anthropic-claude-v1", 0, 1),
        ReasoningDelta("C", 0, 2),
        TextDelta("x", 0, 3),
        Finished("stop"),
    ]
    told = deltas(written(events))
    joined = "".join(one.get("reasoning_content", "") for one in told)
    details = [detail for one in told for detail in one.get("reasoning_details", [])]
    whole = orjson.loads(CHAT.answer(ask(), FACE, events, USAGE))["choices"][0]["message"]
    assert joined == whole["reasoning_content"] == "AB\n\nC"
    assert details == whole["reasoning_details"]
    assert details[0] == {
        "type": "reasoning.text",
        "text": "AB",
        "signature": "s1",
        "format": "anthropic-claude-v1",
        "index": 0,
    }
    replayed = ask([{"role": "assistant", "content": "x", "reasoning_details": details}]).turns[0].parts
    assert replayed[0] == Reasoning(text="AB", signature="s1", format="anthropic-claude-v1")
    assert replayed[1] == Reasoning(data="secret", format="anthropic-claude-v1")


@pytest.mark.parametrize("sealed", [False, True])
def test_thinking_that_ends_in_a_blank_line(sealed: bool) -> None:
    """Decision 27: no second blank line is put behind the one that a block ends in, streamed or whole."""
    events: list[Event] = [ReasoningDelta("A", 0, 0), ReasoningDelta("a.\n\n\n", 0, 0)]
    events += [ReasoningSealed("s", None, "google-gemini-v1", 0, 0)] if sealed else []
    events += [ReasoningDelta("B", 0, 2), TextDelta("x", 0, 3), Finished("stop")]
    joined = "".join(one.get("reasoning_content", "") for one in deltas(written(events)))
    whole = orjson.loads(CHAT.answer(ask(), FACE, events, USAGE))["choices"][0]["message"]
    assert joined == whole["reasoning_content"] == "Aa.\n\n\nB"


def test_thinking_is_kept_within_bounds() -> None:
    """A thinking block that is too long is told but not kept for its replay."""
    writer = CHAT.writer(ask(stream=True), FACE)
    for _ in range(3):
        assert writer.feed(ReasoningDelta("x" * (MOST_THOUGHT // 2)))
    assert writer.feed(ReasoningSealed("s")) == b""


def test_thinking_to_content() -> None:
    """For clients that know no reasoning field thinking stands in the text, between tags."""
    face = Face(model="asked", id="i", created=1, thinking_to_content=True)
    events: list[Event] = [ReasoningDelta("A"), ReasoningSealed("s"), TextDelta("x"), Finished("stop")]
    told = deltas(written(events, face=face))
    assert "".join(one.get("content") or "" for one in told) == "<think>\nA\n</think>\nx"
    assert not any("reasoning_content" in one for one in told)
    message = orjson.loads(CHAT.answer(ask(), face, events, USAGE))["choices"][0]["message"]
    assert message["content"] == "<think>\nA\n</think>\nx"


def test_refusal_and_citations() -> None:
    """A refusal has its own field and ends as content_filter; citations become annotations."""
    told = written([TextDelta("abc"), Cited({"url": "https://h.example", "title": "T"}, "web"), Finished("refusal")])
    note = {"start_index": 0, "end_index": 3, "title": "T", "url": "https://h.example"}
    assert deltas(told)[2] == {"annotations": [{"type": "url_citation", "url_citation": note}]}
    assert deltas(told)[3]["refusal"]
    assert told[-2]["choices"][0]["finish_reason"] == "content_filter"
    message = orjson.loads(CHAT.answer(ask(), FACE, [RefusalDelta("No."), Finished("refusal")], USAGE))
    assert message["choices"][0]["message"]["refusal"] == "No."
    assert message["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize(
    ("events", "finish"),
    [
        ([TextDelta("x")], "stop"),
        ([CallStarted(0, "a", "f"), CallDelta(0, "{}")], "tool_calls"),
        ([], "stop"),
        ([TextDelta("x"), Finished("length"), Finished("stop"), TextDelta("late")], "length"),
        ([TextDelta("x"), Finished("context_overflow")], "length"),
        ([TextDelta("x"), Finished("pause")], "stop"),
    ],
)
def test_finishes(events: list[Event], finish: str) -> None:
    """T-CORE-035, T-CORE-036: a finish that is missing is made up, a second one and what follows is left out."""
    told = written(events)
    found = [one["choices"][0]["finish_reason"] for one in told[:-1] if one["choices"]]
    assert [one for one in found if one] == [finish]
    assert found[-1] == finish


def test_choices_do_not_mix() -> None:
    """Each choice has its own role, calls and finish."""
    events: list[Event] = [TextDelta("a"), TextDelta("b", 1), Finished("stop", 1), TextDelta("c"), Finished("length")]
    told = written(events)
    assert [one.get("content") for one in deltas(told, 0)] == ["", "a", "c", None]
    assert [one.get("content") for one in deltas(told, 1)] == ["", "b", None]


def test_failure_in_a_stream() -> None:
    """An error in a stream has all four keys, and nothing follows it, no terminator either."""
    for one in (CHAT.writer(ask(stream=True), FACE), CHAT.passer(ask(stream=True), FACE)):
        (told,) = chunks(one.fail(UpstreamFailure("Gone.", code="c"), "r1"))
        assert told == {
            "error": {"message": "Gone. (request id: r1)", "type": "upstream_error", "param": None, "code": "c"}
        }
        assert one.close(USAGE) == b""
        assert one.fail(OurError("x"), "r") == b""


def test_failure() -> None:
    """The error envelope has four keys and the request's id; its status is the error's own."""
    error = ClientError("Bad.", code="invalid_text_request", param="n")
    assert orjson.loads(CHAT.failure(error, "r1"))["error"] == {
        "message": "Bad. (request id: r1)",
        "type": "new_api_error",
        "param": "n",
        "code": "invalid_text_request",
    }
    assert CHAT.status(error) == 400


def test_whole_answer() -> None:
    """A whole answer has every required field."""
    events: list[Event] = [Started("up", "m", 5), TextDelta("x"), Finished("stop"), Metered(USAGE)]
    node = orjson.loads(CHAT.answer(ask(), FACE, events, USAGE))
    assert (node["id"], node["object"], node["created"], node["model"]) == ("up", "chat.completion", 5, "asked")
    assert node["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert node["usage"]["total_tokens"] == 14


def test_usage_of_sub_inferences_is_summed() -> None:
    """What was billed beside the answer is in its usage."""
    usage = Usage(prompt=1, completion=2, others=(("other", Usage(prompt=10, completion=20, cache_read=5)),))
    told = orjson.loads(CHAT.answer(ask(), FACE, [TextDelta("x")], usage))["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (11, 22, 33)
    assert told["prompt_tokens_details"]["cached_tokens"] == 5


WHOLE = {
    "id": "a",
    "object": "chat.completion",
    "created": 1,
    "model": "up",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "x", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "vendor": {"kept": [1]},
}


def same(node: Any, *, rename: bool = False, usage: Usage = USAGE) -> Any:
    """A whole answer as passed on."""
    face = Face(model="asked", id="ours", created=7, rename=rename)
    return orjson.loads(CHAT.same(ask(), face, Document(orjson.dumps(node)), usage))


def test_same_bytes() -> None:
    """An answer that lacks nothing is handed on byte for byte."""
    body = b"\n" + orjson.dumps(WHOLE, option=orjson.OPT_INDENT_2)
    assert CHAT.same(ask(), FACE, Document(body), USAGE) == body


def test_same_renames_and_fills() -> None:
    """T-CORE-006, T-CORE-008, T-CORE-009, T-AZUR-005: name, time, usage and message are what the client may expect."""
    assert same(WHOLE, rename=True) == {**WHOLE, "model": "asked"}
    bare = same({"choices": [{"finish_reason": "content_filter", "content_filter_results": {"x": 1}}]})
    assert (bare["id"], bare["created"], bare["object"], bare["model"]) == ("ours", 7, "chat.completion", "asked")
    assert bare["usage"]["total_tokens"] == 14
    (choice,) = bare["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "content_filter")
    assert choice["content_filter_results"] == {"x": 1}


def test_same_understands_quirks() -> None:
    """T-MIST-007, T-MIST-008, T-MIST-011, T-GROQ-001: typed content, untyped calls, odd finishes, another field."""

    def choice(message: Any, finish: Any = "stop") -> Any:
        return same({**WHOLE, "choices": [{"index": 0, "message": message, "finish_reason": finish}]})["choices"][0]

    typed = [{"type": "thinking", "thinking": [{"type": "text", "text": "T"}]}, {"type": "text", "text": "x"}]
    told = choice({"role": "assistant", "content": typed}, "model_length")
    assert told["message"] == {"role": "assistant", "content": "x", "refusal": None, "reasoning_content": "T"}
    assert told["finish_reason"] == "length"
    told = choice({"role": "assistant", "content": "x", "reasoning": "R", "refusal": None})
    assert told["message"]["reasoning_content"] == told["message"]["reasoning"] == "R"
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    (fixed,) = choice({"role": "assistant", "content": None, "tool_calls": [call]}, None)["message"]["tool_calls"]
    assert (fixed["type"], fixed["function"]["arguments"]) == ("function", '{"a":1}')
    assert fixed["id"]
    assert choice({"role": "assistant", "content": None, "tool_calls": [call]}, None)["finish_reason"] == "tool_calls"


def test_random_fields_live_on() -> None:
    """Demand R1: two hundred unknown fields at any depth stay in the tree that providers of the family get."""
    dice = random.Random(7)
    message = {"role": "user", "content": [{"type": "text", "text": "x"}]}
    body: dict[str, Any] = {"model": "asked", "messages": [message]}
    places: list[dict[str, Any]] = [body, body["messages"][0], body["messages"][0]["content"][0]]
    for number in range(200):
        value: Any = dice.choice([None, True, number, "é", [], {"deep": [number]}])
        place = dice.choice(places)
        place[f"x_{number}"] = value
        if isinstance(value, dict):
            places.append(value)
    assert CHAT.read(orjson.dumps(body), {}).tree == body


GARBAGE: list[Any] = [None, True, 0, -1, 1e300, 2**62, "", "x", [], {}, [None], {"a": None}, [[]], "data:", "\x00"]
FULL = {
    "model": "m",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "s", "cache_control": {"type": "e", "ttl": "5m"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": ""}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": [{"text": "x"}]}, {"type": "refusal", "refusal": "r"}],
            "reasoning_details": [{"type": "reasoning.text", "text": "t", "signature": "s", "index": 0}],
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            "audio": {"id": "x"},
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]},
        {"role": "function", "name": "f", "content": "x"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {}}},
        {"type": "custom", "custom": {"name": "g"}},
    ],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    "reasoning": {"effort": "low"},
    "thinking": {"type": "enabled", "budget_tokens": 3},
    "stop": ["x"],
    "n": 2,
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
def test_garbage_is_a_declared_error(seed: int) -> None:
    """Arbitrary bodies end in an ask or in a 400, never in another exception."""
    dice = random.Random(seed)
    for _ in range(100):
        status = 400
        try:
            CHAT.read(orjson.dumps(mutated(FULL, dice)), {})
        except ClientError as told:
            status = told.status
        assert status == 400


def frame(data: Any, raw: bytes | None = None) -> sse.Frame:
    """A frame of this payload."""
    (one,) = sse.Decoder().feed(raw or b"data: " + orjson.dumps(data) + b"\n\n")
    return one


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "up", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice], **more}


def test_passer_is_verbatim() -> None:
    """A stream that follows the grammar leaves as it came."""
    passer = CHAT.passer(ask(stream=True, stream_options={"include_usage": True}), FACE)
    for one in (chunk({"role": "assistant", "content": ""}, x=1), chunk({"content": "é"}, x=2), chunk({}, "stop")):
        given = frame(one)
        assert passer.frame(given, []) is given.raw
    assert passer.frame(frame(None, b"data: [DONE]\n\n"), []) == b""
    assert passer.frame(frame(None, b": comment\n\n"), []) == b""
    assert passer.frame(frame(None, b"data: {broken\n\n"), []) == b""
    assert passer.close(NOTHING).endswith(b"data: [DONE]\n\n")
    assert passer.close(NOTHING) == b""


def test_passer_renames() -> None:
    """T-CORE-006: a mapped model's own name is nowhere."""
    face = Face(model="asked", id="i", created=1, rename=True)
    passer = CHAT.passer(ask(stream=True, stream_options={"include_usage": True}), face)
    out = b"".join(
        passer.frame(frame(one), [])
        for one in (chunk({"role": "assistant", "content": ""}), chunk({"content": "x"}), chunk({}, "stop"))
    )
    out += passer.frame(frame({**chunk({}), "choices": [], "usage": {"prompt_tokens": 1}}), [])
    out += passer.close(USAGE)
    assert {one["model"] for one in chunks(out) if one != "[DONE]"} == {"asked"}


def test_passer_last_usage_wins() -> None:
    """T-GROQ-008: usage told many times is one chunk, the last one, at the end."""
    passer = CHAT.passer(ask(stream=True, stream_options={"include_usage": True}), FACE)
    given = [
        chunk({"role": "assistant", "content": "a"}, usage={"prompt_tokens": 1}),
        chunk({"content": "b"}, usage={"prompt_tokens": 2}),
        chunk({}, "stop", usage={"prompt_tokens": 3}),
    ]
    told = chunks(b"".join(passer.frame(frame(one), []) for one in given) + passer.close(USAGE))
    assert [one["usage"] for one in told[:-1]] == [None, None, None, {"prompt_tokens": 3}]
    assert told[-2]["choices"] == []


def test_passer_mends_encoding() -> None:
    """Broken UTF-8 upstream never reaches the client as such."""
    passer = CHAT.passer(ask(stream=True), FACE)
    raw = b"data: " + orjson.dumps(chunk({"content": "xx"})).replace(b"xx", b"x\xff") + b"\n\n"
    assert "x\ufffd" in passer.frame(frame(None, raw), []).decode()


def test_count_and_keepalive() -> None:
    """A keep-alive is a comment; the dialect has its name."""
    assert CHAT.keepalive(ask()).startswith(b":")
    assert CHAT.dialect == "openai-chat"
    assert orjson.loads(CHAT.count(5)) == {"prompt_tokens": 5}


@pytest.mark.parametrize("head", [b"event: x\ndata: ", b": here\ndata: ", b"id: 7\ndata: ", b"data: "])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r"])
def test_passer_mends_frames(head: bytes, end: bytes) -> None:
    """T-CORE-022: a frame that is more than a line of data is told as one, with its role, its finish and its words."""
    passer = CHAT.passer(ask(stream=True), FACE)
    given = [chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({}, "stop")]
    raws = [head.replace(b"\n", end[:1]) + orjson.dumps(one) + end for one in given]
    decoder = sse.Decoder()
    frames = [*decoder.feed(b"".join(raws)), *decoder.close()]
    out = b"".join(passer.frame(one, []) for one in frames)
    assert chunks(out + passer.close(NOTHING)) == [*given, "[DONE]"]
