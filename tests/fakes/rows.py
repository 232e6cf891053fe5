"""Rows of the acceptance table as data: what a client sends, what must go out; what came back, what the client gets.

A client is `OC` (chat completions) or `AM` (messages). Answers are read back with parsers of their own, strict about
the grammar: the role first and once, one finish per choice, calls numbered from 0, one terminator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Adapter, Dialect, Outgoing, Target, speaks
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import fold
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.relay.tagged import Tagged
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.anthropic import MESSAGES
from newapi_proxy.surfaces.base import Face, Surface
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.tree import Document
from tests.fakes.golden import streamed

OC, AM = "OC", "AM"
SURFACES: dict[str, Surface] = {OC: CHAT, AM: MESSAGES}
NOW = 1_750_000_000
HI = [{"role": "user", "content": "Hi"}]


@dataclass
class Got:
    """What a client understood of an answer."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # id, name, arguments
    finish: str | None = None
    usage: tuple[int, int, int] | None = None  # prompt, completion, of the prompt cached
    error: dict[str, Any] | None = None
    model: str | None = None
    raw: bytes = b""


def ask(client: str, **body: Any) -> Ask:
    """The client's request; one user message where the body says nothing else."""
    whole = {"model": "m", "messages": HI, **({"max_tokens": 512} if client == AM else {}), **body}
    if client == OC and whole.get("stream"):
        whole.setdefault("stream_options", {"include_usage": True})
    return SURFACES[client].read(orjson.dumps(whole), {})


def adapter(type_: str, **options: Any) -> tuple[Adapter, Any]:
    """The provider as a channel with these options has it."""
    one = ADAPTERS[type_]
    settings = one.options(**options)
    return (one if one.tuned is None else msgspec.structs.replace(one, chat=one.tuned(settings))), settings


def dialect(client: str, type_: str, model: str = "m", **options: Any) -> Dialect:
    """The provider's dialect for the client."""
    one, settings = adapter(type_, **options)
    found = speaks(one, SURFACES[client].dialect, model)
    assert found is not None
    return Tagged(found) if settings.think_tags else found


def sent(
    asked: Ask, type_: str, model: str = "m", *, base_url: str | None = None, key: str = "k", **options: Any
) -> Outgoing:
    """What goes out for the ask."""
    one, settings = adapter(type_, **options)
    found = speaks(one, asked.dialect, model)
    assert found is not None
    to = Target(
        channel="c",
        base_url=one.base_url if base_url is None else base_url,
        key=Secret(key),
        model=model,
        options=settings,
        now=NOW,
    )
    return found.request(asked, to)


def got(client: str, type_: str, upstream: bytes, *, stream: bool = False, rename: bool = False, **options: Any) -> Got:
    """What the client makes of a 200; a stream is cut at every byte too, which must change nothing."""
    asked, speaker = ask(client, stream=stream), SURFACES[client]
    one = dialect(client, type_, **options)
    face = Face(model="m", id="chatcmpl-made", created=NOW, rename=rename or ADAPTERS[type_].aliases)
    if stream:
        at_once = streamed(pipe(speaker, one, asked, face), [upstream])
        bytewise = streamed(pipe(speaker, one, asked, face), [upstream[at : at + 1] for at in range(len(upstream))])
        first, second = read(client, at_once, True), read(client, bytewise, True)
        first.raw = second.raw = at_once
        assert first == second
        return first
    events = one.answer(asked, Document(upstream))
    told = fold(events)
    if told.failure is not None:
        return Got(error=orjson.loads(speaker.failure(told.failure, "r"))["error"])
    usage = told.usage or NOTHING
    if one.dialect == speaker.dialect:
        return read(client, speaker.same(asked, face, Document(upstream), usage), False)
    return read(client, speaker.answer(asked, face, events, usage), False)


def failure(type_: str, status: int, body: Any, client: str = OC, **headers: str) -> UpstreamFailure:
    """The provider's error in our terms."""
    return dialect(client, type_).failure(status, headers, body if isinstance(body, bytes) else orjson.dumps(body))


def read(client: str, data: bytes, stream: bool) -> Got:
    """What a client of this format understands."""
    if client == OC:
        return _chat_stream(data) if stream else _chat(orjson.loads(data))
    return _messages_stream(data) if stream else _message(orjson.loads(data))


def sse(*chunks: Any, done: bool = True) -> bytes:
    """A stream of these payloads; bytes go in as they are."""
    parts = [one if isinstance(one, bytes) else b"data: " + orjson.dumps(one) + b"\n\n" for one in chunks]
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of one choice."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more.pop("choice", {})}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return {**head, "choices": [choice], **more}


