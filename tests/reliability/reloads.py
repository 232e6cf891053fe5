"""RF5: SIGHUP every 20 ms under load, the file good, changed and broken in turn.

    python -m tests.reliability.reloads --seed 7 --reloads 10000 --rate 500

Memory and files are read at rest: the load is held, the requests have ended, one more reload is over. Three looks at
memory, as no single number tells a leak from a heap that settles:

- Python's blocks (`sys.getallocatedblocks`, in the state line), to which no fragmentation and no cache of SQLite adds,
  less the request ids that the daemon remembers, of which it forgets ten thousand at once: less than one in four
  reloads. Whatever a reload does not let go of, under load too, is one block or more each time.
- What Python has asked for while it is reloaded without load, counted to the byte by `tracemalloc`, in a life of its
  own: 64 bytes a reload. The process's memory would not tell: a leak of megabytes fills holes in the heap first.
- The process's memory under load, once so many requests have come that the ids are all there: `growth` MiB, without
  the window that grew most. That is a step: the first time that the database's writing moved to its thread, whose
  connection keeps 8 MiB of pages, or a crowd in flight when the machine stalled. A leak grows in every window.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from newapi_proxy.web.inbound import MOST_IDS
from tests.bench import machine
from tests.reliability import storm

PAUSE: Final = 0.020
WARM: Final = 30  # signals before the first look at memory
FILLED: Final = 3 * MOST_IDS  # requests after which growth is judged closely
WINDOWS: Final = 8  # looks at memory under load
IDLE: Final = 2  # one part in so many of the signals comes once more, without load
AT_A_TIME: Final = 64  # requests: where the machine stalls, they must not pile up in the daemon's memory
BLOCKS: Final = (3_000, 0.25)  # that may be left under load: in all, and by each reload
BYTES: Final = (64 << 10, 64)  # … without load


class Stand(msgspec.Struct, frozen=True):
    """The daemon at rest: reloads that took so far, bytes of memory, Python's blocks less the ids' own, open files.

    `traced`: the bytes that Python has asked for, where that is traced.
    """

    reloads: int
    memory: int
    blocks: int
    traced: int
    files: int


async def run(
    folder: Path, seed: int, reloads: int, rate: float, growth: float, *, filled: int = 0
) -> tuple[list[str], str]:
    """What went wrong: a request that failed or saw two configurations, memory that grows, a leaked file.

    `filled`: so many requests come before the first look at memory. Where it is 0, what load leaves is not judged but
    by `growth`.
    """
    async with storm.world(folder) as one:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.blow(one, seed, rate, over, faults=False, most=AT_A_TIME))
            await _reload(one, WARM)
            while len(one.answers) < filled:
                await _reload(one, WARM)
            stands = [await _rest(one)]
            for _ in range(WINDOWS):
                one.up.set()
                await _reload(one, reloads // WINDOWS)
                stands.append(await _rest(one))
            over.set()
            one.up.set()
        idle = await _traced(one, reloads // IDLE)
    faults = one.faults()
    faults += [
        f"{plan.id}: status {answer.status}, broken {answer.broken}: {answer.body[-200:]!r}"
        for plan, answer in one.answers.values()
        if not answer.complete
    ]
    marks = {(call.headers.get("x-conf"), call.body.get("user")) for call in one.upstream.calls}
    faults += [f"one request saw two configurations: {mark}" for mark in marks if mark[0] != mark[1]]
    if reloads >= WARM and marks != {("a", "a"), ("b", "b")}:
        faults.append(f"not both configurations were in use: {marks}")
    faults += _grown(stands, idle, growth, filled=filled > 0)
    return faults, f"{storm.tally(one)}; {reloads} signals, {_told(stands)}; without load {_told(idle)}"


async def _traced(one: storm.World, count: int) -> list[Stand]:
    """Two looks at another life of the daemon without load, so many signals between them."""
    await one.stop()
    one.daemon.environment["PYTHONTRACEMALLOC"] = "1"
    await one.start()
    await _reload(one, WARM)
    first = await _rest(one)
    await _reload(one, count)
    return [first, await _rest(one)]


def _grown(stands: Sequence[Stand], idle: Sequence[Stand], growth: float, *, filled: bool) -> list[str]:
    """What is there more than may be; blocks under load only where the caches were `filled` before."""
    faults = []
    for name, (first, *_, last) in (("under load", stands), ("without load", idle)):
        if last.files > first.files:
            faults.append(f"{name}: {last.files - first.files} files were left open")
    blocks, count = stands[-1].blocks - stands[0].blocks, stands[-1].reloads - stands[0].reloads
    if filled and blocks > BLOCKS[0] + BLOCKS[1] * count:
        faults.append(f"under load: {count} reloads left {blocks} blocks of memory")
    traced, count = idle[-1].traced - idle[0].traced, idle[-1].reloads - idle[0].reloads
    if traced > BYTES[0] + BYTES[1] * count:
        faults.append(f"without load: {count} reloads left {traced} bytes of memory")
    steps = [after.memory - before.memory for before, after in pairwise(stands)]
    grown = (sum(steps) - max(steps)) / 2**20
    if grown > growth:
        faults.append(f"under load: memory grew by {grown:.1f} MiB beside one step")
    return faults


def _told(stands: Sequence[Stand]) -> str:
    """Looks at one daemon as a line: what grew, and how."""
    first, last = stands[0], stands[-1]
    memory = " ".join(f"{one.memory / 2**20:.1f}" for one in stands)
    blocks = " ".join(str(one.blocks - first.blocks) for one in stands)
    left = f"{last.files - first.files:+d} files, {last.traced - first.traced:+d} bytes traced"
    return f"{last.reloads - first.reloads} reloads, {left}, blocks {blocks}, MiB {memory}"


async def _reload(one: storm.World, count: int) -> None:
    good, changed = _files_of(one)
    texts = (good, changed, changed.replace("storm:", "storm: ["), good + "nonsense: 1\n")
    for number in range(count):
        one.reconfigure(texts[number % len(texts)])
        one.daemon.signal(signal.SIGHUP)
        await asyncio.sleep(PAUSE)


def _files_of(one: storm.World) -> list[str]:
    port = int(one.daemon.url.rpartition(":")[2])
    return [storm.config(port, one.upstream.url, mark) for mark in "ab"]


async def _rest(one: storm.World) -> Stand:
    """Holds the load, waits until nothing is under way, then looks. The load stays held."""
    one.up.clear()
    state = await _state(one)
    while state["inflight"] or state["exchanges"]:
        state = await _state(one)
    one.reconfigure(_files_of(one)[0])
    one.daemon.signal(signal.SIGHUP)
    before, state = state, await _state(one)
    while state["reloads"] == before["reloads"]:
        state = await _state(one)
    while state["reloads"] != before["reloads"]:  # a signal of before may have had its turn first
        await asyncio.sleep(10 * PAUSE)
        before, state = state, await _state(one)
    pid = one.daemon.pid
    blocks = state["blocks"] - _ids(len(one.answers))
    return Stand(state["reloads"], machine.rss(pid), blocks, state["traced"], _files(pid))


def _ids(requests: int) -> int:
    """How many ids the daemon remembers after so many requests, each with its own: a text and a block each."""
    return requests - MOST_IDS * max(0, (requests - 1) // MOST_IDS - 1)


async def _state(one: storm.World) -> dict[str, Any]:
    """The daemon's next state line."""
    assert one.daemon.log is not None
    with one.daemon.log.open("rb") as lines:
        lines.seek(0, os.SEEK_END)
        one.daemon.signal(signal.SIGUSR1)
        rest = b""
        while True:
            *whole, rest = (rest + lines.read()).split(b"\n")
            for line in whole:
                if b'"event":"state"' in line:
                    found: dict[str, Any] = orjson.loads(line)
                    return found
            await asyncio.sleep(PAUSE)


def _files(pid: int) -> int:
    """Open files that are no sockets: connections come and go with the load."""
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            count += not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            continue
    return count


async def main() -> int:
    """The script."""
    given = storm.options(__doc__, reloads=10_000, rate=500.0, growth=1.0)
    async with storm.place(given) as folder:
        return storm.report(
            *await run(folder, given.seed, given.reloads, given.rate, given.growth, filled=FILLED), given.seed
        )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
