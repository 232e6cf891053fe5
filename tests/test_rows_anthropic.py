"""The rows of Anthropic, each in every format that clients speak: what goes up, what comes back, what it costs.

`AM` is Anthropic's own format: its body goes up as it came but for the model's name, its answer comes back as it is.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters.anthropic import ADAPTER
from newapi_proxy.errors import ClientError, Unsupported
from newapi_proxy.surfaces.anthropic import COUNT
from tests.fakes import anthropic, inbound, matrix_claude, matrix_grammar
from tests.fakes.inbound import FUNCTION, HI, PDF, PNG, Call, File, Film, Picture, Result, Sound, Thought, across
from tests.fakes.matrix_claude import ADAPTIVE, MODES, OLD, OPUS, SONNET, Message, Sent, sent, told
from tests.fakes.matrix_grammar import FINISHES

MODE = pytest.mark.parametrize("mode", MODES)
CALL: Final = Call("toolu_1", "f", '{"a":1}')
CALLED: Final = (("user", "Go"), ("assistant", CALL))
TOOLS: Final = [FUNCTION]
SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}},
    "required": ["a"],
}
SIGNED: Final = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk+/=="}
REDACTED: Final = {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="}
USE: Final = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}


def text(words: str) -> dict[str, str]:
    """A text block."""
    return {"type": "text", "text": words}


def replayed(letter: str, message: Message, *more: Any, **wishes: Any) -> Sent:
    """A conversation in which the client sends an answer back as its format has it, and goes on."""
    answer = orjson.loads(matrix_claude.whole(letter, message.whole()))
    return sent(letter, (("user", "Go"), inbound.reply(letter, answer), *more), **wishes)


# Turns.


@across("OC", "OR", "AM", "GG")
def test_one_text(letter: str) -> None:
    """T-ANTH-001: the question is one message of one text block."""
    one = sent(letter)
    assert one.outgoing.url == "https://h.example/v1/messages"
    if not one.verbatim:
        assert one.messages == [("user", [text("Hi")])]


@across("OC", "OR", "AM", "GG")
def test_leading_system(letter: str) -> None:
    """T-ANTH-002: system and developer texts become blocks of `system`, in order."""
    turns = (("system", "One."), ("developer", "Two."), ("user", "Hi"))
    one = sent(letter, turns)
    if not one.verbatim:
        assert one.body["system"] == [text("One."), text("Two.")]
        assert one.messages == [("user", [text("Hi")])]


MIDDLE: Final = (("system", "One."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("system", "Two."))


@across("OC", "OR", "AM")
def test_system_inside_where_it_is_known(letter: str) -> None:
    """T-ANTH-003: an entry of its own at its place."""
    one = sent(letter, MIDDLE, upstream=OPUS)
    if not one.verbatim:
        assert one.body["system"] == [text("One.")]
        assert one.messages[-1] == ("system", [text("Two.")])


@across("OC", "OR", "AM")
def test_system_inside_where_it_is_not(letter: str) -> None:
    """T-ANTH-004: tagged text of the user at its place; the top-level system stays."""
    one = sent(letter, MIDDLE)
    if not one.verbatim:
        assert one.body["system"] == [text("One.")]
        assert one.messages[-1] == ("user", [text("And?"), text("<system>Two.</system>")])


@across("OC", "OR", "AM", "GG")
def test_only_a_system_text(letter: str) -> None:
    """T-ANTH-005: it becomes the user's, or the client's own API refuses a request without messages."""
    if letter in ("AM", "GG"):
        turns = (("system", "One."),)
        refused: Any = None
        try:
            one = sent(letter, turns)
        except ClientError as error:
            refused = error
        if letter == "AM":
            assert refused is not None  # Anthropic's own answer to it
            assert refused.param == "messages"
            return
        assert refused is None
    one = sent(letter, (("system", "One."),))
    assert one.messages == [("user", [text("One.")])]


@across("OC", "OR", "AM", "GG")
def test_blank_parts(letter: str) -> None:
    """T-ANTH-006: no empty text goes up."""
    one = sent(letter, (("user", "Hi", "", "You"),))
    if not one.verbatim:
        assert one.messages == [("user", [text("Hi"), text("You")])]


@across("OC", "OR", "AM", "GG")
def test_neighbours(letter: str) -> None:
    """T-ANTH-007: two turns of the user are one message of two parts."""
    one = sent(letter, (("user", "Hi"), ("user", "You")))
    if not one.verbatim:
        assert one.messages == [("user", [text("Hi"), text("You")])]


@across("OC", "OR", "AM", "GG")
def test_prefill(letter: str) -> None:
    """T-ANTH-008: the last assistant turn stays the last, without trailing blanks."""
    one = sent(letter, (("user", "Hi"), ("assistant", "Well, ")))
    if not one.verbatim:
        assert one.messages[-1] == ("assistant", [text("Well,")])


# Media.


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
@across("OC", "OR", "AM", "GG")
def test_pictures(letter: str, kind: str) -> None:
    """T-ANTH-009: base64 with its media type."""
    one = sent(letter, (("user", "What?", Picture(f"data:image/{kind};base64,{PNG}")),))
    if not one.verbatim:
        source = {"type": "base64", "media_type": f"image/{kind}", "data": PNG}
        assert one.blocks == [text("What?"), {"type": "image", "source": source}]


@pytest.mark.parametrize("kind", ["bmp", "tiff", "svg+xml"])
@across("OC", "OR", "AM", "GG")
def test_odd_pictures(letter: str, kind: str) -> None:
    """T-ANTH-010: refused by the part's path."""
    turns = (("user", "What?", Picture(f"data:image/{kind};base64,{PNG}")),)
    if letter == "AM":
        assert sent(letter, turns).verbatim
        return
    refused(letter, turns, "unsupported_content")


