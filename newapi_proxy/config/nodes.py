"""The vocabulary of this package: places, faults, and YAML nodes that know where they stand.

Knows nothing of files on disk and nothing of the model. Nodes hold secrets as text: their repr never shows it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in the tree: ("channels", 0, "name")."""

_SIMPLE: Final = re.compile(r"[A-Za-z_*][\w-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SHOWN: Final = 60  # characters of a value that a message repeats


class Place(msgspec.Struct, frozen=True):
    """A position, line and column counted from 1; line 0 where the value comes from no file (`file` is `env:NAME`)."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong, or worth a warning; `str` is the line that people and editors read."""

    file: str
    line: int
    col: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.col}: {self.key}: {self.message}"
        if self.hint:
            text += f" (did you mean {self.hint}?)"
        return _CONTROL.sub(" ", text)  # one fault is one line, whatever a file or a key is called


class Scalar(msgspec.Struct, frozen=True):
    """One value as text. `tag` is YAML's reading of it, `plain` whether it stood without quotes.

    `source` is empty, `env:NAME` (several joined by ", ") or `file:PATH` where the text is not the file's own.
    """

    place: Place
    text: str
    tag: str = "str"
    plain: bool = True
    source: str = ""

    def __repr__(self) -> str:
        return f"Scalar({self.place}, {self.tag})"

    @property
    def null(self) -> bool:
        """Whether nothing was written."""
        return self.tag == "null"

    @property
    def shown(self) -> str:
        """The text for a message; a value that came from elsewhere may be a secret and is only named."""
        if self.source:
            return "the value of " + self.source.replace("env:", "$").replace("file:", "")
        return repr(self.text if len(self.text) <= SHOWN else self.text[:SHOWN] + "…")


class Items(msgspec.Struct, frozen=True):
    """A list."""

    place: Place
    items: tuple[Node, ...]


class Entry(msgspec.Struct, frozen=True):
    """A key's place and its value."""

    place: Place
    node: Node


class Problem(msgspec.Struct, frozen=True):
    """What was wrong in a mapping when it was read; becomes a fault once its path is known."""

    place: Place
    key: str
    message: str


class Table(msgspec.Struct, frozen=True):
    """A mapping."""

    place: Place
    entries: dict[str, Entry]
    problems: tuple[Problem, ...] = ()


class Broken(msgspec.Struct, frozen=True):
    """A value whose fault has been told already."""

    place: Place


Node: TypeAlias = Scalar | Items | Table | Broken


def dotted(path: Path) -> str:
    """channels[0].name, prices["gpt-4.1"].input"""
    text = ""
    for name in path:
        if isinstance(name, int):
            text += f"[{name}]"
        elif _SIMPLE.fullmatch(name):
            text += f".{name}" if text else name
        else:
            text += f'["{name}"]'
    return text or "(file)"


def fault(place: Place, path: Path | str, message: str, hint: str = "") -> Fault:
    """A fault at a place."""
    key = path if isinstance(path, str) else dotted(path)
    return Fault(place.file, place.line, place.column, key, message, hint)


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or nothing."""
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    if not found:
        found = [one for one in sorted(known) if one.lower().replace("-", "_") == word.lower().replace("-", "_")][:1]
    return found[0] if found else ""
