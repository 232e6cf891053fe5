"""The acceptance table for providers of the OpenAI format, row by row, for clients of chat (OC) and messages (AM)."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.events import Metered
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document
from tests.fakes.rows import AM, HI, OC, ask, chunk, dialect, failure, got, sent, sse, whole

CALLS = [{"type": "tool_use", "id": id_, "name": "f", "input": {}} for id_ in ("call_a", "call_b")]
CUT = [  # what a client may make of one turn with two calls, since this format joins the pieces
    *HI,
    {"role": "assistant", "content": [{"type": "text", "text": "One"}, CALLS[0]]},
    {"role": "assistant", "content": [{"type": "text", "text": " two."}, CALLS[1]]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": one["id"], "content": "x"} for one in CALLS]},
]


@pytest.mark.parametrize("type_", ["openai", "groq", "mistral", "cohere"])
def test_calls_of_a_turn_that_was_cut(type_: str) -> None:
    """B.11: calls that wait for their results stand in one message, since the results must follow them at once."""
    asked = ask(AM, messages=CUT, tools=[{"name": "f", "input_schema": {"type": "object"}}])
    sent_ = sent(asked, type_, "command-a-03-2025" if type_ == "cohere" else "m").body
    assert isinstance(sent_, dict)
    _, said, *results = sent_["messages"]
    content = said["content"]
    told = content if isinstance(content, str) else "".join(part["text"] for part in content)
    assert ("".join(told.split()), len(said["tool_calls"])) == ("Onetwo.", 2)
    assert [one["tool_call_id"] for one in results] == [one["id"] for one in said["tool_calls"]]


def test_a_system_turn_of_its_providers_blocks_alone() -> None:
    """No message is made of what another provider cannot be told."""
    adds = {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}}]}
    sent_ = sent(ask(AM, messages=[*HI, adds]), "openai").body
    assert isinstance(sent_, dict)
    assert sent_["messages"] == HI


def test_no_system_message_behind_a_result_at_mistral() -> None:
    """T-MIST: after a tool's message only the assistant or another tool may speak."""
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "abcdefghi", "content": "x"}]
    sent_ = sent(ask(OC, messages=[*HI, *said, {"role": "developer", "content": "Now."}]), "mistral").body
    assert isinstance(sent_, dict)
    assert [one["role"] for one in sent_["messages"]] == ["user", "assistant", "tool", "assistant", "system"]


def test_mistral_is_told_a_refusal() -> None:
    """T-CORE-028: what the model has refused is its words, where the format has no field for it."""
    said = {"role": "assistant", "refusal": "No."}
    sent_ = sent(ask(OC, messages=[*HI, said, *HI]), "mistral").body
    assert isinstance(sent_, dict)
    assert sent_["messages"] == [*HI, {"role": "assistant", "content": "No."}, *HI]


BOTH = pytest.mark.parametrize("client", [OC, AM])
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
PNG = "iVBORw0KGgo="
TOOL_OC = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TOOL_AM = {"name": "f", "input_schema": {"type": "object"}}
ENDS = {
    OC: {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"},
    AM: {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"},
}


def tools(client: str) -> list[Any]:
    """One tool."""
    return [TOOL_OC if client == OC else TOOL_AM]


def body(asked: Any, type_: str, model: str = "m", **options: Any) -> dict[str, Any]:
    """The body that goes out."""
    out = sent(asked, type_, model, **options).body
    assert isinstance(out, dict)
    return out


def seeing(client: str, *urls: str, stream: bool = False) -> Any:
    """An ask with images: addresses, or data URLs."""
    parts: list[dict[str, Any]] = []
    for url in urls:
        if client == OC:
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif url.startswith("data:"):
            head, _, data = url.partition(",")
            kind = head[5:].partition(";")[0]
            parts.append({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}})
        else:
            parts.append({"type": "image", "source": {"type": "url", "url": url}})
    return ask(client, messages=[{"role": "user", "content": parts}], stream=stream)


def results(client: str, *after: Any) -> list[Any]:
    """A conversation with a call and its result."""
    if client == OC:
        call = {"id": "call_abc123", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return [
            *HI,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_abc123", "content": "r"},
            *after,
        ]
    result = {"type": "tool_result", "tool_use_id": "call_abc123", "content": "r"}
    return [
        *HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_abc123", "name": "f", "input": {}}]},
        {"role": "user", "content": [result, *({"type": "text", "text": one["content"]} for one in after)]},
    ]


def thought(client: str) -> list[Any]:
    """Two assistant turns with thinking, the second in the turn that goes on."""
    if client == OC:
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return [
            *HI,
            {"role": "assistant", "content": "x", "reasoning_content": "old"},
            *HI,
            {"role": "assistant", "content": None, "reasoning_content": "new", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "r"},
        ]
    return [
        *HI,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "old"}, {"type": "text", "text": "x"}]},
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "new"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "r"}]},
    ]


# OpenAI


def test_open_001_pass_through() -> None:
    """T-OPEN-001: OC goes out as it came but for the model and the wish for usage; AM is translated."""
    asked = ask(OC, stream=True, vendor={"a": [1]}, seed=1)
    assert body(asked, "openai", "up") == {**asked.tree, "model": "up", "stream_options": {"include_usage": True}}
    told = body(ask(AM, system="S"), "openai", "up")
    assert told["messages"] == [{"role": "system", "content": "S"}, *HI]


@BOTH
def test_open_003_max_tokens(client: str) -> None:
    """T-OPEN-003: a reasoning model gets the limit under its newer name."""
    told = body(ask(client, max_tokens=7), "openai", "o3-mini")
    assert told["max_completion_tokens"] == 7
    assert "max_tokens" not in told


