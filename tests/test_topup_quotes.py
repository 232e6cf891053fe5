"""What credit costs, to the hundredth, what is no amount at all, and what an order is called."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from newapi_proxy.accounts import topup
from newapi_proxy.accounts.topup import Refused, quote
from newapi_proxy.config.portal import TopUp

SOLD = TopUp(group_ratios={"vip": 0.9, "zero": 0.0}, discounts={100: 0.95})
WHOLE = TopUp(price=1.0, max_topup=1_000_000)


@pytest.mark.parametrize(
    ("asked", "group", "raw", "money", "units"),
    [
        (10, "default", False, "73.00", 5_000_000),
        (10, "unknown", False, "73.00", 5_000_000),
        (10, "vip", False, "65.70", 5_000_000),
        (10, "zero", False, "73.00", 5_000_000),
        (100, "default", False, "693.50", 50_000_000),
        (100, "vip", False, "624.15", 50_000_000),
        (1, "default", False, "7.30", 500_000),
        (950_000, "default", True, "13.87", 950_000),
        (500_001, "default", True, "7.30", 500_001),
        (10_000, "default", False, "73000.00", 5_000_000_000),
    ],
)
def test_prices(asked: int, group: str, raw: bool, money: str, units: int) -> None:
    """Amount x price x group x discount, exact; what is credited is what was asked for, in raw units too (T-17)."""
    found = quote(asked, SOLD, group, raw=raw)
    assert (found.text, found.units, found.minor) == (money, units, int(money.replace(".", "")))


@pytest.mark.parametrize(("price", "minor"), [(0.285, 29), (19.99, 1999), (1.005, 101), (0.005, 1), (0.29, 29)])
def test_hundredths(price: float, minor: int) -> None:
    """The price is the number that the file has, not the double next to it; half a hundredth goes up."""
    assert quote(1, TopUp(price=price), "default", raw=False).minor == minor


@pytest.mark.parametrize("asked", [1.5, 1e3, 10.0, "1", "", None, True, [], {}, float("nan")])
def test_no_amounts(asked: Any) -> None:
    """Fractions, texts and what is no number at all are told as bad parameters."""
    with pytest.raises(Refused, match="参数错误"):
        quote(asked, SOLD, "default", raw=False)


def test_bounds() -> None:
    """Too little and too much are told with the bound, in the unit that was asked in; so is what would cost nothing."""
    for asked in (0, -1, -(10**12)):
        with pytest.raises(Refused, match=r"充值数量不能小于 1$"):
            quote(asked, SOLD, "default", raw=False)
    with pytest.raises(Refused, match=r"充值数量不能小于 500000$"):
        quote(499_999, SOLD, "default", raw=True)
    for asked in (10_001, 10**12, 2**63):
        with pytest.raises(Refused, match=r"充值数量不能大于 10000$"):
            quote(asked, SOLD, "default", raw=False)
    with pytest.raises(Refused, match="充值金额过低"):
        quote(1, TopUp(price=0.004), "default", raw=False)


def test_order_numbers() -> None:
    """New API's form up to a user id of eleven digits; for a longer one a hash; never above 32 characters (T-28)."""
    assert topup.trade_no(7, "aB3xY9", 1729000000) == "USR7NOaB3xY91729000000"
    assert len(topup.trade_no(99_999_999_999, "aB3xY9", 1729000000)) == 32
    long = [topup.trade_no(100_000_000_000, chance, 1729000000) for chance in ("aB3xY9", "aB3xY8")]
    assert len(set(long)) == 2
    assert all(len(one) == 32 and one.isalnum() and one.isascii() for one in long)
    assert topup.subject(10) == "TUC10"


def test_the_largest_is_a_sum_that_every_engine_holds() -> None:
    """The largest amount that may be configured fits the columns, money and quota."""
    whole = msgspec.structs.replace(WHOLE, price=1_000_000.0)
    found = quote(1_000_000, whole, "default", raw=False)
    assert found.minor < 2**63
    assert found.units < 2**63
