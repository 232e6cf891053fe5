"""Limits in whole exchanges: who is refused, in which words, who is passed over, and what is given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from newapi_proxy import metrics
from newapi_proxy.billing.charge import hold_tokens
from newapi_proxy.config.model import Channel, Config, Group, Limits, Price, Relay, Token
from newapi_proxy.daemon.view import joined
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import build
from newapi_proxy.surfaces.anthropic import MESSAGES
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.openai_chat import CHAT
from tests.fakes.clock import Clock
from tests.fakes.crowd import Crowd
from tests.fakes.ports import ListSink
from tests.fakes.stage import Stage, stage

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
ANSWER = 15  # tokens that the provider says it used
ESTIMATE = hold_tokens(CHAT.read(orjson.dumps(ASK), {}))[1]


def channel(name: str = "a", *keys: str, **more: Any) -> Channel:
    return Channel(
        name=name,
        type="openai",
        base_url="http://up",
        keys=tuple(Secret(one) for one in keys or (f"k-{name}",)),
        models=("m",),
        **more,
    )


def token(**limits: int) -> dict[str, Any]:
    return {"tokens": (Token(name="t", key=Secret("sk-t"), limits=Limits(**limits)),)}


def code(sink: ListSink) -> Any:
    return orjson.loads(sink.body)["error"]["code"]


async def many(one: Stage, count: int, surface: Surface = CHAT, **body: Any) -> Counter[int]:
    sinks = await asyncio.gather(*(one.ask(surface, **ASK | body) for _ in range(count)))
    return Counter(sink.status for sink in sinks)


def idle(one: Stage) -> bool:
    """No slot is in use, and when the longest window has passed nothing is counted any more."""
    slots = [used for used in one.house.windows.used() if used.limit == "concurrency"]
    assert isinstance(one.house.clock, Clock)
    one.house.clock.pass_(86_401)
    return not slots and not one.house.windows.used()


@pytest.mark.parametrize(
    ("surface", "kind"), [(CHAT, ("rate_limit_error", "rate_limit_exceeded")), (MESSAGES, ("rate_limit_error", None))]
)
async def test_a_key_above_its_rate(tmp_path: Path, surface: Surface, kind: tuple[str, str | None]) -> None:
    """The refusal is a 429 in the caller's dialect with the seconds until there is room, and there is room then."""
    clock = Clock()
    async with stage(tmp_path, (channel(),), clock=clock, client=Crowd(), **token(rpm=2)) as one:
        await one.ask(surface, **ASK)
        clock.pass_(12.5)
        await one.ask(surface, **ASK)
        sink = await one.ask(surface, **ASK)
        assert sink.status == 429
        assert (sink.headers["retry-after"], sink.headers["x-should-retry"]) == ("48", "true")
        error = orjson.loads(sink.body)["error"]
        assert (error["type"], error.get("code")) == kind
        assert "2 requests per minute" in error["message"]
        clock.pass_(47.5)
        assert (await one.ask(surface, **ASK)).status == 200
        assert idle(one)


async def test_a_long_wait_is_not_worth_a_retry(tmp_path: Path) -> None:
    """A client whose SDK would come back within a minute is told not to where that is too early."""
    async with stage(tmp_path, (channel(),), clock=Clock(), client=Crowd(), **token(rpd=1)) as one:
        await one.ask(**ASK)
        sink = await one.ask(**ASK)
        assert (sink.status, sink.headers["retry-after"]) == (429, "86400")
        assert sink.headers["x-should-retry"] == "false"


async def test_tokens_per_minute(tmp_path: Path) -> None:
    """The estimate is reserved; what was really used counts in the end, and a failed request uses nothing."""
    clock, crowd = Clock(), Crowd(used=(60, 30))
    async with stage(tmp_path, (channel(),), clock=clock, client=crowd, **token(tpm=200)) as one:
        assert await many(one, 2) == {200: 2}
        assert (await one.ask(**ASK | {"max_tokens": 20})).status == 429  # 180 are used, this one may use 20 and more
        clock.pass_(60)
        crowd.broken = ("k-a",)
        assert (await one.ask(**ASK | {"max_tokens": 150})).status == 503
        crowd.broken = ()
        assert (await one.ask(**ASK | {"max_tokens": 150})).status == 200
        assert idle(one)


