"""Usage as servers of the OpenAI chat format report it, into the one record.

Source: provider-translation A.0.3 rules 1, 3, 4, 10. Numbers are untrusted: one that is no count voids the report.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.ir.usage import MOST, Usage, clamped, counted

Node = dict[str, Any]

_PROMPT: Final = ("prompt_tokens", "input_tokens")
_COMPLETION: Final = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS: Final = ("completion_tokens_details", "output_tokens_details")
_PLAIN: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_SHALLOW: Final = _PLAIN | {*_DETAILS}
_ZERO: Final[Node] = {}


def read_usage(value: Any) -> Usage | None:
    """The usage of an answer or a chunk; None where there is none or where its numbers make no sense.

    Cached tokens are inside `prompt_tokens` and stay there. A total above prompt and completion says that reasoning
    was counted beside the completion (xAI, Google): it becomes part of it.
    """
    if type(value) is not dict:
        return None
    plain = _plain(value)
    if plain is not None:
        return plain
    prompt, completion = _total(value, _PROMPT), _total(value, _COMPLETION)
    if prompt is None or completion is None:
        return None
    ins, outs = _part(value, _PROMPT_DETAILS), _part(value, _COMPLETION_DETAILS)
    reasoning = _count(outs, "reasoning_tokens")
    total = counted(value.get("total_tokens"))
    if total is not None and total > prompt + completion:
        reasoning = reasoning or total - prompt - completion
        completion = total - prompt
    if not prompt and not completion:
        return None
    if not reasoning and value.keys() <= _SHALLOW and not any(ins.values()) and not any(outs.values()):
        return Usage(prompt=prompt, completion=completion)
    cached = _cached(value, ins)
    usage = Usage(
        prompt=prompt,
        completion=completion,
        cache_read=cached,
        cache_told=cached if cached > prompt else 0,  # Grok on Azure leaves cached input out of its prompt
        cache_write=max(_count(ins, "cache_write_tokens"), _count(ins, "cache_creation_tokens")),
        audio_in=_count(ins, "audio_tokens"),
        image_in=_count(ins, "image_tokens"),
        reasoning=min(reasoning, completion),
        audio_out=_count(outs, "audio_tokens"),
        image_out=_count(outs, "image_tokens"),
        accepted_prediction=_count(outs, "accepted_prediction_tokens"),
        rejected_prediction=_count(outs, "rejected_prediction_tokens"),
        server_tools=_served(value.get("server_tool_use")),
    )
    return clamped(usage)


def _plain(value: Node) -> Usage | None:
    """The report of three counts that add up and no part of them, the commonest; None where it needs a closer look."""
    try:
        prompt, completion = value["prompt_tokens"], value["completion_tokens"]
        if value["total_tokens"] != prompt + completion or type(prompt) is not int or type(completion) is not int:
            return None
    except (KeyError, TypeError):
        return None
    if not (0 <= prompt <= MOST and 0 <= completion <= MOST and (prompt or completion)):
        return None
    if len(value) > 3:
        if not value.keys() <= _SHALLOW:
            return None
        for name in _DETAILS:
            parts = value.get(name)
            if type(parts) is dict and any(parts.values()):
                return None
    return Usage(prompt=prompt, completion=completion)


def _total(node: Node, names: tuple[str, ...]) -> int | None:
    """The count under the first name that is there: 0 for none, None for one that is no count."""
    for name in names:
        value = node.get(name)
        if value is not None:
            return counted(value)
    return 0


def _part(node: Node, names: tuple[str, ...]) -> Node:
    for name in names:
        value = node.get(name)
        if type(value) is dict:
            return value
    return _ZERO


def _count(node: Node, name: str) -> int:
    value = node.get(name)
    return 0 if value is None else counted(value) or 0


def _cached(node: Node, details: Node) -> int:
    """Cached input, under any of the names it has: OpenAI's, DeepSeek's, Mistral's, Moonshot's."""
    found = _count(details, "cached_tokens")
    for name in ("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"):
        found = max(found, _count(node, name))
    return found


def _served(value: Any) -> dict[str, int]:
    if type(value) is not dict:
        return {}
    counts = {name: counted(number) for name, number in value.items() if type(name) is str}
    return {name: number for name, number in counts.items() if number and number < MOST}
