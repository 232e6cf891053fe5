"""Two daemons on one database server: notices at both at once credit once, and both serve the orders of either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from sqlalchemy import Connection, insert, select

from newapi_proxy.billing import audit
from newapi_proxy.store import db, redemptions
from newapi_proxy.store.schema import logs, top_ups, users
from tests.fakes.clients import Answer
from tests.fakes.easypay import Told, serving
from tests.fakes.engines import NAME, server
from tests.fakes.process import Daemon
from tests.fakes.till import ADA, BEN, Till

Start = Callable[..., Daemon]
CONFIG = """\
database: {database}
public_url: http://127.0.0.1:@PORT@
channels: [{{name: echo, type: echo, models: [echo]}}]
prices: {{echo: {{call: 0.1}}}}
portal:
  topup:
    redeem: true
    easypay: {{address: "{gateway}", id: "1001", key: k3yForTests0123456789}}
"""


def _people(conn: Connection) -> str:
    for id, name, token in ((7, "ada", ADA), (8, "ben", BEN)):
        row = {"id": id, "username": name, "password": "!", "access_token": token, "quota": 500_000, "aff_code": name}
        conn.execute(insert(users).values(**row))
    return redemptions.add(conn, redemptions.NewCodes(name="gift", quota=1000), 1)[0]


def _money(conn: Connection) -> tuple[list[int], int, list[str], list[str]]:
    balances = [int(row.quota) for row in conn.execute(select(users.c.quota).where(users.c.id.in_((7, 8))))]
    rows = conn.execute(select(logs.c.id).where(logs.c.type == 1)).all()
    return sorted(balances), len(rows), list(conn.execute(select(top_ups.c.status)).scalars()), audit.check(conn)


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
async def test_two_daemons(daemon: Start, request: pytest.FixtureRequest, kind: str) -> None:
    """Thirty notices at each of two daemons, and a code taken to both: each credits once, and the books add up."""
    url: Any = await asyncio.to_thread(lambda: server(request, kind).url(NAME))
    async with serving() as gateway, ClientSession() as session:
        text = CONFIG.format(database=url, gateway=gateway.url)
        tills = [Till(await asyncio.to_thread(daemon, text), session) for _ in range(2)]
        code = await asyncio.to_thread(db.run, url, Path("/"), _people, write=True)
        form = (await tills[0].post("/api/user/pay", {"amount": 10})).tree["data"]
        assert await gateway.submit(form) == 200
        told = [
            gateway.pay(form["out_trade_no"], Told(at_once=30), f"{till.url}/api/user/epay/notify") for till in tills
        ]
        assert await asyncio.gather(*told) == [["success"] * 30] * 2
        asked = [till.post("/api/user/topup", {"key": code}, by) for till in tills * 5 for by in (ADA, BEN)]
        answers: list[Answer] = await asyncio.gather(*asked)
        assert sum(answer.tree["success"] for answer in answers) == 1
        balances, rows, statuses, faults = await asyncio.to_thread(db.run, url, Path("/"), _money, write=False)
        assert sum(balances) == 2 * 500_000 + 5_000_000 + 1000
        assert (rows, statuses, faults) == (2, ["success"], [])
        assert [till.bugs() for till in tills] == [[], []]
        listed = (await tills[1].get("/api/user/topup/self")).tree["data"]["items"]
        assert [row["trade_no"] for row in listed] == [form["out_trade_no"]]
