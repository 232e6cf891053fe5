"""Events to an OpenAI chat stream, in the strict grammar of provider-translation A.1.3.

Text goes through a template made once per choice: prefix, escaped text, suffix. Knows no provider.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    LogProbs,
    Metered,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
    Thought,
)
from newapi_proxy.ir.thinking import Inlined
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, tree

MOST_THOUGHT: Final = 512 * 1024  # characters of a thinking block kept until its signature comes


class _Voice:
    """One choice of the answer: its prepared prefixes and what it has said."""

    __slots__ = (
        "calls",
        "finished",
        "head",
        "kept",
        "last",
        "length",
        "refused",
        "sealed",
        "text_head",
        "thought",
        "thoughts",
    )

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.text_head = head + b'{"content":'
        self.finished = False
        self.refused = False
        self.length = 0  # characters of text so far
        self.calls: dict[int, tuple[int, bytes, bytes]] = {}  # call → our index, the prefix and the end of its deltas
        self.thought: int | None = None  # block of the last reasoning that had text
        self.thoughts: dict[int, list[str]] = {}  # text of blocks that are not sealed yet
        self.last = ""  # thinking text
        self.kept = 0
        self.sealed = 0

    def keep(self, block: int, text: str) -> None:
        """Keeps thinking text for its replay; too much of it is let go."""
        self.last = text
        self.kept += len(text)
        if self.kept <= MOST_THOUGHT:
            self.thoughts.setdefault(block, []).append(text)
        else:
            self.thoughts.clear()


class Writer:
    """One streamed answer; see surfaces.base.Writer."""

    __slots__ = ("_closed", "_created", "_id", "_inlined", "_legacy", "_model", "_tail", "_usage", "_voices")

    def __init__(self, ask: Ask, face: Face) -> None:
        self._model = face.model
        self._id = face.id
        self._created = face.created
        self._legacy = ask.legacy_functions
        self._usage = ask.usage_wanted
        self._tail = b',"finish_reason":null}],"usage":null}\n\n' if self._usage else b',"finish_reason":null}]}\n\n'
        self._inlined = Inlined() if face.thinking_to_content else None
        self._voices: dict[int, _Voice] = {}
        self._closed = False

    def feed(self, event: Event) -> bytes:
        """The event's bytes; may be empty."""
        if self._inlined is not None:
            return b"".join([self._told(one) for one in self._inlined.feed(event)])
        if type(event) is TextDelta:  # nearly every event
            voice = self._voices.get(event.choice)
            text = event.text
            if voice is not None and text and not voice.finished and not self._closed:
                voice.length += len(text)
                return voice.text_head + tree.encode(text) + b"}" + self._tail
        return self._told(event)

    def around(self, event: Event) -> tuple[bytes, bytes] | None:
        """See surfaces.base.Continuing."""
        choice: int | None = getattr(event, "choice", None)
        voice = None if choice is None or self._inlined is not None or self._closed else self._voices.get(choice)
        if voice is None or voice.finished:
            return None
        match event:
            case TextDelta():
                return voice.text_head, b"}" + self._tail
            case ReasoningDelta(block=block) if voice.thought == block:
                return voice.head + b'{"reasoning_content":', b"}" + self._tail
            case CallDelta(call=call) if call in voice.calls:
                _, head, tail = voice.calls[call]
                return head, tail + self._tail
            case _:
                return None

    def more(self, event: Event, text: str) -> None:
        """See surfaces.base.Continuing."""
        if type(event) is TextDelta:
            self._voices[event.choice].length += len(text)
        elif type(event) is ReasoningDelta:
            self._voices[event.choice].keep(event.block, text)

    def _told(self, event: Event) -> bytes:
        if type(event) is Metered:
            return b""
        if isinstance(event, Started):
            if not self._voices:
                self._id = event.id or self._id
                self._created = event.created or self._created
            return b""
        choice: int | None = getattr(event, "choice", None)
        if choice is None or self._closed:
            return b""
        voice, first = self._voice(choice)
        return first if voice.finished else first + self._spoken(voice, event)

    def _voice(self, choice: int) -> tuple[_Voice, bytes]:
        """The choice's voice, and the chunk that opens it where it is new: the role, once."""
        voice = self._voices.get(choice)
        if voice is not None:
            return voice, b""
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        start = b"data: " + tree.encode(head)[:-1]
        voice = self._voices[choice] = _Voice(start + b',"choices":[{"index":%d,"delta":' % choice)
        return voice, self._delta(voice, {"role": "assistant", "content": "", "refusal": None})

    def _delta(self, voice: _Voice, delta: dict[str, Any]) -> bytes:
        return voice.head + tree.encode(delta) + self._tail

    def _spoken(self, voice: _Voice, event: Event) -> bytes:
        match event:
            case TextDelta(text=text):
                voice.length += len(text)
                return self._delta(voice, {"content": text}) if text else b""
            case ReasoningDelta():
                return self._reasoning(voice, event)
            case ReasoningSealed():
                return self._sealed(voice, event)
            case RefusalDelta(text=text):
                voice.refused = voice.refused or bool(text)
                return self._delta(voice, {"refusal": text}) if text else b""
            case CallStarted():
                return self._call(voice, event)
            case CallDelta(call=call, text=text):
                known = voice.calls.get(call)
                return known[1] + tree.encode(text) + known[2] + self._tail if known and text else b""
            case Cited():
                note = shapes.annotation_tree(event, voice.length)
                return self._delta(voice, {"citations": [event.value]} if note is None else {"annotations": [note]})
            case Picture():
                return self._delta(voice, {"images": [shapes.picture_tree(event)]})
            case LogProbs(content=content):
                said = tree.encode({"content": content, "refusal": None})
                return voice.head + b'{},"logprobs":' + said + self._tail
            case Finished():
                return self._finish(voice, event)
            case _:
                return b""

    def _reasoning(self, voice: _Voice, event: ReasoningDelta) -> bytes:
        """A piece of thinking; a blank line between two blocks (decision 27)."""
        text = event.text
        if not text:
            return b""
        gap = shapes.gap(voice.last) if voice.thought is not None and voice.thought != event.block else ""
        voice.keep(event.block, text)
        text = gap + text
        voice.thought = event.block
        return voice.head + b'{"reasoning_content":' + tree.encode(text) + b"}" + self._tail

    def _sealed(self, voice: _Voice, event: ReasoningSealed) -> bytes:
        """A block's signature with the block's whole text, or its redacted payload."""
        pieces = voice.thoughts.pop(event.block, None)
        if not event.data and (not event.signature or (pieces is None and voice.kept > MOST_THOUGHT)):
            return b""
        thought = Thought(event.block, "".join(pieces or ()), event.signature, event.data, event.format)
        voice.sealed += 1
        return self._delta(voice, {"reasoning_details": [shapes.detail_tree(thought, voice.sealed - 1)]})

    def _call(self, voice: _Voice, event: CallStarted) -> bytes:
        index = len(voice.calls)
        if self._legacy:
            if index:
                return b""  # the old format has room for one
            voice.calls[event.call] = (0, voice.head + b'{"function_call":{"arguments":', b"}}")
            return self._delta(voice, {"function_call": {"name": event.name, "arguments": ""}})
        field = b'"custom":{"input":' if event.kind == "custom" else b'"function":{"arguments":'
        head = voice.head + b'{"tool_calls":[{"index":%d,' % index + field
        voice.calls[event.call] = (index, head, b"}}]}")
        call = shapes.call_tree(event.id, event.name, "", event.kind, event.signature)
        return self._delta(voice, {"tool_calls": [{"index": index, **call}]})

    def _finish(self, voice: _Voice, event: Finished) -> bytes:
        out = b""
        if event.reason == "refusal" and not voice.refused:
            out = self._delta(voice, {"refusal": event.detail or shapes.DECLINED})
        voice.finished = True
        word = shapes.finish_word(event.reason, bool(voice.calls), self._legacy)
        tail = b'}],"usage":null}\n\n' if self._usage else b"}]}\n\n"
        return out + voice.head + b'{},"finish_reason":"' + word.encode() + b'"' + tail

    def close(self, usage: Usage) -> bytes:
        """Finishes that are missing, the usage chunk if it was asked for, `[DONE]`."""
        if self._closed:
            return b""
        out = [] if self._voices else [self._voice(0)[1]]
        for voice in self._voices.values():
            if not voice.finished:
                out.append(self._finish(voice, Finished("stop")))
        self._closed = True
        if self._usage:
            chunk = {
                "id": self._id,
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._model,
                "choices": [],
                "usage": shapes.usage_tree(usage),
            }
            out.append(sse.encode(tree.encode(chunk)))
        out.append(sse.DONE)
        return b"".join(out)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return shapes.error_frame(error, request_id)
