"""The commands about money: `token`, `usage`, `explain`, `db`, as a person calls them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from newapi_proxy.billing import budgets, ledger
from newapi_proxy.cli import journal, main
from newapi_proxy.clock import SystemClock
from newapi_proxy.store import channels, db, logs, tokens
from newapi_proxy.wire import tree

CONFIG = """
database: sqlite:///newapi.db
timezone: Europe/Berlin
prices: {echo: {input: 2.5, output: 10}}
channels:
  - {name: local, type: echo, models: [echo]}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a configuration of its own: exit code, stdout, stderr."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)

    def call(*words: str) -> tuple[int, str, str]:
        code = main([words[0], "-c", str(config), *words[1:]])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def _charged(folder: Path, *, at: int, request: str = "r1", token: str = "alice", units: int = 750) -> None:
    with db.connect("sqlite:///newapi.db", folder) as conn:
        ids = channels.ensure(conn, {"local": 1})
        found = tokens.find(conn, token)
        id = found[0].id if found else tokens.add(conn, tokens.NewToken(name=token, quota=10_000), at)[0]
        account = ledger.Account(id, 1, token_limited=True, user_limited=False)
        detail = {
            "upstream_model": "echo-1",
            "channel": "local",
            "usage": {"input": 100, "output": 50, "source": "upstream"},
            "price": {"source": "built-in", "input": "2.5"},
            "group": "vip",
            "group_ratio": "0.8",
            "steps": [["input", 100, "2.5", "125"], ["charge", 0, "", str(units)]],
            "attempts": [{"channel": "local", "key": 0, "status": 200, "error": None, "ms": 12}],
        }
        entry = logs.Entry(
            user_id=1,
            created_at=at,
            token_name=token,
            model_name="echo",
            quota=units,
            prompt_tokens=100,
            completion_tokens=50,
            channel_id=ids["local"],
            token_id=id,
            request_id=request,
        )
        ledger.hold(conn, [ledger.Hold(request, account, 1000, at, "b", "echo")])
        made = ledger.Settlement(request, account, 1000, units, at + 2, ids["local"], entry, tree.encode(detail), "v1")
        assert ledger.settle(conn, [made]) == [units]


def test_token_add_prints_the_key_once(run: Run, tmp_path: Path) -> None:
    """`token add` prints a working key; nothing else ever shows it, the file neither."""
    code, out, _ = run("token", "add", "alice", "--quota", "$5", "--models", "gpt-4o*,echo", "--expires", "2031-12-31")
    key = out.strip()
    assert (code, len(key), key[:3]) == (0, 51, "sk-")
    code, out, _ = run("token", "show", "alice", "--format", "json")
    (row,) = json.loads(out)
    assert code == 0
    assert (row["left"], row["models"], row["expires"]) == (2_500_000, ["gpt-4o*", "echo"], "2031-12-31T22:59:59+00:00")
    assert key[3:].encode() not in (tmp_path / "newapi.db").read_bytes()
    assert key not in run("token", "list")[1]


def test_token_switches(run: Run) -> None:
    """A key is switched, topped up and deleted by name or id; balances never go below zero."""
    run("token", "add", "bob", "--quota", "1000")
    assert run("token", "disable", "bob")[0] == 0
    assert json.loads(run("token", "show", "bob", "--format", "json")[1])[0]["status"] == "disabled"
    assert run("token", "enable", "1")[0] == 0
    assert run("token", "topup", "bob", "$1")[1] == "$1.000000 moved; $1.002000 left\n"
    assert run("token", "topup", "bob", "--", "-9999999")[1] == "-$1.002000 moved; $0.000000 left\n"
    assert run("token", "rm", "bob")[0] == 0
    assert run("token", "show", "bob")[0] == 1
    assert run("db", "check")[:2] == (0, "the ledger adds up\n")


def test_token_faults(run: Run, tmp_path: Path) -> None:
    """Unknown, ambiguous, unlimited and YAML's keys are refused with a sentence and exit code 1."""
    run("token", "add", "twin", "--unlimited")
    run("token", "add", "twin", "--unlimited")
    assert run("token", "rm", "nobody")[::2] == (1, "There is no key nobody.\n")
    assert run("token", "rm", "twin")[::2] == (1, "2 keys are named twin: give the id (1, 2).\n")
    assert run("token", "topup", "1", "5")[0] == 1
    assert run("token", "add", "minus", "--quota=-5")[0] == 1
    with db.connect("sqlite:///newapi.db", tmp_path) as conn:
        wanted = tokens.YamlToken(digest=tokens.digest("k"), name="yaml", group="default")
        tokens.ensure(conn, [wanted], 5)
    code, _, err = run("token", "disable", "yaml")
    assert (code, "configuration file" in err) == (1, True)


@pytest.mark.parametrize(
    "words", [("token",), ("token", "add", "x"), ("token", "add", "x", "--quota", "much"), ("db",), ("explain",)]
)
def test_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    """A command that is not understood ends with code 2 and says how it is used."""
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2


