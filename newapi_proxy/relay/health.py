"""Which channels and keys may be used now: breakers by failure rate, parked keys, half-open recovery.

State lives in memory, keyed by channel and by the key's digest, and survives reloads; what is worth keeping is told to
`Notes`, and taken from there at a start. A channel with `auto_disable: false` is never held back. Sources: user-demands
F1, F2, F7, reliability 5.1, decision 20.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from newapi_proxy.clock import Clock
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel

WINDOW: Final = 60.0  # seconds that the failure rate looks back
MIN_VOLUME: Final = 5  # attempts in the window before the rate says anything
MAX_RATE: Final = 0.5
COOL_DOWN: Final = 30.0  # first pause of an opened breaker; doubles with each failed trial
KEY_PAUSE: Final = 600.0  # a dead credential
BUSY_PAUSE: Final = 5.0  # a rate limit that names no time
LONGEST: Final = 3600.0
MOST: Final = 10_000  # breakers; a reload that renames all channels leaves the old ones behind
_Place = tuple[str, str, int]
TRIAL: Final = 10.0  # seconds for which one process's trial holds back the others'
CLOSED, HALF_OPEN, OPEN, DISABLED = 0, 1, 2, 3


class _Breaker:
    """One channel's recent past: (time, failed) of each attempt, and the pause it is in."""

    __slots__ = ("attempts", "failures", "pause", "trial", "until")

    def __init__(self) -> None:
        self.attempts: deque[tuple[float, bool]] = deque(maxlen=200)
        self.failures = 0
        self.pause = 0.0
        self.until = 0.0
        self.trial = False

    def forget(self, before: float) -> None:
        while self.attempts and self.attempts[0][0] < before:
            self.failures -= self.attempts.popleft()[1]

    def note(self, now: float, failed: bool) -> None:
        if len(self.attempts) == self.attempts.maxlen:
            self.failures -= self.attempts.popleft()[1]
        self.attempts.append((now, failed))
        self.failures += failed


class Notes(Protocol):
    """Who remembers rests for the next start. Called rarely: when one begins, and when one ends."""

    def rested(self, channel: Channel, mark: str, lasting: Lasting) -> None:
        """The channel, or one of its keys, rests."""
        ...

    def woke(self, channel: Channel, mark: str) -> None:
        """It works again."""
        ...


class Lasting(msgspec.Struct, frozen=True):
    """How long from now, and the channel's last pause, in seconds; `whole`: nothing of the channel can be used."""

    seconds: float
    pause: float
    reason: str
    whole: bool


