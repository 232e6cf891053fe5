"""A Responses answer to a client of the same format: events as they came, the last one held back until the charge.

Untouched is the common case; what is edited (the model's name, a missing usage) is edited as a tree, so that unknown
fields and unknown events live on. Source: provider-translation A.4, decision 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._responses_write import Writer, failure, numbered
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

_LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
MOST_BEHIND: Final = 64  # events kept with the last one
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_SETTLED: Final = ("completed", "incomplete")


class Passer:
    """One streamed answer; see surfaces.base.Passer."""

    __slots__ = ("_ask", "_closed", "_face", "_held", "_number", "_response", "_writer")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._ask = ask
        self._face = face
        self._writer = Writer(ask, face) if face.thinking_to_content else None
        self._response: Node | None = None  # as upstream told it last
        self._held: list[Frame] = []  # the last event, and what still follows it
        self._number = -1
        self._closed = False

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The frame as the client gets it; b"" for comments, `[DONE]`, the last event and what cannot be read."""
        if self._writer is not None:
            return b"".join([self._writer.feed(event) for event in events])
        node = frame.tree
        if type(node) is not dict or self._closed:
            return b""
        number, kind = node.get("sequence_number"), node.get("type")
        if type(number) is int:
            self._number = number
        response = node.get("response")
        if type(response) is dict:
            self._response = response
        if self._held or (type(kind) is str and kind in _LAST):
            return self._hold(frame, kind)
        return self._edited(frame, node)

    def close(self, usage: Usage) -> bytes:
        """The last event, with the usage that upstream left out."""
        if self._closed:
            return b""
        self._closed = True
        if self._writer is not None:
            return self._writer.close(usage)
        if self._held:
            return self._released(usage)
        response = {**self._known(), "status": "completed", "usage": shapes.usage_tree(usage)}
        return numbered({"type": "response.completed", "response": response}, self._number + 1)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The response that failed, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        if self._writer is not None:
            return self._writer.fail(error, request_id)
        if self._response is None:
            return Writer(self._ask, self._face).fail(error, request_id)
        return numbered(failure(self._known(), error, request_id), self._number + 1)

    def _known(self) -> Node:
        """The response as far as upstream has told it, under the client's name of the model."""
        face = self._face
        if self._response is None:
            return shapes.response_tree(self._ask, face, shapes.response_id(None, face), face.created)
        return {**self._response, "model": face.model} if face.rename else self._response

    def _hold(self, frame: Frame, kind: Any) -> bytes:
        """Keeps the last event and what comes behind it, unless another response begins there."""
        before = self._released(None) if kind == "response.created" else b""
        if before:
            return before + self._edited(frame, frame.tree)
        if len(self._held) < MOST_BEHIND:
            self._held.append(frame)
        return b""

    def _released(self, usage: Usage | None) -> bytes:
        held, self._held = self._held, []
        return b"".join([self._last(frame, usage) for frame in held])

    def _last(self, frame: Frame, usage: Usage | None) -> bytes:
        node: Node = frame.tree
        response = node.get("response")
        if usage is not None and type(response) is dict and type(response.get("usage")) is not dict:
            return self._told(
                frame, {**node, "response": {**self._renamed(response), "usage": shapes.usage_tree(usage)}}
            )
        return self._edited(frame, node)

    def _edited(self, frame: Frame, node: Node) -> bytes:
        response = node.get("response")
        if type(response) is dict and self._renamed(response) is not response:
            return self._told(frame, {**node, "response": self._renamed(response)})
        return frame.raw if _clean(frame.raw) else self._told(frame, node)

    def _renamed(self, response: Node) -> Node:
        if self._face.rename and "model" in response:
            return {**response, "model": self._face.model}
        return response

    def _told(self, frame: Frame, node: Node) -> bytes:
        return sse.encode(tree.encode(node), frame.event)


def _clean(raw: bytes) -> bool:
    """Whether a frame may leave as it came: it begins with a field, ends with its blank line, and is proper UTF-8."""
    if not raw.endswith(_ENDS) or not raw.startswith((b"event:", b"data:")):
        return False
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def filled(face: Face, body: tree.Document, usage: Usage) -> bytes:
    """A whole answer: its own bytes, but for the model's name and for the usage of an answer that is complete."""
    node = body.tree
    if type(node) is not dict:
        return body.raw
    edits: Node = {}
    if face.rename and node.get("model") != face.model:
        edits["model"] = face.model
    if type(node.get("usage")) is not dict and node.get("status") in _SETTLED:
        edits["usage"] = shapes.usage_tree(usage)
    return tree.encode({**node, **edits}) if edits else body.raw
