"""Tasks: rows of `midjourneys` and `tasks` as New API's pages read them, and what we keep beside each.

Functions of a connection. A change is a compare-and-set on our own row, so of several daemons that see the same news
one writes it. Rows that New API made are read for their owners and never changed, but for those that are taken over
(`adopting`). Source: tasks-and-accounts 1.12, 2.5.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    RowMapping,
    Select,
    String,
    Table,
    and_,
    func,
    select,
    text,
    update,
)

from newapi_proxy.ir.task import WHOLE, Shelf, Task
from newapi_proxy.store.row import made, number, words
from newapi_proxy.store.schema import OWN, midjourneys, tasks
from newapi_proxy.wire import tree

TABLE: Final = Table(
    "proxy_tasks",
    OWN,
    # What a task needs beside its inherited row: the submission that paid for it, whose it is, how far polling is.
    Column("request_id", String(128), primary_key=True),
    Column("shelf", String(16), nullable=False),
    Column("row_id", BigInteger, nullable=False, index=True),
    Column("token_id", BigInteger),
    Column("user_id", BigInteger),
    Column("channel_id", BigInteger, nullable=False),
    Column("key", String(16)),
    Column("mode", String(32)),
    Column("created_at", BigInteger, nullable=False),
    Column("polled_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("open", Integer, nullable=False),
)
_UNFINISHED: Final = TABLE.c.open == text("1")
Index(
    "idx_proxy_tasks_open",
    TABLE.c.open,
    TABLE.c.channel_id,
    TABLE.c.polled_at,
    sqlite_where=_UNFINISHED,
)

AT_ONCE: Final = 500  # ids in one statement
_SAME: Final = ("user_id", "channel_id", "action", "status", "progress", "fail_reason", "quota", "properties")
_TIMES: Final = ("submit_time", "start_time", "finish_time")
_PICTURES: Final = ("code", "prompt", "prompt_en", "description", "state", "image_url", "video_url", "video_urls")
_COLUMNS: Final[Mapping[Shelf, tuple[Table, Mapping[str, str]]]] = {  # field → column
    "midjourneys": (
        midjourneys,
        {**{name: name for name in (*_SAME, *_TIMES, *_PICTURES, "buttons")}, "task_id": "mj_id"},
    ),
    "tasks": (tasks, {name: name for name in (*_SAME, *_TIMES, "task_id", "group", "data")}),
}
_FIXED: Final = frozenset({"user_id", "channel_id", "task_id", "group", "action", "submit_time", "quota"})
_NUMBERS: Final = frozenset({"user_id", "channel_id", "code", "quota", *_TIMES})
_JSON: Final = frozenset({"properties", "data"})  # of the shared table; "" is none


class Owner(msgspec.Struct, frozen=True):
    """Whose tasks: a user's, or one key's where all keys of the file have the same user. `token_id` 0: any of them."""

    user_id: int
    token_id: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A task with what we keep beside it. `key` tells which of the channel's keys has it; times are unix seconds."""

    request_id: str
    shelf: Shelf
    token_id: int
    mode: str = ""
    key: str = ""
    created_at: int = 0
    polled_at: int = 0
    version: int = 0
    open: bool = True
    task: Task


class Step(msgspec.Struct, frozen=True):
    """A task's change: the job as it was read, the task as it shall be. `at` unix seconds."""

    job: Job
    task: Task
    at: int


def add(conn: Connection, job: Job, platform: str) -> int:
    """Inserts a new task; its row's id. `platform`: the word for it in the table that several share."""
    table, names = _COLUMNS[job.shelf]
    values = {column: _stored(table, column, getattr(job.task, field)) for field, column in names.items()}
    if job.shelf == "tasks":
        values |= {"platform": platform, "created_at": job.created_at, "updated_at": job.created_at}
    else:
        values |= {"token_id": job.token_id, "billing_channel_id": job.task.channel_id}
        values["mj_id"] = values["mj_id"] or None
    row_id = made(conn, table.insert().values(**values))
    conn.execute(
        TABLE.insert().values(
            request_id=job.request_id,
            shelf=job.shelf,
            row_id=row_id,
            token_id=job.token_id,
            user_id=job.task.user_id,
            channel_id=job.task.channel_id,
            key=job.key,
            mode=job.mode,
            created_at=job.created_at,
            polled_at=0,
            version=0,
            open=int(not job.task.done),
        )
    )
    return row_id


