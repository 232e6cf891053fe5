"""What is allowed and probably not meant: warnings, never a reason to refuse a configuration.

Shares the view of `rules`; asks for prices through a function, so that it knows nothing of how they are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from newapi_proxy.config.model import Channel
from newapi_proxy.config.nodes import Fault, Path, Place
from newapi_proxy.config.rules import Rule, View

Priced = Callable[[str, str], bool]
"""Whether (requested name, mapped name) has a price."""

LOST: Final = "reaches no channel and model of this configuration"


def _hollow(view: View) -> Iterator[Fault]:
    """A shop that takes nothing."""
    sold = view.config.portal.topup if view.config.portal is not None else None
    if sold is not None and not (sold.redeem or sold.easypay or sold.wechat):
        yield view.wrong(("portal", "topup"), "names no way to pay, so nothing is served: easypay, wechat, redeem")


def _open(view: View) -> Iterator[Fault]:
    """Pages on which people enter keys: where others may read along, or nobody knows from where they come."""
    url = urlsplit(view.config.public_url or "")
    if view.config.portal is not None and url.scheme == "http" and not _here(url.hostname or ""):
        yield view.wrong(("public_url",), "is not https: keys that are entered at the portal can be read on the way")
    if view.config.portal is not None and url.scheme == "https" and not view.config.trusted_proxies:
        message = "names no trusted_proxies: behind the one that serves public_url all people count as one address"
        yield view.wrong(("portal",), message)


def _here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _alone(view: View) -> Iterator[Fault]:
    """What only several processes have a use for, where there can be but one."""
    if view.config.database.reveal().startswith("sqlite:"):
        if view.config.redis is not None:
            yield view.wrong(("redis",), "has no use with SQLite: one process serves a file, and counts by itself")
        if view.config.reuse_port:
            yield view.wrong(("reuse_port",), "has no use with SQLite: a second process is refused the file")


def _extras(view: View) -> Iterator[Fault]:
    """What needs a package that is not installed here: a database's driver is looked for where it is opened."""
    if view.config.redis is not None and find_spec("redis") is None:
        yield view.wrong(("redis",), _extra("redis"))
    for index, channel in _serving(view):
        if (channel.proxy or "").startswith("socks") and find_spec("aiohttp_socks") is None:
            yield view.wrong(("channels", index, "proxy"), _extra("socks"))


def _extra(name: str) -> str:
    return f"needs a package that is missing here: pip install 'newapi-proxy[{name}]'"


def _empty_channels(view: View) -> Iterator[Fault]:
    """Channels without a model are never chosen."""
    for index, channel in enumerate(view.config.channels):
        if channel.enabled and not channel.models:
            yield view.wrong(("channels", index, "models"), f"channel {channel.name} has no models: nothing reaches it")


def _serving(view: View) -> list[tuple[int, Channel]]:
    return [(i, one) for i, one in enumerate(view.config.channels) if one.enabled]


def _lost_tokens(view: View) -> Iterator[Fault]:
    """Tokens whose group and models meet no channel. Silent where no file names a channel: the database may."""
    if not view.config.channels:
        return
    offered: dict[str, dict[str, None]] = {}
    for _, channel in _serving(view):
        for group in channel.groups:
            offered.setdefault(group, {}).update(dict.fromkeys(channel.models))
    known: dict[tuple[str, tuple[str, ...]], bool] = {}
    for index, token in enumerate(view.config.tokens):
        reach = (token.group, token.models)
        if reach not in known:
            known[reach] = _reaches(offered.get(token.group, {}), token.models)
        if token.enabled and not known[reach]:
            where: Path = ("tokens", index, "models" if token.models and offered.get(token.group) else "group")
            yield view.wrong(where, f"token {token.name} {LOST}")


def _lost_default(view: View) -> Iterator[Fault]:
    """A model for requests that name none which no channel serves. Silent where no file names a channel."""
    model, serving = view.config.relay.responses_model, _serving(view)
    if model is not None and serving and not any(meet(model, one) for _, channel in serving for one in channel.models):
        yield view.wrong(("relay", "responses_model"), f"no channel of this configuration serves {model}")


def _reaches(offered: Mapping[str, None], wanted: tuple[str, ...]) -> bool:
    if not offered or not wanted:
        return bool(offered)
    patterns = [one for one in offered if "*" in one]
    for model in wanted:
        if "*" in model:
            if any(meet(model, one) for one in offered):
                return True
        elif model in offered or any(meet(model, one) for one in patterns):
            return True
    return False


def meet(first: str, second: str) -> bool:
    """Whether some name fits both patterns (`*` is any text)."""
    states = {0}
    for j in range(len(second) + 1):
        reached: set[int] = set()
        for i in sorted(states):
            while i < len(first) and first[i] == "*":  # the star of `first` may stand for nothing
                reached.add(i)
                i += 1
            reached.add(i)
        states = reached
        if j == len(second):
            break
        if second[j] == "*":
            states = set(range(min(states), len(first) + 1)) if states else set()
        else:
            here = second[j]
            states = {i if first[i] == "*" else i + 1 for i in states if i < len(first) and first[i] in ("*", here)}
    return len(first) in states


def _unpriced(view: View, priced: Priced) -> Iterator[Fault]:
    """Models without a price are refused when somebody asks for them."""
    asked: set[tuple[str, str]] = set()
    for index, channel in _serving(view):
        for j, model in enumerate(channel.models):
            names = (model, channel.model_mapping.get(model, model))
            if names not in asked and not priced(*names):
                message = f"model {model} has no price: requests for it are refused (prices or ratios give it one)"
                yield view.wrong(("channels", index, "models", j), message)
            asked.add(names)


def _unlike(view: View, priced: Priced) -> Iterator[Fault]:
    """Prices taken from a model that has none."""
    for model, price in view.config.prices.items():
        if price.like is not None and not priced(model, model):
            yield view.wrong(("prices", model, "like"), f"{price.like} has no price")


def _exposed(view: View, plain: Mapping[Path, Place], exposed: Iterable[str]) -> Iterator[Fault]:
    """Files with secrets in plain text that others on this machine may read; one warning a file."""
    readable = set(exposed)
    for path, place in plain.items():
        if place.file in readable and not _harmless(view, path):
            readable.discard(place.file)
            message = "a secret in a file that group or world can read; make it 0600, or use ${NAME} or {file: PATH}"
            yield view.wrong(path, message)


def _harmless(view: View, path: Path) -> bool:
    """A database URL without a password is no secret."""
    if path not in (("database",), ("redis",)):
        return False
    secret = getattr(view.config, str(path[0]))
    try:
        return secret is None or urlsplit(secret.reveal()).password is None
    except ValueError:
        return False


_ADVICE: Final[tuple[Rule, ...]] = (_hollow, _open, _alone, _extras, _empty_channels, _lost_tokens, _lost_default)


def advice(view: View, priced: Priced | None, plain: Mapping[Path, Place], exposed: Iterable[str]) -> list[Fault]:
    """Every warning. `priced` is None where the prices themselves are faulty; `plain` as in `walk.Walked`."""
    found = [one for rule in _ADVICE for one in rule(view)]
    if priced is not None:
        found += [*_unlike(view, priced), *_unpriced(view, priced)]
    return [*found, *_exposed(view, plain, exposed)]
