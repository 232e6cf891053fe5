"""The Gemini surface: reading asks, whole answers, both forms of a stream, the passer, errors."""

from __future__ import annotations

import base64
import random
from typing import Any

import orjson
import pytest

from newapi_proxy.errors import ClientError, OurError, UpstreamFailure
from newapi_proxy.ir.ask import (
    Ask,
    Choice,
    Format,
    Media,
    Reasoning,
    ServerBlock,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Event,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Started,
    TextDelta,
)
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.surfaces import gemini
from newapi_proxy.surfaces._gemini_pass import MOST_KEPT
from newapi_proxy.surfaces._gemini_shapes import MOST_TEXT, sealed, unsealed
from newapi_proxy.surfaces.base import PATH, QUERY, Face
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

HI: list[dict[str, Any]] = [{"role": "user", "parts": [{"text": "Hi"}]}]
FACE = Face(model="asked", id="ours", created=7)
RENAMED = Face(model="asked", id="ours", created=7, rename=True)
USAGE = Usage(prompt=10, completion=4, cache_read=3, reasoning=1)
TOLD = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 1,
    "cachedContentTokenCount": 3,
    "totalTokenCount": 14,
}
FORMS = pytest.mark.parametrize("form", ["sse", "array"])


def ask(contents: Any = HI, *, method: gemini.Gemini = gemini.GENERATE, query: str = "", **more: Any) -> Ask:
    """An ask out of a body with these contents and fields."""
    body = {**({} if contents is None else {"contents": contents}), **more}
    return method.read(orjson.dumps(body), {PATH: "asked", QUERY: query})


def streaming(form: str = "sse") -> Ask:
    """A plain streamed ask."""
    return ask(method=gemini.STREAM, query="alt=sse" if form == "sse" else "")


def fault(contents: Any = HI, **more: Any) -> ClientError:
    """What reading this body raises."""
    with pytest.raises(ClientError) as told:
        ask(contents, **more)
    assert told.value.status == 400
    return told.value


def parts(*given: dict[str, Any], role: str = "user") -> Any:
    """The parts of one content, as read."""
    return ask([{"role": role, "parts": list(given)}]).turns[0].parts


def chunks(data: bytes, form: str = "sse") -> list[Any]:
    """The elements of a stream; the array must be valid JSON, the events nothing but data."""
    if form == "array":
        return orjson.loads(data)  # type: ignore[no-any-return]
    frames = sse.Decoder()
    found = frames.feed(data)
    assert frames.close() == []
    assert all(one.raw.startswith(b"data: ") and one.raw.endswith(b"\r\n\r\n") for one in found)
    return [orjson.loads(one.data) for one in found if one.data is not None]


def written(events: list[Event], form: str = "sse", usage: Usage = USAGE, face: Face = FACE) -> list[Any]:
    """What a writer makes of the events."""
    writer = gemini.STREAM.writer(streaming(form), face)
    return chunks(b"".join([writer.feed(one) for one in events]) + writer.close(usage), form)


def said(told: list[Any], index: int = 0) -> list[Any]:
    """The parts of one candidate, all chunks together, without empty texts."""
    return [
        part
        for chunk in told
        for one in chunk.get("candidates", ())
        if one["index"] == index
        for part in one["content"]["parts"]
        if part != {"text": ""}
    ]


def whole(events: list[Event], usage: Usage = USAGE, face: Face = FACE) -> Any:
    """A whole answer out of the events."""
    return orjson.loads(gemini.GENERATE.answer(ask(), face, events, usage))


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"contents": None}, "contents", "not specified"),
    ({"contents": []}, "contents", "not specified"),
    ({"contents": "x"}, "contents", "a list"),
    ({"contents": [3]}, "contents.0", "an object"),
    ({"contents": [{"role": "robot", "parts": []}]}, "contents.0.role", "valid role"),
    ({"contents": [{"role": 3, "parts": []}]}, "contents.0.role", "a string"),
    ({"contents": [{"parts": "x"}]}, "contents.0.parts", "a list"),
    ({"contents": [{"parts": [3]}]}, "contents.0.parts.0", "an object"),
    ({"contents": [{"parts": [{"text": 3}]}]}, "contents.0.parts.0.text", "a string"),
    ({"contents": [{"parts": [{"text": "a", "thought": "x"}]}]}, "contents.0.parts.0.thought", "true or false"),
    ({"contents": [{"parts": [{"inlineData": {}}]}]}, "contents.0.parts.0.inlineData.data", "base64"),
    ({"contents": [{"parts": [{"inline_data": 1}]}]}, "contents.0.parts.0.inlineData", "an object"),
    ({"contents": [{"parts": [{"fileData": {}}]}]}, "contents.0.parts.0.fileData.fileUri", "an address"),
    ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents.0.parts.0.functionCall.name", "a function's name"),
    (
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": "{}"}}]}]},
        "contents.0.parts.0.functionCall.args",
        "an object",
    ),
    (
        {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": "x"}}]}]},
        "contents.0.parts.0.functionResponse.response",
        "an object",
    ),
    ({"systemInstruction": "Be kind."}, "systemInstruction", "an object"),
    ({"tools": "x"}, "tools", "a list"),
    ({"tools": [3]}, "tools.0", "an object"),
    ({"tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name", "a function's name"),
    (
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": 3}]}]},
        "tools.0.functionDeclarations.0.parameters",
        "an object",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "SOMETIMES"}}},
        "toolConfig.functionCallingConfig.mode",
        "AUTO, ANY",
    ),
    ({"generationConfig": []}, "generationConfig", "an object"),
    ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature", "a number"),
    ({"generationConfig": {"temperature": "nan"}}, "generationConfig.temperature", "a number"),
    ({"generationConfig": {"temperature": True}}, "generationConfig.temperature", "a number"),
    ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK", "a whole number"),
    ({"generationConfig": {"maxOutputTokens": -1}}, "generationConfig.maxOutputTokens", "out of range"),
    ({"generationConfig": {"maxOutputTokens": 2**64 - 1}}, "generationConfig.maxOutputTokens", "out of range"),
    ({"generationConfig": {"candidateCount": 129}}, "generationConfig.candidateCount", "1 to 128"),
    ({"generationConfig": {"stopSequences": "x"}}, "generationConfig.stopSequences", "a list"),
    ({"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences.0", "a string"),
    ({"generationConfig": {"responseSchema": "x"}}, "generationConfig.responseSchema", "an object"),
    ({"generationConfig": {"thinkingConfig": 3}}, "generationConfig.thinkingConfig", "an object"),
    (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "EXTREME"}}},
        "generationConfig.thinkingConfig.thinkingLevel",
        "MINIMAL, LOW",
    ),
    ({"safetySettings": "x"}, "safetySettings", "a list"),
    ({"cachedContent": 3}, "cachedContent", "a string"),
]


