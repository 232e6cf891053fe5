"""Prompts laid out message by message: the text of tools, where it stands by generation and format, calls, a schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from newapi_proxy.billing import count
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.billing.rendering import namespace
from newapi_proxy.ir.ask import Ask, Choice, Controls, Format, Part, Text, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.wire import tree

O200K = "o200k_base"
RESPONSES = "openai-responses"
HEADING = "# Tools\n\n## functions\n\n"
WEATHER = Tool(
    name="get_weather",
    description="The weather of a place.",
    schema={"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
)


def turn(role: Any, *parts: Part | str, name: str | None = None) -> Turn:
    return Turn(role=role, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts), name=name)


def ask(*turns: Turn, model: str = "gpt-4o", dialect: str = "openai-chat", **more: Any) -> Ask:
    return Ask(dialect=dialect, model=model, tree={}, size=500, turns=turns, **more)


def drawn(schema: Any, description: str | None = None) -> str:
    text = namespace([Tool(name="f", description=description, schema=schema)])
    return text.removeprefix("namespace functions {\n\n").removesuffix(" => any;\n\n} // namespace functions")


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({}, "()"),
        (fields(), "()"),
        (fields(a={"type": "integer"}, b={"type": "boolean"}), "(_: { a?: number, b?: boolean })"),
        (fields(a={"type": "string", "description": " One.\n\n  Two."}), "(_: {\n// One.\n// Two.\na?: string,\n})"),
        (fields(a={"type": "string", "title": "A", "description": ""}), "(_: {\n// A\na?: string,\n})"),
        ({**fields(a={"type": "string"}), "title": "Args"}, "(_: // Args\n{ a?: string })"),
        ({**fields(a={"type": "string"}), "additionalProperties": True}, "(_: { a?: string, [k: string]: any })"),
        (fields(a={"type": "integer", "default": 3}), "(_: {\na?: number, // default: 3\n})"),
        (fields(a={"enum": ["x", "y"], "default": "x"}), '(_: {\na?: "x" | "y", // default: x\n})'),
        (fields(a={"type": "string", "default": "x"}), '(_: {\na?: string, // default: "x"\n})'),
        (fields(a=fields(b={"type": "null"})), "(_: { a?: { b?: null } })"),
        (fields(a=fields(b={"title": "B"})), "(_: {\na?: {\n// B\nb?: any,\n},\n})"),
        (fields(a={"type": "array", "items": {"type": "string"}}), "(_: { a?: string[] })"),
        (
            fields(a={"type": "array", "items": {**fields(b={"type": "string"}), "title": "One"}}),
            "(_: {\na?: Array<\n// One\n{ b?: string }\n>,\n})",
        ),
        (
            {**fields(a={"$ref": "#/$defs/A"}), "$defs": {"A": {**fields(b={"const": 1}), "description": "An A."}}},
            "(_: {\na?:\n// An A.\n{ b?: 1 },\n})",
        ),
        (fields(a={"anyOf": [{"type": ["string", "null"]}, {"type": "array"}]}), "(_: { a?: string | null | any[] })"),
    ],
)
def test_the_rendering_of_a_tool(schema: Any, wanted: str) -> None:
    """One line where nothing is commented; titles, descriptions and defaults are comments, without indents."""
    assert drawn(schema) == f"type f = {wanted}"
    assert drawn(schema, "Does it.\n\n  Well.") == f"// Does it.\n// Well.\ntype f = {wanted}"


def cost(model: str, dialect: str = "openai-chat", system: str = "", **more: Any) -> int:
    said = ((turn("system", system),) if system else ()) + (turn("user", "hi"),)
    return count.prompt(ask(*said, model=model, dialect=dialect, **more))


@pytest.mark.parametrize(
    ("model", "dialect", "heading", "more"),
    [
        ("gpt-4o", "openai-chat", HEADING, 3),
        ("gpt-4o", RESPONSES, "", 3),
        ("gpt-5-mini", "openai-chat", HEADING, 85),
        ("gpt-5-mini", RESPONSES, HEADING, 3),
    ],
)
def test_tools_are_a_message_of_their_own(model: str, dialect: str, heading: str, more: int) -> None:
    """Without an instruction, and in Responses always."""
    text = tokens(heading + namespace([WEATHER]), O200K)
    assert cost(model, dialect, tools=(WEATHER,)) == cost(model, dialect) + text + more
    if dialect == RESPONSES:
        assert cost(model, dialect, "Be terse.", tools=(WEATHER,)) == cost(model, dialect, "Be terse.") + text + more


@pytest.mark.parametrize(("model", "more"), [("gpt-4o", -1), ("gpt-4.1", -1), ("gpt-5", 84)])
def test_in_chat_tools_end_the_instruction(model: str, more: int) -> None:
    """Its last characters and what stands between are cut into tokens together."""
    for system in ("Be terse.", "be terse"):
        text = tokens(f"{system}\n\n{HEADING}{namespace([WEATHER])}", O200K) - tokens(system, O200K)
        assert cost(model, system=system, tools=(WEATHER,)) == cost(model, system=system) + text + more


def test_a_call_that_must_be_made_stands_in_the_prompt() -> None:
    """Its name and 7; in Responses also where only one tool can be called; GPT-5's prompts say nothing of it."""
    named = {"tools": (WEATHER,), "choice": Choice(mode="named", name="get_weather")}
    required = {"tools": (WEATHER,), "choice": Choice(mode="required")}
    none = {"tools": (WEATHER,), "choice": Choice(mode="none")}
    plain = cost("gpt-4o", tools=(WEATHER,))
    assert [cost("gpt-4o", **one) - plain for one in (named, required, none)] == [9, 0, 1]
    listed = cost("gpt-4o", RESPONSES, tools=(WEATHER,))
    assert [cost("gpt-4o", RESPONSES, **one) - listed for one in (named, required)] == [9, 9]
    assert cost("gpt-5", **named) == cost("gpt-5", tools=(WEATHER,))


