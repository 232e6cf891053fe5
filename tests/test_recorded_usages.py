"""Two hundred usages as providers reported them, priced: to the unit what plain arithmetic on the report says.

`recorded_usages.jsonl` has one report a line, drawn from recorded traffic of public test suites under free licences:
the format, the provider's own usage object, and the units it costs at PRICES for a group of ratio RATIO. The sums here
use fractions, the provider's own names and nothing of the project; the project reads a whole answer with that usage.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Dialect
from newapi_proxy.billing.charge import charge
from newapi_proxy.billing.prices import book
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import fold
from newapi_proxy.wire.tree import Document

FACTS: Final = [
    orjson.loads(line) for line in (Path(__file__).parent / "recorded_usages.jsonl").read_bytes().splitlines()
]
MODEL: Final = "priced"
RATIO: Final = Fraction(4, 5)
PRICES: Final = {  # USD per million tokens
    "input": "2.5",
    "output": "10",
    "cache_read": "0.25",
    "cache_write": "3.125",
    "cache_write_1h": "5",
    "audio_input": "40",
    "audio_output": "80",
    "image_input": "3",
    "image_output": "30",
}
SEARCH: Final = Fraction(1, 100)  # USD a web search
Parts = dict[str, int]


def openai(usage: dict[str, Any]) -> Parts:
    """Cached and written tokens, sound and pictures are inside the totals; a larger total means unnamed reasoning."""
    ins = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outs = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    completion = max(completion, usage.get("total_tokens", 0) - prompt)
    names = ("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
    read = min(prompt, max(ins.get("cached_tokens") or 0, *(usage.get(name) or 0 for name in names)))
    written = min(prompt - read, ins.get("cache_write_tokens") or 0)
    heard = min(prompt - read - written, ins.get("audio_tokens") or 0)
    seen = min(prompt - read - written - heard, ins.get("image_tokens") or 0)
    said = outs.get("audio_tokens") or 0
    return {
        "input": prompt - read - written - heard - seen,
        "cache_read": read,
        "cache_write": written,
        "audio_input": heard,
        "image_input": seen,
        "audio_output": said,
        "output": completion - said,
    }


def anthropic(usage: dict[str, Any]) -> Parts:
    """Cached tokens stand beside the input; iterations that are no message are extra."""
    runs = usage.get("iterations") or []
    kinds = {run["type"] for run in runs}
    top = "fallback_message" if "fallback_message" in kinds else "message"
    parts = dict.fromkeys(PRICES, 0)
    for run in (usage, *(run for run in runs if run["type"] != top)):
        split = run.get("cache_creation") or {}
        hour = split.get("ephemeral_1h_input_tokens") or 0
        parts["input"] += run["input_tokens"]
        parts["cache_read"] += run.get("cache_read_input_tokens") or 0
        parts["cache_write"] += (run.get("cache_creation_input_tokens") or 0) - hour
        parts["cache_write_1h"] += hour
        parts["output"] += run["output_tokens"]
    return parts


def gemini(usage: dict[str, Any]) -> Parts:
    """Thoughts and what tools read stand beside the totals; cached sound and pictures count as cached."""

    def kinds(name: str, kind: str) -> int:
        return sum(one.get("tokenCount", 0) for one in usage.get(name) or () if one.get("modality") == kind)

    prompt = usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0)
    read = usage.get("cachedContentTokenCount", 0)
    heard = kinds("promptTokensDetails", "AUDIO") - kinds("cacheTokensDetails", "AUDIO")
    seen = kinds("promptTokensDetails", "IMAGE") - kinds("cacheTokensDetails", "IMAGE")
    said, drawn = kinds("candidatesTokensDetails", "AUDIO"), kinds("candidatesTokensDetails", "IMAGE")
    return {
        "input": prompt - read - heard - seen,
        "cache_read": read,
        "audio_input": heard,
        "image_input": seen,
        "output": usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0) - said - drawn,
        "audio_output": said,
        "image_output": drawn,
    }


def bedrock(usage: dict[str, Any]) -> Parts:
    """Cached tokens stand beside the input."""
    return {
        "input": usage["inputTokens"],
        "output": usage["outputTokens"],
        "cache_read": usage.get("cacheReadInputTokens", 0),
        "cache_write": usage.get("cacheWriteInputTokens", 0),
    }


def cohere(usage: dict[str, Any]) -> Parts:
    """What is billed; cached tokens at most so many."""
    billed = usage["billed_units"]
    prompt = int(billed.get("input_tokens", 0))
    read = min(prompt, int(usage.get("cached_tokens", 0)))
    return {"input": prompt - read, "cache_read": read, "output": int(billed.get("output_tokens", 0))}


SUMS: Final[dict[str, Callable[[dict[str, Any]], Parts]]] = {
    "openai-chat": openai,
    "openai-responses": openai,
    "anthropic-messages": anthropic,
    "gemini-generate": gemini,
    "bedrock-converse": bedrock,
    "cohere-chat-v2": cohere,
}


def by_hand(api: str, usage: dict[str, Any]) -> int:
    """Quota units: 500 000 are a dollar; one rounding, half up, at least one."""
    parts = SUMS[api](usage)
    assert min(parts.values()) >= 0
    dollars = sum(Fraction(PRICES[name]) * count / 10**6 for name, count in parts.items())
    dollars += SEARCH * ((usage.get("server_tool_use") or {}).get("web_search_requests") or 0)
    exact = dollars * RATIO * 500_000
    return max(floor(exact + Fraction(1, 2)), 1 if exact else 0)


TEXT: Final = [{"type": "text", "text": "Hi"}]
ANSWERS: Final[dict[str, tuple[str, int, Callable[[Any], dict[str, Any]]]]] = {  # provider, which of its formats, body
    "openai-chat": (
        "openai",
        0,
        lambda usage: {
            "id": "1",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"},
            ],
            "usage": usage,
        },
    ),
    "openai-responses": (
        "openai",
        1,
        lambda usage: {
            "id": "1",
            "status": "completed",
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
            "usage": usage,
        },
    ),
    "anthropic-messages": (
        "anthropic",
        0,
        lambda usage: {
            "id": "1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": TEXT,
            "stop_reason": "end_turn",
            "usage": usage,
        },
    ),
    "gemini-generate": (
        "gemini",
        0,
        lambda usage: {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": usage,
        },
    ),
    "bedrock-converse": (
        "bedrock",
        0,
        lambda usage: {
            "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
            "stopReason": "end_turn",
            "usage": usage,
        },
    ),
    "cohere-chat-v2": (
        "cohere",
        0,
        lambda usage: {
            "id": "1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": TEXT},
            "usage": usage,
        },
    ),
}


def by_project(api: str, usage: dict[str, Any]) -> int:
    """The same report inside a whole answer, read and charged by the project."""
    provider, which, body = ANSWERS[api]
    dialect: Dialect = ADAPTERS[provider].chat[which]
    ask = Ask(dialect=dialect.dialect, model=MODEL, tree={}, size=100)
    told = fold(dialect.answer(ask, Document(orjson.dumps(body(usage))))).usage
    assert told is not None
    prices = book({MODEL: PRICES, "*": PRICES})
    price = prices.find(MODEL)
    assert price is not None
    return charge(told, price, RATIO, prices.find).units


def test_there_are_two_hundred_of_every_kind() -> None:
    """Enough of them, of every format, and no two the same."""
    assert len(FACTS) >= 200
    assert {fact["api"] for fact in FACTS} == set(SUMS)
    assert len({orjson.dumps([fact["api"], fact["usage"]]) for fact in FACTS}) == len(FACTS)


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_a_recorded_usage_costs_what_hands_reckon(number: int) -> None:
    """Three ways to the same number of units: written down, by hand from the report, and by the project."""
    fact = FACTS[number]
    assert by_hand(fact["api"], fact["usage"]) == fact["units"]
    assert by_project(fact["api"], fact["usage"]) == fact["units"]
