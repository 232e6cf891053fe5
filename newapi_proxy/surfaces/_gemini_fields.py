"""Fields of a Gemini request read with their types: a wrong one is a 400 that names its dotted path.

Names come in camelCase or in snake_case, mixed in one body; numbers may come as text, and a list of one as its only
element, as Google's own servers take them. Knows nothing of what the fields mean. Source: provider-translation A.7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from newapi_proxy.errors import ClientError
from newapi_proxy.surfaces.base import LONGEST_MODEL, PATH

Node = dict[str, Any]

_UPPER: Final = re.compile(r"[A-Z]")
_LOWER: Final = re.compile(r"_([a-z])")
_MOST: Final = 1 << 63
_PLACE: Final = "models/"


def fault(path: str, what: str) -> ClientError:
    """A request that is not what the format says: 400, its place in Google's way of writing it."""
    return ClientError(f"Invalid value at '{bracketed(path)}': {what}", code="invalid_text_request", param=path)


def bracketed(path: str) -> str:
    """`contents[0].parts[1]` for `contents.0.parts.1`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)


def within(path: str, name: str) -> str:
    """The path of a field below a path; the body itself has the empty one."""
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=256)
def _snake(name: str) -> str:
    return _UPPER.sub(lambda found: "_" + found[0].lower(), name)


def camel(name: str) -> str:
    """A name in the format's own spelling: `topK` for `top_k`."""
    return _LOWER.sub(lambda found: found[1].upper(), name)


def get(node: Node, name: str) -> Any:
    """The value under a name in either spelling; None where there is none or null."""
    value = node.get(name)
    return node.get(_snake(name)) if value is None else value


def object_of(value: Any, path: str) -> Node:
    """The value as an object."""
    if type(value) is dict:
        return value
    raise fault(path, "an object is expected.")


def text_of(value: Any, path: str) -> str:
    """The value as a text."""
    if type(value) is str:
        return value
    raise fault(path, "a string is expected.")


def model_in(headers: Mapping[str, str]) -> str:
    """The model that the path names."""
    model = headers.get(PATH, "").removeprefix(_PLACE)
    if not model or len(model) > LONGEST_MODEL:
        raise fault("model", f"a name of at most {LONGEST_MODEL} characters is expected in the path.")
    return model


def object_in(node: Node, name: str, path: str) -> Node | None:
    """The object under the name."""
    value = get(node, name)
    return None if value is None else object_of(value, within(path, name))


def list_in(node: Node, name: str, path: str) -> list[Any]:
    """The list under the name, empty where there is none; a bare object is a list of one."""
    value = get(node, name)
    if value is None:
        return []
    if type(value) is list:
        return value
    if type(value) is dict:
        return [value]
    raise fault(within(path, name), "a list is expected.")


def text_in(node: Node, name: str, path: str) -> str | None:
    """The text under the name."""
    value = get(node, name)
    return None if value is None else text_of(value, within(path, name))


def texts_in(node: Node, name: str, path: str) -> tuple[str, ...]:
    """The texts of the list under the name."""
    value = get(node, name)
    if value is None:
        return ()
    if type(value) is not list:
        raise fault(within(path, name), "a list is expected.")
    return tuple(text_of(one, f"{within(path, name)}.{number}") for number, one in enumerate(value))


def flag_in(node: Node, name: str, path: str) -> bool:
    """The boolean under the name, False where there is none."""
    value = get(node, name)
    if value is None or type(value) is bool:
        return bool(value)
    raise fault(within(path, name), "true or false is expected.")


def number_in(node: Node, name: str, path: str) -> float | None:
    """The number under the name; text that is one counts."""
    value = get(node, name)
    if type(value) is str:
        try:
            value = float(value) if len(value) <= 40 else None
        except ValueError:
            value = None
        if value is None or value - value != 0:  # neither infinite nor no number
            raise fault(within(path, name), "a number is expected.")
        return int(value) if value.is_integer() and abs(value) < _MOST else value
    if value is None or type(value) is float:
        return value
    if type(value) is int:
        if abs(value) > _MOST:
            raise fault(within(path, name), "the number is out of range.")
        return value
    raise fault(within(path, name), "a number is expected.")


def whole_in(node: Node, name: str, path: str) -> int | None:
    """The whole number under the name (12.0 counts)."""
    value = number_in(node, name, path)
    if value is None or type(value) is int:
        return value
    if value.is_integer() and abs(value) < _MOST:
        return int(value)
    raise fault(within(path, name), "a whole number is expected.")


def word_in(node: Node, name: str, path: str) -> str:
    """The enum's word under the name in upper case, "" where there is none or it is left unspecified."""
    word = (text_in(node, name, path) or "").upper()
    return "" if word.endswith("_UNSPECIFIED") else word
