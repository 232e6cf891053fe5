"""Nodes and the model to a typed tree, or every fault with its place.

The text decides: a field that wants a number takes `5` and `"5"`, a field that wants text takes anything written.
A faulty value is told and replaced by a harmless one, so that one pass finds everything and `rules` can look at the
rest. Knows no key of the configuration by name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, Final

import msgspec
from msgspec import inspect as mi

from newapi_proxy.config import scalars, source, units
from newapi_proxy.config.nodes import Broken, Fault, Items, Node, Path, Place, Scalar, Table, closest, fault
from newapi_proxy.secret import Secret

_UNITS: Final[Mapping[str, Callable[[Any], float | int]]] = {
    "duration": units.duration,
    "size": units.size,
    "money": units.money,
}
_WRAPPERS: Final = (mi.VarTupleType, mi.ListType, mi.SetType, mi.FrozenSetType)
_SCALARS: Final = (mi.BoolType, mi.IntType, mi.FloatType, mi.LiteralType, mi.DateType, mi.CustomType, mi.StrType)


class Walked(msgspec.Struct, frozen=True):
    """What one walk found. `value` is whole even where there are faults.

    `places` and `origins` hold every value that the files or the environment gave; `plain` the secrets that stand in
    a file as text.
    """

    value: Any
    faults: tuple[Fault, ...]
    places: dict[Path, Place]
    origins: dict[Path, str]
    plain: dict[Path, Place]


def walk(node: Node, model: type, environ: Mapping[str, str], path: Path = ()) -> Walked:
    """The tree of `model` that the node describes. `environ` is for secrets in systemd's credentials directory."""
    walker = _Walker(environ)
    value = walker.value(described(model), node, path)
    return Walked(value, tuple(walker.faults), walker.places, walker.origins, walker.plain)


@functools.cache
def described(model: type) -> mi.Type:
    """msgspec's description of a model, made once."""
    return mi.type_info(model)


def bare(kind: mi.Type) -> mi.Type:
    """The type without its descriptions."""
    while isinstance(kind, mi.Metadata):
        kind = kind.type
    return kind


def unit(kind: mi.Type) -> str:
    """The unit in which people write a field: duration, size, money, or nothing."""
    while isinstance(kind, mi.Metadata):
        if kind.extra and "unit" in kind.extra:
            return str(kind.extra["unit"])
        kind = kind.type
    return ""


