"""A Gemini request into an Ask: tools, choice, controls, and what only steers.

Knows the fields of provider-translation A.7. Unknown fields are no error: they stay in the tree for providers of the
same format and are named in `unknown` for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from newapi_proxy.ir.ask import Choice, Controls, Effort, Format, Thinking, Tool
from newapi_proxy.surfaces._gemini_fields import (
    Node,
    camel,
    fault,
    flag_in,
    get,
    list_in,
    number_in,
    object_in,
    object_of,
    text_in,
    texts_in,
    whole_in,
    within,
    word_in,
)
from newapi_proxy.surfaces._gemini_schema import json_schema
from newapi_proxy.surfaces._gemini_shapes import FAMILY

MOST_TOKENS: Final = (2**31 - 1) // 2
MOST_CHOICES: Final = 128
_CONFIG: Final = "generationConfig"
_KNOWN: Final = frozenset(
    {"model", "contents", "systemInstruction", "tools", "toolConfig", _CONFIG, "safetySettings", "cachedContent"}
    | {"labels", "serviceTier", "modelArmorConfig", "generateContentRequest"}
)
_SET: Final = frozenset(
    {"maxOutputTokens", "temperature", "topP", "topK", "candidateCount", "stopSequences", "seed", "presencePenalty"}
    | {"frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "thinkingConfig"}
    | {"responseJsonSchema", "responseModalities", "mediaResolution", "speechConfig", "imageConfig"}
)
_STEERING: Final[dict[str, tuple[str, Callable[[Node, str, str], Any]]]] = {
    "seed": ("seed", whole_in),
    "presencePenalty": ("presence_penalty", number_in),
    "frequencyPenalty": ("frequency_penalty", number_in),
    "mediaResolution": (f"{_CONFIG}.mediaResolution", text_in),
    "speechConfig": (f"{_CONFIG}.speechConfig", object_in),
    "imageConfig": (f"{_CONFIG}.imageConfig", object_in),
}
_EFFORTS: Final[dict[str, Effort]] = {"MINIMAL": "minimal", "LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
_TIERS: Final = {"standard": "default"}


def tools(given: Node, root: str) -> tuple[Tool, ...]:
    """Functions, and the server's own tools verbatim."""
    out: list[Tool] = []
    for number, value in enumerate(list_in(given, "tools", root)):
        path = within(root, f"tools.{number}")
        tool = object_of(value, path)
        for key, inner in tool.items():
            name = camel(key)
            if inner is None:
                continue
            if name != "functionDeclarations":
                place = f"{path}.{name}"
                out.append(Tool(name=name, kind="server", server={name: inner}, family=FAMILY, path=place))
                continue
            for at, declared in enumerate(list_in({name: inner}, name, path)):
                out.append(_function(declared, f"{path}.{name}.{at}"))
    return tuple(out)


def _function(value: Any, path: str) -> Tool:
    """A declared function; JSON Schema wins where both kinds of schema are given."""
    declared = object_of(value, path)
    name = text_in(declared, "name", path)
    if not name:
        raise fault(f"{path}.name", "a function's name is expected.")
    schema = object_in(declared, "parametersJsonSchema", path)
    parameters = object_in(declared, "parameters", path)
    if schema is None and parameters is not None:
        schema = json_schema(parameters)
    return Tool(name=name, description=text_in(declared, "description", path), schema=schema, path=path)


def choice(given: Node, root: str, offered: tuple[Tool, ...]) -> Choice | None:
    """Which function may or must be called; a list that must be called from does not forbid the server's tools."""
    config = object_in(given, "toolConfig", root) or {}
    path = within(root, "toolConfig.functionCallingConfig")
    calling = object_in(config, "functionCallingConfig", within(root, "toolConfig"))
    if calling is None:
        return None
    names = texts_in(calling, "allowedFunctionNames", path)
    # the filter goes over all tools alike elsewhere, so that the server's own must be in it
    allowed = (*names, *(one.name for one in offered if one.kind == "server")) if names else None
    match word_in(calling, "mode", path):
        case "":
            return None
        case "AUTO":
            return Choice(mode="auto")
        case "NONE":
            return Choice(mode="none")
        case "VALIDATED":
            return Choice(mode="auto", allowed=allowed)
        case "ANY" if len(names) == 1:
            return Choice(mode="named", name=names[0])
        case "ANY":
            return Choice(mode="required", allowed=allowed)
        case _:
            raise fault(f"{path}.mode", "one of AUTO, ANY, NONE and VALIDATED is expected.")