def refused(letter: str, turns: Any, code: str, **wishes: Any) -> str:
    """The path that the refusal names."""
    with pytest.raises(ClientError) as caught:
        sent(letter, turns, **wishes)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.param
    return caught.value.param


@across("OC", "OR", "AM", "GG")
def test_picture_by_address(letter: str) -> None:
    """T-ANTH-011: Anthropic fetches it itself."""
    assert ADAPTER.by_bytes is None
    one = sent(letter, (("user", "What?", Picture("https://e.example/a.png")),))
    if not one.verbatim:
        assert one.blocks[1] == {"type": "image", "source": {"type": "url", "url": "https://e.example/a.png"}}


@across("OC", "OR")
def test_picture_detail(letter: str) -> None:
    """T-ANTH-012: left out and named."""
    one = sent(letter, (("user", "What?", Picture(detail="high")),))
    assert "detail" not in str(one.body)
    assert one.dropped("detail")


@across("OC", "OR", "AM", "GG")
def test_pdf(letter: str) -> None:
    """T-ANTH-013: a document with its title, where the format has names for files."""
    one = sent(letter, (("user", "What?", File()),))
    if not one.verbatim:
        block = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}
        assert one.blocks[1] == block | ({} if letter == "GG" else {"title": "a.pdf"})


@across("OC", "OR", "AM", "GG")
def test_text_file(letter: str) -> None:
    """T-ANTH-014: a document of plain text."""
    one = sent(letter, (("user", "What?", File("SGVsbG8=", "text/plain", "a.txt")),))
    if not one.verbatim:
        assert one.blocks[1]["source"] == {"type": "text", "media_type": "text/plain", "data": "Hello"}


OFFICE: Final = ("vnd.openxmlformats-officedocument.wordprocessingml.document", "vnd.ms-excel")


@pytest.mark.parametrize("kind", OFFICE)
@across("OC", "OR", "AM", "GG")
def test_office_files(letter: str, kind: str) -> None:
    """T-ANTH-015: refused by the part's path."""
    turns = (("user", "What?", File("UEsDBA==", f"application/{kind}", "a.docx")),)
    if letter == "AM":
        assert sent(letter, turns).verbatim
        return
    refused(letter, turns, "unsupported_content")


@across("OC", "OR", "AM", "GG")
def test_foreign_file_id(letter: str) -> None:
    """T-ANTH-016: the file is another provider's: refused by the part's path; the client's own format passes any."""
    id = "https://generativelanguage.googleapis.com/v1beta/files/abc" if letter == "GG" else "file-abc123"
    turns = (("user", "What?", File(id=id)),)
    if letter == "AM":
        assert sent(letter, turns).verbatim
        return
    refused(letter, turns, "unsupported_content")


@across("OC", "OR", "GG")
def test_sound(letter: str) -> None:
    """T-ANTH-017: refused by the part's path."""
    refused(letter, (("user", "What?", Sound()),), "unsupported_content")


@across("OC", "GG")
def test_film(letter: str) -> None:
    """T-ANTH-018: refused by the part's path."""
    refused(letter, (("user", "What?", Film()),), "unsupported_content")


# Tools.


@across("OC", "OR", "AM", "GG")
def test_tool_without_parameters(letter: str) -> None:
    """T-ANTH-019: an empty object's schema."""
    one = sent(letter, tools=[{"name": "f", "description": "Does it"}])
    if not one.verbatim:
        schema = {"type": "object", "properties": {}}
        assert one.body["tools"] == [{"name": "f", "description": "Does it", "input_schema": schema}]


@across("OC", "OR", "AM")
def test_strict_tool(letter: str) -> None:
    """T-ANTH-020: told to models with structured output, dropped for others."""
    tools = [{**FUNCTION, "strict": True}]
    one = sent(letter, tools=tools)
    if one.verbatim:
        return
    assert one.body["tools"][0]["strict"] is True
    old = sent(letter, tools=tools, upstream=OLD)
    assert "strict" not in old.body["tools"][0]
    assert old.dropped("strict")


@across("OC", "OR")
def test_custom_tool(letter: str) -> None:
    """T-ANTH-021: refused by its place."""
    named = {"name": "free", "format": {"type": "text"}}
    tool = {"type": "custom", "custom": named} if letter == "OC" else {"type": "custom", **named}
    assert refused(letter, HI, "unsupported_parameter", steering={"tools": [tool]}).startswith("tools")


CHOICES: Final = {
    "auto": {"type": "auto"},
    "none": {"type": "none"},
    "required": {"type": "any"},
    "f": {"type": "tool", "name": "f"},
}


@pytest.mark.parametrize("choice", CHOICES)
@across("OC", "OR", "AM", "GG")
def test_choice(letter: str, choice: str) -> None:
    """T-ANTH-022: every choice in Anthropic's words."""
    one = sent(letter, tools=[FUNCTION, {**FUNCTION, "name": "g"}], choice=choice)
    if one.verbatim:
        return
    got = one.body["tool_choice"]
    if letter == "GG" and choice == "f":  # ANY with a list: the tools are filtered, one of them must be called
        names = [tool["name"] for tool in one.body["tools"]]
        assert got == CHOICES["f"] or (got == {"type": "any"} and names == ["f"])
    else:
        assert got == CHOICES[choice]


