"""An OpenAI chat stream to a client of the same format: frames as they came, edited where SDKs would stumble.

Untouched is the common case. What is edited is edited as a tree, so that unknown fields live on: the model's name,
usage the client did not ask for, roles, ids, finishes and calls that break provider-translation A.1.3. Which call a
fragment belongs to is the reader's knowledge: its events are told again where upstream's numbering cannot be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import CallDelta, CallStarted, Event, Finished, ReasoningDelta, TextDelta
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces._openai_write import Writer
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.sse import Frame

Node = dict[str, Any]

MOST_CHOICES: Final = 128  # n's own bound
_CHUNK: Final = "chat.completion.chunk"
_OPENING: Final = frozenset({"role", "content", "refusal"})
_ENVELOPE: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")


class _Voice:
    """One choice as the client has seen it."""

    __slots__ = ("begun", "customs", "finished", "ids", "legacy", "retold")

    def __init__(self) -> None:
        self.begun = False
        self.finished = False
        self.legacy = False
        self.retold = False  # its calls are told from events: upstream's own numbering is unusable
        self.ids: list[str] = []
        self.customs: set[int] = set()  # calls of free-form tools, among those told from events


class Passer:
    """One streamed answer; see surfaces.base.Passer."""

    __slots__ = (
        "_closed",
        "_created",
        "_face",
        "_id",
        "_pending",
        "_rename",
        "_usage_told",
        "_voices",
        "_wanted",
        "_writer",
    )

    def __init__(self, ask: Ask, face: Face) -> None:
        self._face = face
        self._rename = face.rename
        self._wanted = ask.usage_wanted
        self._writer = Writer(ask, face) if face.thinking_to_content else None
        self._id = ""
        self._created = face.created  # upstream's own once it has told it
        self._pending: Node | None = None  # the usage chunk, held until the end: the last one counts
        self._usage_told = False
        self._voices: dict[int, _Voice] = {}
        self._closed = False

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """The frame as the client gets it; b"" for comments, `[DONE]` (close sends it) and what cannot be read."""
        if self._writer is not None:
            return b"".join([self._writer.feed(event) for event in events])
        node = frame.tree
        if type(node) is not dict or self._closed:
            return b""
        if not node.get("choices"):
            return self._without_choices(frame, node, False)
        if self._plain(node):
            if self._rename and node.get("model") != self._face.model:
                return _encoded({**node, "model": self._face.model})
            return frame.raw if _clean(frame.raw) else _encoded(node)
        return self._edited(frame, node, events)

    def steady(self) -> bool:
        """See surfaces.base.Steady."""
        return self._writer is None and self._pending is None

    def _plain(self, node: Node) -> bool:
        """Whether this is a common chunk of one choice, nothing to edit: its opening, more of its text, its finish."""
        if node.get("usage") is not None or node.get("object") != _CHUNK or type(node.get("created")) is not int:
            return False
        choices = node.get("choices")
        if type(choices) is not list or len(choices) != 1 or type(choices[0]) is not dict:
            return False
        choice = choices[0]
        index, delta, finish = choice.get("index"), choice.get("delta"), choice.get("finish_reason")
        if type(index) is not int or type(delta) is not dict:
            return False
        voice = self._voices.get(index)
        if voice is None:
            return finish is None and 0 <= index < MOST_CHOICES and self._opens(node, delta, index)
        if not voice.begun or voice.finished or not self._id or node.get("id") != self._id:
            return False
        if finish is None:
            return len(delta) == 1 and type(delta.get("content")) is str
        if delta or voice.retold or type(finish) is not str or finish not in shapes.STANDARD:
            return False
        voice.finished = type(node.get("model")) is str
        return voice.finished

    def _opens(self, node: Node, delta: Node, index: int) -> bool:
        """Whether the chunk opens its choice as the format wants it; notes that it does."""
        id_ = node.get("id")
        if type(id_) is not str or not id_ or (self._id and id_ != self._id) or type(node.get("model")) is not str:
            return False
        if delta.get("role") != "assistant" or not delta.keys() <= _OPENING or type(delta.get("content")) is not str:
            return False
        self._id = id_
        self._created = node["created"]
        voice = self._voices[index] = _Voice()
        voice.begun = True
        return True

    def _edited(self, frame: Frame, node: Node, events: Sequence[Event]) -> bytes:
        choices = node.get("choices")
        given = choices if type(choices) is list else []
        told = [self._choice(one, place, events) for place, one in enumerate(given[:MOST_CHOICES])]
        kept = [one for one in told if one is not None]
        usage = node.get("usage")
        if not kept:
            return self._without_choices(frame, node, bool(given))
        edits = self._envelope(node)
        if len(kept) != len(given) or any(new is not old for new, old in zip(kept, given, strict=False)):
            edits["choices"] = kept
        if usage is not None:
            self._hold(node, usage)
            edits["usage"] = None
        return self._bytes(frame, node, edits)

    def _without_choices(self, frame: Frame, node: Node, emptied: bool) -> bytes:
        """A usage chunk is held; others (a moderation report) go on; a leading one without an id is Azure's filter."""
        usage = node.get("usage")
        if usage is not None:
            self._hold(node, usage)
            return b""
        if emptied or not node.get("id"):
            return b""
        edits = self._envelope(node)
        if type(node.get("choices")) is not list:
            edits["choices"] = []
        return self._flushed() + self._bytes(frame, node, edits)

    def _bytes(self, frame: Frame, node: Node, edits: Node) -> bytes:
        if not edits:
            return frame.raw if _clean(frame.raw) else _encoded(node)
        edited = {**node, **edits}
        if edits.get("usage", 0) is None and not self._wanted:
            del edited["usage"]
        return _encoded(edited)

    def _envelope(self, node: Node) -> Node:
        """What must be different around the choices: model, id, object, created."""
        edits: Node = {}
        id_ = node.get("id")
        if not self._id:
            self._id = id_ if type(id_) is str and id_ else self._face.id
        if id_ != self._id:
            edits["id"] = self._id
        if node.get("object") != "chat.completion.chunk":
            edits["object"] = "chat.completion.chunk"
        if type(node.get("created")) is not int:
            edits["created"] = self._created
        else:
            self._created = node["created"]
        model = node.get("model")
        if (self._rename and model != self._face.model) or type(model) is not str:
            edits["model"] = self._face.model
        return edits

    def _hold(self, node: Node, usage: Any) -> None:
        """Remembers upstream's own usage object for a chunk of its own at the end."""
        if not self._wanted or self._usage_told or type(usage) is not dict or not usage:
            return
        self._pending = node

    def _flushed(self) -> bytes:
        node, self._pending = self._pending, None
        if node is None:
            return b""
        self._usage_told = True
        names = _ENVELOPE if node.get("choices") else tuple(node)
        chunk = {name: node[name] for name in names if name in node}
        return _encoded({**chunk, **self._envelope(node), "choices": [], "usage": node["usage"]})

    def _choice(self, value: Any, place: int, events: Sequence[Event]) -> Node | None:
        """The choice as the client gets it, the same object where nothing changes; None to leave it out."""
        if type(value) is not dict:
            return None
        choice: Node = value
        edits: Node = {}
        index = choice.get("index")
        if type(index) is not int or not 0 <= index < MOST_CHOICES:
            index = edits["index"] = place
        voice = self._voices.setdefault(index, _Voice())
        if voice.finished:
            return None
        delta, finish = choice.get("delta"), choice.get("finish_reason")
        if type(delta) is not dict:
            if not finish:
                return None  # filter results alone
            delta = edits["delta"] = {}
        new = self._delta(voice, delta, [one for one in events if getattr(one, "choice", None) == index])
        if new is not delta:
            edits["delta"] = new
        if finish is not None and (type(finish) is not str or finish not in shapes.STANDARD):
            finish = edits["finish_reason"] = _finish_told(events, index)
        voice.finished = finish is not None
        return {**choice, **edits} if edits else choice

    def _delta(self, voice: _Voice, delta: Node, events: Sequence[Event]) -> Node:
        edits: Node = {}
        drop = ""
        if not voice.begun:
            voice.begun = True
            if delta.get("role") != "assistant":
                edits["role"] = "assistant"
        elif "role" in delta:
            drop = "role"  # once per choice: clients that join strings would join it
        content, thought = delta.get("content"), delta.get("reasoning")
        if type(content) is list:
            edits["content"] = "".join([one.text for one in events if type(one) is TextDelta])
            told = "".join([one.text for one in events if type(one) is ReasoningDelta])
            if told:
                edits["reasoning_content"] = told
        if type(thought) is str and thought and not delta.get("reasoning_content"):
            edits["reasoning_content"] = thought
        calls = delta.get("tool_calls")
        if voice.retold or (calls and not _countable(voice, calls)):
            voice.retold = True
            told_calls = _calls_told(events, voice)
            if told_calls or calls:
                edits["tool_calls"] = told_calls
        legacy = delta.get("function_call")
        voice.legacy = voice.legacy or (type(legacy) is dict and bool(legacy.get("name")))
        if not edits and not drop:
            return delta
        role = {"role": edits.pop("role")} if "role" in edits else {}
        merged = {**role, **{name: value for name, value in delta.items() if name != drop}, **role, **edits}
        if merged.get("tool_calls", 0) == []:
            del merged["tool_calls"]
        return merged

    def close(self, usage: Usage) -> bytes:
        """Finishes and usage that upstream left out, then `[DONE]`."""
        if self._closed:
            return b""
        self._closed = True
        if self._writer is not None:
            return self._writer.close(usage)
        out = []
        for index, voice in (self._voices or {0: _Voice()}).items():
            if not voice.finished:
                out.append(self._finish(index, voice))
        if self._wanted and not self._usage_told:
            out.append(self._flushed() or self._chunk([], shapes.usage_tree(usage)))
        out.append(sse.DONE)
        return b"".join(out)

    def _finish(self, index: int, voice: _Voice) -> bytes:
        called = bool(voice.ids) or voice.retold or voice.legacy
        word = shapes.finish_word("stop", called, voice.legacy)
        delta = {} if voice.begun else {"role": "assistant", "content": ""}
        return self._chunk([{"index": index, "delta": delta, "finish_reason": word}], None)

    def _chunk(self, choices: list[Node], usage: Node | None) -> bytes:
        face = self._face
        node: Node = {
            "id": self._id or face.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": face.model,
            "choices": choices,
        }
        if self._wanted:
            node["usage"] = usage
        return sse.encode(tree.encode(node))

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """The error, and nothing after it."""
        if self._closed:
            return b""
        self._closed = True
        return shapes.error_frame(error, request_id)


