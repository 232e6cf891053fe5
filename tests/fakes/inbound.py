"""One conversation as clients of each format write it: OC, OR, AM and GG, from the same neutral turns; CO for prompts.

`body(letter, turns, …)` is the request, `reply(letter, answer)` the client's history after an answer. What a format has
no words for raises `Unsayable`: a row whose verdict there is `-` asks for no such body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.ir.ask import Ask
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY, Surface

Tree = dict[str, Any]

_ROUTES: Final = {
    "OC": "/v1/chat/completions",
    "OR": "/v1/responses",
    "AM": "/v1/messages",
    "GG": "/v1beta/models/",
    "CO": "/v1/completions",
}
LETTERS: Final = ("OC", "OR", "AM", "GG")  # those that rows have verdicts for
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
PDF: Final = "JVBERi0xLjQKJcOkw7zDtsOfCg=="


class Unsayable(Exception):
    """The format has no words for it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image: a data URL or an address."""

    url: str = f"data:image/png;base64,{PNG}"
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file by value, or by the provider's id."""

    data: str = PDF
    kind: str = "application/pdf"
    name: str = "a.pdf"
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Sound:
    """Speech in base64."""

    data: str = "UklGRg=="
    form: str = "wav"


@dataclass(frozen=True, slots=True)
class Film:
    """A film by value."""

    data: str = "AAAAIGZ0eXA="
    kind: str = "video/mp4"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the history; `arguments` is raw text."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Thought:
    """Thinking without a signature, as another model left it."""

    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave; `parts` None: a plain string. `error`: the tool failed."""

    id: str
    name: str
    text: str = "done"
    parts: tuple[Picture | File, ...] = ()
    error: bool = False


@dataclass(frozen=True, slots=True)
class Native:
    """History items in the format's own words, as `reply` gives them."""

    items: tuple[Tree, ...]


Part = str | Picture | File | Sound | Film | Call | Thought | Result
Turn = tuple[Any, ...] | Native  # ("user", part, …), ("assistant", …), ("system", …), ("developer", …), ("tool", …)
HI: Final[tuple[Turn, ...]] = (("user", "Hi"),)
FUNCTION: Final = {"name": "f", "description": "Does it", "parameters": {"type": "object", "properties": {"a": {}}}}


def route(letter: str, stream: bool = False) -> str | None:
    """The route of a format, None where this version has none."""
    wanted = _ROUTES[letter]
    if letter != "GG":
        return wanted if wanted in SURFACES else None
    found = sorted((one for one in SURFACES if one.startswith(wanted)), key=len)
    ends = (":streamGenerateContent", "}") if stream else (":generateContent", "}")
    return next((one for end in ends for one in found if one.endswith(end)), None)


FORMATS: Final = tuple(letter for letter in LETTERS if route(letter) is not None)
"""The formats that this version serves; rows are tested in each of them."""
SPOKEN: Final = tuple(letter for letter in _ROUTES if route(letter) is not None)
"""These, and the legacy one in which there is nothing but a prompt."""


def across(*letters: str) -> pytest.MarkDecorator:
    """A test in each of these formats, of those that this version serves. tests/test_rows_listed.py reads them."""
    return pytest.mark.parametrize("letter", [one for one in letters if one in FORMATS])


def surface(letter: str, stream: bool = False) -> Surface:
    """The format's surface."""
    found = route(letter, stream)
    assert found is not None, letter
    return SURFACES[found]


def headers(letter: str, model: str = "asked", stream: bool = False) -> dict[str, str]:
    """What the web hands to the surface beside the body."""
    if letter != "GG":
        return {}
    pattern = route(letter, stream)
    assert pattern is not None
    verb = "streamGenerateContent" if stream else "generateContent"
    tail = model if pattern.endswith("Content") else f"{model}:{verb}"
    return {PATH: tail, QUERY: "alt=sse" if stream else ""}


def read(letter: str, tree: Tree, model: str = "asked", stream: bool = False, **more: str) -> Ask:
    """The ask that the surface makes of a body."""
    return surface(letter, stream).read(orjson.dumps(tree), {**headers(letter, model, stream), **more})


