"""Whatever clients and providers send on other endpoints than chat: an answer or a declared error, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Adapter, Endpoint, Target
from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Failed
from newapi_proxy.ir.usage import Usage
from newapi_proxy.relay.batches import joined
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.base import PATH, Face
from newapi_proxy.surfaces.compaction import COMPACTION
from newapi_proxy.surfaces.embeddings import EMBEDDINGS
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.surfaces.gemini_embeddings import EMBEDDINGS as GEMINI
from newapi_proxy.surfaces.moderations import MODERATIONS
from newapi_proxy.surfaces.rerank import RERANK
from newapi_proxy.wire.tree import Document

FACE: Final = Face(model="asked", id="r", created=1, rename=True)
SURFACES: Final = {
    "openai": EMBEDDINGS,
    "google": GEMINI,
    "rerank": RERANK,
    "moderations": MODERATIONS,
    "compaction": COMPACTION,
}
BODIES: Final[Mapping[str, Any]] = {
    "openai": {"model": "m", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64", "user": "u"},
    "google": {"requests": [{"content": {"parts": [{"text": "a"}]}, "taskType": "X", "outputDimensionality": 3}] * 2},
    "rerank": {"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True},
    "moderations": {"model": "m", "input": ["a", {"type": "text", "text": "b"}]},
    "compaction": {"model": "m", "input": [{"role": "user", "content": "a"}, {"type": "reasoning"}], "stream": False},
}
ANSWERS: Final[Mapping[str, Any]] = {
    "data": [{"index": 0, "embedding": [1, 2.5], "object": "embedding"}, {"index": 1, "embedding": "AAAAAA=="}],
    "embeddings": [{"values": [1.5]}, {"values": [2]}],
    "results": [{"index": 1, "relevance_score": 0.5, "document": {"text": "b"}}, {"index": 0, "score": 1}],
    "predictions": [{"embeddings": {"values": [1], "statistics": {"token_count": 3}}}] * 2,
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
    "meta": {"billed_units": {"search_units": 1, "input_tokens": 2}, "tokens": {"input_tokens": 1}},
    "model": "up",
    "id": "x",
    "prompt_eval_count": 4,
    "usageMetadata": {"promptTokenCount": 3},
    "embedding": {"values": [1.0]},
    "output": [{"type": "message"}, {"type": "compaction", "encrypted_content": "x" * 2000}],
}
LEAVES: Final = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
)
NAMES: Final = st.sampled_from(
    [
        "data",
        "embeddings",
        "embedding",
        "values",
        "results",
        "output",
        "encrypted_content",
        "stream",
        "index",
        "relevance_score",
        "usage",
        "meta",
        "error",
        "text",
        "input",
        "query",
        "documents",
        "model",
        "requests",
        "content",
        "parts",
        "top_n",
        "dimensions",
        "float",
        "object",
    ]
)
JSON: Final = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
KINDS: Final = ("embeddings", "rerank", "moderations", "compaction")
POINTS: Final = [(name, kind) for name, one in ADAPTERS.items() for kind in KINDS if getattr(one, kind) is not None]


def written(value: Any) -> bytes:
    """As JSON, also numbers that orjson does not write."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return repr(value).replace("None", "null").replace("True", "true").replace("False", "false").encode()


def changed(value: Any, at: int, with_: Any) -> Any:
    """The tree with its node number `at` replaced."""
    seen = [-1]

    def walk(node: Any) -> Any:
        seen[0] += 1
        if seen[0] == at:
            return with_
        if isinstance(node, dict):
            return {name: walk(child) for name, child in node.items()}
        return [walk(child) for child in node] if isinstance(node, list) else node

    return walk(value)


def asked(name: str, body: Any) -> Ask:
    """The request as read."""
    return SURFACES[name].read(written(body), {PATH: "m"})


@pytest.mark.parametrize("name", SURFACES)
@given(st.integers(0, 25), JSON)
def test_requests(name: str, at: int, with_: Any) -> None:
    """Any JSON is a request or the client's fault; what is a request can be told to every provider, or refused."""
    for body in (with_, changed(BODIES[name], at, with_)):
        with suppress(ProxyError):
            ask = asked(name, body)
            for adapter in ADAPTERS.values():
                point: Endpoint | None = getattr(adapter, ask.kind)
                if point is not None:
                    told(adapter, point, ask)


def told(adapter: Adapter, point: Endpoint, ask: Ask) -> None:
    """What goes up, batch by batch."""
    key = "A|S|us-east-1" if adapter.name == "bedrock" else "k"
    to = Target(channel="c", base_url="https://h", key=Secret(key), model="titan-embed", options=adapter.options())
    with suppress(ProxyError):
        for one in point.batches(ask, to) if point.batches is not None else (ask,):
            outgoing = point.request(one, to)
            assert orjson.dumps(outgoing.body)


@pytest.mark.parametrize(("name", "kind"), POINTS)
@given(st.integers(0, 60), JSON)
def test_answers(name: str, kind: str, at: int, with_: Any) -> None:
    """Any answer is vectors, ranks, a verdict, or a failure; and can be told to every client."""
    point: Endpoint = getattr(ADAPTERS[name], kind)
    for body in (with_, changed(ANSWERS, at, with_)):
        document = Document(written(body))
        for letter, surface in SURFACES.items():
            ask = asked(letter, BODIES[letter])
            if ask.kind == kind:
                shown(surface, point, ask, document)


def shown(surface: EndpointSurface, point: Endpoint, ask: Ask, document: Document) -> None:
    """What a client gets."""
    events = list(point.answer(ask, document))
    if any(isinstance(event, Failed) for event in events):
        return
    if surface.dialect == point.dialect:
        out = surface.same(ask, FACE, document, Usage(prompt=3))
    else:
        out = surface.answer(ask, FACE, joined([(ask, events), (ask, events)]), Usage(prompt=3))
    assert type(orjson.loads(out)) is dict
