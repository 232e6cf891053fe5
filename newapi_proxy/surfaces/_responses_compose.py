"""Events to output items of a Responses answer, and to a stream's events in the order of provider-translation A.4.

An item begins when the one before it has ended: what comes too early (calls whose fragments alternate) waits. Knows
neither bytes nor sequence numbers: the writer adds them, the whole answer needs none.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    LogProbs,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    TextDelta,
)
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._responses_output import Calling, Entire, Message, Piece, Thought, weight
from newapi_proxy.wire import tree

Node = dict[str, Any]

DECLINED: Final = "The model declined to answer."
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": shapes.LOCAL,
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "image_generation_call": "ig",
}


class _Slot:
    """One item on its way: open, or held back until the one before it is complete."""

    __slots__ = ("arguments", "body", "held", "kind", "number", "open", "over")

    def __init__(self, kind: str, number: int, body: Message | Thought | Calling | Entire) -> None:
        self.kind = kind
        self.number = number
        self.body = body
        self.open = False
        self.over = False  # a seal or another block's beginning: more of the same is another item
        self.held: list[tuple[str, Any]] = []
        self.arguments: list[str] = []

    @property
    def complete(self) -> bool:
        """Nothing of this item can still come, as far as anyone can tell."""
        return self.kind != "function_call" or tree.lenient("".join(self.arguments).encode()) is not None

    def start(self, index: int) -> list[Piece]:
        """Begins, and says what was held back."""
        self.open = True
        out = self.body.open(index)
        for what, value in self.held:
            out += self.body.say(what, value)
        self.held = []
        return out

    def say(self, what: str, value: Any) -> list[Piece]:
        """Says it, or keeps it for later."""
        if self.open:
            return self.body.say(what, value)
        self.held.append((what, value))
        return []


class Composer:
    """The items of one answer. Only the first choice can be told; what others say is left out."""

    __slots__ = (
        "_calls",
        "_count",
        "_length",
        "_open",
        "_refused",
        "_seed",
        "_waiting",
        "_weights",
        "finished",
        "output",
    )

    def __init__(self, seed: str) -> None:
        self.output: list[Node] = []
        self.finished: Finished | None = None
        self._seed = seed
        self._count = 0  # items so far, begun or waiting
        self._length = 0  # characters of text so far
        self._refused = False
        self._weights: list[Node] = []
        self._open: _Slot | None = None
        self._waiting: list[_Slot] = []
        self._calls: dict[int, _Slot] = {}

    def take(self, event: Event) -> list[Piece]:
        """The stream's events for this one."""
        if getattr(event, "choice", 1):
            return []
        match event:
            case TextDelta(text=text):
                return self._text("output_text", text)
            case RefusalDelta(text=text):
                self._refused = self._refused or bool(text)
                return self._text("refusal", text)
            case ReasoningDelta(text=text, block=block):
                return self._think(block, text)
            case ReasoningSealed():
                return self._seal(event)
            case CallStarted():
                return self._call(event)
            case CallDelta(call=call, text=text):
                return self._arguments(call, text)
            case Cited():
                return self._cite(event)
            case LogProbs(content=content):
                self._weights += [one for token in content if (one := weight(token)) is not None]
            case Block() | Picture():
                return self._entire(event)
            case Finished():
                self.finished = self.finished or event
        return []

    def close(self) -> list[Piece]:
        """Upstream has nothing more to say: ends what is open, tells what waits."""
        finished = self.finished
        out: list[Piece] = []
        if finished is not None and finished.reason == "refusal" and not self._refused:
            out = self._text("refusal", finished.detail or DECLINED)
        slot = self._last()
        if slot is not None and slot.kind == "message":
            out += self._weigh(slot)
        out += self._advance(last=True)
        if self._open is not None:
            cut = shapes.ended(finished)["status"] != "completed"
            out += self._stop(self._open, "incomplete" if cut else "completed")
        return out

    def _new(self, kind: str) -> str:
        """The next item's id: the same for the same answer, streamed or whole."""
        self._count += 1
        return f"{_PREFIXES[kind]}_{self._seed}{self._count:03d}"

    def _last(self) -> _Slot | None:
        """The item that came last, begun or not: what its next words continue."""
        return self._waiting[-1] if self._waiting else self._open

    def _text(self, what: str, text: str) -> list[Piece]:
        if not text:
            return []
        slot, out = self._message()
        if what == "output_text":
            self._length += len(text)
            out += self._weigh(slot)
        return out + slot.say(what, text)

    def _weigh(self, slot: _Slot) -> list[Piece]:
        """Gives what has been said of the next tokens to the message that they stand in."""
        weights, self._weights = self._weights, []
        return slot.say("weights", weights) if weights else []

    def _message(self) -> tuple[_Slot, list[Piece]]:
        slot = self._last()
        if slot is not None and slot.kind == "message":
            return slot, []
        slot = _Slot("message", 0, Message(self._new("message"), self._length))
        return slot, self._add(slot)

    def _thought(self, block: int) -> tuple[_Slot, list[Piece]]:
        slot = self._last()
        if slot is not None and slot.kind == "reasoning" and slot.number == block and not slot.over:
            return slot, []
        slot = _Slot("reasoning", block, Thought(self._new("reasoning")))
        return slot, self._add(slot)

    def _think(self, block: int, text: str) -> list[Piece]:
        if not text:
            return []
        slot, out = self._thought(block)
        return out + slot.say("text", text)

    def _seal(self, event: ReasoningSealed) -> list[Piece]:
        """A signature ends its block; a redacted payload is a block of its own."""
        if not event.signature and not event.data:
            return []
        slot, out = self._thought(event.block)
        slot.over = True
        return out + slot.say("sealed", shapes.sealed(event.format, event.signature, event.data))

    def _call(self, event: CallStarted) -> list[Piece]:
        out: list[Piece] = []
        if event.signature:  # stands before the call, so that a client which replays its reasoning replays it
            thought = _Slot("reasoning", event.block, Thought(self._new("reasoning")))
            thought.over = True
            out = self._add(thought) + thought.say("sealed", shapes.sealed(shapes.CALL, event.signature, None))
        kind = "custom_tool_call" if event.kind == "custom" else "function_call"
        slot = self._calls[event.call] = _Slot(kind, event.call, Calling(self._new(kind), kind, event))
        return out + self._add(slot)

    def _arguments(self, call: int, text: str) -> list[Piece]:
        """Fragments behind a call that has ended are lost on purpose: its JSON was complete."""
        slot = self._calls.get(call)
        if slot is None or slot.over or not text:
            return []
        slot.arguments.append(text)
        out = slot.say("text", text)
        if self._waiting and slot is self._open and text.rstrip().endswith("}"):
            out += self._advance()
        return out

    def _cite(self, event: Cited) -> list[Piece]:
        slot = self._last()
        if slot is not None and slot.kind == "message":
            return slot.say("cited", event)
        if event.family == "web":
            return []  # its text is closed already
        slot, out = self._message()
        return out + slot.say("cited", event)

    def _entire(self, event: Block | Picture) -> list[Piece]:
        """An item that comes whole: this format's own, or an image as the call of its image tool gives it."""
        if isinstance(event, Picture):
            form = event.media_type.rpartition("/")[2]
            made = {"status": "completed", "output_format": form, "result": event.data}
            item: Node = {"id": self._new("image_generation_call"), "type": "image_generation_call", **made}
        elif event.family == shapes.FAMILY and type(event.value.get("type")) is str:
            item = event.value
        else:
            return []
        return self._add(_Slot("entire", 0, Entire(item)))

    def _add(self, slot: _Slot) -> list[Piece]:
        """Puts a new item at the end; begins it where nothing stands before it."""
        self._waiting.append(slot)
        return self._advance()

    def _advance(self, last: bool = False) -> list[Piece]:
        """Ends what is complete and begins what waits behind it; with `last` whatever its state."""
        out: list[Piece] = []
        while self._waiting:
            if self._open is not None:
                if not (last or self._open.complete):
                    break
                out += self._stop(self._open, "completed")
            self._open = self._waiting.pop(0)
            out += self._open.start(len(self.output))
        return out

    def _stop(self, slot: _Slot, status: str) -> list[Piece]:
        slot.over = True
        self._open = None
        out = slot.body.close(status)
        done = out[-1]
        assert isinstance(done, dict)
        self.output.append(done["item"])
        return out
