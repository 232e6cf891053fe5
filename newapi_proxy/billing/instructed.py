"""What a prompt is in tokens for models that are told between the marks [INST] and [/INST], with their own vocabulary.

Source: the published templates and tokenizer (`data/tekken/NOTICE`), and recorded usage, which follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.rendering import written
from newapi_proxy.ir.ask import Ask, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.wire import tree

ENCODING: Final = "tekken"
_MARKS: Final = 2  # around an instruction, a question, the tools, a result
_END: Final = 1  # of what the model said
_CALL: Final = 2  # before a call's name, and before its arguments
_SYSTEM: Final = ("system", "developer")


def counted(ask: Ask, request: int) -> int:
    """The prompt's tokens but for its media. `request`: what stands before, and around the first question."""
    total = request - _MARKS + (_MARKS + tokens(_listed(ask.tools), ENCODING) if ask.tools else 0)
    return total + sum(map(_turn, ask.turns))


def _turn(turn: Turn) -> int:
    """Thoughts are shown again; results that came together are each by itself."""
    said = "".join(written(part) for part in turn.parts if not isinstance(part, (ToolCall, ToolResult)))
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    total = sum(_MARKS + tokens(written(part), ENCODING) for part in results) + tokens(said, ENCODING)
    if turn.role == "assistant":
        return total + _END + sum(map(_called, calls))
    return total + (_MARKS if said or not results else 0)


def _called(call: ToolCall) -> int:
    read = tree.within(call.arguments)
    arguments = call.arguments if read is None else tree.spaced(read, ordered=False)
    return _CALL + tokens(call.name, ENCODING) + tokens(arguments, ENCODING)


def _listed(tools: Sequence[Tool]) -> str:
    return tree.spaced([_function(tool) for tool in tools], ordered=False)


def _function(tool: Tool) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description or "", "parameters": tool.schema or tool.server or {}}
    return {"type": "function", "function": about}
