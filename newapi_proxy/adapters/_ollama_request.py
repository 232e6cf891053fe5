"""The bodies of /api/chat and, for prompts without a conversation, /api/generate. Pure.

Source: provider-translation B.4.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from newapi_proxy.adapters._ollama_messages import Draft, instruct, messages
from newapi_proxy.adapters._tools import named
from newapi_proxy.adapters.base import Target, refuse_own
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Choice, Format, Text, Thinking, Tool, Tree

MOST_ALTERNATIVES: Final = 20
_OPTIONS: Final = {  # what steers here too, under which name
    "seed": "seed",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repeat_penalty",
}
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.logprobs")
_WORDS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_BUDGETS: Final = ((2048, "low"), (8192, "medium"), (24576, "high"))  # tokens up to → level
_OWN: Final = ("options", "keep_alive")  # fields of this API that a client of the OpenAI formats may send
_OPEN: Final = ("openai-chat", "openai-responses", "openai.completions")
_SEVERAL: Final = {"gemini": "generationConfig.candidateCount"}  # what a format calls the number of answers
_SUFFIX: Final = "suffix"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A body and the names of what had to be dropped, in order."""

    body: Tree
    dropped: tuple[str, ...] = ()


def chat(ask: Ask, to: Target) -> Built:
    """The body for this ask. Raises Unsupported with the path of what cannot be expressed."""
    draft = Draft()
    refuse_own(ask)
    _refuse(ask)
    body: Tree = {"model": to.model, "messages": messages(ask, draft), "stream": ask.stream}
    _tools(ask, body, draft)
    if ask.controls.format is not None:
        body["format"] = _format(ask.controls.format)
    if ask.controls.thinking is not None:
        body["think"] = _think(ask.controls.thinking, to.options.think_levels)
    return _finished(ask, to, body, draft)


def generate(ask: Ask, to: Target) -> Built:
    """The body for a prompt that is to be completed, and for what stands behind the gap. Raises Unsupported."""
    draft = Draft()
    refuse_own(msgspec.structs.replace(ask, own=tuple(name for name in ask.own if name != _SUFFIX)))
    _refuse(ask)
    prompt = "".join(part.text for turn in ask.turns for part in turn.parts if isinstance(part, Text))
    body: Tree = {"model": to.model, "prompt": prompt, "stream": ask.stream}
    if ask.tree.get(_SUFFIX):
        body[_SUFFIX] = ask.tree[_SUFFIX]
    return _finished(ask, to, body, draft)


def _finished(ask: Ask, to: Target, body: Tree, draft: Draft) -> Built:
    """What both bodies have."""
    _logprobs(ask, body, draft)
    settings = _settings(ask, to, draft)
    if settings:
        body["options"] = settings
    kept = _own(ask, "keep_alive")
    kept = to.options.keep_alive if kept is None else kept
    if kept is not None:
        body["keep_alive"] = kept
    _rest(ask, draft)
    return Built(body=body, dropped=tuple(sorted(set(draft.dropped))))


# What changes the promise of the answer is refused, what only steers it is dropped (A.0.4).
def _refuse(ask: Ask) -> None:
    if ask.controls.n != 1:
        raise Unsupported("Ollama gives one answer per request.", _SEVERAL.get(ask.dialect, "n"))
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported("Ollama answers in text only (modalities).", "modalities")


# No tool can be forced here: the list is cut to those that may be called, and the model is asked in words.
def _tools(ask: Ask, body: Tree, draft: Draft) -> None:
    choice = ask.choice or Choice(mode="auto")
    if not ask.tools or choice.mode == "none":
        return
    tools = [_tool(tool, draft) for tool in ask.tools if _allowed(tool, choice)]
    if choice.mode == "named":
        if not tools:
            raise Unsupported(f"tool_choice names {choice.name!r}, which is no tool of this request.", "tool_choice")
        instruct(body["messages"], f"Answer by calling the tool {choice.name}.")
    elif choice.mode == "required":
        instruct(body["messages"], "Answer by calling at least one of the tools.")
    if choice.mode in ("named", "required"):
        draft.dropped.append("tool_choice~")
    if tools:
        body["tools"] = tools


