"""The acceptance table for providers of the OpenAI format as clients of Gemini's (GG) see it, row by row.

Answers are read back with a parser of their own, strict about the grammar: calls whole, one finish per candidate and on
the last chunk, usage beside it; every stream as events and as one array, at once and cut at every byte.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.anthropic import AnthropicCounting
from newapi_proxy.adapters.base import Dialect, Outgoing, Target, speaks
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Metered, fold
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.relay.tagged import Tagged
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import PATH, QUERY, Face
from newapi_proxy.surfaces.gemini import COUNT, DIALECT, GENERATE, STREAM
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document
from tests.fakes.golden import streamed
from tests.fakes.rows import NOW, Got, adapter, chunk, sent, sse, whole

HI = [{"role": "user", "parts": [{"text": "Hi"}]}]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
PNG = "iVBORw0KGgo="
TOOLS = [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}]
WAYS = pytest.mark.parametrize("stream", [False, True])


def ask(contents: Any = HI, *, stream: bool = False, alt: str = "sse", **more: Any) -> Ask:
    """An ask of this format."""
    surface = STREAM if stream else GENERATE
    return surface.read(orjson.dumps({"contents": contents, **more}), {PATH: "m", QUERY: f"alt={alt}"})


def settings(**config: Any) -> Ask:
    """An ask with these generation settings."""
    return ask(generationConfig=config)


def body(asked: Ask, type_: str, model: str = "m", **options: Any) -> dict[str, Any]:
    """The body that goes out."""
    out = sent(asked, type_, model, **options).body
    assert isinstance(out, dict)
    return out


def refused(asked: Ask, type_: str, model: str = "m", **options: Any) -> Unsupported:
    """What sending raises; a 400."""
    with pytest.raises(Unsupported) as told:
        sent(asked, type_, model, **options)
    assert told.value.status == 400
    return told.value


def dialect(type_: str, model: str = "m", **options: Any) -> Dialect:
    """The provider's dialect for this client."""
    one, chosen = adapter(type_, **options)
    found = speaks(one, DIALECT, model)
    assert found is not None
    return Tagged(found) if chosen.think_tags else found


def got(type_: str, upstream: bytes, *, stream: bool = False, **options: Any) -> Got:
    """What the client makes of a 200."""
    one = dialect(type_, **options)
    face = Face(model="m", id="made", created=NOW, rename=ADAPTERS[type_].aliases)
    if stream:
        found = []
        for alt in ("sse", "json"):
            asked = ask(stream=True, alt=alt)
            for pieces in ([upstream], [upstream[at : at + 1] for at in range(len(upstream))]):
                found.append(_stream(streamed(pipe(STREAM, one, asked, face), pieces), alt))
        assert all(other == found[0] for other in found[1:])
        return found[0]
    events = one.answer(ask(), Document(upstream))
    told = fold(events)
    if told.failure is not None:
        return Got(error=orjson.loads(GENERATE.failure(told.failure, "r"))["error"])
    node = orjson.loads(GENERATE.answer(ask(), face, events, told.usage or NOTHING))
    return _taken(Got(raw=orjson.dumps(node)), node, last=True)


def _stream(data: bytes, alt: str) -> Got:
    if alt == "json":
        nodes = orjson.loads(data)
    else:
        assert data.endswith(b"\r\n\r\n")
        lines = data.split(b"\r\n\r\n")[:-1]
        assert all(one.startswith(b"data: ") and b"\n" not in one for one in lines)
        nodes = [orjson.loads(one[6:]) for one in lines]
    out = Got(raw=orjson.dumps(nodes))
    if "error" in nodes[-1]:
        out.error = nodes.pop()["error"]
    for number, node in enumerate(nodes):
        _taken(out, node, last=out.error is None and number == len(nodes) - 1)
    return out


def _taken(out: Got, node: dict[str, Any], *, last: bool) -> Got:
    (candidate,) = node["candidates"]
    assert candidate["index"] == 0
    assert candidate["content"]["role"] == "model"
    assert ("finishReason" in candidate) is last
    out.model = node["modelVersion"]
    out.finish = candidate.get("finishReason")
    for part in candidate["content"]["parts"]:
        if "functionCall" in part:
            call = part["functionCall"]
            out.calls.append((call["id"], call["name"], orjson.dumps(call["args"]).decode()))
        elif part.get("thought"):
            out.thought += part["text"]
        else:
            out.text += part["text"]
    if last:
        usage = node["usageMetadata"]
        completion = usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
        out.usage = (usage["promptTokenCount"], completion, usage.get("cachedContentTokenCount", 0))
    return out


