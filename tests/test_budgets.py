"""Budgets: windows of the calendar, and what happens when one is used up."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from newapi_proxy.billing import audit, budgets, ledger, records
from newapi_proxy.billing.budgets import Every, Window, window
from newapi_proxy.config.model import Budget, Channel, Price, Token
from newapi_proxy.relay.house import House
from newapi_proxy.secret import Secret
from newapi_proxy.store import db
from newapi_proxy.surfaces.anthropic import MESSAGES
from tests.fakes import money
from tests.fakes.clock import Clock
from tests.fakes.crowd import Crowd
from tests.fakes.stage import Stage, stage

ZONES = sorted(available_timezones())
PRICE = 50  # units a call
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
CHANNELS = (Channel(name="a", type="openai", base_url="http://up", key=Secret("k"), models=("m", "free")),)


def utc(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("zone", "every", "at", "starts", "ends"),
    [
        ("UTC", "day", utc(2026, 2, 28, 23, 59, 59), utc(2026, 2, 28), utc(2026, 3, 1)),
        ("UTC", "week", utc(2026, 3, 1), utc(2026, 2, 23), utc(2026, 3, 2)),
        ("UTC", "month", utc(2024, 2, 29, 12), utc(2024, 2, 1), utc(2024, 3, 1)),
        ("UTC", "month", utc(2026, 12, 31, 12), utc(2026, 12, 1), utc(2027, 1, 1)),
        # 23 and 25 hours
        ("Europe/Berlin", "day", utc(2026, 3, 29, 1), utc(2026, 3, 28, 23), utc(2026, 3, 29, 22)),
        ("Europe/Berlin", "day", utc(2026, 10, 25, 1), utc(2026, 10, 24, 22), utc(2026, 10, 25, 23)),
        ("Asia/Kolkata", "month", utc(2026, 5, 31, 18, 30), utc(2026, 5, 31, 18, 30), utc(2026, 6, 30, 18, 30)),
        # midnight itself is skipped
        ("America/Sao_Paulo", "day", utc(2018, 11, 4, 3), utc(2018, 11, 4, 3), utc(2018, 11, 5, 2)),
        # a whole day is skipped
        ("Pacific/Apia", "day", utc(2011, 12, 30, 9, 59), utc(2011, 12, 29, 10), utc(2011, 12, 30, 10)),
        ("Pacific/Apia", "day", utc(2011, 12, 30, 10), utc(2011, 12, 30, 10), utc(2011, 12, 31, 10)),
        # the clock is put back over midnight, a minute after it
        ("America/St_Johns", "day", utc(2006, 10, 29, 2, 29), utc(2006, 10, 28, 2, 30), utc(2006, 10, 29, 2, 30)),
        ("America/St_Johns", "day", utc(2006, 10, 29, 3), utc(2006, 10, 29, 2, 30), utc(2006, 10, 30, 3, 30)),
    ],
)
def test_windows(zone: str, every: Every, at: int, starts: int, ends: int) -> None:
    """A window is a calendar's day, week or month, as long as the clocks of the place make it."""
    assert window(every, at, 7, ZoneInfo(zone)) == Window(every, starts, ends, 7)


@settings(max_examples=300)
@given(st.sampled_from(ZONES), st.sampled_from(["day", "week", "month"]), st.integers(utc(1950, 1, 1), utc(2040, 1, 1)))
def test_windows_follow_each_other(zone: str, every: Every, at: int) -> None:
    """In every zone, at every moment: one window, which begins where the last one ended, with its first local date."""
    place = ZoneInfo(zone)
    one = window(every, at, 1, place)
    assert one.starts <= at < one.ends
    assert window(every, one.starts, 1, place) == window(every, one.ends - 1, 1, place) == one
    assert window(every, one.ends, 1, place).starts == one.ends
    assert window(every, one.starts - 1, 1, place).ends == one.starts
    first, before = (datetime.fromtimestamp(one.starts + by, place).date() for by in (0, -1))
    assert before < first
    assert every != "day" or one.ends - one.starts <= 26 * 3600
    assert every != "month" or (first - timedelta(days=1)).month != first.month or first.day <= 2


def test_a_window_in_the_ledgers_words() -> None:
    """What a row says of its windows can be read back."""
    text = budgets.told((Window("day", 10, 20, 5), Window("month", 3, 30, 9)))
    assert text == "day:10,month:3,"
    assert budgets.read(text) == (Window("day", 10, 0, 0), Window("month", 3, 0, 0))
    assert budgets.read("") == ()


