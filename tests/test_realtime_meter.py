"""What the meter of realtime sessions understands of both generations' events, and of what is no event at all."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest

from newapi_proxy.adapters._openai_realtime import SessionMeter
from newapi_proxy.adapters.base import Options, Target
from newapi_proxy.ir.session import Moment
from newapi_proxy.ir.usage import Usage
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces.realtime import REALTIME

TO: Final = Target(channel="c", base_url="https://h", key=Secret("k"), model="gpt-realtime", options=Options())
SECOND: Final = "A" * 64_000  # of PCM, as base64


def meter(asked: str = "gpt-realtime") -> SessionMeter:
    """A fresh one."""
    return SessionMeter(REALTIME.read(b"", {":query": f"model={asked}"}), TO)


def up(event: Any, one: SessionMeter | None = None) -> Moment | None:
    """What a client's message means."""
    return (one or meter()).up(event if isinstance(event, bytes) else orjson.dumps(event))


def down(event: Any, one: SessionMeter | None = None) -> Moment | None:
    """What a provider's message means."""
    return (one or meter()).down(event if isinstance(event, bytes) else orjson.dumps(event))


@pytest.mark.parametrize("kind", ["response.audio.delta", "response.output_audio.delta"])
@pytest.mark.parametrize(
    ("session", "milliseconds"),
    [
        (None, 1000),
        ({"output_audio_format": "pcm16"}, 1000),
        ({"output_audio_format": "g711_ulaw"}, 6000),
        ({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}}, 1000),
        ({"audio": {"output": {"format": {"type": "audio/pcma"}}}}, 6000),
    ],
)
def test_sound_by_its_format(kind: str, session: Any, milliseconds: int) -> None:
    """Sound is measured by the format that the session has."""
    one = meter()
    if session is not None:
        down({"type": "session.updated", "session": session}, one)
    told = down({"type": kind, "delta": SECOND, "response_id": "r"}, one)
    assert told == Moment(kind="part", response="r", sound=milliseconds)


@pytest.mark.parametrize(
    "kind",
    [
        "response.text.delta",
        "response.output_text.delta",
        "response.audio_transcript.delta",
        "response.output_audio_transcript.delta",
        "response.function_call_arguments.delta",
    ],
)
def test_text(kind: str) -> None:
    """Every kind of text counts."""
    assert down({"type": kind, "delta": "héé\n"}) == Moment(kind="part", text="héé\n")


