"""Frames that repeat one already read but for a piece of text: found in the bytes, without reading them.

A frame that says the same as another but for one string is told the same but for that string, and changes nothing in
a reader or passer that took the other. Providers pad their frames, so that sizes tell nothing of the text: what they
pad with is nobody's, and may differ too; so may the numbers of the usage beside it, of which the last ones count, and
the number that a frame has in its stream.
Knows bytes; what a repeated frame gives is the pipe's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from operator import itemgetter
from typing import Any, Final, NamedTuple

from newapi_proxy.ir.events import CallDelta, Event, Metered, ReasoningDelta, TextDelta
from newapi_proxy.wire import texts, tree
from newapi_proxy.wire.texts import MARKED
from newapi_proxy.wire.tree import string

TEXTS: Final = frozenset({TextDelta, ReasoningDelta, CallDelta})
NEWLINE: Final = 10
RETURN: Final = 13
BACKSLASH: Final = ord("\\")
_PADDED: Final = (b'"obfuscation":"', b'"p":"')
_NUMBERED: Final = b'"sequence_number":'
_DIGITS: Final = b"0123456789"
_BLANKS: Final = (b"\n\n", b"\r\n\r\n")  # how a frame ends
PLAIN: Final = bytes(code for code in range(32, 127) if code not in b'"\\')  # what a JSON string says as it is
QUOTES: Final = b'""'
_LETTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of what frames are padded with


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


def unquoted(texts: bytes | bytearray) -> str:
    """Texts of nothing but PLAIN, with their quotes, as one."""
    return texts.replace(b'"', b"").decode()


def blank(data: bytes) -> bytes:
    """How the first frame in these bytes ends, as far as anyone can see."""
    return _BLANKS[1] if RETURN in data else _BLANKS[0]


def ends(data: bytes) -> bool:
    """Whether a frame may end in these bytes."""
    if data.endswith(_BLANKS) or data.find(b"\n\n") >= 0:
        return True
    return RETURN in data and (data.find(b"\n\r") >= 0 or data.find(b"\r\r") >= 0)


class Seen(NamedTuple):
    """Bytes that repeat a pattern: how many there are, what they say (see wire.texts), what fills each gap, the usage
    that this is, and where the last frame begins."""

    size: int
    said: str
    fills: Sequence[bytes] = ()
    counts: Sequence[Any] = ()
    last: int = 0


Quick = tuple[bytes, bytes, slice | None]
"""What is enough to find a frame by: what stands before its text, and at its end; where the text is with its quotes,
None where the frame is padded behind it."""
Pieces = tuple[bytes, ...]
"""A frame's bytes but for what differs: up to its number (b"" for none), up to its text, behind that, and where there
is a gap behind that; the blank line last."""


class Pattern:
    """What stands around the text of a frame, around its number where that stands before the text, and around the gap
    behind the text, which is padding, usage or the number.

    `event` is what the frame said. `passed`: the same of the client's frame, where it is another. `counts`: whether
    usage stands in the gap. `numbered`: whether the frames have numbers. `silent`: such frames are passed as they are
    and leave nothing to be noted but their text. `quick`: for silent frames with nothing in their gap but padding.
    """

    __slots__ = (
        *("_after", "_before", "_between", "_end", "_fill", "_from", "_gap", "_lead", "_lines", "_pad", "_pieces"),
        *("_plain", "_quoted", "_stop", "_to", "counts", "event", "numbered", "passed", "quick", "silent"),
    )

    def __init__(self, pieces: Pieces, event: Event, passed: Pieces | None, fill: bytes) -> None:
        """`fill`: the usage that stood in the gap, b"" for anything else."""
        self._lead, before, after, *rest = pieces
        self.numbered = bool(self._lead) or after.endswith(_NUMBERED)
        self.event = event
        self.passed = passed
        self.counts = bool(fill)
        self._fill = fill and fill.translate(None, _DIGITS)
        self._pieces = pieces
        self._before, self._after, self._end = before, after, pieces[-1]
        self._gap = bool(rest)
        self._plain = not (rest or self._lead)
        self.silent = passed is None and not self.numbered
        self._between = after + before
        self._from = size = len(before)
        self._to = -len(after)
        self._quoted = slice(size - 1, 1 - len(after))
        self._pad = b" " if self._end[:1] == b"}" else _LETTERS
        self._stop = -len(self._end)
        quick = self.silent and not self.counts
        self.quick: Quick | None = (before, self._end, None if self._gap else self._quoted) if quick else None
        self._lines: tuple[itemgetter[slice], slice] | None = None

    @classmethod
    def learnt(
        cls, raw: bytes, events: Sequence[Event], passed: bytes, *, moving: bool = False, usage: bytes = b""
    ) -> Pattern | None:
        """The frame's pattern, where it says one piece of text, which stands in it once and as it is.

        `moving`: frames differ in more than that, so that a gap is looked for; `usage`: the key of usage that may
        stand beside the text. All other is told again by each frame that repeats this one: it is the same.
        """
        event = events[0] if events else None
        if type(event) not in TEXTS or not (len(events) == 1 or (len(events) == 2 and type(events[1]) is Metered)):
            return None
        text: str = event.text  # type: ignore[union-attr]
        key = (usage if len(events) == 2 else b"") if moving else None
        pieces = _split(raw, text, key)
        if pieces is None or event is None:
            return None
        told = None if passed is raw else _split(passed, text, key)
        if passed is not raw and (told is None or pieces[0]):
            return None
        fill = b""
        if key and len(pieces) == 4:
            fill = raw[len(pieces[1]) + len(text.encode()) + len(pieces[2]) : -len(pieces[3])]
        return cls(pieces, event, told, fill)

    def same(self, other: Pattern | None) -> bool:
        """Whether the other is this one, learnt from another frame."""
        return other is not None and self._pieces == other._pieces and self.passed == other.passed

    def one(self, data: bytes) -> str | None:
        """The text, where these bytes are one such frame: nearly every read of a slow stream.

        None too where what fills the gap is needed.
        """
        if not self._plain:
            quoted = self._spaced(data)
        elif data.startswith(self._before) and data.endswith(self._after):
            quoted = data[self._quoted]
        else:
            return None
        return None if not quoted or NEWLINE in quoted or MARKED in quoted else string(quoted)

    def _spaced(self, data: bytes) -> bytes:
        """The text of such a frame with its quotes, b"" where it is none, for a pattern of more than one piece."""
        if self._lead:
            start = self._begun(data, 0)
        else:
            start = self._from if data.startswith(self._before) else -1
        if start < 0 or not data.endswith(self._end):
            return b""
        if not self._gap:
            return data[start - 1 : 1 + self._to]
        return b"" if self.counts or self.passed is not None else self._within(data, start)

    def padded(self, data: bytes) -> bytes:
        """The text with its quotes of a frame whose beginning and end are right; b"" where it is not padded so."""
        middle = data.find(self._after, self._from)
        start = middle + len(self._after)
        if middle < 0 or start > len(data) + self._stop or data[start : self._stop].translate(None, self._pad):
            return b""
        return data[self._from - 1 : middle + 1]

    def _begun(self, data: bytes, start: int) -> int:
        """Where the text begins of the frame with a number before it that begins here; -1 where none does."""
        if not data.startswith(self._lead, start):
            return -1
        number = start + len(self._lead)
        at = data.find(self._before, number)
        return at + self._from if at >= 0 and _number(data[number:at]) else -1

    def _within(self, data: bytes, at: int) -> bytes:
        """The text with its quotes, where what fills the gap behind it is what it should be; b"" where not."""
        middle, stop = data.find(self._after, at), len(data) + self._stop
        start = middle + len(self._after)
        right = middle >= 0 and start <= stop and self._fills(data[start:stop])
        return data[at - 1 : middle + 1] if right else b""

    def run(self, data: bytes) -> Seen | None:
        """The first bytes, where they are a run of such frames up to the last one: a fast stream's reads."""
        if self._gap or self._lead or not data.startswith(self._before):
            return None
        size = data.rfind(self._after) + len(self._after)
        if size < len(self._after):
            return None
        text, which = self._lines = self._lines or _lines(self._before, self._after)
        # a reader of lines finds them in a third of the time that looking for what stands between takes
        found = list(map(text, BytesIO(data[:size]).readlines()[which]))
        said = self._between.join(found)  # put together again from their texts they are the same bytes
        if len(said) != size - self._from + self._to or not data.startswith(said, self._from):
            return None
        words = texts.joined(found)
        return None if words is None else Seen(size, words)

    def leading(self, data: bytes) -> Seen | None:
        """The same frame by frame: the bytes before the first that is not of this pattern."""
        found: list[bytes] = []
        fills: list[bytes] = []
        start = behind = 0
        lead, before, after, end, ending = self._lead, self._before, self._after, self._end, _ending(self._end)
        while data.startswith(lead or before, start):
            at = self._begun(data, start) if lead else start + self._from
            stop = data.find(ending, at) + len(ending) if at >= 0 else 0
            last = stop - len(end)
            if stop < len(ending) or not data.endswith(end, at, stop):
                break
            if self._gap:
                middle = data.find(after, at, stop)
                gap = middle + len(after)
                if middle < 0 or gap > last or not self._fills(data[gap:last]):
                    break
                fills.append(data[gap:last])
                last = middle
            found.append(data[at:last])
            behind, start = start, stop
        words = texts.joined(found) if found else None
        told = tree.lenient(b"[" + b",".join(fills) + b"]") if self.counts else []
        return None if words is None or type(told) is not list else Seen(start, words, fills, told, behind)

    def _fills(self, fill: bytes) -> bool:
        """Whether it is what this pattern's gap takes: other numbers, blanks between tokens, or a string of letters."""
        if self.counts:
            return fill.translate(None, _DIGITS) == self._fill
        if self._after.endswith(_NUMBERED):
            return _number(fill)
        return not fill.translate(None, self._pad)

    def told(self, said: str, fills: Sequence[bytes]) -> bytes:
        """The client's frames for those, where it gets others than came."""
        assert self.passed is not None
        _, head, tail, *end = self.passed
        if not end:
            return texts.told(said, head[:-1], tail[1:])
        filled = zip(said.split(texts.MARK), fills, strict=True)
        return b"".join([texts.told(word, head[:-1], tail[1:]) + fill + end[0] for word, fill in filled])


