"""A whole Gemini answer, from the events a stream would have had. Knows no provider.

Parts stand in the order of their first words; a call's arguments are put together where it began.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _gemini_shapes as shapes
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import tree

Node = dict[str, Any]


def answer(face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer."""
    id_ = face.id
    told: dict[int, _Candidate] = {}
    for event in events:
        if isinstance(event, Started):
            id_ = event.id or id_
        else:
            choice: int | None = getattr(event, "choice", None)
            if choice is not None:
                told.setdefault(choice, _Candidate()).take(event)
    return tree.encode(
        {
            "candidates": [one.told(index) for index, one in sorted((told or {0: _Candidate()}).items())],
            "usageMetadata": shapes.usage_tree(usage),
            "modelVersion": face.model,
            "responseId": id_,
        }
    )


class _Candidate:
    """One alternative while its events come."""

    __slots__ = ("_calls", "_finished", "_key", "_parts", "_refused", "_sources", "_text")

    def __init__(self) -> None:
        self._parts: list[Node] = []
        self._key: tuple[str, int] | None = None  # what the last part is
        self._calls: dict[int, tuple[Node, CallStarted, list[str]]] = {}
        self._text: list[str] = []
        self._sources: list[Node] = []
        self._finished: Finished | None = None
        self._refused = ""

    def take(self, event: Event) -> None:
        """Listens to one event of this alternative."""
        match event:
            case TextDelta(text=text, block=block) if text:
                self._text.append(text)
                self._at("text", block, {"text": ""})["text"] += text
            case RefusalDelta(text=text):
                self._refused = (self._refused + text)[: shapes.MOST_REFUSED]
            case ReasoningDelta(text=text, block=block) if text:
                self._at("thought", block, {"text": "", "thought": True})["text"] += text
            case ReasoningSealed(signature=signature, block=block) if signature:
                seal = shapes.sealed(event.format, signature)
                self._at("thought", block, {"text": "", "thought": True})["thoughtSignature"] = seal
                self._key = None
            case CallStarted():
                self._calls[event.call] = (self._new({}), event, [])
            case CallDelta(call=call, text=text) if call in self._calls:
                self._calls[call][2].append(text)
            case Cited(family="web", value=value) if len(self._sources) < shapes.MOST_SOURCES:
                self._sources.append(value)
            case Block(family=shapes.FAMILY, value=value):
                self._new(value)
            case Finished():
                self._finished = self._finished or event
            case _:
                pass

    def told(self, index: int) -> Node:
        """The candidate."""
        for part, call, pieces in self._calls.values():
            part.update(shapes.call_part(call.id, call.name, "".join(pieces), call.kind, call.signature))
        node = candidate(self._parts or [{"text": ""}], index, self._finished, self._refused)
        return sourced(node, self._sources, "".join(self._text))

    def _new(self, part: Node, key: tuple[str, int] | None = None) -> Node:
        self._parts.append(part)
        self._key = key
        return part

    def _at(self, kind: str, number: int, skeleton: Node) -> Node:
        return self._parts[-1] if self._key == (kind, number) else self._new(skeleton, (kind, number))


def candidate(parts: list[Node], index: int, finished: Finished | None, refused: str) -> Node:
    """A candidate that has ended; `refused`: words of a refusal, which are no text in this format either."""
    ended = finished or Finished("stop")
    node: Node = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": shapes.FINISH[ended.reason],
        "index": index,
    }
    if refused or ended.detail:
        node["finishMessage"] = refused or ended.detail
    return node


def sourced(node: Node, sources: list[Node], text: str | None) -> Node:
    """The candidate with where its text comes from."""
    if sources:
        node["groundingMetadata"] = shapes.grounding(sources, text)
    return node
