"""The Vertex adapter beside its rows: odd keys, odd names, tuned models, and hostile answers in its three formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newapi_proxy.adapters import _signing
from newapi_proxy.adapters._vertex_account import LIFETIME, account, fault
from newapi_proxy.adapters.vertex import ADAPTER, host
from newapi_proxy.config.load import read
from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.events import Failed, Finished
from newapi_proxy.secret import Secret
from newapi_proxy.wire.tree import Document
from tests.fakes import golden, service_account
from tests.fakes.inbound import HI, Picture, Result
from tests.fakes.matrix_vertex import CLAUDE, GEMINI, LLAMA, PLACE, ask, dialect, fetched, sent, target

MODELS = (GEMINI, CLAUDE, LLAMA)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("{", "JSON"),
        ("{}", "client_email"),
        ('{"type": "external_account"}', "type"),
        ('{"client_email": 3, "private_key": "x"}', "client_email"),
        ('{"client_email": "a", "private_key": ["x"]}', "private_key"),
        (service_account.account(token_uri="http://[::1"), "token_uri"),
        (service_account.account(token_uri="https://h.example/a b"), "token_uri"),
        (service_account.account(token_uri="https:///token"), "token_uri"),
        (service_account.account(token_uri="http://127.0.0.1.example/token"), "token_uri"),
    ],
)
def test_faults_of_keys(key: str, word: str) -> None:
    """What is wrong with a key is told in words that name the field."""
    found = fault(Secret(key))
    assert found is not None
    assert word in found


def test_sound_keys() -> None:
    """A whole account, an API key and a token have no fault; white space around the JSON is none."""
    for key in (service_account.account(), f"\n {service_account.account()}\n", "AIzaKey", "ya29.token"):
        assert fault(Secret(key)) is None
    found = account(Secret(service_account.account(token_uri=None, project_id=None, private_key_id=None, type=None)))
    assert found is not None
    assert (found.token_uri, found.project) == ("https://oauth2.googleapis.com/token", "")


def test_keys_pasted_through_a_form() -> None:
    """Line ends that came escaped twice are line ends."""
    twice = service_account.pem().replace("\n", "\\n")
    assert ADAPTER.credential is not None
    exchange = ADAPTER.credential.request(target(GEMINI, service_account.account(private_key=twice)))
    assert exchange is not None
    assert isinstance(exchange.body, bytes)
    assert service_account.claimed(exchange.body)[1]["iss"] == service_account.EMAIL


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client_email": None}, "has no client_email"),
        ({"private_key": "secret"}, "has a private_key that is not in PEM form"),
        ({"token_uri": "http://tokens.example/"}, "has a token_uri that is no https address"),
    ],
)
def test_configurations_with_broken_keys(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """A check of the configuration names the field at the key's place, and nothing of the key."""
    (tmp_path / "key.json").write_text(service_account.account(**changes))
    (tmp_path / "config.yaml").write_text(
        "channels:\n- name: v\n  type: vertex\n  key: {file: key.json}\n  models: [gemini-2.5-pro]\n"
    )
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    (found,) = read(tmp_path / "config.yaml", {}).faults
    assert str(found).endswith(f"config.yaml:4:8: channels[0].key: this service account key {words}")


def test_keys_are_not_shown() -> None:
    """Neither the account nor its faults can be printed with the key in them."""
    found = account(Secret(service_account.account()))
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "secret",
        "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nc2VjcmV0\n-----END PUBLIC KEY-----\n",
        # a key of another kind: Ed25519, made for this test
        "-----BEGIN PRIVATE KEY-----\n"
        "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
        "-----END PRIVATE KEY-----\n",
        "\udc80",
    ],
)
def test_unusable_signing_keys(pem: str) -> None:
    """What is no RSA key is a ValueError that says nothing of it."""
    with pytest.raises(ValueError, match="no ") as caught:
        _signing.rs256({}, {}, pem)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"access_token": 3}',
        b'{"access_token": ""}',
        b'{"access_token": "a\\r\\nX-Evil: 1"}',
        '{"access_token": "ü"}'.encode(),
        b'{"error": "invalid_grant"}',
    ],
)
def test_answers_without_a_token(body: bytes) -> None:
    """Nothing that could not stand in a header is taken for a token."""
    assert ADAPTER.credential is not None
    assert ADAPTER.credential.granted(Document(body), 0) is None


@pytest.mark.parametrize("life", ["x", -5, None, True, 10**30])
def test_odd_lives(life: Any) -> None:
    """A token whose life cannot be read is taken to live as long as they do."""
    assert ADAPTER.credential is not None
    body = orjson.dumps({"access_token": "t"}) if life is None or life == 10**30 else None
    body = body or orjson.dumps({"access_token": "t", "expires_in": life})
    granted = ADAPTER.credential.granted(Document(body), 100)
    assert granted is not None
    assert granted.expires == 100 + LIFETIME