def _encoded(node: Node) -> bytes:
    try:
        return sse.encode(tree.encode(node))
    except TypeError:  # nested deeper than can be written
        return b""


def _clean(raw: bytes) -> bool:
    """Whether a frame may leave as it came: one data field first, its blank line last, proper UTF-8."""
    if not raw.startswith(b"data:") or not raw.endswith((b"\n\n", b"\n\r\n")):
        return False
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _finish_told(events: Sequence[Event], index: int) -> str | None:
    """The standard word for a provider's own, as the reader understands it; None where it is no finish at all."""
    for event in events:
        if isinstance(event, Finished) and event.choice == index:
            return shapes.FINISH[event.reason]
    return None


def _countable(voice: _Voice, calls: Any) -> bool:
    """Whether these deltas follow the grammar: numbered from 0, named in the first and only there."""
    if type(calls) is not list:
        return False
    ids = list(voice.ids)
    for call in calls:
        if type(call) is not dict:
            return False
        index, id_ = call.get("index"), call.get("id")
        custom = "custom" in call
        body = call.get("custom" if custom else "function")
        if type(index) is not int or type(body) is not dict:
            return False
        arguments = body.get("input" if custom else "arguments")
        if 0 <= index < len(ids):
            if body.get("name") or id_ or not (arguments is None or type(arguments) is str):
                return False
        elif index == len(ids) and id_ and type(id_) is str and body.get("name") and type(arguments) is str:
            if call.get("type") != ("custom" if custom else "function") or id_ in ids:
                return False
            ids.append(id_)
        else:
            return False
    voice.ids = ids
    return True


def _calls_told(events: Sequence[Event], voice: _Voice) -> list[Node]:
    """Deltas of calls out of the reader's events: whole in one where upstream sent it whole."""
    out: list[Node] = []
    for event in events:
        if isinstance(event, CallStarted):
            voice.ids.append(event.id)
            if event.kind == "custom":
                voice.customs.add(event.call)
            out.append({"index": event.call, **shapes.call_tree(event.id, event.name, "", event.kind, event.signature)})
        elif isinstance(event, CallDelta):
            body, field = ("custom", "input") if event.call in voice.customs else ("function", "arguments")
            if out and out[-1]["index"] == event.call:
                out[-1][body][field] += event.text
            else:
                out.append({"index": event.call, body: {field: event.text}})
    return out
