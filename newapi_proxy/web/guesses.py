"""Who guesses keys: an address that tries many different unknown ones waits before its next is looked up.

A client that sends one old key again and again has guessed once, so that it does not lock out those who share its
address. Loopback is let off: a proxy there that is not trusted to name its clients would answer for all of them.
Memory is bounded. Source: reliability 2.10.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from newapi_proxy import metrics
from newapi_proxy.errors import ClientError
from newapi_proxy.web.inbound import customer

MOST: Final = 20  # different unknown keys of one address that are looked up
SPAN: Final = 60.0  # seconds for which each of them counts
MOST_ADDRESSES: Final = 4096  # remembered; above, the one that began first is forgotten


class Guesses:
    """Unknown keys by the address that they came from, each with the moment until which it counts."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[str, dict[int, float]] = {}

    def check(self, address: str, now: float) -> None:
        """Raises ClientError 429 for an address that has guessed too often. `now` in monotonic seconds."""
        found = self.known.get(_place(address))
        if found is None or len(found) < MOST:
            return
        wait = min(found.values()) - now
        if wait > 0:
            metrics.limited("address", "any", "keys")
            raise ClientError(
                "Too many unknown keys came from your address.",
                status=429,
                kind="rate_limit",
                type="rate_limit_error",
                code="too_many_unknown_keys",
                retry_after=wait,
            )

    def note(self, address: str, keys: Iterable[str], now: float) -> None:
        """These keys, which nobody has, came from there."""
        place = _place(address)
        if not place:
            return
        found = self.known.get(place)
        if found is None:
            if len(self.known) >= MOST_ADDRESSES:
                del self.known[next(iter(self.known))]
            found = self.known[place] = {}
        for key in [key for key, until in found.items() if until <= now]:
            del found[key]
        for key in map(hash, keys):
            if key in found or len(found) < MOST:
                found[key] = now + SPAN


@lru_cache(maxsize=1024)
def _place(address: str) -> str:
    """What stands for the address, "" for one that is let off."""
    return "" if ip_address(address).is_loopback else customer(address)
