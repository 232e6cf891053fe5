"""The rows of Bedrock, each in every format that clients speak: what goes up, what comes back, what it costs.

`AM` by InvokeModel is Claude's own format: its body goes up as it came but for AWS's envelope.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import speaks
from newapi_proxy.adapters.bedrock import ADAPTER
from newapi_proxy.errors import ClientError, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.wire.tree import Document
from tests.fakes import anthropic, bedrock, inbound, matrix_grammar
from tests.fakes.bedrock import (
    ADAPTIVE,
    CLAUDE,
    GPT,
    LLAMA,
    MISTRAL,
    MODES,
    NOVA,
    NOVA2,
    OPUS,
    QWEN,
    TITAN,
    WAYS,
    Message,
    sent,
    told,
)
from tests.fakes.inbound import FUNCTION, HI, PDF, PNG, Call, File, Film, Picture, Result, Sound, across
from tests.fakes.matrix_grammar import FINISHES
from tests.test_sigv4 import verified

MODE = pytest.mark.parametrize("mode", MODES)
WAY = pytest.mark.parametrize("way", WAYS)
HOST: Final = "https://bedrock-runtime.us-east-1.amazonaws.com"
PROFILE: Final = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
BEARER: Final = "ABSKbearer|eu-west-1"
TOOLS: Final = [FUNCTION]
CALL: Final = Call("call_1", "f", '{"a":1}')
CALLED: Final = (("user", "Go"), ("assistant", CALL))
USE: Final = {"toolUse": {"toolUseId": "tooluse_1", "name": "f", "input": {"a": 1}}}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}


def text(words: str) -> dict[str, str]:
    """A text block."""
    return {"text": words}


def refused(letter: str, turns: Any, code: str = "unsupported_content", **wishes: Any) -> str:
    """The path that the refusal names."""
    with pytest.raises(ClientError) as caught:
        sent(letter, turns, **wishes)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.param
    return caught.value.param


# Keys and addresses.


@WAY
@across("OC", "OR", "AM", "GG")
def test_signature(letter: str, way: str) -> None:
    """T-BEDR-001: the model id is encoded in the address and once more in what is signed."""
    one = sent(letter, way=way)
    path = f"/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/{way}"
    assert one.outgoing.url == HOST + path
    headers = one.headers()
    assert headers["x-amz-date"] == "20150830T123600Z"
    asked = {"content-type": "application/json"}
    assert headers["authorization"] == verified(HOST + path, asked, orjson.dumps(one.body))


@WAY
@across("OC", "OR", "AM", "GG")
def test_bearer(letter: str, way: str) -> None:
    """T-BEDR-002: a key that is none of AWS's pairs is sent as it is, unsigned, to its region."""
    one = sent(letter, way=way, key=BEARER, stream=True)
    assert one.outgoing.sign is None
    assert one.outgoing.headers["authorization"] == "Bearer ABSKbearer"
    assert not any(name.startswith("x-amz-") for name in one.outgoing.headers)
    assert one.outgoing.url.startswith("https://bedrock-runtime.eu-west-1.amazonaws.com/model/us.anthropic.")
    assert one.outgoing.url.endswith("converse-stream" if way == "converse" else "invoke-with-response-stream")


@WAY
@across("OC", "OR", "AM", "GG")
def test_profile(letter: str, way: str) -> None:
    """T-BEDR-003: the whole address of a profile is one segment of the path."""
    one = sent(letter, way=way, upstream=PROFILE)
    segment = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123"
    assert one.outgoing.url == f"{HOST}/model/{segment}/{way}"


# Claude by InvokeModel.


@across("OC", "OR", "AM", "GG")
def test_invoke_body(letter: str) -> None:
    """T-BEDR-004: Claude's body without model and stream, with AWS's version; the client's own one is not touched."""
    one = sent(letter, way="invoke", stream=True, tools=TOOLS, headers={"anthropic-beta": "a-1,oauth-2,b-2"})
    assert one.body["anthropic_version"] == "bedrock-2023-05-31"
    assert "model" not in one.body
    assert "stream" not in one.body
    assert one.messages[0][0] == "user"
    if letter == "AM":
        plain = {name: value for name, value in one.tree.items() if name not in ("model", "stream")}
        assert one.body == plain | {"anthropic_beta": ["a-1", "b-2"], "anthropic_version": "bedrock-2023-05-31"}


