"""A provider on a thread of its own, for tests that block: it says one thing in whichever dialect it is asked.

`Say` is neutral; it is told as OpenAI chat completions or as Anthropic messages, whole or streamed, by the path and the
body of the call. A reply may also break off, stay open until the caller leaves, or send without end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import orjson

End = Literal["ok", "cut", "error", "hold", "flood"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Say:
    """What a call gets. `calls` are id, name and arguments; `cached` is a part of `prompt`.

    `end`: "cut" breaks the connection before the stream's last frames, "error" sends the dialect's error there, "hold"
    sends nothing more and waits for the caller to leave, "flood" sends text without end. `held`: not even a head.
    `withheld`: how many frames from the last are not sent then.
    """

    text: str = "Hello there."
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    thinking: str = ""
    signature: str = ""
    prompt: int = 10
    completion: int = 5
    cached: int = 0
    status: int = 200
    message: str = "refused by the script"
    headers: Mapping[str, str] = field(default_factory=dict)
    end: End = "ok"
    held: bool = False
    withheld: int = 3


@dataclass(kw_only=True, slots=True)
class Seen:
    """A call that arrived. `left` is set when its caller has closed the connection, at `left_at` (monotonic)."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    taken: int = 0  # bytes of a flood that the socket took
    left: threading.Event = field(default_factory=threading.Event)
    stuck: threading.Event = field(default_factory=threading.Event)
    left_at: float = 0.0

    @property
    def anthropic(self) -> bool:
        """Whether it speaks Anthropic's dialect."""
        return "/messages" in self.path


class Scripted:
    """The running provider. `script` makes the reply of each call; `calls` are all that came."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self.script: Callable[[Seen], Say] = lambda call: Say()
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def last(self) -> Seen:
        """The latest call."""
        return self.calls[-1]

    def says(self, *said: Say) -> None:
        """The replies of the next calls in order; the last one stays. Forgets earlier calls."""
        self.calls.clear()
        self.script = lambda call: said[min(len(self.calls), len(said)) - 1]

    def wait(self, number: int = 1, seconds: float = 10.0) -> Seen:
        """The latest call, once there are `number` of them."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.calls) >= number, seconds), "no such call came"
        return self.last

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _note(self, seen: Seen) -> None:
        with self._news:
            self.calls.append(seen)
            self._news.notify_all()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(path=self.path, headers=headers, body=body)
                outer._note(seen)
                say = outer.script(seen)
                try:
                    self._answer(seen, say)
                except OSError:
                    _left(seen)
                    self.close_connection = True

            def _answer(self, seen: Seen, say: Say) -> None:
                if say.held:
                    self._hold(seen)
                elif say.status != 200 or not seen.body.get("stream"):
                    data = orjson.dumps(whole(seen, say))
                    self._head(say, "application/json", ("Content-Length", str(len(data))))
                    self.wfile.write(data)
                else:
                    self._head(say, "text/event-stream", ("Transfer-Encoding", "chunked"))
                    for frame in stream(seen, say):
                        self._chunk(frame)
                    self._end(seen, say)

            def _head(self, say: Say, kind: str, framing: tuple[str, str]) -> None:
                self.send_response(say.status)
                self.send_header("Content-Type", kind)
                self.send_header(*framing)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _end(self, seen: Seen, say: Say) -> None:
                if say.end == "hold":
                    self._hold(seen)
                elif say.end == "flood":
                    self._flood(seen)
                elif say.end == "cut":
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def _hold(self, seen: Seen) -> None:
                self.close_connection = True
                while self.connection.recv(1024):
                    continue
                _left(seen)

            def _flood(self, seen: Seen) -> None:
                """Sends until the caller takes no more: then says so, and goes on."""
                self.close_connection = True
                frame = data_frame(_chunk_tree({"content": "x" * 16000}))
                piece = memoryview(b"%x\r\n%b\r\n" % (len(frame), frame))
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                self.connection.settimeout(0.5)
                while True:
                    try:
                        rest = piece
                        while rest:
                            sent = self.connection.send(rest)
                            seen.taken += sent
                            rest = rest[sent:]
                    except TimeoutError:
                        seen.stuck.set()
                        self.connection.settimeout(None)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler


def _left(seen: Seen) -> None:
    seen.left_at = time.monotonic()
    seen.left.set()


def whole(call: Seen, say: Say) -> dict[str, Any]:
    """The whole answer, or the error, in the call's dialect."""
    if say.status != 200:
        return _error(call, say)
    return _whole_anthropic(call, say) if call.anthropic else _whole_openai(call, say)


