"""Model lists: what `/v1/models` answers, in the shapes of OpenAI, Anthropic and Gemini.

Pure: names with their owners in, bytes out. Source: relay-and-billing 1.2, 1.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from newapi_proxy.errors import ClientError
from newapi_proxy.wire import tree

CREATED: Final = 1626777600  # the same for every model, as the inherited service has it
_CREATED_AT: Final = "2021-07-20T10:40:00Z"
_PERMISSION: Final = {
    "id": "modelperm-LwHkVFn8AcMItP432fKKDIKJ",
    "object": "model_permission",
    "created": CREATED,
    "allow_create_engine": True,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}

Rows = Iterable[tuple[str, str]]  # name and owner


def wants_anthropic(headers: Mapping[str, str]) -> bool:
    """Whether the caller is an Anthropic client: nobody else names a version so. Names in lower case.

    Its key says nothing: newer clients send it as a bearer token, older ones as x-api-key.
    """
    return "anthropic-version" in headers


def openai_list(rows: Rows) -> bytes:
    """All models; both `success` and `object`, since clients of either older service read their own."""
    data = [_openai(name, owner) for name, owner in rows]
    return tree.encode({"success": True, "object": "list", "data": data})


def openai_one(name: str, owner: str) -> bytes:
    """One model."""
    return tree.encode(_openai(name, owner))


def anthropic_list(rows: Rows) -> bytes:
    """All models, on one page; an empty list has no first and no last id."""
    data = [_anthropic(name) for name, _ in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return tree.encode({"data": data, "first_id": first, "has_more": False, "last_id": last})


def anthropic_one(name: str) -> bytes:
    """One model."""
    return tree.encode(_anthropic(name))


def gemini_list(rows: Rows) -> bytes:
    """All models, on one page."""
    return tree.encode({"models": [_gemini(name) for name, _ in rows], "nextPageToken": None})


def gemini_one(name: str) -> bytes:
    """One model."""
    return tree.encode(_gemini(name))


def missing(name: str) -> ClientError:
    """The error for a model that the caller does not reach."""
    return ClientError(
        f"The model '{name}' does not exist",
        status=404,
        kind="not_found",
        type="invalid_request_error",
        code="model_not_found",
        param="model",
    )


def _openai(name: str, owner: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": owner,
        "permission": [_PERMISSION],
        "root": name,
        "parent": None,
    }


def _anthropic(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT}


def _gemini(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }
