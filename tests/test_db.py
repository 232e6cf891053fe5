"""The writer: groups, order, errors of one and of all, a full disk, a second process, a killed one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, select, text

from newapi_proxy.billing import audit, ledger
from newapi_proxy.errors import OurError
from newapi_proxy.store import db as store
from newapi_proxy.store import groups, sqlite
from newapi_proxy.store.db import Database
from newapi_proxy.store.schema import options, tokens
from tests import laws
from tests.fakes import money
from tests.fakes.engines import NAME, server
from tests.fakes.hammer import ACCOUNTS


@pytest_asyncio.fixture(params=["normal", "full"])
async def db(database: Path, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An open file; its commits on the loop, and in the thread."""
    made = await Database.open(f"sqlite:///{database.name}", database.parent, request.param)
    yield made
    await made.close()


@pytest.fixture(params=["normal", "full", "postgresql", "mysql"])
def place(database: Path, request: pytest.FixtureRequest) -> tuple[str, str]:
    """An empty database of every engine and way to commit: URL and durability."""
    if request.param in ("postgresql", "mysql"):
        return server(request, request.param).url(NAME), "normal"
    return f"sqlite:///{database}", request.param


@pytest_asyncio.fixture
async def any_db(place: tuple[str, sqlite.Durability], database: Path) -> AsyncIterator[Database]:
    """An open database of every engine and way to commit."""
    made = await Database.open(place[0], database.parent, place[1])
    yield made
    await made.close()


def _people(conn: Connection, items: Sequence[list[tuple[int, int]]]) -> list[list[ledger.Account]]:
    return [money.people(conn, balances) for balances in items]


def _nothing(conn: Connection, items: Sequence[int]) -> Sequence[int]:
    return items


def _insert(conn: Connection, items: Sequence[str]) -> Sequence[str]:
    for item in items:
        conn.execute(options.insert().values(key=item, value=""))
    return items


def _keys(conn: Connection) -> list[str]:
    found = list(conn.execute(select(options.c.key)).scalars())
    return found if conn.dialect.name == "sqlite" else sorted(found)


async def test_a_group_is_one_commit(database: Path) -> None:
    """What is written in one turn of the loop shares a commit, and every caller gets its own result."""
    commits: list[tuple[float, int]] = []
    db = await Database.open(
        f"sqlite:///{database}", database.parent, "full", lambda seconds, pending: commits.append((seconds, pending))
    )
    assert await asyncio.gather(*(db.write(_nothing, number) for number in range(100))) == list(range(100))
    assert len(commits) == 1
    assert commits[0][0] > 0
    await asyncio.gather(*(db.write(_nothing, number) for number in range(2 * groups.GROUP + 1)))
    assert [pending for _, pending in commits[1:]] == [257, 1, 0]
    await db.close()


async def test_a_lone_write_waits_for_nobody(database: Path) -> None:
    """Where commits do not wait for the disk, one write alone is committed at once, others together."""
    commits: list[int] = []
    db = await Database.open(
        f"sqlite:///{database}", database.parent, "normal", lambda seconds, pending: commits.append(pending)
    )
    first, *others = [db.write(_nothing, number) for number in range(20)]
    assert first.done()
    assert not any(other.done() for other in others)
    assert await asyncio.gather(first, *others) == list(range(20))
    assert len(commits) == 2
    await db.close()


async def test_results_come_after_the_commit(db: Database, database: Path) -> None:
    """When a write's future is done another connection sees it."""
    await db.write(_insert, "a")
    with sqlite3.connect(database) as other:
        assert other.execute("SELECT key FROM options").fetchall() == [("a",)]
    other.close()
    assert await db.read(_keys) == ["a"]


