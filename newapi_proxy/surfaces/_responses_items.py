"""Input items of a Responses request into turns: messages, calls and their outputs, reasoning to be replayed.

What a model said in one go (reasoning, a message, its calls) is one turn, however many items it is; nothing is
reordered but a result that others' words keep from its call. Source: provider-translation A.4, B.11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from newapi_proxy.ir.ask import (
    CacheMark,
    Media,
    Part,
    Reasoning,
    Refusal,
    Role,
    ServerBlock,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from newapi_proxy.surfaces import _responses_shapes as shapes
from newapi_proxy.surfaces._openai_fields import Node, bad, cache_in, list_of, object_of, text_in, text_of
from newapi_proxy.wire import tree

_ROLES: Final[dict[str, Role]] = {"system": "system", "developer": "developer", "user": "user"}
_BREAKPOINT: Final = CacheMark(ttl="1h")  # T-ANTH-051
_STORED: Final = frozenset({"item_reference", "compaction"})  # what only its provider can read


class Items:
    """The turns so far; `bound` lists the items that only a provider of this format can read.

    `tools`: the lists of tools that stand among the items, each with its path.
    """

    __slots__ = ("_called", "_group", "_path", "_signature", "bound", "tools", "turns")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.bound: list[str] = []
        self.tools: list[tuple[Any, str]] = []
        self._group: list[Part] = []  # what the model is saying
        self._path = ""
        self._called: dict[str, str] = {}
        self._signature: str | None = None  # of the call that comes next

    def read(self, items: list[Any]) -> None:
        """Takes every item. Raises ClientError with the path of the fault."""
        for number, value in enumerate(items):
            path = f"input.{number}"
            item = object_of(value, path)
            kind = text_in(item, "type", f"{path}.") or ("message" if "role" in item else "item_reference")
            self._item(kind, item, path)
        self._flush()

    def _item(self, kind: str, item: Node, path: str) -> None:
        match kind:
            case "message":
                self._message(item, path)
            case "reasoning":
                self._reasoning(item, path)
            case "function_call":
                self._call(item, path, "function", _arguments(item, path))
            case "custom_tool_call":
                self._call(item, path, "custom", text_of(item.get("input"), f"{path}.input"))
            case "function_call_output" | "custom_tool_call_output":
                self._result(item, path)
            case "additional_tools":
                self.tools.append((item.get("tools"), f"{path}.tools"))
            case _ if kind in _STORED:
                self.bound.append(path)
            case _:
                self._say(ServerBlock(family=shapes.FAMILY, value=item, path=path), path)

    def _message(self, item: Node, path: str) -> None:
        role = text_in(item, "role", f"{path}.")
        parts = content(item.get("content"), f"{path}.content")
        plain = type(item.get("content")) is str
        if role == "assistant":
            if self._spoken():
                self._flush()
            for part in parts:
                self._say(part, path)
            return
        if role not in _ROLES:
            raise bad(f"{path}.role must be one of user, assistant, system and developer.", f"{path}.role")
        self._flush()
        self.turns.append(Turn(role=_ROLES[role], parts=parts or (Text(text=""),), plain=plain, path=path))

    def _spoken(self) -> bool:
        """Whether the model has shown a message already, and called nothing that must be answered first."""
        calls = any(isinstance(part, ToolCall) for part in self._group)
        return not calls and any(isinstance(part, (Text, Refusal)) for part in self._group)

    def _reasoning(self, item: Node, path: str) -> None:
        texts = _texts(item, "content", path)
        summaries = _texts(item, "summary", path)
        sealed = text_in(item, "encrypted_content", f"{path}.")
        id_ = text_in(item, "id", f"{path}.") or None
        if sealed:
            format_, signature, data = shapes.unsealed(sealed)
        else:
            local = id_ is not None and id_.startswith(shapes.LOCAL)
            format_, signature, data = ("unknown" if local else shapes.OWN), None, None
        if format_ == shapes.CALL:
            self._signature = signature
            return
        text = "".join(texts) or "\n\n".join(summaries)
        thought = Reasoning(
            text=text,
            signature=signature,
            data=data,
            format=format_,
            id=id_ if format_ == shapes.OWN else None,
            summary=format_ == shapes.OWN and not texts,
        )
        self._say(thought, path)

    def _call(self, item: Node, path: str, kind: Any, arguments: str) -> None:
        id_ = _call_id(item, path)
        name = text_of(item.get("name"), f"{path}.name")
        self._called[id_] = name
        signature, self._signature = self._signature, None
        call = ToolCall(id=id_, name=name, arguments=arguments, kind=kind, signature=signature, path=path)
        self._say(call, path)

    def _result(self, item: Node, path: str) -> None:
        id_ = _call_id(item, path)
        output = item.get("output")
        if output is None:
            raise bad(f"{path}.output is required.", f"{path}.output")
        parts = [
            part if isinstance(part, (Text, Media)) else Text(text=_as_text(part), path=part_path(part, path))
            for part in content(output, f"{path}.output")
        ]
        result = ToolResult(
            id=id_,
            parts=tuple(parts),
            name=self._called.get(id_),
            plain=type(output) is str,
            cache=cache_in(item, f"{path}."),
            path=path,
        )
        self._flush()
        told = Turn(role="tool", parts=(result,), name=result.name, plain=result.plain, path=path)
        self.turns.insert(self._place(id_), told)

    def _place(self, call: str) -> int:
        """Where a result goes: last, or behind its call where the client has let the user speak between them."""
        if self.turns and self.turns[-1].role in ("assistant", "tool"):
            return len(self.turns)
        for number in range(len(self.turns) - 1, -1, -1):
            if any(isinstance(part, ToolCall) and part.id == call for part in self.turns[number].parts):
                number += 1
                while number < len(self.turns) and self.turns[number].role == "tool":
                    number += 1
                return number
        return len(self.turns)

    def _say(self, part: Part, path: str) -> None:
        if not self._group:
            self._path = path
        self._group.append(part)

    def _flush(self) -> None:
        """Ends what the model was saying; blocks of its provider alone are no turn for anyone else."""
        group, self._group = self._group, []
        if any(not isinstance(part, ServerBlock) for part in group):
            self.turns.append(Turn(role="assistant", parts=tuple(group), path=self._path))


def part_path(part: Part, otherwise: str) -> str:
    """Where a part stands."""
    return getattr(part, "path", "") or otherwise


def content(value: Any, path: str) -> tuple[Part, ...]:
    """The parts of a message's content or of an output: a text, a list of parts, or nothing."""
    if value is None:
        return ()
    if type(value) is str:
        return (Text(text=value, path=path),)
    return tuple(_part(item, f"{path}.{number}") for number, item in enumerate(list_of(value, path)))


