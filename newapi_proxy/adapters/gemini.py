"""Gemini: generativelanguage.googleapis.com and every host that speaks its generateContent format.

The format itself stands in the files `_gemini_*`; here are addresses, headers, errors and the record. What a host
wants different stands in its record of `Quirks`, and what no record can say in a function of the draft (`shape`).
Source: provider-translation B.2, interfaces 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import _gemini_answer as answers
from newapi_proxy.adapters import _gemini_failures as failures
from newapi_proxy.adapters import _gemini_request as requests
from newapi_proxy.adapters._gemini_draft import DIALECT, Draft, Quirks
from newapi_proxy.adapters._gemini_embedding import batch
from newapi_proxy.adapters._gemini_media import by_bytes
from newapi_proxy.adapters._gemini_models import suffixed
from newapi_proxy.adapters._gemini_pictures import endpoint as pictures
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters.base import Adapter, Headers, Options, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire import sse, tree

__all__ = ["ADAPTER", "DIALECT", "Draft", "GeminiChat", "GeminiCounting", "GeminiOptions", "Quirks", "key_header"]

VERSION: Final = "v1beta"
_A_VERSION: Final = re.compile(r"v\d\w*", re.ASCII)
_OWN_PLACES: Final = ("models/", "tunedModels/")  # a model's name that says where it stands

Shape = Callable[[Draft, Ask, Target], None]


class GeminiOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides: the API's version, per model too, and the safety settings of every request.

    `safety_settings`: one threshold for all categories, or category → threshold ("default" for those not named), or
    the provider's own list.
    """

    version: str = VERSION
    version_map: Mapping[str, str] = {}
    safety_settings: str | dict[str, str] | tuple[dict[str, str], ...] | None = None


def model_url(to: Target) -> str:
    """The model's address below the channel's base URL; the method follows behind a colon."""
    options: Any = to.options
    version = options.version_map.get(to.model) or options.version
    return join(to.base_url, f"/{quote(version, safe='')}/{model_path(to.model)}")


def model_path(model: str) -> str:
    """`models/NAME`, with nothing in the name that could end the path."""
    for place in _OWN_PLACES:
        if model.startswith(place):
            return place + quote(model.removeprefix(place), safe="")
    return _OWN_PLACES[0] + quote(model, safe="@")


def key_header(to: Target) -> dict[str, str]:
    """The credential; never in the query, which lands in logs."""
    return {"x-goog-api-key": to.key.reveal()}


class GeminiChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect. `url` is the model's address without the method."""

    quirks: Quirks = Quirks()
    url: Callable[[Target], str] = model_url
    auth: Callable[[Target], Mapping[str, str]] = key_header
    shape: Shape | None = None

    @property
    def dialect(self) -> str:
        """The format's name."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The client's own body with what must differ, or one made from the Ask of another format."""
        draft = self.draft(ask, to)
        method = "streamGenerateContent?alt=sse" if ask.stream else "generateContent"
        return Outgoing(
            url=f"{self.url(to)}:{method}",
            body=draft.body,
            headers={"content-type": "application/json", **draft.headers, **self.auth(to)},
            dropped=draft.listed(),
        )

    def draft(self, ask: Ask, to: Target) -> Draft:
        """The body and what had to be left out of it."""
        make = requests.native if ask.dialect == DIALECT else requests.built
        draft = make(ask, to, self.quirks)
        if self.shape is not None:
            self.shape(draft, ask, to)
        return draft

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """A whole answer's events; a 200 that carries an error yields `Failed`."""
        return answers.whole(body.tree, ask)

    def frames(self) -> sse.Decoder:
        """Server-sent events."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> answers.EventReader:
        """A fresh reader."""
        return answers.EventReader(ask)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """The provider's error in our terms."""
        return failures.refused(status, headers, body)


class GeminiCounting(msgspec.Struct, frozen=True, kw_only=True):
    """POST models/…:countTokens; see adapters.base.Counting."""

    chat: GeminiChat = GeminiChat()

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The counting request: a client's own body of this format, or the whole request that it would become."""
        body = ask.tree
        dropped: tuple[str, ...] = ()
        if ask.dialect != DIALECT:
            draft = self.chat.draft(ask, to)
            body, dropped = {"generateContentRequest": {"model": f"models/{to.model}", **draft.body}}, draft.listed()
        headers = {"content-type": "application/json", **self.chat.auth(to)}
        return Outgoing(url=f"{self.chat.url(to)}:countTokens", body=body, headers=headers, dropped=dropped)

    def tokens(self, body: bytes) -> int | None:
        """The count in its answer."""
        value = tree.lenient(body)
        return counted(value.get("totalTokens")) if isinstance(value, dict) else None


def inherited(row: Inherited) -> Meant:
    """A row may name the API's version; New API blocks nothing unless it is told to (relay-and-billing 4.12, 6.1)."""
    options = {"safety_settings": "BLOCK_NONE", **row.options}
    if _A_VERSION.fullmatch(version := row.other or str(row.config.get("api_version") or "")):
        options["version"] = version
    return Meant(options=options)


_CHAT: Final = GeminiChat()
ADAPTER: Final = Adapter(
    name="gemini",
    numbers=(24,),
    base_url="https://generativelanguage.googleapis.com",
    options=GeminiOptions,
    chat=(_CHAT,),
    embeddings=batch(model_url, key_header, model_path),
    images=pictures(lambda ask, to: model_url(to), key_header, _CHAT.answer, lambda model: True),
    counting=GeminiCounting(),
    by_bytes=by_bytes,
    suffixes=suffixed,
    inherited=inherited,
    owner="google gemini",
)
