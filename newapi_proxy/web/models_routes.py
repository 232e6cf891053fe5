"""Model lists, from the snapshot at once: what this key reaches, in the caller's own shape (demand K1).

A key without money may look; its address list holds. Sources: relay-and-billing §1.2, §1.6, decision 23.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from newapi_proxy.adapters.base import Adapter
from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.snapshot import Token
from newapi_proxy.surfaces import models
from newapi_proxy.web import keys
from newapi_proxy.web.app import Action, Call, Edge, Failure, not_implemented, wait
from newapi_proxy.web.router import Route

UNLISTED: Final = Adapter(name="").owner  # the owner of a model that only a pattern lets in


class Shape(msgspec.Struct, frozen=True):
    """How a family of clients reads models, and errors."""

    every: Callable[[models.Rows], bytes]
    one: Callable[[models.Row], bytes]
    failure: Failure


def routes(openai: Failure, anthropic: Failure, gemini: Failure) -> list[Route[Action]]:
    """The lists; `/v1` in Anthropic's shape where its version header is there. Given: each family's error bodies."""
    first = Shape(models.openai_list, models.openai_one, openai)
    second = Shape(models.anthropic_list, models.anthropic_one, anthropic)
    third = Shape(models.gemini_list, models.gemini_one, gemini)

    async def common(edge: Edge, call: Call) -> None:
        _serve(edge, call, second if models.wants_anthropic(call.arrival.headers) else first)

    async def google(edge: Edge, call: Call) -> None:
        _serve(edge, call, third)

    return [
        Route("/v1/models", {"GET": common, "HEAD": common}),
        Route("/v1/models/{id}", {"GET": common, "HEAD": common, "DELETE": not_implemented}),
        Route("/v1beta/models", {"GET": google, "HEAD": google}),
        Route("/v1beta/models/{id}", {"GET": google, "HEAD": google}),
    ]


def _serve(edge: Edge, call: Call, shape: Shape) -> None:
    visit, snapshot = call.visit, edge.house.snapshot
    reply = call.arrival.reply
    error: ProxyError | None = None
    try:
        token = edge.caller(call, snapshot)
        visit = call.by(token)
        keys.admit(token, visit.client_ip, edge.house.clock.wall(), drained=True)
        body = _one(edge, token, call.tail, shape) if call.tail else shape.every(snapshot.models_for(token))
        reply.whole(200, (), body)
    except ClientError as fault:
        error = fault
        reply.whole(error.status, wait(error), shape.failure(error, visit.request_id))
    edge.note(visit, error)


def _one(edge: Edge, token: Token, name: str, shape: Shape) -> bytes:
    """One model, also where only a pattern lets it in. Raises ClientError 404."""
    snapshot = edge.house.snapshot
    row = next((row for row in snapshot.models_for(token) if row[0] == name), None)
    if row is None:
        tiers = snapshot.tiers(token.group, name) if token.may_use(name) else ()
        if not tiers:
            raise models.missing(name)
        row = (name, UNLISTED, snapshot.told(tiers[0][0], name)[1])
    return shape.one(row)
