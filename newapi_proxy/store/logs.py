"""The usage log that New API's pages and reports read: one row per charge, top-up or refund.

Source: relay-and-billing 5.13 and 7.3. The ledger is the truth about money; these rows tell people about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, and_, case, func, select, true
from sqlalchemy import text as sql

from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.rows import inserting
from newapi_proxy.store.schema import channels, logs

TOP_UP: Final = 1
CONSUME: Final = 2
MANAGE: Final = 3
REFUND: Final = 6


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `logs`; the fields are its columns.

    `created_at` unix seconds, `quota` units, `use_time` whole seconds, `other` JSON text with model_ratio, group_ratio,
    completion_ratio, model_price (-1: none), frt (ms to the first chunk) and the like.
    """

    user_id: int
    created_at: int
    type: int = CONSUME
    content: str = ""
    username: str = ""
    token_name: str = ""
    model_name: str = ""
    quota: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    use_time: int = 0
    is_stream: bool = False
    channel_id: int = 0
    channel_name: str = ""
    token_id: int = 0
    group: str = ""
    ip: str = ""
    request_id: str = ""
    upstream_request_id: str = ""
    other: str = ""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What one token spent on one model through one channel in a quarter of an hour that begins at `at`."""

    token: str
    model: str
    channel: str
    at: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    quota: int


_QUARTER: Final = "900"  # seconds: every time zone's days begin on one. In the statement's text, or PostgreSQL would
# not see that what is selected is what is grouped by
_KINDS: Final[dict[Any, Callable[[Any], Any]]] = {int: number, str: words, bool: truth}
_READERS: Final = {field.name: _KINDS[field.type] for field in msgspec.structs.fields(Entry)}
_LISTED: Final = (
    "created_at", "request_id", "token_name", "type", "model_name", "prompt_tokens", "completion_tokens", "quota",
)  # fmt: skip
_ADD: Final = inserting(logs, *Entry.__struct_fields__)


def add(conn: Connection, entries: Sequence[Entry]) -> None:
    """Writes the rows as they are."""
    _ADD.run(conn, [msgspec.structs.astuple(entry) for entry in entries])


def newest(conn: Connection, token_id: int, most: int) -> list[Entry]:
    """A key's last `most` rows of every type, the oldest first; NULL reads as nothing."""
    return page(conn, (token_id,), (0, most))[::-1]


def page(conn: Connection, token_ids: Sequence[int], span: tuple[int, int]) -> list[Entry]:
    """Rows of every type of these keys, the newest first; `span`: how many are passed over, and how many are told."""
    asked = select(logs).where(logs.c.token_id.in_(token_ids)).order_by(logs.c.id.desc())
    return [_read(row) for row in conn.execute(asked.offset(span[0]).limit(span[1])).mappings()]


def between(conn: Connection, token_ids: Sequence[int], since: int, until: int, most: int) -> list[Entry]:
    """The last `most` charges and refunds of these keys from `since` to before `until`, the oldest first; of each what
    a list of charges tells (`_LISTED`), as there may be many."""
    mine = logs.c.token_id.in_(token_ids)
    when = and_(logs.c.type.in_((CONSUME, REFUND)), logs.c.created_at >= since, logs.c.created_at < until)
    asked = select(*(logs.c[name] for name in _LISTED)).where(mine, when).order_by(logs.c.id.desc()).limit(most)
    readers = [(name, _READERS[name]) for name in _LISTED]
    found = [
        Entry(user_id=0, **{name: read(value) for (name, read), value in zip(readers, row, strict=True)})
        for row in conn.execute(asked)
    ]
    return found[::-1]


def _read(row: RowMapping) -> Entry:
    return Entry(**{name: read(row[name]) for name, read in _READERS.items()})


def spent(conn: Connection, since: int, until: int, token_ids: Sequence[int] | None = None) -> list[Spent]:
    """Charges less refunds from `since` to before `until` (unix seconds), of everybody or of these keys."""
    mine = true() if token_ids is None else logs.c.token_id.in_(token_ids)
    begin = logs.c.created_at - logs.c.created_at % sql(_QUARTER)
    charged = logs.c.type == CONSUME
    channel = func.coalesce(channels.c.name, logs.c.channel_name, "")
    asked = (
        select(
            logs.c.token_name.label("token"),
            logs.c.model_name.label("model"),
            channel.label("channel"),
            begin.label("at"),
            func.sum(case((charged, 1), else_=0)).label("requests"),
            func.sum(logs.c.prompt_tokens).label("prompt_tokens"),
            func.sum(logs.c.completion_tokens).label("completion_tokens"),
            func.sum(case((charged, logs.c.quota), else_=-logs.c.quota)).label("quota"),
        )
        .select_from(logs.outerjoin(channels, channels.c.id == logs.c.channel_id))
        .where(logs.c.type.in_((CONSUME, REFUND)), logs.c.created_at >= since, logs.c.created_at < until, mine)
        .group_by(logs.c.token_name, logs.c.model_name, channel, begin)
    )
    return [
        Spent(
            token=words(row.token),
            model=words(row.model),
            channel=words(row.channel),
            at=number(row.at),
            requests=number(row.requests),
            prompt_tokens=number(row.prompt_tokens),
            completion_tokens=number(row.completion_tokens),
            quota=number(row.quota),
        )
        for row in conn.execute(asked)
    ]


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one token through one channel within a step, the last of them at `at` (unix seconds)."""

    at: int
    token_id: int
    group: str
    channel_id: int
    requests: int
    tokens: int


def past(conn: Connection, since: int, step: int) -> list[Past]:
    """What was charged since then, added up by steps of so many seconds, the oldest first."""
    begin = logs.c.created_at - logs.c.created_at % step
    whose = (logs.c.token_id, logs.c.group, logs.c.channel_id)
    used = func.coalesce(logs.c.prompt_tokens, 0) + func.coalesce(logs.c.completion_tokens, 0)
    last = func.max(logs.c.created_at)
    asked = (
        select(*whose, last.label("last"), func.count().label("requests"), func.sum(used).label("tokens"))
        .where(logs.c.type == CONSUME, logs.c.created_at >= since)
        .group_by(*whose, begin)
        .order_by(last)
    )
    return [
        Past(
            at=number(row.last),
            token_id=number(row.token_id),
            group=words(row.group),
            channel_id=number(row.channel_id),
            requests=number(row.requests),
            tokens=number(row.tokens),
        )
        for row in conn.execute(asked)
    ]
