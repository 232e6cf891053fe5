"""Upstream bytes to client bytes: `Translated` between two formats, `Verbatim` within one. One interface, no I/O.

Both listen to the reader's events (`Heard`): whether content has come, what was used, what was delivered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from newapi_proxy.adapters.base import Dialect
from newapi_proxy.billing.count import Tally
from newapi_proxy.errors import ProxyError, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    CONTENT,
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningDelta,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces.base import Face, Surface
from newapi_proxy.wire.sse import Decoder, Frame
from newapi_proxy.wire.tree import Document

BROKEN_IN_A_ROW: Final = 3  # undecodable frames before a stream is given up (fault U15)
WHOLE: Final = 64 * 1024 * 1024  # bytes of a whole answer
_STREAMED: Final = ("text/event-stream", "application/x-ndjson", "application/stream+json")  # lines may begin with "{"
_CONTENT: Final = frozenset(CONTENT)
_SPECIAL: Final = b'"\\' + bytes(range(32))
ALONE: Final = 64  # frames of one read that are looked at one by one; of more, none repeats the others
_TEXT: Final = frozenset({TextDelta, ReasoningDelta, RefusalDelta, CallDelta})


class Heard:
    """What a stream has said so far. `committed`: content has come; `ended`: upstream's last word."""

    __slots__ = ("_row", "committed", "ended", "failure", "finished", "model", "skipped", "tally", "usage")

    def __init__(self) -> None:
        self.committed = False
        self.finished = False
        self.ended = False
        self.failure: UpstreamFailure | None = None
        self.model: str | None = None  # as upstream names it
        self.usage: Usage | None = None
        self.tally = Tally()
        self.skipped = 0
        self._row = 0

    def take(self, event: Event) -> bool:
        """Listens to one event; False when nothing after it may be passed on."""
        kind = type(event)
        if kind in _TEXT:
            self.said(event.text)  # type: ignore[union-attr]
            return True
        elif kind is Metered:
            self.usage = event.usage  # type: ignore[union-attr]
        elif kind in _CONTENT:
            self.committed = True
            self.finished = self.finished or kind is Finished
        elif isinstance(event, Failed):
            self.failure = event.failure
            return False
        elif kind is Ended:
            self.ended = True
        elif isinstance(event, Started):
            self.model = event.model
        elif isinstance(event, Skipped):
            return self._skip(event)
        self._row = 0
        return True

    def said(self, text: str) -> None:
        """Listens to a piece of text."""
        self.tally.feed(text)
        self.committed = True
        self._row = 0

    def _skip(self, event: Skipped) -> bool:
        self.skipped += 1
        self._row += 1
        if self._row < BROKEN_IN_A_ROW:
            return True
        self.failure = UpstreamFailure("The upstream's stream cannot be read.", detail=event.why)
        return False


class Pipe(Protocol):
    """One streamed answer on its way."""

    @property
    def heard(self) -> Heard:
        """What upstream has said so far."""
        ...

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for these upstream bytes."""
        ...

    def drain(self) -> bytes:
        """Upstream has ended: what its last, open frame still gives."""
        ...

    def close(self, usage: Usage) -> bytes:
        """The tail of the client's stream, its terminator last."""
        ...

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """An error in place of the tail."""
        ...


