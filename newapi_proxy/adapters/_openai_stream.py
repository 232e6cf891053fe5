"""Answers of the OpenAI chat format into events: streams and whole ones, with the quirks of those that speak it.

Tolerant by rule, not by provider (provider-translation B.8): reasoning under two names, typed content, calls without
numbers, types or ids, arguments as objects, usage in odd places or twice, finishes missing or doubled, errors in a 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
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
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.finish import understood
from newapi_proxy.wire import tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

MOST_CHOICES: Final = 128  # n's own bound; more is no answer
MOST_CALLS: Final = 1024  # calls in one choice
MOST_NOTES: Final = 200  # citations of one answer
# A whole answer of one choice that says no more than this needs no look for calls, thinking and failures.
_SAID: Final = frozenset({"role", "content", "refusal", "annotations"})
_PLAIN_ENDS: Final[dict[str, Finish]] = {"stop": "stop", "length": "length"}
_DEAD: Final = "insufficient_system_resource"  # the server gave up: 503, whatever was said before
_ENDED: Final = (Ended(),)


class _Call:
    """A tool call while it comes in; `number` is None until it has a name."""

    __slots__ = ("held", "id", "kind", "name", "number", "spoken")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.kind = "function"
        self.number: int | None = None
        self.held = ""  # arguments that came before the name
        self.spoken = False


class _Strand:
    """One choice while it comes in."""

    __slots__ = ("block", "calls", "finished", "kind", "last", "said", "slots", "started")

    def __init__(self) -> None:
        self.block = -1
        self.kind = ""  # what the present block is made of
        self.said = False
        self.finished = False
        self.calls: list[_Call] = []
        self.slots: dict[int, _Call] = {}  # by upstream's number
        self.last: _Call | None = None
        self.started = 0

    def at(self, kind: str) -> int:
        """The block for this kind of content: a new one where the kind changes."""
        if kind != self.kind:
            self.kind = kind
            self.block += 1
        return self.block


class Reader:
    """One answer's state; see adapters.base.Reader."""

    __slots__ = ("_begun", "_cited", "_first", "_strands")

    def __init__(self) -> None:
        self._begun = False
        self._first: Node | None = None  # seeds the ids of calls that come without one
        self._cited: set[str] = set()
        self._strands: dict[int, _Strand] = {}

    def read(self, frame: Frame) -> Sequence[Event]:
        """The events of one frame."""
        if frame.data is None:
            return ()
        node = frame.tree
        if type(node) is dict:
            return self.told(node, frame.event)
        if frame.done:
            return _ENDED
        if type(node) is list and node and type(node[0]) is dict and node[0].get("error"):
            return self.told(node[0], frame.event)
        return (Skipped("not a JSON object"),) if frame.data.strip() else ()

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating."""
        return True

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating: the state knows that something was said, not what."""

    def told(self, node: Node, name: str = "") -> list[Event]:
        """The events of one chunk; `name` is the frame's event name."""
        out: list[Event] = []
        if not self._begun:
            if self._first is None:
                self._first = node
            self._begin(node, out)
        choices = node.get("choices")
        usage = node.get("usage")
        if usage is None and "x_groq" in node:
            usage = tree.find(node, "x_groq.usage")
        if usage is not None:
            self._meter(usage, out)
        if node.get("error") or name == "error" or choices is None:
            said = _failures.told(node)
            if said is not None or name == "error":
                out.append(Failed(_failures.inband(said or _failures.Said(message="The provider reports an error."))))
                return out
        if type(choices) is list:
            for place, choice in enumerate(choices[:MOST_CHOICES]):
                if type(choice) is dict:
                    self._choice(choice, place, "delta", out)
        if node.get("citations"):
            self._sources(node["citations"], out)
        return out

    def whole(self, node: Node) -> list[Event]:
        """The events of a whole answer."""
        out: list[Event] = []
        self._begin(node, out)
        self._first = node
        choices = node.get("choices")
        if node.get("error") or type(choices) is not list or not choices:
            said = _failures.told(node) or _failures.Said(message="The provider's answer holds no choices.")
            self._meter(node.get("usage"), out)
            out.append(Failed(_failures.inband(said)))
            return out
        for place, choice in enumerate(choices[:MOST_CHOICES]):
            if type(choice) is dict:
                self._choice(choice, place, "message", out)
        if node.get("citations"):
            self._sources(node["citations"], out)
        out += self.close()
        usage = node.get("usage")
        self._meter(tree.find(node, "x_groq.usage") if usage is None else usage, out)
        return out

    def close(self) -> list[Event]:
        """Arguments and finishes that are missing."""
        out: list[Event] = []
        for index, strand in self._strands.items():
            if not strand.finished:
                strand.finished = True
                self._flush(strand, index, out)
                out.append(Finished("tool_calls" if strand.started else "stop", index))
        return out

    def _begin(self, node: Node, out: list[Event]) -> None:
        id_, model, created = node.get("id"), node.get("model"), node.get("created")
        if type(id_) is str and id_:
            self._begun = True
            out.append(Started(id_, model if type(model) is str else None, created if type(created) is int else None))

    def _meter(self, value: Any, out: list[Event]) -> None:
        usage = read_usage(value)
        if usage is not None:
            out.append(Metered(usage))

    def _choice(self, choice: Node, place: int, field: str, out: list[Event]) -> None:
        index = choice.get("index")
        if type(index) is not int or not 0 <= index < MOST_CHOICES:
            index = place
        strand = self._strands.get(index)
        if strand is None:
            strand = self._strands[index] = _Strand()
        if "usage" in choice:  # Moonshot's place for it
            self._meter(choice["usage"], out)
        if strand.finished:
            return
        if choice.get("logprobs"):
            self._weights(choice["logprobs"], index, out)
        delta = choice.get(field)
        if type(delta) is dict:
            content = delta.get("content")
            if len(delta) == 1 and type(content) is str:  # the common delta
                if content:
                    strand.said = True
                    out.append(TextDelta(content, index, strand.at("text")))
            elif delta:
                self._delta(strand, delta, index, out)
        finish = choice.get("finish_reason")
        if finish and type(finish) is str:
            self._finish(strand, index, finish, choice, out)

    def _weights(self, value: Any, index: int, out: list[Event]) -> None:
        """The log probabilities of the tokens that this piece adds."""
        content = value.get("content") if type(value) is dict else None
        tokens = [one for one in content if type(one) is dict] if type(content) is list else []
        if tokens:
            out.append(LogProbs(tuple(tokens), index))

    def _delta(self, strand: _Strand, delta: Node, index: int, out: list[Event]) -> None:
        self._thinking(strand, delta, index, out)
        content = delta.get("content")
        if type(content) is str:
            if content:
                strand.said = True
                out.append(TextDelta(content, index, strand.at("text")))
        elif type(content) is list:
            self._typed(strand, content, index, out)
        refusal = delta.get("refusal")
        if refusal and type(refusal) is str:
            strand.said = True
            out.append(RefusalDelta(refusal, index))
        audio = delta.get("audio")
        if type(audio) is dict and type(audio.get("transcript")) is str and audio["transcript"]:
            out.append(TextDelta(audio["transcript"], index, strand.at("text")))
        calls = delta.get("tool_calls")
        if type(calls) is list:
            for call in calls:
                if type(call) is dict:
                    self._call(strand, call, index, out)
        if type(delta.get("function_call")) is dict:
            self._call(strand, {"index": 0, "function": delta["function_call"]}, index, out)
        if type(delta.get("annotations")) is list:
            self._annotations(strand, delta["annotations"], index, out)

    def _thinking(self, strand: _Strand, delta: Node, index: int, out: list[Event]) -> None:
        """Reasoning under either name, once; signatures and payloads out of `reasoning_details`."""
        text = delta.get("reasoning_content")
        if type(text) is not str or not text:
            text = delta.get("reasoning")
        details = delta.get("reasoning_details")
        known = type(text) is str and bool(text)
        if known:
            strand.said = True
            out.append(ReasoningDelta(text, index, strand.at("reasoning")))  # type: ignore[arg-type]
        if type(details) is not list:
            return
        for detail in details:
            if type(detail) is not dict:
                continue
            piece = detail.get("text") or detail.get("summary")
            if not known and type(piece) is str and piece:
                strand.said = True
                out.append(ReasoningDelta(piece, index, strand.at("reasoning")))
            signature, data, format_ = detail.get("signature"), detail.get("data"), detail.get("format")
            if (type(signature) is str and signature) or (type(data) is str and data):
                out.append(
                    ReasoningSealed(
                        signature if type(signature) is str else None,
                        data if type(data) is str else None,
                        format_ if type(format_) is str else "unknown",
                        index,
                        strand.at("reasoning"),
                    )
                )

    def _typed(self, strand: _Strand, content: list[Any], index: int, out: list[Event]) -> None:
        """Content as a list of typed chunks, thinking among them (Mistral)."""
        for chunk in content:
            if type(chunk) is not dict:
                continue
            text, thinking = chunk.get("text"), chunk.get("thinking")
            if chunk.get("type") == "text" and type(text) is str and text:
                strand.said = True
                out.append(TextDelta(text, index, strand.at("text")))
            pieces = thinking if type(thinking) is list else [{"text": thinking}]
            for piece in pieces:
                thought = piece.get("text") if type(piece) is dict else None
                if type(thought) is str and thought:
                    strand.said = True
                    out.append(ReasoningDelta(thought, index, strand.at("reasoning")))

    def _call(self, strand: _Strand, node: Node, index: int, out: list[Event]) -> None:
        custom = type(node.get("custom")) is dict
        body = node.get("custom" if custom else "function")
        if type(body) is not dict:
            return
        call = _slot(strand, node, body)
        if call is None:
            return
        id_, name = node.get("id"), body.get("name")
        if type(id_) is str and id_ and not call.id:
            call.id = id_
        if custom:
            call.kind = "custom"
        text = as_text(body.get("input" if custom else "arguments"))
        if call.number is None:
            call.held += text
            text = ""
            if type(name) is str and name:
                call.name = name
                text = self._start(strand, call, node, index, out)
        if text and call.number is not None:
            call.spoken = True
            out.append(CallDelta(call.number, text, index))

    def _start(self, strand: _Strand, call: _Call, node: Node, index: int, out: list[Event]) -> str:
        """Tells the call's beginning; returns the arguments that waited for it."""
        call.number = strand.started
        strand.started += 1
        strand.said = True
        strand.kind = ""  # each call is a block of its own
        signature = tree.find(node, "extra_content.google.thought_signature")
        out.append(
            CallStarted(
                call.number,
                call.id or self._new_id(index, call.number),
                call.name,
                index,
                strand.at(f"call {call.number}"),
                "custom" if call.kind == "custom" else "function",
                signature if type(signature) is str and signature else None,
            )
        )
        held, call.held = call.held, ""
        return held

    def _new_id(self, index: int, number: int) -> str:
        first = self._first or {}
        return new_id(f"{first.get('id') or tree.dumps(first)}:{index}:{number}")

    def _flush(self, strand: _Strand, index: int, out: list[Event]) -> None:
        """At a choice's end: an empty object for calls that never got arguments."""
        for call in strand.calls:
            if call.number is not None and not call.spoken and call.kind == "function":
                call.spoken = True
                out.append(CallDelta(call.number, "{}", index))

    def _finish(self, strand: _Strand, index: int, word: str, choice: Node, out: list[Event]) -> None:
        reason = understood(word)
        if word == _DEAD or (reason == "error" and not strand.said):
            said = _failures.told({"error": choice.get("error")}) or _failures.Said(
                message=f"The provider ended the answer with {word[:60]}.", status=503 if word == _DEAD else 502
            )
            out.append(Failed(_failures.inband(said)))
            return
        strand.finished = True
        self._flush(strand, index, out)
        if strand.started and reason == "stop":
            reason = "tool_calls"
        out.append(Finished(reason, index, native=word))

    def _annotations(self, strand: _Strand, notes: list[Any], index: int, out: list[Event]) -> None:
        for note in notes:
            inner = note.get("url_citation") if type(note) is dict else None
            if type(inner) is dict and type(inner.get("url")) is str and len(self._cited) < MOST_NOTES:
                value = {
                    "url": inner["url"],
                    "title": inner.get("title"),
                    "start": inner.get("start_index"),
                    "end": inner.get("end_index"),
                }
                self._cited.add(inner["url"])
                out.append(Cited(value, "web", index, max(strand.block, 0)))

    def _sources(self, sources: Any, out: list[Event]) -> None:
        """Addresses beside the answer (xAI, Perplexity), repeated on every chunk: each is told once."""
        if type(sources) is not list or not self._strands:
            return
        for source in sources:
            url = source.get("url") if type(source) is dict else source
            if type(url) is str and url and url not in self._cited and len(self._cited) < MOST_NOTES:
                self._cited.add(url)
                title = source.get("title") if type(source) is dict else None
                out.append(Cited({"url": url, "title": title}, "web"))


