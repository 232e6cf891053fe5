"""What a prompt is in tokens for models that count by Gemma's vocabulary: words, and tools in the markup around them.

Measured: declarations, calls and responses are written as `declaration:NAME{...}`, with marks of one token around them
and around each string. How much of it is counted differs by generation and by place; see `Layout`. Source: recorded
usage, where provider-translation E.5 has ranges only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.families import Family, Layout
from newapi_proxy.billing.rendering import Room, asks, resolved, shown, written
from newapi_proxy.ir.ask import Ask, Part, Text, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

ENCODING: Final = "gemma3"
MARK: Final = "\ue000"  # stands for any of the marks
DEEPEST: Final = 8  # nested schemas written out
MOST: Final = 5_000  # schemas written out per tool
# A signature in tokens: so many a character, or so many less a sum where that is more. Short ones say nothing.
_SEALED: Final[dict[tuple[Layout, bool], tuple[float, float, int]]] = {
    ("full", False): (0.13, 0.215, 45),
    ("full", True): (0.2, 0.0, 0),
    ("brief", False): (0.13, 0.165, 30),
    ("brief", True): (0.12, 0.0, 0),
}
_SHORTEST: Final = 64
_UNSAID: Final = ("$defs", "definitions", "$schema", "additionalProperties")
_BINDING: Final = (  # what the older generation is not told besides
    "title",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "format",
)
_ORDERS: Final = ("enum", "required", "propertyOrdering", "property_ordering")
_JSON_SCHEMAS: Final = (
    "parametersJsonSchema",
    "parameters_json_schema",
    "responseJsonSchema",
    "response_json_schema",
)
_PARAMETERS: Final = (7, 3)  # names and values alone, in the newest generation: more per tool's schema, and per field


def counted(ask: Ask, family: Family, *, plain: bool) -> int:
    """The prompt's tokens but for its media. `plain`: names and values alone, as some places count every model."""
    layout = family.layout
    bare = plain or layout == "plain"
    # thoughts that the client sends in the provider's own words are all shown again, but where names alone count
    turns = shown(ask) if plain or not _own(ask) else ask.turns
    # parts are not joined before they are cut into tokens
    total = sum(tokens(written(part), ENCODING) for turn in turns for part in turn.parts if not _traffic(part))
    total += sum(_called(ask, turns, bare, layout)) + _sealed(ask, family, plain)
    room = Room()
    for tool in ask.tools:
        if tool.kind == "function":
            total += sum(_leaves(_declared(ask, tool))) if bare else _marked(_declaration(tool, layout, room))
            total += _furnished(ask, tool) if plain and family.keeps else 0
    if not bare:
        return total + _contents(ask)
    return total + (_formed(ask) if family.schema is not None else 0)


def _own(ask: Ask) -> bool:
    return "contents" in ask.tree


def _furnished(ask: Ask, tool: Tool) -> int:
    """What the newest generation counts of schemas beside names and values: of JSON Schemas every name and text."""
    fields = tool.schema.get("properties") if isinstance(tool.schema, dict) else None
    if not isinstance(fields, dict):
        return 0
    own = tree.find(ask.tree, tool.path) if ".functionDeclarations." in tool.path else None
    if not isinstance(own, dict) or "parameters" in own:
        return _PARAMETERS[0] + _PARAMETERS[1] * len(fields)
    return _PARAMETERS[0] + sum(sum(_leaves(own.get(name))) for name in _JSON_SCHEMAS)


def _traffic(part: Part) -> bool:
    return isinstance(part, (ToolCall, ToolResult))


def _formed(ask: Ask) -> int:
    """A schema of the answer in the provider's own words; one of JSON Schema costs nothing."""
    return sum(_leaves(list(_texts(tree.find(ask.tree, "generationConfig.responseSchema")))))


def _contents(ask: Ask) -> int:
    """How many messages count: results go with what the user says beside them, the instruction where it has a role."""
    system = ask.tree.get("systemInstruction", ask.tree.get("system_instruction"))
    total = 1 if isinstance(system, dict) and system.get("role") else 0
    own = _own(ask)  # then nothing is merged on the way
    before = ""
    for turn in ask.turns[ask.leading() :] or ask.turns[-1:]:
        kind = "model" if turn.role == "assistant" else "results" if _answers(turn) else "user"
        if own or kind != before or kind == "model":
            total += 1
        before = kind
    return total


