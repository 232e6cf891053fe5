"""The Coze adapter: what goes up for a bot, files, what of its stream is the answer, and errors inside a 200."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters.base import Outgoing, Target
from newapi_proxy.adapters.coze import ADAPTER, MOST_MESSAGES
from newapi_proxy.config.model import Channel
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Ended, Event, Failed, Finished, Metered, Skipped, Started, TextDelta, fold
from newapi_proxy.secret import Secret
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound
from tests.fakes.inbound import Call, File, Picture, Result, Sound, Thought
from tests.fakes.matrix import Theatre, script
from tests.fakes.ports import Script

Tree = dict[str, Any]
(CHAT,) = ADAPTER.chat
CREATED: Final = ("conversation.chat.created", {"id": "ch", "created_at": 1_700_000_000, "status": "created"})
COUNTS: Final = {"token_count": 15, "output_count": 4, "input_count": 11}
COMPLETED: Final = ("conversation.chat.completed", {"id": "ch", "status": "completed", "usage": COUNTS})
DONE: Final = b'event:done\ndata:"[DONE]"\n\n'


def ask(turns: Any = inbound.HI, letter: str = "OC", **wishes: Any) -> Ask:
    """A client's request as read."""
    return inbound.read(letter, inbound.body(letter, turns, **wishes), "asked", bool(wishes.get("stream")))


def sent(turns: Any = inbound.HI, model: str = "7379", options: Tree | None = None, **wishes: Any) -> Outgoing:
    """What a request becomes."""
    to = Target(
        channel="c",
        base_url="https://h.example",
        key=Secret("pat_1"),
        model=model,
        options=ADAPTER.options(**(options or {})),
        caller="key-7",
    )
    return CHAT.request(ask(turns, **wishes), to)


def messages(turns: Any, **wishes: Any) -> list[tuple[str, str]]:
    """Roles and contents of what goes up."""
    body = sent(turns, **wishes).body
    assert isinstance(body, dict)
    return [(one["role"], one["content"]) for one in body["additional_messages"]]


def piece(content: str, id: str = "m-1", **more: Any) -> tuple[str, Tree]:
    """A piece of an answer."""
    return "conversation.message.delta", {
        "id": id,
        "type": "answer",
        "content_type": "text",
        "content": content,
        **more,
    }


def whole(content: str, id: str = "m-1", **more: Any) -> tuple[str, Tree]:
    """A message that is complete."""
    return "conversation.message.completed", piece(content, id, **more)[1]


def wire(events: Any) -> bytes:
    """The stream that says this."""
    return b"".join(b"event:" + name.encode() + b"\ndata:" + orjson.dumps(data) + b"\n\n" for name, data in events)


def heard(*events: tuple[str, Tree], tail: bytes = DONE, **wishes: Any) -> list[Event]:
    """A stream's events as we understand them; whole they are the same, but for the last word."""
    raw, asked = wire(events) + tail, ask(**wishes)
    decoder, reader = CHAT.frames(), CHAT.reader(asked)
    frames = [*decoder.feed(raw), *decoder.close()]
    told = [one for frame in frames for one in reader.read(frame)] + list(reader.close())
    assert str(list(CHAT.answer(asked, Document(raw)))) == str([one for one in told if not isinstance(one, Ended)])
    return told


def text(*events: tuple[str, Tree], **wishes: Any) -> str:
    """The answer's words."""
    return fold(heard(*events, **wishes)).choices[0].text


# What goes up.


@pytest.mark.parametrize(
    ("model", "options", "bot"),
    [("7379", {}, "7379"), ("bot-7379", {}, "7379"), ("gpt-4o", {"bot": "7379"}, "7379")],
)
def test_the_bot(model: str, options: Tree, bot: str) -> None:
    """The channel's bot, else the one that the model's name is; nothing is kept, and the answer always streamed."""
    out = sent(model=model, options=options)
    assert out.url == "https://h.example/v3/chat"
    assert out.body == {
        "bot_id": bot,
        "user_id": "key-7",
        "stream": True,
        "auto_save_history": False,
        "additional_messages": [{"role": "user", "type": "question", "content": "Hi", "content_type": "text"}],
    }
    assert sent(user="anna").body["user_id"] == "anna"


