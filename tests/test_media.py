"""Media named by URL on their way to a provider that wants bytes: fetched once, checked, put in their places."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from newapi_proxy.adapters import ADAPTERS
from newapi_proxy.adapters._inlining import inlined, inlined_parts
from newapi_proxy.config.model import Channel, Config, Fetch, MediaConfig, Relay
from newapi_proxy.errors import ClientError, Unsupported
from newapi_proxy.ir.ask import Ask, Media, ToolResult
from newapi_proxy.ports import Fetched, Interrupt
from newapi_proxy.relay.media import MOST, Parcels, by_url, media_type
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.responses import RESPONSES
from newapi_proxy.surfaces.speech import SPEECH
from tests.fakes.crowd import Crowd
from tests.fakes.ports import Script
from tests.fakes.rows import AM, OC, SURFACES, ask, sent, whole
from tests.fakes.stage import JSON, stage

PNG = b"\x89PNG\r\n\x1a\n..."
JPG = b"\xff\xd8\xff..."
PDF = b"%PDF-1.7 ..."
FILES = {
    "https://h/a.png": Fetched(media_type="image/png", data=PNG),
    "https://h/b": Fetched(media_type="application/octet-stream", data=JPG),
    "https://h/c.pdf": Fetched(media_type="application/pdf", data=PDF),
    "https://h/t.txt": Fetched(media_type="text/plain", data=b"Hello"),
    "https://h/page": Fetched(media_type="text/html", data=b"<html>"),
    "https://h/lie.png": Fetched(media_type="image/png", data=b"<html>"),
}


class Library:
    """A fetcher with files of its own, which remembers what it was asked and how many at once."""

    def __init__(self, wait: asyncio.Event | None = None) -> None:
        self.asked: list[str] = []
        self.running = self.most = 0
        self._wait = wait

    async def fetch(self, url: str, path: str, limits: Fetch) -> Fetched:
        self.asked.append(url)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await (self._wait.wait() if self._wait else asyncio.sleep(0))
        finally:
            self.running -= 1
        if url not in FILES:
            raise Unsupported(f"Error while downloading {path}: no.", path, "invalid_image_url")
        if len(FILES[url].data) > limits.max_size:
            raise Unsupported(f"Error while downloading {path}: too large.", path, "invalid_image_url")
        return FILES[url]


def everything(medium: Media, model: str) -> bool:
    """A provider that fetches nothing."""
    return True


def pictures(client: str, *urls: str, inside: bool = False) -> Ask:
    """An ask with images by URL, in the message or in a tool's result."""
    if client == OC:
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
        call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        if not inside:
            return ask(OC, messages=[{"role": "user", "content": parts}])
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        return ask(OC, messages=[said, {"role": "tool", "tool_call_id": "a", "content": parts}])
    parts = [{"type": "image", "source": {"type": "url", "url": url}} for url in urls]
    if inside:
        parts = [{"type": "tool_result", "tool_use_id": "a", "content": parts}]
    return ask(AM, messages=[{"role": "user", "content": parts}])


def media(asked: Ask) -> list[Media]:
    """All media of the ask."""
    found: list[Media] = []
    for turn in asked.turns:
        for part in turn.parts:
            found += [
                one for one in (part.parts if isinstance(part, ToolResult) else (part,)) if isinstance(one, Media)
            ]
    return found


def parcels(asked: Ask, library: Library | None, **config: Any) -> Parcels:
    """The parcels of a request."""
    return Parcels(asked, by_url(asked), library, Config(**config))


@pytest.mark.parametrize("client", [OC, AM])
@pytest.mark.parametrize("inside", [False, True])
async def test_bytes_beside_the_address(client: str, inside: bool) -> None:
    """Fetched media have both, everything else stays; the ask that came is not changed."""
    asked = pictures(client, "https://h/a.png", "https://h/b", inside=inside)
    before = orjson.dumps(asked.tree)
    got = await parcels(asked, Library()).carried(everything, "m", Interrupt)
    assert got.fetched
    assert [one.media_type for one in media(got)] == ["image/png", "image/jpeg"]
    assert [base64.b64decode(one.data or "") for one in media(got)] == [PNG, JPG]
    assert [(one.url, one.path, one.detail) for one in media(got)] == [
        (one.url, one.path, one.detail) for one in media(asked)
    ]
    assert all(one.data is None for one in media(asked))
    assert orjson.dumps(asked.tree) == before


