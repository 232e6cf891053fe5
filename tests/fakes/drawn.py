"""Fixtures for tests of tasks: both fakes, and a world whose books add up at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from newapi_proxy import metrics
from newapi_proxy.billing import audit
from tests.fakes import midjourney, suno
from tests.fakes.midjourney import Midjourney
from tests.fakes.suno import Suno
from tests.fakes.task_world import World, drawing, singing, world


@pytest.fixture
async def mj() -> AsyncIterator[Midjourney]:
    """The fake Midjourney."""
    async with midjourney.serving() as one:
        yield one


@pytest.fixture
async def songs() -> AsyncIterator[Suno]:
    """The fake Suno."""
    async with suno.serving() as one:
        yield one


@pytest.fixture
async def one(mj: Midjourney, songs: Suno, tmp_path: Path) -> AsyncIterator[World]:
    """A world with both; afterwards the books add up and nothing unexpected was raised."""
    bugs = metrics.bugs()
    async with world(tmp_path, drawing(mj.url), singing(songs.url)) as made:
        yield made
        assert await made.house.db.read(audit.check) == []
    assert metrics.bugs() == bugs
