"""`newapi-proxy token`: client keys in the database. Keys that YAML names are shown, and changed in their file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from newapi_proxy.billing import budgets
from newapi_proxy.billing.budgets import Window
from newapi_proxy.billing.charge import usd
from newapi_proxy.cli import output, settings
from newapi_proxy.cli.database import failed, use
from newapi_proxy.clock import SystemClock
from newapi_proxy.config import units
from newapi_proxy.config.grouping import AUTO
from newapi_proxy.snapshot import token_digest
from newapi_proxy.store import logs, tokens
from newapi_proxy.store.tokens import TokenRow

_STATUS: Final = {1: "enabled", 2: "disabled", 3: "expired", 4: "exhausted"}
_COLUMNS: Final = ("id", "name", "status", "group", "source", "left", "used", "budget", "models", "expires")
_SEEN: Final = "A running daemon sees this within seconds."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list`, `add`, `show`, `enable`, `disable`, `rm` and `topup`."""
    actions = parser.add_subparsers(dest="action", required=True)
    for name, does in (("list", "every key"), ("add", "make a key and print it, once")):
        action = actions.add_parser(name, help=does)
        action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    limit = action.add_mutually_exclusive_group(required=True)
    limit.add_argument("--quota", type=an_amount, metavar="AMOUNT", help="what it may spend: $5, or quota units")
    limit.add_argument("--unlimited", action="store_true", help="no limit of its own")
    action.add_argument("name")
    action.add_argument("--group", default="", help="its group; absent: default")
    action.add_argument("--models", default="", help="comma list, * for any characters; absent: all its group reaches")
    action.add_argument("--expires", type=a_date, metavar="YYYY-MM-DD", help="its last day")
    for name, does in (
        ("show", "one key"),
        ("enable", "let it work"),
        ("disable", "refuse it"),
        ("rm", "delete it; its spend stays"),
        ("topup", "put an amount on its balance"),
    ):
        action = actions.add_parser(name, help=does)
        action.add_argument("token", metavar="ID|NAME")
        action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    action.add_argument("amount", type=an_amount, help="$5, or quota units; a negative one takes away what is there")


def run(args: argparse.Namespace) -> int:
    """0; 1 where there is no such key, several of the name, or the database cannot be used."""
    if args.action == "list":
        return use(args, lambda conn: _print(conn, tokens.everything(conn), args), write=False)
    if args.action == "add":
        return _add(args)
    if args.action == "show":
        return _on(args, lambda conn, row: _print(conn, [row], args), write=False)
    if args.action == "topup":
        return _on(args, lambda conn, row: _topup(conn, row, args.amount))
    return _on(args, lambda conn, row: _change(conn, row, args.action))


