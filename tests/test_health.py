"""Breakers and parked keys."""

from __future__ import annotations

from newapi_proxy.adapters.base import Adapter, Options
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.relay import health as states
from newapi_proxy.relay.health import Health, Lasting
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel


class Hands:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def made(auto_disable: bool = True, key: str = "k") -> Channel:
    return Channel(
        name="a",
        id=1,
        adapter=Adapter(name="plain"),
        base_url="",
        keys=(Secret(key), Secret("other")),
        models=("m",),
        groups=("default",),
        auto_disable=auto_disable,
        options=Options(),
    )


def fresh() -> tuple[Health, Hands, list[int]]:
    hands, told = Hands(), []
    return Health(hands, lambda channel, state: told.append(state)), hands, told


BROKEN = UpstreamFailure("x", upstream_status=503)
DEAD = UpstreamFailure("x", upstream_status=401, kind="upstream_auth", blames="key")


def test_one_stray_failure_in_a_hundred_never_opens_a_channel() -> None:
    """The breaker goes by rate, not by a single hit."""
    health, _, told = fresh()
    for n in range(200):
        health.failed(made(), 0, BROKEN, trial=False) if n % 100 == 50 else health.succeeded(made(), 0, trial=False)
    assert health.usable(made(), 0)
    assert told == []


def test_a_failing_channel_opens_tries_once_and_closes_on_success() -> None:
    """Open, half-open with one trial at a time, closed again."""
    health, hands, told = fresh()
    for _ in range(states.MIN_VOLUME):
        health.failed(made(), 0, BROKEN, trial=False)
    assert not health.usable(made(), 0)
    hands.now += states.COOL_DOWN
    assert health.usable(made(), 0)
    assert health.began(made())
    assert not health.usable(made(), 0)
    health.succeeded(made(), 0, trial=True)
    assert health.usable(made(), 0)
    assert told == [states.OPEN, states.HALF_OPEN, states.CLOSED]


def test_a_failed_trial_doubles_the_pause() -> None:
    """Each failed trial waits twice as long for the next."""
    health, hands, _ = fresh()
    for _ in range(states.MIN_VOLUME):
        health.failed(made(), 0, BROKEN, trial=False)
    hands.now += states.COOL_DOWN
    assert health.began(made())
    health.failed(made(), 0, BROKEN, trial=True)
    assert health.wait(made(), 0) == 2 * states.COOL_DOWN


def test_a_dead_key_is_parked_at_once_and_alone() -> None:
    """A refused credential rests, the channel's other key serves on, a replaced key is not held responsible."""
    health, hands, _ = fresh()
    health.failed(made(), 0, DEAD, trial=False)
    assert not health.usable(made(), 0)
    assert health.usable(made(), 1)
    assert health.usable(made(key="new"), 0)
    hands.now += states.KEY_PAUSE
    assert health.usable(made(), 0)


def test_a_rate_limit_rests_as_long_as_upstream_asks() -> None:
    """Retry-After is the pause, bounded by an hour."""
    health, _, _ = fresh()
    health.failed(
        made(),
        0,
        UpstreamFailure("x", upstream_status=429, kind="rate_limit", blames="key", retry_after=42),
        trial=False,
    )
    assert health.wait(made(), 0) == 42
    health.failed(
        made(),
        1,
        UpstreamFailure("x", upstream_status=429, kind="rate_limit", blames="key", retry_after=1e9),
        trial=False,
    )
    assert health.wait(made(), 1) == states.LONGEST


def test_auto_disable_off_is_never_held_back() -> None:
    """A channel that must stay in use stays in use."""
    health, _, told = fresh()
    for _ in range(50):
        health.failed(made(auto_disable=False), 0, DEAD, trial=False)
        health.failed(made(auto_disable=False), 0, BROKEN, trial=False)
    assert health.usable(made(auto_disable=False), 0)
    assert told == []


