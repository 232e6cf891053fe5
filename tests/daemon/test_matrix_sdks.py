"""The official SDKs, unmodified, over every provider, through the daemon: text, tools, a picture, an error, streams.

Beside them the rows that need real sockets: packed bodies, large ones, addresses that must not be called.
"""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import anthropic
import openai
import orjson
import pytest
import yaml
from anthropic import Anthropic
from google import genai
from google.genai import errors, types
from openai import OpenAI

from newapi_proxy.adapters import ADAPTERS
from tests.fakes import inbound, matrix, matrix_grammar
from tests.fakes.inbound import FORMATS, PNG, SPOKEN, Picture, across
from tests.fakes.matrix import Provider
from tests.fakes.matrix_server import Coding, Server
from tests.fakes.process import Daemon, free_port
from tests.fakes.scripted import Say
from tests.fakes.service_account import TOKEN_URI
from tests.test_matrix import REFUSED

FAMILIES: Final = {
    "openai": "gpt-4o",
    "together": "model-1",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "amazon.nova-pro-v1:0",
    "ollama": "llama3.2-vision",
    "cohere": "command-a-vision",
    "dify": "app",
    "coze": "bot",
}
"""One provider of each wire format, and its model."""
PROVIDERS: Final = tuple(one for one in matrix.providers() if ADAPTERS[one.type].local is None)
CELLS: Final = [(letter, one) for one in PROVIDERS for letter in FORMATS]
IDS: Final = [f"{letter}-{one.name}" for letter, one in CELLS]
PLAIN: Final = [(letter, one) for one in PROVIDERS for letter in SPOKEN]
PLAIN_IDS: Final = [f"{letter}-{one.name}" for letter, one in PLAIN]
WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WEATHER: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS: Final = (("call_abc12", "weather", {"city": "Łódź"}), ("call_def34", "weather", {"city": "Oslo"}))
TEXT: Final = "Grüße, 世界 🌍!"
MEBI: Final = 1 << 20


class Stage:
    """The daemon and the providers."""

    def __init__(self, daemon: Daemon, upstream: Server) -> None:
        self.daemon = daemon
        self.upstream = upstream
        self.openai = OpenAI(base_url=f"{daemon.url}/v1", api_key="sk-demo", max_retries=0, timeout=20)
        self.claude = Anthropic(base_url=daemon.url, api_key="sk-demo", max_retries=0, timeout=20)
        self.google = genai.Client(api_key="sk-demo", http_options={"base_url": daemon.url, "timeout": 20_000})

    def close(self) -> None:
        """Hangs up."""
        for client in (self.openai, self.claude, self.google):
            client.close()

    @property
    def url(self) -> str:
        """The daemon's address."""
        return self.daemon.url


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One daemon for all, with a channel for each family."""
    folder: Path = tmp_path_factory.mktemp("sdks")
    port = free_port()
    with Server() as upstream:
        config = folder / "config.yaml"
        config.write_text(written(port, upstream.url))
        config.chmod(0o600)
        daemon = Daemon(config, f"http://127.0.0.1:{port}").start()
        made = Stage(daemon, upstream)
        try:
            yield made
        finally:
            made.close()
            daemon.stop()


def written(port: int, url: str) -> str:
    """The configuration: a channel for every provider of the matrix, one model for each wire format beside them."""
    families = [
        {
            "name": f"f-{name}",
            "type": name,
            "base_url": f"{url}/{name}",
            "key": "sk-up",
            "models": [f"m-{name}"],
            "model_mapping": {f"m-{name}": model},
            "options": {"region": "us-east-1"} if name == "bedrock" else {},
        }
        for name, model in FAMILIES.items()
    ]
    rows = [
        {
            "name": one.name,
            "type": one.type,
            "base_url": f"{url}/{one.name}{urlsplit(one.base_url or '').path}",
            **({} if one.key is None else {"key": one.key.replace(TOKEN_URI, f"{url}/token")}),
            "models": [one.name],
            "model_mapping": {one.name: one.model},
            "options": dict(one.options),
        }
        for one in PROVIDERS
    ]
    whole = {
        "listen": f"127.0.0.1:{port}",
        "database": "sqlite:///newapi.db",
        "relay": {"max_attempts": 1, "max_body": "64MB"},
        "prices": {"*": {"input": 1, "output": 2}},
        "channels": [{**row, "auto_disable": False} for row in (*families, *rows)],
        "tokens": [{"name": "demo", "key": "sk-demo"}],
    }
    return yaml.safe_dump(whole, allow_unicode=True)


def chat(stage: Stage, model: str, stream: bool) -> str:
    """OpenAI's SDK, chat completions."""
    client = stage.openai
    messages: Any = [{"role": "user", "content": "Hi"}]
    if not stream:
        done = client.chat.completions.create(model=model, messages=messages)
        assert done.usage is not None
        assert (done.usage.prompt_tokens, done.model) == (21, model)
        return done.choices[0].message.content or ""
    options: Any = {"include_usage": True}
    with client.chat.completions.stream(model=model, messages=messages, stream_options=options) as events:
        final: Any = events.get_final_completion()
        assert final.usage.completion_tokens == 7
        return str(final.choices[0].message.content)


