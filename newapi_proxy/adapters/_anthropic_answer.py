"""Anthropic answers as events: one reader for streams, and for whole answers by way of the same steps.

Shared by every host of this format. Foreign numbers and shapes are never trusted: what has the wrong type is not there.
Source: provider-translation B.1 "Streaming in", A.0.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from newapi_proxy.adapters._anthropic_json import Fence
from newapi_proxy.adapters._anthropic_messages import FAMILY, SIGNED
from newapi_proxy.adapters._failures import inband, told
from newapi_proxy.adapters._tools import as_text, new_id
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Ended,
    Event,
    Failed,
    Finish,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage, clamped, counted
from newapi_proxy.wire import tree
from newapi_proxy.wire.sse import Frame

Tree = dict[str, Any]

_FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_overflow",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause",
    "compaction": "stop",
}
_WEB: Final = "web_search_result_location"


def whole(value: Any, emulated: bool) -> list[Event]:
    """A whole answer's events. A body that is an error, or no answer at all, yields `Failed`."""
    if not isinstance(value, dict) or value.get("type") == "error" or not isinstance(value.get("content"), list):
        said = told(value)
        failure = UpstreamFailure("The upstream's answer cannot be read.") if said is None else inband(said)
        return [Failed(failure)]
    reader = EventReader(emulated)
    events = list(reader.take({"type": "message_start", "message": value}))
    for index, block in enumerate(value["content"]):
        events += reader.take({"type": "content_block_start", "index": index, "content_block": block})
        events += reader.take({"type": "content_block_stop", "index": index})
    delta = {name: value.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
    events += reader.take({"type": "message_delta", "delta": delta})
    events += reader.take({"type": "message_stop"})
    return [event for event in events if not isinstance(event, Ended)]


class _Open:
    """A block whose end has not come."""

    __slots__ = ("begin", "call", "cited", "fragments", "kind", "signature", "value")

    def __init__(self, kind: str, value: Tree, begin: int) -> None:
        self.kind = kind
        self.value = value
        self.begin = begin
        self.call = -1
        self.fragments: list[str] = []
        self.cited: list[Tree] = []
        self.signature = ""


class EventReader:
    """One answer's state: its open blocks, the usage so far."""

    def __init__(self, emulated: bool = False) -> None:
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._length = 0  # of the text so far: web citations are told by place in it
        self._id = ""
        self._model = ""
        self._started = False
        self._usage: Tree = {}
        self._finished = False
        self._ended = False
        self._fence = Fence() if emulated else None

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        value = frame.tree
        if type(value) is not dict:
            if frame.data is None or not frame.data.strip() or frame.done:
                return ()
            return (Skipped("an event that is no JSON object"),)
        if value.get("type") == "content_block_delta" and self._fence is None:
            delta = value.get("delta")
            if type(delta) is dict and delta.get("type") == "text_delta":
                text = delta.get("text")
                if type(text) is str:
                    self._length += len(text)
                    index = value.get("index")
                    return (TextDelta(text, 0, index if type(index) is int else 0),)
        return self.take(value)

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating."""
        return self._fence is None

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating."""
        if type(event) is TextDelta:
            self._length += len(text)

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader. A stream cut before its stop reason and its end is a failure, not an answer."""
        if self._finished:
            return ()
        if not self._ended:
            failure = UpstreamFailure("The upstream's stream ended before its answer did.", detail="no message_delta")
            return (*self._text_rest(), Failed(failure))
        return self._finish({})

    def take(self, value: Tree) -> Iterable[Event]:
        """The events of one of upstream's; none for what is unknown."""
        match value.get("type"):
            case "content_block_delta":
                return self._delta(_index(value), _dict(value.get("delta")))
            case "content_block_start":
                return list(self._start(_index(value), _dict(value.get("content_block"))))
            case "content_block_stop":
                return self._stop(_index(value))
            case "message_start":
                return self._begin(_dict(value.get("message")))
            case "message_delta":
                return self._message_delta(value)
            case "message_stop":
                return self._end()
            case "error":
                said = told(value)
                failure = UpstreamFailure("The upstream reported an error.") if said is None else inband(said)
                return (Failed(failure),)
            case _:
                return ()

    # An upstream that begins anew in one stream (a fallback model) is the same answer: its usage counts, its id not.
    def _begin(self, message: Tree) -> list[Event]:
        events: list[Event] = []
        if not self._started:
            self._started = True
            self._id = _word(message.get("id"))
            self._model = _word(message.get("model"))
            events.append(Started(self._id or None, self._model or None))
        return events + self._meter(message.get("usage"))

    # Each count replaces the one before, none is summed; a field that a delta leaves out keeps its value (A.0.3, 5).
    def _meter(self, usage: Any) -> list[Event]:
        if not isinstance(usage, dict):
            return []
        self._usage.update((name, value) for name, value in usage.items() if value is not None)
        found = usage_of(self._usage, self._model)
        return [] if found is None else [Metered(found)]

    def _start(self, index: int, block: Tree) -> Iterator[Event]:
        kind = _word(block.get("type"))
        opened = self._blocks[index] = _Open(kind, block, self._length)
        match kind:
            case "text":
                cited = block.get("citations")
                for citation in cited if isinstance(cited, list) else ():
                    yield from self._cite(index, opened, citation)
                yield from self._text(index, _word(block.get("text")))
            case "thinking":
                opened.signature = _word(block.get("signature"))
                if _word(block.get("thinking")):
                    yield ReasoningDelta(_word(block.get("thinking")), 0, index)
            case "redacted_thinking":
                yield ReasoningSealed(data=_word(block.get("data")), format=SIGNED, block=index)
            case "tool_use":
                opened.call = self._calls
                self._calls += 1
                id = _word(block.get("id")) or new_id(f"{self._id}:{opened.call}", "toolu_")
                yield CallStarted(opened.call, id, _word(block.get("name")), 0, index)

    # A delta without its block's start is read as text: some hosts leave the start out.
    def _delta(self, index: int, delta: Tree) -> Iterable[Event]:
        opened = self._blocks.get(index)
        if opened is None:
            opened = self._blocks[index] = _Open("text", {"type": "text"}, self._length)
        match delta.get("type"):
            case "text_delta":
                return self._text(index, _word(delta.get("text")))
            case "thinking_delta":
                text = _word(delta.get("thinking"))
                return (ReasoningDelta(text, 0, index),) if text else ()
            case "signature_delta":
                opened.signature = ""
                signature = _word(delta.get("signature"))
                return (ReasoningSealed(signature, format=SIGNED, block=index),) if signature else ()
            case "input_json_delta":
                return self._fragment(opened, _word(delta.get("partial_json")))
            case "citations_delta":
                return self._cite(index, opened, delta.get("citation"))
            case "compaction_delta":
                if isinstance(delta.get("content"), str):
                    opened.value = {**opened.value, "content": delta["content"]}
        return ()

    def _fragment(self, opened: _Open, text: str) -> Iterable[Event]:
        if not text:
            return ()
        if opened.call >= 0:
            opened.fragments = [""]  # only that something was said
            return (CallDelta(opened.call, text),)
        opened.fragments.append(text)
        return ()

    def _text(self, index: int, text: str) -> list[Event]:
        if self._fence is not None:
            text = self._fence.feed(text)
        self._length += len(text)
        return [TextDelta(text, 0, index)] if text else []

    # What the fence held back in case it was its closing line.
    def _text_rest(self) -> list[Event]:
        rest = self._fence.close() if self._fence is not None else ""
        return [TextDelta(rest, 0, max(self._blocks, default=0))] if rest else []

    def _cite(self, index: int, opened: _Open, citation: Any) -> list[Event]:
        if not isinstance(citation, dict):
            return []
        if citation.get("type") == _WEB:
            opened.cited.append(citation)  # told when its text is complete
            return []
        return [Cited(citation, FAMILY, 0, index)]

    # A block's kind goes when it is closed, so that a second stop, or the end of the message, finds nothing to do.
    def _stop(self, index: int) -> list[Event]:
        opened = self._blocks.get(index)
        if opened is None or opened.kind == "":
            return []
        kind, opened.kind = opened.kind, ""
        match kind:
            case "text":
                place = {"start": opened.begin, "end": self._length}
                return [
                    Cited({"url": one.get("url"), "title": one.get("title"), **place}, "web", 0, index)
                    for one in opened.cited
                ]
            case "thinking":
                sealed = opened.signature
                return [ReasoningSealed(sealed, format=SIGNED, block=index)] if sealed else []
            case "tool_use":
                given = opened.value.get("input")
                arguments = as_text(given) if isinstance(given, dict) else "{}"
                return [] if opened.fragments else [CallDelta(opened.call, arguments)]
            case "redacted_thinking":
                return []
        return [Block(self._server_block(opened, kind), FAMILY, 0, index)]

    # Input of a server's tool comes in fragments too; the event carries the block whole.
    def _server_block(self, opened: _Open, kind: str) -> Tree:
        if not opened.fragments:
            return {**opened.value, "type": kind}
        given = tree.lenient("".join(opened.fragments).encode())
        return {**opened.value, "input": given if isinstance(given, dict) else {}}

    def _message_delta(self, value: Tree) -> list[Event]:
        delta = _dict(value.get("delta"))
        events = self._meter(value.get("usage"))
        if _word(delta.get("stop_reason")) and not self._finished:
            events = self._finish(delta) + events
        return events

    # Blocks still open here lost their stop on the way; what they hold is told before the finish.
    def _finish(self, delta: Tree) -> list[Event]:
        events: list[Event] = []
        for index in sorted(self._blocks):
            events += self._stop(index)
        native = _word(delta.get("stop_reason"))
        self._finished = True
        detail = _word(_dict(delta.get("stop_details")).get("explanation"))
        reason: Finish = _FINISHES.get(native, "tool_calls" if self._calls else "stop")
        sequence = _word(delta.get("stop_sequence"))
        finished = Finished(reason, 0, sequence or None, native or None, detail or None)
        return [*events, *self._text_rest(), finished]

    def _end(self) -> list[Event]:
        self._ended = True
        return [*([] if self._finished else self._finish({})), Ended()]


def usage_of(usage: Tree, model: str) -> Usage | None:
    """Anthropic's usage as ours: input joined with the cache's parts, iterations summed or priced apart.

    None where it holds no count. Source: provider-translation A.0.3, rules 1 and 6.
    """
    if counted(usage.get("input_tokens")) is None and counted(usage.get("output_tokens")) is None:
        return None
    top = _counts(usage)
    iterations = usage.get("iterations")
    beside = _beside(iterations, model) if isinstance(iterations, list) else []
    if any(name != model for name, _ in beside):
        others = tuple((name, _usage(counts)) for name, counts in beside)
    else:  # the same model's: one sum, one price
        others = ()
        for _, counts in beside:
            top = {name: top[name] + counts[name] for name in top}
    details = _dict(usage.get("output_tokens_details"))
    tools = _dict(usage.get("server_tool_use"))
    return clamped(
        msgspec.structs.replace(
            _usage(top),
            reasoning=min(counted(details.get("thinking_tokens")) or 0, top["output"]),
            server_tools={name: number for name in tools if (number := counted(tools[name]))},
            others=others,
        )
    )


def _beside(iterations: list[Any], model: str) -> list[tuple[str, dict[str, int]]]:
    """The iterations that top-level usage leaves out, each with its model."""
    entries = [one for one in iterations if isinstance(one, dict)]
    kinds = {one.get("type") for one in entries}
    top = "fallback_message" if "fallback_message" in kinds else "message"
    return [(_word(one.get("model")) or model, _counts(one)) for one in entries if one.get("type") != top]


# Without the split all writes are 5-minute ones; without a sum the split is the sum (T-ANTH-054).
def _counts(usage: Tree) -> dict[str, int]:
    written = counted(usage.get("cache_creation_input_tokens"))
    split = _dict(usage.get("cache_creation"))
    hour = counted(split.get("ephemeral_1h_input_tokens")) or 0
    if written is None:
        written = hour + (counted(split.get("ephemeral_5m_input_tokens")) or 0)
    return {
        "input": counted(usage.get("input_tokens")) or 0,
        "output": counted(usage.get("output_tokens")) or 0,
        "read": counted(usage.get("cache_read_input_tokens")) or 0,
        "written": written,
        "hour": min(hour, written),
    }


def _usage(counts: dict[str, int]) -> Usage:
    return Usage(
        prompt=counts["input"] + counts["read"] + counts["written"],
        completion=counts["output"],
        cache_read=counts["read"],
        cache_write=counts["written"] - counts["hour"],
        cache_write_1h=counts["hour"],
    )


def _index(value: Tree) -> int:
    index = value.get("index")
    return index if type(index) is int else 0


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
