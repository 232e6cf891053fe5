"""Sound files of our own making, as far as their length can be read: real structure, no sound in them."""

from __future__ import annotations

import io
import struct
import wave

OPUS_20 = 0b01001 << 3  # an Opus packet's first byte: wide band, one frame of 20 ms


def wav(seconds: float, rate: int = 16_000) -> bytes:
    """16 bits, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(2 * int(seconds * rate)))
    return file.getvalue()


def crc8(data: bytes) -> int:
    """FLAC's, bit by bit."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value


def flac(samples: int, rate: int = 44_100, *, frames: int = 0, size: int = 900) -> bytes:
    """A head that tells so many samples, and frames of 4096, each of so many bytes."""
    packed = (rate << 44) | (1 << 41) | (15 << 36) | samples
    head = b"fLaC\x80\x00\x00\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16)
    made = [head]
    for number in range(frames):
        one = b"\xff\xf8\xc9\x18" + chr(number).encode()
        made.append(one + bytes([crc8(one)]) + bytes(size))
    return b"".join(made)


def page(kind: int, granule: int, *packets: bytes) -> bytes:
    """An Ogg page of whole packets."""
    laces = b"".join(b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in packets)
    head = b"OggS\x00" + bytes([kind]) + granule.to_bytes(8, "little") + bytes(12) + bytes([len(laces)])
    return head + laces + b"".join(packets)


def opus(packets: int, granule: int, *, size: int = 60) -> bytes:
    """An Ogg of Opus packets of 20 ms, ten a page; the last page tells the position."""
    head = page(2, 0, b"OpusHead\x01\x01" + (312).to_bytes(2, "little") + bytes(7))
    made = [head, page(0, 0, b"OpusTags" + bytes(20))]
    one = bytes([OPUS_20]) + bytes(size - 1)
    made += [page(0, 0, *[one] * 10) for _ in range(packets // 10 - 1)]
    return b"".join([*made, page(4, granule, *[one] * 10)])


def vorbis(samples: int, rate: int = 44_100, *, size: int = 30_000) -> bytes:
    """An Ogg of Vorbis."""
    head = page(2, 0, b"\x01vorbis" + bytes(5) + rate.to_bytes(4, "little") + bytes(14))
    return head + b"".join(page(0, 0, bytes(3000)) for _ in range(size // 3000)) + page(4, samples, bytes(40))


def mp3(frames: int, more: bytes = b"", *, head: bytes = b"\xff\xfb\x90\x00", size: int = 417) -> bytes:
    """MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes a frame of 1152 samples. A first frame with more in it."""
    first = b"\xff\xfb\x90\x00" + bytes(32) + more
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x05" + b"hello"
    return tag + first + bytes(417 - len(first)) + (head + bytes(size - 4)) * frames


def adts(frames: int, size: int = 50) -> bytes:
    """AAC of 16 kHz."""
    head = bytes([0xFF, 0xF1, 0x40 | 8 << 2, 0x40 | size >> 11, size >> 3 & 255, (size & 7) << 5, 0])
    return (head + bytes(size - 7)) * frames


def amr(frames: int) -> bytes:
    """AMR at 4.75 kbit/s."""
    return b"#!AMR\n" + (b"\x04" + bytes(12)) * frames


def box(name: bytes, *parts: bytes) -> bytes:
    """A box of an MP4."""
    body = b"".join(parts)
    return (8 + len(body)).to_bytes(4, "big") + name + body


def mp4(
    told: int, samples: int, *, delta: int = 1024, rate: int = 16_000, kind: bytes = b"soun", data: int = 50_000
) -> bytes:
    """An M4A that tells so many milliseconds and has so many samples of AAC, each of `delta` ticks."""
    entry = box(b"mp4a", bytes(24), (rate << 16).to_bytes(4, "big"))
    table = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), entry),
        box(b"stts", bytes(4), struct.pack(">III", 1, samples, delta)),
        box(b"stsz", bytes(4), struct.pack(">II", 0, samples)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", bytes(12), struct.pack(">II", rate, 0), bytes(4)),
        box(b"hdlr", bytes(8), kind, bytes(12)),
        box(b"minf", table),
    )
    moov = box(b"moov", box(b"mvhd", bytes(12), struct.pack(">II", 1000, told), bytes(80)), box(b"trak", media))
    return box(b"ftyp", b"M4A ", bytes(4)) + box(b"mdat", bytes(data)) + moov


def fragmented(fragments: int, samples: int, rate: int = 16_000) -> bytes:
    """An MP4 whose samples lie in fragments, of which nothing stands in front."""
    whole = mp4(0, 0, rate=rate, data=0)
    traf = box(b"traf", box(b"tfhd", bytes(8)), box(b"trun", bytes(4), samples.to_bytes(4, "big")))
    return whole + (box(b"moof", box(b"mfhd", bytes(8)), traf) + box(b"mdat", bytes(samples * 40))) * fragments


def element(id: str, *parts: bytes) -> bytes:
    """An element of WebM."""
    body = b"".join(parts)
    return bytes.fromhex(id) + (1 << 56 | len(body)).to_bytes(8, "big") + body


def webm(told: float | None, blocks: int, *, step: int = 20, codec: bytes = b"A_OPUS", size: int = 60) -> bytes:
    """A WebM of Opus packets of 20 ms, fifty a cluster, whose times are `step` apart."""
    info = element("1549A966", element("2AD7B1", (1_000_000).to_bytes(3, "big")), _lasts(told))
    track = element("1654AE6B", element("AE", element("D7", b"\x01"), element("83", b"\x02"), element("86", codec)))
    payload = bytes([OPUS_20]) + bytes(size - 1)
    clusters = []
    for first in range(0, blocks, 50):
        times = [(at * step).to_bytes(2, "big") for at in range(min(50, blocks - first))]
        many = [element("A3", b"\x81", time, b"\x80", payload) for time in times]
        clusters.append(element("1F43B675", element("E7", (first * step).to_bytes(4, "big")), *many))
    return element("1A45DFA3", bytes(20)) + element("18538067", info, track, *clusters)


def _lasts(told: float | None) -> bytes:
    return b"" if told is None else element("4489", struct.pack(">d", told))
