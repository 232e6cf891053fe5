"""The official SDKs, unmodified, against the daemon: both of them over both kinds of provider.

The provider says the same thing in its own dialect, so what an SDK hands to its user may not depend on the crossing.
"""

from __future__ import annotations

import base64
from typing import Any

import anthropic
import openai
import orjson
import pytest
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel

from tests.daemon.running import Stage
from tests.fakes.scripted import Say

CONFIG = """\
database: sqlite:///newapi.db
relay: {max_attempts: 1}
prices: {"*": {input: 1, output: 2}}
channels:
  - {name: echo, type: echo, models: [echo]}
  - {name: o, type: openai, base_url: "@UPSTREAM@", key: sk-provider-o, models: [gpt-4o], auto_disable: false}
  - {name: a, type: anthropic, base_url: "@UPSTREAM@", key: sk-provider-a, models: [claude-sonnet-4-5-mine],
     auto_disable: false}
  - {name: closed, type: echo, models: [secret-model]}
tokens:
  - {name: demo, key: sk-demo, models: [echo, gpt-4o, claude-*, nobody]}
"""
OVER_OPENAI, OVER_ANTHROPIC = "gpt-4o", "claude-sonnet-4-5-mine"
BOTH = pytest.mark.parametrize("model", [OVER_OPENAI, OVER_ANTHROPIC])
WARM = {"temperature": 0.5}  # sampling settings are no arguments of the newest SDK any more
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n pixels").decode()
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = (("call_1", "weather", {"city": "Łódź"}), ("call_2", "weather", {"city": "Oslo"}))


class City(BaseModel):
    """A structured answer."""

    name: str
    people: int


def asked(stage: Stage, model: str) -> dict[str, Any]:
    """The body of the one call that the provider got; its path and key are what they must be."""
    assert len(stage.upstream.calls) == 1
    return heard(stage, model)


