"""Which channel and key a request tries, and what is worth a retry."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from newapi_proxy.adapters.base import Adapter, Options
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.relay.plan import Plan, Turns, mapped, retries
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel, matches

PLAIN = Adapter(name="plain")
CLAUDE_LIKE = Adapter(name="retrying", retry_400=True)


def channel(name: str, *, keys: int = 1, weight: int = 1, priority: int = 0, adapter: Adapter = PLAIN) -> Channel:
    return Channel(
        name=name,
        id=1,
        adapter=adapter,
        base_url="http://h",
        keys=tuple(Secret(f"{name}-{n}") for n in range(keys)),
        models=("m",),
        groups=("default",),
        weight=weight,
        priority=priority,
        options=Options(),
    )


def plan(*tiers: list[Channel], usable=lambda channel, key: True) -> Plan:
    return Plan(tiers, Turns(), usable)


def names(plan: Plan, count: int) -> list[str]:
    found = []
    for _ in range(count):
        candidate = plan.next()
        if candidate is None:
            break
        found.append(f"{candidate.channel.name}{candidate.key}")
    return found


def test_first_retry_stays_in_the_tier_then_each_goes_lower() -> None:
    """The order of decision 18: same tier once, then one tier lower each time, the lowest used up last."""
    tiers = [[channel("a"), channel("b"), channel("c")], [channel("d"), channel("e")], [channel("f"), channel("g")]]
    assert [name[0] for name in names(plan(*tiers), 5)] == ["a", "b", "d", "f", "g"]


def test_a_lone_channel_in_the_top_tier_is_followed_by_the_next_tier() -> None:
    """Without another channel in the first tier the first retry goes lower."""
    assert names(plan([channel("a")], [channel("b")]), 9) == ["a0", "b0"]


def test_a_full_pair_is_passed_over() -> None:
    """What is full counts as no attempt: the order goes on as if it were not there, for a key or a whole channel."""
    one = plan([channel("a", keys=2), channel("b")], [channel("c")])
    first = one.next()
    assert first is not None
    one.full(first, whole=False)
    assert names(one, 9) == ["b0", "a1", "c0"]
    other = plan([channel("a", keys=2), channel("b")], [channel("c")])
    first = other.next()
    assert first is not None
    other.full(first, whole=True)
    assert names(other, 9) == ["b0", "c0"]
    assert other.next() is None


def test_no_pair_is_tried_twice_and_all_are_tried() -> None:
    """Every (channel, key) pair comes exactly once, whatever the tiers."""
    tried = names(plan([channel("a", keys=3), channel("b")], [channel("c", keys=2)]), 99)
    assert sorted(tried) == ["a0", "a1", "a2", "b0", "c0", "c1"]


def test_keys_take_turns_over_requests() -> None:
    """A channel's keys are used evenly by one request after the other."""
    turns = Turns()
    lone = channel("a", keys=3)
    picks = Counter(Plan([[lone]], turns, lambda channel, key: True).next().key for _ in range(30))
    assert picks == {0: 10, 1: 10, 2: 10}


def test_weights_hold_over_any_short_window() -> None:
    """Any window of the weights' sum deviates by at most one from the weights."""
    turns = Turns()
    tier = [channel("a", weight=5), channel("b", weight=3), channel("c", weight=0)]
    picks = [turns.pick(tier).name for _ in range(90)]
    for start in range(80):
        window = Counter(picks[start : start + 9])
        assert abs(window["a"] - 5) <= 1
        assert abs(window["b"] - 3) <= 1
        assert abs(window["c"] - 1) <= 1


def test_what_may_not_be_used_is_passed_over() -> None:
    """A parked key or an open channel is never given."""
    bad = {("a", 0), ("b", 0)}
    found = plan(
        [channel("a", keys=2), channel("b")],
        [channel("c")],
        usable=lambda channel, key: (channel.name, key) not in bad,
    )
    assert names(found, 9) == ["a1", "c0"]


def test_a_skipped_channel_costs_no_pick_and_does_not_come_back() -> None:
    """A channel that cannot express the request leaves the order of the others as it was."""
    found = plan([channel("a", keys=2), channel("b"), channel("c")])
    first = found.next()
    found.skip(first)
    assert [name[0] for name in names(found, 9)] == ["b", "c"]


def test_a_skipped_channel_leaves_its_tier_to_the_others() -> None:
    """The next pick comes from the tier that the skipped one was in."""
    found = plan([channel("a"), channel("b")], [channel("c")])
    found.skip(found.next())
    assert [name[0] for name in names(found, 9)] == ["b", "c"]


def test_what_was_only_held_back_is_told() -> None:
    """After the last pick it is known whether somebody is left who rests."""
    found = plan([channel("a"), channel("b")], usable=lambda channel, key: channel.name == "a")
    found.skip(found.next())
    assert found.next() is None
    assert found.resting
    spent = plan([channel("a")])
    names(spent, 9)
    assert not spent.resting


@pytest.mark.parametrize(
    ("status", "again"),
    [
        *((status, False) for status in (400, 408, 504, 524)),
        *((status, True) for status in (0, 307, 401, 403, 404, 413, 422, 429, 500, 502, 503, 529)),
    ],
)
def test_the_inherited_retry_table(status: int, again: bool) -> None:
    """Each status is retried or not as relay-and-billing 4.5 lists it."""
    assert retries(UpstreamFailure("x", upstream_status=status), channel("a"), (400, 504, 524)) is again


def test_a_status_rewritten_by_the_channel_is_what_retry_sees() -> None:
    """status_code_mapping 400 → 500 makes a 400 retryable, 500 → 400 the other way round."""
    up = msgspec.structs.replace(channel("a"), status_code_mapping={400: 500, 500: 400})
    assert mapped(UpstreamFailure("x", upstream_status=400), up) == 500
    assert retries(UpstreamFailure("x", upstream_status=400), up, (400,))
    assert not retries(UpstreamFailure("x", upstream_status=500), up, (400,))


def test_a_400_is_retried_where_the_provider_says_so() -> None:
    """The inherited rule for channel number 14 is a field of the adapter's record."""
    failure = UpstreamFailure("x", upstream_status=400)
    assert retries(failure, channel("a", adapter=CLAUDE_LIKE), (400, 504, 524))


def test_an_error_inside_a_success_is_retried_unless_the_request_is_at_fault() -> None:
    """A 200 that carries an overload moves on, one that carries a bad request does not."""
    assert retries(UpstreamFailure("x", upstream_status=200, kind="overloaded"), channel("a"), (400,))
    assert not retries(UpstreamFailure("x", upstream_status=200, kind="bad_request"), channel("a"), (400,))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4-gizmo-*", "gpt-4-gizmo-g-abc", True),
        ("*", "anything/at all", True),
        ("a*c", "abc", True),
        ("a*c", "abcd", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    """A star stands for any run of characters, everything else for itself."""
    assert matches(pattern, name) is fits
