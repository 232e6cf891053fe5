"""Converse answers as events: one reader for streams, and for whole answers by way of the same steps.

Foreign numbers and shapes are never trusted: what has the wrong type is not there. Source: provider-translation B.6
"Streaming in", A.0.3.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Final

from newapi_proxy.adapters._anthropic_json import Fence
from newapi_proxy.adapters._anthropic_messages import SIGNED
from newapi_proxy.adapters._bedrock_messages import SEALED
from newapi_proxy.adapters._bedrock_request import FAMILY
from newapi_proxy.adapters._failures import Said, inband, told
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
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage, clamped, counted
from newapi_proxy.wire import tree
from newapi_proxy.wire.eventstream import Message
from newapi_proxy.wire.sse import Frame

Tree = dict[str, Any]

EXCEPTION: Final = ":exception"  # the name of a frame that tells a failure; no event of upstream's is called so
_DAMAGED: Final = "The upstream's stream is damaged."
_FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_overflow",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "refusal",
}
_STATUSES: Final = {
    "validation": 400,
    "accessdenied": 403,
    "expiredtoken": 403,
    "incompletesignature": 403,
    "invalidsignature": 403,
    "missingauthenticationtoken": 403,
    "unrecognizedclient": 403,
    "resourcenotfound": 404,
    "modeltimeout": 408,
    "modelerror": 424,
    "modelstreamerror": 424,
    "modelnotready": 429,
    "servicequotaexceeded": 429,
    "throttling": 429,
    "toomanyrequests": 429,
    "internalserver": 500,
    "serviceunavailable": 503,
}


def status_of(name: str, otherwise: int) -> int:
    """The status that an exception's name means, in either spelling, with a prefix or an address around it."""
    word = name.rpartition("#")[2].partition(":")[0].lower().removesuffix("exception")
    return _STATUSES.get(word, otherwise)


def failed(message: Message) -> tuple[str, int, str]:
    """Name, status and words of a message that tells a failure."""
    if message.kind == "broken":
        return message.note, 502, _DAMAGED
    said = told(tree.lenient(message.payload))
    words = (said.message if said is not None else "") or message.note or "The upstream reported an error."
    return message.name, status_of(message.name, 500), words


def framed(message: Message) -> Frame:
    """A message as the frame that `ConverseReader` reads."""
    if message.kind == "event":
        return Frame(message.raw, message.name, message.payload)
    name, status, words = failed(message)
    return Frame(message.raw, EXCEPTION, tree.encode({"name": name, "status": status, "message": words}))


def whole(value: Any, emulated: bool) -> list[Event]:
    """A whole answer's events. A body that is an error, or no answer at all, yields `Failed`."""
    content = tree.find(value, "output.message.content")
    if not isinstance(content, list):
        said = told(value)
        return [Failed(UpstreamFailure("The upstream's answer cannot be read.") if said is None else inband(said))]
    reader = ConverseReader(emulated)
    events = list(reader.take("messageStart", {}))
    for index, block in enumerate(content):
        if isinstance(block, dict):
            events += reader.block(index, block)
    events += reader.take("messageStop", value)
    events += reader.take("metadata", value)
    return [event for event in events if not isinstance(event, Ended)]


class _Open:
    """A block whose end has not come. `call` is -1 for one that is no call of the client's."""

    __slots__ = ("call", "kind", "said", "signature")

    def __init__(self, kind: str, call: int = -1) -> None:
        self.kind = kind
        self.call = call
        self.said = False
        self.signature = ""


