"""Idempotency keys against fake ports and a real database: one answer, one charge, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection

from newapi_proxy import log
from newapi_proxy.billing import audit
from newapi_proxy.config.model import Channel, Idempotency, Relay, Token
from newapi_proxy.daemon import tidy
from newapi_proxy.daemon.drain import drain
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.relay import once
from newapi_proxy.relay.memory import Budget
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.store import replies
from newapi_proxy.surfaces.anthropic import COUNT, MESSAGES
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.surfaces.speech import SPEECH
from tests.fakes.clock import Clock
from tests.fakes.ports import HANG, ListSink, Script
from tests.fakes.stage import JSON, Stage, stage

CHANNELS = (Channel(name="up", type="openai", key=Secret("sk-up"), models=("m",), auto_disable=False),)
ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def chunk(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    """One frame of a stream."""
    delta = {"content": text} if text else {}
    choices = [] if more else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}
    return b"data: " + orjson.dumps(body) + b"\n\n"


STREAM = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), chunk(usage=USAGE), b"data: [DONE]\n\n")


def whole(text: str = "Hello") -> Script:
    """A whole answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    return Script(orjson.dumps(body), headers=JSON)


class Play:
    """The stage, with requests that bring a key, and the log lines of them."""

    def __init__(self, there: Stage) -> None:
        self.there = there
        self.lines: dict[str, dict[str, Any]] = {}
        self._count = 0

    async def ask(
        self,
        key: str = "k",
        *,
        sink: ListSink | None = None,
        surface: Surface = CHAT,
        token: int = 0,
        route: str = "/v1/chat/completions",
        **changes: Any,
    ) -> ListSink:
        """One request under the key, and its end at the client."""
        self._count += 1
        sink = sink or ListSink()
        house = self.there.house
        visit = Visit(
            request_id=f"r{self._count}",
            method="POST",
            path=route,
            route=route,
            client_ip="127.0.0.1",
            arrived=house.clock.monotonic(),
            token=list(house.snapshot.tokens.values())[token],
        )
        body = orjson.dumps({**ASK, **changes})
        await once.chat(house, visit, surface, body, {"idempotency-key": key}, sink)
        return sink

    async def under_way(self) -> None:
        """Waits until the first request under a key runs: then its row is written."""
        while not await self._column("SELECT 1 FROM ledger"):
            pass

    @property
    def calls(self) -> int:
        """How often the provider was asked."""
        return len(self.there.client.opened)

    async def charged(self) -> list[int]:
        """Every settled charge."""
        return await self._column("SELECT charged FROM ledger WHERE state = 'settled' ORDER BY at, request_id")

    async def states(self) -> list[str]:
        """What stands under the keys."""
        return await self._column("SELECT state FROM proxy_replies ORDER BY key")

    async def _column(self, sql: str) -> list[Any]:
        database = self.there.house.db
        await database.write(lambda conn, _: [None], None)  # what was asked for before is written
        return await database.read(lambda conn: list(conn.exec_driver_sql(sql).scalars()))


@asynccontextmanager
async def playing(folder: Path, *scripts: Script, **config: Any) -> AsyncIterator[Play]:
    """A house whose provider plays the scripts."""
    async with stage(folder, CHANNELS, *scripts, **config) as there:
        yield Play(there)


def _keep(conn: Connection, answers: Sequence[replies.Answer]) -> list[bool]:
    return [replies.keep(conn, one) for one in answers]


def _recover(conn: Connection, boots: Sequence[str]) -> list[int]:
    return [replies.recover(conn, [boot]) for boot in boots]


def error(sink: ListSink) -> dict[str, Any]:
    """The error that the client was told."""
    told: dict[str, Any] = orjson.loads(sink.body)["error"]
    return told


