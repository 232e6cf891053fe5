"""The end: no new clients, the running answers to their end or their time, then nothing.

Source: reliability §2.2. Idle connections get a moment in which a request that is already on its way is still
answered, as their last; afterwards they are closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from newapi_proxy import log
from newapi_proxy.errors import OurError
from newapi_proxy.relay.house import House
from newapi_proxy.web.server import Server

GRACE: Final = 0.3  # seconds for requests that were sent before their client could know
STEP: Final = 0.02
LAST_SETTLES: Final = 150  # steps for what was cut off to be charged
LAST_WORDS: Final = 5.0  # for interrupted streams to say so and to settle


async def drain(house: House, servers: Sequence[Server], now: asyncio.Event) -> bool:
    """Waits for the running requests; False when `now` was set before they had ended."""
    for server in servers:
        server.retire()
    for retire in list(house.sessions):
        retire()
    loop = asyncio.get_running_loop()
    limit = loop.time() + house.snapshot.config.relay.drain_timeout
    if any(server.connections for server in servers):
        await _until(now, GRACE)
    while (busy := _busy(house, servers)) and loop.time() < limit and not now.is_set():
        await _until(now, STEP)
    if busy and not now.is_set():
        log.logger().warning("draining", left=busy, reason="the drain's time is over, what runs is ended")
        for watch in list(house.watches):
            watch.interrupt.fire(_over())
        limit = loop.time() + LAST_WORDS
        while (busy := _busy(house, servers)) and loop.time() < limit and not now.is_set():
            await _until(now, STEP)
    for server in servers:
        server.abort()
    for _ in range(LAST_SETTLES):  # what was cut off settles before the ledger closes
        if not house.watches:
            break
        await asyncio.sleep(STEP)
    return not now.is_set()


def _busy(house: House, servers: Sequence[Server]) -> int:
    """What runs still: an answer that is to be kept does so though its client's connection has gone."""
    return max(sum(server.close_idle() for server in servers), len(house.watches))


async def _until(now: asyncio.Event, seconds: float) -> None:
    """A pause that the second signal ends."""
    try:
        async with asyncio.timeout(seconds):
            await now.wait()
    except TimeoutError:
        return


def _over() -> OurError:
    return OurError(
        "The server is being restarted: send the request again.", status=503, code="shutting_down", retry_after=1.0
    )