@across("OC", "OR", "GG")
def test_allowed_tools(letter: str) -> None:
    """T-ANTH-023: the list is filtered; one must be called."""
    tools = [FUNCTION, {**FUNCTION, "name": "g"}, {**FUNCTION, "name": "h"}]
    one = sent(letter, tools=tools, allowed=["f", "h"])
    assert [tool["name"] for tool in one.body["tools"]] == ["f", "h"]
    assert one.body["tool_choice"] == {"type": "any"}


@across("OC", "OR", "AM")
def test_one_call_at_a_time(letter: str) -> None:
    """T-ANTH-024: a field of the choice."""
    one = sent(letter, tools=TOOLS, one_call=True)
    if not one.verbatim:
        assert one.body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


EFFORT_NAMES: Final = {"OC": "reasoning_effort", "OR": "reasoning.effort", "GG": "thinking"}


@across("OC", "OR", "AM", "GG")
def test_forced_choice_and_budget(letter: str) -> None:
    """T-ANTH-025: thinking goes, under the name that the client gave it."""
    one = sent(letter, tools=TOOLS, choice="required", effort="high")
    if not one.verbatim:
        assert "thinking" not in one.body
        assert one.body["tool_choice"] == {"type": "any"}
        assert one.dropped(EFFORT_NAMES[letter])


# History.


@across("OC", "OR", "AM", "GG")
def test_text_and_calls(letter: str) -> None:
    """T-ANTH-026: text first, then the calls in order."""
    turns = (
        ("user", "Go"),
        ("assistant", "I go.", CALL, Call("toolu_2", "g", '{"b":2}')),
        ("tool", Result("toolu_1", "f"), Result("toolu_2", "g")),
    )
    one = sent(letter, turns)
    if not one.verbatim:
        second = {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {"b": 2}}
        assert one.messages[1] == ("assistant", [text("I go."), USE, second])


def _results(*ids: str) -> list[dict[str, Any]]:
    return [{"type": "tool_result", "tool_use_id": id, "content": f"r{id[-1]}"} for id in ids]


THREE: Final = ("toolu_1", "toolu_2", "toolu_3")


@across("OC", "OR", "AM", "GG")
def test_results_in_a_row(letter: str) -> None:
    """T-ANTH-027: one turn of the user, its results in order."""
    calls = tuple(Call(id, "f") for id in THREE)
    results = tuple(Result(id, "f", f"r{id[-1]}") for id in THREE)
    one = sent(letter, (("user", "Go"), ("assistant", *calls), ("tool", *results)))
    if not one.verbatim:
        assert [(role, _plain(content)) for role, content in one.messages[2:]] == [("user", _results(*THREE))]


