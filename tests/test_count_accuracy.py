"""The local count against what providers reported: small requests that were made of them, and the prompt's tokens.

`prompt_tokens.jsonl` has one request a line, drawn from recorded traffic of public test suites under free licences,
without identifiers; what misses is in it too. `route` is the client's format, `body` lacks its model and what does not
bear on the prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from newapi_proxy.billing import count
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY

FILE: Final = Path(__file__).parent / "prompt_tokens.jsonl"
FACTS: Final = [orjson.loads(line) for line in FILE.read_bytes().splitlines()]
EMBEDDINGS: Final = "/v1/embeddings"
FORMULA: Final = ("gpt-3", "gpt-4", "gpt-5", "o1", "o3", "o4", "text-embedding", "davinci")


def counted(fact: dict[str, Any]) -> int:
    body, headers = dict(fact["body"]), {}
    if "{model}" in fact["route"]:
        headers = {PATH: fact["model"], QUERY: ""}
    else:
        body["model"] = fact["model"]
    return count.prompt(SURFACES[fact["route"]].read(orjson.dumps(body), headers))


def close(fact: dict[str, Any]) -> bool:
    """Within 2 %, or one token where that is more."""
    return abs(counted(fact) - fact["tokens"]) <= max(1, fact["tokens"] / 50)


def share(kinds: tuple[str, ...], *, formula: bool, route: str = "") -> tuple[int, int]:
    """How many of such facts are close, and how many there are."""
    chosen = [
        fact
        for fact in FACTS
        if fact["kind"] in kinds
        and fact["model"].startswith(FORMULA) == formula
        and (not route or fact["route"] == route)
    ]
    return sum(map(close, chosen)), len(chosen)


@pytest.mark.parametrize(
    ("kinds", "route", "misses"),
    [
        (("text",), "/v1/chat/completions", 1),
        (("tools", "tools+hist", "hist"), "/v1/chat/completions", 1),
        (("schema",), "/v1/chat/completions", 1),
        (("text",), "/v1/completions", 0),
        (("text",), EMBEDDINGS, 0),
        (("text",), "/v1/responses", 2),
        (("tools", "tools+hist"), "/v1/responses", 4),
    ],
)
def test_models_with_a_formula(kinds: tuple[str, ...], route: str, misses: int) -> None:
    """Chats of text and with tools are right but for one each; what a Responses server adds unseen is not."""
    good, of = share(kinds, formula=True, route=route)
    assert of >= 2
    assert good >= of - misses, f"{good} of {of}"


@pytest.mark.parametrize("kinds", [("text",), ("tools", "tools+hist")])
def test_models_without_one(kinds: tuple[str, ...]) -> None:
    """Makers whose tokenizer is not public, or whose template changes: seven of ten are close."""
    good, of = share(kinds, formula=False)
    assert good >= 0.7 * of, f"{good} of {of}"
