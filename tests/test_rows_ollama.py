"""The rows of Ollama, each in every format that clients speak: what goes up, what comes back, what it costs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.adapters.ollama import ADAPTER
from newapi_proxy.config.model import Channel
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.events import Started, fold
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces.completions import COMPLETIONS
from newapi_proxy.web.faults import unreachable
from tests.fakes.inbound import FUNCTION, HI, PNG, Call, File, Picture, Result, Sound, Thought, across
from tests.fakes.matrix import Theatre
from tests.fakes.matrix_grammar import FINISHES
from tests.fakes.ports import Script
from tests.fakes.scripted import Say
from tests.fakes.two_ends import CUTS, Ends, fetched, media

OLLAMA: Final = Ends(adapter=ADAPTER, model="qwen3")
CUT: Final = pytest.mark.parametrize("cut", CUTS, ids=["whole", "bytes"])
TOOLS: Final = [FUNCTION, {**FUNCTION, "name": "g"}]
CALLED: Final = (("user", "Go"), ("assistant", Call("call_1", "f", '{"a":1}')))
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
END: Final[dict[str, Any]] = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 4}


def line(message: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A line of an answer."""
    head = {"model": "qwen3", "created_at": "2026-01-02T03:04:05.678901234Z"}
    body = {"message": {"role": "assistant", "content": "", **(message or {})}, "done": False, **more}
    return orjson.dumps({**head, **body}) + b"\n"


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    """A message that calls a tool."""
    return {"tool_calls": [{**more, "function": {"name": name, "arguments": arguments}}]}


def refused(letter: str, turns: Any, code: str = "unsupported_content", **wishes: Any) -> str:
    """The path that the refusal names."""
    with pytest.raises(Unsupported) as caught:
        OLLAMA.sent(letter, turns, **wishes)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert caught.value.param
    return caught.value.param


@pytest.mark.parametrize("stream", [False, True])
@across("OC", "OR", "AM", "GG")
def test_plain_question(letter: str, stream: bool) -> None:
    """T-OLLA-001 and 002: one message to /api/chat; whether to stream is always said."""
    one = OLLAMA.sent(letter, stream=stream)
    assert one.outgoing.url == "https://h.example/api/chat"
    assert one.outgoing.headers["authorization"] == "Bearer k"
    asked = {"model": "qwen3", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    assert one.body == asked | ({"options": {"num_predict": 1024}} if letter == "AM" else {})
    assert one.dropped == ()


@across("OC", "OR")
def test_developer(letter: str) -> None:
    """T-OLLA-003: the role is called system here."""
    assert OLLAMA.sent(letter, (("developer", "Brief."), ("user", "Hi"))).messages == [
        {"role": "system", "content": "Brief."},
        {"role": "user", "content": "Hi"},
    ]


@across("OC", "OR", "AM", "GG")
def test_several_texts(letter: str) -> None:
    """T-OLLA-004: one message, its texts on lines of their own."""
    assert OLLAMA.sent(letter, (("user", "One", "Two"),)).messages == [{"role": "user", "content": "One\nTwo"}]


@across("OC", "OR", "AM", "GG")
def test_picture(letter: str) -> None:
    """T-OLLA-005: the words as content, the picture's bare base64 beside them."""
    message = {"role": "user", "content": "What?", "images": [PNG]}
    assert OLLAMA.sent(letter, (("user", "What?", Picture()),)).messages == [message]


@across("OC", "OR", "AM", "GG")
def test_picture_by_address(letter: str) -> None:
    """T-OLLA-006: fetched before, as the API refuses addresses."""
    ask = OLLAMA.ask(letter, (("user", "What?", Picture("https://e.example/a.png")),))
    assert ADAPTER.by_bytes is not None
    assert all(ADAPTER.by_bytes(one, "qwen3") for one in media(ask))
    assert OLLAMA.given(fetched(ask, PNG, "image/png")).messages[0]["images"] == [PNG]
    with pytest.raises(Unsupported):
        OLLAMA.given(ask)


@across("OC", "OR", "AM", "GG")
def test_gif(letter: str) -> None:
    """T-OLLA-007: JPEG, PNG and WebP only."""
    refused(letter, (("user", Picture("data:image/gif;base64,R0lGODlhAQABAAAAACw=")),))


@across("OC", "OR", "AM", "GG")
def test_pdf(letter: str) -> None:
    """T-OLLA-008: nobody reads it here."""
    refused(letter, (("user", "Read.", File()),))


@across("OC", "OR", "AM", "GG")
def test_text_file(letter: str) -> None:
    """T-OLLA-009: its words are put behind the message's, between marks."""
    file = File(data=base64.b64encode("Grüße".encode()).decode(), kind="text/plain", name="a.txt")
    content = OLLAMA.sent(letter, (("user", "Read.", file),)).messages[0]["content"]
    assert content.startswith('Read.\n<file name="')
    assert content.endswith('">\nGrüße\n</file>')


@across("OC", "OR", "GG")
def test_sound(letter: str) -> None:
    """T-OLLA-010: it goes where pictures go."""
    assert OLLAMA.sent(letter, (("user", "Listen.", Sound()),)).messages[0]["images"] == ["UklGRg=="]


@across("OC", "OR", "AM", "GG")
def test_call_of_the_history(letter: str) -> None:
    """T-OLLA-011: arguments as an object, the id as it was."""
    assert OLLAMA.sent(letter, CALLED).messages[1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"a": 1}, "index": 0}}],
    }


