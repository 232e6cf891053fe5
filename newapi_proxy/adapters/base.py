"""The provider contract: pure functions and small objects, no I/O, no clock, no log.

What a provider is stands in its own file as one `Adapter` record; shared code reads the record's fields and never
compares a provider's name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._outgoing import Outgoing as Outgoing
from newapi_proxy.adapters._outgoing import Target as Target
from newapi_proxy.adapters._tasks import Tasks
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Kind, Media
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.session import Meter
from newapi_proxy.ir.suffix import Named
from newapi_proxy.ir.usage import Usage
from newapi_proxy.secret import Secret
from newapi_proxy.wire import sse
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

UNOWNED: Final = "custom"  # `owned_by` of a model that no catalogue knows (relay-and-billing 1.2)
Headers = Mapping[str, str]  # names in lower case


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options every channel type takes; a provider's own struct adds to it (the one struct that is extended)."""

    strict_params: bool = False  # every dropped parameter becomes a 400
    default_max_tokens: int | None = None
    no_stream_options: bool = False  # never ask this upstream for a usage chunk
    flatten_content: bool = False  # a message of text parts only is sent as a string
    think_tags: bool = False  # move a leading <think>…</think> span to reasoning
    thinking_to_content: bool = False  # the other way round, for clients that know no reasoning field


class Decoder(Protocol):
    """Cuts a response's bytes into frames: any cut in, whole frames out."""

    @property
    def empty(self) -> bool:
        """Whether the last byte that came ended a frame."""
        ...

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        ...

    def close(self) -> list[Frame]:
        """What is left at the end."""
        ...


class Reader(Protocol):
    """Keeps one streamed response's state: frames in, events out.

    Where frames are only forwarded, a frame that repeats an earlier one but for its visible text may be left out.
    """

    def read(self, frame: Frame) -> Iterable[Event]:
        """The events of one frame, none for what is unknown; `Skipped` for what cannot be read."""
        ...

    def close(self) -> Iterable[Event]:
        """The stream has ended: what is still missing (a finish, a call's arguments)."""
        ...


@runtime_checkable
class Repeating(Protocol):
    """A reader that need not read frames which differ from one that it has read in their text alone."""

    def repeats(self, event: Event) -> bool:
        """Whether each of them gives the event that the last frame gave, with its own text: text, thinking, or a call's
        arguments, alone but for usage."""
        ...

    def more(self, event: Event, text: str) -> None:
        """Such frames came and were not read; this is what they said together."""
        ...


@runtime_checkable
class Metering(Protocol):
    """A reader of frames that tell text and usage both."""

    def usage_key(self) -> bytes:
        """The name of the object that usage stands in, with its quotes."""
        ...

    def count(self, told: Sequence[Any]) -> Usage | None:
        """The usage after these objects of frames that were not read, which differ in their numbers alone."""
        ...


class Dialect(Protocol):
    """A provider's ability for one kind of endpoint in one wire format."""

    @property
    def dialect(self) -> str:
        """The format's name; equal to a surface's dialect means same family."""
        ...

    def serves(self, model: str) -> bool:
        """Whether this format is the one for the upstream model."""
        ...

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The request for this ask. Raises Unsupported with the path of what cannot be expressed."""
        ...

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """A whole answer as the events a stream would have had. A 200 that carries an error yields `Failed`."""
        ...

    def frames(self) -> Decoder:
        """A fresh decoder for a streamed response."""
        ...

    def reader(self, ask: Ask) -> Reader:
        """A fresh reader for a streamed response."""
        ...

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms; `upstream_status` is `status`."""
        ...


def every(model: str) -> bool:
    """An endpoint for all of a provider's models."""
    return True


