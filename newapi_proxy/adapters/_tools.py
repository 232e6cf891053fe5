"""Tool calls across formats: arguments as text and as objects, ids that every provider takes.

Pure and without randomness: a new id comes from a seed text, so that the same answer read twice is the same answer.
Source: provider-translation B.0.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Tool, ToolCall, Turn
from newapi_proxy.wire import tree

RAW: Final = "__raw_arguments__"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
SHORT: Final = 40  # characters that every provider takes in an id; more stand where a signature is carried
LONGEST_SEAL: Final = 64 * 1024  # characters of a signature that an id carries
_MARKS: Final = ("__sig__", "__sigx__")  # behind it a check, and the signature: base64 as it is, or any text wrapped
_CHECK: Final = 6  # letters that tell a whole signature from one that was cut
_LETTERS: Final = re.compile(r"[A-Za-z0-9_-]+")
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


def named(tool: Tool, provider: str) -> str:
    """The tool's name. Raises Unsupported where it would have to be changed: the client would not know it again."""
    if not _NAME.fullmatch(tool.name):
        raise Unsupported(
            f"{provider} takes tool names of 1 to 64 letters, digits, _ and - only ({tool.place}.name).",
            f"{tool.place}.name",
        )
    return tool.name


def awaited(turns: Sequence[Turn]) -> list[Turn]:
    """The turns; what the model says while calls of its own wait for their results is one turn with them.

    Formats that join such turns themselves let clients cut them; the others refuse a call that no result follows.
    """
    out: list[Turn] = []
    for turn in turns:
        before = out[-1] if out and turn.role == "assistant" else None
        if before is not None and before.role == turn.role and any(isinstance(one, ToolCall) for one in before.parts):
            out[-1] = msgspec.structs.replace(before, parts=(*before.parts, *turn.parts), plain=False)
        else:
            out.append(turn)
    return out


def new_id(seed: str, prefix: str = "call_", length: int = 24) -> str:
    """An id for a call that has none: the same for the same seed (answer id, choice, number of the call)."""
    return prefix + _letters(seed, length)


def fitting_id(original: str, pattern: re.Pattern[str], prefix: str = "", length: int = 24) -> str:
    """The id itself where it fits the provider's pattern, else a hash of it: equal for a call and its result."""
    return original if pattern.fullmatch(original) else prefix + _letters(original, length)


def sealed_id(id: str, signature: str) -> str:
    """A call's id that carries the call's signature through clients which know nothing of signatures.

    Letters, digits, `_` and `-` only; `opened_id` gives both back unaltered. A signature above 64 KiB is left out.
    """
    if not signature or len(signature) > LONGEST_SEAL or any(mark in id for mark in _MARKS):
        return id
    check = _letters(signature, _CHECK)
    plain = signature.rstrip("=").replace("+", "-").replace("/", "_")
    sealed = f"{id}{_MARKS[0]}{check}{plain}"
    if _LETTERS.fullmatch(plain) and opened_id(sealed) == (id, signature):
        return sealed
    wrapped = base64.urlsafe_b64encode(signature.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    return f"{id}{_MARKS[1]}{check}{wrapped}"


def opened_id(id: str) -> tuple[str, str | None]:
    """The id and the signature that `sealed_id` put together.

    None for an id that carries none, or one that a client has cut short on the way.
    """
    for mark in _MARKS:
        bare, found, body = id.partition(mark)
        if found:
            check, sealed = body[:_CHECK], body[_CHECK:]
            sealed += "=" * (-len(sealed) % 4)
            signature = sealed.replace("-", "+").replace("_", "/") if mark == _MARKS[0] else _unwrapped(sealed)
            return bare, signature if signature and _letters(signature, _CHECK) == check else None
    return id, None


def short_id(id: str, longest: int | None = None) -> str:
    """The id for a provider that reads no signature out of it, a hash of it where it is longer than that takes.

    The same for a call and its result.
    """
    bare = opened_id(id)[0] if len(id) > SHORT else id
    return bare if longest is None or len(bare) <= longest else new_id(bare)


def _unwrapped(sealed: str) -> str:
    try:
        return base64.urlsafe_b64decode(sealed).decode("utf-8", "surrogatepass")
    except ValueError:  # no base64, or no text
        return ""


def _letters(seed: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest(), "big")
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)
