"""Codes to scan: a reader of another make gets back what was put in."""

from __future__ import annotations

import re

import pytest

from newapi_proxy.web.pages import qr
from tests.fakes.scanner import read

LINK = "weixin://wxpay/bizpayurl?pr=NwY5Mz9"


@pytest.mark.parametrize("text", ["x", LINK, LINK + "&é=1", "https://pay.example/q?" + "7" * 80])
def test_a_picture_is_read_back(text: str) -> None:
    """What is drawn, with a light edge of four modules, is the text."""
    drawn = qr.picture(text, "")
    assert drawn is not None
    box = re.search(r'viewBox="0 0 (\d+) \1"', drawn)
    assert box is not None
    size = int(box[1]) - 8
    dark = {(int(y) - 4, int(x) - 4) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", drawn)}
    assert all(0 <= y < size and 0 <= x < size for y, x in dark)
    assert read([[(y, x) in dark for x in range(size)] for y in range(size)]) == text.encode()


def test_a_picture_says_what_it_is() -> None:
    """For those who do not see it, and as text whatever stands in it."""
    drawn = qr.picture(LINK, "a <code>")
    assert drawn is not None
    assert 'aria-label="a &lt;code&gt;"' in drawn


def test_what_has_no_picture() -> None:
    """Nothing, and what no phone would read any more."""
    assert qr.picture("", "") is None
    assert qr.picture("x" * (qr.LONGEST + 1), "") is None
