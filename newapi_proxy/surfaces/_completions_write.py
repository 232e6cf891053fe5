"""Events to a legacy completions stream, and to a whole answer of that format (provider-translation A.2).

The format has room for text alone: thinking and calls are left out of it. Knows no provider.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    Alternative,
    Event,
    Finish,
    Finished,
    RefusalDelta,
    Started,
    TextDelta,
    fold,
)
from newapi_proxy.ir.thinking import Inlined
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces._completions_pass import ENDS, KIND, choice
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, texts, tree

Node = dict[str, Any]


def whole(face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer."""
    if face.thinking_to_content:
        inlined = Inlined()
        events = [one for event in events for one in inlined.feed(event)]
    folded = fold(events)
    choices = folded.choices or {0: Alternative()}
    node = {
        "id": folded.started.id or face.id,
        "object": KIND,
        "created": folded.started.created or face.created,
        "model": face.model,
        "choices": [_told(index, one) for index, one in sorted(choices.items())],
        "usage": shapes.usage_tree(usage),
    }
    return tree.encode(node)


def _told(index: int, said: Alternative) -> Node:
    finished = said.finished or Finished("stop")
    return choice(index, said.text + said.refusal, _word(finished.reason))


def _word(reason: Finish) -> str:
    """The format's word; an answer that ended in calls has just stopped here."""
    word = shapes.FINISH[reason]
    return word if word in ENDS else "stop"


class Writer:
    """One streamed answer; see surfaces.base.Writer."""

    __slots__ = ("_closed", "_created", "_finished", "_id", "_inlined", "_model", "_tail", "_usage")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._model = face.model
        self._id = face.id
        self._created = face.created
        self._usage = ask.usage_wanted
        self._tail = b',"usage":null}\n\n' if self._usage else b"}\n\n"
        self._inlined = Inlined() if face.thinking_to_content else None
        self._finished: dict[int, bool] = {}
        self._closed = False

    def feed(self, event: Event) -> bytes:
        """The event's bytes; may be empty."""
        if self._inlined is not None:
            return b"".join([self._told(one) for one in self._inlined.feed(event)])
        return self._told(event)

    def around(self, event: Event) -> tuple[bytes, bytes] | None:
        """See surfaces.base.Continuing."""
        if type(event) is not TextDelta or self._inlined is not None or self._closed:
            return None
        if self._finished.get(event.choice, True):
            return None
        before, after = self._chunk(choice(event.choice, texts.MARK, None)).split(b'"' + texts.MARK.encode() + b'"')
        return before, after

    def more(self, event: Event, text: str) -> None:
        """See surfaces.base.Continuing: nothing is kept of the text."""

    def _told(self, event: Event) -> bytes:
        if isinstance(event, Started):
            if not self._finished:
                self._id = event.id or self._id
                self._created = event.created or self._created
            return b""
        index: int | None = getattr(event, "choice", None)
        if index is None or self._closed or self._finished.setdefault(index, False):
            return b""
        match event:
            case TextDelta(text=text) | RefusalDelta(text=text):
                return self._chunk(choice(index, text, None)) if text else b""
            case Finished(reason=reason):
                self._finished[index] = True
                return self._chunk(choice(index, "", _word(reason)))
            case _:
                return b""

    def _envelope(self) -> Node:
        return {"id": self._id, "object": KIND, "created": self._created, "model": self._model}

    def _chunk(self, told: Node) -> bytes:
        """A chunk of one choice."""
        return b"data: " + tree.encode(self._envelope())[:-1] + b',"choices":[' + tree.encode(told) + b"]" + self._tail

    def close(self, usage: Usage) -> bytes:
        """Finishes that are missing, the usage chunk if it was asked for, `[DONE]`."""
        if self._closed:
            return b""
        self._closed = True
        finished = self._finished or {0: False}
        out = [self._chunk(choice(index, "", "stop")) for index, one in finished.items() if not one]
        if self._usage:
            told = {**self._envelope(), "choices": [], "usage": shapes.usage_tree(usage)}
            out.append(sse.encode(tree.encode(told)))
        out.append(sse.DONE)
        return b"".join(out)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return shapes.error_frame(error, request_id)