@across("OC", "OR")
def test_broken_call_of_the_history(letter: str) -> None:
    """T-OLLA-012: wrapped, so that the turn can be replayed."""
    turns = (("user", "Go"), ("assistant", Call("call_1", "f", '{"a":')))
    function = OLLAMA.sent(letter, turns).messages[1]["tool_calls"][0]["function"]
    assert function["arguments"] == {"__raw_arguments__": '{"a":'}


@across("OC", "OR", "AM", "GG")
def test_tool_result(letter: str) -> None:
    """T-OLLA-013: it names its tool, found by the call's id, and the call."""
    one = OLLAMA.sent(letter, (*CALLED, ("tool", Result("call_1", "f", "done"))))
    result = one.messages[2]
    assert (result["role"], result["tool_name"], result["tool_call_id"]) == ("tool", "f", "call_1")
    assert "done" in result["content"]


@across("OC", "OR", "AM", "GG")
def test_several_results(letter: str) -> None:
    """T-OLLA-014: a message each, in order, before what the user adds."""
    calls = ("assistant", Call("call_1", "f"), Call("call_2", "g"))
    turns = (("user", "Go"), calls, ("tool", Result("call_1", "f", "one"), Result("call_2", "g", "two")), ("user", "?"))
    messages = OLLAMA.sent(letter, turns).messages
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [one["tool_name"] for one in messages[2:4]] == ["f", "g"]
    assert ["one" in messages[2]["content"], "two" in messages[3]["content"]] == [True, True]


@across("OC", "OR", "AM", "GG")
def test_picture_in_a_result(letter: str) -> None:
    """T-OLLA-015: beside the result's text."""
    result = OLLAMA.sent(letter, (*CALLED, ("tool", Result("call_1", "f", "See", (Picture(),))))).messages[2]
    assert (result["role"], result["images"]) == ("tool", [PNG])


@across("OC", "OR", "AM", "GG")
def test_tools(letter: str) -> None:
    """T-OLLA-016: the same shape, but nothing is strict."""
    tool = FUNCTION if letter == "GG" else {**FUNCTION, "strict": True}
    one = OLLAMA.sent(letter, tools=[tool])
    function = one.body["tools"][0]["function"]
    assert one.body["tools"][0]["type"] == "function"
    assert (function["name"], function["description"]) == ("f", "Does it")
    assert function["parameters"]["type"] == "object"
    assert "strict" not in function
    assert any("strict" in name for name in one.dropped) is (letter != "GG")


