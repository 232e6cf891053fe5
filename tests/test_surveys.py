"""Long reads for people: one at a time, in their order, and no more in the line than it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from newapi_proxy.errors import OurError
from newapi_proxy.web.surveys import MINE, MOST, Surveys


class Slow:
    """A database whose reads end when they are told to; how many run, and how many ever did at once."""

    def __init__(self) -> None:
        self.running = self.most = self.done = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def survey(self, fn: Callable[[Any], Any]) -> Any:
        """One read."""
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        try:
            await self.go.wait()
            return fn(None)
        finally:
            self.running -= 1
            self.done += 1


def _fail(_: Any) -> None:
    raise OurError("no", code="ledger_unavailable")


async def test_one_after_the_other() -> None:
    """A read waits for the one before it, one that fails makes way, and one too many is told to come again."""
    surveys, slow = Surveys(), Slow()
    database: Any = slow
    reads = [asyncio.ensure_future(surveys.read(database, lambda _: 1, str(one))) for one in range(MOST)]
    reads.append(asyncio.ensure_future(surveys.read(database, _fail, "f")))
    await slow.begun.wait()
    with pytest.raises(OurError) as refused:
        await surveys.read(database, lambda _: 1, "x")
    assert (refused.value.status, refused.value.code) == (503, "reports_busy")
    slow.go.set()
    found = await asyncio.gather(*reads, return_exceptions=True)
    assert found[:MOST] == [1] * MOST
    assert isinstance(found[MOST], OurError)
    assert (slow.most, slow.done) == (1, MOST + 1)
    assert await surveys.read(database, lambda _: 2, "x") == 2


async def test_nobody_waits_for_ever() -> None:
    """Who has waited long enough is told to come again, and takes nobody's turn."""
    surveys, slow = Surveys(patience=0.0), Slow()
    database: Any = slow
    first = asyncio.ensure_future(surveys.read(database, lambda _: 1, "a"))
    await slow.begun.wait()
    for _ in range(MOST + 5):
        with pytest.raises(OurError, match="try again"):
            await surveys.read(database, lambda _: 2, "b")
    slow.go.set()
    assert (await first, await surveys.read(database, lambda _: 3, "b")) == (1, 3)


async def test_one_visitor_does_not_fill_the_line() -> None:
    """Who asks again and again waits for some of that alone; the others are read, and then so is the next of these."""
    surveys, slow = Surveys(), Slow()
    database: Any = slow
    reads = [asyncio.ensure_future(surveys.read(database, lambda _: 1, "a")) for _ in range(MINE)]
    await slow.begun.wait()
    with pytest.raises(OurError, match="try again"):
        await surveys.read(database, lambda _: 1, "a")
    reads.append(asyncio.ensure_future(surveys.read(database, lambda _: 1, "b")))
    slow.go.set()
    assert await asyncio.gather(*reads) == [1] * (MINE + 1)
    assert await surveys.read(database, lambda _: 2, "a") == 2
