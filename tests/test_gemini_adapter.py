"""The Gemini adapter beyond its rows: addresses, names, odd histories, hostile answers, a host that differs."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.adapters._gemini_arguments import Pieces
from newapi_proxy.adapters._gemini_citations import MOST, citations
from newapi_proxy.adapters._gemini_contents import PLACEHOLDER
from newapi_proxy.adapters._gemini_media import by_bytes
from newapi_proxy.adapters._gemini_models import suffixed, traits
from newapi_proxy.adapters._gemini_request import safety
from newapi_proxy.adapters._gemini_usage import Meter
from newapi_proxy.adapters._schema import openapi
from newapi_proxy.adapters._tools import LONGEST_SEAL, opened_id, sealed_id
from newapi_proxy.adapters.gemini import ADAPTER, Draft, GeminiChat, Quirks
from newapi_proxy.config import load
from newapi_proxy.errors import ProxyError, Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Controls, Media, Reasoning, Text, Thinking, Tool, ToolCall, ToolResult, Turn
from newapi_proxy.ir.events import (
    CallDelta,
    CallStarted,
    Event,
    Failed,
    Finished,
    Metered,
    Picture,
    ReasoningSealed,
    Skipped,
    Started,
    TextDelta,
    fold,
)
from newapi_proxy.ir.usage import MOST as MOST_TOKENS
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire.tree import Document
from tests.fakes import matrix_gemini as fake
from tests.fakes.inbound import FUNCTION, Call, Result
from tests.fakes.inbound import Picture as Image
from tests.fakes.matrix_gemini import DIALECT, FACE, FLASH2, FLASH3, FLASH25, PRO3, PRO25, Message, event, posted, sent

HOST = "https://generativelanguage.googleapis.com"
HI = {"role": "user", "content": "Hi"}
SIGNATURE = "EqoBCqcB+/9z"


def asked(*turns: Turn, **more: Any) -> Ask:
    return Ask(dialect="test", model="asked", tree={}, size=0, turns=turns, **more)


def body(ask: Ask, model: str = FLASH25, **options: Any) -> Any:
    return DIALECT.request(ask, fake.target(model, **options)).body


def user(*parts: Any) -> Turn:
    return Turn(role="user", parts=tuple(Text(text=one) if isinstance(one, str) else one for one in parts))


def model(*parts: Any) -> Turn:
    return Turn(role="assistant", parts=tuple(Text(text=one) if isinstance(one, str) else one for one in parts))


# Addresses.


@pytest.mark.parametrize(
    ("base", "name", "options", "url"),
    [
        ("https://h", "gemini-2.5-pro", {}, "https://h/v1beta/models/gemini-2.5-pro"),
        ("https://h/v1beta", "gemini-2.5-pro", {}, "https://h/v1beta/models/gemini-2.5-pro"),
        ("https://h/x", "models/gemini-2.5-pro", {"version": "v1"}, "https://h/x/v1/models/gemini-2.5-pro"),
        ("https://h", "tunedModels/a-1", {}, "https://h/v1beta/tunedModels/a-1"),
        ("https://h", "g-1", {"version_map": {"g-1": "v1alpha"}, "version": "v1"}, "https://h/v1alpha/models/g-1"),
        ("https://h", "../x?key=1#a:b", {}, "https://h/v1beta/models/..%2Fx%3Fkey%3D1%23a%3Ab"),
    ],
)
def test_urls(base: str, name: str, options: dict[str, Any], url: str) -> None:
    """The version is the model's, else the channel's; no name leaves its place in the path."""
    to = msgspec.structs.replace(fake.target(name, **options), base_url=base)
    assert DIALECT.request(asked(user("Hi")), to).url == f"{url}:generateContent"
    streaming = DIALECT.request(asked(user("Hi"), stream=True), to)
    assert streaming.url == f"{url}:streamGenerateContent?alt=sse"
    assert "stream" not in streaming.body


def test_the_key_stands_in_no_address() -> None:
    """T-GEMI-001 (OC): the key is a header's alone."""
    outgoing = DIALECT.request(asked(user("Hi")), fake.target())
    assert outgoing.headers["x-goog-api-key"] == "k"
    assert "k=" not in outgoing.url
    assert "authorization" not in outgoing.headers


def test_options_in_yaml(tmp_path: Any) -> None:
    """The three options of this type, in each form that safety settings have."""
    for written in ("BLOCK_NONE", "{default: OFF}", "[{category: A, threshold: B}]"):
        path = tmp_path / "config.yaml"
        options = f"options: {{version: v1, version_map: {{a: v1beta}}, safety_settings: {written}}}"
        path.write_text(
            f"channels:\n  - {{name: g, type: gemini, key: k, models: [a], {options}}}\nprices: {{a: {{input: 1}}}}\n"
        )
        loaded = load.read(path, {})
        assert not loaded.faults
        told: Any = load.options(loaded.config.channels[0])
        assert (told.version, told.version_map["a"]) == ("v1", "v1beta")
        assert safety(told)


def test_the_record() -> None:
    """What the registry tells of this provider."""
    assert ADAPTER.numbers == (24,)
    assert ADAPTER.base_url == HOST
    assert ADAPTER.owner == "google gemini"


# Models.


@pytest.mark.parametrize(
    ("name", "thinking", "off", "seals", "schema"),
    [
        ("gemini-1.5-flash", "none", True, False, False),
        ("gemini-pro", "none", False, False, False),
        ("gemini-2.0-flash-lite", "none", True, False, True),
        ("gemini-exp-1206", "none", True, False, True),
        ("gemini-2.5-flash", "budget", True, False, True),
        ("gemini-2.5-pro-preview-06-05", "budget", False, False, True),
        ("gemini-live-2.5-flash", "budget", True, False, True),
        ("gemini-robotics-er-1.5-preview", "budget", True, False, True),
        ("gemini-2.5-flash-image", "none", True, False, True),
        ("gemini-2.5-flash-preview-tts", "none", True, False, True),
        ("gemini-3-flash-preview", "level", True, True, True),
        ("models/gemini-3.1-pro-preview", "level", False, True, True),
        ("gemini-flash-latest", "level", True, True, True),
        ("tunedModels/mine", "none", True, False, False),
        ("gemma-3-27b-it", "none", True, False, True),
    ],
)
def test_traits(name: str, thinking: str, off: bool, seals: bool, schema: bool) -> None:
    """A name tells generation and kind; aliases without a version are the newest."""
    known = traits(name)
    assert (known.thinking, known.off, known.seals, known.json_schema) == (thinking, off, seals, schema)


