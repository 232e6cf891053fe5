"""Keys exchanged for short-lived tokens: one exchange at a time per key, renewed early, forgotten when refused.

An exchange belongs to nobody: whoever waits for it may leave, it goes on and serves the others. Knows no provider; what
an exchange says stands in the adapter's `credential`. Source: provider-translation B.3, user-demands R11.
"""

from __future__ import annotations

import asyncio
import hashlib
from copy import copy
from typing import Final

from newapi_proxy.adapters.base import Adapter, Credential, Granted, Outgoing, Target
from newapi_proxy.clock import Clock
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Client, Interrupt
from newapi_proxy.secret import Secret
from newapi_proxy.spawn import spawn
from newapi_proxy.wire import tree

EARLY: Final = 300.0  # seconds before a token's end at which another is fetched
AGAIN: Final = 1.0  # seconds for which a failed exchange is believed
DEADLINE: Final = 30.0  # seconds one exchange may take
MOST: Final = 1024  # keys remembered; the configuration names fewer, but reloads bring others
ANSWER: Final = 64 * 1024  # bytes of an exchange's answer
FOREVER: Final = float("inf")

_Place = tuple[str, bytes]


class _Entry:
    """What is known of one key. `token` serves until `ends` and is renewed from `renews` on (wall seconds).

    `failure` is the last exchange's, believed until `failed_until` (monotonic seconds). `waiters` wait for the exchange
    that runs now, each on a future of its own.
    """

    __slots__ = ("ends", "failed_until", "failure", "flying", "renews", "token", "waiters")

    def __init__(self) -> None:
        self.token = ""
        self.ends = self.renews = 0.0
        self.failure: UpstreamFailure | None = None
        self.failed_until = 0.0
        self.flying = False
        self.waiters: set[asyncio.Future[str]] = set()

    def landed(self, granted: Granted | None, now: float) -> None:
        """The exchange has granted a token; None: the key serves as it is."""
        if granted is None:
            self.token, self.ends, self.renews = "", FOREVER, FOREVER
        else:
            life = granted.expires - now
            self.token, self.ends = granted.text, granted.expires
            self.renews = granted.expires - (EARLY if life > EARLY else life / 2)
        self.failure = None
        self.flying = False
        for waiter in self._waiting():
            waiter.set_result(self.token)

    def failed(self, failure: UpstreamFailure, now: float) -> None:
        """The exchange has failed; `now` monotonic. A token that still lives is kept."""
        self.failure, self.failed_until = failure, now + AGAIN
        self.flying = False
        for waiter in self._waiting():
            waiter.set_exception(copy(failure))  # one each: who catches one may change it

    def _waiting(self) -> list[asyncio.Future[str]]:
        waiters, self.waiters = self.waiters, set()
        return [waiter for waiter in waiters if not waiter.done()]


class Credentials:
    """The tokens of all channels. Holds hashes of keys, never keys."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._entries: dict[_Place, _Entry] = {}

    def held(self, adapter: Adapter, key: Secret) -> str:
        """The token that would be used for the key at this moment; "" where there is none."""
        entry = self._entries.get(_place(adapter, key))
        return entry.token if entry is not None and self._clock.wall() < entry.ends else ""

    async def granted(
        self, adapter: Adapter, to: Target, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> str:
        """The token for the target's key, "" where the key serves as it is.

        Waits only where no token lives. Raises UpstreamFailure when the exchange fails: kind `upstream_auth`, or what
        the network made of it; `interrupt.cause` when interrupted.
        """
        credential = adapter.credential
        assert credential is not None
        place = _place(adapter, to.key)
        entry, now = self._entries.get(place), self._clock.wall()
        if entry is not None and now < entry.renews:
            return entry.token
        if entry is None:
            entry = self._add(place)
        failure = entry.failure if self._clock.monotonic() < entry.failed_until else None
        if not entry.flying and failure is None:
            entry.flying = True
            spawn(self._renew(entry, credential, to, connect_timeout, proxy), "credential")
        if now < entry.ends:
            return entry.token
        if failure is not None and not entry.flying:
            raise copy(failure)
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        entry.waiters.add(waiter)
        try:
            return await interrupt.wait(waiter)
        finally:
            entry.waiters.discard(waiter)

    def forget(self, adapter: Adapter, key: Secret, token: str) -> None:
        """Upstream has refused this token: it is not used again. Another one that has come since stays."""
        entry = self._entries.get(_place(adapter, key))
        if entry is not None and token and entry.token == token:
            entry.token, entry.ends, entry.renews = "", 0.0, 0.0

    def _add(self, place: _Place) -> _Entry:
        if len(self._entries) >= MOST:  # the oldest that nobody waits for
            idle = next((one for one, entry in self._entries.items() if not entry.flying), None)
            if idle is not None:
                del self._entries[idle]
        entry = self._entries[place] = _Entry()
        return entry

    async def _renew(
        self, entry: _Entry, credential: Credential, to: Target, connect_timeout: float, proxy: str | None
    ) -> None:
        """One exchange, whatever becomes of those who wait for it."""
        try:
            # Signing with a key as long as these takes tens of milliseconds: too long a pause for everyone else.
            outgoing = await asyncio.get_running_loop().run_in_executor(None, credential.request, to)
            answer = None if outgoing is None else await self._exchange(outgoing, connect_timeout, proxy)
            now = self._clock.wall()
            granted = None if answer is None else _read(credential, answer, int(now))
        except UpstreamFailure as failure:
            entry.failed(failure, self._clock.monotonic())
        except BaseException:
            broken = UpstreamFailure("The channel's credentials could not be exchanged.", blames="nobody")
            entry.failed(broken, self._clock.monotonic())
            raise
        else:
            entry.landed(granted, now)

    async def _exchange(self, outgoing: Outgoing, connect_timeout: float, proxy: str | None) -> tree.Document:
        interrupt = Interrupt()
        late = asyncio.get_running_loop().call_later(DEADLINE, interrupt.fire, _too_late())
        try:
            incoming = await self._client.open(outgoing, interrupt, connect_timeout=connect_timeout, proxy=proxy)
            try:
                body = await incoming.whole(ANSWER)
            finally:
                incoming.close()
        finally:
            late.cancel()
        if incoming.status != 200:
            raise _refused(incoming.status)
        return tree.Document(body)


def _read(credential: Credential, answer: tree.Document, now: int) -> Granted:
    granted = credential.granted(answer, now)
    if granted is None or not granted.text or granted.expires <= now:
        raise _refused(200)
    return granted


def _place(adapter: Adapter, key: Secret) -> _Place:
    return adapter.name, hashlib.sha256(key.reveal().encode("utf-8", "surrogatepass")).digest()


def _refused(status: int) -> UpstreamFailure:
    """The token's issuer does not want this key (4xx), or could not be asked. Its words may quote the key."""
    ours = 400 <= status < 500 and status not in (408, 429)
    return UpstreamFailure(
        "The channel's credentials could not be exchanged for an access token.",
        kind="upstream_auth",
        code="upstream_credentials",
        upstream_status=status if status != 200 else 0,
        blames="key" if ours else "channel",
        detail=f"token exchange answered {status}",
    )


def _too_late() -> UpstreamFailure:
    return UpstreamFailure(
        "The channel's credentials could not be exchanged in time.",
        status=504,
        kind="timeout",
        code="upstream_timeout",
        detail=f"no answer to the token exchange in {DEADLINE:.0f}s",
    )
