"""Work that is submitted now and known later: what a client asks, what upstream says, what is kept of it.

Between the formats of clients and those of upstreams, as the rest of `ir`; knows neither. Times are in the unit of the
table that the task is kept in. Source: tasks-and-accounts 1 and 2.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
WHOLE: Final = "100%"  # the only mark of a finished task that clients and New API know
Shelf = Literal["midjourneys", "tasks"]
Reason = Literal[
    "no_origin",  # the task that this one follows is not the caller's, or does not exist
    "unfinished_origin",
    "no_channel",  # the origin's channel is not configured any more
    "disabled_channel",
    "quota",
    "unreachable",
    "no_task",  # a task that is asked for by its id
]
"""Why a submission or a look-up is refused, for reasons that every format has words for."""


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One submission. `model` chooses channel and price, `path` stands below the provider's root.

    `origin`: the upstream id of the task that it follows, which decides the channel; `piece`: a part of an earlier
    task's result, where the client does not say which task's. `early`: the origin need not have succeeded. `opens`:
    only opens a window that a later submission completes, which is the one that costs.
    """

    action: str
    model: str
    path: str
    body: dict[str, Any]
    origin: str = ""
    piece: str = ""
    prompt: str = ""
    state: str = ""
    mode: str = ""
    early: bool = False
    opens: bool = False


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What upstream says of a task now. None: it does not say. `buttons`, `properties`, `video_urls`, `data`: JSON.

    `status` is one of the words that `tasks.moves` knows; a failure has a reason.
    """

    task_id: str = ""
    code: int | None = None
    status: str | None = None
    progress: str | None = None
    fail_reason: str | None = None
    start_time: int | None = None
    finish_time: int | None = None
    prompt_en: str | None = None
    state: str | None = None
    image_url: str | None = None
    video_url: str | None = None
    video_urls: str | None = None
    buttons: str | None = None
    properties: str | None = None
    data: str | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as its table keeps it; `id` is the row's, `task_id` upstream's, `quota` what was charged for it."""

    id: int = 0
    task_id: str = ""
    user_id: int = 0
    channel_id: int = 0
    group: str = ""
    action: str = ""
    code: int = 0
    status: str = ""
    progress: str = "0%"
    fail_reason: str = ""
    submit_time: int = 0
    start_time: int = 0
    finish_time: int = 0
    quota: int = 0
    prompt: str = ""
    prompt_en: str = ""
    description: str = ""
    state: str = ""
    image_url: str = ""
    video_url: str = ""
    video_urls: str = ""
    buttons: str = ""
    properties: str = ""
    data: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing can change any more."""
        return self.progress == WHOLE

    @property
    def failed(self) -> bool:
        """Whether it has ended without a result."""
        return self.done and self.status == FAILURE


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What upstream said to a submission: `status` and `reply` are the client's answer, `first` the task's first state.

    `accepted`: it costs. `repeated`: upstream had the task already, so it may be somebody else's. `exhausted`: upstream
    has no account left for anybody.
    """

    accepted: bool
    task_id: str
    status: int
    reply: bytes
    first: Update
    description: str = ""
    repeated: bool = False
    exhausted: bool = False
