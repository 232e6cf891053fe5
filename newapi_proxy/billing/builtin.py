"""The built-in price table, `data/prices.csv`: USD per million tokens, or per call.

Knows the file's form and nothing of who asks. Rows stay text until one is looked up, so that loading costs start-up
under a millisecond and little memory. The rows are New API's defaults (relay-and-billing 8) with their wrong rows
corrected: completion prices of gpt-4.1, o4-mini, gpt-3.5-turbo, the gpt-4 previews and deepseek, dated names' cache
prices, the thinking-budget names, zeros that came from an integer division. Its `*` row is left out on purpose:
what has no price is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Final

FIELDS: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_in",
    "audio_out",
    "image_in",
    "image_out",
    "call",
)
FILE: Final = Path(__file__).parent / "data" / "prices.csv"


@lru_cache(maxsize=1)
def rows() -> Mapping[str, str]:
    """Each name (a model, a pattern with `*`, or `tool:NAME`) to the rest of its line."""
    found = {}
    for line in FILE.read_text("utf-8").splitlines()[1:]:
        name, _, rest = line.partition(",")
        found[name] = rest
    return found


def sheet(name: str) -> dict[str, Fraction]:
    """The row's cells that hold something, by field. Raises KeyError for a name that is no row."""
    cells = rows()[name].split(",")
    return {field: Fraction(cell) for field, cell in zip(FIELDS, cells, strict=False) if cell}


@lru_cache(maxsize=1)
def digest() -> str:
    """What tells one edition of the table from another."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()
