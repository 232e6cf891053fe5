"""Both ends of a Bedrock channel: what a client's request becomes, and what a client of each format gets back.

Answers are told whole, as binary frames, and one byte a time.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import msgspec
import orjson

from newapi_proxy.adapters.base import Adapter, Dialect, Outgoing, Target, speaks
from newapi_proxy.adapters.bedrock import ADAPTER, BedrockOptions, tuned
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.ir.events import Event, fold
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound, matrix_grammar
from tests.fakes.matrix_grammar import Shown

Tree = dict[str, Any]

CLAUDE: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"  # budget thinking, structured output
ADAPTIVE: Final = "us.anthropic.claude-sonnet-4-6"
OPUS: Final = "us.anthropic.claude-opus-4-8"  # system turns
NOVA: Final = "us.amazon.nova-lite-v1:0"
NOVA2: Final = "us.amazon.nova-2-lite-v1:0"
LLAMA: Final = "us.meta.llama4-maverick-17b-instruct-v1:0"
MISTRAL: Final = "us.mistral.pixtral-large-2502-v1:0"
TITAN: Final = "amazon.titan-text-express-v1"
QWEN: Final = "qwen.qwen3-32b-v1:0"
GPT: Final = "openai.gpt-oss-120b-1:0"
KEY: Final = "AKIDEXAMPLE|wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY|us-east-1"
NOW: Final = 1_440_938_160  # 2015-08-30T12:36:00Z
FACE: Final = Face(model="asked", id="chatcmpl-1", created=1_700_000_000)
USAGE: Final = {"inputTokens": 12, "outputTokens": 9, "totalTokens": 21}
MODES: Final = ("whole", "streamed", "byte by byte")
WAYS: Final = ("converse", "invoke")


def frame(headers: Mapping[str, str], payload: bytes = b"") -> bytes:
    """One binary message."""
    block = b""
    for name, value in headers.items():
        block += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
    start = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = start + struct.pack(">I", crc32(start)) + block + payload
    return message + struct.pack(">I", crc32(message))


def event(name: str, value: Any) -> bytes:
    """An event of Converse, padded as AWS pads."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, orjson.dumps({**value, "p": "abcdefgh"[: len(name) % 8]}))


def exception(name: str, message: str) -> bytes:
    """A failure inside a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, orjson.dumps({"message": message}))


def chunk(value: Any) -> bytes:
    """An event of Claude's inside a frame."""
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return event("chunk", {"bytes": base64.b64encode(data).decode()})


def chunks(sse: bytes) -> bytes:
    """An Anthropic stream as frames; the last event with AWS's own counts."""
    out = b""
    for _, value in matrix_grammar.frames(sse):
        if value["type"] == "message_stop":
            counts = {"inputTokenCount": 12, "outputTokenCount": 9, "invocationLatency": 5, "firstByteLatency": 1}
            value = {**value, "amazon-bedrock-invocationMetrics": counts}
        out += chunk(value)
    return out


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A client's body and what became of it."""

    letter: str
    tree: Tree
    outgoing: Outgoing

    @property
    def body(self) -> Tree:
        """What Bedrock gets."""
        assert isinstance(self.outgoing.body, dict)
        return self.outgoing.body

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """Role and content of each message."""
        return [(one["role"], one["content"]) for one in self.body["messages"]]

    @property
    def blocks(self) -> list[Tree]:
        """The first message's content."""
        return list(self.body["messages"][0]["content"])

    @property
    def extras(self) -> Tree:
        """The model's own fields."""
        return dict(self.body.get("additionalModelRequestFields", {}))

    def dropped(self, *names: str) -> bool:
        """Whether each of these is named as dropped, by its own name or by what stands around it."""
        return all(any(name in one for one in self.outgoing.dropped) for name in names)

    def headers(self) -> dict[str, str]:
        """Every header, the signature among them."""
        assert self.outgoing.sign is not None
        data = orjson.dumps(self.body)
        return {**self.outgoing.headers, **self.outgoing.sign(self.outgoing.url, self.outgoing.headers, data)}


def target(model: str = CLAUDE, *, key: str = KEY, base_url: str = "", **options: Any) -> Target:
    """An attempt's target."""
    return Target(
        channel="c", base_url=base_url, key=Secret(key), model=model, options=BedrockOptions(**options), now=NOW
    )


def adapter(way: str = "converse") -> Adapter:
    """The record as a channel of this way has it."""
    return msgspec.structs.replace(ADAPTER, chat=tuned(BedrockOptions(bedrock_api=way)))


def dialect(letter: str, way: str = "converse", model: str = CLAUDE) -> Dialect:
    """The format that a client of this letter reaches the model by."""
    found = speaks(adapter(way), inbound.surface(letter).dialect, model)
    assert found is not None
    return found


def sent(
    letter: str,
    turns: Any = inbound.HI,
    *,
    upstream: str = CLAUDE,
    way: str = "converse",
    key: str = KEY,
    options: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **wishes: Any,
) -> Sent:
    """What a request in this format becomes. Raises what the surface or the provider refuses."""
    tree = inbound.body(letter, turns, **wishes)
    stream = bool(wishes.get("stream"))
    given = fetched(inbound.read(letter, tree, "asked", stream, **(headers or {})), upstream)
    to = target(upstream, key=key, bedrock_api=way, **(options or {}))
    return Sent(letter=letter, tree=tree, outgoing=dialect(letter, way, upstream).request(given, to))


