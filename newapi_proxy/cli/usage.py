"""`newapi-proxy usage`: who spent what, from the log rows."""

from __future__ import annotations

import argparse
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from newapi_proxy.accounts.sums import SUMS, summed
from newapi_proxy.cli import journal, output, settings
from newapi_proxy.cli.database import failed, use
from newapi_proxy.clock import SystemClock
from newapi_proxy.config.units import duration
from newapi_proxy.store import logs

_BY: Final = ("token", "model", "channel", "day")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--by", type=_by, default=("token",), metavar=",".join(_BY), help="one row for each")
    when = "a day (2027-01-31), a moment (2027-01-31T12:00) or how long ago (24h, 7d)"
    parser.add_argument("--since", default="0001-01-01", metavar="WHEN", help=f"from {when}")
    parser.add_argument("--until", metavar="WHEN", help="up to such a moment; a day named here is counted in")
    parser.add_argument("--format", choices=("table", "json", "csv", "hledger"), default="table")


def run(args: argparse.Namespace) -> int:
    """0; 1 where a date cannot be read or the database cannot be used."""
    config = settings.require(args)
    zone = ZoneInfo(config.timezone)
    now = int(SystemClock.wall())
    try:
        since = _moment(args.since, zone, now, last=False)
        until = _moment(args.until, zone, now, last=True) if args.until else now + 1
    except ValueError as error:
        return failed(str(error))

    def work(conn: Connection) -> int:
        spent = logs.spent(conn, since, until)
        if args.format == "hledger":
            names = [name for name in args.by if name != "day"]
            for line in journal.lines(summed(spent, ("day", *names), zone), names, SUMS):
                print(line)
        else:
            output.rows(summed(spent, args.by, zone), (*args.by, *SUMS, "usd"), args.format)
        return 0

    return use(args, work, write=False, config=config)


def _by(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(_BY):
        raise argparse.ArgumentTypeError(f"{text!r}: give one or more of {', '.join(_BY)}")
    return names


def _moment(text: str, zone: ZoneInfo, now: int, *, last: bool) -> int:
    """Unix seconds of what a person wrote; a day is its begin, or the next day's where it is the last one."""
    try:
        return now - int(duration(text))
    except ValueError:
        pass
    try:
        if len(text) == len("2027-01-31"):
            day = date.fromisoformat(text) + timedelta(days=last)
            return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment such as 2027-01-31, 2027-01-31T12:00, 24h or 7d") from None
