"""The rows of Vertex AI, each in every format that clients speak: Gemini, Claude and open models behind one account."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy.adapters.vertex import ADAPTER
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.events import Finished, Metered, TextDelta
from newapi_proxy.ir.usage import NOTHING
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces import SURFACES, anthropic
from newapi_proxy.surfaces.base import PATH
from newapi_proxy.wire.tree import Document
from tests.fakes import inbound, matrix_claude
from tests.fakes.inbound import FUNCTION, HI, PDF, PNG, Call, Picture, Result, across
from tests.fakes.matrix_claude import Message
from tests.fakes.matrix_grammar import FINISHES
from tests.fakes.matrix_vertex import (
    CLAUDE,
    FACE,
    GEMINI,
    LLAMA,
    PLACE,
    ask,
    dialect,
    fetched,
    frames,
    refused,
    sent,
    shown,
    target,
)
from tests.fakes.service_account import EMAIL, TOKEN_URI, account, claimed

CUT: Final = pytest.mark.parametrize("cut", [0, 1], ids=["whole", "bytes"])
STOP: Final = FINISHES["stop"]
SEEN: Final = (("user", "What?", Picture("https://p.example/a.png")),)
PNG_BYTES: Final = base64.b64decode(PNG)


def gemini_answer(text: str = "Hello", **candidate: Any) -> dict[str, Any]:
    """A whole answer of a Gemini."""
    content = {"role": "model", "parts": [{"text": text}]} if text else {"role": "model"}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", **candidate}],
        "usageMetadata": {
            "promptTokenCount": 7,
            "candidatesTokenCount": 2,
            "totalTokenCount": 9,
            "trafficType": "ON_DEMAND",
        },
        "modelVersion": "gemini-2.5-flash",
        "createTime": "2026-03-21T18:11:55.919086Z",
        "responseId": "r-1",
    }


# The account.


@across("OC", "OR", "AM", "GG")
def test_the_account(letter: str) -> None:
    """T-VERT-001: a signed claim for an hour goes to the account's own address; what it grants is the credential."""
    credential = ADAPTER.credential
    assert credential is not None
    exchange = credential.request(target(GEMINI))
    assert exchange is not None
    assert isinstance(exchange.body, bytes)
    assert exchange.url == TOKEN_URI
    head, claims = claimed(exchange.body)
    assert head == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    assert claims == {
        "iss": EMAIL,
        "aud": TOKEN_URI,
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "iat": 1_750_000_000,
        "exp": 1_750_003_600,
    }
    granted = credential.granted(Document(b'{"access_token": "ya29.t", "expires_in": 3599}'), 100)
    assert granted is not None
    assert (granted.text, granted.expires) == ("ya29.t", 3699)
    for model in (GEMINI, CLAUDE, LLAMA):
        assert sent(letter, model).headers["authorization"] == "Bearer token-1"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"private_key": None}, "private_key"),
        ({"client_email": None}, "client_email"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----"}, "private_key"),
        ({"token_uri": "http://tokens.example/"}, "token_uri"),
        ({"token_uri": "file:///etc/passwd"}, "token_uri"),
        ({"type": "authorized_user"}, "type"),
        ({"project_id": None}, "project"),
    ],
)
@across("OC", "OR", "AM", "GG")
def test_a_broken_account(letter: str, changes: dict[str, Any], word: str) -> None:
    """T-VERT-002: it is the channel's failure, names the field and nothing of the key."""
    credential = ADAPTER.credential
    assert credential is not None
    with pytest.raises(UpstreamFailure) as caught:
        credential.request(target(GEMINI, account(**changes)))
    failure = caught.value
    assert (failure.status, failure.kind, failure.blames) == (502, "upstream_auth", "key")
    assert word in failure.message
    assert "secret" not in failure.message
    answer = inbound.surface(letter).failure(failure, "r")
    assert b"BEGIN" not in answer
    assert EMAIL.encode() not in answer
    sent(letter, GEMINI, options={"key": account(**changes)})  # nothing is opened before the exchange


# Hosts and places.


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ],
)
@across("OC", "OR", "AM", "GG")
def test_hosts(letter: str, region: str, host: str) -> None:
    """T-VERT-003: the region says the host; a base URL wins over it."""
    for model in (GEMINI, CLAUDE, LLAMA):
        url = sent(letter, model, options={"region": region}).url
        assert url.startswith(f"https://{host}/v1/projects/project-1/locations/{region}/")
        url = sent(letter, model, options={"region": region, "base_url": "http://127.0.0.1:9"}).url
        assert url.startswith(f"http://127.0.0.1:9/v1/projects/project-1/locations/{region}/")


