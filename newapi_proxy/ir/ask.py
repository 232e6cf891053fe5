"""What a client asks for, in the one form that every surface reads into and every adapter writes from.

Knows no dialect. Source: provider-translation A.0.1. Nothing here is merged or reordered: turns stay as the client sent
them, merging is the adapters' concern. `tree` is the client's body as parsed: same-family adapters edit a copy of it,
so that unknown fields arrive unchanged at any depth; nobody changes `tree` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import msgspec

from newapi_proxy.ir.matter import Matter
from newapi_proxy.ir.usage import Pieces
from newapi_proxy.wire.multipart import Form

Tree = dict[str, Any]
Kind = Literal[
    "chat", "compaction", "embeddings", "rerank", "moderations", "images", "speech", "transcription", "realtime"
]
Role = Literal["system", "developer", "user", "assistant", "tool"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class CacheMark(msgspec.Struct, frozen=True):
    """A prompt-cache marker on a part or a tool; `ttl` as sent ("5m", "1h"), None when absent."""

    ttl: str | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Visible text. `citations` and `opaque` (signatures) are another provider's, verbatim."""

    text: str
    cache: CacheMark | None = None
    citations: tuple[Tree, ...] = ()
    opaque: Tree | None = None
    path: str = ""


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """An image, file, sound or film: exactly one of `data` (base64 text), `url`, `file_id`, `text` (a text document).

    One that was fetched for a provider has its `url` and, beside it, its `data` and `media_type`.
    `path` is the dotted place in the client's body, for error messages.
    """

    kind: Literal["image", "file", "audio", "video"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    text: str | None = None
    filename: str | None = None
    detail: str | None = None
    cache: CacheMark | None = None
    extra: Tree | None = None
    path: str = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """The model's call of a tool. `arguments` is the raw JSON text as the client sent it."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom"] = "function"
    signature: str | None = None
    cache: CacheMark | None = None
    path: str = ""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool gave back. `parts` are Text or Media; `plain` says that the client sent a bare string."""

    id: str
    parts: tuple[Text | Media, ...] = ()
    name: str | None = None
    plain: bool = False
    is_error: bool = False
    cache: CacheMark | None = None
    path: str = ""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """A thinking block in the history. `format` names who signed it: anthropic-claude-v1, google-gemini-v1 …"""

    text: str = ""
    signature: str | None = None
    data: str | None = None  # redacted or encrypted payload
    format: str = "unknown"
    id: str | None = None
    summary: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The model's refusal in the history."""

    text: str


class ServerBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's own block (web search, code execution, MCP …): replayed to `family` verbatim, else left out."""

    family: str
    value: Tree
    path: str = ""


Part = Text | Media | ToolCall | ToolResult | Reasoning | Refusal | ServerBlock


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `plain` says that its content was a bare string; `path` is its place in the body ("messages.3")."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    plain: bool = False
    path: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool the model may call. `server` holds a provider's own tool verbatim (then `name` is its type).

    `inside`: where below `path` its name and schema stand (".function" in OpenAI chat).
    """

    name: str
    description: str | None = None
    schema: Tree | None = None
    strict: bool | None = None
    kind: Literal["function", "custom", "server"] = "function"
    server: Tree | None = None
    family: str = ""
    cache: CacheMark | None = None
    path: str = ""
    inside: str = ""

    @property
    def place(self) -> str:
        """Where its name and schema stand, for error messages and the list of what was dropped."""
        return self.path + self.inside


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which tool may or must be called. `mode` "named" goes with `name`; `allowed` filters the list."""

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None
    allowed: tuple[str, ...] | None = None


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """Structured output: any JSON object, or one that fits `schema`."""

    kind: Literal["json_object", "json_schema"]
    name: str | None = None
    schema: Tree | None = None
    strict: bool | None = None
    description: str | None = None


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """How much to reason: an effort word, a budget in tokens, or both; `adaptive` leaves it to the model."""

    effort: Effort | None = None
    budget: int | None = None
    adaptive: bool = False
    disabled: bool = False
    display: str | None = None


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that steers generation; None where the client said nothing.

    `steering` holds what only steers and has no field of its own here, under the client's own top-level name
    (seed, penalties, logit_bias, prediction …): an adapter sends what it knows and reports the rest as dropped.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    parallel_tools: bool | None = None
    format: Format | None = None
    thinking: Thinking | None = None
    user: str | None = None
    service_tier: str | None = None
    steering: Mapping[str, Any] = {}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request: a chat, or of another `kind`, whose own fields stand in `matter`.

    `dialect` names the surface's wire format; a provider dialect equal to it is the same family. `usage_wanted`: the
    client asked for a usage chunk. `legacy_functions`: it spoke `functions` and wants `function_call` back.
    `unknown`: top-level names this proxy does not know, dropped across families. `headers`: the caller's headers that
    belong to the dialect (lower case: anthropic-beta, anthropic-version). `size`: bytes of the body. `fetched`: some
    media named by URL have their bytes now, which the tree has not. `own`: dotted paths of what no other format has a
    like of, or of what no other format can go without; providers of other formats refuse them. `unnamed`: the client
    named no model, `model` is the configured one: upstream is told none where the format allows that, and the answer's
    own is shown and charged.

    Of kinds without turns: `texts` is what is counted where upstream tells no usage (text, token numbers, lists of
    them), `calls` how often a price per call is due, `pieces` what is asked for by the piece (pictures, speech, sound:
    then their prices count, and `calls` does not), `answer_type` the content type of a whole answer that is no JSON,
    `form` the form that came in place of a JSON body, whose fields are the `tree`, `handed` that the answer is handed
    on as it comes though no stream was asked for (sounds, large documents): `stream` is set beside it.
    """

    dialect: str
    model: str
    tree: Tree
    size: int
    stream: bool = False
    usage_wanted: bool = False
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    choice: Choice | None = None
    controls: Controls = Controls()
    legacy_functions: bool = False
    count_only: bool = False
    unknown: tuple[str, ...] = ()
    headers: Mapping[str, str] = {}
    fetched: bool = False
    own: tuple[str, ...] = ()
    kind: Kind = "chat"
    matter: Matter = None
    texts: Any = None
    calls: int | Fraction = 1
    pieces: Pieces | None = None
    answer_type: str = ""
    form: Form | None = None
    handed: bool = False
    unnamed: bool = False

    def leading(self) -> int:
        """How many turns at the start are system or developer turns."""
        for index, turn in enumerate(self.turns):
            if turn.role not in ("system", "developer"):
                return index
        return len(self.turns)
