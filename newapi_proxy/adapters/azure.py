"""Azure OpenAI: OpenAI's format behind deployments. Source: provider-translation B.7, interfaces 3."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from newapi_proxy.adapters._openai_draft import Draft
from newapi_proxy.adapters.base import Adapter, Options, Target, join
from newapi_proxy.adapters.openai import OpenAIChat, Quirks, file_urls
from newapi_proxy.ir.ask import Ask

USAGE_SINCE: Final = "2024-09-01"  # the first API version that takes stream_options


class AzureOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `api_version` the v1 route is used, where the model stands in the body."""

    api_version: str | None = None
    strip_dots: bool = False  # the inherited rule for deployment names, true for database rows
    bearer: bool = False  # the key is an Entra token
    strip_params: tuple[str, ...] = ()  # fields that this API version refuses


def _url(to: Target) -> str:
    if to.options.api_version is None:
        return join(to.base_url, "/openai/v1/chat/completions")
    deployment = to.model.replace(".", "") if to.options.strip_dots else to.model
    path = f"/openai/deployments/{quote(deployment, safe='')}/chat/completions"
    return f"{join(to.base_url, path)}?api-version={quote(to.options.api_version, safe='')}"


def _auth(to: Target) -> dict[str, str]:
    key = to.key.reveal()
    return {"authorization": f"Bearer {key}"} if to.options.bearer else {"api-key": key}


def _shape(draft: Draft, ask: Ask, to: Target) -> None:
    version = to.options.api_version
    if version is not None and version[: len(USAGE_SINCE)] < USAGE_SINCE:
        draft.body.pop("stream_options", None)
    draft.drop(*to.options.strip_params)


ADAPTER: Final = Adapter(
    name="azure",
    numbers=(3,),
    options=AzureOptions,
    chat=(OpenAIChat(quirks=Quirks(openai_models=True, top_k=False), url=_url, auth=_auth, shape=_shape),),
    by_bytes=file_urls,
    owner="azure",
)
