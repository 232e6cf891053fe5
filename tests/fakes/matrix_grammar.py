"""What a client of each format understands of an answer: strict parsers of the four grammars, streamed and whole.

A stream that breaks its grammar (provider-translation A.1.3, A.4, A.6, A.7) is an AssertionError, not a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

Tree = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Shown:
    """An answer in neutral words. `finish` is the format's own; `usage`: prompt, completion, cached, reasoning.

    `error`: the error object of an answer that is one, or of a stream that ended in one. `tree`: the whole answer, or
    the last event that carries one. `signed`: thinking's opaque parts, whatever they are called.
    """

    text: str = ""
    thoughts: str = ""
    signed: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    finish: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    error: Tree | None = None
    model: str | None = None
    refusal: str = ""
    order: list[str] = field(default_factory=list)
    tree: Tree = field(default_factory=dict)

    def saw(self, kind: str) -> None:
        """Notes what came, in order, each run once."""
        if self.order[-1:] != [kind]:
            self.order.append(kind)


def whole(letter: str, body: bytes) -> Shown:
    """A whole answer, or an error's body."""
    tree = orjson.loads(body)
    shown = Shown(tree=tree)
    if tree.get("error") is not None:
        shown.error = tree["error"]
        return shown
    _WHOLE[letter](tree, shown)
    return shown


def stream(letter: str, data: bytes) -> Shown:
    """A streamed answer."""
    shown = Shown()
    if letter == "GG" and data.lstrip()[:1] == b"[":
        events: list[tuple[str, Any]] = [("", one) for one in orjson.loads(data)]
    else:
        events = frames(data)
    _STREAM[letter](events, shown)
    return shown


def frames(data: bytes) -> list[tuple[str, Any]]:
    """Event names and data; comments are left out, everything else must be whole events of JSON, or `[DONE]`."""
    text = data.decode("utf-8").replace("\r\n", "\n")
    assert not text or text.endswith("\n\n"), text[-80:]
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        name, payload = "", []
        for line in block.split("\n"):
            if line.startswith(":") or not line:
                continue
            key, _, value = line.partition(":")
            assert key in ("event", "data"), line
            if key == "event":
                name = value.removeprefix(" ")
            else:
                payload.append(value.removeprefix(" "))
        if payload:
            joined = "\n".join(payload)
            found.append((name, joined if joined.strip() == "[DONE]" else orjson.loads(joined)))
    return found


# OpenAI chat.


def _oc_usage(usage: Tree | None, shown: Shown) -> None:
    if usage:
        shown.usage = {
            "prompt": usage["prompt_tokens"],
            "completion": usage["completion_tokens"],
            "cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            "reasoning": (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
        }
        assert usage["total_tokens"] >= usage["prompt_tokens"] + usage["completion_tokens"]


def _oc_message(message: Tree, shown: Shown) -> None:
    for name, kind in (("reasoning_content", "thought"), ("content", "text"), ("refusal", "refusal")):
        if message.get(name):
            assert isinstance(message[name], str)
            shown.saw(kind)
    shown.text += message.get("content") or ""
    shown.thoughts += message.get("reasoning_content") or ""
    shown.refusal += message.get("refusal") or ""
    for detail in message.get("reasoning_details") or ():
        value = detail.get("signature") or detail.get("data")
        if value:
            shown.saw("signed")
            shown.signed.append(value)


def _oc_whole(tree: Tree, shown: Shown) -> None:
    assert tree["object"] == "chat.completion"
    assert isinstance(tree["id"], str)
    assert isinstance(tree["created"], int)
    shown.model = tree["model"]
    choice = tree["choices"][0]
    assert choice["index"] == 0
    message = choice["message"]
    assert message["role"] == "assistant"
    assert "content" in message
    assert "refusal" in message
    assert "logprobs" in choice
    _oc_message(message, shown)
    for call in message.get("tool_calls") or ():
        assert call["type"] == "function"
        shown.saw("call")
        shown.calls.append((call["id"], call["function"]["name"], call["function"]["arguments"]))
    shown.finish = choice["finish_reason"]
    _oc_usage(tree.get("usage"), shown)


