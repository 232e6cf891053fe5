"""The rows of pictures, speech and transcription: what goes up, what comes back byte for byte, what it costs."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import msgspec
import orjson
import pytest

from newapi_proxy.config.model import Channel, Price
from newapi_proxy.errors import UpstreamFailure
from newapi_proxy.relay import exchange
from newapi_proxy.relay.record import Visit
from newapi_proxy.surfaces.base import Surface
from newapi_proxy.surfaces.images import EDITS, GENERATIONS, VARIATIONS
from newapi_proxy.surfaces.speech import SPEECH
from newapi_proxy.surfaces.transcription import TRANSCRIPTIONS, TRANSLATIONS
from newapi_proxy.wire.multipart import File, Form, Held, Upload, head
from tests.fakes.ports import ListSink, Script
from tests.fakes.stage import Stage, stage
from tests.test_rows_endpoints import channel, charged, says

Tree = dict[str, Any]

UNIT: Final = 0.000002  # USD of one quota unit
BY_PIECE: Final = {
    "asked": Price(input=2, output=4, image=100 * UNIT, characters=3, minute=600 * UNIT),
}
BY_TOKEN: Final = {"asked": Price(input=2, output=4)}  # a token of prompt is one unit, one of output two
MP3: Final = {"content-type": "audio/mpeg"}
SSE: Final = {"content-type": "text/event-stream"}
VERTEX: Final = "https://h.example/v1/projects/p/locations/r/publishers/google/models/"


def wav(seconds: int) -> bytes:
    """Silence of a length, one byte a sample at 1 kHz."""
    data = bytes(1000 * seconds)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 1000, 1000, 1, 8)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + form + b"data" + struct.pack("<I", len(data)) + data


def form(name: str = "file", content: bytes = b"", **fields: str) -> Form:
    """A form with one file and fields."""
    lines = head(name, "one.bin", "application/octet-stream")
    file = File(
        name=name,
        filename="one.bin",
        media_type="image/png",
        head=lines,
        source=Held(content),
        at=0,
        size=len(content),
    )
    return Form(fields=dict(fields), files=(file,) if content else (), boundary=b"x", size=len(content))


async def posted(one: Stage, surface: Surface, body: Form) -> ListSink:
    """Sends a form; the client's end."""
    sink = ListSink()
    visit = Visit(
        request_id="form",
        method="POST",
        path="/x",
        route="/x",
        client_ip="127.0.0.1",
        arrived=one.house.clock.monotonic(),
        token=next(iter(one.house.snapshot.tokens.values())),
    )
    await exchange.chat(one.house, visit, surface, body, {}, sink)
    return sink


class Got(msgspec.Struct, frozen=True):
    """What the client got, what went up, what it cost."""

    sink: ListSink
    url: str
    sent: Any
    charged: int


async def got(
    folder: Path,
    one: Channel,
    script: Script,
    surface: Surface,
    body: Tree | Form,
    prices: dict[str, Price] | None = None,
) -> Got:
    """One request by way of the channel."""
    async with stage(Path(mkdtemp(dir=folder)), (one,), script, prices=prices or BY_PIECE) as made:
        if isinstance(body, Form):
            sink = await posted(made, surface, body)
        else:
            sink = await made.ask(surface, **body)
        sent = script.sent
        return Got(sink, sent.url if sent else "", sent.body if sent else None, await charged(made))


ASKED: Final[Tree] = {"model": "asked", "prompt": "a sea", "n": 2, "size": "512x512", "unknown": {"deep": [1]}}
TWO: Final = orjson.dumps({"created": 1, "data": [{"b64_json": "QUJD"}, {"b64_json": "REVG"}], "later": 1})


async def test_pictures(tmp_path: Path) -> None:
    """A picture has its price: the answer comes back byte for byte, unknown fields go up, each picture is charged."""
    made = await got(tmp_path, channel("openai", "dall-e-9"), says(TWO), GENERATIONS, ASKED)
    assert (made.sink.status, made.sink.body) == (200, TWO)
    assert made.sink.headers["content-type"] == "application/json"
    assert made.url == "https://h.example/v1/images/generations"
    assert orjson.loads(made.sent) == {**ASKED, "model": "dall-e-9"}
    assert made.charged == 2 * 45  # a picture of 512x512 is 0.45 of one of 1024x1024


@pytest.mark.parametrize("cut", [1, 7, 50, 10_000])
async def test_fewer_pictures_cost_less(tmp_path: Path, cut: int) -> None:
    """What did not come is not charged, wherever the bytes are cut."""
    row = {"url": "https://h.example/a", "revised_prompt": '"url" a "b64_json"'}
    data = orjson.dumps({"created": 1, "data": [row]})
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    script = Script(*pieces, headers={"content-type": "application/json"})
    made = await got(tmp_path, channel("openai"), script, GENERATIONS, {**ASKED, "size": "1024x1024"})
    assert made.sink.body == data
    assert made.charged == 100


