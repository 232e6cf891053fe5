"""RF5: SIGHUP every 20 ms under load, the file good, changed and broken in turn.

python -m tests.reliability.reloads --seed 7 --reloads 10000 --rate 500
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.bench import machine
from tests.reliability import storm

PAUSE = 0.020
WARM = 30  # reloads before the first look at memory
FILLED = 2500  # … where growth is judged closely: caches of known size are full by then


async def run(
    folder: Path, seed: int, reloads: int, rate: float, growth: float, *, warm: int = WARM
) -> tuple[list[str], str]:
    """What went wrong: a request that failed or saw two configurations, memory above `growth` MiB, a leaked file."""
    async with storm.world(folder) as one:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.blow(one, seed, rate, over, faults=False))
            await _reload(one, warm)
            memory, files = machine.rss(one.daemon.pid), _files(one.daemon.pid)
            await _reload(one, reloads)
            grown, left = (machine.rss(one.daemon.pid) - memory) / 2**20, _files(one.daemon.pid) - files
            over.set()
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
    if grown > growth:
        faults.append(f"memory grew by {grown:.1f} MiB")
    if left > 0:
        faults.append(f"{left} files were left open")
    return faults, f"{storm.tally(one)}; {reloads} reloads, {grown:+.1f} MiB, {left:+d} files"


async def _reload(one: storm.World, count: int) -> None:
    port = int(one.daemon.url.rpartition(":")[2])
    good, changed = (storm.config(port, one.upstream.url, mark) for mark in "ab")
    texts = (good, changed, changed.replace("storm:", "storm: ["), good + "nonsense: 1\n")
    for number in range(count):
        one.reconfigure(texts[number % len(texts)])
        one.daemon.signal(signal.SIGHUP)
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
            *await run(folder, given.seed, given.reloads, given.rate, given.growth, warm=FILLED), given.seed
        )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
