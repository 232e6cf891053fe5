"""Embeddings on Bedrock: the bodies of Titan, Cohere and Nova, called by `invoke`. Source: provider-translation B.6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters._embedding import left_out, matter, own, split, texts, vectors
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

DIALECT: Final = "bedrock-embeddings"
AT_ONCE: Final = 96  # texts in one request to a Cohere
_COHERES: Final = ("input_type", "truncate")
_TITANS: Final = ("normalize",)


def built(ask: Ask, model: str) -> tuple[Node, tuple[str, ...]]:
    """The body for this model, and what had to be left out. Raises Unsupported for models without such an endpoint."""
    dimensions = matter(ask).dimensions
    if "cohere.embed" in model:
        body: Node = {"texts": texts(ask), "input_type": "search_document", **own(ask, _COHERES)}
        if dimensions is not None:
            body |= {"output_dimension": dimensions, "embedding_types": ["float"]}
        return body, left_out(ask, _COHERES)
    (text,) = texts(ask)
    if "nova" in model:
        wish: Node = {"embeddingPurpose": "GENERIC_INDEX", "text": {"truncationMode": "END", "value": text}}
        if dimensions is not None:
            wish["embeddingDimension"] = dimensions
        return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": wish}, left_out(ask)
    if "titan-embed" not in model:
        raise Unsupported(f"{model} makes no vectors.", "model", "unsupported_endpoint")
    body = {"inputText": text, **own(ask, _TITANS)}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return body, left_out(ask, _TITANS)


def batches(ask: Ask, model: str) -> Sequence[Ask]:
    """Cohere's models take many texts at once, the others one."""
    return split(ask, AT_ONCE if "cohere.embed" in model else 1)


def answered(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of any of their answers."""
    node: Node = body.tree if type(body.tree) is dict else {}
    rows = node.get("embeddings")
    if type(rows) is dict:
        rows = rows.get("float")
    if type(rows) is list and all(type(row) is dict for row in rows):
        rows = [row.get("embedding") for row in rows]
    if rows is None and type(node.get("embedding")) is list:
        rows = [node["embedding"]]
    return vectors(ask, rows, body.tree, counted(node.get("inputTextTokenCount")))
