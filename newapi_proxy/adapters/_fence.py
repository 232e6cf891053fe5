"""Takes a Markdown fence off an answer that is to be JSON, whole or streamed. Knows no provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from newapi_proxy.ir.events import Event, Failed, Finished, TextDelta

_FENCE: Final = "```"
_LONGEST_HEAD: Final = 64  # "```json" and its line end; a first line above this is no fence


class Fence:
    """Text in, text without the fence around it out. Text that does not begin with a fence passes untouched."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "head"
        self._held = ""

    def feed(self, text: str) -> str:
        """What of the text so far is sure to be the answer."""
        if self._state == "plain":
            return text
        self._held += text
        if self._state == "head" and not self._opened():
            return ""
        if self._state == "plain":
            held, self._held = self._held, ""
            return held
        sure = len(self._held.rstrip().rstrip("`").rstrip())  # the closing fence may be coming
        out, self._held = self._held[:sure], self._held[sure:]
        return out

    def close(self) -> str:
        """The answer has ended: what was held back, without the closing fence."""
        held, self._held = self._held, ""
        if self._state == "fenced":
            return held.rstrip().removesuffix(_FENCE).rstrip()
        line = held.strip()
        if len(line) > len(_FENCE) * 2 and line.startswith(_FENCE) and line.endswith(_FENCE):  # all in one line
            return line[len(_FENCE) : -len(_FENCE)].strip().removeprefix("json").strip()
        return held

    def _opened(self) -> bool:
        """Whether it is decided how the text begins."""
        start = self._held.lstrip()
        if not start.startswith(_FENCE):
            if _FENCE.startswith(start):
                return False
            self._state = "plain"
            return True
        head, end, body = start.partition("\n")
        if end:
            self._state, self._held = "fenced", body
            return True
        if len(head) > _LONGEST_HEAD:
            self._state = "plain"
            return True
        return False


def unfenced(fence: Fence, events: Iterable[Event]) -> Iterator[Event]:
    """The events without the fence around JSON that was asked for in words."""
    for event in events:
        if isinstance(event, TextDelta):
            if text := fence.feed(event.text):
                yield TextDelta(text)
            continue
        if isinstance(event, (Finished, Failed)) and (rest := fence.close()):
            yield TextDelta(rest)
        yield event