@BOTH
def test_open_004_sampling(client: str) -> None:
    """T-OPEN-004: sampling settings go while reasoning is on, and only then."""
    out = sent(ask(client, temperature=0.5), "openai", "gpt-5")
    assert (tree.find(out.body, "temperature"), out.dropped) == (tree.MISSING, ("temperature",))
    assert body(ask(client, temperature=0.5), "openai", "gpt-5.1")["temperature"] == 0.5


def test_open_005_minimal() -> None:
    """T-OPEN-005: an effort that 5.6 does not know becomes the next one; AM has no such word, its least is `low`."""
    assert body(ask(OC, reasoning_effort="minimal"), "openai", "gpt-5.6")["reasoning_effort"] == "low"
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert body(ask(AM, thinking=thinking), "openai", "gpt-5.6")["reasoning_effort"] == "low"


@pytest.mark.parametrize(
    ("client", "more"), [(OC, {"messages": [{"role": "system", "content": "S"}, *HI]}), (AM, {"system": "S"})]
)
def test_open_006_system(client: str, more: dict[str, Any]) -> None:
    """T-OPEN-006: o1-mini is told as a user."""
    told = body(ask(client, **more), "openai", "o1-mini")
    assert [one["role"] for one in told["messages"]] == ["user", "user"]


@BOTH
def test_open_009_010_details(client: str) -> None:
    """T-OPEN-009, T-OPEN-010: predictions and sound are parts of the totals; OC keeps the details."""
    details = {"audio_tokens": 3, "accepted_prediction_tokens": 1, "rejected_prediction_tokens": 2}
    upstream = whole({"content": "x"}, usage={**USAGE, "completion_tokens_details": details})
    answer = got(client, "openai", upstream)
    assert answer.usage == (10, 5, 0)
    if client == OC:
        assert orjson.loads(answer.raw)["usage"]["completion_tokens_details"] == details


@BOTH
def test_open_011_media_in_results(client: str) -> None:
    """T-OPEN-011: what a tool message cannot hold follows the last of them as a user's message."""
    messages = results(client)
    url = f"data:image/png;base64,{PNG}"
    if client == OC:
        parts = [{"type": "text", "text": "r"}, {"type": "image_url", "image_url": {"url": url}}]
        messages[2]["content"] = parts
    else:
        source = {"type": "base64", "media_type": "image/png", "data": PNG}
        messages[2]["content"][0]["content"] = [{"type": "text", "text": "r"}, {"type": "image", "source": source}]
    asked = ask(client, messages=messages)
    before = orjson.dumps(asked.tree)
    told = body(asked, "openai", "gpt-4o")["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "user"]
    assert told[3]["content"] == [{"type": "image_url", "image_url": {"url": url}}]
    assert "image_url" not in orjson.dumps(told[2]).decode()
    assert orjson.dumps(asked.tree) == before


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_open_012_annotations(client: str, stream: bool) -> None:
    """T-OPEN-012: web citations stay, in the client's own form."""
    note = {"type": "url_citation", "url_citation": {"url": "https://e.example", "title": "E", "start_index": 0}}
    if stream:
        upstream = sse(
            chunk({"role": "assistant", "content": "x"}), chunk({"annotations": [note]}), chunk(finish="stop")
        )
    else:
        upstream = whole({"content": "x", "annotations": [note]})
    answer = got(client, "openai", upstream, stream=stream)
    assert answer.text == "x"
    assert b"https://e.example" in answer.raw


def test_open_013_moderation() -> None:
    """T-OPEN-013: a chunk that follows the usage chunk stays behind it."""
    report = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 5,
        "model": "m",
        "choices": [],
        "moderation": {},
    }
    usage = {**report, "usage": USAGE}
    del usage["moderation"]
    answer = got(
        OC,
        "openai",
        sse(chunk({"role": "assistant", "content": "x"}), chunk(finish="stop"), usage, report),
        stream=True,
    )
    assert answer.raw.index(b'"usage":{') < answer.raw.index(b'"moderation"')


@BOTH
def test_open_014_cache_writes(client: str) -> None:
    """T-OPEN-014: cache writes are part of the prompt and kept."""
    upstream = whole({"content": "x"}, usage={**USAGE, "prompt_tokens_details": {"cache_write_tokens": 4}})
    answer = got(client, "openai", upstream)
    assert answer.usage == (10, 5, 0)
    name = b'"cache_write_tokens":4' if client == OC else b'"cache_creation_input_tokens":4'
    assert name in answer.raw


def test_open_015_logprobs() -> None:
    """T-OPEN-015: the key that some models leave out is there."""
    assert b'"logprobs":null' in got(OC, "openai", whole({"content": "x"})).raw


# Azure


@BOTH
def test_azur_001_002_003(client: str) -> None:
    """T-AZUR-001, T-AZUR-002, T-AZUR-003: classic and v1 routes, a key or a bearer."""
    base = "https://r.example"
    classic = sent(ask(client), "azure", "gpt-4.1", base_url=base, api_version="2024-10-21")
    assert classic.url == f"{base}/openai/deployments/gpt-4.1/chat/completions?api-version=2024-10-21"
    assert classic.headers["api-key"] == "k"
    newer = sent(ask(client), "azure", "gpt-4.1", base_url=base, bearer=True)
    assert newer.url == f"{base}/openai/v1/chat/completions"
    assert newer.headers["authorization"] == "Bearer k"
    assert "api-key" not in newer.headers