class ConverseReader:
    """One answer's state: its open blocks, and its end, which waits for the usage that comes behind it."""

    def __init__(self, emulated: bool = False) -> None:
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._text = -1  # the block that said the last text
        self._begin = 0  # where its text begins: citations are told by place
        self._length = 0
        self._stop: Finished | None = None
        self._metered = False
        self._finished = False
        self._fence = Fence() if emulated else None

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        value = frame.tree
        if type(value) is not dict:
            return (Skipped(f"an event that is no JSON object: {frame.event[:40]}"),) if frame.data else ()
        return self.take(frame.event, value)

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader. A stream cut before its stop reason is a failure, not an answer."""
        if self._finished:
            return ()
        if self._stop is not None:
            return self._finish(self._stop)
        failure = UpstreamFailure("The upstream's stream ended before its answer did.", detail="no messageStop")
        return (*self._rest(), Failed(failure))

    def take(self, name: str, value: Tree) -> Iterable[Event]:
        """The events of one of upstream's; none for what is unknown."""
        match name:
            case "contentBlockDelta":
                return self._delta(_index(value), _dict(value.get("delta")))
            case "contentBlockStart":
                return self._start(_index(value), _dict(value.get("start")))
            case "contentBlockStop":
                return self._close(_index(value))
            case "messageStart":
                return (Started(),)
            case "messageStop":
                return self._end(value)
            case "metadata":
                return self._meter(value.get("usage"))
            case _ if name == EXCEPTION:
                return (*self._rest(), Failed(_failure(value)))
            case _:
                return ()

    def block(self, index: int, block: Tree) -> Iterator[Event]:
        """A whole block, told as a stream would have told it."""
        call = _dict(block.get("toolUse"))
        if call:
            yield from self._start(index, {"toolUse": call})
            if self._blocks[index].call >= 0:
                self._blocks[index].said = True
                yield CallDelta(self._blocks[index].call, as_text(_dict(call.get("input"))))
        elif "text" in block:
            yield from self._delta(index, {"text": block["text"]})
        elif "reasoningContent" in block:
            thought = _dict(block["reasoningContent"])
            yield from self._delta(index, {"reasoningContent": {**thought, **_dict(thought.get("reasoningText"))}})
        elif "citationsContent" in block:
            cited = _dict(block["citationsContent"])
            for piece in _list(cited.get("content")):
                yield from self._delta(index, {"text": piece.get("text")})
            for one in _list(cited.get("citations")):
                yield from self._delta(index, {"citation": one})
        yield from self._close(index)

    # Only calls are announced; text and thinking begin with their first piece. A server's tool is no call (B.6).
    def _start(self, index: int, start: Tree) -> Iterable[Event]:
        call = _dict(start.get("toolUse"))
        if not call or call.get("type") == "server_tool_use":
            self._blocks[index] = _Open("foreign" if start else "")
            return ()
        opened = self._blocks[index] = _Open("call", self._calls)
        self._calls += 1
        name = _word(call.get("name"))
        id = _word(call.get("toolUseId")) or new_id(f"{name}:{opened.call}", "tooluse_")
        return (CallStarted(opened.call, id, name, 0, index),)

    def _delta(self, index: int, delta: Tree) -> Iterable[Event]:
        text = delta.get("text")
        if type(text) is str:
            return self._said(index, text)
        if "reasoningContent" in delta:
            return self._thought(index, _dict(delta["reasoningContent"]))
        if "citation" in delta:
            return self._cite(index, _dict(delta["citation"]))
        opened = self._blocks.get(index)
        fragment = _dict(delta.get("toolUse")).get("input")
        if opened is None or opened.call < 0 or not fragment:
            return ()
        opened.said = True
        return (CallDelta(opened.call, as_text(fragment)),)

    def _said(self, index: int, text: str) -> Iterable[Event]:
        if self._fence is not None:
            text = self._fence.feed(text)
        if not text:
            return ()
        if index != self._text:
            self._text, self._begin = index, self._length
        self._length += len(text)
        return (TextDelta(text, 0, index),)

    def _thought(self, index: int, thought: Tree) -> Iterable[Event]:
        opened = self._blocks.get(index)
        if opened is None:
            opened = self._blocks[index] = _Open("thought")
        events: list[Event] = []
        if _word(thought.get("text")):
            events.append(ReasoningDelta(_word(thought.get("text")), 0, index))
        opened.signature += _word(thought.get("signature"))
        sealed = _word(thought.get("redactedContent"))
        if sealed:
            events.append(_sealed(sealed, index))
        return events

    # A citation without words of its own belongs to the text before it.
    def _cite(self, index: int, citation: Tree) -> Iterable[Event]:
        web = _dict(_dict(citation.get("location")).get("web"))
        url = _word(web.get("url"))
        if not url:
            return (Cited(citation, FAMILY, 0, index),)
        title = _word(citation.get("title")) or _word(web.get("domain"))
        return (Cited({"url": url, "title": title, "start": self._begin, "end": self._length}, "web", 0, index),)

    # A stop may come for a block that never began.
    def _close(self, index: int) -> list[Event]:
        opened = self._blocks.pop(index, None)
        if opened is None:
            return []
        if opened.signature:
            return [ReasoningSealed(opened.signature, format=SIGNED, block=index)]
        if opened.call >= 0 and not opened.said:
            return [CallDelta(opened.call, "{}")]
        return []

    # The end is told with the usage, which comes behind it; some hosts send it before (T-BEDR-032).
    def _end(self, value: Tree) -> Iterable[Event]:
        if self._stop is not None:
            return ()
        native = _word(value.get("stopReason"))
        extra = _dict(value.get("additionalModelResponseFields"))
        sequence = _word(extra.get("stop_sequence")) or _word(_dict(extra.get("delta")).get("stop_sequence"))
        if native.startswith("malformed_") and not (self._length or self._calls):
            words = "The model's answer was malformed."
            return (*self._rest(), Failed(UpstreamFailure(words, upstream_status=200, detail=native[:40])))
        reason: Finish = _FINISHES.get(native, "tool_calls" if self._calls else "stop")
        self._stop = Finished(reason, 0, sequence or None, native or None)
        return (*self._finish(self._stop), Ended()) if self._metered else ()

    def _meter(self, usage: Any) -> Iterable[Event]:
        found = usage_of(_dict(usage))
        events: list[Event] = [] if found is None else [Metered(found)]
        self._metered = True
        if self._stop is None or self._finished:
            return events
        return [*self._finish(self._stop), *events, Ended()]

    # Blocks still open here lost their stop on the way; what they hold is told before the finish.
    def _finish(self, stop: Finished) -> list[Event]:
        self._finished = True
        events = [event for index in sorted(self._blocks) for event in self._close(index)]
        return [*events, *self._rest(), stop]

    # What the fence held back in case it was its closing line.
    def _rest(self) -> list[Event]:
        rest = self._fence.close() if self._fence is not None else ""
        return [TextDelta(rest, 0, max(self._text, 0))] if rest else []


