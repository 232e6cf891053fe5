"""An Ask of another format as an OpenAI chat body (provider-translation B.11).

Builds the general form; what a single provider wants different is done to the draft afterwards.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, assert_never

from newapi_proxy.adapters._openai_draft import FILE_BELOW, IMAGE_BELOW, Draft
from newapi_proxy.adapters._tools import awaited, named
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import (
    Ask,
    Choice,
    Controls,
    Format,
    Media,
    Part,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)

Node = dict[str, Any]
Replay = Literal["none", "content", "details"]

FAMILY: Final = "openai"
MOST_STOPS: Final = 4
_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
_SIGNS: Final = re.compile("gemini", re.I)  # models that want their signatures; other servers refuse the field (A.1.1)
_STEERING: Final = frozenset(
    {"frequency_penalty", "presence_penalty", "seed", "logit_bias", "logprobs", "top_logprobs", "metadata", "store"}
    | {"prediction", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier"}
    | {"verbosity", "web_search_options", "modalities", "audio"}
)


def build(ask: Ask, model: str, replay: Replay, cache_marks: bool) -> Draft:
    """The draft for the ask. Raises Unsupported for what the format has no place for."""
    messages = _Messages(replay, cache_marks, _SIGNS.search(model) is not None).of(ask)
    draft = Draft({"model": model, "messages": messages}, ask.unknown)
    if ask.stream:
        draft.body["stream"] = True
    tools = _tools(ask)
    if tools:
        draft.body["tools"] = tools
        if ask.choice is not None:
            draft.body["tool_choice"] = _choice(ask.choice)
        if ask.controls.parallel_tools is not None:
            draft.body["parallel_tool_calls"] = ask.controls.parallel_tools
    _controls(draft, ask, ask.controls)
    return draft


def effort(thinking: Thinking) -> str | None:
    """The effort word for an effort, a budget or neither (B.11); None leaves it to the model."""
    if thinking.disabled:
        return "none"
    if thinking.effort is not None or thinking.budget is None:
        return thinking.effort
    for most, word in ((2048, "low"), (8192, "medium"), (24576, "high")):
        if thinking.budget <= most:
            return word
    return "xhigh"


def _controls(draft: Draft, ask: Ask, controls: Controls) -> None:
    body = draft.body
    plain: Node = {
        "max_tokens": controls.max_tokens,
        "temperature": controls.temperature,
        "top_p": controls.top_p,
        "top_k": controls.top_k,
        "n": controls.n if controls.n != 1 else None,
        "stop": list(controls.stop[:MOST_STOPS]) or None,
        "user": controls.user,
        "response_format": _format(controls.format) if controls.format else None,
        "reasoning_effort": effort(controls.thinking) if controls.thinking else None,
    }
    body.update({name: value for name, value in plain.items() if value is not None})
    if len(controls.stop) > MOST_STOPS:
        draft.dropped.append("stop_sequences~" if "stop_sequences" in ask.tree else "stop~")
    if controls.service_tier is not None:
        if controls.service_tier in _TIERS:
            body["service_tier"] = controls.service_tier
        else:
            draft.dropped.append("service_tier")
    for name, value in controls.steering.items():
        if name in _STEERING:
            body[name] = value
        elif value is not None:
            draft.dropped.append(name)
    if body.get("top_logprobs"):
        body.setdefault("logprobs", True)  # one without the other is refused


def _format(wish: Format) -> Node:
    if wish.kind == "json_object":
        return {"type": "json_object"}
    schema: Node = {"name": wish.name or "answer", "schema": wish.schema or {"type": "object"}}
    if wish.description is not None:
        schema["description"] = wish.description
    if wish.strict is not None:
        schema["strict"] = wish.strict
    return {"type": "json_schema", "json_schema": schema}


def _tools(ask: Ask) -> list[Node]:
    allowed = ask.choice.allowed if ask.choice is not None else None
    return [_tool(tool) for tool in ask.tools if allowed is None or tool.name in allowed]


def _tool(tool: Tool) -> Node:
    if tool.kind == "server" or (tool.kind == "custom" and tool.family != FAMILY):
        raise Unsupported(f"This provider has no tool like {tool.name}.", tool.path or "tools")
    name = named(tool, "This provider")
    if tool.kind == "custom" and tool.server is not None:
        return tool.server
    function: Node = {"name": name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.schema or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: Choice) -> Node | str:
    match choice.mode:
        case "auto" | "none" | "required":
            return choice.mode
        case "named":
            return {"type": "function", "function": {"name": choice.name}}
        case _:
            assert_never(choice.mode)


class _Messages:
    """The messages so far, and what tool results could not hold: it follows them as a user's message."""

    __slots__ = ("_cache_marks", "_out", "_pending", "_replay", "_signs")

    def __init__(self, replay: Replay, cache_marks: bool, signs: bool) -> None:
        self._replay = replay
        self._cache_marks = cache_marks
        self._signs = signs
        self._out: list[Node] = []
        self._pending: list[Node] = []

    def of(self, ask: Ask) -> list[Node]:
        """All messages of the ask."""
        leading, turns = ask.leading(), awaited(ask.turns)
        if leading:
            self._system(turns[0].role, [part for turn in turns[:leading] for part in turn.parts])
        last_user = max((number for number, one in enumerate(turns) if _speaks(one)), default=-1)
        for number, turn in enumerate(turns[leading:], leading):
            if turn.role == "assistant":
                self._assistant(turn, number > last_user)
            elif turn.role in ("system", "developer"):
                self._flush()
                self._system(turn.role, turn.parts)
            else:
                self._user(turn)
        self._flush()
        return self._out

    def _system(self, role: str, parts: Sequence[Part]) -> None:
        texts = [part for part in parts if isinstance(part, Text)]
        if not texts:
            return  # its provider's own blocks were all that it held
        if self._cache_marks and any(part.cache for part in texts):
            self._out.append({"role": role, "content": [self._part(part) for part in texts]})
        else:
            self._out.append({"role": role, "content": "\n\n".join(part.text for part in texts)})

    def _user(self, turn: Turn) -> None:
        rest: list[Node] = []
        for part in turn.parts:
            if isinstance(part, ToolResult):
                self._result(part)
            elif not isinstance(part, ServerBlock) or part.family == FAMILY:
                rest.append(self._part(part))
        if not rest and any(isinstance(part, ToolResult) for part in turn.parts):
            return  # more results may follow: what they could not hold waits for the last one
        rest = self._pending + rest
        self._pending = []
        self._out.append({"role": "user", "content": _content(rest)} | _name(turn))

    def _result(self, result: ToolResult) -> None:
        texts: list[str] = []
        for part in result.parts:
            if part.text is not None:
                texts.append(part.text)
            else:
                texts.append(IMAGE_BELOW if part.kind == "image" else FILE_BELOW)
                self._pending.append(self._media(part))
        self._out.append({"role": "tool", "tool_call_id": result.id, "content": "\n".join(texts)})

    def _flush(self) -> None:
        if self._pending:
            self._out.append({"role": "user", "content": self._pending})
            self._pending = []

    def _assistant(self, turn: Turn, present: bool) -> None:
        self._flush()
        message: Node = {"role": "assistant"}
        calls = [_call(part, self._signs) for part in turn.parts if isinstance(part, ToolCall)]
        text = "".join(part.text for part in turn.parts if isinstance(part, Text))
        refusal = "".join(part.text for part in turn.parts if isinstance(part, Refusal))
        message["content"] = text or (None if calls or refusal else "")
        if refusal:
            message["refusal"] = refusal
        thoughts = [part for part in turn.parts if isinstance(part, Reasoning)]
        if thoughts and self._replay == "content" and present:
            message["reasoning_content"] = "\n\n".join(one.text for one in thoughts if one.text)
        elif thoughts and self._replay == "details":
            message["reasoning_details"] = [_detail(one, number) for number, one in enumerate(thoughts)]
        if calls:
            message["tool_calls"] = calls
        self._out.append(message | _name(turn))

    def _part(self, part: Part) -> Node:
        match part:
            case Text():
                node: Node = {"type": "text", "text": part.text}
                return self._marked(node, part)
            case Media():
                return self._media(part)
            case ServerBlock(value=value):
                return value
            case Refusal(text=text) | Reasoning(text=text):
                return {"type": "text", "text": text}
            case ToolCall() | ToolResult():
                raise Unsupported("A tool call has no place in a message of role user.", part.path)
            case _:
                assert_never(part)

    def _media(self, part: Media) -> Node:
        if part.text is not None:
            return {"type": "text", "text": part.text}
        if part.kind == "image" and (part.data or part.url):
            image: Node = {"url": _address(part, "image/png")}
            if part.detail is not None:
                image["detail"] = part.detail
            return self._marked({"type": "image_url", "image_url": image}, part)
        if part.kind == "audio" and part.data:
            kind = (part.media_type or "audio/wav").partition("/")[2]
            sound = {"data": part.data, "format": {"mpeg": "mp3", "x-wav": "wav"}.get(kind, kind)}
            return {"type": "input_audio", "input_audio": sound}
        if part.kind == "video" and (part.data or part.url):
            return {"type": "video_url", "video_url": {"url": _address(part, "video/mp4")}}
        if part.kind == "file" and (part.data or part.file_id):
            return self._marked(_file(part), part)
        raise Unsupported(f"This provider cannot be given this {part.kind}.", part.path, "unsupported_content")

    def _marked(self, node: Node, part: Text | Media) -> Node:
        if self._cache_marks and part.cache is not None:
            node["cache_control"] = {"type": "ephemeral"}
            if part.cache.ttl is not None:
                node["cache_control"]["ttl"] = part.cache.ttl
        return node