async def test_an_error_stays_with_its_function(any_db: Database) -> None:
    """What one function raises undoes its own items only; the rest of the group is committed."""

    def broken(conn: Connection, items: Sequence[str]) -> Sequence[str]:
        _insert(conn, items)
        raise LookupError("mine")

    good, bad, later = any_db.write(_insert, "a"), any_db.write(broken, "b"), any_db.write(_insert, "c")
    assert (await good, await later) == ("a", "c")
    with pytest.raises(LookupError, match="mine"):
        await bad
    with pytest.raises(LookupError):
        await any_db.write(broken, "d")
    assert await any_db.read(_keys) == ["a", "c"]


async def test_order_of_one_request(any_db: Database) -> None:
    """A hold that is given up at once is voided after it is made, though other voids are in the group."""
    first, second = (await any_db.write(_people, [(100, 100), (100, 100)]))[:2]
    await any_db.write(ledger.hold, money.hold("a", first, 10))
    written: list[asyncio.Future[Any]] = [
        any_db.write(ledger.void, money.void("a", first, 10)),
        any_db.write(ledger.hold, money.hold("b", second, 10)),
        any_db.write(ledger.void, money.void("b", second, 10)),
    ]
    written[1].cancel()  # the client went; the write goes on
    assert (await written[0], await written[2]) == (True, True)
    left = await any_db.read(lambda conn: conn.execute(select(tokens.c.remain_quota)).scalars().all())
    assert list(left) == [100, 100]


async def test_order_without_a_request(any_db: Database) -> None:
    """Items that name no request run in the order of their arrival, whatever their functions."""
    seen: list[tuple[str, int]] = []

    def one(conn: Connection, items: Sequence[int]) -> Sequence[int]:
        seen.extend(("one", item) for item in items)
        return items

    def two(conn: Connection, items: Sequence[int]) -> Sequence[int]:
        seen.extend(("two", item) for item in items)
        return items

    asked = [(one, 1), (one, 2), (two, 3), (one, 4), (two, 5)]
    await asyncio.gather(*(any_db.write(fn, item) for fn, item in asked))
    assert seen == [("one", 1), ("one", 2), ("two", 3), ("one", 4), ("two", 5)]


async def test_five_hundred_for_fifty(any_db: Database) -> None:
    """500 requests at once on a balance for exactly 50: exactly 50 get through, before and after settling (RF3)."""
    (one,) = await any_db.write(_people, [(500, 100_000)])

    async def request(number: int) -> bool:
        id = f"r{number}"
        if await any_db.write(ledger.hold, money.hold(id, one, 10)) is not None:
            return False
        return await any_db.write(ledger.settle, money.settlement(id, one, 10, 10)) == 10

    assert sum(await asyncio.gather(*(request(number) for number in range(500)))) == 50
    assert await any_db.read(audit.check) == []


