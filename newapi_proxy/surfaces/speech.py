"""The speech surface: a text in, sound out, handed on as it comes. Only providers of the format itself serve it.

Source: provider-translation A.5, relay-and-billing 1.2, 5.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.matter import Speak
from newapi_proxy.ir.usage import Pieces, Usage
from newapi_proxy.surfaces._openai_fields import bad, model_in, number_in, text_in
from newapi_proxy.surfaces.base import EVENT_STREAM, Face
from newapi_proxy.surfaces.endpoint import EndpointSurface, Through
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.speech"
LONGEST: Final = 1 << 20  # characters; what a model takes is its provider's to say


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request. Raises ClientError with the path of the fault."""
    sent = tree.read(body)
    text = text_in(sent, "input")
    if not text:
        raise bad("field input is required", "input")
    if len(text) > LONGEST:
        raise bad(f"input must not be longer than {LONGEST} characters.", "input")
    number_in(sent, "speed")
    return Ask(
        dialect=DIALECT,
        model=model_in(sent),
        tree=sent,
        size=len(body),
        stream=True,
        controls=Controls(max_tokens=0),
        kind="speech",
        matter=Speak(text=text, format=text_in(sent, "response_format") or ""),
        texts=text,
        pieces=Pieces(characters=len(text)),
        handed=text_in(sent, "stream_format") != "sse",
    )


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """An answer of no provider's own: there is none that speaks another format."""
    return b""


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """The sound as it came."""
    return body.raw


SPEECH: Final = EndpointSurface(
    dialect=DIALECT,
    read=read,
    answer=answer,
    same=same,
    passer=Through,
    keepalive=lambda ask: b"" if ask.handed else sse.PING,
    stream_type=lambda ask: "" if ask.handed else EVENT_STREAM,  # a ping may go out before the provider's own head
)
