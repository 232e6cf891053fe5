"""A Responses request into an Ask: validation, tools, choice, controls, and what only steers.

Knows the fields of provider-translation A.4. Unknown fields are no error: they stay in the tree for providers of the
same format. What rests on a provider's stored state is listed as `own`: no other format can express it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Ask, Choice, Controls, Effort, Format, Text, Thinking, Tool, Turn
from newapi_proxy.surfaces._openai_fields import (
    Node,
    bad,
    cache_in,
    flag_in,
    list_of,
    number_in,
    object_in,
    object_of,
    text_in,
    text_of,
    whole_in,
)
from newapi_proxy.surfaces._responses_items import Items
from newapi_proxy.surfaces._responses_shapes import DIALECT, FAMILY
from newapi_proxy.surfaces.base import LONGEST_MODEL
from newapi_proxy.wire import tree

MOST_TOKENS: Final = (2**31 - 1) // 2
CHAT_FAMILY: Final = "openai"  # whose shape free-form tools have in the Ask
_EFFORTS: Final = frozenset(get_args(Effort))
_SEARCHES: Final = ("web_search", "web_search_preview")
_SEALED: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"

_Reading = Callable[[Node, str], object]

# what has a field of its own in the Ask, or is answered here
_HOMED: Final = frozenset(
    {"model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "temperature", "top_p"}
    | {"tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "user", "service_tier", "include"}
    | {"previous_response_id", "conversation", "prompt", "store", "background", "top_logprobs", "truncation"}
    | {"top_k"}  # an extension that this proxy takes in every format
)
# what only steers: the type it must have, where it has one
_STEERING: Final[dict[str, _Reading | None]] = {
    "context_management": None,
    "max_tool_calls": whole_in,
    "metadata": object_in,
    "moderation": None,
    "prompt_cache_key": text_in,
    "prompt_cache_options": object_in,
    "prompt_cache_retention": text_in,
    "safety_identifier": text_in,
}


def read(body: bytes, count_only: bool) -> Ask:
    """The Ask. Raises ClientError 400 with the path of the fault."""
    sent = tree.read(body)
    model = text_in(sent, "model") or ""
    if len(model) > LONGEST_MODEL:
        raise bad(f"model must not be longer than {LONGEST_MODEL} characters.", "model")
    stream = flag_in(sent, "stream") or False
    object_in(sent, "stream_options")
    bound = _bound(sent, stream)
    items = Items()
    bound = _said(sent, items, bound)
    steering, unknown = _rest(sent)
    tools = _tools(sent.get("tools"), "tools", steering)
    for more, place in items.tools:
        tools = _latest(tools, _tools(more, place, steering))
    return Ask(
        dialect=DIALECT,
        model=model,
        tree=sent,
        size=len(body),
        stream=stream and not count_only,
        usage_wanted=True,
        turns=tuple(items.turns),
        tools=tools,
        choice=_choice(sent),
        controls=_controls(sent, steering),
        count_only=count_only,
        unknown=unknown,
        own=(*bound, *items.bound),
        unnamed=not model,
    )


def _bound(sent: Node, stream: bool) -> tuple[str, ...]:
    """What needs a provider's own state: stored responses, conversations and prompts."""
    if flag_in(sent, "background") and not stream:
        raise ClientError(
            "background responses cannot be fetched through this server; ask for a stream, or without background.",
            type="invalid_request_error",
            code="unsupported_parameter",
            param="background",
        )
    text_in(sent, "previous_response_id")
    found = [name for name in ("previous_response_id", "conversation", "prompt", "background") if sent.get(name)]
    if flag_in(sent, "store"):
        found.append("store")
    return tuple(found)


def _included(sent: Node) -> list[str]:
    value = sent.get("include")
    if value is None:
        return []
    return [text_of(one, f"include.{number}") for number, one in enumerate(list_of(value, "include"))]


def _said(sent: Node, items: Items, bound: tuple[str, ...]) -> tuple[str, ...]:
    """The conversation: instructions first, then the input. What needs a provider's own state, a missing input too."""
    instructions = text_in(sent, "instructions")
    if instructions:
        text = Text(text=instructions, path="instructions")
        items.turns.append(Turn(role="system", parts=(text,), plain=True, path="instructions"))
    value = sent.get("input")
    if type(value) is str:
        items.turns.append(Turn(role="user", parts=(Text(text=value, path="input"),), plain=True, path="input"))
    elif value is not None:
        items.read(list_of(value, "input"))
    elif not {"previous_response_id", "conversation", "prompt"} & set(bound):
        if sent.get("model"):
            raise bad("input is required", "input")
        return (*bound, "input")  # who knows the model may know its words too
    return bound


def _rest(sent: Node) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What only steers, and the names that this proxy does not know."""
    steering: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in sent.items():
        if name in _HOMED:
            continue
        if name not in _STEERING:
            unknown.append(name)
        elif value is not None:
            check = _STEERING[name]
            if check is not None:
                check(sent, name)
            steering[name] = value
    if [one for one in _included(sent) if one not in (_SEALED, _LOGPROBS)]:
        steering["include"] = sent["include"]
    if whole_in(sent, "top_logprobs"):
        steering["top_logprobs"] = sent["top_logprobs"]
    elif _LOGPROBS in _included(sent):
        steering["logprobs"] = True
    if text_in(sent, "truncation") not in (None, "disabled"):
        steering["truncation"] = sent["truncation"]
    return steering, tuple(unknown)


def _tools(value: Any, place: str, steering: dict[str, Any]) -> tuple[Tool, ...]:
    if value is None:
        return ()
    out = []
    for number, item in enumerate(list_of(value, place)):
        path = f"{place}.{number}"
        node = object_of(item, path)
        kind = text_in(node, "type", f"{path}.") or "function"
        if kind.startswith(_SEARCHES):
            steering["web_search_options"] = _search(node)
        else:
            out.append(_tool(kind, node, path))
    return tuple(out)


def _latest(tools: tuple[Tool, ...], more: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Tools told later beside the earlier ones: other formats have one list of tools, with each name once."""
    if not more:
        return tools
    return tuple({tool.name: tool for tool in (*tools, *more)}.values())