@across("OC", "OR", "AM", "GG")
def test_invoke_picture_by_address(letter: str) -> None:
    """T-BEDR-005: AWS fetches nothing, so the bytes go up in place of the address."""
    one = sent(letter, (("user", "What?", Picture("https://e.example/a.png")),), way="invoke")
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert one.blocks[1] == {"type": "image", "source": source}


def spoken(*blocks: Any, stop: str = "end_turn") -> bytes:
    """A stream of Claude's in AWS's frames."""
    return bedrock.chunks(anthropic.stream(list(blocks), stop, {"input_tokens": 12, "output_tokens": 9}))


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_invoke_stream(letter: str, mode: str) -> None:
    """T-BEDR-006: the events inside the frames are Anthropic's; AWS's own counts beside them change nothing."""
    data = spoken(anthropic.text("Grüß ", "\U0001f600"), anthropic.call("toolu_1", "f", '{"a":', "1}"), stop="tool_use")
    shown = told(letter, mode, data, "invoke", tools=TOOLS)
    assert shown.text == "Grüß \U0001f600"
    assert [(name, orjson.loads(arguments)) for _, name, arguments in shown.calls] == [("f", {"a": 1})]
    assert shown.finish == FINISHES["tool_calls"][letter]
    assert (shown.usage["prompt"], shown.usage["completion"]) == (12, 9)
    assert b"invocationMetrics" not in bedrock.streamed(letter, mode, data, "invoke")


