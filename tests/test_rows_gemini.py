"""The rows of Gemini, each in every format that clients speak: what goes up, what comes back, what it costs.

`GG` is Gemini's own format: its body goes up as it came, its answer comes back as it is.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters._gemini_contents import PLACEHOLDER
from newapi_proxy.adapters._tools import opened_id
from newapi_proxy.adapters.gemini import ADAPTER
from newapi_proxy.errors import ClientError, Unsupported
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.surfaces.anthropic import COUNT
from newapi_proxy.surfaces.base import PATH, QUERY
from newapi_proxy.surfaces.gemini import COUNT as GEMINI_COUNT
from tests.fakes import inbound, matrix_gemini, matrix_grammar
from tests.fakes.inbound import FUNCTION, HI, PDF, PNG, Call, File, Film, Picture, Result, Sound, Thought, across
from tests.fakes.matrix_gemini import (
    DIALECT,
    FLASH2,
    FLASH3,
    FLASH25,
    MODES,
    OLD,
    PRO3,
    PRO25,
    Message,
    Sent,
    event,
    failed,
    posted,
    sent,
    told,
)
from tests.fakes.matrix_grammar import FINISHES

MODE = pytest.mark.parametrize("mode", MODES)
CALL: Final = Call("call_1", "f", '{"a":1}')
CALLED: Final = (("user", "Go"), ("assistant", CALL))
TOOLS: Final = [FUNCTION]
SIGNATURE: Final = "EqoBCqcB+/9z"
OTHER: Final = "AY89a18a8/Loc2w="
SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"allOf": [{"type": "string"}], "const": "x"}},
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"A": {"type": "object", "properties": {"next": {"$ref": "#/$defs/A"}}}},
}
CLEAN: Final = {
    "type": "object",
    "properties": {
        "a": {"type": "object", "properties": {"next": {"type": "object"}}},
        "b": {"type": "string", "enum": ["x"]},
    },
    "required": ["a"],
}
USE: Final = {"functionCall": {"id": "fc_1", "name": "f", "args": {"a": 1}}}
SIGNED: Final = {**USE, "thoughtSignature": SIGNATURE}


def text(words: str) -> dict[str, str]:
    """A text part."""
    return {"text": words}


def replayed(letter: str, message: Message, *more: Any, upstream: str = FLASH3, **wishes: Any) -> Sent:
    """A conversation in which the client sends an answer back as its format has it, and goes on."""
    answer = orjson.loads(matrix_gemini.whole(letter, message.whole()))
    return sent(letter, (("user", "Go"), inbound.reply(letter, answer), *more), upstream=upstream, **wishes)


def result(letter: str, message: Message, words: str = "done") -> Any:
    """The result of the answer's first call, by the id that the client was given."""
    shown = told(letter, "whole", message)
    return ("tool", Result(shown.calls[0][0] if letter != "GG" else "fc_1", "f", words))


# Turns.


@across("OC", "OR", "AM", "GG")
def test_one_text(letter: str) -> None:
    """T-GEMI-001: the question is one content of one part, the key stands in a header of its own."""
    one = sent(letter)
    assert one.outgoing.url == "https://h.example/v1beta/models/gemini-2.5-flash:generateContent"
    assert one.outgoing.headers["x-goog-api-key"] == "k"
    if not one.verbatim:
        assert one.body == {"contents": [{"role": "user", "parts": [text("Hi")]}]} | (
            {"generationConfig": {"maxOutputTokens": 1024}} if letter == "AM" else {}
        )


@across("OC", "OR", "AM", "GG")
def test_leading_system(letter: str) -> None:
    """T-GEMI-002: system and developer texts become the instruction's parts."""
    one = sent(letter, (("system", "One."), ("developer", "Two."), ("user", "Hi")))
    if not one.verbatim:
        assert one.body["systemInstruction"] == {"parts": [text("One."), text("Two.")]}
        assert one.contents == [("user", [text("Hi")])]


@across("OC", "OR", "AM", "GG")
def test_only_a_system_text(letter: str) -> None:
    """T-GEMI-003: it becomes the user's; Anthropic's format has no request without messages."""
    if letter == "AM":
        tree = {"model": "m", "max_tokens": 9, "system": "One.", "messages": [{"role": "user", "content": ""}]}
        assert posted(letter, tree).body["systemInstruction"] == {"parts": [text("One.")]}
        return
    if letter == "GG":
        tree = {"systemInstruction": {"parts": [text("One.")]}}
        assert posted(letter, tree).verbatim
        return
    one = sent(letter, (("system", "One."),))
    assert one.contents == [("user", [text("One.")])]
    assert "systemInstruction" not in one.body


