"""The attempts of one request: each opens an answer and moves it to the client.

Attempts may change until content is on its way to the client, never after (decision 11).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from newapi_proxy import log
from newapi_proxy.adapters.base import speaks
from newapi_proxy.errors import OurError, ProxyError, Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ports import Incoming, Interrupt, Sink
from newapi_proxy.relay import candidates
from newapi_proxy.relay.attempt import Prepared, Served, hear, open_answer, prepare, rebuilt, together
from newapi_proxy.relay.batches import instead, raw
from newapi_proxy.relay.depth import too_deep
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.limits import Stay
from newapi_proxy.relay.media import Parcels, by_url
from newapi_proxy.relay.pipe import WHOLE, Pipe, Retold, looks_whole, pipe
from newapi_proxy.relay.plan import Candidate, Plan
from newapi_proxy.relay.pump import Departed, Watch, pump
from newapi_proxy.relay.record import Record
from newapi_proxy.relay.uploads import uploaded
from newapi_proxy.relay.worded import worded
from newapi_proxy.surfaces.base import Face
from newapi_proxy.wire import tree

LISTED: Final = 4096  # characters of a list of dropped parameters; a body may hold any number of unknown names


class Cut(msgspec.Struct, frozen=True):
    """The answer broke off after content was delivered: upstream's failure, or ours (a drain that ran out of time)."""

    served: Served
    failure: UpstreamFailure | OurError


class Left(msgspec.Struct, frozen=True):
    """The client went; `served` where anything had come from upstream."""

    served: Served | None


Outcome = Served | Cut | Left