def _answers(turn: Turn) -> bool:
    return any(isinstance(part, ToolResult) for part in turn.parts)


def _called(ask: Ask, turns: Iterable[Turn], bare: bool, layout: Layout) -> Iterator[int]:
    """The tokens of each call, and of each result under its function's name."""
    names: dict[str, str] = {}
    for part in (part for turn in turns for part in turn.parts):
        if isinstance(part, ToolCall):
            names[part.id] = part.name
            verb, name, value = "call", part.name, _object(part.arguments) or {}
        elif isinstance(part, ToolResult):
            verb, name, value = "response", part.name or names.get(part.id, ""), _result(part)
        else:
            continue
        if bare:
            yield sum(_leaves([name, value]))
        else:
            told = _brief(value) if layout == "brief" else _value(value)
            yield _marked(f"{MARK}{verb}:{name}{told}{MARK}")


def _result(result: ToolResult) -> dict[str, Any]:
    text = "\n".join(part.text for part in result.parts if isinstance(part, Text))
    if result.is_error:
        return {"error": text}
    return _object(text) or ({"output": text} if text else {})


def _object(text: str) -> dict[str, Any] | None:
    value = tree.within(text) if text.lstrip().startswith("{") else None
    return value if isinstance(value, dict) else None


def _sealed(ask: Ask, family: Family, plain: bool) -> int:
    """Thoughts behind signatures, shown to the model again: where it goes on from results, those since the question,

    or all where names alone count; by the newest generation always, those of texts too. The older one is told of them
    in streams only.
    """
    brief = family.layout == "brief"
    if not ask.turns or not (family.keeps or _answers(ask.turns[-1])) or (brief and not plain and not ask.stream):
        return 0
    if plain and family.layout == "full" and not family.keeps:
        return 0
    rate, steep, less = _SEALED.get((family.layout, plain), (0.0, 0.0, 0))
    asked = max((place for place, turn in enumerate(ask.turns) if turn.role == "user" and asks(turn)), default=0)
    seen = ask.turns if plain or family.keeps else ask.turns[asked:]
    sizes = [size for turn in seen for part in turn.parts if (size := _signed(part, family.keeps)) > _SHORTEST]
    return round(sum(max(rate * size, steep * size - less) for size in sizes))


def _signed(part: Part, texts: bool) -> int:
    """How long a part's signature is."""
    match part:
        case ToolCall(signature=str() as seal):
            return len(seal)
        case Text(opaque={"google": {"thought_signature": str() as seal}}) if texts:
            return len(seal)
        case _:
            return 0


def _leaves(value: Any) -> Iterator[int]:
    """The tokens of names and texts in a value; numbers and the like cost nothing."""
    match value:
        case str():
            yield tokens(value, ENCODING)
        case Mapping():
            for name, one in value.items():
                yield tokens(name, ENCODING)
                yield from _leaves(one)
        case list() | tuple():
            for one in value:
                yield from _leaves(one)


def _declared(ask: Ask, tool: Tool) -> list[Any]:
    """A declaration's texts; a schema counts only where it goes up in the provider's own words."""
    own = tree.find(ask.tree, tool.path) if ".functionDeclarations." in tool.path else None
    seen = isinstance(own, dict) and "parameters" in own
    return [tool.name, tool.description or "", list(_texts(tool.schema)) if seen else ()]


