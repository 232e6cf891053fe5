"""The metrics: the table against the page, the text against its own numbers, bounded labels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from newapi_proxy import metrics

PROMISED = {
    "newapi_requests_total": ("route", "status", "end"),
    "newapi_rejected_total": ("reason",),
    "newapi_request_seconds": (),
    "newapi_ttft_seconds": (),
    "newapi_inflight": (),
    "newapi_tokens_total": ("model", "kind"),
    "newapi_quota_total": ("model", "channel"),
    "newapi_attempts_total": ("channel", "outcome"),
    "newapi_channel_state": ("channel",),
    "newapi_config_reload_ok": (),
    "newapi_config_reload_timestamp_seconds": (),
    "newapi_ledger_commit_seconds": (),
    "newapi_ledger_pending": (),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    metrics.reset()
    yield
    metrics.reset()


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The text, read back by the client library's parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_table_holds_what_is_promised() -> None:
    """Every metric of interfaces §6 is there with its labels."""
    assert {name: row.labels for name, row in metrics.METRICS.items() if name in PROMISED} == PROMISED


def test_numbers_arrive_in_the_text() -> None:
    """What is counted is what a scrape reads, the process's own metrics beside it."""
    metrics.request("/v1/messages", 200, "ok", 0.3, 0.02)
    metrics.request("/v1/messages", 200, "ok", 700.0, None)
    metrics.count("newapi_rejected_total", "invalid_api_key")
    metrics.inflight(1)
    metrics.tokens("gpt", {"input": 5, "output": 0, "source": "upstream"})
    metrics.quota("gpt", "main", 12)
    metrics.attempt("main", "ok")
    metrics.channel_state("main", 2)
    metrics.reload(True, 1000.5)
    metrics.commit(0.002, 3)
    read = samples()
    assert read["newapi_requests_total", (("end", "ok"), ("route", "/v1/messages"), ("status", "200"))] == 2
    assert read["newapi_request_seconds_bucket", (("le", "0.5"),)] == 1
    assert read["newapi_request_seconds_bucket", (("le", "+Inf"),)] == 2
    assert read["newapi_request_seconds_count", ()] == 2
    assert read["newapi_request_seconds_sum", ()] == pytest.approx(700.3)
    assert read["newapi_ttft_seconds_count", ()] == 1
    assert read["newapi_rejected_total", (("reason", "invalid_api_key"),)] == 1
    assert read["newapi_inflight", ()] == 1
    assert read["newapi_tokens_total", (("kind", "input"), ("model", "gpt"))] == 5
    assert ("newapi_tokens_total", (("kind", "output"), ("model", "gpt"))) not in read
    assert read["newapi_quota_total", (("channel", "main"), ("model", "gpt"))] == 12
    assert read["newapi_attempts_total", (("channel", "main"), ("outcome", "ok"))] == 1
    assert read["newapi_channel_state", (("channel", "main"),)] == 2
    assert read["newapi_config_reload_ok", ()] == 1
    assert read["newapi_config_reload_timestamp_seconds", ()] == 1000.5
    assert read["newapi_ledger_commit_seconds_count", ()] == 1
    assert read["newapi_ledger_pending", ()] == 3
    assert read["newapi_bugs_total", ()] == 0
    assert read["process_resident_memory_bytes", ()] > 0


def test_a_bad_reload_keeps_the_time() -> None:
    """A refused reload sets 0 and keeps when the configuration in use was loaded."""
    metrics.reload(True, 5.0)
    metrics.reload(False, 9.0)
    assert metrics.snapshot()["newapi_config_reload_ok"] == 0
    assert metrics.snapshot()["newapi_config_reload_timestamp_seconds"] == 5.0


def test_label_sets_are_bounded() -> None:
    """Labels beyond the bound are summed under "other", and nothing is lost."""
    for number in range(metrics._MOST_LABELS + 10):
        metrics.attempt(f"c{number}", "ok")
    read = {labels: value for (name, labels), value in samples().items() if name == "newapi_attempts_total"}
    assert len(read) == metrics._MOST_LABELS + 1
    assert sum(read.values()) == metrics._MOST_LABELS + 10


def test_gone_channels_lose_their_state() -> None:
    """After a reload no state is told of channels that are no longer there."""
    metrics.channel_state("old", 2)
    metrics.channel_state("kept", 1)
    metrics.forget_channels(["kept"])
    assert [labels for (name, labels) in samples() if name == "newapi_channel_state"] == [(("channel", "kept"),)]
