"""Responses requests: the client's own one fitted to the model, or one built from an Ask of another format.

Source: provider-translation A.4, B.8, B.11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeGuard, assert_never

from newapi_proxy.adapters._openai_build import effort
from newapi_proxy.adapters._openai_draft import JSON_WISH, Draft
from newapi_proxy.adapters._tools import named
from newapi_proxy.adapters.base import refuse_own
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
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from newapi_proxy.wire import tree

Node = dict[str, Any]

DIALECT: Final = "openai-responses"
OWN: Final = "openai-responses-v1"  # who signed the reasoning that this format replays
CHAT_FAMILY: Final = "openai"
LEAST_OUTPUT: Final = 16  # the API's own bound
_SAID: Final = frozenset({"system", "developer", "user"})
_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})
_KEPT: Final = frozenset(
    {"metadata", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "store"}
)
_REFUSED: Final = ("logprobs", "top_logprobs", "responseLogprobs", "generationConfig.responseLogprobs", "audio")


def native(ask: Ask, model: str) -> Draft:
    """The client's own body with the upstream's name of a named model, less the reasoning that upstream would refuse.

    Refused is what another provider's model thought, and reasoning that nothing follows (T-OPEN-008).
    """
    body = dict(ask.tree) if ask.unnamed else {**ask.tree, "model": model}
    items = body.get("input")
    if type(items) is list:
        own = {(part.id, part.data) for turn in ask.turns for part in turn.parts if _sealed_here(part)}
        kept = _following([item for item in items if not _reasoning(item) or _marks(item) in own])
        if len(kept) != len(items):
            body["input"] = kept
    thinking = ask.controls.thinking
    if thinking is not None and "reasoning" not in body and (word := effort(thinking)) is not None:
        body["reasoning"] = {"effort": word}  # what the model's name asked for
    return Draft(body)


def _sealed_here(part: Part) -> TypeGuard[Reasoning]:
    return type(part) is Reasoning and part.format == OWN


def _reasoning(item: Any) -> bool:
    return type(item) is dict and item.get("type") == "reasoning"


def _marks(item: Node) -> tuple[Any, Any]:
    return item.get("id") or None, item.get("encrypted_content") or None


def _following(items: list[Any]) -> list[Any]:
    """The items without reasoning that stands last, or before words that are not the model's.

    Upstream looks for the follower of an item that it can name: what has no id is taken wherever it stands.
    """
    out: list[Any] = []
    for item in reversed(items):
        if _reasoning(item) and item.get("id") and not (out and _model_said(out[-1])):
            continue
        out.append(item)
    return out[::-1]


def _model_said(item: Any) -> bool:
    if type(item) is not dict:
        return True
    if item.get("type", "message") == "message" and "role" in item:
        return item.get("role") == "assistant"
    return not str(item.get("type")).endswith("_output")


def fit(draft: Draft, change: Callable[[Draft], None]) -> None:
    """Applies what is known of a provider's chat bodies: the effort stands there under a name of its own."""
    given = draft.body.get("reasoning")
    reasoning: Node = given if type(given) is dict else {}
    word = reasoning.get("effort")
    if word is None:
        change(draft)
        return
    known = len(draft.dropped)
    draft.body["reasoning_effort"] = word
    change(draft)
    new = draft.body.pop("reasoning_effort", None)
    told = draft.dropped[known:]
    draft.dropped[known:] = [name.replace("reasoning_effort", "reasoning.effort") for name in told]
    if "reasoning_effort" in told:
        draft.body["reasoning"] = {name: one for name, one in reasoning.items() if name != "effort"}
    elif new is not None and new != word:
        draft.body["reasoning"] = {**reasoning, "effort": new}


def emulate_schema(draft: Draft) -> None:
    """A JSON schema for providers that know JSON mode only: the mode, and the schema as an instruction (B.0)."""
    given = draft.body.get("text")
    text: Node = given if type(given) is dict else {}
    form = text.get("format")
    if type(form) is not dict or form.get("type") != "json_schema":
        return
    words = f"{JSON_WISH} It must fit this JSON schema:\n{tree.dumps(form.get('schema'))}"
    before = draft.body.get("instructions")
    draft.body["instructions"] = f"{before}\n\n{words}" if before else words
    draft.body["text"] = {**text, "format": {"type": "json_object"}}


