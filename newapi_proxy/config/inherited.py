"""Channels of New API's and One API's database as the configuration's own: one row, one channel, or a sentence why not.

Every form a row may have: keys by lines or as a JSON list, some of them disabled; `other`, `setting`, `settings` and
`config`; mappings and overrides as JSON text. Source: relay-and-billing 4.6, 4.12 to 4.15, 7.2, 7.6. What only a
provider understands, its adapter says. What a row asks for and nobody here can do is told, never silently dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from newapi_proxy import adapters
from newapi_proxy.adapters import numbers
from newapi_proxy.adapters._inherited import Inherited, Meant
from newapi_proxy.adapters.base import Adapter
from newapi_proxy.config import rules
from newapi_proxy.config.model import Channel, Config, Group, Override
from newapi_proxy.config.nodes import Place
from newapi_proxy.secret import Secret
from newapi_proxy.store import channels
from newapi_proxy.store.channels import ChannelRow
from newapi_proxy.store.origin import Origin
from newapi_proxy.surfaces.instructing import Mode
from newapi_proxy.wire import tree

_ENABLED: Final = channels.ENABLED
_HOPS: Final = 32  # a mapping's longest chain
_PLACE: Final = Place("database", 0, 0)
_PASSED: Final = ("*", "re:", "regex:")  # names of header overrides that mean a client's own headers
_ASKED: Final[Mapping[str, tuple[str, bool]]] = {  # a switch of `settings` → a field that it cuts out, and when it does
    "allow_service_tier": ("service_tier", False),
    "allow_inference_geo": ("inference_geo", False),
    "allow_speed": ("speed", False),
    "allow_safety_identifier": ("safety_identifier", False),
    "disable_store": ("store", True),
}


class Takeover(msgspec.Struct, frozen=True):
    """The channels of a database, and their rows' ids. `faults`: what is not served, one sentence each.

    `shadowed`: channels that the file names too.
    """

    channels: tuple[Channel, ...] = ()
    ids: Mapping[str, int] = {}
    faults: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()


class _Fault(Exception):
    """Why a row cannot be a channel."""


def takeover(
    rows: Iterable[ChannelRow], origin: Origin, options: Mapping[str, Mapping[str, Any]], taken: Iterable[str]
) -> Takeover:
    """The rows as channels, by id. `options`: type → option defaults; `taken`: the file's names, which win."""
    names, found, faults, shadowed = set(taken), [], [], []
    ids: dict[str, int] = {}
    given = frozenset(names)
    for row in rows:
        if row.name in given:
            shadowed.append(row.name)
            continue
        told: list[str] = []
        try:
            channel = _channel(row, origin, options, told)
        except _Fault as fault:
            told = [f"{fault}; the channel is left out"]
        else:
            name = _named(row, names)
            names.add(name)
            ids[name] = row.id
            found.append(msgspec.structs.replace(channel, name=name))
        label = f"channel {row.id} ({row.name})" if row.name else f"channel {row.id}"
        faults += [f"{label}: {one}" for one in told]
    return Takeover(tuple(found), ids, tuple(faults), tuple(shadowed))


def _named(row: ChannelRow, names: set[str]) -> str:
    """The row's name where nobody has it, else with its id."""
    if row.name and row.name not in names:
        return row.name
    name = f"{row.name} #{row.id}".strip()
    while name in names:
        name += "'"
    return name


def _channel(row: ChannelRow, origin: Origin, options: Mapping[str, Mapping[str, Any]], told: list[str]) -> Channel:
    one_api = origin == "one-api"
    meant = numbers.kind(row.type, one_api)
    adapter = adapters.ADAPTERS.get(meant[0]) if meant is not None else None
    if meant is None or adapter is None:
        raise _Fault(_unserved(row.type, one_api))
    setting, settings = _object(row.setting, "setting", told), _object(row.settings, "settings", told)
    means = _means(row, adapter, one_api, options.get(adapter.name, {}), settings)
    told += [f"{one} is not served" for one in means.unserved]
    own = {**means.options} | ({"thinking_to_content": True} if setting.get("thinking_to_content") is True else {})
    prompt, mode = _prompt(row, setting)
    channel = Channel(
        name=row.name or str(row.id),
        type=adapter.name,
        base_url=_address(row, meant[1], adapter),
        keys=_usable(row, means.keys, told),
        organization=row.organization or None,
        models=row.models,
        groups=row.groups,
        priority=row.priority,
        weight=row.weight,
        enabled=row.status == _ENABLED,
        model_mapping=_mapping(row, origin, told),
        status_code_mapping=_statuses(row, told),
        override=_override(row, settings, told),
        headers={**means.headers, **_headers(row, told)},
        auto_disable=row.auto_ban,
        system_prompt=prompt or None,
        system_prompt_mode=mode,
        proxy=str(setting.get("proxy") or "").strip() or None,
        options=own,
    )
    if row.status == channels.AUTO_DISABLED:
        why = f" ({row.reason})" if row.reason else ""
        told.append(f"was disabled automatically{why}: `newapi-proxy channel enable` lets it serve again")
    _check(channel, adapter.options)
    return channel


def _unserved(number: int, one_api: bool) -> str:
    words = f"type {numbers.called(number, one_api)} is not served by this version"
    other = numbers.instead(number)
    return words if other is None else f"{words}; a channel of type {other} with a key for that interface is"


