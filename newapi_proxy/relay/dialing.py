"""The way to a provider's session: one candidate after another until one opens, as for any other request.

Nothing is said to the client before that, so every refusal is still an HTTP answer. Sources: relay-and-billing 1.6,
4.3 to 4.5; decisions 10, 18.
"""

from __future__ import annotations

import msgspec

from newapi_proxy import log
from newapi_proxy.errors import OurError, ProxyError, Unsupported, UpstreamFailure
from newapi_proxy.ports import Sink
from newapi_proxy.relay.attempt import Prepared, prepare
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.limits import Stay, refused
from newapi_proxy.relay.plan import Candidate, Plan, mapped, retries
from newapi_proxy.relay.pump import Departed, Watch
from newapi_proxy.relay.record import Record
from newapi_proxy.relay.sockets import Dialer, Refusal, Socket


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

    async def reach(self, plan: Plan, dialer: Dialer) -> Reached:
        """The first that opens. Raises what the client must be told where none does, Departed."""
        relay = self._given.snapshot.config.relay
        self.stay.begun = True
        failure: ProxyError | None = None
        made = 0
        while made < relay.max_attempts and not (made and self.watch.over):
            candidate = plan.next()
            if candidate is None:
                break
            if candidate.channel.ceilings and (full := await self.stay.attempt(candidate)) is not None:
                plan.full(candidate, whole=full.ceiling.scope == "channel")
                continue
            try:
                prepared = prepare(candidate, self._given.ask, self._given)
            except Unsupported as error:
                failure = failure or error
                self.stay.unsent()
                plan.skip(candidate)
                continue
            made += 1
            outcome = await self._dial(prepared, dialer)
            if isinstance(outcome, Reached):
                return outcome
            failure = outcome
            self.stay.passed()
            if not retries(outcome, candidate.channel, relay.no_retry):
                break
        raise failure or self._nobody()

    def close(self) -> None:
        """Lets go of limits and time."""
        self.stay.close()
        self.watch.close()
        self._house.watches.discard(self.watch)

    async def _dial(self, prepared: Prepared, dialer: Dialer) -> Reached | UpstreamFailure:
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
            self._note(candidate, failure, since)
            if (status := mapped(failure, channel)) != failure.upstream_status:
                failure.status = status
            return failure
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

    def _note(self, candidate: Candidate, failure: UpstreamFailure, since: float) -> None:
        code = str(failure.code)
        self._record.tried(candidate, failure.upstream_status, failure.kind, since, code)
        log.logger().warning(
            "attempt_failed",
            request_id=self._given.id,
            channel=candidate.channel.name,
            status=failure.upstream_status,
            kind=failure.kind,
            code=code,
            message=failure.message if failure.upstream_status == 0 else None,
            detail=failure.detail,
        )

    def _nobody(self) -> ProxyError:
        """Every channel is full, or held back at the moment."""
        if self.stay.full:
            self.stay.forgo()
            return refused(self.stay.full, f"Every channel for the model {self._given.ask.model}")
        return OurError(
            f"All channels for the model {self._given.ask.model} are resting after failures.",
            status=503,
            code="channels_resting",
            retry_after=1.0,
        )


def _nothing() -> None:
    """A session has nothing to send while it waits."""
