"""The Gemini surface: generateContent, streamGenerateContent and countTokens. Knows no provider.

The model stands in the path, the form of a stream in the query. Reading stands in `_gemini_read` and `_gemini_parts`,
writing in `_gemini_write` and `_gemini_whole`, forwarding in `_gemini_pass`. Source: provider-translation A.7, A.0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal
from urllib.parse import parse_qsl

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _gemini_parts as parts
from newapi_proxy.surfaces import _gemini_pass as passing
from newapi_proxy.surfaces import _gemini_read as reading
from newapi_proxy.surfaces import _gemini_shapes as shapes
from newapi_proxy.surfaces import _gemini_whole as whole
from newapi_proxy.surfaces._gemini_fields import model_in, object_in
from newapi_proxy.surfaces._gemini_write import Writer
from newapi_proxy.surfaces.base import EVENT_STREAM, QUERY, Face
from newapi_proxy.wire import tree

DIALECT: Final = "gemini"
ARRAY: Final = "application/json; charset=UTF-8"
IDLE_EVENTS: Final = b"\r\n\r\n"
IDLE_ARRAY: Final = b"\n"
_NESTED: Final = "generateContentRequest"
_MOST_FIELDS: Final = 100

Method = Literal["generate", "stream", "count"]


class Gemini:
    """The surface of one method; see surfaces.base.Surface."""

    __slots__ = ("_method",)

    def __init__(self, method: Method) -> None:
        self._method = method

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """The request; what is counted may stand in `generateContentRequest`. Raises ClientError with the path."""
        model = model_in(headers)
        sent = tree.read(body)
        given, root = sent, ""
        if self._method == "count" and (nested := object_in(sent, _NESTED, "")) is not None:
            given, root = nested, _NESTED
        offered = reading.tools(given, root)
        return Ask(
            dialect=DIALECT,
            model=model,
            tree=sent,
            size=len(body),
            stream=self._method == "stream",
            usage_wanted=True,
            turns=parts.turns(given, root),
            tools=offered,
            choice=reading.choice(given, root, offered),
            controls=reading.controls(given, root),
            count_only=self._method == "count",
            own=reading.own(given, root),
            unknown=reading.unknown(given, root),
            headers={shapes.ALT: _alt(headers.get(QUERY, ""))},
        )

    def keepalive(self, ask: Ask) -> bytes:
        """Blank lines: legal between events and between elements. Google's own SDKs take a comment for broken JSON."""
        return IDLE_EVENTS if ask.headers.get(shapes.ALT) == "sse" else IDLE_ARRAY

    def stream_type(self, ask: Ask) -> str:
        """Server-sent events where they were asked for, else one JSON document."""
        return EVENT_STREAM if ask.headers.get(shapes.ALT) == "sse" else ARRAY

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """A whole answer."""
        return whole.answer(face, events, usage)

    def same(self, ask: Ask, face: Face, body: tree.Document, usage: Usage) -> bytes:
        """A whole answer of this format: its own bytes where nothing must be changed."""
        return passing.filled(face, body, usage)

    def writer(self, ask: Ask, face: Face) -> Writer:
        """A fresh writer."""
        return Writer(ask, face)

    def passer(self, ask: Ask, face: Face) -> passing.Passer:
        """A fresh passer."""
        return passing.Passer(ask, face)

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """The error object with the request id in its message."""
        return tree.encode(shapes.error_tree(error, self.status(error), request_id))

    def status(self, error: ProxyError) -> int:
        """The error's own status."""
        return error.status

    def count(self, tokens: int) -> bytes:
        """The answer of countTokens."""
        return tree.encode({"totalTokens": tokens})


def _alt(query: str) -> str:
    """How the answer is to be framed: `alt` or `$alt` of the query, "" where it says nothing."""
    if "alt" not in query:
        return ""
    try:
        fields = parse_qsl(query, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return ""
    return next((value.lower() for name, value in fields if name in ("alt", "$alt")), "")


GENERATE: Final = Gemini("generate")
STREAM: Final = Gemini("stream")
COUNT: Final = Gemini("count")
