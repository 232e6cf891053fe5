"""The Responses surface: reading asks, whole answers, the stream writer, the passer, the official SDK over them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import httpx2
import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from newapi_proxy.errors import ClientError, OurError, UpstreamFailure
from newapi_proxy.ir.ask import (
    Ask,
    CacheMark,
    Choice,
    Format,
    Media,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Ended,
    Event,
    Failed,
    Finished,
    LogProbs,
    Metered,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces._responses_shapes import sealed, unsealed
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.responses import INPUT_TOKENS, RESPONSES
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

FACE = Face(model="asked", id="req-7-ours", created=7)
USAGE = Usage(prompt=10, completion=4, cache_read=3, cache_write=2, reasoning=1)
LAST = {"response.completed", "response.incomplete", "response.failed"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
EVENTS = TypeAdapter[Any](ResponseStreamEvent)


def ask(input: Any = "Hi", **more: Any) -> Ask:
    """An ask out of a body with this input and these fields."""
    return RESPONSES.read(orjson.dumps({"model": "asked", "input": input, **more}), {})


def fault(**more: Any) -> ClientError:
    """What reading this body raises."""
    with pytest.raises(ClientError) as told:
        RESPONSES.read(orjson.dumps({"model": "asked", "input": "Hi", **more}), {})
    return told.value


def parsed(data: bytes) -> list[tuple[str, Any]]:
    """The events of a stream with their names; comments are left out."""
    frames = sse.Decoder()
    found = [*frames.feed(data), *frames.close()]
    return [(one.event, one.tree) for one in found if one.data is not None]


def strict(data: bytes) -> list[Node]:
    """The events of a stream that keeps the grammar: names, numbers, order of items and parts, one last event."""
    named = parsed(data)
    assert all(name == event["type"] for name, event in named)
    events = [event for _, event in named]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [kind for kind in kinds if kind in LAST] == kinds[-1:]
    for event in events:
        EVENTS.validate_python(event)
    done: list[Node] = []
    for event in events[2:-1]:
        assert event["output_index"] == len(done), "one item after the other"
        if event["type"] == "response.output_item.done":
            done.append(event["item"])
    last = events[-1]["response"]
    if last["status"] != "failed":
        assert last["output"] == done
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    return events


def written(events: Iterable[Event], asked: Ask | None = None, face: Face = FACE, usage: Usage = USAGE) -> list[Node]:
    """What a writer makes of the events."""
    writer = RESPONSES.writer(asked or ask(stream=True), face)
    return strict(b"".join([writer.feed(one) for one in events]) + writer.close(usage))


def answered(events: list[Event], asked: Ask | None = None, face: Face = FACE, usage: Usage = USAGE) -> Node:
    """The whole answer that these events make."""
    tree: Node = orjson.loads(RESPONSES.answer(asked or ask(), face, events, usage))
    Response.model_validate(tree)
    return tree


WRONG: list[tuple[Node, str, str]] = [
    ({"model": 3}, "model", "must be a string"),
    ({"model": "m" * 513}, "model", "longer than"),
    ({"input": None}, "input", "input is required"),
    ({"input": 3}, "input", "must be an array"),
    ({"input": [3]}, "input.0", "must be an object"),
    ({"input": [{"type": 3}]}, "input.0.type", "must be a string"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role", "must be one of"),
    ({"input": [{"role": "user", "content": 3}]}, "input.0.content", "must be an array"),
    ({"input": [{"role": "user", "content": [3]}]}, "input.0.content.0", "must be an object"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text", "must be a string"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.image_url", "needs"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0", "needs"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,x"}]}]},
        "input.0.content.0.image_url",
        "base64",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input.0.call_id", "is required"),
    ({"input": [{"type": "function_call", "call_id": "c"}]}, "input.0.name", "must be a string"),
    (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": 3}]},
        "input.0.arguments",
        "must be a string",
    ),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id", "is required"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0.output", "is required"),
    ({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "f"}]}, "input.0.input", "must be a string"),
    ({"input": [{"type": "reasoning", "summary": "x"}]}, "input.0.summary", "must be an array"),
    ({"input": [{"type": "reasoning", "encrypted_content": 3}]}, "input.0.encrypted_content", "must be a string"),
    ({"instructions": ["x"]}, "instructions", "must be a string"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"store": "yes"}, "store", "true or false"),
    ({"max_output_tokens": -1}, "max_output_tokens", "invalid"),
    ({"max_output_tokens": "9"}, "max_output_tokens", "must be a number"),
    ({"temperature": "hot"}, "temperature", "must be a number"),
    ({"tools": {}}, "tools", "must be an array"),
    ({"tools": [{"type": "function"}]}, "tools.0.name", "must be a string"),
    ({"tools": [{"type": "function", "name": "f", "parameters": 3}]}, "tools.0.parameters", "must be an object"),
    ({"tool_choice": "some"}, "tool_choice", "must be none"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.name", "must be a string"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "x"}}, "tool_choice.mode", "must be auto"),
    ({"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function"}]}}, "tool_choice.tools.0.name", "string"),
    ({"reasoning": "high"}, "reasoning", "must be an object"),
    ({"text": {"format": "json"}}, "text.format", "must be an object"),
    ({"text": {"verbosity": 3}}, "text.verbosity", "must be a string"),
    ({"include": "x"}, "include", "must be an array"),
    ({"metadata": []}, "metadata", "must be an object"),
    ({"truncation": 3}, "truncation", "must be a string"),
    ({"previous_response_id": 3}, "previous_response_id", "must be a string"),
    ({"background": True}, "background", "cannot be fetched"),
]


@pytest.mark.parametrize(("more", "param", "words"), WRONG, ids=[f"{param}-{words}" for _, param, words in WRONG])
def test_wrong_requests(more: Node, param: str, words: str) -> None:
    """A wrong field is a 400 that names its path."""
    told = fault(**more)
    assert (told.status, told.param) == (400, param)
    assert words in told.message


def test_text_input() -> None:
    """A bare text is one user turn; instructions lead as a system turn."""
    read = ask("Hi", instructions="Be brief.")
    assert [(turn.role, turn.plain) for turn in read.turns] == [("system", True), ("user", True)]
    assert [part.text for turn in read.turns for part in turn.parts if isinstance(part, Text)] == ["Be brief.", "Hi"]
    assert (read.dialect, read.usage_wanted, read.stream, read.own) == ("openai-responses", True, False, ())


def test_one_turn_of_the_model() -> None:
    """Reasoning, a message and parallel calls of one answer are one turn (B.11); their outputs are turns of a tool."""
    turns = ask(
        [
            {"role": "user", "content": "Look"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "a"}, {"text": "b"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Asking."}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"},
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
            {"role": "assistant", "content": "One."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ]
    ).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "tool", "assistant", "assistant"]
    thought, text, call, custom = turns[1].parts
    assert thought == Reasoning(text="a\n\nb", id="rs_1", format="openai-responses-v1", summary=True)
    assert isinstance(text, Text)
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments, call.kind) == ("c1", "f", '{"a": 1}', "function")
    assert isinstance(custom, ToolCall)
    assert (custom.arguments, custom.kind) == ("free", "custom")
    first, second = turns[2].parts[0], turns[3].parts[0]
    assert isinstance(first, ToolResult)
    assert isinstance(second, ToolResult)
    assert (first.id, first.name, first.plain, second.name, second.plain) == ("c1", "f", True, "g", False)
    assert turns[5].parts == (Refusal(text="No."),)


def test_media() -> None:
    """Images and files by value, address and id; a breakpoint of the cache is an hour's mark (T-ANTH-051)."""
    parts = (
        ask(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "x", "prompt_cache_breakpoint": True},
                        {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
                        {"type": "input_image", "image_url": "https://p.example/a.png"},
                        {"type": "input_image", "file_id": "file-1"},
                        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
                        {"type": "input_file", "file_url": "https://p.example/a.pdf"},
                        {"type": "input_file", "file_id": "file-2"},
                        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
                    ],
                }
            ]
        )
        .turns[0]
        .parts
    )
    assert isinstance(parts[0], Text)
    assert parts[0].cache == CacheMark(ttl="1h")
    media = [part for part in parts if isinstance(part, Media)]
    assert [(one.kind, one.data, one.url, one.file_id) for one in media] == [
        ("image", "iVBO", None, None),
        ("image", None, "https://p.example/a.png", None),
        ("image", None, None, "file-1"),
        ("file", "JVBE", None, None),
        ("file", None, "https://p.example/a.pdf", None),
        ("file", None, None, "file-2"),
        ("audio", "UklG", None, None),
    ]
    assert [one.path for one in media][:2] == ["input.0.content.1", "input.0.content.2"]
    assert (media[0].detail, media[3].filename, media[6].media_type) == ("low", "a.pdf", "audio/mpeg")


