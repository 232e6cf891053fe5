"""A database server behind the writer: lost connections, lost answers, outages, other processes, one taken for dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace
from sqlalchemy import Connection, func, select, update

from newapi_proxy.billing import audit, budgets, ledger
from newapi_proxy.billing.budgets import Window
from newapi_proxy.errors import OurError
from newapi_proxy.store import db as store
from newapi_proxy.store import dialects, processes, replies, server
from newapi_proxy.store.db import Database
from newapi_proxy.store.schema import ledger as rows
from newapi_proxy.store.schema import processes as process_table
from newapi_proxy.store.schema import tokens
from tests.fakes import money
from tests.fakes.cable import Cable, cable
from tests.fakes.engines import NAME
from tests.fakes.engines import server as running

HERE = Path("/")


@pytest.fixture(params=["postgresql", "mysql"])
def far(request: pytest.FixtureRequest) -> Any:
    """A running server with an empty database."""
    return running(request, request.param)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's patience in tests that wait for its end."""
    for name, seconds in {"DEADLINE": 1.0, "GRACE": 0.4, "PAUSE": 0.05, "BEAT": 0.3}.items():
        monkeypatch.setattr(server, name, seconds)
    monkeypatch.setattr(dialects, "CONNECT", 0.5)
    monkeypatch.setattr(store, "AGAIN", 0.1)


@pytest_asyncio.fixture
async def line(far: Any) -> AsyncIterator[Cable]:
    """The way to the server."""
    async with cable(far.port) as made:
        yield made


async def _open(far: Any, line: Cable | None = None) -> Database:
    return await Database.open(far.url(NAME, line.port if line is not None else None), HERE)


def _people(conn: Connection, items: Sequence[list[tuple[int, int]]]) -> list[list[ledger.Account]]:
    return [money.people(conn, balances) for balances in items]


def _balance(conn: Connection) -> int:
    return conn.execute(select(tokens.c.remain_quota)).scalar_one()


def _states(conn: Connection) -> dict[str, int]:
    asked = select(rows.c.state, func.count()).group_by(rows.c.state)
    return {state: count for state, count in conn.execute(asked)}


async def test_one_key_many_processes(far: Any) -> None:
    """Of a hundred claims of one idempotency key, by four processes, one runs; its answer is told by all of them."""
    all = [await _open(far) for _ in range(4)]
    (one,) = await all[0].write(_people, [(500, 100_000)])
    place = replies.Place(one.token_id, "key")

    def claim(number: int) -> Awaitable[replies.Found | None]:
        db = all[number % 4]
        wanted = replies.Claim(request_id="1/key", place=place, owner=f"r{number}", boot=db.boot, at=1000)
        return db.write(replies.claim, wanted)

    found = await asyncio.gather(*(claim(number) for number in range(100)))
    (winner,) = [number for number, had in enumerate(found) if had is None]
    assert {(had.state, had.owner) for had in found if had is not None} == {("open", f"r{winner}")}
    db, id = all[winner % 4], f"r{winner}"
    answer = replies.Answer(
        place=place, owner=id, status=200, streamed=True, headers="[]", size=4, body=b"\x00\xff'x", expires=2000
    )
    assert await db.write(ledger.hold, money.hold(id, one, 10, db.boot)) is None
    assert await db.write(ledger.settle, replace(money.settlement(id, one, 10, 10), answer=answer)) == 10
    for other in all:
        had = await other.write(replies.claim, replies.Claim(request_id="1/key", place=place, owner="late", at=1500))
        assert had is not None
        assert (had.state, had.streamed, had.size, had.owner) == ("kept", True, 4, id)
        assert await other.read(lambda conn: replies.load(conn, place, id)) == b"\x00\xff'x"
    assert await all[1].write(replies.prune, 2000) == 1
    assert await claim(7) is None
    mine = replies.Claim(request_id="1/key", place=place, owner="r7", boot=all[3].boot)
    assert await all[0].write(replies.release, replace(mine, boot=all[0].boot)) is False
    assert await all[3].write(replies.release, mine) is True
    for each in all:
        await each.close()


async def test_one_balance_many_processes(far: Any) -> None:
    """Four processes with 500 requests on a balance for exactly 50: exactly 50 get through, and nobody deadlocks."""
    all = [await _open(far) for _ in range(4)]
    (one,) = await all[0].write(_people, [(500, 100_000)])

    async def request(number: int) -> bool:
        db, id = all[number % 4], f"r{number}"
        if await db.write(ledger.hold, money.hold(id, one, 10, db.boot)) is not None:
            return False
        return await db.write(ledger.settle, money.settlement(id, one, 10, 10)) == 10

    assert sum(await asyncio.gather(*(request(number) for number in range(500)))) == 50
    assert await all[0].read(audit.check) == []
    for db in all:
        await db.close()


