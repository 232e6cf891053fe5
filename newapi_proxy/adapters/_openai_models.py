"""What OpenAI's own models take: the rules of provider-translation B.8 for o-series and GPT-5+ reasoning models.

Knows model names, and no more of them than their families: a name it does not recognise is left alone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from newapi_proxy.adapters._openai_draft import Draft, lower_tool_media
from newapi_proxy.ir.suffix import Named, by_effort

_O_SERIES: Final = re.compile(r"o\d+(-|$)")
_GPT: Final = re.compile(r"gpt-(\d+)(?:\.(\d+))?")
_SYSTEMLESS: Final = re.compile(r"o1-(mini|preview)")
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_OLD: Final = re.compile(r"(gpt-3|gpt-4|chatgpt-)")
_RESPONSES_ONLY: Final = re.compile(
    r"gpt-5(\.\d+)?-(codex|pro)(-|$)|codex-mini|o\d-pro(-|$)|o\d(-mini)?-deep-research|computer-use-"
)
_CHAT_ONLY: Final = re.compile(r"gpt-(4o|audio)\S*-?(audio|search)-?\S*|gpt-audio|o1-(mini|preview)|gpt-5-search")


@lru_cache(maxsize=1024)
def reasons(model: str) -> bool:
    """Whether the model is one of the reasoning families."""
    return bool(_O_SERIES.match(model)) or (_version(model) >= (5, 0) and "chat" not in model)


def takes_effort(model: str) -> bool:
    """Whether `reasoning_effort` may be sent: not to the families from before it."""
    return not _OLD.match(model)


def named(model: str) -> Named | None:
    """A reasoning model's name with its effort behind it, as in `o3-mini-high`; other families end so themselves."""
    found = by_effort(model)
    return found if found is not None and reasons(found.model) else None


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
    lower_tool_media(draft)
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


@lru_cache(maxsize=1024)
def responses_only(model: str) -> bool:
    """Whether the model is served by the Responses endpoint alone."""
    return bool(_RESPONSES_ONLY.match(model.rpartition("/")[2]))


@lru_cache(maxsize=1024)
def chat_only(model: str) -> bool:
    """Whether the model is not served by the Responses endpoint."""
    return bool(_CHAT_ONLY.match(model.rpartition("/")[2]))
