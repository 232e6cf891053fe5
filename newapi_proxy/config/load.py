"""The one entry: a path and an environment to a configuration, or to everything that is wrong with it.

`check`, `serve` and SIGHUP call `read`. Reads files, nothing else: no log, no event loop, no database.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec

from newapi_proxy import adapters
from newapi_proxy.adapters.base import Options
from newapi_proxy.billing import prices
from newapi_proxy.config import advice, legacy, rules, selling, source, walk
from newapi_proxy.config.model import Channel, Config
from newapi_proxy.config.nodes import Fault, Items, Node, Path, Place, Table, dotted
from newapi_proxy.secret import Secret

DATABASE: Final = "database"  # the origin of what a database says
_DEFAULT_GROUP: Final = "default"  # every token without a group is in it, so it exists always


class Loaded(msgspec.Struct, frozen=True):
    """What came of reading. `config` is None where there are faults.

    `origins`: dotted path → `file:line`, `file:line env:NAME`, `file:line file:PATH`, `env:NAME` or `database`;
    what is not in it is a default.
    `options`: channel type → option defaults from the environment, for channels that no file names.
    `readable` is False where the main file could not be opened at all.
    """

    config: Config | None
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    origins: Mapping[str, str]
    files: tuple[FilePath, ...]
    options: Mapping[str, Mapping[str, Any]] = {}
    readable: bool = True


def read(path: FilePath, environ: Mapping[str, str]) -> Loaded:
    """Everything that serve and a reload would check. Never raises for what a file may hold."""
    files = source.load(path, environ)
    if not files.readable:
        return Loaded(None, files.faults, (), {}, (), readable=False)
    below = legacy.layer(files.root, environ)
    tree = walk.walk(below.root, Config, environ)
    options, wrong = _options(tree.value, below.root, environ)
    config = msgspec.structs.replace(tree.value, groups={_DEFAULT_GROUP: 1.0, **tree.value.groups})
    view = rules.View(config, tree.places, Place(str(path), 1, 1), adapters.ADAPTERS)
    told = [*files.faults, *below.faults, *tree.faults, *wrong]
    faults = _sorted([*told, *rules.apply(view, (*rules.RULES, *selling.RULES), told)])
    warnings = _sorted([*below.warnings, *advice.advice(view, _priced(config, faults), tree.plain, files.exposed)])
    origins = {**tree.origins, **{path: origin for one in options.values() for path, origin in one.origins.items()}}
    config = _with_options(config, options)
    return Loaded(
        config=None if faults else config,
        faults=faults,
        warnings=warnings,
        origins={dotted(path): origin for path, origin in origins.items() if path},
        files=files.files,
        options=below.options,
    )


def keys(channel: Channel) -> tuple[Secret, ...]:
    """A channel's keys in order, `key` first, each once."""
    return tuple(dict.fromkeys((*((channel.key,) if channel.key else ()), *channel.keys)))


def options(channel: Channel) -> Options:
    """The channel's options as its adapter's struct. The channel must come from `read`, which has checked them."""
    return adapters.ADAPTERS[channel.type].options(**channel.options)


def _options(config: Config, root: Table, environ: Mapping[str, str]) -> tuple[dict[int, walk.Walked], list[Fault]]:
    """Each channel's options read as its adapter's struct, and what was wrong with them."""
    found: dict[int, walk.Walked] = {}
    faults: list[Fault] = []
    for index, channel in enumerate(config.channels):
        path: Path = ("channels", index, "options")
        adapter = adapters.ADAPTERS.get(channel.type)
        node = _at(root, path)
        if adapter is None or not isinstance(node, Table):
            continue
        found[index] = walk.walk(node, adapter.options, environ, path)
        faults += found[index].faults
    return found, faults


def _at(node: Node, path: Path) -> Node | None:
    for name in path:
        if isinstance(node, Table) and isinstance(name, str) and name in node.entries:
            node = node.entries[name].node
        elif isinstance(node, Items) and isinstance(name, int) and name < len(node.items):
            node = node.items[name]
        else:
            return None
    return node


def _with_options(config: Config, options: Mapping[int, walk.Walked]) -> Config:
    """The configuration with `options` as values of the adapters' own types, only those that were given."""
    channels = list(config.channels)
    for index, walked in options.items():
        given = {name: getattr(walked.value, name) for name in channels[index].options if hasattr(walked.value, name)}
        channels[index] = msgspec.structs.replace(channels[index], options=given)
    return msgspec.structs.replace(config, channels=tuple(channels))


def _priced(config: Config, faults: tuple[Fault, ...]) -> advice.Priced | None:
    return None if faults else priced(config)  # faulty prices cannot be made a book


def priced(config: Config) -> advice.Priced:
    """Whether the configuration, or the built-in table, prices a name."""
    book = prices.book(config.prices, config.ratios, config.ratios_by_group())
    names = book.names()

    def found(requested: str, mapped: str) -> bool:
        if book.sold(requested, mapped) is not None:
            return True
        return "*" in requested and any(advice.meet(requested, name) for name in names)  # some of its models are

    return found


def _sorted(faults: list[Fault]) -> tuple[Fault, ...]:
    """By file in order of appearance, then by line and column; each once."""
    order = {name: index for index, name in enumerate(dict.fromkeys(one.file for one in faults))}
    return tuple(sorted(dict.fromkeys(faults), key=lambda one: (order[one.file], one.line, one.col)))
