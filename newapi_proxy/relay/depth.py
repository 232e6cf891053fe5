"""Answers that can be read and not be told: JSON nested deeper than it is written here. Knows no format."""

from __future__ import annotations

from collections.abc import Sequence

from newapi_proxy.adapters.base import Dialect
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document


def too_deep() -> UpstreamFailure:
    """An answer that nobody can tell: what is read may be nested four times as deep as what is written. The model may
    have been asked for it, so that no channel is to blame."""
    return UpstreamFailure("The upstream's answer is nested too deep.", code="bad_response", blames="nobody")


def answered(dialect: Dialect, ask: Ask, document: Document) -> Sequence[Event]:
    """A whole answer's events. Raises UpstreamFailure."""
    try:
        return dialect.answer(ask, document)
    except tree.TooDeep:
        raise too_deep() from None
