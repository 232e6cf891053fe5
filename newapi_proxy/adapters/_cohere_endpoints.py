"""Cohere's embeddings and rerank, in version 2 and, where a channel's base URL ends in it, in version 1.

Source: provider-translation B.5, tasks-and-accounts 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters._embedding import left_out, matter, own, split, texts, vectors
from newapi_proxy.adapters._reranking import reranked, used
from newapi_proxy.adapters.base import Outgoing, Target, join
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Yielded
from newapi_proxy.ir.matter import Ranked, Rerank
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

EMBEDDINGS: Final = "cohere-embed"
RERANK: Final = "cohere-rerank"
OLD: Final = "/v1"
AT_ONCE: Final = 96
_SETTINGS: Final = ("input_type", "truncate")
_TASKS: Final = {  # what a client of Google's format wants vectors for
    "RETRIEVAL_QUERY": "search_query",
    "QUESTION_ANSWERING": "search_query",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}
_RERANKS: Final = ("model", "query", "documents", "top_n", "top_k", "return_documents")


def batches(ask: Ask, to: Target) -> Sequence[Ask]:
    """So many texts at once as Cohere takes."""
    return split(ask, AT_ONCE)


def embed(ask: Ask, to: Target) -> Outgoing:
    """A request for vectors; texts are for search unless the client says what for."""
    body: Node = {
        "model": to.model,
        "texts": texts(ask),
        "input_type": _TASKS.get(matter(ask).task or "", "search_document"),
        **own(ask, _SETTINGS),
        "embedding_types": ["float"],
    }
    dropped = left_out(ask, _SETTINGS)
    if matter(ask).dimensions is not None:
        if _old(to):
            dropped = (*dropped, "dimensions")
        else:
            body["output_dimension"] = matter(ask).dimensions
    return _sent(to, "embed", body, dropped)


def embedded(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of its answer; the first version may have bare lists in place of lists by type."""
    node = body.tree if type(body.tree) is dict else {}
    rows = node.get("embeddings")
    usage = used(node)
    prompt = usage.prompt if usage is not None else 0
    return vectors(ask, rows.get("float") if type(rows) is dict else rows, body.tree, prompt)


def rerank(ask: Ask, to: Target) -> Outgoing:
    """A request for an order. The second version takes texts, the first objects too, and gives the documents back."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    settings: tuple[str, ...] = ("max_tokens_per_doc",)
    body: Node = {"model": to.model, "query": matter.query, "documents": list(matter.documents)}
    body["top_n"] = matter.top_n or len(matter.documents)
    if _old(to):
        settings = ("max_chunks_per_doc", "rank_fields")
        body["documents"] = ask.tree["documents"]
        body["return_documents"] = matter.return_documents is not False
    body |= own(ask, settings)
    known = {*_RERANKS, *settings}
    dropped = [name for name, value in ask.tree.items() if name not in known and value is not None]
    return _sent(to, "rerank", body, tuple(dropped))


def ordered(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of its answer; documents are filled in from the request, as this provider's clients have always had
    them, unless they are not wanted."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    events = reranked(ask, body)
    if matter.return_documents is False:
        return events
    return [_filled(event, matter.documents) for event in events]


def _filled(event: Event, documents: Sequence[str]) -> Event:
    ranked = event.item if isinstance(event, Yielded) else None
    if not isinstance(ranked, Ranked) or ranked.document is not None or not 0 <= ranked.index < len(documents):
        return event
    return Yielded(Ranked(ranked.index, ranked.score, documents[ranked.index]))


def _old(to: Target) -> bool:
    return to.base_url.endswith(OLD)


def _sent(to: Target, what: str, body: Node, dropped: tuple[str, ...]) -> Outgoing:
    headers = {
        "authorization": f"Bearer {to.key.reveal()}",
        "content-type": "application/json",
        "accept": "application/json",
    }
    version = OLD if _old(to) else "/v2"
    return Outgoing(url=join(to.base_url, f"{version}/{what}"), body=body, headers=headers, dropped=dropped)