@pytest.fixture(autouse=True)
def lines(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[[], list[dict[str, Any]]]:
    """The request lines since they were last asked for."""
    log.setup("info", "json")
    return lambda: [
        line for line in map(orjson.loads, capfdbinary.readouterr().out.splitlines()) if line["event"] == "request"
    ]


async def test_a_whole_answer_again(tmp_path: Path, lines: Any) -> None:
    """The same request is told the same bytes, without a call and without a charge; the line says of which."""
    async with playing(tmp_path, whole()) as play:
        first, again = await play.ask(), await play.ask()
        assert (first.status, again.status, again.body) == (200, 200, first.body)
        assert again.headers == {**first.headers, "idempotent-replayed": "true"}
        assert (play.calls, len(await play.charged())) == (1, 1)
        database = play.there.house.db
        assert await database.read(audit.check) == []
        await database.write(lambda conn, _: [conn.exec_driver_sql("DELETE FROM ledger")], None)
        assert "its answer is kept" in str(await database.read(audit.check))
    one, two = lines()
    assert (one.get("replay_of"), two["replay_of"]) == (None, "r1")
    assert (one["quota"] > 0, two["quota"], two["model"], two["attempts"], two["end"]) == (True, 0, "m", [], "ok")


async def test_a_damaged_answer_leaves_its_line(tmp_path: Path, lines: Any) -> None:
    """What nobody expected when an answer is told again is a failure of ours, with a request line like any."""
    async with playing(tmp_path, whole()) as play:
        await play.ask()
        damage = "UPDATE proxy_replies SET headers = 'no headers'"
        await play.there.house.db.write(lambda conn, _: [conn.exec_driver_sql(damage)], None)
        with pytest.raises(TypeError):
            await play.ask()
        assert len(await play.charged()) == 1
    _, broken = lines()
    assert (broken["status"], broken["error"]["code"], broken["model"]) == (500, "internal_error", "m")


async def test_a_stream_again(tmp_path: Path) -> None:
    """A stream is told again to the byte, with its type, however often."""
    async with playing(tmp_path, Script(*STREAM)) as play:
        first = await play.ask(stream=True)
        assert first.body.endswith(b"data: [DONE]\n\n")
        for _ in range(3):
            again = await play.ask(stream=True)
            assert (again.body, again.ended) == (first.body, True)
            assert again.headers["content-type"] == first.headers["content-type"]
        assert (play.calls, len(await play.charged())) == (1, 1)


@pytest.mark.parametrize("size", [replies.SMALL, once.LIGHT])
@pytest.mark.parametrize("streamed", [False, True])
async def test_large_answers_again(tmp_path: Path, size: int, streamed: bool) -> None:
    """Answers that are read beside the writer, or unpacked off the loop, come again to the byte as well."""
    pieces = (chunk("word " * 100) for _ in range(size // 500 + 1))
    script = Script(*pieces, *STREAM[2:]) if streamed else whole("word " * (size // 5))
    async with playing(tmp_path, script) as play:
        first, again = await play.ask(stream=streamed), await play.ask(stream=streamed)
        assert len(first.body) > size
        assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")


async def test_another_request_under_the_key(tmp_path: Path) -> None:
    """Another body or another route is refused, and neither charged nor sent."""
    async with playing(tmp_path, whole()) as play:
        await play.ask()
        for changes in ({"temperature": 1}, {"stream": True}, {"route": "/v1/completions"}):
            refused = await play.ask(**changes)
            assert (refused.status, error(refused)["code"]) == (422, "idempotency_key_reused")
            assert refused.headers["x-should-retry"] == "false"
        assert play.calls == 1
        other = await play.ask(surface=MESSAGES, route="/v1/messages")
        assert (other.status, error(other)["type"]) == (422, "invalid_request_error")


async def test_while_the_first_runs(tmp_path: Path) -> None:
    """A copy in between is told to come back, by a status and headers that SDKs repeat on."""
    async with playing(tmp_path, Script(STREAM[0], HANG)) as play:
        running = asyncio.ensure_future(play.ask(stream=True))
        await play.under_way()
        copies = await asyncio.gather(*(play.ask(stream=True) for _ in range(50)))
        for copy in copies:
            assert (copy.status, error(copy)["code"]) == (409, "idempotency_in_flight")
            assert copy.headers["retry-after"] == "1"
            assert "x-should-retry" not in copy.headers
        await play.there.house.db.write(
            lambda conn, _: [conn.exec_driver_sql("UPDATE proxy_replies SET at = at - 7")], None
        )
        assert int((await play.ask(stream=True)).headers["retry-after"]) in (7, 8)
        assert play.calls == 1
        for watch in play.there.house.watches:
            watch.interrupt.fire(UpstreamFailure("cut", detail="test"))
        await running


async def test_many_copies_at_once(tmp_path: Path) -> None:
    """Of copies that come in the same moment one runs."""
    async with playing(tmp_path, whole(), whole(), whole()) as play:
        copies = await asyncio.gather(*(play.ask(str(number % 3)) for number in range(150)))
        assert sum(copy.status == 200 for copy in copies) >= 3
        assert {copy.status for copy in copies} <= {200, 409}
        assert (play.calls, len(await play.charged())) == (3, 3)
        assert len({(await play.ask(str(number))).body for number in range(3)}) == 1


async def test_a_failure_frees_the_key(tmp_path: Path) -> None:
    """What ended without a charge may be tried again under its key, at once."""
    busy = Script(b"{}", status=503, headers=JSON)
    async with playing(tmp_path, busy, whole()) as play:
        assert (await play.ask()).status == 503
        assert (await play.ask(model="nobody")).status == 503
        assert await play.states() == []
        assert (await play.ask()).status == 200
        assert await play.states() == ["kept"]


async def test_the_client_leaves(tmp_path: Path, lines: Any) -> None:
    """Who leaves in the middle finds the whole answer on coming back, charged as a whole."""
    async with playing(tmp_path, Script(*STREAM), Script(*STREAM)) as play:
        gone = await play.ask("left", sink=ListSink(leave_after=1), stream=True)
        assert b"[DONE]" not in gone.body
        again = await play.ask("left", stream=True)
        stayed = await play.ask("stayed", stream=True)
        assert again.body == stayed.body
        one, two = await play.charged()
        assert one == two > 0
    ends = [(line["end"], line["quota"] > 0) for line in lines()]
    assert ends == [("client_gone", True), ("ok", False), ("ok", True)]


async def test_a_stream_that_broke(tmp_path: Path) -> None:
    """A charge for what was delivered stands, so the broken stream is what is told again."""
    cut = Script(STREAM[0], STREAM[1], UpstreamFailure("gone", detail="cut"))
    async with playing(tmp_path, cut) as play:
        first = await play.ask(stream=True)
        again = await play.ask(stream=True)
        assert b'"error"' in first.body
        assert again.body == first.body
        assert (play.calls, len(await play.charged())) == (1, 1)


async def test_a_sound_that_broke(tmp_path: Path) -> None:
    """What cannot say that it broke off is not told again as if it were whole."""
    cut = Script(b"ID3" + b"x" * 99, UpstreamFailure("gone", detail="cut"), headers={"content-type": "audio/mpeg"})
    asked: dict[str, Any] = {"surface": SPEECH, "route": "/v1/audio/speech", "input": "hi", "voice": "v"}
    async with playing(tmp_path, cut) as play:
        first = await play.ask(**asked)
        assert (first.status, first.ended) == (200, False)
        again = await play.ask(**asked)
        assert again.status == 409
        assert "r1" in error(again)["message"]
        assert (play.calls, len(await play.charged())) == (1, 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_too_large_to_keep(tmp_path: Path, streamed: bool) -> None:
    """An answer above the limit reaches its client and is charged; who asks again is told so and not charged."""
    script = Script(*STREAM) if streamed else whole("long " * 100)
    async with playing(tmp_path, script, idempotency=Idempotency(max_answer=300)) as play:
        assert (await play.ask(stream=streamed)).status == 200
        again = await play.ask(stream=streamed)
        assert (again.status, error(again)["code"]) == (409, "idempotency_answer_too_large")
        assert "r1" in error(again)["message"]
        assert (play.calls, await play.states()) == (1, ["large"])


async def test_one_token_does_not_fill_the_database(tmp_path: Path) -> None:
    """What a token has had kept within the time that it is kept has an end; beyond it answers are charged and not kept,
    until the first ones have gone. Another token has room of its own."""
    how = Idempotency(max_kept=700, ttl=100)
    tokens = tuple(Token(name=name, key=Secret(f"sk-{name}")) for name in ("one", "two"))
    scripts = [whole("long " * 60) for _ in range(4)]  # of which two would be more than 700 bytes
    clock = Clock()
    async with playing(tmp_path, *scripts, idempotency=how, tokens=tokens, clock=clock) as play:
        assert (await play.ask("a")).status == (await play.ask("b")).status == 200
        assert (await play.ask("a")).headers["idempotent-replayed"] == "true"
        assert error(await play.ask("b"))["code"] == "idempotency_answer_too_large"
        await play.ask("b", token=1)
        assert (await play.ask("b", token=1)).headers["idempotent-replayed"] == "true"
        clock.pass_(100)
        await play.ask("c")
        assert (await play.ask("c")).headers["idempotent-replayed"] == "true"
        assert (play.calls, len(await play.charged())) == (4, 4)


def noise(size: int) -> list[bytes]:
    """So many frames of a stream that cannot be packed well, each of 1000 bytes."""
    drawn = random.Random(7)
    return [chunk(b64encode(drawn.randbytes(750)).decode()) for _ in range(size)]


class Weighing(ListSink):
    """A client's end that notes how much memory is promised while it is written to, and takes when it is told to."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget
        self.seen: list[int] = []
        self.reading = asyncio.Event()

    def write(self, data: bytes, *, more: bool = False) -> None:
        self.seen.append(self.budget.held)
        super().write(data, more=more)

    async def drain(self) -> None:
        await self.reading.wait()


async def test_what_is_kept_is_counted(tmp_path: Path) -> None:
    """A stream that is being kept takes of the memory that bodies have, and nothing once it is written."""
    async with playing(tmp_path, Script(*noise(300), *STREAM[2:])) as play:
        budget = play.there.house.memory
        sink = Weighing(budget)
        assert (await play.ask(stream=True, sink=sink)).ended
        assert 64 * 1024 <= sink.seen[0] < 65 * 1024
        assert 200_000 < max(sink.seen) - 64 * 1024 < 300_000
        assert (budget.held, await play.states()) == (0, ["kept"])


@pytest.mark.parametrize("most", [2 * 64 * 1024 - 1, 2 * (64 * 1024 + 100_000)])
async def test_memory_is_short_for_keeping(tmp_path: Path, most: int) -> None:
    """A stream that there is no room for reaches its client and is charged once; its key is told so afterwards."""
    async with playing(tmp_path, Script(*noise(300), *STREAM[2:])) as play:
        budget = play.there.house.memory
        budget.most = most
        first = await play.ask(stream=True)
        assert (first.status, first.body.endswith(b"data: [DONE]\n\n"), budget.held) == (200, True, 0)
        again = await play.ask(stream=True)
        assert (again.status, error(again)["code"]) == (409, "idempotency_answer_too_large")
        assert "r1" in error(again)["message"]
        assert (play.calls, len(await play.charged()), await play.states()) == (1, 1, ["large"])


async def test_what_is_told_again_is_counted(tmp_path: Path) -> None:
    """Copies of a large answer wait in memory only as long as there is room, until their clients have taken them."""
    async with playing(tmp_path, Script(*noise(300), *STREAM[2:])) as play:
        first = await play.ask(stream=True)
        budget = play.there.house.memory
        budget.most = 2 * len(first.body) + 1
        slow = [Weighing(budget) for _ in range(5)]
        for sink in slow[:2]:
            sink.reading.set()
        told = [asyncio.ensure_future(play.ask(stream=True, sink=sink)) for sink in slow[2:]]
        done, waiting = await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        while len(waiting) > 2:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        (short,) = (one.result() for one in done)
        assert (short.status, error(short)["code"], short.headers["retry-after"]) == (503, "overloaded", "1")
        for sink in slow:
            sink.reading.set()
        assert [(await one).body for one in waiting] == [first.body] * 2
        assert (budget.held, play.calls, len(await play.charged())) == (0, 1, 1)


async def test_time_runs_out(tmp_path: Path) -> None:
    """After its time an answer is forgotten, in batches, and its key is free even before that."""
    async with playing(tmp_path, whole(), whole("later"), idempotency=Idempotency(ttl=50)) as play:
        await play.ask()
        database, now = play.there.house.db, int(play.there.house.clock.wall())
        await tidy.one_round(database, now + 40)
        assert await play.states() == ["kept"]
        await database.write(lambda conn, _: [conn.exec_driver_sql("UPDATE proxy_replies SET expires = 1")], None)
        assert b"later" in (await play.ask()).body
        await tidy.one_round(database, now + 60)
        assert await play.states() == []


async def test_pruning_takes_batches(tmp_path: Path) -> None:
    """One step deletes a batch at most, a round all that is due; what runs is never deleted."""
    async with playing(tmp_path) as play:
        database = play.there.house.db
        for number in range(replies.BATCH + 3):
            place = replies.Place(number, "key")
            claim = replies.Claim(request_id=str(number), place=place, owner=f"r{number}", boot="b", at=1)
            assert await database.write(replies.claim, claim) is None
            assert await database.write(replies.claim, claim) is None
            if number:
                told = {"status": 200, "streamed": False, "headers": "[]", "size": 1, "body": b"x"}
                kept = replies.Answer(place=place, owner=claim.owner, expires=5, **told)
                assert await database.write(_keep, kept)
        assert await database.write(replies.prune, 4) == 0
        assert await database.write(replies.prune, 5) == replies.BATCH
        await tidy.one_round(database, 5)
        assert await play.states() == ["open"]


async def test_after_a_kill(tmp_path: Path) -> None:
    """A request that died with its process frees its key at the next start; what was charged is still told."""
    async with playing(tmp_path, whole()) as play:
        first = await play.ask("done")
        place = replies.Place(1, "dead")
        claim = replies.Claim(request_id="1/dead", place=place, owner="r9", boot=play.there.house.boot, at=1)
        assert await play.there.house.db.write(replies.claim, claim) is None
        assert await play.there.house.db.write(_recover, play.there.house.boot) == 0
        assert await play.there.house.db.write(_recover, "next") == 1
        assert (await play.ask("done")).body == first.body


async def test_a_copy_with_the_same_id_elsewhere(tmp_path: Path) -> None:
    """A copy that another process gets under the same request id waits for the first, and does not free its key."""
    async with playing(tmp_path, whole()) as play:
        database = play.there.house.db
        await play.ask()  # it tells under which digest a key lies
        row = "UPDATE proxy_replies SET state = 'open', boot = 'elsewhere', owner = 'r2', body = NULL"
        await database.write(lambda conn, _: [conn.exec_driver_sql(row)], None)
        copy = await play.ask()
        assert (copy.status, error(copy)["code"]) == (409, "idempotency_in_flight")
        assert (play.calls, await play.states()) == (1, ["open"])


async def test_a_stop_waits_for_an_answer_whose_client_left(tmp_path: Path) -> None:
    """No connection belongs to it any more; it is ended in its time all the same, charged and kept."""
    async with playing(tmp_path, Script(STREAM[0], HANG), relay=Relay(drain_timeout=0.2)) as play:
        running = asyncio.ensure_future(play.ask(sink=ListSink(leave_after=1), stream=True))
        await play.under_way()
        assert await drain(play.there.house, [], asyncio.Event())
        assert await play.states() == ["kept"]
        assert len(await play.charged()) == 1
        await running


async def test_keys_are_the_tokens_own(tmp_path: Path) -> None:
    """Two clients may use the same key without meeting."""
    tokens = tuple(Token(name=name, key=Secret(f"sk-{name}")) for name in ("one", "two"))
    async with playing(tmp_path, whole("one"), whole("two"), tokens=tokens) as play:
        one, two = await play.ask(token=0), await play.ask(token=1)
        assert one.body != two.body
        assert (await play.ask(token=1)).body == two.body


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "tab\tinside"])
async def test_bad_keys(tmp_path: Path, key: str) -> None:
    """What is no key is refused in the caller's dialect."""
    async with playing(tmp_path) as play:
        refused = await play.ask(key)
        assert (refused.status, error(refused)["code"]) == (400, "invalid_idempotency_key")
        assert error(refused)["param"] == "Idempotency-Key"


async def test_counting_is_not_kept(tmp_path: Path) -> None:
    """Token counting costs nothing, so it is done again."""
    async with playing(tmp_path) as play:
        for _ in range(2):
            told = await play.ask(surface=COUNT, route="/v1/messages/count_tokens")
            assert (told.status, "idempotent-replayed" in told.headers) == (200, False)
        assert await play.states() == []


async def test_a_claim_that_cannot_be_written(tmp_path: Path) -> None:
    """Without the database there is no promise, so there is no answer."""
    async with playing(tmp_path) as play:
        database = play.there.house.db
        await database.write(lambda conn, _: [conn.exec_driver_sql("DROP TABLE proxy_replies")], None)
        refused = await play.ask()
        assert (refused.status, error(refused)["code"], play.calls) == (503, "ledger_unavailable", 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_charge_that_cannot_be_written(tmp_path: Path, streamed: bool) -> None:
    """No answer without its charge: the client is told inside the stream, or in the answer's place."""
    async with playing(tmp_path, Script(*STREAM) if streamed else whole()) as play:
        trigger = "CREATE TRIGGER no BEFORE UPDATE ON proxy_replies BEGIN SELECT RAISE(ABORT, 'no'); END"
        await play.there.house.db.write(lambda conn, _: [conn.exec_driver_sql(trigger)], None)
        told = await play.ask(stream=streamed)
        assert b"ledger_unavailable" in told.body
        assert b"[DONE]" not in told.body
        assert await play.charged() == []
        assert await play.states() == (["open"] if streamed else [])


async def test_forms_with_other_boundaries() -> None:
    """SDKs draw a new boundary when they repeat a form: it is the same request all the same."""
    visit = Visit(request_id="r", method="POST", path="/x", route="/x", client_ip="", arrived=0.0)
    digests = set()
    for boundary in ("abc", '"def"'):
        body = f"--{boundary.strip(chr(34))}\r\ncontent\r\n".encode()
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        digests.add(await once.fingerprint(visit, body, headers))
    assert len(digests) == 1
    headers = {"content-type": "multipart/form-data; boundary=abc"}
    assert await once.fingerprint(visit, b"--abc\r\nconsent\r\n", headers) not in digests
    assert await once.fingerprint(visit, b"x" * (once.LIGHT + 1), {}) not in digests
