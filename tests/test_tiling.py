"""Claude's tokenizer, rebuilt: counts of the published reconstruction, chunks, cost in steps, the table's safety."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.billing import count, encodings, marked, tiling
from newapi_proxy.billing.marked import BEGIN, END, TITLE, UPPER, cased, chunks, normal
from newapi_proxy.billing.tiling import LONGEST, Vocabulary
from newapi_proxy.errors import OurError

OLD, NEW = "claude-sonnet-4-5", "claude-opus-4-8"
# Characters that an older Unicode than the tables' does not have, and lone halves, which no JSON brings, are left out.
TEXT: Final = st.text(st.characters(exclude_categories=["Cn", "Cs"]), max_size=60)


@pytest.fixture(scope="module")
def older() -> Vocabulary:
    return tiling.load("claude3")


@pytest.fixture(scope="module")
def newer() -> Vocabulary:
    return tiling.load("claude5")


@pytest.mark.parametrize(
    ("text", "old", "middle", "new"),
    [
        ("The quick brown fox jumps over the lazy dog.", 11, 18, 18),
        ("It's a TEST, isn't it? 'quoted' \"words\"", 16, 21, 21),
        ("def f(x):\n    return x  # 12345\n\n\n\tend", 17, 17, 17),
        ("你好，世界！这是一个测试。", 14, 14, 13),
        ("Привет, мир! Как дела?", 12, 12, 12),
        ("हिन्दी में लिखा", 11, 11, 11),
        ("สวัสดีน้ำ", 11, 11, 11),
        ("한국어 문장입니다", 10, 10, 9),
        ("العربية ١٢٣", 9, 9, 9),
        ("caf\u00e9 cafe\u0301", 2, 2, 2),
        ("👨\u200d👩\u200d👧 😀😀 ⚖\ufe0f", 22, 22, 21),
        ("HTTP JSON fooBar İstanbul ẞ ΣΙΣΥΦΟΣ", 20, 36, 36),
        ("\u201ccurly\u201d \u2018q\u2019 — … ² ½", 14, 16, 16),
        ("a\u00a0b\u200bc\x07d\ue000e", 5, 5, 5),
        ("!!!!????----====", 5, 7, 7),
        ('{"city": "Paris", "n": [1, 2, 3]}', 18, 22, 22),
        (" leading", 1, 2, 3),
        ("  two leading", 3, 4, 4),
        ("trailing\n\n\n", 1, 3, 3),
        ("\n\nlines", 3, 4, 3),
        ("1 2 3", 6, 6, 5),
        ("", 1, 1, 0),
        ("\ufdd0\ufdd3 x", 9, 9, 8),
    ],
)
def test_a_message_is_counted_as_measured(
    text: str, old: int, middle: int, new: int, older: Vocabulary, newer: Vocabulary
) -> None:
    """Words, code, scripts, marks, capitals, blanks: as ctok counts them for Opus 4.5, Opus 4.7 and Opus 4.8."""
    assert older.said(text, headed=True) == old
    assert newer.said(text, headed=True) == middle
    assert newer.said(text, headed=False) == new


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a b", ["<a>", "<b>"]),
        ("a, b! c", ["<a>", ",>", "<b>", "!>", "<c>"]),
        ("a (b) 1", ["<a>", "<(", "<b>", ")>", " ", "1"]),
        ("it's 'em x's", ["<it>", "'s>", " ", "'", "<em>", "<x>", "'s>"]),
        ("a\n  b", ["<a>", "\n  ", "<b>"]),
        ("文字 ok", ["文字", " ", "<ok>"]),
        ("1,2", ["1,2"]),
        ("a!  b", ["<a>", "!", "  ", "<b>"]),
    ],
)
def test_chunks(text: str, wanted: list[str]) -> None:
    """Words stand between marks, signs are marked at a space, and one space between two marks is gone."""
    found = [chunk for part in chunks(normal(text, quotes=True)) for chunk in part]
    assert [chunk.replace(BEGIN, "<").replace(END, ">") for chunk in found] == wanted


@pytest.mark.parametrize(
    ("word", "upper", "wanted"),
    [
        ("Word", True, f"{TITLE}<word>"),
        ("WORD", True, f"{UPPER}<word>"),
        ("WORD", False, "<WORD>"),
        ("WOR", True, "<WOR>"),
        ("wiFi", True, "<wiFi>"),
        ("Éa", True, f"{TITLE}<éa>"),
        ("ΣΙΣΣ", True, f"{UPPER}<σισσ>"),
        ("STRAẞE", True, "<STRAẞE>"),
    ],
)
def test_capitals(word: str, upper: bool, wanted: str) -> None:
    """A capital at the beginning, or capitals throughout, are a mark; what is mixed stays as it is."""
    assert cased(f"{BEGIN}{word}{END}", upper=upper).replace(BEGIN, "<").replace(END, ">") == wanted


@settings(max_examples=200)
@given(TEXT)
def test_any_text_counts(text: str) -> None:
    """Both generations count whatever comes, the same each time, and never more than a few tokens a byte."""
    for name in ("claude3", "claude5"):
        words = tiling.load(name)
        total = words.count(text)
        assert words.count(text) == total
        assert 0 <= total <= 3 * len(normal(text, quotes=False).encode()) + 1
    assert normal(normal(text, quotes=True), quotes=True) == normal(text, quotes=True) or "\u0e4d" in text


@settings(max_examples=60)
@given(st.lists(TEXT.filter(lambda text: not re.search(r"\s", normal(text, quotes=True))), min_size=1, max_size=6))
def test_lines_add_up(lines: list[str]) -> None:
    """A line's end is a border that no token reaches across: a text is its lines and the breaks between them."""
    words = tiling.load("claude3")
    lines = [line for line in lines if normal(line, quotes=True)]
    text = "\n".join(lines)
    assert words.count(text) == sum(map(words.count, lines)) + max(0, len(lines) - 1)