def test_systems_speak_through_the_user() -> None:
    """What a system says stands in front of the user's next words, or after all others."""
    turns = (("system", "Be brief."), ("user", "1"), ("assistant", "2"), ("user", "3"), ("system", "Now."))
    assert messages(turns) == [("user", "Be brief.\n\n1"), ("assistant", "2"), ("user", "3"), ("user", "Now.")]
    assert messages((("user", ""),)) == [("user", ".")]


def test_json_by_words() -> None:
    """JSON is asked for in the last words, and a fence around the answer is taken off."""
    assert messages(inbound.HI, json=True)[-1][1].startswith("Hi\n\nAnswer with one JSON object")
    fenced = "```json\n{}\n```"
    assert text(piece(fenced[:5]), piece(fenced[5:]), COMPLETED, json=True) == "{}"


def test_files() -> None:
    """Addresses are the provider's to fetch, ids its own; bytes wait for their id; words stand beside them always."""
    turns = (("user", Picture("https://p.example/a.png"), File(id="up-1"), Sound(), File()),)
    ((role, content),) = messages(turns)
    assert role == "user"
    assert orjson.loads(content) == [
        {"type": "text", "text": "."},
        {"type": "image", "file_url": "https://p.example/a.png"},
        {"type": "file", "file_id": "up-1"},
        {"type": "audio", "file_id": ""},
        {"type": "file", "file_id": ""},
    ]


LONG: Final = tuple((("user", "assistant")[place % 2], str(place)) for place in range(MOST_MESSAGES + 1))


@pytest.mark.parametrize(
    ("turns", "wishes", "param"),
    [
        ((("user", "Go"), ("assistant", Call("c", "f")), ("tool", Result("c", "f"))), {}, "messages.1.tool_calls.0"),
        ((("user", "What?", Picture("ftp://p.example/a.png")),), {}, "messages.0.content.1"),
        ((("user", "Hi"), ("assistant", "Ho")), {}, "messages.1"),
        (LONG, {}, "messages"),
        (inbound.HI, {"n": 2}, "n"),
        (inbound.HI, {"logprobs": True}, "logprobs"),
        (inbound.HI, {"tools": [inbound.FUNCTION]}, "tools.0"),
    ],
    ids=["calls", "scheme", "prefill", "many", "n", "logprobs", "tools"],
)
def test_refusals(turns: Any, wishes: Any, param: str) -> None:
    """What changes the answer's shape, or cannot be told, is refused before anything is sent."""
    with pytest.raises(Unsupported) as caught:
        sent(turns, **wishes)
    assert caught.value.param == param
    assert "Coze" in str(caught.value)


def test_what_a_bot_decides_is_dropped() -> None:
    """Sampling, lengths and old thinking are told as left out."""
    turns = (("user", "Go"), ("assistant", Thought("Hm."), "Ho"), ("user", "And?"))
    out = sent(turns, temperature=0.5, max_tokens=9, effort="low")
    assert out.dropped == ("max_tokens", "messages.1.reasoning_content", "reasoning_effort", "temperature")


# What comes back.


def test_an_answer() -> None:
    """Begun once, told once though its end repeats it, metered, ended."""
    assert heard(CREATED, piece("Hel"), piece("lo"), whole("Hello"), COMPLETED) == [
        Started(None, None, 1_700_000_000),
        TextDelta("Hel"),
        TextDelta("lo"),
        *fold_usage(),
        Finished("stop"),
        Ended(),
    ]


def fold_usage() -> list[Event]:
    """The usage of COUNTS."""
    return [one for one in heard(COMPLETED) if isinstance(one, Metered)]


@pytest.mark.parametrize("type_", ["function_call", "tool_output", "tool_response", "follow_up", "verbose", "question"])
def test_what_is_beside_the_answer(type_: str) -> None:
    """The bot's tools, its notes and suggestions are no answer, in pieces or whole."""
    assert text(piece("x", "m-0", type=type_), whole("y", "m-9", type=type_), piece("Hello"), COMPLETED) == "Hello"


def test_answers_of_one_chat() -> None:
    """Several answers stand apart; one that comes at once is told at once; cards and sounds are not for reading."""
    events = (piece("One"), whole("One"), whole("Two", "m-2"), piece("Thr", "m-3"), piece("ee", "m-3"), COMPLETED)
    assert text(*events) == "One\n\nTwo\n\nThree"
    card = whole('{"card_type":3}', "m-4", content_type="card")
    sound = ("conversation.audio.delta", piece("UklG", content_type="audio")[1])
    assert text(piece("One"), card, sound, COMPLETED) == "One"


