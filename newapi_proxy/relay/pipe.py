"""Upstream bytes to client bytes: `Translated` between two formats, `Verbatim` within one. One interface, no I/O.

Both listen to the reader's events (`Heard`): whether content has come, what was used, what was delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, Protocol, cast

from newapi_proxy.adapters.base import Decoder, Dialect, Metering, Repeating
from newapi_proxy.billing.count import Tally
from newapi_proxy.errors import ProxyError, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    CONTENT,
    CallStarted,
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
)
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay.depth import answered
from newapi_proxy.relay.pattern import PLAIN, QUOTES, TEXTS, Pattern, Quick, Seen, blank, ends, like, unquoted
from newapi_proxy.surfaces.base import Continuing, Face, Steady, Surface
from newapi_proxy.wire import sse, texts, tree
from newapi_proxy.wire.sse import Frame

BROKEN_IN_A_ROW: Final = 3  # undecodable frames before a stream is given up (fault U15)
WHOLE: Final = 64 * 1024 * 1024  # bytes of a whole answer
_STREAMED: Final = ("text/event-stream", "application/x-ndjson", "application/stream+json")  # lines may begin with "{"
_CONTENT: Final = frozenset(CONTENT)
FRESH: Final = 4096  # characters that are told the tally at once
ALONE: Final = 64  # frames of one read that are looked at one by one; of more, none repeats the others
HELD: Final = 4096  # bytes of a frame's beginning that wait unread for its end
RUNS: Final = 3  # times that one read is looked at as a run
TRIES: Final = 32  # patterns learnt in a row and never found again, before a stream is taken as one without
_TEXT: Final = TEXTS | {RefusalDelta}


class Heard:
    """What a stream has said so far. `committed`: content has come; `ended`: upstream's last word."""

    __slots__ = (
        *("_fresh", "_room", "_row", "_tally", "committed", "ended", "failure", "finished", "model", "plain"),
        *("skipped", "usage"),
    )

    def __init__(self) -> None:
        self.committed = False
        self.finished = False
        self.ended = False
        self.failure: UpstreamFailure | None = None
        self.model: str | None = None  # as upstream names it
        self.usage: Usage | None = None
        self.skipped = 0
        self._row = 0
        self._tally: Tally | None = None
        self._fresh: list[str] = []  # texts that the tally has not been told
        self.plain = bytearray()  # texts after those, with their quotes, that are in JSON what they are (see Pattern)
        self._room = FRESH

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
            if isinstance(event, CallStarted):
                self._tell().call(event.name)
            elif kind is ReasoningSealed:
                self._tell().thought()
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
        self.more(text)
        self.committed = True
        self._row = 0

    def more(self, text: str) -> None:
        """The same where the event before was text too."""
        if self.plain:
            self._tell()
        self._fresh.append(text)
        self._room -= len(text) + 1
        if self._room < 0:
            self._tell()

    @property
    def tally(self) -> Tally:
        """What was said, to be counted."""
        return self._tell() if self._fresh or self.plain or self._tally is None else self._tally

    def _tell(self) -> Tally:
        tally = self._tally = self._tally or Tally()
        fresh, self._fresh, self._room = self._fresh, [], FRESH
        if self.plain:
            fresh.append(unquoted(self.plain))
            self.plain.clear()
        tally.feed("".join(fresh))
        return tally

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


@cache
def _is(kind: type, what: type) -> bool:
    """Whether all of a kind can do this; looked up once, since a protocol's answer takes longer than a chunk."""
    return issubclass(kind, what)


class Skimmed(Protocol):
    """A pipe with a Skimmer."""

    def read(self, frames: Sequence[Frame]) -> bytes:
        """The client's bytes for these, which are read; the Skimmer is told of the last one."""
        ...

    def repeated(self, pattern: Pattern, said: str, data: bytes, seen: Seen | None = None) -> bytes:
        """The client's bytes for these, which repeat the pattern and say this (see wire.texts)."""
        ...


