"""Rows as CSV, which people open in a spreadsheet. What it would take for a formula gets an apostrophe: clients choose
names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

_FORMULA: Final = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[=+\-@])")  # some countries' spreadsheets part cells by ";"
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A head line and the rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(one) for one in row] for row in rows)
    return out.getvalue()


def _cell(text: str) -> str:
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)
