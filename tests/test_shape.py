"""How the code may look: sizes, names, prose, and the words that must not stand in it."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from newapi_proxy.adapters import ADAPTERS
from tests import laws

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60
PARAMETERS: Final = 6
NESTING: Final = 3
PUBLIC_NAMES: Final = 20
PROSE: Final = (0.15, 0.4)  # comment or docstring lines per code line, over the package

TOP_LEVEL: Final = frozenset(
    {
        "pyproject.toml",
        "newapi_proxy",
        "config.example.yaml",
        "systemd",
        "tests",
        "README.md",
        # what tools and their users look for
        ".ci",
        ".gitignore",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    }
)
LEFT_BEHIND: Final = re.compile(
    r"\.git|\.venv|build|dist|\..*_cache|\.hypothesis|__pycache__|.*\.egg-info|.*\.db(-\w+|\.lock)?"
)
SHARED: Final = frozenset({"relay", "web", "billing", "store", "daemon", "snapshot", "cli", "tasks", "accounts"})
EMPTY_WORDS: Final = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})

# A called or named thing and the only modules (by prefix) that may have it.
BANNED: Final[dict[str, tuple[str, ...]]] = {
    "time.time": ("clock",),
    "datetime.now": (),
    "datetime.utcnow": (),
    "datetime.datetime.now": (),
    "date.today": (),
    "asyncio.create_task": (),
    "asyncio.ensure_future": (),
    "asyncio.wait_for": ("daemon", "store", "tasks", "cli"),  # too dear on the request path
    "loop.create_task": ("spawn",),
    "print": ("cli",),
    "NotImplementedError": (),
    "eval": (),
    "exec": (),
    "time.sleep": (),
}


def test_lint() -> None:
    """The linter's rules hold, complexity and line length among them."""
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format", "concise", "newapi_proxy", "tests"]
    run = subprocess.run(command, cwd=laws.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_top_level() -> None:
    """The root holds the project's own entries and what tools need, nothing else."""
    found = {path.name for path in laws.ROOT.iterdir() if not LEFT_BEHIND.fullmatch(path.name)}
    assert found == TOP_LEVEL


def test_module_sizes() -> None:
    """No module has more code than one idea takes."""
    sizes = {module.where: len(laws.lines(module)[0]) for module in laws.modules()}
    assert not {where: size for where, size in sizes.items() if size > MODULE_LINES}


def test_function_sizes() -> None:
    """No function has more code lines than fit one look."""
    faults = []
    for module in laws.modules():
        code, _ = laws.lines(module)
        for node in module.functions():
            size = sum(1 for line in code if node.lineno <= line <= (node.end_lineno or 0))
            if size > FUNCTION_LINES:
                faults.append(f"{module.where}:{node.lineno}: {node.name} has {size} lines")
    assert not faults


def test_parameters() -> None:
    """No function takes more than six arguments; an exception's constructor lists its fields."""
    faults = []
    for module in laws.modules():
        constructors = {
            id(child)
            for one in module.classes()
            if _is_exception(one.name)
            for child in one.body
            if isinstance(child, laws.Function) and child.name == "__init__"
        }
        for node in module.functions():
            named = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(named) - (named[:1] in (["self"], ["cls"]))
            if count > PARAMETERS and id(node) not in constructors:
                faults.append(f"{module.where}:{node.lineno}: {node.name} takes {count}")
    assert not faults


def test_nesting() -> None:
    """No statement stands deeper than three blocks inside its function.

    A block is an if, for, while, with, try or match. `elif`, `else`, `except` and `finally` stand at their statement's
    depth, a match's cases at the match's; a function inside a function counts on its own.
    """
    faults = []
    for module in laws.modules():
        for node in module.functions():
            depth = _depth(node.body)
            if depth > NESTING:
                faults.append(f"{module.where}:{node.lineno}: {node.name} nests {depth} deep")
    assert not faults


def _depth(body: list[ast.stmt]) -> int:
    return max((_statement_depth(one) for one in body), default=0)


def _statement_depth(node: ast.stmt) -> int:
    match node:
        case ast.If(orelse=[ast.If() as other]):
            return max(1 + _depth(node.body), _statement_depth(other))
        case ast.If() | ast.For() | ast.AsyncFor() | ast.While():
            return 1 + max(_depth(node.body), _depth(node.orelse))
        case ast.With() | ast.AsyncWith():
            return 1 + _depth(node.body)
        case ast.Try() | ast.TryStar():
            handlers = [_depth(handler.body) for handler in node.handlers]
            return 1 + max(_depth(node.body), _depth(node.orelse), _depth(node.finalbody), *handlers, 0)
        case ast.Match():
            return 1 + max(_depth(case.body) for case in node.cases)
        case _:
            return 0


def test_public_names() -> None:
    """No module offers more than twenty names; the vocabulary in `ir` is the exception."""
    faults = {}
    for module in laws.modules():
        names = {name for name in _defined(module.tree) if not name.startswith("_")}
        if len(names) > PUBLIC_NAMES and module.layer != "ir":
            faults[module.where] = len(names)
    assert not faults


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                pass


def test_prose() -> None:
    """Comments and docstrings are neither missing nor in the way."""
    code = sum(len(laws.lines(module)[0]) for module in laws.modules())
    prose = sum(len(laws.lines(module)[1]) for module in laws.modules())
    assert PROSE[0] <= prose / code <= PROSE[1], f"{prose} lines of prose on {code} of code"


def test_docstrings() -> None:
    """Every module, public class, function and method says what it is.

    A method that implements a documented one of a protocol, or a library's callback, need not say it again; a record of
    fields is described by its fields.
    """
    told = _told_by_protocols()
    faults = []
    for module in laws.modules():
        if laws.docstring(module.tree) is None:
            faults.append(f"{module.where}:1: no docstring")
        faults += [f"{module.where}:{line}: {name}" for name, line in _silent(module.tree, told)]
    assert not faults


def _silent(tree: ast.Module, told: frozenset[str]) -> Iterator[tuple[str, int]]:
    for node in tree.body:
        if not isinstance(node, laws.Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        members = node.body if isinstance(node, ast.ClassDef) else []
        record = bool(members) and all(isinstance(one, ast.AnnAssign) for one in members)
        if laws.docstring(node) is None and not record:
            yield node.name, node.lineno
        for child in members:
            public = isinstance(child, laws.Function) and not child.name.startswith("_") and child.name not in told
            if public and laws.docstring(child) is None:
                yield f"{node.name}.{child.name}", child.lineno


CALLBACKS: Final = frozenset(
    {
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "pause_writing",
        "resume_writing",
    }
)


def _told_by_protocols() -> frozenset[str]:
    protocols = [one for module in laws.modules() for one in module.classes() if _is_protocol(one.name)]
    members = [child for one in protocols for child in one.body if isinstance(child, laws.Function)]
    return CALLBACKS | {child.name for child in members if laws.docstring(child)}


def test_no_provider_names_in_shared_modules() -> None:
    """Shared code knows no provider by name: what a provider is stands in its own record."""
    faults = []
    for module in laws.modules():
        if module.layer not in SHARED:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and node.value in ADAPTERS:
                faults.append(f"{module.where}:{node.lineno}: {node.value!r}")
    assert not faults


def test_no_hierarchies() -> None:
    """No class inherits from another of ours, but for exceptions, protocols and the bases of options and config."""
    own = _bases()
    faults = [
        f"{module.where}:{one.lineno}: {one.name}({base})"
        for module in laws.modules()
        for one in module.classes()
        for base in module.bases(one)
        if base in own.keys() - {"Options", "Struct"} and not _is_exception(base) and not _is_protocol(base)
    ]
    assert not faults


@functools.cache
def _bases() -> dict[str, frozenset[str]]:
    """Class names of ours and what they derive from; foreign bases have `foreign.` before their names."""
    found: dict[str, frozenset[str]] = {}
    for module in laws.modules():
        for one in module.classes():
            found[one.name] = found.get(one.name, frozenset()) | set(module.bases(one))
    return found


def _is_protocol(name: str) -> bool:
    return "foreign.Protocol" in _bases().get(name, ())


def _is_exception(name: str) -> bool:
    seen: set[str] = set()
    while name in _bases() and name not in seen:
        seen.add(name)
        name = next(iter(_bases()[name]), "")
    return name in ("Exception", "BaseException") or name.endswith("Error")


def test_banned_names() -> None:
    """Time, tasks, output and stubs stand only where they belong."""
    faults = []
    for module in laws.modules():
        for node in ast.walk(module.tree):
            name = laws.dotted(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            if name in BANNED and not module.name.startswith(BANNED[name] or "\0"):
                faults.append(f"{module.where}:{node.lineno}: {name}")
    assert not faults


def test_no_stubs() -> None:
    """No function is empty, but for the members of protocols and overloads."""
    faults = []
    for module in laws.modules():
        allowed = {id(child) for one in module.classes() if _is_protocol(one.name) for child in one.body}
        for node in module.functions():
            body = [one for one in node.body if one is not laws.docstring(node)]
            empty = not body or (len(body) == 1 and isinstance(body[0], ast.Expr) and _ellipsis(body[0].value))
            overload = any(laws.dotted(one).endswith("overload") for one in node.decorator_list)
            if empty and body and id(node) not in allowed and not overload:
                faults.append(f"{module.where}:{node.lineno}: {node.name}")
    assert not faults


def _ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def test_module_names() -> None:
    """Modules are called after things, not after being useful."""
    assert not [module.where for module in laws.modules() if set(module.name.split(".")) & EMPTY_WORDS]


# Written with a class around one letter, so that this file does not contain what it looks for.
WORDS: Final[dict[str, str]] = {
    "unfinished work": r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b|\bHAC[K]\b",
    "an ignore without its code": r"#\s*type:\s*ignor[e](?!\[)|#\s*noq[a](?!:)",
    "a skip of coverage": r"pragma: no\s*cove[r]",
    "an issue's number": r"\b[Ii]ssu[e] #?\d+\b|\bGH-\d+\b",
    "a registry's host": r"pypi\.or[g]|files\.pythonhoste[d]|registry\.npmj[s]|deb\.debia[n]\.org",
    "a path of somebody's machine": r"(?<![\w.])/wor[k]/|/opt/ven[v]|/roo[t]/|/hom[e]/\w",
    "a banner": r"^\s*#\s*[-=*#]{4,}",
}


@pytest.mark.parametrize("what", WORDS)
def test_words(what: str) -> None:
    """Nothing unfinished, nothing of a workplace and no banner stands in any file."""
    pattern = re.compile(WORDS[what], re.MULTILINE)
    faults = []
    for path in _texts():
        for match in pattern.finditer(text := path.read_text(encoding="utf-8")):
            faults.append(f"{path.relative_to(laws.ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}")
    assert not faults


def _texts() -> Iterator[Path]:
    for name in sorted(TOP_LEVEL):
        path = laws.ROOT / name
        for one in [path] if path.is_file() else sorted(path.rglob("*")):
            if one.is_file() and one.suffix in TEXTS and "__pycache__" not in one.parts:
                yield one


TEXTS: Final = frozenset({".py", ".md", ".toml", ".yaml", ".service", ".socket", ""})


def test_tests_do_not_sleep() -> None:
    """A test waits for what it wants to see, never for time to pass."""
    faults = []
    for path in sorted((laws.ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and laws.called(node) == "time.sleep":
                faults.append(f"{path.relative_to(laws.ROOT)}:{node.lineno}")
    assert not faults
