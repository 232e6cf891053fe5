"""Legacy completions: the surface, the endpoint of OpenAI-compatible servers, prompts told as chat elsewhere."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Outgoing, Target, speaks
from newapi_proxy.errors import ClientError, OurError, Unsupported
from newapi_proxy.ir.ask import Ask, Text
from newapi_proxy.ir.events import (
    CallStarted,
    Ended,
    Event,
    Failed,
    Finished,
    Metered,
    ReasoningDelta,
    RefusalDelta,
    Skipped,
    Started,
    TextDelta,
    fold,
)
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import PATH, Face
from newapi_proxy.surfaces.completions import COMPLETIONS
from newapi_proxy.surfaces.openai_chat import CHAT
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

FACE = Face(model="asked", id="cmpl-ours", created=7)
RENAMED = Face(model="asked", id="cmpl-ours", created=7, rename=True)
USAGE = Usage(prompt=10, completion=4)
COUNTED = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def ask(prompt: Any = "Once", **more: Any) -> Ask:
    """An ask out of a body with this prompt and fields."""
    return COMPLETIONS.read(orjson.dumps({"model": "asked", "prompt": prompt, **more}), {})


STREAMED = ask(stream=True, stream_options={"include_usage": True})
PLAIN = ask(stream=True)


def chunks(data: bytes) -> list[Any]:
    """The payloads of a stream; `[DONE]` as a string."""
    found = sse.Decoder().feed(data)
    return ["[DONE]" if one.done else orjson.loads(one.data) for one in found if one.data is not None]


def request(type_: str, asked: Ask, model: str = "m", base_url: str = "https://h.example", **options: Any) -> Outgoing:
    """What goes out to this provider."""
    adapter = ADAPTERS[type_]
    dialect = speaks(adapter, asked.dialect, model)
    assert dialect is not None
    to = Target(channel="c", base_url=base_url, key=Secret("k"), model=model, options=adapter.options(**options))
    return dialect.request(asked, to)


def test_deployments() -> None:
    """Azure's deployments have the endpoint too; one that is named for a chat model is told the prompt as chat."""
    one = request("azure", STREAMED, "davinci-002", api_version="2024-10-21")
    assert one.url == "https://h.example/openai/deployments/davinci-002/completions?api-version=2024-10-21"
    assert (one.body["prompt"], one.body["model"], "stream_options" in one.body) == ("Once", "davinci-002", False)  # type: ignore[index]
    assert request("azure", ask(), "davinci-002").url == "https://h.example/openai/v1/completions"
    assert request("azure", ask(), "gpt-35-turbo").url == "https://h.example/openai/v1/chat/completions"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "model is required"),
    ({"model": 3}, "model", "must be a string"),
    ({"model": "x" * 513}, "model", "longer"),
    ({"prompt": None}, "prompt", "field prompt is required"),
    ({"prompt": ""}, "prompt", "field prompt is required"),
    ({"prompt": []}, "prompt", "field prompt is required"),
    ({"prompt": 3}, "prompt", "must be an array"),
    ({"prompt": ["a", 3]}, "prompt.1", "must be a string"),
    ({"prompt": [1, "a"]}, "prompt.1", "token number"),
    ({"prompt": [[1], ["a"]]}, "prompt.1.0", "token number"),
    ({"prompt": [[1], "a"]}, "prompt.1", "must be an array"),
    ({"prompt": ["a"] * 2049}, "prompt", "more than"),
    ({"max_tokens": -1}, "max_tokens", "max_tokens is invalid"),
    ({"max_tokens": "9"}, "max_tokens", "must be a number"),
    ({"n": 0}, "n", "between 1 and 128"),
    ({"best_of": 129}, "best_of", "between 0 and 128"),
    ({"stop": [1]}, "stop.0", "must be a string"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {}}, "stream_options", "only allowed"),
    ({"echo": 1}, "echo", "true or false"),
    ({"suffix": 1}, "suffix", "must be a string"),
    ({"logprobs": "x"}, "logprobs", "must be a number"),
    ({"logit_bias": []}, "logit_bias", "must be an object"),
    ({"seed": 1.5}, "seed", "whole number"),
]