@across("OC", "OR", "AM")
def test_system_inside(letter: str) -> None:
    """T-GEMI-004: tagged text of the user at its place."""
    one = sent(letter, (("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("system", "Two.")))
    assert one.contents[-1] == ("user", [text("And?"), text("<system>Two.</system>")])


@across("OC", "OR", "AM", "GG")
def test_roles(letter: str) -> None:
    """T-GEMI-005: the assistant is the model."""
    one = sent(letter, (("user", "Hi"), ("assistant", "Ho"), ("user", "And?")))
    if not one.verbatim:
        assert [role for role, _ in one.contents] == ["user", "model", "user"]


@across("OC", "OR", "AM", "GG")
def test_neighbours(letter: str) -> None:
    """T-GEMI-006: two turns of the user are one content of two parts."""
    one = sent(letter, (("user", "Hi"), ("user", "You")))
    if not one.verbatim:
        assert one.contents == [("user", [text("Hi"), text("You")])]


@across("GG")
def test_two_spellings(letter: str) -> None:
    """T-GEMI-007: both spellings, mixed, go up as they came."""
    tree = {
        "contents": [{"role": "user", "parts": [{"inline_data": {"mimeType": "image/png", "data": PNG}}, text("?")]}],
        "system_instruction": {"parts": [text("One.")]},
        "generationConfig": {"max_output_tokens": 9, "topP": 0.5},
        "unknown": {"at": ["any", {"depth": 1}]},
    }
    assert posted(letter, tree).verbatim


@across("GG")
def test_two_alphabets(letter: str) -> None:
    """T-GEMI-008: base64 of either alphabet goes up as it came."""
    for data in ("_9j_4AAQSkZJRg==", "/9j/4AAQSkZJRg=="):
        part = {"inlineData": {"mimeType": "image/jpeg", "data": data}}
        assert posted(letter, {"contents": [{"role": "user", "parts": [part]}]}).verbatim


# Media.


@across("OC", "OR", "AM", "GG")
def test_pictures(letter: str) -> None:
    """T-GEMI-009: base64 with its media type."""
    one = sent(letter, (("user", "What?", Picture()),))
    if not one.verbatim:
        assert one.parts == [text("What?"), {"inlineData": {"mimeType": "image/png", "data": PNG}}]


@across("OC", "OR", "AM", "GG")
def test_pictures_by_address(letter: str) -> None:
    """T-GEMI-010: the address must be fetched and goes up as bytes; Gemini's own clients' goes up as it came."""
    tree = inbound.body(letter, (("user", "What?", Picture("https://p.example/a.png")),))
    ask = inbound.read(letter, tree)
    assert ADAPTER.by_bytes is not None
    assert [ADAPTER.by_bytes(one, FLASH25) for one in matrix_gemini.media(ask)] == [letter != "GG"]
    body: Any = DIALECT.request(matrix_gemini.fetched(ask, PNG, "image/png"), matrix_gemini.target()).body
    assert body["contents"][0]["parts"][-1] == {"inlineData": {"mimeType": "image/png", "data": PNG}}
    if letter == "GG":
        assert posted(letter, tree).verbatim


@across("OC", "GG")
def test_films_by_address(letter: str) -> None:
    """T-GEMI-011: a film that Google fetches itself is not fetched here."""
    url = "https://www.youtube.com/watch?v=1"
    if letter == "GG":
        tree = {"contents": [{"role": "user", "parts": [{"fileData": {"fileUri": url}}]}]}
        assert posted(letter, tree).verbatim
        return
    content = [{"type": "video_url", "video_url": {"url": url}}]
    tree = {"messages": [{"role": "user", "content": content}], "model": "m"}
    assert posted(letter, tree).parts == [{"fileData": {"fileUri": url}}]
    assert ADAPTER.by_bytes is not None
    assert not any(ADAPTER.by_bytes(one, FLASH25) for one in matrix_gemini.media(inbound.read(letter, tree)))


@across("OC", "OR", "AM", "GG")
def test_pdf(letter: str) -> None:
    """T-GEMI-012: a PDF is inline data of its type."""
    one = sent(letter, (("user", "Read.", File()),))
    if not one.verbatim:
        assert one.parts[-1] == {"inlineData": {"mimeType": "application/pdf", "data": PDF}}


@pytest.mark.parametrize("kind", ["text/plain", "text/csv", "text/markdown"])
@across("OC", "OR", "AM", "GG")
def test_text_files(letter: str, kind: str) -> None:
    """T-GEMI-013: a text file is inline data of its type."""
    one = sent(letter, (("user", "Read.", File(data="YSxi", kind=kind, name="a.txt")),))
    if not one.verbatim:
        assert one.parts[-1] == {"inlineData": {"mimeType": kind, "data": "YSxi"}}


@MODE
@across("OC", "OR", "GG")
def test_sound(letter: str, mode: str) -> None:
    """T-GEMI-014: sound is inline data, and its tokens are told."""
    one = sent(letter, (("user", "Hear.", Sound()),))
    if not one.verbatim:
        assert one.parts[-1] == {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}
        mp3 = sent(letter, (("user", "Hear.", Sound(form="mp3")),))
        assert mp3.parts[-1]["inlineData"]["mimeType"] == "audio/mpeg"
    usage = {**matrix_gemini.USAGE, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}]}
    assert matrix_gemini.usage(mode, Message(usage=usage)).audio_in == 7
    if letter == "OC" and mode == "whole":
        answer = orjson.loads(matrix_gemini.whole(letter, Message(usage=usage).whole()))
        assert answer["usage"]["prompt_tokens_details"]["audio_tokens"] == 7


@across("OC", "GG")
def test_films(letter: str) -> None:
    """T-GEMI-015: a film is inline data or a file's address; which piece of it is meant goes with it."""
    one = sent(letter, (("user", "See.", Film()),))
    if not one.verbatim:
        assert one.parts[-1] == {"inlineData": {"mimeType": "video/mp4", "data": "AAAAIGZ0eXA="}}
        uri = "https://generativelanguage.googleapis.com/v1beta/files/a"
        video = {"url": uri, "start_offset": 5, "end_offset": "10s", "fps": 2}
        tree = {"model": "m", "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": video}]}]}
        clip = {"startOffset": "5s", "endOffset": "10s", "fps": 2}
        assert posted(letter, tree).parts == [{"fileData": {"fileUri": uri}, "videoMetadata": clip}]


