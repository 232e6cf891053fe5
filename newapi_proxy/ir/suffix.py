"""Names of models that say how to reason: `NAME-high`, `NAME-thinking-2048`, `NAME-nothinking` (decision 15).

The shapes alone. Which families of names take which shape is their providers' knowledge (`Adapter.suffixes`): many a
model's own name ends in such a word.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from newapi_proxy.ir.ask import Controls, Thinking

_EFFORT: Final = re.compile(r"(.+)-(none|minimal|low|medium|high|xhigh)")
_THINKING: Final = re.compile(r"(.+)-(?:(nothinking)|thinking(?:-(\d{1,6}))?)")
SHARE: Final = (4, 5)  # of max_tokens that may be thought away where the name gives no number (relay-and-billing 10.2)


class Named(msgspec.Struct, frozen=True):
    """A name without its suffix, and what the suffix asks for."""

    model: str
    thinking: Thinking


def by_effort(name: str) -> Named | None:
    """`NAME-none`, -minimal, -low, -medium, -high, -xhigh."""
    found = _EFFORT.fullmatch(name)
    if found is None:
        return None
    word: Any = found[2]
    return Named(found[1], Thinking(effort=word, disabled=word == "none"))


def by_thinking(name: str) -> Named | None:
    """`NAME-thinking`, `NAME-thinking-TOKENS`, `NAME-nothinking`; the first leaves the amount to the model."""
    found = _THINKING.fullmatch(name)
    if found is None:
        return None
    if found[2] is not None:
        return Named(found[1], Thinking(disabled=True))
    if found[3] is not None:
        return Named(found[1], Thinking(budget=int(found[3]), disabled=int(found[3]) == 0))
    return Named(found[1], Thinking(adaptive=True))


def wished(controls: Controls, named: Thinking | None) -> Controls:
    """The controls with what the name asks for; what the request itself says about thinking wins."""
    if named is None or controls.thinking is not None:
        return controls
    if named.adaptive and controls.max_tokens:
        named = msgspec.structs.replace(named, budget=controls.max_tokens * SHARE[0] // SHARE[1])
    return msgspec.structs.replace(controls, thinking=named)
