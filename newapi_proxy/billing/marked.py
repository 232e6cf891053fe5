"""A text cut into chunks with marks for where words begin and end: what Anthropic's tokenizer sees in place of spaces.

No chunk's tokens reach into the next one. Facts: the measurements published with ctok (`data/ctok/NOTICE`); the rules
are written here anew. Pure text, linear in its length; what a chunk costs is `tiling`'s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Final

import msgspec

# Marks are private characters: none is left in a text that went through `normal`.
BEGIN, END, TITLE, UPPER = "\ue000", "\ue001", "\ue002", "\ue003"
_LONGEST_SLICE: Final = 65_536  # characters looked at under one hold of the interpreter
_WITHOUT: Final = 1_048_576  # where no better place is found up to there, a slice ends
_LEAST_CAPITALS: Final = 4  # a word of so many capitals is written small behind one mark

# Combining marks that are no part of a word (Unicode's Alphabetic is not in the standard library), hexadecimal.
_SEPARATORS: Final = (
    "300-344 346-362 483-489 591-5af 658 6df-6e0 6ea-6ec 740-74a 7eb-7f3 7fd 818-819 82d 859-85b 898-89f 8ca-8d3 "
    "8e0-8e1 8ea-8ef 93c 94d 951-954 9bc 9cd 9fe a3c a4d abc acd afd-aff b3c b4d b53-b55 bcd c3c c4d cbc ccd d3b-d3c "
    "d4d dca e47-e4c e4e eba ec8-ecc ece f18-f19 f35 f37 f39 f3e-f3f f84 f86-f87 fc6 1037 1039-103a 135d-135f "
    "1714-1715 1734 17b4-17b5 17c9-17d3 17dd 180b-180d 180f 1939-193b 1a60 1a75-1a7c 1a7f 1ab0-1abe 1ac1-1acb "
    "1acf-1af0 1b34 1b44 1b6b-1b73 1baa-1bab 1be6 1bf2-1bf3 1c37 1cd0-1cd2 1cd4-1ce8 1ced 1cf4 1cf7-1cf9 1dc0-1dd2 "
    "1df5-1dff 20d0-20f0 2cef-2cf1 2d7f 302a-302f 3099-309a a66f-a672 a67c-a67d a6f0-a6f1 a806 a82c a8c4 a8e0-a8f1 "
    "a92b-a92d a953 a9b3 a9c0 aabf aac1 aaf6 abec-abed fe00-fe0f fe20-fe2f"
)
# What stands alone though Unicode calls it a letter: ideographs, their repeaters, Hangul.
_ALONE: Final = "3005-3006 3031-3035 303b-303c 3400-4dbf 4e00-9fff ac00-d7a3 f900-faff"
_LETTERS: Final = "897 cf3 1c89-1c8a 16ee-16f0 2160-2188 24b6-24e9 a6e6-a6ef a7cb"  # what it does not, and is one here
_IDEOGRAPHIC: Final = "3001-303f"  # punctuation and signs that run with ideographs

_QUOTES: Final = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
_CONTROLS: Final = {code: None for code in (*range(1, 9), *range(0x0B, 0x20), *range(0x7F, 0xA0))}
_BLANKS: Final = {code: " " for code in (0, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F)}
_FOLDED: Final = {**_CONTROLS, **_BLANKS}
_ODD: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2018\u2019\u201c\u201d\u2028\u2029\u202f\u205f]"
)
_LONE: Final = re.compile("[\ud800-\udfff]")
_PIECES: Final = re.compile("[\x00-\x7f]*[^\x00-\x7f]{0,512}")  # no mark is parted from its letter but after so many
_UNSAID: Final = re.compile("[\ue000-\uf8ff]+")
_CAPITALS: Final = {"\u1c89": "\u1c8a", "\ua7cb": "\u0264"}  # pairs that an older Unicode does not have


def normal(text: str, *, quotes: bool) -> str:
    """The text as the tokenizer reads it: composed, without controls, one kind of space; `quotes`: straight ones."""
    if not text.isascii():
        text = _composed(_LONE.sub("\ufffd", text))
        text = _UNSAID.sub("", text.replace("\u0e4d\u0e32", "\u0e33"))
    if _ODD.search(text):
        text = text.translate({**_FOLDED, **_QUOTES} if quotes else _FOLDED)
    return text


def _composed(text: str) -> str:
    """The text composed, in pieces: to sort combining marks takes time by the square of how many stand in a row."""
    return "".join([unicodedata.normalize("NFC", piece) for piece in _PIECES.findall(text)])


def chunks(text: str, *, after: bool = False) -> Iterator[list[str]]:
    """The chunks of a normal text, a slice of it at a time. `after`: it follows something and a space."""
    rules = _rules()
    position, before = 0, ": " if after else ""
    while position < len(text) or before == ": ":
        stop = _slice(text, position)
        found = _marked(before + text[position:stop], rules)
        yield found[1:] if before else found
        position, before = stop, "a" if text.startswith(" ", stop) else ""


def cased(word: str, *, upper: bool) -> str:
    """A word with its marks as the vocabulary spells it: capitals become small letters behind a mark.

    `upper`: there is a mark for words that are capitals throughout. Words that mix them stay as they are.
    """
    said = word[1:-1]
    if said.islower() or "\u1e9e" in said:
        return word
    first, rest = said[0], said[1:]
    if upper and len(said) >= _LEAST_CAPITALS and "\u0130" not in said and all(map(_capital, said)):
        return UPPER + BEGIN + "".join(map(_small, said)) + END
    if _capital(first) and first != "\u0130" and not any(_capital(one) for one in rest if one != "\u0130"):
        return TITLE + BEGIN + _small(first) + "".join(one if one == "\u0130" else _small(one) for one in rest) + END
    return word


def _capital(letter: str) -> bool:
    return letter in _CAPITALS or (letter.isupper() and _small(letter) != letter)


def _small(letter: str) -> str:
    return letter if letter == "\u03f4" else _CAPITALS.get(letter, letter.lower())


class _Rules(msgspec.Struct, frozen=True):
    word: re.Pattern[str]
    before: re.Pattern[str]
    behind: re.Pattern[str]
    short: re.Pattern[str]
    seam: re.Pattern[str]
    chunk: re.Pattern[str]


def _marked(text: str, rules: _Rules) -> list[str]:
    """Words get both marks; what else is marked gets one where a space is, and a space between marks is gone."""
    parts = rules.word.split(text)  # every second one is a word; a third of the time that a substitution takes
    parts[1::2] = [f"{BEGIN}{word}{END}" for word in parts[1::2]]
    text = rules.before.sub(BEGIN, "".join(parts))
    text = rules.behind.sub(END, text)
    text = rules.short.sub(rf"'\1{END}", text)
    text = rules.seam.sub(END, text)
    return rules.chunk.findall(text)


def _slice(text: str, position: int) -> int:
    """Where a slice may end: before a line's end, or between two words, the latter of which then follows one."""
    if len(text) - position <= _LONGEST_SLICE:
        return len(text)
    found = _CUT.search(text, position + _LONGEST_SLICE, position + _WITHOUT)
    return found.end() if found else min(len(text), position + _WITHOUT)


