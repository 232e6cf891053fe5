"""How much at once and per time: requests in progress and sliding windows, taken before, corrected afterwards.

Knows subjects, numbers and the seconds of a monotonic clock; whose subjects they are is not its business. `Windows` is
what the relay asks for; `Memory` counts for one process, and is the default.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

EXACT: Final = 256  # entries of a window that leave at their own moments; above, those close together leave together
MOST: Final = 10_000  # subjects that may be remembered while idle; reloads leave the names of earlier files behind
SHOWN: Final = 1_000  # subjects in a list for people


class Rate(msgspec.Struct, frozen=True):
    """At most `most` requests, or tokens, in any `seconds`. `name` as the configuration has it."""

    name: str
    seconds: float
    most: int
    tokens: bool = False


class Ceiling(msgspec.Struct, frozen=True):
    """What one subject may have: `slots` at the same time (None: any number), and rates.

    Counters belong to the `id`, so that they live on when the numbers change. `scope` and `name` are for people,
    `tokens` says whether a rate is of tokens.
    """

    id: str
    scope: str
    name: str
    slots: int | None = None
    rates: tuple[Rate, ...] = ()
    tokens: bool = False


class Full(msgspec.Struct, frozen=True):
    """There is no room: under which ceiling, at which of its limits, and for how many seconds (inf: for ever)."""

    ceiling: Ceiling
    limit: str
    wait: float


class Used(msgspec.Struct, frozen=True):
    """What one limit of a subject has taken now, for a metric or a person."""

    scope: str
    name: str
    limit: str
    count: int


class Windows(Protocol):
    """Counters of all subjects. What is taken is taken under every ceiling, or under none."""

    async def take(self, wanted: Sequence[Ceiling], tokens: int = 0, least: int | None = None) -> Grant | Full:
        """A slot, a request and `tokens` tokens under each ceiling; or why not.

        Where all of a window is less than `tokens` it is taken whole, if only `least` fit into it: that is for an
        estimate of what nobody knows.
        """
        ...

    def correct(self, grant: Grant, tokens: int) -> None:
        """So many tokens it was in the end; they count from the moment the grant was taken."""
        ...

    def release(self, grant: Grant) -> None:
        """Gives the slots back; what was counted stays counted. Safe to repeat."""
        ...

    def cancel(self, grant: Grant) -> None:
        """Gives everything back, as if it had never been taken."""
        ...

    def used(self) -> list[Used]:
        """What is not zero now, of at most `SHOWN` subjects."""
        ...


class Entry:
    """Something counted, until it leaves the window. `began`: when the first of what it counts would leave."""

    __slots__ = ("amount", "began", "until")

    def __init__(self, until: float, amount: int) -> None:
        self.began = self.until = until
        self.amount = amount


class Window:
    """A sliding window: the sum never exceeds what fits into any interval of its length.

    Entries that come close together after the first `EXACT` are counted as one that leaves with the last of them: late
    by at most a 256th of the window, never early; so it holds at most twice `EXACT`.
    """

    __slots__ = ("entries", "seconds", "total")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.entries: deque[Entry] = deque()
        self.total = 0

    def forget(self, now: float) -> None:
        """Drops what has left."""
        entries = self.entries
        while entries and entries[0].until <= now:
            self.total -= entries.popleft().amount

    def wait(self, now: float, most: int, amount: int) -> float:
        """Seconds until the amount fits."""
        self.forget(now)
        over = self.total + amount - most
        if over <= 0:
            return 0.0
        if amount <= most:
            for entry in self.entries:
                over -= entry.amount
                if over <= 0:
                    return entry.until - now
        return math.inf

    def add(self, now: float, amount: int) -> Entry:
        """Counts an amount; the entry that it went into."""
        until = now + self.seconds
        entries = self.entries
        self.total += amount
        if entries:
            if entries[0].until <= now:
                self.forget(now)
            last = entries[-1] if entries else None
            if last is not None and (
                until == last.until or (len(entries) >= EXACT and until - last.began <= self.seconds / EXACT)
            ):
                last.until = until
                last.amount += amount
                return last
        entry = Entry(until, amount)
        entries.append(entry)
        return entry

    def change(self, now: float, entry: Entry, by: int) -> None:
        """Puts an entry right, unless it has left."""
        self.forget(now)
        if entry.until > now:
            entry.amount += by
            self.total += by


class _Counter:
    """One subject's slots in use and its windows by name; `under`: those of the ceiling that it was last asked with."""

    __slots__ = ("ceiling", "most", "slots", "under", "windows")

    def __init__(self, ceiling: Ceiling) -> None:
        self.slots = 0
        self.windows: dict[str, Window] = {}
        self.bind(ceiling)

    def bind(self, ceiling: Ceiling) -> None:
        self.ceiling = ceiling
        self.most = math.inf if ceiling.slots is None else ceiling.slots
        self.under = tuple(
            (self.windows.setdefault(rate.name, Window(rate.seconds)), rate.most, rate.tokens, rate)
            for rate in ceiling.rates
        )

    def full(self, now: float, tokens: int, least: int) -> Full | None:
        limit, wait = "", 0.0
        if self.slots >= self.most:
            limit, wait = "concurrency", 1.0  # nobody knows when one is given back
        for window, most, _, rate in self.under:
            needed = window.wait(now, most, share(rate, tokens, least))
            if needed > wait:
                limit, wait = rate.name, needed
        return Full(self.ceiling, limit, wait) if limit else None

    def idle(self, now: float) -> bool:
        for window in self.windows.values():
            window.forget(now)
        return not self.slots and not any(window.entries for window in self.windows.values())


