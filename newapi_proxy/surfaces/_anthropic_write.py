"""Answers in the Anthropic Messages format, streamed and whole, from events. Knows no provider.

The stream's grammar is strict: blocks never interleave and their indexes are dense. What upstream interleaves waits in
lanes until the block before it is complete. Source: provider-translation A.6, A.0.3.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.errors import Kind, ProxyError
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finish,
    Finished,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces._anthropic_read import CALL, FAMILY, RAW, labelled
from newapi_proxy.surfaces.base import Face, Tree
from newapi_proxy.wire import sse, tree

_STOPS: Final[dict[Finish, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "error": "end_turn",
    "context_overflow": "model_context_window_exceeded",
}
_ERRORS: Final[dict[Kind, str]] = {
    "bad_request": "invalid_request_error",
    "too_large": "request_too_large",
    "unauthorized": "authentication_error",
    "permission": "permission_error",
    "quota": "permission_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "content_policy": "invalid_request_error",
    "upstream_auth": "api_error",
    "timeout": "timeout_error",
    "overloaded": "overloaded_error",
    "upstream": "api_error",
    "internal": "api_error",
}
_DELTA: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s_delta","%s":'
)
_FIELDS: Final = {
    "text": (b"text", b"text"),
    "thinking": (b"thinking", b"thinking"),
    "signature": (b"signature", b"signature"),
    "call": (b"input_json", b"partial_json"),
    "citations": (b"citations", b"citation"),
}
_HOT: Final[dict[str, type[Event]]] = {"text": TextDelta, "thinking": ReasoningDelta, "call": CallDelta}
_END: Final = b"}}\n\n"
MOST_REFUSED: Final = 64 * 1024  # characters of a refusal's words
MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def named(value: Tree) -> bytes:
    """One event whose name is its type."""
    return sse.encode(tree.encode(value), value["type"])


def usage_tree(usage: Usage) -> Tree:
    """Usage as this format counts it: input without what was read from or written to the cache (A.0.3)."""
    written = usage.cache_write + usage.cache_write_1h
    value: Tree = {
        "input_tokens": usage.plain_input,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.completion,
    }
    if written:
        value["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        value["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if usage.server_tools:
        value["server_tool_use"] = dict(usage.server_tools)
    return value


def error_tree(error: ProxyError, request_id: str) -> Tree:
    """The error's body, in a stream and out of it."""
    message = f"{error.message} (request id: {request_id})" if request_id else error.message
    return {"type": "error", "error": {"type": _ERRORS[error.kind], "message": message}, "request_id": request_id}


def message_id(given: str | None, face: Face) -> str:
    """Upstream's id where it is one of this format, else one that follows from the request's."""
    if given and given.startswith("msg_"):
        return given
    return "msg_" + "".join(letter for letter in face.id if letter.isalnum() and letter.isascii())


def message_start(face: Face, id: str | None) -> bytes:
    """The first event; its usage is the local estimate of the prompt."""
    message: Tree = {
        "id": message_id(id, face),
        "type": "message",
        "role": "assistant",
        "model": face.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_tree(face.usage),
    }
    return named({"type": "message_start", "message": message})


def message_delta(stop: Tree, usage: Usage) -> bytes:
    """The last event but one: all of the usage stands in it, input too, so that a client's sum is right."""
    return named({"type": "message_delta", "delta": stop, "usage": usage_tree(usage)})


def stopped(finished: Finished | None, called: bool, refused: str = "") -> Tree:
    """`stop_reason` and what belongs to it; calls present mean tool_use whatever upstream says.

    `refused`: words of a refusal that upstream told beside the text. They are no text here either, since who asked for
    JSON would read them as such: they are the explanation, whatever word the answer ends with.
    """
    reason = "end_turn" if finished is None else _STOPS[finished.reason]
    sequence = finished.stop_sequence if finished else None
    if reason == "end_turn":
        reason = "tool_use" if called else "stop_sequence" if sequence is not None else reason
    value: Tree = {"stop_reason": reason, "stop_sequence": sequence if reason == "stop_sequence" else None}
    detail = finished.detail if finished and reason == "refusal" else None
    if refused or detail:
        value["stop_details"] = {"type": "refusal", "category": None, "explanation": refused or detail}
    return value


def citation(event: Cited) -> Tree | None:
    """A citation in this format's shape; None for what only another provider understands."""
    if event.family == FAMILY:
        return event.value
    if event.family != "web":
        return None
    return {
        "type": "web_search_result_location",
        "url": event.value.get("url"),
        "title": event.value.get("title"),
        "encrypted_index": "",
        "cited_text": event.value.get("cited_text") or "",
    }


def picture(event: Picture) -> Tree:
    """An image of the answer as a block."""
    return {"type": "image", "source": {"type": "base64", "media_type": event.media_type, "data": event.data}}


