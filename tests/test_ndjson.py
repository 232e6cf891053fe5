"""Lines of JSON: any cut of the bytes gives the same frames, and nothing is kept without bound."""

from __future__ import annotations

import random

import pytest

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.wire.ndjson import Decoder
from newapi_proxy.wire.sse import Frame

LINES = b'{"a":"Gr\xc3\xbc\xc3\x9fe"}\n\r\n{"b":[1]}\r\n \n{"c":"\\n"}\n'
TREES = [{"a": "Grüße"}, {"b": [1]}, {"c": "\n"}]


def decoded(pieces: list[bytes], cap: int = 1000) -> list[Frame]:
    """The frames of these reads and of the end."""
    decoder = Decoder(cap)
    return [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.close()


def test_lines() -> None:
    """One frame a line that says something; its raw bytes are the line's, its end included."""
    frames = decoded([LINES])
    assert [frame.tree for frame in frames] == TREES
    assert [frame.event for frame in frames] == ["", "", ""]
    assert frames[1].raw == b'{"b":[1]}\r\n'
    assert frames[1].data == b'{"b":[1]}'


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_cuts(size: int) -> None:
    """Reads of any size, also inside a character or a line's end."""
    pieces = [LINES[at : at + size] for at in range(0, len(LINES), size)]
    assert [frame.tree for frame in decoded(pieces)] == TREES


def test_random_cuts() -> None:
    """Reads of mixed sizes, empty ones among them."""
    for seed in range(50):
        dice = random.Random(seed)
        ends = sorted(dice.randrange(len(LINES) + 1) for _ in range(6))
        pieces = [LINES[at:to] for at, to in zip([0, *ends], [*ends, len(LINES)], strict=True)]
        assert [frame.tree for frame in decoded(pieces)] == TREES


def test_last_line_without_an_end() -> None:
    """It is a frame at the end of the stream; before, it is waited for."""
    decoder = Decoder()
    states = [decoder.empty]
    assert decoder.feed(b'{"a":1}') == []
    states.append(decoder.empty)
    assert [frame.tree for frame in decoder.close()] == [{"a": 1}]
    states.append(decoder.empty)
    assert states == [True, False, True]
    assert decoder.close() == []


def test_byte_order_mark() -> None:
    """In front of the first line it is no part of it."""
    assert [frame.tree for frame in decoded([b'\xef\xbb\xbf{"a":1}\n'])] == [{"a": 1}]


def test_what_is_no_json() -> None:
    """A frame without a tree: the reader says what that means."""
    (frame,) = decoded([b"<html>\n"])
    assert frame.data == b"<html>"
    assert frame.tree is None


def test_endless_line() -> None:
    """A line above the cap is a failure, and its bytes are let go."""
    decoder = Decoder(cap=100)
    assert decoder.feed(b"x" * 100) == []
    with pytest.raises(UpstreamFailure):
        decoder.feed(b"x")
    assert decoder.empty
    assert [frame.tree for frame in decoder.feed(b'{"a":1}\n')] == [{"a": 1}]


def test_long_stream_in_long_lines() -> None:
    """The cap is for one line, not for what one read brings."""
    decoder = Decoder(cap=20)
    assert len(decoder.feed(b'{"a":1}\n' * 100)) == 100
