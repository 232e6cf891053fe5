"""Whose limits a request meets, and what the client is told where one is reached.

The key's and its group's are taken once, for the whole request; a channel's and its key's for each attempt, and a full
one is passed over. The counting is `store.windows`. Sources: relay-and-billing 9.7, provider-translation A.0.5,
user-demands F4, F7, X5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from newapi_proxy import metrics
from newapi_proxy.billing.charge import hold_tokens
from newapi_proxy.errors import ClientError, UpstreamFailure
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay.house import Given
from newapi_proxy.relay.plan import Candidate
from newapi_proxy.store.windows import Ceiling, Full, Grant, Windows

_WHAT: Final = {
    "concurrency": "requests at the same time",
    "rpm": "requests per minute",
    "rpd": "requests per day",
    "tpm": "tokens per minute",
}
Ceilings = tuple[Ceiling, ...]
_SUBJECT: Final = {"token": "This key", "group": "This key's group"}


class Stay:
    """What one request has taken of all limits. Where a request meets none, it does nothing."""

    __slots__ = ("_asked", "_channel", "_counted", "_given", "_own", "_tokens", "_windows", "begun", "full")

    def __init__(self, windows: Windows, given: Given) -> None:
        self._windows = windows
        self._given = given
        self._own: Grant | None = None
        self._channel: Grant | None = None
        self._asked: Ceilings = ()  # what the channel's grant was taken under
        self._counted = False
        self._tokens: tuple[int, int] | None = None
        self.begun = False  # whether a channel was looked for
        self.full: list[Full] = []  # the channels that were passed over

    async def enter(self) -> None:
        """Takes what the key's and the group's limits ask for. Raises ClientError 429."""
        wanted = self._given.token.ceilings
        if not wanted:
            return
        least, tokens = self._estimate(wanted)
        taken = await self._windows.take(wanted, tokens, least)
        if isinstance(taken, Full):
            _count(taken)
            raise refused([taken], _SUBJECT[taken.ceiling.scope])
        self._own = taken

    async def attempt(self, candidate: Candidate) -> Full | None:
        """Takes what the candidate's limits ask for, or says what is full."""
        self._channel = None
        ceilings = candidate.channel.ceilings
        wanted = ceilings[candidate.key] if ceilings else ()
        if not wanted:
            return None
        least, tokens = self._estimate(wanted)
        taken = await self._windows.take(wanted, tokens, least)
        if isinstance(taken, Full):
            _count(taken)
            self.full.append(taken)
            return taken
        self._channel, self._asked = taken, wanted
        return None

    def _estimate(self, wanted: tuple[Ceiling, ...]) -> tuple[int, int]:
        """The tokens to reserve, at least and in all; reckoned where somebody counts them."""
        if self._tokens is None:
            for one in wanted:
                if one.tokens:
                    ask = self._given.ask
                    self._tokens = (0, 0) if ask.count_only else hold_tokens(ask)
                    break
        return self._tokens or (0, 0)

    def unsent(self) -> None:
        """The candidate was not tried after all."""
        if self._channel is not None:
            self._windows.cancel(self._channel)
            self._channel = None

    def failed(self, failure: UpstreamFailure) -> None:
        """The attempt is over, its slot is free; where upstream refused it no tokens went into it."""
        if self._channel is not None:
            self._windows.release(self._channel)
            if failure.upstream_status:
                self._windows.correct(self._channel, 0)

    def passed(self) -> None:
        """Another candidate is tried: what is used from now on is not the failed one's."""
        self._channel = None

    def forgo(self) -> None:
        """Nobody had room for the request: it is not one of those that the key and the group have."""
        if self._own is not None:
            self._windows.cancel(self._own)
            self._own = None

    def refused(self) -> None:
        """The request is refused; one that was before anything was done for it, for its money say, is not counted."""
        if not self.begun:
            self.forgo()

    def used(self, usage: Usage) -> None:
        """What the request used in the end, in place of the estimate."""
        self._counted = True
        if self._own is not None:
            self._windows.correct(self._own, usage.prompt + usage.completion)
        if self._channel is not None:
            self._windows.correct(self._channel, usage.prompt + usage.completion)

    async def spent(self, usage: Usage) -> ClientError | None:
        """What one response of a session used, of which the first stands in place of the estimate and the others count
        from now on; why there is no room for it, if the key or its group has none."""
        if not self._counted:
            self.used(usage)
            return None
        tokens = usage.prompt + usage.completion
        for wanted in (_by_token(self._asked), _by_token(self._given.token.ceilings)):
            taken = await self._windows.take(wanted, tokens, 0) if wanted else None
            if isinstance(taken, Grant):
                self._windows.release(taken)
        if not isinstance(taken, Full):
            return None
        _count(taken)
        return refused([taken], _SUBJECT[taken.ceiling.scope])

    def close(self) -> None:
        """The request is over. Of a channel that never said what it used, the estimate stays."""
        if self._channel is not None:
            self._windows.release(self._channel)
        if self._own is not None:
            if not self._counted:
                self._windows.correct(self._own, 0)
            self._windows.release(self._own)


def _by_token(ceilings: Ceilings) -> Ceilings:
    """The ceilings as far as they are about tokens."""
    return tuple(
        msgspec.structs.replace(one, slots=None, rates=tuple(rate for rate in one.rates if rate.tokens))
        for one in ceilings
        if one.tokens
    )


def _count(full: Full) -> None:
    metrics.limited(full.ceiling.scope, full.ceiling.name, full.limit)


def refused(full: Iterable[Full], who: str, waits: Iterable[float] = ()) -> ClientError:
    """429 with the wait until the first of them has room; `waits`: of those that are held back for other reasons."""
    first = min(full, key=lambda one: one.wait)
    wait = min([first.wait, *waits])
    what = f"{_most(first)} {_WHAT[first.limit]}"
    if math.isinf(wait):
        message = f"The request is larger than what {who[0].lower()}{who[1:]} may ever have: {what}."
    else:
        message = f"{who} has reached its limit of {what}. Please try again in {max(1, math.ceil(wait))} s."
    return ClientError(
        message,
        status=429,
        kind="rate_limit",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after=None if math.isinf(wait) else wait,
    )


def _most(full: Full) -> int | None:
    if full.limit == "concurrency":
        return full.ceiling.slots
    return next(rate.most for rate in full.ceiling.rates if rate.name == full.limit)
