"""Old rows of the usage log, deleted in steps so short that nobody who writes has to wait for one.

Rows go in the order in which they came, by their ids: that needs no index, and a step that finds nothing old is the
last. What people did (top-ups, settings) stays; what traffic left goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, select

from newapi_proxy.store.row import number
from newapi_proxy.store.schema import logs

TRAFFIC: Final = frozenset({2, 5, 6})  # charges, failed attempts, refunds: New API's log types
FIRST: Final = 50  # rows that a first step looks at
LEAST: Final = 10
MOST: Final = 200
AIM: Final = 0.003  # seconds of a step


class Step(msgspec.Struct, frozen=True):
    """Where a pass stands: rows with an id above `after` that are older than `before` (unix seconds), so many."""

    before: int
    after: int = 0
    size: int = FIRST
    done: bool = False
    deleted: int = 0
    seconds: float = 0.0


def prune(conn: Connection, steps: Sequence[Step]) -> list[Step]:
    """One step each; the next one, `done` where nothing old is left."""
    return [_pruned(conn, step) for step in steps]


def _pruned(conn: Connection, step: Step) -> Step:
    since = perf_counter()
    asked = select(logs.c.id, logs.c.created_at, logs.c.type).where(logs.c.id > step.after)
    rows = conn.execute(asked.order_by(logs.c.id).limit(step.size)).all()
    old = [row.id for row in rows if number(row.created_at) < step.before and number(row.type) in TRAFFIC]
    if old:
        conn.execute(delete(logs).where(logs.c.id.in_(old)))
    done = len(rows) < step.size or number(rows[-1].created_at) >= step.before
    seconds = perf_counter() - since
    after = rows[-1].id if rows else step.after
    return Step(step.before, after, paced(step.size, seconds), done, step.deleted + len(old), seconds)


def paced(size: int, seconds: float) -> int:
    """How many rows the next step takes, so that it lasts about as long as it should; at most twice as many."""
    fitting = int(size * AIM / seconds) if seconds > 0 else MOST
    return max(LEAST, min(MOST, 2 * size, fitting))
