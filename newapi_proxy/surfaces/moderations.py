"""The moderations surface: what is wrong with a text or a picture. Only providers of the format itself serve it.

Sources: relay-and-billing 1.2, provider-translation A.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces._openai_fields import Node, bad, model_in
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.moderations"
UNNAMED: Final = "text-moderation-stable"  # what a request without a model is routed and priced as


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request. Raises ClientError with the path of the fault."""
    sent = tree.read(body)
    if sent.get("input") in (None, "", []):
        raise bad("field input is required", "input")
    named = sent if sent.get("model") else {**sent, "model": UNNAMED}
    return Ask(
        dialect=DIALECT,
        model=model_in(named),
        tree=sent,
        size=len(body),
        controls=Controls(max_tokens=0),
        kind="moderations",
        texts=_texts(sent["input"]),
    )


def _texts(value: Any) -> list[str]:
    """The words of the input: a text, texts, or parts of which some are texts."""
    found = []
    for one in value if type(value) is list else [value]:
        text = one.get("text") if type(one) is dict else one
        if type(text) is str:
            found.append(text)
    return found


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """An answer of no provider's own: the format has nothing that could be told otherwise."""
    return tree.encode({"id": face.id, "model": face.model, "results": []})


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format; `flagged` is added where a provider tells categories alone."""
    node = body.tree
    changes: Node = {}
    if face.rename or type(node.get("model")) is not str:
        changes["model"] = face.model
    if type(node.get("id")) is not str:
        changes["id"] = face.id
    results = [_flagged(one) for one in node["results"]]
    if any(one is not row for one, row in zip(results, node["results"], strict=True)):
        changes["results"] = results
    return tree.encode({**node, **changes}) if changes else body.raw


def _flagged(row: Any) -> Any:
    if type(row) is not dict or "flagged" in row or type(row.get("categories")) is not dict:
        return row
    return {"flagged": any(value is True for value in row["categories"].values()), **row}


MODERATIONS: Final = EndpointSurface(dialect=DIALECT, read=read, answer=answer, same=same)