@across("OC", "OR", "GG")
def test_detail(letter: str) -> None:
    """T-GEMI-016: resolution of each part on new models, of the request on others, nothing where wishes differ."""
    if letter == "GG":
        part = {"inlineData": {"mimeType": "image/png", "data": PNG}, "mediaResolution": {"level": "X"}}
        assert posted(letter, {"contents": [{"role": "user", "parts": [part]}]}).verbatim
        return
    low, high = Picture(detail="low"), Picture(detail="high")
    new = sent(letter, (("user", low, high),), upstream=FLASH3)
    assert [one["mediaResolution"]["level"][-4:] for one in new.parts] == ["_LOW", "HIGH"]
    same = sent(letter, (("user", low, low),))
    assert same.config["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
    assert "mediaResolution" not in same.parts[0]
    mixed = sent(letter, (("user", low, high),))
    assert "mediaResolution" not in mixed.config
    assert len(mixed.outgoing.dropped) == 2


@across("OC", "OR", "AM", "GG")
def test_too_much_inline(letter: str) -> None:
    """T-GEMI-017: above 20 MB of base64 the request is refused; to Gemini's own clients upstream says so itself."""
    big = Picture("data:image/png;base64," + "A" * (21 * 1024 * 1024))
    if letter == "GG":
        assert sent(letter, (("user", big),)).verbatim
        return
    with pytest.raises(Unsupported) as refused:
        sent(letter, (("user", "See", big),))
    assert (refused.value.status, refused.value.code) == (413, "request_too_large")


# Tools.


@across("OC", "OR", "AM", "GG")
def test_tools(letter: str) -> None:
    """T-GEMI-018: one tool object, schemas as they are."""
    one = sent(letter, tools=[{**FUNCTION, "parameters": SCHEMA}])
    if not one.verbatim:
        declared = {"name": "f", "description": "Does it", "parametersJsonSchema": SCHEMA}
        assert one.body["tools"] == [{"functionDeclarations": [declared]}]


@across("OC", "OR", "AM", "GG")
def test_schema_cleaned(letter: str) -> None:
    """T-GEMI-019: old models get a schema without references and unknown keywords."""
    one = sent(letter, tools=[{**FUNCTION, "parameters": SCHEMA}], upstream=OLD)
    if not one.verbatim:
        (declared,) = one.body["tools"][0]["functionDeclarations"]
        assert declared["parameters"] == CLEAN


@across("OC", "OR", "AM", "GG")
def test_odd_tool_names(letter: str) -> None:
    """T-GEMI-020: a name that begins with a digit is refused; Gemini's own clients hear it from upstream."""
    tools = [{**FUNCTION, "name": "1f"}]
    if letter == "GG":
        assert sent(letter, tools=tools).verbatim
        return
    with pytest.raises(ClientError) as refused:
        sent(letter, tools=tools)
    assert refused.value.status == 400
    assert str(refused.value.param).endswith("name")


@across("OC", "OR", "AM", "GG")
def test_tool_choice(letter: str) -> None:
    """T-GEMI-021: the four words."""
    wanted = {
        "none": {"mode": "NONE"},
        "auto": {"mode": "AUTO"},
        "required": {"mode": "ANY"},
        "f": {"mode": "ANY", "allowedFunctionNames": ["f"]},
    }
    for word, calling in wanted.items():
        one = sent(letter, tools=TOOLS, choice=word)
        if not one.verbatim:
            assert one.body["toolConfig"] == {"functionCallingConfig": calling}


@across("OC", "OR", "GG")
def test_allowed_tools(letter: str) -> None:
    """T-GEMI-022: all tools go up, the list says which may be called."""
    one = sent(letter, tools=[FUNCTION, {**FUNCTION, "name": "g"}], allowed=["g"])
    if not one.verbatim:
        assert len(one.body["tools"][0]["functionDeclarations"]) == 2
        assert one.body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["g"]}