def test_calls_one_by_one_are_said_to_gpt_5_in_responses() -> None:
    """`parallel_tool_calls: false` costs 78 there and nothing elsewhere."""
    apart = {"tools": (WEATHER,), "controls": Controls(parallel_tools=False)}
    assert cost("gpt-5", RESPONSES, **apart) == cost("gpt-5", RESPONSES, tools=(WEATHER,)) + 78
    assert cost("gpt-4o", **apart) == cost("gpt-4o", tools=(WEATHER,))


def call(arguments: str = '{"place": "Rome"}', id_: str = "c1") -> ToolCall:
    return ToolCall(id=id_, name="get_weather", arguments=arguments)


def result(text: str, id_: str = "c1") -> Turn:
    return turn("tool", ToolResult(id=id_, parts=(Text(text=text),)))


@pytest.mark.parametrize(
    ("model", "dialect", "each"),
    [
        ("gpt-3.5-turbo", "openai-chat", 9),
        ("gpt-4o", "openai-chat", 9),
        ("gpt-5", "openai-chat", 15),
        ("gpt-4o", RESPONSES, 7),
        ("gpt-5", RESPONSES, 13),
        ("gpt-5.4", RESPONSES, 16),
        ("o4-mini", RESPONSES, 13),
    ],
)
def test_a_call_and_its_result(model: str, dialect: str, each: int) -> None:
    """The name twice, the arguments without blanks, and a constant; the result is a message."""
    name = "cl100k_base" if model == "gpt-3.5-turbo" else O200K
    words = tokens("get_weather", name) + tokens(".get_weather", name) + tokens('{"place":"Rome"}', name)
    base = ask(turn("user", "hi"), model=model, dialect=dialect)
    told = msgspec.structs.replace(base, turns=(*base.turns, turn("assistant", call()), result("Sunny.")))
    assert count.prompt(told) == count.prompt(base) + words + each + 4 + tokens("Sunny.", name)


def test_calls_at_once_are_one_json_in_chat() -> None:
    """So are their results, in which JSON is JSON and the rest is text, in ASCII."""
    uses = [
        '{"recipient_name":"functions.get_weather","parameters":{"place":"Rome"}}',
        '{"recipient_name":"functions.get_weather","parameters":{}}',
    ]
    told = f'{{"tool_uses":[{",".join(uses)}]}}', '[{"b": 1, "a": [2]}, "21\\u00b0"]'
    base = count.prompt(ask(turn("user", "hi")))
    both = turn("assistant", call(), call("{}", "c2"))
    got = count.prompt(ask(turn("user", "hi"), both, result('{"b":1,"a":[2]}'), result("21°", "c2")))
    assert got == base + 20 + sum(tokens(text, O200K) for text in told)
    single = tokens("get_weather", O200K) + tokens(".get_weather", O200K) + tokens("{}", O200K)
    empty = turn("assistant", call("{}"), call("{}", "c2"))
    for model, around in (("gpt-4o", 2 * 7), ("gpt-5", 2 * 13), ("gpt-5.4", 22 + 2 * 10)):
        listed = ask(turn("user", "hi"), empty, model=model, dialect=RESPONSES)
        plain = count.prompt(ask(turn("user", "hi"), model=model, dialect=RESPONSES))
        assert count.prompt(listed) == plain + 2 * single + around


def paired(many: int, id: Callable[[int, str], str]) -> list[Turn]:
    """So many turns of two calls, with their results in the other order."""
    found = [turn("user", "hi")]
    for at in range(many):
        found.append(turn("assistant", call("{}", id(at, "a")), call("{}", id(at, "b"))))
        found += [result("yes" * at if one == "a" else "no", id(at, one)) for one in "ba"]
    return found


