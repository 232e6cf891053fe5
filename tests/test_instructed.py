"""Prompts between [INST] and [/INST], and the vocabulary of the models that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from newapi_proxy.billing import count, encodings, vocabulary
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.errors import OurError
from newapi_proxy.ir.ask import Ask, Part, Reasoning, Text, Tool, ToolCall, ToolResult, Turn

LARGE, SMALL = "mistral-large-latest", "mistralai/mistral-small-3.2"
WEATHER = Tool(name="get_weather", description="The weather.", schema={"type": "object", "properties": {}})


def words(text: str) -> int:
    return tokens(text, "tekken")


def turn(role: Any, *parts: Part | str) -> Turn:
    return Turn(role=role, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def cost(*turns: Turn, model: str = LARGE, tools: tuple[Tool, ...] = ()) -> int:
    return count.prompt(Ask(dialect="x", model=model, tree={}, size=500, turns=turns, tools=tools))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("def f(x):\n    return x  # 12345\n\n\n\tend", 17),
        ("你好，世界！这是一个测试。", 10),
        ("<table> 👨\u200d👩\u200d👧 😀", 18),
        ("a\r\n\r\nb", 6),
        ("12345", 5),
        (" " * 70 + "x", 3),
        ("", 0),
    ],
)
def test_the_vocabulary_cuts_as_its_maker_does(text: str, wanted: int) -> None:
    """Counts of the published tokenizer."""
    assert words(text) == wanted


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (LARGE, "tekken"),
        (SMALL, "tekken"),
        ("ministral-8b-latest", "tekken"),
        ("codestral-latest", "tekken"),
        ("mistral-tiny", "tekken"),
        ("mistral-large-2411", "o200k_base"),
        ("mistral.mistral-7b-instruct-v0:2", "o200k_base"),
        ("open-mixtral-8x22b", "o200k_base"),
        ("mistral-embed", "o200k_base"),
    ],
)
def test_who_reads_it(model: str, name: str) -> None:
    """All but the oldest, which have another vocabulary."""
    assert encodings.encoding(model) == name


def test_a_damaged_vocabulary_is_an_error(tmp_path: Path) -> None:
    """Wrong bytes and a missing file are errors that name the file."""
    file = tmp_path / "pieces.xz"
    with pytest.raises(OurError, match=str(file)):
        vocabulary.ranked(file)
    file.write_bytes(b"not the pieces")
    with pytest.raises(OurError, match="is damaged"):
        vocabulary.ranked(file)


def test_marks_around_words() -> None:
    """Three for a question alone, two more for an instruction or another question, one after each answer."""
    assert cost(turn("user", "hi")) == 3 + words("hi")
    assert cost(turn("user", "hi"), model=SMALL) == 15 + words("hi")
    talk = (turn("system", "Be terse."), turn("user", "hi"), turn("assistant", "Ho."), turn("user", "so?"))
    assert cost(*talk) == 3 + 2 + 1 + 2 + sum(map(words, ("Be terse.", "hi", "Ho.", "so?")))


def test_tools_and_their_traffic() -> None:
    """Tools are a JSON list with blanks; a call has two marks, its result two, what the model said ends with one."""
    listed = (
        '[{"type": "function", "function": {"name": "get_weather", "description": "The weather.", '
        '"parameters": {"type": "object", "properties": {}}}}]'
    )
    plain = cost(turn("user", "hi"))
    assert cost(turn("user", "hi"), tools=(WEATHER,)) == plain + 2 + words(listed)
    calls = [ToolCall(id=id_, name="f", arguments='{"a":1,"b":"x"}') for id_ in ("1", "2")]
    results = [turn("tool", ToolResult(id=id_, parts=(Text(text="no"),))) for id_ in ("1", "2")]
    thought = Reasoning(text="Well.")
    each = 2 + words("f") + words('{"a": 1, "b": "x"}') + 2 + words("no")
    got = cost(turn("user", "hi"), turn("assistant", thought, *calls), *results)
    assert got == plain + words("Well.") + 1 + 2 * each


def test_an_answer_ends_with_a_mark() -> None:
    """Its words and one; a call two more."""
    tally = count.Tally()
    tally.feed("Paris.")
    assert tally.tokens(LARGE) == words("Paris.") + 1
    tally.call("f")
    assert tally.tokens(LARGE) == words("Paris.f") + 1 + 2