# A format may know results as texts or as lists of parts.
def _plain(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for block in content:
        inside = block.get("content")
        if isinstance(inside, list) and len(inside) == 1 and inside[0]["type"] == "text":
            block = {**block, "content": inside[0]["text"]}
        found.append(block)
    return found


@across("OC", "OR", "AM", "GG")
def test_results_then_words(letter: str) -> None:
    """T-ANTH-028: results first, then what the user says, in one turn."""
    if letter in ("AM", "GG"):
        turns: Any = (*CALLED, ("user", Result("toolu_1", "f", "r1"), "And?"))
    else:
        turns = (*CALLED, ("tool", Result("toolu_1", "f", "r1")), ("user", "And?"))
    one = sent(letter, turns)
    if not one.verbatim:
        assert [(role, _plain(content)) for role, content in one.messages[2:]] == [
            ("user", [*_results("toolu_1"), text("And?")])
        ]


@across("OC", "OR", "AM", "GG")
def test_picture_in_a_result(letter: str) -> None:
    """T-ANTH-029: an image block inside the result."""
    one = sent(letter, (*CALLED, ("tool", Result("toolu_1", "f", "look", (Picture(),)))))
    if not one.verbatim:
        (result,) = one.messages[2][1]
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        assert result["content"] == [text("look"), image]


@across("OC", "OR", "AM", "GG")
def test_pdf_in_a_result(letter: str) -> None:
    """T-ANTH-030: a document block inside the result."""
    one = sent(letter, (*CALLED, ("tool", Result("toolu_1", "f", "look", (File(),)))))
    if not one.verbatim:
        (result,) = one.messages[2][1]
        assert result["content"][1]["source"] == {"type": "base64", "media_type": "application/pdf", "data": PDF}


@across("AM", "GG")
def test_failed_result(letter: str) -> None:
    """T-ANTH-031: told as an error."""
    one = sent(letter, (*CALLED, ("tool", Result("toolu_1", "f", "no such file", error=True))))
    if not one.verbatim:
        (result,) = one.messages[2][1]
        assert result["is_error"] is True
        assert "no such file" in str(result["content"])


@across("OC", "OR", "AM", "GG")
def test_unanswered_call(letter: str) -> None:
    """T-ANTH-032: an error result stands in for the one that is missing."""
    one = sent(letter, (*CALLED, ("user", "Never mind")))
    if not one.verbatim:
        missing = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no result", "is_error": True}
        assert one.messages[2:] == [("user", [missing, text("Never mind")])]


@across("OC", "OR", "AM", "GG")
def test_orphan_result(letter: str) -> None:
    """T-ANTH-033: what a result without its call says becomes the user's text."""
    one = sent(letter, (("user", "Go"), ("tool", Result("toolu_9", "f", "lost"))))
    if not one.verbatim:
        assert one.messages == [("user", [text("Go"), text("lost")])]


@across("OC", "OR", "AM", "GG")
def test_odd_ids(letter: str) -> None:
    """T-ANTH-034: a legal id, the same for the call and its result."""
    odd = "call:1/ä"
    one = sent(letter, (("user", "Go"), ("assistant", Call(odd, "f")), ("tool", Result(odd, "f"))))
    if not one.verbatim:
        (use,), (result,) = one.messages[1][1], one.messages[2][1]
        assert use["id"] == result["tool_use_id"]
        assert use["id"].replace("_", "").replace("-", "").isalnum()
        assert use["id"].isascii()


# Thinking.


@across("OC", "OR", "AM", "GG")
def test_signed_thinking_goes_back(letter: str) -> None:
    """T-ANTH-035: text and signature as they were, before the call."""
    one = replayed(letter, Message(content=(SIGNED, USE), stop="tool_use"), ("tool", Result("toolu_1", "f")))
    assert one.messages[1][1] == [SIGNED, USE]


@across("OC", "OR", "AM")
def test_redacted_thinking_goes_back(letter: str) -> None:
    """T-ANTH-036: the payload as it was."""
    one = replayed(letter, Message(content=(REDACTED, text("Done."))), ("user", "And?"))
    assert one.messages[1][1] == [REDACTED, text("Done.")]


@across("OC", "OR", "AM")
def test_signature_without_text(letter: str) -> None:
    """T-ANTH-037: an empty thought keeps its signature, there and back."""
    silent = {**SIGNED, "thinking": ""}
    assert told(letter, "whole", Message(content=(silent, text("Done.")))).signed
    one = replayed(letter, Message(content=(silent, text("Done."))), ("user", "And?"))
    assert one.messages[1][1] == [silent, text("Done.")]


@across("OC", "OR", "AM", "GG")
def test_unsigned_thinking(letter: str) -> None:
    """T-ANTH-038: never a thinking block; Anthropic would refuse the request."""
    one = sent(letter, (("user", "Go"), ("assistant", Thought("Hm."), "Done."), ("user", "And?")))
    assert [role for role, _ in one.messages] == ["user", "assistant", "user"]
    assert one.messages[1][1] in ([text("Done.")], "Done.")


@pytest.mark.parametrize(("model", "effort", "told_as"), [(ADAPTIVE, "high", "high"), (OPUS, "high", "high")])
@across("OC", "OR", "AM", "GG")
def test_effort_of_adaptive_models(letter: str, model: str, effort: str, told_as: str) -> None:
    """T-ANTH-039: adaptive thinking with the effort."""
    one = sent(letter, effort=effort, upstream=model)
    if not one.verbatim:
        assert one.body["thinking"]["type"] == "adaptive"
        assert one.body["output_config"] == {"effort": told_as}


@across("OC", "OR")
def test_strongest_effort_where_unknown(letter: str) -> None:
    """T-ANTH-039: xhigh is max where the model does not know it."""
    assert sent(letter, effort="xhigh", upstream=ADAPTIVE).body["output_config"] == {"effort": "max"}
    assert sent(letter, effort="xhigh", upstream=OPUS).body["output_config"] == {"effort": "xhigh"}


@across("OC", "OR", "AM", "GG")
def test_effort_of_budget_models(letter: str) -> None:
    """T-ANTH-040: a budget out of the table, room behind it, no temperature beside it."""
    one = sent(letter, effort="high", max_tokens=100, temperature=0.5)
    if not one.verbatim:
        assert one.body["thinking"]["type"] == "enabled"
        assert one.body["thinking"]["budget_tokens"] == 16384
        assert one.body["max_tokens"] == 16384 + 1024
        assert "temperature" not in one.body
        assert one.dropped("temperature")


@across("OC", "OR", "AM", "GG")
def test_no_thinking(letter: str) -> None:
    """T-ANTH-041: disabled where it is the model's default, absent elsewhere."""
    one = sent(letter, effort="none")
    if one.verbatim:
        return
    assert "thinking" not in one.body
    assert sent(letter, effort="none", upstream=ADAPTIVE).body["thinking"] == {"type": "disabled"}


# Controls.


@across("OC", "OR", "AM", "GG")
def test_temperature_above_one(letter: str) -> None:
    """T-ANTH-042: clamped and named; the client's own format is its own affair."""
    one = sent(letter, temperature=1.6)
    if not one.verbatim:
        assert one.body["temperature"] == 1
        assert one.dropped("temperature~")


@across("OC", "OR", "AM", "GG")
def test_sampling_refused(letter: str) -> None:
    """T-ANTH-043: absent for models that take no sampling settings."""
    one = sent(letter, temperature=0.5, top_p=0.9, upstream=OPUS)
    if not one.verbatim:
        assert not {"temperature", "top_p", "top_k"} & set(one.body)
        assert one.dropped("temperature")
        assert any("p" in name.rpartition("top")[2].lower() for name in one.outgoing.dropped)


@across("OC", "OR", "AM", "GG")
def test_top_k(letter: str) -> None:
    """T-ANTH-044: goes through."""
    one = sent(letter, top_k=7)
    if not one.verbatim:
        assert one.body["top_k"] == 7


@across("OC", "AM", "GG")
def test_stops(letter: str) -> None:
    """T-ANTH-045: any number of them, blank ones apart."""
    one = sent(letter, stop=["a", " ", "b", "c", "d", "e"])
    if not one.verbatim:
        assert one.body["stop_sequences"] == ["a", "b", "c", "d", "e"]
    if letter == "OC":
        assert sent(letter, stop="a").body["stop_sequences"] == ["a"]


@MODE
@across("OC", "AM", "GG")
def test_matched_stop(letter: str, mode: str) -> None:
    """T-ANTH-045: the finish is stop; Anthropic's own clients learn which word it was."""
    shown = told(letter, mode, Message(stop="stop_sequence", sequence="b"))
    assert shown.finish == {"OC": "stop", "AM": "stop_sequence", "GG": "STOP"}[letter]


@across("OC", "OR", "AM", "GG")
def test_no_limit_given(letter: str) -> None:
    """T-ANTH-046: the channel's default, else the model's own limit; Anthropic's format requires one."""
    if letter == "AM":
        tree = inbound.body(letter)
        del tree["max_tokens"]
        with pytest.raises(ClientError) as caught:
            inbound.read(letter, tree)
        assert (caught.value.status, caught.value.param) == (400, "max_tokens")
        return
    assert sent(letter).body["max_tokens"] == 64000
    assert sent(letter, options={"default_max_tokens": 99}).body["max_tokens"] == 99
    assert sent(letter, max_tokens=5).body["max_tokens"] == 5


@across("OC", "OR", "AM", "GG")
def test_schema_output(letter: str) -> None:
    """T-ANTH-047: the model's own structured output, closed at every level."""
    one = sent(letter, schema=SCHEMA)
    if not one.verbatim:
        format = one.body["output_config"]["format"]
        assert format["type"] == "json_schema"
        assert format["schema"]["additionalProperties"] is False
        assert format["schema"]["properties"]["a"]["additionalProperties"] is False


FENCED: Final = Message(content=(text('```json\n{"a": 1}\n```'),))


@MODE
@across("OC", "OR", "GG")
def test_schema_by_words(letter: str, mode: str) -> None:
    """T-ANTH-048: the schema stands in the system text; the answer is bare JSON."""
    one = sent(letter, schema=SCHEMA, upstream=OLD)
    assert "output_config" not in one.body
    assert '"integer"' in one.body["system"][-1]["text"]
    assert orjson.loads(told(letter, mode, FENCED, schema=SCHEMA).text) == {"a": 1}


@MODE
@across("OC", "OR", "GG")
def test_object_by_words(letter: str, mode: str) -> None:
    """T-ANTH-049: JSON is asked for in words; no fence stands in the answer."""
    one = sent(letter, json=True)
    assert "output_config" not in one.body
    assert "JSON" in one.body["system"][-1]["text"]
    assert orjson.loads(told(letter, mode, FENCED, json=True).text) == {"a": 1}


# Cache marks.

MARK: Final = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def _marked(letter: str, count: int) -> dict[str, Any]:
    """A body with marks on a tool, the system text and so many texts of the user."""
    tree = inbound.body(letter, (("system", "One."), ("user", *map(str, range(count)))), tools=TOOLS)
    match letter:
        case "OC":
            tree["messages"][0]["content"] = [{**text("One."), **MARK}]
            parts = tree["messages"][1]["content"]
        case "OR":
            del tree["instructions"]
            first = {"type": "input_text", "text": "One.", **MARK}
            tree["input"].insert(0, {"type": "message", "role": "system", "content": [first]})
            parts = tree["input"][1]["content"]
        case _:
            tree["system"][0] |= MARK
            parts = tree["messages"][0]["content"]
    for part in parts:
        part |= MARK
    tree["tools"][0] |= MARK
    return tree


def _marks(body: dict[str, Any]) -> tuple[int, int, list[int]]:
    system = sum("cache_control" in block for block in body.get("system", ()))
    blocks = body["messages"][0]["content"]
    return (
        sum("cache_control" in tool for tool in body["tools"]),
        system,
        [index for index, block in enumerate(blocks) if "cache_control" in block],
    )


def _built(letter: str, tree: dict[str, Any]) -> dict[str, Any]:
    (dialect,) = ADAPTER.chat
    built = dialect.request(inbound.read(letter, tree), matrix_claude.target()).body
    assert isinstance(built, dict)
    return built


@across("OC", "OR", "AM")
def test_cache_marks(letter: str) -> None:
    """T-ANTH-050: on the same blocks, with their lives."""
    body = _built(letter, _marked(letter, 2))
    assert _marks(body) == (1, 1, [0, 1])
    assert body["tools"][0]["cache_control"] == MARK["cache_control"]


@across("OC", "OR")
def test_cache_breakpoint(letter: str) -> None:
    """T-ANTH-051: an explicit breakpoint of the other format is a mark of one hour."""
    tree = inbound.body(letter, (("user", "Long", "Short"),))
    parts = tree["messages"][0]["content"] if letter == "OC" else tree["input"][0]["content"]
    parts[0]["prompt_cache_breakpoint"] = {"mode": "explicit"}
    blocks = _built(letter, tree)["messages"][0]["content"]
    assert blocks == [{**text("Long"), "cache_control": {"type": "ephemeral", "ttl": "1h"}}, text("Short")]


@across("OC", "OR", "AM")
def test_too_many_cache_marks(letter: str) -> None:
    """T-ANTH-052: the last four stay; the client's own format passes as it is."""
    body = _built(letter, _marked(letter, 5))
    assert _marks(body) == ((1, 1, [0, 1, 2, 3, 4]) if letter == "AM" else (0, 0, [1, 2, 3, 4]))


# Usage.

CACHED: Final = {
    "input_tokens": 10,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 4},
    "server_tool_use": {"web_search_requests": 2},
}


