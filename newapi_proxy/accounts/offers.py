"""What a key may use and what that costs its holder: the configured prices times the group's ratio, as text in USD."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from newapi_proxy.billing.prices import PIECES, Price, units_of
from newapi_proxy.snapshot import Snapshot, Token

_TOLD: Final = ("input", "output", "cache_read")  # per million tokens, in columns of their own
_BESIDE: Final = ("call", *PIECES)  # what is sold otherwise; a picture's size follows its name


class Offer(msgspec.Struct, frozen=True):
    """A model. `rates` by name, per million tokens; `others`: (amount, unit); `above`: (tokens of a prompt, rates)."""

    model: str
    rates: dict[str, str]
    others: tuple[tuple[str, str], ...] = ()
    above: tuple[tuple[int, dict[str, str]], ...] = ()
    priced: bool = True


def offers(snapshot: Snapshot, token: Token) -> list[Offer]:
    """Every model that the key can name, in order of its name."""
    found = [_offer(snapshot, token, model) for model, _, _ in snapshot.models_for(token)]
    return sorted(found, key=lambda one: one.model)


def patterns(snapshot: Snapshot, token: Token) -> bool:
    """Whether there may be more models than have a name."""
    mine = (channel for channel in snapshot.channels if token.group in channel.groups)
    return any("*" in model for channel in mine for model in channel.models)


def _offer(snapshot: Snapshot, token: Token, model: str) -> Offer:
    tiers = snapshot.tiers(token.group, model)
    upstream = tiers[0][0].upstream_model(model) if tiers else model
    price = snapshot.prices.sold(model, upstream)
    if price is None:
        return Offer(model, {}, priced=False)
    ratio = snapshot.group_ratio(token.group, model)
    beside = [name for name in price.usd if name.partition(" ")[0] in _BESIDE]
    return Offer(
        model=model,
        rates=_rates(price, ratio),
        others=tuple((_times(price.usd[name], ratio), _unit(name)) for name in beside),
        above=tuple((above, _rates(tier, ratio)) for above, tier in reversed(price.tiers)),
    )


def _rates(price: Price, ratio: Decimal) -> dict[str, str]:
    return {name: _times(price.usd[name], ratio) for name in _TOLD if name in price.usd}


def _unit(name: str) -> str:
    size = name.partition(" ")[2]
    return f"{units_of(name)} {size}".strip()


def _times(text: str, ratio: Decimal) -> str:
    """The amount as the group pays it, without zeros at its end."""
    exact = f"{Decimal(text) * ratio:f}"
    return exact.rstrip("0").rstrip(".") if "." in exact else exact
