"""The body of a chat request to Cohere, version 2, and the controls that both versions take.

Pure. Source: provider-translation B.5.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from newapi_proxy.adapters._cohere_messages import Draft, messages
from newapi_proxy.adapters._tools import named
from newapi_proxy.adapters.base import Target, refuse_own
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Choice, Format, Thinking, Tool, Tree
from newapi_proxy.wire import tree

MOST_STOPS: Final = 5
MOST_K: Final = 500
_LEAST_P, _MOST_P = 0.01, 0.99
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 32768, "max": 32768}
_PLAIN: Final = re.compile(  # models that do not think; what is not known here is newer and does
    r"command(-light|-nightly)?(-\d.*)?|command-r.*|command-a-(03-2025|vision|translate).*|c4ai-.*|(tiny-)?aya.*"
)
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.logprobs")
_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
_HANDLED: Final = frozenset({"modalities", "seed", *_LOGPROBS, *_PENALTIES})
_REASONING: Final = {
    "anthropic": "thinking",
    "openai-responses": "reasoning.effort",
    "gemini": "generationConfig.thinkingConfig",
}
_OWN: Final = ("safety_mode", "documents", "citation_options")  # fields of this API that clients may send
_OPEN: Final = ("openai-chat", "openai-responses")
_SEVERAL: Final = {"gemini": "generationConfig.candidateCount"}
_JSON: Final = "Answer with one JSON object and nothing else: no text around it, no Markdown fence."


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A body and the names of what had to be dropped, in order."""

    body: Tree
    dropped: tuple[str, ...] = ()


def thinks(model: str) -> bool:
    """Whether the model takes and gives thinking."""
    return _PLAIN.fullmatch(model.lower()) is None


def emulated(ask: Ask) -> bool:
    """Whether JSON is asked for in words: beside tools the API knows no structured output."""
    return ask.controls.format is not None and bool(ask.tools)


def chat(ask: Ask, to: Target) -> Built:
    """The body for this ask. Raises Unsupported with the path of what cannot be expressed."""
    draft = Draft(thinks(to.model))
    refuse(ask)
    body: Tree = {"model": to.model, "messages": messages(ask, draft), "stream": ask.stream}
    _tools(ask, body, draft)
    wanted = ask.controls.format
    if wanted is not None and emulated(ask):
        body["messages"].insert(ask.leading(), {"role": "system", "content": words(wanted)})
    elif wanted is not None:
        body["response_format"] = {"type": "json_object"}
        if wanted.schema:
            body["response_format"]["json_schema"] = wanted.schema
    controls(ask, to, body, draft)
    if any(ask.controls.steering.get(name) for name in _LOGPROBS):
        body["logprobs"] = True
        draft.dropped += [name for name in ("top_logprobs",) if ask.controls.steering.get(name)]
    if ask.controls.thinking is not None:
        _think(ask, ask.controls.thinking, body, draft)
    _safety(ask, to, body)
    return Built(body=body, dropped=tuple(sorted(set(draft.dropped))))


# What changes the promise of the answer is refused, what only steers it is dropped (A.0.4).
def refuse(ask: Ask) -> None:
    """Raises Unsupported for a promise that no version keeps."""
    refuse_own(ask)
    if ask.controls.n != 1:
        raise Unsupported("Cohere gives one answer per request.", _SEVERAL.get(ask.dialect, "n"))
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported("Cohere answers in text only (modalities).", "modalities")


def words(wanted: Format) -> str:
    """Structured output asked for in words."""
    return f"{_JSON} The object must fit this JSON Schema:\n{tree.dumps(wanted.schema)}" if wanted.schema else _JSON


def _tools(ask: Ask, body: Tree, draft: Draft) -> None:
    if not ask.tools:
        return
    choice = ask.choice or Choice(mode="auto")
    tools = offered(ask)
    body["tools"] = [_tool(tool, draft) for tool in tools]
    if any(tool.strict for tool in tools):
        body["strict_tools"] = True
    if choice.mode == "none":
        body["tool_choice"] = "NONE"
    elif choice.mode in ("required", "named"):
        body["tool_choice"] = "REQUIRED"


