"""A TCP connection to a server that can be cut: silently, as a network does it, or at a chosen word on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class Cable:
    """Forwards to a port of the loopback. `freeze` lets nothing through and closes nothing; `thaw` ends it.

    `watch`, where set, sees each piece that goes to the server and says what to do with it: "pass", "lose" (the client
    is cut off and the server never sees it) or "deafen" (the server sees it, the client is cut off).
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.watch: Callable[[bytes], str] | None = None
        self.port = 0

    async def listen(self) -> asyncio.Server:
        """Begins to forward."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def freeze(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        self._open.clear()

    def thaw(self) -> None:
        """What was on its way arrives."""
        self._open.set()

    def cut(self) -> None:
        """Every connection breaks."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def end(self) -> None:
        """Breaks what is left."""
        self.thaw()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.CancelledError):  # the block's end; a stream's callback would call it an error
            await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, writer))
                group.create_task(self._pump(far_reader, writer, None))
        finally:
            self._writers -= ends
            for one in ends:
                one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter | None
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._open.wait()
                fate = self.watch(data) if self.watch is not None and back is not None else "pass"
                if fate != "pass" and back is not None:
                    back.transport.abort()
                if fate != "lose":
                    writer.write(data)
                    await writer.drain()
        await self._open.wait()
        writer.close()


@asynccontextmanager
async def cable(port: int) -> AsyncIterator[Cable]:
    """A cable to a port, gone with the block."""
    made = Cable(port)
    server = await made.listen()
    try:
        yield made
    finally:
        server.close()
        await made.end()
