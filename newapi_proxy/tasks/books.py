"""What is written of a task, each in one transaction: its submission's end, and its changes with their refund.

Functions of a connection over batches, safe to repeat. The money itself moves in `billing`. Source:
tasks-and-accounts traps T-08, T-12, T-26.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec
from sqlalchemy import Connection

from newapi_proxy.billing import ledger, refunds
from newapi_proxy.billing.charge import usd
from newapi_proxy.store import adopting, logs, tasks


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """A submission's end: what becomes of its hold, and the task that came of it, if any."""

    request_id: str
    end: ledger.Settlement | ledger.Void
    job: tasks.Job | None
    platform: str = ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A task's change. `request_id`: its submission's."""

    request_id: str
    step: tasks.Step


class Moved(msgspec.Struct, frozen=True):
    """Whether the change was written, and the units that were given back with it."""

    won: bool
    refunded: int = 0


def close(conn: Connection, closes: Sequence[Close]) -> list[int | None]:
    """Ends submissions; per submission the units taken, None where it had ended before: then nothing is written."""
    return [_close(conn, one) for one in closes]


def _close(conn: Connection, one: Close) -> int | None:
    match one.end:
        case ledger.Settlement():
            taken = ledger.settle(conn, [one.end])[0]
        case ledger.Void():
            taken = 0 if ledger.void(conn, [one.end])[0] else None
        case _:
            assert_never(one.end)
    if taken is not None and one.job is not None:
        task = msgspec.structs.replace(one.job.task, quota=taken)
        tasks.add(conn, msgspec.structs.replace(one.job, task=task), one.platform)
    return taken


def advance(conn: Connection, moves: Sequence[Move]) -> list[Moved]:
    """Writes changes; a failure gives its charge back in the same transaction, once, whoever else saw it too."""
    return [_advance(conn, one) for one in moves]


def _advance(conn: Connection, one: Move) -> Moved:
    job, task = one.step.job, one.step.task
    if not tasks.advance(conn, one.step):
        return Moved(False)
    if not task.failed or not task.quota:
        return Moved(True)
    back = refunds.Refund(job.request_id, one.step.at, task.fail_reason, _entry(one.step))
    if job.request_id.startswith(adopting.MARK):  # New API was paid for it
        return Moved(True, refunds.foreign(conn, back, task.quota))
    return Moved(True, refunds.refund(conn, [back])[0])


def _entry(step: tasks.Step) -> logs.Entry:
    job, task = step.job, step.task
    return logs.Entry(
        type=logs.REFUND,
        user_id=task.user_id,
        created_at=step.at,
        content=f"task {task.task_id} failed, ${usd(task.quota)} given back",
        channel_id=task.channel_id,
        token_id=job.token_id,
        group=task.group,
        request_id=job.request_id,
    )
