"""Both ends of a Vertex channel: what a client's request becomes, and what a client of each format gets back."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from newapi_proxy.adapters.base import Dialect, Outgoing, Target, speaks
from newapi_proxy.adapters.vertex import ADAPTER, VertexOptions
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.ir.events import Event, fold
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import Pipe, Retold, looks_whole, pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound, matrix_grammar
from tests.fakes.inbound import PNG
from tests.fakes.matrix_grammar import Shown
from tests.fakes.service_account import account

Tree = dict[str, Any]

GEMINI: Final = "gemini-2.5-flash"
CLAUDE: Final = "claude-sonnet-4-5-20250929"
LLAMA: Final = "llama-3.2-90b-vision-instruct"
FACE: Final = Face(model="asked", id="chatcmpl-1", created=1_700_000_000)
PLACE: Final = "https://us-east5-aiplatform.googleapis.com/v1/projects/project-1/locations/us-east5"


def target(model: str, key: str | None = None, **options: Any) -> Target:
    """An attempt's target."""
    return Target(
        channel="c",
        base_url=options.pop("base_url", ""),
        key=Secret(account() if key is None else key),
        model=model,
        options=VertexOptions(**{"region": "us-east5", **options}),
        granted="token-1",
        now=1_750_000_000,
    )


def dialect(letter: str, model: str) -> Dialect:
    """The dialect for a client's format and an upstream model."""
    found = speaks(ADAPTER, inbound.surface(letter).dialect, model)
    assert found is not None
    return found


def ask(letter: str, turns: Any = inbound.HI, *, tree: Tree | None = None, headers: Any = None, **wishes: Any) -> Ask:
    """A client's request as read; `tree` are fields of its body beside what `wishes` make."""
    stream = bool(wishes.get("stream"))
    body = {**inbound.body(letter, turns, **wishes), **(tree or {})}
    return inbound.read(letter, body, "asked", stream, **(headers or {}))


def fetched(given: Ask, model: str, data: str = PNG, kind: str = "image/png") -> Ask:
    """The ask with bytes for what this model's addresses must be fetched for, as the relay makes it."""

    def filled(part: Any) -> Any:
        if isinstance(part, ToolResult):
            return msgspec.structs.replace(part, parts=tuple(filled(one) for one in part.parts))
        if isinstance(part, Media) and part.url is not None and ADAPTER.by_bytes and ADAPTER.by_bytes(part, model):
            return msgspec.structs.replace(part, data=data, media_type=kind)
        return part

    turns = tuple(
        msgspec.structs.replace(turn, parts=tuple(filled(part) for part in turn.parts)) for turn in given.turns
    )
    return given if turns == given.turns else msgspec.structs.replace(given, turns=turns, fetched=True)


def sent(letter: str, model: str, turns: Any = inbound.HI, options: Tree | None = None, **wishes: Any) -> Outgoing:
    """What a request in this format becomes."""
    given = ask(letter, turns, **wishes)
    return dialect(letter, model).request(given, target(model, **(options or {})))


def shown(letter: str, model: str, data: bytes, stream: bool = False, cut: int = 0) -> tuple[Shown, Usage | None]:
    """What a client gets for an answer, and what is billed; `cut`: bytes per read, 0 all at once."""
    given, speaker = ask(letter, stream=stream), dialect(letter, model)
    if not stream:
        return _whole(letter, speaker, given, data)
    made = Retold if looks_whole("application/json", data) else pipe
    one: Pipe = made(inbound.surface(letter, True), speaker, given, FACE)
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
    out = [one.feed(piece) for piece in pieces if one.heard.failure is None and not one.heard.ended]
    out.append(one.drain())
    failure = one.heard.failure
    out.append(one.close(one.heard.usage or NOTHING) if failure is None else one.fail(failure, "r"))
    return matrix_grammar.stream(letter, b"".join(out)), one.heard.usage


def _whole(letter: str, speaker: Dialect, given: Ask, data: bytes) -> tuple[Shown, Usage | None]:
    surface, events = inbound.surface(letter), speaker.answer(given, Document(data))
    told = fold(events)
    if told.failure is not None:
        return matrix_grammar.whole(letter, surface.failure(told.failure, "r")), None
    usage = told.usage or NOTHING
    if surface.dialect == speaker.dialect:
        return matrix_grammar.whole(letter, surface.same(given, FACE, Document(data), usage)), told.usage
    return matrix_grammar.whole(letter, surface.answer(given, FACE, events, usage)), told.usage


def heard(model: str, data: bytes) -> list[Event]:
    """A stream's events as we understand them."""
    speaker = dialect("OC", model)
    decoder, reader = speaker.frames(), speaker.reader(ask("OC", stream=True))
    frames = [*decoder.feed(data), *decoder.close()]
    return [event for frame in frames for event in reader.read(frame)] + list(reader.close())


def refused(letter: str, model: str, status: int, body: Any) -> tuple[int, Shown, UpstreamFailure]:
    """What a client gets for an answer that is no 200."""
    failure = dialect(letter, model).failure(status, {}, orjson.dumps(body))
    surface = inbound.surface(letter)
    return surface.status(failure), matrix_grammar.whole(letter, surface.failure(failure, "r")), failure


def frames(*events: Any) -> bytes:
    """Events of the wire, data only."""
    return b"".join(b"data: " + (one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n\n" for one in events)
