"""What /api/chat answers, as events: one reader for the lines of a stream and for whole answers.

Foreign numbers and shapes are never trusted: what has the wrong type is not there. Source: provider-translation B.4
"Streaming in", A.0.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from newapi_proxy.adapters._failures import Said, inband, told
from newapi_proxy.adapters._tools import as_text, new_id
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
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
from newapi_proxy.ir.usage import Usage, counted
from newapi_proxy.wire import ndjson
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

Tree = dict[str, Any]

_UNREADABLE: Final = "The upstream's answer cannot be read."
_THOUGHT, _TEXT, _CALLS = 0, 1, 2  # blocks
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Reader:
    """One stream's state; see adapters.base.Reader."""

    __slots__ = ("_calls", "_finished", "_started")

    def __init__(self) -> None:
        self._started = False
        self._calls = 0
        self._finished = False

    def read(self, frame: Frame) -> Iterable[Event]:
        """The events of one line. One that is no object fails the stream: what it held is lost for good."""
        value = frame.tree
        if self._finished:
            return ()
        if type(value) is not dict:
            self._finished = True
            failure = UpstreamFailure("The upstream's stream cannot be read.", detail="a line that is no JSON object")
            return (Failed(failure),)
        return self.take(value)

    def close(self) -> Iterable[Event]:
        """A stream that was cut before its last line is a failure, not an answer."""
        if self._finished:
            return ()
        self._finished = True
        return (Failed(UpstreamFailure("The upstream's stream ended before its answer did.", detail="no done line")),)

    def take(self, value: Tree) -> Iterator[Event]:
        """The events of one line's object."""
        if "error" in value:
            self._finished = True
            yield Failed(inband(told(value) or Said(message="The model failed.")))
            return
        if not self._started:
            self._started = True
            yield Started(None, _word(value.get("model")) or None, seconds(value.get("created_at")))
        message = value.get("message")
        if isinstance(message, dict):
            yield from self._say(message, _word(value.get("created_at")))
        else:  # a completed prompt
            yield from self._say({**value, "content": value.get("response")}, "")
        weights = weighed(value.get("logprobs"))
        if weights:
            yield LogProbs(weights)
        if value.get("done") is True:
            self._finished = True
            usage = usage_of(value)
            if usage is not None:
                yield Metered(usage)
            yield self._finish(_word(value.get("done_reason")))
            yield Ended()

    def _say(self, message: Tree, moment: str) -> Iterator[Event]:
        if thinking := _word(message.get("thinking")):
            yield ReasoningDelta(thinking, block=_THOUGHT)
        if text := _word(message.get("content")):
            yield TextDelta(text, block=_TEXT)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and _word(function.get("name")):
                yield from self._call(_word(call.get("id")), function, moment)

    # Calls come whole. Older servers give no ids: the same line always gets the same one.
    def _call(self, id: str, function: Tree, moment: str) -> Iterator[Event]:
        number = self._calls
        self._calls += 1
        name, arguments = function["name"], as_text(function.get("arguments")) or "{}"
        id = id or new_id(f"{moment}:{number}:{name}:{arguments}")
        yield CallStarted(number, id, name, block=_CALLS + number)
        yield CallDelta(number, arguments)

    def _finish(self, native: str) -> Finished:
        reason: Finish = "stop"
        if native == "length":
            reason = "length"
        elif self._calls:
            reason = "tool_calls"
        return Finished(reason, native=native or None)


def whole(body: Document) -> list[Event]:
    """A whole answer's events. One sent as a stream all the same is read too; what is neither yields `Failed`."""
    value = body.tree
    reader = Reader()
    if isinstance(value, dict):
        if not any(name in value for name in ("message", "response", "error")):
            return [Failed(UpstreamFailure(_UNREADABLE))]
        events = list(reader.take({**value, "done": True}))  # there is only one line, and some servers do not say so
    else:
        decoder = ndjson.Decoder()
        frames = [*decoder.feed(body.raw), *decoder.close()]
        if not any(isinstance(frame.tree, dict) for frame in frames):
            return [Failed(UpstreamFailure(_UNREADABLE))]
        events = [event for frame in frames for event in reader.read(frame)] + list(reader.close())
    return [event for event in events if not isinstance(event, Ended)]


def usage_of(value: Tree) -> Usage | None:
    """The counts of the last line. A prompt that was cached whole has none: the record says that it is partial."""
    prompt, completion = counted(value.get("prompt_eval_count")), counted(value.get("eval_count"))
    if prompt is None and completion is None:
        return None
    partial = prompt is None or completion is None
    return Usage(prompt=prompt or 0, completion=completion or 0, source="mixed" if partial else "upstream")


def weighed(entries: Any, deep: bool = True) -> tuple[Tree, ...]:
    """Log probabilities in the shape of `LogProbs`; entries without a token are left out."""
    found: list[Tree] = []
    for one in entries if isinstance(entries, list) else ():
        token = one.get("token") if isinstance(one, dict) else None
        likely = one.get("logprob") if isinstance(one, dict) else None
        if isinstance(token, str) and type(likely) in (int, float):
            node = {"token": token, "logprob": likely, "bytes": list(token.encode("utf-8", "replace"))}
            found.append(node | ({"top_logprobs": list(weighed(one.get("top_logprobs"), False))} if deep else {}))
    return tuple(found)


def seconds(value: Any) -> int | None:
    """RFC 3339 with any fraction as unix seconds; None for what is none."""
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    zone = "+00:00" if found[2] in "Zz" else found[2]
    try:
        moment = int(datetime.fromisoformat(found[1].upper() + zone).timestamp())
    except (ValueError, OverflowError):
        return None
    return moment if moment > 0 else None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
