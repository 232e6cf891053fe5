"""The typed, frozen configuration tree: one field per key of the file, its docstring beside it.

`walk` builds it from YAML nodes, `schema` and `show` are derived from it. Defaults are plain values. `secret.Secret`
fields take text, `${NAME}` or `{file: …}`.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import msgspec

from newapi_proxy.config.portal import Portal
from newapi_proxy.config.units import Duration, Money, Size, doc
from newapi_proxy.secret import Secret


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file; unknown keys are faults."""


class Admin(Struct, frozen=True):
    """Who may read the metrics on the main listener and open the dashboard; without keys they are not there."""

    keys: Annotated[tuple[Secret, ...], doc("keys for /api, /metrics on this listener and the dashboard")] = ()


class Relay(Struct, frozen=True):
    """How a request is carried: attempts, deadlines, limits."""

    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=100, description="attempts per request (RetryTimes + 1)")] = 3
    no_retry: Annotated[tuple[int, ...], doc("statuses that end a request at once; 2xx never retry")] = (400, 504, 524)
    total_timeout: Annotated[Duration, doc("the whole request, all attempts (RELAY_TIMEOUT)")] = 600.0
    connect_timeout: Annotated[Duration, doc("until an upstream takes the connection")] = 10.0
    first_token_timeout: Annotated[Duration, doc("a silent upstream: fail over")] = 60.0
    streaming_timeout: Annotated[Duration, doc("longest silence inside a stream (STREAMING_TIMEOUT)")] = 30.0
    keepalive: Annotated[Duration, doc("comment or ping to the client while nothing comes")] = 15.0
    drain_timeout: Annotated[Duration, doc("how long a stop waits for running requests")] = 300.0
    session_timeout: Annotated[Duration, doc("longest realtime session")] = 3600.0
    session_idle: Annotated[Duration, doc("longest silence of both sides of a realtime session")] = 300.0
    max_body: Annotated[Size, doc("largest request body (MAX_REQUEST_BODY_MB)")] = 32 * 1024 * 1024
    responses_model: Annotated[
        str | None, doc("what Responses that name no model are routed and held as; absent: they are refused")
    ] = None
    force_stream_option: Annotated[bool, doc("ask upstreams for usage in streams (FORCE_STREAM_OPTION)")] = True


class Fetch(Struct, frozen=True):
    """What is fetched on a client's behalf: pictures and files given as URLs."""

    enabled: Annotated[bool, doc("fetch what a client names by URL where an upstream cannot")] = True
    max_size: Annotated[Size, doc("largest file (MAX_FILE_DOWNLOAD_MB)")] = 20 * 1024 * 1024
    timeout: Annotated[Duration, doc("the whole download")] = 10.0
    allow_private: Annotated[bool, doc("allow loopback and private addresses too; for trusted clients")] = False


class MediaConfig(Struct, frozen=True):
    """Pictures and files inside requests."""

    count_image_tokens: Annotated[bool, doc("count pictures where upstream reports no usage (GET_MEDIA_TOKEN)")] = True
    count_image_tokens_not_stream: Annotated[
        bool, doc("the same for answers that are not streamed (GET_MEDIA_TOKEN_NOT_STREAM)")
    ] = True
    fetch: Annotated[Fetch, doc("downloads")] = Fetch()


class Idempotency(Struct, frozen=True):
    """Requests that bring an Idempotency-Key: one answer each, told again to who asks again."""

    enabled: Annotated[bool, doc("false: the header is not looked at")] = True
    ttl: Annotated[Duration, doc("how long an answer is kept")] = 86400.0
    max_answer: Annotated[Size, doc("a larger answer is not kept: its key gets 409 afterwards")] = 8 * 1024 * 1024
    max_kept: Annotated[Size, doc("of one token's answers within ttl; what goes beyond is not kept either")] = 1024**3


class Tasks(Struct, frozen=True):
    """Work that is submitted now and known later."""

    update: Annotated[bool, doc("poll the state of submitted tasks (UPDATE_TASK)")] = True
    interval: Annotated[Duration, doc("time between two polls")] = 15.0


class Tier(Struct, frozen=True):
    """Other prices for long prompts; what is left out rises as `input` does."""

    above: Annotated[int, msgspec.Meta(ge=1, description="for prompts of more tokens than this")]
    input: Annotated[float | None, doc("prompt tokens")] = None
    output: Annotated[float | None, doc("completion tokens")] = None
    cache_read: Annotated[float | None, doc("prompt tokens read from a cache")] = None
    cache_write: Annotated[float | None, doc("prompt tokens written to a cache")] = None
    cache_write_1h: Annotated[float | None, doc("the same, kept for an hour")] = None