async def test_a_request_that_can_never_fit(tmp_path: Path) -> None:
    """One that may use more than a minute's tokens is refused with no time to wait for; a guess is cut to fit."""
    async with stage(tmp_path, (channel(),), clock=Clock(), client=Crowd(), **token(tpm=1000)) as one:
        sink = await one.ask(**ASK | {"max_tokens": 1000})
        assert (sink.status, sink.headers.get("retry-after"), sink.headers["x-should-retry"]) == (429, None, "false")
        free = {name: value for name, value in ASK.items() if name != "max_tokens"}
        assert (await one.ask(**free)).status == 200
        assert one.house.windows.used()[0].count == ANSWER


async def test_a_group_shares_its_limits(tmp_path: Path) -> None:
    """All keys of a group draw on one ceiling, beside their own."""
    groups = {"default": Group(ratio=1, limits=Limits(rpm=3))}
    async with stage(tmp_path, (channel(),), clock=Clock(), client=Crowd(), groups=groups) as one:
        assert await many(one, 5) == {200: 3, 429: 2}
        assert "group" in orjson.loads((await one.ask(**ASK)).body)["error"]["message"]


async def test_full_channels_are_passed_over(tmp_path: Path) -> None:
    """A full channel or key counts as no attempt; when all are full the client learns when the first has room."""
    clock, crowd = Clock(), Crowd()
    channels = (
        channel("a", priority=3, limits=Limits(rpm=1)),
        channel("b", "k-b0", "k-b1", priority=2, key_limits=Limits(rpm=1)),
        channel("c", priority=1, limits=Limits(rpm=2)),
    )
    async with stage(tmp_path, channels, clock=clock, client=crowd, relay=Relay(max_attempts=1)) as one:
        for _ in range(3):
            assert (await one.ask(**ASK)).status == 200
            clock.pass_(1)
        assert crowd.calls == {"k-a": 1, "k-b0": 1, "k-b1": 1}
        assert await many(one, 3) == {200: 2, 429: 1}
        assert crowd.calls["k-c"] == 2
        sink = await one.ask(**ASK)
        assert (sink.status, sink.headers["retry-after"], code(sink)) == (429, "57", "rate_limit_exceeded")
        clock.pass_(57)
        assert (await one.ask(**ASK)).status == 200
        assert crowd.calls["k-a"] == 2
        assert idle(one)


async def test_what_nobody_had_room_for_is_not_counted(tmp_path: Path) -> None:
    """A request that found every channel full costs its key none of the requests it has."""
    clock, crowd = Clock(), Crowd()
    async with stage(tmp_path, (channel(limits=Limits(rpm=1)),), clock=clock, client=crowd, **token(rpd=2)) as one:
        assert await many(one, 9) == {200: 1, 429: 8}
        clock.pass_(60)
        assert await many(one, 9) == {200: 1, 429: 8}
        assert one.house.windows.used()[0].count == 2
        assert idle(one)


async def test_what_was_refused_for_money_is_not_counted(tmp_path: Path) -> None:
    """A request that is refused at its hold, or because the ledger cannot be written, costs its key no request."""
    tokens = (Token(name="t", key=Secret("sk-t"), limits=Limits(rpm=1), quota=100),)
    channels = (channel(limits=Limits(rpm=1)),)
    async with stage(tmp_path, channels, clock=Clock(), client=Crowd(), tokens=tokens) as one:
        for surface in (CHAT, MESSAGES, CHAT):
            assert (await one.ask(surface, **ASK | {"max_tokens": 1000})).status == 403
        assert one.house.windows.used() == []
        assert await many(one, 3) == {200: 1, 429: 2}
        assert idle(one)