def test_names_that_break_out() -> None:
    """No model, region or project ends the path or the host that it stands in."""
    for model in ("gemini/../../x", "gemini?x#y", "claude-x/../y"):
        url = sent("OC", model).url
        assert "/../" not in url
        assert "?" not in url
        assert "#" not in url
    assert host("evil.example/#") == "https://evil.example%2F%23-aiplatform.googleapis.com"
    assert "/projects/a%2Fb%3Fc/" in sent("OC", GEMINI, options={"project": "a/b?c"}).url
    assert "/projects/example.com:p/" in sent("OC", GEMINI, options={"project": "example.com:p"}).url


def test_tuned_models() -> None:
    """A model of the project's own is an endpoint, by number or by its whole name."""
    assert sent("OC", "1234567890").url == f"{PLACE}/endpoints/1234567890:generateContent"
    assert sent("OC", "endpoints/77").url == f"{PLACE}/endpoints/77:generateContent"
    whole = "projects/p/locations/eu/endpoints/../77"
    url = sent("OC", whole, options={"region": "eu"}).url
    assert url == "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/endpoints/77:generateContent"


def test_generations_and_bases() -> None:
    """The interface's generation stands in the path, and a base URL that ends in it is not doubled."""
    assert "/v1beta1/projects/" in sent("OC", GEMINI, options={"api": "v1beta1"}).url
    url = sent("OC", GEMINI, options={"base_url": "https://g.example/v1"}).url
    assert url.startswith("https://g.example/v1/projects/")


def test_pictures_in_results() -> None:
    """What a tool gives back is inlined for a Claude as well, in a client's own body too."""
    turns = (
        ("user", "Go"),
        ("assistant", "Ho"),
        ("user", Result("toolu_1", "f", parts=(Picture("https://p.example/a.png"),))),
    )
    for letter in ("AM", "OR"):
        given_ask = fetched(ask(letter, turns), CLAUDE)
        assert given_ask.fetched
        before = orjson.dumps(given_ask.tree)
        body = orjson.dumps(dialect(letter, CLAUDE).request(given_ask, target(CLAUDE)).body)
        assert b"p.example" not in body
        assert orjson.dumps(given_ask.tree) == before


def test_the_clients_body_is_not_changed() -> None:
    """Marks, betas and names are edits of a copy."""
    given_ask = ask("AM", HI, tree={"cache_control": {"type": "ephemeral"}, "anthropic_beta": ["a"], "stream": False})
    before = orjson.dumps(given_ask.tree)
    dialect("AM", CLAUDE).request(given_ask, target(CLAUDE))
    assert orjson.dumps(given_ask.tree) == before


def test_which_addresses_are_fetched() -> None:
    """None for Claude goes up; buckets and films stay with Google; open models reach pictures by themselves."""
    assert ADAPTER.by_bytes is not None

    def wanted(url: str, model: str) -> bool:
        given_ask = ask("OC", (("user", "What?", Picture(url)),))
        return fetched(given_ask, model).fetched

    assert [wanted("https://p.example/a.png", model) for model in MODELS] == [True, True, False]
    assert not wanted("gs://bucket/a.png", GEMINI)


def test_thinking_by_name() -> None:
    """A Claude's suffix is read as Anthropic's own host reads it; an open model's name is its name."""
    assert ADAPTER.suffixes is not None
    named = ADAPTER.suffixes("claude-sonnet-4-5@20250929-thinking-2048")
    assert named is not None
    assert (named.model, named.thinking.budget) == ("claude-sonnet-4-5@20250929", 2048)
    assert ADAPTER.suffixes("qwen/qwen3-high") is None


# Hostile answers.

GOLDEN = [one for one in golden.folders() if one.name.startswith("vertex/")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text("ab{", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "a"]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(MODELS))
def test_damaged_answers(data: st.DataObject, model: str) -> None:
    """Bytes of a real answer that were cut, doubled or changed raise nothing but failures, in every format."""
    raw = bytearray(data.draw(st.sampled_from(GOLDEN)).upstream)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["change", "cut", "double"])):
            case "change":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 40))]
                raw = raw or bytearray(b" ")
            case _:
                raw[at:at] = raw[at : at + 40]
    speaker, given_ask = dialect("OC", model), ask("OC", stream=True)
    decoder, reader = speaker.frames(), speaker.reader(given_ask)
    try:
        for found in [*decoder.feed(bytes(raw)), *decoder.close()]:
            list(reader.read(found))
        list(reader.close())
    except ProxyError:
        pass
    assert isinstance(speaker.failure(400, {}, bytes(raw)), ProxyError)


@settings(max_examples=60)
@given(JSON, st.sampled_from(MODELS), st.sampled_from([400, 401, 404, 429, 500]))
def test_odd_bodies(value: Any, model: str, status: int) -> None:
    """Whole answers and errors of any shape end in a finish or a failure; counts of any shape are no counts."""
    raw = orjson.dumps(value)
    speaker = dialect("OC", model)
    try:
        found = speaker.answer(ask("OC"), Document(raw))
        assert any(isinstance(one, (Finished, Failed)) for one in found)
    except ProxyError:
        pass
    assert speaker.failure(status, {}, raw).upstream_status == status
    assert ADAPTER.counting is not None
    assert ADAPTER.counting.tokens(raw) is None
