"""Files of other programs and other versions: completed, copied first, never harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, inspect, text
from sqlalchemy.exc import IntegrityError

from newapi_proxy.billing import audit, ledger, records
from newapi_proxy.errors import OurError
from newapi_proxy.store import channels, db, options, orders, schema, sqlite, tokens, upgrades
from newapi_proxy.store.db import Database
from tests.fakes import inherited, money


def test_a_new_file_has_every_table(database: Path) -> None:
    """A fresh database gets all tables and columns, and no copy is made of nothing."""
    assert db.upgrade(f"sqlite:///{database}", database.parent) == [name for name, _ in upgrades.UPGRADES]
    assert db.upgrade(f"sqlite:///{database}", database.parent) == []
    with db.connect(f"sqlite:///{database}", database.parent, write=False) as conn:
        found = inspect(conn)
        for table in (*schema.INHERITED.tables.values(), *schema.OWN.tables.values()):
            assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
    assert not list(database.parent.glob("*before*"))


@pytest.mark.parametrize("script", [inherited.NEW_API, inherited.ONE_API])
async def test_inherited_files_serve(database: Path, script: str) -> None:
    """A file of New API or One API is completed and charged; what is foreign in it stays as it was."""
    inherited.make(database, script)
    opened = await Database.open(f"sqlite:///{database}", database.parent)
    row = (await opened.read(tokens.load))[0]
    account = ledger.Account(row.id, row.user_id, token_limited=not row.unlimited, user_limited=row.user_limited)
    assert await opened.write(ledger.hold, money.hold("a", account, 20)) is None
    assert await opened.write(ledger.settle, money.settlement("a", account, 20, 5)) == 5
    await opened.close()
    left, used = inherited.rows(database, "SELECT remain_quota, used_quota FROM tokens WHERE id = 1")[0]
    assert (left, used) == (row.remain_quota - 5, 5)
    assert inherited.rows(database, "SELECT quota, request_id, channel_id FROM logs") == [(5, "a", 7)]
    copy = database.with_name("newapi.db.before-upgrade-1")
    assert inherited.rows(copy, "SELECT remain_quota FROM tokens WHERE id = 1") == [(row.remain_quota,)]
    if script == inherited.NEW_API:
        assert inherited.rows(database, "SELECT * FROM vendors") == [(1, "kept", None)]
        assert inherited.rows(database, "SELECT fancy FROM tokens WHERE id = 1") == [("mine",)]


def test_inherited_tokens_are_read_leniently(database: Path) -> None:
    """NULLs, blanks, padding, odd booleans and foreign lists become plain values; deleted keys are not there."""
    inherited.make(database, inherited.NEW_API)
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        one, two, three, four = tokens.load(conn)
        assert options.load(conn) == {"ModelRatio": '{"gpt-4o": 1.25}'}
    assert (one.digest, one.models, one.allow_ips) == (
        tokens.digest("sk-plainkey"),
        ("gpt-4o", "gpt-4o-mini"),
        ("10.0.0.1", "10.1.0.0/16"),
    )
    assert (one.group, one.user_group, one.user_role, one.username, one.user_limited) == (
        "other",
        "vip",
        100,
        "root",
        True,
    )
    assert (one.status, one.user_status, one.unlimited, one.remain_quota, one.expired_time) == (1, 1, False, 1000, -1)
    assert (two.digest, two.status, two.name, two.unlimited, two.user_status, two.expired_time) == (
        tokens.digest("paddedkey"),
        tokens.ENABLED,
        "",
        True,
        2,
        -1,
    )
    assert (three.status, three.models, three.user_status) == (tokens.EXHAUSTED, ("",), 0)
    assert three.allow_ips == ("255.255.255.255/32",)  # a list of nonsense lets nobody in
    assert (four.status, four.user_status, four.models) == (tokens.EXPIRED, 0, ())


def test_one_api_columns(database: Path) -> None:
    """One API's own columns for models, networks and channel settings are read where they are."""
    inherited.make(database, inherited.ONE_API)
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        (token,) = tokens.load(conn)
        (channel,) = channels.load(conn)
    assert (token.models, token.allow_ips) == (("gpt-4o", "gpt-4"), ("10.0.0.0/8", "192.168.0.0/16"))
    assert (channel.config, channel.system_prompt, channel.groups) == (
        '{"region": "us-east-1"}',
        "be brief",
        ("default",),
    )


def test_a_newer_schema_is_refused(database: Path) -> None:
    """A database that a newer version upgraded is not touched, by nobody."""
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        conn.execute(schema.upgrades.insert().values(name="from_the_future", at=1))
    for write in (True, False):
        with pytest.raises(OurError) as caught, db.connect(f"sqlite:///{database}", database.parent, write=write):
            pass
        assert caught.value.code == "schema_newer"
        assert "from_the_future" in caught.value.message