class Skimmer:
    """Parts a stream's bytes into those that repeat a frame already read, which are not read again, and all others.

    `ready`: what the next frame may repeat. `rest`: the beginning of a frame that may, which nobody has read.
    `tries`: patterns learnt since one was last found again.
    """

    __slots__ = ("_decoder", "_former", "_heard", "_moving", "_pattern", "_simple", "curious", "ready", "rest", "tries")

    def __init__(self, decoder: Decoder, heard: Heard) -> None:
        self._decoder = decoder
        self._heard = heard
        self._pattern: Pattern | None = None
        self._former: Pattern | None = None  # learnt before, and not trusted yet
        self._moving = False  # frames differ in more than their text
        self.ready: Pattern | None = None
        self.rest, self.tries = b"", 0
        self._simple = decoder if isinstance(decoder, sse.Decoder) else None
        self.curious = self._simple is not None  # the stream's bytes are the frames' own, nothing around them

    def feed(self, data: bytes, by: Skimmed) -> bytes:
        """The client's bytes for these."""
        if not self.curious and self._pattern is None:
            return by.read(self._decoder.feed(data))
        if self.rest:
            data, self.rest = self.rest + data, b""
        out: list[bytes] = []
        heard, decoder = self._heard, self._decoder
        runs = alone = 0  # how often these bytes were looked at as one run, and frames that were read one at a time
        ending = blank(data)
        simple = self._simple if ending == b"\n\n" else None  # a piece up to that is one frame, no more
        while data and heard.failure is None and not heard.ended:
            pattern, self._pattern = self._pattern, None
            if pattern is not None and decoder.empty:
                if len(data) < HELD and not ends(data):
                    self._pattern, self.rest = pattern, data
                    break
                runs += 1
                seen = (pattern.run(data) if runs <= RUNS else None) or pattern.leading(data)
                if seen is not None:
                    self._pattern = pattern
                    self.tries = 0
                    heard.said(texts.plain(seen.said))
                    out.append(by.repeated(pattern, seen.said, data[: seen.size], seen))
                    data = data[seen.size :]
                    continue
            # one frame at a time while there is a pattern to be learnt from it
            alone += 1
            end = data.find(ending) + len(ending) if self.curious and alone <= ALONE else 0
            if end < len(ending):
                frames, data = decoder.feed(data), b""
            elif simple and decoder.empty:
                frames, data = [simple.frame(data[:end])], data[end:]
            else:
                frames, data = decoder.feed(data[:end]), data[end:]
            out.append(by.read(frames))
        self.ready = self._pattern if decoder.empty and not self.rest else None
        return out[0] if len(out) == 1 else b"".join(out)

    def learn(self, frame: Frame, events: Sequence[Event], passed: bytes, usage: bytes) -> None:
        """The last frame read, its events, what the client gets for it and for frames like it; the key of usage."""
        if self._heard.finished:  # what a choice says after its end is for others to judge
            self.curious = False
            return
        self._moving = self._moving or self.tries > 1
        pattern = Pattern.learnt(frame.raw, events, passed, moving=self._moving, usage=usage)
        former, self._former = self._former, pattern
        if pattern is None:
            return
        self.tries += 1
        self.curious = self.tries < TRIES
        if pattern.passed is None or pattern.same(former):  # twice the same is no opening of something
            self._pattern = pattern