OWNED: list[tuple[Node, str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"store": True}, "store"),
    ({"background": True, "stream": True}, "background"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"),
    ({"input": [{"id": "msg_1"}]}, "input.0"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}, {"role": "user", "content": "x"}]}, "input.0"),
]


@pytest.mark.parametrize(("more", "path"), OWNED, ids=[path for _, path in OWNED])
def test_state_of_a_provider(more: Node, path: str) -> None:
    """What rests on a provider's stored state, or on words only it has, is named for the others to refuse (A.4)."""
    assert ask(**more).own == (path,)


def test_input_may_be_missing_where_state_is_named() -> None:
    """A stored prompt or an earlier response may be all there is."""
    body = orjson.dumps({"model": "asked", "previous_response_id": "resp_1"})
    assert RESPONSES.read(body, {}).turns == ()


def test_stateless_is_nothing_special() -> None:
    """`store: false`, no background, encrypted reasoning: what every provider can serve."""
    read = ask(store=False, background=False, include=["reasoning.encrypted_content"], truncation="disabled")
    assert (read.own, dict(read.controls.steering), read.unknown) == ((), {}, ())


def test_a_result_that_was_kept_from_its_call() -> None:
    """Only this format takes a user's words between a call and its result: the result goes to its call."""
    calls = [{"type": "function_call", "call_id": id_, "name": "f", "arguments": "{}"} for id_ in "ab"]
    results = [{"type": "function_call_output", "call_id": id_, "output": id_} for id_ in "ab"]
    words = {"role": "user", "content": "Hm"}
    one = ask([words, *calls, words, *results, words])
    assert [(turn.role, len(turn.parts)) for turn in one.turns] == [
        ("user", 1),
        ("assistant", 2),
        ("tool", 1),
        ("tool", 1),
        ("user", 1),
        ("user", 1),
    ]
    assert [turn.parts[0].id for turn in one.turns if isinstance(turn.parts[0], ToolResult)] == ["a", "b"]


