"""Old rows of the ledger are forgotten; what they said about money is folded into what it is added up with.

So the sums of `audit` hold before and after: a key was granted that much less, a window has counted that much less.
Rows are kept at least as long as a budget's longest window, so that no allowance comes back by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, func, select, update

from newapi_proxy.billing import budgets
from newapi_proxy.store.row import number, truth, words
from newapi_proxy.store.schema import ledger, proxy_tokens

KEPT: Final = 35 * 86400  # seconds; the longest window is a month
_RESOLVED: Final = ledger.c.state != "held"


def due(conn: Connection, before: int, most: int) -> list[str]:
    """Ids of at most so many resolved rows from before that moment (unix seconds); the oldest come first by nature."""
    asked = select(ledger.c.request_id).where(_RESOLVED, ledger.c.resolved_at < before).limit(most)
    return list(conn.execute(asked).scalars())


def forget(conn: Connection, batches: Sequence[Sequence[str]]) -> list[int]:
    """Deletes the rows of each batch; how many there were."""
    return [_forgotten(conn, ids) for ids in batches]


def _forgotten(conn: Connection, ids: Sequence[str]) -> int:
    meant = ledger.c.request_id.in_(ids) & _RESOLVED
    columns = (ledger.c.token_id, ledger.c.token_limited, ledger.c.charged, ledger.c.budgets)
    granted: dict[int, int] = {}
    moves = budgets.Moves()
    for row in conn.execute(select(*columns).where(meant)):
        token, units = number(row.token_id), number(row.charged)
        if truth(row.token_limited):
            granted[token] = granted.get(token, 0) + units
        moves.add(token, budgets.read(words(row.budgets)), -units)
    for token, units in sorted(granted.items()):
        less = func.coalesce(proxy_tokens.c.granted, 0) - units
        conn.execute(update(proxy_tokens).where(proxy_tokens.c.token_id == token).values(granted=less))
    moves.run(conn)
    return conn.execute(delete(ledger).where(meant)).rowcount