@pytest.mark.parametrize(("body", "param", "words"), WRONG, ids=[f"{param}-{words}" for _, param, words in WRONG])
def test_wrong_fields(body: dict[str, Any], param: str, words: str) -> None:
    """A wrong type is a 400 that names its place, in Google's way in the message and by dots in `param`."""
    body = {"contents": HI, **body}
    error = fault(body.pop("contents"), **body)
    assert (error.param, error.code) == (param, "invalid_text_request")
    assert words in error.message
    told = orjson.loads(gemini.GENERATE.failure(error, "r1"))["error"]
    assert (told["code"], told["status"]) == (400, "INVALID_ARGUMENT")
    assert told["message"].endswith("(request id: r1)")
    field = next(one for one in told["details"] if one["@type"].endswith("BadRequest"))["fieldViolations"][0]["field"]
    assert field == param.replace("contents.0", "contents[0]").replace("parts.0", "parts[0]").replace(
        "tools.0", "tools[0]"
    ).replace("Declarations.0", "Declarations[0]").replace("Sequences.0", "Sequences[0]")


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"{", b'{"contents":', b'{"a":' * 300 + b"1" + b"}" * 300])
def test_broken_bodies(body: bytes) -> None:
    """What is no JSON object is refused, never an exception of another kind."""
    with pytest.raises(ClientError):
        gemini.GENERATE.read(body, {PATH: "asked"})


def test_model_of_the_path() -> None:
    """The model comes from the path, without its collection; a tuned one keeps its own. None is a 400."""
    body = orjson.dumps({"contents": HI, "model": "models/other"})
    for path, model in {"g": "g", "models/g": "g", "tunedModels/t": "tunedModels/t", "a/b": "a/b"}.items():
        assert gemini.GENERATE.read(body, {PATH: path}).model == model
    for path in ("", "models/", "x" * 513):
        with pytest.raises(ClientError):
            gemini.GENERATE.read(body, {PATH: path})


@pytest.mark.parametrize(
    ("query", "events"),
    [
        ("alt=sse", True),
        ("key=k&alt=sse", True),
        ("$alt=sse", True),
        ("alt=SSE", True),
        ("alt=json", False),
        ("", False),
        ("salt=sse", False),
        ("&".join(["alt"] * 200), False),
    ],
)
def test_forms_of_a_stream(query: str, events: bool) -> None:
    """The query alone says how a stream is framed: events only where they were asked for."""
    asked = ask(method=gemini.STREAM, query=query)
    assert asked.stream
    assert gemini.STREAM.stream_type(asked).startswith("text/event-stream" if events else "application/json")
    assert gemini.STREAM.keepalive(asked).strip() == b""  # Google's SDKs take a comment for a broken answer


