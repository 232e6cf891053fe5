"""Gemini's usage as ours. Source: provider-translation A.0.3, rules 2, 4 and 5.

Thoughts are counted beside the candidates and are output; what tools put into the prompt is counted beside it and is
input. Numbers are untrusted, and those that are zero may be missing.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.adapters._gemini_quick import Counts
from newapi_proxy.ir.usage import MOST, Usage, clamped, counted
from newapi_proxy.wire import tree

Tree = dict[str, Any]

_COUNTS: Final = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
)
_PLAIN: Final = frozenset(_COUNTS)
_DETAILS: Final = ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails")


class Meter:
    """One answer's usage so far: every chunk tells totals, its fields replace those of the chunks before."""

    __slots__ = ("_counts", "_details", "_parts", "_seen")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._details: Tree = {}
        self._seen = b""  # the last details that came the quick way
        self._parts = (0, 0, 0, 0)  # sound and pictures in, sound and pictures out

    def take(self, told: Any) -> Usage | None:
        """The usage after this report; None where the report counts nothing or counts what cannot be."""
        if not isinstance(told, dict):
            return None
        fresh: dict[str, int] = {}
        for name in _COUNTS:
            value = told.get(name)
            if value is not None:
                number = counted(value)
                if number is None:
                    return None
                fresh[name] = number
        if not fresh:
            return None
        self._counts = {**self._counts, **fresh}
        if not told.keys() <= _PLAIN:
            self._detail(told)
        return self._usage()

    def again(self, told: Tree) -> Usage | None:
        """The same for a report that differs from the last one in its numbers alone, none of them below zero."""
        if not told.keys() <= _PLAIN or max(told.values()) > MOST:
            return self.take(told)
        self._counts = {**self._counts, **told}
        return self._usage()

    def quick(self, told: Counts | None) -> Usage | None:
        """The same for a report that is known to be of believable counts."""
        if told is None:
            return None
        fresh: dict[str, int] = {}
        if told.promptTokenCount is not None:
            fresh["promptTokenCount"] = told.promptTokenCount
        if told.candidatesTokenCount is not None:
            fresh["candidatesTokenCount"] = told.candidatesTokenCount
        if told.thoughtsTokenCount is not None:
            fresh["thoughtsTokenCount"] = told.thoughtsTokenCount
        if told.totalTokenCount is not None:
            fresh["totalTokenCount"] = told.totalTokenCount
        if not fresh:
            return None
        self._counts = {**self._counts, **fresh}
        details = bytes(told.promptTokensDetails)
        if details != self._seen:
            self._seen = details
            self._detail({"promptTokensDetails": tree.lenient(details)})
        return self._usage()

    def _detail(self, told: Tree) -> None:
        """Keeps what the report says by modality; most chunks say the same again."""
        details = {name: told[name] for name in _DETAILS if isinstance(told.get(name), list)}
        if all(self._details.get(name) == one for name, one in details.items()):
            return
        self._details.update(details)
        ins, cached, outs = (_modalities(self._details.get(name)) for name in _DETAILS)
        sound, pictures = ins.get("AUDIO", 0) - cached.get("AUDIO", 0), ins.get("IMAGE", 0) - cached.get("IMAGE", 0)
        self._parts = max(0, sound), max(0, pictures), outs.get("AUDIO", 0), outs.get("IMAGE", 0)

    def _usage(self) -> Usage | None:
        """The record of what the fields so far say."""
        count = self._counts
        prompt = count.get("promptTokenCount", 0) + count.get("toolUsePromptTokenCount", 0)
        reasoning = count.get("thoughtsTokenCount", 0)
        completion = count.get("candidatesTokenCount", 0) + reasoning
        beside = count.get("totalTokenCount", 0) - prompt - completion
        if beside > 0:  # output that no field names was thought (rule 3)
            completion += beside
            reasoning += beside
        if not (prompt or completion) or max(prompt, completion) > MOST:
            return None
        read = count.get("cachedContentTokenCount", 0)
        if not read and self._parts == (0, 0, 0, 0):
            return Usage(prompt=prompt, completion=completion, reasoning=reasoning)
        sound_in, pictures_in, sound_out, pictures_out = self._parts
        return clamped(
            Usage(
                prompt=prompt,
                completion=completion,
                reasoning=reasoning,
                cache_read=read,
                audio_in=sound_in,
                image_in=pictures_in,
                audio_out=sound_out,
                image_out=pictures_out,
            )
        )


def _modalities(details: Any) -> dict[str, int]:
    """Tokens by modality; an entry without a count counts nothing."""
    out: dict[str, int] = {}
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict) and isinstance(one.get("modality"), str):
            out[one["modality"]] = counted(one.get("tokenCount")) or 0
    return out
