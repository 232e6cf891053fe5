"""Every route that can spend is metered (demand B10): nothing leaves for a provider before its ledger row is there."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from newapi_proxy import log
from newapi_proxy.adapters.base import Outgoing
from newapi_proxy.config.model import Channel
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.ports import Incoming, Interrupt
from newapi_proxy.secret import Secret
from newapi_proxy.store.db import Database
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.surfaces.endpoint import EndpointSurface
from newapi_proxy.web import relay_routes, task_routes
from newapi_proxy.web.edges import relay_edge
from newapi_proxy.web.relay_routes import NATIVE
from newapi_proxy.web.router import Router
from newapi_proxy.web.server import Server
from tests import laws
from tests.fakes.stage import stage

SAID: Final = [{"role": "user", "content": "x"}]
EVERYTHING: Final[Mapping[str, Any]] = {  # a body that every format takes for one of its own
    "model": "m",
    "max_tokens": 5,
    "messages": SAID,
    "prompt": "x",
    "input": "x",
    "query": "x",
    "documents": ["x"],
    "contents": [{"parts": [{"text": "x"}]}],
    "content": {"parts": [{"text": "x"}]},
}
TASK: Final[Mapping[str, Any]] = {"prompt": "x"}  # tasks read other things under some of these names
FORM: Final = (  # the same as a form, for the routes that take files
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nx\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\nx\r\n'
    b"--b--\r\n"
)
FORMS: Final = {
    pattern
    for pattern, surface in SURFACES.items()
    if isinstance(surface, EndpointSurface) and surface.form is not None
}
OPENERS: Final = {  # the only places that open a request to a provider
    "relay.attempt": "an exchange holds",
    "relay.probe": "the operator asks, from the command line",
    "relay.credentials": "an exchange holds, and tokens cost nothing",
    "relay.uploads": "an exchange holds",
    "ports": "for those who ask in one piece, which are named here too",
    "tasks.calls": "a submission holds; what became of it costs nothing to ask",
    "web.wechat_routes": "an order of credit: money comes in",
}


class Looking:
    """A client that opens nothing: it looks whether money is held, and fails."""

    def __init__(self) -> None:
        self.database: Database | None = None
        self.held: list[bool] = []

    async def open(
        self, outgoing: Outgoing, interrupt: Interrupt, *, connect_timeout: float, proxy: str | None = None
    ) -> Incoming:
        """See ports.Client."""
        assert self.database is not None
        sql = "SELECT COUNT(*) FROM ledger WHERE state = 'held'"
        count = await self.database.read(lambda conn: conn.exec_driver_sql(sql).scalar())
        self.held.append(count == 1)
        raise UpstreamFailure("nobody there", upstream_status=0)


def filled(pattern: str) -> str:
    """A path of the pattern."""
    for name, value in (("model", "m"), ("id", "x"), ("mode", "mj-fast"), ("action", "music")):
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


async def asked(port: int, method: str, path: str) -> int:
    """Sends the body that fits everywhere; the status."""
    form = path in FORMS
    said = TASK if path.startswith(("/mj", "/suno")) else EVERYTHING
    body = FORM if form else orjson.dumps(said) if method == "POST" else b""
    kind = "multipart/form-data; boundary=b" if form else "application/json"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-t\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    try:
        async with asyncio.timeout(20):
            return int((await reader.read()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def test_every_route_holds_before_it_spends(tmp_path: Path) -> None:
    """Whatever stands in the route table: what reaches a provider has a hold, and every surface does reach one."""
    log.setup("error")
    client = Looking()
    keys = {"key": Secret("k"), "models": ("m",), "auto_disable": False}
    channels = (
        Channel(name="a", type="anthropic", priority=1, **keys),  # counts tokens by itself
        Channel(name="o", type="openai", **keys),
        Channel(name="m", type="midjourney-plus", **{**keys, "base_url": "http://mj", "models": ("mj_*", "swap_face")}),
        Channel(name="s", type="suno", **{**keys, "base_url": "http://suno", "models": ("suno_*",)}),
    )
    async with stage(tmp_path, channels, client=client) as made:
        client.database = made.house.db
        edge = relay_edge(made.house)
        server = Server(edge.handle, edge.unparsed)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        reached = set()
        for route in (*edge.routes, *task_routes.routes(SURFACES["/v1/embeddings"].failure)):
            for method in route.actions:
                client.held.clear()
                path = filled(route.pattern)
                status = await asked(port, method, path)
                assert all(client.held), f"{method} {route.pattern} reaches a provider and holds nothing"
                unreachable = 500 if route.pattern.startswith("/suno/") else 502  # New API's own word there
                assert status != 500 or status == unreachable, route.pattern
                if client.held:
                    reached.add(route.pattern)
        listener.close()
        await server.shutdown(1.0)
    log.setup()
    assert set(SURFACES) - reached == {"/v1/responses/input_tokens"}  # that format is counted here
    assert {"/mj/submit/imagine", "/{mode}/mj/submit/imagine", "/suno/submit/{action}"} <= reached - set(SURFACES)


def test_only_exchanges_open_requests() -> None:
    """Who opens a request to a provider from another place than these must show first that it is paid for."""
    found, dialing = set(), set()
    for module in laws.modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and laws.dotted(node.func).endswith("client.open"):
                found.add(module.name)
            if isinstance(node, ast.ImportFrom) and node.module == "newapi_proxy.ports":
                found |= {module.name for one in node.names if one.name == "whole"}
            if isinstance(node, ast.Call) and laws.dotted(node.func).endswith("dialer.dial"):
                dialing.add(module.name)
    assert found == OPENERS.keys()
    assert dialing == {"relay.dialing"}


@pytest.mark.parametrize("pattern", NATIVE)
async def test_native_routes_are_refused(tmp_path: Path, pattern: str) -> None:
    """A provider's own route that is not served says so, in its own format, and what to use."""
    async with stage(tmp_path, ()) as made:
        edge = relay_edge(made.house)
        server = Server(edge.handle, edge.unparsed)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        path = filled(pattern)
        statuses = {await asked(listener.sockets[0].getsockname()[1], one, path) for one in NATIVE[pattern][1]}
        listener.close()
        await server.shutdown(1.0)
    assert statuses == {501}


@pytest.mark.parametrize(
    ("path", "pattern", "tail"),
    [
        ("/rerank", "/v1/rerank", ""),  # Dify's form
        ("/v1/v1/rerank", "/v1/rerank", ""),
        ("/v1/rerank/", "/v1/rerank", ""),
        ("/embeddings", "/v1/embeddings", ""),
        ("/v1/v1/embeddings", "/v1/embeddings", ""),
        ("/v1beta/openai/embeddings", "/v1/embeddings", ""),
        ("/engines/org/name/embeddings", "/v1/engines/{model}/embeddings", "org/name"),
        ("/v1/v1beta/models/g:embedContent", "/v1beta/models/{model}:embedContent", "g"),
        ("/models/g:batchEmbedContents", "/v1/models/{model}:batchEmbedContents", "g"),
        ("/v1/v1/moderations", "/v1/moderations", ""),
    ],
)
def test_base_urls_of_every_kind(path: str, pattern: str, tail: str) -> None:
    """A base URL with the version once too often, or without it, finds the same routes (demand K3)."""
    match = Router(relay_routes.routes()).find(path)
    assert match is not None
    assert (match.route.pattern, match.tail) == (pattern, tail)
