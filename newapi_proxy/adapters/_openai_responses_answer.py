"""Answers of the Responses format into events: streams, and whole ones by way of the same steps.

Tolerant by rule: deltas that never came are told from the finished items, items that never came from the whole
response. Foreign shapes are never trusted: what has the wrong type is not there. Source: provider-translation A.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_responses_build import DIALECT, OWN
from newapi_proxy.adapters._openai_usage import read_usage
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
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.wire import tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

MOST_ITEMS: Final = 4096  # items of one answer
SEARCHES: Final = "web_search_requests"  # what a search is called in usage
_ENDED: Final = (Ended(),)
_CUT: Final[dict[str, Finish]] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}


class _Item:
    """One output item while it comes in: what of it has been told."""

    __slots__ = ("arguments", "call", "done", "part", "sealed", "spoken", "thought")

    def __init__(self) -> None:
        self.call = -1
        self.spoken = False  # text, refusal or thinking has come in pieces
        self.arguments = False
        self.done = False
        self.sealed = False
        self.thought = ""  # what its thinking is told from: summary or text
        self.part = 0


class Reader:
    """One answer's state; see adapters.base.Reader."""

    __slots__ = ("_calls", "_id", "_items", "_over", "_searches")

    def __init__(self) -> None:
        self._id = ""
        self._items: dict[int, _Item] = {}
        self._calls = 0
        self._searches = 0
        self._over = False

    def read(self, frame: Frame) -> Sequence[Event]:
        """The events of one frame."""
        if frame.data is None:
            return ()
        node = frame.tree
        if type(node) is dict:
            if node.get("type") == "response.output_text.delta" and not self._over:
                text, index = node.get("delta"), node.get("output_index")
                if type(text) is str and type(index) is int and index in self._items:
                    self._items[index].spoken = True
                    return (TextDelta(text, 0, index),) if text else ()
            return self.told(node, frame.event)
        if frame.done:
            return _ENDED
        return (Skipped("not a JSON object"),) if frame.data.strip() else ()

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating."""
        return not self._over

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating: the state knows that something was said, not what."""

    def told(self, node: Node, name: str = "") -> list[Event]:
        """The events of one of upstream's; `name` is the frame's event name."""
        kind = node.get("type")
        if kind == "error" or name == "error" or (kind is None and node.get("error")):
            over, self._over = self._over, True
            return [] if over else [Failed(_failures.inband(_said(node)))]
        if type(kind) is not str:
            return []
        response = node.get("response")
        if type(response) is dict and kind in _LIFE:
            return _LIFE[kind](self, response)
        handle = _PIECES.get(kind)
        index = node.get("output_index")
        if handle is None or self._over or type(index) is not int or not 0 <= index < MOST_ITEMS:
            return []
        return handle(self, self._items.setdefault(index, _Item()), index, node)

    def whole(self, response: Node) -> list[Event]:
        """The events of a whole answer."""
        ending = self._failed if response.get("status") == "failed" or response.get("error") else self._ended
        return [*self._begun(response), *ending(response)]

    def close(self) -> list[Event]:
        """A stream that was cut before its last event is a failure, not an answer."""
        if self._over:
            return []
        failure = UpstreamFailure("The upstream's stream ended before its answer did.", detail="no response.completed")
        return [Failed(failure)]

    def _begun(self, response: Node) -> list[Event]:
        id_, model, created = response.get("id"), response.get("model"), response.get("created_at")
        if self._id or type(id_) is not str or not id_:
            return []
        self._id = id_
        seconds = int(created) if isinstance(created, int | float) and 0 <= created < 1 << 40 else None
        return [Started(id_, model if type(model) is str else None, seconds)]

    def _ended(self, response: Node) -> list[Event]:
        """The last word: what has not been told yet, usage, the finish. A second one adds its usage alone."""
        out = [] if self._over else self._rest(response)
        usage = read_usage(response.get("usage"))
        if usage is not None:
            if self._searches:
                usage = msgspec.structs.replace(usage, server_tools={SEARCHES: self._searches, **usage.server_tools})
            out.append(Metered(usage))
        if not self._over:
            self._over = True
            out.append(self._finish(response))
        return out

    def _failed(self, response: Node) -> list[Event]:
        usage = read_usage(response.get("usage"))
        out: list[Event] = [] if usage is None else [Metered(usage)]
        if not self._over:
            self._over = True
            out.append(Failed(_failures.inband(_said(response))))
        return out

    def _finish(self, response: Node) -> Finished:
        status = response.get("status")
        details = response.get("incomplete_details")
        reason = details.get("reason") if type(details) is dict else None
        if status == "incomplete" or type(reason) is str:
            word = reason if type(reason) is str else "incomplete"
            return Finished(_CUT.get(word, "length"), native=word)
        return Finished("tool_calls" if self._calls else "stop", native=status if type(status) is str else None)

    def _rest(self, response: Node) -> list[Event]:
        items = response.get("output")
        out: list[Event] = []
        if type(items) is list:
            for index, item in enumerate(items[:MOST_ITEMS]):
                out += self._item_done(self._items.setdefault(index, _Item()), index, {"item": item})
        return out

    def _item_added(self, item: _Item, index: int, node: Node) -> list[Event]:
        given = node.get("item")
        return self._start(item, index, given) if type(given) is dict and _kind(given) in _CALLS else []

    def _start(self, item: _Item, index: int, given: Node) -> list[Event]:
        """A call begins, once; a name is needed for that."""
        name, id_ = given.get("name"), given.get("call_id")
        if item.call >= 0 or type(name) is not str or not name:
            return []
        item.call = self._calls
        self._calls += 1
        call_id = id_ if type(id_) is str and id_ else new_id(f"{self._id}:{item.call}")
        kind: Any = "custom" if given.get("type") == "custom_tool_call" else "function"
        return [CallStarted(item.call, call_id, name, 0, index, kind)]

    def _item_done(self, item: _Item, index: int, node: Node) -> list[Event]:
        given = node.get("item")
        if type(given) is not dict or item.done:
            return []
        item.done = True
        kind = _kind(given)
        if kind in _CALLS:
            out = self._start(item, index, given)
            return out + self._arguments(item, given.get(_CALLS[kind]), kind)
        if kind == "message":
            return [] if item.spoken else self._message(index, given)
        if kind == "reasoning":
            return self._thought(item, index, given)
        self._searches += kind == "web_search_call"
        return [Block(given, DIALECT, 0, index)] if kind else []

    def _message(self, index: int, given: Node) -> list[Event]:
        """A message that did not come in pieces."""
        out: list[Event] = []
        content = given.get("content")
        for part in content if type(content) is list else ():
            if type(part) is not dict:
                continue
            text, refusal, notes = part.get("text"), part.get("refusal"), part.get("annotations")
            if type(text) is str and text:
                out.append(TextDelta(text, 0, index))
            if type(refusal) is str and refusal:
                out.append(RefusalDelta(refusal))
            for note in notes if type(notes) is list else ():
                out += _cited(note, index)
        return out

    def _thought(self, item: _Item, index: int, given: Node) -> list[Event]:
        out: list[Event] = []
        if not item.spoken:
            texts = _texts(given.get("summary")) or _texts(given.get("content"))
            out = [ReasoningDelta("\n\n".join(texts), 0, index)] if texts else []
        data = given.get("encrypted_content")
        if type(data) is str and data and not item.sealed:
            item.sealed = True
            out.append(ReasoningSealed(None, data, OWN, 0, index))
        return out

    def _arguments(self, item: _Item, given: Any, kind: Any) -> list[Event]:
        """The arguments of a call whose fragments have not come: an empty object for none."""
        if item.call < 0 or item.arguments:
            return []
        item.arguments = True
        text = as_text(given) or ("{}" if kind == "function_call" else "")
        return [CallDelta(item.call, text)] if text else []

    def _text(self, item: _Item, index: int, node: Node) -> list[Event]:
        text = node.get("delta")
        if type(text) is not str or not text:
            return []
        item.spoken = True
        return [TextDelta(text, 0, index)]

    def _refusal(self, item: _Item, index: int, node: Node) -> list[Event]:
        text = node.get("delta")
        if type(text) is not str or not text:
            return []
        item.spoken = True
        return [RefusalDelta(text)]

    def _thinking(self, item: _Item, index: int, node: Node) -> list[Event]:
        """A piece of thinking; a blank line between two summaries. Where both are told, the first kind is taken."""
        text, kind = node.get("delta"), node["type"]
        if type(text) is not str or not text or (item.thought or kind) != kind:
            return []
        part = node.get("summary_index", node.get("content_index"))
        part = part if type(part) is int else 0
        if item.thought and part != item.part:
            text = "\n\n" + text
        item.thought, item.part, item.spoken = kind, part, True
        return [ReasoningDelta(text, 0, index)]

    def _fragment(self, item: _Item, index: int, node: Node) -> list[Event]:
        text = node.get("delta")
        if item.call < 0 or item.done or type(text) is not str or not text:
            return []
        item.arguments = True
        return [CallDelta(item.call, text)]

    def _fragments_done(self, item: _Item, index: int, node: Node) -> list[Event]:
        kind = "function_call" if "arguments" in node else "custom_tool_call"
        return self._arguments(item, node.get(_CALLS[kind]), kind)

    def _annotated(self, item: _Item, index: int, node: Node) -> list[Event]:
        return _cited(node.get("annotation"), index)


