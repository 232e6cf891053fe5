"""The state machine: a task and what is said of it → the task afterwards. Pure.

Upstreams repeat themselves, answer late and out of order: what would lead back is ignored, and nothing leads out of an
end. Source: tasks-and-accounts 1.16, 2.7, traps T-08 to T-10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from newapi_proxy.ir.task import FAILURE, SUCCESS, WHOLE, Task, Update

RANKS: Final[Mapping[str, int]] = {
    "": 0,
    "NOT_START": 0,
    "MODAL": 0,  # waits for the client
    "SUBMITTED": 1,
    "QUEUED": 2,
    "IN_PROGRESS": 3,
    SUCCESS: 4,
    FAILURE: 4,
}
NEARLY: Final = "99%"
UNEXPLAINED: Final = "The upstream gives no reason."
_PERCENT: Final = re.compile(r"(\d{1,3})%")
_COPIED: Final = tuple(name for name in Update.__struct_fields__ if name not in ("task_id", "status", "progress"))


def move(task: Task, update: Update, now: int) -> Task | None:
    """The task after the update, None where it says nothing new or nothing that may be.

    `now` in the task's own unit of time; upstream's idea of when the task was submitted is never taken over.
    """
    status = task.status if update.status is None or update.status not in RANKS else update.status
    rank, before = RANKS[status], RANKS.get(task.status, 0)
    if task.done or rank < before or (rank == before and _percent(update.progress, 100) < _percent(task.progress, 0)):
        return None
    found = {name: value for name in _COPIED if (value := getattr(update, name)) is not None}
    moved = msgspec.structs.replace(task, status=status, progress=update.progress or task.progress, **found)
    match status:
        case "SUCCESS":
            moved = msgspec.structs.replace(moved, progress=WHOLE, fail_reason="", finish_time=moved.finish_time or now)
        case "FAILURE":
            moved = fail(moved, moved.fail_reason or UNEXPLAINED, now)
        case _ if moved.done:  # only an end is whole
            moved = msgspec.structs.replace(moved, progress=NEARLY)
    return None if moved == task else moved


def fail(task: Task, reason: str, now: int) -> Task:
    """The task, failed for this reason."""
    return msgspec.structs.replace(
        task, status=FAILURE, progress=WHOLE, fail_reason=reason, finish_time=task.finish_time or now
    )


def _percent(text: str | None, otherwise: int) -> int:
    """The number in a progress such as `31%`; `otherwise` for what says nothing."""
    found = _PERCENT.fullmatch(text or "")
    return int(found[1]) if found else otherwise
