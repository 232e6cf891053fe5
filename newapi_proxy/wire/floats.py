"""Vectors as little-endian float32 in base64, both ways; knows nothing of who sends them (provider-translation A.3)."""

from __future__ import annotations

import binascii
import sys
from array import array
from collections.abc import Sequence


def packed(values: Sequence[float]) -> str:
    """The numbers as base64 text. Raises ValueError for what is no list of numbers."""
    try:
        floats = array("f", values)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if sys.byteorder == "big":
        floats.byteswap()
    return binascii.b2a_base64(floats.tobytes(), newline=False).decode()


def unpacked(text: str) -> list[float]:
    """The numbers of base64 text. Raises ValueError for what is none."""
    floats = array("f")
    try:
        floats.frombytes(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()
