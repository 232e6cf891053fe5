"""Tool calls across formats: arguments as text and as objects, ids that every provider takes.

Pure and without randomness: a new id comes from a seed text, so that the same answer read twice is the same answer.
Source: provider-translation B.0.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from typing import Any, Final

from newapi_proxy.wire import tree

RAW: Final = "__raw_arguments__"
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ALPHABET: Final = string.ascii_letters + string.digits


def as_object(arguments: str) -> dict[str, Any]:
    """The arguments as an object: {} for none, `{"__raw_arguments__": text}` for what is no JSON object."""
    if not arguments.strip():
        return {}
    value = tree.lenient(arguments.encode("utf-8", "replace"))
    return value if isinstance(value, dict) else {RAW: arguments}


def as_text(arguments: Any) -> str:
    """The arguments as text: text stays as it is, an object becomes compact JSON, nothing becomes ""."""
    if isinstance(arguments, str):
        return arguments
    if arguments is None:
        return ""
    if isinstance(arguments, Mapping) and set(arguments) == {RAW} and isinstance(arguments[RAW], str):
        return str(arguments[RAW])  # a broken turn that was wrapped on its way in
    return tree.dumps(arguments)


def new_id(seed: str, prefix: str = "call_", length: int = 24) -> str:
    """An id for a call that has none: the same for the same seed (answer id, choice, number of the call)."""
    return prefix + _letters(seed, length)


def fitting_id(original: str, pattern: re.Pattern[str], prefix: str = "", length: int = 24) -> str:
    """The id itself where it fits the provider's pattern, else a hash of it: equal for a call and its result."""
    return original if pattern.fullmatch(original) else prefix + _letters(original, length)


def _letters(seed: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest(), "big")
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)
