"""Databases of other programs on a server: served, charged and left as they were, and their changes noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from newapi_proxy import cli
from tests.daemon.talk import ask
from tests.fakes import far_installations
from tests.fakes.engines import statement
from tests.fakes.installations import AGES, KEY
from tests.fakes.process import Daemon
from tests.fakes.scripted import Say, Scripted

Start = Callable[..., Daemon]
BEARER = {"Authorization": f"Bearer sk-{KEY}"}
NAME = "inherited"


@pytest.fixture(params=["postgres", "mariadb"])
def place(request: pytest.FixtureRequest) -> str:
    """The address of a database without a table."""
    made: Any = request.getfixturevalue(request.param)
    system = made.url("postgres" if request.param == "postgres" else "mysql")
    statement(system, f"DROP DATABASE IF EXISTS {NAME}")
    statement(system, f"CREATE DATABASE {NAME}")
    url: str = made.url(NAME)
    return url


@pytest.mark.parametrize("age", AGES)
def test_a_servers_database_is_served_charged_and_left_as_it_was(
    age: str, daemon: Start, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` tells what is not served. Key, channel, mapping, price and group work; the charge is where the other
    program looks; nothing else of it has changed; what it changes is noticed."""
    with Scripted() as upstream:
        upstream.says(Say(prompt=100, completion=10))
        before = far_installations.stand(place, age, upstream.url)
        config = tmp_path / "config.yaml"
        config.write_text(f"database: {place}\nkeys_at_rest: text\n")
        assert cli.main(["check", "-c", str(config)]) == 0
        assert "channel 3 (hunyuan): type 23 (Tencent Hunyuan)" in capsys.readouterr().err
        running = daemon(config.read_text())
        assert ask(running.url, model="house-model", headers=BEARER)[0] == 200
        line = running.wait("request")
        assert (line["token"], line["channel"], line["quota"]) == ("laptop", "main", 260)
        assert far_installations.on(place, lambda conn: far_installations.read(conn, before)) == before

        def charged(conn: Connection) -> list[Any]:
            asked = "SELECT remain_quota, used_quota, (SELECT quota FROM users WHERE id = 2) FROM tokens WHERE id = 1"
            return list(conn.execute(text(asked)).one())

        assert far_installations.on(place, charged) == [400_000 - 260, 260, 1_000_000 - 260]
        statement(place, "UPDATE users SET status = 2 WHERE id = 2")
        running.wait(lambda line: line.get("cause") == "database", 30)
        assert ask(running.url, model="house-model", headers=BEARER)[0] == 403
