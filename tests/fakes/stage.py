"""One house with given channels, a scripted provider and a database: whole exchanges without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from newapi_proxy.clock import Clock, SystemClock
from newapi_proxy.config.model import Channel, Config, Price, Token
from newapi_proxy.daemon.view import joined
from newapi_proxy.ports import Client, Fetcher
from newapi_proxy.relay import exchange
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import build
from newapi_proxy.store.db import Database
from newapi_proxy.surfaces.base import PATH, Surface
from newapi_proxy.surfaces.openai_chat import CHAT
from tests.fakes.ports import ListSink, Script, ScriptedClient

JSON = {"content-type": "application/json"}


class Stage:
    """The house, and what its provider was asked."""

    def __init__(self, house: House, client: Any) -> None:
        self.house = house
        self.client = client
        self._count = 0

    async def ask(
        self, surface: Surface = CHAT, *, sink: ListSink | None = None, in_path: str = "", **body: Any
    ) -> ListSink:
        """Sends a request; the client's end. `in_path`: the model where the path names it."""
        self._count += 1
        sink = sink or ListSink()
        visit = Visit(
            request_id=f"r{self._count}",
            method="POST",
            path="/x",
            route="/x",
            client_ip="127.0.0.1",
            arrived=self.house.clock.monotonic(),
            token=next(iter(self.house.snapshot.tokens.values())),
        )
        await exchange.chat(self.house, visit, surface, orjson.dumps(body), {PATH: in_path}, sink)
        return sink

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The bodies that went out."""
        bodies = [one.sent.body for one in self.client.opened if one.sent is not None]
        return [orjson.loads(body) if isinstance(body, bytes) else body for body in bodies]


@asynccontextmanager
async def stage(
    folder: Path,
    channels: tuple[Channel, ...],
    *scripts: Script,
    fetcher: Fetcher | None = None,
    clock: Clock | None = None,
    client: Client | None = None,
    **config: Any,
) -> AsyncIterator[Stage]:
    """A stage; everything has a price. The provider plays the scripts, or is the given client."""
    whole = Config(
        **{
            "prices": {"*": Price(input=2, output=4)},
            "channels": channels,
            "tokens": (Token(name="t", key=Secret("sk-t")),),
            **config,
        }
    )
    database = await Database.open(f"sqlite:///{folder}/stage.db", folder, "normal", None)
    try:
        rows = await database.write(lambda conn, items: [joined(conn, whole, 1)], None)
        clock, client = clock or SystemClock(), client or ScriptedClient(*scripts)
        view = build(whole, rows.tokens, rows.channel_ids)
        house = House(view, database, client, Health(clock, lambda channel, state: None), clock, boot="b")
        house.fetcher = fetcher
        yield Stage(house, client)
    finally:
        await database.close()
