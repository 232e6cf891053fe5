"""Windows, slots and news that several processes share through Redis.

Each process counts for itself as well: what is full here needs no question, and while Redis cannot be reached the
process goes on alone, which lets through at most what each may alone. A process that dies gives its slots back by
their lease; after a flush the living say again what they hold. Knows nothing of whose limits these are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

import msgspec

from newapi_proxy import log
from newapi_proxy.errors import OurError
from newapi_proxy.spawn import spawn
from newapi_proxy.store import counting
from newapi_proxy.store.windows import EXACT, Ceiling, Full, Grant, Memory, Used, share
from newapi_proxy.wire import tree

PREFIX: Final = "newapi-proxy:"
NEWS: Final = f"{PREFIX}news"
TIMEOUT: Final = 1.0  # seconds for an answer; a request never waits longer for Redis
AGAIN: Final = 0.5  # seconds between two tries to reach it
LEASE: Final = 30  # seconds after which a dead process's slots are free
BEAT: Final = 10.0  # seconds between two renewals
MOST: Final = 10_000  # steps that may wait to be told; above, the oldest are lost and the estimates stay

STEP: Final = 500  # steps told at once
Heard = Callable[[bytes], None]


class _Entry(msgspec.Struct):
    """A share of one window: whose, of which limit, under which name, and how much."""

    subject: str
    limit: str
    name: str
    amount: int
    tokens: bool


class _Taken:
    """What a grant took in Redis: its name there, the subjects of its slots, its entries."""

    __slots__ = ("entries", "name", "slots")

    def __init__(self, name: str, slots: list[str], entries: list[_Entry]) -> None:
        self.name = name
        self.slots = slots
        self.entries = entries


class Shared:
    """The windows of all processes, and their news. Opened by `open`; belongs to the loop's thread."""

    __slots__ = (
        "_boot", "_client", "_down", "_ended", "_errors", "_give", "_heard", "_listening", "_memory", "_news", "_open",
        "_serial", "_steps", "_take", "_wanted", "_working",
    )  # fmt: skip

    def __init__(self, client: Any, errors: tuple[type[Exception], ...], memory: Memory, boot: str) -> None:
        self._client = client
        self._errors = errors
        self._memory = memory
        self._boot = boot
        self._take = client.register_script(counting.TAKE)
        self._give = client.register_script(counting.GIVE)
        self._serial = 0
        self._open: dict[str, _Taken] = {}  # grants that hold slots
        self._steps: list[list[Any]] = []
        self._news: list[tuple[str, bytes, bool]] = []
        self._wanted = asyncio.Event()
        self._heard: Heard | None = None
        self._down = False
        self._ended = False
        self._listening: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, monotonic: Callable[[], float], boot: str) -> Shared:
        """Connects. Raises OurError where Redis cannot be reached at the start, or its driver is missing."""
        if find_spec("redis") is None:
            raise OurError("The driver redis is missing: pip install 'newapi-proxy[redis]'.", code="redis_invalid")
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        errors = (RedisError, OSError, TimeoutError)
        try:
            client = Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)
            made = cls(client, errors, Memory(monotonic), boot)
            await client.ping()
        except ValueError:
            raise OurError("The URL of Redis cannot be read.", code="redis_invalid") from None
        except errors as error:
            raise OurError(f"Redis cannot be reached: {error}.", status=503, code="redis_unavailable") from error
        made._working = spawn(made._work(), "shared")
        return made

    def listen(self, heard: Heard) -> None:
        """Hears what other processes `tell`, what they told before first."""
        self._heard = heard
        self._listening = spawn(self._listen(), "news")

    def tell(self, subject: str, news: bytes, lasting: bool) -> None:
        """Tells all others; what is `lasting` also those who come later, until there is other news of the subject."""
        self._news = [*self._news[-MOST:], (subject, f"{self._boot} ".encode() + news, lasting)]
        self._wanted.set()

    async def close(self) -> None:
        """Frees what is held, says what is left to say, and lets Redis go."""
        for taken in list(self._open.values()):
            self._free(taken)
        self._ended = True
        self._wanted.set()
        if self._listening is not None:
            self._listening.cancel()
        await asyncio.gather(*(task for task in (self._listening, self._working) if task), return_exceptions=True)
        with suppress(*self._errors):
            await self._client.aclose()

    async def take(self, wanted: Sequence[Ceiling], tokens: int = 0, least: int | None = None) -> Grant | Full:
        """Here first, then in Redis."""
        grant = await self._memory.take(wanted, tokens, least)
        if isinstance(grant, Full) or self._down:
            return grant
        asked = spawn(self._taken(grant, wanted, tokens, tokens if least is None else least), "take")
        try:
            full = await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda _: self.cancel(grant))
            raise
        if full is not None:
            self._memory.cancel(grant)
        return full or grant

    async def _taken(self, grant: Grant, wanted: Sequence[Ceiling], tokens: int, least: int) -> Full | None:
        self._serial += 1
        taken = _Taken(f"{self._boot}-{self._serial}", [one.id for one in wanted if one.slots is not None], [])
        rates = [(one, rate, share(rate, tokens, least)) for one in wanted for rate in one.rates]
        rows = [
            [
                one.id,
                -1 if one.slots is None else one.slots,
                [[rate.name, rate.seconds, rate.most, part] for owner, rate, part in rates if owner is one],
            ]
            for one in wanted
        ]
        try:
            found = await self._take(args=[PREFIX, taken.name, LEASE, EXACT, tree.dumps(rows)])
        except self._errors as error:
            self._lost(error)
            self._free(taken)  # it may have been taken all the same
            return None
        if not found[0]:
            return Full(wanted[found[1]], found[2].decode(), math.inf if found[3] < 0 else found[3] / 1e6)
        taken.entries = [
            _Entry(one.id, rate.name, name.decode(), part, rate.tokens)
            for (one, rate, part), name in zip(rates, found[1:], strict=True)
        ]
        grant.far = taken
        if taken.slots:
            self._open[taken.name] = taken
        return None

    def correct(self, grant: Grant, tokens: int) -> None:
        """Here at once, in Redis soon."""
        self._memory.correct(grant, tokens)
        for entry in grant.far.entries if grant.far is not None else ():
            if entry.tokens and entry.amount != tokens:
                self._change(entry, tokens)

    def release(self, grant: Grant) -> None:
        """Here at once, in Redis soon."""
        self._memory.release(grant)
        if grant.far is not None:
            self._free(grant.far)

    def cancel(self, grant: Grant) -> None:
        """Here at once, in Redis soon."""
        self._memory.cancel(grant)
        if grant.far is not None:
            self._free(grant.far)
            for entry in grant.far.entries:
                self._change(entry, 0)

    def used(self) -> list[Used]:
        """What this process has taken; the others' is theirs to tell."""
        return self._memory.used()

    def _free(self, taken: _Taken) -> None:
        self._open.pop(taken.name, None)
        for subject in taken.slots:
            self._say(["free", subject, taken.name])
        taken.slots = []

    def _change(self, entry: _Entry, to: int) -> None:
        self._say(["change", entry.subject, entry.limit, entry.name, to - entry.amount])
        entry.amount = to

    def _say(self, step: list[Any]) -> None:
        if len(self._steps) < MOST:
            self._steps.append(step)
            self._wanted.set()

    def _keep(self) -> None:
        for taken in self._open.values():
            for subject in taken.slots:
                self._say(["keep", subject, taken.name])

    async def _work(self) -> None:
        """Says what there is to say, and renews what is held, until the end."""
        while not self._ended:
            try:
                async with asyncio.timeout(BEAT):
                    await self._wanted.wait()
            except TimeoutError:
                self._keep()
            if self._down:
                await asyncio.sleep(AGAIN)
            self._wanted.clear()
            await self._told()

    async def _told(self) -> None:
        steps, self._steps = self._steps, []
        news, self._news = self._news, []
        try:
            for at in range(0, max(1, len(steps)), STEP):
                await self._give(args=[PREFIX, LEASE, tree.dumps(steps[at : at + STEP])])
            for subject, one, lasting in news:
                await (self._client.hset(NEWS, subject, one) if lasting else self._client.hdel(NEWS, subject))
                await self._client.publish(NEWS, one)
        except self._errors as error:
            self._lost(error)
            # A correction that is done twice would let too much through; one that is lost lets through too little.
            self._steps = [step for step in steps if step[0] == "free"] + self._steps
            self._news = news + self._news
            return
        if self._down:
            self._down = False
            log.logger().info("shared_recovered")
            self._keep()
            if self._heard is not None and self._listening is not None:
                self._listening.cancel()
                self._listening = spawn(self._listen(), "news")

    def _lost(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            log.logger().error("shared_unavailable", reason=str(error) or type(error).__name__)
        self._wanted.set()

    async def _listen(self) -> None:
        with suppress(*self._errors):  # the next step that is said finds out, and begins anew
            async with self._client.pubsub() as channel:
                await channel.subscribe(NEWS)
                for one in await self._client.hvals(NEWS):
                    self._hear(one)
                await self._follow(channel)

    async def _follow(self, channel: Any) -> None:
        while not self._ended:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=BEAT)
            if message is not None:
                self._hear(message["data"])

    def _hear(self, news: bytes) -> None:
        who, _, what = news.partition(b" ")
        if self._heard is not None and who != self._boot.encode():
            self._heard(what)
