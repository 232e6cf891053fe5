"""The traps of tasks and accounts (12) that concern tasks: each would cost money, trust or a process."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

import msgspec
import orjson
import pytest
from sqlalchemy import update

from newapi_proxy.billing import ledger
from newapi_proxy.config.model import Limits, Relay, Token
from newapi_proxy.daemon.drain import drain
from newapi_proxy.secret import Secret
from newapi_proxy.store import channels as channel_rows
from newapi_proxy.store.schema import tokens as token_table
from newapi_proxy.store.schema import users as user_table
from newapi_proxy.tasks.poller import FORGOTTEN, poll_once
from tests.fakes import midjourney, suno
from tests.fakes.midjourney import PNG, Midjourney
from tests.fakes.process import ROOT
from tests.fakes.suno import Suno
from tests.fakes.task_world import ALICE, BOB, START, World, drawing, singing, until

IMAGINE = 50_000


def option(channel: Any, **options: Any) -> Any:
    """The channel with these options."""
    return msgspec.structs.replace(channel, options={**channel.options, **options})


async def configured(one: World, **options: Any) -> None:
    """Other options for the channel `mj`."""
    first, *others = one.house.snapshot.config.channels
    await one.reload(channels=(option(first, **options), *others))


async def submitted(one: World, prompt: str = "cat", **headers: str) -> str:
    """An accepted picture's id."""
    answer = await one.post("/mj/submit/imagine", {"prompt": prompt}, **headers)
    assert answer.tree["code"] == 1, answer.body
    return str(answer.tree["result"])


async def finished(one: World, mj: Midjourney, prompt: str = "cat") -> str:
    """A finished picture's id."""
    id = await submitted(one, prompt)
    mj.tick(5)
    await one.poll()
    return id


async def test_t04_pictures_come_from_public_addresses_only(one: World, mj: Midjourney) -> None:
    """The open link fetches nothing from inside, whatever address upstream gave."""
    addresses = ["http://127.0.0.1:80/", "http://[::1]/", "http://169.254.169.254/", "http://0/", "http://2130706433/"]
    addresses += ["file:///etc/passwd", "http://localhost:8080/", "ftp://example.org/x", "http://user:pw@example.org/"]
    for address in addresses:
        mj.knobs.picture = address
        id = await finished(one, mj, prompt="x")
        answer = await one.get(f"/mj/image/{id}", key="")
        assert answer.status in (403, 500), (address, answer.body)
        assert set(answer.tree) == {"error"}
    assert (await one.get("/mj/image/999", key="")).tree == {"error": "midjourney_task_not_found"}
    assert not [seen for seen in mj.seen if seen.method == "GET"]


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("a.png", 200, "image/png"),
        ("script.html", 200, "application/octet-stream"),
        ("script.svg", 200, "application/octet-stream"),
        ("gone.png", 404, "application/json"),
        ("inside.png", 403, "application/json"),
        ("huge.png", 500, "application/json"),
    ],
)
async def test_t04_what_is_no_picture_is_not_shown_as_one(
    one: World, mj: Midjourney, name: str, status: int, kind: str
) -> None:
    """Where private addresses are allowed, types are still checked, sizes bounded and redirects not followed."""
    await configured(one, private_images=True)
    mj.knobs.picture = f"{mj.url}/images/{name}"
    id = await finished(one, mj)
    answer = await one.get(f"/mj-fast/mj/image/{id}", key="")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (status, kind)
    if status == 200:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
        assert ("content-disposition" in answer.headers) == (kind == "application/octet-stream")
    if name == "a.png":
        assert answer.body == PNG


async def test_t05_nobody_can_notify(one: World, mj: Midjourney) -> None:
    """There is no route by which a client could end, fail or re-image a task."""
    id = await submitted(one)
    before = one.rows("SELECT * FROM midjourneys")
    for path in ("/mj/notify", "/mj-fast/mj/notify"):
        answer = await one.post(path, {"id": id, "status": "FAILURE", "progress": "100%"}, key=BOB)
        assert answer.status == 404
    assert one.rows("SELECT * FROM midjourneys") == before


async def test_t06_hooks_and_filters_stay_here(one: World, mj: Midjourney) -> None:
    """notifyHook and accountFilter go upstream only where the channel says so; unknown fields always do."""
    body = {"prompt": "cat --fast", "notifyHook": "http://x/", "accountFilter": {"modes": ["FAST"]}, "odd": 1}
    await one.post("/mj/submit/imagine", body)
    assert mj.submits[-1].body == {"prompt": "cat --fast", "odd": 1}
    await configured(one, notify_hook=True, account_filter=True, clear_modes=True)
    await one.post("/mj/submit/imagine", body)
    assert mj.submits[-1].body == {**body, "prompt": "cat "}
    headers = mj.submits[-1].headers
    assert headers["mj-api-secret"] == "mj-secret"
    assert "authorization" not in headers


async def test_t08_one_refund(one: World, mj: Midjourney) -> None:
    """Pollers that see the same failure at the same time, again and again, give the money back once."""
    await submitted(one, "[fail]")
    mj.tick(2)
    one.clock.pass_(15)
    now = int(one.clock.wall())
    await asyncio.gather(*(poll_once(one.desk, one.house.snapshot, now + n * 20) for n in range(4)))
    await one.poll()
    assert one.money() == (START, 0, START, 0, 0)
    assert len(one.logs(6)) == 1