def test_tools_among_the_items() -> None:
    """Tools told later are tools of the request; what is told of a name last holds, and no turn is made of it."""
    later = {**FUNCTION, "description": "new"}
    more = {**FUNCTION, "name": "g"}
    given = {"type": "additional_tools", "role": "developer", "tools": [later, more]}
    one = ask([{"role": "user", "content": "Hi"}, given], tools=[FUNCTION])
    assert [(tool.name, tool.description, tool.path) for tool in one.tools] == [
        ("f", "new", "input.1.tools.0"),
        ("g", None, "input.1.tools.1"),
    ]
    assert [turn.role for turn in one.turns] == ["user"]
    assert fault(input=[{**given, "tools": 1}]).param == "input.0.tools"


def test_tools_and_choices() -> None:
    """Functions, free-form tools in the chat format's shape, hosted ones verbatim; a web search is a wish."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
    hosted = {"type": "code_interpreter", "container": {"type": "auto"}}
    place = {"type": "approximate", "country": "PL"}
    read = ask(
        tools=[
            FUNCTION,
            {"type": "custom", "name": "patch", "description": "d", "format": grammar},
            hosted,
            {"type": "web_search_preview", "search_context_size": "low", "user_location": place},
        ],
        tool_choice={"type": "web_search_preview"},
    )
    function, custom, server = read.tools
    assert function == Tool(name="f", schema={"type": "object"}, strict=True, path="tools.0")
    inner = {"syntax": "lark", "definition": "start: /x/"}
    form = {"type": "grammar", "grammar": inner}
    assert custom.server == {"type": "custom", "custom": {"name": "patch", "description": "d", "format": form}}
    assert (custom.kind, custom.family) == ("custom", "openai")
    assert (server.kind, server.name, server.server) == ("server", "code_interpreter", hosted)
    approximate = {"type": "approximate", "approximate": {"country": "PL"}}
    wish = {"search_context_size": "low", "user_location": approximate}
    assert read.controls.steering == {"web_search_options": wish}
    assert read.choice == Choice(mode="named", name="web_search")


CHOICES: list[tuple[Any, Choice | None]] = [
    (None, None),
    ("auto", Choice(mode="auto")),
    ("none", Choice(mode="none")),
    ("required", Choice(mode="required")),
    ({"type": "function", "name": "f"}, Choice(mode="named", name="f")),
    ({"type": "custom", "name": "g"}, Choice(mode="named", name="g")),
    ({"type": "file_search"}, Choice(mode="named", name="file_search")),
    (
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]},
        Choice(mode="required", allowed=("f", "mcp")),
    ),
]


@pytest.mark.parametrize(("given", "wanted"), CHOICES, ids=[str(number) for number in range(len(CHOICES))])
def test_choices(given: Any, wanted: Choice | None) -> None:
    """Every form of tool_choice."""
    assert ask(tool_choice=given).choice == wanted


def test_controls() -> None:
    """Controls have their fields; what only steers stays under its name; unknown names are listed."""
    schema = {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True, "description": "d"}
    assert ask(top_k=7).controls.top_k == 7
    read = ask(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "xhigh", "summary": "auto"},
        safety_identifier="u",
        service_tier="flex",
        metadata={"a": "b"},
        max_tool_calls=3,
        truncation="auto",
        include=["file_search_call.results"],
        a_new_wish=1,
    )
    controls = read.controls
    assert (controls.max_tokens, controls.temperature, controls.top_p) == (9, 0.5, 0.9)
    assert (controls.parallel_tools, controls.user, controls.service_tier) == (False, "u", "flex")
    wanted = Format(kind="json_schema", name="it", schema={"type": "object"}, strict=True, description="d")
    assert (controls.format, controls.thinking) == (wanted, Thinking(effort="xhigh"))
    steering = {"safety_identifier", "metadata", "max_tool_calls", "truncation", "include", "verbosity"}
    assert set(controls.steering) == steering
    assert read.unknown == ("a_new_wish",)
    assert ask(text={"format": {"type": "json_object"}}).controls.format == Format(kind="json_object")
    assert ask(reasoning={"effort": "none"}).controls.thinking == Thinking(effort="none", disabled=True)
    assert ask(reasoning={"summary": "auto"}).controls.thinking is None
    assert ask(reasoning={"effort": "extreme"}).controls.steering == {"reasoning.effort": "extreme"}


SEALS = [
    ("anthropic-claude-v1", "c2ln", None),
    ("anthropic-claude-v1", None, "cmVk"),
    ("google-gemini-v1", "a.b/=", None),
]


@pytest.mark.parametrize(("format", "signature", "data"), SEALS)
def test_seals_round_trip(format: str, signature: str | None, data: str | None) -> None:
    """A signature of another format comes back from `encrypted_content` as it was (T-ANTH-035, T-ANTH-036)."""
    assert unsealed(sealed(format, signature, data)) == (format, signature, data)


def test_own_seals_need_no_label() -> None:
    """Reasoning that a provider of this format sealed is handed through untouched."""
    assert sealed("openai-responses-v1", None, "gAAAAAB==") == "gAAAAAB=="
    assert unsealed("gAAAAAB==") == ("openai-responses-v1", None, "gAAAAAB==")


THOUGHT: list[Event] = [
    Started("chatcmpl-1", "up", 5),
    ReasoningDelta("Hm, ", 0, 0),
    ReasoningDelta("owls.", 0, 0),
    ReasoningSealed("c2ln", None, "anthropic-claude-v1", 0, 0),
    ReasoningSealed(None, "cmVk", "anthropic-claude-v1", 0, 1),
    TextDelta("I lo", 0, 2),
    TextDelta("ok.", 0, 2),
    CallStarted(0, "c1", "f", 0, 3),
    CallDelta(0, '{"a":'),
    CallDelta(0, '"Łódź 🦉"}'),
    CallStarted(1, "c2", "patch", 0, 4, "custom"),
    CallDelta(1, "*** Begin"),
    Metered(USAGE),
    Finished("tool_calls"),
    Ended(),
]


def test_stream_of_everything() -> None:
    """Reasoning, its seal, text and calls in the grammar of A.4 (T-ANTH-065, T-ANTH-067, T-CORE-029)."""
    events = written(THOUGHT)
    last = events[-1]["response"]
    assert events[-1]["type"] == "response.completed"
    assert (last["status"], last["id"], last["created_at"], last["model"]) == ("completed", "resp_req7ours", 5, "asked")
    kinds = [item["type"] for item in last["output"]]
    assert kinds == ["reasoning", "reasoning", "message", "function_call", "custom_tool_call"]
    thought, redacted, message, call, custom = last["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm, owls."}]
    assert thought["encrypted_content"] == "anthropic-claude-v1.s.c2ln"
    assert (redacted["summary"], redacted["encrypted_content"]) == ([], "anthropic-claude-v1.d.cmVk")
    assert message["content"] == [{"type": "output_text", "annotations": [], "logprobs": [], "text": "I look."}]
    assert (call["call_id"], call["name"], call["arguments"]) == ("c1", "f", '{"a":"Łódź 🦉"}')
    assert (custom["call_id"], custom["name"], custom["input"]) == ("c2", "patch", "*** Begin")
    assert last["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 14,
    }


def test_whole_and_stream_agree() -> None:
    """A whole answer is the response that the stream ends with, ids included (T-CORE-012)."""
    assert answered(THOUGHT) == written(THOUGHT)[-1]["response"]


def test_replay_of_what_was_written() -> None:
    """The items of an answer, sent back as input, are the same reasoning, text and calls (T-ANTH-035 to 037)."""
    output = answered(THOUGHT)["output"]
    parts = ask([*output, {"role": "user", "content": "Go on"}]).turns[0].parts
    assert parts[0] == Reasoning(text="Hm, owls.", signature="c2ln", format="anthropic-claude-v1")
    assert parts[1] == Reasoning(data="cmVk", format="anthropic-claude-v1")
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [(one.id, one.arguments) for one in calls] == [("c1", '{"a":"Łódź 🦉"}'), ("c2", "*** Begin")]


def test_a_call_keeps_its_signature() -> None:
    """A signature on a call travels as sealed reasoning before it and is given back to the call."""
    output = answered([CallStarted(0, "c1", "f", signature="a.b=="), CallDelta(0, "{}"), Finished("tool_calls")])[
        "output"
    ]
    assert [one["type"] for one in output] == ["reasoning", "function_call"]
    (call,) = ask(output).turns[0].parts
    assert isinstance(call, ToolCall)
    assert call.signature == "a.b=="


def test_calls_whose_fragments_alternate() -> None:
    """The second call waits until the first is complete; nothing is lost."""
    events = written(
        [
            CallStarted(0, "c1", "f"),
            CallDelta(0, '{"a":'),
            CallStarted(1, "c2", "g"),
            CallDelta(1, "{"),
            CallDelta(0, "1}"),
            CallDelta(1, "}"),
            TextDelta("Done.", 0, 9),
            Finished("tool_calls"),
        ]
    )
    output = events[-1]["response"]["output"]
    assert [one.get("arguments") for one in output] == ['{"a":1}', "{}", None]


FINISHES: list[tuple[Finished, str, str | None]] = [
    (Finished("stop"), "completed", None),
    (Finished("tool_calls"), "completed", None),
    (Finished("pause"), "completed", None),
    (Finished("length"), "incomplete", "max_output_tokens"),
    (Finished("context_overflow"), "incomplete", "max_output_tokens"),
    (Finished("content_filter"), "incomplete", "content_filter"),
    (Finished("error"), "failed", None),
]


@pytest.mark.parametrize(("finished", "status", "reason"), FINISHES, ids=[one.reason for one, _, _ in FINISHES])
def test_finishes(finished: Finished, status: str, reason: str | None) -> None:
    """Every finish has its status, its last event, and the status of the item that it cut (A.4)."""
    events = written([TextDelta("Hi"), finished])
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{status}"
    assert (last["status"], (last["incomplete_details"] or {}).get("reason")) == (status, reason)
    assert last["output"][0]["status"] == ("completed" if status == "completed" else "incomplete")
    assert (last["error"] is not None) == (status == "failed")


def test_no_finish_and_nothing_said() -> None:
    """A stream without a finish is complete (T-CORE-035); one that said nothing has no items."""
    assert written([TextDelta("Hi")])[-1]["response"]["status"] == "completed"
    assert written([])[-1]["response"]["output"] == []


@pytest.mark.parametrize("text", ["", "I start. "])
def test_refusal(text: str) -> None:
    """A refusal is a part of a completed message (T-ANTH-060): upstream's words, else its explanation."""
    events: list[Event] = [TextDelta(text)] if text else []
    explained = written([*events, Finished("refusal", detail="No.")])[-1]["response"]
    worded = written([*events, RefusalDelta("N"), RefusalDelta("o."), Finished("stop")])[-1]["response"]
    for response in (explained, worded):
        assert response["status"] == "completed"
        assert response["output"][0]["content"][-1] == {"type": "refusal", "refusal": "No."}
        assert len(response["output"]) == 1


