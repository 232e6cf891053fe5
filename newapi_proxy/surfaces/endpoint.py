"""A surface of another kind than chat, as a record of functions: what most of them share stands here as defaults.

Knows OpenAI's error envelope, nothing of what any kind says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces.base import EVENT_STREAM, Face, Passer, Surface, Writer
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.multipart import Form
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document


def failure(error: ProxyError, request_id: str) -> bytes:
    """The error envelope with the request id in its message."""
    return tree.encode(shapes.error_tree(error, request_id))


def status(error: ProxyError) -> int:
    """The error's own status."""
    return error.status


def count(tokens: int) -> bytes:
    """No such endpoint beside these kinds; the bare number under the name their usage has."""
    return tree.encode({"prompt_tokens": tokens})


class Silent:
    """Writer and Passer of a kind that is never streamed: only an error could be said."""

    def __init__(self, ask: Ask, face: Face) -> None:
        """`ask` says whether there is a stream of events, in which an error can be told."""
        self._events = not ask.handed

    def feed(self, event: Event) -> bytes:
        """See Writer."""
        return b""

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """See Passer."""
        return b""

    def close(self, usage: Usage) -> bytes:
        """See Writer and Passer."""
        return b""

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Writer and Passer."""
        return shapes.error_frame(error, request_id) if self._events else b""


class Through:
    """Passer of what is handed on as it comes. In a stream of events an error is told; anything else it breaks off."""

    def __init__(self, ask: Ask, face: Face) -> None:
        """`ask` says whether it is a stream of events."""
        self._events = not ask.handed

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """See Passer."""
        return frame.raw

    def close(self, usage: Usage) -> bytes:
        """See Passer."""
        return b""

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Passer."""
        return shapes.error_frame(error, request_id) if self._events else b""


class EndpointSurface(msgspec.Struct, frozen=True, kw_only=True):
    """See surfaces.base.Surface for what each function is given and gives; a kind that streams names them all.

    `form`: reads a request that comes as a form, for kinds that take files.
    """

    dialect: str
    read: Callable[[bytes, Mapping[str, str]], Ask]
    answer: Callable[[Ask, Face, Iterable[Event], Usage], bytes]
    same: Callable[[Ask, Face, Document, Usage], bytes]
    writer: Callable[[Ask, Face], Writer] = Silent
    passer: Callable[[Ask, Face], Passer] = Silent
    keepalive: Callable[[Ask], bytes] = lambda ask: sse.PING
    stream_type: Callable[[Ask], str] = lambda ask: EVENT_STREAM
    failure: Callable[[ProxyError, str], bytes] = failure
    status: Callable[[ProxyError], int] = status
    count: Callable[[int], bytes] = count
    form: Callable[[Form, Mapping[str, str]], Ask] | None = None


def asked(surface: Surface, body: bytes | Form, headers: Mapping[str, str]) -> Ask:
    """The request, from either form of body. Raises ClientError."""
    if isinstance(body, bytes):
        return surface.read(body, headers)
    assert isinstance(surface, EndpointSurface)
    assert surface.form is not None, "nobody else is given a form"
    return surface.form(body, headers)
