"""A key's holder asks about the key: every path and form of key, what New API's key tool sends, who may not ask."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest

from tests.daemon.bare import Answer, bugs, head, sent
from tests.daemon.running import Stage
from tests.daemon.talk import ask

CONFIG: Final = """\
database: sqlite:///newapi.db
trusted_proxies: [127.0.0.0/8]
prices: {echo: {input: 1000, output: 1000}}
channels:
  - {name: echo, type: echo, models: [echo]}
tokens:
  - {name: demo, key: sk-demo, quota: $10}
  - {name: free, key: sk-free, budget: {amount: $1, every: day}}
  - {name: past, key: sk-past, quota: $3, expires: 2020-01-31}
  - {name: off, key: sk-off, enabled: false}
  - {name: near, key: sk-near, allow_ips: [192.0.2.0/24]}
"""
TOOL: Final = "Tool" * 12  # 48 characters, as the key tool wants them
# Keys that New API made: number, key, status, expiry, what is left. 1 enabled, 2 disabled, 3 expired, 4 exhausted.
ROWS: Final = (
    (900, TOOL, 1, -1, 5_000_000),
    (901, "drained", 4, -1, 0),
    (902, "lapsed", 3, 1_500_000_000, 1000),
    (903, "disabled", 2, -1, 1000),
    (904, "banned", 1, -1, 1000),
)
BILLING: Final = ("/dashboard/billing/subscription", "/dashboard/billing/usage")
BALANCE: Final = ("/api/usage/token", "/api/usage/token/")
EVERY: Final = (*BILLING, *(f"/v1{path}" for path in BILLING), *BALANCE, "/api/log/token")


@pytest.fixture(scope="module", autouse=True)
def database(stage: Stage) -> Iterator[None]:
    """The rows are there and known; in the end nothing unexpected happened."""
    with closing(sqlite3.connect(stage.daemon.config.parent / "newapi.db", timeout=20)) as raw, raw:
        for id, name, status in ((900, "ada", 1), (904, "eve", 2)):
            raw.execute(
                "INSERT INTO users(id, username, password, status, quota, aff_code) VALUES (?, ?, '!', ?, 9000000, ?)",
                (id, name, status, name),
            )
        for id, key, status, expires, left in ROWS:
            raw.execute(
                "INSERT INTO tokens(id, user_id, key, status, name, expired_time, remain_quota, unlimited_quota)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (id, 904 if key == "banned" else 900, key, status, key.lower()[:8], expires, left),
            )
    stage.daemon.signal(signal.SIGHUP)
    stage.daemon.wait(lambda line: line["event"] == "config_loaded" and line["tokens"] == 5 + len(ROWS))
    yield
    assert bugs(stage) == 0


def get(stage: Stage, path: str, key: str | None = "sk-demo", **headers: str) -> Answer:
    """One question with the key as the bearer token."""
    given = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return sent(stage.url, head("GET", path, **given, **headers))


def spend(stage: Stage, key: str) -> int:
    """One chat by the key; what it cost."""
    status, headers, body = ask(stage.url, headers={"Authorization": f"Bearer {key}"}, max_tokens=4)
    assert status == 200, body
    return int(stage.line(headers["x-request-id"])["quota"])


def test_what_was_spent_is_told(stage: Stage) -> None:
    """Every path tells the same key's money, to the unit, and asking costs nothing."""
    before = get(stage, "/api/usage/token").tree["data"]["total_used"]
    cost = spend(stage, "sk-demo")
    assert cost > 0
    for _ in range(2):
        data = get(stage, "/api/usage/token/").tree["data"]
        assert (data["total_used"], data["total_granted"]) == (before + cost, 5_000_000)
        for prefix in ("", "/v1"):
            used = get(stage, f"{prefix}/dashboard/billing/usage?start_date=2024-1-1&end_date=2024-2-1").tree
            assert used == {"object": "list", "total_usage": (before + cost) / 5000}
            limit = get(stage, f"{prefix}/dashboard/billing/subscription").tree
            assert (limit["hard_limit_usd"], limit["object"]) == (10.0, "billing_subscription")
    assert get(stage, "/v1/dashboard/billing/subscription", "sk-free").tree["hard_limit_usd"] == 100_000_000
    (budget,) = get(stage, "/api/usage/token", "sk-free").tree["data"]["budgets"]
    assert (budget["every"], budget["left"]) == ("day", 500_000)
    answer = get(stage, "/api/usage/token")
    line = stage.line(answer.id)
    assert (line["quota"], line["token"], line["status"], line["end"]) == (0, "demo", 200, "ok")


