"""Streams on their way: what is told without being read is what reading every frame would have told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.billing import count
from newapi_proxy.ir.events import TextDelta
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pattern import Pattern
from newapi_proxy.relay.pipe import Translated, Verbatim, pipe
from newapi_proxy.relay.tagged import Tagged
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY, Face

FACE = Face(model="m", id="r", created=1)
RENAMED = msgspec.structs.replace(FACE, model="asked", rename=True)
ODD = st.text(alphabet=st.sampled_from('ab "\\\n\r{}:é😀,\x7fdata'), min_size=0, max_size=6)
PIECES = st.sampled_from((" sea", " tides", " of", "é", " ships")) | ODD
WORDS = ("The", " un", "believ", "able", " comm", "uniqu", "é", " caf", "é", " fianc", "é", "s", " voil", "à")
Frames = Callable[[str, str, int], bytes]


def told(node: object, event: str = "") -> bytes:
    """A frame of this JSON."""
    return (b"event: " + event.encode() + b"\n" if event else b"") + b"data: " + orjson.dumps(node) + b"\n\n"


def chunk(delta: dict[str, Any], pad: str = "", **more: object) -> bytes:
    """A frame of a chat stream, padded as the format's owner does it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return told({**body, "usage": None, "obfuscation": pad} if pad else body)


def call(arguments: str, **more: object) -> dict[str, Any]:
    """A call's delta."""
    return {"tool_calls": [{"index": 0, **more, "function": {"arguments": arguments}}]}


