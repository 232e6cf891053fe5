"""Pictures and songs through a real daemon: what README shows, the command line, a kill in the wrong moment."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientError, ClientSession

from tests.fakes import midjourney, suno
from tests.fakes.process import ROOT, Daemon
from tests.fakes.task_world import until
from tests.test_docs import blocks

CONFIG = """\
database: sqlite:///newapi.db
tasks: {{interval: 0.2s}}
channels:
  - {{name: draw, type: midjourney-plus, base_url: "{mj}", key: mj-secret, models: ["mj_*", swap_face]}}
  - {{name: sing, type: suno, base_url: "{suno}", key: suno-secret, models: ["suno_*"]}}
tokens:
  - {{name: demo, key: sk-demo, quota: $10}}
"""
Start = Callable[..., Daemon]


def command(running: Daemon, *words: str) -> str:
    """What a command prints beside the daemon."""
    run = subprocess.run(
        [sys.executable, "-m", "newapi_proxy", *words, "-c", str(running.config)],
        cwd=running.config.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl")
async def test_readme(daemon: Start) -> None:
    """A picture from the prompt to the corrected detail, and a song, by the commands of README; the books add up."""
    async with midjourney.serving() as mj, suno.serving() as songs:
        mj.knobs.auto = True
        running = await asyncio.to_thread(daemon, CONFIG.format(mj=mj.url, suno=songs.url))
        shown = blocks("bash")
        assert len(shown) == 2
        outputs = []
        for block in shown:
            songs.tick()
            text = block.replace("http://127.0.0.1:3000", running.url).replace("sleep 5", "sleep 0.2")
            process = await asyncio.create_subprocess_exec(
                "bash", "-euo", "pipefail", "-c", text, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            ticking = asyncio.ensure_future(_tick(songs))
            out, err = await asyncio.wait_for(process.communicate(), 60)
            ticking.cancel()
            assert process.returncode == 0, (out, err)
            outputs.append(out.decode())
        assert outputs[0].count('"status":"SUCCESS"') == 3
        assert outputs[0].rstrip().endswith("}")
        assert orjson.loads(outputs[1])["data"]["status"] == "SUCCESS"
        actions = [seen.path.rpartition("/")[2] for seen in mj.submits]
        assert actions == ["imagine", "change", "simple-change", "action", "modal"]
        listed = orjson.loads(await asyncio.to_thread(command, running, "task", "list", "--format", "json"))
        assert sorted(row["action"] for row in listed) == [
            "IMAGINE", "INPAINT", "MODAL", "MUSIC", "UPSCALE", "VARIATION",
        ]  # fmt: skip
        assert sum(row["quota"] for row in listed) == 4 * 50_000 + 25_000
        assert {row["channel"] for row in listed} == {"draw", "sing"}
        assert {row["token"] for row in listed} == {"demo"}
        shown_task = await asyncio.to_thread(command, running, "task", "show", listed[-1]["task"])
        assert "a lighthouse in a storm" in shown_task
        assert "adds up" in await asyncio.to_thread(command, running, "db", "check")
        assert running.wait("task_finished")["outcome"] == "success"
        assert await asyncio.to_thread(running.stop) == 0


async def _tick(songs: suno.Suno) -> None:
    for _ in range(1_000):
        await asyncio.sleep(0.2)
        songs.tick()


async def test_failures_are_told(daemon: Start) -> None:
    """A failure is paid back, and `explain`, `task show` and the metrics' totals say so."""
    async with midjourney.serving() as mj:
        mj.knobs.auto = True
        running = await asyncio.to_thread(daemon, CONFIG.format(mj=mj.url, suno="http://127.0.0.1:9"))
        async with ClientSession() as session:
            id = await _imagine(session, running, "[fail]")
        line = await asyncio.to_thread(running.wait, "task_finished")
        assert (line["outcome"], line["refunded"], line["task"]) == ("failure", 50_000, id)
        told = await asyncio.to_thread(command, running, "explain", line["request_id"])
        assert "refunded 50000 units" in told
        assert "The job failed." in told
        shown = orjson.loads(await asyncio.to_thread(command, running, "task", "show", id, "--format", "json"))
        assert (shown[0]["status"], shown[0]["refunded"]) == ("FAILURE", 50_000)
        assert "adds up" in await asyncio.to_thread(command, running, "db", "check")


