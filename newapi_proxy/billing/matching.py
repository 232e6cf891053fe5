"""Names and patterns: which key of a table speaks for a model.

An exact name wins over a pattern, a pattern with more literal characters over one with fewer (interfaces 3). `*` stands
for any run of characters, an empty one too. Knows nothing of prices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

EXACT: Final = 1 << 30  # above every count of literal characters


class Names:
    """The keys of one table, ready for look-ups."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, keys: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._patterns: list[tuple[int, str, re.Pattern[str]]] = []
        for key in keys:
            if "*" in key:
                body = ".*".join(map(re.escape, re.split(r"\*+", key)))
                self._patterns.append((len(key) - key.count("*"), key, re.compile(body, re.DOTALL)))
            else:
                self._exact.add(key)
        self._patterns.sort(key=lambda pattern: (-pattern[0], pattern[1]))

    def best(self, name: str) -> tuple[int, str] | None:
        """(rank, key) of what matches best, or None; ranks of different tables compare."""
        if name in self._exact:
            return EXACT, name
        for literals, key, pattern in self._patterns:
            if pattern.fullmatch(name):
                return literals, key
        return None
