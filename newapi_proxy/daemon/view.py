"""A configuration joined with the database: every entry gets its row, then the snapshot is built.

Source: interfaces §3 ("YAML and database").
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from newapi_proxy import log, snapshot
from newapi_proxy.adapters import numbers
from newapi_proxy.clock import Clock
from newapi_proxy.config.joined import Joined, join
from newapi_proxy.config.load import Loaded
from newapi_proxy.config.model import Config
from newapi_proxy.daemon.redaction import hide
from newapi_proxy.snapshot import Snapshot
from newapi_proxy.store import channels, origin, tokens
from newapi_proxy.store.changes import Watermarks
from newapi_proxy.store.db import Database
from newapi_proxy.store.held import Held, held


class Rows(msgspec.Struct, frozen=True):
    """What the database knows: every key, the file's own among them, each of the file's channels' row, and its own."""

    tokens: tuple[tokens.TokenRow, ...]
    channel_ids: Mapping[str, int]
    shadowed: tuple[str, ...]
    held: Held = Held()

    @property
    def mark(self) -> int:
        """A number that is another one when the rows configure otherwise; balances and counters do not matter."""
        keys = (_steady(row, "remain_quota", "used_quota") for row in self.tokens)
        channels = (_steady(row, "used_quota") for row in self.held.channels)
        options = sorted(self.held.options.items())
        return hash((*keys, *channels, *options, self.held.origin, *sorted(self.channel_ids.items())))


def _marked(rows: Rows) -> tuple[Rows, int]:
    return rows, rows.mark


def _steady(row: msgspec.Struct, *moving: str) -> int:
    return hash(tuple(getattr(row, name) for name in row.__struct_fields__ if name not in moving))


class Views:
    """Builds snapshots for one database, and says once what the file hides of it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._told: set[tuple[str, str]] = set()
        self._marks = Watermarks()
        self._read = 0

    async def build(self, loaded: Loaded) -> tuple[Snapshot, Loaded]:
        """The snapshot of a configuration without faults, and that configuration with what the database says.

        Raises OurError where the database does not answer.
        """
        config, at = loaded.config, int(self._clock.wall())
        assert config is not None

        def ensure(conn: Connection, configs: Sequence[Config]) -> Sequence[bool]:
            for one in configs:
                ensured(conn, one, at)
            return [self._marks.moved(conn)] * len(configs)  # before the rows are read: nothing is missed

        await self._database.write(ensure, config)
        rows, self._read = await self._rows(config)
        return await self._joined(loaded, rows)

    async def moved(self) -> bool:
        """Whether somebody else may have written to the database since the last look. Raises OurError."""
        return await self._database.write(lambda conn, items: [self._marks.moved(conn)] * len(items), None)

    async def again(self, loaded: Loaded) -> tuple[Snapshot, Loaded] | None:
        """`build` anew where the rows configure otherwise than when they were read last. Raises OurError."""
        config = loaded.config
        assert config is not None
        rows, mark = await self._rows(config)
        if mark == self._read:
            return None
        made = await self._joined(loaded, rows)
        self._read = mark
        return made

    async def _rows(self, config: Config) -> tuple[Rows, int]:
        """The rows and their mark: by a thread, for tens of thousands of keys take a second."""
        return await self._database.survey(lambda conn: _marked(read(conn, config)))

    async def _joined(self, loaded: Loaded, rows: Rows) -> tuple[Snapshot, Loaded]:
        loop = asyncio.get_running_loop()
        joined, found = await loop.run_in_executor(None, _hidden, loaded, rows)
        for name in rows.shadowed:
            self._tell("token", name, "the file names the same key, and wins")
        for name in joined.takeover.shadowed:
            self._tell("channel", name, "the file names a channel so, and wins")
        return found, joined.loaded

    def _tell(self, what: str, name: str, reason: str) -> None:
        if (what, name) not in self._told:
            self._told.add((what, name))
            log.logger().warning("shadowed", **{what: name}, reason=reason)


def made(loaded: Loaded, rows: Rows) -> Snapshot:
    """The snapshot that a daemon would serve by."""
    return _made(loaded, rows)[1]


def _hidden(loaded: Loaded, rows: Rows) -> tuple[Joined, Snapshot]:
    """The same where lines are logged: none of its secrets is ever in one. In a thread, as there may be thousands."""
    joined, found = _made(loaded, rows)
    hide(joined.config)
    return joined, found


def _made(loaded: Loaded, rows: Rows) -> tuple[Joined, Snapshot]:
    joined = join(loaded, rows.held)
    ids = {**rows.channel_ids, **joined.takeover.ids}
    return joined, snapshot.build(joined.config, rows.tokens, ids, joined.saved, joined.takeover.ids)


def joined(conn: Connection, config: Config, at: int) -> Rows:
    """Makes the rows that are missing, and reads them all."""
    ensured(conn, config, at)
    return read(conn, config)


def ensured(conn: Connection, config: Config, at: int) -> dict[str, int]:
    """Makes the rows that the file's keys and channels lack; the channels' ids. `at` unix seconds."""
    tokens.ensure(conn, snapshot.wanted_tokens(config), at, config.keys_at_rest)
    one_api = origin.look(conn) == "one-api"
    return channels.ensure(conn, {one.name: numbers.number(one.type, one_api) for one in config.channels}, at)


def read(conn: Connection, config: Config) -> Rows:
    """Everything that configures; the file's own rows are there."""
    wanted = {one.digest: one.name for one in snapshot.wanted_tokens(config)}
    found = tokens.everything(conn)
    theirs = [row for row in found if not row.yaml]
    own = [row for row in found if row.yaml and row.digest in wanted]
    return Rows(
        tokens=(*(row for row in theirs if row.digest not in wanted), *own),
        channel_ids=channels.own(conn),
        shadowed=_shadowed(theirs, wanted),
        held=held(conn),
    )


def _shadowed(theirs: Sequence[tokens.TokenRow], own: Mapping[bytes, str]) -> tuple[str, ...]:
    return tuple(own[row.digest] for row in theirs if row.digest in own)
