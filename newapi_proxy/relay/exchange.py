"""One request, told once: read, plan, hold, attempt, settle, answer.

Money is held before the first upstream byte and settled before the client's last (decisions 6 to 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, assert_never

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.billing import count, ledger, policy
from newapi_proxy.billing.charge import hold_amount
from newapi_proxy.billing.pieces import priced
from newapi_proxy.billing.prices import Price
from newapi_proxy.billing.sound import measured
from newapi_proxy.errors import ClientError, OurError, ProxyError, internal
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.ports import Sink
from newapi_proxy.relay import candidates, entry
from newapi_proxy.relay.attempt import Served
from newapi_proxy.relay.attempts import Attempts, Cut, Left, Outcome
from newapi_proxy.relay.depth import too_deep
from newapi_proxy.relay.house import Given, House
from newapi_proxy.relay.plan import Plan
from newapi_proxy.relay.pump import Departed
from newapi_proxy.relay.record import Record, Visit
from newapi_proxy.relay.settle import Bill, Held, bill, off_loop
from newapi_proxy.snapshot import Tiers
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.endpoint import asked
from newapi_proxy.wire import tree
from newapi_proxy.wire.multipart import Form

GONE: Final = 499  # the log's status for a client that left before any answer
PATIENCE: Final = 60.0  # seconds that the SDKs wait at most; told to wait longer they would come back too early


async def chat(
    house: House, visit: Visit, surface: Surface, body: bytes | Form, headers: Mapping[str, str], sink: Sink
) -> None:
    """Answers one request, of whatever kind, through the sink and accounts for it; never raises a ProxyError.

    `visit.token` is the caller's key; header names are lower case.
    """
    record = Record(visit, house.clock)
    attempts: Attempts | None = None
    try:
        snapshot = visit.snapshot or house.snapshot
        ask = surface.read(body, headers) if type(body) is bytes else asked(surface, body, headers)
        if ask.unnamed:
            ask = _named(ask, snapshot.config.relay.responses_model)
        record.asked(ask)
        if ask.kind == "transcription":
            ask = await off_loop(ask.form.size if ask.form is not None else 0, partial(measured, ask))
        assert visit.token is not None
        free = ask.count_only or ask.pieces is not None
        given = Given(
            visit=visit,
            token=visit.token,
            surface=surface,
            ask=ask,
            snapshot=snapshot,
            at=record.now(),
            lane=snapshot.lane(visit.token.group, ask.model, ask.dialect, ask.kind, free=free),
        )
        attempts = Attempts(house, given, sink, record)
        if ask.count_only:
            await _count(house, given, sink, record, attempts)
        else:
            await _answer(house, given, sink, record, attempts)
    except ProxyError as error:
        if attempts is not None:
            attempts.stay.refused()
        tell(visit, surface, sink, error, record, attempts)
    except Departed:
        record.end, record.status = "client_gone", GONE
    except BaseException as error:
        record.broke()
        if attempts is not None and sink.started and isinstance(error, Exception):
            _broken(sink, attempts)
        raise
    finally:
        if attempts is not None:
            attempts.close()
        record.finish()


def _broken(sink: Sink, attempts: Attempts) -> None:
    """Tells of a bug inside a stream, where that can still be said; otherwise the stream just breaks off."""
    with suppress(Exception):  # the first one is on its way up
        if told := attempts.fail(internal()):
            sink.end(told)


def _named(ask: Ask, model: str | None) -> Ask:
    """The ask under the configured name. Raises ClientError where there is none."""
    if model is None:
        message = "model is required: without one there is nothing to charge by (relay.responses_model is not set)"
        raise ClientError(message, code="invalid_text_request", param="model")
    return msgspec.structs.replace(ask, model=model)


def reject(house: House, visit: Visit, surface: Surface, sink: Sink, error: ProxyError) -> None:
    """Refuses a request that never became an exchange (no key, too large a body), with its log line."""
    record = Record(visit, house.clock)
    tell(visit, surface, sink, error, record, None)
    record.finish()


async def _answer(house: House, given: Given, sink: Sink, record: Record, attempts: Attempts) -> None:
    plan = planned(house, given)
    hold = holding(house, given, _amount(given))
    if given.token.ceilings:
        await attempts.stay.enter()
    with Held(house.db, hold, record.attempts) as held:
        await held.take()
        outcome: Outcome = await candidates.first(house, given, plan, attempts)
        end, served = _ended(outcome)
        billed = last = None
        if served is not None:
            record.served(served.prepared.candidate.channel, served.upstream_model)
            billed = await _bill(given, served, end)
        if served is not None and billed is not None:
            attempts.stay.used(billed.usage)
            due = entry.settlement(given, hold, served, billed, record)
            if served.pipe is None or given.visit.keeping is not None:  # what cannot be told is not charged
                last = _last(given, attempts, outcome, billed.usage)
            if last is not None and given.visit.keeping is not None:
                mute = isinstance(outcome, Cut) and not last[1]
                due = msgspec.structs.replace(due, answer=given.visit.keeping.answer(*last, due.at, mute=mute))
            taken = await held.settle(due, delivered=served.pipe is not None)
            record.billed(billed.usage, billed.line, taken, billed.charge.price_version)
            if taken < billed.charge.units:
                tell_short(given, taken, billed.charge.units)
    match outcome:
        case Served():
            usage = record.usage if record.usage is not NOTHING else (outcome.heard.usage or NOTHING)
            _deliver(sink, record, outcome, *(last or _last(given, attempts, outcome, usage)))
            if given.visit.keeping is not None and given.visit.keeping.left:
                record.end = "client_gone"
        case Cut(failure=failure):
            record.failed(failure, record.status)
            tail = (last or _last(given, attempts, outcome, NOTHING))[1]
            if tail or not given.ask.handed:  # in a sound nothing can be said: it breaks off, and must look like that
                sink.end(tail)
        case Left():
            record.end = "client_gone"
            record.status = 200 if sink.started else GONE
        case _:
            assert_never(outcome)


async def _count(house: House, given: Given, sink: Sink, record: Record, attempts: Attempts) -> None:
    """Token counting: by the provider where it can, else here; costs nothing."""
    plan = planned(house, given)
    if given.token.ceilings:
        await attempts.stay.enter()
    with Held(house.db, holding(house, given, 0), record.attempts) as held:
        await held.take()
        tokens = await attempts.count(plan)
    headers = []
    if tokens is None:
        tokens = await off_loop(given.ask.size, lambda: count.prompt(given.ask), given.ask.model)
        headers.append(("x-token-count", "estimated"))
    sink.whole(200, headers, given.surface.count(tokens))


def planned(house: House, given: Given) -> Plan:
    """The request's way through its channels. Raises ClientError and OurError where there can be none."""
    ask, token = given.ask, given.token
    if token.models and not token.may_use(ask.model):
        raise ClientError(
            f"This key may not use the model {ask.model}.", status=403, kind="permission", code="access_denied"
        )
    serving = given.lane.tiers if ask.pieces is None else _selling(given)
    if not any(serving):
        raise _unserved(given)
    return Plan(serving, house.turns, house.health.usable)


