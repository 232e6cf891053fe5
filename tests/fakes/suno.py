"""A Suno API gateway of our own making: submissions, states that a test sets, and knobs for what goes wrong.

Written from tasks-and-accounts 2.8 and 11.2; controls as in the other fake.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.fakes.midjourney import Seen, listening

STEPS = ("SUBMITTED", "QUEUED", "IN_PROGRESS", "SUCCESS")
CLIPS = {"SUBMITTED": "submitted", "QUEUED": "queued", "IN_PROGRESS": "streaming", "SUCCESS": "complete"}


@dataclass(kw_only=True)
class Knobs:
    """What can be set while it runs."""

    secret: str = "suno-secret"
    code: str = "success"
    message: str = ""
    status: int = 200
    text: str = ""  # instead of JSON
    time_out: bool = False
    return_unknown_id: bool = False
    cookies: bool = False
    permuted: bool = False
    busy: bool = False


@dataclass
class Song:
    """One task."""

    id: str
    action: str
    body: dict[str, Any]
    born: int
    reason: str = ""
    forced: dict[str, Any] = field(default_factory=dict)


class Suno:
    """The running gateway."""

    def __init__(self) -> None:
        self.url = ""
        self.knobs = Knobs()
        self.seen: list[Seen] = []
        self.songs: dict[str, Song] = {}
        self.now = 0
        self.slow = asyncio.Event()
        self.slow.set()
        self._count = 0

    @property
    def submits(self) -> list[Seen]:
        """The submissions."""
        return [one for one in self.seen if "/submit/" in one.path]

    def tick(self, steps: int = 1) -> None:
        """Moves the virtual clock."""
        self.now += steps

    def task(self, song: Song) -> dict[str, Any]:
        """The task as it is now."""
        age = self.now - song.born
        status = STEPS[min(age, len(STEPS) - 1)]
        reason = song.reason or ("time out" if self.knobs.time_out and age >= 2 else "")
        if reason:
            status = "FAILURE"
        return {
            "id": 1,
            "task_id": song.id,
            "action": song.action,
            "status": status,
            "fail_reason": reason,
            "submit_time": 1_729_000_000,
            "start_time": 1_729_000_005 if age else 0,
            "finish_time": 1_729_000_060 if status in ("SUCCESS", "FAILURE") else 0,
            "search_item": "",
            "data": self._data(song, status),
            **song.forced,
        }

    def _data(self, song: Song, status: str) -> Any:
        if song.action == "LYRICS":
            return {"id": song.id, "status": "complete", "title": "A song", "text": "la la"}
        clips = [
            {
                "id": f"{song.id[:8]}-clip-{number}",
                "status": CLIPS.get(status, "error"),
                "audio_url": "https://cdn.example.org/a.mp3" if status == "SUCCESS" else "",
                "title": song.body.get("title", ""),
                "metadata": {"prompt": song.body.get("prompt", ""), "error_message": song.reason},
            }
            for number in (1, 2)
        ]
        return clips[::-1] if self.knobs.permuted and self.now % 2 else clips

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        body = orjson.loads(text) if text else {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path, headers, body))
        knobs = self.knobs
        if knobs.secret and headers.get("authorization") != f"Bearer {knobs.secret}":
            return _said({"code": "invalid_request", "message": "unauthorized secret token", "data": None}, 401)
        if knobs.status != 200 or knobs.text:
            return web.Response(status=knobs.status, text=knobs.text or "post https://suno.internal/x: dial tcp")
        if "/submit/" in request.path:
            return await self._submit(request.path.rpartition("/")[2].upper(), body)
        found: list[Any] = [self.task(self.songs[one]) for one in body.get("ids", []) if one in self.songs]
        if knobs.return_unknown_id:
            found.insert(0, {"task_id": "nobody", "status": "FAILURE", "fail_reason": "x"})
        return _said({"code": knobs.code, "message": "", "data": found})

    async def _submit(self, action: str, body: dict[str, Any]) -> web.StreamResponse:
        await self.slow.wait()
        if self.knobs.code != "success":
            return _said({"code": self.knobs.code, "message": self.knobs.message, "data": None})
        self._count += 1
        song = Song(f"{self._count:032x}", action, body, self.now)
        self.songs[song.id] = song
        answer = _said({"code": "success", "message": "", "data": song.id})
        if self.knobs.cookies:
            answer.headers["set-cookie"] = "session=1"
            answer.headers["server"] = "gateway"
        return answer

    async def _control(self, request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())
        self.tick(int(given.pop("tick", 0)))
        for name, value in given.items():
            assert hasattr(self.knobs, name), name
            setattr(self.knobs, name, value)
        return web.Response()

    async def _log(self, request: web.Request) -> web.Response:
        rows = [{"method": one.method, "path": one.path, "headers": one.headers, "body": one.body} for one in self.seen]
        return web.Response(body=orjson.dumps(rows))

    def app(self) -> web.Application:
        """The application."""
        made = web.Application(client_max_size=64 << 20)
        made.router.add_post("/__ctl", self._control)
        made.router.add_get("/__log", self._log)
        made.router.add_route("*", "/{path:.*}", self._ask)
        return made


def _said(tree: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(tree), status=status, headers={"content-type": "application/json"})


@asynccontextmanager
async def serving(secret: str = "suno-secret") -> AsyncIterator[Suno]:
    """The gateway on a free port of the loopback."""
    one = Suno()
    one.knobs.secret = secret
    async with listening(one.app()) as url:
        one.url = url
        yield one
        one.slow.set()
