"""`newapi-proxy db`: upgrade the schema, copy the database, add the ledger up, move to another engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from sqlalchemy import Connection

from newapi_proxy.billing import audit
from newapi_proxy.cli.database import failed, place, use
from newapi_proxy.cli.output import counted
from newapi_proxy.errors import ProxyError
from newapi_proxy.store import db, sqlite


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `upgrade`, `backup FILE`, `check` and `import URL`."""
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("upgrade", help="bring the schema up to date; a file with data is copied first")
    backup = actions.add_parser("backup", help="an online copy; never over an existing file")
    backup.add_argument("file", type=Path, metavar="FILE")
    actions.add_parser("check", help="read the whole file and add the ledger up")
    moving = actions.add_parser("import", help="take every row of another database into this one, which is empty")
    moving.add_argument("url", metavar="URL", help="where it is: sqlite:///old.db, postgresql://…, mysql://…")


def run(args: argparse.Namespace) -> int:
    """0; 1 where something does not add up or the database cannot be used."""
    if args.action == "upgrade":
        return _upgrade(args)
    if args.action == "backup":
        return _backup(args)
    if args.action == "import":
        return _import(args)
    return use(args, _check, write=False)


def _import(args: argparse.Namespace) -> int:
    from newapi_proxy.store import moving  # the only command that needs it

    url, base = place(args)
    try:
        counts = moving.move(args.url, url, base)
    except ProxyError as error:
        return failed(error.message)
    for name, count in counts.items():
        print(f"{name}: {count}")
    return use(args, _check, write=False)


def _upgrade(args: argparse.Namespace) -> int:
    try:
        done = db.upgrade(*place(args))
    except ProxyError as error:
        return failed(error.message)
    print(f"upgraded: {', '.join(done)}" if done else "nothing to do")
    return 0


def _backup(args: argparse.Namespace) -> int:
    def work(conn: Connection) -> int:
        try:
            sqlite.copy(conn, args.file)
        except FileExistsError:
            return failed(f"{args.file} exists already.")
        except OSError as error:
            return failed(f"{args.file} cannot be written: {error.strerror}.")
        print(f"copied to {args.file}")
        return 0

    return use(args, work, write=False)


def _check(conn: Connection) -> int:
    findings = [*sqlite.damage(conn), *audit.check(conn)]
    for finding in findings:
        print(finding)
    waiting = audit.open_holds(conn)
    if waiting:
        print(f"{counted(waiting, 'request')} open: under way, or given back at the daemon's next start")
    if findings:
        return 1
    print("the ledger adds up")
    return 0
