"""Google's OpenAPI subset as JSON Schema, for providers that know no other: types in lower case, `nullable` as a type.

Pure; a schema that came as JSON Schema is not touched. Source: provider-translation A.7, B.2.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.surfaces._gemini_fields import camel

Node = dict[str, Any]

_MAPS: Final = ("properties", "$defs", "definitions", "patternProperties")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES: Final = ("items", "additionalProperties", "not")
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_LEFT_OUT: Final = ("nullable", "propertyOrdering")


def json_schema(schema: Node) -> Node:
    """The same schema in JSON Schema's words; what cannot be understood stays as it is."""
    out: Node = {}
    for given, value in schema.items():
        name = camel(given)
        if name in _LEFT_OUT:
            continue
        out[name] = _told(name, value)
    if schema.get("nullable") is True:
        _nullable(out)
    return out


def _told(name: str, value: Any) -> Any:
    if name == "type" and type(value) is str:
        return value.lower()
    if name == "type" and type(value) is list:
        return [one.lower() if type(one) is str else one for one in value]
    if name in _MAPS and type(value) is dict:
        return {key: json_schema(one) if type(one) is dict else one for key, one in value.items()}
    if name in _LISTS and type(value) is list:
        return [json_schema(one) if type(one) is dict else one for one in value]
    if name in _ONES and type(value) is dict:
        return json_schema(value)
    if name in _COUNTS and type(value) is str and value.isascii() and value.isdecimal() and len(value) < 19:
        return int(value)  # 64-bit numbers are text in this format
    return value


def _nullable(out: Node) -> None:
    kind = out.get("type")
    if type(kind) is str:
        out["type"] = [kind, "null"]
    if type(out.get("enum")) is list and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