def usage_of(usage: Tree) -> Usage | None:
    """Converse's usage as ours: `inputTokens` is without what the cache took or gave. None where it holds no count.

    The same values stand under `…TokenCount` again; one of each is read. Source: provider-translation B.6.
    """
    plain, out = counted(usage.get("inputTokens")), counted(usage.get("outputTokens"))
    if plain is None and out is None:
        return None
    read = _either(usage, "cacheReadInputTokens", "cacheReadInputTokenCount") or 0
    written = _either(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    details = [(one.get("ttl"), counted(one.get("inputTokens")) or 0) for one in _list(usage.get("cacheDetails"))]
    hour = sum(size for ttl, size in details if ttl == "1h")
    if written is None:
        written = sum(size for _, size in details)
    hour = min(hour, written)
    tools = _dict(usage.get("serverToolUsage"))
    return clamped(
        Usage(
            prompt=(plain or 0) + read + written,
            completion=out or 0,
            cache_read=read,
            cache_write=written - hour,
            cache_write_1h=hour,
            server_tools={name: number for name in tools if (number := counted(tools[name]))},
        )
    )


def _either(usage: Tree, name: str, other: str) -> int | None:
    value = counted(usage.get(name))
    return counted(usage.get(other)) if value is None else value


# Claude's redacted thinking is a text of Anthropic's, here as bytes; told as that text it goes to any host of Claude.
def _sealed(value: str, index: int) -> ReasoningSealed:
    try:
        text = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if text.isprintable() and text:
        return ReasoningSealed(data=text, format=SIGNED, block=index)
    return ReasoningSealed(data=value, format=SEALED, block=index)


def _failure(value: Tree) -> UpstreamFailure:
    status = value.get("status")
    failure = inband(Said(message=_word(value.get("message")), status=status if type(status) is int else 500))
    failure.detail = _word(value.get("name"))[:80]
    return failure


def _index(value: Tree) -> int:
    index = value.get("contentBlockIndex")
    return index if type(index) is int else 0


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Tree]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