@across("OC", "OR", "AM", "GG")
def test_strict_tools(letter: str) -> None:
    """T-GEMI-023: validated calls on models that know them, else the wish is dropped by its name."""
    if letter == "GG":
        tree = inbound.body(letter, tools=TOOLS) | {"toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}}}
        assert posted(letter, tree).verbatim
        return
    one = sent(letter, tools=[{**FUNCTION, "strict": True}])
    assert one.body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    older = sent(letter, tools=[{**FUNCTION, "strict": True}], upstream=FLASH2)
    assert "toolConfig" not in older.body
    assert any(name.endswith("strict") for name in older.outgoing.dropped)


@across("OC", "OR", "AM")
def test_one_call_at_a_time(letter: str) -> None:
    """T-GEMI-024: dropped by its name."""
    one = sent(letter, tools=TOOLS, one_call=True)
    assert any("parallel" in name for name in one.outgoing.dropped)


# Signatures.


@across("OC", "OR", "AM", "GG")
def test_signature_returns(letter: str) -> None:
    """T-GEMI-025: the client's own history carries the signature back to the call it came from."""
    answer = Message(parts=(SIGNED,))
    one = replayed(letter, answer, result(letter, answer), tools=TOOLS)
    if not one.verbatim:
        assert one.contents[1] == ("model", [SIGNED])
        response = {"id": "fc_1", "name": "f", "response": {"output": "done"}}
        assert one.contents[2] == ("user", [{"functionResponse": response}])


@MODE
@across("OC", "OR", "AM", "GG")
def test_signature_survives_plain_clients(letter: str, mode: str) -> None:
    """T-GEMI-026: of a client that keeps ids, names and arguments alone it comes back; without it the placeholder."""
    if letter == "GG":
        assert sent(letter, (*CALLED, ("tool", Result("call_1", "f")))).verbatim
        return
    shown = told(letter, mode, Message(parts=(SIGNED,)))
    ((id, name, arguments),) = shown.calls
    turns = (("user", "Go"), ("assistant", Call(id, name, arguments)), ("tool", Result(id, name)))
    assert sent(letter, turns, upstream=FLASH3, tools=TOOLS).contents[1] == ("model", [SIGNED])
    lost = sent(letter, (*CALLED, ("tool", Result("call_1", "f"))), upstream=FLASH3, tools=TOOLS)
    assert lost.contents[1][1][0]["thoughtSignature"] == PLACEHOLDER
    older = sent(letter, (*CALLED, ("tool", Result("call_1", "f"))), tools=TOOLS)
    assert "thoughtSignature" not in older.contents[1][1][0]


@across("OC", "OR", "AM", "GG")
def test_parallel_calls_one_signature(letter: str) -> None:
    """T-GEMI-027: the first call alone carries it, order kept."""
    second = {"functionCall": {"id": "fc_2", "name": "f", "args": {}}}
    answer = Message(parts=(SIGNED, second))
    shown = told(letter, "whole", answer)
    ids = [id for id, _, _ in shown.calls]
    results = ("tool", *(Result(id, "f", str(number)) for number, id in enumerate(ids)))
    one = replayed(letter, answer, results, tools=TOOLS)
    if not one.verbatim:
        assert one.contents[1] == ("model", [SIGNED, second])
        said = [part["functionResponse"] for part in one.contents[2][1]]
        assert [(part["id"], part["response"]) for part in said] == [
            ("fc_1", {"output": "0"}),
            ("fc_2", {"output": "1"}),
        ]


@across("OC", "OR", "AM", "GG")
def test_signature_on_text(letter: str) -> None:
    """T-GEMI-028: it comes back on the text it came from, the parts stay apart."""
    answer = Message(parts=({"text": "Hello", "thoughtSignature": OTHER}, SIGNED))
    one = replayed(letter, answer, result(letter, answer), tools=TOOLS)
    if not one.verbatim:
        assert one.contents[1] == ("model", [{"text": "Hello", "thoughtSignature": OTHER}, SIGNED])


@across("OC", "OR", "AM", "GG")
def test_another_providers_history(letter: str) -> None:
    """T-GEMI-029: foreign ids are kept, foreign thinking is not, the placeholder stands for the signature."""
    said = ("assistant", Thought("Hm."), Call("toolu_01", "f", '{"a":1}'))
    one = sent(letter, (("user", "Go"), said, ("tool", Result("toolu_01", "f"))), upstream=FLASH3, tools=TOOLS)
    if not one.verbatim:
        call = {"functionCall": {"id": "toolu_01", "name": "f", "args": {"a": 1}}, "thoughtSignature": PLACEHOLDER}
        assert one.contents[1] == ("model", [call])


# Results.


@pytest.mark.parametrize(
    ("words", "response"),
    [
        ("sunny", {"output": "sunny"}),  # T-GEMI-030
        ("[1,2]", {"output": "[1,2]"}),
        ('{"sun": {"at": 1}}', {"sun": {"at": 1}}),  # T-GEMI-031
    ],
)
@across("OC", "OR", "AM", "GG")
def test_results(letter: str, words: str, response: Any) -> None:
    """T-GEMI-030, 031: text stands under `output`, an object goes up as it is."""
    one = sent(letter, (*CALLED, ("tool", Result("call_1", "f", words))), tools=TOOLS)
    if not one.verbatim:
        value = {"id": "call_1", "name": "f", "response": response}
        assert one.contents[2] == ("user", [{"functionResponse": value}])


@across("AM", "GG")
def test_failed_results(letter: str) -> None:
    """T-GEMI-032: what a tool failed with stands under `error`."""
    one = sent(letter, (*CALLED, ("tool", Result("call_1", "f", "broken", error=True))), tools=TOOLS)
    if not one.verbatim:
        assert one.contents[2][1][0]["functionResponse"]["response"] == {"error": "broken"}


@across("OC", "OR", "AM", "GG")
def test_results_in_a_row(letter: str) -> None:
    """T-GEMI-033: one content, one response each, in the order of the calls; a missing one is told."""
    calls = ("assistant", Call("c1", "f"), Call("c2", "g"), Call("c3", "f"))
    turns = (("user", "Go"), calls, ("tool", Result("c3", "f", "3")), ("tool", Result("c1", "f", "1")))
    one = sent(letter, turns, tools=[FUNCTION, {**FUNCTION, "name": "g"}])
    if not one.verbatim:
        said = [part["functionResponse"] for part in one.contents[2][1]]
        assert [(part["id"], part["name"]) for part in said] == [("c1", "f"), ("c2", "g"), ("c3", "f")]
        assert [part["response"] for part in said] == [{"output": "1"}, {"error": "no result"}, {"output": "3"}]
        assert len(one.contents) == 3


SEEN: Final = (*CALLED, ("tool", Result("call_1", "f", "Here.", parts=(Picture(),))), ("user", "And?"))
INLINE: Final = {"inlineData": {"mimeType": "image/png", "data": PNG}}


@across("OC", "OR", "AM", "GG")
def test_picture_in_a_result(letter: str) -> None:
    """T-GEMI-034: inside the response, and what follows stands in the same content."""
    one = sent(letter, SEEN, upstream=FLASH3, tools=TOOLS)
    if not one.verbatim:
        response = {"id": "call_1", "name": "f", "response": {"output": "Here."}, "parts": [INLINE]}
        assert one.contents[2] == ("user", [{"functionResponse": response}, text("And?")])


@across("OC", "OR", "AM", "GG")
def test_picture_in_a_result_of_older_models(letter: str) -> None:
    """T-GEMI-035: named in the response, shown in a content of its own behind it."""
    one = sent(letter, SEEN, tools=TOOLS)
    if not one.verbatim:
        answered, shown = one.contents[2:]
        value = answered[1][0]["functionResponse"]["response"]
        label = value["files"][0].removeprefix("See file ").removesuffix(".")
        assert value == {"output": "Here.", "files": [f"See file {label}."]}
        assert shown == ("user", [text(f"This is file {label}:"), INLINE, text("And?")])


# Format and sampling.


@across("OC", "OR", "AM", "GG")
def test_json_object(letter: str) -> None:
    """T-GEMI-036: JSON mode; Anthropic's format knows schemas alone."""
    if letter == "AM":
        one = sent(letter, schema={"type": "object"})
    else:
        one = sent(letter, json=True)
    if not one.verbatim:
        assert one.config["responseMimeType"] == "application/json"


@across("OC", "OR", "AM", "GG")
def test_json_schema(letter: str) -> None:
    """T-GEMI-037: JSON mode with the schema as it is, cleaned for old models."""
    one = sent(letter, schema=SCHEMA)
    if not one.verbatim:
        assert one.config["responseMimeType"] == "application/json"
        assert one.config["responseJsonSchema"] == SCHEMA
        assert sent(letter, schema=SCHEMA, upstream=OLD).config["responseSchema"] == CLEAN


@MODE
@across("OC", "OR", "AM", "GG")
def test_json_schema_beside_tools(letter: str, mode: str) -> None:
    """T-GEMI-038: asked in words before the third generation; a fence around the answer comes off."""
    one = sent(letter, schema=SCHEMA, tools=TOOLS)
    if one.verbatim:
        return
    assert "responseMimeType" not in one.config
    assert "JSON" in one.body["systemInstruction"]["parts"][-1]["text"]
    new = sent(letter, schema=SCHEMA, tools=TOOLS, upstream=FLASH3)
    assert new.config["responseJsonSchema"] == SCHEMA
    answer = Message(parts=({"text": '```json\n{"a": 1}\n```'},))
    assert told(letter, mode, answer, schema=SCHEMA, tools=TOOLS).text == '{"a": 1}'


@across("OC", "AM", "GG")
def test_stop_words(letter: str) -> None:
    """T-GEMI-039: the first five, the cut is told."""
    words = ["a", "b", "c", "d", "e", "f"]
    one = sent(letter, stop=words)
    if not one.verbatim:
        assert one.config["stopSequences"] == words[:5]
        assert one.outgoing.dropped == ("stop~" if letter == "OC" else "stop_sequences~",)


@across("OC", "OR", "AM", "GG")
def test_limits(letter: str) -> None:
    """T-GEMI-040, 041: the token limit and the temperature as they are."""
    one = sent(letter, max_tokens=77, temperature=1.0 if letter == "AM" else 2.0)
    if not one.verbatim:
        assert one.config["maxOutputTokens"] == 77
        assert one.config["temperature"] == (1.0 if letter == "AM" else 2.0)


@across("OC", "OR", "AM", "GG")
def test_sampling(letter: str) -> None:
    """T-GEMI-042: native names; what Responses have no word for is dropped."""
    if letter == "GG":
        tree: Any = inbound.body(letter, top_k=7)
        tree["generationConfig"] |= {"seed": 3, "presencePenalty": 0.5}
        assert posted(letter, tree).verbatim
    elif letter == "AM":
        assert sent(letter, top_k=7).config["topK"] == 7
    elif letter == "OC":
        steering = {"seed": 3, "presence_penalty": 0.5, "frequency_penalty": 0.25}
        config = sent(letter, top_k=7, steering=steering).config
        assert config == {"topK": 7, "seed": 3, "presencePenalty": 0.5, "frequencyPenalty": 0.25}
    else:
        one = sent(letter, steering={"seed": 3, "presence_penalty": 0.5})
        assert set(one.outgoing.dropped) >= {"seed"} or one.config.get("seed") == 3


@MODE
@across("OC", "GG")
def test_three_answers(letter: str, mode: str) -> None:
    """T-GEMI-043: three candidates, each with its own end; more than eight are refused."""
    one = sent(letter, n=3)
    if not one.verbatim:
        assert one.config["candidateCount"] == 3
        with pytest.raises(Unsupported) as refused:
            sent(letter, n=9)
        assert refused.value.param == "n"
    candidates = [
        {"index": index, "content": {"role": "model", "parts": [text(str(index))]}, "finishReason": reason}
        for index, reason in enumerate(("STOP", "MAX_TOKENS", "STOP"))
    ]
    chunk = {"candidates": candidates, "usageMetadata": matrix_gemini.USAGE, "responseId": "r1"}
    if letter == "OC" and mode == "whole":
        answer = orjson.loads(matrix_gemini.whole(letter, orjson.dumps(chunk)))
        assert [one["finish_reason"] for one in answer["choices"]] == ["stop", "length", "stop"]
        assert [one["message"]["content"] for one in answer["choices"]] == ["0", "1", "2"]
    elif mode != "whole":
        raw = matrix_gemini.streamed(letter, mode, event(chunk))
        matrix_grammar.stream(letter, raw)
        assert all(word in raw for word in (b'"0"', b'"1"', b'"2"'))


WEIGHTS: Final = {
    "chosenCandidates": [{"token": "Hé", "tokenId": 1, "logProbability": -0.5}],
    "topCandidates": [{"candidates": [{"token": "Hé", "logProbability": -0.5}, {"token": '"', "logProbability": -3}]}],
}


@MODE
@across("OC", "OR", "GG")
def test_log_probabilities(letter: str, mode: str) -> None:
    """T-GEMI-044: asked for by their names here; told as the content of the choice, or beside the text."""
    one = sent(letter, logprobs=True)
    if not one.verbatim:
        assert one.config["responseLogprobs"] is True
    answer = Message(parts=(text("Hé"),), more={"logprobsResult": WEIGHTS})
    if letter == "OC":
        asked = sent(letter, logprobs=True, steering={"top_logprobs": 2})
        assert asked.config["logprobs"] == 2
        data = answer.whole() if mode == "whole" else answer.stream()
        raw = matrix_gemini.whole(letter, data) if mode == "whole" else matrix_gemini.streamed(letter, mode, data)
        said = b'{"token":"H\xc3\xa9","logprob":-0.5,"bytes":[72,195,169],"top_logprobs":[{"token":"H\xc3\xa9",'
        assert said in raw
    told(letter, mode, answer)


# Thinking.


@pytest.mark.parametrize(
    ("effort", "level"), [("minimal", "MINIMAL"), ("low", "LOW"), ("medium", "MEDIUM"), ("high", "HIGH")]
)
@across("OC", "OR", "AM", "GG")
def test_effort_of_new_models(letter: str, effort: str, level: str) -> None:
    """T-GEMI-045: a level, and the thoughts are asked for."""
    if letter == "AM" and effort == "minimal":
        return
    one = sent(letter, effort=effort, upstream=FLASH3)
    if not one.verbatim:
        assert one.config["thinkingConfig"] == {"thinkingLevel": level, "includeThoughts": True}


@pytest.mark.parametrize(("effort", "budget"), [("minimal", 512), ("low", 1024), ("medium", 8192), ("high", 24576)])
@across("OC", "OR", "AM", "GG")
def test_effort_of_budget_models(letter: str, effort: str, budget: int) -> None:
    """T-GEMI-046: a budget, and the thoughts are asked for; none is none."""
    if letter == "AM" and effort == "minimal":
        return
    one = sent(letter, effort=effort)
    if not one.verbatim:
        assert one.config["thinkingConfig"] == {"thinkingBudget": budget, "includeThoughts": True}
        assert sent(letter, effort="none").config["thinkingConfig"] == {"thinkingBudget": 0}
        assert "thinkingConfig" not in sent(letter).config


@across("OC", "OR", "AM", "GG")
def test_no_thinking_on_models_that_must(letter: str) -> None:
    """T-GEMI-047: the least that there is, and the change is told."""
    for upstream, least in ((PRO3, {"thinkingLevel": "LOW"}), (PRO25, {"thinkingBudget": 128})):
        one = sent(letter, effort="none", upstream=upstream)
        if not one.verbatim:
            assert one.config["thinkingConfig"] == least
            name = {"OC": "reasoning_effort~", "OR": "reasoning.effort~", "AM": "thinking~"}[letter]
            assert one.outgoing.dropped == (name,)


@MODE
@across("OC", "OR", "AM", "GG")
def test_thoughts(letter: str, mode: str) -> None:
    """T-GEMI-048: thoughts are thinking, no words of the answer."""
    shown = told(letter, mode, Message(parts=({"text": "Hm, so.", "thought": True}, text("Hello"))))
    assert (shown.thoughts, shown.text) == ("Hm, so.", "Hello")


# Steering.


@across("OC", "GG")
def test_safety(letter: str) -> None:
    """T-GEMI-049: the client's settings, else the channel's."""
    own = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]
    options = {"safety_settings": {"default": "BLOCK_NONE", "HARM_CATEGORY_HARASSMENT": "OFF"}}
    named = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}
    one = sent(letter, options=options)
    assert named in one.body["safetySettings"]
    assert len(one.body["safetySettings"]) == 5
    name = "safetySettings" if letter == "GG" else "safety_settings"
    assert sent(letter, options=options, steering={name: own}).body["safetySettings"] == own


