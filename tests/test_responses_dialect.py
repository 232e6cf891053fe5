"""The Responses dialect: requests to servers that have the endpoint, their answers, what clients get of them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters._openai_models import chat_only, responses_only
from newapi_proxy.adapters._tools import sealed_id
from newapi_proxy.adapters.base import Adapter, Dialect, Outgoing, Target, speaks
from newapi_proxy.errors import ClientError, Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import (
    Block,
    CallDelta,
    CallStarted,
    Cited,
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningDelta,
    ReasoningSealed,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
    fold,
)
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import Face
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.surfaces.responses import RESPONSES
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound
from tests.fakes.golden import streamed
from tests.fakes.inbound import LETTERS, across

Node = dict[str, Any]

ALONE = "gpt-5-codex"  # a model that only this endpoint has
NATIVE = ("openai", "azure", "deepseek", "openrouter", "xai")
PICTURE = "data:image/png;base64,iVBORw0KGgo="
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAAB=="}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hé.", "annotations": []}],
}
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 26,
}


def ask(input: Any = "Hi", **more: Any) -> Ask:
    """A Responses client's ask."""
    return RESPONSES.read(orjson.dumps({"model": "asked", "input": input, **more}), {})


def provider(kind: str, **options: Any) -> tuple[Adapter, Any]:
    """The provider as a channel with these options has it."""
    one = ADAPTERS[kind]
    settings = one.options(**options)
    return (one if one.tuned is None else msgspec.structs.replace(one, chat=one.tuned(settings))), settings


def dialect(asked: Ask, kind: str = "openai", model: str = "gpt-4o", **options: Any) -> Dialect:
    """The provider's dialect for the ask."""
    found = speaks(provider(kind, **options)[0], asked.dialect, model)
    assert found is not None
    return found


def sent(asked: Ask, kind: str = "openai", model: str = "gpt-4o", **options: Any) -> Outgoing:
    """What goes out for the ask."""
    settings = provider(kind, **options)[1]
    to = Target(
        channel="c", base_url="https://up.example", key=Secret("k"), model=model, options=settings, organization="org-1"
    )
    return dialect(asked, kind, model, **options).request(asked, to)


def tree(out: Outgoing) -> Node:
    """The body that goes out."""
    assert isinstance(out.body, dict)
    return out.body


def response(*output: Node, status: str = "completed", **more: Any) -> Node:
    """A whole response of upstream's."""
    return {"id": "resp_up", "object": "response", "created_at": 5.0, "model": "up", "status": status} | {
        "output": list(output),
        "usage": USAGE,
        **more,
    }


def frames(*events: Node, done: bool = False) -> bytes:
    """A stream of these events, numbered."""
    parts = [
        b"event: %s\ndata: %s\n\n" % (one["type"].encode(), orjson.dumps({**one, "sequence_number": number}))
        for number, one in enumerate(events)
    ]
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def begun(**more: Any) -> Node:
    """A stream's first event."""
    return {"type": "response.created", "response": response(status="in_progress", usage=None, **more)}


def ended(*output: Node, status: str = "completed", **more: Any) -> Node:
    """A stream's last event."""
    return {"type": f"response.{status}", "response": response(*output, status=status, **more)}


def at(index: int, kind: str, **more: Any) -> Node:
    """An event of one output item."""
    return {"type": f"response.{kind}", "output_index": index, "item_id": "i", "content_index": 0, **more}


def heard(*events: Node, done: bool = False) -> list[Event]:
    """What the reader tells of a stream."""
    asked = ask(stream=True)
    reader = dialect(asked).reader(asked)
    told = [event for frame in sse.Decoder().feed(frames(*events, done=done)) for event in reader.read(frame)]
    return [*told, *reader.close()]


def whole(node: Any) -> list[Event]:
    """What is told of a whole answer."""
    raw = node if isinstance(node, bytes) else orjson.dumps(node)
    return list(dialect(ask()).answer(ask(), Document(raw)))


def client(letter: str, data: bytes, stream: bool) -> bytes:
    """What a client of this format gets of an answer; cut at every byte too, which must change nothing."""
    speaker = inbound.surface(letter, stream)
    asked = inbound.read(letter, inbound.body(letter, model=ALONE, stream=stream), ALONE, stream)
    one, face = dialect(asked, model=ALONE), Face(model=ALONE, id="req-1", created=7)
    if not stream:
        events = one.answer(asked, Document(data))
        usage = fold(events).usage or NOTHING
        if one.dialect == speaker.dialect:
            return speaker.same(asked, face, Document(data), usage)
        return speaker.answer(asked, face, events, usage)
    out = streamed(pipe(speaker, one, asked, face), [data])
    assert out == streamed(pipe(speaker, one, asked, face), [data[place : place + 1] for place in range(len(data))])
    return out


