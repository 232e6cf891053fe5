"""The two channel options for thinking as tagged text: split out of answers, or told in them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from newapi_proxy.config.model import Channel
from newapi_proxy.ir.events import CallStarted, Ended, Event, Finished, ReasoningDelta, TextDelta
from newapi_proxy.ir.thinking import Inlined, Split
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.tree import Document
from tests.fakes.ports import Script
from tests.fakes.rows import AM, OC, SURFACES, ask, chunk, got, read, sse, whole
from tests.fakes.stage import JSON, stage

BOTH = pytest.mark.parametrize("client", [OC, AM])
TAGGED = "<think>\nA\n\nB\n</think>\n\nx < y"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def pieces(text: str, size: int) -> list[str]:
    """The text in pieces of this size."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def said(events: list[Event]) -> tuple[str, str]:
    """Thinking and text."""
    thought = "".join(one.text for one in events if isinstance(one, ReasoningDelta))
    return thought.strip("\n"), "".join(one.text for one in events if isinstance(one, TextDelta))


@BOTH
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_streams_are_split(client: str, size: int) -> None:
    """T-GROQ-002: a leading tagged span is thinking for every client, wherever it is cut."""
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": one}) for one in pieces(TAGGED, size))]
    upstream = sse(*chunks, chunk(finish="stop", usage=USAGE))
    answer = got(client, "groq", upstream, stream=True, think_tags=True)
    assert (answer.thought.strip("\n"), answer.text) == ("A\n\nB", "x < y")
    assert (answer.finish, answer.usage) == ("stop" if client == OC else "end_turn", (10, 5, 0))


@BOTH
def test_whole_answers_are_split(client: str) -> None:
    """T-GROQ-002: whole answers too, and a mapped name does not show."""
    answer = got(client, "groq", whole({"content": TAGGED}, model="up"), think_tags=True)
    assert (answer.thought.strip("\n"), answer.text, answer.model) == ("A\n\nB", "x < y", "m")


@BOTH
@pytest.mark.parametrize("text", ["plain", "<thin ice", "x <think>no</think>", " ", "<"])
def test_other_text_stays(client: str, text: str) -> None:
    """Only a span that leads is moved; what merely looks like its tag is text, and none of it is lost."""
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": one}) for one in text)]
    answer = got(client, "groq", sse(*chunks, chunk(finish="stop")), stream=True, think_tags=True)
    assert (answer.thought, answer.text) == ("", text)


@BOTH
def test_off_by_default(client: str) -> None:
    """Without the option tags are text, and a stream of the client's own format is forwarded as it came."""
    upstream = sse(chunk({"role": "assistant", "content": ""}), chunk({"content": TAGGED}), chunk(finish="stop"))
    answer = got(client, "groq", upstream, stream=True)
    assert (answer.thought, answer.text) == ("", TAGGED)


def test_what_waits_comes_before_a_call() -> None:
    """Text held back for a tag keeps its place before what follows, and is there without a finish too."""
    split = Split()
    events = [TextDelta("<thi"), CallStarted(0, "a", "f"), TextDelta("<"), Ended()]
    out = [one for event in events for one in split.feed(event)]
    assert [type(one) for one in out] == [TextDelta, CallStarted, TextDelta, Ended]
    assert said(out) == ("", "<thi<")


def test_an_open_span_is_thinking_to_its_end() -> None:
    """A span that never closes (a limit was reached) is thinking, the start of its closing tag too."""
    split = Split()
    out = [one for event in [TextDelta("<think>A</thi"), Finished("length")] for one in split.feed(event)]
    assert said(out) == ("A</thi", "")


def test_each_choice_has_its_own_span() -> None:
    """Two alternatives do not mix."""
    out = list(Split().all([TextDelta("<think>a", 0), TextDelta("b", 1), TextDelta("</think>c", 0)]))
    assert out == [ReasoningDelta("a", 0), TextDelta("b", 1), TextDelta("c", 0)]


def test_there_and_back() -> None:
    """What one option tells, the other reads."""
    events: list[Event] = [ReasoningDelta("A"), ReasoningDelta("B"), TextDelta("x"), Finished("stop")]
    inlined = Inlined()
    tagged = [one for event in events for one in inlined.feed(event)]
    assert said(tagged) == ("", "<think>\nAB\n</think>\nx")
    assert said(list(Split().all(tagged))) == ("AB", "x")


def test_thinking_to_content() -> None:
    """Relay-and-billing 4.15: thinking stands in a chat client's text, streamed, whole, translated or not."""
    face = Face(model="m", id="i", created=1, thinking_to_content=True)
    upstream = whole({"content": "x", "reasoning_content": "A"})
    same = orjson.loads(CHAT.same(ask(OC), face, Document(upstream), NOTHING))
    told = orjson.loads(CHAT.answer(ask(OC), face, [ReasoningDelta("A"), TextDelta("x"), Finished("stop")], NOTHING))
    for node in (same, told):
        message = node["choices"][0]["message"]
        assert message["content"] == "<think>\nA\n</think>\nx"
        assert "reasoning_content" not in message


@BOTH
@pytest.mark.parametrize("stream", [False, True])
async def test_an_exchange(tmp_path: Path, client: str, stream: bool) -> None:
    """A channel with the option: the client gets thinking and text, a server that answers a stream whole included."""
    listed = (Channel(name="a", type="groq", models=("m",), options={"think_tags": True}),)
    upstream = sse(
        chunk({"role": "assistant", "content": TAGGED[:9]}), chunk({"content": TAGGED[9:]}, "stop", usage=USAGE)
    )
    scripts = [Script(upstream)] if stream else []
    scripts.append(Script(whole({"content": TAGGED}), headers=JSON))
    async with stage(tmp_path, listed, *scripts) as one:
        for _ in scripts:
            body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
            answer = read(client, (await one.ask(SURFACES[client], **body)).body, stream)
            assert (answer.thought.strip("\n"), answer.text) == ("A\n\nB", "x < y")
