"""How long a sound is, from the head and the tail of its file; nothing is decoded.

Knows WAV, FLAC, Ogg (Opus, Vorbis), MP3, MP4 and WebM. Foreign bytes: what cannot be read is estimated by its size.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final

import msgspec

from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import Pieces

PER_SECOND: Final = 16_000  # bytes of MP3 at 128 kbit/s, and roughly of every other compressed form
LONGEST: Final = 24 * 3600 * 1000  # milliseconds: a head that says more lies
# Bytes a second: no coder makes less of speech, no recorder writes more. A head may not say that a file is longer or
# shorter than its size allows: the caller is a stranger, and pays by it.
_LEAST: Final = 400
_MOST: Final = 400_000
_READ: Final = 256 * 1024  # bytes at each end of an uploaded file that are read for it
_SEARCHED: Final = 65_536  # bytes at each end that are looked through
_VORBIS: Final = b"\x01vorbis"
# MPEG audio, by version bits (3: version 1, 2: version 2, 0: version 2.5): samples a second, samples a frame of layer
# III, and kbit/s.
_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_SAMPLES: Final = {3: 1152, 2: 576, 0: 576}
_KBITS: Final = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SYNC: Final = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # layer III of any version
_DURATION: Final = re.compile(rb"\x44\x89([\x84\x88])")  # WebM's element, four or eight bytes of float follow


def measured(ask: Ask) -> Ask:
    """A request to write a sound down, with the sound's length; any other as it is."""
    if ask.kind != "transcription" or ask.form is None:
        return ask
    file = ask.form.file("file")
    if file is None:
        return ask
    tail = file.read(max(_READ, file.size - _READ)) if file.size > _READ else b""
    length = milliseconds(file.read(0, _READ), file.size, tail=tail)
    return msgspec.structs.replace(ask, pieces=Pieces(milliseconds=length))


def milliseconds(data: bytes, size: int | None = None, *, tail: bytes = b"") -> int:
    """The length of a sound file, rounded up; `size` where `data` is only its beginning, and `tail` its end."""
    whole = len(data) if size is None else size
    if not whole:
        return 0
    guess = -(-whole * 1000 // PER_SECOND)
    found = None
    for head, reader in _FORMS:
        if head.match(data):
            if tail or whole == len(data) or reader is not _ogg:  # which tells its length in its last page alone
                found = reader(data + tail, whole)
            break
    if found is None or not 0 < found <= LONGEST:
        found = guess
    return max(whole * 1000 // _MOST, min(found, whole * 1000 // _LEAST), 1)


def _wav(data: bytes, whole: int) -> int | None:
    """RIFF: the format's bytes a second, and the data's length; streams leave that at 0 or at its largest."""
    position, rate = 12, 0
    while position + 8 <= len(data):
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        if name == b"fmt ":
            rate = int.from_bytes(data[position + 16 : position + 20], "little")
        if name == b"data":
            length = min(length or whole, whole - position - 8)
            return -(-length * 1000 // rate) if rate else None
        position += 8 + length + length % 2
    return None


def _flac(data: bytes, whole: int) -> int | None:
    packed = int.from_bytes(data[18:26], "big")  # 20 bits of rate, 3 and 5 of channels and depth, 36 of samples
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return -(-samples * 1000 // rate) if rate and samples else None


def _ogg(data: bytes, whole: int) -> int | None:
    """The last page's position: samples, of 48 kHz for Opus, of the header's rate for Vorbis."""
    place = data.find(_VORBIS, 0, _SEARCHED)
    rate = int.from_bytes(data[place + 12 : place + 16], "little") if place >= 0 else 48_000
    last = data.rfind(b"OggS", -_SEARCHED)
    samples = int.from_bytes(data[last + 6 : last + 14], "little") if last >= 0 else 0
    return -(-samples * 1000 // rate) if rate else None


def _mp3(data: bytes, whole: int) -> int | None:
    """The first frame, and the number of frames where an encoder wrote it (Xing, Info, VBRI); else a constant rate."""
    start = 0
    if data.startswith(b"ID3") and len(data) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    sync = _SYNC.search(data, start, start + _SEARCHED)
    if sync is None or len(data) < sync.start() + 4:
        return None
    place = sync.start()
    version, coded, rated = data[place + 1] >> 3 & 3, data[place + 2] >> 4, data[place + 2] >> 2 & 3
    if rated == 3 or coded == 15:
        return None
    rate, samples = _RATES[version][rated], _SAMPLES[version]
    frames = _frames(data[place : place + 200])
    if frames:
        return -(-frames * samples * 1000 // rate)
    kbits = _KBITS[3 if version == 3 else 2][coded]
    return -(-(whole - place) * 8 // kbits) if kbits else None


def _frames(head: bytes) -> int:
    for mark, flags, at in ((b"Xing", 4, 8), (b"Info", 4, 8), (b"VBRI", 0, 14)):
        place = head.find(mark)
        if place >= 0 and (not flags or head[place + 7] & 1):
            return int.from_bytes(head[place + at : place + at + 4], "big")
    return 0


def _mp4(data: bytes, whole: int) -> int | None:
    place = data.find(b"mvhd")
    if place < 0:
        return None
    wide = data[place + 4 : place + 5] == b"\x01"
    at, size = (place + 24, 8) if wide else (place + 16, 4)
    scale = int.from_bytes(data[at : at + 4], "big")
    length = int.from_bytes(data[at + 4 : at + 4 + size], "big")
    return -(-length * 1000 // scale) if scale else None


def _webm(data: bytes, whole: int) -> int | None:
    """The duration in milliseconds, which is the scale that every browser writes."""
    found = _DURATION.search(data, 0, _SEARCHED)
    if found is None:
        return None
    size = found.group(1)[0] - 0x80
    raw = data[found.end() : found.end() + size]
    value = struct.unpack(">f" if size == 4 else ">d", raw)[0] if len(raw) == size else 0.0
    return int(value) + 1 if 0 < value < LONGEST else None


_FORMS: Final[tuple[tuple[re.Pattern[bytes], Callable[[bytes, int], int | None]], ...]] = (
    (re.compile(rb"RIFF....WAVE", re.DOTALL), _wav),
    (re.compile(rb"fLaC"), _flac),
    (re.compile(rb"OggS"), _ogg),
    (re.compile(rb"....ftyp", re.DOTALL), _mp4),
    (re.compile(rb"\x1aE\xdf\xa3"), _webm),
    (re.compile(rb"ID3|\xff[\xe0-\xff]"), _mp3),
)
