"""The acceptance table for providers of the OpenAI format as clients of the Responses format (OR) see it, row by row.

Those that have the endpoint themselves are asked there; the others are asked in chat. Answers are read back with the
strict parser of the format; a stream is cut at every byte too, which must change nothing.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Dialect, speaks
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Metered, fold
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.relay.tagged import Tagged
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.responses import RESPONSES
from newapi_proxy.wire import tree
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound, matrix_grammar
from tests.fakes.golden import streamed
from tests.fakes.inbound import FUNCTION, PNG, Call, File, Picture, Result, Thought
from tests.fakes.matrix_grammar import FINISHES, Shown
from tests.fakes.rows import NOW, adapter, chunk, sent, sse, whole

LETTER: Final = "OR"
USAGE: Final = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ABSENT: Any = tree.MISSING
ADDRESS: Final = "https://h.example/a.png"
INLINE: Final = f"data:image/png;base64,{PNG}"
WAYS = pytest.mark.parametrize("stream", [False, True])
CALLED: Final = (("user", "Hi"), ("assistant", Call("call_abc123", "f")), ("tool", Result("call_abc123", "f", "r")))
THINKING: Final = (
    ("user", "Hi"),
    ("assistant", Thought("old"), "x"),
    ("user", "Hi"),
    ("assistant", Thought("new"), Call("a", "f")),
    ("tool", Result("a", "f", "r")),
)


def ask(turns: Any = inbound.HI, *, stream: bool = False, **more: Any) -> Ask:
    """An ask of this format; `more` are its own fields."""
    body = {**inbound.body(LETTER, turns, stream=stream), **more}
    return RESPONSES.read(orjson.dumps(body), {})


def body(asked: Ask, type_: str, model: str = "m", **options: Any) -> dict[str, Any]:
    """The body that goes out."""
    out = sent(asked, type_, model, **options).body
    assert isinstance(out, dict)
    return out


def dialect(type_: str, model: str = "m", **options: Any) -> Dialect:
    """The provider's dialect for this client."""
    one, chosen = adapter(type_, **options)
    found = speaks(one, RESPONSES.dialect, model)
    assert found is not None
    return Tagged(found) if chosen.think_tags else found


def got(type_: str, upstream: bytes, *, stream: bool = False, **options: Any) -> Shown:
    """What the client makes of a 200."""
    one, asked = dialect(type_, **options), ask(stream=stream)
    face = Face(model="m", id="made", created=NOW, rename=ADAPTERS[type_].aliases)
    if stream:
        cuts = ([upstream], [upstream[at : at + 1] for at in range(len(upstream))])
        first, second = (streamed(pipe(RESPONSES, one, asked, face), list(cut)) for cut in cuts)
        shown = matrix_grammar.stream(LETTER, first)
        assert shown == matrix_grammar.stream(LETTER, second)
        return shown
    events = one.answer(asked, Document(upstream))
    told = fold(events)
    if told.failure is not None:
        return matrix_grammar.whole(LETTER, RESPONSES.failure(told.failure, "r"))
    if one.dialect == RESPONSES.dialect:
        return matrix_grammar.whole(LETTER, RESPONSES.same(asked, face, Document(upstream), told.usage or NOTHING))
    return matrix_grammar.whole(LETTER, RESPONSES.answer(asked, face, events, told.usage or NOTHING))


def failure(type_: str, status: int, node: Any) -> tuple[UpstreamFailure, dict[str, Any]]:
    """The provider's error in our terms, and as the client sees it."""
    one = dialect(type_).failure(status, {}, orjson.dumps(node))
    return one, orjson.loads(RESPONSES.failure(one, ""))["error"]


def response(*output: Any, **more: Any) -> dict[str, Any]:
    """A native answer."""
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    head = {"id": "resp_1", "object": "response", "created_at": 5, "status": "completed", "model": "m", "error": None}
    return {**head, "incomplete_details": None, "output": list(output), "usage": usage, **more}


SAID: Final = {"type": "output_text", "text": "x", "annotations": []}
MESSAGE: Final = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [SAID]}


# Requests: the path in the body that goes out, its value; what is dropped.

