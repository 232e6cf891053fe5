"""Frames that repeat one already read but for a piece of text: found in the bytes, without reading them.

A frame that says the same as another but for one string is told the same but for that string, and changes nothing in
a reader or passer that took the other. Providers pad their frames, so that sizes tell nothing of the text: what they
pad with is nobody's, and may differ too. Knows bytes; what a repeated frame gives is the pipe's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from newapi_proxy.ir.events import CallDelta, Event, Metered, ReasoningDelta, TextDelta
from newapi_proxy.wire import texts, tree

TEXTS: Final = frozenset({TextDelta, ReasoningDelta, CallDelta})
_PADDED: Final = (b'"obfuscation":"', b'"p":"')
NEWLINE: Final = 10
_BLANKS: Final = (b"\n\n", b"\r\n\r\n")  # how a frame ends


def like(event: Event, text: str) -> Event:
    """The same event with another text."""
    match event:
        case TextDelta(choice=choice, block=block):
            return TextDelta(text, choice, block)
        case ReasoningDelta(choice=choice, block=block):
            return ReasoningDelta(text, choice, block)
        case CallDelta(call=call, choice=choice):
            return CallDelta(call, text, choice)
        case _:
            return event


def blank(data: bytes) -> bytes:
    """How the first frame in these bytes ends, as far as anyone can see."""
    return _BLANKS[1] if data.find(b"\r") >= 0 else _BLANKS[0]


class Seen(NamedTuple):
    """Bytes that repeat a pattern: how many there are, what they say (see wire.texts), and their padding."""

    size: int
    said: str
    pads: Sequence[bytes] = ()


class Pattern:
    """What stands around the text of a frame, up to its padding and behind it, and what that is in the client's frame.

    `event` is what the frame said. `passed`: the client's frame, where it is another.
    """

    __slots__ = (
        *("_after", "_before", "_between", "_end", "_from", "_pad", "_period", "_pieces", "_quoted", "_row"),
        *("_text", "_to", "event", "passed"),
    )

    def __init__(self, pieces: tuple[bytes, ...], event: Event, passed: tuple[bytes, ...] | None) -> None:
        """`pieces`: what stands before the text, behind it, and where there is padding behind that; blank line last."""
        self.event = event
        self.passed = passed
        self._pieces = pieces
        self._before, self._after, self._end = pieces[0], pieces[1], pieces[-1]
        self._pad = len(pieces) == 3
        self._between = self._after + self._before
        self._from = len(self._before)
        self._to = -len(self._after)
        self._quoted = slice(self._from - 1, self._to + 1)
        # the text's line among a frame's lines, and its place in that line
        self._row, self._period = self._before.count(b"\n"), self._between.count(b"\n")
        line = self._from - self._before.rfind(b"\n") - 1
        self._text = itemgetter(slice(line, -len(self._after.partition(b"\n")[0].rstrip(b"\r"))))

    @classmethod
    def learnt(cls, raw: bytes, events: Sequence[Event], passed: bytes) -> Pattern | None:
        """The frame's pattern, where it says one piece of text, which stands in it once and as it is.

        Usage beside the text is told again by each frame that repeats this one: it is the same.
        """
        event = events[0] if events else None
        if type(event) not in TEXTS or not (len(events) == 1 or (len(events) == 2 and type(events[1]) is Metered)):
            return None
        text: str = event.text  # type: ignore[union-attr]
        pieces = _split(raw, text)
        if pieces is None or event is None:
            return None
        told = None if passed is raw else _split(passed, text)
        return None if told is None and passed is not raw else cls(pieces, event, told)

    def same(self, other: Pattern | None) -> bool:
        """Whether the other is this one, learnt from another frame."""
        return other is not None and self._pieces == other._pieces and self.passed == other.passed

    def one(self, data: bytes) -> str | None:
        """The text, where these bytes are one such frame: nearly every read of a slow stream.

        None too where what the client gets needs the padding.
        """
        if not (data.startswith(self._before) and data.endswith(self._end)) or (self._pad and self.passed is not None):
            return None
        quoted = self._padded(data) if self._pad else data[self._quoted]
        return None if NEWLINE in quoted or texts.MARKED in quoted else tree.string(quoted)

    def _padded(self, data: bytes) -> bytes:
        """The text with its quotes, where the padding behind it is what it should be; b"" where not."""
        middle, stop = data.find(self._after, self._from), len(data) - len(self._end)
        start = middle + len(self._after)
        return data[self._from - 1 : middle + 1] if 0 <= middle <= stop and self._pads(data[start:stop]) else b""

    def run(self, data: bytes) -> Seen | None:
        """The first bytes, where they are a run of such frames up to the last one: a fast stream's reads."""
        last = -1 if self._pad else data.rfind(self._after)
        if last < self._from or not data.startswith(self._before):
            return None
        said = data[self._from : last]
        found = [said]
        if NEWLINE in said:  # several frames: put together again from their texts they are the same bytes
            lines = data[: last + len(self._after)].splitlines()  # half the price of a split by the blank line
            found = list(map(self._text, lines[self._row :: self._period]))
            if self._between.join(found) != said:
                return None
        words = texts.joined(found)
        return None if words is None else Seen(last + len(self._after), words)

    def leading(self, data: bytes) -> Seen | None:
        """The same frame by frame: the bytes before the first that is not of this pattern."""
        found: list[bytes] = []
        pads: list[bytes] = []
        start = 0
        before, after, end, ending = self._before, self._after, self._end, _ending(self._end)
        while (stop := data.find(ending, start) + len(ending)) >= len(ending):
            at = start + self._from
            if not data.startswith(before, start) or not data.endswith(end, at, stop):
                break
            if self._pad:
                middle = data.find(after, at, stop)
                pad = data[middle + len(after) : stop - len(end)]
                if not (0 <= middle <= stop - len(end) - len(after) and self._pads(pad)):
                    break
                pads.append(pad)
                found.append(data[at:middle])
            else:
                found.append(data[at : stop - len(end)])
            start = stop
        words = texts.joined(found) if found else None
        return None if words is None else Seen(start, words, pads)

    def _pads(self, pad: bytes) -> bool:
        """Whether it is padding as this pattern has it: blanks between tokens, or a string of letters."""
        if self._end[:1] == b"}":
            return not pad.strip(b" ")
        return not pad or pad.isalnum()

    def told(self, said: str, pads: Sequence[bytes]) -> bytes:
        """The client's frames for those, where it gets others than came."""
        assert self.passed is not None
        head, tail = self.passed[0][:-1], self.passed[1][1:]
        if len(self.passed) == 2:
            return texts.told(said, head, tail)
        padded = zip(said.split(texts.MARK), pads, strict=True)
        return b"".join([texts.told(word, head, tail) + pad + self.passed[2] for word, pad in padded])


def _ending(piece: bytes) -> bytes:
    return _BLANKS[1] if piece.endswith(_BLANKS[1]) else _BLANKS[0]


def _split(raw: bytes, text: str) -> tuple[bytes, ...] | None:
    """A frame cut at its text, and at its padding where it has some behind that; None where that cannot be."""
    needle = b'"' + text.encode("utf-8", "replace") + b'"'
    if not text or needle.find(b"\\") >= 0 or raw.count(needle) != 1 or not raw.endswith(_BLANKS):
        return None
    at = raw.index(needle)
    before, after = raw[: at + 1], raw[at + len(needle) - 1 :]
    for key in _PADDED:
        place = after.find(key)
        stop = after.find(b'"', place + len(key))
        if place >= 0 and stop >= 0:
            return before, after[: place + len(key)], after[stop:]
    ending = _ending(after)
    body = after[: -len(ending)]
    if body.endswith(b" }"):
        return before, body[:-1].rstrip(b" "), b"}" + ending
    return before, after