def test_usage_by_everything(run: Run, tmp_path: Path) -> None:
    """Spend is summed by any combination; days are those of the configured zone."""
    noon = 1_893_495_600  # 2030-01-01 11:00 UTC
    midnight = noon + 12 * 3600 - 1200  # 23:40 in Berlin, 22:40 UTC
    _charged(tmp_path, at=noon, request="r1")
    _charged(tmp_path, at=midnight, request="r2", units=50)
    _charged(tmp_path, at=midnight + 1800, request="r3", token="bob", units=9)
    code, out, _ = run("usage", "--by", "day,token", "--until", "2030-01-02", "--format", "json")
    assert code == 0
    assert [(row["day"], row["token"], row["requests"], row["quota"], row["usd"]) for row in json.loads(out)] == [
        ("2030-01-01", "alice", 2, 800, "0.001600"),
        ("2030-01-02", "bob", 1, 9, "0.000018"),
    ]
    out = run("usage", "--by", "channel,model", "--since", "2030-01-02", "--until", "2030-01-02", "--format", "csv")[1]
    assert list(csv.reader(io.StringIO(out))) == [
        ["channel", "model", "requests", "prompt_tokens", "completion_tokens", "quota", "usd"],
        ["local", "echo", "1", "100", "50", "9", "0.000018"],
    ]
    assert "alice" in run("usage", "--until", "2031-01-01")[1]
    assert run("usage", "--since", "someday")[0] == 1


def test_usage_as_a_journal(run: Run, tmp_path: Path) -> None:
    """`--format hledger` is a balanced transaction in USD per day and group, whatever the names hold."""
    noon = 1_893_495_600  # 2030-01-01 11:00 UTC
    _charged(tmp_path, at=noon)
    _charged(tmp_path, at=noon + 86_400, request="r2", token="(b:o  b); x", units=9)
    code, out, _ = run("usage", "--by", "token,model", "--until", "2030-01-02", "--format", "hledger")
    assert code == 0
    assert (
        out
        == """\
2030-01-01 usage by alice, echo  ; requests: 1, prompt_tokens: 100, completion_tokens: 50, quota: 750
    expenses:usage:alice:echo  $0.001500
    assets:quota  -$0.001500

2030-01-02 usage by (b_o b)_ x, echo  ; requests: 1, prompt_tokens: 100, completion_tokens: 50, quota: 9
    expenses:usage:(b_o b)_ x:echo  $0.000018
    assets:quota  -$0.000018

"""
    )
    whole = run("usage", "--by", "day", "--format", "hledger", "--until", "2031-01-01")[1]
    assert "2030-01-02 usage  ; requests: 1" in whole


def test_refunds_in_a_journal() -> None:
    """What was given back is written with the sign turned round."""
    row = {"day": "2030-01-01", "token": "", "usd": "-0.000002"}
    assert list(journal.lines([row], ["token"], []))[1:3] == [
        "    expenses:usage:none  -$0.000002",
        "    assets:quota  $0.000002",
    ]


def test_names_in_csv(run: Run, tmp_path: Path) -> None:
    """A name that a spreadsheet would run is text, quotes and commas are kept, amounts stay numbers."""
    for number, name in enumerate(["=1+1", 'say "hi", you', "-x", "@y"]):
        _charged(tmp_path, at=1000 + number, request=f"r{number}", token=name)
    out = run("usage", "--format", "csv", "--until", "1971-01-01")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["token"] for row in rows} == {"'=1+1", 'say "hi", you', "'-x", "'@y"}
    assert {row["usd"] for row in rows} == {"0.001500"}


@pytest.mark.parametrize(
    ("day", "hours"), [("2030-03-31", 23), ("2030-10-27", 25), ("2030-06-01", 24)], ids=["short", "long", "plain"]
)
def test_days_of_other_lengths(run: Run, tmp_path: Path, day: str, hours: int) -> None:
    """Where clocks change a day has 23 or 25 hours; its first and last second are its own, the next ones are not."""
    first = int(datetime.fromisoformat(f"{day}T00:00:00+01:00" if hours == 23 else f"{day}T00:00:00+02:00").timestamp())
    for number, at in enumerate((first - 1, first, first + hours * 3600 - 1, first + hours * 3600)):
        _charged(tmp_path, at=at, request=f"r{number}", units=10**number)
    (row,) = json.loads(run("usage", "--since", day, "--until", day, "--by", "day", "--format", "json")[1])
    assert (row["day"], row["quota"]) == (day, 110)
    days = json.loads(run("usage", "--until", "2031-01-01", "--by", "day", "--format", "json")[1])
    assert [one["quota"] for one in days] == [1, 110, 1000]


def test_usage_of_the_last_hours(run: Run, tmp_path: Path) -> None:
    """`--since 24h` counts back from now."""
    now = int(SystemClock.wall())
    _charged(tmp_path, at=now - 3600)
    _charged(tmp_path, at=now - 3 * 86400, request="r2", units=50)
    (row,) = json.loads(run("usage", "--since", "24h", "--format", "json")[1])
    assert row["quota"] == 750