GONE: list[Any] = [
    (
        "T-MIST-006",
        ask((("user", Picture(ADDRESS)),)),
        "mistral",
        "m",
        "messages.0.content.0.image_url.url",
        ADDRESS,
        (),
    ),
    ("T-MIST-006", ask((("user", Picture()),)), "mistral", "m", "messages.0.content.0.image_url.url", INLINE, ()),
    ("T-MIST-005", ask((("user", File()),)), "mistral", "m", "messages.0.content.0.type", "document_url", ()),
    ("T-MIST-012", ask(user="u", metadata={"a": "b"}), "mistral", "m", "user", ABSENT, ("metadata", "user")),
    ("T-MIST-012", ask(stream=True), "mistral", "m", "stream_options", ABSENT, ()),
    (
        "T-MIST-013",
        ask(reasoning={"effort": "medium"}),
        "mistral",
        "mistral-medium-3.5",
        "reasoning_effort",
        "high",
        None,
    ),
    ("T-MIST-013", ask(reasoning={"effort": "medium"}), "mistral", "magistral-small", "prompt_mode", "reasoning", None),
    ("T-ZHIP-003", ask(temperature=0), "zhipu", "m", "do_sample", False, None),
    ("T-ZHIP-004", ask(temperature=1), "zhipu", "m", "temperature", 0.99, None),
    ("T-ZHIP-006", ask((("user", Picture()),)), "zhipu", "glm-4v", "messages.0.content.0.image_url.url", PNG, ()),
    (
        "T-ZHIP-007",
        ask((("user", Picture(ADDRESS)),)),
        "zhipu",
        "glm-4v",
        "messages.0.content.0.image_url.url",
        ADDRESS,
        (),
    ),
    (
        "T-ZHIP-009",
        ask(tools=[{"type": "function", **FUNCTION}], tool_choice="required"),
        "zhipu",
        "m",
        "tool_choice",
        ABSENT,
        ("tool_choice~",),
    ),
    ("T-ZHIP-010", ask(THINKING), "zhipu", "m", "messages.3.reasoning_content", "new", ()),
    (
        "T-YI-002",
        ask((("user", Picture()),)),
        "lingyiwanwu",
        "yi-vision",
        "messages.0.content.0.image_url.url",
        INLINE,
        (),
    ),
    ("T-YI-003", ask(user="u"), "lingyiwanwu", "m", "user", ABSENT, ("user",)),
    ("T-CLFL-006", ask((("user", "Hi"), ("developer", "a"))), "cloudflare", "m", "messages.1.role", "system", ()),
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
    ("T-ZHIP-008", ask((("user", *[Picture(ADDRESS)] * 6),)), "zhipu", "glm-4v", {}),
    ("T-ZHIP-016", ask((("user", Picture(ADDRESS)),)), "zhipu", "m", {"api": "v3"}),
    ("T-YI-003", ask(tools=[{"type": "function", **FUNCTION}]), "lingyiwanwu", "m", {"no_tools": True}),
]


@pytest.mark.parametrize(
    ("asked", "type_", "model", "options"),
    [one[1:] for one in NOT_SENT],
    ids=[f"{one[0]}-{number}" for number, one in enumerate(NOT_SENT)],
)
def test_what_is_refused(asked: Ask, type_: str, model: str, options: dict[str, Any]) -> None:
    """A 400 before anything is sent."""
    with pytest.raises(Unsupported) as told:
        sent(asked, type_, model, **options)
    assert told.value.status == 400


