"""Ollama beside its rows: odd answers of real servers, files, choices that name nothing, and what is not told."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import BY_NUMBER
from newapi_proxy.adapters._ollama_answer import seconds
from newapi_proxy.adapters.ollama import ADAPTER
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Media, Text, Tool, Turn
from newapi_proxy.ir.events import Event, Failed, Finished, Metered, TextDelta, fold
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire.tree import Document
from tests.fakes.inbound import FUNCTION, Call
from tests.fakes.two_ends import Ends

OLLAMA = Ends(adapter=ADAPTER, model="m")
LAST = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": 1}


def whole(body: Any) -> list[Event]:
    """A whole answer's events."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return list(OLLAMA.dialect.answer(OLLAMA.ask("OC"), Document(raw)))


def failure(events: list[Event]) -> Failed:
    """The only failure."""
    (found,) = (event for event in events if isinstance(event, Failed))
    return found


def ask(*parts: Any, **more: Any) -> Ask:
    """A request of one turn, made by hand."""
    turn = Turn(role="user", parts=parts or (Text(text="Hi"),), path="messages.0")
    return Ask(dialect="openai-chat", model="m", tree={}, size=9, turns=(turn,), **more)


def test_registered() -> None:
    """By its name and by New API's number."""
    assert BY_NUMBER[4] == ("ollama", "http://localhost:11434")


def test_no_key_at_home() -> None:
    """A channel without a key sends no credential."""
    bare = Ends(adapter=ADAPTER, model="m", key="", base_url="http://localhost:11434")
    sent = bare.sent("OC").outgoing
    assert sent.url == "http://localhost:11434/api/chat"
    assert "authorization" not in sent.headers


def test_stream_nobody_asked_for() -> None:
    """A server that streams all the same is read all the same."""
    lines = [{"message": {"content": "H"}, "done": False}, {"message": {"content": "o"}, "done": False}, LAST]
    answer = fold(whole(b"".join(orjson.dumps(line) + b"\n" for line in lines)))
    assert answer.choices[0].text == "Ho"
    assert answer.choices[0].finished == Finished("stop", native="stop")
    assert answer.failure is None


def test_whole_answer_that_does_not_say_so() -> None:
    """Without `done` a whole answer is one all the same; a stream is not."""
    assert fold(whole({"message": {"content": "Ho"}})).choices[0].finished == Finished("stop")
    assert failure(OLLAMA.heard(b'{"message":{"content":"Ho"}}\n')).failure.status == 502


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"x"', b"\xff\n{"])
def test_unreadable_answer(body: bytes) -> None:
    """What is no answer is a failure of the upstream's."""
    assert failure(whole(body)).failure.status == 502


def test_loaded() -> None:
    """An answer that only says that the model is there has no words, and ends."""
    body = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}
    assert [event for event in whole(body) if isinstance(event, (TextDelta, Finished, Metered))] == [
        Finished("stop", native="load")
    ]


def test_broken_line() -> None:
    """A line that is no object fails the stream at once; what follows is not believed."""
    events = OLLAMA.heard(b'{"message":{"content":"H"},"done":false}\n{"mess\n{"message":{"content":"o"}}\n')
    assert fold(events[:-1]).choices[0].text == "H"
    assert isinstance(events[-1], Failed)


def test_nothing_follows_the_last_line() -> None:
    """Lines behind it are ignored."""
    events = OLLAMA.heard(orjson.dumps(LAST) + b"\n" + b'{"message":{"content":"more"}}\nx\n')
    assert not [event for event in events if isinstance(event, (TextDelta, Failed))]


@pytest.mark.parametrize("error", ["some words", {"message": "some words"}, {"code": 3}, None, [], 7])
def test_errors_inside(error: Any) -> None:
    """An `error` of any shape is a failure."""
    found = failure(OLLAMA.heard(orjson.dumps({"error": error}) + b"\n")).failure
    assert found.status == 502
    assert found.message


def test_wrong_types() -> None:
    """Shapes that are not what they should be are not there."""
    odd = {"content": 7, "thinking": [], "tool_calls": [None, 3, {"function": 1}, {"function": {"name": 2}}]}
    line = {"model": 1, "created_at": 5, "message": odd, "logprobs": [1, {"token": 1}], "eval_count": -1}
    answer = fold(whole({**line, "done": True, "done_reason": 4, "prompt_eval_count": "9"}))
    assert answer.choices[0].calls == []
    assert answer.choices[0].finished == Finished("stop")
    assert answer.usage is None


