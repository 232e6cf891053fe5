"""The yardstick: `web.Application` in front, `ClientSession` behind, forwards and does nothing else.

python -m tests.bench.bare PORT UPSTREAM_URL
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)
_PASSED = ("authorization", "content-type", "accept")


async def forward(request: web.Request) -> web.StreamResponse:
    """One request upstream, its answer back: whole where it has a length, piece by piece where it has none."""
    body = await request.read()
    headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
    url = request.app[UPSTREAM] + request.path_qs
    async with request.app[SESSION].request(request.method, url, data=body, headers=headers) as answer:
        kind = {"content-type": answer.headers.get("content-type", "application/json")}
        if answer.content_length is not None:
            return web.Response(status=answer.status, body=await answer.read(), headers=kind)
        response = web.StreamResponse(status=answer.status, headers=kind)
        try:
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client has gone; leaving the block closes upstream
        return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    timeout = ClientTimeout(total=None, sock_connect=10)
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as session:
        app[SESSION] = session
        yield


async def _serve(port: int, upstream: str) -> None:
    app = web.Application()
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
