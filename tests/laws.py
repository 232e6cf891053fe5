"""The package's own sources as trees: what the tests of layers and shape look at."""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = "newapi_proxy"

BY_NAME: Final = ("importlib.import_module", "import_module", "__import__")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """One source file. `name` is dotted and without the package; the package's own file has the empty name."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The part of the package it belongs to: `web` for `web.sink`."""
        return self.name.partition(".")[0]

    @property
    def where(self) -> str:
        """Its path below the root, for messages."""
        return str(self.path.relative_to(ROOT))

    def bases(self, node: ast.ClassDef) -> list[str]:
        """The bases of a class as dotted names: plain where they are ours, with their module where they are foreign."""
        foreign = {
            alias.asname or alias.name.partition(".")[0]: ""
            if (origin or alias.name).startswith(PACKAGE)
            else "foreign."
            for one in ast.walk(self.tree)
            if isinstance(one, ast.Import | ast.ImportFrom)
            for origin in [self._absolute(one) if isinstance(one, ast.ImportFrom) else ""]
            for alias in one.names
        }
        found = []
        for base in (node.value if isinstance(node, ast.Subscript) else node for node in node.bases):
            name = dotted(base)
            root, _, last = name.rpartition(".")
            found.append(foreign.get(name.partition(".")[0], "") + (last if root else name))
        return found

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                yield node

    def imports(self) -> Iterator[tuple[str, int]]:
        """Dotted names that are imported anywhere, inside functions and by name too, each with its line."""
        for node in ast.walk(self.tree):
            line = getattr(node, "lineno", 0)
            if isinstance(node, ast.Import):
                yield from ((alias.name, line) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield from ((f"{base}.{alias.name}", line) for alias in node.names)
            elif isinstance(node, ast.Call) and called(node) in (
                "importlib.import_module",
                "import_module",
                "__import__",
            ):
                yield from ((arg.value, line) for arg in node.args[:1] if isinstance(arg, ast.Constant))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = [PACKAGE, *self.name.split(".")]
        parts = parts[: len(parts) - node.level + (self.path.name == "__init__.py")]
        return ".".join([*parts, node.module] if node.module else parts)


def called(node: ast.Call) -> str:
    """The dotted text of what is called, "" where it is not a name."""
    return dotted(node.func)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an expression, "" where it is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    return tuple(
        Module(path, _name(path), text := path.read_text(encoding="utf-8"), ast.parse(text, str(path)))
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    )


def docstring(node: ast.AST) -> ast.Expr | None:
    """The docstring's statement of a module, class or function."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return body[0] if isinstance(body[0].value.value, str) else None
    return None


_NO_CODE: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


@functools.cache
def lines(module: Module) -> tuple[frozenset[int], frozenset[int]]:
    """Line numbers of code, and of comments and docstrings. Blank lines are neither."""
    prose: set[int] = set()
    for node in ast.walk(module.tree):
        # a bare string is prose wherever it stands: constants are described by the one below them
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return frozenset(code - prose), frozenset(prose | comments)