@pytest.mark.parametrize(("body", "param", "words"), WRONG, ids=[f"{param}-{words}" for _, param, words in WRONG])
def test_wrong_fields(body: dict[str, Any], param: str, words: str) -> None:
    """A wrong type or value is a 400 `invalid_text_request` that names its place."""
    with pytest.raises(ClientError) as told:
        ask(**{"prompt": "Once", **body})
    assert (told.value.status, told.value.code, told.value.param) == (400, "invalid_text_request", param)
    assert words in told.value.message


def test_ask() -> None:
    """A single text is one user's turn; settings have their places, unknown names are listed."""
    asked = ask(
        temperature=0.5, max_tokens=9, n=2, stop="x", user="u", seed=3, frequency_penalty=1, logit_bias={}, novelty=1
    )
    assert asked.turns[0].parts == (Text(text="Once", path="prompt"),)
    controls = asked.controls
    assert (controls.max_tokens, controls.temperature, controls.n, controls.stop) == (9, 0.5, 2, ("x",))
    assert controls.user == "u"
    assert controls.steering == {"frequency_penalty": 1, "seed": 3, "logit_bias": {}}
    assert (asked.unknown, asked.own, asked.usage_wanted) == (("novelty",), (), False)
    assert ask(["Once"]).turns == asked.turns


@pytest.mark.parametrize(
    ("body", "own", "answers"),
    [
        ({"prompt": ["a", "b"], "n": 3}, ("prompt",), 6),
        ({"prompt": [1, 2, 3]}, ("prompt",), 1),
        ({"prompt": [[1], [2]]}, ("prompt",), 2),
        ({"prompt": "a", "suffix": "b"}, ("suffix",), 1),
        ({"prompt": "a", "suffix": ""}, (), 1),
        ({"prompt": "a", "echo": True}, ("echo",), 1),
        ({"prompt": "a", "echo": False}, (), 1),
        ({"prompt": "a", "best_of": 4}, ("best_of",), 4),
        ({"prompt": "a", "best_of": 1}, (), 1),
        ({"prompt": "a", "logprobs": 0}, ("logprobs",), 1),
        ({"prompt": "a", "logprobs": True}, ("logprobs",), 1),
        ({"prompt": "a", "logprobs": False}, (), 1),
    ],
)
def test_own_endpoint_only(body: dict[str, Any], own: tuple[str, ...], answers: int) -> None:
    """What only the endpoint can do is refused where there is none, with its path; money is held for all answers."""
    asked = ask(**body)
    assert (asked.own, asked.controls.n) == (own, answers)
    for type_ in ("anthropic", "mistral"):
        if not own:
            assert request(type_, asked).url
            continue
        with pytest.raises(Unsupported) as told:
            request(type_, asked)
        assert (told.value.status, told.value.param, told.value.code) == (400, own[0], "unsupported_parameter")
    assert request("openai", asked).body == {**body, "model": "m"}


def test_pass_through() -> None:
    """T-OPEN-016 (OC): the body goes up as it came but for the model; usage is asked for on a stream."""
    body = {"model": "asked", "prompt": [[1, 2]], "echo": True, "novelty": {"a": None}}
    asked = COMPLETIONS.read(orjson.dumps(body), {})
    sent = request("openai", asked, "davinci-002")
    assert sent.url == "https://h.example/v1/completions"
    assert sent.body == {**body, "model": "davinci-002"}
    assert sent.headers["authorization"] == "Bearer k"
    assert sent.dropped == ()
    streamed = request("openai", PLAIN)
    assert streamed.body["stream_options"] == {"include_usage": True}  # type: ignore[call-overload]
    assert "stream_options" not in request("openai", STREAMED, no_stream_options=True).body


@pytest.mark.parametrize(
    ("type_", "model", "path"),
    [
        ("openai", "gpt-3.5-turbo-instruct", "/v1/completions"),
        ("openai", "meta-llama/Llama-3.2-1B", "/v1/completions"),
        ("openai", "ft:davinci-002:x", "/v1/completions"),
        ("openai", "gpt-4o", "/v1/chat/completions"),
        ("openai", "ft:gpt-4o:x", "/v1/chat/completions"),
        ("openai", "o3-mini", "/v1/chat/completions"),
        ("deepseek", "deepseek-chat", "/beta/completions"),
        ("together", "x", "/v1/completions"),
        ("groq", "x", "/v1/chat/completions"),
        ("mistral", "x", "/v1/chat/completions"),
    ],
)
def test_where_prompts_go(type_: str, model: str, path: str) -> None:
    """To the endpoint where server and model have it, else to chat as a user's message."""
    sent = request(type_, ask(max_tokens=5), model)
    assert sent.url == f"https://h.example{path}"
    assert isinstance(sent.body, dict)
    if "chat" in path:
        assert sent.body["messages"] == [{"role": "user", "content": "Once"}]
        assert "prompt" not in sent.body


