"""How commands print: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from newapi_proxy.wire import sheet, tree

Row = Mapping[str, Any]


def table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Columns side by side under their names; numbers to the right."""
    lines = [list(columns), *([_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(_width(line[index]) for line in lines) for index in range(len(columns))]
    numeric = [bool(rows) and all(isinstance(row.get(name), (int, float)) for row in rows) for name in columns]
    for line in lines:
        cells = []
        for text, width, right in zip(line, widths, numeric, strict=True):
            gap = " " * (width - _width(text))
            cells.append(gap + text if right else text + gap)
        print("  ".join(cells).rstrip())


def json(value: Any) -> None:
    """One line of JSON."""
    print(tree.dumps(value))


def delimited(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """CSV with a head line."""
    sys.stdout.write(sheet.text(columns, ([_text(row.get(name)) for name in columns] for row in rows)))


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 channel, 2 channels."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def rows(rows: Sequence[Row], columns: Sequence[str], form: str) -> None:
    """Rows in one of the forms `table`, `json` (a list of objects), `csv`."""
    if form == "json":
        json([{name: row.get(name) for name in columns} for row in rows])
    elif form == "csv":
        delimited(rows, columns)
    else:
        table(rows, columns)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
    return "".join(one if one.isprintable() else " " for one in text)  # a name must not move the terminal's cursor


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)
