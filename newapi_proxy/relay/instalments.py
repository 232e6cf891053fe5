"""A session's money: one hold open at a time, settled with each response, the next held at once.

Each response is an entry of its own in the ledger, under the session's id and a number; the sums are the session's.
Source: relay-and-billing 5.12, decisions 6 to 8.
"""

from __future__ import annotations

from typing import Final

import msgspec

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay import entry, exchange
from newapi_proxy.relay.attempt import Served
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.record import Record, line
from newapi_proxy.relay.settle import Bill, Held

TRIES: Final = 8  # numbers that may be taken already, by a client that chose such an id for another request
_SUMMED: Final = (
    "prompt", "completion", "cache_read", "cache_write", "cache_write_1h", "audio_in", "image_in", "reasoning",
    "audio_out", "image_out",
)  # fmt: skip


class Instalments:
    """`count`: the responses that were charged. Nothing here is to be cancelled once it is asked for."""

    def __init__(self, house: House, given: Given, record: Record, amount: int) -> None:
        self._house = house
        self._given = self._part = given
        self._record = record
        self.least = self._amount = amount
        self._number = 0
        self._held: Held | None = None
        self._usage: Usage | None = None
        self._units = 0
        self.count = 0

    @property
    def held(self) -> int:
        """The units that are held now."""
        return self._hold.amount if self._held is not None else 0

    async def hold(self, running: int = 0) -> None:
        """Holds for the next response: as much as the one before has cost, or those in progress do. Raises ClientError,
        OurError."""
        for _ in range(TRIES):
            self._number += 1
            self._part = self._numbered()
            self._hold = exchange.holding(self._house, self._part, max(self._amount, running))
            held = Held(self._house.db, self._hold, self._record.attempts)
            try:
                await held.take()
            except ClientError as error:
                if error.code == "duplicate_request_id" and self._number > 1:
                    continue
                raise
            self._held = held
            return
        raise ClientError("Requests with the ids of this session exist.", status=409, code="duplicate_request_id")

    async def cover(self, running: int) -> None:
        """Holds as much as the responses in progress cost by now. Raises ClientError, OurError."""
        if self._held is None:
            await self.hold(running)
        elif running > self._hold.amount:
            self._hold = await self._held.extended(running)

    async def settle(self, served: Served, billed: Bill) -> None:
        """Charges a response that was delivered, as far as the balance reaches. Raises OurError where the ledger cannot
        be written now."""
        if self._held is None:  # one of several at a time, and for the next no hold was to be had
            self._amount = 0
            await self.hold()
        held, self._held = self._held, None
        assert held is not None
        due = entry.settlement(self._part, self._hold, served, billed, self._record)
        row = msgspec.structs.replace(due.entry, other=_told(due.entry.other, billed.usage))
        units = billed.charge.units
        self._amount = max(self.least, units) if billed.price.call is None else 0  # a call is paid once
        self.count += 1
        taken = await held.settle(msgspec.structs.replace(due, entry=row), delivered=True)
        self._units += taken
        self._usage = billed.usage if self._usage is None else added(self._usage, billed.usage)
        self._record.billed(self._usage, line(self._usage), self._units, billed.charge.price_version)
        if taken < units:
            exchange.tell_short(self._part, taken, units)

    async def close(self, error: BaseException | None = None) -> Usage:
        """Gives back what is held; the sum of what was used."""
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(type(error) if error is not None else None, error, None)
        return self._usage or NOTHING

    def _numbered(self) -> Given:
        """The session as its response of this number is written down: under its own id and time."""
        if self._number == 1:
            return self._given
        given = self._given
        visit = msgspec.structs.replace(given.visit, request_id=f"{given.id}.{self._number}")
        return msgspec.structs.replace(given, visit=visit, at=self._record.now())


def added(one: Usage, more: Usage) -> Usage:
    """Two usages as one."""
    sums = {name: getattr(one, name) + getattr(more, name) for name in _SUMMED}
    return msgspec.structs.replace(one, **sums, source=one.source if one.source == more.source else "mixed")


def _told(other: str, usage: Usage) -> str:
    """New API's own members for a session's row (relay-and-billing 5.13)."""
    texts = f'"text_input":{usage.prompt - usage.audio_in},"text_output":{usage.completion - usage.audio_out}'
    audio = f'"audio_input":{usage.audio_in},"audio_output":{usage.audio_out}'
    return f'{other[:-1]},"ws":true,{audio},{texts}}}'
