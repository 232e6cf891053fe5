"""A gateway of the EasyPay kind of our own making: takes the signed form, and tells the shop that an order was paid.

Written from tasks-and-accounts 6.4, 6.5 and 11.5, with a signature of its own. A notice is repeated until the shop says
`success`; the knobs of `pay` are what goes wrong with one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import orjson
from aiohttp import ClientSession, web

from tests.fakes.midjourney import listening

ID, KEY = "1001", "k3yForTests0123456789"


def signature(fields: Mapping[str, str], key: str = KEY) -> str:
    """MD5 over the sorted fields that say something, with the key behind them."""
    text = ""
    for name in sorted(fields):
        if fields[name] != "" and name not in ("sign", "sign_type"):
            text += ("&" if text else "") + name + "=" + fields[name]
    return hashlib.md5((text + key).encode()).hexdigest()


@dataclass(kw_only=True)
class Told:
    """How a notice is told. `change`: fields that say something else, signed all the same; `key`: signed by another."""

    change: Mapping[str, str] = field(default_factory=dict)
    key: str = KEY
    repeats: int = 1
    at_once: int = 1
    post: bool = False
    behind: str = ""  # what is put behind the query after the signature


class EasyPay:
    """The running gateway."""

    def __init__(self) -> None:
        self.url = ""
        self.orders: dict[str, dict[str, str]] = {}
        self.refused: list[dict[str, str]] = []

    async def submit(self, form: Mapping[str, str]) -> int:
        """What the customer's browser does with the form; the page's status."""
        async with ClientSession() as browser, browser.post(f"{self.url}/submit.php", data=dict(form)) as page:
            return page.status

    def notice(self, number: str, told: Told) -> dict[str, str]:
        """The parameters of a notice for an order."""
        order = self.orders[number]
        fields = {
            "pid": ID,
            "trade_no": "2024101512000012345",
            "out_trade_no": number,
            "type": order["type"] or "alipay",
            "name": order["name"],
            "money": order["money"],
            "trade_status": "TRADE_SUCCESS",
            "param": "",
            **told.change,
        }
        return {"sign_type": "MD5", "sign": signature(fields, told.key), **fields} | {
            name: value for name, value in told.change.items() if name in ("sign", "sign_type")
        }

    async def pay(self, number: str, told: Told | None = None, to: str = "") -> list[str]:
        """Tells the shop that the order was paid, until it says `success`; what it answered, round by round."""
        told = told or Told()
        fields, address = self.notice(number, told), to or self.orders[number]["notify_url"]
        answers: list[str] = []
        async with ClientSession() as session:
            for _ in range(told.repeats):
                calls = (_tell(session, address, fields, told) for _ in range(told.at_once))
                answers += await asyncio.gather(*calls)
                if answers[-1] == "success":
                    break
        return answers

    async def _submit(self, request: web.Request) -> web.Response:
        given = request.query if request.method == "GET" else await request.post()
        fields = {name: str(value) for name, value in given.items()}
        if fields.get("pid") != ID or fields.get("sign") != signature(fields):
            self.refused.append(fields)
            return web.Response(status=400, text="bad sign")
        self.orders[fields["out_trade_no"]] = fields
        page = f"<h1>{fields['name']}</h1><p>{fields['money']}</p>"
        return web.Response(text=page, content_type="text/html")

    async def _control(self, request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())
        answers = await self.pay(given.pop("order"), Told(**given))
        return web.Response(body=orjson.dumps(answers))

    async def _order(self, request: web.Request) -> web.Response:
        order = self.orders.get(request.query["out_trade_no"], {})
        return web.Response(body=orjson.dumps({"code": 1 if order else -1, "status": 0, **order}))

    def app(self) -> web.Application:
        """The application."""
        made = web.Application()
        made.router.add_route("*", "/submit.php", self._submit)
        made.router.add_post("/__ctl", self._control)
        made.router.add_get("/api.php", self._order)
        return made


async def _tell(session: ClientSession, address: str, fields: Mapping[str, str], told: Told) -> str:
    text = urlencode(fields) + told.behind
    if told.post:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        async with session.post(address, data=text, headers=kind) as answer:
            return await answer.text()
    from yarl import URL  # as it is written, not as a client would write it

    async with session.get(URL(f"{address}?{text}", encoded=True)) as answer:
        return await answer.text()


@asynccontextmanager
async def serving() -> AsyncIterator[EasyPay]:
    """The gateway on a free port of the loopback."""
    one = EasyPay()
    async with listening(one.app()) as url:
        one.url = url
        yield one