async def test_a_full_disk_fails_closed_and_recovers(db: Database, database: Path) -> None:
    """Without space every write is refused with 503, none is half done; with space again the next one works (RF21)."""

    def pages(conn: Connection, items: Sequence[int]) -> Sequence[int]:
        for item in items:
            conn.exec_driver_sql(f"PRAGMA max_page_count = {item}")
        return items

    (one,) = await db.write(_people, [(10**9, 10**9)])
    await db.write(pages, 1)  # as many as there are
    held, refused = 0, None
    while refused is None:
        asked = [db.write(ledger.hold, money.hold(f"r{held}-{i}", one, 1)) for i in range(50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refused = next((one for one in answers if isinstance(one, BaseException)), None)
        held += answers.count(None)
    assert isinstance(refused, OurError)
    assert (refused.status, refused.code) == (503, "ledger_unavailable")
    assert money.faults(database, [(10**9, 10**9)]) == []
    await db.write(pages, 1_000_000)
    assert await db.write(ledger.hold, money.hold("after", one, 1)) is None
    assert await db.read(audit.open_holds) == held + 1


async def test_read_only_file(database: Path) -> None:
    """A write that the file refuses is a 503, not a bug."""
    db = await Database.open(f"sqlite:///{database}", database.parent, "full")

    def frozen(conn: Connection, items: Sequence[int]) -> Sequence[int]:
        conn.exec_driver_sql(f"PRAGMA query_only = {items[0]}")
        return items

    await db.write(frozen, 1)
    with pytest.raises(OurError) as caught:
        await db.write(_insert, "a")
    assert caught.value.code == "ledger_unavailable"
    assert await db.read(_keys) == []
    await db.close()


async def test_somebody_else_writes(database: Path) -> None:
    """While another process holds the file the loop goes on; the write is done when the lock is gone."""
    db = await Database.open(f"sqlite:///{database}", database.parent)
    other = _locked(database)
    waiting = db.write(_insert, "a")
    assert await db.read(_keys) == []
    other.execute("ROLLBACK")
    other.close()
    assert await waiting == "a"
    await db.close()


async def test_the_log_beside_the_file_stays_small(database: Path) -> None:
    """What is committed on the loop is folded back into the file while the daemon runs."""
    db = await Database.open(f"sqlite:///{database}", database.parent)
    for number in range(10_000):
        await db.write(_insert, f"{number:06d}" * 50)
    size = database.with_name(database.name + "-wal").stat().st_size
    assert size < 24 << 20
    assert await asyncio.to_thread(_count, database) == 10_000
    await db.close()


def _count(database: Path) -> int:
    with sqlite3.connect(database) as other:
        (found,) = other.execute("SELECT COUNT(*) FROM options").fetchone()
    other.close()
    return int(found)


async def test_bounded_queue(any_db: Database) -> None:
    """Above the bound a write is refused at once instead of waiting without end."""
    asked = [any_db.write(_nothing, number) for number in range(store.PENDING + 2)]  # the first may wait for nobody
    assert isinstance(asked[-1].exception(), OurError)
    told = await asyncio.gather(*asked, return_exceptions=True)
    taken = [one for one in told if not isinstance(one, OurError)]
    assert taken == list(range(len(taken)))
    assert store.PENDING <= len(taken) <= store.PENDING + 1


def _locked(database: Path) -> sqlite3.Connection:
    """Another process's write lock on the file."""
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_what_must_be_written_is_tried_again(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked out, a write that must be done fails for its caller and is done later, in the order it was asked for."""
    monkeypatch.setattr(store, "AGAIN", 0.01)
    commits = asyncio.Semaphore(0)
    db = await Database.open(
        f"sqlite:///{database}", database.parent, "normal", lambda *_: commits.release(), patience=0
    )
    other = _locked(database)
    asked = [db.write(_insert, "lost"), db.write(_insert, "a", must=True)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [one.code for one in answers if isinstance(one, OurError)] == ["ledger_unavailable"] * 2
    later = db.write(_insert, "b", must=True)
    for _ in range(5):
        await commits.acquire()
    other.execute("ROLLBACK")
    other.close()
    with suppress(OurError):
        await later
    while not (keys := await db.read(_keys)):
        await commits.acquire()
    assert keys == ["a", "b"]
    await db.close()


async def test_closing_tries_once_more(database: Path) -> None:
    """What could not be written has its last try on closing, also where it is asked for in answer to a failure."""
    db = await Database.open(f"sqlite:///{database}", database.parent, patience=0)
    other = _locked(database)
    first = db.write(_insert, "a", must=True)
    later: list[asyncio.Future[str]] = []
    first.add_done_callback(lambda _: later.append(db.write(_insert, "b", must=True)))
    with pytest.raises(OurError):
        await first
    other.execute("ROLLBACK")
    other.close()
    await db.close()
    assert await later[0] == "b"
    with sqlite3.connect(database) as file:
        assert file.execute("SELECT key FROM options ORDER BY rowid").fetchall() == [("a",), ("b",)]
    file.close()
    with pytest.raises(OurError):
        await db.write(_insert, "c", must=True)


async def test_what_cannot_be_written_is_not_kept(any_db: Database) -> None:
    """An item that breaks the database's rules is refused for good, or it would be tried for ever."""
    await any_db.write(_insert, "a")
    with pytest.raises(OurError):
        await any_db.write(_insert, "a", must=True)
    assert any_db._kept == []


async def test_no_bound_for_what_must_be_written(any_db: Database) -> None:
    """A full queue refuses no write that must be done."""
    waiting = [any_db.write(_nothing, number) for number in range(store.PENDING)]
    assert await any_db.write(_nothing, -1, must=True) == -1
    await asyncio.gather(*waiting)


async def test_close_writes_what_waits(database: Path) -> None:
    """Closing keeps every accepted write, refuses later ones, and can be repeated."""
    db = await Database.open(f"sqlite:///{database}", database.parent)
    waiting = [db.write(_insert, f"k{number}") for number in range(300)]
    await db.close()
    await db.close()
    assert [one.result() for one in waiting] == [f"k{number}" for number in range(300)]
    with pytest.raises(OurError):
        await db.write(_insert, "late")
    with sqlite3.connect(database) as other:
        assert other.execute("SELECT COUNT(*) FROM options").fetchone() == (300,)
    other.close()


@pytest.mark.parametrize("made", [store.upgrade, lambda url, base: asyncio.run(_opened(url, base))])
def test_a_new_file_is_its_owners_alone(tmp_path: Path, made: Callable[[str, Path], object]) -> None:
    """Whatever the umask lets through; a file that exists keeps its mode."""
    before = os.umask(0o022)
    try:
        made("sqlite:///new.db", tmp_path)
        assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600
        (tmp_path / "new.db").chmod(0o640)
        made("sqlite:///new.db", tmp_path)
        assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


async def _opened(url: str, base: Path) -> None:
    await (await Database.open(url, base, "normal")).close()


@pytest.mark.parametrize("made", [store.upgrade, lambda url, base: asyncio.run(_opened(url, base))])
def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, made: Callable[[str, Path], object]) -> None:
    """Somebody may have to make it."""
    with pytest.raises(OurError) as caught:
        made("sqlite:///nowhere/new.db", tmp_path)
    assert caught.value.message == f"The database's folder {tmp_path}/nowhere does not exist."


async def test_a_second_daemon_is_refused(db: Database, database: Path) -> None:
    """One daemon per file; when it is gone the next one may have it."""
    with pytest.raises(OurError) as caught:
        await Database.open(f"sqlite:///{database}", database.parent)
    assert caught.value.code == "database_in_use"
    await db.close()
    await (await Database.open(f"sqlite:///{database}", database.parent)).close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("sqlite://", "database_invalid"),
        ("sqlite:///:memory:", "database_invalid"),
        ("nonsense", "database_invalid"),
        ("sqlite:///missing/newapi.db", "ledger_unavailable"),
    ],
)
async def test_urls_that_cannot_be_opened(tmp_path: Path, url: str, code: str) -> None:
    """A URL that names no usable file is an error with a code, not a traceback."""
    with pytest.raises(OurError) as caught:
        await Database.open(url, tmp_path)
    assert caught.value.code == code