def test_arguments_of_any_shape() -> None:
    """Objects, text, nothing: what comes out is JSON text."""
    calls = [{"function": {"name": "f", "arguments": one}} for one in ({"a": 1}, '{"b":2}', None, {})]
    answer = fold(whole({"message": {"tool_calls": calls}, "done": True}))
    assert [call.arguments for call in answer.choices[0].calls] == ['{"a":1}', '{"b":2}', "{}", "{}"]
    assert len({call.id for call in answer.choices[0].calls}) == 4


def test_counts() -> None:
    """Both counts are upstream's; one alone is marked as a part."""
    assert fold(whole({**LAST, "prompt_eval_count": 7})).usage == Usage(prompt=7, completion=1)
    assert fold(whole(LAST)).usage == Usage(completion=1, source="mixed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-24T20:26:46.294874Z", 1716582406),
        ("2024-05-24T20:26:46.123456789+02:00", 1716575206),
        ("2024-05-24T20:26:46-00:30", 1716584206),
        ("2024-13-24T20:26:46Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        (5, None),
    ],
)
def test_moments(text: Any, expected: int | None) -> None:
    """RFC 3339 with any fraction and zone."""
    assert seconds(text) == expected


def test_text_documents() -> None:
    """A document given as text, and files whose names alone say that they are text."""
    document = Media(kind="file", text="Inside", filename='a"<b>.txt', path="messages.0.content.0")
    csv = Media(kind="file", data=base64.b64encode(b"1,2").decode(), filename="t.csv")
    content = OLLAMA.given(ask(document, csv)).messages[0]["content"]
    assert content == '<file name="ab.txt">\nInside\n</file>\n<file name="t.csv">\n1,2\n</file>'


@pytest.mark.parametrize(
    "medium",
    [
        Media(kind="video", data="AAAA", path="p"),
        Media(kind="image", url="https://e.example/a.png", path="p"),
        Media(kind="file", file_id="file-1", path="p"),
        Media(kind="file", data="A", media_type="text/plain", path="p"),
        Media(kind="file", data="AAAA", path="p"),
        Media(kind="image", data="R0lGODlh", path="p"),
    ],
    ids=["film", "address", "id", "broken", "unknown", "gif"],
)
def test_refused_media(medium: Media) -> None:
    """Named by their place."""
    with pytest.raises(Unsupported) as caught:
        OLLAMA.given(ask(medium))
    assert caught.value.param == "p"


def test_tools_that_cannot_be_told() -> None:
    """Other kinds, names with other letters, a choice of a tool that is not there."""
    for tool in (
        Tool(name="t", kind="server", path="tools.0"),
        Tool(name="t", kind="custom", path="tools.0"),
        Tool(name="a.b", path="tools.0"),
    ):
        with pytest.raises(Unsupported):
            OLLAMA.given(ask(tools=(tool,)))
    with pytest.raises(Unsupported):
        OLLAMA.sent("OC", tools=[FUNCTION], choice="other")


def test_instruction_without_a_system_message() -> None:
    """It becomes one."""
    messages = OLLAMA.sent("OC", tools=[FUNCTION], choice="required").messages
    assert [message["role"] for message in messages] == ["system", "user"]


def test_result_of_an_unknown_call() -> None:
    """It is told without a tool's name."""
    history = [{"role": "tool", "tool_call_id": "x", "content": "done"}]
    message = OLLAMA.sent("OC", steering={"messages": history}).messages[0]
    assert message == {"role": "tool", "content": "done", "tool_call_id": "x"}


def test_defaults_of_the_channel() -> None:
    """A token limit where the client has none; the client's own wins."""
    options = {"default_max_tokens": 50}
    assert OLLAMA.sent("OC", options=options).body["options"] == {"num_predict": 50}
    assert OLLAMA.sent("OC", options=options, max_tokens=7).body["options"] == {"num_predict": 7}


def test_budget_as_a_level() -> None:
    """Tokens become the nearest level."""
    for budget, level in ((1024, "low"), (8000, "medium"), (20000, "high"), (60000, "max")):
        thinking = {"type": "enabled", "budget_tokens": budget}
        assert OLLAMA.sent("AM", steering={"thinking": thinking, "max_tokens": 64000}).body["think"] == level


def test_hints_are_named() -> None:
    """Cache marks and a picture's detail have no place here."""
    part = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
    sent = OLLAMA.sent("AM", steering={"messages": [{"role": "user", "content": [part]}]})
    assert sent.dropped == ("messages.0.content.0.cache_control",)


def test_calls_of_the_history_count() -> None:
    """Several calls of one turn are numbered."""
    turns = (("user", "Go"), ("assistant", Call("a", "f"), Call("b", "g")))
    calls = OLLAMA.sent("OC", turns).messages[1]["tool_calls"]
    assert [call["function"]["index"] for call in calls] == [0, 1]
