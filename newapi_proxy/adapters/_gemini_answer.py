"""Gemini's answers as events: one reader for streams, and for whole answers by way of the same steps.

Every chunk is a whole answer's shape. Foreign numbers and shapes are never trusted: what has the wrong type is not
there. Source: provider-translation B.2 "Streaming in", A.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from newapi_proxy.adapters import _gemini_quick as quick
from newapi_proxy.adapters._failures import scrubbed
from newapi_proxy.adapters._fence import Fence
from newapi_proxy.adapters._gemini_arguments import Pieces
from newapi_proxy.adapters._gemini_citations import citations
from newapi_proxy.adapters._gemini_contents import SIGNED
from newapi_proxy.adapters._gemini_draft import DIALECT
from newapi_proxy.adapters._gemini_failures import spoken
from newapi_proxy.adapters._gemini_usage import Meter
from newapi_proxy.adapters._tools import as_text, new_id, sealed_id
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Failed,
    Finish,
    Finished,
    LogProbs,
    Metered,
    Picture,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire.sse import Frame

Tree = dict[str, Any]

FAMILY: Final = "google"
MOST_CHOICES: Final = 128
MISSES: Final = 8  # chunks of other kinds before the quick way is given up
MOST_CALLS: Final = 1024  # in one choice
MOST_TEXT: Final = 1024 * 1024  # characters of a choice's text kept for the places of citations
_FINISHES: Final[dict[str, Finish]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "content_filter"),
    **dict.fromkeys(("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"), "content_filter"),
    **dict.fromkeys(("IMAGE_OTHER", "MODEL_ARMOR", "LANGUAGE"), "content_filter"),
}
# The model did not get to an answer: what it has said counts, without a word it is a failure.
_BROKEN: Final = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "OTHER",
        "NO_IMAGE",
        "MALFORMED_RESPONSE",
    }
)
_NO_WORD: Final = ("", "FINISH_REASON_UNSPECIFIED")
_OWN_PARTS: Final = ("toolCall", "toolResponse", "fileData", "functionResponse")


def whole(value: Any, ask: Ask) -> list[Event]:
    """A whole answer's events, also of one that came as an array of chunks. One that is none yields `Failed`."""
    reader = EventReader(ask)
    chunks = value if isinstance(value, list) else [value]
    events = [event for chunk in chunks if isinstance(chunk, dict) for event in reader.take(chunk)]
    events += reader.close()
    if any(isinstance(event, (Finished, Failed)) for event in events):
        return events
    return [Failed(UpstreamFailure("The upstream's answer cannot be read."))]


class _Pending:
    """A call whose arguments come in pieces."""

    __slots__ = ("id", "name", "pieces", "signature")

    def __init__(self, name: str, id: str, signature: str) -> None:
        self.name = name
        self.id = id
        self.signature = signature
        self.pieces = Pieces()


class _Strand:
    """One candidate while it comes in."""

    __slots__ = (
        "_kind",
        "block",
        "calls",
        "choice",
        "cited",
        "detail",
        "fence",
        "finished",
        "grounding",
        "kept",
        "length",
        "native",
        "pending",
        "said",
        "spoke",
    )

    def __init__(self, choice: int, fence: Fence | None) -> None:
        self.choice = choice
        self.block = -1
        self._kind = ""
        self.calls = 0
        self.said = False  # anything that went to the client
        self.spoke = False  # of it, words or pictures
        self.finished = False
        self.native = ""
        self.detail = ""
        self.pending: _Pending | None = None
        self.grounding: Any = None
        self.cited: Any = None
        self.kept: list[str] = []
        self.length = 0
        self.fence = fence

    def at(self, kind: str) -> int:
        """The block for this kind of content: a new one where the kind changes."""
        if kind != self._kind:
            self._kind = kind
            self.block += 1
        return self.block

    @property
    def open(self) -> bool:
        """Text may be told as it comes."""
        return not self.finished and self.pending is None and self.fence is None

    def closed(self) -> None:
        """What comes next begins a block of its own."""
        self._kind = ""

    def keep(self, text: str) -> None:
        """Remembers the text for the places of citations, unless it is too long."""
        self.length += len(text)
        if self.length <= MOST_TEXT:
            self.kept.append(text)

    @property
    def text(self) -> str | None:
        """All text so far; None where it was too long to be kept."""
        return "".join(self.kept) if self.length <= MOST_TEXT else None


