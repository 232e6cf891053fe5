"""Vertex AI: Gemini, Claude and open models behind one account, each in its own format.

The model's name says the family, the family the format and the path. Claude's differences stand in `_vertex_claude`,
the service account in `_vertex_account`. Source: provider-translation B.3, interfaces 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from newapi_proxy.adapters import _gemini_embedding as embedding
from newapi_proxy.adapters import _gemini_failures, _gemini_pictures, _vertex_claude, anthropic, gemini, openai
from newapi_proxy.adapters._anthropic_models import suffixed
from newapi_proxy.adapters._anthropic_request import countable
from newapi_proxy.adapters._embedding import split
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters._openai_draft import Draft, media
from newapi_proxy.adapters._vertex_account import AccessTokens, account, bearer, fault
from newapi_proxy.adapters.base import (
    Adapter,
    Decoder,
    Dialect,
    Endpoint,
    Headers,
    Options,
    Outgoing,
    Reader,
    Target,
    join,
)
from newapi_proxy.errors import Unsupported, UpstreamFailure
from newapi_proxy.ir.ask import Ask, Media
from newapi_proxy.ir.events import Event
from newapi_proxy.ir.suffix import Named
from newapi_proxy.ir.usage import counted
from newapi_proxy.wire import tree

REGION: Final = "global"
MOST_TEXTS: Final = 250  # in one request for vectors
COUNTER: Final = "count-tokens"  # the model that counts a Claude's tokens
TIER: Final = "x-vertex-ai-llm-shared-request-type"
_JSON: Final = {"content-type": "application/json"}
_TIERS: Final = ("flex", "priority")
_MULTI: Final = ("us", "eu")  # regions of several places, with hosts of their own kind
_OURS: Final = ("google/", "anthropic/", "projects/", "endpoints/", "models/")
_PICTURED: Final = re.compile(r"llama-?3", re.I)  # models that see one picture, before the text


class VertexOptions(Options, frozen=True, kw_only=True):
    """What this type takes besides.

    `project` wins over the key's own. `region`: one, or model → region with "default" for the others. `api`: the
    generation of the interface. `safety_settings`: as for the type gemini. `beta`: betas for every request to a Claude.
    """

    project: str | None = None
    region: str | dict[str, str] = REGION
    api: Literal["v1", "v1beta1"] = "v1"
    safety_settings: str | dict[str, str] | tuple[dict[str, str], ...] | None = None
    beta: tuple[str, ...] = ()


def is_open(model: str) -> bool:
    """Whether the model is one of the open ones, which all speak one format."""
    if model.startswith(_OURS):
        return False
    return "/" in model or model.startswith("llama") or model.endswith("-maas")


def is_gemini(model: str) -> bool:
    """Whether the model speaks Google's own format: what is neither of the others, tuned models too."""
    return not is_open(model) and not _vertex_claude.is_claude(model)


def _open_name(model: str) -> str:
    """`meta/NAME-maas` for a Llama, other publishers' names as they are."""
    if model.startswith("llama"):
        model = f"meta/{model}"
    return f"{model}-maas" if model.startswith("meta/") and not model.endswith("-maas") else model


def host(region: str) -> str:
    """Where a region is served."""
    if region == REGION:
        return "https://aiplatform.googleapis.com"
    if region in _MULTI:
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{quote(region, safe='')}-aiplatform.googleapis.com"


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """Another provider's dialect for one family of models; see adapters.base.Dialect.

    `name`: Vertex's own name of a model.
    """

    inner: Dialect
    family: Callable[[str], bool]
    name: Callable[[str], str]

    @property
    def dialect(self) -> str:
        """The format's name."""
        return self.inner.dialect

    def serves(self, model: str) -> bool:
        """The family's models."""
        return self.family(model)

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """The dialect's own request, sent where the model is."""
        return self.inner.request(ask, _placed(ask, to, self.name(to.model)))

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """As the dialect inside."""
        return self.inner.answer(ask, body)

    def frames(self) -> Decoder:
        """As the dialect inside."""
        return self.inner.frames()

    def reader(self, ask: Ask) -> Reader:
        """As the dialect inside."""
        return self.inner.reader(ask)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """As the dialect inside."""
        return self.inner.failure(status, headers, body)


def _placed(ask: Ask, to: Target, name: str) -> Target:
    """The target with Vertex's own name of the model and the one region that it is asked in."""
    options = to.options
    regions = options.region
    if isinstance(regions, dict):
        found = regions.get(ask.model) or regions.get(to.model) or regions.get("default") or REGION
        options = msgspec.structs.replace(options, region=found)
    return msgspec.structs.replace(to, model=name, options=options)