def body(letter: str, turns: Sequence[Turn] = HI, *, model: str = "asked", stream: bool = False, **wishes: Any) -> Tree:
    """The request's body.

    Wishes, all optional: max_tokens, temperature, top_p, top_k, stop, n, logprobs, effort, tools, choice, allowed,
    one_call, schema, json, strict, user, tier, steering (a tree of the format's own), usage.
    """
    tree: Tree = _TURNS[letter](turns)
    if letter != "GG":
        tree["model"] = model
        if stream:
            tree["stream"] = True
    if letter in ("OC", "CO") and stream and wishes.pop("usage", True):
        tree["stream_options"] = {"include_usage": True}
    wishes.pop("usage", None)
    if letter == "AM":
        tree["max_tokens"] = 1024
    for name, value in wishes.items():
        _WISHES[letter].get(name, _unsayable)(tree, value)
    if letter == "GG" and "generationConfig" in tree and not tree["generationConfig"]:
        del tree["generationConfig"]
    return tree


def _unsayable(tree: Tree, value: Any) -> None:
    raise Unsayable(value)


# OpenAI chat.


def _oc(turns: Sequence[Turn]) -> Tree:
    messages: list[Tree] = []
    for turn in turns:
        if isinstance(turn, Native):
            messages += turn.items
            continue
        role, parts = turn[0], turn[1:]
        if role == "tool":
            messages += [_oc_result(one) for one in parts]
        elif role == "assistant":
            messages.append(_oc_said(parts))
        elif len(parts) == 1 and isinstance(parts[0], str):
            messages.append({"role": role, "content": parts[0]})
        else:
            messages.append({"role": role, "content": [_oc_part(one) for one in parts]})
    return {"messages": messages}


def _oc_part(part: Any) -> Tree:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Picture(url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}
        case File(id=str(id)):
            return {"type": "file", "file": {"file_id": id}}
        case File(data=data, kind=kind, name=name):
            return {"type": "file", "file": {"file_data": f"data:{kind};base64,{data}", "filename": name}}
        case Sound(data=data, form=form):
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case Film(data=data, kind=kind):
            return {"type": "video_url", "video_url": {"url": f"data:{kind};base64,{data}"}}
    raise Unsayable(part)


def _oc_said(parts: tuple[Any, ...]) -> Tree:
    texts = "".join(one for one in parts if isinstance(one, str))
    message: Tree = {"role": "assistant", "content": texts or None}
    calls = [one for one in parts if isinstance(one, Call)]
    if calls:
        message["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in calls
        ]
    thoughts = [one.text for one in parts if isinstance(one, Thought)]
    return message | ({"reasoning_content": thoughts[0]} if thoughts else {})


def _oc_result(one: Result) -> Tree:
    if one.error:
        raise Unsayable(one)
    content: Any = [_oc_part(one.text), *map(_oc_part, one.parts)] if one.parts else one.text
    return {"role": "tool", "tool_call_id": one.id, "content": content}


# OpenAI Responses.


def _or(turns: Sequence[Turn]) -> Tree:
    items: list[Tree] = []
    tree: Tree = {"input": items, "store": False}
    for index, turn in enumerate(turns):
        if isinstance(turn, Native):
            items += turn.items
        elif turn[0] == "system" and index == 0 and len(turn) == 2:
            tree["instructions"] = turn[1]
        else:
            items += _or_items(turn[0], turn[1:])
    return tree


def _or_items(role: str, parts: tuple[Any, ...]) -> list[Tree]:
    items: list[Tree] = []
    shown: list[Tree] = []
    for part in parts:
        match part:
            case Result(error=False):
                output: Any = [_or_part("user", part.text), *(_or_part("user", one) for one in part.parts)]
                value = output if part.parts else part.text
                items.append({"type": "function_call_output", "call_id": part.id, "output": value})
            case Call(id=id, name=name, arguments=arguments):
                items.append({"type": "function_call", "call_id": id, "name": name, "arguments": arguments})
            case Thought(text=text):
                summary = [{"type": "summary_text", "text": text}]
                items.insert(0, {"type": "reasoning", "id": "rs_1", "summary": summary})
            case _:
                shown.append(_or_part(role, part))
    if shown:
        calls = [one["type"] == "function_call" for one in items]
        at = calls.index(True) if True in calls else len(items)
        items.insert(at, {"type": "message", "role": role, "content": shown})
    return items


