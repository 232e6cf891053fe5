"""Zhipu (Z.ai): the OpenAI format with signed keys, narrow sampling and error codes of its own; v3 stands beside it.

Source: provider-translation B.8; relay-and-billing 10.1 for the token.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal

from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._openai_draft import Draft, media
from newapi_proxy.adapters._openai_endpoints import Place, edited, embeddings, rerank
from newapi_proxy.adapters._openai_media import Site, images
from newapi_proxy.adapters._signing import hs256
from newapi_proxy.adapters._zhipu_failures import failed
from newapi_proxy.adapters._zhipu_v3 import V3Chat
from newapi_proxy.adapters.base import Adapter, Dialect, Options, Target, join
from newapi_proxy.adapters.openai import OpenAIChat, Quirks, file_urls
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask
from newapi_proxy.wire import tree

ROOT: Final = "/paas/v4"
LIFETIME: Final = 210  # seconds a token is valid
STEP: Final = 180  # tokens of one such span are equal, so that a cache on the other side sees one
MOST_IMAGES: Final = 5
_SIGNED: Final = re.compile(r"([^.\s]+)\.([^.\s]+)")


class ZhipuOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`api`: the generation of the interface; v3 knows text alone."""

    api: Literal["v4", "v3"] = "v4"


def _at(path: str) -> Callable[[Target], str]:
    """The address of an endpoint of the fourth generation."""

    def url(to: Target) -> str:
        base = to.base_url.rstrip("/")
        return base + path if base.endswith(ROOT) else join(base, f"/api{ROOT}{path}")

    return url


def _auth(to: Target) -> dict[str, str]:
    """A signed token for a key of the form `id.secret`, else the key itself."""
    key = to.key.reveal()
    pair = _SIGNED.fullmatch(key)
    if pair is None:
        return {"authorization": f"Bearer {key}"} if key else {}
    at = to.now - to.now % STEP
    claims = {"api_key": pair[1], "exp": (at + LIFETIME) * 1000, "timestamp": at * 1000}
    return {"authorization": f"Bearer {hs256({'sign_type': 'SIGN'}, claims, pair[2])}"}


def _shape(draft: Draft, ask: Ask, to: Target) -> None:
    body = draft.body
    _sampling(draft)
    stop = body.get("stop")
    if isinstance(stop, list) and len(stop) > 1:
        draft.clamp("stop", stop[:1])
    elif isinstance(stop, str):
        body["stop"] = [stop]
    _choice(draft)
    user = body.get("user")
    if isinstance(user, str) and not 6 <= len(user) <= 128:
        draft.drop("user")
    draft.rename({"user": "user_id", "max_completion_tokens": "max_tokens"})
    if body.get("reasoning_effort") == "none":
        body.setdefault("thinking", {"type": "disabled"})
    if all(isinstance(one, dict) and one.get("role") == "system" for one in body.get("messages") or ()):
        draft.messages()[-1]["role"] = "user"  # a system message may not be the only one
    images = [part for part in media(ask) if part.kind == "image"]
    if len(images) > MOST_IMAGES:
        raise Unsupported(f"At most {MOST_IMAGES} images can be sent.", images[MOST_IMAGES].path, "unsupported_content")
    if images and "4v" in to.model.lower():
        draft.each(_bare_images, lambda one: isinstance(one.get("content"), list))


def _sampling(draft: Draft) -> None:
    """The temperature is an open interval here: 0 means no sampling, 1 the value just below."""
    temperature = draft.body.get("temperature")
    if isinstance(temperature, (int, float)):
        if temperature <= 0:
            draft.body["do_sample"] = False
            del draft.body["temperature"]
        elif temperature >= 1:
            draft.body["temperature"] = 0.99
            if temperature > 1:
                draft.dropped.append("temperature~")
    top_p = draft.body.get("top_p")
    if isinstance(top_p, (int, float)) and not 0.01 <= top_p <= 0.99:
        draft.body["top_p"] = min(max(top_p, 0.01), 0.99)


def _choice(draft: Draft) -> None:
    """Only `auto` is known: `none` leaves the tools out, a named one leaves the others out."""
    choice = draft.body.get("tool_choice")
    if choice in (None, "auto"):
        return
    del draft.body["tool_choice"]
    if choice == "none":
        draft.body.pop("tools", None)
        return
    draft.dropped.append("tool_choice~")
    named = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(named, dict):
        tools = draft.body.get("tools") or []
        draft.body["tools"] = [tool for tool in tools if tree.find(tool, "function.name") == named.get("name")]


def _bare_images(message: dict[str, Any]) -> None:
    """GLM-4V wants the bytes without the data URL's head."""
    parts = []
    for part in message["content"]:
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url.startswith("data:"):
            rest = image if isinstance(image, dict) else {}
            part = {**part, "image_url": {**rest, "url": url.partition(",")[2]}}
        parts.append(part)
    message["content"] = parts


def _chat(options: Any) -> tuple[Dialect, ...]:
    return (V3Chat(auth=_auth),) if options.api == "v3" else _V4


QUIRKS: Final = Quirks(
    drops=(
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "seed",
        "metadata",
        "store",
        "service_tier",
        "parallel_tool_calls",
        "prediction",
        "verbosity",
    ),
    refuses=("n", "logprobs", "top_logprobs", "audio"),
    developer=False,
    replay="content",
    top_k=False,
    effort="thinking",
)

_V4: Final[tuple[Dialect, ...]] = (
    OpenAIChat(quirks=QUIRKS, url=_at("/chat/completions"), auth=_auth, shape=_shape, failed=failed),
)


def _inherited(row: Inherited) -> Meant:
    """New API's number 16 is the older interface; One API's 16 speaks the newer one too."""
    older = row.number == 16 and not row.one_api
    return Meant(options={**row.options, "api": "v3" if older else "v4"})


ADAPTER: Final = Adapter(
    name="zhipu",
    numbers=(26, 16),
    base_url="https://open.bigmodel.cn",
    options=ZhipuOptions,
    chat=_V4,
    embeddings=embeddings(
        Place(url=_at("/embeddings"), auth=_auth, failed=failed),
        edited({"encoding_format": ""}, ("user",)),
        tokens=False,
    ),
    rerank=rerank(Place(url=_at("/rerank"), auth=_auth, failed=failed)),
    images=images(Site(at=lambda to, path: _at(f"/{path}")(to), auth=_auth, failed=failed)),
    tuned=_chat,
    by_bytes=file_urls,
    inherited=_inherited,
    owner="zhipu",
)
