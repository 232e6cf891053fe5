"""Jina: embeddings and rerank, no chat. Source: provider-translation B.10, tasks-and-accounts 3.5."""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.adapters._openai_endpoints import Made, Place, edited, embeddings, rerank
from newapi_proxy.adapters.base import Adapter, Target
from newapi_proxy.adapters.openai import bearer, below
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.matter import Rerank

_NAMES: Final = {"encoding_format": "embedding_type"}


def _embed(ask: Ask, to: Target) -> Made:
    """Jina's own fields pass; inputs are always a list there."""
    body, dropped = edited(_NAMES, ("user",))(ask, to)
    given: Any = body["input"]
    return {**body, "input": given if isinstance(given, list) else [given]}, dropped


def _rank(ask: Ask, to: Target) -> Made:
    """The number wanted has one name here, whatever the client calls it; none means all."""
    matter = ask.matter
    assert isinstance(matter, Rerank)
    body, dropped = edited({"top_k": "", "top_n": ""})(ask, to)
    return (body if matter.top_n is None else {**body, "top_n": matter.top_n}), dropped


ADAPTER: Final = Adapter(
    name="jina",
    numbers=(38,),
    base_url="https://api.jina.ai",
    embeddings=embeddings(Place(url=below("/v1/embeddings"), auth=bearer), _embed, tokens=False),
    rerank=rerank(Place(url=below("/v1/rerank"), auth=bearer), _rank),
    owner="jina",
)
