"""`newapi-proxy task`: Midjourney and Suno tasks as the database has them, and what was paid for them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from newapi_proxy.billing import records, refunds
from newapi_proxy.billing.charge import usd
from newapi_proxy.cli import output
from newapi_proxy.cli.database import failed, use
from newapi_proxy.store import channels, tasks, tokens
from newapi_proxy.store.tasks import Job

MOST: Final = 50
_FORMS: Final = ("table", "json", "csv")
_COLUMNS: Final = (
    "task", "action", "status", "progress", "submitted", "channel", "token", "quota", "refunded", "request",
)  # fmt: skip
_SHOWN: Final = (
    "prompt", "prompt_en", "description", "state", "fail_reason", "image_url", "video_url", "buttons", "properties",
    "data",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list` and `show ID`."""
    actions = parser.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="the last tasks, newest first")
    listed.add_argument("--status", metavar="STATUS", help="only these: SUCCESS, FAILURE, IN_PROGRESS …")
    listed.add_argument("--kind", metavar="ACTION", help="only these: IMAGINE, UPSCALE, MUSIC …")
    listed.add_argument("--limit", type=int, default=MOST, metavar="N")
    listed.add_argument("--format", choices=_FORMS, default="table")
    shown = actions.add_parser("show", help="all that is known of one task")
    shown.add_argument("id", metavar="ID", help="the task's id, or the X-Request-Id of its submission")
    shown.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """0; 1 where there is no such task or the database cannot be used."""
    work = _list if args.action == "list" else _show
    return use(args, lambda conn: work(conn, args), write=False)


class _Names(msgspec.Struct, frozen=True):
    """Ids in words that people use; an id where nobody has a name for it."""

    channels: Mapping[int, str]
    tokens: Mapping[int, str]


def _names(conn: Connection) -> _Names:
    return _Names(channels.named(conn), {row.id: row.name for row in tokens.everything(conn)})


def _list(conn: Connection, args: argparse.Namespace) -> int:
    if args.limit < 1:
        return failed("--limit must be above 0.")
    wanted = {name: text.upper() for name, text in (("status", args.status), ("action", args.kind)) if text}
    found = [job for shelf in tasks.shelves() for job in tasks.listed(conn, shelf, wanted, args.limit)]
    found.sort(key=_submitted, reverse=True)
    names = _names(conn)
    output.rows([_row(conn, job, names) for job in found[: args.limit]], _COLUMNS, args.format)
    return 0


def _show(conn: Connection, args: argparse.Namespace) -> int:
    found = [job for shelf in tasks.shelves() for job in tasks.listed(conn, shelf, {"task_id": args.id}, MOST)]
    paid = tasks.paid_by(conn, args.id)
    if paid is not None and all(job.request_id != paid.request_id for job in found):
        found.append(paid)
    if not found:
        return failed(f"There is no task {args.id}.")
    names = _names(conn)
    rows = [
        {**_row(conn, job, names), **_times(job), **{name: getattr(job.task, name) for name in _SHOWN}} for job in found
    ]
    if args.format == "json":
        output.json(rows)
        return 0
    for row in rows:
        for line in _lines(row):
            print(line)
    return 0


def _row(conn: Connection, job: Job, names: _Names) -> dict[str, Any]:
    task = job.task
    back = records.explain(conn, f"{refunds.MARK}{job.request_id}") if job.request_id else None
    return {
        "task": task.task_id,
        "action": task.action,
        "status": task.status,
        "progress": task.progress,
        "submitted": _moment(_submitted(job)),
        "channel": names.channels.get(task.channel_id) or task.channel_id,
        "token": names.tokens.get(job.token_id) or job.token_id,
        "quota": task.quota,
        "refunded": -back.charged if back is not None else 0,
        "request": job.request_id,
    }


def _submitted(job: Job) -> float:
    """Unix seconds; rows that New API made have its column only, in the unit of their table."""
    return job.created_at or job.task.submit_time / (1000 if job.task.submit_time > 10**11 else 1)


def _times(job: Job) -> dict[str, str]:
    scale = 1000 if job.task.submit_time > 10**11 else 1
    return {
        "started": _moment(job.task.start_time / scale),
        "finished": _moment(job.task.finish_time / scale),
        "polled": _moment(job.polled_at),
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).isoformat(timespec="seconds") if at else ""


def _lines(row: dict[str, Any]) -> Iterator[str]:
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value not in ("", 0, None):
            money = f" (${usd(value)})" if name in ("quota", "refunded") else ""
            yield f"{name:<{width}}  {value}{money}"