_CUT: Final = re.compile(r"[^\s](?=\n)|[a-z](?= [a-z])")


@cache
def _rules() -> _Rules:
    letters, edges = _classes()
    return _Rules(
        word=re.compile(f"([{letters}]+)"),
        before=re.compile(f"(?<= )(?=[{edges}])(?!'{BEGIN})"),
        behind=re.compile(f"(?<=[{edges}])(?= (?! ))"),
        # the apostrophe is the boundary of what follows, where it stands alone
        short=re.compile(f"(?<![{edges}])'{BEGIN}(s|t|d|m|ll|re|ve){END}"),
        seam=re.compile(f"{END} (?={BEGIN})"),
        chunk=re.compile(
            rf"{BEGIN}[{letters}]+{END}"
            rf"|{BEGIN}?[^ \t\n\u3000{letters}{BEGIN}{END}]+(?:[{letters}]*{END})?"
            rf"|[ \t\n\u3000]+"
        ),
    )


def _classes() -> tuple[str, str]:
    """The characters of words, and those that are marked at a space, as they stand in a set of a regular expression."""
    separators, alone, more, ideographic = (
        frozenset(_codes(ranges)) for ranges in (_SEPARATORS, _ALONE, _LETTERS, _IDEOGRAPHIC)
    )
    letters, edges = [], []
    for code in range(0x10000):
        kind = unicodedata.category(chr(code))
        if code in separators:
            edges.append(code)
        elif code in more or (kind[0] in "LM" and code not in alone):
            letters.append(code)
        elif code in ideographic and (kind[0] == "P" or kind == "So"):
            continue
        elif kind[0] in "PS" or kind in ("Cf", "Cn", "No") or (kind == "Nd" and code >= 0x80):
            edges.append(code)
    return _set(letters), _set(edges)


def _codes(ranges: str) -> Iterator[int]:
    for first, _, last in (one.partition("-") for one in ranges.split()):
        yield from range(int(first, 16), int(last or first, 16) + 1)


def _set(codes: list[int]) -> str:
    runs: list[list[int]] = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in runs)
