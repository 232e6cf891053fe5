"""What New API had begun when its database came here: its open tasks become ours, so that they are asked after.

Functions of a connection. Only what was paid for and submitted in the last day before that moment: older rows are those
that it has forgotten itself, later ones those of a program that goes on beside us. Source: tasks-and-accounts 1.12,
1.16, 1.17, 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, and_, func, literal, or_, select

from newapi_proxy.ir.task import WHOLE, Shelf
from newapi_proxy.store.row import number
from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import channels, midjourneys, tasks, upgrades
from newapi_proxy.store.tasks import TABLE

UPGRADE: Final = "task_tables"  # the upgrade that makes our table: when it was done, the database came here
MARK: Final = "adopted:"  # before a row's shelf and id: no request can have such an id
_LATEST: Final = 86400  # seconds before that in which a task was submitted
_PAID: Final = (1, 22)  # codes of submissions that New API charged, of those that may still be open
_TAKING: Final = inserting(
    TABLE,
    "request_id", "shelf", "row_id", "token_id", "user_id", "channel_id", "created_at", "polled_at", "version", "open",
    once=True,
)  # fmt: skip


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """Which open tasks to take over: those of the channels with these `ids`. `ticks`: a second in the shelf's unit."""

    shelf: Shelf
    platform: str
    ticks: int
    ids: frozenset[int]


def adopt(conn: Connection, wanted: Sequence[Adoption]) -> list[int]:
    """Takes over what New API was paid for and left open when the database came here, on these channels or on ones that
    are not in the database any more; how many tasks. Safe to repeat."""
    return [_adopt(conn, one) for one in wanted]


def _adopt(conn: Connection, one: Adoption) -> int:
    table = midjourneys if one.shelf == "midjourneys" else tasks
    shared = table is tasks
    came = number(conn.execute(select(upgrades.c.at).where(upgrades.c.name == UPGRADE)).scalar())
    lost = table.c.channel_id.not_in(select(channels.c.id))
    payer = literal(0) if shared else table.c.token_id
    asked = (
        select(table.c.id, payer.label("payer"), table.c.user_id, table.c.channel_id, table.c.submit_time)
        .select_from(table.join(TABLE, and_(TABLE.c.shelf == one.shelf, TABLE.c.row_id == table.c.id), isouter=True))
        .where(TABLE.c.request_id.is_(None), func.coalesce(table.c.progress, "") != WHOLE)
        .where(table.c.platform == one.platform if shared else table.c.code.in_(_PAID))
        .where(table.c.submit_time.between((came - _LATEST) * one.ticks, came * one.ticks))
        .where(or_(table.c.channel_id.in_(one.ids), lost))
    )
    rows = []
    for row in conn.execute(asked):
        what = (f"{MARK}{one.shelf}:{row.id}", one.shelf, row.id)
        whose = (number(row.payer), number(row.user_id), number(row.channel_id))
        rows.append((*what, *whose, row.submit_time // one.ticks, 0, 0, 1))
    return _TAKING.run(conn, rows)