def test_what_clients_say() -> None:
    """Sound, items, instructions."""
    part = {"type": "input_text", "text": "one"}
    sound = {"type": "input_audio", "audio": SECOND, "transcript": "two"}
    item = {"type": "message", "content": [part, sound, None, 5]}
    output = {"type": "function_call_output", "output": "three"}
    assert up({"type": "input_audio_buffer.append", "audio": SECOND}) == Moment(kind="said", sound=1000)
    assert up({"type": "conversation.item.create", "item": item}) == Moment(kind="said", text="one\ntwo", sound=1000)
    assert up({"type": "conversation.item.create", "item": output}) == Moment(kind="said", text="three")
    assert up({"type": "response.create", "response": {"instructions": "x"}}) == Moment(kind="said", text="x")
    assert up({"type": "response.cancel"}) is None


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (
            {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
            Usage(prompt=10, completion=5),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "input_token_details": {
                    "text_tokens": 30,
                    "audio_tokens": 60,
                    "image_tokens": 10,
                    "cached_tokens": 50,
                    "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 32, "image_tokens": 8},
                },
                "output_token_details": {"text_tokens": 4, "audio_tokens": 16},
            },
            Usage(prompt=100, completion=20, cache_read=50, audio_in=28, image_in=2, audio_out=16),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"input_tokens": -4, "output_tokens": 5}, None),
        ({"input_tokens": "many", "output_tokens": 5}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage(told: Any, usage: Usage | None) -> None:
    """Cached parts are taken out of the kinds that they are told in; what cannot be is nothing."""
    found = down({"type": "response.done", "response": {"id": "r", "usage": told}})
    assert found == Moment(kind="done", response="r", usage=usage)


@pytest.mark.parametrize(
    "session",
    [
        {"input_audio_transcription": {"model": "whisper-1"}},
        {"audio": {"input": {"transcription": {"model": "whisper-1"}}}},
    ],
)
def test_the_listener(session: Any) -> None:
    """A transcription costs under the name of the model that makes it, by tokens or by its length."""
    one = meter()
    down({"type": "session.updated", "session": session}, one)
    kind = "conversation.item.input_audio_transcription.completed"
    tokens = {"type": "tokens", "input_tokens": 3, "output_tokens": 2}
    assert down({"type": kind, "usage": tokens}, one) == Moment(
        kind="side", model="whisper-1", usage=Usage(prompt=3, completion=2)
    )
    length = down({"type": kind, "usage": {"type": "duration", "seconds": 61.2}}, one)
    assert length == Moment(kind="side", model="whisper-1", usage=Usage(prompt=1020, audio_in=1020))
    assert down({"type": kind, "transcript": "x"}, one) is None


def test_names() -> None:
    """A mapped name stands in for upstream's towards the client, and upstream's for whatever the client names."""
    one = meter("asked")
    told = down({"type": "session.created", "n": 1, "session": {"model": "gpt-realtime-2025", "voice": "v"}}, one)
    assert told is not None
    assert told.data is not None
    assert orjson.loads(told.data) == {"type": "session.created", "n": 1, "session": {"model": "asked", "voice": "v"}}
    said = up({"type": "session.update", "session": {"model": "asked"}}, one)
    assert said is not None
    assert said.data is not None
    assert orjson.loads(said.data)["session"] == {"model": "gpt-realtime"}
    plain = down({"type": "session.created", "session": {"model": "gpt-realtime-2025"}})
    assert plain == Moment()


def test_names_and_faults_nested_too_deep() -> None:
    """What cannot be written again is left out: names and words are still what they should be."""
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    one = meter("asked")
    for told, name in (
        (one.down(b'{"type":"session.updated","session":{"model":"gpt-realtime","tools":[' + deep + b"]}}"), "asked"),
        (one.up(b'{"type":"session.update","session":{"model":"dearer","tools":[' + deep + b"]}}"), "gpt-realtime"),
    ):
        assert told is not None
        assert told.data is not None
        assert orjson.loads(told.data)["session"] == {"model": name}
    fault = one.down(b'{"type":"error","error":{"type":"t","message":"org-abcdefgh12 may not","x":' + deep + b"}}")
    assert fault is not None
    assert fault.data == b'{"type":"error","error":{"message":"*** may not"}}'


def test_faults() -> None:
    """An error names no account; one of the channel's key is upstream's failure."""
    told = {"type": "invalid_request_error", "code": "x", "message": "Organization org-abcdefgh12 may not"}
    moment = down({"type": "error", "error": told})
    assert moment is not None
    assert moment.data is not None
    assert b"org-abc" not in moment.data
    assert moment.failure is not None
    assert moment.failure.blames == "nobody"
    own = down(
        {"type": "error", "error": {"type": "invalid_request_error", "code": "invalid_api_key", "message": "no"}}
    )
    assert own is not None
    assert own.failure is not None
    assert (own.failure.blames, own.failure.code) == ("key", "upstream_credentials")


ODD: Final = [None, True, 5, -1.5, "x", "", [], [None, {}], {}, {"type": 5}, {"x": {"y": []}}, "é" * 50]
KINDS: Final = [
    "error", "session.created", "session.updated", "response.created", "response.done", "response.audio.delta",
    "response.text.delta", "conversation.item.input_audio_transcription.completed", "input_audio_buffer.append",
    "conversation.item.create", "response.create", "session.update", "unknown", "", 5, None,
]  # fmt: skip
FIELDS: Final = ["audio", "delta", "item", "response", "session", "usage", "error"]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_events(kind: Any) -> None:
    """Whatever stands in an event's fields, the meter says something or nothing, and goes on."""
    for field in FIELDS:
        for value in ODD:
            for inner in (value, {"usage": value, "model": value, "content": value, "audio": value, "message": value}):
                event = orjson.dumps({"type": kind, field: inner})
                one = meter("asked")
                one.up(event)
                one.down(event)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"[]", b"5", b"\xff\xfe", b'{"type":', b'{"a":' * 200_000, b'{"type":"error","error":' + b"[" * 9_000],
)
def test_what_is_no_event(data: bytes) -> None:
    """It passes as it is."""
    assert up(data) is None
    assert down(data) is None
