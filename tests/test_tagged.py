"""Claude's prompts and answers: the frame of messages, tools as sorted JSON, calls and results as tags, flat sums."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy.billing import count, tiling
from newapi_proxy.ir.ask import Ask, Choice, Controls, Text, Thinking, Turn
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.wire import tree

OLD, MIDDLE, NEW, SONNET = "claude-sonnet-4-5", "claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5"
CITY: Final = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
WEATHER: Final = {"name": "get_weather", "description": "The weather.", "input_schema": CITY}
HI: Final = {"role": "user", "content": "Hi there."}
P: Final = "antml:"


def own(model: str = OLD, messages: list[dict[str, Any]] | None = None, **more: Any) -> Ask:
    """A request in the provider's own format."""
    body = {"model": model, "max_tokens": 9, "messages": [HI] if messages is None else messages, **more}
    return SURFACES["/v1/messages"].read(orjson.dumps(body), {})


def cost(model: str = OLD, messages: list[dict[str, Any]] | None = None, **more: Any) -> int:
    return count.prompt(own(model, messages, **more))


def words(text: str, model: str = OLD) -> int:
    return tiling.load(tiling.generation(model)).count(text)


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def calls(*named: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": f"{i}", "name": name, "input": put} for i, (name, put) in enumerate(named)]
    return {"role": "assistant", "content": blocks}


def results(*texts: str, **more: Any) -> dict[str, Any]:
    blocks = [{"type": "tool_result", "tool_use_id": f"{i}", "content": text, **more} for i, text in enumerate(texts)]
    return {"role": "user", "content": blocks}


def tags(name: str, **arguments: str) -> str:
    """A call as the model writes it."""
    rows = [f'<{P}parameter name="{one}">{value}</{P}parameter>\n' for one, value in arguments.items()]
    return f'<{P}invoke name="{name}">\n{"".join(rows)}</{P}invoke>'


@pytest.mark.parametrize(("model", "one", "more"), [("claude-2.1", 9, 4), (OLD, 7, 3), (MIDDLE, 11, 5), (NEW, 6, 2)])
def test_messages(model: str, one: int, more: int) -> None:
    """A prompt costs so much around one message, and so much per further one; a begun answer takes the place of one."""
    text = words("Hi there.", model)
    assert cost(model) == one + text
    assert cost(model, [HI, said("Hi there.", "assistant"), HI]) == one + 2 * more + 3 * text
    assert cost(model, [HI, said("Hi there.", "assistant")]) == one + 2 * text
    assert cost(model, [HI, HI]) == one + 1 + 2 * text
    assert cost(model, [said("Hi there.", "assistant"), HI]) == one + more + 12 + 2 * text


def test_instructions() -> None:
    """They stand before the messages; the newest models pay for the line between; blocks have one between them."""
    text = words("Be brief.")
    assert cost(system="Be brief.") == cost() + text
    for model in ("claude-sonnet-4-6", NEW):
        assert cost(model, system="Be brief.") == cost(model) + words("Be brief.", model) + 1
    blocks = [{"type": "text", "text": "Be brief."}] * 2
    assert cost(system=blocks) == cost() + 2 * text + 1
    billed = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=0;"}
    assert cost(system=[billed, *blocks]) == cost(system=blocks)
    assert cost(system=[*blocks, billed]) > cost(system=blocks) + 10


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, 489),
        ({"tool_choice": {"type": "none"}}, 489),
        ({"tool_choice": {"type": "any"}}, 581),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, 281),
    ],
)
def test_tools(more: dict[str, Any], wanted: int) -> None:
    """A text that explains them, by what may be called, and each as JSON with its names in order."""
    row = '{"description": "The weather.", "name": "get_weather", "parameters": ' + (
        '{"properties": {"city": {"type": "string"}}, "required": ["city"], "type": "object"}}'
    )
    listed = f"<functions>\n<function>{row}</function>\n</functions>"
    assert cost(tools=[WEATHER], **more) == cost() + wanted + words(listed)
    assert cost(tools=[WEATHER], system="Be brief.", **more) == cost(tools=[WEATHER], **more) + words("Be brief.") + 1


