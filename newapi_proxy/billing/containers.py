"""How long a sound in Ogg, MP4 or WebM is, by what lies in it: pages and packets, tables of samples, blocks.

Foreign bytes, read in pieces; what cannot be read ends the look.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from newapi_proxy.billing.frames import LONGEST_PACKET, PIECE, THIN, Read, opus, steps

# Bytes a second that no sound has more of, and no film.
_SOUND: Final = 72_000
_FILM: Final = 2_500_000
_PAGE: Final = 27  # bytes of the head of an Ogg page
_VORBIS: Final = b"\x01vorbis"
_MOST_BOXES: Final = 10_000  # of an MP4
_MOST_TIMES: Final = 1024 * 1024  # bytes of a table of times that are read
_UNKNOWN: Final = (2**32 - 1, 2**64 - 1)  # a length that says nothing
_AAC_FRAME: Final = 1024  # samples of sound in one of MP4's samples of AAC
_NOWHERE: Final = (2**62, 2**62)
_TICK_NS: Final = 1_000_000  # of WebM, where it says nothing
_INTO: Final = frozenset({0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0x1F43B675, 0xA0})  # elements that hold others
_DURATION, _TICK, _TRACK, _CODEC, _CLUSTER, _SIMPLE, _BLOCK = 0x4489, 0x2AD7B1, 0xD7, 0x86, 0xE7, 0xA3, 0xA1
_LACED: Final = 960  # samples of 48 kHz of each frame of a block of several
_SHOWN: Final = 32  # bytes of an element that are looked at


class Length(msgspec.Struct, frozen=True):
    """Milliseconds: what the file says of itself, 0 for nothing, and what it must have at least by its bytes."""

    told: int = 0
    proved: int = 0


def bytes_prove(size: int, rate: int) -> int:
    """The milliseconds that so many bytes are at least, at the most bytes a second that there are."""
    return size * 1000 // rate


def ogg(read: Read, size: int) -> Length:
    """The largest of the pages' positions, in samples of 48 kHz for Opus, else of Vorbis' own rate; Opus' packets."""
    begun = read(0, PIECE)
    vorbis, spoken = begun.find(_VORBIS), begun.find(b"OpusHead")
    rate = int.from_bytes(begun[vorbis + 12 : vorbis + 16], "little") if vorbis >= 0 else 48_000
    skipped = int.from_bytes(begun[spoken + 10 : spoken + 12], "little") if spoken >= 0 else 0
    samples = furthest = 0
    left = steps(size)
    for piece, page, body in _pages(read, size):
        furthest = max(furthest, int.from_bytes(piece[page + 6 : page + 14], "little", signed=True))
        left -= 1 + body - page - _PAGE
        if left <= 0:
            break
        samples += _packets(piece, page, body) if spoken >= 0 else 0
    told = -(-max(0, furthest - skipped) * 1000 // rate) if rate else 0
    proved = max(0, samples - skipped - LONGEST_PACKET) // 48  # of the last packet any part may be cut
    return Length(told, max(proved, bytes_prove(size, _SOUND if left > 0 else THIN)))


def _pages(read: Read, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Each page: the piece that it lies in, where it begins, its body."""
    at = 0
    while at + _PAGE <= size and len(piece := read(at, PIECE)) >= _PAGE:
        place = 0
        while place <= len(piece) - _PAGE:
            found = piece.find(b"OggS", place)
            if found < 0 or found + _PAGE > len(piece):
                place = found if found > 0 else len(piece) - 3  # a mark may be cut
                break
            body = found + _PAGE + piece[found + _PAGE - 1]
            place = body + sum(piece[found + _PAGE : body])
            if place > len(piece) and found:
                place = found  # read again from its beginning
                break
            yield piece, found, body
        at += place


def _packets(piece: bytes, page: int, body: int) -> int:
    """The samples of the packets that begin in a page."""
    samples, fresh, begun, at = 0, not piece[page + 5] & 1, body, body
    for lace in piece[page + _PAGE : body]:
        at += lace
        if lace < 255:
            samples += opus(piece, begun, at) if fresh else 0
            begun, fresh = at, True
    return samples + (opus(piece, begun, at) if fresh else 0)


def mp4(read: Read, size: int) -> Length:
    """The film's own word; its tables of samples, or those of its fragments."""
    film = _Film(read)
    film.look(size)
    return Length(film.told, max(film.proved, bytes_prove(size, _most(film.left, film.pictures))))


def _most(left: int, film: bool) -> int:
    """The most bytes a second, also of what nobody looked at all of."""
    return THIN if left <= 0 else _FILM if film else _SOUND


class _Film:
    """What an MP4's boxes tell: milliseconds told and proved, and whether there are pictures."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rate = self._fragments = 0
        self.left = _MOST_BOXES
        self.told = self.proved = 0
        self.pictures = False

    def look(self, size: int) -> None:
        """Looks at all of it."""
        for name, at, end in self._boxes(0, size):
            if name == b"moov":
                self._tables(at, end)
            elif name == b"moof":
                trafs = [box for box in self._boxes(at, end) if box[0] == b"traf"]
                runs = [run for traf in trafs for run in self._boxes(*traf[1:]) if run[0] == b"trun"]
                self._fragments += sum(self._number(run[1] + 4) for run in runs)
        if self._rate and not self.pictures:
            self.proved = max(self.proved, self._fragments * _AAC_FRAME * 1000 // self._rate)

    def _tables(self, at: int, end: int) -> None:
        for name, body, last in self._boxes(at, end):
            if name == b"mvhd":
                self.told = max(self.told, self._clock(body)[1])
            elif name == b"trak":
                media = self._find(body, last, b"mdia")
                kind = self._read(self._find(*media, b"hdlr")[0] + 8, 4)
                self.pictures = self.pictures or kind == b"vide"
                if kind == b"soun":
                    self.proved = max(self.proved, self._sound(*media))

    def _sound(self, at: int, end: int) -> int:
        """What a track's samples last, by their times, and at least where their kind says it."""
        scale, told = self._clock(self._find(at, end, b"mdhd")[0])
        table = self._find(at, end, b"minf", b"stbl")
        times, last = self._find(*table, b"stts")
        runs = self._read(times + 8, min(max(0, last - times - 8), 8 * self._number(times + 4), _MOST_TIMES))
        ticks = sum(count * step for count, step in struct.iter_unpack(">II", runs[: len(runs) // 8 * 8]))
        kind = self._find(*table, b"stsd")[0] + 8
        if self._read(kind + 4, 4) == b"mp4a":
            self._rate = self._number(kind + 32) >> 16
        samples = self._number(self._find(*table, b"stsz")[0] + 8)
        least = samples * _AAC_FRAME * 1000 // self._rate if self._rate else 0
        return max(told, ticks * 1000 // scale if scale else 0, least)

    def _clock(self, at: int) -> tuple[int, int]:
        """Ticks a second, and the length in milliseconds."""
        wide = self._read(at, 1) == b"\x01"
        scale = self._number(at + (20 if wide else 12))
        length = int.from_bytes(self._read(at + 24, 8) if wide else self._read(at + 16, 4), "big")
        return scale, -(-length * 1000 // scale) if scale and length not in _UNKNOWN else 0

    def _number(self, at: int) -> int:
        return int.from_bytes(self._read(at, 4), "big")

    def _find(self, at: int, end: int, *path: bytes) -> tuple[int, int]:
        """The first box of that path; behind all, where there is none."""
        for wanted in path:
            at, end = next(((one, last) for name, one, last in self._boxes(at, end) if name == wanted), _NOWHERE)
        return at, end

    def _boxes(self, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """The boxes that lie beside each other: name, where the body begins, where it ends."""
        while at < end and self.left > 0 and len(head := self._read(at, 16)) >= 8:
            self.left -= 1
            long, body = int.from_bytes(head[:4], "big"), at + 8
            if long == 1:
                long, body = int.from_bytes(head[8:], "big"), at + 16
            elif long == 0:
                long = end - at
            if at + long < body:
                return
            yield head[4:8], body, min(at + long, end)
            at += long


class _Matroska:
    """What WebM's elements have told so far."""

    def __init__(self) -> None:
        self.codecs: dict[int, bytes] = {}
        self.tick = _TICK_NS  # nanoseconds
        self.lasts = 0.0  # ticks
        self.last = self.samples = 0
        self._track = self._cluster = 0

    def take(self, id: int, data: bytes, long: int) -> None:
        """One element: its id, first bytes and length."""
        if id in (_SIMPLE, _BLOCK):
            self.last = max(self.last, self._cluster + int.from_bytes(data[1:3], "big", signed=True))
            if self.codecs.get(data[0] & 0x7F, b"").startswith(b"A_OPUS"):
                self.samples += _LACED * (data[4] + 1) if data[3] & 6 else opus(data, 4, long)
        elif id == _DURATION and long in (4, 8):
            self.lasts = struct.unpack(">f" if long == 4 else ">d", data[:long])[0]
        elif id == _CODEC:
            self.codecs[self._track] = data[:long]
        elif long <= 8:
            number = int.from_bytes(data[:long], "big")
            if id == _TICK:
                self.tick = number
            elif id == _TRACK:
                self._track = number
            elif id == _CLUSTER:
                self._cluster = number


def webm(read: Read, size: int) -> Length:
    """The head's own word; the last block's time, and the packets of Opus."""
    found, left = _Matroska(), steps(size) // 2
    for element in _elements(read, size):
        left -= 1
        if left <= 0:
            break
        found.take(*element)
    film = any(codec.startswith(b"V_") for codec in found.codecs.values())
    said = -(-int(found.lasts * 1000) * found.tick // (1000 * _TICK_NS)) if 0 < found.lasts < 2**53 else 0
    seen = found.last * found.tick // _TICK_NS
    proved = max(0, found.samples - LONGEST_PACKET) // 48
    return Length(said or seen, max(seen, proved, bytes_prove(size, _most(left, film))))


def _elements(read: Read, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Each element that holds no others: its id, its first bytes, its length."""
    at = base = 0
    piece = b""
    while at < size:
        if at + _SHOWN + 12 > base + len(piece) and base + len(piece) < size:
            base, piece = at, read(at, PIECE)
        place = at - base
        id, place = _number(piece, place, marked=True)
        long, place = _number(piece, place)
        if id <= 0 or long < 0:
            return
        at = base + place
        if id in _INTO:
            continue
        data = piece[place : place + _SHOWN]
        if len(data) < min(long, _SHOWN):
            return
        yield id, data + bytes(5), long
        at += long


def _number(piece: bytes, at: int, *, marked: bool = False) -> tuple[int, int]:
    """A number as wide as its first bits say, with that mark or without it, and its end; -1 where there is none."""
    if at >= len(piece) or not piece[at]:
        return -1, at
    wide = 9 - piece[at].bit_length()
    number = int.from_bytes(piece[at : at + wide], "big")
    return number if marked else number & (1 << 7 * wide) - 1, at + wide
