"""Media that a client names by URL, brought to bytes for providers that fetch nothing themselves.

Knows the port, no network; which medium a provider wants as bytes is the adapter's word (`Adapter.by_bytes`). Source:
provider-translation B.0 (url→bytes), T-CORE-023, T-CORE-024.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from newapi_proxy.config.model import Config, Fetch
from newapi_proxy.errors import ClientError, Unsupported
from newapi_proxy.ir.ask import Ask, Media, Part, ToolResult
from newapi_proxy.ports import Fetched, Fetcher, Interrupt
from newapi_proxy.spawn import spawn

AT_ONCE: Final = 4  # downloads of one request
MOST: Final = 100  # addresses in one request
_HEADS: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"%PDF-", "application/pdf"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
)
_SURE: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})  # known by their heads
_VAGUE: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/binary"})

Wanted = Callable[[Media, str], bool]
_Place = tuple[str, str | None]  # a medium's path and its address


def by_url(ask: Ask) -> tuple[Media, ...]:
    """The ask's media that are named by URL, those inside tool results too; plain turns cost nothing."""
    return tuple(
        part
        for turn in ask.turns
        if not turn.plain
        for part in _leaves(turn.parts)
        if type(part) is Media and part.url is not None and part.data is None
    )


class Parcels:
    """What one request's URLs were fetched as, or why not: each is fetched once, however many attempts there are."""

    __slots__ = ("_ask", "_fetcher", "_got", "_limits", "_media", "_room")

    def __init__(self, ask: Ask, media: tuple[Media, ...], fetcher: Fetcher | None, config: Config) -> None:
        """`media`: the ask's, `by_url`."""
        self._ask = ask
        self._fetcher = fetcher
        self._limits: Fetch = config.media.fetch
        self._room = max(config.relay.max_body, config.media.fetch.max_size)  # what a body might hold as well
        self._media = media
        self._got: dict[str, Fetched | ClientError] = {}

    async def carried(self, wanted: Wanted, model: str, interrupt: Callable[[], Interrupt]) -> Ask:
        """The ask with bytes where this provider wants them, the ask itself where it wants none.

        Raises Unsupported with the path of what cannot be had: a provider that fetches by itself may still serve.
        """
        here = [medium for medium in self._media if wanted(medium, model)]
        if not here:
            return self._ask
        missing = {medium.url or "": medium for medium in reversed(here) if medium.url not in self._got}
        if len(self._got) + len(missing) > MOST:
            raise _refused(here[0], f"more than {MOST} addresses in one request")
        if missing:
            await self._fetch(list(missing.values())[::-1], interrupt())
        filled = {(medium.path, medium.url): self._filled(medium) for medium in here}
        turns = tuple(
            turn if turn.plain else msgspec.structs.replace(turn, parts=tuple(_placed(turn.parts, filled)))
            for turn in self._ask.turns
        )
        return msgspec.structs.replace(self._ask, turns=turns, fetched=True)

    async def _fetch(self, media: Sequence[Media], interrupt: Interrupt) -> None:
        """Fetches them all. Raises the interrupt's cause."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns = asyncio.Semaphore(AT_ONCE)
        left = len(media)

        async def one(medium: Media) -> None:
            nonlocal left
            try:
                async with turns:
                    self._got[medium.url or ""] = await self._answer(medium)
                left -= 1
                if not left and not done.done():
                    done.set_result(None)
            except Exception as error:
                if done.done():
                    raise
                done.set_exception(error)

        running = [spawn(one(medium), "media") for medium in media]
        try:
            await interrupt.wait(done)
        finally:
            for task in running:
                task.cancel()

    async def _answer(self, medium: Media) -> Fetched | ClientError:
        if self._fetcher is None:
            return _refused(medium, "files are not fetched here, send them as data")
        if self._room <= 0:
            return _refused(medium, "the files of this request are too large together")
        limits = msgspec.structs.replace(self._limits, max_size=min(self._limits.max_size, self._room))
        try:
            fetched = await self._fetcher.fetch(medium.url or "", medium.path, limits)
        except ClientError as refused:
            return refused
        self._room -= len(fetched.data)
        if self._room < 0:
            return _refused(medium, "the files of this request are too large together")
        return fetched

    def _filled(self, medium: Media) -> Media:
        got = self._got[medium.url or ""]
        if isinstance(got, ClientError):
            raise got
        kind = media_type(medium.kind, got)
        if kind is None:
            raise _refused(medium, f"this is not of the kind {medium.kind}")
        return msgspec.structs.replace(medium, data=b64encode(got.data).decode(), media_type=kind)


def media_type(kind: str, got: Fetched) -> str | None:
    """What the bytes are, by their own head before the server's word; None where that is not the wanted kind."""
    found = next((name for at, head, name in _HEADS if got.data.startswith(head, at)), None)
    if found is None and got.media_type not in _VAGUE and got.media_type not in _SURE:
        found = got.media_type
    if kind == "file":
        return found or "application/octet-stream"
    return found if found is not None and found.startswith(f"{kind}/") else None


def _leaves(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if type(part) is ToolResult:
            yield from part.parts
        else:
            yield part


def _placed(parts: Sequence[Part], filled: Mapping[_Place, Media]) -> Iterator[Part]:
    for part in parts:
        if type(part) is Media:
            yield filled.get((part.path, part.url), part)
        elif type(part) is ToolResult and not part.plain:
            inner = tuple(filled.get((one.path, one.url), one) if type(one) is Media else one for one in part.parts)
            yield msgspec.structs.replace(part, parts=inner)
        else:
            yield part


def _refused(medium: Media, why: str) -> Unsupported:
    return Unsupported(f"Error while downloading {medium.path or 'a file'}: {why}.", medium.path, "invalid_image_url")
