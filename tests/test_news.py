"""What one process learns about channels and keys, as another takes it over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from newapi_proxy.relay import news
from newapi_proxy.relay.health import Health
from newapi_proxy.snapshot import Channel
from tests.fakes.clock import Clock
from tests.test_health import BROKEN, DEAD, made


class Pair:
    """Two processes of one configuration: what the first tells the second hears."""

    def __init__(self, first: Channel, second: Channel) -> None:
        self.clock = Clock()
        self.channel = first
        self.told: list[bool] = []
        self.states: list[int] = []
        self.first = Health(self.clock, lambda *_: None)
        self.second = Health(self.clock, lambda _, state: self.states.append(state))
        house: Any = SimpleNamespace(health=self.second, clock=self.clock, snapshot=SimpleNamespace(channels=(second,)))

        def tell(subject: str, one: bytes, lasting: bool) -> None:
            self.told.append(lasting)
            news.hear(house, one)

        news.connect(self.first, self.clock, tell)
        self.hear = lambda one: news.hear(house, one)

    def usable(self, key: int = 0) -> bool:
        return self.second.usable(self.channel, key)

    def trip(self) -> None:
        for _ in range(5):
            self.first.failed(self.channel, 0, BROKEN, trial=False)


def test_an_opened_channel_is_held_back_everywhere() -> None:
    """Open for one is open for all, for the same time; a trial of one holds back the others'; closed is closed."""
    pair = Pair(made(), made())
    pair.trip()
    assert not pair.usable()
    pair.clock.pass_(31.0)
    assert pair.usable()
    assert pair.first.began(pair.channel)
    assert not pair.usable()
    pair.first.succeeded(pair.channel, 0, trial=True)
    assert pair.usable()
    assert (pair.told, pair.states) == ([True, True, False], [2, 2, 0])


def test_a_parked_key_is_parked_everywhere() -> None:
    """A dead credential that one found is tried by nobody, the channel's other keys are."""
    pair = Pair(made(), made())
    pair.first.failed(pair.channel, 0, DEAD, trial=False)
    assert (pair.usable(0), pair.usable(1)) == (False, True)
    pair.first.succeeded(pair.channel, 0, trial=False)
    assert pair.usable(0)


def test_another_channel_of_the_same_name_is_not_meant() -> None:
    """Where the configurations differ, one process's trouble is not the other's."""
    pair = Pair(made(), made(key="another"))
    pair.trip()
    pair.first.failed(pair.channel, 0, DEAD, trial=False)
    assert pair.second.usable(made(key="another"), 0)


@pytest.mark.parametrize(
    "odd", [b"", b"{", b"[]", b"null", b'["a", 1]', b'["a", "b", "soon"]', b'["a", [], 1e308]', b"\xff"]
)
def test_odd_news_are_none(odd: bytes) -> None:
    """What cannot be read changes nothing."""
    pair = Pair(made(), made())
    pair.hear(odd)
    assert pair.usable()
