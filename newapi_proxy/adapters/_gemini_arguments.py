"""Arguments of a call that come in pieces, each with its place: put together into one object.

Source: provider-translation A.7 and recorded streams (`partialArgs`, `willContinue`). The places come from outside:
what leads nowhere is left out, and nothing grows beyond what was sent.
"""

from __future__ import annotations

import re
from typing import Any, Final

Tree = dict[str, Any]

_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\[\s*'([^']*)'\s*\]|\[\s*\"([^\"]*)\"\s*\]")
_DEEPEST: Final = 64  # steps of one place
_VALUES: Final = ("numberValue", "boolValue")


class Pieces:
    """One call's arguments so far."""

    __slots__ = ("_place", "_text", "_value")

    def __init__(self) -> None:
        self._value: Tree = {}
        self._place = ""  # of the string that is still growing
        self._text: list[str] = []

    def take(self, pieces: Any) -> None:
        """Takes the pieces of one part."""
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict) and isinstance(piece.get("jsonPath"), str):
                self._take(piece["jsonPath"], piece)

    def object(self) -> Tree:
        """The arguments as far as they have come."""
        self._flush()
        return self._value

    def _take(self, place: str, piece: Tree) -> None:
        """One piece. A string may grow over many: it is joined once, when it is whole."""
        text = piece.get("stringValue")
        if isinstance(text, str):
            if place != self._place:
                self._flush()
                self._place = place
            self._text.append(text)
            if piece.get("willContinue") is not True:
                self._flush()
            return
        self._flush()
        value = next((piece[name] for name in _VALUES if isinstance(piece.get(name), (bool, int, float))), None)
        if value is not None or "nullValue" in piece:
            self._put(place, value)

    def _flush(self) -> None:
        if self._place:
            self._put(self._place, "".join(self._text))
        self._place = ""
        self._text = []

    def _put(self, place: str, value: Any) -> None:
        """Sets a value at its place; lists grow by one at a time."""
        steps = _steps(place)
        node: Any = self._value
        for number, step in enumerate(steps):
            last = number + 1 == len(steps)
            fresh: Any = value if last else [] if isinstance(steps[number + 1], int) else {}
            if isinstance(node, dict) and isinstance(step, str):
                node[step] = fresh if last else node.get(step, fresh)
                node = node[step]
            elif isinstance(node, list) and isinstance(step, int) and step <= len(node):
                if step == len(node):
                    node.append(fresh)
                elif last:
                    node[step] = fresh
                node = node[step]
            else:
                return


def _steps(place: str) -> list[str | int]:
    """`$.a[0]['b c']` as its steps; none where it is no such place."""
    at, steps = 1, list[str | int]()
    while at < len(place):
        found = _STEP.match(place, at)
        if found is None or len(steps) == _DEEPEST:
            return []
        name, index, *quoted = found.groups()
        steps.append(int(index) if index is not None else next((one for one in (name, *quoted) if one is not None), ""))
        at = found.end()
    return steps if place.startswith("$") else []