@MODE
@across("OC", "OR", "AM", "GG")
def test_cached_usage(letter: str, mode: str) -> None:
    """T-ANTH-053, T-ANTH-057: the prompt is all of it; what was cached and what was thought are parts."""
    shown = told(letter, mode, Message(usage=CACHED))
    assert shown.usage == {"prompt": 140, "completion": 9, "cached": 100, "reasoning": 4}


@MODE
@across("OC", "OR", "AM", "GG")
def test_cache_write_lives(letter: str, mode: str) -> None:
    """T-ANTH-054: the two lives have two prices; without the split all are of the shorter one."""
    used = matrix_claude.usage(mode, Message(usage=CACHED))
    assert (used.cache_write, used.cache_write_1h) == (10, 20)
    plain = {name: value for name, value in CACHED.items() if name != "cache_creation"}
    used = matrix_claude.usage(mode, Message(usage=plain))
    assert (used.cache_write, used.cache_write_1h) == (30, 0)
    assert told(letter, mode, Message(usage=plain)).usage["prompt"] == 140


COMPACTED: Final = {
    "input_tokens": 100,
    "output_tokens": 10,
    "iterations": [
        {"type": "compaction", "input_tokens": 1000, "output_tokens": 50},
        {"type": "message", "input_tokens": 100, "output_tokens": 10},
    ],
}
ADVISED: Final = {
    "input_tokens": 100,
    "output_tokens": 10,
    "iterations": [
        {"type": "message", "input_tokens": 100, "output_tokens": 10},
        {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 400, "output_tokens": 30},
    ],
}


