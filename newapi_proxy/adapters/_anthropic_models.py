"""What Claude models take, as data: a row says what is true from a version on. Knows names, sends nothing.

Source: provider-translation B.1. A name that says nothing (another vendor's model behind the same format) gets the
defaults, which every model of this format took at one time.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.ir.suffix import Named, by_effort, by_thinking

Version = tuple[int, int]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One model's abilities.

    `limit`: output tokens at most, None where unknown. `thinking`: how it is asked for. `xhigh`: knows that effort.
    `structured`: takes JSON schemas and strict tools. `sampling`: takes temperature, top_p, top_k; `both`: takes
    temperature and top_p together. `system_turns`: takes system messages between turns. `forcing`: a tool may be
    forced.
    """

    limit: int | None = None
    thinking: Literal["none", "budget", "adaptive"] = "budget"
    xhigh: bool = False
    structured: bool = False
    sampling: bool = True
    both: bool = True
    system_turns: bool = False
    forcing: bool = True


_ANY: Final[tuple[str, ...]] = ()
_ROWS: Final[tuple[tuple[tuple[str, ...], Version, dict[str, Any]], ...]] = (
    (_ANY, (0, 0), {"limit": 4096, "thinking": "none"}),
    (_ANY, (3, 5), {"limit": 8192}),
    (("sonnet",), (3, 7), {"limit": 64000, "thinking": "budget"}),
    (_ANY, (4, 0), {"limit": 32000, "thinking": "budget"}),
    (("sonnet",), (4, 0), {"limit": 64000}),
    (("opus",), (4, 1), {"structured": True, "both": False}),
    (_ANY, (4, 5), {"limit": 64000, "structured": True, "both": False}),
    (("opus", "sonnet"), (4, 6), {"thinking": "adaptive"}),
    (("opus",), (4, 6), {"limit": 128000}),
    (("opus",), (4, 7), {"sampling": False, "xhigh": True}),
    (_ANY, (5, 0), {"thinking": "adaptive", "sampling": False, "xhigh": True, "structured": True}),
    (("haiku",), (5, 0), {"thinking": "budget"}),
    (
        ("fable", "mythos"),
        (0, 0),
        {"limit": 64000, "thinking": "adaptive", "sampling": False, "xhigh": True, "structured": True},
    ),
    (("fable", "mythos"), (0, 0), {"forcing": False}),
)
# Models seen to obey system messages between turns; others of their class are reported to ignore them.
_SYSTEM_TURNS: Final = frozenset({("opus", (4, 8)), ("fable", (5, 0))})

_NEW: Final = re.compile(r"claude-([a-z]+)-(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_PREVIEW: Final = re.compile(r"claude-(fable|mythos)")
_OLD: Final = re.compile(r"claude-(?:v)?(\d)(?:[-.:](\d))?(?!\d)(?:-([a-z]+))?")


@functools.lru_cache(maxsize=1024)
def traits(model: str) -> Traits:
    """What is known of a model by its name, in any cloud's spelling."""
    named = _named(model)
    if named is None:
        return Traits()
    family, version = named
    facts: dict[str, Any] = {"system_turns": named in _SYSTEM_TURNS}
    for families, since, more in _ROWS:
        if version >= since and (not families or family in families):
            facts.update(more)
    return Traits(**facts)


def suffixed(model: str) -> Named | None:
    """A Claude's name with its wish to think behind it: `-thinking`, `-thinking-2048`, `-high` …"""
    found = by_thinking(model) or by_effort(model)
    return found if found is not None and _named(found.model) is not None else None


def _named(model: str) -> tuple[str, Version] | None:
    name = model.lower()
    found = _NEW.search(name)
    if found:
        return found[1], (int(found[2]), int(found[3] or 0))
    found = _OLD.search(name)
    if found:
        return found[3] or "", (int(found[1]), int(found[2] or 0))
    found = _PREVIEW.search(name)
    return (found[1], (0, 0)) if found else None
