"""Slots and sliding windows: never more than allowed, given back when promised, zero in the end."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from newapi_proxy.store import windows
from newapi_proxy.store.windows import Ceiling, Full, Grant, Memory, Rate
from tests.fakes.clock import Clock

MINUTE = 60.0


def ceiling(name: str = "a", slots: int | None = None, **rates: int) -> Ceiling:
    return Ceiling(
        f"token {name}",
        "token",
        name,
        slots,
        tuple(
            Rate(limit, 86400.0 if limit == "rpd" else MINUTE, most, limit == "tpm") for limit, most in rates.items()
        ),
    )


def stand(clock: Clock) -> Memory:
    return Memory(clock.monotonic)


async def taken(memory: Memory, *wanted: Ceiling, tokens: int = 0, least: int | None = None) -> Grant:
    grant = await memory.take(wanted, tokens, least)
    assert isinstance(grant, Grant)
    return grant


async def full(memory: Memory, *wanted: Ceiling, tokens: int = 0, least: int | None = None) -> Full:
    found = await memory.take(wanted, tokens, least)
    assert isinstance(found, Full)
    return found


async def test_slots() -> None:
    """As many at a time as there are slots; a slot that is given back twice is one slot."""
    memory, two = stand(Clock()), ceiling(slots=2)
    first, second = await taken(memory, two), await taken(memory, two)
    assert ((found := await full(memory, two)).limit, found.wait) == ("concurrency", 1.0)
    memory.release(first)
    memory.release(first)
    await taken(memory, two)
    assert (await full(memory, two)).limit == "concurrency"
    memory.release(second)
    assert [(one.limit, one.count) for one in memory.used()] == [("concurrency", 1)]


async def test_a_window_has_room_exactly_when_it_said() -> None:
    """The wait ends when the first request leaves the window, not a moment earlier or later."""
    clock = Clock()
    memory, three = stand(clock), ceiling(rpm=3)
    for pause in (10, 5, 0):
        await taken(memory, three)
        clock.pass_(pause)
    found = await full(memory, three)
    assert (found.limit, found.wait) == ("rpm", 45.0)
    clock.pass_(44.5)
    assert (await full(memory, three)).wait == 0.5
    clock.pass_(0.5)
    await taken(memory, three)
    assert (await full(memory, three)).wait == 10.0


async def test_a_refusal_takes_nothing() -> None:
    """Where one of several ceilings is reached, none of them is charged, and the longest wait is told."""
    clock = Clock()
    memory, wide, narrow = stand(clock), ceiling("wide", rpm=10, slots=10), ceiling("narrow", rpm=1, rpd=1)
    await taken(memory, narrow)
    found = await full(memory, wide, narrow)
    assert (found.ceiling.name, found.limit, found.wait) == ("narrow", "rpd", 86400.0)
    assert {(one.name, one.limit): one.count for one in memory.used()} == {("narrow", "concurrency"): 1} | {
        ("narrow", limit): 1 for limit in ("rpm", "rpd")
    }


async def test_tokens_are_reserved_and_corrected() -> None:
    """An estimate holds room until the end is known; what was not used is free at once, what was used more counts."""
    clock = Clock()
    memory, thousand = stand(clock), ceiling(tpm=1000)
    grant = await taken(memory, thousand, tokens=900)
    assert (await full(memory, thousand, tokens=101)).limit == "tpm"
    memory.correct(grant, 200)
    other = await taken(memory, thousand, tokens=800)
    memory.correct(other, 1500)
    assert (await full(memory, thousand, tokens=1)).wait == MINUTE
    clock.pass_(MINUTE)
    assert memory.used()[0].limit == "concurrency"
    memory.correct(other, 3)  # it has left the window: nothing to put right
    await taken(memory, thousand, tokens=1000)


async def test_what_can_never_fit_is_said_to_wait_for_ever() -> None:
    """A request larger than the window has no moment to wait for; a guess larger than it takes the window whole."""
    memory, thousand = stand(Clock()), ceiling(tpm=1000)
    assert (await full(memory, thousand, tokens=1001)).wait == math.inf
    await taken(memory, thousand, tokens=5000, least=10)
    assert (await full(memory, thousand, tokens=5000, least=10)).wait == MINUTE


async def test_a_cancelled_grant_leaves_no_trace() -> None:
    """Slots, requests and tokens come back."""
    memory, all_of_it = stand(Clock()), ceiling(slots=1, rpm=1, rpd=1, tpm=10)
    for _ in range(3):
        memory.cancel(await taken(memory, all_of_it, tokens=10))
    assert memory.used() == []


async def test_counters_outlive_their_numbers() -> None:
    """A limit that a reload changes applies to what has been taken before."""
    memory = stand(Clock())
    for _ in range(5):
        await taken(memory, ceiling(rpm=5))
    assert (await full(memory, ceiling(rpm=3))).limit == "rpm"
    await taken(memory, ceiling(rpm=6))


async def test_large_windows_stay_small() -> None:
    """However much is allowed, a window keeps some hundred entries, and never lets one leave too early."""
    clock = Clock()
    memory, day = stand(clock), ceiling(rpd=100_000)
    for _ in range(100_000):
        memory.release(await taken(memory, day))
        clock.pass_(0.5)
    (window,) = memory._counters["token a"].windows.values()
    assert len(window.entries) <= 2 * windows.EXACT
    found = await full(memory, day)
    assert 36_400 <= found.wait <= 36_400 + 86_400 / windows.EXACT
    clock.pass_(86_400.0 * (1 + 1 / windows.EXACT))
    assert memory.used() == []


async def test_what_is_recalled_leaves_when_it_would_have() -> None:
    """What was taken before the process began counts for the rest of its time, in the windows of its length."""
    clock = Clock()
    memory, limit = stand(clock), ceiling(rpm=4, rpd=100, tpm=50)
    memory.recall(limit, MINUTE, [(70.0, 9, 9), (30.0, 2, 20), (10.0, 1, 10)])
    await taken(memory, limit, tokens=20)
    found = await full(memory, limit)
    assert (found.limit, found.wait) == ("rpm", 30.0)
    clock.pass_(30)
    assert {one.limit: one.count for one in memory.used()} == {"concurrency": 1, "rpm": 2, "rpd": 1, "tpm": 30}


async def test_idle_subjects_are_forgotten() -> None:
    """Names that configurations had once do not pile up."""
    clock = Clock()
    memory = stand(clock)
    busy = await taken(memory, ceiling("busy", slots=1))
    for number in range(windows.MOST + 10):
        memory.release(await taken(memory, ceiling(f"old{number}", rpm=1)))
        clock.pass_(MINUTE)
    assert len(memory._counters) <= windows.MOST
    assert (await full(memory, ceiling("busy", slots=1))).limit == "concurrency"
    memory.release(busy)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=80), st.integers(40, 90))
async def test_no_interval_holds_more_than_allowed(asked: list[tuple[float, int]], most: int) -> None:
    """In any minute, wherever it begins, at most the allowed tokens were admitted."""
    clock = Clock()
    memory, limit = stand(clock), ceiling(tpm=most)
    admitted: list[tuple[float, int]] = []
    for pause, tokens in asked:
        clock.pass_(pause)
        if isinstance(await memory.take((limit,), tokens), Grant):
            admitted.append((clock.monotonic(), tokens))
    for begin, _ in admitted:
        assert sum(tokens for at, tokens in admitted if begin <= at < begin + MINUTE) <= most


class Machine(RuleBasedStateMachine):
    """Grants of several subjects in any order, against a list of what was taken that is added up each time."""

    grants = Bundle("grants")

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.memory = stand(self.clock)
        self.subjects = [ceiling("a", 2, rpm=4), ceiling("b", tpm=100), ceiling("c", 3, rpm=5, rpd=9, tpm=60)]
        self.held: dict[int, list[Any]] = {}  # number → [subjects, at, tokens, open, counted]
        self.count = 0

    @rule(target=grants, places=st.sets(st.integers(0, 2), min_size=1), tokens=st.integers(0, 70))
    def take(self, places: set[int], tokens: int) -> tuple[int, Grant | Full]:
        wanted = [self.subjects[place] for place in sorted(places)]
        try:
            self.memory.take(wanted, tokens).send(None)
        except StopIteration as done:
            found: Grant | Full = done.value
        self.count += 1
        room = all(
            self._sum(one, rate) + (tokens if rate.tokens else 1) <= rate.most for one in wanted for rate in one.rates
        )
        room &= all(one.slots is None or self._slots(one) < one.slots for one in wanted)
        assert isinstance(found, Grant) == room
        if room:
            self.held[self.count] = [wanted, self.clock.monotonic(), tokens, True, True]
        return self.count, found

    @rule(one=grants, tokens=st.integers(0, 150))
    def correct(self, one: tuple[int, Grant | Full], tokens: int) -> None:
        number, grant = one
        if isinstance(grant, Grant):
            self.memory.correct(grant, tokens)
            self.held[number][2] = tokens

    @rule(one=grants)
    def release(self, one: tuple[int, Grant | Full]) -> None:
        number, grant = one
        if isinstance(grant, Grant):
            self.memory.release(grant)
            self.held[number][3] = False

    @rule(one=grants)
    def cancel(self, one: tuple[int, Grant | Full]) -> None:
        number, grant = one
        if isinstance(grant, Grant):
            self.memory.cancel(grant)
            self.held[number][3:] = [False, False]

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 60.0, 86400.0]))
    def pass_(self, seconds: float) -> None:
        self.clock.pass_(seconds)

    def _slots(self, one: Ceiling) -> int:
        return sum(1 for wanted, _, _, running, _ in self.held.values() if running and one in wanted)

    def _sum(self, one: Ceiling, rate: Rate) -> int:
        return sum(
            tokens if rate.tokens else 1
            for wanted, at, tokens, _, counted in self.held.values()
            if counted and one in wanted and at + rate.seconds > self.clock.monotonic()
        )

    @invariant()
    def sums(self) -> None:
        expected = {(one.name, "concurrency"): self._slots(one) for one in self.subjects}
        expected |= {(one.name, rate.name): self._sum(one, rate) for one in self.subjects for rate in one.rates}
        found = {(one.name, one.limit): one.count for one in self.memory.used()}
        assert found == {key: count for key, count in expected.items() if count}


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30)
