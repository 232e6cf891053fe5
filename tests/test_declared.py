"""Models that count by word pieces: the vocabulary, the markup of tools, and where it does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.billing import count, encodings, vocabulary
from newapi_proxy.billing.declared import MARK
from newapi_proxy.billing.encodings import tokens
from newapi_proxy.errors import OurError
from newapi_proxy.ir.ask import Ask, Reasoning, Text, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY

OLD, MIDDLE, NEW, NEWEST = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.5-flash"
ROUTE: Final = "/v1beta/models/{model}:generateContent"
CITY: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Final = Tool(name="get_weather", description="The weather.", schema=CITY)


def own(model: str, **body: Any) -> Ask:
    """A request in the provider's own format."""
    return SURFACES[ROUTE].read(orjson.dumps(body), {PATH: model, QUERY: ""})


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def ask(model: str, *turns: Turn, tools: tuple[Tool, ...] = ()) -> Ask:
    return Ask(dialect="x", model=model, tree={}, size=500, turns=turns, tools=tools)


def user(*parts: Any) -> Turn:
    return Turn(role="user", parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts))


def marked(text: str) -> int:
    """The tokens of a text in which | stands for a mark."""
    return text.count("|") + sum(tokens(piece, "gemma3") for piece in text.split("|"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("def f(x):\n    return x  # 12345\n\n\n\tend", 20),
        ("你好，世界！这是一个测试。", 7),
        ("Привет, мир! Как дела?", 7),
        ("<table><tr><td>1</td></tr></table> foo<b>bar</b>", 11),
        ("👨\u200d👩\u200d👧 😀😀", 7),
        ('{"city":"Paris","n":[1,2,3]}', 13),
        ("हिन्दी में लिखा", 4),
        ("a\r\n\r\nb", 6),
        (" " * 70 + "x", 4),
        ("", 0),
    ],
)
def test_the_vocabulary_cuts_as_its_maker_does(text: str, wanted: int) -> None:
    """Counts of the published tokenizer: words, code, other scripts, tags, digits one by one, runs of blanks."""
    assert tokens(text, "gemma3") == wanted


def test_the_vocabulary_is_loaded_when_it_is_needed() -> None:
    """A model that needs it is not ready with the other tables, and is after its first count."""
    count.warm()
    encodings._LOADED.pop("gemma3", None)
    assert count.loaded("gpt-4o")
    assert not count.loaded(NEW)
    count.text("hi", NEW)
    assert count.loaded(NEW)


def test_a_damaged_vocabulary_is_an_error(tmp_path: Path) -> None:
    """Wrong bytes and a missing file are errors that name the file."""
    file = tmp_path / "pieces.gz"
    with pytest.raises(OurError, match=str(file)) as missing:
        vocabulary.load(file)
    assert missing.value.code == "tokenizer_unavailable"
    file.write_bytes(b"not the pieces")
    with pytest.raises(OurError, match="is damaged") as damaged:
        vocabulary.load(file)
    assert damaged.value.code == "tokenizer_damaged"


def test_words_and_messages() -> None:
    """The older generation counts words, the newer one a token more a message; an instruction's only with its role."""
    words = tokens("What is 2+2?", "gemma3") + tokens("4", "gemma3") + tokens("Sure?", "gemma3")
    talk = [said("What is 2+2?"), said("4", "model"), said("Sure?")]
    assert count.prompt(own(OLD, contents=talk)) == words
    assert count.prompt(own(MIDDLE, contents=talk)) == words + 3
    assert count.prompt(own(NEW, contents=talk)) == words + 3
    assert count.prompt(own(NEW, contents=talk), plain=True) == words
    terse = tokens("Be terse.", "gemma3")
    bare = own(NEW, contents=talk, systemInstruction={"parts": [{"text": "Be terse."}]})
    assert count.prompt(bare) == words + 3 + terse
    roled = own(NEW, contents=talk, systemInstruction=said("Be terse."))
    assert count.prompt(roled) == words + 4 + terse


