"""The body of a Converse request, from an ask of any format: controls, tools, structured output, thinking.

Pure. What Claude itself is told (thinking, sampling, forced tools) is asked of the Anthropic format's own builder, so
that the two ways to Claude cannot differ. Source: provider-translation B.6.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _anthropic_request as claude
from newapi_proxy.adapters._bedrock_messages import Draft, conversation, keep_last_points
from newapi_proxy.adapters._bedrock_models import known_betas, traits
from newapi_proxy.adapters._schema import closed
from newapi_proxy.adapters._tools import named
from newapi_proxy.adapters.anthropic import betas
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Choice, Controls, Format, Text, Thinking, Tool, Tree, Turn
from newapi_proxy.wire import tree

EXTRAS: Final = "additionalModelRequestFields"
FAMILY: Final = "bedrock"
_OWN: Final = (EXTRAS, "guardrailConfig", "performanceConfig", "serviceTier", "requestMetadata")
_TIERS: Final = frozenset({"default", "flex", "priority", "reserved"})
_EFFORTS: Final = ((2048, "low"), (8192, "medium"))  # budget up to → effort
_WORDS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_LOGPROBS: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.responseLogprobs")
_HANDLED: Final = frozenset({"modalities", "metadata", "web_search_options", *_LOGPROBS})
_REASONING: Final = {
    "anthropic": "thinking",
    "openai-responses": "reasoning.effort",
    "gemini": "generationConfig.thinkingConfig",
}
_USERS: Final = {"anthropic": "metadata.user_id"}
_PAIR: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
_PAIRS: Final = 16
_SILENT: Final = "Do not call any tool."
_JSON: Final = "Answer with one JSON object and nothing else: no text around it, no Markdown fence."


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A body and the names of what had to be dropped, in order."""

    body: Tree
    dropped: tuple[str, ...] = ()


def converse(ask: Ask, model: str, options: Any) -> Built:
    """The body for this ask. Raises Unsupported with the path of what cannot be expressed."""
    draft = Draft(traits(model))
    _refuse(ask)
    system, messages = conversation(ask, draft)
    body: Tree = {"messages": messages}
    extras: Tree = {}
    inference: Tree = {}
    forced = _steer(ask, model, options, inference, extras, draft)
    if ask.controls.format is not None:
        _format(ask.controls.format, body, system, draft)
    tools = _tools(ask, draft) or _remembered(messages)
    if tools:
        _choose(ask, body, system, tools, forced, draft)
    _rest(ask, body, extras, draft)
    if inference:
        body["inferenceConfig"] = inference
    if extras:
        body[EXTRAS] = extras
    keep_last_points((tools, system, *(one["content"] for one in messages)))
    if system and draft.traits.system:
        body = {"system": system, **body}
    elif system:
        messages[0]["content"] = system + messages[0]["content"]
    return Built(body=body, dropped=tuple(sorted(set(draft.dropped))))


# What changes the promise of the answer is refused, what only steers it is dropped (A.0.4).
def _refuse(ask: Ask) -> None:
    if ask.controls.n != 1:
        raise Unsupported("Bedrock gives one answer per request (n).", "n")
    for name in _LOGPROBS:
        if ask.controls.steering.get(name):
            raise Unsupported(f"Bedrock gives no log probabilities ({name}).", name)
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported("Bedrock answers in text only (modalities).", "modalities")


def _steer(ask: Ask, model: str, options: Any, inference: Tree, extras: Tree, draft: Draft) -> Choice | None:
    """Sampling and thinking, into where this model takes them; the tool choice that is left."""
    controls = ask.controls
    most = options.default_max_tokens if controls.max_tokens is None else controls.max_tokens
    if most is not None:
        inference["maxTokens"] = max(most, 1)
    if controls.stop:
        inference["stopSequences"] = [stop for stop in controls.stop if stop.strip()]
        if not inference["stopSequences"]:
            del inference["stopSequences"]
    if draft.traits.thinking == "claude":
        return _claude(ask, model, options, inference, extras, draft)
    for name, wanted, value in (
        ("temperature", "temperature", controls.temperature),
        ("topP", "top_p", controls.top_p),
    ):
        if value is not None:
            inference[name] = min(max(value, 0), 1)
            if inference[name] != value:
                draft.dropped.append(f"{wanted}~")
    if controls.top_k is not None:
        if draft.traits.top_k == "nested":
            extras["inferenceConfig"] = {"topK": controls.top_k}
        else:
            draft.dropped.append("top_k")
    if controls.thinking is not None:
        _think(ask, controls.thinking, inference, extras, draft)
    return _forced(ask.choice, draft)