_Part = tuple[Window, Entry, int]


class Grant:
    """What was taken. Its insides belong to the store that gave it; `far` to one that counts elsewhere too."""

    __slots__ = ("counters", "far", "requests", "tokens")

    def __init__(self, counters: list[_Counter]) -> None:
        self.counters = counters
        self.requests: list[_Part] = []
        self.tokens: list[_Part] = []
        self.far: Any = None


def _fullest(counters: Sequence[_Counter], now: float, tokens: int, least: int) -> Full | None:
    """The limit that is reached for longest."""
    found = [full for counter in counters if (full := counter.full(now, tokens, least)) is not None]
    return max(found, key=lambda one: one.wait, default=None)


class Memory:
    """The counters of one process. `monotonic` gives seconds that never run backwards."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._counters: dict[str, _Counter] = {}
        self._bound = MOST

    async def take(self, wanted: Sequence[Ceiling], tokens: int = 0, least: int | None = None) -> Grant | Full:
        """Nothing here waits: between the look and the taking nobody else runs."""
        now = self._monotonic()
        known = self._counters
        counters: list[_Counter] = []
        roomy = True
        for ceiling in wanted:
            counter = known.get(ceiling.id)
            if counter is None or counter.ceiling is not ceiling:
                counter = self._counter(ceiling)
            counters.append(counter)
            if counter.slots >= counter.most:
                roomy = False
            for window, most, by_tokens, _ in counter.under:
                if window.total + (tokens if by_tokens else 1) > most:
                    roomy = False  # or it would be, were nothing old in the window
        if len(known) > self._bound:
            self._forget(now, counters)
        least = tokens if least is None else least
        if not roomy and (full := _fullest(counters, now, tokens, least)) is not None:
            return full
        grant = Grant(counters)
        for counter in counters:
            counter.slots += 1
            for window, _, by_tokens, rate in counter.under:
                if not by_tokens:
                    grant.requests.append((window, window.add(now, 1), 1))
                else:
                    amount = tokens if roomy else share(rate, tokens, least)
                    grant.tokens.append((window, window.add(now, amount), amount))
        return grant

    def recall(self, ceiling: Ceiling, seconds: float, past: Sequence[tuple[float, int, int]]) -> None:
        """What was taken before this process began: (seconds ago, requests, tokens), the oldest first.

        Fills the windows of this length.
        """
        now = self._monotonic()
        for window, _, _, rate in self._counter(ceiling).under:
            if rate.seconds != seconds:
                continue
            for ago, requests, tokens in past:
                window.add(now - max(0.0, ago), tokens if rate.tokens else requests)

    def _forget(self, now: float, wanted: Sequence[_Counter]) -> None:
        """Drops idle subjects; where most are busy the next look comes late, so that it costs little per request."""
        self._counters = {id: one for id, one in self._counters.items() if one in wanted or not one.idle(now)}
        self._bound = max(MOST, 2 * len(self._counters))

    def _counter(self, ceiling: Ceiling) -> _Counter:
        counter = self._counters.get(ceiling.id)
        if counter is None:
            counter = self._counters[ceiling.id] = _Counter(ceiling)
        elif counter.ceiling is not ceiling:
            counter.bind(ceiling)
        return counter

    def correct(self, grant: Grant, tokens: int) -> None:
        """What has left its window already is not counted again."""
        if grant.tokens:
            now = self._monotonic()
            for window, entry, amount in grant.tokens:
                window.change(now, entry, tokens - amount)
            grant.tokens = [(window, entry, tokens) for window, entry, _ in grant.tokens]

    def release(self, grant: Grant) -> None:
        """At once."""
        for counter in grant.counters:
            counter.slots -= 1
        grant.counters = []

    def cancel(self, grant: Grant) -> None:
        """At once."""
        self.release(grant)
        now = self._monotonic()
        for window, entry, amount in (*grant.requests, *grant.tokens):
            window.change(now, entry, -amount)
        grant.requests, grant.tokens = [], []

    def used(self) -> list[Used]:
        """In order of first use."""
        now = self._monotonic()
        found: list[Used] = []
        busy = [counter for counter in self._counters.values() if not counter.idle(now)]
        for counter in busy[:SHOWN]:
            scope, name = counter.ceiling.scope, counter.ceiling.name
            if counter.slots:
                found.append(Used(scope, name, "concurrency", counter.slots))
            sums = {limit: window.total for limit, window in counter.windows.items()}
            found += [Used(scope, name, limit, total) for limit, total in sums.items() if total]
        return found


def share(rate: Rate, tokens: int, least: int) -> int:
    """What a request takes of a window: itself, or its tokens; of an estimate no more than all there is."""
    if not rate.tokens:
        return 1
    return tokens if tokens <= rate.most else max(least, rate.most)
