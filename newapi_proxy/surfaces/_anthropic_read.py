"""An Anthropic Messages request to the middle form: blocks, tools, controls. Knows no provider, sends nothing.

What this proxy does not know is kept (`ServerBlock`, `unknown`): an upstream of the same format gets the client's own
tree. Faults are worded as that API words them ("messages.0.content: …"). Source: provider-translation A.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import (
    CacheMark,
    Choice,
    Controls,
    Effort,
    Format,
    Media,
    Part,
    Reasoning,
    ServerBlock,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Tree,
    Turn,
)
from newapi_proxy.wire import tree

FAMILY: Final = "anthropic"
OWN: Final = "anthropic-claude-v1"
CALL: Final = "call"  # the label of a signature that belongs to the tool call behind it
RAW: Final = "__raw_arguments__"
_LABEL: Final = re.compile(r"([a-z0-9-]+-v\d+|unknown|call)\.(.*)", re.S)
_STEERING: Final = ("container", "context_management", "inference_geo", "speed", "cache_control")
_KNOWN: Final = frozenset(
    (
        *("model", "messages", "max_tokens", "system", "stop_sequences", "stream", "temperature", "top_p", "top_k"),
        *("tools", "tool_choice", "thinking", "metadata", "service_tier", "output_config", "output_format"),
        *("mcp_servers", *_STEERING),
    )
)
_EFFORTS: Final[dict[str, Effort]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}


def fault(path: str, what: str) -> ClientError:
    """A 400 that names the place, as this API does."""
    return ClientError(f"{path}: {what}", code="invalid_text_request", param=path)


def labelled(format: str, value: str) -> str:
    """A signature as a client of this format keeps it: another provider's carries its label in front."""
    return value if format == OWN else f"{format}.{value}"


# The opposite of `labelled`. Anthropic's own signatures are base64 and hold no full stop, so that none is mistaken.
def _unlabelled(value: str) -> tuple[str, str]:
    found = _LABEL.fullmatch(value)
    return (found[1], found[2]) if found else (OWN, value)


def turns(body: Tree) -> tuple[Turn, ...]:
    """`system` as a leading turn, then `messages` in order. Raises ClientError with the path of the fault."""
    messages = body.get("messages")
    if messages is None:
        raise fault("messages", "Field required")
    if not isinstance(messages, list):
        raise fault("messages", "Input should be a valid list")
    if not messages:
        raise fault("messages", "at least one message is required")
    leading = [] if body.get("system") is None else [_turn("system", body["system"], "system")]
    return (*leading, *(_message(message, f"messages.{index}") for index, message in enumerate(messages)))


def _message(message: Any, path: str) -> Turn:
    if not isinstance(message, dict):
        raise fault(path, "Input should be a valid dictionary")
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise fault(f"{path}.role", "Field required" if role is None else "Input should be 'user' or 'assistant'")
    if message.get("content") is None:
        raise fault(f"{path}.content", "Field required")
    return _turn(role, message["content"], f"{path}.content", path)


def _turn(role: Any, content: Any, inside: str, path: str = "") -> Turn:
    if isinstance(content, str):
        return Turn(role=role, parts=(Text(text=content, path=inside),), plain=True, path=path or inside)
    if not isinstance(content, list):
        raise fault(inside, "Input should be a valid list")
    parts: list[Part] = []
    for index, block in enumerate(content):
        parts += _parts(block, f"{inside}.{index}")
    return Turn(role=role, parts=tuple(_attached(parts)), path=path or inside)


def _attached(parts: list[Part]) -> Iterator[Part]:
    """Gives signatures that `CALL` labels back to the calls behind them."""
    signature = None
    for part in parts:
        if isinstance(part, Reasoning) and part.format == CALL:
            signature = part.signature
        elif isinstance(part, ToolCall) and signature:
            yield msgspec.structs.replace(part, signature=signature)
            signature = None
        else:
            yield part


