"""A provider that many call at once: it holds its answers back until it is told, and counts who is there."""

from __future__ import annotations

import asyncio
from collections import Counter

import orjson

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt, Take


class Crowd:
    """By account (the key that it was called with): calls, those running now, and the most that ran at once.

    `used` tokens are reported for each answer; accounts in `broken` refuse with 503.
    """

    def __init__(self, used: tuple[int, int] = (10, 5), broken: tuple[str, ...] = (), held: bool = False) -> None:
        self.used = used
        self.broken = broken
        self.calls: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.held = held
        self._waiting: list[asyncio.Future[None]] = []
        self._arrived = asyncio.Condition()

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Answer:
        account = outgoing.headers["authorization"].removeprefix("Bearer ")
        self.calls[account] += 1
        self.running[account] += 1
        self.most[account] = max(self.most[account], self.running[account])
        async with self._arrived:
            self._arrived.notify_all()
        try:
            if self.held and account not in self.broken:
                self._waiting.append(asyncio.get_running_loop().create_future())
                await interrupt.wait(self._waiting[-1])
            if account in self.broken:
                raise UpstreamFailure("busy", status=503, kind="overloaded", upstream_status=503)
        except BaseException:
            self.running[account] -= 1
            raise
        return Answer(self, account)

    async def until(self, calls: int) -> None:
        """Waits until so many calls have come in all."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.calls.total() >= calls)

    def answer(self) -> None:
        """From now on everybody gets an answer."""
        self.held = False
        for one in self._waiting:
            if not one.done():
                one.set_result(None)


class Answer:
    """One whole answer."""

    def __init__(self, crowd: Crowd, account: str) -> None:
        self.status = 200
        self.headers = {"content-type": "application/json"}
        self._crowd = crowd
        self._account = account
        self._open = True

    async def read(self) -> bytes:
        return await self.whole(0)

    async def flow(self, take: Take) -> bool:
        return take(await self.whole(0))

    async def whole(self, limit: int) -> bytes:
        prompt, completion = self._crowd.used
        message = {"role": "assistant", "content": "Hello"}
        return orjson.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": completion,
                    "total_tokens": prompt + completion,
                },
            }
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            self._crowd.running[self._account] -= 1
