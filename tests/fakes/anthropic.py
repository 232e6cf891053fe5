"""Anthropic's side of a test: streams put together from events, and a strict reader of what a client receives."""

from __future__ import annotations

import json
from typing import Any

from newapi_proxy.wire import sse

Tree = dict[str, Any]
USAGE: Tree = {"input_tokens": 12, "output_tokens": 1}


def event(value: Tree) -> bytes:
    """One event of an upstream's stream."""
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def stream(
    blocks: list[tuple[Tree, list[Tree]]],
    stop: str | None = "end_turn",
    usage: Tree | None = None,
    start: Tree | None = None,
    **delta: Any,
) -> bytes:
    """A whole stream: each block with its deltas, then the stop reason with `usage`, then the end."""
    message: Tree = {
        "id": "msg_01A",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE if start is None else start,
    }
    out = event({"type": "message_start", "message": message}) + event({"type": "ping"})
    for index, (block, deltas) in enumerate(blocks):
        out += event({"type": "content_block_start", "index": index, "content_block": block})
        for one in deltas:
            out += event({"type": "content_block_delta", "index": index, "delta": one})
        out += event({"type": "content_block_stop", "index": index})
    if stop is not None:
        said = {"stop_reason": stop, "stop_sequence": None, **delta}
        out += event({"type": "message_delta", "delta": said, "usage": usage or {"output_tokens": 9}})
    return out + event({"type": "message_stop"})


def text(*pieces: str) -> tuple[Tree, list[Tree]]:
    """A text block."""
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]


def call(id: str, name: str, *pieces: str) -> tuple[Tree, list[Tree]]:
    """A tool_use block."""
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return {"type": "tool_use", "id": id, "name": name, "input": {}}, deltas


def thinking(words: str, signature: str) -> tuple[Tree, list[Tree]]:
    """A thinking block with its signature."""
    deltas = [{"type": "thinking_delta", "thinking": words}] if words else []
    return {"type": "thinking", "thinking": "", "signature": ""}, [
        *deltas,
        {"type": "signature_delta", "signature": signature},
    ]


class Received:
    """What a client makes of a stream. Every break of the grammar is an AssertionError."""

    def __init__(self, raw: bytes) -> None:
        self.message: Tree = {}
        self.blocks: list[Tree] = []
        self.stop: Tree = {}
        self.usage: Tree = {}
        self.error: Tree | None = None
        self.pings = 0
        self._open: int | None = None
        self._sealed = False
        self._ended = False
        decoder = sse.Decoder()
        for frame in decoder.feed(raw):
            self._take(frame)
        assert decoder.close() == [], "the last event is open"
        assert self._ended or self.error is not None, "no end"

    def _take(self, frame: sse.Frame) -> None:
        assert frame.data is not None
        value = json.loads(frame.data)
        assert frame.event == value["type"]
        assert not self._ended, "something after the end"
        assert self.error is None, "something after the error"
        kind = value["type"]
        if kind == "ping":
            self.pings += 1
        elif kind == "error":
            assert set(value["error"]) == {"type", "message"}
            self.error = value
        elif kind == "message_start":
            assert self.message == {}, "a second message_start"
            self.message = value["message"]
            assert self.message["content"] == []
            assert self.message["id"].startswith("msg_")
            assert isinstance(self.message["usage"]["input_tokens"], int)
        else:
            assert self.message, "content before message_start"
            self._content(kind, value)

    def _content(self, kind: str, value: Tree) -> None:
        if kind == "content_block_start":
            assert self._open is None, "blocks interleave"
            assert value["index"] == len(self.blocks), "indexes are not dense"
            self._open, self._sealed = value["index"], False
            self.blocks.append({**value["content_block"], "_json": ""})
        elif kind == "content_block_delta":
            assert value["index"] == self._open
            assert not self._sealed, "a delta after the signature"
            self._delta(value["delta"])
        elif kind == "content_block_stop":
            assert value["index"] == self._open
            self._close(self.blocks[-1])
        elif kind == "message_delta":
            assert self._open is None, "message_delta inside a block"
            self.stop, self.usage = value["delta"], value["usage"]
        elif kind == "message_stop":
            assert self.stop, "no message_delta"
            self._ended = True

    def _delta(self, delta: Tree) -> None:
        block = self.blocks[-1]
        match delta["type"]:
            case "text_delta":
                assert block["type"] == "text"
                block["text"] += delta["text"]
            case "thinking_delta":
                assert block["type"] == "thinking"
                block["thinking"] += delta["thinking"]
            case "signature_delta":
                assert block["type"] == "thinking"
                block["signature"] = delta["signature"]
                self._sealed = True
            case "input_json_delta":
                block["_json"] += delta["partial_json"]
            case "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])

    def _close(self, block: Tree) -> None:
        self._open = None
        fragments = block.pop("_json")
        if fragments:
            block["input"] = json.loads(fragments)
