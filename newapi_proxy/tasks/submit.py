"""One submission, told once: origin, price, hold, forward, record.

The hold is the reservation: until upstream has answered there is no task, and a process that dies here leaves a hold
that the next one gives back. Charge and row are one transaction. Source: tasks-and-accounts 1.7, 2.3, traps T-11, T-26.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.adapters._tasks import Tasks
from newapi_proxy.billing import ledger
from newapi_proxy.billing.charge import Charge, charge
from newapi_proxy.billing.prices import Price, PriceBook
from newapi_proxy.errors import ClientError, OurError, ProxyError, UpstreamFailure
from newapi_proxy.ir.task import SUCCESS, Form, Reason, Submitted, Task
from newapi_proxy.ir.usage import Usage
from newapi_proxy.snapshot import Snapshot, Token, matches
from newapi_proxy.store import logs, replies, tasks
from newapi_proxy.store.tasks import Job, Owner
from newapi_proxy.tasks import books, moves
from newapi_proxy.tasks.calls import Bounds, Desk, Errand, Place, call, marked
from newapi_proxy.wire import tree

ANSWER: Final = 4 << 20  # bytes of an answer to a submission
PIECES: Final = 200  # last tasks of a caller that are searched for a piece of a result
_ONE_CALL: Final = Usage(source="upstream")
_INPUT: Final = '{"input":""}'  # what New API keeps in the other table's properties


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A submission and who makes it. `at` unix seconds; `priced`: the name that may have a price of its own; `kept`:
    from status and reply to what is told again under the client's idempotency key, if it sent one; `errand`: by which
    the process can end it."""

    request_id: str
    work: Tasks
    form: Form
    token: Token
    snapshot: Snapshot
    at: int
    refusal: Callable[[Reason], ClientError]
    client_ip: str = ""
    priced: str = ""
    kept: Callable[[int, bytes], replies.Answer] | None = None
    errand: Errand | None = None


class Choice(Protocol):
    """Which channels may be tried, in which order, and who hears how it went."""

    async def first(self) -> Place | None:
        """The channel to begin with."""
        ...

    async def only(self, place: Place) -> Place:
        """The channel of a follow-up, where it has room. Raises ClientError."""
        ...

    async def after(self, place: Place, failure: UpstreamFailure) -> Place | None:
        """The next one, where the failure is worth another attempt."""
        ...

    def began(self, place: Place) -> None:
        """An attempt begins."""
        ...

    def ended(self, place: Place, status: int, failure: UpstreamFailure | None) -> None:
        """It ended, with upstream's status."""
        ...

    def exhausted(self, place: Place) -> None:
        """Upstream has no account left behind this key."""
        ...


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A submission that upstream has answered: the client's answer, and what it cost."""

    status: int
    reply: bytes
    place: Place
    units: int
    charge: Charge
    accepted: bool


def owner(token: Token) -> Owner:
    """Whose tasks a key may see: its user's; its own, where all keys of the file have the same user."""
    account = token.account
    return Owner(account.user_id, 0 if account.user_limited else account.token_id)


async def submit(desk: Desk, asked: Asked, choice: Choice) -> Done:
    """Forwards a submission and accounts for it. Raises ProxyError in the format's own words."""
    origin = await _origin(desk, asked)
    place = await (choice.first() if origin is None else choice.only(_pinned(asked, origin)))
    if place is None:
        raise _nobody(asked)
    price, due = _due(asked)
    hold = ledger.Hold(
        request_id=asked.request_id,
        account=asked.token.account,
        amount=due.units,
        at=asked.at,
        boot=desk.boot,
        model=asked.form.model,
        windows=asked.snapshot.windows(asked.token, asked.at) if asked.token.budgets else (),
    )
    await _held(desk, asked, hold)
    try:
        place, submitted = await _forward(desk, asked, choice, place, pinned=origin is not None)
        if submitted.repeated and origin is None:
            await _refuse_foreign(desk, asked, place, submitted)
    except ProxyError as error:
        await asyncio.wait([_void(desk, hold, type(error).__name__)])  # the client may come again at once
        raise
    except BaseException as error:
        _void(desk, hold, type(error).__name__)
        raise
    if submitted.exhausted:
        choice.exhausted(place)
    job = _job(asked, place, submitted, origin)
    charged = submitted.accepted and due.units > 0
    end = _settlement(asked, hold, place, job, price, due) if charged else _voided(hold, "not charged")
    if isinstance(end, ledger.Settlement) and asked.kept is not None:
        end = msgspec.structs.replace(end, answer=asked.kept(submitted.status, submitted.reply))
    units = await _written(desk, asked, books.Close(
        request_id=asked.request_id, end=end, job=job, platform=asked.work.platform
    ), accepted=submitted.accepted)  # fmt: skip
    _told(asked, place, submitted, job, units)
    return Done(
        status=submitted.status, reply=submitted.reply, place=place, units=units, charge=due,
        accepted=submitted.accepted,
    )  # fmt: skip


