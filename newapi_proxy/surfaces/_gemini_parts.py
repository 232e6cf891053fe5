"""Contents of a Gemini request into turns: text, thoughts, media, calls and results.

Merges and reorders nothing but one thing: thinking that another provider signed comes back in the fragments in which
it was streamed, and is put together again, since the signature holds for the whole. Source: provider-translation A.7,
B.11.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.ir.ask import Media, Part, Reasoning, Role, ServerBlock, Text, ToolCall, ToolResult, Turn
from newapi_proxy.surfaces._gemini_fields import (
    Node,
    fault,
    flag_in,
    get,
    list_in,
    object_in,
    object_of,
    text_in,
    within,
    word_in,
)
from newapi_proxy.surfaces._gemini_shapes import FAMILY, SIGNED, standard, unsealed
from newapi_proxy.wire import tree

Kind = Literal["image", "file", "audio", "video"]

_ROLES: Final[dict[str, Role]] = {"": "user", "user": "user", "function": "user", "tool": "user", "model": "assistant"}
_KINDS: Final[dict[str, Kind]] = {"image": "image", "audio": "audio", "video": "video"}
_ENDINGS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "heic"), "image"),
    **dict.fromkeys(("mp3", "wav", "flac", "ogg", "aac"), "audio"),
    **dict.fromkeys(("mp4", "mov", "webm", "mpeg", "avi"), "video"),
}
_FILMS: Final = ("https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/")
_FILES: Final = "https://generativelanguage.googleapis.com/"  # an uploaded file's own address, readable with its key
_DETAIL: Final = {"MEDIA_RESOLUTION_LOW": "low", "MEDIA_RESOLUTION_HIGH": "high"}


class _Calls:
    """The calls without a result so far, by the function's name: results need not say which they answer."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []  # name, id

    def made(self, name: str, id_: str) -> None:
        """A call."""
        self._open.append((name, id_))

    def answered(self, name: str, id_: str | None) -> str:
        """The id of the call that a result belongs to: its own, else the first open one of that name."""
        match = next((one for one in self._open if one[1] == id_), None)
        match = match or next((one for one in self._open if one[0] == name), None)
        if match is None:
            return id_ or f"call_{name}"
        self._open.remove(match)
        return match[1]


def turns(given: Node, root: str) -> tuple[Turn, ...]:
    """The instruction as a leading turn, then the contents; `root` is where they stand in the body.

    Raises ClientError with the path of the fault.
    """
    out: list[Turn] = []
    calls = _Calls()
    system = object_in(given, "systemInstruction", root)
    if system is not None:
        path = within(root, "systemInstruction")
        parts = tuple(_parts(system, path, calls))
        if parts:
            out.append(Turn(role="system", parts=parts, path=path))
    contents = list_in(given, "contents", root)
    if not contents and not out:
        raise fault(within(root, "contents"), "contents is not specified.")
    for number, value in enumerate(contents):
        path = within(root, f"contents.{number}")
        content = object_of(value, path)
        role = _ROLES.get((text_in(content, "role", path) or "").lower())
        if role is None:
            raise fault(f"{path}.role", "please use a valid role: user, model.")
        parts = tuple(_parts(content, path, calls))
        out.append(Turn(role=role, parts=parts or (Text(text=""),), path=path))
    return tuple(_joined(_rejoined(out)))


def _parts(content: Node, path: str, calls: _Calls) -> Iterator[Part]:
    for number, value in enumerate(list_in(content, "parts", path)):
        place = f"{path}.parts.{number}"
        yield _part(object_of(value, place), place, calls)


def _part(part: Node, path: str, calls: _Calls) -> Part:
    """One part; a kind that is not known here is kept for providers of this format."""
    signature = text_in(part, "thoughtSignature", path)
    text = text_in(part, "text", path)
    if text is not None:
        return _text(part, text, signature, path)
    if (call := object_in(part, "functionCall", path)) is not None:
        return _call(call, signature, path, calls)
    if (result := object_in(part, "functionResponse", path)) is not None:
        return _result(result, f"{path}.functionResponse", calls)
    if (blob := object_in(part, "inlineData", path)) is not None:
        return _blob(blob, part, path)
    if (file := object_in(part, "fileData", path)) is not None:
        return _file(file, part, path)
    return ServerBlock(family=FAMILY, value=part, path=path)


def _text(part: Node, text: str, signature: str | None, path: str) -> Part:
    """Text or a thought. A signature on text is Google's: it is kept beside it, where others keep it too."""
    if flag_in(part, "thought", path):
        if not signature:
            return Reasoning(text=text)
        format_, value = unsealed(signature)
        return Reasoning(text=text, signature=value, format=format_)
    opaque = {"google": {"thought_signature": signature}} if signature else None
    return Text(text=text, opaque=opaque, path=path)


def _call(call: Node, signature: str | None, path: str, calls: _Calls) -> Part:
    """A call; one without an id gets one out of its place, so that the same history gives the same ids again."""
    place = f"{path}.functionCall"
    name = _named(call, place)
    args = object_in(call, "args", place)
    id_ = text_in(call, "id", place) or "_".join(["call", *(one for one in path.split(".") if one.isdecimal())])
    calls.made(name, id_)
    return ToolCall(
        id=id_,
        name=name,
        arguments=tree.dumps(args or {}),
        signature=unsealed(signature)[1] if signature else None,
        path=path,
    )


def _named(node: Node, path: str) -> str:
    name = text_in(node, "name", path)
    if not name:
        raise fault(f"{path}.name", "a function's name is expected.")
    return name