@across("OC", "OR", "AM")
def test_invoke_system_turn(letter: str) -> None:
    """T-BEDR-007: a later system turn stays one where the model knows them."""
    turns = (("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("system", "Two."))
    one = sent(letter, turns, way="invoke", upstream=OPUS)
    role, content = one.messages[-1]
    assert (role, "Two." in str(content)) == ("system", True)


# Converse: turns.


@across("OC", "OR", "AM", "GG")
def test_converse(letter: str) -> None:
    """T-BEDR-008: system texts in a list of their own; where the model takes none, before the user's first words."""
    turns = (("system", "One."), ("user", "Hi"))
    one = sent(letter, turns)
    assert one.body["system"] == [text("One.")]
    assert one.messages == [("user", [text("Hi")])]
    assert "model" not in one.body
    assert "stream" not in one.body
    bare = sent(letter, turns, upstream=TITAN)
    assert "system" not in bare.body
    assert bare.messages == [("user", [text("One."), text("Hi")])]


@across("OC", "OR", "AM", "GG")
def test_leading_assistant(letter: str) -> None:
    """T-BEDR-009: the first message is a user's."""
    one = sent(letter, (("assistant", "Ho"), ("user", "Hi")))
    assert one.messages == [("user", [text(".")]), ("assistant", [text("Ho")]), ("user", [text("Hi")])]


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp"])
@across("OC", "OR", "AM", "GG")
def test_pictures(letter: str, kind: str) -> None:
    """T-BEDR-010: format and bytes, also of a picture that had to be fetched."""
    one = sent(letter, (("user", "What?", Picture(f"data:image/{kind};base64,{PNG}")),))
    assert one.blocks == [text("What?"), {"image": {"format": kind, "source": {"bytes": PNG}}}]
    fetched = sent(letter, (("user", "What?", Picture("https://e.example/a.png")),))
    assert fetched.blocks[1] == {"image": {"format": "png", "source": {"bytes": PNG}}}


@across("OC", "OR", "AM", "GG")
def test_bucket(letter: str) -> None:
    """T-BEDR-011: a picture in a bucket is for Nova only, and refused by its path before anything is sent."""
    turns = (("user", "What?", Picture("s3://bucket/a.png")),)
    refused(letter, turns)
    refused(letter, turns, way="invoke")
    one = sent(letter, turns, upstream=NOVA)
    assert one.blocks[1] == {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}}


@across("OC", "OR", "AM", "GG")
def test_document_names(letter: str) -> None:
    """T-BEDR-012: legal letters only, and no name twice."""
    files = (File(name="Ein  Bericht_2024.v2.pdf"), File(name="Ein Bericht/2024 v2.pdf"), File(name="ü.pdf"))
    one = sent(letter, (("user", "What?", *files, File(name="(a) [b]-c.pdf")),))
    names = [block["document"]["name"] for block in one.blocks[1:]]
    if letter == "GG":  # files have no names there
        assert names == ["document", "document 2", "document 3", "document 4"]
    else:
        assert names == ["Ein Bericht 2024 v2", "2024 v2", "document", "(a) [b]-c"]
    assert one.blocks[1]["document"]["source"] == {"bytes": PDF}
    assert {block["document"]["format"] for block in one.blocks[1:]} == {"pdf"}


@across("OC", "OR", "AM", "GG")
def test_document_alone(letter: str) -> None:
    """T-BEDR-013: beside a document there is a text."""
    one = sent(letter, (("user", File()),))
    assert [list(block) for block in one.blocks] == [["document"], ["text"]]


@across("OC", "GG")
def test_film(letter: str) -> None:
    """T-BEDR-014: refused for Claude, for Nova format and bytes."""
    turns = (("user", "What?", Film()),)
    refused(letter, turns)
    one = sent(letter, turns, upstream=NOVA)
    assert one.blocks[1] == {"video": {"format": "mp4", "source": {"bytes": Film().data}}}


@across("OC", "OR", "GG")
def test_sound(letter: str) -> None:
    """Sound is refused by its path."""
    refused(letter, (("user", "What?", Sound()),))


@across("OC", "OR", "AM", "GG")
def test_results_in_a_row(letter: str) -> None:
    """T-BEDR-015: the results of one turn's calls are one user turn, in the order of the calls."""
    calls = ("assistant", Call("call_1", "f"), Call("call_2", "f"))
    failed = letter in ("AM", "GG")
    results = (("tool", Result("call_1", "f", "one")), ("tool", Result("call_2", "f", "two", error=failed)))
    one = sent(letter, (("user", "Go"), calls, *results), tools=TOOLS)
    role, content = one.messages[-1]
    assert role == "user"
    assert [block["toolResult"]["status"] for block in content] == ["success", "error" if failed else "success"]
    assert [block["toolResult"]["toolUseId"] for block in content] == ["call_1", "call_2"]
    assert ["one" in str(content[0]), "two" in str(content[1])] == [True, True]


@pytest.mark.parametrize("model", [LLAMA, MISTRAL, CLAUDE])
@across("OC", "OR", "AM", "GG")
def test_result_and_words(letter: str, model: str) -> None:
    """T-BEDR-016: families that want results alone get the user's words in a turn of their own."""
    turns = (*CALLED, ("tool", Result("call_1", "f")), ("user", "And now?"))
    one = sent(letter, turns, upstream=model, tools=TOOLS)
    shapes = [(role, [next(iter(block)) for block in content]) for role, content in one.messages[2:]]
    if model == CLAUDE:
        assert shapes == [("user", ["toolResult", "text"])]
    else:
        assert shapes == [("user", ["toolResult"]), ("assistant", ["text"]), ("user", ["text"])]
        assert one.messages[-1][1] == [text("And now?")]


@across("OC", "OR", "AM", "GG")
def test_document_beside_a_result(letter: str) -> None:
    """T-BEDR-016: Claude takes no documents beside results either, inside them it does."""
    turns = (*CALLED, ("tool", Result("call_1", "f")), ("user", "And now?", File()))
    one = sent(letter, turns, tools=TOOLS)
    assert [role for role, _ in one.messages] == ["user", "assistant", "user", "assistant", "user"]
    if letter != "GG":
        inside = sent(letter, (*CALLED, ("tool", Result("call_1", "f", parts=(File(),)))), tools=TOOLS)
        (result,) = inside.messages[-1][1]
        assert [next(iter(block)) for block in result["toolResult"]["content"]] == ["text", "document"]


@across("OC", "OR", "AM", "GG")
def test_tools_inferred(letter: str) -> None:
    """T-BEDR-017: calls in the history want a tool list, also where the client sends none any more."""
    one = sent(letter, (*CALLED, ("tool", Result("call_1", "f"))))
    schema = {"json": {"type": "object", "properties": {}}}
    assert one.body["toolConfig"] == {"tools": [{"toolSpec": {"name": "f", "inputSchema": schema}}]}
    assert "toolConfig" not in sent(letter).body


CHOICES: Final = {
    CLAUDE: {"auto": {"auto": {}}, "required": {"any": {}}, "f": {"tool": {"name": "f"}}},
    NOVA: {"auto": {"auto": {}}, "required": {"any": {}}, "f": {"tool": {"name": "f"}}},
    MISTRAL: {"auto": {"auto": {}}, "required": {"any": {}}, "f": {"any": {}}},
    LLAMA: {"auto": None, "required": None, "f": None},
}


@pytest.mark.parametrize("choice", ["auto", "required", "f"])
@pytest.mark.parametrize("model", CHOICES)
@across("OC", "OR", "AM", "GG")
def test_choice(letter: str, model: str, choice: str) -> None:
    """T-BEDR-018: what a family cannot be told becomes its own choice, and is named as changed."""
    one = sent(letter, upstream=model, tools=TOOLS, choice=choice)
    config = one.body["toolConfig"]
    expected = CHOICES[model][choice]
    if letter == "GG" and choice == "f" and model in (CLAUDE, NOVA):
        assert config["toolChoice"] in ({"any": {}}, {"tool": {"name": "f"}})  # one allowed function, to be called
    else:
        assert config.get("toolChoice") == expected
    changed = choice != "auto" and (model == LLAMA or (model == MISTRAL and choice == "f" and letter != "GG"))
    assert ("tool_choice~" in one.outgoing.dropped) is changed or letter == "GG"
    spec = config["tools"][0]["toolSpec"]
    assert spec["name"] == "f"
    assert spec["inputSchema"] == {"json": FUNCTION["parameters"]}


@across("OC", "OR", "AM", "GG")
def test_no_choice(letter: str) -> None:
    """T-BEDR-018: no tool to be called: none is listed, or, where the history has calls, words say so."""
    assert "toolConfig" not in sent(letter, tools=TOOLS, choice="none").body
    one = sent(letter, (*CALLED, ("tool", Result("call_1", "f"))), tools=TOOLS, choice="none")
    assert "toolChoice" not in one.body["toolConfig"]
    assert one.body["system"] == [text("Do not call any tool.")]
    assert one.dropped("tool_choice~")


@across("OC", "OR", "AM", "GG")
def test_schema(letter: str) -> None:
    """T-BEDR-019: the schema as a string where the model takes one, else in words."""
    one = sent(letter, schema=SCHEMA)
    form = one.body["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    schema = orjson.loads(form["structure"]["jsonSchema"]["schema"])
    assert schema["properties"] == {"a": {"type": "integer", "description": "(minimum: 1)"}}
    assert schema["additionalProperties"] is False
    words = sent(letter, schema=SCHEMA, upstream=NOVA)
    assert "outputConfig" not in words.body
    assert "JSON Schema" in words.body["system"][-1]["text"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [(CLAUDE, {"top_k": 5}), (NOVA, {"inferenceConfig": {"topK": 5}}), (LLAMA, None), (QWEN, None)],
)
@across("OC", "AM", "GG")
def test_top_k(letter: str, model: str, expected: Any) -> None:
    """T-BEDR-020: in the model's own fields where it has one, else left out and named."""
    one = sent(letter, upstream=model, top_k=5)
    assert one.extras == (expected or {})
    assert one.dropped("top_k") is (expected is None)


@across("OC", "OR", "AM", "GG")
def test_effort(letter: str) -> None:
    """T-BEDR-021: each family is told to think in its own words; one that cannot is left alone, which is named."""
    budget = sent(letter, upstream=CLAUDE, effort="low").extras["thinking"]
    assert budget["type"] == "enabled"
    assert budget["budget_tokens"] >= 1024
    adaptive = sent(letter, upstream=ADAPTIVE, effort="high").extras
    assert (adaptive["thinking"]["type"], adaptive["output_config"]) == ("adaptive", {"effort": "high"})
    assert sent(letter, upstream=GPT, effort="medium").extras == {"reasoning_effort": "medium"}
    assert sent(letter, upstream=QWEN, effort="low").extras == {"reasoning_config": "low"}
    assert sent(letter, upstream=QWEN, effort="medium").extras == {"reasoning_config": "high"}
    nova = {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}
    assert sent(letter, upstream=NOVA2, effort="medium").extras == nova
    other = sent(letter, upstream=LLAMA, effort="low")
    assert other.extras == {}
    assert len(other.outgoing.dropped) == 1


SIGNED: Final = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2lnbmVk+/=="}}}
SEALED: Final = {"reasoningContent": {"redactedContent": base64.b64encode(b"EmwKAhgBEgy3va3pzix=").decode()}}


@across("OC", "OR", "AM", "GG")
def test_thinking_round_trip(letter: str) -> None:
    """T-BEDR-022: what Claude signed or sealed comes back to it as it was, by either way; to others it does not go."""
    answer = Message(content=(SIGNED, SEALED, text("Well."), USE), stop="tool_use")
    said = orjson.loads(bedrock.whole(letter, answer.whole(), tools=TOOLS))
    history = (("user", "Go"), inbound.reply(letter, said), ("tool", Result("tooluse_1", "f")))
    one = sent(letter, history, tools=TOOLS)
    role, content = one.messages[1]
    assert role == "assistant"
    blocks, seals = [SIGNED, SEALED], ["c2lnbmVk+/==", "EmwKAhgBEgy3va3pzix="]
    if letter == "GG":  # has no place for a sealed block
        blocks, seals = blocks[:1], seals[:1]
    assert [block for block in content if "reasoningContent" in block] == blocks
    assert content[-1]["toolUse"] == USE["toolUse"]
    direct = sent(letter, history, way="invoke", tools=TOOLS).messages[1][1]
    assert [block.get("signature") or block.get("data") for block in direct[: len(seals)]] == seals
    other = sent(letter, history, upstream=NOVA, tools=TOOLS)
    assert "reasoningContent" not in str(other.body)
    assert other.outgoing.dropped


@MODE
@across("OC", "OR", "AM", "GG")
def test_thinking_told(letter: str, mode: str) -> None:
    """T-BEDR-022: thinking is told with its signature, before the text."""
    shown = told(letter, mode, Message(content=(SIGNED, text("Well."))))
    assert shown.text == "Well."
    assert shown.thoughts == "Hm."
    assert shown.signed
    assert letter == "GG" or any("c2lnbmVk+/==" in one for one in shown.signed)


def marked(letter: str, words: str, ttl: str | None = None) -> dict[str, Any]:
    """A text with a cache mark."""
    kind = {"OC": "text", "OR": "input_text", "AM": "text"}[letter]
    return {"type": kind, "text": words, "cache_control": {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})}


def turned(letter: str, content: list[Any]) -> Any:
    """A user turn of these blocks, in the format's own words."""
    kind = {"type": "message"} if letter == "OR" else {}
    return inbound.Native(({**kind, "role": "user", "content": content},))


@across("OC", "OR", "AM")
def test_cache_points(letter: str) -> None:
    """T-BEDR-023: a point behind the marked block, where one may stand, at most four, on models that have them."""
    point = {"cachePoint": {"type": "default"}}
    one = sent(letter, (turned(letter, [marked(letter, "One"), marked(letter, "Two", "1h")]),))
    long = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert one.blocks == [text("One"), point, text("Two"), long]
    many = sent(letter, (turned(letter, [marked(letter, str(number)) for number in range(6)]),))
    assert many.blocks == [text("0"), text("1"), *(two for word in "2345" for two in (text(word), point))]
    old = sent(letter, (turned(letter, [marked(letter, "One")]),), upstream=LLAMA)
    assert old.blocks == [text("One")]
    assert old.dropped("cache_control")


def test_cache_point_behind_a_document() -> None:
    """T-BEDR-023 (AM): none may follow a document: it moves behind the next block, or behind one that is added."""
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    document = {"type": "document", "source": source, "cache_control": {"type": "ephemeral"}}
    first = sent("AM", (turned("AM", [document, {"type": "text", "text": "What?"}]),)).blocks
    assert [next(iter(block)) for block in first] == ["document", "text", "cachePoint"]
    last = sent("AM", (turned("AM", [{"type": "text", "text": "What?"}, document]),)).blocks
    assert [next(iter(block)) for block in last] == ["text", "document", "text", "cachePoint"]


# Usage.

CACHED: Final = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 145,
    "cacheReadInputTokens": 100,
    "cacheReadInputTokenCount": 100,
    "cacheWriteInputTokens": 30,
    "cacheWriteInputTokenCount": 30,
    "serverToolUsage": {},
}


