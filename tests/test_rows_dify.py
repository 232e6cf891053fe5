"""The rows of Dify, each in every format that clients speak: what goes up, what comes back, what it costs."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters.dify import ADAPTER
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Media
from newapi_proxy.wire.tree import Document
from tests.fakes.inbound import FUNCTION, PNG, Picture, across
from tests.fakes.matrix_dify import END, USAGE, answered, ask, frame, heard, message, refused, sent, streamed, target
from tests.fakes.matrix_grammar import FINISHES

CUT: Final = pytest.mark.parametrize("cut", [0, 1], ids=["whole", "bytes"])
WHOLE: Final = {"answer": "Hello", "conversation_id": "c", "message_id": "m", "metadata": USAGE, "created_at": 1}


@across("OC", "OR", "AM", "GG")
def test_one_turn(letter: str) -> None:
    """T-DIFY-001: the query is the text itself."""
    one = sent(letter)
    assert one.url == "https://h.example/v1/chat-messages"
    assert one.headers["authorization"] == "Bearer app-1"
    assert (one.body["query"], one.body["inputs"], one.body["response_mode"]) == ("Hi", {}, "blocking")
    assert one.body["user"] == "key-7"


@across("OC", "OR", "AM", "GG")
def test_transcript(letter: str) -> None:
    """T-DIFY-002: everything that was said, each piece under its speaker's name."""
    turns = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And", "now?"))
    query = sent(letter, turns).body["query"]
    assert query == "SYSTEM: \nBe brief.\nUSER: \nHi\nASSISTANT: \nHo\nUSER: \nAnd\nUSER: \nnow?\n"


@across("OC", "OR", "AM", "GG")
def test_picture_by_address(letter: str) -> None:
    """T-DIFY-003: Dify fetches it; the key is `transfer_method`."""
    body = sent(letter, (("user", "What?", Picture("https://p.example/a.png")),)).body
    assert body["files"] == [
        {"type": "image", "transfer_method": "remote_url", "url": "https://p.example/a.png"},
    ]


@across("OC", "OR", "AM", "GG")
def test_embedded_picture(letter: str) -> None:
    """T-DIFY-004: uploaded first by the same user, then named by the id that it got."""
    asked = ask(letter, (("user", "What?", Picture()),))
    (medium,) = [part for turn in asked.turns for part in turn.parts if isinstance(part, Media)]
    uploads = ADAPTER.uploads
    assert uploads is not None
    assert uploads.wanted(medium)
    upload = uploads.request(medium, asked, target())
    assert upload.url == "https://h.example/v1/files/upload"
    assert isinstance(upload.body, bytes)
    assert b'name="user"\r\n\r\nkey-7\r\n' in upload.body
    assert b'filename="image.png"\r\nContent-Type: image/png' in upload.body
    assert uploads.file_id(Document(b'{"id": "file-9"}')) == "file-9"
    body = sent(letter, (("user", "What?", Picture()),)).body
    assert body["files"] == [{"type": "image", "transfer_method": "local_file", "upload_file_id": ""}]
    assert body["user"] == "key-7"
    assert PNG not in str(body)


@across("OC", "OR", "AM", "GG")
def test_agent_apps_only_stream(letter: str) -> None:
    """T-DIFY-005: streamed up although the client wants no stream, put together for it."""
    assert sent(letter, options={"app": "agent"}).body["response_mode"] == "streaming"
    events = [message("Hel", "agent_message"), message("lo", "agent_message"), END]
    shown, usage = answered(letter, b"event: ping\n\n" + b"".join(map(frame, events)), app="agent")
    assert (shown.text, shown.finish) == ("Hello", FINISHES["stop"][letter])
    assert usage is not None
    assert (usage.prompt, usage.completion) == (11, 4)


@CUT
@across("OC", "OR", "AM", "GG")
def test_messages_are_content(letter: str, cut: int) -> None:
    """T-DIFY-006: both kinds of message are the answer's text; pings and audio are nothing."""
    events = [message("Gr"), {"event": "tts_message", "audio": "AAAA"}, message("üß", "agent_message"), message("e")]
    shown, _ = streamed(letter, [*events, END], cut)
    assert (shown.text, shown.thoughts, shown.finish) == ("Grüße", "", FINISHES["stop"][letter])


THOUGHT: Final = {"event": "agent_thought", "id": "t", "thought": "Hm.", "tool": "draw", "tool_input": "{}"}


@across("OC", "OR", "AM", "GG")
def test_thoughts(letter: str) -> None:
    """T-DIFY-007: reasoning where the channel wants it, what was told once is not told again; else nothing."""
    events = [THOUGHT, {**THOUGHT, "observation": "done"}, message("Hello", "agent_message"), END]
    shown, _ = streamed(letter, events, debug=True)
    assert (shown.text, shown.thoughts) == ("Hello", "Hm.\ndraw\n{}\ndone\n")
    shown, _ = streamed(letter, events, debug=False)
    assert (shown.text, shown.thoughts) == ("Hello", "")


@across("OC", "OR", "AM", "GG")
def test_closing_repetition(letter: str) -> None:
    """T-DIFY-008: the whole answer once more is left out; a word said twice is not."""
    events = [message("Hello ", "agent_message"), message("you", "agent_message"), message("Hello you"), END]
    assert streamed(letter, events)[0].text == "Hello you"
    plain = [message("Good "), message("morning"), message("Good morning"), END]
    assert streamed(letter, plain)[0].text == "Good morning"
    assert streamed(letter, [message("ha"), message("ha"), END])[0].text == "haha"