def _stored(table: Table, column: str, value: Any) -> Any:
    """The value as the column takes it: upstreams and clients write what they like, and it must not cost the row."""
    if not isinstance(value, str):
        return value
    if not value and table is tasks and column in _JSON:
        return None
    return value.replace("\0", "\ufffd")[: getattr(table.c[column].type, "length", None)]


def own(conn: Connection, shelf: Shelf, owner: Owner, ids: Collection[str]) -> list[Job]:
    """The owner's tasks with these upstream ids, in the order of their rows; ids that are repeated count once."""
    table, names = _COLUMNS[shelf]
    found: list[Job] = []
    wanted = [one for one in dict.fromkeys(ids) if one]
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        asked = _whose(_asked(shelf), table, owner).where(table.c[names["task_id"]].in_(some))
        found += [_job(shelf, row) for row in conn.execute(asked).mappings()]
    return sorted(found, key=lambda job: job.task.id)


def latest(conn: Connection, shelf: Shelf, owner: Owner, most: int) -> list[Job]:
    """The owner's last tasks, newest first."""
    table, _ = _COLUMNS[shelf]
    asked = _whose(_asked(shelf), table, owner).order_by(table.c.id.desc()).limit(most)
    return [_job(shelf, row) for row in conn.execute(asked).mappings()]


def anybody(conn: Connection, shelf: Shelf, task_id: str) -> Job | None:
    """The first task with this upstream id, whoever's."""
    table, names = _COLUMNS[shelf]
    asked = _asked(shelf).where(table.c[names["task_id"]] == task_id).order_by(table.c.id).limit(1)
    row = conn.execute(asked).mappings().first() if task_id else None
    return None if row is None else _job(shelf, row)


def foreign(conn: Connection, shelf: Shelf, channel_id: int, task_id: str, owner: Owner) -> bool:
    """Whether somebody else has a task with this id on the channel."""
    table, names = _COLUMNS[shelf]
    asked = select(func.count()).where(table.c[names["task_id"]] == task_id, table.c.channel_id == channel_id)
    every = number(conn.execute(asked).scalar())
    return every > sum(job.task.channel_id == channel_id for job in own(conn, shelf, owner, [task_id]))


def shelves() -> tuple[Shelf, ...]:
    """Where tasks are kept."""
    return tuple(_COLUMNS)


def waiting(conn: Connection) -> dict[int, int]:
    """How many tasks are open, by channel."""
    asked = select(TABLE.c.channel_id, func.count()).where(TABLE.c.open == 1)
    return {number(id): count for id, count in conn.execute(asked.group_by(TABLE.c.channel_id))}


def due(conn: Connection, channel_id: int, before: int, most: int) -> list[Job]:
    """Open tasks of a channel that were not polled since `before` (unix seconds), those that waited longest first."""
    found: list[Job] = []
    for shelf in _COLUMNS:
        asked = (
            _asked(shelf, outer=False)
            .where(TABLE.c.open == 1, TABLE.c.channel_id == channel_id, TABLE.c.polled_at <= before)
            .order_by(TABLE.c.polled_at, TABLE.c.row_id)
            .limit(most)
        )
        found += [_job(shelf, row) for row in conn.execute(asked).mappings()]
    return sorted(found, key=lambda job: (job.polled_at, job.task.id))[:most]


def touch(conn: Connection, ids: Sequence[str], at: int) -> int:
    """Notes that these submissions' tasks were asked after; how many there are."""
    count = 0
    for start in range(0, len(ids), AT_ONCE):
        some = TABLE.c.request_id.in_(ids[start : start + AT_ONCE])
        count += conn.execute(update(TABLE).where(some).values(polled_at=at)).rowcount
    return count