def test_citations() -> None:
    """Citations stand at their text, their places counted from where that text begins (T-ANTH-062)."""
    events = written(
        [
            TextDelta("One. ", 0, 0),
            CallStarted(0, "c", "f", 0, 1),
            CallDelta(0, "{}"),
            TextDelta("Two.", 0, 2),
            Cited({"url": "https://a.example", "title": "A", "start": 5, "end": 9}, "web", 0, 2),
            Finished("stop"),
            Cited({"url": "https://b.example"}, "web"),
        ]
    )
    notes = events[-1]["response"]["output"][2]["content"][0]["annotations"]
    assert [(one["url"], one["start_index"], one["end_index"], one["title"]) for one in notes] == [
        ("https://a.example", 0, 4, "A"),
        ("https://b.example", 0, 4, ""),
    ]
    added = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [event["annotation_index"] for event in added] == [0, 1]


def test_log_probabilities() -> None:
    """They are asked for by number or by name, and stand at the text whose tokens they are (T-OLLA-027, T-VERT-010)."""
    assert ask(top_logprobs=2).controls.steering == {"top_logprobs": 2}
    assert ask(include=["message.output_text.logprobs"]).controls.steering == {"logprobs": True}
    rival = {"token": "b", "logprob": -2.0, "bytes": [98]}
    one, two = (
        {"token": "é", "logprob": -0.5, "top_logprobs": [rival, 3]},
        {"token": "x", "logprob": -1, "top_logprobs": 3},
    )
    told: list[Event] = [
        LogProbs((one, {"token": 3})),
        TextDelta("é"),
        TextDelta("x"),
        LogProbs((two,)),
        Finished("stop"),
    ]
    events = written(told)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    wanted = {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [rival]}
    assert [delta["logprobs"] for delta in deltas] == [[wanted], []]
    part = answered(told[:3])["output"][0]["content"][0]
    assert part["logprobs"] == [wanted]
    assert [one["token"] for one in events[-1]["response"]["output"][0]["content"][0]["logprobs"]] == ["é", "x"]


