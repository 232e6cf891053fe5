"""How much a Gemini model shall think, from efforts and budgets. Source: provider-translation B.2, B.11."""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.adapters._gemini_draft import Draft
from newapi_proxy.ir.ask import Ask, Effort, Thinking

Tree = dict[str, Any]

_LEVELS: Final[dict[Effort, str]] = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}
_BUDGETS: Final[dict[Effort, int]] = {"minimal": 512, "low": 1024, "medium": 8192}
_MOST_BUDGET: Final = 24576
_EFFORTS: Final[tuple[tuple[int, Effort], ...]] = ((2048, "low"), (8192, "medium"))  # a budget up to → effort
_NAMES: Final = {"openai-responses": "reasoning.effort", "anthropic": "thinking"}


def think(ask: Ask, config: Tree, draft: Draft) -> None:
    """Puts `thinkingConfig` into the generation config, where the client asks for anything and the model knows it."""
    wanted = ask.controls.thinking
    if wanted is None:
        return
    name = _NAMES.get(ask.dialect, "reasoning_effort")
    off = wanted.disabled or wanted.effort == "none" or (wanted.budget == 0 and not wanted.adaptive)
    value: Tree = {}
    if draft.traits.thinking == "none":
        draft.dropped += [] if off else [name]
        return
    if draft.traits.thinking == "level":
        value = _level(wanted, draft, name, off=off)
    else:
        value = _budget(wanted, draft, name, off=off)
    if not off:
        value["includeThoughts"] = wanted.display != "omitted"
    config["thinkingConfig"] = value


def _level(wanted: Thinking, draft: Draft, name: str, *, off: bool) -> Tree:
    """For models that think by level; a budget becomes the level that is nearest."""
    effort = wanted.effort
    if effort is None and wanted.budget:
        effort = next((word for most, word in _EFFORTS if wanted.budget <= most), "high")
    if off or effort == "minimal":
        draft.dropped += [] if draft.traits.off else [f"{name}~"]
        return {"thinkingLevel": "MINIMAL" if draft.traits.off else "LOW"}
    return {} if effort is None else {"thinkingLevel": _LEVELS.get(effort, "HIGH")}


def _budget(wanted: Thinking, draft: Draft, name: str, *, off: bool) -> Tree:
    """For models that think by budget; one that does not fit is brought inside, and told."""
    known = draft.traits
    if off:
        draft.dropped += [] if known.off else [f"{name}~"]
        return {"thinkingBudget": 0 if known.off else known.least}
    budget = wanted.budget
    if budget is None or budget <= 0:
        if wanted.effort is None:
            return {}
        return {"thinkingBudget": _BUDGETS.get(wanted.effort, _MOST_BUDGET)}
    fitting = min(max(budget, known.least), known.most)
    draft.dropped += [] if fitting == budget else [f"{name}~"]
    return {"thinkingBudget": fitting}