@MODE
@across("OC", "OR", "AM", "GG")
def test_cached_usage(letter: str, mode: str) -> None:
    """T-BEDR-024: all input is what was read, written and neither; the doubled names are read once."""
    message = Message(usage=CACHED)
    used = bedrock.usage(mode, message)
    assert (used.prompt, used.completion, used.cache_read, used.cache_write) == (140, 5, 100, 30)
    assert used.prompt == CACHED["totalTokens"] - used.completion
    shown = told(letter, mode, message)
    assert (shown.usage["prompt"], shown.usage["completion"], shown.usage["cached"]) == (140, 5, 100)


@MODE
@across("OC", "OR", "AM")
def test_cache_lives(letter: str, mode: str) -> None:
    """T-BEDR-025: what was written for an hour is told apart from what was written for five minutes."""
    details = [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}]
    message = Message(usage={**CACHED, "cacheDetails": details})
    used = bedrock.usage(mode, message)
    assert (used.cache_write, used.cache_write_1h, used.prompt) == (10, 20, 140)
    assert told(letter, mode, message).usage["prompt"] == 140


# Answers.

STOPS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_overflow",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "stop",
    "malformed_tool_use": "stop",
}


@MODE
@pytest.mark.parametrize("stop", STOPS)
@across("OC", "OR", "AM", "GG")
def test_stop_reasons(letter: str, stop: str, mode: str) -> None:
    """T-BEDR-026: nine words for the end."""
    content = (text("Hello"), USE) if stop == "tool_use" else (text("Hello"),)
    shown = told(letter, mode, Message(content=content, stop=stop), tools=TOOLS)
    assert shown.error is None
    assert shown.text == "Hello"
    assert shown.finish == FINISHES[STOPS[stop]][letter]


