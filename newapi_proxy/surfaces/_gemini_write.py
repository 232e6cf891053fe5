"""Events to a Gemini stream: one response object per piece of content, usage so far on each (provider-translation A.7).

Calls are told whole, since the format has no fragments of them. What ends the answer, the chunk with the finish
reasons and the array's last bracket, is given by `close` alone: by then the charge is committed.
"""

from __future__ import annotations

from typing import Any

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _gemini_shapes as shapes
from newapi_proxy.surfaces._gemini_whole import candidate, sourced
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import tree

Node = dict[str, Any]


class _Call:
    """A call while its arguments come."""

    __slots__ = ("pieces", "started", "told")

    def __init__(self, started: CallStarted) -> None:
        self.started = started
        self.pieces: list[str] = []
        self.told = False

    @property
    def complete(self) -> bool:
        """Whether its arguments are an object already: nothing that follows can add to it."""
        text = "".join(self.pieces).rstrip()
        return text.endswith("}") and type(tree.lenient(text.encode("utf-8", "replace"))) is dict


class _Voice:
    """One candidate of the answer: what it has said, as far as the end needs it."""

    __slots__ = ("calls", "finished", "kept", "refused", "sealed", "sources", "text", "thought")

    def __init__(self) -> None:
        self.calls: dict[int, _Call] = {}
        self.finished: Finished | None = None
        self.text: list[str] | None = []  # None: too long to be kept
        self.kept = 0
        self.refused = ""
        self.sources: list[Node] = []
        self.thought: int | None = None  # block of the last thinking
        self.sealed = True  # whether it has its signature, so that the next block is told apart

    def said(self, text: str) -> None:
        """Keeps visible text: citations count in it."""
        if self.text is not None:
            self.kept += len(text)
            self.text.append(text)
            if self.kept > shapes.MOST_TEXT:
                self.text = None


