"""The body of a chat request to Cohere, version 1: a message, the history before it, tools by Python's type names.

Pure. Source: provider-translation B.5, relay-and-billing 10.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters._cohere_messages import Draft, document, refused
from newapi_proxy.adapters._cohere_request import (
    Built,
    controls,
    emulated,
    offered,
    own,
    reasoning_name,
    refuse,
    words,
)
from newapi_proxy.adapters._tools import as_object
from newapi_proxy.adapters.base import Target
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import (
    Ask,
    Choice,
    Media,
    Part,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    ToolCall,
    ToolResult,
    Tree,
    Turn,
)
from newapi_proxy.wire import tree

FILLER: Final = "."  # a message that must be there and has nothing to say
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.logprobs")
_LOGPROBS_PATHS: Final = {"responseLogprobs": "generationConfig.responseLogprobs"}
_TYPES: Final = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}


def chat(ask: Ask, to: Target) -> Built:
    """The body for this ask. Raises Unsupported with the path of what this version cannot be told."""
    draft = Draft(thinks=False)
    refuse(ask)
    for name in _LOGPROBS:
        if ask.controls.steering.get(name):
            path = _LOGPROBS_PATHS.get(name, name)
            raise Unsupported(f"Version 1 of Cohere's chat gives no log probabilities ({path}).", path)
    history = _History(draft).of(ask)
    body: Tree = {"model": to.model, "message": ""}
    last = history.pop() if history and history[-1]["role"] in ("USER", "TOOL") else {"role": "", "message": FILLER}
    if last["role"] == "TOOL":
        body["tool_results"] = last["tool_results"]
    else:
        body["message"] = last["message"] or FILLER
    _tools(ask, body, history, draft)
    wanted = ask.controls.format
    if wanted is not None and emulated(ask):
        _instruct(history, words(wanted))
    elif wanted is not None:
        body["response_format"] = {"type": "json_object", **({"schema": wanted.schema} if wanted.schema else {})}
    if history:
        body["chat_history"] = history
    body["stream"] = ask.stream
    controls(ask, to, body, draft)
    thinking = ask.controls.thinking
    if thinking is not None and not thinking.disabled and thinking.effort != "none":
        draft.dropped.append(reasoning_name(ask))
    mode: Any = to.options.safety_mode
    if mode is not None and not body.get("tools"):
        body["safety_mode"] = "NONE" if mode == "OFF" else mode
    body.update(own(ask))
    return Built(body=body, dropped=tuple(sorted(set(draft.dropped))))


class _History:
    """Entries in the order of the turns; results of one round of calls are one entry."""

    __slots__ = ("_calls", "_draft", "_out")

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._calls: dict[str, Tree] = {}
        self._out: list[Tree] = []

    def of(self, ask: Ask) -> list[Tree]:
        """All entries of the ask."""
        for turn in ask.turns:
            self._draft.note(turn.parts)
            if turn.role == "assistant":
                self._said(turn)
            elif turn.role in ("system", "developer"):
                self._out.append({"role": "SYSTEM", "message": self._text(turn.parts)})
            else:
                self._asked(turn)
        return self._out

    def _said(self, turn: Turn) -> None:
        calls = [part for part in turn.parts if isinstance(part, ToolCall)]
        rest = [part for part in turn.parts if not isinstance(part, ToolCall)]
        entry: Tree = {"role": "CHATBOT", "message": self._text(rest)}
        if calls:
            entry["tool_calls"] = [self._call(call) for call in calls]
        self._out.append(entry)

    def _call(self, call: ToolCall) -> Tree:
        value = {"name": call.name, "parameters": as_object(call.arguments)}
        self._calls[call.id] = value
        return value

    def _asked(self, turn: Turn) -> None:
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        rest = [part for part in turn.parts if not isinstance(part, ToolResult)]
        told = [self._result(result) for result in results]
        if told and self._out and self._out[-1]["role"] == "TOOL":
            self._out[-1]["tool_results"] += told
        elif told:
            self._out.append({"role": "TOOL", "tool_results": told})
        if rest or not told:
            self._out.append({"role": "USER", "message": self._text(rest)})

    def _result(self, result: ToolResult) -> Tree:
        call = self._calls.get(result.id) or {"name": result.name or result.id, "parameters": {}}
        text = self._text(result.parts)
        value = tree.lenient(text.encode("utf-8", "replace"))
        if isinstance(value, dict) and value:
            return {"call": call, "outputs": [value]}
        if isinstance(value, list) and value and all(isinstance(one, dict) and one for one in value):
            return {"call": call, "outputs": value}
        return {"call": call, "outputs": [{"output": text}]}

    def _text(self, parts: Sequence[Part]) -> str:
        return "\n".join(text for part in parts if (text := self._piece(part)) is not None)

    def _piece(self, part: Part) -> str | None:
        match part:
            case Text(text=text) | Refusal(text=text):
                return text
            case Media():
                text_ = document(part)
                if text_ is None:
                    raise refused(part, f"takes no {part.kind} in version 1 of its chat")
                return text_
            case Reasoning():
                self._draft.dropped.append("reasoning_content")
            case ServerBlock(path=path):
                self._draft.dropped.append(path or "messages")
            case ToolCall(path=path) | ToolResult(path=path):
                raise Unsupported("A tool call has no place in this message.", path, "unsupported_content")
        return None


# This version forces nothing: the list is cut to what may be called, and the model is asked in words.
def _tools(ask: Ask, body: Tree, history: list[Tree], draft: Draft) -> None:
    choice = ask.choice or Choice(mode="auto")
    if not ask.tools or choice.mode == "none":
        return
    tools = offered(ask)
    for tool in tools:
        if tool.strict:
            draft.dropped.append(f"{tool.place}.strict")
    body["tools"] = [
        {
            "name": tool.name,
            "description": tool.description or tool.name,
            "parameter_definitions": definitions(tool.schema or {}),
        }
        for tool in tools
    ]
    if choice.mode in ("named", "required"):
        named = f"the tool {choice.name}" if choice.mode == "named" else "at least one of the tools"
        _instruct(history, f"Answer by calling {named}.")
        draft.dropped.append("tool_choice~")


def _instruct(history: list[Tree], text: str) -> None:
    leading = next((place for place, entry in enumerate(history) if entry["role"] != "SYSTEM"), len(history))
    history.insert(leading, {"role": "SYSTEM", "message": text})


def definitions(schema: Tree) -> Tree:
    """The properties of an object's schema by name, description and type; what a type name cannot say stands in words.

    {"properties": {"n": {"type": "integer"}}, "required": ["n"]} → {"n": {"type": "int", "required": True}}.
    """
    properties, required = schema.get("properties"), schema.get("required")
    wanted = required if isinstance(required, list) else []
    found = properties.items() if isinstance(properties, dict) else ()
    return {name: _definition(node if isinstance(node, dict) else {}, name in wanted) for name, node in found}


def _definition(node: Tree, required: bool) -> Tree:
    kind = node.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    said = node.get("description")
    rest = {name: value for name, value in node.items() if name not in ("type", "description", "title", "default")}
    described = [said] if isinstance(said, str) and said else []
    if rest:
        described.append(f"(JSON Schema: {tree.dumps(rest)})")
    value: Tree = {"type": _TYPES.get(kind, "str") if isinstance(kind, str) else "str", "required": required}
    return {"description": " ".join(described), **value} if described else value
