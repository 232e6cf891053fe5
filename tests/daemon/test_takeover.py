"""Databases of other programs, served as they are: by whom, for how much, and what of them is left as it was."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.daemon.talk import ask
from tests.fakes import installations, midjourney
from tests.fakes.installations import AGES, KEY
from tests.fakes.process import ROOT, Daemon
from tests.fakes.scripted import Say, Scripted

Start = Callable[..., Daemon]
BEARER = {"Authorization": f"Bearer sk-{KEY}"}
CONFIG = "database: sqlite:///{file}\nkeys_at_rest: text\n"


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    """The provider that the databases' channels call."""
    with Scripted() as made:
        made.says(Say(prompt=100, completion=10))
        yield made


def found(file: Path, query: str) -> list[Any]:
    """What a plain reader sees."""
    with sqlite3.connect(file) as raw:
        rows = raw.execute(query).fetchall()
    raw.close()
    return rows


def change(file: Path, statement: str, *values: Any) -> None:
    """What somebody else writes into the file while it is served."""
    with sqlite3.connect(file, timeout=10) as raw:
        raw.execute(statement, values)
    raw.close()


def command(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One command beside whatever runs."""
    line = [sys.executable, "-m", "newapi_proxy", *words, "-c", str(config)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("age", AGES)
def test_a_database_is_served_charged_and_left_as_it_was(
    age: str, daemon: Start, upstream: Scripted, tmp_path: Path
) -> None:
    """Its key, user, channel, mapping, price and group work; the charge is in its balances and its log; nothing else of
    it has changed by a byte."""
    file = tmp_path / "one-api.db"
    installations.stand(file, age, upstream.url)
    before = installations.columns(file)
    running = daemon(CONFIG.format(file=file))
    status, _, body = ask(running.url, model="house-model", headers=BEARER)
    assert (status, orjson.loads(body)["model"]) == (200, "house-model")
    assert (upstream.last.body["model"], upstream.last.headers["authorization"]) == (
        "gpt-4o-mini",
        "Bearer upstream-key",
    )
    line = running.wait("request")
    # ratio 2 is 4 USD per million, completion 3 times that: 100 x 2 + 10 x 6 units
    assert (line["token"], line["channel"], line["group"], line["quota"]) == ("laptop", "main", "default", 260)
    assert ask(running.url, model="claude-3-5-haiku-20241022", headers=BEARER)[0] == 200
    assert upstream.last.headers["x-api-key"] == "claude-key"
    assert "channel 3 (hunyuan): type 23 (Tencent Hunyuan) is not served" in str(running.wait("config_warning"))
    assert running.stop() == 0
    assert installations.lost(before, file) == []
    ((both,),) = found(file, "SELECT SUM(quota) FROM logs WHERE id > 1")
    assert both > 260
    assert found(file, "SELECT remain_quota, used_quota FROM tokens WHERE id = 1") == [(400_000 - both, both)]
    assert found(file, "SELECT quota, used_quota, request_count FROM users WHERE id = 2") == [
        (1_000_000 - both, both, 2)
    ]
    assert found(file, "SELECT used_quota FROM channels WHERE id = 1") == [(260,)]
    assert found(
        file, "SELECT user_id, username, type, token_name, model_name, quota, prompt_tokens FROM logs WHERE id = 2"
    ) == [(2, "alice", 2, "laptop", "house-model", 260, 100)]
    again = daemon(CONFIG.format(file=file))
    assert ask(again.url, model="gpt-4o", headers=BEARER)[0] == 200


def test_check_and_show_look_and_touch_nothing(tmp_path: Path) -> None:
    """Before the first start both tell what will be served, what will not, and where it comes from."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api", "http://127.0.0.1:9")
    before = file.read_bytes()
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(file=file) + "channels: [{name: claude, type: echo, models: [echo]}]\n")
    checked = command(config, "check")
    assert (checked.returncode, checked.stdout) == (
        0,
        f"{config}: ok (2 channels, 1 of them in the database, 0 tokens)\n",
    )
    assert f"{config}:1:1: database: warning: channel 3 (hunyuan): type 23" in checked.stderr
    assert "channel claude of the database is not used" in checked.stderr
    shown = command(config, "show", "--origin").stdout
    assert "models: [gpt-4o, house-model]  # database" in shown
    assert "upstream-key" not in shown
    assert f"name: claude  # {config}:3" in shown
    priced = command(config, "prices", "show", "house-model").stdout
    assert priced.startswith("house-model: ratios, by that name")
    assert (file.read_bytes(), sorted(one.name for one in tmp_path.iterdir())) == (
        before,
        ["config.yaml", "one-api.db"],
    )


