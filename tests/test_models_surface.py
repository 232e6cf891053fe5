"""Model lists in each client's shape."""

from __future__ import annotations

import json

import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters._uses import kinds
from newapi_proxy.surfaces import models
from newapi_proxy.surfaces.openai_chat import CHAT

ROWS: list[models.Row] = [
    ("gpt-4o", "openai", ("chat",)),
    ("claude-opus-4-8", "claude", ("chat",)),
    ("embed-v4", "cohere", ("embeddings", "rerank")),
]


def test_the_list_serves_both_older_services_clients() -> None:
    """The envelope has `success` and `object`, each row what either service gave."""
    value = json.loads(models.openai_list(ROWS))
    assert (value["success"], value["object"]) == (True, "list")
    row = value["data"][1]
    assert row["id"] == row["root"] == "claude-opus-4-8"
    assert (row["object"], row["owned_by"], row["parent"], row["created"]) == ("model", "claude", None, 1626777600)
    assert row["permission"][0]["object"] == "model_permission"
    assert row["supported_endpoint_types"] == ["openai", "openai-response", "anthropic", "gemini"]
    assert value["data"][2]["supported_endpoint_types"] == ["embeddings", "jina-rerank"]
    assert json.loads(models.openai_one(ROWS[0])) == value["data"][0]


def test_an_unknown_model_is_a_404() -> None:
    """A model that the caller does not reach is model_not_found with status 404."""
    error = models.missing("nope")
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert json.loads(CHAT.failure(error, "r"))["error"]["type"] == "invalid_request_error"


def test_anthropics_list() -> None:
    """The version header asks for it, wherever the key is; an empty list is a list."""
    assert models.wants_anthropic({"x-api-key": "k", "anthropic-version": "2023-06-01"})
    assert models.wants_anthropic({"authorization": "Bearer k", "anthropic-version": "2023-06-01"})
    assert not models.wants_anthropic({"x-api-key": "k"})
    value = json.loads(models.anthropic_list(ROWS))
    assert (value["first_id"], value["last_id"], value["has_more"]) == ("gpt-4o", "embed-v4", False)
    assert value["data"][0] == {
        "type": "model",
        "id": "gpt-4o",
        "display_name": "gpt-4o",
        "created_at": "2021-07-20T10:40:00Z",
    }
    assert json.loads(models.anthropic_one(ROWS[0])) == value["data"][0]
    assert json.loads(models.anthropic_list([])) == {"data": [], "first_id": None, "has_more": False, "last_id": None}


def test_geminis_list() -> None:
    """Names stand below `models/`."""
    value = json.loads(models.gemini_list(ROWS))
    assert [row["name"] for row in value["models"]] == ["models/gpt-4o", "models/claude-opus-4-8", "models/embed-v4"]
    assert value["models"][2]["supportedGenerationMethods"] == ["embedContent", "batchEmbedContents"]
    assert json.loads(models.gemini_one(ROWS[0])) == value["models"][0]


@pytest.mark.parametrize(
    ("type_", "model", "uses"),
    [
        ("openai", "gpt-4o", ("chat",)),
        ("openai", "text-embedding-3-small", ("embeddings",)),
        ("openai", "omni-moderation-latest", ("moderations",)),
        ("openai", "BAAI/bge-reranker-v2-m3", ("rerank",)),
        ("openai", "BAAI/bge-m3", ("embeddings",)),
        ("anthropic", "claude-embed", ("chat",)),
        ("jina", "jina-reranker-v2", ("rerank",)),
        ("jina", "jina-clip-v1", ("rerank", "embeddings")),
    ],
)
def test_what_a_model_is_for(type_: str, model: str, uses: tuple[str, ...]) -> None:
    """As its name says where the provider has that, else a chat, else whatever the provider has."""
    assert kinds(ADAPTERS[type_], model) == uses
