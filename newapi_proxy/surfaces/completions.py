"""The legacy completions surface: a prompt in, text out. Knows the format alone (provider-translation A.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _completions_pass as passing
from newapi_proxy.surfaces import _completions_read as reading
from newapi_proxy.surfaces import _completions_write as writing
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces.base import EVENT_STREAM, PATH, Face
from newapi_proxy.wire import sse, tree


class Completions:
    """The surface of `POST /v1/completions` and of the engine's path; see surfaces.base.Surface."""

    __slots__ = ()

    @property
    def dialect(self) -> str:
        """The format's name."""
        return reading.DIALECT

    def keepalive(self, ask: Ask) -> bytes:
        """A comment: the format has no event for it."""
        return sse.PING

    def stream_type(self, ask: Ask) -> str:
        """Server-sent events."""
        return EVENT_STREAM

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """The request; the path's model fills a missing one. Raises ClientError with the path of the fault."""
        return reading.read(body, headers.get(PATH, ""))

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """A whole answer."""
        return writing.whole(face, events, usage)

    def same(self, ask: Ask, face: Face, body: tree.Document, usage: Usage) -> bytes:
        """A whole answer of this format: its own bytes where nothing must be changed."""
        return passing.filled(face, body, usage)

    def writer(self, ask: Ask, face: Face) -> writing.Writer:
        """A fresh writer."""
        return writing.Writer(ask, face)

    def passer(self, ask: Ask, face: Face) -> passing.Passer:
        """A fresh passer."""
        return passing.Passer(ask, face)

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """The error envelope with the request id in its message."""
        return tree.encode(shapes.error_tree(error, request_id))

    def status(self, error: ProxyError) -> int:
        """The error's own status."""
        return error.status

    def count(self, tokens: int) -> bytes:
        """The format has no counting endpoint; the bare number under the name its usage has."""
        return tree.encode({"prompt_tokens": tokens})


COMPLETIONS = Completions()
