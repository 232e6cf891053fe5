"""What a prompt is in tokens: by the formula that OpenAI's models were measured to follow, or by a family's factors.

Source: provider-translation E.2 and E.5, and recorded usage where these are silent: what titles, roots' descriptions,
names of called tools and the Responses form add, and what each maker's template does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.billing import encodings
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.families import Family
from newapi_proxy.billing.rendering import namespace, shown, written
from newapi_proxy.ir.ask import Ask, Reasoning, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

_GPT5: Final = re.compile(r"gpt-([5-9]|\d\d)")
_THINKS: Final = re.compile(r"o[1-9](?!-mini-2024|-mini$)|o[3-9]|gpt-([5-9]|\d\d)")
_SEARCHES: Final = "-search-"  # models that see only the conversation's last message
_RESPONSES: Final = "openai-responses"  # the format whose prompts are laid out another way
_SYSTEM: Final = ("system", "developer")
_DIGITS: Final = re.compile(r"\d+")
_PLAIN: Final = "openai.completions"  # the format that has no messages
_SEALED: Final = (0.16, 0)  # encrypted thoughts: tokens a character, less so many each
_FERNET: Final = (0.13, 105)  # the same for OpenAI's
_COMPACTED: Final = 0.096  # an encrypted history: tokens a character
_SHORTENING: Final = 93  # what is said to a model that is to make one
_NEWEST: Final = 90  # around the tools of the newest models
_LATE: Final = "input."  # where tools stand that came with the conversation
_ONE_BY_ONE: Final = 79  # where calls may not be parallel


def counted(ask: Ask, model: str) -> int:
    """The prompt's tokens but for its media."""
    name = encodings.bare(model)
    encoding = encodings.encoding(name)
    if ask.dialect == _PLAIN:
        return sum(tokens("".join(map(written, turn.parts)), encoding) for turn in ask.turns)
    total = 3 - (1 if _THINKS.match(name) else 0) + (_SHORTENING if ask.kind == "compaction" else 0)
    turns = ask.turns[-1:] if _SEARCHES in name else shown(ask)
    total += sum(_message(turn, name, ask.dialect) for turn in turns) + _sealed(turns, *_FERNET) + _stored(ask)
    titled = ask.dialect == _RESPONSES
    late = [tool for tool in ask.tools if tool.path.startswith(_LATE)]
    if len(late) < len(ask.tools):
        given = [tool for tool in ask.tools if tool not in late] if late else ask.tools
        total += tokens(namespace(given, titled=titled), encoding) + _tools_extra(ask, given, name)
    if late:
        total += tokens(namespace(late, titled=titled), encoding) + _NEWEST
    return total + _schema(ask)


def estimated(ask: Ask, model: str, family: Family) -> int:
    """The same for a model that follows no such formula: tiktoken's count, corrected by what its family adds."""
    encoding = encodings.encoding(encodings.bare(model))
    turns = ask.turns if family.keeps else shown(ask)
    words = ["".join(map(written, turn.parts)) for turn in turns]
    total = family.prompt * sum(_single(text, encoding, family) for text in words)
    if ask.dialect == _PLAIN:
        return round(total)
    spoken = len(ask.turns) - ask.leading()
    total += _sealed(turns, *_SEALED) + family.request + family.message * (spoken - 1)
    tools = [tool for tool in ask.tools if not _deferred(ask, tool, words)]
    if ask.tools:
        total += family.tools + family.each * len(tools)
        total += family.tool * _single(_defined(tools, family), encoding, family)
        if ask.choice is not None and ask.choice.mode in ("required", "named"):
            total += family.forced
        total += family.alone if ask.controls.parallel_tools is False else 0
    elif family.thinking and _thinks(ask):
        total += family.thinking
    for calls in ([part for part in turn.parts if isinstance(part, ToolCall)] for turn in ask.turns):
        total += family.parallel * max(0, len(calls) - 1)
        total += sum(family.call + family.argument * _arguments(call) for call in calls)
    form = ask.controls.format
    if form is not None and form.kind == "json_schema" and family.schema is not None:
        written_out = tree.indented(form.schema) if family.spread else tree.dumps(form.schema)
        total += family.schema + (family.spread or 1) * tokens(written_out, encoding)
    return max(0, round(total))


def _thinks(ask: Ask) -> bool:
    """Whether a prompt says how to think: by a budget, or by an effort that becomes one on the way."""
    thinking = ask.controls.thinking
    if thinking is None or thinking.disabled:
        return False
    own = "thinking" in ask.tree or "output_config" in ask.tree  # then an effort is sent as it is
    return bool(thinking.budget) or (thinking.effort not in (None, "none") and not own)


