"""Several daemons on one database and one Redis behave as one, whatever dies; the full sizes are marked `soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import servers
from tests.reliability import drawing, several

SEED = 20_242


@pytest.mark.parametrize("alone", [False, True], ids=["redis", "database"])
async def test_a_limit_of_all(
    tmp_path: Path, postgres: servers.Postgres, redis_server: servers.Redis, alone: bool
) -> None:
    """A limit of 100 requests a minute admits exactly 100 through four daemons behind one address."""
    faults, summary = await several.limit(tmp_path, postgres, redis_server, SEED, calls=200, alone=alone)
    assert not faults, summary


async def test_kills_of_one_of_four(tmp_path: Path, postgres: servers.Postgres, redis_server: servers.Redis) -> None:
    """One of four daemons dies every second under load, and every account adds up (O1 to O6)."""
    faults, summary = await several.killed(tmp_path, postgres, redis_server, SEED, seconds=4, rate=50)
    assert not faults, summary


async def test_outages(tmp_path: Path, postgres: servers.Postgres, redis_server: servers.Redis) -> None:
    """Database restarted and crashed, Redis emptied, network silent: nothing lost or doubled, service by itself."""
    faults, summary = await several.outages(tmp_path, postgres, redis_server, SEED, cut=2, rate=50)
    assert not faults, summary


async def test_tasks_of_three(tmp_path: Path, postgres: servers.Postgres) -> None:
    """Three daemons poll the same tasks and are killed in turn: each failure is paid back once."""
    faults, summary = await drawing.run(tmp_path, SEED, tasks=200, kills=2, daemons=3, database=postgres)
    assert not faults, summary


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
async def test_tasks_of_three_at_length(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> None:
    """Ten thousand tasks, three daemons, twenty kills, on both servers."""
    database = request.getfixturevalue(engine)
    faults, summary = await drawing.run(tmp_path, SEED, tasks=10_000, kills=20, daemons=3, database=database)
    assert not faults, summary


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
async def test_several_at_length(
    tmp_path: Path, engine: str, redis_server: servers.Redis, request: pytest.FixtureRequest
) -> None:
    """A minute of kills, then outages with the network away for ten seconds, on both servers."""
    database = request.getfixturevalue(engine)
    for name, run in (
        ("kills", several.killed(tmp_path / "kills", database, redis_server, SEED, seconds=60, rate=100)),
        ("outages", several.outages(tmp_path / "outages", database, redis_server, SEED, cut=10, rate=100)),
    ):
        (tmp_path / name).mkdir()
        faults, summary = await run
        assert not faults, summary
