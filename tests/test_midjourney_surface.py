"""Midjourney's client format and upstream format by themselves: buttons to actions, actions to models, odd answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from newapi_proxy.adapters.base import Target
from newapi_proxy.adapters.midjourney import TASKS, MidjourneyOptions
from newapi_proxy.errors import ClientError, UpstreamFailure
from newapi_proxy.ir.task import Form
from newapi_proxy.secret import Secret
from newapi_proxy.surfaces import midjourney


@pytest.mark.parametrize(
    ("custom_id", "action"),
    [
        ("MJ::JOB::upsample::2::3dbb-uuid", "UPSCALE"),
        ("MJ::JOB::upsample_v6_2x_subtle::1::uuid::SOLO", "UPSCALE"),
        ("MJ::JOB::variation::4::uuid", "VARIATION"),
        ("MJ::JOB::low_variation::1::uuid::SOLO", "LOW_VARIATION"),
        ("MJ::JOB::high_variation::1::uuid::SOLO", "HIGH_VARIATION"),
        ("MJ::JOB::reroll::0::uuid::SOLO", "REROLL"),
        ("MJ::JOB::pan_left::1::uuid::SOLO", "PAN"),
        ("MJ::Outpaint::50::1::uuid::SOLO", "ZOOM"),
        ("MJ::CustomZoom::uuid", "CUSTOM_ZOOM"),
        ("MJ::Inpaint::1::uuid::SOLO", "INPAINT"),
        ("MJ::JOB::animate_high::1::uuid::SOLO", "VIDEO"),
    ],
)
def test_buttons(custom_id: str, action: str) -> None:
    """Each button means its action (1.5)."""
    assert midjourney.parsed(custom_id) == action


@pytest.mark.parametrize(
    ("custom_id", "description"),
    [
        ("MJ::Job::PicReader::all", "unknown_action:MJ::Job::PicReader::all"),
        ("MJ::JOB::other_variation::1::u", "unknown_action:MJ::JOB::other_variation::1::u"),
        ("MJ::JOB::upsample::x::uuid", "index_parse_failed"),
        ("MJ::JOB::upsample", "index_parse_failed"),
        ("garbage", "unknown_action:garbage"),
        ("MJ::::", "unknown_action:MJ::::"),
        ("MJ::JOB", "unknown_action:MJ::JOB"),
        ("", "custom_id_is_required "),
    ],
)
def test_other_buttons(custom_id: str, description: str) -> None:
    """What means none is a refusal with code 4, never a crash."""
    with pytest.raises(ClientError) as caught:
        midjourney.parsed(custom_id)
    assert (caught.value.message, caught.value.code, caught.value.status) == (description, 4, 400)


@pytest.mark.parametrize(
    ("content", "action"), [("1 U1", "UPSCALE"), ("1 v4", "VARIATION"), ("1 R", "REROLL"), ("1 r", "REROLL")]
)
def test_simple_changes(content: str, action: str) -> None:
    """The short form names the origin and one letter."""
    form = midjourney.read("/submit/simple-change", orjson.dumps({"content": content}))
    assert (form.action, form.origin) == (action, "1")


@pytest.mark.parametrize("content", ["1", "1 ", "1  U1", "1 U0", "1 U5", "1 u12", "1 X", "1 U1 2", "", "U1"])
def test_other_simple_changes(content: str) -> None:
    """Anything else is refused; the index is a whole word."""
    with pytest.raises(ClientError):
        midjourney.read("/submit/simple-change", orjson.dumps({"content": content}))


def test_reroll_needs_no_index() -> None:
    """REROLL has no picture of the four; the others do, in any case of the action's letters."""
    assert midjourney.read("/submit/change", b'{"taskId":"1","action":"reroll"}').model == "mj_reroll"
    assert midjourney.read("/submit/change", b'{"taskId":"1","action":"upscale","index":4}').action == "UPSCALE"


@pytest.mark.parametrize(
    ("action", "model"), [("IMAGINE", "mj_imagine"), ("SWAP_FACE", "swap_face"), ("UPLOAD", "mj_upload")]
)
def test_models(action: str, model: str) -> None:
    """The model is the action's name, but for swaps."""
    assert midjourney.model(action) == model


def answered(code: Any, status: int = 200, action: str = "IMAGINE", **more: Any) -> Any:
    """What an answer with this code means."""
    form = Form(action=action, model="m", path="/p", body={}, opens=action == "INPAINT")
    return TASKS.submitted(form, status, orjson.dumps({"code": code, "description": "d", "result": "7", **more}))


def test_codes() -> None:
    """Accepted are 1, 21 and 22; a window that opens keeps its 21; nested codes are nobody's business."""
    assert [answered(code).accepted for code in (1, 21, 22, 3, 4, 9, 23, 24, 210)] == [True] * 3 + [False] * 6
    assert orjson.loads(answered(22, properties={"code": 22}).reply) == {
        "code": 1, "description": "d", "result": "7", "properties": {"code": 22},
    }  # fmt: skip
    assert orjson.loads(answered(21, action="INPAINT").reply)["code"] == 21
    assert not answered(1, status=500).accepted
    assert answered(3).exhausted
    assert answered(1).task_id == "7"
    assert answered(1, result=7).task_id == "7"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"", 502),
        (200, b"", 502),
        (403, b'{"code":1}', 502),
        (200, b"<html>", 400),
        (200, b"[]", 400),
        (200, b'{"code":"1"}', 400),
        (200, b'{"code":true}', 400),
        (429, b'{"code":30,"description":"x"}', 429),
    ],
)
def test_unusable_answers(status: int, body: bytes, told: int) -> None:
    """What is no answer is a failure, and never a 401 of our own."""
    with pytest.raises(UpstreamFailure) as caught:
        TASKS.submitted(Form(action="IMAGINE", model="m", path="/p", body={}), status, body)
    assert caught.value.status == told
    assert orjson.loads(midjourney.failure(caught.value, "r"))["code"] in (5, 30)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"{}", b'"x"', b"<html>"])
def test_unusable_lists(body: bytes) -> None:
    """What is no list says nothing."""
    assert TASKS.polled(200, body) is None
    assert TASKS.polled(500, b"[]") is None


def test_lists() -> None:
    """A reason without an end is a failure, CANCEL is one too, null is nothing, and odd items are passed over."""
    items = [
        {"id": "1", "status": "FAILURE", "progress": "", "failReason": "no"},
        {"id": "2", "status": "CANCEL", "progress": "0%", "failReason": None},
        {"id": "3", "status": "IN_PROGRESS", "progress": "31%", "failReason": "odd", "submitTime": None},
        {"id": "4", "status": "SUCCESS", "progress": "100%", "failReason": "", "buttons": [{"customId": "x"}]},
        {"id": 5},
        None,
        "x",
    ]
    found = TASKS.polled(200, orjson.dumps(items))
    assert found is not None
    assert [(one.task_id, one.status) for one in found] == [
        ("1", "FAILURE"), ("2", "FAILURE"), ("3", "FAILURE"), ("4", "SUCCESS"),
    ]  # fmt: skip
    assert found[3].buttons == '[{"customId":"x"}]'


def test_seed_stays_on_its_path() -> None:
    """An id that upstream made up cannot lead elsewhere on upstream's server."""
    to = Target(channel="c", base_url="http://h", key=Secret("k"), model="", options=MidjourneyOptions())
    assert TASKS.seed is not None
    assert TASKS.seed("../x?y", to).url == "http://h/mj/task/..%2Fx%3Fy/image-seed"
