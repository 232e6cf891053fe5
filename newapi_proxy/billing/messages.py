"""What a prompt is in tokens for the models whose layout is known message by message: words, tools, calls, a schema.

Source: provider-translation E.2, and recorded usage, which follows these texts to the token: where tools and schemas
are written, and what stands around calls, differs by generation and by format; see `Style`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from newapi_proxy.billing import encodings
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.formula import sealed, stored
from newapi_proxy.billing.rendering import namespace, shown, written
from newapi_proxy.ir.ask import Ask, Text, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

_Placed = tuple[tuple[int, int], ToolResult]
"""A result and where it stands: the turn, the part."""


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How one generation is told about tools in one format; all numbers are tokens.

    `joined`: tools and schemas stand at the end of the first instruction, where there is one. `heading`: what stands
    above the tools. `flat`: more per request with tools, `described` where the first of them says what it is for,
    `appended` where they are joined. `call` per call beside its text, `done` where its state is told too; `wrapped`:
    several calls at once are one JSON, with so much around it, or `several`: so much around them, and for each in place
    of `call`. `alone`: where calls may not be parallel. `forced`: a call that must be made stands in the prompt. `said`
    per message of the model's. `schema` around a schema, `named`: its name stands before the answer too, as in chat
    before each of the model's messages. `custom` per tool that takes a text.
    """

    joined: bool = True
    heading: str = "# Tools\n\n## functions\n\n"
    flat: int = -1
    described: int = 0
    appended: int = 0
    call: int = 9
    done: int = 0
    wrapped: int | None = 16
    several: tuple[int, int] | None = None
    alone: int = 0
    forced: bool = False
    said: int = 0
    schema: int = 0
    named: bool = False
    custom: int = 0


CHAT: Final = Style(forced=True, schema=2, named=True)
LISTED: Final = Style(joined=False, heading="", call=7, done=3, wrapped=None, forced=True, schema=-3)
_STYLES: Final[tuple[tuple[re.Pattern[str], Style, Style], ...]] = tuple(  # by model: in chat, as a list of items
    (re.compile(pattern), chat, listed)
    for pattern, chat, listed in (
        (
            r"gpt-5(?!\.[4-9])",
            Style(flat=80, described=1, appended=3, call=15, wrapped=22, said=2, custom=16),
            Style(joined=False, flat=-2, described=1, call=13, wrapped=None, alone=78, said=2, schema=-4, custom=16),
        ),
        (
            r"gpt-([5-9]|\d\d)",
            Style(flat=80, described=1, appended=3, call=15, wrapped=22, said=2, custom=16),
            Style(
                joined=False,
                flat=-2,
                described=1,
                call=16,
                wrapped=None,
                several=(22, 10),
                alone=78,
                said=2,
                schema=-4,
                custom=16,
            ),
        ),
        (r"o([4-9]|3$|3-[0-9])", Style(flat=0, appended=3, call=15), Style(call=13, wrapped=None, schema=-4)),
        (r"o\d", Style(flat=0, forced=True, schema=2, named=True), Style(call=10, wrapped=None)),
        (r"", CHAT, LISTED),
    )
)
_THINKS: Final = re.compile(r"o[1-9](?!-mini-2024|-mini$)|o[3-9]|gpt-([5-9]|\d\d)")
_SEARCHES: Final = "-search-"  # models whose messages count without what is around them
_RESPONSES: Final = "openai-responses"  # the format whose prompts are laid out another way
_SYSTEM: Final = ("system", "developer")
_PLAIN: Final = "openai.completions"  # the format that has no messages
_FERNET: Final = (0.13, 105)  # encrypted thoughts: tokens a character, less so many each
_SHORTENING: Final = 93  # what is said to a model that is to make one of a conversation
_LATE: Final = "input."  # where tools stand that came with the conversation
_LATER: Final = 90  # around these
_NAMED: Final = 7  # around the name of the tool that must be called
_PLAIN_KINDS: Final = ("function", "server")  # of tools; what is left takes a text
_GRAMMAR: Final = 43  # around the grammar of a tool's text
_UNTOLD: Final = frozenset(
    (
        *("required", "additionalProperties", "default", "format", "pattern", "minimum", "maximum", "multipleOf"),
        *("exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"),
    )
)


