"""The body of a Messages request, from an ask of any format: controls, tools, structured output, thinking.

Pure; shared by every host of this format. Source: provider-translation B.1, decision 14.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from newapi_proxy.adapters._anthropic_messages import (
    FAMILY,
    MARKS,
    SIGNED,
    Draft,
    all_blocks,
    conversation,
    keep_last_marks,
    marked,
)
from newapi_proxy.adapters._anthropic_models import Traits, traits
from newapi_proxy.adapters._schema import closed
from newapi_proxy.adapters._tools import named
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Effort, Format, Reasoning, Thinking, Tool, Tree
from newapi_proxy.wire import tree

DEFAULT_MAX_TOKENS: Final = 8192
_LEAST_BUDGET: Final = 1024
_BUDGETS: Final[dict[Effort, int]] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 32768,
}
_EFFORTS: Final = ((2048, "low"), (8192, "medium"), (24576, "high"))  # budget up to → effort (B.11)
_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_HANDLED: Final = ("web_search_options", "modalities", "safety_identifier")
_REASONING: Final = {"openai-responses": "reasoning.effort", "gemini": "generationConfig.thinkingConfig"}
_SEVERAL: Final = {"gemini": "generationConfig.candidateCount"}
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.responseLogprobs")
_UNCOUNTED: Final = frozenset(
    ("max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier")
)


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A body with the betas it needs and the names of what had to be dropped, in order."""

    body: Tree
    betas: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def native(ask: Ask, model: str) -> Tree:
    """The client's own body for an upstream of the same format: another model name, nothing else.

    Thinking that no Claude model signed is taken out: upstream answers 400 to it (T-ANTH-038).
    """
    body = {**ask.tree, "model": model}
    thoughts = [part for turn in ask.turns for part in turn.parts if isinstance(part, Reasoning)]
    own = {part.signature or part.data for part in thoughts if part.format == SIGNED}
    messages = [_signed(message, own - {None}) for message in ask.tree["messages"]]
    if any(one is not other for one, other in zip(messages, ask.tree["messages"], strict=True)):
        body["messages"] = [message for message in messages if message["content"]]
    if ask.controls.thinking is not None and "thinking" not in body and "output_config" not in body:
        _suffixed(ask, body, model)
    return body


def countable(body: Tree) -> Tree:
    """The body as token counting takes it: nothing that only steers the answer."""
    return {name: value for name, value in body.items() if name not in _UNCOUNTED}


def emulated(ask: Ask, model: str) -> bool:
    """Whether JSON is asked of a model that has no mode for it: by words, and a fence around the answer goes."""
    wanted = ask.controls.format
    return wanted is not None and not (wanted.kind == "json_schema" and wanted.schema and traits(model).structured)


def translated(ask: Ask, model: str, options: Any) -> Built:
    """The body for an ask of another format. Raises Unsupported with the path of what cannot be expressed."""
    draft = Draft(traits(model), getattr(options, "thinking_as_text", False))
    _refuse(ask)
    system, messages = conversation(ask, draft)
    tools = _tools(ask, draft)
    body: Tree = {"model": model, "max_tokens": _max_tokens(ask, draft.traits, options)}
    if ask.controls.format is not None:
        _format(ask.controls.format, body, system, draft, options)
    if system:
        body["system"] = system
    body["messages"] = messages
    if tools:
        body["tools"] = tools
        _choose(ask, body, draft)
    _think(ask, body, draft)
    _sample(ask, body, draft)
    _rest(ask, body, draft)
    room = MARKS - ("cache_control" in body)
    keep_last_marks([*tools, *system, *all_blocks(messages)], room)
    if ask.stream:
        body["stream"] = True
    dropped = tuple(sorted(set(draft.dropped)))
    if dropped and options.strict_params:
        raise Unsupported(f"Anthropic takes no {dropped[0].rstrip('~')}.", dropped[0].rstrip("~"))
    return Built(body=body, betas=tuple(dict.fromkeys(draft.betas)), dropped=dropped)


def _suffixed(ask: Ask, body: Tree, model: str) -> None:
    """Thinking that the model's name asked for (decision 15): with it upstream takes no sampling settings."""
    _think(ask, body, Draft(traits(model)))
    if body.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        for name in ("temperature", "top_p", "top_k"):
            body.pop(name, None)


