"""Usage as a plain-text journal, for hledger and its relatives: one transaction per day and group, amounts in USD.

Names of models come from requests, so what has a meaning in a journal is taken out of all names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

SPENT: Final = "expenses:usage"
FROM: Final = "assets:quota"
_NOBODY: Final = "none"
_SPECIAL: Final = re.compile(r"[:;|]")  # begins a sub-account, a comment, a note


def lines(rows: Sequence[Mapping[str, Any]], names: Sequence[str], facts: Sequence[str]) -> Iterator[str]:
    """The journal. Each row has `day` (ISO) and `usd`; `names` make the account, `facts` stand in the comment."""
    for row in rows:
        parts = [_plain(str(row[name])) for name in names]
        told = ", ".join(f"{name}: {row[name]}" for name in facts)
        amount = str(row["usd"])
        sign, number = ("-", amount[1:]) if amount.startswith("-") else ("", amount)
        yield f"{row['day']} usage{' by ' if parts else ''}{', '.join(parts)}  ; {told}"
        yield f"    {':'.join([SPENT, *parts])}  {sign}${number}"
        yield f"    {FROM}  {'' if sign else '-'}${number}"
        yield ""


def _plain(name: str) -> str:
    """The name as one part of an account: printable, no two blanks in a row, which would end it."""
    clean = "".join(one if one.isprintable() else " " for one in _SPECIAL.sub("_", name))
    return " ".join(clean.split()) or _NOBODY