def test_both_spellings() -> None:
    """T-GEMI-007 (GG): camelCase and snake_case, mixed at every level; a bare object is a list of one."""
    asked = ask(
        {"role": "user", "parts": {"inline_data": {"mime_type": "image/png", "data": "QUJD"}}},
        system_instruction={"parts": {"text": "Be kind."}},
        tools=[{"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]}, None][:1],
        tool_config={"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        generation_config={"max_output_tokens": "20", "topP": 0.5, "stop_sequences": ["a"], "top_k": 40.0},
    )
    assert [turn.role for turn in asked.turns] == ["system", "user"]
    assert asked.turns[1].parts == (
        Media(kind="image", media_type="image/png", data="QUJD", path="contents.0.parts.0"),
    )
    assert (asked.tools[0].name, asked.tools[0].schema) == ("f", {"type": "object"})
    assert asked.choice == Choice(mode="named", name="f")
    controls = asked.controls
    assert (controls.max_tokens, controls.top_p, controls.stop, controls.top_k) == (20, 0.5, ("a",), 40)
    assert asked.unknown == ()


def test_base64_alphabets() -> None:
    """T-GEMI-008 (GG): the URL-safe alphabet and missing padding become the standard form."""
    raw = bytes(range(251, 256)) * 3 + b"a"
    for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.urlsafe_b64encode(raw).rstrip(b"=")):
        medium = parts({"inlineData": {"mimeType": "image/png", "data": text.decode()}})[0]
        assert base64.b64decode(medium.data, validate=True) == raw


@pytest.mark.parametrize(
    ("part", "kind", "url", "file_id"),
    [
        ({"fileUri": "https://h/a.png"}, "image", "https://h/a.png", None),
        ({"fileUri": "https://h/a", "mimeType": "audio/mpeg"}, "audio", "https://h/a", None),
        ({"fileUri": "https://youtu.be/x"}, "video", "https://youtu.be/x", None),
        ({"fileUri": "gs://b/a.pdf"}, "file", None, "gs://b/a.pdf"),
        (
            {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x", "mimeType": "image/png"},
            "image",
            None,
            "https://generativelanguage.googleapis.com/v1beta/files/x",
        ),
    ],
)
def test_files(part: dict[str, Any], kind: str, url: str | None, file_id: str | None) -> None:
    """A public address may be fetched by anybody; what only Google's key opens is an id."""
    medium = parts({"fileData": part})[0]
    assert (medium.kind, medium.url, medium.file_id) == (kind, url, file_id)


def test_media_around() -> None:
    """Name, resolution and the wanted piece of a film are kept."""
    medium = parts(
        {
            "inlineData": {"mimeType": "video/mp4", "data": "QUJD", "displayName": "a.mp4"},
            "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
            "videoMetadata": {"fps": 1},
        }
    )[0]
    assert (medium.kind, medium.filename, medium.detail) == ("video", "a.mp4", "low")
    assert medium.extra == {"videoMetadata": {"fps": 1}}


def test_turns() -> None:
    """T-GEMI-001, 002, 005 (GG): the instruction leads, `model` is the assistant, roles may be left out."""
    asked = ask(
        [{"parts": [{"text": "a"}]}, {"role": "model", "parts": []}], systemInstruction={"parts": [{"text": "s"}]}
    )
    assert [(turn.role, turn.path) for turn in asked.turns] == [
        ("system", "systemInstruction"),
        ("user", "contents.0"),
        ("assistant", "contents.1"),
    ]
    assert asked.turns[1].parts == (Text(text="a", path="contents.0.parts.0"),)
    assert asked.turns[2].parts == (Text(text=""),)


def test_only_an_instruction() -> None:
    """T-GEMI-003 (GG): an instruction without contents is an ask: providers of other formats answer it."""
    assert [turn.role for turn in ask(None, systemInstruction={"parts": [{"text": "s"}]}).turns] == ["system"]


def test_calls_and_results() -> None:
    """T-GEMI-029, 030, 031, 032 (GG): ids as given, or the n-th open call of the name; output and error as text."""
    asked = ask(
        [
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "f", "args": {"b": 1, "a": "é"}}, "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "f"}},
                    {"functionCall": {"id": "toolu_9", "name": "g"}},
                ],
            },
            {
                "role": "function",
                "parts": [
                    {"functionResponse": {"id": "toolu_9", "name": "g", "response": {"error": "no"}}},
                    {"functionResponse": {"name": "f", "response": {"output": "dry"}}},
                    {"functionResponse": {"name": "f", "response": {"a": [1], "b": None}}},
                    {"functionResponse": {"name": "stray", "response": {}}},
                ],
            },
        ]
    )
    calls = asked.turns[0].parts
    assert [(one.id, one.name, one.arguments, one.signature) for one in calls if isinstance(one, ToolCall)] == [
        ("call_0_0", "f", '{"b":1,"a":"é"}', "c2ln"),
        ("call_0_1", "f", "{}", None),
        ("toolu_9", "g", "{}", None),
    ]
    results = [one for one in asked.turns[1].parts if isinstance(one, ToolResult)]
    assert asked.turns[1].role == "user"
    assert [(one.id, one.parts[0].text, one.is_error) for one in results] == [
        ("toolu_9", "no", True),
        ("call_0_0", "dry", False),
        ("call_0_1", '{"a":[1],"b":null}', False),
        ("call_stray", "{}", False),
    ]


def test_pictures_in_results() -> None:
    """Media beside a result's response are parts of it."""
    image = {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}
    result = parts({"functionResponse": {"name": "f", "response": {}, "parts": [image]}})[0]
    assert [(one.kind, one.data) for one in result.parts] == [("image", "QUJD")]
    assert not result.plain  # a plain result is written as its text, which this one has not


def test_thoughts() -> None:
    """T-GEMI-025, 028, 048 (GG): thoughts are reasoning, signatures stay on their parts."""
    thought, text, call = parts(
        {"text": "Hm.", "thought": True},
        {"text": "Yes", "thoughtSignature": "c2ln"},
        {"function_call": {"name": "f"}, "thought_signature": "c2ln"},
        role="model",
    )
    assert thought == Reasoning(text="Hm.")
    assert text.opaque == {"google": {"thought_signature": "c2ln"}}
    assert call.signature == "c2ln"


def test_foreign_signatures() -> None:
    """T-ANTH-035 (GG): another provider's signature travels as base64 and comes back as it was, with its text."""
    told = written(
        [
            ReasoningDelta("Let me ", block=0),
            ReasoningDelta("think.", block=0),
            ReasoningSealed("EqRk+/==", format="anthropic-claude-v1", block=0),
            CallStarted(0, "toolu_1", "f", block=1),
            CallDelta(0, '{"a":1}'),
            Finished("tool_calls"),
        ]
    )
    pieces = said(told)
    base64.b64decode(pieces[2]["thoughtSignature"], validate=True)
    joined = [{"role": "model", "parts": pieces}]
    apart = [{"role": "model", "parts": [one]} for one in pieces]  # as Google's chat keeps what was streamed
    for contents in (joined, apart):
        kept = [part for turn in ask(contents).turns for part in turn.parts]
        assert kept[0] == Reasoning(text="Let me think.", signature="EqRk+/==", format="anthropic-claude-v1")
        assert isinstance(kept[1], ToolCall)
        assert len(kept) == 2


@pytest.mark.parametrize("value", ["c2ln", "not base64!", "é", "a.b", "", "x" * 4000])
def test_sealing(value: str) -> None:
    """A signature of any label comes back byte by byte, whatever alphabet the client writes it in."""
    for label in ("anthropic-claude-v1", "unknown"):
        text = sealed(label, value)
        assert base64.b64decode(text, validate=True)
        assert unsealed(text.replace("+", "-").replace("/", "_")) == (label, value) or not value.isascii()
    assert base64.b64decode(sealed("google-gemini-v1", value), validate=True) is not None