# Which dialect.


def test_who_has_the_endpoint() -> None:
    """T-DEEP-010 (OR), T-AZUR-002 (OR): who has the endpoint is asked in the client's own format, others in chat's."""
    native = {kind for kind, one in ADAPTERS.items() if any(each.dialect == "openai-responses" for each in one.chat)}
    assert native == set(NATIVE)
    for kind in NATIVE:
        assert dialect(ask(), kind).dialect == "openai-responses"
    assert dialect(ask(), "groq", "m").dialect == "openai-chat"


def test_chat_stays_first() -> None:
    """Clients of other formats are served by chat completions wherever the model is there."""
    asked = CHAT.read(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}', {})
    for kind in NATIVE:
        assert dialect(asked, kind).dialect == "openai-chat"


def test_channel_option() -> None:
    """`responses: false` says that a server has no such endpoint: its Responses clients go by way of chat."""
    assert dialect(ask(), responses=False).dialect == "openai-chat"
    assert tree(sent(ask(), responses=False))["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("model", "alone", "never"),
    [
        ("gpt-5-codex", True, False),
        ("gpt-5.1-codex-max", True, False),
        ("codex-mini-latest", True, False),
        ("gpt-5.2-pro", True, False),
        ("o1-pro", True, False),
        ("o3-deep-research", True, False),
        ("computer-use-preview", True, False),
        ("gpt-5", False, False),
        ("gpt-4o", False, False),
        ("o3-mini", False, False),
        ("llama-3-pro", False, False),
        ("gpt-4o-search-preview", False, True),
        ("gpt-4o-audio-preview", False, True),
        ("gpt-audio", False, True),
        ("o1-mini", False, True),
    ],
)
def test_models_of_one_endpoint(model: str, alone: bool, never: bool) -> None:
    """Some of OpenAI's models are on this endpoint alone, some are not on it (T-OPEN-006 (OR))."""
    assert (responses_only(model), chat_only(model)) == (alone, never)
    assert dialect(ask(), model=model).dialect == ("openai-chat" if never else "openai-responses")


# Requests of the same format.


def test_own_body_is_kept() -> None:
    """T-OPEN-002, 011 (OR), T-CORE-001 (OR): the client's body goes out as it is, its unknown fields too."""
    file = {"type": "input_file", "file_url": "https://a.example/a.pdf"}
    given = {
        "input": [CALL, {"type": "function_call_output", "call_id": "c1", "output": [file]}],
        "previous_response_id": "resp_1",
        "store": True,
        "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}],
        "a_new_wish": {"deep": [1]},
        "provider": {"only": ["x"]},
        "stream": True,
    }
    out = sent(ask(**given))
    assert (out.url, out.dropped) == ("https://up.example/v1/responses", ())
    assert out.body == {"model": "gpt-4o", **given}
    assert dict(out.headers) == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "authorization": "Bearer k",
        "openai-organization": "org-1",
    }


def test_stored_state() -> None:
    """T-OPEN-022 (OR): an earlier response is named as it is; a background answer must be streamed."""
    given = {"previous_response_id": "resp_1", "background": True, "stream": True}
    assert {name: tree(sent(ask(**given)))[name] for name in given} == given
    with pytest.raises(ClientError) as refused:
        ask(background=True)
    assert refused.value.param == "background"


def test_reasoning_goes_back() -> None:
    """Encrypted reasoning of this format is replayed untouched (T-OPEN-007 (OR))."""
    items = [{"role": "user", "content": "Hi"}, REASONING, CALL]
    items += [{"type": "function_call_output", "call_id": "c1", "output": "x"}]
    assert tree(sent(ask(items)))["input"] == items


LONELY: list[tuple[str, list[Node], list[int]]] = [
    ("last", [{"role": "user", "content": "Hi"}, REASONING], [0]),
    ("before a question", [REASONING, {"role": "user", "content": "Hi"}], [1]),
    ("before an output", [CALL, REASONING, {"type": "function_call_output", "call_id": "c1", "output": "x"}], [0, 2]),
    ("several", [REASONING, REASONING, CALL, REASONING], [0, 1, 2]),
    ("before a message", [REASONING, MESSAGE], [0, 1]),
    ("before a hosted call", [REASONING, {"type": "web_search_call", "id": "ws_1"}], [0, 1]),
]


@pytest.mark.parametrize(("name", "items", "kept"), LONELY, ids=[name for name, _, _ in LONELY])
def test_lonely_reasoning(name: str, items: list[Node], kept: list[int]) -> None:
    """A reasoning item that nothing of the model's follows is left out: upstream refuses it (T-OPEN-008 (OR))."""
    assert tree(sent(ask(items)))["input"] == [items[place] for place in kept]


