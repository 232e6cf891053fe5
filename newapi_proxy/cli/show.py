"""`show`: the effective configuration as YAML, secrets masked, with the origin of each value where asked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import inspect as mi

from newapi_proxy.cli import settings
from newapi_proxy.config import units
from newapi_proxy.config.nodes import Path, dotted
from newapi_proxy.config.walk import bare, described, unit
from newapi_proxy.secret import MASK, Secret

_HIDDEN: Final = re.compile(
    r"auth|secret|passw|cookie|credential|signature|api.?key|private|(?:^|[-_.])(?:key|token)$", re.IGNORECASE
)
_FREE: Final = ("headers", "options", "set", "default")  # mappings in which anything may stand
_UNITS: Final = {"duration": units.duration_text, "size": units.size_text, "money": units.money_text}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--origin", action="store_true", help="say where each value comes from")


def run(args: argparse.Namespace) -> int:
    """0, or 1 where there is no valid configuration to show."""
    loaded = settings.whole(args)
    if loaded.config is None:
        return 1
    for line in render(loaded.config, loaded.origins if args.origin else None):
        print(line)
    return 0


def render(value: Any, origins: Mapping[str, str] | None) -> Iterator[str]:
    """Lines of YAML; with origins each value has a comment `# file:line`, `# env:NAME` or `# default`."""
    yield from _mapping(_fields(value), (), "", origins)


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    """A struct's values as they are printed: durations, sizes and amounts in the units people write."""
    kind = bare(described(type(value)))
    assert isinstance(kind, mi.StructType)
    return {field.encode_name: _united(field.type, getattr(value, field.name)) for field in kind.fields}


def _united(kind: mi.Type, value: Any) -> Any:
    inner = bare(kind)
    if value is not None and isinstance(inner, mi.UnionType):
        kind = next((one for one in inner.types if unit(one)), kind)
    return _UNITS[unit(kind)](value) if value is not None and unit(kind) else value


def _mapping(values: Mapping[str, Any], path: Path, indent: str, origins: Mapping[str, str] | None) -> Iterator[str]:
    for key, value in values.items():
        yield from _entry(f"{indent}{_scalar(key)}:", value, (*path, str(key)), indent + "  ", origins)


def _entry(head: str, value: Any, path: Path, indent: str, origins: Mapping[str, str] | None) -> Iterator[str]:
    """One key or list item: on its own line, or followed by what it holds."""
    if isinstance(value, msgspec.Struct):
        value = _fields(value)
    if isinstance(value, dict) and value:
        yield head
        yield from _mapping(value, path, indent, origins)
    elif isinstance(value, (list, tuple)) and any(isinstance(one, (dict, msgspec.Struct)) for one in value):
        yield head
        for index, one in enumerate(value):
            yield from _entry(f"{indent}-", one, (*path, index), indent + "  ", origins)
    else:
        comment = "" if origins is None else f"  # {_origin(path, origins)}"
        yield f"{head} {_scalar(masked(value, path))}{comment}"


def _origin(path: Path, origins: Mapping[str, str]) -> str:
    return re.sub(r"\s+", " ", origins.get(dotted(path), "default"))


def masked(value: Any, path: Path) -> Any:
    """The value without what may be a secret: by type, by the name of a free key, by a password in a URL."""
    if isinstance(value, Secret):
        return _url(value.reveal()) if path == ("database",) or path == ("redis",) else MASK
    if isinstance(value, (list, tuple)):
        return [masked(one, (*path, index)) for index, one in enumerate(value)]
    names = [str(one) for one in path]
    free = next((index for index, one in enumerate(names) if one in _FREE), len(names))
    if any(_HIDDEN.search(one) for one in names[free + 1 :]):
        return MASK
    return _url(value) if isinstance(value, str) and "://" in value else value


def _url(text: str) -> str:
    """A URL without its password."""
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        return MASK
    if "@" not in parts.netloc:
        return text if not _HIDDEN.search(parts.query) else text.replace(parts.query, MASK)
    user, host = parts.netloc.rpartition("@")[0].partition(":")[0], parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{MASK}@{host}" if password else f"{MASK}@{host}").geturl()


def _scalar(value: Any) -> str:
    """One value, or a list of such, on one line of YAML."""
    if isinstance(value, Secret):
        value = MASK
    if isinstance(value, date):
        return value.isoformat()
    flow = yaml.safe_dump(value, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return flow.strip().removesuffix("...").strip()
