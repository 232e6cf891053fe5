"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """Wall seconds since 1970 and monotonic seconds; `pass_` moves both, `jump` the wall alone."""

    def __init__(self, wall: float = 1_000_000.0, monotonic: float = 5_000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def pass_(self, seconds: float) -> None:
        """Time goes by."""
        self._wall += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock."""
        self._wall += seconds
