"""Rows of past requests: which go, which stay, in what steps, and that the sums hold afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, update

from newapi_proxy.billing import audit, budgets, forgetting, ledger
from newapi_proxy.daemon.retention import sweep
from newapi_proxy.store import db, retention
from newapi_proxy.store.db import Database
from newapi_proxy.store.schema import ledger as ledger_table
from newapi_proxy.store.schema import logs, proxy_budgets
from tests.fakes import money

DAY = 86400
NOW = 2_000_000_000


def kept_logs(conn: Connection) -> list[tuple[int, int]]:
    return [(row.created_at, row.type) for row in conn.execute(select(logs.c.created_at, logs.c.type))]


async def opened(url: str, folder: Path, fill: Callable[[Connection], None]) -> Database:
    """The database of any engine, filled first."""

    def write(conn: Connection, items: list[int]) -> list[int]:
        fill(conn)
        return items

    made = await Database.open(url, folder)
    await made.write(write, 0)
    return made


async def test_what_traffic_left_goes_and_what_people_did_stays(database_url: str, tmp_path: Path) -> None:
    """Charges, errors and refunds that are too old; top-ups and settings of any age stay, and so does what is young."""

    def fill(conn: Connection) -> None:
        rows = [{"created_at": NOW - 100 * DAY + at, "type": 1 + at % 6} for at in range(600)]
        conn.execute(insert(logs), [*rows, {"created_at": NOW, "type": 2}])

    made = await opened(database_url, tmp_path, fill)
    assert await sweep(made, NOW, 90 * DAY) == (300, 0)
    left = await made.read(kept_logs)
    assert {kind for at, kind in left if at < NOW - 90 * DAY} == {1, 3, 4}
    assert (len(left), left[-1]) == (301, (NOW, 2))
    assert await sweep(made, NOW, 90 * DAY) == (0, 0)
    await made.close()


async def test_the_ledger_adds_up_after_rows_are_forgotten(database_url: str, tmp_path: Path) -> None:
    """A key's grants and a budget's windows are lowered with the rows; open holds and what is younger stay."""

    def fill(conn: Connection) -> None:
        (one,) = money.people(conn, [(1000, 1000)])
        ledger.hold(conn, [money.hold(name, one, 10) for name in ("old", "void", "open", "young")])
        ledger.settle(conn, [money.settlement("old", one, 10, 7), money.settlement("young", one, 10, 3)])
        ledger.void(conn, [money.void("void", one, 10)])
        rows, named = update(ledger_table), ledger_table.c.request_id
        conn.execute(rows.where(named.in_(("old", "void"))).values(resolved_at=NOW - 100 * DAY))
        conn.execute(rows.where(named == "young").values(resolved_at=NOW - DAY))
        conn.execute(rows.where(named == "old").values(budgets="day:1000,"))
        conn.execute(insert(proxy_budgets).values(token_id=one.token_id, every="day", starts=1000, used=7))
        assert audit.check(conn) == []

    made = await opened(database_url, tmp_path, fill)
    assert (await sweep(made, NOW, 7 * DAY))[1] == 2
    ids = await made.read(lambda conn: set(conn.execute(select(ledger_table.c.request_id)).scalars()))
    assert ids == {"open", "young"}
    assert set((await made.read(budgets.everything)).values()) == {0}
    assert await made.read(audit.check) == []
    await made.close()


async def test_the_ledger_is_kept_as_long_as_a_budget_may_need_it(database: Path) -> None:
    """However short the retention, a month's rows are there."""

    def fill(conn: Connection) -> None:
        (one,) = money.people(conn, [(1000, 1000)])
        ledger.hold(conn, [money.hold("a", one, 10)])
        ledger.settle(conn, [money.settlement("a", one, 10, 7)])
        conn.execute(update(ledger_table).values(resolved_at=NOW - forgetting.KEPT + 1))

    made = await opened(f"sqlite:///{database}", database.parent, fill)
    assert (await sweep(made, NOW, DAY))[1] == 0
    await made.close()


@pytest.mark.parametrize(
    ("size", "seconds", "following"), [(50, 0.0015, 100), (100, 0.05, 10), (100, 0.006, 50), (150, 0.0, 200)]
)
def test_steps_are_as_long_as_they_should_be(size: int, seconds: float, following: int) -> None:
    """A step that took too long halves the next, a quick one doubles it, within bounds."""
    assert retention.paced(size, seconds) == following


def test_a_step_looks_at_no_more_rows_than_it_says(database: Path) -> None:
    """The writer is held for one step's rows, however many are old."""
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        conn.execute(insert(logs), [{"created_at": 1, "type": 2}] * 500)
        (step,) = retention.prune(conn, [retention.Step(NOW, size=40)])
        assert (step.deleted, step.done, len(kept_logs(conn))) == (40, False, 460)
