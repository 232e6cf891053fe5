"""A scripted provider on the loopback that speaks OpenAI's chat completions and Anthropic's messages.

A script looks at each call and says what to answer; the calls are kept as a journal of what was asked and sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

Dialect = Literal["openai", "anthropic"]
End = Literal["open", "done", "cut", "gone", "refused"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a call gets. `pieces` are the deltas of a stream and, joined, the text of a whole answer.

    `status` above 299 sends an error of the dialect; `pause` seconds come before each piece; after `cut` pieces the
    connection is broken; `usage` off leaves the counts out; `until` is waited for before the last piece.
    """

    pieces: tuple[str, ...] = ("Hello", " there", ".")
    prompt: int = 10
    completion: int = 5
    status: int = 200
    message: str = "refused by the script"
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    cut: int | None = None
    usage: bool = True
    until: asyncio.Event | None = None


@dataclass(kw_only=True, slots=True)
class Call:
    """One request that arrived, and what became of it."""

    number: int
    dialect: Dialect
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    sent: int = 0
    pieces: int = 0  # how many of the answer's have gone out
    end: End = "open"
    ended: float = 0.0  # the loop's time

    @property
    def stream(self) -> bool:
        """Whether a stream was asked for."""
        return bool(self.body.get("stream"))

    @property
    def key(self) -> str:
        """The credential, wherever this dialect has it."""
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


Script = Callable[[Call], Reply]


class ChatUpstream:
    """The running provider: `url` is its base URL, `calls` what arrived so far."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.url = ""
        self.arrived = asyncio.Condition()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = Call(
            number=len(self.calls),
            dialect="anthropic" if request.path.endswith("/messages") else "openai",
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=orjson.loads(await request.read()),
        )
        self.calls.append(call)
        async with self.arrived:
            self.arrived.notify_all()
        reply = self.script(call)
        try:
            if reply.status > 299:
                call.end = "refused"
                return web.Response(status=reply.status, body=_refusal(call, reply), headers=_json(reply))
            return await (self._stream(request, call, reply) if call.stream else self._whole(call, reply))
        except ConnectionResetError:
            call.end = "gone"
            return web.Response()  # for nobody; raising would be logged as a fault of this server
        except asyncio.CancelledError:
            call.end = "gone"
            raise
        finally:
            call.ended = asyncio.get_running_loop().time()

    async def _whole(self, call: Call, reply: Reply) -> web.StreamResponse:
        if reply.pause:
            await asyncio.sleep(reply.pause * len(reply.pieces))
        if reply.until is not None:
            await reply.until.wait()
        shape = _whole_anthropic if call.dialect == "anthropic" else _whole_openai
        body = orjson.dumps(shape(call, reply))
        call.sent, call.pieces, call.end = len(body), len(reply.pieces), "done"
        return web.Response(body=body, headers=_json(reply))

    async def _stream(self, request: web.Request, call: Call, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
        await response.prepare(request)
        head, pieces, tail = (_stream_anthropic if call.dialect == "anthropic" else _stream_openai)(call, reply)
        await response.write(head)
        for number, piece in enumerate(pieces):
            if number == reply.cut:
                call.end = "cut"
                assert request.transport is not None
                request.transport.abort()
                return response
            if reply.pause:
                await asyncio.sleep(reply.pause)
            if reply.until is not None and number == len(pieces) - 1:
                await reply.until.wait()
            await response.write(piece)
            call.sent += len(piece)
            call.pieces += 1
        await response.write(tail)
        call.end = "done"
        return response


@asynccontextmanager
async def serving(script: Script = lambda call: Reply()) -> AsyncIterator[ChatUpstream]:
    """Runs a provider while the block lasts."""
    upstream = ChatUpstream(script)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{path:.*}", upstream._answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    host, port = runner.addresses[0][:2]
    upstream.url = f"http://{host}:{port}"
    try:
        yield upstream
    finally:
        await runner.cleanup()


def _json(reply: Reply) -> dict[str, str]:
    return {"content-type": "application/json", **reply.headers}


def _refusal(call: Call, reply: Reply) -> bytes:
    error: dict[str, Any] = {"type": "invalid_request_error", "message": reply.message}
    if call.dialect == "anthropic":
        return orjson.dumps({"type": "error", "error": error})
    return orjson.dumps({"error": {**error, "param": None, "code": None}})


def _usage_openai(reply: Reply) -> dict[str, int]:
    total = reply.prompt + reply.completion
    return {"prompt_tokens": reply.prompt, "completion_tokens": reply.completion, "total_tokens": total}


def _usage_anthropic(reply: Reply) -> dict[str, int]:
    return {"input_tokens": reply.prompt, "output_tokens": reply.completion}


def _whole_openai(call: Call, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(reply.pieces)}
    return {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": call.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        **({"usage": _usage_openai(reply)} if reply.usage else {}),
    }


def _whole_anthropic(call: Call, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{call.number}",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": [{"type": "text", "text": "".join(reply.pieces)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        **({"usage": _usage_anthropic(reply)} if reply.usage else {}),
    }


def _stream_openai(call: Call, reply: Reply) -> tuple[bytes, list[bytes], bytes]:
    frame = {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": call.body["model"],
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        return _data({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    tail = chunk({}, "stop")
    if reply.usage and (call.body.get("stream_options") or {}).get("include_usage"):
        tail += _data({**frame, "choices": [], "usage": _usage_openai(reply)})
    pieces = [chunk({"content": piece}) for piece in reply.pieces]
    return chunk({"role": "assistant", "content": ""}), pieces, tail + b"data: [DONE]\n\n"


def _stream_anthropic(call: Call, reply: Reply) -> tuple[bytes, list[bytes], bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return b"event: " + kind.encode() + b"\n" + _data({"type": kind, **fields})

    message = {**_whole_anthropic(call, reply), "content": [], "stop_reason": None}
    message["usage"] = {"input_tokens": reply.prompt, "output_tokens": 1} if reply.usage else {}
    head = event("message_start", message=message)
    head += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    pieces = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in reply.pieces
    ]
    tail = event("content_block_stop", index=0)
    usage = _usage_anthropic(reply) if reply.usage else {}
    tail += event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
    return head, pieces, tail + event("message_stop")


def _data(tree: Any) -> bytes:
    return b"data: " + orjson.dumps(tree) + b"\n\n"
