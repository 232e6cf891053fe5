"""The daemon's own edge on a loopback socket, with a database, channels for tasks, two users and a clock of the test's.

Rounds of the poller are made by the test, at a time of its choosing. Start as in tasks-and-accounts 13.7: user 7 and
key 9 have 500 000 units each; user 8 and key 10 as much; channel 4 is `mj`.
"""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, ClientTimeout
from sqlalchemy import insert

from newapi_proxy.config.model import Channel, Config, Token
from newapi_proxy.daemon.view import joined
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import build
from newapi_proxy.store.db import Database
from newapi_proxy.store.schema import channels, proxy_channels, tokens, users
from newapi_proxy.tasks.calls import Desk
from newapi_proxy.tasks.poller import poll_once
from newapi_proxy.web import edges
from newapi_proxy.web.client import HttpClient
from newapi_proxy.web.fetch import HttpFetcher
from newapi_proxy.web.server import Server
from tests.fakes.clients import Answer
from tests.fakes.clock import Clock

START = 500_000
ALICE, BOB = "alicealicealicealicealicealicealicealicealice123", "bobbobbobbobbobbobbobbobbobbobbobbobbobbobbob123"
NOW = 1_729_000_000.0
DRAWS = (
    "mj_imagine", "mj_describe", "mj_blend", "mj_upscale", "mj_variation", "mj_reroll", "mj_modal", "mj_inpaint",
    "mj_zoom", "mj_custom_zoom", "mj_shorten", "mj_high_variation", "mj_low_variation", "mj_pan", "swap_face",
    "mj_upload",
)  # fmt: skip


def drawing(url: str, name: str = "mj", **fields: Any) -> Channel:
    """A channel of the fake Midjourney at this address."""
    given = {"key": Secret("mj-secret"), "models": DRAWS, "type": "midjourney-plus", **fields}
    return Channel(name=name, base_url=url, **given)


def singing(url: str, name: str = "suno", **fields: Any) -> Channel:
    """A channel of the fake Suno at this address."""
    given = {"key": Secret("suno-secret"), "models": ("suno_music", "suno_lyrics", "suno_concat"), **fields}
    return Channel(name=name, type="suno", base_url=url, **given)


class World:
    """A running edge: requests in, rounds of the poller, and what the database says."""

    def __init__(self, house: House, url: str, session: ClientSession, path: Path, clock: Clock) -> None:
        self.house = house
        self.url = url
        self.path = path
        self.clock = clock
        self._session = session

    async def post(self, path: str, body: Any = None, *, key: str = ALICE, **headers: str) -> Answer:
        """A POST with a key; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self._send("POST", path, data, key, headers)

    async def get(self, path: str, *, key: str = ALICE, **headers: str) -> Answer:
        """A GET with a key."""
        return await self._send("GET", path, None, key, headers)

    async def _send(self, method: str, path: str, data: bytes | None, key: str, headers: dict[str, str]) -> Answer:
        named = {"authorization": f"Bearer sk-{key}"} if key else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        body, limit = None if data is None else io.BytesIO(data), ClientTimeout(total=30)
        async with self._session.request(method, self.url + path, data=body, headers=named, timeout=limit) as response:
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await response.read(),
            )

    @property
    def desk(self) -> Desk:
        """What the poller works with."""
        return Desk(self.house.db, self.house.client, self.clock, self.house.boot)

    async def poll(self, seconds: float = 15.0) -> None:
        """One round, so many seconds after the last one."""
        self.clock.pass_(seconds)
        await poll_once(self.desk, self.house.snapshot, int(self.clock.wall()))

    async def reload(self, **changes: Any) -> None:
        """Another configuration, as a reload brings it."""
        before = self.house.snapshot.config
        fields = {name: getattr(before, name) for name in before.__struct_fields__}
        self.house.snapshot = await _view(self.house.db, Config(**{**fields, **changes}))

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What plain SQL finds."""
        with closing(sqlite3.connect(self.path)) as conn:
            conn.row_factory = sqlite3.Row
            return [dict(row) for row in conn.execute(query, values)]

    def money(self, user: int = 7, token: int = 9, channel: int = 4) -> tuple[int, int, int, int, int]:
        """The user's balance and use, the key's balance and use, the channel's use."""
        (one,) = self.rows("SELECT quota, used_quota FROM users WHERE id = ?", user)
        (two,) = self.rows("SELECT remain_quota, used_quota FROM tokens WHERE id = ?", token)
        (three,) = self.rows("SELECT used_quota FROM channels WHERE id = ?", channel)
        return one["quota"], one["used_quota"], two["remain_quota"], two["used_quota"], three["used_quota"]

    def logs(self, kind: int) -> list[dict[str, Any]]:
        """Rows of the usage log of a type."""
        return self.rows("SELECT * FROM logs WHERE type = ? ORDER BY id", kind)


@asynccontextmanager
async def world(folder: Path, *given: Channel, **config: Any) -> AsyncIterator[World]:
    """A world with these channels; the first one has the id 4."""
    clock = Clock(wall=NOW)
    database = await Database.open(f"sqlite:///{folder}/tasks.db", folder, "normal", None)
    await database.write(lambda conn, _: [_people(conn, given)], None)
    whole = Config(**{"channels": given, **config})
    client = HttpClient()
    house = House(
        await _view(database, whole), database, client, Health(clock, lambda channel, state: None), clock, boot="b"
    )
    house.fetcher = HttpFetcher()
    edge = edges.relay_edge(house)
    server = Server(edge.handle, edge.unparsed)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        async with ClientSession() as session:
            yield World(house, f"http://127.0.0.1:{port}", session, folder / "tasks.db", clock)
    finally:
        listener.close()
        server.retire()
        server.close_idle()
        server.abort()
        await client.close()
        await database.close()


def _people(conn: Any, given: Sequence[Channel]) -> None:
    for id, (user, key) in enumerate(((7, ALICE), (8, BOB)), start=9):
        conn.execute(
            insert(users).values(id=user, username=f"user{user}", password="!", quota=START, aff_code=f"a{user}")
        )
        conn.execute(insert(tokens).values(id=id, user_id=user, key=key, name=f"key{id}", remain_quota=START))
    for id, channel in enumerate(given, start=4):
        conn.execute(insert(channels).values(id=id, key="", name=channel.name, status=2))
        conn.execute(insert(proxy_channels).values(name=channel.name, channel_id=id))


async def _view(database: Database, config: Config) -> Any:
    rows = await database.write(lambda conn, _: [joined(conn, config, int(NOW))], None)
    return build(config, rows.tokens, rows.channel_ids)


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is so, ten seconds at the most."""
    for _ in range(2_000):
        if await look():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def file_tokens(*names: str) -> tuple[Token, ...]:
    """Keys of the file, which all belong to one user."""
    return tuple(Token(name=name, key=Secret(f"sk-{name}")) for name in names)
