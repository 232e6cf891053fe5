"""What a prompt is in tokens for models whose layout or vocabulary is not known: tiktoken's count, corrected.

Source: provider-translation E.5, and recorded usage where this is silent: what each maker's template adds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from newapi_proxy.billing import encodings
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.families import Family
from newapi_proxy.billing.rendering import shown, written
from newapi_proxy.ir.ask import Ask, Reasoning, Tool, ToolCall, Turn
from newapi_proxy.wire import tree

_DIGITS: Final = re.compile(r"\d+")
_WORDS: Final = re.compile(r"[\w-]+")
_PLAIN: Final = "openai.completions"  # the format that has no messages
_SEALED: Final = (0.16, 0)  # encrypted thoughts: tokens a character, less so many each
_COMPACTED: Final = 0.096  # an encrypted history: tokens a character


def estimated(ask: Ask, model: str, family: Family) -> int:
    """The same for a model that follows no such formula: tiktoken's count, corrected by what its family adds."""
    encoding = encodings.encoding(encodings.bare(model))
    turns = ask.turns if family.keeps else shown(ask)
    words = ["".join(map(written, turn.parts)) for turn in turns]
    total = family.prompt * sum(_single(text, encoding, family) for text in words)
    if ask.dialect == _PLAIN:
        return round(total)
    spoken = len(ask.turns) - ask.leading()
    total += sealed(turns, *_SEALED) + family.request + family.message * (spoken - 1)
    thinking = ask.controls.thinking
    if not ask.leading() and not (thinking is not None and (thinking.disabled or thinking.effort == "none")):
        total += family.untold
    tools = _seen(ask, words)
    if ask.tools:
        total += family.tools + family.each * len(tools)
        total += family.tool * _single(_defined(tools, family), encoding, family)
    for calls in ([part for part in turn.parts if isinstance(part, ToolCall)] for turn in ask.turns):
        total += sum(family.call + family.argument * _arguments(call) for call in calls)
    form = ask.controls.format
    if form is not None and form.kind == "json_schema" and family.schema is not None:
        total += family.schema + tokens(tree.dumps(form.schema), encoding)
    return max(0, round(total))


def sealed(turns: Sequence[Turn], rate: float, less: int) -> int:
    """Encrypted thoughts in tokens, by their characters."""
    sizes = [len(part.data) for turn in turns for part in turn.parts if isinstance(part, Reasoning) and part.data]
    return round(sum(max(0.0, rate * size - less) for size in sizes))


def stored(ask: Ask) -> int:
    """What only the provider can read and the request brings along: a compacted history, encrypted."""
    items = (tree.find(ask.tree, path) for path in ask.own)
    sealed = (item.get("encrypted_content") for item in items if isinstance(item, dict))
    return round(sum(_COMPACTED * len(text) for text in sealed if isinstance(text, str)))


def _single(text: str, encoding: encodings.Encoding, family: Family) -> int:
    """Tokens of a text, those of digits counted one by one where the family's tokenizer does so."""
    more = sum(len(run) - -(-len(run) // 3) for run in _DIGITS.findall(text)) if family.digits else 0
    return tokens(text, encoding) + more


def _seen(ask: Ask, words: Sequence[str]) -> Sequence[Tool]:
    """The tools that the model has seen: not those that are loaded when they are found, and that nobody speaks of."""
    late = {tool.name for tool in ask.tools if _deferred(ask, tool)}
    if not late:
        return ask.tools
    said = {word for text in words for word in _WORDS.findall(text)}
    return [tool for tool in ask.tools if tool.name not in late or said.issuperset(_WORDS.findall(tool.name))]


def _deferred(ask: Ask, tool: Tool) -> bool:
    own = tree.find(ask.tree, tool.path)
    return isinstance(own, dict) and own.get("defer_loading") is True


def _defined(tools: Sequence[Tool], family: Family) -> str:
    rows = (
        {"name": tool.name, "description": tool.description or "", "parameters": tool.schema or tool.server}
        for tool in tools
    )
    return "".join(tree.dumps({k: v for k, v in row.items()}) for row in rows)


def _arguments(call: ToolCall) -> int:
    read = tree.within(call.arguments)
    return len(read) if isinstance(read, dict) else 0
