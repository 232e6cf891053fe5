"""Media as Converse takes them: images, documents and films by bytes, their formats as its own short names.

Pure. Source: provider-translation B.6.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from newapi_proxy.adapters._bedrock_models import Traits
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Media, Tree

_IMAGES: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_MAGIC: Final = (("iVBOR", "png"), ("/9j/", "jpeg"), ("R0lG", "gif"), ("UklGR", "webp"))
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/markdown": "md",
    "application/json": "txt",
}
_FILMS: Final = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_TYPES: Final = {"image": _IMAGES, "file": _DOCUMENTS | _IMAGES, "video": _FILMS}
_VAGUE: Final = frozenset({"", "application/octet-stream", "text/plain"})
_SUFFIXES: Final = {
    "image": {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "gif": "gif", "webp": "webp"},
    "file": {name: name for name in ("pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md")}
    | {"htm": "html"},
    "video": {name: name for name in ("mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv")} | {"3gp": "three_gp"},
}
_UNFIT: Final = re.compile(r"[^A-Za-z0-9 \-()\[\]]+")
_LONGEST_NAME: Final = 200
_BUCKET: Final = "s3://"


class Names:
    """Document names of one request: legal, and no two the same."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, filename: str | None) -> str:
        """The file's name without its suffix, in the letters that are allowed, numbered where it is taken."""
        stem = (filename or "").replace("\\", "/").rpartition("/")[2]
        stem = stem.rpartition(".")[0] or stem
        first = " ".join(_UNFIT.sub(" ", stem).split())[:_LONGEST_NAME].strip() or "document"
        name, number = first, 1
        while name in self._taken:
            number += 1
            name = f"{first} {number}"
        self._taken.add(name)
        return name


def wanted(part: Media, model: Traits) -> bool:
    """Whether this medium, named by URL, must be fetched: where the model takes its kind, and no bucket holds it."""
    if part.kind == "audio" or (part.kind == "video" and not model.films):
        return False
    return not _bucket(part)


def block(part: Media, model: Traits, names: Names, inside: bool) -> Tree:
    """The block of a medium; `inside` a tool result. Raises Unsupported with its path for what the model cannot see."""
    if part.kind == "audio":
        raise refused(part, "takes no audio")
    if part.kind == "video" and not model.films:
        raise refused(part, "gives this model no video")
    if part.file_id is not None and not _bucket(part):
        raise refused(part, "knows no files by id")
    short = _format(part)
    source = _source(part, model, inside)
    if part.kind == "image" or short in _IMAGES.values():
        return {"image": {"format": short, "source": source}}
    if part.kind == "video":
        return {"video": {"format": short, "source": source}}
    return {"document": {"format": short, "name": names.of(part.filename), "source": source}}


def refused(part: Media, why: str) -> Unsupported:
    """The error for a medium."""
    return Unsupported(f"Bedrock {why} ({part.path or part.kind}).", part.path, "unsupported_content")


# By the type the client names, then by the name's suffix, then by the first characters of the base64.
def _format(part: Media) -> str:
    if part.text is not None:
        return "txt"
    kind = (part.media_type or "").lower().partition(";")[0].strip()
    table = _TYPES[part.kind]
    if kind in table:
        return table[kind]
    found: str | None = None
    if kind in _VAGUE:
        place = (part.filename or part.url or part.file_id or "").lower().partition("?")[0]
        found = _SUFFIXES[part.kind].get(place.rpartition(".")[2])
    if found is None and kind.startswith("text/") and part.kind == "file":
        found = "txt"
    if found is None and kind in _VAGUE and part.kind != "video":
        magic = _MAGIC if part.kind == "image" else (*_MAGIC, ("JVBER", "pdf"))
        found = next((short for head, short in magic if (part.data or "").startswith(head)), None)
    if found is None:
        raise refused(part, f"takes no {part.kind} of type {kind or 'unknown'}")
    return found


def _source(part: Media, model: Traits, inside: bool) -> Tree:
    if part.text is not None:
        return {"bytes": base64.b64encode(part.text.encode("utf-8", "replace")).decode()}
    if part.data:
        return {"bytes": part.data}
    uri = _bucket(part)
    if not uri:
        raise refused(part, "takes media as data or from S3 only")
    if not model.buckets:
        raise refused(part, "gives this model nothing from S3")
    if inside and part.kind != "image":
        raise refused(part, "takes no documents or videos from S3 inside a tool result")
    return {"s3Location": {"uri": uri}}


# An address, or, in formats that know files by one, an id.
def _bucket(part: Media) -> str:
    return next((one for one in (part.url, part.file_id) if one and one.lower().startswith(_BUCKET)), "")
