"""The metrics: one table, plain numbers on the request path, Prometheus text when somebody asks.

Interfaces §6. Label values come from the configuration, never from a request; a label set that grows beyond its bound
all the same is folded into "other". The client library is imported by the first `text()`: counting needs none of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

_Shape = Literal["counter", "gauge", "histogram"]
_MOST_LABELS: Final = 5000  # label sets per metric; more are summed under "other"
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_COMMITS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)


class _Metric(msgspec.Struct, frozen=True):
    """One row of the table. `buckets` for histograms, upper bounds in seconds."""

    shape: _Shape
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: Final[Mapping[str, _Metric]] = {
    "newapi_requests_total": _Metric("counter", "Finished requests.", ("route", "status", "end")),
    "newapi_rejected_total": _Metric("counter", "Requests refused before any upstream call.", ("reason",)),
    "newapi_request_seconds": _Metric("histogram", "From arrival to the end of the answer.", (), _SECONDS),
    "newapi_ttft_seconds": _Metric("histogram", "From arrival to the first content.", (), _SECONDS),
    "newapi_inflight": _Metric("gauge", "Requests being served."),
    "newapi_tokens_total": _Metric("counter", "Tokens as billed.", ("model", "kind")),
    "newapi_quota_total": _Metric("counter", "Quota units charged (500000 are 1 USD).", ("model", "channel")),
    "newapi_attempts_total": _Metric("counter", "Upstream attempts.", ("channel", "outcome")),
    "newapi_limited_total": _Metric(
        "counter", "Requests and attempts that found a limit reached.", ("scope", "name", "limit")
    ),
    "newapi_limit_used": _Metric("gauge", "What each limit has taken now.", ("scope", "name", "limit")),
    "newapi_channel_state": _Metric("gauge", "0 closed, 1 half-open, 2 open, 3 disabled.", ("channel",)),
    "newapi_config_reload_ok": _Metric("gauge", "1 when the last load of the configuration succeeded."),
    "newapi_config_reload_timestamp_seconds": _Metric("gauge", "When the configuration in use was loaded."),
    "newapi_ledger_commit_seconds": _Metric("histogram", "One group commit.", (), _COMMITS),
    "newapi_ledger_pending": _Metric("gauge", "Ledger entries waiting for a commit."),
    "newapi_tasks_total": _Metric("counter", "Tasks submitted, refused and finished.", ("channel", "outcome")),
    "newapi_tasks_open": _Metric("gauge", "Tasks that are not finished.", ("channel",)),
    "newapi_tasks_refunded_total": _Metric("counter", "Quota units given back for failed tasks.", ("channel",)),
    "newapi_topups_total": _Metric("counter", "Orders of credit begun, paid and refused.", ("provider", "outcome")),
    "newapi_topup_quota_total": _Metric("counter", "Quota units that came in by orders and codes.", ("provider",)),
    "newapi_signins_total": _Metric("counter", "Sign-ins at the pages, and those refused.", ("way", "outcome")),
    "newapi_skipped_frames_total": _Metric("counter", "Upstream frames that could not be read."),
    "newapi_bugs_total": _Metric("counter", "Exceptions outside the failure tree; anything but 0 is a bug."),
}


class _Histogram:
    """Counts per bucket, not yet cumulative, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.clear()

    def clear(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return rows


_Numbers = dict[tuple[str, ...], float]
_numbers: Final[dict[str, _Numbers]] = {name: {} for name, row in METRICS.items() if row.shape != "histogram"}
_histograms: Final = {name: _Histogram(row.buckets) for name, row in METRICS.items() if row.shape == "histogram"}
_requests: Final = _numbers["newapi_requests_total"]
_tokens: Final = _numbers["newapi_tokens_total"]
_quota: Final = _numbers["newapi_quota_total"]
_attempts: Final = _numbers["newapi_attempts_total"]
_inflight: Final = _numbers["newapi_inflight"]
_seconds: Final = _histograms["newapi_request_seconds"]
_ttft: Final = _histograms["newapi_ttft_seconds"]


def reset() -> None:
    """Back to the start: everything that has no labels is shown with 0. For the process's start and for tests."""
    for name, numbers in _numbers.items():
        numbers.clear()
        if not METRICS[name].labels:
            numbers[()] = 0
    for histogram in _histograms.values():
        histogram.clear()


def _add(numbers: _Numbers, labels: tuple[str, ...], amount: float) -> None:
    """Adds to one label set; a new one beyond the bound goes to "other"."""
    if labels in numbers:
        numbers[labels] += amount
    elif len(numbers) < _MOST_LABELS:
        numbers[labels] = amount
    else:
        other = ("other",) * len(labels)
        numbers[other] = numbers.get(other, 0) + amount


@lru_cache(maxsize=1024)
def _text(status: int) -> str:
    return str(status)


def request(route: str, status: int, end: str, seconds: float, ttft: float | None) -> None:
    """A finished request. `route` is the route's pattern, never the path that was asked for."""
    labels = (route, _text(status), end)
    if labels in _requests:
        _requests[labels] += 1
    else:
        _add(_requests, labels, 1)
    _seconds.observe(seconds)
    if ttft is not None:
        _ttft.observe(ttft)


def inflight(change: int = 0) -> int:
    """One request more (1) or less (-1); how many are being served now."""
    running = _inflight[()] = _inflight[()] + change
    return int(running)


def tokens(model: str, usage: Mapping[str, Any]) -> None:
    """The request line's usage record; what is no number or 0 adds nothing."""
    for kind, count in compress(usage.items(), usage.values()):
        if type(count) is int:
            labels = (model, kind)
            if labels in _tokens:
                _tokens[labels] += count
            else:
                _add(_tokens, labels, count)


def quota(model: str, channel: str, units: int) -> None:
    """Units charged."""
    _add(_quota, (model, channel), units)


def attempt(channel: str, outcome: str) -> None:
    """One upstream attempt: ok, or what its failure was."""
    _add(_attempts, (channel, outcome), 1)


def limited(scope: str, name: str, limit: str) -> None:
    """A limit was reached; `scope` is token, group, channel or key, all three are the configuration's words."""
    _add(_numbers["newapi_limited_total"], (scope, name, limit), 1)


def channel_state(channel: str, state: int) -> None:
    """0 closed, 1 half-open, 2 open, 3 disabled."""
    _numbers["newapi_channel_state"][(channel,)] = state


def forget_channels(kept: Iterable[str]) -> None:
    """After a reload: channels that are gone lose their state line (their counters stay, as counters must)."""
    states, names = _numbers["newapi_channel_state"], set(kept)
    for labels in [labels for labels in states if labels[0] not in names]:
        del states[labels]


def reload(ok: bool, wall: float) -> None:
    """The configuration was loaded at `wall` (seconds since 1970), or a reload was refused."""
    _numbers["newapi_config_reload_ok"][()] = 1 if ok else 0
    if ok:
        _numbers["newapi_config_reload_timestamp_seconds"][()] = wall


def commit(seconds: float, pending: int) -> None:
    """A group commit took so long; so many entries wait for the next one."""
    _histograms["newapi_ledger_commit_seconds"].observe(seconds)
    _numbers["newapi_ledger_pending"][()] = pending


def tasks(channel: str, outcome: str = "", *, refunded: int = 0, open: int | None = None) -> None:
    """A task was submitted or refused, or has ended (success, failure, timeout) and `refunded` units came back with it;
    or: so many are `open` now."""
    if outcome:
        _add(_numbers["newapi_tasks_total"], (channel, outcome), 1)
    if refunded:
        _add(_numbers["newapi_tasks_refunded_total"], (channel,), refunded)
    if open is not None:
        _numbers["newapi_tasks_open"][(channel,)] = open


def count(name: str, *labels: str, amount: int = 1) -> None:
    """Adds to a counter of the table, for what is no part of every request."""
    _add(_numbers[name], labels, amount)


def counted(name: str) -> Mapping[tuple[str, ...], float]:
    """What has been counted under that name since the start, by its labels, for people."""
    return _numbers[name]


def skipped_frame() -> None:
    """An upstream frame that could not be read."""
    _numbers["newapi_skipped_frames_total"][()] += 1


def bug() -> None:
    """An exception outside the failure tree."""
    _numbers["newapi_bugs_total"][()] += 1


def bugs() -> int:
    """How many there were; tests assert 0."""
    return int(_numbers["newapi_bugs_total"][()])


def snapshot() -> dict[str, float]:
    """The numbers without labels, for the state line."""
    return {name: numbers[()] for name, numbers in _numbers.items() if () in numbers}


def text(used: Iterable[tuple[str, str, str, int]] = ()) -> bytes:
    """Everything in the Prometheus text format, with the client library's process metrics.

    `used`: what the limits have taken now, as scope, name, limit, count.
    """
    from prometheus_client import generate_latest

    _numbers["newapi_limit_used"] = {(scope, name, limit): count for scope, name, limit, count in used}
    return generate_latest(_registry())


@lru_cache(maxsize=1)
def _registry() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector())
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _Collector:
    """Hands the numbers above to the client library."""

    def collect(self) -> Iterator[Family]:
        """One family per row of the table."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, row in METRICS.items():
            if row.shape == "histogram":
                found = _histograms[name]
                yield HistogramMetricFamily(name, row.help, buckets=found.buckets(), sum_value=found.sum)
                continue
            kind = CounterMetricFamily if row.shape == "counter" else GaugeMetricFamily
            family = kind(name, row.help, labels=row.labels)
            for labels, value in _numbers[name].items():
                family.add_metric(labels, value)
            yield family


reset()