class Translated:
    """Frames to events to the client's format."""

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = Heard()
        self._decoder = dialect.frames()
        self._reader = dialect.reader(ask)
        self._writer = surface.writer(ask, face)

    def feed(self, data: bytes) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        heard, read, tell = self.heard, self._reader.read, self._writer.feed
        for frame in self._decoder.feed(data):
            if heard.ended:
                break
            for event in read(frame):
                if not heard.take(event):
                    return b"".join(out)
                out.append(tell(event))
        return b"".join(out)

    def drain(self) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        if self.heard.failure is None:
            for frame in self._decoder.close():
                if not self._write(self._reader.read(frame), out):
                    return b"".join(out)
            if self.heard.committed:  # a stream that said nothing is a failed attempt, not an empty answer
                self._write(self._reader.close(), out)
        return b"".join(out)

    def close(self, usage: Usage) -> bytes:
        """See Pipe."""
        return self._writer.close(usage)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Pipe."""
        return self._writer.fail(error, request_id)

    def _write(self, events: Iterable[Event], out: list[bytes]) -> bool:
        for event in events:
            if not self.heard.take(event):
                return False
            out.append(self._writer.feed(event))
        return True


class Verbatim:
    """Frames forwarded as they came, or edited as trees; the reader only listens.

    A run of frames that differ from one already read in nothing but their text needs no reading: see `Template`.
    """

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = Heard()
        self._decoder = dialect.frames()
        self._reader = dialect.reader(ask)
        self._passer = surface.passer(ask, face)
        self._plain = isinstance(self._decoder, Decoder)  # the stream's bytes are the frames' own, nothing around them
        self._template: Template | None = None
        self._whole = True  # the last byte that came ended a frame

    def feed(self, data: bytes) -> bytes:
        """See Pipe."""
        if not self._plain or self.heard.finished:
            return self._read(data)
        out: list[bytes] = []
        tried = False  # whether these bytes were looked at as one run, which is worth it once
        alone = 0  # frames that were read one at a time
        while data and self.heard.failure is None and not self.heard.ended:
            same = 0
            if self._template is not None and self._whole:
                same, tried = self._repeats(self._template, data, run=not tried), True
            if same == len(data) and not out:
                return data
            if same:
                out.append(data[:same])
                data = data[same:]
                continue
            # one frame at a time while there is a pattern to be learnt from it, all that is left behind the finish
            end, alone = data.find(b"\n\n") + 2, alone + 1
            if end < 2 or self.heard.finished or alone > ALONE:
                end = len(data)
            out.append(self._read(data[:end]))
            data = data[end:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _repeats(self, template: Template, data: bytes, *, run: bool) -> int:
        """How many of the first bytes are frames of the pattern learnt; their text is heard."""
        same, said = template.run(data) if run else (0, b"")
        if not same:
            same, said = template.leading(data)
        if same:
            try:
                if not said.isascii():
                    data[:same].decode()  # a character may not begin in one frame and end in the next
                self.heard.said(said.decode())
            except UnicodeDecodeError:
                return 0
        return same

    def _read(self, data: bytes) -> bytes:
        out: list[bytes] = []
        heard = self.heard
        events: list[Event] = []
        passed = b""
        frame: Frame | None = None
        for frame in self._decoder.feed(data):
            if heard.ended:
                break
            events = list(self._reader.read(frame))
            for event in events:
                if not heard.take(event):
                    return b"".join(out)
            passed = self._passer.frame(frame, events)
            out.append(passed)
        self._whole = self._decoder.empty
        if heard.finished:
            self._template = None  # what a choice says after its end is the passer's to judge
        elif frame is not None and passed is frame.raw and len(events) == 1:
            self._template = Template.learnt(frame, events[0]) or self._template
        return out[0] if len(out) == 1 else b"".join(out)

    def drain(self) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        if self.heard.failure is not None:
            return b""
        for frame in self._decoder.close():
            events = list(self._reader.read(frame))
            if not all([self.heard.take(event) for event in events]):
                return b"".join(out)
            passed = self._passer.frame(frame, events)
            if passed and not passed.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
                passed = passed.rstrip(b"\r\n") + b"\n\n"  # upstream left the blank line out, clients want it
            out.append(passed)
        if self.heard.committed:
            for event in self._reader.close():
                self.heard.take(event)
        return b"".join(out)

    def close(self, usage: Usage) -> bytes:
        """See Pipe."""
        return self._passer.close(usage)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Pipe."""
        return self._passer.fail(error, request_id)