def build(ask: Ask, model: str) -> Draft:
    """The draft for an ask of another format. Raises Unsupported for what the format has no place for."""
    _refuse(ask)
    draft = Draft({"model": model}, ask.unknown)
    body = draft.body
    body["input"] = _Input(draft).of(ask)
    if ask.stream:
        body["stream"] = True
    tools = [_tool(tool) for tool in ask.tools]
    search = ask.controls.steering.get("web_search_options")
    if isinstance(search, dict):
        tools.append(_search(search))
    if tools:
        body["tools"] = tools
        if ask.choice is not None:
            body["tool_choice"] = _choice(ask.choice, ask.tools)
        if ask.controls.parallel_tools is not None:
            body["parallel_tool_calls"] = ask.controls.parallel_tools
    _controls(draft, ask, ask.controls)
    body.setdefault("store", False)  # other formats keep no state, so nobody would ask for it again
    body["include"] = ["reasoning.encrypted_content"]
    return draft


def _refuse(ask: Ask) -> None:
    refuse_own(ask)
    if ask.controls.n != 1:
        raise Unsupported("This provider gives one answer per request (n).", "n")
    for name in _REFUSED:
        if ask.controls.steering.get(name):
            raise Unsupported(f"This provider does not support {name} here.", name)
    modalities = ask.controls.steering.get("modalities")
    if isinstance(modalities, list) and any(one != "text" for one in modalities):
        raise Unsupported("This provider answers in text only (modalities).", "modalities")


def _controls(draft: Draft, ask: Ask, controls: Controls) -> None:
    word = effort(controls.thinking) if controls.thinking else None
    text: Node = {}
    if controls.format is not None:
        text["format"] = _format(controls.format)
    if isinstance(controls.steering.get("verbosity"), str):
        text["verbosity"] = controls.steering["verbosity"]
    plain: Node = {
        "temperature": controls.temperature,
        "top_p": controls.top_p,
        "user": controls.user,
        "reasoning": {"effort": word} if word is not None else None,
        "text": text or None,
    }
    if controls.max_tokens is not None:
        draft.body["max_output_tokens"] = max(controls.max_tokens, LEAST_OUTPUT)
        if controls.max_tokens < LEAST_OUTPUT:
            draft.dropped.append("max_tokens~")
    draft.body.update({name: value for name, value in plain.items() if value is not None})
    if controls.stop:
        draft.dropped.append("stop_sequences" if "stop_sequences" in ask.tree else "stop")
    if controls.top_k is not None:
        draft.dropped.append("top_k")
    if controls.service_tier in _TIERS:
        draft.body["service_tier"] = controls.service_tier
    elif controls.service_tier is not None:
        draft.dropped.append("service_tier")
    for name, value in controls.steering.items():
        if name in _KEPT:
            draft.body[name] = value
        elif value is not None and value is not False and name not in ("verbosity", "web_search_options", "modalities"):
            draft.dropped.append(name)


def _format(wish: Format) -> Node:
    if wish.kind == "json_object":
        return {"type": "json_object"}
    node: Node = {"type": "json_schema", "name": wish.name or "answer", "schema": wish.schema or {"type": "object"}}
    extras = (("description", wish.description), ("strict", wish.strict))
    return node | {name: value for name, value in extras if value is not None}


