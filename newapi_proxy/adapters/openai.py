"""OpenAI's chat completions and every server that speaks the same format.

The dialect is one class; what a provider wants different stands in its record of `Quirks`, and what no record can say
in a function of the draft (`shape`). Azure, Mistral, Zhipu, the presets and the custom URL are made of it. Source:
provider-translation B.8, B.11; interfaces 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import (
    _failures,
    _openai_completions,
    _openai_endpoints,
    _openai_media,
    _openai_models,
    _openai_realtime,
    _openai_responses,
)
from newapi_proxy.adapters._balances import BALANCES
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._inlining import inlined_parts
from newapi_proxy.adapters._openai_build import Replay, build, effort, listed
from newapi_proxy.adapters._openai_draft import (
    Draft,
    developer_to_system,
    drop_old_reasoning,
    emulate_schema,
    flatten,
    short_ids,
)
from newapi_proxy.adapters._openai_stream import Reader, read_answer
from newapi_proxy.adapters._tools import SHORT
from newapi_proxy.adapters.base import (
    Adapter,
    Dialect,
    Headers,
    Options,
    Outgoing,
    Target,
    join,
    refuse_own,
)
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.suffix import Named
from newapi_proxy.wire import sse
from newapi_proxy.wire.tree import Document

DIALECT: Final = "openai-chat"
PATH: Final = "/v1/chat/completions"
_THINKING: Final = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")

Shape = Callable[[Draft, Ask, Target], None]


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider differs from OpenAI; the defaults are a plain OpenAI-compatible server.

    `renames`: fields under another name. `drops`: what only steers and would be refused. `refuses`: what changes the
    answer's shape. `developer`: knows that role. `stream_usage`: takes `stream_options`. `schema`: takes JSON schemas.
    `replay`: how thinking of other formats is given back. `this_turn`: old thinking must go. `cache_marks`: takes
    `cache_control`. `top_k`: takes it. `effort`: where an effort of another format goes ("" nowhere). `openai_models`:
    the rules for OpenAI's own model names apply. `web_search`: takes `web_search_options`.
    """

    renames: Mapping[str, str] = {}
    drops: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    developer: bool = True
    stream_usage: bool = True
    schema: bool = True
    replay: Replay = "none"
    this_turn: bool = False
    cache_marks: bool = False
    top_k: bool = True
    effort: Literal["reasoning_effort", "reasoning", "thinking", ""] = "reasoning_effort"
    openai_models: bool = False
    headers: Mapping[str, str] = {}
    web_search: bool = False

    def searches(self, model: str) -> bool:
        """Whether the model takes `web_search_options`; of OpenAI's own those that are named for it."""
        return self.web_search or (self.openai_models and "search" in model)


def below(path: str) -> Callable[[Target], str]:
    """The address of a path below the channel's base URL."""
    return lambda to: join(to.base_url, path)


def bearer(to: Target) -> dict[str, str]:
    """The usual credential, and the organisation where the channel names one."""
    headers: dict[str, str] = {}
    if to.key:
        headers["authorization"] = f"Bearer {to.key.reveal()}"
    if to.organization:
        headers["openai-organization"] = to.organization
    return headers


class OpenAIChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect."""

    quirks: Quirks = Quirks()
    url: Callable[[Target], str] = below(PATH)
    auth: Callable[[Target], dict[str, str]] = bearer
    shape: Shape | None = None
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model but OpenAI's that only the Responses endpoint has."""
        return not (self.quirks.openai_models and _openai_models.responses_only(model))

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The client's own tree with what must differ, or a body built from the Ask of another format."""
        quirks = self.quirks
        if ask.dialect == DIALECT:
            sent = inlined_parts(ask.tree, ask.turns) if ask.fetched else ask.tree
            draft = Draft({**sent, "model": to.model})
            if ask.controls.thinking is not None and not any(name in sent for name in _THINKING):
                draft.body["reasoning_effort"] = effort(ask.controls.thinking)  # the model's name asked for it
                _place_thinking(draft, ask, quirks, to.model)
        else:
            refuse_own(ask)
            draft = build(ask, to.model, quirks.replay, quirks.cache_marks)
            if "web_search_options" in draft.body and not quirks.searches(to.model):
                raise Unsupported("This provider has no web search.", "tools")
            _unfiltered(draft)
            if not quirks.top_k:
                draft.drop("top_k")
            _place_thinking(draft, ask, quirks, to.model)
        if ask.stream:
            _ask_for_usage(draft, quirks, to)
        _fit(draft, quirks, to)
        if self.shape is not None:
            self.shape(draft, ask, to)
        if to.options.flatten_content:
            flatten(draft)
        headers = {"content-type": "application/json", "accept": "application/json"}
        if ask.stream:
            headers["accept"] = "text/event-stream"
        return Outgoing(
            url=self.url(to),
            body=draft.body,
            headers={**headers, **quirks.headers, **self.auth(to)},
            dropped=listed(draft.dropped) if draft.dropped else (),
        )

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


def _ask_for_usage(draft: Draft, quirks: Quirks, to: Target) -> None:
    """Asks for a usage chunk where the server takes the wish; the surface hides it again (decision of demand S8)."""
    if to.options.no_stream_options or not quirks.stream_usage:
        draft.body.pop("stream_options", None)
    elif to.usage_in_stream:
        options = draft.body.get("stream_options")
        draft.body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}


