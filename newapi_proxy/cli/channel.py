"""`newapi-proxy channel`: accounts in the database. Those that YAML names are listed, and changed in their file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from sqlalchemy import Connection

from newapi_proxy.adapters import ADAPTERS, numbers
from newapi_proxy.billing.charge import usd
from newapi_proxy.cli import output, probing, settings
from newapi_proxy.cli.database import failed, use
from newapi_proxy.clock import SystemClock
from newapi_proxy.config import inherited, load
from newapi_proxy.config.load import Loaded
from newapi_proxy.config.model import Channel
from newapi_proxy.config.nodes import closest
from newapi_proxy.secret import Secret
from newapi_proxy.store import channels, origin, resting
from newapi_proxy.store.channels import ChannelRow, NewChannel
from newapi_proxy.store.resting import Rest, Woken

_STATUS: Final = {1: "enabled", 2: "disabled", 3: "disabled automatically"}
_COLUMNS: Final = ("id", "name", "type", "status", "source", "priority", "weight", "groups", "models", "used")
_SHOWN: Final = (*_COLUMNS[:-1], "base_url", "keys", "rests", "used")
_SEEN: Final = "A running daemon sees this within seconds."


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of either source, its fields as they are printed. `id` 0: the file's, and never loaded yet."""

    id: int
    name: str
    type: str
    status: str
    source: str
    priority: int
    weight: int
    groups: tuple[str, ...]
    models: tuple[str, ...]
    base_url: str
    keys: int
    rests: str
    used: str

    @property
    def filed(self) -> bool:
        """Whether the file names it."""
        return self.source == "yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list`, `add`, `show`, `enable`, `disable`, `rm`, `test` and `balance`."""
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("list", help="every channel, the file's too")
    action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    action = actions.add_parser("add", help="make a channel")
    action.add_argument("name")
    action.add_argument("--type", required=True, help="a type of the configuration that has a number in the database")
    action.add_argument("--key", required=True, help="its key, or - to read it from standard input")
    action.add_argument("--models", type=_names, required=True, metavar="A,B", help="comma list, * for any characters")
    action.add_argument("--groups", type=_names, default=("default",), metavar="A,B", help="absent: default")
    action.add_argument("--base-url", default="", help="absent: the type's own address")
    action.add_argument("--priority", type=int, default=0, help="higher first")
    action.add_argument("--weight", type=int, default=1, help="share inside a priority")
    action.add_argument("--other", default="", help="an API version, a region: what the type keeps there")
    for name, does in (
        ("show", "one channel"),
        ("enable", "let it serve, and forget its failures"),
        ("disable", "let it serve no more"),
        ("rm", "delete it; its spend stays"),
    ):
        action = actions.add_parser(name, help=does)
        action.add_argument("channel", metavar="ID|NAME")
        action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    probing.configure(actions)


def run(args: argparse.Namespace) -> int:
    """0; 1 where there is no such channel, several of the name, or the database cannot be used."""
    loaded = settings.load(args)
    if loaded.config is None:
        return settings.code(loaded)
    if args.action in ("test", "balance"):
        return probing.run(args, loaded)
    if args.action == "add":
        return use(args, lambda conn: _add(conn, args), write=True, config=loaded.config)
    if args.action == "list":
        return use(args, lambda conn: _list(conn, loaded, args.format), write=False, config=loaded.config)
    change = _CHANGES.get(args.action, _show)
    return use(args, lambda conn: _on(conn, loaded, args, change), write=args.action != "show", config=loaded.config)


def _names(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(one for piece in text.split(",") if (one := piece.strip())))
    if not found:
        raise argparse.ArgumentTypeError("names nothing")
    return found


def _add(conn: Connection, args: argparse.Namespace) -> int:
    if args.type not in ADAPTERS:
        hint = closest(args.type, ADAPTERS)
        return failed(f"{args.type!r} is no channel type" + (f" (did you mean {hint}?)." if hint else "."))
    made_by = origin.look(conn)
    number = numbers.number(args.type, made_by == "one-api")
    if not number:
        return failed(f"The type {args.type} has no number in this database: name the channel in the file.")
    key = sys.stdin.read().strip() if args.key == "-" else args.key
    new = NewChannel(
        name=args.name,
        type=number,
        key=Secret(key),
        models=args.models,
        groups=args.groups,
        base_url=args.base_url,
        priority=args.priority,
        weight=max(0, args.weight),
        other=args.other,
    )
    row = ChannelRow(
        id=0, status=channels.ENABLED, **{name: getattr(new, name) for name in NewChannel.__struct_fields__}
    )
    found = inherited.takeover([row], made_by, {}, ())
    if found.faults:
        return failed(found.faults[0].partition(": ")[2])
    id = channels.add(conn, new, int(SystemClock.wall()))
    print(f"channel {id} made. {_SEEN}")
    return 0


