"""Configuration joined with database rows: one immutable view. A request keeps the view it began with.

What may change while the daemon runs and what needs a restart stands in `FIXED`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, time
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters._uses import kinds
from newapi_proxy.adapters.base import UNOWNED, Adapter, Options, speaks
from newapi_proxy.billing.budgets import Window, window
from newapi_proxy.billing.ledger import Account
from newapi_proxy.billing.prices import Price, PriceBook, book
from newapi_proxy.config.grouping import Aliases, Grouping
from newapi_proxy.config.model import Budget, Config, Group, Limits, Override
from newapi_proxy.config.model import Channel as ChannelConfig
from newapi_proxy.config.model import Token as TokenConfig
from newapi_proxy.config.saved import Saved
from newapi_proxy.ir.ask import Kind, Thinking
from newapi_proxy.secret import Secret
from newapi_proxy.store.tokens import TokenRow, YamlToken
from newapi_proxy.store.windows import Ceiling, Rate
from newapi_proxy.surfaces.instructing import Mode

FIXED: Final = ("listen", "reuse_port", "database", "durability", "redis", "metrics")  # a change needs a restart
MOST_KNOWN: Final = 4096  # remembered look-ups: model names come from requests
ENABLED, EXPIRED, EXHAUSTED = 1, 3, 4  # token and user status in the inherited tables
NOTHING_SAVED: Final = Saved()
DEFAULT_RATIO: Final = Decimal(1)  # a group that the file does not list (relay-and-billing 5.1)
_RATES: Final = (("rpm", 60.0, False), ("rpd", 86400.0, False), ("tpm", 60.0, True))
Ceilings = tuple[Ceiling, ...]


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream account as requests see it. `id` is its database row; `keys` are tried in turn.

    `thinking`: what the requested name's suffix asks for, on the view of a channel that such a request gets.
    `ceilings`: the limits that a request through each of the keys meets; empty where the channel has none.
    """

    name: str
    id: int
    adapter: Adapter
    base_url: str
    keys: tuple[Secret, ...]
    models: tuple[str, ...]
    groups: tuple[str, ...]
    priority: int = 0
    weight: int = 1
    organization: str | None = None
    model_mapping: Mapping[str, str] = {}
    status_code_mapping: Mapping[int, int] = {}
    override: Override = Override()
    headers: Mapping[str, str] = {}
    auto_disable: bool = True
    first_token_timeout: float | None = None
    proxy: str | None = None
    options: Any = None
    thinking: Thinking | None = None
    system_prompt: str | None = None
    system_prompt_mode: Mode = "absent"
    inherited: bool = False  # its row in the database is another program's, who reads its status there
    ceilings: tuple[Ceilings, ...] = ()

    def upstream_model(self, requested: str) -> str:
        """The name upstream knows; one hop of the mapping."""
        return self.model_mapping.get(requested, requested)

    def lists(self, model: str) -> bool:
        """Whether one of its names or patterns is meant."""
        return any(matches(pattern, model) for pattern in self.models)


Tiers = tuple[tuple[Channel, ...], ...]


class Lane(msgspec.Struct, frozen=True):
    """What requests of one group for one model in one format have in common.

    `tiers`: the channels that can be asked and have a price. `prices`: what it may cost, by the channel that serves
    it: the requested name's price, else the mapped one's (decision 16). `ratio`: the group's factor on every price.
    """

    tiers: Tiers
    prices: tuple[Price, ...]
    ratio: Decimal


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One client key. `models` empty: all that its group reaches. `expires` unix seconds, None never.

    `username` is the account it belongs to. `expired`: the database says so, whatever `expires` says.
    `ceilings`: its own limits and its group's. `budgets`: allowances that come back.
    """

    name: str
    account: Account
    group: str
    username: str = ""
    enabled: bool = True
    expired: bool = False
    drained: bool = False
    user_enabled: bool = True
    models: tuple[str, ...] = ()
    allow_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    expires: int | None = None
    ceilings: Ceilings = ()
    group_usable: bool = True  # where it is not, `user_enabled` is False too
    budgets: tuple[Budget, ...] = ()

    def may_use(self, model: str) -> bool:
        """Whether the key's own list lets it ask for the model."""
        return not self.models or any(matches(pattern, model) for pattern in self.models)