def test_citations_of_documents() -> None:
    """Citations that only another provider understands stand verbatim beside their text (T-ANTH-063)."""
    place = {"type": "char_location", "cited_text": "x", "document_index": 0}
    for told in ([Cited(place, "anthropic"), TextDelta("Two.")], [TextDelta("Two."), Cited(place, "anthropic")]):
        part = written(told)[-1]["response"]["output"][0]["content"][0]
        assert (part["text"], part["annotations"], part["citations"]) == ("Two.", [], [place])


def test_pictures() -> None:
    """An image of the answer is told as the call of this format's image tool, under an id of its own (T-GEMI-061)."""
    made = written([TextDelta("Look."), Picture("iVBO", "image/png"), Picture("UklG", "image/webp")])[-1]["response"]
    first, second = made["output"][1:]
    assert (first["type"], first["result"], first["output_format"]) == ("image_generation_call", "iVBO", "png")
    assert (second["result"], second["output_format"]) == ("UklG", "webp")
    assert first["id"] != second["id"]


def test_thinking_to_content() -> None:
    """The channel option tells thinking as tagged text, whole and streamed."""
    face = Face(model="asked", id="req", created=7, thinking_to_content=True)
    events: list[Event] = [ReasoningDelta("Hm"), TextDelta("Hi"), Finished("stop")]
    for response in (written(events, face=face)[-1]["response"], answered(events, face=face)):
        text = response["output"][0]["content"][0]["text"]
        assert text.startswith("<think>\nHm\n</think>\n")
        assert text.endswith("\nHi")


