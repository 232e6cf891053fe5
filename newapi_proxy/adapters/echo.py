"""A provider without a network: says the last message back, as a perfect server of the OpenAI format would.

For trying things out and for tests. A last message of the form `{"call": NAME, "arguments": {…}}` (or `{"calls": […]}`)
becomes tool calls where the request has tools. Usage is words, so that a price can be checked by hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from newapi_proxy.adapters._echo_endpoints import ENDPOINTS
from newapi_proxy.adapters._openai_endpoints import Place, embeddings, moderations, rerank
from newapi_proxy.adapters._openai_media import Site, images, speech, transcription
from newapi_proxy.adapters._tools import new_id
from newapi_proxy.adapters.base import Adapter, Outgoing, Target
from newapi_proxy.adapters.openai import OpenAIChat
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.multipart import Upload

Node = dict[str, Any]

PIECE: Final = 12  # characters of arguments in one delta
_WORDS: Final = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")


def answer(outgoing: Outgoing) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body for a request, streamed or whole as it asks."""
    body = outgoing.body if isinstance(outgoing.body, dict) else tree.lenient(_bytes(outgoing.body))
    other = ENDPOINTS.get(urlsplit(outgoing.url).path)
    if other is not None:
        return other(body)
    if type(body) is not dict or type(body.get("messages")) is not list:
        error = {"message": "messages is required", "type": "invalid_request_error", "param": "messages", "code": None}
        return 400, {"content-type": "application/json"}, tree.encode({"error": error})
    at = parse_qs(urlsplit(outgoing.url).query).get("at", ["0"])[0]
    digest = hashlib.sha256(tree.encode(body) + at.encode()).hexdigest()
    reply = _Reply(body, f"chatcmpl-{digest[:29]}", int(at))
    if body.get("stream"):
        return 200, {"content-type": "text/event-stream; charset=utf-8"}, b"".join(reply.stream())
    return 200, {"content-type": "application/json"}, tree.encode(reply.whole())


def _bytes(body: bytes | Upload) -> bytes:
    return body if isinstance(body, bytes) else tree.encode(dict(body.fields))  # files are heard by nobody here


class _Reply:
    """What is said back, and both ways to say it."""

    __slots__ = ("_body", "_calls", "_choices", "_envelope", "_finish", "_usage", "_words")

    def __init__(self, body: Node, id_: str, created: int) -> None:
        self._body = body
        last = _last_text(body["messages"])
        self._calls = _calls(last, id_) if body.get("tools") or body.get("functions") else []
        words = [] if self._calls else _WORDS.findall(last)
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        self._finish = "tool_calls" if self._calls else "stop"
        if type(most) is int and len(words) > most > 0:
            words, self._finish = words[:most], "length"
        self._words = words
        n = body.get("n")
        self._choices = n if type(n) is int and n > 0 else 1
        said = len(words) + sum(_count(tree.dumps(call["function"])) for call in self._calls)
        prompt = max(1, sum(_count(_text(one)) for one in body["messages"]))
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": said * self._choices,
            "total_tokens": prompt + said * self._choices,
        }
        self._envelope: Node = {"id": id_, "object": "", "created": created, "model": body.get("model", "echo")}

    def whole(self) -> Node:
        """The answer in one piece."""
        message: Node = {"role": "assistant", "content": "".join(self._words), "refusal": None}
        if self._calls:
            message["content"] = None
            if self._legacy:
                message["function_call"] = self._calls[0]["function"]
            else:
                message["tool_calls"] = self._calls
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish_word}
            for index in range(self._choices)
        ]
        return {**self._envelope, "object": "chat.completion", "choices": choices, "usage": self._usage}

    def stream(self) -> Iterator[bytes]:
        """The answer in frames."""
        options = self._body.get("stream_options")
        counted = type(options) is dict and options.get("include_usage") is True
        envelope = {**self._envelope, "object": "chat.completion.chunk"}
        usage: Node = {"usage": None} if counted else {}
        for index in range(self._choices):
            for delta in self._deltas():
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                yield sse.encode(tree.encode({**envelope, "choices": [choice], **usage}))
            choice = {"index": index, "delta": {}, "logprobs": None, "finish_reason": self._finish_word}
            yield sse.encode(tree.encode({**envelope, "choices": [choice], **usage}))
        if counted:
            yield sse.encode(tree.encode({**envelope, "choices": [], "usage": self._usage}))
        yield sse.DONE

    def _deltas(self) -> Iterator[Node]:
        yield {"role": "assistant", "content": None if self._calls else "", "refusal": None}
        for word in self._words:
            yield {"content": word}
        for index, call in enumerate(self._calls):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            pieces = [arguments[start : start + PIECE] for start in range(0, len(arguments), PIECE)]
            if self._legacy:
                yield {"function_call": {"name": name, "arguments": ""}}
                yield from ({"function_call": {"arguments": piece}} for piece in pieces)
                return
            yield {"tool_calls": [{"index": index, **call, "function": {"name": name, "arguments": ""}}]}
            yield from ({"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces)

    @property
    def _legacy(self) -> bool:
        return not self._body.get("tools")

    @property
    def _finish_word(self) -> str:
        return "function_call" if self._calls and self._legacy else self._finish


def _text(message: Any) -> str:
    content = message.get("content") if type(message) is dict else None
    if type(content) is str:
        return content
    parts = content if type(content) is list else []
    texts = [part.get("text") for part in parts if type(part) is dict]
    return "".join(text for text in texts if type(text) is str)


def _last_text(messages: list[Any]) -> str:
    """The text of the last message that is not the model's own."""
    for message in reversed(messages):
        if type(message) is dict and message.get("role") in ("user", "tool", "function"):
            return _text(message)
    return ""


def _calls(text: str, id_: str) -> list[Node]:
    """The calls that a message asks for, none where it is plain text."""
    wish = tree.lenient(text.encode()) if text.lstrip().startswith("{") else None
    if type(wish) is not dict:
        return []
    wishes = wish["calls"] if type(wish.get("calls")) is list else [wish]
    return [
        {
            "id": new_id(f"{id_}:{number}"),
            "type": "function",
            "function": {"name": one["call"], "arguments": tree.dumps(one.get("arguments", {}))},
        }
        for number, one in enumerate(wishes)
        if type(one) is dict and type(one.get("call")) is str
    ]


def _count(text: str) -> int:
    return len(text.split())


def _at(path: str) -> Callable[[Target], str]:
    return lambda to: f"echo://local{path}?at={to.now}"


def _place(path: str) -> Place:
    return Place(url=_at(path), auth=lambda to: {})


_MEDIA: Final = Site(at=lambda to, path: _at(f"/v1/{path}")(to), auth=lambda to: {})

ADAPTER: Final = Adapter(
    name="echo",
    key_required=False,
    chat=(OpenAIChat(url=_at("/v1/chat/completions"), auth=lambda to: {}),),
    embeddings=embeddings(_place("/v1/embeddings")),
    rerank=rerank(_place("/v1/rerank")),
    moderations=moderations(_place("/v1/moderations")),
    images=images(_MEDIA),
    speech=speech(_MEDIA),
    transcription=transcription(_MEDIA),
    local=answer,
    owner="echo",
)
