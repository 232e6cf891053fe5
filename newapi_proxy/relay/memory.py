"""The memory, or the disk, that all requests take together: their bodies, and answers that are kept or told again."""

from __future__ import annotations

from typing import Final

BUDGET: Final = 256 << 20  # bytes held at once; above, requests are turned away


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
