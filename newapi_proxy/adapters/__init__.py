"""Which providers there are: type names to records, and New API's channel numbers to both.

A new provider is a file beside this one, an import and a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from newapi_proxy.adapters import (
    anthropic,
    azure,
    bedrock,
    cohere,
    coze,
    custom,
    dify,
    echo,
    gemini,
    jina,
    midjourney,
    mistral,
    ollama,
    openai,
    presets,
    suno,
    tei,
    vertex,
    voyage,
    zhipu,
)
from newapi_proxy.adapters.base import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = {
    "openai": openai.ADAPTER,
    "azure": azure.ADAPTER,
    "anthropic": anthropic.ADAPTER,
    "mistral": mistral.ADAPTER,
    "zhipu": zhipu.ADAPTER,
    "bedrock": bedrock.ADAPTER,
    "ollama": ollama.ADAPTER,
    "cohere": cohere.ADAPTER,
    "coze": coze.ADAPTER,
    "custom": custom.ADAPTER,
    "dify": dify.ADAPTER,
    "vertex": vertex.ADAPTER,
    "echo": echo.ADAPTER,
    "gemini": gemini.ADAPTER,
    "jina": jina.ADAPTER,
    "voyage": voyage.ADAPTER,
    "tei": tei.ADAPTER,
    "midjourney": midjourney.ADAPTER,
    "midjourney-plus": midjourney.PLUS,
    "suno": suno.ADAPTER,
    **{preset.name: preset for preset in presets.PRESETS},
}
"""The providers that this version serves."""

_RESELLERS: Final[Mapping[int, str]] = {  # numbers whose channels are plain servers of the OpenAI format
    6: "https://api.openaimax.com",
    7: "https://api.ohmygpt.com",
    9: "https://api.caipacity.com",
    10: "https://api.aiproxy.io",
    12: "https://api.api2gpt.com",
    13: "https://api.aigc2d.com",
    22: "https://fastgpt.run/api/openapi",
    53: "https://llm.submodel.ai",
}

BY_NUMBER: Final[Mapping[int, tuple[str, str]]] = {
    **{number: (adapter.name, adapter.base_url) for adapter in ADAPTERS.values() for number in adapter.numbers},
    **{number: ("openai", base_url) for number, base_url in _RESELLERS.items()},
}
"""New API's channel numbers (relay-and-billing 7.6): type name, served or not, and default base URL."""
