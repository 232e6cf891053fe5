"""Routes of tasks: submissions, and what became of them, in the formats of Midjourney-Proxy and the Suno API.

Loaded by the first request to one of them, where the configuration has channels for it. Knows paths, keys and error
bodies; what a submission is stands in the surfaces, what is done with it in `tasks`. Sources: tasks-and-accounts
1.1, 1.13, 2.1, 2.4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy import metrics
from newapi_proxy.adapters._tasks import Tasks
from newapi_proxy.errors import ClientError, OurError, ProxyError, UpstreamFailure
from newapi_proxy.ir.task import SUCCESS, Form, Reason, Shelf
from newapi_proxy.relay.limits import refused
from newapi_proxy.relay.once import Told, turn
from newapi_proxy.relay.record import Record, Visit
from newapi_proxy.snapshot import Channel, Snapshot, Token
from newapi_proxy.store import tasks
from newapi_proxy.store.replies import Answer
from newapi_proxy.store.windows import Full
from newapi_proxy.surfaces import midjourney, suno
from newapi_proxy.surfaces.base import PATH
from newapi_proxy.tasks.calls import Bounds, Desk, Errand, call, marked
from newapi_proxy.tasks.submit import Asked, owner, submit
from newapi_proxy.web import body, browser, keys
from newapi_proxy.web.app import Action, Call, Edge, Failure, wait
from newapi_proxy.web.relay_routes import ONCE, received
from newapi_proxy.web.router import Route
from newapi_proxy.web.task_choice import Planned, serving
from newapi_proxy.web.task_images import images
from newapi_proxy.wire import tree

SEED_SECONDS: Final = 30.0
SEED_ANSWER: Final = 64 * 1024
_MODED: Final = "/{mode}"
_PREFIXES: Final = ("/mj", f"{_MODED}/mj")
_SUBJECT: Final = {"token": "This key", "group": "This key's group"}
_DISTRIBUTION: Final = frozenset({"access_denied", "model_not_found", "channels_resting", "rate_limit_exceeded"})
"""Refusals that New API's middleware makes before it knows the format: they come in OpenAI's envelope."""


class Guest(msgspec.Struct, frozen=True):
    """A caller who may come in, and what is noted of the request."""

    edge: Edge
    call: Call
    visit: Visit
    token: Token
    snapshot: Snapshot
    share: body.Share
    record: Record

    @property
    def desk(self) -> Desk:
        """What submissions and look-ups need of the house."""
        house = self.edge.house
        return Desk(house.db, house.client, house.clock, house.boot)

    def answer(self, status: int, data: bytes) -> None:
        """A whole answer."""
        self.record.status = status
        self.call.arrival.reply.whole(status, (), data)


Serve = Callable[[Guest], Awaitable[None]]
Kept = Callable[[int, bytes], Answer]


def routes(openai: Failure) -> list[Route[Action]]:
    """Every route of tasks, Midjourney's under any mode as well. Given: the error bodies of OpenAI's clients."""
    drawing = _guarded(_draw, midjourney.failure, openai)
    found: dict[str, tuple[str, Action]] = {path: ("POST", drawing) for path in midjourney.SUBMISSIONS}
    for path, method, serve in (
        ("/task/{id}/fetch", "GET", _drawn),
        ("/task/list-by-condition", "POST", _all_drawn),
        ("/task/{id}/image-seed", "GET", _seed),
    ):
        found[path] = method, _guarded(serve, midjourney.failure, openai, reads=True)
    found["/image/{id}"] = "GET", images()
    return [
        *(Route(f"{prefix}{path}", {method: one}) for path, (method, one) in found.items() for prefix in _PREFIXES),
        Route("/suno/submit/{action}", {"POST": _guarded(_sing, suno.failure, openai)}),
        Route("/suno/fetch", {"POST": _guarded(_all_sung, suno.failure, openai, reads=True)}),
        Route("/suno/fetch/{id}", {"GET": _guarded(_sung, suno.failure, openai, reads=True)}),
    ]


def _guarded(serve: Serve, failure: Failure, openai: Failure, *, reads: bool = False) -> Action:
    """The route's action: the key first, then what is served, refusals in the format's own shape.

    `reads`: selects no channel and costs nothing, so a key without money may, and its list of models says nothing.
    """

    async def action(edge: Edge, call: Call) -> None:
        house, visit, voice = edge.house, call.visit, openai
        snapshot = house.snapshot  # one for the whole request
        share = body.Share(edge.budget, snapshot.config.relay.max_body)
        record = Record(visit, house.clock)
        metrics.inflight(1)
        try:
            token = edge.caller(call, snapshot)
            visit = call.by(token, snapshot)
            record = Record(visit, house.clock)
            keys.admit(token, visit.client_ip, house.clock.wall(), drained=reads)
            voice = failure
            await serve(Guest(edge, call, visit, token, snapshot, share, record))
        except ProxyError as error:
            _tell(call, visit, record, error, openai if error.code in _DISTRIBUTION else voice)
        except ConnectionError:
            record.end, record.status = "client_gone", 499
        except Exception as error:
            record.broke()
            edge.failed(call, error, voice)
        finally:
            share.hold(0)
            metrics.inflight(-1)
            record.finish()

    return action


def _tell(call: Call, visit: Visit, record: Record, error: ProxyError, voice: Failure) -> None:
    record.failed(error, error.status)
    call.arrival.reply.whole(error.status, wait(error), voice(error, visit.request_id))


async def _draw(guest: Guest) -> None:
    route = guest.visit.route
    mode = guest.call.tail if route.startswith(_MODED) else ""
    if mode and not midjourney.MODE.fullmatch(mode):
        raise ClientError(
            "Invalid URL", status=404, kind="not_found", type="invalid_request_error", code="unknown_path"
        )
    data = await _body(guest)
    form = midjourney.read(route.removeprefix(_MODED).removeprefix("/mj"), data, mode)
    priced = midjourney.priced(form)
    await _once(guest, data, lambda kept: _submit(guest, form, midjourney.PLATFORM, midjourney.refusal, priced, kept))


async def _sing(guest: Guest) -> None:
    data = await _body(guest)
    form = suno.read(guest.call.tail, data)
    await _once(guest, data, lambda kept: _submit(guest, form, suno.PLATFORM, suno.refusal, "", kept))


async def _body(guest: Guest) -> bytes:
    return await received(guest.call, guest.share)


async def _once(guest: Guest, data: bytes, work: Callable[[Kept | None], Awaitable[None]]) -> None:
    """Does the work, or tells again what a submission under the same idempotency key was answered."""
    headers = guest.call.arrival.headers
    if ONCE not in headers or not guest.snapshot.config.idempotency.enabled:
        await work(None)
        return
    reply = guest.call.arrival.reply
    tail = {name.lower(): value for name, value in headers.items()} | {PATH: guest.call.tail}
    async with turn(guest.edge.house, guest.visit, data, tail, reply) as mine:
        if isinstance(mine, Told):
            mine.tell(guest.record, reply)
            return
        at = guest.record.now()
        await work(lambda status, answer: mine.answer((), answer, at, status=status))


async def _submit(
    guest: Guest,
    form: Form,
    platform: str,
    refusal: Callable[[Reason], ClientError],
    priced: str,
    kept: Kept | None,
) -> None:
    token, snapshot, record, house = guest.token, guest.snapshot, guest.record, guest.edge.house
    record.model = form.model
    if not token.may_use(form.model):
        raise ClientError(
            f"This key may not use the model {form.model}.", status=403, kind="permission", code="access_denied"
        )
    work = _work(snapshot, platform)
    if work is None:
        raise OurError("No channel serves this interface.", status=503, code="model_not_found")
    taken = await house.windows.take(token.ceilings) if token.ceilings else None
    if isinstance(taken, Full):
        raise refused([taken], _SUBJECT[taken.ceiling.scope])
    errand = Errand()
    choice = Planned(house, guest.visit, record, serving(snapshot, token, form.model, platform))
    asked = Asked(
        request_id=guest.visit.request_id,
        work=work,
        form=form,
        token=token,
        snapshot=snapshot,
        at=record.now(),
        refusal=refusal,
        client_ip=guest.visit.client_ip,
        priced=priced,
        kept=kept,
        errand=errand,
    )
    house.watches.add(errand)  # its client may go: a stop waits for it all the same
    try:
        done = await submit(guest.desk, asked, choice)
    finally:
        house.watches.discard(errand)
        choice.close()
        if taken is not None:  # what nobody was asked for is not counted
            (house.windows.cancel if choice.spared else house.windows.release)(taken)
    record.served(done.place.channel, form.model)
    record.quota, record.price_version = done.units, done.charge.price_version
    guest.answer(done.status, done.reply)


def _work(snapshot: Snapshot, platform: str) -> Tasks | None:
    every = (channel.adapter.tasks for channel in (*snapshot.channels, *snapshot.parked))
    return next((work for work in every if work is not None and work.platform == platform), None)


async def _drawn(guest: Guest) -> None:
    job = await _own(guest, "midjourneys", midjourney.refusal)
    guest.answer(200, tree.encode(_picture(guest, job)))


async def _all_drawn(guest: Guest) -> None:
    jobs = await _owned(guest, "midjourneys", midjourney.ids(await _body(guest)))
    guest.answer(200, tree.encode([_picture(guest, job) for job in jobs]))


async def _sung(guest: Guest) -> None:
    job = await _own(guest, "tasks", suno.refusal)
    guest.answer(200, suno.envelope(suno.task(job.task)))


async def _all_sung(guest: Guest) -> None:
    jobs = await _owned(guest, "tasks", suno.ids(await _body(guest)))
    guest.answer(200, suno.envelope([suno.task(job.task) for job in jobs]))


async def _owned(guest: Guest, shelf: Shelf, ids: list[str]) -> list[tasks.Job]:
    whose = owner(guest.token)
    return await guest.edge.house.db.read(lambda conn: tasks.own(conn, shelf, whose, ids)) if ids else []


async def _own(guest: Guest, shelf: Shelf, refusal: Callable[[Reason], ClientError]) -> tasks.Job:
    """The caller's task of the id in the path: of several with one id that which is furthest. Raises ClientError."""
    jobs = await _owned(guest, shelf, [guest.call.tail])
    if not jobs:
        raise refusal("no_task")
    return next((job for job in reversed(jobs) if job.task.status == SUCCESS), jobs[-1])


