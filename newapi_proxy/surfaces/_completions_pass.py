"""Legacy completions to a client of the same format: forwarded, and what real servers leave out is filled in.

Unknown fields stay where they are; the usage chunk and `[DONE]` are kept back until the charge is committed. Source:
provider-translation A.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.finish import understood
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

KIND: Final = "text_completion"
MOST_CHOICES: Final = 128 * 2048
ENDS: Final = frozenset({"stop", "length", "content_filter"})
_ENVELOPE: Final = ("id", "object", "created", "model", "system_fingerprint")


class Passer:
    """One streamed answer; see surfaces.base.Passer."""

    __slots__ = ("_closed", "_face", "_id", "_open", "_pending", "_told", "_wanted")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._face = face
        self._wanted = ask.usage_wanted
        self._id = ""
        self._open: dict[int, bool] = {}  # choice → whether its finish has not come
        self._pending: Node | None = None  # the chunk with usage, held until the end: the last one counts
        self._told = False
        self._closed = False

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The frame as the client gets it; b"" for comments, `[DONE]` (close sends it) and what cannot be read."""
        node = frame.tree
        if type(node) is not dict or self._closed:
            return b""
        edits = self._envelope(node)
        listed = node.get("choices")
        given = listed if type(listed) is list else []
        kept = self._choices(given)
        usage = node.get("usage")
        if usage is not None:
            if self._wanted and type(usage) is dict and usage:
                self._pending = node
            edits["usage"] = None
        if not kept:
            return b""
        if len(kept) != len(given) or any(new is not old for new, old in zip(kept, given, strict=True)):
            edits["choices"] = kept
        if not edits:
            return frame.raw if _clean(frame.raw) else self._encoded(node)
        edited = {**node, **edits}
        if not self._wanted and edited.get("usage", 0) is None:
            del edited["usage"]
        return self._encoded(edited)

    def steady(self) -> bool:
        """See surfaces.base.Steady."""
        return self._pending is None

    def _choices(self, given: list[Any]) -> list[Node]:
        """The choices that go on: one that has finished says nothing more."""
        kept: list[Node] = []
        for place, choice in enumerate(given):
            if type(choice) is not dict:
                continue
            edits: Node = {}
            index = choice.get("index")
            if type(index) is not int or not 0 <= index < MOST_CHOICES:
                index = edits["index"] = place
            if not self._open.get(index, True):
                continue
            if type(choice.get("text")) is not str:
                edits["text"] = ""
            finish = choice.get("finish_reason")
            if finish is not None and (type(finish) is not str or finish not in ENDS):
                finish = edits["finish_reason"] = ending(finish)
            self._open[index] = not finish
            kept.append({**choice, **edits} if edits else choice)
        return kept

    def _envelope(self, node: Node) -> Node:
        """What must be different around the choices: id, object, created, model."""
        edits: Node = {}
        id_ = node.get("id")
        if not self._id:
            self._id = id_ if type(id_) is str and id_ else self._face.id
        if id_ != self._id:
            edits["id"] = self._id
        if node.get("object") != KIND:
            edits["object"] = KIND
        if type(node.get("created")) is not int:
            edits["created"] = self._face.created
        model = node.get("model")
        if type(model) is not str or (self._face.rename and model != self._face.model):
            edits["model"] = self._face.model
        return edits

    def _encoded(self, node: Node) -> bytes:
        try:
            return sse.encode(tree.encode(node))
        except TypeError:  # nested deeper than can be written
            return b""

    def close(self, usage: Usage) -> bytes:
        """Finishes and usage that upstream left out, then `[DONE]`."""
        if self._closed:
            return b""
        self._closed = True
        out = []
        for index, one in (self._open or {0: True}).items():
            if one:
                out.append(self._encoded(self._chunk([choice(index, "", "stop")], None)))
        if self._wanted:
            node = self._pending
            told = self._chunk([], shapes.usage_tree(usage))
            if node is not None:
                kept: Node = {name: node[name] for name in _ENVELOPE if name in node}
                told = {**kept, **self._envelope(node), "choices": [], "usage": node["usage"]}
            out.append(self._encoded(told))
        out.append(sse.DONE)
        return b"".join(out)

    def _chunk(self, choices: list[Node], usage: Node | None) -> Node:
        """A chunk of our own; `usage` stands on each where it was asked for."""
        face = self._face
        node: Node = {
            "id": self._id or face.id,
            "object": KIND,
            "created": face.created,
            "model": face.model,
            "choices": choices,
        }
        return {**node, "usage": usage} if self._wanted else node

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return shapes.error_frame(error, request_id)


def choice(index: int, text: str, finish: str | None) -> Node:
    """A choice, whole or a piece of it."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def ending(word: Any) -> str:
    """The format's word for a server's own; it knows no calls."""
    told = shapes.FINISH[understood(word)] if type(word) is str and word else "stop"
    return told if told in ENDS else "stop"


def filled(face: Face, body: tree.Document, usage: Usage) -> bytes:
    """A whole answer with everything its format requires; the body's own bytes where nothing was missing."""
    node = body.tree
    if type(node) is not dict:
        return body.raw
    edits: Node = {}
    if type(node.get("id")) is not str or not node["id"]:
        edits["id"] = face.id
    if node.get("object") != KIND:
        edits["object"] = KIND
    if type(node.get("created")) is not int:
        edits["created"] = face.created
    model = node.get("model")
    if type(model) is not str or (face.rename and model != face.model):
        edits["model"] = face.model
    if type(node.get("usage")) is not dict or not node["usage"]:
        edits["usage"] = shapes.usage_tree(usage)
    given = node.get("choices")
    listed = given if type(given) is list and given else [{}]
    kept = [_filled(one, place) for place, one in enumerate(listed)]
    if listed is not given or any(new is not old for new, old in zip(kept, listed, strict=True)):
        edits["choices"] = kept
    if not edits:
        return body.raw
    try:
        return tree.encode({**node, **edits})
    except TypeError:  # nested deeper than can be written: as it came
        return body.raw


def _filled(value: Any, place: int) -> Node:
    """A choice of a whole answer with its four fields."""
    given: Node = value if type(value) is dict else {}
    edits: Node = {}
    if type(given.get("index")) is not int:
        edits["index"] = place
    if type(given.get("text")) is not str:
        edits["text"] = ""
    if "logprobs" not in given:
        edits["logprobs"] = None
    finish = given.get("finish_reason")
    if type(finish) is not str or finish not in ENDS:
        edits["finish_reason"] = ending(finish)
    return {**given, **edits} if edits or given is not value else given


def _clean(raw: bytes) -> bool:
    """Whether a frame may leave as it came: one data field first, its blank line last, proper UTF-8."""
    if not raw.startswith(b"data:") or not raw.endswith((b"\n\n", b"\n\r\n")):
        return False
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