def heard(stage: Stage, model: str) -> dict[str, Any]:
    """The body of the provider's latest call; its path and key are what they must be."""
    seen = stage.upstream.last
    assert seen.body["model"] == model
    assert "sk-demo" not in str(seen)
    if model == OVER_OPENAI:
        assert (seen.path, seen.headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-provider-o")
    else:
        assert seen.path == "/v1/messages"
        assert (seen.headers["x-api-key"], "authorization" in seen.headers) == ("sk-provider-a", False)
        assert seen.headers["anthropic-version"] >= "2023-06-01"  # the client's own, if it is one of this format
    return seen.body


def openai_said(chat: OpenAI, stream: bool, **fields: Any) -> Any:
    """The completion, whole or accumulated by the SDK from the stream."""
    if not stream:
        return chat.chat.completions.create(**fields)
    with chat.chat.completions.stream(**fields, stream_options={"include_usage": True}) as events:
        return events.get_final_completion()


def anthropic_said(claude: Anthropic, stream: bool, **fields: Any) -> Any:
    """The message, whole or accumulated by the SDK from the stream."""
    if not stream:
        return claude.messages.create(max_tokens=64, **fields)
    with claude.messages.stream(max_tokens=64, **fields) as events:
        return events.get_final_message()


def tree_of(value: BaseModel) -> Any:
    """What an SDK's object is sent back as."""
    return value.model_dump(mode="json", exclude_none=True)


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_openai_text(stage: Stage, chat: OpenAI, model: str, stream: bool) -> None:
    """Text, finish, usage and the system prompt, whole and streamed."""
    stage.upstream.says(Say(text="Grüße, 世界 🌍!", prompt=21, completion=7, cached=8))
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    done = openai_said(chat, stream, model=model, messages=messages, max_tokens=50, temperature=0.5)
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("Grüße, 世界 🌍!", "stop")
    assert (done.model, done.object, done.choices[0].message.role) == (model, "chat.completion", "assistant")
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (21, 7, 28)
    assert done.usage.prompt_tokens_details.cached_tokens == 8
    body = asked(stage, model)
    assert (body["temperature"], body.get("stream", False)) == (0.5, stream)
    if model == OVER_OPENAI:
        assert body["messages"] == messages
    else:
        assert body["system"] == [{"type": "text", "text": "Be kind."}]
        assert [one["role"] for one in body["messages"]] == ["user"]
        assert body["max_tokens"] == 50


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_text(stage: Stage, claude: Anthropic, model: str, stream: bool) -> None:
    """Text, stop reason, usage and the system prompt, whole and streamed."""
    stage.upstream.says(Say(text="Grüße, 世界 🌍!", prompt=21, completion=7, cached=8))
    messages = [{"role": "user", "content": "Hello"}]
    done = anthropic_said(claude, stream, model=model, messages=messages, system="Be kind.", extra_body=WARM)
    assert [(block.type, block.text) for block in done.content] == [("text", "Grüße, 世界 🌍!")]
    assert (done.model, done.type, done.role, done.stop_reason) == (model, "message", "assistant", "end_turn")
    usage = done.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (13, 8, 7)
    body = asked(stage, model)
    assert (body["max_tokens"], body["temperature"], body.get("stream", False)) == (64, 0.5, stream)
    if model == OVER_ANTHROPIC:
        assert (body["system"], body["messages"]) == ("Be kind.", messages)
    else:
        assert body["messages"] == [{"role": "system", "content": "Be kind."}, *messages]
        assert not stream or body["stream_options"] == {"include_usage": True}


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_openai_tools(stage: Stage, chat: OpenAI, model: str, stream: bool) -> None:
    """Two calls at once, then their results in a second turn."""
    stage.upstream.says(Say(text="Let me see.", calls=CALLS), Say(text="Rain and snow."))
    function = {"name": "weather", "description": "Tells it", "parameters": WEATHER, "strict": True}
    given: dict[str, Any] = {"model": model, "tools": [{"type": "function", "function": function}]}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = openai_said(chat, stream, messages=messages, tool_choice="required", **given).choices[0]
    assert first.finish_reason == "tool_calls"
    calls = [(one.id, one.function.name, orjson.loads(one.function.arguments)) for one in first.message.tool_calls]
    assert calls == list(CALLS)
    body = asked(stage, model)
    assert body["tool_choice"] == ("required" if model == OVER_OPENAI else {"type": "any"})
    messages.append(tree_of(first.message))
    messages += [{"role": "tool", "tool_call_id": id, "content": tree["city"]} for id, _, tree in CALLS]
    second = openai_said(chat, stream, messages=messages, **given).choices[0]
    assert (second.message.content, second.finish_reason) == ("Rain and snow.", "stop")
    body = heard(stage, model)
    if model == OVER_OPENAI:
        assert [one["role"] for one in body["messages"]] == ["user", "assistant", "tool", "tool"]
        assert body["tools"][0]["function"]["name"] == "weather"
        return
    assert body["tools"][0]["input_schema"]["properties"] == WEATHER["properties"]
    assert [one["role"] for one in body["messages"]] == ["user", "assistant", "user"]
    assert [(one["type"], one.get("id")) for one in body["messages"][1]["content"]] == [
        ("text", None), ("tool_use", "call_1"), ("tool_use", "call_2"),
    ]  # fmt: skip
    results = body["messages"][2]["content"]
    assert [(one["type"], one["tool_use_id"]) for one in results] == [
        ("tool_result", "call_1"), ("tool_result", "call_2"),
    ]  # fmt: skip


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_tools(stage: Stage, claude: Anthropic, model: str, stream: bool) -> None:
    """Two calls at once, then their results in a second turn, one of them an error."""
    stage.upstream.says(Say(text="Let me see.", calls=CALLS), Say(text="Rain and snow."))
    tools = [{"name": "weather", "description": "Tells it", "input_schema": WEATHER}]
    given: dict[str, Any] = {"model": model, "tools": tools, "system": "Short."}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = anthropic_said(claude, stream, messages=messages, tool_choice={"type": "any"}, **given)
    assert (first.stop_reason, first.content[0].text) == ("tool_use", "Let me see.")
    assert [(one.id, one.name, one.input) for one in first.content[1:]] == list(CALLS)
    assert asked(stage, model)["tool_choice"] == ("required" if model == OVER_OPENAI else {"type": "any"})
    results = [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": "no such city", "is_error": True},
    ]
    messages.append({"role": "assistant", "content": [tree_of(block) for block in first.content]})
    messages.append({"role": "user", "content": [*results, {"type": "text", "text": "Well?"}]})
    second = anthropic_said(claude, stream, messages=messages, **given)
    assert (second.content[0].text, second.stop_reason) == ("Rain and snow.", "end_turn")
    body = heard(stage, model)
    if model == OVER_ANTHROPIC:
        assert body["messages"] == messages
        return
    roles = [one["role"] for one in body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    sent = [(one["id"], orjson.loads(one["function"]["arguments"])) for one in body["messages"][2]["tool_calls"]]
    assert sent == [(id, tree) for id, _, tree in CALLS]
    assert [one["tool_call_id"] for one in body["messages"][3:5]] == ["call_1", "call_2"]


@BOTH
def test_openai_images(stage: Stage, chat: OpenAI, model: str) -> None:
    """Pictures by value and by address reach the provider in its own form."""
    stage.upstream.says(Say())
    data = f"data:image/png;base64,{PIXEL}"
    urls = [{"type": "image_url", "image_url": {"url": url}} for url in (data, "https://example.com/a.png")]
    content: Any = [{"type": "text", "text": "What?"}, *urls]
    chat.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    sent = asked(stage, model)["messages"][0]["content"]
    if model == OVER_OPENAI:
        assert sent == content
    else:
        assert [one["source"] for one in sent if one["type"] == "image"] == [
            {"type": "base64", "media_type": "image/png", "data": PIXEL},
            {"type": "url", "url": "https://example.com/a.png"},
        ]


@BOTH
def test_anthropic_images(stage: Stage, claude: Anthropic, model: str) -> None:
    """Pictures by value and by address reach the provider in its own form."""
    stage.upstream.says(Say())
    sources = [
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
        {"type": "url", "url": "https://example.com/a.png"},
    ]
    content: Any = [{"type": "image", "source": source} for source in sources]
    anthropic_said(claude, False, model=model, messages=[{"role": "user", "content": content}])
    sent = asked(stage, model)["messages"][0]["content"]
    if model == OVER_ANTHROPIC:
        assert sent == content
    else:
        data = f"data:image/png;base64,{PIXEL}"
        assert [one["image_url"]["url"] for one in sent] == [data, "https://example.com/a.png"]


@BOTH
def test_openai_structured(stage: Stage, chat: OpenAI, model: str) -> None:
    """`parse` gives the object; the schema reaches the provider."""
    stage.upstream.says(Say(text='{"name": "Oslo", "people": 717710}'))
    messages: Any = [{"role": "user", "content": "City?"}]
    done = chat.chat.completions.parse(model=model, messages=messages, response_format=City)
    assert done.choices[0].message.parsed == City(name="Oslo", people=717710)
    body = asked(stage, model)
    wanted = body["response_format"]["json_schema"] if model == OVER_OPENAI else body["output_config"]["format"]
    assert set(wanted["schema"]["properties"]) == {"name", "people"}


@BOTH
def test_anthropic_structured(stage: Stage, claude: Anthropic, model: str) -> None:
    """`parse` gives the object; the schema reaches the provider."""
    stage.upstream.says(Say(text='{"name": "Oslo", "people": 717710}'))
    messages: Any = [{"role": "user", "content": "City?"}]
    done = claude.messages.parse(model=model, messages=messages, max_tokens=64, output_format=City)
    assert done.parsed_output == City(name="Oslo", people=717710)
    body = asked(stage, model)
    wanted = body["response_format"]["json_schema"] if model == OVER_OPENAI else body["output_config"]["format"]
    assert set(wanted["schema"]["properties"]) == {"name", "people"}


@pytest.mark.parametrize("stream", [False, True])
def test_openai_replays_thinking(stage: Stage, chat: OpenAI, stream: bool) -> None:
    """A signed thought comes out as an extension, and goes back as the provider's own block, before its call."""
    said = Say(text="", thinking="I need the weather.", signature="c2lnbmVk", calls=CALLS[:1])
    stage.upstream.says(said, Say())
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}]
    given: dict[str, Any] = {"model": OVER_ANTHROPIC, "tools": tools, "reasoning_effort": "low"}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = openai_said(chat, stream, messages=messages, **given).choices[0].message
    assert first.reasoning_content == "I need the weather."
    assert asked(stage, OVER_ANTHROPIC)["thinking"]["type"] == "enabled"
    messages += [tree_of(first), {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    openai_said(chat, stream, messages=messages, **given)
    blocks = heard(stage, OVER_ANTHROPIC)["messages"][1]["content"]
    assert blocks[0] == {"type": "thinking", "thinking": "I need the weather.", "signature": "c2lnbmVk"}
    assert blocks[1]["type"] == "tool_use"


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_replays_thinking(stage: Stage, claude: Anthropic, model: str, stream: bool) -> None:
    """Thinking is a block of its own; sent back, Anthropic gets it as it was, and nobody gets what it cannot take."""
    said = Say(text="", thinking="I need the weather.", signature="c2lnbmVk", calls=CALLS[:1])
    stage.upstream.says(said, Say())
    given: dict[str, Any] = {"model": model, "tools": [{"name": "weather", "input_schema": WEATHER}]}
    messages: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = anthropic_said(claude, stream, messages=messages, **given)
    assert [one.type for one in first.content] == ["thinking", "tool_use"]
    assert first.content[0].thinking == "I need the weather."
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}
    messages.append({"role": "assistant", "content": [tree_of(one) for one in first.content]})
    messages.append({"role": "user", "content": [result]})
    anthropic_said(claude, stream, messages=messages, **given)
    back = heard(stage, model)["messages"][1]
    if model == OVER_ANTHROPIC:
        assert first.content[0].signature == "c2lnbmVk"
        assert back["content"] == messages[1]["content"]
    else:
        assert [one["id"] for one in back["tool_calls"]] == ["call_1"]
        assert "I need the weather." not in str(back.get("content"))


@BOTH
def test_count_tokens(stage: Stage, claude: Anthropic, model: str) -> None:
    """The provider's own count where it has one, ours elsewhere; it costs nothing."""
    stage.upstream.says(Say(prompt=77))
    messages: Any = [{"role": "user", "content": "Hello there"}]
    answer = claude.messages.with_raw_response.count_tokens(model=model, messages=messages)
    tokens = answer.parse().input_tokens
    if model == OVER_ANTHROPIC:
        assert tokens == 77
        seen = stage.upstream.last
        assert (seen.path, seen.headers["x-api-key"]) == ("/v1/messages/count_tokens", "sk-provider-a")
    else:
        assert 5 < tokens < 15
        assert answer.headers["x-token-count"] == "estimated"
        assert stage.upstream.calls == []
    line = stage.line(answer.headers["x-request-id"])
    assert (line["quota"], line["end"]) == (0, "ok")


def test_models(chat: OpenAI, claude: Anthropic) -> None:
    """Both SDKs list what the key reaches, in their own shapes."""
    names = {"echo", OVER_OPENAI, OVER_ANTHROPIC}
    assert {one.id for one in chat.models.list()} == names
    assert chat.models.retrieve(OVER_OPENAI).object == "model"
    assert {one.id for one in claude.models.list()} == names
    assert claude.models.retrieve(OVER_OPENAI).type == "model"
    with pytest.raises(openai.NotFoundError):
        chat.models.retrieve("secret-model")
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("secret-model")


def test_echo_serves_both(chat: OpenAI, claude: Anthropic) -> None:
    """The channel without a provider says the same to both."""
    messages: Any = [{"role": "user", "content": "same to you"}]
    for stream in (False, True):
        assert openai_said(chat, stream, model="echo", messages=messages).choices[0].message.content == "same to you"
        assert anthropic_said(claude, stream, model="echo", messages=messages).content[0].text == "same to you"


def test_pictures_and_sound(chat: OpenAI) -> None:
    """OpenAI's SDK draws, edits, speaks and listens, whole and as a stream."""
    drawn = chat.images.generate(model="echo", prompt="a sea", n=2)
    assert [base64.b64decode(one.b64_json or "")[:4] for one in drawn.data or ()] == [b"\x89PNG"] * 2
    edited = chat.images.edit(model="echo", prompt="more blue", image=("a.png", b"\x89PNG", "image/png"))
    assert len(edited.data or ()) == 1
    spoken = chat.audio.speech.create(model="echo", voice="alloy", input="three plain words")
    assert spoken.content[:4] == b"RIFF"
    with chat.audio.speech.with_streaming_response.create(model="echo", voice="alloy", input="one") as stream:
        assert b"".join(stream.iter_bytes())[8:12] == b"WAVE"
    heard = chat.audio.transcriptions.create(model="echo", file=("a.wav", spoken.content), prompt="three plain words")
    assert heard.text == "three plain words"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        translated = chat.audio.translations.create(model="echo", file=("a.wav", spoken.content))
    assert translated.text == "echo"
