"""Limits and news that several processes share, in Redis and in the database: exact, given back, alive in outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis as Client

from newapi_proxy.errors import OurError
from newapi_proxy.store import redis, shared
from newapi_proxy.store.db import Database
from newapi_proxy.store.redis import PREFIX, Redis
from newapi_proxy.store.shared import Shared
from newapi_proxy.store.tabled import Tabled
from newapi_proxy.store.windows import Ceiling, Full, Grant, Rate
from tests.fakes import servers
from tests.fakes.cable import cable
from tests.fakes.engines import NAME
from tests.fakes.engines import server as running

MINUTE = 60.0


class Site:
    """Opens processes that share one place; their parts that a test looks at."""

    def __init__(self, kind: str, server: Any) -> None:
        self.kind = kind
        self.server = server
        self.made: list[Shared] = []
        self.places: list[Any] = []
        self.databases: list[Database] = []

    async def __call__(self, port: int | None = None) -> Shared:
        boot = f"boot{len(self.made)}"
        if self.kind == "redis":
            self.places.append(await Redis.open(self.server.url(port), boot))
        else:
            self.databases.append(await Database.open(self.server.url(NAME), Path("/")))
            self.places.append(Tabled(self.databases[-1]))
        self.made.append(Shared(self.places[-1], time.monotonic, boot).start())
        return self.made[-1]

    async def close(self) -> None:
        for one in (*self.made, *self.databases):
            await one.close()


@pytest_asyncio.fixture(params=["redis", "postgresql", "mysql"])
async def make(request: pytest.FixtureRequest, redis_server: servers.Redis) -> AsyncIterator[Site]:
    """Opens processes on an empty place of every kind; all are closed at the end."""
    site = Site(request.param, redis_server)
    if request.param == "redis":
        await flush(redis_server)
    else:
        site.server = await asyncio.to_thread(running, request, request.param)
    yield site
    await site.close()


@pytest_asyncio.fixture
async def on_redis(redis_server: servers.Redis) -> AsyncIterator[Site]:
    """Opens processes on an empty Redis."""
    await flush(redis_server)
    site = Site("redis", redis_server)
    yield site
    await site.close()


async def flush(server: servers.Redis) -> None:
    """Redis forgets everything."""
    client = Client.from_url(server.url())
    await client.flushall()
    await client.aclose()


def ceiling(name: str = "a", slots: int | None = None, rates: tuple[Rate, ...] = ()) -> Ceiling:
    return Ceiling(f"token {name}", "token", name, slots, rates)


def rpm(most: int, seconds: float = MINUTE) -> tuple[Rate, ...]:
    return (Rate("rpm", seconds, most),)


def tpm(most: int, seconds: float = MINUTE) -> tuple[Rate, ...]:
    return (Rate("tpm", seconds, most, tokens=True),)


async def admitted(process: Shared, wanted: Ceiling, tokens: int = 0) -> Grant | None:
    found = await process.take((wanted,), tokens)
    return None if isinstance(found, Full) else found


async def refused(process: Shared, wanted: Ceiling, tokens: int) -> Full | None:
    found = await process.take((wanted,), tokens)
    if isinstance(found, Full):
        return found
    process.cancel(found)
    return None


async def until(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Waits for an answer that is not empty, for ten seconds at most."""
    for _ in range(500):
        if (found := await ask()) is not None:
            return found
        await asyncio.sleep(0.02)
    raise TimeoutError


async def test_a_limit_is_exact_over_four_processes(make: Site) -> None:
    """Of 400 requests at once through four processes, a limit of 100 a minute admits exactly 100."""
    all = [await make() for _ in range(4)]
    hundred = ceiling(rates=rpm(100))
    found = await asyncio.gather(*(all[number % 4].take((hundred,)) for number in range(400)))
    assert sum(isinstance(one, Grant) for one in found) == 100
    refused = next(one for one in found if isinstance(one, Full))
    assert (refused.limit, refused.ceiling) == ("rpm", hundred)
    assert MINUTE - 10 < refused.wait <= MINUTE