async def test_no_database(database: Path) -> None:
    """A file that is no database is refused and left as it is."""
    database.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(OurError) as caught:
        await Database.open(f"sqlite:///{database}", database.parent)
    assert caught.value.code == "ledger_unavailable"
    assert database.read_bytes().startswith(b"not a database")


async def test_reads_cannot_write(any_db: Database) -> None:
    """A read that tries to change something is refused by the database itself."""
    with pytest.raises(OurError):
        await any_db.read(lambda conn: _insert(conn, ["a"]))
    assert await any_db.read(_keys) == []


async def test_a_survey_sees_what_is_committed(any_db: Database) -> None:
    """The same as a report sees, on every engine; what is written there is not kept."""
    await any_db.write(_insert, "a")
    assert await any_db.survey(_keys) == await any_db.read(_keys) == ["a"]
    with suppress(OurError):
        await any_db.survey(lambda conn: _insert(conn, ["b"]))
    assert await any_db.read(_keys) == ["a"]


async def test_a_survey_sees_one_state(db: Database) -> None:
    """What is committed while a survey reads is seen by the next one: rows of several tables fit together."""
    loop = asyncio.get_running_loop()

    async def write() -> None:
        await db.write(_insert, "a")

    def look(conn: Connection) -> tuple[list[str], list[str]]:
        before = _keys(conn)
        asyncio.run_coroutine_threadsafe(write(), loop).result(10)
        return before, _keys(conn)

    assert await db.survey(look) == ([], [])
    assert await db.survey(_keys) == ["a"]