@across("OC", "OR", "AM", "GG")
def test_no_tool(letter: str) -> None:
    """T-OLLA-017: none is offered."""
    one = OLLAMA.sent(letter, tools=TOOLS, choice="none")
    assert "tools" not in one.body
    assert one.dropped == ()


@pytest.mark.parametrize(
    ("choice", "left", "words"), [("required", ["f", "g"], "at least one"), ("g", ["g"], "tool g")]
)
@across("OC", "OR", "AM", "GG")
def test_forced_tool(letter: str, choice: str, left: list[str], words: str) -> None:
    """T-OLLA-018: those that may be called are offered, and the model is asked in words; the client is told."""
    one = OLLAMA.sent(letter, (("system", "Brief."), ("user", "Hi")), tools=TOOLS, choice=choice)
    assert [tool["function"]["name"] for tool in one.body["tools"]] == left
    assert "tool_choice~" in one.dropped
    (system,) = [message for message in one.messages if message["role"] == "system"]
    assert system["content"].startswith("Brief.\n\n")
    assert words in system["content"]


@across("OC", "OR", "GG")
def test_allowed_tools(letter: str) -> None:
    """T-OLLA-018: a list of allowed ones is cut to them."""
    one = OLLAMA.sent(letter, tools=[*TOOLS, {**FUNCTION, "name": "h"}], allowed=["f", "h"])
    assert [tool["function"]["name"] for tool in one.body["tools"]] == ["f", "h"]


@across("OC", "OR", "GG")
def test_json(letter: str) -> None:
    """T-OLLA-019: any object."""
    assert OLLAMA.sent(letter, json=True).body["format"] == "json"


@across("OC", "OR", "AM", "GG")
def test_schema(letter: str) -> None:
    """T-OLLA-020: the schema itself is the format."""
    assert OLLAMA.sent(letter, schema=SCHEMA).body["format"] == SCHEMA


@across("OC", "OR", "AM", "GG")
def test_token_limit(letter: str) -> None:
    """T-OLLA-021: another name."""
    assert OLLAMA.sent(letter, max_tokens=77).body["options"]["num_predict"] == 77


@across("OC", "OR", "AM", "GG")
def test_nothing_is_set_unasked(letter: str) -> None:
    """T-OLLA-022: the model's own settings hold where the client says nothing."""
    assert set(OLLAMA.sent(letter).body.get("options", {})) <= {"num_predict"}


@across("OC", "OR", "AM", "GG")
def test_options(letter: str) -> None:
    """T-OLLA-023: what samples goes into the options, as far as the format can say it."""
    wishes: dict[str, Any] = {"temperature": 1.5, "top_p": 0.9}
    wanted: dict[str, Any] = dict(wishes)
    if letter != "OR":
        wishes["top_k"] = wanted["top_k"] = 40
    if letter == "AM":
        wishes["temperature"] = wanted["temperature"] = 0.5
    if letter != "OR":
        wishes["stop"] = wanted["stop"] = ["a", "b"]
    if letter == "OC":
        wishes["steering"] = {"seed": 7, "min_p": 0.1, "presence_penalty": -1, "repetition_penalty": 1.1}
        wanted |= {"seed": 7, "min_p": 0.1, "presence_penalty": -1, "repeat_penalty": 1.1}
    one = OLLAMA.sent(letter, **wishes)
    assert {name: value for name, value in one.body["options"].items() if name != "num_predict"} == wanted
    assert one.dropped == ()


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("low", "low"), ("medium", "medium"), ("high", "high")], ids=str
)
@across("OC", "OR", "AM", "GG")
def test_effort(letter: str, effort: str, think: Any) -> None:
    """T-OLLA-024: a word of the model's levels; models that know only on and off get those by the channel's word."""
    assert OLLAMA.sent(letter, effort=effort).body["think"] == think
    assert OLLAMA.sent(letter, options={"think_levels": False}, effort=effort).body["think"] is (effort != "none")


