"""The Bedrock adapter beside its rows: keys, names, media, a request's odd corners, and answers nobody should send."""

from __future__ import annotations

import base64
from typing import Any
from zlib import crc32

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters import BY_NUMBER
from newapi_proxy.adapters._bedrock_models import known_betas, model_id, placeless, traits
from newapi_proxy.adapters.base import Outgoing, speaks
from newapi_proxy.adapters.bedrock import ADAPTER
from newapi_proxy.errors import ClientError, Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import (
    Ask,
    CacheMark,
    Choice,
    Controls,
    Format,
    Media,
    Reasoning,
    Refusal,
    ServerBlock,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from newapi_proxy.ir.events import Cited, Event, Failed, Finished, ReasoningSealed, fold
from newapi_proxy.ir.usage import MOST
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.wire import sse, tree
from newapi_proxy.wire.eventstream import Decoder
from tests.fakes import anthropic, bedrock, inbound
from tests.fakes.bedrock import CLAUDE, GPT, LLAMA, NOVA, NOVA2, OPUS, QWEN, TITAN, Message, dialect, target

HI = Turn(role="user", parts=(Text(text="Hi"),), path="messages.0")
PNG, PDF = inbound.PNG, inbound.PDF


def ask(*turns: Turn, **more: Any) -> Ask:
    return Ask(dialect="openai-chat", model="asked", tree=more.pop("tree", {}), size=1, turns=turns or (HI,), **more)


def user(*parts: Any) -> Turn:
    return Turn(role="user", parts=parts, path="messages.0")


def said(*parts: Any) -> Turn:
    return Turn(role="assistant", parts=parts, path="messages.1")


def request(given: Ask, model: str = CLAUDE, **more: Any) -> Outgoing:
    return bedrock.dialect("OC").request(given, target(model, **more))


def body(given: Ask, model: str = CLAUDE, **more: Any) -> dict[str, Any]:
    made = request(given, model, **more).body
    assert isinstance(made, dict)
    return made


def contents(given: Ask, model: str = CLAUDE) -> list[tuple[str, list[Any]]]:
    return [(one["role"], one["content"]) for one in body(given, model)["messages"]]


# Keys.

KEYS = {
    "ACCESS|SECRET|us-west-2": ("us-west-2", True),
    " ACCESS | SECRET | us-west-2 ": ("us-west-2", True),
    "BEARER|eu-west-1": ("eu-west-1", False),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: str) -> None:
    """A key says who signs and where; an option says it better."""
    region, signs = KEYS[key]
    one = request(ask(), key=key)
    assert one.url.startswith(f"https://bedrock-runtime.{region}.amazonaws.com/model/")
    assert (one.sign is not None) is signs
    assert request(ask(), key=key, region="ap-south-1").url.startswith("https://bedrock-runtime.ap-south-1.amazonaws")
    assert checked(key) is None


def test_regions_of_china() -> None:
    """They have a domain of their own."""
    url = request(ask(), region="cn-north-1").url
    assert url.startswith("https://bedrock-runtime.cn-north-1.amazonaws.com.cn/model/")


def test_base_url_replaces_scheme_and_host() -> None:
    """Then a bearer key needs no region, a signature does."""
    assert request(ask(), key="BEARER", base_url="http://h:1").url.startswith("http://h:1/model/us.anthropic.")
    assert checked("BEARER", base_url="http://h:1") is None
    assert checked("A|B|", base_url="http://h:1") == "names no region, and neither do the channel's options"


def checked(key: str, **more: Any) -> str | None:
    """Why the key is refused before anything is sent, None where it serves."""
    assert ADAPTER.credential is not None
    assert ADAPTER.credential.granted(tree.Document(b"{}"), 0) is None
    try:
        assert ADAPTER.credential.request(target(key=key, **more)) is None
    except UpstreamFailure as caught:
        failure = caught
    else:
        return None
    assert (failure.kind, failure.code, failure.blames) == ("upstream_auth", "upstream_credentials", "key")
    assert not key or key not in failure.message
    return failure.message.removeprefix("The channel's key ").removesuffix(".")


BROKEN = {
    "": "is neither ACCESS|SECRET|REGION nor a bearer key",
    "A||us-east-1": "is neither ACCESS|SECRET|REGION nor a bearer key",
    "|B|us-east-1": "is neither ACCESS|SECRET|REGION nor a bearer key",
    "A|B|us-east-1|T": "is neither ACCESS|SECRET|REGION nor a bearer key",
    "BEARER": "names no region, and neither do the channel's options",
    "A|B|us east/1": "names no region, and neither do the channel's options",
    "BEARER|evil.example/": "names no region, and neither do the channel's options",
}


@pytest.mark.parametrize("key", BROKEN)
def test_broken_keys(key: str) -> None:
    """They are the channel's fault, told before anything is sent; building the request does not fail on them."""
    assert checked(key) == BROKEN[key]
    request(ask(), key=key)


def test_record() -> None:
    """New API's number, and the way to Claude that the operator chose; other models have one way only."""
    assert BY_NUMBER[33] == ("bedrock", "")
    for way, expected in (("converse", "bedrock-converse"), ("invoke", "anthropic")):
        one = speaks(bedrock.adapter(way), "openai-chat", CLAUDE)
        assert one is not None
        assert one.dialect == expected
    other = speaks(bedrock.adapter("invoke"), "anthropic", NOVA)
    assert other is not None
    assert other.dialect == "bedrock-converse"
    profile = speaks(
        bedrock.adapter("invoke"), "anthropic", "arn:aws:bedrock:us-east-1:1:application-inference-profile/x"
    )
    assert profile is not None
    assert profile.dialect == "anthropic"


# Names.

IDS = {
    ("claude-3-5-sonnet-20241022", "us-east-1"): "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
    ("claude-3-5-sonnet-20241022", "eu-west-1"): "anthropic.claude-3-5-sonnet-20241022-v2:0",
    ("claude-3-5-sonnet-20240620", "eu-west-1"): "eu.anthropic.claude-3-5-sonnet-20240620-v1:0",
    ("claude-sonnet-4-5-20250929", "ap-northeast-1"): "apac.anthropic.claude-sonnet-4-5-20250929-v1:0",
    ("claude-sonnet-4-5-20250929", "sa-east-1"): "anthropic.claude-sonnet-4-5-20250929-v1:0",
    ("claude-3-7-sonnet-20250219", "us-gov-west-1"): "anthropic.claude-3-7-sonnet-20250219-v1:0",
    ("claude-2.1", "us-east-1"): "anthropic.claude-v2:1",
    ("anthropic.claude-v2:1", "us-east-1"): "anthropic.claude-v2:1",
    ("claude-sonnet-4-5", "us-east-1"): "claude-sonnet-4-5",
    (NOVA, "us-east-1"): NOVA,
}


@pytest.mark.parametrize(("model", "region"), IDS)
def test_model_ids(model: str, region: str) -> None:
    """Anthropic's own dated names become ids of the region, everything else is one already."""
    assert model_id(model, region) == IDS[model, region]


def test_placeless() -> None:
    """Token counting knows models, not profiles."""
    assert placeless(CLAUDE) == "anthropic.claude-sonnet-4-5-20250929-v1:0"
    assert placeless("global.anthropic.claude-x") == "anthropic.claude-x"
    assert placeless("amazon.nova-lite-v1:0") == "amazon.nova-lite-v1:0"


MAKERS = {
    CLAUDE: "anthropic",
    "claude-3-5-sonnet-20240620": "anthropic",
    "anthropic.claude-instant-v1": "anthropic",
    "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-6": "anthropic",
    "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0": "meta",
    NOVA: "amazon",
    "moonshotai.kimi-k2.5": "moonshotai",
    "my-own-model": "",
}


@pytest.mark.parametrize("model", MAKERS)
def test_makers(model: str) -> None:
    """The maker stands in every spelling of a name."""
    assert traits(model).maker == MAKERS[model]


def test_abilities() -> None:
    """Some that are not told by the maker alone."""
    assert traits("anthropic.claude-3-haiku-20240307-v1:0").caching == frozenset()
    assert "tools" in traits("anthropic.claude-3-5-haiku-20241022-v1:0").caching
    assert traits(CLAUDE).hours
    assert not traits("anthropic.claude-opus-4-1-20250805-v1:0").hours
    assert traits("mistral.mistral-7b-instruct-v0:2").system is False
    assert traits("mistral.mistral-large-2402-v1:0").system is True
    assert traits("deepseek.v3-v1:0").schemas
    assert not traits("deepseek.r1-v1:0").schemas
    assert known_betas(["oauth-1", "context-1m-2025-08-07", "files-api-2025-04-14"]) == ["context-1m-2025-08-07"]


# Media.

FORMATS = [
    (Media(kind="image", data="/9j/4AAQ"), "image", "jpeg"),
    (Media(kind="image", data="iVBORw0", media_type="application/octet-stream"), "image", "png"),
    (Media(kind="image", data="R0lGOD", media_type=""), "image", "gif"),
    (Media(kind="image", data="UklGRg", media_type="image/webp; q=1"), "image", "webp"),
    (Media(kind="file", data="aGk=", media_type="text/csv"), "document", "csv"),
    (Media(kind="file", data="aGk=", media_type="text/x-python"), "document", "txt"),
    (Media(kind="file", data="aGk=", media_type="text/plain", filename="a.md"), "document", "md"),
    (Media(kind="file", data="aGk=", media_type="text/plain"), "document", "txt"),
    (Media(kind="file", data="aGk=", media_type="application/json"), "document", "txt"),
    (Media(kind="file", data="UEsDBA", filename="Report.DOCX"), "document", "docx"),
    (Media(kind="file", data="JVBERi0x"), "document", "pdf"),
    (Media(kind="file", data="iVBORw0", media_type="image/png"), "image", "png"),
    (Media(kind="file", data="iVBORw0"), "image", "png"),
    (Media(kind="file", text="Hallo"), "document", "txt"),
]


@pytest.mark.parametrize(("part", "kind", "short"), FORMATS, ids=range(len(FORMATS)))
def test_formats(part: Media, kind: str, short: str) -> None:
    """A format comes from the type, the name or the first bytes."""
    block = contents(ask(user(Text(text="What?"), part)))[0][1][1]
    assert next(iter(block)) == kind
    assert block[kind]["format"] == short


def test_text_documents() -> None:
    """Plain text goes up as bytes."""
    block = contents(ask(user(Text(text="What?"), Media(kind="file", text="Grüße"))))[0][1][1]
    assert base64.b64decode(block["document"]["source"]["bytes"]).decode() == "Grüße"


REFUSED = [
    Media(kind="image", data="Qk0=", media_type="image/bmp", path="p"),
    Media(kind="image", data="Qk0=", path="p"),
    Media(kind="file", data="UEsDBA", media_type="application/zip", path="p"),
    Media(kind="file", file_id="file_1", path="p"),
    Media(kind="audio", data="UklGRg", path="p"),
    Media(kind="video", data="AAAA", media_type="video/mp4", path="p"),
    Media(kind="image", url="https://e.example/a.png", path="p"),
    Media(kind="image", media_type="image/png", path="p"),
]


@pytest.mark.parametrize("part", REFUSED, ids=range(len(REFUSED)))
def test_refused_media(part: Media) -> None:
    """What no model sees, or what did not come as bytes, is refused by its path."""
    with pytest.raises(Unsupported) as caught:
        request(ask(user(part)))
    assert (caught.value.param, caught.value.code) == ("p", "unsupported_content")


def test_media_in_buckets() -> None:
    """Nova takes pictures from S3 inside a result, documents and films only outside of it."""
    film = Media(kind="video", url="s3://b/a.mov", path="p")
    assert contents(ask(user(Text(text="?"), film)), NOVA)[0][1][1] == {
        "video": {"format": "mov", "source": {"s3Location": {"uri": "s3://b/a.mov"}}}
    }
    call = said(ToolCall(id="c", name="f", arguments="{}"))
    inside = ToolResult(id="c", parts=(Media(kind="image", url="s3://b/a.png"),))
    assert "s3Location" in str(contents(ask(HI, call, user(inside)), NOVA))
    for part in (film, Media(kind="file", url="s3://b/a.pdf", path="p")):
        with pytest.raises(Unsupported):
            request(ask(HI, call, user(ToolResult(id="c", parts=(part,)))), NOVA)


# Turns.


def test_texts_that_say_nothing() -> None:
    """Blank texts are left out; a turn between two others keeps its place."""
    turns = (user(Text(text=" \n"), Text(text="Hi")), said(Text(text="")), user(Text(text="You")))
    assert contents(ask(*turns)) == [
        ("user", [{"text": "Hi"}]),
        ("assistant", [{"text": "."}]),
        ("user", [{"text": "You"}]),
    ]


def test_nothing_but_a_system_text() -> None:
    """It becomes the user's."""
    made = body(ask(Turn(role="system", parts=(Text(text="One."), Text(text="Two.")))))
    assert made["messages"] == [{"role": "user", "content": [{"text": "Two."}]}]
    assert made["system"] == [{"text": "One."}]
    assert body(ask(user(Text(text=""))))["messages"] == [{"role": "user", "content": [{"text": "."}]}]


def test_later_system_texts() -> None:
    """They are tagged texts of the user, where they stand."""
    later = Turn(role="developer", parts=(Text(text="Two."), Media(kind="image", data=PNG)))
    assert contents(ask(HI, said(Text(text="Ho")), later))[-1] == ("user", [{"text": "<system>Two.</system>"}])
    assert contents(ask(HI, Turn(role="system", parts=(Text(text=" "),)))) == [("user", [{"text": "Hi"}])]


def test_prefill() -> None:
    """A last assistant turn stays the last, without trailing blanks."""
    assert contents(ask(HI, said(Text(text="Well, "))))[-1] == ("assistant", [{"text": "Well,"}])


def test_calls_and_results_that_do_not_match() -> None:
    """Every call has one result in the next turn; results of no call become what they say."""
    calls = said(ToolCall(id="c1", name="f", arguments='{"a":1}'), ToolCall(id="c2", name="f", arguments="oops"))
    odd = user(
        ToolResult(id="c2", parts=(Text(text="two"),)),
        ToolResult(id="c2", parts=(Text(text="again"),)),
        ToolResult(id="c9", parts=(Text(text="lost"),)),
        ToolResult(id="c8"),
        Refusal(text="No."),
    )
    (_, asked), (_, answered) = contents(ask(HI, calls, odd))[1:]
    assert [one["toolUse"]["input"] for one in asked] == [{"a": 1}, {"__raw_arguments__": "oops"}]
    assert [next(iter(one)) for one in answered] == ["toolResult"] * 2 + ["text"] * 4
    assert [one["toolResult"]["toolUseId"] for one in answered[:2]] == ["c2", "c1"]
    assert answered[1]["toolResult"]["status"] == "error"
    assert [one["text"] for one in answered[2:]] == ["again", "lost", ".", "No."]


def test_calls_without_results_at_the_end() -> None:
    """They are answered, or upstream would refuse all of it."""
    last = contents(ask(HI, said(ToolCall(id="c1", name="f", arguments=""))))[-1]
    assert last[0] == "user"
    assert last[1][0]["toolResult"]["status"] == "error"


def test_ids_that_do_not_fit() -> None:
    """A call's id and its result's become the same other one."""
    turns = (HI, said(ToolCall(id="functions.f:0", name="f", arguments="{}")), user(ToolResult(id="functions.f:0")))
    (_, asked), (_, answered) = contents(ask(*turns))[1:]
    made = asked[0]["toolUse"]["toolUseId"]
    assert made.startswith("tooluse_")
    assert answered[0]["toolResult"]["toolUseId"] == made
    assert answered[0]["toolResult"]["content"] == [{"text": "."}]


def test_what_others_left_in_the_history() -> None:
    """Foreign thinking and server blocks are left out and named; sealed bytes go back as they came."""
    history = said(
        Reasoning(text="hm", signature="s", format="google-gemini-v1"),
        Reasoning(data="/w==", format="bedrock-converse-v1"),
        ServerBlock(family="anthropic", value={"type": "x"}, path="messages.1.content.2"),
        Text(text="Ho"),
    )
    one = request(ask(HI, history, HI))
    assert isinstance(one.body, dict)
    assert one.body["messages"][1]["content"] == [
        {"reasoningContent": {"redactedContent": "/w=="}},
        {"text": "Ho"},
    ]
    assert one.dropped == ("messages.1.content.2", "messages.1.reasoning_content")


def test_cache_points_of_tools_and_results() -> None:
    """Behind the tool where the model has such points; a mark inside a result belongs behind it."""
    mark = CacheMark()
    tool = Tool(name="f", schema={"type": "object"}, cache=mark, path="tools.0")
    call = said(ToolCall(id="c", name="f", arguments="{}"))
    result = user(ToolResult(id="c", parts=(Text(text="x", cache=mark),), path="messages.2"))
    system = Turn(role="system", parts=(Text(text="One.", cache=mark, path="system.0"),))
    given = ask(system, HI, call, result, tools=(tool,))
    point = {"cachePoint": {"type": "default"}}
    made = body(given)
    assert made["system"] == [{"text": "One."}, point]
    assert made["toolConfig"]["tools"][1:] == [point]
    assert made["messages"][-1]["content"][1:] == [point]
    nova = request(given, NOVA)
    assert isinstance(nova.body, dict)
    assert len(nova.body["toolConfig"]["tools"]) == 1
    assert nova.dropped == ("tools.0.cache_control",)


def test_a_mark_that_waits_meets_another() -> None:
    """Two points are never neighbours."""
    mark = CacheMark()
    parts = (Media(kind="file", data=PDF, media_type="application/pdf", cache=mark), Text(text="?", cache=mark))
    kinds = [next(iter(one)) for one in contents(ask(user(*parts)))[0][1]]
    assert kinds == ["document", "text", "cachePoint"]


# Controls.


def test_inference_config() -> None:
    """Limits, sampling and stops in their place; what is out of range is clamped and named."""
    controls = Controls(max_tokens=0, temperature=1.5, top_p=0.5, stop=(" ", "END"))
    one = request(ask(controls=controls), NOVA)
    assert isinstance(one.body, dict)
    assert one.body["inferenceConfig"] == {"maxTokens": 1, "stopSequences": ["END"], "temperature": 1, "topP": 0.5}
    assert one.dropped == ("temperature~",)
    assert "inferenceConfig" not in body(ask(controls=Controls(stop=(" ",))), NOVA)
    assert body(ask(), NOVA, default_max_tokens=77)["inferenceConfig"] == {"maxTokens": 77}


def test_claude_by_converse_is_told_what_it_is_told_elsewhere() -> None:
    """Sampling beside thinking goes, the budget leaves room for the answer, a forced tool wins over thinking."""
    controls = Controls(max_tokens=500, temperature=0.3, top_k=5, thinking=Thinking(budget=4000))
    one = request(ask(controls=controls))
    assert isinstance(one.body, dict)
    assert one.body["inferenceConfig"] == {"maxTokens": 5024}
    assert one.body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 4000}}
    assert one.dropped == ("temperature", "top_k")
    tools, forced = (Tool(name="f", schema={}),), Choice(mode="named", name="f")
    one = request(ask(controls=controls, tools=tools, choice=forced))
    assert isinstance(one.body, dict)
    assert one.body["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}
    assert "thinking" not in str(one.body)
    bare = body(ask(controls=Controls(temperature=0.3)), OPUS)
    assert "inferenceConfig" not in bare


def test_betas_by_converse() -> None:
    """A client of Claude's own format names betas in a header, Converse takes them among the model's own fields."""
    headers = {"anthropic-beta": "context-1m-2025-08-07, oauth-2025-04-20"}
    assert bedrock.sent("AM", headers=headers).extras == {"anthropic_beta": ["context-1m-2025-08-07"]}
    assert bedrock.sent("AM", headers=headers, upstream=NOVA).extras == {}


def test_which_stop_it_was() -> None:
    """Claude is asked to tell; other models cannot be asked."""
    stops = Controls(stop=("END",))
    assert body(ask(controls=stops))["additionalModelResponseFieldPaths"] == ["/stop_sequence"]
    assert body(ask(controls=stops, stream=True))["additionalModelResponseFieldPaths"] == ["/delta/stop_sequence"]
    assert "additionalModelResponseFieldPaths" not in body(ask(controls=stops), NOVA)


EFFORTS = [
    (GPT, Thinking(effort="minimal"), {"reasoning_effort": "low"}, ()),
    (GPT, Thinking(effort="max"), {"reasoning_effort": "high"}, ()),
    (GPT, Thinking(budget=3000), {"reasoning_effort": "medium"}, ()),
    (GPT, Thinking(budget=30000), {"reasoning_effort": "high"}, ()),
    (GPT, Thinking(adaptive=True), {"reasoning_effort": "medium"}, ()),
    (GPT, Thinking(effort="none"), {}, ("reasoning_effort",)),
    (QWEN, Thinking(disabled=True), {}, ()),
    (NOVA2, Thinking(disabled=True), {"reasoningConfig": {"type": "disabled"}}, ()),
    (LLAMA, Thinking(budget=0), {}, ()),
    (LLAMA, Thinking(effort="low"), {}, ("reasoning_effort",)),
]


@pytest.mark.parametrize(("model", "wanted", "expected", "dropped"), EFFORTS, ids=range(len(EFFORTS)))
def test_efforts(model: str, wanted: Thinking, expected: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """Every wish in every family's words."""
    one = request(ask(controls=Controls(thinking=wanted)), model)
    assert isinstance(one.body, dict)
    assert one.body.get("additionalModelRequestFields", {}) == expected
    assert one.dropped == dropped


def test_nova_thinks_hard_without_limits() -> None:
    """At its highest effort it takes none of these beside it."""
    controls = Controls(max_tokens=5, temperature=0.5, top_p=0.5, stop=("X",), thinking=Thinking(effort="high"))
    one = request(ask(controls=controls), NOVA2)
    assert isinstance(one.body, dict)
    assert one.body["inferenceConfig"] == {"stopSequences": ["X"]}
    assert one.dropped == ("max_tokens", "temperature", "top_p")


REFUSALS = {
    "n": Controls(n=2),
    "logprobs": Controls(steering={"logprobs": True}),
    "modalities": Controls(steering={"modalities": ["text", "audio"]}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_promises_that_cannot_be_kept(name: str) -> None:
    """They are refused by name."""
    with pytest.raises(Unsupported) as caught:
        request(ask(controls=REFUSALS[name]))
    assert caught.value.param == name


def test_what_only_steers_is_left_out_and_named() -> None:
    """Seed, penalties, user and foreign names; false and null wishes are none."""
    steering = {"seed": 1, "frequency_penalty": 0.5, "store": False, "logit_bias": None, "modalities": ["text"]}
    controls = Controls(steering=steering, user="u", service_tier="scale", parallel_tools=False)
    one = request(ask(controls=controls, unknown=("foo",), tools=(Tool(name="f", schema={}),)))
    assert one.dropped == ("foo", "frequency_penalty", "parallel_tool_calls", "seed", "service_tier", "user")


def test_what_bedrock_has_beside_the_formats() -> None:
    """Guardrails, latency, tier and the model's own fields pass under AWS's names; a tier by the client's word too."""
    own = {
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "requestMetadata": {"a": "b"},
        "additionalModelRequestFields": {"x": 1},
    }
    one = request(ask(tree=own, unknown=tuple(own), controls=Controls(top_k=3)))
    assert isinstance(one.body, dict)
    assert {name: one.body[name] for name in own} == own | {"additionalModelRequestFields": {"top_k": 3, "x": 1}}
    assert one.dropped == ()
    odd = request(ask(tree=dict.fromkeys(own, 7), unknown=tuple(own)))
    assert odd.dropped == tuple(sorted(own))
    assert body(ask(controls=Controls(service_tier="priority")))["serviceTier"] == {"type": "priority"}
    assert "serviceTier" not in body(ask(controls=Controls(service_tier="auto")))


METADATA = [
    ({"a": "b c_d@e"}, True),
    ({"a": "ü"}, False),
    ({"a": "x" * 257}, False),
    ({"": "x"}, False),
    ({"a": 1}, False),
    ({str(number): "x" for number in range(17)}, False),
]


@pytest.mark.parametrize(("pairs", "fits"), METADATA, ids=range(len(METADATA)))
def test_metadata(pairs: dict[str, Any], fits: bool) -> None:
    """Pairs as AWS takes them pass, others are left out."""
    one = request(ask(controls=Controls(steering={"metadata": pairs})))
    assert isinstance(one.body, dict)
    assert one.body.get("requestMetadata") == (pairs if fits else None)
    assert one.dropped == (() if fits else ("metadata",))


def test_tools_that_cannot_be() -> None:
    """Free-form tools, other providers' and names with odd letters are refused by their path."""
    for tool in (
        Tool(name="f", kind="custom", path="tools.0"),
        Tool(name="web_search_20250305", kind="server", server={}, family="anthropic", path="tools.0"),
        Tool(name="a.b", schema={}, path="tools.0"),
    ):
        with pytest.raises(Unsupported) as caught:
            request(ask(tools=(tool,)))
        assert caught.value.param == ("tools.0.name" if tool.kind == "function" else "tools.0")


def test_strict_tools() -> None:
    """Where the model keeps to schemas the tool says so, elsewhere it is named as left out."""
    tool = Tool(name="f", schema={"properties": {}}, strict=True, description="", path="tools.0", inside=".function")
    tools = (tool,)
    (one,) = body(ask(tools=tools))["toolConfig"]["tools"]
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    assert one == {"toolSpec": {"name": "f", "strict": True, "inputSchema": {"json": schema}}}
    assert request(ask(tools=tools), NOVA).dropped == ("tools.0.function.strict",)


def test_search_of_the_web() -> None:
    """Nova has one, others are not asked for it."""
    wish = Controls(steering={"web_search_options": {}})
    assert body(ask(controls=wish), NOVA2)["toolConfig"] == {"tools": [{"systemTool": {"name": "nova_grounding"}}]}
    assert request(ask(controls=wish)).dropped == ("web_search_options",)


def test_json_by_words() -> None:
    """Without a schema, or without the ability, the model is asked in the last system text; a fence goes."""
    made = body(ask(controls=Controls(format=Format(kind="json_object"))), TITAN)
    assert made["messages"][0]["content"][0]["text"].startswith("Answer with one JSON object")
    given = ask(controls=Controls(format=Format(kind="json_object")))
    answer = Message(content=({"text": '```json\n{"a":1}\n```'},))
    assert fold(dialect("OC").answer(given, tree.Document(answer.whole()))).choices[0].text == '{"a":1}'
    reader = dialect("OC").reader(given)
    events = [one for frame in dialect("OC").frames().feed(answer.stream()) for one in reader.read(frame)]
    assert fold(events).choices[0].text == '{"a":1}'


def test_schema_names() -> None:
    """Name and description pass; a schema without a name gets one."""
    wish = Format(kind="json_schema", schema={"type": "object"}, name="city", description="A city")
    inner = body(ask(controls=Controls(format=wish)))["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (inner["name"], inner["description"]) == ("city", "A city")
    wish = Format(kind="json_schema", schema={"type": "object"})
    inner = body(ask(controls=Controls(format=wish)))["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert inner["name"] == "response"


# Claude's own format.


def test_invoke_refuses_what_only_anthropic_has() -> None:
    """Files by id, addresses that were not fetched, server tools; automatic caching is left out."""
    file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    for wrong in (inbound.Native(({"role": "user", "content": [file]},)), ("user", inbound.Sound())):
        with pytest.raises((ClientError, inbound.Unsayable)):
            bedrock.sent("AM", (wrong,), way="invoke")
    for kind in ("web_search_20250305", "web_fetch_20250910", "tool_search_tool_bm25_20251119"):
        with pytest.raises(Unsupported) as caught:
            bedrock.sent("AM", way="invoke", steering={"tools": [{"type": kind, "name": "x"}]})
        assert caught.value.param == "tools.0"
    passed = bedrock.sent("AM", way="invoke", steering={"tools": [{"type": "bash_20250124", "name": "bash"}]})
    assert passed.body["tools"] == [{"type": "bash_20250124", "name": "bash"}]
    one = bedrock.sent("AM", way="invoke", steering={"cache_control": {"type": "ephemeral"}})
    assert "cache_control" not in one.body
    assert one.outgoing.dropped == ("cache_control",)
    given = inbound.read("OC", inbound.body("OC", (("user", inbound.Picture("https://e.example/a.png")),)))
    with pytest.raises(Unsupported):
        dialect("OC", "invoke").request(given, target(bedrock_api="invoke"))


def test_invoke_tier_and_betas() -> None:
    """The tier stands in a header; betas of the body and of the header are one list."""
    one = bedrock.sent("AM", way="invoke", tier="standard_only", steering={"anthropic_beta": ["b-1", 7, "oauth-1"]})
    assert one.outgoing.headers["x-amzn-bedrock-service-tier"] == "default"
    assert one.body["anthropic_beta"] == ["b-1"]
    assert "service_tier" not in one.body
    auto = bedrock.sent("AM", way="invoke", tier="auto")
    assert "x-amzn-bedrock-service-tier" not in auto.outgoing.headers
    assert auto.outgoing.dropped == ()


def test_invoke_of_other_formats_leaves_out_what_it_has_not() -> None:
    """A search of the web and longer caching only steer: they are named."""
    wishes = {"web_search_options": {}, "prompt_cache_retention": "24h"}
    one = bedrock.sent("OC", way="invoke", steering=wishes)
    assert one.outgoing.dropped == ("prompt_cache_retention", "web_search_options")
    assert "tools" not in one.body
    both = bedrock.sent("OC", way="invoke", steering=wishes, tools=[inbound.FUNCTION])
    assert [tool["name"] for tool in both.body["tools"]] == ["f"]


def test_invoke_pictures_in_results() -> None:
    """Bytes take the address's place inside a tool result too, in both formats."""
    turns = (
        ("user", "Go"),
        ("assistant", inbound.Call("c1", "f")),
        ("tool", inbound.Result("c1", "f", parts=(inbound.Picture("https://e.example/a.png"),))),
    )
    for letter in ("OC", "AM"):
        one = bedrock.sent(letter, turns, way="invoke", tools=[inbound.FUNCTION])
        assert PNG in str(one.messages[-1])
        assert "e.example" not in str(one.body)


def test_a_client_of_claudes_format_gets_what_anthropic_would_have_sent() -> None:
    """The frames' events, byte for byte, but for the name that is mapped."""
    plain = anthropic.stream([anthropic.text("Hello", " you")], "end_turn", {"input_tokens": 12, "output_tokens": 9})
    got = bedrock.streamed("AM", "streamed", bedrock.chunks(plain), "invoke")
    assert got.replace(b" ", b"") == plain.replace(b" ", b"")


def test_many_blank_lines_in_binary_frames() -> None:
    """What looks like the end of a text event inside a binary stream is none."""
    start = anthropic.stream([anthropic.text("Hello")], "end_turn", {"input_tokens": 1, "output_tokens": 1})
    data = bedrock.chunks(start[: start.index(b"event: content_block_stop")])
    one = pipe(inbound.surface("AM", stream=True), dialect("AM", "invoke"), bedrock.ask("AM", "streamed"), bedrock.FACE)
    one.feed(data)
    noise = bedrock.frame({":message-type": "event", ":event-type": "new"}, b"\n\n" * 100_000)
    one.feed(noise[:50])
    one.feed(noise[50:-3])
    one.feed(noise[-3:])
    assert one.heard.failure is None
    assert one.feed(
        bedrock.chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}})
    )


ODD_CHUNKS = {
    "no JSON": b"nope",
    "no bytes": b'{"p":"x"}',
    "bytes that are no text": b'{"bytes":7}',
    "no base64": b'{"bytes":"***"}',
    "nothing": b"",
}


@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_chunks_that_cannot_be_read(name: str) -> None:
    """They are counted, and three in a row end the stream."""
    odd = bedrock.frame({":message-type": "event", ":event-type": "chunk"}, ODD_CHUNKS[name])
    assert [type(one).__name__ for one in bedrock.events(odd, "invoke")][:1] == ["Skipped"]
    assert b"error" in bedrock.streamed("AM", "streamed", odd * 3, "invoke")


@pytest.mark.parametrize("data", [b"[1]", b"7", b'{"type":7}', b"{}", b'{"type":"\\n"}', b"\xff\xfe"])
def test_events_that_are_none(data: bytes) -> None:
    """What stands inside a frame is not trusted either."""
    bedrock.events(bedrock.chunk(data), "invoke")
    bedrock.streamed("AM", "streamed", bedrock.chunk(data) * 2, "invoke")


def test_an_event_of_several_lines() -> None:
    """It is one line for the client."""
    data = b'{\n"type":"content_block_delta","index":0,\n"delta":{"type":"text_delta","text":"Hi"}}'
    (frame,) = dialect("AM", "invoke").frames().feed(bedrock.chunk(data))
    assert frame.raw.count(b"\n") == 3
    assert frame.event == "content_block_delta"


# Answers.


def test_citations_of_the_web() -> None:
    """A citation with words of its own covers them, one without covers the text before it; others are kept whole."""
    web = {"location": {"web": {"url": "https://e.example/a", "domain": "e.example"}}, "title": ""}
    page = {"location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}, "title": "a"}
    content = (
        {"text": "One. "},
        {"citationsContent": {"content": [{"text": "Two."}], "citations": [web]}},
        {"citationsContent": {"citations": [web, page]}},
    )
    for events in (
        dialect("OC").answer(bedrock.ask("OC"), tree.Document(Message(content=content).whole())),
        bedrock.events(Message(content=content).stream()),
    ):
        cited = [one for one in events if isinstance(one, Cited)]
        place = {"url": "https://e.example/a", "title": "e.example", "start": 5, "end": 9}
        assert [(one.family, one.value) for one in cited] == [("web", place), ("web", place), ("bedrock", page)]


def test_seals_that_are_no_text() -> None:
    """They are kept as they are, under a name of their own."""
    for value in ("/w==", "***", "Cg=="):
        content = ({"reasoningContent": {"redactedContent": value}}, {"text": "x"})
        (sealed,) = [
            one for one in bedrock.events(Message(content=content).stream()) if isinstance(one, ReasoningSealed)
        ]
        assert (sealed.data, sealed.format) == (value, "bedrock-converse-v1")


def test_a_signature_in_pieces() -> None:
    """It is told whole, when its block ends or the answer does."""
    pieces = [
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": one}}})
        for one in "ab"
    ]
    end = [("messageStop", {"stopReason": "end_turn"}), ("metadata", {})]
    data = b"".join(bedrock.event(name, value) for name, value in pieces + end)
    (sealed,) = [one for one in bedrock.events(data) if isinstance(one, ReasoningSealed)]
    assert sealed.signature == "ab"


def test_calls_without_arguments_and_ids() -> None:
    """No arguments are an empty object; an id is made where there is none, the same one each time."""
    content = ({"toolUse": {"toolUseId": "", "name": "f", "input": {}}},)
    message = Message(content=content, stop="tool_use")
    whole = fold(dialect("OC").answer(bedrock.ask("OC"), tree.Document(message.whole()))).choices[0].calls
    (streamed,) = fold(bedrock.events(message.stream())).choices[0].calls
    assert [(one.id, one.name, one.arguments) for one in whole] == [(streamed.id, "f", "{}")]
    assert streamed.id.startswith("tooluse_")


def test_which_stop_is_told() -> None:
    """In either of the two places where it stands."""
    for extra in ({"stop_sequence": "END"}, {"delta": {"stop_sequence": "END"}}):
        message = Message(stop="stop_sequence", extra={"additionalModelResponseFields": extra})
        (finished,) = [one for one in bedrock.events(message.stream()) if isinstance(one, Finished)]
        assert finished.stop_sequence == "END"
        assert orjson.loads(bedrock.whole("AM", message.whole()))["stop_sequence"] == "END"


def test_a_stream_that_is_cut() -> None:
    """Before its stop reason it is a failure, behind it an answer."""
    data = Message().stream()
    for at in range(0, len(data), 7):
        events = bedrock.events(data[:at])
        finished = any(isinstance(one, Finished) for one in events)
        assert any(isinstance(one, Failed) for one in events) is not finished


USAGES: list[Any] = [
    {},
    None,
    7,
    {"inputTokens": -1, "outputTokens": "7"},
    {"inputTokens": MOST + 1, "outputTokens": 2**63},
    {"inputTokens": True, "outputTokens": None},
]


@pytest.mark.parametrize("usage", USAGES, ids=range(len(USAGES)))
def test_usage_that_is_none(usage: Any) -> None:
    """Numbers that nobody can mean are not there."""
    data = bedrock.event("messageStop", {"stopReason": "end_turn"}) + bedrock.event("metadata", {"usage": usage})
    assert fold(bedrock.events(data)).usage is None


def test_usage_in_part() -> None:
    """Parts above their whole are clamped; the second names serve where the first are missing; tools are counted."""
    usage = {
        "inputTokens": 5,
        "cacheReadInputTokenCount": 7,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 3}, {"ttl": "5m", "inputTokens": "x"}, 7],
        "serverToolUsage": {"webSearches": 2, "odd": "x"},
    }
    data = bedrock.event("messageStop", {"stopReason": "end_turn"}) + bedrock.event("metadata", {"usage": usage})
    used = fold(bedrock.events(data)).usage
    assert used is not None
    assert (used.prompt, used.cache_read, used.cache_write, used.cache_write_1h) == (15, 7, 0, 3)
    assert used.server_tools == {"webSearches": 2}


BODIES = [
    (b"", 502),
    (b"<html>", 502),
    (b"[]", 502),
    (b"7", 502),
    (b'{"output":{}}', 502),
    (b'{"output":{"message":{"content":7}}}', 502),
    (b'{"message":"no"}', 502),
    (b'{"error":{"message":"no","code":429}}', 429),
]


@pytest.mark.parametrize(("data", "status"), BODIES, ids=range(len(BODIES)))
def test_answers_that_are_none(data: bytes, status: int) -> None:
    """A 200 without an answer is a failure, whatever it is."""
    (event,) = dialect("OC").answer(bedrock.ask("OC"), tree.Document(data))
    assert isinstance(event, Failed)
    assert event.failure.status == status


ERRORS = [b"", b"<html>oops</html>", b"[]", b"\xff", b'{"message":7}', b'{"Message":"x"}', b'{"__type":7}']


@pytest.mark.parametrize("data", ERRORS, ids=range(len(ERRORS)))
@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_errors_that_say_little(data: bytes, status: int) -> None:
    """Any body at any status is a failure in our terms."""
    for way in bedrock.WAYS:
        failure = dialect("OC", way).failure(status, {}, data)
        assert failure.upstream_status == status
        assert failure.status >= 400


def test_error_types_in_the_body() -> None:
    """The exception may be named in the body instead of a header."""
    failure = dialect("OC").failure(400, {}, b'{"__type":"com.amazon.coral.service#ThrottlingException","message":"x"}')
    assert (failure.status, failure.kind) == (429, "rate_limit")


def test_an_error_without_words_in_a_stream() -> None:
    """Messages of kind error bring code and text in their headers."""
    headers = {":message-type": "error", ":error-code": "ServiceUnavailable", ":error-message": "gone"}
    for way in bedrock.WAYS:
        (failed,) = [one for one in bedrock.events(bedrock.frame(headers), way) if isinstance(one, Failed)][:1]
        assert failed.failure.status == 503
        assert "gone" in failed.failure.message
        odd = bedrock.frame({":message-type": "exception", ":exception-type": "x"}, b"\xff")
        assert any(isinstance(one, Failed) for one in bedrock.events(odd, way))


# Garbage.

WHOLE = Message(
    content=(
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "s"}}},
        {"text": "Hello"},
        {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
        {"citationsContent": {"content": [{"text": "x"}], "citations": [{"location": {"web": {"url": "u"}}}]}},
    ),
    stop="tool_use",
    usage={"inputTokens": 3, "outputTokens": 4, "cacheDetails": [{"ttl": "1h", "inputTokens": 1}]},
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, one in inner for place in places(one, (*path, name)))]


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The tree with something else at the place."""
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


@settings(max_examples=200)
@given(st.data())
def test_mutated_answers(data: st.DataObject) -> None:
    """Anything anywhere in an answer ends in events."""
    value = orjson.loads(WHOLE.whole())
    wrong = replaced(value, data.draw(st.sampled_from(places(value))), data.draw(JUNK))
    try:
        raw = orjson.dumps(wrong)
    except TypeError:
        return
    events = dialect("OC").answer(bedrock.ask("OC"), tree.Document(raw))
    rendered(events)


def rendered(events: Any) -> None:
    """Every surface can tell the events."""
    folded = fold(events)
    if folded.failure is None:
        for letter in inbound.FORMATS:
            inbound.surface(letter).answer(bedrock.ask(letter), bedrock.FACE, events, bedrock.NOTHING)


EVENTS = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Hello"}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"reasoningContent": {"text": "x", "signature": "s"}}}),
    ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"reasoningContent": {"redactedContent": "eA=="}}}),
    ("contentBlockDelta", {"contentBlockIndex": 3, "delta": {"citation": {"location": {"web": {"url": "u"}}}}}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    ("messageStop", {"stopReason": "tool_use", "additionalModelResponseFields": {"stop_sequence": "x"}}),
    ("metadata", {"usage": {"inputTokens": 1, "outputTokens": 2, "serverToolUsage": {"x": 1}}}),
    (":exception", {"status": 429, "message": "x", "name": "y"}),
]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.data()), min_size=1, max_size=12))
def test_mutated_streams(drawn: list[tuple[tuple[str, Any], st.DataObject]]) -> None:
    """Events in any order, anything anywhere in them: the reader goes on, and says how it ended."""
    reader = dialect("OC").reader(bedrock.ask("OC", "streamed"))
    heard: list[Event] = []
    for (name, value), data in drawn:
        wrong = replaced(value, data.draw(st.sampled_from(places(value))), data.draw(JUNK))
        try:
            raw = orjson.dumps(wrong)
        except TypeError:
            continue
        heard += reader.read(sse.Frame(b"", name, raw))
    heard += reader.close()
    rendered(heard)
    ends = [one for one in heard if isinstance(one, Finished)]
    assert len(ends) <= 1
    assert ends or any(isinstance(one, Failed) for one in heard)


@settings(max_examples=60)
@given(
    st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["converse", "invoke"]), st.sampled_from(["OC", "AM"])
)
def test_damaged_bytes_end_in_the_clients_grammar(at: int, value: int, way: str, letter: str) -> None:
    """One wrong byte anywhere in a stream is an answer or an error to the client, never anything else."""
    plain = anthropic.stream([anthropic.text("Hello")], "end_turn", {"input_tokens": 1, "output_tokens": 2})
    data = bytearray(WHOLE.stream() if way == "converse" else bedrock.chunks(plain))
    data[at % len(data)] = value
    bedrock.told(letter, "streamed", bytes(data), way, tools=[inbound.FUNCTION])


def test_every_cut_of_a_stream() -> None:
    """Where the bytes are cut changes nothing for a client of either format."""
    plain = anthropic.stream(
        [anthropic.text("Grüß ", "\U0001f600")], "end_turn", {"input_tokens": 1, "output_tokens": 2}
    )
    for way, data in (("converse", WHOLE.stream()), ("invoke", bedrock.chunks(plain))):
        for letter in ("OC", "AM"):
            given = bedrock.ask(letter, "streamed")
            surface = inbound.surface(letter, stream=True)
            expected = bedrock.streamed(letter, "streamed", data, way)
            for at in range(1, len(data)):
                one = pipe(surface, dialect(letter, way), given, bedrock.FACE)
                got = one.feed(data[:at]) + one.feed(data[at:]) + one.drain()
                assert got + one.close(one.heard.usage or bedrock.NOTHING) == expected


def test_memory_is_bounded() -> None:
    """A message that would never end is refused when it says how long it is."""
    for way in bedrock.WAYS:
        decoder = dialect("OC", way).frames()
        assert isinstance(decoder, Decoder)
        huge = (1 << 31).to_bytes(4, "big") + bytes(4)
        assert decoder.feed(huge + crc32(huge).to_bytes(4, "big"))
        assert decoder.feed(bytes(1000)) == []
        assert decoder.empty