class Health:
    """The state of all channels and keys. `told(channel, state)` hears each change (a metric, a log line).

    `tell(channel, mark, seconds)`, where set, hears what other processes should know at once: that the channel or the
    key is held back for so long, 0 for no more. They `learn` it.
    """

    def __init__(self, clock: Clock, told: Callable[[str, int], None], notes: Notes | None = None) -> None:
        self._clock = clock
        self._told = told
        self._notes = notes
        self.tell: Callable[[str, str, float], None] | None = None
        self._breakers: dict[_Place, _Breaker] = {}
        self._parked: dict[tuple[str, str], float] = {}
        self._dead: set[tuple[str, str]] = set()  # those of the parked that are no mere limits of rate

    def usable(self, channel: Channel, key: int) -> bool:
        """Whether the pair may be tried now; a half-open channel admits one trial at a time."""
        if not channel.auto_disable or (not self._parked and not self._breakers):
            return True
        return self.wait(channel, key) <= 0.0

    def wait(self, channel: Channel, key: int) -> float:
        """Seconds until the pair may be tried, 0 now."""
        if not channel.auto_disable:
            return 0.0
        now = self._clock.monotonic()
        until = self._parked.get((channel.name, _digest(channel, key)), 0.0)
        breaker = self._of(channel)
        if breaker is not None and breaker.until:
            until = max(until, now + 1.0 if breaker.trial and breaker.until <= now else breaker.until)
        return max(0.0, until - now)

    def began(self, channel: Channel) -> bool:
        """An attempt begins; whether it is a half-open channel's trial. Only a trial decides about the pause."""
        if not self._breakers:
            return False
        breaker = self._of(channel)
        if breaker is None or not breaker.until or breaker.trial or not channel.auto_disable:
            return False
        breaker.trial = True
        self._told(channel.name, HALF_OPEN)
        self._say(channel, mark(channel), TRIAL)
        return True

    def succeeded(self, channel: Channel, key: int, *, trial: bool) -> None:
        """The attempt answered; a trial that does closes the breaker."""
        if self._parked:
            at = (channel.name, _digest(channel, key))
            if self._parked.pop(at, None) is not None:
                self._say(channel, at[1], 0.0)
            if at in self._dead:
                self._dead.discard(at)
                self._woke(channel, at[1])
        breaker = self._of(channel) if self._breakers else None
        if breaker is None:
            return
        if trial:
            del self._breakers[_place(channel)]
            self._told(channel.name, CLOSED)
            self._woke(channel, mark(channel))
            self._say(channel, mark(channel), 0.0)
        elif not breaker.until:
            now = self._clock.monotonic()
            breaker.forget(now - WINDOW)
            breaker.note(now, failed=False)

    def released(self, channel: Channel, *, trial: bool) -> None:
        """The attempt ended without a verdict (the client left, the request was at fault)."""
        breaker = self._of(channel)
        if breaker is not None and trial:
            breaker.trial = False

    def failed(self, channel: Channel, key: int, failure: UpstreamFailure, *, trial: bool) -> None:
        """The attempt failed: parks the key, or counts against the channel, as the failure blames."""
        if failure.blames == "nobody" or not channel.auto_disable:
            self.released(channel, trial=trial)
            return
        now = self._clock.monotonic()
        if failure.blames == "key":
            pause = failure.retry_after or (BUSY_PAUSE if failure.kind == "rate_limit" else KEY_PAUSE)
            at = (channel.name, _digest(channel, key))
            self._parked[at] = max(self._parked.get(at, 0.0), now + min(pause, LONGEST))
            self._sweep(now)
            if failure.kind != "rate_limit":
                self._dead.add(at)
                whole = all((channel.name, _digest(channel, one)) in self._dead for one in range(len(channel.keys)))
                self._rested(channel, at[1], Lasting(min(pause, LONGEST), 0.0, _reason(failure), whole))
            self._say(channel, at[1], min(pause, LONGEST))
            self.released(channel, trial=trial)
            return
        if len(self._breakers) > MOST:
            self._breakers.clear()
        breaker = self._breakers.setdefault(_place(channel), _Breaker())
        breaker.forget(now - WINDOW)
        breaker.note(now, failed=True)
        tripped = len(breaker.attempts) >= MIN_VOLUME and breaker.failures >= MAX_RATE * len(breaker.attempts)
        if trial or (tripped and not breaker.until):
            breaker.pause = min(LONGEST, breaker.pause * 2 if breaker.pause else COOL_DOWN)
            breaker.until = now + max(breaker.pause, min(failure.retry_after or 0.0, LONGEST))
            breaker.trial = False
            self._told(channel.name, OPEN)
            lasting = Lasting(breaker.until - now, breaker.pause, _reason(failure), True)
            self._rested(channel, mark(channel), lasting)
            self._say(channel, mark(channel), breaker.until - now)

    def restore(self, channel: Channel, found: str, seconds: float, pause: float) -> bool:
        """Takes up a rest of an earlier life with `seconds` to go; whether it means this channel as it is now.

        One whose time is over is not forgotten: a channel is half-open then.
        """
        until = self._clock.monotonic() + seconds
        if found == mark(channel):
            breaker = self._breakers.setdefault(_place(channel), _Breaker())
            breaker.pause, breaker.until = pause, until or 1e-9
            self._told(channel.name, OPEN)
            return True
        if found in {_digest(channel, key) for key in range(len(channel.keys))}:
            self._parked[channel.name, found] = until
            self._dead.add((channel.name, found))
            return True
        return False

    def wake(self, name: str) -> None:
        """Forgets what is held against a channel: somebody says that it works."""
        for place in [place for place in self._breakers if place[0] == name]:
            del self._breakers[place]
            self._told(name, CLOSED)
        self._parked = {at: until for at, until in self._parked.items() if at[0] != name}
        self._dead = {at for at in self._dead if at[0] != name}

    def _rested(self, channel: Channel, what: str, lasting: Lasting) -> None:
        if self._notes is not None:
            self._notes.rested(channel, what, lasting)

    def _woke(self, channel: Channel, what: str) -> None:
        if self._notes is not None:
            self._notes.woke(channel, what)

    def learn(self, channel: Channel, found: str, seconds: float) -> None:
        """Another process holds the channel, or one of its keys, back for so long, 0: no more. Says it to nobody."""
        now = self._clock.monotonic()
        if found != mark(channel):
            if found in {_digest(channel, key) for key in range(len(channel.keys))}:
                self._parked[channel.name, found] = now + min(seconds, LONGEST)
        elif seconds:
            breaker = self._breakers.setdefault(_place(channel), _Breaker())
            known = breaker.until > now
            breaker.until = max(breaker.until, now + min(seconds, LONGEST))
            if not known:
                self._told(channel.name, OPEN)
        elif self._breakers.pop(_place(channel), None) is not None:
            self._told(channel.name, CLOSED)

    def _say(self, channel: Channel, what: str, seconds: float) -> None:
        if self.tell is not None:
            self.tell(channel.name, what, seconds)

    def _of(self, channel: Channel) -> _Breaker | None:
        return self._breakers.get(_place(channel)) if self._breakers else None

    def states(self) -> dict[str, str]:
        """What is not simply closed, for a state line: channel → word."""
        now = self._clock.monotonic()
        states = {place[0]: f"open {b.until - now:.0f}s" for place, b in self._breakers.items() if b.until > now}
        for (name, _), until in self._parked.items():
            if until > now:
                states[name] = f"{states.get(name, '')} key parked {until - now:.0f}s".strip()
        return states

    def _sweep(self, now: float) -> None:
        if len(self._parked) > 1000:
            self._parked = {at: until for at, until in self._parked.items() if until > now}
            self._dead.intersection_update(self._parked)


def _place(channel: Channel) -> _Place:
    """A channel that was given another address or other keys is not held responsible for its past."""
    return channel.name, channel.base_url, hash(channel.keys)


def mark(channel: Channel) -> str:
    """What a breaker holds against: the channel at this address with these keys."""
    return "channel:" + _hashed(channel.base_url, *channel.keys)


def _digest(channel: Channel, key: int) -> str:
    return "key:" + (_hashed(channel.keys[key]) if key < len(channel.keys) else "")


@lru_cache(maxsize=4096)
def _hashed(*parts: str | Secret) -> str:
    """16 hex digits, the same in every process."""
    text = "\n".join(part if isinstance(part, str) else part.reveal() for part in parts)
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _reason(failure: UpstreamFailure) -> str:
    """What went wrong, without the words of an answer: they may quote a prompt."""
    return f"{failure.kind} {failure.upstream_status or ''}".strip()
