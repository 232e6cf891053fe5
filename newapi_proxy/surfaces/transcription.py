"""The transcription surfaces: a form with a sound in, its words out. Only providers of the format itself serve them.

Source: provider-translation A.5, relay-and-billing 1.2, 5.10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, TextDelta
from newapi_proxy.ir.matter import Transcribe
from newapi_proxy.ir.usage import Pieces, Usage
from newapi_proxy.surfaces._openai_fields import bad, model_in, text_in
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface, Through
from newapi_proxy.wire import tree
from newapi_proxy.wire.multipart import Form
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.transcription"
_TYPES: Final = {"text": "text/plain; charset=utf-8", "srt": "application/x-subrip", "vtt": "text/vtt; charset=utf-8"}

Action = Literal["transcriptions", "translations"]


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """A body that is no form: there is no place for a file in it."""
    raise ClientError(
        "A transcription is asked for with a form (multipart/form-data) that holds the file.",
        status=415,
        code="invalid_content_type",
        param="file",
    )


def form(form: Form, headers: Mapping[str, str], action: Action = "transcriptions") -> Ask:
    """The request. Raises ClientError with the path of the fault."""
    sent: dict[str, Any] = dict(form.fields)
    file = form.file("file")
    if file is None or not file.size:
        raise bad("field file is required", "file")
    return Ask(
        dialect=DIALECT,
        model=model_in(sent),
        tree=sent,
        size=form.size,
        stream=sent.get("stream") == "true",
        controls=Controls(max_tokens=0),
        kind="transcription",
        matter=Transcribe(action=action),
        texts=text_in(sent, "prompt") or "",
        pieces=Pieces(milliseconds=1),  # its length is found before anything is held
        answer_type=_TYPES.get(text_in(sent, "response_format") or "", ""),
        form=form,
    )


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """The words of a provider with a format of its own."""
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text.encode() if ask.answer_type else tree.encode({"text": text})


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """The words as they came."""
    return body.raw


def _surface(action: Action) -> EndpointSurface:
    taken = partial(form, action=action)
    return EndpointSurface(dialect=DIALECT, read=read, answer=answer, same=same, passer=Through, form=taken)


TRANSCRIPTIONS: Final = _surface("transcriptions")
TRANSLATIONS: Final = _surface("translations")