def failure(type_: str, status: int, node: Any) -> tuple[UpstreamFailure, dict[str, Any]]:
    """The provider's error in our terms, and as the client sees it."""
    one = dialect(type_).failure(status, {}, orjson.dumps(node))
    told = orjson.loads(GENERATE.failure(one, ""))["error"]
    assert told["code"] == one.status
    return one, told


def seeing(*parts: dict[str, Any]) -> Ask:
    """An ask with media: by value with `data`, else by address."""
    given = [{"inlineData" if "data" in part else "fileData": part} for part in parts]
    return ask([{"role": "user", "parts": given}])


INLINE = {"mimeType": "image/png", "data": PNG}
ADDRESS = {"mimeType": "image/png", "fileUri": "https://h.example/a.png"}
CALLED = [
    *HI,
    {"role": "model", "parts": [{"functionCall": {"id": "call_abc123", "name": "f"}}]},
    {"role": "user", "parts": [{"functionResponse": {"id": "call_abc123", "name": "f", "response": {"output": "r"}}}]},
]
THOUGHT = [
    *HI,
    {"role": "model", "parts": [{"text": "old", "thought": True}, {"text": "x"}]},
    *HI,
    {"role": "model", "parts": [{"text": "new", "thought": True}, {"functionCall": {"name": "f"}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}}}]},
]


# Requests: the path in the body that goes out, its value; what is dropped.

ABSENT: Any = tree.MISSING
GONE: list[Any] = [
    ("T-OPEN-001", ask(systemInstruction={"parts": [{"text": "S"}]}), "openai", "up", "messages.0.content", "S", ()),
    ("T-OPEN-001", ask(stream=True), "openai", "up", "stream_options.include_usage", True, ()),
    ("T-OPEN-003", settings(maxOutputTokens=7), "openai", "o3-mini", "max_completion_tokens", 7, ()),
    ("T-OPEN-004", settings(temperature=0.5), "openai", "gpt-5", "temperature", ABSENT, ("temperature",)),
    ("T-OPEN-004", settings(temperature=0.5), "openai", "gpt-5.1", "temperature", 0.5, ()),
    (
        "T-OPEN-005",
        settings(thinkingConfig={"thinkingLevel": "MINIMAL"}),
        "openai",
        "gpt-5.6",
        "reasoning_effort",
        "low",
        None,
    ),
    (
        "T-OPEN-006",
        ask(systemInstruction={"parts": [{"text": "S"}]}),
        "openai",
        "o1-mini",
        "messages.0.role",
        "user",
        (),
    ),
    ("T-MIST-001", settings(seed=3), "mistral", "m", "random_seed", 3, ()),
    ("T-MIST-006", seeing(INLINE), "mistral", "m", "messages.0.content.0.type", "image_url", ()),
    (
        "T-MIST-006",
        seeing(ADDRESS),
        "mistral",
        "m",
        "messages.0.content.0.image_url.url",
        "https://h.example/a.png",
        (),
    ),
    ("T-MIST-012", ask(serviceTier="FLEX"), "mistral", "m", "service_tier", ABSENT, ("service_tier",)),
    (
        "T-MIST-013",
        settings(thinkingConfig={"thinkingLevel": "MEDIUM"}),
        "mistral",
        "mistral-medium-3.5",
        "reasoning_effort",
        "high",
        ("reasoning_effort~",),
    ),
    (
        "T-MIST-013",
        settings(thinkingConfig={"thinkingBudget": 9000}),
        "mistral",
        "magistral-small",
        "prompt_mode",
        "reasoning",
        (),
    ),
    (
        "T-DEEP-005",
        settings(responseMimeType="application/json", responseSchema={"title": "T", "type": "OBJECT"}),
        "deepseek",
        "m",
        "response_format",
        {"type": "json_object"},
        (),
    ),
    ("T-XAI-003", settings(stopSequences=["a"]), "xai", "grok-4", "stop", ABSENT, ("stop",)),
    (
        "T-XAI-005",
        settings(thinkingConfig={"thinkingBudget": 0}),
        "xai",
        "grok-4.5",
        "reasoning_effort",
        "low",
        ("reasoning_effort~",),
    ),
    ("T-ZHIP-003", settings(temperature=0), "zhipu", "m", "do_sample", False, None),
    ("T-ZHIP-004", settings(temperature=1), "zhipu", "m", "temperature", 0.99, None),
    ("T-ZHIP-005", settings(stopSequences=["a", "b"]), "zhipu", "m", "stop", ["a"], None),
    ("T-ZHIP-006", seeing(INLINE), "zhipu", "glm-4v", "messages.0.content.0.image_url.url", PNG, ()),
    (
        "T-ZHIP-007",
        seeing(ADDRESS),
        "zhipu",
        "glm-4v",
        "messages.0.content.0.image_url.url",
        "https://h.example/a.png",
        (),
    ),
    (
        "T-ZHIP-009",
        ask(tools=TOOLS, toolConfig={"functionCallingConfig": {"mode": "ANY"}}),
        "zhipu",
        "m",
        "tool_choice",
        ABSENT,
        ("tool_choice~",),
    ),
    ("T-ZHIP-010", ask(THOUGHT), "zhipu", "m", "messages.3.reasoning_content", "new", ()),
    (
        "T-YI-002",
        seeing(INLINE),
        "lingyiwanwu",
        "yi-vision",
        "messages.0.content.0.image_url.url",
        f"data:image/png;base64,{PNG}",
        (),
    ),
    ("T-YI-003", settings(seed=1, topK=5), "lingyiwanwu", "m", "seed", ABSENT, ("seed", "top_k")),
]


