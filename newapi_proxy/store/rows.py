"""One statement for many rows: compiled once per engine and size, sent in one step.

A step gives the interpreter's lock away and has to win it back from a busy event loop, so what a group costs is its
steps, not its rows. Sizes are powers of two, which bounds the number of texts. An UPDATE joins the rows as a table of
their own, because that is what SQLite, PostgreSQL and MySQL have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Table,
    Text,
    bindparam,
    insert,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.types import TypeEngine

MOST: Final = 32  # rows in one statement; SQLite allows 500 members of a compound
_MOST_BITS: Final = MOST.bit_length() - 1
INT: Final[TypeEngine[Any]] = BigInteger()
TEXT: Final[TypeEngine[Any]] = Text()

Params = Sequence[Sequence[Any]]
Order = Callable[[Sequence[Any]], Sequence[Any]]  # values in a statement's order
Build = Callable[[Dialect, int], Insert | Update]


class Rows:
    """A prepared statement over any number of rows, each a sequence of plain values in the declared order.

    `fit` makes a row what a server takes; SQLite takes everything.
    """

    __slots__ = ("_build", "_fit", "_texts")

    def __init__(self, build: Build, fit: Callable[[Sequence[Any], Dialect], Sequence[Any]] | None = None) -> None:
        self._build = build
        self._fit = fit
        self._texts: dict[tuple[str, int], tuple[str, Order | None]] = {}

    def run(self, conn: Connection, rows: Params) -> int:
        """Sends the rows; how many were inserted or matched. Raises the driver's own errors."""
        if not rows:
            return 0
        dialect, raw = conn.dialect, conn.connection
        if dialect.name == "sqlite":
            # "many" of one: `execute` lets go of the interpreter once more, to ask for a row's id
            many: Any = raw.dbapi_connection.executemany  # type: ignore[union-attr]
            if len(rows) == 1:
                text, order = self._text(dialect, 1)
                return int(many(text, (rows[0] if order is None else order(rows[0]),)).rowcount)
            return sum([many(text, (values,)).rowcount for text, values in self._statements(dialect, rows)])
        if self._fit is not None:
            rows = [self._fit(row, dialect) for row in rows]
        cursor, count = raw.cursor(), 0
        try:
            for text, values in self._statements(dialect, rows):
                cursor.execute(text, values)
                count += cursor.rowcount
        finally:
            cursor.close()
        return count

    def _statements(self, dialect: Dialect, rows: Params) -> Iterator[tuple[str, Sequence[Any]]]:
        """The rows in statements of as many as there is a text for."""
        done, total = 0, len(rows)
        while done < total:
            size = 1 << min(_MOST_BITS, (total - done).bit_length() - 1)
            text, order = self._text(dialect, size)
            flat = list(chain.from_iterable(rows[done : done + size]))
            yield text, flat if order is None else order(flat)
            done += size

    def _text(self, dialect: Dialect, size: int) -> tuple[str, Order | None]:
        known = self._texts.get((dialect.name, size))
        if known is None:
            compiled = self._build(dialect, size).compile(dialect=dialect)
            # names are b0, b1 … in the order of the flat values
            order = [int(name[1:]) for name in compiled.positiontup or ()]
            known = str(compiled), None if order == list(range(len(order))) else itemgetter(*order)
            self._texts[dialect.name, size] = known
        return known


def inserting(table: Table, *columns: str, once: bool = False) -> Rows:
    """INSERT of whole rows; with `once` a row whose primary key exists is left out and not counted."""
    width = len(columns)

    @cache
    def lengths(dialect: Dialect) -> list[int | None]:
        return [getattr(table.c[name].type.dialect_impl(dialect), "length", None) for name in columns]

    def fit(row: Sequence[Any], dialect: Dialect) -> Sequence[Any]:
        return [_fitted(value, length) for value, length in zip(row, lengths(dialect), strict=True)]

    def build(dialect: Dialect, size: int) -> Insert | Update:
        rows = [
            {name: bindparam(f"b{row * width + place}", type_=table.c[name].type) for place, name in enumerate(columns)}
            for row in range(size)
        ]
        return _insert(table, dialect, once).values(rows).inline()

    return Rows(build, fit)


def _fitted(value: Any, length: int | None) -> Any:
    """Names come from clients: one that is too long, or has what PostgreSQL does not store, must not cost the row."""
    return value.replace("\0", "\ufffd")[:length] if isinstance(value, str) else value


def _insert(table: Table, dialect: Dialect, once: bool) -> Insert:
    if not once:
        return insert(table)
    match dialect.name:  # each engine's module is loaded where that engine is used
        case "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table).on_conflict_do_nothing()
        case "postgresql":
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(table).on_conflict_do_nothing()
        case _:
            return insert(table).prefix_with("IGNORE")


def updating(
    table: Table,
    values: Mapping[str, TypeEngine[Any]],
    set: Callable[[Any], Mapping[str, Any]],
    where: Callable[[Any], ColumnElement[bool]],
) -> Rows:
    """UPDATE of one table row per row of values; `set` and `where` get the values by name as SQL expressions.

    No two rows of one `run` may name the same table row.
    """
    width = len(values)

    def build(dialect: Dialect, size: int) -> Insert | Update:
        binds = [
            [
                bindparam(f"b{row * width + place}", type_=kind).label(name)
                for place, (name, kind) in enumerate(values.items())
            ]
            for row in range(size)
        ]
        if size == 1:
            given: Any = SimpleNamespace(**{bind.name: bind.element for bind in binds[0]})
        else:
            given = union_all(*(select(*row) for row in binds)).subquery("given").c
        return update(table).values(dict(set(given))).where(where(given))

    return Rows(build)


@contextmanager
def savepoint(conn: Connection, name: str = "part") -> Iterator[None]:
    """What happens inside is undone if it ends in an exception; the transaction around it goes on.

    One inside another needs another name: MySQL forgets the outer one of the same.
    """
    cursor = conn.connection.cursor()
    try:
        cursor.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            cursor.execute(f"ROLLBACK TO SAVEPOINT {name}")
            cursor.execute(f"RELEASE SAVEPOINT {name}")
            raise
        cursor.execute(f"RELEASE SAVEPOINT {name}")
    finally:
        cursor.close()
