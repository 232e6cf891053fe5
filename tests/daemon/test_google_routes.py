"""Routes of Gemini's format, of engines and prompts: paths, keys, both forms of a stream, errors in its shape."""

from __future__ import annotations

import http.client
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import orjson
import pytest
from google import genai
from google.genai import errors

from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.events import TextDelta
from newapi_proxy.ir.usage import Usage
from newapi_proxy.surfaces.base import PATH, QUERY, Face
from newapi_proxy.surfaces.gemini import STREAM
from tests.daemon.running import Stage

CONFIG = """\
database: sqlite:///newapi.db
prices: {"*": {input: 1, output: 2}}
channels:
  - {name: echo, type: echo, models: [echo, vendor/echo]}
tokens:
  - {name: demo, key: sk-demo, models: [echo, vendor/echo]}
"""
HI = {"contents": [{"role": "user", "parts": [{"text": "Hello dear world"}]}]}
BETA, STABLE = "/v1beta/models", "/v1/models"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def tree(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


def call(stage: Stage, path: str, body: Any = HI, method: str = "POST", **headers: str) -> Answer:
    """One request; with Google's header for the key unless others are given."""
    connection = http.client.HTTPConnection(urlsplit(stage.url).netloc, timeout=20)
    try:
        connection.request(method, path, orjson.dumps(body), headers or {"x-goog-api-key": "sk-demo"})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("base", [BETA, STABLE])
@pytest.mark.parametrize("name", ["echo", "models/echo", "vendor/echo", "vendor%2Fecho"])
def test_generate(stage: Stage, base: str, name: str) -> None:
    """The model stands in the path, whatever it is called; the answer is billed like any other."""
    answer = call(stage, f"{base}/{name}:generateContent")
    assert answer.status == 200, answer.body
    (candidate,) = answer.tree["candidates"]
    assert candidate["content"]["parts"] == [{"text": "Hello dear world"}]
    assert answer.tree["modelVersion"] == name.removeprefix("models/").replace("%2F", "/")
    line = stage.line(answer.headers["x-request-id"])
    assert (line["status"], line["stream"], line["usage"]["output"], line["end"]) == (200, False, 3, "ok")
    assert line["quota"] > 0


def test_streams(stage: Stage) -> None:
    """Events with `alt=sse`, one array without; both typed as what they are, neither cached."""
    events = call(stage, f"{BETA}/echo:streamGenerateContent?alt=sse")
    assert events.headers["content-type"].startswith("text/event-stream")
    array = call(stage, f"{BETA}/echo:streamGenerateContent")
    assert array.headers["content-type"].startswith("application/json")
    told = [orjson.loads(one[6:]) for one in events.body.split(b"\r\n\r\n")[:-1]]
    for chunks in (told, array.tree):
        text = "".join(part["text"] for one in chunks for part in one["candidates"][0]["content"]["parts"])
        assert text == "Hello dear world"
        assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
        assert chunks[-1]["usageMetadata"]["totalTokenCount"] == 6
    assert stage.line(array.headers["x-request-id"])["stream"] is True


def test_keys(stage: Stage) -> None:
    """The key in Google's header, in the query or as a bearer; none or a wrong one is 401 in Google's shape."""
    path = f"{BETA}/echo:generateContent"
    assert call(stage, f"{path}?key=sk-demo", accept="*/*").status == 200
    assert call(stage, path, authorization="Bearer sk-demo").status == 200
    for answer in (call(stage, path, accept="*/*"), call(stage, f"{path}?key=sk-nobody", accept="*/*")):
        error = answer.tree["error"]
        assert (answer.status, error["code"], error["status"]) == (401, 401, "UNAUTHENTICATED")
    listed = call(stage, BETA, method="GET", accept="*/*")
    assert (listed.status, listed.tree["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_counting(stage: Stage) -> None:
    """countTokens costs nothing."""
    answer = call(stage, f"{BETA}/echo:countTokens")
    assert answer.tree["totalTokens"] > 2
    assert stage.line(answer.headers["x-request-id"])["quota"] == 0


@pytest.mark.parametrize(
    ("path", "method", "status", "word"),
    [
        (f"{BETA}/echo:generateContent", "GET", 405, "UNIMPLEMENTED"),
        (f"{BETA}/echo:conjure", "POST", 405, "UNIMPLEMENTED"),
        (f"{STABLE}/echo:generateContent", "PUT", 405, "UNIMPLEMENTED"),
        ("/v1beta/nothing", "POST", 404, "NOT_FOUND"),
        (f"{BETA}/nobody", "GET", 404, "NOT_FOUND"),
        (f"{BETA}/nobody:generateContent", "POST", 403, "PERMISSION_DENIED"),
    ],
)
def test_faults_in_googles_shape(stage: Stage, path: str, method: str, status: int, word: str) -> None:
    """What is not there, or not possible, is told as Google's clients read it."""
    answer = call(stage, path, method=method)
    assert (answer.status, answer.tree["error"]["code"], answer.tree["error"]["status"]) == (status, status, word)


def test_faults_in_openais_shape(stage: Stage) -> None:
    """Other paths keep their own voice, the OpenAI-compatible ones below Google's version too."""
    for path in ("/v1/nothing", "/v1beta/openai/nothing"):
        answer = call(stage, path)
        assert (answer.status, answer.tree["error"]["type"]) == (404, "invalid_request_error")


def test_models_are_still_listed(stage: Stage) -> None:
    """A method behind the name does not get in the way of the lists."""
    assert call(stage, f"{BETA}/echo", method="GET").tree["name"] == "models/echo"
    assert call(stage, f"{STABLE}/echo", method="GET").tree["id"] == "echo"


def test_engines_and_prompts(stage: Stage) -> None:
    """The engine in the path fills a missing model; a prompt is told as a chat where there is no endpoint for it."""
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    assert call(stage, "/v1/engines/echo/chat/completions", chat).tree["model"] == "echo"
    for path, body in (("/v1/engines/echo/completions", {}), ("/v1/completions", {"model": "echo"})):
        answer = call(stage, path, {"prompt": "Hello dear", **body}).tree
        assert (answer["object"], answer["model"], answer["choices"][0]["text"]) == (
            "text_completion",
            "echo",
            "Hello dear",
        )
    refused = call(stage, "/v1/completions", {"model": "echo", "prompt": ["a", "b"]})
    assert (refused.status, refused.tree["error"]["param"]) == (400, "prompt")
    streamed = call(stage, "/v1/completions", {"model": "echo", "prompt": "Hello", "stream": True})
    assert streamed.body.endswith(b"data: [DONE]\n\n")


def test_googles_sdk_waits_and_fails() -> None:
    """What is sent while nothing comes does not disturb Google's SDK, and an error in a stream is one to it."""
    asked = STREAM.read(orjson.dumps(HI), {PATH: "m", QUERY: "alt=sse"})
    idle, face = STREAM.keepalive(asked), Face(model="m", id="a", created=1)
    ended, failed = STREAM.writer(asked, face), STREAM.writer(asked, face)
    failure = UpstreamFailure("It broke.", status=503, kind="overloaded", code="overloaded")
    bodies = [
        idle * 2 + ended.feed(TextDelta("a\u2028é")) + idle + ended.close(Usage(prompt=2, completion=1)) + idle,
        idle + failed.feed(TextDelta("a")) + idle + failed.fail(failure, "r"),
    ]

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path.endswith(":streamGenerateContent")
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=bodies.pop(0))

    given: Any = {"base_url": "http://h", "httpx_client": httpx2.Client(transport=httpx2.MockTransport(answer))}
    client = genai.Client(api_key="k", http_options=given)
    pieces = list(client.models.generate_content_stream(model="m", contents="Hi"))
    assert ["".join(one.text or "" for one in pieces), len(pieces)] == ["a\u2028é", 2]
    assert pieces[-1].usage_metadata is not None
    with pytest.raises(errors.ServerError) as told:
        list(client.models.generate_content_stream(model="m", contents="Hi"))
    assert (told.value.code, told.value.status) == (503, "UNAVAILABLE")
