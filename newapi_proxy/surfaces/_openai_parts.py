"""Messages of an OpenAI chat request into turns: parts, tool calls, tool results, reasoning to be replayed.

Knows the shapes of provider-translation A.1.1, accepted extensions included; merges and reorders nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from newapi_proxy.ir.ask import Media, Part, Reasoning, Refusal, Role, ServerBlock, Text, ToolCall, ToolResult, Turn
from newapi_proxy.surfaces._openai_fields import (
    Node,
    bad,
    cache_in,
    list_of,
    object_in,
    object_of,
    text_in,
    text_of,
)
from newapi_proxy.wire import tree

FAMILY: Final = "openai"
_PLAIN: Final[dict[Any, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}


def turns(messages: list[Any]) -> tuple[Turn, ...]:
    """The turns of the list. Raises ClientError with the path of the fault."""
    out: list[Turn] = []
    called: dict[str, str] = {}  # legacy: the last call of a function's name
    for number, message in enumerate(messages):
        if type(message) is dict and len(message) == 2:
            content = message.get("content")
            role = message.get("role")
            if type(content) is str and type(role) is str and role in _PLAIN:
                out.append(Turn(role=_PLAIN[role], parts=(Text(text=content),), plain=True, path=f"messages.{number}"))
                continue
        out.append(_turn(message, f"messages.{number}", called))
    return tuple(out)


def _turn(value: Any, path: str, called: dict[str, str]) -> Turn:
    message = object_of(value, path)
    role = text_in(message, "role", f"{path}.")
    name = text_in(message, "name", f"{path}.")
    plain = type(message.get("content")) is str
    if role == "assistant":
        return Turn(role="assistant", parts=_said(message, path, called), name=name, plain=plain, path=path)
    if role in ("system", "developer", "user"):
        parts = _content(message, path) or (Text(text=""),)
        return Turn(role=_PLAIN[role], parts=parts, name=name, plain=plain, path=path)
    if role == "tool":
        id_ = text_in(message, "tool_call_id", f"{path}.")
        if not id_:
            raise bad(f"{path}.tool_call_id is required in a message of role tool.", f"{path}.tool_call_id")
        return Turn(role="tool", parts=(_result(message, id_, path),), name=name, plain=plain, path=path)
    if role == "function":
        if not name:
            raise bad(f"{path}.name is required in a message of role function.", f"{path}.name")
        id_ = called.get(name, f"call_{name}")
        return Turn(role="tool", parts=(_result(message, id_, path),), name=name, plain=plain, path=path)
    raise bad(f"{path}.role must be one of developer, system, user, assistant, tool and function.", f"{path}.role")


def _content(message: Node, path: str) -> tuple[Part, ...]:
    """The parts of `content`: a text, a list of parts, or nothing."""
    content = message.get("content")
    if content is None:
        return ()
    cache = cache_in(message, f"{path}.")
    if type(content) is str:
        return (Text(text=content, cache=cache, opaque=_opaque(message), path=f"{path}.content"),)
    parts = [_part(item, f"{path}.content.{number}") for number, item in enumerate(list_of(content, f"{path}.content"))]
    if cache is not None and parts and isinstance(parts[-1], (Text, Media)):
        parts[-1] = msgspec.structs.replace(parts[-1], cache=cache)
    return tuple(parts)


def _opaque(node: Node) -> Node | None:
    """Another provider's own data on a part or a message (`extra_content`), verbatim."""
    extra = node.get("extra_content")
    return extra if type(extra) is dict else None


def _part(value: Any, path: str) -> Part:
    part = object_of(value, path)
    kind = text_in(part, "type", f"{path}.")
    read = _PARTS.get(kind or "text")
    if read is None:  # not ours to refuse: a provider of the same family may know it
        return ServerBlock(family=FAMILY, value=part, path=path)
    return read(part, path)


def _text(part: Node, path: str) -> Part:
    return Text(
        text=text_of(part.get("text"), f"{path}.text"),
        cache=cache_in(part, f"{path}."),
        opaque=_opaque(part),
        path=path,
    )


def _address(part: Node, name: str, path: str) -> tuple[str, Node]:
    """The address of an `image_url` and the like: an object with `url`, or a bare string; and that object."""
    value = part.get(name)
    place = f"{path}.{name}"
    if type(value) is str:
        return value, {}
    node = object_of(value, place)
    return text_of(node.get("url"), f"{place}.url"), node