def _selling(given: Given) -> Tiers:
    """The tiers with the channels that have a price for the pieces that are asked for."""
    find, model = _finder(given), given.ask.model
    return tuple(tuple(one for one in tier if find(one.upstream_model(model)) is not None) for tier in given.lane.tiers)


def _unserved(given: Given) -> ProxyError:
    """Why no channel can be asked."""
    ask, group = given.ask, given.token.group
    if not given.snapshot.tiers(group, ask.model):
        return OurError(
            f"No channel serves the model {ask.model} for group {group}.", status=503, code="model_not_found"
        )
    prices_of(given)  # a price that is missing is the plainer word
    return ClientError(
        f"No channel of the model {ask.model} has an endpoint for {ask.kind}.",
        code="unsupported_endpoint",
        param="model",
    )


def _amount(given: Given) -> int:
    """Units to hold: the most that one of its channels may cost."""
    ask, ratio, prices = given.ask, given.lane.ratio, prices_of(given)
    if len(prices) == 1:
        (price,) = prices
        return hold_amount(ask, price, ratio, calls=ask.calls)
    return max([hold_amount(ask, price, ratio, calls=ask.calls) for price in prices])


def prices_of(given: Given) -> Collection[Price]:
    """What the request may cost, by the channel that serves it: the requested name's price, else the mapped one's.

    Raises ClientError where no channel's name has one (decision 16).
    """
    ask, group = given.ask, given.token.group
    if ask.pieces is None:
        prices: Collection[Price] = given.lane.prices
    else:
        find = _finder(given)
        channels = (channel for tier in given.snapshot.tiers(group, ask.model) for channel in tier)
        found = (find(channel.upstream_model(ask.model)) for channel in channels)
        prices = {one.name: one for one in found if one is not None}.values()
    if not prices:
        raise _unpriced(ask.model)
    return prices


