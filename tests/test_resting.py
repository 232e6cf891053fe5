"""Rests of channels and keys in the database, and channels made and deleted there, on every engine."""

from __future__ import annotations

from sqlalchemy import Connection, select

from newapi_proxy.secret import Secret
from newapi_proxy.store import channels, resting
from newapi_proxy.store.channels import NewChannel
from newapi_proxy.store.resting import Rest, Woken
from newapi_proxy.store.schema import abilities
from newapi_proxy.store.schema import channels as table

NEW = NewChannel(name="one", type=1, key=Secret("k"), models=("a", "b"), groups=("default", "vip"))


def status(conn: Connection, id: int) -> tuple[int, set[bool]]:
    """The channel's state, and that of its abilities."""
    found = conn.execute(select(table.c.status).where(table.c.id == id)).scalar_one()
    enabled = conn.execute(select(abilities.c.enabled).where(abilities.c.channel_id == id)).scalars()
    return found, {bool(one) for one in enabled}


def test_a_rest_is_new_apis_status_until_it_ends(conn: Connection) -> None:
    """Set with its reason, told again by `load`, taken back at the end; written twice it is one row."""
    id = channels.add(conn, NEW, 1)
    rest = Rest(channel="one", mark="key:x", until=2000, pause=30, disables=id, reason="timeout")
    resting.begin(conn, [rest, rest], 1000)
    assert resting.load(conn) == [rest]
    assert (status(conn, id), resting.ours(conn)) == ((channels.AUTO_DISABLED, {False}), {id})
    (row,) = (one for one in channels.load(conn) if one.id == id)
    assert row.reason == "timeout"
    resting.end(conn, [Woken("one", "key:x")])
    assert (status(conn, id), resting.load(conn)) == ((channels.ENABLED, {True}), [])


def test_a_status_that_somebody_else_has_set_stays(conn: Connection) -> None:
    """A channel that was switched off by hand is not switched on by the end of a rest, and is not ours any more."""
    id = channels.add(conn, NEW, 1)
    resting.begin(conn, [Rest(channel="one", mark="key:x", until=2000, disables=id)], 1000)
    channels.set_status(conn, id, channels.DISABLED)
    assert ([one.moved for one in resting.load(conn)], resting.ours(conn)) == ([True], frozenset())
    resting.end(conn, [Woken("one")])
    assert status(conn, id) == (channels.DISABLED, {False})


def test_one_key_that_works_enables_the_channel(conn: Connection) -> None:
    """The other keys go on resting."""
    id = channels.add(conn, NEW, 1)
    resting.begin(conn, [Rest(channel="one", mark="key:a", until=2000)], 1000)
    resting.begin(conn, [Rest(channel="one", mark="key:b", until=2000, disables=id)], 1000)
    resting.end(conn, [Woken("one", "key:a")])
    assert status(conn, id) == (channels.ENABLED, {True})
    assert [(one.mark, one.disables) for one in resting.load(conn)] == [("key:b", 0)]


def test_a_deleted_channel_takes_its_abilities_along(conn: Connection) -> None:
    """One for each group and model, and none afterwards."""
    id = channels.add(conn, NEW, 1)
    mine = select(abilities.c.model).where(abilities.c.channel_id == id)
    assert len(conn.execute(mine).all()) == 4
    assert channels.remove(conn, id)
    assert conn.execute(mine).all() == []
    assert not channels.remove(conn, id)
