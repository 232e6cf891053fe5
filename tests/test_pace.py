"""How often an address may ask: what is one customer's counts as one, and nobody takes another's place."""

from __future__ import annotations

import pytest

from newapi_proxy.errors import ClientError
from newapi_proxy.web.account_routes import MOST_ADDRESSES, Pace


def test_one_customer_counts_once() -> None:
    """Of an IPv6 network that a customer has, every address is the same one; the next network is another."""
    pace = Pace(most=3)
    for number in range(3):
        pace.count(f"2001:db8::{number:x}", 0.0)
    for ask in (pace.count, pace.check):
        with pytest.raises(ClientError):
            ask("2001:db8::ffff:1", 0.0)
    pace.check("2001:db8:0:1::1", 0.0)
    pace.check("192.0.2.1", 0.0)


def test_one_customer_fills_no_table() -> None:
    """Whoever asks from ten thousand addresses of one network leaves all others theirs."""
    pace = Pace(most=2)
    for number in range(MOST_ADDRESSES + 2):
        try:
            pace.count(f"2001:db8::{number:x}", 0.0)
        except ClientError:
            continue
    for _ in range(2):
        pace.count("192.0.2.1", 0.0)
        pace.count("192.0.2.2", 0.0)
