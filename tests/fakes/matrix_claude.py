"""Both ends of an Anthropic channel: what a client's request becomes, and what a client of each format gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from newapi_proxy.adapters.anthropic import ADAPTER, AnthropicOptions
from newapi_proxy.adapters.base import Outgoing, Target, speaks
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, fold
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire.tree import Document
from tests.fakes import anthropic, inbound, matrix_grammar
from tests.fakes.matrix_grammar import Shown

Tree = dict[str, Any]

SONNET: Final = "claude-sonnet-4-5"  # budget thinking, structured output
OLD: Final = "claude-3-5-sonnet-20240620"  # neither
ADAPTIVE: Final = "claude-sonnet-4-6"
OPUS: Final = "claude-opus-4-8"  # adaptive, no sampling, system turns
FACE: Final = Face(model="asked", id="chatcmpl-1", created=1_700_000_000)
USAGE: Final = {"input_tokens": 12, "output_tokens": 9}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A client's body and what became of it."""

    letter: str
    tree: Tree
    outgoing: Outgoing
    model: str

    @property
    def body(self) -> Tree:
        """What Anthropic gets."""
        assert isinstance(self.outgoing.body, dict)
        return self.outgoing.body

    @property
    def verbatim(self) -> bool:
        """Whether it is a client of Anthropic's own format; then nothing but the model's name has changed."""
        if self.letter != "AM":
            return False
        assert self.body == {**self.tree, "model": self.model}
        assert list(self.body) == list(self.tree)
        assert self.outgoing.dropped == ()
        return True

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """Role and content of each message."""
        return [(one["role"], one["content"]) for one in self.body["messages"]]

    @property
    def blocks(self) -> list[Tree]:
        """The first message's content."""
        return list(self.body["messages"][0]["content"])

    def dropped(self, *names: str) -> bool:
        """Whether each of these is named as dropped, by its own name or by what stands around it."""
        return all(any(name in one for one in self.outgoing.dropped) for name in names)


def target(model: str = SONNET, **options: Any) -> Target:
    """An attempt's target."""
    return Target(
        channel="c", base_url="https://h.example", key=Secret("k"), model=model, options=AnthropicOptions(**options)
    )


def sent(
    letter: str,
    turns: Any = inbound.HI,
    *,
    upstream: str = SONNET,
    options: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **wishes: Any,
) -> Sent:
    """What a request in this format becomes. Raises what the surface or the provider refuses."""
    tree = inbound.body(letter, turns, **wishes)
    stream = bool(wishes.get("stream"))
    ask = inbound.read(letter, tree, "asked", stream, **(headers or {}))
    dialect = speaks(ADAPTER, ask.dialect, upstream)
    assert dialect is not None
    outgoing = dialect.request(ask, target(upstream, **(options or {})))
    return Sent(letter=letter, tree=tree, outgoing=outgoing, model=upstream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What Anthropic answers. `usage` is the whole answer's; streamed it is told at the start and at the end."""

    content: tuple[Tree, ...] = ({"type": "text", "text": "Hello"},)
    stop: str | None = "end_turn"
    sequence: str | None = None
    details: Tree | None = None
    usage: Any = None

    def whole(self) -> bytes:
        """The answer as one document."""
        tree = {
            "id": "msg_01A",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
            "content": list(self.content),
            "stop_reason": self.stop,
            "stop_sequence": self.sequence,
            "usage": self.usage or USAGE,
        }
        return orjson.dumps(tree | ({"stop_details": self.details} if self.details else {}))

    def stream(self) -> bytes:
        """The answer as a stream."""
        usage = self.usage or USAGE
        more = {"stop_details": self.details} if self.details else {}
        return anthropic.stream(
            [_streamed(block) for block in self.content],
            self.stop,
            usage,
            {**usage, "output_tokens": 1},
            stop_sequence=self.sequence,
            **more,
        )


def _streamed(block: Tree) -> tuple[Tree, list[Tree]]:
    match block["type"]:
        case "text":
            skeleton, deltas = anthropic.text(*_pieces(block["text"]))
            cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations", ())]
            return skeleton, [*deltas, *cited]
        case "thinking":
            return anthropic.thinking(block["thinking"], block["signature"])
        case "tool_use":
            pieces = _pieces(orjson.dumps(block["input"]).decode()) if block["input"] else ()
            return anthropic.call(block["id"], block["name"], *pieces)
        case _:
            return block, []


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(one for one in (text[:3], text[3:]) if one)


MODES: Final = ("whole", "streamed", "byte by byte")


def ask(letter: str, mode: str = "whole", **wishes: Any) -> Ask:
    """A request whose answer is told in this mode."""
    stream = mode != "whole"
    return inbound.read(letter, inbound.body(letter, stream=stream, **wishes), stream=stream)


def told(letter: str, mode: str, message: Message, **wishes: Any) -> Shown:
    """What a client of the format gets for the message."""
    if mode == "whole":
        return matrix_grammar.whole(letter, whole(letter, message.whole(), **wishes))
    return matrix_grammar.stream(letter, streamed(letter, mode, message.stream(), **wishes))


def whole(letter: str, data: bytes, **wishes: Any) -> bytes:
    """A whole answer's bytes for the client."""
    given = ask(letter, **wishes)
    surface, (dialect,) = inbound.surface(letter), ADAPTER.chat
    events = dialect.answer(given, Document(data))
    answer = fold(events)
    if answer.failure is not None:
        return surface.failure(answer.failure, "req-1")
    if surface.dialect == dialect.dialect:
        return surface.same(given, FACE, Document(data), answer.usage or NOTHING)
    return surface.answer(given, FACE, events, answer.usage or NOTHING)


def streamed(letter: str, mode: str, data: bytes, **wishes: Any) -> bytes:
    """A stream's bytes for the client, its end or its failure included."""
    given = ask(letter, mode, **wishes)
    (dialect,) = ADAPTER.chat
    surface = inbound.surface(letter, stream=True)
    one = pipe(surface, dialect, given, FACE)
    pieces = [data] if mode == "streamed" else [data[at : at + 1] for at in range(len(data))]
    out = b"".join([one.feed(piece) for piece in pieces if one.heard.failure is None]) + one.drain()
    failure: UpstreamFailure | None = one.heard.failure
    if failure is not None:
        return out + one.fail(failure, "req-1")
    return out + one.close(one.heard.usage or NOTHING)


def events(mode: str, data: bytes) -> list[Event]:
    """The reader's events."""
    (dialect,) = ADAPTER.chat
    given = ask("OC", mode)
    if mode == "whole":
        return list(dialect.answer(given, Document(data)))
    decoder, reader = dialect.frames(), dialect.reader(given)
    frames = [*decoder.feed(data), *decoder.close()]
    return [event for frame in frames for event in reader.read(frame)] + list(reader.close())


def usage(mode: str, message: Message) -> Usage:
    """What is billed for the message."""
    data = message.whole() if mode == "whole" else message.stream()
    found = fold(events(mode, data)).usage
    assert found is not None
    return found


def failed(status: int, kind: str, text: str) -> UpstreamFailure:
    """The failure that an error of Anthropic's is."""
    (dialect,) = ADAPTER.chat
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": text}})
    return dialect.failure(status, {"content-type": "application/json"}, body)
