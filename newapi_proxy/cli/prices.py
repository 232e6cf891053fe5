"""`newapi-proxy prices`: what models cost, where that comes from, and what a changed file would change."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from newapi_proxy.billing.builtin import FIELDS
from newapi_proxy.billing.prices import Price, PriceBook, book
from newapi_proxy.cli import settings
from newapi_proxy.config import load


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list [PATTERN]`, `show MODEL` and `diff FILE`."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="every price, the file's and the built-in ones")
    listing.add_argument("pattern", nargs="?", default="*", help="only names that fit, * for any characters")
    show = actions.add_parser("show", help="one model's price and where it comes from")
    show.add_argument("model")
    diff = actions.add_parser("diff", help="what a changed configuration file would change")
    diff.add_argument("file", type=Path)


def run(args: argparse.Namespace) -> int:
    """Exit 0; 1 for a faulty configuration, a model without a price; 2 for a file that cannot be read."""
    status, prices = _book(_file(args.config))
    if prices is None:
        return status
    if args.action == "list":
        for name in prices.names():
            if fnmatchcase(name, args.pattern) and (price := prices.find(name)):
                print(f"{name}  {_rates(price)}  ({price.source})")
        return 0
    if args.action == "show":
        return _show(prices, args.model)
    status, other = _book(args.file)
    if other is None:
        return status
    for line in changes(prices, other):
        print(line)
    return 0


def changes(old: PriceBook, new: PriceBook) -> Iterable[str]:
    """A line for each price and group ratio that differs; more than doubled or halved is marked with `!`."""
    changed = 0
    for name in sorted({*old.names(), *new.names()}):
        before, after = old.find(name), new.find(name)
        was, will = (before.usd if before else {}), (after.usd if after else {})
        if was == will:
            continue
        changed += 1
        if not before or not after:
            yield f"{'+' if after else '-'} {name}  {_rates(after or before)}"
            continue
        for field in FIELDS:
            if was.get(field) != will.get(field):
                one, two = was.get(field), will.get(field)
                yield f"{_mark(one, two)} {name}  {field}: {_money(one)} -> {_money(two)}"
    for group in sorted({*old.groups, *new.groups}):
        if old.ratio(group) != new.ratio(group):
            changed += 1
            yield f"~ group {group}  ratio: {float(old.ratio(group)):g} -> {float(new.ratio(group)):g}"
    yield f"{changed} changed: version {old.version} -> {new.version}" if changed else "nothing changes"


def _show(prices: PriceBook, model: str) -> int:
    price = prices.find(model)
    if price is None:
        print(f"{model} has no price: requests for it are refused (model_price_missing)", file=sys.stderr)
        return 1
    how = "by that name" if price.key == model else f"by the pattern {price.key}"
    print(f"{model}: {price.source}, {how}; version {price.version_key}")
    for field in FIELDS:
        if field in price.usd:
            print(f"  {field:<15} ${price.usd[field]} per {'call' if field == 'call' else 'million tokens'}")
    return 0


def _rates(price: Price | None) -> str:
    if price is None:
        return ""
    if price.call is not None:
        return f"${price.usd['call']} per call"
    return f"${price.usd['input']} in, ${price.usd['output']} out per million"


def _money(text: str | None) -> str:
    return "none" if text is None else f"${text}"


def _mark(one: str | None, two: str | None) -> str:
    was, will = float(one or 0), float(two or 0)
    return "!" if will > 2 * was or was > 2 * will else "~"


def _file(given: str | None) -> Path | None:
    """The configuration to read; None where none is named and none stands there: the built-in table speaks alone."""
    place = settings.locate(given, os.environ)
    named = given or os.environ.get(settings.VARIABLE)
    return place if named or place.exists() else None


def _book(file: Path | None) -> tuple[int, PriceBook | None]:
    if file is None:
        return 0, book()
    loaded = load.read(file, os.environ)
    for fault in loaded.faults:
        print(fault, file=sys.stderr)
    if loaded.config is None:
        return settings.code(loaded), None
    return 0, book(loaded.config.prices, loaded.config.ratios, loaded.config.groups)