@across("OC", "OR", "AM", "GG")
def test_regions_by_model(letter: str) -> None:
    """T-VERT-004: a model's own region wins over the default, by the client's name or by upstream's."""
    for name in ("asked", CLAUDE):
        url = sent(letter, CLAUDE, options={"region": {"default": "us-central1", name: "eu"}}).url
        assert "/locations/eu/" in url
    assert "/locations/us-central1/" in sent(letter, CLAUDE, options={"region": {"default": "us-central1"}}).url
    assert "/locations/global/" in sent(letter, CLAUDE, options={"region": {"other": "eu"}}).url


# Gemini.


@across("OC", "OR", "AM", "GG")
def test_gemini(letter: str) -> None:
    """T-VERT-005: Google's own path and Gemini's body."""
    one = sent(letter, GEMINI)
    assert one.url == f"{PLACE}/publishers/google/models/{GEMINI}:generateContent"
    assert one.body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
    got, usage = shown(letter, GEMINI, orjson.dumps(gemini_answer()))
    assert (got.text, got.finish) == ("Hello", STOP[letter])
    assert usage is not None
    assert (usage.prompt, usage.completion) == (7, 2)


@CUT
@across("OC", "OR", "AM", "GG")
def test_gemini_stream(letter: str, cut: int) -> None:
    """T-VERT-006: asked for as events; an array is understood as well."""
    assert sent(letter, GEMINI, stream=True).url.endswith(":streamGenerateContent?alt=sse")
    first = gemini_answer("Hel")
    del first["candidates"][0]["finishReason"]
    data = frames(first, gemini_answer("lo"))
    got, usage = shown(letter, GEMINI, data, stream=True, cut=cut)
    assert (got.text, got.finish) == ("Hello", STOP[letter])
    assert usage is not None
    assert usage.prompt == 7
    got, _ = shown(letter, GEMINI, orjson.dumps([first, gemini_answer("lo")]), stream=True, cut=cut)
    assert (got.text, got.finish) == ("Hello", STOP[letter])