def test_a_tool_by_name_costs_its_name() -> None:
    """Where one tool must be called, its name is said again."""
    named = cost(tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"})
    assert named == cost(tools=[WEATHER]) - 489 + 583 + words("get_weather")


def test_tools_without_a_description_and_in_other_letters() -> None:
    """No description is no member; letters beyond ASCII are written as escapes."""
    bare = {"name": "get_weather", "input_schema": CITY}
    assert cost(tools=[bare]) == cost(tools=[{**bare, "description": ""}]) < cost(tools=[WEATHER])
    assert (
        cost(tools=[{**WEATHER, "description": "größer 😀"}]) > cost(tools=[{**WEATHER, "description": "large"}]) + 15
    )
    assert tree.spaced({"b": [1, True, None], "a": "ö😀"}) == '{"a": "\\u00f6\\ud83d\\ude00", "b": [1, true, null]}'
    assert tree.spaced({"b": 1.5, "a": {}}, ordered=False) == '{"b": 1.5, "a": {}}'


def test_what_explains_tools_is_the_models_own() -> None:
    """Models of one vocabulary differ in it."""
    base = {model: cost(model, tools=[WEATHER]) - cost(model) for model in (NEW, SONNET, "claude-fable-5")}
    assert base[SONNET] - base[NEW] == 65
    assert base["claude-fable-5"] == base[NEW]
    older = {model: cost(model, tools=[WEATHER]) for model in (OLD, "claude-sonnet-4-0", "claude-3-haiku-20240307")}
    assert (older[OLD] - older["claude-sonnet-4-0"], older[OLD] - older["claude-3-haiku-20240307"]) == (183, 232)


@pytest.mark.parametrize(
    ("kind", "flat"),
    [
        ("bash_20250124", 244),
        ("text_editor_20250124", 702),
        ("text_editor_20250728", 764),
        ("web_search_20250305", 1710),
        ("code_execution_20260120", 4130),
    ],
)
def test_tools_of_the_provider(kind: str, flat: int) -> None:
    """What explains one is flat."""
    assert cost(tools=[{"type": kind, "name": "x"}]) == cost() + 489 + words("<functions>\n</functions>") + flat


def test_calls_and_their_results() -> None:
    """A call is tags around its name and each argument; one result is its text, several are told apart by name."""
    talk = [HI, calls(("get_weather", {"city": "Rome", "days": 2}))]
    call = words(tags("get_weather", city="Rome", days="2"))
    assert cost(OLD, [*talk, results("Sunny.")]) == cost() + 6 + 25 + call + words("Sunny.")
    assert cost(OLD, [*talk, results("Sunny.", is_error=True)]) == cost(OLD, [*talk, results("Sunny.")]) + 8
    call = words(tags("get_weather", city="Rome", days="2"), NEW)
    assert cost(NEW, [*talk, results("Sunny.")]) == cost(NEW) + 4 + 5 + call + words("Sunny.", NEW)
    two = [HI, calls(("now", {}), ("get_weather", {})), results("Noon.", "Sunny.")]
    names = words("now") + words("get_weather") + words(tags("now")) + words(tags("get_weather"))
    assert cost(OLD, two) == cost() + 6 + 25 + 2 * 22 + names + words("Noon.") + words("Sunny.")


def test_results_of_another_format_are_one_message() -> None:
    """OpenAI's messages, one per result, cost what the provider's own one does."""
    named = [("a", "now", "{}"), ("b", "get_weather", '{"city": "Rome"}')]
    functions = [{"id": one, "type": "function", "function": {"name": n, "arguments": put}} for one, n, put in named]
    body = {
        "model": OLD,
        "messages": [
            HI,
            {"role": "assistant", "content": None, "tool_calls": functions},
            {"role": "tool", "tool_call_id": "a", "content": "Noon."},
            {"role": "tool", "tool_call_id": "b", "content": "Sunny."},
        ],
    }
    other = count.prompt(SURFACES["/v1/chat/completions"].read(orjson.dumps(body), {}))
    assert other == cost(OLD, [HI, calls(("now", {}), ("get_weather", {"city": "Rome"})), results("Noon.", "Sunny.")])


def test_an_effort_counts_where_it_becomes_a_budget() -> None:
    """What says how to think: by a budget, or by another format's effort, not by its own effort alone."""
    plain = Ask(dialect="x", model=OLD, tree={}, size=9, turns=(Turn(role="user", parts=(Text(text="hi"),)),))
    for thinking, more in (
        (Thinking(budget=2000), 29),
        (Thinking(effort="high"), 29),
        (Thinking(), 29),
        (Thinking(effort="none"), 0),
        (Thinking(adaptive=True), 0),
        (Thinking(budget=2000, disabled=True), 0),
    ):
        asked = msgspec.structs.replace(plain, controls=Controls(thinking=thinking))
        assert count.prompt(asked) == count.prompt(plain) + more
    assert cost(output_config={"effort": "low"}) == cost()
    free = {"thinking": {"type": "adaptive"}}
    assert cost("claude-opus-4-6", **free) == cost("claude-opus-4-6") + 17
    due = {"tools": [WEATHER], "tool_choice": {"type": "any"}}
    assert cost("claude-opus-4-6", **free, **due) == cost("claude-opus-4-6", **due)
    assert cost(thinking={"type": "enabled", "budget_tokens": 1024}, tools=[WEATHER]) == cost(tools=[WEATHER]) + 30


def test_structured_output() -> None:
    """A schema is written out with indents, as it came."""
    form = {"type": "json_schema", "schema": {"type": "object", "required": [], "properties": {}}}
    written = words('{\n  "type": "object",\n  "required": [],\n  "properties": {}\n}')
    assert cost(output_config={"format": form}) == cost() + 81 + written
    assert cost("claude-opus-4-6", output_config={"format": form}) == cost("claude-opus-4-6") + 82 + written
    assert cost(output_config={"format": form}, system="Be brief.") == cost(system="Be brief.") + 82 + written


def test_thoughts() -> None:
    """Those of earlier turns are gone, but for the models that keep them; one that counts costs seven more."""
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "x"}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]}
    plain, told = [HI, said("Yes.", "assistant"), HI], [HI, answer, HI]
    assert cost(OLD, told) == cost(OLD, plain)
    for model in ("claude-sonnet-4-6", "claude-opus-4-5", NEW):
        assert cost(model, told) == cost(model, plain) + 7 + words("Let me see.", model)


