"""How long a sound is: the formats' heads, lies, and what cannot be read."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing.sound import PER_SECOND, milliseconds


def wav(seconds: float, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * int(seconds * rate)))
    return file.getvalue()


def flac(samples: int, rate: int) -> bytes:
    packed = (rate << 44) | (1 << 41) | (15 << 36) | samples
    return b"fLaC\x00\x00\x00\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16) + bytes(100_000)


def ogg(samples: int, head: bytes) -> bytes:
    page = b"OggS\x00\x02" + bytes(8) + bytes(12) + b"\x01\x1e" + head
    return page + bytes(30_000) + b"OggS\x00\x04" + samples.to_bytes(8, "little") + bytes(40)


def mp3(frames: int, more: bytes = b"") -> bytes:
    """MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes a frame of 1152 samples."""
    head = b"\xff\xfb\x90\x00"
    first = head + bytes(32) + more
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x05" + b"hello"
    return tag + first + bytes(417 - len(first)) + (head + bytes(413)) * frames


def mp4(scale: int, length: int) -> bytes:
    head = b"mvhd" + bytes(12) + struct.pack(">II", scale, length)
    return b"\x00\x00\x00\x18ftypM4A " + bytes(50_000) + head + bytes(80)


XING = b"Xing\x00\x00\x00\x01" + (1000).to_bytes(4, "big")
VORBIS = b"\x01vorbis" + bytes(5) + (44_100).to_bytes(4, "little")
WEBM = b"\x1aE\xdf\xa3" + bytes(40) + b"\x44\x89\x88" + struct.pack(">d", 4499.5) + bytes(60_000)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (wav(1), 1000),
        (wav(61.2), 61_200),
        (flac(44_100 * 5, 44_100), 5000),
        (ogg(48_000 * 7, b"OpusHead"), 7000),
        (ogg(44_100 * 7, VORBIS), 7000),
        (mp3(999), 26_063),  # 417 000 bytes at 128 kbit/s
        (mp3(999, XING), 26_123),  # 1000 frames of 1152 samples at 44.1 kHz
        (mp4(1000, 4490), 4490),
        (WEBM, 4500),
        (b"no sound at all" * 1000, 15_000 * 1000 // PER_SECOND + 1),
        (b"", 0),
        (b"x", 1),
    ],
)
def test_lengths(data: bytes, wanted: int) -> None:
    """Each form's own word for its length; bytes of no known form count as 128 kbit/s."""
    assert milliseconds(data) == wanted


def test_a_beginning_is_enough_where_the_size_is_known() -> None:
    """Heads stand in front, and a streamed file leaves its length open: the size says it."""
    whole = wav(30)
    assert milliseconds(whole[:1000], len(whole)) == 30_000
    assert milliseconds(whole[:40] + bytes(4) + whole[44:]) == 30_000
    assert milliseconds(mp3(999)[:5000], len(mp3(999))) == 26_063


def test_a_head_that_lies_is_bounded_by_the_size() -> None:
    """Nobody pays a second for an hour, nor an hour for a second."""
    assert milliseconds(mp4(1000, 3_600_000)) == len(mp4(1000, 1)) * 1000 // 400
    short = milliseconds(mp4(1000, 1) + bytes(4_000_000))
    assert short == (4_000_000 + len(mp4(1000, 1))) * 1000 // 400_000


@given(st.binary(max_size=300), st.sampled_from([wav(0.1), flac(1, 1), ogg(5, VORBIS), mp3(2), mp4(1, 1), WEBM]))
def test_anything_has_a_length(noise: bytes, begun: bytes) -> None:
    """Broken heads end in a number, never in an exception."""
    for cut in (4, 20, 60):
        assert milliseconds(begun[:cut] + noise) >= 1