def _tool(tool: Tool) -> Node:
    if tool.kind == "server" or (tool.kind == "custom" and tool.family != CHAT_FAMILY):
        raise Unsupported(f"This provider has no tool like {tool.name}.", tool.path or "tools")
    name = named(tool, "This provider")
    if tool.kind == "custom":
        return _custom(tool)
    function: Node = {"type": "function", "name": name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.schema or {"type": "object", "properties": {}}
    function["strict"] = tool.strict or False  # absent means true here, in other formats false
    return function


def _custom(tool: Tool) -> Node:
    """A free-form tool: its grammar stands one level higher than in chat completions."""
    custom = (tool.server or {}).get("custom")
    node: Node = {"type": "custom", **(custom if isinstance(custom, dict) else {"name": tool.name})}
    form = node.get("format")
    if isinstance(form, dict) and isinstance(form.get("grammar"), dict):
        node["format"] = {"type": "grammar", **form["grammar"]}
    return node


def _search(options: Node) -> Node:
    node: Node = {"type": "web_search"}
    if options.get("search_context_size") is not None:
        node["search_context_size"] = options["search_context_size"]
    location = options.get("user_location")
    if isinstance(location, dict):
        place = location.get("approximate")
        node["user_location"] = {"type": "approximate", **(place if isinstance(place, dict) else location)}
    return node


def _choice(choice: Choice, tools: Iterable[Tool]) -> Node | str:
    kinds = {tool.name: tool.kind for tool in tools}
    if choice.allowed is not None:
        named = [{"type": kinds.get(name, "function"), "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": "required" if choice.mode == "required" else "auto", "tools": named}
    match choice.mode:
        case "auto" | "none" | "required":
            return choice.mode
        case "named":
            return {"type": kinds.get(choice.name or "", "function"), "name": choice.name}
        case _:
            assert_never(choice.mode)


class _Input:
    """The input items so far."""

    __slots__ = ("_custom", "_draft", "_items")

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._items: list[Node] = []
        self._custom: set[str] = set()  # ids of calls of free-form tools

    def of(self, ask: Ask) -> list[Node]:
        """All items of the ask."""
        for turn in ask.turns:
            if turn.role == "assistant":
                self._assistant(turn)
            else:
                self._user(turn)
        return _following(self._items)

    def _user(self, turn: Turn) -> None:
        shown: list[Node] = []
        for part in turn.parts:
            if isinstance(part, ToolResult):
                self._result(part)
            elif not isinstance(part, ServerBlock):
                shown.append(_part(part))
        if shown:
            role = turn.role if turn.role in _SAID else "user"
            self._items.append({"type": "message", "role": role, "content": _content(shown)})

    def _result(self, result: ToolResult) -> None:
        parts = [_part(part) for part in result.parts]
        output: Any = parts
        if all(part["type"] == "input_text" for part in parts):
            output = "\n".join(part["text"] for part in parts)
        kind = "custom_tool_call_output" if result.id in self._custom else "function_call_output"
        self._items.append({"type": kind, "call_id": result.id, "output": output})

    def _assistant(self, turn: Turn) -> None:
        shown: list[Node] = []
        for part in turn.parts:
            match part:
                case Text(text=text):
                    shown += [{"type": "output_text", "text": text}] if text else []
                case Refusal(text=text):
                    shown.append({"type": "refusal", "refusal": text})
                case Reasoning():
                    self._reasoning(part, turn)
                case ToolCall():
                    self._shown(shown)
                    shown = []
                    self._call(part)
                case Media() if not part.file_id:
                    raise Unsupported(
                        f"This provider takes no {part.kind} of the model's.", part.path, "unsupported_content"
                    )
                case _:
                    pass
        self._shown(shown)

    def _shown(self, parts: list[Node]) -> None:
        if parts:
            self._items.append({"type": "message", "role": "assistant", "content": parts})

    def _reasoning(self, part: Reasoning, turn: Turn) -> None:
        """Only what this format has sealed itself is taken back."""
        if part.format != OWN or not part.data:
            self._draft.dropped.append(f"{turn.path}.reasoning_content" if turn.path else "reasoning_content")
            return
        summary = [{"type": "summary_text", "text": part.text}] if part.text else []
        node: Node = {"type": "reasoning", "summary": summary, "encrypted_content": part.data}
        self._items.append(node if part.id is None else {**node, "id": part.id})

    def _call(self, call: ToolCall) -> None:
        if call.kind == "custom":
            self._custom.add(call.id)
            called = {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
        else:
            arguments = call.arguments or "{}"
            called = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}
        self._items.append(called)


def _content(parts: list[Node]) -> Any:
    """A lone text as a string."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "input_text" else parts


def _part(part: Part) -> Node:
    match part:
        case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
            return {"type": "input_text", "text": text}
        case Media():
            return _media(part)
        case ToolCall() | ToolResult() | ServerBlock():
            raise Unsupported("A tool call has no place in a message of role user.", part.path)
        case _:
            assert_never(part)


def _media(part: Media) -> Node:
    if part.text is not None:
        return {"type": "input_text", "text": part.text}
    if part.kind == "image" and (part.data or part.url or part.file_id):
        image: Node = {"type": "input_image", "detail": part.detail or "auto"}
        if part.data or part.url:
            return {**image, "image_url": _address(part, "image/png")}
        return {**image, "file_id": part.file_id}
    if part.kind == "file":
        return _file(part)
    if part.kind == "audio" and part.data:
        kind = (part.media_type or "audio/wav").partition("/")[2]
        sound = {"data": part.data, "format": {"mpeg": "mp3", "x-wav": "wav"}.get(kind, kind)}
        return {"type": "input_audio", "input_audio": sound}
    raise Unsupported(f"This provider cannot be given this {part.kind}.", part.path, "unsupported_content")


def _address(part: Media, otherwise: str) -> str:
    return f"data:{part.media_type or otherwise};base64,{part.data}" if part.data else part.url or ""


def _file(part: Media) -> Node:
    if part.data:
        name = part.filename or ("document.pdf" if "pdf" in (part.media_type or "pdf") else "document")
        return {"type": "input_file", "filename": name, "file_data": _address(part, "application/pdf")}
    if part.url:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "file_id": part.file_id}