def _or_part(role: str, part: Any) -> Tree:
    match part:
        case str():
            return {"type": "output_text" if role == "assistant" else "input_text", "text": part}
        case Picture(url=url, detail=detail):
            return {"type": "input_image", "image_url": url} | ({"detail": detail} if detail else {})
        case File(id=str(id)):
            return {"type": "input_file", "file_id": id}
        case File(data=data, kind=kind, name=name):
            return {"type": "input_file", "file_data": f"data:{kind};base64,{data}", "filename": name}
        case Sound(data=data, form=form):
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    raise Unsayable(part)


# Anthropic.


def _am(turns: Sequence[Turn]) -> Tree:
    messages: list[Tree] = []
    system: list[Tree] = []
    for turn in turns:
        if isinstance(turn, Native):
            messages += turn.items
            continue
        role, parts = turn[0], turn[1:]
        if role in ("system", "developer") and not messages:
            system += [{"type": "text", "text": one} for one in parts]
            continue
        role = {"tool": "user", "developer": "system"}.get(role, role)
        content: Any = [_am_part(one) for one in parts]
        if len(parts) == 1 and isinstance(parts[0], str):
            content = parts[0]
        messages.append({"role": role, "content": content})
    return {"messages": messages} | ({"system": system} if system else {})


def _am_part(part: Any) -> Tree:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Picture(url=url):
            return {"type": "image", "source": _am_source(url)}
        case File(id=str(id)):
            return {"type": "document", "source": {"type": "file", "file_id": id}}
        case File(data=data, kind=kind, name=name):
            source = {"type": "base64", "media_type": kind, "data": data}
            return {"type": "document", "source": source, "title": name}
        case Call(id=id, name=name, arguments=arguments):
            return {"type": "tool_use", "id": id, "name": name, "input": orjson.loads(arguments)}
        case Thought(text=text):
            return {"type": "thinking", "thinking": text, "signature": ""}
        case Result():
            content: Any = [_am_part(part.text), *map(_am_part, part.parts)] if part.parts else part.text
            block: Tree = {"type": "tool_result", "tool_use_id": part.id, "content": content}
            return block | ({"is_error": True} if part.error else {})
    raise Unsayable(part)


def _am_source(url: str) -> Tree:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.partition(";base64,")
    return {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}


# Gemini.


def _gg(turns: Sequence[Turn]) -> Tree:
    contents: list[Tree] = []
    system: list[Tree] = []
    for turn in turns:
        if isinstance(turn, Native):
            contents += turn.items
            continue
        role, parts = turn[0], turn[1:]
        if role in ("system", "developer"):
            if contents:
                raise Unsayable(turn)
            system += [{"text": one} for one in parts]
            continue
        contents.append({"role": "model" if role == "assistant" else "user", "parts": [_gg_part(one) for one in parts]})
    return {"contents": contents} | ({"systemInstruction": {"parts": system}} if system else {})


def _gg_part(part: Any) -> Tree:
    match part:
        case str():
            return {"text": part}
        case Picture(url=url, detail=None):
            return _gg_located(url)
        case File(id=str(id)):
            return {"fileData": {"mimeType": "application/pdf", "fileUri": id}}
        case File(data=data, kind=kind):
            return {"inlineData": {"mimeType": kind, "data": data}}
        case Sound(data=data, form=form):
            return {"inlineData": {"mimeType": f"audio/{form}", "data": data}}
        case Film(data=data, kind=kind):
            return {"inlineData": {"mimeType": kind, "data": data}}
        case Call(id=id, name=name, arguments=arguments):
            return {"functionCall": {"id": id, "name": name, "args": orjson.loads(arguments)}}
        case Thought(text=text):
            return {"text": text, "thought": True}
        case Result(error=True):
            return {"functionResponse": {"id": part.id, "name": part.name, "response": {"error": part.text}}}
        case Result():
            value: Tree = {"id": part.id, "name": part.name, "response": {"output": part.text}}
            return {
                "functionResponse": value | ({"parts": [_gg_part(one) for one in part.parts]} if part.parts else {})
            }
    raise Unsayable(part)