@BOTH
def test_azur_004_007_filter_chunks(client: str) -> None:
    """T-AZUR-004, T-AZUR-007: chunks of filter results alone are neither text nor usage."""
    head = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{}]}
    late = chunk(choice={"content_filter_results": {}})
    del late["choices"][0]["delta"]
    upstream = sse(head, chunk({"role": "assistant", "content": "x"}), chunk(finish="stop"), late)
    answer = got(client, "azure", upstream, stream=True)
    assert (answer.text, answer.finish) == ("x", ENDS[client]["stop"])


@BOTH
def test_azur_005_006_filtered(client: str) -> None:
    """T-AZUR-005, T-AZUR-006: a choice without a message is an empty one, filtered; OC keeps the filter's report."""
    node = orjson.loads(whole({}, "content_filter"))
    del node["choices"][0]["message"]
    node["choices"][0]["content_filter_results"] = {"hate": {"filtered": True}}
    answer = got(client, "azure", orjson.dumps(node))
    assert (answer.text, answer.finish) == ("", ENDS[client]["content_filter"])
    assert (b"content_filter_results" in answer.raw) is (client == OC)


@BOTH
@pytest.mark.parametrize(
    ("row", "status", "error", "kind", "code", "told"),
    [
        ("T-AZUR-008", 401, {"code": "401", "message": "m"}, "upstream_auth", "upstream_credentials", 502),
        ("T-AZUR-008", 429, {"code": "429", "message": "m"}, "rate_limit", "429", 429),
        ("T-AZUR-009", 404, {"code": "DeploymentNotFound", "message": "m"}, "not_found", "model_not_found", 404),
        ("T-AZUR-010", 400, {"code": "content_filter", "message": "m"}, "content_policy", "content_filter", 400),
    ],
)
def test_azur_errors(client: str, row: str, status: int, error: Any, kind: str, code: str, told: int) -> None:
    """T-AZUR-008, T-AZUR-009, T-AZUR-010: the status decides, whatever form the code has."""
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    one = failure("azure", status, {"error": {**error, "innererror": inner}}, client)
    assert (one.kind, one.code, one.status) == (kind, code, told)
    if row == "T-AZUR-010":
        assert one.extra["innererror"] == inner


@BOTH
def test_azur_011_strip(client: str) -> None:
    """T-AZUR-011: fields that this version refuses go, and are listed."""
    out = sent(ask(client, temperature=1), "azure", base_url="https://r.example", strip_params=("temperature",))
    assert out.dropped == ("temperature",)


# Mistral


def test_mist_001_seed() -> None:
    """T-MIST-001: the seed has another name; AM has none."""
    told = body(ask(OC, seed=3), "mistral")
    assert told["random_seed"] == 3
    assert "seed" not in told


@BOTH
def test_mist_002_003_004_turns(client: str) -> None:
    """T-MIST-002, T-MIST-003, T-MIST-004: a word between tool and user, a prefill's mark, ids of nine characters."""
    messages = [*results(client, {"role": "user", "content": "go"}), {"role": "assistant", "content": "So"}]
    told = body(ask(client, messages=messages, tools=tools(client)), "mistral")["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert told[-1]["prefix"] is True
    id_ = told[1]["tool_calls"][0]["id"]
    assert id_.isalnum()
    assert (len(id_), id_) == (9, told[2]["tool_call_id"])


@BOTH
def test_mist_005_pdf(client: str) -> None:
    """T-MIST-005: a PDF is a document."""
    data = base64.b64encode(b"%PDF-1").decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    file = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}
    part = {"type": "file", "file": file} if client == OC else {"type": "document", "source": source}
    (told,) = body(ask(client, messages=[{"role": "user", "content": [part]}]), "mistral")["messages"][0]["content"]
    assert (told["type"], told["document_url"]) == ("document_url", f"data:application/pdf;base64,{data}")


