"""Channel numbers of the two database formats: what each means, and how those that are not served are called.

New API and One API share their numbers up to 25; above, they mean different things (relay-and-billing 7.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from newapi_proxy.adapters import ADAPTERS, BY_NUMBER

_ONE_API: Final[Mapping[int, tuple[str, str]]] = {  # where One API's meaning is another one
    2: ("openai", "https://oa.api2d.net"),
    4: ("openai", "https://api.closeai-proxy.xyz"),
    5: ("openai", "https://api.openai-sb.com"),
    8: ("openai", ""),
    26: ("baichuan", "https://api.baichuan-ai.com"),
    27: ("minimax", "https://api.minimax.chat"),
    28: ("mistral", "https://api.mistral.ai"),
    29: ("groq", "https://api.groq.com/openai"),
    30: ("ollama", "http://localhost:11434"),
    31: ("lingyiwanwu", "https://api.lingyiwanwu.com"),
    32: ("stepfun", "https://api.stepfun.com"),
    33: ("bedrock", ""),
    34: ("coze", "https://api.coze.com"),
    35: ("cohere", "https://api.cohere.ai"),
    36: ("deepseek", "https://api.deepseek.com"),
    37: ("cloudflare", "https://api.cloudflare.com"),
    39: ("together", "https://api.together.xyz"),
    40: ("volcengine", "https://ark.cn-beijing.volces.com"),
    41: ("novita", "https://api.novita.ai/openai"),
    42: ("vertex", ""),
    44: ("siliconflow", "https://api.siliconflow.cn"),
    45: ("xai", "https://api.x.ai"),
    47: ("baidu", "https://qianfan.baidubce.com"),
    48: ("spark", "https://spark-api-open.xf-yun.com"),
    49: ("ali", "https://dashscope.aliyuncs.com"),
    50: ("openai-compatible", ""),
    51: ("gemini-openai", "https://generativelanguage.googleapis.com/v1beta/openai"),
}
_SHARED: Final = 25  # the last number that both mean alike, but for those above
_NAMES: Final[Mapping[int, str]] = {  # how New API calls numbers, for people; served or not
    11: "PaLM",
    15: "Baidu Wenxin",
    21: "AIProxy library",
    23: "Tencent Hunyuan",
    44: "MokaAI",
    50: "Kling",
    51: "Jimeng",
    52: "Vidu",
    54: "Doubao video",
    55: "Sora",
    56: "Replicate",
    57: "Codex",
    58: "advanced custom",
}
_NAMES_ONE_API: Final[Mapping[int, str]] = {
    38: "DeepL",
    43: "Proxy",
    46: "Replicate",
}
_INSTEAD: Final[Mapping[int, str]] = {15: "baidu", 23: "hunyuan"}  # the maker's present interface; its keys are others


def kind(number: int, one_api: bool) -> tuple[str, str] | None:
    """The type's name and its default base URL; None for a number that no adapter here speaks for."""
    if not one_api:
        return BY_NUMBER.get(number)
    return _ONE_API.get(number) or (BY_NUMBER.get(number) if number <= _SHARED else None)


def called(number: int, one_api: bool) -> str:
    """The number with its name there, for people."""
    name = _NAMES_ONE_API.get(number) if one_api and number > _SHARED else _NAMES.get(number)
    return f"{number} ({name})" if name else str(number)


def instead(number: int) -> str | None:
    """The type that serves the same maker's models, by another key than such a channel has; alike in both formats."""
    return _INSTEAD.get(number)


def number(name: str, one_api: bool) -> int:
    """The number of a type, 0 where the format has none."""
    if one_api:
        theirs = (one for one, (meant, _) in _ONE_API.items() if meant == name)
        shared = (one for one in _own(name) if one <= _SHARED and one not in _ONE_API)
        return next(iter(shared), next(theirs, 0))
    return next(iter(_own(name)), 0)


def _own(name: str) -> tuple[int, ...]:
    adapter = ADAPTERS.get(name)
    return adapter.numbers if adapter is not None else ()