def test_thinking() -> None:
    """Thinking comes beside the text, once."""
    events = (piece("", reasoning_content="Hm"), piece("", reasoning_content="."), piece("So"), COMPLETED)
    again = whole("So", reasoning_content="Hm.")
    for told in (heard(*events[:-1], again, COMPLETED), heard(again, COMPLETED)):
        choice = fold(told).choices[0]
        assert (choice.text, "".join(one.text for one in choice.thoughts)) == ("So", "Hm.")


def test_usage_that_says_nothing() -> None:
    """Zeros and odd counts leave the count to us."""
    for usage in ({"input_count": 0, "output_count": 0}, {"input_count": "x"}, None):
        events = heard(piece("Hi"), ("conversation.chat.completed", {"usage": usage}))
        assert not [one for one in events if isinstance(one, Metered)]


@pytest.mark.parametrize("tail", [DONE, b"event: done\ndata: [DONE]\n\n", b""], ids=["quoted", "bare", "none"])
def test_ends_without_a_word(tail: bytes) -> None:
    """An end, or none, without the chat's completion: what was said is the answer."""
    assert heard(piece("Hi"), tail=tail)[-2:] == [Finished("stop"), Ended()]


def test_what_waits_for_somebody() -> None:
    """A question to the user is the answer; a tool that only the bot's own application has is a failure."""
    name = "conversation.chat.requires_action"
    asks = {"submit_tool_outputs": {"tool_calls": [{"id": "1", "type": "reply_message"}]}}
    assert heard(piece("Which?"), (name, {"required_action": asks}))[-2] == Finished("stop", native="requires_action")
    tool = {"submit_tool_outputs": {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]}}
    assert isinstance(heard((name, {"required_action": tool}))[-1], Failed)


CODES: Final = [
    (4000, 400, "bad_request", "nobody"),
    (4006, 404, "not_found", "nobody"),
    (4008, 429, "rate_limit", "key"),
    (4010, 400, "bad_request", "nobody"),
    (4011, 502, "upstream_auth", "key"),
    (4013, 502, "upstream", "channel"),
    (4015, 502, "upstream_auth", "channel"),
    (4020, 429, "rate_limit", "key"),
    (4100, 502, "upstream_auth", "key"),
    ("4101", 502, "upstream_auth", "key"),
    (700012006, 502, "upstream_auth", "key"),
    (4302, 413, "too_large", "nobody"),
    (702240010, 502, "upstream", "channel"),
    (503, 503, "overloaded", "channel"),
]


@pytest.mark.parametrize(("code", "status", "kind", "blames"), CODES)
def test_codes(code: Any, status: int, kind: str, blames: str) -> None:
    """A code means the same in place of a stream, in it, as its failed chat's, and behind a status."""
    error = {"code": code, "msg": "So it is.", "detail": {"logid": "l"}}
    (placed,) = CHAT.answer(ask(), Document(orjson.dumps(error)))
    failed = {"id": "ch", "status": "failed", "last_error": error}
    inside, ended = heard(("error", error)), heard(CREATED, ("conversation.chat.failed", failed))
    events = (placed, inside[-1], ended[-1], heard(("", error))[-1])
    failures = [one.failure for one in events if isinstance(one, Failed)]
    failures.append(CHAT.failure(400, {}, orjson.dumps(error)))
    assert len(failures) == 5
    if code in (702240010, 503):
        failures.pop()  # a code without a meaning of its own is what its status says
    assert {(one.status, one.kind, one.blames) for one in failures} == {(status, kind, blames)}
    assert {str(one) for one in failures} == {"So it is."}


def test_errors_without_words() -> None:
    """An empty error is one all the same, and a document that is no stream is no answer."""
    for event in (heard(("error", {}))[-1], CHAT.answer(ask(), Document(b'{"code":0,"data":{"status":"created"}}'))[0]):
        assert isinstance(event, Failed)
        assert event.failure.status == 502
    (broken,) = CHAT.answer(ask(), Document(b"<html>"))
    assert isinstance(broken, Failed)
    failure = CHAT.failure(503, {"retry-after": "7"}, b"<html>")
    assert (failure.upstream_status, failure.status, failure.retry_after) == (503, 503, 7.0)
    assert isinstance(failure, UpstreamFailure)