def test_the_file_wins_and_says_so_once(daemon: Start, upstream: Scripted, tmp_path: Path) -> None:
    """Where the file names a key or a channel of the database, the file's holds, and one line tells of each."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api", upstream.url)
    running = daemon(
        CONFIG.format(file=file)
        + f"channels: [{{name: main, type: openai, base_url: '{upstream.url}', key: filed-key, models: [gpt-4o]}}]\n"
        + f"tokens: [{{name: filed, key: sk-{KEY}}}]\n"
    )
    assert ask(running.url, model="gpt-4o", headers=BEARER)[0] == 200
    assert upstream.last.headers["authorization"] == "Bearer filed-key"
    assert running.wait("request")["token"] == "filed"
    told = [line for line in running.lines if line["event"] == "shadowed"]
    assert [(line.get("token"), line.get("channel")) for line in told] == [("filed", None), (None, "main")]
    assert found(file, "SELECT remain_quota, used_quota FROM tokens WHERE id = 1") == [(400_000, 0)]


def test_changes_by_others_are_noticed(daemon: Start, upstream: Scripted, tmp_path: Path) -> None:
    """A key, a channel, a price and a user that somebody else writes hold within seconds, without a reload; what only
    moves balances makes no new view."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api", upstream.url)
    running = daemon(CONFIG.format(file=file))

    def noticed(count: int) -> None:
        running.wait(lambda line: line.get("cause") == "database" and len(causes()) >= count)

    def causes() -> list[Any]:
        return [line for line in running.lines if line.get("cause") == "database"]

    other = {"Authorization": "Bearer sk-other"}
    assert ask(running.url, model="gpt-4o", headers=other)[0] == 401
    change(file, "UPDATE users SET quota = quota + 1 WHERE id = 2")
    change(file, "INSERT INTO tokens (user_id, key, name, remain_quota) VALUES (2, 'other', 'other', 400000)")
    noticed(1)
    assert len([line for line in running.lines if "channel 3 (hunyuan)" in str(line.get("warning"))]) == 1
    assert ask(running.url, model="gpt-4o", headers=other)[0] == 200
    change(file, "UPDATE channels SET key = 'turned' WHERE id = 1")
    noticed(2)
    assert ask(running.url, model="gpt-4o", headers=other)[0] == 200
    assert upstream.last.headers["authorization"] == "Bearer turned"
    change(file, "UPDATE users SET status = 2 WHERE id = 2")
    noticed(3)
    assert ask(running.url, model="gpt-4o", headers=BEARER)[0] == 403
    change(file, "UPDATE options SET value = '{broken' WHERE key = 'ModelRatio'")
    noticed(4)
    running.wait(lambda line: "ModelRatio is no JSON" in str(line.get("warning")))
    assert len(causes()) == 4


def test_the_command_line_is_noticed(daemon: Start, upstream: Scripted, tmp_path: Path) -> None:
    """A key that `token add` makes serves within seconds, and not after `token disable`."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api-latest", upstream.url)
    running = daemon(CONFIG.format(file=file))
    key = command(running.config, "token", "add", "fresh", "--unlimited").stdout.strip()
    running.wait(lambda line: line.get("cause") == "database")
    assert ask(running.url, model="gpt-4o", headers={"Authorization": f"Bearer {key}"})[0] == 200
    assert command(running.config, "token", "disable", "fresh").returncode == 0
    running.wait(lambda line: [one.get("cause") for one in running.lines].count("database") == 2)
    assert ask(running.url, model="gpt-4o", headers={"Authorization": f"Bearer {key}"})[0] == 401


def test_a_dead_credential_is_written_where_the_other_program_looks(
    daemon: Start, upstream: Scripted, tmp_path: Path
) -> None:
    """A channel of the database whose key is refused has status 3 there, rests through a restart, and serves again when
    somebody enables it or when it works."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api", upstream.url)
    change(file, "UPDATE channels SET other_info = '{\"theirs\": 1}' WHERE id = 1")
    running = daemon(CONFIG.format(file=file))
    upstream.says(Say(status=401))
    assert ask(running.url, model="gpt-4o", headers=BEARER)[0] == 502
    assert running.stop() == 0
    (status, info), (enabled,) = found(file, "SELECT status, other_info FROM channels WHERE id = 1") + found(
        file, "SELECT enabled FROM abilities WHERE channel_id = 1"
    )
    assert (status, enabled) == (3, 0)
    told = orjson.loads(info)
    assert (told["theirs"], told["status_reason"]) == (1, "upstream_auth 401")
    upstream.says(Say())
    running.start()
    status, headers, _ = ask(running.url, model="gpt-4o", headers=BEARER)
    assert (status, len(upstream.calls)) == (503, 0)
    assert int(headers["retry-after"]) > 500
    for status, told in ((2, (503, "model_not_found")), (1, (200, None))):  # by hand: off, and on
        running.lines.clear()
        change(file, "UPDATE channels SET status = ? WHERE id = 1", status)
        running.wait(lambda line: line.get("cause") == "database")
        code, _, body = ask(running.url, model="gpt-4o", headers=BEARER)
        assert (code, orjson.loads(body).get("error", {}).get("code")) == told
        assert found(file, "SELECT status FROM channels WHERE id = 1") == [(status,)]
    assert found(file, "SELECT COUNT(*) FROM proxy_health") == [(0,)]


