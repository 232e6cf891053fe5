"""What Cohere's chat answers in version 1, as events: a stream of objects with `event_type`, and whole answers.

Source: provider-translation B.5, relay-and-billing 10.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from newapi_proxy.adapters._cohere_answer import CUT, cited, fault, finish, usage_of
from newapi_proxy.adapters._failures import Said, inband, told
from newapi_proxy.adapters._fence import Fence
from newapi_proxy.adapters._tools import as_text, new_id
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
    Ended,
    Event,
    Failed,
    Metered,
    ReasoningDelta,
    Started,
    TextDelta,
)

Tree = dict[str, Any]

_PLAN, _TEXT, _CALLS = 0, 1, 2  # blocks
_FAULTS: Final = ("ERROR", "TIMEOUT")


class Reader:
    """One answer's state; `emulated`: JSON was asked for in words, so a fence around it goes."""

    def __init__(self, emulated: bool = False) -> None:
        self._id = ""
        self._started = False
        self._calls = 0
        self._said = False
        self._finished = False
        self._fence = Fence() if emulated else None

    def take(self, value: Tree, name: str = "") -> Iterable[Event]:
        """The events of one of upstream's objects; none for what is unknown."""
        if self._finished:
            return ()
        match _word(value.get("event_type")) or name:
            case "text-generation":
                return self._say(_word(value.get("text")))
            case "stream-start":
                return self._begin(value)
            case "tool-calls-chunk":
                return self._plan(_word(value.get("text")))
            case "tool-calls-generation":
                return self._call(value.get("tool_calls"))
            case "stream-end":
                return self._end(value)
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
        return (*self._rest(), Failed(UpstreamFailure(CUT, detail="no stream-end")))

    def whole(self, value: Tree) -> Iterator[Event]:
        """A whole answer, told as a stream would have told it. Beside calls the text is the plan that led to them."""
        yield from self._begin(value)
        if value.get("tool_calls"):
            yield from self._plan(_word(value.get("text")))
        yield from self._end({"response": value})

    def _begin(self, value: Tree) -> Iterator[Event]:
        if not self._started:
            self._started = True
            self._id = _word(value.get("generation_id"))
            yield Started(_word(value.get("response_id")) or self._id or None)

    def _say(self, text: str) -> Iterator[Event]:
        if text and self._fence is not None:
            text = self._fence.feed(text)
        if text:
            self._said = True
            yield TextDelta(text, block=_TEXT)

    def _plan(self, text: str) -> Iterable[Event]:
        self._said = self._said or bool(text)
        return (ReasoningDelta(text, block=_PLAN),) if text else ()

    # Calls are told when they are whole; this version gives them no ids.
    def _call(self, calls: Any) -> Iterator[Event]:
        for call in calls if isinstance(calls, list) else ():
            name = _word(call.get("name")) if isinstance(call, dict) else ""
            if not name:
                continue
            number = self._calls
            self._calls += 1
            yield CallStarted(number, new_id(f"{self._id}:{number}:{name}"), name, block=_CALLS + number)
            yield CallDelta(number, as_text(call.get("parameters")) or "{}")

    def _end(self, value: Tree) -> Iterator[Event]:
        self._finished = True
        response = _dict(value.get("response"))
        native = _word(value.get("finish_reason")) or _word(response.get("finish_reason"))
        if not self._said:
            yield from self._say(_word(response.get("text")))
        yield from self._rest()
        if not self._calls:
            yield from self._call(response.get("tool_calls"))
        if self._said:
            yield from _citations(response)
        usage = usage_of(_dict(response.get("meta")))
        if usage is not None:
            yield Metered(usage)
        if native in _FAULTS:
            yield Failed(fault(native, told(value) if value.get("error") else None))
            return
        yield finish(native, self._calls > 0)
        yield Ended()

    def _rest(self) -> list[Event]:
        rest = self._fence.close() if self._fence is not None else ""
        self._said = self._said or bool(rest)
        return [TextDelta(rest, block=_TEXT)] if rest else []


def whole(value: Tree, emulated: bool) -> list[Event]:
    """A whole answer's events."""
    return [event for event in Reader(emulated).whole(value) if not isinstance(event, Ended)]


# Citations name documents by id; where those are is only told at the end.
def _citations(response: Tree) -> Iterator[Event]:
    documents = response.get("documents")
    known = {_word(one.get("id")): one for one in _list(documents)}
    for citation in _list(response.get("citations")):
        ids = citation.get("document_ids")
        sources = [known[one] for one in ids if isinstance(one, str) and one in known] if isinstance(ids, list) else []
        yield from cited(citation, sources, 0, _TEXT)


def _dict(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Tree]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
