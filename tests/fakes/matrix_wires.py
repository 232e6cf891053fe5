"""What providers say, in each wire format: one neutral `Say` told whole, streamed, or as an error.

The format is known by the request's path, as a provider knows it. Sources: provider-translation B.1-B.9.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson

from tests.fakes import scripted
from tests.fakes.scripted import Say, Seen, data_frame

Tree = dict[str, Any]
NOW: Final = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a provider gets it."""

    url: str
    raw: bytes

    @property
    def path(self) -> str:
        """The path, as sent."""
        return urlsplit(self.url).path

    @property
    def body(self) -> Tree:
        """The body as JSON; {} for none."""
        try:
            value = orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def model(self) -> str:
        """The model's name, from the body or from the path."""
        return str(self.body.get("model") or unquote(self.path.rpartition("models/")[2].partition(":")[0]) or "m")


@dataclass(frozen=True, slots=True)
class Told:
    """A provider's answer."""

    status: int
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Wire:
    """A format: how it answers whole, streamed and with an error, and how a request asks for a stream."""

    name: str
    whole: Callable[[Asked, Say], Any]
    stream: Callable[[Asked, Say], Iterator[bytes]]
    error: Callable[[Say], Any]
    streamed: Callable[[Asked], bool] = lambda asked: bool(asked.body.get("stream"))
    kind: str = "text/event-stream"

    def answer(self, asked: Asked, say: Say) -> Told:
        """What the request gets; a token is granted whatever comes then."""
        if say.status != 200 and self.name != "token":
            return Told(say.status, "application/json", orjson.dumps(self.error(say)))
        if self.streamed(asked):
            return Told(200, self.kind, b"".join(self.stream(asked, say)))
        return Told(200, "application/json", orjson.dumps(self.whole(asked, say)))


def wire(asked: Asked) -> Wire:
    """The format of a request. Fails with its address where no script knows it."""
    for marks, found in _PATHS:
        if any(mark in asked.url for mark in marks):
            return found
    raise AssertionError(f"no script for {asked.url}: write one in tests/fakes/matrix_wires.py")


def answer(url: str, raw: bytes, say: Say) -> Told:
    """What a provider answers to a request."""
    asked = Asked(url, raw)
    return wire(asked).answer(asked, say)


def _halves(text: str) -> tuple[str, ...]:
    middle = len(text) // 2
    return tuple(piece for piece in (text[:middle], text[middle:]) if piece)


# OpenAI chat and Anthropic messages are those of the scripted provider.


def _seen(asked: Asked, path: str) -> Seen:
    return Seen(path=path, headers={}, body={"model": asked.model, **asked.body})


def _chat_whole(asked: Asked, say: Say) -> Tree:
    return scripted.whole(_seen(asked, "/chat/completions"), say)


def _chat_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    return scripted.stream(_seen(asked, "/chat/completions"), say)


_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def _kind(say: Say) -> str:
    return _KINDS.get(say.status, "api_error")


def _chat_error(say: Say) -> Tree:
    return {"error": {"message": say.message, "type": _kind(say), "param": None, "code": None}}


def _claude_whole(asked: Asked, say: Say) -> Tree:
    return scripted.whole(_seen(asked, "/v1/messages"), say)


def _claude_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    return scripted.stream(_seen(asked, "/v1/messages"), say)


def _claude_error(say: Say) -> Tree:
    return {"type": "error", "error": {"type": _kind(say), "message": say.message}, "request_id": "req_1"}


# Plain completions.


def _plain(asked: Asked, say: Say, text: str, finish: str | None, usage: bool) -> Tree:
    told = {"prompt_tokens": say.prompt, "completion_tokens": say.completion}
    choices = (
        [] if usage and finish is None else [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]
    )
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": NOW,
        "model": asked.model,
        "choices": choices,
        "usage": {**told, "total_tokens": say.prompt + say.completion} if usage else None,
    }


def _plain_whole(asked: Asked, say: Say) -> Tree:
    return _plain(asked, say, say.text, "stop", True)


