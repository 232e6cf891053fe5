"""What spans keys, or what a type alone cannot say: small functions, each returns faults.

`RULES` is the list. A rule sees a whole tree even where the walk found faults; what the walk has told already is not
told again (`apply`). Warnings are in `advice`.
"""

from __future__ import annotations

import hashlib
import re
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from newapi_proxy.adapters.base import Adapter
from newapi_proxy.config import addresses
from newapi_proxy.config.model import Config, Group, Limits, Price, Tier, Token
from newapi_proxy.config.nodes import Fault, Path, Place, closest, fault
from newapi_proxy.secret import Secret

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_KEY: Final = re.compile(r"[\x21-\x7e]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade", "trailer", "te"})
_STEP: Final = re.compile(r"(?<=[\w\]-])[.\[]")  # where a dotted key goes one level down
_DAY: Final = 86400.0
_DEADLINES: Final = (
    "total_timeout", "connect_timeout", "first_token_timeout", "streaming_timeout", "keepalive", "session_timeout",
    "session_idle",
)  # fmt: skip
_ENDLESS: Final = 366 * _DAY
_DATABASES: Final = ("sqlite", "mysql", "postgresql")
_REDIS: Final = ("redis", "rediss", "unix")


class View(msgspec.Struct, frozen=True):
    """What a rule may look at: the tree, where its values stand, and the channel types."""

    config: Config
    places: Mapping[Path, Place]
    root: Place
    adapters: Mapping[str, Adapter]

    def at(self, path: Path) -> Place:
        """The place of the value, or of what it would stand in."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.root)

    def wrong(self, path: Path, message: str, hint: str = "") -> Fault:
        """A fault at that value."""
        return fault(self.at(path), path, message, hint)


Rule = Callable[[View], Iterable[Fault]]


def apply(view: View, rules: Iterable[Rule], told: Iterable[Fault] = ()) -> list[Fault]:
    """Every rule's faults but those at keys that have been complained about already, there or below."""
    known = {one.key for one in told}
    known |= {key[: found.start()] for key in known for found in _STEP.finditer(key)}
    return [one for rule in rules for one in rule(view) if one.key not in known]


def _names(view: View) -> Iterator[Fault]:
    """Names of channels, and of tokens, are there and are unique."""
    config = view.config
    named = (("channels", [one.name for one in config.channels]), ("tokens", [one.name for one in config.tokens]))
    for section, names in named:
        seen: dict[str, Path] = {}
        for index, name in enumerate(names):
            path: Path = (section, index, "name")
            if not name.strip() or _CONTROL.search(name):
                yield view.wrong(path, "holds control characters" if name.strip() else "is empty")
            elif name in seen:
                yield view.wrong(path, f"{name!r} is given twice, first at {_where(view, seen[name])}")
            else:
                seen[name] = path


def _where(view: View, path: Path) -> str:
    place = view.at(path)
    return f"{place.file}:{place.line}:{place.column}"


def _token_keys(view: View) -> Iterator[Fault]:
    """Each token has a key or a digest, in the right form, and no two tokens have the same."""
    seen: dict[str, Path] = {}
    for index, token in enumerate(view.config.tokens):
        path: Path = ("tokens", index)
        given = [name for name in ("key", "key_sha256") if (*path, name) in view.places]
        if len(given) == 2:
            yield view.wrong((*path, "key_sha256"), "key and key_sha256 exclude each other")
            continue
        if not given or not (token.key or token.key_sha256):
            yield view.wrong((*path, *(given or ["key"])), "key or key_sha256 is required")
            continue
        digests: set[str] = set()
        if token.key:
            path = (*path, "key")
            text = token.key.reveal()
            if not _KEY.fullmatch(text) or text == "sk-":
                yield view.wrong(path, "must be printable ASCII without spaces")
                continue
            digests = {hashlib.sha256(one.encode()).hexdigest() for one in (text, text.removeprefix("sk-"))}
        elif token.key_sha256:
            path = (*path, "key_sha256")
            if not _HEX.fullmatch(token.key_sha256):
                yield view.wrong(path, "must be 64 hex digits")
                continue
            digests = {token.key_sha256.lower()}
        if first := next((seen[one] for one in digests if one in seen), None):
            yield view.wrong(path, f"this key is given twice, first at {_where(view, first)}")
        seen.update({one: path for one in digests})


def _channel_types(view: View) -> Iterator[Fault]:
    """Each channel's type exists."""
    known = view.adapters
    for index, channel in enumerate(view.config.channels):
        if channel.type not in known:
            message = f"{channel.type!r} is no channel type" if channel.type else "is empty"
            yield view.wrong(("channels", index, "type"), message, closest(channel.type, known))


