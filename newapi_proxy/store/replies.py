"""Answers kept under a client's Idempotency-Key: one row for each key of a token.

A row is `open` while its request runs, then `kept` with the answer, or `large` where it was charged and is too large to
keep. Claims decide who runs; `keep` belongs into the transaction of the charge, so that there is never one without the
other. Functions of a connection; knows nothing of HTTP. Sources: user-demands B11, reliability RF4.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, case, delete, select, update
from sqlalchemy import text as sql

from newapi_proxy.store.groups import Living
from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import proxy_replies as replies

State = Literal["open", "kept", "large"]
BATCH: Final = 200  # rows that one step of `prune` deletes


class Place(msgspec.Struct, frozen=True):
    """A key of a token, `key` as a digest of what the client sent."""

    token_id: int
    key: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A request that wants to run under a key. `fingerprint` is a digest of what it asks, `boot` the process.

    `request_id` is the key's, not the request's: it keeps claims and releases of one key in their order in the
    writer's queue. The request is `owner`.
    """

    request_id: str
    place: Place
    owner: str
    fingerprint: str = ""
    boot: str = ""
    at: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request was answered, to be kept until `expires` (unix seconds). `body` is None where it is too large,
    and `packed` (zlib) where it was streamed; `size` are its bytes as the client got them."""

    place: Place
    owner: str
    status: int
    streamed: bool
    headers: str
    size: int
    body: bytes | None
    expires: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What stands under a key already, since `at` (unix seconds). `body`: where it is small; a large one is read by
    `load`, beside the writer."""

    state: State
    owner: str
    fingerprint: str
    at: int
    status: int
    streamed: bool
    headers: str
    size: int
    body: bytes | None


SMALL: Final = 64 * 1024  # bytes of a body that is read with its claim
_OPEN: Final = inserting(replies, "token_id", "key", "owner", "fingerprint", "boot", "state", "at", once=True)
_IS_OPEN: Final = replies.c.state == sql("'open'")
_BODY: Final = case((replies.c.size <= SMALL, replies.c.body)).label("body")
_TOLD: Final = (*(replies.c[name] for name in Found.__struct_fields__ if name != "body"), _BODY, replies.c.boot)


def claim(conn: Connection, claims: Sequence[Claim]) -> list[Found | None]:
    """Per claim None where the request may run now, else what stands under its key; what has expired gives way.

    Safe to repeat: a claim finds itself; another process's under the same id is another's. Keys are taken in one order,
    so that processes do not wait for each other.
    """
    found = {one.owner: _claimed(conn, one) for one in sorted(claims, key=attrgetter("place.key"))}
    return [found[one.owner] for one in claims]


def _claimed(conn: Connection, one: Claim) -> Found | None:
    row = (one.place.token_id, one.place.key, one.owner, one.fingerprint, one.boot, "open", one.at)
    if _OPEN.run(conn, [row]):
        return None
    expired = and_(_at(one.place), ~_IS_OPEN, replies.c.expires <= one.at)
    if conn.execute(delete(replies).where(expired)).rowcount and _OPEN.run(conn, [row]):
        return None
    found = conn.execute(select(*_TOLD).where(_at(one.place)).with_for_update()).one()  # as it is now, on any engine
    if found.state == "open" and (found.owner, found.boot) == (one.owner, one.boot):
        return None
    return Found(
        state=found.state,
        owner=words(found.owner),
        fingerprint=words(found.fingerprint),
        at=number(found.at),
        status=number(found.status),
        streamed=truth(found.streamed),
        headers=words(found.headers),
        size=number(found.size),
        body=found.body,
    )


def release(conn: Connection, claims: Sequence[Claim]) -> list[bool]:
    """Frees keys whose requests ended without a charge; per claim whether its request still had the key."""
    return [_freed(conn, one) for one in claims]


def keep(conn: Connection, answer: Answer) -> bool:
    """Stores the answer in place of the open claim; whether its request still had the key."""
    return bool(
        conn.execute(
            update(replies)
            .where(_at(answer.place), replies.c.owner == answer.owner, _IS_OPEN)
            .values(
                state="kept" if answer.body is not None else "large",
                status=answer.status,
                streamed=answer.streamed,
                headers=answer.headers,
                size=answer.size,
                body=answer.body,
                expires=answer.expires,
            )
        ).rowcount
    )


def load(conn: Connection, place: Place, owner: str) -> bytes | None:
    """The body as it was kept, None where it has gone meanwhile."""
    asked = select(replies.c.body).where(_at(place), replies.c.owner == owner)
    body: bytes | None = conn.execute(asked).scalar()
    return body


def recover(conn: Connection, living: Living) -> int:
    """Frees the keys of requests that ended with their process; how many. Goes into the transaction of the ledger's."""
    return conn.execute(delete(replies).where(_IS_OPEN, replies.c.boot.not_in(living))).rowcount


def prune(conn: Connection, now: Sequence[int]) -> list[int]:
    """Deletes what has expired by `now` (unix seconds), a batch at most; how many."""
    return [_pruned(conn, at) for at in now]


def _pruned(conn: Connection, at: int) -> int:
    due = select(replies.c.token_id, replies.c.key).where(replies.c.expires <= at, ~_IS_OPEN).limit(BATCH)
    found = conn.execute(due).all()
    return sum(conn.execute(delete(replies).where(_at(Place(*row)), ~_IS_OPEN)).rowcount for row in found)


def _freed(conn: Connection, one: Claim) -> bool:
    mine = and_(_at(one.place), replies.c.owner == one.owner, replies.c.boot == one.boot)
    return bool(conn.execute(delete(replies).where(mine, _IS_OPEN)).rowcount)


def _at(place: Place) -> ColumnElement[bool]:
    return and_(replies.c.token_id == place.token_id, replies.c.key == place.key)
