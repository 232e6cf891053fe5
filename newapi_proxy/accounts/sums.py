"""What was spent, added up by token, model, channel and day: the same figures for a command and for a page. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from newapi_proxy.billing.charge import usd
from newapi_proxy.store.logs import Spent

SUMS: Final = ("requests", "prompt_tokens", "completion_tokens", "quota")


def summed(spent: Iterable[Spent], by: tuple[str, ...], zone: ZoneInfo) -> list[dict[str, Any]]:
    """One row for each combination of what is asked for, days in the given zone, the dearest first within a day."""
    sums: dict[tuple[str, ...], dict[str, int]] = {}
    for one in spent:
        day = datetime.fromtimestamp(one.at, zone).date().isoformat()
        key = tuple(day if name == "day" else getattr(one, name) for name in by)
        row = sums.setdefault(key, dict.fromkeys(SUMS, 0))
        for name in SUMS:
            row[name] += getattr(one, name)
    ordered = sorted(sums.items(), key=lambda item: (_day(item[0], by), -item[1]["quota"], item[0]))
    return [{**dict(zip(by, key, strict=True)), **row, "usd": _dollars(row["quota"])} for key, row in ordered]


def begin(days: int, now: int, zone: ZoneInfo) -> int:
    """The first moment of the day from which on so many days end with today (unix seconds)."""
    day = datetime.fromtimestamp(now, zone).date() - timedelta(days=days - 1)
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def dates(since: int, now: int, zone: ZoneInfo) -> list[str]:
    """Every day from one moment to another, as `summed` names them."""
    first, last = (datetime.fromtimestamp(at, zone).date() for at in (since, now))
    return [(first + timedelta(days=place)).isoformat() for place in range((last - first).days + 1)]


def _day(key: tuple[str, ...], by: tuple[str, ...]) -> str:
    return key[by.index("day")] if "day" in by else ""


def _dollars(quota: int) -> str:
    return usd(quota) if quota >= 0 else f"-{usd(-quota)}"
