"""Which tests name which rows, in which formats: read from the tests' own syntax, nothing is run.

A test names a row in its docstring, in its decorators, in its body, or in a table of its module that one of these uses:
`T-ANTH-014`, `T-ANTH-010, 015, 016`, `T-ANTH-064 to 069`. Its formats are those that it says behind the id
(`T-ANTH-080 (AM, GG)`), those of its `across(…)`, or else those whose surface it reaches, through helpers too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fakes.inbound import LETTERS

ROOT: Final = Path(__file__).resolve().parents[1]
_ID: Final = re.compile(
    r"T-([A-Z]+)-(\d{3})((?:(?:,? and |, | to )\d{3}\b)*)(?: \(((?:OC|OR|AM|GG)(?:, (?:OC|OR|AM|GG))*)\))?"
)
_NEXT: Final = re.compile(r"(,? and |, | to )(\d{3})")
_SURFACES: Final = (
    ("newapi_proxy.surfaces.openai_chat", "OC"),
    ("newapi_proxy.surfaces.responses", "OR"),
    ("newapi_proxy.surfaces.anthropic", "AM"),
    ("newapi_proxy.surfaces.gemini", "GG"),
)
_ALL: Final = ("newapi_proxy.surfaces.SURFACES", "tests.fakes.inbound.FORMATS", "tests.fakes.inbound.across")
_ROUTES: Final = (
    ("/v1/chat/completions", "OC"),
    ("/v1/responses", "OR"),
    ("/v1/messages", "AM"),
    ("/v1beta/models", "GG"),
)


def ids(text: str) -> Iterator[tuple[str, frozenset[str] | None]]:
    """The rows that a text names, each with the formats that it says, None where it says none."""
    for found in _ID.finditer(text):
        prefix, last, more, said = found[1], int(found[2]), found[3], found[4]
        letters = frozenset(said.split(", ")) if said else None
        yield f"T-{prefix}-{last:03}", letters
        for word, number in _NEXT.findall(more):
            first = last + 1 if word == " to " else int(number)
            for one in range(first, int(number) + 1):
                yield f"T-{prefix}-{one:03}", letters
            last = int(number)


class File:
    """One file of the tests: what it defines and where its names come from."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.names: dict[str, ast.stmt] = {}
        self.imports: dict[str, str] = {}
        for node in ast.parse(self.text).body:
            self._define(node)

    def _define(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self.names[name] = node
            case ast.Assign(targets=targets):
                for target in targets:
                    for one in ast.walk(target):
                        if isinstance(one, ast.Name):
                            self.names[one.id] = node
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.names[name] = node
            case ast.Import(names=names):
                self.imports |= {one.asname or one.name: one.name for one in names}
            case ast.ImportFrom(module=str(module), names=names):
                self.imports |= {one.asname or one.name: f"{module}.{one.name}" for one in names}
            case _:
                pass

    def source(self, node: ast.stmt) -> str:
        """The statement's lines, decorators and comments included."""
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        return "\n".join(self.lines[first - 1 : node.end_lineno])


@functools.cache
def file(module: str) -> File | None:
    """The file of a dotted name below `tests`."""
    path = ROOT.parent / Path(*module.split(".")).with_suffix(".py")
    return File(path) if path.is_file() else None


def used(node: ast.AST) -> set[str]:
    """The names that a piece of syntax uses; the parameters of a test are fixtures."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    names |= {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    return names | {_dotted(one) for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def reached(module: str, name: str) -> frozenset[str]:
    """The formats whose surfaces a definition uses, itself or through what it uses."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(module, name)]
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        home = file(place[0])
        node = home.names.get(place[1]) if home is not None else None
        if home is None or node is None:
            continue
        found |= {
            letter
            for one in ast.walk(node)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
            for route, letter in _ROUTES
            if one.value.startswith(route)
        }
        for word in used(node):
            waiting += _targets(home, place[0], word, found)
    return frozenset(found)


def _targets(home: File, module: str, word: str, found: set[str]) -> list[tuple[str, str]]:
    if word in home.names:
        return [(module, word)]
    root, _, rest = word.partition(".")
    if root not in home.imports:
        return []
    full = home.imports[root] + (f".{rest}" if rest else "")
    if full in _ALL:
        found.update(LETTERS)
    found |= {letter for prefix, letter in _SURFACES if full.startswith(prefix)}
    if not full.startswith("tests."):
        return []
    above, _, last = full.rpartition(".")
    return [(above, last)]


def tests() -> Iterator[tuple[str, str, File, ast.stmt]]:
    """Every test: its module, its name, its file and its syntax."""
    for path in sorted(ROOT.rglob("test_*.py")):
        if path.name == "test_rows_listed.py":
            continue
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        home = file(module)
        assert home is not None
        for name, node in home.names.items():
            if name.startswith("test_"):
                yield module, name, home, node


def mentions() -> dict[str, frozenset[str]]:
    """Rows to the formats in which a test names them."""
    found: dict[str, set[str]] = {}
    for module, name, home, node in tests():
        pieces = [home.source(node)]
        pieces += [home.source(home.names[word]) for word in sorted(used(node)) if _table(home, word)]
        rows = [row for piece in pieces for row in ids(piece)]
        own = _across(node) or (reached(module, name) if rows else frozenset())
        for row, letters in rows:
            found.setdefault(row, set()).update(own if letters is None else letters)
    return {row: frozenset(letters) for row, letters in found.items()}


def _table(home: File, word: str) -> bool:
    return isinstance(home.names.get(word), (ast.Assign, ast.AnnAssign))


def _across(node: ast.stmt) -> frozenset[str]:
    """The letters of a test's `across(…)`."""
    for one in getattr(node, "decorator_list", ()):
        if isinstance(one, ast.Call) and _dotted(one.func).rpartition(".")[2] == "across":
            return frozenset(arg.value for arg in one.args if isinstance(arg, ast.Constant))
    return frozenset()
