"""Both ends of a provider's channel: what a client's request becomes, and what a client of each format gets back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from newapi_proxy.adapters.base import Adapter, Dialect, Outgoing, Target
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

FACE: Final = Face(model="asked", id="chatcmpl-1", created=1_700_000_000)
CUTS: Final = (0, 1)  # bytes per read: all at once, one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What a request became."""

    outgoing: Outgoing

    @property
    def body(self) -> Tree:
        """What the provider gets."""
        assert isinstance(self.outgoing.body, dict)
        return self.outgoing.body

    @property
    def messages(self) -> list[Tree]:
        """Its messages."""
        return list(self.body["messages"])

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the client is told that it could not be given."""
        return self.outgoing.dropped


@dataclass(frozen=True, kw_only=True, slots=True)
class Got:
    """What a client got: its own view, what is billed, and the failure where it is one."""

    shown: Shown
    usage: Usage | None
    failure: UpstreamFailure | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ends:
    """A provider with one dialect, as a channel has it."""

    adapter: Adapter
    model: str
    base_url: str = "https://h.example"
    key: str = "k"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dialect(self) -> Dialect:
        """The only one."""
        (found,) = self.adapter.chat
        return found

    def ask(self, letter: str, turns: Any = inbound.HI, **wishes: Any) -> Ask:
        """A client's request as read."""
        stream = bool(wishes.get("stream"))
        return inbound.read(letter, inbound.body(letter, turns, **wishes), "asked", stream)

    def given(self, ask: Ask, **options: Any) -> Sent:
        """What the ask becomes."""
        target = Target(
            channel="c",
            base_url=self.base_url,
            key=Secret(self.key),
            model=self.model,
            options=self.adapter.options(**{**self.options, **options}),
        )
        return Sent(outgoing=self.dialect.request(ask, target))

    def sent(self, letter: str, turns: Any = inbound.HI, options: Tree | None = None, **wishes: Any) -> Sent:
        """What a request in this format becomes. Raises what the surface or the provider refuses."""
        return self.given(self.ask(letter, turns, **wishes), **(options or {}))

    def answered(self, letter: str, body: Any, **wishes: Any) -> Got:
        """What a client gets for a whole answer."""
        asked, speaker = self.ask(letter, **wishes), inbound.surface(letter)
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        events = tuple(self.dialect.answer(asked, Document(data)))
        told = fold(events)
        if told.failure is not None:
            shown = matrix_grammar.whole(letter, speaker.failure(told.failure, "r"))
            return Got(shown=shown, usage=None, failure=told.failure, events=events)
        shown = matrix_grammar.whole(letter, speaker.answer(asked, FACE, events, told.usage or NOTHING))
        return Got(shown=shown, usage=told.usage, events=events)

    def streamed(self, letter: str, data: bytes, cut: int = 0, **wishes: Any) -> Got:
        """What a streaming client gets; `cut`: bytes per read, 0 all at once."""
        asked = self.ask(letter, stream=True, **wishes)
        one = pipe(inbound.surface(letter, True), self.dialect, asked, FACE)
        out = []
        for piece in [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]:
            if one.heard.failure is None and not one.heard.ended:
                out.append(one.feed(piece))
        out.append(one.drain())
        failure = one.heard.failure
        out.append(one.close(one.heard.usage or NOTHING) if failure is None else one.fail(failure, "r"))
        shown = matrix_grammar.stream(letter, b"".join(out))
        return Got(shown=shown, usage=one.heard.usage, failure=failure, events=tuple(self.heard(data)))

    def heard(self, data: bytes, **wishes: Any) -> list[Event]:
        """A stream's events."""
        decoder, reader = self.dialect.frames(), self.dialect.reader(self.ask("OC", stream=True, **wishes))
        frames = [*decoder.feed(data), *decoder.close()]
        return [one for each in frames for one in reader.read(each)] + list(reader.close())

    def refused(self, letter: str, status: int, body: Any) -> tuple[int, Shown, UpstreamFailure]:
        """What a client gets for an answer that is no 200."""
        failure = self.dialect.failure(status, {}, orjson.dumps(body))
        speaker = inbound.surface(letter)
        return speaker.status(failure), matrix_grammar.whole(letter, speaker.failure(failure, "r")), failure


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


def media(ask: Ask) -> list[Media]:
    """The ask's media."""
    return [part for turn in ask.turns for part in turn.parts if isinstance(part, Media)]