def test_documents_of_text() -> None:
    """Its text, what is around it, its title, and a long text more where it is to be cited."""
    source = {"type": "text", "media_type": "text/plain", "data": "Some words."}

    def with_document(**more: Any) -> int:
        document = {"type": "document", "source": source, **more}
        return cost(OLD, [{"role": "user", "content": [document, {"type": "text", "text": "Hi there."}]}])

    assert with_document() == cost() + 38 + words("Some words.")
    assert with_document(title="Doc") == with_document() + 9 + words("Doc")
    assert with_document(citations={"enabled": True}) == with_document() + 559
    assert with_document(citations={"enabled": False}) == with_document()


def test_results_of_a_search_are_not_what_their_letters_are() -> None:
    """What is encrypted in a provider's block counts by its length, at less than its letters."""

    def searched(sealed: str) -> int:
        row = {"type": "web_search_result", "title": "A page", "url": "https://e.org", "encrypted_content": sealed}
        block = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [row]}
        return cost(OLD, [HI, {"role": "assistant", "content": [block]}, HI])

    assert searched("Qx8" * 1000) == searched("") + 900


def tally(*parts: str | tuple[str, str]) -> count.Tally:
    """An answer: words, and calls as name and arguments."""
    told = count.Tally()
    for part in parts:
        if isinstance(part, str):
            told.feed(part)
        else:
            told.call(part[0])
            told.feed(part[1])
    return told


