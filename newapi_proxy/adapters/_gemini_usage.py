"""Gemini's usage as ours. Source: provider-translation A.0.3, rules 2, 4 and 5.

Thoughts are counted beside the candidates and are output; what tools put into the prompt is counted beside it and is
input. Numbers are untrusted, and those that are zero may be missing.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.ir.usage import MOST, Usage, clamped, counted

Tree = dict[str, Any]

_COUNTS: Final = (
    "promptTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "totalTokenCount",
)
_DETAILS: Final = ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails")


class Meter:
    """One answer's usage so far: every chunk tells totals, its fields replace those of the chunks before."""

    __slots__ = ("_counts", "_details")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._details: Tree = {}

    def take(self, told: Any) -> Usage | None:
        """The usage after this report; None where the report counts nothing or counts what cannot be."""
        if not isinstance(told, dict):
            return None
        fresh = {name: counted(told[name]) for name in _COUNTS if told.get(name) is not None}
        if not fresh or None in fresh.values():
            return None
        self._counts.update({name: number for name, number in fresh.items() if number is not None})
        self._details.update({name: told[name] for name in _DETAILS if isinstance(told.get(name), list)})
        return self._usage()

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
        ins, cached, outs = (_modalities(self._details.get(name)) for name in _DETAILS)
        return clamped(
            Usage(
                prompt=prompt,
                completion=completion,
                reasoning=reasoning,
                cache_read=count.get("cachedContentTokenCount", 0),
                audio_in=max(0, ins.get("AUDIO", 0) - cached.get("AUDIO", 0)),
                image_in=max(0, ins.get("IMAGE", 0) - cached.get("IMAGE", 0)),
                audio_out=outs.get("AUDIO", 0),
                image_out=outs.get("IMAGE", 0),
            )
        )


def _modalities(details: Any) -> dict[str, int]:
    """Tokens by modality; an entry without a count counts nothing."""
    out: dict[str, int] = {}
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict) and isinstance(one.get("modality"), str):
            out[one["modality"]] = counted(one.get("tokenCount")) or 0
    return out
