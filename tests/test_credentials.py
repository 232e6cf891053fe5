"""Keys exchanged for tokens: once for everybody, early, forgotten when refused, and never somebody else's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters.base import Adapter, Granted, Outgoing, Target
from newapi_proxy.config.model import Channel
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Interrupt
from newapi_proxy.relay.credentials import AGAIN, EARLY, MOST, Credentials
from newapi_proxy.relay.pump import Departed
from newapi_proxy.secret import Secret
from newapi_proxy.wire.tree import Document
from tests.fakes.matrix import Theatre, script
from tests.fakes.ports import Script, ScriptedIncoming
from tests.fakes.service_account import TOKEN_URI, account

LIFE = 3600


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Exchange:
    """A credential that asks one address; the keys `whole`, `broken` and `bug` are what they are called."""

    def request(self, to: Target) -> Outgoing | None:
        key = to.key.reveal()
        if key == "broken":
            raise UpstreamFailure("The key is broken.", kind="upstream_auth", blames="key")
        if key == "bug":
            raise RuntimeError("no such thing")
        return None if key == "whole" else Outgoing(url="http://tokens", body=key.encode(), headers={})

    def granted(self, body: Document, now: int) -> Granted | None:
        if not isinstance(body.tree, dict) or "token" not in body.tree:
            return None
        return Granted(text=body.tree["token"], expires=now + body.tree["life"])


class Issuer:
    """The client at the port: gives one token after the other while `gate` is open, or what stands in `instead`."""

    def __init__(self) -> None:
        self.asked: list[Outgoing] = []
        self.life = LIFE
        self.instead: list[Script | Exception] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> ScriptedIncoming:
        self.asked.append(outgoing)
        self.called.set()
        number = len(self.asked)
        await self.gate.wait()
        answer = self.instead.pop(0) if self.instead else None
        if isinstance(answer, Exception):
            raise answer
        body = orjson.dumps({"token": f"token-{number}", "life": self.life})
        return ScriptedIncoming(answer or Script(body), interrupt)


ADAPTER = Adapter(name="exchanging", credential=Exchange())


class Stage:
    """Credentials with their clock and their issuer."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.issuer = Issuer()
        self.credentials = Credentials(self.issuer, self.clock)

    async def granted(self, key: str = "k", interrupt: Interrupt | None = None) -> str:
        to = Target(channel="c", base_url="", key=Secret(key), model="m", options=None)
        return await self.credentials.granted(ADAPTER, to, interrupt or Interrupt(), connect_timeout=1.0)

    async def settled(self) -> None:
        """Waits until no exchange runs."""
        running = [task for task in asyncio.all_tasks() if task.get_name() == "credential"]
        if running:
            await asyncio.wait(running)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


def refusal(status: int) -> Script:
    return Script(b'{"error": "invalid_grant", "error_description": "sk-very-secret"}', status=status)


async def test_one_exchange_for_a_hundred(stage: Stage) -> None:
    """A hundred first requests at once make one exchange; later ones make none."""
    found = await asyncio.gather(*(stage.granted() for _ in range(100)))
    assert set(found) == {"token-1"}
    assert await stage.granted() == "token-1"
    assert len(stage.issuer.asked) == 1


async def test_each_key_has_its_own(stage: Stage) -> None:
    """Two keys, two tokens."""
    assert await stage.granted("a") == "token-1"
    assert await stage.granted("b") == "token-2"
    assert [one.body for one in stage.issuer.asked] == [b"a", b"b"]


async def test_who_leaves_takes_nothing_along(stage: Stage) -> None:
    """The first to ask departs, the second is cancelled: the exchange goes on and serves the third."""
    stage.issuer.gate.clear()
    interrupt = Interrupt()
    first = asyncio.ensure_future(stage.granted(interrupt=interrupt))
    second = asyncio.ensure_future(stage.granted())
    third = asyncio.ensure_future(stage.granted())
    await stage.issuer.called.wait()
    interrupt.fire(Departed())
    second.cancel()
    with pytest.raises(Departed):
        await first
    with pytest.raises(asyncio.CancelledError):
        await second
    stage.issuer.gate.set()
    assert await third == "token-1"
    assert len(stage.issuer.asked) == 1