def _oc_stream(events: list[tuple[str, Any]], shown: Shown) -> None:
    assert events
    last = events.pop()[1]
    if isinstance(last, dict) and last.get("error") is not None:
        shown.error = last["error"]
    else:
        assert last == "[DONE]", last
    envelope: set[tuple[Any, ...]] = set()
    finished: dict[int, str] = {}
    roles: set[int] = set()
    for number, (_, event) in enumerate(events):
        assert event["object"] == "chat.completion.chunk", event
        envelope.add((event["id"], event["created"], event["model"]))
        if event.get("usage") is not None:
            assert not any(one.get("delta", {}).get("content") for one in event["choices"])
            _oc_usage(event["usage"], shown)
            assert all(not later.get("choices") for _, later in events[number + 1 :]), "usage is last"
        for choice in event["choices"]:
            index = choice["index"]
            assert index not in finished, "something after the finish"
            delta = choice["delta"]
            if index not in roles:
                assert delta.get("role") == "assistant", "the role comes first"
                roles.add(index)
            else:
                assert not delta.get("role"), "one role per choice"
            if index == 0:
                _oc_delta(delta, shown)
            if choice.get("finish_reason"):
                finished[index] = choice["finish_reason"]
    assert len(envelope) <= 1, envelope
    shown.model = next(iter(envelope))[2] if envelope else None
    shown.finish = finished.get(0)
    assert shown.error is not None or set(finished) == roles, "each choice has its finish"


def _oc_delta(delta: Tree, shown: Shown) -> None:
    _oc_message(delta, shown)
    for call in delta.get("tool_calls") or ():
        shown.saw("call")
        if call.get("id"):
            assert call["index"] == len(shown.calls), "calls are counted from 0"
            assert call["type"] == "function"
            function = call["function"]
            shown.calls.append((call["id"], function["name"], function.get("arguments") or ""))
        else:
            id, name, arguments = shown.calls[call["index"]]
            shown.calls[call["index"]] = (id, name, arguments + call["function"]["arguments"])


# OpenAI Responses.


def _or_whole(tree: Tree, shown: Shown) -> None:
    assert tree["object"] == "response"
    assert isinstance(tree["id"], str)
    assert isinstance(tree["created_at"], (int, float))
    assert tree["status"] in ("completed", "incomplete", "failed")
    shown.model, shown.tree = tree["model"], tree
    reason = (tree.get("incomplete_details") or {}).get("reason")
    shown.finish = f"incomplete:{reason}" if reason else tree["status"]
    for item in tree["output"]:
        _or_item(item, shown)
    usage = tree.get("usage")
    if usage:
        shown.usage = {
            "prompt": usage["input_tokens"],
            "completion": usage["output_tokens"],
            "cached": usage["input_tokens_details"]["cached_tokens"],
            "reasoning": usage["output_tokens_details"]["reasoning_tokens"],
        }
        assert usage["total_tokens"] >= usage["input_tokens"] + usage["output_tokens"]


def _or_item(item: Tree, shown: Shown) -> None:
    match item["type"]:
        case "message":
            assert item["role"] == "assistant"
            for part in item["content"]:
                shown.saw("refusal" if part["type"] == "refusal" else "text")
                shown.text += part.get("text", "")
                shown.refusal += part.get("refusal", "")
        case "function_call":
            shown.saw("call")
            shown.calls.append((item["call_id"], item["name"], item["arguments"]))
        case "reasoning":
            texts = [one["text"] for one in (*(item.get("summary") or ()), *(item.get("content") or ()))]
            if any(texts):
                shown.saw("thought")
            shown.thoughts += "".join(texts)
            if item.get("encrypted_content"):
                shown.saw("signed")
                shown.signed.append(item["encrypted_content"])


_OR_LAST: Final = ("response.completed", "response.incomplete", "response.failed", "error")


def _or_stream(events: list[tuple[str, Any]], shown: Shown) -> None:
    assert events
    assert all(isinstance(event, dict) for _, event in events), "no terminator in this format"
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    assert all(name == event["type"] for name, event in events)
    kinds = [event["type"] for _, event in events]
    last = events[-1][1]
    assert kinds[-1] in _OR_LAST
    assert not set(kinds[:-1]) & set(_OR_LAST)
    if last["type"] == "error":
        shown.error = last.get("error") or last
    else:
        assert kinds[:2] == ["response.created", "response.in_progress"]
        _or_whole(last["response"], shown)
        shown.error = last["response"].get("error")
    done: list[Tree] = []
    said: dict[int, str] = {}
    for _, event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(done), "items do not interleave"
            said[event["output_index"]] = ""
        elif kind == "response.output_item.done":
            assert event["output_index"] == len(done)
            _or_agrees(event["item"], said[len(done)])
            done.append(event["item"])
        elif kind.endswith(".delta"):
            said[event["output_index"]] += event["delta"]
    if shown.error is None:
        assert last["response"]["output"] == done
    elif not shown.order:
        shown.text = "".join(said.values())