def searching(letter: str, **wishes: Any) -> dict[str, Any]:
    """A body that asks for web search in the format's own words."""
    tree = inbound.body(letter, **wishes)
    tools = {
        "OR": {"type": "web_search"},
        "AM": {"type": "web_search_20250305", "name": "web_search"},
        "GG": {"googleSearch": {}},
    }
    if letter == "OC":
        return tree | {"web_search_options": {}}
    return tree | {"tools": [*tree.get("tools", ()), tools[letter]]}


@across("OC", "OR", "AM", "GG")
def test_web_search(letter: str) -> None:
    """T-GEMI-050: Google's search; beside functions on new models, with the flag that they want."""
    one = posted(letter, searching(letter))
    if not one.verbatim:
        assert one.body["tools"] == [{"googleSearch": {}}]
        both = posted(letter, searching(letter, tools=TOOLS), FLASH3)
        assert [next(iter(tool)) for tool in both.body["tools"]] == ["functionDeclarations", "googleSearch"]
        assert both.body["toolConfig"] == {"includeServerSideToolInvocations": True}


def test_wishes_of_another_search() -> None:
    """T-GEMI-050 (AM): what Google's search cannot be told is said to be left out."""
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3, "allowed_domains": ["a.example"]}
    one = posted("AM", searching("AM") | {"tools": [tool]})
    assert one.body["tools"] == [{"googleSearch": {}}]
    assert one.outgoing.dropped == ("tools.0.allowed_domains", "tools.0.max_uses")