def test_only_the_first_choice() -> None:
    """Other choices, blocks of other providers and empty pieces leave no trace."""
    noise: list[Event] = [
        TextDelta("x", 1),
        Block({"type": "y"}, "anthropic"),
        TextDelta(""),
        CallDelta(7, "z"),
        Skipped("?"),
    ]
    assert answered([*noise, Finished("stop")])["output"] == []


def test_items_of_this_format_are_kept() -> None:
    """An item that upstream gave whole in this format is told whole."""
    item = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "owl"},
    }
    assert written([Block(item, "openai-responses"), TextDelta("Hi")])[-1]["response"]["output"][0] == item


FAILURE = UpstreamFailure("It broke.", code="bad_response")


def test_failure_inside_a_stream() -> None:
    """A failure ends the stream with response.failed; nothing follows, and SDKs find the error (T-CORE-016)."""
    for events in ([], [TextDelta("Hi")]):
        writer = RESPONSES.writer(ask(stream=True), FACE)
        told = strict(b"".join([writer.feed(one) for one in events]) + writer.fail(FAILURE, "req-1"))
        last = told[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"] == {"code": "server_error", "message": "It broke. (request id: req-1)"}
        assert last["error"]["code"] == "bad_response"
        assert writer.feed(TextDelta("more")) + writer.close(NOTHING) + writer.fail(FAILURE, "req-1") == b""


def test_failure_bodies() -> None:
    """Errors outside a stream have OpenAI's envelope; counting has its own answer."""
    body = orjson.loads(RESPONSES.failure(OurError("Busy.", status=503, code="draining"), "req-1"))
    assert body["error"] == {
        "message": "Busy. (request id: req-1)",
        "type": "new_api_error",
        "param": None,
        "code": "draining",
    }
    assert RESPONSES.status(OurError("x", status=503)) == 503
    assert orjson.loads(INPUT_TOKENS.count(7)) == {"object": "response.input_tokens", "input_tokens": 7}
    assert INPUT_TOKENS.read(b'{"model":"m","input":"Hi","stream":true}', {}).count_only
    assert RESPONSES.keepalive(ask()).startswith(b":")


def test_routes() -> None:
    """The surface and its counting stand on their routes."""
    assert (SURFACES["/v1/responses"], SURFACES["/v1/responses/input_tokens"]) == (RESPONSES, INPUT_TOKENS)


# The passer.


def frame(kind: str, number: int, named: bool = True, **fields: Any) -> bytes:
    """One event as upstream sends it."""
    data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
    return (f"event: {kind}\n".encode() if named else b"") + b"data: " + data + b"\n\n"


def upstream(named: bool = True, usage: Any = None, model: str = "asked") -> list[bytes]:
    """A short stream of upstream's."""
    response = {"id": "resp_up", "object": "response", "model": model, "status": "in_progress", "new": {"a": 1}}
    return [
        frame("response.created", 0, named, response=response),
        frame("response.output_text.delta", 1, named, output_index=0, item_id="m", content_index=0, delta="Hé"),
        frame("response.from_the_future", 2, named, anything=[1]),
        frame("response.completed", 3, named, response={**response, "status": "completed", "usage": usage}),
    ]


def passed(data: bytes, face: Face = FACE) -> tuple[bytes, bytes]:
    """What a passer gives while the stream lasts, and what it gives at its end."""
    passer = RESPONSES.passer(ask(stream=True), face)
    frames = sse.Decoder()
    out = b"".join([passer.frame(one, []) for one in [*frames.feed(data), *frames.close()]])
    return out, passer.close(USAGE)


@pytest.mark.parametrize("named", [True, False])
def test_passer_keeps_bytes(named: bool) -> None:
    """Events go on byte for byte, the last one only at the end; `[DONE]` is swallowed (T-CORE-038)."""
    sent = upstream(named, usage={"input_tokens": 1})
    during, after = passed(b"".join(sent) + b": comment\n\ndata: [DONE]\n\ndata: {broken\n\n")
    assert (during, after) == (b"".join(sent[:-1]), sent[-1])


def test_passer_fills_usage() -> None:
    """A response without usage gets what was counted (T-CORE-009)."""
    _, after = passed(b"".join(upstream()))
    ((name, last),) = parsed(after)
    assert (name, last["response"]["usage"]["input_tokens"]) == ("response.completed", 10)
    assert last["response"]["new"] == {"a": 1}


def test_passer_shows_the_asked_name() -> None:
    """A mapped model is shown under the name that was asked for, everything else stays (T-CORE-006, T-DEEP-011)."""
    face = Face(model="asked", id="req", created=7, rename=True)
    during, after = passed(b"".join(upstream(model="secret-name", usage={"input_tokens": 1})), face)
    assert b"secret-name" not in during + after
    assert [event["response"]["model"] for _, event in parsed(during + after) if "response" in event] == ["asked"] * 2


def test_passer_lets_a_second_response_follow() -> None:
    """Where upstream goes on after a last event, that one is told in its place."""
    sent = [*upstream(usage={}), *upstream(usage={"input_tokens": 2})]
    during, after = passed(b"".join(sent))
    assert (during, after) == (b"".join(sent[:-1]), sent[-1])


def test_passer_makes_up_an_end() -> None:
    """Without a last event of upstream's the client still gets one."""
    _, after = passed(b"".join(upstream()[:-1]))
    ((name, last),) = parsed(after)
    assert (name, last["sequence_number"]) == ("response.completed", 3)
    assert (last["response"]["id"], last["response"]["status"]) == ("resp_up", "completed")


@pytest.mark.parametrize("count", [0, 2, 4])
def test_passer_fails(count: int) -> None:
    """A failure ends the stream under the response's own id, numbered on, whatever has come before."""
    passer = RESPONSES.passer(ask(stream=True), FACE)
    for one in sse.Decoder().feed(b"".join(upstream()[:count])):
        passer.frame(one, [])
    events = parsed(passer.fail(FAILURE, "req-1"))
    assert events[-1][0] == "response.failed"
    assert events[-1][1]["response"]["status"] == "failed"
    assert events[-1][1]["sequence_number"] == (count if count else 2)
    assert passer.close(NOTHING) + passer.fail(FAILURE, "") == b""


def test_passer_mends_bytes() -> None:
    """Broken UTF-8 does not reach the client; a frame without its blank line gets one."""
    raw = b'data: {"type":"response.output_text.delta","delta":"\xff"}\n\n'
    during, _ = passed(raw)
    assert during.decode()
    during, _ = passed(b'data: {"type":"x"}\r\rdata: {"type":"y"}')
    assert [event["type"] for _, event in parsed(during)] == ["x", "y"]


def test_passer_thinking_to_content() -> None:
    """With that option the stream is told anew from its events."""
    face = Face(model="asked", id="req", created=7, thinking_to_content=True)
    passer = RESPONSES.passer(ask(stream=True), face)
    empty = sse.Frame(b"", "", None)
    out = passer.frame(empty, [ReasoningDelta("Hm"), TextDelta("Hi")]) + passer.close(USAGE)
    assert strict(out)[-1]["response"]["output"][0]["content"][0]["text"].startswith("<think>\nHm\n</think>\n")


def test_same() -> None:
    """A whole answer of this format: its own bytes, but for the name and a usage that is missing."""
    body = b'{"id": "resp_1", "status": "completed", "model": "up", "usage": {"input_tokens": 1}, "new": 1}'
    asked, renamed = ask(), Face(model="asked", id="r", created=7, rename=True)
    assert RESPONSES.same(asked, FACE, Document(body), USAGE) == body
    assert orjson.loads(RESPONSES.same(asked, renamed, Document(body), USAGE))["model"] == "asked"
    filled = orjson.loads(RESPONSES.same(asked, FACE, Document(b'{"status": "completed", "usage": null}'), USAGE))
    assert filled["usage"]["total_tokens"] == 14
    queued = b'{"status": "queued", "usage": null}'
    assert RESPONSES.same(asked, FACE, Document(queued), USAGE) == queued
    assert RESPONSES.same(asked, FACE, Document(b"[1]"), USAGE) == b"[1]"


# The official SDK.


def client(body: bytes, stream: bool) -> openai.OpenAI:
    """An SDK whose server answers with these bytes."""
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body, headers={"content-type": kind}))
    return openai.OpenAI(
        api_key="sk", base_url="http://here.example/v1", http_client=httpx2.Client(transport=transport), max_retries=0
    )