async def _origin(desk: Desk, asked: Asked) -> Job | None:
    """The task that is followed, None for what follows none. Raises ClientError for one that is not the caller's."""
    form, shelf, whose = asked.form, asked.work.shelf, owner(asked.token)
    if form.origin:
        found = await desk.db.read(lambda conn: tasks.own(conn, shelf, whose, [form.origin]))
    elif form.piece:
        latest = await desk.db.read(lambda conn: tasks.latest(conn, shelf, whose, PIECES))
        found = [job for job in latest if f'"{form.piece}"' in job.task.data]
    else:
        return None
    if not found:
        raise asked.refusal("no_origin")
    return next((job for job in reversed(found) if job.task.status == SUCCESS), found[-1])


def _pinned(asked: Asked, origin: Job) -> Place:
    """The origin's channel, which alone knows it. Raises ClientError, OurError where it may not be used."""
    snapshot, form, token, id = asked.snapshot, asked.form, asked.token, origin.task.channel_id
    channel = next((one for one in snapshot.channels if one.id == id and one.adapter.tasks is not None), None)
    if channel is None:
        raise asked.refusal("disabled_channel" if any(one.id == id for one in snapshot.parked) else "no_channel")
    if not form.early and asked.work.terms(channel.options).origin_done and origin.task.status != SUCCESS:
        raise asked.refusal("unfinished_origin")
    if not any(one.id == id for tier in snapshot.tiers(token.group, form.model) for one in tier):
        raise _nobody(asked)
    return marked(channel, origin.key)


def _nobody(asked: Asked) -> OurError:
    return OurError(
        f"No channel serves the model {asked.form.model} for group {asked.token.group}.",
        status=503,
        code="model_not_found",
    )


def _due(asked: Asked) -> tuple[Price, Charge]:
    """What the submission costs. Raises ClientError where it has no price per call (decision 16)."""
    prices, form = asked.snapshot.prices, asked.form
    price = _of_mode(prices, asked.priced, form.model) or prices.find(form.model)
    if price is None or price.call is None:
        raise ClientError(
            f"The model {form.model} has no price per call, so it cannot be used.",
            code="model_price_missing",
            param="model",
        )
    due = charge(_ONE_CALL, price, asked.snapshot.group_ratio(asked.token.group, form.model))
    return price, msgspec.structs.replace(due, units=0) if form.opens else due


def _of_mode(prices: PriceBook, name: str, model: str) -> Price | None:
    """The price that was made for the client's mode; one that fits any mode is not."""
    found = prices.find(name) if name else None
    return None if found is None or matches(found.key, model) else found


async def _held(desk: Desk, asked: Asked, hold: ledger.Hold) -> None:
    asking = desk.db.write(ledger.hold, hold)
    try:
        lack = await asking
    except asyncio.CancelledError:
        _void(desk, hold, "cancelled")  # what is queued after the hold finds it
        raise
    match lack:
        case None:
            return
        case "duplicate":
            raise ClientError("A request with this id has been made already.", status=409, code="duplicate_request_id")
        case _:  # a balance, or a budget's window
            raise asked.refusal("quota")


async def _forward(desk: Desk, asked: Asked, choice: Choice, place: Place, *, pinned: bool) -> tuple[Place, Submitted]:
    """Tries channels until one answers; a follow-up has one only. Raises UpstreamFailure in the format's words."""
    work, form, connect = asked.work, asked.form, asked.snapshot.config.relay.connect_timeout
    while True:
        choice.began(place)
        status = 0
        try:
            outgoing = work.submit(form, place.target(form.model, asked.at))
            status, body = await call(
                desk.client, place, outgoing, Bounds(work.patience, ANSWER, connect, asked.errand)
            )
            submitted = work.submitted(form, status, body)
        except UpstreamFailure as failure:
            choice.ended(place, status, failure)
            elsewhere = await choice.after(place, failure) if work.again and not pinned else None
            if elsewhere is None:
                raise _spoken(asked, failure) from failure
            place = elsewhere
            continue
        choice.ended(place, status, None)
        return place, submitted


