"""`channel`, as a person calls it: the file's accounts and the database's, made, shown, switched and deleted."""

from __future__ import annotations

import io
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

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
        (("add", "x", "--type", "opnai", "--key", "k", "--models", "m"), "(did you mean openai?)"),
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
    assert (listed["fresh"], listed["hunyuan"]) == ("deepseek", "23 (Tencent Hunyuan)")


class Provider(BaseHTTPRequestHandler):
    """Answers by path: what a server of the OpenAI format, and those that tell balances, would say."""

    said: ClassVar[dict[str, tuple[int, Any]]] = {}

    def log_message(self, *words: object) -> None:
        """Says nothing."""

    def answer(self) -> None:
        """The answer of the path."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, body = self.said[self.path.partition("?")[0]]
        if "sk-dead" in self.headers["authorization"]:
            status, body = 401, {"error": {"message": "no such key"}}
        data = orjson.dumps(body)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer


@pytest.fixture
def provider() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    running = threading.Thread(target=server.serve_forever)
    running.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    running.join()
    server.server_close()


CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
}
USED = {"prompt_tokens": 2, "total_tokens": 2}
VECTORS = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": USED}


def test_a_channel_is_tried_with_each_key(run: Run, provider: str, tmp_path: Path) -> None:
    """One small request a key, of the kind that the model's name says; New API's columns tell how long it took."""
    Provider.said = {"/v1/chat/completions": (200, CHAT), "/v1/embeddings": (200, VECTORS)}
    run("add", "two", "--type", "openai", "--key", "sk-good\nsk-dead", "--models", "m,m-embed", "--base-url", provider)
    code, out, _ = run("test", "two", "--format", "json")
    assert code == 1
    assert [(one["key"], one["kind"], one["ok"], one["status"], one["tokens"]) for one in orjson.loads(out)] == [
        (0, "chat", True, 200, 9),
        (1, "chat", False, 401, 0),
    ]
    assert "no such key" in orjson.loads(out)[1]["why"]
    assert rows(tmp_path, "SELECT test_time > 0, response_time >= 0 FROM channels WHERE name = 'two'") == [(1, 1)]
    code, out, _ = run("test", "two", "--model", "m-embed", "--format", "json")
    assert (orjson.loads(out)[0]["kind"], orjson.loads(out)[0]["tokens"]) == ("embeddings", 2)
    assert rows(tmp_path, "SELECT COUNT(*) FROM ledger") == rows(tmp_path, "SELECT COUNT(*) FROM logs") == [(0,)]


def test_a_channel_that_is_not_there_is_said(run: Run) -> None:
    """The file's own channels can be tried too; what does not exist, or tells no balance, is a sentence."""
    assert run("test", "local")[0] == 0
    assert run("test", "local", "--kind", "rerank")[0] == 0
    assert "There is no channel other" in run("test", "other")[2]
    assert "tell no key" in run("balance", "local")[2]


@pytest.mark.parametrize(
    ("type", "said", "balance", "currency"),
    [
        (
            "openai",
            {
                "/v1/dashboard/billing/subscription": {"hard_limit_usd": 20.0},
                "/v1/dashboard/billing/usage": {"total_usage": 1234.5},
            },
            "7.655",
            "USD",
        ),
        (
            "deepseek",
            {
                "/user/balance": {
                    "balance_infos": [
                        {"currency": "CNY", "total_balance": "70.00"},
                        {"currency": "USD", "total_balance": "1.50"},
                    ]
                }
            },
            "1.50",
            "USD",
        ),
        ("siliconflow", {"/v1/user/info": {"code": 20000, "data": {"totalBalance": "3.2"}}}, "3.2", "CNY"),
        ("openrouter", {"/v1/credits": {"data": {"total_credits": 10, "total_usage": 2.5}}}, "7.5", "USD"),
        ("moonshot", {"/v1/users/me/balance": {"data": {"available_balance": 49.5}}}, "49.5", "CNY"),
    ],
)
def test_balances(run: Run, provider: str, tmp_path: Path, type: str, said: Any, balance: str, currency: str) -> None:
    """What the provider tells is shown, and dollars are kept where New API shows them."""
    Provider.said = {path: (200, body) for path, body in said.items()}
    assert run("add", "rich", "--type", type, "--key", "sk-good", "--models", "m", "--base-url", provider)[0] == 0
    code, out, _ = run("balance", "rich", "--format", "json")
    assert code == 0
    assert [(one["balance"], one["currency"]) for one in orjson.loads(out)] == [(balance, currency)]
    kept = rows(tmp_path, "SELECT balance, balance_updated_time > 0 FROM channels WHERE name = 'rich'")
    assert kept == ([(float(balance), 1)] if currency == "USD" else kept)


def test_a_balance_that_is_refused(run: Run, provider: str) -> None:
    """A dead key, and an answer that says nothing, are said to be that."""
    Provider.said = {"/v1/credits": (200, {"data": None})}
    run("add", "odd", "--type", "openrouter", "--key", "sk-good\nsk-dead", "--models", "m", "--base-url", provider)
    code, out, _ = run("balance", "odd", "--format", "json")
    assert code == 1
    assert orjson.loads(out)[0]["why"] == "not told"
    assert "no such key" in orjson.loads(out)[1]["why"]