def test_slices_do_not_show() -> None:
    """A long text is cut into slices where its count stays the same: at line's ends, or between words."""
    words = tiling.load("claude3")
    sentence = "Some words, a number 12 and it's 'done'. "
    for piece in (sentence, sentence + "\n", "plain words only "):
        once, many = words.count(piece), words.count(piece * 9000)
        assert len(list(chunks(piece * 9000))) >= 3
        per = words.count(piece * 3) - words.count(piece * 2)
        assert many == once + per * 8999


def steps(work: Callable[[], Any]) -> int:
    """The lines of the tokenizer's code that were run."""
    total = 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal total
        total += event == "line"
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename in (tiling.__file__, marked.__file__) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return total


@pytest.mark.parametrize("unit", ["a", "A", ".", " ", "\n", "1", "ab", "é", "中", "😀", "a1-", "\u0301", "x "])
def test_work_grows_with_the_text(unit: str) -> None:
    """Twice the text is at most about twice the steps, whatever it repeats."""
    words = tiling.load("claude3")
    short, long = (steps(lambda size=size: words.count("x" * 50 + unit * size)) for size in (2000, 4000))
    assert long <= 2.2 * short + 1000


@pytest.mark.parametrize("marks", ["\u0316\u0300", "\u0300" * 40_000 + "\u0316" * 40_000], ids=["mixed", "apart"])
def test_marks_without_end_take_no_time(older: Vocabulary, marks: str) -> None:
    """Combining marks are sorted when a text is composed, which takes the square of how many stand in a row."""
    text = "e" + (marks * 40_000)[:80_000]
    began = time.process_time()
    assert older.count(text) > 80_000
    assert time.process_time() - began < 2


def test_marks_are_composed_with_their_letters() -> None:
    """Wherever a text is cut to be composed."""
    for many in (1, 170, 171, 511, 512, 513, 2000):
        for foreign in ("é", "日"):
            text = "a" + foreign * many + "e\u0301" * 3 + "x" + "e\u0301" * 3
            assert normal(text, quotes=True) == unicodedata.normalize("NFC", text)


def test_a_text_without_words_is_cut_all_the_same() -> None:
    """No one is kept waiting for a megabyte without spaces to be looked at."""
    slices = list(chunks("QUJD0123+/" * 200_000))
    assert max(sum(map(len, one)) for one in slices) < 1_300_000


def test_a_chunk_without_end_is_extrapolated(older: Vocabulary) -> None:
    """A word of a megabyte costs what its beginning costs, by its length."""
    part, whole = older.count("ab" * (LONGEST // 2)), older.count("ab" * (LONGEST * 5))
    assert abs(whole - 10 * part) <= 20
    assert steps(lambda: older.count("ab" * (LONGEST * 5))) < 1.1 * steps(lambda: older.count("ab" * (LONGEST // 2)))


@pytest.mark.parametrize(
    ("model", "generation"),
    [
        ("claude-2.1", "claude3"),
        ("claude-instant-1.2", "claude3"),
        ("claude-3-haiku-20240307", "claude3"),
        ("claude-3.5-sonnet", "claude3"),
        ("claude-sonnet-4@20250514", "claude3"),
        ("claude-4.5-sonnet", "claude3"),
        ("claude-opus-4-1-20250805", "claude3"),
        ("claude-opus-4-6-v1", "claude3"),
        ("claude-opus-4.7", "claude5"),
        ("claude-opus-4-8", "claude5"),
        ("claude-5-sonnet", "claude5"),
        ("claude-fable-5", "claude5"),
        ("claude-opus-latest", "claude5"),
    ],
)
def test_generations(model: str, generation: str) -> None:
    """Names as the maker and other platforms write them; one that tells no version is taken for the newest."""
    assert encodings.encoding(model) == generation


def test_the_vocabulary_is_loaded_when_it_is_needed() -> None:
    """A model that needs it is not ready with the other tables, and is after its first count."""
    probe = (
        "from newapi_proxy.billing import count\n"
        "count.warm()\n"
        f"assert count.loaded('gpt-4o') and not count.loaded('{OLD}')\n"
        f"count.text('hi', '{NEW}')\n"
        f"assert count.loaded('{OLD}') and count.loaded('{NEW}')\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_a_damaged_vocabulary_is_an_error(tmp_path: Path) -> None:
    """Missing or changed, the file is named; nothing is counted with half a table."""
    missing, damaged = tmp_path / "none.gz", tmp_path / "pieces.gz"
    damaged.write_bytes(tiling.FILE.read_bytes()[:-1])
    for file, code in ((missing, "tokenizer_unavailable"), (damaged, "tokenizer_damaged")):
        with pytest.raises(OurError) as caught:
            tiling.read(file)
        assert caught.value.code == code
        assert str(file) in caught.value.message
    assert count.text("still here", OLD) > 0