def test_a_fault_of_the_request_blames_nobody() -> None:
    """What the client did wrong is not held against a channel."""
    health, _, _ = fresh()
    for _ in range(50):
        health.failed(made(), 0, UpstreamFailure("x", upstream_status=400, blames="nobody"), trial=False)
    assert health.usable(made(), 0)


def test_only_the_trial_decides_about_a_resting_channel() -> None:
    """What was under way before neither closes the breaker, nor frees a second trial, nor doubles the pause."""
    health, hands, told = fresh()
    for _ in range(states.MIN_VOLUME):
        health.failed(made(), 0, BROKEN, trial=False)
    health.succeeded(made(), 0, trial=False)
    health.failed(made(), 0, BROKEN, trial=False)
    assert health.wait(made(), 0) == states.COOL_DOWN
    hands.now += states.COOL_DOWN
    assert health.began(made())
    assert not health.began(made())
    health.released(made(), trial=False)
    assert not health.usable(made(), 0)
    health.released(made(), trial=True)
    assert health.usable(made(), 0)
    assert told == [states.OPEN, states.HALF_OPEN]


def test_a_channel_that_was_moved_is_not_held_responsible() -> None:
    """Another address or other keys after a reload begin anew."""
    health, _, _ = fresh()
    for _ in range(states.MIN_VOLUME):
        health.failed(made(), 0, BROKEN, trial=False)
    assert not health.usable(made(), 0)
    assert health.usable(made(key="new"), 0)


class Paper:
    """Notes that are kept as they come."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Lasting | None]] = []

    def rested(self, channel: Channel, mark: str, lasting: Lasting) -> None:
        self.lines.append((channel.name, mark, lasting))

    def woke(self, channel: Channel, mark: str) -> None:
        self.lines.append((channel.name, mark, None))


def noted() -> tuple[Health, Hands, Paper]:
    hands, paper = Hands(), Paper()
    return Health(hands, lambda channel, state: None, paper), hands, paper


LIMITED = UpstreamFailure("x", upstream_status=429, kind="rate_limit", blames="key")


def test_rests_are_noted_and_taken_up_by_another_life() -> None:
    """A dead key and an open channel are noted with how long, a mere limit of rate is not; their end is noted too."""
    health, _, paper = noted()
    health.failed(made(), 0, LIMITED, trial=False)
    assert paper.lines == []
    health.failed(made(), 0, DEAD, trial=False)
    health.failed(made(), 1, DEAD, trial=False)
    (_, first, one), (_, second, two) = paper.lines
    assert one is not None
    assert two is not None
    assert (one.seconds, one.reason, one.whole, two.whole) == (600.0, "upstream_auth 401", False, True)
    later, _, again = noted()
    assert later.restore(made(), first, 500.0, 0.0)
    assert not later.restore(made(key="turned"), first, 500.0, 0.0)
    assert (later.wait(made(), 0), later.wait(made(), 1)) == (500.0, 0.0)
    later.succeeded(made(), 0, trial=False)
    assert again.lines == [("a", first, None)]
    assert first != second


def test_an_open_channel_is_taken_up_with_its_pause() -> None:
    """What was left of the pause is waited for, one trial is let in after it, and the next pause is twice as long."""
    health, _, paper = noted()
    for _ in range(5):
        health.failed(made(), 0, BROKEN, trial=False)
    ((_, mark, lasting),) = paper.lines
    assert lasting is not None
    assert (lasting.seconds, lasting.pause, lasting.whole) == (30.0, 30.0, True)
    later, hands, again = noted()
    assert later.restore(made(), mark, 10.0, 30.0)
    assert later.wait(made(), 0) == 10.0
    hands.now += 10.0
    assert later.began(made())
    later.failed(made(), 0, BROKEN, trial=True)
    assert later.wait(made(), 0) == 60.0
    later.wake("a")
    assert later.usable(made(), 0)
    assert [line for _, _, line in again.lines if line is None] == []
