"""Cohere beside its rows: version 1 of the chat, odd answers of real servers, and what is not told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import BY_NUMBER
from newapi_proxy.adapters._cohere_request import thinks
from newapi_proxy.adapters._cohere_v1_request import definitions
from newapi_proxy.adapters.cohere import ADAPTER
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.events import Cited, Event, Failed, Finished, Skipped, TextDelta, fold
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire.tree import Document
from tests.fakes.inbound import FUNCTION, Call, Picture, Result, Thought
from tests.fakes.matrix_grammar import FINISHES
from tests.fakes.two_ends import CUTS, Ends

COHERE = Ends(adapter=ADAPTER, model="command-a-03-2025")
OLD = Ends(adapter=ADAPTER, model="command-r", base_url="https://h.example/v1")
LETTERS = pytest.mark.parametrize("letter", ["OC", "OR", "AM", "GG"])
CUT = pytest.mark.parametrize("cut", CUTS, ids=["whole", "bytes"])
META = {"billed_units": {"input_tokens": 7, "output_tokens": 99}, "tokens": {"input_tokens": 69, "output_tokens": 100}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def whole(body: Any, **wishes: Any) -> list[Event]:
    """A whole answer's events."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return list(COHERE.dialect.answer(COHERE.ask("OC", **wishes), Document(raw)))


def frames(*events: Any) -> bytes:
    """A stream of version 2; bytes go in as they are."""
    parts = [one if isinstance(one, bytes) else b"data: " + orjson.dumps(one) + b"\n\n" for one in events]
    return b"".join(parts)


def lines(*events: dict[str, Any]) -> bytes:
    """A stream of version 1."""
    return b"".join(orjson.dumps({"is_finished": False, **one}) + b"\n" for one in events)


def failure(events: list[Event]) -> Failed:
    """The only failure."""
    (found,) = (event for event in events if isinstance(event, Failed))
    return found


def test_registered() -> None:
    """By its name and by New API's number."""
    assert BY_NUMBER[34] == ("cohere", "https://api.cohere.ai")


# Version 1: the request.


@LETTERS
def test_old_question(letter: str) -> None:
    """The last message of the user apart from what was said before."""
    turns = (("system", "Brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"))
    one = OLD.sent(letter, turns, temperature=0.5, stream=True)
    assert one.outgoing.url == "https://h.example/v1/chat"
    assert (one.body["message"], one.body["stream"], one.body["temperature"]) == ("And?", True, 0.5)
    assert one.body["chat_history"] == [
        {"role": "SYSTEM", "message": "Brief."},
        {"role": "USER", "message": "Hi"},
        {"role": "CHATBOT", "message": "Ho"},
    ]
    assert one.dropped == ()


@LETTERS
def test_old_tools(letter: str) -> None:
    """Parameters by name and type; results of the last round beside an empty message."""
    tool = {**FUNCTION, "parameters": SCHEMA | {"required": ["a"]}}
    calls = (("user", "Go"), ("assistant", Call("c1", "f", '{"a":1}'), Call("c2", "f", '{"a":2}')))
    turns = (*calls, ("tool", Result("c1", "f", "one"), Result("c2", "f", '{"b":2}')))
    body = OLD.sent(letter, turns, tools=[tool]).body
    assert body["tools"] == [
        {"name": "f", "description": "Does it", "parameter_definitions": {"a": {"type": "int", "required": True}}}
    ]
    assert body["message"] == ""
    first, second = body["tool_results"]
    assert first["call"] == {"name": "f", "parameters": {"a": 1}}
    assert second["call"] == {"name": "f", "parameters": {"a": 2}}
    assert "one" in str(first["outputs"])
    assert letter == "GG" or second["outputs"] == [{"b": 2}]
    assert body["chat_history"][1]["tool_calls"][0] == {"name": "f", "parameters": {"a": 1}}


def test_old_results_inside() -> None:
    """Results that were already answered stand in the history, those of one round together."""
    turns = (
        ("user", "Go"),
        ("assistant", Call("c1", "f"), Call("c2", "f")),
        ("tool", Result("c1", "f", "one"), Result("c2", "f", '[{"b":2}]')),
        ("assistant", "Done."),
        ("user", "Thanks"),
    )
    history = OLD.sent("OC", turns).body["chat_history"]
    assert [one["role"] for one in history] == ["USER", "CHATBOT", "TOOL", "CHATBOT"]
    assert [one["outputs"] for one in history[2]["tool_results"]] == [[{"output": "one"}], [{"b": 2}]]


