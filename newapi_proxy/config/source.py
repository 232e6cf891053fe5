"""Files to one tree of nodes: includes, `${NAME}`, secrets in files. Knows nothing of the model.

Every fault carries its place; nothing is raised. The caller hands in the environment.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Final

import msgspec

from newapi_proxy.config import text
from newapi_proxy.config.nodes import Broken, Entry, Fault, Items, Node, Path, Place, Problem, Scalar, Table, fault

MAX_FILE: Final = 16 * 1024 * 1024
MAX_SECRET: Final = 1024 * 1024
MAX_FILES: Final = 1000
MAX_INCLUDES: Final = 10  # includes inside includes

_ADDED: Final = frozenset({"channels", "tokens"})  # lists of several files add up
_WHOLE: Final = frozenset({("prices",)})  # below these a key's value is one thing, not merged field by field
_OTHERS: Final = 0o044  # readable by group or world
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}\n]*)\}|\$\{")
_NAME: Final = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.ASCII | re.DOTALL)


class Source(msgspec.Struct, frozen=True):
    """What the files say. `readable` is False where the main file could not be opened at all.

    `exposed` names the files that others on this machine may read.
    """

    root: Table
    faults: tuple[Fault, ...]
    files: tuple[FilePath, ...]
    exposed: frozenset[str] = frozenset()
    readable: bool = True


def load(path: FilePath, environ: Mapping[str, str]) -> Source:
    """The file and everything it includes as one tree; all faults, first to last."""
    reader = _Reader(environ)
    try:
        root = reader.file(FilePath(path), str(path), ())
    except OSError as error:
        place = Place(str(path), 1, 1)
        told = fault(place, "(file)", f"cannot be read: {error.strerror or 'no such file'}")
        return Source(Table(place, {}), (told,), (), readable=False)
    except ValueError:  # a path with a NUL in it
        place = Place(str(path), 1, 1)
        return Source(Table(place, {}), (fault(place, "(file)", "is no file name"),), (), readable=False)
    resolved = _Resolver(environ, reader.faults).table(root, ())
    return Source(resolved, tuple(reader.faults), tuple(reader.files), frozenset(reader.exposed))


def secret(path: Scalar, environ: Mapping[str, str]) -> Scalar | str:
    """The content of a secret's file, its line end cut; or a sentence saying why not.

    A relative path is looked up in systemd's credentials directory where there is one, else beside the file that
    names it. Files of that directory may carry group bits (systemd grants the service access by ACL, which shows as
    such); any other file that group or world can read is refused.
    """
    name = FilePath(path.text)
    credentials = environ.get("CREDENTIALS_DIRECTORY", "")
    if not name.is_absolute():
        name = FilePath(credentials) / name if credentials else FilePath(path.place.file).parent / name
    trusted = bool(credentials) and FilePath(credentials) in name.parents
    try:
        content, mode = _read(name, MAX_SECRET, regular=True)
        value = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return f"the secret's file {name} is no UTF-8 text"
    except OSError as error:
        return f"the secret's file {name} cannot be read: {error.strerror or error}"
    except ValueError:
        return f"{path.text!r} is no file name"
    if mode & _OTHERS and not trusted:
        return f"the secret's file {name} is readable by group or world (mode {mode & 0o777:04o}); make it 0600"
    if not value:
        return f"the secret's file {name} is empty"
    return Scalar(path.place, value, plain=False, source=f"file:{name}")


def _read(path: FilePath, limit: int, regular: bool) -> tuple[bytes, int]:
    """Content and mode. Raises OSError, above `limit` and (where asked) for what is no regular file too."""
    if regular and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "not a regular file")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
        mode = os.fstat(file.fileno()).st_mode
    if len(content) > limit:
        raise OSError(0, f"larger than {limit} bytes")
    return content, mode


class _Reader:
    """Reads files; keeps which ones, and what was wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self.files: list[FilePath] = []
        self.exposed: set[str] = set()
        self._environ = environ
        self._seen: set[FilePath] = set()

    def file(self, path: FilePath, shown: str, above: tuple[FilePath, ...]) -> Table:
        """One file with its includes merged in. Raises OSError where it cannot be opened."""
        content, mode = _read(path, MAX_FILE, regular=bool(above))
        self.files.append(path)
        real = path.resolve()
        self._seen.add(real)
        if mode & _OTHERS:
            self.exposed.add(shown)
        table = self._parsed(content, shown, main=not above)
        for other in list(self._included(table, (*above, real))):
            table = merge(table, other)
        return table

    def _parsed(self, content: bytes, shown: str, main: bool) -> Table:
        """The file's mapping. An empty main file is refused: a reload after a failed write must not drop everything."""
        start = Place(shown, 1, 1)
        try:
            root = text.parse(content.decode("utf-8-sig"), shown)
        except UnicodeDecodeError as error:
            before = content[: error.start]
            line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
            self.faults.append(fault(Place(shown, line, column), "yaml", "is no UTF-8 text"))
            return Table(start, {})
        except text.Refused as refused:
            self.faults.append(refused.fault)
            return Table(start, {})
        if isinstance(root, Table):
            return root
        empty = root is None or (isinstance(root, Scalar) and root.null)
        if empty and main:
            self.faults.append(fault(start, "(file)", "holds no configuration"))
        elif root is not None and not empty:
            self.faults.append(fault(root.place, "(file)", "must be a mapping of keys to values"))
        return Table(start, {})

    def _included(self, table: Table, above: tuple[FilePath, ...]) -> Iterator[Table]:
        """The mappings of the files that this one names, in order."""
        entry = table.entries.get("include")
        if entry is None:
            return
        node = entry.node
        for index, item in enumerate(node.items if isinstance(node, Items) else (node,)):
            if not isinstance(item, Scalar) or item.null:
                continue  # the walk says that an include is text
            path: Path = ("include", index) if isinstance(node, Items) else ("include",)
            pattern = substitute(item, self._environ)
            if isinstance(pattern, str):
                continue  # told when the tree is resolved
            for name in self._matches(pattern, path):
                yield from self._one(name, pattern.place, path, above)

    def _matches(self, pattern: Scalar, path: Path) -> list[FilePath]:
        base = FilePath(pattern.place.file).parent
        if "\0" in pattern.text or not pattern.text:
            self.faults.append(fault(pattern.place, path, "is no file name"))
            return []
        if not glob.has_magic(pattern.text):
            return [base / pattern.text]
        found = glob.iglob(os.path.join(glob.escape(str(base)), pattern.text), recursive=True)
        return sorted(FilePath(name) for name in found if os.path.isfile(name))

    def _one(self, name: FilePath, place: Place, path: Path, above: tuple[FilePath, ...]) -> Iterator[Table]:
        real = name.resolve()
        if real in above:
            self.faults.append(fault(place, path, f"{name} includes itself"))
        elif real in self._seen:
            return  # two patterns that meet in one file
        elif len(above) > MAX_INCLUDES or len(self.files) >= MAX_FILES:
            self.faults.append(
                fault(place, path, f"{name} is one include too many (depth {MAX_INCLUDES}, files {MAX_FILES})")
            )
        else:
            try:
                yield self.file(name, os.path.normpath(name), above)
            except OSError as error:
                self.faults.append(fault(place, path, f"{name} cannot be read: {error.strerror or error}"))