# The message itself where nothing has to go, so that an untouched conversation is recognised by identity.
def _signed(message: Any, own: set[str | None]) -> Any:
    content = message["content"]
    if message["role"] != "assistant" or not isinstance(content, list):
        return message
    kept = [block for block in content if not _foreign(block, own)]
    return message if len(kept) == len(content) else {**message, "content": kept}


def _foreign(block: Tree, own: set[str | None]) -> bool:
    match block["type"]:
        case "thinking":
            return block.get("signature") not in own
        case "redacted_thinking":
            return block.get("data") not in own
        case _:
            return False


# What changes the promise of the answer is refused, what only steers it is dropped (A.0.4).
def _refuse(ask: Ask) -> None:
    if ask.controls.n != 1:
        raise Unsupported("Anthropic gives one answer per request.", _SEVERAL.get(ask.dialect, "n"))
    for name in _LOGPROBS:
        if ask.controls.steering.get(name):
            raise Unsupported(f"Anthropic gives no log probabilities ({name}).", name)
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported("Anthropic answers in text only (modalities).", "modalities")


def _max_tokens(ask: Ask, known: Traits, options: Any) -> int:
    if ask.controls.max_tokens is not None:
        return ask.controls.max_tokens
    return options.default_max_tokens or known.limit or DEFAULT_MAX_TOKENS


# The instruction is the last block of `system`, behind what the operator of the client wrote and cached.
def _format(wanted: Format, body: Tree, system: list[Tree], draft: Draft, options: Any) -> None:
    if wanted.kind == "json_schema" and wanted.schema and draft.traits.structured:
        body["output_config"] = {"format": {"type": "json_schema", "schema": closed(wanted.schema)}}
        return
    if wanted.strict and wanted.kind == "json_schema" and options.strict_params:
        raise Unsupported("This Anthropic model has no strict structured output (response_format).", "response_format")
    words = "Answer with one JSON object and nothing else: no text around it, no Markdown fence."
    if wanted.schema:
        words += f" The object must fit this JSON Schema:\n{tree.dumps(wanted.schema)}"
    system.append({"type": "text", "text": words})


def _tools(ask: Ask, draft: Draft) -> list[Tree]:
    allowed = ask.choice.allowed if ask.choice else None
    tools = [_tool(tool, draft) for tool in ask.tools if allowed is None or tool.name in allowed]
    search = ask.controls.steering.get("web_search_options")
    if isinstance(search, dict):
        tools.append(_web_search(search, draft))
    return tools


def _tool(tool: Tool, draft: Draft) -> Tree:
    if tool.kind == "server" and tool.family == FAMILY and tool.server is not None:
        return dict(tool.server)
    if tool.kind != "function":
        raise Unsupported(f"Anthropic has no {tool.kind} tool like {tool.name!r} ({tool.path}).", tool.path)
    value: Tree = {"name": named(tool, "Anthropic")}
    if tool.description:
        value["description"] = tool.description
    schema = tool.schema or {}
    value["input_schema"] = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    if tool.strict and draft.traits.structured:
        value["input_schema"] = closed(value["input_schema"])
        value["strict"] = True
    elif tool.strict:
        draft.dropped.append(f"{tool.place}.strict")
    return marked(value, tool.cache)


def _web_search(options: Tree, draft: Draft) -> Tree:
    value: Tree = {"type": "web_search_20250305", "name": "web_search"}
    location = options.get("user_location")
    if isinstance(location, dict):
        place = location.get("approximate")
        value["user_location"] = {"type": "approximate", **(place if isinstance(place, dict) else location)}
    filters = options.get("filters")
    if isinstance(filters, dict):
        value |= {name: filters[name] for name in ("allowed_domains", "blocked_domains") if filters.get(name)}
    if options.get("search_context_size") is not None:
        draft.dropped.append("web_search_options.search_context_size")
    return value


# Without a choice of the client's none is sent; `disable_parallel_tool_use` needs one to stand in.
def _choose(ask: Ask, body: Tree, draft: Draft) -> None:
    choice = ask.choice
    value: Tree = {"type": "auto"}
    if choice is not None:
        if choice.mode in ("required", "named") and not draft.traits.forcing:
            if choice.mode == "named":
                raise Unsupported("This Anthropic model lets no tool be forced (tool_choice).", "tool_choice")
            draft.dropped.append("tool_choice~")
        elif choice.mode == "required":
            value = {"type": "any"}
        elif choice.mode == "named":
            value = {"type": "tool", "name": choice.name}
        elif choice.mode == "none":
            value = {"type": "none"}
    if ask.controls.parallel_tools is False and value["type"] != "none":
        value["disable_parallel_tool_use"] = True
    if choice is not None or len(value) > 1:
        body["tool_choice"] = value