def _sealed(turns: Sequence[Turn], rate: float, less: int) -> int:
    """Encrypted thoughts in tokens, by their characters."""
    sizes = [len(part.data) for turn in turns for part in turn.parts if isinstance(part, Reasoning) and part.data]
    return round(sum(max(0.0, rate * size - less) for size in sizes))


def _stored(ask: Ask) -> int:
    """What only the provider can read and the request brings along: a compacted history, encrypted."""
    items = (tree.find(ask.tree, path) for path in ask.own)
    sealed = (item.get("encrypted_content") for item in items if isinstance(item, dict))
    return round(sum(_COMPACTED * len(text) for text in sealed if isinstance(text, str)))


def _single(text: str, encoding: encodings.Encoding, family: Family) -> int:
    """Tokens of a text, those of digits counted one by one where the family's tokenizer does so."""
    more = sum(len(run) - -(-len(run) // 3) for run in _DIGITS.findall(text)) if family.digits else 0
    return tokens(text, encoding) + more


def _deferred(ask: Ask, tool: Tool, words: Sequence[str]) -> bool:
    """Whether the model has not seen a tool: one that is loaded when it is found, and nobody speaks of."""
    own = tree.find(ask.tree, tool.path)
    return isinstance(own, dict) and own.get("defer_loading") is True and not any(tool.name in text for text in words)


def _defined(tools: Sequence[Tool], family: Family) -> str:
    if family.typed:
        return namespace(tools, titled=True)
    rows = (
        {"name": tool.name, "description": tool.description or "", "parameters": tool.schema or tool.server}
        for tool in tools
    )
    return "".join(tree.dumps({k: v for k, v in row.items()}) for row in rows)


def _arguments(call: ToolCall) -> int:
    read = tree.lenient(call.arguments.encode("utf-8", "replace"))
    return len(read) if isinstance(read, dict) else 0


def _schema(ask: Ask) -> int:
    """An answer's form: a heading with its name, and the schema without what it requires and forbids."""
    form = ask.controls.format
    if form is None:
        return 0
    if form.kind == "json_object":
        return 2 if ask.tools else 0
    about = f"// {form.description}\n" if form.description else ""
    text = f"\n\n# Response Formats\n\n## {form.name or ''}\n\n{about}{tree.dumps(_slim(form.schema))}"
    total = tokens(text, "o200k_base")
    if ask.dialect == _RESPONSES:
        return total - 1
    return total + (3 if _system(ask) else 7)


def _slim(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_slim(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in ("required", "additionalProperties")}
    fields = schema.get("properties")
    slim = {name: _slim(value) for name, value in kept.items() if name != "properties"}
    return slim | (
        {"properties": {name: _slim(value) for name, value in fields.items()}} if isinstance(fields, dict) else {}
    )


def _message(turn: Turn, name: str, dialect: str) -> int:
    encoding = encodings.encoding(name)
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    others = "".join(written(part) for part in turn.parts if not isinstance(part, (ToolResult, ToolCall)))
    total = sum(4 + tokens("".join(map(written, part.parts)), encoding) for part in results)
    if others or not results:
        total += 4 + tokens(others, encoding)
    if turn.name:
        total += 1 + tokens(turn.name, encoding)
    if calls:
        named = [tokens(call.name, encoding) for call in calls]
        total += sum(named) + sum(tokens(call.arguments, encoding) for call in calls)
        total += _calls_extra(named, name, dialect)
    return total


def _system(ask: Ask) -> bool:
    return any(turn.role in _SYSTEM for turn in ask.turns)


def _tools_extra(ask: Ask, tools: Sequence[Tool], name: str) -> int:
    system = _system(ask)
    if ask.dialect == _RESPONSES:
        if not _GPT5.match(name):
            return 3 if system else 2
        more = _ONE_BY_ONE if ask.controls.parallel_tools is False else 0
        return more + (9 if any(tool.description for tool in tools) and not system else 8)
    if _GPT5.match(name):
        return _NEWEST
    if encodings.encoding(name) == "cl100k_base":
        return 6 if system else 9
    return 3 if system else 8


def _calls_extra(named: list[int], name: str, dialect: str) -> int:
    """Around calls: `named` are the tokens of their names, which a result's message repeats."""
    newest, oldest = bool(_GPT5.match(name)), encodings.encoding(name) == "cl100k_base"
    repeated = not (newest or oldest or dialect == _RESPONSES)
    if len(named) > 1:
        return 14 * len(named) + (sum(named) if repeated else 0)
    if repeated:
        return (3 * named[0] + 7) // 2
    if newest:
        return 11 if dialect == _RESPONSES else 13
    return 5 if dialect == _RESPONSES else 7