async def test_pictures_by_the_token(tmp_path: Path) -> None:
    """Where the model has a price by the token, upstream's own count is charged, wherever it stands."""
    usage = {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30, "input_tokens_details": {"text_tokens": 10}}
    early, late = {"usage": usage, "data": [{"b64_json": "Q" * 50_000}]}, {"data": [{"b64_json": "Q"}], "usage": usage}
    for answer in (early, late):
        made = await got(tmp_path, channel("openai"), says(answer), GENERATIONS, ASKED, BY_TOKEN)
        assert made.charged == 10 + 2 * 20


async def test_streamed_pictures(tmp_path: Path) -> None:
    """T-OPEN-018: the events come as upstream sends them, and what the completed one used is charged."""
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    events = [
        {"type": "image_generation.partial_image", "b64_json": "QQ==", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "QUFB", "usage": usage},
    ]
    frames = [b"event: %b\ndata: %b\n\n" % (str(one["type"]).encode(), orjson.dumps(one)) for one in events]
    script = Script(*frames, headers=SSE)
    made = await got(tmp_path, channel("openai"), script, GENERATIONS, {**ASKED, "stream": True}, BY_TOKEN)
    assert made.sink.body == b"".join(frames)
    assert made.sink.headers["content-type"].startswith("text/event-stream")
    assert made.charged == 5 + 2 * 7


@pytest.mark.parametrize("name", ["image", "image[]", "image[1]"])
async def test_edited_pictures(tmp_path: Path, name: str) -> None:
    """Edits and variations send the client's form on, with upstream's name of the model."""
    for surface, path in ((EDITS, "edits"), (VARIATIONS, "variations")):
        body = form(name, b"PNG", model="asked", prompt="more blue", n="2")
        made = await got(tmp_path, channel("openai", "m"), says(TWO), surface, body)
        assert made.url == f"https://h.example/v1/images/{path}"
        assert isinstance(made.sent, Upload)
        assert made.sent.fields == {"model": "m", "prompt": "more blue", "n": 2}
        assert made.sent.files == body.files
        assert (made.sink.body, made.charged) == (TWO, 200)


async def test_imagen(tmp_path: Path) -> None:
    """T-VERT-036: `predict` with sampleCount; `bytesBase64Encoded` becomes b64_json."""
    answer = {"predictions": [{"bytesBase64Encoded": "QUJD", "mimeType": "image/png"}] * 2}
    one = channel("vertex", "imagen-4.0", key="express", options={"project": "p", "region": "r"})
    made = await got(tmp_path, one, says(answer), GENERATIONS, {**ASKED, "size": "1792x1024"})
    assert made.url == f"{VERTEX}imagen-4.0:predict"
    assert orjson.loads(made.sent) == {
        "instances": [{"prompt": "a sea"}],
        "parameters": {"sampleCount": 2, "aspectRatio": "16:9"},
    }
    body = orjson.loads(made.sink.body)
    assert body["data"] == [{"b64_json": "QUJD"}] * 2
    assert made.sink.headers["x-dropped-params"] == "unknown"
    assert made.charged == 2 * 200


async def test_gemini_pictures(tmp_path: Path) -> None:
    """A Gemini that draws is asked by generateContent; its tokens are charged, its words tell the prompt."""
    parts = [{"text": "A wide sea"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    answer = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], "usageMetadata": usage}
    asked = {"model": "asked", "prompt": "a sea", "response_format": "url", "size": "1024x1024"}
    made = await got(tmp_path, channel("gemini", "g-image"), says(answer), GENERATIONS, asked, BY_TOKEN)
    assert made.url == "https://h.example/v1beta/models/g-image:generateContent"
    assert orjson.loads(made.sent)["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "1:1"},
    }
    assert orjson.loads(made.sink.body)["data"] == [
        {"url": "data:image/png;base64,QUJD", "revised_prompt": "A wide sea"}
    ]
    assert made.charged == 3 + 2 * 4
    made = await got(tmp_path, channel("gemini"), says(answer), GENERATIONS, {**asked, "stream": True}, BY_TOKEN)
    event, data = made.sink.body.decode().strip().split("\n")
    assert event == "event: image_generation.completed"
    assert orjson.loads(data.removeprefix("data: "))["b64_json"] == "QUJD"


