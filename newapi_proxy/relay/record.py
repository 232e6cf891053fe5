"""What is noted of one request while it runs, and the one place where its log line and metrics are made."""

from __future__ import annotations

from typing import Final

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.billing.charge import usd
from newapi_proxy.clock import Clock
from newapi_proxy.errors import ClientError, ProxyError, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.keeping import Keeping
from newapi_proxy.relay.plan import Candidate
from newapi_proxy.snapshot import Channel, Snapshot, Token, matches

OTHER: Final = "other"  # for what no configuration names: labels stay bounded


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Who came, and how. `arrived` in monotonic seconds, `route` the configured route, not the path as sent."""

    request_id: str
    method: str
    path: str
    route: str
    client_ip: str
    arrived: float
    token: Token | None = None
    snapshot: Snapshot | None = None  # the one that the token was found in
    keeping: Keeping | None = None  # where the answer is to be kept: the request's sink


class Record:
    """One request's notes; written to, never read by the relay."""

    __slots__ = (
        "_clock",
        "_visit",
        "attempts",
        "channel",
        "end",
        "error",
        "label",
        "line",
        "model",
        "price_version",
        "quota",
        "replay_of",
        "status",
        "stream",
        "ttft",
        "upstream_model",
        "usage",
    )

    def __init__(self, visit: Visit, clock: Clock) -> None:
        self._visit = visit
        self._clock = clock
        self.attempts: list[log.Attempt] = []
        self.channel: str | None = None
        self.end: log.End = "ok"
        self.error: log.Fault | None = None
        self.label = OTHER
        self.line = _NO_USAGE
        self.model: str | None = None
        self.price_version: str | None = None
        self.quota = 0
        self.replay_of: str | msgspec.UnsetType = msgspec.UNSET  # the request whose answer is told again
        self.status = 200
        self.stream = False
        self.ttft: float | None = None
        self.upstream_model: str | None = None
        self.usage: Usage = NOTHING

    def asked(self, ask: Ask) -> None:
        """The request could be read."""
        self.model = ask.model or None
        self.stream = ask.stream and not ask.handed

    def tried(self, candidate: Candidate, status: int, kind: str, since: float, code: str | None = None) -> None:
        """An attempt ended; `since` is when it began, `kind` ok or one of few words, `code` the provider's own."""
        milliseconds = int((self._clock.monotonic() - since) * 10_000 + 0.5) / 10
        self.attempts.append(log.Attempt(candidate.channel.name, candidate.key, status, code, milliseconds))
        metrics.attempt(candidate.channel.name, kind)

    def first_byte(self) -> None:
        """Content is on its way to the client."""
        if self.ttft is None:
            self.ttft = self._clock.monotonic() - self._visit.arrived

    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock.wall())

    def seconds(self) -> int:
        """Whole seconds since the request came."""
        return round(self._clock.monotonic() - self._visit.arrived)

    def served(self, channel: Channel, upstream_model: str) -> None:
        """Whose answer the client gets. The metric's label is the configured name or pattern that let it in.

        A name with a suffix is let in by the name without it: there only upstream's name may be a configured one.
        """
        self.channel = channel.name
        self.upstream_model = upstream_model
        if self.model in channel.models:
            self.label = self.model
            return
        names = (self.model or "", upstream_model)
        self.label = next((pattern for name in names for pattern in channel.models if matches(pattern, name)), OTHER)

    def billed(self, usage: Usage, told: dict[str, int | str], units: int, price_version: str) -> None:
        """The ledger has taken the units; `told` is the usage as the line has it."""
        self.usage, self.line, self.quota, self.price_version = usage, told, units, price_version

    def failed(self, error: ProxyError, status: int) -> None:
        """What the client is told instead of an answer."""
        self.error = log.Fault(error.type, error.code)
        self.status = status
        if isinstance(error, UpstreamFailure):
            self.end = "timeout" if error.kind == "timeout" else "upstream_error"
        elif isinstance(error, ClientError) or not self.attempts:
            self.end = "rejected"
        else:
            self.end = "upstream_error"

    def broke(self) -> None:
        """An exception that nobody expected is on its way up."""
        self.error = log.Fault("new_api_error", "internal_error")
        self.status = 500
        self.end = "upstream_error" if self.attempts else "rejected"

    def finish(self) -> None:
        """Writes the line and counts the request."""
        visit = self._visit
        token = visit.token
        seconds = self._clock.monotonic() - visit.arrived
        usage = self.line
        log.request(
            log.Finished(
                request_id=visit.request_id,
                method=visit.method,
                path=visit.path,
                status=self.status,
                duration_ms=int(seconds * 100_000 + 0.5) / 100,  # `round` to places takes four times as long
                ttft_ms=None if self.ttft is None else int(self.ttft * 100_000 + 0.5) / 100,
                client_ip=visit.client_ip,
                token=token.name if token else None,
                group=token.group if token else None,
                model=self.model,
                upstream_model=self.upstream_model,
                channel=self.channel,
                stream=self.stream,
                attempts=tuple(self.attempts),
                usage=usage,
                quota=self.quota,
                usd=usd(self.quota),
                price_version=self.price_version,
                end=self.end,
                error=self.error,
                replay_of=self.replay_of,
            )
        )
        metrics.request(visit.route, self.status, self.end, seconds, self.ttft)
        if self.end == "rejected":
            metrics.count("newapi_rejected_total", str(self.error.code) if self.error and self.error.code else OTHER)
        if self.channel is not None:
            metrics.tokens(self.label, usage)
            metrics.quota(self.label, self.channel, self.quota)


def line(usage: Usage) -> dict[str, int | str]:
    """The usage as interfaces §5 names its fields; `input` and `output` are totals, the rest are parts of them."""
    return {
        "input": usage.prompt,
        "output": usage.completion,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "cache_write_1h": usage.cache_write_1h,
        "reasoning": usage.reasoning,
        "audio_in": usage.audio_in,
        "audio_out": usage.audio_out,
        "image": usage.image_in + usage.image_out,
        "source": usage.source,
    }


_NO_USAGE: Final = line(NOTHING)