def advance(conn: Connection, step: Step) -> bool:
    """Writes a change, unless somebody else has changed the task since it was read; whether it was written.

    A task that New API has finished meanwhile is left to it.
    """
    job, task = step.job, step.task
    table, names = _COLUMNS[job.shelf]
    ours = and_(TABLE.c.request_id == job.request_id, TABLE.c.version == job.version, TABLE.c.open == 1)
    change = update(TABLE).where(ours)
    values = {"version": job.version + 1, "polled_at": step.at, "open": int(not task.done)}
    if conn.execute(change.values(**values)).rowcount != 1:
        return False
    changed = {
        column: _stored(table, column, getattr(task, field))
        for field, column in names.items()
        if field not in _FIXED and getattr(task, field) != getattr(job.task, field)
    }
    changed |= {"updated_at": step.at} if job.shelf == "tasks" else {names["progress"]: task.progress}
    unfinished = and_(table.c.id == task.id, func.coalesce(table.c.progress, "") != WHOLE)
    if conn.execute(update(table).where(unfinished).values(**changed)).rowcount == 1:
        return True
    conn.execute(update(TABLE).where(TABLE.c.request_id == job.request_id).values(open=0))
    return False


def listed(conn: Connection, shelf: Shelf, wanted: Mapping[str, str], most: int) -> list[Job]:
    """Tasks of everybody whose columns have these texts, newest first."""
    table, names = _COLUMNS[shelf]
    asked = _asked(shelf).order_by(table.c.id.desc()).limit(most)
    for field, value in wanted.items():
        asked = asked.where(table.c[names[field]] == value)
    return [_job(shelf, row) for row in conn.execute(asked).mappings()]


def paid_by(conn: Connection, request_id: str) -> Job | None:
    """The task of a submission."""
    for shelf in _COLUMNS:
        asked = _asked(shelf, outer=False).where(TABLE.c.request_id == request_id)
        row = conn.execute(asked).mappings().first()
        if row is not None:
            return _job(shelf, row)
    return None


_OURS: Final = ("request_id", "mode", "key", "created_at", "polled_at", "version", "open")


def _asked(shelf: Shelf, *, outer: bool = True) -> Select[Any]:
    """Both rows of each task; with `outer` also where there is only New API's."""
    table, names = _COLUMNS[shelf]
    columns: Iterable[Any] = [table.c.id, *(table.c[column].label(field) for field, column in names.items())]
    beside = [TABLE.c[name].label(f"our_{name}") for name in (*_OURS, "token_id")]
    joined = table.join(TABLE, and_(TABLE.c.shelf == shelf, TABLE.c.row_id == table.c.id), isouter=outer)
    return select(*columns, *beside).select_from(joined)


def _whose(asked: Select[Any], table: Table, owner: Owner) -> Select[Any]:
    asked = asked.where(table.c.user_id == owner.user_id)
    return asked.where(TABLE.c.token_id == owner.token_id) if owner.token_id else asked


def _job(shelf: Shelf, row: RowMapping) -> Job:
    _, names = _COLUMNS[shelf]
    values: dict[str, Any] = {field: number(row[field]) if field in _NUMBERS else _text(row[field]) for field in names}
    return Job(
        request_id=words(row["our_request_id"]),
        shelf=shelf,
        token_id=number(row["our_token_id"]),
        mode=words(row["our_mode"]),
        key=words(row["our_key"]),
        created_at=number(row["our_created_at"]),
        polled_at=number(row["our_polled_at"]),
        version=number(row["our_version"]),
        open=number(row["our_open"]) == 1,
        task=Task(id=row["id"], **values),
    )


def _text(value: Any) -> str:
    """Text as it is; some drivers hand a json column out decoded."""
    if isinstance(value, (dict, list)):
        return tree.dumps(value)
    return "" if value is None else str(value)
