"""Model lists in each client's shape."""

from __future__ import annotations

import json

from newapi_proxy.surfaces import models
from newapi_proxy.surfaces.openai_chat import CHAT

ROWS = [("gpt-4o", "openai"), ("claude-opus-4-8", "claude")]


def test_the_list_serves_both_older_services_clients() -> None:
    """The envelope has `success` and `object`, each row what either service gave."""
    value = json.loads(models.openai_list(ROWS))
    assert (value["success"], value["object"]) == (True, "list")
    row = value["data"][1]
    assert row["id"] == row["root"] == "claude-opus-4-8"
    assert (row["object"], row["owned_by"], row["parent"], row["created"]) == ("model", "claude", None, 1626777600)
    assert row["permission"][0]["object"] == "model_permission"
    assert json.loads(models.openai_one(*ROWS[0])) == value["data"][0]


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
    assert (value["first_id"], value["last_id"], value["has_more"]) == ("gpt-4o", "claude-opus-4-8", False)
    assert value["data"][0] == {
        "type": "model",
        "id": "gpt-4o",
        "display_name": "gpt-4o",
        "created_at": "2021-07-20T10:40:00Z",
    }
    assert json.loads(models.anthropic_one("gpt-4o")) == value["data"][0]
    assert json.loads(models.anthropic_list([])) == {"data": [], "first_id": None, "has_more": False, "last_id": None}


def test_geminis_list() -> None:
    """Names stand below `models/`."""
    value = json.loads(models.gemini_list(ROWS))
    assert [row["name"] for row in value["models"]] == ["models/gpt-4o", "models/claude-opus-4-8"]
    assert json.loads(models.gemini_one("gpt-4o")) == value["models"][0]
