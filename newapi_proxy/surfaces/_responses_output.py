"""Output items of a Responses answer while they grow: each gives the stream's events of its beginning, middle and end.

Knows neither the order of items (`_responses_compose`) nor sequence numbers. Source: provider-translation A.4.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.ir.events import CallStarted, Cited
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.wire import tree

Node = dict[str, Any]
Delta = tuple[bytes, str]
"""A delta event's bytes up to its text, and the text: nearly every event is one."""
Piece = Node | Delta

_DELTAS: Final = {
    "output_text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "summary": "response.reasoning_summary_text.delta",
    "function_call": "response.function_call_arguments.delta",
    "custom_tool_call": "response.custom_tool_call_input.delta",
}


def _head(kind: str, place: Node) -> bytes:
    """A delta's bytes before its text."""
    name = _DELTAS[kind]
    node = {"type": name, **place, **({"logprobs": []} if kind == "output_text" else {})}
    return b"event: " + name.encode() + b"\ndata: " + tree.encode(node)[:-1] + b',"delta":'


class Message:
    """A message item: parts of text and of refusal, each begun when its first words come."""

    __slots__ = (
        *("_beside", "_content", "_fresh", "_head", "_index", "_kind", "_length", "_notes", "_texts", "_weights"),
        *("base", "id"),
    )

    def __init__(self, id_: str, base: int) -> None:
        self.id = id_
        self.base = base  # characters of the answer's text before this message
        self._index = 0
        self._content: list[Node] = []
        self._kind = ""
        self._head = b""
        self._texts: list[str] = []
        self._notes: list[Node] = []
        self._beside: list[Node] = []  # another provider's citations, verbatim
        self._weights: list[Node] = []  # log probabilities of the part's tokens
        self._fresh: list[Node] = []  # those of the tokens that come next
        self._length = 0

    def open(self, index: int) -> list[Piece]:
        """The item begins."""
        self._index = index
        return [_added(index, self._item("in_progress"))]

    def say(self, what: str, value: Any) -> list[Piece]:
        """More text, more refusal, a citation of the text, or the weights of the tokens that come next."""
        if what == "cited":
            return self._cite(value)
        if what == "weights":
            self._fresh += value
            return []
        out = [] if self._kind == what else self._turn(what)
        self._texts.append(value)
        self._length += len(value)
        out.append(self._weighed(value) if self._fresh else (self._head, value))
        return out

    def _weighed(self, text: str) -> Node:
        weights, self._fresh = self._fresh, []
        self._weights += weights
        return {"type": "response.output_text.delta", **self._place(), "delta": text, "logprobs": weights}

    def close(self, status: str) -> list[Piece]:
        """The item ends."""
        return [*self._part_done(), _done(self._index, self._item(status))]

    def _turn(self, kind: str) -> list[Piece]:
        out = self._part_done()
        self._kind = kind
        self._texts, self._notes, self._beside, self._weights, self._length = [], [], [], [], 0
        place = self._place()
        self._head = _head(kind, place)
        out.append({"type": "response.content_part.added", **place, "part": self._part()})
        return out

    def _cite(self, cited: Cited) -> list[Piece]:
        note = shapes.annotation(cited, self.base, self._length)
        if note is None and cited.family == "web":
            return []
        out = [] if self._kind == "output_text" else self._turn("output_text")
        if note is None:
            self._beside.append(cited.value)
            return out
        added = {"annotation_index": len(self._notes), "annotation": note}
        self._notes.append(note)
        out.append({"type": "response.output_text.annotation.added", **self._place(), **added})
        return out

    def _part_done(self) -> list[Piece]:
        if not self._kind:
            return []
        self._weights += self._fresh
        self._fresh = []
        part, place = self._part(), self._place()
        if self._kind == "refusal":
            said: Node = {"type": "response.refusal.done", **place, "refusal": part["refusal"]}
        else:
            said = {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": part["logprobs"]}
        self._content.append(part)
        self._kind = ""
        return [said, {"type": "response.content_part.done", **place, "part": part}]

    def _place(self) -> Node:
        return {"item_id": self.id, "output_index": self._index, "content_index": len(self._content)}

    def _part(self) -> Node:
        text = "".join(self._texts)
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        weights, notes = list(self._weights), list(self._notes)
        part: Node = {"type": "output_text", "annotations": notes, "logprobs": weights, "text": text}
        return {**part, "citations": list(self._beside)} if self._beside else part

    def _item(self, status: str) -> Node:
        content = list(self._content)
        return {"id": self.id, "type": "message", "status": status, "content": content, "role": "assistant"}


class Thought:
    """A reasoning item: its text as one summary part, its signature or payload as `encrypted_content`."""

    __slots__ = ("_head", "_index", "_sealed", "_texts", "id")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self._index = 0
        self._head = b""
        self._texts: list[str] = []
        self._sealed: str | None = None

    def open(self, index: int) -> list[Piece]:
        """The item begins."""
        self._index = index
        return [_added(index, self._item())]

    def say(self, what: str, value: Any) -> list[Piece]:
        """More thinking, or its seal."""
        if what == "sealed":
            self._sealed = value
            return []
        out: list[Piece] = []
        if not self._texts:
            place = self._place()
            self._head = _head("summary", place)
            part = {"type": "summary_text", "text": ""}
            out.append({"type": "response.reasoning_summary_part.added", **place, "part": part})
        self._texts.append(value)
        out.append((self._head, value))
        return out

    def close(self, status: str) -> list[Piece]:
        """The item ends."""
        out: list[Piece] = []
        if self._texts:
            place, part = self._place(), self._summary()[0]
            out = [
                {"type": "response.reasoning_summary_text.done", **place, "text": part["text"]},
                {"type": "response.reasoning_summary_part.done", **place, "part": part},
            ]
        return [*out, _done(self._index, self._item())]

    def _place(self) -> Node:
        return {"item_id": self.id, "output_index": self._index, "summary_index": 0}

    def _summary(self) -> list[Node]:
        return [{"type": "summary_text", "text": "".join(self._texts)}] if self._texts else []

    def _item(self) -> Node:
        node: Node = {"id": self.id, "type": "reasoning", "summary": self._summary()}
        return node if self._sealed is None else {**node, "encrypted_content": self._sealed}


class Calling:
    """A call of a function, or of a free-form tool."""

    __slots__ = ("_call", "_head", "_index", "_kind", "_texts", "id")

    def __init__(self, id_: str, kind: str, call: CallStarted) -> None:
        self.id = id_
        self._kind = kind
        self._call = call
        self._index = 0
        self._head = b""
        self._texts: list[str] = []

    def open(self, index: int) -> list[Piece]:
        """The item begins."""
        self._index = index
        self._head = _head(self._kind, self._place())
        return [_added(index, self._item("in_progress", ""))]

    def say(self, what: str, value: Any) -> list[Piece]:
        """More of the arguments."""
        self._texts.append(value)
        return [(self._head, value)]

    def close(self, status: str) -> list[Piece]:
        """The item ends."""
        text = "".join(self._texts)
        if self._kind == "function_call":
            said: Node = {"type": "response.function_call_arguments.done", **self._place(), "arguments": text}
        else:
            said = {"type": "response.custom_tool_call_input.done", **self._place(), "input": text}
        return [said, _done(self._index, self._item(status, text))]

    def _place(self) -> Node:
        return {"item_id": self.id, "output_index": self._index}

    def _item(self, status: str, text: str) -> Node:
        name = "arguments" if self._kind == "function_call" else "input"
        called = {"call_id": self._call.id, "name": self._call.name, name: text}
        return {"id": self.id, "type": self._kind, "status": status, **called}


class Entire:
    """An item of this format that upstream gave whole."""

    __slots__ = ("_index", "_item")

    def __init__(self, item: Node) -> None:
        self._item = item
        self._index = 0

    def open(self, index: int) -> list[Piece]:
        """The item begins."""
        self._index = index
        return [_added(index, self._item)]

    def say(self, what: str, value: Any) -> list[Piece]:
        """Nothing more is said."""
        return []

    def close(self, status: str) -> list[Piece]:
        """The item ends."""
        return [_done(self._index, self._item)]


def weight(token: Node) -> Node | None:
    """A token's log probability with what this format wants beside it; None for what is none."""
    if not _weighs(token):
        return None
    rivals = token.get("top_logprobs")
    known = [_bytes(one) for one in rivals if _weighs(one)] if type(rivals) is list else []
    return {**_bytes(token), "top_logprobs": known}


def _weighs(token: Any) -> bool:
    return type(token) is dict and type(token.get("token")) is str and type(token.get("logprob")) in (int, float)


def _bytes(token: Node) -> Node:
    if type(token.get("bytes")) is list:
        return token
    return {**token, "bytes": list(token["token"].encode("utf-8", "replace"))}


def _added(index: int, item: Node) -> Node:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def _done(index: int, item: Node) -> Node:
    return {"type": "response.output_item.done", "output_index": index, "item": item}
