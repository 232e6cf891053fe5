"""The Dify adapter: what goes up in each kind of app, uploads, progress, and hostile answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters._apps import media_type, multipart
from newapi_proxy.adapters._dify_answer import PAUSED, DifyOptions, output
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.adapters.dify import ADAPTER
from newapi_proxy.config.model import Channel
from newapi_proxy.errors import ProxyError, Unsupported
from newapi_proxy.ir.ask import Media
from newapi_proxy.ir.events import Cited, Failed, Finished, Metered, Skipped, TextDelta, fold
from newapi_proxy.secret import Secret
from newapi_proxy.wire.sse import Decoder
from newapi_proxy.wire.tree import Document
from tests.fakes import golden
from tests.fakes.inbound import PNG, Call, File, Picture, Result, Sound, Thought
from tests.fakes.matrix import Theatre, script
from tests.fakes.matrix_dify import END, answered, ask, dialect, frame, heard, message, sent, streamed
from tests.fakes.ports import Script

STARTED = {"event": "workflow_started", "data": {"workflow_id": "wf"}}
NODE = {"event": "node_started", "data": {"node_id": "n-1", "node_type": "llm"}}
DONE = {"event": "node_finished", "data": {"node_id": "n-1", "node_type": "llm", "status": "succeeded"}}
FINISHED = {"event": "workflow_finished", "data": {"workflow_id": "wf", "status": "succeeded", "outputs": {}}}


# What goes up.


@pytest.mark.parametrize(
    ("app", "path"),
    [
        ("chat", "/v1/chat-messages"),
        ("agent", "/v1/chat-messages"),
        ("completion", "/v1/completion-messages"),
        ("workflow", "/v1/workflows/run"),
    ],
)
def test_apps(app: str, path: str) -> None:
    """Each kind of app has its address; a base URL with its version is not doubled."""
    one = sent("OC", options={"app": app}, stream=True)
    assert one.url == f"https://h.example{path}"
    assert one.body["response_mode"] == "streaming"
    assert ("query" in one.body) == (app in ("chat", "agent"))


def test_users() -> None:
    """The client's own user wins; what could break a header or a form is taken out of it."""
    assert sent("OC", user="anna\r\n--form").body["user"] == "anna--form"
    assert sent("OC").body["user"] == "key-7"


def test_nothing_to_say() -> None:
    """A picture without a word gets a query that says nothing; Dify wants one."""
    assert sent("OC", (("user", Picture("https://p.example/a.png")),)).body["query"] == "."


def test_json_by_words() -> None:
    """JSON is asked for in words, and a fence around the answer is taken off."""
    assert sent("OC", json=True).body["query"].startswith("Hi\n\nAnswer with one JSON object")
    long = sent("OC", (("system", "Be brief."), ("user", "Hi")), schema={"type": "object"}).body["query"]
    assert 'JSON Schema:\n{"type":"object"}\n' in long
    fenced = "```json\n{}\n```"
    speaker, wish = dialect(), ask("OC", json=True)
    whole = speaker.answer(wish, Document(orjson.dumps({"answer": fenced})))
    reader, decoder = speaker.reader(wish), Decoder()
    frames = decoder.feed(b"".join(frame(message(piece)) for piece in (fenced[:5], fenced[5:])) + frame(END))
    stream = [event for one in frames for event in reader.read(one)]
    for events in (whole, stream):
        assert fold(events).choices[0].text == "{}"


@pytest.mark.parametrize(
    ("turns", "wishes"),
    [
        ((("user", "Go"), ("assistant", Call("c", "f")), ("tool", Result("c", "f"))), {}),
        ((("user", "What?", Picture("ftp://p.example/a.png")),), {}),
        ((("user", "Hi"),), {"n": 2}),
        ((("user", "Hi"),), {"logprobs": True}),
        ((("user", "Hi"),), {"steering": {"modalities": ["text", "audio"]}}),
    ],
    ids=["calls", "scheme", "n", "logprobs", "audio"],
)
def test_refusals(turns: Any, wishes: Any) -> None:
    """What changes the answer's shape, or cannot be told, is refused before anything is sent."""
    with pytest.raises(Unsupported) as caught:
        sent("OC", turns, **wishes)
    assert caught.value.param


