"""Both ends of a Dify channel: what a client's request becomes, and what a client of each format gets back."""

from __future__ import annotations

from typing import Any, Final

import orjson

from newapi_proxy.adapters.base import Dialect, Outgoing, Target
from newapi_proxy.adapters.dify import ADAPTER
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
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
USAGE: Final = {"usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}}
END: Final = {"event": "message_end", "metadata": USAGE}


def target(**options: Any) -> Target:
    """An attempt's target."""
    return Target(
        channel="c",
        base_url="https://h.example",
        key=Secret("app-1"),
        model="dify",
        options=ADAPTER.options(**options),
        caller="key-7",
    )


def dialect(**options: Any) -> Dialect:
    """The dialect of a channel with these options."""
    assert ADAPTER.tuned is not None
    (found,) = ADAPTER.tuned(ADAPTER.options(**options))
    return found


def ask(letter: str, turns: Any = inbound.HI, **wishes: Any) -> Ask:
    """A client's request as read."""
    stream = bool(wishes.get("stream"))
    return inbound.read(letter, inbound.body(letter, turns, **wishes), "asked", stream)


def sent(letter: str, turns: Any = inbound.HI, options: Tree | None = None, **wishes: Any) -> Outgoing:
    """What a request in this format becomes."""
    return dialect(**(options or {})).request(ask(letter, turns, **wishes), target(**(options or {})))


def frame(event: Tree) -> bytes:
    """One of Dify's events on the wire."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def message(text: str, event: str = "message") -> Tree:
    """A piece of an answer."""
    return {"event": event, "message_id": "m", "conversation_id": "c", "answer": text, "created_at": 1_700_000_001}


def heard(events: list[Tree], **options: Any) -> list[Event]:
    """A stream's events as we understand them."""
    speaker = dialect(**options)
    decoder, reader = speaker.frames(), speaker.reader(ask("OC", stream=True))
    frames = [*decoder.feed(b"".join(map(frame, events))), *decoder.close()]
    return [one for each in frames for one in reader.read(each)] + list(reader.close())


def streamed(letter: str, events: list[Tree], cut: int = 0, **options: Any) -> tuple[Shown, Usage | None]:
    """What a streaming client gets, and what is billed; `cut`: bytes per read, 0 all at once."""
    raw = b"event: ping\n\n" + b"".join(map(frame, events))
    one = pipe(inbound.surface(letter, True), dialect(**options), ask(letter, stream=True), FACE)
    out = []
    for piece in [raw[at : at + cut] for at in range(0, len(raw), cut)] if cut else [raw]:
        if one.heard.failure is None and not one.heard.ended:
            out.append(one.feed(piece))
    out.append(one.drain())
    failure = one.heard.failure
    out.append(one.close(one.heard.usage or NOTHING) if failure is None else one.fail(failure, "r"))
    return matrix_grammar.stream(letter, b"".join(out)), one.heard.usage


def answered(letter: str, body: bytes, **options: Any) -> tuple[Shown, Usage | None]:
    """What a client gets for a whole answer, and what is billed."""
    asked = ask(letter)
    events = dialect(**options).answer(asked, Document(body))
    told = fold(events)
    speaker = inbound.surface(letter)
    if told.failure is not None:
        return matrix_grammar.whole(letter, speaker.failure(told.failure, "r")), None
    return matrix_grammar.whole(letter, speaker.answer(asked, FACE, events, told.usage or NOTHING)), told.usage


def refused(letter: str, status: int, body: Tree) -> tuple[int, Shown, UpstreamFailure]:
    """What a client gets for an answer that is no 200."""
    failure = dialect().failure(status, {}, orjson.dumps(body))
    speaker = inbound.surface(letter)
    return speaker.status(failure), matrix_grammar.whole(letter, speaker.failure(failure, "r")), failure
