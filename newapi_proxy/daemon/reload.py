"""A new configuration while the daemon runs: read beside the loop, built completely, swapped in one assignment.

A fault changes nothing: one line each, and the metric. Requests keep the snapshot they began with. Sources: interfaces
§3, reliability §2.1, demand C1.
"""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from newapi_proxy import log, metrics
from newapi_proxy.billing import budgets
from newapi_proxy.config import load
from newapi_proxy.config.nodes import Fault
from newapi_proxy.daemon.redaction import hide
from newapi_proxy.daemon.rests import Rests
from newapi_proxy.daemon.view import Views
from newapi_proxy.errors import OurError
from newapi_proxy.relay.house import House
from newapi_proxy.snapshot import FIXED

THRESHOLDS: Final = (50_000, 20, 100)  # collections of a heap that is mostly frozen may be rare


class Reloader:
    """Turns a file into the house's snapshot. `views` join a configuration with the database; `loaded` is in use."""

    def __init__(self, path: Path, house: House, views: Views, rests: Rests, loaded: load.Loaded) -> None:
        self._path = path
        self._house = house
        self._views = views
        self._rests = rests
        self._loaded = loaded  # as the file has it
        self._warned: tuple[Fault, ...] = ()
        self._one = asyncio.Lock()
        self.count = 0

    async def reload(self) -> bool:
        """One reload; whether it took. Never raises for what a file may hold."""
        async with self._one:
            return await self._reloaded()

    async def refresh(self) -> bool:
        """The same file with what the database says now; whether that is something else than before."""
        async with self._one:
            made = await self._views.again(self._loaded)
            if made is not None:
                self._house.snapshot = made[0]
            await self._woken()
            if made is not None:
                self._tell(made[1])
            return made is not None

    def adopt(self, whole: load.Loaded) -> None:
        """What follows from a file that is in use now, joined with the database."""
        self._warned = whole.warnings
        adopt(whole, self._house)

    async def _woken(self) -> None:
        with suppress(OurError):  # the writer says so; the next look does it
            await self._rests.follow(self._house.health, self._house.snapshot)

    def _tell(self, whole: load.Loaded) -> None:
        metrics.forget_channels(channel.name for channel in self._house.snapshot.channels)
        for warning in whole.warnings:
            if warning not in self._warned:
                log.logger().warning("config_warning", warning=str(warning))
        self._warned = whole.warnings
        told(self._house, whole, cause="database")
        self._settle()

    async def _reloaded(self) -> bool:
        loaded = await asyncio.get_running_loop().run_in_executor(None, _read, self._path)
        before = self._house.snapshot.config
        if loaded.config is None:
            for fault in loaded.faults:
                log.logger().error("config_fault", fault=str(fault))
            return self._kept("the configuration has faults")
        changed = [name for name in FIXED if getattr(loaded.config, name) != getattr(before, name)]
        if changed:
            for name in changed:
                log.logger().error("reload_refused", key=name, reason=f"`{name}` needs a restart")
            return self._kept("what needs a restart has changed")
        self._house.snapshot, whole = await self._views.build(loaded)
        self._loaded = loaded
        await self._woken()
        self.adopt(whole)
        self._settle()
        return True

    def _settle(self) -> None:
        self.count += 1
        budgets.forget()
        gc.collect()  # a snapshot is not young: small collections need not look at it

    def _kept(self, reason: str) -> bool:
        metrics.reload(False, self._house.clock.wall())
        log.logger().error("config_kept", reason=reason)
        return False


def _read(path: Path) -> load.Loaded:
    """The file as it is now, its secrets known to the log."""
    loaded = load.read(path, dict(os.environ))
    if loaded.config is not None:
        hide(loaded.config)
    return loaded


def adopt(loaded: load.Loaded, house: House) -> None:
    """What follows from a configuration that is in use now: log level, metrics, one line and its warnings."""
    config = house.snapshot.config
    log.setup(config.log.level, config.log.format)
    metrics.forget_channels(channel.name for channel in house.snapshot.channels)
    metrics.reload(True, house.clock.wall())
    for warning in loaded.warnings:
        log.logger().warning("config_warning", warning=str(warning))
    told(house, loaded, cause="file")


def told(house: House, loaded: load.Loaded, *, cause: str) -> None:
    """One line for a snapshot that is in use now; `cause`: what made it, the file or the database."""
    log.logger().info(
        "config_loaded",
        cause=cause,
        files=[str(file) for file in loaded.files],
        channels=len(house.snapshot.channels),
        tokens=len(house.snapshot.tokens),
        warnings=len(loaded.warnings),
    )


def settle_memory() -> None:
    """After the start: takes what is here to stay, code above all, out of the collector's sight.

    Only then: what is in use at a later moment is not here to stay, and a ring of objects that is frozen while a
    request uses it is never collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