def _plain_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for piece in _halves(say.text):
        yield data_frame(_plain(asked, say, piece, None, False))
    yield data_frame(_plain(asked, say, "", "stop", False))
    yield data_frame(_plain(asked, say, "", None, True))
    yield b"data: [DONE]\n\n"


# OpenAI Responses.


def _items(say: Say) -> list[Tree]:
    items: list[Tree] = []
    if say.thinking:
        summary = [{"type": "summary_text", "text": say.thinking}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": say.signature or "e"})
    if say.text:
        part = {"type": "output_text", "text": say.text, "annotations": []}
        items.append({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]})
    for id, name, tree in say.calls:
        call = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "status": "completed"}
        items.append({**call, "arguments": orjson.dumps(tree).decode()})
    return items


def _response(asked: Asked, say: Say, status: str = "completed") -> Tree:
    usage = {
        "input_tokens": say.prompt,
        "input_tokens_details": {"cached_tokens": say.cached},
        "output_tokens": say.completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": say.prompt + say.completion,
    }
    done = status == "completed"
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": NOW,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": asked.model,
        "output": _items(say) if done else [],
        "parallel_tool_calls": True,
        "metadata": {},
        "tool_choice": "auto",
        "tools": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "usage": usage if done else None,
    }


def _response_events(asked: Asked, say: Say) -> Iterator[Tree]:
    yield {"type": "response.created", "response": _response(asked, say, "in_progress")}
    yield {"type": "response.in_progress", "response": _response(asked, say, "in_progress")}
    for index, item in enumerate(_items(say)):
        empty = {"content": [], "arguments": "", "summary": []}
        skeleton = {name: empty.get(name, value) for name, value in item.items()}
        yield {"type": "response.output_item.added", "output_index": index, "item": skeleton}
        yield from ({**event, "output_index": index, "item_id": item["id"]} for event in _item_events(item))
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": _response(asked, say)}


