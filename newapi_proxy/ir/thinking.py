"""Thinking as tagged text and as events of its own, both ways; the two channel options for it.

`Inlined` turns reasoning into `<think>…</think>` in the text, for clients that know no other place; `Split` moves a
leading tagged span of the text to reasoning. Both take and give events, keep their state per choice, and hold back no
more than a tag's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from newapi_proxy.ir.events import (
    CONTENT,
    Ended,
    Event,
    ReasoningDelta,
    ReasoningSealed,
    TextDelta,
)

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_CONTENT: Final = frozenset(CONTENT)


class Inlined:
    """Reasoning told as tagged text; signatures are left out."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # choice → block of the thinking that is open

    def feed(self, event: Event) -> Iterator[Event]:
        """The event, or what tells it as text."""
        if isinstance(event, ReasoningDelta):
            block = self._open.get(event.choice)
            if block is None:
                yield TextDelta(OPEN + "\n", event.choice)
            elif block != event.block:
                yield TextDelta("\n\n", event.choice)
            self._open[event.choice] = event.block
            yield TextDelta(event.text, event.choice)
            return
        if isinstance(event, ReasoningSealed):
            return
        if type(event) in _CONTENT:
            choice: int = event.choice  # type: ignore[union-attr]
            if self._open.pop(choice, None) is not None:
                yield TextDelta(f"\n{CLOSE}\n", choice)
        yield event


class _Span:
    """Where one choice's text stands: before, inside or behind its tagged span."""

    __slots__ = ("fresh", "held", "place")

    def __init__(self) -> None:
        self.held = ""
        self.place = "before"
        self.fresh = False  # just behind a tag: the line ends that follow it belong to it

    def to(self, place: str) -> None:
        """Passes a tag."""
        self.place, self.fresh = place, True

    def trimmed(self, text: str) -> str:
        """The text without the line ends that belong to the tag before it."""
        if self.fresh:
            text = text.lstrip("\n")
            self.fresh = not text
        return text


class Split:
    """A leading `<think>` span told as reasoning, wherever its tags are cut."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: dict[int, _Span] = {}

    def feed(self, event: Event) -> Iterator[Event]:
        """The event, or what it becomes; text that may be part of a tag waits for the next one."""
        if isinstance(event, TextDelta):
            span = self._spans.setdefault(event.choice, _Span())
            if span.place != "behind":
                yield from self._text(span, event)
            elif not span.fresh:
                yield event
            elif text := span.trimmed(event.text):
                yield TextDelta(text, event.choice, event.block)
            return
        if type(event) in _CONTENT:
            yield from self._flush(event.choice)  # type: ignore[union-attr]
        elif type(event) is Ended:
            yield from self.close()
        yield event

    def behind(self, choice: int) -> bool:
        """Whether all text that follows is told as it comes."""
        span = self._spans.get(choice)
        return span is not None and span.place == "behind" and not span.fresh

    def close(self) -> Iterator[Event]:
        """What still waits at the end of a stream without a finish."""
        for choice in list(self._spans):
            yield from self._flush(choice)

    def all(self, events: Iterable[Event]) -> Iterator[Event]:
        """A whole answer's events."""
        for event in events:
            yield from self.feed(event)
        yield from self.close()

    def _text(self, span: _Span, event: TextDelta) -> Iterator[Event]:
        text = span.held + event.text
        span.held = ""
        if span.place == "before":
            start = text.lstrip()
            if OPEN.startswith(start[: len(OPEN)]) and len(start) < len(OPEN):
                span.held = text
                return
            if not start.startswith(OPEN):
                span.place = "behind"
                yield TextDelta(text, event.choice, event.block)
                return
            span.to("inside")
            text = start[len(OPEN) :]
        yield from self._inside(span, text, event)

    def _inside(self, span: _Span, text: str, event: TextDelta) -> Iterator[Event]:
        thought, tag, rest = text.partition(CLOSE)
        if not tag:
            keep = next((size for size in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:size])), 0)
            span.held = thought[len(thought) - keep :]
            thought = thought[: len(thought) - keep]
        if thought := span.trimmed(thought):
            yield ReasoningDelta(thought, event.choice, event.block)
        if tag:
            span.to("behind")
            if rest := span.trimmed(rest):
                yield TextDelta(rest, event.choice, event.block)

    def _flush(self, choice: int) -> Iterator[Event]:
        span = self._spans.get(choice)
        if span is not None and span.held:
            held, span.held = span.held, ""
            if span.place == "inside":
                yield ReasoningDelta(held, choice)
            else:
                span.place = "behind"
                yield TextDelta(held, choice)