def _texts(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    kinds = schema.get("type")
    yield from (str(kind)[:1] for kind in (kinds if isinstance(kinds, list) else [kinds] if kinds else ()))
    for name in ("title", "description", "format"):
        if isinstance(schema.get(name), str):
            yield schema[name]
    for name in _ORDERS:
        if isinstance(schema.get(name), list):
            yield from (one for one in schema[name] if isinstance(one, str))
    if isinstance(schema.get("properties"), dict):
        for name, value in schema["properties"].items():
            yield name
            yield from _texts(value)
    for value in (schema.get("items"), *(schema["anyOf"] if isinstance(schema.get("anyOf"), list) else ())):
        yield from _texts(value)


def _marked(text: str) -> int:
    pieces = text.split(MARK)
    return len(pieces) - 1 + sum(tokens(piece, ENCODING) for piece in pieces if piece)


def _value(value: Any) -> str:
    match value:
        case str():
            return f"{MARK}{value}{MARK}"
        case dict():
            return "{" + ",".join(f"{name}:{_value(value[name])}" for name in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(_value, value)) + "]"
        case _:
            return tree.dumps(value)


def _brief(value: Any) -> str:
    """The same as the older generation counts it: no commas between values, and every number with a fraction."""
    match value:
        case dict():
            return "{" + "".join(f"{name}:{_brief(value[name])}" for name in sorted(value)) + "}"
        case list():
            return "[" + "".join(map(_brief, value)) + "]"
        case int() if not isinstance(value, bool):
            return f"{value}.0"
        case _:
            return _value(value)


def _declaration(tool: Tool, layout: Layout, room: Room) -> str:
    """One tool; the older generation counts an empty description too."""
    said = [f"description:{_value(tool.description or '')}"] if tool.description or layout == "brief" else []
    if isinstance(tool.schema, dict):
        schemas = _Schemas(tool.schema, layout, room)
        twice = layout == "brief" and tool.schema.get("properties") and not tool.schema.get("required")
        again = schemas.told(tool.schema, 0, again=True) if twice else ""
        said.append(f"parameters:{schemas.told(tool.schema, 0)}{again}")
    return f"{MARK}declaration:{tool.name}{{{','.join(said)}}}{MARK}"


class _Schemas:
    """One tool's schemas as they are counted, and how many may still be written out."""

    __slots__ = ("_brief", "_left", "_room", "_root")

    def __init__(self, root: dict[str, Any], layout: Layout, room: Room) -> None:
        self._root = root
        self._room = room
        self._brief = layout == "brief"
        self._left = MOST

    def told(self, schema: Any, depth: int, *, again: bool = False) -> str:
        """A schema. The older generation counts a type only where nothing else is said, and nested objects twice:

        the second time (`again`) without what is required, and of the simple ones in it the type alone.
        """
        self._left -= 1
        if not isinstance(schema, dict) or depth > DEEPEST or self._left < 0 or self._room.left < 0:
            return "{}"
        if isinstance(schema.get("$ref"), str):
            return self._room.taken(self.told(resolved(schema["$ref"], self._root), depth + 1, again=again))
        holds = bool(schema.get("properties") or schema.get("items"))
        told = {}
        for name in sorted(schema):
            value = schema[name]
            if name in _UNSAID or value in ({}, []) or (name == "type" and self._brief):
                continue
            kept = depth and schema.get("properties") and (name == "default" or not again)
            if self._brief and name in _BINDING and not kept:
                continue
            if again and (name == "required" or not holds):
                continue
            told[name] = self._field(name, value, depth, again)
        if not told and "type" in schema:
            told["type"] = _kind(schema["type"])
        return "{" + ",".join(f"{name}:{text}" for name, text in told.items()) + "}"

    def _field(self, name: str, value: Any, depth: int, again: bool) -> str:
        if name == "type":
            return _kind(value)
        if name == "properties" and isinstance(value, dict):
            return "{" + ",".join(f"{one}:{self._child(value[one], depth + 1, again)}" for one in sorted(value)) + "}"
        if name == "items":
            return self.told(value, depth + 1, again=again)
        if name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            return "[" + ",".join(self.told(one, depth + 1, again=again) for one in value) + "]"
        return _brief(value) if self._brief and not depth else _value(value)

    def _child(self, schema: Any, depth: int, again: bool) -> str:
        twice = self._brief and not again and self._nested(schema)
        return self.told(schema, depth, again=again) + (self.told(schema, depth, again=True) if twice else "")

    def _nested(self, schema: Any) -> bool:
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            schema = resolved(schema["$ref"], self._root)
        return isinstance(schema, dict) and bool(schema.get("properties"))


def _kind(value: Any) -> str:
    kinds = [one.upper() if isinstance(one, str) else one for one in (value if isinstance(value, list) else [value])]
    return _value(kinds if isinstance(value, list) else kinds[0])