def test_chat_endpoint() -> None:
    """T-OPEN-001: a server without this endpoint is asked in chat, with the wish for usage."""
    told = body(ask((("system", "S"), ("user", "Hi")), stream=True), "openai", "up", responses=False)
    assert told["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    assert (told["model"], told["stream_options"]) == ("up", {"include_usage": True})


def test_addresses_and_keys() -> None:
    """T-AZUR-001, T-CLFL-001, T-CUST-001, T-CUST-002, T-CUST-003: Azure's v1 route always; the others as ever."""
    base = "https://r.example"
    classic = sent(ask(), "azure", "gpt-4.1", base_url=base, api_version="2024-10-21")
    assert (classic.url, classic.headers["api-key"]) == (f"{base}/openai/v1/responses", "k")
    assert "/accounts/acc/ai/v1/chat/completions" in sent(ask(), "cloudflare", account="acc").url
    plain = sent(ask(), "custom", base_url="https://h.example/call?x=1")
    assert (plain.url, plain.headers["authorization"]) == ("https://h.example/call?x=1", "Bearer k")
    custom = sent(ask(), "custom", "a/b", base_url="https://h.example/x/{model}?y=1", header="X-Key")
    assert (custom.url, custom.headers["x-key"]) == ("https://h.example/x/a%2Fb?y=1", "k")
    assert "authorization" not in custom.headers


def test_zhipu_keys() -> None:
    """T-ZHIP-001, T-ZHIP-002: a key of two parts is signed, times in milliseconds; a plain one goes as it is."""
    token = sent(ask(), "zhipu", key="id.secret").headers["authorization"].removeprefix("Bearer ")
    head, claims = (orjson.loads(base64.urlsafe_b64decode(one + "==")) for one in token.split(".")[:2])
    assert (head["sign_type"], claims["api_key"]) == ("SIGN", "id")
    assert claims["timestamp"] > 10**12
    assert sent(ask(), "zhipu", key="plain").headers["authorization"] == "Bearer plain"


def test_turns_for_mistral() -> None:
    """T-MIST-002, T-MIST-003, T-MIST-004: a word between tool and user, a prefill's mark, ids of nine characters."""
    told = body(ask((*CALLED, ("user", "go"), ("assistant", "So"))), "mistral")["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert told[-1]["prefix"] is True
    id_ = told[1]["tool_calls"][0]["id"]
    assert id_.isalnum()
    assert (len(id_), id_) == (9, told[2]["tool_call_id"])


def test_old_thinking_on_the_native_endpoint() -> None:
    """T-DEEP-003: DeepSeek's own Responses endpoint gets its items as they are, and judges old ones by itself."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}
    items = [{"role": "user", "content": "Hi"}, thought, {**MESSAGE}, {"role": "user", "content": "Go on"}]
    asked = RESPONSES.read(orjson.dumps({"model": "asked", "input": items}), {})
    assert body(asked, "deepseek")["input"] == items


def test_zhipu_v3() -> None:
    """T-ZHIP-014: the older interface: a prompt of texts, an answer in quotes."""
    asked = ask((("system", "S"), ("user", "Hi")), temperature=0.5)
    out = sent(asked, "zhipu", "chatglm_turbo", key="id.secret", api="v3")
    assert out.url == "https://open.bigmodel.cn/api/paas/v3/model-api/chatglm_turbo/invoke"
    assert isinstance(out.body, dict)
    assert [one["content"] for one in out.body["prompt"]] == ["S", "Okay", "Hi"]
    data = {"task_id": "t1", "choices": [{"role": "assistant", "content": '" a\\n\\"b\\""'}], "usage": USAGE}
    shown = got("zhipu", orjson.dumps({"code": 200, "success": True, "data": data}), api="v3")
    assert (shown.text, shown.finish) == (' a\n"b"', "completed")
    assert (shown.usage["prompt"], shown.usage["completion"]) == (10, 5)
    refused = got("zhipu", orjson.dumps({"code": 1302, "msg": "slow", "success": False}), api="v3")
    assert refused.error is not None
    assert refused.error["type"] == "rate_limit_error"


def test_zhipu_v3_stream() -> None:
    """T-ZHIP-015: text lines as they are, usage from the line `meta`."""
    meta = orjson.dumps({"task_status": "SUCCESS", "usage": USAGE})
    upstream = (
        b"event:add\nid:1\ndata:Hello\n\nevent:add\nid:1\ndata: there\ndata:!\n\n"
        b"event:finish\nid:1\ndata:\nmeta:" + meta + b"\n\n"
    )
    shown = got("zhipu", upstream, stream=True, api="v3")
    assert (shown.text, shown.finish, shown.usage["completion"]) == ("Hello there\n!", "completed", 5)


# Answers.


@WAYS
def test_mistral(stream: bool) -> None:
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
    shown = got("mistral", upstream, stream=stream)
    assert (shown.text, shown.thoughts, shown.calls) == ("x", "t", [("abcdefghi", "f", '{"a":1}')])
    assert shown.finish == FINISHES["tool_calls"][LETTER]
    assert (shown.usage["prompt"], shown.usage["completion"], shown.usage["cached"]) == (10, 5, 4)


def test_ends() -> None:
    """T-MIST-011, T-AZUR-005: a provider's own words for the end; an answer that was filtered away whole."""
    assert got("mistral", whole({"content": "x"}, "model_length")).finish == "incomplete:max_output_tokens"
    assert got("mistral", whole({"content": ""}, "error")).error is not None
    filtered = response(status="incomplete", incomplete_details={"reason": "content_filter"})
    shown = got("azure", orjson.dumps(filtered))
    assert (shown.text, shown.finish) == ("", "incomplete:content_filter")


@WAYS
def test_groq_reasoning(stream: bool) -> None:
    """T-GROQ-001: the field `reasoning` is thinking."""
    parts = (chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "t"}), chunk({"content": "x"}))
    upstream = sse(*parts, chunk(finish="stop")) if stream else whole({"content": "x", "reasoning": "t"})
    shown = got("groq", upstream, stream=stream)
    assert (shown.text, shown.thoughts) == ("x", "t")


