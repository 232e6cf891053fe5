"""What is sold by the piece: pictures by number, size and quality, speech by its characters, sound by its length.

Exact, in 10^-18 quota units; holding, the rounding and the group's ratio are `charge`'s. Source: relay-and-billing 5.9
and 5.10.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from newapi_proxy.billing.prices import SCALE, UNITS_PER_USD, Price, decimal_text
from newapi_proxy.ir.usage import Pieces

# What one picture costs over the model's price of a picture.
_SIZES: Final = {
    "256x256": Fraction(2, 5),
    "512x512": Fraction(9, 20),
    "1024x1792": Fraction(2),
    "1792x1024": Fraction(2),
}
_HD: Final = "dall-e-3"  # the models that have a quality of that name, by their beginning
# Output tokens that a picture of a model priced by the token may cost, by quality: (square, oblong). "auto" and what is
# not known may be the highest.
_MOST: Final = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}
_SQUARE: Final = ("256x256", "512x512", "1024x1024")
PER_MINUTE: Final = 1000  # tokens that a minute of sound counts as, where the model is priced by the token

Line = tuple[str, int, str, int]  # what, how many, USD for one (a million characters), 10^-18 quota units


def by_piece(pieces: Pieces, price: Price) -> Line | None:
    """What the pieces cost where the model is sold so, or per call; None where it is sold by the token."""
    if pieces.count <= 0:
        return None if price.call is None else ("call", 0, price.usd["call"], 0)
    if price.call is not None and not pieces.pictures:
        return "call", 1, price.usd["call"], price.call
    if pieces.pictures and (price.images or price.image is not None or price.call is not None):
        return _pictures(pieces, price)
    if pieces.characters and price.characters is not None:
        return "characters", pieces.characters, price.usd["characters"], pieces.characters * price.characters
    if pieces.milliseconds and price.minute is not None:
        total = _rounded(Fraction(pieces.seconds * price.minute, 60))
        return "seconds", pieces.seconds, price.usd["minute"], total
    return None


def priced(pieces: Pieces, price: Price) -> bool:
    """Whether the price says anything of such pieces; if not, the request must be refused (model_price_missing)."""
    return price.general or by_piece(pieces, price) is not None


def by_token(pieces: Pieces, price: Price) -> Line | None:
    """What they cost by the token's price where nobody has counted tokens; None where nothing came.

    New API's own meaning: a picture is 0.0025 USD times the ratio, a minute of sound 1 000 tokens. A character is at
    most a token.
    """
    if pieces.pictures:
        # a ratio of 1 is 1 unit a token, and 0.0025 USD are 1250 units
        return _line(pieces, _times(pieces, price.name), 1250 * price.input)
    if pieces.milliseconds:
        tokens = sound(pieces)
        return f"tokens of {pieces.seconds} s", tokens, price.usd.get("input", "0"), tokens * price.input
    if pieces.characters:
        return "input", pieces.characters, price.usd.get("input", "0"), pieces.characters * price.input
    return None


def most(pieces: Pieces, price: Price) -> int:
    """The most that pictures of a model priced by the token may cost in output tokens, for holds."""
    square, oblong = _MOST.get(pieces.quality, _MOST["high"])
    return pieces.pictures * (square if pieces.size in _SQUARE else oblong) * price.image_out


def sound(pieces: Pieces) -> int:
    """A length as tokens of prompt: 1 s is 17, 30 s are 500."""
    return (2 * pieces.seconds * PER_MINUTE + 60) // 120


def _pictures(pieces: Pieces, price: Price) -> Line:
    """A size and quality that the row names has its price; the others have the row's own, by size and quality."""
    for name in (f"{pieces.size} {pieces.quality}".strip(), pieces.size, pieces.quality):
        if name in price.images:
            return _line(pieces, Fraction(1), price.images[name])
    one = price.image if price.image is not None else price.call
    if one is None:  # only some sizes have a price: what is not named costs as the dearest, never nothing
        return _line(pieces, Fraction(1), max(price.images.values()))
    return _line(pieces, _times(pieces, price.name), one)


def _times(pieces: Pieces, model: str) -> Fraction:
    times = _SIZES.get(pieces.size, Fraction(1))
    if pieces.quality == "hd" and model.startswith(_HD):
        times *= Fraction(3, 2) if times == 2 else 2
    return times


def _line(pieces: Pieces, times: Fraction, one: int) -> Line:
    each = _rounded(times * one)
    what = " ".join(("picture", pieces.size, pieces.quality)).rstrip().replace("  ", " ")
    return what, pieces.pictures, decimal_text(Fraction(each, SCALE * UNITS_PER_USD)), pieces.pictures * each


def _rounded(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
