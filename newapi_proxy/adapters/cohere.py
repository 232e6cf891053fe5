"""Cohere: chat in version 2, and in version 1 where a channel's base URL ends in it.

What goes up stands in `_cohere_request` and `_cohere_v1_request`, what comes down in the two answers beside them; here
are addresses, which version it is, errors and the record. Source: provider-translation B.5, interfaces 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec

from newapi_proxy.adapters import _cohere_answer as answers
from newapi_proxy.adapters import _cohere_endpoints as endpoints
from newapi_proxy.adapters import _cohere_request as requests
from newapi_proxy.adapters import _cohere_v1_answer as old_answers
from newapi_proxy.adapters import _cohere_v1_request as old_requests
from newapi_proxy.adapters._failures import inband, normalise, said, told
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters.base import Adapter, Endpoint, Headers, Options, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Ended, Event, Failed, Skipped
from newapi_proxy.wire import ndjson, sse
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

DIALECT: Final = "cohere"
_OLD: Final = "/v1"
_UNREADABLE: Final = "The upstream's answer cannot be read."
_MEANT: Final = {498: 401, 499: 500}  # an invalid token; a request that upstream itself gave up
_CODES: Final = {"TOO_MANY_TOKENS": "context_length_exceeded"}


class CohereOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides. `safety_mode`: of requests without tools; OFF and NONE mean the same."""

    safety_mode: Literal["NONE", "OFF", "CONTEXTUAL", "STRICT"] | None = None


class CohereChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect."""

    @property
    def dialect(self) -> str:
        """The format's name; no client speaks it."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        old = to.base_url.endswith(_OLD)
        built = old_requests.chat(ask, to) if old else requests.chat(ask, to)
        headers = {
            "authorization": f"Bearer {to.key.reveal()}",
            "content-type": "application/json",
            "accept": "text/event-stream" if ask.stream else "application/json",
        }
        url = join(to.base_url, f"{_OLD}/chat" if old else "/v2/chat")
        return Outgoing(url=url, body=built.body, headers=headers, dropped=built.dropped)

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """See adapters.base.Dialect. What neither version says yields `Failed`; a stream is read all the same."""
        value = body.tree
        emulated = requests.emulated(ask)
        if isinstance(value, dict) and isinstance(value.get("message"), dict):
            return answers.whole(value, emulated)
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            return old_answers.whole(value, emulated)
        words = told(value)
        if value is None:
            return _streamed(body.raw, emulated)
        return [Failed(inband(words) if words else UpstreamFailure(_UNREADABLE))]

    def frames(self) -> Frames:
        """Server-sent events, or one JSON object a line."""
        return Frames()

    def reader(self, ask: Ask) -> Reader:
        """A fresh reader."""
        return Reader(requests.emulated(ask))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        return _failure(status, headers, body)


def _failure(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    words = said(body)
    code = _CODES.get(str(_error_type(body)))
    if words is not None and code is not None:
        words = msgspec.structs.replace(words, code=code)
    failure = normalise(_MEANT.get(status, status), words, headers, body)
    failure.upstream_status = status
    return failure


def _streamed(raw: bytes, emulated: bool) -> list[Event]:
    decoder, reader = Frames(), Reader(emulated)
    frames = [*decoder.feed(raw), *decoder.close()]
    if not any(isinstance(frame.tree, dict) for frame in frames):
        return [Failed(UpstreamFailure(_UNREADABLE))]
    events = [event for frame in frames for event in reader.read(frame)] + list(reader.close())
    return [event for event in events if not isinstance(event, (Ended, Skipped))]


def _error_type(body: bytes) -> Any:
    value = Document(body).tree
    return value.get("error_type") if isinstance(value, dict) else None


class Frames:
    """Either of the forms that streams come in, by their first character; see adapters.base.Decoder."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder: sse.Decoder | ndjson.Decoder | None = None

    @property
    def empty(self) -> bool:
        """See adapters.base.Decoder."""
        return self._decoder is None or self._decoder.empty

    def feed(self, data: bytes) -> list[Frame]:
        """See adapters.base.Decoder."""
        if self._decoder is None:
            data = data.lstrip()
            if not data:
                return []
            self._decoder = ndjson.Decoder() if data.startswith(b"{") else sse.Decoder()
        return self._decoder.feed(data)

    def close(self) -> list[Frame]:
        """See adapters.base.Decoder."""
        return [] if self._decoder is None else self._decoder.close()


class Reader:
    """The reader of the version whose first object has come; see adapters.base.Reader."""

    __slots__ = ("_emulated", "_reader")

    def __init__(self, emulated: bool) -> None:
        self._emulated = emulated
        self._reader: answers.Reader | old_answers.Reader | None = None

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        value = frame.tree
        if type(value) is not dict:
            return (Skipped("an event that is no JSON object"),) if frame.data and not frame.done else ()
        if self._reader is None:
            made = old_answers.Reader if "event_type" in value else answers.Reader
            self._reader = made(self._emulated)
        return self._reader.take(value, frame.event)

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader."""
        return (self._reader or answers.Reader()).close()


def _inherited(row: Inherited) -> Meant:
    """New API asks for no safety mode unless it is told to (relay-and-billing 6.1)."""
    return Meant(options={"safety_mode": "NONE", **row.options})


ADAPTER: Final = Adapter(
    name="cohere",
    numbers=(34,),
    base_url="https://api.cohere.ai",
    options=CohereOptions,
    chat=(CohereChat(),),
    inherited=_inherited,
    embeddings=Endpoint(
        dialect=endpoints.EMBEDDINGS,
        request=endpoints.embed,
        answer=endpoints.embedded,
        failure=_failure,
        batches=endpoints.batches,
        tokens=False,
    ),
    rerank=Endpoint(dialect=endpoints.RERANK, request=endpoints.rerank, answer=endpoints.ordered, failure=_failure),
    owner="cohere",
)
