"""A configuration joined with the database: every entry gets its row, then the snapshot is built.

Source: interfaces §3 ("YAML and database").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from newapi_proxy import log, snapshot
from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.clock import Clock
from newapi_proxy.config.load import Loaded
from newapi_proxy.config.model import Config
from newapi_proxy.store import channels, tokens
from newapi_proxy.store.db import Database


class Rows(msgspec.Struct, frozen=True):
    """What the database knows: every key, the file's own among them, and each channel's row."""

    tokens: tuple[tokens.TokenRow, ...]
    channel_ids: Mapping[str, int]
    shadowed: tuple[str, ...]


class Views:
    """Builds snapshots for one database, and says once what the file hides of it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._told: set[str] = set()

    async def build(self, loaded: Loaded) -> snapshot.Snapshot:
        """The snapshot of a configuration without faults. Raises OurError where the database does not answer."""
        config = loaded.config
        assert config is not None
        at = int(self._clock.wall())
        rows = await self._database.write(lambda conn, _: [joined(conn, config, at)], None)
        for name in rows.shadowed:
            if name not in self._told:
                self._told.add(name)
                log.logger().warning("shadowed", token=name, reason="the file names the same key, and wins")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, snapshot.build, config, rows.tokens, rows.channel_ids)


def joined(conn: Connection, config: Config, at: int) -> Rows:
    """Makes the rows that are missing, and reads them all."""
    own = tokens.ensure(conn, snapshot.wanted_tokens(config), at, config.keys_at_rest)
    theirs = tokens.load(conn)
    wanted = {one.name: _number(one.type) for one in config.channels}
    ids = channels.ensure(conn, wanted, at)
    names = {digest: row.name for digest, row in own.items()}
    return Rows(
        tokens=(*(row for row in theirs if row.digest not in own), *own.values()),
        channel_ids=ids,
        shadowed=_shadowed(theirs, names),
    )


def _shadowed(theirs: Sequence[tokens.TokenRow], own: Mapping[bytes, str]) -> tuple[str, ...]:
    return tuple(own[row.digest] for row in theirs if row.digest in own and not row.yaml)


def _number(kind: str) -> int:
    """The channel type's number in New API's table, 0 where it has none."""
    adapter = ADAPTERS.get(kind)
    return adapter.numbers[0] if adapter is not None and adapter.numbers else 0
