"""The formats that clients speak, by route."""

from __future__ import annotations

from typing import Final

from newapi_proxy.surfaces.anthropic import COUNT, MESSAGES
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.openai_chat import CHAT

SURFACES: Final[dict[str, Surface]] = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT,
}