def merge(first: Table, second: Table, path: Path = ()) -> Table:
    """Two files' mappings as one: lists of channels and tokens add up, any other value given twice is a problem."""
    entries = dict(first.entries)
    problems = [*first.problems, *second.problems]
    for key, entry in second.entries.items():
        mine = entries.get(key)
        if mine is None:
            entries[key] = entry
        elif not path and key == "include":
            continue  # each file's own, followed already
        elif joined := _joined(mine, entry, (*path, key)):
            entries[key] = joined
        else:
            problems.append(text.twice(key, entry.place, mine.place))
    return Table(first.place, entries, tuple(problems))


def _joined(mine: Entry, other: Entry, path: Path) -> Entry | None:
    """Both values as one, None where they exclude each other. An empty key (`prices:`) leaves the other alone."""
    a, b = mine.node, other.node
    if isinstance(a, Items) and isinstance(b, Items) and len(path) == 1 and path[0] in _ADDED:
        return Entry(mine.place, Items(a.place, a.items + b.items))
    if isinstance(a, Table) and isinstance(b, Table) and path[:-1] not in _WHOLE:
        return Entry(mine.place, merge(a, b, path))
    if isinstance(b, Scalar) and b.null:
        return mine
    if isinstance(a, Scalar) and a.null:
        return other
    return None


def substitute(node: Scalar, environ: Mapping[str, str]) -> Scalar | str:
    """The scalar with `${NAME}` and `${NAME:-default}` replaced, `$${` a literal `${`; or a sentence saying why not.

    As in a shell the default stands for an empty variable too. What comes in is not looked at again.
    """
    if "${" not in node.text:
        return node
    parts: list[str] = []
    names: list[str] = []
    end = 0
    for found in _REFERENCE.finditer(node.text):
        parts.append(node.text[end : found.start()])
        end = found.end()
        if found[0] == "$${":
            parts.append("${")
            continue
        reference = _NAME.fullmatch(found[1] or "")
        if reference is None:
            return f"{found[0]!r} is no ${{NAME}} or ${{NAME:-default}} (a literal one is written $${{)"
        name, default = reference[1], reference[2]
        value = environ.get(name)
        if value or (value is not None and default is None):
            names.append(name)
            parts.append(value)
        elif default is not None:
            parts.append(default)
        else:
            return f"the environment variable {name} is not set"
    parts.append(node.text[end:])
    changed = "".join(parts)
    tag = text.implicit(changed) if node.plain else node.tag
    return Scalar(node.place, changed, tag, node.plain, ", ".join(f"env:{name}" for name in dict.fromkeys(names)))


class _Resolver:
    """The merged tree with its references replaced; what was wrong in it is told with its full path."""

    def __init__(self, environ: Mapping[str, str], faults: list[Fault]) -> None:
        self._environ = environ
        self._faults = faults

    def table(self, node: Table, path: Path) -> Table:
        """A mapping; its problems become faults."""
        self._faults += [self._told(problem, path) for problem in node.problems]
        entries = {key: Entry(one.place, self._node(one.node, (*path, key))) for key, one in node.entries.items()}
        return Table(node.place, entries)

    def _told(self, problem: Problem, path: Path) -> Fault:
        return fault(problem.place, (*path, problem.key), problem.message)

    def _node(self, node: Node, path: Path) -> Node:
        if isinstance(node, Table):
            return self.table(node, path)
        if isinstance(node, Items):
            return Items(node.place, tuple(self._node(one, (*path, i)) for i, one in enumerate(node.items)))
        if isinstance(node, Broken):
            return node
        changed = substitute(node, self._environ)
        if isinstance(changed, str):
            self._faults.append(fault(node.place, path, changed))
            return Broken(node.place)
        return changed
