"""Providers that speak the OpenAI format: a base URL, a path and quirks each, and nothing more.

A row is data; the few functions at the top say what data cannot. Source: provider-translation B.8, relay-and-billing
7.6 and 10.1, interfaces 3.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from newapi_proxy.adapters._openai_draft import Draft, media, refuse_media
from newapi_proxy.adapters.base import Adapter, Options, Target, join
from newapi_proxy.adapters.openai import PATH, OpenAIChat, Quirks, below, compatible
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask

_SEEING: Final = re.compile(r"vl|vision|ocr|janus", re.I)
_XAI_REASONING: Final = re.compile(r"grok-(3-mini|4|code|[5-9])", re.I)
_XAI_EFFORT: Final = re.compile(r"grok-(3-mini|4[.-]5|[5-9])", re.I)
_XAI_ALWAYS: Final = re.compile(r"grok-4[.-]5", re.I)
_XAI_IMAGES: Final = ("image/jpeg", "image/jpg", "image/png", None)
_OTHER_IMAGE: Final = re.compile(r"\.(webp|gif|bmp|svg|tiff?)(\?|$)", re.I)


class CloudflareOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`account`: the account id that stands in the path; without it the base URL must hold it."""

    account: str = ""


def _cloudflare_url(to: Target) -> str:
    if not to.options.account:
        return join(to.base_url, PATH)
    return join(to.base_url, f"/client/v4/accounts/{to.options.account}/ai/v1/chat/completions")


def _volcengine_url(to: Target) -> str:
    kind = "bots/" if to.model.startswith("bot") else ""
    return join(to.base_url, f"/api/v3/{kind}chat/completions")


def _deepseek(draft: Draft, ask: Ask, to: Target) -> None:
    if not _SEEING.search(to.model):
        refuse_media(ask, ("image",), "This model cannot see images.")


def _openrouter(draft: Draft, ask: Ask, to: Target) -> None:
    """The effort has a place of its own there, beside other wishes for reasoning."""
    effort = draft.body.pop("reasoning_effort", None)
    if effort is not None:
        draft.body.setdefault("reasoning", {"effort": effort})


def _xai(draft: Draft, ask: Ask, to: Target) -> None:
    if _XAI_REASONING.match(to.model) and "non-reasoning" not in to.model:
        draft.drop("stop", "presence_penalty", "frequency_penalty")
    if not _XAI_EFFORT.match(to.model):
        draft.drop("reasoning_effort")
    elif draft.body.get("reasoning_effort") == "none" and _XAI_ALWAYS.match(to.model):
        draft.clamp("reasoning_effort", "low")
    for part in media(ask):
        if part.kind == "image" and (part.media_type not in _XAI_IMAGES or _OTHER_IMAGE.search(part.url or "")):
            raise Unsupported("Images must be JPEG or PNG here.", part.path, "unsupported_content")


_NARROW: Final = ("logit_bias", "metadata", "service_tier", "store")

DEEPSEEK: Final = compatible(
    "deepseek",
    numbers=(43,),
    base_url="https://api.deepseek.com",
    chat=OpenAIChat(
        quirks=Quirks(
            drops=("seed", "parallel_tool_calls", *_NARROW),
            refuses=("n",),
            developer=False,
            schema=False,
            replay="content",
            this_turn=True,
            top_k=False,
            effort="thinking",
        ),
        shape=_deepseek,
    ),
)
MOONSHOT: Final = compatible(
    "moonshot",
    numbers=(25,),
    base_url="https://api.moonshot.cn",
    chat=OpenAIChat(quirks=Quirks(developer=False, replay="content", top_k=False, effort="")),
)
OPENROUTER: Final = compatible(
    "openrouter",
    numbers=(20,),
    base_url="https://openrouter.ai/api",
    chat=OpenAIChat(
        quirks=Quirks(
            replay="details",
            cache_marks=True,
            effort="reasoning",
            headers={"x-title": "newapi_proxy"},
        ),
        shape=_openrouter,
    ),
)
GROQ: Final = compatible(
    "groq",
    base_url="https://api.groq.com/openai",
    chat=OpenAIChat(
        quirks=Quirks(drops=("logit_bias",), refuses=("n", "logprobs", "top_logprobs"), developer=False, top_k=False)
    ),
)
XAI: Final = compatible(
    "xai",
    numbers=(48,),
    base_url="https://api.x.ai",
    chat=OpenAIChat(quirks=Quirks(developer=False, top_k=False), shape=_xai),
)
PERPLEXITY: Final = compatible(
    "perplexity",
    numbers=(27,),
    base_url="https://api.perplexity.ai",
    chat=OpenAIChat(quirks=Quirks(developer=False, stream_usage=False, effort=""), url=below("/chat/completions")),
)
SILICONFLOW: Final = compatible(
    "siliconflow",
    numbers=(40,),
    base_url="https://api.siliconflow.cn",
    chat=OpenAIChat(quirks=Quirks(developer=False, replay="content", effort="")),
)
MINIMAX: Final = compatible(
    "minimax",
    numbers=(35,),
    base_url="https://api.minimax.chat",
    chat=OpenAIChat(quirks=Quirks(developer=False, effort=""), url=below("/v1/text/chatcompletion_v2")),
)
ALI: Final = compatible(
    "ali",
    numbers=(17,),
    base_url="https://dashscope.aliyuncs.com",
    chat=OpenAIChat(
        quirks=Quirks(developer=False, replay="content", effort=""), url=below("/compatible-mode/v1/chat/completions")
    ),
)
VOLCENGINE: Final = compatible(
    "volcengine",
    numbers=(45,),
    base_url="https://ark.cn-beijing.volces.com",
    chat=OpenAIChat(quirks=Quirks(developer=False, replay="content", effort="thinking"), url=_volcengine_url),
)
LINGYIWANWU: Final = compatible(
    "lingyiwanwu",
    numbers=(31,),
    base_url="https://api.lingyiwanwu.com",
    owner="01.ai",
    chat=OpenAIChat(
        quirks=Quirks(
            drops=("seed", "user", "frequency_penalty", "presence_penalty", "parallel_tool_calls", *_NARROW),
            refuses=("n", "logprobs", "top_logprobs"),
            developer=False,
            top_k=False,
            effort="",
        )
    ),
)
CLOUDFLARE: Final = msgspec.structs.replace(
    compatible(
        "cloudflare",
        numbers=(39,),
        base_url="https://api.cloudflare.com",
        chat=OpenAIChat(quirks=Quirks(developer=False, effort=""), url=_cloudflare_url),
    ),
    options=CloudflareOptions,
)

_PLAIN: Final = {  # a base URL is all that is different about them
    "together": "https://api.together.xyz",
    "fireworks": "https://api.fireworks.ai/inference",
    "cerebras": "https://api.cerebras.ai",
    "huggingface": "https://router.huggingface.co",
    "nvidia": "https://integrate.api.nvidia.com",
    "baichuan": "https://api.baichuan-ai.com",
    "stepfun": "https://api.stepfun.com",
}

PRESETS: Final[tuple[Adapter, ...]] = (
    DEEPSEEK,
    MOONSHOT,
    OPENROUTER,
    GROQ,
    XAI,
    PERPLEXITY,
    SILICONFLOW,
    MINIMAX,
    ALI,
    VOLCENGINE,
    LINGYIWANWU,
    CLOUDFLARE,
    *(compatible(name, base_url=base_url) for name, base_url in _PLAIN.items()),
)
"""Every preset, in the order of the documentation."""
