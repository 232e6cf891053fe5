"""How long a sound is: what the forms say, what their bytes prove, lies, and what cannot be read."""

from __future__ import annotations

import struct
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing.sound import PER_SECOND, milliseconds
from tests.fakes.sounds import adts, amr, flac, fragmented, mp3, mp4, opus, page, vorbis, wav, webm

XING = b"Xing\x00\x00\x00\x01" + (1000).to_bytes(4, "big")
LIE = b"Xing\x00\x00\x00\x01" + (1).to_bytes(4, "big")
LOUD, QUIET = b"\xff\xfb\xe0\x00", b"\xff\xf3\x14\x00"  # 320 kbit/s at 44.1 kHz; 8 kbit/s at 24 kHz: 24 bytes, 24 ms


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (wav(1), 1000),
        (wav(61.2), 61_200),
        (flac(44_100 * 5, frames=53), 5000),
        (opus(350, 48_000 * 7 + 312), 7000),
        (vorbis(44_100 * 7), 7000),
        (mp3(999), 26_123),  # 1000 frames of 1152 samples at 44.1 kHz
        (mp3(999, XING), 26_097),  # the first of them only tells of the others
        (adts(100), 6400),
        (b"ID3\x04\x00\x00\x00\x00\x00\x05hello" + adts(100), 6400),
        (amr(500), 10_000),
        (mp4(4490, 70), 4490),
        (fragmented(10, 100), 64_000),
        (webm(4500.0, 225), 4500),
        (webm(None, 225), 4480),  # by the last block's time
        (b"no sound at all" * 1000, 15_000 * 1000 // PER_SECOND + 1),
        (b"", 0),
        (b"x", 1),
    ],
)
def test_lengths(data: bytes, wanted: int) -> None:
    """Each form's own word for its length, where its bytes do not say more; those of no known form are 128 kbit/s."""
    assert milliseconds(data) == wanted


def cut(data: bytes, place: int, *put: bytes) -> bytes:
    new = b"".join(put)
    return data[:place] + new + data[place + len(new) :]


LONG = 60_000


@pytest.mark.parametrize(
    ("data", "least"),
    [
        (mp3(2297, LIE), LONG),
        (mp3(2500, LIE, head=QUIET, size=24), LONG),
        (LOUD + bytes(1040) + mp3(2500, head=QUIET, size=24)[432:], LONG),
        (b"\x00" + (QUIET + bytes(20)) * 2500, LONG),
        (cut(wav(60), 28, (400_000).to_bytes(4, "little")), LONG),  # bytes a second, which no decoder goes by
        (cut(wav(60), 40, (16).to_bytes(4, "little")), LONG),  # the data's length
        (flac(100, frames=646), LONG),
        (opus(3000, 312), LONG - 150),
        (vorbis(100, size=4_320_000), LONG),
        (mp4(1, 940), LONG),
        (mp4(1, 940, delta=1), LONG),
        (webm(1.0, 3010), LONG),
        (webm(1.0, 3010, step=0), LONG),
    ],
)
def test_a_head_that_tells_too_little(data: bytes, least: int) -> None:
    """Nobody pays a second for a minute: what lies in the file is paid, whatever its head says of it."""
    assert least <= milliseconds(data) <= LONG * 1.05


@pytest.mark.parametrize(
    "data",
    [
        cut(wav(1), 40, (2**32 - 1).to_bytes(4, "little")),
        cut(wav(1), 24, bytes([1, 0, 0, 0])),
        mp4(3_600_000, 16, data=32_000),
        webm(3_600_000.0, 50, size=600),
        flac(2**36 - 1, frames=10, size=3000),
        opus(50, 2**60, size=600),
        mp3(76, b"Xing\x00\x00\x00\x01\xff\xff\xff\xff"),
    ],
)
def test_a_head_that_tells_too_much(data: bytes) -> None:
    """Nor an hour for a second: no more than the slowest coder could make of these bytes."""
    assert milliseconds(data) <= len(data) * 1000 // 400


def test_what_stands_behind_the_sound_is_not_paid() -> None:
    """A WAV's further chunks are none of its sound."""
    assert milliseconds(wav(1) + b"LIST" + (5000).to_bytes(4, "little") + bytes(5000)) == 1000
    assert milliseconds(wav(1) + b"\xff" * 32_000) == 2000


def test_pictures_take_room() -> None:
    """A film's bytes prove little of its length; its tables do."""
    assert milliseconds(mp4(1000, 16, kind=b"vide", data=2_000_000)) == 1000
    assert milliseconds(webm(1000.0, 50, codec=b"V_VP9", size=40_000)) == 1000


def test_a_beginning_is_enough_where_the_size_is_known() -> None:
    """Heads stand in front, and a streamed file leaves its length open: the size says it."""
    whole = wav(30)
    assert milliseconds(whole[:1000], len(whole)) == 30_000
    assert milliseconds(whole[:40] + bytes(4) + whole[44:]) == 30_000
    assert abs(milliseconds(mp3(999)[:50_000], len(mp3(999))) - 26_123) < 50


STUFFED = (
    b"\xff\xf1" * 8,
    b"\xff\xfb\xf0" * 5,
    b"\xff\xf8\x19\x08" * 4,
    b"\xff\xf1\x60\x40\x00\xe0\x00",
    page(0, 0, *[b""] * 255),
    page(0, 0, *[b"\x03"] * 255),
    b"\xec\x80",
    b"\x00\x00\x00\x08free",
    b"\x00" * 16,
)


@pytest.mark.parametrize("junk", STUFFED)
@pytest.mark.parametrize("begun", [flac(5), opus(10, 5), mp3(2), mp4(1, 1), webm(1.0, 1), adts(1), amr(1), b""])
def test_small_parts_without_number(begun: bytes, junk: bytes) -> None:
    """A file of nothing but marks is looked through in the time of one that is honest, and is not cheaper."""
    data = begun + junk * (2_000_000 // len(junk))
    since = process_time()
    assert milliseconds(data) >= len(data) * 1000 // 400_000
    assert process_time() - since < 1.5


@given(
    st.binary(max_size=300),
    st.sampled_from([wav(0.1), flac(1, frames=2), vorbis(5), opus(10, 5), mp3(2), mp4(1, 1), webm(1.0, 3), adts(2)]),
    st.integers(4, 500),
)
def test_anything_has_a_length(noise: bytes, begun: bytes, where: int) -> None:
    """Broken heads end in a number, never in an exception."""
    assert milliseconds(begun[:where] + noise) >= 1
    assert milliseconds(cut(begun, where, noise)) >= 1
    assert milliseconds(begun[:where] + struct.pack(">Q", 2**64 - 1) + noise, 10**9) >= 1