@pytest.mark.parametrize(
    ("asked", "type_", "model", "path", "value", "dropped"),
    [one[1:] for one in GONE],
    ids=[f"{one[0]}-{number}" for number, one in enumerate(GONE)],
)
def test_what_goes_out(asked: Ask, type_: str, model: str, path: str, value: Any, dropped: Any) -> None:
    """One field of the body that goes out, and what the header of dropped parameters says."""
    out = sent(asked, type_, model)
    assert tree.find(out.body, path) == value or (value is ABSENT and tree.find(out.body, path) is ABSENT)
    if dropped is not None:
        assert out.dropped == dropped


NOT_SENT: list[Any] = [
    ("T-DEEP-006", seeing(ADDRESS), "deepseek", "deepseek-chat", {}, "unsupported_content"),
    ("T-GROQ-007", settings(candidateCount=2), "groq", "m", {}, "unsupported_parameter"),
    ("T-XAI-006", seeing({**INLINE, "mimeType": "image/webp"}), "xai", "m", {}, "unsupported_content"),
    ("T-XAI-006", seeing({"fileUri": "https://h.example/a.gif"}), "xai", "m", {}, "unsupported_content"),
    ("T-YI-003", ask(tools=TOOLS), "lingyiwanwu", "m", {"no_tools": True}, "unsupported_parameter"),
    ("T-ZHIP-008", seeing(*[ADDRESS] * 6), "zhipu", "glm-4v", {}, None),
    ("T-ZHIP-016", ask(tools=TOOLS), "zhipu", "m", {"api": "v3"}, None),
    ("T-ZHIP-016", seeing(ADDRESS), "zhipu", "m", {"api": "v3"}, None),
    ("T-GEMI-078", ask(cachedContent="cachedContents/a"), "openai", "m", {}, "unsupported_parameter"),
]


@pytest.mark.parametrize(
    ("asked", "type_", "model", "options", "code"),
    [one[1:] for one in NOT_SENT],
    ids=[f"{one[0]}-{number}" for number, one in enumerate(NOT_SENT)],
)
def test_what_is_refused(asked: Ask, type_: str, model: str, options: dict[str, Any], code: str | None) -> None:
    """A 400 before anything is sent."""
    error = refused(asked, type_, model, **options)
    assert code in (None, error.code)


