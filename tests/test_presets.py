"""Providers of the OpenAI format: where each is called, and what each wants different."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Outgoing, Target
from newapi_proxy.adapters.presets import PRESETS
from newapi_proxy.errors import ClientError, Unsupported
from newapi_proxy.ir.ask import Ask, CacheMark, Controls, Reasoning, Text, Thinking, Turn
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.openai_chat import CHAT

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def ask(messages: Any = HI, **more: Any) -> Ask:
    """A chat client's ask."""
    return CHAT.read(orjson.dumps({"model": "m", "messages": messages, **more}), {})


def request(type_: str, asked: Ask, model: str = "m", base_url: str | None = None, **options: Any) -> Outgoing:
    """What goes out to this provider."""
    adapter = ADAPTERS[type_]
    to = Target(
        channel="c",
        base_url=base_url or adapter.base_url,
        key=Secret("k"),
        model=model,
        options=adapter.options(**options),
    )
    return adapter.chat[0].request(asked, to)


def body(type_: str, asked: Ask, model: str = "m", **options: Any) -> dict[str, Any]:
    """The body that goes out."""
    sent = request(type_, asked, model, **options).body
    assert isinstance(sent, dict)
    return sent


def seen(url: str) -> Ask:
    """An ask with an image."""
    return ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])


