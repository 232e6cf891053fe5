"""Azure OpenAI: OpenAI's format behind deployments. Source: provider-translation B.7, interfaces 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._openai_completions import CHAT_ONLY, Completions
from newapi_proxy.adapters._openai_draft import Draft
from newapi_proxy.adapters._openai_endpoints import Place, edited, embeddings
from newapi_proxy.adapters._openai_media import Site, images, speech, transcription
from newapi_proxy.adapters._openai_models import named
from newapi_proxy.adapters._openai_realtime import realtime
from newapi_proxy.adapters._openai_responses import OPENS, OpenAIResponses, compaction
from newapi_proxy.adapters.base import Adapter, Headers, Options, Target, join
from newapi_proxy.adapters.openai import OpenAIChat, Quirks, file_urls
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask

USAGE_SINCE: Final = "2024-09-01"  # the first API version that takes stream_options
_ROW_VERSION: Final = "2024-12-01-preview"  # New API's own, for rows that name none


class AzureOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `api_version` the v1 route is used, where the model stands in the body."""

    api_version: str | None = None
    strip_dots: bool = False  # the inherited rule for deployment names, true for database rows
    bearer: bool = False  # the key is an Entra token
    strip_params: tuple[str, ...] = ()  # fields that this API version refuses


def _at(path: str) -> Callable[[Target], str]:
    """The address of an endpoint: on the v1 route, or below the model's deployment."""

    def url(to: Target) -> str:
        if to.options.api_version is None:
            return join(to.base_url, f"/openai/v1/{path}")
        deployment = to.model.replace(".", "") if to.options.strip_dots else to.model
        below = f"/openai/deployments/{quote(deployment, safe='')}/{path}"
        return f"{join(to.base_url, below)}?api-version={quote(to.options.api_version, safe='')}"

    return url


def _auth(to: Target) -> dict[str, str]:
    key = to.key.reveal()
    return {"authorization": f"Bearer {key}"} if to.options.bearer else {"api-key": key}


def _shape(draft: Draft, ask: Ask, to: Target) -> None:
    version = to.options.api_version
    if version is not None and version[: len(USAGE_SINCE)] < USAGE_SINCE:
        draft.body.pop("stream_options", None)
    draft.drop(*to.options.strip_params)


def _deployed(draft: Draft, ask: Ask, to: Target) -> None:
    """On the v1 route the deployment's name stands in the body."""
    if to.options.strip_dots:
        draft.body["model"] = to.model.replace(".", "")
    draft.drop(*to.options.strip_params)


def _failed(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    """A deployment that is not there is a model that is not there."""
    said = _failures.said(body)
    if said is not None and said.code == "DeploymentNotFound":
        said = msgspec.structs.replace(said, code="model_not_found")
    return _failures.normalise(status, said, headers, body)


def _inherited(row: Inherited) -> Meant:
    """Rows hold an API version, and deployments whose names lost their dots (relay-and-billing 4.12, 10.1)."""
    version = row.other or row.config.get("api_version") or row.options.get("api_version") or _ROW_VERSION
    return Meant(options={**row.options, "api_version": str(version), "strip_dots": True})


_CHAT: Final = OpenAIChat(
    quirks=Quirks(openai_models=True, top_k=False),
    url=_at("chat/completions"),
    auth=_auth,
    shape=_shape,
    failed=_failed,
)

_RESPONSES: Final = OpenAIResponses(
    url=lambda to: join(to.base_url, "/openai/v1/responses"),
    auth=_auth,
    openai_models=True,
    shape=_deployed,
    failed=_failed,
)

_PROMPTS: Final = Completions(
    url=_at("completions"), auth=_auth, stream_usage=False, chat_only=CHAT_ONLY, failed=_failed
)


def _named(ask: Ask, to: Target) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The client's own body; on the v1 route the deployment's name stands in it."""
    body, dropped = edited({}, to.options.strip_params)(ask, to)
    if to.options.strip_dots:
        body["model"] = to.model.replace(".", "")
    return body, dropped


_MEDIA: Final = Site(
    at=lambda to, path: _at(path)(to),
    auth=_auth,
    failed=_failed,
    model=lambda to: to.model.replace(".", "") if to.options.strip_dots else to.model,
)


def _session(to: Target) -> str:
    """Sessions stand beside the deployments, which the query names."""
    name = quote(to.model.replace(".", "") if to.options.strip_dots else to.model, safe="")
    if to.options.api_version is None:
        return f"{join(to.base_url, '/openai/v1/realtime')}?model={name}"
    version = quote(to.options.api_version, safe="")
    return f"{join(to.base_url, '/openai/realtime')}?api-version={version}&deployment={name}"


ADAPTER: Final = Adapter(
    name="azure",
    numbers=(3,),
    options=AzureOptions,
    chat=(_CHAT, _RESPONSES, _PROMPTS),
    compaction=compaction(_RESPONSES),
    embeddings=embeddings(Place(url=_at("embeddings"), auth=_auth, failed=_failed), _named, packs=True),
    images=images(_MEDIA),
    speech=speech(_MEDIA),
    transcription=transcription(_MEDIA),
    realtime=realtime(_session, _auth, keyed=False, failed=_failed),
    by_bytes=file_urls,
    opens=OPENS,
    suffixes=named,
    inherited=_inherited,
    owner="azure",
)
