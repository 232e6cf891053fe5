"""Local counting, for when upstream says nothing about usage: prompts, delivered text, lists of inputs.

Source: provider-translation E. Slow work (a megabyte takes tens of milliseconds, the first call loads tables): callers
on the event loop hand anything large to a thread. Not for holds: those are estimated from bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from newapi_proxy.billing import declared, encodings, families, formula, harmony, images, instructed, messages, tagged
from newapi_proxy.billing.encodings import loaded, tokens, warm
from newapi_proxy.ir.ask import Ask, Media, ToolResult, Turn
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire import tree

__all__ = ["LARGE", "Tally", "estimate", "inputs", "loaded", "prompt", "text", "warm"]

LARGE: Final = 100_000  # bytes: above it, count in a thread
_PIECES: Final = 256  # small strings weigh a multiple of their text: so many are joined


def prompt(ask: Ask, model: str | None = None, *, count_images: bool = True, plain: bool = False) -> int:
    """The request's input in tokens, for `model` (default: the name asked for).

    `count_images` False takes every picture at a flat price; `plain`: the provider counts no markup where the model's
    maker does. Raises OurError when a tokenizer's table is unusable.
    """
    name = model or ask.model
    if not ask.turns:
        said = ask.tree.get("input", ask.tree.get("prompt")) if ask.texts is None else ask.texts
        return inputs(said, name)
    family = families.family(name)
    media = sum(images.tokens(part, name, sized=count_images) for turn in ask.turns for part in _media(turn))
    if family.layout == "tagged":
        return tagged.counted(ask, name) + media
    if family.layout == "harmony":
        return harmony.counted(ask, name) + media
    if family.layout == "instructed":
        return instructed.counted(ask, family.request) + media
    if family.layout:
        return declared.counted(ask, family, plain=plain) + media
    if family.formula:
        return messages.counted(ask, name) + media
    return formula.estimated(ask, name, family) + media


def text(words: str, model: str) -> int:
    """An answer's text in tokens, the family's factor for output included."""
    return math.ceil(tokens(words, encodings.encoding(model)) * families.family(model).completion)


def inputs(value: Any, model: str) -> int:
    """The tokens of `input` or `prompt` as embeddings, moderations and completions have it.

    Text, a list of texts, a list of token numbers, or a list of such lists; other values as their JSON.
    """
    match value:
        case None:
            return 0
        case str():
            return tokens(value, encodings.encoding(model)) + families.family(model).item
        case list() | tuple() if all(type(item) is int for item in value):
            return len(value)
        case list() | tuple():
            return sum(inputs(item, model) for item in value)
        case _:
            return tokens(tree.dumps(value), encodings.encoding(model))


def estimate(ask: Ask, tally: Tally, model: str | None = None, *, count_images: bool = True) -> Usage:
    """The usage of a request whose provider stated none: the prompt, and what was delivered."""
    name = model or ask.model
    answer = tally.tokens(name, ask=ask)
    return Usage(prompt=prompt(ask, name, count_images=count_images), completion=answer, source="counted")


class Tally:
    """What was delivered of an answer, kept to be counted once at the end: deltas one by one give a wrong sum.

    Keeps at most `limit` bytes of text; what comes after is extrapolated from what was kept.
    """

    __slots__ = ("_before", "_calls", "_kept", "_limit", "_named", "_room", "_seen", "_thoughts")

    def __init__(self, limit: int = 65_536) -> None:
        self._kept: list[str] = []
        self._limit = limit
        self._room = limit
        self._seen = 0
        self._calls = 0
        self._before = 0  # bytes until the first call
        self._thoughts = 0
        self._named: list[tuple[int, int]] = []  # of each call: characters before its name, and the name's own

    def feed(self, words: str) -> None:
        """Text of any kind: visible, reasoning, a tool's name or arguments."""
        length = len(words) if words.isascii() else len(words.encode("utf-8", "replace"))
        self._seen += length
        if self._room > 0 and length:
            if length > self._room:
                words = words.encode("utf-8", "replace")[: self._room].decode("utf-8", "ignore")
            self._kept.append(words)
            self._room -= length
            if len(self._kept) > _PIECES:
                self._kept = ["".join(self._kept)]

    def call(self, name: str) -> None:
        """A tool call begins; its arguments are fed as text."""
        if not self._calls:
            self._before = self._seen
        self._calls += 1
        if name and self._room > 0:
            self._named.append((sum(map(len, self._kept)), len(name)))
        self.feed(name)

    def thought(self) -> None:
        """A thought is at its end; its text, where there was any, was fed."""
        self._thoughts += 1

    @property
    def size(self) -> int:
        """Bytes of text so far."""
        return self._seen

    @property
    def empty(self) -> bool:
        """Nothing was delivered."""
        return not (self._seen or self._calls)

    def tokens(self, model: str, *, plain: bool = False, ended: bool = True, ask: Ask | None = None) -> int:
        """The answer's tokens so far; `plain` as in `prompt`. Raises OurError when a tokenizer's table is unusable.

        An answer that has not `ended` is what was delivered of it: what a model puts around a whole one is not due.
        `ask`: what it answers; what that demands of an answer is not the model's own.
        """
        words = "".join(self._kept)
        family = families.family(model)
        if family.layout == "tagged":
            said, calls = self._parted(words)
            counted = 0 if self.empty else tagged.answered(said, calls, model, ask, ended=ended)
            counted += tagged.THOUGHT * self._thoughts
        else:
            counted = text(words, model) if words else 0
        if self._seen > self._limit:
            counted = -(-counted * self._seen // self._limit)
        if family.layout == "tagged":
            return counted
        arguments = words.count('":', self._before) if self._calls and family.argument else 0  # about: some are nested
        around = family.around(self._calls, plain=plain) + family.argument * arguments
        # where a call counts less than its JSON, one that says next to nothing is no credit
        return max(0, counted + (family.answer if ended and not self.empty else 0) + around)

    def _parted(self, words: str) -> tuple[str, list[tuple[str, str]]]:
        """What was said before the calls, and each call's name and arguments."""
        ends = [place for place, _ in self._named[1:]] + [len(words)]
        calls = [
            (words[place : place + size], words[place + size : end])
            for (place, size), end in zip(self._named, ends, strict=False)
        ]
        return words[: self._named[0][0]] if self._named else words, calls


def _media(turn: Turn) -> Iterable[Media]:
    for part in turn.parts:
        for piece in part.parts if isinstance(part, ToolResult) else (part,):
            if isinstance(piece, Media):
                yield piece
