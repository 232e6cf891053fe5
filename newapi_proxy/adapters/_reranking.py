"""Answers of rerank endpoints, in all the shapes that they have, as events; what was used, where they tell it.

Knows no provider by name. Source: tasks-and-accounts 3.4 to 3.6, decision 28.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from newapi_proxy.adapters import _failures
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Started, Yielded
from newapi_proxy.ir.matter import Ranked
from newapi_proxy.ir.usage import Usage, counted
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]


def reranked(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of an answer: `results`, `data`, or a bare list; scores under either name."""
    node = body.tree
    rows = node
    if type(node) is dict:
        rows = node.get("results")
        rows = node.get("data") if type(rows) is not list else rows
    if type(rows) is not list or (type(node) is dict and node.get("error")):
        said = _failures.told(node) or _failures.Said(message="The provider's answer holds no results.")
        return (Failed(_failures.inband(said)),)
    events: list[Event] = []
    if type(node) is dict:
        id_, model = node.get("id"), node.get("model")
        events.append(Started(id_ if type(id_) is str else None, model if type(model) is str else None))
    for row in rows:
        ranked = _ranked(row)
        if ranked is None:
            return (Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502)),)
        events.append(Yielded(ranked))
    usage = used(node) if type(node) is dict else None
    if usage is not None:
        events.append(Metered(usage))
    return events


def _ranked(row: Any) -> Ranked | None:
    if type(row) is not dict:
        return None
    index, score = row.get("index"), row.get("relevance_score", row.get("score"))
    if type(index) is not int or not (type(score) is float or type(score) is int):
        return None
    document = row.get("document", row.get("text"))
    return Ranked(index, score, document if type(document) in (dict, str) else None)


def used(node: Node) -> Usage | None:
    """What was used: `usage`, or what stands in `meta`: tokens, or billed units.

    A total alone means the prompt. Where only searches are billed, tokens are left to be counted here.
    """
    meta = _object(node, "meta")
    billed = _object(meta, "billed_units")
    for told in (_object(node, "usage"), _object(meta, "tokens"), billed):
        prompt = _count(told, "prompt_tokens") or _count(told, "input_tokens")
        completion = _count(told, "completion_tokens") or _count(told, "output_tokens")
        if not prompt and not completion:
            prompt = _count(told, "total_tokens")
        if prompt or completion:
            return Usage(prompt=prompt, completion=completion, calls=_count(billed, "search_units") or None)
    searches = _count(billed, "search_units")
    return Usage(calls=searches, source="mixed") if searches else None


def _object(node: Node, name: str) -> Node:
    value = node.get(name)
    return value if type(value) is dict else {}


def _count(node: Node, name: str) -> int:
    return counted(node.get(name)) or 0