def _gg_located(url: str) -> Tree:
    if url.startswith("data:"):
        head, _, data = url.partition(";base64,")
        return {"inlineData": {"mimeType": head.removeprefix("data:"), "data": data}}
    return {"fileData": {"mimeType": "image/png", "fileUri": url}}


# Prompts.


def _co(turns: Sequence[Turn]) -> Tree:
    texts = [part for turn in turns if not isinstance(turn, Native) for part in turn[1:]]
    if not all(isinstance(one, str) for one in texts):
        raise Unsayable(turns)
    return {"prompt": "\n".join(texts)}


_TURNS: Final = {"CO": _co, "OC": _oc, "OR": _or, "AM": _am, "GG": _gg}


# Wishes.


def _at(*path: str, change: Any = lambda value: value) -> Any:
    def put(tree: Tree, value: Any) -> None:
        for name in path[:-1]:
            tree = tree.setdefault(name, {})
        tree[path[-1]] = change(value)

    return put


def _steering(tree: Tree, value: Mapping[str, Any]) -> None:
    tree.update(value)


def _config(tree: Tree, value: Mapping[str, Any]) -> None:
    tree.setdefault("generationConfig", {}).update(value)


def _oc_choice(value: str) -> Any:
    return value if value in ("auto", "none", "required") else {"type": "function", "function": {"name": value}}


def _oc_allowed(tree: Tree, value: Sequence[str]) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in value]
    tree["tool_choice"] = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}


def _or_choice(value: str) -> Any:
    return value if value in ("auto", "none", "required") else {"type": "function", "name": value}


def _or_allowed(tree: Tree, value: Sequence[str]) -> None:
    tools = [{"type": "function", "name": name} for name in value]
    tree["tool_choice"] = {"type": "allowed_tools", "mode": "required", "tools": tools}


def _am_choice(tree: Tree, value: str) -> None:
    words = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}
    tree.setdefault("tool_choice", {}).update(words.get(value, {"type": "tool", "name": value}))


def _am_one_call(tree: Tree, value: bool) -> None:
    tree.setdefault("tool_choice", {"type": "auto"})["disable_parallel_tool_use"] = value


def _am_effort(tree: Tree, value: str) -> None:
    if value == "none":
        tree["thinking"] = {"type": "disabled"}
        return
    tree["thinking"] = {"type": "adaptive"}
    tree.setdefault("output_config", {})["effort"] = value


def _am_tool(one: Tree) -> Tree:
    tree = {"name": one["name"], "description": one["description"], "input_schema": one.get("parameters") or {}}
    tree["input_schema"] = tree["input_schema"] or {"type": "object"}
    return tree | ({"strict": one["strict"]} if "strict" in one else {})


def _am_schema(tree: Tree, value: Tree) -> None:
    tree.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": value}


def _gg_tools(tree: Tree, value: Sequence[Tree]) -> None:
    names = {"parameters": "parametersJsonSchema"}
    declared = [{names.get(key, key): one[key] for key in one if key != "strict"} for one in value]
    tree["tools"] = [{"functionDeclarations": declared}]


def _gg_choice(tree: Tree, value: str) -> None:
    words = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
    calling: Tree = {"mode": words.get(value, "ANY")}
    if value not in words:
        calling["allowedFunctionNames"] = [value]
    tree["toolConfig"] = {"functionCallingConfig": calling}


def _gg_allowed(tree: Tree, value: Sequence[str]) -> None:
    tree["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": list(value)}}


def _gg_effort(tree: Tree, value: str) -> None:
    config = tree.setdefault("generationConfig", {})
    if value == "none":
        config["thinkingConfig"] = {"thinkingBudget": 0}
    else:
        config["thinkingConfig"] = {"thinkingLevel": value.upper(), "includeThoughts": True}