@across("OC", "OR", "GG")
def test_gemini_bucket(letter: str) -> None:
    """T-VERT-007: a file in a bucket goes up as it is named; nobody fetches it here."""
    turns = (("user", "What?", Picture("gs://bucket/a.png")),)
    given = fetched(ask(letter, turns), GEMINI)
    assert not given.fetched
    parts = dialect(letter, GEMINI).request(given, target(GEMINI)).body["contents"][0]["parts"]
    assert parts[1] == {"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}}


@across("OC", "OR", "AM", "GG")
def test_gemini_robots(letter: str) -> None:
    """T-VERT-008: a picture is fetched here, so no robots file can make Google refuse it."""
    given = fetched(ask(letter, SEEN), GEMINI)
    assert given.fetched
    parts = dialect(letter, GEMINI).request(given, target(GEMINI)).body["contents"][0]["parts"]
    assert parts[1] == {"inlineData": {"mimeType": "image/png", "data": PNG}}


@across("OC", "OR", "AM", "GG")
def test_gemini_labels(letter: str) -> None:
    """T-VERT-009: pairs of a form that Google takes become labels, the others are dropped by name."""
    if letter == "GG":
        labels = {"team": "a"}
        assert sent(letter, GEMINI, tree={"labels": labels}).body["labels"] == labels
        return
    if letter == "AM":  # the format's metadata is the user's id, which is no label
        assert "labels" not in sent(letter, GEMINI, user="u").body
        return
    one = sent(letter, GEMINI, tree={"metadata": {"team": "a", "Bad Key": "b", "mail": "x@y.example"}})
    assert one.body["labels"] == {"team": "a"}
    assert {"metadata.Bad Key", "metadata.mail"} <= set(one.dropped)


@across("OC", "OR", "GG")
def test_gemini_logprobs(letter: str) -> None:
    """T-VERT-010: asked for, and the chosen tokens come back with their alternatives."""
    one = sent(letter, GEMINI, logprobs=True)
    assert one.body["generationConfig"]["responseLogprobs"] is True
    chosen = {"token": "Hello", "tokenId": 1, "logProbability": -0.5}
    other = {"token": "Hi", "tokenId": 2, "logProbability": -1.5}
    result = {"chosenCandidates": [chosen], "topCandidates": [{"candidates": [chosen, other]}]}
    got, _ = shown(letter, GEMINI, orjson.dumps(gemini_answer(logprobsResult=result)))
    assert got.text == "Hello"
    if letter == "OC":
        (token,) = got.tree["choices"][0]["logprobs"]["content"]
        assert (token["token"], token["logprob"]) == ("Hello", -0.5)
        assert [each["token"] for each in token["top_logprobs"]] == ["Hello", "Hi"]
    if letter == "GG":
        assert got.tree["candidates"][0]["logprobsResult"] == result


@across("OC", "OR", "AM", "GG")
def test_gemini_armour(letter: str) -> None:
    """T-VERT-011: filtered, without content."""
    got, _ = shown(letter, GEMINI, orjson.dumps(gemini_answer("", finishReason="MODEL_ARMOR")))
    assert got.text == ""
    assert got.finish == ("MODEL_ARMOR" if letter == "GG" else FINISHES["content_filter"][letter])


@across("OC", "OR", "AM", "GG")
def test_gemini_blocked(letter: str) -> None:
    """T-VERT-012: the client sees a filtered answer; without counts the prompt is counted here, the output is none."""
    body = {"promptFeedback": {"blockReason": "MODEL_ARMOR"}, "usageMetadata": {"trafficType": "ON_DEMAND"}}
    events = dialect(letter, GEMINI).answer(ask(letter), Document(orjson.dumps(body)))
    assert not [event for event in events if isinstance(event, (TextDelta, Metered))]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert finished.reason == "content_filter"
    if letter == "GG":
        given, speaker = ask(letter), inbound.surface(letter)
        same = speaker.same(given, FACE, Document(orjson.dumps(body)), NOTHING)
        assert orjson.loads(same)["promptFeedback"] == body["promptFeedback"]
        return
    got, usage = shown(letter, GEMINI, orjson.dumps(body))
    assert usage is None
    assert got.finish == FINISHES["content_filter"][letter]
    assert got.error is None


@across("OC", "OR", "AM", "GG")
def test_gemini_tiers(letter: str) -> None:
    """T-VERT-013: the tier goes up in its header, not in the body, and is not told as dropped."""
    if letter == "AM":
        one = sent(letter, GEMINI, tree={"service_tier": "auto"})
        assert "x-vertex-ai-llm-shared-request-type" not in one.headers
        return
    one = sent(letter, GEMINI, tier="flex")
    assert one.headers["x-vertex-ai-llm-shared-request-type"] == "flex"
    assert "serviceTier" not in one.body
    assert one.dropped == ()


@across("GG")
def test_gemini_invocations(letter: str) -> None:
    """T-VERT-014: a switch that Vertex refuses is taken out and named."""
    calling = {"functionCallingConfig": {"mode": "AUTO"}}
    one = sent(letter, GEMINI, tree={"toolConfig": {**calling, "includeServerSideToolInvocations": True}})
    assert one.body["toolConfig"] == calling
    assert one.dropped == ("toolConfig.includeServerSideToolInvocations",)


@across("OC", "OR", "AM", "GG")
def test_gemini_safety(letter: str) -> None:
    """T-VERT-035: the channel's settings are sent with every request that has none."""
    one = sent(letter, GEMINI, options={"safety_settings": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}})
    assert one.body["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]


# Claude.

CLAUDE_PLACE: Final = f"{PLACE}/publishers/anthropic/models/claude-sonnet-4-5@20250929"


@across("OC", "OR", "AM", "GG")
def test_claude(letter: str) -> None:
    """T-VERT-015: the model stands in the path, the version in the body."""
    one = sent(letter, CLAUDE)
    assert one.url == f"{CLAUDE_PLACE}:rawPredict"
    assert one.body["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in one.body
    assert "x-api-key" not in one.headers
    content: Any = "Hi" if letter == "AM" else [{"type": "text", "text": "Hi"}]
    assert one.body["messages"] == [{"role": "user", "content": content}]
    got, usage = shown(letter, CLAUDE, Message().whole())
    assert (got.text, got.finish) == ("Hello", STOP[letter])
    assert usage is not None
    assert (usage.prompt, usage.completion) == (12, 9)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5@20250929"),
        ("claude-opus-4-6", "claude-opus-4-6"),
        ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet@20240620"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-v2@20241022"),
    ],
)
@across("OC", "OR", "AM", "GG")
def test_claude_names(letter: str, model: str, name: str) -> None:
    """T-VERT-016: the date stands behind an @."""
    assert f"/models/{name}:rawPredict" in sent(letter, model).url


