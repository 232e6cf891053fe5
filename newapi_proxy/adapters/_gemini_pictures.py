"""Pictures of Google's models for clients of the images format: Imagen by `:predict`, Gemini by `:generateContent`.

Source: provider-translation B.2 (image output), B.3 (Imagen), T-VERT-036.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters import _gemini_failures as failures
from newapi_proxy.adapters.base import Endpoint, Outgoing, Target
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Picture
from newapi_proxy.ir.matter import Depict
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

DIALECT: Final = "gemini-pictures"
MOST: Final = 4  # pictures that Imagen makes at once
_SIZE: Final = re.compile(r"(\d{2,5})x(\d{2,5})")
_IMAGEN_RATIOS: Final = ("1:1", "3:4", "4:3", "9:16", "16:9")
_GEMINI_RATIOS: Final = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_SAID: Final = frozenset({"model", "prompt", "n", "size", "response_format", "user", "stream"})


def endpoint(
    url: Callable[[Ask, Target], str],
    auth: Callable[[Target], Mapping[str, str]],
    answer: Callable[[Ask, Document], Sequence[Event]],
    serves: Callable[[str], bool],
) -> Endpoint:
    """Where a cloud has them. `url`: the model's address without the method; `answer`: reads a chat's answer."""

    def request(ask: Ask, to: Target) -> Outgoing:
        matter = ask.matter
        assert isinstance(matter, Depict)
        made = _imagen(matter) if is_imagen(to.model) else _gemini(ask, matter)
        method = "predict" if is_imagen(to.model) else "generateContent"
        dropped = tuple(name for name, value in ask.tree.items() if name not in _SAID and value is not None)
        headers = {"content-type": "application/json", **auth(to)}
        return Outgoing(url=f"{url(ask, to)}:{method}", body=made, headers=headers, dropped=dropped)

    def read(ask: Ask, body: Document) -> Sequence[Event]:
        node = body.tree
        events = _predicted(node) if type(node) is dict and "predictions" in node else list(answer(ask, body))
        return _metered(ask, events)

    return Endpoint(dialect=DIALECT, request=request, answer=read, failure=failures.refused, serves=serves)


def is_imagen(model: str) -> bool:
    """Whether the model is asked by `:predict`."""
    return model.rpartition("/")[2].startswith(("imagen", "imagegeneration"))


def _imagen(matter: Depict) -> Node:
    if matter.action != "generations":
        raise Unsupported("Imagen makes pictures of words alone here.", "image")
    if matter.n > MOST:
        raise Unsupported(f"Imagen makes at most {MOST} pictures at once.", "n")
    parameters: Node = {"sampleCount": matter.n}
    ratio = _ratio(matter.size, _IMAGEN_RATIOS)
    if ratio:
        parameters["aspectRatio"] = ratio
    return {"instances": [{"prompt": matter.prompt}], "parameters": parameters}


def _gemini(ask: Ask, matter: Depict) -> Node:
    if matter.n > 1:
        raise Unsupported("This model makes one picture at a time.", "n")
    parts: list[Node] = [{"text": matter.prompt}] if matter.prompt else []
    for file in ask.form.files if ask.form is not None else ():
        data = b64encode(file.read()).decode()
        parts.append({"inlineData": {"mimeType": file.media_type or "image/png", "data": data}})
    if matter.action != "generations" and ask.form is None:
        raise Unsupported("Pictures to be edited must come in a form.", "image")
    settings: Node = {"responseModalities": ["TEXT", "IMAGE"]}
    ratio = _ratio(matter.size, _GEMINI_RATIOS)
    if ratio:
        settings["imageConfig"] = {"aspectRatio": ratio}
    return {"contents": [{"role": "user", "parts": parts}], "generationConfig": settings}


def _ratio(size: str, known: Sequence[str]) -> str:
    """The nearest ratio of sides that the model knows; "" where the client leaves it to the model."""
    found = _SIZE.fullmatch(size)
    if found is None or not int(found[2]):
        return ""
    wanted = int(found[1]) / int(found[2])
    return min(known, key=lambda one: abs(int(one.partition(":")[0]) / int(one.partition(":")[2]) - wanted))


def _predicted(node: Node) -> list[Event]:
    """Pictures, and why there are fewer of them."""
    events: list[Event] = []
    why = ""
    for row in node["predictions"] if type(node["predictions"]) is list else ():
        data = row.get("bytesBase64Encoded") if type(row) is dict else None
        if type(data) is str and data:
            kind = row.get("mimeType")
            events.append(Picture(data, kind if type(kind) is str else "image/png", block=len(events)))
        elif type(row) is dict and type(row.get("raiFilteredReason")) is str:
            why = row["raiFilteredReason"]
    if not events and why:
        return [Failed(_failures.inband(_failures.Said(message=why, status=400, code="content_policy_violation")))]
    return events


def _metered(ask: Ask, events: list[Event]) -> Sequence[Event]:
    """The events, with how many pictures came beside what else is told of usage."""
    if any(isinstance(event, Failed) for event in events):
        return events
    count = sum(isinstance(event, Picture) for event in events)
    if not count:
        return [Failed(UpstreamFailure("The model made no picture.", upstream_status=502, code="empty_response"))]
    assert ask.pieces is not None
    pieces = msgspec.structs.replace(ask.pieces, pictures=count)
    told = next((event.usage for event in events if isinstance(event, Metered)), Usage())
    kept = [event for event in events if not isinstance(event, Metered)]
    return [*kept, Metered(msgspec.structs.replace(told, pieces=pieces))]
