"""A full call URL of the operator's own, `{model}` in it replaced; the rest is the OpenAI format.

Source: provider-translation B.8, interfaces 3.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from newapi_proxy.adapters.base import Adapter, Options, Target
from newapi_proxy.adapters.openai import OpenAIChat, file_urls

_BEARER: Final = "authorization"


class CustomOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`header`: where the key goes; another one than Authorization gets the bare key."""

    header: str = "Authorization"


def _url(to: Target) -> str:
    return to.base_url.replace("{model}", quote(to.model, safe=""))


def _auth(to: Target) -> dict[str, str]:
    if not to.key:
        return {}
    name: str = to.options.header.lower()
    return {name: f"Bearer {to.key.reveal()}" if name == _BEARER else to.key.reveal()}


ADAPTER: Final = Adapter(
    name="custom",
    numbers=(8,),
    key_required=False,
    options=CustomOptions,
    chat=(OpenAIChat(url=_url, auth=_auth),),
    by_bytes=file_urls,
    owner="custom",
)
