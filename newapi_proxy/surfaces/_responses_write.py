"""Events to a Responses stream, in the strict grammar of provider-translation A.4.

The last event, which holds the whole response, is the terminator: it comes from `close`, after the charge.
"""

from __future__ import annotations

from typing import Any

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Started
from newapi_proxy.ir.thinking import Inlined
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._responses_compose import Composer
from newapi_proxy.surfaces._responses_output import Piece
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, tree

Node = dict[str, Any]


def whole(ask: Ask, face: Face, started: Started, composer: Composer, usage: Usage) -> Node:
    """The response when all has been said; `composer` is closed."""
    id_, created = shapes.response_id(started.id, face), started.created or face.created
    node = shapes.response_tree(ask, face, id_, created)
    node |= shapes.ended(composer.finished)
    node["output"] = composer.output
    node["usage"] = shapes.usage_tree(usage)
    return node


def failure(response: Node, error: ProxyError, request_id: str) -> Node:
    """The last event of a stream that broke: the response that failed, and the error's envelope as SDKs look for it."""
    failed = {**response, "status": "failed", "error": shapes.failed(error, request_id)}
    return {"type": "response.failed", "response": failed, **_openai_shapes.error_tree(error, request_id)}


def numbered(node: Node, number: int) -> bytes:
    """One event whose name is its type, with its place in the stream."""
    return sse.encode(tree.encode({**node, "sequence_number": number}), node["type"])


class Writer:
    """One streamed answer; see surfaces.base.Writer."""

    __slots__ = ("_ask", "_begun", "_closed", "_composer", "_face", "_inlined", "_number", "_started")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._ask = ask
        self._face = face
        self._composer = Composer(shapes.seed(face))
        self._inlined = Inlined() if face.thinking_to_content else None
        self._started = Started()
        self._begun = False
        self._closed = False
        self._number = 0

    def feed(self, event: Event) -> bytes:
        """The event's bytes; may be empty."""
        if self._inlined is not None:
            return b"".join([self._told(one) for one in self._inlined.feed(event)])
        return self._told(event)

    def _told(self, event: Event) -> bytes:
        if self._closed:
            return b""
        if isinstance(event, Started):
            if not self._begun:
                self._started = event
            return self._begin()
        said = self._composer.take(event)
        if not said:
            return b""
        return self._begin() + self._bytes(said)

    def close(self, usage: Usage) -> bytes:
        """Items that are still open, then the whole response with its usage."""
        if self._closed:
            return b""
        begun = self._begin()
        rest = self._bytes(self._composer.close())
        self._closed = True
        response = whole(self._ask, self._face, self._started, self._composer, usage)
        return begun + rest + self._event({"type": f"response.{response['status']}", "response": response})

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The response that failed, and nothing after it."""
        if self._closed:
            return b""
        begun = self._begin()
        self._closed = True
        return begun + self._event(failure({**self._response(), "output": self._composer.output}, error, request_id))

    def _begin(self) -> bytes:
        """The two events that every stream begins with, once."""
        if self._begun:
            return b""
        self._begun = True
        response = self._response()
        created = self._event({"type": "response.created", "response": response})
        return created + self._event({"type": "response.in_progress", "response": response})

    def _response(self) -> Node:
        id_, created = shapes.response_id(self._started.id, self._face), self._started.created or self._face.created
        return shapes.response_tree(self._ask, self._face, id_, created)

    def _bytes(self, said: list[Piece]) -> bytes:
        if len(said) == 1:
            return self._event(said[0])
        return b"".join([self._event(one) for one in said])

    def _event(self, piece: Piece) -> bytes:
        number = self._number
        self._number += 1
        if type(piece) is tuple:
            return piece[0] + tree.encode(piece[1]) + b',"sequence_number":%d}\n\n' % number
        assert isinstance(piece, dict)
        return numbered(piece, number)