async def test_room_comes_back_when_it_was_said(make: Site) -> None:
    """The wait that one process tells ends when the other's request leaves the window."""
    one, other = await make(), await make()
    single = ceiling(rates=rpm(1, 0.5))
    assert await admitted(one, single)
    found = await other.take((single,))
    assert isinstance(found, Full)
    told = time.monotonic() + found.wait
    await until(lambda: admitted(other, single))
    assert abs(time.monotonic() - told) < 0.2


async def test_slots_of_all_processes(make: Site) -> None:
    """What one process gives back another may take; a slot that is given back twice is one."""
    one, other = await make(), await make()
    two = ceiling(slots=2)
    first, second = await admitted(one, two), await admitted(other, two)
    assert first is not None
    assert second is not None
    assert await admitted(one, two) is None
    one.release(first)
    one.release(first)
    third = await until(lambda: admitted(other, two))
    assert await admitted(one, two) is None
    for grant in (second, third):
        other.release(grant)
    assert other.used() == []


async def test_a_refusal_takes_nothing(make: Site) -> None:
    """Where one of several ceilings is reached elsewhere, none is charged."""
    one, other = await make(), await make()
    wide, narrow = ceiling("wide", 1, rpm(1)), ceiling("narrow", rates=rpm(1))
    assert await admitted(one, narrow)
    found = await other.take((wide, narrow))
    assert isinstance(found, Full)
    assert found.ceiling.name == "narrow"
    assert other.used() == []
    assert await admitted(one, wide)


@pytest.mark.parametrize("ends", [("a", "b"), ("", "x"), ("", " ")])
async def test_long_names_are_told_apart(make: Site, ends: tuple[str, str]) -> None:
    """Subjects whose names begin alike for longer than a table's key, or differ by a blank, do not share a window."""
    one, other = await make(), await make()
    for name in ("n" * 190, "ü" * 300, "short"):
        first, second = (ceiling(name + end, 1, rpm(1)) for end in ends)
        assert await admitted(one, first)
        assert await admitted(one, second)
        assert not await admitted(other, first)
        assert not await admitted(other, second)


async def test_estimates_are_corrected_for_all(make: Site) -> None:
    """What an answer did not use is room for the others, what it used more is not."""
    one, other = await make(), await make()
    thousand = ceiling(rates=tpm(1000))
    grant = await admitted(one, thousand, 900)
    assert grant is not None
    assert await admitted(other, thousand, 200) is None
    one.correct(grant, 300)
    more = await until(lambda: admitted(other, thousand, 700))
    other.correct(more, 5000)
    one.correct(grant, 0)
    await until(lambda: refused(one, thousand, 1))  # each is told on its own way
    other.cancel(more)
    await until(lambda: admitted(one, thousand, 1000))