def _url(to: Target, path: str) -> str:
    """An address in the project; with an API key and no project, the short one of the express mode."""
    options = to.options
    found = account(to.key)
    project = options.project or (found.project if found is not None else "")
    if not project and found is None and not bearer(to.key):
        return join(to.base_url or host(REGION), f"/{options.api}/{path}")
    place = f"projects/{quote(project, safe=':')}/locations/{quote(options.region, safe='')}"
    return join(to.base_url or host(options.region), f"/{options.api}/{place}/{path}")


def _auth(to: Target) -> dict[str, str]:
    if account(to.key) is not None:
        return {"authorization": f"Bearer {to.granted}"}
    key = to.key.reveal()
    return {"authorization": f"Bearer {key}"} if bearer(to.key) else {"x-goog-api-key": key}


def _gemini_name(model: str) -> str:
    return model.removeprefix("models/").removeprefix("google/")


def _gemini_url(to: Target) -> str:
    """The model's address without the method; a tuned model is an endpoint of the project."""
    if to.model.startswith("projects/"):
        path = "/".join(quote(step, safe="@:") for step in to.model.split("/") if step not in ("", ".", ".."))
        return join(to.base_url or host(to.options.region), f"/{to.options.api}/{path}")
    endpoint = to.model.removeprefix("endpoints/")
    if endpoint != to.model or endpoint.isdecimal():
        return _url(to, f"endpoints/{quote(endpoint, safe='')}")
    return _url(to, f"publishers/google/models/{quote(to.model, safe='@')}")


# The tier stands in a header here, and the answer says in `trafficType` what it was.
def _gemini_shape(draft: gemini.Draft, ask: Ask, to: Target) -> None:
    wish: Any = ask.controls.service_tier
    for name in ("serviceTier", "service_tier"):
        wish = draft.body.pop(name, None) or wish
    word = wish.lower() if isinstance(wish, str) else ""
    if word in _TIERS:
        draft.headers[TIER] = word
    if word in (*_TIERS, "default", "standard"):
        draft.dropped = [one for one in draft.dropped if one != "service_tier"]


class ClaudeMessages:
    """Anthropic's dialect as Vertex hosts it; see adapters.base.Dialect."""

    dialect = anthropic.DIALECT
    _own = anthropic.AnthropicMessages()

    def serves(self, model: str) -> bool:
        """Claude's names."""
        return _vertex_claude.is_claude(model)

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """rawPredict, streamRawPredict."""
        built = _vertex_claude.built(ask, to)
        body = {name: value for name, value in built.body.items() if name != "model"}
        method = "streamRawPredict" if ask.stream else "rawPredict"
        return Outgoing(
            url=f"{_claude_url(to, to.model)}:{method}",
            body=body,
            headers={**_JSON, **_auth(to)},
            dropped=built.dropped,
        )

    def answer(self, ask: Ask, body: tree.Document) -> Sequence[Event]:
        """As Anthropic."""
        return self._own.answer(ask, body)

    def frames(self) -> Decoder:
        """As Anthropic."""
        return self._own.frames()

    def reader(self, ask: Ask) -> Reader:
        """As Anthropic."""
        return self._own.reader(ask)

    def failure(self, status: int, headers: Headers, body: bytes) -> UpstreamFailure:
        """Anthropic's errors, and Google's for quotas and permissions."""
        value = tree.lenient(body)
        if isinstance(value, dict) and value.get("type") == "error":
            return self._own.failure(status, headers, body)
        return _gemini_failures.refused(status, headers, body)


def _claude_url(to: Target, model: str) -> str:
    return _url(to, f"publishers/anthropic/models/{quote(model, safe='@')}")


# Llama 3 sees one picture, and only before the text (B.3).
def _open_shape(draft: Draft, ask: Ask, to: Target) -> None:
    if not _PICTURED.search(to.model):
        return
    pictures = [part for part in media(ask) if part.kind == "image"]
    if len(pictures) > 1:
        raise Unsupported("This model takes one image per request.", pictures[1].path, "unsupported_content")
    if pictures:
        draft.each(_picture_first, lambda one: isinstance(one.get("content"), list))


def _picture_first(message: dict[str, Any]) -> None:
    message["content"] = sorted(message["content"], key=lambda part: not _pictures(part))