@BOTH
@pytest.mark.parametrize("url", ["https://h.example/a.png", f"data:image/png;base64,{PNG}"])
def test_mist_006_images(client: str, url: str) -> None:
    """T-MIST-006: images pass, by address and as data."""
    (told,) = body(seeing(client, url), "mistral")["messages"][0]["content"]
    assert told["image_url"]["url"] == url


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_mist_007_to_010(client: str, stream: bool) -> None:
    """T-MIST-007 to 010: typed content, calls whole and untyped, usage on the last chunk, cached tokens."""
    typed = [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "x"}]
    call = {"id": "abcdefghi", "index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
    usage = {**USAGE, "num_cached_tokens": 4}
    if stream:
        upstream = sse(
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": [one]}) for one in typed),
            chunk({"tool_calls": [call]}, "tool_calls", usage=usage),
        )
    else:
        upstream = whole({"content": typed, "tool_calls": [call]}, "tool_calls", usage=usage)
    answer = got(client, "mistral", upstream, stream=stream)
    assert (answer.text, answer.thought, answer.calls) == ("x", "t", [("abcdefghi", "f", '{"a":1}')])
    assert (answer.finish, answer.usage) == (ENDS[client]["tool_calls"], (10, 5, 4))


@BOTH
def test_mist_011_finishes(client: str) -> None:
    """T-MIST-011: `model_length` is length, `error` with nothing said is a failure."""
    assert got(client, "mistral", whole({"content": "x"}, "model_length")).finish == ENDS[client]["length"]
    assert got(client, "mistral", whole({"content": ""}, "error")).error is not None


@pytest.mark.parametrize(
    ("client", "more", "dropped"),
    [
        (
            OC,
            {"user": "u", "store": True, "logit_bias": {}, "metadata": {"a": "b"}},
            ("logit_bias", "metadata", "store", "user"),
        ),
        (AM, {"metadata": {"user_id": "u"}, "service_tier": "auto"}, ("service_tier", "user")),
    ],
)
def test_mist_012_extra_fields(client: str, more: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """T-MIST-012: what it refuses goes, and is listed."""
    out = sent(ask(client, stream=True, **more), "mistral")
    assert out.dropped == dropped
    assert isinstance(out.body, dict)
    assert not {"stream_options", "user", "store", "metadata", "service_tier"} & set(out.body)


@pytest.mark.parametrize(
    ("client", "more"),
    [(OC, {"reasoning_effort": "medium"}), (AM, {"thinking": {"type": "enabled", "budget_tokens": 9000}})],
)
def test_mist_013_effort(client: str, more: dict[str, Any]) -> None:
    """T-MIST-013: an effort is none or high; older models have a prompt mode."""
    assert body(ask(client, **more), "mistral", "mistral-medium-3.5")["reasoning_effort"] == "high"
    assert body(ask(client, **more), "mistral", "magistral-small")["prompt_mode"] == "reasoning"


@BOTH
def test_mist_014_details(client: str) -> None:
    """T-MIST-014: a 422 is a 400 with the faults in one sentence."""
    one = failure("mistral", 422, {"detail": [{"loc": ["body", "n"], "msg": "bad"}, {"msg": "worse"}]}, client)
    assert (one.status, one.message) == (400, "body.n: bad; worse")


# Groq


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_groq_001_reasoning(client: str, stream: bool) -> None:
    """T-GROQ-001: the field `reasoning` is thinking."""
    if stream:
        upstream = sse(
            chunk({"role": "assistant", "content": ""}),
            chunk({"reasoning": "t"}),
            chunk({"content": "x"}),
            chunk(finish="stop"),
        )
    else:
        upstream = whole({"content": "x", "reasoning": "t"})
    answer = got(client, "groq", upstream, stream=stream)
    assert (answer.text, answer.thought) == ("x", "t")


def test_groq_is_told_what_it_knows() -> None:
    """Fields that its servers refuse are left out of the model's messages, among them those of our own answers."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "reasoning": "Hm", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    more = {
        "reasoning_content": "Hm",
        "reasoning_details": [{"type": "reasoning.text"}],
        "refusal": None,
        "annotations": [],
    }
    odd = {**said, **more, "tool_calls": [{**call, "index": 0, "extra_content": {"google": {}}}]}
    out = sent(ask(OC, messages=[*HI, odd, result]), "groq")
    assert isinstance(out.body, dict)
    assert out.body["messages"] == [*HI, said, result]
    assert out.dropped == ("messages.1.reasoning_content", "messages.1.reasoning_details")
    same = ask(OC, messages=[*HI, said, result])
    kept = sent(same, "groq").body
    assert isinstance(kept, dict)
    assert kept["messages"] is same.tree["messages"]


@BOTH
def test_groq_003_008_usage(client: str) -> None:
    """T-GROQ-003, T-GROQ-008: usage in x_groq alone is read, told twice it is counted once."""
    start, said = chunk({"role": "assistant", "content": "x"}), chunk(finish="stop", x_groq={"id": "r", "usage": USAGE})
    once = got(client, "groq", sse(start, said), stream=True)
    twice = got(client, "groq", sse(start, {**said, "usage": USAGE}), stream=True)
    assert (once.usage, twice.usage) == ((10, 5, 0), (10, 5, 0))


@BOTH
def test_groq_004_failed_generation(client: str) -> None:
    """T-GROQ-004: the 400 stays one, with what the model wrote."""
    error = {"message": "Failed to call a function", "type": "invalid_request_error", "code": "tool_use_failed"}
    one = failure("groq", 400, {"error": {**error, "failed_generation": "<f>"}}, client)
    assert (one.status, one.code, one.extra) == (400, "tool_use_failed", {"failed_generation": "<f>"})


@BOTH
def test_groq_005_failed_in_stream(client: str) -> None:
    """T-GROQ-005: the error event is the client's error, and nothing follows it."""
    error = {"error": {"message": "m", "type": "invalid_request_error", "code": "tool_use_failed", "status_code": 400}}
    event = b"event: error\ndata: " + orjson.dumps(error) + b"\n\n"
    answer = got(client, "groq", sse(chunk({"role": "assistant", "content": "x"}), event, done=False), stream=True)
    assert (answer.text, answer.finish) == ("x", None)
    assert answer.error is not None
    assert answer.error["message"].startswith("m")


@BOTH
def test_groq_006_own_fields(client: str) -> None:
    """T-GROQ-006: the compound models' own fields stay for OC."""
    upstream = whole({"content": "x", "executed_tools": [{"index": 0}]}, usage_breakdown={"models": []})
    answer = got(client, "groq", upstream)
    assert (b"executed_tools" in answer.raw, b"usage_breakdown" in answer.raw) == (client == OC, client == OC)


def test_groq_007_n() -> None:
    """T-GROQ-007: more than one answer is refused; AM cannot ask for it."""
    with pytest.raises(Unsupported) as told:
        sent(ask(OC, n=2), "groq")
    assert told.value.param == "n"


# DeepSeek


@BOTH
def test_deep_001_004_011_stream(client: str) -> None:
    """T-DEEP-001, T-DEEP-004, T-DEEP-011: null is no text, hits are cached, the client sees the name it asked for."""
    named = {"model": "deepseek-v4-flash"}
    usage = {**USAGE, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6}
    upstream = sse(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}, **named),
        chunk({"content": None, "reasoning_content": "t"}, **named),
        chunk({"content": "x", "reasoning_content": None}, **named),
        chunk({"content": "y"}, **named),
        chunk({"content": "", "reasoning_content": None}, "stop", usage=usage, **named),
    )
    answer = got(client, "deepseek", upstream, stream=True)
    assert (answer.thought, answer.text, answer.usage, answer.model) == ("t", "xy", (10, 5, 4), "m")
    assert b"deepseek-v4-flash" not in answer.raw
    assert got(client, "deepseek", whole({"content": "x"}, model="deepseek-v4-flash")).model == "m"


