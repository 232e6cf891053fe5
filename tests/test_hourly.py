"""The dashboard's hourly sums, on every engine: each row of the log counted once, whatever was there before."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from newapi_proxy.daemon import tidy
from newapi_proxy.store import hourly, logs
from newapi_proxy.store.db import Database
from newapi_proxy.store.schema import logs as log_table
from newapi_proxy.store.schema import options, quota_data, users

HOUR = 1_900_000_800  # a whole one
Sums = dict[tuple[str, str, int], tuple[int, int, int]]


def entry(at: int, *, model: str = "m", quota: int = 10, username: str = "ada", **more: int) -> logs.Entry:
    """A row of the log with 7 tokens."""
    named = {"model_name": model, "quota": quota, "username": username, **more}
    return logs.Entry(user_id=1, created_at=at, prompt_tokens=5, completion_tokens=2, **named)


def sums(conn: Connection) -> Sums:
    """Requests, units and tokens per account, model and hour."""
    return {
        (row.username, row.model_name, row.created_at): (row.count, row.quota, row.token_used)
        for row in conn.execute(select(quota_data))
    }


def gather(conn: Connection) -> None:
    """Counts all that is there."""
    while hourly.gather(conn, [hourly.newest(conn)]) == [True]:
        pass


def test_each_row_once(conn: Connection) -> None:
    """Rows go to their hour and model, once, in as many rounds as there are; refunds and top-ups are none of them."""
    hourly.begin(conn)
    logs.add(conn, [entry(HOUR), entry(HOUR + 3599, quota=5), entry(HOUR + 3600), entry(HOUR, model="other")])
    logs.add(conn, [entry(HOUR, type=logs.REFUND), entry(HOUR, type=logs.TOP_UP)])
    for _ in range(3):
        gather(conn)
    assert sums(conn) == {
        ("ada", "m", HOUR): (2, 15, 14),
        ("ada", "m", HOUR + 3600): (1, 10, 7),
        ("ada", "other", HOUR): (1, 10, 7),
    }
    logs.add(conn, [entry(HOUR, quota=1)])
    gather(conn)
    assert sums(conn)["ada", "m", HOUR] == (3, 16, 21)


def test_steps(conn: Connection) -> None:
    """One transaction counts so many rows; the rest comes with the next ones."""
    hourly.begin(conn)
    logs.add(conn, [entry(HOUR, quota=1) for _ in range(hourly.STEP + 1)])
    end = hourly.newest(conn)
    assert hourly.gather(conn, [end]) == [True]
    assert sums(conn)["ada", "m", HOUR][0] == hourly.STEP
    assert hourly.gather(conn, [end]) == [False]
    assert sums(conn)["ada", "m", HOUR][0] == hourly.STEP + 1


def test_what_was_there(conn: Connection) -> None:
    """Rows from before are New API's, which has counted them; its sums go on, NULL in them too, one of twins only."""
    logs.add(conn, [entry(HOUR, quota=1000)])
    hourly.begin(conn)
    twin = {"user_id": 1, "username": "ada", "model_name": "m", "created_at": HOUR, "count": 4, "quota": 1000}
    conn.execute(insert(quota_data), [{**twin, "token_used": None}, {**twin, "token_used": None}])
    logs.add(conn, [entry(HOUR)])
    gather(conn)
    found = sorted((row.count, row.quota, row.token_used) for row in conn.execute(select(quota_data)))
    assert found[1] == (5, 1010, 7)
    assert found[0][:2] == (4, 1000)


def test_a_name_that_the_row_lacks(conn: Connection) -> None:
    """A row without its account's name gets the name of now; a name too long for the table is cut."""
    hourly.begin(conn)
    conn.execute(insert(users).values(id=1, username="eve", password="!"))
    logs.add(conn, [entry(HOUR, username=""), entry(HOUR, model="x" * 90)])
    gather(conn)
    assert set(sums(conn)) == {("eve", "m", HOUR), ("ada", "x" * 64, HOUR)}


def test_a_log_that_was_emptied(conn: Connection) -> None:
    """Where the numbers begin anew, so does the counting."""
    logs.add(conn, [entry(HOUR) for _ in range(5)])
    hourly.begin(conn)
    conn.execute(update(hourly.MARKS).where(hourly.MARKS.c.name == hourly.NAME).values(value=1_000_000_000))
    conn.execute(delete(log_table))
    logs.add(conn, [entry(HOUR)])
    gather(conn)
    assert sums(conn) == {("ada", "m", HOUR): (1, 10, 7)}


def test_switched_off(conn: Connection) -> None:
    """New API's option leaves rows out for good."""
    hourly.begin(conn)
    conn.execute(insert(options).values(key="DataExportEnabled", value="false"))
    logs.add(conn, [entry(HOUR)])
    gather(conn)
    conn.execute(update(options).values(value="true"))
    logs.add(conn, [entry(HOUR, quota=3)])
    gather(conn)
    assert sums(conn) == {("ada", "m", HOUR): (1, 3, 7)}


@pytest.mark.parametrize("rows", [1, hourly.STEP + 3])
async def test_a_round(tmp_path: Path, rows: int) -> None:
    """The daemon's round counts all that is there."""
    database = await Database.open("sqlite:///newapi.db", tmp_path)
    await database.write(lambda conn, items: [logs.add(conn, one) for one in items], [entry(HOUR, quota=1)] * rows)
    newest = await tidy.one_round(database, HOUR)
    assert newest == rows
    assert await database.read(sums) == {("ada", "m", HOUR): (rows, rows, 7 * rows)}
    await database.close()
