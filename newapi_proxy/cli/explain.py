"""`newapi-proxy explain`: the arithmetic behind one charge as it was stored, and each attempt made."""

from __future__ import annotations

import argparse
from typing import Final

from sqlalchemy import Connection

from newapi_proxy.accounts import explaining
from newapi_proxy.billing import records, refunds
from newapi_proxy.cli import output
from newapi_proxy.cli.database import failed, use

_ATTEMPT: Final = ("channel", "key", "status", "error", "ms")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("request_id", metavar="REQUEST_ID", help="the X-Request-Id of the answer")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """0; 1 where the ledger has no such request."""

    def work(conn: Connection) -> int:
        record = records.explain(conn, args.request_id)
        if record is None:
            return failed(f"The ledger has no request {args.request_id}: nothing was held for it.")
        detail = explaining.detail(record)
        if args.format == "json":
            fields = {name: getattr(record, name) for name in record.__struct_fields__}
            windows = [{"every": one.every, "starts": one.starts} for one in record.windows]
            output.json({**fields, "windows": windows, "detail": detail})
            return 0
        for name, text in explaining.facts(record, detail):
            print(f"{name:<8} {text}")
        if steps := explaining.steps(record, detail):
            print("", *steps, sep="\n")
        back = records.explain(conn, f"{refunds.MARK}{record.request_id}")
        if back is not None:
            print(explaining.back(back))
        if detail.get("attempts"):
            print()
            output.table(detail["attempts"], _ATTEMPT)
        return 0

    return use(args, work, write=False)
