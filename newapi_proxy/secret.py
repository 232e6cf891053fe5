"""A value that must never be printed: keys, passwords, DSNs."""

from __future__ import annotations

from typing import Final

MASK: Final = "***"


class Secret:
    """Wraps a secret string; every textual form is masked, only `reveal()` gives it away.

    orjson and msgspec refuse the type, so that it cannot slip into JSON by accident.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: for an outgoing header, never for a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))
