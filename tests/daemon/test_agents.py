"""Coding agents as they really call, over every kind of provider: what they send, and the turn after a tool's result.

The shapes are those of Codex (Responses, streamed, stateless), Claude Code (messages with betas, cache marks and
thinking, a probe of one token, token counting) and Gemini CLI (streamed content, thoughts, schemas).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI

from tests.daemon.test_matrix_sdks import FAMILIES
from tests.fakes.matrix_server import Server
from tests.fakes.process import Daemon, free_port
from tests.fakes.scripted import Say

TOOLLESS: Final = frozenset({"dify", "coze"})
AGENTS: Final = tuple(name for name in FAMILIES if name not in TOOLLESS)
REGION: Final = "options: {region: us-east-1}, "
ARGUMENTS: Final = {"command": ["bash", "-lc", "ls"], "note": "Grüße 🌍"}
SIGNED: Final = "EqQBCgIYAhIkc2ln"  # base64, as every provider's signature is
SCHEMA: Final = {
    "type": "object",
    "properties": {"command": {"type": "array", "items": {"type": "string"}}, "note": {"type": "string"}},
    "required": ["command"],
    "additionalProperties": False,
}
CALLING: Final = Say(
    text="I look.",
    calls=(("call_abc12", "shell", ARGUMENTS),),
    thinking="Hm.",
    signature=SIGNED,
    prompt=21,
    completion=7,
)
DONE: Final = Say(text="Two files.", prompt=40, completion=3)


class Stage:
    """The daemon, and all the providers behind one socket."""

    def __init__(self, url: str, upstream: Server) -> None:
        self.url = url
        self.upstream = upstream

    @property
    def sent(self) -> str:
        """The latest body that a provider got."""
        return self.upstream.calls[-1][1].decode()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One daemon with a channel for each family."""
    folder: Path = tmp_path_factory.mktemp("agents")
    port = free_port()
    with Server() as upstream:
        rows = [
            f'  - {{name: {name}, type: {name}, base_url: "{upstream.url}/{name}", key: sk-up, models: [m-{name}], '
            f"{REGION if name == 'bedrock' else ''}auto_disable: false, "
            f'model_mapping: {{m-{name}: "{FAMILIES[name]}"}}}}'
            for name in AGENTS
        ]
        config = folder / "config.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{port}\ndatabase: sqlite:///newapi.db\nrelay: {{max_attempts: 1}}\n"
            'prices: {"*": {input: 1, output: 2}}\nchannels:\n' + "\n".join(rows) + "\ntokens:\n"
            "  - {name: demo, key: sk-demo}\n"
        )
        config.chmod(0o600)
        daemon = Daemon(config, f"http://127.0.0.1:{port}").start()
        try:
            yield Stage(daemon.url, upstream)
        finally:
            daemon.stop()


def replayed(stage: Stage, family: str) -> None:
    """The second turn tells the provider its own call, the tool's result, and Claude its own signed thought."""
    body = stage.sent
    assert "a.txt b.txt" in body
    assert '"shell"' in body
    assert "Grüße 🌍" in body
    if family == "anthropic":
        turn = orjson.loads(body)["messages"][1]["content"]
        assert list(dict.fromkeys(block["type"] for block in turn)) == ["thinking", "text", "tool_use"]
        assert turn[0] == {"type": "thinking", "thinking": "Hm.", "signature": SIGNED}
        assert (turn[-1]["id"], turn[-1]["input"]) == ("call_abc12", ARGUMENTS)


@pytest.mark.parametrize("family", AGENTS)
def test_codex(stage: Stage, family: str) -> None:
    """A streamed, stateless Responses loop: items of the first answer go back as they came, with the tool's output."""
    asked: Any = {
        "model": f"m-{family}",
        "instructions": "You are a coding agent.",
        "tools": [{"type": "function", "name": "shell", "description": "Runs", "strict": False, "parameters": SCHEMA}],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "019a",
        "text": {"verbosity": "low"},
    }
    items: list[Any] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is here?"}]}
    ]
    with OpenAI(base_url=f"{stage.url}/v1", api_key="sk-demo", max_retries=0, timeout=20) as client:
        stage.upstream.says(CALLING)
        events = list(client.responses.create(input=items, **asked, extra_headers={"originator": "codex_cli_rs"}))
        kept = [event.item.to_dict(mode="json") for event in events if event.type == "response.output_item.done"]
        (call,) = [item for item in kept if item["type"] == "function_call"]
        assert orjson.loads(call["arguments"]) == ARGUMENTS
        assert events[-1].type == "response.completed"
        assert events[-1].response.usage.input_tokens == 21
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "a.txt b.txt"}
        stage.upstream.says(DONE)
        events = list(client.responses.create(input=[*items, *kept, output], **asked))
        assert events[-1].response.output_text == "Two files."
    replayed(stage, family)