async def _imagine(session: ClientSession, running: Daemon, prompt: str) -> Any:
    headers = {"authorization": "Bearer sk-demo"}
    body = orjson.dumps({"prompt": prompt})
    async with session.post(f"{running.url}/mj/submit/imagine", data=body, headers=headers) as response:
        return orjson.loads(await response.read())["result"]


async def test_a_stop_while_upstream_thinks(daemon: Start) -> None:
    """A stop waits for a submission whose client has gone: what upstream accepts is charged and has its row."""
    async with midjourney.serving() as mj:
        mj.knobs.hang = True
        running = await asyncio.to_thread(daemon, CONFIG.format(mj=mj.url, suno="http://127.0.0.1:9"))
        async with ClientSession() as session:
            asking = asyncio.ensure_future(_imagine(session, running, "kept"))
            await asyncio.wait_for(mj.arrived.wait(), 10)
            asking.cancel()
        stopping = asyncio.ensure_future(asyncio.to_thread(running.stop))
        await asyncio.to_thread(running.wait, "draining")
        await asyncio.wait([stopping], timeout=1.0)  # longer than a drain without it takes
        mj.released.set()
        assert await stopping == 0
        with closing(sqlite3.connect(running.config.parent / "newapi.db")) as conn:
            assert conn.execute("SELECT quota, fail_reason FROM midjourneys").fetchall() == [(50_000, "")]
            assert conn.execute("SELECT remain_quota, used_quota FROM tokens").fetchall() == [(4_950_000, 50_000)]


async def test_a_kill_before_upstream_answers(daemon: Start) -> None:
    """Killed while upstream thinks, the daemon gives the hold back at its next start; open tasks are polled on."""
    async with midjourney.serving() as mj:
        running = await asyncio.to_thread(daemon, CONFIG.format(mj=mj.url, suno="http://127.0.0.1:9"))
        async with ClientSession() as session:
            id = await _imagine(session, running, "kept")
            mj.arrived.clear()
            mj.knobs.hang = True
            asking = asyncio.ensure_future(_imagine(session, running, "lost"))
            await asyncio.wait_for(mj.arrived.wait(), 10)
            while mj.seen[-1].body != {"prompt": "lost"}:
                mj.arrived.clear()
                await asyncio.wait_for(mj.arrived.wait(), 10)
            await asyncio.to_thread(running.kill)
            with pytest.raises(ClientError):
                await asking
        mj.knobs.hang = False
        mj.released.set()
        mj.tick(9)
        await asyncio.to_thread(running.start)

        async def done() -> bool:
            with closing(sqlite3.connect(running.config.parent / "newapi.db")) as conn:
                rows = conn.execute("SELECT mj_id, status FROM midjourneys").fetchall()
            return rows == [(id, "SUCCESS")]

        await until(done)
        with closing(sqlite3.connect(running.config.parent / "newapi.db")) as conn:
            assert conn.execute("SELECT remain_quota, used_quota FROM tokens").fetchall() == [(4_950_000, 50_000)]
        assert "adds up" in await asyncio.to_thread(command, running, "db", "check")


async def test_a_channel_is_tried(tmp_path: Path) -> None:
    """`channel test` asks a channel of tasks after none, which proves address and key and makes nothing."""
    async with midjourney.serving() as mj, suno.serving() as songs:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(mj=mj.url, suno=songs.url))
        config.chmod(0o600)
        for channel, fake in (("draw", mj), ("sing", songs)):
            for code, secret in ((0, fake.knobs.secret), (1, "another")):
                fake.knobs.secret = secret
                command = [sys.executable, "-m", "newapi_proxy", "channel", "test", channel, "--format", "json"]
                process = await asyncio.create_subprocess_exec(
                    *command, "-c", str(config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
                )
                out, err = await asyncio.wait_for(process.communicate(), 30)
                assert process.returncode == code, (out, err)
                (row,) = orjson.loads(out)
                assert (row["kind"], row["ok"]) == ("tasks", code == 0)
            assert len(fake.seen) == 2
            assert fake.submits == []


def test_config_paths(tmp_path: Path) -> None:
    """An address of ours that is none is a fault with its place."""
    path = tmp_path / "config.yaml"
    path.write_text("public_url: nowhere\n")
    run = subprocess.run(
        [sys.executable, "-m", "newapi_proxy", "check", "-c", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"{path}:1:13: public_url:" in run.stderr