def test_a_charge_counts_where_nothing_was_held(conn: Connection) -> None:
    """A hold of nothing makes no counter; the charge that follows is counted all the same."""
    day = Window("day", 0, 10, 50)
    (one,) = money.people(conn, [(100, -1)])
    assert ledger.hold(conn, [money.hold("a", one, 0, windows=(day,))]) == [None]
    assert ledger.settle(conn, [money.settlement("a", one, 0, 7, (day,))]) == [7]
    assert budgets.used(conn, one.token_id, day) == 7
    assert audit.check(conn) == []


def test_no_charge_goes_beyond_a_budget(conn: Connection) -> None:
    """What is charged above a hold is taken as far as the narrowest window reaches, and the rest is a shortfall."""
    day, month = Window("day", 0, 10, 50), Window("month", 0, 99, 70)
    (one,) = money.people(conn, [(1000, -1)])
    assert ledger.hold(conn, [money.hold(id, one, 20, windows=(day, month)) for id in "abc"]) == [None, None, "day"]
    assert ledger.settle(conn, [money.settlement("a", one, 20, 100, (day, month))]) == [30]
    assert ledger.settle(conn, [money.settlement("b", one, 20, 5, (day, month))]) == [5]
    assert ledger.hold(conn, [money.hold("d", one, 16, windows=(day, month))]) == ["day"]
    later = Window("day", 10, 20, 99)
    answers = ledger.hold(conn, [money.hold(id, one, 30, windows=(later, month)) for id in "ef"])
    assert answers == [None, "month"]
    assert ledger.void(conn, [money.void("e", one, 30, (later, month))]) == [True]
    assert budgets.everything(conn) == {(1, "day", 0): 35, (1, "day", 10): 0, (1, "month", 0): 35}
    found = records.explain(conn, "a")
    assert found is not None
    assert (found.charged, found.shortfall) == (30, 70)
    assert audit.check(conn) == []


@pytest.mark.parametrize("together", [False, True])
def test_a_charge_above_a_hold_of_nothing(conn: Connection, together: bool) -> None:
    """Nothing was held, so nothing was counted yet: the charge is, and no more of it than the window has."""
    day, month = Window("day", 0, 10, 50), Window("month", 0, 99, 700)
    (one,) = money.people(conn, [(1000, -1)])
    assert ledger.hold(conn, [money.hold(id, one, 0, windows=(day, month)) for id in "ab"]) == [None, None]
    ends = [money.settlement(id, one, 0, units, (day, month)) for id, units in (("a", 20), ("b", 40))]
    batches = [ends] if together else [ends[:1], ends[1:]]
    assert [units for batch in batches for units in ledger.settle(conn, batch)] == [20, 30]
    assert budgets.everything(conn) == {(1, "day", 0): 50, (1, "month", 0): 50}
    assert audit.check(conn) == []


def test_a_file_of_an_earlier_version_gets_budgets(database: Path) -> None:
    """A ledger without the column is completed, and what it holds can be resolved."""
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        (one,) = money.people(conn, [(100, -1)])
        ledger.hold(conn, [money.hold("a", one, 20, "before")])
        for harm in ("ALTER TABLE ledger DROP COLUMN budgets", "DROP TABLE proxy_budgets"):
            conn.exec_driver_sql(harm)
        conn.exec_driver_sql("DELETE FROM proxy_upgrades WHERE name = 'budget_table'")
    assert db.upgrade(f"sqlite:///{database}", database.parent) == ["budget_table"]
    with db.connect(f"sqlite:///{database}", database.parent) as conn:
        assert ledger.void(conn, [money.void("a", one, 20)]) == [True]
        assert audit.check(conn) == []


def token(*allowances: Budget, quota: int | None = None) -> dict[str, Any]:
    return {
        "prices": {"m": Price(call=PRICE / 500_000), "free": Price(call=0)},
        "tokens": (Token(name="t", key=Secret("sk-t"), budget=allowances, quota=quota),),
    }


async def used(house: House) -> dict[str, int]:
    rows = await house.db.read(budgets.everything)
    return {f"{every} {starts}": units for (_, every, starts), units in rows.items()}


async def many(one: Stage, count: int, **body: Any) -> Counter[int]:
    sinks = await asyncio.gather(*(one.ask(**ASK | body) for _ in range(count)))
    return Counter(sink.status for sink in sinks)


