"""Turns of any client as messages of Cohere's chat, version 2.

Pure; the request around them stands in `_cohere_request`. Source: provider-translation B.5.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters._tools import as_object, awaited, short_id
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import (
    Ask,
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

PLAN: Final = "tool_plan"
_TEXTS: Final = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


class Draft:
    """A request in the making: whether the model thinks, and the names of what had to go."""

    __slots__ = ("dropped", "thinks")

    def __init__(self, thinks: bool) -> None:
        self.thinks = thinks
        self.dropped: list[str] = []

    def note(self, parts: Sequence[Part]) -> None:
        """Names the cache hints on parts, which have no place here."""
        for part in parts:
            if isinstance(part, (Text, Media, ToolCall, ToolResult)) and part.cache is not None:
                self.dropped.append(f"{part.path}.cache_control" if part.path else "cache_control")
            if isinstance(part, ToolResult):
                self.note(part.parts)


def messages(ask: Ask, draft: Draft) -> list[Tree]:
    """All messages, system ones in their places. Raises Unsupported with the path of what cannot be told."""
    out: list[Tree] = []
    for turn in awaited(ask.turns):
        draft.note(turn.parts)
        match turn.role:
            case "assistant":
                out.append(_said(turn, ask, draft))
            case "system" | "developer":
                out.append({"role": "system", "content": content(_parts(turn.parts, draft))})
            case _:
                out += _asked(turn, draft)
    return out


def content(parts: list[Tree]) -> Any:
    """A lone text as a string, anything else as parts."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


# Results first, each a message of its own; what the user says beside them follows.
def _asked(turn: Turn, draft: Draft) -> list[Tree]:
    out = [_result(part, draft) for part in turn.parts if isinstance(part, ToolResult)]
    rest = [part for part in turn.parts if not isinstance(part, ToolResult)]
    if rest or not out:
        out.append({"role": "user", "content": content(_parts(rest, draft))})
    return out


def _parts(parts: Sequence[Part], draft: Draft) -> list[Tree]:
    out: list[Tree] = []
    for part in parts:
        match part:
            case Text(text=text) | Refusal(text=text):
                out.append({"type": "text", "text": text})
            case Media():
                out.append(_medium(part))
            case ToolCall(path=path) | ToolResult(path=path):
                raise Unsupported("A tool call has no place in this message.", path, "unsupported_content")
            case ServerBlock(path=path):
                draft.dropped.append(path or "messages")
            case Reasoning():
                draft.dropped.append("reasoning_content")
    return out


# Addresses are fetched by Cohere itself.
def _medium(part: Media) -> Tree:
    text = document(part)
    if text is not None:
        return {"type": "text", "text": text}
    if part.kind != "image" or not (part.data or part.url):
        raise refused(part, f"takes no {part.kind} of this kind" if part.kind == "image" else f"takes no {part.kind}")
    url = f"data:{part.media_type or 'image/png'};base64,{part.data}" if part.data else part.url
    image: Tree = {"url": url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def document(part: Media) -> str | None:
    """The text of a text file, named; None for what is no text."""
    if part.kind != "file":
        return None
    text = part.text if part.text is not None else _read(part)
    if text is None:
        return None
    return f"{part.filename}:\n{text}" if part.filename else text


def _read(part: Media) -> str | None:
    kind = (part.media_type or "").partition(";")[0].strip().lower()
    if part.data is None or not (kind.startswith("text/") or kind in _TEXTS):
        return None
    try:
        return base64.b64decode(part.data).decode("utf-8", "replace")
    except binascii.Error:
        raise refused(part, "was given a file that is no valid base64") from None


def refused(part: Media, why: str) -> Unsupported:
    """The error for a medium."""
    return Unsupported(f"Cohere {why} ({part.path or part.kind}).", part.path, "unsupported_content")


def _said(turn: Turn, ask: Ask, draft: Draft) -> Tree:
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    thoughts = [part for part in turn.parts if isinstance(part, Reasoning)]
    rest = [part for part in turn.parts if not isinstance(part, (ToolCall, Reasoning))]
    parts = _parts(rest, draft)
    message: Tree = {"role": "assistant"}
    plan = _plan(turn, ask)
    told = [one.text for one in thoughts if one.text]
    if draft.thinks:
        parts = [{"type": "thinking", "thinking": text} for text in told] + parts
    elif calls and told and plan is None:  # what this model had planned came to the client as its thinking
        plan = "\n\n".join(told)
    elif told:
        draft.dropped.append(_path(turn, "reasoning_content"))
    if len(told) < len(thoughts):  # sealed by another provider
        draft.dropped.append(_path(turn, "reasoning_content"))
    if any(part.get("text") != "" for part in parts) or not calls:
        message["content"] = content(parts)
    if calls:
        message["tool_calls"] = [call(one) for one in calls]
    if calls and plan:
        message[PLAN] = plan
    return message


def _plan(turn: Turn, ask: Ask) -> str | None:
    """The plan as clients that know Cohere send it back, beside the message's other fields."""
    plan = tree.find(ask.tree, f"{turn.path}.{PLAN}") if turn.path else None
    return plan if isinstance(plan, str) else None


def _path(turn: Turn, name: str) -> str:
    return f"{turn.path}.{name}" if turn.path else name


def call(one: ToolCall) -> Tree:
    """A call of the history; arguments that are no JSON object are wrapped, so that the turn can be replayed."""
    arguments = tree.dumps(as_object(one.arguments))
    return {"id": short_id(one.id), "type": "function", "function": {"name": one.name, "arguments": arguments}}


def _result(result: ToolResult, draft: Draft) -> Tree:
    for part in result.parts:
        if isinstance(part, Media) and document(part) is None:
            raise refused(part, f"takes no {part.kind} inside a tool result")
    return {"role": "tool", "tool_call_id": short_id(result.id), "content": content(_parts(result.parts, draft))}