def counted(ask: Ask, model: str) -> int:
    """The prompt's tokens but for its media."""
    name = encodings.bare(model)
    encoding = encodings.encoding(name)
    if ask.dialect == _PLAIN:
        return sum(tokens("".join(map(written, turn.parts)), encoding) for turn in ask.turns)
    if _SEARCHES in name:
        return sum(tokens(written(part), encoding) for turn in ask.turns for part in turn.parts)
    style = style_of(ask, name)
    turns = shown(ask)
    late = [tool for tool in ask.tools if tool.path.startswith(_LATE)]
    given = [tool for tool in ask.tools if not tool.path.startswith(_LATE)] if late else ask.tools
    more = _appendix(ask, given, style)
    place = next((at for at, turn in enumerate(turns) if turn.role in _SYSTEM), None) if style.joined else None
    total = 3 - (1 if _THINKS.match(name) else 0) + (_SHORTENING if ask.kind == "compaction" else 0)
    for at, turn in enumerate(turns):
        total += _message(turn, encoding, more if at == place else "", style)
    if more and place is None:
        total += 4 + tokens(more, encoding)
    total += _called(ask, turns, style, encoding) + sealed(turns, *_FERNET) + stored(ask)
    if given:
        total += _around(ask, given, style, encoding) + style.appended * (place is not None)
    if late:
        total += tokens(namespace(late), encoding) + _LATER
    if style.custom:
        total += sum(style.custom + _grammar(tool, encoding) for tool in ask.tools if tool.kind not in _PLAIN_KINDS)
    return total + _form(ask, style, encoding)


def style_of(ask: Ask, name: str) -> Style:
    """How the model that is so called is told about tools in this request's format."""
    chat, listed = next((chat, listed) for pattern, chat, listed in _STYLES if pattern.match(name))
    return listed if ask.dialect == _RESPONSES else chat


def _appendix(ask: Ask, tools: Sequence[Tool], style: Style) -> str:
    """The text that tells of tools and of the answer's form."""
    parts = [style.heading + namespace(tools)] if tools else []
    form = ask.controls.format
    if form is not None and form.kind == "json_schema":
        about = f"// {form.description}\n" if form.description else ""
        schema = tree.dumps(_told(form.schema))
        parts.append(f"# Response Formats\n\n## {form.name or ''}\n\n{about}{schema}")
    return "\n\n".join(parts)