def openai(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """A chat stream's frame: text, thinking under either name, or a call's arguments."""
    deltas = {"text": {"content": text}, "thought": {"reasoning_content": text}, "call": call(text)}
    return chunk(deltas.get(kind, {"reasoning": text}), "xyz" * pad)


def anthropic(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """A messages stream's frame; its blanks are padding."""
    fields = {"text": ("text_delta", "text"), "call": ("input_json_delta", "partial_json")}
    name, field = fields.get(kind, ("thinking_delta", "thinking"))
    index = {"text": 0, "call": 2}.get(kind, 1)
    raw = told({"type": "content_block_delta", "index": index, "delta": {"type": name, field: text}}, CB + "delta")
    return raw.replace(b"}}\n\n", b"}" + b" " * pad + b"}\n\n")


def gemini(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """A Gemini stream's frame with its usage."""
    part = {"text": text} if kind == "text" else {"text": text, "thought": True}
    said = 5 + len(text) * pad
    counts = {"promptTokenCount": 4, "candidatesTokenCount": said, "totalTokenCount": 4 + said}
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
    return told({"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "r"})


def crlf(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """The same as its owner ends lines."""
    return gemini(text, kind, pad).replace(b"\n", b"\r\n")


def legacy(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """A completions stream's frame."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": None}
    return told({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


def responses(text: str, kind: str = "text", pad: int = 0) -> bytes:
    """A responses stream's frame."""
    place, number = {"item_id": "i", "output_index": 0, "content_index": 0}, {"sequence_number": 7 + len(text)}
    delta: dict[str, Any] = {"delta": text, "logprobs": [], "obfuscation": "x" * pad}
    if kind == "other":  # as some servers order it
        return told({"type": OT + "delta", **place, "delta": text, **number}, OT + "delta")
    return told({"type": OT + "delta", **number, **place, **delta}, OT + "delta")


CB, OT = "content_block_", "response.output_text."
START = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
BLOCKS = (
    {"type": "text", "text": ""},
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
)
OPENAI_START = chunk({"role": "assistant", "content": ""})
CALLED = chunk(
    {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]}
)
ANTHROPIC_START = told(
    {"type": "message_start", "message": {**START, "usage": {"input_tokens": 1, "output_tokens": 1}}}, "message_start"
) + b"".join(
    told({"type": CB + "start", "index": index, "content_block": block}, CB + "start")
    for index, block in enumerate(BLOCKS)
)
RESPONSES_START = told(
    {"type": "response.created", "response": {"id": "resp_1", "created_at": 1, "model": "m"}}, "response.created"
) + told(
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "message", "id": "i", "role": "assistant", "content": []},
    },
    "response.output_item.added",
)
OPENAI_END = chunk({}, finish_reason="stop") + openai("more") + b"data: [DONE]\n\n"
CITATION = {"type": "web_search_result_location", "url": "https://e.example", "title": "T", "cited_text": "x"}
ANTHROPIC_END = b"".join(
    told(node, node["type"])
    for node in (
        {"type": CB + "delta", "index": 0, "delta": {"type": "citations_delta", "citation": CITATION}},
        *({"type": CB + "stop", "index": index} for index in range(3)),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
)
GROUNDED = {
    "groundingChunks": [{"web": {"uri": "https://e.example", "title": "T"}}],
    "groundingSupports": [
        {"segment": {"startIndex": at, "endIndex": at + 2, "text": "x"}, "groundingChunkIndices": [0]} for at in (4, 20)
    ],
}
GEMINI_END = told(
    {
        "candidates": [
            {"content": {"parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0, "groundingMetadata": GROUNDED}
        ]
    }
)
PROVIDERS: dict[str, tuple[str, str, bytes, Frames, bytes]] = {
    "openai": ("openai", "openai-chat", OPENAI_START + CALLED, openai, OPENAI_END),
    "anthropic": ("anthropic", "anthropic", ANTHROPIC_START, anthropic, ANTHROPIC_END),
    "gemini": ("gemini", "gemini", gemini("The"), gemini, GEMINI_END),
    "gemini crlf": ("gemini", "gemini", crlf("The"), crlf, GEMINI_END),
    "completions": ("openai", "openai.completions", b"", legacy, b"data: [DONE]\n\n"),
    "responses": ("openai", "openai-responses", RESPONSES_START, responses, b""),
}
MESSAGES = [{"role": "user", "content": "hi"}]
ASKED: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "openai": ("/v1/chat/completions", {"messages": MESSAGES}, {}),
    "anthropic": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 9}, {}),
    "gemini": (
        "/v1beta/models/{model}:streamGenerateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        {PATH: "m", QUERY: "alt=sse"},
    ),
    "gemini array": (
        "/v1beta/models/{model}:streamGenerateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        {PATH: "m"},
    ),
    "completions": ("/v1/completions", {"prompt": "hi"}, {}),
    "responses": ("/v1/responses", {"input": "hi"}, {}),
}
PAIRS = [(provider, client) for provider in PROVIDERS for client in ASKED]


def stage(provider: str, client: str, face: Face = FACE, *, tags: bool = False) -> Verbatim | Translated:
    """A pipe between the two; `tags`: for a provider that tells its thinking as tagged text."""
    route, body, headers = ASKED[client]
    surface, (adapter, name, *_) = SURFACES[route], PROVIDERS[provider]
    ask = surface.read(orjson.dumps({"model": "m", "stream": True, **body}), headers)
    dialect = next(one for one in ADAPTERS[adapter].chat if one.dialect == name)
    made = pipe(surface, Tagged(dialect) if tags else dialect, ask, face)
    assert isinstance(made, Verbatim | Translated)
    return made


@pytest.mark.parametrize(("provider", "client"), PAIRS)
@pytest.mark.parametrize("face", [FACE, RENAMED], ids=["same name", "renamed"])
@settings(max_examples=15)
@given(data=st.data())
def test_skipping_what_repeats_changes_nothing(provider: str, client: str, face: Face, data: st.DataObject) -> None:
    """However a stream is cut, the client's bytes and the text that is counted are those of reading every frame."""
    _, _, start, frame, end = PROVIDERS[provider]
    kinds = st.sampled_from(("text", "text", "text", "thought", "other", "call"))
    pads = st.sampled_from((0, 0, 0, 1, 2))
    rows = data.draw(st.lists(st.tuples(kinds, pads, st.lists(PIECES, min_size=1, max_size=6)), max_size=5))
    frames = [start, *(frame(text, kind, pad) for kind, pad, texts in rows for text in texts)]
    stream, ends = b"".join(frames) + end, list(itertools.accumulate(map(len, frames)))
    slow, quick = stage(provider, client, face), stage(provider, client, face)
    slow._skimmer.curious = False
    slow_bytes = b"".join(slow.feed(stream[n : n + 1]) for n in range(len(stream)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)) | st.sampled_from(ends), max_size=20)))
    edges = [0, *cuts, len(stream)]
    quick_bytes = b"".join(quick.feed(stream[a:b]) for a, b in itertools.pairwise(edges) if a != b)
    assert quick_bytes == slow_bytes
    assert quick.heard.tally.size == slow.heard.tally.size
    assert quick.heard.usage == slow.heard.usage
    assert quick.drain() == slow.drain()
    assert quick.close(NOTHING) == slow.close(NOTHING)


@pytest.mark.parametrize("client", ASKED)
@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_a_span_of_thinking_is_told_apart_from_the_text_behind_it(client: str, cut: int) -> None:
    """With think tags only what stands behind them goes the short way."""
    words = ["<thi", "nk>", "a", "b", "c", "d</think>", "\n", "e", "f", "g</think>", "<think>", "h"]
    stream = OPENAI_START + b"".join(openai(word) for word in words) + OPENAI_END
    slow, quick = stage("openai", client, tags=True), stage("openai", client, tags=True)
    slow._skimmer.curious = False
    assert b"".join(slow.feed(stream[n : n + cut]) for n in range(0, len(stream), cut)) == b"".join(
        quick.feed(frame + b"\n\n") for frame in stream.split(b"\n\n") if frame
    )
    assert slow.close(NOTHING) == quick.close(NOTHING)
    assert slow.heard.tally.size == quick.heard.tally.size == len("abcd") + len("efg</think><think>h")


@pytest.mark.parametrize("side", ["openai", "anthropic", "gemini", "gemini crlf", "completions"])
def test_one_read_of_many_frames_is_forwarded_as_it_is(side: str) -> None:
    """The pattern is learnt from the first frame and carries over whole reads."""
    _, _, start, frame, _ = PROVIDERS[side]
    made = stage(side, side.split()[0])
    made.feed(start + frame("one ", "text", 0) * 2)
    size = made.heard.tally.size
    block = b"".join(frame(f'"w{n}"\n', "text", 0) for n in range(100))
    assert made.feed(block) is block
    assert made.feed(block[:-5]) + made.feed(block[-5:]) == block
    assert made.heard.tally.size == size + 2 * sum(len(f'"w{n}"\n') for n in range(100))


@pytest.mark.parametrize("side", ["openai", "anthropic"])
@pytest.mark.parametrize("bad", [b"a\tb", b"\x00", b"\x1f", b"\xff", b"\xe4\xb8", b"\x80", b"\\", b'"', b"\\ud83d"])
def test_a_broken_frame_is_not_forwarded_for_its_likeness(side: str, bad: bytes) -> None:
    """Bytes that no JSON string may hold, and characters that two frames share, are treated as without a pattern."""
    _, _, start, frame, _ = PROVIDERS[side]
    broken = frame("@@", "text", 0).replace(b"@@", bad)
    first, *words = (frame(word, "text", 0) for word in ("one", "two", "three", "four", "end"))
    halves = [frame("@@", "text", 0).replace(b"@@", half) for half in (b"\xe4", b"\xb8\xad")]
    slow, quick = stage(side, side), stage(side, side)
    slow._skimmer.curious = False
    for data in (start, first, words[0] + broken + words[1], broken, words[2], b"".join(halves), words[3]):
        said = b"".join(slow.feed(data[n : n + 1]) for n in range(len(data)))
        assert quick.feed(data) == said
        assert quick.heard.skipped == slow.heard.skipped


PADDED = {"openai": b'"obfuscation":"xyzxyz"}', "anthropic": b"}  }"}
AMISS = {
    "openai": (b'"obfuscation":"}', b'"obfuscation":"x y"}', b'"obfuscation":"x","error":{"message":"no"}}'),
    "anthropic": (b"} ", b"} ,}", b'},"error":{"message":"no"}}'),
}


@pytest.mark.parametrize("side", PADDED)
@pytest.mark.parametrize("which", range(3))
def test_what_stands_where_padding_should_is_read(side: str, which: int) -> None:
    """One frame a read: broken padding breaks its frame, and a field in its place is heard."""
    _, _, start, frame, _ = PROVIDERS[side]
    amiss = frame("five", "text", 2).replace(PADDED[side], AMISS[side][which])
    assert amiss != frame("five", "text", 2)
    slow, quick = stage(side, side), stage(side, side)
    slow._skimmer.curious = False
    for data in (start, *(frame(word, "text", 1 + len(word) % 2) for word in WORDS), amiss, frame("six", "text", 1)):
        assert quick.feed(data) == b"".join(slow.feed(data[n : n + 1]) for n in range(len(data)))
        assert quick.heard.skipped == slow.heard.skipped
        assert repr(quick.heard.failure) == repr(slow.heard.failure)
        if slow.heard.failure is not None:
            break


@pytest.mark.parametrize("side", ["openai", "anthropic", "completions"])
def test_texts_are_counted_in_their_order(side: str) -> None:
    """Whatever way each of them was found: the count is that of the whole text."""
    _, _, start, frame, _ = PROVIDERS[side]
    made, whole = stage(side, side), stage(side, side)
    for one in (made, whole):
        one.feed(start)
    for word in WORDS:
        made.feed(frame(word, "text", 0))
    whole.feed(frame("".join(WORDS), "text", 0))
    assert made.heard.tally.tokens("gpt-4o") == whole.heard.tally.tokens("gpt-4o")
    assert made.heard.tally.tokens("gpt-4o") >= count.text("".join(WORDS), "gpt-4o")
    assert count.text("".join(WORDS), "gpt-4o") < count.text("".join(sorted(WORDS, key=str.isascii)), "gpt-4o")


def test_text_after_the_finish_is_not_taken_for_more_of_the_answer() -> None:
    """After its end a choice says nothing more, even in frames that look like the ones before."""
    made = stage("openai", "openai")
    out = made.feed(OPENAI_START + openai("one"))
    out += made.feed(chunk({}, finish_reason="stop"))
    out += made.feed(openai("two")) + made.feed(openai("three"))
    assert b"two" not in out
    assert b"three" not in out


def test_a_stream_without_a_pattern_is_soon_left_alone() -> None:
    """Frames that never repeat are learnt from only for so long."""
    made = stage("openai", "openai")
    made.feed(OPENAI_START)
    for number in range(200):
        body = {"id": "c", "object": "chat.completion.chunk", "created": number, "model": "m"}
        made.feed(told({**body, "choices": [{"index": 0, "delta": {"content": f"w{number}"}, "finish_reason": None}]}))
    assert not made._skimmer.curious


@pytest.mark.parametrize("text", ["index", "a\\b", 'a"b', ""])
def test_a_text_that_is_not_plainly_in_its_frame_is_no_pattern(text: str) -> None:
    """What stands elsewhere in the frame too, or needs escapes, is read as ever."""
    raw = openai(text)
    assert Pattern.learnt(raw, [TextDelta(text)], raw, moving=True) is None


def test_an_escape_hides_no_text() -> None:
    """Where a text is written with escapes, another field that looks like it is not taken for it."""
    frames = [chunk({"content": "TEXT"}).replace(b'"c"', b'"%c"' % id).replace(b"TEXT", b"\\u0061") for id in b"aab"]
    made = stage("openai", "anthropic")
    assert b"".join(map(made.feed, frames)).count(b'"text":"a"') == len(frames)
