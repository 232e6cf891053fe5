"""Turns of any client as Converse messages: alternation, tool results in their places, cache points where they may be.

Pure; the request around it stands in `_bedrock_request`. Source: provider-translation B.6, B.0.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Final

from newapi_proxy.adapters._anthropic_messages import SIGNED
from newapi_proxy.adapters._bedrock_media import Names, block
from newapi_proxy.adapters._bedrock_models import Traits
from newapi_proxy.adapters._tools import as_object, fitting_id
from newapi_proxy.ir.ask import (
    Ask,
    CacheMark,
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

SEALED: Final = "bedrock-converse-v1"  # redacted thinking that is no text of Claude's: goes back as it came
POINTS: Final = 4  # cache points in one request
FILLER: Final = "."  # a turn or a text that must be there and has nothing to say
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BULKY: Final = ("document", "video")  # no cache point may follow these

Piece = tuple[Tree, Tree | None]
"""A block, and the cache point that belongs behind it."""


class Draft:
    """A request in the making: what the model takes, what had to go, which document names are taken."""

    __slots__ = ("dropped", "names", "traits")

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.dropped: list[str] = []
        self.names = Names()

    def point(self, cache: CacheMark | None, place: str, path: str) -> Tree | None:
        """The cache point for a mark, where this model has them."""
        if cache is None:
            return None
        if place not in self.traits.caching:
            self.dropped.append(f"{path}.cache_control" if path else "cache_control")
            return None
        point = {"type": "default"}
        if cache.ttl is not None and cache.ttl != "5m" and self.traits.hours:
            point["ttl"] = "1h"
        return {"cachePoint": point}


class _Entry:
    """One message in the making."""

    __slots__ = ("pieces", "role")

    def __init__(self, role: str, pieces: list[Piece]) -> None:
        self.role = role
        self.pieces = pieces

    @property
    def calls(self) -> list[str]:
        """The ids of its tool calls."""
        return [one["toolUse"]["toolUseId"] for one, _ in self.pieces if "toolUse" in one]


def conversation(ask: Ask, draft: Draft) -> tuple[list[Tree], list[Tree]]:
    """`system` and `messages`, the first of them a user's. Raises Unsupported with the path of what cannot be told."""
    leading = ask.leading()
    first = [piece for turn in ask.turns[:leading] for piece in _pieces(turn.parts, turn, draft, "system")]
    entries: list[_Entry] = []
    for turn in ask.turns[leading:]:
        _add(entries, turn, draft)
    entries = _apart(_answered(_settled(entries)), draft.traits)
    if not entries:
        entries = [_Entry("user", [first.pop()] if first else [_text(FILLER)])]
    elif entries[0].role == "assistant":
        entries.insert(0, _Entry("user", [_text(FILLER)]))
    _trim(entries[-1])
    return _laid(first), [{"role": entry.role, "content": _content(entry)} for entry in entries]


def keep_last_points(lists: Iterable[list[Tree]]) -> None:
    """Takes the first cache points away until the allowed number is left; lists in the order of the prompt."""
    every = list(lists)
    over = sum("cachePoint" in one for blocks in every for one in blocks) - POINTS
    for blocks in every:
        for one in [one for one in blocks if "cachePoint" in one][: max(0, over)]:
            blocks.remove(one)
            over -= 1


def _text(text: str) -> Piece:
    return {"text": text}, None


def _add(entries: list[_Entry], turn: Turn, draft: Draft) -> None:
    pieces = _pieces(turn.parts, turn, draft, "messages")
    role = "user"
    if turn.role == "assistant":
        role = "assistant"
        pieces.sort(key=lambda piece: "reasoningContent" not in piece[0])  # thinking comes first
    elif turn.role in ("system", "developer"):
        pieces = [({"text": f"<system>{one['text']}</system>"}, point) for one, point in pieces if "text" in one]
        if not pieces:
            return
    _append(entries, role, pieces)


# Parts are never joined into one text: a cache prefix ends between two of them (B.0, role merge).
def _append(entries: list[_Entry], role: str, pieces: list[Piece]) -> None:
    if entries and entries[-1].role == role:
        entries[-1].pieces += pieces
    else:
        entries.append(_Entry(role, pieces))


def _settled(entries: list[_Entry]) -> list[_Entry]:
    """Without empty messages; one that keeps two others apart becomes the filler."""
    kept: list[_Entry] = []
    for index, entry in enumerate(entries):
        if entry.pieces:
            _append(kept, entry.role, entry.pieces)
        elif kept and kept[-1].role != entry.role and any(later.pieces for later in entries[index + 1 :]):
            kept.append(_Entry(entry.role, [_text(FILLER)]))
    return kept


def _answered(entries: list[_Entry]) -> list[_Entry]:
    """Every call answered in the very next message, results first; results of no call become what they say."""
    out: list[_Entry] = []
    for entry in entries:
        calls = out[-1].calls if out else []
        out.append(_paired(entry, calls) if entry.role == "user" else entry)
    if out and out[-1].calls:
        out.append(_Entry("user", [_missing(id) for id in out[-1].calls]))
    return out