def _part(value: Any, path: str) -> Part:
    part = object_of(value, path)
    read = _PARTS.get(text_in(part, "type", f"{path}.") or "input_text")
    if read is None:  # not ours to refuse: a provider of this format may know it
        return ServerBlock(family=shapes.FAMILY, value=part, path=path)
    return read(part, path)


def _mark(part: Node, path: str) -> CacheMark | None:
    return _BREAKPOINT if part.get("prompt_cache_breakpoint") else cache_in(part, f"{path}.")


def _text(part: Node, path: str) -> Part:
    return Text(text=text_of(part.get("text"), f"{path}.text"), cache=_mark(part, path), path=path)


def _refusal(part: Node, path: str) -> Part:
    return Refusal(text=text_of(part.get("refusal"), f"{path}.refusal"))


def _image(part: Node, path: str) -> Part:
    image = Media(kind="image", detail=text_in(part, "detail", f"{path}."), cache=_mark(part, path), path=path)
    url, id_ = part.get("image_url"), text_in(part, "file_id", f"{path}.")
    if type(url) is dict:
        url = url.get("url")  # as chat completions write it
    if url:
        return _located(image, text_of(url, f"{path}.image_url"), f"{path}.image_url")
    if id_:
        return msgspec.structs.replace(image, file_id=id_)
    raise bad(f"{path} needs image_url or file_id.", f"{path}.image_url")


def _file(part: Node, path: str) -> Part:
    place = f"{path}."
    file = Media(kind="file", filename=text_in(part, "filename", place), cache=_mark(part, path), path=path)
    data, url, id_ = (text_in(part, name, place) for name in ("file_data", "file_url", "file_id"))
    if data:
        if data[:5].lower() == "data:":
            return _located(file, data, f"{place}file_data")
        return msgspec.structs.replace(file, data=data)
    if url:
        return _located(file, url, f"{place}file_url")
    if id_:
        return msgspec.structs.replace(file, file_id=id_)
    raise bad(f"{path} needs file_data, file_url or file_id.", path)


def _audio(part: Node, path: str) -> Part:
    node = object_of(part.get("input_audio"), f"{path}.input_audio")
    format_ = text_in(node, "format", f"{path}.input_audio.")
    kind = {"mp3": "audio/mpeg", None: None}.get(format_, f"audio/{format_}")
    data = text_of(node.get("data"), f"{path}.input_audio.data")
    return Media(kind="audio", media_type=kind, data=data, path=path)


def _located(media: Media, url: str, path: str) -> Media:
    """The media with its bytes out of a data URL, or with the address itself."""
    if url[:5].lower() != "data:":
        return msgspec.structs.replace(media, url=url)
    head, comma, data = url[5:].partition(",")
    kind, *marks = head.split(";")
    if not comma or "base64" not in marks:
        raise bad(f"{path} must be a data URL with base64 content, or an address.", path)
    return msgspec.structs.replace(media, media_type=kind or None, data=data)


_PARTS: Final[dict[str, Callable[[Node, str], Part]]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _texts(item: Node, field: str, path: str) -> list[str]:
    """The texts of a reasoning item's summary or content."""
    value = item.get(field)
    if value is None:
        return []
    place = f"{path}.{field}"
    pieces = [object_of(one, f"{place}.{number}") for number, one in enumerate(list_of(value, place))]
    return [text_in(piece, "text", f"{place}.{number}.") or "" for number, piece in enumerate(pieces)]


def _call_id(item: Node, path: str) -> str:
    id_ = text_in(item, "call_id", f"{path}.")
    if not id_:
        raise bad(f"{path}.call_id is required.", f"{path}.call_id")
    return id_


def _arguments(item: Node, path: str) -> str:
    value = item.get("arguments")
    if type(value) is dict:
        return tree.dumps(value)
    return text_of("" if value is None else value, f"{path}.arguments")


def _as_text(part: Part) -> str:
    match part:
        case Refusal(text=text):
            return text
        case ServerBlock(value=value):
            return tree.dumps(value)
        case _:
            return ""
