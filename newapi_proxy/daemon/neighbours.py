"""The processes that share our database: limits and news through Redis, and what they left open when they died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from newapi_proxy import log
from newapi_proxy.billing import ledger
from newapi_proxy.clock import Clock
from newapi_proxy.errors import OurError
from newapi_proxy.relay.house import House
from newapi_proxy.secret import Secret
from newapi_proxy.store import replies
from newapi_proxy.store.db import Database
from newapi_proxy.store.groups import Living

if TYPE_CHECKING:
    from newapi_proxy.store.shared import Place, Shared

_EVERY: Final = 10.0  # seconds between two looks for others that died


async def meet(house: House, redis: Secret | None) -> Shared | None:
    """Shares limits with the others: in Redis where one is configured, else in the database. Raises OurError."""
    if redis is None and not house.db.shared:
        return None
    from newapi_proxy.store.shared import Shared  # loaded where they are used

    house.windows = shared = Shared(await _place(house, redis), house.clock.monotonic, house.boot).start()
    return shared


async def _place(house: House, redis: Secret | None) -> Place:
    if redis is None:
        from newapi_proxy.store.tabled import Tabled

        return Tabled(house.db)
    from newapi_proxy.relay import news
    from newapi_proxy.store.redis import Redis

    place = await Redis.open(redis.reveal(), house.boot)
    news.connect(house.health, house.clock, place.tell)
    place.listen(lambda one: news.hear(house, one))
    return place


async def recover(database: Database, clock: Clock) -> None:
    """Voids the holds of processes that live no more, and frees their idempotency keys. Raises OurError."""
    at = int(clock.wall())
    count = await database.write(lambda conn, _: [_recovered(conn, database.living(conn), at)], None)
    if count:
        log.logger().warning("holds_recovered", count=count)


def _recovered(conn: Connection, living: Living, at: int) -> int:
    replies.recover(conn, living)
    return ledger.recover(conn, living, at)


async def watch(database: Database, clock: Clock, end: asyncio.Event) -> None:
    """Looks again and again until the end. A database that does not answer is asked at the next look."""
    while not end.is_set():
        try:
            async with asyncio.timeout(_EVERY):
                await end.wait()
        except TimeoutError:
            try:
                await recover(database, clock)
            except OurError:
                continue  # the writer has said so
