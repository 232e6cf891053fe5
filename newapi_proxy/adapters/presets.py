"""Providers that speak the OpenAI format: a base URL, a path and quirks each, and nothing more.

A row is data; the few functions at the top say what data cannot. Source: provider-translation B.8, relay-and-billing
7.6 and 10.1, interfaces 3.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._openai_draft import Draft, flatten, media, refuse_media
from newapi_proxy.adapters._openai_endpoints import Place, embeddings
from newapi_proxy.adapters._presets_cloudflare import TRANSCRIPTION, CloudflareOptions, RunChat, compatible_url
from newapi_proxy.adapters.base import Adapter, Dialect, Options, Target, join
from newapi_proxy.adapters.openai import PATH, OpenAIChat, Quirks, bearer, below, compatible
from newapi_proxy.errors import Unsupported
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.suffix import Named, by_effort, by_thinking

_SEEING: Final = re.compile(r"vl|vision|ocr|janus", re.I)
_XAI_REASONING: Final = re.compile(r"grok-(3-mini|4|code|[5-9])", re.I)
_XAI_EFFORT: Final = re.compile(r"grok-(3-mini|4[.-]5|[5-9])", re.I)
_XAI_ALWAYS: Final = re.compile(r"grok-4[.-]5", re.I)
_GROQ_SAID: Final = frozenset({"role", "content", "name", "reasoning", "tool_calls", "function_call"})
_GROQ_CALL: Final = frozenset({"id", "type", "function"})
_ROUTED: Final = re.compile(r"anthropic/claude-|openai/gpt-[5-9]")
_XAI_IMAGES: Final = ("image/jpeg", "image/jpg", "image/png", None)
_OTHER_IMAGE: Final = re.compile(r"\.(webp|gif|bmp|svg|tiff?)(\?|$)", re.I)
_SPARKS: Final = {  # what follows "SparkDesk-" or "Spark-" in the names that New API and One API had → the model's own
    "v1.1": "lite",
    "v3.1": "generalv3",
    "v3.1-128k": "pro-128k",
    "v3.5": "generalv3.5",
    "v3.5-32k": "max-32k",
    "v4.0": "4.0Ultra",
    "lite": "lite",
    "pro": "generalv3",
    "pro-128k": "pro-128k",
    "max": "generalv3.5",
    "max-32k": "max-32k",
    "4.0-ultra": "4.0Ultra",
}


def _volcengine_url(to: Target) -> str:
    kind = "bots/" if to.model.startswith("bot") else ""
    return join(to.base_url, f"/api/v3/{kind}chat/completions")


class LingyiwanwuOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`no_tools`: this channel's models take none, a request with tools is refused."""

    no_tools: bool = False


def _lingyiwanwu(draft: Draft, ask: Ask, to: Target) -> None:
    if to.options.no_tools:
        draft.refuse("tools", "functions")


def _flat(draft: Draft, ask: Ask, to: Target) -> None:
    """Lists of texts are refused there, whatever the channel says."""
    flatten(draft)


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


def _groq(draft: Draft, ask: Ask, to: Target) -> None:
    """Its servers refuse what they do not know in a message of the model's: thinking under our name, notes, seals."""
    for number, one in enumerate(draft.body.get("messages") or ()):
        if one.get("role") != "assistant":
            continue
        calls = one.get("tool_calls")
        odd = [name for name in one if name not in _GROQ_SAID]
        if not odd and not (type(calls) is list and any(not _GROQ_CALL.issuperset(call) for call in calls)):
            continue
        message = draft.messages()[number]
        for name in odd:
            if message.pop(name):
                draft.dropped.append(f"messages.{number}.{name}")
        if type(calls) is list:
            message["tool_calls"] = [{name: call[name] for name in call if name in _GROQ_CALL} for call in calls]


class SparkOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`version`: which one a model means that is called SparkDesk alone."""

    version: str = "v1.1"


def _spark(draft: Draft, ask: Ask, to: Target) -> None:
    """Texts alone; calls come as a list only where that is asked for; inherited names are its own under another."""
    refuse_media(ask, ("image", "file", "audio", "video"), "Spark's chat models take text only.")
    flatten(draft)
    if draft.body.get("tools"):
        draft.body["tool_calls_switch"] = True
    family, _, version = to.model.lower().partition("-")
    if family in ("sparkdesk", "spark"):
        draft.body["model"] = _SPARKS.get(version or to.options.version.lower(), to.model)


def _spark_inherited(row: Inherited) -> Meant:
    version = row.other or str(row.config.get("api_version") or "")
    return Meant(options={**row.options, **({"version": version} if version else {})})


def _spark_bearer(to: Target) -> dict[str, str]:
    """A password as it is; of APPID|APISecret|APIKey, the socket's credential, the last two in their other order."""
    parts = to.key.reveal().split("|")
    key = f"{parts[2]}:{parts[1]}" if len(parts) == 3 else parts[0]
    return {"authorization": f"Bearer {key}"}


def _xai_named(model: str) -> Named | None:
    """Only for models that take an effort at all."""
    found = by_effort(model)
    return found if found is not None and _XAI_EFFORT.match(found.model) else None


def _openrouter_named(model: str) -> Named | None:
    """Only for families whose own names never end so."""
    found = by_thinking(model) if model.startswith("anthropic/") else by_effort(model)
    return found if found is not None and _ROUTED.match(found.model) else None


_NARROW: Final = ("logit_bias", "metadata", "service_tier", "store")

DEEPSEEK: Final = msgspec.structs.replace(
    compatible(
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
    ),
    aliases=True,
)
"""Replays thinking within its turn alone, and answers under another model's name than it was asked for."""
MOONSHOT: Final = compatible(
    "moonshot",
    numbers=(25,),
    base_url="https://api.moonshot.cn",
    chat=OpenAIChat(quirks=Quirks(developer=False, replay="content", top_k=False, effort="")),
)
"""Usage stands inside the choice; thinking is its models' own affair."""
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
            web_search=True,
        ),
        shape=_openrouter,
    ),
    suffixes=_openrouter_named,
)
"""A router: thinking is replayed signed, cache marks pass, the wish for reasoning has an object of its own."""
GROQ: Final = compatible(
    "groq",
    base_url="https://api.groq.com/openai",
    chat=OpenAIChat(
        quirks=Quirks(drops=("logit_bias",), refuses=("n", "logprobs", "top_logprobs"), developer=False, top_k=False),
        shape=_groq,
    ),
)
"""Refuses what its servers cannot count: several answers, log probabilities."""
XAI: Final = compatible(
    "xai",
    numbers=(48,),
    base_url="https://api.x.ai",
    chat=OpenAIChat(quirks=Quirks(developer=False, top_k=False), shape=_xai),
    suffixes=_xai_named,
)
"""What a model takes hangs on its name, see `_xai`."""
PERPLEXITY: Final = compatible(
    "perplexity",
    numbers=(27,),
    base_url="https://api.perplexity.ai",
    chat=OpenAIChat(
        quirks=Quirks(developer=False, stream_usage=False, effort="", web_search=True), url=below("/chat/completions")
    ),
)
"""Its path has no version; sources come beside the answer."""
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
ALI: Final = msgspec.structs.replace(
    compatible(
        "ali",
        numbers=(17,),
        base_url="https://dashscope.aliyuncs.com",
        chat=OpenAIChat(
            quirks=Quirks(developer=False, replay="content", effort=""),
            url=below("/compatible-mode/v1/chat/completions"),
        ),
    ),
    inherited=lambda row: Meant(
        options=row.options,
        headers={"X-DashScope-Plugin": plugin} if (plugin := row.other or row.config.get("plugin")) else {},
    ),
)
VOLCENGINE: Final = compatible(
    "volcengine",
    numbers=(45,),
    base_url="https://ark.cn-beijing.volces.com",
    chat=OpenAIChat(quirks=Quirks(developer=False, replay="content", effort="thinking"), url=_volcengine_url),
)
LINGYIWANWU: Final = msgspec.structs.replace(
    compatible(
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
            ),
            shape=_lingyiwanwu,
        ),
    ),
    options=LingyiwanwuOptions,
)
"""01.AI: a narrow part of the format."""
BAIDU: Final = compatible(
    "baidu",
    numbers=(46,),
    base_url="https://qianfan.baidubce.com",
    chat=OpenAIChat(quirks=Quirks(developer=False, effort=""), url=below("/v2/chat/completions")),
)
_CLOUDFLARE: Final = OpenAIChat(quirks=Quirks(developer=False, effort=""), url=compatible_url(PATH), shape=_flat)