def test_addresses_and_keys() -> None:
    """T-AZUR-001, T-AZUR-002, T-AZUR-003, T-AZUR-011, T-CLFL-001, T-CUST-001, T-CUST-002, T-CUST-003: as for others."""
    base = "https://r.example"
    classic = sent(ask(), "azure", "gpt-4.1", base_url=base, api_version="2024-10-21")
    assert classic.url == f"{base}/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21"
    assert classic.headers["api-key"] == "k"
    newer = sent(settings(temperature=1), "azure", "m", base_url=base, bearer=True, strip_params=("temperature",))
    assert newer.url == f"{base}/openai/v1/chat/completions"
    assert (newer.headers["authorization"], newer.dropped) == ("Bearer k", ("temperature",))
    assert "/accounts/acc/ai/v1/" in sent(ask(), "cloudflare", account="acc").url
    custom = sent(ask(), "custom", "a/b", base_url="https://h.example/x/{model}?y=1", header="X-Key")
    assert (custom.url, custom.headers["x-key"]) == ("https://h.example/x/a%2Fb?y=1", "k")


def test_zhipu_keys() -> None:
    """T-ZHIP-001, T-ZHIP-002: a key of two parts is signed, a plain one goes as it is."""
    token = sent(ask(), "zhipu", key="id.secret").headers["authorization"].removeprefix("Bearer ")
    head, claims = (orjson.loads(base64.urlsafe_b64decode(one + "==")) for one in token.split(".")[:2])
    assert (head["sign_type"], claims["api_key"]) == ("SIGN", "id")
    assert sent(ask(), "zhipu", key="plain").headers["authorization"] == "Bearer plain"


