"""Rows as CSV: no cell of them is a formula, however a spreadsheet parts them."""

from __future__ import annotations

import pytest

from newapi_proxy.wire import sheet


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("-2+3", "'-2+3"),
        ("-2.50", "-2.50"),
        ("x;=1+1", "x;'=1+1"),
        ("x\t+1", "x\t'+1"),
        ('a"b\n=2', '"a""b\n\'=2"'),
        ("gpt-4o", "gpt-4o"),
        ("a=b", "a=b"),
        ("a,=b", '"a,=b"'),
    ],
)
def test_no_cell_is_a_formula(cell: str, told: str) -> None:
    """Also not behind what parts cells elsewhere: a semicolon, a tab, a line's end."""
    assert sheet.text(("head",), [(cell,)]) == f"head\n{told}\n"
