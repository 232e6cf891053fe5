"""One life of the process, from the first socket to the last line.

Order of the start: sockets (fails fast), database (recovers the ledger), snapshot, servers, then readiness. Signals:
HUP reloads, TERM and INT drain, a second one stops now, USR1 writes a state line. Sources: interfaces §2, §3,
reliability §2.1 to §2.3, §5.3.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from newapi_proxy import __version__, log, metrics
from newapi_proxy.clock import SystemClock
from newapi_proxy.config import load
from newapi_proxy.config.model import Config
from newapi_proxy.daemon import listen, notify, polling, reload
from newapi_proxy.daemon.drain import drain
from newapi_proxy.daemon.following import follow
from newapi_proxy.daemon.neighbours import meet, recover, watch
from newapi_proxy.daemon.recall import recall
from newapi_proxy.daemon.redaction import hide
from newapi_proxy.daemon.rests import Rests
from newapi_proxy.daemon.retention import retain
from newapi_proxy.daemon.tidy import tidy
from newapi_proxy.daemon.view import Views
from newapi_proxy.errors import ProxyError
from newapi_proxy.relay.health import Health
from newapi_proxy.relay.house import House
from newapi_proxy.spawn import spawn
from newapi_proxy.store.db import Database
from newapi_proxy.store.windows import Memory
from newapi_proxy.web import edges
from newapi_proxy.web.app import Edge
from newapi_proxy.web.client import HttpClient
from newapi_proxy.web.dial import SocketDialer
from newapi_proxy.web.fetch import HttpFetcher
from newapi_proxy.web.server import Server, bounded

if TYPE_CHECKING:
    from newapi_proxy.store.shared import Shared

DRAINED: Final = 0
STOPPED: Final = 4  # stopped before the drain's end
SIGNALS: Final = frozenset({signal.SIGHUP, signal.SIGUSR1})
STATES: Final = ("closed", "half-open", "open", "disabled")
STALL: Final = 1.0  # seconds by which a turn of the loop may be late
LIMITS_SHOWN: Final = 400  # in the state line


class CannotStart(Exception):
    """Why the daemon did not come up, in one sentence."""


def run(path: Path, loaded: load.Loaded) -> int:
    """Runs until a signal ends it; the exit status. `loaded` has no faults. Raises CannotStart."""
    assert loaded.config is not None
    hide(loaded.config)
    log.setup(loaded.config.log.level, loaded.config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Daemon(path, loaded, loaded.config).live())


class Daemon:
    """The parts of a running process."""

    def __init__(self, path: Path, loaded: load.Loaded, config: Config) -> None:
        self._path = path
        self._first = loaded
        self._config = config
        self._clock = SystemClock()
        self._began = self._clock.monotonic()
        self._notifier = notify.Notifier(os.environ)
        self._places: list[listen.Place] = []
        self._accepting: list[asyncio.AbstractServer] = []
        self._reload_wanted = asyncio.Event()
        self._end = asyncio.Event()
        self._now = asyncio.Event()
        self._ping_at = 0.0
        self._shared: Shared | None = None
        self._dialer = SocketDialer()

    async def live(self) -> int:
        """Starts, serves, drains. Raises CannotStart."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_stray)
        log.gather(loop.call_soon)
        try:
            relay, private = self._sockets()
            database = await self._database()
        except (OSError, ValueError, ProxyError) as error:
            raise CannotStart(str(error)) from error
        client = HttpClient()
        try:
            await self._serve(database, client, relay, private)
            await self._end.wait()
            return await self._finish()
        except ProxyError as error:
            raise CannotStart(error.message) from error
        finally:
            for place in self._places:
                listen.forget(place)
            await client.close()
            await self._dialer.close()
            if self._shared is not None:
                await self._shared.close()
            await database.close()
            log.logger().info("stopped", uptime=round(self._clock.monotonic() - self._began, 1))
            log.gather(None)
            self._notifier.close()

    def _sockets(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """The relay's and the metrics' listeners; those that were handed over win. Raises OSError, ValueError."""
        handed = notify.listen_fds(os.environ)
        relay = [one for name, one in handed if name != listen.METRICS]
        private = [one for name, one in handed if name == listen.METRICS]
        wanted = self._config.metrics.listen
        if not relay:
            relay = self._bound(listen.places(self._config.listen), together=self._config.reuse_port)
        if not private and wanted is not None:
            private = self._bound(listen.places(wanted))
        return relay, private

    def _bound(self, places: Sequence[listen.Place], *, together: bool = False) -> list[socket.socket]:
        found = []
        for place in places:
            found += listen.bind(place, together=together)
            self._places.append(place)
        return found

    async def _database(self) -> Database:
        """The open database with no holds of earlier lives. Raises OurError."""
        database = await Database.open(
            self._config.database.reveal(), self._path.parent, self._config.durability, metrics.commit
        )
        await recover(database, self._clock)
        return database

    async def _serve(
        self, database: Database, client: HttpClient, relay: list[socket.socket], private: list[socket.socket]
    ) -> None:
        """Everything that serves, then readiness."""
        views = Views(database, self._clock)
        first, whole = await views.build(self._first)
        rests = Rests(database, self._clock)
        health = Health(self._clock, _told, rests)
        await rests.follow(health, first)
        house = House(first, database, client, health, self._clock, boot=database.boot)
        house.fetcher = HttpFetcher()
        house.dialer = self._dialer
        self._house = house
        self._shared = await meet(house, self._config.redis)
        if isinstance(house.windows, Memory):
            await recall(house, house.windows)
        self._reloader = reload.Reloader(self._path, house, views, rests, self._first)
        self._edge, self._private = edges.relay_edge(house), edges.metrics_edge(house)
        self._servers = [
            await self._accept(self._edge, relay),
            await self._accept(self._private, private),
        ]
        self._signals()
        self._reloader.adopt(whole)
        spawn(self._reloads(), "reload")
        spawn(follow(views, self._reloader, self._end, shared=database.shared), "following")
        if database.shared:
            spawn(watch(database, self._clock, self._end), "neighbours")
        spawn(retain(house, self._end), "retention")
        self._polling = spawn(polling.polling(house, self._end), "polling")
        spawn(tidy(database, self._clock, self._end), "tidy")
        reload.settle_memory()
        self._watch()
        self._notifier.send(notify.READY, "STATUS=serving")
        log.logger().info("started", version=__version__, pid=os.getpid(), uptime=self._uptime())

    async def _accept(self, edge: Edge, sockets: Sequence[socket.socket]) -> Server:
        server = Server(edge.handle, edge.unparsed)
        loop = asyncio.get_running_loop()
        for one in sockets:
            bounded(one)
            where = _printed(one)
            self._accepting.append(await loop.create_server(server, sock=one, backlog=listen.BACKLOG))
            log.logger().info("listening", on=where)
        return server

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        loop.add_signal_handler(signal.SIGUSR1, self._state)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _asked_to_stop(self) -> None:
        if self._end.is_set():
            self._now.set()
        self._end.set()

    async def _reloads(self) -> None:
        """One reload after the other; signals that come meanwhile ask for one more, not for one each."""
        while not self._end.is_set():
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            if self._end.is_set():
                return
            self._notifier.reloading()
            try:
                await self._reloader.reload()
            except ProxyError as error:
                metrics.reload(False, self._clock.wall())
                log.logger().error("config_kept", reason=error.message)
            except Exception as error:
                metrics.bug()
                metrics.reload(False, self._clock.wall())
                log.bug(error, where="reload")
            self._notifier.send(notify.READY, "STATUS=serving")

    async def _finish(self) -> int:
        """No new clients, the old ones to their end."""
        self._notifier.send(notify.STOPPING, "STATUS=draining")
        self._edge.draining = self._private.draining = True
        self._reload_wanted.set()
        for one in self._accepting:
            one.close()
        log.logger().info("draining", inflight=metrics.inflight(), uptime=self._uptime())
        await polling.ended(self._polling)
        whole = await drain(self._house, self._servers, self._now)
        log.logger().info("drained", whole=whole)
        return DRAINED if whole else STOPPED

    def _watch(self) -> None:
        """Pings the supervisor's watchdog: from the loop, because it is the loop that must be alive."""
        every = notify.watchdog_seconds(os.environ)
        self._ping_at = asyncio.get_running_loop().time() + (every or STALL)
        self._ping(every)

    def _ping(self, every: float | None) -> None:
        loop = asyncio.get_running_loop()
        late = loop.time() - self._ping_at
        if late > STALL:
            log.logger().warning("loop_stalled", seconds=round(late, 2))
        if every is not None:
            self._notifier.send(notify.WATCHDOG)
        self._ping_at = loop.time() + (every or STALL)
        loop.call_at(self._ping_at, self._ping, every)

    def _uptime(self) -> float:
        return round(self._clock.monotonic() - self._began, 3)

    def _state(self) -> None:
        """What an operator asks a process that seems stuck, or seems to grow."""
        from tracemalloc import get_traced_memory  # of use to nobody else

        house = self._house
        log.logger().warning(
            "state",
            uptime=self._uptime(),
            draining=self._edge.draining,
            inflight=metrics.inflight(),
            exchanges=len(house.watches),
            connections=sum(len(server.connections) for server in self._servers),
            body_bytes=self._edge.budget.held,
            channels={channel.name: "closed" for channel in house.snapshot.channels} | house.health.states(),
            limits={f"{one.scope} {one.name} {one.limit}": one.count for one in house.windows.used()[:LIMITS_SHOWN]},
            tokens=len(house.snapshot.tokens),
            reloads=self._reloader.count,
            price_version=house.snapshot.prices.version,
            metrics=metrics.snapshot(),
            lost_lines=log.lost(),
            max_rss_kib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            threads=threading.active_count(),
            blocks=sys.getallocatedblocks(),
            traced=get_traced_memory()[0],
        )


def _told(channel: str, state: int) -> None:
    """A channel's breaker changed its mind."""
    metrics.channel_state(channel, state)
    log.logger().warning("channel_state", channel=channel, state=STATES[state])


def _printed(listener: socket.socket) -> str:
    address = listener.getsockname()
    if isinstance(address, tuple):
        return str(listen.Place(host=str(address[0]), port=int(address[1])))
    return f"unix:{address if isinstance(address, str) else address.decode('utf-8', 'replace')}"


def _stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody caught: a client's broken connection is a line, everything else is a bug."""
    error = context.get("exception")
    if isinstance(error, OSError):
        log.logger().info("library", source="loop", message=str(context.get("message")), exception=type(error).__name__)
        return
    metrics.bug()
    if isinstance(error, BaseException):
        log.bug(error, where=str(context.get("message")))
    else:
        log.logger().error("bug", where=str(context.get("message")))
