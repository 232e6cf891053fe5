"""Fetched media in the client's own tree: for providers of the client's format that take bytes and no addresses.

Pure; the tree is copied along the paths that change. Which media were fetched is seen on them: they have both an
address and data (`ir.ask.Media`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Any

from newapi_proxy.ir.ask import Media, ToolResult, Tree, Turn
from newapi_proxy.wire import tree


def inlined(body: Tree, turns: Sequence[Turn]) -> Tree:
    """A Messages body with the bytes of its fetched media: `source` of type url becomes base64, or text for texts."""
    for medium in _fetched(turns):
        if tree.find(body, f"{medium.path}.source.type") == "url":
            body = tree.put(body, f"{medium.path}.source", _source(medium))
    return body


def inlined_parts(body: Tree, turns: Sequence[Turn]) -> Tree:
    """A chat completions body with the bytes of its fetched media: addresses in its parts become data URLs."""
    for medium in _fetched(turns):
        part = tree.find(body, medium.path)
        place = _address(part) if isinstance(part, dict) else None
        if place is not None:
            url = f"data:{medium.media_type};base64,{medium.data}"
            body = tree.put(body, f"{medium.path}.{place}", url)
    return body


def inlined_contents(body: Tree, turns: Sequence[Turn]) -> Tree:
    """A generateContent body with the bytes of its fetched media: `fileData` becomes `inlineData`."""
    for medium in _fetched(turns):
        part = tree.find(body, medium.path)
        if isinstance(part, dict):
            rest = {name: value for name, value in part.items() if name not in ("fileData", "file_data")}
            inline = {"mimeType": medium.media_type or "application/octet-stream", "data": medium.data}
            body = tree.put(body, medium.path, {**rest, "inlineData": inline})
    return body


def _fetched(turns: Sequence[Turn]) -> Iterator[Media]:
    """The media that were fetched; those inside tool results too, each with its own path."""
    parts = (part for turn in turns for part in turn.parts)
    leaves = (one for part in parts for one in (part.parts if isinstance(part, ToolResult) else (part,)))
    for one in leaves:
        if isinstance(one, Media) and one.url is not None and one.data is not None and one.path:
            yield one


def _source(medium: Media) -> Tree:
    """The source block; this format has one of its own for plain text, and takes no other text as base64."""
    kind = medium.media_type or "application/octet-stream"
    if kind.startswith("text/"):
        try:
            text = base64.b64decode(medium.data or "").decode("utf-8", "replace")
        except binascii.Error:
            text = ""
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": kind, "data": medium.data}


def _address(part: dict[str, Any]) -> str | None:
    """Where the address stands in a part of this format."""
    if isinstance(part.get("file"), dict):
        return "file.file_data"
    for name in ("image_url", "video_url", "document_url"):
        if name in part:
            return f"{name}.url" if isinstance(part[name], dict) else name
    return None
