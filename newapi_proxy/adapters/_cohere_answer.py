"""What Cohere's chat answers in version 2, as events: one reader for streams, and for whole answers by the same steps.

Foreign numbers and shapes are never trusted: what has the wrong type is not there. Source: provider-translation B.5
"Streaming in", A.0.3 rule 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from newapi_proxy.adapters._failures import Said, inband, told
from newapi_proxy.adapters._fence import Fence
from newapi_proxy.adapters._tools import as_text, new_id
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
    Cited,
    Ended,
    Event,
    Failed,
    Finish,
    Finished,
    LogProbs,
    Metered,
    ReasoningDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage, clamped, counted

Tree = dict[str, Any]

FAMILY: Final = "cohere"
LONGEST_QUOTE: Final = 150  # characters of a source that a citation repeats
CUT: Final = "The upstream's stream ended before its answer did."
_PLAN: Final = ("plan", 0)
_NOTHING: Final = "null"  # what a call of a tool without parameters may have for arguments
_FINISHES: Final[dict[str, Finish]] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "USER_CANCEL": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_FAULTS: Final = {"ERROR": 500, "TIMEOUT": 504}


class _Call:
    """A tool call on its way. `held`: arguments that may turn out to be none."""

    __slots__ = ("held", "number", "said")

    def __init__(self, number: int) -> None:
        self.number = number
        self.said = False
        self.held = ""


class Reader:
    """One answer's state; `emulated`: JSON was asked for in words, so a fence around it goes."""

    def __init__(self, emulated: bool = False) -> None:
        self._id = ""
        self._blocks: dict[tuple[str, int], int] = {}  # kind and upstream's index → block
        self._begins: dict[int, int] = {}  # text block's index → where it begins in all the text
        self._length = 0
        self._text = 0  # the index of the last text block
        self._calls: dict[int, _Call] = {}
        self._finished = False
        self._fence = Fence() if emulated else None

    def take(self, value: Tree, name: str = "") -> Iterable[Event]:
        """The events of one of upstream's objects, `name` being the frame's; none for what is unknown."""
        if self._finished:
            return ()
        message = _dict(_dict(value.get("delta")).get("message"))
        index = value.get("index") if type(value.get("index")) is int else 0
        assert isinstance(index, int)
        match _word(value.get("type")) or name:
            case "content-delta" | "content-start":
                return (*self._say(index, _dict(message.get("content"))), *weighed([value.get("logprobs")]))
            case "tool-call-delta":
                return self._argue(index, _dict(_dict(message.get("tool_calls")).get("function")).get("arguments"))
            case "tool-plan-delta":
                return self._plan(_word(message.get("tool_plan")))
            case "tool-call-start":
                return self._start(index, _dict(message.get("tool_calls")))
            case "tool-call-end":
                return self._stop(index)
            case "citation-start":
                return self._cite(_dict(message.get("citations")))
            case "message-start":
                self._id = _word(value.get("id"))
                return (Started(self._id or None),)
            case "message-end":
                return self._end(_dict(value.get("delta")))
            case "" | "error" if told(value) is not None:
                self._finished = True
                return (*self._rest(), Failed(inband(told(value) or Said())))
            case _:
                return ()

    def close(self) -> Iterable[Event]:
        """A stream that was cut before its end is a failure, not an answer."""
        if self._finished:
            return ()
        self._finished = True
        return (*self._rest(), Failed(UpstreamFailure(CUT, detail="no message-end")))

    def whole(self, value: Tree) -> Iterator[Event]:
        """A whole answer, told as a stream would have told it."""
        message = _dict(value.get("message"))
        self._id = _word(value.get("id"))
        yield Started(self._id or None)
        yield from self._plan(_word(message.get("tool_plan")))
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for index, part in enumerate(_list(content)):
            yield from self._say(index, part)
        yield from weighed(value.get("logprobs"))
        for index, call in enumerate(_list(message.get("tool_calls"))):
            yield from self._start(index, call)
            yield from self._stop(index)
        for citation in _list(message.get("citations")):
            yield from self._cite(citation)
        yield from self._end(value)

    def _say(self, index: int, content: Tree) -> Iterator[Event]:
        if thinking := _word(content.get("thinking")):
            yield ReasoningDelta(thinking, 0, self._block("thinking", index))
        text = _word(content.get("text"))
        if text and self._fence is not None:
            text = self._fence.feed(text)
        if text:
            yield self._told(index, text)

    def _told(self, index: int, text: str) -> Event:
        self._text = index
        self._begins.setdefault(index, self._length)
        self._length += len(text)
        return TextDelta(text, 0, self._block("text", index))

    def _block(self, kind: str, index: int) -> int:
        return self._blocks.setdefault((kind, index), len(self._blocks))

    # The plan is what the model thinks before it calls; there is no other place for it (B.5).
    def _plan(self, text: str) -> Iterable[Event]:
        return (ReasoningDelta(text, 0, self._block(*_PLAN)),) if text else ()

    def _start(self, index: int, call: Tree) -> Iterator[Event]:
        function = _dict(call.get("function"))
        name = _word(function.get("name"))
        if not name or index in self._calls:
            return
        number = len(self._calls)
        self._calls[index] = _Call(number)
        id = _word(call.get("id")) or new_id(f"{self._id}:{number}:{name}")
        yield CallStarted(number, id, name, 0, self._block("call", index))
        yield from self._argue(index, function.get("arguments"))

    # Pieces are passed as they come, pretty-printed or not; but "null" is told as no arguments.
    def _argue(self, index: int, arguments: Any) -> Iterator[Event]:
        call = self._calls.get(index)
        piece = as_text(arguments)
        if call is None or not piece:
            return
        if not call.said:
            piece = call.held + piece
            call.held = ""
            if _NOTHING.startswith(piece.strip()):
                call.held = piece
                return
        call.said = True
        yield CallDelta(call.number, piece)

    def _stop(self, index: int) -> Iterator[Event]:
        call = self._calls.get(index)
        if call is not None and not call.said:
            call.said = True
            held = call.held.strip()
            yield CallDelta(call.number, "{}" if held in ("", _NOTHING) else call.held)

    # Only citations of the text are told: those of plans and thoughts count in texts that no client has.
    def _cite(self, citation: Tree) -> Iterator[Event]:
        if not citation or _word(citation.get("type")) not in ("", "TEXT_CONTENT"):
            return
        index = citation.get("content_index")
        index = index if type(index) is int and index in self._begins else self._text
        yield from cited(citation, citation.get("sources"), self._begins.get(index, 0), self._block("text", index))

    def _end(self, delta: Tree) -> Iterator[Event]:
        self._finished = True
        usage = usage_of(_dict(delta.get("usage")))
        yield from self._rest()
        if usage is not None:
            yield Metered(usage)
        native = _word(delta.get("finish_reason"))
        error = told(delta) if delta.get("error") else None
        if error is not None or native in _FAULTS:
            yield Failed(fault(native, error))
            return
        yield finish(native, bool(self._calls))
        yield Ended()

    # What still waits at the end: calls whose end was lost, and what may have been a fence.
    def _rest(self) -> list[Event]:
        events = [event for index in self._calls for event in self._stop(index)]
        rest = self._fence.close() if self._fence is not None else ""
        return [*events, self._told(self._text, rest)] if rest else events