@pytest.mark.parametrize(
    ("type", "answer"),
    [
        ("openai", {"error": {"message": "no", "code": "moderation_blocked"}}),
        ("gemini", {"candidates": [{"content": {"parts": [{"text": "No."}]}, "finishReason": "STOP"}]}),
        ("gemini", {"predictions": [{"raiFilteredReason": "blocked"}]}),
        ("gemini", {"predictions": []}),
    ],
)
async def test_no_picture_is_an_error(tmp_path: Path, type: str, answer: Tree) -> None:
    """A success without a picture is none, and costs nothing."""
    made = await got(tmp_path, channel(type), says(answer), GENERATIONS, {"model": "asked", "prompt": "x"})
    assert made.sink.status >= 400
    assert orjson.loads(made.sink.body)["error"]["message"]
    assert made.charged == 0


async def test_speech(tmp_path: Path) -> None:
    """T-OPEN-020: the sound comes byte for byte with upstream's content type; its characters are charged."""
    sound = [b"ID3\x04", bytes(range(256)) * 40, b"\xff\xfb end"]
    asked = {"model": "asked", "input": "Gr\u00fc\u00df dich", "voice": "alloy", "response_format": "mp3"}
    made = await got(tmp_path, channel("openai", "tts-9"), Script(*sound, headers=MP3), SPEECH, asked)
    assert (made.sink.status, made.sink.body) == (200, b"".join(sound))
    assert made.sink.headers["content-type"] == "audio/mpeg"
    assert made.url == "https://h.example/v1/audio/speech"
    assert orjson.loads(made.sent) == {**asked, "model": "tts-9"}
    assert made.charged == 14  # 9 characters at 1.5 units, rounded half up


async def test_a_sound_that_breaks_off(tmp_path: Path) -> None:
    """An error cannot be said in a sound: the answer breaks off, and what was delivered is charged."""
    script = Script(b"ID3", UpstreamFailure("gone"), headers=MP3)
    made = await got(tmp_path, channel("openai"), script, SPEECH, {"model": "asked", "input": "a"})
    assert made.sink.body == b"ID3"
    assert not made.sink.ended
    assert made.charged > 0


async def test_speech_as_events(tmp_path: Path) -> None:
    """Events are handed on as well, an error among them is told, and their usage is charged by the token."""
    done = b'data: {"type":"speech.audio.done","usage":{"input_tokens":4,"output_tokens":6,"total_tokens":10}}\n\n'
    asked = {"model": "asked", "input": "one two", "stream_format": "sse"}
    script = Script(b'data: {"type":"speech.audio.delta","audio":"QQ=="}\n\n', done, headers=SSE)
    made = await got(tmp_path, channel("openai"), script, SPEECH, asked, BY_TOKEN)
    assert made.sink.body.endswith(done)
    assert made.charged == 4 + 2 * 6
    script = Script(b'data: {"type":"speech.audio.delta","audio":"QQ=="}\n\n', UpstreamFailure("gone"), headers=SSE)
    made = await got(tmp_path, channel("openai"), script, SPEECH, asked)
    assert b'"error"' in made.sink.body
    assert made.sink.ended


@pytest.mark.parametrize(
    ("told", "units"),
    [
        ({}, 30),
        ({"usage": {"type": "duration", "seconds": 7}}, 70),
        ({"duration": 6.28, "usage": {"type": "duration", "seconds": 7}}, 70),
        ({"duration": 6.28, "language": "german"}, 70),
        ({"duration": "long"}, 30),
        ({"duration": -1}, 30),
        ({"duration": 1e300}, 30),
    ],
)
async def test_transcription(tmp_path: Path, told: Tree, units: int) -> None:
    """T-OPEN-019: seconds are charged, as upstream measured them, else as long as the file is."""
    answer = orjson.dumps({"text": "words", **told})
    body = form(content=wav(3), model="asked", language="de")
    made = await got(tmp_path, channel("openai", "whisper-9"), says(answer), TRANSCRIPTIONS, body)
    assert (made.sink.status, made.sink.body) == (200, answer)
    assert made.url == "https://h.example/v1/audio/transcriptions"
    assert made.sent.fields == {"model": "whisper-9", "language": "de"}
    assert made.charged == units


async def test_subtitles(tmp_path: Path) -> None:
    """Text comes as text, and a translation goes to its own address."""
    body = form(content=wav(1), model="asked", response_format="vtt")
    script = Script(b"WEBVTT\n", headers={"content-type": "text/vtt"})
    made = await got(tmp_path, channel("openai"), script, TRANSLATIONS, body)
    assert made.sink.body == b"WEBVTT\n"
    assert made.sink.headers["content-type"].startswith("text/vtt")
    assert made.url.endswith("/v1/audio/translations")


