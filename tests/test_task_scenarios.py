"""The worked scenarios of tasks and accounts (13.7), with their exact numbers, over HTTP against the fakes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from newapi_proxy.config.model import Group
from newapi_proxy.tasks.poller import adopt
from tests.fakes import midjourney
from tests.fakes.midjourney import Midjourney
from tests.fakes.suno import Suno
from tests.fakes.task_world import BOB, NOW, START, World, drawing

IMAGINE = 50_000  # 0.1 USD
UPSCALE = 25_000


async def imagined(one: World, mj: Midjourney, prompt: str = "cat") -> str:
    """A finished picture's task; its id."""
    answer = await one.post("/mj/submit/imagine", {"prompt": prompt})
    assert answer.tree["code"] == 1
    mj.tick(5)
    await one.poll()
    return str(answer.tree["result"])


async def fetched(one: World, id: str) -> dict[str, Any]:
    """The task as its owner sees it."""
    answer = await one.get(f"/mj/task/{id}/fetch")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    return dict(answer.tree)


async def test_1_imagine(one: World, mj: Midjourney) -> None:
    """A picture is paid for once, its preview and its end are seen in two polls."""
    await one.reload(public_url="https://gw.example.org/")
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"})
    id = answer.tree["result"]
    assert (answer.status, answer.tree["code"], answer.tree["properties"]) == (200, 1, {"discordInstanceId": "111"})
    assert one.money() == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)
    mj.tick(2)
    await one.poll()
    task = await fetched(one, id)
    assert (task["status"], task["progress"]) == ("IN_PROGRESS", "31%")
    assert task["imageUrl"].startswith(f"https://gw.example.org/mj/image/{id}?rand=")
    mj.tick(2)
    await one.poll()
    task = await fetched(one, id)
    assert (task["status"], task["progress"], task["action"]) == ("SUCCESS", "100%", "IMAGINE")
    assert task["imageUrl"] == f"https://gw.example.org/mj/image/{id}"
    assert task["properties"] == {"finalPrompt": "1. cat", "finalZhPrompt": ""}
    assert task["buttons"][0]["customId"].startswith("MJ::JOB::upsample::1::")
    assert task["description"] == "提交成功"
    (log,) = one.logs(2)
    assert log["content"] == f"model price 0.10, group ratio 1.00, action IMAGINE, ID {id}"
    assert (log["model_name"], log["quota"], log["channel_id"], log["prompt_tokens"]) == ("mj_imagine", IMAGINE, 4, 0)
    assert log["other"] == '{"model_price":0.1,"group_ratio":1.0}'
    assert one.money() == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)


async def test_2_failure(one: World, mj: Midjourney) -> None:
    """A picture that fails gives everything back to where it came from, once."""
    answer = await one.post("/mj/submit/imagine", {"prompt": "[fail]"})
    mj.tick(2)
    await one.poll()
    task = await fetched(one, answer.tree["result"])
    assert (task["status"], task["progress"], task["failReason"]) == ("FAILURE", "100%", "The job failed.")
    assert one.money() == (START, 0, START, 0, 0)
    for _ in range(3):
        await one.poll()
    (log,) = one.logs(6)
    assert (log["quota"], log["user_id"], log["token_id"], log["model_name"]) == (IMAGINE, 7, 9, "mj_imagine")
    assert one.money() == (START, 0, START, 0, 0)


async def test_3_queued(one: World, mj: Midjourney) -> None:
    """Queued is accepted: the client sees 1, the row 22 until the first poll, and it is charged once."""
    mj.knobs.code = 22
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"})
    assert (answer.tree["code"], answer.tree["properties"]["code"]) == (1, 22)
    assert [row["code"] for row in one.rows("SELECT code FROM midjourneys")] == [22]
    await one.poll()
    assert [row["code"] for row in one.rows("SELECT code FROM midjourneys")] == [1]
    mj.tick(5)
    await one.poll()
    assert one.money()[:2] == (START - IMAGINE, IMAGINE)


@pytest.mark.parametrize("code", [23, 24, 4, 3, 9, 5])
@pytest.mark.parametrize("named", [False, True])
async def test_4_refused(one: World, mj: Midjourney, code: int, named: bool) -> None:
    """What upstream refuses comes as it is, is kept with its reason, costs nothing and is never given back."""
    mj.knobs.code, mj.knobs.refused_id = code, named
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"})
    assert (answer.status, answer.tree["code"], answer.tree["description"]) == (200, code, f"refused with {code}")
    (row,) = one.rows("SELECT code, fail_reason, quota, progress, status FROM midjourneys")
    assert (row["code"], row["fail_reason"], row["quota"]) == (code, f"refused with {code}", 0)
    for life in mj.lives.values():
        life.forced = {"status": "FAILURE", "progress": "", "failReason": "late"}
    await one.poll()
    await one.poll()
    assert one.money() == (START, 0, START, 0, 0)
    assert one.logs(2) == one.logs(6) == []