def test_models_without_an_instruction() -> None:
    """The system text becomes the first of the user's."""
    turns = (Turn(role="system", parts=(Text(text="Be brief."),)), user("Hi"))
    told = body(asked(*turns), "gemma-3-27b-it")
    assert told == {"contents": [{"role": "user", "parts": [{"text": "Be brief."}, {"text": "Hi"}]}]}


def test_suffixes() -> None:
    """A Gemini's name may say how to think; other names that end so are their owners'."""
    named = suffixed("gemini-2.5-flash-preview-04-17-thinking-2048")
    assert named is not None
    assert (named.model, named.thinking.budget) == ("gemini-2.5-flash-preview-04-17", 2048)
    assert suffixed("gemini-3-pro-preview-high") is not None
    assert suffixed("gemini-2.5-flash-nothinking") is not None
    assert suffixed("o3-mini-high") is None
    assert suffixed("gemini-2.5-flash") is None


# Histories.


def test_nothing_to_say() -> None:
    """Empty turns go; where nothing is left, something stands there."""
    assert body(asked(user(""), model(""), user("")))["contents"] == [{"role": "user", "parts": [{"text": "."}]}]
    assert body(asked())["contents"] == [{"role": "user", "parts": [{"text": "."}]}]
    kept = body(asked(user("a"), model(""), user("b")))["contents"]
    assert kept == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]


def test_lost_results_are_text() -> None:
    """A result without its call keeps its words; one whose call stands elsewhere answers nothing twice."""
    lost = ToolResult(id="x", parts=(Text(text="sunny"),))
    assert body(asked(user("Go", lost)))["contents"][0]["parts"] == [{"text": "sunny"}, {"text": "Go"}]
    call = ToolCall(id="c", name="f", arguments="{}")
    twice = (ToolResult(id="c", parts=(Text(text="1"),)), ToolResult(id="c", parts=(Text(text="2"),)))
    answered, rest = body(asked(user("Go"), model(call), user(*twice)))["contents"][2:]
    assert answered["parts"][0]["functionResponse"]["response"] == {"output": "1"}
    assert rest["parts"] == [{"text": "2"}]


def test_results_stay_apart_on_older_models() -> None:
    """What the user says behind results is a content of its own before the third generation."""
    call = ToolCall(id="c", name="f", arguments="{}")
    turns = (user("Go"), model(call), user(ToolResult(id="c", parts=(Text(text="1"),)), "And?"))
    assert len(body(asked(*turns))["contents"]) == 4
    assert len(body(asked(*turns), FLASH3)["contents"]) == 3


def test_results_of_media_alone() -> None:
    """A response is never empty; a kind that no response holds follows it."""
    call = ToolCall(id="c", name="f", arguments="{}")
    sound = Media(kind="audio", media_type="audio/wav", data="UklGRg==", path="p")
    image = Media(kind="image", media_type="image/png", data="iVBORw0KGgo=", path="p")
    turns = (user("Go"), model(call), user(ToolResult(id="c", parts=(sound, image))))
    parts = body(asked(*turns), FLASH3)["contents"][2]["parts"]
    response = parts[0]["functionResponse"]
    assert len(response["parts"]) == 1
    assert len(response["response"]["files"]) == 1
    assert parts[2] == {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}
    alone = (user("Go"), model(call), user(ToolResult(id="c", parts=(image,))))
    response = body(asked(*alone), FLASH3)["contents"][2]["parts"][0]["functionResponse"]
    assert response["response"] == {"output": ""}


def test_broken_arguments() -> None:
    """T-CORE-025 (OC, OR): text that is no object goes up wrapped."""
    one = sent("OC", (("user", "Go"), ("assistant", Call("c", "f", "{broken")), ("tool", Result("c", "f"))))
    assert one.contents[1][1][0]["functionCall"]["args"] == {"__raw_arguments__": "{broken"}


def test_signatures_of_others_details() -> None:
    """Encrypted details name the call that they belong to; broken ones are replaced, foreign ones are left out."""
    call = ToolCall(id="c", name="f", arguments="{}")
    detail = Reasoning(data=SIGNATURE, format="google-gemini-v1", id="c")
    assert _model_parts(model(detail, call)) == [_call_part(SIGNATURE)]
    assert _model_parts(model(call, detail)) == [_call_part(SIGNATURE)]
    broken = Reasoning(data="not base64!", format="google-gemini-v1", id="c")
    assert _model_parts(model(broken, call)) == [_call_part(PLACEHOLDER)]
    foreign = Reasoning(text="Hm.", signature=SIGNATURE, format="anthropic-claude-v1")
    assert _model_parts(model(foreign, call)) == [_call_part(PLACEHOLDER)]
    loose = Reasoning(data=SIGNATURE, format="google-gemini-v1")
    assert _model_parts(model(loose, call)) == [_call_part(SIGNATURE)]


def test_signatures_on_text() -> None:
    """Before the text or behind it, on the message, on a thought, on nothing."""
    loose = Reasoning(data=SIGNATURE, format="google-gemini-v1")
    signed = {"text": "a", "thoughtSignature": SIGNATURE}
    assert _model_parts(model(loose, "a")) == [signed]
    assert _model_parts(model("a", loose)) == [signed]
    assert _model_parts(model(loose)) == [{"text": "", "thoughtSignature": SIGNATURE}]
    opaque = Text(text="a", opaque={"google": {"thought_signature": SIGNATURE}})
    assert _model_parts(model(opaque)) == [signed]
    thought = Reasoning(text="Hm.", signature=SIGNATURE, format="google-gemini-v1")
    kept = {"text": "Hm.", "thought": True, "thoughtSignature": SIGNATURE}
    assert _model_parts(model(thought, "a")) == [kept, {"text": "a"}]