@BOTH
def test_deep_002_003_replay(client: str) -> None:
    """T-DEEP-002, T-DEEP-003: the present turn's thinking is sent, older is not."""
    out = sent(ask(client, messages=thought(client)), "deepseek")
    assert isinstance(out.body, dict)
    assert [one.get("reasoning_content") for one in out.body["messages"]] == [None, None, None, "new", None]


@pytest.mark.parametrize(
    ("client", "more"),
    [
        (OC, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"title": "T"}}}}),
        (AM, {"output_config": {"format": {"type": "json_schema", "schema": {"title": "T"}}}}),
    ],
)
def test_deep_005_schema(client: str, more: dict[str, Any]) -> None:
    """T-DEEP-005: a schema is JSON mode and an instruction."""
    told = body(ask(client, **more), "deepseek")
    assert told["response_format"] == {"type": "json_object"}
    assert '"title":"T"' in told["messages"][0]["content"]


@BOTH
def test_deep_006_images(client: str) -> None:
    """T-DEEP-006: a text model refuses images."""
    with pytest.raises(Unsupported) as told:
        sent(seeing(client, "https://h.example/a.png"), "deepseek", "deepseek-chat")
    assert (told.value.status, told.value.code) == (400, "unsupported_content")


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_deep_007_gave_up(client: str, stream: bool) -> None:
    """T-DEEP-007: a server that gave up is overloaded, whatever it had said."""
    start = chunk({"role": "assistant", "content": "x"})
    word = "insufficient_system_resource"
    upstream = sse(start, chunk(finish=word)) if stream else whole({"content": "x"}, word)
    answer = got(client, "deepseek", upstream, stream=stream)
    assert answer.error is not None
    assert answer.error["type"] == ("server_error" if client == OC else "overloaded_error")


@BOTH
def test_deep_008_balance(client: str) -> None:
    """T-DEEP-008: an empty account is the channel's trouble."""
    one = failure(
        "deepseek", 402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, client
    )
    assert (one.status, one.kind, one.code, one.blames) == (502, "upstream_auth", "upstream_credentials", "key")


@BOTH
def test_deep_009_waiting(client: str) -> None:
    """T-DEEP-009: comments and blank lines are nobody's text."""
    upstream = sse(
        b": keep-alive\n\n\n\n", chunk({"role": "assistant", "content": "x"}), b": keep-alive\n\n", chunk(finish="stop")
    )
    answer = got(client, "deepseek", upstream, stream=True)
    assert (answer.text, b"keep-alive" in answer.raw) == ("x", False)
    assert got(client, "deepseek", b"\n\n\n" + whole({"content": "x"})).text == "x"


# xAI


@BOTH
def test_xai_001_usage(client: str) -> None:
    """T-XAI-001: reasoning beside the completion is part of it."""
    details = {"completion_tokens_details": {"reasoning_tokens": 161}}
    usage = {"prompt_tokens": 1889, "completion_tokens": 52, "total_tokens": 2102, **details}
    (metered,) = [
        one
        for one in dialect(client, "xai").answer(ask(client), Document(whole({"content": "x"}, usage=usage)))
        if isinstance(one, Metered)
    ]
    assert (metered.usage.prompt, metered.usage.completion, metered.usage.reasoning) == (1889, 213, 161)


@BOTH
def test_xai_002_errors(client: str) -> None:
    """T-XAI-002: a bare text is the message."""
    one = failure("xai", 400, {"error": "Wrong model", "code": "invalid_argument"}, client)
    assert (one.message, one.code, one.status) == ("Wrong model", "invalid_argument", 400)


@pytest.mark.parametrize(("client", "field"), [(OC, "stop"), (AM, "stop_sequences")])
def test_xai_003_stop(client: str, field: str) -> None:
    """T-XAI-003: reasoning models take no stop."""
    out = sent(ask(client, **{field: ["a"]}), "xai", "grok-4")
    assert out.dropped == ("stop",)


@BOTH
def test_xai_004_citations(client: str) -> None:
    """T-XAI-004: addresses beside the answer are citations."""
    answer = got(client, "xai", whole({"content": "x"}, citations=["https://e.example"]))
    assert b"https://e.example" in answer.raw


@pytest.mark.parametrize(
    ("client", "more"), [(OC, {"reasoning_effort": "none"}), (AM, {"thinking": {"type": "disabled"}})]
)
def test_xai_005_effort(client: str, more: dict[str, Any]) -> None:
    """T-XAI-005: 4.5 cannot be told not to reason."""
    out = sent(ask(client, **more), "xai", "grok-4.5")
    assert (tree.find(out.body, "reasoning_effort"), out.dropped) == ("low", ("reasoning_effort~",))


@BOTH
@pytest.mark.parametrize("url", [f"data:image/webp;base64,{PNG}", "https://h.example/a.gif"])
def test_xai_006_images(client: str, url: str) -> None:
    """T-XAI-006: JPEG and PNG alone."""
    with pytest.raises(Unsupported) as told:
        sent(seeing(client, url), "xai")
    assert told.value.code == "unsupported_content"


# OpenRouter