def _located(media: Media, url: str, path: str) -> Media:
    """The media with its bytes out of a data URL, or with the address itself."""
    if not url:
        raise bad(f"{path} must not be empty.", path)
    if url[:5].lower() != "data:":
        return msgspec.structs.replace(media, url=url)
    head, comma, data = url[5:].partition(",")
    kind, *marks = head.split(";")
    if not comma or "base64" not in marks:
        raise bad(f"{path} must be a data URL with base64 content, or an address.", path)
    return msgspec.structs.replace(media, media_type=kind or None, data=data)


def _image(part: Node, path: str) -> Part:
    url, node = _address(part, "image_url", path)
    image = Media(
        kind="image",
        detail=text_in(node, "detail", f"{path}.image_url."),
        cache=cache_in(part, f"{path}."),
        path=path,
    )
    return _located(image, url, f"{path}.image_url")


def _video(part: Node, path: str) -> Part:
    url, node = _address(part, "video_url", path)
    extra = {name: value for name, value in node.items() if name != "url"}
    video = Media(kind="video", cache=cache_in(part, f"{path}."), extra=extra or None, path=path)
    return _located(video, url, f"{path}.video_url")


def _document(part: Node, path: str) -> Part:
    url, _ = _address(part, "document_url", path)
    name = text_in(part, "document_name", f"{path}.")
    return _located(Media(kind="file", filename=name, path=path), url, f"{path}.document_url")


def _audio(part: Node, path: str) -> Part:
    node = object_of(part.get("input_audio"), f"{path}.input_audio")
    data = text_of(node.get("data"), f"{path}.input_audio.data")
    format_ = text_in(node, "format", f"{path}.input_audio.")
    kind = {"mp3": "audio/mpeg", None: None}.get(format_, f"audio/{format_}")
    sound = Media(kind="audio", media_type=kind, cache=cache_in(part, f"{path}."), path=path)
    if data[:5].lower() == "data:":
        return _located(sound, data, f"{path}.input_audio.data")
    return msgspec.structs.replace(sound, data=data)


def _file(part: Node, path: str) -> Part:
    place = f"{path}.file."
    node = object_of(part.get("file"), f"{path}.file")
    file = Media(kind="file", filename=text_in(node, "filename", place), cache=cache_in(part, f"{path}."), path=path)
    data, id_ = text_in(node, "file_data", place), text_in(node, "file_id", place)
    if data:
        if data[:5].lower() == "data:" or "://" in data[:16]:
            return _located(file, data, f"{place}file_data")
        return msgspec.structs.replace(file, data=data)
    if id_:
        return msgspec.structs.replace(file, file_id=id_)
    raise bad(f"{path}.file needs file_data or file_id.", f"{path}.file")


def _refusal(part: Node, path: str) -> Part:
    return Refusal(text=text_of(part.get("refusal"), f"{path}.refusal"))


def _thinking(part: Node, path: str) -> Part:
    """A typed thinking chunk in a message's content, as Mistral answers with."""
    value = part.get("thinking")
    if type(value) is str:
        return Reasoning(text=value)
    pieces = [object_of(item, f"{path}.thinking") for item in list_of(value, f"{path}.thinking")]
    return Reasoning(text="".join(text_in(piece, "text", f"{path}.thinking.") or "" for piece in pieces))


_PARTS: Final[dict[str, Callable[[Node, str], Part]]] = {
    "text": _text,
    "input_text": _text,
    "image_url": _image,
    "video_url": _video,
    "document_url": _document,
    "input_audio": _audio,
    "file": _file,
    "refusal": _refusal,
    "thinking": _thinking,
}


def _said(message: Node, path: str, called: dict[str, str]) -> tuple[Part, ...]:
    """An assistant's message: reasoning first, then what it showed, then its calls."""
    parts: list[Part] = list(_reasoning(message, path))
    content = _content(message, path)
    refusal = text_in(message, "refusal", f"{path}.")
    calls = _calls(message, path)
    legacy = object_in(message, "function_call", f"{path}.")
    if legacy is not None:
        call = _call({"function": legacy}, f"{path}.function_call", f"call_{path.rpartition('.')[2]}")
        called[call.name] = call.id
        calls.append(call)
    parts += [part for part in content if part != Text(text="", path=f"{path}.content")]
    if refusal:
        parts.append(Refusal(text=refusal))
    audio = object_in(message, "audio", f"{path}.")
    if audio is not None:
        id_ = text_of(audio.get("id"), f"{path}.audio.id")
        parts.append(Media(kind="audio", file_id=id_, path=f"{path}.audio"))
    parts += calls
    return tuple(parts) or (Text(text=""),)


