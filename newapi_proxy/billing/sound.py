"""How long a sound is: by what its head says, and never less than its bytes prove; nothing is decoded.

Knows WAV, FLAC, Ogg (Opus, Vorbis), MPEG audio, AAC, AMR, MP4 and WebM. Foreign bytes: the caller is a stranger, and
pays by it. What cannot be read is estimated by its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from newapi_proxy.billing import containers, frames
from newapi_proxy.billing.containers import Length, bytes_prove
from newapi_proxy.billing.frames import PIECE, Read
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.usage import Pieces

PER_SECOND: Final = 16_000  # bytes of MP3 at 128 kbit/s, and roughly of every other compressed form
LONGEST: Final = 24 * 3600 * 1000  # milliseconds: a head that says more lies
_LEAST: Final = 400  # bytes a second; no coder makes less of speech, so that no head may say more than that allows
_CUT: Final = 250  # milliseconds that a head may leave out of what lies in the file: what coders put around the sound
_CHAIN: Final = 8  # frames in a row that make MPEG audio of bytes without a mark
_MPEG: Final = 40_000  # bytes a second: 320 kbit/s
_HEADS: Final = re.compile(rb"Xing|Info|VBRI")
# WAV's codes for what has a fixed number of bits a sample; the others never take more than 16.
_FIXED: Final = frozenset({1, 3, 6, 7, 0xFFFE})
_RAW_FLAC: Final = 0.98  # frames of noise are a little larger than what is in them


def measured(ask: Ask) -> Ask:
    """A request to write a sound down, with the sound's length; any other as it is. Reads the whole file."""
    if ask.kind != "transcription" or ask.form is None:
        return ask
    file = ask.form.file("file")
    if file is None:
        return ask
    return msgspec.structs.replace(ask, pieces=Pieces(milliseconds=length(file.read, file.size)))


def milliseconds(data: bytes, size: int | None = None) -> int:
    """The length of a sound, rounded up; `size` where `data` is only its beginning."""
    return length(lambda at, most: data[at : at + most], len(data) if size is None else size)


def length(read: Read, size: int) -> int:
    """The length of a sound file of that size in milliseconds, rounded up."""
    if not size:
        return 0
    head = read(0, 16)
    found = next((reader for mark, reader in _FORMS if mark.match(head)), _unmarked)(read, size)
    told = found.told if 0 < found.told <= LONGEST else -(-size * 1000 // PER_SECOND)
    told = min(told, bytes_prove(size, _LEAST))
    return max(told, min(found.proved, LONGEST) if found.proved > told + _CUT else 0, 1)


def _wav(read: Read, size: int) -> Length:
    """RIFF: what the format says of a second, and the data's length; streams leave that at 0 or at its largest.

    What stands behind the data is other chunks or, where it is none that can be read, more of the sound.
    """
    at, rate, sound, begun = 12, 0, 0, 0
    while at + 8 <= size and len(head := read(at, 36)) >= 8:
        name, long = head[:4], int.from_bytes(head[4:8], "little")
        if not re.match(rb"[ -~]{4}", name):
            sound = max(sound, size - begun)
            break
        if name == b"fmt ":
            rate = _second(head[8:])
        if name == b"data":
            begun = begun or at + 8
            sound += min(long or size, size - at - 8)
            if not long:
                break
        at += 8 + long + long % 2
    told = -(-sound * 1000 // rate) if rate else 0
    return Length(told, min(told, bytes_prove(size, _LEAST)))


def _second(form: bytes) -> int:
    """The bytes of a second, by what a decoder goes by: not by the field of that name, where it need not be right."""
    code, channels, bits = (int.from_bytes(form[at : at + 2], "little") for at in (0, 2, 14))
    rate, said = (int.from_bytes(form[at : at + 4], "little") for at in (4, 8))
    if code in _FIXED:
        return rate * channels * -(-bits // 8)
    return min(said, rate * channels * 2)


def _flac(read: Read, size: int) -> Length:
    """The head's samples; the frames', and no more bytes than the samples would have raw."""
    head = read(0, 42)
    packed = int.from_bytes(head[18:26], "big")  # 20 bits of rate, 3 and 5 of channels and depth, 36 of samples
    rate, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    samples = packed & (1 << 36) - 1
    if not rate:
        return Length()
    at, last = 4, False
    while not last and len(head := read(at, 4)) == 4 and at < size:
        last = bool(head[0] & 0x80)
        at += 4 + int.from_bytes(head[1:], "big")
    raw = int(max(0, size - at) * _RAW_FLAC * 8 * 1000) // (rate * channels * bits)
    return Length(-(-samples * 1000 // rate), max(raw, frames.flac(read, at, size) * 1000 // rate))


def _mpeg(read: Read, size: int, *, sure: bool = True) -> Length:
    """The frames, but for the first where it only tells of the others (Xing, Info, VBRI)."""
    start, head = 0, read(0, 10)
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    piece = read(start, PIECE)
    begun = next((one.start() for one in frames.MPEG_SYNC.finditer(piece) if _chained(piece, one.start())), None)
    if begun is None and not sure:
        return Length()
    if begun is None:  # behind ID3 it may be AAC
        return _walked(-(-frames.lasting(read, start, size, frames.aac, frames.AAC_SYNC) // 1), size - start)
    frame = frames.mpeg(piece, begun)
    skipped = frame[0] if frame is not None and _HEADS.search(piece, begun, begun + 200) else 0
    start += begun
    lasts = frames.lasting(read, start + skipped, size, frames.mpeg, frames.MPEG_SYNC)
    return _walked(-(-lasts // 1), size - start)


def _unmarked(read: Read, size: int) -> Length:
    """What has no form's mark may be MPEG audio behind something else, which decoders find."""
    return _mpeg(read, size, sure=False)


def _chained(piece: bytes, at: int) -> bool:
    """Whether frame follows upon frame from there, as far as there is one to be seen."""
    for count in range(_CHAIN):
        if at + 3 > len(piece):
            return count > 0
        frame = frames.mpeg(piece, at)
        if frame is None:
            return False
        at += frame[0]
    return True


def _walked(lasts: int, size: int) -> Length:
    return Length(lasts, max(lasts, bytes_prove(max(0, size), _MPEG)))


def _aac(read: Read, size: int) -> Length:
    return _walked(-(-frames.lasting(read, 0, size, frames.aac, frames.AAC_SYNC) // 1), size)


def _amr(read: Read, size: int) -> Length:
    wide = read(0, 9).startswith(b"#!AMR-WB\n")
    return _walked(-(-frames.lasting(read, 9 if wide else 6, size, frames.wide if wide else frames.narrow) // 1), size)


_FORMS: Final[tuple[tuple[re.Pattern[bytes], Callable[[Read, int], Length]], ...]] = (
    (re.compile(rb"(RIFF|RF64)....WAVE", re.DOTALL), _wav),
    (re.compile(rb"fLaC"), _flac),
    (re.compile(rb"OggS"), containers.ogg),
    (re.compile(rb"....ftyp", re.DOTALL), containers.mp4),
    (re.compile(rb"\x1aE\xdf\xa3"), containers.webm),
    (re.compile(rb"#!AMR(-WB)?\n"), _amr),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), _aac),
    (re.compile(rb"ID3|\xff[\xe0-\xff]"), _mpeg),
)