# A type that is not known here is a block of this format all the same: newer than this file, or a server tool's.
def _parts(block: Any, path: str) -> tuple[Part, ...]:
    kind = _kind(block, path)
    reader = _BLOCKS.get(kind)
    return (ServerBlock(family=FAMILY, value=block, path=path),) if reader is None else reader(block, path)


def _kind(block: Any, path: str) -> str:
    if not isinstance(block, dict):
        raise fault(path, "Input should be a valid dictionary")
    kind = block.get("type")
    if not isinstance(kind, str):
        raise fault(f"{path}.type", "Field required" if kind is None else "Input should be a valid string")
    return kind


def _text(block: Tree, path: str) -> tuple[Text, ...]:
    citations = block.get("citations")
    kept = tuple(one for one in citations if isinstance(one, dict)) if isinstance(citations, list) else ()
    return (Text(text=word(block, "text", path), cache=cache_mark(block, path), citations=kept, path=path),)


def _image(block: Tree, path: str) -> tuple[Media, ...]:
    return (_media("image", block, _source(block, path), path),)


def _media(kind: Any, block: Tree, source: Tree, path: str) -> Media:
    inside = f"{path}.source"
    form = word(source, "type", inside)
    fields: dict[str, Any] = {}
    if form == "base64":
        fields = {"data": word(source, "data", inside), "media_type": word(source, "media_type", inside)}
    elif form == "url":
        fields = {"url": word(source, "url", inside)}
    elif form == "file":
        fields = {"file_id": word(source, "file_id", inside)}
    elif form == "text" and kind == "file":
        fields = {"text": word(source, "data", inside), "media_type": "text/plain"}
    else:
        raise fault(f"{inside}.type", f"Input tag '{form}' does not match any of the expected tags")
    extra = {name: block[name] for name in ("context", "citations") if block.get(name) is not None}
    title = block.get("title")
    return Media(
        kind=kind,
        filename=title if isinstance(title, str) else None,
        cache=cache_mark(block, path),
        extra=extra or None,
        path=path,
        **fields,
    )


def _source(block: Tree, path: str) -> Tree:
    source = block.get("source")
    if not isinstance(source, dict):
        raise fault(f"{path}.source", "Field required" if source is None else "Input should be a valid dictionary")
    return source


# A document of blocks has no like elsewhere: its blocks are told one by one.
def _document(block: Tree, path: str) -> tuple[Text | Media, ...]:
    source = _source(block, path)
    if source.get("type") != "content":
        return (_media("file", block, source, path),)
    inside = f"{path}.source.content"
    content = source.get("content")
    if isinstance(content, str):
        return (Text(text=content, cache=cache_mark(block, path), path=inside),)
    return tuple(_shown(content, inside))


