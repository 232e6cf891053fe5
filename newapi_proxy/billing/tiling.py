"""The fewest pieces of a vocabulary that make up a text: how many tokens Claude's models take it for.

Measured by ctok's author against Anthropic's own counts; the pieces are data of the package (`data/ctok/NOTICE`), never
from the network. Two generations; the newer's pieces are almost all among the older's. Both take 50 ms and 11 MB.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from newapi_proxy.billing.marked import BEGIN, END, cased, chunks, normal
from newapi_proxy.billing.vocabulary import unpacked

Generation = Literal["claude3", "claude5"]
FILE: Final = Path(__file__).parent / "data" / "ctok" / "pieces.gz"
DIGEST: Final = "e17a09170435357289e7d05022afc248d4526c9e994b4a2fd010d42a9b06a813"
LONGEST: Final = 100_000  # characters of one chunk that are counted; the rest is extrapolated
# Every name that tells no older version is taken for the newest.
_OLDER: Final = re.compile(r"claude-(?:instant|(?:[a-z]+-)?(?:v?[12](?!\d)|3(?!\d)|4(?!\d|[-.][7-9](?!\d))))")
_KEPT: Final = 32_768  # chunks whose count is remembered
_SHORT: Final = 48  # characters of such a chunk
_LOADED: Final[dict[Generation, Vocabulary]] = {}
_LOADING: Final = threading.Lock()


class Vocabulary:
    """The pieces of one generation, and what chunks of them count."""

    __slots__ = ("_bytes", "_known", "_pieces", "_quotes", "_sizes", "_upper")

    def __init__(self, pieces: Iterable[str], begun: Iterable[str], *, older: bool) -> None:
        self._pieces = frozenset(pieces)
        self._bytes = frozenset(map(bytes.fromhex, begun))
        self._quotes = older  # curly quotes count as straight ones
        self._upper = older  # words in capitals have a mark of their own
        sizes: dict[str, set[int]] = {}
        for piece in self._pieces:
            if len(piece) > 1:
                sizes.setdefault(piece[:2], set()).add(len(piece))
        self._sizes = {start: tuple(sorted(found)) for start, found in sizes.items()}
        self._known: dict[str, int] = {}

    def count(self, text: str) -> int:
        """The tokens of a text by itself."""
        return self._sum(normal(text, quotes=self._quotes), False)

    def _sum(self, text: str, after: bool) -> int:
        return sum(
            self._chunk(chunk) * times for part in chunks(text, after=after) for chunk, times in Counter(part).items()
        )

    def said(self, text: str, *, headed: bool) -> int:
        """The tokens of a text that an empty line follows in the prompt; `headed`: a space is before it.

        Line breaks at its end go with the empty line's; a space at its beginning is the one before it.
        """
        whole = normal(text, quotes=self._quotes)
        words = whole.rstrip("\n")
        lines = len(whole) - len(words)
        if words.startswith(" ") and headed:
            headed = text.startswith(" ") and not words.startswith("  ")
            words = words[1:] if headed else words
        return self._sum(words, headed) + (self._sum("\n" * (lines + 2), False) - 1 if lines else 0)

    def _chunk(self, chunk: str) -> int:
        if chunk in self._pieces:
            return 1
        known = self._known.get(chunk)
        if known is not None:
            return known
        if len(chunk) > LONGEST:
            return -(-self._tiles(chunk[:LONGEST]) * len(chunk) // LONGEST)
        word = chunk[0] == BEGIN and chunk[-1] == END
        total = self._tiles(cased(chunk, upper=self._upper) if word else chunk)
        if len(chunk) <= _SHORT:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[chunk] = total
        return total

    def _tiles(self, text: str) -> int:
        """The least number of pieces: the best way to each place, going on from each by every piece that fits."""
        size = len(text)
        best = [size * 4 + 1] * (size + 1)
        best[0] = 0
        pieces, sizes = self._pieces, self._sizes
        for place in range(size):
            here = best[place]
            one = text[place]
            cost = here + (1 if one in pieces else self._letter(one))
            best[place + 1] = min(best[place + 1], cost)
            for length in sizes.get(text[place : place + 2], ()):
                end = place + length
                if end > size:
                    break
                if here + 1 < best[end] and text[place:end] in pieces:
                    best[end] = here + 1
        return best[size]

    def _letter(self, letter: str) -> int:
        """A character that is no piece: bytes, the first of which may be one token together."""
        data = letter.encode()
        joined = max((size for size in (2, 3) if data[:size] in self._bytes), default=1)
        return 1 + len(data) - joined


def generation(name: str) -> Generation:
    """Which vocabulary a model has, by its bare name."""
    return "claude3" if _OLDER.search(name) else "claude5"


def loaded(name: str) -> bool:
    """Whether that is a vocabulary, and in memory."""
    return name in _LOADED


def load(generation: Generation) -> Vocabulary:
    """A generation's vocabulary, from memory or its checked file. Raises OurError."""
    if generation not in _LOADED:
        with _LOADING:
            if generation not in _LOADED:
                _LOADED.update(read(FILE))
    return _LOADED[generation]


def read(file: Path) -> dict[Generation, Vocabulary]:
    """Both vocabularies from a file, checked. Raises OurError naming it."""
    groups = (group.split("\0") for group in unpacked(file, DIGEST).split("\1"))
    older, both, newer, old_bytes, new_bytes = groups
    return {
        "claude3": Vocabulary([*older, *both], old_bytes, older=True),
        "claude5": Vocabulary([*newer, *both], new_bytes, older=False),
    }