def _means(
    row: ChannelRow, adapter: Adapter, one_api: bool, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> Meant:
    if adapter.inherited is None:
        return Meant(options=options)
    return adapter.inherited(
        Inherited(
            number=row.type,
            one_api=one_api,
            other=row.other,
            settings=settings,
            config=_object(row.config, "config", []),
            options=options,
        )
    )


def _address(row: ChannelRow, default: str, adapter: Adapter) -> str | None:
    """The row's, else the number's own where that is another than the type's."""
    if row.base_url:
        return row.base_url
    if not default and adapter.base_url:
        raise _Fault("base_url is required for its type")
    return default if default != adapter.base_url else None


def _check(channel: Channel, options: type) -> None:
    """The file's own rules, and the type's options. Raises _Fault with the first thing that is wrong."""
    try:
        msgspec.convert(channel.options, options)
    except msgspec.ValidationError as error:
        raise _Fault(f"an option is wrong: {error}") from None
    groups: dict[str, float | Group] = dict.fromkeys(channel.groups, 1.0)
    view = rules.View(Config(channels=(channel,), groups=groups), {}, _PLACE, adapters.ADAPTERS)
    for fault in rules.apply(view, rules.CHANNEL_RULES):
        raise _Fault(f"{fault.key.partition('].')[2] or fault.key} {fault.message}")


def _prompt(row: ChannelRow, setting: Mapping[str, Any]) -> tuple[str, Mode]:
    """One API's replaces the client's; New API's stands in for none, or in front of the client's."""
    if text := str(setting.get("system_prompt") or ""):
        return text, "before" if setting.get("system_prompt_override") is True else "absent"
    return row.system_prompt, "replace"


def _object(text: str, column: str, told: list[str]) -> dict[str, Any]:
    """A JSON column; {} where it is empty, and where it is no object, which is told."""
    if not text.strip():
        return {}
    found = tree.lenient(text.encode("utf-8", "replace"))
    if isinstance(found, dict):
        return found
    if found is not None or text.strip() != "null":
        told.append(f"the column {column} is no JSON object and is not read")
    return {}


def split(text: str) -> list[str]:
    """Keys by line, or a JSON list of them; one account's JSON may have lines of its own. Places are New API's."""
    text = text.strip()
    if text.startswith("["):
        found = tree.lenient(text.encode("utf-8", "replace"))
        if isinstance(found, list):
            return [one if isinstance(one, str) else tree.dumps(one) for one in found]
    return [text] if text.startswith("{") else [line.strip() for line in text.split("\n")]


def _usable(row: ChannelRow, keys: Sequence[str] | None, told: list[str]) -> tuple[Secret, ...]:
    """The keys that New API has not disabled one by one."""
    states = _object(row.channel_info, "channel_info", told).get("multi_key_status_list")
    states = states if isinstance(states, dict) else {}
    given = split(row.key.reveal()) if keys is None else keys
    kept = [key for place, key in enumerate(given) if key and states.get(str(place), _ENABLED) == _ENABLED]
    if not kept and any(given):
        raise _Fault("all of its keys are disabled")
    return tuple(Secret(key) for key in dict.fromkeys(kept))


def _mapping(row: ChannelRow, origin: Origin, told: list[str]) -> dict[str, str]:
    """Requested name → upstream's. New API's latest follows chains to their end, all others take one step."""
    found = _object(row.model_mapping, "model_mapping", told)
    one_step = {name: str(value).strip() for name, value in found.items() if str(value or "").strip()}
    if origin != "new-api-latest":
        return one_step
    ends = {}
    for name, end in one_step.items():
        hops = 0
        while end in one_step and one_step[end] != end and hops < _HOPS:
            end, hops = one_step[end], hops + 1
        if hops == _HOPS:
            raise _Fault(f"its model mapping of {name} goes round in a circle")
        ends[name] = end
    return ends


def _statuses(row: ChannelRow, told: list[str]) -> dict[str, int]:
    found = {}
    for status, value in _object(row.status_code_mapping, "status_code_mapping", told).items():
        if status.strip().isdecimal() and str(value).strip().isdecimal() and 400 <= int(value) <= 599:
            found[status.strip()] = int(value)
        else:
            told.append(f"its status code mapping of {status} to {value} is not served")
    return found


def _override(row: ChannelRow, settings: Mapping[str, Any], told: list[str]) -> Override:
    """Flat: each key is a field of the body. Operations: those that hold always and set, default or delete."""
    given = _object(row.param_override, "param_override", told)
    operations = given.get("operations")
    edits: dict[str, dict[str, Any]] = {"set": {}, "default": {}}
    cut: list[str] = []
    if settings:
        cut = [path for name, (path, when) in _ASKED.items() if (settings.get(name) is True) == when]
    if not isinstance(operations, list):
        edits["set"] = {name: value for name, value in given.items() if "." not in name}
        told += [f"its override of {name} is not served" for name in given if "." in name]
        operations = []
    for operation in operations:
        path = operation.get("path") if isinstance(operation, dict) else None
        mode = operation.get("mode") if isinstance(operation, dict) else None
        if not path or mode not in ("set", "delete") or operation.get("conditions"):
            told.append(f"its override operation {mode or '?'} {path or ''} is not served".replace("  ", " "))
        elif mode == "delete":
            cut.append(str(path))
        else:
            edits["default" if operation.get("keep_origin") else "set"][str(path)] = operation.get("value")
    return Override(set=edits["set"], default=edits["default"], remove=tuple(cut))


def _headers(row: ChannelRow, told: list[str]) -> dict[str, str]:
    found = {}
    for name, value in _object(row.header_override, "header_override", told).items():
        if name.startswith(_PASSED) or "{client_header:" in str(value):
            told.append(f"its header {name} would pass a client's headers on, which is not served")
        else:
            found[name] = str(value)
    return found
