"""Tasks' rows on every engine: what is kept, who sees it, who may change it, and that a charge comes back once."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import Connection, select

from newapi_proxy.billing import audit, ledger, refunds
from newapi_proxy.ir.task import Shelf, Task
from newapi_proxy.store import adopting, logs, tasks
from newapi_proxy.store.row import made
from newapi_proxy.store.schema import channels, tokens, upgrades, users
from newapi_proxy.store.tasks import Job, Owner, Step
from newapi_proxy.tasks import books
from tests.fakes import money


def job(request_id: str, account: ledger.Account, shelf: Shelf = "midjourneys", **fields: object) -> Job:
    """A task that was submitted at second 1000."""
    given = {"task_id": f"t-{request_id}", "user_id": account.user_id, "channel_id": money.CHANNEL, "quota": 20}
    task = Task(**{**given, "action": "A", "submit_time": 1000, **fields})  # type: ignore[arg-type]
    return Job(request_id=request_id, shelf=shelf, token_id=account.token_id, created_at=1000, task=task)


def test_what_is_kept(conn: Connection) -> None:
    """A row of either table comes back as it went, whatever characters its texts have."""
    (one,) = money.people(conn, [(100, 100)])
    odd = "a\0b\U0001f600'\"%"
    for shelf, text in (("midjourneys", {"prompt": odd, "buttons": '[{"a":1}]'}), ("tasks", {"data": '[{"a":1}]'})):
        made = job(f"r-{shelf}", one, shelf, **text)  # type: ignore[arg-type]
        tasks.add(conn, made, "p")
        (found,) = tasks.own(conn, shelf, Owner(one.user_id), [made.task.task_id])  # type: ignore[arg-type]
        assert found.task.prompt in ("", odd.replace("\0", "\ufffd"))
        assert msgspec.structs.replace(found.task, id=0, prompt=made.task.prompt) == made.task
        assert tasks.paid_by(conn, made.request_id) == found
    assert tasks.waiting(conn) == {money.CHANNEL: 2}


def test_owners(conn: Connection) -> None:
    """A user sees the tasks of all of the user's keys; a key of the file its own only."""
    one, two = money.people(conn, [(100, 100), (100, 100)])
    same = ledger.Account(two.token_id, one.user_id, token_limited=True, user_limited=True)
    tasks.add(conn, job("a", one), "p")
    tasks.add(conn, job("b", same), "p")

    def seen(owner: Owner) -> list[str]:
        return [found.task.task_id for found in tasks.own(conn, "midjourneys", owner, ["t-a", "t-b", "t-c", "t-a", ""])]

    assert seen(Owner(one.user_id)) == ["t-a", "t-b"]
    assert seen(Owner(one.user_id, one.token_id)) == ["t-a"]
    assert seen(Owner(two.user_id)) == []
    assert tasks.foreign(conn, "midjourneys", money.CHANNEL, "t-a", Owner(two.user_id))
    assert not tasks.foreign(conn, "midjourneys", money.CHANNEL, "t-a", Owner(one.user_id))


def test_who_waited_longest(conn: Connection) -> None:
    """Those that were never asked after come first, then by their last time; those asked lately are left out."""
    (one,) = money.people(conn, [(100, 100)])
    for name in "abcd":
        tasks.add(conn, job(name, one, "tasks" if name == "d" else "midjourneys"), "p")
    assert tasks.touch(conn, ["a"], 50) == 1
    assert tasks.touch(conn, ["b"], 40) == 1
    due = [found.request_id for found in tasks.due(conn, money.CHANNEL, 45, 10)]
    assert due == ["d", "c", "b"] or due == ["c", "d", "b"]
    assert len(tasks.due(conn, money.CHANNEL, 100, 3)) == 3


def test_one_change_wins(conn: Connection) -> None:
    """Of two changes that were made from the same state the first is written; a finished task changes no more."""
    (one,) = money.people(conn, [(100, 100)])
    tasks.add(conn, job("a", one), "p")
    found = tasks.paid_by(conn, "a")
    assert found is not None
    running = msgspec.structs.replace(found.task, status="IN_PROGRESS", progress="31%")
    assert tasks.advance(conn, Step(found, running, 60))
    assert not tasks.advance(conn, Step(found, running, 61))
    again = tasks.paid_by(conn, "a")
    assert again is not None
    assert (again.task.progress, again.polled_at, again.version, again.open) == ("31%", 60, 1, True)
    done = msgspec.structs.replace(again.task, status="SUCCESS", progress="100%")
    assert tasks.advance(conn, Step(again, done, 62))
    last = tasks.paid_by(conn, "a")
    assert last is not None
    assert not tasks.advance(conn, Step(last, msgspec.structs.replace(done, status="FAILURE"), 63))
    assert tasks.waiting(conn) == {}


def test_a_task_that_somebody_else_finished(conn: Connection) -> None:
    """What New API has ended, and paid back in its way, is left as it is."""
    (one,) = money.people(conn, [(100, 100)])
    tasks.add(conn, job("a", one), "p")
    found = tasks.paid_by(conn, "a")
    assert found is not None
    finished = tasks.midjourneys.update().values(progress="100%", status="FAILURE")
    conn.execute(finished)
    failed = msgspec.structs.replace(found.task, status="FAILURE", progress="100%", fail_reason="x")
    assert books.advance(conn, [books.Move(request_id="a", step=Step(found, failed, 60))]) == [books.Moved(False)]
    assert tasks.waiting(conn) == {}


