"""What is written of a charge: the ledger's settlement with the detail that `explain` prints, and the usage log's row.

Source: relay-and-billing 5.13, interfaces §2 (`explain`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from newapi_proxy.billing import ledger
from newapi_proxy.billing.prices import Price
from newapi_proxy.relay.attempt import Served
from newapi_proxy.relay.house import Given
from newapi_proxy.relay.record import Record
from newapi_proxy.relay.settle import Bill
from newapi_proxy.store import logs
from newapi_proxy.wire import tree

_ENCODER: Final = msgspec.json.Encoder()  # writes the attempts' records as they are
MOST_SHARED: Final = 4096
_SHARED: Final[dict[tuple[str, str, str, str, Decimal], _Shared]] = {}


def settlement(given: Given, hold: ledger.Hold, served: Served, billed: Bill, record: Record) -> ledger.Settlement:
    """The settlement of a request that costs."""
    ask, token = given.ask, given.token
    channel = served.prepared.candidate.channel
    units = billed.charge.units
    shared = _shared(billed.price, given.lane.ratio)
    detail = {
        "model": ask.model,
        "upstream_model": served.upstream_model,
        "channel": channel.name,
        "usage": billed.line,
        "price": shared.price,
        "group": token.group,
        "group_ratio": shared.ratio,
        "steps": billed.charge.steps,
        "units": units,
        "usd": billed.charge.usd,
        "attempts": record.attempts,
    }
    first = -1000 if record.ttft is None else round(record.ttft * 1000)
    return ledger.Settlement(
        request_id=hold.request_id,
        account=hold.account,
        held=hold.amount,
        charge=units,
        at=record.now(),
        channel_id=channel.id,
        detail=_ENCODER.encode(detail),
        price_version=billed.charge.price_version,
        windows=hold.windows,
        entry=logs.Entry(
            user_id=hold.account.user_id,
            created_at=hold.at,
            content=shared.content,
            username=token.username,
            token_name=token.name,
            model_name=ask.model,
            quota=units,
            prompt_tokens=billed.usage.entered,
            completion_tokens=billed.usage.completion,
            use_time=record.seconds(),
            is_stream=record.stream,
            channel_id=channel.id,
            channel_name=channel.name,
            token_id=hold.account.token_id,
            group=token.group,
            ip=given.visit.client_ip,
            request_id=hold.request_id,
            other=f'{{{shared.facts},"frt":{first},"cache_tokens":{billed.usage.cache_read}}}',
        ),
    )


class _Shared(msgspec.Struct, frozen=True):
    """What all charges by one price at one ratio say: facts as JSON members, a sentence, the price as JSON, the ratio.

    Made once.
    """

    facts: str
    content: str
    price: msgspec.Raw
    ratio: str


def _shared(price: Price, ratio: Decimal) -> _Shared:
    key = (price.version_key, price.name, price.key, price.source, ratio)
    known = _SHARED.get(key)
    if known is None:
        if len(_SHARED) >= MOST_SHARED:
            _SHARED.clear()
        named = {"name": price.key, "source": price.source, **price.usd}
        known = _SHARED[key] = _Shared(*_written(price, ratio), msgspec.Raw(_ENCODER.encode(named)), str(ratio))
    return known


def _written(price: Price, ratio: Decimal) -> tuple[str, str]:
    """Ratios in New API's own terms: ratio 1 is 2 USD per million input tokens, model_price -1 where there is none."""
    usd = {name: float(value) for name, value in price.usd.items()}
    facts = {"model_ratio": 0.0, "group_ratio": float(ratio), "completion_ratio": 0.0, "model_price": -1.0}
    if price.call is not None:
        facts["model_price"] = usd.get("call", 0.0)
        return tree.dumps(facts)[1:-1], f"{price.usd.get('call', '0')} USD per call, group ratio {ratio}"
    if "input" not in usd:  # sold by the piece alone
        facts["model_price"] = usd.get("image", -1.0)
        return tree.dumps(facts)[1:-1], f"{_pieces(price)}, group ratio {ratio}"
    entry = usd.get("input", 0.0)
    facts["model_ratio"] = round(entry / 2, 6)
    if entry:
        facts["completion_ratio"] = round(usd.get("output", 0.0) / entry, 6)
        facts["cache_ratio"] = round(usd.get("cache_read", 0.0) / entry, 6)
    rates = f"{price.usd.get('input', '0')} / {price.usd.get('output', '0')}"
    return tree.dumps(facts)[1:-1], f"{rates} USD per million tokens, group ratio {ratio}"


def _pieces(price: Price) -> str:
    return ", ".join(f"{name} {value} USD" for name, value in price.usd.items())