@WAYS
def test_think_tags(stream: bool) -> None:
    """T-GROQ-002: a tagged span is thinking where the channel says so, its tags cut anywhere."""
    pieces = (
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": one}) for one in ("<thi", "nk>t</th", "ink>x")),
    )
    upstream = sse(*pieces, chunk(finish="stop")) if stream else whole({"content": "<think>t</think>x"})
    shown = got("groq", upstream, stream=stream, think_tags=True)
    assert (shown.text, shown.thoughts) == ("x", "t")


def test_groq_usage() -> None:
    """T-GROQ-003, T-GROQ-008: usage in x_groq alone is read, told twice it is counted once."""
    start, said = chunk({"role": "assistant", "content": "x"}), chunk(finish="stop", x_groq={"id": "r", "usage": USAGE})
    for last in (said, {**said, "usage": USAGE}):
        assert got("groq", sse(start, last), stream=True).usage["completion"] == 5


def test_groq_failures() -> None:
    """T-GROQ-004, T-GROQ-005: the 400 stays one, with what the model wrote; inside a stream it is the stream's end."""
    error = {"message": "m", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "<f>"}
    one, told = failure("groq", 400, {"error": error})
    assert (one.status, one.code, told["failed_generation"]) == (400, "tool_use_failed", "<f>")
    event = b"event: error\ndata: " + orjson.dumps({"error": {**error, "status_code": 400}}) + b"\n\n"
    shown = got("groq", sse(chunk({"role": "assistant", "content": "x"}), event, done=False), stream=True)
    assert shown.error is not None
    assert shown.error["message"].startswith("m")


def test_own_fields() -> None:
    """T-GROQ-006, T-ORTR-010: what only one provider tells beside its answer is left out in translation."""
    node = orjson.loads(whole({"content": "x", "executed_tools": [{"index": 0}]}, usage_breakdown={"models": []}))
    node["choices"][0]["native_finish_reason"] = "STOP"
    shown = got("groq", orjson.dumps(node))
    assert shown.text == "x"
    assert not {"executed_tools", "usage_breakdown", "native_finish_reason"} & set(shown.tree)


@WAYS
def test_native_usage(stream: bool) -> None:
    """T-DEEP-004, T-ORTR-002, T-ORTR-003: the native endpoint has one role, one end, its own cached input."""
    created = {"type": "response.created", "response": response(status="in_progress", usage=None)}
    added = {"type": "response.output_item.added", "output_index": 0, "item": {**MESSAGE, "content": []}}
    delta = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": "x",
    }
    done = {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE}
    last = {"type": "response.completed", "response": response(MESSAGE)}
    begun = {**created, "type": "response.in_progress"}
    told = [{**one, "sequence_number": at} for at, one in enumerate((created, begun, added, delta, done, last))]
    upstream = b"".join(b"event: %s\ndata: %s\n\n" % (one["type"].encode(), orjson.dumps(one)) for one in told)
    for type_ in ("deepseek", "openrouter"):
        shown = got(type_, upstream if stream else orjson.dumps(response(MESSAGE)), stream=stream)
        assert (shown.text, shown.finish, shown.usage["cached"]) == ("x", "completed", 4)