class _Lane:
    """One content block on its way: open, or held back until the block before it is complete."""

    __slots__ = ("arguments", "done", "held", "index", "kind", "number", "prefix", "skeleton")

    def __init__(self, kind: str, number: int, skeleton: Tree) -> None:
        self.kind = kind
        self.number = number
        self.skeleton = skeleton
        self.index = -1
        self.prefix = b""
        self.held: list[tuple[str, Any]] = []
        self.arguments: list[str] = []
        self.done = False

    @property
    def complete(self) -> bool:
        """Nothing of this block can still come, as far as anyone can tell."""
        return self.kind != "call" or tree.lenient("".join(self.arguments).encode()) is not None

    @property
    def object(self) -> bool:
        """The arguments so far can become an object."""
        return self._first() == "{"

    @property
    def wrapped(self) -> bool:
        """Arguments that cannot be an object: they are wrapped whole, clients parse fragments as one."""
        return self._first() not in ("{", "")

    def _first(self) -> str:
        return next((text.lstrip()[:1] for text in self.arguments if text.strip()), "")

    def start(self, index: int) -> bytes:
        """Opens the block and says what was held back."""
        self.index = index
        self.prefix = self._prefix(self.kind) if self.kind != "whole" else b""
        first = named({"type": "content_block_start", "index": index, "content_block": self.skeleton})
        held, self.held = self.held, []
        return first + b"".join(self.say(kind, value) for kind, value in held)

    def say(self, kind: str, value: Any) -> bytes:
        """One delta; held back while the block is not open."""
        if self.index < 0:
            self.held.append((kind, value))
            return b""
        if kind == "call" and self.wrapped:
            return b""
        return (self.prefix if kind == self.kind else self._prefix(kind)) + tree.encode(value) + _END

    def stop(self) -> bytes:
        """Closes the block."""
        self.done = True
        last = b""
        if self.kind == "call" and self.wrapped:
            last = self.prefix + tree.encode(tree.dumps({RAW: "".join(self.arguments)})) + _END
        return last + named({"type": "content_block_stop", "index": self.index})

    def _prefix(self, kind: str) -> bytes:
        return _DELTA % (self.index, *_FIELDS[kind])


