"""The processes that share a database: who lives, whose turn it is to write, and which of their groups came through.

Each has a row that every group it commits moves forward, so that after a lost connection the row tells whether the last
commit arrived. A process whose row stands still for `LEASE` is taken for dead, and what it holds is given back.
Writers take turns: all of them charge the same few rows, and one after the other they cannot deadlock.
Time is the database's own. Knows nothing of money.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Select, bindparam, literal_column, select, update

from newapi_proxy.store.dialects import KINDS
from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import processes

LEASE: Final = 60  # seconds; longer than any outage that a process shall survive with its requests
GONE: Final = 0  # `at` of a process that ended, or was taken for dead
_TURN: Final = ""  # the row that writers lock first
_ADD: Final = inserting(processes, "boot", "at", "number", once=True)
_LOCK: Final = select(processes.c.boot).where(processes.c.boot == _TURN).with_for_update()
_LAST: Final = select(processes.c.number).where(processes.c.boot == bindparam("boot"))


def now(conn: Connection) -> int:
    """Unix seconds by the database's clock."""
    return int(conn.execute(select(literal_column(KINDS[conn.dialect.name].now))).scalar_one())


def moment(conn: Connection) -> float:
    """Unix seconds and their parts by the database's clock."""
    return float(conn.execute(select(literal_column(KINDS[conn.dialect.name].moment))).scalar_one())


def take_turn(conn: Connection) -> None:
    """Waits for the other writers' transactions; the turn ends with this one."""
    if conn.execute(_LOCK).first() is None:
        _ADD.run(conn, [(_TURN, GONE, 0)])
        conn.execute(_LOCK)


def enter(conn: Connection, boot: str) -> None:
    """Begins a process's life, or takes it up again after it was taken for dead."""
    take_turn(conn)
    _ADD.run(conn, [(boot, GONE, 0)])
    _move(conn, boot, number=None, dead=True)


def mark(conn: Connection, boot: str, number: int) -> bool:
    """Takes a turn for the process's group of this number; False where the process was taken for dead meanwhile."""
    take_turn(conn)
    return _move(conn, boot, number=number, dead=False)


def _move(conn: Connection, boot: str, number: int | None, *, dead: bool) -> bool:
    values = {"at": literal_column(KINDS[conn.dialect.name].now), **({} if number is None else {"number": number})}
    moved = update(processes).where(processes.c.boot == boot).values(values)
    return conn.execute(moved if dead else moved.where(processes.c.at > GONE)).rowcount > 0


def last(conn: Connection, boot: str) -> int:
    """The number of the last group of the process that came through; waits for one that is still on its way."""
    take_turn(conn)
    return int(conn.execute(_LAST, {"boot": boot}).scalar() or 0)


def leave(conn: Connection, boot: str) -> None:
    """Ends a process's life: what it still holds may be given back at once."""
    conn.execute(update(processes).where(processes.c.boot == boot).values(at=GONE))


def bury(conn: Connection) -> Select[tuple[str]]:
    """Takes for dead who has not been heard of for the lease; a query for those who live, in the same turn."""
    conn.execute(update(processes).where(processes.c.at > GONE, processes.c.at < now(conn) - LEASE).values(at=GONE))
    return select(processes.c.boot).where(processes.c.at > GONE)
