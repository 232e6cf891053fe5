"""New API's option rows: settings that its pages save as text (relay-and-billing 6.2)."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, select

from newapi_proxy.store.row import truth, words
from newapi_proxy.store.schema import options


def flag(conn: Connection, key: str, otherwise: bool) -> bool:
    """A switch; `otherwise` where nobody has saved it."""
    value = conn.execute(select(options.c.value).where(options.c.key == key)).scalar()
    return otherwise if value is None else truth(value)


def load(conn: Connection) -> dict[str, str]:
    """Every option, key to text; none where there is no such table yet."""
    if not inspect(conn).has_table(options.name):
        return {}
    return {row.key: words(row.value) for row in conn.execute(select(options))}
