"""Fields of an OpenAI-format body read with their types: a wrong one is a 400 that names its dotted path.

Knows nothing of what the fields mean. Source: relay-and-billing 1.2 (code and messages), provider-translation A.1.1.
"""

from __future__ import annotations

from typing import Any

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import CacheMark
from newapi_proxy.surfaces.base import LONGEST_MODEL

Node = dict[str, Any]


def bad(message: str, param: str) -> ClientError:
    """A request that is not what the format says: 400 `invalid_text_request`."""
    return ClientError(message, code="invalid_text_request", param=param)


def object_of(value: Any, path: str) -> Node:
    """The value as an object."""
    if type(value) is dict:
        return value
    raise bad(f"{path} must be an object.", path)


def list_of(value: Any, path: str) -> list[Any]:
    """The value as a list."""
    if type(value) is list:
        return value
    raise bad(f"{path} must be an array.", path)


def text_of(value: Any, path: str) -> str:
    """The value as a text."""
    if type(value) is str:
        return value
    raise bad(f"{path} must be a string.", path)


def text_in(node: Node, name: str, path: str = "") -> str | None:
    """The text under the name, None where there is none or null."""
    value = node.get(name)
    if value is None or type(value) is str:
        return value
    raise bad(f"{path}{name} must be a string.", f"{path}{name}")


def flag_in(node: Node, name: str, path: str = "") -> bool | None:
    """The boolean under the name, None where there is none or null."""
    value = node.get(name)
    if value is None or type(value) is bool:
        return value
    raise bad(f"{path}{name} must be true or false.", f"{path}{name}")


def number_in(node: Node, name: str, path: str = "") -> float | None:
    """The number under the name, None where there is none or null."""
    value = node.get(name)
    if value is None or type(value) is float:
        return value
    if type(value) is int:
        if abs(value) > 1 << 63:
            raise bad(f"{path}{name} is out of range.", f"{path}{name}")
        return value
    raise bad(f"{path}{name} must be a number.", f"{path}{name}")


def whole_in(node: Node, name: str, path: str = "") -> int | None:
    """The whole number under the name (12.0 counts), None where there is none or null."""
    value = number_in(node, name, path)
    if value is None or type(value) is int:
        return value
    if value.is_integer() and abs(value) < 1 << 63:
        return int(value)
    raise bad(f"{path}{name} must be a whole number.", f"{path}{name}")


def object_in(node: Node, name: str, path: str = "") -> Node | None:
    """The object under the name, None where there is none or null."""
    value = node.get(name)
    return None if value is None else object_of(value, f"{path}{name}")


def model_in(sent: Node) -> str:
    """The name of the model that is asked for."""
    model = sent.get("model")
    if type(model) is not str:
        model = text_in(sent, "model")
    if not model:
        raise bad("model is required", "model")
    if len(model) > LONGEST_MODEL:
        raise bad(f"model must not be longer than {LONGEST_MODEL} characters.", "model")
    return model


def usage_wanted(sent: Node) -> bool:
    """Whether a usage chunk is asked for; options without any word of a stream are refused (A.1.1)."""
    options = sent.get("stream_options")
    if options is None:
        return False
    wanted = flag_in(object_of(options, "stream_options"), "include_usage", "stream_options.")
    if sent.get("stream") is None:
        raise bad("stream_options is only allowed when stream is true.", "stream_options")
    return wanted or False


def cache_in(node: Node, path: str) -> CacheMark | None:
    """The `cache_control` mark or the explicit breakpoint of a part or a tool, None where there is neither."""
    value = node.get("cache_control")
    if value is None:
        own = node.get("prompt_cache_breakpoint")
        explicit = type(own) is dict and own.get("mode") == "explicit"
        return CacheMark(ttl="1h") if explicit else None
    mark = object_of(value, f"{path}cache_control")
    return CacheMark(ttl=text_in(mark, "ttl", f"{path}cache_control."))