@MODE
@pytest.mark.parametrize("stop", ["malformed_model_output", "malformed_tool_use"])
@across("OC", "OR", "AM", "GG")
def test_malformed_and_silent(letter: str, stop: str, mode: str) -> None:
    """T-BEDR-026: an answer that failed before it said anything is a failure."""
    assert told(letter, mode, Message(content=(), stop=stop)).error is not None


@MODE
@across("OC", "OR", "AM", "GG")
def test_guardrail(letter: str, mode: str) -> None:
    """T-BEDR-027: the words that stand in for the answer are told, and that it was filtered."""
    trace = {"trace": {"guardrail": {"actionReason": "masked"}}}
    shown = told(letter, mode, Message(content=(text("I may not."),), stop="guardrail_intervened", extra=trace))
    assert shown.text == "I may not."
    assert shown.finish == FINISHES["content_filter"][letter]


SEARCH: Final = {"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "input": {"q": 1}, "type": "server_tool_use"}}
FOUND: Final = {"toolResult": {"toolUseId": "s1", "content": [{"text": "[HIDDEN]"}], "status": "success"}}


@MODE
@across("OC", "OR", "AM", "GG")
def test_server_tool(letter: str, mode: str) -> None:
    """T-BEDR-028: what a tool of AWS's own was asked and said is no call of the client's, and no text."""
    web = {"location": {"web": {"url": "https://e.example/a", "domain": "e.example"}}}
    cited = {"citationsContent": {"citations": [web]}}
    shown = told(letter, mode, Message(content=(SEARCH, FOUND, text("It is 4."), cited, text("."))))
    assert shown.calls == []
    assert shown.text == "It is 4.."
    assert shown.finish == FINISHES["stop"][letter]


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_text_never_opened(letter: str, mode: str) -> None:
    """T-BEDR-029: text and thinking begin with their first piece."""
    shown = told(
        letter, mode, Message(content=(SIGNED, text("Hello"), text(" you"), USE), stop="tool_use"), tools=TOOLS
    )
    assert (shown.thoughts, shown.text) == ("Hm.", "Hello you")
    assert [(name, orjson.loads(arguments)) for _, name, arguments in shown.calls] == [("f", {"a": 1})]


def streamed(*events: tuple[str, Any]) -> bytes:
    """A stream of these events."""
    return b"".join(bedrock.event(name, value) for name, value in events)


START: Final = ("messageStart", {"role": "assistant"})
HELLO: Final = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}})
EMPTY: Final = ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": ""}})
CLOSED: Final = ("contentBlockStop", {"contentBlockIndex": 0})
STOP: Final = ("messageStop", {"stopReason": "end_turn"})
METERED: Final = ("metadata", {"usage": bedrock.USAGE})


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_stop_of_nothing(letter: str, mode: str) -> None:
    """T-BEDR-030: the end of a block that never began says nothing."""
    nothing = ("contentBlockStop", {"contentBlockIndex": 7})
    shown = told(letter, mode, streamed(START, nothing, HELLO, CLOSED, CLOSED, nothing, STOP, METERED))
    assert (shown.text, shown.calls, shown.error) == ("Hello", [], None)


