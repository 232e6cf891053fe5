"""Turns of any client as Ollama's messages: plain text, pictures beside it, calls with their arguments as objects.

Pure; the request around them stands in `_ollama_request`. Source: provider-translation B.4.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from newapi_proxy.adapters._tools import as_object, short_id
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

_PICTURES: Final = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp"})
_VAGUE: Final = frozenset({"", "image/*", "application/octet-stream", "binary/octet-stream"})
_MAGIC: Final = (("R0lG", "image/gif"), ("Qk", "image/bmp"), ("SUkq", "image/tiff"), ("JVBER", "application/pdf"))
_TEXTS: Final = frozenset(
    {"application/json", "application/xml", "application/yaml", "application/x-yaml", "application/javascript"}
)
_SUFFIXES: Final = frozenset(
    {"txt", "md", "csv", "tsv", "json", "xml", "yaml", "yml", "html", "htm", "css", "js", "ts", "py", "log", "ini"}
)


class Draft:
    """A request in the making: the names of what had to go."""

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped: list[str] = []


def by_bytes(medium: Media, model: str) -> bool:
    """Whether an address must be fetched: this API fetches nothing."""
    return medium.kind in ("image", "file")


def messages(ask: Ask, draft: Draft) -> list[Tree]:
    """All messages, one for each of the client's. Raises Unsupported with the path of what cannot be told."""
    names = {part.id: part.name for turn in ask.turns for part in turn.parts if isinstance(part, ToolCall)}
    out: list[Tree] = []
    for turn in ask.turns:
        _note(turn.parts, draft)
        match turn.role:
            case "assistant":
                out.append(_said(turn, draft))
            case "system" | "developer":
                out.append(_message("system", turn.parts, draft))
            case _:
                out += _asked(turn, names, draft)
    return out


def instruct(out: list[Tree], words: str) -> None:
    """Adds a line to the leading system message, which is made where there is none: many templates take only one."""
    if out and out[0]["role"] == "system":
        out[0] = {**out[0], "content": f"{out[0]['content']}\n\n{words}"}
    else:
        out.insert(0, {"role": "system", "content": words})


# Results first, each a message of its own; what the user says beside them follows.
def _asked(turn: Turn, names: dict[str, str], draft: Draft) -> list[Tree]:
    out = [_result(part, names, draft) for part in turn.parts if isinstance(part, ToolResult)]
    rest = [part for part in turn.parts if not isinstance(part, ToolResult)]
    if rest or not out:
        out.append(_message("user", rest, draft))
    return out


def _message(role: str, parts: Sequence[Part], draft: Draft) -> Tree:
    texts: list[str] = []
    pictures: list[str] = []
    for part in parts:
        match part:
            case Text(text=text) | Refusal(text=text):
                texts.append(text)
            case Media():
                _show(part, texts, pictures)
            case ToolCall() | ToolResult():
                raise Unsupported("A tool call has no place in this message.", part.path, "unsupported_content")
            case ServerBlock(path=path):
                draft.dropped.append(path or "messages")
            case Reasoning():
                draft.dropped.append("reasoning_content")
    message: Tree = {"role": role, "content": "\n".join(texts)}
    return message | ({"images": pictures} if pictures else {})


def _said(turn: Turn, draft: Draft) -> Tree:
    thoughts = [part for part in turn.parts if isinstance(part, Reasoning)]
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    rest = [part for part in turn.parts if not isinstance(part, (Reasoning, ToolCall))]
    message = _message("assistant", rest, draft)
    thought = "\n\n".join(one.text for one in thoughts if one.text)
    if thought:
        message["thinking"] = thought
    elif thoughts:  # sealed by another provider
        draft.dropped.append(f"{turn.path}.reasoning_content" if turn.path else "reasoning_content")
    if calls:
        message["tool_calls"] = [_call(call, number) for number, call in enumerate(calls)]
    return message


def _call(call: ToolCall, number: int) -> Tree:
    function = {"name": call.name, "arguments": as_object(call.arguments), "index": number}
    return {"id": short_id(call.id), "function": function}


def _result(result: ToolResult, names: dict[str, str], draft: Draft) -> Tree:
    _note(result.parts, draft)
    message = _message("tool", result.parts, draft)
    name = result.name or names.get(result.id)
    if name:
        message["tool_name"] = name
    return {**message, "tool_call_id": short_id(result.id)}


def _note(parts: Sequence[Part], draft: Draft) -> None:
    """Names the hints on parts that have no place here."""
    for part in parts:
        if isinstance(part, (Text, Media, ToolCall, ToolResult)) and part.cache is not None:
            draft.dropped.append(f"{part.path}.cache_control" if part.path else "cache_control")
        if isinstance(part, Media) and part.detail is not None:
            draft.dropped.append(f"{part.path.removesuffix('.image_url')}.image_url.detail")


def _show(part: Media, texts: list[str], pictures: list[str]) -> None:
    if part.text is not None:
        texts.append(_quoted(part, part.text))
    elif part.kind == "video":
        raise refused(part, "takes no video")
    elif part.data is None:
        raise refused(part, "takes media as data only")
    elif part.kind == "file":
        texts.append(_quoted(part, _read(part)))
    else:
        if part.kind == "image" and _type(part) not in _PICTURES | {""}:
            raise refused(part, "takes JPEG, PNG and WebP pictures only")
        pictures.append(part.data)


def refused(part: Media, why: str) -> Unsupported:
    """The error for a medium."""
    return Unsupported(f"Ollama {why} ({part.path or part.kind}).", part.path, "unsupported_content")


# By the type the client names, else by the first characters of the base64; "" where neither tells.
def _type(part: Media) -> str:
    named = (part.media_type or "").partition(";")[0].strip().lower()
    if named not in _VAGUE:
        return named
    return next((kind for head, kind in _MAGIC if (part.data or "").startswith(head)), "")


def _read(part: Media) -> str:
    """The text of a text file."""
    kind = _type(part)
    suffix = (part.filename or part.url or "").partition("?")[0].rpartition(".")[2].lower()
    if not (kind.startswith("text/") or kind in _TEXTS or (kind == "" and suffix in _SUFFIXES)):
        raise refused(part, f"takes text files only, not {kind or 'an unknown type'}")
    try:
        return base64.b64decode(part.data or "").decode("utf-8", "replace")
    except binascii.Error:
        raise refused(part, "was given a file that is no valid base64") from None


def _quoted(part: Media, text: str) -> str:
    name = "".join(letter for letter in part.filename or "document" if letter.isprintable() and letter not in '<>"')
    return f'<file name="{name}">\n{text}\n</file>'