def test_the_key_tool(stage: Stage) -> None:
    """What neko-api-key-tool sends with one of New API's keys is answered as it reads it, across origins."""
    key, origin = f"sk-{TOOL}", {"Origin": "https://tool.example"}
    cost = spend(stage, key)
    for path in ("/v1/dashboard/billing/subscription", "/v1/dashboard/billing/usage", "/api/log/token"):
        asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "authorization"}
        flight = sent(stage.url, head("OPTIONS", path, **origin, **asked))
        assert flight.status == 204
        assert flight.headers["access-control-allow-origin"] == "*"
        assert "authorization" in flight.headers["access-control-allow-headers"].lower()
    subscription = get(stage, "/v1/dashboard/billing/subscription", key, **origin)
    usage = get(stage, "/v1/dashboard/billing/usage?start_date=2026-8-3&end_date=2026-11-11", key, **origin)
    log = get(stage, f"/api/log/token?key={key}", None, **origin)
    assert all(one.headers["access-control-allow-origin"] == "*" for one in (subscription, usage, log))
    assert subscription.tree["hard_limit_usd"] == 10.0
    assert usage.tree["total_usage"] / 100 == cost / 500_000
    rows: list[dict[str, Any]] = log.tree["data"]
    assert log.tree["success"] is True
    assert [row["quota"] for row in rows] == [cost]
    row = rows[0]
    assert (row["type"], row["token_name"], row["model_name"], row["username"]) == (2, "tooltool", "echo", "ada")
    assert {"created_at", "use_time", "is_stream", "prompt_tokens", "completion_tokens", "content"} <= set(row)
    assert "model_ratio" in row["other"]
    assert key not in str(stage.daemon.lines)


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("key", ["sk-drained", "sk-lapsed", "sk-past"])
def test_why_a_key_does_not_serve(stage: Stage, path: str, key: str) -> None:
    """A drained or expired key, of the database or of the file, serves no chat and still answers for itself."""
    assert ask(stage.url, headers={"Authorization": f"Bearer {key}"})[0] == 401
    answer = get(stage, path, key)
    assert answer.status == 200
    assert not {"error", "success"} & set(answer.tree) or answer.tree["success"] is True
    if key != "sk-drained" and path.endswith("subscription"):
        assert 0 < answer.tree["access_until"] < 1_600_000_000


@pytest.mark.parametrize("path", EVERY)
def test_who_may_not_ask(stage: Stage, path: str) -> None:
    """Disabled keys, keys of disabled accounts, and those from elsewhere learn nothing; the answer is of the route."""
    for key, status in {"sk-disabled": 401, "sk-off": 401, "sk-banned": 403, "sk-near": 403}.items():
        answer = get(stage, path, key)
        assert answer.status == status, key
        if path.startswith("/api/"):
            assert answer.tree["success"] is False
        else:
            assert answer.tree["error"]["message"]


def test_keys_that_nobody_has(stage: Stage) -> None:
    """Unknown and missing keys, in each route's own words; one key's rows are never another's."""
    for path in EVERY[:4]:
        for key in ("sk-nobody", None):
            assert get(stage, path, key).tree["error"]["code"] == "invalid_api_key"
    unknown = get(stage, "/api/usage/token", "sk-nobody")
    assert (unknown.status, unknown.tree["success"]) == (200, False)
    assert stage.line(unknown.id)["end"] == "rejected"
    missing = get(stage, "/api/usage/token", None)
    assert (missing.status, missing.tree) == (401, {"success": False, "message": "No Authorization header"})
    odd = get(stage, "/api/usage/token", None, Authorization="Basic abc")
    assert (odd.status, odd.tree["message"]) == (401, "Invalid Bearer token")
    assert get(stage, "/api/log/token?key=sk-nobody", None).tree == {"success": True, "message": "", "data": []}
    assert get(stage, "/api/log/token", "sk-free").tree["data"] == []


def test_other_methods_and_paths(stage: Stage) -> None:
    """Only GET is there, and what New API does not serve here either is not."""
    for path in EVERY:
        answer = sent(stage.url, head("DELETE", path))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, OPTIONS")
    assert get(stage, "/v1/dashboard/billing/credit_grants").status == 404
    assert get(stage, "/api/usage/other").status == 404


def test_a_database_that_cannot_be_read(stage: Stage) -> None:
    """It is told in New API's words with status 200, because the clients read bodies; the log knows the fault."""
    with closing(sqlite3.connect(stage.daemon.config.parent / "newapi.db", timeout=20)) as raw:
        raw.execute("ALTER TABLE tokens RENAME TO away")
        try:
            answers = {path: get(stage, path) for path in EVERY[:-1]}
        finally:
            raw.execute("ALTER TABLE away RENAME TO tokens")
    for path, answer in answers.items():
        assert answer.status == 200
        if path.startswith("/api/"):
            assert answer.tree == {"success": False, "message": "The database cannot be read."}
        else:
            type = "upstream_error" if path.endswith("subscription") else "new_api_error"
            error = {"message": "The database cannot be read.", "type": type, "param": "", "code": None}
            assert answer.tree == {"error": error}
        assert stage.line(answer.id)["error"]["code"] == "ledger_unavailable"
    assert get(stage, EVERY[0]).tree["object"] == "billing_subscription"


@pytest.mark.parametrize("path", ["/api/usage/token", "/api/log/token"])
def test_guesses(stage: Stage, path: str) -> None:
    """Who tries one key after the other has to wait here as on every route."""
    place = {"X_Forwarded_For": f"198.51.100.{7 + len(path)}"}
    answers = [get(stage, path, f"sk-guess-{number}", **place) for number in range(30)]
    assert answers[0].status == 200
    assert (answers[-1].status, answers[-1].tree["success"]) == (429, False)
    assert int(answers[-1].headers["retry-after"]) > 0


def test_too_many_questions(stage: Stage) -> None:
    """One address is told to wait after New API's number of questions; others are not."""
    busy, calm = ({"X_Forwarded_For": address} for address in ("198.51.100.1", "198.51.100.2"))
    for number in range(180):
        assert get(stage, EVERY[number % len(EVERY)], **busy).status == 200
    for path in EVERY:
        answer = get(stage, path, **busy)
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 180
    assert get(stage, EVERY[0], **calm).status == 200
