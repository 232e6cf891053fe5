"""Usage x price x group ratio → quota units, with the steps that explain them.

Integers from end to end: exact, rounded half up once, at least 1 unit when anything billable was used (decision 5).
Formula: provider-translation A.0.3. Usage is foreign: no count of it can make a term negative (demand B5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import msgspec

from newapi_proxy.billing import pieces as sold
from newapi_proxy.billing.prices import SCALE, TOOL, UNITS_PER_USD, Price
from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.ir.usage import Pieces, Usage, clamped

Ratio = Decimal | Fraction | int
Find = Callable[[str], Price | None]
# (what, how many, USD per million tokens or for one, exact quota units): how many is 0 where the line is no count.
Step = tuple[str, int, str, str]

GUESS: Final = 4096  # output tokens held for a request that names no limit: few answers are longer
UNSEEN: Final = 600  # tokens held for what a provider adds to a prompt with tools: most add less, none much more
# Tokens held for media by kind: (flat, payload characters per further token). Flat for images: no provider's usual
# picture costs more; the others from sizes of ordinary recordings and documents.
_MEDIA: Final = {"image": (1600, 0), "file": (1000, 16), "audio": (100, 500), "video": (1000, 500)}
_HEAVY: Final = frozenset({Media, ToolResult})
_WRITTEN: Final = frozenset({"chat", "compaction"})  # kinds whose answers a model writes


class Charge(msgspec.Struct, frozen=True):
    """What one request costs: quota units, the same in USD, how it came about, and the edition of the tables."""

    units: int
    usd: str
    steps: list[Step]
    price_version: str


def charge(usage: Usage, price: Price, ratio: Ratio, find: Find | None = None, *, calls: int | Fraction = 1) -> Charge:
    """The charge for a usage.

    A per-call price covers the whole request but its server tools; `calls` multiplies it. `find` gives the prices of
    sub-inferences and server tools, `PriceBook.find` as it stands. A usage whose source is "none" costs nothing,
    whatever the price. On routes that sell pictures, speech or sound the usage holds `pieces`, the price is
    `PriceBook.sold`'s, a per-call price is that of one picture, and `calls` does not count.
    """
    steps: list[Step] = []
    if usage.source == "none":
        return Charge(0, "0.000000", steps, price.version_key)
    if usage.pieces is not None:
        total = _sold(usage, usage.pieces, price, steps)
    elif price.call is not None:
        total = _called(price, calls, steps)
    else:
        total = _tokens(usage, price, "", steps)
        if usage.others:
            total += _others(usage, price, find, steps)
    if usage.server_tools:
        total += _tools(usage, price, find, steps)
    num, den, text = _ratio(ratio)
    if num != den:
        steps.append(("sum", 0, "", amount(total)))
        total *= num
        steps.append(("group ratio", 0, text, amount(total // den)))
    scale = den * SCALE
    units = (total + total + scale) // (scale + scale)
    if units == 0 and total:
        units = 1
    steps.append(("charge", 0, "", str(units)))
    return Charge(units, usd(units), steps, price.version_key)


def usd(units: int) -> str:
    """Quota units as USD, exactly: six decimals."""
    whole, rest = divmod(units, UNITS_PER_USD)
    return f"{whole}.{rest * 2:06d}"


def amount(scaled: int) -> str:
    """10^-18 parts of a quota unit as decimal text, without trailing zeros."""
    whole, rest = divmod(scaled, SCALE)
    return f"{whole}.{rest:018d}".rstrip("0") if rest else str(whole)


def told(steps: Iterable[Step]) -> list[str]:
    """The steps as lines for people: what `explain` prints, from what was stored."""
    lines = []
    for what, count, rate, units in steps:
        match what.partition(" ")[0]:
            case "charge":
                lines.append(f"charge, rounded half up, at least 1 where anything was billable: {units} units")
            case "sum":
                lines.append(f"sum: {units} units")
            case "group" | "times":
                lines.append(f"{what}: x {rate} = {units} units")
            case "tier":
                lines.append(f"more than {count} tokens of prompt: that tier's rates")
            case "call" | "tool" | "picture":
                lines.append(f"{what}: {count} x ${rate} = {units} units")
            case "seconds":
                lines.append(f"{what}: {count} x ${rate} a minute = {units} units")
            case "characters":
                lines.append(f"{what}: {count} x ${rate} per million = {units} units")
            case _:
                lines.append(f"{what}: {count} tokens x ${rate} per million = {units} units")
    return lines


def hold_amount(ask: Ask, price: Price, ratio: Ratio, *, calls: int | Fraction = 1) -> int:
    """Quota units to hold before anything is sent: from bytes, no tokenizer (decision 6).

    Three bytes a token for text, a flat number for media whatever their payload's size; output as limited by the
    request, else 4096, for each alternative. A per-call price is exact. Rounded up; never 0 unless the price is.
    """
    num, den, _ = _ratio(ratio)
    if ask.pieces is not None:
        total = _asked(ask.pieces, price, _words(ask.texts))
    elif price.call is not None:
        total = _called(price, calls, [])
    else:
        prompt = _input(ask)
        rates = price.at(prompt) if price.tiers else price
        total = prompt * rates.input + _output(ask) * rates.output
        if not total and not price.free:
            total = 1
    return -(-total * num // (den * SCALE))


def _asked(pieces: Pieces, price: Price, tokens: int) -> int:
    """What pieces may cost; the prompt's tokens, and those of a picture, for models that are priced by them."""
    line = sold.by_piece(pieces, price)
    if line is None:
        line = sold.by_token(pieces, price)
        total = max(tokens * price.input + sold.most(pieces, price), line[3] if line else 0)
    else:
        total = line[3]
    return total or (0 if price.free else 1)


