"""Units that a person writes: durations, sizes, money; parsed once, kept as plain numbers."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec

QUOTA_PER_USD: Final = 500_000  # New API's unit (relay-and-billing 5.1)

Duration = Annotated[float, msgspec.Meta(description="seconds, or 250ms, 30s, 5m, 2h, 1d", extra={"unit": "duration"})]
Size = Annotated[int, msgspec.Meta(description="bytes, or 64KiB, 32MiB, 1GiB, 10MB", extra={"unit": "size"})]
Money = Annotated[
    int, msgspec.Meta(description="quota units (500000 are 1 USD), or $5, 0.002 USD", extra={"unit": "money"})
]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|KB|MB|GB)?")
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_MONEY: Final = re.compile(r"\$\s*(-?\d+(?:\.\d+)?)|(-?\d+(?:\.\d+)?)\s*USD")


def doc(text: str) -> msgspec.Meta:
    """A key's description, for the schema and for people."""
    return msgspec.Meta(description=text)


def duration(text: str | float) -> float:
    """Seconds from "1m30s", "250ms" or a bare number of seconds. Raises ValueError."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0 or text != text or text == float("inf"):
            raise ValueError("a duration cannot be negative or endless")
        return float(text)
    found = _DURATION.findall(str(text))
    if not found or "".join(_DURATION.split(str(text))[::3]).strip():
        raise ValueError(f"{text!r} is no duration such as 30s, 5m or 250ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


def size(text: str | int) -> int:
    """Bytes from "32MiB" or a bare number. Raises ValueError."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError("a size cannot be negative")
        return text
    found = _SIZE.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is no size such as 32MiB")
    return int(found[1]) * _BYTES[found[2] or "B"]


def money(text: str | int) -> int:
    """Quota units from "$5", "0.002 USD" or a bare whole number of units. Raises ValueError."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    found = _MONEY.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is no amount such as $5, 0.002 USD or 500000")
    try:
        units = Decimal(found[1] or found[2]) * QUOTA_PER_USD
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount") from None
    if units != int(units):
        raise ValueError(f"{text!r} is finer than one quota unit (0.000002 USD)")
    return int(units)


def duration_text(seconds: float) -> str:
    """Seconds as people write them: 250ms, 30s, 5m."""
    milliseconds = round(seconds * 1000)
    if abs(milliseconds - seconds * 1000) > 1e-6:
        return f"{seconds:.6f}".rstrip("0") + "s"
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms"


def size_text(size: int) -> str:
    """Bytes as people write them: 32MiB."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def money_text(units: int) -> str:
    """Quota units as dollars: $5, $0.002."""
    amount = (Decimal(units) / QUOTA_PER_USD).normalize()
    return f"${amount:f}"
