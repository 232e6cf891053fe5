"""Golden folders: one exchange each, from the client's body to the client's bytes.

    tests/golden/<type>/<case>/
        ask.json              what the client sent, and what else the case needs (fields of `Case`)
        upstream.*            what the provider answered: .sse, .ndjson, .json; .bin is base64, for binary frames
        outgoing.json         the request that must go out
        client.<name>.sse|json  what a client of that surface must get; the same answer for each of them
        usage.json            what must be billed, {} where upstream said nothing

`NEWAPI_PROXY_REGOLD=1` rewrites everything but ask.json and upstream.*: read the difference before keeping it.
"""

from __future__ import annotations

import base64
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import orjson

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters.base import Adapter, Dialect, Outgoing, Target, speaks
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event, fold
from newapi_proxy.ir.usage import NOTHING, Usage
from newapi_proxy.relay.pipe import Pipe, pipe
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.base import PATH, QUERY, Face, Surface
from newapi_proxy.wire.tree import Document

ROOT = Path(__file__).parent.parent / "golden"
REGOLD = os.environ.get("NEWAPI_PROXY_REGOLD") == "1"
ROUTES = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "gemini": "/v1beta/models/{model}:streamGenerateContent",
    "array": "/v1beta/models/{model}:streamGenerateContent",
}
NOW = 1_750_000_000
REQUEST_ID = "req-golden"


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """ask.json. `surface` is the client's, `clients` those whose answers are kept; `status` that of the provider."""

    body: dict[str, Any]
    what: str
    surface: str = "chat"
    clients: tuple[str, ...] = ("chat", "messages")
    upstream_model: str | None = None
    base_url: str = "https://upstream.example"
    key: str = "upstream-key"
    organization: str | None = None
    options: dict[str, Any] = {}
    status: int = 200
    headers: dict[str, str] = {}


