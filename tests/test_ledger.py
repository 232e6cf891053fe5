"""The ledger: what a hold, a settlement and a void do, alone, in batches, twice, in any order, across crashes."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from sqlalchemy import Connection, select

from newapi_proxy.billing import audit, budgets, ledger, records, refunds
from newapi_proxy.billing.budgets import Every, Window
from newapi_proxy.billing.extending import More, extend
from newapi_proxy.store import db, sqlite
from newapi_proxy.store import logs as log_rows
from newapi_proxy.store.schema import channels, logs, tokens, users
from tests.fakes import money


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    """One committed transaction."""
    with db.connect(f"sqlite:///{path}", path.parent) as conn:
        yield conn


def _balance(conn: Connection, account: ledger.Account) -> tuple[int, int]:
    token = conn.execute(select(tokens.c.remain_quota).where(tokens.c.id == account.token_id)).scalar_one()
    user = conn.execute(select(users.c.quota).where(users.c.id == account.user_id)).scalar_one()
    return token, user


def test_hold_takes_both_or_none(conn: Connection) -> None:
    """A hold lowers the token's and the user's balance together, and neither where one of them lacks."""
    rich, poor_user, poor_token = money.people(conn, [(100, 100), (100, 5), (5, 100)])
    asked = [money.hold("a", rich, 10), money.hold("b", poor_user, 10), money.hold("c", poor_token, 10)]
    assert ledger.hold(conn, asked) == [None, "user", "token"]
    assert [_balance(conn, one) for one in (rich, poor_user, poor_token)] == [(90, 90), (100, 5), (5, 100)]
    assert records.explain(conn, "b") is None


def test_hold_again_is_a_duplicate(conn: Connection) -> None:
    """An id that the ledger knows is refused with a name of its own and moves nothing, whatever became of it."""
    (one,) = money.people(conn, [(100, 100)])
    assert ledger.hold(conn, [money.hold("a", one, 60), money.hold("a", one, 10)]) == [None, "duplicate"]
    assert ledger.hold(conn, [money.hold("a", one, 10)]) == ["duplicate"]
    assert ledger.hold(conn, [money.hold("a", one, 60)]) == ["duplicate"]
    ledger.settle(conn, [money.settlement("a", one, 60, 20)])
    assert ledger.hold(conn, [money.hold("a", one, 10), money.hold("b", one, 10)]) == ["duplicate", None]
    assert _balance(conn, one) == (70, 70)


def test_hold_of_nothing_is_written(conn: Connection) -> None:
    """A hold of 0 needs no balance and still leaves its row."""
    (one,) = money.people(conn, [(0, 0)])
    assert ledger.hold(conn, [money.hold("a", one, 0)]) == [None]
    assert ledger.settle(conn, [money.settlement("a", one, 0, 0)]) == [0]


def test_unlimited_sides_do_not_move(conn: Connection) -> None:
    """An unlimited token or user has no balance that moves, and counts what was used all the same."""
    free, half = money.people(conn, [(-1, -1), (-1, 50)])
    ledger.hold(conn, [money.hold("a", free, 10), money.hold("b", half, 10)])
    ledger.settle(conn, [money.settlement("a", free, 10, 30), money.settlement("b", half, 10, 30)])
    assert [_balance(conn, one) for one in (free, half)] == [(0, 0), (0, 20)]
    assert conn.execute(select(tokens.c.used_quota)).scalars().all() == [30, 30]
    assert conn.execute(select(users.c.used_quota, users.c.request_count)).all() == [(30, 1), (30, 1)]
    assert conn.execute(select(channels.c.used_quota)).scalar_one() == 60


@pytest.mark.parametrize(
    ("balance", "held", "charge", "taken", "left"),
    [(100, 40, 10, 10, 90), (100, 40, 40, 40, 60), (100, 40, 70, 70, 30), (50, 40, 70, 50, 0), (40, 40, 70, 40, 0)],
)
def test_settle_takes_the_difference(
    conn: Connection, balance: int, held: int, charge: int, taken: int, left: int
) -> None:
    """The rest of a hold goes back; what is above it is taken as far as the poorer balance reaches."""
    one, _ = money.people(conn, [(balance, 1000), (1, 1)])
    ledger.hold(conn, [money.hold("a", one, held)])
    assert ledger.settle(conn, [money.settlement("a", one, held, charge)]) == [taken]
    assert _balance(conn, one) == (left, 1000 - taken)
    found = records.explain(conn, "a")
    assert found is not None
    assert (found.state, found.charged, found.shortfall, found.detail) == (
        "settled",
        taken,
        charge - taken,
        '{"steps":[]}',
    )
    assert conn.execute(select(logs.c.quota)).scalar_one() == taken


def test_settle_once(conn: Connection) -> None:
    """A second resolve of any kind says so and moves nothing, in one batch or later."""
    (one,) = money.people(conn, [(100, 100)])
    ledger.hold(conn, [money.hold("a", one, 40), money.hold("b", one, 10)])
    again = money.settlement("a", one, 40, 25)
    assert ledger.settle(conn, [again, again, money.settlement("x", one, 1, 1)]) == [25, None, None]
    assert ledger.settle(conn, [again]) == [None]
    assert ledger.void(conn, [money.void("a", one, 40), money.void("b", one, 10), money.void("b", one, 10)]) == [
        False,
        True,
        False,
    ]
    assert ledger.settle(conn, [money.settlement("b", one, 10, 10)]) == [None]
    assert _balance(conn, one) == (75, 75)
    assert len(conn.execute(select(logs.c.id)).all()) == 1


def test_settle_with_another_sum_than_held(conn: Connection) -> None:
    """A resolve that is wrong about what was held moves nothing."""
    (one,) = money.people(conn, [(100, 100)])
    ledger.hold(conn, [money.hold("a", one, 40)])
    assert ledger.settle(conn, [money.settlement("a", one, 50, 5)]) == [None]
    assert ledger.void(conn, [money.void("a", one, 50)]) == [False]
    assert _balance(conn, one) == (60, 60)


def test_a_poor_account_does_not_hurt_its_neighbours(conn: Connection) -> None:
    """In one batch each hold is decided on its own, in the order of arrival."""
    one, other = money.people(conn, [(30, 1000), (1000, 1000)])
    asked = [money.hold(f"r{i}", other if i % 2 else one, 10) for i in range(80)]
    answers = ledger.hold(conn, asked)
    assert [answer for i, answer in enumerate(answers) if i % 2 == 0] == [None] * 3 + ["token"] * 37
    assert [answer for i, answer in enumerate(answers) if i % 2] == [None] * 40
    assert (_balance(conn, one), _balance(conn, other)) == ((0, 970), (600, 600))


def test_five_hundred_for_fifty(conn: Connection) -> None:
    """500 holds on a balance for exactly 50: exactly 50 are given (RF3)."""
    (one,) = money.people(conn, [(500, 10_000)])
    answers = ledger.hold(conn, [money.hold(f"r{i}", one, 10) for i in range(500)])
    assert answers == [None] * 50 + ["token"] * 450
    assert _balance(conn, one) == (0, 9500)


def test_null_balances_count_as_nothing(conn: Connection) -> None:
    """Inherited rows may hold NULL where a number is due: they can be charged and counted."""
    (one,) = money.people(conn, [(100, -1)])
    for table in (tokens, users, channels):
        conn.execute(table.update().values(used_quota=None))
    conn.execute(users.update().values(request_count=None))
    ledger.hold(conn, [money.hold("a", one, 10)])
    ledger.settle(conn, [money.settlement("a", one, 10, 4)])
    assert conn.execute(select(users.c.used_quota, users.c.request_count)).one() == (4, 1)
    assert conn.execute(select(tokens.c.remain_quota, tokens.c.used_quota)).one() == (96, 4)


def test_recover_gives_back_what_other_boots_hold(conn: Connection) -> None:
    """Holds of ended processes are voided, more than one batch of them; those of the living stay."""
    (one,) = money.people(conn, [(10_000, 10_000)])
    ledger.hold(conn, [money.hold(f"old{i}", one, 3, "before") for i in range(1200)])
    ledger.hold(conn, [money.hold("mine", one, 5, "now")])
    assert ledger.recover(conn, ("now", "before"), 2000) == 0
    assert ledger.recover(conn, ("now",), 2000) == 1200
    assert ledger.recover(conn, ("now",), 2000) == 0
    assert _balance(conn, one) == (9995, 9995)
    assert audit.open_holds(conn) == 1
    found = records.explain(conn, "old7")
    assert found is not None
    assert (found.state, found.resolved_at) == ("voided", 2000)


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE tokens SET remain_quota = -1",
        "UPDATE users SET quota = -1",
        "UPDATE tokens SET used_quota = 3",
        "UPDATE channels SET used_quota = 3",
        "UPDATE logs SET quota = 3",
        "UPDATE ledger SET state = 'gone'",
        "UPDATE ledger SET resolved_at = NULL",
        "INSERT INTO proxy_tokens (token_id, granted) VALUES (1, 99)",
        "UPDATE proxy_budgets SET used = 24",
        "DELETE FROM proxy_budgets",
    ],
)
def test_audit_finds_harm(conn: Connection, harm: str) -> None:
    """The audit is silent about a good ledger and says what was changed in a bad one."""
    (one,) = money.people(conn, [(100, 100)])
    day = (Window("day", 0, 86_400, 50),)
    ledger.hold(conn, [money.hold("a", one, 40, windows=day)])
    ledger.settle(conn, [money.settlement("a", one, 40, 25, day)])
    assert audit.check(conn) == []
    conn.exec_driver_sql(harm)
    assert len(audit.check(conn)) == 1


@pytest.mark.parametrize("state", ["held", "lost"])
def test_a_hold_is_its_owners(conn: Connection, state: str) -> None:
    """Who names another's hold, to the unit, ends nothing of it and gets nothing from it."""
    one, other = money.people(conn, [(100, -1), (100, -1)])
    assert ledger.hold(conn, [money.hold("r", one, 40, "b")]) == [None]
    if state == "lost":
        assert ledger.recover(conn, ("c",), 2000) == 1
    assert ledger.void(conn, [money.void("r", other, 40)]) == [False]
    assert ledger.settle(conn, [money.settlement("r", other, 40, 10)]) == [None]
    assert extend(conn, [More(money.hold("r", other, 40, "b"), 5)]) == ["duplicate"]
    left = [100 if state == "lost" else 60, 100]
    assert list(conn.execute(select(tokens.c.remain_quota).order_by(tokens.c.id)).scalars()) == left
    if state == "held":
        assert extend(conn, [More(money.hold("r", one, 40, "b"), 60)]) == [None]
        assert extend(conn, [More(money.hold("r", one, 100, "b"), 1)]) == ["token"]
        assert ledger.settle(conn, [money.settlement("r", one, 100, 90)]) == [90]


