"""OpenAI Responses as clients speak it: POST /v1/responses and /v1/responses/input_tokens. Knows no provider.

Reading stands in `_responses_read`, writing in `_responses_write`, handing on in `_responses_pass`; here are the
surface and its whole answers. Source: provider-translation A.4, A.0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Started
from newapi_proxy.ir.thinking import Inlined
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes, _responses_pass, _responses_read
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._responses_compose import Composer
from newapi_proxy.surfaces._responses_write import Writer, whole
from newapi_proxy.surfaces.base import EVENT_STREAM, Face
from newapi_proxy.wire import sse, tree


class OpenAIResponses:
    """The surface; with `count_only` its requests are only counted."""

    __slots__ = ("_count_only",)

    def __init__(self, count_only: bool = False) -> None:
        self._count_only = count_only

    @property
    def dialect(self) -> str:
        """The format's name."""
        return shapes.DIALECT

    def keepalive(self, ask: Ask) -> bytes:
        """A comment: the format has no event for it."""
        return sse.PING

    def stream_type(self, ask: Ask) -> str:
        """Server-sent events."""
        return EVENT_STREAM

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """The request. Raises ClientError with the path of the fault."""
        return _responses_read.read(body, self._count_only)

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """A whole answer: the items that a stream would have had, under the same ids."""
        composer = Composer(shapes.seed(face))
        inlined = Inlined() if face.thinking_to_content else None
        started = Started()
        for event in events:
            if isinstance(event, Started):
                started = event
            for one in (event,) if inlined is None else inlined.feed(event):
                composer.take(one)
        composer.close()
        return tree.encode(whole(ask, face, started, composer, usage))

    def same(self, ask: Ask, face: Face, body: tree.Document, usage: Usage) -> bytes:
        """A whole answer of this format: its own bytes where nothing must be changed."""
        return _responses_pass.filled(face, body, usage)

    def writer(self, ask: Ask, face: Face) -> Writer:
        """A fresh writer."""
        return Writer(ask, face)

    def passer(self, ask: Ask, face: Face) -> _responses_pass.Passer:
        """A fresh passer."""
        return _responses_pass.Passer(ask, face)

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """The error envelope with the request id in its message."""
        return tree.encode(_openai_shapes.error_tree(error, request_id))

    def status(self, error: ProxyError) -> int:
        """The error's own status."""
        return error.status

    def count(self, tokens: int) -> bytes:
        """The answer of the counting endpoint."""
        return tree.encode({"object": "response.input_tokens", "input_tokens": tokens})


RESPONSES: Final = OpenAIResponses()
INPUT_TOKENS: Final = OpenAIResponses(count_only=True)
