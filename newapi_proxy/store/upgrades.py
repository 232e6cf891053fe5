"""Bringing a database to the present schema: a list of named functions, each done once, all in one transaction.

Source: relay-and-billing 7.2, user-demands P2. An upgrade's function has a name that is its id; what was done stands in
`proxy_upgrades`. Missing tables and columns are added, nothing is dropped or rewritten, so the program that made the
file goes on working with it. A database that knows an upgrade which is not in this list was used by a newer version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import VARCHAR, Connection, Table, func, inspect, literal, select, table, text
from sqlalchemy.schema import CreateColumn

from newapi_proxy.errors import OurError
from newapi_proxy.store import adopting, hourly, logins, origin, resting, schema, sessions, subjects, tasks


def _origin(conn: Connection) -> None:
    """Who made the file, as long as that can be seen."""
    origin.remember(conn)


def _inherited_tables(conn: Connection) -> None:
    """Tables and columns of New API's newest schema that an older or One API's file lacks."""
    for wanted in schema.INHERITED.sorted_tables:
        _complete(conn, wanted)


def _ledger_tables(conn: Connection) -> None:
    """Our own tables."""
    for wanted in schema.OWN.sorted_tables:
        _create(conn, wanted)


def _process_table(conn: Connection) -> None:
    """Who shares the database, since more than one process can."""
    _create(conn, schema.processes)


def _reply_table(conn: Connection) -> None:
    """Answers under clients' idempotency keys."""
    _create(conn, schema.proxy_replies)


def _budget_table(conn: Connection) -> None:
    """Budgets' counters, and where a request counts."""
    _complete(conn, schema.proxy_budgets)
    _complete(conn, schema.ledger)


def _health_table(conn: Connection) -> None:
    """Channels and keys that rest."""
    _create(conn, resting.TABLE)


def _hourly_mark(conn: Connection) -> None:
    """From which row on the log is counted into the hourly sums."""
    _create(conn, hourly.MARKS)
    hourly.begin(conn)


def _task_tables(conn: Connection) -> None:
    """What a task needs beside its inherited row."""
    _create(conn, tasks.TABLE)


def _window_table(conn: Connection) -> None:
    """What several processes have taken of limits."""
    _create(conn, subjects.TABLE)


def _order_columns(conn: Connection) -> None:
    """What an order of ours says beside New API's columns; one order a number, where old rows let that be so."""
    _complete(conn, schema.top_ups)
    number = schema.top_ups.c.trade_no
    found = inspect(conn)
    alone: list[Sequence[str | None]] = [
        one["column_names"] for one in found.get_unique_constraints(schema.top_ups.name)
    ]
    alone += [one["column_names"] for one in found.get_indexes(schema.top_ups.name) if one["unique"]]
    kinds = {one["name"]: one["type"] for one in found.get_columns(schema.top_ups.name)}
    endless = conn.dialect.name == "mysql" and not isinstance(kinds[number.name], VARCHAR)  # no index takes it whole
    twice = select(number).group_by(number).having(func.count() > 1, number.is_not(None)).limit(1)
    if [number.name] not in alone and not endless and conn.execute(twice).first() is None:
        conn.execute(text(f"CREATE UNIQUE INDEX idx_proxy_top_ups_trade_no ON {schema.top_ups.name} ({number.name})"))


def _session_table(conn: Connection) -> None:
    """Who is signed in at the pages."""
    _create(conn, sessions.TABLE)


def _login_table(conn: Connection) -> None:
    """Which accounts elsewhere keys without a user are signed in by."""
    _create(conn, logins.TABLE)


UPGRADES: Final[Sequence[tuple[str, Callable[[Connection], None]]]] = (
    ("origin", _origin),
    ("inherited_tables", _inherited_tables),
    ("ledger_tables", _ledger_tables),
    ("process_table", _process_table),
    ("reply_table", _reply_table),
    ("budget_table", _budget_table),
    ("health_table", _health_table),
    ("hourly_mark", _hourly_mark),
    (adopting.UPGRADE, _task_tables),
    ("window_table", _window_table),
    ("order_columns", _order_columns),
    ("session_table", _session_table),
    ("login_table", _login_table),
)


def pending(conn: Connection) -> list[str]:
    """The names of upgrades that are still to be done. Raises OurError where a newer version has been here."""
    done = done_before(conn)
    known = [name for name, _ in UPGRADES]
    newer = sorted(done.difference(known))
    if newer:
        raise OurError(
            f"The database was upgraded by a newer version (it has {', '.join(newer)}); this one will not touch it.",
            code="schema_newer",
        )
    return [name for name in known if name not in done]


def done_before(conn: Connection) -> set[str]:
    """The names of upgrades that this database has seen."""
    if not inspect(conn).has_table(schema.upgrades.name):
        return set()
    return set(conn.execute(select(schema.upgrades.c.name)).scalars())


def upgrade(conn: Connection, at: int) -> list[str]:
    """Does what is pending, in the caller's transaction; the names. `at` unix seconds."""
    names = pending(conn)
    if not names:
        return []
    _create(conn, schema.upgrades)
    for name, change in UPGRADES:
        if name in names:
            change(conn)
            conn.execute(schema.upgrades.insert().values(name=name, at=at))
    return names


def holds_data(conn: Connection) -> bool:
    """Whether any table has a row: such a database is worth a copy before it is changed."""
    return any(
        conn.execute(select(literal(1)).select_from(table(name)).limit(1)).first() is not None
        for name in inspect(conn).get_table_names()
    )


def _create(conn: Connection, wanted: Table) -> None:
    if conn.dialect.name == "mysql":  # whatever the database's own default is; ids of ours differ by case
        exact = wanted.metadata is schema.OWN
        options = wanted.dialect_options["mysql"]
        options["charset"], options["collate"] = "utf8mb4", "utf8mb4_bin" if exact else "utf8mb4_general_ci"
    wanted.create(conn, checkfirst=True)


def _complete(conn: Connection, wanted: Table) -> None:
    if not inspect(conn).has_table(wanted.name):
        _create(conn, wanted)
        return
    have = {column["name"].lower() for column in inspect(conn).get_columns(wanted.name)}
    quote = conn.dialect.identifier_preparer.quote
    for column in wanted.columns:
        if column.name.lower() not in have:
            definition = CreateColumn(column).compile(dialect=conn.dialect)
            conn.execute(text(f"ALTER TABLE {quote(wanted.name)} ADD COLUMN {definition}"))