class EventReader:
    """One answer's state; see adapters.base.Reader."""

    __slots__ = ("_begun", "_fenced", "_id", "_meter", "_misses", "_seals", "_strands")

    def __init__(self, ask: Ask) -> None:
        self._begun = False
        self._id = ""
        self._meter = Meter()
        self._strands: dict[int, _Strand] = {}
        self._seals = ask.dialect != DIALECT
        self._misses = 0
        self._fenced = self._seals and ask.controls.format is not None and bool(ask.tools)

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        if self._begun and frame.data is not None and self._misses < MISSES:
            said = self._quick(frame.data)
            if said is not None:
                return said
        value = frame.tree
        if isinstance(value, dict):
            return self.take(value)
        if frame.data is None or not frame.data.strip() or frame.done:
            return ()
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return [event for one in value for event in self.take(one)]
        return (Skipped("an event that is no JSON object"),)

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating."""
        strand = self._strands.get(event.choice) if isinstance(event, TextDelta | ReasoningDelta) else None
        return strand is not None and strand.open

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating."""
        if type(event) is TextDelta:
            strand = self._strands[event.choice]
            strand.spoke = strand.spoke or not text.isspace()
            strand.keep(text)

    def usage_key(self) -> bytes:
        """See adapters.base.Metering."""
        return b'"usageMetadata"'

    def count(self, told: Sequence[Any]) -> Usage | None:
        """See adapters.base.Metering: the last that can be believed."""
        for one in reversed(told):
            usage = self._meter.again(one)
            if usage is not None:
                return usage
        return None

    def take(self, chunk: Tree) -> list[Event]:
        """The events of one chunk."""
        failure = spoken(chunk)
        if failure is not None:
            return [Failed(failure)]
        events: list[Event] = []
        candidates = chunk.get("candidates")
        feedback = chunk.get("promptFeedback")
        if not self._begun:
            self._begun = True
            self._id = _word(chunk.get("responseId"))
            events.append(_started(chunk, self._id))
        for place, candidate in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(candidate, dict) and place < MOST_CHOICES:
                events += self._candidate(candidate, place)
        if not candidates and isinstance(feedback, dict) and _word(feedback.get("blockReason")):
            events += self._blocked(feedback)
        usage = self._meter.take(chunk.get("usageMetadata"))
        if usage is not None:
            events.append(Metered(usage))
        return events

    def _quick(self, data: bytes) -> list[Event] | None:
        """More of one candidate's text, which nearly every chunk is; None where there is anything beside it."""
        chunk = quick.read(data)
        strand = None if chunk is None else self._strands.get(chunk.candidates[0].index)
        if chunk is None or strand is None or not strand.open:
            self._misses += 1
            return None
        text = chunk.candidates[0].content.parts[0].text
        events: list[Event] = []
        if text:
            strand.said = True
            strand.spoke = strand.spoke or not text.isspace()
            strand.keep(text)
            events.append(TextDelta(text, strand.choice, strand.at("text")))
        usage = self._meter.quick(chunk.usageMetadata)
        if usage is not None:
            events.append(Metered(usage))
        return events

    def close(self) -> list[Event]:
        """See adapters.base.Reader. The format has no last word: a stream that ends has ended (B.2)."""
        events: list[Event] = []
        for choice in sorted(self._strands):
            events += self._finish(self._strands[choice])
        return events

    def _candidate(self, candidate: Tree, place: int) -> list[Event]:
        """One candidate's part of a chunk. Its place in the list is its number where it says none (A.7)."""
        index = candidate.get("index")
        choice = index if type(index) is int and 0 <= index < MOST_CHOICES else place
        strand = self._strands.get(choice)
        if strand is None:
            strand = self._strands[choice] = _Strand(choice, Fence() if self._fenced else None)
        if strand.finished:
            return []
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        events: list[Event] = []
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                events += self._part(strand, part)
        events += _weighed(candidate.get("logprobsResult"), choice)
        strand.said = strand.said or any(not isinstance(event, LogProbs) for event in events)
        strand.grounding = candidate.get("groundingMetadata") or strand.grounding
        strand.cited = candidate.get("citationMetadata") or strand.cited
        native = _word(candidate.get("finishReason"))
        if native not in _NO_WORD:
            strand.native = native
            strand.detail = _word(candidate.get("finishMessage"))
            if not strand.said and strand.pending is None:
                return events + self._finish(strand)
        return events  # the finish waits: some models say it with every chunk

    def _blocked(self, feedback: Tree) -> list[Event]:
        """The prompt was refused: an answer of no candidate."""
        if self._strands:
            return []
        strand = self._strands[0] = _Strand(0, None)
        strand.finished = True
        reason = _word(feedback.get("blockReason"))
        words = _word(feedback.get("blockReasonMessage")) or reason
        return [RefusalDelta(words), Finished("content_filter", native=reason, detail=words)]

    def _part(self, strand: _Strand, part: Tree) -> Iterable[Event]:
        """One part. Whatever is no call ends a call that came in pieces: upstream may leave its last piece out."""
        signature = _word(part.get("thoughtSignature"))
        call = part.get("functionCall")
        if isinstance(call, dict):
            return self._call(strand, call, signature)
        ended = self._called(strand)
        text = part.get("text")
        if isinstance(text, str):
            return [*ended, *_text(strand, text, signature, thought=part.get("thought") is True)]
        return [*ended, *_other(strand, part, signature)]

    def _call(self, strand: _Strand, call: Tree, signature: str) -> list[Event]:
        """A call, whole or in pieces; a piece without a name belongs to the call that is open."""
        name, more = _word(call.get("name")), call.get("willContinue") is True
        pieces = call.get("partialArgs")
        if not name:
            if strand.pending is not None:
                strand.pending.pieces.take(pieces)
            return [] if more else self._called(strand)
        events = self._called(strand)
        if more or pieces is not None:
            strand.pending = _Pending(name, _word(call.get("id")), signature)
            strand.pending.pieces.take(pieces)
            return events if more else events + self._called(strand)
        args = call.get("args")
        return events + self._whole_call(strand, name, _word(call.get("id")), args, signature)

    def _called(self, strand: _Strand) -> list[Event]:
        """The call that came in pieces, whole; nothing where none is open."""
        pending, strand.pending = strand.pending, None
        if pending is None:
            return []
        return self._whole_call(strand, pending.name, pending.id, pending.pieces.object(), pending.signature)

    def _whole_call(self, strand: _Strand, name: str, id: str, args: Any, signature: str) -> list[Event]:
        """A call with all of its arguments. Its id is upstream's, else one that the same answer gives again; for
        clients of other formats it carries the signature.
        """
        if strand.calls == MOST_CALLS:
            return []
        number = strand.calls
        strand.calls += 1
        arguments = _arguments(args)
        id = id or new_id(f"{self._id or arguments}:{strand.choice}:{number}:{name}")
        if signature and self._seals:
            id = sealed_id(id, signature)
        strand.closed()
        started = CallStarted(number, id, name, strand.choice, strand.at("call"), signature=signature or None)
        strand.closed()
        return [started, CallDelta(number, arguments, strand.choice)]

    def _finish(self, strand: _Strand) -> list[Event]:
        """The end of a candidate: what was held back, what it rests on, why it ended."""
        if strand.finished:
            return []
        strand.finished = True
        events = [*_text_rest(strand), *self._called(strand)]
        native = strand.native
        if native in _BROKEN and not strand.spoke and not strand.calls:
            return [*events, Failed(_broken(native, strand.detail))]
        for value in citations(strand.grounding, strand.cited, strand.text):
            events.append(Cited(value, "web", strand.choice, strand.block))
        reason: Finish = "tool_calls" if strand.calls else _FINISHES.get(native, "stop")
        return [*events, Finished(reason, strand.choice, native=native or None, detail=strand.detail or None)]


