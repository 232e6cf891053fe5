"""Voyage: embeddings and rerank, no chat; the OpenAI format under other names. Source: tasks-and-accounts 3, R8."""

from __future__ import annotations

from typing import Final

from newapi_proxy.adapters._openai_endpoints import Made, Place, edited, embeddings, rerank
from newapi_proxy.adapters.base import Adapter, Target
from newapi_proxy.adapters.openai import bearer, below
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.matter import Rerank

_FORMAT: Final = "encoding_format"


def _embed(ask: Ask, to: Target) -> Made:
    """Numbers are what it writes unasked; their name is none there."""
    body, dropped = edited({"dimensions": "output_dimension"}, ("user",))(ask, to)
    if body.get(_FORMAT) == "float":
        del body[_FORMAT]
    return body, dropped


def _rerank(ask: Ask, to: Target) -> Made:
    """Documents are texts, and their number has another name."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    body, dropped = edited({"top_n": "top_k"}, ("max_tokens_per_doc", "max_chunk_per_doc", "overlap_tokens"))(ask, to)
    body |= {"query": matter.query, "documents": list(matter.documents)}
    if not body.get("top_k"):
        body.pop("top_k", None)
    return body, dropped


ADAPTER: Final = Adapter(
    name="voyage",
    base_url="https://api.voyageai.com",
    embeddings=embeddings(Place(url=below("/v1/embeddings"), auth=bearer), _embed, tokens=False),
    rerank=rerank(Place(url=below("/v1/rerank"), auth=bearer), _rerank),
    owner="voyage",
)
