"""What an answer is made of: the events a stream has, and the same events for a whole answer.

Every provider's reader emits these, every surface's writer takes them. `choice` is the index of the alternative
(n > 1), `block` the running number of the content block upstream: a writer that joins blocks sees where one ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.matter import Handed, Ranked, Vector
from newapi_proxy.ir.usage import Usage

Finish = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause", "error", "context_overflow"]


class Started(msgspec.Struct, frozen=True):
    """The answer has begun; not yet content. `created` in seconds, None where upstream gives none."""

    id: str | None = None
    model: str | None = None
    created: int | None = None


class TextDelta(msgspec.Struct, frozen=True):
    """Visible text."""

    text: str
    choice: int = 0
    block: int = 0


class ReasoningDelta(msgspec.Struct, frozen=True):
    """Thinking text; blocks are joined by a blank line where a dialect has one string (decision 27)."""

    text: str
    choice: int = 0
    block: int = 0


class ReasoningSealed(msgspec.Struct, frozen=True):
    """A thinking block's signature or its redacted payload; `format` as in ir.ask.Reasoning."""

    signature: str | None = None
    data: str | None = None
    format: str = "unknown"
    choice: int = 0
    block: int = 0


class RefusalDelta(msgspec.Struct, frozen=True):
    """The model's words of refusal."""

    text: str
    choice: int = 0


class CallStarted(msgspec.Struct, frozen=True):
    """A tool call begins; `call` counts from 0 in order of appearance within the choice."""

    call: int
    id: str
    name: str
    choice: int = 0
    block: int = 0
    kind: Literal["function", "custom"] = "function"
    signature: str | None = None


class CallDelta(msgspec.Struct, frozen=True):
    """A fragment of a call's arguments: raw text. All fragments together are JSON ("{}" for none)."""

    call: int
    text: str
    choice: int = 0


class Cited(msgspec.Struct, frozen=True):
    """A citation of the text so far. `web`: {url, title, start, end}; else `value` verbatim from `family`."""

    value: dict[str, Any]
    family: str
    choice: int = 0
    block: int = 0


class Block(msgspec.Struct, frozen=True):
    """A provider's own block, whole (web search, code execution …)."""

    value: dict[str, Any]
    family: str
    choice: int = 0
    block: int = 0


class Picture(msgspec.Struct, frozen=True):
    """An image that the model made, whole: base64 and its media type."""

    data: str
    media_type: str
    choice: int = 0
    block: int = 0


class LogProbs(msgspec.Struct, frozen=True):
    """Log probabilities of the next tokens of the text, in OpenAI's shape: {token, logprob, bytes, top_logprobs}."""

    content: tuple[dict[str, Any], ...]
    choice: int = 0


class Yielded(msgspec.Struct, frozen=True):
    """A piece of what another kind than chat gives: a vector, a document's rank …"""

    item: Vector | Ranked | Handed


class Finished(msgspec.Struct, frozen=True):
    """A choice ended. `native` is upstream's own word, `detail` its explanation (a refusal's text)."""

    reason: Finish
    choice: int = 0
    stop_sequence: str | None = None
    native: str | None = None
    detail: str | None = None


class Metered(msgspec.Struct, frozen=True):
    """Usage as upstream reports it; cumulative: the last one counts, never the sum."""

    usage: Usage


class Failed(msgspec.Struct, frozen=True):
    """Upstream spoke an error inside a 200: before content it is an attempt's failure, after content in-band."""

    failure: UpstreamFailure


class Ended(msgspec.Struct, frozen=True):
    """Upstream has said its last word (`[DONE]`, message_stop); what follows is ignored (fault U29)."""


class Skipped(msgspec.Struct, frozen=True):
    """A frame that could not be read; counted, three in a row end the stream (fault U15)."""

    why: str


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | ReasoningSealed
    | RefusalDelta
    | CallStarted
    | CallDelta
    | Cited
    | Block
    | Picture
    | LogProbs
    | Yielded
    | Finished
    | Metered
    | Failed
    | Ended
    | Skipped
)

CONTENT = (
    TextDelta,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    CallStarted,
    Cited,
    Block,
    Picture,
    Yielded,
    Finished,
)


def is_content(event: Event) -> bool:
    """Whether this event commits the attempt: what comes before may still be replaced by another channel's answer."""
    return isinstance(event, CONTENT)


class Call(msgspec.Struct):
    """A tool call put together."""

    id: str
    name: str
    arguments: str = ""
    kind: Literal["function", "custom"] = "function"
    signature: str | None = None


class Thought(msgspec.Struct):
    """A thinking block put together."""

    block: int
    text: str = ""
    signature: str | None = None
    data: str | None = None
    format: str = "unknown"


class Alternative(msgspec.Struct):
    """One choice of a folded answer. `order` lists the pieces in order of appearance: ("text", block), ("call", n) …"""

    text: str = ""
    refusal: str = ""
    thoughts: list[Thought] = []
    calls: list[Call] = []
    citations: list[Cited] = []
    blocks: list[Block] = []
    pictures: list[Picture] = []
    logprobs: list[dict[str, Any]] = []
    finished: Finished | None = None


class Answer(msgspec.Struct):
    """A whole answer, folded from its events."""

    started: Started = Started()
    choices: dict[int, Alternative] = {}
    usage: Usage | None = None
    failure: UpstreamFailure | None = None


def fold(events: Iterable[Event]) -> Answer:
    """Puts an answer together from its events; the last usage and the first finish of a choice win."""
    answer = Answer()
    for event in events:
        match event:
            case Started():
                answer.started = event
            case Metered(usage=usage):
                answer.usage = usage
            case Failed(failure=failure):
                answer.failure = failure
            case Skipped() | Ended() | Yielded():
                pass
            case _:
                _fold_into(answer.choices.setdefault(event.choice, Alternative()), event)
    return answer


def _thought(choice: Alternative, block: int) -> Thought:
    for thought in choice.thoughts:
        if thought.block == block:
            return thought
    choice.thoughts.append(Thought(block=block))
    return choice.thoughts[-1]


def _fold_into(choice: Alternative, event: Event) -> None:
    match event:
        case TextDelta(text=text):
            choice.text += text
        case RefusalDelta(text=text):
            choice.refusal += text
        case ReasoningDelta(text=text, block=block):
            _thought(choice, block).text += text
        case ReasoningSealed(block=block):
            thought = _thought(choice, block)
            thought.signature = event.signature or thought.signature
            thought.data = event.data or thought.data
            thought.format = event.format
        case CallStarted():
            choice.calls.append(Call(id=event.id, name=event.name, kind=event.kind, signature=event.signature))
        case CallDelta(call=number, text=text):
            choice.calls[number].arguments += text
        case Cited():
            choice.citations.append(event)
        case Block():
            choice.blocks.append(event)
        case Picture():
            choice.pictures.append(event)
        case LogProbs(content=content):
            choice.logprobs += content
        case Finished():
            choice.finished = choice.finished or event
        case _:
            pass