def read_answer(body: tree.Document) -> list[Event]:
    """The events of a whole answer's body; `Failed` for an error in it and for what is no answer at all."""
    node = body.tree
    if type(node) is list and node:
        node = node[0]
    if type(node) is not dict:
        said = f"{len(body.raw)} bytes that are no JSON object"  # not the bytes: they may be an answer's text
        return [Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502, detail=said))]
    if type(node.get("output")) is not list and node.get("status") != "failed":
        told = _failures.told(node) or _failures.Said(message="The provider's answer holds no output.")
        return [Failed(_failures.inband(told))]
    return Reader().whole(node)


def _said(node: Node) -> _failures.Said:
    """What an error event or a failed response says: an object under `error`, or the words themselves."""
    return _failures.told(node) or _failures.Said(message="The provider reports an error.")


def _kind(item: Node) -> str:
    kind = item.get("type")
    return kind if type(kind) is str else ""


def _texts(value: Any) -> list[str]:
    pieces = value if type(value) is list else ()
    return [one["text"] for one in pieces if type(one) is dict and type(one.get("text")) is str and one["text"]]


def _cited(note: Any, index: int) -> list[Event]:
    if type(note) is not dict:
        return []
    if note.get("type") != "url_citation" or type(note.get("url")) is not str:
        return [Cited(note, DIALECT, 0, index)]
    place = {"start": note.get("start_index"), "end": note.get("end_index")}
    return [Cited({"url": note["url"], "title": note.get("title"), **place}, "web", 0, index)]


_LIFE: Final[dict[str, Callable[[Reader, Node], list[Event]]]] = {
    "response.created": Reader._begun,
    "response.queued": Reader._begun,
    "response.in_progress": Reader._begun,
    "response.completed": Reader._ended,
    "response.incomplete": Reader._ended,
    "response.cancelled": Reader._ended,
    "response.failed": Reader._failed,
}
_PIECES: Final[dict[str, Callable[[Reader, _Item, int, Node], list[Event]]]] = {
    "response.output_item.added": Reader._item_added,
    "response.output_item.done": Reader._item_done,
    "response.output_text.delta": Reader._text,
    "response.refusal.delta": Reader._refusal,
    "response.reasoning_summary_text.delta": Reader._thinking,
    "response.reasoning_text.delta": Reader._thinking,
    "response.function_call_arguments.delta": Reader._fragment,
    "response.function_call_arguments.done": Reader._fragments_done,
    "response.custom_tool_call_input.delta": Reader._fragment,
    "response.custom_tool_call_input.done": Reader._fragments_done,
    "response.output_text.annotation.added": Reader._annotated,
}
