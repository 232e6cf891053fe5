"""What models on Bedrock take, as data, and the names they go by there. Sends nothing.

A model stands under many names: plain (`anthropic.claude-…-v1:0`), behind a prefix of regions (`us.`, `global.`), in an
ARN, or under its maker's own name, which is looked up here. Source: provider-translation B.6.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.adapters import _anthropic_models as claude

Thinking = Literal["claude", "effort", "levels", "nova", "none"]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One model's abilities on Converse. `maker` is "" where the name does not tell it (an application profile's ARN).

    `system`: takes a system prompt. `forcing`: which tool choices it knows beside auto. `alone`: tool results stand in
    a turn of their own. `schemas`: takes JSON schemas and strict tools. `caching`: where cache points may stand;
    `hours`: they may live for an hour. `top_k`: where it goes. `thinking`: how it is asked for. `films`: takes films.
    `buckets`: takes media from S3. `signed`: takes its own signed thinking back. `grounding`: has a web search.
    """

    maker: str = ""
    system: bool = True
    forcing: frozenset[str] = frozenset({"required", "named"})
    alone: bool = False
    schemas: bool = False
    caching: frozenset[str] = frozenset()
    hours: bool = False
    top_k: Literal["plain", "nested", ""] = ""
    thinking: Thinking = "none"
    films: bool = False
    buckets: bool = False
    signed: bool = False
    grounding: bool = False


_MAKER: Final = re.compile(
    r"(?:^|[./:])(anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|google|minimax|moonshot|moonshotai"
    r"|nvidia|writer|zai|stability|twelvelabs|luma)\."
)
_AREA: Final = re.compile(r"^(?:us|eu|apac|jp|au|ca|sa|us-gov|global)\.(?=[a-z0-9]+\.)")
_AUTO: Final[frozenset[str]] = frozenset()
_EVERYWHERE: Final = frozenset({"system", "messages", "tools"})

# What is true of a maker's models, then of those whose name holds a text; later rows add to earlier ones.
_ROWS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("anthropic", "", {"top_k": "plain", "thinking": "claude", "signed": True}),
    ("amazon", "titan", {"system": False, "forcing": _AUTO}),
    ("amazon", "nova", {"caching": frozenset({"system", "messages"}), "top_k": "nested", "buckets": True}),
    ("amazon", "nova-lite", {"films": True}),
    ("amazon", "nova-pro", {"films": True}),
    ("amazon", "nova-premier", {"films": True, "grounding": True}),
    ("amazon", "nova-2", {"films": True, "thinking": "nova", "grounding": True}),
    ("meta", "", {"forcing": _AUTO, "alone": True}),
    ("mistral", "", {"forcing": frozenset({"required"}), "alone": True}),
    ("mistral", "mistral-7b", {"system": False}),
    ("mistral", "mixtral", {"system": False}),
    ("mistral", "ministral", {"schemas": True}),
    ("mistral", "magistral", {"schemas": True}),
    ("mistral", "voxtral", {"schemas": True}),
    ("mistral", "mistral-large-3", {"schemas": True}),
    ("cohere", "", {"forcing": _AUTO}),
    ("cohere", "command-text", {"system": False}),
    ("cohere", "command-light", {"system": False}),
    ("ai21", "", {"forcing": _AUTO}),
    ("ai21", "j2", {"system": False}),
    ("writer", "", {"alone": True}),
    ("deepseek", "v3", {"schemas": True}),
    ("openai", "", {"schemas": True, "thinking": "effort"}),
    ("qwen", "", {"schemas": True, "thinking": "levels"}),
    ("google", "", {"schemas": True}),
    ("minimax", "", {"schemas": True}),
    ("moonshot", "", {"schemas": True}),
    ("moonshotai", "", {"schemas": True}),
    ("nvidia", "", {"schemas": True}),
)

# Claude by Anthropic's names: the id's tail, and the areas whose cross-region profiles hold the model. One without
# areas is called where it stands; the rest of the family is found by the pattern below.
_TAILS: Final = {
    "claude-instant-1.2": ("claude-instant-v1", ()),
    "claude-2.0": ("claude-v2", ()),
    "claude-2.1": ("claude-v2:1", ()),
    "claude-3-opus-20240229": ("claude-3-opus-20240229-v1:0", ("us",)),
    "claude-3-sonnet-20240229": ("claude-3-sonnet-20240229-v1:0", ("us", "eu", "apac")),
    "claude-3-haiku-20240307": ("claude-3-haiku-20240307-v1:0", ("us", "eu", "apac")),
    "claude-3-5-sonnet-20240620": ("claude-3-5-sonnet-20240620-v1:0", ("us", "eu", "apac")),
    "claude-3-5-sonnet-20241022": ("claude-3-5-sonnet-20241022-v2:0", ("us", "apac")),
    "claude-3-5-haiku-20241022": ("claude-3-5-haiku-20241022-v1:0", ("us",)),
}
# Betas of Anthropic's own host; here they are unknown, and an unknown beta is a 400.
_ELSEWHERE: Final = (
    *("advisor", "claude-code", "code-execution", "files-api", "mcp-client", "oauth", "prompt-caching", "skills"),
    *("web-fetch", "web-search"),
)
_DATED: Final = re.compile(r"claude-[a-z0-9-]+-20\d{6}")
_AREAS: Final = {"us": "us", "ca": "us", "eu": "eu", "ap": "apac"}


@functools.lru_cache(maxsize=1024)
def traits(model: str) -> Traits:
    """What is known of a model by its name."""
    name = model.lower()
    found = _MAKER.search(name)
    maker = found[1] if found else "anthropic" if "claude" in name else ""
    facts: dict[str, Any] = {}
    for owner, text, more in _ROWS:
        if owner == maker and text in name:
            facts.update(more)
    if maker == "anthropic":
        known = claude.traits(name)
        facts["schemas"] = known.structured
        facts["hours"] = known.structured and "opus-4-1" not in name
        facts["caching"] = _EVERYWHERE if known.thinking != "none" or "3-5-haiku" in name else frozenset()
    return Traits(maker=maker, **facts)


def model_id(model: str, region: str) -> str:
    """The id to call in this region: names of Anthropic's own become ids, everything else is one already."""
    if model in _TAILS:
        tail, areas = _TAILS[model]
    elif _DATED.fullmatch(model):
        tail, areas = f"{model}-v1:0", tuple(_AREAS.values())
    else:
        return model
    area = _AREAS.get(region.partition("-")[0], "") if not region.startswith("us-gov") else ""
    return f"{area}.anthropic.{tail}" if area in areas else f"anthropic.{tail}"


def placeless(model: str) -> str:
    """The id without its prefix of regions: token counting knows models, not profiles."""
    return _AREA.sub("", model)


def known_betas(names: Sequence[str]) -> list[str]:
    """Without those of Anthropic's own host, which are a 400 here."""
    return [name for name in names if not name.startswith(_ELSEWHERE)]
