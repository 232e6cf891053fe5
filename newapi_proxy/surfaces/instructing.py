"""A channel's own system prompt put into what a client asked, whatever its format: in the turns and in the tree alike.

Source: relay-and-billing 4.15. `absent` speaks only where the client gives no system prompt, `before` stands in front
of the client's, `replace` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.ir.ask import Ask, Part, Text, ToolResult, Tree, Turn
from newapi_proxy.wire import tree

Mode = Literal["absent", "before", "replace"]

_ROLES: Final = ("system", "developer")
_NUMBERED: Final = re.compile(r"messages\.(\d+)")


def instructed(ask: Ask, text: str, mode: Mode) -> Ask:
    """The ask with the text; itself where its format has no place for one, or the mode leaves it alone."""
    place = _PLACES.get(ask.dialect)
    first = next((index for index, turn in enumerate(ask.turns) if turn.role in _ROLES), None)
    if place is None or (first is not None and mode == "absent"):
        return ask
    edited = place(ask.tree, text, mode)
    if first is None:
        shift = ask.dialect == _CHAT
        turns = tuple(_moved(turn) for turn in ask.turns) if shift else ask.turns
        mine = Turn(role="system", parts=(Text(text=text),), plain=True)
        return msgspec.structs.replace(ask, tree=edited, turns=(mine, *turns))
    theirs = ask.turns[first]
    parts: tuple[Part, ...] = (Text(text=text),)
    if mode == "before":
        parts = (Text(text=f"{text}\n"), *theirs.parts)
    spoken = msgspec.structs.replace(theirs, parts=parts, plain=False)
    return msgspec.structs.replace(ask, tree=edited, turns=(*ask.turns[:first], spoken, *ask.turns[first + 1 :]))


def _joined(text: str, theirs: Any, block: Callable[[str], Tree]) -> Any:
    """Text in front of a system prompt that is text or a list of blocks."""
    return [block(text), *theirs] if isinstance(theirs, list) else f"{text}\n{theirs}"


def _text_block(text: str) -> Tree:
    return {"type": "text", "text": text}


def _chat(body: Tree, text: str, mode: Mode) -> Tree:
    messages: list[Tree] = list(body.get("messages") or ())
    first = next((place for place, one in enumerate(messages) if one.get("role") in _ROLES), None)
    if first is None:
        messages.insert(0, {"role": "system", "content": text})
    else:
        theirs = messages[first].get("content")
        content = text if mode == "replace" else _joined(text, theirs, _text_block)
        messages[first] = {**messages[first], "content": content}
    return {**body, "messages": messages}


def _beside(field: str) -> Callable[[Tree, str, Mode], Tree]:
    """Formats whose system prompt has a field of its own, text or blocks."""

    def put(body: Tree, text: str, mode: Mode) -> Tree:
        theirs = body.get(field)
        return {**body, field: text if theirs is None or mode == "replace" else _joined(text, theirs, _text_block)}

    return put


def _parts(body: Tree, text: str, mode: Mode) -> Tree:
    theirs = tree.find(body, "systemInstruction.parts")
    rest = theirs if isinstance(theirs, list) and mode == "before" else []
    return tree.put(body, "systemInstruction.parts", [{"text": text}, *rest])


def _moved(turn: Turn) -> Turn:
    """The turn one message later."""
    return msgspec.structs.replace(turn, path=_later(turn.path), parts=tuple(_part(part) for part in turn.parts))


def _part(part: Part) -> Part:
    if isinstance(part, ToolResult):
        inner = tuple(msgspec.structs.replace(one, path=_later(one.path)) for one in part.parts)
        return msgspec.structs.replace(part, path=_later(part.path), parts=inner)
    path = getattr(part, "path", "")
    return msgspec.structs.replace(part, path=_later(path)) if path else part


def _later(path: str) -> str:
    return _NUMBERED.sub(lambda found: f"messages.{int(found[1]) + 1}", path, count=1)


_CHAT: Final = "openai-chat"
_PLACES: Final[Mapping[str, Callable[[Tree, str, Mode], Tree]]] = {
    _CHAT: _chat,
    "openai-responses": _beside("instructions"),
    "anthropic": _beside("system"),
    "gemini": _parts,
}
