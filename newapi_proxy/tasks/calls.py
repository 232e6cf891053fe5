"""One question to a channel about its tasks: sent under a deadline, its answer whole and bounded.

Knows what submissions, polls and look-ups share; nothing of what they say.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from newapi_proxy.adapters.base import Outgoing, Target
from newapi_proxy.clock import Clock
from newapi_proxy.errors import OurError
from newapi_proxy.ports import Client, Interrupt, Patience, whole
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel
from newapi_proxy.store.db import Database
from newapi_proxy.wire import tree

_DIGITS: Final = 16  # of a key's digest: enough to tell a channel's keys apart
_NO_KEY: Final = Secret("")


class Errand:
    """What is done to its end though nobody waits for it, unless the process can wait no longer: see ports.Watched."""

    __slots__ = ("interrupt",)

    def __init__(self) -> None:
        self.interrupt = Interrupt()

    def begin(self) -> Interrupt:
        """A new question; where all was ended, it is as well."""
        before, self.interrupt = self.interrupt.cause, Interrupt()
        if isinstance(before, OurError):
            self.interrupt.fire(before)
        return self.interrupt


class Desk(msgspec.Struct, frozen=True):
    """What submissions and polls share; `boot` names this run of the process in the ledger."""

    db: Database
    client: Client
    clock: Clock
    boot: str


class Bounds(msgspec.Struct, frozen=True):
    """What a question may take: `seconds` in all, `connect` of them for the connection, `limit` bytes of an answer; and
    the errand that it belongs to."""

    seconds: float
    limit: int
    connect: float
    errand: Errand | None = None


class Place(msgspec.Struct, frozen=True):
    """A channel and the index of one of its keys."""

    channel: Channel
    key: int = 0

    @property
    def secret(self) -> Secret:
        """The key itself."""
        return self.channel.keys[self.key] if self.channel.keys else _NO_KEY

    @property
    def mark(self) -> str:
        """What tells this key from the channel's others, through reloads, and says nothing of it."""
        return sha256(self.secret.reveal().encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]

    def target(self, model: str, now: int) -> Target:
        """Where a request goes."""
        channel = self.channel
        return Target(
            channel=channel.name,
            base_url=channel.base_url,
            key=self.secret,
            model=model,
            options=channel.options,
            now=now,
        )


def marked(channel: Channel, mark: str) -> Place:
    """The channel with the key of that mark; its first key where it has no such one any more."""
    places = [Place(channel, key) for key in range(len(channel.keys))]
    return next((place for place in places if place.mark == mark), Place(channel))


async def call(client: Client, place: Place, outgoing: Outgoing, bounds: Bounds) -> tuple[int, bytes]:
    """Status and body of the answer. Raises UpstreamFailure: no answer, too late, too large; OurError where the errand
    is ended."""
    channel = place.channel
    interrupt = bounds.errand.begin() if bounds.errand is not None else Interrupt()
    patience = Patience(bounds.seconds, bounds.connect, bounds.limit)
    answer = await whole(client, _final(channel, outgoing), interrupt, patience, proxy=channel.proxy)
    return answer.status, answer.body


def _final(channel: Channel, outgoing: Outgoing) -> Outgoing:
    """The request with the channel's own edits and headers."""
    body = outgoing.body
    if isinstance(body, dict):
        for path, value in channel.override.set.items():
            body = tree.put(body, path, value)
        for path, value in channel.override.default.items():
            body = tree.default(body, path, value)
        for path in channel.override.remove:
            body = tree.remove(body, path)
        body = tree.encode(body)
    headers = {**outgoing.headers, **{name.lower(): value for name, value in channel.headers.items()}}
    return msgspec.structs.replace(outgoing, body=body, headers=headers)