def _speaks(turn: Turn) -> bool:
    """Whether the user says something of their own here, tool results apart."""
    return turn.role == "user" and any(not isinstance(part, ToolResult) for part in turn.parts)


def _name(turn: Turn) -> Node:
    return {} if turn.name is None else {"name": turn.name}


def _content(parts: list[Node]) -> Any:
    """A lone text as a string: the form that every server takes."""
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"} and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _address(part: Media, otherwise: str) -> str:
    return f"data:{part.media_type or otherwise};base64,{part.data}" if part.data else part.url or ""


def _file(part: Media) -> Node:
    if part.data is None:
        return {"type": "file", "file": {"file_id": part.file_id}}
    kind = part.media_type or "application/pdf"
    if kind.startswith("text/"):
        try:
            return {"type": "text", "text": base64.b64decode(part.data, validate=True).decode()}
        except (binascii.Error, ValueError):
            raise Unsupported("The text document is not valid base64.", part.path, "unsupported_content") from None
    name = part.filename or ("document.pdf" if kind == "application/pdf" else "document")
    return {"type": "file", "file": {"filename": name, "file_data": f"data:{kind};base64,{part.data}"}}


def _call(call: ToolCall, signs: bool) -> Node:
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    node: Node = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.signature and signs:
        node["extra_content"] = {"google": {"thought_signature": call.signature}}
    return node


def _detail(thought: Reasoning, number: int) -> Node:
    if thought.data:
        node: Node = {"type": "reasoning.encrypted", "data": thought.data}
    elif thought.summary:
        node = {"type": "reasoning.summary", "summary": thought.text}
    else:
        node = {"type": "reasoning.text", "text": thought.text}
    extras = (("signature", thought.signature), ("id", thought.id))
    return node | {name: value for name, value in extras if value} | {"format": thought.format, "index": number}


def listed(names: Iterable[str]) -> tuple[str, ...]:
    """Paths for X-Dropped-Params: each once, in alphabetical order."""
    return tuple(sorted(set(names)))