class Mute:
    """A Reader for what is never streamed: hears nothing, so that a stream of it is an empty answer."""

    def __init__(self, ask: Ask) -> None:
        """Nothing of the ask matters."""

    def read(self, frame: Frame) -> Iterable[Event]:
        """See Reader."""
        return ()

    def close(self) -> Iterable[Event]:
        """See Reader."""
        return ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A Dialect of another kind than chat, as a table of pure functions; see there for what each is given and gives.

    A kind that is never streamed leaves `frames` and `reader` as they are. `batches`: the asks that one is sent as, one
    after the other, where the provider takes only so much at once; their answers are joined in that order. `instead`:
    what to try on the same channel where this endpoint failed so (an older server's). `tokens`: takes token numbers.
    `raw`: a streamed answer is handed on as it comes whatever it looks like, a JSON document too. `packs`: writes
    vectors as base64 where it is asked to, so that what it answers is what the client gets. `session`: the request
    opens a session of messages in place of an answer, and this makes who listens to them.
    """

    dialect: str
    request: Callable[[Ask, Target], Outgoing]
    answer: Callable[[Ask, Document], Sequence[Event]]
    failure: Callable[[int, Headers, bytes], UpstreamFailure]
    serves: Callable[[str], bool] = every
    frames: Callable[[], Decoder] = sse.Decoder
    reader: Callable[[Ask], Reader] = Mute
    batches: Callable[[Ask, Target], Sequence[Ask]] | None = None
    instead: Callable[[UpstreamFailure], Endpoint | None] | None = None
    tokens: bool = True
    raw: bool = False
    packs: bool = False
    session: Callable[[Ask, Target], Meter] | None = None


class Counting(Protocol):
    """A provider's own token counting: POST messages/count_tokens and the like."""

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The counting request."""
        ...

    def tokens(self, body: bytes) -> int | None:
        """The count in its answer."""
        ...


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a key was exchanged for: `text` goes into Target.granted until `expires` (unix seconds)."""

    text: str
    expires: int


class Credential(Protocol):
    """A provider whose key is exchanged for a short-lived token first; pure, others open, remember and renew."""

    def request(self, to: Target) -> Outgoing | None:
        """The exchange for this key; None where the key serves as it is. Raises UpstreamFailure for a broken key."""
        ...

    def granted(self, body: Document, now: int) -> Granted | None:
        """What the exchange's answer grants; None where it grants nothing."""
        ...


class Uploads(Protocol):
    """A provider that takes files by its own ids, uploaded before the request that names them; pure, others send."""

    def wanted(self, medium: Media) -> bool:
        """Whether this one must be uploaded; it is replaced by one with a `file_id` and without `data`."""
        ...

    def request(self, medium: Media, ask: Ask, to: Target) -> Outgoing:
        """The upload. Raises Unsupported for a medium that is broken."""
        ...

    def file_id(self, body: Document) -> str | None:
        """The id in its answer, None for none. Raises UpstreamFailure for an answer that says what is wrong."""
        ...


Local = Callable[[Outgoing], tuple[int, dict[str, str], bytes]]
"""A provider that answers by itself: status, headers (lower case), body."""


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is. A slot that is empty is the whole story of "not supported".

    `numbers`: channel numbers in New API's database. `chat`: dialects in order of preference, the client's own wins
    where it is among them; beside it one slot for each other kind of endpoint. `by_bytes`: whether a medium that the
    client gave as a URL must reach this upstream model as bytes. `opens`: the formats in which that does not hold:
    their own requests go out with their URLs. `suffixes`: a requested name that says how to reason,
    taken apart (ir.suffix; decision 15). `credential`: how the key becomes a token, where it must. `key_fault`: what is
    wrong with a key, for who checks a configuration; it does not quote the key. `uploads`: how media become files of
    the provider's own, where they must. `tuned`: `chat` for a channel's options, where they say how to read answers.
    `inherited`: what a database row of New API means for this type, where it means more than the columns that all types
    share (relay-and-billing 4.12, 4.13). `balance`: yields what is to be asked and is sent the
    answers' JSON; returns what the account has left and in which currency, None where it is not told. `retry_400`: the
    inherited rule for channel number 14 (relay-and-billing 4.5).
    """

    name: str
    numbers: tuple[int, ...] = ()
    base_url: str = ""
    key_required: bool = True
    options: type[Options] = Options
    chat: tuple[Dialect, ...] = ()
    compaction: Endpoint | None = None
    embeddings: Endpoint | None = None
    rerank: Endpoint | None = None
    moderations: Endpoint | None = None
    images: Endpoint | None = None
    speech: Endpoint | None = None
    transcription: Endpoint | None = None
    realtime: Endpoint | None = None
    counting: Counting | None = None
    balance: Callable[[Target, date], Generator[Outgoing, Any, tuple[Decimal, str] | None]] | None = None
    local: Local | None = None
    by_bytes: Callable[[Media, str], bool] | None = None
    opens: frozenset[str] = frozenset()
    suffixes: Callable[[str], Named | None] | None = None
    credential: Credential | None = None
    key_fault: Callable[[Secret], str | None] | None = None
    uploads: Uploads | None = None
    tasks: Tasks | None = None
    tuned: Callable[[Any], tuple[Dialect, ...]] | None = None
    inherited: Callable[[Inherited], Meant] | None = None
    retry_400: bool = False
    bare_counts: bool = False  # its usage counts a prompt's names and values, no markup, whatever its models' makers do
    aliases: bool = False  # its answers name another model than was asked for, also where nothing is mapped
    owner: str = UNOWNED  # `owned_by` in model lists


def speaks(adapter: Adapter, dialect: str, model: str, kind: Kind = "chat") -> Dialect | None:
    """The dialect to use for this client's dialect and upstream model: its own where the provider has it."""
    if kind != "chat":
        only: Endpoint | None = getattr(adapter, kind)  # the slots have the kinds' names
        return only if only is not None and only.serves(model) else None
    first: Dialect | None = None
    for one in adapter.chat:
        if one.serves(model):
            if one.dialect == dialect:
                return one
            first = first or one
    return first


def refuse_own(ask: Ask) -> None:
    """Refuses what no other format than the ask's has a like of or can go without. Raises Unsupported with its path."""
    if ask.own:
        path = ask.own[0]
        missing = ask.tree.get(path.partition(".")[0]) is None
        raise Unsupported(f"{path} is required" if missing else f"This provider has nothing like {path}.", path)


@lru_cache(maxsize=1024)
def join(base_url: str, path: str) -> str:
    """Base URL and path, a version path that the base already ends in not doubled (interfaces §3).

    join("https://h/v1", "/v1/chat") and join("https://h", "/v1/chat") are the same.
    """
    base = base_url.rstrip("/")
    head = path[: path.find("/", 1)] if path.find("/", 1) > 0 else path
    if head and base.endswith(head):
        base = base[: -len(head)]
    return base + path