def _search(node: Node) -> Node:
    """A web search as its wishes: the one hosted tool that other formats have an equal for (B.11)."""
    wishes = {
        name: node[name] for name in ("search_context_size", "user_location", "filters") if node.get(name) is not None
    }
    location = wishes.get("user_location")
    if type(location) is dict and "approximate" not in location:
        place = {name: one for name, one in location.items() if name != "type" and one is not None}
        wishes["user_location"] = {"type": "approximate", "approximate": place}
    return wishes


def _tool(kind: str, node: Node, path: str) -> Tool:
    if kind == "function":
        return Tool(
            name=text_of(node.get("name"), f"{path}.name"),
            description=text_in(node, "description", f"{path}."),
            schema=object_in(node, "parameters", f"{path}."),
            strict=flag_in(node, "strict", f"{path}."),
            cache=cache_in(node, f"{path}."),
            path=path,
        )
    if kind == "custom":
        return Tool(
            name=text_of(node.get("name"), f"{path}.name"),
            description=text_in(node, "description", f"{path}."),
            kind="custom",
            server={"type": "custom", "custom": _custom(node)},
            family=CHAT_FAMILY,
            path=path,
        )
    return Tool(name=kind, kind="server", server=node, family=FAMILY, path=path)


def _custom(node: Node) -> Node:
    """A free-form tool as chat completions write it: the grammar stands one level deeper there."""
    custom = {name: value for name, value in node.items() if name not in ("type", "cache_control")}
    form = custom.get("format")
    if type(form) is dict and form.get("type") == "grammar" and "grammar" not in form:
        rest = {name: value for name, value in form.items() if name != "type"}
        custom["format"] = {"type": "grammar", "grammar": rest}
    return custom


def _choice(sent: Node) -> Choice | None:
    value = sent.get("tool_choice")
    if value is None:
        return None
    if type(value) is str:
        if value not in ("auto", "none", "required"):
            raise bad("tool_choice must be none, auto, required or a named tool.", "tool_choice")
        word: Any = value
        return Choice(mode=word)
    node = object_of(value, "tool_choice")
    kind = text_in(node, "type", "tool_choice.") or "function"
    if kind == "allowed_tools":
        return _allowed(node)
    if kind in ("function", "custom"):
        return Choice(mode="named", name=text_of(node.get("name"), "tool_choice.name"))
    return Choice(mode="named", name=_hosted(kind))


def _hosted(kind: str) -> str:
    """A hosted tool is chosen by its type; the versions of a search are one tool."""
    return _SEARCHES[0] if kind.startswith(_SEARCHES) else kind


def _allowed(node: Node) -> Choice:
    mode = text_in(node, "mode", "tool_choice.") or "auto"
    if mode not in ("auto", "required"):
        raise bad("tool_choice.mode must be auto or required.", "tool_choice.mode")
    names = []
    for number, item in enumerate(list_of(node.get("tools"), "tool_choice.tools")):
        place = f"tool_choice.tools.{number}"
        tool = object_of(item, place)
        kind = text_in(tool, "type", f"{place}.") or "function"
        names.append(text_of(tool.get("name"), f"{place}.name") if kind in ("function", "custom") else _hosted(kind))
    return Choice(mode="required" if mode == "required" else "auto", allowed=tuple(names))


def _controls(sent: Node, steering: dict[str, Any]) -> Controls:
    tokens = whole_in(sent, "max_output_tokens")
    if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
        raise bad("max_output_tokens is invalid", "max_output_tokens")
    text = object_in(sent, "text") or {}
    verbosity = text_in(text, "verbosity", "text.")
    if verbosity is not None:
        steering["verbosity"] = verbosity
    return Controls(
        max_tokens=tokens,
        temperature=number_in(sent, "temperature"),
        top_p=number_in(sent, "top_p"),
        top_k=whole_in(sent, "top_k"),
        parallel_tools=flag_in(sent, "parallel_tool_calls"),
        format=_format(text, steering),
        thinking=_thinking(sent, steering),
        user=text_in(sent, "user") or steering.get("safety_identifier"),
        service_tier=text_in(sent, "service_tier"),
        steering=steering,
    )


def _format(text: Node, steering: dict[str, Any]) -> Format | None:
    node = object_in(text, "format", "text.")
    if node is None:
        return None
    path = "text.format."
    kind = text_in(node, "type", path)
    if kind == "json_object":
        return Format(kind="json_object")
    if kind == "json_schema":
        return Format(
            kind="json_schema",
            name=text_in(node, "name", path),
            schema=object_in(node, "schema", path),
            strict=flag_in(node, "strict", path),
            description=text_in(node, "description", path),
        )
    if kind != "text":
        steering["text.format"] = node
    return None


def _thinking(sent: Node, steering: dict[str, Any]) -> Thinking | None:
    """The effort; an unknown word stays steering. A wish for summaries alone asks for no more thinking."""
    node = object_in(sent, "reasoning")
    if node is None:
        return None
    effort: Any = text_in(node, "effort", "reasoning.")
    if effort is None:
        return None
    if effort not in _EFFORTS:
        steering["reasoning.effort"] = effort
        return None
    return Thinking(effort=effort, disabled=effort == "none")