def _channel_keys(view: View) -> Iterator[Fault]:
    """A key where the type needs one; keys that fit into a header (a service account's JSON may have lines)."""
    for index, channel in enumerate(view.config.channels):
        path: Path = ("channels", index)
        adapter = view.adapters.get(channel.type)
        given = [name for name in ("key", "keys") if (*path, name) in view.places]
        if adapter is not None and adapter.key_required and not (channel.key or channel.keys):
            yield view.wrong((*path, *(given or ["key"])[:1]), f"key or keys is required for type {channel.type}")
        secrets: list[tuple[Path, Secret | None]] = [((*path, "key"), channel.key)]
        secrets += [((*path, "keys", i), key) for i, key in enumerate(channel.keys)]
        for where, key in secrets:
            text = key.reveal() if key else ""
            if not text.lstrip().startswith("{") and (_CONTROL.search(text) or not text.isascii()):
                yield view.wrong(where, "must be ASCII without control characters or line ends")
            elif key and adapter is not None and adapter.key_fault is not None and (wrong := adapter.key_fault(key)):
                yield view.wrong(where, wrong)


def _channel_addresses(view: View) -> Iterator[Fault]:
    """base_url, proxy and our own address are addresses that can be called."""
    if view.config.public_url is not None and (wrong := addresses.url(view.config.public_url)):
        yield view.wrong(("public_url",), wrong)
    for index, channel in enumerate(view.config.channels):
        if channel.base_url is not None and (wrong := addresses.url(channel.base_url)):
            yield view.wrong(("channels", index, "base_url"), wrong)
        if channel.proxy is not None and (wrong := addresses.proxy(channel.proxy)):
            yield view.wrong(("channels", index, "proxy"), wrong)
        adapter = view.adapters.get(channel.type)
        if channel.base_url is None and adapter is not None and needs_address(adapter):
            yield view.wrong(("channels", index, "base_url"), f"is required for type {channel.type}")


def needs_address(adapter: Adapter) -> bool:
    """Whether only the configuration can say where this provider is: it has no address of its own, answers nothing
    by itself, and does not derive its host from a region."""
    return not adapter.base_url and adapter.local is None and "region" not in adapter.options.__struct_fields__


def _groups(view: View) -> Iterator[Fault]:
    """Groups that channels and tokens name exist."""
    known = view.config.groups
    named: list[tuple[Path, str]] = [
        (("channels", i, "groups", j), group)
        for i, channel in enumerate(view.config.channels)
        for j, group in enumerate(channel.groups)
    ]
    named += [(("tokens", i, "group"), token.group) for i, token in enumerate(view.config.tokens)]
    for path, group in named:
        if group not in known:
            yield view.wrong(path, f"{group!r} is no group of this configuration", closest(group, known))
    for index, channel in enumerate(view.config.channels):
        if not channel.groups:
            yield view.wrong(("channels", index, "groups"), "is empty: nobody could use this channel")


def _headers(view: View) -> Iterator[Fault]:
    """Additional headers are headers, and not those of the connection."""
    for index, channel in enumerate(view.config.channels):
        for name, value in channel.headers.items():
            path: Path = ("channels", index, "headers", name)
            if not _HEADER.fullmatch(name):
                yield view.wrong(path, "is no header name")
            elif name.lower() in _OURS:
                yield view.wrong(path, "is set by the connection itself")
            elif _CONTROL.search(value.replace("\t", " ")) or any(ord(c) > 255 for c in value):
                yield view.wrong(path, "a header's value is one line of Latin-1 text")


def _networks(view: View) -> Iterator[Fault]:
    """Addresses and networks can be read as such."""
    named: list[tuple[Path, str]] = [
        (("trusted_proxies", index), text) for index, text in enumerate(view.config.trusted_proxies)
    ]
    for i, token in enumerate(view.config.tokens):
        named += [(("tokens", i, "allow_ips", j), text) for j, text in enumerate(token.allow_ips)]
    for path, text in named:
        wrong, hint = addresses.network(text)
        if wrong:
            yield view.wrong(path, wrong, hint)


def _timezone(view: View) -> Iterator[Fault]:
    """The timezone is in the machine's database."""
    name = view.config.timezone
    if name == "UTC":
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = closest(name, zoneinfo.available_timezones())
        yield view.wrong(("timezone",), f"{name!r} is no timezone such as UTC or Europe/Berlin", hint)


def _listeners(view: View) -> Iterator[Fault]:
    """Listen addresses are addresses, each is used once."""
    listen = view.config.listen
    named: list[tuple[Path, str]] = [(("listen",), listen)] if isinstance(listen, str) else []
    if not isinstance(listen, str):
        named = [(("listen", index), text) for index, text in enumerate(listen)]
        if not listen:
            yield view.wrong(("listen",), "needs at least one address")
    if view.config.metrics.listen is not None:
        named.append((("metrics", "listen"), view.config.metrics.listen))
    seen: dict[str, Path] = {}
    for path, text in named:
        wrong, hint = addresses.listen(text)
        if wrong:
            yield view.wrong(path, wrong, hint)
        elif text in seen and not text.endswith(":0"):
            yield view.wrong(path, f"{text} is given twice, first at {_where(view, seen[text])}")
        seen.setdefault(text, path)


