"""Text Embeddings Inference: a server at home for embeddings in the OpenAI format and rerank in its own.

Source: tasks-and-accounts 3, user-demands R8; the rerank answer is a bare list of places and scores.
"""

from __future__ import annotations

from typing import Final

from newapi_proxy.adapters._openai_endpoints import Place, embeddings
from newapi_proxy.adapters._reranking import reranked
from newapi_proxy.adapters.base import Adapter, Endpoint, Outgoing, Target
from newapi_proxy.adapters.openai import bearer, below
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.matter import Rerank

DIALECT: Final = "tei-rerank"
_OWN: Final = ("raw_scores", "truncate", "truncation_direction")
_KNOWN: Final = frozenset({"model", "query", "documents", "top_n", "top_k", "return_documents", *_OWN})
_PLACE: Final = Place(url=below("/rerank"), auth=bearer)


def _request(ask: Ask, to: Target) -> Outgoing:
    """It orders all there is, and knows nothing of models."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    settings = {name: ask.tree[name] for name in _OWN if ask.tree.get(name) is not None}
    dropped = tuple(name for name, value in ask.tree.items() if name not in _KNOWN and value is not None)
    return _PLACE.posted({"query": matter.query, "texts": list(matter.documents), **settings}, to, dropped)


ADAPTER: Final = Adapter(
    name="tei",
    base_url="http://localhost:8080",
    key_required=False,
    embeddings=embeddings(Place(url=below("/v1/embeddings"), auth=bearer)),
    rerank=Endpoint(dialect=DIALECT, request=_request, answer=reranked, failure=_PLACE.failure),
    owner="tei",
)
