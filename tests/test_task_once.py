"""Submissions of tasks under an idempotency key: one task and one charge, the same words for whoever asks again."""

from __future__ import annotations

import asyncio

from tests.fakes.midjourney import Midjourney
from tests.fakes.suno import Suno
from tests.fakes.task_world import START, World

IMAGINE = 50_000
KEY = {"Idempotency_Key": "k"}


async def test_a_picture_again(one: World, mj: Midjourney) -> None:
    """The same submission again names the same task, makes no other, and costs nothing; another one is refused."""
    first = await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)
    again = await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)
    assert first.tree["code"] == 1
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(one.rows("SELECT id FROM midjourneys")) == 1
    assert one.money() == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)
    for path, prompt in {"/mj/submit/imagine": "dog", "/mj-fast/mj/submit/imagine": "cat"}.items():
        assert (await one.post(path, {"prompt": prompt}, **KEY)).status == 422


async def test_a_song_again(one: World, songs: Suno) -> None:
    """Suno's words as well; the route's action is a part of what was asked."""
    first, again = [await one.post("/suno/submit/music", {"prompt": "la"}, **KEY) for _ in range(2)]
    assert first.tree["code"] == "success"
    assert again.body == first.body
    assert len(one.rows("SELECT id FROM tasks")) == 1
    assert (await one.post("/suno/submit/lyrics", {"prompt": "la"}, **KEY)).status == 422


async def test_what_was_not_accepted(one: World, mj: Midjourney) -> None:
    """A refusal costs nothing, so the key is free for another try."""
    mj.knobs.status_500 = True
    assert (await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)).status == 400
    mj.knobs.status_500 = False
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)
    assert (answer.tree["code"], "idempotent-replayed" in answer.headers) == (1, False)


async def test_while_the_first_runs(one: World, mj: Midjourney) -> None:
    """A copy in between is told to come back, in the format's words."""
    mj.knobs.hang = True
    running = asyncio.ensure_future(one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY))
    await asyncio.wait_for(mj.arrived.wait(), 10)
    copy = await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)
    assert (copy.status, copy.headers["retry-after"]) == (409, "1")
    mj.released.set()
    assert (await running).tree["code"] == 1
    assert (await one.post("/mj/submit/imagine", {"prompt": "cat"}, **KEY)).headers["idempotent-replayed"] == "true"


async def test_the_file_may_switch_it_off(one: World, mj: Midjourney) -> None:
    """Then the header means nothing."""
    config = one.house.snapshot.config
    await one.reload(idempotency=type(config.idempotency)(enabled=False))
    for prompt in ("cat", "dog"):
        assert (await one.post("/mj/submit/imagine", {"prompt": prompt}, **KEY)).tree["code"] == 1
