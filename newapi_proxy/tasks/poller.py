"""What became of open tasks: `poll_once` is one round, bounded per channel; the loop around it only waits.

Rounds may overlap, in one process or in several: a change is a compare-and-set, so each task ends once. A channel that
hangs, lies or speaks nonsense holds up nobody else. Source: tasks-and-accounts 1.16, 2.7, traps T-08 to T-14, T-31.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters._tasks import Tasks
from newapi_proxy.errors import OurError, ProxyError, UpstreamFailure
from newapi_proxy.ir.task import Shelf, Task, Update
from newapi_proxy.snapshot import Channel, Snapshot
from newapi_proxy.store import adopting, tasks
from newapi_proxy.store.tasks import Job
from newapi_proxy.tasks import books, moves
from newapi_proxy.tasks.calls import Bounds, Desk, call, marked

BATCH: Final = 200  # ids in one question
BATCHES: Final = 10  # questions to a channel in one round
FORGOTTEN: Final = 600  # seconds; a task that nobody asked after for so long is nobody's, where its channel is unknown
AT_ONCE: Final = 16  # channels asked at the same time
PACE: Final = 16  # changes in one transaction: others wait for the writer no longer than that
SECONDS: Final = 15.0  # for one answer
ANSWER: Final = 32 << 20  # bytes of it
GONE: Final = "The channel of this task is not configured any more."
NAMELESS: Final = "The upstream gave no id for this task."
LATE: Final = "The upstream did not finish this task within {hours:g} h."


class _Round(msgspec.Struct, frozen=True):
    """One look at one channel; None: it is gone. `now` unix seconds; what was asked after `before` can wait."""

    desk: Desk
    snapshot: Snapshot
    id: int
    channel: Channel | None
    now: int
    before: int

    @property
    def name(self) -> str:
        return self.channel.name if self.channel is not None else "gone"


async def run(desk: Desk, view: Callable[[], Snapshot], over: asyncio.Event) -> None:
    """Rounds until it is over; `view` gives the configuration in use. Whatever fails in one, the next one comes."""
    adopted: frozenset[int] | None = None  # the channels whose earlier tasks have been taken over
    while not over.is_set():
        snapshot = view()
        if snapshot.config.tasks.update:
            try:
                adopted = await _adopted(desk, snapshot, adopted)
                await poll_once(desk, snapshot, int(desk.clock.wall()))
            except OurError as error:
                log.logger().warning("poll_failed", channel=None, reason=error.message)
            except Exception as error:
                metrics.bug()
                log.bug(error, where="poll")
        try:
            async with asyncio.timeout(snapshot.config.tasks.interval):
                await over.wait()
        except TimeoutError:
            continue


def _known(snapshot: Snapshot) -> dict[int, Channel]:
    """The channels that can be asked after tasks, by their ids."""
    return {one.id: one for one in (*snapshot.parked, *snapshot.channels) if one.adapter.tasks is not None}


async def _adopted(desk: Desk, snapshot: Snapshot, before: frozenset[int] | None) -> frozenset[int]:
    """The channels of this configuration, once what was begun on them is ours; asked for where they are other ones."""
    ids = frozenset(_known(snapshot))
    if ids != before:
        await adopt(desk, snapshot)
    return ids


async def adopt(desk: Desk, snapshot: Snapshot) -> None:
    """Takes over what New API had begun on these channels when its database came here. Raises OurError."""
    shelves: dict[Shelf, list[tuple[int, Tasks]]] = {}
    for id, channel in _known(snapshot).items():
        if (work := channel.adapter.tasks) is not None:
            shelves.setdefault(work.shelf, []).append((id, work))
    for shelf, found in shelves.items():
        work = found[0][1]
        ids = frozenset(id for id, _ in found)
        wanted = adopting.Adoption(shelf=shelf, platform=work.platform, ticks=work.ticks, ids=ids)
        if count := await desk.db.write(adopting.adopt, wanted):
            log.logger().info("tasks_adopted", platform=work.platform, count=count)


async def poll_once(desk: Desk, snapshot: Snapshot, now: int) -> None:
    """Asks every channel that has open tasks, once. Raises OurError where the database cannot be read."""
    counts = await desk.db.read(tasks.waiting)
    known = _known(snapshot)
    for id, channel in known.items():
        metrics.tasks(channel.name, open=counts.get(id, 0))
    turns = asyncio.Semaphore(AT_ONCE)
    before = now - int(snapshot.config.tasks.interval / 2)  # daemons on one database share the work by this
    async with asyncio.TaskGroup() as group:
        for id in counts:
            group.create_task(_contained(turns, _Round(desk, snapshot, id, known.get(id), now, before)))


async def _contained(turns: asyncio.Semaphore, one: _Round) -> None:
    async with turns:
        try:
            await _look(one)
        except ProxyError as error:
            log.logger().warning("poll_failed", channel=one.name, reason=error.message)
        except Exception as error:
            metrics.bug()
            log.bug(error, where="poll")


async def _look(one: _Round) -> None:
    # an unknown channel may be known to another daemon, which has the new file already, or the old one still
    before = one.before if one.channel is not None else one.now - FORGOTTEN
    for _ in range(BATCHES):
        jobs = await one.desk.db.read(lambda conn: tasks.due(conn, one.id, before, BATCH))
        jobs = [job for job in jobs if one.channel is not None or job.created_at <= before]
        if not jobs or not await _batch(one, jobs):
            return


async def _batch(one: _Round, jobs: Sequence[Job]) -> bool:
    """Asks after these tasks and writes what is new; whether the channel answers, so that more may be asked."""
    answered = True
    found: dict[str, Update] = {}
    work = one.channel.adapter.tasks if one.channel is not None else None
    if one.channel is not None and work is not None:
        for mark, same in _by_key(jobs).items():
            updates = await _asked(one, one.channel, work, mark, same)
            answered &= updates is not None
            found |= updates or {}
    moved = [(job, task) for job in jobs if (task := _next(one, work, job, found.get(job.task.task_id))) is not None]
    still = {job.request_id for job in jobs} - {job.request_id for job, _ in moved}
    await _written(one, moved, sorted(still))
    return answered


def _by_key(jobs: Iterable[Job]) -> Mapping[str, list[str]]:
    """Upstream ids by the key that they were submitted with; an id that several tasks share is asked for once."""
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        if job.task.task_id:
            found.setdefault(job.key, {})[job.task.task_id] = None
    return {key: list(ids) for key, ids in found.items()}


async def _asked(one: _Round, channel: Channel, work: Tasks, mark: str, ids: Sequence[str]) -> dict[str, Update] | None:
    """What the channel says of these tasks, by id; None where it says nothing that can be read."""
    place = marked(channel, mark)
    outgoing = work.poll(ids, place.target("", one.now))
    connect = one.snapshot.config.relay.connect_timeout
    try:
        status, body = await call(one.desk.client, place, outgoing, Bounds(SECONDS, ANSWER, connect))
    except UpstreamFailure as failure:
        log.logger().warning("poll_failed", channel=channel.name, reason=failure.message)
        return None
    updates = work.polled(status, body)
    if updates is None:
        reason = f"status {status}, and no list of tasks in {len(body)} bytes"
        log.logger().warning("poll_failed", channel=channel.name, reason=reason)
        return None
    wanted = frozenset(ids)
    return {update.task_id: update for update in updates if update.task_id in wanted}


def _next(one: _Round, work: Tasks | None, job: Job, update: Update | None) -> Task | None:
    """The task as it is after this round, None where nothing has changed."""
    if one.channel is None or work is None:
        return moves.fail(job.task, GONE, one.now * _ticks(job))
    now = one.now * work.ticks
    if not job.task.task_id:
        return moves.fail(job.task, NAMELESS, now)
    moved = moves.move(job.task, update, now) if update is not None else None
    deadline = work.terms(one.channel.options).deadline
    if (moved is None or not moved.done) and one.now - job.created_at > deadline:
        return moves.fail(moved or job.task, LATE.format(hours=round(deadline / 3600, 2)), now)
    return moved


def _ticks(job: Job) -> int:
    """A second in the unit of a task whose channel is gone."""
    return next(one.tasks.ticks for one in ADAPTERS.values() if one.tasks is not None and one.tasks.shelf == job.shelf)


async def _written(one: _Round, moved: Sequence[tuple[Job, Task]], still: Sequence[str]) -> None:
    """Writes what has changed, notes what has not. Raises OurError where the database could not."""
    db = one.desk.db
    if still:
        await db.write(lambda conn, _: [tasks.touch(conn, still, one.now)], None)
    for start in range(0, len(moved), PACE):
        some = moved[start : start + PACE]
        writes: list[asyncio.Future[books.Moved]] = [
            db.write(books.advance, books.Move(request_id=job.request_id, step=tasks.Step(job, task, one.now)))
            for job, task in some
        ]
        results = await asyncio.gather(*writes, return_exceptions=True)
        for (job, task), result in zip(some, results, strict=True):
            if isinstance(result, books.Moved) and result.won and task.done:
                _told(one, job, task, result.refunded)
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            raise failed


def _told(one: _Round, job: Job, task: Task, refunded: int) -> None:
    late = task.failed and task.fail_reason.startswith(LATE.partition("{")[0])
    outcome = "success" if not task.failed else "timeout" if late else "failure"
    metrics.tasks(one.name, outcome, refunded=refunded)
    log.logger().info(
        "task_finished",
        request_id=job.request_id,
        task=task.task_id,
        action=task.action,
        channel=one.name,
        outcome=outcome,
        seconds=one.now - job.created_at,
        refunded=refunded,
    )
