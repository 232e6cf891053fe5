"""Accounts and requests made up for tests of the ledger, and an oracle over the file that shares no code with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from newapi_proxy.billing import ledger
from newapi_proxy.billing.budgets import Window
from newapi_proxy.billing.ledger import Account
from newapi_proxy.store import logs
from newapi_proxy.store.schema import channels, tokens, users

CHANNEL = 7


def people(conn: Connection, balances: Sequence[tuple[int, int]]) -> list[Account]:
    """One token and one user of its own per (token balance, user balance); -1: that side is not limited."""
    conn.execute(insert(channels).values(id=CHANNEL, key="upstream", name="c"))
    accounts = []
    for place, (token, user) in enumerate(balances, start=1):
        conn.execute(insert(users).values(id=place, username=f"u{place}", password="!", quota=max(user, 0)))
        conn.execute(
            insert(tokens).values(
                id=place, user_id=place, key=f"k{place}", remain_quota=max(token, 0), unlimited_quota=token < 0
            )
        )
        accounts.append(Account(place, place, token_limited=token >= 0, user_limited=user >= 0))
    return accounts


def hold(id: str, account: Account, amount: int, boot: str = "boot", windows: tuple[Window, ...] = ()) -> ledger.Hold:
    """A hold at second 1000."""
    return ledger.Hold(id, account, amount, 1000, boot, "m", windows)


def settlement(
    id: str, account: Account, held: int, charge: int, windows: tuple[Window, ...] = ()
) -> ledger.Settlement:
    """A settlement at second 1001 with a log row of its own."""
    entry = logs.Entry(
        user_id=account.user_id,
        created_at=1000,
        token_name=f"t{account.token_id}",
        model_name="m",
        quota=charge,
        prompt_tokens=3,
        completion_tokens=2,
        channel_id=CHANNEL,
        token_id=account.token_id,
        request_id=id,
        other="{}",
    )
    return ledger.Settlement(id, account, held, charge, 1001, CHANNEL, entry, b'{"steps":[]}', "v1", windows=windows)


def void(id: str, account: Account, held: int, windows: tuple[Window, ...] = ()) -> ledger.Void:
    """A void at second 1001."""
    return ledger.Void(id, account, held, 1001, "test", windows)


def faults(path: Path, balances: Sequence[tuple[int, int]]) -> list[str]:
    """What breaks O1 to O3 in the file of `people(balances)`; plain SQL."""
    with sqlite3.connect(path) as raw:
        raw.row_factory = sqlite3.Row
        found = _balances(raw, balances)
        ids = raw.execute("SELECT request_id, state, charged FROM ledger").fetchall()
        told = raw.execute("SELECT request_id, quota FROM logs WHERE type = 2").fetchall()
        settled = sorted((row["request_id"], row["charged"]) for row in ids if row["state"] == "settled")
        if settled != sorted((row["request_id"], row["quota"]) for row in told):
            found.append("log rows differ from settled rows")
        used = raw.execute("SELECT used_quota FROM channels WHERE id = ?", (CHANNEL,)).fetchone()[0]
        back = sum(row["charged"] for row in ids if row["state"] == "refunded")
        if used != sum(units for _, units in settled) + back:
            found.append(f"the channel counted {used}")
        found += _budgets(raw)
    raw.close()
    return found


def _budgets(raw: sqlite3.Connection) -> list[str]:
    """Each window's counter is what its requests hold or were charged."""
    sums: dict[tuple[int, str], int] = {}
    for row in raw.execute("SELECT token_id, budgets, state, held, charged FROM ledger WHERE budgets != ''"):
        for name in row["budgets"].rstrip(",").split(","):
            units = row["held"] if row["state"] == "held" else row["charged"]
            sums[row["token_id"], name] = sums.get((row["token_id"], name), 0) + units
    counters = {
        (row["token_id"], f"{row['every']}:{row['starts']}"): row["used"]
        for row in raw.execute("SELECT * FROM proxy_budgets")
    }
    return [
        f"window {key} counts {counters.get(key, 0)}, its requests {sums.get(key, 0)}"
        for key in counters.keys() | sums.keys()
        if counters.get(key, 0) != sums.get(key, 0)
    ]


def _balances(raw: sqlite3.Connection, balances: Sequence[tuple[int, int]]) -> list[str]:
    found = []
    for place, (token, user) in enumerate(balances, start=1):
        moved, charged = raw.execute(
            "SELECT COALESCE(SUM(CASE state WHEN 'held' THEN held ELSE charged END), 0), COALESCE(SUM(charged), 0)"
            " FROM ledger WHERE token_id = ?",
            (place,),
        ).fetchone()
        row: Any = raw.execute(
            "SELECT t.remain_quota, u.quota, t.used_quota, u.used_quota, u.request_count FROM tokens t"
            " JOIN users u ON u.id = t.user_id WHERE t.id = ?",
            (place,),
        ).fetchone()
        if min(row[0], row[1]) < 0:
            found.append(f"account {place} is overdrawn: {tuple(row)}")
        for side, start, left in (("token", token, row[0]), ("user", user, row[1])):
            if left != (0 if start < 0 else start - moved):
                found.append(f"{side} {place}: {start} at the start, {left} now, {moved} moved")
        if row[2] != charged or row[3] != charged:
            found.append(f"account {place} counted {row[2]} and {row[3]}, {charged} charged")
    return found