def test_old_forced_tools() -> None:
    """Cut to what may be called, and asked for in words; none at all where none may be."""
    tools = [FUNCTION, {**FUNCTION, "name": "g", "strict": True}]
    one = OLD.sent("OC", (("system", "Brief."), ("user", "Hi")), tools=tools, choice="g")
    assert [tool["name"] for tool in one.body["tools"]] == ["g"]
    assert [entry["role"] for entry in one.body["chat_history"]] == ["SYSTEM", "SYSTEM"]
    assert one.dropped == ("tool_choice~", "tools.1.function.strict")
    assert "tools" not in OLD.sent("OC", tools=tools, choice="none").body


def test_old_json() -> None:
    """A schema where there are no tools, words where there are."""
    assert OLD.sent("OC", schema=SCHEMA).body["response_format"] == {"type": "json_object", "schema": SCHEMA}
    body = OLD.sent("OC", schema=SCHEMA, tools=[FUNCTION]).body
    assert "response_format" not in body
    assert "JSON" in body["chat_history"][0]["message"]


def test_old_settings() -> None:
    """The other word for no safety mode, and thinking that this version does not know."""
    one = OLD.sent("OC", options={"safety_mode": "OFF"}, effort="high", max_tokens=9)
    assert (one.body["safety_mode"], one.body["max_tokens"]) == ("NONE", 9)
    assert one.dropped == ("reasoning_effort",)
    turns = (("user", "Hi"), ("assistant", Thought("Hm."), "Ho"), ("user", "And?"))
    assert OLD.sent("OC", turns).dropped == ("reasoning_content",)


def test_old_refusals() -> None:
    """Pictures and log probabilities."""
    with pytest.raises(Unsupported) as caught:
        OLD.sent("OC", (("user", "What?", Picture()),))
    assert caught.value.param == "messages.0.content.1"
    with pytest.raises(Unsupported) as caught:
        OLD.sent("GG", logprobs=True)
    assert caught.value.param == "generationConfig.responseLogprobs"


