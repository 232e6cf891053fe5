"""The words that servers of the OpenAI chat format end an answer with, beside the five of the format itself.

Both sides of the format read them: the reader for its events, the surface where it passes a whole answer on. Source:
provider-translation A.1.2, B.8.
"""

from __future__ import annotations

from typing import Final

from newapi_proxy.ir.events import Finish

_WORDS: Final[dict[str, Finish]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "context_overflow",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "error": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
    "malformed_function_call": "error",
}


def understood(word: str) -> Finish:
    """What a server's word means; one that nobody knows just means that the answer has ended."""
    known = _WORDS.get(word) or _WORDS.get(word.lower())
    if known is None and word.lower().startswith("content_filter"):
        return "content_filter"
    return known or "stop"
