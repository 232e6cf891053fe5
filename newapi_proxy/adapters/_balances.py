"""What an account has left, for the providers that tell it to a key: what is asked, and how answers are read.

Source: relay-and-billing 4.11; OpenRouter's and Moonshot's own documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from newapi_proxy.adapters.base import Outgoing, Target, join

Left = tuple[Decimal, str] | None  # how much, and its currency
Talk = Generator[Outgoing, Any, Left]

_DAYS: Final = 100  # of usage, for accounts without a payment method


def _asked(to: Target, path: str) -> Outgoing:
    headers = {"authorization": f"Bearer {to.key.reveal()}", "accept": "application/json"}
    return Outgoing(url=join(to.base_url, path), body=b"", headers=headers, method="GET")


def _number(node: Any, *names: str) -> Decimal | None:
    """The number at the end of a path of names, also where it is written as text."""
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, bool) or not isinstance(node, (int, float, str)):
        return None
    try:
        found = Decimal(str(node))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _billed(to: Target, today: date) -> Talk:
    """The limit less the use, which is told in cents."""
    limit = _number((yield _asked(to, "/v1/dashboard/billing/subscription")), "hard_limit_usd")
    window = f"start_date={today - timedelta(days=_DAYS)}&end_date={today + timedelta(days=1)}"
    used = _number((yield _asked(to, f"/v1/dashboard/billing/usage?{window}")), "total_usage")
    return None if limit is None or used is None else (limit - used / 100, "USD")


def _deepseek(to: Target, today: date) -> Talk:
    """One row a currency: the dollars where there are any, else the first."""
    answer = yield _asked(to, "/user/balance")
    rows = answer.get("balance_infos") if isinstance(answer, dict) else None
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    found.sort(key=lambda row: row.get("currency") != "USD" or not _number(row, "total_balance"))
    left = _number(found[0], "total_balance") if found else None
    return None if left is None else (left, str(found[0].get("currency") or "CNY"))


def _openrouter(to: Target, today: date) -> Talk:
    """What was bought less what was used."""
    answer = yield _asked(to, "/v1/credits")
    bought, used = _number(answer, "data", "total_credits"), _number(answer, "data", "total_usage")
    return None if bought is None or used is None else (bought - used, "USD")


def _told(path: str, currency: str, *names: str) -> Callable[[Target, date], Talk]:
    """One number at one place."""

    def talk(to: Target, today: date) -> Talk:
        found = _number((yield _asked(to, path)), *names)
        return None if found is None else (found, currency)

    return talk


BALANCES: Final[Mapping[str, Callable[[Target, date], Talk]]] = {
    "openai": _billed,
    "deepseek": _deepseek,
    "siliconflow": _told("/v1/user/info", "CNY", "data", "totalBalance"),
    "openrouter": _openrouter,
    "moonshot": _told("/v1/users/me/balance", "CNY", "data", "available_balance"),
}
"""By type: the providers that tell a key what its account has left."""