async def test_each_address_once() -> None:
    """However many attempts and places there are; failures are remembered as well."""
    library = Library()
    one = parcels(pictures(OC, "https://h/a.png", "https://h/a.png"), library)
    for _ in range(3):
        await one.carried(everything, "m", Interrupt)
    assert library.asked == ["https://h/a.png"]
    broken = parcels(pictures(OC, "https://h/none"), library)
    for _ in range(2):
        with pytest.raises(Unsupported):
            await broken.carried(everything, "m", Interrupt)
    assert library.asked == ["https://h/a.png", "https://h/none"]


async def test_only_what_the_provider_wants() -> None:
    """What it fetches itself stays an address, and an ask without any is handed on as it is."""
    library = Library()
    asked = pictures(OC, "https://h/a.png", "https://h/b")
    got = await parcels(asked, library).carried(
        lambda one, model: one.url == "https://h/b" and model == "m", "m", Interrupt
    )
    assert [one.data is None for one in media(got)] == [True, False]
    assert library.asked == ["https://h/b"]
    plain = ask(OC)
    assert await parcels(plain, None).carried(everything, "m", Interrupt) is plain
    assert await parcels(asked, None).carried(lambda one, model: False, "m", Interrupt) is asked
    assert by_url(ask(OC)) == ()


@pytest.mark.parametrize("client", [OC, AM])
@pytest.mark.parametrize("url", ["https://h/none", "https://h/page", "https://h/lie.png", "https://h/c.pdf"])
async def test_what_is_no_picture(client: str, url: str) -> None:
    """T-CORE-024: a 400 `invalid_image_url` at the medium's place; another provider may still serve."""
    asked = pictures(client, "https://h/a.png", url)
    with pytest.raises(Unsupported) as told:
        await parcels(asked, Library()).carried(everything, "m", Interrupt)
    assert (told.value.status, told.value.code) == (400, "invalid_image_url")
    assert told.value.param == "messages.0.content.1"


async def test_no_fetcher() -> None:
    """Without one a provider that wants bytes cannot serve."""
    with pytest.raises(Unsupported):
        await parcels(pictures(OC, "https://h/a.png"), None).carried(everything, "m", Interrupt)


async def test_bounds() -> None:
    """So many addresses, so many bytes together, so many downloads at a time."""
    library = Library()
    with pytest.raises(ClientError):
        await parcels(pictures(OC, *(f"https://h/{n}" for n in range(MOST + 1))), library).carried(
            everything, "m", Interrupt
        )
    assert library.asked == []
    with pytest.raises(ClientError):
        await parcels(pictures(OC, *(f"https://h/{n}" for n in range(20))), library).carried(everything, "m", Interrupt)
    assert library.most == 4
    small = {"relay": Relay(max_body=len(PNG) + 1), "media": MediaConfig(fetch=Fetch(max_size=len(PNG) + 1))}
    one = parcels(pictures(OC, "https://h/a.png", "https://h/b"), library, **small)
    with pytest.raises(ClientError):
        await one.carried(everything, "m", Interrupt)


async def test_an_interrupt_ends_it() -> None:
    """A client that goes, or a deadline, ends the downloads with it."""
    never = asyncio.Event()
    library, interrupt = Library(never), Interrupt()
    asked = pictures(OC, "https://h/a.png", "https://h/b")
    asyncio.get_running_loop().call_later(0.02, interrupt.fire, RuntimeError("gone"))
    with pytest.raises(RuntimeError, match="gone"):
        await parcels(asked, library).carried(everything, "m", lambda: interrupt)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (len(library.asked), library.running) == (2, 0)


@pytest.mark.parametrize(
    ("kind", "declared", "data", "told"),
    [
        ("image", "image/jpeg", PNG, "image/png"),
        ("image", "", PNG, "image/png"),
        ("image", "image/avif", b"....", "image/avif"),
        ("image", "text/html", b"<html>", None),
        ("image", "", b"....", None),
        ("image", "image/png", b"....", None),
        ("file", "", PDF, "application/pdf"),
        ("file", "text/csv", b"a,b", "text/csv"),
        ("file", "", b"....", "application/octet-stream"),
        ("file", "image/png", PNG, "image/png"),
        ("audio", "audio/ogg", b"OggS", "audio/ogg"),
        ("audio", "", b"RIFF....WAVE", "audio/wav"),
        ("video", "video/mp4", b"....ftyp", "video/mp4"),
        ("video", "image/png", PNG, None),
    ],
)
def test_media_types(kind: str, declared: str, data: bytes, told: str | None) -> None:
    """The head of the bytes before the server's word, and never another kind."""
    assert media_type(kind, Fetched(media_type=declared, data=data)) == told