class Writer:
    """One streamed answer; see surfaces.base.Writer."""

    __slots__ = ("_closed", "_framing", "_id", "_model", "_tail", "_usage", "_voices")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._framing = shapes.Framing(ask)
        self._model = face.model
        self._id = face.id
        self._usage: Usage | None = None
        self._tail = b""
        self._voices: dict[int, _Voice] = {}
        self._closed = False
        self._envelope()

    def _envelope(self) -> None:
        """What stands behind the candidates of every chunk; made again when usage or the id changes."""
        self._tail = b"," + tree.encode(self._around(self._usage))[1:]

    def _around(self, usage: Usage | None) -> Node:
        node: Node = {} if usage is None else {"usageMetadata": shapes.usage_tree(usage)}
        return {**node, "modelVersion": self._model, "responseId": self._id}

    def feed(self, event: Event) -> bytes:
        """The event's bytes; may be empty."""
        if type(event) is TextDelta:
            voice = self._voices.get(event.choice)
            if voice is not None and not voice.calls and voice.finished is None and not self._closed:
                return self._text(voice, event.text, event.choice)
        if isinstance(event, Started):
            if not self._voices and event.id:
                self._id = event.id
                self._envelope()
            return b""
        if isinstance(event, Metered):
            self._usage = event.usage
            self._envelope()
            return b""
        choice: int | None = getattr(event, "choice", None)
        if choice is None or self._closed:
            return b""
        voice = self._voices.setdefault(choice, _Voice())
        return b"" if voice.finished is not None else self._spoken(voice, event, choice)

    def around(self, event: Event) -> tuple[bytes, bytes] | None:
        """See surfaces.base.Continuing."""
        if type(event) is not TextDelta or self._closed or not self._framing.events:
            return None
        voice = self._voices.get(event.choice)
        if voice is None or voice.calls or voice.finished is not None:
            return None
        before, after = self._framed(b"\x00", event.choice).split(b"\x00")
        return before + b'{"text":', b"}" + after

    def more(self, event: Event, text: str) -> None:
        """See surfaces.base.Continuing."""
        if type(event) is TextDelta:
            self._voices[event.choice].said(text)

    def _spoken(self, voice: _Voice, event: Event, choice: int) -> bytes:
        match event:
            case RefusalDelta(text=text):
                voice.refused = (voice.refused + text)[: shapes.MOST_REFUSED]
                return b""
            case TextDelta(text=text):
                return self._flush(voice, choice) + self._text(voice, text, choice)
            case ReasoningDelta():
                return self._flush(voice, choice) + self._thought(voice, event)
            case ReasoningSealed(signature=signature) if signature:
                voice.sealed = True
                seal = {"text": "", "thought": True, "thoughtSignature": shapes.sealed(event.format, signature)}
                return self._part(seal, choice)
            case CallStarted():
                done = self._flush(voice, choice)
                voice.calls[event.call] = _Call(event)
                return done
            case CallDelta(call=call, text=text):
                known = voice.calls.get(call)
                if known is not None and not known.told:
                    known.pieces.append(text)
                return b""
            case Cited(family="web", value=value):
                if len(voice.sources) < shapes.MOST_SOURCES:
                    voice.sources.append(value)
                return b""
            case Block(family=shapes.FAMILY, value=value):
                return self._flush(voice, choice) + self._part(value, choice)
            case Finished():
                voice.finished = event
                return self._flush(voice, choice, last=True)
            case _:
                return b""

    def _text(self, voice: _Voice, text: str, choice: int) -> bytes:
        """A piece of visible text."""
        if not text:
            return b""
        voice.said(text)
        return self._framed(b'{"text":' + tree.encode(text) + b"}", choice)

    def _thought(self, voice: _Voice, event: ReasoningDelta) -> bytes:
        """A piece of thinking; a blank line between two blocks that no signature tells apart (decision 27)."""
        text = event.text
        if not text:
            return b""
        if voice.thought not in (None, event.block) and not voice.sealed:
            text = "\n\n" + text
        voice.thought, voice.sealed = event.block, False
        return self._framed(b'{"text":' + tree.encode(text) + b',"thought":true}', event.choice)

    def _flush(self, voice: _Voice, choice: int, last: bool = False) -> bytes:
        """Tells calls in their order, as far as they are complete; at the end whatever their state."""
        out = b""
        for call in voice.calls.values():
            if call.told:
                continue
            if not (last or call.complete):
                break  # those behind it wait too: clients pair calls with results by their order
            call.told = True
            one, text = call.started, "".join(call.pieces)
            call.pieces.clear()
            out += self._part(shapes.call_part(one.id, one.name, text, one.kind, one.signature), choice)
        return out

    def _part(self, part: Node, choice: int) -> bytes:
        """A part that is a tree."""
        try:
            return self._framed(tree.encode(part), choice)
        except TypeError:  # nested deeper than can be written
            return b""

    def _framed(self, part: bytes, choice: int) -> bytes:
        """A chunk of one part that is JSON already: what stands around it is made once, not for each."""
        head = b'{"candidates":[{"content":{"parts":['
        return self._framing.encoded(head + part + b'],"role":"model"},"index":%d}]' % choice + self._tail)

    def close(self, usage: Usage) -> bytes:
        """Calls that are left, the chunk that ends every candidate, the array's end."""
        if self._closed:
            return b""
        voices = self._voices or {0: _Voice()}
        out = b"".join([self._flush(voice, index, last=True) for index, voice in voices.items()])
        self._closed = True
        ended = []
        for index, voice in sorted(voices.items()):
            text = None if voice.text is None else "".join(voice.text)
            end = candidate([{"text": ""}], index, voice.finished, voice.refused)
            ended.append(sourced(end, voice.sources, text))
        return out + self._framing.element({"candidates": ended, **self._around(usage)}) + self._framing.end()

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return self._framing.element(shapes.error_tree(error, error.status, request_id)) + self._framing.end()