def _model_parts(turn: Turn) -> Any:
    return body(asked(user("Go"), turn), FLASH3)["contents"][1]["parts"]


def _call_part(signature: str) -> Any:
    return {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": signature}


@pytest.mark.parametrize("signature", ["AY89+/==", "AAAA", "AY_8-w", "A", "", "ünï", "\ud800", "x" * LONGEST_SEAL])
def test_ids_carry_signatures(signature: str) -> None:
    """Whatever the signature is, it comes back unaltered out of an id that every provider takes."""
    id = sealed_id("call_1", signature)
    assert all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in id)
    assert opened_id(id) == ("call_1", signature or None)


def test_ids_that_carry_none() -> None:
    """Too long a signature is left out; one that a client has cut is none, the id before it stands."""
    assert sealed_id("call_1", "x" * (LONGEST_SEAL + 1)) == "call_1"
    assert opened_id("call_1") == ("call_1", None)
    for signature in (SIGNATURE, "AY_8-w"):
        id = sealed_id("call_1", signature)
        assert {opened_id(id[:cut]) for cut in range(len("call_1__sigx__"), len(id))} == {("call_1", None)}
    assert sealed_id("a__sig__b", "AAAA") == "a__sig__b"


# Media.


@pytest.mark.parametrize(
    ("medium", "part"),
    [
        (Media(kind="image", data="/9j/4AA="), {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/4AA="}}),
        (
            Media(kind="file", filename="a.MD", data="YQ=="),
            {"inlineData": {"mimeType": "text/markdown", "data": "YQ=="}},
        ),
        (Media(kind="audio", data="AAAA"), {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}),
        (
            Media(kind="image", media_type="image/jpg", data="AAAA", url="https://h/a"),
            {"inlineData": {"mimeType": "image/jpeg", "data": "AAAA"}},
        ),
        (Media(kind="file", file_id="files/a"), {"fileData": {"fileUri": f"{HOST}/v1beta/files/a"}}),
        (
            Media(kind="file", file_id=f"{HOST}/v1beta/files/a", media_type="application/pdf"),
            {"fileData": {"fileUri": f"{HOST}/v1beta/files/a", "mimeType": "application/pdf"}},
        ),
        (
            Media(kind="file", url="https://h/a.pdf?x=1"),
            {"fileData": {"fileUri": "https://h/a.pdf?x=1", "mimeType": "application/pdf"}},
        ),
    ],
)
def test_media(medium: Media, part: Any) -> None:
    """Bytes before addresses; the type out of the name or the first bytes where nobody says it."""
    assert body(asked(user(medium)))["contents"][0]["parts"] == [part]


@pytest.mark.parametrize(
    "medium",
    [
        Media(kind="file", file_id="file-abc", path="messages.0.content.0"),
        Media(kind="file", url="gs://bucket/a.pdf", path="messages.0.content.0"),
        Media(kind="file", url="ftp://h/a.pdf", path="messages.0.content.0"),
        Media(kind="file", data="AAAA", path="messages.0.content.0"),
        Media(kind="image", data="AAAA", path="messages.0.content.0"),
    ],
)
def test_refused_media(medium: Media) -> None:
    """Another provider's file, an address nobody opens here, bytes of unknown kind."""
    with pytest.raises(Unsupported) as refused:
        body(asked(user(medium)))
    assert (refused.value.param, refused.value.code) == ("messages.0.content.0", "unsupported_content")


def test_a_history_that_opens_with_a_call() -> None:
    """Upstream wants a turn of the user's before calls; words alone may open a conversation."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    assert [one["role"] for one in posted("OC", {"model": "m", "messages": calls}).body["contents"]] == [
        "user",
        "model",
        "user",
    ]
    words = [{"role": "assistant", "content": "Well?"}, HI]
    assert [one["role"] for one in posted("OC", {"model": "m", "messages": words}).body["contents"]] == [
        "model",
        "user",
    ]


def test_what_is_fetched() -> None:
    """Public addresses are; Google's own places, clients of this format and broken addresses are not."""
    for url, wanted in (
        ("https://p.example/a.png", True),
        ("HTTP://p.example/a.png", True),
        (f"{HOST}/v1beta/files/a", False),
        ("https://youtu.be/1", False),
        ("gs://b/a", False),
        ("https://[broken", True),
    ):
        assert by_bytes(Media(kind="image", url=url, path="messages.0"), FLASH25) is wanted
    assert not by_bytes(Media(kind="image", url="https://p.example/a", path="contents.0.parts.0"), FLASH25)


def test_an_earlier_answers_sound() -> None:
    """Sound of an answer that another provider keeps is left out by its path."""
    spoken = Media(kind="audio", file_id="audio_1", path="messages.1.audio")
    outgoing = DIALECT.request(asked(user("Hi"), model("So", spoken), user("Go")), fake.target())
    assert outgoing.dropped == ("messages.1.audio",)


# Requests of other formats.


@pytest.mark.parametrize(
    ("wish", "upstream", "config", "dropped"),
    [
        (Thinking(budget=1000), FLASH3, {"thinkingLevel": "LOW", "includeThoughts": True}, ()),
        (Thinking(budget=30000), FLASH3, {"thinkingLevel": "HIGH", "includeThoughts": True}, ()),
        (Thinking(effort="xhigh"), FLASH3, {"thinkingLevel": "HIGH", "includeThoughts": True}, ()),
        (Thinking(adaptive=True), FLASH3, {"includeThoughts": True}, ()),
        (Thinking(adaptive=True, display="omitted"), FLASH25, {"includeThoughts": False}, ()),
        (Thinking(disabled=True), FLASH3, {"thinkingLevel": "MINIMAL"}, ()),
        (
            Thinking(effort="minimal"),
            PRO3,
            {"thinkingLevel": "LOW", "includeThoughts": True},
            ("reasoning_effort~",),
        ),
        (Thinking(budget=5000), FLASH25, {"thinkingBudget": 5000, "includeThoughts": True}, ()),
        (
            Thinking(budget=64000),
            FLASH25,
            {"thinkingBudget": 24576, "includeThoughts": True},
            ("reasoning_effort~",),
        ),
        (Thinking(budget=64), PRO25, {"thinkingBudget": 128, "includeThoughts": True}, ("reasoning_effort~",)),
        (Thinking(effort="high"), FLASH2, None, ("reasoning_effort",)),
        (Thinking(disabled=True), FLASH2, None, ()),
    ],
)
def test_thinking(wish: Thinking, upstream: str, config: Any, dropped: Any) -> None:
    """T-GEMI-045, 046 and 047 (OC): efforts, budgets and neither, on each generation; what changes is told."""
    outgoing: Any = DIALECT.request(asked(user("Hi"), controls=Controls(thinking=wish)), fake.target(upstream))
    assert outgoing.body.get("generationConfig", {}).get("thinkingConfig") == config
    assert outgoing.dropped == dropped


@pytest.mark.parametrize(
    ("tier", "sent_as", "dropped"),
    [
        ("auto", None, ()),
        ("default", "standard", ()),
        ("flex", "flex", ()),
        ("priority", "priority", ()),
        ("scale", None, ("service_tier",)),
    ],
)
def test_tiers(tier: str, sent_as: Any, dropped: Any) -> None:
    """A tier that is known here goes up, others are dropped."""
    outgoing: Any = DIALECT.request(asked(user("Hi"), controls=Controls(service_tier=tier)), fake.target())
    assert outgoing.body.get("serviceTier") == sent_as
    assert outgoing.dropped == dropped


def test_sampling_at_its_bounds() -> None:
    """A seed beyond 32 bits is brought inside; penalties are dropped where the model refuses them."""
    controls = Controls(steering={"seed": 2**40, "presence_penalty": 1.0, "logit_bias": None, "store": False})
    outgoing: Any = DIALECT.request(asked(user("Hi"), controls=controls), fake.target("gemini-2.5-pro-preview-06-05"))
    assert outgoing.body["generationConfig"]["seed"] == 2**40 % (2**31 - 1)
    assert outgoing.dropped == ("presence_penalty", "seed~")


def test_default_max_tokens() -> None:
    """The channel's default where the client says nothing."""
    assert body(asked(user("Hi")), default_max_tokens=99)["generationConfig"] == {"maxOutputTokens": 99}
    assert sent("OC", max_tokens=5, options={"default_max_tokens": 99}).config == {"maxOutputTokens": 5}


def test_modalities() -> None:
    """Text and images; sound is refused."""
    for words, config in ((["text"], {}), (["text", "image"], {"responseModalities": ["TEXT", "IMAGE"]})):
        assert sent("OC", steering={"modalities": words}).config == config
    with pytest.raises(Unsupported) as refused:
        sent("OC", steering={"modalities": ["text", "audio"], "audio": {"voice": "a"}})
    assert refused.value.param == "modalities"


def test_built_in_tools_by_name() -> None:
    """A function that is named as one of Google's own tools means that tool."""
    tools = (Tool(name="googleSearch"), Tool(name="codeExecution"))
    assert body(asked(user("Hi"), tools=tools))["tools"] == [{"googleSearch": {}}, {"codeExecution": {}}]


def test_refused_tools() -> None:
    """Free-form tools and other providers' own are refused by their path."""
    for tool in (
        Tool(name="x", kind="custom", path="tools.0"),
        Tool(name="code_interpreter", kind="server", server={}, family="openai", path="tools.0"),
    ):
        with pytest.raises(Unsupported) as refused:
            body(asked(user("Hi"), tools=(tool,)))
        assert refused.value.param == "tools.0"


def test_tools_filtered_by_auto() -> None:
    """T-GEMI-022 (OC): a list that may be called from leaves the others out."""
    tools = [{"type": "function", "function": {**FUNCTION, "name": name}} for name in ("f", "g")]
    listed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": listed}
    tree = {"model": "m", "messages": [HI], "tools": tools, "tool_choice": choice}
    declared = posted("OC", tree).body["tools"][0]["functionDeclarations"]
    assert [one["name"] for one in declared] == ["g"]


def test_own_wishes_are_refused() -> None:
    """T-GEMI-078 (GG): what another format alone knows is a 400 with its path."""
    with pytest.raises(Unsupported) as refused:
        body(asked(user("Hi"), own=("previous_response_id",)))
    assert refused.value.param == "previous_response_id"


# A schema for old models.


@pytest.mark.parametrize(
    ("schema", "clean"),
    [
        ({"type": ["string", "null"], "format": "date"}, {"type": "string", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"anyOf": [{"type": "null"}, {"type": "number", "format": "float"}]}, None),
        ({"type": "array", "items": {"const": "x"}, "minItems": 1}, None),
        ({"enum": [1, 2], "type": "integer"}, {"type": "integer"}),
        ({"$ref": "https://elsewhere/x"}, {"type": "object"}),
        ({"$ref": "#"}, {"type": "object"}),
        ({"type": "object", "properties": {"a": True}}, {"type": "object", "properties": {"a": {"type": "object"}}}),
    ],
)
def test_openapi_schemas(schema: Any, clean: Any) -> None:
    """T-GEMI-019 (OC): each keyword's fate."""
    wanted = (
        clean
        or {
            "anyOf": {"nullable": True, "type": "number", "format": "float"},
            "type": {"type": "array", "items": {"type": "string", "enum": ["x"]}},
        }["anyOf" if "anyOf" in schema else "type"]
    )
    assert openapi(schema) == wanted


def test_schemas_that_would_explode() -> None:
    """References that double at each step, and endless chains of them, end in bounded time and depth."""
    bombs = {
        str(n): {"type": "object", "properties": {k: {"$ref": f"#/$defs/{n + 1}"} for k in "ab"}} for n in range(64)
    }
    assert len(orjson.dumps(openapi({"$ref": "#/$defs/0", "$defs": bombs}))) < 2_000_000
    chain = {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(5000)}
    assert openapi({"$ref": "#/$defs/0", "$defs": chain}) == {"type": "object"}


# The client's own body.


def test_own_body_gets_the_bytes_of_media() -> None:
    """What was fetched replaces its address, the rest of the part stays."""
    part = {"fileData": {"fileUri": "https://p.example/a.png"}, "videoMetadata": {"fps": 1}}
    ask = fake.ask("GG")
    tree = {"contents": [{"role": "user", "parts": [{"text": "?"}, part]}]}
    medium = Media(kind="image", url="https://p.example/a.png", data="AAAA", media_type="image/png")
    turns = (user(msgspec.structs.replace(medium, path="contents.0.parts.1")),)
    changed = msgspec.structs.replace(ask, tree=tree, turns=turns, fetched=True)
    told = body(changed)
    inline = {"mimeType": "image/png", "data": "AAAA"}
    assert told["contents"][0]["parts"][1] == {"videoMetadata": {"fps": 1}, "inlineData": inline}
    assert tree["contents"][0]["parts"][1] is part


def test_own_body_without_foreign_thinking() -> None:
    """T-GEMI-029 (GG): thoughts that another provider signed would be a 400 for the whole request."""
    foreign = {"text": "Hm.", "thought": True, "thoughtSignature": "YW50aHJvcGljLWNsYXVkZS12MS5hYmM="}
    mine = {"text": "So.", "thought": True, "thoughtSignature": SIGNATURE}
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": [foreign, mine, {"text": "a"}]}]
    told = posted("GG", {"contents": contents}).body["contents"]
    assert told[1]["parts"] == [mine, {"text": "a"}]
    untouched = [{"role": "model", "parts": [{"text": "Hm.", "thought": True}, mine]}]
    assert posted("GG", {"contents": untouched}).verbatim


def test_own_body_with_a_suffix() -> None:
    """Thinking that the model's name asks for is put where the body says nothing of it."""
    ask = msgspec.structs.replace(fake.ask("GG"), controls=Controls(thinking=Thinking(budget=2048)))
    assert body(ask)["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 2048, "includeThoughts": True}}
    said = {"contents": [], "generation_config": {"thinking_config": {"thinkingBudget": 0}}}
    assert body(msgspec.structs.replace(ask, tree=said)) == said


# A host that differs.


def shaped(draft: Draft, ask: Ask, to: Any) -> None:
    """What a host does to the draft in the end."""
    draft.headers["x-tier"] = "flex"
    draft.body["shaped"] = True


OTHER = GeminiChat(
    quirks=Quirks(name="Other", call_ids=False, addresses=True, labels=True, tiers=False, invocations=False),
    url=lambda to: f"https://other/{to.model}",
    auth=lambda to: {"authorization": "Bearer t"},
    shape=shaped,
)


def test_a_host_that_differs() -> None:
    """Its address, its credential, its record of quirks and its last word."""
    call = ToolCall(id="c", name="f", arguments="{}")
    file = Media(kind="file", url="gs://bucket/a.pdf", path="p")
    turns = (user("Go", file), model(call), user(ToolResult(id="c", parts=(Text(text="1"),))))
    metadata = {"team": "a-1", "Bad": "x", "env": "Über"}
    controls = Controls(service_tier="flex", steering={"metadata": metadata})
    outgoing: Any = OTHER.request(asked(*turns, controls=controls), fake.target())
    assert outgoing.url == f"https://other/{FLASH25}:generateContent"
    assert outgoing.headers == {"content-type": "application/json", "x-tier": "flex", "authorization": "Bearer t"}
    assert outgoing.body["labels"] == {"team": "a-1"}
    assert outgoing.body["shaped"] is True
    assert outgoing.dropped == ("metadata.Bad", "metadata.env", "service_tier")
    first, called, answered = outgoing.body["contents"]
    assert first["parts"][1] == {"fileData": {"fileUri": "gs://bucket/a.pdf", "mimeType": "application/pdf"}}
    assert called["parts"][0]["functionCall"] == {"name": "f", "args": {}}
    assert "id" not in answered["parts"][0]["functionResponse"]


def test_a_host_without_invocations() -> None:
    """The flag is taken out of a client's own body too."""
    tree = {"contents": [], "toolConfig": {"includeServerSideToolInvocations": True, "functionCallingConfig": {}}}
    outgoing: Any = OTHER.request(msgspec.structs.replace(fake.ask("GG"), tree=tree), fake.target())
    assert outgoing.body["toolConfig"] == {"functionCallingConfig": {}}
    assert outgoing.dropped == ("toolConfig.includeServerSideToolInvocations",)
    assert "includeServerSideToolInvocations" in tree["toolConfig"]


# Answers.


def answer(*chunks: Any, ask: Ask | None = None) -> list[Event]:
    """A stream's events."""
    return fake.events("streamed", b"".join(event(one) for one in chunks))


def test_started() -> None:
    """Id, model and time of the answer, where upstream tells them."""
    told = {**Message().chunk(({"text": "a"},)), "createTime": "2026-05-04T20:01:02.264968Z"}
    assert answer(told)[0] == Started("chatcmpl-r1", "gemini-x", 1777924862)
    for wrong in ("yesterday", 5, "2026-05-04T20:01:02", "9999-99-99T00:00:00Z"):
        assert answer({**told, "createTime": wrong})[0] == Started("chatcmpl-r1", "gemini-x", None)


def test_a_finish_in_every_chunk() -> None:
    """T-CORE-036 (OC): old models end every chunk; the client sees one end, after all words."""
    chunks = [Message().chunk(({"text": one},)) for one in "abc"]
    told = [one for one in answer(*chunks) if isinstance(one, (TextDelta, Finished))]
    assert [type(one) for one in told] == [TextDelta, TextDelta, TextDelta, Finished]


def test_a_stream_without_a_finish() -> None:
    """T-CORE-035 (OC): it ended as its content says."""
    text = answer(Message().chunk(({"text": "a"},), last=False))
    assert text[-1] == Finished("stop")
    called = answer(Message().chunk(({"functionCall": {"name": "f"}},), last=False))
    assert called[-1] == Finished("tool_calls")


def test_server_side_calls_are_no_calls() -> None:
    """Google's own tools' calls are its own blocks."""
    own = {"toolCall": {"id": "1", "toolType": "GOOGLE_SEARCH"}, "thoughtSignature": SIGNATURE}
    folded = fold(answer(Message().chunk((own, {"toolResponse": {"id": "1"}}, {"text": "a"}))))
    assert folded.choices[0].calls == []
    assert [one.value for one in folded.choices[0].blocks] == [own, {"toolResponse": {"id": "1"}}]


def test_pictures_and_sounds() -> None:
    """A picture is one; sound has no place in a chat and stays the provider's own."""
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}}
    folded = fold(answer(Message().chunk((image, sound), last=True)))
    assert folded.choices[0].pictures == [Picture("AAAA", "image/png", 0, 0)]
    assert [one.value for one in folded.choices[0].blocks] == [sound]
    nothing = answer(Message(finish="NO_IMAGE").chunk((image,)))
    assert isinstance(nothing[-1], Finished)


def test_fences_that_hold() -> None:
    """Code that holds a fence gets a longer one."""
    code = {"executableCode": {"code": "print('```')\n", "language": "PYTHON"}}
    assert fold(answer(Message().chunk((code,)))).choices[0].text == "````python\nprint('```')\n````\n"


def test_arguments_in_pieces() -> None:
    """Places, values, strings that grow, and what leads nowhere."""
    pieces = Pieces()
    pieces.take([{"jsonPath": "$.a.b[0].c", "stringValue": "x", "willContinue": True}])
    pieces.take([{"jsonPath": "$.a.b[0].c", "stringValue": "y"}, {"jsonPath": "$.n", "numberValue": 1.5}])
    pieces.take([{"jsonPath": "$.a.b[1]", "boolValue": False}, {"jsonPath": "$['k k'][\"q\"]", "nullValue": "N"}])
    pieces.take([{"jsonPath": "$.a.b[1]", "boolValue": True}])
    pieces.take([{"jsonPath": "$.a.b[999999]", "numberValue": 1}, {"jsonPath": "$.n.deeper", "numberValue": 1}])
    pieces.take([{"jsonPath": "no path", "numberValue": 1}, {"jsonPath": "$" + ".a" * 65, "numberValue": 1}])
    pieces.take([{"jsonPath": "$", "stringValue": "x"}, {"jsonPath": "$.z"}, {"stringValue": "x"}, 5])
    pieces.take("nothing")
    pieces.take([{"jsonPath": "$.open", "stringValue": "en", "willContinue": True}])
    want = {"a": {"b": [{"c": "xy"}, True]}, "n": 1.5, "k k": {"q": None}, "open": "en"}
    assert pieces.object() == want


def test_a_call_in_pieces_without_its_end() -> None:
    """What comes next, or the end of the stream, ends it."""
    begun = {"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": SIGNATURE}
    piece = {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}}
    chunks = [Message().chunk((one,), last=False) for one in (begun, piece)]
    told = [one for one in answer(*chunks) if isinstance(one, (CallStarted, CallDelta))]
    assert told[1] == CallDelta(0, '{"a":"x"}')
    ended = answer(*chunks, Message().chunk((), last=True))
    assert [one for one in ended if isinstance(one, (CallStarted, CallDelta))] == told
    spoken = answer(*chunks, Message().chunk(({"text": "So"},)))
    kinds = [type(one) for one in spoken if isinstance(one, (CallStarted, TextDelta))]
    assert kinds == [CallStarted, TextDelta]