@pytest.mark.parametrize(("id_", "bare"), [(sealed_id("c", "c2ln" * 99), "c"), ("f" * 64, "f" * 64), ("f" * 65, None)])
def test_ids_of_a_conversation_that_moves_on(id_: str, bare: str | None) -> None:
    """A call's id loses the signature that it carries for another provider; above 64 characters it is hashed."""
    items = [{**CALL, "call_id": id_}, {"type": "function_call_output", "call_id": id_, "output": "x"}]
    call, output = tree(sent(ask(items)))["input"]
    assert call["call_id"] == output["call_id"] == (bare or output["call_id"])
    assert bare or len(call["call_id"]) <= 64
    assert call == {**CALL, "call_id": call["call_id"]}


def test_reasoning_without_a_name() -> None:
    """What has no id is replayed wherever it stands: upstream looks for the follower of items that it can name."""
    nameless = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAnameless"}
    items = [{"role": "user", "content": "a"}, nameless, nameless, {"role": "user", "content": "b"}]
    assert tree(sent(ask(items)))["input"] == items


def test_foreign_reasoning() -> None:
    """What another provider's model thought is left out: upstream could not decrypt it."""
    foreign = {**REASONING, "id": "rs_local_1", "encrypted_content": "anthropic-claude-v1.s.c2ln"}
    unsealed = {"type": "reasoning", "id": "rs_local_2", "summary": [{"type": "summary_text", "text": "Hm"}]}
    theirs = {"type": "reasoning", "id": "2cd8", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}
    assert tree(sent(ask([foreign, unsealed, theirs, CALL])))["input"] == [theirs, CALL]


