"""Every row of one database put into another, empty one, whatever engines the two have.

One thread reads while the other writes; the reader's batches wait in a short queue. All is written in one transaction.
Columns that only one side has are left out; what a writer of old left in odd forms becomes a plain value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Connection,
    DateTime,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    type_coerce,
)

from newapi_proxy.errors import OurError
from newapi_proxy.store import db, schema
from newapi_proxy.store.row import truth
from newapi_proxy.wire import tree

BATCH: Final = 1000  # rows read and written at once
_OURS_ALONE: Final = frozenset({"proxy_upgrades", "proxy_processes", "proxy_windows"})  # about the database itself
_WAITING: Final = 4  # batches read ahead
_Batch = tuple[Table, list[dict[str, Any]]]


def move(source: str, target: str, base: Path) -> dict[str, int]:
    """Rows by table. Raises OurError: where either database cannot be used, or the target is not empty."""
    batches: Queue[_Batch | BaseException | None] = Queue(_WAITING)
    over = Event()
    reader = Thread(target=_read_all, args=(source, base, batches, over), name="newapi-import", daemon=True)

    def work(conn: Connection) -> dict[str, int]:
        judged = (*schema.INHERITED.sorted_tables, schema.ledger)  # the rest says what was made with the tables
        taken = [one.name for one in judged if conn.execute(select(one).limit(1)).first() is not None]
        if taken:
            raise OurError(f"The database is not empty: {', '.join(taken)}.", code="database_not_empty")
        for one in _tables():
            conn.execute(delete(one))
        reader.start()
        return _write_all(conn, batches)

    try:
        return db.run(target, base, work, write=True)
    finally:
        over.set()
        if reader.ident is not None:
            _drain(batches)
            reader.join()


def _tables() -> list[Table]:
    every = (*schema.INHERITED.sorted_tables, *schema.OWN.sorted_tables)
    return [one for one in every if one.name not in _OURS_ALONE]


def _read_all(source: str, base: Path, batches: Queue[_Batch | BaseException | None], over: Event) -> None:
    def work(conn: Connection) -> None:
        for table in _tables():
            for rows in _read(conn, table):
                if over.is_set():
                    return
                batches.put((table, rows))

    end: BaseException | None = None
    try:
        db.run(source, base, work, write=False)
    except Exception as error:  # told to the writer, whose transaction it ends
        end = error
    batches.put(end)


def _read(conn: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """Batches in the order of the primary key."""
    have = {column["name"] for column in inspect(conn).get_columns(table.name)}
    # SQLite's other writers leave times in forms that its driver's reader refuses
    wanted = [
        type_coerce(one, String).label(one.name) if isinstance(one.type, DateTime) and _loose(conn) else one
        for one in table.columns
        if one.name in have
    ]
    found = conn.execution_options(yield_per=BATCH).execute(select(*wanted).order_by(*table.primary_key.columns))
    for rows in found.mappings().partitions(BATCH):
        yield [{name: _plain(table, name, value) for name, value in row.items()} for row in rows]


def _loose(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite"


def _plain(table: Table, name: str, value: Any) -> Any:
    if value is None:
        return None
    kind = table.c[name].type
    if isinstance(kind, Boolean):
        return truth(value)
    if isinstance(kind, DateTime):  # only whether there is one counts
        return _moment(value)
    return tree.dumps(value) if isinstance(value, (dict, list)) else value


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        return datetime.fromisoformat(str(value)[:19]).replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _write_all(conn: Connection, batches: Queue[_Batch | BaseException | None]) -> dict[str, int]:
    counts: dict[str, int] = {}
    while (batch := batches.get()) is not None:
        if isinstance(batch, BaseException):
            raise batch
        table, rows = batch
        conn.execute(insert(table), rows)
        counts[table.name] = counts.get(table.name, 0) + len(rows)
    if conn.dialect.name == "postgresql":  # rows with ids of their own do not move the counters of new ones
        _count_on(conn, [one for one in _tables() if counts.get(one.name) and "id" in one.c])
    return counts


def _count_on(conn: Connection, tables: Sequence[Table]) -> None:
    for table in tables:
        last = conn.execute(select(func.max(table.c.id))).scalar()
        sequence = conn.execute(select(func.pg_get_serial_sequence(table.name, "id"))).scalar()
        if sequence is not None:
            conn.execute(text("SELECT setval(CAST(:name AS regclass), :last)"), {"name": sequence, "last": last})


def _drain(batches: Queue[_Batch | BaseException | None]) -> None:
    """Lets a reader that waits for room go on to its end."""
    while True:
        try:
            batches.get(timeout=0.1)
        except Empty:
            return
