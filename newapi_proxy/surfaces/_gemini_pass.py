"""Gemini answers to a client of the same format: forwarded as they came, but for a renamed model and what is missing.

The chunk that ends the answer is kept back until the charge is committed, with everything after it. Servers differ in
how they end: some say so on every chunk, so that one which says it is let go when more content follows. Source:
provider-translation A.7, A.0.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, TextDelta
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _gemini_shapes as shapes
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

MOST_CHOICES: Final = 128
MOST_KEPT: Final = 32  # chunks without content behind the one that ended the answer; the rest is left out
_OPEN_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Passer:
    """One streamed answer; see surfaces.base.Passer."""

    __slots__ = ("_closed", "_counted", "_face", "_framing", "_id", "_kept", "_open")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._framing = shapes.Framing(ask)
        self._face = face
        self._id = face.id
        self._kept: list[tuple[Frame, Node]] = []
        self._open: dict[int, bool] = {}  # candidate → whether its end has not come
        self._counted = False
        self._closed = False

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The chunk as the client gets it; b"" for comments, what cannot be read, and what may be the last."""
        node = frame.tree
        if type(node) is not dict or self._closed:
            return b""
        if self._continues(node, events):
            return self._told(frame, node)
        self._counted = self._counted or shapes.counted(node.get("usageMetadata"))
        speaks = self._note(node)
        out = b""
        if self._kept and speaks:
            out = self._let_go()
        if _ends(node) or self._kept:
            if len(self._kept) < MOST_KEPT:
                self._kept.append((frame, node))
            return out
        passed = self._told(frame, node)
        return passed if not out else out + passed

    def steady(self) -> bool:
        """See surfaces.base.Steady."""
        return not self._kept and self._framing.events

    def _continues(self, node: Node, events: Sequence[Event]) -> bool:
        """Whether the chunk says more text of a candidate that is known and open, which nearly every chunk does."""
        if len(events) != 2 or type(events[0]) is not TextDelta or self._kept or not self._counted:
            return False
        candidates = node["candidates"]
        return self._open.get(events[0].choice, False) and len(candidates) == 1 and "finishReason" not in candidates[0]

    def _note(self, node: Node) -> bool:
        """Remembers which candidates are open; says whether the chunk holds content."""
        given = node.get("candidates")
        id_ = node.get("responseId")
        if type(id_) is str and id_:
            self._id = id_
        speaks = False
        for place, candidate in enumerate(given[:MOST_CHOICES] if type(given) is list else ()):
            if type(candidate) is not dict:
                continue
            index = candidate.get("index")
            index = index if type(index) is int and 0 <= index < MOST_CHOICES else place
            speaks = speaks or _speaks(candidate)
            self._open[index] = self._open.get(index, True) and not candidate.get("finishReason")
        return speaks

    def _told(self, frame: Frame, node: Node) -> bytes:
        """The chunk in the client's framing: its own bytes where nothing is different."""
        edited = self._renamed(node)
        if edited is node and self._framing.events and _clean(frame.raw):
            return frame.raw
        return self._framing.element(edited)

    def _renamed(self, node: Node) -> Node:
        if self._face.rename and "modelVersion" in node:
            return {**node, "modelVersion": self._face.model}
        return node

    def _let_go(self) -> bytes:
        """What was kept back, in order."""
        kept, self._kept = self._kept, []
        return b"".join([self._told(frame, node) for frame, node in kept])

    def close(self, usage: Usage) -> bytes:
        """What was kept back, with usage and finishes that upstream left out; the array's end."""
        if self._closed:
            return b""
        self._closed = True
        open_ = [index for index, one in sorted(self._open.items()) if one]
        if not self._open and not self._kept:
            open_ = [0]
        if open_:
            return self._let_go() + self._framing.element(self._ending(open_, usage)) + self._framing.end()
        if self._kept and not self._counted:
            frame, last = self._kept.pop()
            told = last.get("usageMetadata")
            filled = {**(told if type(told) is dict else {}), **shapes.usage_tree(usage)}
            edited = {**self._renamed(last), "usageMetadata": filled}
            return self._let_go() + (self._framing.element(edited) or frame.raw) + self._framing.end()
        return self._let_go() + self._framing.end()

    def _ending(self, open_: list[int], usage: Usage) -> Node:
        """A chunk that ends the candidates which upstream left open."""
        content = {"parts": [{"text": ""}], "role": "model"}
        return {
            "candidates": [{"content": content, "finishReason": "STOP", "index": index} for index in open_],
            "usageMetadata": shapes.usage_tree(usage),
            "modelVersion": self._face.model,
            "responseId": self._id,
        }

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return self._framing.element(shapes.error_tree(error, error.status, request_id)) + self._framing.end()


def filled(face: Face, body: tree.Document, usage: Usage) -> bytes:
    """A whole answer with what upstream left out; the body's own bytes where nothing was missing."""
    node = body.tree
    if type(node) is not dict:
        return body.raw
    edits: Node = {}
    if face.rename and "modelVersion" in node:
        edits["modelVersion"] = face.model
    told = node.get("usageMetadata")
    if not shapes.counted(told) and not usage.empty:
        edits["usageMetadata"] = {**(told if type(told) is dict else {}), **shapes.usage_tree(usage)}
    given = node.get("candidates")
    if type(given) is list and any(type(one) is dict and not one.get("finishReason") for one in given):
        edits["candidates"] = [
            {**one, "finishReason": "STOP"} if type(one) is dict and not one.get("finishReason") else one
            for one in given
        ]
    if not edits:
        return body.raw
    try:
        return tree.encode({**node, **edits})
    except TypeError:  # nested deeper than can be written: as it came
        return body.raw


def _ends(node: Node) -> bool:
    """Whether the chunk ends a candidate, or says that there will be none."""
    given = node.get("candidates")
    if type(given) is list and any(type(one) is dict and one.get("finishReason") for one in given):
        return True
    feedback = node.get("promptFeedback")
    return type(feedback) is dict and bool(feedback.get("blockReason"))


def _speaks(candidate: Node) -> bool:
    """Whether it holds more than an empty text."""
    content = candidate.get("content")
    parts = content.get("parts") if type(content) is dict else None
    for part in parts if type(parts) is list else ():
        if type(part) is dict and any(
            value for name, value in part.items() if name not in ("thoughtSignature", "role")
        ):
            return True
    return False


def _clean(raw: bytes) -> bool:
    """Whether a frame may leave as it came: one data field first, its blank line last, proper UTF-8."""
    if not raw.startswith(b"data:") or not raw.endswith(_OPEN_ENDS):
        return False
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