def test_other_media() -> None:
    """Sounds and documents have their own kinds; ids are taken as Dify's own."""
    turns = (("user", "What?", Sound(), File(), File(id="up-1")),)
    files = sent("OC", turns).body["files"]
    assert [(one["type"], one["upload_file_id"]) for one in files] == [
        ("audio", ""),
        ("document", ""),
        ("document", "up-1"),
    ]


def test_old_thoughts_are_dropped() -> None:
    """Thinking of the history and the detail of pictures are told as dropped."""
    turns = (("user", "Go", Picture(detail="low")), ("assistant", Thought("Hm."), "Ho"), ("user", "And?"))
    dropped = sent("OC", turns).dropped
    assert dropped == ("messages.0.content.1.image_url.detail", "messages.1.reasoning_content")


def test_uploads_of_broken_data() -> None:
    """Base64 that is none is the client's fault, with its path."""
    with pytest.raises(Unsupported) as caught:
        multipart(Media(kind="image", data="a", path="messages.0.content.1"), {"user": "u"})
    assert caught.value.param == "messages.0.content.1"


def test_names_of_uploads() -> None:
    """A file's name cannot break out of its header; what has none gets one by its type."""
    _, body = multipart(Media(kind="file", data="aGk=", filename='a"\r\nX: y.pdf'), {"user": "u"})
    assert b'filename="a%22__X: y.pdf"' in body
    assert media_type(Media(kind="image", data=PNG, media_type="application/octet-stream")) == "image/png"
    assert media_type(Media(kind="file", data="aGk=", media_type="text/plain\r\nx")) == "application/octet-stream"


# What comes back.


def test_progress_as_reasoning() -> None:
    """A workflow and its nodes are told beside the answer."""
    shown, _ = streamed("OC", [STARTED, NODE, DONE, message("Hello"), END, FINISHED])
    assert shown.text == "Hello"
    assert shown.thoughts == "Workflow: wf\nNode: llm\nNode: llm succeeded\nWorkflow: wf succeeded\n"


def test_progress_as_text() -> None:
    """The inherited way: lines in the answer itself, at the start of each step only."""
    shown, _ = streamed("OC", [STARTED, NODE, DONE, message("Hello"), END, FINISHED], debug="content")
    assert (shown.text, shown.thoughts) == ("Workflow: wf\nNode: n-1\nHello", "")


def test_no_progress() -> None:
    """Switched off, nothing of it is told."""
    shown, _ = streamed("OC", [STARTED, NODE, DONE, message("Hello"), END, FINISHED], debug=False)
    assert (shown.text, shown.thoughts) == ("Hello", "")


def test_reasoning_chunks() -> None:
    """An app's own reasoning is reasoning, wished for or not."""
    chunk = {"event": "reasoning_chunk", "data": {"reasoning": "Hm."}}
    shown, _ = streamed("OC", [chunk, message("Hello"), END], debug=False)
    assert shown.thoughts == "Hm."


def test_files_of_the_app() -> None:
    """Pictures and files of the app become links in the text; the user's own do not come back."""
    url = "https://f.example/a"
    events = [
        message("Look:"),
        {"event": "message_file", "type": "image", "belongs_to": "assistant", "url": url},
        {"event": "message_file", "type": "document", "belongs_to": "assistant", "url": url},
        {"event": "message_file", "type": "image", "belongs_to": "user", "url": url},
        END,
    ]
    shown, _ = streamed("OC", events)
    assert shown.text == f"Look:\n\n![image]({url})\n\n\n\n[document]({url})\n\n"


@pytest.mark.parametrize("name", ["workflow_paused", "human_input_required"])
def test_paused(name: str) -> None:
    """A workflow that waits for a person ends the answer, which says so."""
    shown, _ = streamed("OC", [message("Hm. "), {"event": name, "data": {}}], debug=False)
    assert (shown.text, shown.finish) == (f"Hm. {PAUSED}", "stop")


def test_cut_streams() -> None:
    """A stream that just ends is an answer as far as it went, without usage."""
    shown, usage = streamed("OC", [message("Hel"), message("lo")])
    assert (shown.text, shown.finish, usage) == ("Hello", "stop", None)


def test_nothing_after_the_end() -> None:
    """What follows the end of a message is not read."""
    shown, _ = streamed("OC", [message("Hello"), END, message(" again")])
    assert shown.text == "Hello"


