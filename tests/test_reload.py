"""A reload in the process: what it leaves behind is nothing, whoever still uses what was there before."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest_asyncio
from sqlalchemy import Connection

from newapi_proxy.billing import budgets
from newapi_proxy.clock import SystemClock
from newapi_proxy.config import load
from newapi_proxy.daemon.reload import Reloader
from newapi_proxy.daemon.rests import Rests
from newapi_proxy.daemon.view import Views
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.snapshot import Snapshot
from newapi_proxy.store.db import Database

CONFIG = """\
prices:
  m: {input: 1, output: 2}
  gpt-*: {input: 3}
channels:
  - {name: one, type: openai, base_url: http://127.0.0.1:9, keys: [sk-one-1234567, sk-two-1234567], models: [m, gpt-*]}
  - {name: two, type: anthropic, key: sk-three-1234567, models: [claude-9]}
tokens:
  - {name: rich, key: sk-rich-1234567, quota: 1000, budget: {amount: $5, every: day}}
  - {name: free, key: sk-free-1234567}
"""


class Running:
    """What of a daemon a reload needs, over a real file and a real database."""

    def __init__(self, path: Path, house: House, reloader: Reloader) -> None:
        self.path = path
        self.house = house
        self.reloader = reloader

    async def reload(self, text: str = CONFIG) -> bool:
        """Another text, taken over."""
        self.path.write_text(text)
        return await self.reloader.reload()


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """A running one that has reloaded a few times: what is made once is made."""
    path, clock = tmp_path / "config.yaml", SystemClock()
    path.write_text(CONFIG)
    path.chmod(0o600)
    database = await Database.open("sqlite:///newapi.db", tmp_path)
    loaded = load.read(path, dict(os.environ))
    views, rests, health = Views(database, clock), Rests(database, clock), Health(clock, lambda channel, state: None)
    house = House((await views.build(loaded))[0], database, None, health, clock, boot=database.boot)  # type: ignore[arg-type]
    one = Running(path, house, Reloader(path, house, views, rests, loaded))
    for text in (CONFIG.replace("rich", "richer"), CONFIG):
        assert await one.reload(text)
    yield one
    await database.close()


@contextmanager
def by_hand() -> Iterator[list[int]]:
    """The collector comes only where it is called; the list says how many objects it found each time."""
    found: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "stop":
            found.append(info["collected"])

    gc.collect()
    gc.disable()
    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)
        gc.enable()


def use(snapshot: Snapshot) -> None:
    """Asks everything that is remembered once it was asked."""
    for token in snapshot.tokens.values():
        snapshot.models_for(token)
        if token.budgets:
            snapshot.windows(token, 1_700_000_000)
    for model in ("m", "gpt-4o", "claude-9", "claude-9-thinking", "nobody"):
        snapshot.lane("default", model, "openai", "chat")
        snapshot.prices.sold(model)


async def test_a_snapshot_goes_with_its_last_user(running: Running) -> None:
    """What was asked of a snapshot does not tie it to itself: it is gone at once, without the collector's help."""
    use(running.house.snapshot)
    old = weakref.ref(running.house.snapshot)
    request: Any = running.house.snapshot
    with by_hand():
        assert await running.reload(CONFIG.replace("rich", "richer"))
        assert old() is request
        del request
        assert old() is None


async def test_a_reload_leaves_nothing_to_the_collector(running: Running) -> None:
    """A good file, a changed one or a broken one: none makes rings of objects, which would wait for a collection."""
    with by_hand() as found:
        for text in (CONFIG, CONFIG.replace("rich", "richer"), CONFIG + "nonsense: 1\n", CONFIG.replace("m:", "m: [")):
            await running.reload(text)
        gc.collect()
    assert found
    assert sum(found) == 0


async def test_a_ring_that_a_reload_saw_is_collected(running: Running) -> None:
    """What refers to itself and was in use during a reload goes at the next one: no reload takes it out of sight."""
    running.house.watches.add(object())  # type: ignore[arg-type]  # a request is under way

    class Ring:
        pass

    ring: Any = Ring()
    ring.itself = ring
    gone = weakref.ref(ring)
    with by_hand():
        assert await running.reload()
        del ring
        assert await running.reload()
        assert gone() is None


async def test_a_reload_forgets_the_windows_of_before(running: Running) -> None:
    """What is remembered of a budget's windows by their identity is not kept over reloads."""

    class Windows(list[budgets.Window]):
        pass

    windows = Windows([budgets.window("day", 1_700_000_000, 5, UTC)])
    assert budgets.told(windows) == "day:1699920000,"
    gone = weakref.ref(windows)
    del windows
    assert gone() is not None
    assert await running.reload()
    assert gone() is None


async def test_reloads_make_no_connections(running: Running, database: Path) -> None:
    """The process holds the same files open whatever it has been asked: connections are made at the start."""
    before = _held(database)
    assert await running.reload()
    await asyncio.gather(*(running.house.db.read(_anything) for _ in range(9)))
    assert _held(database) == before


def _anything(conn: Connection) -> Sequence[Any]:
    return conn.exec_driver_sql("SELECT 1").all()


def _held(database: Path) -> list[str]:
    """The database's files that this process has open, each as often as it has."""
    links = (_link(name) for name in os.listdir("/proc/self/fd"))
    return sorted(link for link in links if link.startswith(str(database)))


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""