def test_sdk_reads_a_whole_answer() -> None:
    """`responses.create` finds text, calls and usage."""
    body = RESPONSES.answer(ask(), FACE, THOUGHT, USAGE)
    with client(body, False) as sdk:
        said = sdk.responses.create(model="asked", input="Hi")
    assert said.output_text == "I look."
    assert said.usage is not None
    assert said.usage.input_tokens_details.cached_tokens == 3


def test_sdk_accumulates_a_stream() -> None:
    """`responses.stream` follows the events and ends with the same response."""
    writer = RESPONSES.writer(ask(stream=True), FACE)
    body = b": ping\n\n" + b"".join([writer.feed(one) for one in THOUGHT]) + writer.close(USAGE)
    with client(body, True) as sdk, sdk.responses.stream(model="asked", input="Hi") as events:
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert texts == ["I lo", "ok."]
    assert final.output_text == "I look."
    assert [one.type for one in final.output][-2:] == ["function_call", "custom_tool_call"]


def test_sdk_raises_a_failure() -> None:
    """An error in a stream is an exception of the SDK's."""
    writer = RESPONSES.writer(ask(stream=True), FACE)
    body = writer.feed(TextDelta("Hi")) + writer.fail(FAILURE, "req-1")
    with client(body, True) as sdk, pytest.raises(openai.APIError, match="It broke"):
        list(sdk.responses.create(model="asked", input="Hi", stream=True))


