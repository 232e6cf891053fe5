"""Routes for those who run the daemon: is it up, can it serve, how much has it done. No request line for these.

Source: interfaces §4, §6.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy import metrics
from newapi_proxy.errors import ClientError, ProxyError
from newapi_proxy.web.app import Action, Call, Edge, bare_404
from newapi_proxy.web.keys import presented
from newapi_proxy.web.router import Route
from newapi_proxy.wire import tree

PROBE_SECONDS: Final = 2.0
TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))
JSON: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
PROMETHEUS: Final = (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"), ("Cache-Control", "no-store"))


def routes() -> list[Route[Action]]:
    """On the main listener: metrics only for the holder of an admin key."""
    return [*_health(), Route("/metrics", {"GET": _guarded_metrics, "HEAD": _guarded_metrics})]


def metrics_routes() -> list[Route[Action]]:
    """On the metrics listener, which is private by its address."""
    return [*_health(), Route("/metrics", {"GET": _metrics, "HEAD": _metrics})]


def _health() -> list[Route[Action]]:
    return [
        Route("/healthz", {"GET": _healthz, "HEAD": _healthz}),
        Route("/readyz", {"GET": _readyz, "HEAD": _readyz}),
    ]


async def _healthz(edge: Edge, call: Call) -> None:
    call.arrival.reply.whole(200, TEXT, b"ok\n")


async def _readyz(edge: Edge, call: Call) -> None:
    missing = await unready(edge)
    body = tree.encode({"ready": not missing, "missing": missing})
    call.arrival.reply.whole(503 if missing else 200, JSON, body)


async def unready(edge: Edge) -> list[str]:
    """What keeps the daemon from serving, nothing when it can."""
    house = edge.house
    if edge.draining:
        return ["draining"]
    missing = []
    if not any(
        house.health.wait(channel, key) <= 0.0
        for channel in house.snapshot.channels
        for key in range(max(1, len(channel.keys)))
    ):
        missing.append("channel")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await house.db.write(_probe, None)
    except (ProxyError, TimeoutError):
        missing.append("database")
    return missing


def _probe(connection: Any, items: Sequence[None]) -> list[None]:
    """A transaction that writes nothing; the writer has to be there for it, and the lock to be had."""
    return [None for _ in items]


async def _metrics(edge: Edge, call: Call) -> None:
    used = ((one.scope, one.name, one.limit, one.count) for one in edge.house.windows.used())
    call.arrival.reply.whole(200, PROMETHEUS, metrics.text(used))


async def _guarded_metrics(edge: Edge, call: Call) -> None:
    """Without an admin key the route is not there."""
    if is_admin(edge, call):
        await _metrics(edge, call)
    else:
        bare_404(edge, call)


def is_admin(edge: Edge, call: Call) -> bool:
    """Whether the request brings one of the configured admin keys, from an address that does not guess."""
    visit = call.visit
    tried = list(presented(visit.path, call.query, call.arrival.headers))
    try:
        edge.guesses.check(visit.client_ip, visit.arrived)
    except ClientError:
        return False
    found = any(operates(edge, text) for text in tried)
    if not found:
        edge.guesses.note(visit.client_ip, tried, visit.arrived)
    return found


def operates(edge: Edge, text: str) -> bool:
    """Whether the text is one of the configured admin keys."""
    keys = [key.reveal().encode() for key in edge.house.snapshot.config.admin.keys]
    return any(hmac.compare_digest(text.encode("utf-8", "surrogateescape"), key) for key in keys)
