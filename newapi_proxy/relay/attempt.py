"""One attempt: the request built for one candidate, opened, and its answer heard.

What an attempt yields is `Served`; what it raises is an UpstreamFailure (its `retries` are the plan's business),
Departed, or Unsupported before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters.base import Dialect, Outgoing, Target, refuse_own, speaks
from newapi_proxy.billing.count import Tally
from newapi_proxy.config.model import Override
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Finished, Metered, Started, TextDelta
from newapi_proxy.ir.suffix import wished
from newapi_proxy.ports import Client, Incoming, Interrupt, Take
from newapi_proxy.relay.batches import batched, joined, packs
from newapi_proxy.relay.depth import answered
from newapi_proxy.relay.house import Given
from newapi_proxy.relay.pipe import Heard, Pipe
from newapi_proxy.relay.plan import Candidate
from newapi_proxy.relay.tagged import Tagged
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel
from newapi_proxy.surfaces.base import LONGEST_MODEL, Face
from newapi_proxy.surfaces.instructing import instructed
from newapi_proxy.wire import tree
from newapi_proxy.wire.multipart import Upload

ERROR_BODY: Final = 1 << 20  # bytes of an upstream's error that are read
NO_BODY: Final = tree.Document(b"")
THE_KEY: Final = "{api_key}"  # in an additional header: the key that the attempt uses
NO_KEY: Final = Secret("")
PLAIN: Final = Override()  # nothing to override


class Prepared(msgspec.Struct, frozen=True):
    """A candidate's request, ready to be opened. `outgoing.body` is bytes; it was made from `ask` and `target`.

    `batches`: the requests that are sent in its place, one after the other, where the provider takes less at once;
    it is the first of them.
    """

    candidate: Candidate
    dialect: Dialect
    outgoing: Outgoing
    face: Face
    upstream_model: str
    ask: Ask
    target: Target
    batches: tuple[Prepared, ...] = ()


class Served(msgspec.Struct, frozen=True):
    """An attempt that reached the client, or is about to: a stream's pipe, or a whole answer with its events."""

    prepared: Prepared
    heard: Heard
    pipe: Pipe | None = None
    body: tree.Document = NO_BODY
    events: Sequence[Event] = ()

    @property
    def tally(self) -> Tally:
        """What has come of the answer, to be counted where upstream tells no usage: hardly ever asked for."""
        return self.heard.tally if self.pipe is not None else _told(self.events).tally

    @property
    def upstream_model(self) -> str:
        """The model that answers; where its choice was upstream's, the one that upstream names."""
        told = self.heard.model if self.prepared.ask.unnamed else None
        return told[:LONGEST_MODEL] if told else self.prepared.upstream_model


def prepare(
    candidate: Candidate, ask: Ask, given: Given, granted: str = "", dialect: Dialect | None = None
) -> Prepared:
    """Builds the candidate's request; pure. Raises Unsupported where the provider cannot express the ask.

    `granted`: what the channel's key was exchanged for, where it had to be and has been. `dialect`: another than the
    channel's type has for this ask.
    """
    channel = candidate.channel
    model = channel.upstream_model(ask.model)
    if channel.thinking is not None:
        ask = msgspec.structs.replace(ask, controls=wished(ask.controls, channel.thinking))
    if channel.system_prompt and ask.kind == "chat" and not ask.count_only:
        ask = instructed(ask, channel.system_prompt, channel.system_prompt_mode)
    dialect = dialect or speaks(channel.adapter, ask.dialect, model, ask.kind)
    if dialect is None:
        raise Unsupported(f"No format of channel type {channel.adapter.name} serves {model}.", "model")
    target = Target(
        channel=channel.name,
        base_url=channel.base_url,
        key=channel.keys[candidate.key] if channel.keys else NO_KEY,
        model=model,
        options=channel.options,
        organization=channel.organization,
        now=given.at,
        usage_in_stream=given.snapshot.config.relay.force_stream_option,
        granted=granted,
        caller=f"key-{given.token.account.token_id}",
    )
    batches = batched(dialect, ask, target) if ask.kind != "chat" else (ask,)
    ask = batches[0]
    outgoing = _asked(channel, dialect, ask, target)
    if outgoing.dropped and channel.options.strict_params:
        path = outgoing.dropped[0].removesuffix("~")
        raise Unsupported(f"{channel.adapter.name} cannot be given {path}, and the channel is strict.", path)
    face = Face(
        model=ask.model,
        id=given.visit.request_id,
        created=given.at,
        rename=(model != ask.model or channel.adapter.aliases) and not ask.unnamed,
        thinking_to_content=channel.options.thinking_to_content,
        pack=ask.kind == "embeddings" and not packs(dialect),
    )
    if channel.options.think_tags and ask.kind == "chat":
        dialect = Tagged(dialect)
    prepared = Prepared(candidate, dialect, _finished(outgoing, channel, target.key), face, model, ask, target)
    if len(batches) == 1:
        return prepared
    return msgspec.structs.replace(prepared, batches=tuple(rebuilt(prepared, one, granted) for one in batches))