def _stores(view: View) -> Iterator[Fault]:
    """Database and Redis are URLs of a kind that is known; the URL itself is never repeated, it may hold a password."""
    named: tuple[tuple[str, Secret | None, tuple[str, ...]], ...] = (
        ("database", view.config.database, _DATABASES),
        ("redis", view.config.redis, _REDIS),
    )
    for key, secret, known in named:
        if secret is None:
            continue
        text = secret.reveal()
        scheme, colon, rest = text.partition("://")
        if not colon:
            yield view.wrong((key,), f"must be a URL beginning with {', '.join(one + '://' for one in known)}")
        elif scheme not in known:
            hint = closest(scheme, known) or ("postgresql" if scheme.startswith("postgres") else "")
            yield view.wrong((key,), f"{scheme!r} is none of {', '.join(known)}", hint)
        elif wrong := _incomplete(scheme, rest, text):
            yield view.wrong((key,), wrong)


def _incomplete(scheme: str, rest: str, text: str) -> str:
    if scheme == "sqlite":
        return "" if rest.startswith("/") and rest.strip("/") else "names no file: sqlite:///name.db is beside this one"
    try:
        parts = urlsplit(text)
        missing = not (parts.hostname or "host=" in parts.query or parts.query.startswith("unix_socket"))
        assert parts.port is None or parts.port >= 0  # reading it checks it
    except ValueError:
        return "is no complete URL"
    if scheme in _REDIS:
        return "" if scheme == "unix" or not missing else "names no host"
    return "names no host" if missing else "" if parts.path.strip("/") else "names no database"


def _durations(view: View) -> Iterator[Fault]:
    """Deadlines and sizes are above zero, and deadlines are not endless."""
    config = view.config
    fetch = config.media.fetch
    named: list[tuple[Path, float]] = [(("relay", name), getattr(config.relay, name)) for name in _DEADLINES]
    named += [(("tasks", "interval"), config.tasks.interval), (("media", "fetch", "timeout"), fetch.timeout)]
    named += [(("idempotency", "ttl"), config.idempotency.ttl)]
    named += [
        (("channels", index, "first_token_timeout"), channel.first_token_timeout)
        for index, channel in enumerate(config.channels)
        if channel.first_token_timeout is not None
    ]
    for path, value in named:
        if value <= 0:
            yield view.wrong(path, "must be above 0")
    if config.idempotency.ttl > 30 * _DAY:
        yield view.wrong(("idempotency", "ttl"), "must be at most 30 days: the ledger may forget the charge after that")
    if config.retention is not None and config.retention < _DAY:
        yield view.wrong(("retention",), "must be at least a day")
    for path, value in (*named, (("relay", "drain_timeout"), config.relay.drain_timeout)):
        if value > _ENDLESS:
            yield view.wrong(path, "is longer than a year")
    sizes: tuple[tuple[Path, int], ...] = (
        (("relay", "max_body"), config.relay.max_body),
        (("media", "fetch", "max_size"), fetch.max_size),
        (("idempotency", "max_answer"), config.idempotency.max_answer),
        (("idempotency", "max_kept"), config.idempotency.max_kept),
    )
    for path, size in sizes:
        if size <= 0:
            yield view.wrong(path, "must be above 0")


def _allowances(view: View) -> Iterator[Fault]:
    """Limits and budgets are above zero, quotas not below."""
    limited: list[tuple[Path, Limits]] = [
        (("groups", name, "limits"), group.limits)
        for name, group in view.config.groups.items()
        if isinstance(group, Group)
    ]
    for i, channel in enumerate(view.config.channels):
        limited += [(("channels", i, "limits"), channel.limits), (("channels", i, "key_limits"), channel.key_limits)]
    for i, token in enumerate(view.config.tokens):
        limited.append((("tokens", i, "limits"), token.limits))
        if token.quota is not None and token.quota < 0:
            yield view.wrong(("tokens", i, "quota"), "is negative")
        yield from _budgets(view, ("tokens", i, "budget"), token)
    for path, limits in limited:
        for name in limits.__struct_fields__:
            value = getattr(limits, name)
            if value is not None and value <= 0:
                yield view.wrong((*path, name), "must be above 0; leave it out for no limit")


