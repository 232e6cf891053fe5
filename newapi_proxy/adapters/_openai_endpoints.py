"""The endpoints beside chat on servers of the OpenAI format: the client's own body, with upstream's name for the model.

Knows which types have which endpoint, and how answers tell usage and vectors. Source: provider-translation A.3, A.5,
B.8; relay-and-billing 1.2, 5.11, 7.6; tasks-and-accounts 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _embedding as embedding
from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters._reranking import reranked
from newapi_proxy.adapters.base import Endpoint, Headers, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Started, Yielded
from newapi_proxy.ir.matter import Vector
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]
Made = tuple[Node, tuple[str, ...]]  # a body, and the names of what had to be left out of it

EMBEDDINGS: Final = "openai.embeddings"
RERANK: Final = "rerank"
MODERATIONS: Final = "openai.moderations"
LARGE: Final = 256 * 1024  # bytes of an answer whose numbers are not read where nobody wants them
_UNNAMED: Final = "text-moderation-stable"  # what a request without a model is routed as
_LATEST: Final = "text-moderation-latest"  # and what is asked for it

_PATHS: Final[Mapping[str, Mapping[str, str]]] = {
    "embeddings": {
        **dict.fromkeys(
            ("openai", "openrouter", "siliconflow", "together", "fireworks", "nvidia", "baichuan"), "/v1/embeddings"
        ),
        **dict.fromkeys(("perplexity", "novita", "hunyuan", "ai360", "xinference"), "/v1/embeddings"),
        **dict.fromkeys(("github", "gemini-openai", "openai-compatible"), "/embeddings"),
        "ali": "/compatible-mode/v1/embeddings",
        "volcengine": "/api/v3/embeddings",
        "baidu": "/v2/embeddings",
    },
    "rerank": {
        **dict.fromkeys(("openai", "openrouter", "siliconflow", "together", "fireworks", "xinference"), "/v1/rerank"),
        "baidu": "/v2/rerank",
        "openai-compatible": "/rerank",
    },
    "moderations": {"openai": "/v1/moderations", "openai-compatible": "/moderations"},
}
"""Kind of endpoint → the types whose servers have it, and its path there."""


_PACKING: Final = frozenset({"openai", "openrouter"})
"""Types whose answers are handed on as they are where base64 was asked for; the others' numbers are packed here."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server has an endpoint, and how it is asked there."""

    url: Callable[[Target], str]
    auth: Callable[[Target], dict[str, str]]
    headers: Mapping[str, str] = {}
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None

    def posted(self, body: Node, to: Target, dropped: tuple[str, ...] = ()) -> Outgoing:
        """A body sent there."""
        plain = {"content-type": "application/json", "accept": "application/json"}
        headers = {**plain, **self.headers, **self.auth(to)}
        return Outgoing(url=self.url(to), body=body, headers=headers, dropped=dropped)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        if self.failed is not None:
            return self.failed(status, headers, body)
        return _failures.normalise(status, _failures.said(body), headers, body)


def native(ask: Ask, to: Target) -> Made:
    """The client's own tree with upstream's model, everything else unchanged."""
    return {**_tree(ask), "model": to.model}, ()


def _tree(ask: Ask) -> Node:
    """The client's own tree, or one made of what a client of another format asks for."""
    if ask.dialect != EMBEDDINGS and ask.kind == "embeddings":
        size = embedding.matter(ask).dimensions
        return {"input": embedding.texts(ask), **({} if size is None else {"dimensions": size})}
    return ask.tree


def edited(renames: Mapping[str, str], drops: tuple[str, ...] = ()) -> Callable[[Ask, Target], Made]:
    """The client's own tree with some names changed ("": left out, as we do it ourselves) and some left out."""

    def make(ask: Ask, to: Target) -> Made:
        body: Node = {}
        sent = _tree(ask)
        for name, value in sent.items():
            renamed = renames.get(name, name)
            if renamed and value is not None and name not in drops:
                body.setdefault(renamed, value)
        dropped = tuple(name for name in drops if sent.get(name) is not None)
        return {**body, "model": to.model}, dropped

    return make