def test_other_parts() -> None:
    """What has no like elsewhere is kept for providers of this format."""
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    assert parts(code, {"novelty": 1}, role="model") == (
        ServerBlock(family="google", value=code, path="contents.0.parts.0"),
        ServerBlock(family="google", value={"novelty": 1}, path="contents.0.parts.1"),
    )


def test_tools() -> None:
    """Functions with either kind of schema; the server's own tools verbatim, under their path."""
    own = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "nullable": True, "enum": ["a"]},
            "list": {"type": "ARRAY", "items": {"type": "INTEGER"}, "maxItems": "3"},
            "any": {"any_of": [{"type": "NUMBER"}, {"type": "BOOLEAN"}]},
        },
        "required": ["list"],
        "propertyOrdering": ["list", "type"],
    }
    asked = ask(
        tools=[
            {"functionDeclarations": [{"name": "f", "description": "d", "parameters": own}, {"name": "g"}]},
            {"googleSearch": {}, "urlContext": {}},
            {"code_execution": {}},
        ]
    )
    first, second, *server = asked.tools
    assert first.schema == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["a", None]},
            "list": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            "any": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
        },
        "required": ["list"],
    }
    assert (first.description, second.schema) == ("d", None)
    assert [(one.name, one.server, one.path) for one in server] == [
        ("googleSearch", {"googleSearch": {}}, "tools.1.googleSearch"),
        ("urlContext", {"urlContext": {}}, "tools.1.urlContext"),
        ("codeExecution", {"codeExecution": {}}, "tools.2.codeExecution"),
    ]


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, Choice(mode="auto")),
        ({"mode": "NONE"}, Choice(mode="none")),
        ({"mode": "ANY"}, Choice(mode="required")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, Choice(mode="named", name="f")),
        (
            {"mode": "ANY", "allowedFunctionNames": ["f", "g"]},
            Choice(mode="required", allowed=("f", "g", "googleSearch")),
        ),
        (
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
            Choice(mode="auto", allowed=("f", "googleSearch")),
        ),
        ({"mode": "MODE_UNSPECIFIED"}, None),
        ({}, None),
    ],
)
def test_choices(config: dict[str, Any], choice: Choice | None) -> None:
    """T-GEMI-021, 022 (GG): the four modes; a list of functions does not forbid the server's own tools."""
    tools = [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}, {"googleSearch": {}}]
    assert ask(tools=tools, toolConfig={"functionCallingConfig": config}).choice == choice


@pytest.mark.parametrize(
    ("config", "thinking"),
    [
        ({"thinkingBudget": 0}, Thinking(disabled=True)),
        ({"thinkingBudget": -1}, Thinking(adaptive=True)),
        ({"thinkingBudget": 4096, "includeThoughts": True}, Thinking(budget=4096)),
        ({"thinkingLevel": "high"}, Thinking(effort="high")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
        ({"includeThoughts": True}, Thinking(adaptive=True)),
        ({}, None),
    ],
)
def test_thinking(config: dict[str, Any], thinking: Thinking | None) -> None:
    """T-GEMI-045, 046 (GG): budget, level, or only the wish to see thoughts."""
    assert ask(generationConfig={"thinkingConfig": config}).controls.thinking == thinking


@pytest.mark.parametrize(
    ("config", "format_", "own"),
    [
        ({"responseMimeType": "application/json"}, Format(kind="json_object"), ()),
        (
            {"responseMimeType": "application/json", "responseSchema": {"type": "STRING"}},
            Format(kind="json_schema", schema={"type": "string"}),
            (),
        ),
        (
            {"responseMimeType": "application/json", "response_json_schema": {"const": 1}},
            Format(kind="json_schema", schema={"const": 1}),
            (),
        ),
        ({"responseMimeType": "text/plain"}, None, ()),
        ({"responseMimeType": "text/x.enum"}, None, ("generationConfig.responseMimeType",)),
    ],
)
def test_formats(config: dict[str, Any], format_: Format | None, own: tuple[str, ...]) -> None:
    """T-GEMI-036, 037 (GG): JSON with either kind of schema; a type that nobody else has is refused elsewhere."""
    asked = ask(generationConfig=config)
    assert (asked.controls.format, asked.own) == (format_, own)


def test_settings() -> None:
    """T-GEMI-042, 043 (GG): what steers goes under its common name, what is only Google's under its path."""
    asked = ask(
        generationConfig={
            "seed": 3,
            "presencePenalty": 0.5,
            "frequency_penalty": 1,
            "candidateCount": 3,
            "responseLogprobs": True,
            "responseModalities": ["TEXT", "IMAGE"],
            "speechConfig": {"a": 1},
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "novelty": 1,
        },
        safetySettings=[{"category": "a", "threshold": "b"}],
        cachedContent="cachedContents/x",
        labels={"a": "b"},
        serviceTier="STANDARD",
        toolConfig={"retrievalConfig": {}},
        novelty=2,
    )
    assert asked.controls.n == 3
    assert asked.controls.service_tier == "default"
    assert asked.controls.steering == {
        "seed": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": 1,
        "responseLogprobs": True,
        "modalities": ["text", "image"],
        "generationConfig.speechConfig": {"a": 1},
        "generationConfig.mediaResolution": "MEDIA_RESOLUTION_LOW",
        "safetySettings": [{"category": "a", "threshold": "b"}],
        "labels": {"a": "b"},
    }
    assert asked.own == ("cachedContent",)
    assert asked.unknown == ("novelty", "generationConfig.novelty", "toolConfig.retrievalConfig")


def test_counting() -> None:
    """Counting takes contents, or a whole request inside; the answer is the bare total."""
    asked = ask(method=gemini.COUNT)
    assert (asked.count_only, asked.stream, asked.turns[0].path) == (True, False, "contents.0")
    nested = ask(None, method=gemini.COUNT, generateContentRequest={"model": "models/m", "contents": HI})
    assert nested.turns[0].path == "generateContentRequest.contents.0"
    assert nested.unknown == ()
    assert orjson.loads(gemini.COUNT.count(7)) == {"totalTokens": 7}


# Answers from events.

TALK: list[Event] = [
    Started("r9", "native", 5),
    ReasoningDelta("Hm.", block=0),
    TextDelta("It ", block=1),
    TextDelta("rains.", block=1),
    CallStarted(0, "c1", "f", block=2),
    CallDelta(0, '{"a"'),
    CallDelta(0, ":1}"),
    Finished("tool_calls"),
    Metered(USAGE),
]


def test_whole_answer() -> None:
    """A whole answer holds thoughts, text and calls in order, usage, and the model that was asked for."""
    assert whole(TALK) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "It rains."},
                        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": TOLD,
        "modelVersion": "asked",
        "responseId": "r9",
    }