def _allowed(tool: Tool, choice: Choice) -> bool:
    if choice.mode == "named":
        return tool.name == choice.name
    return choice.allowed is None or tool.name in choice.allowed


def _tool(tool: Tool, draft: Draft) -> Tree:
    if tool.kind != "function":
        raise Unsupported(f"Ollama has no {tool.kind} tool like {tool.name!r} ({tool.path}).", tool.path or "tools")
    function: Tree = {"name": named(tool, "Ollama")}
    if tool.description:
        function["description"] = tool.description
    schema = tool.schema or {}
    function["parameters"] = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    if tool.strict:
        draft.dropped.append(f"{tool.place}.strict")
    if tool.cache is not None:
        draft.dropped.append(f"{tool.path}.cache_control")
    return {"type": "function", "function": function}


def _format(wanted: Format) -> Any:
    return wanted.schema if wanted.kind == "json_schema" and wanted.schema else "json"


# Many models know only on and off; those that know levels take the words.
def _think(wanted: Thinking, levels: bool) -> str | bool:
    if wanted.disabled or wanted.effort == "none" or (wanted.budget == 0 and not wanted.adaptive):
        return False
    if not levels:
        return True
    if wanted.effort in _WORDS:
        return _WORDS[wanted.effort]
    if wanted.budget is not None and wanted.budget > 0:
        return next((word for most, word in _BUDGETS if wanted.budget <= most), "max")
    return True


def _logprobs(ask: Ask, body: Tree, draft: Draft) -> None:
    wanted = {name: ask.controls.steering.get(name) for name in _LOGPROBS}
    if not any(wanted.values()):
        return
    body["logprobs"] = True
    numbers = [value for value in wanted.values() if type(value) is int]
    if numbers:
        body["top_logprobs"] = min(max(*numbers, 0), MOST_ALTERNATIVES)
        if body["top_logprobs"] != max(numbers):
            draft.dropped.append("top_logprobs~")


def _settings(ask: Ask, to: Target, draft: Draft) -> Tree:
    """`options`: the channel's, under the client's own object of that name, under its plain fields."""
    controls = ask.controls
    settings: Tree = {} if to.options.num_ctx is None else {"num_ctx": to.options.num_ctx}
    own = _own(ask, "options")
    settings |= own if isinstance(own, dict) else {}
    most = to.options.default_max_tokens if controls.max_tokens is None else controls.max_tokens
    given: Tree = {
        "num_predict": most,
        "temperature": controls.temperature,
        "top_p": controls.top_p,
        "top_k": controls.top_k,
        "stop": list(controls.stop) or None,
    }
    for name, value in controls.steering.items():
        if name in _OPTIONS:
            given[_OPTIONS[name]] = value
        elif name not in _LOGPROBS and name != "modalities" and value is not None and value is not False:
            draft.dropped.append(name)
    return settings | {name: value for name, value in given.items() if value is not None}


def _own(ask: Ask, name: str) -> Any:
    return ask.tree.get(name) if name in ask.unknown and ask.dialect in _OPEN else None


def _rest(ask: Ask, draft: Draft) -> None:
    controls = ask.controls
    anthropic = ask.dialect == "anthropic"
    if controls.user is not None:
        draft.dropped.append("metadata.user_id" if anthropic else "user")
    if controls.parallel_tools is False:
        draft.dropped.append("tool_choice.disable_parallel_tool_use" if anthropic else "parallel_tool_calls")
    if controls.service_tier not in (None, "auto"):
        draft.dropped.append("service_tier")
    draft.dropped += [name for name in ask.unknown if _own(ask, name) is None or name not in _OWN]