def test_a_refund_comes_once(conn: Connection) -> None:
    """A failure gives back what was charged, to balances and counters, and nothing a second time."""
    (one,) = money.people(conn, [(100, 100)])
    assert ledger.hold(conn, [money.hold("a", one, 20)]) == [None]
    end = books.Close(request_id="a", end=money.settlement("a", one, 20, 20), job=job("a", one), platform="p")
    assert books.close(conn, [end]) == [20]
    assert books.close(conn, [end]) == [None]
    assert len(tasks.latest(conn, "midjourneys", Owner(one.user_id), 9)) == 1
    found = tasks.paid_by(conn, "a")
    assert found is not None
    failed = msgspec.structs.replace(found.task, status="FAILURE", progress="100%", fail_reason="x")
    move = books.Move(request_id="a", step=Step(found, failed, 60))
    assert books.advance(conn, [move]) == [books.Moved(True, 20)]
    assert books.advance(conn, [move]) == [books.Moved(False)]
    back = refunds.Refund("a", 61, "again", logs.Entry(user_id=one.user_id, created_at=61, type=logs.REFUND))
    assert refunds.refund(conn, [back, back]) == [0, 0]
    assert conn.execute(select(tokens.c.remain_quota, tokens.c.used_quota)).one() == (100, 0)
    assert conn.execute(select(users.c.quota, users.c.used_quota)).one() == (100, 0)
    assert conn.execute(select(channels.c.used_quota)).scalar_one() == 0
    assert audit.check(conn) == []


def test_what_was_not_charged_does_not_come_back(conn: Connection) -> None:
    """A void, an unknown id and a charge of nothing give nothing back."""
    (one,) = money.people(conn, [(100, 100)])
    ledger.hold(conn, [money.hold("a", one, 20), money.hold("b", one, 0)])
    ledger.void(conn, [money.void("a", one, 20)])
    ledger.settle(conn, [money.settlement("b", one, 0, 0)])
    entry = logs.Entry(user_id=one.user_id, created_at=61, type=logs.REFUND)
    asked = [refunds.Refund(id, 61, "x", entry) for id in ("a", "b", "c")]
    assert refunds.refund(conn, asked) == [0, 0, 0]
    assert conn.execute(select(tokens.c.remain_quota)).scalar_one() == 100


def _found(conn: Connection, account: ledger.Account, **fields: object) -> int:
    """A picture of New API's, submitted a minute before its database came here; the row's id."""
    (came,) = conn.execute(select(upgrades.c.at).where(upgrades.c.name == adopting.UPGRADE)).scalars()
    given = {"user_id": account.user_id, "channel_id": money.CHANNEL, "mj_id": "t", "code": 1, "quota": 20}
    given |= {"submit_time": (came - 60) * 1000, "progress": "30%", "status": "IN_PROGRESS", **fields}
    return made(conn, tasks.midjourneys.insert().values(**given))


def _adopted(conn: Connection, *channels: int) -> list[int]:
    """The ids of rows that are taken over with these channels, in one go and once."""
    wanted = adopting.Adoption(shelf="midjourneys", platform="mj", ticks=1000, ids=frozenset(channels))
    (count,) = adopting.adopt(conn, [wanted])
    assert adopting.adopt(conn, [wanted]) == [0]
    ids = sorted(job.task.id for id in (money.CHANNEL, 99) for job in tasks.due(conn, id, 1, 100))
    assert len(ids) == count
    return ids


def test_what_another_program_left_open_is_taken_over(conn: Connection) -> None:
    """Open and paid for, of a channel that can be asked or is lost, and of the day before the database came here."""
    (one,) = money.people(conn, [(100, 100)])
    plain, queued, lost = _found(conn, one), _found(conn, one, code=22), _found(conn, one, channel_id=99)
    left: list[dict[str, object]] = [
        {"progress": "100%"},
        {"code": 21},
        {"code": 24},
        {"submit_time": 0},
        {"submit_time": 1000},
        {"submit_time": 10**14},
    ]
    for fields in left:
        _found(conn, one, **fields)
    tasks.add(conn, job("ours", one, code=1, progress="100%", status="SUCCESS"), "mj")
    assert _adopted(conn) == [lost]
    conn.execute(tasks.TABLE.delete().where(tasks.TABLE.c.request_id != "ours"))
    assert _adopted(conn, money.CHANNEL) == [plain, queued, lost]


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("noted", [True, False])
def test_what_another_program_took_comes_back_once(conn: Connection, noted: bool, limited: bool) -> None:
    """To the account that paid, and to its limited key where that is noted; never more than it took."""
    (one,) = money.people(conn, [(80 if limited else -1, 80)])
    for table in (tokens, users, channels):  # what New API does to them
        conn.execute(table.update().values(used_quota=20))
    row = _found(conn, one, token_id=one.token_id if noted else 0)
    assert _adopted(conn, money.CHANNEL) == [row]
    found = tasks.paid_by(conn, f"{adopting.MARK}midjourneys:{row}")
    assert found is not None
    failed = msgspec.structs.replace(found.task, status="FAILURE", progress="100%", fail_reason="x")
    move = books.Move(request_id=found.request_id, step=Step(found, failed, 60))
    assert books.advance(conn, [move, move]) == [books.Moved(True, 20), books.Moved(False)]
    assert conn.execute(select(users.c.quota, users.c.used_quota)).one() == (100, 0)
    left, used = conn.execute(select(tokens.c.remain_quota, tokens.c.used_quota)).one()
    assert (left, used) == ((100 if noted else 80) if limited else 0, 0 if noted else 20)
    assert conn.execute(select(channels.c.used_quota)).scalar_one() == 0
    assert audit.check(conn) == []
