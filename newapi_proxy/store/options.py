"""New API's option rows: settings that its pages save as text (relay-and-billing 6.2)."""

from __future__ import annotations

from sqlalchemy import Connection, select

from newapi_proxy.store.row import words
from newapi_proxy.store.schema import options


def load(conn: Connection) -> dict[str, str]:
    """Every option, key to text."""
    return {row.key: words(row.value) for row in conn.execute(select(options))}
