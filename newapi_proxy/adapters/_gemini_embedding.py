"""Embeddings of Google's models: a batch of contents, one content, or Vertex's older instances.

Source: provider-translation A.7, B.2, B.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from newapi_proxy.adapters import _gemini_failures as failures
from newapi_proxy.adapters._embedding import left_out, matter, own, split, texts, vectors
from newapi_proxy.adapters.base import Endpoint, Outgoing, Target
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]

DIALECT: Final = "gemini.embeddings"
AT_ONCE: Final = 100  # contents in one batch
_SETTINGS: Final = {"task_type": "taskType", "taskType": "taskType", "title": "title"}  # OpenAI's clients', Google's


def batch(
    url: Callable[[Target], str], auth: Callable[[Target], Mapping[str, str]], name: Callable[[str], str]
) -> Endpoint:
    """`:batchEmbedContents` below the model's address; `name`: the model as each content names it."""

    def request(ask: Ask, to: Target) -> Outgoing:
        model = name(to.model)
        if ask.dialect == DIALECT:
            method = "batchEmbedContents" if "requests" in ask.tree else "embedContent"
            return _sent(ask, f"{url(to)}:{method}", _renamed(ask.tree, model), auth(to))
        contents = [{"model": model, **_content(ask, text)} for text in texts(ask)]
        return _sent(ask, f"{url(to)}:batchEmbedContents", {"requests": contents}, auth(to))

    return Endpoint(
        dialect=DIALECT,
        request=request,
        answer=answered,
        failure=failures.refused,
        batches=lambda ask, to: (ask,) if ask.dialect == DIALECT else split(ask, AT_ONCE),
        tokens=False,
    )


def _renamed(tree: Node, model: str) -> Node:
    """A client's own body with upstream's model wherever it names one."""
    body = {**tree, "model": model} if "model" in tree else dict(tree)
    rows = tree.get("requests")
    if type(rows) is list:
        body["requests"] = [{**row, "model": model} if type(row) is dict else row for row in rows]
    return body


def content(ask: Ask, url: str, auth: Mapping[str, str]) -> Outgoing:
    """`:embedContent` below the model's address, for an ask of one text."""
    if ask.dialect == DIALECT and "requests" not in ask.tree:
        body = {name: value for name, value in ask.tree.items() if name != "model"}
        return _sent(ask, f"{url}:embedContent", body, auth)
    (text,) = texts(ask)
    return _sent(ask, f"{url}:embedContent", _content(ask, text), auth)


def instances(ask: Ask, url: str, auth: Mapping[str, str]) -> Outgoing:
    """`:predict` below the model's address."""
    settings = {_SNAKE[name]: value for name, value in _settings(ask).items()}
    body: Node = {"instances": [{"content": text, **settings} for text in texts(ask)]}
    parameters: Node = {}
    if matter(ask).dimensions is not None:
        parameters["outputDimensionality"] = matter(ask).dimensions
    if parameters:
        body["parameters"] = parameters
    return _sent(ask, f"{url}:predict", body, auth)


_SNAKE: Final = {"taskType": "task_type", "title": "title"}


def _settings(ask: Ask) -> Node:
    """What the vectors are for."""
    found: Node = {_SETTINGS[name]: value for name, value in own(ask, _SETTINGS).items()}
    for name, value in (("taskType", matter(ask).task), ("title", matter(ask).title)):
        if value is not None:
            found[name] = value
    return found


def _content(ask: Ask, text: str) -> Node:
    node: Node = {"content": {"parts": [{"text": text}]}, **_settings(ask)}
    if matter(ask).dimensions is not None:
        node["outputDimensionality"] = matter(ask).dimensions
    return node


def _sent(ask: Ask, url: str, body: Node, auth: Mapping[str, str]) -> Outgoing:
    headers = {"content-type": "application/json", **auth}
    return Outgoing(url=url, body=body, headers=headers, dropped=left_out(ask, _SETTINGS))


def answered(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of an answer to any of these requests."""
    node = _object(body.tree)
    rows = [node["embedding"]] if "embedding" in node else node.get("embeddings")
    predictions = node.get("predictions")
    if type(predictions) is not list:
        return vectors(ask, [_values(row) for row in rows] if type(rows) is list else None, body.tree, _metered(node))
    told = [_object(_object(one).get("embeddings")) for one in predictions]
    counts = [counted(_object(one.get("statistics")).get("token_count")) for one in told]
    whole = None if None in counts else sum(count or 0 for count in counts)
    return vectors(ask, [_values(one) for one in told], body.tree, whole)


def _metered(node: Node) -> int:
    usage = _object(node.get("usageMetadata"))
    return counted(usage.get("promptTokenCount")) or counted(usage.get("totalTokenCount")) or 0


def _object(value: Any) -> Node:
    return value if type(value) is dict else {}


def _values(value: Any) -> Any:
    return _object(value).get("values")