async def test_t08_a_save_that_fails_is_done_later(one: World, mj: Midjourney) -> None:
    """A failure whose writing fails is neither lost nor paid back without it."""
    await submitted(one, "[fail]")
    mj.tick(2)
    with closing(sqlite3.connect(one.path, isolation_level=None)) as other:
        other.execute("CREATE TRIGGER t BEFORE UPDATE ON midjourneys BEGIN SELECT RAISE(ABORT, 'no'); END")
        await one.poll()
        assert one.money()[0] == START - IMAGINE
        other.execute("DROP TRIGGER t")
    await one.poll()
    assert one.money() == (START, 0, START, 0, 0)
    assert len(one.logs(6)) == 1


async def test_t09_null_times(one: World, mj: Midjourney) -> None:
    """An upstream that says null for the time of submission does not make a task old."""
    mj.knobs.submit_time_null = True
    id = await submitted(one)
    await one.poll()
    mj.tick()
    await one.poll()
    task = (await one.get(f"/mj/task/{id}/fetch")).tree
    assert (task["status"], task["submitTime"]) == ("IN_PROGRESS", 1_729_000_000_000)


async def test_t10_forgotten_tasks_end(one: World, mj: Midjourney) -> None:
    """A task that upstream forgets has failed after its channel's deadline, and is paid back."""
    id = await submitted(one)
    mj.knobs.forget_id = True
    await one.poll(3_000)
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["progress"] == "0%"
    await one.poll(1_000)
    task = (await one.get(f"/mj/task/{id}/fetch")).tree
    assert (task["status"], task["failReason"]) == ("FAILURE", "The upstream did not finish this task within 1 h.")
    assert one.money() == (START, 0, START, 0, 0)


async def test_t10_a_long_pause_loses_nothing(one: World, mj: Midjourney) -> None:
    """A task that was finished while nobody asked is a success, however late it is heard of."""
    id = await submitted(one)
    mj.tick(9)
    await one.poll(100_000)
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS"
    assert one.money()[0] == START - IMAGINE


async def test_t10_songs_have_a_day(one: World, songs: Suno) -> None:
    """A song may take longer than a picture; UNKNOWN is no end."""
    answer = await one.post("/suno/submit/music", {"prompt": "la"})
    songs.songs[answer.tree["data"]].forced = {"status": "UNKNOWN"}
    await one.poll(80_000)
    assert (await one.get(f"/suno/fetch/{answer.tree['data']}")).tree["data"]["status"] == "NOT_START"
    await one.poll(10_000)
    assert (await one.get(f"/suno/fetch/{answer.tree['data']}")).tree["data"]["status"] == "FAILURE"
    assert one.money(channel=5) == (START, 0, START, 0, 0)


async def test_t10_stuck_tasks_hold_up_nobody(one: World, mj: Midjourney) -> None:
    """After 600 tasks that never end, a fresh one is asked after in the first round."""
    await one.reload(prices={"mj_imagine": {"call": 0}})
    mj.knobs.core = 10_000
    for number in range(600):
        await submitted(one, f"stuck {number}")
    for life in mj.lives.values():
        life.born = 10**9
    await one.poll()
    id = await submitted(one)
    mj.tick(9)
    await one.poll()
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS"
    lists = [len(seen.body["ids"]) for seen in mj.seen if seen.path.endswith("list-by-condition")]
    assert max(lists) <= 200


async def test_t11_balance_race(one: World, mj: Midjourney) -> None:
    """Of twenty submissions at once on a balance for three, three go upstream and the balance is 0."""
    for table, id in ((user_table, 7), (token_table, 9)):
        column = "quota" if table is user_table else "remain_quota"
        change = update(table).where(table.c.id == id).values(**{column: 3 * IMAGINE})
        await one.house.db.write(lambda conn, _, change=change: [conn.execute(change).rowcount], None)
    answers = await asyncio.gather(*(one.post("/mj/submit/imagine", {"prompt": "x"}) for _ in range(20)))
    accepted = [answer for answer in answers if answer.status == 200]
    refused = [answer.tree for answer in answers if answer.status == 400]
    assert (len(accepted), len(refused), len(mj.submits)) == (3, 17, 3)
    assert all(tree == {"description": "quota_not_enough ", "type": "upstream_error", "code": 4} for tree in refused)
    assert one.money()[0] == one.money()[2] == 0


async def test_t11_songs_say_it_in_their_words(one: World, songs: Suno) -> None:
    """A balance that is too small is 403 on the other interface."""
    change = update(token_table).where(token_table.c.id == 9).values(remain_quota=1)
    await one.house.db.write(lambda conn, _: [conn.execute(change).rowcount], None)
    answer = await one.post("/suno/submit/music", {"prompt": "la"})
    assert (answer.status, answer.tree) == (
        403,
        {"code": "quota_not_enough", "message": "user quota is not enough", "data": None},
    )
    assert songs.seen == []