@pytest.mark.parametrize("mode", MODES[1:])
@across("OC", "OR", "AM", "GG")
def test_empty_delta(letter: str, mode: str) -> None:
    """T-BEDR-031: a piece without text is no piece for the client."""
    plain = bedrock.streamed(letter, mode, streamed(START, HELLO, CLOSED, STOP, METERED))
    assert bedrock.streamed(letter, mode, streamed(START, EMPTY, HELLO, EMPTY, CLOSED, STOP, METERED)) == plain


@across("OC", "OR", "AM", "GG")
def test_usage_after_the_end(letter: str) -> None:
    """T-BEDR-032: the end waits for the usage behind it, or for the stream's end; some hosts send usage first."""
    one = bedrock.dialect(letter)
    decoder, reader = one.frames(), one.reader(bedrock.ask(letter, "streamed"))
    heard = [
        [type(event).__name__ for frame in decoder.feed(streamed(part)) for event in reader.read(frame)]
        for part in (START, HELLO, STOP, METERED)
    ]
    assert heard == [["Started"], ["TextDelta"], [], ["Finished", "Metered", "Ended"]]
    late = told(letter, "streamed", streamed(START, HELLO, STOP, METERED))
    assert told(letter, "streamed", streamed(START, HELLO, METERED, STOP)) == late
    silent = told(letter, "streamed", streamed(START, HELLO, STOP))
    assert (silent.text, silent.finish, silent.error) == (late.text, late.finish, None)


