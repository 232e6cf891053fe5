"""Which usage a request is billed by, however it ended: the one table of decision 7, and when upstream's word counts.

Pure and small on purpose: whatever aborts a request, the exchange asks here and nowhere else.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.ir.usage import MOST, Usage

End = Literal["ok", "client_gone", "upstream_error", "timeout", "rejected"]
State = Literal["ok", "client_gone", "failed_after_content", "timeout", "failed_before_content", "rejected"]
Basis = Literal["upstream", "counted", "nothing"]

# (state, upstream's usage was seen, something reached the client) → what is billed.
# A departed client pays for what it caused, so a usage that upstream stated counts even before the first byte: leaving
# early must not be a way to free answers. A failure that delivered nothing is free, whatever upstream reckons.
POLICY: Final[dict[tuple[State, bool, bool], Basis]] = {
    ("ok", True, True): "upstream",
    ("ok", True, False): "upstream",
    ("ok", False, True): "counted",
    ("ok", False, False): "nothing",
    ("client_gone", True, True): "upstream",
    ("client_gone", True, False): "upstream",
    ("client_gone", False, True): "counted",
    ("client_gone", False, False): "nothing",
    ("failed_after_content", True, True): "upstream",
    ("failed_after_content", True, False): "nothing",
    ("failed_after_content", False, True): "counted",
    ("failed_after_content", False, False): "nothing",
    ("timeout", True, True): "upstream",
    ("timeout", True, False): "nothing",
    ("timeout", False, True): "counted",
    ("timeout", False, False): "nothing",
    ("failed_before_content", True, True): "nothing",
    ("failed_before_content", True, False): "nothing",
    ("failed_before_content", False, True): "nothing",
    ("failed_before_content", False, False): "nothing",
    ("rejected", True, True): "nothing",
    ("rejected", True, False): "nothing",
    ("rejected", False, True): "nothing",
    ("rejected", False, False): "nothing",
}

CONTEXT: Final = 10_000_000  # tokens: the largest context window any model offers
SLACK: Final = 1_000_000  # tokens a provider may add unseen: what its own tools read, compactions, a cached context
PER_BYTE: Final = 4  # tokens a byte of the body can at most mean; ordinary text has a quarter of one
# Top-level names that make a short body stand for a long context kept elsewhere.
_ELSEWHERE: Final = ("previous_response_id", "conversation", "cachedContent", "cached_content", "container")


def aborted(end: End, *, known: bool, delivered: bool, content: bool | None = None) -> Basis:
    """What a request that ended so is billed by.

    `end` as the request line has it; `known`: upstream stated a usage that can be trusted; `delivered`: anything of the
    answer was handed to the client's connection; `content`: the answer had begun, by default the same.
    """
    if end == "upstream_error":
        begun = delivered if content is None else content
        return POLICY["failed_after_content" if begun else "failed_before_content", known, delivered]
    return POLICY[end, known, delivered]


def trusted(usage: Usage, ask: Ask) -> bool:
    """Whether upstream's usage can be what this request used (demand B5, fault U27); if not, count locally.

    False for negative counts, parts above any number of tokens there is, and a prompt that the body cannot hold, unless
    the body reaches for context kept elsewhere: media by address, stored conversations, server tools.
    """
    if not _possible(usage):
        return False
    if usage.others and not all(_possible(other) for _, other in usage.others):
        return False
    if usage.server_tools and not all(0 <= count <= MOST for count in usage.server_tools.values()):
        return False
    return usage.prompt <= PER_BYTE * ask.size + SLACK or reaches_out(ask)


def _possible(usage: Usage) -> bool:
    counts = (usage.prompt, usage.completion, usage.cache_read, usage.cache_write, usage.cache_write_1h)
    if usage.pieces is not None and not 0 <= usage.pieces.count <= CONTEXT:
        return False
    return min(counts) >= 0 and max(counts) <= CONTEXT


def reaches_out(ask: Ask) -> bool:
    """Whether the request draws on context that is not in its body."""
    if isinstance(ask.tree.get("prompt"), dict):  # a stored prompt; as text it is the body itself
        return True
    if any(ask.tree.get(name) for name in _ELSEWHERE) or any(tool.kind == "server" for tool in ask.tools):
        return True
    for turn in ask.turns:
        for part in turn.parts:
            pieces = part.parts if isinstance(part, ToolResult) else (part,)
            if any(isinstance(piece, Media) and not piece.text for piece in pieces):
                return True
    return False


def topped(usage: Usage, delivered: int) -> Usage:
    """An aborted stream's last usage with its output raised to what was delivered, counted locally.

    Some providers state the prompt first and the output only at the end: a stream cut between would cost one token of
    output however much was read. `delivered` in tokens; the source becomes "mixed" where it changes anything.
    """
    if usage.completion >= delivered:
        return usage
    return msgspec.structs.replace(usage, completion=delivered, source="mixed")
