"""The surface contract: what clients speak. Pure, like the provider contract it mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from newapi_proxy.errors import ProxyError
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import Usage
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

PATH: Final = ":path"  # no client can send such a name
QUERY: Final = ":query"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
LONGEST_MODEL: Final = 512  # characters of a model's name: look-ups remember names, logs and errors repeat them


class Face(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer needs beside its events: the model name to show, and what to fill in where upstream gives none.

    `model`: the name the client asked for. `rename`: upstream's name differs because the channel maps it, so it must
    not be shown. `id`, `created`: for answers without their own. `usage`: a local estimate of the prompt for formats
    that tell it at the start (Anthropic's message_start). `pack`: upstream does not write vectors as base64 itself.
    """

    model: str
    id: str
    created: int
    rename: bool = False
    usage: Usage = Usage(source="none")
    thinking_to_content: bool = False
    pack: bool = False


class Writer(Protocol):
    """One streamed answer in the client's format, from events."""

    def feed(self, event: Event) -> bytes:
        """The event's bytes; may be empty. `Metered`, `Failed` and `Skipped` yield none."""
        ...

    def close(self, usage: Usage) -> bytes:
        """The tail: a missing finish, usage where it belongs, the terminator."""
        ...

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """An error inside the stream; nothing may follow."""
        ...


@runtime_checkable
class Continuing(Protocol):
    """A writer whose bytes for text are the same but for the text, as long as nothing else is said."""

    def around(self, event: Event) -> tuple[bytes, bytes] | None:
        """What stands before and behind the JSON of the text of events like this one, the last; None where that is not
        all that they are."""
        ...

    def more(self, event: Event, text: str) -> None:
        """Such events were told without `feed`; this is what they said together."""
        ...


@runtime_checkable
class Steady(Protocol):
    """A passer that edits frames one by one."""

    def steady(self) -> bool:
        """Whether frames that differ from the last one in their text alone are passed as it was."""
        ...


class Passer(Protocol):
    """One streamed answer of the client's own format: frames forwarded, edited or left out.

    The terminator (`[DONE]`, message_stop) is never returned by `frame`, also when upstream has sent it: `close` gives
    it, because the charge is committed before the client gets its last byte (decision 8).
    """

    def frame(self, frame: Frame, events: Sequence[Event]) -> bytes:
        """What the client gets for this frame, whose events the reader has told. `frame.raw` is the untouched case."""
        ...

    def close(self, usage: Usage) -> bytes:
        """What upstream left out: a finish, usage, the terminator."""
        ...

    def fail(self, error: ProxyError, request_id: str) -> bytes:
        """An error inside the stream; nothing may follow."""
        ...


class Surface(Protocol):
    """A format that clients speak."""

    @property
    def dialect(self) -> str:
        """The format's name."""
        ...

    def keepalive(self, ask: Ask) -> bytes:
        """What may be sent between events while nothing comes, also before the first."""
        ...

    def stream_type(self, ask: Ask) -> str:
        """The content type of a streamed answer; "": upstream's own."""
        ...

    def read(self, body: bytes, headers: Mapping[str, str]) -> Ask:
        """The request. Raises ClientError with the path of the fault. Header names are lower case.

        A route with braces finds what stood there under PATH, and the query under QUERY.
        """
        ...

    def answer(self, ask: Ask, face: Face, events: Iterable[Event], usage: Usage) -> bytes:
        """A whole answer. `usage` is what was billed."""
        ...

    def same(self, ask: Ask, face: Face, body: Document, usage: Usage) -> bytes:
        """A whole answer of the same format: the body itself where nothing must be changed."""
        ...

    def writer(self, ask: Ask, face: Face) -> Writer:
        """A fresh writer for a streamed answer."""
        ...

    def passer(self, ask: Ask, face: Face) -> Passer:
        """A fresh passer for a streamed answer of the same format."""
        ...

    def failure(self, error: ProxyError, request_id: str) -> bytes:
        """The error's body; its status is `error.status` unless `status` says otherwise."""
        ...

    def status(self, error: ProxyError) -> int:
        """The HTTP status this format uses for the error (529 for overloaded on Anthropic's)."""
        ...

    def count(self, tokens: int) -> bytes:
        """The answer of a token-counting request, for formats that have one."""
        ...


Tree = dict[str, Any]
