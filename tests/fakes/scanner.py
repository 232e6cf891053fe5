"""Reads a code to scan from its modules, as a phone does: level and mask from their place, the bytes along the way.

Written from the description of QR codes (ISO/IEC 18004), for codes without damage: the correction is checked, not used.
"""

from __future__ import annotations

from typing import Final

# By version, for correction level M: correction bytes of a block, data bytes of each block.
_LEVEL_M: Final = {1: (10, [16]), 2: (16, [28]), 3: (26, [44]), 4: (18, [32, 32]), 5: (24, [43, 43]), 6: (16, [27] * 4)}


def _product(one: int, other: int) -> int:
    """In the field of 256 elements by x^8 + x^4 + x^3 + x^2 + 1."""
    found = 0
    while other:
        if other & 1:
            found ^= one
        one <<= 1
        if one & 256:
            one ^= 285
        other >>= 1
    return found


def _sound(block: bytes, correction: int) -> bool:
    """Whether the block is a multiple of the polynomial: it has the roots 2^0 to 2^(n-1)."""
    root = 1
    for _ in range(correction):
        value = 0
        for byte in block:
            value = _product(value, root) ^ byte
        if value:
            return False
        root = _product(root, 2)
    return True


def _turned(mask: int, i: int, j: int) -> bool:
    match mask:
        case 0:
            return (i + j) % 2 == 0
        case 1:
            return i % 2 == 0
        case 2:
            return j % 3 == 0
        case 3:
            return (i + j) % 3 == 0
        case 4:
            return (i // 2 + j // 3) % 2 == 0
        case 5:
            return (i * j) % 2 + (i * j) % 3 == 0
        case 6:
            return ((i * j) % 2 + (i * j) % 3) % 2 == 0
        case _:
            return ((i + j) % 2 + (i * j) % 3) % 2 == 0


def _reserved(size: int, i: int, j: int) -> bool:
    """Whether no data stands there."""
    if i == 6 or j == 6 or (i < 9 and (j < 9 or j >= size - 8)) or (j < 9 and i >= size - 8):
        return True
    return size > 21 and abs(i - (size - 7)) <= 2 and abs(j - (size - 7)) <= 2


def read(modules: list[list[bool]]) -> bytes:
    """The bytes that the code says. Fails where it is none of level M."""
    size = len(modules)
    version = (size - 17) // 4
    places = [(8, 0), (8, 1), (8, 2), (8, 3), (8, 4), (8, 5), (8, 7), (8, 8), (7, 8)]
    places += [(5, 8), (4, 8), (3, 8), (2, 8), (1, 8), (0, 8)]
    told = int("".join("1" if modules[i][j] else "0" for i, j in places), 2) ^ 0b101010000010010
    level, mask = told >> 13, told >> 10 & 7
    assert level == 0, "level M"
    bits = ""
    for step, right in enumerate([*range(size - 1, 7, -2), 5, 3, 1]):
        for down in range(size):
            i = down if step % 2 else size - 1 - down
            for j in (right, right - 1):
                if not _reserved(size, i, j):
                    bits += "1" if modules[i][j] != _turned(mask, i, j) else "0"
    words = [int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8)]
    correction, sizes = _LEVEL_M[version]
    count = len(sizes)
    blocks = [words[number : sizes[0] * count : count] for number in range(count)]
    ends = [words[sum(sizes) + number : sum(sizes) + correction * count : count] for number in range(count)]
    assert all(_sound(bytes(block + end), correction) for block, end in zip(blocks, ends, strict=True)), "correction"
    text = "".join(f"{word:08b}" for block in blocks for word in block)
    assert text[:4] == "0100", "bytes"
    length = int(text[4:12], 2)
    return bytes(int(text[at : at + 8], 2) for at in range(12, 12 + 8 * length, 8))