def test_old_prefill() -> None:
    """A conversation that ends with the assistant's words needs a message all the same."""
    body = OLD.sent("OC", (("user", "Hi"), ("assistant", "Ho"))).body
    assert body["message"] == "."
    assert [one["role"] for one in body["chat_history"]] == ["USER", "CHATBOT"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, {}),
        ({"properties": []}, {}),
        ({"properties": {"a": None}}, {"a": {"type": "str", "required": False}}),
        (
            {"properties": {"a": {"type": ["null", "array"], "items": {"type": "string"}, "description": "Some"}}},
            {
                "a": {
                    "description": 'Some (JSON Schema: {"items":{"type":"string"}})',
                    "type": "list",
                    "required": False,
                }
            },
        ),
        ({"properties": {"a": {"type": 5}}, "required": "a"}, {"a": {"type": "str", "required": False}}),
    ],
)
def test_definitions(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    """What a type's name cannot say stands in words."""
    assert definitions(schema) == expected


# Version 1: the answer.


@LETTERS
def test_old_answer(letter: str) -> None:
    """Text, its end, and what was billed."""
    body = {"response_id": "r", "generation_id": "g", "text": "Ho", "finish_reason": "MAX_TOKENS", "meta": META}
    got = OLD.answered(letter, body)
    assert (got.shown.text, got.shown.finish) == ("Ho", FINISHES["length"][letter])
    assert got.usage == Usage(prompt=7, completion=99)


@CUT
@LETTERS
@pytest.mark.parametrize("form", ["lines", "events"])
def test_old_stream(letter: str, cut: int, form: str) -> None:
    """Lines of JSON, or the same objects as server-sent events; the end repeats the text, which is told once."""
    end = {"response_id": "r", "text": "Grüße", "finish_reason": "COMPLETE", "meta": META}
    events: list[dict[str, Any]] = [
        {"event_type": "stream-start", "generation_id": "g"},
        {"event_type": "text-generation", "text": "Grü"},
        {"event_type": "search-results"},
        {"event_type": "text-generation", "text": "ße"},
        {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": end},
    ]
    data = lines(*events) if form == "lines" else frames(*events)
    got = OLD.streamed(letter, data, cut)
    assert (got.shown.text, got.shown.finish) == ("Grüße", FINISHES["stop"][letter])
    assert (got.shown.usage["prompt"], got.shown.usage["completion"]) == (7, 99)


@LETTERS
def test_old_calls(letter: str) -> None:
    """Ids are made, the same streamed and whole; the text beside calls is the plan."""
    calls = [{"name": "f", "parameters": {"a": 1}}, {"name": "f", "parameters": {}}]
    response = {"generation_id": "g", "text": "I look.", "tool_calls": calls, "finish_reason": "COMPLETE", "meta": META}
    got = OLD.answered(letter, response)
    assert (got.shown.text, got.shown.thoughts) == ("", "I look.")
    assert got.shown.finish == FINISHES["tool_calls"][letter]
    assert len({id for id, _, _ in got.shown.calls}) == 2
    data = lines(
        {"event_type": "stream-start", "generation_id": "g"},
        {"event_type": "tool-calls-chunk", "text": "I look."},
        {"event_type": "tool-calls-chunk", "tool_call_delta": {"index": 0, "name": "f"}},
        {"event_type": "tool-calls-generation", "tool_calls": calls},
        {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": response},
    )
    streamed = OLD.streamed(letter, data)
    assert (streamed.shown.text, streamed.shown.thoughts) == ("", "I look.")
    assert streamed.shown.calls == got.shown.calls


def test_old_citations() -> None:
    """Documents are named by id; an address makes it an annotation."""
    response = {
        "text": "Ho",
        "citations": [{"start": 0, "end": 2, "text": "Ho", "document_ids": ["d1", "d2", 3]}, {"document_ids": 4}],
        "documents": [{"id": "d1", "url": "https://e.example", "title": "E", "snippet": "S"}, {"id": "d2"}],
    }
    first, second = (event for event in whole(response) if isinstance(event, Cited))
    assert (first.family, first.value["url"], first.value["cited_text"]) == ("web", "https://e.example", "S")
    assert (first.value["start"], first.value["end"]) == (0, 2)
    assert second.family == "cohere"


@pytest.mark.parametrize(("word", "status"), [("ERROR", 502), ("TIMEOUT", 504)])
def test_old_failures(word: str, status: int) -> None:
    """At the end of a stream, whole, and by a stream that is cut."""
    assert failure(whole({"text": "", "finish_reason": word})).failure.status == status
    end = {"event_type": "stream-end", "finish_reason": word, "response": {}}
    assert failure(COHERE.heard(lines(end))).failure.status == status
    assert failure(COHERE.heard(lines({"event_type": "text-generation", "text": "H"}))).failure.status == 502
    said = failure(COHERE.heard(lines({"event_type": "stream-start"}) + b'{"message":"some words"}\n'))
    assert said.failure.message == "some words"


def test_old_stream_nobody_asked_for() -> None:
    """It is read all the same, in both forms."""
    end = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"meta": META}}
    said = {"event_type": "text-generation", "text": "Ho"}
    for data in (lines(said, end), frames(said, end)):
        answer = fold(whole(data))
        assert answer.choices[0].text == "Ho"
        assert answer.usage == Usage(prompt=7, completion=99)


# Version 2.


def test_models_that_think() -> None:
    """What is not known to be of an older kind."""
    assert not any(
        map(thinks, ("command-r", "command-r7b-12-2024", "command-a-03-2025", "command", "c4ai-aya-expanse"))
    )
    assert all(map(thinks, ("command-a-reasoning-08-2025", "command-a-plus-05-2026", "my-alias")))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"x"', b"data: x\n\n", b'{"message":"some words"}'])
def test_unreadable_answer(body: bytes) -> None:
    """What is no answer is a failure of the upstream's."""
    assert failure(whole(body)).failure.status == 502


def test_content_in_other_shapes() -> None:
    """A bare string, parts of unknown kinds, wrong types everywhere."""
    assert fold(whole({"message": {"content": "Ho"}})).choices[0].text == "Ho"
    odd = {"content": [1, {"text": 2}, {"thinking": []}, {"type": "new", "text": "Ho"}], "tool_plan": 7, "citations": 3}
    calls = [{"function": {"name": 3}}, {"function": 1}, 5]
    answer = fold(whole({"id": 5, "message": {**odd, "tool_calls": calls}, "finish_reason": 9, "usage": {"tokens": 1}}))
    assert answer.choices[0].text == "Ho"
    assert answer.choices[0].calls == []
    assert answer.choices[0].finished == Finished("stop")
    assert answer.usage is None


@pytest.mark.parametrize("pieces", [(), ("",), ("null",), ("nu", "ll"), (" ",)], ids=str)
def test_calls_without_arguments(pieces: tuple[str, ...]) -> None:
    """No arguments are an empty object, however they are told."""
    start = {"tool_calls": {"id": "c", "function": {"name": "f", "arguments": ""}}}
    deltas = [
        {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": one}}}}}
        for one in pieces
    ]
    end = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}
    head = {"type": "tool-call-start", "index": 0, "delta": {"message": start}}
    for tail in ([{"type": "tool-call-end", "index": 0}], []):
        (call,) = fold(COHERE.heard(frames(head, *deltas, *tail, end))).choices[0].calls
        assert call.arguments == "{}"
    assert fold(whole({"message": {"tool_calls": [{"function": {"name": "f", "arguments": "null"}}]}})).choices[0].calls


def test_arguments_that_begin_like_nothing() -> None:
    """They are told as they are."""
    call = {"id": "c", "function": {"name": "f", "arguments": "nut"}}
    (told,) = fold(whole({"message": {"tool_calls": [call]}})).choices[0].calls
    assert told.arguments == "nut"
    call["function"] = {"name": "f", "arguments": "nul"}
    (told,) = fold(whole({"message": {"tool_calls": [call]}})).choices[0].calls
    assert told.arguments == "nul"


def test_ids_that_are_missing() -> None:
    """They are made, each its own, the same for the same answer."""
    calls = [{"function": {"name": "f", "arguments": "{}"}}] * 2
    first, second = fold(whole({"id": "a", "message": {"tool_calls": calls}})).choices[0].calls
    assert first.id != second.id
    assert fold(whole({"id": "a", "message": {"tool_calls": calls}})).choices[0].calls[0].id == first.id


def test_stream_that_is_cut() -> None:
    """Without its end it is a failure, and what was held back for a fence is told before."""
    head = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "```json\n{}\n```"}}}}
    wishes: dict[str, Any] = {"schema": SCHEMA, "tools": [FUNCTION]}
    events = COHERE.heard(frames(head), **wishes)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "{}"
    assert isinstance(events[-1], Failed)
    assert isinstance(COHERE.heard(b"")[-1], Failed)


