"""What ended processes left open is given back: our own earlier lives' at the start, other processes' while we live."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import Connection

from newapi_proxy import log
from newapi_proxy.billing import ledger
from newapi_proxy.clock import Clock
from newapi_proxy.errors import OurError
from newapi_proxy.store import replies
from newapi_proxy.store.db import Database
from newapi_proxy.store.groups import Living

EVERY: Final = 10.0  # seconds between two looks for others that died


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
            async with asyncio.timeout(EVERY):
                await end.wait()
        except TimeoutError:
            try:
                await recover(database, clock)
            except OurError:
                continue  # the writer has said so
