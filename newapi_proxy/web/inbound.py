"""Who a request comes from: its id and its address.

Knows headers only. Sources: relay-and-billing §2.3, user-demands X5, interfaces §4.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

MOST_IDS: Final = 10_000  # client-chosen ids remembered, twice: two megabytes
MOST_HOPS: Final = 32  # addresses read from X-Forwarded-For, from its end
PREFIX: Final = 64  # bits of an IPv6 address that one customer has
OWN_PREFIX: Final = "na-"
LOOPBACK: Final = "127.0.0.1"  # the address of whoever comes through a unix socket
Networks = tuple[IPv4Network | IPv6Network, ...]

_SANE_ID: Final = re.compile(r"(?!na-|sk-)[A-Za-z0-9._-]{1,64}")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class Ids:
    """Request ids, unique in the ledger: the client's own where it is sane and new, else a counter behind a prefix.

    An id that a client uses again gets a suffix, because a second request under a settled id would go uncharged; so
    does nothing else, and what the client gets in X-Request-Id is what stands in log and ledger. An id from before the
    last start is not known here: the ledger refuses it. `na-` is ours: clients cannot take an id before we do.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = prefix or OWN_PREFIX + "".join(secrets.choice(_DIGITS) for _ in range(10)) + "-"
        self._count = 0
        self._recent: set[str] = set()
        self._older: set[str] = set()

    def own(self) -> str:
        """A fresh id of ours."""
        self._count += 1
        return f"{self._prefix}{self._count:x}"

    def of(self, presented: str | None) -> str:
        """The id for a request that came with this X-Request-Id, if any."""
        if presented is None or not _SANE_ID.fullmatch(presented):
            return self.own()
        if presented in self._recent or presented in self._older:
            return f"{presented}.{self.own()}"
        if len(self._recent) >= MOST_IDS:
            self._older, self._recent = self._recent, set()
        self._recent.add(presented)
        return presented


@lru_cache(maxsize=64)
def networks(texts: tuple[str, ...]) -> Networks:
    """Address ranges from text; what is no range contains nothing (the configuration check names it)."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip(), strict=False))
        except ValueError:
            continue
    return tuple(found)


@lru_cache(maxsize=4096)
def _plain(text: str) -> str | None:
    """An address in its canonical form, IPv4 inside IPv6 as IPv4; None for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@lru_cache(maxsize=4096)
def within(address: str, ranges: Networks) -> bool:
    """Whether the address lies in one of the ranges."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in ranges)


@lru_cache(maxsize=4096)
def customer(address: str) -> str:
    """What one customer has of whom an address tells: the address, of IPv6 the network around it."""
    if ":" not in address:
        return address
    return str(ip_network(f"{address}/{PREFIX}", strict=False))


def client_ip(peer: str, forwarded: Sequence[str], trusted: Networks) -> str:
    """Who asks: the nearest address that no trusted proxy vouches for.

    `forwarded` are the X-Forwarded-For headers in order. They count only while the hop that wrote them is trusted, read
    from the right; so what a client invents itself is never reached. An unreadable hop ends the reading.
    """
    address = _plain(peer) or LOOPBACK
    if not forwarded or not trusted or not within(address, trusted):
        return address
    hops = ",".join(forwarded).rsplit(",", MOST_HOPS)
    for hop in reversed(hops[-MOST_HOPS:]):
        plain = _plain(hop)
        if plain is None:
            break
        address = plain
        if not within(address, trusted):
            break
    return address