@across("OC", "OR", "AM", "GG")
def test_web_search_beside_functions(letter: str) -> None:
    """T-GEMI-051: refused before the third generation; Gemini's own clients hear it from upstream."""
    tree = searching(letter, tools=TOOLS)
    if letter == "GG":
        assert posted(letter, tree).verbatim
        return
    with pytest.raises(Unsupported) as refused:
        posted(letter, tree)
    assert refused.value.param in ("web_search_options", "tools.1")


@across("OC", "OR")
def test_steering_left_out(letter: str) -> None:
    """T-GEMI-052: dropped by their names, unknown ones too."""
    steering = {"metadata": {"a": "b"}, "invented": 1, "prompt_cache_key": "k"}
    if letter == "OC":
        steering |= {"logit_bias": {"1": 2}, "verbosity": "low", "store": True}
    one = sent(letter, user="u", steering=steering)
    assert {"user", *steering} <= set(one.outgoing.dropped)
    assert list(one.outgoing.dropped) == sorted(one.outgoing.dropped)


# Answers.


@MODE
@across("OC", "OR", "AM", "GG")
def test_calls_end_the_answer(letter: str, mode: str) -> None:
    """T-GEMI-053: STOP with a call is the format's own end for calls."""
    shown = told(letter, mode, Message(parts=(text("So."), USE)))
    assert shown.calls[0][1:] == ("f", '{"a":1}')
    assert shown.finish == FINISHES["tool_calls"][letter]


@MODE
@across("OC", "OR", "AM", "GG")
def test_limit_without_words(letter: str, mode: str) -> None:
    """T-GEMI-054: an empty answer that ended at the limit; its thoughts are paid."""
    usage = {"promptTokenCount": 12, "thoughtsTokenCount": 8, "totalTokenCount": 20}
    message = Message(parts=(), finish="MAX_TOKENS", usage=usage, bare=True)
    shown = told(letter, mode, message)
    assert (shown.text, shown.finish) == ("", FINISHES["length"][letter])
    assert (shown.usage["completion"], shown.usage["reasoning"]) == (8, 8)


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",  # T-GEMI-055
        *("RECITATION", "BLOCKLIST", "SPII", "PROHIBITED_CONTENT", "LANGUAGE", "MODEL_ARMOR"),  # T-GEMI-058
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"),
    ],
)
@MODE
@across("OC", "OR", "AM", "GG")
def test_blocked_answers(letter: str, mode: str, reason: str) -> None:
    """T-GEMI-055, 058: an answer without words that a filter ended."""
    shown = told(letter, mode, Message(parts=(), finish=reason, bare=True))
    assert shown.text == ""
    assert shown.finish == (reason if letter == "GG" else FINISHES["content_filter"][letter])


