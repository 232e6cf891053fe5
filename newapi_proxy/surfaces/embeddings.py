"""The embeddings surface: texts or token numbers in, vectors out, always with usage. Knows the format alone.

Source: provider-translation A.3, user-demands R8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from newapi_proxy.ir.ask import Ask, Controls
from newapi_proxy.ir.events import Event, Started, Yielded
from newapi_proxy.ir.matter import Embed, Vector
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces._openai_fields import Node, bad, model_in, text_in, whole_in
from newapi_proxy.surfaces.base import PATH, Face
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.wire import floats, tree
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai.embeddings"
BASE64: Final = "base64"
LARGE: Final = 256 * 1024  # bytes of an answer that is looked over before its numbers are read
_OWN: Final = frozenset({"embedding_type", "output_dtype"})  # other servers' names for how vectors are written


def read(body: bytes, headers: Mapping[str, str]) -> Ask:
    """The request; the path's model fills a missing one. Raises ClientError with the path of the fault."""
    sent = tree.read(body)
    if not sent.get("model") and headers.get(PATH):
        sent = {**sent, "model": headers[PATH]}
    dimensions = whole_in(sent, "dimensions")
    if dimensions is not None and dimensions < 1:
        raise bad("dimensions must be at least 1.", "dimensions")
    written = text_in(sent, "encoding_format")
    matter = Embed(inputs=_inputs(sent.get("input")), dimensions=dimensions, base64=written == BASE64)
    return Ask(
        dialect=DIALECT,
        model=model_in(sent),
        tree=sent,
        size=len(body),
        controls=Controls(max_tokens=0, user=text_in(sent, "user")),
        kind="embeddings",
        matter=matter,
        texts=sent["input"],
    )


def _inputs(value: Any) -> tuple[str | tuple[int, ...] | Node, ...]:
    """What is to be made vectors, one entry each; objects (a text, a picture) are some servers' own."""
    if value is None or value in ("", []):
        raise bad("field input is required", "input")
    if type(value) is str or type(value) is dict:
        return (value,)
    if type(value) is not list:
        raise bad("input must be a string or an array.", "input")
    if type(value[0]) is int:
        return (_tokens(value, "input"),)
    return tuple(_input(one, f"input.{place}") for place, one in enumerate(value))


def _input(value: Any, path: str) -> str | tuple[int, ...] | Node:
    if type(value) is str or type(value) is dict:
        return value
    if type(value) is list and value:
        return _tokens(value, path)
    raise bad(f"{path} must be a string or an array of token numbers.", path)


def _tokens(value: list[Any], path: str) -> tuple[int, ...]:
    for place, one in enumerate(value):
        if type(one) is not int or one < 0:
            raise bad(f"{path}.{place} must be a token number.", f"{path}.{place}")
    return tuple(value)


def answer(ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
    """A whole answer, in the order of the input."""
    model = face.model
    vectors: list[Vector] = []
    for event in events:
        if isinstance(event, Yielded) and isinstance(event.item, Vector):
            vectors.append(event.item)
        elif isinstance(event, Started) and event.model and not face.rename:
            model = event.model
    vectors.sort(key=lambda vector: vector.index)
    data = [
        {"object": "embedding", "index": vector.index, "embedding": _written(ask, vector.values, True)}
        for vector in vectors
    ]
    return tree.encode({"object": "list", "data": data, "model": model, "usage": usage_tree(usage)})


def usage_tree(usage: Usage) -> Node:
    """The usage object."""
    return {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt + usage.completion}


def same(ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
    """A whole answer of this format: its own bytes where nothing must be changed or is missing."""
    if len(body.raw) > LARGE and not face.rename and _complete(ask, face, body):
        return body.raw
    node = body.tree
    changes: Node = {}
    if face.rename or type(node.get("model")) is not str:
        changes["model"] = face.model
    told = node.get("usage")
    if type(told) is not dict or not {"prompt_tokens", "total_tokens"} <= told.keys():
        changes["usage"] = {**usage_tree(usage), **(told if type(told) is dict else {})}
    data = [_row(ask, face, row, place) for place, row in enumerate(node["data"])]
    if any(one is not row for one, row in zip(data, node["data"], strict=True)):
        changes["data"] = data
    if node.get("object") != "list":
        changes["object"] = "list"
    return tree.encode({**node, **changes}) if changes else body.raw


class _Vector(msgspec.Struct):
    object: str
    index: int
    embedding: msgspec.Raw


class _Whole(msgspec.Struct):
    """An answer that lacks nothing, its vectors unread."""

    object: str
    model: str
    usage: dict[str, Any]
    data: list[_Vector]


_WHOLE: Final = msgspec.json.Decoder(_Whole)


def _complete(ask: Ask, face: Face, body: Document) -> bool:
    """Whether a large answer is what the client wants as it stands, told without reading its numbers."""
    whole = body.outline(_WHOLE)
    if whole is None or whole.object != "list" or not {"prompt_tokens", "total_tokens"} <= whole.usage.keys():
        return False
    if not all(row.object == "embedding" for row in whole.data):
        return False
    texts = {bytes(memoryview(row.embedding)[:1]) == b'"' for row in whole.data}
    return not (True in texts and _unpacked(ask)) and not (False in texts and face.pack and _packed(ask))


def _packed(ask: Ask) -> bool:
    return ask.tree.get("encoding_format") == BASE64


def _unpacked(ask: Ask) -> bool:
    """Whether the client wants numbers: it says so, or says nothing, not even in other servers' words."""
    wanted = ask.tree.get("encoding_format")
    return wanted == "float" or not (wanted or _OWN & ask.tree.keys())


def _row(ask: Ask, face: Face, row: Any, place: int) -> Any:
    """One entry: itself, or with what is missing, and its vector as the client wants it written."""
    if type(row) is not dict:
        return row
    changes: Node = {}
    values = row.get("embedding")
    if type(values) in (str, list):
        written = _written(ask, values, face.pack)
        if written is not values:
            changes["embedding"] = written
    if type(row.get("index")) is not int:
        changes["index"] = place
    if row.get("object") != "embedding":
        changes["object"] = "embedding"
    return {**row, **changes} if changes else row


def _written(ask: Ask, values: Any, pack: bool) -> Any:
    """Numbers, or base64 where the client wants that and it is ours to `pack`. What is neither stays as it is."""
    try:
        if pack and type(values) is not str and _packed(ask):
            return floats.packed(values)
        if type(values) is str and _unpacked(ask):
            return floats.unpacked(values)
    except ValueError:
        pass
    return values


EMBEDDINGS: Final = EndpointSurface(dialect=DIALECT, read=read, answer=answer, same=same)