async def test_messages_sources_are_inlined() -> None:
    """Sources of type url become base64, texts become text, at every depth; the rest is the client's own."""
    source = {"type": "url", "url": "https://h/t.txt"}
    blocks = [
        {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}, "cache_control": {"type": "ephemeral"}},
        {"type": "document", "source": source, "title": "T"},
        {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [{"type": "document", "source": {**source, "url": "https://h/c.pdf"}}],
        },
        {"type": "text", "text": "x"},
    ]
    asked = ask(AM, messages=[{"role": "user", "content": blocks}])
    before = orjson.dumps(asked.tree)
    got = await parcels(asked, Library()).carried(everything, "m", Interrupt)
    told = inlined(got.tree, got.turns)["messages"][0]["content"]
    data = base64.b64encode(PNG).decode()
    assert told[0] == {**blocks[0], "source": {"type": "base64", "media_type": "image/png", "data": data}}
    assert told[1] == {**blocks[1], "source": {"type": "text", "media_type": "text/plain", "data": "Hello"}}
    assert told[2]["content"][0]["source"]["media_type"] == "application/pdf"
    assert told[3] is asked.tree["messages"][0]["content"][3]
    assert orjson.dumps(asked.tree) == before
    assert inlined(asked.tree, asked.turns) is asked.tree


async def test_chat_parts_are_inlined() -> None:
    """Addresses in parts become data URLs, in each form that a part has one."""
    parts = [
        {"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": "https://h/a.png"},
        {"type": "file", "file": {"file_data": "https://h/c.pdf", "filename": "c.pdf"}},
    ]
    asked = ask(OC, messages=[{"role": "user", "content": parts}])
    got = await parcels(asked, Library()).carried(everything, "m", Interrupt)
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    told = inlined_parts(got.tree, got.turns)["messages"][0]["content"]
    assert told[0] == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert told[1] == {"type": "image_url", "image_url": url}
    assert told[2]["file"]["file_data"].startswith("data:application/pdf;base64,")
    assert inlined_parts(asked.tree, asked.turns) is asked.tree


@pytest.mark.parametrize("client", [OC, AM])
async def test_requests_of_the_openai_format(client: str) -> None:
    """A file by URL reaches a server of that format as data, a picture by URL stays one; Cloudflare gets bytes."""
    if client == OC:
        file: Any = {"type": "file", "file": {"file_data": "https://h/c.pdf"}}
        image: Any = {"type": "image_url", "image_url": {"url": "https://h/a.png"}}
    else:
        file = {"type": "document", "source": {"type": "url", "url": "https://h/c.pdf"}}
        image = {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}}
    asked = ask(client, messages=[{"role": "user", "content": [image, file]}])
    one = parcels(asked, Library())
    for type_, address in (("openai", "https://h/a.png"), ("cloudflare", "data:image/png;base64,")):
        wanted = ADAPTERS[type_].by_bytes
        assert wanted is not None
        body = sent(await one.carried(wanted, "m", Interrupt), type_).body
        assert isinstance(body, dict)
        picture, document = body["messages"][0]["content"]
        assert picture["image_url"]["url"].startswith(address)
        assert document["file"]["file_data"] == "data:application/pdf;base64," + base64.b64encode(PDF).decode()


def test_fetched_is_said_of_asks_alone() -> None:
    """A surface never says it."""
    assert not pictures(OC, "https://h/a.png").fetched
    assert msgspec.structs.replace(ask(OC), fetched=True).fetched


PICTURE = {"type": "image_url", "image_url": {"url": "https://h/a.png"}}
PAGE = {"type": "image_url", "image_url": {"url": "https://h/page"}}


def channel(name: str, type_: str, priority: int = 0) -> Channel:
    """A channel for the model `m`."""
    options = {"account": "acc"} if type_ == "cloudflare" else {}
    return Channel(name=name, type=type_, key=Secret("k"), models=("m",), priority=priority, options=options)


def user(*parts: Any) -> list[Any]:
    """One message."""
    return [{"role": "user", "content": list(parts)}]


async def test_an_exchange_with_bytes(tmp_path: Path) -> None:
    """The provider is sent the bytes; a second attempt at another one fetches nothing again."""
    library = Library()
    channels = (channel("a", "cloudflare", 1), channel("b", "cloudflare"))
    scripts = (Script(b"{}", status=500, headers=JSON), Script(whole({"content": "x"}), headers=JSON))
    async with stage(tmp_path, channels, *scripts, fetcher=library) as one:
        sink = await one.ask(model="m", messages=user(PICTURE))
        assert (sink.status, library.asked) == (200, ["https://h/a.png"])
        urls = [body["messages"][0]["content"][0]["image_url"]["url"] for body in one.sent]
    assert urls == ["data:image/png;base64," + base64.b64encode(PNG).decode()] * 2


