"""A whole OpenAI chat answer to a client of the same format: what real servers leave out is filled in.

Unknown fields stay where they are; a body that lacks nothing is handed on byte for byte. Source: provider-translation
A.1.2.
"""

from __future__ import annotations

from typing import Any, Final

from newapi_proxy.ir.finish import understood
from newapi_proxy.ir.thinking import CLOSE, OPEN
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces import _openai_shapes as shapes
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import tree

Node = dict[str, Any]

_SAID: Final = frozenset({"role", "content", "refusal", "annotations"})


def filled(face: Face, body: tree.Document, usage: Usage) -> bytes:
    """The answer with everything its format requires; the body's own bytes where nothing was missing."""
    node = body.tree
    if type(node) is not dict:
        return body.raw
    if not face.thinking_to_content:
        usual = _usual(body, node, face)
        if usual is not None:
            return usual
    edits: Node = {}
    if type(node.get("id")) is not str or not node["id"]:
        edits["id"] = face.id
    if node.get("object") != "chat.completion":
        edits["object"] = "chat.completion"
    if type(node.get("created")) is not int:
        edits["created"] = face.created
    model = node.get("model")
    if (face.rename and model != face.model) or type(model) is not str:
        edits["model"] = face.model
    if type(node.get("usage")) is not dict or not node["usage"]:
        edits["usage"] = shapes.usage_tree(usage)
    choices = node.get("choices")
    given = choices if type(choices) is list and choices else [{}]
    kept = [_choice(one, place, face) for place, one in enumerate(given)]
    if given is not choices or any(new is not old for new, old in zip(kept, given, strict=True)):
        edits["choices"] = kept
    if not edits:
        return body.raw
    try:
        return tree.encode({**node, **edits})
    except tree.TooDeep:  # as it came
        return body.raw


def _usual(body: tree.Document, node: Node, face: Face) -> bytes | None:
    """The common answer, one choice of text in which nothing is missing but a refusal's null; None for any other."""
    try:
        (choice,) = node["choices"]
        message, finish, id_, model, usage = (
            choice["message"], choice["finish_reason"], node["id"], node["model"], node["usage"]
        )  # fmt: skip
        if (
            node["object"] != "chat.completion"
            or message["role"] != "assistant"
            or finish not in shapes.STANDARD
            or type(message["content"]) is not str
            or type(choice["index"]) is not int
            or type(node["created"]) is not int
        ):
            return None
    except (KeyError, TypeError, ValueError):
        return None
    if type(id_) is not str or not id_ or type(model) is not str or (face.rename and model != face.model):
        return None
    if type(usage) is not dict or not usage or "logprobs" not in choice or type(node["choices"]) is not list:
        return None
    if len(message) > 2 and not message.keys() <= _SAID:
        return None
    if "refusal" in message:
        return body.raw
    return tree.encode({**node, "choices": [{**choice, "message": {**message, "refusal": None}}]})


def _choice(value: Any, place: int, face: Face) -> Node:
    choice: Node = value if type(value) is dict else {}
    edits: Node = {}
    if type(choice.get("index")) is not int:
        edits["index"] = place
    message = choice.get("message")
    given: Node = message if type(message) is dict else {}
    edited = _message(given, f"{face.id}-{place}")
    if face.thinking_to_content:
        edited = _inlined(edited)
    if edited is not message:
        edits["message"] = edited
    if "logprobs" not in choice:
        edits["logprobs"] = None
    finish = choice.get("finish_reason")
    if type(finish) is not str or finish not in shapes.STANDARD:
        word = understood(finish) if type(finish) is str and finish else "stop"
        edits["finish_reason"] = shapes.finish_word(word, finish is None and bool(given.get("tool_calls")))
    return {**choice, **edits} if edits else choice


def _message(message: Node, seed: str) -> Node:
    edits: Node = {}
    if message.get("role") != "assistant":
        edits["role"] = "assistant"
    content = message.get("content")
    if type(content) is list:
        edits["content"], thought = _typed(content)
        if thought:
            edits["reasoning_content"] = thought
    elif type(content) is not str and (content is not None or "content" not in message):
        edits["content"] = None if message.get("tool_calls") or message.get("function_call") else ""
    if "refusal" not in message:
        edits["refusal"] = None
    thinking = message.get("reasoning")
    if type(thinking) is str and thinking and not message.get("reasoning_content"):
        edits["reasoning_content"] = thinking
    calls = message.get("tool_calls")
    if type(calls) is list:
        kept = [_call(one, f"call_{seed}-{number}") for number, one in enumerate(calls)]
        if any(new is not old for new, old in zip(kept, calls, strict=True)):
            edits["tool_calls"] = kept
    return {**message, **edits} if edits else message


def _typed(content: list[Any]) -> tuple[str, str]:
    """Text and thinking out of a list of typed chunks."""
    text, thought = [], []
    for chunk in content:
        if type(chunk) is not dict:
            continue
        if type(chunk.get("text")) is str and chunk.get("type") == "text":
            text.append(chunk["text"])
        inner = chunk.get("thinking")
        if type(inner) is str:
            thought.append(inner)
        elif type(inner) is list:
            thought += [one["text"] for one in inner if type(one) is dict and type(one.get("text")) is str]
    return "".join(text), "".join(thought)


def _call(value: Any, spare_id: str) -> Any:
    if type(value) is not dict:
        return value
    edits: Node = {}
    if not value.get("id"):
        edits["id"] = spare_id
    if not value.get("type"):
        edits["type"] = "function"
    function = value.get("function")
    if type(function) is dict and type(function.get("arguments")) in (dict, list):
        edits["function"] = {**function, "arguments": tree.dumps(function["arguments"])}
    return {**value, **edits} if edits else value


def _inlined(message: Node) -> Node:
    """Thinking moved into the text, for clients that know no other place."""
    thought = message.get("reasoning_content")
    if type(thought) is not str or not thought:
        return message
    rest = {name: one for name, one in message.items() if name not in ("reasoning_content", "reasoning")}
    rest["content"] = f"{OPEN}\n{thought}\n{CLOSE}\n{message.get('content') or ''}"
    return rest
