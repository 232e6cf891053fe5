"""Claude by InvokeModel: the Anthropic format in AWS's envelope.

What differs from Anthropic's own host: model and stream stand in the path, version and betas in the body, no address is
fetched, and the events of a stream come as base64 inside binary frames. Pure. Source: provider-translation B.6.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _anthropic_request as requests
from newapi_proxy.adapters._bedrock_answer import failed
from newapi_proxy.adapters._bedrock_models import known_betas
from newapi_proxy.adapters._inlining import inlined
from newapi_proxy.adapters.anthropic import DIALECT, betas
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Media, Part, ToolResult, Tree
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.eventstream import Message

VERSION: Final = "bedrock-2023-05-31"
METRICS: Final = "amazon-bedrock-invocationMetrics"
TIER: Final = "x-amzn-bedrock-service-tier"
_UNREADABLE: Final = b"?"  # for the reader to count
_HEAD: Final = re.compile(rb'\{"type":"([a-z_]+)"')
_NO_TOOLS: Final = ("web_search", "web_fetch", "code_execution", "mcp_servers", "tool_search_tool_bm25")
_TYPES: Final = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A body, the headers it needs, and the names of what had to be dropped."""

    body: Tree
    headers: dict[str, str]
    dropped: tuple[str, ...] = ()


def invoke(ask: Ask, model: str, options: Any) -> Built:
    """The body for this ask. Raises Unsupported with the path of what this host cannot do."""
    ask = _carried(ask)
    dropped: list[str] = []
    own: Sequence[str] = ()
    if ask.dialect == DIALECT:
        body = inlined(requests.native(ask, model), ask.turns)
        _refuse(ask)
        if body.pop("cache_control", None) is not None:
            dropped.append("cache_control")
    else:
        built = requests.translated(ask, model, options)
        body, own = dict(built.body), built.betas
        dropped += built.dropped
        _leave_out(body, dropped)
    headers = _tier(body, dropped)
    for name in ("model", "stream"):
        body.pop(name, None)
    named = body.pop("anthropic_beta", None)
    given = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    wanted = known_betas(betas(ask, (*given, *own)))
    if wanted:
        body["anthropic_beta"] = wanted
    body["anthropic_version"] = VERSION
    return Built(body=body, headers=headers, dropped=tuple(sorted(set(dropped))))


def framed(message: Message) -> sse.Frame | None:
    """A binary message as the event it carries, in the bytes that Anthropic's own host would have sent."""
    if message.kind != "event":
        _, status, words = failed(message)
        error = {"type": _TYPES.get(status, "api_error"), "message": words}
        return _named(tree.encode({"type": "error", "error": error}), "error")
    if message.name != "chunk":
        return None
    data = _payload(message.payload)
    if data is None:
        return sse.Frame(message.raw, message.name, _UNREADABLE)
    found = _HEAD.match(data)
    kind = found[1].decode() if found is not None else ""
    if kind and kind != "message_stop" and b"\n" not in data and b"\r" not in data:
        return _named(data, kind)
    value = tree.lenient(data)
    if not isinstance(value, dict):
        return sse.Frame(message.raw, message.name, data)
    value.pop(METRICS, None)  # the same counts as the answer's own, in other words
    named = value.get("type")
    return _named(tree.encode(value), named if isinstance(named, str) else "")


def _named(data: bytes, kind: str) -> sse.Frame:
    kind = kind if kind.isidentifier() else ""
    return sse.Frame(sse.encode(data, kind), kind, data)


def _payload(payload: bytes) -> bytes | None:
    value = tree.lenient(payload)
    text = value.get("bytes") if isinstance(value, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


# A medium that was fetched is told by its bytes: the address is Anthropic's to fetch, not AWS's.
def _carried(ask: Ask) -> Ask:
    turns = tuple(
        turn if turn.plain else msgspec.structs.replace(turn, parts=tuple(_by_bytes(turn.parts, ask)))
        for turn in ask.turns
    )
    return msgspec.structs.replace(ask, turns=turns)


def _by_bytes(parts: Sequence[Part], ask: Ask) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, ToolResult):
            yield msgspec.structs.replace(part, parts=tuple(_by_bytes(part.parts, ask)))
        elif not isinstance(part, Media):
            yield part
        elif part.file_id is not None:
            raise _media(part, "knows no files by id")
        elif part.url is not None and part.data is None:
            raise _media(part, "takes media as data only")
        else:  # in the client's own format the address marks the place that takes the bytes
            yield part if ask.dialect == DIALECT or part.url is None else msgspec.structs.replace(part, url=None)


def _media(part: Media, why: str) -> Unsupported:
    return Unsupported(f"Bedrock {why} ({part.path or part.kind}).", part.path, "unsupported_content")


def _refuse(ask: Ask) -> None:
    for tool in ask.tools:
        if tool.kind == "server" and tool.name.startswith(_NO_TOOLS):
            raise Unsupported(f"Bedrock has no tool like {tool.name} ({tool.path}).", tool.path)


# What only Anthropic's own host has, in a body that was built for it.
def _leave_out(body: Tree, dropped: list[str]) -> None:
    if body.pop("cache_control", None) is not None:
        dropped.append("prompt_cache_retention")
    tools = body.get("tools")
    if tools:
        body["tools"] = [one for one in tools if not str(one.get("type", "")).startswith(_NO_TOOLS)]
        if len(body["tools"]) < len(tools):
            dropped.append("web_search_options")
        if not body["tools"]:
            del body["tools"]
            body.pop("tool_choice", None)


# The tier stands in a header here.
def _tier(body: Tree, dropped: list[str]) -> dict[str, str]:
    tier = body.pop("service_tier", None)
    if tier == "standard_only":
        return {TIER: "default"}
    if tier not in (None, "auto"):
        dropped.append("service_tier")
    return {}
