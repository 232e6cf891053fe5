"""Streams of one format on their way: what is forwarded without being read is what reading would have forwarded."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.ir.events import TextDelta
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pipe import Template, Verbatim
from newapi_proxy.surfaces.anthropic import MESSAGES
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.sse import Frame

FACE = Face(model="m", id="r", created=1)
PIECES = st.text(alphabet=st.sampled_from('ab "\\\n\r{}:é😀,data'), min_size=0, max_size=6)


def openai_frame(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None, **more}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(body) + b"\n\n"


def anthropic_frame(text: str, **more: object) -> bytes:
    body = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return b"event: content_block_delta\ndata: " + orjson.dumps(body) + b"\n\n"


OPENAI_START = openai_frame("", delta={"role": "assistant", "content": ""})
ANTHROPIC_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)
SIDES = {
    "openai": (CHAT, ADAPTERS["openai"], OPENAI_START, openai_frame),
    "anthropic": (MESSAGES, ADAPTERS["anthropic"], ANTHROPIC_START, anthropic_frame),
}


def pipe(side: str) -> Verbatim:
    surface, adapter, _, _ = SIDES[side]
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    return Verbatim(surface, adapter.chat[0], surface.read(orjson.dumps(body), {}), FACE)


@pytest.mark.parametrize("side", SIDES)
@given(texts=st.lists(PIECES, min_size=1, max_size=12), data=st.data())
def test_skipping_what_repeats_changes_nothing(side: str, texts: list[str], data: st.DataObject) -> None:
    """However a stream is cut, the client's bytes and the text that is counted are those of reading every frame."""
    _, _, start, frame = SIDES[side]
    stream = start + b"".join(frame(text) for text in texts)
    slow, quick = pipe(side), pipe(side)
    slow_bytes = b"".join(slow._read(stream[n : n + 1]) for n in range(len(stream)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    quick_bytes = b"".join(quick.feed(stream[a:b]) for a, b in itertools.pairwise(edges) if a != b)
    assert quick_bytes == slow_bytes
    assert quick.heard.tally.size == slow.heard.tally.size == sum(len(text.encode()) for text in texts)
    assert quick.close(NOTHING) == slow.close(NOTHING)


@pytest.mark.parametrize("side", SIDES)
def test_one_read_of_many_frames_is_forwarded_as_it_is(side: str) -> None:
    """The pattern is learnt from the first frame and carries over whole reads."""
    _, _, start, frame = SIDES[side]
    stage = pipe(side)
    stage.feed(start + frame("first"))
    block = b"".join(frame(f"word{n} ") for n in range(100))
    assert stage.feed(block) is block
    assert stage.feed(block[:-5]) + stage.feed(block[-5:]) == block
    assert stage.heard.tally.size == 5 + 2 * sum(len(f"word{n} ") for n in range(100))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("bad", [b"a\tb", b"\x00", b"\x1f", b"\xff", b"\xe4\xb8", b"\x80"])
def test_a_broken_frame_is_not_forwarded_for_its_likeness(side: str, bad: bytes) -> None:
    """Bytes that no JSON string may hold, and characters that two frames share, are treated as without a pattern."""
    _, _, start, frame = SIDES[side]
    broken = frame("@@").replace(b"@@", bad)
    stream = [start, frame("one"), frame("two") + broken + frame("three"), broken, frame("four")]
    halves = [frame("@@").replace(b"@@", half) for half in (b"\xe4", b"\xb8\xad")]
    slow, quick = pipe(side), pipe(side)
    for data in (*stream, b"".join(halves), frame("end")):
        told = b"".join(slow._read(data[n : n + 1]) for n in range(len(data)))
        assert quick.feed(data) == told
        assert quick.heard.skipped == slow.heard.skipped


def test_text_after_the_finish_is_not_taken_for_more_of_the_answer() -> None:
    """After its end a choice says nothing more, even in frames that look like the ones before."""
    stage = pipe("openai")
    out = stage.feed(OPENAI_START + openai_frame("one"))
    out += stage.feed(openai_frame("", delta={}, finish_reason="stop"))
    out += stage.feed(openai_frame("two")) + stage.feed(openai_frame("three"))
    assert b"two" not in out
    assert b"three" not in out


@pytest.mark.parametrize("text", ["index", "a\\b", 'a"b', ""])
def test_a_text_that_is_not_plainly_in_its_frame_is_no_pattern(text: str) -> None:
    """What stands elsewhere in the frame too, or needs escapes, is read as ever."""
    raw = openai_frame(text)
    assert Template.learnt(Frame(raw, "", raw[6:-2]), TextDelta(text)) is None
