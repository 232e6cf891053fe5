"""A hold that grows while what it is for costs more than anybody could know before: a session's long response.

The rest of `ledger`, with its statements. Runs inside the caller's transaction. Source: relay-and-billing 5.12,
decision 6: what is delivered is covered.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, and_, update

from newapi_proxy.billing import ledger
from newapi_proxy.store.schema import ledger as table


class More(msgspec.Struct, frozen=True):
    """So many units more for a hold, whose amount is as its holder knows it."""

    hold: ledger.Hold
    amount: int

    @property
    def request_id(self) -> str:
        """Keeps it between the hold and what resolves it, in the writer's queue."""
        return self.hold.request_id


def extend(conn: Connection, more: Sequence[More]) -> list[ledger.Refusal | None]:
    """Sets more money aside; per hold None, or why not: then nothing has moved, and the hold is as it was.

    "duplicate": no such hold is open.
    """
    return [_extend(conn, one) for one in more]


def _extend(conn: Connection, more: More) -> ledger.Refusal | None:
    one, taken = msgspec.structs.replace(more.hold, amount=more.amount), list[ledger.Refusal]()
    refusal = ledger.withdraw(conn, one, taken)
    if refusal is None:
        mine = and_(
            table.c.request_id == one.request_id,
            table.c.state == "held",
            table.c.held == more.hold.amount,
            table.c.token_id == one.account.token_id,
        )
        if conn.execute(update(table).where(mine).values(held=table.c.held + more.amount)).rowcount == 1:
            return None
    ledger.put_back(conn, one, taken)
    return refusal or "duplicate"