class Price(Struct, frozen=True):
    """USD per million tokens, per piece, or `call` USD per request."""

    input: Annotated[float | None, doc("prompt tokens")] = None
    output: Annotated[float | None, doc("completion tokens")] = None
    cache_read: Annotated[float | None, doc("prompt tokens read from a cache")] = None
    cache_write: Annotated[float | None, doc("prompt tokens written to a cache")] = None
    cache_write_1h: Annotated[float | None, doc("the same, kept for an hour")] = None
    audio_input: Annotated[float | None, doc("prompt tokens of sound")] = None
    audio_output: Annotated[float | None, doc("completion tokens of sound")] = None
    image_input: Annotated[float | None, doc("prompt tokens of pictures")] = None
    image_output: Annotated[float | None, doc("completion tokens of pictures")] = None
    call: Annotated[float | None, doc("USD per request, whatever its tokens; per picture where some are made")] = None
    image: Annotated[float | None, doc("USD per picture made")] = None
    images: Annotated[dict[str, float], doc("the same by size, quality or both: 1024x1024, hd, 1792x1024 hd")] = {}
    characters: Annotated[float | None, doc("USD per million characters spoken")] = None
    second: Annotated[float | None, doc("USD per second of sound")] = None
    minute: Annotated[float | None, doc("USD per minute of sound, charged by the second begun")] = None
    tiers: Annotated[tuple[Tier, ...], doc("other prices for long prompts")] = ()
    like: Annotated[str | None, doc("instead of all that: the model whose price this one has too")] = None


class Ratios(Struct, frozen=True):
    """New API's own tables: ratio 1 is 2 USD per million input tokens."""

    model_ratio: Annotated[dict[str, float], doc("model: input price, 1 is 2 USD per million tokens")] = {}
    completion_ratio: Annotated[dict[str, float], doc("model: output over input")] = {}
    model_price: Annotated[dict[str, float], doc("model: USD per call")] = {}
    cache_ratio: Annotated[dict[str, float], doc("model: cache read over input")] = {}
    create_cache_ratio: Annotated[dict[str, float], doc("model: cache write over input")] = {}
    image_ratio: Annotated[dict[str, float], doc("model: picture tokens over input")] = {}
    audio_ratio: Annotated[dict[str, float], doc("model: sound tokens over input")] = {}
    audio_completion_ratio: Annotated[dict[str, float], doc("model: output sound over input sound")] = {}


class Override(Struct, frozen=True):
    """Edits of the upstream body by dotted path, after everything else."""

    set: Annotated[dict[str, Any], doc("path: value, whatever stood there")] = {}
    default: Annotated[dict[str, Any], doc("path: value where the request says nothing")] = {}
    remove: Annotated[tuple[str, ...], doc("paths to cut out")] = ()


class Limits(Struct, frozen=True):
    """How much at once and per minute or day; absent: unlimited."""

    concurrency: Annotated[int | None, doc("requests at the same time")] = None
    rpm: Annotated[int | None, doc("requests per minute")] = None
    rpd: Annotated[int | None, doc("requests per day")] = None
    tpm: Annotated[int | None, doc("tokens per minute")] = None


class Group(Struct, frozen=True):
    """Tokens that share channels, a ratio and limits."""

    ratio: Annotated[float, doc("factor on every price")] = 1.0
    limits: Annotated[Limits, doc("for all tokens of the group together")] = Limits()


class Channel(Struct, frozen=True):
    """One upstream account."""

    name: Annotated[str, doc("unique; stands in the log, in metrics and in the ledger")]
    type: Annotated[str, doc("which provider speaks there")]
    base_url: Annotated[str | None, doc("the provider's root without its version path; absent: the type's own")] = None
    key: Annotated[Secret | None, doc("the account's key")] = None
    keys: Annotated[tuple[Secret, ...], doc("several keys, rotated, parked one by one")] = ()
    organization: Annotated[str | None, doc("sent as OpenAI-Organization")] = None
    models: Annotated[tuple[str, ...], doc("model names, * as a wildcard")] = ()
    groups: Annotated[tuple[str, ...], doc("groups whose tokens may use it")] = ("default",)
    priority: Annotated[int, doc("higher first")] = 0
    weight: Annotated[int, msgspec.Meta(ge=0, description="share inside a priority; 0 counts as 1")] = 1
    enabled: Annotated[bool, doc("false: not used")] = True
    model_mapping: Annotated[dict[str, str], doc("requested name: upstream's name")] = {}
    status_code_mapping: Annotated[dict[str, int], doc("upstream's status: the one to go on with")] = {}
    override: Annotated[Override, doc("edits of the upstream body")] = Override()
    system_prompt: Annotated[str | None, doc("the channel's own system prompt")] = None
    system_prompt_mode: Annotated[
        Literal["absent", "before", "replace"],
        doc("absent: where the client gives none; before its own; replace it"),
    ] = "absent"
    headers: Annotated[dict[str, str], doc("additional request headers; {api_key} in a value is the key in use")] = {}
    auto_disable: Annotated[bool, doc("false: never parked, cooled down or disabled")] = True
    first_token_timeout: Annotated[Duration | None, doc("this channel's own; absent: relay.first_token_timeout")] = None
    limits: Annotated[Limits, doc("what this account can take; a full channel is passed over")] = Limits()
    key_limits: Annotated[Limits, doc("the same for each of its keys by itself")] = Limits()
    proxy: Annotated[str | None, doc("http://, https://, socks5://, socks5h:// or socks4://")] = None
    options: Annotated[dict[str, Any], doc("per type")] = {}