def test_signatures_in_answers() -> None:
    """On text it is a payload behind the text, on a thought the thought's own; ids carry it to other formats alone."""
    signed = {"text": "Hm.", "thought": True, "thoughtSignature": "QUFB"}
    told = answer(Message().chunk((signed, {"text": "a", "thoughtSignature": SIGNATURE})))
    sealed = [one for one in told if isinstance(one, ReasoningSealed)]
    assert [(one.signature, one.data) for one in sealed] == [("QUFB", None), (None, SIGNATURE)]
    assert sealed[0].block != sealed[1].block
    call = {"functionCall": {"id": "x", "name": "f"}, "thoughtSignature": SIGNATURE}
    own = fake.events("whole", Message(parts=(call,)).whole(), "GG")
    assert next(one for one in own if isinstance(one, CallStarted)).id == "x"


@pytest.mark.parametrize(
    "report",
    [
        None,
        [],
        {},
        {"trafficType": "ON_DEMAND"},
        {"promptTokenCount": -1},
        {"promptTokenCount": "12"},
        {"promptTokenCount": MOST_TOKENS, "toolUsePromptTokenCount": MOST_TOKENS},
        {"promptTokenCount": 0},
    ],
)
def test_usage_that_is_none(report: Any) -> None:
    """T-VERT-012: what counts nothing, or what cannot be, is no usage."""
    assert Meter().take(report) is None


