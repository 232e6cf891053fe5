"""The oracle itself: it finds what is wrong in a run that was tampered with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reliability import oracle


def run() -> oracle.Run:
    """A small run in which everything holds: one complete request, one that was refused."""
    plan = {"prompt": 10, "completion": 5, "pieces": 2, "bytes": 100}
    client = {"plan": plan, "usage": {"prompt_tokens": 10, "completion_tokens": 5}, "leak": False}
    row = {"token_id": 1, "shortfall": 0, "held": 60}
    return oracle.Run(
        meta={"tokens": {"rich": 1000}, "units": [1, 2, 0], "max_attempts": 3, "secrets": ["sk-canary"]},
        ledger={
            "one": {**row, "request_id": "one", "state": "settled", "charged": 20},
            "two": {**row, "request_id": "two", "state": "voided", "charged": 0},
        },
        tokens={1: {"name": "rich", "remain_quota": 980, "used_quota": 20}},
        logs={"one": [{"token_id": 1, "quota": 20, "prompt_tokens": 10, "completion_tokens": 5}]},
        upstream={
            "one": [{"channel": "a", "key": "k", "leak": False}],
            "two": [{"channel": "a", "key": "k", "leak": False}, {"channel": "b", "key": "k", "leak": False}],
        },
        clients={
            "one": {**client, "id": "one", "status": 200, "complete": True},
            "two": {**client, "id": "two", "status": 503, "complete": False, "usage": None},
        },
        settled=[{"request_id": "one", "state": "settled", "charged": 20}],
        texts={"log.jsonl": b"{}"},
    )


def test_good_run() -> None:
    """A run in which all holds has no faults."""
    assert oracle.check(run()) == []


def test_wrong_balance() -> None:
    """A balance that is one unit off is found (O1)."""
    tampered = run()
    tampered.tokens[1]["remain_quota"] -= 1
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O1"]


@pytest.mark.parametrize(
    ("rule", "table", "id", "change"),
    [
        ("O2", "ledger", "one", {"state": "voided", "charged": 0}),
        ("O2", "ledger", "one", {"charged": 19}),
        ("O2", "ledger", "two", {"state": "settled", "charged": 7}),
        ("O3", "ledger", "two", {"state": "held"}),
        ("O3", "ledger", "one", {"charged": 21}),
        ("O4", "clients", "one", {"usage": {"prompt_tokens": 11, "completion_tokens": 5}}),
        ("O6", "clients", "two", {"leak": True}),
    ],
)
def test_tampered_rows(rule: str, table: str, id: str, change: dict[str, Any]) -> None:
    """A row that was changed breaks its rule."""
    tampered = run()
    getattr(tampered, table)[id].update(change)
    assert rule in {fault[:2] for fault in oracle.check(tampered)}


def test_attempts() -> None:
    """A channel and key used twice, and too many attempts, are found (O5)."""
    tampered = run()
    tampered.upstream["two"] *= 2
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O5", "O5"]


def test_secret_in_a_file() -> None:
    """A secret in any file is found (O6)."""
    tampered = run()
    tampered.texts["log.jsonl"] = b'{"error": "sk-canary"}'
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O6"]