# Uploads, through the house.


class Upstream:
    """The provider's two addresses: files get ids, messages an answer."""

    def __init__(self, refuse: Script | None = None) -> None:
        self.refuse = refuse
        self.uploads: list[bytes] = []
        self.messages: list[Tree] = []

    def __call__(self, outgoing: Outgoing) -> Script:
        assert isinstance(outgoing.body, bytes)
        if outgoing.url.endswith("/v1/files/upload"):
            self.uploads.append(outgoing.body)
            return self.refuse or script(orjson.dumps({"code": 0, "data": {"id": f"file-{len(self.uploads)}"}}))
        self.messages.append(orjson.loads(outgoing.body))
        return script(wire((piece("A dot."), COMPLETED)) + DONE, kind="text/event-stream")


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    """A house with one Coze channel."""
    channel = Channel(name="c", type="coze", key=Secret("pat_1"), models=("7379",), auto_disable=False)
    stage = Theatre(tmp_path, (channel,))
    yield stage
    stage.close()


def test_pictures_are_uploaded_first(theatre: Theatre) -> None:
    """Each picture once; a request without pictures makes one call; the answer is whole for who wants no stream."""
    upstream = theatre.client.answer = Upstream()
    cell = theatre.play("OC", "7379")
    assert (cell.status, cell.shown.text, cell.shown.usage["prompt"]) == (200, "A dot.", 11)
    assert upstream.uploads == []
    cell = theatre.play("OC", "7379", turns=(("user", "What?", Picture(), Picture()),))
    assert (cell.status, len(upstream.uploads)) == (200, 1)
    content = orjson.loads(upstream.messages[-1]["additional_messages"][0]["content"])
    assert [one.get("file_id") for one in content] == [None, "file-1", "file-1"]


@pytest.mark.parametrize(
    ("given", "answer", "status"),
    [
        (413, {"code": 4302, "msg": "Too large."}, 413),
        (401, {"code": 700012006, "msg": "access token invalid"}, 502),
        (200, {"code": 4303, "msg": "No such files."}, 400),
        (200, {"code": 4100, "msg": "authentication is invalid"}, 502),
        (200, {"code": 0, "data": {}}, 502),
    ],
    ids=["large", "key", "kind in a 200", "key in a 200", "no id"],
)
def test_failed_uploads(theatre: Theatre, given: int, answer: Tree, status: int) -> None:
    """A file that is not taken fails the attempt with the provider's words, in a 200 too; no message is sent."""
    upstream = theatre.client.answer = Upstream(script(orjson.dumps(answer), status=given))
    cell = theatre.play("OC", "7379", turns=(("user", "What?", Picture()),))
    assert (cell.status, answer.get("msg", "gave no id") in str(cell.shown.error)) == (status, True)
    assert upstream.messages == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_errors_in_a_200(theatre: Theatre, stream: bool) -> None:
    """A client sees the status that a code means, whether it wanted a stream or not, and pays nothing."""
    theatre.client.answer = lambda outgoing: script(b'{"code": 4020, "msg": "RPM exceeds the peak"}')
    cell = theatre.play("OC", "7379", stream=stream)
    assert (cell.status, cell.charged) == (429, 0)
    assert cell.shown.error is not None
    assert "RPM exceeds the peak" in cell.shown.error["message"]


# Hostile answers.

NAMES = st.sampled_from([CREATED[0], COMPLETED[0], piece("")[0], whole("")[0], "error", "done", "conversation.x", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "type", "content", "content_type", "reasoning_content", "usage", "code", "msg", "last_error", "created_at"]
)
EVENTS = st.lists(st.tuples(NAMES, st.dictionaries(FIELDS, JSON | st.just("answer"), max_size=5)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_odd_events(events: list[tuple[str, Tree]]) -> None:
    """Whatever comes, the answer ends once, or fails once."""
    raw = wire([(name.strip(), data) for name, data in events])
    decoder, reader = CHAT.frames(), CHAT.reader(ask())
    told = [one for frame in decoder.feed(raw) for one in reader.read(frame)] + list(reader.close())
    assert len([one for one in told if isinstance(one, (Finished, Failed))]) == 1
    assert not [one for one in told if isinstance(one, Skipped)]
