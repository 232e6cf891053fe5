"""What all exchanges share, and what is settled about one request before it is tried."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from newapi_proxy.clock import Clock
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ports import Client, Fetcher, Watched
from newapi_proxy.relay.credentials import Credentials
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.memory import Budget, Shelf
from newapi_proxy.relay.plan import Turns
from newapi_proxy.relay.record import Visit
from newapi_proxy.relay.sockets import Dialer
from newapi_proxy.snapshot import Lane, Snapshot, Token
from newapi_proxy.store.db import Database
from newapi_proxy.store.windows import Memory, Windows
from newapi_proxy.surfaces.base import Surface


class House:
    """What all exchanges share. `snapshot` is replaced by a reload; an exchange keeps the one it began with.

    `boot` names this run of the process in the ledger; `watches` are those of the exchanges and submissions that run
    now. Until somebody gives it a `fetcher`, a provider that wants bytes gets none of what clients name by URL; without
    a `dialer` there are no sessions. `sessions` are told, by a call, that the process is about to end. `memory` is what
    bodies and kept answers share, `shelf` where the latter stand.
    """

    __slots__ = (
        "boot", "client", "clock", "credentials", "db", "dialer", "fetcher", "health", "memory", "sessions", "shelf",
        "snapshot", "turns", "watches", "windows",
    )  # fmt: skip

    def __init__(
        self, snapshot: Snapshot, db: Database, client: Client, health: Health, clock: Clock, *, boot: str
    ) -> None:
        self.snapshot = snapshot
        self.db = db
        self.client = client
        self.fetcher: Fetcher | None = None
        self.dialer: Dialer | None = None
        self.health = health
        self.credentials = Credentials(client, clock)
        self.clock = clock
        self.boot = boot
        self.turns = Turns()
        self.watches: set[Watched] = set()
        self.sessions: set[Callable[[], None]] = set()
        self.windows: Windows = Memory(clock.monotonic)
        self.memory = Budget()
        self.shelf = Shelf(self.memory, clock.monotonic)


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed about a request: who came with which key, what is asked in which format, under which snapshot.

    `at` is unix seconds.
    """

    visit: Visit
    token: Token
    surface: Surface
    ask: Ask
    snapshot: Snapshot
    at: int
    lane: Lane

    @property
    def id(self) -> str:
        """The request's id, in the ledger and in the log."""
        return self.visit.request_id