@BOTH
def test_ortr_001_002_003_011_stream(client: str) -> None:
    """T-ORTR-001, T-ORTR-002, T-ORTR-003, T-ORTR-011: comments, roles, two finishes, usage with and without choices."""
    said = [chunk({"role": "assistant", "content": one}) for one in ("x", "y")]
    ends = [
        chunk({"role": "assistant", "content": ""}, "stop", usage=USAGE),
        chunk({"role": "assistant", "content": ""}, "stop"),
    ]
    usage = {**chunk(), "choices": [], "usage": USAGE}
    upstream = sse(b": OPENROUTER PROCESSING\n\n", *said, *ends, usage)
    answer = got(client, "openrouter", upstream, stream=True)
    assert (answer.text, answer.finish, answer.usage) == ("xy", ENDS[client]["stop"], (10, 5, 0))


@BOTH
def test_ortr_004_error_with_usage(client: str) -> None:
    """T-ORTR-004: the error is told, and the usage beside it read."""
    error = {"code": 502, "message": "Provider broke"}
    upstream = sse(
        chunk({"role": "assistant", "content": "x"}),
        chunk({"content": ""}, "error", error=error, usage=USAGE),
        done=False,
    )
    answer = got(client, "openrouter", upstream, stream=True)
    assert answer.error is not None
    one = dialect(client, "openrouter")
    reader, decoder = one.reader(ask(client)), one.frames()
    events = [event for frame in decoder.feed(upstream) for event in reader.read(frame)]
    assert any(isinstance(event, Metered) and event.usage.completion == 5 for event in events)


@BOTH
def test_ortr_005_error_in_200(client: str) -> None:
    """T-ORTR-005: a 200 that is an error has the status of its code."""
    answer = got(client, "openrouter", orjson.dumps({"error": {"code": 429, "message": "slow down"}}))
    assert answer.error is not None
    assert answer.error["type"] == "rate_limit_error"


@BOTH
def test_ortr_006_raw(client: str) -> None:
    """T-ORTR-006: the real cause stands behind the gateway's sentence."""
    metadata = {"provider_name": "P", "raw": "too many"}
    one = failure(
        "openrouter", 429, {"error": {"code": 429, "message": "Provider returned error", "metadata": metadata}}, client
    )
    assert (one.status, one.message) == (429, "Provider returned error: too many")


@BOTH
def test_ortr_007_details(client: str) -> None:
    """T-ORTR-007: signed thinking goes back as it came."""
    detail = {"type": "reasoning.text", "text": "t", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    if client == OC:
        said: Any = {"role": "assistant", "content": "x", "reasoning_details": [detail]}
    else:
        blocks = [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "x"}]
        said = {"role": "assistant", "content": blocks}
    told = body(ask(client, messages=[*HI, said, *HI]), "openrouter")["messages"][1]
    assert told["reasoning_details"] == [detail]


@BOTH
def test_ortr_008_cache_marks(client: str) -> None:
    """T-ORTR-008: cache marks stay on their parts."""
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    image = {"type": "text", "text": "y"}
    told = body(ask(client, messages=[{"role": "user", "content": [part, image]}]), "openrouter")
    assert told["messages"][0]["content"] == [part, image]


@BOTH
def test_ortr_009_010_own_fields(client: str) -> None:
    """T-ORTR-009, T-ORTR-010: the cost and the provider's own finish stay for OC."""
    node = orjson.loads(whole({"content": "x"}, usage={**USAGE, "cost": 0.25}))
    node["choices"][0]["native_finish_reason"] = "STOP"
    answer = got(client, "openrouter", orjson.dumps(node))
    assert (b'"cost":0.25' in answer.raw, b"native_finish_reason" in answer.raw) == (client == OC, client == OC)


def test_ortr_012_routing() -> None:
    """T-ORTR-012: its own fields pass; AM has none of them."""
    told = body(ask(OC, provider={"order": ["a"]}, models=["a", "b"], transforms=[]), "openrouter")
    assert (told["provider"], told["models"], told["transforms"]) == ({"order": ["a"]}, ["a", "b"], [])


# Zhipu


@BOTH
def test_zhip_001_002_keys(client: str) -> None:
    """T-ZHIP-001, T-ZHIP-002: `id.secret` is signed, times in milliseconds; a key without a dot goes as it is."""
    token = sent(ask(client), "zhipu", key="id.secret").headers["authorization"].removeprefix("Bearer ")
    head, claims = (orjson.loads(base64.urlsafe_b64decode(one + "==")) for one in token.split(".")[:2])
    assert (head["alg"], head["sign_type"], claims["api_key"]) == ("HS256", "SIGN", "id")
    assert claims["exp"] - claims["timestamp"] == 210_000
    assert claims["timestamp"] > 10**12
    assert sent(ask(client), "zhipu", key="plain").headers["authorization"] == "Bearer plain"


@pytest.mark.parametrize(
    ("client", "temperature", "told"),
    [
        (OC, 0, {"do_sample": False}),  # T-ZHIP-003
        (AM, 0, {"do_sample": False}),
        (OC, 1, {"temperature": 0.99}),  # T-ZHIP-004
        (AM, 1, {"temperature": 0.99}),
    ],
)
def test_zhip_003_004_temperature(client: str, temperature: int, told: dict[str, Any]) -> None:
    """T-ZHIP-003, T-ZHIP-004: an open interval."""
    out = body(ask(client, temperature=temperature), "zhipu")
    assert {name: out[name] for name in ("do_sample", "temperature") if name in out} == told


@pytest.mark.parametrize(("client", "field"), [(OC, "stop"), (AM, "stop_sequences")])
def test_zhip_005_stop(client: str, field: str) -> None:
    """T-ZHIP-005: the first entry of a list."""
    assert body(ask(client, **{field: ["a", "b"]}), "zhipu")["stop"] == ["a"]