@FORMS
def test_stream(form: str) -> None:
    """T-GEMI-072 (GG): the same in a stream of either form: calls whole, the finish last, usage with it."""
    told = written(TALK, form)
    assert said(told) == [
        {"text": "Hm.", "thought": True},
        {"text": "It "},
        {"text": "rains."},
        {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
    ]
    assert [one["candidates"][0].get("finishReason") for one in told] == [None] * 4 + ["STOP"]
    assert told[-1]["usageMetadata"] == TOLD
    assert {(one["modelVersion"], one["responseId"]) for one in told} == {("asked", "r9")}


@FORMS
def test_nothing_ends_before_the_charge(form: str) -> None:
    """No chunk with a finish, and no end of the array, leaves before `close`."""
    writer = gemini.STREAM.writer(streaming(form), FACE)
    early = b"".join([writer.feed(one) for one in TALK])
    assert b"finishReason" not in early
    assert not early.rstrip().endswith(b"]")
    late = writer.close(USAGE)
    assert b"finishReason" in late
    assert writer.close(USAGE) == b""
    assert writer.feed(TextDelta("more")) == b""


def test_array_element_by_element() -> None:
    """Each piece of an array can be read when it comes: what was sent so far lacks nothing but its bracket."""
    writer = gemini.STREAM.writer(streaming("array"), FACE)
    sent = b""
    for number, word in enumerate(("a", "b", "c")):
        sent += writer.feed(TextDelta(word)) + gemini.STREAM.keepalive(streaming("array"))
        assert len(orjson.loads(sent + b"]")) == number + 1


@FORMS
def test_empty_stream(form: str) -> None:
    """An answer without events is one chunk that ends it."""
    (only,) = written([], form)
    assert only["candidates"] == [
        {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}
    ]


def test_usage_so_far() -> None:
    """Once upstream has said what was used, each chunk says it; the last one says what is billed."""
    first = Usage(prompt=9, completion=1)
    told = written([TextDelta("a"), Metered(first), TextDelta("b")])
    assert [one.get("usageMetadata", {}).get("totalTokenCount") for one in told] == [None, 10, 14]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "STOP"),
        ("tool_calls", "STOP"),
        ("pause", "STOP"),
        ("length", "MAX_TOKENS"),
        ("context_overflow", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("refusal", "PROHIBITED_CONTENT"),
        ("error", "OTHER"),
    ],
)
def test_finishes(reason: Any, word: str, streamed: bool) -> None:
    """Every finish has its word."""
    events: list[Event] = [TextDelta("a"), Finished(reason, detail="why" if reason == "refusal" else None)]
    last = written(events)[-1] if streamed else whole(events)
    assert last["candidates"][0]["finishReason"] == word
    assert last["candidates"][0].get("finishMessage") == ("why" if reason == "refusal" else None)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        ("{}", {}),
        ('{"b":"ü","a":[1.5]}', {"b": "ü", "a": [1.5]}),
        ("[1]", {"__raw_arguments__": "[1]"}),
        ('{"a":', {"__raw_arguments__": '{"a":'}),
    ],
)
def test_arguments(text: str, args: Any, streamed: bool) -> None:
    """T-CORE-029, T-CORE-030 (GG): an object as it is, key order kept; what is none in one."""
    events: list[Event] = [CallStarted(0, "c", "f"), *(CallDelta(0, one) for one in text), Finished("stop")]
    pieces = said(written(events)) if streamed else whole(events)["candidates"][0]["content"]["parts"]
    assert pieces == [{"functionCall": {"id": "c", "name": "f", "args": args}}]
    assert list(pieces[0]["functionCall"]["args"]) == list(args)


def test_calls_wait_for_their_end() -> None:
    """Parallel calls whose fragments alternate are told whole, in order; a finished one does not wait for the end."""
    writer = gemini.STREAM.writer(streaming(), FACE)
    feed: list[Event] = [
        CallStarted(0, "a", "f"),
        CallStarted(1, "b", "g"),
        CallDelta(1, "{}"),
        CallDelta(0, '{"x":1}'),
    ]
    assert b"".join([writer.feed(one) for one in feed]) == b""
    third = writer.feed(CallStarted(2, "c", "h"))
    assert [one["functionCall"]["id"] for one in said(chunks(third))] == ["a", "b"]
    assert said(chunks(writer.feed(Finished("tool_calls")))) == [{"functionCall": {"id": "c", "name": "h", "args": {}}}]