def _told(schema: Any) -> Any:
    """A schema without what only binds the answer and is not told."""
    if isinstance(schema, list):
        return [_told(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in _UNTOLD}
    for name in ("properties", "$defs"):
        if isinstance(kept.get(name), dict):
            kept[name] = {one: _told(value) for one, value in kept[name].items()}
    return {name: value if name in ("properties", "$defs") else _told(value) for name, value in kept.items()}


def _form(ask: Ask, style: Style, encoding: encodings.Encoding) -> int:
    form = ask.controls.format
    if form is None or form.kind != "json_schema":
        return 0
    if ask.tools:
        return 0 if style.joined else min(0, style.schema + 3)
    if not style.joined:
        return style.schema
    said = sum(turn.role == "assistant" for turn in ask.turns)
    return style.schema + 2 * said + (said + style.named) * tokens(form.name or "", encoding)


def _message(turn: Turn, encoding: encodings.Encoding, more: str, style: Style) -> int:
    """A message's words, with `more` after them, and each of its results; its calls are counted by `_called`."""
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    others = "".join(written(part) for part in turn.parts if not isinstance(part, (ToolResult, ToolCall)))
    total = sum(4 + tokens("".join(map(written, part.parts)), encoding) for part in results)
    silent = any(isinstance(part, ToolResult | ToolCall) for part in turn.parts)
    if silent and not style.joined:  # there, what is said beside a call is an item of its own, empty or not
        silent = not any(isinstance(part, Text) for part in turn.parts)
    if others or more or not silent:
        total += 4 + tokens(f"{others}\n\n{more}" if more else others, encoding)
        total += style.said if turn.role == "assistant" else 0
    if turn.name and not results:
        total += 1 + tokens(turn.name, encoding)
    return total


def _called(ask: Ask, turns: Sequence[Turn], style: Style, encoding: encodings.Encoding) -> int:
    """All calls of the history; where several at once are one JSON, so are their results."""
    total = 0
    results = _results(turns) if style.wrapped is not None else {}
    for at, turn in enumerate(turns):
        calls = [part for part in turn.parts if isinstance(part, ToolCall)]
        if len(calls) > 1 and style.wrapped is not None:
            total += style.wrapped + tokens(_wrapped(calls), encoding)
            total += _together(_next(results, calls, at), encoding)
            continue
        around, each = style.several if style.several and len(calls) > 1 else (0, style.call)
        total += around
        for call in calls:
            own = tree.find(ask.tree, call.path) if style.done and call.path else None
            told = isinstance(own, dict) and own.get("status") is not None
            total += each + tokens(_compact(call.arguments), encoding) + (style.done if told else 0)
            total += tokens(call.name, encoding) + tokens(f".{call.name}", encoding)  # and with its result
    return total


def _wrapped(calls: Sequence[ToolCall]) -> str:
    uses = (f'{{"recipient_name":"functions.{call.name}","parameters":{_compact(call.arguments)}}}' for call in calls)
    return f'{{"tool_uses":[{",".join(uses)}]}}'


def _results(turns: Sequence[Turn]) -> dict[str, deque[_Placed]]:
    """All results by their calls' ids, in their order."""
    found: dict[str, deque[_Placed]] = {}
    for at, turn in enumerate(turns):
        for number, part in enumerate(turn.parts):
            if isinstance(part, ToolResult):
                found.setdefault(part.id, deque()).append(((at, number), part))
    return found


def _next(results: dict[str, deque[_Placed]], calls: Sequence[ToolCall], at: int) -> list[ToolResult]:
    """Of each of these calls, which stand in that turn, the result behind it; each is taken once."""
    found: list[_Placed] = []
    for call in calls:
        waiting = results.get(call.id)
        while waiting and waiting[0][0][0] <= at:
            waiting.popleft()
        if waiting:
            found.append(waiting.popleft())
    return [part for _, part in sorted(found, key=itemgetter(0))]


def _together(results: Sequence[ToolResult], encoding: encodings.Encoding) -> int:
    """What the results of such calls are more as one JSON than one by one."""
    texts = ["".join(map(written, part.parts)) for part in results]
    apart = sum(4 + tokens(text, encoding) for text in texts)
    return 4 + tokens(tree.spaced([_value(text) for text in texts], ordered=False), encoding) - apart


def _compact(arguments: str) -> str:
    """Measured: arguments count without the spaces that they came with."""
    value = tree.within(arguments)
    return arguments if value is None else tree.dumps(value)


def _value(text: str) -> Any:
    value = tree.within(text)
    return text if value is None and text.strip() != "null" else value


def _grammar(tool: Tool, encoding: encodings.Encoding) -> int:
    """What binds a text that the tool takes, each line without its indentation."""
    form = tree.find(tool.server, "custom.format")
    rules = tree.find(form, "grammar.definition") if isinstance(form, dict) else None
    if not isinstance(rules, str):
        return 0
    lines = (line.strip() for line in rules.splitlines())
    return _GRAMMAR + tokens("\n".join(line for line in lines if line), encoding)


def _around(ask: Ask, tools: Sequence[Tool], style: Style, encoding: encodings.Encoding) -> int:
    total = style.flat + (style.described if tools[0].description else 0)
    if ask.controls.parallel_tools is False:
        total += style.alone
    mode = ask.choice.mode if ask.choice is not None else "auto"
    if not style.forced:
        return total
    if mode == "none":
        return total + 1
    if mode == "named" and ask.choice is not None and ask.choice.name:
        return total + _NAMED + tokens(ask.choice.name, encoding)
    if mode == "required" and len(tools) == 1 and ask.dialect == _RESPONSES:
        return total + _NAMED + tokens(tools[0].name, encoding)
    return total
