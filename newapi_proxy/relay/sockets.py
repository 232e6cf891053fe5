"""What a session may ask of the world: two sockets of whole messages, and who opens the provider's.

`relay` is written against these; `web` implements them over aiohttp.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

import msgspec

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.ports import Interrupt


class Message(msgspec.Struct, frozen=True):
    """One whole message of a session. `text`: its bytes are UTF-8 text, as nearly all are."""

    data: bytes
    text: bool = True


class Closed(msgspec.Struct, frozen=True):
    """The end of one side of a session: its close code, and 1006 where it went without one.

    `faulty`: what came broke the protocol's rules or a size limit, and the code says so.
    """

    code: int
    reason: str = ""
    faulty: bool = False


class Refusal(msgspec.Struct, frozen=True):
    """A server that did not open a session: its status and headers (lower case)."""

    status: int
    headers: Mapping[str, str]


class Socket(Protocol):
    """One end of a session. One task receives, one sends."""

    async def receive(self) -> Message | Closed:
        """The next message, or the end; after the end the same again."""
        ...

    async def send(self, message: Message) -> None:
        """Sends, and waits while the other side takes nothing. Raises ConnectionError where it has gone."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Says farewell, waits at most a second for the other's, and lets go; any number of times."""
        ...


class Dialer(Protocol):
    """Opens sessions with providers."""

    def dial(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Awaitable[Socket | Refusal]:
        """Sends the handshake and waits for its answer. Raises UpstreamFailure (status 0) when there is none,
        `interrupt.cause` when interrupted. Redirects are never followed."""
        ...
