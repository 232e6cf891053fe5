"""A proxy on the loopback that opens tunnels: HTTP CONNECT, or SOCKS 5. Any name asked for leads to one port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["http", "https", "socks5"]
_GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class Tunnel:
    """The proxy. `refusal`: what CONNECT is answered in place of a tunnel. `silent`: nothing is answered at all."""

    kind: Kind
    port: int  # where every tunnel leads
    asked: list[str] = field(default_factory=list)  # heads of requests, or NAME:PORT
    refusal: bytes = b""
    silent: bool = False
    url: str = ""
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to the proxy, to its end."""
        self.open += 1
        far: asyncio.StreamWriter | None = None
        try:
            granted = await (self._socks(reader, writer) if self.kind == "socks5" else self._connect(reader))
            if not granted:
                writer.write(self.refusal)
                await reader.read()  # until the client has gone
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(granted)
            ways = [asyncio.ensure_future(_pump(reader, far)), asyncio.ensure_future(_pump(far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            for one in (writer, far):
                if one is not None:
                    one.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader) -> bytes:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        return b"" if self.refusal or self.silent else _GRANTED

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\5\0")
        head = await reader.readexactly(5)
        assert head[:4] == b"\5\1\0\3", "the name is told, not looked up"
        name = (await reader.readexactly(head[4])).decode()
        self.asked.append(f"{name}:{int.from_bytes(await reader.readexactly(2))}")
        return b"" if self.refusal or self.silent else b"\5\0\0\1" + bytes(6)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def tunnel(port: int, kind: Kind = "http", tls: ssl.SSLContext | None = None) -> AsyncIterator[Tunnel]:
    """A proxy to that port, listening; `tls` is its own, for https."""
    made = Tunnel(kind, port)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with suppress(asyncio.CancelledError):  # the block's end
            await made.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    made.url = f"{kind}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
