"""Redis: where limits are counted for all processes, and where they tell each other news.

The counting itself stands in `counting`, as scripts. News are told at least once; what lasts is told to those who come
later, too. Knows nothing of what is counted or told.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

from newapi_proxy.errors import OurError
from newapi_proxy.spawn import spawn
from newapi_proxy.store import counting, shared
from newapi_proxy.store.shared import Refused, Row, Step
from newapi_proxy.store.windows import EXACT
from newapi_proxy.wire import tree

PREFIX: Final = "newapi-proxy:"
NEWS: Final = f"{PREFIX}news"
STEP: Final = 500  # steps told at once
MOST: Final = 1000  # news that wait to be told; above, the oldest are lost
Heard = Callable[[bytes], None]
_Ask = tuple[list[Any], "asyncio.Future[Any]"]


class Redis:
    """One connection pool. Opened by `open`; belongs to the loop's thread."""

    __slots__ = (
        "_asking", "_asks", "_boot", "_client", "_forgot", "_give", "_heard", "_listening", "_news", "_take",
        "_telling", "_wanted", "errors",
    )  # fmt: skip

    def __init__(self, client: Any, errors: tuple[type[Exception], ...], forgot: type[Exception], boot: str) -> None:
        self.errors = errors
        self._forgot = forgot
        self._client = client
        self._boot = boot
        self._take = client.register_script(counting.TAKE)
        self._give = client.register_script(counting.GIVE)
        self._asks: list[_Ask] = []
        self._asking = False
        self._news: list[tuple[str, bytes, bool]] = []
        self._wanted = asyncio.Event()
        self._heard: Heard | None = None
        self._listening: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, boot: str) -> Redis:
        """Connects. Raises OurError where Redis cannot be reached at the start, or its driver is missing."""
        if find_spec("redis") is None:
            raise OurError("The driver redis is missing: pip install 'newapi-proxy[redis]'.", code="redis_invalid")
        from redis.asyncio import Redis as Client
        from redis.exceptions import NoScriptError, RedisError

        errors = (RedisError, OSError, TimeoutError)
        seconds = shared.TIMEOUT
        try:
            client = Client.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None)
            made = cls(client, errors, NoScriptError, boot)
            await client.script_load(counting.TAKE)
        except ValueError:
            raise OurError("The URL of Redis cannot be read.", code="redis_invalid") from None
        except errors as error:
            raise OurError(f"Redis cannot be reached: {error}.", status=503, code="redis_unavailable") from error
        return made

    async def take(self, grant: str, rows: Sequence[Row]) -> Refused | list[str]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asks.append(([PREFIX, grant, shared.LEASE, EXACT, tree.dumps(rows)], answer))
        if not self._asking:
            self._asking = True
            spawn(self._ask(), "asking")
        found = await answer
        if found[0]:
            return [name.decode() for name in found[1:]]
        return Refused(found[1], found[2].decode(), math.inf if found[3] < 0 else found[3] / 1e6)

    async def _ask(self) -> None:
        """Sends what has come together, until there is nothing: a crowd needs no more connections than one."""
        try:
            while self._asks:
                asks, self._asks = self._asks, []
                await self._asked(asks)
        finally:
            self._asking = False

    async def _asked(self, asks: Sequence[_Ask]) -> None:
        try:
            answers = await self._answers(asks)
            lost = [place for place, one in enumerate(answers) if isinstance(one, self._forgot)]
            if lost:  # a Redis that was restarted knows no scripts
                await self._client.script_load(counting.TAKE)
                for place, one in zip(lost, await self._answers([asks[place] for place in lost]), strict=True):
                    answers[place] = one
        except self.errors as error:
            answers = [error] * len(asks)
        for (_, future), answer in zip(asks, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def _answers(self, asks: Sequence[_Ask]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as line:
            for args, _ in asks:
                line.evalsha(self._take.sha, 0, *args)
            answers: list[Any] = await line.execute(raise_on_error=False)
            return answers

    async def give(self, steps: Sequence[Step]) -> None:
        for at in range(0, max(1, len(steps)), STEP):
            await self._give(args=[PREFIX, shared.LEASE, tree.dumps(steps[at : at + STEP])])

    async def back(self) -> None:
        if self._heard is not None:
            self.listen(self._heard)

    async def close(self) -> None:
        for task in (self._listening, self._telling):
            if task is not None:
                await _stopped(task)
        with suppress(*self.errors):
            await self._client.aclose()

    def listen(self, heard: Heard) -> None:
        """Hears what other processes `tell`, what they told before first; called again, it begins again."""
        self._heard = heard
        if self._listening is not None:
            spawn(_stopped(self._listening), "stopping")
        self._listening = spawn(self._listen(), "news")

    def tell(self, subject: str, news: bytes, lasting: bool) -> None:
        """Tells all others; what is `lasting` also those who come later, until there is other news of the subject."""
        self._news = [*self._news[-MOST:], (subject, f"{self._boot} ".encode() + news, lasting)]
        self._wanted.set()
        if self._telling is None:
            self._telling = spawn(self._tell(), "telling")

    async def _tell(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._news:
                try:
                    await self._told(*self._news[0])
                except self.errors:
                    await asyncio.sleep(shared.AGAIN)
                else:
                    self._news = self._news[1:]

    async def _told(self, subject: str, news: bytes, lasting: bool) -> None:
        await (self._client.hset(NEWS, subject, news) if lasting else self._client.hdel(NEWS, subject))
        await self._client.publish(NEWS, news)

    async def _listen(self) -> None:
        with suppress(*self.errors):  # whoever counts finds out, and `back` begins anew
            async with self._client.pubsub() as channel:
                await channel.subscribe(NEWS)
                for one in await self._client.hvals(NEWS):
                    self._hear(one)
                await self._follow(channel)

    async def _follow(self, channel: Any) -> None:
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=shared.BEAT)
            if message is not None:
                self._hear(message["data"])

    def _hear(self, news: bytes) -> None:
        who, _, what = news.partition(b" ")
        if self._heard is not None and who != self._boot.encode():
            self._heard(what)


async def _stopped(task: asyncio.Task[None]) -> None:
    """Ends a task; the driver swallows a cancellation that meets it while it connects, so it is asked until it ends."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