class Snapshot:
    """The view itself. Look-ups are memoised here, so that they are forgotten with it."""

    def __init__(
        self,
        config: Config,
        channels: Sequence[Channel],
        tokens: Mapping[bytes, Token],
        prices: PriceBook,
        aliases: Aliases | None = None,
        parked: Sequence[Channel] = (),
    ) -> None:
        """`parked`: channels that are switched off. Nothing is sent there but questions about what they have begun."""
        self.config = config
        self.parked = tuple(parked)
        self.channels = tuple(channels)
        self.tokens = tokens
        self.prices = prices
        self._aliases = aliases or {}
        self._ratios = {name: Decimal(str(ratio)) for name, ratio in config.ratios_by_group().items()}
        self._known: dict[tuple[str, str], Tiers] = {}
        self._uses: dict[tuple[str, str], tuple[str, tuple[Kind, ...]]] = {}
        self._lanes: dict[tuple[str, str, str, Kind, bool], Lane] = {}
        self._windows: dict[str, tuple[int, int, tuple[Window, ...]]] = {}

    def group_ratio(self, group: str, model: str = "") -> Decimal:
        """The group's factor on every price; where it stands for several, that of the one that serves the model."""
        known = self._ratios.get(group)
        if known is not None:
            return known
        alias = self._aliases.get(group)
        if alias is None:
            return DEFAULT_RATIO
        return next((ratio for name, ratio in alias if self.tiers(name, model)), max(ratio for _, ratio in alias))

    def lane(self, group: str, model: str, dialect: str, kind: Kind, *, free: bool = False) -> Lane:
        """The way of requests of this kind; `free`: through channels without a price, too."""
        key = (group, model, dialect, kind, free)
        known = self._lanes.get(key)
        if known is None:
            if len(self._lanes) >= MOST_KNOWN:
                self._lanes.clear()
            tiers = self.tiers(group, model)
            serving = [
                tuple(one for one in tier if self._speaks(one, model, dialect, kind, free=free)) for tier in tiers
            ]
            found = [self.prices.find(model, one.upstream_model(model)) for tier in tiers for one in tier]
            prices = tuple({one.name: one for one in found if one is not None}.values())
            known = self._lanes[key] = Lane(tuple(serving), prices, self.group_ratio(group, model))
        return known

    def _speaks(self, channel: Channel, model: str, dialect: str, kind: Kind, *, free: bool) -> bool:
        upstream = channel.upstream_model(model)
        if speaks(channel.adapter, dialect, upstream, kind) is None:
            return False
        return free or self.prices.find(model, upstream) is not None

    def tiers(self, group: str, model: str) -> Tiers:
        """The channels that serve the model to the group, by priority, highest first."""
        known = self._known.get((group, model))
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            known = self._known[group, model] = self._tiers(group, model)
        return known

    def _tiers(self, group: str, model: str) -> Tiers:
        if group in self._aliases:  # the first of its groups that serves the model
            return next((tiers for name, _ in self._aliases[group] if (tiers := self.tiers(name, model))), ())
        found: dict[int, list[Channel]] = {}
        mine = [channel for channel in self.channels if group in channel.groups]
        itself = any(model in channel.models for channel in mine)
        for channel in mine:
            view = _seen(channel, model, itself)
            if view is not None:
                found.setdefault(channel.priority, []).append(view)
        return tuple(tuple(found[priority]) for priority in sorted(found, reverse=True))

    def windows(self, token: Token, at: int) -> tuple[Window, ...]:
        """The windows of the token's budgets that hold the moment (unix seconds)."""
        known = self._windows.get(token.name)
        if known is None or not known[0] <= at < known[1]:
            zone = ZoneInfo(self.config.timezone)
            found = tuple(window(one.every, at, one.amount, zone) for one in token.budgets)
            known = (max(one.starts for one in found), min(one.ends for one in found), found)
            self._windows[token.name] = known
        return known[2]

    def models_for(self, token: Token) -> tuple[tuple[str, str, tuple[Kind, ...]], ...]:
        """What the key may ask for, with who owns it and what it is for, in order of first appearance.

        Patterns are left out.
        """
        names: dict[str, tuple[str, tuple[Kind, ...]]] = {}
        groups = {name for name, _ in self._aliases.get(token.group, ())} or {token.group}
        for channel in self.channels:
            if groups.intersection(channel.groups):
                own = (model for model in channel.models if "*" not in model and token.may_use(model))
                names |= {model: self.told(channel, model) for model in own if model not in names}
        for model in token.models:
            if "*" not in model and (tiers := self.tiers(token.group, model)) and model not in names:
                names[model] = (UNOWNED, self.told(tiers[0][0], model)[1])
        return tuple((name, owner, uses) for name, (owner, uses) in names.items())

    def told(self, channel: Channel, model: str) -> tuple[str, tuple[Kind, ...]]:
        """A model's owner and its uses, as this channel has it."""
        known = self._uses.get((channel.name, model))
        if known is None:
            if len(self._uses) >= MOST_KNOWN:
                self._uses.clear()
            uses = kinds(channel.adapter, channel.upstream_model(model))
            known = self._uses[channel.name, model] = (channel.adapter.owner, uses)
        return known


