"""Turns of any client as Anthropic messages: alternation, tool results in their places, media, cache marks.

Pure; the request around it stands in `_anthropic_request`. Source: provider-translation B.1, B.0.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Final

from newapi_proxy.adapters._anthropic_models import Traits
from newapi_proxy.adapters._tools import as_object, fitting_id, short_id
from newapi_proxy.errors import Unsupported
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

FAMILY: Final = "anthropic"
SIGNED: Final = "anthropic-claude-v1"
FILES_BETA: Final = "files-api-2025-04-14"
MARKS: Final = 4  # cache markers in one request
FILLER: Final = "."  # a turn that must be there and has nothing to say
_THOUGHTS: Final = ("thinking", "redacted_thinking")
_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_MAGIC: Final = (("iVBOR", "image/png"), ("/9j/", "image/jpeg"), ("R0lG", "image/gif"), ("UklGR", "image/webp"))
_SUFFIXES: Final = {"pdf": "application/pdf", "txt": "text/plain", "md": "text/plain", "csv": "text/plain"}


class Draft:
    """A request in the making: what the model takes, what had to go, which betas the rest needs."""

    __slots__ = ("betas", "dropped", "thoughts_as_text", "traits")

    def __init__(self, traits: Traits, thoughts_as_text: bool = False) -> None:
        self.traits = traits
        self.thoughts_as_text = thoughts_as_text
        self.dropped: list[str] = []
        self.betas: list[str] = []


class _Entry:
    """One message in the making."""

    __slots__ = ("blocks", "role")

    def __init__(self, role: str, blocks: list[Tree]) -> None:
        self.role = role
        self.blocks = blocks

    @property
    def calls(self) -> list[str]:
        """The ids of its tool calls."""
        return [block["id"] for block in self.blocks if block["type"] == "tool_use"]


def conversation(ask: Ask, draft: Draft) -> tuple[list[Tree], list[Tree]]:
    """`system` blocks and `messages`. Raises Unsupported with the path of a part that cannot be told."""
    leading = ask.leading()
    system = [block for turn in ask.turns[:leading] for block in _blocks(turn.parts, turn, draft)]
    entries: list[_Entry] = []
    for turn in ask.turns[leading:]:
        _add(entries, turn, draft)
    entries = _answered(_settled(entries))
    if not entries:
        entries = [_Entry("user", [system.pop()] if system else [_text(FILLER)])]
    elif entries[0].role == "assistant":
        entries.insert(0, _Entry("user", [_text(FILLER)]))
    _trim(entries)
    return system, [{"role": entry.role, "content": entry.blocks} for entry in entries]


def keep_last_marks(blocks: Iterable[Tree], most: int) -> None:
    """Takes the first cache markers away until `most` are left; blocks in the order of the prompt."""
    marked = [block for block in blocks if "cache_control" in block]
    for block in marked[: max(0, len(marked) - most)]:
        del block["cache_control"]


def marked(value: Tree, cache: CacheMark | None) -> Tree:
    """The block with its cache marker; lives that this API does not know become the longer of its two."""
    if cache is not None:
        value["cache_control"] = {"type": "ephemeral"}
        if cache.ttl is not None:
            value["cache_control"]["ttl"] = "5m" if cache.ttl == "5m" else "1h"
    return value


def all_blocks(messages: list[Tree]) -> Iterable[Tree]:
    """Every block of the messages, those inside tool results before the result itself."""
    for message in messages:
        for block in message["content"]:
            if block["type"] == "tool_result" and isinstance(block["content"], list):
                yield from block["content"]
            yield block


def _add(entries: list[_Entry], turn: Turn, draft: Draft) -> None:
    blocks = _blocks(turn.parts, turn, draft)
    if turn.role in ("system", "developer"):
        _add_system(entries, blocks, draft)
        return
    role = "assistant" if turn.role == "assistant" else "user"
    if role == "assistant":
        blocks.sort(key=lambda block: block["type"] not in _THOUGHTS)  # thinking comes first, the rest keeps its order
    _append(entries, role, blocks)


# Parts are never joined into one string: a cache prefix ends between two of them (B.0, role merge).
def _append(entries: list[_Entry], role: str, blocks: list[Tree]) -> None:
    if entries and entries[-1].role == role:
        entries[-1].blocks += blocks
    else:
        entries.append(_Entry(role, blocks))


def _add_system(entries: list[_Entry], blocks: list[Tree], draft: Draft) -> None:
    """A later system message at its place: as such where the model knows them, else as tagged text of the user."""
    if not blocks:
        return
    if not draft.traits.system_turns or (entries and entries[-1].calls):
        for block in blocks:
            block["text"] = f"<system>{block['text']}</system>"
        _append(entries, "user", blocks)
        return
    if not entries or entries[-1].role == "assistant":
        entries.append(_Entry("user", [_text(FILLER)]))  # such an entry must follow a user's
    _append(entries, "system", blocks)


def _settled(entries: list[_Entry]) -> list[_Entry]:
    """Without empty messages; one that keeps two others apart becomes the filler."""
    kept: list[_Entry] = []
    for index, entry in enumerate(entries):
        if entry.blocks:
            if kept and kept[-1].role == entry.role:
                kept[-1].blocks += entry.blocks
            else:
                kept.append(entry)
        elif kept and kept[-1].role != entry.role and any(later.blocks for later in entries[index + 1 :]):
            kept.append(_Entry(entry.role, [_text(FILLER)]))
    return kept


def _answered(entries: list[_Entry]) -> list[_Entry]:
    """Every call answered in the very next message, results first; results of no call become text."""
    out: list[_Entry] = []
    for entry in entries:
        calls = out[-1].calls if out and out[-1].role == "assistant" else []
        if calls and entry.role != "user":
            out.append(_Entry("user", [_missing(id) for id in calls]))
            calls = []
        out.append(_paired(entry, calls) if entry.role == "user" else entry)
    return out


# Upstream refuses a turn in which a result is missing, doubled, out of place or behind other blocks.
def _paired(entry: _Entry, calls: list[str]) -> _Entry:
    results: dict[str, Tree] = {}
    rest: list[Tree] = []
    for block in entry.blocks:
        if block["type"] != "tool_result":
            rest.append(block)
        elif block["tool_use_id"] in calls and block["tool_use_id"] not in results:
            results[block["tool_use_id"]] = block
        else:
            rest += _orphan(block)
    for id in calls:
        results.setdefault(id, _missing(id))
    return _Entry(entry.role, [*results.values(), *rest] or [_text(FILLER)])


def _missing(id: str) -> Tree:
    return {"type": "tool_result", "tool_use_id": id, "content": "no result", "is_error": True}


# What a lost result says is worth keeping, its form is not.
def _orphan(block: Tree) -> list[Tree]:
    content = block["content"]
    if isinstance(content, list):
        return content
    return [_text(content)] if content.strip() else []


def _trim(entries: list[_Entry]) -> None:
    """A prefill may not end in white space."""
    last = entries[-1]
    if last.role != "assistant" or last.blocks[-1]["type"] != "text":
        return
    last.blocks[-1]["text"] = last.blocks[-1]["text"].rstrip()


def _text(text: str) -> Tree:
    return {"type": "text", "text": text}


def _blocks(parts: Iterable[Part], turn: Turn, draft: Draft) -> list[Tree]:
    return [block for part in parts for block in _block(part, turn, draft)]


def _block(part: Part, turn: Turn, draft: Draft) -> list[Tree]:
    match part:
        case Text(text=text) | Refusal(text=text):
            cache = part.cache if isinstance(part, Text) else None
            return [marked(_text(text), cache)] if text.strip() else []  # upstream refuses blank blocks
        case Media():
            return [media(part, draft)]
        case ToolCall():
            value = {"type": "tool_use", "id": _id(part.id), "name": part.name, "input": as_object(part.arguments)}
            return [marked(value, part.cache)]
        case ToolResult():
            return [_result(part, turn, draft)]
        case Reasoning():
            return _thought(part, turn, draft)
        case ServerBlock(family=family, value=value):
            return [dict(value)] if family == FAMILY else []


def _id(given: str) -> str:
    return fitting_id(short_id(given), _ID, "toolu_")


# A plain string stays one: servers that hash the prompt see what the client wrote.
def _result(part: ToolResult, turn: Turn, draft: Draft) -> Tree:
    content: Any = _blocks(part.parts, turn, draft)
    if part.plain or not content:
        content = "".join(one.text for one in part.parts if isinstance(one, Text))
    value: Tree = {"type": "tool_result", "tool_use_id": _id(part.id), "content": content}
    if part.is_error:
        value["is_error"] = True
    return marked(value, part.cache)


# Only Claude's own signature is accepted back; thinking of others would be a 400 for the whole request.
def _thought(part: Reasoning, turn: Turn, draft: Draft) -> list[Tree]:
    if part.format == SIGNED and part.data:
        return [{"type": "redacted_thinking", "data": part.data}]
    if part.format == SIGNED and part.signature:
        return [{"type": "thinking", "thinking": part.text, "signature": part.signature}]
    if draft.thoughts_as_text and part.text.strip():
        return [_text(f"<thinking>{part.text}</thinking>")]
    draft.dropped.append(f"{turn.path}.reasoning_content" if turn.path else "reasoning_content")
    return []


def media(part: Media, draft: Draft) -> Tree:
    """An image or document block. Raises Unsupported for what Anthropic takes in no form."""
    if part.detail is not None:
        draft.dropped.append(f"{part.path.removesuffix('.image_url')}.image_url.detail")
    if part.kind not in ("image", "file"):
        raise _refused(part, f"takes no {part.kind}")
    if part.file_id is not None:
        if not part.file_id.startswith("file_"):
            raise _refused(part, "knows no file of another provider")
        draft.betas.append(FILES_BETA)
        kind = "image" if part.kind == "image" else "document"
        return marked({"type": kind, "source": {"type": "file", "file_id": part.file_id}}, part.cache)
    pictured = part.kind == "image" or part.media_type in _IMAGES
    return marked(_image(part) if pictured else _document(part), part.cache)


def _refused(part: Media, why: str) -> Unsupported:
    return Unsupported(f"Anthropic {why} ({part.path or part.kind}).", part.path, "unsupported_content")


# Clients label images loosely: the first characters of the base64 tell the kind where they say nothing.
def _image(part: Media) -> Tree:
    if part.url is not None:
        if not part.url.lower().startswith(("http://", "https://")):
            raise _refused(part, "takes images from http and https addresses only")
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    data = part.data or ""
    kind = (part.media_type or "").lower().replace("image/jpg", "image/jpeg")
    if not kind or kind == "application/octet-stream":
        kind = next((one for magic, one in _MAGIC if data.startswith(magic)), "")
    if kind not in _IMAGES or not data:
        raise _refused(part, f"takes no image of type {kind or 'unknown'}")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _document(part: Media) -> Tree:
    kind = (part.media_type or "").lower().partition(";")[0].strip()
    suffix = (part.filename or "").lower().rpartition(".")[2]
    if not kind or kind == "application/octet-stream":
        kind = _SUFFIXES.get(suffix, "")
        if not kind and part.data and part.data.startswith("JVBER"):
            kind = "application/pdf"
    value: Tree = {"type": "document", "source": _document_source(part, kind)}
    if part.filename:
        value["title"] = part.filename
    return value


def _document_source(part: Media, kind: str) -> Tree:
    if part.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    if part.url is not None:
        if kind not in ("", "application/pdf"):
            raise _refused(part, f"fetches no file of type {kind}")
        return {"type": "url", "url": part.url}
    if part.data and kind == "application/pdf":
        return {"type": "base64", "media_type": kind, "data": part.data}
    if part.data and kind.startswith("text/"):
        return {"type": "text", "media_type": "text/plain", "data": _decoded(part)}
    raise _refused(part, f"takes no file of type {kind or 'unknown'}")


def _decoded(part: Media) -> str:
    try:
        return base64.b64decode(part.data or "", validate=False).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise _refused(part, "takes no text that is not valid base64") from None