def whole(message: Any, finish: str | None = "stop", **more: Any) -> bytes:
    """A whole answer of one choice."""
    head = {"id": "c1", "object": "chat.completion", "created": 5, "model": "m"}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return orjson.dumps({**head, "choices": [choice], "usage": usage, **more})


def _counts(usage: dict[str, Any]) -> tuple[int, int, int]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or usage.get("prompt_cache_hit_tokens")
    return usage["prompt_tokens"], usage["completion_tokens"], cached or usage.get("num_cached_tokens") or 0


def _chat(node: dict[str, Any]) -> Got:
    (choice,) = node["choices"]
    message = choice["message"]
    assert message["role"] == "assistant"
    calls = [
        (one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls") or []
    ]
    return Got(
        text=message["content"] or "",
        thought=message.get("reasoning_content") or "",
        calls=calls,
        finish=choice["finish_reason"],
        usage=_counts(node["usage"]),
        model=node["model"],
        raw=orjson.dumps(node),
    )


def _chat_stream(data: bytes) -> Got:
    out = Got()
    frames = [one for one in data.split(b"\n\n") if one and not one.startswith(b":")]
    payloads = [one.removeprefix(b"data: ") for one in frames]
    nodes = [orjson.loads(one) for one in payloads if one != b"[DONE]"]
    if nodes and "error" in nodes[-1]:
        out.error = nodes.pop()["error"]
        assert b"[DONE]" not in payloads
    else:
        assert payloads.index(b"[DONE]") == len(payloads) - 1
    begun = False
    for node in nodes:
        assert node["object"] == "chat.completion.chunk"
        out.model = node["model"]
        if node.get("usage"):
            assert out.usage is None
            assert node["choices"] == []
            out.usage = _counts(node["usage"])
        for choice in node["choices"]:
            delta = choice["delta"]
            assert ("role" in delta) is not begun, "the role stands on the first delta alone"
            begun = True
            assert out.finish is None, "nothing follows the finish"
            _chat_delta(out, delta)
            out.finish = choice.get("finish_reason")
    return out


def _chat_delta(out: Got, delta: dict[str, Any]) -> None:
    out.text += delta.get("content") or ""
    out.thought += delta.get("reasoning_content") or ""
    for call in delta.get("tool_calls") or []:
        if call["index"] == len(out.calls):
            assert call["type"] == "function"
            out.calls.append((call["id"], call["function"]["name"], ""))
        id_, name, text = out.calls[call["index"]]
        out.calls[call["index"]] = (id_, name, text + (call["function"].get("arguments") or ""))


def _message(node: dict[str, Any]) -> Got:
    out = Got(finish=node["stop_reason"], model=node["model"], raw=orjson.dumps(node))
    for block in node["content"]:
        match block["type"]:
            case "text":
                out.text += block["text"]
            case "thinking":
                out.thought += block["thinking"]
            case "tool_use":
                out.calls.append((block["id"], block["name"], orjson.dumps(block["input"]).decode()))
    out.usage = _tokens(node["usage"])
    return out


def _tokens(usage: dict[str, Any]) -> tuple[int, int, int]:
    cached = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return usage["input_tokens"] + cached + written, usage["output_tokens"], cached


def _messages_stream(data: bytes) -> Got:
    out = Got()
    place = -1
    for frame in data.split(b"\n\n"):
        found = re.fullmatch(rb"event: (\w+)\ndata: (.*)", frame)
        if found is None:
            assert not frame.strip(), frame
            continue
        node = orjson.loads(found[2])
        assert node["type"] == found[1].decode()
        match node["type"]:
            case "message_start":
                out.model = node["message"]["model"]
            case "content_block_start":
                place += 1
                assert node["index"] == place
                if node["content_block"]["type"] == "tool_use":
                    out.calls.append((node["content_block"]["id"], node["content_block"]["name"], ""))
            case "content_block_delta":
                assert node["index"] == place
                _block_delta(out, node["delta"])
            case "message_delta":
                assert out.finish is None
                out.finish = node["delta"]["stop_reason"]
                out.usage = _tokens(node["usage"])
            case "error":
                out.error = node["error"]
    assert out.error is not None or data.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    return out


def _block_delta(out: Got, delta: dict[str, Any]) -> None:
    out.text += delta.get("text", "")
    out.thought += delta.get("thinking", "")
    if "partial_json" in delta:
        id_, name, text = out.calls[-1]
        out.calls[-1] = (id_, name, text + delta["partial_json"])