async def test_t12_the_price_of_then(one: World, mj: Midjourney) -> None:
    """What comes back is what was paid, though price and group have changed and the key is deleted."""
    await submitted(one, "[fail]")
    await one.reload(prices={"mj_imagine": {"call": 7}}, groups={"default": 3.0})
    change = update(token_table).where(token_table.c.id == 9).values(deleted_at=None, name="gone")
    await one.house.db.write(lambda conn, _: [conn.execute(change).rowcount], None)
    mj.tick(2)
    await one.poll()
    assert one.money() == (START, 0, START, 0, 0)
    (log,) = one.logs(6)
    assert (log["quota"], log["token_name"]) == (IMAGINE, "gone")


async def test_t12_nobody_left(one: World, mj: Midjourney) -> None:
    """A key and a user whose rows are gone do not stop the poller."""
    id = await submitted(one, "[fail]")
    await one.house.db.write(
        lambda conn, _: [conn.execute(token_table.delete()).rowcount, conn.execute(user_table.delete())][:1], None
    )
    mj.tick(2)
    await one.poll()
    assert one.rows("SELECT status FROM midjourneys WHERE mj_id = ?", id) == [{"status": "FAILURE"}]
    assert len(one.logs(6)) == 1


async def test_t13_what_was_not_paid_does_not_come_back(one: World, mj: Midjourney) -> None:
    """An answer with a wrong status, and a window that is never used, cost nothing and give nothing back."""
    mj.knobs.status = 500
    answer = await one.post("/mj/submit/imagine", {"prompt": "[fail]"})
    assert (answer.status, answer.tree["code"]) == (500, 1)
    assert one.money()[0] == START
    mj.knobs.status = 200
    mj.tick(2)
    await one.poll()
    assert one.rows("SELECT status FROM midjourneys") == [{"status": "FAILURE"}]
    assert (one.money()[0], one.logs(6)) == (START, [])
    await one.reload(prices={"mj_inpaint": {"call": 5}})
    id = await finished(one, mj)
    opened = await one.post("/mj/submit/action", {"customId": "MJ::Inpaint::1::u", "taskId": id})
    assert opened.tree["code"] == 21
    await one.poll(4_000)
    assert one.money()[0] == START - IMAGINE
    assert one.logs(6) == []


async def test_t14_one_id_in_two_rows(one: World, mj: Midjourney) -> None:
    """Rows that share an upstream id finish together."""
    id = await finished(one, mj)
    body = {"customId": "MJ::JOB::variation::1::u", "taskId": id}
    first = await one.post("/mj/submit/action", body)
    second = await one.post("/mj/submit/action", body)
    assert first.tree["result"] == second.tree["result"]
    mj.tick(5)
    await one.poll()
    rows = one.rows("SELECT status FROM midjourneys WHERE mj_id = ?", first.tree["result"])
    assert rows == [{"status": "SUCCESS"}] * 2


async def test_t14_somebody_elses_picture(one: World, mj: Midjourney) -> None:
    """A submission that upstream answers with another caller's task does not hand it over."""
    theirs = await finished(one, mj)
    mj.knobs.code = 21
    real = mj.submit
    mj.submit = lambda action, body: {  # type: ignore[method-assign]
        "code": 21, "description": "exists", "result": theirs, "properties": {"status": "SUCCESS", "imageUrl": "http://x/"},
    }  # fmt: skip
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"}, key=BOB)
    assert (answer.status, answer.tree["description"]) == (400, "task_not_found ")
    assert (await one.get(f"/mj/task/{theirs}/fetch", key=BOB)).status == 400
    assert one.money(8, 10)[:4] == (START, 0, START, 0)
    assert (await one.post("/mj/submit/imagine", {"prompt": "cat"})).tree["code"] == 1
    mj.submit = real  # type: ignore[method-assign]


async def test_t15_codes_are_numbers_in_a_tree(one: World, mj: Midjourney) -> None:
    """Pretty-printed answers are rewritten too, and only their own code is."""
    mj.knobs.pretty_json, mj.knobs.code = True, 22
    answer = await one.post("/mj/submit/imagine", {"prompt": "cat"})
    assert (answer.tree["code"], answer.tree["properties"]["code"]) == (1, 22)


async def test_t21_foreign_tasks(one: World, mj: Midjourney, songs: Suno) -> None:
    """Another user's ids are answered like unknown ones, on every route."""
    id = await finished(one, mj)
    song = (await one.post("/suno/submit/music", {"prompt": "la"})).tree["data"]
    songs.tick(3)
    await one.poll()
    clip = (await one.get(f"/suno/fetch/{song}")).tree["data"]["data"][0]["id"]
    asked: list[tuple[str, Any]] = [
        ("/mj/task/{mj}/fetch", None),
        ("/mj/task/{mj}/image-seed", None),
        ("/mj/task/list-by-condition", {"ids": ["{mj}"]}),
        ("/mj/submit/change", {"taskId": "{mj}", "action": "UPSCALE", "index": 1}),
        ("/mj/submit/simple-change", {"content": "{mj} U1"}),
        ("/mj/submit/action", {"taskId": "{mj}", "customId": "MJ::JOB::upsample::1::u"}),
        ("/mj/submit/modal", {"taskId": "{mj}"}),
        ("/suno/fetch/{suno}", None),
        ("/suno/fetch", {"ids": ["{suno}"]}),
        ("/suno/submit/music", {"continue_clip_id": "{clip}", "task_id": "{suno}", "continue_at": 5}),
        ("/suno/submit/concat", {"clip_id": "{clip}"}),
    ]
    sent = len(mj.submits), len(songs.submits)
    for path, body in asked:
        both = []
        for name, piece in ((id, clip), ("unknown", "unknown")):
            values = {"{mj}": name, "{suno}": song if name == id else "unknown", "{clip}": piece}
            text = orjson.dumps([path, body]).decode()
            for mark, value in values.items():
                text = text.replace(mark, value)
            where, what = orjson.loads(text)
            got = await (one.get(where, key=BOB) if body is None else one.post(where, what, key=BOB))
            both.append((got.status, got.body))
        assert both[0] == both[1], path
    assert (len(mj.submits), len(songs.submits)) == sent
    assert one.money(8, 10)[:4] == (START, 0, START, 0)


