"""A real daemon that sells credit, with three users, and what plain SQL says of their money.

Start as in tasks-and-accounts 13.7: user 7 has 500 000 units. User 8 is in the group `vip`, user 5
has no key, user 6 is an administrator.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, ClientTimeout

from tests.fakes.clients import Answer
from tests.fakes.process import Daemon, free_port

START = 500_000
ADA, BEN = "ada-access-token-0123456789abcde", "ben-access-token-0123456789abcde"
EVE, ROOT = "eve-access-token-0123456789abcde", "root-access-token-0123456789abcd"
USERS = (
    (7, "ada", ADA, 1, "default"),
    (8, "ben", BEN, 1, "vip"),
    (5, "eve", EVE, 1, "default"),
    (6, "root", ROOT, 100, "default"),
)
KEYS = (
    (9, 7, "adakeyadakeyadakeyadakeyadakeyadakeyadakeyadakey"),
    (10, 8, "benkeybenkeybenkeybenkeybenkeybenkeybenkeybenkey"),
)
BASE = """\
database: sqlite:///newapi.db
public_url: http://127.0.0.1:@PORT@
trusted_proxies: [127.0.0.0/8]
admin: {keys: [admin-key-0123456]}
prices: {echo: {call: 0.1}}
groups: {default: 1, vip: 1}
channels:
  - {name: echo, type: echo, models: [echo], groups: [default, vip]}
tokens:
  - {name: yaml, key: sk-yaml, quota: $1}
  - {name: free, key: sk-free}
"""
Start = Callable[..., Daemon]
_ADDRESSES = itertools.count()


class Till:
    """The daemon, and the accounts that pay there."""

    def __init__(self, daemon: Daemon, session: ClientSession) -> None:
        self.daemon = daemon
        self.url = daemon.url
        self.database = daemon.config.parent / "newapi.db"
        self._session = session
        self._since = len(daemon.lines)
        self._address = f"198.51.100.{next(_ADDRESSES) % 250 + 1}"  # each has its own pace

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What the daemon has written since this one came."""
        return self.daemon.lines[self._since :]

    async def post(self, path: str, body: Any = None, by: str = ADA, **headers: str) -> Answer:
        """A POST by the holder of an access token or a key; a body that is no bytes is sent as JSON."""
        return await self._send("POST", path, body if isinstance(body, bytes) else orjson.dumps(body), by, headers)

    async def get(self, path: str, by: str = ADA, **headers: str) -> Answer:
        """A GET by the same."""
        return await self._send("GET", path, None, by, headers)

    async def _send(self, method: str, path: str, data: bytes | None, by: str, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"x-forwarded-for": self._address} | ({"authorization": by} if by else {})
        limit = ClientTimeout(total=30)
        async with self._session.request(method, self.url + path, data=data, headers=named, timeout=limit) as response:
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await response.read(),
            )

    async def chat(self, by: str) -> int:
        """One chat by a key; its status."""
        body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
        return (await self.post("/v1/chat/completions", body, f"Bearer {by}")).status

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What plain SQL finds."""
        with closing(sqlite3.connect(self.database, timeout=20)) as conn:
            conn.row_factory = sqlite3.Row
            return [dict(row) for row in conn.execute(query, values)]

    def run(self, statement: str, *values: Any) -> None:
        """What plain SQL changes."""
        with closing(sqlite3.connect(self.database, timeout=20)) as conn, conn:
            conn.execute(statement, values)

    def quota(self, user: int = 7) -> int:
        """A user's balance."""
        return int(self.rows("SELECT quota FROM users WHERE id = ?", user)[0]["quota"])

    def left(self, name: str) -> int:
        """A key's balance."""
        return int(self.rows("SELECT remain_quota FROM tokens WHERE name = ?", name)[0]["remain_quota"])

    def orders(self) -> list[dict[str, Any]]:
        """Every order, by id."""
        return self.rows("SELECT * FROM top_ups ORDER BY id")

    def told(self) -> list[dict[str, Any]]:
        """Every log row of a top-up, by id."""
        return self.rows("SELECT * FROM logs WHERE type = 1 ORDER BY id")

    def bugs(self) -> list[dict[str, Any]]:
        """What nobody expected."""
        return [line for line in self.lines if line["event"] == "bug"]


def people(till: Till) -> None:
    """The users, and a key each, as they are at the start; no order, no code, no row of the log."""
    with closing(sqlite3.connect(till.database, timeout=20)) as conn, conn:
        conn.execute("BEGIN IMMEDIATE")
        for table in ("top_ups", "redemptions", "logs", "options"):
            conn.execute(f"DELETE FROM {table}")
        conn.execute("UPDATE tokens SET remain_quota = ? WHERE name = 'yaml'", (START,))
        for id, name, token, role, group in USERS:
            conn.execute(
                'INSERT INTO users(id, username, password, access_token, role, status, quota, "group", aff_code)'
                " VALUES (?, ?, '!', ?, ?, 1, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET status = 1, deleted_at = NULL,"
                " quota = excluded.quota",
                (id, name, token, role, START, group, name),
            )
        for id, user, key in KEYS:
            conn.execute(
                "INSERT INTO tokens(id, user_id, key, status, name, expired_time, remain_quota, unlimited_quota)"
                " VALUES (?, ?, ?, 1, ?, -1, 0, 1) ON CONFLICT(id) DO NOTHING",
                (id, user, key, f"key{id}"),
            )


@contextmanager
def kept(folder: Path) -> Iterator[Start]:
    """Starts a daemon for each text, once: a start costs more than most tests."""
    running: dict[str, Daemon] = {}

    def start(text: str) -> Daemon:
        if text not in running:
            port, place = free_port(), folder / str(len(running))
            place.mkdir()
            config = place / "config.yaml"
            config.write_text(f"listen: 127.0.0.1:@PORT@\n{text}".replace("@PORT@", str(port)))
            config.chmod(0o600)
            running[text] = Daemon(config, f"http://127.0.0.1:{port}").start()
        return running[text]

    yield start
    for one in running.values():
        one.stop()


@asynccontextmanager
async def selling(start: Start, portal: str, *, keys: bool = False) -> AsyncIterator[Till]:
    """A daemon with this `portal.topup`; nothing unexpected happens to it. `keys`: it knows the users' keys."""
    daemon = await asyncio.to_thread(start, f"{BASE}portal:\n  topup:\n{portal}")
    async with ClientSession() as session:
        till = Till(daemon, session)
        people(till)
        if keys:
            await asyncio.to_thread(daemon.wait, lambda line: line["event"] == "config_loaded" and line["tokens"] == 4)
        yield till
        assert till.bugs() == []
