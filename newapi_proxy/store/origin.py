"""Which program and which age made a database: what the numbers and some columns of its rows mean depends on it.

Our own upgrade completes the tables, after which the traces are gone; so it is written down first. Source:
relay-and-billing 7.5 and 7.6.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import Column, Connection, String, Table, Text, inspect, select

from newapi_proxy.store.schema import OWN

Origin = Literal["own", "one-api", "new-api", "new-api-2025", "new-api-latest"]
"""`own`: made by this program, or empty. New API's ages: the first, that of April 2025, the latest."""

_NAME: Final = "origin"
_FACTS: Final = Table(
    # what can be seen only before a file is completed
    "proxy_facts",
    OWN,
    Column("name", String(64), primary_key=True),
    Column("value", Text()),
)


def look(conn: Connection) -> Origin:
    """What the tables say. One API's file that New API has opened once is New API's: it reads the numbers its way."""
    seen = inspect(conn)
    tables = set(seen.get_table_names())
    if "channels" not in tables:
        return "own"
    columns = {column["name"] for column in seen.get_columns("channels")}
    if _FACTS.name in tables and (found := conn.execute(select(_FACTS.c.value).where(_FACTS.c.name == _NAME)).scalar()):
        return found  # type: ignore[no-any-return]
    if "config" in columns and "quota_data" not in tables:
        return "one-api"
    if "channel_info" in columns:
        return "new-api-latest"
    return "new-api-2025" if "tag" in columns else "new-api"


def remember(conn: Connection) -> None:
    """Writes down what the tables say, once."""
    found = look(conn)
    _FACTS.create(conn, checkfirst=True)
    if conn.execute(select(_FACTS.c.value).where(_FACTS.c.name == _NAME)).first() is None:
        conn.execute(_FACTS.insert().values(name=_NAME, value=found))