@across("OC", "OR", "AM", "GG")
def test_replacement(letter: str) -> None:
    """T-DIFY-009: after text the answer ends as filtered; before any it is the text."""
    replaced = {"event": "message_replace", "answer": "Not that."}
    shown, _ = streamed(letter, [message("Oh"), replaced, END])
    assert shown.text == "Oh"
    assert shown.finish == FINISHES["content_filter"][letter]
    shown, _ = streamed(letter, [replaced, END])
    assert (shown.text, shown.finish) == ("Not that.", FINISHES["stop"][letter])


@CUT
@across("OC", "OR", "AM", "GG")
def test_usage(letter: str, cut: int) -> None:
    """T-DIFY-010: taken from the end of the message; zeros and nothing leave the count to us."""
    _, usage = streamed(letter, [message("Hello"), END], cut)
    assert usage is not None
    assert (usage.prompt, usage.completion, usage.source) == (11, 4, "upstream")
    zeros = {"event": "message_end", "metadata": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}}
    for end in (zeros, {"event": "message_end"}):
        assert streamed(letter, [message("Hello"), end], cut)[1] is None
    shown, usage = answered(letter, orjson.dumps(WHOLE))
    assert shown.text == "Hello"
    assert usage is not None
    assert usage.prompt == 11


ERROR: Final = {"event": "error", "status": 429, "code": "too_many_requests", "message": "Slow down."}


@CUT
@across("OC", "OR", "AM", "GG")
def test_streamed_error(letter: str, cut: int) -> None:
    """T-DIFY-011: the client sees the error behind the text; its status is the one that the event names."""
    shown, _ = streamed(letter, [message("Half"), ERROR], cut)
    assert shown.text == "Half"
    assert shown.error is not None
    assert "Slow down." in str(shown.error)
    (failed,) = [one for one in heard([ERROR]) if hasattr(one, "failure")]
    assert (failed.failure.status, failed.failure.upstream_status) == (429, 429)


@across("OC", "OR", "AM", "GG")
def test_failed_workflow(letter: str) -> None:
    """T-DIFY-012: an error, streamed and whole, even behind the end of the message."""
    data = {"workflow_id": "w", "status": "failed", "error": "node broke"}
    events: list[dict[str, Any]] = [
        {"event": "workflow_started", "data": {"workflow_id": "w"}},
        message("Half"),
        END,
        {"event": "workflow_finished", "data": data},
    ]
    shown, _ = streamed(letter, events, debug=False)
    assert "node broke" in str(shown.error)
    shown, _ = answered(letter, orjson.dumps({"workflow_run_id": "r", "data": data}), app="workflow")
    assert "node broke" in str(shown.error)


@pytest.mark.parametrize("code", ["app_unavailable", "provider_not_initialize", "provider_quota_exceeded"])
@across("OC", "OR", "AM", "GG")
def test_channel_codes(letter: str, code: str) -> None:
    """T-DIFY-013: a 400 that says what is wrong with the channel is the channel's failure, worth another one."""
    status, shown, failure = refused(letter, 400, {"status": 400, "code": code, "message": "No."})
    assert status == 502
    assert shown.error is not None
    assert (failure.blames, failure.kind, failure.upstream_status) == ("channel", "upstream_auth", 400)


@across("OC", "OR", "AM", "GG")
def test_tools(letter: str) -> None:
    """T-DIFY-014: refused by the tool's path."""
    with pytest.raises(Unsupported) as caught:
        sent(letter, tools=[FUNCTION])
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param is not None
    assert caught.value.param.startswith("tools")


@across("OC", "OR", "AM", "GG")
def test_sampling(letter: str) -> None:
    """T-DIFY-015: left out and named."""
    one = sent(letter, max_tokens=9, temperature=0.5, top_p=0.9)
    config = "generationConfig." if letter == "GG" else ""
    most = {"OC": "max_tokens", "OR": "max_output_tokens", "AM": "max_tokens", "GG": "maxOutputTokens"}[letter]
    top_p = "topP" if letter == "GG" else "top_p"
    assert {f"{config}{most}", f"{config}temperature", f"{config}{top_p}"} <= set(one.dropped)
    assert not {"temperature", "top_p", "max_tokens"} & set(one.body)


OUTPUTS: Final = {"status": "succeeded", "outputs": {"report": "Hello", "other": "x"}, "total_tokens": 40}


@CUT
@across("OC", "OR", "AM", "GG")
def test_workflow(letter: str, cut: int) -> None:
    """T-DIFY-016: the query goes into the configured field, the answer comes from the configured output."""
    options = {"app": "workflow", "input_field": "question", "output_field": "report"}
    one = sent(letter, options=options)
    assert one.url == "https://h.example/v1/workflows/run"
    assert (one.body["inputs"], "query" in one.body) == ({"question": "Hi"}, False)
    shown, usage = answered(letter, orjson.dumps({"workflow_run_id": "r", "data": OUTPUTS}), **options)
    assert (shown.text, shown.finish) == ("Hello", FINISHES["stop"][letter])
    assert usage is not None
    assert usage.prompt + usage.completion == 40
    finished = {"event": "workflow_finished", "data": OUTPUTS}
    assert streamed(letter, [finished], cut, debug=False, **options)[0].text == "Hello"
    chunks = [{"event": "text_chunk", "data": {"text": piece}} for piece in ("Hel", "lo")]
    assert streamed(letter, [*chunks, finished], cut, debug=False, **options)[0].text == "Hello"
