"""One request of another kind than chat as several of its provider's, and their answers as one.

Pure. How much a provider takes at once stands in its endpoint's `batches`, what an older server has in `instead`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from newapi_proxy.adapters.base import Dialect, Endpoint, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Metered, Yielded
from newapi_proxy.ir.matter import Embed, Vector
from newapi_proxy.ir.usage import Usage


def batched(dialect: Dialect, ask: Ask, to: Target) -> Sequence[Ask]:
    """The asks that are sent, at least one."""
    if not isinstance(dialect, Endpoint) or dialect.batches is None:
        return (ask,)
    return dialect.batches(ask, to)


def instead(dialect: Dialect, failure: UpstreamFailure) -> Endpoint | None:
    """What to try on the same channel after this failure."""
    if not isinstance(dialect, Endpoint) or dialect.instead is None:
        return None
    return dialect.instead(failure)


def raw(dialect: Dialect) -> bool:
    """Whether a streamed answer is handed on whatever it looks like."""
    return isinstance(dialect, Endpoint) and dialect.raw


def packs(dialect: Dialect) -> bool:
    """Whether vectors come as base64 where they were asked for so."""
    return isinstance(dialect, Endpoint) and dialect.packs


def joined(answers: Sequence[tuple[Ask, Sequence[Event]]]) -> list[Event]:
    """The answers' events as those of one answer: places counted on, usage summed, at the end."""
    events: list[Event] = []
    usage: Usage | None = None
    silent = False
    before = 0
    for ask, told in answers:
        metered = False
        for event in told:
            if isinstance(event, Metered):
                usage, metered = _sum(usage, event.usage), True
            elif isinstance(event, Yielded) and isinstance(event.item, Vector):
                events.append(Yielded(Vector(event.item.values, event.item.index + before)))
            elif isinstance(event, Yielded) or not events:
                events.append(event)
        silent = silent or not metered
        before += len(ask.matter.inputs) if isinstance(ask.matter, Embed) else 0
    if usage is not None and not silent:  # a sum that lacks a part is no usage: it is counted here
        events.append(Metered(usage))
    return events


def _sum(one: Usage | None, more: Usage) -> Usage:
    if one is None:
        return more
    calls = one.calls if more.calls is None else more.calls + (one.calls or 0)
    return msgspec.structs.replace(
        one,
        prompt=one.prompt + more.prompt,
        completion=one.completion + more.completion,
        calls=calls,
        source=one.source if one.source == more.source else "mixed",
    )
