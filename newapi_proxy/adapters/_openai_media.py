"""Pictures, speech and transcription on servers of the OpenAI format: the client's body or form with upstream's model.

Knows which types have which endpoint. Answers are handed on as they come, whatever their size: a reader looks at their
first and last bytes for errors and usage, and counts pictures by their names. Source: provider-translation A.5, B.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy.adapters import _failures
from newapi_proxy.adapters._openai_usage import read_usage
from newapi_proxy.adapters.base import Endpoint, Headers, Outgoing, Reader, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, Failed, Metered, Started, Yielded
from newapi_proxy.ir.matter import Depict, Handed, Transcribe
from newapi_proxy.ir.usage import Pieces, Usage, counted
from newapi_proxy.wire import raw, tree
from newapi_proxy.wire.multipart import Upload
from newapi_proxy.wire.sse import Frame
from newapi_proxy.wire.tree import Document

Node = dict[str, Any]
At = Callable[[Target, str], str]  # the address of "images/generations" and the like

IMAGES: Final = "openai.images"
SPEECH: Final = "openai.speech"
TRANSCRIPTION: Final = "openai.transcription"
ENDS: Final = 8192  # bytes at both ends of an answer that are looked at
_NAMES: Final = (b'"b64_json"', b'"url"')
_DONE: Final = (b'"image_generation.completed"', b'"image_edit.completed"')
_LONGEST: Final = max(map(len, (*_NAMES, *_DONE)))

_PREFIXES: Final[Mapping[str, Mapping[str, str]]] = {
    "images": {
        **dict.fromkeys(("openai", "siliconflow", "together", "xai", "openrouter", "xinference"), "/v1/"),
        "volcengine": "/api/v3/",
        "baidu": "/v2/",
        "openai-compatible": "/",
    },
    "speech": {
        **dict.fromkeys(("openai", "groq", "siliconflow", "together", "xinference"), "/v1/"),
        "openai-compatible": "/",
    },
    "transcription": {
        **dict.fromkeys(("openai", "groq", "siliconflow", "together", "fireworks", "xinference"), "/v1/"),
        "openai-compatible": "/",
    },
}
"""Kind of endpoint, then the types whose servers have it, and what its path begins with there."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server has these endpoints, and how it is asked there. `named`: the model stands in the body too."""

    at: At
    auth: Callable[[Target], dict[str, str]]
    headers: Mapping[str, str] = {}
    failed: Callable[[int, Headers, bytes], UpstreamFailure] | None = None
    model: Callable[[Target], str] = lambda to: to.model

    def sent(self, ask: Ask, to: Target, path: str) -> Outgoing:
        """The client's own body or form there."""
        fields = {**ask.tree, "model": self.model(to)}
        headers = {**self.headers, **self.auth(to)}
        if ask.form is not None:
            body = Upload(fields=fields, files=ask.form.files, boundary=ask.form.boundary)
            return Outgoing(url=self.at(to, path), body=body, headers=headers)
        return Outgoing(url=self.at(to, path), body=fields, headers={"content-type": "application/json", **headers})

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        if self.failed is not None:
            return self.failed(status, headers, body)
        return _failures.normalise(status, _failures.said(body), headers, body)