async def test_a_broken_survey_leaves_the_next_one_whole(db: Database) -> None:
    """What a survey raises reaches its caller, and its connection serves on."""
    with pytest.raises(ZeroDivisionError):
        await db.survey(lambda conn: 1 // len(_keys(conn)))
    with pytest.raises(OurError) as told:
        await db.survey(lambda conn: conn.exec_driver_sql("SELECT nonsense"))
    assert told.value.code == "ledger_unavailable"
    await db.write(_insert, "a")
    assert await db.survey(_keys) == ["a"]


WRITES = """
import sys
from pathlib import Path
from newapi_proxy.store import db, tokens
path = Path(sys.argv[1])
for number in range(20):
    with db.connect(f"sqlite:///{path}", path.parent) as conn:
        tokens.grant(conn, 1, 1)
"""


async def test_never_locked(db: Database, database: Path) -> None:
    """Neither the daemon nor the command line beside it ever hears that the database is locked (RF20)."""
    start = 10**9
    (one,) = await db.write(_people, [(start, start)])
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITES, str(database), cwd=laws.ROOT, stderr=asyncio.subprocess.PIPE
    )
    ended = asyncio.ensure_future(other.communicate())
    rounds = 0
    while not ended.done():
        ids = [f"r{rounds}-{number}" for number in range(16)]
        rounds += 1
        await asyncio.gather(*(db.write(ledger.hold, money.hold(id, one, 2)) for id in ids))
        await asyncio.gather(*(db.write(ledger.settle, money.settlement(id, one, 2, 1)) for id in ids))
    _, stderr = await ended
    assert (other.returncode, stderr) == (0, b"")
    left = await db.read(lambda conn: tokens_left(conn))
    assert left == start + 20 - 16 * rounds


def tokens_left(conn: Connection) -> int:
    """The first token's balance."""
    left: int = conn.execute(select(tokens.c.remain_quota)).scalars().one()
    return left


def _killed(database: Path, boot: str, lines: int) -> dict[str, int]:
    """Runs the hammer until it has said so many lines, kills it, and gives back what it said."""
    command: list[Any] = [sys.executable, "-m", "tests.fakes.hammer", database, boot]
    said: list[bytes] = []
    with subprocess.Popen(command, cwd=laws.ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while len(said) < lines and (line := process.stdout.readline()):
            said.append(line)
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    whole = [line.decode().split() for line in said if line.endswith(b"\n")]
    return {id: int(units) for id, units in whole}


def test_kill_at_random_points(database: Path) -> None:
    """kill -9 at any moment: what was told is in the ledger, the sums hold, and the next start frees the rest (RF1)."""
    rounds = 10
    balances = [(100_000_000, 100_000_000)] * ACCOUNTS
    with store.connect(f"sqlite:///{database}", database.parent) as conn:
        money.people(conn, balances)
    told: dict[str, int] = {}
    for boot in range(rounds):
        told |= _killed(database, f"b{boot}", random.randrange(1, 400))
        assert money.faults(database, balances) == []
    with store.connect(f"sqlite:///{database}", database.parent) as conn:
        ledger.recover(conn, ("last",), 5)
        assert audit.open_holds(conn) == 0
        assert audit.check(conn) == []
        rows = conn.execute(text("SELECT request_id, charged FROM ledger WHERE state = 'settled'")).all()
    settled = {id: units for id, units in rows}
    assert told
    assert told.items() <= settled.items()
    assert money.faults(database, balances) == []
