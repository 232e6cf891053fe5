"""Which channel a submission of a task goes to: the relay's plan, limits and health, as `tasks.submit` asks for them.

Knows who hears of an attempt (health, the request's record, the log); nothing of what is submitted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from newapi_proxy import log
from newapi_proxy.errors import OurError, UpstreamFailure
from newapi_proxy.relay.house import House
from newapi_proxy.relay.limits import refused
from newapi_proxy.relay.plan import Candidate, Plan, retries
from newapi_proxy.relay.record import Record, Visit
from newapi_proxy.snapshot import Channel, Snapshot, Token
from newapi_proxy.store import channels
from newapi_proxy.store.windows import Full, Grant
from newapi_proxy.tasks.calls import Place

EXHAUSTED: Final = "No available account instance"  # as New API has it in a channel's row
Tiers = tuple[tuple[Channel, ...], ...]


def serving(snapshot: Snapshot, token: Token, model: str, platform: str) -> Tiers:
    """The channels of the platform that serve the model to the key's group, by priority."""
    tiers = [
        tuple(one for one in tier if one.adapter.tasks is not None and one.adapter.tasks.platform == platform)
        for tier in snapshot.tiers(token.group, model)
    ]
    return tuple(tier for tier in tiers if tier)


class Planned:
    """One submission's attempts, over channels that could serve it; see `tasks.submit.Choice`."""

    def __init__(self, house: House, visit: Visit, record: Record, tiers: Tiers) -> None:
        self._house = house
        self._visit = visit
        self._record = record
        self._relay = (visit.snapshot or house.snapshot).config.relay
        self._plan = Plan(tiers, house.turns, house.health.usable)
        self._full: list[Full] = []
        self._grants: list[Grant] = []  # of the attempts that began
        self._grant: Grant | None = None  # of the one that is to begin
        self._looked = False
        self._made = 0
        self._since = 0.0
        self._trial = False

    async def first(self) -> Place | None:
        """Raises ClientError where every channel is full, OurError where all rest after failures."""
        found = await self._next()
        if found is None and self._full:
            raise refused(self._full, "Every channel of this model")
        if found is None and self._plan.resting:
            raise OurError(
                "All channels for this model are resting after failures.",
                status=503,
                code="channels_resting",
                retry_after=1.0,
            )
        return found

    async def only(self, place: Place) -> Place:
        """Raises ClientError where the channel is full."""
        full = await self._taken(Candidate(place.channel, place.key, 0))
        if full is not None:
            raise refused([full], "The channel of the task that is followed")
        return place

    async def after(self, place: Place, failure: UpstreamFailure) -> Place | None:
        """What may have begun upstream, unheard, is not begun elsewhere."""
        relay = self._relay
        if self._made >= relay.max_attempts or failure.kind == "timeout":
            return None
        return await self._next() if retries(failure, place.channel, relay.no_retry) else None

    def began(self, place: Place) -> None:
        """Remembers when."""
        self._made += 1
        if self._grant is not None:
            self._grants.append(self._grant)
            self._grant = None
        self._since = self._house.clock.monotonic()
        self._trial = self._house.health.began(place.channel)

    def ended(self, place: Place, status: int, failure: UpstreamFailure | None) -> None:
        """Tells health, record and log."""
        health, candidate = self._house.health, Candidate(place.channel, place.key, 0)
        if failure is None:
            health.succeeded(place.channel, place.key, trial=self._trial)
            self._record.tried(candidate, status, "ok", self._since)
            return
        health.failed(place.channel, place.key, failure, trial=self._trial)
        self._record.tried(candidate, status, failure.kind, self._since, str(failure.code))
        log.logger().warning(
            "attempt_failed",
            request_id=self._visit.request_id,
            channel=place.channel.name,
            status=status,
            kind=failure.kind,
            code=str(failure.code),
            message=failure.message if not failure.upstream_status else None,
            detail=failure.detail,
        )

    def exhausted(self, place: Place) -> None:
        """The key rests, and the channel's row says why (decision 23)."""
        house, channel = self._house, place.channel
        if not channel.auto_disable:
            return
        house.health.failed(channel, place.key, UpstreamFailure(EXHAUSTED, blames="key"), trial=False)
        log.logger().warning("channel_state", channel=channel.name, state="disabled", reason=EXHAUSTED)
        id, at = channel.id, int(house.clock.wall())
        house.db.write(
            lambda conn, _: [channels.set_status(conn, id, channels.AUTO_DISABLED, reason=EXHAUSTED, at=at)], None
        ).add_done_callback(_noted)

    @property
    def spared(self) -> bool:
        """Whether a channel was looked for, and none was asked: for want of room, or of money."""
        return self._looked and not self._made

    def close(self) -> None:
        """Gives the channels' slots back; a channel that was not asked after all has nothing counted."""
        if self._grant is not None:
            self._house.windows.cancel(self._grant)
            self._grant = None
        for grant in self._grants:
            self._house.windows.release(grant)
        self._grants.clear()

    async def _next(self) -> Place | None:
        while (found := self._plan.next()) is not None:
            full = await self._taken(found)
            if full is None:
                return Place(found.channel, found.key)
            self._full.append(full)
            self._plan.full(found, whole=full.ceiling.scope == "channel")
        return None

    async def _taken(self, found: Candidate) -> Full | None:
        """Takes what the candidate's limits ask for, or says what is full."""
        self._looked = True
        ceilings = found.channel.ceilings[found.key] if found.channel.ceilings else ()
        taken = await self._house.windows.take(ceilings) if ceilings else None
        if isinstance(taken, Full):
            return taken
        self._grant = taken
        return None


def _noted(written: asyncio.Future[bool]) -> None:
    """The row is for people; that it could not be written is said by the database itself."""
    if not written.cancelled():
        written.exception()
