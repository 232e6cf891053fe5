"""A Midjourney-Proxy-Plus of our own making: submissions, a virtual clock, lists, and knobs for what goes wrong.

One aiohttp application on the loopback. `POST /__ctl` sets knobs and moves the clock, `GET /__log` is what was asked;
tests in the same process touch the object itself. Written from tasks-and-accounts 1.3, 1.4, 1.13 and 11.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import ClientSession, web

PNG = b"\x89PNG\r\n\x1a\n" + b"picture" * 20
FIRST_ID = 1_729_000_000_123_000
STEPS = (
    ("SUBMITTED", "0%"),
    ("IN_PROGRESS", "0%"),
    ("IN_PROGRESS", "31%"),
    ("IN_PROGRESS", "62%"),
    ("SUCCESS", "100%"),
)


@dataclass(kw_only=True)
class Knobs:
    """What can be set while it runs."""

    secret: str = "mj-secret"
    banned: str = "forbidden"
    core: int = 3
    queue: int = 10
    auto: bool = False  # each list moves the clock
    refused_id: bool = False  # a refusal names an id all the same
    code: int = 0  # the code of every submission, 0: as it comes
    status: int = 200
    no_account: bool = False
    return_unknown_id: bool = False
    forget_id: bool = False
    submit_time_null: bool = False
    pretty_json: bool = False
    bad_json: bool = False
    nonsense: bool = False  # NaN, nulls and numbers among the tasks
    status_500: bool = False
    empty_body: bool = False
    duplicate_21: bool = True
    reverse: bool = False  # lists in another order, every task twice
    hang: bool = False
    picture: str = ""  # the address of pictures, "": here


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Life:
    """One task: when it was born, how it ends."""

    id: str
    action: str
    prompt: str
    born: int
    state: str = ""
    origin: str = ""
    hook: str = ""
    waits: bool = False  # for a modal
    told: tuple[str, str] = ("", "")
    forced: dict[str, Any] = field(default_factory=dict)


class Midjourney:
    """The running service. `url` is its address; `seen` what came; `lives` its tasks."""

    def __init__(self) -> None:
        self.url = ""
        self.knobs = Knobs()
        self.seen: list[Seen] = []
        self.lives: dict[str, Life] = {}
        self.now = 0
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()
        self._given = FIRST_ID

    @property
    def submits(self) -> list[Seen]:
        """The submissions."""
        return [one for one in self.seen if "/submit/" in one.path or one.path.endswith("/swap")]

    def tick(self, steps: int = 1) -> None:
        """Moves the virtual clock."""
        self.now += steps

    def task(self, life: Life) -> dict[str, Any]:
        """The task as it is now, with null for nothing as a service in Java has it."""
        age = max(0, self.now - life.born)
        status, progress = STEPS[min(age, len(STEPS) - 1)]
        failed = "[fail]" in life.prompt and age >= 2
        if life.waits:
            status, progress = "MODAL", "0%"
        elif failed:
            status, progress = "FAILURE", ""
        done = status == "SUCCESS"
        picture = self.knobs.picture or f"{self.url}/images/{life.id}.png"
        return {
            "id": life.id,
            "action": life.action,
            "prompt": life.prompt,
            "promptEn": life.prompt,
            "description": f"/imagine {life.prompt}",
            "state": life.state or None,
            "submitTime": None if self.knobs.submit_time_null else FIRST_ID // 1000,
            "startTime": None if age < 1 else FIRST_ID // 1000 + 1000,
            "finishTime": FIRST_ID // 1000 + 9000 if done else None,
            "imageUrl": picture if done or progress in ("31%", "62%") else None,
            "status": status,
            "progress": progress,
            "failReason": "The job failed." if failed else None,
            "buttons": _buttons(life) if done else [],
            "properties": {"finalPrompt": f"1. {life.prompt}", "finalZhPrompt": ""} if done else None,
            **life.forced,
        }

    def running(self) -> int:
        """Tasks that take a place."""
        return sum(self.task(life)["status"] in ("SUBMITTED", "IN_PROGRESS") for life in self.lives.values())

    def submit(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a submission is answered; a task is made where it is accepted."""
        knobs = self.knobs
        prompt = str(body.get("prompt") or "")
        if knobs.no_account:
            return {"code": 3, "description": "no available account instance"}
        if knobs.code not in (0, 1, 22, 21):
            refused = {"code": knobs.code, "description": f"refused with {knobs.code}"}
            return {**refused, "result": self._life(action, prompt, body).id} if knobs.refused_id else refused
        if action == "IMAGINE" and not prompt:
            return {"code": 4, "description": "prompt must not be empty"}
        if action == "BLEND" and not 2 <= len(body.get("base64Array") or []) <= 5:
            return {"code": 4, "description": "base64Array must hold 2 to 5 pictures"}
        if knobs.banned in prompt:
            words = {"promptEn": prompt, "bannedWord": knobs.banned}
            return {"code": 24, "description": "a banned word", "properties": words}
        running = self.running()
        if running >= knobs.core + knobs.queue:
            return {"code": 23, "description": "the queue is full", "result": None}
        made = self._life(action, prompt, body)
        if knobs.code == 22 or running >= knobs.core:
            waiting = max(1, running - knobs.core)
            return _taken(made, 22, f"queued, {waiting} before it", numberOfQueues=waiting, code=22)
        return _taken(made, 1, "提交成功", discordInstanceId="111")

    def follow(self, action: str, body: dict[str, Any], origin: str) -> dict[str, Any]:
        """The same for a task that follows another."""
        life = self.lives.get(origin)
        if life is None:
            return {"code": 3, "description": "no such task"}
        if action == "MODAL":
            life.waits, life.born = False, self.now
            life.prompt = str(body.get("prompt") or life.prompt)
            return _taken(life, 1, "提交成功")
        if self.task(life)["status"] != "SUCCESS":
            return {"code": 4, "description": "the task is not finished"}
        key = f"{origin} {action} {body.get('customId') or body.get('content') or body.get('index')}"
        earlier = next((one for one in self.lives.values() if one.origin == key), None)
        if earlier is not None and self.knobs.duplicate_21:
            found = self.task(earlier)
            return _taken(earlier, 21, "the task exists", status=found["status"], imageUrl=found["imageUrl"])
        made = self._life(action, life.prompt, body)
        made.origin = key
        if action in ("INPAINT", "CUSTOM_ZOOM"):
            made.waits = True
            return _taken(made, 21, "Waiting for window confirm", finalPrompt=life.prompt, remix=True)
        return _taken(made, 1, "提交成功")

    def _life(self, action: str, prompt: str, body: dict[str, Any]) -> Life:
        self._given += 7
        made = Life(str(self._given), action, prompt, self.now, str(body.get("state") or ""))
        made.hook = str(body.get("notifyHook") or "")
        self.lives[made.id] = made
        return made

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        body = orjson.loads(text) if text else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path, headers, body))
        self.arrived.set()
        if self.knobs.hang:
            await self.released.wait()
        if headers.get("mj-api-secret") != self.knobs.secret:
            return web.Response(status=401)
        if self.knobs.status_500:
            return web.Response(status=500, text="<html>oops</html>")
        if self.knobs.empty_body:
            return web.Response()
        if self.knobs.bad_json:
            return web.Response(text="<html>maintenance</html>")
        answer = self._answer(request.path.partition("/mj/")[2], body or {})
        option = orjson.OPT_INDENT_2 if self.knobs.pretty_json else 0
        return web.Response(body=orjson.dumps(answer, option=option), status=self.knobs.status, headers=_PLAIN)

    def _answer(self, path: str, body: dict[str, Any]) -> Any:
        head, _, last = path.rpartition("/")
        match head, last:
            case "submit", "change":
                return self.follow(str(body["action"]), body, str(body["taskId"]))
            case "submit", "simple-change":
                origin, _, word = str(body["content"]).partition(" ")
                return self.follow({"U": "UPSCALE", "V": "VARIATION"}.get(word[0].upper(), "REROLL"), body, origin)
            case "submit", "action":
                return self.follow(_action(str(body["customId"])), body, str(body["taskId"]))
            case "submit", "modal":
                return self.follow("MODAL", body, str(body["taskId"]))
            case "submit", "upload-discord-images":
                return {"code": 1, "description": "success", "result": [f"{self.url}/images/uploaded.png"]}
            case "submit", action:
                return self.submit(action.upper(), body)
            case "insight-face", "swap":
                return self.submit("SWAP_FACE", body)
            case "task", "list-by-condition":
                return self._list([str(one) for one in body["ids"]])
            case _, "image-seed":
                known = path.split("/")[1] in self.lives
                return {"code": 1, "description": "ok", "result": "1234567890"} if known else {"code": 3}
            case _, "fetch":
                life = self.lives.get(path.split("/")[1])
                return None if life is None else self.task(life)
            case _:
                return {"error": path}

    def _list(self, ids: list[str]) -> list[Any]:
        if self.knobs.auto:
            self.tick()
        known = [] if self.knobs.forget_id else [self.lives[one] for one in ids if one in self.lives]
        found: list[Any] = [self.task(life) for life in known]
        if self.knobs.reverse:
            found = [*reversed(found), *found]
        if self.knobs.return_unknown_id:
            found.insert(0, {"id": "999", "status": "FAILURE", "progress": "100%", "failReason": "not yours"})
        if self.knobs.nonsense:
            found = [None, 7, "x", {"id": 5}, {"id": None}, [], *found]
        return found

    async def _control(self, request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())
        self.tick(int(given.pop("tick", 0)))
        for name, value in given.items():
            assert hasattr(self.knobs, name), name
            setattr(self.knobs, name, value)
        await self._hooks()
        return web.Response()

    async def _hooks(self) -> None:
        """Tells those who asked for it of every change, in order."""
        async with ClientSession() as session:
            for life in self.lives.values():
                found = self.task(life)
                if life.hook and (found["status"], found["progress"]) != life.told:
                    life.told = (found["status"], found["progress"])
                    with contextlib.suppress(OSError):
                        await session.post(life.hook, data=orjson.dumps(found), headers=_PLAIN)

    async def _log(self, request: web.Request) -> web.Response:
        rows = [{"method": one.method, "path": one.path, "headers": one.headers, "body": one.body} for one in self.seen]
        return web.Response(body=orjson.dumps(rows))

    async def _image(self, request: web.Request) -> web.StreamResponse:
        match request.match_info["name"]:
            case "gone.png":
                return web.Response(status=404, text="no such picture")
            case "script.html":
                return web.Response(text="<script>alert(1)</script>", content_type="text/html")
            case "script.svg":
                return web.Response(text="<svg onload='alert(1)'/>", content_type="image/svg+xml")
            case "inside.png":
                raise web.HTTPFound("http://127.0.0.1:9/")
            case "huge.png":
                return web.Response(body=bytes(60 << 20), content_type="image/png")
            case "untyped.png":
                return web.Response(body=PNG, headers={"content-type": ""})
            case _:
                return web.Response(body=PNG, content_type="image/png", headers={"set-cookie": "a=b"})

    def app(self) -> web.Application:
        """The application: the service under every mode, its pictures, its controls."""
        made = web.Application(client_max_size=64 << 20)
        made.router.add_post("/__ctl", self._control)
        made.router.add_get("/__log", self._log)
        made.router.add_get("/images/{name}", self._image)
        made.router.add_route("*", "/{path:.*}", self._ask)
        return made


