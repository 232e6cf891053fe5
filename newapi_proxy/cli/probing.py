"""`channel test` and `channel balance`: a channel of either source asked once, beside a running daemon."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from newapi_proxy.cli import output
from newapi_proxy.cli.database import failed, place
from newapi_proxy.clock import SystemClock
from newapi_proxy.config.load import Loaded
from newapi_proxy.errors import ProxyError
from newapi_proxy.snapshot import Channel, Snapshot
from newapi_proxy.store import channels, db

_TRIED: Final = ("channel", "key", "model", "kind", "ok", "status", "ms", "tokens", "why")
_PATIENCE: Final = 15.0  # seconds for a list of no tasks
_ANSWER: Final = 1 << 20
_LEFT: Final = ("channel", "key", "balance", "currency", "why")

Rows = list[dict[str, Any]]


def configure(actions: Any) -> None:
    """Adds the actions `test` and `balance`."""
    from newapi_proxy.relay import probe

    action = actions.add_parser("test", help="one small request with each of its keys, which the provider bills")
    action.add_argument("channel", metavar="ID|NAME")
    action.add_argument("--model", help="absent: the first of its models")
    action.add_argument("--kind", choices=probe.KINDS, help="absent: what the model's name says")
    action.add_argument("--format", choices=("table", "json", "csv"), default="table")
    action = actions.add_parser("balance", help="what its accounts have left, where the provider tells")
    action.add_argument("channel", metavar="ID|NAME")
    action.add_argument("--format", choices=("table", "json", "csv"), default="table")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """0; 1 where there is no such channel, it does not answer, or its provider does not tell."""
    assert loaded.config is not None
    work, columns = (_test, _TRIED) if args.action == "test" else (_balance, _LEFT)
    try:
        snapshot = _snapshot(args, loaded)
        known = snapshot.channels
        found = [one for one in known if args.channel == str(one.id)]
        found = found or [one for one in known if one.name == args.channel]
        if len(found) != 1:
            return failed(f"There is no channel {args.channel} that could serve: see `newapi-proxy check`.")
        rows = asyncio.run(_with_client(lambda client: work(client, snapshot, found[0], args)))
    except ProxyError as error:
        return failed(error.message)
    if not rows:
        return failed(f"Providers of the type {found[0].adapter.name} tell no key what its account has left.")
    output.rows(rows, columns, args.format)
    _noted(args, loaded, found[0], rows)
    return 1 if any(row["why"] for row in rows) else 0


def _snapshot(args: argparse.Namespace, loaded: Loaded) -> Snapshot:
    from newapi_proxy.daemon import view

    assert loaded.config is not None
    config = loaded.config
    url, base = place(args, config)
    rows = db.run(url, base, lambda conn: view.joined(conn, config, int(SystemClock.wall())), write=True)
    return view.made(loaded, rows)


async def _with_client(work: Callable[[Any], Awaitable[Rows]]) -> Rows:
    from newapi_proxy.web.client import HttpClient

    client = HttpClient()
    try:
        return await work(client)
    finally:
        await client.close()


async def _test(client: Any, snapshot: Snapshot, channel: Channel, args: argparse.Namespace) -> Rows:
    from newapi_proxy.relay import probe

    if channel.adapter.tasks is not None:
        return [await _asked(client, snapshot, channel, key) for key in range(max(1, len(channel.keys)))]
    model = args.model or next((one for one in channel.models if "*" not in one), "")
    kind = args.kind or probe.kind_of(channel, channel.upstream_model(model))
    if not model or kind is None:
        return [dict.fromkeys(_TRIED, "") | {"channel": channel.name, "ok": False, "why": "name a model with --model"}]
    tried = [
        await probe.tried(client, SystemClock(), snapshot, candidate, model, kind)
        for candidate in probe.candidates(channel)
    ]
    return [{name: getattr(one, name) for name in _TRIED} for one in tried]


async def _asked(client: Any, snapshot: Snapshot, channel: Channel, key: int) -> dict[str, Any]:
    """A channel of tasks is asked after none of them: that proves address and key, and costs nothing."""
    from newapi_proxy.tasks.calls import Bounds, Place, call

    work, place, clock = channel.adapter.tasks, Place(channel, key), SystemClock()
    assert work is not None
    row: dict[str, Any] = dict.fromkeys(_TRIED, "") | {
        "channel": channel.name,
        "key": key,
        "kind": "tasks",
        "ok": False,
    }
    outgoing, since = work.poll([], place.target("", int(clock.wall()))), clock.monotonic()
    connect = snapshot.config.relay.connect_timeout
    try:
        status, body = await call(client, place, outgoing, Bounds(_PATIENCE, _ANSWER, connect))
    except ProxyError as error:
        return row | {"why": error.message}
    row |= {"status": status, "ms": round((clock.monotonic() - since) * 1000)}
    return row | ({"ok": True} if work.polled(status, body) is not None else {"why": "its answer is no list of tasks"})


async def _balance(client: Any, snapshot: Snapshot, channel: Channel, args: argparse.Namespace) -> Rows:
    from newapi_proxy.relay import probe

    today = datetime.fromtimestamp(SystemClock.wall(), UTC).date()
    timeout = snapshot.config.relay.connect_timeout
    rows: Rows = []
    for index, key in enumerate(channel.keys if channel.adapter.balance is not None else ()):
        row: dict[str, Any] = {"channel": channel.name, "key": index, "balance": "", "currency": "", "why": ""}
        try:
            left = await probe.left(client, channel, key, today, timeout)
        except ProxyError as error:
            row["why"] = error.message
        else:
            row |= {"balance": str(left[0]), "currency": left[1]} if left else {"why": "not told"}
        rows.append(row)
    return rows


def _noted(args: argparse.Namespace, loaded: Loaded, channel: Channel, rows: Rows) -> None:
    """Writes what New API's pages show of its own channels: the answer's time, and the balance in USD."""
    url, base = place(args, loaded.config)
    at, first = int(SystemClock.wall()), rows[0]
    if first["why"]:
        return
    if args.action == "test":
        db.run(url, base, lambda conn: channels.responded(conn, channel.id, first["ms"], at), write=True)
    elif first["currency"] == "USD":
        total = sum(float(row["balance"]) for row in rows if row["balance"])
        db.run(url, base, lambda conn: channels.balanced(conn, channel.id, total, at), write=True)