def _cloudflare(options: Any) -> tuple[Dialect, ...]:
    return (RunChat(inner=_CLOUDFLARE),) if options.api == "run" else (_CLOUDFLARE,)


CLOUDFLARE: Final = Adapter(
    name="cloudflare",
    numbers=(39,),
    base_url="https://api.cloudflare.com",
    options=CloudflareOptions,
    chat=(_CLOUDFLARE,),
    embeddings=embeddings(Place(url=compatible_url("/v1/embeddings"), auth=bearer), tokens=False),
    transcription=TRANSCRIPTION,
    tuned=_cloudflare,
    inherited=lambda row: Meant(options={**row.options, "account": row.other or str(row.config.get("user_id") or "")}),
    by_bytes=lambda medium, model: medium.kind != "video",
    owner="cloudflare",
)
"""Two interfaces; neither fetches what is named by URL."""
_SPARK: Final = msgspec.structs.replace(
    compatible(
        "spark",
        numbers=(18,),
        base_url="https://spark-api-open.xf-yun.com",
        chat=OpenAIChat(
            quirks=Quirks(
                drops=("seed", "stop", "parallel_tool_calls", *_NARROW),
                refuses=("n", "logprobs", "top_logprobs"),
                developer=False,
                stream_usage=False,
                schema=False,
                effort="",
            ),
            auth=_spark_bearer,
            shape=_spark,
        ),
    ),
    options=SparkOptions,
    inherited=_spark_inherited,
)
"""iFlytek: its streams tell usage unasked, in the last chunk."""
_HUNYUAN: Final = compatible(
    "hunyuan",
    base_url="https://api.hunyuan.cloud.tencent.com",
    chat=OpenAIChat(
        quirks=Quirks(
            drops=("frequency_penalty", "presence_penalty", *_NARROW),
            refuses=("n", "logprobs", "top_logprobs"),
            developer=False,
            effort="",
        )
    ),
)
"""Tencent. Another key than its signed interface has, which is why no number leads here."""
_AI360: Final = compatible(
    "ai360",
    numbers=(19,),
    base_url="https://api.360.cn",
    chat=OpenAIChat(quirks=Quirks(developer=False, effort="")),
)
_GITHUB: Final = compatible(
    "github", base_url="https://models.github.ai/inference", chat=OpenAIChat(url=below("/chat/completions"))
)
"""GitHub Models: its path has no version."""
_GEMINI_OPENAI: Final = compatible(
    "gemini-openai",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    chat=OpenAIChat(
        quirks=Quirks(drops=("frequency_penalty", *_NARROW), developer=False, top_k=False),
        url=below("/chat/completions"),
    ),
)
"""Gemini by OpenAI's format; fields that it does not know are errors there."""
_XINFERENCE: Final = msgspec.structs.replace(compatible("xinference", numbers=(47,)), key_required=False)
"""A server of one's own."""
_VERSIONED: Final = compatible("openai-compatible", chat=OpenAIChat(url=below("/chat/completions")))
"""Any server whose base URL is what clients are told to use, its version included."""

_PLAIN: Final = {  # a base URL is all that is different about them
    "together": "https://api.together.xyz",
    "fireworks": "https://api.fireworks.ai/inference",
    "cerebras": "https://api.cerebras.ai",
    "huggingface": "https://router.huggingface.co",
    "nvidia": "https://integrate.api.nvidia.com",
    "baichuan": "https://api.baichuan-ai.com",
    "stepfun": "https://api.stepfun.com",
    "sambanova": "https://api.sambanova.ai",
    "novita": "https://api.novita.ai/openai",
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
    BAIDU,
    _SPARK,
    _HUNYUAN,
    _AI360,
    _GITHUB,
    _GEMINI_OPENAI,
    _XINFERENCE,
    _VERSIONED,
    *(compatible(name, base_url=base_url) for name, base_url in _PLAIN.items()),
)
"""Every preset, in the order of the documentation."""
