"""What one process learns about channels and keys, told at once to the others that share its limits.

Knows no transport. What lasts stands in the database as well (`daemon.rests`); a trial and a short pause only here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from newapi_proxy.clock import Clock
from newapi_proxy.errors import ClientError
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.wire import tree

Tell = Callable[[str, bytes, bool], None]


def connect(health: Health, clock: Clock, tell: Tell) -> None:
    """From now on what changes is told: `tell(subject, news, lasting)`."""

    def said(channel: str, mark: str, seconds: float) -> None:
        until = clock.wall() + seconds if seconds else 0.0
        tell(f"{channel} {mark}", tree.encode([channel, mark, until]), bool(seconds))

    health.tell = said


def hear(house: House, news: bytes) -> None:
    """Takes over what another process has learned. What cannot be read, or is over, is nothing."""
    try:
        found: Any = tree.lenient(news)
        name, mark, until = found
        seconds = float(until) - house.clock.wall() if until else 0.0
    except (ClientError, ValueError, TypeError):
        return
    if until and seconds <= 0:
        return
    for channel in house.snapshot.channels:
        if channel.name == name:
            house.health.learn(channel, str(mark), seconds)
