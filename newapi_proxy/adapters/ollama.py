"""Ollama's own API: /api/chat, and /api/generate for bare prompts, with answers of one JSON object a line.

What goes up stands in `_ollama_request`, what comes down in `_ollama_answer`; here are the address and the record. Its
OpenAI mode is the type for that format. Source: provider-translation B.4, interfaces 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from newapi_proxy.adapters import _ollama_answer as answers
from newapi_proxy.adapters import _ollama_request as requests
from newapi_proxy.adapters._failures import normalise, said
from newapi_proxy.adapters._ollama_embedding import EMBEDDINGS
from newapi_proxy.adapters._ollama_messages import by_bytes
from newapi_proxy.adapters.base import Adapter, Headers, Options, Outgoing, Target, join
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.wire import ndjson
from newapi_proxy.wire.tree import Document

DIALECT: Final = "ollama"
COMPLETIONS: Final = "openai.completions"  # the format of clients that have a prompt and no conversation


class OllamaOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides.

    `keep_alive`: how long the model stays loaded ("5m", seconds, -1 for ever). `num_ctx`: the context's size in tokens.
    `think_levels`: false for models that know no levels of thinking, only on and off.
    """

    keep_alive: str | int | None = None
    num_ctx: int | None = None
    think_levels: bool = True


class OllamaChat(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect; see adapters.base.Dialect."""

    @property
    def dialect(self) -> str:
        """The format's name; no client speaks it."""
        return DIALECT

    def serves(self, model: str) -> bool:
        """Every model."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect. A key is sent where the channel has one: a server at home wants none."""
        prompt = ask.dialect == COMPLETIONS
        built = requests.generate(ask, to) if prompt else requests.chat(ask, to)
        headers = {"content-type": "application/json"}
        if to.key.reveal():
            headers["authorization"] = f"Bearer {to.key.reveal()}"
        url = join(to.base_url, "/api/generate" if prompt else "/api/chat")
        return Outgoing(url=url, body=built.body, headers=headers, dropped=built.dropped)

    def answer(self, ask: Ask, body: Document) -> Sequence[Event]:
        """See adapters.base.Dialect."""
        return answers.whole(body)

    def frames(self) -> ndjson.Decoder:
        """One JSON object a line."""
        return ndjson.Decoder()

    def reader(self, ask: Ask) -> answers.Reader:
        """A fresh reader."""
        return answers.Reader()

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        return normalise(status, said(body), headers, body)


ADAPTER: Final = Adapter(
    name="ollama",
    numbers=(4,),
    base_url="http://localhost:11434",
    key_required=False,
    options=OllamaOptions,
    chat=(OllamaChat(),),
    embeddings=EMBEDDINGS,
    by_bytes=by_bytes,
    owner="ollama",
)