def controls(given: Node, root: str) -> Controls:
    """What steers generation."""
    path = within(root, _CONFIG)
    config = object_in(given, _CONFIG, root) or {}
    tokens = whole_in(config, "maxOutputTokens", path)
    if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
        raise fault(f"{path}.maxOutputTokens", "the number is out of range.")
    # proto3 knows no absence: 0 is what a client sends that has set nothing
    n = whole_in(config, "candidateCount", path)
    if n is not None and not 0 <= n <= MOST_CHOICES:
        raise fault(f"{path}.candidateCount", f"a number from 1 to {MOST_CHOICES} is expected.")
    tier = (text_in(given, "serviceTier", root) or "").lower()
    return Controls(
        max_tokens=tokens,
        temperature=number_in(config, "temperature", path),
        top_p=number_in(config, "topP", path),
        top_k=whole_in(config, "topK", path),
        stop=texts_in(config, "stopSequences", path),
        n=n or 1,
        format=_format(config, path),
        thinking=_thinking(config, path),
        service_tier=_TIERS.get(tier, tier) or None,
        steering=_steering(given, root, config, path),
    )


def _steering(given: Node, root: str, config: Node, path: str) -> dict[str, Any]:
    """Settings without a home of their own: under the common name where there is one, else under their path."""
    steering: dict[str, Any] = {}
    for name, (common, check) in _STEERING.items():
        value = check(config, name, path)
        if value is not None:
            steering[common] = value
    # a wish for log probabilities goes under the name that providers without them refuse (T-CORE-032)
    if flag_in(config, "responseLogprobs", path):
        steering["responseLogprobs"] = True
    elif whole_in(config, "logprobs", path) is not None:
        steering[f"{_CONFIG}.logprobs"] = whole_in(config, "logprobs", path)
    modalities = [one.lower() for one in texts_in(config, "responseModalities", path)]
    if any(one != "text" for one in modalities):
        steering["modalities"] = modalities
    settings = get(given, "safetySettings")
    if settings is not None:
        steering["safetySettings"] = list_in(given, "safetySettings", root)
    for name in ("labels", "modelArmorConfig"):
        value = object_in(given, name, root)
        if value is not None:
            steering[name] = value
    return steering


def _format(config: Node, path: str) -> Format | None:
    """JSON, with or without a schema. A schema without the type is Google's own to complain about."""
    kind = (text_in(config, "responseMimeType", path) or "").lower()
    schema = object_in(config, "responseJsonSchema", path)
    own = object_in(config, "responseSchema", path)
    if schema is None and own is not None:
        schema = json_schema(own)
    if kind == "application/json":
        return Format(kind="json_object") if schema is None else Format(kind="json_schema", schema=schema)
    return None


def _thinking(config: Node, path: str) -> Thinking | None:
    """Budget (0 none, -1 the model's own choice), level, or only the wish to see thoughts."""
    place = f"{path}.thinkingConfig"
    wish = object_in(config, "thinkingConfig", path)
    if wish is None:
        return None
    budget = whole_in(wish, "thinkingBudget", place)
    level = word_in(wish, "thinkingLevel", place)
    if level and level not in _EFFORTS:
        raise fault(f"{place}.thinkingLevel", "one of MINIMAL, LOW, MEDIUM and HIGH is expected.")
    seen = flag_in(wish, "includeThoughts", place)
    if level:
        return Thinking(effort=_EFFORTS[level], budget=budget if budget is not None and budget > 0 else None)
    # whoever wants to see thoughts wants some: here thinking is on by default, elsewhere it must be asked for
    if budget is None:
        return Thinking(adaptive=True) if seen else None
    return Thinking(budget=budget) if budget > 0 else Thinking(adaptive=budget < 0, disabled=budget == 0)


def own(given: Node, root: str) -> tuple[str, ...]:
    """Paths of what no other format has a like of: part of the prompt that Google keeps, an answer of another type."""
    config = object_in(given, _CONFIG, root) or {}
    found = [within(root, "cachedContent")] if text_in(given, "cachedContent", root) else []
    path = within(root, _CONFIG)
    kind = text_in(config, "responseMimeType", path)
    if kind and kind.lower() not in ("text/plain", "application/json"):
        found.append(f"{path}.responseMimeType")
    return tuple(found)


def unknown(given: Node, root: str) -> tuple[str, ...]:
    """Names that this proxy does not know: of the body, its settings and its tool settings."""
    config = object_in(given, _CONFIG, root) or {}
    calling = object_in(given, "toolConfig", root) or {}
    found = [within(root, camel(name)) for name in given if camel(name) not in _KNOWN]
    found += [within(root, f"{_CONFIG}.{camel(name)}") for name in config if camel(name) not in _SET]
    found += [within(root, f"toolConfig.{camel(name)}") for name in calling if camel(name) != "functionCallingConfig"]
    return tuple(found)
