"""Tool definitions as OpenAI's models see them: a TypeScript-like namespace, whose tokens the prompt is charged for.

Source: provider-translation E.2. Pure text; schemas are the client's and may be anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.ir.ask import (
    Ask,
    Media,
    Part,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Tree,
    Turn,
)
from newapi_proxy.wire import tree

DEEPEST: Final = 24  # nested types written out; deeper ones, and references that lead back, are `any`
MOST_TYPES: Final = 20_000  # types written out per tool: references may multiply without end
_SIMPLE: Final = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


class _Root:
    """The schema that references start from, how many types may still be written out, and whether titles are."""

    __slots__ = ("left", "schema", "titled")

    def __init__(self, schema: Tree, titled: bool) -> None:
        self.schema = schema
        self.titled = titled
        self.left = MOST_TYPES


def namespace(tools: Iterable[Tool], *, titled: bool = False) -> str:
    """The rendering of all tools; what is no function stands there by its name and description.

    `titled`: titles, what the parameters as a whole are called or described as, and comments at any depth are written
    too.
    """
    lines = ["namespace functions {", ""]
    for tool in tools:
        if tool.description:
            lines.append(f"// {_comment(tool.description)}")
        schema = tool.schema if isinstance(tool.schema, dict) else {}
        if _mapping(schema, "properties"):
            about = [_comment(schema[name]) for name in ("title", "description") if isinstance(schema.get(name), str)]
            head = "".join(f" // {line}\n" for line in about) if titled else ""
            lines.append(f"type {tool.name} = (_:{head or ' '}{{")
            lines += _properties(schema, _Root(schema, titled), 0, 0)
            lines.append("}) => any;")
        else:
            lines.append(f"type {tool.name} = () => any;")
        lines.append("")
    lines.append("} // namespace functions")
    return "\n".join(lines)


def _properties(schema: Tree, root: _Root, depth: int, pad: int) -> list[str]:
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    lines = []
    for name, value in _mapping(schema, "properties").items():
        prop = value if isinstance(value, dict) else {}
        if root.titled and isinstance(prop.get("title"), str):
            lines.append(f"// {prop['title']}")
        if (pad == 0 or root.titled) and isinstance(prop.get("description"), str):
            lines.append(f"// {_comment(prop['description'])}")
        mark = "" if name in needed else "?"
        lines.append(f"{'  ' * pad}{name}{mark}: {_type(prop, root, depth, pad)},")
    return lines


def _comment(description: str) -> str:
    """Measured: the lines of a description count without their indentation."""
    return "\n".join(line.strip() for line in description.splitlines())


def _type(schema: Any, root: _Root, depth: int, pad: int) -> str:
    root.left -= 1
    if not isinstance(schema, dict) or depth > DEEPEST or root.left < 0:
        return "any"
    if isinstance(schema.get("$ref"), str):
        return _type(resolved(schema["$ref"], root.schema), root, depth + 1, pad)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            return " | ".join(_type(option, root, depth + 1, pad) for option in schema[name])
    values = schema.get("enum") if isinstance(schema.get("enum"), list) else None
    if values is None and "const" in schema:
        values = [schema["const"]]
    if values is not None:
        return " | ".join(map(tree.dumps, values))
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    return " | ".join(_named(kind, schema, root, (depth, pad)) for kind in kinds)


def _named(kind: Any, schema: Tree, root: _Root, place: tuple[int, int]) -> str:
    depth, pad = place
    if kind == "array":
        return _type(schema.get("items"), root, depth + 1, pad) + "[]"
    if kind == "object" or (kind is None and "properties" in schema):
        if not _mapping(schema, "properties"):
            return "object"
        return "\n".join(["{", *_properties(schema, root, depth + 1, pad + 1), "  " * pad + "}"])
    return _SIMPLE.get(kind, "any") if isinstance(kind, str) else "any"


def resolved(reference: str, root: Tree) -> Any:
    """What a schema's reference leads to; None where it leads nowhere."""
    if not reference.startswith("#/"):
        return None
    found = tree.find(root, reference[2:].replace("/", "."))
    return None if found is tree.MISSING else found


def _mapping(schema: Tree, name: str) -> Tree:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def written(part: Part) -> str:
    """What a part says, as the text that is counted; pictures and sound say nothing."""
    match part:
        case Text(text=words) | Refusal(text=words):
            return words
        case Reasoning(text=words, data=data):
            return "" if data else words  # beside encrypted thoughts, a summary of them
        case Media(text=words):
            return words or ""
        case ToolCall():
            return part.name + part.arguments
        case ToolResult():
            return "".join(map(written, part.parts))
        case ServerBlock():
            return tree.dumps(part.value)


def shown(ask: Ask) -> Sequence[Turn]:
    """The turns without the thoughts that a model is not shown again: those before the last question."""
    last = max((place for place, turn in enumerate(ask.turns) if turn.role == "user" and asks(turn)), default=0)
    return [
        turn
        if place >= last or not any(isinstance(part, Reasoning) for part in turn.parts)
        else msgspec.structs.replace(turn, parts=tuple(one for one in turn.parts if not isinstance(one, Reasoning)))
        for place, turn in enumerate(ask.turns)
    ]


def asks(turn: Turn) -> bool:
    """Whether a turn says something of its own, not results alone."""
    return any(not isinstance(part, ToolResult) for part in turn.parts)