def _search_result(block: Tree, path: str) -> tuple[Text, ...]:
    """As text: what a provider without such blocks can be told."""
    content = block.get("content")
    texts = [block.get("title"), block.get("source")]
    texts += [one.get("text") for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    text = "\n".join(text for text in texts if isinstance(text, str) and text)
    return (Text(text=text, cache=cache_mark(block, path), path=path),)


# Without a signature the block is some other model's thinking, told by this proxy; upstream refuses it signed so.
def _thinking(block: Tree, path: str) -> tuple[Reasoning, ...]:
    signature = block.get("signature")
    text = word(block, "thinking", path)
    if not isinstance(signature, str) or not signature:
        return (Reasoning(text=text),)
    label, value = _unlabelled(signature)
    return (Reasoning(text=text, signature=value, format=label),)


def _redacted(block: Tree, path: str) -> tuple[Reasoning, ...]:
    label, value = _unlabelled(word(block, "data", path))
    return (Reasoning(data=value, format=label),)


def _tool_use(block: Tree, path: str) -> tuple[ToolCall, ...]:
    given = block.get("input")
    if not isinstance(given, dict):
        if given is not None:
            raise fault(f"{path}.input", "Input should be a valid dictionary")
        given = {}
    raw = given.get(RAW) if len(given) == 1 else None
    return (
        ToolCall(
            id=word(block, "id", path),
            name=word(block, "name", path),
            arguments=raw if isinstance(raw, str) else tree.dumps(given),
            cache=cache_mark(block, path),
            path=path,
        ),
    )


def _tool_result(block: Tree, path: str) -> tuple[ToolResult, ...]:
    content = block.get("content")
    parts: tuple[Text | Media, ...]
    if isinstance(content, str):
        parts = (Text(text=content, path=f"{path}.content"),)
    else:
        parts = () if content is None else tuple(_shown(content, f"{path}.content"))
    return (
        ToolResult(
            id=word(block, "tool_use_id", path),
            parts=parts,
            plain=isinstance(content, str),
            is_error=block.get("is_error") is True,
            cache=cache_mark(block, path),
            path=path,
        ),
    )


def _shown(content: Any, path: str) -> Iterator[Text | Media]:
    """The blocks inside a result or a document: texts, images, documents; what else stands there is left out."""
    if not isinstance(content, list):
        raise fault(path, "Input should be a valid list")
    for index, block in enumerate(content):
        inside = f"{path}.{index}"
        kind = _kind(block, inside)
        if kind == "tool_reference":
            yield Text(text=str(block.get("tool_name") or ""), path=inside)
        elif kind in _SHOWN:
            yield from _SHOWN[kind](block, inside)


_SHOWN: Final[dict[str, Callable[[Tree, str], tuple[Text | Media, ...]]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
}
_BLOCKS: Final[dict[str, Callable[[Tree, str], tuple[Part, ...]]]] = {
    **_SHOWN,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}


def tools(body: Tree) -> tuple[Tool, ...]:
    """The tools; a server's own ones and MCP servers verbatim, as kind "server"."""
    found = []
    for index, value in enumerate(_list(body, "tools")):
        path = f"tools.{index}"
        if not isinstance(value, dict):
            raise fault(path, "Input should be a valid dictionary")
        kind = value.get("type")
        if isinstance(kind, str) and kind != "custom":
            found.append(Tool(name=kind, kind="server", server=value, family=FAMILY, path=path))
            continue
        schema = value.get("input_schema")
        if not isinstance(schema, dict):
            what = "Field required" if schema is None else "Input should be a valid dictionary"
            raise fault(f"{path}.input_schema", what)
        strict = value.get("strict")
        found.append(
            Tool(
                name=word(value, "name", path),
                description=maybe_word(value, "description", path),
                schema=schema,
                strict=strict if isinstance(strict, bool) else None,
                cache=cache_mark(value, path),
                path=path,
            )
        )
    for index, server in enumerate(_list(body, "mcp_servers")):
        if not isinstance(server, dict):
            raise fault(f"mcp_servers.{index}", "Input should be a valid dictionary")
        found.append(Tool(name="mcp_servers", kind="server", server=server, family=FAMILY, path=f"mcp_servers.{index}"))
    return tuple(found)


def choice(body: Tree) -> tuple[Choice | None, bool | None]:
    """The tool choice, and False where parallel calls are ruled out."""
    value = _dict(body, "tool_choice")
    if value is None:
        return None, None
    parallel = False if value.get("disable_parallel_tool_use") is True else None
    match value.get("type"):
        case "auto":
            return Choice(mode="auto"), parallel
        case "any":
            return Choice(mode="required"), parallel
        case "none":
            return Choice(mode="none"), parallel
        case "tool":
            return Choice(mode="named", name=word(value, "name", "tool_choice")), parallel
        case _:
            raise fault("tool_choice.type", "Input should be 'auto', 'any', 'tool' or 'none'")


def controls(body: Tree, parallel: bool | None, count_only: bool) -> Controls:
    """What steers generation. `max_tokens` is required but for counting."""
    output = _dict(body, "output_config") or {}
    steering = {name: body[name] for name in _STEERING if body.get(name) is not None}
    if output.get("task_budget") is not None:
        steering["output_config.task_budget"] = output["task_budget"]
    tier = maybe_word(body, "service_tier", "")
    return Controls(
        max_tokens=_max_tokens(body, count_only),
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        top_k=_integer(body, "top_k", ""),
        stop=_stops(body),
        parallel_tools=parallel,
        format=_format(output.get("format"), body),
        thinking=_thinking_control(body, output),
        user=maybe_word(_dict(body, "metadata") or {}, "user_id", "metadata"),
        service_tier="default" if tier == "standard_only" else tier,
        steering=steering,
    )


def unknown(body: Tree) -> tuple[str, ...]:
    """Top-level names that this proxy does not know."""
    return tuple(name for name in body if name not in _KNOWN)


def flag(body: Tree, name: str) -> bool:
    """A boolean, False where it is absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise fault(name, "Input should be a valid boolean")
    return bool(value)


def word(node: Tree, name: str, path: str) -> str:
    """A required text."""
    value = node.get(name)
    if not isinstance(value, str):
        raise fault(_join(path, name), "Field required" if value is None else "Input should be a valid string")
    return value


def maybe_word(node: Tree, name: str, path: str) -> str | None:
    """A text, None where it is absent."""
    return None if node.get(name) is None else word(node, name, path)


def cache_mark(node: Tree, path: str) -> CacheMark | None:
    """The cache marker of a block or tool."""
    value = node.get("cache_control")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fault(f"{path}.cache_control", "Input should be a valid dictionary")
    return CacheMark(ttl=maybe_word(value, "ttl", f"{path}.cache_control"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _list(body: Tree, name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise fault(name, "Input should be a valid list")
    return value or []


def _dict(body: Tree, name: str) -> Tree | None:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise fault(name, "Input should be a valid dictionary")
    return value


def _number(body: Tree, name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise fault(name, "Input should be a valid number")
    return value


def _integer(node: Tree, name: str, path: str) -> int | None:
    value = node.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise fault(_join(path, name), "Input should be a valid integer")
    return value


# 0 warms the cache; the upper bound is the inherited one of every text request (relay-and-billing 1.2).
def _max_tokens(body: Tree, count_only: bool) -> int | None:
    value = _integer(body, "max_tokens", "")
    if value is None and not count_only:
        raise fault("max_tokens", "Field required")
    if value is not None and not 0 <= value <= 2**30:
        raise fault("max_tokens", "Input should be between 0 and 1073741824")
    return value


def _stops(body: Tree) -> tuple[str, ...]:
    stops = _list(body, "stop_sequences")
    for index, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise fault(f"stop_sequences.{index}", "Input should be a valid string")
    return tuple(stops)


# A form that this proxy does not know is left to upstream, which words the refusal itself.
def _format(value: Any, body: Tree) -> Format | None:
    path = "output_config.format"
    if value is None:
        value, path = body.get("output_format"), "output_format"  # the beta's older place
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fault(path, "Input should be a valid dictionary")
    schema = value.get("schema")
    if value.get("type") != "json_schema" or not isinstance(schema, dict):
        return None  # upstream says what it thinks of it
    return Format(kind="json_schema", schema=schema, strict=True)


def _thinking_control(body: Tree, output: Tree) -> Thinking | None:
    effort = _EFFORTS.get(maybe_word(output, "effort", "output_config") or "")
    value = _dict(body, "thinking")
    if value is None:
        return Thinking(effort=effort) if effort else None
    display = value.get("display")
    display = display if isinstance(display, str) else None
    match value.get("type"):
        case "enabled":
            return Thinking(effort=effort, budget=_integer(value, "budget_tokens", "thinking"), display=display)
        case "adaptive":
            return Thinking(effort=effort, adaptive=True, display=display)
        case "disabled":
            return Thinking(effort=effort, disabled=True)
        case _:
            raise fault("thinking.type", "Input should be 'enabled', 'adaptive' or 'disabled'")