def _calls(message: Node, path: str) -> list[ToolCall]:
    value = message.get("tool_calls")
    if value is None:
        return []
    out = []
    for number, item in enumerate(list_of(value, f"{path}.tool_calls")):
        place = f"{path}.tool_calls.{number}"
        spare = f"call_{path.rpartition('.')[2]}_{number}"
        out.append(_call(object_of(item, place), place, spare))
    return out


def _call(node: Node, path: str, spare_id: str) -> ToolCall:
    """A call; `spare_id` where the client sends none (servers that give none get none back)."""
    kind = text_in(node, "type", f"{path}.")
    field, argument = ("custom", "input") if kind == "custom" else ("function", "arguments")
    body = object_of(node.get(field), f"{path}.{field}")
    arguments = body.get(argument)
    if type(arguments) is dict:
        arguments = tree.dumps(arguments)
    elif arguments is None:
        arguments = ""
    return ToolCall(
        id=text_in(node, "id", f"{path}.") or spare_id,
        name=text_of(body.get("name"), f"{path}.{field}.name"),
        arguments=text_of(arguments, f"{path}.{field}.{argument}"),
        kind="custom" if kind == "custom" else "function",
        signature=_signature(node),
        cache=cache_in(node, f"{path}."),
        path=path,
    )


def _signature(node: Node) -> str | None:
    """Gemini's thought signature on a call: `extra_content.google.thought_signature`, or beside the call."""
    value = tree.find(node, "extra_content.google.thought_signature")
    if type(value) is not str:
        value = node.get("thought_signature")
    return value if type(value) is str and value else None


def _result(message: Node, id_: str, path: str) -> ToolResult:
    parts = [
        part if isinstance(part, (Text, Media)) else Text(text=_as_text(part), path=f"{path}.content")
        for part in _content(message, path)
    ]
    return ToolResult(
        id=id_,
        parts=tuple(parts),
        name=text_in(message, "name", f"{path}."),
        plain=type(message.get("content")) is str,
        cache=cache_in(message, f"{path}."),
        path=path,
    )


def _as_text(part: Part) -> str:
    match part:
        case Reasoning(text=text) | Refusal(text=text):
            return text
        case ServerBlock(value=value):
            return tree.dumps(value)
        case _:
            return ""


def _reasoning(message: Node, path: str) -> list[Reasoning]:
    """Thinking to be replayed: `reasoning_details` where there are any, else the plain text of it."""
    text = text_in(message, "reasoning_content", f"{path}.") or ""
    if not text and type(message.get("reasoning")) is str:
        text = message["reasoning"]
    details = message.get("reasoning_details")
    if details is None:
        return [Reasoning(text=text)] if text else []
    out = _details(list_of(details, f"{path}.reasoning_details"), f"{path}.reasoning_details")
    bare = [number for number, one in enumerate(out) if one.signature and not one.text]
    if text and len(bare) == 1 and not any(one.text for one in out):  # the signature alone: its text stands beside it
        out[bare[0]] = msgspec.structs.replace(out[bare[0]], text=text)
    return out


def _details(details: list[Any], path: str) -> list[Reasoning]:
    """Blocks out of details; fragments of one block (same type and index, as streams give them) are put together."""
    out: list[Reasoning] = []
    before: tuple[Any, Any] | None = None
    for number, item in enumerate(details):
        place = f"{path}.{number}."
        detail = object_of(item, f"{path}.{number}")
        kind, index = detail.get("type"), detail.get("index")
        one = Reasoning(
            text=text_in(detail, "summary" if kind == "reasoning.summary" else "text", place) or "",
            signature=text_in(detail, "signature", place),
            data=text_in(detail, "data", place),
            format=text_in(detail, "format", place) or "unknown",
            id=text_in(detail, "id", place),
            summary=kind == "reasoning.summary",
        )
        if before == (kind, index) and index is not None and kind != "reasoning.encrypted":
            out[-1] = _joined(out[-1], one)
        else:
            out.append(one)
        before = (kind, index)
    return out


def _joined(first: Reasoning, second: Reasoning) -> Reasoning:
    return msgspec.structs.replace(
        first,
        text=first.text + second.text,
        signature=second.signature or first.signature,
        format=first.format if second.format == "unknown" else second.format,
        id=first.id or second.id,
    )