def stream(call: Seen, say: Say) -> Iterator[bytes]:
    """The frames of the streamed answer; without the last ones where it does not end well."""
    frames = list(_stream_anthropic(call, say) if call.anthropic else _stream_openai(call, say))
    yield from frames[: -say.withheld] if say.end != "ok" else frames
    if say.end == "error":
        yield (b"event: error\n" if call.anthropic else b"") + data_frame(_error(call, say))


def data_frame(tree: Any) -> bytes:
    """A frame of an event stream."""
    return b"data: " + orjson.dumps(tree) + b"\n\n"


def _error(call: Seen, say: Say) -> dict[str, Any]:
    words = {429: "rate_limit_error", 529: "overloaded_error", 400: "invalid_request_error"}
    error = {"type": words.get(say.status, "api_error"), "message": say.message}
    if call.anthropic:
        return {"type": "error", "error": error}
    return {"error": {**error, "param": None, "code": None}}


def _whole_openai(call: Seen, say: Say) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": say.text or None}
    if say.thinking:
        message["reasoning_content"] = say.thinking
    if say.calls:
        message["tool_calls"] = [_call(*one) for one in say.calls]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if say.calls else "stop"}
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": call.body["model"]}
    return {**envelope, "choices": [choice], "usage": _usage_openai(say)}


def _call(id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}


def _usage_openai(say: Say) -> dict[str, Any]:
    usage: dict[str, Any] = {"prompt_tokens": say.prompt, "completion_tokens": say.completion}
    usage["total_tokens"] = say.prompt + say.completion
    return {**usage, "prompt_tokens_details": {"cached_tokens": say.cached}}


def _usage_anthropic(say: Say) -> dict[str, int]:
    fresh = say.prompt - say.cached
    return {"input_tokens": fresh, "cache_read_input_tokens": say.cached, "output_tokens": say.completion}


def _whole_anthropic(call: Seen, say: Say) -> dict[str, Any]:
    if "count_tokens" in call.path:
        return {"input_tokens": say.prompt}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": _blocks(say),
        "stop_reason": "tool_use" if say.calls else "end_turn",
        "stop_sequence": None,
        "usage": _usage_anthropic(say),
    }


def _blocks(say: Say) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if say.thinking:
        blocks.append({"type": "thinking", "thinking": say.thinking, "signature": say.signature})
    if say.text:
        blocks.append({"type": "text", "text": say.text})
    return blocks + [{"type": "tool_use", "id": id, "name": name, "input": tree} for id, name, tree in say.calls]


def _halves(text: str) -> tuple[str, str]:
    middle = len(text) // 2
    return text[:middle], text[middle:]


def _chunk_tree(delta: dict[str, Any], finish: str | None = None, model: str = "m") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _stream_openai(call: Seen, say: Say) -> Iterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return data_frame(_chunk_tree(delta, finish, call.body["model"]))

    yield chunk({"role": "assistant", "content": ""})
    for name, text in (("reasoning_content", say.thinking), ("content", say.text)):
        yield from (chunk({name: piece}) for piece in _halves(text) if piece)
    for index, (id, name, tree) in enumerate(say.calls):
        first, second = _halves(orjson.dumps(tree).decode())
        function = {"name": name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
        for piece in (first, second):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls" if say.calls else "stop")
    yield data_frame({**_chunk_tree({}, model=call.body["model"]), "choices": [], "usage": _usage_openai(say)})
    yield b"data: [DONE]\n\n"


def _stream_anthropic(call: Seen, say: Say) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return b"event: " + kind.encode() + b"\n" + data_frame({"type": kind, **fields})

    usage = _usage_anthropic(say)
    message = {**_whole_anthropic(call, say), "content": [], "stop_reason": None}
    yield event("message_start", message={**message, "usage": {**usage, "output_tokens": 1}})
    for index, block in enumerate(_blocks(say)):
        yield event("content_block_start", index=index, content_block=_skeleton(block))
        yield from (event("content_block_delta", index=index, delta=delta) for delta in _deltas(block))
        yield event("content_block_stop", index=index)
    delta = {"stop_reason": "tool_use" if say.calls else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=delta, usage=usage)
    yield event("message_stop")


def _skeleton(block: dict[str, Any]) -> dict[str, Any]:
    empty = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {name: empty.get(name, value) for name, value in block.items()}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "text":
            yield from ({"type": "text_delta", "text": piece} for piece in _halves(block["text"]))
        case "thinking":
            yield from ({"type": "thinking_delta", "thinking": piece} for piece in _halves(block["thinking"]))
            yield {"type": "signature_delta", "signature": block["signature"]}
        case _:
            text = orjson.dumps(block["input"]).decode()
            yield from ({"type": "input_json_delta", "partial_json": piece} for piece in _halves(text))


def reset(link: socket.socket) -> None:
    """Closes a connection with RST instead of FIN."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    link.close()