@BOTH
def test_zhip_006_007_008_images(client: str) -> None:
    """T-ZHIP-006, T-ZHIP-007, T-ZHIP-008: bare bytes, addresses as they are, five at most."""
    told = body(seeing(client, f"data:image/png;base64,{PNG}", "https://h.example/a.png"), "zhipu", "glm-4v")
    assert [one["image_url"]["url"] for one in told["messages"][0]["content"]] == [PNG, "https://h.example/a.png"]
    with pytest.raises(Unsupported) as refused:
        sent(seeing(client, *["https://h.example/a.png"] * 6), "zhipu", "glm-4v")
    assert refused.value.status == 400


@pytest.mark.parametrize(("client", "choice"), [(OC, "required"), (AM, {"type": "any"})])
def test_zhip_009_choice(client: str, choice: Any) -> None:
    """T-ZHIP-009: only `auto` is known."""
    out = sent(ask(client, tools=tools(client), tool_choice=choice), "zhipu")
    assert (tree.find(out.body, "tool_choice"), out.dropped) == (tree.MISSING, ("tool_choice~",))


def test_zhip_010_preserved_thinking() -> None:
    """T-ZHIP-010: thinking is replayed, and with `clear_thinking: false` all of it."""
    switch = {"type": "enabled", "clear_thinking": False}
    told = body(ask(OC, messages=thought(OC), thinking=switch), "zhipu")
    assert told["thinking"] == switch
    assert [one.get("reasoning_content") for one in told["messages"]] == [None, "old", None, "new", None]
    told = body(ask(AM, messages=thought(AM), thinking={"type": "enabled", "budget_tokens": 1024}), "zhipu")
    assert told["thinking"] == {"type": "enabled"}
    assert told["messages"][3]["reasoning_content"] == "new"


@BOTH
def test_zhip_011_012_stream(client: str) -> None:
    """T-ZHIP-011, T-ZHIP-012: `sensitive` is a filter's end, usage on the last chunk gets one of its own."""
    said = chunk({"role": "assistant", "content": "x"})
    upstream = sse(said, said, chunk({"role": "assistant", "content": ""}, "sensitive", usage=USAGE))
    answer = got(client, "zhipu", upstream, stream=True)
    assert (answer.text, answer.finish, answer.usage) == ("xx", ENDS[client]["content_filter"], (10, 5, 0))


@BOTH
@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("1002", 502, "upstream_auth"),
        ("1113", 502, "upstream_auth"),
        ("1214", 400, "bad_request"),
        ("1211", 404, "not_found"),
        ("1301", 400, "content_policy"),
        ("1302", 429, "rate_limit"),
    ],
)
def test_zhip_013_codes(client: str, code: str, status: int, kind: str) -> None:
    """T-ZHIP-013: its codes decide."""
    one = failure("zhipu", 400, {"error": {"code": code, "message": "m"}}, client)
    assert (one.status, one.kind) == (status, kind)


