"""The sums per account, model and hour that New API's dashboard draws, kept up from the log: each row counted once.

A request pays nothing for it: how far the log is counted is a number beside the sums, moved in the same transaction,
so neither a crash nor two processes count a row twice or never. Sources: tasks-and-accounts §9.3, relay-and-billing
§5.13. Refunds are not taken off, as there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, String, Table, delete, func, insert, select, update
from sqlalchemy import text as sql

from newapi_proxy.store import options
from newapi_proxy.store.logs import CONSUME
from newapi_proxy.store.row import number, words
from newapi_proxy.store.schema import OWN, logs, quota_data, users

STEP: Final = 1000  # rows of the log that are counted in one transaction
NAME: Final = "quota_data"
MARKS: Final = Table(  # how far what is done in steps has come
    "proxy_marks", OWN, Column("name", String(64), primary_key=True), Column("value", BigInteger(), nullable=False)
)
_NAMES: Final = 64  # characters of a name in the table
_HOUR: Final = logs.c.created_at - logs.c.created_at % sql("3600")
_Key = tuple[int, str, str, int]


def newest(conn: Connection) -> int:
    """The number of the log's last row."""
    return number(conn.execute(select(func.max(logs.c.id))).scalar())


def begin(conn: Connection) -> None:
    """Leaves out what is in the log already: whoever wrote it has counted it."""
    conn.execute(delete(MARKS).where(MARKS.c.name == NAME))
    conn.execute(insert(MARKS).values(name=NAME, value=newest(conn)))


def gather(conn: Connection, ends: Sequence[int]) -> list[bool]:
    """Counts the next rows of the log up to the given number; per number whether there may be more before it."""
    return [_step(conn, end) for end in ends]


def _step(conn: Connection, end: int) -> bool:
    mark = conn.execute(select(MARKS.c.value).where(MARKS.c.name == NAME).with_for_update()).scalar()
    if mark is None:
        begin(conn)
        return False
    since = number(mark)
    if since > newest(conn):
        since = 0  # the log was emptied, and its numbers begin anew
    rows = select(logs.c.id).where(logs.c.id > since, logs.c.id <= end).order_by(logs.c.id).limit(STEP).subquery()
    until = conn.execute(select(func.max(rows.c.id))).scalar()
    if until is None:
        return False  # nothing is written where nothing has come
    if options.flag(conn, "DataExportEnabled", True):
        for key, sums in _sums(conn, since, until).items():
            _add(conn, key, sums)
    conn.execute(update(MARKS).where(MARKS.c.name == NAME).values(value=until))
    return bool(until < end)


def _sums(conn: Connection, since: int, until: int) -> dict[_Key, list[int]]:
    """Requests, units and tokens of the rows after `since` up to `until`."""
    name = func.coalesce(func.nullif(logs.c.username, sql("''")), users.c.username)
    asked = (
        select(
            logs.c.user_id,
            name.label("username"),
            logs.c.model_name,
            _HOUR.label("hour"),
            func.count(logs.c.id).label("count"),
            func.sum(logs.c.quota).label("quota"),
            func.sum(logs.c.prompt_tokens + logs.c.completion_tokens).label("tokens"),
        )
        .select_from(logs.outerjoin(users, users.c.id == logs.c.user_id))
        .where(logs.c.id > since, logs.c.id <= until, logs.c.type == CONSUME)
        .group_by(logs.c.user_id, name, logs.c.model_name, _HOUR)
    )
    found: dict[_Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in conn.execute(asked):
        key = (number(row.user_id), words(row.username)[:_NAMES], words(row.model_name)[:_NAMES], number(row.hour))
        for place, value in enumerate((row.count, row.quota, row.tokens)):
            found[key][place] += number(value)
    return found


def _add(conn: Connection, key: _Key, sums: Sequence[int]) -> None:
    user, name, model, hour = key
    count, quota, tokens = sums
    table = quota_data.c
    here = (table.created_at == hour, table.model_name == model, table.username == name, table.user_id == user)
    id = conn.execute(select(func.min(table.id)).where(*here)).scalar()
    if id is None:
        known = {"user_id": user, "username": name, "model_name": model, "created_at": hour}
        conn.execute(insert(quota_data).values(**known, count=count, quota=quota, token_used=tokens))
        return
    more = {
        "count": func.coalesce(table.count, 0) + count,
        "quota": func.coalesce(table.quota, 0) + quota,
        "token_used": func.coalesce(table.token_used, 0) + tokens,
    }
    conn.execute(update(quota_data).where(table.id == id).values(more))
