"""A channel tried out for an operator: one small request, or the question what its account has left. It is free here.

Uses what a client's request uses, from the surface to the provider's failure; no hold, no log row, no breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, cast, get_args

import msgspec

from newapi_proxy.adapters.base import Target
from newapi_proxy.billing.ledger import Account
from newapi_proxy.clock import Clock
from newapi_proxy.errors import ProxyError, UpstreamFailure
from newapi_proxy.ir.ask import Kind
from newapi_proxy.ports import Client, Interrupt
from newapi_proxy.relay.attempt import Prepared, hear, open_answer, prepare, rebuilt
from newapi_proxy.relay.credentials import Credentials
from newapi_proxy.relay.house import Given
from newapi_proxy.relay.pipe import WHOLE
from newapi_proxy.relay.plan import Candidate
from newapi_proxy.relay.record import Visit
from newapi_proxy.secret import Secret
from newapi_proxy.snapshot import Channel, Lane, Snapshot, Token
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.wire import tree

SECONDS: Final = 60.0
_TOKENS: Final = 16  # the least that every model takes
_VECTORS: Final = ("embed", "bge-", "m3e")
_CASES: Final[Mapping[Kind, tuple[str, dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": _TOKENS}),
    "embeddings": ("/v1/embeddings", {"input": ["hello world"]}),
    "rerank": ("/v1/rerank", {"query": "hello", "documents": ["hello world", "goodbye"]}),
    "moderations": ("/v1/moderations", {"input": "hello world"}),
    "images": ("/v1/images/generations", {"prompt": "a grey square", "size": "1024x1024"}),
    "speech": ("/v1/audio/speech", {"input": "hi", "voice": "alloy"}),
}
KINDS: Final = tuple(_CASES)
"""What can be tried; a transcription would want a sound."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `tokens`: what upstream says it used; `why` what went wrong, in the provider's own words."""

    channel: str
    key: int
    model: str
    kind: str
    ok: bool
    status: int
    ms: int
    tokens: int = 0
    why: str = ""


def kind_of(channel: Channel, model: str) -> Kind | None:
    """What to try a model with: by its name, else by what the channel's type has first."""
    name, adapter = model.lower(), channel.adapter
    if adapter.realtime is not None and "realtime" in name:
        return None  # a session is no question
    if adapter.rerank is not None and "rerank" in name:
        return "rerank"
    if adapter.embeddings is not None and any(word in name for word in _VECTORS):
        return "embeddings"
    if adapter.chat:
        return "chat"
    return next((kind for kind in get_args(Kind) if kind in _CASES and getattr(adapter, kind, None)), None)


async def tried(
    client: Client, clock: Clock, snapshot: Snapshot, candidate: Candidate, model: str, kind: Kind
) -> Outcome:
    """One small request with one key of the channel."""
    since = clock.monotonic()
    tokens, status, why = 0, 200, ""
    try:
        async with asyncio.timeout(SECONDS):
            tokens = await _asked(client, clock, snapshot, candidate, model, kind)
    except UpstreamFailure as failure:
        status, why = failure.upstream_status, failure.message
    except ProxyError as error:
        status, why = error.status, error.message
    except TimeoutError:
        status, why = 0, f"no answer within {SECONDS:.0f} s"
    return Outcome(
        channel=candidate.channel.name,
        key=candidate.key,
        model=model,
        kind=kind,
        ok=not why,
        status=status,
        ms=round((clock.monotonic() - since) * 1000),
        tokens=tokens,
        why=why,
    )


async def _asked(client: Client, clock: Clock, snapshot: Snapshot, candidate: Candidate, model: str, kind: Kind) -> int:
    path, body = _CASES[kind]
    surface = SURFACES[path]
    ask = surface.read(tree.encode({"model": model, **body}), {})
    given = Given(
        visit=Visit(request_id="test", method="POST", path=path, route=path, client_ip="", arrived=clock.monotonic()),
        token=Token(name="test", account=Account(0, 0, False, False), group=""),
        surface=surface,
        ask=ask,
        snapshot=snapshot,
        at=int(clock.wall()),
        lane=Lane((), (), Decimal(1)),
    )
    prepared = prepare(candidate, ask, given)
    interrupt, timeout = Interrupt(), snapshot.config.relay.connect_timeout
    prepared = await _granted(client, clock, prepared, interrupt, timeout)
    incoming = await open_answer(client, prepared, interrupt, connect_timeout=timeout)
    try:
        served = hear(prepared, prepared.ask, await incoming.whole(WHOLE))
    finally:
        incoming.close()
    usage = served.heard.usage
    return usage.prompt + usage.completion if usage is not None else 0


async def _granted(client: Client, clock: Clock, prepared: Prepared, interrupt: Interrupt, timeout: float) -> Prepared:
    channel = prepared.candidate.channel
    if channel.adapter.credential is None:
        return prepared
    token = await Credentials(client, clock).granted(
        channel.adapter, prepared.target, interrupt, connect_timeout=timeout, proxy=channel.proxy
    )
    return rebuilt(prepared, prepared.ask, token)


async def left(
    client: Client, channel: Channel, key: Secret, today: date, connect_timeout: float
) -> tuple[Decimal, str] | None:
    """What the key's account has left, and in which currency; None where it is not told. Raises ProxyError."""
    if channel.adapter.balance is None:
        return None
    to = Target(channel=channel.name, base_url=channel.base_url, key=key, model="", options=channel.options)
    talk, answer = channel.adapter.balance(to, today), None
    while True:
        try:
            outgoing = talk.send(answer)
        except StopIteration as over:
            return cast("tuple[Decimal, str] | None", over.value)
        incoming = await client.open(outgoing, Interrupt(), connect_timeout=connect_timeout, proxy=channel.proxy)
        try:
            body = await incoming.whole(WHOLE)
        finally:
            incoming.close()
        if incoming.status != 200:
            raise channel.adapter.chat[0].failure(incoming.status, incoming.headers, body)
        answer = tree.lenient(body)


def candidates(channel: Channel) -> Sequence[Candidate]:
    """One for each key."""
    return [Candidate(channel, key, 0) for key in range(max(1, len(channel.keys)))]