async def test_streamed_transcription(tmp_path: Path) -> None:
    """Words come as events; tokens that the last one tells are charged where the model is priced by them."""
    frames = [
        b'data: {"type":"transcript.text.delta","delta":"wo"}\n\n',
        b'data: {"type":"transcript.text.done","text":"wo","usage":{"type":"tokens","input_tokens":9,"output_tokens":1,'
        b'"total_tokens":10}}\n\n',
    ]
    body = form(content=wav(1), model="asked", stream="true")
    made = await got(tmp_path, channel("openai"), Script(*frames, headers=SSE), TRANSCRIPTIONS, body, BY_TOKEN)
    assert made.sink.body == b"".join(frames)
    assert made.charged == 9 + 2 * 1


async def test_cloudflare_hears_bytes(tmp_path: Path) -> None:
    """T-CLFL-007: the file's bytes alone go up, `result.text` comes back."""
    sound = wav(2)
    one = channel("cloudflare", "@cf/openai/whisper", options={"account": "a"})
    answer = {"result": {"text": "words", "word_count": 1}, "success": True}
    made = await got(tmp_path, one, says(answer), TRANSCRIPTIONS, form(content=sound, model="asked", language="de"))
    assert made.url == "https://h.example/client/v4/accounts/a/ai/run/@cf/openai/whisper"
    assert made.sent == sound
    assert orjson.loads(made.sink.body) == {"text": "words"}
    assert made.sink.headers["x-dropped-params"] == "language"
    assert made.charged == 20


@pytest.mark.parametrize(
    ("surface", "body", "param"),
    [
        (GENERATIONS, {"model": "asked"}, "prompt"),
        (GENERATIONS, {"model": "asked", "prompt": 5}, "prompt"),
        (GENERATIONS, {"model": "asked", "prompt": "x", "n": 0}, "n"),
        (GENERATIONS, {"model": "asked", "prompt": "x", "size": "512\u00d7512"}, "size"),
        (EDITS, form(model="asked", prompt="x"), "image"),
        (EDITS, {"model": "asked", "prompt": "x"}, "image"),
        (SPEECH, {"model": "asked"}, "input"),
        (SPEECH, {"input": "x"}, "model"),
        (SPEECH, {"model": "asked", "input": ["x"]}, "input"),
        (TRANSCRIPTIONS, form(model="asked"), "file"),
        (TRANSCRIPTIONS, form(content=b"x"), "model"),
        (TRANSCRIPTIONS, {"model": "asked"}, "file"),
    ],
)
async def test_bad_requests(tmp_path: Path, surface: Surface, body: Tree | Form, param: str) -> None:
    """What is missing or wrong is named before anybody is asked."""
    made = await got(tmp_path, channel("openai"), says({}), surface, body)
    assert made.sink.status in (400, 415)
    assert orjson.loads(made.sink.body)["error"]["param"] == param
    assert made.url == ""


async def test_the_next_channel_gets_it(tmp_path: Path) -> None:
    """A failure before the first byte moves on with the same form."""
    first = msgspec.structs.replace(channel("openai"), name="first", priority=1)
    scripts = (says({"error": {"message": "busy"}}, 503), says({"text": "words"}))
    async with stage(tmp_path, (first, channel("groq")), *scripts, prices=BY_PIECE) as made:
        sink = await asyncio.wait_for(posted(made, TRANSCRIPTIONS, form(content=wav(1), model="asked")), 10)
        assert orjson.loads(sink.body) == {"text": "words"}
        assert await charged(made) == 10


@pytest.mark.parametrize("type", ["azure", "groq", "mistral", "siliconflow", "zhipu", "xai", "volcengine"])
async def test_where_others_have_them(tmp_path: Path, type: str) -> None:
    """Each type's own path."""
    paths = {
        "azure": (GENERATIONS, "https://h.example/openai/deployments/m/images/generations?api-version=v"),
        "groq": (TRANSCRIPTIONS, "https://h.example/v1/audio/transcriptions"),
        "mistral": (TRANSCRIPTIONS, "https://h.example/v1/audio/transcriptions"),
        "siliconflow": (SPEECH, "https://h.example/v1/audio/speech"),
        "zhipu": (GENERATIONS, "https://h.example/api/paas/v4/images/generations"),
        "xai": (GENERATIONS, "https://h.example/v1/images/generations"),
        "volcengine": (GENERATIONS, "https://h.example/api/v3/images/generations"),
    }
    surface, url = paths[type]
    bodies: dict[Any, Tree | Form] = {
        GENERATIONS: {"model": "asked", "prompt": "x"},
        SPEECH: {"model": "asked", "input": "x"},
        TRANSCRIPTIONS: form(content=wav(1), model="asked"),
    }
    one = channel(type, "m", options={"api_version": "v"} if type == "azure" else {})
    body = next(body for known, body in bodies.items() if known is surface)
    made = await got(tmp_path, one, says({"data": [{"url": "u"}], "text": "x"}), surface, body)
    assert (made.sink.status, made.url) == (200, url)