async def test_t21_keys_of_the_file_are_people(one: World, mj: Midjourney) -> None:
    """Keys of the file share a database user and still see their own tasks only."""
    await one.reload(tokens=(Token(name="ann", key=Secret("sk-ann")), Token(name="ben", key=Secret("sk-ben"))))
    answer = await one.post("/mj/submit/imagine", {"prompt": "x"}, key="ann")
    id = answer.tree["result"]
    assert (await one.get(f"/mj/task/{id}/fetch", key="ann")).status == 200
    assert (await one.get(f"/mj/task/{id}/fetch", key="ben")).status == 400
    assert (await one.get(f"/mj/task/{id}/fetch")).status == 400


async def test_t24_limits_on_polling(one: World, mj: Midjourney) -> None:
    """A list of models, or an empty balance, does not keep a key from its tasks; its address list does."""
    await one.reload(tokens=(Token(name="ann", key=Secret("sk-ann"), models=("mj_imagine",)),))
    id = (await one.post("/mj/submit/imagine", {"prompt": "x"}, key="ann")).tree["result"]
    assert (await one.get(f"/mj/task/{id}/fetch", key="ann")).status == 200
    refused = await one.post("/mj/submit/describe", {"link": "x"}, key="ann")
    assert (refused.status, set(refused.tree)) == (403, {"error"})
    mine = await submitted(one)
    change = update(token_table).where(token_table.c.id == 9).values(status=4, remain_quota=0)
    await one.house.db.write(lambda conn, _: [conn.execute(change).rowcount], None)
    await one.reload()
    assert (await one.get(f"/mj/task/{mine}/fetch")).status == 200
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).status == 401
    await one.reload(tokens=(Token(name="ann", key=Secret("sk-ann"), allow_ips=("10.0.0.0/8",)),))
    assert (await one.get(f"/mj/task/{id}/fetch", key="ann")).status == 403
    await one.house.db.write(
        lambda conn, _: [conn.execute(update(token_table).where(token_table.c.id == 9).values(
            status=1, remain_quota=START - IMAGINE)).rowcount], None
    )  # fmt: skip


async def test_t26_a_client_that_leaves(one: World, mj: Midjourney) -> None:
    """A client that goes before upstream answers has its row, charged once."""
    mj.knobs.hang = True
    asking = asyncio.ensure_future(one.post("/mj/submit/imagine", {"prompt": "x"}))
    await asyncio.wait_for(mj.arrived.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    mj.released.set()

    async def there() -> bool:
        return bool(one.rows("SELECT * FROM midjourneys"))

    await until(there)
    assert one.money() == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)


