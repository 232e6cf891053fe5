"""What a prompt is in tokens for open models that are told of everything in the public Harmony format.

Source: the format's published description, and recorded usage of its servers, which differ in what they indent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.rendering import namespace, shown, written
from newapi_proxy.ir.ask import Ask, Reasoning, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

ENCODING: Final = "o200k_base"
# What each prompt begins with; the date is today's, and as long as any other.
_PREFACE: Final = (
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: 2025-06-28"
    "\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
_CHANNEL: Final = "\nCalls to these tools must go to the commentary channel: 'functions'."
_AROUND: Final = 4  # a message: where it starts, whose it is, where its text starts and ends
_NEXT: Final = 2  # where the answer starts, and whose it is
_ON: Final = 2  # the channel of what the model said, and its mark
_TO: Final = 3  # the same without whose it is
_SYSTEM: Final = ("system", "developer")


def counted(ask: Ask, model: str) -> int:
    """The prompt's tokens but for its media. A model's name with a tag, as some servers have it, has tools indented."""
    preface = _PREFACE + (_CHANNEL if ask.tools else "")
    total = _AROUND + tokens(preface, ENCODING) + _NEXT
    told = _developer(ask, "  " if ":" in model else "")
    if told:
        total += _AROUND + tokens(told, ENCODING)
    names = {part.id: part.name for turn in ask.turns for part in turn.parts if isinstance(part, ToolCall)}
    return total + sum(sum(_turn(turn, names)) for turn in shown(ask) if turn.role not in _SYSTEM)


def _developer(ask: Ask, pad: str) -> str:
    said = "".join(map(_said, (turn for turn in ask.turns if turn.role in _SYSTEM)))
    parts = [f"# Tools\n\n## functions\n\n{namespace(ask.tools, lines=True, pad=pad)}"] if ask.tools else []
    form = ask.controls.format
    if form is not None and form.kind == "json_schema":
        about = f"// {form.description}\n" if form.description else ""
        parts.append(f"# Response Formats\n\n## {form.name or ''}\n\n{about}{tree.dumps(form.schema)}")
    return (f"# Instructions\n\n{said}\n\n" if said else "") + "\n\n".join(parts)


def _turn(turn: Turn, names: Mapping[str, str]) -> Iterator[int]:
    """The tokens of each message that a turn is."""
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    thought = "".join(part.text for part in turn.parts if isinstance(part, Reasoning))
    if thought and calls:
        yield _AROUND + _ON + tokens(thought, ENCODING)
    for part in turn.parts:
        if isinstance(part, ToolResult):
            name = part.name or names.get(part.id, "")
            yield _TO + _ON + tokens(f"functions.{name} to=assistant", ENCODING) + tokens(written(part), ENCODING)
    said = _said(turn)
    if said:
        yield _AROUND + (_ON if turn.role == "assistant" else 0) + tokens(said, ENCODING)
    for call in calls:
        to = tokens(f"assistant to=functions.{call.name}", ENCODING) + tokens("commentary json", ENCODING)
        yield _TO + 1 + to + tokens(call.arguments, ENCODING)


def _said(turn: Turn) -> str:
    return "".join(written(part) for part in turn.parts if not isinstance(part, (Reasoning, ToolCall, ToolResult)))