async def test_one_budget_many_processes(far: Any) -> None:
    """The same with a budget for exactly 50 in a month, and charges that go beyond their holds as far as it reaches."""
    all = [await _open(far) for _ in range(4)]
    (one,) = await all[0].write(_people, [(100_000, 100_000)])
    windows = (Window("day", 0, 86_400, 10_000), Window("month", 0, 9_999_999, 500))

    async def request(number: int) -> int:
        db, id = all[number % 4], f"r{number}"
        if await db.write(ledger.hold, money.hold(id, one, 5, db.boot, windows)) is not None:
            return 0
        return await db.write(ledger.settle, money.settlement(id, one, 5, 10, windows)) or 0

    assert sum(await asyncio.gather(*(request(number) for number in range(500)))) == 500
    assert await all[0].read(budgets.everything) == {(1, "day", 0): 500, (1, "month", 0): 500}
    assert await all[0].read(audit.check) == []
    for db in all:
        await db.close()


@pytest.mark.parametrize("fate", ["lose", "deafen"])
async def test_a_lost_commit_is_found_out(far: Any, line: Cable, fate: str) -> None:
    """Whether a commit or its answer is lost on the way: the caller hears what happened, and it happened once."""
    db = await _open(far, line)
    (one,) = await db.write(_people, [(100, 100)])
    await db.write(ledger.hold, money.hold("a", one, 30, db.boot))
    seen: list[bytes] = []

    def watch(data: bytes) -> str:
        if b"COMMIT" not in data.upper() or seen:
            return "pass"
        seen.append(data)
        return fate

    line.watch = watch
    assert await db.write(ledger.settle, money.settlement("a", one, 30, 20)) == 20
    assert len(seen) == 1
    assert await db.read(_balance) == 80
    assert await db.read(audit.check) == []
    await db.close()


@pytest.mark.usefixtures("hasty")
async def test_an_outage_fails_closed_and_ends_by_itself(far: Any, line: Cable) -> None:
    """Cut off without a word, requests are refused with 503, soon at once; afterwards it works again by itself."""
    db = await _open(far, line)
    (one,) = await db.write(_people, [(1000, 1000)])
    await db.write(ledger.hold, money.hold("a", one, 10, db.boot))
    line.freeze()
    first = db.write(ledger.hold, money.hold("b", one, 10, db.boot))
    owed = db.write(ledger.settle, money.settlement("a", one, 10, 7), must=True)
    with pytest.raises(OurError) as caught:
        await first
    assert (caught.value.status, caught.value.code) == (503, "ledger_unavailable")
    refused = db.write(ledger.hold, money.hold("c", one, 10, db.boot))
    assert refused.done()
    with pytest.raises(OurError):
        await refused
    line.thaw()
    with pytest.raises(OurError):
        await owed  # it is written all the same
    await _until(lambda: _held(db, money.hold("d", one, 10, db.boot)))
    await _until(lambda: db.read(lambda conn: "settled" in _states(conn)))
    assert await db.read(_states) == {"settled": 1, "held": 1}
    assert await db.read(_balance) == 1000 - 7 - 10
    assert await db.read(audit.check) == []
    await db.close()


async def _held(db: Database, hold: ledger.Hold) -> bool:
    try:
        return await db.write(ledger.hold, hold) is None
    except OurError:
        return False


