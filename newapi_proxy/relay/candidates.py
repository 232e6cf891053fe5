"""One candidate after another until one answers, the budget is spent, or the client has gone.

The same for exchanges and sessions, which say what an attempt is (`Way`). Sources: relay-and-billing 1.6, 4.3 to 4.5;
decisions 10, 11, 18.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from newapi_proxy import log
from newapi_proxy.errors import OurError, ProxyError, Unsupported, UpstreamFailure
from newapi_proxy.relay.attempt import Prepared
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.limits import Stay, refused
from newapi_proxy.relay.plan import Candidate, Plan, mapped, retries
from newapi_proxy.relay.pump import Watch
from newapi_proxy.relay.record import Record
from newapi_proxy.secret import MASK, Secret

LONGEST_CODE: Final = 64
SHORTEST: Final = 8  # characters of a key that are looked for in what a provider says
T_co = TypeVar("T_co", covariant=True)


class Way(Protocol[T_co]):
    """What one attempt is, with the limits and the time of them all."""

    @property
    def stay(self) -> Stay:
        """The limits of the request."""
        ...

    @property
    def watch(self) -> Watch:
        """Time, and the client's departure."""
        ...

    async def ready(self, candidate: Candidate) -> Prepared:
        """What would be sent to it. Raises Unsupported where it cannot be said in the provider's format."""
        ...

    async def attempt(self, prepared: Prepared) -> T_co | UpstreamFailure:
        """Sends it; a failure after which another candidate may be tried is returned, any other raised."""
        ...


async def first(house: House, given: Given, plan: Plan, way: Way[T_co]) -> T_co:
    """The outcome of the first attempt that has one. Raises what the client must be told where none has."""
    relay, stay = given.snapshot.config.relay, way.stay
    stay.begun = True
    failure: ProxyError | None = None
    made = 0
    while made < relay.max_attempts and not (made and way.watch.over):
        candidate = plan.next()
        if candidate is None:
            break
        if candidate.channel.ceilings and (full := await stay.attempt(candidate)) is not None:
            plan.full(candidate, whole=full.ceiling.scope == "channel")
            continue
        try:
            prepared = await way.ready(candidate)
        except Unsupported as error:
            failure = failure or error
            stay.unsent()
            plan.skip(candidate)
            continue
        made += 1
        outcome = await way.attempt(prepared)
        if not isinstance(outcome, UpstreamFailure):
            return outcome
        failure = outcome
        stay.passed()
        if not retries(outcome, candidate.channel, relay.no_retry):
            break
    if failure is None or (isinstance(failure, Unsupported) and (plan.resting or stay.full)):
        raise _nobody(house, given, stay)
    raise failure


def told(failure: UpstreamFailure, candidate: Candidate) -> UpstreamFailure:
    """The same with the status that the channel's `status_code_mapping` gives it."""
    if (status := mapped(failure, candidate.channel)) != failure.upstream_status:
        failure.status = status
    return failure


def note(given: Given, record: Record, candidate: Candidate, failure: UpstreamFailure, since: float) -> None:
    """What went wrong, without the words of an answer: a provider's message may quote the prompt. Where it quotes the
    channel's key, nobody is told that."""
    keys = candidate.channel.keys
    failure.message = _hushed(failure.message, keys[candidate.key]) if keys else failure.message
    code = str(failure.code)[:LONGEST_CODE]
    record.tried(candidate, failure.upstream_status, failure.kind, since, code)
    log.logger().warning(
        "attempt_failed",
        request_id=given.id,
        channel=candidate.channel.name,
        status=failure.upstream_status,
        kind=failure.kind,
        code=code,
        message=failure.message if failure.upstream_status == 0 else None,
        detail=failure.detail,
    )


def _hushed(message: str, key: Secret) -> str:
    """The message without the key, or a part of one that has several; what is shorter is a word like others."""
    for part in key.reveal().split("|"):
        if len(part) >= SHORTEST:
            message = message.replace(part, MASK)
    return message


def _nobody(house: House, given: Given, stay: Stay) -> ProxyError:
    """Every channel is full, or held back at the moment: says for how long."""
    waits = [
        house.health.wait(channel, key)
        for tier in given.snapshot.tiers(given.token.group, given.ask.model)
        for channel in tier
        for key in range(max(1, len(channel.keys)))
    ]
    if stay.full:
        stay.forgo()
        resting = (wait for wait in waits if wait > 0)
        return refused(stay.full, f"Every channel for the model {given.ask.model}", resting)
    return OurError(
        f"All channels for the model {given.ask.model} are resting after failures.",
        status=503,
        code="channels_resting",
        retry_after=min(waits, default=1.0),
    )
