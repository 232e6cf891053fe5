"""What credit costs, what an order is called, and the words in which New API's pages are told that something is wrong.

Pure: amounts, ratios, the moment and chance come in. Knows no gateway and no HTTP. Money is exact: decimals, rounded
half up to hundredths once. Source: tasks-and-accounts 6.1 to 6.3, traps T-17 and T-28.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec

from newapi_proxy.billing.prices import UNITS_PER_USD
from newapi_proxy.config.portal import TopUp
from newapi_proxy.store.orders import MOST_OPEN

LONGEST: Final = 32  # characters of an order's number, as WeChat Pay takes them
BAD_REQUEST: Final = "参数错误"
TOO_CHEAP: Final = "充值金额过低"
NO_METHOD: Final = "支付方式不存在"
NOT_BEGUN: Final = "拉起支付失败"
NOT_MADE: Final = "创建订单失败"
NO_CODE: Final = "未提供兑换码"
NOT_REDEEMED: Final = {
    "unknown": "兑换失败\uff0c无效的兑换码",
    "used": "兑换失败\uff0c该兑换码已被使用",
    "expired": "兑换失败\uff0c该兑换码已过期",
    "nobody": "兑换失败",
}
TOO_MANY: Final = f"There are {MOST_OPEN} unpaid orders of the last hour: pay one of them, or wait."
_HUNDREDTH: Final = Decimal("0.01")


class Refused(Exception):
    """Why nothing is sold, in the words of New API's pages."""


class Quote(msgspec.Struct, frozen=True):
    """What was asked for: `amount` as asked, `units` of credit for it, `money` to pay in the currency."""

    amount: int
    units: int
    money: Decimal

    @property
    def minor(self) -> int:
        """The money in hundredths."""
        return int(self.money * 100)

    @property
    def text(self) -> str:
        """The money as gateways and people read it."""
        return f"{self.money:.2f}"


def quote(asked: Any, sold: TopUp, group: str, *, raw: bool) -> Quote:
    """What the amount that a client sent costs a user of the group. `raw`: amounts are quota units, not USD.

    Raises Refused for what is no whole number (a text or a fraction is none), out of bounds, or costs nothing.
    """
    if not isinstance(asked, int) or isinstance(asked, bool):
        raise Refused(BAD_REQUEST)
    unit = UNITS_PER_USD if raw else 1
    if asked < sold.min_topup * unit:
        raise Refused(f"充值数量不能小于 {sold.min_topup * unit}")
    if asked > sold.max_topup * unit:
        raise Refused(f"充值数量不能大于 {sold.max_topup * unit}")
    units = asked * (UNITS_PER_USD // unit)
    exact = Decimal(units) / UNITS_PER_USD * _factor(sold.price)
    exact *= _factor(sold.group_ratios.get(group, 1.0) or 1.0) * _factor(sold.discounts.get(asked, 1.0))
    money = exact.quantize(_HUNDREDTH, ROUND_HALF_UP)
    if money < _HUNDREDTH:
        raise Refused(TOO_CHEAP)
    return Quote(asked, units, money)


def _factor(number: float) -> Decimal:
    """The number as the file has it."""
    return Decimal(str(number))


def trade_no(user_id: int, chance: str, at: int) -> str:
    """An order's number, at most 32 letters and digits: New API's own form, hashed for a user whose id has no room.

    `chance`: six letters and digits; `at` unix seconds.
    """
    plain = f"USR{user_id}NO{chance}{at}"
    if len(plain) <= LONGEST:
        return plain
    return f"USR{sha256(plain.encode()).hexdigest()[: LONGEST - 3]}"


def subject(amount: int) -> str:
    """What an order is called on the gateway's page."""
    return f"TUC{amount}"
