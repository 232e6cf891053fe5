"""A process that holds, settles and voids as fast as it can and says on stdout what was committed, until it is killed.

python -m tests.fakes.hammer FILE BOOT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from newapi_proxy.billing import ledger
from newapi_proxy.billing.ledger import Account
from newapi_proxy.store.db import Database
from tests.fakes import money

WORKERS = 12
ACCOUNTS = 3


async def main(path: Path, boot: str) -> None:
    """Recovers, then works; a line `ID UNITS` for each settlement that was committed, before the next one starts."""
    db = await Database.open(f"sqlite:///{path}", path.parent)
    await db.write(lambda conn, items: [ledger.recover(conn, (boot,), 1) for _ in items], None)
    await asyncio.gather(*(_work(db, boot, worker) for worker in range(WORKERS)))


async def _work(db: Database, boot: str, worker: int) -> None:
    account = Account(worker % ACCOUNTS + 1, worker % ACCOUNTS + 1, token_limited=True, user_limited=True)
    number = 0
    while True:
        number += 1
        id = f"{boot}-{worker}-{number}"
        if await db.write(ledger.hold, money.hold(id, account, 20, boot)) is not None:
            return
        if number % 5 == 0:
            await db.write(ledger.void, money.void(id, account, 20))
        else:
            taken = await db.write(ledger.settle, money.settlement(id, account, 20, 13 + number % 10))
            sys.stdout.write(f"{id} {taken}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