def test_a_breaker_survives_a_restart(daemon: Start, upstream: Scripted) -> None:
    """A channel of the file that was cut off is still cut off after a restart, and its trial is one request."""
    running = daemon(
        "relay: {max_attempts: 1}\n"
        f"channels: [{{name: weak, type: openai, base_url: '{upstream.url}', key: k, models: [gpt-4o]}}]\n"
        "tokens: [{name: t, key: sk-demo}]\n"
    )
    upstream.says(Say(status=503))
    for _ in range(5):
        assert ask(running.url, model="gpt-4o")[0] == 503
    assert running.wait("channel_state")["state"] == "open"
    assert running.stop() == 0
    running.start()
    upstream.says(Say())
    status, _, body = ask(running.url, model="gpt-4o")
    assert (status, orjson.loads(body)["error"]["code"], len(upstream.calls)) == (503, "channels_resting", 0)


def test_channels_of_every_form_reach_their_provider(daemon: Start, upstream: Scripted, tmp_path: Path) -> None:
    """Several keys in turn but the disabled one, an Azure version, overrides of body and headers, a group's ratio, a
    status that is another one here; channels whose names are empty or doubled."""
    file = tmp_path / "one-api.db"
    common: dict[str, Any] = {"base_url": f"{upstream.url}/", "group": "default,vip"}
    states = {"is_multi_key": True, "multi_key_size": 3, "multi_key_status_list": {"1": 3}}
    channels = [
        {"type": 1, "key": "k0\nk1\nk2", "models": "many", "channel_info": states, "name": "x"},
        {"type": 3, "key": "az", "models": "gpt-3.5-turbo", "other": "2024-06-01", "name": "x"},
        {
            "type": 1,
            "key": "own",
            "models": "edited",
            "param_override": {"temperature": 0.5, "user": "house"},
            "setting": {"system_prompt": "Be brief."},
            "header_override": {"X-Team": "blue", "X-Own": "{api_key}"},
        },
        {"type": 1, "key": "k", "models": "mapped", "status_code_mapping": {"404": "503"}, "name": ""},
    ]
    rows = tuple({"id": place, **common, **one} for place, one in enumerate(channels, 1))
    installations.stand(file, "new-api-latest", upstream.url, channels=rows)
    ratios = '{"many": 1, "edited": 1, "mapped": 1}'
    change(file, "UPDATE options SET value = ? WHERE key = 'ModelRatio'", ratios)
    change(file, "UPDATE tokens SET \"group\" = 'vip'")
    running = daemon(CONFIG.format(file=file))

    def called(model: str) -> dict[str, str]:
        assert ask(running.url, model=model, headers=BEARER)[0] == 200
        return upstream.last.headers

    assert {called("many")["authorization"] for _ in range(4)} == {"Bearer k0", "Bearer k2"}
    assert called("gpt-3.5-turbo")["api-key"] == "az"
    assert upstream.last.path == "/openai/deployments/gpt-35-turbo/chat/completions?api-version=2024-06-01"
    headers = called("edited")
    assert (headers["x-team"], headers["x-own"]) == ("blue", "own")
    assert (upstream.last.body["temperature"], upstream.last.body["user"]) == (0.5, "house")
    assert upstream.last.body["messages"][0] == {"role": "system", "content": "Be brief."}
    line = running.wait(lambda line: line.get("model") == "edited")
    assert (line["channel"], line["group"], line["quota"]) == ("#3", "vip", 55)  # (100 + 10) x ratio 1 x group 0.5
    upstream.says(Say(status=404))
    assert ask(running.url, model="mapped", headers=BEARER)[0] == 503
    assert running.wait(lambda line: line.get("model") == "mapped")["channel"] is None