_PLAIN = {"content-type": "application/json"}


def _taken(life: Life, code: int, description: str, /, **properties: Any) -> dict[str, Any]:
    return {"code": code, "description": description, "result": life.id, "properties": properties}


def _action(custom_id: str) -> str:
    for mark, action in (
        ("upsample", "UPSCALE"),
        ("low_variation", "LOW_VARIATION"),
        ("high_variation", "HIGH_VARIATION"),
        ("variation", "VARIATION"),
        ("pan", "PAN"),
        ("reroll", "REROLL"),
        ("Outpaint", "ZOOM"),
        ("CustomZoom", "CUSTOM_ZOOM"),
        ("Inpaint", "INPAINT"),
    ):
        if mark in custom_id:
            return action
    return "UNKNOWN"


def _buttons(life: Life) -> list[dict[str, Any]]:
    if life.action == "UPSCALE":
        ids = ["upsample_v6_2x_subtle::1", "low_variation::1", "pan_left::1"]
        names = [f"MJ::JOB::{one}::{life.id}::SOLO" for one in ids]
        names += [
            f"MJ::Inpaint::1::{life.id}::SOLO",
            f"MJ::Outpaint::50::1::{life.id}::SOLO",
            f"MJ::CustomZoom::{life.id}",
        ]
    else:
        names = [f"MJ::JOB::upsample::{n}::{life.id}" for n in range(1, 5)]
        names += [f"MJ::JOB::variation::{n}::{life.id}" for n in range(1, 5)]
        names += [f"MJ::JOB::reroll::0::{life.id}::SOLO"]
    return [{"customId": one, "emoji": "", "label": one.split("::")[2], "type": 2, "style": 2} for one in names]


@asynccontextmanager
async def serving(secret: str = "mj-secret") -> AsyncIterator[Midjourney]:
    """The service on a free port of the loopback."""
    one = Midjourney()
    one.knobs.secret = secret
    async with listening(one.app()) as url:
        one.url = url
        yield one
        one.released.set()


@asynccontextmanager
async def listening(app: web.Application, door: socket.socket | None = None) -> AsyncIterator[str]:
    """An application on a free port of the loopback, or on a listening socket that stays open; its address."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0) if door is None else web.SockSite(runner, door.dup())
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
