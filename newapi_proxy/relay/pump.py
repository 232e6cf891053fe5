"""Moves one streamed answer: upstream's bytes, time and the client's departure are three sources in one loop.

The loop waits on the next read alone. Deadlines and departure reach it through the attempt's `Interrupt`, fired by one
timer that is moved lazily and by the sink, so that a chunk costs one wake-up, no task and no timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Incoming, Interrupt, Sink
from newapi_proxy.relay.pipe import Heard, Pipe
from newapi_proxy.spawn import spawn

GATE: Final = 256 * 1024  # bytes held back before content; above, the attempt is committed all the same


class Departed(Exception):
    """The client has gone."""


class TimedOut(UpstreamFailure):
    """A deadline passed. `first`: before any content, so that another channel may be tried."""

    def __init__(self, what: str, *, first: bool) -> None:
        super().__init__(
            f"The upstream did not answer in time ({what}).",
            status=504,
            kind="timeout",
            code="upstream_timeout",
            detail=what,
        )
        self.first = first


class Watch:
    """Time and departure of one exchange, over all its attempts.

    All times are the loop's monotonic seconds. `keepalive` is sent after `every` seconds in which the client got
    nothing, counted from the request's start; b"" for answers that have no place for it.
    """

    __slots__ = (
        "_begin", "_every", "_first_at", "_heard_at", "_keepalive", "_loop", "_sent_at", "_silence", "_sink",
        "_streaming", "_timer", "_total_at", "departed", "interrupt",
    )  # fmt: skip

    def __init__(
        self,
        sink: Sink,
        begin: Callable[[], None],
        *,
        keepalive: bytes,
        every: float,
        total: float,
        silence: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._begin = begin
        self._keepalive = keepalive
        self._every = every
        self._silence = silence
        now = self._loop.time()
        self._total_at = now + total
        self._sent_at = now
        self._heard_at = now
        self._first_at: float | None = None
        self._streaming = False
        self.interrupt = Interrupt()
        self.departed = False
        self._timer: asyncio.TimerHandle | None = None
        sink.watch(self._gone)

    def attempt(self, first_token: float | None) -> Interrupt:
        """A new attempt begins; `first_token` seconds from now it is abandoned unless content has come."""
        now = self._loop.time()
        self._first_at = now + first_token if first_token else None
        self._streaming = False
        self._heard_at = now
        self.interrupt = Interrupt()
        if self.departed:
            self.interrupt.fire(Departed())
        elif now >= self._total_at:
            self.interrupt.fire(TimedOut("total_timeout", first=False))
        else:
            self._arm(now)
        return self.interrupt

    def committed(self) -> None:
        """Content has come: from now on silence is what ends the stream."""
        self._streaming = True
        self._first_at = None
        self._arm(self._loop.time())

    def heard(self) -> None:
        """Bytes came from upstream."""
        self._heard_at = self._loop.time()

    def sent(self) -> None:
        """Bytes went to the client."""
        self._sent_at = self._heard_at

    def close(self) -> None:
        """The exchange is over: no timer, nobody told, and no ring of references left for the collector."""
        self._sink.watch(None)
        self._begin = _over
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def over(self) -> bool:
        """Whether another attempt would be in vain: the client has gone, or the total deadline has passed."""
        return self.departed or self._loop.time() >= self._total_at

    async def room(self) -> None:
        """Waits until the client has taken what it was sent; deadlines and its departure end this wait too."""
        free = self._loop.create_future()
        draining = spawn(self._sink.drain(), "room")
        draining.add_done_callback(lambda _: None if free.done() else free.set_result(None))
        try:
            await self.interrupt.wait(free)
        finally:
            draining.cancel()

    def _gone(self) -> None:
        self.departed = True
        self.interrupt.fire(Departed())

    def _arm(self, now: float) -> None:
        next_at = self._total_at
        if self._first_at is not None and self._first_at < next_at:
            next_at = self._first_at
        if self._streaming and self._heard_at + self._silence < next_at:
            next_at = self._heard_at + self._silence
        if self._keepalive and self._sent_at + self._every < next_at:
            next_at = self._sent_at + self._every
        timer = self._timer
        if timer is not None:
            if timer.when() <= next_at:
                return  # it wakes early, finds nothing due and moves itself
            timer.cancel()
        self._timer = self._loop.call_at(max(next_at, now + 0.001), self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        self._timer = None
        if now >= self._total_at:
            self.interrupt.fire(TimedOut("total_timeout", first=False))
            return
        if self._first_at is not None and now >= self._first_at:
            self._first_at = None
            self.interrupt.fire(TimedOut("first_token_timeout", first=True))
        elif self._streaming and now >= self._heard_at + self._silence and not self._sink.full:
            self.interrupt.fire(TimedOut("streaming_timeout", first=False))
            return
        if self._streaming and self._sink.full:
            self._heard_at = now  # a slow reader holds upstream back: not upstream's silence
        if self._keepalive and now >= self._sent_at + self._every and not self._sink.full:
            self._begin()
            self._sink.write(self._keepalive)
            self._sent_at = now
        self._arm(now)


async def pump(
    incoming: Incoming, first: bytes, pipe: Pipe, sink: Sink, watch: Watch, commit: Callable[[], None]
) -> None:
    """Moves the answer until upstream's last word; the tail is left to the caller, who settles first.

    `first` is what has been read already.

    Nothing is written before content: until then another attempt may still take this one's place. `commit` sends the
    head. Raises UpstreamFailure (`pipe.heard.committed` says whether anything was delivered) or Departed.
    """
    heard = pipe.heard
    gate = _Gate(heard, sink, watch, commit)

    def take(data: bytes) -> bool:
        watch.heard()
        out = pipe.feed(data)
        if gate.open:
            gate.write(out)
        else:
            gate.hold(out, pipe)
        return not (sink.full or heard.ended or heard.failure is not None)

    over = not first
    if first:
        take(first)
    while not heard.ended:
        if sink.full:
            await watch.room()
        if heard.failure is not None:
            raise heard.failure
        if over:
            break
        over = await incoming.flow(take)
        if over and not heard.ended and heard.failure is None:
            gate.last(pipe)
    if sink.full:
        await watch.room()
    if not heard.committed:
        raise UpstreamFailure("The upstream's answer was empty.", code="empty_response")


def _over() -> None:
    """In place of what is no longer wanted."""


class _Gate:
    """Holds back what comes before content; opens once."""

    __slots__ = ("_commit", "_heard", "_held", "_sink", "_size", "_watch", "open")

    def __init__(self, heard: Heard, sink: Sink, watch: Watch, commit: Callable[[], None]) -> None:
        self.open = False
        self._heard = heard
        self._sink = sink
        self._watch = watch
        self._commit = commit
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """To the client."""
        if data:
            self._sink.write(data, more=self._heard.ended)
            self._watch.sent()

    def last(self, pipe: Pipe) -> None:
        """Upstream has ended: what its open frame still gives."""
        out = pipe.drain()
        if self.open:
            self.write(out)
        else:
            self.hold(out, pipe)

    def hold(self, data: bytes, pipe: Pipe) -> None:
        """Keeps the bytes, or opens the gate and lets them all go."""
        self._held.append(data)
        self._size += len(data)
        if pipe.heard.committed or self._size > GATE:
            self.open = pipe.heard.committed = True
            self._watch.committed()
            self._commit()
            self.write(b"".join(self._held))
            self._held.clear()
