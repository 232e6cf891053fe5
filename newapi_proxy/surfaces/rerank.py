"""The rerank surface: a query and documents in, their order out, always with usage. Knows the format alone.

Takes the bodies of Jina, Voyage and Cohere (v1 and v2), which differ in names. Source: tasks-and-accounts 3,
user-demands R8, decisions 23 and 28.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, Started, Yielded
from newapi_proxy.ir.matter import Ranked, Rerank
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces._openai_fields import Node, bad, flag_in, model_in, whole_in
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "rerank"


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request. Raises ClientError with the path of the fault."""
    sent = tree.read(body)
    query = _text(sent.get("query"), "query")
    if not query:
        raise ClientError("query is empty", code="invalid_query", param="query")
    documents = sent.get("documents")
    if documents is None or documents == []:
        raise ClientError("documents is empty", code="invalid_documents", param="documents")
    if type(documents) is not list:
        raise bad("documents must be an array.", "documents")
    texts = tuple(_text(one, f"documents.{place}") for place, one in enumerate(documents))
    wished = sent.get("top_n", sent.get("top_k"))
    top_n = whole_in({"top_n": wished}, "top_n")
    if top_n is not None and top_n < 0:
        raise bad("top_n must not be negative.", "top_n")
    return Ask(
        dialect=DIALECT,
        model=model_in(sent),
        tree=sent,
        size=len(body),
        controls=Controls(max_tokens=0),
        kind="rerank",
        matter=Rerank(
            query=query,
            documents=texts,
            top_n=top_n or None,  # 0 means all of them (decision 23)
            return_documents=flag_in(sent, "return_documents"),
        ),
        texts=(query, *texts),
    )


def _text(value: Any, path: str) -> str:
    """A text, an object's `text`, or the object itself as JSON."""
    if type(value) is str:
        return value
    if type(value) is dict:
        text = value.get("text")
        return text if type(text) is str else tree.dumps(value)
    raise bad(f"{path} must be a string or an object.", path)


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer, best first as upstream has it."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    started = Started()
    results: list[Node] = []
    for event in events:
        if isinstance(event, Started):
            started = event
        elif isinstance(event, Yielded) and isinstance(event.item, Ranked):
            results.append(_result(matter, event.item))
    if matter.top_n is not None:
        results = results[: matter.top_n]  # for providers that order all there is
    model = started.model if started.model and not face.rename else face.model
    node = {"model": model, "object": "list", "results": results, "usage": usage_tree(usage)}
    return tree.encode({"id": started.id or face.id, **node})


def _result(matter: Rerank, ranked: Ranked) -> Node:
    node: Node = {"index": ranked.index, "relevance_score": ranked.score}
    document = _document(matter, ranked.index, ranked.document)
    if document is not None:
        node["document"] = document
    return node


def _document(matter: Rerank, index: int, given: Any) -> Any:
    """The document as an object with its text: as upstream gave it, or out of the request where it is wanted."""
    if matter.return_documents is False:
        return None
    if type(given) is str:
        return {"text": given}
    if given is not None or not matter.return_documents or not 0 <= index < len(matter.documents):
        return given
    return {"text": matter.documents[index]}


def usage_tree(usage: Usage) -> Node:
    """The usage object."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format: its own bytes where nothing must be changed or is missing."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    node = body.tree if type(body.tree) is dict else {"results": body.tree}
    changes: Node = {}
    if face.rename and "model" in node:
        changes["model"] = face.model
    rows = node.get("results")
    if type(rows) is not list:
        rows = node["data"]
        changes["results"] = rows
    results = [_row(matter, row) for row in rows]
    if any(one is not row for one, row in zip(results, rows, strict=True)):
        changes["results"] = results
    told = node.get("usage")
    if type(told) is not dict or not usage_tree(usage).keys() <= told.keys():
        changes["usage"] = {**usage_tree(usage), **(told if type(told) is dict else {})}
    return tree.encode({**node, **changes}) if changes or node is not body.tree else body.raw


def _row(matter: Rerank, row: Any) -> Any:
    """One entry: itself, or with what strict clients read and upstream left out."""
    if type(row) is not dict:
        return row
    changes: Node = {}
    if "relevance_score" not in row and "score" in row:
        changes["relevance_score"] = row["score"]
    index = row.get("index")
    document = _document(matter, index if type(index) is int else -1, row.get("document", row.get("text")))
    if document is not None and document != row.get("document"):
        changes["document"] = document
    return {**row, **changes} if changes else row


RERANK: Final = EndpointSurface(dialect=DIALECT, read=read, answer=answer, same=same)