def test_a_failed_upgrade_changes_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that fails half way leaves the file as it was, and the copy beside it."""

    def fails(conn: Connection) -> None:
        conn.exec_driver_sql("CREATE TABLE half (id integer)")
        raise RuntimeError("power cut")

    inherited.make(database, inherited.NEW_API)
    before = inherited.rows(database, "SELECT name, sql FROM sqlite_master ORDER BY name")
    monkeypatch.setattr(upgrades, "UPGRADES", (*upgrades.UPGRADES, ("third", fails)))
    with pytest.raises(RuntimeError, match="power cut"):
        db.upgrade(f"sqlite:///{database}", database.parent)
    assert inherited.rows(database, "SELECT name, sql FROM sqlite_master ORDER BY name") == before
    assert len(list(database.parent.glob("*before-upgrade-*"))) == 1


def test_reading_needs_a_made_database(database: Path) -> None:
    """A command that only reads neither makes nor upgrades a file: it says what to do."""
    url: Any = f"sqlite:///{database}"
    for make, code in ((False, "database_missing"), (True, "schema_older")):
        if make:
            inherited.make(database, inherited.NEW_API)
        with pytest.raises(OurError) as caught, db.connect(url, database.parent, write=False):
            pass
        assert caught.value.code == code
    assert inherited.rows(database, "SELECT COUNT(*) FROM sqlite_master WHERE name = 'ledger'") == [(0,)]


def test_an_online_copy_is_a_whole_database(database: Path, tmp_path: Path) -> None:
    """A copy made while the file is open serves as it is, adds up, and is never made over another file."""
    to = tmp_path / "copy.db"
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        (one,) = money.people(conn, [(100, 100)])
        ledger.hold(conn, [money.hold("a", one, 10)])
    with db.connect(f"sqlite:///{database}", database.parent, write=False) as conn:
        sqlite.copy(conn, to)
        with pytest.raises(FileExistsError):
            sqlite.copy(conn, to)
    with db.connect(f"sqlite:///{to}", tmp_path, write=False) as conn:
        assert records.explain(conn, "a") is not None
        assert (audit.check(conn), sqlite.damage(conn)) == ([], [])
    assert to.stat().st_mode & 0o777 == 0o600


OLD_ORDERS = """\
CREATE TABLE top_ups(id integer, user_id integer, amount integer, money real, trade_no text, create_time integer,
  status text, PRIMARY KEY(id));
INSERT INTO top_ups VALUES (1, 7, 10, 73.0, 'USR7NOaB3xY91729000000', 1729000000, 'pending');
"""


@pytest.mark.parametrize("twice", [False, True])
def test_old_orders(database: Path, twice: bool) -> None:
    """Orders of a New API of old gain columns, and a number of their own where none of them shares one."""
    inherited.make(database, inherited.NEW_API.partition("CREATE TABLE top_ups")[0] + OLD_ORDERS)
    if twice:
        inherited.make(database, "INSERT INTO top_ups SELECT 2, 8, amount, money, trade_no, 5, 'success' FROM top_ups")
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        found = orders.find(conn, "USR7NOaB3xY91729000000")
        assert (found is None) == twice  # which of the two is meant nobody can say
        if found is not None:
            assert (found.quota, found.money_minor, found.provider, found.status) == (None, 7300, "", "pending")
        number = insert(schema.top_ups).values(trade_no="USR7NOaB3xY91729000000")
        if twice:
            conn.execute(number)
        else:
            with pytest.raises(IntegrityError):
                conn.execute(number)


def test_a_database_of_the_last_version(database_url: str, database: Path) -> None:
    """On every engine a database that was served before orders were gains their columns, and keeps its rows."""
    ours = ("quota", "token_id", "money_minor", "currency", "provider_trade_no")

    def older(conn: Connection) -> None:
        conn.execute(insert(schema.top_ups).values(user_id=7, trade_no="USR7NO", money=19.99, status="success"))
        conn.execute(schema.upgrades.delete().where(schema.upgrades.c.name == "order_columns"))
        for name in ours:
            conn.execute(text(f"ALTER TABLE top_ups DROP COLUMN {name}"))

    db.run(database_url, database.parent, older, write=True)
    assert db.upgrade(database_url, database.parent) == ["order_columns"]
    found = db.run(database_url, database.parent, lambda conn: orders.find(conn, "USR7NO"), write=False)
    assert found is not None
    assert (found.money_minor, found.quota, found.status) == (1999, None, "success")
    kept = db.run(database_url, database.parent, lambda conn: inspect(conn).get_columns("top_ups"), write=False)
    assert set(ours) <= {column["name"] for column in kept}
