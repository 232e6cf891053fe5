"""Guessed keys by address: how long they count, who shares an address, how much is remembered."""

from __future__ import annotations

import pytest

from newapi_proxy.errors import ClientError
from newapi_proxy.web import guesses
from newapi_proxy.web.guesses import MOST, SPAN, Guesses


def blocked(one: Guesses, address: str, now: float) -> float:
    """The seconds that an address is told to wait, 0 where it may go on."""
    try:
        one.check(address, now)
    except ClientError as refusal:
        return refusal.retry_after or -1.0
    return 0.0


def guess(one: Guesses, address: str, count: int, now: float, name: str = "key") -> None:
    for number in range(count):
        one.note(address, [f"{name}{number}"], now + number)


def test_it_ends_when_the_first_guess_is_old() -> None:
    """The wait is until the first of the keys counts no more, and then one more may be tried."""
    one = Guesses()
    guess(one, "192.0.2.1", MOST, 0.0)
    assert blocked(one, "192.0.2.1", 20.0) == SPAN - 20
    assert blocked(one, "192.0.2.1", SPAN) == 0
    one.note("192.0.2.1", ["another"], SPAN)
    assert blocked(one, "192.0.2.1", SPAN) == 1


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
    ],
)
def test_whose_guesses_count_together(first: str, second: str, together: bool) -> None:
    """An IPv6 customer has 64 bits of addresses; loopback is let off."""
    one = Guesses()
    guess(one, first, MOST, 0.0)
    assert bool(blocked(one, second, 1.0)) == together


def test_memory_is_bounded() -> None:
    """Neither many keys of one address nor many addresses fill the memory."""
    one = Guesses()
    guess(one, "192.0.2.1", 10 * MOST, 0.0)
    assert len(one.known["192.0.2.1"]) == MOST
    for number in range(guesses.MOST_ADDRESSES + 50):
        one.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", ["key"], 1.0)
    assert len(one.known) == guesses.MOST_ADDRESSES
