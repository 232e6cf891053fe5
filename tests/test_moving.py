"""A database moved to another engine: every row, the ledger adds up, and new rows come after the old ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from newapi_proxy.billing import audit, ledger
from newapi_proxy.cli import main
from newapi_proxy.errors import OurError
from newapi_proxy.store import db, moving, tokens, users
from newapi_proxy.store.schema import channels, logs, options
from newapi_proxy.store.schema import tokens as table
from newapi_proxy.store.schema import users as people
from tests.fakes import inherited, money
from tests.fakes.engines import NAME, server

Place = Callable[[str], str]
CONFIG = """\
database: {url}
prices: {{echo: {{input: 1, output: 1}}}}
channels: [{{name: e, type: echo, models: [echo]}}]
"""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """The URL of an empty database of a kind."""
    return lambda kind: f"sqlite:///{tmp_path}/{kind}.db" if kind == "sqlite" else server(request, kind).url(NAME)


def _filled(conn: Connection) -> None:
    conn.execute(channels.insert().values(id=money.CHANNEL, key="upstream", name="c"))
    ids = [tokens.add(conn, tokens.NewToken(name=name, quota=1000), 5)[0] for name in ("mine", "yours")]
    owner = users.system(conn) or 0
    one, other = (ledger.Account(id, owner, token_limited=True, user_limited=False) for id in ids)
    ledger.hold(conn, [money.hold(f"r{number}", one, 1) for number in range(5)] + [money.hold("open", other, 20)])
    ledger.settle(conn, [money.settlement(f"r{number}", one, 1, 1) for number in range(5)])
    conn.execute(options.insert().values(key="ModelRatio", value='{"gpt-4o": 1.25}'))


def _told(conn: Connection) -> list[Any]:
    asked = select(table.c.id, table.c.remain_quota, table.c.used_quota).order_by(table.c.id)
    rows = [[*row] for row in conn.execute(asked)]
    return [rows, len(conn.execute(select(logs.c.id)).all()), audit.open_holds(conn), audit.check(conn)]


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "postgresql"), ("sqlite", "mysql"), ("postgresql", "mysql"), ("mysql", "sqlite")],
)
def test_every_row_moves(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    """From any engine to any other, in batches; a key that is made afterwards gets an id of its own."""
    monkeypatch.setattr(moving, "BATCH", 2)
    old, new = place(source), place(target)
    db.run(old, tmp_path, _filled, write=True)
    counts = moving.move(old, new, tmp_path)
    assert (counts["tokens"], counts["logs"], counts["ledger"], counts["options"]) == (2, 5, 6, 1)
    before = db.run(old, tmp_path, _told, write=False)
    assert db.run(new, tmp_path, _told, write=False) == before == [*before[:2], 1, []]
    id, _ = db.run(new, tmp_path, lambda conn: tokens.add(conn, tokens.NewToken(name="next"), 6), write=True)
    assert id > max(row[0] for row in before[0])
    with pytest.raises(OurError) as caught:
        moving.move(old, new, tmp_path)
    assert caught.value.code == "database_not_empty"


@pytest.mark.parametrize("target", ["postgresql", "mysql"])
def test_an_inherited_file_moves(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str) -> None:
    """Odd booleans, times and blanks of an old New API file become plain values; the command says what came over."""
    path, config = tmp_path / "one-api.db", tmp_path / "config.yaml"
    inherited.make(path, inherited.NEW_API)
    url = place(target)
    config.write_text(CONFIG.format(url=url))
    command = ["db", "-c", str(config), "import", f"sqlite:///{path}"]
    assert main(command) == 1
    assert "db upgrade" in capsys.readouterr().err
    db.upgrade(f"sqlite:///{path}", tmp_path)
    assert main(command) == 0
    assert "tokens: 5" in capsys.readouterr().out

    def read(conn: Connection) -> tuple[Any, ...]:
        gone = conn.execute(select(people.c.id).where(people.c.deleted_at.is_not(None))).scalars().all()
        return tokens.load(conn), list(gone)

    assert db.run(url, tmp_path, read, write=False) == db.run(f"sqlite:///{path}", tmp_path, read, write=False)


def test_a_source_that_is_not_there(place: Place, tmp_path: Path) -> None:
    """A wrong URL is an error, and the target stays empty."""
    new = place("sqlite")
    for url in (f"sqlite:///{tmp_path}/nothing.db", "postgresql://nobody@127.0.0.1:1/x"):
        with pytest.raises(OurError):
            moving.move(url, new, tmp_path)
    assert db.run(new, tmp_path, lambda conn: conn.execute(select(table.c.id)).all(), write=False) == []