@CUT
@across("OC", "OR", "AM", "GG")
def test_claude_stream(letter: str, cut: int) -> None:
    """T-VERT-017: another method, and the wish stays in the body."""
    one = sent(letter, CLAUDE, stream=True)
    assert one.url == f"{CLAUDE_PLACE}:streamRawPredict"
    assert one.body["stream"] is True
    got, _ = shown(letter, CLAUDE, Message().stream(), stream=True, cut=cut)
    assert (got.text, got.finish) == ("Hello", STOP[letter])


@across("OC", "OR", "AM", "GG")
def test_claude_picture(letter: str) -> None:
    """T-VERT-018: bytes go up, never the address; one that was not fetched is refused."""
    given = fetched(ask(letter, SEEN), CLAUDE)
    body = dialect(letter, CLAUDE).request(given, target(CLAUDE)).body
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert body["messages"][0]["content"][1] == {"type": "image", "source": source}
    assert b"p.example" not in orjson.dumps(body)
    with pytest.raises(Unsupported) as caught:
        sent(letter, CLAUDE, SEEN)
    assert caught.value.code == "unsupported_content"


@across("OC", "OR", "AM", "GG")
def test_claude_document(letter: str) -> None:
    """T-VERT-019: the same for a PDF."""
    url = "https://p.example/a.pdf"
    bodies: dict[str, Any] = {
        "OC": {"messages": [{"role": "user", "content": [{"type": "document_url", "document_url": url}]}]},
        "OR": {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]},
        "AM": {
            "messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": url}}]}],
        },
        "GG": {
            "contents": [{"role": "user", "parts": [{"fileData": {"fileUri": url, "mimeType": "application/pdf"}}]}],
        },
    }
    given = fetched(ask(letter, tree=bodies[letter]), CLAUDE, PDF, "application/pdf")
    body = dialect(letter, CLAUDE).request(given, target(CLAUDE)).body
    (block,) = body["messages"][0]["content"]
    assert block["source"] == {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert b"p.example" not in orjson.dumps(body)


SIGNED: Final = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk+/=="}
USE: Final = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}


@across("OC", "OR", "AM", "GG")
def test_claude_tool_loop(letter: str) -> None:
    """T-VERT-020: thinking that a client sends back reaches Claude with the signature that it gave."""
    message = Message(content=(SIGNED, USE), stop="tool_use")
    answer = orjson.loads(matrix_claude.whole(letter, message.whole()))
    turns = (("user", "Go"), inbound.reply(letter, answer), ("tool", Result("toolu_1", "f")))
    one = sent(letter, CLAUDE, turns, tools=[FUNCTION])
    assert one.body["messages"][1]["content"][0] == SIGNED
    assert one.body["messages"][1]["content"][1]["name"] == "f"


MARK: Final = {"type": "ephemeral", "ttl": "1h"}
BLOCK: Final = {"type": "text", "text": "Hi"}
MARKED: Final = {**BLOCK, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Hi", [{**BLOCK, "cache_control": MARK}]),
        ([BLOCK, {"type": "text", "text": "You"}], [BLOCK, {"type": "text", "text": "You", "cache_control": MARK}]),
        ([BLOCK, {"type": "text", "text": " "}], [{**BLOCK, "cache_control": MARK}, {"type": "text", "text": " "}]),
        ([MARKED], [MARKED]),
        ([MARKED] * 4 + [BLOCK], [MARKED] * 4 + [BLOCK]),
    ],
    ids=["string", "last", "blank", "marked", "full"],
)
@across("AM")
def test_claude_automatic_mark(letter: str, content: Any, expected: Any) -> None:
    """T-VERT-021: the mark of the whole prompt goes to its last block, where there is room for one."""
    messages = [{"role": "user", "content": content}]
    one = sent(letter, CLAUDE, tree={"messages": messages, "cache_control": MARK})
    assert "cache_control" not in one.body
    assert one.body["messages"] == [{"role": "user", "content": expected}]
    assert messages == [{"role": "user", "content": content}]


@across("AM")
def test_claude_betas(letter: str) -> None:
    """T-VERT-022: those of the header and those of the channel stand in the body."""
    one = sent(
        letter, CLAUDE, options={"beta": ("b", "c")}, headers={"anthropic-beta": "a, b"}, tree={"anthropic_beta": ["d"]}
    )
    assert one.body["anthropic_beta"] == ["a", "b", "d", "c"]
    assert "anthropic-beta" not in one.headers