def _or_agrees(item: Tree, said: str) -> None:
    match item["type"]:
        case "message":
            assert said == "".join(one.get("text", one.get("refusal", "")) for one in item["content"])
        case "function_call":
            assert said == item["arguments"]


# Anthropic.


def _am_usage(usage: Tree, shown: Shown) -> None:
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    if usage.get("input_tokens") is not None:
        shown.usage["prompt"] = usage["input_tokens"] + read + written
        shown.usage["cached"] = read
    shown.usage["completion"] = usage["output_tokens"]
    shown.usage["reasoning"] = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0


def _am_block(block: Tree, shown: Shown) -> None:
    match block["type"]:
        case "text":
            shown.saw("text")
            shown.text += block["text"]
        case "thinking":
            if block["thinking"]:
                shown.saw("thought")
            shown.thoughts += block["thinking"]
            if block["signature"]:
                shown.saw("signed")
                shown.signed.append(block["signature"])
        case "redacted_thinking":
            shown.saw("signed")
            shown.signed.append(block["data"])
        case "tool_use":
            shown.saw("call")
            shown.calls.append((block["id"], block["name"], orjson.dumps(block["input"]).decode()))


def _am_whole(tree: Tree, shown: Shown) -> None:
    assert tree["type"] == "message"
    assert tree["role"] == "assistant"
    assert isinstance(tree["id"], str)
    shown.model, shown.finish = tree["model"], tree["stop_reason"]
    for block in tree["content"]:
        _am_block(block, shown)
    _am_usage(tree["usage"], shown)
    if tree.get("stop_details"):
        shown.refusal = tree["stop_details"].get("explanation") or ""


_AM_FIELDS: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "partial"),
}


def _am_stream(events: list[tuple[str, Any]], shown: Shown) -> None:
    assert events
    assert all(name == event["type"] for name, event in events)
    told = [event for _, event in events if event["type"] != "ping"]
    last = told.pop()
    if last["type"] == "error":
        shown.error = last["error"]
    else:
        assert last == {"type": "message_stop"}, last
    if not told:
        return
    start = told.pop(0)
    assert start["type"] == "message_start"
    message = start["message"]
    assert message["content"] == []
    assert message["stop_reason"] is None
    shown.model = message["model"]
    _am_usage(message["usage"], shown)
    blocks: list[Tree] = []
    opened: Tree | None = None
    for event in told:
        match event["type"]:
            case "content_block_start":
                assert opened is None, "blocks do not interleave"
                assert event["index"] == len(blocks), "indexes are dense"
                opened = {**event["content_block"], "partial": ""}
                blocks.append(opened)
            case "content_block_delta":
                assert opened is not None
                assert event["index"] == len(blocks) - 1
                if event["delta"]["type"] in _AM_FIELDS:
                    source, field_ = _AM_FIELDS[event["delta"]["type"]]
                    opened[field_] += event["delta"][source]
            case "content_block_stop":
                assert opened is not None
                assert event["index"] == len(blocks) - 1
                opened = None
            case "message_delta":
                assert opened is None
                shown.finish = event["delta"]["stop_reason"]
                shown.refusal = (event["delta"].get("stop_details") or {}).get("explanation") or ""
                _am_usage(event["usage"], shown)
    assert shown.error is not None or told[-1]["type"] == "message_delta"
    for block in blocks:
        if block["type"] == "tool_use" and (block["partial"] or shown.error is None):
            block["input"] = orjson.loads(block["partial"] or "{}") if shown.error is None else {}
        _am_block(block, shown)
    shown.tree = {"content": blocks}


# Gemini.


