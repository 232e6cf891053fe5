"""Pieces of an OpenAI Responses answer: the response object, usage, ids, annotations, sealed reasoning.

Shared by the whole answer, the stream writer and the passer, so that the three cannot differ. Source:
provider-translation A.0.3, A.4.
"""

from __future__ import annotations

import re
from typing import Any, Final

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Cited, Finished
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces.base import Face

Node = dict[str, Any]

DIALECT: Final = "openai-responses"
FAMILY: Final = DIALECT  # whose items are replayed verbatim
OWN: Final = "openai-responses-v1"  # the format of reasoning that needs no label here
CALL: Final = "call"  # the label of a signature that belongs to the call behind it
LOCAL: Final = "rs_local"  # how ids of reasoning begin that no provider of this format has made
_LABELLED: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([sd])\.(.*)", re.DOTALL)
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID: Final = re.compile(r"resp_[A-Za-z0-9_-]{1,200}")
_CODES: Final = frozenset(  # that clients of the format know, beside those of a server's fault
    {"invalid_prompt", "bio_policy", "vector_store_timeout", "context_length_exceeded", "insufficient_quota"}
    | {"invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large"}
    | {"image_too_small", "image_parse_error", "image_content_policy_violation", "unsupported_image_media_type"}
)
_SEED: Final = 40  # characters of the request's id in an item's id; those of 64 and more are refused in a history


def sealed(format: str, signature: str | None, data: str | None) -> str:
    """A signature or payload as `encrypted_content`: another provider's carries its label and its kind in front."""
    if format == OWN:
        return data or signature or ""
    label = format if _LABEL.fullmatch(format) else "unknown"
    return f"{label}.d.{data}" if data else f"{label}.s.{signature}"


def unsealed(value: str) -> tuple[str, str | None, str | None]:
    """The opposite: format, signature, payload. Payloads of this format are base64 and hold no full stop."""
    found = _LABELLED.fullmatch(value)
    if found is None:
        return OWN, None, value
    label, kind, rest = found.groups()
    return (label, rest, None) if kind == "s" else (label, None, rest)


def seed(face: Face) -> str:
    """What all ids of this answer are made of: the request's id."""
    return "".join(letter for letter in face.id if letter.isalnum() and letter.isascii())[-_SEED:]


def response_id(given: str | None, face: Face) -> str:
    """Upstream's id where it is one of this format, else one that follows from the request's."""
    return given if given and _ID.fullmatch(given) else f"resp_{seed(face)}"


def usage_tree(usage: Usage) -> Node:
    """The usage object; sub-inferences are summed into it, since the format has one model per answer."""
    every = (usage, *(other for _, other in usage.others))
    prompt = sum(one.prompt for one in every)
    completion = sum(one.completion for one in every)
    node: Node = {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": sum(one.cache_shown for one in every),
            "cache_write_tokens": sum(one.cache_write + one.cache_write_1h for one in every),
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": sum(one.reasoning for one in every)},
        "total_tokens": prompt + completion,
    }
    if usage.server_tools:
        node["server_tool_use"] = dict(usage.server_tools)
    return node


def response_tree(ask: Ask, face: Face, id_: str, created: int) -> Node:
    """The response while it is in progress: what was asked is told back, as SDKs require."""
    sent = ask.tree if ask.dialect == DIALECT else {}
    reasoning, text = sent.get("reasoning") or {}, sent.get("text") or {}
    return {
        "id": id_,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": sent.get("instructions"),
        "max_output_tokens": sent.get("max_output_tokens"),
        "max_tool_calls": sent.get("max_tool_calls"),
        "model": face.model,
        "output": [],
        "parallel_tool_calls": _or(sent.get("parallel_tool_calls"), True),
        "previous_response_id": None,
        "prompt_cache_key": sent.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": sent.get("safety_identifier"),
        "store": False,
        "temperature": _or(sent.get("temperature"), 1.0),
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": _or(sent.get("tool_choice"), "auto"),
        "tools": sent.get("tools") or [],
        "top_logprobs": _or(sent.get("top_logprobs"), 0),
        "top_p": _or(sent.get("top_p"), 1.0),
        "truncation": _or(sent.get("truncation"), "disabled"),
        "usage": None,
        "user": sent.get("user"),
        "metadata": sent.get("metadata") or {},
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def ended(finished: Finished | None) -> Node:
    """`status` and what explains it, for a finish."""
    match finished.reason if finished else "stop":
        case "length" | "context_overflow":
            return {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        case "content_filter":
            return {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
        case "error":
            said = finished.detail if finished and finished.detail else "The provider failed to finish the answer."
            return {"status": "failed", "error": {"code": "server_error", "message": said}}
        case _:
            return {"status": "completed"}


def failed(error: ProxyError, request_id: str) -> Node:
    """The error as it stands in a response that failed."""
    message = f"{error.message} (request id: {request_id})" if request_id else error.message
    code = error.code if error.code in _CODES else "server_error"
    return {"code": "rate_limit_exceeded" if error.kind == "rate_limit" else code, "message": message}


def annotation(cited: Cited, base: int, length: int) -> Node | None:
    """A citation with an address as `url_citation`; None for what only another provider understands.

    `base`: where this text begins in the whole answer's, which citations count in; `length`: of the text so far.
    """
    value = cited.value
    if cited.family == FAMILY:
        return value
    url = value.get("url")
    if type(url) is not str or not url:
        return None
    start, end, title = value.get("start"), value.get("end"), value.get("title")
    return {
        "type": "url_citation",
        "start_index": max(0, start - base) if type(start) is int else 0,
        "end_index": max(0, end - base) if type(end) is int else length,
        "title": title if type(title) is str else "",
        "url": url,
    }
