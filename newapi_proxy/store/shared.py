"""Windows and slots that several processes share, wherever they are counted.

Each process counts for itself as well: what is full here needs no question, and while the common place cannot be
reached the process goes on alone, which lets through at most what each may alone. A process that dies gives its slots
back by their lease; after the place has forgotten everything the living say again what they hold. Knows nothing of
whose limits these are, nor how the place is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from newapi_proxy import log
from newapi_proxy.spawn import spawn
from newapi_proxy.store.windows import Ceiling, Full, Grant, Memory, Used, share

TIMEOUT: Final = 2.0  # seconds for an answer; a request never waits longer
AGAIN: Final = 0.5  # seconds between two tries to reach the place
LEASE: Final = 30  # seconds after which a dead process's slots are free
BEAT: Final = 10.0  # seconds between two renewals
MOST: Final = 10_000  # steps that may wait to be told; above, the newest are lost and the estimates stay

Row = tuple[str, int, list[tuple[str, float, int, int]]]
"""A subject, its slots or -1, and what is wanted of its limits: name, seconds, most, amount."""
Step = tuple[Any, ...]
"""("keep", subject, grant), ("free", subject, grant), ("change", subject, limit, entry, by)."""


class Refused(msgspec.Struct, frozen=True):
    """No room: which of the subjects, which limit, seconds to wait."""

    place: int
    limit: str
    wait: float


class Place(Protocol):
    """Where is counted for all. Everything raises one of `errors` where it cannot be reached within `TIMEOUT`."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What is raised where the place cannot be reached."""
        ...

    async def take(self, grant: str, rows: Sequence[Row]) -> Refused | list[str]:
        """Takes under every row or none; the entries' names in their order."""
        ...

    async def give(self, steps: Sequence[Step]) -> None:
        """Renews and frees slots and puts entries right, in this order."""
        ...

    async def back(self) -> None:
        """The place was away, and is there again."""
        ...

    async def close(self) -> None:
        """Lets it go."""
        ...


class _Entry(msgspec.Struct):
    """A share of one window: whose, of which limit, under which name, and how much."""

    subject: str
    limit: str
    name: str
    amount: int
    tokens: bool


class _Taken:
    """What a grant took in Redis: its name there, the subjects of its slots, its entries."""

    __slots__ = ("entries", "name", "slots")

    def __init__(self, name: str, slots: list[str], entries: list[_Entry]) -> None:
        self.name = name
        self.slots = slots
        self.entries = entries


class Shared:
    """The windows of all processes. Begins with `start`; belongs to the loop's thread."""

    __slots__ = ("_boot", "_down", "_ended", "_memory", "_open", "_place", "_serial", "_steps", "_wanted", "_working")

    def __init__(self, place: Place, monotonic: Callable[[], float], boot: str) -> None:
        self._place = place
        self._memory = Memory(monotonic)
        self._boot = boot
        self._serial = 0
        self._open: dict[str, _Taken] = {}  # grants that hold slots
        self._steps: list[Step] = []
        self._wanted = asyncio.Event()
        self._down = False
        self._ended = False
        self._working: asyncio.Task[None] | None = None

    def start(self) -> Shared:
        """Begins to say what is given back."""
        self._working = spawn(self._work(), "shared")
        return self

    async def close(self) -> None:
        """Frees what is held, says what is left to say, and lets the place go."""
        for taken in list(self._open.values()):
            self._free(taken)
        self._ended = True
        self._wanted.set()
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)
        await self._place.close()

    async def take(self, wanted: Sequence[Ceiling], tokens: int = 0, least: int | None = None) -> Grant | Full:
        """Here first, then in the common place."""
        grant = await self._memory.take(wanted, tokens, least)
        if isinstance(grant, Full) or self._down:
            return grant
        asked = spawn(self._taken(grant, wanted, tokens, tokens if least is None else least), "take")
        try:
            full = await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(lambda _: self.cancel(grant))
            raise
        if full is not None:
            self._memory.cancel(grant)
        return full or grant

    async def _taken(self, grant: Grant, wanted: Sequence[Ceiling], tokens: int, least: int) -> Full | None:
        self._serial += 1
        taken = _Taken(f"{self._boot}-{self._serial}", [one.id for one in wanted if one.slots is not None], [])
        rates = [(one, rate, share(rate, tokens, least)) for one in wanted for rate in one.rates]
        rows = [
            (
                one.id,
                -1 if one.slots is None else one.slots,
                [(rate.name, rate.seconds, rate.most, part) for owner, rate, part in rates if owner is one],
            )
            for one in wanted
        ]
        try:
            found = await self._place.take(taken.name, rows)
        except self._place.errors as error:
            self._lost(error)
            self._free(taken)  # it may have been taken all the same
            return None
        if isinstance(found, Refused):
            return Full(wanted[found.place], found.limit, found.wait)
        taken.entries = [
            _Entry(one.id, rate.name, name, part, rate.tokens)
            for (one, rate, part), name in zip(rates, found, strict=True)
        ]
        grant.far = taken
        if taken.slots:
            self._open[taken.name] = taken
        return None

    def correct(self, grant: Grant, tokens: int) -> None:
        """Here at once, for all soon."""
        self._memory.correct(grant, tokens)
        for entry in grant.far.entries if grant.far is not None else ():
            if entry.tokens and entry.amount != tokens:
                self._change(entry, tokens)

    def release(self, grant: Grant) -> None:
        """Here at once, for all soon."""
        self._memory.release(grant)
        if grant.far is not None:
            self._free(grant.far)

    def cancel(self, grant: Grant) -> None:
        """Here at once, for all soon."""
        self._memory.cancel(grant)
        if grant.far is not None:
            self._free(grant.far)
            for entry in grant.far.entries:
                self._change(entry, 0)

    def used(self) -> list[Used]:
        """What this process has taken; the others' is theirs to tell."""
        return self._memory.used()

    def _free(self, taken: _Taken) -> None:
        self._open.pop(taken.name, None)
        for subject in taken.slots:
            self._say(("free", subject, taken.name))
        taken.slots = []

    def _change(self, entry: _Entry, to: int) -> None:
        self._say(("change", entry.subject, entry.limit, entry.name, to - entry.amount))
        entry.amount = to

    def _say(self, step: Step) -> None:
        if len(self._steps) < MOST:
            self._steps.append(step)
            self._wanted.set()

    def _keep(self) -> None:
        for taken in self._open.values():
            for subject in taken.slots:
                self._say(("keep", subject, taken.name))

    async def _work(self) -> None:
        """Says what there is to say, and renews what is held, until the end."""
        loop = asyncio.get_running_loop()
        beat_at = loop.time() + BEAT
        while not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(beat_at):
                    await self._wanted.wait()
            if loop.time() >= beat_at:  # however much else there is to say
                self._keep()
                beat_at = loop.time() + BEAT
            if self._down:
                await asyncio.sleep(AGAIN)
            self._wanted.clear()
            await self._told()

    async def _told(self) -> None:
        steps, self._steps = self._steps, []
        if not steps and not self._down:
            return
        try:
            await self._place.give(steps)
        except self._place.errors as error:
            self._lost(error)
            # A correction that is done twice would let too much through; one that is lost lets through too little.
            self._steps = [step for step in steps if step[0] == "free"] + self._steps
            return
        if self._down:
            self._down = False
            log.logger().info("shared_recovered")
            self._keep()
            await self._place.back()

    def _lost(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            log.logger().error("shared_unavailable", reason=str(error) or type(error).__name__)
        self._wanted.set()