def a_page(client: str) -> dict[str, Any]:
    """A request with a picture that is none."""
    source = {"type": "image", "source": {"type": "url", "url": "https://h/page"}}
    return {"model": "m", "max_tokens": 9, "messages": user(PAGE if client == OC else source)}


@pytest.mark.parametrize("client", [OC, AM])
async def test_an_exchange_without_them(tmp_path: Path, client: str) -> None:
    """T-CORE-023, T-CORE-024: a 400 of the client's format, and no call upstream."""
    async with stage(tmp_path, (channel("a", "cloudflare"),), fetcher=Library()) as one:
        sink = await one.ask(SURFACES[client], **a_page(client))
        error = orjson.loads(sink.body)["error"]
        assert (sink.status, error["type"], one.sent) == (400, "invalid_request_error", [])
        assert "messages.0.content.0" in error["message"]
        if client == OC:
            assert (error["code"], error["param"]) == ("invalid_image_url", "messages.0.content.0")


@pytest.mark.parametrize("client", [OC, AM])
async def test_a_provider_that_fetches_itself_serves(tmp_path: Path, client: str) -> None:
    """What cannot be had here is no reason to refuse where the address is enough."""
    both = (channel("a", "cloudflare", 1), channel("b", "openai"))
    async with stage(tmp_path, both, Script(whole({"content": "x"}), headers=JSON), fetcher=Library()) as one:
        assert (await one.ask(SURFACES[client], **a_page(client))).status == 200


@pytest.mark.parametrize(
    ("model", "asked", "file"),
    [
        ("m", [], {"type": "input_file", "file_url": "https://h/c.pdf"}),
        ("o1-mini", ["https://h/c.pdf"], "data:application/pdf;base64," + base64.b64encode(PDF).decode()),
    ],
)
async def test_a_file_of_the_same_format(tmp_path: Path, model: str, asked: list[str], file: Any) -> None:
    """A format that has files by URL keeps them on its own kind of server; a model of another endpoint gets bytes."""
    library = Library()
    given = {"type": "input_file", "file_url": "https://h/c.pdf"}
    one_channel = (msgspec.structs.replace(channel("a", "openai"), model_mapping={"m": model}),)
    async with stage(tmp_path, one_channel, Script(b"{}", status=500, headers=JSON), fetcher=library) as one:
        await one.ask(RESPONSES, model="m", input=user(given))
        (body,) = one.sent
    told = (body.get("input") or body.get("messages"))[0]["content"][0]
    assert (library.asked, told if "input" in body else told["file"]["file_data"]) == (asked, file)


async def test_a_failure_after_a_keepalive(tmp_path: Path) -> None:
    """While files are fetched the client is kept waiting with comments; an error then comes in the stream."""
    gate = asyncio.Event()
    one_channel = (channel("a", "cloudflare"),)
    async with stage(tmp_path, one_channel, fetcher=Library(gate), relay=Relay(keepalive=0.02)) as one:
        asyncio.get_running_loop().call_later(0.1, gate.set)
        sink = await one.ask(model="m", stream=True, messages=user(PAGE))
    assert sink.status == 200
    assert sink.body.startswith(b": ping\n\n")
    assert b"invalid_image_url" in sink.body
    assert b"[DONE]" not in sink.body


async def test_the_time_of_the_request_is_the_downloads_too(tmp_path: Path) -> None:
    """A deadline that passes meanwhile ends them and the request."""
    library = Library(asyncio.Event())
    async with stage(tmp_path, (channel("a", "cloudflare"),), fetcher=library, relay=Relay(total_timeout=0.05)) as one:
        sink = await one.ask(model="m", messages=user(PICTURE))
        assert one.sent == []
    assert (sink.status, library.running) == (504, 0)


async def test_a_ping_before_the_head_of_speech_as_events(tmp_path: Path) -> None:
    """Who asked for events gets them typed so, though nothing has come of the provider yet."""
    waiting = Relay(keepalive=0.02, total_timeout=0.1)
    async with stage(tmp_path, (channel("a", "openai"),), client=Crowd(held=True), relay=waiting) as one:
        sink = await one.ask(SPEECH, model="m", input="hi", voice="x", stream_format="sse")
    assert sink.headers["content-type"].startswith("text/event-stream")
    assert sink.body.startswith(b": ping\n\n")