async def test_nobody_is_left(stage: Stage) -> None:
    """An exchange for which nobody waits any more is kept for the next."""
    stage.issuer.gate.clear()
    only = asyncio.ensure_future(stage.granted())
    await stage.issuer.called.wait()
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    stage.issuer.gate.set()
    await stage.settled()
    assert await stage.granted() == "token-1"


async def test_renewed_early(stage: Stage) -> None:
    """Five minutes before its end a token is renewed, once, while the old one goes on serving."""
    await stage.granted()
    stage.clock.now += LIFE - EARLY - 1
    assert await stage.granted() == "token-1"
    assert len(stage.issuer.asked) == 1
    stage.issuer.gate.clear()
    stage.clock.now += 1
    assert await asyncio.gather(*(stage.granted() for _ in range(20))) == ["token-1"] * 20
    stage.issuer.gate.set()
    await stage.settled()
    assert await stage.granted() == "token-2"
    assert len(stage.issuer.asked) == 2


async def test_short_lives(stage: Stage) -> None:
    """A token that never lives five minutes is renewed at half its life, not for every request."""
    stage.issuer.life = 60
    await stage.granted()
    stage.clock.now += 29
    await stage.granted()
    await stage.settled()
    assert len(stage.issuer.asked) == 1
    stage.clock.now += 2
    await stage.granted()
    await stage.settled()
    assert len(stage.issuer.asked) == 2


async def test_waits_only_without_a_living_token(stage: Stage) -> None:
    """A token whose renewal fails serves to its end; then the failure is told."""
    await stage.granted()
    stage.issuer.instead = [refusal(503), refusal(503)]
    stage.clock.now += LIFE - 10
    assert await stage.granted() == "token-1"
    await stage.settled()
    stage.clock.now += AGAIN
    assert await stage.granted() == "token-1"
    await stage.settled()
    assert len(stage.issuer.asked) == 3
    stage.clock.now += 10
    assert await stage.granted() == "token-4"


@pytest.mark.parametrize(("status", "blames"), [(400, "key"), (401, "key"), (403, "key"), (429, "channel")])
async def test_refusals(stage: Stage, status: int, blames: str) -> None:
    """T-VERT-002: what the issuer answers is the channel's failure to authenticate; its words are not passed on."""
    stage.issuer.instead = [refusal(status)]
    with pytest.raises(UpstreamFailure) as caught:
        await stage.granted()
    failure = caught.value
    assert (failure.kind, failure.status, failure.code) == ("upstream_auth", 502, "upstream_credentials")
    assert (failure.blames, failure.upstream_status) == (blames, status)
    assert "secret" not in f"{failure.message} {failure.detail}"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"token": "", "life": 5}', b'{"token": "t", "life": 0}']
)
async def test_answers_that_grant_nothing(stage: Stage, body: bytes) -> None:
    """A 200 without a token that lives is no token."""
    stage.issuer.instead = [Script(body)]
    with pytest.raises(UpstreamFailure) as caught:
        await stage.granted()
    assert caught.value.kind == "upstream_auth"


async def test_the_network(stage: Stage) -> None:
    """What the network does keeps its name."""
    stage.issuer.instead = [UpstreamFailure("The upstream could not be reached.", code="do_request_failed")]
    with pytest.raises(UpstreamFailure) as caught:
        await stage.granted()
    assert (caught.value.kind, caught.value.code) == ("upstream", "do_request_failed")


async def test_failures_are_shared_and_short(stage: Stage) -> None:
    """All who wait are told, each in an exception of its own; a second later it is tried again."""
    stage.issuer.instead = [refusal(500)]
    found: list[Any] = await asyncio.gather(*(stage.granted() for _ in range(10)), return_exceptions=True)
    assert all(isinstance(one, UpstreamFailure) for one in found)
    assert len({id(one) for one in found}) == 10
    with pytest.raises(UpstreamFailure):
        await stage.granted()
    assert len(stage.issuer.asked) == 1
    stage.clock.now += AGAIN
    assert await stage.granted() == "token-2"


async def test_broken_keys(stage: Stage) -> None:
    """A key that cannot be used says so, and asks nobody."""
    with pytest.raises(UpstreamFailure, match="broken"):
        await stage.granted("broken")
    assert stage.issuer.asked == []