@pytest.mark.parametrize(
    ("type_", "url"),
    [
        ("openai", "https://api.openai.com/v1/chat/completions"),
        ("deepseek", "https://api.deepseek.com/v1/chat/completions"),
        ("moonshot", "https://api.moonshot.cn/v1/chat/completions"),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions"),
        ("groq", "https://api.groq.com/openai/v1/chat/completions"),
        ("xai", "https://api.x.ai/v1/chat/completions"),
        ("perplexity", "https://api.perplexity.ai/chat/completions"),
        ("siliconflow", "https://api.siliconflow.cn/v1/chat/completions"),
        ("minimax", "https://api.minimax.chat/v1/text/chatcompletion_v2"),
        ("ali", "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        ("volcengine", "https://ark.cn-beijing.volces.com/api/v3/chat/completions"),
        ("lingyiwanwu", "https://api.lingyiwanwu.com/v1/chat/completions"),
        ("spark", "https://spark-api-open.xf-yun.com/v1/chat/completions"),
        ("hunyuan", "https://api.hunyuan.cloud.tencent.com/v1/chat/completions"),
        ("ai360", "https://api.360.cn/v1/chat/completions"),
        ("novita", "https://api.novita.ai/openai/v1/chat/completions"),
        ("github", "https://models.github.ai/inference/chat/completions"),
        ("gemini-openai", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("mistral", "https://api.mistral.ai/v1/chat/completions"),
        ("zhipu", "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
    ],
)
def test_addresses(type_: str, url: str) -> None:
    """Each provider is called where it is, and a base URL that ends in the version is not doubled."""
    assert request(type_, ask()).url == url


@pytest.mark.parametrize("base", ["https://h.example", "https://h.example/", "https://h.example/v1"])
def test_versions_are_not_doubled(base: str) -> None:
    """Interfaces 3: the version path stands once."""
    assert request("openai", ask(), base_url=base).url == "https://h.example/v1/chat/completions"


def test_special_addresses() -> None:
    """Cloudflare's account and Volcengine's bots stand in the path; a base URL may hold a version of its own."""
    for base in ("https://h.example/api/paas/v4", "https://h.example/v1"):
        assert request("openai-compatible", ask(), base_url=base).url == f"{base}/chat/completions"
    told = request("cloudflare", ask(), account="acc").url
    assert told == "https://api.cloudflare.com/client/v4/accounts/acc/ai/v1/chat/completions"
    assert request("volcengine", ask(), "bot-1").url.endswith("/api/v3/bots/chat/completions")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda one: one.name)
def test_presets_serve_chat(preset: Any) -> None:
    """Every preset has an address of its own and takes a plain ask as it is, but for the usage chunk."""
    assert preset.base_url.startswith("https://") or preset.name in ("xinference", "openai-compatible")  # one's own
    sent = body(preset.name, ask(stream=True, temperature=0.5, vendor={"a": 1}))
    assert sent["messages"] == HI
    assert sent["temperature"] == 0.5
    assert sent["vendor"] == {"a": 1}


@pytest.mark.parametrize("type_", ["groq", "deepseek", "lingyiwanwu", "spark", "hunyuan", "zhipu"])
def test_several_choices_are_refused(type_: str) -> None:
    """T-CORE-031, T-GROQ-007: n above 1 is a 400 where the provider has no n; n of 1 is no wish."""
    with pytest.raises(Unsupported) as told:
        body(type_, ask(n=2))
    assert (told.value.status, told.value.param, told.value.code) == (400, "n", "unsupported_parameter")
    assert "n" not in body(type_, ask(n=1))


@pytest.mark.parametrize("type_", ["groq", "lingyiwanwu", "spark", "hunyuan", "zhipu", "mistral"])
def test_log_probabilities_are_refused(type_: str) -> None:
    """T-CORE-032: logprobs change the answer's shape; `false` is no wish."""
    with pytest.raises(Unsupported) as told:
        body(type_, ask(logprobs=True))
    assert told.value.param == "logprobs"
    assert "logprobs" not in body(type_, ask(logprobs=False))


def test_steering_is_dropped_and_listed() -> None:
    """T-YI-003, T-CORE-003: what only steers goes, in alphabetical order, and null is no loss."""
    out = request("lingyiwanwu", ask(user="u", seed=1, logit_bias={"1": 1}, presence_penalty=None))
    assert out.dropped == ("logit_bias", "seed", "user")
    assert out.body == {"model": "m", "messages": HI}


def test_developer_role() -> None:
    """A provider without the role `developer` is told as a system; OpenAI keeps it."""
    asked = ask([{"role": "developer", "content": "S"}, *HI])
    assert body("groq", asked)["messages"][0]["role"] == "system"
    assert body("openai", asked)["messages"][0]["role"] == "developer"
    assert asked.tree["messages"][0]["role"] == "developer"


def test_deepseek_reasoning() -> None:
    """T-DEEP-002, T-DEEP-003: thinking of the present turn is replayed, older is not."""
    messages = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2", "reasoning_content": "old"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": None, "reasoning_content": "", "tool_calls": []},
    ]
    out = request("deepseek", ask(messages))
    assert isinstance(out.body, dict)
    assert out.body["messages"] == [messages[0], {"role": "assistant", "content": "2"}, *messages[2:]]
    assert out.dropped == ("messages.1.reasoning_content",)


def test_deepseek_schema() -> None:
    """T-DEEP-005: a schema becomes JSON mode and an instruction."""
    wish = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "title": "T"}}}
    sent = body("deepseek", ask(response_format=wish))
    assert sent["response_format"] == {"type": "json_object"}
    assert sent["messages"][0]["role"] == "system"
    assert '"title":"T"' in sent["messages"][0]["content"]
    assert sent["messages"][1:] == HI


def test_deepseek_images() -> None:
    """T-DEEP-006: a text model refuses images, one that sees takes them."""
    with pytest.raises(Unsupported) as told:
        body("deepseek", seen("https://h.example/a.png"), "deepseek-chat")
    assert (told.value.param, told.value.code) == ("messages.0.content.0", "unsupported_content")
    assert body("deepseek", seen("https://h.example/a.png"), "deepseek-vl2")


def test_yi_vision() -> None:
    """T-YI-002: images pass."""
    asked = seen("data:image/png;base64,AA")
    assert body("lingyiwanwu", asked, "yi-vision")["messages"] == asked.tree["messages"]