def test_declarations_of_the_newest() -> None:
    """A tool is its declaration with marks; what it does not say is not there."""
    hi = count.prompt(ask(NEW, user("hi")))
    wanted = marked(
        "|declaration:get_weather{description:|The weather.|,parameters:{properties:{city:{type:|STRING|}},"
        "required:[|city|],type:|OBJECT|}}|"
    )
    assert count.prompt(ask(NEW, user("hi"), tools=(WEATHER,))) == hi + wanted
    bare = Tool(name="now", schema={"type": "object", "properties": {}, "additionalProperties": False})
    wanted = marked("|declaration:now{parameters:{type:|OBJECT|}}|")
    assert count.prompt(ask(NEW, user("hi"), tools=(bare,))) == hi + wanted


def test_declarations_of_the_generation_before() -> None:
    """An empty description counts, a type only where nothing else is said, a nested object twice."""
    hi = count.prompt(ask(MIDDLE, user("hi")))
    bare = Tool(name="now", schema={"type": "object"})
    wanted = marked("|declaration:now{description:||,parameters:{type:|OBJECT|}}|")
    assert count.prompt(ask(MIDDLE, user("hi"), tools=(bare,))) == hi + wanted
    window = {
        "type": "object",
        "description": "When.",
        "properties": {"start": {"type": "string", "description": "From."}},
        "required": ["start"],
    }
    nested = Tool(name="f", schema={"type": "object", "properties": {"window": window}, "required": ["window"]})
    wanted = marked(
        "|declaration:f{description:||,parameters:{properties:{window:{description:|When.|,properties:{start:"
        "{description:|From.|}},required:[|start|]}{description:|When.|,properties:{start:{type:|STRING|}}}},"
        "required:[|window|]}}|"
    )
    assert count.prompt(ask(MIDDLE, user("hi"), tools=(nested,))) == hi + wanted


def test_what_only_binds_is_not_told_to_the_generation_before() -> None:
    """Nor are commas within lists and values, and what nobody must give is told twice."""
    hi = count.prompt(ask(MIDDLE, user("hi")))
    city = {"type": "string", "title": "City", "minLength": 1, "default": "Rome"}
    schema = {"type": "object", "title": "Args", "properties": {"city": city, "day": {"type": "integer"}}}
    fields = "{properties:{city:{type:|STRING|},day:{type:|INTEGER|}}"
    wanted = marked(f"|declaration:f{{description:||,parameters:{fields},required:[|city||day|]}}}}|")
    needed = Tool(name="f", schema={**schema, "required": ["city", "day"]})
    assert count.prompt(ask(MIDDLE, user("hi"), tools=(needed,))) == hi + wanted
    wanted = marked(f"|declaration:f{{description:||,parameters:{fields}}}{fields}}}}}|")
    assert count.prompt(ask(MIDDLE, user("hi"), tools=(Tool(name="f", schema=schema),))) == hi + wanted
    called = Turn(role="assistant", parts=(ToolCall(id="1", name="f", arguments='{"city":"Rome","day":[1,2.5]}'),))
    assert count.prompt(ask(MIDDLE, user("hi"), called)) == hi + 1 + marked("|call:f{city:|Rome|day:[1.02.5]}|")


def test_calls_and_results() -> None:
    """Both in their markup; a result has the name of its call, text stands under `output`, results are one message."""
    calls = (ToolCall(id="1", name="f", arguments='{"n":1}'), ToolCall(id="2", name="g", arguments="{}"))
    results = (ToolResult(id="1", parts=(Text(text='{"ok":true}'),)), ToolResult(id="2", parts=(Text(text="no"),)))
    loop = (
        user("hi"),
        Turn(role="assistant", parts=calls),
        *(Turn(role="tool", parts=(result,)) for result in results),
    )
    for model, number in ((MIDDLE, "1.0"), (NEW, "1")):
        wanted = marked(f"|call:f{{n:{number}}}|") + marked("|call:g{}|")
        wanted += marked("|response:f{ok:true}|") + marked("|response:g{output:|no|}|")
        assert count.prompt(ask(model, *loop)) == tokens("hi", "gemma3") + 3 + wanted
    words = ("hi", "f", "n", "g", "f", "ok", "g", "output", "no")
    assert count.prompt(ask(OLD, *loop)) == sum(tokens(word, "gemma3") for word in words)


