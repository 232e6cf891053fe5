"""Mistral: the OpenAI format with a narrower request and typed content. Source: provider-translation B.8."""

from __future__ import annotations

import re
from typing import Any, Final

from newapi_proxy.adapters._openai_draft import Draft
from newapi_proxy.adapters._openai_endpoints import Place, edited, embeddings, moderations
from newapi_proxy.adapters._openai_media import Site, transcription
from newapi_proxy.adapters._tools import fitting_id
from newapi_proxy.adapters.base import Adapter, Target, join
from newapi_proxy.adapters.openai import OpenAIChat, Quirks, bearer, below
from newapi_proxy.ir.ask import Ask

Node = dict[str, Any]

_ID: Final = re.compile(r"[A-Za-z0-9]{9}")
_EFFORTS: Final = ("none", "high")
BETWEEN: Final = "OK."  # what stands between a tool's result and the user's next message


def _shape(draft: Draft, ask: Ask, to: Target) -> None:
    choice = draft.body.get("tool_choice")
    if choice == "required":
        draft.body["tool_choice"] = "any"
    _effort(draft, to.model)
    messages = draft.messages()
    for message in messages:
        _ids(message)
        content = message.get("content")
        if isinstance(content, list):
            message["content"] = [_part(part) for part in content]
        elif content is None and message.get("role") == "assistant" and not message.get("tool_calls"):
            message["content"] = message.get("refusal") or ""
        for name in ("refusal", "reasoning_content", "reasoning_details", "function_call"):
            message.pop(name, None)
    draft.body["messages"] = messages = _parted(messages)
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and not last.get("tool_calls"):
        last["prefix"] = True  # the model goes on where the client's text ends


def _effort(draft: Draft, model: str) -> None:
    """`none` and `high` are all there is; the older reasoning models have a prompt mode instead."""
    effort = draft.body.get("reasoning_effort")
    if effort is None:
        return
    if model.startswith("magistral"):
        del draft.body["reasoning_effort"]
        if effort != "none":
            draft.body["prompt_mode"] = "reasoning"
    elif effort not in _EFFORTS:
        draft.clamp("reasoning_effort", "none" if effort == "minimal" else "high")


def _ids(message: Node) -> None:
    """Call ids of nine letters and digits, the same for a call and its result."""
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [
            {**call, "id": fitting_id(str(call.get("id")), _ID, length=9)} for call in calls if isinstance(call, dict)
        ]
    if isinstance(message.get("tool_call_id"), str):
        message["tool_call_id"] = fitting_id(message["tool_call_id"], _ID, length=9)


def _part(part: Any) -> Any:
    """A PDF has a part of its own kind here."""
    file = part.get("file") if isinstance(part, dict) and part.get("type") == "file" else None
    if not isinstance(file, dict) or not isinstance(file.get("file_data"), str):
        return part
    document: Node = {"type": "document_url", "document_url": file["file_data"]}
    if file.get("filename") is not None:
        document["document_name"] = file["filename"]
    return document


def _parted(messages: list[Node]) -> list[Node]:
    """A user's or a system's message may not follow a tool's: a word of the assistant goes between."""
    out: list[Node] = []
    for message in messages:
        if out and out[-1].get("role") == "tool" and message.get("role") in ("user", "system"):
            out.append({"role": "assistant", "content": BETWEEN})
        out.append(message)
    return out


QUIRKS: Final = Quirks(
    renames={"max_completion_tokens": "max_tokens", "seed": "random_seed"},
    drops=(
        "logit_bias",
        "user",
        "store",
        "metadata",
        "service_tier",
        "stream_options",
        "verbosity",
        "prediction",
        "safety_identifier",
        "prompt_cache_retention",
    ),
    refuses=("logprobs", "top_logprobs", "audio"),
    developer=False,
    stream_usage=False,
    top_k=False,
)

ADAPTER: Final = Adapter(
    name="mistral",
    numbers=(42,),
    base_url="https://api.mistral.ai",
    chat=(OpenAIChat(quirks=QUIRKS, shape=_shape),),
    embeddings=embeddings(
        Place(url=below("/v1/embeddings"), auth=bearer),
        edited({"dimensions": "output_dimension", "encoding_format": ""}, ("user",)),
        tokens=False,
    ),
    moderations=moderations(Place(url=below("/v1/moderations"), auth=bearer)),
    transcription=transcription(Site(at=lambda to, path: join(to.base_url, f"/v1/{path}"), auth=bearer)),
    owner="mistralai",
)
