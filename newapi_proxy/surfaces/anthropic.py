"""The Anthropic Messages surface: POST /v1/messages and /v1/messages/count_tokens. Knows no provider.

Reading stands in `_anthropic_read`, writing in `_anthropic_write`; here is the surface and the passer for upstreams of
the same format, which get and give the client's own bytes. Source: provider-translation A.6, A.0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import CallStarted, Event, Finished
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _anthropic_read as reading
from newapi_proxy.surfaces import _anthropic_write as writing
from newapi_proxy.surfaces._anthropic_whole import message
from newapi_proxy.surfaces.base import EVENT_STREAM, LONGEST_MODEL, Face
from newapi_proxy.wire import sse, tree

HEADERS: Final = ("anthropic-beta", "anthropic-version")
PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
OVERLOADED: Final = 529
_OPEN_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Anthropic:
    """The surface; with `count_only` its requests are only counted."""

    dialect = "anthropic"

    def __init__(self, count_only: bool = False) -> None:
        self._count_only = count_only

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """See surfaces.base.Surface."""
        given = tree.read(body)
        model = reading.word(given, "model", "")
        if not model:
            raise reading.fault("model", "String should have at least 1 character")
        if len(model) > LONGEST_MODEL:
            raise reading.fault("model", f"String should have at most {LONGEST_MODEL} characters")
        choice, parallel = reading.choice(given)
        return Ask(
            dialect=self.dialect,
            model=model,
            tree=given,
            size=len(body),
            stream=reading.flag(given, "stream"),
            usage_wanted=True,
            turns=reading.turns(given),
            tools=reading.tools(given),
            choice=choice,
            controls=reading.controls(given, parallel, self._count_only),
            count_only=self._count_only,
            unknown=reading.unknown(given),
            headers={name: headers[name] for name in HEADERS if name in headers},
        )

    def keepalive(self, ask: Ask) -> bytes:
        """See surfaces.base.Surface."""
        return PING

    def stream_type(self, ask: Ask) -> str:
        """See surfaces.base.Surface."""
        return EVENT_STREAM

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """See surfaces.base.Surface."""
        return message(face, events, usage)

    def same(self, ask: Ask, face: Face, body: tree.Document, usage: Usage) -> bytes:
        """See surfaces.base.Surface."""
        value = body.tree
        if not isinstance(value, dict):
            return body.raw
        edits: dict[str, Any] = {}
        if face.rename:
            edits["model"] = face.model
        if not isinstance(value.get("usage"), dict):
            edits["usage"] = writing.usage_tree(usage)
        return tree.encode({**value, **edits}) if edits else body.raw

    def writer(self, ask: Ask, face: Face) -> writing.StreamWriter:
        """See surfaces.base.Surface."""
        return writing.StreamWriter(face)

    def passer(self, ask: Ask, face: Face) -> StreamPasser:
        """See surfaces.base.Surface."""
        return StreamPasser(face)

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """See surfaces.base.Surface."""
        return tree.encode(writing.error_tree(error, request_id))

    def status(self, error: ProxyError) -> int:
        """See surfaces.base.Surface."""
        return OVERLOADED if error.kind == "overloaded" else error.status

    def count(self, tokens: int) -> bytes:
        """See surfaces.base.Surface."""
        return tree.encode({"input_tokens": tokens})


class StreamPasser:
    """A stream of this format: frames go on as they came; the terminator is kept back until `close`.

    A second message_start (an upstream that began anew) and frames that are no JSON are left out. Usage that upstream
    does not tell stands where this format has it: an estimate at the start, what is billed at the end.
    """

    __slots__ = ("_called", "_delta", "_ended", "_face", "_finished", "_held", "_open", "_started", "_stop")

    def __init__(self, face: Face) -> None:
        self._face = face
        self._started = False
        self._open: int | None = None
        self._called = False
        self._finished: Finished | None = None
        self._delta = False
        self._held: dict[str, Any] | None = None  # a message_delta that tells no usage
        self._stop = b""
        self._ended = False

    def frame(self, frame: sse.Frame, events: Sequence[Event]) -> bytes:
        """See surfaces.base.Passer."""
        value = frame.tree
        if self._ended or self._stop or type(value) is not dict:
            return b""
        kind = value.get("type")
        if kind == "content_block_delta" and frame.event == kind:
            raw = frame.raw
            return raw if raw.endswith(_OPEN_ENDS) else _whole(frame, kind)
        return self._note(kind, value, frame, events) if isinstance(kind, str) else b""

    def close(self, usage: Usage) -> bytes:
        """See surfaces.base.Passer."""
        if self._ended:
            return b""
        self._ended = True
        out = b"" if self._started else writing.message_start(self._face, None)
        if self._open is not None:
            out += writing.named({"type": "content_block_stop", "index": self._open})
        if self._held is not None:
            out += writing.named({**self._held, "usage": writing.usage_tree(usage)})
        elif not self._delta:
            out += writing.message_delta(writing.stopped(self._finished, self._called), usage)
        return out + (self._stop or writing.MESSAGE_STOP)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See surfaces.base.Passer."""
        if self._ended:
            return b""
        self._ended = True
        return writing.named(writing.error_tree(error, request_id))

    # Where the stream stands: `close` makes up what is missing from it.
    def _note(self, kind: str, value: dict[str, Any], frame: sse.Frame, events: Sequence[Event]) -> bytes:
        for event in events:
            if isinstance(event, CallStarted):
                self._called = True
            elif isinstance(event, Finished):
                self._finished = event
        match kind:
            case "message_start":
                return self._start(value, frame)
            case "content_block_start":
                index = value.get("index")
                self._open = index if isinstance(index, int) else None
            case "content_block_stop":
                self._open = None
            case "message_delta":
                self._delta = True
                if not isinstance(value.get("usage"), dict):
                    self._held = value
                    return b""
            case "message_stop":
                self._stop = _whole(frame, kind)
                return b""
            case "error":
                return b""  # told by `fail`
        return _whole(frame, kind)

    def _start(self, value: dict[str, Any], frame: sse.Frame) -> bytes:
        if self._started:
            return b""
        self._started = True
        message = value.get("message")
        if not isinstance(message, dict):
            return _whole(frame, "message_start")
        edits: dict[str, Any] = {"model": self._face.model} if self._face.rename else {}
        if not isinstance(message.get("usage"), dict):
            edits["usage"] = writing.usage_tree(self._face.usage)
        return writing.named({**value, "message": {**message, **edits}}) if edits else _whole(frame, "message_start")


def _whole(frame: sse.Frame, kind: str) -> bytes:
    """The frame's own bytes, with the event's name and the blank line where upstream left them out."""
    raw = frame.raw if frame.raw.endswith(_OPEN_ENDS) else frame.raw.rstrip(b"\r\n") + b"\n\n"
    if frame.event == kind:
        return raw
    if frame.event:
        return sse.encode(tree.encode(frame.tree), kind)
    return b"event: " + kind.encode() + b"\n" + raw


MESSAGES: Final = Anthropic()
COUNT: Final = Anthropic(count_only=True)