def test_mistral_turns() -> None:
    """T-MIST-002, T-MIST-003, T-MIST-004: a word between tool and user, a prefill's mark, ids of nine characters."""
    contents = [*CALLED, *HI, {"role": "model", "parts": [{"text": "So"}]}]
    told = body(ask(contents, tools=TOOLS), "mistral")["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert told[-1]["prefix"] is True
    id_ = told[1]["tool_calls"][0]["id"]
    assert (len(id_), id_) == (9, told[2]["tool_call_id"])


def test_mistral_pdf() -> None:
    """T-MIST-005: a PDF is a document."""
    data = base64.b64encode(b"%PDF-1").decode()
    (told,) = body(seeing({"mimeType": "application/pdf", "data": data}), "mistral")["messages"][0]["content"]
    assert (told["type"], told["document_url"]) == ("document_url", f"data:application/pdf;base64,{data}")


def test_deepseek_replay() -> None:
    """T-DEEP-002, T-DEEP-003: the present turn's thinking is sent, older is not."""
    told = body(ask(THOUGHT), "deepseek")["messages"]
    assert [one.get("reasoning_content") for one in told] == [None, None, None, "new", None]


def test_media_in_results() -> None:
    """T-OPEN-011: what a tool message cannot hold follows the last of them as a user's message."""
    result = {"name": "f", "response": {"output": "r"}, "parts": [{"inlineData": INLINE}]}
    told = body(ask([*CALLED[:2], {"role": "user", "parts": [{"functionResponse": result}]}]), "openai")["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "user"]
    assert told[2]["tool_call_id"] == "call_abc123"
    assert told[3]["content"][0]["image_url"]["url"] == f"data:image/png;base64,{PNG}"


def test_details_replayed() -> None:
    """T-ORTR-007: another provider's signed thinking, as this client keeps it, goes back as it came."""
    detail = {"type": "reasoning.text", "text": "t", "signature": "s+/=", "format": "anthropic-claude-v1", "index": 0}
    upstream = whole({"content": "x", "reasoning_details": [detail]})
    answer = orjson.loads(got("openrouter", upstream).raw)
    history = [*HI, answer["candidates"][0]["content"], *HI]
    told = body(ask(history), "openrouter")["messages"][1]
    assert (told["content"], told["reasoning_details"]) == ("x", [detail])


def test_old_invoke() -> None:
    """T-ZHIP-014: the older interface: a prompt of texts, an answer in quotes."""
    asked = ask(systemInstruction={"parts": [{"text": "S"}]}, generationConfig={"temperature": 0.5})
    out = sent(asked, "zhipu", "chatglm_turbo", key="id.secret", api="v3")
    assert isinstance(out.body, dict)
    assert out.body["prompt"][0] == {"role": "system", "content": "S"}
    assert out.body["temperature"] == 0.5
    data = {"task_id": "t1", "choices": [{"role": "assistant", "content": '" a\\n\\"b\\""'}], "usage": USAGE}
    answer = got("zhipu", orjson.dumps({"code": 200, "success": True, "data": data}), api="v3")
    assert (answer.text, answer.finish, answer.usage) == (' a\n"b"', "STOP", (10, 5, 0))


def test_old_invoke_stream() -> None:
    """T-ZHIP-015: text lines as they are, usage from the line `meta`."""
    meta = orjson.dumps({"task_status": "SUCCESS", "usage": USAGE})
    upstream = b"event:add\nid:1\ndata:Hello\n\nevent:add\nid:1\ndata: there\ndata:!\n\n"
    upstream += b"event:finish\nid:1\ndata:\nmeta:" + meta + b"\n\n"
    answer = got("zhipu", upstream, stream=True, api="v3")
    assert (answer.text, answer.finish, answer.usage) == ("Hello there\n!", "STOP", (10, 5, 0))


# Answers.


def spoken(*deltas: dict[str, Any], end: str = "stop", **last: Any) -> bytes:
    """A stream of these deltas and a finish."""
    return sse(*(chunk(one) for one in deltas), chunk(finish=end, **last))


@WAYS
def test_typed_content(stream: bool) -> None:
    """T-MIST-007 to 010: typed content, calls whole and untyped, usage on the last chunk, cached tokens."""
    typed = [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "x"}]
    call = {"id": "abcdefghi", "index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
    usage = {**USAGE, "num_cached_tokens": 4}
    upstream = whole({"content": typed, "tool_calls": [call]}, "tool_calls", usage=usage)
    if stream:
        upstream = sse(
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": [one]}) for one in typed),
            chunk({"tool_calls": [call]}, "tool_calls", usage=usage),
        )
    answer = got("mistral", upstream, stream=stream)
    assert (answer.text, answer.thought, answer.calls) == ("x", "t", [("abcdefghi", "f", '{"a":1}')])
    assert (answer.finish, answer.usage) == ("STOP", (10, 5, 4))


def test_ends() -> None:
    """T-MIST-011, T-AZUR-005, T-AZUR-006: a provider's own words for the end; a choice without a message."""
    assert got("mistral", whole({"content": "x"}, "model_length")).finish == "MAX_TOKENS"
    assert got("mistral", whole({"content": ""}, "error")).error is not None
    node = orjson.loads(whole({}, "content_filter"))
    del node["choices"][0]["message"]
    node["choices"][0]["content_filter_results"] = {"hate": {"filtered": True}}
    answer = got("azure", orjson.dumps(node))
    assert (answer.text, answer.finish, b"content_filter_results" in answer.raw) == ("", "SAFETY", False)


def test_filter_chunks() -> None:
    """T-AZUR-004, T-AZUR-007: chunks of filter results alone are neither text nor usage."""
    head = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
    late = chunk(choice={"content_filter_results": {}})
    del late["choices"][0]["delta"]
    upstream = sse(head, chunk({"role": "assistant", "content": "x"}), chunk(finish="stop"), late)
    answer = got("azure", upstream, stream=True)
    assert (answer.text, answer.finish) == ("x", "STOP")


@WAYS
@pytest.mark.parametrize(
    ("type_", "options", "message", "deltas"),
    [
        ("groq", {}, {"content": "x", "reasoning": "t"}, [{"reasoning": "t"}, {"content": "x"}]),
        (
            "groq",
            {"think_tags": True},
            {"content": "<think>t</think>x"},
            [{"content": "<thi"}, {"content": "nk>t</th"}, {"content": "ink>x"}],
        ),
        ("deepseek", {}, {"content": "x", "reasoning_content": "t"}, [{"reasoning_content": "t"}, {"content": "x"}]),
    ],
    ids=["T-GROQ-001", "T-GROQ-002", "T-DEEP-001"],
)
def test_reasoning(type_: str, options: Any, message: Any, deltas: Any, stream: bool) -> None:
    """Thinking, wherever it stands, is told as thought parts."""
    answer = got(type_, spoken(*deltas) if stream else whole(message), stream=stream, **options)
    assert (answer.text, answer.thought, answer.finish) == ("x", "t", "STOP")


def test_usage_in_odd_places() -> None:
    """T-GROQ-003, T-GROQ-008: usage in x_groq alone is read, told twice it is counted once."""
    start, said = chunk({"content": "x"}), chunk(finish="stop", x_groq={"id": "r", "usage": USAGE})
    assert got("groq", sse(start, said), stream=True).usage == (10, 5, 0)
    assert got("groq", sse(start, {**said, "usage": USAGE}), stream=True).usage == (10, 5, 0)


def test_own_fields() -> None:
    """T-GROQ-006, T-ORTR-009, T-ORTR-010: a provider's own fields have no place here."""
    node = orjson.loads(whole({"content": "x", "executed_tools": [{"index": 0}]}, usage={**USAGE, "cost": 0.25}))
    node["choices"][0]["native_finish_reason"] = "STOP"
    for type_ in ("groq", "openrouter"):
        raw = got(type_, orjson.dumps(node)).raw
        assert not any(name in raw for name in (b"executed_tools", b"cost", b"native"))


def test_deepseek_stream() -> None:
    """T-DEEP-001, T-DEEP-004, T-DEEP-011: null is no text, hits are cached, the client sees the name it asked for."""
    named = {"model": "deepseek-v4-flash"}
    usage = {**USAGE, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}
    upstream = sse(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}, **named),
        chunk({"content": "x", "reasoning_content": None}, **named),
        chunk({"content": "", "reasoning_content": None}, "stop", usage=usage, **named),
    )
    answer = got("deepseek", upstream, stream=True)
    assert (answer.text, answer.usage, answer.model) == ("x", (10, 5, 4), "m")
    assert b"deepseek-v4-flash" not in answer.raw