class Attempts:
    """One request's attempts, and the upstream response that is open at the moment."""

    __slots__ = (
        "_given", "_house", "_incoming", "_parcels", "_pipe", "_prepared", "_record", "_sink", "stay", "watch"
    )  # fmt: skip

    def __init__(self, house: House, given: Given, sink: Sink, record: Record) -> None:
        relay = given.snapshot.config.relay
        self._house = house
        self._given = given
        self._sink = sink
        self._record = record
        self._incoming: Incoming | None = None
        self._prepared: Prepared | None = None
        self._pipe: Pipe | None = None
        self._parcels: Parcels | None = None
        self.stay = Stay(house.windows, given)
        self.watch = Watch(
            sink,
            self._begin,
            keepalive=given.surface.keepalive(given.ask) if given.ask.stream and not given.ask.count_only else b"",
            every=relay.keepalive,
            total=relay.total_timeout,
            silence=relay.streaming_timeout,
        )
        house.watches.add(self.watch)

    async def ready(self, candidate: Candidate) -> Prepared:
        """See candidates.Way."""
        ask = await self._carried(candidate) if self._carries(candidate) else self._given.ask
        granted = "" if candidate.channel.adapter.credential is None else self._held(candidate)
        return prepare(candidate, ask, self._given, granted)

    async def count(self, plan: Plan) -> int | None:
        """The first candidate's own token count, where it has one and answers."""
        given = self._given
        self.stay.begun = True
        candidate = plan.next()
        if candidate is None or candidate.channel.adapter.counting is None:
            return None
        if candidate.channel.ceilings and await self.stay.attempt(candidate) is not None:
            return None
        counting = candidate.channel.adapter.counting
        try:
            prepared = await self.ready(candidate)
        except Unsupported:
            self.stay.unsent()
            return None
        since = self._house.clock.monotonic()
        try:
            self._incoming = await self._open(prepared, None)
            tokens = counting.tokens(await self._incoming.whole(WHOLE))
        except UpstreamFailure as failure:
            self._house.health.failed(candidate.channel, candidate.key, failure, trial=False)
            candidates.note(given, self._record, candidate, failure, since)
            return None
        self._record.tried(candidate, 200, "ok", since)
        self._record.served(candidate.channel, prepared.upstream_model)
        return tokens

    def _carries(self, candidate: Candidate) -> bool:
        """Whether the ask may have to be another one for this provider."""
        ask = self._given.ask
        if ask.kind == "embeddings":
            return True
        if candidate.channel.adapter.by_bytes is None:
            return False
        for turn in ask.turns:
            if not turn.plain:
                return bool(by_url(ask))
        return False

    async def _carried(self, candidate: Candidate) -> Ask:
        """The ask, with bytes for the media that this provider does not fetch itself, texts for tokens that it does not
        know. Raises Unsupported."""
        channel, ask = candidate.channel, self._given.ask
        if ask.kind == "embeddings":
            return await worded(ask, channel.adapter)
        assert channel.adapter.by_bytes is not None
        if self._parcels is None:
            self._parcels = Parcels(ask, by_url(ask), self._house.fetcher, self._given.snapshot.config)
        model = channel.upstream_model(ask.model)
        if ask.dialect in channel.adapter.opens:
            dialect = speaks(channel.adapter, ask.dialect, model)
            if dialect is not None and dialect.dialect == ask.dialect:
                return ask
        return await self._parcels.carried(channel.adapter.by_bytes, model, lambda: self.watch.attempt(None))

    def dropped(self) -> list[tuple[str, str]]:
        """The header that names what the provider could not be given (decision 12)."""
        dropped = self._prepared.outgoing.dropped if self._prepared is not None else ()
        return [("x-dropped-params", ",".join(sorted(dropped))[:LISTED])] if dropped else []

    def fail(self, error: ProxyError) -> bytes:
        """The error inside a stream that has begun."""
        told = b"" if self._pipe is None else self._pipe.fail(error, self._given.id)
        if told:
            return told
        given = self._given  # no pipe, or one that has said its last word, which did not go out
        face = Face(model=given.ask.model, id=given.id, created=given.at)  # no attempt was made: nothing to know
        if self._prepared is not None:
            face = self._prepared.face
        return given.surface.writer(given.ask, face).fail(error, given.id)

    def close(self) -> None:
        """Lets go of everything."""
        self._release()
        self.stay.close()
        self.watch.close()
        self._house.watches.discard(self.watch)

    def _begin(self) -> None:
        """The status goes out: with the first content, or with the first keep-alive."""
        if not self._sink.started:
            given = self._given
            kind = given.surface.stream_type(given.ask)
            if not kind and self._incoming is not None:
                kind = self._incoming.headers.get("content-type", "application/octet-stream")
            self._sink.start(200, [("content-type", kind), *self.dropped()])

    def _commit(self) -> None:
        self._begin()
        self._record.first_byte()

    async def attempt(self, prepared: Prepared) -> Outcome | UpstreamFailure:
        """See candidates.Way."""
        health, channel = self._house.health, prepared.candidate.channel
        ask, relay = self._given.ask, self._given.snapshot.config.relay
        streamed = ask.stream and not ask.handed  # a picture may take minutes to begin
        first = (channel.first_token_timeout or relay.first_token_timeout) if streamed else None
        if self._incoming is not None:
            self._release()
        self._prepared, self._pipe = prepared, None
        if prepared.outgoing.dropped:
            log.logger().info(
                "params_dropped",
                request_id=self._given.id,
                channel=channel.name,
                params=",".join(sorted(prepared.outgoing.dropped))[:LISTED],
            )
        since = self._house.clock.monotonic()
        trial = health.began(channel)
        try:
            if ask.kind == "chat" or ask.stream:
                self._incoming = incoming = await self._open(prepared, first)
                if ask.stream:
                    served = await self._hear(prepared, incoming)
                else:
                    served = hear(prepared, ask, await incoming.whole(WHOLE))
            else:
                served = await self._gathered(prepared)
        except Departed:
            health.released(channel, trial=trial)
            self._release()
            self._record.tried(prepared.candidate, 0, "client_gone", since, "client_gone")
            return Left(self._partly(prepared, anyway=self._told()))
        except UpstreamFailure as failure:
            health.failed(channel, prepared.candidate.key, failure, trial=trial)
            self._release()
            self.stay.failed(failure)
            candidates.note(self._given, self._record, prepared.candidate, failure, since)
            partly = self._partly(prepared)
            if partly is not None:
                return Cut(partly, failure)
            return candidates.told(failure, prepared.candidate)
        except OurError as ours:
            health.released(channel, trial=trial)
            self._release()
            self._record.tried(prepared.candidate, 0, "internal", since, str(ours.code))
            partly = self._partly(prepared)
            if partly is None:
                raise
            return Cut(partly, ours)
        except BaseException:
            health.released(channel, trial=trial)
            raise
        health.succeeded(channel, prepared.candidate.key, trial=trial)
        self._record.tried(prepared.candidate, 200, "ok", since)
        return served

    def _open(self, prepared: Prepared, first_token: float | None) -> Awaitable[Incoming]:
        interrupt = self.watch.attempt(first_token)
        timeout = self._given.snapshot.config.relay.connect_timeout
        adapter = prepared.candidate.channel.adapter
        if adapter.uploads is None and adapter.credential is None:
            return open_answer(self._house.client, prepared, interrupt, connect_timeout=timeout)
        return self._open_provided(prepared, interrupt, timeout)

    async def _open_provided(self, prepared: Prepared, interrupt: Interrupt, timeout: float) -> Incoming:
        """Opens where something must be with the provider before: files, a token."""
        adapter = prepared.candidate.channel.adapter
        if adapter.uploads is not None:
            ask = await uploaded(self._house.client, prepared, interrupt, connect_timeout=timeout)
            prepared = rebuilt(prepared, ask, prepared.target.granted)
        if adapter.credential is not None:
            return await self._open_granted(prepared, interrupt, timeout)
        return await open_answer(self._house.client, prepared, interrupt, connect_timeout=timeout)

    def _held(self, candidate: Candidate) -> str:
        """The token that stands for the candidate's key now, where its provider wants one."""
        channel = candidate.channel
        if channel.adapter.credential is None or not channel.keys:
            return ""
        return self._house.credentials.held(channel.adapter, channel.keys[candidate.key])

    async def _open_granted(self, prepared: Prepared, interrupt: Interrupt, timeout: float) -> Incoming:
        """Opens with the token for the channel's key; one that upstream refuses gives way to a new one, once."""
        channel, target = prepared.candidate.channel, prepared.target
        credentials, client, held = self._house.credentials, self._house.client, target.granted
        while True:
            token = await credentials.granted(
                channel.adapter, target, interrupt, connect_timeout=timeout, proxy=channel.proxy
            )
            try:
                return await open_answer(
                    client, rebuilt(prepared, prepared.ask, token), interrupt, connect_timeout=timeout
                )
            except UpstreamFailure as failure:
                if failure.upstream_status != 401 or not token:
                    raise
                credentials.forget(channel.adapter, target.key, token)
                if token != held:  # it was new
                    raise
                held = ""

    async def _hear(self, prepared: Prepared, incoming: Incoming) -> Served:
        given = self._given
        first = await incoming.read()
        whole = looks_whole(incoming.headers.get("content-type", ""), first) and not raw(prepared.dialect)
        made = Retold if whole else pipe
        self._pipe = made(given.surface, prepared.dialect, given.ask, prepared.face)
        try:
            await pump(incoming, first, self._pipe, self._sink, self.watch, self._commit)
        except tree.TooDeep:
            raise too_deep() from None
        return Served(prepared, self._pipe.heard, pipe=self._pipe)

    async def _gathered(self, prepared: Prepared) -> Served:
        """A whole answer of another kind than chat, of all its batches; from the older endpoint where that is all."""
        try:
            return await self._batches(prepared)
        except UpstreamFailure as failure:
            older = instead(prepared.dialect, failure)
            if older is None:
                raise
        ask = self._given.ask
        if self._carries(prepared.candidate):
            ask = await self._carried(prepared.candidate)
        self._prepared = prepare(prepared.candidate, ask, self._given, prepared.target.granted, older)
        return await self._batches(self._prepared)

    async def _batches(self, prepared: Prepared) -> Served:
        answers = []
        for batch in prepared.batches or (prepared,):
            self._release()
            self._incoming = await self._open(batch, None)
            answers.append(hear(batch, batch.ask, await self._incoming.whole(WHOLE)))
        return answers[0] if len(answers) == 1 else together(prepared, answers)

    def _release(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def _partly(self, prepared: Prepared, *, anyway: bool = False) -> Served | None:
        """What was delivered before an attempt ended early, if anything; `anyway`: also where nothing was."""
        if self._pipe is None or not (anyway or self._pipe.heard.committed):
            return None
        return Served(prepared, self._pipe.heard, pipe=self._pipe)

    def _told(self) -> bool:
        """Whether upstream has said what the answer costs."""
        return self._pipe is not None and self._pipe.heard.usage is not None