def _slot(strand: _Strand, node: Node, body: Node) -> _Call | None:
    """The call that a fragment belongs to: by number, else by id, else the last; a new id with a name is a new call."""
    number, id_ = node.get("index"), node.get("id")
    named = type(id_) is str and bool(id_)
    call: _Call | None
    if type(number) is int:
        call = strand.slots.get(number)
    elif named:
        call = next((one for one in strand.calls if one.id == id_), None)
    else:
        call = None if body.get("name") else strand.last
    if call is not None and named and call.id and call.id != id_ and body.get("name"):
        call = None  # Google's compatible endpoint numbers every call 0
    if call is None:
        if len(strand.calls) >= MOST_CALLS:
            return None
        call = _Call()
        strand.calls.append(call)
    if type(number) is int:
        strand.slots[number] = call
    strand.last = call
    return call


def read_answer(body: tree.Document) -> list[Event]:
    """The events of a whole answer's body; `Failed` for an error in it and for what is no answer at all."""
    node = body.tree
    if type(node) is list and node and type(node[0]) is dict:
        node = node[0]
    if type(node) is not dict:
        said = f"{len(body.raw)} bytes that are no JSON object"  # not the bytes: they may be an answer's text
        return [Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502, detail=said))]
    return _plain(node) or Reader().whole(node)


def _plain(node: Node) -> list[Event] | None:
    """The events of the common answer, one choice of text: what `Reader.whole` tells, at a fifth of its cost."""
    try:
        (choice,) = node["choices"]
        message, finish = choice["message"], choice["finish_reason"]
        text, reason = message["content"], _PLAIN_ENDS[finish]
        id_, usage, model, created = node["id"], node["usage"], node["model"], node["created"]
        if choice["index"] != 0 or "usage" in choice or choice.get("logprobs"):
            return None
    except (KeyError, TypeError, ValueError):
        return None
    if type(text) is not str or not text or type(id_) is not str or not id_ or type(usage) is not dict:
        return None
    if "error" in node or "citations" in node or type(model) is not str or type(created) is not int:
        return None
    bare = len(message) == 2 and "role" in message
    if not bare and (not message.keys() <= _SAID or message.get("refusal") or message.get("annotations")):
        return None
    started = Started(id_, model, created)
    events: list[Event] = [started, TextDelta(text), Finished(reason, native=finish)]
    metered = read_usage(usage)
    if metered is not None:
        events.append(Metered(metered))
    return events
