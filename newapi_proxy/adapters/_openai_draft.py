"""An outgoing OpenAI-format body while it is fitted to a provider, and the edits that several providers need.

The client's tree is never changed: what is edited is copied first. What had to go is remembered for X-Dropped-Params.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from newapi_proxy.adapters._tools import SHORT, short_id
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.wire import tree

Node = dict[str, Any]

IMAGE_BELOW: Final = "[image: see the next message]"
FILE_BELOW: Final = "[file: see the next message]"
JSON_WISH: Final = "Answer with one JSON object and nothing else."


class Draft:
    """The body, and the dotted paths that were dropped (clamped ones end in "~")."""

    __slots__ = ("_own_messages", "body", "dropped")

    def __init__(self, body: Node, dropped: Collection[str] = ()) -> None:
        self.body = body
        self.dropped = list(dropped)
        self._own_messages = False

    def drop(self, *names: str) -> None:
        """Leaves out what only steers; what was null or absent is no loss."""
        for name in names:
            if self.body.pop(name, None) is not None:
                self.dropped.append(name)

    def refuse(self, *names: str) -> None:
        """Refuses what changes the shape of the answer: n above 1, log probabilities, audio. Raises Unsupported."""
        for name in names:
            value = self.body.get(name)
            if value and not (name == "n" and value == 1):
                raise Unsupported(f"This provider does not support {name}.", name)
            self.body.pop(name, None)

    def clamp(self, name: str, value: Any) -> None:
        """Sends another value than the client's."""
        self.body[name] = value
        self.dropped.append(f"{name}~")

    def rename(self, names: Mapping[str, str]) -> None:
        """Moves values to the provider's own names; one that is there already wins."""
        for old, new in names.items():
            value = self.body.pop(old, None)
            if value is not None:
                self.body.setdefault(new, value)

    def messages(self) -> list[Node]:
        """The messages, free to be edited one level deep."""
        sent = self.body.get("messages")
        if not self._own_messages:
            self._own_messages = True
            sent = self.body["messages"] = [dict(one) for one in sent or () if isinstance(one, dict)]
        assert isinstance(sent, list)
        return sent

    def each(self, change: Callable[[Node], None], where: Callable[[Node], bool]) -> None:
        """Changes the messages that need it; none are copied where none do."""
        if any(isinstance(one, dict) and where(one) for one in self.body.get("messages") or ()):
            for message in self.messages():
                if where(message):
                    change(message)


def short_ids(draft: Draft, longest: int | None) -> None:
    """Calls' ids without the signatures that they carry for another provider, and no longer than this one takes."""
    for one in draft.body.get("messages") or ():
        if type(one) is dict and type(id_ := one.get("tool_call_id")) is str and len(id_) > SHORT:
            break
    else:
        return
    for message in draft.messages():
        if type(id_ := message.get("tool_call_id")) is str:
            message["tool_call_id"] = short_id(id_, longest)
        if type(calls := message.get("tool_calls")) is list:
            message["tool_calls"] = [_shortened(call, "id", longest) for call in calls]


def short_call_ids(draft: Draft, longest: int) -> None:
    """The same for the items of a Responses body."""
    items = draft.body.get("input")
    if type(items) is list and any(type(one) is dict and len(str(one.get("call_id") or "")) > SHORT for one in items):
        draft.body["input"] = [_shortened(one, "call_id", longest) for one in items]


def _shortened(node: Any, name: str, longest: int | None) -> Any:
    if type(node) is not dict or type(id_ := node.get(name)) is not str:
        return node
    return {**node, name: short_id(id_, longest)}


def developer_to_system(draft: Draft) -> None:
    """For providers that know no role `developer`."""
    draft.each(lambda one: one.update(role="system"), lambda one: one.get("role") == "developer")


def flatten(draft: Draft) -> None:
    """Content that is text parts only becomes a string, for servers that refuse lists."""
    draft.each(lambda one: one.update(content="\n".join(part["text"] for part in one["content"])), _texts_only)


def _texts_only(message: Node) -> bool:
    content = message.get("content")
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        for part in content
    )


def emulate_schema(draft: Draft) -> None:
    """A JSON schema for providers that know JSON mode only: the mode, and the schema as an instruction (B.0)."""
    wish = draft.body.get("response_format")
    if not isinstance(wish, dict) or wish.get("type") != "json_schema":
        return
    schema = tree.find(wish, "json_schema.schema")
    draft.body["response_format"] = {"type": "json_object"}
    text = JSON_WISH
    if isinstance(schema, dict):
        text = f"{text} It must fit this JSON schema:\n{tree.dumps(schema)}"
    messages = draft.messages()
    first = messages[0] if messages else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        first["content"] = f"{first['content']}\n\n{text}"
    else:
        messages.insert(0, {"role": "system", "content": text})


def lower_tool_media(draft: Draft) -> None:
    """Pictures and files in tool results follow the last of them as a user's message: tool messages hold text alone."""
    sent = draft.body.get("messages") or ()
    for one in sent:
        if isinstance(one, dict) and one.get("role") == "tool" and _has_media(one):
            break
    else:
        return
    out: list[Node] = []
    waiting: list[Node] = []
    for message in draft.messages():
        if message.get("role") != "tool":
            if waiting:
                out.append({"role": "user", "content": waiting})
                waiting = []
        elif _has_media(message):
            parts = message["content"]
            waiting += [part for part in parts if not _is_text(part)]
            message["content"] = [part if _is_text(part) else _below(part) for part in parts]
        out.append(message)
    draft.body["messages"] = [*out, *([{"role": "user", "content": waiting}] if waiting else [])]


def _has_media(message: Node) -> bool:
    content = message.get("content")
    return isinstance(content, list) and not all(_is_text(part) for part in content)


def _is_text(part: Any) -> bool:
    return not isinstance(part, dict) or part.get("type", "text") in ("text", "refusal")


def _below(part: Node) -> Node:
    return {"type": "text", "text": IMAGE_BELOW if part.get("type") == "image_url" else FILE_BELOW}


def drop_old_reasoning(draft: Draft) -> None:
    """Thinking is replayed within the turn it belongs to, after the last user message; older is left out (DeepSeek)."""
    sent = draft.body.get("messages") or []
    last = max((number for number, one in enumerate(sent) if one.get("role") == "user"), default=-1)
    for number in range(last):
        if sent[number].get("reasoning_content") is not None:
            del draft.messages()[number]["reasoning_content"]
            draft.dropped.append(f"messages.{number}.reasoning_content")


def media(ask: Ask) -> list[Media]:
    """Everything in the history that is no text, tool results included."""
    out: list[Media] = []
    for turn in ask.turns:
        for part in turn.parts:
            if isinstance(part, Media):
                out.append(part)
            elif isinstance(part, ToolResult):
                out += [one for one in part.parts if isinstance(one, Media)]
    return out


def refuse_media(ask: Ask, kinds: Collection[str], why: str) -> None:
    """Refuses what the provider cannot see. Raises Unsupported with the part's path."""
    for part in media(ask):
        if part.kind in kinds:
            raise Unsupported(why, part.path, "unsupported_content")
