"""Pictures of tasks, forwarded to whoever has the link: no key, so every guard there is.

The address comes from upstream: fetched only where it is public, or where the channel may be private; what is no
picture is not shown as one. Source: tasks-and-accounts 1.14, trap T-04.
"""

from __future__ import annotations

import asyncio
from typing import Final

from newapi_proxy.config.model import Fetch
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.ports import Fetched
from newapi_proxy.store import tasks
from newapi_proxy.web.account_routes import Pace
from newapi_proxy.web.app import Action, Call, Edge
from newapi_proxy.web.fetch import FetchError
from newapi_proxy.wire import tree

MOST: Final = 32 << 20  # bytes of a picture or a film
SECONDS: Final = 60.0
AT_ONCE: Final = 4  # so many in memory
LONGEST_ID: Final = 191
_DRAWN: Final = ("image/svg", "image/xml")  # pictures that may hold scripts
_GUARDS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; sandbox"),
)


def images() -> Action:
    """The route's action."""
    pace, turns = Pace(), asyncio.Semaphore(AT_ONCE)

    async def image(edge: Edge, call: Call) -> None:
        house, reply = edge.house, call.arrival.reply
        error: ProxyError | None = None
        try:
            pace.count(call.visit.client_ip, house.clock.monotonic())
            async with turns:
                found = await _fetched(edge, call.tail)
            reply.whole(200, _headers(found), found.data)
        except ProxyError as refused:
            error = refused
            reply.whole(error.status, (), tree.encode({"error": error.message}))
        edge.note(call.visit, error)

    return image


async def _fetched(edge: Edge, id: str) -> Fetched:
    """The picture. Raises ProxyError with what the body's `error` says."""
    house = edge.house
    job = await house.db.read(lambda conn: tasks.anybody(conn, "midjourneys", id)) if len(id) <= LONGEST_ID else None
    if job is None:
        raise ClientError("midjourney_task_not_found", code="midjourney_task_not_found")
    if house.fetcher is None or not job.task.image_url:
        raise OurError("http_get_image_failed", code="http_get_image_failed")
    snapshot = house.snapshot
    every = (one for one in (*snapshot.channels, *snapshot.parked) if one.id == job.task.channel_id)
    channel = next(every, None)
    work = channel.adapter.tasks if channel is not None else None
    private = channel is not None and work is not None and work.terms(channel.options).private_images
    try:
        limits = Fetch(enabled=True, max_size=MOST, timeout=SECONDS, allow_private=private)
        return await house.fetcher.fetch(job.task.image_url, "the picture", limits)
    except FetchError as error:
        if error.blocked:
            raise ClientError(f"request blocked: {error.message}", status=403, code="request_blocked") from None
        if error.answered:
            status = error.answered if 400 <= error.answered < 600 else 502
            raise OurError(error.message, status=status, code="bad_response_status_code") from None
        raise OurError("http_get_image_failed", code="http_get_image_failed") from None


def _headers(found: Fetched) -> list[tuple[str, str]]:
    kind = found.media_type or "image/jpeg"
    if kind.startswith(("image/", "video/")) and not kind.startswith(_DRAWN):
        return [("Content-Type", kind), *_GUARDS]
    return [("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment"), *_GUARDS]
