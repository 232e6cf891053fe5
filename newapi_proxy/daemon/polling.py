"""The poller of tasks, where there are tasks: nothing of it is loaded before a channel or an open task asks for it."""

from __future__ import annotations

import asyncio
from typing import Final

from newapi_proxy import log
from newapi_proxy.errors import OurError
from newapi_proxy.relay.house import House
from newapi_proxy.store import tasks

LAST: Final = 2.0  # seconds for a round that is under way at the end; what it has asked for is written in any case


async def polling(house: House, end: asyncio.Event) -> None:
    """Looks now and then whether this configuration has such channels, and polls from then on; until the end."""
    wanted = await _left(house)
    while not end.is_set():
        if wanted or _configured(house):
            from newapi_proxy.tasks import calls, poller

            desk = calls.Desk(house.db, house.client, house.clock, house.boot)
            await poller.run(desk, lambda: house.snapshot, end)
            return
        try:
            async with asyncio.timeout(house.snapshot.config.tasks.interval):
                await end.wait()
        except TimeoutError:
            continue


async def ended(task: asyncio.Task[None]) -> None:
    """Waits for the round that is under way, a little."""
    await asyncio.wait([task], timeout=LAST)
    task.cancel()


def _configured(house: House) -> bool:
    snapshot = house.snapshot
    return any(channel.adapter.tasks is not None for channel in (*snapshot.channels, *snapshot.parked))


async def _left(house: House) -> bool:
    """Whether an earlier configuration has left open tasks: somebody has paid for them."""
    try:
        # by the writer, which is there: a reader would be opened for this alone, and take megabytes
        return bool(await house.db.write(lambda conn, _: [tasks.waiting(conn)], None))
    except OurError as error:
        log.logger().warning("poll_failed", channel=None, reason=error.message)
        return True