def test_plain_schemas_count_in_the_providers_own_words_only() -> None:
    """Names, texts and types of `parameters` count, a JSON Schema does not."""
    declared = {"name": "get_weather", "description": "The weather."}
    words = sum(tokens(word, "gemma3") for word in ("hi", "get_weather", "The weather."))
    given = {**declared, "parametersJsonSchema": CITY}
    body: dict[str, Any] = {"contents": [said("hi")], "tools": [{"functionDeclarations": [given]}]}
    assert count.prompt(own(OLD, **body)) == words
    assert count.prompt(own(NEW, **body), plain=True) == words
    body["tools"] = [{"functionDeclarations": [{**declared, "parameters": CITY}]}]
    assert count.prompt(own(OLD, **body)) == words + 2 + 2 * tokens("city", "gemma3")


def test_sealed_thoughts_count_where_the_model_goes_on() -> None:
    """A signature costs by its length while results are the last word, nothing once there is another question.

    The older generation's only in streams, the newest's for good, and those of its texts.
    """
    call = ToolCall(id="1", name="f", arguments="{}", signature="A" * 1000)
    bare = ToolCall(id="1", name="f", arguments="{}")
    result = Turn(role="tool", parts=(ToolResult(id="1", parts=(Text(text="no"),)),))

    def cost(model: str, *after: Turn, plain: bool = False, stream: bool = False) -> int:
        with_, without = (
            msgspec.structs.replace(
                ask(model, user("hi"), Turn(role="assistant", parts=(one,)), result, *after), stream=stream
            )
            for one in (call, bare)
        )
        return count.prompt(with_, plain=plain) - count.prompt(without, plain=plain)

    assert 150 < cost(NEW) < 200
    assert cost(NEW, plain=True) == cost(MIDDLE) == cost(NEW, user("so?")) == 0
    assert 100 < cost(MIDDLE, plain=True) < 140
    assert 120 < cost(MIDDLE, stream=True) < 150
    assert 150 < cost(NEWEST) == cost(NEWEST, user("so?")) < 200
    assert 180 < cost(NEWEST, plain=True) < 220
    again = Turn(role="assistant", parts=(call,)), result
    assert cost(NEW, user("so?"), *again) == 0 < cost(MIDDLE, user("so?"), *again, plain=True)
    signed = Text(text="Ho.", opaque={"google": {"thought_signature": "A" * 1000}})
    for model, least in ((NEW, 0), (NEWEST, 150)):
        talk = (user("hi"), Turn(role="assistant", parts=(signed,)), user("so?"))
        bare_talk = (talk[0], Turn(role="assistant", parts=(Text(text="Ho."),)), talk[2])
        assert least <= count.prompt(ask(model, *talk)) - count.prompt(ask(model, *bare_talk)) < least + 50


def test_an_answer_counts_by_its_pieces() -> None:
    """An answer's text is its tokens, a call a few more than its name and arguments."""
    tally = count.Tally()
    tally.feed("The capital of France is Paris.")
    assert tally.tokens(NEW) == tokens("The capital of France is Paris.", "gemma3") == 7
    tally.call("f")
    assert tally.tokens(NEW) == tokens("The capital of France is Paris.f", "gemma3") + 8
    assert tally.tokens(NEW, plain=True) == tokens("The capital of France is Paris.f", "gemma3") + 1
    assert count.Tally().tokens(NEW) == 0


