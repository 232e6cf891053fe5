"""The promises about money and requests, at sizes that fit a test run; the full sizes are marked `soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability import allowance, busy, ceilings, departures, drawing, duplicates, kills, race, reloads, storm

SEED = 20_241


async def test_storm(tmp_path: Path) -> None:
    """After mixed load with faults and departures, every account adds up (O1 to O6)."""
    faults, summary = await storm.run(tmp_path, SEED, rate=150, seconds=4)
    assert not faults, summary


async def test_kills(tmp_path: Path) -> None:
    """Killed at random moments and started again, the daemon loses no charge and makes none twice (RF1)."""
    faults, summary = await kills.run(tmp_path, SEED, kills=5, rate=100)
    assert not faults, summary


async def test_race(tmp_path: Path) -> None:
    """Of 500 parallel calls on a balance for 50, exactly 50 are served (RF3)."""
    faults, summary = await race.run(tmp_path, SEED, calls=500)
    assert not faults, summary


async def test_budget(tmp_path: Path) -> None:
    """Of calls on a budget for 50, killed on the way, exactly 50 are charged and no more are served (RF3)."""
    faults, summary = await allowance.run(tmp_path, SEED, calls=400, kills=3)
    assert not faults, summary


async def test_duplicates(tmp_path: Path) -> None:
    """Of many copies under one idempotency key one is charged, and all see its bytes, over kills too (RF4)."""
    faults, summary = await duplicates.run(tmp_path, SEED, keys=24, copies=12, kills=3)
    assert not faults, summary


async def test_limits(tmp_path: Path) -> None:
    """A crowd that runs into every kind of limit gets above none, and leaves no slot in use (RF28, RF3)."""
    faults, summary = await ceilings.run(tmp_path, SEED, calls=1_000)
    assert not faults, summary


async def test_reloads(tmp_path: Path) -> None:
    """The file good, changed and broken in turn: no request fails or sees two configurations, nothing is left (RF5)."""
    faults, summary = await reloads.run(tmp_path, SEED, reloads=300, rate=100, growth=16.0)
    assert not faults, summary


async def test_departures(tmp_path: Path) -> None:
    """When a client leaves a stream, upstream's connection is closed within a second (RF17)."""
    faults, summary = await departures.run(tmp_path, SEED, clients=100, within=1.0)
    assert not faults, summary


async def test_tasks(tmp_path: Path) -> None:
    """Tasks that fail, are forgotten and told of in any order, with kills in between: each is paid back once or not."""
    faults, summary = await drawing.run(tmp_path, SEED, tasks=300, kills=3)
    assert not faults, summary


@pytest.mark.soak
async def test_tasks_at_length(tmp_path: Path) -> None:
    """The same with ten thousand tasks."""
    faults, summary = await drawing.run(tmp_path, SEED, tasks=10_000, kills=20)
    assert not faults, summary


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_kills_at_length(tmp_path: Path, seed: int) -> None:
    """RF1 in full: a thousand kills."""
    faults, summary = await kills.run(tmp_path, seed, kills=50, rate=200)
    assert not faults, summary


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_budget_at_length(tmp_path: Path, seed: int) -> None:
    """The same with more kills."""
    faults, summary = await allowance.run(tmp_path, seed, calls=1_000, kills=9)
    assert not faults, summary


@pytest.mark.soak
async def test_duplicates_at_length(tmp_path: Path) -> None:
    """RF4 in full: a hundred copies of a thousand requests."""
    faults, summary = await duplicates.run(tmp_path, SEED, keys=1_000, copies=100, kills=50)
    assert not faults, summary


@pytest.mark.soak
async def test_limits_at_length(tmp_path: Path) -> None:
    """RF28 in full: ten thousand calls, and every limit is reached exactly."""
    faults, summary = await ceilings.run(tmp_path, SEED, calls=10_000)
    assert not faults, summary


@pytest.mark.soak
async def test_reloads_at_length(tmp_path: Path) -> None:
    """RF5 in full: ten thousand reloads."""
    faults, summary = await reloads.run(tmp_path, SEED, reloads=10_000, rate=500, growth=1.0, filled=reloads.FILLED)
    assert not faults, summary


@pytest.mark.soak
async def test_departures_at_length(tmp_path: Path) -> None:
    """RF17 in full: ten thousand streams that their clients leave."""
    faults, summary = await departures.run(tmp_path, SEED, clients=10_000, within=1.0)
    assert not faults, summary


async def test_copies_and_reports_beside(tmp_path: Path) -> None:
    """Copies are made and reports read while the ledger is busy: nobody hears of a lock, every sum holds (RF20)."""
    faults, summary = await busy.run(tmp_path, rate=300, seconds=2, slowest=0.5)  # a shared machine's bound, not ours
    assert not faults, summary


@pytest.mark.soak
async def test_copies_and_reports_at_length(tmp_path: Path) -> None:
    """RF20 in full: a thousand settlements a second."""
    faults, summary = await busy.run(tmp_path, rate=1000, seconds=30)
    assert not faults, summary