@CUT
@across("OC", "OR", "AM", "GG")
def test_thinking(letter: str, cut: int) -> None:
    """T-OLLA-025: told as thinking, whole and streamed."""
    whole = orjson.loads(line({"thinking": "Hm.", "content": "Ho"}, **END))
    lines = line({"thinking": "H"}) + line({"thinking": "m."}) + line({"content": "Ho"}) + line(**END)
    for got in (OLLAMA.answered(letter, whole), OLLAMA.streamed(letter, lines, cut)):
        assert (got.shown.thoughts, got.shown.text) == ("Hm.", "Ho")
        assert got.shown.finish == FINISHES["stop"][letter]


@across("OC", "OR", "AM", "GG")
def test_thinking_replayed(letter: str) -> None:
    """T-OLLA-026: it goes back where it came from."""
    turns = (("user", "Hi"), ("assistant", Thought("Hm."), "Ho"), ("user", "And?"))
    assert OLLAMA.sent(letter, turns).messages[1] == {"role": "assistant", "content": "Ho", "thinking": "Hm."}


@CUT
@across("OC", "OR", "GG")
def test_log_probabilities(letter: str, cut: int) -> None:
    """T-OLLA-027: asked for under the same name, told as the content of the choice, or beside the text."""
    one = OLLAMA.sent(letter, logprobs=True)
    assert one.body["logprobs"] is True
    assert one.body.get("top_logprobs") == (3 if letter == "OR" else None)
    assert one.dropped == ()
    rival = {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169]}
    weights = {"logprobs": [{"token": "Hé", "logprob": -0.5, "top_logprobs": [rival]}]}
    told = [{**rival, "top_logprobs": [rival]}]
    whole = OLLAMA.answered(letter, orjson.loads(line({"content": "Hé"}, **weights, **END)))
    assert fold(whole.events).choices[0].logprobs == told
    streamed = OLLAMA.streamed(letter, line({"content": "Hé"}, **weights) + line(**END), cut)
    assert fold(streamed.events).choices[0].logprobs == told
    if letter == "OC":
        assert whole.shown.tree["choices"][0]["logprobs"]["content"] == told
        assert OLLAMA.sent(letter, logprobs=True, steering={"top_logprobs": 30}).body["top_logprobs"] == 20


@across("OC", "GG")
def test_several_answers(letter: str) -> None:
    """T-OLLA-028: one answer a request."""
    name = {"OC": "n", "GG": "generationConfig.candidateCount"}[letter]
    assert refused(letter, HI, "unsupported_parameter", n=2) == name


@across("OC", "OR", "AM", "GG")
def test_steering(letter: str) -> None:
    """T-OLLA-029: what has no like here is left out and named."""
    said: dict[str, dict[str, Any]] = {
        "OC": {"user": "u", "tier": "flex", "steering": {"logit_bias": {"1": 2}, "verbosity": "low"}},
        "OR": {"user": "u", "tier": "flex", "one_call": True},
        "AM": {"user": "u", "tier": "standard_only"},
        "GG": {"tier": "flex"},
    }
    wishes = said[letter]
    assert (
        OLLAMA.sent(letter, **wishes).dropped
        == {
            "OC": ("logit_bias", "service_tier", "user", "verbosity"),
            "OR": ("parallel_tool_calls", "service_tier", "user"),
            "AM": ("metadata.user_id", "service_tier"),
            "GG": ("service_tier",),
        }[letter]
    )


@across("OC", "OR", "AM", "GG")
def test_calls_end_the_answer(letter: str) -> None:
    """T-OLLA-030: upstream says stop; an id is made where there is none, the same for the same answer."""
    whole = orjson.loads(line(call("f", {"a": 1}), **END))
    got = OLLAMA.answered(letter, whole)
    assert got.shown.finish == FINISHES["tool_calls"][letter]
    ((id, name, arguments),) = got.shown.calls
    assert (name, orjson.loads(arguments)) == ("f", {"a": 1})
    assert id
    streamed = OLLAMA.streamed(letter, line(call("f", {"a": 1})) + line(**END))
    assert streamed.shown.calls == got.shown.calls


