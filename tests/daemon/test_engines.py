"""The whole daemon and its commands on a database server: everything that reads or writes does so on every engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from newapi_proxy.cli import main
from tests.daemon.talk import ECHO, KEY, ask, get
from tests.fakes.engines import NAME, server
from tests.fakes.process import Daemon

Start = Callable[..., Daemon]
Command = Callable[..., tuple[int, str]]
EXTRA = """\
tokens:
  - {name: demo, key: sk-demo, quota: $1, budget: {amount: $1, every: day}, limits: {rpm: 1000}}
"""


@pytest.fixture(params=["postgresql", "mysql"])
def far(request: pytest.FixtureRequest) -> Any:
    """A running server with an empty database."""
    return server(request, request.param)


def text(far: Any) -> str:
    """A configuration with everything that the ledger knows."""
    return ECHO.replace("sqlite:///newapi.db", far.url(NAME)).partition("tokens:")[0] + EXTRA


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """A command beside the running daemon: exit code and what it prints."""

    def call(one: Daemon, *words: str) -> tuple[int, str]:
        code = main([words[0], "-c", str(one.config), *words[1:]])
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


def test_a_life_on_a_server(daemon: Start, command: Command, far: Any) -> None:
    """Requests, repeated ones, commands, reports and a second life: all as on SQLite, and the ledger adds up."""
    one = daemon(text(far))

    def good(*words: str) -> str:
        code, told = command(one, *words)
        assert code == 0, (words, told)
        return told

    status, headers, first = ask(one.url, headers={"Idempotency-Key": "again", "X-Request-Id": "r-1"})
    assert (status, headers["x-request-id"]) == (200, "r-1")
    assert ask(one.url, headers={"Idempotency-Key": "again"})[2] == first
    assert ask(one.url, stream=True, stream_options={"include_usage": True})[0] == 200
    key = re.findall(r"sk-\w+", good("token", "add", "alice", "--quota", "$2", "--models", "echo"))[0]
    good("token", "topup", "alice", "$1")
    for words in ("token list", "channel list", "usage --by token,model,channel,day", "prices list"):
        assert good(*words.split())
    assert "alice" in good("token", "show", "alice")
    good("token", "disable", "alice")
    good("token", "enable", "alice")
    assert "echo" in good("explain", "r-1")
    for path in ("/api/usage/token", "/api/log/token", "/v1/dashboard/billing/subscription"):
        status, body = get(one.url, path, KEY)
        assert (status, bool(orjson.loads(body))) == (200, True)
    assert get(one.url, "/readyz")[0] == 200
    assert good("db", "upgrade").strip() == "nothing to do"
    assert one.stop() == 0
    assert "adds up" in good("db", "check")
    one.start()
    assert ask(one.url, headers={"Authorization": f"Bearer {key}"})[0] == 200
    assert ask(one.url, headers={"Idempotency-Key": "again"})[2] == first
    assert one.stop() == 0
    assert "adds up" in good("db", "check")
    odd = [line for line in one.lines if line.get("event") in ("bug", "ledger_unavailable", "library")]
    assert (odd, one.errors) == ([], "")


def test_a_copy_is_the_servers_own(daemon: Start, command: Command, far: Any, tmp_path: Path) -> None:
    """`db backup` says whose tools make one, and leaves nothing behind."""
    code, told = command(daemon(text(far)), "db", "backup", str(tmp_path / "copy.db"))
    assert (code, "pg_dump" in told) == (1, True)
    assert not (tmp_path / "copy.db").exists()