def an_amount(text: str) -> int:
    """Quota units of an argument, for argparse."""
    try:
        return int(text) if text.lstrip("-").isdecimal() else units.money(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def a_date(text: str) -> datetime:
    """A day of an argument, for argparse."""
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2027-12-31") from None


def _add(args: argparse.Namespace) -> int:
    config = settings.require(args)
    expires = tokens.NEVER
    if args.expires is not None:
        expires = int(datetime.combine(args.expires, time.max, ZoneInfo(config.timezone)).timestamp())
    new = tokens.NewToken(
        name=args.name,
        quota=None if args.unlimited else args.quota,
        group=args.group,
        models=tuple(one for piece in args.models.split(",") if (one := piece.strip())),
        expired_time=expires,
    )
    if new.quota is not None and new.quota < 0:
        return failed("A key cannot begin below zero.")
    known = settings.joined(settings.locate(args.config, os.environ)).config or config
    if args.group not in ("", AUTO, *known.groups):
        print(f"There is no group {args.group} yet: the key is refused until there is.", file=sys.stderr)

    def work(conn: Connection) -> int:
        id, key = tokens.add(conn, new, int(SystemClock.wall()), config.keys_at_rest)
        if args.format == "table":
            print(key)
        else:
            output.rows([{"id": id, "name": new.name, "key": key}], ("id", "name", "key"), args.format)
        return 0

    return use(args, work, write=True, config=config)


def _on(args: argparse.Namespace, work: Callable[[Connection, TokenRow], int], *, write: bool = True) -> int:
    def found(conn: Connection) -> int:
        rows = tokens.find(conn, args.token)
        if len(rows) == 1:
            return work(conn, rows[0])
        if rows:
            ids = ", ".join(str(row.id) for row in rows)
            return failed(f"{len(rows)} keys are named {args.token}: give the id ({ids}).")
        return failed(f"There is no key {args.token}.")

    return use(args, found, write=write)


def _change(conn: Connection, row: TokenRow, action: str) -> int:
    if row.yaml:
        return failed(f"The key {row.name} is in the configuration file: change it there.")
    if action == "rm":
        tokens.remove(conn, row.id, int(SystemClock.wall()))
    else:
        tokens.set_status(conn, row.id, tokens.ENABLED if action == "enable" else tokens.DISABLED)
    print(_SEEN)
    return 0


def _topup(conn: Connection, row: TokenRow, amount: int) -> int:
    if row.unlimited:
        return failed(f"The key {row.name} is unlimited: there is no balance to change.")
    moved = tokens.grant(conn, row.id, amount)
    left = tokens.balance(conn, row.id)
    logs.add(
        conn,
        [
            logs.Entry(
                user_id=row.user_id,
                created_at=int(SystemClock.wall()),
                type=logs.TOP_UP,
                content=f"{moved} units ({_dollars(moved)}) by the command line",
                username=row.username,
                token_name=row.name,
                token_id=row.id,
                quota=moved,
            )
        ],
    )
    if row.status == tokens.EXHAUSTED and left > 0:
        tokens.set_status(conn, row.id, tokens.ENABLED)
    print(f"{_dollars(moved)} moved; {_dollars(left)} left")
    return 0


def _dollars(amount: int) -> str:
    return f"-${usd(-amount)}" if amount < 0 else f"${usd(amount)}"


def _print(conn: Connection, rows: list[TokenRow], args: argparse.Namespace) -> int:
    config = settings.require(args)
    zone, at = ZoneInfo(config.timezone), int(SystemClock.wall())
    allowances = {token_digest(token): token.budgets() for token in config.tokens}
    told = []
    for row in rows:
        windows = [budgets.window(one.every, at, one.amount, zone) for one in allowances.get(row.digest, ())]
        left = [(one, max(0, one.amount - budgets.used(conn, row.id, one))) for one in windows]
        told.append({**_told(row, args.format == "table"), "budget": _budget(left, args.format)})
    output.rows(told, _COLUMNS, args.format)
    return 0


def _budget(left: Sequence[tuple[Window, int]], form: str) -> str | list[dict[str, Any]]:
    if form == "json":
        return [{"every": w.every, "amount": w.amount, "left": units, "until": w.ends} for w, units in left]
    return "; ".join(
        f"{_dollars(units)} of {_dollars(one.amount)} left until {budgets.moment(one.ends)}" for one, units in left
    )


def _told(row: TokenRow, people: bool) -> dict[str, Any]:
    expires = None
    if row.expired_time > 0:
        expires = datetime.fromtimestamp(row.expired_time, UTC).isoformat(timespec="seconds")
    return {
        "id": row.id,
        "name": row.name,
        "status": _STATUS.get(row.status, str(row.status)),
        "group": row.group or row.user_group,
        "source": "yaml" if row.yaml else "database",
        "left": ("unlimited" if people else None) if row.unlimited else _amount(row.remain_quota, people),
        "used": _amount(row.used_quota, people),
        "models": list(row.models),
        "expires": expires,
    }


def _amount(amount: int, people: bool) -> int | str:
    return _dollars(amount) if people else amount
