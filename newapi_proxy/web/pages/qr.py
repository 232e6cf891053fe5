"""A text as a code to scan (QR, ISO/IEC 18004), for what people take over to their phone. Pure.

Bytes, error correction M, versions 1 to 6: at most 106 bytes, which is twice what payment links need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from newapi_proxy.web.pages.markup import Html, element

# By version: correction bytes of a block, and the data bytes of each block.
_BLOCKS: Final = ((10, (16,)), (16, (28,)), (26, (44,)), (18, (32, 32)), (24, (43, 43)), (16, (27, 27, 27, 27)))
_QUIET: Final = 4  # light modules around the code
_LEVEL_M: Final = 0
_MASKS: Final[tuple[Callable[[int, int], bool], ...]] = (
    lambda y, x: (y + x) % 2 == 0,
    lambda y, x: y % 2 == 0,
    lambda y, x: x % 3 == 0,
    lambda y, x: (y + x) % 3 == 0,
    lambda y, x: (y // 2 + x // 3) % 2 == 0,
    lambda y, x: y * x % 2 + y * x % 3 == 0,
    lambda y, x: (y * x % 2 + y * x % 3) % 2 == 0,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2 == 0,
)
Modules = list[list[bool]]


def picture(text: str, label: str) -> Html | None:
    """The code as a picture, None where the text is too long for one."""
    modules = code(text.encode())
    if modules is None:
        return None
    size = len(modules) + 2 * _QUIET
    dark = ((x + _QUIET, y + _QUIET) for y, row in enumerate(modules) for x, on in enumerate(row) if on)
    path = element("path", d="".join(f"M{x} {y}h1v1h-1z" for x, y in dark))
    box = f"0 0 {size} {size}"
    edges = "crispEdges"
    return element("svg", path, viewBox=box, role="img", aria_label=label, class_="scan", shape_rendering=edges)


def code(data: bytes) -> Modules | None:
    """The modules by row, True for a dark one; None where there is too much data."""
    version = next((one for one, (_, sizes) in enumerate(_BLOCKS, 1) if len(data) + 2 <= sum(sizes)), None)
    if version is None:
        return None
    size = 17 + 4 * version
    modules, fixed = _frame(version, size)
    for (y, x), bit in zip(_way(size, fixed), _bits(_codewords(version, data)), strict=False):
        modules[y][x] = bit
    found = [_masked(modules, fixed, number) for number in range(len(_MASKS))]
    return min(found, key=_unrest)


def _frame(version: int, size: int) -> tuple[Modules, Modules]:
    """What stands in every code of a version, and where nothing else may."""
    modules = [[False] * size for _ in range(size)]
    fixed = [[False] * size for _ in range(size)]

    def put(y: int, x: int, dark: bool) -> None:
        if 0 <= y < size and 0 <= x < size:
            modules[y][x], fixed[y][x] = dark, True

    for place in range(size):
        put(6, place, place % 2 == 0)
        put(place, 6, place % 2 == 0)
    for top, left in ((3, 3), (3, size - 4), (size - 4, 3)):
        for y in range(-4, 5):
            for x in range(-4, 5):
                put(top + y, left + x, max(abs(y), abs(x)) in (0, 1, 3))
    if version > 1:
        for y in range(-2, 3):
            for x in range(-2, 3):
                put(size - 7 + y, size - 7 + x, max(abs(y), abs(x)) != 1)
    for (y, x), _ in _format(size, 0):
        put(y, x, False)
    put(size - 8, 8, True)
    return modules, fixed


def _format(size: int, mask: int) -> Iterator[tuple[tuple[int, int], bool]]:
    """Where the level and the mask stand, twice, and their bits."""
    given = _LEVEL_M << 3 | mask
    rest = given
    for _ in range(10):
        rest = rest << 1 ^ (rest >> 9) * 0x537
    bits = (given << 10 | rest) ^ 0x5412
    first = [*((8, x) for x in (0, 1, 2, 3, 4, 5, 7, 8)), *((y, 8) for y in (7, 5, 4, 3, 2, 1, 0))]
    second = [*((size - 1 - place, 8) for place in range(7)), *((8, size - 8 + place) for place in range(8))]
    for places in (first, second):
        for number, place in enumerate(places):
            yield place, bool(bits >> 14 - number & 1)


def _way(size: int, fixed: Modules) -> Iterator[tuple[int, int]]:
    """The places of data, in pairs of columns from the right, up and down; the column of the dashed line has none."""
    for step, right in enumerate((*range(size - 1, 6, -2), 5, 3, 1)):
        rows = range(size) if step % 2 else range(size - 1, -1, -1)
        yield from ((y, x) for y in rows for x in (right, right - 1) if not fixed[y][x])


def _masked(modules: Modules, fixed: Modules, number: int) -> Modules:
    turns = _MASKS[number]
    found = [[dark ^ (not fixed[y][x] and turns(y, x)) for x, dark in enumerate(row)] for y, row in enumerate(modules)]
    for (y, x), bit in _format(len(modules), number):
        found[y][x] = bit
    return found


def _unrest(modules: Modules) -> int:
    """How hard a code is to read: runs of five and more, and squares of four."""
    lines = [*modules, *(list(column) for column in zip(*modules, strict=True))]
    runs = sum(length - 2 for line in lines for length in _runs(line) if length >= 5)
    rows = pairwise(modules)
    squares = sum(one[x] == one[x + 1] == other[x] == other[x + 1] for one, other in rows for x in range(len(one) - 1))
    return runs + 3 * squares


def _runs(line: list[bool]) -> Iterator[int]:
    length = 0
    for place, dark in enumerate(line):
        if place and dark != line[place - 1]:
            yield length
            length = 0
        length += 1
    yield length


def _codewords(version: int, data: bytes) -> bytes:
    """The data with its head and padding, and the correction, of all blocks in turn."""
    extra, sizes = _BLOCKS[version - 1]
    head = 4 << 8 | len(data)  # bytes follow, and how many
    whole = (head << 8 * len(data) | int.from_bytes(data)) << 4
    padded = whole.to_bytes(len(data) + 2) + b"\xec\x11" * sum(sizes)
    blocks = [padded[place * size : (place + 1) * size] for place, size in enumerate(sizes)]
    parts = ([*zip(*rows, strict=True)] for rows in (blocks, [_correction(block, extra) for block in blocks]))
    return bytes(one for part in parts for column in part for one in column)


def _bits(data: bytes) -> Iterator[bool]:
    for byte in data:
        for place in range(7, -1, -1):
            yield bool(byte >> place & 1)


def _tables() -> tuple[list[int], list[int]]:
    powers, logs, value = [0] * 255, [0] * 256, 1
    for exponent in range(255):
        powers[exponent], logs[value] = value, exponent
        value = value << 1 ^ (value >> 7) * 0x11D
    return powers, logs


_POWERS, _LOGS = _tables()


def _times(one: int, other: int) -> int:
    return _POWERS[(_LOGS[one] + _LOGS[other]) % 255] if one and other else 0


def _correction(block: bytes, count: int) -> bytes:
    """The remainder of the block by the polynomial of so many roots (Reed-Solomon)."""
    divisor = [1]
    for exponent in range(count):
        shifted = [*divisor, 0]
        divisor = [a ^ _times(b, _POWERS[exponent]) for a, b in zip(shifted, [0, *divisor], strict=True)]
    rest = [0] * count
    for byte in block:
        lead = byte ^ rest[0]
        rest = [one ^ _times(lead, two) for one, two in zip([*rest[1:], 0], divisor[1:], strict=True)]
    return bytes(rest)
