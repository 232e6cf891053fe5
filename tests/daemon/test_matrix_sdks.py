"""The official SDKs, unmodified, over every kind of provider, through the daemon: one cell for each pair of formats.

Beside them the rows that need real sockets: packed bodies, large ones, addresses that must not be called.
"""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import orjson
import pytest
from anthropic import Anthropic
from google import genai
from openai import OpenAI

from newapi_proxy.adapters import ADAPTERS
from tests.fakes import inbound, matrix_grammar
from tests.fakes.inbound import SPOKEN, Picture, across
from tests.fakes.matrix_server import Coding, Server
from tests.fakes.process import Daemon, free_port
from tests.fakes.scripted import Say

FAMILIES: Final = {
    "openai": "gpt-4o",
    "together": "model-1",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "amazon.nova-pro-v1:0",
    "ollama": "llama3.2-vision",
    "cohere": "command-a-vision",
    "dify": "app",
}
SERVED: Final = tuple(name for name in FAMILIES if name in ADAPTERS)
OPTIONS: Final = {"bedrock": "options: {region: us-east-1}, "}
TEXT: Final = "Grüße, 世界 🌍!"
MEBI: Final = 1 << 20


class Stage:
    """The daemon and the providers."""

    def __init__(self, daemon: Daemon, upstream: Server) -> None:
        self.daemon = daemon
        self.upstream = upstream

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
        rows = [
            f'  - {{name: {name}, type: {name}, base_url: "{upstream.url}/{name}", key: sk-up, models: [m-{name}], '
            f'{OPTIONS.get(name, "")}auto_disable: false, model_mapping: {{m-{name}: "{FAMILIES[name]}"}}}}'
            for name in SERVED
        ]
        text = (
            f"listen: 127.0.0.1:{port}\ndatabase: sqlite:///newapi.db\n"
            "relay: {max_attempts: 1, max_body: 64MB}\n"
            'prices: {"*": {input: 1, output: 2}}\nchannels:\n' + "\n".join(rows) + "\ntokens:\n"
            "  - {name: demo, key: sk-demo}\n"
        )
        config = folder / "config.yaml"
        config.write_text(text)
        config.chmod(0o600)
        daemon = Daemon(config, f"http://127.0.0.1:{port}").start()
        try:
            yield Stage(daemon, upstream)
        finally:
            daemon.stop()


def chat(stage: Stage, model: str, stream: bool) -> str:
    """OpenAI's SDK, chat completions."""
    with OpenAI(base_url=f"{stage.url}/v1", api_key="sk-demo", max_retries=0, timeout=20) as client:
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
    with OpenAI(base_url=f"{stage.url}/v1", api_key="sk-demo", max_retries=0, timeout=20) as client:
        if not stream:
            done: Any = client.responses.create(model=model, input="Hi", store=False)
        else:
            with client.responses.stream(model=model, input="Hi", store=False) as events:
                done = events.get_final_response()
        assert (done.usage.input_tokens, done.usage.output_tokens, done.model) == (21, 7, model)
        return str(done.output_text)


def messages(stage: Stage, model: str, stream: bool) -> str:
    """Anthropic's SDK."""
    with Anthropic(base_url=stage.url, api_key="sk-demo", max_retries=0, timeout=20) as client:
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
    client = genai.Client(api_key="sk-demo", http_options={"base_url": stage.url, "timeout": 20_000})
    try:
        if not stream:
            done: Any = client.models.generate_content(model=model, contents="Hi")
            assert done.usage_metadata.prompt_token_count == 21
            return str(done.text)
        pieces: list[Any] = list(client.models.generate_content_stream(model=model, contents="Hi"))
        assert pieces[-1].usage_metadata.candidates_token_count == 7
        return "".join(piece.text or "" for piece in pieces)
    finally:
        client.close()


def completions(stage: Stage, model: str, stream: bool) -> str:
    """OpenAI's SDK, prompts."""
    with OpenAI(base_url=f"{stage.url}/v1", api_key="sk-demo", max_retries=0, timeout=20) as client:
        if not stream:
            return client.completions.create(model=model, prompt="Hi").choices[0].text
        return "".join(
            choice.text
            for piece in client.completions.create(model=model, prompt="Hi", stream=True)
            for choice in piece.choices
        )


SDKS: Final = {"OC": chat, "OR": responses, "AM": messages, "GG": generate, "CO": completions}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("family", SERVED)
@pytest.mark.parametrize("letter", SPOKEN)
def test_text(stage: Stage, letter: str, family: str, stream: bool) -> None:
    """What an SDK hands to its user does not depend on the provider behind."""
    stage.upstream.says(Say(text=TEXT, prompt=21, completion=7))
    assert SDKS[letter](stage, f"m-{family}", stream) == TEXT
    assert len(stage.upstream.calls) == 1


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