def _budgets(view: View, path: Path, token: Token) -> Iterator[Fault]:
    seen: set[str] = set()
    for place, budget in enumerate(token.budgets()):
        at: Path = (*path, place) if isinstance(token.budget, tuple) else path
        if budget.amount <= 0:
            yield view.wrong((*at, "amount"), "must be above 0")
        if budget.every in seen:
            yield view.wrong((*at, "every"), f"a budget for the {budget.every} is given already")
        seen.add(budget.every)


def _prices(view: View) -> Iterator[Fault]:
    """Prices and ratios are not negative; a price says something, and only one thing."""
    for group, ratio in view.config.ratios_by_group().items():
        if ratio < 0:
            path: Path = ("groups", group)
            yield view.wrong((*path, "ratio") if (*path, "ratio") in view.places else path, "is negative")
    for model, price in view.config.prices.items():
        yield from _price(view, ("prices", model), price)
    for table in view.config.ratios.__struct_fields__:
        for model, ratio in getattr(view.config.ratios, table).items():
            if ratio < 0:
                yield view.wrong(("ratios", table, model), "is negative")


def _price(view: View, at: Path, price: Price) -> Iterator[Fault]:
    given = [name for name in price.__struct_fields__ if getattr(price, name) not in (None, {}, ())]
    if not given:
        yield view.wrong(at, "says no price; a free model is {call: 0}")
    for name, what in (("call", "a price per call"), ("like", "another model's price")):
        if name in given and len(given) > 1:
            yield view.wrong((*at, name), f"{what} excludes every other")
    if "second" in given and "minute" in given:
        yield view.wrong((*at, "second"), "and minute exclude each other")
    if price.tiers and price.input is None:
        yield view.wrong((*at, "tiers"), "needs an input price for shorter prompts")
    yield from _negative(view, at, price)
    yield from _negative(view, (*at, "images"), price.images)
    for index, tier in enumerate(price.tiers):
        yield from _negative(view, (*at, "tiers", index), tier)


def _negative(view: View, at: Path, row: Mapping[str, float] | Price | Tier) -> Iterator[Fault]:
    cells = row if isinstance(row, Mapping) else {name: getattr(row, name) for name in row.__struct_fields__}
    for name, value in cells.items():
        if isinstance(value, (int, float)) and value < 0:
            yield view.wrong((*at, name), "is negative")


def _statuses(view: View) -> Iterator[Fault]:
    """HTTP statuses are statuses."""
    for index, status in enumerate(view.config.relay.no_retry):
        if not 100 <= status <= 599:
            yield view.wrong(("relay", "no_retry", index), f"{status} is no HTTP status")
    for index, channel in enumerate(view.config.channels):
        for theirs, ours in channel.status_code_mapping.items():
            path: Path = ("channels", index, "status_code_mapping", theirs)
            if not re.fullmatch(r"[1-5]\d\d", theirs, re.ASCII):
                yield view.wrong(path, f"{theirs!r} is no HTTP status")
            elif not 400 <= ours <= 599:
                yield view.wrong(path, f"{ours} is no HTTP status of an error (400 to 599)")


def _models(view: View) -> Iterator[Fault]:
    """Models and what they are mapped to are names."""
    config = view.config
    named: list[tuple[Path, str]] = []
    for i, channel in enumerate(config.channels):
        named += [(("channels", i, "models", j), model) for j, model in enumerate(channel.models)]
        named += [(("channels", i, "model_mapping", model), mapped) for model, mapped in channel.model_mapping.items()]
    for i, token in enumerate(config.tokens):
        named += [(("tokens", i, "models", j), model) for j, model in enumerate(token.models)]
    if config.relay.responses_model is not None:
        named.append((("relay", "responses_model"), config.relay.responses_model))
    for path, name in named:
        if not name.strip():
            yield view.wrong(path, "is empty")


def _overrides(view: View) -> Iterator[Fault]:
    """Edits of the upstream body have paths."""
    for index, channel in enumerate(view.config.channels):
        edits = channel.override
        named: list[tuple[Path, str]] = [(("set", one), one) for one in edits.set]
        named += [(("default", one), one) for one in edits.default]
        named += [(("remove", j), one) for j, one in enumerate(edits.remove)]
        for path, text in named:
            if not all(text.split(".")):
                yield view.wrong(("channels", index, "override", *path), f"{text!r} is no dotted path such as a.b.0")


RULES: Final[tuple[Rule, ...]] = (
    _names,
    _token_keys,
    _channel_types,
    _channel_keys,
    _channel_addresses,
    _groups,
    _headers,
    _networks,
    _timezone,
    _listeners,
    _stores,
    _durations,
    _allowances,
    _prices,
    _statuses,
    _models,
    _overrides,
)

CHANNEL_RULES: Final[tuple[Rule, ...]] = (_channel_keys, _channel_addresses, _headers, _models, _overrides)
"""Those that a channel from elsewhere than a file must keep too."""