EFFORTS: list[tuple[str, Node, Node, tuple[str, ...]]] = [
    ("gpt-5", {"temperature": 0.2, "top_p": 1}, {"top_p": 1}, ("temperature",)),
    ("gpt-5.1", {"temperature": 0.2}, {"temperature": 0.2}, ()),
    (
        "gpt-5.1",
        {"temperature": 0.2, "reasoning": {"effort": "low"}},
        {"reasoning": {"effort": "low"}},
        ("temperature",),
    ),
    (
        "gpt-5.6",
        {"reasoning": {"effort": "minimal", "summary": "auto"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
        ("reasoning.effort~",),
    ),
    (
        "gpt-4o",
        {"temperature": 0.2, "reasoning": {"effort": "low"}},
        {"temperature": 0.2, "reasoning": {"effort": "low"}},
        (),
    ),
]


@pytest.mark.parametrize(("model", "given", "wanted", "dropped"), EFFORTS)
@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_openai_models(kind: str, model: str, given: Node, wanted: Node, dropped: tuple[str, ...]) -> None:
    """OpenAI's own models get what they take (T-OPEN-004, 005 (OR))."""
    out = sent(ask(**given), kind, model)
    assert {name: one for name, one in tree(out).items() if name not in ("model", "input")} == wanted
    assert out.dropped == dropped


def test_a_name_that_says_how_to_reason() -> None:
    """The effort of a model's name is sent where the request says none."""
    asked = ask()
    thinking = msgspec.structs.replace(asked.controls, thinking=ask(reasoning={"effort": "high"}).controls.thinking)
    named = msgspec.structs.replace(asked, controls=thinking)
    assert tree(sent(named, model="gpt-5"))["reasoning"] == {"effort": "high"}


def test_azure() -> None:
    """T-AZUR-002, 003, 008 to 011 (OR): always its v1 route, with the deployment in the body."""
    out = sent(
        ask(metadata={}, a=1), "azure", "gpt-4.1", api_version="2024-06-01", strip_dots=True, strip_params=("a",)
    )
    assert out.url == "https://up.example/openai/v1/responses"
    assert (tree(out)["model"], out.headers["api-key"], out.dropped) == ("gpt-41", "k", ("a",))
    assert sent(ask(), "azure", bearer=True).headers["authorization"] == "Bearer k"
    one = dialect(ask(), "azure")
    missing = one.failure(404, {}, b'{"error":{"code":"DeploymentNotFound","message":"x"}}')
    assert (missing.status, missing.code) == (404, "model_not_found")
    coded = one.failure(429, {}, b'{"error":{"code":"429","message":"x"}}')
    assert (coded.status, coded.kind) == (429, "rate_limit")
    filtered = {"error": {"code": "content_filter", "message": "x", "innererror": {"content_filter_result": {}}}}
    policy = one.failure(400, {}, orjson.dumps(filtered))
    assert (policy.kind, dict(policy.extra)) == ("content_policy", {"innererror": {"content_filter_result": {}}})


def test_deepseek() -> None:
    """A picture is refused on text models, a schema is asked for in words (T-DEEP-005, 006, 008 (OR))."""
    with pytest.raises(Unsupported) as refused:
        sent(
            ask([{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]),
            "deepseek",
            "deepseek-v4",
        )
    assert (refused.value.param, refused.value.code) == ("input.0.content.0", "unsupported_content")
    form = {"type": "json_schema", "name": "it", "schema": {"type": "object"}, "strict": True}
    out = tree(sent(ask(instructions="Be brief.", text={"format": form}), "deepseek", "deepseek-v4"))
    assert out["text"] == {"format": {"type": "json_object"}}
    assert out["instructions"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert out["instructions"].endswith('{"type":"object"}')
    failed = dialect(ask(), "deepseek").failure(402, {}, b'{"error":{"message":"Insufficient Balance"}}')
    assert (failed.status, failed.code, failed.blames) == (502, "upstream_credentials", "key")


def test_xai() -> None:
    """Efforts and picture kinds as its models take them; an error as a bare string (T-XAI-002, 005, 006 (OR))."""
    out = sent(ask(reasoning={"effort": "none"}), "xai", "grok-4.5")
    assert (tree(out)["reasoning"], out.dropped) == ({"effort": "low"}, ("reasoning.effort~",))
    out = sent(ask(reasoning={"effort": "low", "summary": "auto"}), "xai", "grok-4")
    assert (tree(out)["reasoning"], out.dropped) == ({"summary": "auto"}, ("reasoning.effort",))
    out = sent(ask(reasoning={"effort": "low", "summary": "auto"}), "openrouter", "a/b")
    assert (tree(out)["reasoning"], out.dropped) == ({"effort": "low", "summary": "auto"}, ())
    webp = {"type": "input_image", "image_url": "data:image/webp;base64,UklGRg=="}
    with pytest.raises(Unsupported) as refused:
        sent(ask([{"role": "user", "content": [webp]}]), "xai", "grok-4.3")
    assert refused.value.code == "unsupported_content"
    failed = dialect(ask(), "xai").failure(400, {}, b'{"code":"invalid-argument","error":"Too long."}')
    assert (failed.message, failed.code) == ("Too long.", "invalid-argument")


def test_openrouter() -> None:
    """Cache marks and routing fields pass; it names this server (T-ORTR-008, 012 (OR))."""
    marked = {"type": "input_text", "text": "x", "cache_control": {"type": "ephemeral"}}
    given = {"models": ["a", "b"], "provider": {"only": ["x"]}, "transforms": ["middle-out"]}
    out = sent(ask([{"role": "user", "content": [marked]}], **given), "openrouter", "openai/gpt-5")
    assert {name: tree(out)[name] for name in given} == given
    assert tree(out)["input"][0]["content"] == [marked]
    assert out.headers["x-title"] == "newapi_proxy"


# Requests of other formats, to models that only this endpoint has.


@across("OC", "AM", "GG")
def test_translated_text(letter: str) -> None:
    """A question of another format is a stateless request of this one (T-OPEN-002, T-DEEP-010)."""
    out = sent(inbound.read(letter, inbound.body(letter, model=ALONE), ALONE), model=ALONE)
    assert out.url == "https://up.example/v1/responses"
    assert tree(out)["input"] == [{"type": "message", "role": "user", "content": "Hi"}]
    assert (tree(out)["store"], tree(out)["include"]) == (False, ["reasoning.encrypted_content"])


def chat(messages: list[Node] | None = None, **more: Any) -> Ask:
    """A chat client's ask."""
    return CHAT.read(
        orjson.dumps({"model": ALONE, "messages": messages or [{"role": "user", "content": "Hi"}], **more}), {}
    )


def test_translated_parts() -> None:
    """Pictures, files and sounds in their native parts, in tools' results too (T-OPEN-011 (OC))."""
    parts = [
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]
    wanted = [
        {"type": "input_text", "text": "x"},
        {"type": "input_image", "detail": "low", "image_url": PICTURE},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]
    called = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": ""}}]}
    messages = [
        {"role": "user", "content": parts},
        called,
        {"role": "tool", "tool_call_id": "c1", "content": parts[:3]},
    ]
    items = tree(sent(chat(messages), model=ALONE))["input"]
    assert items[0]["content"] == wanted
    assert items[1] == {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    assert items[2] == {"type": "function_call_output", "call_id": "c1", "output": wanted[:3]}
    with pytest.raises(Unsupported):
        sent(
            chat([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://a.example"}}]}]),
            model=ALONE,
        )


def test_translated_history() -> None:
    """Refusals, free-form calls and sealed reasoning of a chat history (T-OPEN-007 (OC))."""
    sealed = {"type": "reasoning.encrypted", "data": "gAAAAAB==", "format": "openai-responses-v1", "id": "rs_1"}
    unsealed = {"type": "reasoning.text", "text": "Hm", "format": "unknown"}
    custom = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "x"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "One.", "reasoning_details": [sealed, unsealed], "tool_calls": [custom]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "And?"},
    ]
    out = sent(chat(messages), model=ALONE)
    assert tree(out)["input"][2:] == [
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAAB==", "id": "rs_1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "One."}]},
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "message", "role": "user", "content": "And?"},
    ]
    assert out.dropped == ("messages.2.reasoning_content",)


def test_translated_tools() -> None:
    """Functions, free-form tools with their grammar, a web search; choices in this format's shape."""
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}
    tools = [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "strict": True, "parameters": {"type": "object"}},
        },
        {"type": "custom", "custom": {"name": "patch", "format": grammar}},
    ]
    place = {"type": "approximate", "approximate": {"country": "PL"}}
    search = {"search_context_size": "low", "user_location": place}
    named = {"type": "custom", "custom": {"name": "patch"}}
    out = tree(
        sent(chat(tools=tools, tool_choice=named, web_search_options=search, parallel_tool_calls=False), model=ALONE)
    )
    assert out["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {
            "type": "custom",
            "name": "patch",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"},
        },
        {
            "type": "web_search",
            "search_context_size": "low",
            "user_location": {"type": "approximate", "country": "PL"},
        },
    ]
    assert (out["tool_choice"], out["parallel_tool_calls"]) == ({"type": "custom", "name": "patch"}, False)
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools[:1]}}
    out = tree(sent(chat(tools=tools, tool_choice=allowed), model=ALONE))
    named = {"type": "function", "name": "f"}
    assert out["tool_choice"] == {"type": "allowed_tools", "mode": "required", "tools": [named]}
    assert out["tools"][0]["strict"] is True
    assert tree(sent(chat(tools=tools, tool_choice="required"), model=ALONE))["tool_choice"] == "required"