async def test_5_upscale(one: World, mj: Midjourney, songs: Suno) -> None:
    """A follow-up goes to the origin's channel, whatever has more priority; repeated it is paid again, done at once."""
    id = await imagined(one, mj)
    async with midjourney.serving() as other:
        config = one.house.snapshot.config
        await one.reload(channels=(*config.channels, drawing(other.url, "better", priority=10)))
        body = {"customId": "MJ::JOB::upsample::2::u", "taskId": id}
        answer = await one.post("/mj/submit/action", body)
        assert answer.tree["code"] == 1
        assert one.money()[0] == START - IMAGINE - UPSCALE
        assert one.logs(2)[-1]["model_name"] == "mj_upscale"
        assert other.seen == []
        mj.tick(5)
        await one.poll()
        again = await one.post("/mj/submit/action", body)
        assert (again.tree["code"], again.tree["result"]) == (1, answer.tree["result"])
        assert one.money()[0] == START - IMAGINE - 2 * UPSCALE
        row = one.rows("SELECT * FROM midjourneys ORDER BY id")[-1]
        assert (row["code"], row["status"], row["progress"]) == (21, "SUCCESS", "100%")
        assert row["start_time"] or row["finish_time"]
        assert other.seen == []
        assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).tree["code"] == 1
        assert len(other.seen) == 1


async def test_6_modal(one: World, mj: Midjourney) -> None:
    """Opening a window costs nothing and stays code 21; the modal that completes it is paid."""
    id = await imagined(one, mj)
    opened = await one.post("/mj/submit/action", {"customId": "MJ::Inpaint::1::u::SOLO", "taskId": id})
    assert (opened.tree["code"], opened.tree["description"]) == (21, "Waiting for window confirm")
    assert [row["quota"] for row in one.rows("SELECT quota FROM midjourneys ORDER BY id")] == [IMAGINE, 0]
    assert one.money()[0] == START - IMAGINE
    await one.poll()
    waiting = opened.tree["result"]
    modal = await one.post("/mj/submit/modal", {"taskId": waiting, "prompt": "a hat", "maskBase64": "x"})
    assert modal.tree["code"] == 1
    assert one.money()[0] == START - 2 * IMAGINE
    assert one.logs(2)[-1]["model_name"] == "mj_modal"
    assert one.rows("SELECT prompt FROM midjourneys ORDER BY id")[-1]["prompt"] == "a hat"
    mj.tick(5)
    await one.poll()
    assert {row["status"] for row in one.rows("SELECT status FROM midjourneys")} == {"SUCCESS"}
    assert (await fetched(one, waiting))["status"] == "SUCCESS"


async def test_7_simple_change(one: World, mj: Midjourney) -> None:
    """`<id> V3` is a variation, sent on to its own path as it came."""
    id = await imagined(one, mj)
    answer = await one.post("/mj/submit/simple-change", {"content": f"{id} V3"})
    assert answer.tree["code"] == 1
    row = one.rows("SELECT action, quota, prompt FROM midjourneys ORDER BY id")[-1]
    assert row == {"action": "VARIATION", "quota": IMAGINE, "prompt": "cat"}
    assert mj.submits[-1].path == "/mj/submit/simple-change"
    assert mj.submits[-1].body == {"content": f"{id} V3"}


async def test_8_swap_without_target(one: World, mj: Midjourney) -> None:
    """A swap needs two faces; without them upstream hears nothing."""
    answer = await one.post("/mj/insight-face/swap", {"sourceBase64": "x"})
    assert (answer.status, answer.tree["code"]) == (400, 4)
    assert answer.tree["description"] == "sour_base64_and_target_base64_is_required "
    assert answer.tree["type"] == "upstream_error"
    assert mj.seen == []
    answer = await one.post("/mj/insight-face/swap", {"sourceBase64": "x", "targetBase64": "y"})
    assert list(answer.tree) == ["code", "description", "properties", "result"]
    (row,) = one.rows("SELECT action, prompt, quota FROM midjourneys")
    assert row == {"action": "SWAP_FACE", "prompt": "InsightFace", "quota": UPSCALE}


async def test_9_somebody_elses(one: World, mj: Midjourney) -> None:
    """Another user's task is not found."""
    id = await imagined(one, mj)
    answer = await one.get(f"/mj/task/{id}/fetch", key=BOB)
    assert (answer.status, answer.tree) == (
        400,
        {"description": "task_no_found ", "type": "upstream_error", "code": 4},
    )