@MODE
@across("OC", "OR", "AM", "GG")
def test_compaction(letter: str, mode: str) -> None:
    """T-ANTH-055: what is billed is the sum of the iterations."""
    used = matrix_claude.usage(mode, Message(usage=COMPACTED))
    assert (used.prompt, used.completion) == (1100, 60)
    shown = told(letter, mode, Message(usage=COMPACTED))
    if letter != "AM":
        assert (shown.usage["prompt"], shown.usage["completion"]) == (1100, 60)


@MODE
@across("OC", "OR", "AM", "GG")
def test_advisor(letter: str, mode: str) -> None:
    """T-ANTH-056: the advisor's tokens stand beside, under its own model's name."""
    used = matrix_claude.usage(mode, Message(usage=ADVISED))
    ((model, beside),) = used.others
    assert (model, beside.prompt, beside.completion) == ("claude-opus-4-8", 400, 30)
    assert (used.prompt, used.completion) == (100, 10)
    assert told(letter, mode, Message(usage=ADVISED)).text == "Hello"


@MODE
@across("OC", "OR", "AM", "GG")
def test_web_searches(letter: str, mode: str) -> None:
    """T-ANTH-058: searches are counted, to be billed each."""
    assert matrix_claude.usage(mode, Message(usage=CACHED)).server_tools == {"web_search_requests": 2}
    shown = told(letter, mode, Message(usage=CACHED))
    assert shown.usage["prompt"] == 140
    if letter in ("OC", "AM"):
        data = Message(usage=CACHED)
        raw = (
            matrix_claude.whole(letter, data.whole())
            if mode == "whole"
            else matrix_claude.streamed(letter, mode, data.stream())
        )
        assert b'"web_search_requests":2' in raw.replace(b" ", b"")


# Ends.

STOPS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_overflow",
    "compaction": "stop",
}


@MODE
@pytest.mark.parametrize("stop", STOPS)
@across("OC", "OR", "AM", "GG")
def test_ends(letter: str, stop: str, mode: str) -> None:
    """T-ANTH-059: every reason in the client's words."""
    content = (text("Hello"), USE) if stop == "tool_use" else (text("Hello"),)
    shown = told(letter, mode, Message(content=content, stop=stop))
    assert shown.finish == (stop if letter == "AM" else FINISHES[STOPS[stop]][letter])


@MODE
@across("OC", "OR", "AM", "GG")
def test_refusal(letter: str, mode: str) -> None:
    """T-ANTH-060: the explanation stands where the format has a place for it."""
    details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
    shown = told(letter, mode, Message(content=(text("No."),), stop="refusal", details=details))
    assert shown.finish == FINISHES["refusal"][letter]
    assert letter == "GG" or "Not that." in shown.refusal


@MODE
@across("OC", "OR", "AM", "GG")
def test_pause(letter: str, mode: str) -> None:
    """T-ANTH-061: a paused turn is an end like others; its own word is kept where there is a field for it."""
    shown = told(letter, mode, Message(stop="pause_turn"))
    assert shown.finish == FINISHES["pause"][letter]
    if (letter, mode) == ("OC", "whole"):
        assert shown.tree["choices"][0]["native_finish_reason"] == "pause_turn"


WEB: Final = {
    "type": "web_search_result_location",
    "url": "https://e.example/a",
    "title": "A",
    "encrypted_index": "e",
    "cited_text": "…",
}
PAGE: Final = {"type": "char_location", "cited_text": "…", "document_index": 0, "start_char_index": 0}