@WAYS
def test_gave_up(stream: bool) -> None:
    """T-DEEP-007: a server that gave up is overloaded, whatever it had said."""
    word = "insufficient_system_resource"
    answer = got(
        "deepseek", spoken({"content": "x"}, end=word) if stream else whole({"content": "x"}, word), stream=stream
    )
    assert answer.error is not None
    assert (answer.error["code"], answer.error["status"]) == (503, "UNAVAILABLE")


def test_waiting() -> None:
    """T-DEEP-009, T-ORTR-001: comments and blank lines are nobody's text."""
    for type_, wait in (("deepseek", b": keep-alive\n\n\n\n"), ("openrouter", b": OPENROUTER PROCESSING\n\n")):
        answer = got(type_, wait + spoken({"content": "x"}), stream=True)
        assert answer.text == "x"


def test_openrouter_stream() -> None:
    """T-ORTR-002, T-ORTR-003, T-ORTR-011: roles and finishes repeated, usage with and without choices."""
    said = [chunk({"role": "assistant", "content": one}) for one in ("x", "y")]
    ends = [chunk({"role": "assistant", "content": ""}, "stop", usage=USAGE), chunk({"content": ""}, "stop")]
    answer = got("openrouter", sse(*said, *ends, {**chunk(), "choices": [], "usage": USAGE}), stream=True)
    assert (answer.text, answer.finish, answer.usage) == ("xy", "STOP", (10, 5, 0))


@pytest.mark.parametrize(
    ("type_", "last"),
    [
        ("openrouter", chunk({"content": ""}, "error", error={"code": 502, "message": "m"}, usage=USAGE)),
        ("groq", b'event: error\ndata: {"error":{"message":"m","code":"tool_use_failed","status_code":400}}\n\n'),
    ],
    ids=["T-ORTR-004", "T-GROQ-005"],
)
def test_errors_in_a_stream(type_: str, last: Any) -> None:
    """The error is the client's error, nothing follows it, and usage beside it is read."""
    upstream = sse(chunk({"role": "assistant", "content": "x"}), last, done=False)
    answer = got(type_, upstream, stream=True)
    assert (answer.text, answer.finish) == ("x", None)
    assert answer.error is not None
    assert answer.error["message"].startswith("m")
    if type_ == "openrouter":
        one = dialect(type_)
        reader = one.reader(ask())
        events = [event for frame in one.frames().feed(upstream) for event in reader.read(frame)]
        assert any(isinstance(event, Metered) and event.usage.completion == 5 for event in events)


