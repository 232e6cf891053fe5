"""Plain HTTP clients as tests want them: one call, everything that came back; streams read to their end or left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import ClientConnectionError, ClientError, ClientPayloadError, ClientSession, ClientTimeout


@dataclass(kw_only=True, slots=True)
class Answer:
    """What a client saw. `status` 0: no answer at all; `broken`: the connection ended before the answer did."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: bool = False
    left: bool = False

    @property
    def tree(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def streamed(self) -> bool:
        """Whether it is an event stream."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON data of the stream's events, its `[DONE]` apart; an event that is cut off is left out."""
        found = []
        for block in self.body.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
            data = b"\n".join(line[5:].lstrip() for line in block.split(b"\n") if line.startswith(b"data:"))
            if data and data != b"[DONE]":
                found.append(orjson.loads(data))
        return found

    @property
    def complete(self) -> bool:
        """Whether the client got the whole of a good answer, up to its dialect's last event."""
        if self.status != 200 or self.broken or self.left:
            return False
        if not self.streamed:
            return True
        return b"data: [DONE]" in self.body or b'"message_stop"' in self.body

    @property
    def usage(self) -> dict[str, int] | None:
        """The usage that the answer states, as the dialect has it."""
        if self.status != 200:
            return None
        if not self.streamed:
            return None if self.broken or self.left else self.tree.get("usage")
        stated = [event["usage"] for event in self.events if event.get("usage")]
        return stated[-1] if stated else None

    @property
    def text(self) -> str:
        """The answer's visible text, streamed or whole, of either dialect."""
        if not self.streamed:
            tree = self.tree
            return tree["choices"][0]["message"]["content"] if "choices" in tree else tree["content"][0]["text"]
        parts = []
        for event in self.events:
            for choice in event.get("choices", ()):
                parts.append(choice["delta"].get("content") or "")
            if event.get("type") == "content_block_delta":
                parts.append(event["delta"].get("text", ""))
        return "".join(parts)


def chat(model: str, prompt: str = "Hello", *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A chat request's body; a streamed one asks for usage."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


async def post(
    session: ClientSession,
    url: str,
    body: dict[str, Any],
    *,
    key: str = "sk-demo",
    headers: Mapping[str, str] | None = None,
    leave: float | None = None,
) -> Answer:
    """Sends a request and reads its answer; `leave` seconds after the start the client closes its connection."""
    answer = Answer()
    try:
        async with asyncio.timeout(leave):
            await _read(session, url, orjson.dumps(body), {"authorization": f"Bearer {key}", **(headers or {})}, answer)
    except TimeoutError:
        answer.left = True
    except (ClientPayloadError, ClientConnectionError, ClientError):
        answer.broken = True
    return answer


async def _read(session: ClientSession, url: str, data: bytes, headers: Mapping[str, str], answer: Answer) -> None:
    named = {"content-type": "application/json", **headers}
    async with session.post(url, data=data, headers=named, timeout=ClientTimeout(total=60)) as response:
        answer.status = response.status
        answer.headers = {name.lower(): value for name, value in response.headers.items()}
        async for piece in response.content.iter_any():
            answer.body += piece
