"""The rows of Cohere, each in every format that clients speak: what goes up, what comes back, what it costs."""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters.cohere import ADAPTER
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.events import Cited, fold
from tests.fakes.inbound import FUNCTION, HI, PDF, PNG, Call, File, Film, Picture, Result, Sound, Thought, across
from tests.fakes.matrix_grammar import FINISHES
from tests.fakes.two_ends import CUTS, Ends, Got

PLAIN: Final = Ends(adapter=ADAPTER, model="command-a-03-2025")
THINKING: Final = Ends(adapter=ADAPTER, model="command-a-reasoning-08-2025")
CUT: Final = pytest.mark.parametrize("cut", CUTS, ids=["whole", "bytes"])
TOOLS: Final = [FUNCTION, {**FUNCTION, "name": "g"}]
CALL: Final = Call("call_1", "f", '{"a":1}')
CALLED: Final = (("user", "Go"), ("assistant", CALL))
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
USAGE: Final = {
    "billed_units": {"input_tokens": 11, "output_tokens": 4},
    "tokens": {"input_tokens": 506, "output_tokens": 6},
    "cached_tokens": 0,
}
SAID: Final = [{"type": "text", "text": "Ho"}]


def call(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call as upstream tells it."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def whole(finish: str = "COMPLETE", usage: Any = USAGE, **message: Any) -> dict[str, Any]:
    """A whole answer."""
    body = {"role": "assistant", "content": SAID, **message}
    return {"id": "c-1", "message": body, "finish_reason": finish, "usage": usage}


def event(kind: str, index: int | None = None, message: Any = None, **more: Any) -> bytes:
    """A frame of a stream."""
    tree: dict[str, Any] = {"type": kind, **({} if index is None else {"index": index}), **more}
    if message is not None:
        tree["delta"] = {"message": message}
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(tree) + b"\n\n"


START: Final = event("message-start", message={"role": "assistant", "content": []}, id="c-1")


def end(finish: str = "COMPLETE", **more: Any) -> bytes:
    """The last event."""
    return event("message-end", delta={"finish_reason": finish, "usage": USAGE, **more})


def spoken(kind: str, index: int, *pieces: str) -> bytes:
    """A block of text or thinking."""
    deltas = [event("content-delta", index, {"content": {kind: piece}}) for piece in pieces]
    start = event("content-start", index, {"content": {"type": kind, kind: ""}})
    return start + b"".join(deltas) + event("content-end", index)


def called(index: int, id: str, name: str, *pieces: str) -> bytes:
    """A call with its arguments in pieces."""
    deltas = [event("tool-call-delta", index, {"tool_calls": {"function": {"arguments": piece}}}) for piece in pieces]
    return event("tool-call-start", index, {"tool_calls": call(id, name, "")}) + b"".join(deltas)


def refused(letter: str, turns: Any, **wishes: Any) -> None:
    """Asserts the refusal of a medium."""
    with pytest.raises(Unsupported) as caught:
        PLAIN.sent(letter, turns, **wishes)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_content")
    assert caught.value.param


def calls(got: Got) -> list[tuple[str, str, Any]]:
    """The calls with their arguments read."""
    return [(id, name, orjson.loads(arguments)) for id, name, arguments in got.shown.calls]


@pytest.mark.parametrize("stream", [False, True])
@across("OC", "OR", "AM", "GG")
def test_plain_question(letter: str, stream: bool) -> None:
    """T-COHE-001: version 2 of the chat; a base URL that ends in its version is not doubled."""
    one = PLAIN.sent(letter, stream=stream)
    assert one.outgoing.url == "https://h.example/v2/chat"
    assert one.outgoing.headers["authorization"] == "Bearer k"
    asked = {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    assert one.body == asked | ({"max_tokens": 1024} if letter == "AM" else {})
    assert one.dropped == ()
    versioned = Ends(adapter=ADAPTER, model="m", base_url="https://h.example/v2")
    assert versioned.sent(letter).outgoing.url == "https://h.example/v2/chat"


@across("OC", "OR", "AM")
def test_system_turn_inside(letter: str) -> None:
    """T-COHE-002: it stays in its place."""
    turns = (("system", "One."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("system", "Two."))
    assert [(one["role"], one["content"]) for one in PLAIN.sent(letter, turns).messages] == list(
        zip(("system", "user", "assistant", "user", "system"), ("One.", "Hi", "Ho", "And?", "Two."), strict=True)
    )


@pytest.mark.parametrize("url", ["https://e.example/a.png", f"data:image/png;base64,{PNG}"], ids=["address", "data"])
@across("OC", "OR", "AM", "GG")
def test_pictures(letter: str, url: str) -> None:
    """T-COHE-003: by address or by value; Cohere fetches."""
    assert ADAPTER.by_bytes is None
    (message,) = PLAIN.sent(letter, (("user", "What?", Picture(url)),)).messages
    assert message["content"] == [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]


@across("OC", "OR", "AM", "GG")
def test_other_media(letter: str) -> None:
    """T-COHE-004: PDF everywhere, sound and films where the format knows them; texts are read to the model."""
    refused(letter, (("user", "Read.", File(PDF)),))
    if letter != "AM":
        refused(letter, (("user", "Listen.", Sound()),))
    if letter in ("OC", "GG"):
        refused(letter, (("user", "Look.", Film()),))
    file = File(data=base64.b64encode("Grüße".encode()).decode(), kind="text/plain", name="a.txt")
    part = PLAIN.sent(letter, (("user", "Read.", file),)).messages[0]["content"][1]
    assert part["type"] == "text"
    assert part["text"].endswith("Grüße")


@across("OC", "OR", "AM", "GG")
def test_calls_with_a_plan(letter: str) -> None:
    """T-COHE-005: the plan came as thinking and goes back as the plan; arguments stay text, ids stay."""
    shown = PLAIN.answered(letter, whole("TOOL_CALL", content=None, tool_plan="I look.", tool_calls=[]), tools=TOOLS)
    assert shown.shown.thoughts == "I look."
    turns = (("user", "Go"), ("assistant", Thought("I look."), CALL))
    one = PLAIN.sent(letter, turns)
    assert one.messages[1] == {
        "role": "assistant",
        "tool_calls": [call("call_1", "f", '{"a":1}')],
        "tool_plan": "I look.",
    }
    assert one.dropped == ()


def test_plan_of_a_client_that_knows_it() -> None:
    """T-COHE-005 (OC): the field itself, beside the message's others."""
    message = {"role": "assistant", "tool_plan": "I look.", "tool_calls": [call("call_1", "f", '{"a":1}')]}
    turns = [{"role": "user", "content": "Go"}, message]
    ask = THINKING.ask("OC", steering={"messages": turns})
    assert THINKING.given(ask).messages[1] == message


@across("OC", "OR", "AM", "GG")
def test_thinking_replayed(letter: str) -> None:
    """T-COHE-006: as a part of its own, where the model thinks; else it is left out and named."""
    turns = (("user", "Hi"), ("assistant", Thought("Hm."), "Ho"), ("user", "And?"))
    parts = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Ho"}]
    assert THINKING.sent(letter, turns).messages[1] == {"role": "assistant", "content": parts}
    one = PLAIN.sent(letter, turns)
    assert one.messages[1] == {"role": "assistant", "content": "Ho"}
    assert [name.rpartition(".")[2] for name in one.dropped] == ["reasoning_content"]


@across("OC", "OR", "AM", "GG")
def test_several_results(letter: str) -> None:
    """T-COHE-007: a message each."""
    said = ("assistant", Call("call_1", "f"), Call("call_2", "g"))
    turns = (("user", "Go"), said, ("tool", Result("call_1", "f", "one"), Result("call_2", "g", "two")))
    results = PLAIN.sent(letter, turns).messages[2:]
    assert [(one["role"], one["tool_call_id"]) for one in results] == [("tool", "call_1"), ("tool", "call_2")]
    assert ["one" in results[0]["content"], "two" in results[1]["content"]] == [True, True]


@across("OC", "OR", "AM", "GG")
def test_picture_in_a_result(letter: str) -> None:
    """T-COHE-008: there is no place for it."""
    refused(letter, (*CALLED, ("tool", Result("call_1", "f", "See", (Picture(),)))))


@across("OC", "OR", "AM", "GG")
def test_strict_tools(letter: str) -> None:
    """T-COHE-009: one of them makes all of them strict. Gemini's format cannot say it."""
    strict = letter != "GG"
    one = PLAIN.sent(letter, tools=[{**FUNCTION, "strict": True}, TOOLS[1]])
    assert one.body.get("strict_tools") is (True if strict else None)
    assert [tool["function"]["name"] for tool in one.body["tools"]] == ["f", "g"]
    assert "strict" not in one.body["tools"][0]["function"]
    assert one.dropped == ()


@pytest.mark.parametrize(("choice", "word"), [("auto", None), ("required", "REQUIRED"), ("none", "NONE")])
@across("OC", "OR", "AM", "GG")
def test_tool_choice(letter: str, choice: str, word: str | None) -> None:
    """T-COHE-010: in capitals; nothing is what auto means."""
    one = PLAIN.sent(letter, tools=TOOLS, choice=choice)
    assert one.body.get("tool_choice") == word
    assert len(one.body["tools"]) == 2


@across("OC", "OR", "AM", "GG")
def test_named_tool(letter: str) -> None:
    """T-COHE-011: the only one that is offered, and one must be called."""
    one = PLAIN.sent(letter, tools=TOOLS, choice="g")
    assert [tool["function"]["name"] for tool in one.body["tools"]] == ["g"]
    assert one.body["tool_choice"] == "REQUIRED"
    assert one.dropped == ()


@across("OC", "OR", "AM", "GG")
def test_json(letter: str) -> None:
    """T-COHE-012: one kind of format, with a schema or without."""
    assert PLAIN.sent(letter, schema=SCHEMA).body["response_format"] == {"type": "json_object", "json_schema": SCHEMA}
    if letter != "AM":
        assert PLAIN.sent(letter, json=True).body["response_format"] == {"type": "json_object"}


@CUT
@across("OC", "OR", "AM", "GG")
def test_json_beside_tools(letter: str, cut: int) -> None:
    """T-COHE-013: asked for in words; a fence around the answer is taken off."""
    wishes: dict[str, Any] = {"schema": SCHEMA, "tools": TOOLS}
    one = PLAIN.sent(letter, (("system", "Brief."), ("user", "Hi")), **wishes)
    assert "response_format" not in one.body
    assert [message["role"] for message in one.messages] == ["system", "system", "user"]
    assert "JSON Schema" in one.messages[1]["content"]
    got = PLAIN.answered(letter, whole(content=[{"type": "text", "text": '```json\n{"a":1}\n```'}]), **wishes)
    assert got.shown.text == '{"a":1}'
    data = START + spoken("text", 0, "```js", 'on\n{"a"', ":1}\n``", "`") + end()
    assert PLAIN.streamed(letter, data, cut, **wishes).shown.text == '{"a":1}'


@across("OC", "OR", "AM", "GG")
def test_temperature(letter: str) -> None:
    """T-COHE-014: up to 1; more is clamped and named. Anthropic's format has no more."""
    one = PLAIN.sent(letter, temperature=1 if letter == "AM" else 1.5)
    assert one.body["temperature"] == 1
    assert one.dropped == (() if letter == "AM" else ("temperature~",))


@across("OC", "OR", "AM", "GG")
def test_top_p(letter: str) -> None:
    """T-COHE-015: less than 1."""
    assert PLAIN.sent(letter, top_p=1).body["p"] == 0.99
    assert PLAIN.sent(letter, top_p=0.5).body["p"] == 0.5


@across("OC", "AM", "GG")
def test_top_k(letter: str) -> None:
    """T-COHE-016: another name, 500 at most."""
    assert PLAIN.sent(letter, top_k=40).body["k"] == 40
    assert PLAIN.sent(letter, top_k=900).body["k"] == 500
    assert PLAIN.sent(letter, top_k=900).dropped == ("top_k~",)


@across("OC", "GG")
def test_penalties(letter: str) -> None:
    """T-COHE-017: none below nothing; more than 1 is 1."""
    names = {"OC": ("presence_penalty", "frequency_penalty"), "GG": ("presencePenalty", "frequencyPenalty")}[letter]
    given: dict[str, Any] = {names[0]: -1, names[1]: 1.5}
    one = PLAIN.sent(letter, steering=given if letter == "OC" else {"generationConfig": given})
    assert "presence_penalty" not in one.body
    assert one.body["frequency_penalty"] == 1
    assert one.dropped == ("frequency_penalty~", "presence_penalty")


@across("OC", "AM", "GG")
def test_stop_words(letter: str) -> None:
    """T-COHE-018: the first five."""
    one = PLAIN.sent(letter, stop=list("abcdefg")[: 5 if letter == "GG" else 7])
    assert one.body["stop_sequences"] == list("abcde")
    assert one.dropped == {"OC": ("stop~",), "AM": ("stop_sequences~",), "GG": ()}[letter]


@across("OC", "GG")
def test_seed(letter: str) -> None:
    """T-COHE-019: the same here."""
    given = {"seed": 7}
    assert PLAIN.sent(letter, steering=given if letter == "OC" else {"generationConfig": given}).body["seed"] == 7


@CUT
@across("OC", "OR", "GG")
def test_log_probabilities(letter: str, cut: int) -> None:
    """T-COHE-020: asked for, without alternatives; a piece of text has the sum of its tokens'."""
    one = PLAIN.sent(letter, logprobs=True)
    assert one.body["logprobs"] is True
    assert one.dropped == (("top_logprobs",) if letter == "OR" else ())
    weights = {"token_ids": [1, 2], "text": "Hé", "logprobs": [-0.25, -0.25]}
    told = [{"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169], "top_logprobs": []}]
    got = PLAIN.answered(letter, whole() | {"logprobs": [weights]})
    assert fold(got.events).choices[0].logprobs == told
    data = START + event("content-delta", 0, {"content": {"text": "Hé"}}, logprobs=weights) + end()
    assert fold(PLAIN.streamed(letter, data, cut).events).choices[0].logprobs == told


@pytest.mark.parametrize(("effort", "budget"), [("none", None), ("low", 1024), ("medium", 4096), ("high", 16384)])
@across("OC", "OR", "AM", "GG")
def test_effort(letter: str, effort: str, budget: int | None) -> None:
    """T-COHE-021: tokens, or none at all; a model that does not think is not told."""
    wanted = {"type": "disabled"} if budget is None else {"type": "enabled", "token_budget": budget}
    assert THINKING.sent(letter, effort=effort).body["thinking"] == wanted
    one = PLAIN.sent(letter, effort=effort)
    assert "thinking" not in one.body
    name = {
        "OC": "reasoning_effort",
        "OR": "reasoning.effort",
        "AM": "thinking",
        "GG": "generationConfig.thinkingConfig",
    }[letter]
    assert one.dropped == (() if budget is None else (name,))


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls")],
)
@across("OC", "OR", "AM", "GG")
def test_finishes(letter: str, word: str, meaning: str) -> None:
    """T-COHE-022: the words of answers."""
    more = {"tool_calls": [call("call_1", "f", "{}")]} if word == "TOOL_CALL" else {}
    assert PLAIN.answered(letter, whole(word, **more)).shown.finish == FINISHES[meaning][letter]


@pytest.mark.parametrize(("word", "status"), [("ERROR", 502), ("TIMEOUT", 504)])
@across("OC", "OR", "AM", "GG")
def test_failed_finishes(letter: str, word: str, status: int) -> None:
    """T-COHE-022: the words of failures, whole and streamed."""
    for got in (
        PLAIN.answered(letter, whole(word)),
        PLAIN.streamed(letter, START + spoken("text", 0, "H") + end(word)),
    ):
        assert got.shown.error is not None
        assert got.failure is not None
        assert got.failure.status == status


@CUT
@across("OC", "OR", "AM", "GG")
def test_billed_units(letter: str, cut: int) -> None:
    """T-COHE-023: what is billed counts, not what the API puts around it."""
    usage = {
        "billed_units": {"input_tokens": 1, "output_tokens": 9},
        "tokens": {"input_tokens": 496, "output_tokens": 11},
    }
    data = START + spoken("text", 0, "Ho") + end(usage=usage)
    for got in (PLAIN.answered(letter, whole(usage=usage)), PLAIN.streamed(letter, data, cut)):
        assert (got.shown.usage["prompt"], got.shown.usage["completion"]) == (1, 9)
        assert got.usage is not None
        assert got.usage.source == "upstream"


@across("OC", "OR", "AM", "GG")
def test_cache_above_billed(letter: str) -> None:
    """T-COHE-024: no part is above its whole."""
    usage = {
        "billed_units": {"input_tokens": 2406, "output_tokens": 2},
        "cached_tokens": 2928,
        "tokens": {"input_tokens": 2935, "output_tokens": 4},
    }
    got = PLAIN.answered(letter, whole(usage=usage))
    assert got.usage is not None
    assert (got.usage.prompt, got.usage.cache_read, got.usage.completion) == (2406, 2406, 2)
    assert got.shown.usage["prompt"] == 2406


ADDRESS: Final = {
    "start": 0,
    "end": 2,
    "text": "Ho",
    "sources": [{"type": "document", "id": "d:0", "document": {"id": "d:0", "url": "https://e.example", "title": "E"}}],
    "type": "TEXT_CONTENT",
    "content_index": 1,
}
BARE: Final = {
    "start": 0,
    "end": 2,
    "text": "Ho",
    "sources": [{"type": "tool", "id": "t:0", "tool_output": {"a": "b"}}],
}


@CUT
@across("OC", "OR", "AM", "GG")
def test_citations(letter: str, cut: int) -> None:
    """T-COHE-025: a source with an address is an annotation; the others reach the surfaces word for word."""
    content = [{"type": "text", "text": "Aha. "}, *SAID]
    got = PLAIN.answered(letter, whole(content=content, citations=[ADDRESS, BARE]))
    data = START + spoken("text", 0, "Aha. ") + spoken("text", 1, "Ho")
    data += event("citation-start", 0, {"citations": ADDRESS}) + event("citation-start", 1, {"citations": BARE})
    for one in (got, PLAIN.streamed(letter, data + event("citation-end", 0) + end(), cut)):
        web, other = (found for found in one.events if isinstance(found, Cited))
        assert (web.family, web.value["url"], web.value["title"]) == ("web", "https://e.example", "E")
        assert (web.value["start"], web.value["end"]) == (5, 7)
        assert (other.family, other.value) == ("cohere", BARE)
    assert b"https://e.example" in orjson.dumps(got.shown.tree)


@CUT
@across("OC", "OR", "AM", "GG")
def test_stream(letter: str, cut: int) -> None:
    """T-COHE-026, 030 and 031: text, with a terminator behind it and without."""
    data = START + spoken("text", 0, "Grü", "ße \U0001f600") + event("debug", prompt="x") + end()
    for tail in (b"", b"data: [DONE]\n\n"):
        got = PLAIN.streamed(letter, data + tail, cut)
        assert (got.shown.text, got.shown.finish) == ("Grüße \U0001f600", FINISHES["stop"][letter])
        assert (got.shown.usage["prompt"], got.shown.usage["completion"]) == (11, 4)


@CUT
@across("OC", "OR", "AM", "GG")
def test_streamed_plan_and_calls(letter: str, cut: int) -> None:
    """T-COHE-027: the plan as thinking, then two calls, pretty-printed as they are."""
    plan = b"".join(event("tool-plan-delta", message={"tool_plan": piece}) for piece in ("I ", "look."))
    first = called(0, "f_1", "f", '{\n    "', "a", '": 1', "\n}")
    data = START + plan + first + event("tool-call-end", 0) + called(1, "g_2", "g") + event("tool-call-end", 1)
    got = PLAIN.streamed(letter, data + end("TOOL_CALL"), cut, tools=TOOLS)
    assert got.shown.thoughts == "I look."
    assert calls(got) == [("f_1", "f", {"a": 1}), ("g_2", "g", {})]
    assert got.shown.finish == FINISHES["tool_calls"][letter]
    if letter == "OC":
        assert got.shown.calls[0][2] == '{\n    "a": 1\n}'


@CUT
@across("OC", "OR", "AM", "GG")
def test_streamed_thinking(letter: str, cut: int) -> None:
    """T-COHE-028: thinking, then the text."""
    data = START + spoken("thinking", 0, "H", "m.") + spoken("text", 1, "Ho") + end()
    got = THINKING.streamed(letter, data, cut)
    assert (got.shown.thoughts, got.shown.text) == ("Hm.", "Ho")


@CUT
@across("OC", "OR", "AM", "GG")
def test_streamed_failure(letter: str, cut: int) -> None:
    """T-COHE-029: an error at the end of a 200."""
    got = PLAIN.streamed(letter, START + spoken("text", 0, "Ho") + end("ERROR", error="model overheated"), cut)
    assert got.shown.error is not None
    assert "model overheated" in got.shown.error["message"]


@pytest.mark.parametrize(
    ("status", "seen", "kind"),
    [
        (400, 400, "bad_request"),
        (401, 502, "upstream_auth"),
        (403, 502, "upstream_auth"),
        (422, 400, "bad_request"),
        (429, 429, "rate_limit"),
        (498, 502, "upstream_auth"),
        (499, 502, "upstream"),
        (500, 502, "upstream"),
        (501, 502, "upstream"),
        (503, 503, "overloaded"),
        (504, 504, "timeout"),
    ],
)
@across("OC", "OR", "AM", "GG")
def test_errors(letter: str, status: int, seen: int, kind: str) -> None:
    """T-COHE-032: what a status means; an invalid token is the channel's affair."""
    got, shown, failure = PLAIN.refused(letter, status, {"message": "some words", "id": "e-1"})
    assert (failure.status, failure.kind, failure.upstream_status) == (seen, kind, status)
    assert got == (529 if letter == "AM" and status == 503 else seen)
    assert shown.error is not None
    assert "some words" in shown.error["message"]


@across("OC", "OR", "AM", "GG")
def test_too_many_tokens(letter: str) -> None:
    """T-COHE-032: the kind of error that the body names."""
    body = {"error_type": "TOO_MANY_TOKENS", "id": "e-1", "message": "too many tokens"}
    _, shown, failure = PLAIN.refused(letter, 400, body)
    assert (failure.status, failure.code) == (400, "context_length_exceeded")
    assert shown.error is not None


@across("OC", "OR", "AM", "GG")
def test_model_gone(letter: str) -> None:
    """T-COHE-033: the words that say why."""
    status, shown, failure = PLAIN.refused(letter, 404, {"id": "e", "message": "model 'command-r' was removed"})
    assert (status, failure.code) == (404, "model_not_found")
    assert shown.error is not None
    assert "was removed" in shown.error["message"]


def test_safety_mode() -> None:
    """T-COHE-038 (OC): a client's own word goes as it is; the channel's only where there are no tools."""
    strict = {"safety_mode": "STRICT"}
    assert PLAIN.sent("OC", steering=strict).body["safety_mode"] == "STRICT"
    assert PLAIN.sent("OC", options={"safety_mode": "NONE"}, steering=strict).body["safety_mode"] == "STRICT"
    assert PLAIN.sent("OC", options={"safety_mode": "NONE"}).body["safety_mode"] == "OFF"
    assert "safety_mode" not in PLAIN.sent("OC", options=strict, tools=TOOLS).body
    assert PLAIN.sent("AM", steering=strict).dropped == ("safety_mode",)


@across("OC", "OR", "AM")
def test_steering(letter: str) -> None:
    """T-COHE-039: what has no like here is left out and named."""
    said: dict[str, dict[str, Any]] = {
        "OC": {"user": "u", "one_call": True, "steering": {"logit_bias": {"1": 2}, "metadata": {"a": "b"}}},
        "OR": {"user": "u", "tier": "flex", "steering": {"metadata": {"a": "b"}}},
        "AM": {"user": "u"},
    }
    wishes = said[letter]
    assert (
        PLAIN.sent(letter, **wishes).dropped
        == {
            "OC": ("logit_bias", "metadata", "parallel_tool_calls", "user"),
            "OR": ("metadata", "service_tier", "user"),
            "AM": ("metadata.user_id",),
        }[letter]
    )


@across("OC", "GG")
def test_several_answers(letter: str) -> None:
    """T-COHE-040: one answer a request."""
    with pytest.raises(Unsupported) as caught:
        PLAIN.sent(letter, HI, n=2)
    assert caught.value.param == {"OC": "n", "GG": "generationConfig.candidateCount"}[letter]
