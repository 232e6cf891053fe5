"""The attempts of one session: each opens a provider's. Nothing is said to the client before that, so every refusal is
still an HTTP answer. Source: relay-and-billing 1.6.
"""

from __future__ import annotations

import msgspec

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Sink
from newapi_proxy.relay import candidates
from newapi_proxy.relay.attempt import Prepared, prepare
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.limits import Stay
from newapi_proxy.relay.plan import Candidate
from newapi_proxy.relay.pump import Departed, Watch
from newapi_proxy.relay.record import Record
from newapi_proxy.relay.sockets import Refusal, Socket


class Reached(msgspec.Struct, frozen=True):
    """A candidate whose session is open."""

    prepared: Prepared
    socket: Socket


class Dialing:
    """One session's attempts, its limits, and its watch over time and the client's departure."""

    def __init__(self, house: House, given: Given, sink: Sink, record: Record) -> None:
        self._house = house
        self._given = given
        self._record = record
        self.stay = Stay(house.windows, given)
        self.watch = Watch(
            sink, _nothing, keepalive=b"", every=0.0, total=given.snapshot.config.relay.session_timeout, silence=0.0
        )
        house.watches.add(self.watch)

    async def ready(self, candidate: Candidate) -> Prepared:
        """See candidates.Way."""
        return prepare(candidate, self._given.ask, self._given)

    def close(self) -> None:
        """Lets go of limits and time."""
        self.stay.close()
        self.watch.close()
        self._house.watches.discard(self.watch)

    async def attempt(self, prepared: Prepared) -> Reached | UpstreamFailure:
        """See candidates.Way. Only where the house has a dialer."""
        dialer = self._house.dialer
        assert dialer is not None
        health, candidate = self._house.health, prepared.candidate
        channel, since = candidate.channel, self._house.clock.monotonic()
        trial = health.began(channel)
        try:
            interrupt = self.watch.attempt(None)
            timeout = self._given.snapshot.config.relay.connect_timeout
            got = await dialer.dial(prepared.outgoing, interrupt, connect_timeout=timeout, proxy=channel.proxy)
            if isinstance(got, Refusal):
                raise prepared.dialect.failure(got.status, got.headers, b"")
        except UpstreamFailure as failure:
            health.failed(channel, candidate.key, failure, trial=trial)
            self.stay.failed(failure)
            candidates.note(self._given, self._record, candidate, failure, since)
            return candidates.told(failure, candidate)
        except Departed:
            health.released(channel, trial=trial)
            self._record.tried(candidate, 0, "client_gone", since, "client_gone")
            raise
        except BaseException:
            health.released(channel, trial=trial)
            raise
        health.succeeded(channel, candidate.key, trial=trial)
        self._record.tried(candidate, 101, "ok", since)
        return Reached(prepared, got)


def _nothing() -> None:
    """A session has nothing to send while it waits."""
