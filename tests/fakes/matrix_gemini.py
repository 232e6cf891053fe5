"""Both ends of a Gemini channel: what a client's request becomes, and what a client of each format gets back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from newapi_proxy.adapters.base import Outgoing, Target, speaks
from newapi_proxy.adapters.gemini import ADAPTER, GeminiOptions
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

FLASH2: Final = "gemini-2.0-flash"  # no thinking
FLASH25: Final = "gemini-2.5-flash"  # thinks by a budget
PRO25: Final = "gemini-2.5-pro"
FLASH3: Final = "gemini-3-flash-preview"  # thinks by a level, wants signatures
PRO3: Final = "gemini-3.1-pro-preview"
OLD: Final = "gemini-1.5-flash"  # takes no plain JSON schemas
FACE: Final = Face(model="asked", id="chatcmpl-1", created=1_700_000_000)
USAGE: Final = {"promptTokenCount": 12, "candidatesTokenCount": 9, "totalTokenCount": 21}
MODES: Final = ("whole", "streamed", "byte by byte")
(DIALECT,) = ADAPTER.chat


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A client's body and what became of it."""

    letter: str
    tree: Tree
    outgoing: Outgoing

    @property
    def body(self) -> Tree:
        """What Gemini gets."""
        assert isinstance(self.outgoing.body, dict)
        return self.outgoing.body

    @property
    def verbatim(self) -> bool:
        """Whether it is a client of Gemini's own format; then nothing has changed."""
        if self.letter != "GG":
            return False
        assert self.body == self.tree
        assert self.outgoing.dropped == ()
        return True

    @property
    def contents(self) -> list[tuple[str, Any]]:
        """Role and parts of each content."""
        return [(one["role"], one["parts"]) for one in self.body["contents"]]

    @property
    def parts(self) -> list[Tree]:
        """The first content's parts."""
        return list(self.body["contents"][0]["parts"])

    @property
    def config(self) -> Tree:
        """The generation config."""
        return dict(self.body.get("generationConfig", {}))


def target(model: str = FLASH25, **options: Any) -> Target:
    """An attempt's target."""
    return Target(
        channel="c", base_url="https://h.example", key=Secret("k"), model=model, options=GeminiOptions(**options)
    )


def sent(
    letter: str,
    turns: Any = inbound.HI,
    *,
    upstream: str = FLASH25,
    options: Mapping[str, Any] | None = None,
    **wishes: Any,
) -> Sent:
    """What a request in this format becomes. Raises what the surface or the provider refuses."""
    return posted(letter, inbound.body(letter, turns, **wishes), upstream, options, bool(wishes.get("stream")))


def posted(
    letter: str, tree: Tree, upstream: str = FLASH25, options: Mapping[str, Any] | None = None, stream: bool = False
) -> Sent:
    """What a body in this format becomes."""
    ask = inbound.read(letter, tree, "asked", stream)
    dialect = speaks(ADAPTER, ask.dialect, upstream)
    assert dialect is not None
    return Sent(letter=letter, tree=tree, outgoing=dialect.request(ask, target(upstream, **(options or {}))))


def fetched(ask: Ask, data: str, media_type: str) -> Ask:
    """The ask after its media have been fetched."""

    def filled(part: Any) -> Any:
        if isinstance(part, Media) and part.url is not None:
            return msgspec.structs.replace(part, data=data, media_type=media_type)
        if isinstance(part, ToolResult):
            return msgspec.structs.replace(part, parts=tuple(filled(one) for one in part.parts))
        return part

    turns = tuple(msgspec.structs.replace(turn, parts=tuple(map(filled, turn.parts))) for turn in ask.turns)
    return msgspec.structs.replace(ask, turns=turns, fetched=True)


def media(ask: Ask) -> Iterator[Media]:
    """The media of an ask."""
    for turn in ask.turns:
        for part in turn.parts:
            yield from (one for one in getattr(part, "parts", (part,)) if isinstance(one, Media))


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What Gemini answers. `more` stands beside the candidate's content, `around` beside the candidates."""

    parts: tuple[Tree, ...] = ({"text": "Hello"},)
    finish: str | None = "STOP"
    usage: Any = None
    more: Tree = field(default_factory=dict)
    around: Tree = field(default_factory=dict)
    bare: bool = False  # `content: {}`

    def chunk(self, parts: tuple[Tree, ...], last: bool = True) -> Tree:
        """One answer's shape with some of the parts."""
        content: Tree = {} if self.bare else {"role": "model", "parts": list(parts)}
        candidate: Tree = {"content": content, "index": 0}
        if last:
            candidate |= ({"finishReason": self.finish} if self.finish else {}) | self.more
        return {
            "candidates": [candidate],
            "usageMetadata": self.usage or USAGE,
            "modelVersion": "gemini-x",
            "responseId": "r1",
            **self.around,
        }

    def whole(self) -> bytes:
        """The answer as one document."""
        return orjson.dumps(self.chunk(self.parts))

    def stream(self) -> bytes:
        """The answer as a stream: a chunk for each part, texts in two pieces."""
        pieces = [piece for part in self.parts for piece in _pieces(part)]
        chunks = [self.chunk((piece,), last=False) for piece in pieces[:-1]]
        return b"".join(event(one) for one in [*chunks, self.chunk(tuple(pieces[-1:]))])


def event(chunk: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + orjson.dumps(chunk) + b"\r\n\r\n"


def _pieces(part: Tree) -> list[Tree]:
    text = part.get("text")
    if not isinstance(text, str) or len(text) < 2:
        return [part]
    rest = {name: value for name, value in part.items() if name != "thoughtSignature"}
    return [{**rest, "text": text[:1]}, {**part, "text": text[1:]}]


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
    surface = inbound.surface(letter)
    events = DIALECT.answer(given, Document(data))
    answer = fold(events)
    if answer.failure is not None:
        return surface.failure(answer.failure, "req-1")
    if surface.dialect == DIALECT.dialect:
        return surface.same(given, FACE, Document(data), answer.usage or NOTHING)
    return surface.answer(given, FACE, events, answer.usage or NOTHING)


def streamed(letter: str, mode: str, data: bytes, **wishes: Any) -> bytes:
    """A stream's bytes for the client, its end or its failure included."""
    given = ask(letter, mode, **wishes)
    one = pipe(inbound.surface(letter, stream=True), DIALECT, given, FACE)
    pieces = [data] if mode == "streamed" else [data[at : at + 1] for at in range(len(data))]
    out = b"".join([one.feed(piece) for piece in pieces if one.heard.failure is None]) + one.drain()
    failure: UpstreamFailure | None = one.heard.failure
    if failure is not None:
        return out + one.fail(failure, "req-1")
    return out + one.close(one.heard.usage or NOTHING)


def events(mode: str, data: bytes, letter: str = "OC", **wishes: Any) -> list[Event]:
    """The reader's events."""
    given = ask(letter, mode, **wishes)
    if mode == "whole":
        return list(DIALECT.answer(given, Document(data)))
    size = 1 if mode == "byte by byte" else len(data)
    decoder, reader = DIALECT.frames(), DIALECT.reader(given)
    frames = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
    return [one for frame in [*frames, *decoder.close()] for one in reader.read(frame)] + list(reader.close())


def usage(mode: str, message: Message) -> Usage:
    """What is billed for the message."""
    data = message.whole() if mode == "whole" else message.stream()
    found = fold(events(mode, data)).usage
    assert found is not None
    return found


def failed(status: int, error: Any) -> UpstreamFailure:
    """The failure that an error body is."""
    return DIALECT.failure(status, {"content-type": "application/json"}, orjson.dumps(error))