async def _until(ask: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what shall be seen, for twenty seconds at most."""
    for _ in range(1000):
        if await ask():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


@pytest.mark.usefixtures("hasty")
async def test_a_restarted_server(far: Any) -> None:
    """While the server goes away and comes back, every answer that was given stands in the ledger, once."""
    db = await _open(far)
    (one,) = await db.write(_people, [(10**6, 10**6)])
    told: dict[str, int] = {}
    over = asyncio.Event()

    async def work(worker: int) -> None:
        number = 0
        while not over.is_set():
            number += 1
            id = f"w{worker}-{number}"
            try:
                if await db.write(ledger.hold, money.hold(id, one, 5, db.boot)) is None:
                    told[id] = await db.write(ledger.settle, money.settlement(id, one, 5, 3)) or 0
            except OurError:
                db.write(ledger.void, money.void(id, one, 5), must=True).add_done_callback(_ignored)
                await asyncio.sleep(0.02)

    async def more() -> None:
        enough = len(told) + 50
        await _until(lambda: _is(len(told) >= enough))

    async with asyncio.TaskGroup() as group:
        for worker in range(8):
            group.create_task(work(worker))
        for stop in (far.stop, far.kill):
            await more()
            await asyncio.to_thread(stop)
            await asyncio.to_thread(far.start)
        await more()
        over.set()
    await db.close()
    db = await _open(far)
    asked = select(rows.c.request_id, rows.c.charged).where(rows.c.state == "settled")
    settled = await db.read(lambda conn: {row.request_id: row.charged for row in conn.execute(asked)})
    assert told.items() <= settled.items()
    assert await db.read(audit.check) == []
    assert await db.read(_balance) == 10**6 - sum(settled.values())
    await db.close()


def _ignored(done: asyncio.Future[Any]) -> None:
    done.exception()


async def _is(value: bool) -> bool:
    return value


async def test_a_silent_server_ends_a_read(far: Any, line: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read on a connection that was lost without a word ends in an error, and the next one works again."""
    monkeypatch.setattr(server, "READING", 0.5)
    db = await _open(far, line)
    assert await db.read(_states) == {}
    line.freeze()
    with pytest.raises(OurError) as caught:
        await db.read(_states)
    assert caught.value.code == "ledger_unavailable"
    line.thaw()

    async def reads() -> bool:
        try:
            return await db.read(_states) == {}
        except OurError:
            return False

    await _until(reads)
    await db.close()


async def test_holds_of_the_living_stay(far: Any) -> None:
    """What a living neighbour holds is not given back; what an ended or a silent one held is."""
    mine, theirs = await _open(far), await _open(far)
    (one,) = await mine.write(_people, [(100, 100)])
    await theirs.write(ledger.hold, money.hold("a", one, 10, theirs.boot))
    await mine.write(ledger.hold, money.hold("b", one, 20, mine.boot))
    await mine.write(ledger.hold, money.hold("c", one, 5, "a process that never was"))
    assert await _recover(mine) == 1
    assert await mine.read(_balance) == 70
    await theirs.close()
    assert await _recover(mine) == 1
    assert await mine.read(_balance) == 80
    await mine.close()


async def test_a_process_that_was_taken_for_dead(far: Any) -> None:
    """One that stood still for the lease finds its holds given back; it lives on, and charges what it still can."""
    mine, theirs = await _open(far), await _open(far)
    (one,) = await mine.write(_people, [(100, 100)])
    await theirs.write(ledger.hold, money.hold("a", one, 10, theirs.boot))
    await theirs.write(ledger.hold, money.hold("c", one, 20, theirs.boot))

    def still(conn: Connection, items: Sequence[str]) -> Sequence[str]:
        old = processes.now(conn) - processes.LEASE - 1
        conn.execute(update(process_table).where(process_table.c.boot == items[0]).values(at=old))
        return items

    await mine.write(still, theirs.boot)
    assert await _recover(mine) == 2
    assert await mine.read(_balance) == 100
    assert await theirs.write(ledger.hold, money.hold("b", one, 75, theirs.boot)) is None
    ends = [money.settlement("a", one, 10, 10), money.settlement("c", one, 20, 20)]
    assert await asyncio.gather(*(theirs.write(ledger.settle, end) for end in ends)) == [10, 15]
    assert await theirs.write(ledger.settle, ends[0]) is None
    assert await _recover(mine) == 0
    assert await mine.read(_balance) == 0
    assert await mine.read(audit.check) == []
    await mine.close()
    await theirs.close()


async def _recover(db: Database) -> int:
    return await db.write(lambda conn, _: [ledger.recover(conn, db.living(conn), 5)], None)


@pytest.mark.usefixtures("hasty")
async def test_an_idle_process_says_that_it_lives(far: Any) -> None:
    """Without any request a process's row moves on."""
    db = await _open(far)

    def number(conn: Connection) -> int:
        return conn.execute(select(process_table.c.number).where(process_table.c.boot == db.boot)).scalar_one()

    first = await db.read(number)
    await _until(lambda: db.read(lambda conn: number(conn) >= first + 2))
    await db.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://nobody@127.0.0.1:1/x", "ledger_unavailable"),
        ("mysql://nobody@127.0.0.1:1/x", "ledger_unavailable"),
        ("oracle://nobody@127.0.0.1:1/x", "database_invalid"),
    ],
)
async def test_servers_that_are_not_there(url: str, code: str) -> None:
    """A URL where nobody answers is an error with a code, not a traceback."""
    with pytest.raises(OurError) as caught:
        await Database.open(url, HERE)
    assert caught.value.code == code


async def test_long_and_odd_words_fit(far: Any) -> None:
    """Names longer than a column, and characters that a server does not store, cost no settlement."""
    db = await _open(far)
    (one,) = await db.write(_people, [(100, 100)])
    odd = "m\0" + "ü" * 300
    hold = ledger.Hold("x" * 128, one, 10, 1000, db.boot, odd)
    assert await db.write(ledger.hold, hold) is None
    done = money.settlement("x" * 128, one, 10, 4)
    entry = replace(done.entry, model_name=odd, token_name=odd, content=odd, request_id="x" * 128)
    assert await db.write(ledger.settle, replace(done, entry=entry)) == 4
    assert await db.read(_balance) == 96
    await db.close()
