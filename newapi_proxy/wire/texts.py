"""The texts of many JSON strings handled as one: joined by a mark that stands in none of them.

What would be a step for each is one for all. Knows neither frames nor formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from newapi_proxy.wire import tree

MARK: Final = "\x7f"  # stands unescaped in JSON, and in no text that anybody writes
MARKED: Final = ord(MARK)  # its byte: to look for a number in bytes costs a tenth of looking for bytes
_MARK: Final = MARK.encode()


def one(quoted: bytes) -> str | None:
    """A JSON string with its quotes, as text; None for what is none, or holds the mark."""
    return None if MARKED in quoted else tree.string(quoted)


def joined(raws: Sequence[bytes]) -> str | None:
    """Several of what stands between the quotes, as texts with the mark between them; None where one is no such."""
    whole = b'"' + _MARK.join(raws) + b'"'
    return tree.string(whole) if whole.count(_MARK) == len(raws) - 1 else None


def plain(said: str) -> str:
    """Such texts without the marks."""
    return said.replace(MARK, "")


def spoken(said: str) -> str:
    """Such texts without those that are empty."""
    if MARK not in said:
        return said
    return MARK.join([text for text in said.split(MARK) if text])


def told(said: str, head: bytes, tail: bytes) -> bytes:
    """Each of the texts as a JSON string between the same head and tail, one after the other."""
    body = tree.encode(said)
    if MARK in said:
        body = body.replace(_MARK, b'"' + tail + head + b'"')
    return head + body + tail
