"""A generateContent request in the making: its body, what had to be left out of it, how the host differs. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from newapi_proxy.adapters._gemini_models import Traits

Tree = dict[str, Any]

DIALECT: Final = "gemini"
INLINE: Final = 20 * 1024 * 1024  # characters of base64 in one request (B.2)


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """How a host of this format differs; the defaults are AI Studio.

    `name`: in messages. `call_ids`: calls and results carry ids. `addresses`: takes any http and gs:// address as
    fileData. `labels`: takes `labels`, made of `metadata`. `tiers`: takes `serviceTier`. `invocations`: takes
    `toolConfig.includeServerSideToolInvocations`. `logprobs`: gives log probabilities. `inline`: base64 in one request.
    """

    name: str = "Gemini"
    call_ids: bool = True
    addresses: bool = False
    labels: bool = False
    tiers: bool = True
    invocations: bool = True
    inline: int = INLINE


class Draft:
    """The body, the dotted paths that were dropped (clamped ones end in "~"), and headers beside the usual ones."""

    __slots__ = ("body", "dropped", "headers", "quirks", "traits")

    def __init__(self, traits: Traits, quirks: Quirks) -> None:
        self.body: Tree = {}
        self.dropped: list[str] = []
        self.headers: dict[str, str] = {}
        self.quirks = quirks
        self.traits = traits

    def listed(self) -> tuple[str, ...]:
        """The dropped paths: each once, in alphabetical order."""
        return tuple(sorted(set(self.dropped)))