def _listed(ask: Ask, to: Target) -> Made:
    """A rerank body; no `top_n` means all, which 0 does not mean everywhere."""
    body, dropped = native(ask, to)
    if not body.get("top_n"):
        body.pop("top_n", None)
    return body, dropped


def _moderated(ask: Ask, to: Target) -> Made:
    body, dropped = native(ask, to)
    if to.model == _UNNAMED and not ask.tree.get("model"):
        body["model"] = _LATEST
    return body, dropped


def _endpoint(
    place: Place, dialect: str, make: Callable[[Ask, Target], Made], answer: Callable[[Ask, Document], Sequence[Event]]
) -> Endpoint:
    def request(ask: Ask, to: Target) -> Outgoing:
        body, dropped = make(ask, to)
        return place.posted(body, to, dropped)

    return Endpoint(dialect=dialect, request=request, answer=answer, failure=place.failure)


def embeddings(
    place: Place, make: Callable[[Ask, Target], Made] = native, *, tokens: bool = True, packs: bool = False
) -> Endpoint:
    """Embeddings of the OpenAI format there; `tokens` and `packs` as in adapters.base.Endpoint."""
    return msgspec.structs.replace(_endpoint(place, EMBEDDINGS, make, embedded), tokens=tokens, packs=packs)


def rerank(place: Place, make: Callable[[Ask, Target], Made] = _listed) -> Endpoint:
    """Rerank of the common format there."""
    return _endpoint(place, RERANK, make, reranked)


def moderations(place: Place) -> Endpoint:
    """Moderations of the OpenAI format there."""
    return _endpoint(place, MODERATIONS, _moderated, moderated)


def beside(name: str, auth: Callable[[Target], dict[str, str]], headers: Mapping[str, str]) -> dict[str, Any]:
    """The slots of a type's record for the endpoints that its servers have, by their names."""
    made: Mapping[str, Callable[[Place], Endpoint]] = {
        "embeddings": lambda place: embeddings(place, packs=name in _PACKING),
        "rerank": rerank,
        "moderations": moderations,
    }
    return {
        kind: made[kind](Place(url=_below(paths[name]), auth=auth, headers=headers))
        for kind, paths in _PATHS.items()
        if name in paths
    }


def _below(path: str) -> Callable[[Target], str]:
    return lambda to: join(to.base_url, path)


def refusal(body: Document, name: str) -> Failed | None:
    """What a 200 is that carries an error, or lacks the list that such an answer must have."""
    node = body.tree
    if type(node) is not dict:
        said = f"{len(body.raw)} bytes that are no JSON object"  # not the bytes: they may be an answer's text
        return Failed(UpstreamFailure("The provider's answer cannot be read.", upstream_status=502, detail=said))
    if node.get("error") or type(node.get(name)) is not list:
        told = _failures.told(node) or _failures.Said(message=f"The provider's answer holds no {name}.")
        return Failed(_failures.inband(told))
    return None


class _Outline(msgspec.Struct):
    """What a large answer says beside its vectors, for who hands these on unread."""

    data: list[msgspec.Raw]
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_OUTLINE: Final = msgspec.json.Decoder(_Outline)


def embedded(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of an embeddings answer; a large one's vectors are left to who needs them."""
    if len(body.raw) > LARGE and ask.dialect == EMBEDDINGS:
        outline = body.outline(_OUTLINE)
        if outline is not None and not outline.error:
            return metered([Started(model=outline.model)], outline.usage)
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


def moderated(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of a moderations answer: that there is one, and what was used where it says so."""
    refused = refusal(body, "results")
    if refused is not None:
        return (refused,)
    return metered([Started()], body.tree.get("usage"))


def metered(events: list[Event], usage: Any) -> list[Event]:
    """The events with what was used, where upstream tells it; one that tells a total alone means the input."""
    if type(usage) is dict and not usage.get("prompt_tokens") and not usage.get("input_tokens"):
        usage = {"prompt_tokens": usage.get("total_tokens")}
    used = read_usage(usage)
    if used is not None:
        events.append(Metered(used))
    return events