def _ending(piece: bytes) -> bytes:
    return _BLANKS[1] if piece.endswith(_BLANKS[1]) else _BLANKS[0]


def _lines(before: bytes, after: bytes) -> tuple[itemgetter[slice], slice]:
    """Where the text is in its line, and which lines of a run of frames have one."""
    text = slice(len(before) - before.rfind(b"\n") - 1, -after.find(b"\n") - 1)
    return itemgetter(text), slice(before.count(b"\n"), None, (before + after).count(b"\n"))


def _number(fill: bytes) -> bool:
    return fill.isdigit() and (fill[:1] != b"0" or len(fill) == 1)


def _split(raw: bytes, text: str, key: bytes | None) -> Pieces | None:
    """A frame cut at its number, its text, and the gap behind that where it has one; None where that cannot be.

    `key`: of the object that is a gap; None where there are no gaps and no number.
    """
    needle = b'"' + text.encode("utf-8", "replace") + b'"'
    # an escape could hide the text elsewhere, and what looks like it be something else
    if not text or BACKSLASH in raw or raw.count(needle) != 1 or not raw.endswith(_BLANKS):
        return None
    at = raw.index(needle)
    before, after = raw[: at + 1], raw[at + len(needle) - 1 :]
    if key is None:
        return b"", before, after
    lead, number, rest = before.partition(_NUMBERED)
    rest = rest.lstrip(_DIGITS)
    lead, before = (lead + number, rest) if number and rest else (b"", before)
    gap, stop = _gap(after, key)
    return (lead, before, after[:gap], after[stop:]) if gap >= 0 else (lead, before, after)


def _gap(after: bytes, key: bytes) -> tuple[int, int]:
    """Where the gap stands in what follows a text; -1 for none."""
    at = after.find(key) if key else -1
    if at >= 0:
        start = stop = after.find(b"{", at)
        while start >= 0 and (stop := after.find(b"}", stop) + 1):
            if after.count(b"{", start, stop) == after.count(b"}", start, stop):
                return start, stop
        return -1, -1
    for name in _PADDED:
        start = after.find(name) + len(name)
        stop = after.find(b'"', start)
        if start >= len(name) and stop >= 0:
            return start, stop
    start = after.find(_NUMBERED) + len(_NUMBERED)
    if start >= len(_NUMBERED):
        return start, len(after) - len(after[start:].lstrip(_DIGITS))
    body = after[: -len(_ending(after))]
    if body.endswith(b" }"):
        return len(body[:-1].rstrip(b" ")), len(body) - 1
    return -1, -1
