"""Upstream accounts: rows of `channels`, read leniently; YAML's channels have rows where their spend is added up.

Source: relay-and-billing 4.1, 4.13 and 7.2. Keys are in clear text there: they become `Secret` at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, RowMapping, and_, delete, insert, inspect, select, update

from newapi_proxy.secret import Secret
from newapi_proxy.store.row import made, names, number, older, readable, words
from newapi_proxy.store.schema import abilities, channels, proxy_channels
from newapi_proxy.wire import tree

ENABLED: Final = 1
DISABLED: Final = 2
AUTO_DISABLED: Final = 3
_NAME: Final = 191  # MySQL's column


class ChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as the database knows it. JSON columns come as text, "" for none; `type` is New API's number."""

    id: int
    type: int
    name: str
    key: Secret
    status: int
    models: tuple[str, ...]
    groups: tuple[str, ...]
    priority: int = 0
    weight: int = 0
    auto_ban: bool = True
    base_url: str = ""
    organization: str = ""
    test_model: str = ""
    other: str = ""
    model_mapping: str = ""
    status_code_mapping: str = ""
    setting: str = ""
    settings: str = ""
    param_override: str = ""
    header_override: str = ""
    channel_info: str = ""
    config: str = ""
    system_prompt: str = ""
    reason: str = ""
    used_quota: int = 0


def load(conn: Connection) -> list[ChannelRow]:
    """Every channel of the database, whatever its status, but those that stand for YAML's. Any age of file will do."""
    if not inspect(conn).has_table(channels.name):
        return []
    asked = select(*readable(conn, channels), *older(conn, channels, "config", "system_prompt")).order_by(channels.c.id)
    if inspect(conn).has_table(proxy_channels.name):
        asked = asked.where(channels.c.id.not_in(select(proxy_channels.c.channel_id)))
    return [_row(found) for found in conn.execute(asked).mappings()]


def _row(found: RowMapping) -> ChannelRow:
    return ChannelRow(
        id=found["id"],
        type=number(found["type"]),
        name=words(found["name"]),
        key=Secret(words(found["key"])),
        status=number(found["status"], ENABLED),
        models=names(found["models"]),
        groups=names(found["group"]) or ("default",),
        priority=number(found["priority"]),
        weight=max(0, number(found["weight"])),
        auto_ban=number(found["auto_ban"], 1) != 0,
        base_url=words(found["base_url"]),
        organization=words(found["open_ai_organization"]),
        test_model=words(found["test_model"]),
        other=words(found["other"]),
        config=_json(found.get("older_config")),
        system_prompt=words(found.get("older_system_prompt")),
        reason=_reason(found["other_info"]),
        used_quota=number(found["used_quota"]),
        **{name: _json(found[name]) for name in _JSON},
    )


_JSON: Final = (
    "model_mapping", "status_code_mapping", "setting", "settings", "param_override", "header_override", "channel_info",
)  # fmt: skip


def _json(value: Any) -> str:
    """A JSON column's text; some drivers hand a json column out decoded."""
    text = tree.dumps(value) if isinstance(value, (dict, list)) else words(value)
    return "" if text in ("{}", "null") else text


def _reason(info: Any) -> str:
    """Why a status was set, where New API or we have said so."""
    return words(_members(info).get("status_reason"))


def _members(text: Any) -> dict[str, Any]:
    found = tree.lenient(words(text).encode())
    return found if isinstance(found, dict) else {}


class NewChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel made on the command line. `type` is the number in the database's own format."""

    name: str
    type: int
    key: Secret
    models: tuple[str, ...]
    groups: tuple[str, ...] = ("default",)
    base_url: str = ""
    priority: int = 0
    weight: int = 0
    other: str = ""


def add(conn: Connection, new: NewChannel, at: int) -> int:
    """Makes a channel and its abilities, as New API does; its row's id."""
    id = made(
        conn,
        insert(channels).values(
            type=new.type,
            key=new.key.reveal(),
            status=ENABLED,
            name=new.name[:_NAME],
            created_time=at,
            base_url=new.base_url,
            models=",".join(new.models),
            group=",".join(new.groups),
            priority=new.priority,
            weight=new.weight,
            other=new.other,
        ),
    )
    pairs = dict.fromkeys((group[:64], model[:255]) for group in new.groups for model in new.models)
    rest = {"channel_id": id, "enabled": True, "priority": new.priority, "weight": new.weight}
    conn.execute(insert(abilities), [{"group": group, "model": model, **rest} for group, model in pairs])
    return id


def remove(conn: Connection, id: int) -> bool:
    """Deletes a channel and its abilities, as New API does; its spend stays in the log. Whether there was one."""
    conn.execute(delete(abilities).where(abilities.c.channel_id == id))
    return conn.execute(delete(channels).where(channels.c.id == id)).rowcount > 0


def spent(conn: Connection) -> dict[int, int]:
    """Units that each row has been charged with, YAML's too, by id."""
    return {row.id: number(row.used_quota) for row in conn.execute(select(channels.c.id, channels.c.used_quota))}


def own(conn: Connection) -> dict[str, int]:
    """Row ids of YAML's channels, past ones too, by name."""
    return {row.name: row.channel_id for row in conn.execute(select(proxy_channels))}


def ensure(conn: Connection, wanted: Mapping[str, int], at: int = 0) -> dict[str, int]:
    """Row ids of YAML's channels by name, made where they are missing. `wanted`: name → New API's type number.

    The rows have no models and are disabled, so that New API beside us never routes to them.
    """
    known = own(conn)
    for name, kind in wanted.items():
        if name in known:
            continue
        known[name] = made(
            conn,
            insert(channels).values(
                type=kind,
                key="",
                status=DISABLED,
                name=name[:_NAME],
                created_time=at,
                models="",
                group="",
                other_info='{"status_reason":"configured in newapi-proxy"}',
            ),
        )
        conn.execute(insert(proxy_channels).values(name=name, channel_id=known[name]))
    return {name: known[name] for name in wanted}


def set_status(
    conn: Connection, id: int, status: int, *, reason: str = "", at: int = 0, only: int | None = None
) -> bool:
    """Sets a channel's status, its abilities in step, as New API does; whether there was such a channel to be changed.

    `reason` is written beside what else stands in `other_info`; `only`: where the status is this one now.
    """
    meant = channels.c.id == id if only is None else and_(channels.c.id == id, channels.c.status == only)
    if not conn.execute(update(channels).where(meant).values(status=status)).rowcount:
        return False
    if reason:
        info = _members(conn.execute(select(channels.c.other_info).where(channels.c.id == id)).scalar())
        info |= {"status_reason": reason, "status_time": at}
        conn.execute(update(channels).where(channels.c.id == id).values(other_info=tree.dumps(info)))
    conn.execute(update(abilities).where(abilities.c.channel_id == id).values(enabled=status == ENABLED))
    return True


def responded(conn: Connection, id: int, milliseconds: int, at: int) -> None:
    """A test was answered in so many milliseconds; `at` unix seconds."""
    conn.execute(update(channels).where(channels.c.id == id).values(response_time=milliseconds, test_time=at))


def balanced(conn: Connection, id: int, usd: float, at: int) -> None:
    """Its account has so many USD left; `at` unix seconds."""
    conn.execute(update(channels).where(channels.c.id == id).values(balance=usd, balance_updated_time=at))


def named(conn: Connection) -> dict[int, str]:
    """Every channel's name by its id, the file's too."""
    return {row.id: words(row.name) for row in conn.execute(select(channels.c.id, channels.c.name))}
