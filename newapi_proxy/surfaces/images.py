"""The images surfaces: pictures of words (a JSON body) or of other pictures (a form).

A provider of the format itself is handed through, large answers in flat memory; for the others the answer is composed
here, as one document or as a stream's last event. Source: provider-translation A.5, relay-and-billing 1.2, 5.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, Picture, TextDelta
from newapi_proxy.ir.matter import Depict
from newapi_proxy.ir.usage import Pieces, Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces._openai_fields import Node, bad, flag_in, model_in, text_in, whole_in
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface, Through
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.multipart import Form
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.images"
MOST: Final = 128  # pictures in one request
_UNNAMED: Final = "dall-e-2"  # the model of a request that names none
_EVENTS: Final = {"generations": "image_generation.completed", "edits": "image_edit.completed"}

Action = Literal["generations", "edits", "variations"]
_PICTURE: Final = re.compile(r"image(\[\d*\])?")  # several: image[], or image[0] and image[1]


def read(body: bytes, headers: Mapping[str, str], action: Action = "generations") -> Ask:
    """The request. Raises ClientError with the path of the fault."""
    return _ask(tree.read(body), action, len(body))


def form(form: Form, headers: Mapping[str, str], action: Action = "edits") -> Ask:
    """The request as a form, which holds the pictures. Raises ClientError with the path of the fault."""
    sent = {name: _plain(name, value) for name, value in form.fields.items()}
    if not any(_PICTURE.fullmatch(file.name) for file in form.files) and action != "generations":
        raise bad("field image is required", "image")
    return _ask(sent, action, form.size, form)


def _plain(name: str, value: Any) -> Any:
    """A form's text as what a JSON body would hold."""
    if name in ("n", "partial_images", "output_compression") and type(value) is str and value.isdecimal():
        return int(value)
    if name == "stream" and value in ("true", "false"):
        return value == "true"
    return value


def _ask(sent: Node, action: Action, size: int, form: Form | None = None) -> Ask:
    prompt = text_in(sent, "prompt")
    if not prompt and action != "variations":
        raise bad("prompt is required", "prompt")
    if form is None and action != "generations" and not sent.get("images") and not sent.get("image"):
        raise bad("field image is required", "image")
    number = whole_in(sent, "n")
    if number is not None and not 1 <= number <= MOST:
        raise bad(f"n must be between 1 and {MOST}.", "n")
    wide, quality = text_in(sent, "size") or "", text_in(sent, "quality") or ""
    if "\u00d7" in wide:
        raise bad("size must be written with the letter x, as in 1024x1024.", "size")
    stream = flag_in(sent, "stream") or False
    return Ask(
        dialect=DIALECT,
        model=model_in(sent if sent.get("model") else {**sent, "model": _UNNAMED}),
        tree=sent,
        size=size,
        stream=True,
        controls=Controls(max_tokens=0, user=text_in(sent, "user")),
        kind="images",
        matter=Depict(
            action=action,
            prompt=prompt or "",
            n=number or 1,
            size=wide,
            quality=quality,
            url=text_in(sent, "response_format") == "url",
        ),
        texts=prompt or "",
        pieces=Pieces(pictures=number or 1, size=wide, quality=quality),
        form=form,
        handed=not stream,
    )


class Writer:
    """Pictures of a provider with a format of its own, told at the end: one document, or one event each."""

    def __init__(self, ask: Ask, face: Face) -> None:
        """A fresh answer."""
        self._ask = ask
        self._face = face
        self._pictures: list[Picture] = []
        self._said = ""

    def feed(self, event: Event) -> bytes:
        """See surfaces.base.Writer."""
        if isinstance(event, Picture):
            self._pictures.append(event)
        elif isinstance(event, TextDelta):
            self._said += event.text
        return b""

    def close(self, usage: Usage) -> bytes:
        """See surfaces.base.Writer."""
        if self._ask.handed:
            return tree.encode(_document(self._ask, self._face, self._pictures, usage, self._said))
        assert isinstance(self._ask.matter, Depict)
        kind = _EVENTS.get(self._ask.matter.action, _EVENTS["generations"])
        out = []
        for picture in self._pictures:
            event = {"type": kind, "created_at": self._face.created, "b64_json": picture.data, "usage": _usage(usage)}
            out.append(sse.encode(tree.encode(event), kind))
        return b"".join(out)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See surfaces.base.Writer."""
        return b"" if self._ask.handed else shapes.error_frame(error, request_id)


def _document(ask: Ask, face: Face, pictures: list[Picture], usage: Usage, said: str = "") -> Node:
    matter = ask.matter
    assert isinstance(matter, Depict)
    data = []
    for picture in pictures:
        node: Node = {"b64_json": picture.data}
        if matter.url:  # there is no place to keep it: the address holds the picture
            node = {"url": f"data:{picture.media_type};base64,{picture.data}"}
        data.append({**node, "revised_prompt": said} if said else node)
    return {"created": face.created, "data": data, "usage": _usage(usage)}


def _usage(usage: Usage) -> Node:
    """The usage object; nothing was counted where the provider counts pictures alone."""
    return {
        "input_tokens": usage.prompt,
        "output_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "input_tokens_details": {"text_tokens": usage.prompt - usage.image_in, "image_tokens": usage.image_in},
    }


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer of another format."""
    return tree.encode(_document(ask, face, [event for event in events if isinstance(event, Picture)], usage))


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format: its own bytes."""
    return body.raw


def _surface(action: Action, taken: Callable[[Form, Mapping[str, str]], Ask] | None) -> EndpointSurface:
    return EndpointSurface(
        dialect=DIALECT,
        read=partial(read, action=action),
        answer=answer,
        same=same,
        writer=Writer,
        passer=Through,
        keepalive=lambda ask: b"" if ask.handed else sse.PING,
        stream_type=lambda ask: "application/json" if ask.handed else "text/event-stream",
        form=taken,
    )


GENERATIONS: Final = _surface("generations", None)
EDITS: Final = _surface("edits", partial(form, action="edits"))
VARIATIONS: Final = _surface("variations", partial(form, action="variations"))