def _think(ask: Ask, body: Tree, draft: Draft) -> None:
    wanted = ask.controls.thinking
    if wanted is None:
        return
    off = wanted.disabled or wanted.effort == "none" or (wanted.budget == 0 and not wanted.adaptive)
    match draft.traits.thinking:
        case "none":
            if not off:
                draft.dropped.append(_reasoning_name(ask))
        case "adaptive" if off:
            body["thinking"] = {"type": "disabled"}
        case "adaptive":
            body["thinking"] = _displayed({"type": "adaptive"}, wanted)
            effort = _effort(wanted, draft.traits)
            if effort is not None:
                body.setdefault("output_config", {})["effort"] = effort
        case _ if not off:
            _budget(ask, wanted, body, draft)


def _reasoning_name(ask: Ask) -> str:
    return _REASONING.get(ask.dialect, "reasoning_effort")


def _displayed(value: Tree, wanted: Thinking) -> Tree:
    return value if wanted.display is None else {**value, "display": wanted.display}


# Sending an effort that the model does not know is a 400, so the next stronger known one is sent.
def _effort(wanted: Thinking, known: Traits) -> str | None:
    effort: str | None = wanted.effort
    if effort is None and wanted.budget is not None and wanted.budget > 0:
        effort = next((word for most, word in _EFFORTS if wanted.budget <= most), "xhigh")
    if effort == "xhigh" and not known.xhigh:
        return "max"
    return "low" if effort == "minimal" else effort


# The budget counts against max_tokens, so there must be room for an answer behind it.
def _budget(ask: Ask, wanted: Thinking, body: Tree, draft: Draft) -> None:
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        draft.dropped.append(_reasoning_name(ask))  # upstream refuses to force a tool on a model that thinks
        return
    budget = wanted.budget if wanted.budget is not None and wanted.budget > 0 else _BUDGETS[wanted.effort or "medium"]
    limit = draft.traits.limit
    if limit is not None:
        budget = min(budget, limit - _LEAST_BUDGET)
    budget = max(budget, _LEAST_BUDGET)
    body["thinking"] = _displayed({"type": "enabled", "budget_tokens": budget}, wanted)
    body["max_tokens"] = max(body.get("max_tokens") or 0, budget + _LEAST_BUDGET)


# Thinking models take temperature 1 and a top_p near 1 only; some models take no sampling settings at all.
def _sample(ask: Ask, body: Tree, draft: Draft) -> None:
    controls = ask.controls
    thinking = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if controls.temperature is not None:
        temperature = min(max(controls.temperature, 0), 1)
        if not draft.traits.sampling or (thinking and temperature != 1):
            draft.dropped.append("temperature")
        else:
            body["temperature"] = temperature
            if temperature != controls.temperature:
                draft.dropped.append("temperature~")
    if controls.top_p is not None:
        beside = "temperature" in body and not draft.traits.both
        if not draft.traits.sampling or beside or (thinking and controls.top_p < 0.95):
            draft.dropped.append("top_p")
        else:
            body["top_p"] = controls.top_p
    if controls.top_k is not None:
        if not draft.traits.sampling or thinking:
            draft.dropped.append("top_k")
        else:
            body["top_k"] = controls.top_k


def _rest(ask: Ask, body: Tree, draft: Draft) -> None:
    controls = ask.controls
    stops = [stop for stop in controls.stop if stop.strip()]
    if stops:
        body["stop_sequences"] = stops
    named = controls.steering.get("safety_identifier")
    user = named if isinstance(named, str) else controls.user
    if user is not None:
        body["metadata"] = {"user_id": user}
    if controls.service_tier is not None:
        if controls.service_tier in _TIERS:
            body["service_tier"] = _TIERS[controls.service_tier]
        else:
            draft.dropped.append("service_tier")
    for name, value in controls.steering.items():
        if name == "prompt_cache_retention" and value == "24h":
            body["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
        elif value is not None and value is not False and name not in _HANDLED:
            draft.dropped.append(name)
    draft.dropped += ask.unknown
