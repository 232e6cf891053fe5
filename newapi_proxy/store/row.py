"""Reading foreign rows leniently: NULL, blanks and odd booleans become plain values (relay-and-billing 7.1, 7.2)."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Insert, Label, Table, inspect, literal_column, null

NOWHERE: Final = "255.255.255.255/32"  # no client has it
_BLANKS: Final = re.compile(r"[\s,]+")


def words(value: Any) -> str:
    """Text without the blanks around it; NULL is ""."""
    return "" if value is None else str(value).strip()


def number(value: Any, otherwise: int = 0) -> int:
    """A whole number; NULL, blanks and what is no number read as `otherwise`."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return otherwise


def truth(value: Any) -> bool:
    """A boolean as any revision wrote it: 0, 1, true, 'false', NULL."""
    return words(value).lower() not in ("", "0", "0.0", "false", "f")


def names(value: Any) -> tuple[str, ...]:
    """A comma list; blanks around entries and empty entries are dropped."""
    return tuple(entry for piece in words(value).split(",") if (entry := piece.strip()))


def addresses(value: Any) -> tuple[str, ...]:
    """An address list: New API separates by line and ignores commas, One API separates by comma.

    What is no address or network is dropped; a list of nothing else lets nobody in, where New API let everybody.
    """
    entries = [entry for entry in _BLANKS.split(words(value)) if entry]
    return tuple(entry for entry in entries if _network(entry)) or ((NOWHERE,) if entries else ())


def older(conn: Connection, table: Table, *columns: str) -> list[Label[Any]]:
    """Columns that only One API's files have, those that are there, each as `older_<name>`."""
    present = {one["name"] for one in inspect(conn).get_columns(table.name)}
    return [literal_column(f"{table.name}.{name}").label(f"older_{name}") for name in columns if name in present]


def readable(conn: Connection, table: Table) -> list[ColumnElement[Any]]:
    """The table's columns; those that a file which was never completed lacks read as NULL."""
    present = {one["name"] for one in inspect(conn).get_columns(table.name)}
    return [column if column.name in present else null().label(column.name) for column in table.columns]


def made(conn: Connection, insert: Insert) -> int:
    """Inserts one row; its id."""
    key = conn.execute(insert).inserted_primary_key
    assert key is not None
    return int(key[0])


def _network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
