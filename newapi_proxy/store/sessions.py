"""Who is signed in at the pages: a row for each session, found by the digest of what the browser keeps.

The state stands here and not in a signed cookie, so that signing out ends a session wherever its cookie has got to, a
restart and a second process know it, and there is no secret to keep. What may be used but once (a proof of another
service) is a row as well, whose number is taken then. Knows no rule of who may sign in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import BigInteger, Column, Connection, String, Table, delete, insert, select

from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import OWN

MOST: Final = 20  # sessions of one subject; the one that ends first makes room
_ID: Final = 64
TABLE: Final = Table(
    "proxy_sessions",
    OWN,
    Column("id", String(_ID), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("subject", String(128), nullable=False, index=True),
    Column("until", BigInteger(), nullable=False, index=True),
)


class Session(msgspec.Struct, frozen=True):
    """A session: `id` a digest in hex, `kind` and `subject` say whose, `until` unix seconds."""

    id: str
    kind: str
    subject: str
    until: int


class Begun(msgspec.Struct, frozen=True):
    """One that begins at `at` (unix seconds)."""

    session: Session
    at: int


def begin(conn: Connection, wanted: Sequence[Begun]) -> list[bool]:
    """Writes sessions down and forgets those that are over; per session whether its number was free."""
    return [_begun(conn, one.session, one.at) for one in wanted]


def _begun(conn: Connection, one: Session, at: int) -> bool:
    conn.execute(delete(TABLE).where(TABLE.c.until <= at))
    if conn.execute(select(TABLE.c.id).where(TABLE.c.id == one.id).with_for_update()).first() is not None:
        return False
    mine = select(TABLE.c.id).where(TABLE.c.kind == one.kind, TABLE.c.subject == one.subject)
    others = conn.execute(mine.order_by(TABLE.c.until.desc())).scalars().all()
    if one.subject and len(others) >= MOST:
        conn.execute(delete(TABLE).where(TABLE.c.id.in_(others[MOST - 1 :])))
    conn.execute(insert(TABLE).values(id=one.id, kind=one.kind, subject=one.subject, until=one.until))
    return True


def find(conn: Connection, id: str, at: int) -> Session | None:
    """The session of that number, if it is not over."""
    row = conn.execute(select(TABLE).where(TABLE.c.id == id, TABLE.c.until > at)).first()
    return None if row is None else Session(words(row.id), words(row.kind), words(row.subject), number(row.until))


def end(conn: Connection, ids: Sequence[str]) -> list[bool]:
    """Ends sessions; which of them there were."""
    return [conn.execute(delete(TABLE).where(TABLE.c.id == one)).rowcount == 1 for one in ids]
