"""Remembers which channels and keys rest: in the database, so that a restart and other processes know it too.

What somebody else takes back there (`channel enable`, New API's page) wakes the channel here; what another process on
the same database found out holds here as well. Source: decision 20.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from newapi_proxy.clock import Clock
from newapi_proxy.relay.health import Health, Lasting
from newapi_proxy.snapshot import Channel, Snapshot
from newapi_proxy.store import resting
from newapi_proxy.store.db import Database
from newapi_proxy.store.resting import Rest, Woken

I = TypeVar("I")  # noqa: E741
_Key = tuple[str, str]  # channel, mark


class Rests:
    """Health's notes. Belongs to the loop; nothing waits for what it writes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: set[_Key] = set()  # those that stand in the database, as far as we know
        self._pending: dict[_Key, int] = {}  # how many writes about one are under way

    def rested(self, channel: Channel, mark: str, lasting: Lasting) -> None:
        """See health.Notes."""
        at = self._clock.wall()
        rest = Rest(
            channel=channel.name,
            mark=mark,
            until=int(at + lasting.seconds),
            pause=int(lasting.pause),
            disables=channel.id if lasting.whole and channel.inherited else 0,
            reason=lasting.reason,
        )

        def begin(conn: Connection, rests: Sequence[Rest]) -> list[bool]:
            return resting.begin(conn, rests, int(at))

        self._write(begin, rest, (channel.name, mark), lambda key: self._known.add(key))

    def woke(self, channel: Channel, mark: str) -> None:
        """See health.Notes."""
        self._forget(channel.name, mark)

    async def follow(self, health: Health, snapshot: Snapshot) -> None:
        """Takes over what the database says now: at the start, and when somebody has written there. Raises OurError."""
        known = set(self._known)
        rows = await self._database.read(resting.load)
        by_name = {channel.name: channel for channel in snapshot.channels}
        for name in {name for name, mark in known - {(one.channel, one.mark) for one in rows}}:
            self._known = {key for key in self._known if key[0] != name}
            health.wake(name)
        for one in rows:
            key, channel = (one.channel, one.mark), by_name.get(one.channel)
            if key in self._pending or (key in self._known and not one.moved):
                continue
            if one.moved:
                health.wake(one.channel)
                self._forget(*key)
            elif channel is None or not channel.auto_disable:
                continue
            elif health.restore(channel, one.mark, one.until - self._clock.wall(), float(one.pause)):
                self._known.add(key)
            else:  # the channel has another address or other keys now
                self._forget(*key)

    def _forget(self, name: str, mark: str) -> None:
        self._known.discard((name, mark))
        self._write(resting.end, Woken(name, mark), (name, mark), lambda key: self._known.discard(key))

    def _write(
        self, fn: Callable[[Connection, Sequence[I]], Sequence[bool]], item: I, key: _Key, done: Callable[[_Key], None]
    ) -> None:
        self._pending[key] = self._pending.get(key, 0) + 1

        def written(future: asyncio.Future[bool]) -> None:
            self._pending[key] -= 1
            if not self._pending[key]:
                del self._pending[key]
            if not future.cancelled() and future.exception() is None:  # else the writer has said so
                done(key)

        self._database.write(fn, item).add_done_callback(written)
