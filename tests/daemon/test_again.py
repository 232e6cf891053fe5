"""Requests sent again under an idempotency key, on real sockets: every language, a kill in between, a broken form."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.daemon.bare import Answer, bugs, head, sent
from tests.daemon.running import Stage

CONFIG: Final = """\
database: sqlite:///newapi.db
prices: {echo: {input: 1000, output: 1000}}
channels:
  - {name: echo, type: echo, models: [echo]}
tokens:
  - {name: demo, key: sk-demo, quota: $10}
  - {name: other, key: sk-other}
"""
SAID: Final[list[dict[str, Any]]] = [{"role": "user", "content": "one two three"}]
GEMINI: Final = {"contents": [{"role": "user", "parts": [{"text": "one two"}]}]}
BODIES: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"model": "echo", "messages": SAID},
    "/v1/messages": {"model": "echo", "messages": SAID, "max_tokens": 20},
    "/v1/responses": {"model": "echo", "input": "one two three"},
    "/v1/completions": {"model": "echo", "prompt": "one two three"},
    "/v1beta/models/echo:generateContent": GEMINI,
    "/v1beta/models/echo:streamGenerateContent?alt=sse": GEMINI,
    "/v1beta/models/echo:streamGenerateContent": GEMINI,
}


def ask(stage: Stage, path: str, key: str, bearer: str = "sk-demo", **fields: Any) -> Answer:
    """One request under the idempotency key."""
    data = orjson.dumps(BODIES[path] | fields)
    named = {"Authorization": f"Bearer {bearer}", "Content_Length": str(len(data)), "Idempotency_Key": key}
    return sent(stage.url, head("POST", path, **named) + data)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_every_language(stage: Stage, path: str, stream: bool) -> None:
    """The answer comes again to the byte, with its type and an id of its own, and only the first is charged."""
    fields = {"stream": True} if stream and "beta" not in path else {}
    first, again = (ask(stage, path, f"{path}-{stream}", **fields) for _ in range(2))
    assert (first.status, again.status) == (200, 200), first.body
    assert (again.body, again.headers["content-type"]) == (first.body, first.headers["content-type"])
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert first.id != again.id
    one, two = stage.line(first.id), stage.line(again.id)
    assert (one["quota"] > 0, two["quota"], two["replay_of"], two["stream"]) == (True, 0, first.id, one["stream"])
    assert ask(stage, path, f"{path}-{stream}", **fields, temperature=0).status == 422
    if "beta" not in path:
        assert "idempotent-replayed" not in ask(stage, path, f"{path}-{stream}", "sk-other", **fields).headers


def test_a_kill_in_between(stage: Stage) -> None:
    """An answer that was charged is told by the next process."""
    first = ask(stage, "/v1/chat/completions", "killed", stream=True)
    stage.daemon.kill()
    stage.daemon.start()
    again = ask(stage, "/v1/chat/completions", "killed", stream=True)
    assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")


def test_sdks(chat: OpenAI, claude: Anthropic) -> None:
    """The SDKs read an answer that is told again as they read any."""
    create: Any = chat.chat.completions.create
    key = {"Idempotency-Key": "openai"}
    made = [create(model="echo", messages=SAID, extra_headers=key) for _ in range(2)]
    assert made[0].id == made[1].id
    begin: Any = claude.messages.stream
    texts = []
    for _ in range(2):
        key = {"Idempotency-Key": "anthropic"}
        with begin(model="echo", max_tokens=20, messages=SAID, extra_headers=key) as stream:
            texts.append(stream.get_final_text())
    assert texts[0] == texts[1] != ""


def test_a_key_that_is_none(stage: Stage) -> None:
    """It is refused in the language of the route."""
    refused = ask(stage, "/v1/messages", "two words")
    assert (refused.status, refused.tree["error"]["type"]) == (400, "invalid_request_error")
    assert bugs(stage) == 0