def test_free_form_calls() -> None:
    """A call whose argument is text has it in an object."""
    part = {"functionCall": {"id": "c", "name": "f", "args": {"input": "x = 1"}}}
    events: list[Event] = [CallStarted(0, "c", "f", kind="custom"), CallDelta(0, "x = 1"), Finished("stop")]
    assert said(written(events)) == [part]
    assert whole(events)["candidates"][0]["content"]["parts"] == [part]


def test_call_signature() -> None:
    """Google's signature on a call stays there; one that is no base64 is wrapped, since SDKs decode it."""
    events: list[Event] = [CallStarted(0, "c", "f", signature="c2ln"), Finished("stop")]
    assert said(written(events))[0]["thoughtSignature"] == "c2ln"
    wrapped = said(written([CallStarted(0, "c", "f", signature="no base64!"), Finished("stop")]))[0]
    call = ask([{"role": "model", "parts": [wrapped]}]).turns[0].parts[0]
    assert isinstance(call, ToolCall)
    assert call.signature == "no base64!"


@pytest.mark.parametrize("streamed", [True, False])
def test_several_candidates(streamed: bool) -> None:
    """Interleaved candidates keep their words apart, each has its finish, once."""
    events: list[Event] = [
        TextDelta("a", 0),
        TextDelta("b", 1),
        Finished("stop", 0),
        TextDelta("late", 0),
        TextDelta("c", 1),
        Finished("length", 1),
        Finished("stop", 1),
    ]
    told = written(events) if streamed else [whole(events[:3] + events[4:])]
    assert ["".join(one["text"] for one in said(told, index)) for index in (0, 1)] == ["a", "bc"]
    ends = [
        (one["index"], one["finishReason"]) for chunk in told for one in chunk["candidates"] if "finishReason" in one
    ]
    assert ends == [(0, "STOP"), (1, "MAX_TOKENS")]


def test_blocks_of_thinking() -> None:
    """A blank line between streamed thoughts that no signature tells apart (decision 27); whole, each its own part."""
    events: list[Event] = [ReasoningDelta("a", block=0), ReasoningDelta("b", block=0), ReasoningDelta("c", block=1)]
    assert [one["text"] for one in said(written(events))] == ["a", "b", "\n\nc"]
    assert [one["text"] for one in whole(events)["candidates"][0]["content"]["parts"]] == ["ab", "c"]
    events.insert(2, ReasoningSealed("s", format="anthropic-claude-v1", block=0))
    assert said(written(events))[3]["text"] == "c"


def test_payloads_do_not_leak() -> None:
    """T-ANTH-036, 068 (GG): a redacted block has no place here and is left out."""
    events: list[Event] = [ReasoningSealed(data="secret", format="anthropic-claude-v1"), TextDelta("a", block=1)]
    assert said(written(events)) == [{"text": "a"}]
    assert b"secret" not in gemini.GENERATE.answer(ask(), FACE, events, USAGE)


def test_refusals() -> None:
    """The words of a refusal are no text: they are the message of the finish."""
    events: list[Event] = [RefusalDelta("N"), RefusalDelta("o."), Finished("stop")]
    for last in (written(events)[-1], whole(events)):
        assert last["candidates"][0]["content"]["parts"] == [{"text": ""}]
        assert (last["candidates"][0]["finishReason"], last["candidates"][0]["finishMessage"]) == ("STOP", "No.")


@pytest.mark.parametrize("streamed", [True, False])
def test_citations(streamed: bool) -> None:
    """T-ANTH-062, 063 (GG): sources of the web with places in bytes; those inside documents have no place here."""
    events: list[Event] = [
        TextDelta("Grüße aus Łódź"),
        Cited({"url": "https://a", "title": "A", "start": 10, "end": 14}, "web"),
        Cited({"url": "https://b", "title": None, "start": None, "end": 99}, "web"),
        Cited({"type": "char_location"}, "anthropic"),
        Finished("stop"),
    ]
    last = written(events)[-1] if streamed else whole(events)
    segment = {"startIndex": 12, "endIndex": 19, "text": "Łódź"}
    assert last["candidates"][0]["groundingMetadata"] == {
        "groundingChunks": [
            {"web": {"uri": "https://a", "title": "A"}},
            {"web": {"uri": "https://b", "title": "https://b"}},
        ],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
    }


def test_citations_of_a_long_text() -> None:
    """What is too long to be kept has sources without places."""
    events: list[Event] = [TextDelta("x" * (MOST_TEXT + 1)), Cited({"url": "u", "start": 0, "end": 1}, "web")]
    assert "groundingSupports" not in written(events)[-1]["candidates"][0]["groundingMetadata"]


def test_own_blocks() -> None:
    """A block of this format is a part again; one of another is left out."""
    code = {"executableCode": {"code": "1"}}
    events: list[Event] = [Block(code, "google"), Block({"type": "x"}, "anthropic"), TextDelta("a")]
    assert said(written(events)) == [code, {"text": "a"}]
    assert whole(events)["candidates"][0]["content"]["parts"] == [code, {"text": "a"}]


def test_usage() -> None:
    """Thoughts are told beside the rest of the output, modalities in their lists, sub-inferences in the sums."""
    one = Usage(prompt=20, completion=9, audio_in=4, image_out=3, others=(("m", Usage(prompt=1, completion=2)),))
    told = whole([], one)["usageMetadata"]
    assert told == {
        "promptTokenCount": 21,
        "candidatesTokenCount": 11,
        "totalTokenCount": 32,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 17}, {"modality": "AUDIO", "tokenCount": 4}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 8}, {"modality": "IMAGE", "tokenCount": 3}],
    }