def responses(stage: Stage, model: str, stream: bool) -> str:
    """OpenAI's SDK, responses."""
    client = stage.openai
    if not stream:
        done: Any = client.responses.create(model=model, input="Hi", store=False)
    else:
        with client.responses.stream(model=model, input="Hi", store=False) as events:
            done = events.get_final_response()
    assert (done.usage.input_tokens, done.usage.output_tokens, done.model) == (21, 7, model)
    return str(done.output_text)


def messages(stage: Stage, model: str, stream: bool) -> str:
    """Anthropic's SDK."""
    client = stage.claude
    given: Any = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}
    if not stream:
        done = client.messages.create(**given)
    else:
        with client.messages.stream(**given) as events:
            done = events.get_final_message()
    assert (done.usage.input_tokens, done.usage.output_tokens, done.model) == (21, 7, model)
    return "".join(getattr(block, "text", "") for block in done.content)


def generate(stage: Stage, model: str, stream: bool) -> str:
    """Google's SDK."""
    client = stage.google
    if not stream:
        done: Any = client.models.generate_content(model=model, contents="Hi")
        assert done.usage_metadata.prompt_token_count == 21
        return str(done.text)
    pieces: list[Any] = list(client.models.generate_content_stream(model=model, contents="Hi"))
    assert pieces[-1].usage_metadata.candidates_token_count == 7
    return "".join(piece.text or "" for piece in pieces)


def completions(stage: Stage, model: str, stream: bool) -> str:
    """OpenAI's SDK, prompts."""
    client = stage.openai
    if not stream:
        return client.completions.create(model=model, prompt="Hi").choices[0].text
    return "".join(
        choice.text
        for piece in client.completions.create(model=model, prompt="Hi", stream=True)
        for choice in piece.choices
    )


SDKS: Final = {"OC": chat, "OR": responses, "AM": messages, "GG": generate, "CO": completions}


@WAYS
@pytest.mark.parametrize(("letter", "one"), PLAIN, ids=PLAIN_IDS)
def test_text(stage: Stage, letter: str, one: Provider, stream: bool) -> None:
    """What an SDK hands to its user does not depend on the provider behind."""
    stage.upstream.says(Say(text=TEXT, prompt=21, completion=7))
    assert SDKS[letter](stage, one.name, stream) == TEXT
    assert [path for path, _ in stage.upstream.calls if not path.endswith("/token")] != []


def chat_calls(stage: Stage, model: str, stream: bool) -> list[Any]:
    """OpenAI's SDK, chat completions: a picture, a tool, two calls."""
    function: Any = {"name": "weather", "parameters": WEATHER}
    parts: Any = [{"type": "text", "text": "Go"}, {"type": "image_url", "image_url": {"url": Picture().url}}]
    given: Any = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "tools": [{"type": "function", "function": function}],
    }
    client = stage.openai
    if not stream:
        done: Any = client.chat.completions.create(**given)
    else:
        with client.chat.completions.stream(**given) as events:
            done = events.get_final_completion()
    assert done.choices[0].finish_reason == "tool_calls"
    return [
        (one.id, one.function.name, orjson.loads(one.function.arguments)) for one in done.choices[0].message.tool_calls
    ]


def responses_calls(stage: Stage, model: str, stream: bool) -> list[Any]:
    """OpenAI's SDK, responses."""
    parts = [{"type": "input_text", "text": "Go"}, {"type": "input_image", "image_url": Picture().url}]
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    given: Any = {"model": model, "input": [{"role": "user", "content": parts}], "tools": [tool], "store": False}
    client = stage.openai
    if not stream:
        done: Any = client.responses.create(**given)
    else:
        with client.responses.stream(**given) as events:
            done = events.get_final_response()
    calls = [item for item in done.output if item.type == "function_call"]
    return [(one.call_id, one.name, orjson.loads(one.arguments)) for one in calls]


