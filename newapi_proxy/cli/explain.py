"""`newapi-proxy explain`: the arithmetic behind one charge as it was stored, and each attempt made."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection

from newapi_proxy.billing import records, refunds
from newapi_proxy.billing.charge import told, usd
from newapi_proxy.cli import output
from newapi_proxy.cli.database import failed, use
from newapi_proxy.wire import tree

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
        detail = tree.lenient(record.detail.encode()) if record.detail else {}
        detail = detail if isinstance(detail, dict) else {}
        if args.format == "json":
            fields = {name: getattr(record, name) for name in record.__struct_fields__}
            windows = [{"every": one.every, "starts": one.starts} for one in record.windows]
            output.json({**fields, "windows": windows, "detail": detail})
            return 0
        for line in _lines(record, detail):
            print(line)
        back = records.explain(conn, f"{refunds.MARK}{record.request_id}")
        if back is not None:
            print(f"refunded {-back.charged} units at {_time(back.at)}: {back.reason}")
        if detail.get("attempts"):
            print()
            output.table(detail["attempts"], _ATTEMPT)
        return 0

    return use(args, work, write=False)


def _lines(record: records.Record, detail: dict[str, Any]) -> Iterator[str]:
    yield f"request  {record.request_id}"
    yield f"state    {_state(record)}"
    yield f"time     {_time(record.at)}" + (f" to {_time(record.resolved_at)}" if record.resolved_at else "")
    for one in record.windows:
        yield f"budget   of the {one.every} that begins {_time(one.starts)}"
    yield f"model    {record.model}" + _other(detail.get("upstream_model"), record.model)
    if detail.get("channel"):
        yield f"channel  {detail['channel']}"
    if detail.get("group"):
        yield f"group    {detail['group']}, ratio {detail.get('group_ratio', 1)}"
    if detail.get("price"):
        yield f"price    {_pairs(detail['price'])}; version {record.price_version}"
    if detail.get("usage"):
        yield f"usage    {_pairs(detail['usage'])}"
    if detail.get("steps"):
        yield ""
        yield from told(tuple(step) for step in detail["steps"])
    if record.shortfall:
        yield f"the balance gave {record.charged} units only: {record.shortfall} units were not paid"


def _state(record: records.Record) -> str:
    match record.state:
        case "settled":
            return f"settled: {record.charged} units (${usd(record.charged)}), {record.held} were held"
        case "voided":
            return f"voided, nothing charged: {record.reason}"
        case _:
            return f"open: {record.held} units are held"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _other(upstream: Any, model: str) -> str:
    return f" (upstream: {upstream})" if upstream and upstream != model else ""


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (0, None, ""))
