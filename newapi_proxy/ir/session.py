"""What messages of a session mean for its bill: the one vocabulary between a provider's meter and the relay.

Source: relay-and-billing 5.12, 5.7.5; tasks-and-accounts 10.1.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.usage import Usage


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One message, as far as somebody pays for it or must hear of it.

    `kind`: `said` by the client; `begun` a response, `part` of it, `done` with it; `side`: work beside the responses,
    by another `model` where it is named; `fault`: the provider's error, as the `failure`. `response` is the one that it
    belongs to; `text` and `sound` (milliseconds) are what it carried, `usage` what it cost in the provider's words,
    `data` the message as it goes on where it must read otherwise than it came.
    """

    kind: Literal["said", "begun", "part", "done", "side", "fault", "none"] = "none"
    response: str = ""
    text: str = ""
    sound: int = 0
    usage: Usage | None = None
    model: str = ""
    data: bytes | None = None
    failure: UpstreamFailure | None = None


class Meter(Protocol):
    """Listens to one session's messages, both ways: what they mean for the bill, and what must read otherwise."""

    def up(self, data: bytes) -> Moment | None:
        """A message of the client; None for what means nothing here and passes as it is."""
        ...

    def down(self, data: bytes) -> Moment | None:
        """A message of the provider."""
        ...
