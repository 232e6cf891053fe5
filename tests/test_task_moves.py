"""The state machine of tasks: whatever upstreams say, in whatever order, a task goes forward and ends once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.ir.task import Task, Update
from newapi_proxy.tasks import moves

UPDATES = st.builds(
    Update,
    status=st.sampled_from([*moves.RANKS, "UNKNOWN", "nonsense"]) | st.none(),
    progress=st.sampled_from(["", "0%", "31%", "62%", "100%", "odd", "999%"]) | st.none(),
    fail_reason=st.sampled_from(["", "broken"]) | st.none(),
    start_time=st.integers(0, 10) | st.none(),
    finish_time=st.integers(0, 10) | st.none(),
    image_url=st.sampled_from(["", "http://x/"]) | st.none(),
)


@given(st.lists(UPDATES, max_size=20))
def test_any_order(updates: list[Update]) -> None:
    """Ranks never fall, only an end is 100%, a failure has a reason, and nothing changes after an end."""
    task = Task(task_id="1", submit_time=5)
    for number, update in enumerate(updates):
        before = task
        task = moves.move(task, update, 100 + number) or task
        assert moves.RANKS[task.status] >= moves.RANKS[before.status]
        assert task.done == (task.status in ("SUCCESS", "FAILURE"))
        assert not task.failed or task.fail_reason
        assert not task.done or task.finish_time > 0
        assert task.submit_time == 5
        if before.done:
            assert task == before


@given(st.lists(UPDATES, max_size=10), st.randoms())
def test_repeated_and_reordered(updates: list[Update], dice: Any) -> None:
    """A list that comes again, in another order, changes nothing that has ended."""
    task = Task(task_id="1")
    for update in updates:
        task = moves.move(task, update, 1) or task
    again = task
    dice.shuffle(updates)
    for update in updates:
        again = moves.move(again, update, 2) or again
    if task.done:
        assert again == task


@pytest.mark.parametrize(
    ("status", "progress", "update", "after"),
    [
        ("", "0%", Update(status="SUBMITTED", progress="0%"), ("SUBMITTED", "0%")),
        ("MODAL", "0%", Update(status="SUBMITTED", progress="0%"), ("SUBMITTED", "0%")),
        ("IN_PROGRESS", "31%", Update(status="IN_PROGRESS", progress="62%"), ("IN_PROGRESS", "62%")),
        ("IN_PROGRESS", "62%", Update(status="IN_PROGRESS", progress="31%"), None),
        ("IN_PROGRESS", "62%", Update(status="SUBMITTED", progress="0%"), None),
        ("IN_PROGRESS", "62%", Update(status="IN_PROGRESS", progress="100%"), ("IN_PROGRESS", "99%")),
        ("IN_PROGRESS", "62%", Update(status="SUCCESS"), ("SUCCESS", "100%")),
        ("IN_PROGRESS", "62%", Update(status="FAILURE", progress="", fail_reason="x"), ("FAILURE", "100%")),
        ("IN_PROGRESS", "62%", Update(), None),
        ("SUCCESS", "100%", Update(status="FAILURE", fail_reason="late"), None),
        ("FAILURE", "100%", Update(status="SUCCESS", progress="100%"), None),
    ],
)
def test_moves(status: str, progress: str, update: Update, after: tuple[str, str] | None) -> None:
    """The moves that upstreams really make, and those that they may not."""
    moved = moves.move(Task(status=status, progress=progress), update, 7)
    assert (None if moved is None else (moved.status, moved.progress)) == after