def rebuilt(prepared: Prepared, ask: Ask, granted: str) -> Prepared:
    """The same request for an ask or a token that has come since; itself where neither is new."""
    target = prepared.target
    if ask is prepared.ask and granted == target.granted:
        return prepared
    target = msgspec.structs.replace(target, granted=granted)
    channel = prepared.candidate.channel
    outgoing = _finished(_asked(channel, prepared.dialect, ask, target), channel, target.key)
    return msgspec.structs.replace(prepared, outgoing=outgoing, ask=ask, target=target)


def _asked(channel: Channel, dialect: Dialect, ask: Ask, target: Target) -> Outgoing:
    if ask.own and ask.dialect != dialect.dialect:
        refuse_own(ask)
    counting = channel.adapter.counting if ask.count_only else None
    try:
        return dialect.request(ask, target) if counting is None else counting.request(ask, target)
    except tree.TooDeep:
        raise _too_deep() from None


def _too_deep() -> Unsupported:
    """A call's arguments are text to one provider and JSON to another, which nobody can write so deep."""
    return Unsupported("A tool call's arguments are nested too deep for this provider.", "messages")


def _finished(outgoing: Outgoing, channel: Channel, key: Secret) -> Outgoing:
    """The operator's last word: body overrides and headers, then the bytes."""
    body = outgoing.body
    headers: Mapping[str, str] = outgoing.headers
    if isinstance(body, dict):
        try:
            body = tree.encode(body if channel.override == PLAIN else _overridden(body, channel.override))
        except tree.TooDeep:
            raise _too_deep() from None
    elif isinstance(body, Upload):
        body = msgspec.structs.replace(body, fields=_overridden(dict(body.fields), channel.override))
        headers = {**headers, "content-type": body.content_type}
    if channel.headers:
        replaced = {name.lower() for name in channel.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
        own = {name: value.replace(THE_KEY, key.reveal()) for name, value in channel.headers.items()}
        headers = {**headers, **own}
    if outgoing.sign is not None and isinstance(body, bytes):
        headers = {**headers, **outgoing.sign(outgoing.url, headers, body)}
    return Outgoing(url=outgoing.url, body=body, headers=headers, method=outgoing.method, dropped=outgoing.dropped)


def _overridden(body: dict[str, Any], rules: Override) -> dict[str, Any]:
    for path, value in rules.default.items():
        body = tree.default(body, path, value)
    for path, value in rules.set.items():
        body = tree.put(body, path, value)
    for path in rules.remove:
        body = tree.remove(body, path)
    return body


async def open_answer(client: Client, prepared: Prepared, interrupt: Interrupt, *, connect_timeout: float) -> Incoming:
    """Opens the request; an answer other than 200 becomes the provider's failure in our terms."""
    local = prepared.candidate.channel.adapter.local
    if local is not None:
        incoming: Incoming = LocalAnswer(*local(prepared.outgoing))
    else:
        incoming = await client.open(
            prepared.outgoing, interrupt, connect_timeout=connect_timeout, proxy=prepared.candidate.channel.proxy
        )
    if incoming.status == 200:
        return incoming
    try:
        body = await incoming.whole(ERROR_BODY)
    finally:
        incoming.close()
    if 300 <= incoming.status < 400:
        raise UpstreamFailure(
            "The upstream redirected the request.", upstream_status=incoming.status, detail="redirect not followed"
        )
    raise prepared.dialect.failure(incoming.status, incoming.headers, body)


def hear(prepared: Prepared, ask: Ask, body: bytes) -> Served:
    """A whole answer heard at once. Raises the failure that it carries."""
    document = tree.Document(body)
    events = answered(prepared.dialect, ask, document)
    return Served(prepared, _heard(events), body=document, events=events)


def together(prepared: Prepared, answers: Sequence[Served]) -> Served:
    """The answers of a request's batches as one."""
    events = joined([(one.prepared.ask, one.events) for one in answers])
    return Served(prepared, _heard(events), events=events)


def _heard(events: Sequence[Event]) -> Heard:
    """What the events of a whole answer tell. Of the commonest the text is not kept: see Served.tally."""
    heard = Heard()
    for event in events:
        kind = type(event)
        if kind is Metered:
            heard.usage = event.usage  # type: ignore[union-attr]
        elif kind is Started:
            heard.model = event.model  # type: ignore[union-attr]
        elif kind is not TextDelta and kind is not Finished:
            return _told(events)
    return heard


def _told(events: Sequence[Event]) -> Heard:
    heard = Heard()
    for event in events:
        if not heard.take(event):
            break
    if heard.failure is not None:
        raise heard.failure
    return heard


class LocalAnswer:
    """An answer of a provider that lives in this process, behind the same port as the network."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def read(self) -> bytes:
        """All of it, then the end."""
        body, self._body = self._body, b""
        return body

    async def flow(self, take: Take) -> bool:
        """All of it at once."""
        body, self._body = self._body, b""
        return not body or take(body)

    async def whole(self, limit: int) -> bytes:
        """All of it."""
        return await self.read()

    def close(self) -> None:
        """Nothing to let go."""
