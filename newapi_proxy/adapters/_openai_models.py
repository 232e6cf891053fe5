"""What OpenAI's own models take: the rules of provider-translation B.8 for o-series and GPT-5+ reasoning models.

Knows model names, and no more of them than their families: a name it does not recognise is left alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from newapi_proxy.adapters._openai_draft import Draft

_O_SERIES: Final = re.compile(r"o\d+(-|$)")
_GPT: Final = re.compile(r"gpt-(\d+)(?:\.(\d+))?")
_SYSTEMLESS: Final = re.compile(r"o1-(mini|preview)")
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_OLD: Final = re.compile(r"(gpt-3|gpt-4|chatgpt-)")


@lru_cache(maxsize=1024)
def reasons(model: str) -> bool:
    """Whether the model is one of the reasoning families."""
    return bool(_O_SERIES.match(model)) or (_version(model) >= (5, 0) and "chat" not in model)


def takes_effort(model: str) -> bool:
    """Whether `reasoning_effort` may be sent: not to the families from before it."""
    return not _OLD.match(model)


def _version(model: str) -> tuple[int, int]:
    found = _GPT.match(model)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _reasoning_on(model: str, effort: object) -> bool:
    """Whether this request reasons: 5.1 to 5.4 only when asked, the others unless told not to."""
    if effort is not None:
        return effort != "none"
    return not (5, 1) <= _version(model) <= (5, 4)


def fit(draft: Draft, model: str) -> None:
    """Fits the body to the model (T-OPEN-003 to 006)."""
    name = model.rpartition("/")[2]
    if not reasons(name):
        return
    draft.rename({"max_tokens": "max_completion_tokens"})
    effort = draft.body.get("reasoning_effort")
    if _reasoning_on(name, effort):
        for field in _SAMPLING:
            if draft.body.get(field) == (1 if field in ("temperature", "top_p") else 0):
                continue  # the default is not refused
            draft.drop(field)
    if effort == "minimal" and _version(name) >= (5, 6):
        draft.clamp("reasoning_effort", "low")
    if _SYSTEMLESS.match(name):
        draft.each(lambda one: one.update(role="user"), lambda one: one.get("role") in ("system", "developer"))
