"""Pictures, files, sounds and films as Gemini's parts, and which of them it must be given as bytes.

Source: provider-translation B.2. Nothing is fetched here.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final
from urllib.parse import urlsplit

from newapi_proxy.adapters._gemini_draft import Draft
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Media

Tree = dict[str, Any]

RESULT_KINDS: Final = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")
_FILES: Final = "https://generativelanguage.googleapis.com/"
_FILES_PLACE: Final = f"{_FILES}v1beta/"
_FILM_SITES: Final = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "youtu.be"})
_MAGIC: Final = (
    ("iVBOR", "image/png"),
    ("/9j/", "image/jpeg"),
    ("_9j_", "image/jpeg"),
    ("R0lG", "image/gif"),
    ("JVBER", "application/pdf"),
    ("SUQz", "audio/mpeg"),
    ("AAAAIGZ0eX", "video/mp4"),
)
_SUFFIXES: Final = {
    **{name: f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "heic", "heif")},
    **{name: f"audio/{name}" for name in ("wav", "ogg", "flac", "aac", "aiff")},
    **{name: f"video/{name}" for name in ("mp4", "mov", "mpeg", "webm", "avi")},
    **{name: f"text/{name}" for name in ("csv", "html", "css", "xml", "rtf")},
    "jpg": "image/jpeg",
    "mp3": "audio/mpeg",
    "pdf": "application/pdf",
    "json": "application/json",
    "txt": "text/plain",
    "md": "text/markdown",
    "js": "text/javascript",
    "py": "text/x-python",
}
_USUAL: Final = {"audio": "audio/wav", "video": "video/mp4"}
_NO_TYPE: Final = ("", "application/octet-stream", "binary/octet-stream")
_CLIP: Final = (  # a film's piece and pace: our names for Gemini's
    ("start_offset", "startOffset"),
    ("startOffset", "startOffset"),
    ("end_offset", "endOffset"),
    ("endOffset", "endOffset"),
    ("fps", "fps"),
)
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?s?", re.ASCII)
_LEVELS: Final = {"low": "LOW", "high": "HIGH"}


def by_bytes(medium: Media, model: str) -> bool:
    """Whether an address must be fetched: all but Google's own places and those of a client of this format."""
    url = medium.url or ""
    return url.lower().startswith(("http://", "https://")) and not _reachable(url) and not _native(medium)


def _native(medium: Media) -> bool:
    return medium.path.removeprefix("generateContentRequest.").startswith("contents.")


def _reachable(url: str) -> bool:
    """Files of this API, and films that Google fetches itself."""
    if url.startswith(_FILES):
        return True
    try:
        return (urlsplit(url).hostname or "").lower() in _FILM_SITES
    except ValueError:
        return False


def told(medium: Media, draft: Draft) -> Tree:
    """The part for a medium. Raises Unsupported with its path for what cannot be told."""
    part = _located(medium, draft)
    if medium.kind == "video" and medium.extra and (clip := _clip(medium.extra)):
        part["videoMetadata"] = clip
    level = _LEVELS.get(medium.detail or "")
    if level is not None and draft.traits.media_results:
        part["mediaResolution"] = {"level": f"MEDIA_RESOLUTION_{level}"}
    return part


def resolve(media: list[Media], draft: Draft) -> str | None:
    """One resolution for the request, for models that know none for each part; None where none is wished.

    Wishes that differ are dropped.
    """
    wished = [one for one in media if one.detail in _LEVELS]
    if not wished or draft.traits.media_results:
        return None
    levels = {one.detail for one in media if one.kind == "image"}
    if len(levels) == 1 and wished[0].detail is not None:
        return f"MEDIA_RESOLUTION_{_LEVELS[wished[0].detail]}"
    draft.dropped += [detail_path(one) for one in wished]
    return None


def detail_path(medium: Media) -> str:
    """Where the client said how closely to look."""
    return f"{medium.path.removesuffix('.image_url')}.image_url.detail"


def _located(medium: Media, draft: Draft) -> Tree:
    """Bytes where there are any, else an address."""
    if medium.data is not None:
        return {"inlineData": {"mimeType": _type_of(medium, draft), "data": medium.data}}
    if medium.text is not None:
        data = base64.b64encode(medium.text.encode("utf-8", "replace")).decode()
        return {"inlineData": {"mimeType": medium.media_type or "text/plain", "data": data}}
    return {"fileData": _file(medium, draft)}


def _file(medium: Media, draft: Draft) -> Tree:
    """A file by its address: of this API, of the host's own storage, or public."""
    given = medium.url or medium.file_id or ""
    uri = _FILES_PLACE + given if given.startswith("files/") else given
    scheme = uri.partition("://")[0].lower()
    if scheme not in ("http", "https") and not (scheme == "gs" and draft.quirks.addresses):
        raise refused(medium, draft, f"cannot be given this {medium.kind}")
    value: Tree = {"fileUri": uri}
    kind = _known_type(medium)
    if kind or not _reachable(uri):
        value["mimeType"] = kind or _USUAL.get(medium.kind, "image/jpeg")
    return value


def refused(medium: Media, draft: Draft, why: str) -> Unsupported:
    """The refusal of a medium."""
    return Unsupported(f"{draft.quirks.name} {why} ({medium.path or medium.kind}).", medium.path, "unsupported_content")


def _type_of(medium: Media, draft: Draft) -> str:
    kind = _known_type(medium) or _USUAL.get(medium.kind, "")
    if not kind:
        raise refused(medium, draft, f"takes no {medium.kind} of unknown type")
    return kind


# Clients label bytes loosely: the name and the first characters of the base64 tell the kind where they say nothing.
def _known_type(medium: Media) -> str:
    kind = (medium.media_type or "").lower().partition(";")[0].strip()
    if kind not in _NO_TYPE:
        return {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-wav": "audio/wav"}.get(kind, kind)
    path = medium.filename or (medium.url or "").partition("?")[0]
    found = _SUFFIXES.get(path.lower().rpartition(".")[2], "")
    data = medium.data or ""
    return next((one for magic, one in _MAGIC if data.startswith(magic)), found)


def _clip(extra: Tree) -> Tree:
    """Which piece of a film is meant, in seconds."""
    inner = extra.get("video_metadata")
    given = {**extra, **inner} if isinstance(inner, dict) else extra
    clip: Tree = {}
    for name, own in _CLIP:
        value = given.get(name)
        if own == "fps":
            if type(value) in (int, float):
                clip[own] = value
        elif type(value) in (int, float):
            clip[own] = f"{value}s"
        elif isinstance(value, str) and _SECONDS.fullmatch(value):
            clip[own] = value if value.endswith("s") else f"{value}s"
    return clip