def test_errors_in_a_200() -> None:
    """T-ORTR-005, T-CLFL-005: a 200 that is an error has the status of its code."""
    answer = got("openrouter", orjson.dumps({"error": {"code": 429, "message": "slow down"}}))
    assert answer.error is not None
    assert (answer.error["code"], answer.error["status"]) == (429, "RESOURCE_EXHAUSTED")
    broken = {"success": False, "errors": [{"code": 7003, "message": "a"}, {"message": "b"}], "result": None}
    assert got("cloudflare", orjson.dumps(broken), api="run").error is not None


SAID: list[Any] = [
    ("T-AZUR-008", "azure", 401, {"error": {"code": "401", "message": "m"}}, 502, "INTERNAL", None),
    ("T-AZUR-008", "azure", 429, {"error": {"code": "429", "message": "m"}}, 429, "RESOURCE_EXHAUSTED", "m"),
    ("T-AZUR-009", "azure", 404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, 404, "NOT_FOUND", "m"),
    ("T-AZUR-010", "azure", 400, {"error": {"code": "content_filter", "message": "m"}}, 400, "INVALID_ARGUMENT", "m"),
    (
        "T-CLFL-005",
        "cloudflare",
        400,
        {"errors": [{"message": "a"}, {"message": "b"}]},
        400,
        "INVALID_ARGUMENT",
        "a; b",
    ),
    ("T-CUST-005", "custom", 400, {"detail": "m"}, 400, "INVALID_ARGUMENT", "m"),
    ("T-DEEP-008", "deepseek", 402, {"error": {"message": "Insufficient Balance"}}, 502, "INTERNAL", None),
    (
        "T-GROQ-004",
        "groq",
        400,
        {"error": {"message": "m", "code": "tool_use_failed", "failed_generation": "<f>"}},
        400,
        "INVALID_ARGUMENT",
        "m",
    ),
    ("T-MIST-014", "mistral", 422, {"detail": [{"loc": ["n"], "msg": "bad"}]}, 400, "INVALID_ARGUMENT", "n: bad"),
    (
        "T-ORTR-006",
        "openrouter",
        429,
        {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "too many"}}},
        429,
        "RESOURCE_EXHAUSTED",
        "Provider returned error: too many",
    ),
    ("T-XAI-002", "xai", 400, {"error": "Wrong model", "code": "x"}, 400, "INVALID_ARGUMENT", "Wrong model"),
    ("T-ZHIP-013", "zhipu", 400, {"error": {"code": "1211", "message": "m"}}, 404, "NOT_FOUND", "m"),
    ("T-ZHIP-013", "zhipu", 400, {"error": {"code": "1302", "message": "m"}}, 429, "RESOURCE_EXHAUSTED", "m"),
]


@pytest.mark.parametrize(
    ("type_", "status", "node", "told", "word", "message"),
    [one[1:] for one in SAID],
    ids=[f"{one[0]}-{one[2]}" for one in SAID],
)
def test_refusals(type_: str, status: int, node: Any, told: int, word: str, message: str | None) -> None:
    """A provider's error in Google's shape: status, Google's word, the provider's message."""
    _, shown = failure(type_, status, node)
    assert (shown["code"], shown["status"]) == (told, word)
    assert message in (None, shown["message"])


@WAYS
def test_citations(stream: bool) -> None:
    """T-OPEN-012, T-XAI-004: web citations are grounding."""
    note = {"type": "url_citation", "url_citation": {"url": "https://e.example", "title": "E", "start_index": 0}}
    upstream = spoken({"content": "x"}, {"annotations": [note]})
    raw = got("openai", upstream if stream else whole({"content": "x", "annotations": [note]}), stream=stream).raw
    assert b'{"uri":"https://e.example","title":"E"}' in raw
    assert b"https://e.example" in got("xai", whole({"content": "x"}, citations=["https://e.example"])).raw