async def test_bugs_let_nobody_wait(stage: Stage) -> None:
    """An exchange that fails in an unforeseen way is told to the loop, and those who wait get a failure."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    with pytest.raises(UpstreamFailure):
        await stage.granted("bug")
    await stage.settled()
    await asyncio.sleep(0)
    assert [type(one["exception"]) for one in told] == [RuntimeError]


async def test_keys_that_serve_as_they_are(stage: Stage) -> None:
    """No exchange, an empty token, for good."""
    assert await stage.granted("whole") == ""
    stage.clock.now += 10 * LIFE
    assert await stage.granted("whole") == ""
    assert stage.credentials.held(ADAPTER, Secret("whole")) == ""
    assert stage.issuer.asked == []


async def test_forgotten_when_refused(stage: Stage) -> None:
    """A refused token is not used again; one that has come since is not forgotten with it."""
    await stage.granted()
    key = Secret("k")
    assert stage.credentials.held(ADAPTER, key) == "token-1"
    stage.credentials.forget(ADAPTER, key, "token-1")
    assert stage.credentials.held(ADAPTER, key) == ""
    assert await stage.granted() == "token-2"
    stage.credentials.forget(ADAPTER, key, "token-1")
    assert await stage.granted() == "token-2"


async def test_bounded(stage: Stage) -> None:
    """Keys beyond the most that are remembered push the oldest out."""
    await stage.granted("first")
    for number in range(MOST):
        await stage.granted(str(number))
    assert stage.credentials.held(ADAPTER, Secret("first")) == ""
    assert stage.credentials.held(ADAPTER, Secret(str(MOST - 1)))


MODEL = "gemini-2.5-flash"
ANSWER = orjson.dumps({"candidates": [{"content": {"parts": [{"text": "Hello"}]}, "finishReason": "STOP"}]})


class Upstream:
    """A provider behind an issuer: takes the tokens in `good`, issues `token-1`, `token-2` …"""

    def __init__(self, good: set[str], same: bool = False) -> None:
        self.good = good
        self.issued = 0
        self.calls: list[str] = []
        self._same = same

    def __call__(self, outgoing: Outgoing) -> Script:
        if outgoing.url == TOKEN_URI:
            self.issued += 0 if self._same and self.issued else 1
            return script(orjson.dumps({"access_token": f"token-{self.issued}", "expires_in": LIFE}))
        token = outgoing.headers["authorization"].removeprefix("Bearer ")
        self.calls.append(token)
        if token in self.good:
            return script(ANSWER)
        return script(b'{"error": {"code": 401, "message": "Bad token", "status": "UNAUTHENTICATED"}}', status=401)


@pytest.fixture
def theatre(tmp_path: Path) -> Iterator[Theatre]:
    """A house with one channel whose key is a service account."""
    channel = Channel(name="v", type="vertex", key=Secret(account()), models=(MODEL,), auto_disable=True)
    stage = Theatre(tmp_path, (channel,))
    yield stage
    stage.close()


def test_a_request_waits_for_the_token(theatre: Theatre) -> None:
    """T-VERT-001 (OC): the first request exchanges, the second finds the token; both carry it."""
    upstream = theatre.client.answer = Upstream({"token-1"})
    assert theatre.play("OC", MODEL).status == 200
    assert theatre.play("OC", MODEL).status == 200
    assert (upstream.issued, upstream.calls) == (1, ["token-1", "token-1"])


def test_a_refused_token_is_replaced_within_the_request(theatre: Theatre) -> None:
    """T-VERT-001 (OC): a token that has been revoked costs no client an error and parks no key."""
    upstream = theatre.client.answer = Upstream({"token-1"})
    theatre.play("OC", MODEL)
    upstream.good = {"token-2"}
    assert theatre.play("OC", MODEL).status == 200
    assert upstream.calls == ["token-1", "token-1", "token-2"]


def test_a_token_refused_twice_is_the_keys_fault(theatre: Theatre) -> None:
    """T-VERT-002 (OC): one new token per request, also where the issuer repeats itself; then the failure is told."""
    upstream = theatre.client.answer = Upstream({"token-1"}, same=True)
    theatre.play("OC", MODEL)
    upstream.good = set()
    cell = theatre.play("OC", MODEL)
    assert cell.status == 502
    assert upstream.calls == ["token-1"] * 3
    assert cell.shown.error is not None
    assert cell.shown.error["code"] == "upstream_credentials"
