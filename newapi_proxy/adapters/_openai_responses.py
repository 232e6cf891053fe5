"""The Responses dialect of OpenAI and of the servers that have it natively.

Requests stand in `_openai_responses_build`, answers in `_openai_responses_answer`. Source: provider-translation A.4,
B.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures, _openai_models
from newapi_proxy.adapters._openai_draft import Draft, short_call_ids
from newapi_proxy.adapters._openai_endpoints import refusal
from newapi_proxy.adapters._openai_responses_answer import Reader, read_answer
from newapi_proxy.adapters._openai_responses_build import DIALECT, build, emulate_schema, fit, native
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Endpoint, Headers, Outgoing, Target
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Metered, Started
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

PATH: Final = "/v1/responses"
NATIVE: Final = frozenset({"openai", "deepseek", "openrouter", "xai"})
"""Servers of the OpenAI format that are known to have this endpoint; Azure builds its own."""
COMPACTING: Final = frozenset({"openai", "xai"})
"""Those of them that shorten a conversation on request; others do so at most in the course of an answer."""
LONGEST_ID: Final = 64  # characters of a call's id that this endpoint takes
_WRITTEN: Final = 0.122  # tokens a character of a sealed history that was just written, less so many each; measured
_AROUND: Final = 154
OPENS: Final = frozenset({DIALECT})  # `file_url` is a field of this format, which its servers fetch (A.4)


class OpenAIResponses(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. What a provider's chat bodies need is done to these as well.

    `openai_models`: the rules for OpenAI's own model names apply. `schema`: takes JSON schemas.
    """

    url: Callable[[Target], str]
    auth: Callable[[Target], dict[str, str]]
    headers: Mapping[str, str] = {}
    openai_models: bool = False
    schema: bool = True
    shape: Callable[[Draft, Ask, Target], None] | None = None
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model but OpenAI's that are made for other endpoints."""
        return not (self.openai_models and _openai_models.chat_only(model))

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The client's own tree with what must differ, or a body built from the Ask of another format."""
        own = ask.dialect == DIALECT
        draft = native(ask, to.model) if own else build(ask, to.model)
        if self.openai_models and not own and not _openai_models.takes_effort(to.model.rpartition("/")[2]):
            draft.drop("reasoning")
        if not self.schema:
            emulate_schema(draft)
        short_call_ids(draft, LONGEST_ID)
        fit(draft, lambda one: self._fitted(one, ask, to))
        accept = "text/event-stream" if ask.stream else "application/json"
        return Outgoing(
            url=self.url(to),
            body=draft.body,
            headers={"content-type": "application/json", "accept": accept, **self.headers, **self.auth(to)},
            dropped=tuple(sorted(set(draft.dropped))),
        )

    def _fitted(self, draft: Draft, ask: Ask, to: Target) -> None:
        if self.openai_models and not ask.unnamed:
            _openai_models.fit(draft, to.model)
        if self.shape is not None:
            self.shape(draft, ask, to)

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """A whole answer's events; a 200 that carries an error yields `Failed`."""
        return read_answer(body)

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> Reader:
        """A fresh reader."""
        return Reader()

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        if self.failed is not None:
            return self.failed(status, headers, body)
        return _failures.normalise(status, _failures.said(body), headers, body)


def compaction(of: OpenAIResponses) -> Endpoint:
    """The endpoint below it that shortens a conversation: asked as the dialect itself is, answered whole."""
    below = msgspec.structs.replace(of, url=lambda to: f"{of.url(to)}/compact")
    return Endpoint(
        dialect=DIALECT,
        request=lambda ask, to: _unstreamed(below.request(ask, to)),
        answer=compacted,
        failure=of.failure,
        serves=of.serves,
    )


def _unstreamed(outgoing: Outgoing) -> Outgoing:
    """Without `stream`, which is unknown there even where it says no."""
    body = outgoing.body
    assert isinstance(body, dict)
    body.pop("stream", None)
    return outgoing


def compacted(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of a compaction: what it used. Where that is untold, the output by the size of the sealed items."""
    refused = refusal(body, "output")
    if refused is not None:
        return (refused,)
    node = body.tree
    model = node.get("model")
    used = read_usage(node.get("usage"))
    if used is None:
        used = Usage(completion=sum(map(_sealed, node["output"])), source="mixed")
    return (Started(model=model if type(model) is str else None), Metered(used))


def _sealed(item: Any) -> int:
    text = item.get("encrypted_content") if type(item) is dict else None
    return max(0, round(_WRITTEN * len(text) - _AROUND)) if type(text) is str else 0