@FORMS
def test_errors_in_a_stream(form: str) -> None:
    """T-ANTH-070 (GG): the error object after what was said, nothing behind it; the array is still JSON."""
    failure = UpstreamFailure("It broke.", status=503, kind="overloaded", code="overloaded", retry_after=2.2)
    writer = gemini.STREAM.writer(streaming(form), FACE)
    first, last = chunks(writer.feed(TextDelta("a")) + writer.fail(failure, "r1"), form)
    assert said([first]) == [{"text": "a"}]
    assert last["error"]["code"] == 503
    assert last["error"]["status"] == "UNAVAILABLE"
    assert last["error"]["details"][-1]["retryDelay"] == "2s"
    assert writer.fail(failure, "r1") + writer.close(USAGE) == b""
    (alone,) = chunks(gemini.STREAM.writer(streaming(form), FACE).fail(failure, ""), form)
    assert alone["error"]["message"] == "It broke."


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (ClientError("x", status=401, kind="unauthorized"), 401, "UNAUTHENTICATED"),
        (ClientError("x", status=403, kind="quota"), 403, "RESOURCE_EXHAUSTED"),
        (ClientError("x", status=403, kind="permission"), 403, "PERMISSION_DENIED"),
        (ClientError("x", status=404, kind="not_found"), 404, "NOT_FOUND"),
        (ClientError("x", status=405), 405, "UNIMPLEMENTED"),
        (ClientError("x", status=413, kind="too_large"), 413, "INVALID_ARGUMENT"),
        (UpstreamFailure("x", status=429, kind="rate_limit"), 429, "RESOURCE_EXHAUSTED"),
        (UpstreamFailure("x", status=502, kind="upstream_auth"), 502, "INTERNAL"),
        (UpstreamFailure("x", status=504, kind="timeout"), 504, "DEADLINE_EXCEEDED"),
        (UpstreamFailure("x", status=400, kind="content_policy"), 400, "INVALID_ARGUMENT"),
        (OurError("x"), 500, "INTERNAL"),
        (OurError("x", status=503), 503, "UNAVAILABLE"),
    ],
)
def test_error_words(error: Any, status: int, word: str) -> None:
    """Every kind of error has Google's status beside the HTTP status (A.0.5)."""
    told = orjson.loads(gemini.GENERATE.failure(error, ""))["error"]
    assert (told["code"], told["status"], gemini.GENERATE.status(error)) == (status, word, status)


# Answers of the same format.


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """A frame as Google sends it."""
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}} if text is not None else {}
    if finish:
        candidate["finishReason"] = finish
    node = {"candidates": [{**candidate, "index": index}], "modelVersion": "native", "responseId": "r9", **more}
    return b"data: " + orjson.dumps(node) + b"\r\n\r\n"


def passed(frames: list[bytes], form: str = "sse", face: Face = FACE, usage: Usage = USAGE) -> tuple[bytes, bytes]:
    """What the client gets before and after the charge."""
    passer = gemini.STREAM.passer(streaming(form), face)
    decoder = sse.Decoder()
    early = b"".join([passer.frame(frame, ()) for one in frames for frame in decoder.feed(one)])
    return early, passer.close(usage)


COUNTED = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}}


def test_frames_pass_untouched() -> None:
    """T-GEMI-069, 071 (GG): every byte as it came, unknown keys too; the last frame only after the charge."""
    frames = [chunk("a", novelty={"x": 1}), chunk("b", **COUNTED), chunk("", "STOP", **COUNTED)]
    assert passed(frames) == (frames[0] + frames[1], frames[2])


def test_what_follows_the_end_is_kept_back_too() -> None:
    """Usage or an empty text behind the end leave after the charge, in order, and not without bound."""
    tail = [chunk("", "STOP"), chunk("", None, **COUNTED), b'data: {"usageMetadata":{"promptTokenCount":1}}\r\n\r\n']
    assert passed([chunk("a"), *tail]) == (chunk("a"), b"".join(tail))
    _, late = passed([chunk("a"), *[chunk("", "STOP")] * 1000])
    assert len(chunks(late)) == MOST_KEPT


def test_ends_on_every_chunk() -> None:
    """Where each chunk says STOP, each is let go when more content follows it."""
    frames = [chunk(word, "STOP", **COUNTED) for word in "abc"]
    assert passed(frames) == (frames[0] + frames[1], frames[2])


def test_candidates_end_one_by_one() -> None:
    """The end of one candidate does not hold back another's words; the last end is kept."""
    frames = [chunk("a"), chunk("b", index=1), chunk("", "STOP"), chunk("c", index=1), chunk("", "STOP", 1, **COUNTED)]
    assert passed(frames) == (b"".join(frames[:4]), frames[4])


def test_renamed_model() -> None:
    """A mapped model's own name is not shown."""
    early, late = passed([chunk("a"), chunk("", "STOP", **COUNTED)], face=RENAMED)
    assert [one["modelVersion"] for one in chunks(early + late)] == ["asked", "asked"]


def test_missing_end_and_usage() -> None:
    """T-CORE-009, T-CORE-035 (GG): a stream without finish or usage gets them."""
    early, late = passed([chunk("a"), chunk("b", index=1)])
    assert early == chunk("a") + chunk("b", index=1)
    (last,) = chunks(late)
    assert [(one["index"], one["finishReason"]) for one in last["candidates"]] == [(0, "STOP"), (1, "STOP")]
    assert (last["usageMetadata"], last["responseId"]) == (TOLD, "r9")
    _, late = passed([chunk("a"), chunk("", "STOP", usageMetadata={"trafficType": "ON_DEMAND"})])
    (last,) = chunks(late)
    assert last["usageMetadata"] == {"trafficType": "ON_DEMAND", **TOLD}
    assert last["candidates"][0]["finishReason"] == "STOP"


def test_blocked_prompt_passes() -> None:
    """T-GEMI-056 (GG): a blocked prompt is an answer without candidates; no finish is made up for it."""
    frame = b'data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":3}}\n\n'
    assert passed([frame]) == (b"", frame)