def test_sources() -> None:
    """What the app looked up is told as its citations."""
    end = {**END, "metadata": {"retriever_resources": [{"document_name": "a.md"}, 3]}}
    assert [one.value for one in heard([message("Hello"), end]) if isinstance(one, Cited)] == [
        {"document_name": "a.md"}
    ]


def test_errors_in_a_whole_answer() -> None:
    """A 200 without an answer that names an error is that error; one that says nothing cannot be read."""
    shown, _ = answered("OC", b'{"code": "invalid_param", "message": "query is required", "status": 400}')
    assert "query is required" in str(shown.error)
    for body in (b"<html>", b"", b"[]", b"{}", b"data: 3\n\n"):
        shown, _ = answered("OC", body)
        assert shown.error is not None


@pytest.mark.parametrize(
    ("outputs", "field", "text"),
    [
        ({"text": "a", "b": "c"}, None, "a"),
        ({"x": "a", "n": 3}, None, "a"),
        ({"x": "a", "y": "b"}, None, '{"x":"a","y":"b"}'),
        ({"x": {"y": 1}}, "x", '{"y":1}'),
        ({"x": "a"}, "y", ""),
        ({}, None, ""),
        (None, None, ""),
        ({"result": 7}, None, "7"),
    ],
)
def test_outputs(outputs: Any, field: str | None, text: str) -> None:
    """The configured output, a usual one, the only text, or all of them."""
    assert output(outputs, field) == text


def test_a_stopped_workflow() -> None:
    """One that was stopped has ended; one that failed is an error, whatever it says."""
    data = {"status": "stopped", "outputs": {}, "total_tokens": 0}
    found = dialect(app="workflow").answer(ask("OC"), Document(orjson.dumps({"data": data})))
    assert [type(one) for one in found[1:]] == [Finished]
    found = dialect(app="workflow").answer(
        ask("OC"), Document(orjson.dumps({"data": {"status": "failed", "error": 3}}))
    )
    assert [type(one) for one in found[1:]] == [Failed]


def test_totals_are_split() -> None:
    """A workflow's one sum stays whole: what the output cannot have cost is input."""
    data = {"status": "succeeded", "outputs": {"text": "Hello world, это тест"}, "total_tokens": 100}
    found = dialect(app="workflow").answer(ask("OC"), Document(orjson.dumps({"data": data})))
    (usage,) = [one.usage for one in found if isinstance(one, Metered)]
    assert (usage.prompt + usage.completion, usage.source) == (100, "mixed")
    assert 0 < usage.completion < 20


# Uploads in the relay.


class Upstream:
    """Takes files and messages; remembers both."""

    def __init__(self) -> None:
        self.uploads: list[bytes] = []
        self.messages: list[dict[str, Any]] = []
        self.refuse: Script | None = None

    def __call__(self, outgoing: Outgoing) -> Script:
        assert isinstance(outgoing.body, bytes)
        if outgoing.url.endswith("/files/upload"):
            self.uploads.append(outgoing.body)
            return self.refuse or script(orjson.dumps({"id": f"file-{len(self.uploads)}"}), status=201)
        self.messages.append(orjson.loads(outgoing.body))
        return script(orjson.dumps({"answer": "A dot.", "metadata": {}}))


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    """A house with one Dify channel."""
    channel = Channel(name="d", type="dify", key=Secret("app-1"), models=("dify",), auto_disable=False)
    stage = Theatre(tmp_path, (channel,))
    yield stage
    stage.close()