def test_usage_parts() -> None:
    """T-CORE-010 (OC): output that no field names is thought; cached sound is not counted twice."""
    told = Meter().take(
        {
            "promptTokenCount": 100,
            "candidatesTokenCount": 10,
            "totalTokenCount": 150,
            "cachedContentTokenCount": 60,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}, {"modality": "IMAGE", "tokenCount": 20}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 30}, "x", {"modality": 5}],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 9}],
        }
    )
    assert told == Usage(prompt=100, completion=50, reasoning=40, cache_read=60, audio_in=20, image_in=20, image_out=9)


def test_citations_at_their_places() -> None:
    """T-GEMI-063 (OC): bytes become characters; words decide where offsets are of another part."""
    chunks = [{"web": {"uri": "https://a", "title": "A"}}, {"retrievedContext": {"text": "no address"}}]
    text = "Üü sunny day"

    def placed(segment: Any, indices: Any = (0,)) -> Any:
        support = {"segment": segment, "groundingChunkIndices": list(indices)}
        return citations({"groundingChunks": chunks, "groundingSupports": [support]}, None, text)

    base = {"url": "https://a", "title": "A"}
    assert placed({"startIndex": 5, "endIndex": 10}) == [{**base, "start": 3, "end": 8}]
    assert placed({"endIndex": 4, "text": "Üü"}) == [{**base, "cited_text": "Üü", "start": 0, "end": 2}]
    assert placed({"endIndex": 5, "text": "sunny"}) == [{**base, "cited_text": "sunny", "start": 3, "end": 8}]
    assert placed({"startIndex": 9}) == [base]
    assert placed({"startIndex": -5, "endIndex": 3}) == [base]
    assert placed({"endIndex": 3}, (1, 7, -1, "0")) == []
    bare = citations({"groundingChunks": chunks}, {"citations": [{"uri": "https://b"}, {}, 3]}, text)
    assert bare == [base, {"url": "https://b", "title": ""}]
    recited = citations(None, {"citations": [{"uri": "https://b", "startIndex": 5, "endIndex": 10}]}, text)
    assert recited == [{"url": "https://b", "title": "", "start": 3, "end": 8}]
    assert citations({"groundingChunks": chunks}, None, None) == [base]
    many = {"groundingChunks": [{"web": {"uri": f"https://{n}"}} for n in range(MOST * 2)]}
    assert len(citations(many, {"citations": [{"uri": "https://x"}]}, "")) == MOST


