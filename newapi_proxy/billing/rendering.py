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
MOST_REFERRED: Final = 250_000  # characters: a tenth of a second to count, which small requests may take on the loop
_SIMPLE: Final = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


class Room:
    """How many characters references may still write out, in all tools of a request: each may lead to a megabyte."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_REFERRED

    def taken(self, text: str) -> str:
        """The text that a reference was written out to."""
        self.left -= len(text)
        return text


class _Root:
    """The schema that references start from, how many types may still be written out, and how fields are."""

    __slots__ = ("left", "lines", "pad", "room", "schema")

    def __init__(self, schema: Tree, lines: bool, pad: str, room: Room) -> None:
        self.schema = schema
        self.lines = lines
        self.pad = pad
        self.room = room
        self.left = MOST_TYPES


def namespace(tools: Iterable[Tool], *, lines: bool = False, pad: str = "") -> str:
    """The rendering of all tools; what is no function stands there by its name and description.

    `lines`: each field has its own, whatever it says; `pad` stands before each.
    """
    told = ["namespace functions {", ""]
    room = Room()
    for tool in tools:
        told += _comment(tool.description)
        told += [f"type {tool.name} = {_parameters(tool, lines, pad, room)} => any;", ""]
    told.append("} // namespace functions")
    return "\n".join(told)


def _parameters(tool: Tool, lines: bool, pad: str, room: Room) -> str:
    schema = tool.schema if isinstance(tool.schema, dict) else {}
    about = _about(schema)
    if not about and not _mapping(schema, "properties"):
        return "()"
    fields = _fields(schema, _Root(schema, lines, pad, room), 0)
    if not about:
        return f"(_: {fields})"
    return "(_:" + "".join(f" {line}\n" for line in about) + f"{fields})"


def _about(schema: Tree) -> list[str]:
    return _comment(schema.get("title")) + _comment(schema.get("description"))


def _comment(said: Any) -> list[str]:
    """Measured: each line is a comment of its own, without its indentation; empty ones are none."""
    lines = (line.strip() for line in said.splitlines()) if isinstance(said, str) else ()
    return [f"// {line}" for line in lines if line]


def _fields(schema: Tree, root: _Root, depth: int) -> str:
    """An object's fields, none indented; on one line where none has a comment or is itself on several."""
    required = schema.get("required")
    needed = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set()
    lines: list[str] = []
    plain = not root.lines
    for name, value in _mapping(schema, "properties").items():
        field = value if isinstance(value, dict) else {}
        about = _about(field)
        text = _type(field, root, depth)
        preset = _default(field)
        plain = plain and not about and not preset and "\n" not in text
        lines += [root.pad + line for line in about]
        lines.append(
            f"{root.pad}{name}{'' if name in needed else '?'}:{'' if text[:1] == chr(10) else ' '}{text},{preset}"
        )
    if schema.get("additionalProperties") is True:
        lines.append("[k: string]: any,")
    if plain and lines:
        return "{ " + " ".join(lines).removesuffix(",") + " }"
    return "\n".join(["{", *lines, "}"])


def _default(field: Tree) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    bare = isinstance(value, str) and isinstance(field.get("enum"), list)
    return f" // default: {value if bare else tree.dumps(value)}"


def _type(schema: Any, root: _Root, depth: int, *, own: bool = True) -> str:
    """A type; what an object is called is written above it, unless that is said of the field that holds it (`own`)."""
    root.left -= 1
    if not isinstance(schema, dict) or depth > DEEPEST or root.left < 0:
        return "any"
    if isinstance(schema.get("$ref"), str):
        if root.room.left < 0:
            return "any"
        return root.room.taken(_type(resolved(schema["$ref"], root.schema), root, depth + 1, own=False))
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            return " | ".join(_type(option, root, depth + 1, own=False) for option in schema[name])
    values = schema.get("enum") if isinstance(schema.get("enum"), list) else None
    if values is None and "const" in schema:
        values = [schema["const"]]
    if values is not None:
        return " | ".join(map(tree.dumps, values))
    kind = schema.get("type")
    # of several, none twice: each writes out all that is in it
    kinds = dict.fromkeys(one if isinstance(one, str) else "" for one in kind) if isinstance(kind, list) else [kind]
    about = [] if own else _about(schema)
    return " | ".join(_named(kind, schema, root, depth, about) for kind in kinds)


def _named(kind: Any, schema: Tree, root: _Root, depth: int, about: Sequence[str]) -> str:
    if kind == "array":
        of = _type(schema.get("items"), root, depth + 1, own=False)
        return "Array<\n" + of.lstrip("\n") + "\n>" if "\n" in of else f"{of}[]"
    if kind == "object" or (kind is None and "properties" in schema):
        if not _mapping(schema, "properties"):
            return "object"
        return "".join(f"\n{line}" for line in about) + ("\n" if about else "") + _fields(schema, root, depth + 1)
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