def test_usage_details() -> None:
    """T-OPEN-010, T-OPEN-014, T-XAI-001: sound and thoughts are parts, cache writes have no place."""
    ins, outs = {"cache_write_tokens": 4, "audio_tokens": 2}, {"audio_tokens": 3}
    usage = {**USAGE, "prompt_tokens_details": ins, "completion_tokens_details": outs}
    answer = got("openai", whole({"content": "x"}, usage=usage))
    assert answer.usage == (10, 5, 0)
    told = orjson.loads(answer.raw)["usageMetadata"]
    assert told["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 8},
        {"modality": "AUDIO", "tokenCount": 2},
    ]
    assert told["candidatesTokensDetails"][1] == {"modality": "AUDIO", "tokenCount": 3}
    assert "write" not in str(told)
    beside = {"completion_tokens_details": {"reasoning_tokens": 161}}
    usage = {"prompt_tokens": 1889, "completion_tokens": 52, "total_tokens": 2102, **beside}
    node = orjson.loads(got("xai", whole({"content": "x"}, usage=usage)).raw)["usageMetadata"]
    assert (node["candidatesTokenCount"], node["thoughtsTokenCount"], node["totalTokenCount"]) == (52, 161, 2102)


def test_filtered_ending() -> None:
    """T-ZHIP-011, T-ZHIP-012: `sensitive` is a filter's end, usage on the last chunk is told at the end."""
    answer = got("zhipu", spoken({"content": "x"}, {"content": "x"}, end="sensitive", usage=USAGE), stream=True)
    assert (answer.text, answer.finish, answer.usage) == ("xx", "SAFETY", (10, 5, 0))


@WAYS
def test_plain_answers(stream: bool) -> None:
    """T-YI-001, T-CUST-004: text whole and streamed; a server that leaves out finish, usage and the end."""
    parts = (chunk({"content": "x"}), chunk({"content": "y"}), chunk(finish="stop", usage=USAGE))
    answer = got("lingyiwanwu", sse(*parts) if stream else whole({"content": "xy"}), stream=stream)
    assert (answer.text, answer.finish, answer.usage) == ("xy", "STOP", (10, 5, 0))
    loose = got("custom", sse({"choices": [{"delta": {"content": "x"}}], "extra": 1}, done=False), stream=True)
    assert (loose.text, loose.finish) == ("x", "STOP")


def test_wrapped_answers() -> None:
    """T-CLFL-002, T-CLFL-003, T-CLFL-004: `/ai/run` is unwrapped, whole and streamed; no usage is none to bill."""
    result = {"response": "x", "usage": USAGE, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    answer = got("cloudflare", orjson.dumps({"result": result, "success": True}), api="run")
    assert (answer.text, answer.usage, answer.finish) == ("x", (10, 5, 0), "STOP")
    assert [one[1:] for one in answer.calls] == [("f", '{"a":1}')]
    upstream = sse({"response": "x", "p": "ab"}, {"response": "y"}, {"response": "", "usage": USAGE})
    answer = got("cloudflare", upstream, stream=True, api="run")
    assert (answer.text, answer.usage, answer.finish) == ("xy", (10, 5, 0), "STOP")
    node = orjson.loads(whole({"content": "x"}))
    del node["usage"]
    assert fold(dialect("cloudflare").answer(ask(), Document(orjson.dumps(node)))).usage is None


def test_counting_by_another_provider() -> None:
    """T-ANTH-080: countTokens is served by Anthropic's own count."""
    asked = COUNT.read(orjson.dumps({"contents": HI, "systemInstruction": {"parts": [{"text": "S"}]}}), {PATH: "m"})
    outgoing = _counted(asked)
    assert outgoing.url == "https://api.anthropic.com/v1/messages/count_tokens"
    assert isinstance(outgoing.body, dict)
    assert outgoing.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert "max_tokens" not in outgoing.body
    tokens = AnthropicCounting().tokens(b'{"input_tokens": 77}')
    assert orjson.loads(COUNT.count(tokens or 0)) == {"totalTokens": 77}


def _counted(asked: Ask) -> Outgoing:
    one, chosen = adapter("anthropic")
    to = Target(channel="c", base_url=one.base_url, key=Secret("k"), model="claude-sonnet-4-5", options=chosen)
    return AnthropicCounting().request(asked, to)