class Template:
    """A frame that was forwarded untouched and said one piece of text: what stands around that text in its bytes.

    Bytes that repeat what stands around, with other text between, are the same JSON but for one string: they say the
    same, are forwarded the same, and change nothing in a reader or passer that took the first. So they are not parsed.
    Text that needs a quote or a backslash breaks the pattern and is read as ever.
    """

    __slots__ = ("_after", "_before", "_between", "_end", "_from", "_to")

    def __init__(self, before: bytes, after: bytes) -> None:
        """`after` without the blank line."""
        self._before = before
        self._after = after
        self._end = after + b"\n\n"
        self._between = self._end + before
        self._from = len(before)
        self._to = -len(after)

    @classmethod
    def learnt(cls, frame: Frame, event: Event) -> Template | None:
        """The frame's template, where its text stands in it once and as it is."""
        if type(event) is not TextDelta or not event.text:
            return None
        raw, needle = frame.raw, b'"' + event.text.encode("utf-8", "replace") + b'"'
        if needle.find(b"\\") >= 0 or raw.count(needle) != 1 or not raw.endswith(b"\n\n"):
            return None
        at = raw.index(needle)
        return cls(raw[: at + 1], raw[at + len(needle) - 1 : -2])

    def run(self, data: bytes) -> tuple[int, bytes]:
        """How many bytes are a run of such frames, nothing else between them, and their text; 0 for no such run."""
        last = data.rfind(self._end)
        if last < self._from or not data.startswith(self._before):
            return 0, b""
        said = data[self._from : last]
        if said.find(b"\n") >= 0:  # several frames: put together again from their texts they are the same bytes
            start, end = self._from, self._to
            frames = data[: last + len(self._after)].splitlines()[::2]  # half the price of a split by the blank line
            texts = [frame[start:end] for frame in frames]
            if self._between.join(texts) != said:
                return 0, b""
            said = b"".join(texts)
        return (0, b"") if _special(said) else (last + len(self._end), said)

    def leading(self, data: bytes) -> tuple[int, bytes]:
        """The same frame by frame: the bytes before the first that is not of this pattern."""
        texts: list[bytes] = []
        at = 0
        while (end := data.find(b"\n\n", at)) >= 0:
            if not data.startswith(self._before, at) or not data.endswith(self._after, at + self._from, end):
                break
            text = data[at + self._from : end + self._to]
            if _special(text):
                break
            texts.append(text)
            at = end + 2
        return at, b"".join(texts)


def _special(text: bytes) -> bool:
    """Whether it holds what cannot stand in a JSON string as it is, or would end a frame."""
    return len(text.translate(None, _SPECIAL)) != len(text)  # the quickest way to look for many bytes at once


class Retold:
    """A whole answer where a stream was asked for (some upstreams ignore the wish): told as a stream."""

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = Heard()
        self._pieces: list[bytes] = []
        self._size = 0
        self._dialect = dialect
        self._ask = ask
        self._writer = surface.writer(ask, face)

    def feed(self, data: bytes) -> bytes:
        """See Pipe."""
        self._size += len(data)
        if self._size > WHOLE:
            raise UpstreamFailure("The upstream's answer is too large.", detail=f"above {WHOLE} bytes")
        self._pieces.append(data)
        return b""

    def drain(self) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        for event in self._dialect.answer(self._ask, Document(b"".join(self._pieces))):
            if not self.heard.take(event):
                break
            out.append(self._writer.feed(event))
        return b"".join(out)

    def close(self, usage: Usage) -> bytes:
        """See Pipe."""
        return self._writer.close(usage)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Pipe."""
        return self._writer.fail(error, request_id)


def looks_whole(content_type: str, first: bytes) -> bool:
    """Whether a response to a streaming request is a whole document: upstreams mislabel, so the bytes decide."""
    if content_type.startswith(_STREAMED):
        return False
    return first.lstrip()[:1] in (b"{", b"[", b"<")


def pipe(surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> Pipe:
    """The pipe for this pair of formats."""
    if surface.dialect == dialect.dialect:
        return Verbatim(surface, dialect, ask, face)
    return Translated(surface, dialect, ask, face)