PICTURES = """CREATE TABLE midjourneys (id integer PRIMARY KEY, code integer, user_id integer, action text, mj_id text,
    prompt text, prompt_en text, description text, state text, submit_time integer, start_time integer,
    finish_time integer, image_url text, status text, progress text, fail_reason text, channel_id integer,
    quota integer, buttons text, properties text)"""


async def test_pictures_that_were_under_way_are_ended(daemon: Start, tmp_path: Path) -> None:
    """The other program's open tasks are asked after: one is finished, one has failed and is paid back."""
    file = tmp_path / "one-api.db"
    async with midjourney.serving() as mj:
        mj.now = 9
        channel = {"id": 4, "type": 5, "key": "mj-secret", "models": "mj_imagine", "base_url": mj.url, "name": "draw"}
        installations.stand(file, "new-api-2025", mj.url, channels=(channel,))
        change(file, PICTURES)
        for id, prompt in (("1", "cat"), ("2", "[fail]")):
            mj.lives[id] = midjourney.Life(id, "IMAGINE", prompt, 0, "")
            row = (int(id), 1, 1, "IMAGINE", id, (int(time.time()) - 5) * 1000, "IN_PROGRESS", "31%", 4, 70)
            change(
                file,
                "INSERT INTO midjourneys (id, code, user_id, action, mj_id, submit_time, status, progress, channel_id, "
                "quota) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *row,
            )
        ((before,),) = found(file, "SELECT quota FROM users WHERE id = 1")
        running = await asyncio.to_thread(daemon, CONFIG.format(file=file) + "tasks: {interval: 0.2s}\n")
        line = await asyncio.to_thread(running.wait, lambda line: line.get("outcome") == "failure")
        assert (line["request_id"], line["refunded"]) == ("adopted:midjourneys:2", 70)
        await asyncio.to_thread(running.wait, lambda line: line.get("outcome") == "success")
    assert found(file, "SELECT status, progress FROM midjourneys ORDER BY id") == [
        ("SUCCESS", "100%"),
        ("FAILURE", "100%"),
    ]
    assert found(file, "SELECT quota FROM users WHERE id = 1") == [(before + 70,)]
    assert found(file, "SELECT user_id, quota FROM logs WHERE type = 6") == [(1, 70)]


def test_the_other_program_goes_on_with_the_file(daemon: Start, upstream: Scripted, tmp_path: Path) -> None:
    """What we added is a column or a table more: its own statements work as before, also while we serve, and it sees
    our charge; a second life of ours takes its changes up."""
    file = tmp_path / "one-api.db"
    installations.stand(file, "new-api", upstream.url)
    running = daemon(CONFIG.format(file=file))
    assert ask(running.url, model="gpt-4o", headers=BEARER)[0] == 200
    ((spent,),) = found(file, "SELECT quota FROM logs WHERE user_id = 2 AND token_id = 1 AND id > 1")
    change(file, "UPDATE users SET quota = quota - 100, used_quota = used_quota + 100 WHERE id = 2")
    with sqlite3.connect(file, timeout=10) as raw:
        insert = installations.insert
        insert(
            raw, "logs", {"user_id": 2, "created_at": 1_800_000_000, "type": 2, "model_name": "gpt-4o", "quota": 100}
        )
        insert(
            raw, "channels", {"id": 9, "type": 1, "key": "new", "name": "new", "models": "o1", "base_url": upstream.url}
        )
        insert(raw, "abilities", {"group": "default", "model": "o1", "channel_id": 9, "enabled": 1})
    raw.close()
    assert running.stop() == 0
    assert found(file, "PRAGMA integrity_check") == [("ok",)]
    assert found(file, "SELECT quota FROM users WHERE id = 2") == [(1_000_000 - 100 - spent,)]
    running.start()
    assert ask(running.url, model="o1", headers=BEARER)[0] == 200
    assert upstream.last.headers["authorization"] == "Bearer new"
    assert command(running.config, "db", "check").returncode == 0
    assert command(running.config, "usage", "--format", "csv").stdout.count("\n") == 3
