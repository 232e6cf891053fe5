"""A session through the daemon itself: the process has what it takes, and a stop closes it in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from tests.fakes.process import Daemon
from tests.fakes.realtime import MODEL, heard, peer, send, until
from tests.fakes.tunnel import tunnel
from tests.test_client_tls import Authority

CONFIG = """\
database: sqlite:///newapi.db
prices: {gpt-4o-realtime-preview: {input: 2, output: 4, audio_input: 10, audio_output: 20}}
channels:
  - {name: o, type: openai, base_url: "@UPSTREAM@", key: k, models: [gpt-4o-realtime-preview]}
tokens:
  - {name: demo, key: sk-demo}
"""


async def test_a_provider_behind_a_proxy_and_an_authority_of_its_own(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """SSL_CERT_FILE names whom the process trusts, and a channel's proxy is the way to the provider."""
    authority = Authority(tmp_path)
    async with peer(authority.server("upstream.invalid")) as far, tunnel(far.port) as proxy, ClientSession() as client:
        text = CONFIG.replace('"@UPSTREAM@"', f'"https://upstream.invalid", proxy: "{proxy.url}"')
        one = await asyncio.to_thread(daemon, text, environment={"SSL_CERT_FILE": str(authority.file)})
        headers = {"Authorization": "Bearer sk-demo"}
        async with client.ws_connect(f"{one.url}/v1/realtime?model={MODEL}", headers=headers) as socket:
            await send(socket, type="response.create")
            await until(socket, "response.done")
            await socket.close()
        await far.empty()
        assert far.codes == [1000]
        assert len(proxy.asked) == 1


async def test_a_stop_closes_sessions(daemon: Callable[..., Daemon]) -> None:
    """SIGTERM ends an idle session with 1001, its line has the sums, and the process ends as drained."""
    async with peer() as far, ClientSession() as client:
        one = await asyncio.to_thread(daemon, CONFIG.replace("@UPSTREAM@", far.url))
        headers: dict[str, Any] = {"Authorization": "Bearer sk-demo", "X-Request-Id": "talk"}
        async with client.ws_connect(f"{one.url}/v1/realtime?model={MODEL}", headers=headers) as socket:
            await send(socket, type="response.create")
            await until(socket, "response.done")
            one.signal(signal.SIGTERM)
            assert await heard(socket) == 1001
        line = await asyncio.to_thread(one.wait, lambda line: line.get("request_id") == "talk")
        assert (line["status"], line["end"], line["usage"]["audio_out"]) == (101, "ok", 40)
        assert line["quota"] > 0
        assert one.process is not None
        assert await asyncio.to_thread(one.process.wait, 20) == 0
        assert far.codes == [1001]
