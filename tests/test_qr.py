"""Codes to scan: a reader of another make gets back what was put in, at every length and whatever the bytes."""

from __future__ import annotations

import random
import re

import pytest

from newapi_proxy.web.pages import qr
from tests.fakes.scanner import read


@pytest.mark.parametrize("length", range(107))
def test_every_length(length: int) -> None:
    """All bytes come back, in the smallest code that holds them."""
    data = random.Random(length).randbytes(length)
    modules = qr.code(data)
    assert modules is not None
    assert read(modules) == data
    assert len(modules) == next(
        17 + 4 * version for version, most in enumerate((14, 26, 42, 62, 84, 106), 1) if length <= most
    )


def test_what_is_too_long() -> None:
    """A text that fits no code has none, and no picture."""
    assert qr.code(bytes(107)) is None
    assert qr.picture("x" * 107, "") is None


def test_a_picture() -> None:
    """It has a light edge of four modules, says what it is, and draws each dark module once."""
    text = "weixin://wxpay/bizpayurl?pr=NwY5Mz9"
    modules = qr.code(text.encode())
    assert modules is not None
    drawn = qr.picture(text, "a <code>")
    assert drawn is not None
    assert f'viewBox="0 0 {len(modules) + 8} {len(modules) + 8}"' in drawn
    assert 'aria-label="a &lt;code&gt;"' in drawn
    dark = [(y, x) for y, row in enumerate(modules) for x, on in enumerate(row) if on]
    assert [(int(y) - 4, int(x) - 4) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", drawn)] == dark
