"""A realtime session: two pumps between a client and a provider, each response charged before its last message goes on.

Knows who ended it and what that costs; nothing of formats (the adapter's meter tells what a message means) and nothing
of WebSockets. Sources: relay-and-billing 1.6, 5.12; tasks-and-accounts 10.1; decisions 6 to 8; reliability 2.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from newapi_proxy.adapters.base import Endpoint
from newapi_proxy.billing import policy
from newapi_proxy.billing.charge import charge, hold_amount
from newapi_proxy.errors import ClientError, OurError, ProxyError, UpstreamFailure, internal
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.session import Meter, Moment
from newapi_proxy.ir.usage import Usage, clamped
from newapi_proxy.ports import Sink
from newapi_proxy.relay import candidates, exchange
from newapi_proxy.relay.attempt import Served
from newapi_proxy.relay.dialing import Dialing, Reached
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.instalments import Instalments
from newapi_proxy.relay.pipe import Heard
from newapi_proxy.relay.pump import Departed
from newapi_proxy.relay.record import Record, Visit, line
from newapi_proxy.relay.settle import Bill
from newapi_proxy.relay.sockets import Closed, Message, Socket
from newapi_proxy.relay.talk import RESPONSES, Answer, Talk, counted
from newapi_proxy.spawn import spawn
from newapi_proxy.surfaces.realtime import REALTIME, error_event

SWITCHED: Final = 101
LAST_WORD: Final = 0.2  # seconds that a client's farewell may lie behind the end of its connection
CLEAN: Final = frozenset({1000, 1001, 1005})
FAULTS: Final = frozenset({1006, 1011, 1012, 1013, 1014})  # those that no client can bring about by what it sends
AWAY, BROKEN, POLICY, TOO_BIG = 1001, 1011, 1008, 1009
_GROWING: Final = frozenset({"begun", "part", "side"})  # what makes responses in progress cost more


class Ending(msgspec.Struct, frozen=True):
    """Why a session ends: what a response in progress costs (`end`), what the client is told, the close code."""

    end: policy.End
    code: int
    reason: str = ""
    error: ProxyError | None = None


async def serve(house: House, visit: Visit, ask: Ask, sink: Sink, accept: Callable[[], Socket]) -> None:
    """Carries one session, from plan and hold to its line; never raises a ProxyError.

    `accept` grants the client's upgrade, once a provider has granted ours: until then a refusal is an HTTP answer.
    """
    record = Record(visit, house.clock)
    record.asked(ask)
    assert visit.token is not None
    snapshot = visit.snapshot or house.snapshot
    given = Given(
        visit=visit,
        token=visit.token,
        surface=REALTIME,
        ask=ask,
        snapshot=snapshot,
        at=record.now(),
        lane=snapshot.lane(visit.token.group, ask.model, ask.dialect, ask.kind),
    )
    dialing = Dialing(house, given, sink, record)
    try:
        await _served(house, given, dialing, record, accept)
    except ProxyError as error:
        dialing.stay.refused()
        exchange.tell(visit, REALTIME, sink, error, record, None)
    except (Departed, ConnectionError):
        record.end, record.status = "client_gone", exchange.GONE
    except BaseException:
        record.broke()
        raise
    finally:
        dialing.close()
        record.finish()


async def _served(house: House, given: Given, dialing: Dialing, record: Record, accept: Callable[[], Socket]) -> None:
    plan = exchange.planned(house, given)
    prices = exchange.prices_of(given)
    purse = Instalments(house, given, record, max(hold_amount(given.ask, one, given.lane.ratio) for one in prices))
    if house.dialer is None:
        raise OurError("Sessions cannot be opened here.", status=503, code="no_sessions")
    await dialing.stay.enter()
    await purse.hold()
    failed: BaseException | None = None
    try:
        reached = await candidates.first(house, given, plan, dialing)
        record.served(reached.prepared.candidate.channel, reached.prepared.upstream_model)
        try:
            client = accept()
        except BaseException:
            await reached.socket.close(AWAY)
            raise
        record.status = SWITCHED
        session = Session(house, given, reached, client, dialing)
        await session.run(purse, record)
    except BaseException as error:
        failed = error
        raise
    finally:
        await purse.close(failed)


class Session:
    """Both ends of one session, and how it ended."""

    def __init__(self, house: House, given: Given, reached: Reached, client: Socket, dialing: Dialing) -> None:
        endpoint = reached.prepared.dialect
        assert isinstance(endpoint, Endpoint)
        assert endpoint.session is not None, "only endpoints of sessions are asked for them"
        self._house = house
        self._given = given
        self._prepared = reached.prepared
        self._meter: Meter = endpoint.session(given.ask, reached.prepared.target)
        self._client, self._upstream = client, reached.socket
        self._watch, self._stay = dialing.watch, dialing.stay
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._ending: Ending | None = None
        self._bug: Exception | None = None
        self._talk = Talk()
        price = given.snapshot.prices.find(given.ask.model, reached.prepared.upstream_model)
        assert price is not None, "only channels with a price are in the plan"
        self._price = price
        self._paying: asyncio.Task[ProxyError | None] | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._retiring = self._banned = False
        self._seen = given.snapshot
        self._idle = given.snapshot.config.relay.session_idle
        self._active = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, purse: Instalments, record: Record) -> None:
        """Moves messages until somebody ends it, charges what is left, and closes both ends."""
        self._purse, self._record = purse, record
        self._house.sessions.add(self.retire)
        self._tick()
        self._pumps = [
            spawn(self._guarded(self._up), "session up"),
            spawn(self._guarded(self._down), "session down"),
        ]
        try:
            ending = await self._ended()
        finally:
            self._house.sessions.discard(self.retire)
            if self._timer is not None:
                self._timer.cancel()
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)
            if self._paying is not None and not self._paying.done():
                await asyncio.wait([self._paying])  # its money is on its way, and must be in the sums
        await self._finish(ending)
        if self._bug is not None:
            raise self._bug

    def retire(self) -> None:
        """The process is about to end: so does the session, after the response in progress."""
        self._retiring = True
        if not self._talk.answers and (self._paying is None or self._paying.done()):
            self._end(_RESTART)

    def _end(self, ending: Ending) -> None:
        """The first word counts."""
        if self._ending is None:
            self._ending = ending
            if not self._over.done():
                self._over.set_result(None)

    async def _ended(self) -> Ending:
        """Waits for the end, by either side, the time or the process."""
        try:
            await self._watch.interrupt.wait(self._over)
        except Departed:
            await asyncio.wait(self._pumps, timeout=LAST_WORD, return_when=asyncio.FIRST_COMPLETED)
            return self._ending or _GONE
        except UpstreamFailure:
            return Ending(
                "timeout", AWAY, error=_too_long("session_expired", "The session has lasted its longest time.")
            )
        except OurError as error:
            return Ending("upstream_error", AWAY, error.message, error)
        assert self._ending is not None
        return self._ending

    def _tick(self) -> None:
        """Looks whether anybody has said anything."""
        left = self._active + self._idle - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left + 0.001, self._tick)
        else:
            error = _too_long("session_idle", f"Nothing was said for {self._idle:g} s.")
            self._end(Ending("timeout", AWAY, error=error))

    async def _guarded(self, pump: Callable[[], Awaitable[None]]) -> None:
        """A pump that breaks ends the session; nobody else would hear of it in time."""
        try:
            await pump()
        except Exception as error:
            self._bug = self._bug or error
            self._end(Ending("upstream_error", BROKEN, error=internal()))

    async def _up(self) -> None:
        """From the client to the provider."""
        while not isinstance(got := await self._client.receive(), Closed):
            self._active = self._loop.time()
            moment = self._meter.up(got.data) if got.text else None
            if moment is not None:
                self._talk.take(moment)
                if moment.data is not None:
                    got = Message(moment.data)
            try:
                await self._upstream.send(got)
            except ConnectionError:
                await asyncio.sleep(LAST_WORD)  # in which the other pump hears why
                self._end(self._lost(Closed(1006)))
                return
        self._end(self._left(got))

    async def _down(self) -> None:
        """From the provider to the client; a response's last message only when it is paid."""
        while not isinstance(got := await self._upstream.receive(), Closed):
            self._active = self._loop.time()
            moment = self._meter.down(got.data) if got.text else None
            lack = None
            if moment is not None:
                lack = await self._noted(moment)
                got = self._told(moment, got)
            try:
                await self._client.send(got)
            except ConnectionError:
                await asyncio.sleep(LAST_WORD)
                self._end(_GONE)
                return
            if moment is None:
                continue
            if moment.kind == "part":
                self._record.first_byte()
            if lack is not None:
                self._end(Ending("ok", POLICY if isinstance(lack, ClientError) else BROKEN, error=lack))
                return
            if self._retiring and not self._talk.answers:
                self._end(_RESTART)
        self._end(self._lost(got))

    async def _noted(self, moment: Moment) -> ProxyError | None:
        """What the message means; why the session cannot go on, where its money ends."""
        self._talk.take(moment)
        if moment.kind == "fault" and moment.failure is not None and moment.failure.blames == "key":
            candidate = self._prepared.candidate
            self._house.health.failed(candidate.channel, candidate.key, moment.failure, trial=False)
        if moment.kind == "done":
            answer = self._talk.answers.pop(moment.response, None) or Answer()
            due = self._paid([answer], moment.usage, "ok")
        elif moment.kind == "side" and not self._talk.answers:
            due = self._paid([], None, "ok")
        elif moment.kind in _GROWING and self._talk.grown() and (cost := self._running()) > self._purse.held:
            due = self._covered(cost)
        else:
            return None
        self._paying = spawn(due, "instalment")
        return await asyncio.shield(self._paying)  # who stops the pump does not stop the money

    def _running(self) -> int:
        given = self._given
        return self._talk.running(self._price, given.lane.ratio, given.snapshot.prices.find, self._purse.least)

    async def _covered(self, cost: int) -> ProxyError | None:
        """Holds for what is in progress; why it cannot go on, where the money does not reach."""
        if len(self._talk.answers) >= RESPONSES:
            return ClientError("Too many responses are in progress in this session.", code="too_many_responses")
        try:
            await self._purse.cover(cost)
        except ProxyError as error:
            return _spent(error)
        return None

    def _told(self, moment: Moment, got: Message) -> Message:
        """The message as the client gets it: no word of the channel's own key or account."""
        failure = moment.failure
        if failure is not None and failure.blames == "key":
            return Message(error_event(failure, self._given.id))
        return got if moment.data is None else Message(moment.data)

    async def _paid(
        self, answers: list[Answer], usage: Usage | None, end: policy.End, *, last: bool = False
    ) -> ProxyError | None:
        """Charges these responses with what was said before and beside them and, unless they are the `last`, holds for
        the next one."""
        if usage is not None and not policy.trusted(usage, self._given.ask):
            usage = None
        begun = any(one.begun for one in answers)
        basis = policy.aborted(end, known=usage is not None, delivered=begun)
        if basis == "nothing" and not self._talk.sides:
            return None
        try:
            billed = await self._bill(answers, usage, basis)
            await self._purse.settle(Served(self._prepared, Heard()), billed)
            full = await self._stay.spent(billed.usage)
            if not last:
                if full is not None:
                    return full
                self._admitted()
                await self._purse.hold(self._running())
        except ProxyError as error:
            return _spent(error)
        return None

    async def _bill(self, answers: list[Answer], usage: Usage | None, basis: policy.Basis) -> Bill:
        given, model, talk = self._given, self._prepared.upstream_model, self._talk
        price, find = self._price, given.snapshot.prices.find
        said, sound, sides = talk.said, talk.sound, tuple(talk.sides.items())
        talk.fresh()
        if basis == "counted":
            usage = await counted(said, sound, answers, model)
        usage = clamped(usage) if usage is not None and basis != "nothing" else Usage()
        if sides:
            usage = msgspec.structs.replace(usage, others=sides)
        calls = 0 if self._purse.count else 1  # a price per call is the session's, paid with its first response
        return Bill(usage, line(usage), price, charge(usage, price, given.lane.ratio, find, calls=calls))

    def _admitted(self) -> None:
        """Raises ClientError where the key may be used no more: its time has come, or a reload has taken it away."""
        token, snapshot = self._given.token, self._house.snapshot
        if snapshot is not self._seen:
            self._seen = snapshot
            mine = token.account.token_id
            found = next((one for one in snapshot.tokens.values() if one.account.token_id == mine), None)
            self._banned = found is None or not found.enabled or found.expired or not found.user_enabled
        if self._banned or (token.expires is not None and token.expires < self._record.now()):
            raise ClientError(
                "This key may not be used any more.", status=401, kind="unauthorized", code="invalid_api_key"
            )

    def _left(self, closed: Closed) -> Ending:
        """The client has ended it."""
        if closed.faulty:
            large = closed.code == TOO_BIG
            error = ClientError(
                "The message is too large." if large else "The message is not valid.",
                status=413 if large else 400,
                kind="too_large" if large else "bad_request",
                type="invalid_request_error",
                code="message_too_large" if large else "invalid_message",
            )
            return Ending("client_gone", closed.code, error=error)
        if closed.code == _GONE.code or self._talk.answers:
            return Ending("client_gone", closed.code)
        return Ending("ok", closed.code)

    def _lost(self, closed: Closed) -> Ending:
        """The provider has ended it."""
        if closed.code in CLEAN and not closed.faulty and not self._talk.answers:
            return Ending("ok", closed.code, closed.reason)
        candidate = self._prepared.candidate
        failure = UpstreamFailure(
            "The upstream ended the session.", code="upstream_closed", detail=f"close code {closed.code}"
        )
        if closed.faulty or closed.code in FAULTS:
            self._house.health.failed(candidate.channel, candidate.key, failure, trial=False)
        own = closed.code == POLICY or 3000 <= closed.code <= 4999
        return Ending("upstream_error", closed.code if own else BROKEN, error=failure)

    async def _last(self, answers: list[Answer], end: policy.End) -> ProxyError | None:
        """The last charge; whatever comes of it, both ends are closed in order."""
        try:
            return await self._paid(answers, None, end, last=True)
        except Exception as error:
            self._bug = self._bug or error
            return internal()

    async def _finish(self, ending: Ending) -> None:
        """The last charge, then the farewells."""
        record, talk, error = self._record, self._talk, ending.error
        code = AWAY if ending.end == "client_gone" else ending.code
        farewell = spawn(self._upstream.close(code if code in CLEAN else 1000), "session farewell")
        if talk.answers or talk.sides:
            end: policy.End = "client_gone" if ending.end == "ok" else ending.end
            error = await self._last(list(talk.answers.values()), end) or error
        if error is not None:
            record.failed(error, SWITCHED)
            if isinstance(error, ClientError):  # "rejected" is what nothing was done for
                record.end = ending.end
            try:
                async with asyncio.timeout(1.0):
                    await self._client.send(Message(error_event(error, self._given.id)))
            except (ConnectionError, TimeoutError):
                pass  # it stands in the line
        else:
            record.end = ending.end
        await asyncio.gather(self._client.close(ending.code, ending.reason), farewell)


_GONE: Final = Ending("client_gone", 1006)
_RESTART: Final = Ending("ok", AWAY, "The server is being restarted.")


def _too_long(code: str, message: str) -> UpstreamFailure:
    return UpstreamFailure(
        message, status=504, kind="timeout", type="invalid_request_error", code=code, blames="nobody"
    )


def _spent(error: ProxyError) -> ProxyError:
    """The end of a key's money in the words that the protocol's clients know."""
    if error.kind != "quota":
        return error
    return ClientError(
        error.message, status=error.status, kind="quota", type="insufficient_quota", code="insufficient_quota"
    )
