"""The oracle itself: it finds what is wrong in a run that was tampered with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.reliability import oracle


def run() -> oracle.Run:
    """A small run in which everything holds: a complete request, one refused, one that was left, one killed."""
    plan = {"prompt": 10, "completion": 5, "pieces": 2, "bytes": 100}
    client = {"plan": plan, "usage": {"prompt_tokens": 10, "completion_tokens": 5}, "leak": False, "left": False}
    other = {**client, "complete": False, "usage": None}
    row = {"token_id": 1, "channel_id": 7, "shortfall": 0, "held": 60, "reason": "", "detail": ""}
    void = {**row, "channel_id": 0, "state": "voided", "charged": 0}
    call = {"channel": "a", "key": "k", "leak": False, "end": "done", "pieces": 2}
    usage = '{"usage": {"input": 10, "output": 5, "source": "upstream"}}'
    return oracle.Run(
        meta={"tokens": {"rich": 1000}, "units": [1, 2, 0], "max_attempts": 3, "secrets": ["sk-canary"]},
        ledger={
            "one": {**row, "request_id": "one", "state": "settled", "charged": 20, "detail": usage},
            "two": {**void, "request_id": "two", "reason": "not charged"},
            "gone": {**row, "request_id": "gone", "state": "settled", "charged": 30},
            "dead": {**void, "request_id": "dead", "reason": oracle.RECOVERED},
        },
        tokens={1: {"name": "rich", "remain_quota": 950, "used_quota": 50}},
        logs={
            "one": [{"token_id": 1, "quota": 20, "prompt_tokens": 10, "completion_tokens": 5}],
            "gone": [{"token_id": 1, "quota": 30, "prompt_tokens": 24, "completion_tokens": 3}],
        },
        upstream={
            "one": [{**call}],
            "two": [{**call, "end": "refused", "pieces": 0}, {**call, "channel": "b", "end": "refused", "pieces": 0}],
            "gone": [{**call, "end": "gone"}],
            "dead": [{**call, "end": "gone"}],
        },
        clients={
            "one": {**client, "id": "one", "status": 200, "complete": True, "pieces": 2},
            "two": {**other, "id": "two", "status": 503, "pieces": 0},
            "gone": {**other, "id": "gone", "status": 200, "left": True, "pieces": 1},
            "dead": {**other, "id": "dead", "status": 200, "pieces": 2},
        },
        settled=[{"request_id": "one", "state": "settled", "charged": 20}],
        channels={7: {"name": "a", "used_quota": 50}},
        texts={"log.jsonl": b"{}"},
    )


def test_good_run() -> None:
    """A run in which all holds has no faults."""
    assert oracle.check(run()) == []


@pytest.mark.parametrize("used", [[], [25], [21]])
def test_wrong_budget(used: list[int]) -> None:
    """A budget that counts something else than its requests is found (O1)."""
    tampered = run()
    tampered.ledger["one"]["budgets"] = "day:0,"
    tampered.budgets = [{"token_id": 1, "every": "day", "starts": 0, "used": units} for units in used]
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O1"]
    tampered.budgets = [{"token_id": 1, "every": "day", "starts": 0, "used": 20}]
    assert oracle.check(tampered) == []


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
        ("O1", "channels", 7, {"used_quota": 49}),
        ("O2", "ledger", "gone", {"state": "voided", "charged": 0, "reason": "not charged"}),
        ("O2", "ledger", "gone", {"charged": 2}),
        ("O2", "ledger", "gone", {"charged": 5000}),
        ("O2", "ledger", "dead", {"reason": "not charged"}),
        ("O2", "logs", "gone", None),
        ("O4", "ledger", "one", {"detail": "{}"}),
        ("O3", "ledger", "two", {"state": "held"}),
        ("O3", "ledger", "one", {"charged": 21}),
        ("O4", "clients", "one", {"usage": {"prompt_tokens": 11, "completion_tokens": 5}}),
        ("O6", "clients", "two", {"leak": True}),
    ],
)
def test_tampered_rows(rule: str, table: str, id: Any, change: dict[str, Any] | None) -> None:
    """A row that was changed, or is not there, breaks its rule."""
    tampered = run()
    if change is None:
        del getattr(tampered, table)[id]
    else:
        getattr(tampered, table)[id].update(change)
    assert rule in {fault[:2] for fault in oracle.check(tampered)}


def test_attempts() -> None:
    """A channel and key used twice, and too many attempts, are found (O5)."""
    tampered = run()
    tampered.upstream["two"] *= 2
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O5", "O5"]


def test_charged_without_a_piece() -> None:
    """Who was sent nothing pays nothing (O2), unless upstream stated its usage."""
    tampered = run()
    tampered.upstream["gone"][0].update(pieces=0)
    tampered.clients["gone"].update(pieces=0)
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O2"]
    tampered.upstream["gone"][0].update(end="done")
    tampered.ledger["gone"]["charged"] = tampered.logs["gone"][0]["quota"] = 20
    assert {fault[:2] for fault in oracle.check(tampered)} == {"O1"}  # only the sums are off now


def test_held_after_a_start() -> None:
    """What a killed process held and a start did not give back is found (O3)."""
    tampered = run()
    tampered.meta["stale"] = ["dead"]
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O3"]


def test_secret_in_a_file() -> None:
    """A secret in any file is found (O6)."""
    tampered = run()
    tampered.texts["log.jsonl"] = b'{"error": "sk-canary"}'
    assert [fault[:2] for fault in oracle.check(tampered)] == ["O6"]


def copied() -> oracle.Run:
    """A run with two copies of a request under one key: the first was charged, the second saw its answer."""
    made = run()
    made.clients["one"] |= {"key": "k", "seen": "digest"}
    made.clients["copy"] = made.clients["one"] | {"id": "copy"}
    made.upstream["k"] = made.upstream.pop("one") * 2
    made.kept["one"] = "kept"
    return made


def test_copies() -> None:
    """Copies that are charged once and see the same have no faults, though upstream was asked by both."""
    assert oracle.check(copied()) == []


def test_copies_that_are_charged_twice() -> None:
    """A second charge under a key, a different answer, one without a charge or not kept for it are found (O7)."""
    twice = copied()
    twice.ledger["copy"] = twice.ledger["one"] | {"request_id": "copy"}
    assert "O7" in {fault[:2] for fault in oracle.check(twice)}
    different = copied()
    different.clients["copy"]["seen"] = "other"
    assert {fault[:2] for fault in oracle.check(different)} == {"O7"}
    free = copied()
    free.ledger["one"] |= {"state": "voided", "charged": 0}
    assert "O7" in {fault[:2] for fault in oracle.check(free)}
    lost = copied()
    lost.kept.clear()
    assert {fault[:2] for fault in oracle.check(lost)} == {"O7"}
    stuck = copied()
    stuck.kept["two"] = "open"
    assert {fault[:2] for fault in oracle.check(stuck)} == {"O7"}


def drawn() -> oracle.TaskRun:
    """A small run of tasks in which everything holds: one that succeeded, one that failed, one that was refused."""
    row = {"token_id": 1, "channel_id": 4, "shortfall": 0}
    task = {
        "quota": 50,
        "progress": "100%",
        "open": 0,
        "fail_reason": "",
        "code": 1,
        "submit_time": 0,
        "finish_time": 9,
    }
    return oracle.TaskRun(
        meta={"tokens": {"rich": 1000}, "price": 50, "deadline": 8, "secrets": ["sk-canary"]},
        ledger={
            "one": {**row, "request_id": "one", "state": "settled", "charged": 50},
            "two": {**row, "request_id": "two", "state": "settled", "charged": 50},
            "refund:two": {**row, "request_id": "refund:two", "state": "refunded", "charged": -50},
            "three": {**row, "request_id": "three", "state": "voided", "charged": 0},
        },
        tokens={1: {"name": "rich", "remain_quota": 950, "used_quota": 50}},
        channels={4: {"name": "draw", "used_quota": 50}},
        charged={name: [{"token_id": 1, "quota": 50}] for name in ("one", "two")},
        refunded={"two": [{"token_id": 1, "quota": 50}]},
        tasks={
            "one": {**task, "mj_id": "7", "status": "SUCCESS"},
            "two": {**task, "mj_id": "8", "status": "FAILURE"},
            "three": {**task, "mj_id": "9", "status": "FAILURE", "quota": 0, "code": 23},
        },
        upstream={
            "7": {"request": "one", "task": "7", "fate": "success"},
            "8": {"request": "two", "task": "8", "fate": "failure"},
        },
        clients={
            "one": {"id": "one", "status": 200, "code": 1, "task": "7"},
            "two": {"id": "two", "status": 200, "code": 1, "task": "8"},
            "three": {"id": "three", "status": 200, "code": 23, "task": "9"},
        },
        texts={"log.jsonl": b"{}"},
    )


def test_good_tasks() -> None:
    """A run of tasks in which all holds has no faults."""
    assert oracle.check_tasks(drawn()) == []


@pytest.mark.parametrize(
    ("rule", "table", "id", "change"),
    [
        ("T1", "tokens", 1, {"remain_quota": 951}),
        ("T1", "tokens", 1, {"used_quota": 100}),
        ("T1", "channels", 4, {"used_quota": 100}),
        ("T2", "tasks", "one", {"quota": 0}),
        ("T2", "ledger", "three", {"state": "settled", "charged": 50}),
        ("T3", "tasks", "one", {"status": "FAILURE"}),
        ("T3", "tasks", "two", {"status": "SUCCESS"}),
        ("T3", "ledger", "refund:two", {"charged": -49}),
        ("T4", "tasks", "one", {"open": 1}),
        ("T4", "upstream", "7", {"fate": "failure"}),
        ("T5", "tasks", "one", {"mj_id": "8"}),
        ("T5", "clients", "one", {"code": 23}),
        ("T6", "clients", "one", {"leak": True}),
    ],
)
def test_tampered_tasks(rule: str, table: str, id: Any, change: dict[str, Any]) -> None:
    """A row that was changed breaks its rule."""
    tampered = drawn()
    getattr(tampered, table)[id].update(change)
    assert rule in {fault[:2] for fault in oracle.check_tasks(tampered)}


def test_a_second_refund() -> None:
    """A failure that is paid back twice is found (T3)."""
    tampered = drawn()
    tampered.refunded["two"] *= 2
    assert "T3" in {fault[:2] for fault in oracle.check_tasks(tampered)}