async def gone(one: World, mj: Midjourney) -> asyncio.Event:
    """A client has gone while upstream thinks; the edge knows it."""
    mj.knobs.hang = True
    asking = asyncio.ensure_future(one.post("/mj/submit/imagine", {"prompt": "x"}))
    await asyncio.wait_for(mj.arrived.wait(), 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return asyncio.Event()


async def test_t26_a_stop_waits_for_what_upstream_thinks_about(one: World, mj: Midjourney) -> None:
    """A process that ends waits for a submission though its client has gone: upstream's word is not lost."""
    stopping = asyncio.ensure_future(drain(one.house, [], await gone(one, mj)))
    await asyncio.wait([stopping], timeout=0.1)
    assert not stopping.done()
    mj.released.set()
    assert await stopping
    assert len(one.rows("SELECT * FROM midjourneys")) == 1
    assert one.money() == (START - IMAGINE, IMAGINE, START - IMAGINE, IMAGINE, IMAGINE)


async def test_t26_a_stop_does_not_wait_for_ever(one: World, mj: Midjourney) -> None:
    """At the drain's deadline a submission that has heard nothing is ended and given back, as after a crash."""
    await one.reload(relay=Relay(drain_timeout=0.1))
    assert await drain(one.house, [], await gone(one, mj))
    assert one.money() == (START, 0, START, 0, 0)
    assert one.rows("SELECT * FROM midjourneys") == []
    assert not one.house.watches
    mj.released.set()


async def test_t26_a_process_that_seems_dead(one: World, mj: Midjourney) -> None:
    """A hold is given back where its process has died before upstream answered: no row, no charge. If the process lives
    after all, what it has done is charged and has its row."""
    mj.knobs.hang = True
    asking = asyncio.ensure_future(one.post("/mj/submit/imagine", {"prompt": "x"}))
    await asyncio.wait_for(mj.arrived.wait(), 10)
    assert one.money()[0] == START - IMAGINE
    await one.house.db.write(lambda conn, _: [ledger.recover(conn, ["next"], 1)], None)
    assert one.money() == (START, 0, START, 0, 0)
    assert one.rows("SELECT * FROM midjourneys") == []
    mj.released.set()
    await asking
    assert one.money()[:2] == (START - IMAGINE, IMAGINE)
    assert [row["quota"] for row in one.rows("SELECT quota FROM midjourneys")] == [IMAGINE]


JUNK: list[tuple[str, Any]] = [
    ("/mj/submit/imagine", {}),
    ("/mj/submit/imagine", {"prompt": 5}),
    ("/mj/submit/imagine", []),
    ("/mj/submit/imagine", b"{"),
    ("/mj/submit/imagine", b"\xff\xfe"),
    ("/mj/submit/blend", {"base64Array": "x"}),
    ("/mj/submit/blend", {"base64Array": [1]}),
    ("/mj/submit/change", {}),
    ("/mj/submit/change", {"taskId": 123, "action": "UPSCALE", "index": 1}),
    ("/mj/submit/change", {"taskId": "1", "action": None, "index": 1}),
    ("/mj/submit/change", {"taskId": "1", "action": "DANCE", "index": 1}),
    ("/mj/submit/change", {"taskId": "1", "action": "UPSCALE"}),
    ("/mj/submit/change", {"taskId": "1", "action": "UPSCALE", "index": True}),
    ("/mj/submit/change", {"taskId": "1", "action": "UPSCALE", "index": 5}),
    ("/mj/submit/simple-change", {}),
    ("/mj/submit/simple-change", {"content": "1 "}),
    ("/mj/submit/simple-change", {"content": "1 u12"}),
    ("/mj/submit/simple-change", {"content": " U1"}),
    ("/mj/submit/action", {"customId": "MJ::JOB::upsample::1::u"}),
    ("/mj/submit/action", {"taskId": "1"}),
    ("/mj/submit/action", {"taskId": "1", "customId": "garbage"}),
    ("/mj/submit/action", {"taskId": "1", "customId": "MJ::" * 250_000}),
    ("/mj/submit/modal", {}),
    ("/mj/submit/modal", {"taskId": None}),
    ("/mj/task/list-by-condition", b"nonsense"),
    ("/mj/task/list-by-condition", {"ids": 7}),
]


@pytest.mark.parametrize("number", range(len(JUNK)))
async def test_t29_junk(one: World, mj: Midjourney, number: int) -> None:
    """What is no submission is a 400 with code 4 in one document, and upstream hears nothing of it."""
    path, body = JUNK[number]
    answer = await one.post(path, body)
    assert (answer.status, answer.tree["code"]) == (400, 4)
    assert set(answer.tree) == {"description", "type", "code"}
    assert len(answer.body) < 1_000
    assert mj.seen == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/suno/submit/music", b"{"),
        ("/suno/submit/music", {"prompt": 5}),
        ("/suno/submit/music", {"make_instrumental": "yes"}),
        ("/suno/submit/music", {"continue_clip_id": "x"}),
        ("/suno/submit/dance", {}),
        ("/suno/submit/concat", {}),
        ("/suno/fetch", b"x"),
        ("/suno/fetch", {"ids": "x"}),
    ],
)
async def test_t29_junk_songs(one: World, songs: Suno, path: str, body: Any) -> None:
    """The same on the other interface, in its envelope."""
    answer = await one.post(path, body)
    assert (answer.status, answer.tree["code"], answer.tree["data"]) == (400, "invalid_request", None)
    assert songs.seen == []


async def test_t30_large_bodies(one: World, mj: Midjourney, capfd: pytest.CaptureFixture[str]) -> None:
    """A picture of 20 MB goes through whole; above the limit it is 413; no picture is in the log."""
    picture = "data:image/png;base64," + "QUJD" * (5 << 20)
    answer = await one.post("/mj/submit/describe", {"base64": picture})
    assert answer.tree["code"] == 1
    assert mj.submits[-1].body["base64"] == picture
    assert (await one.post("/mj/submit/describe", {"base64": picture * 2})).status == 413
    assert "QUJD" not in capfd.readouterr().out


async def test_t31_nonsense_from_upstream(one: World, mj: Midjourney) -> None:
    """Unknown ids, nulls and repeated or reordered tasks in a list change nothing but what they should."""
    mj.knobs.nonsense = mj.knobs.return_unknown_id = mj.knobs.reverse = True
    ids = [await submitted(one, f"n{number}") for number in range(3)]
    mj.tick(5)
    await one.poll()
    assert [(await one.get(f"/mj/task/{id}/fetch")).tree["status"] for id in ids] == ["SUCCESS"] * 3
    for knob in ("bad_json", "status_500", "empty_body"):
        id = await submitted(one, knob)
        setattr(mj.knobs, knob, True)
        await one.poll()
        assert (await one.get(f"/mj/task/{id}/fetch")).tree["progress"] == "0%"
        setattr(mj.knobs, knob, False)