def test_explain(run: Run, tmp_path: Path) -> None:
    """`explain` prints the stored steps and attempts of one request."""
    _charged(tmp_path, at=1000)
    code, out, _ = run("explain", "r1")
    assert code == 0
    for words in (
        "settled: 750 units ($0.001500), 1000 were held",
        "input: 100 tokens x $2.5 per million = 125 units",
        "model    echo (upstream: echo-1)",
        "channel  key  status",
        "group    vip, ratio 0.8",
        "version v1",
    ):
        assert words in out
    found: Any = json.loads(run("explain", "r1", "--format", "json")[1])
    assert (found["charged"], found["detail"]["attempts"][0]["ms"]) == (750, 12)
    assert run("explain", "unknown")[0] == 1


def test_a_budget_is_told(run: Run, tmp_path: Path) -> None:
    """`token show` says what is left of each budget and until when, `explain` in which windows a request counts."""
    with (tmp_path / "config.yaml").open("a") as config:
        config.write(
            "tokens: [{name: bob, key: sk-bob, budget: [{amount: 1000, every: day}, {amount: $1, every: week}]}]\n"
        )
    zone, at = ZoneInfo("Europe/Berlin"), int(SystemClock.wall())
    windows = (budgets.window("day", at, 1000, zone), budgets.window("week", at, 500_000, zone))
    with db.connect("sqlite:///newapi.db", tmp_path) as conn:
        wanted = tokens.YamlToken(digest=tokens.digest("sk-bob"), name="bob", group="default")
        (row,) = tokens.ensure(conn, [wanted], at).values()
        account = ledger.Account(row.id, row.user_id, token_limited=False, user_limited=False)
        assert ledger.hold(conn, [ledger.Hold("r1", account, 400, at, "b", "echo", windows)]) == [None]
    (told,) = json.loads(run("token", "show", "bob", "--format", "json")[1])
    assert told["budget"] == [
        {"every": "day", "amount": 1000, "left": 600, "until": windows[0].ends},
        {"every": "week", "amount": 500_000, "left": 499_600, "until": windows[1].ends},
    ]
    assert f"$0.001200 of $0.002000 left until {budgets.moment(windows[0].ends)}" in run("token", "list")[1]
    begun = datetime.fromtimestamp(windows[1].starts, UTC).isoformat(timespec="seconds")
    assert f"budget   of the week that begins {begun}" in run("explain", "r1")[1]
    found = json.loads(run("explain", "r1", "--format", "json")[1])["windows"]
    assert found == [{"every": one.every, "starts": one.starts} for one in windows]


def test_explain_what_was_not_charged(run: Run, tmp_path: Path) -> None:
    """Open and voided requests are told as what they are."""
    account = ledger.Account(1, 1, token_limited=False, user_limited=False)
    with db.connect("sqlite:///newapi.db", tmp_path) as conn:
        ledger.hold(conn, [ledger.Hold(id, account, 5, 1000, "b", "echo") for id in ("open", "void")])
        tried = b'{"attempts":[{"channel":"dead","key":1,"status":503,"error":"busy","ms":7.5}]}'
        ledger.void(conn, [ledger.Void("void", account, 5, 1001, "ClientError", detail=tried)])
    assert "open: 5 units are held" in run("explain", "open")[1]
    told = run("explain", "void")[1]
    assert "voided, nothing charged: ClientError" in told
    assert "dead       1     503  busy   7.5" in told
    assert run("db", "check")[1].startswith("1 request open: ")


def test_db_upgrade_backup_check(run: Run, tmp_path: Path) -> None:
    """The database is made, copied while it serves, and a ledger that does not add up is told."""
    assert run("usage")[::2] == (1, "The database does not exist yet: it is made by the first `serve`.\n")
    assert run("db", "upgrade")[1].startswith("upgraded: ")
    assert run("db", "upgrade")[1] == "nothing to do\n"
    _charged(tmp_path, at=1000)
    copy = tmp_path / "copy.db"
    assert run("db", "backup", str(copy))[0] == 0
    assert run("db", "backup", str(copy))[0] == 1
    assert run("db", "backup", str(tmp_path / "missing" / "copy.db"))[0] == 1
    with sqlite3.connect(copy) as raw:
        assert raw.execute("SELECT charged FROM ledger").fetchone() == (750,)
    raw.close()
    assert run("db", "check")[0] == 0
    with sqlite3.connect(tmp_path / "newapi.db") as raw:
        raw.execute("UPDATE tokens SET remain_quota = 1")
    raw.close()
    code, out, _ = run("db", "check")
    assert (code, out) == (1, "token 1: 10000 granted, but 1 left and 750 held or charged\n")


def test_a_key_of_a_group_that_nobody_knows(run: Run, tmp_path: Path) -> None:
    """It is made, and said to be of no use until there is such a group; those of the database's options count."""
    code, key, told = run("token", "add", "eve", "--unlimited", "--group", "vip")
    assert (code, key[:3], told) == (0, "sk-", "There is no group vip yet: the key is refused until there is.\n")
    with db.connect("sqlite:///newapi.db", tmp_path) as conn:
        conn.exec_driver_sql("INSERT INTO options (key, value) VALUES ('GroupRatio', '{\"default\": 1, \"vip\": 0.5}')")
    assert run("token", "add", "eve", "--unlimited", "--group", "vip")[2] == ""
