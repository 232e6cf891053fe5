"""A conversation shortened for its client, POST /v1/responses/compact: Responses read, a compaction handed on whole.

Only providers of the format itself serve it, since nobody else can read what they seal. Sources: relay-and-billing 1.2,
provider-translation A.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _responses_read
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._openai_fields import Node
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request. Raises ClientError with the path of the fault; for a stream too, of which there is none."""
    ask = _responses_read.read(body, count_only=False)
    if ask.stream:
        raise ClientError(
            "A compaction is answered whole; ask for it without stream.",
            type="invalid_request_error",
            code="unsupported_parameter",
            param="stream",
        )
    return msgspec.structs.replace(ask, kind="compaction")


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """An answer of no provider's own: nothing that another format could tell stands for a sealed history."""
    return tree.encode({**_head(face), "output": [], "usage": shapes.usage_tree(usage)})


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format: its own bytes, but for a model's name and for what clients need and it lacks."""
    node = body.tree
    changes: Node = {name: value for name, value in _head(face).items() if node.get(name) is None}
    if face.rename and "model" in node and node["model"] != face.model:
        changes["model"] = face.model
    if type(node.get("usage")) is not dict:
        changes["usage"] = shapes.usage_tree(usage)
    return tree.encode({**node, **changes}) if changes else body.raw


def _head(face: Face) -> Node:
    return {"id": f"resp_{shapes.seed(face)}", "object": "response.compaction", "created_at": face.created}


COMPACTION: Final = EndpointSurface(dialect=shapes.DIALECT, read=read, answer=answer, same=same)
