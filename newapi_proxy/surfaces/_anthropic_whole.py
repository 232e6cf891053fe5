"""A whole answer in the Anthropic Messages format, from the events a stream would have had. Knows no provider.

Nothing has to wait here: calls are told apart by their number, and blocks stand in the order of their first words.
"""

from __future__ import annotations

from collections.abc import Iterable

from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _anthropic_write as shapes
from newapi_proxy.surfaces._anthropic_read import CALL, FAMILY, RAW, labelled
from newapi_proxy.surfaces.base import Face, Tree
from newapi_proxy.wire import tree


def message(face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer."""
    whole = _Whole()
    for event in events:
        if isinstance(event, Started):
            whole.id = event.id
        elif not getattr(event, "choice", 1):
            whole.take(event)
    return tree.encode(
        {
            "id": shapes.message_id(whole.id, face),
            "type": "message",
            "role": "assistant",
            "model": face.model,
            "content": whole.content(),
            **shapes.stopped(whole.finished, bool(whole.calls), whole.refused),
            "usage": shapes.usage_tree(usage),
        }
    )


class _Whole:
    """The blocks of a whole answer, in order of appearance."""

    __slots__ = ("_blocks", "_key", "calls", "finished", "id", "refused")

    def __init__(self) -> None:
        self.id: str | None = None
        self.finished: Finished | None = None
        self.refused = ""
        self.calls: dict[int, tuple[Tree, list[str]]] = {}
        self._blocks: list[Tree] = []
        self._key: tuple[str, int] | None = None  # what the last block is

    def take(self, event: Event) -> None:
        """Listens to one event of the first choice."""
        match event:
            case TextDelta(text=text, block=block) if text:
                self._at("text", block, {"type": "text", "text": ""})["text"] += text
            case RefusalDelta(text=text):
                self.refused = (self.refused + text)[: shapes.MOST_REFUSED]
            case ReasoningDelta(text=text, block=block) if text:
                self._at("thinking", block, {"type": "thinking", "thinking": "", "signature": ""})["thinking"] += text
            case ReasoningSealed():
                self._seal(event)
            case CallStarted():
                if event.signature:
                    self._new({"type": "thinking", "thinking": "", "signature": labelled(CALL, event.signature)})
                call = self._new({"type": "tool_use", "id": event.id, "name": event.name, "input": {}})
                self.calls[event.call] = (call, [])
            case CallDelta(call=number, text=text) if number in self.calls:
                self.calls[number][1].append(text)
            case Cited():
                self._cite(event)
            case Block(value=value, family=family) if family == FAMILY:
                self._new(value)
            case Picture():
                self._new(shapes.picture(event))
            case Finished():
                self.finished = self.finished or event
            case _:
                pass

    def content(self) -> list[Tree]:
        """The blocks; calls get their arguments as objects."""
        for block, fragments in self.calls.values():
            text = "".join(fragments)
            value = tree.lenient(text.encode()) if text.strip() else {}
            block["input"] = value if isinstance(value, dict) else {RAW: text}
        return self._blocks

    def _new(self, block: Tree, key: tuple[str, int] | None = None) -> Tree:
        self._blocks.append(block)
        self._key = key
        return block

    def _at(self, kind: str, number: int, skeleton: Tree) -> Tree:
        return self._blocks[-1] if self._key == (kind, number) else self._new(skeleton, (kind, number))

    def _seal(self, event: ReasoningSealed) -> None:
        if event.data:
            self._new({"type": "redacted_thinking", "data": labelled(event.format, event.data)})
        if event.signature:
            block = self._at("thinking", event.block, {"type": "thinking", "thinking": "", "signature": ""})
            block["signature"] = labelled(event.format, event.signature)
            self._key = None

    def _cite(self, event: Cited) -> None:
        citation = shapes.citation(event)
        if citation is None:
            return
        if event.family == "web":
            block = next((one for one in reversed(self._blocks) if one["type"] == "text"), None)
        else:
            block = self._at("text", event.block, {"type": "text", "text": ""})
        if block is not None:
            block.setdefault("citations", []).append(citation)