@across("OC", "OR", "AM", "GG")
def test_web_citations(letter: str) -> None:
    """T-ANTH-062: with places in the joined text."""
    content = (text("One. "), {**text("Two."), "citations": [WEB]})
    for mode in MODES:
        shown = told(letter, mode, Message(content=content))
        assert shown.text == "One. Two."
    tree = told(letter, "whole", Message(content=content)).tree
    if letter == "OC":
        (note,) = tree["choices"][0]["message"]["annotations"]
        cited = note["url_citation"]
        assert (cited["url"], cited["start_index"], cited["end_index"]) == ("https://e.example/a", 5, 9)
    elif letter == "OR":
        notes = [one for item in tree["output"] for part in item["content"] for one in part["annotations"]]
        assert [(one["type"], one["url"], one["start_index"]) for one in notes] == [
            ("url_citation", "https://e.example/a", 5)
        ]
    else:
        assert "https://e.example/a" in orjson.dumps(tree).decode()


@across("OC", "OR", "AM", "GG")
def test_document_citations(letter: str) -> None:
    """T-ANTH-063: verbatim beside the text where the format has a place for it, left out of Gemini's."""
    shown = told(letter, "whole", Message(content=({**text("Two."), "citations": [PAGE]},)))
    assert shown.text == "Two."
    raw = orjson.dumps(shown.tree).decode()
    assert ("char_location" in raw) == (letter != "GG")


# Streams.


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_streamed_text(letter: str, mode: str) -> None:
    """T-ANTH-064: the format's own grammar; a ping is no data."""
    data = Message().stream()
    out = matrix_claude.streamed(letter, mode, data)
    shown = matrix_grammar.stream(letter, out)
    assert (shown.text, shown.finish) == ("Hello", FINISHES["stop"][letter])
    if letter != "AM":
        assert b"ping" not in out


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_streamed_calls(letter: str, mode: str) -> None:
    """T-ANTH-065: calls count from 0, whatever stands before them."""
    content = (text("I go."), USE, {**USE, "id": "toolu_2", "input": {"b": "ä"}})
    shown = told(letter, mode, Message(content=content, stop="tool_use"))
    assert [(id, orjson.loads(arguments)) for id, _, arguments in shown.calls] == [
        ("toolu_1", {"a": 1}),
        ("toolu_2", {"b": "ä"}),
    ]
    assert shown.order == ["text", "call"]


@MODE
@across("OC", "OR", "AM", "GG")
def test_call_without_arguments(letter: str, mode: str) -> None:
    """T-ANTH-066: an empty object."""
    shown = told(letter, mode, Message(content=({**USE, "input": {}},), stop="tool_use"))
    assert shown.calls == [("toolu_1", "f", "{}")]


@MODE
@across("OC", "OR", "AM", "GG")
def test_thinking_in_order(letter: str, mode: str) -> None:
    """T-ANTH-067: thought, signature, text."""
    shown = told(letter, mode, Message(content=(SIGNED, text("Done."))))
    assert (shown.thoughts, shown.text) == ("Hm.", "Done.")
    assert shown.signed
    assert shown.order.index("thought") < shown.order.index("text")
    if letter in ("OC", "AM"):
        assert shown.signed == [SIGNED["signature"]]


@MODE
@across("OC", "OR", "AM", "GG")
def test_redacted_blocks(letter: str, mode: str) -> None:
    """T-ANTH-068: opaque where there is a place for it; never among the words."""
    shown = told(letter, mode, Message(content=(REDACTED, text("Done."))))
    assert shown.text == "Done."
    assert shown.thoughts == ""
    assert bool(shown.signed) == (letter != "GG")


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_usage_of_start_and_end(letter: str, mode: str) -> None:
    """T-ANTH-069: input of the start unless the end repeats it, output of the end; never a sum."""
    for end, prompt in (({"output_tokens": 9}, 12), ({"input_tokens": 40, "output_tokens": 9}, 40)):
        data = anthropic.stream([anthropic.text("Hello")], usage=end, start={"input_tokens": 12, "output_tokens": 3})
        shown = matrix_grammar.stream(letter, matrix_claude.streamed(letter, mode, data))
        assert (shown.usage["prompt"], shown.usage["completion"]) == (prompt, 9)


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_error_in_a_stream(letter: str, mode: str) -> None:
    """T-ANTH-070: an error in the format's own words is the last thing that comes."""
    data = anthropic.stream([anthropic.text("Hello")], stop=None).rpartition(b"event: message_stop")[0]
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    shown = matrix_grammar.stream(letter, matrix_claude.streamed(letter, mode, data + anthropic.event(error)))
    assert shown.text == "Hello"
    assert shown.error is not None
    assert "Overloaded" in shown.error["message"]


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_unknown_events(letter: str, mode: str) -> None:
    """T-ANTH-072: nothing to other formats, forwarded to Anthropic's own."""
    strange = anthropic.event({"type": "weather", "rain": True})
    data = Message().stream()
    at = data.index(b"event: content_block_stop")
    out = matrix_claude.streamed(letter, mode, data[:at] + strange + data[at:])
    if letter == "AM":
        assert strange in out
    else:
        assert b"weather" not in out
        assert matrix_grammar.stream(letter, out).text == "Hello"


# Errors.

ERRORS: Final = {
    "T-ANTH-073": (400, "invalid_request_error", "effort 'xhigh' is not supported", 400, 400),
    "T-ANTH-074": (404, "not_found_error", "model: claude-9", 404, 404),
    "T-ANTH-075": (413, "request_too_large", "Request exceeds the maximum size", 413, 413),
    "T-ANTH-076": (529, "overloaded_error", "Overloaded", 503, 529),
}
KINDS: Final = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    404: ("not_found_error", "NOT_FOUND"),
    413: ("request_too_large", "INVALID_ARGUMENT"),
    503: ("overloaded_error", "UNAVAILABLE"),
}


