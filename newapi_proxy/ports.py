"""What the async side may ask of the world: a client that opens, a sink that writes, a fetcher, what interrupts.

`relay` is written against these; `web` implements them over aiohttp, tests with lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.config.model import Fetch
from newapi_proxy.errors import UpstreamFailure

T = TypeVar("T")
Take = Callable[[bytes], bool]
"""Takes bytes of a response; whether more may come. Must not wait: it runs inside the connection's callback."""


class Interrupt:
    """The one place where a deadline or a departure ends what an attempt is waiting for.

    Whoever waits does it through `wait`; whoever interrupts calls `fire`, from any callback of the loop. A fired
    interrupt stays fired: the next wait raises at once. One per attempt; costs no task and no timer of its own.
    """

    __slots__ = ("_waiter", "cause")

    def __init__(self) -> None:
        self.cause: Exception | None = None
        self._waiter: asyncio.Future[object] | None = None

    def fire(self, cause: Exception) -> None:
        """Ends the present wait, and every later one, with `cause`; the first cause wins."""
        if self.cause is None:
            self.cause = cause
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(cause)

    async def wait(self, future: asyncio.Future[T]) -> T:
        """The future's result, or the cause. The future is the waiter's own: nobody else may await it."""
        self.watch(future)
        try:
            return await future
        finally:
            self._waiter = None

    def watch(self, future: asyncio.Future[T]) -> None:
        """From now on the future is what a cause would end: for who awaits it himself. Raises a cause that is there."""
        if self.cause is not None:
            if not future.done():
                future.cancel()
            raise self.cause
        self._waiter = future  # type: ignore[assignment]


class Watched(Protocol):
    """Something under way whose wait can be ended from outside; a stop waits for it (reliability 2.2)."""

    @property
    def interrupt(self) -> Interrupt:
        """That of the attempt that it is at."""
        ...


class Incoming(Protocol):
    """One upstream response whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; the first value of each."""
        ...

    async def read(self) -> bytes:
        """What has arrived since the last read, decoded; b"" at the end. Raises UpstreamFailure on a broken body."""
        ...

    async def flow(self, take: Take) -> bool:
        """Hands on what comes, as it comes, until the end (True) or until `take` has had enough for now (False).

        Raises what `read` raises, and what `take` does.
        """
        ...

    async def whole(self, limit: int) -> bytes:
        """The rest of the body. Raises UpstreamFailure above `limit` bytes."""
        ...

    def close(self) -> None:
        """Lets go, at any time, any number of times: an unfinished response closes its connection at once."""
        ...


class Client(Protocol):
    """Opens upstream requests."""

    def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Awaitable[Incoming]:
        """Sends the request and waits for the response's head; reads of the response obey the same interrupt.

        `outgoing.body` must be bytes or a form here. Raises UpstreamFailure (status 0) when there is no answer,
        `interrupt.cause` when interrupted. Redirects are never followed.
        """
        ...


class Patience(msgspec.Struct, frozen=True):
    """What a question may take: `seconds` in all, `connect` of them for the connection, `limit` bytes of an answer."""

    seconds: float
    connect: float
    limit: int


class Whole(msgspec.Struct, frozen=True):
    """An upstream's whole answer. `headers`: names in lower case, the first value of each."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def whole(
    client: Client, outgoing: Outgoing, interrupt: Interrupt, patience: Patience, *, proxy: str | None = None
) -> Whole:
    """One question and all of its answer. Raises UpstreamFailure (no answer, too late, too large), the interrupt's."""
    seconds = patience.seconds
    late = UpstreamFailure(
        f"The upstream did not answer within {seconds:g} s.", status=504, kind="timeout", code="upstream_timeout"
    )
    timer = asyncio.get_running_loop().call_later(seconds, interrupt.fire, late)
    try:
        connect = min(patience.connect, seconds)
        incoming = await client.open(outgoing, interrupt, connect_timeout=connect, proxy=proxy)
        try:
            return Whole(incoming.status, incoming.headers, await incoming.whole(patience.limit))
        finally:
            incoming.close()
    finally:
        timer.cancel()


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a client named by its address. `media_type` as the server declares it, lower case, "" for nothing."""

    media_type: str
    data: bytes


class Fetcher(Protocol):
    """Fetches what clients name, and nothing that only this machine can reach (reliability §2.8)."""

    def fetch(self, url: str, path: str, limits: Fetch) -> Awaitable[Fetched]:
        """The file at the address, whole. Raises ClientError 400 `invalid_image_url` with `path` for anything else.

        `path`: the medium's dotted place in the client's body. May be cancelled.
        """
        ...


class Sink(Protocol):
    """The client's end of one exchange: nothing sent, head sent, ended."""

    @property
    def started(self) -> bool:
        """Whether the status is out."""
        ...

    @property
    def departed(self) -> bool:
        """Whether the client has gone."""
        ...

    @property
    def full(self) -> bool:
        """Whether the client's buffer is above its mark: drain before reading on from upstream."""
        ...

    def watch(self, gone: Departure | None) -> None:
        """Whom to tell when the client goes; told at once if it has gone already. None: nobody."""
        ...

    def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Begins a streamed answer, of events unless typed otherwise; the head leaves with the first write."""
        ...

    def write(self, data: bytes, *, more: bool = False) -> None:
        """Hands bytes to the client's connection; never waits, writes to a departed client are lost.

        `more`: the end is about to come, and they may leave with it.
        """
        ...

    async def drain(self) -> None:
        """Waits until the buffer is below its mark, or the client has gone."""
        ...

    def end(self, data: bytes = b"") -> None:
        """Ends a streamed answer, with its last bytes."""
        ...

    def whole(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """A whole answer at once, JSON unless typed otherwise."""
        ...


class Departure(Protocol):
    """What a sink calls when the client goes."""

    def __call__(self) -> None:
        """The client has gone."""
        ...