@pytest.mark.parametrize(
    ("status", "error", "want"),
    [
        (400, {"status": "INVALID_ARGUMENT", "message": "Bad."}, (400, "INVALID_ARGUMENT", "nobody")),
        (400, {"status": "FAILED_PRECONDITION", "message": "Location."}, (400, "FAILED_PRECONDITION", "nobody")),
        (403, {"status": "PERMISSION_DENIED", "message": "No."}, (502, "upstream_credentials", "key")),
        (401, {"status": "UNAUTHENTICATED", "message": "No."}, (502, "upstream_credentials", "key")),
        (429, {"status": "RESOURCE_EXHAUSTED", "message": "Quota."}, (429, "rate_limit_exceeded", "key")),
        (500, {"status": "INTERNAL", "message": "Oh."}, (502, "bad_response", "channel")),
        (504, {"status": "DEADLINE_EXCEEDED", "message": "Late."}, (504, "upstream_timeout", "channel")),
        (503, {"status": 5, "message": "Busy.", "details": "x"}, (503, "overloaded", "channel")),
    ],
)
def test_errors(status: int, error: Any, want: Any) -> None:
    """The word of the status decides, with the number and in a stream without one."""
    failure = fake.failed(status, {"error": {"code": status, **error}})
    assert (failure.status, failure.code, failure.blames) == want
    assert failure.upstream_status == status
    inband = answer({"error": {"code": status, **error}})
    assert isinstance(inband[0], Failed)
    assert (inband[0].failure.status, inband[0].failure.code) == want[:2]