def _paired(entry: _Entry, calls: list[str]) -> _Entry:
    results: dict[str, Piece] = {}
    rest: list[Piece] = []
    for one, point in entry.pieces:
        result = one.get("toolResult")
        if result is None:
            rest.append((one, point))
        elif result["toolUseId"] in calls and result["toolUseId"] not in results:
            results[result["toolUseId"]] = one, point
        else:
            rest += [(inner, None) for inner in result["content"]]
    for id in calls:
        results.setdefault(id, _missing(id))
    return _Entry("user", [*results.values(), *rest] or [_text(FILLER)])


def _missing(id: str) -> Piece:
    return {"toolResult": {"toolUseId": id, "content": [{"text": "no result"}], "status": "error"}}, None


# Some makers take tool results in a turn of their own only, Claude takes no documents beside them.
def _apart(entries: list[_Entry], known: Traits) -> list[_Entry]:
    out: list[_Entry] = []
    for entry in entries:
        results = [piece for piece in entry.pieces if "toolResult" in piece[0]]
        rest = entry.pieces[len(results) :]
        bulky = known.maker == "anthropic" and any(name in one for one, _ in rest for name in _BULKY)
        if results and rest and (known.alone or bulky):
            out += [_Entry("user", results), _Entry("assistant", [_text(FILLER)]), _Entry("user", rest)]
        else:
            out.append(entry)
    return out


# A prefill may not end in white space.
def _trim(last: _Entry) -> None:
    one, point = last.pieces[-1]
    if last.role == "assistant" and "text" in one:
        last.pieces[-1] = {"text": one["text"].rstrip()}, point


def _content(entry: _Entry) -> list[Tree]:
    """A message's blocks; beside a document there must be a text."""
    blocks = _laid(entry.pieces)
    if any("document" in one for one in blocks) and not any("text" in one for one in blocks):
        blocks.append({"text": FILLER})
    return blocks


def _laid(pieces: list[Piece]) -> list[Tree]:
    """The blocks with their cache points: one that may not stand where it belongs moves behind the next block."""
    out: list[Tree] = []
    held: Tree | None = None
    for one, point in pieces:
        out.append(one)
        held = held or point
        if held is not None and not any(name in one for name in _BULKY):
            out.append(held)
            held = None
    return [*out, {"text": FILLER}, held] if held is not None else out


def _pieces(parts: Iterable[Part], turn: Turn, draft: Draft, place: str) -> list[Piece]:
    return [piece for part in parts for piece in _piece(part, turn, draft, place)]


def _piece(part: Part, turn: Turn, draft: Draft, place: str) -> list[Piece]:
    match part:
        case Text(text=text):
            point = draft.point(part.cache, place, part.path)
            return [({"text": text}, point)] if text.strip() else []  # upstream refuses blank texts
        case Refusal(text=text):
            return [_text(text)] if text.strip() else []
        case Media():
            return [(_medium(part, draft, False), draft.point(part.cache, place, part.path))]
        case ToolCall():
            value = {"toolUseId": _id(part.id), "name": part.name, "input": as_object(part.arguments)}
            return [({"toolUse": value}, draft.point(part.cache, place, part.path))]
        case ToolResult():
            return [_result(part, draft, place)]
        case Reasoning():
            return [(one, None) for one in _thought(part, turn, draft)]
        case ServerBlock(path=path):
            draft.dropped.append(path or "messages")
            return []


def _medium(part: Media, draft: Draft, inside: bool) -> Tree:
    if part.detail is not None:
        draft.dropped.append(f"{part.path.removesuffix('.image_url')}.image_url.detail")
    return block(part, draft.traits, draft.names, inside)


def _id(given: str) -> str:
    return fitting_id(given, _ID, "tooluse_")


def _result(part: ToolResult, draft: Draft, place: str) -> Piece:
    content: list[Tree] = []
    mark = part.cache
    for one in part.parts:
        mark = mark or one.cache
        if isinstance(one, Media):
            content.append(_medium(one, draft, True))
        elif one.text.strip():
            content.append({"text": one.text})
    status = "error" if part.is_error else "success"
    value: dict[str, Any] = {"toolUseId": _id(part.id), "content": content or [{"text": FILLER}], "status": status}
    return {"toolResult": value}, draft.point(mark, place, part.path)


# Only Claude takes thinking back, and only its own; any other is a 400 for the whole request.
def _thought(part: Reasoning, turn: Turn, draft: Draft) -> list[Tree]:
    if draft.traits.signed:
        if part.format == SIGNED and part.data:
            return [{"reasoningContent": {"redactedContent": base64.b64encode(part.data.encode()).decode()}}]
        if part.format == SEALED and part.data:
            return [{"reasoningContent": {"redactedContent": part.data}}]
        if part.format == SIGNED and part.signature:
            return [{"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}]
    draft.dropped.append(f"{turn.path}.reasoning_content" if turn.path else "reasoning_content")
    return []