def test_frames_become_elements() -> None:
    """T-GEMI-072 (GG): for a client that asked for no events, the same trees as one array."""
    frames = [b": hello\n\n", chunk("a", novelty={"x": 1}), b"data: {broken\n\n", chunk("", "STOP", **COUNTED)]
    early, late = passed(frames, "array")
    assert orjson.loads(early + b"]")[0]["novelty"] == {"x": 1}
    assert b"STOP" not in early
    assert orjson.loads(early + late) == [orjson.loads(one[6:]) for one in (frames[1], frames[3])]
    assert passed([], "array", usage=NOTHING)[1].startswith(b"[{")


def test_odd_frames_are_made_clean() -> None:
    """A frame with a name, without a blank line or with broken text leaves as one clean event."""
    for raw in (b'event: x\ndata: {"candidates":[]}\n\n', b'data: {"candidates":[],"a":"\xff"}\n\n'):
        (only,) = chunks(passed([raw])[0])
        assert only["candidates"] == []


@FORMS
def test_errors_in_a_passed_stream(form: str) -> None:
    """T-GEMI-073 (GG): what was held back is not told behind an error."""
    passer = gemini.STREAM.passer(streaming(form), FACE)
    early = b"".join([passer.frame(one, ()) for one in sse.Decoder().feed(chunk("a") + chunk("", "STOP"))])
    told = chunks(early + passer.fail(OurError("x", status=503), "r"), form)
    assert [("error" in one) for one in told] == [False, True]
    assert passer.close(USAGE) == b""


def test_cut_anywhere() -> None:
    """A passed stream is the same however its bytes are cut."""
    data = chunk("Grüße 🌍") + chunk("b") + chunk("", "STOP", **COUNTED)
    assert b"".join(passed([data[at : at + 1] for at in range(len(data))])) == data


def test_whole_answers_pass() -> None:
    """A whole answer keeps its bytes unless it is renamed, or lacks usage or a finish."""
    node: dict[str, Any] = {
        "candidates": [{"content": {}, "finishReason": "SAFETY", "novelty": 1}],
        "modelVersion": "native",
        **COUNTED,
    }
    body = orjson.dumps(node, option=orjson.OPT_INDENT_2)
    same = gemini.GENERATE.same
    assert same(ask(), FACE, Document(body), USAGE) is body
    assert orjson.loads(same(ask(), RENAMED, Document(body), USAGE)) == {**node, "modelVersion": "asked"}
    bare = orjson.dumps({"candidates": [{"content": {}}, 3], "usageMetadata": {"trafficType": "x"}})
    assert orjson.loads(same(ask(), FACE, Document(bare), USAGE)) == {
        "candidates": [{"content": {}, "finishReason": "STOP"}, 3],
        "usageMetadata": {"trafficType": "x", **TOLD},
    }
    for odd in (b"[]", b"no json", b'{"candidates":3,"usageMetadata":[],"promptFeedback":7}'):
        assert same(ask(), FACE, Document(odd), NOTHING) == odd


ODD: list[Any] = [None, 3, "x", [], {}, [None], [[]], {"parts": 3}, [{"content": [], "finishReason": 3}], True, 1e300]


@FORMS
@pytest.mark.parametrize("seed", range(6))
def test_garbage_passes_or_is_left_out(seed: int, form: str) -> None:
    """Whatever upstream sends, the client gets a proper stream with an end."""
    chance = random.Random(seed)
    frames = []
    for _ in range(60):
        names = ("candidates", "usageMetadata", "promptFeedback", "responseId", "modelVersion")
        node = {name: chance.choice(ODD) for name in names if chance.random() < 0.7}
        frames.append(b"data: " + orjson.dumps(chance.choice([node, chance.choice(ODD)])) + b"\n\n")
    early, late = passed(frames, form, RENAMED)
    if form == "array":
        assert orjson.loads(early + late)
        return
    decoder = sse.Decoder()
    assert all(type(one.tree) is dict for one in decoder.feed(early + late))
    assert decoder.empty


def test_depths_that_nobody_writes() -> None:
    """A tree nested deeper than can be written is left out, whole and streamed; a call's arguments stay text."""
    deep = b'{"candidates":' + b"[" * 600 + b"]" * 600 + b"}"
    early, late = passed([b"data: " + deep + b"\n\n", chunk("a")], "array")
    assert [one["responseId"] for one in orjson.loads(early + late)] == ["r9", "r9"]
    assert gemini.GENERATE.same(ask(), FACE, Document(deep), USAGE) == deep
    text = '{"a":' * 245 + "1" + "}" * 245
    events: list[Event] = [CallStarted(0, "c", "f"), CallDelta(0, text), Finished("stop")]
    assert said(written(events))[0]["functionCall"]["args"] == {"__raw_arguments__": text}
    assert whole(events)["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {"__raw_arguments__": text}


def test_pieces_of_a_stream_become_whole() -> None:
    """A client that keeps a stream's pieces as parts, or as contents of their own, said one text and one thought."""
    pieces: list[Any] = [
        {"text": "H", "thought": True},
        {"text": "m.", "thought": True},
        {"text": "I l"},
        {"text": "ook."},
    ]
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    joined = [{"role": "model", "parts": [*pieces, call]}]
    apart = [{"role": "model", "parts": [one]} for one in (*pieces, call)]
    for history in (joined, apart):
        user, turn = ask([{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}, *history]).turns
        assert len(user.parts) == 2
        thought, text, made = turn.parts
        assert (thought, getattr(text, "text", "")) == (Reasoning(text="Hm."), "I look.")
        assert isinstance(made, ToolCall)
    signed = [{"text": "a", "thoughtSignature": "c2ln"}, {"text": "b"}, {"text": "", "thoughtSignature": "c2ln"}]
    assert len(ask([{"role": "model", "parts": signed}]).turns[0].parts) == 3