def _pictures(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


class VertexCounting:
    """Token counting where the family has it; see adapters.base.Counting."""

    def request(self, ask: Ask, to: Target) -> Outgoing:
        """Claude's `count-tokens`, Gemini's `countTokens`. Raises Unsupported for the others."""
        if _vertex_claude.is_claude(to.model):
            to = _placed(ask, to, _vertex_claude.name(to.model))
            built = _vertex_claude.built(ask, to)
            url = f"{_claude_url(to, COUNTER)}:rawPredict"
            return Outgoing(url=url, body=countable(built.body), headers={**_JSON, **_auth(to)}, dropped=built.dropped)
        if not is_gemini(to.model):
            raise Unsupported(f"Vertex AI counts no tokens for {to.model}.", "model")
        to = _placed(ask, to, _gemini_name(to.model))
        if ask.dialect == gemini.DIALECT:
            return Outgoing(url=f"{_gemini_url(to)}:countTokens", body=dict(ask.tree), headers={**_JSON, **_auth(to)})
        draft = _GEMINI.draft(ask, to)
        return Outgoing(
            url=f"{_gemini_url(to)}:countTokens",
            body={name: draft.body[name] for name in _COUNTED if name in draft.body},
            headers={**_JSON, **_auth(to)},
            dropped=draft.listed(),
        )

    def tokens(self, body: bytes) -> int | None:
        """The count, under either name."""
        value = tree.lenient(body)
        if not isinstance(value, dict):
            return None
        found = counted(value.get("input_tokens"))
        return counted(value.get("totalTokens")) if found is None else found


_COUNTED: Final = ("contents", "systemInstruction", "tools")
_GEMINI: Final = gemini.GeminiChat(
    quirks=gemini.Quirks(name="Vertex AI", addresses=True, labels=True, tiers=False, invocations=False),
    url=_gemini_url,
    auth=_auth,
    shape=_gemini_shape,
)
_OPEN: Final = openai.OpenAIChat(
    quirks=openai.Quirks(developer=False),
    url=lambda to: _url(to, "endpoints/openapi/chat/completions"),
    auth=_auth,
    shape=_open_shape,
    failed=_gemini_failures.refused,
)


def by_bytes(medium: Media, model: str) -> bool:
    """Claude is given no address at all, Gemini those that Google reaches by itself, open models pictures only.

    Pictures are fetched for a Gemini whoever names them: Google obeys robots files and refuses the request (B.3).
    """
    if _vertex_claude.is_claude(model):
        return True
    if not is_open(model) and medium.kind == "image" and (medium.url or "").lower().startswith(("http://", "https://")):
        return True
    wanted = openai.file_urls if is_open(model) else gemini.ADAPTER.by_bytes
    return wanted is not None and wanted(medium, model)


def suffixes(model: str) -> Named | None:
    """Each family's own way to ask for thinking by name."""
    if _vertex_claude.is_claude(model):
        return suffixed(model)
    read = gemini.ADAPTER.suffixes
    return read(model) if read is not None and is_gemini(model) else None


def _inherited(row: Inherited) -> Meant:
    """The region, one or per model; One API keeps it, the project and the account beside the key.

    Source: relay-and-billing 4.12, 4.15.
    """
    options = {"safety_settings": "BLOCK_NONE", **row.options}
    region = row.other or str(row.config.get("region") or "")
    regions = tree.lenient(region.encode()) if region.startswith("{") else None
    if isinstance(regions, dict):
        options["region"] = {str(name): str(value) for name, value in regions.items()}
    elif region:
        options["region"] = region
    if project := row.config.get("vertex_ai_project_id"):
        options["project"] = str(project)
    account = row.config.get("vertex_ai_adc")
    unserved = ("API keys in place of a service account",) if row.settings.get("vertex_key_type") == "api_key" else ()
    return Meant(options=options, keys=(str(account),) if account else None, unserved=unserved)


def _embed(ask: Ask, to: Target) -> Outgoing:
    """Vectors by the model's own method: the newest models have `embedContent`, all others `predict`."""
    to = _placed(ask, to, _gemini_name(to.model))
    made = embedding.content if _embeds_contents(to.model) else embedding.instances
    return made(ask, _gemini_url(to), _auth(to))


def _embed_batches(ask: Ask, to: Target) -> Sequence[Ask]:
    """Gemini's embedding models take one text a request, the older ones many."""
    return split(ask, 1 if _gemini_name(to.model).startswith("gemini-") else MOST_TEXTS)


def _pictures_url(ask: Ask, to: Target) -> str:
    return _gemini_url(_placed(ask, to, _gemini_name(to.model)))


def _embeds_contents(model: str) -> bool:
    return model.startswith("gemini-embedding-") and not model.startswith("gemini-embedding-001")


ADAPTER: Final = Adapter(
    name="vertex",
    numbers=(41,),
    options=VertexOptions,
    chat=(
        Hosted(inner=_GEMINI, family=is_gemini, name=_gemini_name),
        Hosted(inner=ClaudeMessages(), family=_vertex_claude.is_claude, name=_vertex_claude.name),
        Hosted(inner=_OPEN, family=is_open, name=_open_name),
    ),
    embeddings=Endpoint(
        dialect="vertex-embeddings",
        request=_embed,
        answer=embedding.answered,
        failure=_gemini_failures.refused,
        serves=is_gemini,
        batches=_embed_batches,
        tokens=False,
    ),
    images=_gemini_pictures.endpoint(_pictures_url, _auth, _GEMINI.answer, is_gemini),
    counting=VertexCounting(),
    by_bytes=by_bytes,
    suffixes=suffixes,
    credential=AccessTokens(),
    key_fault=fault,
    inherited=_inherited,
    bare_counts=True,
    owner="vertex-ai",
)