def _seen(channel: Channel, model: str, itself: bool) -> Channel | None:
    """The channel as a request for the model sees it, None where it does not serve it.

    A name with a suffix means the name without it and a wish to think, unless the channel lists it; `itself`: some
    channel does, then only patterns make others serve it (decision 15).
    """
    fits, upstream = channel.lists(model), channel.upstream_model(model)
    plain = channel if fits else None
    if channel.adapter.suffixes is None or upstream in channel.models:
        return plain
    named = channel.adapter.suffixes(upstream)
    if named is None or (not fits and itself):
        return plain
    if upstream == model:
        if not channel.lists(named.model):
            return plain
        upstream = channel.upstream_model(named.model)
    elif fits:
        upstream = named.model
    else:
        return None
    mapping = {**channel.model_mapping, model: upstream}
    return msgspec.structs.replace(channel, model_mapping=mapping, thinking=named.thinking)


def wanted_tokens(config: Config) -> list[YamlToken]:
    """The file's tokens as the database wants to know them: each gets a row of its own (interfaces §3)."""
    return [
        YamlToken(
            digest=token_digest(token),
            text=bare(token.key.reveal()) if token.key is not None else None,
            name=token.name,
            group=token.group,
            quota=token.quota,
        )
        for token in config.tokens
    ]


def token_digest(token: TokenConfig) -> bytes:
    """SHA-256 of a key as the file gives it; `sk-` in front of a key is no part of it."""
    if token.key is not None:
        return sha256(bare(token.key.reveal()).encode()).digest()
    return bytes.fromhex(token.key_sha256 or "")


def bare(key: str) -> str:
    """A key without the `sk-` that clients send in front of it."""
    return key.removeprefix("sk-")


def build(
    config: Config,
    rows: Sequence[TokenRow],
    channel_ids: Mapping[str, int],
    saved: Saved = NOTHING_SAVED,
    inherited: Collection[str] = (),
) -> Snapshot:
    """The view of a configuration over the database's token rows; the file wins where both name a key.

    `channel_ids`: the database row of each channel; `saved`: which groups keys of the database may name; `inherited`:
    names of the database's own channels.
    """
    by_digest = {row.digest: row for row in rows}
    groups = _group_ceilings(config)
    grouping = Grouping(config, saved)
    tokens = {row.digest: _database_token(row, groups, grouping) for row in rows}
    for token in config.tokens:
        digest = token_digest(token)
        tokens[digest] = _file_token(token, by_digest[digest], config.timezone, groups)
    served = [(one.enabled, _channel(one, channel_ids[one.name])) for one in config.channels]
    channels, parked = [one for on, one in served if on], [one for on, one in served if not on]
    channels = [msgspec.structs.replace(one, inherited=True) if one.name in inherited else one for one in channels]
    prices = book(config.prices, config.ratios, config.ratios_by_group())
    return Snapshot(config, channels, tokens, prices, grouping.aliases, parked)


def _tuned(adapter: Adapter, options: Options) -> Adapter:
    """The adapter as a channel's options want it; what stands below a dialect goes with it."""
    if adapter.tuned is None:
        return adapter
    chat, below = adapter.tuned(options), adapter.compaction
    if below is not None and all(one.dialect != below.dialect for one in chat):
        below = None
    return msgspec.structs.replace(adapter, chat=chat, compaction=below)