@MODE
@across("OC", "OR", "AM", "GG")
def test_blocked_prompt(letter: str, mode: str) -> None:
    """T-GEMI-056: a refusal with the words that were given; the prompt is paid where it was counted."""
    chunk = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Not this."},
        "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
        "responseId": "r1",
    }
    if letter == "GG":
        raw = matrix_gemini.whole(letter, orjson.dumps(chunk))
        assert orjson.loads(raw)["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT"
        return
    if mode == "whole":
        shown = matrix_grammar.whole(letter, matrix_gemini.whole(letter, orjson.dumps(chunk)))
    else:
        shown = matrix_grammar.stream(letter, matrix_gemini.streamed(letter, mode, event(chunk)))
    assert shown.finish == FINISHES["content_filter"][letter]
    assert "Not this." in shown.refusal + shown.text
    assert shown.usage["prompt"] == 5


@MODE
@across("OC", "OR", "AM", "GG")
def test_unexpected_call(letter: str, mode: str) -> None:
    """T-GEMI-057: with its call an answer, without a failure."""
    shown = told(letter, mode, Message(parts=(USE,), finish="UNEXPECTED_TOOL_CALL"))
    assert shown.calls[0][1] == "f"
    if letter != "GG":
        assert shown.finish == FINISHES["tool_calls"][letter]
    broken = told(letter, mode, Message(parts=(), finish="UNEXPECTED_TOOL_CALL", bare=True))
    assert broken.error is not None


@MODE
@across("OC", "OR", "AM", "GG")
def test_malformed_call(letter: str, mode: str) -> None:
    """T-GEMI-059: a failure that another attempt may mend, in upstream's words; words before it are the answer."""
    more = {"finishMessage": "Malformed function call: f("}
    message = Message(parts=(), finish="MALFORMED_FUNCTION_CALL", bare=True, more=more)
    shown = told(letter, mode, message)
    assert shown.error is not None
    assert "Malformed function call: f(" in shown.error["message"]
    data = message.whole() if mode == "whole" else message.stream()
    failure: Any = next(one for one in matrix_gemini.events(mode, data, letter) if hasattr(one, "failure")).failure
    assert (failure.status, failure.code, failure.blames) == (502, "bad_response", "nobody")
    if letter != "GG":
        said = told(letter, mode, Message(finish="MALFORMED_FUNCTION_CALL", more=more))
        assert (said.text, said.finish) == ("Hello", FINISHES["stop"][letter])


@MODE
@across("OC", "OR", "AM", "GG")
def test_bare_calls(letter: str, mode: str) -> None:
    """T-GEMI-060: a call without arguments and id has both."""
    bare = {"functionCall": {"name": "f"}}
    shown = told(letter, mode, Message(parts=(bare, bare)))
    if letter != "GG":
        ids = [id for id, _, _ in shown.calls]
        assert len(set(ids)) == 2
        assert all(ids)
        assert [arguments for _, _, arguments in shown.calls] == ["{}", "{}"]
        kept = told(letter, mode, Message(parts=(USE,)))
        assert kept.calls[0][0] == "fc_1"
        assert opened_id(told(letter, mode, Message(parts=(SIGNED,))).calls[0][0]) == ("fc_1", SIGNATURE)


@MODE
@across("OC", "OR", "AM", "GG")
def test_pictures_in_the_answer(letter: str, mode: str) -> None:
    """T-GEMI-061: a picture reaches the client."""
    message = Message(parts=(text("See:"), INLINE))
    raw = (
        matrix_gemini.whole(letter, message.whole())
        if mode == "whole"
        else matrix_gemini.streamed(letter, mode, message.stream())
    )
    assert PNG.encode() in raw
    if letter == "OC":
        assert f'"images":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{PNG}"}}}}]'.encode() in raw
    if letter == "AM":
        assert b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"' in raw
    assert told(letter, mode, message).text == "See:"


@MODE
@across("OC", "OR", "AM", "GG")
def test_executed_code(letter: str, mode: str) -> None:
    """T-GEMI-062: code and what it printed are fenced blocks."""
    ran = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    printed = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}}
    shown = told(letter, mode, Message(parts=(text("Let me see."), ran, printed, text("It is 1."))))
    if letter == "GG":
        assert shown.text.startswith("Let me see.")
    else:
        assert shown.text == "Let me see.\n\n```python\nprint(1)\n```\n```\n1\n```\nIt is 1."


GROUNDED: Final = {
    "groundingMetadata": {
        "groundingChunks": [{"web": {"uri": "https://s.example", "title": "S"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 5, "endIndex": 10, "text": "sünn"}, "groundingChunkIndices": [0]}
        ],
    }
}


@MODE
@across("OC", "OR", "AM", "GG")
def test_grounding(letter: str, mode: str) -> None:
    """T-GEMI-063: citations at their places, counted in characters."""
    message = Message(parts=(text("Très sünny."),), more=GROUNDED)
    data = message.whole() if mode == "whole" else message.stream()
    raw = matrix_gemini.whole(letter, data) if mode == "whole" else matrix_gemini.streamed(letter, mode, data)
    assert b"https://s.example" in raw
    if letter == "OC":
        place = b'{"type":"url_citation","url_citation":{"start_index":5,"end_index":9,"title":"S","url":"https'
        assert place in raw
    told(letter, mode, message)


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        # T-GEMI-064
        ({"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3}, (5, 10, 0, 3)),
        # T-GEMI-065
        ({"promptTokenCount": 5, "toolUsePromptTokenCount": 100, "candidatesTokenCount": 7}, (105, 7, 0, 0)),
        # T-GEMI-066
        ({"promptTokenCount": 50, "cachedContentTokenCount": 40, "candidatesTokenCount": 7}, (50, 7, 40, 0)),
        # T-GEMI-067
        ({"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO"}, {"modality": "TEXT"}]}, (5, 0, 0, 0)),
    ],
)
@MODE
@across("OC", "OR", "AM", "GG")
def test_usage(letter: str, mode: str, usage: Any, shown: Any) -> None:
    """T-GEMI-064 to 067: thoughts are output, what tools add is input, the cache's part is told, missing is zero."""
    found = told(letter, mode, Message(usage=usage)).usage
    assert tuple(found[name] for name in ("prompt", "completion", "cached", "reasoning")) == shown
    billed = matrix_gemini.usage(mode, Message(usage=usage))
    assert (billed.prompt, billed.completion, billed.cache_read, billed.reasoning) == shown


@pytest.mark.parametrize("mode", ["streamed", "byte by byte"])
@across("OC", "OR", "AM", "GG")
def test_last_usage(letter: str, mode: str) -> None:
    """T-GEMI-068: chunks tell totals so far; none is summed, and a count that the last leaves out stands."""
    message = Message()
    early = {"promptTokenCount": 55, "candidatesTokenCount": 4, "totalTokenCount": 59}
    late = {"promptTokenCount": 257, "candidatesTokenCount": 20, "totalTokenCount": 277}
    data = event({**message.chunk((text("Hel"),), last=False), "usageMetadata": early})
    data += event({**message.chunk((text("lo"),)), "usageMetadata": late})
    shown = matrix_grammar.stream(letter, matrix_gemini.streamed(letter, mode, data))
    assert (shown.usage["prompt"], shown.usage["completion"], shown.text) == (257, 20, "Hello")


# Streams.


