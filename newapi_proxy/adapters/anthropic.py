"""Anthropic: api.anthropic.com and hosts that speak its Messages format.

The format itself stands in `_anthropic_request` and `_anthropic_answer`; here are address, headers, errors and the
record. Source: provider-translation B.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from newapi_proxy.adapters import _anthropic_answer as answers
from newapi_proxy.adapters import _anthropic_request as requests
from newapi_proxy.adapters._anthropic_models import suffixed
from newapi_proxy.adapters._failures import normalise, said
from newapi_proxy.adapters.base import Adapter, Headers, Options, Outgoing, Target, join, refuse_own
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire import sse, tree

VERSION: Final = "2023-06-01"
DIALECT: Final = "anthropic"


class AnthropicOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides: betas for every request, where the key goes, unsigned thinking as text."""

    beta: tuple[str, ...] = ()
    auth: Literal["x-api-key", "api-key", "bearer"] = "x-api-key"
    thinking_as_text: bool = False


class AnthropicMessages:
    """POST /v1/messages."""

    dialect = DIALECT

    def serves(self, model: str) -> bool:
        """See adapters.base.Dialect."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        built = build(ask, to)
        return Outgoing(
            url=join(to.base_url, "/v1/messages"),
            body=built.body,
            headers=_headers(ask, to, built.betas),
            dropped=built.dropped,
        )

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """See adapters.base.Dialect."""
        return answers.whole(body.tree, _fenced(ask))

    def frames(self) -> sse.Decoder:
        """See adapters.base.Dialect."""
        return sse.Decoder()

    def reader(self, ask: Ask) -> answers.EventReader:
        """See adapters.base.Dialect."""
        return answers.EventReader(_fenced(ask))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect. An error type with a status of its own speaks before the status (B.1)."""
        words = said(body)
        typed = _STATUSES.get(words.type or "", status) if words is not None else status
        failure = normalise(typed, words, headers, body)
        failure.upstream_status = status
        return failure


class AnthropicCounting:
    """POST /v1/messages/count_tokens."""

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Counting."""
        built = build(ask, to)
        return Outgoing(
            url=join(to.base_url, "/v1/messages/count_tokens"),
            body=requests.countable(built.body),
            headers=_headers(ask, to, built.betas),
            dropped=built.dropped,
        )

    def tokens(self, body: bytes) -> int | None:
        """See adapters.base.Counting."""
        value = tree.lenient(body)
        return counted(value.get("input_tokens")) if isinstance(value, dict) else None


_STATUSES: Final = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def build(ask: Ask, to: Target) -> requests.Built:
    """The body for this ask: the client's own where it speaks this format, else a translated one."""
    if ask.dialect == DIALECT:
        return requests.Built(body=requests.native(ask, to.model))
    refuse_own(ask)
    return requests.translated(ask, to.model, to.options)


def betas(ask: Ask, own: Sequence[str]) -> list[str]:
    """The client's betas and ours, each once."""
    given = ask.headers.get("anthropic-beta", "").split(",")
    return list(dict.fromkeys(name.strip() for name in (*given, *own) if name.strip()))


def _headers(ask: Ask, to: Target, own: Sequence[str]) -> dict[str, str]:
    options: Any = to.options
    key = to.key.reveal()
    form = getattr(options, "auth", "x-api-key")
    headers = {"authorization": f"Bearer {key}"} if form == "bearer" else {form: key}
    headers["anthropic-version"] = ask.headers.get("anthropic-version") or VERSION
    headers["content-type"] = "application/json"
    wanted = betas(ask, (*own, *getattr(options, "beta", ())))
    if wanted:
        headers["anthropic-beta"] = ",".join(wanted)
    return headers


def _fenced(ask: Ask) -> bool:
    return ask.dialect != DIALECT and ask.controls.format is not None


ADAPTER: Final = Adapter(
    name="anthropic",
    numbers=(14,),
    base_url="https://api.anthropic.com",
    options=AnthropicOptions,
    chat=(AnthropicMessages(),),
    counting=AnthropicCounting(),
    suffixes=suffixed,
    retry_400=True,
    owner="claude",
)
