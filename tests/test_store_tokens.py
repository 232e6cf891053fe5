"""Keys and channels that we make: YAML's rows, the command line's, balances, keys at rest."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from newapi_proxy.billing import audit, ledger
from newapi_proxy.store import channels, tokens, users
from newapi_proxy.store.schema import abilities
from newapi_proxy.store.schema import channels as channel_table
from newapi_proxy.store.schema import tokens as table
from newapi_proxy.store.tokens import NewToken, YamlToken
from tests.fakes import money


def _wanted(quota: int | None = None, **named: Any) -> YamlToken:
    return YamlToken(
        **{"digest": tokens.digest("key"), "text": "key", "name": "alice", "group": "default", "quota": quota} | named
    )


def _row(conn: Connection, quota: int | None = None, **named: Any) -> tokens.TokenRow:
    return tokens.ensure(conn, [_wanted(quota, **named)], 5)[tokens.digest("key")]


def test_yaml_keys_have_rows_of_their_own(conn: Connection) -> None:
    """A YAML key gets one row under our own account, which no balance limits; the key itself is not in the file."""
    row = _row(conn, 1000)
    assert (row.remain_quota, row.unlimited, row.user_limited) == (1000, False, False)
    assert (row.yaml, row.user_status) == (True, 1)
    assert _row(conn, 1000).id == row.id
    assert row.user_id == users.system(conn)
    assert conn.execute(select(table.c.key)).scalars().all() == [tokens.sealed(tokens.digest("key"))]
    assert len(tokens.sealed(tokens.digest("key"))) == 44
    assert tokens.load(conn) == []  # what the file names no more must not serve


def test_keys_at_rest_as_text(conn: Connection) -> None:
    """For a database that New API reads too, the key is text, unless an inherited row has it already."""
    conn.execute(table.insert().values(user_id=1, key="taken", remain_quota=7))
    other = _wanted(None, digest=tokens.digest("taken"), text="taken", name="bob")
    rows = tokens.ensure(conn, [_wanted(5), other], 5, "text")
    keys = conn.execute(select(table.c.key).order_by(table.c.id)).scalars().all()
    assert keys == ["taken", "key", tokens.sealed(tokens.digest("taken"))]
    assert {row.digest for row in rows.values()} == {tokens.digest("key"), tokens.digest("taken")}
    assert [row.remain_quota for row in tokens.load(conn)] == [7]


def test_a_changed_quota_moves_the_balance(conn: Connection) -> None:
    """A higher or lower `quota:` moves the balance by the difference, as far as it reaches, and comes back exactly."""
    row = _row(conn, 1000)
    account = ledger.Account(row.id, row.user_id, token_limited=True, user_limited=False)
    ledger.hold(conn, [money.hold("a", account, 700)])
    ledger.settle(conn, [money.settlement("a", account, 700, 700)])
    assert _row(conn, 1500).remain_quota == 800
    assert _row(conn, 500).remain_quota == 0  # 700 are spent already
    assert _row(conn, 500).remain_quota == 0
    assert _row(conn, 1000).remain_quota == 300
    assert audit.check(conn) == []


def test_a_quota_that_appears_and_goes(conn: Connection) -> None:
    """Without `quota:` a key is unlimited; an amount that appears later is granted whole."""
    assert _row(conn).unlimited
    assert (_row(conn, 400).remain_quota, _row(conn, 400).unlimited) == (400, False)
    assert _row(conn).unlimited
    assert _row(conn, 400).remain_quota == 400
    assert audit.check(conn) == []


def test_yaml_names_follow(conn: Connection) -> None:
    """Name, group and switch follow the file."""
    _row(conn)
    row = _row(conn, name="alice2", group="vip", enabled=False)
    assert (row.name, row.group, row.status) == ("alice2", "vip", tokens.DISABLED)


def test_made_keys(conn: Connection) -> None:
    """A key made here is told once, found by its digest, topped up, switched and deleted."""
    id, key = tokens.add(conn, NewToken(name="bob", quota=100, models=("gpt-*",)), 5)
    (row,) = tokens.load(conn)
    assert key.startswith("sk-")
    assert (row.id, row.digest, row.models, row.remain_quota) == (id, tokens.digest(key), ("gpt-*",), 100)
    assert conn.execute(select(table.c.key)).scalar_one() != key[3:]
    assert (tokens.grant(conn, id, 50), tokens.grant(conn, id, -500), tokens.balance(conn, id)) == (50, -150, 0)
    assert tokens.set_status(conn, id, tokens.DISABLED)
    assert tokens.load(conn)[0].status == tokens.DISABLED
    assert [one.id for one in tokens.find(conn, "bob")] == [id] == [one.id for one in tokens.find(conn, str(id))]
    assert audit.check(conn) == []
    assert tokens.remove(conn, id, 9)
    assert not tokens.remove(conn, id, 9)
    assert (tokens.load(conn), tokens.grant(conn, 99, 5), tokens.balance(conn, 99)) == ([], 0, 0)


def test_text_keys_stay_readable_for_new_api(conn: Connection) -> None:
    """With keys as text the column holds 48 characters without the prefix."""
    _, key = tokens.add(conn, NewToken(name="bob"), 5, "text")
    assert f"sk-{conn.execute(select(table.c.key)).scalar_one()}" == key
    assert len(key) == 51
    assert tokens.load(conn)[0].digest == tokens.digest(key)


def test_yaml_channels_have_rows(conn: Connection) -> None:
    """A YAML channel has a row where its spend is added up; it is no channel of the database."""
    first = channels.ensure(conn, {"main": 1, "claude": 14}, 5)
    assert channels.ensure(conn, {"claude": 14, "more": 24}, 6)["claude"] == first["claude"]
    assert channels.load(conn) == []
    assert conn.execute(select(channel_table.c.status, channel_table.c.key)).all() == [(channels.DISABLED, "")] * 3


def test_channel_rows(conn: Connection) -> None:
    """A channel's lists, defaults and key are read leniently; its status moves with its abilities."""
    conn.execute(
        channel_table.insert().values(
            id=1, type=1, key="secret-key", name="main", models=" a,,b ,", group=None, weight=None, channel_info="{}"
        )
    )
    conn.execute(abilities.insert().values(group="default", model="a", channel_id=1, enabled=True))
    (row,) = channels.load(conn)
    assert (row.models, row.groups) == (("a", "b"), ("default",))
    assert (row.weight, row.channel_info, row.auto_ban) == (0, "", True)
    assert row.key.reveal() == "secret-key"
    assert "secret" not in repr(row)
    assert channels.set_status(conn, 1, channels.AUTO_DISABLED, reason="bad key", at=5)
    assert channels.load(conn)[0].status == channels.AUTO_DISABLED
    assert conn.execute(select(abilities.c.enabled)).scalar_one() == 0
    assert not channels.set_status(conn, 2, channels.ENABLED)
