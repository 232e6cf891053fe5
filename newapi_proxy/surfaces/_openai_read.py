"""An OpenAI chat request into an Ask: validation, tools, choice, controls, and what only steers.

Knows the fields of provider-translation A.1.1 and the checks of relay-and-billing 1.2. Unknown fields are no error:
they stay in the tree for providers of the same family and are named in `unknown` for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from newapi_proxy.ir.ask import Ask, Choice, Controls, Effort, Format, Thinking, Tool
from newapi_proxy.surfaces import _openai_parts
from newapi_proxy.surfaces._openai_fields import (
    Node,
    bad,
    cache_in,
    flag_in,
    list_of,
    model_in,
    number_in,
    object_in,
    object_of,
    text_in,
    text_of,
    usage_wanted,
    whole_in,
)
from newapi_proxy.wire import tree

DIALECT: Final = "openai-chat"
MOST_TOKENS: Final = (2**31 - 1) // 2  # the inherited bound of max_tokens
MOST_CHOICES: Final = 128
_EFFORTS: Final = frozenset(get_args(Effort))

_Reading = Callable[[Node, str], object]

# what has a field of its own in the Ask
_HOMED: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    | {"top_k", "stop", "n", "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls"}
    | {"response_format", "reasoning_effort", "reasoning", "thinking", "enable_thinking", "user", "service_tier"}
    | {"extra_body"}
)
# all that most requests say
_USUAL: Final = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
    | {"temperature", "top_p", "user"}
)
# what only steers: the type it must have, where it has one
_STEERING: Final[dict[str, _Reading | None]] = {
    "frequency_penalty": number_in,
    "presence_penalty": number_in,
    "repetition_penalty": number_in,
    "min_p": number_in,
    "seed": whole_in,
    "logit_bias": object_in,
    "logprobs": None,  # a number on some servers
    "top_logprobs": whole_in,
    "metadata": object_in,
    "modalities": None,
    "audio": object_in,
    "moderation": None,
    "prediction": object_in,
    "prompt_cache_key": text_in,
    "prompt_cache_retention": text_in,
    "prompt_cache_options": object_in,
    "safety_identifier": text_in,
    "store": flag_in,
    "verbosity": text_in,
    "web_search_options": object_in,
    "reasoning_format": text_in,
    "safety_settings": None,
    "google": object_in,
    "extra_content": object_in,
}


def read(body: bytes, path_model: str = "") -> Ask:
    """The Ask; the path's model fills a missing one. Raises ClientError 400 with the path of the fault."""
    sent = tree.read(body)
    if path_model and not sent.get("model"):
        sent = {**sent, "model": path_model}
    model = model_in(sent)
    messages = sent.get("messages")
    if not messages:
        raise bad("field messages is required", "messages")
    stream = (flag_in(sent, "stream") or False) if "stream" in sent else False
    if sent.keys() <= _USUAL:  # no tool, no format, no steering: nothing else can be wrong
        return Ask(
            dialect=DIALECT,
            model=model,
            tree=sent,
            size=len(body),
            stream=stream,
            usage_wanted="stream_options" in sent and usage_wanted(sent),
            turns=_openai_parts.turns(list_of(messages, "messages")),
            controls=Controls(
                max_tokens=_max_tokens(sent),
                temperature=number_in(sent, "temperature") if "temperature" in sent else None,
                top_p=number_in(sent, "top_p") if "top_p" in sent else None,
                user=(text_in(sent, "user") or None) if "user" in sent else None,
            ),
        )
    steering, unknown = _rest(sent)
    functions = sent.get("functions")
    legacy = functions is not None and sent.get("tools") is None
    tools = _functions(functions) if legacy else _tools(sent.get("tools"))
    return Ask(
        dialect=DIALECT,
        model=model,
        tree=sent,
        size=len(body),
        stream=stream,
        usage_wanted=usage_wanted(sent),
        turns=_openai_parts.turns(list_of(messages, "messages")),
        tools=tools,
        choice=_choice(sent, legacy),
        controls=_controls(sent, steering),
        legacy_functions=legacy,
        unknown=unknown,
    )


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
    return steering, tuple(unknown)


def _tools(value: Any) -> tuple[Tool, ...]:
    if value is None:
        return ()
    return tuple(_tool(item, f"tools.{number}") for number, item in enumerate(list_of(value, "tools")))


def _tool(value: Any, path: str) -> Tool:
    node = object_of(value, path)
    kind = text_in(node, "type", f"{path}.") or "function"
    if kind == "function":
        return _function(object_of(node.get("function"), f"{path}.function"), f"{path}.function", node, path)
    if kind == "custom":
        custom = object_of(node.get("custom"), f"{path}.custom")
        return Tool(
            name=text_of(custom.get("name"), f"{path}.custom.name"),
            description=text_in(custom, "description", f"{path}.custom."),
            kind="custom",
            server=node,
            family=_openai_parts.FAMILY,
            path=path,
            inside=".custom",
        )
    return Tool(name=kind, kind="server", server=node, family=_openai_parts.FAMILY, path=path)


def _functions(value: Any) -> tuple[Tool, ...]:
    """The legacy list: bare functions."""
    out = []
    for number, item in enumerate(list_of(value, "functions")):
        path = f"functions.{number}"
        node = object_of(item, path)
        out.append(_function(node, path, node, path))
    return tuple(out)


def _function(function: Node, path: str, around: Node, place: str) -> Tool:
    return Tool(
        name=text_of(function.get("name"), f"{path}.name"),
        description=text_in(function, "description", f"{path}."),
        schema=object_in(function, "parameters", f"{path}."),
        strict=flag_in(function, "strict", f"{path}."),
        cache=cache_in(around, f"{place}.") or cache_in(function, f"{path}."),
        path=place,
        inside=path[len(place) :],
    )