def test_translated_controls() -> None:
    """Fields of the same meaning move, what only steers is named, what changes the answer is refused (A.0.4)."""
    out = sent(
        chat(
            max_tokens=100,
            reasoning_effort="low",
            verbosity="high",
            response_format={"type": "json_object"},
            user="u",
            service_tier="flex",
            metadata={"a": "b"},
            store=True,
            stop=["x"],
            top_k=3,
            seed=1,
            logit_bias={},
            logprobs=False,
            a_new_wish=1,
        ),
        model=ALONE,
    )
    wanted = {
        "max_output_tokens": 100,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": "high"},
        "user": "u",
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "store": True,
    }
    assert {name: tree(out)[name] for name in wanted} == wanted
    assert out.dropped == ("a_new_wish", "logit_bias", "seed", "stop", "top_k")
    for refused in ({"n": 2}, {"logprobs": True}, {"modalities": ["text", "audio"]}, {"audio": {"voice": "x"}}):
        with pytest.raises(Unsupported) as told:
            sent(chat(**refused), model=ALONE)
        assert told.value.param in refused
    assert sent(chat(max_tokens=4), model=ALONE).dropped == ("max_tokens~",)
    with pytest.raises(Unsupported):
        sent(chat(tools=[{"type": "code_interpreter"}]), model=ALONE)


def test_web_search_by_chat() -> None:
    """A web search is refused where the provider has nothing like it, and a wish where it has (B.11)."""
    asked = ask(tools=[{"type": "web_search"}])
    with pytest.raises(Unsupported) as refused:
        sent(asked, "groq", "m")
    assert refused.value.param == "tools"
    assert tree(sent(asked, "perplexity", "sonar"))["web_search_options"] == {}
    assert tree(sent(asked, "openai", "gpt-4o-search-preview"))["web_search_options"] == {}
    with pytest.raises(Unsupported) as refused:
        sent(ask(tools=[{"type": "code_interpreter"}]), "groq", "m")
    assert refused.value.param == "tools.0"
    for stored in ({"previous_response_id": "resp_1"}, {"store": True}, {"conversation": "conv_1"}):
        with pytest.raises(Unsupported) as refused:
            sent(ask(**stored), "groq", "m")
        assert refused.value.param in stored


# Answers.