def _finder(given: Given) -> Callable[[str], Price | None]:
    """Finds the price of this request for pieces by the name that upstream knows."""
    prices, model, pieces = given.snapshot.prices, given.ask.model, given.ask.pieces
    assert pieces is not None

    def sold(mapped: str) -> Price | None:
        price = prices.sold(model, mapped)
        return price if price is not None and priced(pieces, price) else None

    return sold


def _unpriced(model: str) -> ClientError:
    return ClientError(
        f"The model {model} has no price, so it cannot be used.", code="model_price_missing", param="model"
    )


def holding(house: House, given: Given, amount: int) -> ledger.Hold:
    """The hold of that amount for the request."""
    return ledger.Hold(
        request_id=given.visit.request_id,
        account=given.token.account,
        amount=amount,
        at=given.at,
        boot=house.boot,
        model=given.ask.model,
        windows=given.snapshot.windows(given.token, given.at) if given.token.budgets else (),
    )


def _ended(outcome: Outcome) -> tuple[policy.End, Served | None]:
    match outcome:
        case Served():
            return "ok", outcome
        case Cut(served=served, failure=failure):
            return "timeout" if failure.kind == "timeout" else "upstream_error", served
        case Left(served=served):
            return "client_gone", served
        case _:
            assert_never(outcome)


async def _bill(given: Given, served: Served, end: policy.End) -> Bill | None:
    for _ in range(served.heard.skipped):
        metrics.skipped_frame()
    ask, find, mapped = given.ask, given.snapshot.prices.find, served.prepared.upstream_model
    price = find(ask.model, mapped) if ask.pieces is None else _finder(given)(mapped)
    if ask.unnamed:  # the model may be a dearer one than was held for, and none is served for less than its price
        prices = [one for one in (price, find(served.upstream_model)) if one is not None]
    else:
        prices = [] if price is None else [price]
    if not prices:
        raise _unpriced(ask.model)
    return await bill(given, served, end, prices)


def tell_short(given: Given, taken: int, units: int) -> None:
    """The answer cost more than was held, and the balance did not reach."""
    log.logger().warning("settle_short", request_id=given.id, token=given.token.name, taken=taken, charge=units)


def _last(given: Given, attempts: Attempts, outcome: Outcome, usage: Usage) -> tuple[list[tuple[str, str]], bytes]:
    """The client's last bytes: the stream's tail, or the whole answer with its headers."""
    match outcome:
        case Served(pipe=pipe) if pipe is not None:
            try:
                return [], pipe.close(usage)
            except tree.TooDeep:
                raise too_deep() from None
        case Served(prepared=prepared):
            surface, headers = given.surface, attempts.dropped()
            if given.ask.answer_type:
                headers.append(("content-type", given.ask.answer_type))
            try:
                if prepared.dialect.dialect == surface.dialect:
                    return headers, surface.same(given.ask, prepared.face, outcome.body, usage)
                return headers, surface.answer(given.ask, prepared.face, outcome.events, usage)
            except tree.TooDeep:
                raise too_deep() from None
        case Cut(failure=failure):
            return [], attempts.fail(failure)
        case Left():
            return [], b""
        case _:
            assert_never(outcome)


def _deliver(sink: Sink, record: Record, served: Served, headers: list[tuple[str, str]], last: bytes) -> None:
    if served.pipe is not None:
        sink.end(last)
        return
    record.first_byte()
    sink.whole(200, headers, last)


def tell(
    visit: Visit, surface: Surface, sink: Sink, error: ProxyError, record: Record, attempts: Attempts | None
) -> None:
    """Tells the client of the error, and the record; `attempts` knows how, where a stream has begun."""
    status = surface.status(error)
    record.failed(error, status)
    if sink.started:
        sink.end(attempts.fail(error) if attempts is not None else b"")
        return
    headers: list[tuple[str, str]] = []
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    if error.kind == "rate_limit" and isinstance(error, ClientError):
        soon = error.retry_after is not None and error.retry_after <= PATIENCE
        headers.append(("x-should-retry", "true" if soon else "false"))
    elif (isinstance(error, ClientError) and _lasting(error)) or error.code == "model_not_found":
        headers.append(("x-should-retry", "false"))  # the SDKs would repeat what cannot change
    sink.whole(status, headers, surface.failure(error, visit.request_id))


def _lasting(error: ClientError) -> bool:
    """Whether the same request would be refused again soon; a budget comes back, but no SDK waits for that."""
    return error.retry_after is None or error.kind == "quota"