@across("OR", "AM", "GG")
def test_claude_server_tools(letter: str) -> None:
    """T-VERT-023: what only Anthropic's own host does is refused by name."""
    tools: dict[str, list[dict[str, Any]]] = {
        "OR": [{"tools": [{"type": "mcp", "server_label": "s", "server_url": "https://m.example"}]}],
        "AM": [
            {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
            {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-8"}]},
            {"mcp_servers": [{"type": "url", "name": "s", "url": "https://m.example"}]},
        ],
        "GG": [{"tools": [{"urlContext": {}}]}],
    }
    for tree in tools[letter]:
        with pytest.raises(Unsupported) as caught:
            sent(letter, CLAUDE, tree=tree)
        assert caught.value.param is not None
        assert caught.value.param.startswith(("tools", "mcp_servers"))


def test_claude_counting() -> None:
    """T-VERT-024 (AM, GG): a model of its own counts, by the same path."""
    counting = ADAPTER.counting
    assert counting is not None
    body: Any = {"model": "asked", "messages": [{"role": "user", "content": "Hi"}]}
    one = counting.request(anthropic.COUNT.read(orjson.dumps(body), {}), target(CLAUDE))
    assert one.url == f"{PLACE}/publishers/anthropic/models/count-tokens:rawPredict"
    assert isinstance(one.body, dict)
    assert one.body["model"] == "claude-sonnet-4-5@20250929"
    assert one.body["messages"] == body["messages"]
    surface = SURFACES["/v1beta/models/{model}:countTokens"]
    given = surface.read(orjson.dumps({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}), {PATH: "asked"})
    two = counting.request(given, target(CLAUDE))
    assert isinstance(two.body, dict)
    assert (two.url, two.body["model"], "max_tokens" in two.body) == (one.url, one.body["model"], False)
    assert counting.tokens(b'{"input_tokens": 14}') == 14
    three = counting.request(given, target(GEMINI))
    assert three.url == f"{PLACE}/publishers/google/models/{GEMINI}:countTokens"
    assert counting.tokens(b'{"totalTokens": 15}') == 15
    with pytest.raises(Unsupported):
        counting.request(given, target(LLAMA))


@across("OC", "OR", "AM", "GG")
def test_claude_error(letter: str) -> None:
    """T-VERT-025: Anthropic's own words; the request's id stays here."""
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "max_tokens: too many"},
        "request_id": "req_vrtx_011CabcdefGH",
    }
    status, got, failure = refused(letter, CLAUDE, 400, body)
    assert status == 400
    assert "max_tokens: too many" in str(got.error)
    assert "req_vrtx" not in str(got.tree)
    assert failure.blames == "nobody"
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert refused(letter, CLAUDE, 529, overloaded)[2].kind == "overloaded"