async def test_10_music(one: World, songs: Suno) -> None:
    """A song has two clips when it is done; both ways to ask agree."""
    answer = await one.post("/suno/submit/music", {"prompt": "la", "title": "t", "tags": "pop"})
    assert (answer.status, answer.tree["code"], answer.tree["message"]) == (200, "success", "")
    assert one.money(channel=5) == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)
    assert songs.submits[-1].path == "/suno/submit/MUSIC"
    assert songs.submits[-1].body == {
        "mv": "chirp-v3-0", "prompt": "la", "title": "t", "tags": "pop", "make_instrumental": False,
    }  # fmt: skip
    songs.tick(3)
    await one.poll()
    id = answer.tree["data"]
    got = (await one.get(f"/suno/fetch/{id}")).tree
    posted = (await one.post("/suno/fetch", {"ids": [id], "action": ""})).tree
    assert (got["code"], posted["data"]) == ("success", [got["data"]])
    task = got["data"]
    assert (task["task_id"], task["action"], task["status"], task["progress"]) == (id, "MUSIC", "SUCCESS", "100%")
    assert len(task["data"]) == 2
    assert one.logs(2)[0]["content"] == f"model price 0.10, group ratio 1.00, action MUSIC, ID {id}"


async def test_11_lyrics_without_prompt(one: World, songs: Suno) -> None:
    """Lyrics need a prompt."""
    answer = await one.post("/suno/submit/lyrics", {})
    assert (answer.status, answer.tree) == (400, {"code": "invalid_request", "message": "prompt_empty", "data": None})
    assert songs.seen == []


async def test_12_refused_song(one: World, songs: Suno) -> None:
    """What upstream refuses is told in its own words, is not charged, and leaves no row."""
    songs.knobs.code, songs.knobs.message = "invalid_request", "tags too long"
    answer = await one.post("/suno/submit/music", {"prompt": "la"})
    assert (answer.status, answer.tree) == (
        500,
        {"code": "invalid_request", "message": "tags too long", "data": None},
    )
    assert one.money(channel=5) == (START, 0, START, 0, 0)
    assert one.rows("SELECT * FROM tasks") == one.logs(2) == []


async def test_15_what_the_key_sees(one: World, mj: Midjourney) -> None:
    """After one picture of 0.1 USD the key's holder reads a limit of 1 and a use of 10 cents."""
    await imagined(one, mj)
    limit = (await one.get("/v1/dashboard/billing/subscription")).tree
    use = (await one.get("/v1/dashboard/billing/usage")).tree
    assert (limit["hard_limit_usd"], use["total_usage"]) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("price", "ratio", "units"),
    [
        (0.1, 1, 50_000),
        (0.05, 1.1, 27_500),
        (0.1, 0.8, 40_000),
        (0.01, 0.35, 1_750),
        (0.01, 0.7, 3_500),
        (0.01, 1.4, 7_000),
        (0.02, 0.35, 3_500),
    ],
)
async def test_exact_prices(one: World, mj: Midjourney, price: float, ratio: float, units: int) -> None:
    """Price times ratio is exact, never truncated (13.6, T-20)."""
    await one.reload(prices={"mj_imagine": {"call": price}}, groups={"default": Group(ratio=ratio)})
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).tree["code"] == 1
    assert one.money()[0] == START - units


@pytest.mark.parametrize("prompt", ["cat", "[fail]"])
async def test_what_new_api_had_begun(one: World, mj: Midjourney, prompt: str) -> None:
    """A picture that was under way when its database came here is finished for its owner, or paid back."""
    id = (await one.post("/mj/submit/imagine", {"prompt": prompt})).tree["result"]
    with closing(sqlite3.connect(one.path)) as conn, conn:  # as New API leaves it: its row and its sums
        conn.executescript("DELETE FROM proxy_tasks; DELETE FROM ledger; DELETE FROM logs")
        conn.execute("UPDATE proxy_upgrades SET at = ?", (int(NOW) + 60,))
    mj.tick(5)
    await one.poll()
    assert (await fetched(one, id))["progress"] != "100%"
    await adopt(one.desk, one.house.snapshot)
    for _ in range(2):
        await one.poll()
    task = await fetched(one, id)
    failed = prompt == "[fail]"
    assert (task["status"], task["progress"]) == ("FAILURE" if failed else "SUCCESS", "100%")
    assert one.money() == ((START, 0, START, 0, 0) if failed else (START - IMAGINE, IMAGINE) * 2 + (IMAGINE,))
    assert [log["quota"] for log in one.logs(6)] == ([IMAGINE] if failed else [])