async def test_what_failed_upstream_is_counted(tmp_path: Path) -> None:
    """A request for which a provider was asked in vain is one of those that its key has."""
    async with stage(tmp_path, (channel(),), clock=Clock(), client=Crowd(broken=("k-a",)), **token(rpm=1)) as one:
        assert await many(one, 3) == {503: 1, 429: 2}


async def test_a_failed_attempt_leaves_its_slot_to_others(tmp_path: Path) -> None:
    """A channel that refused has neither slot nor tokens of it any more while the next one works."""
    crowd = Crowd(broken=("k-a",), held=True)
    limits = Limits(concurrency=1, rpm=5, tpm=100)
    channels = (channel("a", priority=1, limits=limits), channel("b", limits=limits))
    async with stage(tmp_path, channels, clock=Clock(), client=crowd) as one:
        running = asyncio.ensure_future(one.ask(**ASK))
        await crowd.until(2)
        assert {(used.name, used.limit): used.count for used in one.house.windows.used()} == {
            ("a", "rpm"): 1,
            ("b", "concurrency"): 1,
            ("b", "rpm"): 1,
            ("b", "tpm"): ESTIMATE,
        }
        crowd.answer()
        assert (await running).status == 200
        assert one.house.windows.used()[-1].count == ANSWER
        assert idle(one)


async def test_a_failed_attempt_counts_no_tokens_of_the_next(tmp_path: Path) -> None:
    """What a channel without limits answered is not counted for the one that refused before it."""
    channels = (channel("a", priority=1, limits=Limits(tpm=100)), channel("b"))
    async with stage(tmp_path, channels, clock=Clock(), client=Crowd(broken=("k-a",))) as one:
        assert (await one.ask(**ASK)).status == 200
        assert one.house.windows.used() == []


async def test_a_slot_is_given_back_in_every_end(tmp_path: Path) -> None:
    """Whether it was answered, failed, refused for money, left or cancelled: afterwards no slot is in use."""
    crowd = Crowd(held=True)
    channels = (channel("a", limits=Limits(concurrency=10), key_limits=Limits(concurrency=10)),)
    groups = {"default": Group(limits=Limits(concurrency=10))}
    tokens = (Token(name="t", key=Secret("sk-t"), limits=Limits(concurrency=10), quota=300),)
    async with stage(tmp_path, channels, clock=Clock(), client=crowd, groups=groups, tokens=tokens) as one:
        answered = [asyncio.ensure_future(one.ask(**ASK)) for _ in range(3)]
        leaving = ListSink()
        left = asyncio.ensure_future(one.ask(sink=leaving, **ASK))
        cancelled = asyncio.ensure_future(one.ask(**ASK))
        await crowd.until(5)
        assert {used.count for used in one.house.windows.used()} == {5}
        poor = await one.ask(**ASK | {"max_tokens": 1000})
        assert poor.status == 403
        assert (await one.ask(**ASK | {"model": "unknown"})).status == 503
        leaving.leave()
        cancelled.cancel()
        await left
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled
        assert {used.count for used in one.house.windows.used()} == {3}
        crowd.broken = ("k-a",)
        crowd.answer()
        assert [sink.status for sink in await asyncio.gather(*answered)] == [503] * 3
        assert idle(one)


async def test_a_reload_keeps_what_was_counted(tmp_path: Path) -> None:
    """Another configuration with the same names goes on with the same windows and slots, under its own numbers."""
    crowd = Crowd(held=True)
    async with stage(tmp_path, (channel(limits=Limits(rpm=9)),), clock=Clock(), client=crowd, **token(rpm=3)) as one:
        running = asyncio.ensure_future(one.ask(**ASK))
        await crowd.until(1)
        for rpm, words in ((2, "1 requests at the same time"), (1, "1 requests per minute")):
            fresh = Config(
                prices={"*": Price(input=1)},
                channels=(channel(limits=Limits(concurrency=1)),),
                tokens=(Token(name="t", key=Secret("sk-other"), limits=Limits(rpm=rpm)),),
            )
            rows = await one.house.db.write(lambda conn, items: [joined(conn, items[0], 1)], fresh)
            one.house.snapshot = build(fresh, [row for row in rows.tokens if row.name == "t"], rows.channel_ids)
            assert words in orjson.loads((await one.ask(**ASK)).body)["error"]["message"]
        crowd.answer()
        assert (await running).status == 200
        assert idle(one)