def _words(texts: Any) -> int:
    """Tokens of a prompt at the most; the body's bytes would say how large the uploaded file is."""
    if isinstance(texts, str):
        return len(texts) // 2 + 1
    return sum(map(_words, texts)) if isinstance(texts, (list, tuple)) else 1


def _sold(usage: Usage, pieces: Pieces, price: Price, steps: list[Step]) -> int:
    """By the piece where the model is priced so; else by upstream's tokens; else as the reference reckons pieces.

    A text to be spoken is counted here, in tokens, where upstream is silent; what a picture or a sound costs is not.
    """
    line = sold.by_piece(pieces, price)
    stated = usage.source != "counted" or pieces.characters
    if line is None and not (stated and (usage.prompt or usage.completion)):
        line = sold.by_token(pieces, price)
    if line is None:
        return _tokens(usage, price, "", steps)
    what, count, rate, total = line
    if count:
        steps.append((what, count, rate, amount(total)))
    return total


def hold_tokens(ask: Ask) -> tuple[int, int]:
    """Tokens to reserve by the same estimate: at least, and in all. They differ where the output's limit is a guess."""
    if ask.pieces is not None:
        entry = _words(ask.texts)
        return entry, entry
    entry = _input(ask)
    total = entry + _output(ask) if ask.kind in _WRITTEN else entry
    return (entry if ask.controls.max_tokens is None else total), total


def _output(ask: Ask) -> int:
    limit = ask.controls.max_tokens
    return max(1, ask.controls.n) * (GUESS if limit is None else max(0, limit))


def _input(ask: Ask) -> int:
    text = ask.size
    media = 0
    for turn in ask.turns:
        for part in turn.parts:
            if type(part) in _HEAVY:
                payload, flat = _held(part)  # type: ignore[arg-type]
                text -= payload
                media += flat
    return max(0, text) // 3 + 1 + media + (UNSEEN if ask.tools else 0)


