"""The provider that answers by itself: a perfect server of the OpenAI format."""

from __future__ import annotations

from typing import Any

import orjson

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Options, Target
from newapi_proxy.ir.events import Answer, fold
from newapi_proxy.ir.usage import Usage
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

ECHO = ADAPTERS["echo"]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(text: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
    """What echo answers to this last message."""
    sent = orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": text}], **more})
    to = Target(channel="c", base_url="", key=Secret(""), model="echo", options=Options(), now=1_750_000_000)
    assert ECHO.local is not None
    return ECHO.local(ECHO.chat[0].request(CHAT.read(sent, {}), to))


def answered(text: Any, **more: Any) -> Answer:
    """The answer, folded, streamed and whole alike."""
    dialect = ECHO.chat[0]
    _, headers, body = said(text, **more)
    asked = CHAT.read(b'{"model":"echo","messages":[{"role":"user","content":"x"}]}', {})
    if not more.get("stream"):
        assert headers["content-type"] == "application/json"
        return fold(dialect.answer(asked, Document(body)))
    assert headers["content-type"].startswith("text/event-stream")
    decoder, reader = dialect.frames(), dialect.reader(asked)
    return fold([event for one in decoder.feed(body) for event in reader.read(one)])


def test_text_comes_back() -> None:
    """The last message comes back, streamed and whole alike, and words are counted."""
    for text in ("one  two\n three ", "é 🦉", "", " "):
        whole, streamed = answered(text), answered(text, stream=True)
        assert whole.choices[0].text == streamed.choices[0].text == text
        assert whole.usage == streamed.usage
    assert answered("one two three").usage == Usage(prompt=3, completion=3)
    assert answered([{"type": "text", "text": "parts"}]).choices[0].text == "parts"


def test_calls() -> None:
    """A wish for a call becomes one where the request has tools, else it is text."""
    wish = '{"call": "weather", "arguments": {"city": "Zürich"}}'
    for stream in (False, True):
        choice = answered(wish, tools=[TOOL], stream=stream).choices[0]
        assert [(one.name, one.arguments) for one in choice.calls] == [("weather", '{"city":"Zürich"}')]
        assert choice.finished is not None
        assert choice.finished.reason == "tool_calls"
    assert answered(wish).choices[0].text == wish
    both = answered('{"calls": [{"call": "a"}, {"call": "b"}]}', tools=[TOOL], stream=True).choices[0].calls
    assert [one.name for one in both] == ["a", "b"]
    assert len({one.id for one in both}) == 2


def test_legacy_functions() -> None:
    """A client that speaks `functions` gets `function_call`."""
    node = orjson.loads(said('{"call": "f", "arguments": {}}', functions=[{"name": "f"}])[2])
    assert node["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert node["choices"][0]["finish_reason"] == "function_call"


def test_length_and_choices() -> None:
    """Limits and several choices are honoured."""
    choice = answered("one two three", max_tokens=2, stream=True).choices[0]
    assert (choice.text, choice.finished and choice.finished.reason) == ("one two", "length")
    assert len(answered("x", n=3, stream=True).choices) == 3
    assert len(answered("x", n=3).choices) == 3


def test_it_needs_no_mending() -> None:
    """What echo says passes untouched, as a stream and as a whole answer."""
    face = Face(model="echo", id="i", created=1)
    asked = CHAT.read(
        b'{"model":"echo","messages":[{"role":"user","content":"x"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}',
        {},
    )
    wish = '{"calls": [{"call": "a", "arguments": {"long": "arguments, cut"}}, {"call": "b"}]}'
    for text, more in (("one two", {}), (wish, {"tools": [TOOL]})):
        body = said(text, stream=True, **more)[2]
        reader, passer = ECHO.chat[0].reader(asked), CHAT.passer(asked, face)
        frames = sse.Decoder().feed(body)
        told = b"".join([passer.frame(one, list(reader.read(one))) for one in frames]) + passer.close(Usage())
        assert told == body
        whole = said(text, **more)[2]
        assert CHAT.same(asked, face, Document(whole), Usage()) == whole


def test_a_body_without_messages() -> None:
    """A body that is no request is refused as OpenAI would."""
    assert ECHO.local is not None
    sent = ECHO.chat[0].request(
        CHAT.read(b'{"model":"echo","messages":[{"role":"user","content":"x"}]}', {}),
        Target(channel="c", base_url="", key=Secret(""), model="echo", options=Options()),
    )
    assert isinstance(sent.body, dict)
    sent.body.pop("messages")
    status, _, body = ECHO.local(sent)
    assert status == 400
    assert orjson.loads(body)["error"]["param"] == "messages"