def test_thoughts_are_not_sent_twice() -> None:
    """A thought of an earlier turn costs nothing."""
    plain = (user("hi"), Turn(role="assistant", parts=(Text(text="ho"),)), user("so?"))
    thought = Turn(role="assistant", parts=(Reasoning(text="well, " * 50), Text(text="ho")))
    assert count.prompt(ask(NEW, plain[0], thought, plain[2])) == count.prompt(ask(NEW, *plain))


def test_thoughts_in_the_providers_own_words_are_sent_as_they_are() -> None:
    """And cost what they say, but where names alone count."""
    answer = {"role": "model", "parts": [{"text": "Well, well.", "thought": True}, {"text": "Ho."}]}
    bare = {"role": "model", "parts": [{"text": "Ho."}]}
    for plain, more in ((False, tokens("Well, well.", "gemma3")), (True, 0)):
        thought, without = (own(NEW, contents=[said("hi"), one, said("so?")]) for one in (answer, bare))
        assert count.prompt(thought, plain=plain) == count.prompt(without, plain=plain) + more


def test_a_schema_of_the_answer() -> None:
    """In the provider's own words it costs its names and texts, in the oldest generation nothing."""
    schema = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "propertyOrdering": ["city"]}
    config = {"responseMimeType": "application/json", "responseSchema": schema}
    told = 2 + 2 * tokens("city", "gemma3")
    for model, more in ((OLD, told), ("gemini-1.5-flash", 0), (NEW, 0)):
        asked, plain = own(model, contents=[said("hi")], generationConfig=config), own(model, contents=[said("hi")])
        assert count.prompt(asked) == count.prompt(plain) + more


def test_the_newest_tools_cost_more_where_names_alone_count() -> None:
    """Seven a schema, three a field; of a JSON Schema all names and texts."""
    hi, plain = ask(NEWEST, user("hi")), ask(NEW, user("hi"))
    more = count.prompt(ask(NEWEST, user("hi"), tools=(WEATHER,)), plain=True) - count.prompt(hi, plain=True)
    less = count.prompt(ask(NEW, user("hi"), tools=(WEATHER,)), plain=True) - count.prompt(plain, plain=True)
    assert more == less + 10
    given = {"name": "get_weather", "parametersJsonSchema": CITY, "responseJsonSchema": {"type": "string"}}
    body: dict[str, Any] = {"contents": [said("hi")], "tools": [{"functionDeclarations": [given]}]}
    names = ("type", "object", "properties", "city", "type", "string", "required", "city", "type", "string")
    told = count.prompt(own(NEWEST, **body), plain=True) - count.prompt(own(NEW, **body), plain=True)
    assert told == 7 + sum(tokens(name, "gemma3") for name in names)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "items", "enum", "anyOf", "required", "$ref", "description"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


# the first count loads the table
@given(JSON)
def test_no_schema_breaks_the_count(schema: Any) -> None:
    """Clients' schemas, results and arguments may be anything."""
    tool = Tool(name="f", schema=schema if isinstance(schema, dict) else {"properties": {"a": schema}})
    call = ToolCall(id="1", name="f", arguments=orjson.dumps(schema).decode())
    for model in (OLD, MIDDLE, NEW):
        assert count.prompt(ask(model, user(MARK), Turn(role="assistant", parts=(call,)), tools=(tool,))) > 0


def test_schemas_that_lead_back_end() -> None:
    """References in circles and in crowds are counted up to a bound."""
    crowd = {"anyOf": [{"$ref": "#/$defs/A"}] * 50, "properties": {"b": {"$ref": "#/$defs/A"}}}
    schema = {"properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/nowhere"}}, "$defs": {"A": crowd}}
    for model in (OLD, MIDDLE, NEW):
        assert count.prompt(ask(model, user("hi"), tools=(Tool(name="f", schema=schema),))) < 200_000
