"""`channel`, as a person calls it: the file's accounts and the database's, made, shown, switched and deleted."""

from __future__ import annotations

import io
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from newapi_proxy.cli import main
from newapi_proxy.store import channels, db, resting
from newapi_proxy.store.resting import Rest
from tests.fakes import installations

CONFIG = "database: sqlite:///newapi.db\nchannels: [{name: local, type: echo, models: [echo], priority: 4}]\n"
ADD = ("add", "fresh", "--type", "deepseek", "--key", "sk-fresh", "--models", "deepseek-chat,deepseek-reasoner")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `channel` on a configuration of its own: exit code, stdout, stderr."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    db.upgrade("sqlite:///newapi.db", tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["channel", "-c", str(config), *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def rows(folder: Path, query: str) -> list[Any]:
    """What a plain reader sees."""
    with sqlite3.connect(folder / "newapi.db") as raw:
        found = raw.execute(query).fetchall()
    raw.close()
    return found


def test_a_channel_is_made_with_its_abilities(run: Run, tmp_path: Path) -> None:
    """As New API would make it: its number, its lists, one ability for each group and model."""
    assert run(*ADD, "--groups", "default,vip", "--priority", "2", "--weight", "3")[0] == 0
    assert rows(tmp_path, 'SELECT type, key, status, name, models, "group", priority, weight FROM channels') == [
        (43, "sk-fresh", 1, "fresh", "deepseek-chat,deepseek-reasoner", "default,vip", 2, 3)
    ]
    assert len(rows(tmp_path, "SELECT * FROM abilities WHERE enabled = 1 AND priority = 2 AND weight = 3")) == 4
    code, out, _ = run("list", "--format", "json")
    assert code == 0
    assert [(one["name"], one["type"], one["status"], one["source"], one["priority"]) for one in orjson.loads(out)] == [
        ("local", "echo", "enabled", "yaml", 4),
        ("fresh", "deepseek", "enabled", "database", 2),
    ]
    assert "sk-fresh" not in out + run("show", "fresh")[1]


def test_a_key_from_standard_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--key -` keeps it out of the process list."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("sk-piped\n"))
    assert run("add", "piped", "--type", "openai", "--key", "-", "--models", "gpt-4o")[0] == 0
    assert rows(tmp_path, "SELECT key FROM channels") == [("sk-piped",)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "x", "--type", "echo", "--key", "k", "--models", "m"), "The type echo has no number in this database"),
        (("add", "x", "--type", "azure", "--key", "k", "--models", "m"), "base_url is required"),
        (("add", "x", "--type", "openai", "--key", "k", "--models", "m", "--base-url", "nowhere"), "must be a URL"),
        (("show", "nobody"), "There is no channel nobody."),
        (("disable", "local"), "is in the configuration file"),
        (("rm", "local"), "is in the configuration file"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...], told: str) -> None:
    """Exit code 1 and a sentence; nothing is made."""
    code, _, err = run(*words)
    assert code == 1
    assert told in err


def test_switching_and_deleting(run: Run, tmp_path: Path) -> None:
    """The status and the abilities move together; a deleted one is gone with them."""
    run(*ADD)
    assert run("disable", "fresh")[0] == 0
    assert rows(tmp_path, "SELECT status FROM channels") == [(2,)]
    assert rows(tmp_path, "SELECT DISTINCT enabled FROM abilities") == [(0,)]
    assert run("enable", "1")[0] == 0
    assert rows(tmp_path, "SELECT status FROM channels") == [(1,)]
    assert rows(tmp_path, "SELECT DISTINCT enabled FROM abilities") == [(1,)]
    assert run("rm", "fresh")[0] == 0
    assert rows(tmp_path, "SELECT * FROM channels") == rows(tmp_path, "SELECT * FROM abilities") == []


def test_a_resting_channel_is_told_and_woken(run: Run, tmp_path: Path) -> None:
    """How long and why stands in `show`; `enable` forgets it, for a channel of the file too."""
    run(*ADD)
    with db.connect("sqlite:///newapi.db", tmp_path) as conn:
        for name, id in (("fresh", 1), ("local", 0)):
            rest = Rest(channel=name, mark="channel:x", until=4_000_000_000, disables=id, reason="timeout")
            resting.begin(conn, [rest], 1)
    assert "until 2096-10-02T07:06:40+00:00: timeout" in run("show", "fresh")[1]
    assert "disabled automatically" in run("list")[1]
    assert rows(tmp_path, "SELECT status, other_info FROM channels")[0][0] == channels.AUTO_DISABLED
    assert run("enable", "fresh")[0] == run("enable", "local")[0] == 0
    assert rows(tmp_path, "SELECT status FROM channels") == [(1,)]
    assert rows(tmp_path, "SELECT * FROM proxy_health") == []


def test_names_that_are_doubled_need_an_id(run: Run) -> None:
    """The second of a name is called by its row too, as the daemon calls it."""
    run(*ADD)
    run(*ADD)
    assert run("show", "fresh #2")[0] == 0
    assert run("show", "2")[0] == 0


def test_one_apis_numbers(tmp_path: Path, run: Run) -> None:
    """In a file of One API a new channel gets that program's number."""
    (tmp_path / "newapi.db").unlink()
    installations.stand(tmp_path / "newapi.db", "one-api", "http://127.0.0.1:9")
    assert run(*ADD)[0] == 0
    assert rows(tmp_path, "SELECT type FROM channels WHERE name = 'fresh'") == [(36,)]
    listed = {one["name"]: one["type"] for one in orjson.loads(run("list", "--format", "json")[1])}
    assert (listed["fresh"], listed["spark"]) == ("deepseek", "18 (Xunfei Spark)")