class Translated:
    """Frames to events to the client's format."""

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = Heard()
        self._decoder = dialect.frames()
        self._reader = dialect.reader(ask)
        self._writer = surface.writer(ask, face)
        self._repeats = cast(Repeating, self._reader) if _is(type(self._reader), Repeating) else None
        self._meters = cast(Metering, self._reader) if _is(type(self._reader), Metering) else None
        self._usage_key = b"" if self._meters is None else self._meters.usage_key()
        self._continues = cast(Continuing, self._writer) if _is(type(self._writer), Continuing) else None
        self._around: tuple[bytes, bytes] | None = None  # the text of what repeats
        self._skimmer = Skimmer(self._decoder, self.heard)
        self._skimmer.curious &= self._repeats is not None

    def feed(self, data: bytes) -> bytes:
        """See Pipe."""
        pattern = self._skimmer.ready
        said = None if pattern is None else pattern.one(data)
        if pattern is None or said is None:
            return self._skimmer.feed(data, self)
        self._skimmer.tries = 0
        self.heard.more(said)
        around, event = self._around, pattern.event
        if not said or around is None or self._repeats is None or self._continues is None:
            return self.repeated(pattern, said, data)
        self._repeats.more(event, said)
        self._continues.more(event, said)
        return around[0] + tree.encode(said) + around[1]

    def read(self, frames: Sequence[Frame]) -> bytes:
        """See Skimmed."""
        out: list[bytes] = []
        heard, read, tell = self.heard, self._reader.read, self._writer.feed
        frame: Frame | None = None
        events: Iterable[Event] = ()
        for frame in frames:
            if heard.ended:
                break
            events = read(frame)
            for event in events:
                if not heard.take(event):
                    return b"".join(out)
                out.append(tell(event))
        if frame is not None and self._skimmer.curious:
            self._learn(frame, list(events))
        return b"".join(out)

    def _learn(self, frame: Frame, events: Sequence[Event]) -> None:
        assert self._repeats is not None
        if events and self._repeats.repeats(events[0]):
            self._skimmer.learn(frame, events, frame.raw, self._usage_key)
            self._around = None if self._continues is None else self._continues.around(events[0])

    def repeated(self, pattern: Pattern, said: str, data: bytes, seen: Seen | None = None) -> bytes:
        """See Skimmed. What says nothing is no event."""
        if seen is not None and seen.counts and self._meters is not None:
            self.heard.usage = self._meters.count(seen.counts) or self.heard.usage
        event, said, around = pattern.event, texts.spoken(said), self._around
        if not said:
            return b""
        words = texts.plain(said)
        if self._repeats is not None:
            self._repeats.more(event, words)
        if around is None or self._continues is None:
            return b"".join([self._writer.feed(like(event, text)) for text in said.split(texts.MARK)])
        self._continues.more(event, words)
        return texts.told(said, *around)

    def drain(self) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        if self.heard.failure is None:
            if self._skimmer.rest:
                out.append(self.read(self._decoder.feed(self._skimmer.rest)))
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
    """Frames forwarded as they came, or edited as trees; the reader only listens."""

    __slots__ = (
        *("_decoder", "_found", "_last", "_meters", "_passer", "_plain", "_quick", "_reader", "_skimmer", "_steady"),
        *("_usage_key", "heard"),
    )

    def __init__(self, surface: Surface, dialect: Dialect, ask: Ask, face: Face) -> None:
        self.heard = Heard()
        self._decoder = dialect.frames()
        self._reader = dialect.reader(ask)
        self._passer = surface.passer(ask, face)
        self._steady = cast(Steady, self._passer) if _is(type(self._passer), Steady) else None
        self._meters = cast(Metering, self._reader) if _is(type(self._reader), Metering) else None
        self._usage_key = b"" if self._meters is None else self._meters.usage_key()
        self._skimmer = Skimmer(self._decoder, self.heard)
        self._last = b""  # a numbered frame that was not read
        self._quick: Quick | None = None  # of a pattern that is found again and again
        self._found: Pattern  # that one
        self._plain = self.heard.plain

    def feed(self, data: bytes) -> bytes:
        """See Pipe. What most chunks of most streams go through: nothing is called that can be done here."""
        if self._quick is None:
            return self._fed(data)
        before, end, quoted = self._quick
        if not (data.startswith(before) and data.endswith(end)):
            return self._fed(data)
        text = self._found.padded(data) if quoted is None else data[quoted]
        if text.translate(None, PLAIN) != QUOTES:
            return self._fed(data)
        self._plain += text
        if len(self._plain) > FRESH:
            _ = self.heard.tally
        return data

    def _fed(self, data: bytes) -> bytes:
        pattern = self._skimmer.ready
        said = None if pattern is None else pattern.one(data)
        if pattern is None or said is None:
            self._quick = None
            return self._skimmer.feed(data, self)
        self._quick, self._found = pattern.quick, pattern
        self._skimmer.tries = 0
        self.heard.more(said)
        return data if pattern.silent else self.repeated(pattern, said, data)

    def read(self, frames: Sequence[Frame]) -> bytes:
        """See Skimmed."""
        self._catch_up()
        out: list[bytes] = []
        heard = self.heard
        events: list[Event] = []
        passed = b""
        frame: Frame | None = None
        for frame in frames:
            if heard.ended:
                break
            events = list(self._reader.read(frame))
            for event in events:
                if not heard.take(event):
                    return b"".join(out)
            passed = self._passer.frame(frame, events)
            out.append(passed)
        if frame is None or not self._skimmer.curious:
            pass
        elif passed is frame.raw or (self._steady is not None and self._steady.steady()):
            self._skimmer.learn(frame, events, passed, self._usage_key)
        return out[0] if len(out) == 1 else b"".join(out)

    def repeated(self, pattern: Pattern, said: str, data: bytes, seen: Seen | None = None) -> bytes:
        """See Skimmed."""
        if seen is not None and seen.counts and self._meters is not None:
            self.heard.usage = self._meters.count(seen.counts) or self.heard.usage
        if pattern.numbered:
            self._last = data if seen is None else data[seen.last :]
        return data if pattern.passed is None else pattern.told(said, () if seen is None else seen.fills)

    def _catch_up(self) -> None:
        """Shows the passer the last of the numbered frames that were not read: what it goes on from."""
        last, self._last = self._last, b""
        if last:
            self._passer.frame(sse.Decoder().feed(last)[0], ())

    def drain(self) -> bytes:
        """See Pipe."""
        out: list[bytes] = []
        if self.heard.failure is not None:
            return b""
        if self._skimmer.rest:
            out.append(self.read(self._decoder.feed(self._skimmer.rest)))
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
        self._catch_up()
        return self._passer.close(usage)

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """See Pipe."""
        self._catch_up()
        return self._passer.fail(error, request_id)


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
        for event in answered(self._dialect, self._ask, tree.Document(b"".join(self._pieces))):
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