class StreamWriter:
    """A streamed answer. Only the first choice can be told; what others say is left out."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._started = False
        self._ended = False
        self._count = 0
        self._open: _Lane | None = None
        self._waiting: list[_Lane] = []
        self._calls: dict[int, _Lane] = {}
        self._hot: type[Event] | None = None  # the event that continues the open block, with nothing waiting
        self._number = 0  # and the number it has there
        self._finished: Finished | None = None
        self._refused = ""

    def feed(self, event: Event) -> bytes:
        """See surfaces.base.Writer."""
        if type(event) is self._hot:
            hot = self._continued(event)
            if hot is not None:
                return hot
        if isinstance(event, Started):
            return self._begin(event.id)
        if getattr(event, "choice", 1) or self._ended:
            return b""
        said = self._take(event)
        self._heat()
        return self._begin(None) + said if said and not self._started else said

    def close(self, usage: Usage) -> bytes:
        """See surfaces.base.Writer."""
        if self._ended:
            return b""
        self._ended = True
        begun = self._begin(None)
        rest = self._flush()
        stop = stopped(self._finished, bool(self._calls), self._refused)
        return begun + rest + message_delta(stop, usage) + MESSAGE_STOP

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See surfaces.base.Writer."""
        if self._ended:
            return b""
        self._ended = True
        return named(error_tree(error, request_id))

    def _continued(self, event: Event) -> bytes | None:
        """One more delta of the open block, None where the event is of another: the path of nearly every event."""
        lane = self._open
        if lane is None or event.choice:  # type: ignore[union-attr]
            return None
        if type(event) is CallDelta:
            if event.call != self._number:
                return None
            lane.arguments.append(event.text)
        elif event.block != self._number:  # type: ignore[union-attr]
            return None
        text: str = event.text  # type: ignore[union-attr]
        return lane.prefix + tree.encode(text) + _END if text else b""

    def around(self, event: Event) -> tuple[bytes, bytes] | None:
        """See surfaces.base.Continuing."""
        lane = self._open
        if type(event) is not self._hot or lane is None or self._ended or event.choice:  # type: ignore[union-attr]
            return None
        number: int = event.call if type(event) is CallDelta else event.block  # type: ignore[union-attr]
        return (lane.prefix, _END) if number == self._number else None

    def more(self, event: Event, text: str) -> None:
        """See surfaces.base.Continuing."""
        if type(event) is CallDelta and self._open is not None:
            self._open.arguments.append(text)

    def _heat(self) -> None:
        """Notes which event may take the short way."""
        lane = self._open
        self._hot = None
        if lane is None or self._waiting or lane.done:
            return
        self._number = lane.number
        if lane.kind != "call" or lane.object:
            self._hot = _HOT.get(lane.kind)

    def _begin(self, id: str | None) -> bytes:
        """message_start, once."""
        if self._started:
            return b""
        self._started = True
        return message_start(self._face, id)

    def _take(self, event: Event) -> bytes:
        match event:
            case TextDelta(text=text, block=block):
                return self._say("text", block, {"type": "text", "text": ""}, text)
            case RefusalDelta(text=text):
                self._refused = (self._refused + text)[:MOST_REFUSED]
                return b""
            case ReasoningDelta(text=text, block=block):
                return self._say("thinking", block, {"type": "thinking", "thinking": "", "signature": ""}, text)
            case ReasoningSealed():
                return self._seal(event)
            case CallStarted():
                return self._call(event)
            case CallDelta(call=call, text=text):
                return self._arguments(call, text)
            case Cited():
                return self._cite(event)
            case Block(value=value, family=family):
                return self._add(_Lane("whole", 0, value)) if family == FAMILY and "type" in value else b""
            case Picture(block=block):
                return self._add(_Lane("whole", block, picture(event)))
            case Finished():
                self._finished = self._finished or event
                return self._flush()
            case _:
                return b""

    # Blocks: what waits is opened in order of appearance, and only when nothing before it can still grow.

    def _say(self, kind: str, number: int, skeleton: Tree, text: str) -> bytes:
        if not text:
            return b""
        lane = self._last()
        if lane is not None and lane.kind == kind and lane.number == number and not lane.done:
            return lane.say(kind, text)
        lane = _Lane(kind, number, skeleton)
        return self._add(lane) + lane.say(kind, text)

    def _last(self) -> _Lane | None:
        """The block that came last, open or not: what its next words continue."""
        return self._waiting[-1] if self._waiting else self._open

    def _add(self, lane: _Lane) -> bytes:
        """Puts a new block at the end; opens it where nothing stands before it."""
        self._waiting.append(lane)
        return self._advance()

    def _advance(self, last: bool = False) -> bytes:
        """Closes what is complete and opens what waits behind it; with `last` whatever its state."""
        out = b""
        while self._waiting:
            if self._open is not None:
                if not (last or self._open.complete):
                    break
                out += self._open.stop()
            self._open = self._waiting.pop(0)
            out += self._open.start(self._count)
            self._count += 1
        return out

    def _flush(self) -> bytes:
        """Opens and closes all that is left: upstream has nothing more to say."""
        out = self._advance(last=True)
        if self._open is not None:
            out += self._open.stop()
            self._open = None
        return out

    def _seal(self, event: ReasoningSealed) -> bytes:
        """A signature is the last delta of its block; one whose text was left out gets a block of its own."""
        out = b""
        if event.data:
            block = {"type": "redacted_thinking", "data": labelled(event.format, event.data)}
            out = self._add(_Lane("whole", event.block, block))
        if not event.signature:
            return out
        lane = self._last()
        if lane is None or lane.kind != "thinking" or lane.number != event.block or lane.done:
            lane = _Lane("thinking", event.block, {"type": "thinking", "thinking": "", "signature": ""})
            out += self._add(lane)
        out += lane.say("signature", labelled(event.format, event.signature))
        lane.done = True
        return out

    def _call(self, event: CallStarted) -> bytes:
        out = b""
        if event.signature:  # stands before the call, so that a client which replays its thinking replays it
            block = {"type": "thinking", "thinking": "", "signature": labelled(CALL, event.signature)}
            out = self._add(_Lane("whole", event.block, block))
        call: Tree = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        lane = self._calls[event.call] = _Lane("call", event.call, call)
        return out + self._add(lane)

    def _arguments(self, call: int, text: str) -> bytes:
        """Fragments behind a closed call are lost on purpose: its JSON was complete, anything more would break it."""
        lane = self._calls.get(call)
        if lane is None or lane.done or not text:
            return b""
        lane.arguments.append(text)
        out = lane.say("call", text)
        if self._waiting and lane is self._open and text.rstrip().endswith("}"):
            out += self._advance()
        return out

    def _cite(self, event: Cited) -> bytes:
        shown = citation(event)
        lane = self._last()
        if shown is None:
            return b""
        if lane is not None and lane.kind == "text" and (lane.number == event.block or event.family == "web"):
            return lane.say("citations", shown)
        if event.family == "web":
            return b""  # its text is closed already
        lane = _Lane("text", event.block, {"type": "text", "text": "", "citations": []})
        return self._add(lane) + lane.say("citations", shown)