@pytest.mark.parametrize("row", ERRORS)
@across("OC", "OR", "AM", "GG")
def test_errors(letter: str, row: str) -> None:
    """T-ANTH-073 to 076: status and words of each error, in the client's own shape."""
    status, kind, words, shown, on_messages = ERRORS[row]
    failure = matrix_claude.failed(status, kind, words)
    surface = inbound.surface(letter)
    assert surface.status(failure) == (on_messages if letter == "AM" else shown)
    error = orjson.loads(surface.failure(failure, "req-1"))["error"]
    assert words in error["message"]
    if letter == "AM":
        assert error["type"] == KINDS[shown][0]
    elif letter == "GG":
        assert (error["code"], error["status"]) == (shown, KINDS[shown][1])
    elif shown == 404:
        assert error["code"] == "model_not_found"


# Beside the conversation.


@across("OC", "OR", "AM")
def test_user(letter: str) -> None:
    """T-ANTH-077: the safety identifier before the user."""
    one = sent(letter, user="u-1")
    if one.verbatim:
        return
    assert one.body["metadata"] == {"user_id": "u-1"}
    both = sent(letter, user="u-1", steering={"safety_identifier": "s-1"})
    assert both.body["metadata"] == {"user_id": "s-1"}


@across("OC", "OR", "AM", "GG")
def test_tier(letter: str) -> None:
    """T-ANTH-078: the two that Anthropic knows are told, others dropped; Gemini's own words never fit."""
    if letter == "AM":
        assert sent(letter, tier="standard_only").verbatim
        return
    if letter == "GG":
        one = sent(letter, tier="flex")
    else:
        assert sent(letter, tier="auto").body["service_tier"] == "auto"
        assert sent(letter, tier="default").body["service_tier"] == "standard_only"
        one = sent(letter, tier="flex")
    assert "service_tier" not in one.body
    assert any("tier" in name.lower() for name in one.outgoing.dropped)


STEERING: Final[dict[str, dict[str, Any]]] = {
    "OC": {
        "seed": 1,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "logit_bias": {"1": 1},
        "store": True,
        "verbosity": "low",
    },
    "OR": {"metadata": {"a": "b"}, "truncation": "auto"},
    "GG": {"seed": 1, "presencePenalty": 0.5, "frequencyPenalty": 0.5},
}


@across("OC", "OR", "GG")
def test_steering(letter: str) -> None:
    """T-ANTH-079: absent upstream, listed by name; a strict channel refuses."""
    wishes = STEERING[letter]
    steering = {"generationConfig": wishes} if letter == "GG" else wishes
    one = sent(letter, steering=steering)
    assert set(one.body) == {"model", "max_tokens", "messages"}
    assert list(one.outgoing.dropped) == sorted(one.outgoing.dropped)
    assert len(one.outgoing.dropped) == len(wishes)
    with pytest.raises(Unsupported) as caught:
        sent(letter, steering=steering, options={"strict_params": True})
    assert caught.value.code == "unsupported_parameter"


def test_counting_by_anthropic() -> None:
    """T-ANTH-080 (AM): counted by Anthropic itself."""
    tree = inbound.body("AM", tools=TOOLS)
    ask = COUNT.read(orjson.dumps(tree), {})
    assert ADAPTER.counting is not None
    outgoing = ADAPTER.counting.request(ask, matrix_claude.target())
    assert outgoing.url == "https://h.example/v1/messages/count_tokens"
    assert outgoing.body == {"model": SONNET, "messages": tree["messages"], "tools": tree["tools"]}
    assert orjson.loads(COUNT.count(ADAPTER.counting.tokens(b'{"input_tokens": 77}') or 0)) == {"input_tokens": 77}


@across("AM")
def test_betas(letter: str) -> None:
    """T-ANTH-081: the client's and the channel's, each once."""
    one = sent(letter, headers={"anthropic-beta": "a, b"}, options={"beta": ("b", "c")})
    assert one.outgoing.headers["anthropic-beta"] == "a,b,c"


FOREIGN_TOOLS: Final[dict[str, dict[str, Any]]] = {
    "OR": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://e.example"}]},
    "GG": {"tools": [{"codeExecution": {}}]},
}
SERVER: Final = {"type": "web_fetch_20250910", "name": "web_fetch"}
FETCHED: Final = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_fetch", "input": {"url": "https://e"}}
RESULT: Final = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": {"type": "web_fetch_result"}}


@across("OR", "AM", "GG")
def test_server_tools(letter: str) -> None:
    """T-ANTH-082: verbatim within the format, history and streamed blocks too; others are refused by name."""
    if letter != "AM":
        assert "tools" in refused(letter, HI, "unsupported_parameter", steering=FOREIGN_TOOLS[letter])
        return
    turns = (("user", "Go"), inbound.Native(({"role": "assistant", "content": [FETCHED, RESULT]},)), ("user", "And?"))
    assert sent(letter, turns, steering={"tools": [SERVER]}).verbatim
    out = matrix_claude.streamed(letter, "streamed", Message(content=(FETCHED, RESULT, text("Done."))).stream())
    blocks = [event["content_block"] for _, event in matrix_grammar.frames(out) if "content_block" in event]
    assert blocks[:2] == [FETCHED, RESULT]
