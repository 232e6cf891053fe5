"""Which channel and key a request tries, in which order, and whether a failure is worth another attempt.

Pure: the turns taken so far and a health view come in, a candidate comes out. The only list of retryable statuses.
Sources: relay-and-billing 4.3-4.5, decisions 10, 18, 19, user-demands F5, F8, F9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.snapshot import Channel

RETRY: Final = frozenset({307, 429})
NEVER: Final = frozenset({408})


class Candidate(msgspec.Struct, frozen=True):
    """A channel and the index of one of its keys. `tier` counts from 0, the highest priority."""

    channel: Channel
    key: int
    tier: int


class Turns:
    """Smooth weighted round robin: any window of Σweights picks deviates by at most one from the weights.

    Holds one number per channel of a tier and one per channel's keys; forgotten tiers leave when the table is full.
    """

    def __init__(self) -> None:
        self._credit: dict[tuple[str, ...], dict[str, int]] = {}
        self._keys: dict[str, int] = {}

    def pick(self, channels: Sequence[Channel]) -> Channel:
        """The channel whose turn it is; moves the turns on."""
        if len(channels) == 1:
            return channels[0]
        names = tuple(channel.name for channel in channels)
        if len(self._credit) > 4096:
            self._credit.clear()
        credit = self._credit.setdefault(names, dict.fromkeys(names, 0))
        total = 0
        for channel in channels:
            weight = channel.weight or 1
            credit[channel.name] += weight
            total += weight
        best = max(channels, key=lambda channel: credit[channel.name])
        credit[best.name] -= total
        return best

    def key(self, channel: Channel, usable: Sequence[int]) -> int:
        """The next key in turn among the usable ones; moves the turn on."""
        if len(channel.keys) < 2:
            return usable[0]
        if len(self._keys) > 65536:
            self._keys.clear()
        turn = self._keys.get(channel.name, 0)
        self._keys[channel.name] = turn + 1
        first = turn % len(channel.keys)
        return min(usable, key=lambda key: (key - first) % len(channel.keys))


class Plan:
    """One request's way through the tiers. A (channel, key) pair is given at most once."""

    __slots__ = ("_before", "_fresh", "_last", "_picks", "_tiers", "_tried", "_turns", "_usable")

    def __init__(
        self,
        tiers: Sequence[Sequence[Channel]],
        turns: Turns,
        usable: Callable[[Channel, int], bool],
    ) -> None:
        self._tiers = tiers
        self._turns = turns
        self._usable = usable
        self._tried: set[tuple[str, int]] = set()
        self._last: Candidate | None = None
        self._before: Candidate | None = None
        self._picks = 0
        self._fresh = False  # the last pick was the first of its channel

    def next(self) -> Candidate | None:
        """The next pair to try, or None when all that may be used now has been.

        The first retry stays in the tier of the first attempt when that has another channel, every later one goes a
        tier lower, and the lowest tier is used up last (decision 18). What is left above is used after that.
        """
        last = self._last
        if last is None:
            order: Sequence[int] = range(len(self._tiers))
        else:
            stay = self._picks == 1 and self._others(last)
            start = last.tier if stay else min(last.tier + 1, len(self._tiers) - 1)
            order = [*range(start, len(self._tiers)), *range(start)]
        for tier in order:
            found = self._from(tier)
            if found is not None:
                return found
        return None

    def skip(self, candidate: Candidate) -> None:
        """The candidate's channel cannot express the request: none of its keys will; the pick does not count."""
        for key in range(max(1, len(candidate.channel.keys))):
            self._tried.add((candidate.channel.name, key))
        self._last = self._before
        self._picks -= 1

    def full(self, candidate: Candidate, *, whole: bool) -> None:
        """The candidate's key has no room now, or its `whole` channel: passed over, and the pick does not count."""
        if whole:
            self.skip(candidate)
            return
        if self._fresh:
            self._tried.discard((candidate.channel.name, -1))
        self._last = self._before
        self._picks -= 1

    @property
    def resting(self) -> bool:
        """Whether, after `next` gave none, there are pairs that were only held back for now."""
        return any(
            (channel.name, key) not in self._tried
            for tier in self._tiers
            for channel in tier
            for key in range(max(1, len(channel.keys)))
        )

    def _others(self, last: Candidate) -> bool:
        return any(
            channel.name != last.channel.name and self._keys(channel) for channel in self._tiers[last.tier]
        ) or bool(self._keys(last.channel))

    def _keys(self, channel: Channel) -> list[int]:
        return [
            key
            for key in range(max(1, len(channel.keys)))
            if (channel.name, key) not in self._tried and self._usable(channel, key)
        ]

    def _from(self, tier: int) -> Candidate | None:
        channels = self._tiers[tier]
        if len(channels) == 1 and len(channels[0].keys) < 2:  # the usual small installation: no turns to keep
            lone = channels[0]
            free = (not self._tried or (lone.name, 0) not in self._tried) and self._usable(lone, 0)
            return self._take(lone, 0, tier) if free else None
        open_keys = {channel.name: keys for channel in self._tiers[tier] if (keys := self._keys(channel))}
        channels = [channel for channel in self._tiers[tier] if channel.name in open_keys]
        if not channels:
            return None
        fresh = [channel for channel in channels if (channel.name, -1) not in self._tried]
        channel = self._turns.pick(fresh or channels)
        return self._take(channel, self._turns.key(channel, open_keys[channel.name]), tier)

    def _take(self, channel: Channel, key: int, tier: int) -> Candidate:
        tried, whole = self._tried, (channel.name, -1)
        tried.add((channel.name, key))
        self._fresh = whole not in tried
        tried.add(whole)
        self._before, self._last = self._last, Candidate(channel, key, tier)
        self._picks += 1
        return self._last


def mapped(failure: UpstreamFailure, channel: Channel) -> int:
    """The status that retry and client see: upstream's own through the channel's status_code_mapping, 0 for none."""
    return channel.status_code_mapping.get(failure.upstream_status, failure.upstream_status)


def retries(failure: UpstreamFailure, channel: Channel, no_retry: Sequence[int]) -> bool:
    """Whether a failed attempt is worth another one (the budget of attempts apart)."""
    status = mapped(failure, channel)
    if failure.kind == "upstream_auth" or status == 0:
        return True
    if 200 <= status < 300:  # an error inside a success: judged by what it means
        return failure.kind not in ("bad_request", "content_policy", "too_large")
    if status in RETRY:
        return True
    if status == 400 and channel.adapter.retry_400:
        return True
    return status not in no_retry and status not in NEVER
