"""The Harmony format of open models: what each prompt begins with, the developer's message, calls and thoughts."""

from __future__ import annotations

from typing import Any

import pytest

from newapi_proxy.billing import count
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.ir.ask import Ask, Controls, Format, Part, Reasoning, Text, Tool, ToolCall, ToolResult, Turn

MODEL = "openai/gpt-oss-20b"
CITY = Tool(
    name="get_weather",
    description="The weather.",
    schema={"type": "object", "properties": {"city": {"type": "string", "description": "A town."}}},
)


def words(text: str) -> int:
    return tokens(text, "o200k_base")


def turn(role: Any, *parts: Part | str) -> Turn:
    return Turn(role=role, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def cost(*turns: Turn, model: str = MODEL, tools: tuple[Tool, ...] = (), **controls: Any) -> int:
    asked = Ask(dialect="x", model=model, tree={}, size=500, turns=turns, tools=tools, controls=Controls(**controls))
    return count.prompt(asked)


@pytest.mark.parametrize("model", [MODEL, "gpt-oss:120b", "openai.gpt-oss-120b"])
def test_a_prompt_begins_with_what_the_model_is(model: str) -> None:
    """72 for a question of five words, as its servers report."""
    assert cost(turn("user", "hi"), model=model) == 67 + words("hi")


def test_the_developers_message() -> None:
    """Instructions, tools and the answer's form are one message; tools are named in the preface too."""
    plain = cost(turn("user", "hi"))
    assert cost(turn("system", "Be terse."), turn("user", "hi")) == plain + 4 + words("# Instructions\n\nBe terse.\n\n")
    drawn = "# Tools\n\n## functions\n\nnamespace functions {\n\n// The weather.\ntype get_weather = (_: {\n"
    end = "}) => any;\n\n} // namespace functions"
    more = words("message.\nCalls to these tools must go to the commentary channel: 'functions'.") - words("message.")
    told = f"{drawn}// A town.\ncity?: string,\n{end}"
    assert cost(turn("user", "hi"), tools=(CITY,)) == plain + 4 + more + words(told)
    indented = f"{drawn}  // A town.\n  city?: string,\n{end}"
    assert cost(turn("user", "hi"), tools=(CITY,), model="gpt-oss:20b") == plain + 4 + more + words(indented)
    form = Format(kind="json_schema", name="Answer", schema={"type": "object"})
    told = '# Response Formats\n\n## Answer\n\n{"type":"object"}'
    assert cost(turn("user", "hi"), format=form) == plain + 4 + words(told)


def test_calls_thoughts_and_results() -> None:
    """Thoughts before a call are shown while the model goes on from it, and gone once it is asked again."""
    called = turn("assistant", Reasoning(text="Let me see."), ToolCall(id="1", name="f", arguments='{"a": 1}'))
    result = turn("tool", ToolResult(id="1", parts=(Text(text="no"),)))
    plain = cost(turn("user", "hi"))
    call = 4 + words("assistant to=functions.f") + words("commentary json") + words('{"a": 1}')
    back = 5 + words("functions.f to=assistant") + words("no")
    assert cost(turn("user", "hi"), called, result) == plain + 6 + words("Let me see.") + call + back
    more = 6 + words("Ho.") + 4 + words("so?")
    asked = cost(turn("user", "hi"), called, result, turn("assistant", "Ho."), turn("user", "so?"))
    assert asked == plain + call + back + more
