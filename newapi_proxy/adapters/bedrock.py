"""AWS Bedrock: any model by Converse, Claude also by InvokeModel in Anthropic's own format.

The formats stand in `_bedrock_request`, `_bedrock_answer` and `_bedrock_claude`; here are keys, addresses, signatures,
errors and the record. Source: provider-translation B.6, interfaces 3.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import _anthropic_answer as events
from newapi_proxy.adapters import _bedrock_answer as answers
from newapi_proxy.adapters import _bedrock_claude as claude
from newapi_proxy.adapters import _bedrock_embedding as embedding
from newapi_proxy.adapters import _sigv4
from newapi_proxy.adapters._anthropic_models import suffixed
from newapi_proxy.adapters._bedrock_media import wanted
from newapi_proxy.adapters._bedrock_models import model_id, placeless, traits
from newapi_proxy.adapters._bedrock_request import converse
from newapi_proxy.adapters._failures import normalise, said
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters.anthropic import DIALECT as MESSAGES
from newapi_proxy.adapters.base import (
    Adapter,
    Dialect,
    Endpoint,
    Granted,
    Headers,
    Options,
    Outgoing,
    Target,
    join,
)
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire import tree
from newapi_proxy.wire.eventstream import Decoder

CONVERSE: Final = "bedrock-converse"
SERVICE: Final = "bedrock"
STREAM: Final = "application/vnd.amazon.eventstream"
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_UNKNOWN_MODEL: Final = re.compile(r"model identifier is invalid", re.I)


class BedrockOptions(Options, frozen=True, kw_only=True):
    """`region` wins over the key's; `bedrock_api` is the way to Claude, every other model is called by Converse."""

    region: str | None = None
    bedrock_api: Literal["converse", "invoke"] = "converse"


class Converse:
    """POST /model/{id}/converse and /converse-stream."""

    dialect = CONVERSE

    def serves(self, model: str) -> bool:
        """See adapters.base.Dialect."""
        return True

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        built = converse(ask, to.model, to.options)
        return _outgoing(to, "converse-stream" if ask.stream else "converse", built.body, built.dropped, ask.stream)

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """See adapters.base.Dialect."""
        return answers.whole(body.tree, ask.controls.format is not None)

    def frames(self) -> Decoder:
        """See adapters.base.Dialect."""
        return Decoder(answers.framed)

    def reader(self, ask: Ask) -> answers.ConverseReader:
        """See adapters.base.Dialect."""
        return answers.ConverseReader(ask.controls.format is not None)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        return failure(status, headers, body)


class ClaudeInvoke:
    """POST /model/{id}/invoke and /invoke-with-response-stream, with Claude's own body."""

    dialect = MESSAGES

    def serves(self, model: str) -> bool:
        """See adapters.base.Dialect. A name that tells no maker may be a profile of Claude's."""
        return traits(model).maker in ("anthropic", "")

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Dialect."""
        built = claude.invoke(ask, to.model, to.options)
        what = "invoke-with-response-stream" if ask.stream else "invoke"
        return _outgoing(to, what, built.body, built.dropped, ask.stream, built.headers)

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """See adapters.base.Dialect."""
        return events.whole(body.tree, _fenced(ask))

    def frames(self) -> Decoder:
        """See adapters.base.Dialect."""
        return Decoder(claude.framed)

    def reader(self, ask: Ask) -> events.EventReader:
        """See adapters.base.Dialect."""
        return events.EventReader(_fenced(ask))

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """See adapters.base.Dialect."""
        return failure(status, headers, body)


class Counting:
    """POST /model/{id}/count-tokens, for the way that the channel calls its models by."""

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """See adapters.base.Counting."""
        if to.options.bedrock_api == "invoke" and INVOKE.serves(to.model):
            built = claude.invoke(ask, to.model, to.options)
            built.body.setdefault("max_tokens", 1)
            given: dict[str, Any] = {"invokeModel": {"body": base64.b64encode(tree.encode(built.body)).decode()}}
        else:
            body = converse(ask, to.model, to.options).body
            given = {"converse": {name: body[name] for name in _COUNTED if name in body}}
        model = placeless(model_id(to.model, _account(to).region))
        return _outgoing(msgspec.structs.replace(to, model=model), "count-tokens", {"input": given})

    def tokens(self, body: bytes) -> int | None:
        """See adapters.base.Counting."""
        value = tree.lenient(body)
        return counted(value.get("inputTokens")) if isinstance(value, dict) else None


_COUNTED: Final = ("messages", "system", "toolConfig", "additionalModelRequestFields")


class _Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a key says: a bearer token, or who signs; and the region. `fault`: why it cannot be used."""

    region: str
    bearer: str = ""
    access: str = ""
    secret: str = ""
    fault: str = ""