async def test_five_hundred_for_fifty(tmp_path: Path) -> None:
    """Of 500 at once on a budget for exactly 50, exactly 50 are served, and nobody else reaches the provider."""
    crowd = Crowd()
    async with stage(
        tmp_path, CHANNELS, clock=Clock(), client=crowd, **token(Budget(amount=50 * PRICE, every="day"))
    ) as one:
        assert await many(one, 500) == {200: 50, 403: 450}
        assert crowd.calls.total() == 50


async def test_budgets_and_quota_stack(tmp_path: Path) -> None:
    """The narrowest of several budgets and the quota decides, and all of them move together."""
    clock = Clock(wall=utc(2026, 3, 30, 12))
    allowances = (Budget(amount=3 * PRICE, every="day"), Budget(amount=5 * PRICE, every="month"))
    async with stage(tmp_path, CHANNELS, clock=clock, client=Crowd(), **token(*allowances, quota=6 * PRICE)) as one:
        assert await many(one, 5) == {200: 3, 403: 2}
        clock.pass_(86_400)
        assert await many(one, 5) == {200: 2, 403: 3}
        clock.pass_(86_400)
        assert await many(one, 5) == {200: 1, 403: 4}
        month, next_month = utc(2026, 3, 1), utc(2026, 4, 1)
        assert await used(one.house) == {
            f"day {utc(2026, 3, 30)}": 150,
            f"day {utc(2026, 3, 31)}": 100,
            f"day {utc(2026, 4, 1)}": 50,
            f"month {month}": 250,
            f"month {next_month}": 50,
        }


async def test_the_refusal_says_when_it_is_over(tmp_path: Path) -> None:
    """403 with the contract's code, the moment of the next window in words and in seconds; then it serves again."""
    clock = Clock(wall=utc(2026, 3, 28, 22, 59, 30))
    config = token(Budget(amount=PRICE, every="day"))
    async with stage(tmp_path, CHANNELS, clock=clock, client=Crowd(), timezone="Europe/Berlin", **config) as one:
        assert (await one.ask(**ASK)).status == 200
        sink = await one.ask(**ASK)
        assert (sink.status, sink.headers["retry-after"], sink.headers["x-should-retry"]) == (403, "30", "false")
        error = orjson.loads(sink.body)["error"]
        assert error["code"] == "pre_consume_token_quota_failed"
        assert "2026-03-28T23:00:00Z" in error["message"]
        anthropic = await one.ask(MESSAGES, **ASK, max_tokens=5)
        assert (anthropic.status, orjson.loads(anthropic.body)["error"]["type"]) == (403, "permission_error")
        clock.pass_(30)
        assert (await one.ask(**ASK)).status == 200


async def test_what_is_free_needs_no_budget(tmp_path: Path) -> None:
    """A model that costs nothing stays usable when balance and budget are empty."""
    async with stage(
        tmp_path, CHANNELS, clock=Clock(), client=Crowd(), **token(Budget(amount=PRICE, every="week"), quota=PRICE)
    ) as one:
        assert await many(one, 2) == {200: 1, 403: 1}
        assert await many(one, 3, model="free") == {200: 3}


async def test_a_hold_belongs_to_the_window_in_which_it_was_made(tmp_path: Path) -> None:
    """A request that is running when the day ends is charged to the day in which it began, whole or given back."""
    clock, crowd = Clock(wall=utc(2026, 5, 1, 23, 59, 59)), Crowd(held=True)
    async with stage(
        tmp_path, CHANNELS, clock=clock, client=crowd, **token(Budget(amount=2 * PRICE, every="day"))
    ) as one:
        running = [asyncio.ensure_future(one.ask(**ASK)) for _ in range(3)]
        await crowd.until(2)
        clock.pass_(1)
        running += [asyncio.ensure_future(one.ask(**ASK)) for _ in range(2)]
        await crowd.until(4)
        crowd.broken = ("k",)
        clock.jump(-3600)  # the clock is put back while they run
        crowd.answer()
        assert sorted([sink.status for sink in await asyncio.gather(*running)]) == [403, 503, 503, 503, 503]
        days = [utc(2026, 5, 1), utc(2026, 5, 2)]
        assert await used(one.house) == {f"day {days[0]}": 0, f"day {days[1]}": 0}
        crowd.broken = ()
        assert await many(one, 3) == {200: 2, 403: 1}
        assert await used(one.house) == {f"day {days[0]}": 100, f"day {days[1]}": 0}