def whole(value: Tree, emulated: bool) -> list[Event]:
    """A whole answer's events."""
    return [event for event in Reader(emulated).whole(value) if not isinstance(event, Ended)]


def fault(native: str, error: Said | None) -> UpstreamFailure:
    """The failure of an answer that ends in an error."""
    status = _FAULTS.get(native, 500)
    return inband(Said(message=error.message if error else f"The model ended with {native}.", status=status))


def finish(native: str, called: bool) -> Finished:
    """The finish; one with calls is a finish for their results, whatever its word."""
    reason = _FINISHES.get(native, "stop")
    return Finished("tool_calls" if called and reason == "stop" else reason, native=native or None)


def cited(citation: Tree, sources: Any, begin: int, block: int) -> Iterator[Event]:
    """A citation: with an address one for each of its sources that has one, else verbatim.

    Its places count characters from `begin`, where its text begins in the whole answer.
    """
    start, end = citation.get("start"), citation.get("end")
    found = False
    for source in _list(sources):
        known = next((node for name in ("document", "tool_output") if (node := _dict(source.get(name)))), source)
        url = _word(known.get("url"))
        if url:
            found = True
            title = _word(known.get("title"))
            words = _word(known.get("snippet")) or _word(known.get("text"))
            value: Tree = {"url": url, "title": title, "cited_text": words[:LONGEST_QUOTE]}
            if type(start) is int and type(end) is int and 0 <= start <= end:
                value |= {"start": begin + start, "end": begin + end}
            yield Cited(value, "web", 0, block)
    if not found:
        yield Cited(citation, FAMILY, 0, block)


def weighed(entries: Any) -> list[Event]:
    """Log probabilities: upstream tells pieces of text and one number for each of their tokens; a piece has the sum."""
    found: list[Tree] = []
    for one in _list(entries):
        weights = one.get("logprobs")
        numbers = [it for it in weights if type(it) in (int, float)] if isinstance(weights, list) else []
        text = one.get("text")
        if isinstance(text, str) and numbers:
            place = list(text.encode("utf-8", "replace"))
            found.append({"token": text, "logprob": sum(numbers), "bytes": place, "top_logprobs": []})
    return [LogProbs(tuple(found))] if found else []


def usage_of(usage: Tree) -> Usage | None:
    """`billed_units` is what is charged; `tokens` counts what the API puts around the prompt too. None for no counts.

    More can have been read from the cache than is billed: no part is above its whole.
    """
    billed, all_ = _dict(usage.get("billed_units")), _dict(usage.get("tokens"))
    prompt, completion = counted(billed.get("input_tokens")), counted(billed.get("output_tokens"))
    if prompt is None and completion is None:
        prompt, completion = counted(all_.get("input_tokens")), counted(all_.get("output_tokens"))
    if prompt is None and completion is None:
        return None
    reasoning = counted(all_.get("reasoning_tokens")) or 0
    return clamped(
        Usage(
            prompt=prompt or 0,
            completion=completion or 0,
            cache_read=counted(usage.get("cached_tokens")) or 0,
            reasoning=min(reasoning, completion or 0),
        )
    )


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Tree]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
