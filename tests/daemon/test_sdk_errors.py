"""Errors as the official SDKs raise them: the right class, before a stream and inside one, never a silent end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.daemon import test_sdks
from tests.daemon.running import Stage
from tests.daemon.test_sdks import BOTH, OVER_OPENAI, anthropic_said, openai_said
from tests.fakes.scripted import Say

CONFIG = test_sdks.CONFIG
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
LONG = "One two three four five six seven eight nine ten."
STREAMED = pytest.mark.parametrize("stream", [False, True])

# what the provider answers; OpenAI's class and status; Anthropic's class and status
REFUSALS = [
    (400, openai.BadRequestError, 400, anthropic.BadRequestError, 400),
    (401, openai.InternalServerError, 502, anthropic.InternalServerError, 502),
    (402, openai.InternalServerError, 502, anthropic.InternalServerError, 502),
    (403, openai.InternalServerError, 502, anthropic.InternalServerError, 502),
    (404, openai.NotFoundError, 404, anthropic.NotFoundError, 404),
    (413, openai.APIStatusError, 413, anthropic.APIStatusError, 413),
    (422, openai.BadRequestError, 400, anthropic.BadRequestError, 400),
    (429, openai.RateLimitError, 429, anthropic.RateLimitError, 429),
    (500, openai.InternalServerError, 502, anthropic.InternalServerError, 502),
    (503, openai.InternalServerError, 503, anthropic.InternalServerError, 529),
    (529, openai.InternalServerError, 503, anthropic.InternalServerError, 529),
]


@STREAMED
@BOTH
@pytest.mark.parametrize("row", REFUSALS, ids=[str(row[0]) for row in REFUSALS])
def test_upstreams_refusals(
    stage: Stage, chat: OpenAI, claude: Anthropic, row: tuple[Any, ...], model: str, stream: bool
) -> None:
    """The provider's status before any content is the SDK's exception, with the id and the wait, without the key."""
    given, openai_class, openai_status, anthropic_class, anthropic_status = row
    headers = {"Retry-After": "7"} if given in (429, 503, 529) else {}
    stage.upstream.says(Say(status=given, headers=headers, message="no, sk-provider-o, ask http://inner.example/x"))
    with pytest.raises(openai_class) as first:
        openai_said(chat, stream, model=model, messages=MESSAGES)
    with pytest.raises(anthropic_class) as second:
        anthropic_said(claude, stream, model=model, messages=MESSAGES)
    assert len(stage.upstream.calls) == 2
    for error, status in ((first.value, openai_status), (second.value, anthropic_status)):
        assert error.status_code == status
        assert error.response.headers.get("retry-after") == headers.get("Retry-After")
        assert error.response.headers["x-request-id"] in error.response.text
        assert "sk-provider" not in error.response.text
        assert "inner.example" not in error.response.text
    assert set(first.value.body) >= {"message", "type", "param", "code"}
    assert second.value.body["type"] == "error"
    if given in (401, 402, 403):
        assert (first.value.type, first.value.code) == ("upstream_error", "upstream_credentials")
        assert second.value.body["error"]["type"] == "api_error"


def until(error: type[Exception], texts: Iterable[str]) -> str:
    """What is heard before the error that must come."""
    heard: list[str] = []
    with pytest.raises(error):
        deque(map(heard.append, texts), maxlen=0)
    assert "".join(heard)
    return "".join(heard)


@BOTH
@pytest.mark.parametrize("end", ["cut", "error"])
def test_broken_streams_raise(stage: Stage, chat: OpenAI, claude: Anthropic, model: str, end: Any) -> None:
    """A stream that breaks off, or holds an error, raises after its first words; what was delivered is charged."""
    stage.upstream.says(Say(text=LONG, prompt=9, completion=3, end=end))
    said = {"model": model, "messages": MESSAGES}
    with chat.chat.completions.create(**said, stream=True) as chunks:
        texts = (one.choices[0].delta.content or "" for one in chunks if one.choices)
        assert LONG.startswith(until(openai.APIError, texts))
    with claude.messages.stream(**said, max_tokens=64) as events:
        assert LONG.startswith(until(anthropic.APIError, events.text_stream))
    for answer in (chunks.response, events.response):
        line = stage.line(answer.headers["x-request-id"])
        assert (line["status"], line["end"]) == (200, "upstream_error")
        assert line["quota"] > 0


@BOTH
@STREAMED
def test_no_answer_raises(stage: Stage, chat: OpenAI, claude: Anthropic, model: str, stream: bool) -> None:
    """An answer of the wrong kind is an error of the provider, and costs nothing."""
    stage.upstream.says(Say(text="", status=200 if stream else 500, end="cut" if stream else "ok"))
    with pytest.raises(openai.InternalServerError) as first:
        openai_said(chat, stream, model=model, messages=MESSAGES)
    with pytest.raises(anthropic.InternalServerError) as second:
        anthropic_said(claude, stream, model=model, messages=MESSAGES)
    assert first.value.status_code == second.value.status_code == 502
    line = stage.line(second.value.response.headers["x-request-id"])
    assert (line["quota"], line["end"]) == (0, "upstream_error")


# key, model, OpenAI's class, status, code; Anthropic's class and error type
OURS = [
    ("sk-wrong", OVER_OPENAI, openai.AuthenticationError, 401, "invalid_api_key",
     anthropic.AuthenticationError, "authentication_error"),
    ("sk-demo", "secret-model", openai.PermissionDeniedError, 403, "access_denied",
     anthropic.PermissionDeniedError, "permission_error"),
    ("sk-demo", "nobody", openai.InternalServerError, 503, "model_not_found",
     anthropic.APIStatusError, "not_found_error"),
]  # fmt: skip


@STREAMED
@pytest.mark.parametrize("row", OURS, ids=["401", "403", "503"])
def test_our_refusals(stage: Stage, row: tuple[Any, ...], stream: bool) -> None:
    """What the daemon refuses itself; the SDKs' own retries do not repeat it."""
    key, model, openai_class, status, code, anthropic_class, _ = row
    stage.upstream.says(Say())
    with OpenAI(base_url=f"{stage.url}/v1", api_key=key, max_retries=2) as client:
        with pytest.raises(openai_class) as first:
            openai_said(client, stream, model=model, messages=MESSAGES)
        assert (first.value.status_code, first.value.code) == (status, code)
    with Anthropic(base_url=stage.url, api_key=key, max_retries=2) as other:
        with pytest.raises(anthropic_class) as second:
            anthropic_said(other, stream, model=model, messages=MESSAGES)
        assert second.value.body["type"] == "error"
    assert stage.upstream.calls == []
    for error in (first.value, second.value):
        assert error.response.headers["x-should-retry"] == "false"
        assert error.response.request.headers["x-stainless-retry-count"] == "0"


def test_a_limit_is_waited_for(stage: Stage, chat: OpenAI) -> None:
    """An SDK that may retry does so after a 429, and gets its answer."""
    stage.upstream.says(Say(status=429, headers={"Retry-After": "1"}), Say(text="now"))
    patient = chat.with_options(max_retries=1)
    done = patient.chat.completions.create(model=OVER_OPENAI, messages=MESSAGES)
    assert done.choices[0].message.content == "now"
    assert len(stage.upstream.calls) == 2


def test_both_names_of_a_key(stage: Stage) -> None:
    """Anthropic's SDK may bring its key either way."""
    stage.upstream.says(Say())
    for named in ({"api_key": "sk-demo"}, {"auth_token": "sk-demo"}):
        with Anthropic(base_url=stage.url, max_retries=0, **named) as client:
            assert anthropic_said(client, False, model=OVER_OPENAI, messages=MESSAGES).stop_reason == "end_turn"