QUOTA: Final = {"error": {"code": 429, "message": "Quota exceeded for this model.", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.parametrize("body", [QUOTA, [QUOTA]], ids=["object", "list"])
@across("OC", "OR", "AM", "GG")
def test_claude_quota(letter: str, body: Any) -> None:
    """T-VERT-026: Google's words mean the same."""
    status, got, failure = refused(letter, CLAUDE, 429, body)
    assert (status, failure.kind) == (429, "rate_limit")
    assert "Quota exceeded" in str(got.error)


# Open models.

OPEN_PLACE: Final = f"{PLACE}/endpoints/openapi/chat/completions"
CHUNK: Final = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of an open model's answer."""
    return {**CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (LLAMA, f"meta/{LLAMA}-maas"),
        ("meta/llama-4-scout-17b-16e-instruct-maas", "meta/llama-4-scout-17b-16e-instruct-maas"),
        ("deepseek-ai/deepseek-r1-0528-maas", "deepseek-ai/deepseek-r1-0528-maas"),
    ],
)
@across("OC", "OR", "AM", "GG")
def test_open(letter: str, model: str, name: str) -> None:
    """T-VERT-027: one address for all of them, the publisher stands before the name."""
    one = sent(letter, model)
    assert (one.url, one.body["model"]) == (OPEN_PLACE, name)
    assert one.headers["authorization"] == "Bearer token-1"
    message = {"role": "assistant", "content": "Hello"}
    answer = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    got, usage = shown(letter, model, orjson.dumps(answer))
    assert (got.text, got.finish) == ("Hello", STOP[letter])
    assert usage is not None
    assert usage.prompt == 5


@CUT
@across("OC", "OR", "AM", "GG")
def test_open_stream(letter: str, cut: int) -> None:
    """T-VERT-028: chunks to their end."""
    assert sent(letter, LLAMA, stream=True).body["stream"] is True
    metered = {**CHUNK, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    data = frames(chunk(role="assistant", content="Hel"), chunk(content="lo"), chunk("stop"), metered, b"[DONE]")
    got, usage = shown(letter, LLAMA, data, stream=True, cut=cut)
    assert (got.text, got.finish) == ("Hello", STOP[letter])
    assert usage is not None
    assert usage.completion == 2


@across("OC", "OR", "AM", "GG")
def test_open_picture(letter: str) -> None:
    """T-VERT-029: the one picture comes before the text."""
    one = sent(letter, LLAMA, (("user", "What?", Picture()),))
    parts = one.body["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]


@across("OC", "OR", "AM", "GG")
def test_open_pictures(letter: str) -> None:
    """T-VERT-030: a second one is refused, wherever it stands."""
    turns = (("user", "What?", Picture()), ("assistant", "A dot."), ("user", "And this?", Picture()))
    with pytest.raises(Unsupported) as caught:
        sent(letter, LLAMA, turns)
    assert caught.value.code == "unsupported_content"
    assert caught.value.param


@across("OC", "OR", "AM", "GG")
def test_open_tools(letter: str) -> None:
    """T-VERT-031: functions, calls and results pass."""
    turns = (("user", "Go"), ("assistant", Call("call_1", "f", '{"a":1}')), ("tool", Result("call_1", "f")))
    one = sent(letter, LLAMA, turns, tools=[FUNCTION])
    assert one.body["tools"][0]["function"]["name"] == "f"
    assert [message["role"] for message in one.body["messages"]] == ["user", "assistant", "tool"]


@across("OC", "OR", "AM", "GG")
def test_open_error(letter: str) -> None:
    """T-VERT-032: a list around an error is no hindrance."""
    body = [{"error": {"code": 400, "message": "Unknown model m.", "status": "INVALID_ARGUMENT"}}]
    status, got, _ = refused(letter, LLAMA, 400, body)
    assert status == 400
    assert "Unknown model m." in str(got.error)


def test_models_and_formats() -> None:
    """Each model is served in exactly one format."""
    models = {
        "gemini-2.5-pro": "gemini",
        "google/gemini-2.5-pro": "gemini",
        "1234567890": "gemini",
        "projects/p/locations/eu/endpoints/1": "gemini",
        "claude-opus-4-6": "anthropic",
        "anthropic/claude-opus-4-6": "anthropic",
        "llama-4-scout": "openai-chat",
        "qwen/qwen3-coder": "openai-chat",
    }
    for model, dialect_name in models.items():
        assert [one.dialect for one in ADAPTER.chat if one.serves(model)] == [dialect_name]


def test_keys_of_other_kinds() -> None:
    """An API key and a token that is one already need no exchange; without a project the address is short."""
    credential = ADAPTER.credential
    assert credential is not None
    given = msgspec.structs.replace(target(GEMINI), key=Secret("AIzaSyA-key"))
    assert credential.request(given) is None
    one = dialect("OC", GEMINI).request(ask("OC", HI), given)
    assert one.url == f"https://aiplatform.googleapis.com/v1/publishers/google/models/{GEMINI}:generateContent"
    assert one.headers["x-goog-api-key"] == "AIzaSyA-key"
    given = msgspec.structs.replace(target(GEMINI, project="p"), key=Secret("ya29.ready"))
    assert credential.request(given) is None
    one = dialect("OC", GEMINI).request(ask("OC", HI), given)
    assert "/projects/p/locations/us-east5/" in one.url
    assert one.headers["authorization"] == "Bearer ya29.ready"


def test_the_channels_project_wins() -> None:
    """A channel that names a project uses it, whatever the key says."""
    assert "/projects/other/" in sent("OC", GEMINI, options={"project": "other"}).url


def test_loopback_issuers() -> None:
    """The address of the exchange may be plain http on this machine only."""
    credential = ADAPTER.credential
    assert credential is not None
    for uri in ("http://127.0.0.1:9/token", "http://localhost:9/token", "http://[::1]:9/token"):
        exchange = credential.request(target(GEMINI, account(token_uri=uri)))
        assert exchange is not None
        assert exchange.url == uri