def _held(part: Media | ToolResult) -> tuple[int, int]:
    """Characters of payload that are no text, and the tokens held for them."""
    payload = tokens = 0
    for piece in part.parts if isinstance(part, ToolResult) else (part,):
        if isinstance(piece, Media):
            flat, share = _MEDIA[piece.kind]
            length = len(piece.data or "")
            payload += length
            tokens += flat + (length // share if share else 0)
    return payload, tokens


def _called(price: Price, calls: int | Fraction, steps: list[Step]) -> int:
    one = price.call or 0
    steps.append(("call", 1, price.usd.get("call", ""), amount(one)))
    if calls == 1:
        return one
    total = max(0, round(one * calls))
    steps.append(("times", 0, str(calls), amount(total)))
    return total


def _tokens(usage: Usage, price: Price, whose: str, steps: list[Step]) -> int:
    if price.tiers and (tier := price.at(usage.prompt)) is not price:
        above = next(above for above, one in price.tiers if one is tier)
        steps.append(("tier", above, "", "0"))
        price = tier
    read, write, hour = usage.cache_read, usage.cache_write, usage.cache_write_1h
    total = 0
    if read or write or hour or usage.audio_in or usage.image_in or usage.audio_out or usage.image_out:
        for what, count, rate in _parts(usage, price):
            if count > 0:
                total += count * rate
                steps.append((what + whose, count, price.usd.get(what, ""), amount(count * rate)))
        return total
    if usage.prompt > 0:
        total = usage.prompt * price.input
        steps.append(("input" + whose, usage.prompt, price.usd.get("input", ""), amount(total)))
    if usage.completion > 0:
        cost = usage.completion * price.output
        total += cost
        steps.append(("output" + whose, usage.completion, price.usd.get("output", ""), amount(cost)))
    return total


def _parts(usage: Usage, price: Price) -> tuple[tuple[str, int, int], ...]:
    """Every count once, at its own rate: the parts are taken out of the wholes they are reported in."""
    usage = clamped(_positive(usage))
    audio, image = usage.audio_in, usage.image_in
    return (
        ("input", usage.plain_input - audio - image, price.input),
        ("cache_read", usage.cache_read, price.cache_read),
        ("cache_write", usage.cache_write, price.cache_write),
        ("cache_write_1h", usage.cache_write_1h, price.cache_write_1h),
        ("audio_in", audio, price.audio_in),
        ("image_in", image, price.image_in),
        ("output", usage.completion - usage.audio_out - usage.image_out, price.output),
        ("audio_out", usage.audio_out, price.audio_out),
        ("image_out", usage.image_out, price.image_out),
    )


_COUNTS: Final = (
    "prompt",
    "completion",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_in",
    "image_in",
    "audio_out",
    "image_out",
)


def _positive(usage: Usage) -> Usage:
    wrong = {name: 0 for name in _COUNTS if getattr(usage, name) < 0}
    return msgspec.structs.replace(usage, **wrong) if wrong else usage


def _others(usage: Usage, price: Price, find: Find | None, steps: list[Step]) -> int:
    """Sub-inferences, each at its own model's price; one without a price costs what its request's model costs."""
    total = 0
    for model, part in usage.others:
        own = (find(model) if find else None) or price
        whose = f" of {model}"
        if own.call is not None:
            steps.append(("call", 1, own.usd.get("call", ""), amount(own.call)))
            total += own.call
        else:
            total += _tokens(part, own, whose, steps)
    return total


def _tools(usage: Usage, price: Price, find: Find | None, steps: list[Step]) -> int:
    """Server tools per call; those without a price are part of the model's own (page fetches, code execution)."""
    total = 0
    for tool, count in usage.server_tools.items():
        name = tool.removesuffix("_requests").removesuffix("_calls")
        own = find(f"{TOOL}{name}:{price.name}") if find else None
        if own is None or own.call is None or count <= 0:
            continue
        total += own.call * count
        steps.append((f"tool {name}", count, own.usd.get("call", ""), amount(own.call * count)))
    return total


@lru_cache(maxsize=1024, typed=True)  # 0.8 and 4/5 are equal, and are told apart
def _ratio(ratio: Ratio) -> tuple[int, int, str]:
    """Numerator, denominator and text of a group ratio; a negative one counts as 0: no charge credits a key."""
    value = Fraction(ratio)
    if value < 0:
        return 0, 1, "0"
    return value.numerator, value.denominator, str(ratio)