def begun(way: str) -> bytes:
    """The beginning of an answer."""
    if way == "converse":
        return streamed(START, HELLO)
    whole = anthropic.stream([anthropic.text("Hello")], "end_turn", {"input_tokens": 12, "output_tokens": 9})
    events = [value for _, value in matrix_grammar.frames(whole)]
    return b"".join(
        bedrock.chunk(value) for value in events[: 1 + [one.get("delta") is None for one in events].index(False)]
    )


@pytest.mark.parametrize("mode", MODES[1:])
@WAY
@across("OC", "OR", "AM", "GG")
def test_broken_sum(letter: str, way: str, mode: str) -> None:
    """T-BEDR-033: damage ends the stream with an error, behind what was told before it; the channel is to blame."""
    bad = bytearray(streamed(CLOSED))
    bad[-1] ^= 1
    data = begun(way) + bytes(bad) + streamed(STOP, METERED)
    shown = told(letter, mode, data, way)
    assert shown.error is not None
    assert "Hello" in bedrock.streamed(letter, mode, data, way).decode()
    (failure,) = [event.failure for event in bedrock.events(data, way, letter) if hasattr(event, "failure")][:1]
    assert isinstance(failure, UpstreamFailure)
    assert (failure.status, failure.kind, failure.blames) == (502, "upstream", "channel")


EXCEPTIONS: Final = {
    "throttlingException": (429, "rate_limit"),
    "modelStreamErrorException": (502, "upstream"),
    "internalServerException": (502, "upstream"),
    "validationException": (400, "bad_request"),
    "serviceUnavailableException": (503, "overloaded"),
    "modelTimeoutException": (504, "timeout"),
    "somethingNewException": (502, "upstream"),
}


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("name", EXCEPTIONS)
@WAY
@across("OC", "OR", "AM", "GG")
def test_exceptions(letter: str, way: str, name: str, mode: str) -> None:
    """T-BEDR-034: a failure inside the stream is told in the client's format, by its kind."""
    data = begun(way) + bedrock.exception(name, "it went wrong") + streamed(STOP)
    (failure,) = [event.failure for event in bedrock.events(data, way, letter) if hasattr(event, "failure")][:1]
    assert (failure.status, failure.kind) == EXCEPTIONS[name]
    shown = told(letter, mode, data, way)
    assert shown.error is not None
    assert "it went wrong" in str(shown.error)


ERRORS: Final = {
    "T-BEDR-035 (OC, OR, AM, GG)": (400, "ValidationException", "No such field.", 400, "bad_request"),
    "T-BEDR-036 (OC, OR, AM, GG)": (429, "ThrottlingException", "Too many requests.", 429, "rate_limit"),
    "model not ready": (429, "ModelNotReadyException", "Wait.", 429, "rate_limit"),
    "quota": (400, "ServiceQuotaExceededException:http://internal", "Too much.", 429, "rate_limit"),
    "T-BEDR-037 (OC, OR, AM, GG)": (400, "", "The provided model identifier is invalid.", 404, "not_found"),
    "unknown resource": (404, "ResourceNotFoundException", "No such model.", 404, "not_found"),
    "no access": (403, "AccessDeniedException", "No access.", 502, "upstream_auth"),
    "bad key": (403, "UnrecognizedClientException:http://internal/coral/", "Invalid token.", 502, "upstream_auth"),
    "old key": (400, "com.amazon.coral#ExpiredTokenException", "Expired.", 502, "upstream_auth"),
    "model's time": (408, "ModelTimeoutException", "Late.", 504, "timeout"),
    "model's error": (424, "ModelErrorException", "Broken.", 502, "upstream"),
    "server's error": (500, "InternalServerException", "Broken.", 502, "upstream"),
    "unavailable": (503, "ServiceUnavailableException", "Later.", 503, "overloaded"),
}