def fetched(given: Ask, model: str) -> Ask:
    """The ask with bytes for the media that Bedrock wants fetched: every picture is the same one."""
    wanted = ADAPTER.by_bytes
    assert wanted is not None

    def filled(part: Any) -> Any:
        if isinstance(part, ToolResult):
            return msgspec.structs.replace(part, parts=tuple(map(filled, part.parts)))
        if isinstance(part, Media) and part.url is not None and part.data is None and wanted(part, model):
            return msgspec.structs.replace(part, data=inbound.PNG, media_type="image/png")
        return part

    turns = tuple(msgspec.structs.replace(turn, parts=tuple(map(filled, turn.parts))) for turn in given.turns)
    return msgspec.structs.replace(given, turns=turns, fetched=turns != given.turns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What Converse answers. `extra`: further fields of the end."""

    content: tuple[Tree, ...] = ({"text": "Hello"},)
    stop: str = "end_turn"
    usage: Any = None
    extra: Tree | None = None

    def whole(self) -> bytes:
        """The answer as one document."""
        tree = {
            "output": {"message": {"role": "assistant", "content": list(self.content)}},
            "stopReason": self.stop,
            "usage": self.usage or USAGE,
            "metrics": {"latencyMs": 7},
        }
        return orjson.dumps(tree | (self.extra or {}))

    def stream(self) -> bytes:
        """The answer as frames."""
        out = event("messageStart", {"role": "assistant"})
        for index, block in enumerate(self.content):
            out += b"".join(event(name, {"contentBlockIndex": index, **value}) for name, value in _streamed(block))
        out += event("messageStop", {"stopReason": self.stop, **(self.extra or {})})
        return out + event("metadata", {"usage": self.usage or USAGE, "metrics": {"latencyMs": 7}})


def _streamed(block: Tree) -> Iterator[tuple[str, Tree]]:
    if "toolUse" in block:
        call = {name: value for name, value in block["toolUse"].items() if name != "input"}
        yield "contentBlockStart", {"start": {"toolUse": call}}
        text = orjson.dumps(block["toolUse"]["input"]).decode() if block["toolUse"]["input"] else ""
        for piece in _pieces(text):
            yield "contentBlockDelta", {"delta": {"toolUse": {"input": piece}}}
    for piece in _pieces(block.get("text", "")):
        yield "contentBlockDelta", {"delta": {"text": piece}}
    thought = block.get("reasoningContent", {})
    for name, value in thought.get("reasoningText", thought).items():
        yield "contentBlockDelta", {"delta": {"reasoningContent": {name: value}}}
    cited = block.get("citationsContent", {})
    for one in cited.get("content", ()):
        yield "contentBlockDelta", {"delta": {"text": one["text"]}}
    for one in cited.get("citations", ()):
        yield "contentBlockDelta", {"delta": {"citation": one}}
    yield "contentBlockStop", {}


def _pieces(text: str) -> Iterable[str]:
    return tuple(one for one in (text[:3], text[3:]) if one)


def ask(letter: str, mode: str = "whole", **wishes: Any) -> Ask:
    """A request whose answer is told in this mode."""
    stream = mode != "whole"
    return inbound.read(letter, inbound.body(letter, stream=stream, **wishes), stream=stream)


def told(letter: str, mode: str, message: Message | bytes, way: str = "converse", **wishes: Any) -> Shown:
    """What a client of the format gets for the message, or for these bytes of upstream's."""
    if isinstance(message, Message):
        message = message.whole() if mode == "whole" else message.stream()
    if mode == "whole":
        return matrix_grammar.whole(letter, whole(letter, message, way, **wishes))
    return matrix_grammar.stream(letter, streamed(letter, mode, message, way, **wishes))


def whole(letter: str, data: bytes, way: str = "converse", **wishes: Any) -> bytes:
    """A whole answer's bytes for the client."""
    given = ask(letter, **wishes)
    surface, one = inbound.surface(letter), dialect(letter, way)
    events = one.answer(given, Document(data))
    answer = fold(events)
    if answer.failure is not None:
        return surface.failure(answer.failure, "req-1")
    if surface.dialect == one.dialect:
        return surface.same(given, FACE, Document(data), answer.usage or NOTHING)
    return surface.answer(given, FACE, events, answer.usage or NOTHING)


def streamed(letter: str, mode: str, data: bytes, way: str = "converse", **wishes: Any) -> bytes:
    """A stream's bytes for the client, its end or its failure included."""
    given = ask(letter, mode, **wishes)
    one = pipe(inbound.surface(letter, stream=True), dialect(letter, way), given, FACE)
    pieces = [data] if mode == "streamed" else [data[at : at + 1] for at in range(len(data))]
    out = b"".join([one.feed(piece) for piece in pieces if one.heard.failure is None]) + one.drain()
    failure: UpstreamFailure | None = one.heard.failure
    if failure is not None:
        return out + one.fail(failure, "req-1")
    return out + one.close(one.heard.usage or NOTHING)


def events(data: bytes, way: str = "converse", letter: str = "OC") -> list[Event]:
    """The reader's events for a stream."""
    one = dialect(letter, way)
    decoder, reader = one.frames(), one.reader(ask(letter, "streamed"))
    frames = [*decoder.feed(data), *decoder.close()]
    return [event for frame in frames for event in reader.read(frame)] + list(reader.close())


def usage(mode: str, message: Message) -> Usage:
    """What is billed for the message."""
    if mode == "whole":
        found = fold(dialect("OC").answer(ask("OC"), Document(message.whole()))).usage
    else:
        found = fold(events(message.stream())).usage
    assert found is not None
    return found


def failed(status: int, kind: str, text: str, way: str = "converse") -> UpstreamFailure:
    """The failure that an error of AWS's is."""
    body = orjson.dumps({"message": text})
    headers = {"content-type": "application/json", "x-amzn-errortype": kind}
    return dialect("OC", way).failure(status, headers, body)