def _gg_schema(tree: Tree, value: Tree) -> None:
    _config(tree, {"responseMimeType": "application/json", "responseJsonSchema": value})


def _gg_logprobs(tree: Tree, value: bool) -> None:
    _config(tree, {"responseLogprobs": value})


_WISHES: Final[dict[str, dict[str, Any]]] = {
    "CO": {"max_tokens": _at("max_tokens"), "temperature": _at("temperature"), "steering": _steering},
    "OC": {
        "max_tokens": _at("max_tokens"),
        "temperature": _at("temperature"),
        "top_p": _at("top_p"),
        "top_k": _at("top_k"),
        "stop": _at("stop"),
        "n": _at("n"),
        "logprobs": _at("logprobs"),
        "effort": _at("reasoning_effort"),
        "tools": _at("tools", change=lambda tools: [{"type": "function", "function": one} for one in tools]),
        "choice": _at("tool_choice", change=_oc_choice),
        "allowed": _oc_allowed,
        "one_call": _at("parallel_tool_calls", change=lambda value: not value),
        "schema": _at(
            "response_format",
            change=lambda schema: {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        ),
        "json": _at("response_format", change=lambda value: {"type": "json_object"}),
        "user": _at("user"),
        "tier": _at("service_tier"),
        "steering": _steering,
    },
    "OR": {
        "max_tokens": _at("max_output_tokens"),
        "temperature": _at("temperature"),
        "top_p": _at("top_p"),
        "top_k": _at("top_k"),
        "logprobs": _at("top_logprobs", change=lambda value: 3),
        "effort": _at("reasoning", "effort"),
        "tools": _at("tools", change=lambda tools: [{"type": "function", **one} for one in tools]),
        "choice": _at("tool_choice", change=_or_choice),
        "allowed": _or_allowed,
        "one_call": _at("parallel_tool_calls", change=lambda value: not value),
        "schema": _at(
            "text", "format", change=lambda schema: {"type": "json_schema", "name": "answer", "schema": schema}
        ),
        "json": _at("text", "format", change=lambda value: {"type": "json_object"}),
        "user": _at("user"),
        "tier": _at("service_tier"),
        "steering": _steering,
    },
    "AM": {
        "max_tokens": _at("max_tokens"),
        "temperature": _at("temperature"),
        "top_p": _at("top_p"),
        "top_k": _at("top_k"),
        "stop": _at("stop_sequences"),
        "effort": _am_effort,
        "tools": _at("tools", change=lambda tools: [_am_tool(one) for one in tools]),
        "choice": _am_choice,
        "one_call": _am_one_call,
        "schema": _am_schema,
        "user": _at("metadata", "user_id"),
        "tier": _at("service_tier"),
        "steering": _steering,
    },
    "GG": {
        "max_tokens": _at("generationConfig", "maxOutputTokens"),
        "temperature": _at("generationConfig", "temperature"),
        "top_p": _at("generationConfig", "topP"),
        "top_k": _at("generationConfig", "topK"),
        "stop": _at("generationConfig", "stopSequences"),
        "n": _at("generationConfig", "candidateCount"),
        "logprobs": _gg_logprobs,
        "effort": _gg_effort,
        "tools": _gg_tools,
        "choice": _gg_choice,
        "allowed": _gg_allowed,
        "schema": _gg_schema,
        "json": lambda tree, value: _config(tree, {"responseMimeType": "application/json"}),
        "tier": _at("serviceTier"),
        "steering": _steering,
    },
}


def reply(letter: str, answer: Tree) -> Native:
    """What a client of the format puts into its history for a whole answer."""
    match letter:
        case "OC":
            message = {name: value for name, value in answer["choices"][0]["message"].items() if value is not None}
            return Native(({**message, "content": message.get("content")},))
        case "OR":
            return Native(tuple(answer["output"]))
        case "AM":
            return Native(({"role": "assistant", "content": answer["content"]},))
        case _:
            return Native((answer["candidates"][0]["content"],))