# Hostile order.


@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_events_keeps_the_grammar(seed: int) -> None:
    """Whatever a reader tells in whatever order, the stream keeps its grammar and equals the whole answer."""
    dice = random.Random(seed)
    choices: list[Event] = [
        Started("x"),
        TextDelta("a"),
        TextDelta(""),
        TextDelta("b", 1),
        RefusalDelta("n"),
        ReasoningDelta("t", 0, 1),
        ReasoningDelta("u", 0, 2),
        ReasoningSealed("s", None, "anthropic-claude-v1", 0, 1),
        ReasoningSealed(None, "d", "we.ird", 0, 2),
        ReasoningSealed(),
        CallStarted(0, "c0", "f"),
        CallStarted(1, "c1", "g", signature="s"),
        CallStarted(2, "c2", "h", kind="custom"),
        CallDelta(0, "{"),
        CallDelta(0, "}"),
        CallDelta(1, "{}"),
        CallDelta(2, "free"),
        CallDelta(9, "?"),
        Cited({"url": "https://a.example", "start": "x"}, "web"),
        Cited({"url": 3}, "web"),
        Cited({"cited_text": "x"}, "anthropic"),
        LogProbs(({"token": "a"}, {"token": "b", "logprob": -1.5})),
        Picture("iVBO", "image/png"),
        Block({"type": "x"}, "anthropic"),
        Metered(USAGE),
        Finished("stop"),
        Failed(FAILURE),
        Skipped("?"),
        Ended(),
    ]
    told = [dice.choice(choices) for _ in range(40)]
    first = next((one for one in told if isinstance(one, Started)), None)
    events = written([first, *told] if first else told)
    assert answered(told)["output"] == events[-1]["response"]["output"]