@pytest.mark.parametrize(("model", "around", "called"), [(OLD, 3, 19), (NEW, 2, 4)])
def test_answers(model: str, around: int, called: int) -> None:
    """Words and what ends them; calls as their tags, each with one token more; a broken answer is what came of it."""
    text, call = words("Here it is.", model), words(tags("get_weather", city="Rome"), model)
    assert tally("Here ", "it is.").tokens(model) == text + around
    assert tally("Here it is.").tokens(model, ended=False) == text
    one = ("get_weather", '{"city":"Rome"}')
    assert tally("Here it is.", one).tokens(model) == text + call + called
    assert tally(one, one).tokens(model) == 2 * call + called + 1
    assert tally("Here it is.", one).tokens(model, ended=False) == text + call
    assert tally(("now", "")).tokens(model) == words(tags("now"), model) + called
    assert count.Tally().tokens(model) == 0


def test_a_thought_costs_what_is_around_it() -> None:
    """Its text, and eight for its end; alone it is an answer too."""
    told = tally("Let me see. Yes.")
    plain = told.tokens(OLD)
    told.thought()
    assert told.tokens(OLD) == plain + 8
    assert told.tokens("gpt-4o") == tally("Let me see. Yes.").tokens("gpt-4o")


def test_what_is_demanded_is_not_answered() -> None:
    """A call that the request demands begins in the prompt: its answer is that much shorter."""
    asked, told = own(tools=[WEATHER]), tally(("get_weather", '{"city":"Rome"}'))
    free = told.tokens(OLD, ask=asked)
    assert free == told.tokens(OLD)
    for choice, less in (
        (Choice(mode="required"), 16),
        (Choice(mode="named", name="get_weather"), 18 + words("get_weather")),
        (Choice(mode="auto"), 0),
    ):
        due = msgspec.structs.replace(asked, choice=choice)
        assert told.tokens(OLD, ask=due) == free - less
        alone = msgspec.structs.replace(due, controls=Controls(parallel_tools=False))
        assert told.tokens(OLD, ask=alone) == free - less - 9
    assert tally("No call.").tokens(OLD, ask=msgspec.structs.replace(asked, choice=Choice(mode="required"))) == (
        tally("No call.").tokens(OLD)
    )


@pytest.mark.parametrize("model", [OLD, NEW])
@pytest.mark.parametrize("choice", [None, Choice(mode="required"), Choice(mode="named", name="write")])
def test_what_came_of_an_answer_is_no_more_than_the_whole(model: str, choice: Choice | None) -> None:
    """Wherever a call breaks off: its arguments are counted as the model writes them, not with JSON's escapes."""
    code = 'def f(a):\n\treturn "é", \'\\\\\'  # "x"\n' * 12
    arguments = json.dumps({"path": "a.py", "code": code, "more": {"lines": [1, 22, None], "text": code}})
    asked = msgspec.structs.replace(own(tools=[WEATHER]), choice=choice)
    whole = tally("Here.", ("write", arguments)).tokens(model, ask=asked)
    came = [
        tally("Here.", ("write", arguments[:at])).tokens(model, ask=asked, ended=False) for at in range(len(arguments))
    ]
    assert max(came) <= whole
    assert came[-1] > 0.95 * whole - 40
    assert all(later >= earlier - 12 for earlier, later in itertools.pairwise(came))


def test_a_long_answer_is_extrapolated() -> None:
    """What a tally does not keep costs as much as what it keeps, calls and all."""
    short, long = count.Tally(limit=1000), count.Tally(limit=1_000_000)
    for told in (short, long):
        for _ in range(100):
            told.feed("Some words and more. ")
        for _ in range(100):
            told.call("get_weather")
            told.feed('{"city": "Rome"}')
    assert abs(short.tokens(OLD) - 4800 * words("Some words and more. " * 48) // 1008) < 400
    assert long.tokens(OLD) > short.tokens(OLD)


@pytest.mark.parametrize("arguments", ["", "{", '{"a": 1', "[1]", "nonsense", '{"a": {"b": ["ö"]}}', '{"": null}'])
def test_arguments_may_be_anything(arguments: str) -> None:
    """What is no JSON object is counted as it stands."""
    told = tally(("f", arguments))
    assert told.tokens(OLD) >= words(tags("f")) + 19
    body = {
        "model": OLD,
        "messages": [
            HI,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}],
            },
        ],
    }
    assert count.prompt(SURFACES["/v1/chat/completions"].read(orjson.dumps(body), {})) > cost() + 10