@WAY
@pytest.mark.parametrize("case", ERRORS)
@across("OC", "OR", "AM", "GG")
def test_errors(letter: str, case: str, way: str) -> None:
    """T-BEDR-035 to 037: the exception's name decides, the message is kept, the body is the client's own format."""
    status, kind, words, expected, meaning = ERRORS[case]
    failure = bedrock.failed(status, kind, words, way)
    assert (failure.status, failure.kind, failure.upstream_status) == (expected, meaning, status)
    shown = matrix_grammar.whole(letter, inbound.surface(letter).failure(failure, "req-1"))
    assert shown.error is not None
    assert words in str(shown.error)
    if case.startswith("T-BEDR-037"):
        assert failure.code == "model_not_found"


# Beside Converse and InvokeModel.


@across("OC", "OR", "AM", "GG")
def test_mantle(letter: str) -> None:
    """T-BEDR-038: the host that speaks OpenAI's format is a channel of that type."""
    openai = ADAPTERS["openai"]
    given = inbound.read(letter, inbound.body(letter))
    one = speaks(openai, given.dialect, "openai.gpt-oss-120b")
    assert one is not None
    to = bedrock.Target(
        channel="c",
        base_url="https://bedrock-mantle.us-east-1.api.aws/v1",
        key=bedrock.Secret("k"),
        model="openai.gpt-oss-120b",
        options=openai.options(),
    )
    outgoing = one.request(given, to)
    assert outgoing.url.startswith("https://bedrock-mantle.us-east-1.api.aws/v1/")
    assert outgoing.headers["authorization"] == "Bearer k"


def counted(letter: str, way: str, model: str = CLAUDE) -> tuple[str, dict[str, Any]]:
    """Address and body of a count."""
    assert ADAPTER.counting is not None
    tree = inbound.body(letter, (("system", "One."), ("user", "Hi")), tools=TOOLS)
    tree.pop("max_tokens", None)
    given = inbound.read(letter, {**tree, "max_tokens": 1} if letter == "AM" else tree)
    outgoing = ADAPTER.counting.request(given, bedrock.target(model, bedrock_api=way))
    assert outgoing.sign is not None
    assert isinstance(outgoing.body, dict)
    return outgoing.url, outgoing.body["input"]


@across("AM", "GG")
def test_counting(letter: str) -> None:
    """T-BEDR-039: the model counts, not its profile, by the way that the channel calls it."""
    assert ADAPTER.counting is not None
    url, body = counted(letter, "converse")
    assert url == f"{HOST}/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    assert set(body["converse"]) == {"messages", "system", "toolConfig"}
    _, body = counted(letter, "invoke")
    inner = orjson.loads(base64.b64decode(body["invokeModel"]["body"]))
    assert inner["anthropic_version"] == "bedrock-2023-05-31"
    assert inner["max_tokens"] == 1 if letter == "AM" else inner["max_tokens"] >= 1
    assert "converse" in counted(letter, "invoke", NOVA)[1]
    assert ADAPTER.counting.tokens(b'{"inputTokens":14}') == 14
    for odd in (b"[]", b"", b'{"inputTokens":-1}', b'{"inputTokens":"4"}'):
        assert ADAPTER.counting.tokens(odd) is None


def test_by_bytes() -> None:
    """T-BEDR-005, 010, 011, 014 (OC): fetched is what the model takes and no bucket holds."""
    assert ADAPTER.by_bytes is not None

    def wanted(kind: Any, url: str, model: str) -> bool:
        assert ADAPTER.by_bytes is not None
        return ADAPTER.by_bytes(Media(kind=kind, url=url), model)

    assert wanted("image", "https://e.example/a.png", CLAUDE)
    assert wanted("file", "https://e.example/a.pdf", LLAMA)
    assert wanted("video", "https://e.example/a.mp4", NOVA)
    assert not wanted("video", "https://e.example/a.mp4", CLAUDE)
    assert not wanted("audio", "https://e.example/a.wav", NOVA)
    assert not wanted("image", "s3://bucket/a.png", NOVA)


def test_whole_answers_are_read_once() -> None:
    """The document's tree is shared and stays as it came."""
    data = Message(content=(SIGNED, text("Well."), USE), stop="tool_use").whole()
    document = Document(data)
    given: Ask = bedrock.ask("OC")
    bedrock.dialect("OC").answer(given, document)
    assert document.tree == orjson.loads(data)
    assert HI
