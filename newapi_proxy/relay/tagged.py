"""A provider's dialect with the thinking that stands as tagged text in its answers told as thinking (`think_tags`).

What such an answer says is no longer in its bytes, so it has a dialect's name of its own: no surface takes it for the
client's format, and it is told from its events. Source: provider-translation B.0 (think-tag splitter).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from newapi_proxy.adapters.base import Decoder, Dialect, Headers, Outgoing, Reader, Repeating, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, TextDelta
from newapi_proxy.ir.thinking import Split
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document


class Tagged:
    """See adapters.base.Dialect."""

    __slots__ = ("_inner", "dialect")

    def __init__(self, inner: Dialect) -> None:
        self._inner = inner
        self.dialect = f"{inner.dialect}, think tags split"

    def serves(self, model: str) -> bool:
        """As the dialect inside."""
        return self._inner.serves(model)

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """As the dialect inside."""
        return self._inner.request(ask, to)

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """The events of a whole answer, its leading tagged span told as thinking."""
        return list(Split().all(self._inner.answer(ask, body)))

    def frames(self) -> Decoder:
        """As the dialect inside."""
        return self._inner.frames()

    def reader(self, ask: Ask) -> SplitReader:
        """A fresh reader that splits."""
        return SplitReader(self._inner.reader(ask))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """As the dialect inside."""
        return self._inner.failure(status, headers, body)


class SplitReader:
    """See adapters.base.Reader."""

    __slots__ = ("_inner", "_split")

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self._split = Split()

    def read(self, frame: Frame) -> list[Event]:
        """The frame's events, split."""
        return [one for event in self._inner.read(frame) for one in self._split.feed(event)]

    def repeats(self, event: Event) -> bool:
        """See adapters.base.Repeating: text behind the span is the inner reader's own."""
        inner = self._inner
        told = isinstance(event, TextDelta) and self._split.behind(event.choice)
        return told and isinstance(inner, Repeating) and inner.repeats(event)

    def more(self, event: Event, text: str) -> None:
        """See adapters.base.Repeating."""
        if isinstance(self._inner, Repeating):
            self._inner.more(event, text)

    def close(self) -> Iterator[Event]:
        """What is still missing, and what waits for the rest of a tag."""
        for event in self._inner.close():
            yield from self._split.feed(event)
        yield from self._split.close()
