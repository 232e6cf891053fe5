"""JSON Schema made to fit providers that take a part of it. Pure functions; no provider is known here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from newapi_proxy.wire import tree

Schema = dict[str, Any]

_LIMITS: Final = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)
_NAMED: Final = ("properties", "$defs", "definitions", "patternProperties")
_LISTED: Final = ("anyOf", "allOf", "oneOf", "prefixItems")
_KEPT: Final = ("description", "nullable")
_FORMATS: Final = ("enum", "date-time", "float", "double", "int32", "int64")
_MOST_NODES: Final = 10_000
_DEEPEST: Final = 64  # levels of a flat schema, references counted
_SINGLE: Final = ("items", "not", "if", "then", "else", "contains", "additionalProperties")


def closed(schema: Schema) -> Schema:
    """The schema with no other properties allowed on any object and its limits told in descriptions instead.

    For structured output that guarantees shape but not ranges (provider-translation B.1).
    """
    return mapped(schema, lambda node: _closed(_told(node)))


def mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A copy with `change` applied to every schema in it, the innermost first; property names are no schemas."""
    node = dict(schema)
    for name in _NAMED:
        if isinstance(node.get(name), dict):
            node[name] = {key: _one(value, change) for key, value in node[name].items()}
    for name in _LISTED:
        if isinstance(node.get(name), list):
            node[name] = [_one(value, change) for value in node[name]]
    for name in _SINGLE:
        if isinstance(node.get(name), dict):
            node[name] = mapped(node[name], change)
    return change(node)


def _one(value: Any, change: Callable[[Schema], Schema]) -> Any:
    return mapped(value, change) if isinstance(value, dict) else value


def _told(node: Schema) -> Schema:
    """Moves limits into the description."""
    limits = {name: node[name] for name in _LIMITS if name in node}
    if not limits:
        return node
    node = {name: value for name, value in node.items() if name not in limits}
    words = ", ".join(f"{name}: {tree.dumps(value)}" for name, value in limits.items())
    description = node.get("description")
    node["description"] = f"{description} ({words})" if isinstance(description, str) and description else f"({words})"
    return node


def _closed(node: Schema) -> Schema:
    kind = node.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in node:
        node["additionalProperties"] = False
    return node


def openapi(schema: Schema) -> Schema:
    """The schema in the part of JSON Schema that strict OpenAPI readers take (provider-translation B.0).

    References are put in place of themselves, a cycle ends in an object of anything; `allOf` is merged, `const` is an
    enum of one, a type that may be null is `nullable`; keywords that such readers do not know are left out.
    """
    return _Flat(schema).of(schema, ())


class _Flat:
    """One schema on its way; `left` bounds how far references may blow it up."""

    __slots__ = ("_left", "_root")

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MOST_NODES

    def of(self, node: Any, trail: tuple[str, ...]) -> Schema:
        """One schema inside it; `trail` are the levels above, with the references that lead here."""
        self._left -= 1
        if not isinstance(node, dict) or self._left < 0 or len(trail) > _DEEPEST:
            return {"type": "object"}
        reference = node.get("$ref")
        if isinstance(reference, str):
            target = _at(self._root, reference)
            if reference in trail or not isinstance(target, dict):
                return {"type": "object"}
            rest = {name: value for name, value in node.items() if name != "$ref"}
            return self.of({**target, **rest}, (*trail, reference))
        trail = (*trail, "")
        for part in _dicts(node.get("allOf")):
            node = _merged(node, self.of(part, trail))
        out = {name: node[name] for name in _KEPT if name in node}
        self._typed(out, node)
        self._inside(out, node, trail)
        return out

    def _typed(self, out: Schema, node: Schema) -> None:
        kinds = node.get("type")
        if isinstance(kinds, list):
            named = [kind for kind in kinds if kind != "null" and isinstance(kind, str)]
            if len(named) < len(kinds):
                out["nullable"] = True
            if len(named) > 1:
                out.setdefault("anyOf", [{"type": kind} for kind in named])
            elif named:
                out["type"] = named[0]
        elif isinstance(kinds, str):
            out["type"] = kinds
        choices = [node["const"]] if "const" in node else node.get("enum")
        if isinstance(choices, list) and choices and all(isinstance(one, str) for one in choices):
            out["enum"] = choices
            out.setdefault("type", "string")
        if node.get("format") in _FORMATS:
            out["format"] = node["format"]

    def _inside(self, out: Schema, node: Schema, trail: tuple[str, ...]) -> None:
        properties = node.get("properties")
        if isinstance(properties, dict):
            out["properties"] = {name: self.of(value, trail) for name, value in properties.items()}
            required = node.get("required")
            if isinstance(required, list):
                out["required"] = [name for name in required if name in properties]
        if "items" in node:
            out["items"] = self.of(node["items"], trail)
        either = _dicts(node.get("anyOf")) or _dicts(node.get("oneOf"))
        if not either:
            return
        told = [self.of(one, trail) for one in either if one.get("type") != "null"]
        if len(told) < len(either):
            out["nullable"] = True
        if len(told) == 1:
            out.update({name: value for name, value in told[0].items() if name not in out})
        elif told:
            out["anyOf"] = told


def _at(root: Schema, reference: str) -> Any:
    """What a reference into the same document names; None for any other."""
    node: Any = root if reference.startswith("#/") else None
    for name in reference.split("/")[1:]:
        node = node.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node


def _dicts(value: Any) -> list[Schema]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _merged(node: Schema, part: Schema) -> Schema:
    """Two schemas that both hold as one: properties and requirements joined, else the first one's word."""
    out = {**part, **node}
    for name in ("properties", "required"):
        mine, other = node.get(name), part.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            out[name] = {**other, **mine}
        elif isinstance(mine, list) and isinstance(other, list):
            out[name] = [*other, *(one for one in mine if one not in other)]
    return out
