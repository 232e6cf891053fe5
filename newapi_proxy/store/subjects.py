"""What processes have taken of limits, a row for each subject, where no Redis counts it. Its text is `tabled`'s own."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from sqlalchemy import Column, Connection, String, Table, Text, bindparam, delete, select, update

from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import OWN

LONGEST: Final = 191  # characters of a subject's key
DIGITS: Final = 32  # of the digest of a name that does not fit
TABLE: Final = Table(
    "proxy_windows",
    OWN,
    Column("id", String(LONGEST), primary_key=True),
    Column("state", Text().with_variant(Text(2**24 - 1), "mysql")),
)
_ADD: Final = inserting(TABLE, "id", "state", once=True)
_FIND: Final = select(TABLE.c.state).where(TABLE.c.id == bindparam("subject")).with_for_update()


def named(subject: str) -> str:
    """The subject's key in the table: its name or, of one that does not fit, the beginning with a digest of the whole.

    MariaDB takes no notice of blanks at the end.
    """
    if len(subject) <= LONGEST and not subject.endswith(" "):
        return subject
    digest = sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{subject[: LONGEST - DIGITS - 1]}#{digest}"


def load(conn: Connection, id: str) -> str | None:
    """A subject's text, locked until the transaction's end; None where it has no row."""
    found: str | None = conn.execute(_FIND, {"subject": id}).scalar()
    return found


def save(conn: Connection, texts: Mapping[str, str], known: frozenset[str]) -> None:
    """Writes texts back; `known` subjects have a row, which an empty text takes away."""
    _ADD.run(conn, [(id, text) for id, text in texts.items() if text and id not in known])
    for id in known.intersection(texts):
        row = TABLE.c.id == id
        conn.execute(update(TABLE).where(row).values(state=texts[id]) if texts[id] else delete(TABLE).where(row))
