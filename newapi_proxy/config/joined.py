"""The configuration joined with what a database holds: the file over the saved options, channels of both side by side.

Source: interfaces §3 ("YAML and database"). Pure: rows come in, one `Loaded` comes out, as if a file had said it all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from newapi_proxy.config import advice
from newapi_proxy.config.inherited import Takeover, takeover
from newapi_proxy.config.load import DATABASE, Loaded, priced
from newapi_proxy.config.model import Config, Ratios
from newapi_proxy.config.nodes import Path, Place, dotted, fault
from newapi_proxy.config.saved import Saved, saved
from newapi_proxy.store.channels import ENABLED
from newapi_proxy.store.held import Held

_LINE: Final = re.compile(r"(.+?):(\d+)(?: |$)")
_NAMED: Final = 8  # models of a channel that a warning names


class Joined(msgspec.Struct, frozen=True):
    """The whole configuration, and what only the database says: `saved` groups, `takeover` ids and names that lost."""

    loaded: Loaded
    saved: Saved
    takeover: Takeover

    @property
    def config(self) -> Config:
        """The joined configuration."""
        assert self.loaded.config is not None
        return self.loaded.config


def join(loaded: Loaded, held: Held) -> Joined:
    """Joins a configuration without faults. `loaded.warnings` gains what is not served."""
    file = loaded.config
    assert file is not None
    found = saved(held.options) if held.origin.startswith("new-api") or held.options else Saved()
    options = {kind: {**loaded.options.get(kind, {})} for kind in {*loaded.options, *found.options}}
    for kind, values in found.options.items():
        options[kind] |= values
    rows = [msgspec.structs.replace(one, status=ENABLED) if one.id in held.resting else one for one in held.channels]
    taken = takeover(rows, held.origin, options, [one.name for one in file.channels])
    origins = dict(loaded.origins)
    config = _over(file, found, origins)
    config = msgspec.structs.replace(config, channels=(*file.channels, *taken.channels))
    for index, channel in enumerate(taken.channels, len(file.channels)):
        origins.update(dict.fromkeys(map(dotted, _given(channel, ("channels", index))), DATABASE))
    at = _place(loaded.origins.get("database", DATABASE))
    warnings = [one for one in loaded.warnings if not one.message.endswith(advice.LOST) or not taken.channels]
    warnings += [fault(at, ("database",), one) for one in (*taken.faults, *found.faults, *_unpriced(config, taken))]
    warnings += [fault(at, ("database",), _hidden(name)) for name in taken.shadowed]
    whole = msgspec.structs.replace(loaded, config=config, origins=origins, warnings=tuple(warnings))
    return Joined(whole, found, taken)


def warned(loaded: Loaded, message: str) -> Loaded:
    """The configuration with one more warning, at the database's key."""
    at = _place(loaded.origins.get("database", DATABASE))
    return msgspec.structs.replace(loaded, warnings=(*loaded.warnings, fault(at, ("database",), message)))


def _place(origin: str) -> Place:
    """Where the file, or the environment, names the database."""
    found = _LINE.match(origin)
    return Place(found[1], int(found[2]), 1) if found else Place(origin, 0, 0)


def _hidden(name: str) -> str:
    return f"channel {name} of the database is not used: the file has one of that name"


def _over(file: Config, found: Saved, origins: dict[str, str]) -> Config:
    """The file over the saved options; what comes from there gets its origin."""
    named = {name for name in file.groups if any(one.startswith(dotted(("groups", name))) for one in origins)}
    groups = {name: ratio for name, ratio in found.groups.items() if name not in named}
    origins.update({dotted(("groups", name)): DATABASE for name in groups})
    tables = {name: dict(getattr(file.ratios, name)) for name in Ratios.__struct_fields__}
    own = {*file.prices, *tables["model_ratio"], *tables["model_price"]}
    for table, values in found.ratios.items():
        for model, value in values.items():
            if model not in tables[table] and (table not in ("model_ratio", "model_price") or model not in own):
                tables[table][model] = value
                origins[dotted(("ratios", table, model))] = DATABASE
    relay = {}
    for name in ("max_attempts", "no_retry"):
        value = getattr(found, name)
        if value is not None and not any(one.startswith(f"relay.{name}") for one in origins):
            relay[name] = value
            origins[f"relay.{name}"] = DATABASE
    address = file.public_url or found.public_url
    if address != file.public_url:
        origins["public_url"] = DATABASE
    return msgspec.structs.replace(
        file,
        public_url=address,
        groups={**file.groups, **groups},
        ratios=Ratios(**tables),
        relay=msgspec.structs.replace(file.relay, **relay),
    )


def _given(value: Any, path: Path) -> Iterator[Path]:
    """Where a row's channel says something else than the default, down to what `show` prints on one line."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            one = getattr(value, field.name)
            made = field.default_factory
            if one != (field.default if made is msgspec.NODEFAULT else made()):
                yield from _given(one, (*path, field.encode_name))
    elif isinstance(value, dict) and value:
        for name, one in value.items():
            yield from _given(one, (*path, name))
    else:
        yield path


def _unpriced(config: Config, taken: Takeover) -> Iterator[str]:
    """Models of the database's channels that nothing prices: a line for each channel."""
    if not taken.channels:
        return
    known = priced(config)
    for channel in taken.channels:
        lacking = [one for one in channel.models if not known(one, channel.model_mapping.get(one, one))]
        if lacking and channel.enabled:
            more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
            named = ", ".join(lacking[:_NAMED]) + more
            yield f"channel {channel.name}: no price, so requests are refused, for {named}"