def _spoken(asked: Asked, failure: UpstreamFailure) -> UpstreamFailure:
    """A failure of the network in the format's words; what upstream answered is in them already."""
    if failure.upstream_status:
        return failure
    words = asked.refusal("unreachable")
    return UpstreamFailure(
        words.message, status=words.status, kind=failure.kind, type=words.type, code=words.code, blames=failure.blames
    )


async def _refuse_foreign(desk: Desk, asked: Asked, place: Place, submitted: Submitted) -> None:
    """What upstream had already may be somebody else's: its id must not become the caller's key to it (T-14)."""
    shelf, id, whose = asked.work.shelf, place.channel.id, owner(asked.token)
    if await desk.db.read(lambda conn: tasks.foreign(conn, shelf, id, submitted.task_id, whose)):
        raise asked.refusal("no_origin")


def _job(asked: Asked, place: Place, submitted: Submitted, origin: Job | None) -> Job:
    form, account, now = asked.form, asked.token.account, asked.at * asked.work.ticks
    task = Task(
        task_id=submitted.task_id,
        user_id=account.user_id,
        channel_id=place.channel.id,
        group=asked.token.group,
        action=form.action,
        submit_time=now,
        prompt=form.prompt or (origin.task.prompt if origin is not None else ""),
        description=submitted.description,
        state=form.state,
        properties=_INPUT if asked.work.shelf == "tasks" else "",
    )
    return Job(
        request_id=asked.request_id,
        shelf=asked.work.shelf,
        token_id=account.token_id,
        mode=form.mode,
        key=place.mark,
        created_at=asked.at,
        task=moves.move(task, submitted.first, now) or task,
    )


def _settlement(
    asked: Asked, hold: ledger.Hold, place: Place, job: Job, price: Price, due: Charge
) -> ledger.Settlement:
    form, token, channel = asked.form, asked.token, place.channel
    ratio, usd = asked.snapshot.group_ratio(token.group, form.model), Decimal(price.usd.get("call", "0"))
    detail = {
        "model": form.model,
        "channel": channel.name,
        "task": job.task.task_id,
        "action": form.action,
        "price": {"name": price.key, "source": price.source, **price.usd},
        "group": token.group,
        "group_ratio": str(ratio),
        "steps": due.steps,
        "units": due.units,
        "usd": due.usd,
    }
    return ledger.Settlement(
        request_id=hold.request_id,
        account=hold.account,
        held=hold.amount,
        charge=due.units,
        at=asked.at,
        channel_id=channel.id,
        detail=tree.encode(detail),
        price_version=due.price_version,
        windows=hold.windows,
        entry=logs.Entry(
            user_id=hold.account.user_id,
            created_at=asked.at,
            content=f"model price {usd:.2f}, group ratio {ratio:.2f}, action {form.action}, ID {job.task.task_id}",
            token_name=token.name,
            model_name=form.model,
            quota=due.units,
            channel_id=channel.id,
            channel_name=channel.name,
            token_id=hold.account.token_id,
            group=token.group,
            ip=asked.client_ip,
            request_id=asked.request_id,
            other=tree.dumps({"model_price": float(usd), "group_ratio": float(ratio)}),
        ),
    )


def _voided(hold: ledger.Hold, reason: str) -> ledger.Void:
    return ledger.Void(hold.request_id, hold.account, hold.amount, hold.at, reason, hold.windows)


def _void(desk: Desk, hold: ledger.Hold, reason: str) -> asyncio.Future[bool]:
    """Gives the hold back, now or as soon as the ledger can be written; what comes of it is noted."""
    written = desk.db.write(ledger.void, _voided(hold, reason), must=True)
    written.add_done_callback(_noted)
    return written


def _noted(written: asyncio.Future[bool]) -> None:
    error = None if written.cancelled() else written.exception()
    if error is not None and not isinstance(error, OurError):
        metrics.bug()
        log.bug(error, where="task void")


async def _written(desk: Desk, asked: Asked, end: books.Close, *, accepted: bool) -> int:
    """Writes the end; the units taken. What upstream has accepted stays due until it is written."""
    try:
        return await desk.db.write(books.close, end, must=True) or 0
    except OurError as error:
        if not accepted:
            return 0
        log.logger().error("settle_failed", request_id=asked.request_id, reason=error.message)
        return end.end.charge if isinstance(end.end, ledger.Settlement) else 0


def _told(asked: Asked, place: Place, submitted: Submitted, job: Job, units: int) -> None:
    metrics.tasks(place.channel.name, "submitted" if submitted.accepted else "refused")
    log.logger().info(
        "task_submitted",
        request_id=asked.request_id,
        task=job.task.task_id,
        action=job.task.action,
        channel=place.channel.name,
        accepted=submitted.accepted,
        quota=units,
    )