def messages_calls(stage: Stage, model: str, stream: bool) -> list[Any]:
    """Anthropic's SDK."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    given: Any = {
        "model": model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Go"}, picture]}],
        "tools": [{"name": "weather", "input_schema": WEATHER}],
    }
    client = stage.claude
    if not stream:
        done: Any = client.messages.create(**given)
    else:
        with client.messages.stream(**given) as events:
            done = events.get_final_message()
    assert done.stop_reason == "tool_use"
    return [(block.id, block.name, block.input) for block in done.content if block.type == "tool_use"]


def generate_calls(stage: Stage, model: str, stream: bool) -> list[Any]:
    """Google's SDK."""
    declared = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents: Any = ["Go", types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png")]
    client = stage.google
    given: Any = {"model": model, "contents": contents, "config": config}
    pieces = client.models.generate_content_stream(**given) if stream else [client.models.generate_content(**given)]
    calls = [call for piece in pieces for call in piece.function_calls or ()]
    return [(one.id, one.name, one.args) for one in calls]


CALLING: Final = {"OC": chat_calls, "OR": responses_calls, "AM": messages_calls, "GG": generate_calls}


@WAYS
@pytest.mark.parametrize(("letter", "one"), CELLS, ids=IDS)
def test_tools_and_pictures(stage: Stage, letter: str, one: Provider, stream: bool) -> None:
    """A picture and a tool go up, two calls come down; what a provider cannot take is the SDK's error of a 400."""
    stage.upstream.says(Say(text="", calls=CALLS))
    if any((one.interface, feature) in REFUSED for feature in ("tools", "image")):
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError, errors.ClientError)):
            CALLING[letter](stage, one.name, stream)
        assert stage.upstream.calls == []
        return
    called = CALLING[letter](stage, one.name, stream)
    assert [call[1:] for call in called] == [call[1:] for call in CALLS]
    assert len({call[0] for call in called}) == 2
    raw = stage.upstream.calls[-1][1]
    assert PNG.encode() in raw.replace(b"-", b"+").replace(b"_", b"/")  # Google's SDK writes the other alphabet
    assert b'"weather"' in raw


@WAYS
@pytest.mark.parametrize(("letter", "one"), PLAIN, ids=PLAIN_IDS)
def test_error(stage: Stage, letter: str, one: Provider, stream: bool) -> None:
    """A provider's 429 is the SDK's own error for it, with the provider's words."""
    stage.upstream.says(Say(status=429, message="Slow down, please."))
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError, errors.ClientError)) as caught:
        SDKS[letter](stage, one.name, stream)
    assert "Slow down, please." in str(caught.value)
    assert getattr(caught.value, "status_code", None) == 429 or getattr(caught.value, "code", None) == 429


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(stage: Stage, letter: str, model: str, **body: Any) -> Answer:
    """A request without an SDK."""
    path = inbound.route(letter)
    assert path is not None
    data = orjson.dumps(inbound.body(letter, model=model, **body))
    connection = http.client.HTTPConnection(urlsplit(stage.url).netloc, timeout=30)
    try:
        headers = {"authorization": "Bearer sk-demo", "content-type": "application/json"}
        connection.request("POST", path.replace("{model}", model), data, headers)
        answer = connection.getresponse()
        given = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, given, answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("family", ["openai", "anthropic"])
@across("OC", "OR", "AM", "GG")
def test_packed_answers(stage: Stage, letter: str, family: str, coding: Coding) -> None:
    """T-CORE-019: unpacked here, whatever the client takes."""
    stage.upstream.says(Say(text=TEXT), coding)
    answer = post(stage, letter, f"m-{family}")
    assert answer.status == 200
    assert "content-encoding" not in answer.headers
    assert matrix_grammar.whole(letter, answer.body).text == TEXT


@pytest.mark.parametrize("family", ["openai", "anthropic"])
@across("OC", "OR", "AM", "GG")
def test_large_pictures(stage: Stage, letter: str, family: str) -> None:
    """T-CORE-020: 20 MB arrive as they are, and the daemon stays below what its settings allow."""
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(15 * MEBI)).decode()
    stage.upstream.says(Say(text=TEXT))
    answer = post(stage, letter, f"m-{family}", turns=(("user", "What?", Picture(f"data:image/png;base64,{data}")),))
    assert answer.status == 200, answer.body
    ((_, raw),) = stage.upstream.calls
    assert data.encode() in raw
    stage.upstream.calls.clear()
    peak = Path(f"/proc/{stage.daemon.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert int(peak) < 512 * 1024  # KiB; the default budget for bodies is half of this


@across("OC", "OR", "AM", "GG")
def test_private_addresses(stage: Stage, letter: str) -> None:
    """T-CORE-023: no call is made to this machine on a client's word, by its number or by a name for it."""
    for host in (stage.upstream.url, stage.upstream.url.replace("127.0.0.1", "localhost"), "http://169.254.1.1"):
        stage.upstream.says(Say())
        answer = post(stage, letter, "m-bedrock", turns=(("user", "What?", Picture(f"{host}/a.png")),))
        assert answer.status == 400
        assert stage.upstream.calls == []
        if letter in ("OC", "OR"):
            assert orjson.loads(answer.body)["error"]["code"] == "invalid_image_url"