@across("OC", "OR", "AM", "GG")
def test_limit_reached(letter: str) -> None:
    """T-OLLA-031: cut off."""
    got = OLLAMA.answered(letter, orjson.loads(line({"content": "Ho"}, **{**END, "done_reason": "length"})))
    assert got.shown.finish == FINISHES["length"][letter]


@across("OC", "OR", "AM", "GG")
def test_prompt_count_missing(letter: str) -> None:
    """T-OLLA-032: the output's count is kept, and the record says that it is not all."""
    body = orjson.loads(line({"content": "Ho"}, done=True, eval_count=4))
    got = OLLAMA.answered(letter, body)
    assert got.usage is not None
    assert (got.usage.completion, got.usage.source) == (4, "mixed")


@CUT
@across("OC", "OR", "AM", "GG")
def test_stream(letter: str, cut: int) -> None:
    """T-OLLA-033 and 036: lines to the client's grammar, wherever they are cut."""
    lines = line({"content": "Grü"}) + line({"content": "ße \U0001f600"}) + line(**END)
    got = OLLAMA.streamed(letter, lines, cut)
    assert (got.shown.text, got.shown.finish) == ("Grüße \U0001f600", FINISHES["stop"][letter])
    assert (got.shown.usage["prompt"], got.shown.usage["completion"]) == (11, 4)


@CUT
@across("OC", "OR", "AM", "GG")
def test_streamed_calls(letter: str, cut: int) -> None:
    """T-OLLA-034: two lines, two calls, numbered on."""
    lines = line(call("f", {"a": 1}, id="call_1")) + line(call("g", {}, id="call_2")) + line(**END)
    got = OLLAMA.streamed(letter, lines, cut)
    assert [(id, name, orjson.loads(text)) for id, name, text in got.shown.calls] == [
        ("call_1", "f", {"a": 1}),
        ("call_2", "g", {}),
    ]
    assert got.shown.finish == FINISHES["tool_calls"][letter]


@CUT
@across("OC", "OR", "AM", "GG")
def test_error_line(letter: str, cut: int) -> None:
    """T-OLLA-035: an error inside a 200, after content."""
    got = OLLAMA.streamed(letter, line({"content": "Ho"}) + b'{"error":"out of memory"}\n', cut)
    assert got.failure is not None
    assert got.failure.status == 502
    assert got.shown.error is not None
    assert "out of memory" in got.shown.error["message"]


@across("OC", "OR", "AM", "GG")
def test_cut_short(letter: str) -> None:
    """T-OLLA-037: no last line, no whole answer; without usage it is counted here."""
    got = OLLAMA.streamed(letter, line({"content": "Ho"}))
    assert got.shown.error is not None
    assert (got.failure is not None, got.usage) == (True, None)


@across("OC", "OR", "AM", "GG")
def test_model_not_pulled(letter: str) -> None:
    """T-OLLA-038: the client's to know."""
    status, shown, failure = OLLAMA.refused(letter, 404, {"error": "model 'm' not found"})
    assert (status, failure.code) == (404, "model_not_found")
    assert shown.error is not None
    assert "model 'm' not found" in shown.error["message"]