@pytest.mark.parametrize("url", ["data:image/webp;base64,AA", "https://h.example/a.gif?x=1"])
def test_xai_images(url: str) -> None:
    """T-XAI-006: JPEG and PNG only."""
    with pytest.raises(Unsupported) as told:
        body("xai", seen(url))
    assert told.value.code == "unsupported_content"
    assert body("xai", seen("data:image/jpeg;base64,AA"))


@pytest.mark.parametrize(
    ("model", "fields", "sent", "dropped"),
    [
        ("grok-4", {"stop": ["a"], "reasoning_effort": "low"}, {}, ("reasoning_effort", "stop")),  # T-XAI-003
        ("grok-4.5", {"reasoning_effort": "none"}, {"reasoning_effort": "low"}, ("reasoning_effort~",)),  # T-XAI-005
        ("grok-3-mini", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, ()),
        ("grok-2", {"stop": ["a"]}, {"stop": ["a"]}, ()),
    ],
)
def test_xai_models(model: str, fields: dict[str, Any], sent: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """T-XAI-003, T-XAI-005: reasoning models take neither stop nor every effort."""
    out = request("xai", ask(**fields), model)
    assert out.body == {"model": model, "messages": HI, **sent}
    assert out.dropped == dropped


def test_openrouter_passes() -> None:
    """T-ORTR-007, T-ORTR-008, T-ORTR-012: its own fields, details and cache marks stay; the effort has its place."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "y", "reasoning_details": [{"type": "reasoning.text", "text": "t", "x": 1}]},
    ]
    sent = body("openrouter", ask(messages, models=["a"], transforms=[], reasoning_effort="low"))
    assert sent["messages"] == messages
    assert sent["models"] == ["a"]
    assert sent["reasoning"] == {"effort": "low"}
    assert "reasoning_effort" not in sent


def test_openrouter_replays_other_formats() -> None:
    """B.11: signed thinking and cache marks of another format survive there."""
    thought = Reasoning(text="t", signature="s", format="anthropic-claude-v1")
    asked = Ask(
        dialect="other",
        model="m",
        tree={},
        size=0,
        turns=(
            Turn(role="system", parts=(Text(text="S", cache=CacheMark(ttl="1h")),)),
            Turn(role="assistant", parts=(thought, Text(text="x"))),
        ),
        controls=Controls(thinking=Thinking(budget=2000)),
    )
    sent = body("openrouter", asked)
    assert sent["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert sent["messages"][1]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "t", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    ]
    assert sent["reasoning"] == {"max_tokens": 2000}


def test_thinking_switch() -> None:
    """B.11: where thinking is a switch, an effort of another format turns it on, `none` off."""

    def sent(thinking: Thinking) -> Any:
        turns = (Turn(role="user", parts=(Text(text="x"),)),)
        asked = Ask(dialect="other", model="m", tree={}, size=0, turns=turns, controls=Controls(thinking=thinking))
        return body("deepseek", asked).get("thinking")

    assert sent(Thinking(budget=9)) == {"type": "enabled"}
    assert sent(Thinking(disabled=True)) == {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "options", "sent"),
    [
        ("4.0Ultra", {}, "4.0Ultra"),
        ("SparkDesk", {}, "lite"),
        ("SparkDesk", {"version": "v3.5"}, "generalv3.5"),
        ("SparkDesk-v3.1", {"version": "v3.5"}, "generalv3"),
        ("Spark-Pro-128K", {}, "pro-128k"),
        ("Spark-4.0-Ultra", {}, "4.0Ultra"),
        ("SparkDesk-v2.1", {}, "SparkDesk-v2.1"),  # which has no name there: its error says so
    ],
)
def test_sparks_models(model: str, options: dict[str, Any], sent: str) -> None:
    """The names that New API and One API had for versions are the models' own names there."""
    assert body("spark", ask(), model, **options)["model"] == sent


@pytest.mark.parametrize(("key", "bearer"), [("pass:word", "pass:word"), ("app|secret|key", "key:secret")])
def test_sparks_credential(key: str, bearer: str) -> None:
    """A password as it is, the socket's three parts as key and secret."""
    adapter = ADAPTERS["spark"]
    to = Target(channel="c", base_url="https://h", key=Secret(key), model="lite", options=adapter.options())
    assert adapter.chat[0].request(ask(), to).headers["authorization"] == f"Bearer {bearer}"


def test_sparks_texts_and_tools() -> None:
    """Lists of texts become strings, pictures are refused, and calls are asked for in OpenAI's own shape."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    sent = body("spark", ask([{"role": "user", "content": parts}], tools=[tool]))
    assert (sent["messages"][0]["content"], sent["tool_calls_switch"]) == ("a\nb", True)
    assert "tool_calls_switch" not in body("spark", ask())
    with pytest.raises(Unsupported) as told:
        body("spark", seen("data:image/png;base64,AA"))
    assert told.value.code == "unsupported_content"


def test_gemini_by_openais_format_knows_its_own_fields_only() -> None:
    """What its servers call an unknown name is left out and named."""
    out = request("gemini-openai", ask(store=False, metadata={"a": "b"}, frequency_penalty=1, seed=1))
    assert out.dropped == ("frequency_penalty", "metadata", "store")
    assert isinstance(out.body, dict)
    assert out.body["seed"] == 1


def test_streams_ask_for_usage_where_it_is_taken() -> None:
    """Demand S8: providers that refuse the wish are not asked."""
    for preset in PRESETS:
        wish = body(preset.name, ask(stream=True)).get("stream_options")
        assert wish == (None if preset.name in ("perplexity", "spark") else {"include_usage": True}), preset.name


def mutated(node: Any, dice: random.Random) -> Any:
    """A copy with one place of it replaced by something foreign."""
    foreign: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], {}, [None], {"a": None}, "none", "data:"]
    if not isinstance(node, (dict, list)) or not node or dice.random() < 0.1:
        return dice.choice(foreign)
    if isinstance(node, dict):
        name = dice.choice(list(node))
        return {**node, name: mutated(node[name], dice)}
    at = dice.randrange(len(node))
    return [*node[:at], mutated(node[at], dice), *node[at + 1 :]]


FULL: dict[str, Any] = {
    "model": "m",
    "stream": True,
    "temperature": 0,
    "top_p": 1,
    "stop": ["a", "b"],
    "user": "u",
    "reasoning_effort": "minimal",
    "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "search", "function": {"name": "f"}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "s"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "t",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": "x"},
    ],
}


TEXT_ONLY: dict[str, Any] = {**FULL, "messages": [FULL["messages"][0], *FULL["messages"][3:]]}


@pytest.mark.parametrize(
    "type_", sorted(name for name, one in ADAPTERS.items() if one.chat and one.chat[0].dialect == CHAT.dialect)
)
def test_garbage_is_a_request_or_a_declared_error(type_: str) -> None:
    """Whatever passes a client's validation goes out, or is refused with a 400; the client's tree stays as it was."""
    dice = random.Random(type_)
    outcomes = {"asked": 0, "sent": 0}
    for _ in range(300):
        try:
            full = TEXT_ONLY if type_ == "spark" else FULL
            one = CHAT.read(orjson.dumps(mutated(full, dice)), {})
        except ClientError:
            continue
        outcomes["asked"] += 1
        before = orjson.dumps(one.tree)
        for model in ("o1-mini", "glm-4v", "grok-4.5", "deepseek-vl"):
            outcomes["sent"] += leaves(type_, one, model)
        assert orjson.dumps(one.tree) == before
    assert outcomes["asked"] > 30
    assert outcomes["sent"] > 30


def leaves(type_: str, asked: Ask, model: str) -> bool:
    """Whether the ask becomes a request."""
    try:
        out = request(type_, asked, model, base_url="https://h.example", flatten_content=True)
    except Unsupported:
        return False
    return bool(orjson.dumps(out.body))
