"""The arithmetic behind one charge as lines for people, from what the ledger has stored: for a command and for a page.

Pure. `own` leaves out what only the operator may know.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any

from newapi_proxy.billing import records
from newapi_proxy.billing.charge import told, usd
from newapi_proxy.wire import tree

Facts = Iterator[tuple[str, str]]


def detail(record: records.Record) -> dict[str, Any]:
    """What was noted with the charge; nothing while the hold is open."""
    found = tree.lenient(record.detail.encode()) if record.detail else {}
    return found if isinstance(found, dict) else {}


def facts(record: records.Record, detail: dict[str, Any], zone: tzinfo = UTC, *, own: bool = False) -> Facts:
    """What is known of a charge, each fact under its name. `own`: for the key's holder, whom channels and reasons of
    ours do not concern."""
    yield "request", record.request_id
    yield "state", _state(record, own)
    yield "time", moment(record.at, zone) + (f" to {moment(record.resolved_at, zone)}" if record.resolved_at else "")
    for one in record.windows:
        yield "budget", f"of the {one.every} that begins {moment(one.starts, zone)}"
    yield "model", record.model + ("" if own else _other(detail.get("upstream_model"), record.model))
    if detail.get("channel") and not own:
        yield "channel", str(detail["channel"])
    if detail.get("group"):
        yield "group", f"{detail['group']}, ratio {detail.get('group_ratio', 1)}"
    if detail.get("price"):
        yield "price", f"{_pairs(detail['price'])}; version {record.price_version}"
    if detail.get("usage"):
        yield "usage", _pairs(detail["usage"])


def steps(record: records.Record, detail: dict[str, Any]) -> list[str]:
    """Counts × prices × ratios, step by step, and what was not paid."""
    found = told(tuple(step) for step in detail.get("steps") or ())
    if record.shortfall:
        found.append(f"the balance gave {record.charged} units only: {record.shortfall} units were not paid")
    return found


def back(refund: records.Record, zone: tzinfo = UTC) -> str:
    """A refund in one line."""
    return f"refunded {-refund.charged} units at {moment(refund.at, zone)}: {refund.reason}"


def _state(record: records.Record, own: bool) -> str:
    match record.state:
        case "settled":
            return f"settled: {record.charged} units (${usd(record.charged)}), {record.held} were held"
        case "voided":
            return "voided, nothing charged" + ("" if own else f": {record.reason}")
        case _:
            return f"open: {record.held} units are held"


def moment(at: int, zone: tzinfo = UTC) -> str:
    """Unix seconds for people."""
    return datetime.fromtimestamp(at, zone).isoformat(timespec="seconds")


def _other(upstream: Any, model: str) -> str:
    return f" (upstream: {upstream})" if upstream and upstream != model else ""


def _pairs(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (0, None, ""))
