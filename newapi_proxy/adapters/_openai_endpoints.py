"""The endpoints beside chat on servers of the OpenAI format: the client's own body, with upstream's name for the model.

Knows which types have which endpoint, and how their answers tell usage and vectors. Source: provider-translation A.3,
A.5, B.8; relay-and-billing 5.11, 7.6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Dialect, Endpoint, Headers, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Started, Yielded
from newapi_proxy.ir.matter import Vector
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]
Auth = Callable[[Target], dict[str, str]]
Failure = Callable[[int, Headers, bytes], UpstreamFailure]

EMBEDDINGS: Final = "openai.embeddings"
_PATHS: Final[Mapping[str, Mapping[str, str]]] = {
    "embeddings": {
        **dict.fromkeys(
            ("openai", "openrouter", "siliconflow", "together", "fireworks", "nvidia", "baichuan"), "/v1/embeddings"
        ),
        "ali": "/compatible-mode/v1/embeddings",
        "volcengine": "/api/v3/embeddings",
        "baidu": "/v2/embeddings",
    },
}
"""Kind of endpoint → the types whose servers have it, and its path there."""


def same(url: Callable[[Target], str], auth: Auth, headers: Mapping[str, str]) -> Callable[[Ask, Target], Outgoing]:
    """A request in the server's own format: the client's tree with upstream's model, everything else unchanged."""

    def request(ask: Ask, to: Target) -> Outgoing:
        plain = {"content-type": "application/json", "accept": "application/json"}
        return Outgoing(url=url(to), body={**ask.tree, "model": to.model}, headers={**plain, **headers, **auth(to)})

    return request


def failed(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    """The provider's error in our terms."""
    return _failures.normalise(status, _failures.said(body), headers, body)


def refusal(body: Document, *lists: str) -> Failed | None:
    """What a 200 is that carries an error, or lacks every one of the lists that such an answer must have."""
    node = body.tree
    if type(node) is not dict:
        said = f"{len(body.raw)} bytes that are no JSON object"  # not the bytes: they may be an answer's text
        return Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502, detail=said))
    if node.get("error") or not any(type(node.get(name)) is list for name in lists):
        told = _failures.told(node) or _failures.Said(message=f"The provider's answer holds no {lists[0]}.")
        return Failed(_failures.inband(told))
    return None


def embeddings(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of an embeddings answer."""
    refused = refusal(body, "data")
    if refused is not None:
        return (refused,)
    node = body.tree
    model = node.get("model")
    events: list[Event] = [Started(model=model if type(model) is str else None)]
    for place, row in enumerate(node["data"]):
        values = row.get("embedding") if type(row) is dict else None
        if type(values) is list or type(values) is str:
            index = row.get("index")
            events.append(Yielded(Vector(values, index if type(index) is int else place)))
    return metered(events, node.get("usage"))


def metered(events: list[Event], usage: Any) -> list[Event]:
    """The events with what was used, where upstream tells it; one that tells a total alone means the input."""
    if type(usage) is dict and not usage.get("prompt_tokens") and not usage.get("input_tokens"):
        usage = {"prompt_tokens": usage.get("total_tokens")}
    used = read_usage(usage)
    if used is not None:
        events.append(Metered(used))
    return events


def beside(name: str, auth: Auth, headers: Mapping[str, str], failure: Failure | None) -> dict[str, Any]:
    """The slots of a type's record for the endpoints that its servers have, by their names."""
    answers = {"embeddings": (EMBEDDINGS, embeddings)}
    slots: dict[str, Dialect] = {}
    for kind, paths in _PATHS.items():
        if (path := paths.get(name)) is None:
            continue
        dialect, answer = answers[kind]
        slots[kind] = Endpoint(
            dialect=dialect, request=same(_below(path), auth, headers), answer=answer, failure=failure or failed
        )
    return slots


def _below(path: str) -> Callable[[Target], str]:
    return lambda to: join(to.base_url, path)