def _fit(draft: Draft, quirks: Quirks, to: Target) -> None:
    """The record's edits, those that apply."""
    short_ids(draft, SHORT if quirks.openai_models else None)
    if quirks.openai_models:
        _openai_models.fit(draft, to.model)
    if quirks.renames:
        draft.rename(quirks.renames)
    if quirks.refuses:
        draft.refuse(*quirks.refuses)
    if quirks.drops:
        draft.drop(*quirks.drops)
    if not quirks.developer:
        developer_to_system(draft)
    if not quirks.schema:
        emulate_schema(draft)
    if quirks.this_turn:
        drop_old_reasoning(draft)


def _unfiltered(draft: Draft) -> None:
    """A search of this format has no filters; those of another are told as left out."""
    search = draft.body.get("web_search_options")
    if search and "filters" in search:
        draft.body["web_search_options"] = {name: search[name] for name in search if name != "filters"}
        draft.dropped.append("web_search_options.filters")


def _place_thinking(draft: Draft, ask: Ask, quirks: Quirks, model: str) -> None:
    """Puts the effort of another format, or of the model's name, where the provider takes it."""
    body = draft.body
    thinking = ask.controls.thinking
    word = body.pop("reasoning_effort", None)
    if thinking is None or (word is None and not thinking.adaptive):
        return
    known = not quirks.openai_models or _openai_models.takes_effort(model.rpartition("/")[2])
    if not quirks.effort or not known:
        own = "reasoning_effort" if ask.dialect == DIALECT else "reasoning"
        draft.dropped.append("thinking" if "thinking" in ask.tree else own)
        return
    amount: dict[str, Any] = {"effort": word} if word is not None else {"enabled": True}
    wishes: dict[str, Any] = {
        "reasoning_effort": word,
        "reasoning": {"max_tokens": thinking.budget} if thinking.budget and not thinking.effort else amount,
        "thinking": {"type": "disabled" if thinking.disabled else "enabled"},
    }
    if word is not None or quirks.effort != "reasoning_effort":
        body[quirks.effort] = wishes[quirks.effort]


def file_urls(medium: Media, model: str) -> bool:
    """Images and films may be given by URL in this format, files and sounds only as data (A.1.1)."""
    return medium.kind in ("file", "audio")


def _legacy(name: str, chat: OpenAIChat) -> tuple[Dialect, ...]:
    path = _openai_completions.PATHS.get(name)
    if path is None:
        return ()
    return (
        _openai_completions.Completions(
            url=below(path),
            auth=chat.auth,
            headers=chat.quirks.headers,
            stream_usage=chat.quirks.stream_usage,
            chat_only=_openai_completions.CHAT_ONLY if chat.quirks.openai_models else None,
            failed=chat.failed,
        ),
    )


def _native(name: str, chat: OpenAIChat) -> tuple[_openai_responses.OpenAIResponses, ...]:
    if name not in _openai_responses.NATIVE:
        return ()
    return (
        _openai_responses.OpenAIResponses(
            url=below(_openai_responses.PATH),
            auth=chat.auth,
            headers=chat.quirks.headers,
            openai_models=chat.quirks.openai_models,
            schema=chat.quirks.schema,
            shape=chat.shape,
            failed=chat.failed,
        ),
    )


def compatible(
    name: str,
    *,
    numbers: tuple[int, ...] = (),
    base_url: str = "",
    owner: str = "",
    chat: OpenAIChat | None = None,
    suffixes: Callable[[str], Named | None] | None = None,
) -> Adapter:
    """An adapter for a server of this format, with the endpoints beside it that it is known to have."""
    first = chat or OpenAIChat()
    native = _native(name, first)
    compacts = native and name in _openai_responses.COMPACTING
    return Adapter(
        name=name,
        numbers=numbers,
        base_url=base_url,
        options=Options,
        chat=(first, *native, *_legacy(name, first)),
        compaction=_openai_responses.compaction(native[0]) if compacts else None,
        **_openai_endpoints.beside(name, first.auth, first.quirks.headers),
        **_openai_media.beside(name, first.auth, first.quirks.headers),
        balance=BALANCES.get(name),
        by_bytes=file_urls,
        opens=_openai_responses.OPENS,
        suffixes=suffixes,
        owner=owner or name,
    )


class OpenAIOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`responses`: whether the server has that endpoint; without it its clients are served by way of chat."""

    responses: bool = True


def _tuned(options: Any) -> tuple[Dialect, ...]:
    if options.responses:
        return ADAPTER.chat
    return tuple(one for one in ADAPTER.chat if not isinstance(one, _openai_responses.OpenAIResponses))


def _inherited(row: Inherited) -> Meant:
    """Other numbers than 1 are resellers, of whom only the chat endpoint is known."""
    return Meant(options={**row.options, **({} if row.number == 1 else {"responses": False})})


ADAPTER: Final = msgspec.structs.replace(
    compatible(
        "openai",
        numbers=(1,),
        base_url="https://api.openai.com",
        chat=OpenAIChat(quirks=Quirks(openai_models=True, top_k=False)),
        suffixes=_openai_models.named,
    ),
    options=OpenAIOptions,
    realtime=_openai_realtime.realtime(
        lambda to: f"{join(to.base_url, '/v1/realtime')}?model={quote(to.model, safe='')}", bearer
    ),
    tuned=_tuned,
    inherited=_inherited,
)
