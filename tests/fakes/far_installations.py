"""The same databases of other programs on a server: their types as each engine has them, and its own numbering of rows.

Source: relay-and-billing 7.1. Reads everything back as text, to be compared.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.fakes import installations
from tests.fakes.installations import CHARGED

T = TypeVar("T")
Found = dict[str, list[tuple[Any, ...]]]
_DRIVERS: Final = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}
_TYPES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {  # in this order, on the text that SQLite gets
    "postgresql": (
        (r"\(id integer", "(id bigserial"),
        (r"\binteger\b", "bigint"),
        (r"\bnumeric\b", "boolean"),
        (r"\bdatetime\b", "timestamptz"),
        (r"\breal\b", "decimal"),
        (r'DEFAULT "(\w*)"', r"DEFAULT '\1'"),
    ),
    "mysql": (
        (r"\(id integer", "(id bigint AUTO_INCREMENT"),
        (r"\binteger\b", "bigint"),
        (r"\bnumeric\b", "boolean"),
        (r"\bdatetime\b", "datetime(3)"),
        (r"\breal\b", "double"),
        (r'DEFAULT "(\w*)"', r"DEFAULT '\1'"),
        (r'"(\w+)"', r"`\1`"),
        (r"([(,] ?)key ", r"\1`key` "),
        (r"\((\w+)\(key\)|\bKEY\(key\)", "KEY(`key`)"),
        (r"tokens\(key\)", "tokens(`key`)"),
        (r"\btext (DEFAULT|UNIQUE)", r"varchar(191) \1"),
        (r"(`key`|\bname|`group`|username|tag) text", r"\1 varchar(191)"),
        (r"\bmodel text", "model varchar(191)"),
        (r"\btext\b", "longtext"),
    ),
}


def stand(url: str, age: str, upstream: str) -> Found:
    """Fills the server's empty database; everything that is in it, but what a charge is meant to change."""

    def work(conn: Connection) -> Found:
        kind = conn.dialect.name
        for statement in installations.statements(age):
            for old, new in _TYPES[kind]:
                statement = re.sub(old, new, statement)
            conn.exec_driver_sql(statement)
        for table, filled in installations.rows(age, upstream).items():
            for row in filled:
                _insert(conn, table, row)
            if kind == "postgresql" and "id" in filled[0]:
                conn.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 100)")
        conn.commit()
        return read(conn)

    return on(url, work)


def on(url: str, work: Callable[[Connection], T]) -> T:
    """Runs the work with a connection of its own."""
    return asyncio.run(_on(url, work))


async def _on(url: str, work: Callable[[Connection], T]) -> T:
    kind, _, rest = url.partition(":")
    made = create_async_engine(f"{_DRIVERS[kind]}:{rest}", poolclass=NullPool)
    async with made.connect() as conn:
        found = await conn.run_sync(work)
    await made.dispose()
    return found


def _insert(conn: Connection, table: str, row: Mapping[str, Any]) -> None:
    quote = conn.dialect.identifier_preparer.quote
    names = ", ".join(quote(name) for name in row)
    values = {
        f"v{place}": orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value
        for place, value in enumerate(row.values())
    }
    conn.execute(text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"), values)


def read(conn: Connection, before: Found | None = None) -> Found:
    """Every row; with `before` the same rows and columns again, to be compared with it."""
    quote = conn.dialect.identifier_preparer.quote
    found: Found = {}
    for table in before or inspect(conn).get_table_names():
        names = (before or {}).get(table, [()])[0] or tuple(
            one["name"] for one in inspect(conn).get_columns(table) if one["name"] not in CHARGED.get(table, ())
        )
        asked = ", ".join(quote(name) for name in names)
        rows = conn.execute(text(f"SELECT {asked} FROM {quote(table)} ORDER BY 1")).all()
        found[table] = [names, *(tuple(map(str, row)) for row in rows)]
    return {table: rows[: len(before[table])] if before else rows for table, rows in found.items()}