@pytest.mark.parametrize(
    ("client", "more"), [(OC, {"messages": [{"role": "system", "content": "S"}, *HI]}), (AM, {"system": "S"})]
)
def test_zhip_014_v3(client: str, more: dict[str, Any]) -> None:
    """T-ZHIP-014: the older interface: a prompt of texts, an answer in quotes."""
    out = sent(ask(client, temperature=0.5, **more), "zhipu", "chatglm_turbo", key="id.secret", api="v3")
    assert out.url == "https://open.bigmodel.cn/api/paas/v3/model-api/chatglm_turbo/invoke"
    assert isinstance(out.body, dict)
    assert out.body["prompt"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Okay"}, *HI]
    assert out.body["temperature"] == 0.5
    data = {"task_id": "t1", "choices": [{"role": "assistant", "content": '" a\\n\\"b\\""'}], "usage": USAGE}
    answer = got(client, "zhipu", orjson.dumps({"code": 200, "success": True, "data": data}), api="v3")
    assert (answer.text, answer.finish, answer.usage) == (' a\n"b"', ENDS[client]["stop"], (10, 5, 0))
    refused = got(client, "zhipu", orjson.dumps({"code": 1302, "msg": "slow", "success": False}), api="v3")
    assert refused.error is not None
    assert refused.error["type"] == "rate_limit_error"


@BOTH
def test_zhip_015_v3_stream(client: str) -> None:
    """T-ZHIP-015: text lines as they are, usage from the line `meta`."""
    out = sent(ask(client, stream=True), "zhipu", "chatglm_turbo", base_url="https://z.example/api/paas/v4", api="v3")
    assert out.url == "https://z.example/api/paas/v3/model-api/chatglm_turbo/sse-invoke"
    meta = orjson.dumps({"task_status": "SUCCESS", "usage": USAGE})
    upstream = (
        b"event:add\nid:1\ndata:Hello\n\nevent:add\nid:1\ndata: there\ndata:!\n\n"
        b"event:finish\nid:1\ndata:\nmeta:" + meta + b"\n\n"
    )
    answer = got(client, "zhipu", upstream, stream=True, api="v3")
    assert (answer.text, answer.finish, answer.usage) == ("Hello there\n!", ENDS[client]["stop"], (10, 5, 0))
    broken = got(client, "zhipu", b"event:add\ndata:x\n\nevent:error\ndata:no\n\n", stream=True, api="v3")
    assert broken.error is not None


@BOTH
def test_zhip_016_v3_text_only(client: str) -> None:
    """T-ZHIP-016: tools and images are refused."""
    for asked in (ask(client, tools=tools(client)), seeing(client, "https://h.example/a.png")):
        with pytest.raises(Unsupported) as told:
            sent(asked, "zhipu", api="v3")
        assert told.value.status == 400


# 01.AI


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_yi_001_text(client: str, stream: bool) -> None:
    """T-YI-001: text, whole and streamed."""
    parts = (chunk({"role": "assistant", "content": "x"}), chunk({"content": "y"}), chunk(finish="stop", usage=USAGE))
    answer = got(client, "lingyiwanwu", sse(*parts) if stream else whole({"content": "xy"}), stream=stream)
    assert (answer.text, answer.finish, answer.usage) == ("xy", ENDS[client]["stop"], (10, 5, 0))


@BOTH
def test_yi_002_images(client: str) -> None:
    """T-YI-002: images pass."""
    url = f"data:image/png;base64,{PNG}"
    assert body(seeing(client, url), "lingyiwanwu", "yi-vision")["messages"][0]["content"][0]["image_url"]["url"] == url


@pytest.mark.parametrize(
    ("client", "more", "dropped"),
    [
        (OC, {"seed": 1, "user": "u"}, ("seed", "user")),
        (AM, {"metadata": {"user_id": "u"}, "top_k": 5}, ("top_k", "user")),
    ],
)
def test_yi_003_dropped(client: str, more: dict[str, Any], dropped: tuple[str, ...]) -> None:
    """T-YI-003: what it does not know goes; a channel can refuse tools."""
    assert sent(ask(client, **more), "lingyiwanwu").dropped == dropped
    with pytest.raises(Unsupported):
        sent(ask(client, tools=tools(client)), "lingyiwanwu", no_tools=True)


# Cloudflare


@BOTH
def test_clfl_001_url(client: str) -> None:
    """T-CLFL-001: the account stands in the path."""
    out = sent(ask(client), "cloudflare", account="acc")
    assert out.url == "https://api.cloudflare.com/client/v4/accounts/acc/ai/v1/chat/completions"
    run = sent(ask(client, stream=True), "cloudflare", "@cf/meta/llama", account="acc", api="run")
    assert run.url == "https://api.cloudflare.com/client/v4/accounts/acc/ai/run/@cf/meta/llama"
    assert isinstance(run.body, dict)
    assert not {"model", "stream_options"} & set(run.body)


@BOTH
def test_clfl_002_no_usage(client: str) -> None:
    """T-CLFL-002: without a report there is none to bill: others estimate."""
    node = orjson.loads(whole({"content": "x"}))
    del node["usage"]
    events = dialect(client, "cloudflare").answer(ask(client), Document(orjson.dumps(node)))
    assert not any(isinstance(one, Metered) for one in events)


@BOTH
def test_clfl_003_wrapper(client: str) -> None:
    """T-CLFL-003: the answer of `/ai/run` is unwrapped, calls included."""
    result = {"response": "x", "usage": USAGE, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    answer = got(client, "cloudflare", orjson.dumps({"result": result, "success": True}), api="run")
    assert (answer.text, answer.usage, answer.finish) == ("x", (10, 5, 0), ENDS[client]["tool_calls"])
    assert [one[1:] for one in answer.calls] == [("f", '{"a":1}')]


@BOTH
def test_clfl_004_wrapped_stream(client: str) -> None:
    """T-CLFL-004: pieces stand in `response`."""
    upstream = sse({"response": "x", "p": "ab"}, {"response": "y"}, {"response": "", "usage": USAGE})
    answer = got(client, "cloudflare", upstream, stream=True, api="run")
    assert (answer.text, answer.usage, answer.finish) == ("xy", (10, 5, 0), ENDS[client]["stop"])


@BOTH
@pytest.mark.parametrize("api", ["v1", "run"])
def test_clfl_005_errors(client: str, api: str) -> None:
    """T-CLFL-005: the messages of a list in one."""
    node = {
        "success": False,
        "errors": [{"code": 7003, "message": "a"}, {"code": 7000, "message": "b"}],
        "result": None,
    }
    assert failure("cloudflare", 400, node, client).message == "a; b"
    answer = got(client, "cloudflare", orjson.dumps(node), api=api)
    assert answer.error is not None
    assert answer.error["message"].startswith("a; b")


def test_clfl_006_developer() -> None:
    """T-CLFL-006: a developer speaks as a system; lists of texts are one text."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    told = body(ask(OC, messages=[{"role": "developer", "content": parts}, *HI]), "cloudflare")
    assert told["messages"][0] == {"role": "system", "content": "a\nb"}


# Custom


@BOTH
def test_cust_001_002_003(client: str) -> None:
    """T-CUST-001, T-CUST-002, T-CUST-003: the operator's address, the model in it escaped, the operator's header."""
    plain = sent(ask(client), "custom", base_url="https://h.example/call?x=1")
    assert plain.url == "https://h.example/call?x=1"
    assert plain.headers["authorization"] == "Bearer k"
    named = sent(ask(client), "custom", "a/b c", base_url="https://h.example/{model}/x", header="X-Key")
    assert named.url == "https://h.example/a%2Fb%20c/x"
    assert named.headers["x-key"] == "k"
    assert "authorization" not in named.headers


@BOTH
def test_cust_004_tolerance(client: str) -> None:
    """T-CUST-004: no terminator, no finish, no usage, fields of its own."""
    upstream = sse({"choices": [{"delta": {"content": "x", "own": 1}}]}, done=False)
    answer = got(client, "custom", upstream, stream=True)
    assert (answer.text, answer.finish) == ("x", ENDS[client]["stop"])


@BOTH
@pytest.mark.parametrize(
    "told",
    [{"error": "m"}, {"message": "m"}, {"detail": "m"}, {"errors": [{"message": "m"}]}, {"error": {"message": "m"}}],
)
def test_cust_005_errors(client: str, told: dict[str, Any]) -> None:
    """T-CUST-005: the message is found."""
    assert failure("custom", 400, told, client).message == "m"
