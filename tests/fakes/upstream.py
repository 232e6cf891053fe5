"""A scripted upstream: a raw TCP server on loopback that can misbehave in every way.

A script is an async function of the connection (`Peer`), or `play(…)` of steps: bytes are sent, an asyncio.Event is
waited for, REQUEST reads one request, GONE waits for the client to leave, CLOSE sends FIN, RESET sends RST, END shuts
the sending side only. When a script returns, its connection is closed.

    async with Upstream(play(REQUEST, ok(b"hi"), REQUEST, RESET)) as upstream:
        ... upstream.url ...

Connections take the scripts in order, the last one serves for all that follow. Nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Step(Enum):
    """What a script can do besides sending bytes and waiting for an event."""

    REQUEST = "read one whole request"
    HEAD = "read a request's head only"
    GONE = "wait until the client has closed"
    CLOSE = "send FIN"
    RESET = "send RST"
    END = "shut down the sending side"


REQUEST, HEAD, GONE, CLOSE, RESET, END = Step


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    head: bytes
    body: bytes = b""

    @property
    def line(self) -> str:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0].decode()

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)\r?$", self.head)
        return found.group(1).decode() if found else None


@dataclass
class Peer:
    """One client connection, as a script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[Received] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def head(self) -> Received:
        """Reads a request's head; what follows stays unread."""
        return self._note(Received(await self.reader.readuntil(b"\r\n\r\n")))

    async def request(self) -> Received:
        """Reads a request with its body, by Content-Length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = Received(head).header("content-length")
        return self._note(Received(head, await self.reader.readexactly(int(length or 0))))

    def _note(self, request: Received) -> Received:
        self.requests.append(request)
        self.asked.set()
        return request

    async def send(self, data: bytes) -> None:
        """Sends, waiting while the client does not read."""
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Reads and forgets until the client has closed or reset."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.gone.set()

    def close(self) -> None:
        """FIN after what is still unsent."""
        self.writer.close()

    def end(self) -> None:
        """FIN, and go on reading."""
        self.writer.write_eof()

    def reset(self) -> None:
        """RST at once, what is unsent is lost."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


def play(*steps: bytes | asyncio.Event | Step) -> Script:
    """A script of steps."""

    async def script(peer: Peer) -> None:
        actions: dict[Step, Callable[[], Awaitable[object]]] = {
            REQUEST: peer.request,
            HEAD: peer.head,
            GONE: peer.until_gone,
        }
        ends = {CLOSE: peer.close, RESET: peer.reset, END: peer.end}
        for step in steps:
            if isinstance(step, bytes):
                await peer.send(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif step in ends:
                ends[step]()
            else:
                await actions[step]()

    return script


def again(*steps: bytes | asyncio.Event | Step) -> Script:
    """The same steps over and over, for a connection that is kept alive."""
    once = play(*steps)

    async def script(peer: Peer) -> None:
        while True:
            await once(peer)

    return script


def ok(body: bytes = b"", *lines: str, status: str = "200 OK") -> bytes:
    """A response with a length; `lines` are more header lines."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def chunked(*chunks: bytes, lines: Sequence[str] = ()) -> bytes:
    """A chunked response, a chunk each."""
    head = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (*chunks, b""))


class Upstream:
    """The server: scripts for its connections, and what they have seen."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._scripts = scripts or (play(GONE),)
        self._tls = tls
        self._host = host
        self._arrived = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Its address without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def requests(self) -> list[Received]:
        """Every request, by connection."""
        return [one for peer in self.peers for one in peer.requests]

    async def peer(self, index: int = 0) -> Peer:
        """The connection of that number, waiting for it."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.peers) > index)
        return self.peers[index]

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        peer = Peer(reader, writer)
        script = self._scripts[min(len(self.peers), len(self._scripts) - 1)]
        async with self._arrived:
            self.peers.append(peer)
            self._arrived.notify_all()
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            peer.gone.set()
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would report a cancelled handler
        except Exception as error:
            self.failures.append(error)
        finally:
            peer.done.set()
            writer.close()


def free_port(host: str = "127.0.0.1") -> int:
    """A port where nobody listens."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