def _result(result: Node, path: str, calls: _Calls) -> Part:
    """A result: `output` or `error` alone is its text, anything else the object itself (A.7, T-GEMI-030 to 032)."""
    name = _named(result, path)
    response = object_in(result, "response", path) or {}
    error = response.get("error")
    said: Any = response
    if len(response) == 1:
        said = response.get("output", response if error is None else error)
    parts: list[Text | Media] = [Text(text=said if type(said) is str else tree.dumps(said), path=f"{path}.response")]
    for number, value in enumerate(list_in(result, "parts", path)):
        place = f"{path}.parts.{number}"
        medium = _part(object_of(value, place), place, calls)
        if isinstance(medium, (Text, Media)):
            parts.append(medium)
    if response == {} and len(parts) > 1:
        del parts[0]
    return ToolResult(
        id=calls.answered(name, text_in(result, "id", path)),
        parts=tuple(parts),
        name=name,
        plain=len(parts) == 1 and isinstance(parts[0], Text),
        is_error=error is not None and error is not False,
        path=path,
    )


def _blob(blob: Node, part: Node, path: str) -> Media:
    """Media by value; what is no picture, sound or film is a file."""
    place = f"{path}.inlineData"
    data = text_in(blob, "data", place)
    if data is None:
        raise fault(f"{place}.data", "base64 is expected.")
    media_type = text_in(blob, "mimeType", place) or None
    kind = _KINDS.get((media_type or "").partition("/")[0].lower(), "file")
    return _with(part, path, Media(kind=kind, media_type=media_type, data=standard(data), path=path), blob)


def _file(file: Node, part: Node, path: str) -> Media:
    """Media by address; one that only Google can open (an uploaded file, gs://) is an id, which others refuse."""
    place = f"{path}.fileData"
    uri = text_in(file, "fileUri", place)
    if not uri:
        raise fault(f"{place}.fileUri", "an address is expected.")
    media_type = text_in(file, "mimeType", place) or None
    kind = _KINDS.get(media_type.partition("/")[0].lower(), "file") if media_type else _guessed(uri)
    public = uri[:8].lower().startswith(("http://", "https://")) and not uri.startswith(_FILES)
    url, id_ = (uri, None) if public else (None, uri)
    return _with(part, path, Media(kind=kind, media_type=media_type, url=url, file_id=id_, path=path), file)


def _guessed(uri: str) -> Kind:
    if uri.startswith(_FILMS):
        return "video"
    return _ENDINGS.get(uri.partition("?")[0].rpartition(".")[2].lower(), "file")


def _with(part: Node, path: str, medium: Media, node: Node) -> Media:
    """The medium with its name, its wanted resolution and, of a film, the piece that is meant."""
    name = get(node, "displayName")
    resolution = get(part, "mediaResolution")
    level = word_in(resolution, "level", f"{path}.mediaResolution") if type(resolution) is dict else resolution
    film = object_in(part, "videoMetadata", path)
    if name is None and level is None and film is None:
        return medium
    return msgspec.structs.replace(
        medium,
        filename=name if type(name) is str else None,
        detail=_DETAIL.get(level) if type(level) is str else None,
        extra=None if film is None else {"videoMetadata": film},
    )


def _rejoined(told: list[Turn]) -> Iterator[Turn]:
    """The turns; fragments of another provider's signed thinking become one again, where its signature stands."""
    if not any(_foreign(part) for turn in told for part in turn.parts):
        yield from told
        return
    kept: list[list[Part | None]] = [list(turn.parts) for turn in told]
    loose: list[tuple[int, int]] = []  # turn and part of unsigned thoughts that may belong to the next signature
    for at, number, part in [
        (at, number, one) for at, turn in enumerate(told) for number, one in enumerate(turn.parts)
    ]:
        if isinstance(part, Reasoning) and not part.signature:
            loose.append((at, number))
            continue
        if isinstance(part, Reasoning) and _foreign(part):
            text = "".join([_thought(told[where].parts[which]) for where, which in loose])
            kept[at][number] = msgspec.structs.replace(part, text=text + part.text)
            for where, which in loose:
                kept[where][which] = None
        loose.clear()
    for turn, parts in zip(told, kept, strict=True):
        left = tuple(part for part in parts if part is not None)
        if left:
            yield msgspec.structs.replace(turn, parts=left)


def _joined(told: Iterable[Turn]) -> Iterator[Turn]:
    """The turns; what a stream cut a model's words into is whole again, since clients keep its pieces as they came."""
    said: Turn | None = None  # the model's turn that may go on
    for turn in told:
        if turn.role != "assistant":
            if said is not None:
                yield said
                said = None
            yield turn
            continue
        parts = [] if said is None else list(said.parts)
        for part in turn.parts:
            whole = _whole(parts[-1], part) if parts else None
            if whole is None:
                parts.append(part)
            else:
                parts[-1] = whole
        said = msgspec.structs.replace(turn if said is None else said, parts=tuple(parts))
    if said is not None:
        yield said


def _whole(one: Part, other: Part) -> Part | None:
    """Two pieces of one text or thought as one; None for what stands apart, as everything with a signature does."""
    match one, other:
        case Text(opaque=None, text=text), Text(opaque=None, text=more):
            return msgspec.structs.replace(one, text=text + more)
        case Reasoning(signature=None, text=text), Reasoning(signature=None, text=more):
            return msgspec.structs.replace(one, text=text + more)
        case _:
            return None


def _thought(part: Part) -> str:
    return part.text if isinstance(part, Reasoning) else ""


def _foreign(part: Part) -> bool:
    return isinstance(part, Reasoning) and part.signature is not None and part.format != SIGNED
