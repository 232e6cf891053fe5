"""JSON bytes to trees and back, and edits of a tree by dotted path.

The one place, with the log, that touches orjson. Foreign bytes end in a tree or in a declared error, never in a
decoder's own exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
import orjson

from newapi_proxy.errors import ClientError

T = TypeVar("T")

MAX_DEPTH: Final = 200  # deeper than any real request; a bound for everything that walks a tree
_STEPS: Final = re.compile(
    r'"(?:[^"\\]+|\\u[0-9a-fA-F]{4}|\\[^u])*("?)|[{}\[\],]', re.S
)  # strings, whole or not; marks
_ESCAPE: Final = len(r"\uD83")  # the longest that has only begun
_WORD: Final = 256  # characters of a name, a number or a word that has
_RECURSION: Final = "Recursion limit reached"  # orjson's words for it
_LONE: Final = re.compile(
    rb"\\u[dD][89aAbB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def read(body: bytes) -> dict[str, Any]:
    """A client's body as an object. Raises ClientError 400 `invalid_json` naming line and column."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise ClientError("The request body is empty; a JSON object is expected.", code="invalid_json") from None
        raise ClientError(
            f"The request body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
            code="invalid_json",
        ) from None
    if not isinstance(value, dict):
        raise ClientError("The request body must be a JSON object.", code="invalid_json")
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _too_deep(value):
        raise ClientError(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")
    return value


def lenient(data: bytes) -> Any:
    """An upstream's JSON, or None. Broken UTF-8 and lone surrogates become U+FFFD (fault U17)."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return orjson.loads(_LONE.sub(rb"\\ufffd", data.decode("utf-8", "replace").encode()))
    except orjson.JSONDecodeError:
        return None


def within(text: str) -> Any:
    """The JSON that a text is: a call's arguments, a result. None where it is none, or nested too deep to walk."""
    data = text.encode("utf-8", "replace")
    value = lenient(data)
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and isinstance(value, (dict, list)) and _too_deep(value):
        return None
    return value


def begun(text: str) -> Any:
    """The JSON that a text breaks off in, with all that has come of it but for a name, a number or a word at its end.
    None where it is no beginning of JSON, or nested too deep."""
    closing, sound = "", (0, "")
    for step in _STEPS.finditer(text):
        mark = step[0][0]
        if mark == '"':
            if step[1]:
                continue
            if len(text) - step.end() > _ESCAPE:  # no escape that has only begun, but one that there is not
                return None
            value = within(f'{step.string[: step.end()]}"{closing}')
            if value is not None:
                return value
            break
        if mark in "{[":
            closing = ("}" if mark == "{" else "]") + closing
        elif mark != ",":
            if not closing.startswith(mark):
                return None
            closing = closing[1:]
        if len(closing) > MAX_DEPTH:
            return None
        sound = (step.start() if mark == "," else step.end()), closing
    else:
        value = within(text + closing)
        if value is not None:
            return value
    return within(text[: sound[0]] + sound[1]) if len(text) - sound[0] <= _WORD else None


def typed(data: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    """JSON that is exactly of the decoder's type, or None. For what is read often and nearly always looks the same."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def string(raw: bytes) -> str | None:
    """A JSON string, its quotes with it, as text; None for what is none."""
    try:
        return orjson.loads(raw)  # type: ignore[no-any-return]
    except orjson.JSONDecodeError:
        return None


class Document:
    """One whole answer: `raw` as it came, `tree` its JSON, read once however many ask; None where it is none."""

    __slots__ = ("_tree", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._tree: Any = _UNREAD

    @property
    def tree(self) -> Any:
        """The body parsed as `lenient` does it. Shared: nobody changes it in place."""
        if self._tree is _UNREAD:
            self._tree = lenient(self.raw)
        return self._tree

    def outline(self, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The body as the decoder's struct, None where it does not fit. What the struct does not name, or has as
        `msgspec.Raw`, is only skipped: of a large body a sixth of the time."""
        return typed(self.raw, decoder)


_UNREAD: Final = object()


class TooDeep(TypeError):
    """A value is nested deeper than JSON is written here: 254 levels. What is read may have a thousand."""


def encode(value: Any) -> bytes:
    """Compact JSON, key order kept, characters not escaped. Raises TooDeep."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        if str(error) == _RECURSION:
            raise TooDeep(_RECURSION) from None
        raise


def dumps(value: Any) -> str:
    """`encode` as text: tool arguments and the like."""
    return encode(value).decode()


def indented(value: Any) -> str:
    """The same with a line for each member, by two blanks a level."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def spaced(value: Any, *, ordered: bool = True) -> str:
    """The same as one line with blanks behind commas and colons, in ASCII; `ordered`: members by their names."""
    match value:
        case dict():
            members = sorted(value.items()) if ordered else value.items()
            return f"{{{', '.join(f'{_ascii(name)}: {spaced(one, ordered=ordered)}' for name, one in members)}}}"
        case list():
            return f"[{', '.join(spaced(one, ordered=ordered) for one in value)}]"
        case _:
            return _ascii(value)


def _ascii(value: Any) -> str:
    text = dumps(value)
    return text if text.isascii() else _FOREIGN.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    data = match[0].encode("utf-16-be")
    return "".join(f"\\u{data[place : place + 2].hex()}" for place in range(0, len(data), 2))


_FOREIGN: Final = re.compile(r"[^\x00-\x7f]")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return True


def _children(node: Any) -> Iterator[Any]:
    values = node.values() if isinstance(node, dict) else node
    for value in values:
        if isinstance(value, (dict, list)):
            yield value


def put(root: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the tree with the value at the dotted path; only what lies on the path is copied.

    Numbers index into lists; missing objects on the way are made; a path through a scalar replaces it.
    """
    return _edit(root, path.split("."), lambda _: value)  # type: ignore[no-any-return]


def default(root: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Like `put`, where nothing stands at the path."""
    return root if find(root, path) is not MISSING else put(root, path, value)


def remove(root: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy of the tree without what stands at the path; the tree itself where nothing does."""
    if find(root, path) is MISSING:
        return root
    return _edit(root, path.split("."), lambda _: MISSING)  # type: ignore[no-any-return]


MISSING: Final = object()
_DIGITS: Final = 9  # of a place in a list


def find(root: Any, path: str) -> Any:
    """What stands at the dotted path, or MISSING."""
    node = root
    for name in path.split("."):
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and (place := _place(name)) is not None and place < len(node):
            node = node[place]
        else:
            return MISSING
    return node


def _place(name: str) -> int | None:
    """The place in a list that a name is; None for none. Python reads no number of thousands of digits."""
    return int(name) if name.isdecimal() and len(name) <= _DIGITS else None


def _edit(node: Any, names: list[str], change: Any) -> Any:
    name, rest = names[0], names[1:]
    if isinstance(node, list) and name.isdecimal():
        index = _place(name)
        if index is None or index >= len(node):
            return node
        items = list(node)
        new = _edit(items[index], rest, change) if rest else change(items[index])
        items[index : index + 1] = [] if new is MISSING else [new]
        return items
    copy = dict(node) if isinstance(node, dict) else {}
    new = _edit(copy.get(name), rest, change) if rest else change(copy.get(name))
    if new is MISSING:
        copy.pop(name, None)
    else:
        copy[name] = new
    return copy