class _Walker:
    """One walk: collects faults, places and origins while it builds values."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self.places: dict[Path, Place] = {}
        self.origins: dict[Path, str] = {}
        self.plain: dict[Path, Place] = {}
        self._environ = environ

    def value(self, kind: mi.Type, node: Node, path: Path) -> Any:
        """One value; on a fault a harmless one of the right type."""
        self.places[path] = node.place
        self.origins[path] = _origin(node)
        if isinstance(node, Broken):
            return harmless(kind)
        if name := unit(kind):
            return self._unit(name, kind, node, path)
        inner = bare(kind)
        if isinstance(inner, mi.UnionType):
            return self._union(inner, node, path)
        if isinstance(inner, mi.AnyType):
            return self._any(node, path)
        if isinstance(inner, mi.StructType):
            return self._struct(inner, node, path)
        if isinstance(inner, mi.DictType):
            return self._dict(inner, node, path)
        if isinstance(inner, _WRAPPERS):
            return self._list(inner, node, path)
        if isinstance(inner, mi.CustomType) and inner.cls is Secret:
            return self._secret(inner, node, path)
        return self._scalar(inner, node, path)

    def _wrong(self, kind: mi.Type, node: Node, path: Path, message: str, hint: str = "") -> Any:
        """Tells a fault and gives the value that stands in."""
        self.faults.append(fault(node.place, path, message, hint))
        return harmless(kind)

    def _struct(self, kind: mi.StructType, node: Node, path: Path) -> Any:
        """A mapping with known keys: unknown ones and missing ones are told, the rest is read all the same."""
        if not isinstance(node, Table):
            return kind.cls() if _null(node) and _optional(kind) else self._wrong(kind, node, path, _must(kind, node))
        names = {field.encode_name for field in kind.fields}
        for key, entry in node.entries.items():
            if key not in names:
                self.faults.append(fault(entry.place, (*path, key), "unknown key", closest(key, names)))
        values: dict[str, Any] = {}
        for field in kind.fields:
            given = node.entries.get(field.encode_name)
            if given is not None:
                values[field.name] = self._field(field, given.node, (*path, field.encode_name))
            elif field.required:
                values[field.name] = self._wrong(field.type, node, (*path, field.encode_name), "is required")
        try:
            return kind.cls(**values)
        except ValueError as error:  # a struct's own check of its fields
            return self._wrong(kind, node, path, str(error))

    def _field(self, field: mi.Field, node: Node, path: Path) -> Any:
        nullable = any(isinstance(bare(one), mi.NoneType) for one in _options(field.type))
        if _null(node) and not nullable and isinstance(bare(field.type), (mi.DictType, *_WRAPPERS)):
            self.places[path] = node.place  # a key whose entries are all commented out: empty
            self.origins[path] = _origin(node)
            return harmless(field.type)
        return self.value(field.type, node, path)

    def _dict(self, kind: mi.DictType, node: Node, path: Path) -> Any:
        if not isinstance(node, Table):
            return self._wrong(kind, node, path, _must(kind, node))
        result = {}
        for key, entry in node.entries.items():
            name: Any = key
            if isinstance(bare(kind.key_type), (mi.IntType, mi.LiteralType)):
                name = self.value(kind.key_type, Scalar(entry.place, key), (*path, key))
            elif not key:
                self.faults.append(fault(entry.place, path, "an empty key"))
            result[name] = self.value(kind.value_type, entry.node, (*path, key))
        return result

    def _list(self, kind: Any, node: Node, path: Path) -> Any:
        if not isinstance(node, Items):
            return self._wrong(kind, node, path, _must(kind, node))
        values = [self.value(kind.item_type, item, (*path, index)) for index, item in enumerate(node.items)]
        if kind.min_length is not None and len(values) < kind.min_length:
            return self._wrong(kind, node, path, f"needs at least {kind.min_length} entries")
        if kind.max_length is not None and len(values) > kind.max_length:
            return self._wrong(kind, node, path, f"takes at most {kind.max_length} entries")
        if isinstance(kind, mi.VarTupleType):
            return tuple(values)
        return values if isinstance(kind, mi.ListType) else frozenset(values)

    def _union(self, kind: mi.UnionType, node: Node, path: Path) -> Any:
        """The first member that fits the node's shape and reads it without a fault, or the only one that fits; else the
        first one's faults."""
        if _null(node) and any(isinstance(bare(one), mi.NoneType) for one in kind.types):
            return None
        fitting = [one for one in kind.types if _fits(bare(one), node)]
        if not fitting:
            return self._wrong(kind, node, path, _must(kind, node))
        if isinstance(node, Scalar):
            fitting.sort(key=lambda one: _rank(bare(one), node))
        first: list[Fault] = []
        for one in fitting:
            before = len(self.faults)
            value = self.value(one, node, path)
            if len(self.faults) == before or len(fitting) == 1:
                return value
            first = first or self.faults[before:]
            del self.faults[before:]
        self.faults += first
        return harmless(kind)

    def _secret(self, kind: mi.Type, node: Node, path: Path) -> Any:
        """Text, or a file that holds it. No message here ever repeats the value."""
        if isinstance(node, Table) and set(node.entries) == {"file"}:
            name = node.entries["file"].node
            if isinstance(name, Broken):
                return harmless(kind)
            if not isinstance(name, Scalar) or not name.text:
                return self._wrong(kind, name, (*path, "file"), "must be a file's path")
            found = source.secret(name, self._environ)
            if isinstance(found, str):
                return self._wrong(kind, name, (*path, "file"), found)
            node = found
            self.origins[path] = _origin(found)
        if not isinstance(node, Scalar):
            return self._wrong(kind, node, path, "must be text, ${NAME} or {file: PATH}")
        if node.null or not node.text:
            return self._wrong(kind, node, path, "has no value")
        if not node.source:
            self.plain[path] = node.place
        return Secret(node.text)

    def _unit(self, name: str, kind: mi.Type, node: Node, path: Path) -> Any:
        """A duration, a size or an amount."""
        if not isinstance(node, Scalar) or node.null:
            return self._wrong(kind, node, path, f"must be a {name}" if not _null(node) else "has no value")
        number = scalars.number(node.text.strip(), fractions=name == "duration")
        try:
            value = _UNITS[name](number)
        except ValueError as error:
            return self._wrong(kind, node, path, str(error).replace(repr(number), node.shown))
        if not math.isfinite(value) or abs(value) > scalars.LARGEST:
            return self._wrong(kind, node, path, f"{node.shown} is out of range")
        return value

    def _any(self, node: Node, path: Path) -> Any:
        """What has no declared type must still be something that JSON can carry upstream."""
        match node:
            case Table():
                return {key: self.value(mi.AnyType(), one.node, (*path, key)) for key, one in node.entries.items()}
            case Items():
                return [self.value(mi.AnyType(), one, (*path, index)) for index, one in enumerate(node.items)]
            case Scalar():
                value = scalars.foreign(node)
                if isinstance(value, float) and not math.isfinite(value):
                    return self._wrong(mi.AnyType(), node, path, f"{node.shown} is no number that JSON knows")
                if isinstance(value, int) and abs(value) > scalars.LARGEST:
                    return self._wrong(mi.AnyType(), node, path, f"{node.shown} is out of range")
                return value
            case Broken():
                return None

    def _scalar(self, kind: mi.Type, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            return self._wrong(kind, node, path, _must(kind, node))
        if node.null and not (isinstance(kind, mi.StrType) and node.text):
            return self._wrong(kind, node, path, "has no value")
        try:
            return scalars.read(kind, node)
        except ValueError as error:
            hint = ""
            if isinstance(kind, mi.LiteralType) and not node.source:
                hint = closest(node.text, [str(one) for one in kind.values])
            return self._wrong(kind, node, path, str(error), hint)


def harmless(kind: mi.Type) -> Any:
    """A value of the type that stands in for a faulty one."""
    inner = bare(kind)
    match inner:
        case mi.UnionType():
            nullable = any(isinstance(bare(one), mi.NoneType) for one in inner.types)
            return None if nullable else harmless(inner.types[0])
        case mi.StructType():
            return inner.cls(**{field.name: harmless(field.type) for field in inner.fields if field.required})
        case mi.CustomType():
            return Secret("")
        case mi.LiteralType():
            return inner.values[0]
        case mi.DateType():
            return date.max
        case mi.SetType() | mi.FrozenSetType():
            return frozenset()
    plain = {mi.StrType: "", mi.IntType: 0, mi.FloatType: 0.0, mi.BoolType: False, mi.VarTupleType: ()}
    made = {mi.DictType: dict, mi.ListType: list}
    return made[type(inner)]() if type(inner) in made else plain.get(type(inner))


def _origin(node: Node) -> str:
    extra = node.source if isinstance(node, Scalar) else ""
    return f"{node.place} {extra}" if extra else str(node.place)


def _null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.null


def _optional(kind: mi.StructType) -> bool:
    return not any(field.required for field in kind.fields)


def _options(kind: mi.Type) -> Iterable[mi.Type]:
    inner = bare(kind)
    return inner.types if isinstance(inner, mi.UnionType) else (inner,)


def _fits(kind: mi.Type, node: Node) -> bool:
    match node:
        case Items():
            return isinstance(kind, (*_WRAPPERS, mi.AnyType))
        case Table():
            secret = isinstance(kind, mi.CustomType)
            return isinstance(kind, (mi.StructType, mi.DictType, mi.AnyType)) or (secret and "file" in node.entries)
        case _:
            return isinstance(kind, (*_SCALARS, mi.AnyType))


def _rank(kind: mi.Type, node: Scalar) -> int:
    """Narrow types before text, unless the value stood in quotes."""
    if not node.plain and isinstance(kind, mi.StrType):
        return -1
    return next((rank for rank, one in enumerate(_SCALARS) if isinstance(kind, one)), len(_SCALARS))


_WORDS: Final[Mapping[type[mi.Type], str]] = {
    mi.StructType: "a mapping",
    mi.DictType: "a mapping",
    mi.VarTupleType: "a list",
    mi.ListType: "a list",
    mi.SetType: "a list",
    mi.FrozenSetType: "a list",
    mi.StrType: "text",
    mi.CustomType: "text",
    mi.IntType: "a whole number",
    mi.FloatType: "a number",
    mi.BoolType: "true or false",
    mi.DateType: "a date",
    mi.LiteralType: "one word",
}


def _must(kind: mi.Type, node: Node) -> str:
    words = dict.fromkeys(_WORDS[type(bare(one))] for one in _options(kind) if type(bare(one)) in _WORDS)
    found = {Items: "a list", Table: "a mapping"}.get(type(node), "nothing" if _null(node) else "a single value")
    return f"must be {' or '.join(words)}, not {found}"
