"""Ollama's embeddings: /api/embed, and /api/embeddings of servers that are older. Source: provider-translation B.4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from newapi_proxy.adapters._embedding import at_most, left_out, matter, own, texts, vectors
from newapi_proxy.adapters._failures import normalise, said
from newapi_proxy.adapters.base import Endpoint, Headers, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

DIALECT: Final = "ollama-embed"
_SETTINGS: Final = ("truncate", "options", "keep_alive")


def _request(ask: Ask, to: Target) -> Outgoing:
    body = {"model": to.model, "input": texts(ask), **_settings(ask, to)}
    if matter(ask).dimensions is not None:
        body["dimensions"] = matter(ask).dimensions
    return _sent(ask, to, "/api/embed", body)


def _older_request(ask: Ask, to: Target) -> Outgoing:
    (text,) = texts(ask)
    settings = {name: value for name, value in _settings(ask, to).items() if name != "truncate"}
    return _sent(ask, to, "/api/embeddings", {"model": to.model, "prompt": text, **settings})


def _settings(ask: Ask, to: Target) -> Node:
    """The client's own, over the channel's."""
    found: Node = own(ask, _SETTINGS)
    if to.options.keep_alive is not None:
        found.setdefault("keep_alive", to.options.keep_alive)
    if to.options.num_ctx is not None:
        given = found.get("options")
        found["options"] = {"num_ctx": to.options.num_ctx, **(given if type(given) is dict else {})}
    return found


def _sent(ask: Ask, to: Target, path: str, body: Node) -> Outgoing:
    headers = {"content-type": "application/json"}
    if to.key.reveal():
        headers["authorization"] = f"Bearer {to.key.reveal()}"
    return Outgoing(url=join(to.base_url, path), body=body, headers=headers, dropped=left_out(ask, _SETTINGS))


def _answer(ask: Ask, body: Document) -> Sequence[Event]:
    node = body.tree if type(body.tree) is dict else {}
    return vectors(ask, node.get("embeddings"), body.tree, counted(node.get("prompt_eval_count")))


def _older_answer(ask: Ask, body: Document) -> Sequence[Event]:
    row = body.tree.get("embedding") if type(body.tree) is dict else None
    return vectors(ask, [row] if type(row) is list and row else None, body.tree, None)


def _failure(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    return normalise(status, said(body), headers, body)


def _instead(failure: UpstreamFailure) -> Endpoint | None:
    """A server that says nothing of a model does not know the path: it is an older one."""
    unknown = failure.upstream_status == 404 and failure.code == "bad_response"
    return _OLDER if unknown else None


_OLDER: Final = Endpoint(
    dialect=DIALECT,
    request=_older_request,
    answer=_older_answer,
    failure=_failure,
    batches=at_most(1),
    tokens=False,
)
EMBEDDINGS: Final = Endpoint(
    dialect=DIALECT, request=_request, answer=_answer, failure=_failure, instead=_instead, tokens=False
)
