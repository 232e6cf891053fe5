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