class Budget(Struct, frozen=True):
    """An allowance that comes back."""

    amount: Annotated[Money, doc("per window: quota units (500000 are 1 USD), or $5, 0.002 USD")]
    every: Annotated[Literal["day", "week", "month"], doc("the window, in the configured timezone")]


class Token(Struct, frozen=True):
    """One client's key."""

    name: Annotated[str, doc("unique; stands in the log and in the ledger")]
    key: Annotated[Secret | None, doc("the key, sk-…")] = None
    key_sha256: Annotated[str | None, doc("instead of the key: its SHA-256 as 64 hex digits")] = None
    group: Annotated[str, doc("decides channels and ratio")] = "default"
    enabled: Annotated[bool, doc("false: refused")] = True
    quota: Annotated[Money | None, doc("all it may ever spend; absent: unlimited. Units, or $5, 0.002 USD")] = None
    budget: Annotated[Budget | tuple[Budget, ...] | None, doc("resets; one, or one per window; stacks with quota")] = (
        None
    )
    models: Annotated[tuple[str, ...], doc("names, * as a wildcard; absent: all its group reaches")] = ()
    expires: Annotated[date | None, doc("last day, such as 2027-12-31")] = None
    allow_ips: Annotated[tuple[str, ...], doc("client addresses or networks; absent: any")] = ()
    limits: Annotated[Limits, doc("how much at once and per minute")] = Limits()

    def budgets(self) -> tuple[Budget, ...]:
        """Its budgets, one or several."""
        return (self.budget,) if isinstance(self.budget, Budget) else self.budget or ()


class Log(Struct, frozen=True):
    """Standard output."""

    level: Annotated[Literal["debug", "info", "warning", "error"], doc("the least that is written")] = "info"
    format: Annotated[Literal["json", "console"], doc("json, or console for people")] = "json"


class Metrics(Struct, frozen=True):
    """Prometheus text on a listener of its own."""

    listen: Annotated[str | None, doc("HOST:PORT or unix:/path; absent: only on the main listener")] = None


class Config(Struct, frozen=True):
    """The whole file."""

    listen: Annotated[str | tuple[str, ...], doc("HOST:PORT or unix:/path, one or a list; needs a restart")] = (
        "127.0.0.1:3000"
    )
    database: Annotated[
        Secret, doc("sqlite:///name.db (relative to this file), mysql:// or postgresql://; needs a restart")
    ] = Secret("sqlite:///newapi.db")
    durability: Annotated[Literal["normal", "full"], doc("full: commits survive a power loss")] = "normal"
    keys_at_rest: Annotated[Literal["digest", "text"], doc("how keys made here are stored")] = "digest"
    reuse_port: Annotated[bool, doc("several processes listen on one address; needs a restart")] = False
    retention: Annotated[
        Duration | None, doc("how long rows of the usage log and the ledger are kept, such as 90d; absent: for ever")
    ] = None
    redis: Annotated[Secret | None, doc("only where several processes share one database; needs a restart")] = None
    include: Annotated[tuple[str, ...], doc("more files, globs relative to the file that names them")] = ()
    timezone: Annotated[str, doc("for quota windows and reports")] = "UTC"
    public_url: Annotated[
        str | None, doc("own address as clients see it, for links in answers; absent: the one a client asked")
    ] = None
    trusted_proxies: Annotated[tuple[str, ...], doc("networks whose X-Forwarded-For is believed")] = ()
    admin: Annotated[Admin, doc("who may read /metrics on the main listener, and open the dashboard")] = Admin()
    relay: Annotated[Relay, doc("how a request is carried")] = Relay()
    media: Annotated[MediaConfig, doc("pictures and files inside requests")] = MediaConfig()
    idempotency: Annotated[Idempotency, doc("requests that bring an Idempotency-Key")] = Idempotency()
    tasks: Annotated[Tasks, doc("work that is submitted now and known later")] = Tasks()
    groups: Annotated[dict[str, float | Group], doc("group: ratio on every price, or {ratio, limits}")] = msgspec.field(
        default_factory=lambda: {"default": 1.0}
    )
    prices: Annotated[dict[str, Price], doc("model: USD per million tokens, piece or call; * as a wildcard")] = {}
    ratios: Annotated[Ratios, doc("prices in New API's own terms")] = Ratios()
    channels: Annotated[tuple[Channel, ...], doc("upstream accounts")] = ()
    tokens: Annotated[tuple[Token, ...], doc("clients' keys")] = ()
    log: Annotated[Log, doc("standard output")] = Log()
    metrics: Annotated[Metrics, doc("Prometheus text")] = Metrics()
    portal: Annotated[Portal | None, doc("web pages for people, top-up; absent: not mounted")] = None

    def ratios_by_group(self) -> dict[str, float]:
        """Each group's factor on every price."""
        return {name: one.ratio if isinstance(one, Group) else one for name, one in self.groups.items()}