def _gg_usage(usage: Tree, shown: Shown) -> None:
    thoughts = usage.get("thoughtsTokenCount") or 0
    shown.usage = {
        "prompt": (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0),
        "completion": (usage.get("candidatesTokenCount") or 0) + thoughts,
        "cached": usage.get("cachedContentTokenCount") or 0,
        "reasoning": thoughts,
    }


def _gg_whole(tree: Tree, shown: Shown) -> None:
    shown.model = tree.get("modelVersion")
    for candidate in tree["candidates"]:
        if candidate.get("index", 0) != 0:
            continue
        for part in candidate.get("content", {}).get("parts", ()):
            _gg_part(part, shown)
        assert shown.finish is None or not candidate.get("finishReason"), "one finish"
        shown.finish = candidate.get("finishReason") or shown.finish
        shown.refusal = candidate.get("finishMessage") or shown.refusal
    if tree.get("usageMetadata"):
        _gg_usage(tree["usageMetadata"], shown)


def _gg_part(part: Tree, shown: Shown) -> None:
    if "functionCall" in part:
        call = part["functionCall"]
        shown.saw("call")
        shown.calls.append((call.get("id", ""), call["name"], orjson.dumps(call.get("args", {})).decode()))
    elif part.get("thought"):
        if part.get("text"):
            shown.saw("thought")
        shown.thoughts += part.get("text", "")
    elif part.get("text"):
        shown.saw("text")
        shown.text += part["text"]
    if part.get("thoughtSignature"):
        shown.saw("signed")
        shown.signed.append(part["thoughtSignature"])


def _gg_stream(events: list[tuple[str, Any]], shown: Shown) -> None:
    assert events
    assert all(isinstance(event, dict) for _, event in events), "no terminator in this format"
    for number, (name, event) in enumerate(events):
        assert name in ("", "error")
        if event.get("error") is not None:
            assert number == len(events) - 1
            shown.error = event["error"]
            return
        assert shown.finish is None or not any(one.get("content", {}).get("parts") for one in event["candidates"])
        _gg_whole(event, shown)
    assert shown.finish, "a finish"


# Prompts.


def _co_whole(tree: Tree, shown: Shown) -> None:
    assert tree["object"] == "text_completion"
    shown.model = tree["model"]
    (choice,) = tree["choices"]
    shown.text, shown.finish = choice["text"], choice["finish_reason"]
    _oc_usage(tree.get("usage"), shown)


def _co_stream(events: list[tuple[str, Any]], shown: Shown) -> None:
    last = events.pop()[1]
    if isinstance(last, dict):
        shown.error = last["error"]
    else:
        assert last == "[DONE]", last
    for _, event in events:
        assert event["object"] == "text_completion"
        shown.model = event["model"]
        _oc_usage(event.get("usage"), shown)
        for choice in event["choices"]:
            assert shown.finish is None, "something after the finish"
            shown.text += choice["text"]
            shown.finish = choice["finish_reason"]
    assert shown.error is not None or shown.finish


_WHOLE: Final = {"CO": _co_whole, "OC": _oc_whole, "OR": _or_whole, "AM": _am_whole, "GG": _gg_whole}
_STREAM: Final = {"CO": _co_stream, "OC": _oc_stream, "OR": _or_stream, "AM": _am_stream, "GG": _gg_stream}

FINISHES: Final[dict[str, dict[str, str]]] = {
    "stop": {"CO": "stop", "OC": "stop", "OR": "completed", "AM": "end_turn", "GG": "STOP"},
    "tool_calls": {"OC": "tool_calls", "OR": "completed", "AM": "tool_use", "GG": "STOP"},
    "length": {"OC": "length", "OR": "incomplete:max_output_tokens", "AM": "max_tokens", "GG": "MAX_TOKENS"},
    "content_filter": {"OC": "content_filter", "OR": "incomplete:content_filter", "AM": "refusal", "GG": "SAFETY"},
    "refusal": {"OC": "content_filter", "OR": "completed", "AM": "refusal", "GG": "PROHIBITED_CONTENT"},
    "context_overflow": {
        "OC": "length",
        "OR": "incomplete:max_output_tokens",
        "AM": "model_context_window_exceeded",
        "GG": "MAX_TOKENS",
    },
    "pause": {"OC": "stop", "OR": "completed", "AM": "pause_turn", "GG": "STOP"},
}
"""How each format says why an answer ended (provider-translation A.1.2, A.4, A.6, A.7)."""