def _choice(sent: Node, legacy: bool) -> Choice | None:
    field = "function_call" if legacy else "tool_choice"
    value = sent.get(field)
    if value is None:
        return None
    if type(value) is str:
        return _word_choice(value, field)
    node = object_of(value, field)
    if legacy:
        return Choice(mode="named", name=text_of(node.get("name"), "function_call.name"))
    kind = text_in(node, "type", "tool_choice.") or "function"
    if kind == "allowed_tools":
        return _allowed(object_of(node.get("allowed_tools"), "tool_choice.allowed_tools"))
    if kind in ("function", "custom"):
        named = object_of(node.get(kind), f"tool_choice.{kind}")
        return Choice(mode="named", name=text_of(named.get("name"), f"tool_choice.{kind}.name"))
    return Choice(mode="named", name=kind)  # a server tool is chosen by its type


def _word_choice(word: str, field: str) -> Choice:
    match word:
        case "auto" | "none" | "required":
            return Choice(mode=word)
        case "any":
            return Choice(mode="required")
        case _:
            raise bad(f"{field} must be none, auto, required or a named tool.", field)


def _allowed(node: Node) -> Choice:
    path = "tool_choice.allowed_tools"
    mode = text_in(node, "mode", f"{path}.") or "auto"
    if mode not in ("auto", "required"):
        raise bad(f"{path}.mode must be auto or required.", f"{path}.mode")
    names = []
    for number, item in enumerate(list_of(node.get("tools"), f"{path}.tools")):
        place = f"{path}.tools.{number}"
        tool = object_of(item, place)
        kind = text_in(tool, "type", f"{place}.") or "function"
        named = tool.get(kind)
        names.append(text_of(named.get("name") if type(named) is dict else kind, f"{place}.{kind}.name"))
    return Choice(mode="required" if mode == "required" else "auto", allowed=tuple(names))


def _controls(sent: Node, steering: dict[str, Any]) -> Controls:
    format_ = _format(sent, steering)
    thinking = _thinking(sent, steering)
    tokens = _max_tokens(sent)
    n = whole_in(sent, "n")
    if n is not None and not 1 <= n <= MOST_CHOICES:
        raise bad(f"n must be between 1 and {MOST_CHOICES}.", "n")
    return Controls(
        max_tokens=tokens,
        temperature=number_in(sent, "temperature"),
        top_p=number_in(sent, "top_p"),
        top_k=whole_in(sent, "top_k"),
        stop=_stop(sent.get("stop")),
        n=n or 1,
        parallel_tools=flag_in(sent, "parallel_tool_calls"),
        format=format_,
        thinking=thinking,
        user=text_in(sent, "user") or steering.get("safety_identifier"),
        service_tier=text_in(sent, "service_tier"),
        steering=steering,
    )


def _max_tokens(sent: Node) -> int | None:
    """The newer name wins; both are checked (0 passes: the provider has its own word on it)."""
    found: int | None = sent.get("max_tokens")
    if "max_completion_tokens" not in sent and (found is None or (type(found) is int and 0 <= found <= MOST_TOKENS)):
        return found
    found = None
    for name in ("max_tokens", "max_completion_tokens"):
        tokens = whole_in(sent, name)
        if tokens is not None and not 0 <= tokens <= MOST_TOKENS:
            raise bad("max_tokens is invalid", name)
        found = tokens if tokens is not None else found
    return found


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is str:
        return (value,)
    return tuple(text_of(item, f"stop.{number}") for number, item in enumerate(list_of(value, "stop")))


def _format(sent: Node, steering: dict[str, Any]) -> Format | None:
    node = object_in(sent, "response_format")
    if node is None:
        return None
    kind = text_in(node, "type", "response_format.")
    if kind == "json_object":
        return Format(kind="json_object")
    if kind == "json_schema":
        path = "response_format.json_schema"
        schema = object_of(node.get("json_schema"), path)
        return Format(
            kind="json_schema",
            name=text_in(schema, "name", f"{path}."),
            schema=object_in(schema, "schema", f"{path}."),
            strict=flag_in(schema, "strict", f"{path}."),
            description=text_in(schema, "description", f"{path}."),
        )
    if kind != "text":  # grammars and regular expressions of single servers
        steering["response_format"] = node
    return None


def _thinking(sent: Node, steering: dict[str, Any]) -> Thinking | None:
    """Effort and budget out of the four ways to say them; a word of a single provider stays steering."""
    effort = text_in(sent, "reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        steering["reasoning_effort"] = effort
        effort = None
    budget, disabled, adaptive = None, flag_in(sent, "enable_thinking") is False, False
    asked = effort is not None or sent.get("enable_thinking") is not None
    thinking = sent.get("thinking")
    if type(thinking) is dict:
        asked = True
        budget = whole_in(thinking, "budget_tokens", "thinking.")
        disabled, adaptive = thinking.get("type") == "disabled", thinking.get("type") == "adaptive"
    elif thinking is not None:
        steering["thinking"] = thinking
    reasoning = object_in(sent, "reasoning")
    if reasoning is not None:
        asked = True
        word = text_in(reasoning, "effort", "reasoning.")
        effort = effort or (word if word in _EFFORTS else None)
        budget = whole_in(reasoning, "max_tokens", "reasoning.") if budget is None else budget
        disabled = disabled or reasoning.get("enabled") is False
    if not asked:
        return None
    word_: Any = effort
    return Thinking(effort=word_, budget=budget, adaptive=adaptive, disabled=disabled or effort == "none")