def test_pages_are_no_errors_of_the_api() -> None:
    """T-CORE-018 (OC): a page in between is the channel's fault, its words are for the log."""
    failure = DIALECT.failure(502, {"content-type": "text/html"}, b"<html>Bad gateway</html>")
    assert (failure.status, failure.code) == (502, "bad_response")
    assert "gateway" not in failure.message


def test_messages_hold_no_secrets() -> None:
    """A key or an address in upstream's words is masked, in the finish message too."""
    words = "Key AIzaSyA1234567890abcdefghijklmn at https://generativelanguage.googleapis.com/v1beta"
    failure = fake.failed(400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": words}})
    (failed,) = (one for one in answer(_ended("OTHER", words)) if isinstance(one, Failed))
    for message in (failure.message, failed.failure.message):
        assert "AIza" not in message
        assert "googleapis" not in message


def _ended(reason: str, words: str) -> Any:
    return Message(finish=reason, bare=True, more={"finishMessage": words}).chunk(())


@pytest.mark.parametrize("raw", [b"", b"nothing", b"5", b"[]", b"{}", b'{"candidates":[]}', b'{"usageMetadata":{}}'])
def test_answers_that_are_none(raw: bytes) -> None:
    """A whole answer without a candidate is a failure."""
    events = fake.events("whole", raw)
    assert isinstance(events[-1], Failed)
    assert events[-1].failure.code == "bad_response"


def test_answers_as_an_array() -> None:
    """T-VERT-006: chunks in one array are one answer."""
    chunks = [Message().chunk(({"text": "a"},), last=False), Message().chunk(({"text": "b"},))]
    folded = fold(fake.events("whole", orjson.dumps(chunks)))
    assert folded.choices[0].text == "ab"
    assert fold(answer(chunks)).choices[0].text == "ab"


def test_frames_that_are_none() -> None:
    """Broken text is told as skipped, comments and blanks are not."""
    assert fake.events("streamed", b": hello\n\ndata:\n\ndata: [DONE]\n\n") == []
    assert isinstance(fake.events("streamed", b"data: {broken\n\n")[0], Skipped)
    assert isinstance(fake.events("streamed", b"data: [1]\n\n")[0], Skipped)


def test_deep_arguments() -> None:
    """Arguments that no writer could nest so deep are an empty object, not a fault of ours."""
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    raw = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":' + deep + b"}}]}}]}"
    told = fake.events("whole", raw)
    assert CallDelta(0, "{}") in told