def test_gave_up() -> None:
    """T-DEEP-007: a server that gave up is overloaded, and the key is not to blame."""
    error = {"code": "insufficient_system_resource", "message": "gone"}
    told = fold(dialect("deepseek").answer(ask(), Document(orjson.dumps(response(status="failed", error=error)))))
    assert told.failure is not None
    assert (told.failure.status, told.failure.kind, told.failure.blames) == (503, "overloaded", "channel")


def test_zhipu_stream() -> None:
    """T-ZHIP-011, T-ZHIP-012: `sensitive` is a filter's end, usage on the last chunk is told at the end."""
    said = chunk({"role": "assistant", "content": "x"})
    upstream = sse(said, said, chunk({"role": "assistant", "content": ""}, "sensitive", usage=USAGE))
    shown = got("zhipu", upstream, stream=True)
    assert (shown.text, shown.finish, shown.usage["prompt"]) == ("xx", "incomplete:content_filter", 10)


@WAYS
def test_plain_servers(stream: bool) -> None:
    """T-YI-001, T-CUST-004: text whole and streamed; a server that leaves out finish, usage and the end."""
    parts = (chunk({"role": "assistant", "content": "x"}), chunk({"content": "y"}), chunk(finish="stop", usage=USAGE))
    shown = got("lingyiwanwu", sse(*parts) if stream else whole({"content": "xy"}), stream=stream)
    assert (shown.text, shown.finish, shown.usage["completion"]) == ("xy", "completed", 5)
    bare = sse({"choices": [{"delta": {"content": "x", "own": 1}}]}, done=False)
    shown = got("custom", bare, stream=True)
    assert (shown.text, shown.finish) == ("x", "completed")


def test_cloudflare() -> None:
    """T-CLFL-002, T-CLFL-003, T-CLFL-004: `/ai/run` is unwrapped, whole and streamed; no usage is none to bill."""
    node = orjson.loads(whole({"content": "x"}))
    del node["usage"]
    events = dialect("cloudflare").answer(ask(), Document(orjson.dumps(node)))
    assert not any(isinstance(one, Metered) for one in events)
    result = {"response": "x", "usage": USAGE, "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    shown = got("cloudflare", orjson.dumps({"result": result, "success": True}), api="run")
    assert (shown.text, [one[1:] for one in shown.calls]) == ("x", [("f", '{"a":1}')])
    upstream = sse({"response": "x", "p": "ab"}, {"response": "y"}, {"response": "", "usage": USAGE})
    shown = got("cloudflare", upstream, stream=True, api="run")
    assert (shown.text, shown.usage["completion"], shown.finish) == ("xy", 5, "completed")


ERRORS: list[Any] = [
    ("T-MIST-014", "mistral", 422, {"detail": [{"loc": ["n"], "msg": "bad"}, {"msg": "worse"}]}, 400, "n: bad; worse"),
    ("T-ZHIP-013", "zhipu", 400, {"error": {"code": "1113", "message": "m"}}, 502, None),
    ("T-ZHIP-013", "zhipu", 400, {"error": {"code": "1211", "message": "m"}}, 404, "m"),
    ("T-ZHIP-013", "zhipu", 400, {"error": {"code": "1302", "message": "m"}}, 429, "m"),
    ("T-CLFL-005", "cloudflare", 400, {"success": False, "errors": [{"message": "a"}, {"message": "b"}]}, 400, "a; b"),
    *(
        ("T-CUST-005", "custom", 400, told, 400, "m")
        for told in ({"error": "m"}, {"message": "m"}, {"detail": "m"}, {"errors": [{"message": "m"}]})
    ),
]


@pytest.mark.parametrize(
    ("type_", "status", "node", "told", "message"),
    [one[1:] for one in ERRORS],
    ids=[f"{one[0]}-{number}" for number, one in enumerate(ERRORS)],
)
def test_errors(type_: str, status: int, node: Any, told: int, message: str | None) -> None:
    """A provider's error has the status and the words that its clients know."""
    one, shown = failure(type_, status, node)
    assert one.status == told
    assert message in (None, shown["message"])