def _started(chunk: Tree, id: str) -> Started:
    """The answer's head; the id as clients of the commonest format know ids (B.2)."""
    return Started(f"chatcmpl-{id}" if id else None, _word(chunk.get("modelVersion")) or None, _seconds(chunk))


def _seconds(chunk: Tree) -> int | None:
    """`createTime`, where it is a moment and not a local time of nowhere."""
    try:
        moment = datetime.fromisoformat(_word(chunk.get("createTime")))
    except ValueError:
        return None
    return max(0, int(moment.timestamp())) if moment.tzinfo is not None else None


def _broken(native: str, detail: str) -> UpstreamFailure:
    """The failure of an answer that never came to words: the model's fault, so that no channel is parked for it."""
    words = f": {scrubbed(detail)}" if detail else "."
    return UpstreamFailure(f"The model did not complete its answer ({native}){words}", blames="nobody", detail=native)


def _arguments(args: Any) -> str:
    """The arguments as text; none, and what no writer can nest so deep, are an empty object."""
    try:
        return as_text(args) if isinstance(args, dict) else "{}"
    except TypeError:
        return "{}"


def _text(strand: _Strand, text: str, signature: str, *, thought: bool) -> Iterator[Event]:
    """Words or thoughts, and the signature that belongs to them: of a thought its own, of text a payload behind it.

    Nothing at all begins no block.
    """
    if not text and not signature:
        return
    if thought:
        block = strand.at("thought")
        if text:
            yield ReasoningDelta(text, strand.choice, block)
        if signature:
            yield ReasoningSealed(signature, format=SIGNED, choice=strand.choice, block=block)
            strand.closed()
        return
    if strand.fence is not None:
        text = strand.fence.feed(text)
    block = strand.at("text")
    if text:
        yield from _words(strand, text, block)
    if signature:
        yield ReasoningSealed(data=signature, format=SIGNED, choice=strand.choice, block=block)
        strand.closed()