def test_pictures_are_uploaded_first(theatre: Theatre) -> None:
    """T-DIFY-004 (OC): each picture once, by the user of the message; a request without pictures makes one call."""
    upstream = theatre.client.answer = Upstream()
    assert theatre.play("OC", "dify").status == 200
    assert upstream.uploads == []
    cell = theatre.play("OC", "dify", turns=(("user", "What?", Picture(), Picture()),), user="anna")
    assert cell.status == 200
    (upload,) = upstream.uploads
    assert b"\r\n\r\nanna\r\n" in upload
    body = upstream.messages[-1]
    assert [one["upload_file_id"] for one in body["files"]] == ["file-1", "file-1"]
    assert body["user"] == "anna"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (script(b'{"code": "file_too_large", "message": "Too large.", "status": 413}', status=413), 413),
        (script(b'{"code": "unauthorized", "message": "No.", "status": 401}', status=401), 502),
        (script(b"{}"), 502),
        (script(b"<html>", status=500), 502),
    ],
    ids=["large", "key", "no id", "broken"],
)
def test_failed_uploads(theatre: Theatre, answer: Script, status: int) -> None:
    """A file that is not taken fails the attempt with the provider's words; no message is sent."""
    upstream = theatre.client.answer = Upstream()
    upstream.refuse = answer
    assert theatre.play("OC", "dify", turns=(("user", "What?", Picture()),)).status == status
    assert upstream.messages == []


def test_channels_read_by_their_options(theatre: Theatre) -> None:
    """A channel's options reach the reader of its answers, and only of its own."""
    (channel,) = theatre.house.snapshot.channels
    (one,) = channel.adapter.chat
    assert one.options == DifyOptions()  # type: ignore[attr-defined]
    (other,) = ADAPTER.chat
    assert other is not one


# Hostile answers.

GOLDEN = [one for one in golden.folders() if one.name.startswith("dify/")]
WORDS = st.sampled_from(
    [
        *("message", "agent_message", "message_replace", "message_end", "message_file", "error", "agent_thought"),
        *("workflow_started", "workflow_finished", "text_chunk", "node_finished", "reasoning_chunk", "ping", "x"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["answer", "data", "metadata", "status", "code", "message", "id", "url", "thought", "created_at"]
)
EVENTS = st.lists(
    st.builds(lambda name, rest: {**rest, "event": name}, WORDS, st.dictionaries(FIELDS, JSON, max_size=4)), max_size=8
)


@settings(max_examples=60)
@given(EVENTS, st.sampled_from(["chat", "agent", "workflow"]), st.sampled_from([True, False, "content"]))
def test_odd_events(events: list[dict[str, Any]], app: str, debug: Any) -> None:
    """Events of any shape end in events, in at most one end, and are told to every client."""
    try:
        found = heard(events, app=app, debug=debug)
    except orjson.JSONEncodeError:
        return
    assert sum(isinstance(one, (Finished, Failed)) for one in found) == 1
    if not any(isinstance(one, Skipped) for one in found) and any(isinstance(one, TextDelta) for one in found):
        streamed("AM", events, app=app, debug=debug)


@settings(max_examples=50)
@given(JSON, st.sampled_from(["chat", "agent", "workflow"]))
def test_odd_answers(value: Any, app: str) -> None:
    """Whole answers of any shape end in a finish or a failure."""
    for body in (value, {"answer": value, "metadata": value}, {"data": value}, {"data": {"outputs": value}}):
        try:
            raw = orjson.dumps(body)
        except orjson.JSONEncodeError:
            continue
        found = dialect(app=app).answer(ask("OC"), Document(raw))
        assert isinstance(found[-1], (Finished, Failed))


@settings(max_examples=50)
@given(st.data())
def test_damaged_recordings(data: st.DataObject) -> None:
    """Bytes of a real answer that were cut, doubled or changed raise nothing but failures."""
    one = data.draw(st.sampled_from(GOLDEN))
    raw = bytearray(one.upstream)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["change", "cut", "double"])):
            case "change":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 40))]
                raw = raw or bytearray(b" ")
            case _:
                raw[at:at] = raw[at : at + 40]
    speaker, given_ask = dialect(), ask("OC", stream=True)
    decoder, reader = speaker.frames(), speaker.reader(given_ask)
    try:
        for found in [*decoder.feed(bytes(raw)), *decoder.close()]:
            list(reader.read(found))
        list(reader.close())
        speaker.answer(given_ask, Document(bytes(raw)))
        speaker.failure(400, {}, bytes(raw))
    except ProxyError:
        pass


def test_memory_is_bounded() -> None:
    """However long the answer, of its text only a digest is kept."""
    speaker = dialect()
    reader = speaker.reader(ask("OC", stream=True))
    (one,) = Decoder().feed(frame(message("x" * 10_000)))
    for _ in range(50):
        list(reader.read(one))
    assert sum(len(value) for value in vars(reader).values() if isinstance(value, str)) < 1000