def test_stream_of_pieces() -> None:
    """Deltas become events of their items; a blank line stands between two summaries (decision 27)."""
    ids = {"type": "function_call", "call_id": "c1", "name": "f"}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free"}
    note = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    told = heard(
        begun(),
        at(0, "output_item.added", item={"type": "reasoning"}),
        at(0, "reasoning_summary_text.delta", summary_index=0, delta="a"),
        at(0, "reasoning_summary_text.delta", summary_index=1, delta="b"),
        at(0, "reasoning_text.delta", delta="told otherwise"),
        at(0, "output_item.done", item=REASONING),
        at(1, "output_text.delta", delta="Hé"),
        at(1, "output_text.annotation.added", annotation=note),
        at(1, "refusal.delta", delta="No"),
        at(1, "output_item.done", item=MESSAGE),
        at(2, "output_item.added", item=ids),
        at(2, "function_call_arguments.delta", delta='{"a":'),
        at(2, "function_call_arguments.delta", delta="1}"),
        at(2, "function_call_arguments.done", arguments='{"a":1}'),
        at(2, "output_item.done", item=CALL),
        at(3, "output_item.added", item=custom),
        at(3, "custom_tool_call_input.delta", delta="free"),
        at(3, "output_item.done", item=custom),
        at(4, "output_item.done", item={"type": "web_search_call", "id": "ws_1"}),
        {"type": "response.from_the_future"},
        ended(),
        done=True,
    )
    usage = Usage(
        prompt=20, completion=6, cache_read=8, cache_write=4, reasoning=2, server_tools={"web_search_requests": 1}
    )
    assert told == [
        Started("resp_up", "up", 5),
        ReasoningDelta("a", 0, 0),
        ReasoningDelta("\n\nb", 0, 0),
        ReasoningSealed(None, "gAAAAAB==", "openai-responses-v1", 0, 0),
        TextDelta("Hé", 0, 1),
        Cited({"url": "https://a.example", "title": "A", "start": 0, "end": 2}, "web", 0, 1),
        RefusalDelta("No"),
        CallStarted(0, "c1", "f", 0, 2),
        CallDelta(0, '{"a":'),
        CallDelta(0, "1}"),
        CallStarted(1, "c2", "g", 0, 3, "custom"),
        CallDelta(1, "free"),
        Block({"type": "web_search_call", "id": "ws_1"}, "openai-responses", 0, 4),
        Metered(usage),
        Finished("tool_calls", native="completed"),
        Ended(),
    ]


