"""YAML text to nodes: strict, bounded, every value with its place.

Built on the parser's events, not on its recursive composer: depth and size are limited while reading, so that no file
can exhaust the stack or the memory. Knows nothing of files, environment or the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from newapi_proxy.config.nodes import Entry, Fault, Items, Node, Place, Problem, Scalar, Table, fault

MAX_DEPTH: Final = 50
_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
MAX_NODES: Final = 200_000  # aliases count as often as they are used

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Final[Any] = yaml.resolver.Resolver()
_UNPRINTABLE: Final = yaml.reader.Reader.NON_PRINTABLE
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset({"str", "int", "float", "bool", "null", "timestamp", "map", "seq"})
_TOKEN: Final = re.compile(r"\$\{[A-Za-z_]\w*(?::-[^{}\n]*)?\}")
_INDICATORS: Final = "{}[],:#?"
_PRIVATE: Final = range(0xE000, 0xF800, 0x100)


class Refused(Exception):
    """The text cannot be read as a whole; `fault` says where and why."""

    def __init__(self, reason: Fault) -> None:
        super().__init__(str(reason))
        self.fault = reason


def parse(text: str, file: str) -> Node | None:
    """The document's root, None where there is none. Raises Refused at the first error of syntax."""
    return _Builder(text, file).document()


def implicit(text: str) -> str:
    """YAML's tag of a plain scalar: int, bool, null, str …"""
    tag = str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False))).removeprefix(_TAG)
    return tag if tag in _TAGS else "str"


def _shield(text: str) -> tuple[str, dict[int, int]]:
    """The text with `${NAME}` kept whole inside flow lists such as `keys: [${A}]`, and the way back.

    YAML gives braces and commas a meaning there; each is replaced by a private character that the text does not use,
    one for one, so that lines and columns stay true.
    """
    base = next((one for one in _PRIVATE if not any(chr(one + ord(c)) in text for c in _INDICATORS)), None)
    if base is None or "${" not in text:
        return text, {}
    there = {ord(c): base + ord(c) for c in _INDICATORS}
    shielded = _TOKEN.sub(lambda found: found[0].translate(there), text)
    return shielded, {new: old for old, new in there.items()}


class _Builder:
    """One document: events in, nodes out."""

    def __init__(self, text: str, file: str) -> None:
        self._file, self._text = file, text
        bad = _UNPRINTABLE.search(text)
        if bad:
            line = text.count("\n", 0, bad.start()) + 1
            column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
            raise Refused(fault(Place(file, line, column), "yaml", f"character U+{ord(bad[0]):04X} is not allowed"))
        shielded, self._back = _shield(text)
        self._events: Iterator[Event] = iter(yaml.parse(shielded, Loader=_LOADER))
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._count = 0

    def document(self) -> Node | None:
        """Reads to the end: a second document is refused."""
        root: Node | None = None
        documents = 0
        while (event := self._next()) is not None:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._refuse(event, "a second document begins here; one file holds one")
                root = self._node(self._due(), 0)
        return root

    def _next(self) -> Event | None:
        try:
            return next(self._events, None)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self._file, mark.line + 1, mark.column + 1) if mark else Place(self._file, 1, 1)
            problem = (error.problem or error.context or "cannot be read").translate(self._back)
            if "nesting depth" in problem:  # the scanner runs ahead of the events and has a limit of its own
                problem = _TOO_DEEP
            elif "cannot start any token" in problem and self._tabbed(place):
                problem = "a tab, where YAML wants spaces"
            raise Refused(fault(place, "yaml", problem)) from None
        except (yaml.YAMLError, ValueError):
            raise Refused(fault(Place(self._file, 1, 1), "yaml", "cannot be read as YAML")) from None

    def _tabbed(self, place: Place) -> bool:
        lines = self._text.split("\n", place.line)
        return len(lines) >= place.line and lines[place.line - 1][place.column - 1 :].startswith("\t")

    def _due(self) -> Event:
        event = self._next()
        assert event is not None  # the parser closes what it opens, or raises
        return event

    def _place(self, event: Event) -> Place:
        mark: Any = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _refuse(self, event: Event, message: str) -> Refused:
        return Refused(fault(self._place(event), "yaml", message))

    def _node(self, event: Event, depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            raise self._refuse(event, f"more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._refuse(event, _TOO_DEEP)
        if isinstance(event, AliasEvent):
            return self._alias(event)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        before = self._count
        node = self._fresh(event, depth)
        if anchor is not None:
            self._anchors[anchor] = (node, self._count - before + 1)
        return node

    def _alias(self, event: AliasEvent) -> Node:
        name = event.anchor
        if name not in self._anchors:
            raise self._refuse(event, f"alias {name!r} names no anchor above it")
        known = self._anchors[name]
        if known is None:
            raise self._refuse(event, f"alias {name!r} contains itself")
        node, weight = known
        self._count += weight
        if self._count > MAX_NODES:
            raise self._refuse(event, f"more than {MAX_NODES} values")
        return node

    def _fresh(self, event: Event, depth: int) -> Node:
        tag = getattr(event, "tag", None)
        name = "" if tag in (None, "!") else str(tag).removeprefix(_TAG)
        if name and name not in _TAGS:
            raise self._refuse(event, f"tag {name!r} has no meaning here")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, name)
        if isinstance(event, SequenceStartEvent):
            return self._list(event, depth)
        assert isinstance(event, MappingStartEvent)
        return self._table(event, depth)

    def _scalar(self, event: ScalarEvent, tag: str) -> Scalar:
        text = str(event.value).translate(self._back) if self._back else str(event.value)
        plain = event.implicit[0] and not tag and event.style in (None, "")
        return Scalar(self._place(event), text, tag or (implicit(text) if plain else "str"), plain)

    def _list(self, event: SequenceStartEvent, depth: int) -> Items:
        items = []
        while not isinstance(inner := self._due(), SequenceEndEvent):
            items.append(self._node(inner, depth + 1))
        return Items(self._place(event), tuple(items))

    def _table(self, event: MappingStartEvent, depth: int) -> Table:
        """A mapping. The first of a doubled key is kept, so that the rest of the file can be looked at."""
        entries: dict[str, Entry] = {}
        problems: list[Problem] = []
        merged: list[Node] = []
        while not isinstance(inner := self._due(), MappingEndEvent):
            place = self._place(inner)
            key = self._node(inner, depth + 1)
            node = self._node(self._due(), depth + 1)
            if not isinstance(key, Scalar):
                problems.append(Problem(place, "?", "a key must be text"))
            elif key.plain and key.text == "<<":
                merged.append(node)
            elif key.text in entries:
                problems.append(twice(key.text, place, entries[key.text].place))
            else:
                entries[key.text] = Entry(place, node)
        for node in merged:
            problems += _merge(entries, node)
        return Table(self._place(event), entries, tuple(problems))


def twice(key: str, place: Place, first: Place) -> Problem:
    """A key that is given a second time, with both places."""
    return Problem(place, key, f"is given twice, first at {first.file}:{first.line}:{first.column}")


def _merge(entries: dict[str, Entry], node: Node) -> Iterator[Problem]:
    """YAML's merge key `<<`: what the mapping itself does not say is taken from the named mappings."""
    for table in node.items if isinstance(node, Items) else (node,):
        if isinstance(table, Table):
            for key, entry in table.entries.items():
                entries.setdefault(key, entry)
        else:
            yield Problem(table.place, "<<", "only mappings can be merged")
