"""The room that all requests share: for bodies, for answers that are kept or told again, and where those stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from newapi_proxy.config.model import Idempotency
from newapi_proxy.store.windows import Window

BUDGET: Final = 256 << 20  # bytes held at once; above, requests are turned away
MOST_TOKENS: Final = 10_000  # that are remembered while they keep nothing


class Budget:
    """`held` are the bytes promised now, of at most `most`."""

    __slots__ = ("held", "most")

    def __init__(self, most: int = BUDGET) -> None:
        self.held = 0
        self.most = most

    def lend(self, size: int) -> bool:
        """Whether so many bytes may be kept of an answer: bodies come first, so only while half is free."""
        if self.held + size > self.most // 2:
            return False
        self.held += size
        return True

    def back(self, size: int) -> None:
        """They are not held any more."""
        self.held -= size


class Shelf:
    """How many bytes each token has had kept within the time that they are kept: they stand in the database, which is
    everybody's. Of one process; a restart begins anew."""

    __slots__ = ("_monotonic", "_windows", "memory")

    def __init__(self, memory: Budget, monotonic: Callable[[], float]) -> None:
        """`memory`: where an answer lies before it stands there."""
        self.memory = memory
        self._monotonic = monotonic
        self._windows: dict[int, Window] = {}

    def room(self, token_id: int, size: int, how: Idempotency) -> bool:
        """Whether so many bytes may be kept for the token; they are counted then."""
        now, window = self._monotonic(), self._windows.get(token_id)
        if window is None or window.seconds != how.ttl:
            if len(self._windows) >= MOST_TOKENS:
                self._windows = {id: one for id, one in self._windows.items() if one.entries and not _over(one, now)}
            window = self._windows[token_id] = Window(how.ttl)
        if window.wait(now, how.max_kept, size):
            return False
        window.add(now, size)
        return True


def _over(window: Window, now: float) -> bool:
    window.forget(now)
    return not window.entries