async def test_large_windows_stay_small(
    on_redis: Site, redis_server: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are admitted, a window keeps some entries only, and counts them all."""
    monkeypatch.setattr(redis, "EXACT", 4)
    process, wide = await on_redis(), ceiling(rates=rpm(200))
    for _ in range(200):
        assert await admitted(process, wide)
    assert await admitted(process, wide) is None
    client = Client.from_url(redis_server.url())
    assert await client.zcard(f"{PREFIX}token a:rpm") <= 8
    assert int(await client.hget(f"{PREFIX}token a:rpm:n", "total")) == 200
    await client.aclose()


async def test_a_dead_process_gives_its_slots_back(make: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that says nothing any more loses its slots with its lease; a living one keeps them."""
    monkeypatch.setattr(shared, "LEASE", 2)
    monkeypatch.setattr(shared, "BEAT", 0.2)
    one, other = await make(), await make()
    two = ceiling(slots=2)
    kept = await admitted(one, two)
    assert await admitted(other, two)
    assert other._working is not None
    other._working.cancel()
    await until(lambda: admitted(one, two))
    assert await admitted(one, two) is None
    assert kept is not None


async def test_a_busy_process_keeps_its_slots(make: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long request keeps its slot while its process has so much to say that it never rests."""
    monkeypatch.setattr(shared, "LEASE", 1)
    monkeypatch.setattr(shared, "BEAT", 0.2)
    one, other = await make(), await make()
    single = ceiling(slots=1)
    assert await admitted(one, single)
    over = time.monotonic() + 2.5
    while time.monotonic() < over:
        short = await admitted(one, ceiling("short", 1000))
        assert short is not None
        one.release(short)
        await refused(other, single, 0)  # it is asked often, and each time the leases that are over end
    assert await admitted(other, single) is None


async def test_a_flush_forgets_windows_and_no_slots(
    on_redis: Site, redis_server: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a flush the living say again what they hold, and windows begin anew."""
    monkeypatch.setattr(shared, "BEAT", 0.1)
    one, other = await on_redis(), await on_redis()
    both = ceiling(slots=1, rates=rpm(2))
    assert await admitted(one, both)
    await flush(redis_server)
    client = Client.from_url(redis_server.url())

    async def held() -> int | None:
        return await client.zcard(f"{PREFIX}token a:slots") or None

    assert await until(held) == 1
    await client.aclose()
    assert await admitted(other, both) is None


async def test_without_redis_each_goes_on_alone(on_redis: Site, redis_server: servers.Redis) -> None:
    """While Redis is away each process holds the limits for itself; when it is back they are shared again."""
    one, other = await on_redis(), await on_redis()
    first = ceiling(rates=rpm(1))
    await asyncio.to_thread(redis_server.stop)
    assert await admitted(one, first)
    assert await admitted(one, first) is None
    assert await admitted(other, first)
    await asyncio.to_thread(redis_server.start)
    await until(lambda: _back(one, other))
    second = ceiling("b", rates=rpm(1))
    assert await admitted(one, second)
    assert await admitted(other, second) is None


async def _back(*processes: Shared) -> bool | None:
    return True if not any(one._down for one in processes) else None


async def test_a_silent_redis_costs_one_wait(
    on_redis: Site, redis_server: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that does not answer holds up one request for the time-out, and the next ones not at all."""
    monkeypatch.setattr(shared, "TIMEOUT", 0.3)
    async with cable(redis_server.port) as line:
        process = await on_redis(line.port)
        assert await admitted(process, ceiling(rates=rpm(10)))
        line.freeze()
        begin = time.monotonic()
        assert await admitted(process, ceiling(rates=rpm(10)))
        assert time.monotonic() - begin < 1.5
        begin = time.monotonic()
        for _ in range(5):
            assert await admitted(process, ceiling(rates=rpm(10)))
        assert time.monotonic() - begin < 0.1
        line.thaw()
        await until(lambda: _back(process))


async def test_news(on_redis: Site) -> None:
    """What one tells the others hear; what lasts is heard by those who come later, until it is over."""
    await on_redis()
    await on_redis()
    one, other = on_redis.places
    heard: list[bytes] = []
    other.listen(heard.append)
    one.tell("main", b"open", lasting=True)
    one.tell("spare", b"open too", lasting=True)

    async def has(*wanted: bytes) -> bool | None:
        return True if set(wanted) <= set(heard) else None

    await until(lambda: has(b"open", b"open too"))
    one.tell("main", b"closed", lasting=False)
    await until(lambda: has(b"closed"))
    assert set(heard[:-1]) == {b"open", b"open too"}  # what was told while it began to listen is heard twice
    assert heard[-1] == b"closed"
    later: list[bytes] = []
    await on_redis()
    on_redis.places[-1].listen(later.append)

    async def once() -> bool | None:
        return True if later else None

    await until(once)
    assert later == [b"open too"]


async def test_closing_while_it_connects(redis_server: servers.Redis) -> None:
    """A process that ends as soon as it has begun ends: wherever its listener is, it hears of it."""
    for turns in range(12):
        place = await Redis.open(redis_server.url(), "boot")
        place.listen(lambda _: None)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await place.close()


@pytest.mark.parametrize(
    ("url", "code"), [("redis://127.0.0.1:1/0", "redis_unavailable"), ("nonsense", "redis_invalid")]
)
async def test_a_redis_that_is_not_there(url: str, code: str) -> None:
    """At the start Redis must answer: a wrong address is an error, not a limit that nobody holds."""
    with pytest.raises(OurError) as caught:
        await Redis.open(url, "boot")
    assert caught.value.code == code
