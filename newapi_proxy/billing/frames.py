"""How long a sound is by its own frames, whatever its head says: MPEG audio, AAC (ADTS), AMR, FLAC; and Opus packets.

A frame says how many samples it holds, and a decoder plays every one. Foreign bytes, read in pieces, in no more steps
than a file of that size honestly needs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Final

Read = Callable[[int, int], bytes]
"""So many bytes of the file from there, fewer at its end."""
Frame = tuple[int, tuple[int, int]]
"""A frame's bytes; its samples, and samples a second."""

PIECE: Final = 256 * 1024  # bytes that are read at once
THIN: Final = 2_000  # bytes a second of what is made of so many small parts that nobody looks at all of them
_HEAD: Final = 7  # bytes that the longest head of a frame needs
# MPEG audio by version bits (3: version 1, 2: version 2, 0: version 2.5) and layer bits (3: I, 2: II, 1: III): samples
# a second, samples a frame, and kbit/s.
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_FIRST: Final = {
    3: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOWER: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SECOND: Final = {3: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256), 2: _LOWER, 1: _LOWER}
_AAC: Final = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_NARROW: Final = (13, 14, 16, 18, 20, 21, 27, 32, 6)  # bytes of AMR's frames by mode; in a mode without bytes it is one
_WIDE: Final = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6)
_CODED: Final = b"".join(re.escape(bytes([one])) for one in range(256) if 0 < one >> 4 < 15 and one >> 2 & 3 < 3)
_RATED: Final = b"".join(re.escape(bytes([one])) for one in range(256) if one >> 2 & 15 < len(_AAC))
MPEG_SYNC: Final = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][" + _CODED + b"]")
AAC_SYNC: Final = re.compile(rb"\xff[\xf0\xf1\xf8\xf9][" + _RATED + b"]")
_AMR_SYNC: Final = re.compile(rb"(?!)")  # every byte begins a frame
_FLAC_SYNC: Final = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\x00-\xaf]")
# Opus: samples of 48 kHz in a frame, by the packet's configuration, and the most in a packet.
_OPUS: Final = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
LONGEST_PACKET: Final = 5760


def steps(size: int) -> int:
    """How many looks a file of that size is worth."""
    return 1000 + size // 24


def lasting(
    read: Read, at: int, size: int, frame: Callable[[bytes, int], Frame | None], sync: re.Pattern[bytes] = _AMR_SYNC
) -> Fraction:
    """Milliseconds of the frames from there on; what is not looked at lasts as what is, and is thin at least."""
    counts: Counter[tuple[int, int]] = Counter()
    begun, left = at, steps(size)
    while at < size and left > 0 and len(piece := read(at, PIECE)) >= _HEAD:
        place, last = 0, len(piece) - _HEAD
        while place <= last and left:
            left -= 1
            found = frame(piece, place)
            if found is not None:
                counts[found[1]] += 1
                place += found[0]
            else:
                again = sync.search(piece, place + 1)
                place = again.start() if again else last + 1
        at += place
    told = sum((Fraction(count * samples * 1000, rate) for (samples, rate), count in counts.items()), Fraction())
    if begun < at < size - _HEAD:
        told = told * (size - begun) / (at - begun)
    return told if left else max(told, Fraction((size - begun) * 1000, THIN))


def mpeg(piece: bytes, at: int) -> Frame | None:
    """A frame of MPEG audio, of any version and layer."""
    return None if piece[at] != 0xFF else _mpegs().get((piece[at + 1] & 0xFE) << 8 | piece[at + 2] & 0xFE)


@cache
def _mpegs() -> dict[int, Frame]:
    """Every head that there is, without its bits that say nothing of the length."""
    found = {}
    for version, layer, coded, rated, padded in product(_RATES, (3, 2, 1), range(1, 15), range(3), (0, 1)):
        kbit, rate = (_FIRST if version == 3 else _SECOND)[layer][coded], _RATES[version][rated]
        samples = 384 if layer == 3 else 576 if layer == 1 and version != 3 else 1152
        slot = 4 if layer == 3 else 1
        long = (samples // 8 // slot * kbit * 1000 // rate + padded) * slot
        head = (0xE0 | version << 3 | layer << 1) << 8 | coded << 4 | rated << 2 | padded << 1
        found[head] = long, (samples, rate)
    return found


def aac(piece: bytes, at: int) -> Frame | None:
    """A frame of AAC in ADTS."""
    if piece[at] != 0xFF or piece[at + 1] & 0xF6 != 0xF0:
        return None
    long = (piece[at + 3] & 3) << 11 | piece[at + 4] << 3 | piece[at + 5] >> 5
    rated = piece[at + 2] >> 2 & 15
    if long < _HEAD or rated >= len(_AAC):
        return None
    return long, (1024 * ((piece[at + 6] & 3) + 1), _AAC[rated])


def narrow(piece: bytes, at: int) -> Frame | None:
    """A frame of AMR."""
    mode = piece[at] >> 3 & 15
    return _NARROW[mode] if mode < len(_NARROW) else 1, (160, 8000)


def wide(piece: bytes, at: int) -> Frame | None:
    """A frame of AMR-WB."""
    mode = piece[at] >> 3 & 15
    return _WIDE[mode] if mode < len(_WIDE) else 1, (320, 16_000)


def flac(read: Read, at: int, size: int) -> int:
    """Samples of all frames from there. Frames have no length: they are searched for, and proved by their CRC."""
    total, kind, left = 0, -1, steps(size) // 16
    while at < size and left > 0 and (piece := read(at, PIECE)):
        last = len(piece) if len(piece) < PIECE else PIECE - 16
        for sync in _FLAC_SYNC.finditer(piece, 0, min(len(piece), last + 3)):
            left -= 1
            if left <= 0:
                break
            if kind in (-1, sync[0][1]) and (samples := _block(piece[sync.start() : sync.start() + 16])):
                total, kind = total + samples, sync[0][1]
        at += last
    return total


def _block(head: bytes) -> int:
    """The samples of a FLAC frame, 0 where it is none."""
    head += bytes(16 - len(head))
    sized, rated = head[2] >> 4, head[2] & 15
    leading = 8 - (~head[4] & 0xFF).bit_length()  # of its number, which is coded as UTF-8 is
    if rated == 15 or head[3] & 1 or leading in (1, 8):
        return 0
    end = 4 + (leading or 1)
    long = {6: 1, 7: 2}.get(sized, 0)
    more = int.from_bytes(head[end : end + long], "big")
    end += long + {12: 1, 13: 2, 14: 2}.get(rated, 0)
    if _crc(head[:end]) != head[end]:
        return 0
    if long:
        return more + 1
    return 192 if sized == 1 else 576 << sized - 2 if sized < 6 else 256 << sized - 8


def _crc(data: bytes) -> int:
    value, table = 0, _crcs()
    for byte in data:
        value = table[value ^ byte]
    return value


@cache
def _crcs() -> bytes:
    """What a byte makes of the CRC, polynomial x^8 + x^2 + x + 1."""
    made = bytearray()
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
        made.append(value)
    return bytes(made)


def opus(piece: bytes, at: int, end: int) -> int:
    """Samples, of 48 kHz, of an Opus packet; its heads and what is empty have none."""
    end = min(end, len(piece))
    if at >= end or piece.startswith((b"OpusHead", b"OpusTags"), at):
        return 0
    first = piece[at]
    many = (1, 2, 2, piece[at + 1] & 63 if at + 1 < end else 0)[first & 3]
    return min(_OPUS[first >> 3] * many, LONGEST_PACKET)