@pytest.mark.parametrize("family", AGENTS)
def test_claude_code(stage: Stage, family: str) -> None:
    """Betas, cache marks and thinking; the streamed message goes back as it was accumulated."""
    marked = {"cache_control": {"type": "ephemeral"}}
    asked: Any = {
        "model": f"m-{family}",
        "max_tokens": 32000,
        "system": [{"type": "text", "text": "You are Claude Code."}, {"type": "text", "text": "Be exact.", **marked}],
        "tools": [{"name": "shell", "description": "Runs", "input_schema": SCHEMA, **marked}],
        "thinking": {"type": "enabled", "budget_tokens": 4096},
        "metadata": {"user_id": "user_1_account__session_2"},
        "betas": ["claude-code-20250219", "interleaved-thinking-2025-05-14", "fine-grained-tool-streaming-2025-05-14"],
    }
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "What is here?", **marked}]}]
    with Anthropic(base_url=stage.url, auth_token="sk-demo", max_retries=0, timeout=20) as client:
        stage.upstream.says(Say(text="#", completion=1))
        probe = client.beta.messages.create(
            model=f"m-{family}", max_tokens=1, messages=[{"role": "user", "content": "quota"}], betas=asked["betas"]
        )
        assert probe.usage.output_tokens == 1
        count = client.beta.messages.count_tokens(
            **{name: asked[name] for name in ("model", "system", "tools", "betas")}, messages=messages
        )
        assert count.input_tokens > 0
        stage.upstream.says(CALLING)
        with client.beta.messages.stream(messages=messages, **asked) as stream:
            said = stream.get_final_message()
        assert said.stop_reason == "tool_use"
        (call,) = [block for block in said.content if block.type == "tool_use"]
        assert (call.name, call.input) == ("shell", ARGUMENTS)
        assert said.usage.output_tokens == 7
        if family == "anthropic":
            assert stage.upstream.heads[-1]["anthropic-beta"].split(",") == asked["betas"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "a.txt b.txt", **marked}
        turns = [*messages, {"role": "assistant", "content": said.content}, {"role": "user", "content": [result]}]
        stage.upstream.says(DONE)
        with client.beta.messages.stream(messages=turns, **asked) as stream:
            assert stream.get_final_text() == "Two files."
    replayed(stage, family)


@pytest.mark.parametrize("family", AGENTS)
def test_gemini_cli(stage: Stage, family: str) -> None:
    """Streamed content with thoughts; the model's parts go back as they came, signatures on them."""
    declared = types.FunctionDeclaration(name="shell", description="Runs", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        system_instruction="You are Gemini CLI.",
        temperature=0,
        top_p=1,
        tools=[types.Tool(function_declarations=[declared])],
        thinking_config=types.ThinkingConfig(include_thoughts=True),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents: list[Any] = [types.Content(role="user", parts=[types.Part(text="What is here?")])]
    client = genai.Client(api_key="sk-demo", http_options={"base_url": stage.url, "timeout": 20_000})
    model = f"m-{family}"
    try:
        stage.upstream.says(CALLING)
        pieces = list(client.models.generate_content_stream(model=model, contents=contents, config=config))
        parts = [
            part
            for piece in pieces
            for candidate in piece.candidates or ()
            for part in (candidate.content.parts if candidate.content and candidate.content.parts else ())
            if part.text != "" or part.thought_signature
        ]
        (call,) = [part.function_call for part in parts if part.function_call]
        assert (call.name, call.args) == ("shell", ARGUMENTS)
        answer = types.Part.from_function_response(name="shell", response={"output": "a.txt b.txt"})
        answer.function_response.id = call.id
        turns = [*contents, types.Content(role="model", parts=parts), types.Content(role="user", parts=[answer])]
        stage.upstream.says(DONE)
        pieces = list(client.models.generate_content_stream(model=model, contents=turns, config=config))
        assert "".join(piece.text or "" for piece in pieces) == "Two files."
        replayed(stage, family)
        stage.upstream.says(Say(text='{"next_speaker":"user"}'))
        wanted = {"type": "object", "properties": {"next_speaker": {"type": "string", "enum": ["user", "model"]}}}
        asked = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=wanted)
        judged = client.models.generate_content(model=model, contents="Who speaks?", config=asked)
        assert orjson.loads(judged.text or "") == {"next_speaker": "user"}
        assert client.models.count_tokens(model=model, contents="What is here?").total_tokens
    finally:
        client.close()