def _item_events(item: Tree) -> Iterator[Tree]:
    if item["type"] == "message":
        part = item["content"][0]
        place = {"content_index": 0}
        yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
        for piece in _halves(part["text"]):
            yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": part}
    elif item["type"] == "function_call":
        for piece in _halves(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", "delta": piece}
        yield {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": item["name"]}
    else:
        place, part = {"summary_index": 0}, item["summary"][0]
        yield {"type": "response.reasoning_summary_part.added", **place, "part": {**part, "text": ""}}
        for piece in _halves(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
        yield {"type": "response.reasoning_summary_text.done", **place, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **place, "part": part}


def _response_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for number, event in enumerate(_response_events(asked, say)):
        yield b"event: " + event["type"].encode() + b"\n" + data_frame({**event, "sequence_number": number})


# Gemini, at Google's two hosts.


def _gemini_parts(say: Say) -> list[Tree]:
    parts: list[Tree] = []
    if say.thinking:
        parts.append({"text": say.thinking, "thought": True})
    if say.text:
        parts.append({"text": say.text})
    return parts + [{"functionCall": {"id": id, "name": name, "args": tree}} for id, name, tree in say.calls]


def _gemini(asked: Asked, say: Say, parts: list[Tree], last: bool = True) -> Tree:
    candidate: Tree = {"content": {"role": "model", "parts": parts}, "index": 0}
    usage = {"promptTokenCount": say.prompt, "totalTokenCount": say.prompt + say.completion}
    if say.cached:
        usage["cachedContentTokenCount"] = say.cached
    if last:
        candidate["finishReason"] = "STOP"
        usage["candidatesTokenCount"] = say.completion
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": asked.model,
        "responseId": "gemini-1",
    }


def _gemini_whole(asked: Asked, say: Say) -> Tree:
    return _gemini(asked, say, _gemini_parts(say))


def _gemini_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for part in _gemini_parts(say):
        pieces = [{**part, "text": text} for text in _halves(part["text"])] if "text" in part else [part]
        for piece in pieces:
            yield data_frame(_gemini(asked, say, [piece], last=False))
    yield data_frame(_gemini(asked, say, [{"text": ""}]))


def _google_error(say: Say) -> Tree:
    return {"error": {"code": say.status, "message": say.message, "status": "RESOURCE_EXHAUSTED"}}


# Bedrock: Converse, and Claude's own body in binary frames.


def _converse_blocks(say: Say) -> list[Tree]:
    blocks: list[Tree] = []
    if say.thinking:
        blocks.append({"reasoningContent": {"reasoningText": {"text": say.thinking, "signature": say.signature}}})
    if say.text:
        blocks.append({"text": say.text})
    return blocks + [{"toolUse": {"toolUseId": id, "name": name, "input": tree}} for id, name, tree in say.calls]


def _converse_usage(say: Say) -> Tree:
    usage = {"inputTokens": say.prompt - say.cached, "outputTokens": say.completion}
    usage["totalTokens"] = say.prompt + say.completion
    return usage | ({"cacheReadInputTokens": say.cached} if say.cached else {})


def _converse_whole(asked: Asked, say: Say) -> Tree:
    return {
        "output": {"message": {"role": "assistant", "content": _converse_blocks(say)}},
        "stopReason": "tool_use" if say.calls else "end_turn",
        "usage": _converse_usage(say),
        "metrics": {"latencyMs": 1},
    }


def _converse_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    yield aws_frame("messageStart", {"role": "assistant", "p": "abc"})
    for index, block in enumerate(_converse_blocks(say)):
        for kind, tree in _converse_events(block):
            yield aws_frame(kind, {"contentBlockIndex": index, **tree, "p": "ab"})
    yield aws_frame("messageStop", {"stopReason": "tool_use" if say.calls else "end_turn"})
    yield aws_frame("metadata", {"usage": _converse_usage(say), "metrics": {"latencyMs": 1}})


def _converse_events(block: Tree) -> Iterator[tuple[str, Tree]]:
    if "text" in block:
        for piece in _halves(block["text"]):
            yield "contentBlockDelta", {"delta": {"text": piece}}
    elif "toolUse" in block:
        call = block["toolUse"]
        yield "contentBlockStart", {"start": {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}}
        for piece in _halves(orjson.dumps(call["input"]).decode()):
            yield "contentBlockDelta", {"delta": {"toolUse": {"input": piece}}}
    else:
        thought = block["reasoningContent"]["reasoningText"]
        yield "contentBlockDelta", {"delta": {"reasoningContent": {"text": thought["text"]}}}
        if thought["signature"]:
            yield "contentBlockDelta", {"delta": {"reasoningContent": {"signature": thought["signature"]}}}
    yield "contentBlockStop", {}


def _invoke_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for frame in _claude_stream(asked, say):
        data = frame.partition(b"data: ")[2].strip()
        yield aws_frame("chunk", {"bytes": base64.b64encode(data).decode(), "p": "abcd"})


def aws_frame(kind: str, tree: Tree, message: str = "event") -> bytes:
    """One frame of AWS's binary event stream, checksums included."""
    named = ":exception-type" if message == "exception" else ":event-type"
    pairs = ((named, kind), (":content-type", "application/json"), (":message-type", message))
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in pairs
    )
    payload = orjson.dumps(tree)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def _aws_error(say: Say) -> Tree:
    return {"message": say.message}


# Ollama: lines of JSON.


def _ollama_message(say: Say) -> Tree:
    message: Tree = {"role": "assistant", "content": say.text}
    if say.thinking:
        message["thinking"] = say.thinking
    if say.calls:
        message["tool_calls"] = [
            {"id": id, "function": {"index": index, "name": name, "arguments": tree}}
            for index, (id, name, tree) in enumerate(say.calls)
        ]
    return message


def _ollama(asked: Asked, message: Tree, **more: Any) -> Tree:
    return {
        "model": asked.model,
        "created_at": "2026-01-02T03:04:05.678901234Z",
        "message": message,
        "done": False,
        **more,
    }


def _ollama_end(say: Say) -> Tree:
    return {"done": True, "done_reason": "stop", "prompt_eval_count": say.prompt, "eval_count": say.completion}


def _ollama_whole(asked: Asked, say: Say) -> Tree:
    return _ollama(asked, _ollama_message(say), **_ollama_end(say))


def _ollama_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    whole = _ollama_message(say)
    for name in ("thinking", "content"):
        for piece in _halves(whole.get(name, "")):
            yield _line(_ollama(asked, {"role": "assistant", "content": "", name: piece}))
    for call in whole.get("tool_calls", ()):
        yield _line(_ollama(asked, {"role": "assistant", "content": "", "tool_calls": [call]}))
    yield _line(_ollama(asked, {"role": "assistant", "content": ""}, **_ollama_end(say)))


def _generated_whole(asked: Asked, say: Say) -> Tree:
    return _generated(asked, say.text, **_ollama_end(say))


def _generated(asked: Asked, text: str, **more: Any) -> Tree:
    return {"model": asked.model, "created_at": "2026-01-02T03:04:05.678Z", "response": text, "done": False, **more}


def _generated_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for piece in _halves(say.text):
        yield _line(_generated(asked, piece))
    yield _line(_generated(asked, "", **_ollama_end(say)))


def _line(tree: Tree) -> bytes:
    return orjson.dumps(tree) + b"\n"


def _ollama_error(say: Say) -> Tree:
    return {"error": say.message}


# Cohere.


def _cohere_whole(asked: Asked, say: Say) -> Tree:
    content: list[Tree] = [{"type": "thinking", "thinking": say.thinking}] if say.thinking else []
    content += [{"type": "text", "text": say.text}] if say.text else []
    message: Tree = {"role": "assistant", "content": content}
    if say.calls:
        message["tool_calls"] = [_cohere_call(*one) for one in say.calls]
    finish = "TOOL_CALL" if say.calls else "COMPLETE"
    return {"id": "cohere-1", "message": message, "finish_reason": finish, "usage": _cohere_usage(say)}


def _cohere_call(id: str, name: str, tree: Tree) -> Tree:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": orjson.dumps(tree).decode()}}


def _cohere_usage(say: Say) -> Tree:
    return {
        "billed_units": {"input_tokens": say.prompt, "output_tokens": say.completion},
        "tokens": {"input_tokens": say.prompt + 500, "output_tokens": say.completion},
        "cached_tokens": say.cached,
    }


def _cohere_events(say: Say) -> Iterator[Tree]:
    yield {"type": "message-start", "id": "cohere-1", "delta": {"message": {"role": "assistant", "content": []}}}
    index = 0
    for kind, text in (("thinking", say.thinking), ("text", say.text)):
        if not text:
            continue
        start = {"message": {"content": {"type": kind, kind: ""}}}
        yield {"type": "content-start", "index": index, "delta": start}
        for piece in _halves(text):
            yield {"type": "content-delta", "index": index, "delta": {"message": {"content": {kind: piece}}}}
        yield {"type": "content-end", "index": index}
        index += 1
    for index, one in enumerate(say.calls):
        call = _cohere_call(*one)
        arguments = call["function"]["arguments"]
        empty = {**call, "function": {"name": one[1], "arguments": ""}}
        yield {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": empty}}}
        for piece in _halves(arguments):
            delta = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
            yield {"type": "tool-call-delta", "index": index, "delta": delta}
        yield {"type": "tool-call-end", "index": index}
    finish = "TOOL_CALL" if say.calls else "COMPLETE"
    yield {"type": "message-end", "delta": {"finish_reason": finish, "usage": _cohere_usage(say)}}


def _cohere_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for event in _cohere_events(say):
        yield b"event: " + event["type"].encode() + b"\n" + data_frame(event)
    yield b"data: [DONE]\n\n"


def _cohere_old(say: Say) -> Tree:
    tree: Tree = {"response_id": "r-1", "generation_id": "g-1", "text": say.text, "finish_reason": "COMPLETE"}
    if say.calls:
        tree["tool_calls"] = [{"name": name, "parameters": given} for _, name, given in say.calls]
    return tree | {"meta": _cohere_usage(say)}


def _cohere_old_whole(asked: Asked, say: Say) -> Tree:
    return _cohere_old(say)


def _cohere_old_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    whole = _cohere_old(say)
    yield _line({"event_type": "stream-start", "generation_id": "g-1", "is_finished": False})
    for piece in _halves(say.text):
        yield _line({"event_type": "text-generation", "text": piece, "is_finished": False})
    if say.calls:
        yield _line({"event_type": "tool-calls-generation", "tool_calls": whole["tool_calls"], "is_finished": False})
    end = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": whole, "is_finished": True}
    yield _line(end)


def _cohere_error(say: Say) -> Tree:
    return {"id": "cohere-error", "message": say.message}


# Dify.


def _dify_usage(say: Say) -> Tree:
    total = say.prompt + say.completion
    return {"prompt_tokens": say.prompt, "completion_tokens": say.completion, "total_tokens": total}


def _dify_whole(asked: Asked, say: Say) -> Tree:
    return {
        "event": "message",
        "message_id": "m-1",
        "conversation_id": "c-1",
        "mode": "chat",
        "answer": say.text,
        "metadata": {"usage": _dify_usage(say)},
        "created_at": NOW,
    }


def _dify_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    place = {"conversation_id": "c-1", "message_id": "m-1", "created_at": NOW, "task_id": "t-1"}
    yield b"event: ping\n\n"
    for piece in _halves(say.text):
        yield data_frame({"event": "message", "id": "m-1", "answer": piece, **place})
    yield data_frame({"event": "message_end", "id": "m-1", "metadata": {"usage": _dify_usage(say)}, **place})


def _dify_error(say: Say) -> Tree:
    return {"status": say.status, "code": "too_many_requests", "message": say.message}


# Coze: streams whatever is asked for.


def _coze_frame(event: str, data: Tree) -> bytes:
    return f"event:{event}\n".encode() + b"data:" + orjson.dumps(data) + b"\n\n"


def _coze_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    place = {"conversation_id": "c-1", "bot_id": str(asked.body.get("bot_id"))}
    chat = {"id": "ch-1", **place, "created_at": NOW, "last_error": {"code": 0, "msg": ""}}
    answer = {"id": "m-1", **place, "role": "assistant", "type": "answer", "content_type": "text", "chat_id": "ch-1"}
    yield _coze_frame("conversation.chat.created", {**chat, "status": "created"})
    for piece in _halves(say.thinking):
        yield _coze_frame("conversation.message.delta", {**answer, "content": "", "reasoning_content": piece})
    for piece in _halves(say.text):
        yield _coze_frame("conversation.message.delta", {**answer, "content": piece})
    yield _coze_frame("conversation.message.completed", {**answer, "content": say.text})
    counts = {"token_count": say.prompt + say.completion, "output_count": say.completion, "input_count": say.prompt}
    yield _coze_frame("conversation.chat.completed", {**chat, "status": "completed", "usage": counts})
    yield b'event:done\ndata:"[DONE]"\n\n'


def _coze_error(say: Say) -> Tree:
    return {"code": 4020, "msg": say.message, "detail": {"logid": "l-1"}}


# An account's key becomes a token first.


def _token(asked: Asked, say: Say) -> Tree:
    return {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}


# Cloudflare's and Zhipu's own interfaces.


def _run_whole(asked: Asked, say: Say) -> Tree:
    result: Tree = {"response": say.text, "usage": _dify_usage(say)}
    if say.calls:
        result["tool_calls"] = [{"name": name, "arguments": tree} for _, name, tree in say.calls]
    return {"result": result, "success": True, "errors": [], "messages": []}


def _run_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for piece in _halves(say.text):
        yield data_frame({"response": piece, "p": "abc"})
    end = _run_whole(asked, say)["result"]
    yield data_frame({**end, "response": ""})
    yield b"data: [DONE]\n\n"


def _run_error(say: Say) -> Tree:
    return {"result": None, "success": False, "errors": [{"code": 3036, "message": say.message}], "messages": []}


def _invoked_whole(asked: Asked, say: Say) -> Tree:
    choice = {"role": "assistant", "content": orjson.dumps(say.text).decode()}
    data = {"request_id": "z-1", "task_id": "z-1", "task_status": "SUCCESS", "choices": [choice]}
    return {"code": 200, "msg": "ok", "data": {**data, "usage": _dify_usage(say)}, "success": True}


def _invoked_stream(asked: Asked, say: Say) -> Iterator[bytes]:
    for piece in _halves(say.text):
        yield f"event:add\nid:z-1\ndata:{piece}\n\n".encode()
    meta = orjson.dumps({"task_status": "SUCCESS", "usage": _dify_usage(say), "task_id": "z-1"})
    yield b"event:finish\nid:z-1\ndata:\nmeta:" + meta + b"\n\n"


def _invoked_error(say: Say) -> Tree:
    return {"error": {"code": "1302", "message": say.message}}


CHAT: Final = Wire("chat", _chat_whole, _chat_stream, _chat_error)
PLAIN: Final = Wire("plain", _plain_whole, _plain_stream, _chat_error)
CLAUDE: Final = Wire("claude", _claude_whole, _claude_stream, _claude_error)
RESPONSES: Final = Wire("responses", _response, _response_stream, _chat_error)
GEMINI: Final = Wire(
    "gemini", _gemini_whole, _gemini_stream, _google_error, lambda asked: ":streamGenerateContent" in asked.url
)
CONVERSE: Final = Wire(
    "converse",
    _converse_whole,
    _converse_stream,
    _aws_error,
    lambda asked: asked.path.endswith("-stream"),
    "application/vnd.amazon.eventstream",
)
INVOKE: Final = Wire(
    "invoke",
    _claude_whole,
    _invoke_stream,
    _aws_error,
    lambda asked: asked.path.endswith("-stream"),
    "application/vnd.amazon.eventstream",
)
OLLAMA: Final = Wire(
    "ollama",
    _ollama_whole,
    _ollama_stream,
    _ollama_error,
    lambda asked: asked.body.get("stream", True),
    "application/x-ndjson",
)
GENERATE: Final = Wire(
    "generate",
    _generated_whole,
    _generated_stream,
    _ollama_error,
    lambda asked: asked.body.get("stream", True),
    "application/x-ndjson",
)
TOKEN: Final = Wire("token", _token, lambda asked, say: iter(()), _google_error)
RUN: Final = Wire("run", _run_whole, _run_stream, _run_error)
INVOKED: Final = Wire(
    "invoked", _invoked_whole, _invoked_stream, _invoked_error, lambda asked: asked.path.endswith("/sse-invoke")
)
COHERE_OLD: Final = Wire(
    "cohere-v1", _cohere_old_whole, _cohere_old_stream, _cohere_error, kind="application/stream+json"
)
COHERE: Final = Wire("cohere", _cohere_whole, _cohere_stream, _cohere_error)
DIFY: Final = Wire(
    "dify", _dify_whole, _dify_stream, _dify_error, lambda asked: asked.body.get("response_mode") == "streaming"
)
COZE: Final = Wire("coze", lambda asked, say: {}, _coze_stream, _coze_error)
UPLOADED: Final = {"id": "file-1", "data": {"id": "file-1"}}  # each provider finds it where it looks
UPLOAD: Final = Wire("upload", lambda asked, say: UPLOADED, lambda asked, say: iter(()), _dify_error)
VERTEX_CLAUDE: Final = Wire(
    "vertex-claude", _claude_whole, _claude_stream, _google_error, lambda asked: ":streamRawPredict" in asked.url
)

_PATHS: Final[tuple[tuple[tuple[str, ...], Wire], ...]] = (
    (("/chat/completions", "/chatcompletion_v2", "/verbatim"), CHAT),
    (("/completions",), PLAIN),
    (("/token",), TOKEN),
    (("/ai/run/",), RUN),
    (("/model-api/",), INVOKED),
    ((":streamRawPredict", ":rawPredict"), VERTEX_CLAUDE),
    ((":generateContent", ":streamGenerateContent"), GEMINI),
    (("/converse",), CONVERSE),
    (("/invoke",), INVOKE),
    (("/api/chat",), OLLAMA),
    (("/api/generate",), GENERATE),
    (("/v2/chat",), COHERE),
    (("/chat-messages",), DIFY),
    (("/v3/chat",), COZE),
    (("/v1/chat",), COHERE_OLD),
    (("/messages",), CLAUDE),
    (("/responses",), RESPONSES),
    (("/files/upload",), UPLOAD),
)
