"""Which channels and keys rest after failures, written down so that neither a restart nor New API is unaware of it.

Source: decision 20. A channel of the database that rests as a whole has status 3 in its own row, where New API looks;
`disables` remembers that it is we who set it. Knows no rule of who rests when: `relay.health` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    String,
    Table,
    Text,
    and_,
    delete,
    insert,
    inspect,
    select,
    update,
)

from newapi_proxy.store import channels
from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import OWN
from newapi_proxy.store.schema import channels as channel_table

_NAME: Final = 191
TABLE: Final = Table(
    "proxy_health",
    OWN,
    Column("channel", String(_NAME), primary_key=True),
    Column("mark", String(64), primary_key=True),
    Column("until", BigInteger(), nullable=False),
    Column("pause", BigInteger(), nullable=False),
    Column("disables", BigInteger(), nullable=False),
    Column("reason", Text()),
)


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """A channel, or one of its keys, that is not to be used until then (unix seconds).

    `mark` says which: what the channel or the key looks like, so that another key of the same place begins anew.
    `pause`: seconds of the channel's last pause. `disables`: the database's channel that rests as a whole by this, or
    0; `moved`: when read, whether somebody has given that one another status meanwhile.
    """

    channel: str
    mark: str
    until: int
    pause: int = 0
    disables: int = 0
    reason: str = ""
    moved: bool = False


class Woken(msgspec.Struct, frozen=True):
    """The end of a rest; mark "" for everything of the channel."""

    channel: str
    mark: str = ""


def load(conn: Connection) -> list[Rest]:
    """Every rest, those whose time is over too; none where the table is not there yet."""
    if not inspect(conn).has_table(TABLE.name):
        return []
    asked = select(TABLE, channel_table.c.status).select_from(
        TABLE.outerjoin(channel_table, channel_table.c.id == TABLE.c.disables)
    )
    return [
        Rest(
            channel=words(row["channel"]),
            mark=words(row["mark"]),
            until=number(row["until"]),
            pause=number(row["pause"]),
            disables=number(row["disables"]),
            reason=words(row["reason"]),
            moved=number(row["disables"]) > 0 and number(row["status"]) != channels.AUTO_DISABLED,
        )
        for row in conn.execute(asked).mappings()
    ]


def ours(conn: Connection) -> frozenset[int]:
    """The database's channels whose status 3 is ours: they serve again by themselves."""
    return frozenset(one.disables for one in load(conn) if one.disables and not one.moved)


def begin(conn: Connection, rests: Sequence[Rest], at: int) -> list[bool]:
    """Writes rests down, New API's status with them. `at` unix seconds."""
    for one in rests:
        conn.execute(delete(TABLE).where(_is(one.channel, one.mark)))
        row = {name: getattr(one, name) for name in TABLE.columns.keys()}  # noqa: SIM118 - no mapping
        conn.execute(insert(TABLE).values({**row, "channel": one.channel[:_NAME]}))
        if one.disables:
            channels.set_status(
                conn, one.disables, channels.AUTO_DISABLED, reason=one.reason, at=at, only=channels.ENABLED
            )
    return [True] * len(rests)


def end(conn: Connection, woken: Sequence[Woken]) -> list[bool]:
    """Forgets rests; a channel whose status 3 was ours is enabled, another's status stays as somebody has set it."""
    for one in woken:
        for id in conn.execute(select(TABLE.c.disables).where(_is(one.channel, ""), TABLE.c.disables > 0)).scalars():
            channels.set_status(conn, id, channels.ENABLED, only=channels.AUTO_DISABLED)
        conn.execute(delete(TABLE).where(_is(one.channel, one.mark)))
        conn.execute(update(TABLE).where(_is(one.channel, "")).values(disables=0))
    return [True] * len(woken)


def _is(channel: str, mark: str) -> ColumnElement[bool]:
    named = TABLE.c.channel == channel[:_NAME]
    return and_(named, TABLE.c.mark == mark) if mark else named
