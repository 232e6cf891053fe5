"""Model lists: what `/v1/models` answers, in the shapes of OpenAI, Anthropic and Gemini.

Pure: names with their owners and uses in, bytes out. Source: relay-and-billing 1.2, 1.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from newapi_proxy.errors import ClientError
from newapi_proxy.ir.ask import Kind
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

Row = tuple[str, str, tuple[Kind, ...]]  # name, owner, and what it is for
Rows = Iterable[Row]
_CHAT: Final = ("openai", "openai-response", "anthropic", "gemini")  # New API's words for what a model may be asked by
_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "chat": _CHAT,
    "embeddings": ("embeddings",),
    "rerank": ("jina-rerank",),
    "images": ("image-generation",),
    "moderations": ("moderations",),
    "speech": ("audio-speech",),
    "transcription": ("audio-transcription",),
    "realtime": ("realtime",),
}
_METHODS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "chat": ("generateContent", "streamGenerateContent", "countTokens"),
    "embeddings": ("embedContent", "batchEmbedContents"),
}


def wants_anthropic(headers: Mapping[str, str]) -> bool:
    """Whether the caller is an Anthropic client: nobody else names a version so. Names in lower case.

    Its key says nothing: newer clients send it as a bearer token, older ones as x-api-key.
    """
    return "anthropic-version" in headers


def openai_list(rows: Rows) -> bytes:
    """All models; both `success` and `object`, since clients of either older service read their own."""
    data = [_openai(row) for row in rows]
    return tree.encode({"success": True, "object": "list", "data": data})


def openai_one(row: Row) -> bytes:
    """One model."""
    return tree.encode(_openai(row))


def anthropic_list(rows: Rows) -> bytes:
    """All models, on one page; an empty list has no first and no last id."""
    data = [_anthropic(row) for row in rows]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return tree.encode({"data": data, "first_id": first, "has_more": False, "last_id": last})


def anthropic_one(row: Row) -> bytes:
    """One model."""
    return tree.encode(_anthropic(row))


def gemini_list(rows: Rows) -> bytes:
    """All models, on one page."""
    return tree.encode({"models": [_gemini(row) for row in rows], "nextPageToken": None})


def gemini_one(row: Row) -> bytes:
    """One model."""
    return tree.encode(_gemini(row))


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


def _openai(row: Row) -> dict[str, Any]:
    name, owner, kinds = row
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": owner,
        "permission": [_PERMISSION],
        "root": name,
        "parent": None,
        "supported_endpoint_types": [word for kind in kinds for word in _TYPES[kind]],
    }


def _anthropic(row: Row) -> dict[str, Any]:
    return {"type": "model", "id": row[0], "display_name": row[0], "created_at": _CREATED_AT}


def _gemini(row: Row) -> dict[str, Any]:
    name, _, kinds = row
    methods = [word for kind in kinds for word in _METHODS.get(kind, ())]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}
