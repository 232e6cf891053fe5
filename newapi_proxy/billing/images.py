"""What media cost in tokens before a provider says so: pictures by their size, files, sound and films by their length.

Source: provider-translation E.4. Sizes come from the first bytes of a payload; no picture is decoded, nothing fetched.
"""

from __future__ import annotations

import binascii
import math
import re
from typing import Final

from newapi_proxy.billing import encodings, sound
from newapi_proxy.ir.ask import Media

Size = tuple[int, int]

# OpenAI, by prefix of the name, longest first: patches of 32 pixels times a factor, or tiles (base, per tile).
_PATCHES: Final = {
    "gpt-4.1-mini": 1.62,
    "gpt-4.1-nano": 2.46,
    "o4-mini": 1.72,
    "gpt-5-mini": 1.2,
    "gpt-5-nano": 1.5,
}
_TILES: Final = {
    "gpt-4o-mini": (2833, 5667),
    "gpt-5": (70, 140),
    "o1": (75, 150),
    "o3": (75, 150),
    "computer-use": (65, 129),
}
_FLAT: Final = {"glm-4": 1047}  # whatever the size
_TILE: Final = (85, 170)  # every other OpenAI model, and every model of unknown make
MOST_PATCHES: Final = 1536
_UNKNOWN_PATCHES: Final = 1024  # a picture by address that nobody fetched
_UNKNOWN_CLAUDE: Final = 1000
_CLAUDE: Final = ((1568, 1568), (2576, 4784))  # a picture's side in pixels, patches at most: older models, the newest
_CLAUDE_PATCH: Final = 28
_CLAUDE_AROUND: Final = 3
_GEMINI_TILE: Final = 258
_GEMINI_3: Final = (1100, 1120)  # where the size is unknown, at most
_IN_ROWS: Final = re.compile(r"(mi|mini|magi)stral|pixtral")
_ROW: Final = (28, 1540)  # pixels of a patch's side, of a picture's
# Whole documents: tokens a page by make of model (`tiles`: OpenAI's, and what is unknown); bytes of one that cannot be
# counted.
_PAGE: Final = {"tiles": 250, "claude": 2000, "gemini2": 258, "gemini3": 560}
_PAGE_BYTES: Final = 50_000
_PAGE_MARK: Final = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_SCANNED: Final = 4 * 1024 * 1024  # base64 characters of a document that are looked through for pages
_SOUND: Final = {"tiles": 10, "claude": 10, "gemini2": 32, "gemini3": 25}  # tokens a second
_RAW: Final = {"pcm": 48, "pcm16": 48, "l16": 48, "g711_ulaw": 8, "g711_alaw": 8}  # bytes a millisecond, no head
_FILM: Final = {"tiles": 263, "claude": 263, "gemini2": 295, "gemini3": 91}  # tokens a second, its sound included
_FILM_BYTES: Final = 250_000
_UNSEEN: Final = {"audio": 256, "video": 8192, "file": 4096}  # by address: nothing is known of the length


def tokens(media: Media, model: str, *, sized: bool = True) -> int:
    """The estimate for one part. `sized` False: a picture at three times the base, whatever its size (GET_MEDIA_TOKEN).

    A text document costs nothing here: its text is counted with the prompt's.
    """
    if media.kind == "image":
        return picture(model, size(payload(media)) if sized else None, media.detail, sized=sized)
    if media.text is not None:
        return 0
    data = payload(media)
    if data is None:
        return _UNSEEN[media.kind]
    make = _make(model)
    length = (len(data) - data[-2:].count("=")) * 3 // 4
    if media.kind == "file":
        return _PAGE[make] * _pages(data, length)
    if media.kind == "audio":
        form = (media.media_type or "").rpartition("/")[2].removeprefix("x-")
        raw = _RAW.get(form)
        lasts = -(-length // raw) if raw else sound.milliseconds(_decoded(data[:_SCANNED]), length)
        return -(-_SOUND[make] * lasts // 1000)
    return math.ceil(_FILM[make] * length / _FILM_BYTES)


def picture(model: str, size: Size | None, detail: str | None = None, *, sized: bool = True) -> int:
    """A picture's tokens; `size` None: unknown, the stated default of the model's kind."""
    make = _make(model)
    if make == "claude":
        return _claude(model, size)
    if make != "tiles":
        return _gemini(model, size, make)
    name = encodings.bare(model)
    if size is not None and _IN_ROWS.match(name):
        return _rows(size)
    flat = next((value for prefix, value in _FLAT.items() if name.startswith(prefix)), None)
    if flat is not None:
        return flat
    factor = next((value for prefix, value in _PATCHES.items() if name.startswith(prefix)), None)
    if factor is not None and sized:
        return math.ceil(_patches(size, detail) * factor)
    base, tile = next((pair for prefix, pair in _TILES.items() if name.startswith(prefix)), _TILE)
    if not sized:
        return 3 * base
    if detail == "low":
        return base
    return base + tile * (4 if size is None else _tiles(size))


def payload(media: Media) -> str | None:
    """The part's base64 text, from its data or a data: address; None where it is elsewhere."""
    if media.data is not None:
        return media.data
    if media.url is not None and media.url.startswith("data:"):
        return media.url.partition(",")[2]
    return None


def size(data: str | None) -> Size | None:
    """Width and height from the head of a base64 PNG, GIF, WebP or JPEG; None where it is none or cut off.

    Most heads fit 4 KiB; a JPEG may carry a colour profile or a preview before its size.
    """
    if not data:
        return None
    for length in (4096, 131_072, 1_048_576):
        head = _decoded(data[:length])
        found = _dimensions(head)
        if found is not None or not head.startswith(b"\xff\xd8") or len(data) <= length:
            break
    return found if found and found[0] > 0 and found[1] > 0 else None


def _decoded(text: str) -> bytes:
    clean = text.translate(_URL_SAFE)
    for cut in range(4):
        try:
            return binascii.a2b_base64(clean[: len(clean) - cut])
        except (binascii.Error, ValueError):  # cut inside a group of four, or not ASCII
            continue
    return b""


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _dimensions(head: bytes) -> Size | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(head)
    return None


def _webp(head: bytes) -> Size | None:
    form = head[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if form == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _jpeg(head: bytes) -> Size | None:
    position = 2
    while position + 9 <= len(head):
        if head[position] != 0xFF:
            return None
        marker = head[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(head[position + 5 : position + 7], "big")
            return int.from_bytes(head[position + 7 : position + 9], "big"), height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            position += 2
        else:
            position += 2 + max(2, int.from_bytes(head[position + 2 : position + 4], "big"))
    return None


def _make(model: str) -> str:
    name = encodings.bare(model)
    if "claude" in name:
        return "claude"
    if "gemini-" in name:
        return "gemini2" if re.search(r"gemini-[12]", name) else "gemini3"
    return "tiles"


def _fitted(size: Size, longest: float, shortest: float | None = None) -> tuple[float, float]:
    """The size scaled down, never up, into a square, then to a shortest side."""
    width, height = size
    scale = min(1.0, longest / max(width, height))
    if shortest is not None:
        scale = min(scale, max(shortest / min(width, height), 0.0)) if min(size) * scale > shortest else scale
    return width * scale, height * scale


def _tiles(size: Size) -> int:
    """Fitted into 2048 first, as provider-translation E.4 has it and upstream says: 128x5000 are 4 tiles, 765 tokens.

    The inherited vector for it (relay-and-billing 5.7.4: 1785) is of a counter without that step, which would charge a
    long picture more than twice what upstream does; the other vectors are the same both ways.
    """
    width, height = _fitted(size, 2048, 768)
    return max(1, math.ceil(round(width, 6) / 512)) * max(1, math.ceil(round(height, 6) / 512))


def _patches(size: Size | None, detail: str | None) -> int:
    if size is None:
        return _UNKNOWN_PATCHES
    width, height = _fitted(size, 512) if detail == "low" else (float(size[0]), float(size[1]))
    count = math.ceil(width / 32) * math.ceil(height / 32)
    if count <= MOST_PATCHES:
        return count
    shrink = math.sqrt(32 * 32 * MOST_PATCHES / (width * height))
    across, down = width * shrink / 32, height * shrink / 32
    if across >= 1 and down >= 1:  # whole patches in the tighter direction, so that the rounding up stays below the cap
        shrink *= min(math.floor(across) / across, math.floor(down) / down)
    across, down = round(width * shrink / 32, 6), round(height * shrink / 32, 6)
    return min(MOST_PATCHES, math.ceil(across) * math.ceil(down))


def _rows(size: Size) -> int:
    """Mistral's: rows of patches with a break between them."""
    width, height = _fitted(size, _ROW[1])
    across, down = (max(1, math.ceil(round(side, 6) / _ROW[0])) for side in (width, height))
    return across * down + down - 1


def _claude(model: str, size: Size | None) -> int:
    """Patches, and what is around them."""
    if size is None:
        return _UNKNOWN_CLAUDE
    longest, most = _CLAUDE[encodings.encoding(model) == "claude5"]
    across, down = (math.ceil(round(side, 6) / _CLAUDE_PATCH) for side in _fitted(size, longest))
    return min(most, across * down) + _CLAUDE_AROUND


def _gemini(model: str, size: Size | None, make: str) -> int:
    if make == "gemini3":
        if size is None:
            return _GEMINI_3[0]
        across = max(1, math.isqrt(_GEMINI_3[1] * size[0] // size[1]))  # whole patches in the picture's own shape
        return min(_GEMINI_3[1], across * max(1, math.isqrt(_GEMINI_3[1] * size[1] // size[0])))
    if size is None or max(size) <= 384:
        return _GEMINI_TILE
    if "gemini-2.5" in model:
        return _GEMINI_TILE * math.ceil(size[0] / 768) * math.ceil(size[1] / 768)
    side = min(768, max(256, int(min(size) / 1.5)))  # tiles of that side, and one view of the whole
    return _GEMINI_TILE * (math.ceil(size[0] / side) * math.ceil(size[1] / side) + 1)


def _pages(data: str, length: int) -> int:
    marked = len(_PAGE_MARK.findall(_decoded(data[:_SCANNED])))
    if len(data) > _SCANNED:
        marked = marked * len(data) // _SCANNED
    return marked or max(1, length // _PAGE_BYTES)