BALANCES: Final = [(60, 90), (40, -1), (-1, 50), (-1, -1), (0, 30)]
BUDGETS: Final[list[dict[Every, int]]] = [
    {"day": 30},
    {"day": 25, "month": 60},
    {},
    {"day": 35, "week": 60, "month": 100},
    {"week": 20},
]
ZONE: Final = ZoneInfo("Europe/Berlin")
BEGIN: Final = 1_774_652_000  # the night before the clocks go forward, of a Saturday near a month's end


class Machine(RuleBasedStateMachine):
    """Holds, settlements, voids, refunds, recoveries, crashes, repetitions, clock jumps: any order keeps the sums."""

    holds = Bundle("holds")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.db"
        self.boot, self.ids = 0, 0
        self.state: dict[str, str] = {}
        self.at = BEGIN
        self.used: Counter[tuple[int, str, int]] = Counter()
        self.holds: dict[str, ledger.Hold] = {}
        self.refunded: set[str] = set()
        self.ended: set[str] = set()  # given back by a recovery: who is alive all the same may still charge
        with connected(self.path) as conn:
            self.accounts = money.people(conn, BALANCES)
        self.conn = sqlite.engine(self.path, "normal").connect()

    def _write(self, change: Callable[[Connection], Any], crash: bool = False) -> Any:
        raw: Any = self.conn.connection.dbapi_connection
        raw.execute("BEGIN IMMEDIATE")
        result = change(self.conn)
        if crash:
            raw.rollback()
        else:
            raw.commit()
        self.conn.rollback()
        return result

    @rule(target=holds, wanted=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), min_size=1, max_size=6))
    def hold(self, wanted: list[tuple[int, int]]) -> Any:
        made = []
        for place, amount in wanted:
            self.ids += 1
            windows = tuple(budgets.window(every, self.at, most, ZONE) for every, most in BUDGETS[place].items())
            made.append(money.hold(f"r{self.ids}", self.accounts[place], amount, str(self.boot), windows))
        answers = self._write(lambda conn: ledger.hold(conn, made))
        given = []
        for one, answer in zip(made, answers, strict=True):
            lacking = [window.every for window in one.windows if self._count(one, window) + one.amount > window.amount]
            assert answer in {None, "token", "user", *lacking}
            if answer is None:
                assert not lacking or not one.amount
                given.append(one)
                self.holds[one.request_id] = one
                self._spend(one, one.amount)
        self.state.update({one.request_id: "held" for one in given})
        return multiple(*given)

    def _count(self, one: ledger.Hold, window: budgets.Window) -> int:
        return self.used[one.account.token_id, window.every, window.starts]

    def _spend(self, one: ledger.Hold, units: int) -> None:
        for window in one.windows:
            self.used[one.account.token_id, window.every, window.starts] += units

    @rule(seconds=st.sampled_from([1, 1800, 3600, -3600, 86_400, -86_400, 7 * 86_400, 31 * 86_400]))
    def clock(self, seconds: int) -> None:
        """Time passes, or somebody sets the clock."""
        self.at += seconds

    @rule(one=holds, amount=st.integers(0, 5))
    def hold_again(self, one: ledger.Hold, amount: int) -> None:
        again = money.hold(one.request_id, one.account, amount)
        assert self._write(lambda conn: ledger.hold(conn, [again])) == ["duplicate"]

    @rule(target=holds, one=holds, amount=st.integers(1, 40), foreign=st.booleans())
    def extend(self, one: ledger.Hold, amount: int, foreign: bool) -> Any:
        account = next(other for other in self.accounts if other != one.account) if foreign else one.account
        asked = More(msgspec.structs.replace(one, account=account), amount)
        (answer,) = self._write(lambda conn: extend(conn, [asked]))
        open = self.state[one.request_id] == "held" and self.holds[one.request_id] is one and not foreign
        lacking = [window.every for window in one.windows if self._count(one, window) + amount > window.amount]
        if answer is not None:
            assert answer in {"token", "user", *lacking} or (answer == "duplicate" and not open)
            return multiple()
        assert open
        assert not lacking
        more = self.holds[one.request_id] = msgspec.structs.replace(one, amount=one.amount + amount)
        self._spend(more, amount)
        return more

    @rule(ends=st.lists(st.tuples(holds, st.integers(0, 80)), min_size=1, max_size=6), crash=st.booleans())
    def settle(self, ends: list[tuple[ledger.Hold, int]], crash: bool) -> None:
        ends = [(self.holds[one.request_id], charge) for one, charge in ends]
        asked = [money.settlement(one.request_id, one.account, one.amount, charge, one.windows) for one, charge in ends]
        answers = self._write(lambda conn: ledger.settle(conn, asked), crash)
        for (one, charge), taken in zip(ends, answers, strict=True):
            ended = one.request_id in self.ended
            held = 0 if ended else one.amount
            assert (taken is not None) == (ended or self.state[one.request_id] == "held") or crash
            assert taken is None or min(charge, held) <= taken <= charge
            if taken is not None and not crash:
                self.state[one.request_id] = "settled"
                self.ended.discard(one.request_id)
                self._spend(one, taken - held)

    @rule(ends=st.lists(holds, min_size=1, max_size=6))
    def void(self, ends: list[ledger.Hold]) -> None:
        ends = [self.holds[one.request_id] for one in ends]
        asked = [money.void(one.request_id, one.account, one.amount, one.windows) for one in ends]
        answers = self._write(lambda conn: ledger.void(conn, asked))
        for one, done in zip(ends, answers, strict=True):
            assert done == (self.state[one.request_id] == "held")
            if done:
                self.state[one.request_id] = "voided"
                self._spend(one, -one.amount)

    @rule(ends=st.lists(holds, min_size=1, max_size=4), crash=st.booleans())
    def refund(self, ends: list[ledger.Hold], crash: bool) -> None:
        entry = log_rows.Entry(user_id=1, created_at=2000, type=log_rows.REFUND)
        asked = [refunds.Refund(one.request_id, 2000, "test", entry) for one in ends]
        answers = self._write(lambda conn: refunds.refund(conn, asked), crash)
        for one, units in zip(ends, answers, strict=True):
            assert not units or (self.state[one.request_id] == "settled" and one.request_id not in self.refunded)
            if units and not crash:
                self.refunded.add(one.request_id)
                self._spend(one, -units)

    @rule()
    def crash_and_recover(self) -> None:
        self.conn.close()
        self.conn = sqlite.engine(self.path, "normal").connect()
        self.boot += 1
        count = self._write(lambda conn: ledger.recover(conn, (str(self.boot),), 2000))
        assert count == sum(state == "held" for state in self.state.values())
        for id, state in self.state.items():
            if state == "held":
                self.state[id] = "voided"
                self.ended.add(id)
                self._spend(self.holds[id], -self.holds[id].amount)

    @invariant()
    def sums(self) -> None:
        assert money.faults(self.path, BALANCES) == []

    @invariant()
    def states(self) -> None:
        rows = self._write(lambda conn: conn.exec_driver_sql("SELECT request_id, state FROM ledger").all())
        back = {f"{refunds.MARK}{id}": "refunded" for id in self.refunded}
        assert {id: state for id, state in rows} == self.state | back

    @invariant()
    def allowances(self) -> None:
        rows = self._write(lambda conn: budgets.everything(conn))
        assert {key: units for key, units in rows.items() if units} == {
            k: units for k, units in self.used.items() if units
        }
        amounts = {place + 1: allowance for place, allowance in enumerate(BUDGETS)}
        assert all(0 <= units <= amounts[id].get(every, 0) for (id, every, _), units in rows.items())

    def teardown(self) -> None:
        assert self._write(audit.check) == []
        self.conn.close()
        shutil.rmtree(self.folder)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=25)
