"""The contract of the slot `tasks`, for work that is submitted now and known later; pure like the one in `base`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from newapi_proxy.adapters._outgoing import Outgoing, Target
from newapi_proxy.ir.task import Form, Shelf, Submitted, Update


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel's options say about its tasks, in terms that need no provider.

    `deadline`: seconds after which a task has failed. `origin_done`: only a task that succeeded may be followed.
    `forward_images`: clients get pictures through us; `private_images`: from addresses of the operator's network too.
    """

    deadline: float
    origin_done: bool = False
    forward_images: bool = False
    private_images: bool = False


class Tasks(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's work that is submitted now and known later, in pure functions; others send and remember.

    `platform`: its word in the table `shelf`, whose times count `ticks` a second. `patience`: seconds for a submission.
    `submitted` reads the answer to one (status, body) and raises UpstreamFailure where it is none. `poll` asks for many
    tasks at once, `polled` reads the answer: None where it is none. `again`: whether a submission that failed may be
    tried elsewhere. `seed`: asks for a finished picture's seed.
    """

    platform: str
    shelf: Shelf
    ticks: int
    patience: float
    terms: Callable[[Any], Terms]
    submit: Callable[[Form, Target], Outgoing]
    submitted: Callable[[Form, int, bytes], Submitted]
    poll: Callable[[Sequence[str], Target], Outgoing]
    polled: Callable[[int, bytes], list[Update] | None]
    again: bool = False
    seed: Callable[[str, Target], Outgoing] | None = None