class Golden:
    """One folder, and what the code makes of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"{folder.parent.name}/{folder.name}"

    @cached_property
    def case(self) -> Case:
        """ask.json."""
        return msgspec.json.decode((self.folder / "ask.json").read_bytes(), type=Case)

    @property
    def adapter(self) -> Adapter:
        """The provider: the folder above is its type."""
        adapter = ADAPTERS[self.folder.parent.name]
        if adapter.tuned is None:
            return adapter
        return msgspec.structs.replace(adapter, chat=adapter.tuned(adapter.options(**self.case.options)))

    @property
    def binary(self) -> bool:
        """Whether the provider answered with a stream of binary frames."""
        return (self.folder / "upstream.bin").exists()

    @property
    def lines(self) -> bool:
        """Whether the provider answered with a stream of one JSON object a line."""
        return (self.folder / "upstream.ndjson").exists()

    @property
    def streamed(self) -> bool:
        """Whether the provider answered with a stream."""
        return self.binary or self.lines or (self.folder / "upstream.sse").exists()

    @property
    def upstream(self) -> bytes:
        """What the provider answered."""
        if self.binary:
            return base64.b64decode((self.folder / "upstream.bin").read_bytes())
        if self.lines:
            return (self.folder / "upstream.ndjson").read_bytes()
        return (self.folder / ("upstream.sse" if self.streamed else "upstream.json")).read_bytes()

    def ask(self, name: str) -> Ask:
        """The case's own ask, or a plain one for the other surfaces."""
        case = self.case
        body = case.body
        if name != case.surface:
            hi = [{"role": "user", "content": "Hi"}]
            body = {"model": body["model"], "messages": hi, "max_tokens": 512}
            if name == "responses":
                body = {"model": body["model"], "input": hi, "max_output_tokens": 512}
            if name == "completions":
                body = {"model": body["model"], "prompt": "Hi", "max_tokens": 512}
            if name in ("gemini", "array"):
                query = "alt=sse" if name == "gemini" else ""
                hi = [{"role": "user", "parts": [{"text": "Hi"}]}]
                return surface(name).read(orjson.dumps({"contents": hi}), {PATH: self._model, QUERY: query})
            if case.body.get("stream"):
                body["stream"] = True
                body |= {"stream_options": {"include_usage": True}} if name == "chat" else {}
        return surface(name).read(orjson.dumps(body), {})

    def dialect(self, name: str) -> Dialect:
        """The provider's dialect for a client of this surface."""
        found = speaks(self.adapter, surface(name).dialect, self._model)
        assert found is not None
        return found

    @property
    def _model(self) -> str:
        return self.case.upstream_model or str(self.case.body["model"])

    def face(self) -> Face:
        """What answers need beside their events."""
        asked = str(self.case.body["model"])
        return Face(model=asked, id="chatcmpl-golden", created=NOW, rename=asked != self._model)

    def outgoing(self) -> Outgoing:
        """The request for the case's own ask."""
        case = self.case
        target = Target(
            channel="golden",
            base_url=case.base_url,
            key=Secret(case.key),
            model=self._model,
            options=self.adapter.options(**case.options),
            organization=case.organization,
            now=NOW,
        )
        return self.dialect(case.surface).request(self.ask(case.surface), target)

    def pipe(self, name: str) -> Pipe:
        """A fresh pipe to a client of this surface."""
        return pipe(surface(name), self.dialect(name), self.ask(name), self.face())

    def client(self, name: str) -> bytes:
        """What a client of this surface gets."""
        if self.case.status != 200:
            return self._refused(name)
        if self.streamed:
            return streamed(self.pipe(name), [self.upstream])
        return self._whole(name)

    def _refused(self, name: str) -> bytes:
        failure = self.dialect(name).failure(self.case.status, self.case.headers, self.upstream)
        return surface(name).failure(failure, REQUEST_ID)

    def _whole(self, name: str) -> bytes:
        speaker, dialect, ask = surface(name), self.dialect(name), self.ask(name)
        events = dialect.answer(ask, Document(self.upstream))
        told = fold(events)
        if told.failure is not None:
            return speaker.failure(told.failure, REQUEST_ID)
        usage = told.usage or NOTHING
        if speaker.dialect == dialect.dialect:
            return speaker.same(ask, self.face(), Document(self.upstream), usage)
        return speaker.answer(ask, self.face(), events, usage)

    def usage(self) -> Usage | None:
        """What upstream says was used."""
        if self.case.status != 200:
            return None
        name = self.case.surface
        if not self.streamed:
            return fold(self.dialect(name).answer(self.ask(name), Document(self.upstream))).usage
        return fold(self.events(name)).usage

    def events(self, name: str) -> list[Event]:
        """The stream's events."""
        dialect = self.dialect(name)
        decoder, reader = dialect.frames(), dialect.reader(self.ask(name))
        frames = [*decoder.feed(self.upstream), *decoder.close()]
        return [event for frame in frames for event in reader.read(frame)] + list(reader.close())

    def kept(self, name: str) -> Path:
        """The file that holds what a client of this surface must get."""
        kind = "sse" if self.streamed and self.case.status == 200 and name != "array" else "json"
        return self.folder / f"client.{name}.{kind}"


def surface(name: str) -> Surface:
    """The surface of a short name."""
    return SURFACES[ROUTES[name]]


def streamed(one: Pipe, pieces: list[bytes]) -> bytes:
    """What comes out of a pipe for these pieces, its end or its failure included."""
    out = b"".join([one.feed(piece) for piece in pieces if one.heard.failure is None]) + one.drain()
    failure: UpstreamFailure | None = one.heard.failure
    if failure is not None:
        return out + one.fail(failure, REQUEST_ID)
    return out + one.close(one.heard.usage or NOTHING)


def folders() -> list[Golden]:
    """Every case, sorted."""
    return [Golden(path.parent) for path in sorted(ROOT.glob("*/*/ask.json"))]


def pretty(value: Any) -> bytes:
    """JSON to be read by people."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