def offered(ask: Ask) -> list[Tool]:
    """The tools that may be called; none of another kind, and none with a name that must be changed (B.0)."""
    choice = ask.choice or Choice(mode="auto")
    tools = [tool for tool in ask.tools if choice.allowed is None or tool.name in choice.allowed]
    if choice.mode == "named":
        tools = [tool for tool in tools if tool.name == choice.name]
    if choice.mode == "named" and not tools:
        raise Unsupported(f"tool_choice names {choice.name!r}, which is no tool of this request.", "tool_choice")
    for tool in tools:
        if tool.kind != "function":
            raise Unsupported(f"Cohere has no {tool.kind} tool like {tool.name!r} ({tool.path}).", tool.path or "tools")
        named(tool, "Cohere")
    return tools


def _tool(tool: Tool, draft: Draft) -> Tree:
    if tool.cache is not None:
        draft.dropped.append(f"{tool.path}.cache_control")
    function: Tree = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    schema = tool.schema or {}
    function["parameters"] = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    return {"type": "function", "function": function}


def controls(ask: Ask, to: Target, body: Tree, draft: Draft) -> None:
    """Sampling and limits, clamped to what this API takes, and the names of what it does not know."""
    given = ask.controls
    most = to.options.default_max_tokens if given.max_tokens is None else given.max_tokens
    if most is not None:
        body["max_tokens"] = most
    for name, field, value, low, high in (
        ("temperature", "temperature", given.temperature, 0, 1),
        ("top_p", "p", given.top_p, _LEAST_P, _MOST_P),
        ("top_k", "k", given.top_k, 0, MOST_K),
    ):
        if value is not None:
            body[field] = min(max(value, low), high)
            if body[field] != value:
                draft.dropped.append(f"{name}~")
    if given.stop:
        body["stop_sequences"] = list(given.stop[:MOST_STOPS])
    if len(given.stop) > MOST_STOPS:
        draft.dropped.append("stop_sequences~" if "stop_sequences" in ask.tree else "stop~")
    _steer(ask, body, draft)
    _rest(ask, draft)


def _steer(ask: Ask, body: Tree, draft: Draft) -> None:
    steering = ask.controls.steering
    for name in _PENALTIES:
        value = steering.get(name)
        if value is None:
            continue
        if value < 0:
            draft.dropped.append(name)
            continue
        body[name] = min(value, 1)
        if value > 1:
            draft.dropped.append(f"{name}~")
    seed = steering.get("seed")
    if seed is not None:
        body["seed"] = max(seed, 0)
        draft.dropped += ["seed~"] if seed < 0 else []
    draft.dropped += [
        name for name, value in steering.items() if name not in _HANDLED and value is not None and value is not False
    ]


def _rest(ask: Ask, draft: Draft) -> None:
    given = ask.controls
    anthropic = ask.dialect == "anthropic"
    if given.user is not None:
        draft.dropped.append("metadata.user_id" if anthropic else "user")
    if given.parallel_tools is False:
        draft.dropped.append("tool_choice.disable_parallel_tool_use" if anthropic else "parallel_tool_calls")
    if given.service_tier not in (None, "auto"):
        draft.dropped.append("service_tier")
    draft.dropped += [name for name in ask.unknown if name not in own(ask)]


def own(ask: Ask) -> Tree:
    """This API's own fields, as a client of the OpenAI formats sends them beside those of its format."""
    if ask.dialect not in _OPEN:
        return {}
    return {name: ask.tree[name] for name in _OWN if name in ask.unknown and ask.tree.get(name) is not None}


def _think(ask: Ask, wanted: Thinking, body: Tree, draft: Draft) -> None:
    off = wanted.disabled or wanted.effort == "none" or (wanted.budget == 0 and not wanted.adaptive)
    if not draft.thinks:
        draft.dropped += [] if off else [reasoning_name(ask)]
        return
    if off:
        body["thinking"] = {"type": "disabled"}
        return
    body["thinking"] = {"type": "enabled"}
    budget = wanted.budget if wanted.budget else _BUDGETS.get(wanted.effort or "")
    if budget is not None and budget > 0:
        body["thinking"]["token_budget"] = budget


def reasoning_name(ask: Ask) -> str:
    """What the client's format calls its wish to think."""
    return _REASONING.get(ask.dialect, "reasoning_effort")


# The channel's mode goes where the API takes one; a client's own word goes as it is.
def _safety(ask: Ask, to: Target, body: Tree) -> None:
    mode: Any = to.options.safety_mode
    fields = own(ask)
    if mode is not None and not body.get("tools") and "documents" not in fields:
        body["safety_mode"] = "OFF" if mode == "NONE" else mode
    body.update(fields)