def failure(status: int, headers: Headers, body: bytes) -> UpstreamFailure:
    """An error answer in our terms: the exception's name speaks before the status."""
    value = tree.lenient(body)
    name = value.get("__type") if isinstance(value, dict) else None
    name = headers.get("x-amzn-errortype") or (name if isinstance(name, str) else "")
    words = said(body)
    typed = answers.status_of(name, status)
    if typed == 400 and words is not None and _UNKNOWN_MODEL.search(words.message):
        typed = 404
    found = normalise(typed, words, headers, body)
    found.upstream_status = status
    return found


def tuned(options: Any) -> tuple[Dialect, ...]:
    """See adapters.base.Adapter: the operator chooses the way to Claude."""
    return (INVOKE, CONVERSED) if options.bedrock_api == "invoke" else (CONVERSED,)


def by_bytes(medium: Media, model: str) -> bool:
    """See adapters.base.Adapter: nothing is fetched from the web by AWS."""
    return wanted(medium, traits(model))


class KeyCheck:
    """No exchange: a key serves as it is, or is told to be broken before anything is sent."""

    def request(self, to: Target) -> Outgoing | None:
        """See adapters.base.Credential."""
        fault = _account(to).fault
        if fault:
            raise UpstreamFailure(
                f"The channel's key {fault}.",
                kind="upstream_auth",
                code="upstream_credentials",
                blames="key",
                detail="key not used",
            )
        return None

    def granted(self, body: tree.Document, now: int) -> Granted | None:
        """See adapters.base.Credential."""
        return None


# `ACCESS|SECRET|REGION`, a bearer key, or a bearer key and its region.
def _account(to: Target) -> _Account:
    parts = [part.strip() for part in to.key.reveal().split("|")]
    region = to.options.region or (parts[-1] if len(parts) > 1 else "")
    signs = len(parts) == 3
    fault = ""
    if len(parts) > 3 or not parts[0] or (signs and not parts[1]):
        fault = "is neither ACCESS|SECRET|REGION nor a bearer key"
    elif not _REGION.fullmatch(region) and (signs or region or not to.base_url):
        fault = "names no region, and neither do the channel's options"
    if signs:
        return _Account(region=region, access=parts[0], secret=parts[1], fault=fault)
    return _Account(region=region, bearer=parts[0], fault=fault)


def _outgoing(
    to: Target,
    what: str,
    body: dict[str, Any],
    dropped: tuple[str, ...] = (),
    stream: bool = False,
    more: Mapping[str, str] | None = None,
) -> Outgoing:
    account = _account(to)
    domain = "amazonaws.com.cn" if account.region.startswith("cn-") else "amazonaws.com"
    base = to.base_url or f"https://bedrock-runtime.{account.region}.{domain}"
    id = quote(model_id(to.model, account.region), safe="")
    headers = {"content-type": "application/json", "accept": STREAM if stream else "application/json", **(more or {})}
    if account.bearer:
        headers["authorization"] = f"Bearer {account.bearer}"
        return Outgoing(url=join(base, f"/model/{id}/{what}"), body=body, headers=headers, dropped=dropped)
    keys = _sigv4.Keys(access=account.access, secret=account.secret, region=account.region, service=SERVICE)

    def sign(url: str, given: Mapping[str, str], data: bytes) -> Mapping[str, str]:
        return _sigv4.signed(keys, "POST", url, given, data, to.now)

    return Outgoing(url=join(base, f"/model/{id}/{what}"), body=body, headers=headers, dropped=dropped, sign=sign)


def _fenced(ask: Ask) -> bool:
    return ask.dialect != MESSAGES and ask.controls.format is not None


def _inherited(row: Inherited) -> Meant:
    """One API keeps the parts of the credential apart (relay-and-billing 4.12)."""
    parts = [str(row.config.get(name) or "") for name in ("ak", "sk", "region")]
    return Meant(options=row.options, keys=("|".join(parts),) if all(parts) else None)


def _embed(ask: Ask, to: Target) -> Outgoing:
    body, dropped = embedding.built(ask, to.model)
    return _outgoing(to, "invoke", body, dropped)


INVOKE: Final = ClaudeInvoke()
CONVERSED: Final = Converse()

ADAPTER: Final = Adapter(
    name="bedrock",
    numbers=(33,),
    options=BedrockOptions,
    chat=(CONVERSED,),
    embeddings=Endpoint(
        dialect=embedding.DIALECT,
        request=_embed,
        answer=embedding.answered,
        failure=failure,
        batches=lambda ask, to: embedding.batches(ask, to.model),
        tokens=False,
    ),
    tuned=tuned,
    counting=Counting(),
    by_bytes=by_bytes,
    suffixes=suffixed,
    credential=KeyCheck(),
    inherited=_inherited,
    aliases=True,
    owner="aws",
)