async def test_refusals_are_counted_by_limit(tmp_path: Path) -> None:
    """A metric says which limit of whom was reached."""
    metrics.reset()
    async with stage(tmp_path, (channel(limits=Limits(rpm=1)),), clock=Clock(), client=Crowd(), **token(rpm=2)) as one:
        assert await many(one, 4) == {200: 1, 429: 3}
    text = metrics.text().decode()
    assert 'newapi_limited_total{limit="rpm",name="a",scope="channel"} 1.0' in text
    assert 'newapi_limited_total{limit="rpm",name="t",scope="token"} 2.0' in text
    assert 'newapi_rejected_total{reason="rate_limit_exceeded"} 3.0' in text


async def test_count_tokens_is_a_request_too(tmp_path: Path) -> None:
    """It counts against the rate of requests, not of tokens."""
    async with stage(tmp_path, (channel(),), clock=Clock(), client=Crowd(), **token(rpm=1, tpm=1)) as one:
        assert (await one.ask(MESSAGES, **ASK)).status == 429
        from newapi_proxy.surfaces import SURFACES

        counting = SURFACES["/v1/messages/count_tokens"]
        assert (await one.ask(counting, **ASK)).status == 200
        assert (await one.ask(counting, **ASK)).status == 429


KINDS: dict[str, dict[str, Any]] = {
    "token concurrency": token(concurrency=7),
    "token rpm": token(rpm=7),
    "token rpd": token(rpd=7),
    "token tpm": token(tpm=8 * ESTIMATE - 1),
    "group": {"groups": {"default": Group(limits=Limits(concurrency=7, rpm=7))}},
    "channel concurrency": {"channels": (channel(limits=Limits(concurrency=7)),)},
    "channel rpm": {"channels": (channel(limits=Limits(rpm=7)),)},
    "channel tpm": {"channels": (channel(limits=Limits(tpm=7 * ESTIMATE)),)},
    "key": {"channels": (channel("a", "k-a", key_limits=Limits(concurrency=7, rpd=7)),)},
    "four": {
        **token(rpm=7, concurrency=9),
        "groups": {"default": Group(limits=Limits(rpm=8))},
        "channels": (channel("a", "k-a", limits=Limits(rpd=9), key_limits=Limits(tpm=7 * ESTIMATE)),),
    },
}


async def race(folder: Path, kind: str, calls: int) -> None:
    """All calls at once, while the provider answers nobody: as many arrive there as may, and no more."""
    clock, crowd = Clock(), Crowd(held=True)
    config = dict(KINDS[kind])
    channels = config.pop("channels", (channel(),))
    async with stage(folder, channels, clock=clock, client=crowd, **config) as one:
        sinks = [asyncio.ensure_future(one.ask(**ASK)) for _ in range(calls)]
        await crowd.until(1)
        done, running = await asyncio.wait(sinks, return_when=asyncio.FIRST_COMPLETED)
        while len(running) > 7 and done:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        crowd.answer()
        statuses = Counter(sink.status for sink in await asyncio.gather(*sinks))
        assert statuses == {200: 7, 429: calls - 7}
        assert crowd.calls.total() == crowd.most.total() == 7
        assert idle(one)


@pytest.mark.parametrize("kind", KINDS)
async def test_race(tmp_path: Path, kind: str) -> None:
    """Of many calls at once exactly as many are served as each limit lets through; then every counter is zero."""
    await race(tmp_path, kind, 400)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_race_at_length(tmp_path: Path, kind: str) -> None:
    """The same with 10 000 calls (RF28)."""
    await race(tmp_path, kind, 10_000)
