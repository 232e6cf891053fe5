"""`newapi-proxy prices`: what models cost, where that comes from, and what a changed file would change."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from newapi_proxy.billing.prices import PIECES, Price, PriceBook, book, units_of
from newapi_proxy.cli import settings

SOLD: Final = ("call", *PIECES)
JUMP: Final = 2  # a price that is so many times the old one, up or down, must be confirmed (demand B7)


class Change(msgspec.Struct, frozen=True):
    """One line of a comparison; `jump`: it should not happen unseen."""

    text: str
    jump: bool = False


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list [PATTERN]`, `show MODEL` and `diff FILE`."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="every price, the file's and the built-in ones")
    listing.add_argument("pattern", nargs="?", default="*", help="only names that fit, * for any characters")
    show = actions.add_parser("show", help="one model's price and where it comes from")
    show.add_argument("model")
    diff = actions.add_parser("diff", help="what a changed configuration file would change")
    diff.add_argument("file", type=Path)
    diff.add_argument("--yes", action="store_true", help="exit 0 though a price is more than doubled or halved")


def run(args: argparse.Namespace) -> int:
    """Exit 0; 1 for a faulty configuration, a model without a price, a jump in prices; 2 for an unreadable file."""
    status, prices = _book(_file(args.config))
    if prices is None:
        return status
    if args.action == "list":
        for name in prices.names():
            if fnmatchcase(name, args.pattern) and (price := prices.sold(name)):
                print(f"{name}  {_rates(price)}  ({price.source})")
        return 0
    if args.action == "show":
        return _show(prices, args.model)
    status, other = _book(args.file)
    return status if other is None else _compare(prices, other, confirmed=args.yes)


def changes(old: PriceBook, new: PriceBook) -> Iterator[Change]:
    """Each price and group ratio that differs; more than doubled or halved is marked with `!`."""
    for name in sorted({*old.names(), *new.names()}):
        before, after = old.sold(name), new.sold(name)
        if before is not None and after is not None:
            yield from (Change(f"{mark} {name}  {text}", mark == "!") for mark, text in _differences(before, after))
        elif before is not None or after is not None:
            yield Change(f"{'+' if after else '-'} {name}  {_rates(after or before)}")
    for group in sorted({*old.groups, *new.groups}):
        was, will = old.ratio(group), new.ratio(group)
        if was != will:
            mark = _mark(float(was), float(will))
            yield Change(f"{mark} group {group}  ratio: {float(was):g} -> {float(will):g}", mark == "!")


def _compare(old: PriceBook, new: PriceBook, *, confirmed: bool) -> int:
    found = list(changes(old, new))
    for change in found:
        print(change.text)
    print(f"{len(found)} changed: version {old.version} -> {new.version}" if found else "nothing changes")
    jumps = sum(change.jump for change in found)
    if jumps and not confirmed:
        print(f"{jumps} more than doubled or halved (marked !): --yes if that is meant", file=sys.stderr)
        return 1
    return 0


def _differences(before: Price, after: Price) -> Iterator[tuple[str, str]]:
    if before.version_key == after.version_key:
        return
    was, will = _all(before), _all(after)
    for field in {**was, **will}:
        one, two = was.get(field), will.get(field)
        if one != two:
            yield _mark(float(one or 0), float(two or 0)), f"{field}: {_money(one)} -> {_money(two)}"


def _all(price: Price) -> Mapping[str, str]:
    """Every rate by its name, the tiers' too."""
    rates = dict(price.usd)
    for above, tier in reversed(price.tiers):
        rates |= {f"{field} above {above}": value for field, value in tier.usd.items()}
    return rates


def _show(prices: PriceBook, model: str) -> int:
    price = prices.sold(model)
    if price is None:
        print(f"{model} has no price: requests for it are refused (model_price_missing)", file=sys.stderr)
        return 1
    how = "by that name" if price.key == model else f"by the pattern {price.key}"
    print(f"{model}: {price.source}, {how}; version {price.version_key}")
    for field, value in _all(price).items():
        print(f"  {field:<15} ${value} per {units_of(field)}")
    return 0


def _rates(price: Price | None) -> str:
    if price is None:
        return ""
    said = [f"${value} per {units_of(field)}" for field, value in price.usd.items() if field.partition(" ")[0] in SOLD]
    if "input" in price.usd:
        said.insert(0, f"${price.usd['input']} in, ${price.usd['output']} out per million")
    return ", ".join(said)


def _money(text: str | None) -> str:
    return "none" if text is None else f"${text}"


def _mark(was: float, will: float) -> str:
    return "!" if will > JUMP * was or was > JUMP * will else "~"


def _file(given: str | None) -> Path | None:
    """The configuration to read; None where none is named and none stands there: the built-in table speaks alone."""
    place = settings.locate(given, os.environ)
    named = given or os.environ.get(settings.VARIABLE)
    return place if named or place.exists() else None


def _book(file: Path | None) -> tuple[int, PriceBook | None]:
    if file is None:
        return 0, book()
    loaded = settings.joined(file)
    for fault in loaded.faults:
        print(fault, file=sys.stderr)
    if loaded.config is None:
        return settings.code(loaded), None
    return 0, book(loaded.config.prices, loaded.config.ratios, loaded.config.ratios_by_group())
