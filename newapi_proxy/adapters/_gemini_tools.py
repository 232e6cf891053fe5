"""Tools and their choice as Gemini takes them: functions, Google's search, the modes of calling.

Source: provider-translation B.2, B.0; the built-in tools by a function's name: relay-and-billing 10.3.
"""

from __future__ import annotations

import re
from typing import Any, Final

from newapi_proxy.adapters._gemini_draft import DIALECT, Draft
from newapi_proxy.adapters._schema import openapi
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Choice, Tool

Tree = dict[str, Any]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_BUILT_IN: Final = ("googleSearch", "codeExecution")  # function names that mean the provider's own tool


def tools(ask: Ask, draft: Draft) -> list[Tree]:
    """The `tools`. Raises Unsupported with the path of a tool that cannot be told."""
    choice = ask.choice
    filtered = choice.allowed if choice is not None and choice.mode == "auto" else None
    functions: list[Tree] = []
    others: dict[str, Tree] = {}
    for tool in ask.tools:
        own = _own(tool)
        if own is not None:
            others.update(own)
            draft.dropped += _wishes(tool)
        elif filtered is None or tool.name in filtered:
            functions.append(_function(tool, draft))
    search = ask.controls.steering.get("web_search_options")
    if isinstance(search, dict):
        others["googleSearch"] = {}
        draft.dropped += [f"web_search_options.{name}" for name in search if search[name] is not None]
    if functions and others and not draft.traits.search_with_tools:
        path = next((tool.path for tool in ask.tools if _own(tool) is not None), "web_search_options")
        raise Unsupported(f"This {draft.quirks.name} model takes no {next(iter(others))} beside functions.", path)
    given = [{"functionDeclarations": functions}] if functions else []
    return given + [{name: value} for name, value in others.items()]


def choose(ask: Ask, draft: Draft) -> None:
    """`toolConfig`, where something must be said."""
    declared = any("functionDeclarations" in one for one in draft.body["tools"])
    config: Tree = {}
    if declared and (calling := _calling(ask, ask.choice, draft)):
        config["functionCallingConfig"] = calling
    if declared and len(draft.body["tools"]) > 1 and draft.quirks.invocations:
        # wanted where upstream's own tools stand beside functions
        config["includeServerSideToolInvocations"] = True
    if config:
        draft.body["toolConfig"] = config


def _calling(ask: Ask, choice: Choice | None, draft: Draft) -> Tree:
    """The mode of calling; {} where the model decides anyway."""
    if choice is None or choice.mode == "auto":
        strict = draft.traits.validated and any(tool.strict for tool in ask.tools)
        if strict:
            return {"mode": "VALIDATED"}
        return {} if choice is None else {"mode": "AUTO"}
    if choice.mode == "none":
        return {"mode": "NONE"}
    names = [choice.name] if choice.mode == "named" else list(choice.allowed or ())
    return {"mode": "ANY", "allowedFunctionNames": names} if names else {"mode": "ANY"}


def _own(tool: Tool) -> Tree | None:
    """The provider's own tool that this one means, None for a function."""
    if tool.kind == "function":
        return {tool.name: {}} if tool.name in _BUILT_IN else None
    if tool.kind == "server" and tool.family == DIALECT and tool.server is not None:
        return tool.server
    if tool.kind == "server" and tool.name.startswith("web_search"):
        return {"googleSearch": {}}
    raise Unsupported(f"Gemini has no {tool.kind} tool like {tool.name!r} ({tool.path}).", tool.path or "tools")


def _wishes(tool: Tool) -> list[str]:
    """The paths of what another provider's search was told beside its name: Google's takes no wishes (T-GEMI-050)."""
    if tool.kind != "server" or tool.family == DIALECT or tool.server is None:
        return []
    named = ("type", "name", "cache_control")
    return [f"{tool.place}.{name}" for name, value in tool.server.items() if name not in named and value is not None]


# Names are never rewritten: the client would not know its own tool again (B.0).
def _function(tool: Tool, draft: Draft) -> Tree:
    if tool.strict and not draft.traits.validated:
        draft.dropped.append(f"{tool.place}.strict")
    if not _NAME.fullmatch(tool.name):
        raise Unsupported(
            f"{draft.quirks.name} takes tool names that begin with a letter or _ only ({tool.place}.name).",
            f"{tool.place}.name",
        )
    value: Tree = {"name": tool.name, "description": tool.description or ""}
    schema = tool.schema
    if schema and draft.traits.json_schema:
        value["parametersJsonSchema"] = schema
    elif schema and schema.get("properties"):
        value["parameters"] = openapi(schema)
    return value