FULL: Any = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True, "thoughtSignature": "QUFB"},
                    {"text": "Hello", "thoughtSignature": SIGNATURE},
                    {"functionCall": {"id": "x", "name": "f", "args": {"a": [1, None]}}},
                    {"functionCall": {"name": "g", "willContinue": True}},
                    {"functionCall": {"partialArgs": [{"jsonPath": "$.a[0]", "stringValue": "x"}]}},
                    {"executableCode": {"code": "1", "language": "PYTHON"}},
                    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
                    {"toolCall": {"id": "t"}},
                ],
            },
            "index": 0,
            "finishReason": "STOP",
            "finishMessage": "Done.",
            "groundingMetadata": {
                "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
                "groundingSupports": [
                    {"segment": {"startIndex": 1, "endIndex": 3, "text": "el"}, "groundingChunkIndices": [0]}
                ],
            },
            "citationMetadata": {"citations": [{"uri": "https://b", "startIndex": 0, "endIndex": 2}]},
            "logprobsResult": {
                "chosenCandidates": [{"token": "a", "logProbability": -1}],
                "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2}]}],
            },
        }
    ],
    "promptFeedback": {"blockReason": "OTHER"},
    "usageMetadata": {
        "promptTokenCount": 5,
        "candidatesTokenCount": 5,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}],
    },
    "modelVersion": "m",
    "responseId": "r",
    "createTime": "2026-05-04T20:01:02Z",
    "error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "1s"}]},
}
JUNK: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", "\u0000", [], {}, [[]], {"a": {}}, [None], ["x"], [{}]]


def mutated(value: Any, dice: random.Random) -> Any:
    """A copy in which some things have been replaced or left out."""
    if dice.random() < 0.04:
        return copy.deepcopy(dice.choice(JUNK))
    if isinstance(value, dict):
        return {name: mutated(inner, dice) for name, inner in value.items() if dice.random() > 0.03}
    if isinstance(value, list):
        return [mutated(inner, dice) for inner in value for _ in range(dice.choice((1, 1, 1, 2)))]
    return value


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_events_or_a_failure(seed: int) -> None:
    """Mutated upstream bytes end in events, words for the client or a declared error, nothing else."""
    dice = random.Random(seed)
    letters = ("OC", "AM", "GG", "OR")
    for turn in range(60):
        node = {name: value for name, value in FULL.items() if name != "error" or dice.random() < 0.2}
        if dice.random() < 0.9:
            node.pop("promptFeedback", None)
        raw = _dumped(mutated(node, dice))
        data = b"data: " + raw + b"\n\n"
        if dice.random() < 0.2:
            at = dice.randrange(len(data))
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
        letter = letters[turn % len(letters)]
        assert isinstance(fake.streamed(letter, "streamed", data * 2), bytes)
        ask = fake.ask("OC", "whole", schema={"type": "object"}, tools=[FUNCTION])
        for body_ in (raw, b"[" + raw + b"," + raw + b"]"):
            events = DIALECT.answer(ask, Document(body_))
            assert isinstance(events[-1], (Finished, Failed, Metered)) or events
            assert isinstance(CHAT.answer(ask, FACE, events, Usage()), bytes)
        status = dice.choice([400, 401, 404, 429, 500])
        assert isinstance(DIALECT.failure(status, {}, raw), ProxyError)


def _dumped(value: Any) -> bytes:
    """JSON of numbers that are too large for one encoder too."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def test_a_model_that_names_a_tool_a_thousand_times() -> None:
    """Calls and choices are bounded."""
    parts = tuple({"functionCall": {"name": "f"}} for _ in range(1500))
    folded = fold(answer(Message().chunk(parts)))
    assert len(folded.choices[0].calls) == 1024
    candidates = [{"content": {"parts": [{"text": "a"}]}} for _ in range(300)]
    assert len(fold(answer({"candidates": candidates})).choices) == 128


def test_upstream_failures_are_declared() -> None:
    """A broken answer's failure says what upstream said and blames nobody."""
    (failed,) = (one for one in answer(_ended("MALFORMED_FUNCTION_CALL", "f(")) if isinstance(one, Failed))
    assert isinstance(failed.failure, UpstreamFailure)
    assert failed.failure.message.endswith("(MALFORMED_FUNCTION_CALL): f(")
    assert failed.failure.upstream_status == 0


def test_a_picture_beside_words() -> None:
    """T-GEMI-009 (OC): a picture's place among the words stays."""
    one = sent("OC", (("user", "a", Image(), "b"),))
    assert [next(iter(part)) for part in one.parts] == ["text", "inlineData", "text"]


def told_by(chunks: list[dict[str, Any]]) -> list[Event]:
    """The events of a stream for a client of another format."""
    reader, decoder = DIALECT.reader(fake.ask("OC")), DIALECT.frames()
    data = b"".join(b"data: " + orjson.dumps(one) + b"\r\n\r\n" for one in chunks)
    return [*(one for frame in decoder.feed(data) for one in reader.read(frame)), *reader.close()]


def test_common_chunks_are_told_as_any_other() -> None:
    """Chunks of plain text are read in a quicker way; one unknown field more and they are not: the events are equal."""
    details = [[{"modality": "TEXT", "tokenCount": 5}, {"modality": "AUDIO", "tokenCount": 3}], [{"modality": "IMAGE"}]]
    usages: list[Any] = [
        {"promptTokenCount": 8, "totalTokenCount": 8},
        {"promptTokenCount": 8, "candidatesTokenCount": 2, "totalTokenCount": 10},
        {"candidatesTokenCount": 3},
        {"promptTokenCount": 9, "thoughtsTokenCount": 4, "promptTokensDetails": details[0]},
        {"promptTokenCount": 9, "promptTokensDetails": details[1], "trafficType": "ON_DEMAND"},
        {"promptTokenCount": -1},
        {"promptTokenCount": 9.0},
        {},
        None,
    ]
    chunks: list[dict[str, Any]] = []
    for number, usage in enumerate(usages):
        candidate: dict[str, Any] = {"content": {"parts": [{"text": f"{number} ü🌍\n"}], "role": "model"}}
        if number % 2:
            candidate["index"] = 0
        chunks.append({"candidates": [candidate], "usageMetadata": usage, "responseId": "r"})
    chunks.insert(3, {"candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}}]})
    chunks.append({"candidates": [{"content": {"parts": [{"text": "."}]}, "finishReason": "MAX_TOKENS"}]})
    assert told_by(chunks) == told_by([{**one, "x": 1} for one in chunks])
    assert any(isinstance(one, Metered) and one.usage.audio_in == 3 for one in told_by(chunks))