def _picture(guest: Guest, job: tasks.Job) -> dict[str, Any]:
    """A task with the address at which its picture is to be had."""
    snapshot, task = guest.snapshot, job.task
    channel = _channel(snapshot, task.channel_id)
    forwards = (
        channel is None or channel.adapter.tasks is None or channel.adapter.tasks.terms(channel.options).forward_images
    )
    link = f"{_address(guest)}/mj/image/{quote(task.task_id, safe='')}" if forwards else ""
    return midjourney.task(task, link, int(guest.edge.house.clock.wall() * 1e9))


def _channel(snapshot: Snapshot, id: int) -> Channel | None:
    return next((one for one in (*snapshot.channels, *snapshot.parked) if one.id == id), None)


def _address(guest: Guest) -> str:
    """Our own address: as configured, else as this client wrote it, who alone reads the answer."""
    return browser.address(guest.snapshot.config, guest.call.arrival)


async def _seed(guest: Guest) -> None:
    """The seed of a finished picture, from the channel that made it; costs nothing and leaves no trace."""
    job = await _own(guest, "midjourneys", midjourney.refusal)
    channel = next((one for one in guest.snapshot.channels if one.id == job.task.channel_id), None)
    work = channel.adapter.tasks if channel is not None else None
    if channel is None or work is None or work.seed is None:
        known = _channel(guest.snapshot, job.task.channel_id)
        raise midjourney.refusal("no_channel" if known is None else "disabled_channel")
    place = marked(channel, job.key)
    outgoing = work.seed(job.task.task_id, place.target("", guest.record.now()))
    connect = guest.snapshot.config.relay.connect_timeout
    try:
        bounds = Bounds(SEED_SECONDS, SEED_ANSWER, connect)
        status, data = await call(guest.desk.client, place, outgoing, bounds)
    except UpstreamFailure:
        raise midjourney.refusal("unreachable") from None
    guest.answer(status if 200 <= status < 300 else 502, midjourney.seed(data))
