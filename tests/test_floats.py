"""Vectors as text: little-endian float32 in base64."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.wire import floats


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_there_and_back(values: list[float]) -> None:
    """What is packed is what any client unpacks, and comes back the same."""
    text = floats.packed(values)
    assert list(struct.unpack(f"<{len(values)}f", base64.b64decode(text))) == values
    assert floats.unpacked(text) == values


@pytest.mark.parametrize("values", [["x"], [None], [[1.0]], "ab"])
def test_no_numbers(values: list[float]) -> None:
    """What is no list of numbers is a declared error."""
    with pytest.raises(ValueError, match=r".*"):
        floats.packed(values)


@pytest.mark.parametrize("text", ["a", "AAA", "!!!!", "AAAAAAAA", "é"])
def test_no_vectors(text: str) -> None:
    """Neither base64 nor whole numbers: a declared error."""
    with pytest.raises(ValueError, match=r".*"):
        floats.unpacked(text)