def test_prompt() -> None:
    """T-OLLA-043 (OC): a prompt without a conversation, and what stands behind the gap, to /api/generate."""
    body = {"model": "asked", "prompt": "def f(", "suffix": "return 1", "max_tokens": 9}
    one = OLLAMA.given(COMPLETIONS.read(orjson.dumps(body), {}))
    assert one.outgoing.url == "https://h.example/api/generate"
    asked = {"model": "qwen3", "prompt": "def f(", "suffix": "return 1", "stream": False}
    assert one.body == {**asked, "options": {"num_predict": 9}}
    with pytest.raises(Unsupported):
        OLLAMA.given(COMPLETIONS.read(orjson.dumps({**body, "echo": True}), {}))
    head = {"model": "qwen3", "created_at": "2026-01-02T03:04:05Z"}
    lines = [{**head, "response": "x", "done": False}, {**head, "response": "):", **END}]
    events = OLLAMA.heard(b"".join(orjson.dumps(one) + b"\n" for one in lines))
    told = fold(events)
    assert (told.choices[0].text, told.usage) == ("x):", Usage(prompt=11, completion=4))


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Two servers with the same model, and one with another."""
    channels = [
        Channel(name=name, type="ollama", base_url=f"http://{name}:11434", models=(model,), priority=-number)
        for number, (name, model) in enumerate([("one", "m"), ("two", "m"), ("three", "alone")])
    ]
    made = Theatre(tmp_path_factory.mktemp("ollama"), tuple(channels), max_attempts=2)
    yield made
    made.close()


@pytest.mark.parametrize("stream", [False, True])
@across("OC", "OR", "AM", "GG")
def test_a_prompt_that_is_not_counted_is_not_free(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-OLLA-032: what upstream had in its cache and leaves out of its counts is counted here and charged."""
    said = line({"content": "Ho"}, done=True, eval_count=4)
    theatre.client.answer = lambda outgoing: Script(said, headers={"content-type": "application/x-ndjson"})
    theatre.forgive()
    cell = theatre.play(letter, "m", stream=stream)
    assert (cell.status, cell.shown.text) == (200, "Ho")
    assert cell.charged > 4 * 2  # the answer alone, at 4 USD per million tokens


@pytest.mark.parametrize("stream", [False, True])
@across("OC", "OR", "AM", "GG")
def test_no_connection(theatre: Theatre, letter: str, stream: bool) -> None:
    """T-OLLA-039: another server is asked; where there is none the client learns that it cannot be reached."""
    theatre.client.says(Say(text="Ho"))
    good = theatre.client.answer

    def answer(outgoing: Outgoing) -> Script:
        return good(outgoing) if "//two:" in outgoing.url else Script(refuse=unreachable("connection refused"))

    theatre.client.answer = answer
    theatre.forgive()
    cell = theatre.play(letter, "m", stream=stream)
    assert (cell.status, cell.shown.text, len(cell.sent)) == (200, "Ho", 2)
    cell = theatre.play(letter, "alone", stream=stream)
    assert (cell.status, cell.charged) == (502, 0)
    assert cell.shown.error is not None
    if letter in ("OC", "OR"):
        assert cell.shown.error["code"] == "do_request_failed"
    theatre.forgive()


@across("OC", "OR", "AM", "GG")
def test_own_settings(letter: str) -> None:
    """T-OLLA-044: from the channel; clients of OpenAI's formats may say them too."""
    options = {"keep_alive": "5m", "num_ctx": 8192}
    one = OLLAMA.sent(letter, options=options, steering={"keep_alive": 0, "options": {"num_ctx": 4096, "num_gpu": 1}})
    settings = {name: value for name, value in one.body["options"].items() if name != "num_predict"}
    if letter in ("OC", "OR"):
        assert (one.body["keep_alive"], settings) == (0, {"num_ctx": 4096, "num_gpu": 1})
        assert one.dropped == ()
    else:
        assert (one.body["keep_alive"], settings) == ("5m", {"num_ctx": 8192})
        assert one.dropped == {"AM": ("keep_alive", "options"), "GG": ("keepAlive", "options")}[letter]


@across("OC", "OR", "GG")
def test_creation_time(letter: str) -> None:
    """T-OLLA-045: nanoseconds to seconds."""
    got = OLLAMA.answered(letter, orjson.loads(line({"content": "Ho"}, **END)))
    assert got.events[0] == Started(None, "qwen3", 1767323045)
    if letter != "GG":
        assert got.shown.tree["created_at" if letter == "OR" else "created"] == 1767323045