async def test_t31_a_channel_that_hangs(one: World, mj: Midjourney, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that does not answer holds up no other channel's tasks."""
    async with midjourney.serving() as other:
        first, song = one.house.snapshot.config.channels
        slow = drawing(other.url, "slow", priority=10)
        await one.reload(channels=(first, song, slow))
        await submitted(one, "slow")
        other.knobs.hang = True
        await one.reload(channels=(first, song, msgspec.structs.replace(slow, priority=-1)))
        id = await submitted(one, "quick")
        mj.tick(5)
        round_ = asyncio.ensure_future(one.poll())

        async def done() -> bool:
            return bool((await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS")

        await until(done)
        assert not round_.done()
        other.released.set()
        await round_


async def test_t32_headers_stay_upstream(one: World, songs: Suno) -> None:
    """Of upstream's answer the client gets the body, and none of its headers."""
    songs.knobs.cookies = True
    answer = await one.post("/suno/submit/music", {"prompt": "la"})
    assert answer.tree["code"] == "success"
    assert not {"set-cookie", "server"} & set(answer.headers)


async def test_t33_nothing_leaks(one: World, mj: Midjourney, songs: Suno, capfd: pytest.CaptureFixture[str]) -> None:
    """Upstream's secrets and addresses are in no answer, and keys in no line."""
    songs.knobs.status = 500
    answer = await one.post("/suno/submit/music", {"prompt": "la"})
    assert (answer.status, answer.tree["message"]) == (500, "The upstream cannot be reached.")
    assert b"suno.internal" not in answer.body
    mj.knobs.secret = "another"
    refused = await one.post("/mj/submit/imagine", {"prompt": "x"})
    assert (refused.status, refused.tree["code"], refused.tree["type"]) == (502, 5, "upstream_error")
    songs.knobs.status, songs.knobs.secret = 200, "another"
    lost = await one.post("/suno/submit/music", {"prompt": "la"})
    assert (lost.status, lost.tree["code"]) == (502, "upstream_credentials")
    out = capfd.readouterr().out
    assert not [word for word in ("mj-secret", "suno-secret", ALICE) if word in out]
    assert one.money(channel=5) == (START, 0, START, 0, 0)


async def test_t35_a_follow_up_has_its_origins_key(one: World, songs: Suno) -> None:
    """A continuation goes to the origin's channel with that channel's key, whatever would be chosen now."""
    id = (await one.post("/suno/submit/music", {"prompt": "la"})).tree["data"]
    songs.tick(3)
    await one.poll()
    async with suno.serving("other-secret") as other:
        channels = one.house.snapshot.config.channels
        await one.reload(channels=(*channels, singing(other.url, "new", key=Secret("other-secret"), priority=9)))
        body = {"continue_clip_id": "c", "task_id": id, "continue_at": 3}
        assert (await one.post("/suno/submit/music", body)).tree["code"] == "success"
        assert songs.submits[-1].headers["authorization"] == "Bearer suno-secret"
        clip = (await one.get(f"/suno/fetch/{id}")).tree["data"]["data"][0]["id"]
        assert (await one.post("/suno/submit/concat", {"clip_id": clip})).status == 400  # has no price
        await one.reload(prices={"suno_concat": {"call": 0.05}})
        assert (await one.post("/suno/submit/concat", {"clip_id": clip})).tree["code"] == "success"
        assert songs.submits[-1].path == "/suno/submit/CONCAT"
        assert other.seen == []
        await one.post("/suno/submit/music", {"prompt": "new"})
        assert len(other.submits) == 1


async def test_t35_one_of_several_keys(one: World, mj: Midjourney) -> None:
    """A channel with two keys polls and follows each task with the key that has it, also when their order changes."""
    mj.knobs.secret = "first"
    channel = drawing(mj.url, key=None, keys=(Secret("first"), Secret("second")))
    await one.reload(channels=(channel,))
    id = await submitted(one)
    await one.reload(channels=(msgspec.structs.replace(channel, keys=(Secret("second"), Secret("first"))),))
    mj.tick(5)
    await one.poll()
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS"
    assert (await one.post("/mj/submit/simple-change", {"content": f"{id} U1"})).tree["code"] == 1


async def test_t36_only_fresh_work_tells_of_accounts(one: World, mj: Midjourney) -> None:
    """Code 3 for a follow-up says nothing of the channel; for a picture it rests, with the reason in its row."""
    id = await finished(one, mj)
    mj.lives.clear()
    follow = {"customId": "MJ::JOB::upsample::1::u", "taskId": id}
    assert (await one.post("/mj/submit/action", follow)).tree["code"] == 3
    await submitted(one)
    mj.knobs.no_account = True
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).tree["code"] == 3
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).status == 503
    (row,) = one.rows("SELECT status, other_info FROM channels WHERE id = 4")
    assert row["status"] == channel_rows.AUTO_DISABLED
    assert orjson.loads(row["other_info"])["status_reason"] == "No available account instance"
    assert one.money()[0] == START - 2 * IMAGINE


async def test_t37_modes(one: World, mj: Midjourney) -> None:
    """A mode goes upstream only where it is passed on, and has its own price where it is given one."""
    await one.post("/mj-turbo/mj/submit/imagine", {"prompt": "x"})
    assert (mj.submits[-1].path, one.money()[0]) == ("/mj/submit/imagine", START - IMAGINE)
    await configured(one, pass_mode=True)
    await one.reload(prices={"mj_turbo_imagine": {"call": 0.2}, "mj_*": {"call": 0.3}})
    await one.post("/mj-turbo/mj/submit/imagine", {"prompt": "x"})
    assert (mj.submits[-1].path, one.money()[0]) == ("/mj-turbo/mj/submit/imagine", START - 3 * IMAGINE)
    await one.post("/mj-fast/mj/submit/imagine", {"prompt": "x"})
    assert one.money()[0] == START - 4 * IMAGINE
    await one.post("/other/mj/submit/imagine", {"prompt": "x"})
    assert mj.submits[-1].path == "/other/mj/submit/imagine"
    for path in ("/a/b/mj/submit/imagine", "/a.b/mj/submit/imagine"):
        assert (await one.post(path, {"prompt": "x"})).status in (404, 405)


async def test_t38_links_without_an_address_of_ours(one: World, mj: Midjourney) -> None:
    """Where nobody said what this server is called, links lead to where the client asked; or to upstream itself."""
    id = await finished(one, mj)
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["imageUrl"] == f"{one.url}/mj/image/{id}"
    forwarded = {"X_Forwarded_Proto": "https"}
    told = (await one.get(f"/mj/task/{id}/fetch", **forwarded)).tree["imageUrl"]
    assert told.startswith("http://")
    await one.reload(trusted_proxies=("127.0.0.1/32",))
    told = (await one.get(f"/mj/task/{id}/fetch", **forwarded)).tree["imageUrl"]
    assert told == f"{one.url}/mj/image/{id}".replace("http://", "https://")
    await configured(one, forward_images=False)
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["imageUrl"] == f"{mj.url}/images/{id}.png"


async def test_t47_one_document(one: World, mj: Midjourney) -> None:
    """A refusal is one JSON value with one content type."""
    answer = await one.post("/mj/submit/action", {"customId": "MJ::Job::PicReader::all", "taskId": "1"})
    assert answer.tree == {"description": "unknown_action:MJ::Job::PicReader::all", "type": "new_api_error", "code": 4}
    assert answer.headers["content-type"] == "application/json"


async def test_origin_must_have_succeeded(one: World, mj: Midjourney) -> None:
    """Only what succeeded may be followed, unless the channel allows more."""
    id = await submitted(one)
    follow = {"customId": "MJ::JOB::upsample::1::u", "taskId": id}
    assert (await one.post("/mj/submit/action", follow)).tree["description"] == "task_status_not_success "
    await configured(one, check_success=False)
    assert (await one.post("/mj/submit/action", follow)).tree["code"] == 4  # upstream's own refusal
    assert mj.submits[-1].path == "/mj/submit/action"


async def test_a_channel_that_is_switched_off(one: World, mj: Midjourney) -> None:
    """It takes nothing new, not even follow-ups, and is still asked after what it has."""
    id = await submitted(one)
    first, *others = one.house.snapshot.config.channels
    await one.reload(channels=(msgspec.structs.replace(first, enabled=False), *others))
    mj.tick(5)
    await one.poll()
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS"
    follow = {"customId": "MJ::JOB::upsample::1::u", "taskId": id}
    answer = await one.post("/mj/submit/action", follow)
    assert (answer.status, answer.tree["description"]) == (400, "The channel of this task is disabled. ")
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"})).status == 503


async def test_a_channel_that_is_gone(one: World, mj: Midjourney) -> None:
    """Tasks of a channel that nobody knows any more have failed after a while, and are paid back."""
    await submitted(one)
    _, song = one.house.snapshot.config.channels
    await one.reload(channels=(song,))
    await one.poll(FORGOTTEN)
    assert one.rows("SELECT status, fail_reason FROM midjourneys") == [
        {"status": "FAILURE", "fail_reason": "The channel of this task is not configured any more."}
    ]
    assert one.money() == (START, 0, START, 0, 0)


async def test_a_channel_that_another_daemon_knows(one: World, mj: Midjourney) -> None:
    """A daemon whose file has the channel no more, or not yet, leaves its tasks to the one that asks after them."""
    id = await submitted(one)
    channels = one.house.snapshot.config.channels
    for _ in range(int(FORGOTTEN / 100) + 2):
        await one.reload(channels=channels[1:])
        await one.poll(50)
        await one.reload(channels=channels)
        await one.poll(50)
    assert one.rows("SELECT status FROM midjourneys") != [{"status": "FAILURE"}]
    mj.tick(5)
    await one.poll()
    assert (await one.get(f"/mj/task/{id}/fetch")).tree["status"] == "SUCCESS"
    assert one.logs(6) == []


async def test_without_channels_there_are_no_routes(one: World, mj: Midjourney) -> None:
    """A configuration without such channels has no such paths."""
    await one.reload(channels=())
    for path in ("/mj/submit/imagine", "/suno/submit/music", "/mj-fast/mj/submit/imagine"):
        assert (await one.post(path, {"prompt": "x"})).status == 404
    assert (await one.get("/mj/image/1", key="")).status == 404


async def test_upload_and_seed(one: World, mj: Midjourney) -> None:
    """An upload is done at once and has no id; a seed is asked of the channel that made the picture, for nothing."""
    uploaded = await one.post("/mj/submit/upload-discord-images", {"base64Array": ["data:x"]})
    assert uploaded.tree["result"] == [f"{mj.url}/images/uploaded.png"]
    (row,) = one.rows("SELECT mj_id, status, progress, quota FROM midjourneys")
    assert row == {"mj_id": None, "status": "SUCCESS", "progress": "100%", "quota": 25_000}
    id = await finished(one, mj)
    before = one.money()
    seed = await one.get(f"/mj/task/{id}/image-seed")
    assert seed.tree == {"code": 1, "description": "ok", "properties": None, "result": "1234567890"}
    assert one.money() == before


async def test_lists(one: World, mj: Midjourney) -> None:
    """A list has the caller's own tasks in the order of submission; nothing asked, nothing told."""
    ids = [await submitted(one, f"n{number}") for number in range(3)]
    asked = await one.post("/mj/task/list-by-condition", {"ids": [ids[2], "unknown", ids[0]]})
    assert [task["id"] for task in asked.tree] == [ids[0], ids[2]]
    assert (await one.post("/mj/task/list-by-condition", {})).tree == []
    assert (await one.post("/suno/fetch", {"ids": []})).tree["data"] == []
    assert (await one.post("/suno/fetch", {"ids": ["unknown"]})).tree["data"] == []


async def test_songs_are_tried_elsewhere(one: World, songs: Suno) -> None:
    """A channel that refuses a song passes it on to the next; it is charged once, where it was taken."""
    async with suno.serving() as other:
        channels = one.house.snapshot.config.channels
        await one.reload(channels=(*channels, singing(other.url, "spare", priority=-1)))
        songs.knobs.status = 503
        answer = await one.post("/suno/submit/music", {"prompt": "la"})
        assert answer.tree["code"] == "success"
        assert len(other.submits) == 1
        assert one.money(channel=6)[4] == IMAGINE
        songs.knobs.status, other.knobs.status = 400, 200
        assert (await one.post("/suno/submit/music", {"prompt": "la"})).status == 400
        assert len(other.submits) == 1


async def test_limits_hold_for_tasks(one: World, mj: Midjourney) -> None:
    """A key's limit on requests holds for submissions, and not for asking after them."""
    await one.reload(tokens=(Token(name="ann", key=Secret("sk-ann"), limits=Limits(rpm=1)),))
    id = (await one.post("/mj/submit/imagine", {"prompt": "x"}, key="ann")).tree["result"]
    second = await one.post("/mj/submit/imagine", {"prompt": "x"}, key="ann")
    assert (second.status, second.tree["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after" in second.headers
    assert (await one.get(f"/mj/task/{id}/fetch", key="ann")).status == 200


async def test_what_is_refused_for_money_takes_nothing_of_limits(one: World, mj: Midjourney) -> None:
    """A submission that is refused at its hold counts for neither its key nor the channel it would have gone to."""
    limits = Limits(rpm=1)
    tokens = (
        Token(name="poor", key=Secret("sk-poor"), limits=limits, quota=1000),
        Token(name="ann", key=Secret("sk-ann"), limits=limits),
    )
    await one.reload(tokens=tokens, channels=(drawing(mj.url, limits=limits),))
    for _ in range(3):
        assert (await one.post("/mj/submit/imagine", {"prompt": "x"}, key="poor")).tree["description"]
    assert one.house.windows.used() == []
    follow = {"customId": "MJ::JOB::upsample::1::u", "taskId": "nobody's"}
    assert "task_not_found" in (await one.post("/mj/submit/action", follow, key="poor")).tree["description"]
    assert [used.name for used in one.house.windows.used()] == ["poor"]  # it was looked for
    assert (await one.post("/mj/submit/imagine", {"prompt": "x"}, key="ann")).tree["code"] == 1
    assert len(mj.submits) == 1


async def test_a_follow_up_meets_its_channels_limits(one: World, mj: Midjourney) -> None:
    """The one channel that a follow-up may go to is not asked more than it may be."""
    await one.reload(channels=(drawing(mj.url, limits=Limits(rpm=2)),))
    follow = {"customId": "MJ::JOB::upsample::2::u", "taskId": await finished(one, mj)}
    assert (await one.post("/mj/submit/action", follow)).tree["code"] == 1
    third = await one.post("/mj/submit/action", follow)
    assert (third.status, third.tree["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after" in third.headers
    assert len(mj.submits) == 2


def test_nothing_is_loaded_that_nobody_configured() -> None:
    """A daemon without such channels loads none of what serves tasks (decision 2)."""
    code = "import sys, newapi_proxy.daemon.life; print(*[one for one in sys.modules if 'task' in one])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {one for one in run.stdout.split() if one.startswith("newapi_proxy")}
    assert loaded == {"newapi_proxy.adapters._tasks", "newapi_proxy.ir.task", "newapi_proxy.store.tasks"}