def _claude(ask: Ask, model: str, options: Any, inference: Tree, extras: Tree, draft: Draft) -> Choice | None:
    """Claude's own fields, as the Anthropic format would have them for a request that is bare but for these."""
    given = ask.controls
    choice = ask.choice
    bare = Ask(
        dialect=ask.dialect,
        model=ask.model,
        tree={},
        size=0,
        turns=(Turn(role="user", parts=(Text(text="."),)),),
        tools=(Tool(name="t", schema={}),) if ask.tools else (),
        choice=choice and Choice(mode=choice.mode, name="t"),
        controls=Controls(
            max_tokens=given.max_tokens,
            temperature=given.temperature,
            top_p=given.top_p,
            top_k=given.top_k,
            thinking=given.thinking,
        ),
    )
    built = claude.translated(bare, model, options)
    draft.dropped += built.dropped
    extras.update((name, built.body[name]) for name in ("thinking", "output_config", "top_k") if name in built.body)
    named = known_betas(betas(ask, built.betas))
    if named:
        extras["anthropic_beta"] = named
    for name, wanted in (("temperature", "temperature"), ("topP", "top_p")):
        if wanted in built.body:
            inference[name] = built.body[wanted]
    if built.body.get("thinking", {}).get("type") == "enabled":
        inference["maxTokens"] = built.body["max_tokens"]  # the budget counts against it
    left = built.body.get("tool_choice", {}).get("type", "auto")
    return choice if choice is None or left != "auto" else Choice(mode="auto")


# Without thinking of its own kind a model is not told; what is on without asking cannot be turned off.
def _think(ask: Ask, wanted: Thinking, inference: Tree, extras: Tree, draft: Draft) -> None:
    off = wanted.disabled or wanted.effort == "none" or (wanted.budget == 0 and not wanted.adaptive)
    word = _effort(wanted)
    match draft.traits.thinking:
        case "effort" if not off:
            extras["reasoning_effort"] = word
        case "levels" if not off:
            extras["reasoning_config"] = "low" if word == "low" else "high"
        case "nova" if not off:
            extras["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": word}
            if word == "high":  # takes no limits beside it
                names = (("maxTokens", "max_tokens"), ("temperature", "temperature"), ("topP", "top_p"))
                draft.dropped += [told for name, told in names if inference.pop(name, None) is not None]
        case "nova":
            extras["reasoningConfig"] = {"type": "disabled"}
        case "effort":
            draft.dropped.append(_REASONING.get(ask.dialect, "reasoning_effort"))
        case _ if not off:
            draft.dropped.append(_REASONING.get(ask.dialect, "reasoning_effort"))


def _effort(wanted: Thinking) -> str:
    if wanted.effort in _WORDS:
        return _WORDS[wanted.effort]
    if wanted.budget is not None and wanted.budget > 0:
        return next((word for most, word in _EFFORTS if wanted.budget <= most), "high")
    return "medium"


# A family that knows no forced tools is left to choose, and the client is told.
def _forced(choice: Choice | None, draft: Draft) -> Choice | None:
    if choice is None or choice.mode in ("auto", "none") or choice.mode in draft.traits.forcing:
        return choice
    draft.dropped.append("tool_choice~")
    return Choice(mode="required") if "required" in draft.traits.forcing else Choice(mode="auto")


# The instruction is the last block of `system`, behind what the operator of the client wrote and cached.
def _format(wanted: Format, body: Tree, system: list[Tree], draft: Draft) -> None:
    if wanted.kind == "json_schema" and wanted.schema and draft.traits.schemas:
        schema: Tree = {"name": wanted.name or "response", "schema": tree.dumps(closed(wanted.schema))}
        if wanted.description:
            schema["description"] = wanted.description
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
        return
    words = _JSON
    if wanted.schema:
        words += f" The object must fit this JSON Schema:\n{tree.dumps(wanted.schema)}"
    system.append({"text": words})


