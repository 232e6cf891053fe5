"""`newapi-proxy redeem`: codes that put an amount on an account, made and switched in the database."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from newapi_proxy.billing.charge import usd
from newapi_proxy.cli import output, settings
from newapi_proxy.cli.database import failed, use
from newapi_proxy.cli.token import a_date, an_amount
from newapi_proxy.clock import SystemClock
from newapi_proxy.store import redemptions, users
from newapi_proxy.store.redemptions import Code, NewCodes

_STATUS: Final = {1: "usable", 2: "disabled", 3: "used"}
_COLUMNS: Final = ("id", "name", "code", "status", "quota", "created", "expires", "used", "used_by")
_MOST: Final = 10_000  # codes of one call


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list`, `add`, `show`, `enable`, `disable` and `rm`."""
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("list", help="every code, all but its end masked")
    action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    action = actions.add_parser("add", help="make codes and print them, one a line")
    action.add_argument("name")
    action.add_argument("--quota", type=an_amount, required=True, metavar="AMOUNT", help="worth: $5, or quota units")
    action.add_argument("--count", type=int, default=1, help="how many")
    action.add_argument("--expires", type=a_date, metavar="YYYY-MM-DD", help="their last day")
    for name, does in (
        ("show", "codes of a name, or one, unmasked"),
        ("enable", "let them be used"),
        ("disable", "refuse them"),
        ("rm", "delete them"),
    ):
        action = actions.add_parser(name, help=does)
        action.add_argument("code", metavar="ID|NAME")
        action.add_argument("--format", choices=("table", "json", "csv"), default="table")


def run(args: argparse.Namespace) -> int:
    """0; 1 where there is no such code, or the database cannot be used."""
    if args.action == "add":
        return _add(args)
    if args.action == "list":
        return use(args, lambda conn: _print(redemptions.load(conn), args.format, masked=True), write=False)
    return use(args, lambda conn: _on(conn, args), write=args.action != "show")


def _add(args: argparse.Namespace) -> int:
    config = settings.require(args)
    if args.quota <= 0 or not 1 <= args.count <= _MOST:
        return failed(f"Codes are worth something, and are made 1 to {_MOST} at a time.")
    expires = 0
    if args.expires is not None:
        expires = int(datetime.combine(args.expires, time.max, ZoneInfo(config.timezone)).timestamp())

    def work(conn: Connection) -> int:
        at = int(SystemClock.wall())
        owner = users.ensure_system(conn, at)
        new = NewCodes(name=args.name, quota=args.quota, count=args.count, expired_time=expires, owner=owner)
        for key in redemptions.add(conn, new, at):
            print(key)
        return 0

    return use(args, work, write=True, config=config)


def _on(conn: Connection, args: argparse.Namespace) -> int:
    codes = redemptions.load(conn)
    found = [one for one in codes if str(one.id) == args.code] or [one for one in codes if one.name == args.code]
    if not found:
        return failed(f"There is no code {args.code}.")
    if args.action == "show":
        return _print(found, args.format, masked=False)
    print(f"{_CHANGES[args.action](conn, [one.id for one in found])} of {len(found)} changed")
    return 0


_CHANGES: Final[dict[str, Callable[[Connection, Sequence[int]], int]]] = {
    "enable": lambda conn, ids: redemptions.switch(conn, ids, redemptions.USABLE),
    "disable": lambda conn, ids: redemptions.switch(conn, ids, redemptions.DISABLED),
    "rm": lambda conn, ids: redemptions.remove(conn, ids, int(SystemClock.wall())),
}


def _print(codes: Sequence[Code], form: str, *, masked: bool) -> int:
    output.rows([_told(one, form == "table", masked) for one in codes], _COLUMNS, form)
    return 0


def _told(one: Code, people: bool, masked: bool) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "code": f"…{one.key[-4:]}" if masked else one.key,
        "status": _STATUS.get(one.status, str(one.status)),
        "quota": f"${usd(one.quota)}" if people else one.quota,
        "created": _moment(one.created_time),
        "expires": _moment(one.expired_time),
        "used": _moment(one.redeemed_time),
        "used_by": one.used_by or None,
    }


def _moment(at: int) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at > 0 else None