def test_what_never_came_in_pieces() -> None:
    """Items without deltas, and items that only the last event holds, are told all the same."""
    thought = {"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "x"}
    items = [thought, MESSAGE, {**CALL, "arguments": ""}, {"type": "message", "content": [{"refusal": "No."}]}]
    expected = [
        ReasoningDelta("a\n\nb", 0, 0),
        ReasoningSealed(None, "x", "openai-responses-v1", 0, 0),
        TextDelta("Hé.", 0, 1),
        CallStarted(0, "c1", "f", 0, 2),
        CallDelta(0, "{}"),
        RefusalDelta("No."),
    ]
    done = [at(place, "output_item.done", item=item) for place, item in enumerate(items)]
    for told in (heard(begun(), *done, ended()), heard(begun(), ended(*items)), whole(response(*items))):
        assert told[1:7] == expected
        assert isinstance(told[-1], Finished)
    assert heard(begun(), *done, ended(*items))[1:7] == expected


FINISHES = [
    ("completed", None, "stop"),
    ("incomplete", {"reason": "max_output_tokens"}, "length"),
    ("incomplete", {"reason": "content_filter"}, "content_filter"),
    ("incomplete", None, "length"),
    ("queued", None, "stop"),
]


@pytest.mark.parametrize(("status", "details", "reason"), FINISHES)
def test_finishes(status: str, details: Any, reason: str) -> None:
    """Every status means a finish."""
    finished = whole(response(MESSAGE, status=status, incomplete_details=details))[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == reason


def failure(events: list[Event]) -> UpstreamFailure:
    """The failure that these events end with."""
    assert isinstance(events[-1], Failed)
    return events[-1].failure


def test_failures_inside_a_success() -> None:
    """A response that failed, an error event of either shape, a cut: failures, whole and streamed (demand R6, U8)."""
    said = {"code": "rate_limit_exceeded", "message": "Slow down"}
    failed = response(status="failed", error=said, usage=None)
    nested = {"type": "error", "error": {"type": "server_error", "code": "server_error", "message": "Slow down"}}
    for events in (
        heard(begun(), {"type": "response.failed", "response": failed}),
        heard({"type": "error", **said, "param": None}),
        heard(begun(), nested),
        whole(failed),
        whole({"error": said}),
    ):
        assert failure(events).message == "Slow down"
    assert failure(whole(failed)).kind == "rate_limit"
    assert "ended before" in failure(heard(begun(), at(0, "output_text.delta", delta="Hi"))).message
    for broken in (b"<html>", b"[]", b"3", b'{"id": "x"}'):
        assert failure(whole(broken)).status == 502
    metered = heard(begun(), {"type": "response.failed", "response": {**failed, "usage": USAGE}})
    assert isinstance(metered[-2], Metered)


def test_after_the_last_event() -> None:
    """What follows a response's end is not told again; a second response adds what it used."""
    told = heard(
        begun(), at(0, "output_text.delta", delta="Hi"), ended(), at(0, "output_text.delta", delta="x"), ended()
    )
    assert [type(event) for event in told] == [Started, TextDelta, Metered, Finished, Metered]
    assert heard(begun(), ended(), {"type": "error", "message": "late"})[-1] == Finished("stop", native="completed")


def test_usage_without_reasoning() -> None:
    """A total above its parts says that reasoning was counted beside them (T-XAI-001 (OR))."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 30}
    told = fold(whole(response(MESSAGE, usage=usage))).usage
    assert told == Usage(prompt=10, completion=20, reasoning=15)
    for absurd in ({"input_tokens": -1, "output_tokens": 5}, {"input_tokens": "x"}, 3, {}):
        assert fold(whole(response(MESSAGE, usage=absurd))).usage is None


STREAM = frames(
    begun(),
    at(0, "output_item.added", item={"type": "reasoning"}),
    at(0, "reasoning_summary_text.delta", summary_index=0, delta="Hm"),
    at(0, "output_item.done", item=REASONING),
    at(1, "output_text.delta", delta="Hé.", obfuscation="abc"),
    at(1, "output_item.done", item=MESSAGE),
    at(2, "output_item.added", item={**CALL, "arguments": ""}),
    at(2, "function_call_arguments.delta", delta='{"a":1}'),
    at(2, "output_item.done", item=CALL),
    ended(REASONING, MESSAGE, CALL),
)


@across("OC", "OR", "AM", "GG")
def test_every_client_gets_it(letter: str) -> None:
    """A stream reaches clients of each format: text, thought, its seal, the call (T-OPEN-002, 007, T-DEEP-010)."""
    out = client(letter, STREAM, True).decode()
    for piece in ("Hé.", "Hm", "gAAAAAB==", "f"):
        assert (piece in out) or (letter == "GG" and piece == "gAAAAAB=="), piece
    assert ("obfuscation" in out) == (letter == "OR")
    if letter == "OR":
        assert out.encode() == STREAM
    body = client(letter, orjson.dumps(response(REASONING, MESSAGE, CALL)), False)
    assert "Hé." in body.decode()


@across("OC", "OR", "AM", "GG")
def test_every_client_is_told_of_a_failure(letter: str) -> None:
    """A failure after content ends each format's stream with its error."""
    failed = {"type": "response.failed", "response": response(status="failed", error={"message": "It broke"})}
    out = client(letter, frames(begun(), at(0, "output_text.delta", delta="Hi"), failed), True)
    assert b"It broke" in out
    assert b"[DONE]" not in out


def test_moderation_behind_usage() -> None:
    """Events that nobody knows keep their place, also behind usage (T-OPEN-013 (OR))."""
    late = {"type": "response.moderation", "moderation": {"flagged": False}}
    data = frames(begun(), at(0, "output_text.delta", delta="Hi"), ended(), late)
    assert client("OR", data, True) == data


# Hostile bytes.


WRONG: list[Any] = [None, 3, -1, 1.5, "x", "", [], {}, [None], {"type": 3}, True, 2**40, {"text": []}]
PIECES = (
    *("output_item.added", "output_item.done", "output_text.delta", "refusal.delta", "reasoning_text.delta"),
    *("function_call_arguments.delta", "custom_tool_call_input.done", "output_text.annotation.added", "new"),
)


def wrecked(dice: random.Random, value: Any) -> Any:
    """The value with some of its parts replaced by what nobody means."""
    if dice.random() < 0.06:
        return dice.choice(WRONG)
    if isinstance(value, dict):
        return {name: wrecked(dice, one) for name, one in value.items()}
    return [wrecked(dice, one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(100))
def test_garbage(seed: int) -> None:
    """Whatever upstream sends, the reader tells events and every client's stream has an end."""
    dice = random.Random(seed)
    items = [CALL, MESSAGE, REASONING]
    pieces = [
        at(dice.randrange(3), dice.choice(PIECES), delta="x", item=dice.choice(items), arguments="{}", annotation={})
        for _ in range(12)
    ]
    nodes = [wrecked(dice, one) for one in (begun(), *pieces, ended(*items))]
    lines = [orjson.dumps(one) if dice.random() > 0.1 else orjson.dumps(one)[:-3] for one in nodes]
    data = b"".join([b"data: " + one + b"\n\n" for one in lines])
    for letter in LETTERS:
        assert client(letter, data, True)
    for one in (*lines, orjson.dumps(wrecked(dice, response(*items)))):
        assert whole(one)


def test_frames_that_are_no_objects() -> None:
    """They are skipped and counted; comments are nothing."""
    asked = ask(stream=True)
    reader = dialect(asked).reader(asked)
    data = b": hi\n\ndata: 3\n\ndata: {x\n\ndata: \n\ndata: {}\n\n"
    told = [event for frame in sse.Decoder().feed(data) for event in reader.read(frame)]
    assert [type(event) for event in told] == [Skipped, Skipped]


# Servers that have the endpoint, seen by a Responses client.


def native(kind: str, data: bytes, stream: bool = True) -> bytes:
    """What a Responses client gets of the provider's answer; cut at every byte too, which must change nothing."""
    asked = ask(stream=stream)
    one, face = dialect(asked, kind), Face(model="asked", id="req-1", created=7, rename=ADAPTERS[kind].aliases)
    if not stream:
        events = one.answer(asked, Document(data))
        told = fold(events)
        if told.failure is not None:
            return RESPONSES.failure(told.failure, "")
        return RESPONSES.same(asked, face, Document(data), told.usage or NOTHING)
    out = streamed(pipe(RESPONSES, one, asked, face), [data])
    pieces = [data[place : place + 1] for place in range(len(data))]
    assert out == streamed(pipe(RESPONSES, one, asked, face), pieces)
    return out


@pytest.mark.parametrize("kind", NATIVE)
def test_pass_through(kind: str) -> None:
    """T-OPEN-002, 007, 014 (OR), T-DEEP-010 (OR): events and ids stay, the asked name is shown."""
    out = native(kind, STREAM)
    assert out == STREAM if not ADAPTERS[kind].aliases else out.replace(b'"asked"', b'"up"') == STREAM
    whole_answer = orjson.dumps(response(REASONING, MESSAGE, CALL, moderation={"flagged": False}))
    body = orjson.loads(native(kind, whole_answer, stream=False))
    assert body == orjson.loads(whole_answer) | ({"model": "asked"} if ADAPTERS[kind].aliases else {})


def test_keep_alive_lines() -> None:
    """T-ORTR-001 (OR), T-DEEP-009 (OR): comments and blank lines are no data; `[DONE]` is swallowed."""
    noisy = b": OPENROUTER PROCESSING\n\n" + STREAM.replace(b"\n\n", b"\n\n: keep-alive\n\n\n") + b"data: [DONE]\n\n"
    assert native("openrouter", noisy) == STREAM
    padded = b"\n\n \n" + orjson.dumps(response(MESSAGE))
    assert orjson.loads(native("deepseek", padded, stream=False))["output"] == [MESSAGE]


def test_raw_thinking() -> None:
    """T-DEEP-001 (OR): raw thinking is told as such, and read as thinking."""
    thought = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    delta = at(0, "reasoning_text.delta", delta="Hm.")
    data = frames(
        begun(), at(0, "output_item.added", item=thought), delta, at(0, "output_item.done", item=thought), ended()
    )
    assert b'"reasoning_text"' in native("deepseek", data)
    assert ReasoningDelta("Hm.", 0, 0) in heard(begun(), delta, ended())


def test_thinking_of_a_provider_is_given_back() -> None:
    """T-DEEP-002 (OR), T-ORTR-007 (OR): reasoning items go back verbatim, sealed or not."""
    raw = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    items = [
        {"role": "user", "content": "Hi"},
        raw,
        CALL,
        {"type": "function_call_output", "call_id": "c1", "output": ""},
    ]
    for kind in ("deepseek", "openrouter"):
        assert tree(sent(ask(items), kind, "m"))["input"] == items


@pytest.mark.parametrize("stream", [False, True])
def test_error_in_a_good_status(stream: bool) -> None:
    """T-ORTR-004 to 006 (OR): the error's own code decides, its cause stands behind its sentence."""
    said = {"error": {"code": 429, "message": "Provider returned error", "metadata": {"raw": "slow down"}}}
    data = b"data: " + orjson.dumps(said) + b"\n\n" if stream else orjson.dumps(said)
    assert b"slow down" in native("openrouter", data, stream)
    told = failure(whole(said))
    assert (told.status, told.kind) == (429, "rate_limit")


def test_cost_is_handed_on() -> None:
    """T-ORTR-009, 011 (OR): usage stays as it is, whatever stands in it, and is understood."""
    usage = {**USAGE, "cost": 0.1, "num_sources_used": 3}
    body = orjson.loads(native("openrouter", orjson.dumps(response(MESSAGE, usage=usage)), stream=False))
    assert body["usage"] == usage
    told = fold(whole(response(MESSAGE, usage=usage))).usage
    assert told is not None
    assert (told.prompt, told.completion, told.cache_read, told.cache_write) == (20, 6, 8, 4)


def test_citations_are_handed_on() -> None:
    """T-OPEN-012 (OR), T-XAI-004 (OR): annotations stay, and reach other clients as citations."""
    note = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    cited = {**MESSAGE, "content": [{"type": "output_text", "text": "Hé.", "annotations": [note]}]}
    body = orjson.loads(native("xai", orjson.dumps(response(cited)), stream=False))
    assert body["output"] == [cited]
    assert Cited({"url": "https://a.example", "title": "A", "start": 0, "end": 2}, "web", 0, 0) in whole(
        response(cited)
    )