@pytest.mark.parametrize("mode", ["streamed", "byte by byte"])
@across("OC", "OR", "AM", "GG")
def test_streamed_text(letter: str, mode: str) -> None:
    """T-GEMI-069: as many deltas as pieces, in order."""
    data = b"".join(event(Message().chunk((text(one),), last=one == "3")) for one in "123")
    raw = matrix_gemini.streamed(letter, mode, data)
    shown = matrix_grammar.stream(letter, raw)
    assert (shown.text, shown.finish) == ("123", FINISHES["stop"][letter])
    assert all(b'"%d"' % one in raw for one in (1, 2, 3))


@pytest.mark.parametrize("mode", ["streamed", "byte by byte"])
@across("OC", "OR", "AM", "GG")
def test_streamed_call(letter: str, mode: str) -> None:
    """T-GEMI-070: a call comes whole: its name, then all of its arguments."""
    raw = matrix_gemini.streamed(letter, mode, Message(parts=(USE,)).stream())
    assert matrix_grammar.stream(letter, raw).calls[0][1:] == ("f", '{"a":1}')
    if letter == "OC":
        assert raw.count(b'"tool_calls":[{') == 2


@pytest.mark.parametrize("mode", ["streamed", "byte by byte"])
@across("OC", "OR", "AM", "GG")
def test_streamed_empty_tail(letter: str, mode: str) -> None:
    """T-GEMI-071: an empty text at the end says nothing; its signature is kept."""
    parts = (text("Hello"), {"text": "", "thoughtSignature": OTHER})
    raw = matrix_gemini.streamed(letter, mode, Message(parts=parts).stream())
    shown = matrix_grammar.stream(letter, raw)
    assert (shown.text, shown.finish) == ("Hello", FINISHES["stop"][letter])
    if letter != "GG":
        assert OTHER.encode() in raw


@across("GG")
def test_streamed_as_an_array(letter: str) -> None:
    """T-GEMI-072: without `alt=sse` the client gets one valid array, an element for each chunk."""
    surface = inbound.surface(letter, stream=True)
    body = orjson.dumps(inbound.body(letter, stream=True))
    ask = surface.read(body, {PATH: "asked", QUERY: ""})
    one = pipe(surface, DIALECT, ask, matrix_gemini.FACE)
    data = Message(parts=(text("Hello"), text("!"))).stream()
    first = one.feed(data[: data.find(b"\r\n\r\n") + 4])
    assert first.startswith(b"[")
    rest = one.feed(data[data.find(b"\r\n\r\n") + 4 :]) + one.drain()
    elements = orjson.loads(first + rest + one.close(one.heard.usage or NOTHING))
    said = [part["text"] for element in elements for part in element["candidates"][0]["content"]["parts"]]
    assert "".join(said) == "Hello!"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("mode", ["streamed", "byte by byte"])
@across("OC", "OR", "AM", "GG")
def test_streamed_error(letter: str, mode: str, wrapped: bool) -> None:
    """T-GEMI-073: an error in the middle ends the stream in the client's own grammar."""
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    data = event(Message().chunk((text("Hel"),), last=False)) + event([error] if wrapped else error)
    shown = matrix_grammar.stream(letter, matrix_gemini.streamed(letter, mode, data))
    assert shown.error is not None
    assert "overloaded" in orjson.dumps(shown.error).decode()


# Errors.


@across("OC", "OR", "AM", "GG")
def test_dead_keys(letter: str) -> None:
    """T-GEMI-074: a 400 that speaks of the key is the channel's fault, and parks the key."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    for error in (
        {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"},
        {"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT", "details": details},
    ):
        failure = failed(400, {"error": error})
        assert (failure.status, failure.code, failure.blames) == (502, "upstream_credentials", "key")
        assert failure.upstream_status == 400
        assert matrix_grammar.whole(letter, inbound.surface(letter).failure(failure, "req-1")).error is not None
        assert inbound.surface(letter).status(failure) == 502


@across("OC", "OR", "AM", "GG")
def test_unknown_model(letter: str) -> None:
    """T-GEMI-075: a 404 stays one."""
    failure = failed(404, {"error": {"code": 404, "message": "models/x is not found.", "status": "NOT_FOUND"}})
    assert (failure.status, failure.code, failure.blames) == (404, "model_not_found", "nobody")
    assert inbound.surface(letter).status(failure) == 404


@across("OC", "OR", "AM", "GG")
def test_wait_in_details(letter: str) -> None:
    """T-GEMI-076: the wait that the details name is the client's."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]
    error = {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": details}
    failure = failed(429, {"error": error})
    assert (failure.status, failure.retry_after, failure.blames) == (429, 34.4, "key")
    assert inbound.surface(letter).status(failure) == 429


@across("OC", "OR", "AM", "GG")
def test_error_in_a_list(letter: str) -> None:
    """T-GEMI-077: unwrapped, whole and as a 200."""
    body = [{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}]
    failure = failed(503, body)
    assert (failure.status, failure.code) == (503, "overloaded")
    shown = matrix_grammar.whole(letter, matrix_gemini.whole(letter, orjson.dumps(body)))
    assert shown.error is not None


# What is left.


@across("GG")
def test_cached_content(letter: str) -> None:
    """T-GEMI-078: the reference goes up; providers of other formats refuse it."""
    assert posted(letter, inbound.body(letter) | {"cachedContent": "cachedContents/a"}).verbatim


@across("AM", "GG")
def test_counting(letter: str) -> None:
    """T-GEMI-081: the native count serves both formats that ask for one."""
    counting = ADAPTER.counting
    assert counting is not None
    surface = COUNT if letter == "AM" else GEMINI_COUNT
    tree = inbound.body(letter, HI)
    ask = surface.read(orjson.dumps(tree), inbound.headers(letter))
    outgoing = counting.request(ask, matrix_gemini.target())
    assert outgoing.url == "https://h.example/v1beta/models/gemini-2.5-flash:countTokens"
    body: Any = outgoing.body
    if letter == "AM":
        nested = body["generateContentRequest"]
        assert nested["model"] == "models/gemini-2.5-flash"
        assert nested["contents"] == [{"role": "user", "parts": [text("Hi")]}]
    else:
        assert body == tree
    assert counting.tokens(b'{"totalTokens": 31}') == 31
    assert counting.tokens(b"[]") is None
