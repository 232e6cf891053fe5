"""What a model is for, as far as its name and its provider's endpoints tell: for lists of models, nothing else.

Source: relay-and-billing 1.6 (`supported_endpoint_types`).
"""

from __future__ import annotations

import re
from typing import Final

from newapi_proxy.adapters.base import Adapter
from newapi_proxy.ir.ask import Kind

_NAMED: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("realtime", re.compile(r"realtime", re.I)),
    ("rerank", re.compile(r"rerank", re.I)),
    ("embeddings", re.compile(r"embed|(^|/)(bge|gte|e5|m3e)-", re.I)),
    ("moderations", re.compile(r"moderation", re.I)),
    ("transcription", re.compile(r"whisper|transcri", re.I)),
    ("speech", re.compile(r"(^|[-/])tts", re.I)),
    ("images", re.compile(r"dall-e|gpt-image|imagen|cogview|flux|stable-diffusion", re.I)),
)


def kinds(adapter: Adapter, model: str) -> tuple[Kind, ...]:
    """What a provider's model is for: as its name says, else chat, else whatever the provider has. For model lists."""
    for kind, pattern in _NAMED:
        if getattr(adapter, kind) is not None and pattern.search(model):
            return (kind,)
    if adapter.chat:
        return ("chat",)
    return tuple(kind for kind, _ in _NAMED if getattr(adapter, kind) is not None)