class Ends:
    """An answer's first and last bytes, and how often some names stand in it."""

    __slots__ = ("_names", "_tail", "counts", "head", "size")

    def __init__(self, names: Sequence[bytes]) -> None:
        self._names = names
        self._tail = b""
        self.counts = [0] * len(names)
        self.head = b""
        self.size = 0

    def feed(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        if len(self.head) < ENDS:
            self.head += data[: ENDS - len(self.head)]
        over = self._tail[-(_LONGEST - 1) :]
        for place, name in enumerate(self._names):
            self.counts[place] += (over + data).count(name) - over.count(name)
        self._tail = (self._tail + data)[-ENDS:] if len(data) < ENDS else data[-ENDS:]

    def usage(self) -> Node | None:
        """The last object called usage at either end, None where there is none."""
        for part in (self._tail, self.head):
            start = part.rfind(b'"usage"')
            opened = part.find(b"{", start) if start >= 0 else -1
            if opened >= 0 and not part[start + 7 : opened].strip(b" \t\r\n:"):
                found = tree.lenient(part[opened : _closed(part, opened)])
                if type(found) is dict:
                    return found
        return None


def _closed(part: bytes, opened: int) -> int:
    """Where the object that begins there ends; counts alone stand in a usage, no texts with braces."""
    depth = 0
    for at in range(opened, len(part)):
        depth += (part[at : at + 1] == b"{") - (part[at : at + 1] == b"}")
        if not depth:
            return at + 1
    return len(part)


class Pictures:
    """Reader of an images answer, a document or a stream of events."""

    def __init__(self, ask: Ask) -> None:
        """A fresh answer."""
        self._ask = ask
        self._ends = Ends(_NAMES if ask.handed else _DONE)

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        first = not self._ends.size
        self._ends.feed(frame.raw)
        refused = _refused(frame.raw) if first else None
        return (refused,) if refused is not None else (Yielded(Handed(len(frame.raw))),)

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader."""
        asked = self._ask.pieces
        assert asked is not None
        came = msgspec.structs.replace(asked, pictures=max(self._ends.counts))
        return (Metered(_with(read_usage(self._ends.usage()), came)),)


class Sound:
    """Reader of a speech answer, or of a stream of transcribed words."""

    def __init__(self, ask: Ask) -> None:
        """A fresh answer."""
        self._ask = ask
        self._ends = Ends(())

    def read(self, frame: Frame) -> Iterable[Event]:
        """See adapters.base.Reader."""
        first = not self._ends.size
        self._ends.feed(frame.raw)
        refused = _refused(frame.raw) if first else None
        return (refused,) if refused is not None else (Yielded(Handed(len(frame.raw))),)

    def close(self) -> Iterable[Event]:
        """See adapters.base.Reader."""
        assert self._ask.pieces is not None
        told = None if self._ask.handed else self._ends.usage()
        return (Metered(_with(read_usage(told), _lasted(told, self._ask.pieces))),)


def _with(usage: Usage | None, pieces: Pieces) -> Usage:
    """What upstream told, with the pieces that came."""
    return msgspec.structs.replace(usage if usage is not None else Usage(), pieces=pieces)


def _lasted(told: Any, pieces: Pieces) -> Pieces:
    """The sound's length as upstream measured it, where it says so."""
    seconds = told.get("seconds") if type(told) is dict and told.get("type") == "duration" else None
    if not isinstance(seconds, (int, float)) or counted(int(seconds)) is None or not pieces.milliseconds:
        return pieces
    return msgspec.structs.replace(pieces, milliseconds=max(1, round(seconds * 1000)))


def _refused(data: bytes) -> Failed | None:
    """The error that an answer may be in spite of its status."""
    if not data[:64].lstrip().startswith((b'{"error"', b'{\n  "error"', b'{ "error"')):
        return None
    node = tree.lenient(data)
    told = _failures.told(node) if type(node) is dict else None
    return Failed(_failures.inband(told or _failures.Said(message="The provider answered with an error.")))


def pictured(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of a whole images answer."""
    reader = Pictures(ask)
    return (*reader.read(Frame(body.raw, "", body.raw)), *reader.close())


def heard(ask: Ask, body: Document) -> Sequence[Event]:
    """The events of a whole speech or transcription answer; one that is asked for as JSON must be JSON."""
    refused = _refused(body.raw)
    if refused is None and not body.raw:
        refused = Failed(UpstreamFailure("The provider's answer is empty.", code="empty_response"))
    if refused is not None:
        return (refused,)
    assert ask.pieces is not None
    node = body.tree if not ask.answer_type and type(body.tree) is dict else {}
    told = node.get("usage")
    lasts = told or {"type": "duration", "seconds": node.get("duration")}  # verbose_json
    return (Started(), Metered(_with(read_usage(told), _lasted(lasts, ask.pieces))))


def images(site: Site) -> Endpoint:
    """Pictures of the OpenAI format there."""

    def request(ask: Ask, to: Target) -> Outgoing:
        assert isinstance(ask.matter, Depict)
        return site.sent(ask, to, f"images/{ask.matter.action}")

    return _handed_on(site, IMAGES, request, pictured, Pictures)


def speech(site: Site) -> Endpoint:
    """Speech of the OpenAI format there."""
    return _handed_on(site, SPEECH, lambda ask, to: site.sent(ask, to, "audio/speech"), heard, Sound)


def transcription(site: Site) -> Endpoint:
    """Transcription and translation of the OpenAI format there."""

    def request(ask: Ask, to: Target) -> Outgoing:
        assert isinstance(ask.matter, Transcribe)
        return site.sent(ask, to, f"audio/{ask.matter.action}")

    return _handed_on(site, TRANSCRIPTION, request, heard, Sound)


def _handed_on(
    site: Site,
    dialect: str,
    request: Callable[[Ask, Target], Outgoing],
    answer: Callable[[Ask, Document], Sequence[Event]],
    reader: Callable[[Ask], Reader],
) -> Endpoint:
    """An endpoint whose streamed answers go on as they come."""
    return Endpoint(
        dialect=dialect,
        request=request,
        answer=answer,
        failure=site.failure,
        frames=raw.Decoder,
        reader=reader,
        raw=True,
    )


def beside(name: str, auth: Callable[[Target], dict[str, str]], headers: Mapping[str, str]) -> dict[str, Any]:
    """The slots of a type's record for the endpoints that its servers have, by their names."""
    made = {"images": images, "speech": speech, "transcription": transcription}
    return {
        kind: made[kind](Site(at=_below(prefixes[name]), auth=auth, headers=headers))
        for kind, prefixes in _PREFIXES.items()
        if name in prefixes
    }


def _below(prefix: str) -> At:
    return lambda to, path: join(to.base_url, prefix + path)