def _list(conn: Connection, loaded: Loaded, form: str) -> int:
    output.rows([msgspec.structs.asdict(one) for one in _known(conn, loaded)], _COLUMNS, form)
    return 0


def _on(
    conn: Connection, loaded: Loaded, args: argparse.Namespace, work: Callable[[Connection, Listed, str], int]
) -> int:
    known = _known(conn, loaded)
    found = [one for one in known if str(one.id) == args.channel] or [one for one in known if one.name == args.channel]
    if len(found) == 1:
        return work(conn, found[0], args.format)
    if found:
        return failed(f"{len(found)} channels are named {args.channel}: give the id.")
    return failed(f"There is no channel {args.channel}.")


def _show(conn: Connection, one: Listed, form: str) -> int:
    output.rows([msgspec.structs.asdict(one)], _SHOWN, form)
    return 0


def _enable(conn: Connection, one: Listed, form: str) -> int:
    resting.end(conn, [Woken(one.name)])
    if not one.filed:
        channels.set_status(conn, one.id, channels.ENABLED)
    print(_SEEN)
    return 0


def _disable(conn: Connection, one: Listed, form: str) -> int:
    if one.filed:
        return failed(f"The channel {one.name} is in the configuration file: change it there.")
    channels.set_status(conn, one.id, channels.DISABLED, reason="newapi-proxy channel", at=int(SystemClock.wall()))
    print(_SEEN)
    return 0


def _remove(conn: Connection, one: Listed, form: str) -> int:
    if one.filed:
        return failed(f"The channel {one.name} is in the configuration file: remove it there.")
    resting.end(conn, [Woken(one.name)])
    channels.remove(conn, one.id)
    print(_SEEN)
    return 0


_CHANGES: Final[dict[str, Callable[[Connection, Listed, str], int]]] = {
    "enable": _enable,
    "disable": _disable,
    "rm": _remove,
}


def _known(conn: Connection, loaded: Loaded) -> list[Listed]:
    """The file's channels, then the database's by id; names as the daemon gives them."""
    assert loaded.config is not None
    rests: dict[str, list[Rest]] = {}
    for rest in resting.load(conn):
        rests.setdefault(rest.channel, []).append(rest)
    rows, made_by, spent, ids = channels.load(conn), origin.look(conn), channels.spent(conn), channels.own(conn)
    filed = loaded.config.channels
    taken = inherited.takeover(rows, made_by, {}, [one.name for one in filed]).ids
    names = {id: name for name, id in taken.items()}
    return [
        *(_filed(one, ids.get(one.name, 0), rests.get(one.name, ()), spent) for one in filed),
        *(
            _held(msgspec.structs.replace(row, name=name), made_by == "one-api", rests.get(name, ()))
            for row in rows
            for name in [names.get(row.id, row.name)]
        ),
    ]


def _filed(one: Channel, id: int, rests: Sequence[Rest], spent: Mapping[int, int]) -> Listed:
    return Listed(
        id=id,
        name=one.name,
        type=one.type,
        status="enabled" if one.enabled else "disabled",
        source="yaml",
        priority=one.priority,
        weight=one.weight,
        groups=one.groups,
        models=one.models,
        base_url=one.base_url or "",
        keys=len(load.keys(one)),
        rests=_rests(rests),
        used=f"${usd(spent.get(id, 0))}",
    )


def _held(row: ChannelRow, one_api: bool, rests: Sequence[Rest]) -> Listed:
    meant = numbers.kind(row.type, one_api)
    return Listed(
        id=row.id,
        name=row.name,
        type=meant[0] if meant else numbers.called(row.type, one_api),
        status=_STATUS.get(row.status, str(row.status)),
        source="database",
        priority=row.priority,
        weight=row.weight,
        groups=row.groups,
        models=row.models,
        base_url=row.base_url,
        keys=len(inherited.split(row.key.reveal())),
        rests=_rests(rests),
        used=f"${usd(row.used_quota)}",
    )


def _rests(rests: Sequence[Rest]) -> str:
    """`until 2027-01-31T12:00:00+00:00: upstream_auth 401`"""
    return "; ".join(
        f"until {datetime.fromtimestamp(one.until, UTC).isoformat(timespec='seconds')}: {one.reason}" for one in rests
    )
