"""Who signs in by which account elsewhere: New API's column of a user, or a row of ours for a key without a user.

`column` is the users' column of the other service. A number there stands for one user or key. Knows no service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, String, Table, and_, delete, insert, select, update

from newapi_proxy.store.row import words
from newapi_proxy.store.schema import OWN
from newapi_proxy.store.schema import users as user_table
from newapi_proxy.store.users import User, by_column

TABLE: Final = Table(
    "proxy_logins",
    OWN,
    Column("login", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
)
Verdict = Literal["bound", "taken", "gone"]


class Login(msgspec.Struct, frozen=True):
    """An account elsewhere, and whom it is to stand for: a user, or the key of this digest (hex) if `user_id` is 0."""

    column: str
    id: str
    user_id: int
    digest: str

    @property
    def name(self) -> str:
        """How a row of ours names the account."""
        return _name(self.column, self.id)


def _name(column: str, id: str) -> str:
    return f"{column}:{id}"


def find(conn: Connection, column: str, id: str) -> User | str | None:
    """The user, or the digest of the key, that the account stands for."""
    found = by_column(conn, column, id)
    if found is not None:
        return found
    digest = conn.execute(select(TABLE.c.digest).where(TABLE.c.login == _name(column, id))).scalar()
    return words(digest) or None


def bind(conn: Connection, wanted: Sequence[Login]) -> list[Verdict]:
    """Lets accounts stand for users and keys; per account what became of it."""
    return [_bound(conn, one) for one in wanted]


def _bound(conn: Connection, one: Login) -> Verdict:
    if find(conn, one.column, one.id) is not None:
        return "taken"
    if not one.user_id:
        conn.execute(delete(TABLE).where(_mine(one)))
        conn.execute(insert(TABLE).values(login=one.name, digest=one.digest))
        return "bound"
    alive = and_(user_table.c.id == one.user_id, user_table.c.deleted_at.is_(None))
    changed = conn.execute(update(user_table).where(alive).values({one.column: one.id})).rowcount
    return "bound" if changed else "gone"


def _mine(one: Login) -> ColumnElement[bool]:
    return and_(TABLE.c.digest == one.digest, TABLE.c.login.startswith(_name(one.column, ""), autoescape=True))


def unbind(conn: Connection, wanted: Sequence[Login]) -> list[bool]:
    """Ends what stands for these users and keys (`id` does not matter); whether there was something."""
    return [_unbound(conn, one) for one in wanted]


def _unbound(conn: Connection, one: Login) -> bool:
    if not one.user_id:
        return conn.execute(delete(TABLE).where(_mine(one))).rowcount > 0
    column = user_table.c[one.column]
    meant = and_(user_table.c.id == one.user_id, column != "")
    return conn.execute(update(user_table).where(meant).values({one.column: ""})).rowcount > 0


def told(conn: Connection, one: Login) -> str:
    """The account's number that stands for this user or key, "" for none."""
    if one.user_id:
        return words(conn.execute(select(user_table.c[one.column]).where(user_table.c.id == one.user_id)).scalar())
    name = words(conn.execute(select(TABLE.c.login).where(_mine(one))).scalar())
    return name.removeprefix(_name(one.column, ""))
