"""What Gemini models take, by name: generation and kind. Knows names, sends nothing. Source: provider-translation B.2.

A name without a version is an alias of the newest, but for the few that are older than versions in names.
"""

from __future__ import annotations

import functools
import re
from typing import Final, Literal

import msgspec

from newapi_proxy.ir.suffix import Named, by_effort, by_thinking

Version = tuple[int, int]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One model's abilities.

    `thinking`: how it is asked for: by a budget in tokens, by a level, not at all. `off`: thinking can be switched off
    (a budget of 0), or down to its least level. `least`, `most`: bounds of a budget above 0. `json_schema`: takes plain
    JSON schemas. `json_with_tools`: JSON mode beside tools. `search_with_tools`: Google's search beside functions.
    `seals`: a turn's first call must carry a signature. `media_results`: media inside function responses; also, media
    resolution for each part, and results in one entry with what follows them. `validated`: knows the mode VALIDATED.
    `system`: takes a system instruction. `penalties`: takes frequency and presence penalties.
    """

    thinking: Literal["none", "budget", "level"] = "level"
    off: bool = True
    least: int = 0
    most: int = 24576
    json_schema: bool = True
    json_with_tools: bool = True
    search_with_tools: bool = True
    seals: bool = True
    media_results: bool = True
    validated: bool = True
    system: bool = True
    penalties: bool = True


_NEWEST: Final = (3, 0)
_NAMED: Final = re.compile(r"gemini-(?:[a-z]+-)*?(\d)(?:\.(\d))?(?!\d)")
_OLD: Final[tuple[tuple[str, Version], ...]] = (
    ("gemini-robotics", (2, 5)),  # counts its own versions
    ("gemini-exp-", (2, 0)),
    ("tunedmodels/", (1, 5)),
    ("learnlm", (2, 0)),
)
_FIRST: Final = frozenset({"gemini-pro", "gemini-pro-vision", "gemini-ultra"})
_NO_PENALTIES: Final = "gemini-2.5-pro-preview-06-05"


@functools.lru_cache(maxsize=1024)
def traits(model: str) -> Traits:
    """What is known of a model by its name."""
    name = model.lower().removeprefix("models/")
    version = _version(name)
    pro = "-pro" in name
    third = version >= (3, 0)
    thinking: Literal["none", "budget", "level"] = "level" if third else "budget" if version >= (2, 5) else "none"
    if "gemma" in name or "-image" in name or "-tts" in name:
        thinking = "none"
    return Traits(
        thinking=thinking,
        off=not pro,
        least=128 if pro else 512 if "-lite" in name else 0,
        most=32768 if pro else 24576,
        json_schema=version >= (2, 0),
        json_with_tools=third,
        search_with_tools=third,
        seals=third,
        media_results=third,
        validated=version >= (2, 5),
        system="gemma" not in name,
        penalties=not name.startswith(_NO_PENALTIES),
    )


def suffixed(model: str) -> Named | None:
    """A Gemini's name with its wish to think behind it: `-thinking-2048`, `-nothinking`, `-high` …"""
    found = by_thinking(model) or by_effort(model)
    return found if found is not None and found.model.startswith("gemini-") else None


def _version(name: str) -> Version:
    for prefix, version in _OLD:
        if name.startswith(prefix):
            return version
    if name in _FIRST:
        return (1, 0)
    if "gemma" in name:
        return (2, 0)
    found = _NAMED.search(name)
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST
