"""Pieces of an OpenAI chat answer: usage, finish words, calls, reasoning details, citations, the error envelope.

Shared by the whole answer, the stream writer and the passer, so that the three cannot differ. Source:
provider-translation A.0.3, A.1.2, A.1.4.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.errors import ProxyError, UpstreamFailure
from newapi_proxy.ir.events import Cited, Finish, Picture, Thought
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire import tree

Node = dict[str, Any]

STANDARD: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
FINISH: Final[dict[Finish, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "error": "stop",
    "context_overflow": "length",
}
DECLINED: Final = "The model declined to answer."


def gap(told: str) -> str:
    """What goes between this thought and the next: a blank line (decision 27), unless it ends in one."""
    return "" if told.endswith("\n\n") else "\n\n"


def finish_word(reason: Finish, calls: bool, legacy: bool = False) -> str:
    """OpenAI's word for a finish; calls present mean `tool_calls` where the provider just stopped."""
    word = FINISH[reason]
    if calls and word == "stop":
        word = "tool_calls"
    return "function_call" if legacy and word == "tool_calls" else word


def usage_tree(usage: Usage) -> Node:
    """The usage object; sub-inferences are summed into it, since the format has one model per answer."""
    every = (usage, *(other for _, other in usage.others))
    prompt = sum(one.prompt for one in every)
    completion = sum(one.completion for one in every)
    details: Node = {
        "cached_tokens": sum(one.cache_shown for one in every),
        "audio_tokens": usage.audio_in,
    }
    written = sum(one.cache_write + one.cache_write_1h for one in every)
    if written:
        details["cache_write_tokens"] = written
    if usage.image_in:
        details["image_tokens"] = usage.image_in
    outs: Node = {
        "reasoning_tokens": sum(one.reasoning for one in every),
        "audio_tokens": usage.audio_out,
        "accepted_prediction_tokens": usage.accepted_prediction,
        "rejected_prediction_tokens": usage.rejected_prediction,
    }
    if usage.image_out:
        outs["image_tokens"] = usage.image_out
    node: Node = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": outs,
    }
    if usage.server_tools:
        node["server_tool_use"] = dict(usage.server_tools)
    return node


def call_tree(id_: str, name: str, arguments: str, kind: str, signature: str | None) -> Node:
    """A tool call, whole, or its first delta with what arguments there are."""
    node: Node = {"id": id_, "type": kind}
    if kind == "custom":
        node["custom"] = {"name": name, "input": arguments}
    else:
        node["function"] = {"name": name, "arguments": arguments}
    if signature:
        node["extra_content"] = {"google": {"thought_signature": signature}}
    return node


def detail_tree(thought: Thought, index: int) -> Node:
    """A sealed thinking block as an entry of `reasoning_details`, for exact replay."""
    node: Node
    if thought.data:
        node = {"type": "reasoning.encrypted", "data": thought.data}
    else:
        node = {"type": "reasoning.text", "text": thought.text, "signature": thought.signature}
    node["format"] = thought.format
    node["index"] = index
    return node


def picture_tree(picture: Picture) -> Node:
    """An image of the answer as an entry of `images`, an extension that servers of this format share."""
    return {"type": "image_url", "image_url": {"url": f"data:{picture.media_type};base64,{picture.data}"}}


def annotation_tree(cited: Cited, length: int) -> Node | None:
    """A citation with an address as `url_citation`; where it says no place, the text so far. None for the others."""
    value = cited.value
    url = value.get("url")
    if type(url) is not str or not url:
        return None
    start, end = (value.get(name, value.get(f"{name}_index")) for name in ("start", "end"))
    title = value.get("title")
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": start if type(start) is int else 0,
            "end_index": end if type(end) is int else length,
            "title": title if type(title) is str else "",
            "url": url,
        },
    }


def error_tree(error: ProxyError, request_id: str) -> Node:
    """The error envelope: its four keys, and what else of the provider's own error its clients use."""
    node: Node = {
        "message": f"{error.message} (request id: {request_id})" if request_id else error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if isinstance(error, UpstreamFailure):
        for name, value in error.extra.items():
            node.setdefault(name, value)
    return {"error": node}


def error_frame(error: ProxyError, request_id: str) -> bytes:
    """The error inside a stream; no `[DONE]` follows it."""
    return b"data: " + tree.encode(error_tree(error, request_id)) + b"\n\n"