def test_error_between_events() -> None:
    """An object that is an error and no event."""
    said = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "H"}}}}
    found = failure(COHERE.heard(frames(said, {"message": "some words", "id": "x"})))
    assert found.failure.message == "some words"
    named = b'event: error\ndata: {"error":"other words"}\n\n'
    assert failure(COHERE.heard(frames(said, named))).failure.message == "other words"


def test_broken_frames() -> None:
    """They are skipped and counted; the terminator is neither."""
    events = COHERE.heard(frames(b"data: {\n\n", b": comment\n\n", b"data: [DONE]\n\n"))
    assert [type(event) for event in events] == [Skipped, Failed]


def test_plan_and_thinking() -> None:
    """Both are told, the plan first, as blocks of their own."""
    message = {"tool_plan": "Plan.", "content": [{"type": "thinking", "thinking": "Hm."}], "tool_calls": []}
    thoughts = fold(whole({"message": message})).choices[0].thoughts
    assert [one.text for one in thoughts] == ["Plan.", "Hm."]


def test_history_beside_words() -> None:
    """Words beside calls stay; arguments that are no object are wrapped; sealed thinking of others is named."""
    turns = (("user", "Go"), ("assistant", "I go.", Call("c", "f", "oops")))
    message = COHERE.sent("OC", turns).messages[1]
    assert message["content"] == "I go."
    assert orjson.loads(message["tool_calls"][0]["function"]["arguments"]) == {"__raw_arguments__": "oops"}
    sealed = {"type": "redacted_thinking", "data": "abc"}
    given = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [sealed, {"type": "text", "text": "x"}]},
    ]
    assert COHERE.sent("AM", steering={"messages": given}).dropped == ("messages.1.reasoning_content",)


def test_own_fields() -> None:
    """Documents and how to cite them go up as they are; with documents the channel's safety mode stays away."""
    fields = {"documents": [{"data": {"text": "x"}}], "citation_options": {"mode": "FAST"}}
    one = COHERE.sent("OC", options={"safety_mode": "STRICT"}, steering=fields)
    assert {name: one.body[name] for name in fields} == fields
    assert "safety_mode" not in one.body
    assert COHERE.sent("GG", steering=fields).dropped != ()


def test_budget() -> None:
    """The client's own number of tokens."""
    thinking = {"type": "enabled", "budget_tokens": 3000}
    model = Ends(adapter=ADAPTER, model="command-a-reasoning-08-2025")
    sent = model.sent("AM", steering={"thinking": thinking, "max_tokens": 9000})
    assert sent.body["thinking"] == {"type": "enabled", "token_budget": 3000}