def test_results_of_calls_at_once_are_found_at_once() -> None:
    """Not all of a long history is looked through for each of its turns; an id used again means the next result."""
    apart, again = (count.prompt(ask(*paired(20, id))) for id in (lambda at, one: f"{one}{at}", lambda at, one: one))
    assert apart == again
    history = ask(*paired(6000, lambda at, one: f"{one}{at}")[:9000])
    began = time.process_time()
    assert count.prompt(history) > 9000
    assert time.process_time() - began < 4


def test_a_call_whose_state_is_told() -> None:
    """In Responses a `status` costs the older models 3."""
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}

    def read(item: dict[str, Any]) -> int:
        body = {"model": "gpt-4o", "input": [{"role": "user", "content": "hi"}, item]}
        return count.prompt(SURFACES["/v1/responses"].read(tree.encode(body), {}))

    assert read({**item, "status": "completed"}) == read(item) + 3 == read({**item, "status": None}) + 3


def test_what_gpt_5_said_before_costs_two_more() -> None:
    """Each of its messages is marked as final; a call alone is not."""
    for model, more in (("gpt-4o", 0), ("gpt-5.1", 2)):
        said = count.prompt(ask(turn("user", "hi"), turn("assistant", "Ho."), model=model))
        asked = count.prompt(ask(turn("user", "hi"), turn("user", "Ho."), model=model))
        assert said == asked + more


def test_a_schema_of_the_answer() -> None:
    """A heading and the schema, without what only binds: at the instruction's end in chat, its name before answers."""
    inner = {"type": "object", "properties": {"required": {"type": "integer", "minimum": 1, "default": 2}}}
    schema = {**fields(a={**inner, "required": ["required"]}), "required": ["a"], "additionalProperties": False}
    told = fields(a=fields(required={"type": "integer"}))
    text = f"# Response Formats\n\n## Answer\n\n{tree.dumps(told)}"
    named = tokens("Answer", O200K)
    form = {"controls": Controls(format=Format(kind="json_schema", name="Answer", schema=schema))}
    assert cost("gpt-4o", **form) == cost("gpt-4o") + 4 + tokens(text, O200K) + 2 + named
    joined = tokens(f"Be terse.\n\n{text}", O200K) - tokens("Be terse.", O200K)
    assert cost("gpt-4o", system="Be terse.", **form) == cost("gpt-4o", system="Be terse.") + joined + 2 + named
    assert cost("gpt-5", **form) == cost("gpt-5") + 4 + tokens(text, O200K)
    assert cost("gpt-5", RESPONSES, **form) == cost("gpt-5", RESPONSES) + tokens(text, O200K)
    assert cost("gpt-4o", controls=Controls(format=Format(kind="json_object"))) == cost("gpt-4o")
    talk = (turn("user", "hi"), turn("assistant", "{}"), turn("user", "ho"))
    for model, names in (("gpt-4o", 2), ("gpt-5", 1)):
        asked = count.prompt(ask(*talk, model=model, **form)) - count.prompt(ask(*talk, model=model))
        assert asked == 4 + tokens(text, O200K) + 2 * names + names * named


def test_tools_among_the_items_count_apart() -> None:
    """Responses: tools that came with the conversation are a namespace of their own, with a constant of its own."""
    late = msgspec.structs.replace(WEATHER, path="input.3.tools.0")
    now = Tool(name="now", path="tools.0")
    own = tokens(namespace([late]), O200K) + 90
    assert cost("gpt-5.4", RESPONSES, tools=(late,)) == cost("gpt-5.4", RESPONSES) + own
    both = cost("gpt-5.4", RESPONSES, tools=(now, late))
    assert both == cost("gpt-5.4", RESPONSES, tools=(now,)) + own


def test_a_tool_that_takes_a_text() -> None:
    """GPT-5 is told of its grammar, line by line."""
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "\n  start: expr\n\n  expr: INT\n"}}
    free = {"type": "custom", "custom": {"name": "note", "format": {"type": "text"}}}
    bound = {"type": "custom", "custom": {"name": "note", "format": grammar}}
    plain = Tool(name="note", description="Notes.")
    for dialect in ("openai-chat", RESPONSES):
        least = cost("gpt-5", dialect, tools=(plain,))
        told = [
            cost("gpt-5", dialect, tools=(msgspec.structs.replace(plain, kind="custom", server=one),))
            for one in (free, bound)
        ]
        assert told == [least + 16, least + 16 + 43 + tokens("start: expr\nexpr: INT", O200K)]


def test_models_that_search_count_words_alone() -> None:
    """Their messages cost nothing around them."""
    assert cost("gpt-4o-search-preview", system="Be terse.") == tokens("Be terse.", O200K) + tokens("hi", O200K)