def test_chat_stays_first() -> None:
    """A chat never goes to the endpoint, whatever the model is called."""
    chat = CHAT.read(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}), {})
    assert request("openai", chat, "davinci-002").url.endswith("/v1/chat/completions")
    legacy = next(one for one in ADAPTERS["openai"].chat if one.dialect == "openai.completions")
    to = Target(channel="c", base_url="https://h", key=Secret("k"), model="m", options=ADAPTERS["openai"].options())
    with pytest.raises(Unsupported):
        legacy.request(chat, to)


def test_engine_of_the_path() -> None:
    """The path's model fills a missing one, on both of the engine's routes; the body's own wins."""
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    for surface, body in ((COMPLETIONS, {"prompt": "a"}), (CHAT, chat)):
        asked = surface.read(orjson.dumps(body), {PATH: "engine"})
        assert (asked.model, asked.tree["model"]) == ("engine", "engine")
        assert surface.read(orjson.dumps({"model": "own", **body}), {PATH: "engine"}).model == "own"


# Answers from events.

TALK: list[Event] = [
    Started("c9", "native", 5),
    ReasoningDelta("Hm."),
    TextDelta("upon "),
    TextDelta("a time"),
    Finished("length"),
    Metered(USAGE),
]


def test_whole_answer() -> None:
    """A whole answer is text; thinking has no place in it unless the channel puts it there."""
    node = orjson.loads(COMPLETIONS.answer(ask(), FACE, TALK, USAGE))
    assert (node["id"], node["object"], node["created"], node["model"]) == ("c9", "text_completion", 5, "asked")
    assert node["choices"] == [{"text": "upon a time", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert node["usage"]["total_tokens"] == 14
    inlined = Face(model="asked", id="x", created=7, thinking_to_content=True)
    node = orjson.loads(COMPLETIONS.answer(ask(), inlined, TALK, USAGE))
    assert node["choices"][0]["text"].startswith("<think>\nHm.\n</think>")
    assert node["choices"][0]["text"].endswith("upon a time")


def test_stream() -> None:
    """Chunks of the same object, the finish on its own, usage behind it where it was asked for, `[DONE]`."""
    for asked in (STREAMED, PLAIN):
        writer = COMPLETIONS.writer(asked, FACE)
        early = b"".join([writer.feed(one) for one in TALK])
        assert b"[DONE]" not in early
        *told, done = chunks(early + writer.close(USAGE))
        assert done == "[DONE]"
        assert {one["object"] for one in told} == {"text_completion"}
        assert {(one["id"], one["created"], one["model"]) for one in told} == {("c9", 5, "asked")}
        if asked.usage_wanted:
            last = told.pop()
            assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 10)
            assert all(one["usage"] is None for one in told)
        else:
            assert all("usage" not in one for one in told)
        assert [(one["choices"][0]["text"], one["choices"][0]["finish_reason"]) for one in told] == [
            ("upon ", None),
            ("a time", None),
            ("", "length"),
        ]


@pytest.mark.parametrize(
    ("reason", "word"),
    [("stop", "stop"), ("tool_calls", "stop"), ("refusal", "content_filter"), ("context_overflow", "length")],
)
def test_finishes(reason: Any, word: str) -> None:
    """The format has three words; calls are none of its business."""
    events: list[Event] = [RefusalDelta("No."), CallStarted(0, "c", "f"), Finished(reason), TextDelta("late")]
    node = orjson.loads(COMPLETIONS.answer(ask(), FACE, events[:3], USAGE))
    assert node["choices"][0]["finish_reason"] == word
    writer = COMPLETIONS.writer(PLAIN, FACE)
    told = chunks(b"".join([writer.feed(one) for one in events]) + writer.close(USAGE))
    assert [one["choices"][0]["text"] for one in told[:-1]] == ["No.", ""]
    assert told[1]["choices"][0]["finish_reason"] == word


def test_errors() -> None:
    """The envelope of OpenAI; in a stream nothing follows it."""
    for made in (COMPLETIONS.writer(PLAIN, FACE), COMPLETIONS.passer(PLAIN, FACE)):
        (told,) = chunks(made.fail(OurError("x", status=503), "r1"))
        assert told["error"]["message"] == "x (request id: r1)"
        assert made.close(USAGE) == b""
    assert set(orjson.loads(COMPLETIONS.failure(OurError("x"), ""))["error"]) == {"message", "type", "param", "code"}


# Answers of the same format.


def chunk(text: str, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """A frame as OpenAI sends it."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    node = {"id": "c9", "object": "text_completion", "created": 5, "choices": [choice], "model": "native", **more}
    return b"data: " + orjson.dumps(node) + b"\n\n"


def bare(**more: Any) -> bytes:
    """A frame without choices."""
    node = {"id": "c9", "object": "text_completion", "created": 5, "choices": [], "model": "native", **more}
    return b"data: " + orjson.dumps(node) + b"\n\n"


def streamed(pieces: list[bytes], asked: Ask = PLAIN, face: Face = FACE) -> tuple[bytes, bytes, Any]:
    """What the client gets before and after the charge, and what was heard."""
    dialect = speaks(ADAPTERS["openai"], asked.dialect, "m")
    assert dialect is not None
    one = pipe(COMPLETIONS, dialect, asked, face)
    early = b"".join([one.feed(piece) for piece in pieces]) + one.drain()
    return early, one.close(one.heard.usage or NOTHING), one.heard


def test_frames_pass_untouched() -> None:
    """T-OPEN-016 (OC): frames as they came; usage and `[DONE]` after the charge."""
    frames = [chunk("a", novelty=1), chunk("b"), chunk("", "length")]
    tail = [bare(usage=COUNTED), b"data: [DONE]\n\n"]
    early, late, heard = streamed([*frames, *tail])
    assert early == b"".join(frames)
    assert late == b"data: [DONE]\n\n"
    assert (heard.usage.prompt, heard.usage.completion, heard.ended) == (8, 2, True)
    with_null = [one.replace(b'"model"', b'"usage":null,"model"') for one in frames]
    early, late, _ = streamed([*with_null, *tail], STREAMED)
    assert chunks(late)[0]["usage"] == COUNTED
    assert chunks(late)[0]["choices"] == []
    assert [one["usage"] for one in chunks(early)] == [None] * 3


def test_usage_on_the_last_choice() -> None:
    """Usage beside a choice is moved to its own chunk, or left out where none was asked for."""
    frames = [chunk("a"), chunk("", "stop", usage=COUNTED)]
    early, late, heard = streamed(frames, STREAMED)
    assert chunks(early)[1]["usage"] is None
    assert chunks(late)[0]["usage"] == COUNTED
    assert heard.usage.prompt == 8
    early, late, _ = streamed(frames)
    assert "usage" not in chunks(early)[1]
    assert chunks(late) == ["[DONE]"]


def test_what_upstream_leaves_out() -> None:
    """T-CORE-035 to 037 (OC): finish, `[DONE]`, envelope; one finish per choice."""
    early, late, _ = streamed([chunk("a"), chunk("b", index=1), chunk("", "stop", 1), chunk("x", "stop", 1)])
    assert [one["choices"][0]["finish_reason"] for one in chunks(early)] == [None, None, "stop"]
    told = chunks(late)
    assert (told[0]["choices"][0]["index"], told[0]["choices"][0]["finish_reason"], told[-1]) == (0, "stop", "[DONE]")
    early, _, _ = streamed([b'data: {"choices":[{"text":"a","finish_reason":"eos"}]}\n\n'])
    assert chunks(early) == [
        {
            "choices": [{"text": "a", "finish_reason": "stop", "index": 0}],
            "id": "cmpl-ours",
            "object": "text_completion",
            "created": 7,
            "model": "asked",
        }
    ]


def test_renamed_model() -> None:
    """A mapped model's own name is not shown, streamed or whole."""
    early, _, _ = streamed([chunk("a"), chunk("", "stop")], face=RENAMED)
    assert [one["model"] for one in chunks(early)] == ["asked", "asked"]
    body = orjson.dumps({"model": "native", "choices": [], "usage": COUNTED})
    assert orjson.loads(COMPLETIONS.same(ask(), RENAMED, Document(body), USAGE))["model"] == "asked"


def test_cut_anywhere() -> None:
    """The stream is the same however its bytes are cut."""
    data = b"".join([chunk("Grüße 🌍"), chunk("b"), chunk("", "stop"), b"data: [DONE]\n\n"])
    early, late, heard = streamed([data[at : at + 1] for at in range(len(data))])
    assert early + late == data
    assert heard.tally.tokens("davinci-002") > 0


def test_whole_answers_pass() -> None:
    """A whole answer keeps its bytes; what is missing is filled in."""
    node = {
        "id": "c9",
        "object": "text_completion",
        "created": 5,
        "model": "native",
        "choices": [{"text": "a", "index": 0, "logprobs": None, "finish_reason": "length", "novelty": 1}],
        "usage": COUNTED,
    }
    body = orjson.dumps(node, option=orjson.OPT_INDENT_2)
    assert COMPLETIONS.same(ask(), FACE, Document(body), USAGE) is body
    thin = orjson.dumps({"object": "text.completion", "choices": [{"text": "a", "finish_reason": "eos"}, 3]})
    told = orjson.loads(COMPLETIONS.same(ask(), FACE, Document(thin), USAGE))
    assert (told["object"], told["id"], told["usage"]["total_tokens"]) == ("text_completion", "cmpl-ours", 14)
    assert [(one["text"], one["finish_reason"], one["index"]) for one in told["choices"]] == [
        ("a", "stop", 0),
        ("", "stop", 1),
    ]
    assert COMPLETIONS.same(ask(), FACE, Document(b"[]"), USAGE) == b"[]"


def test_events_of_whole_answers() -> None:
    """Text, finish and usage of a whole answer; an error in a 200, and what is no answer, are failures."""
    dialect = speaks(ADAPTERS["openai"], COMPLETIONS.dialect, "m")
    assert dialect is not None
    body = orjson.dumps(
        {"id": "c", "choices": [{"text": "a", "finish_reason": "length"}, {"text": "b"}], "usage": COUNTED}
    )
    told = fold(dialect.answer(ask(), Document(body)))
    assert [one.text for one in told.choices.values()] == ["a", "b"]
    assert [one.finished.reason for one in told.choices.values() if one.finished] == ["length", "stop"]
    assert told.usage == Usage(prompt=8, completion=2)
    for odd in (b"[]", b"x", b"{}", b'{"choices":[]}', b'{"error":{"message":"no","code":"x"}}'):
        assert isinstance(dialect.answer(ask(), Document(odd))[-1], Failed)


def test_events_of_frames() -> None:
    """An error object fails the stream, what cannot be read is skipped, `[DONE]` ends it."""
    dialect = speaks(ADAPTERS["openai"], COMPLETIONS.dialect, "m")
    assert dialect is not None
    reader = dialect.reader(ask())
    frames = sse.Decoder().feed(
        b': x\n\ndata: {bad\n\nevent: error\ndata: {"message":"no"}\n\ndata: {"error":"no"}\n\ndata: [DONE]\n\n'
    )
    kinds = [type(event) for frame in frames for event in reader.read(frame)]
    assert kinds == [Skipped, Failed, Failed, Ended]
    failure = dialect.failure(429, {"retry-after": "3"}, b'{"error":{"message":"slow"}}')
    assert (failure.upstream_status, failure.retry_after, failure.message) == (429, 3.0, "slow")


ODD: list[Any] = [None, 3, "x", [], {}, [None], [[]], [{"text": 3}], [{"index": -1, "finish_reason": ["x"]}], True]


@pytest.mark.parametrize("seed", range(6))
def test_garbage_passes_or_is_left_out(seed: int) -> None:
    """Whatever upstream sends, the client gets a proper stream with an end."""
    chance = random.Random(seed)
    frames = []
    for _ in range(60):
        names = ("id", "object", "created", "model", "choices", "usage")
        node = {name: chance.choice(ODD) for name in names if chance.random() < 0.8}
        frames.append(b"data: " + orjson.dumps(node) + b"\n\n")
    for asked in (STREAMED, PLAIN):
        passer = COMPLETIONS.passer(asked, RENAMED)
        early = b"".join([passer.frame(frame, ()) for one in frames for frame in sse.Decoder().feed(one)])
        told = chunks(early + passer.close(USAGE))
        assert told[-1] == "[DONE]"
        assert {one["model"] for one in told[:-1]} == {"asked"}
