"""Money around one request: held on entering, settled once, given back where neither happened.

Waiting may be cancelled, the writes may not: they are in the writer's queue from the moment they are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, TypeVar

import msgspec

from newapi_proxy import log, metrics
from newapi_proxy.billing import budgets, count, ledger, policy
from newapi_proxy.billing.charge import Charge, charge
from newapi_proxy.billing.extending import More, extend
from newapi_proxy.billing.prices import Price
from newapi_proxy.errors import ClientError, OurError, ProxyError
from newapi_proxy.ir.usage import Usage, clamped
from newapi_proxy.relay.attempt import Served
from newapi_proxy.relay.house import Given
from newapi_proxy.relay.record import line
from newapi_proxy.store.db import Database

T = TypeVar("T")
_ENCODER: Final = msgspec.json.Encoder()  # writes the attempts' records as they are
LIGHT: Final = 32 * 1024  # bytes that may be tokenized on the loop once the tables are loaded


class Held:
    """A request's hold. `with` it `take` holds, `settle` settles, and leaving without that gives everything back.

    `tried` is the list that attempts are noted in: what was tried in vain is told with what was given back.
    """

    __slots__ = ("_db", "_hold", "_open", "_tried")

    def __init__(self, db: Database, hold: ledger.Hold, tried: Sequence[log.Attempt]) -> None:
        self._db = db
        self._hold = hold
        self._tried = tried
        self._open = False

    def __enter__(self) -> Held:
        return self

    async def take(self) -> None:
        """Holds. Raises ClientError where the money is not there, OurError where the ledger cannot be written."""
        asked = self._db.write(ledger.hold, self._hold)
        try:
            lack = await asked
        except asyncio.CancelledError:
            self._void("cancelled")  # the hold is in the queue, and what is queued after it finds it
            raise
        if lack is not None:
            raise _refusal(lack, self._hold)
        self._open = True

    async def extended(self, amount: int) -> ledger.Hold:
        """The hold, of so many units now. Raises ClientError where the money does not reach: then it is as it was."""
        lack = await self._db.write(extend, More(self._hold, amount - self._hold.amount))
        if lack is not None:
            raise _refusal(lack, self._hold)
        self._hold = msgspec.structs.replace(self._hold, amount=amount)
        return self._hold

    async def settle(self, settlement: ledger.Settlement, *, delivered: bool) -> int:
        """Settles; the units taken. Raises OurError when the ledger cannot be written at the moment.

        Where the answer was `delivered` already the charge stays due and is tried again until it is written;
        otherwise the client gets an error in its place, and leaving gives the money back.
        """
        self._open = False
        try:
            return await self._db.write(ledger.settle, settlement, must=delivered) or 0
        except OurError:
            self._open = not delivered
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            if isinstance(error, ProxyError):
                self._void(f"{error.status} {error.code}")
            else:
                self._void(kind.__name__ if kind else "not charged")

    def _void(self, reason: str) -> None:
        hold = self._hold
        void = ledger.Void(
            request_id=hold.request_id,
            account=hold.account,
            held=hold.amount,
            at=hold.at,
            reason=reason,
            windows=hold.windows,
            detail=_ENCODER.encode({"attempts": self._tried}) if self._tried else None,
        )
        self._db.write(ledger.void, void, must=True).add_done_callback(noted)


def noted(written: asyncio.Future[bool]) -> None:
    """For writes that nobody waits for; the writer keeps what must be written, and says by itself that it had to."""
    error = None if written.cancelled() else written.exception()
    if error is not None and not isinstance(error, OurError):
        metrics.bug()
        log.bug(error, where="unwaited write")


def _refusal(lack: ledger.Refusal, hold: ledger.Hold) -> ClientError:
    match lack:
        case "token":
            return ClientError(
                "This key's remaining quota is too small for the request.",
                status=403,
                kind="quota",
                code="pre_consume_token_quota_failed",
            )
        case "user":
            return ClientError(
                "The account's remaining quota is too small for the request.",
                status=403,
                kind="quota",
                code="insufficient_user_quota",
            )
        case "duplicate":
            return ClientError("A request with this id has been made already.", status=409, code="duplicate_request_id")
        case _:
            ends = next(one.ends for one in hold.windows if one.every == lack)
            return ClientError(
                f"This key's budget for the {lack} is too small for the request; "
                f"the next {lack} begins at {budgets.moment(ends)}.",
                status=403,
                kind="quota",
                code="pre_consume_token_quota_failed",
                retry_after=ends - hold.at,
            )


class Bill(msgspec.Struct, frozen=True):
    """What a request is billed for: the usage, the price that was found, and the sum with its steps."""

    usage: Usage
    line: dict[str, int | str]  # the usage as the log and the ledger's detail tell it
    price: Price
    charge: Charge


async def bill(given: Given, served: Served, end: policy.End, prices: Sequence[Price]) -> Bill | None:
    """What the end state costs by the policy table, of several prices by the one that makes it dearest; None: nothing,
    the hold is given back."""
    heard = served.heard
    usage = heard.usage
    if usage is not None and not policy.trusted(usage, given.ask):
        log.logger().warning("usage_odd", channel=served.prepared.candidate.channel.name, prompt=usage.prompt)
        usage = None
    delivered = heard.committed if served.pipe is not None else end == "ok"
    basis = policy.aborted(end, known=usage is not None, delivered=delivered)
    if basis == "nothing":
        return None
    if basis == "upstream" and usage is not None:
        usage = clamped(usage)
        if usage.source == "mixed":  # upstream told one side only (a prompt that it had in its cache, for one)
            usage = await _completed(given, served, usage, ended=end == "ok")
        # no tokenizer makes tokens of 16 bytes from real text: then upstream's last word is older than the delivery
        if end != "ok" and heard.tally.size > usage.completion * 16:
            usage = policy.topped(usage, await _delivered(served, ended=False))
    else:
        usage = await _counted(given, served, ended=end == "ok")
    if given.ask.pieces is not None and usage.pieces is None:
        usage = msgspec.structs.replace(usage, pieces=given.ask.pieces)
    calls = given.ask.calls if usage.calls is None else usage.calls
    find, said, ratio = given.snapshot.prices.find, line(usage), given.lane.ratio
    if len(prices) == 1:
        return Bill(usage, said, prices[0], charge(usage, prices[0], ratio, find, calls=calls))
    bills = [Bill(usage, said, one, charge(usage, one, ratio, find, calls=calls)) for one in prices]
    return max(bills, key=lambda one: one.charge.units)


async def _completed(given: Given, served: Served, usage: Usage, *, ended: bool) -> Usage:
    """The side that upstream left out counted here, so that it is not free."""
    if usage.prompt and usage.completion:
        return usage
    counted = await _counted(given, served, ended=ended)
    return msgspec.structs.replace(
        usage, prompt=usage.prompt or counted.prompt, completion=usage.completion or counted.completion
    )


async def _counted(given: Given, served: Served, *, ended: bool) -> Usage:
    """Usage counted here, because upstream gave none that can be believed: a chat as it was sent."""
    ask = served.prepared.ask if given.ask.kind == "chat" else given.ask  # of other kinds it may be a part only
    model, media = served.upstream_model, given.snapshot.config.media
    images = media.count_image_tokens and (ask.stream or media.count_image_tokens_not_stream)
    plain = _plain(served)
    prompt = await off_loop(ask.size, lambda: count.prompt(ask, model, count_images=images, plain=plain), model)
    return Usage(prompt=prompt, completion=await _delivered(served, ended=ended), source="counted")


async def _delivered(served: Served, *, ended: bool) -> int:
    """Tokens of what has come of the answer, counted here."""
    tally, model, plain = served.tally, served.upstream_model, _plain(served)
    ask = served.prepared.ask
    return await off_loop(tally.size, lambda: tally.tokens(model, plain=plain, ended=ended, ask=ask), model)


def _plain(served: Served) -> bool:
    return served.prepared.candidate.channel.adapter.bare_counts


async def off_loop(size: int, work: Callable[[], T], model: str = "") -> T:
    """Counts on the loop where that is quick, else in a thread: a model's first use loads its tables."""
    if size <= LIGHT and count.loaded(model):
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)