def _tools(ask: Ask, draft: Draft) -> list[Tree]:
    allowed = ask.choice.allowed if ask.choice else None
    tools: list[Tree] = []
    for tool in ask.tools:
        if allowed is None or tool.name in allowed:
            tools.append(_tool(tool, draft))
            point = draft.point(tool.cache, "tools", tool.path)
            if point is not None:
                tools.append(point)
    if ask.controls.steering.get("web_search_options") is not None:
        if draft.traits.grounding:
            tools.append({"systemTool": {"name": "nova_grounding"}})
        else:
            draft.dropped.append("web_search_options")
    return tools


def _tool(tool: Tool, draft: Draft) -> Tree:
    if tool.kind != "function":
        raise Unsupported(f"Bedrock has no {tool.kind} tool like {tool.name!r} ({tool.path}).", tool.path)
    value: Tree = {"name": named(tool, "Bedrock")}
    if tool.description:
        value["description"] = tool.description
    schema = tool.schema or {}
    schema = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    if tool.strict and draft.traits.schemas:
        schema = closed(schema)
        value["strict"] = True
    elif tool.strict:
        draft.dropped.append(f"{tool.place}.strict")
    value["inputSchema"] = {"json": schema}
    return {"toolSpec": value}


# Tool blocks in the history want a tool list, also where the client sends none any more.
def _remembered(messages: list[Tree]) -> list[Tree]:
    names = [one["toolUse"]["name"] for message in messages for one in message["content"] if "toolUse" in one]
    schema = {"json": {"type": "object", "properties": {}}}
    return [{"toolSpec": {"name": name, "inputSchema": schema}} for name in dict.fromkeys(names)]


# `auto` is what all do unasked, and the families that cannot be forced do not even know the word.
def _choose(ask: Ask, body: Tree, system: list[Tree], tools: list[Tree], choice: Choice | None, draft: Draft) -> None:
    config: Tree = {"tools": tools}
    if choice is not None and choice.mode == "none":
        if not _remembered(body["messages"]):
            tools.clear()
            return
        system.append({"text": _SILENT})
        draft.dropped.append("tool_choice~")
    elif choice is not None and ask.tools:
        if choice.mode == "named":
            config["toolChoice"] = {"tool": {"name": choice.name}}
        elif choice.mode == "required":
            config["toolChoice"] = {"any": {}}
        elif draft.traits.forcing:
            config["toolChoice"] = {"auto": {}}
    if ask.controls.parallel_tools is False:
        own = ask.dialect == "anthropic"
        draft.dropped.append("tool_choice.disable_parallel_tool_use" if own else "parallel_tool_calls")
    body["toolConfig"] = config


def _rest(ask: Ask, body: Tree, extras: Tree, draft: Draft) -> None:
    controls = ask.controls
    if controls.user is not None:
        draft.dropped.append(_USERS.get(ask.dialect, "user"))
    if controls.service_tier in _TIERS:
        body["serviceTier"] = {"type": controls.service_tier}
    elif controls.service_tier not in (None, "auto"):
        draft.dropped.append("service_tier")
    metadata = controls.steering.get("metadata")
    if _fits(metadata):
        body["requestMetadata"] = metadata
    elif metadata:
        draft.dropped.append("metadata")
    for name, value in controls.steering.items():
        if value is not None and value is not False and name not in _HANDLED:
            draft.dropped.append(name)
    for name in ask.unknown:
        own = ask.tree.get(name)
        if name not in _OWN or not isinstance(own, dict):
            draft.dropped.append(name)
        elif name == EXTRAS:
            extras.update(own)
        else:
            body[name] = own
    if draft.traits.thinking == "claude" and controls.stop:  # which of them it was
        body["additionalModelResponseFieldPaths"] = ["/delta/stop_sequence" if ask.stream else "/stop_sequence"]


def _fits(metadata: Any) -> bool:
    """Whether these are pairs as this API takes them."""
    return (
        isinstance(metadata, dict)
        and 0 < len(metadata) <= _PAIRS
        and all(
            isinstance(value, str) and key and _PAIR.fullmatch(key) is not None and _PAIR.fullmatch(value) is not None
            for key, value in metadata.items()
        )
    )
