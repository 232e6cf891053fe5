"""Gemini's embedContent and batchEmbedContents. Knows the format alone. Source: provider-translation A.7."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, Yielded
from newapi_proxy.ir.matter import Embed, Vector
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _gemini_fields as fields
from newapi_proxy.surfaces import gemini
from newapi_proxy.surfaces._gemini_fields import Node
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import floats, tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "gemini.embeddings"
MOST: Final = 10_000  # contents in one request
_CONTENTS: Final = "requests"


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request: one content, or a list of them. Raises ClientError with the path of the fault."""
    model = fields.model_in(headers)
    sent = tree.read(body)
    batch = _CONTENTS in sent
    rows = fields.list_in(sent, _CONTENTS, "") if batch else [sent]
    if not rows or len(rows) > MOST:
        raise fields.fault(_CONTENTS, f"between 1 and {MOST} contents are expected.")
    places = [f"{_CONTENTS}.{number}" if batch else "" for number in range(len(rows))]
    nodes = [fields.object_of(row, place) for row, place in zip(rows, places, strict=True)]
    inputs = tuple(_input(node, place) for node, place in zip(nodes, places, strict=True))
    first, place = nodes[0], places[0]
    return Ask(
        dialect=DIALECT,
        model=model,
        tree=sent,
        size=len(body),
        controls=Controls(max_tokens=0),
        kind="embeddings",
        matter=Embed(
            inputs=inputs,
            dimensions=fields.whole_in(first, "outputDimensionality", place),
            task=fields.text_in(first, "taskType", place),
            title=fields.text_in(first, "title", place),
        ),
        texts=inputs,
    )


def _input(node: Node, place: str) -> str | Node:
    """The content's text; a content that holds anything else as it is."""
    content = fields.object_in(node, "content", place)
    if content is None:
        raise fields.fault(fields.within(place, "content"), "a content is expected.")
    inside = fields.within(place, "content")
    parts = [
        fields.object_of(part, f"{inside}.parts.{number}")
        for number, part in enumerate(fields.list_in(content, "parts", inside))
    ]
    texts = [part["text"] for part in parts if type(part.get("text")) is str and len(part) == 1]
    return "\n".join(texts) if texts and len(texts) == len(parts) else content


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer, in the order of the contents."""
    vectors = [event.item for event in events if isinstance(event, Yielded) and isinstance(event.item, Vector)]
    vectors.sort(key=lambda vector: vector.index)
    rows = [{"values": _numbers(vector.values)} for vector in vectors]
    counts = {"promptTokenCount": usage.prompt, "totalTokenCount": usage.prompt + usage.completion}
    said = {"embeddings": rows} if _CONTENTS in ask.tree else {"embedding": rows[0] if rows else {"values": []}}
    return tree.encode({**said, "usageMetadata": counts})


def _numbers(values: Any) -> Any:
    """Numbers, also where a provider sent them packed; what is no vector stays as it is."""
    try:
        return floats.unpacked(values) if type(values) is str else values
    except ValueError:
        return values


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format: its own bytes."""
    return body.raw


EMBEDDINGS: Final = EndpointSurface(
    dialect=DIALECT,
    read=read,
    answer=answer,
    same=same,
    failure=gemini.GENERATE.failure,
    status=gemini.GENERATE.status,
)