def _channel(channel: ChannelConfig, id: int) -> Channel:
    options = ADAPTERS[channel.type].options(**channel.options)
    adapter = _tuned(ADAPTERS[channel.type], options)
    keys = (*((channel.key,) if channel.key is not None else ()), *channel.keys)
    return Channel(
        name=channel.name,
        id=id,
        adapter=adapter,
        base_url=(channel.base_url or adapter.base_url).rstrip("/"),
        keys=keys,
        models=channel.models,
        groups=channel.groups,
        priority=channel.priority,
        weight=channel.weight,
        organization=channel.organization,
        model_mapping=channel.model_mapping,
        status_code_mapping={int(status): int(value) for status, value in channel.status_code_mapping.items()},
        override=channel.override,
        headers=channel.headers,
        system_prompt=channel.system_prompt,
        system_prompt_mode=channel.system_prompt_mode,
        auto_disable=channel.auto_disable,
        first_token_timeout=channel.first_token_timeout,
        proxy=channel.proxy,
        options=options,
        ceilings=_channel_ceilings(channel, keys),
    )


def _ceiling(limits: Limits, scope: str, name: str, id: str = "") -> Ceilings:
    """The limits as a ceiling, none where there are none. Counters follow the name over reloads, or the `id`."""
    rates = tuple(
        Rate(limit, seconds, most, tokens)
        for limit, seconds, tokens in _RATES
        if (most := getattr(limits, limit)) is not None
    )
    if limits.concurrency is None and not rates:
        return ()
    tokens = limits.tpm is not None
    return (Ceiling(f"{scope} {id or name}", scope, name, limits.concurrency, rates, tokens),)


def _group_ceilings(config: Config) -> dict[str, Ceilings]:
    groups = {name: one for name, one in config.groups.items() if isinstance(one, Group)}
    return {name: _ceiling(one.limits, "group", name) for name, one in groups.items()}


def _channel_ceilings(channel: ChannelConfig, keys: Sequence[Secret]) -> tuple[Ceilings, ...]:
    """Per key the channel's ceiling and its own; a key is known by its digest, whatever its place."""
    whole, found = _ceiling(channel.limits, "channel", channel.name), []
    for place, key in enumerate(keys or [Secret("")]):
        id = f"{channel.name} {sha256(key.reveal().encode()).hexdigest()[:16]}"
        found.append((*whole, *_ceiling(channel.key_limits, "key", f"{channel.name}[{place}]", id)))
    return tuple(found) if any(found) else ()


def _file_token(token: TokenConfig, row: TokenRow, timezone: str, groups: Mapping[str, Ceilings]) -> Token:
    expires = None
    if token.expires is not None:  # the day named is the last one
        end = datetime.combine(token.expires, time.max, ZoneInfo(timezone))
        expires = int(end.timestamp())
    return Token(
        name=token.name,
        account=Account(row.id, row.user_id, token_limited=token.quota is not None, user_limited=row.user_limited),
        group=token.group,
        username=row.username,
        enabled=token.enabled,
        models=token.models,
        allow_ips=tuple(ip_network(address, strict=False) for address in token.allow_ips),
        expires=expires,
        ceilings=(*_ceiling(token.limits, "token", token.name), *groups.get(token.group, ())),
        budgets=token.budgets(),
    )


def _database_token(row: TokenRow, groups: Mapping[str, Ceilings], grouping: Grouping) -> Token:
    group, usable = grouping.of(row)
    return Token(
        name=row.name,
        account=Account(row.id, row.user_id, token_limited=not row.unlimited, user_limited=row.user_limited),
        group=group,
        username=row.username,
        enabled=row.status in (ENABLED, EXPIRED, EXHAUSTED),
        expired=row.status == EXPIRED,
        drained=row.status == EXHAUSTED,
        user_enabled=usable and row.user_status == ENABLED,
        group_usable=usable,
        models=row.models,
        allow_ips=tuple(ip_network(address, strict=False) for address in row.allow_ips),
        expires=row.expired_time if row.expired_time > 0 else None,
        ceilings=groups.get(row.group or row.user_group, ()),
    )


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern in which `*` stands for any run of characters."""
    if "*" not in pattern:
        return pattern == name
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=MOST_KNOWN)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")), re.DOTALL)
