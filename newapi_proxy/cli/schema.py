"""`schema`: the configuration's JSON Schema, derived from the model, for editors."""

from __future__ import annotations

import argparse
from typing import Any, Final

from msgspec import inspect as mi

from newapi_proxy import adapters
from newapi_proxy.cli import output
from newapi_proxy.config.model import Channel, Config
from newapi_proxy.config.walk import bare, described, unit
from newapi_proxy.secret import Secret

_REFERENCE: Final = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}"}
_SECRET: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"file": {"type": "string"}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}
_PLAIN: Final[dict[type[mi.Type], dict[str, Any]]] = {
    mi.AnyType: {},
    mi.NoneType: {"type": "null"},
    mi.StrType: {"type": "string"},
    mi.DateType: {"type": "string", "format": "date"},
    mi.BoolType: {"anyOf": [{"type": "boolean"}, _REFERENCE]},
}
_UNITS: Final = {"duration": "number", "size": "integer", "money": "integer"}
_BOUNDS: Final = (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum"), ("lt", "exclusiveMaximum"))


def configure(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(args: argparse.Namespace) -> int:
    """Prints; nothing can go wrong."""
    output.json(schema())
    return 0


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12. Channel options are those of the channel's type."""
    definitions: dict[str, Any] = {}
    root = _schema(described(Config), definitions)
    channel = definitions[Channel.__name__]
    channel["properties"]["type"]["enum"] = sorted(adapters.ADAPTERS)
    channel["allOf"] = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"properties": {"options": _schema(described(adapter.options), definitions)}},
        }
        for name, adapter in adapters.ADAPTERS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "newapi_proxy configuration",
        **root,
        "$defs": definitions,
    }


def _schema(kind: mi.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    described_by: dict[str, Any] = {}
    outer = kind
    while isinstance(outer, mi.Metadata):
        described_by = {**(outer.extra_json_schema or {}), **described_by}
        outer = outer.type
    if name := unit(kind):
        return {"anyOf": [{"type": _UNITS[name]}, {"type": "string"}], **described_by}
    return {**_bare(bare(kind), definitions), **described_by}


def _bare(kind: mi.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case mi.StructType():
            return _struct(kind, definitions)
        case mi.UnionType():
            return {"anyOf": [_schema(one, definitions) for one in kind.types]}
        case mi.DictType():
            return {"type": ["object", "null"], "additionalProperties": _schema(kind.value_type, definitions)}
        case mi.VarTupleType() | mi.ListType() | mi.SetType() | mi.FrozenSetType():
            return {"type": ["array", "null"], "items": _schema(kind.item_type, definitions)}
        case mi.LiteralType():
            return {"enum": list(kind.values)}
        case mi.IntType() | mi.FloatType():
            bounds = {name: getattr(kind, ours) for ours, name in _BOUNDS if getattr(kind, ours) is not None}
            word = "integer" if isinstance(kind, mi.IntType) else "number"
            return {"anyOf": [{"type": word, **bounds}, _REFERENCE]}
        case mi.CustomType() if kind.cls is Secret:
            return dict(_SECRET)
        case _:
            return dict(_PLAIN[type(kind)])


def _struct(kind: mi.StructType, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.cls.__name__
    if kind.cls.__module__ != Config.__module__:
        name = f"{kind.cls.__module__.rpartition('.')[2]}.{name}"  # each adapter may call its struct Options
    if name not in definitions:
        definitions[name] = {}
        definitions[name] = {
            "type": ["object", "null"],
            "description": (kind.cls.__doc__ or "").partition("\n\n")[0],
            "properties": {field.encode_name: _schema(field.type, definitions) for field in kind.fields},
            "required": [field.encode_name for field in kind.fields if field.required],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}