def _words(strand: _Strand, text: str, block: int) -> Iterator[Event]:
    """Visible text; blanks alone are no answer."""
    strand.spoke = strand.spoke or bool(text.strip())
    strand.keep(text)
    yield TextDelta(text, strand.choice, block)


def _text_rest(strand: _Strand) -> list[Event]:
    """What the fence held back in case it was its closing line."""
    rest = strand.fence.close() if strand.fence is not None else ""
    return list(_words(strand, rest, strand.at("text"))) if rest else []


def _other(strand: _Strand, part: Tree, signature: str) -> Iterator[Event]:
    """A part that is neither text nor a call of the client's."""
    code, result, blob = (part.get(name) for name in ("executableCode", "codeExecutionResult", "inlineData"))
    if isinstance(code, dict):
        yield from _fenced(strand, _word(code.get("code")), _word(code.get("language")).lower())
    elif isinstance(result, dict):
        yield from _fenced(strand, _word(result.get("output")), "")
    elif isinstance(blob, dict) and _word(blob.get("data")) and _word(blob.get("mimeType")).startswith("image/"):
        strand.spoke = True
        strand.closed()
        yield Picture(blob["data"], blob["mimeType"], strand.choice, strand.at("picture"))
        strand.closed()
    elif isinstance(blob, dict) or any(name in part for name in _OWN_PARTS):
        yield Block(part, FAMILY, strand.choice, strand.at("own"))
        strand.closed()
    elif signature:
        yield from _text(strand, "", signature, thought=False)


def _fenced(strand: _Strand, code: str, language: str) -> Iterator[Event]:
    """Code that the provider ran, or what it printed, as a block of Markdown."""
    if not code:
        return
    fence = "```"
    while fence in code:
        fence += "`"
    before = "" if not strand.length or (strand.kept and strand.kept[-1].endswith("\n")) else "\n\n"
    end = "" if code.endswith("\n") else "\n"
    yield from _words(strand, f"{before}{fence}{language}\n{code}{end}{fence}\n", strand.at("text"))


def _weighed(result: Any, choice: int) -> list[Event]:
    """Log probabilities in OpenAI's shape (T-VERT-010)."""
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    if not isinstance(chosen, list):
        return []
    tops = result.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    content = []
    for number, one in enumerate(chosen):
        top = tops[number].get("candidates") if number < len(tops) and isinstance(tops[number], dict) else None
        rivals = [_weight(rival) for rival in top if isinstance(rival, dict)] if isinstance(top, list) else []
        if isinstance(one, dict):
            content.append({**_weight(one), "top_logprobs": rivals})
    return [LogProbs(tuple(content), choice)] if content else []


def _weight(candidate: Tree) -> Tree:
    """One token in OpenAI's shape."""
    token, weight = _word(candidate.get("token")), candidate.get("logProbability")
    likely = weight if type(weight) in (int, float) else 0.0
    return {"token": token, "logprob": likely, "bytes": list(token.encode("utf-8", "replace"))}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
