"""The measurements, each a coroutine of (subject, seconds): numbers by name.

CPU is the proxy's user and system time over what the load generator saw finished in the same window: it hardly depends
on what else the machine does, where requests per second do.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tests.bench import load, machine, traffic
from tests.bench.subjects import Subject

Numbers = dict[str, float]

CONNECTIONS: Final = 32
PACED_STREAMS: Final = 100
BURST_STREAMS: Final = 20
IDLE_STREAMS: Final = 1_000
WARM: Final = 0.4
CALM: Final = 0.2  # broken streams are cleared away before the next measurement
RATE: Final = 100.0
LATENCY_SECONDS: Final = 2.5  # at least: a p99 wants some hundred samples


class Faulty(Exception):
    """Answers were wrong: the numbers would measure something else."""


def _checked(tally: load.Tally, name: str) -> None:
    if tally.faults:
        raise Faulty(f"{name}: {tally.faults} faults, the first: {tally.first_fault!r}")


async def _window(subject: Subject, group: load.Group, seconds: float) -> tuple[float, float, int, int]:
    """Wall seconds, CPU seconds, answers and chunks between two moments, after a warm-up."""
    await asyncio.sleep(WARM)
    tally = group.tally
    wall, busy, done, chunks = time.perf_counter(), machine.cpu(subject.pid), tally.done, tally.chunks
    await asyncio.sleep(seconds)
    wall, busy = time.perf_counter() - wall, machine.cpu(subject.pid) - busy
    done, chunks = tally.done - done, tally.chunks - chunks
    group.close()
    _checked(tally, subject.name)
    await asyncio.sleep(CALM)
    return wall, busy, done, chunks


def _request(subject: Subject, model: str) -> bytes:
    return traffic.request(f"127.0.0.1:{subject.port}", model)


async def whole(subject: Subject, seconds: float) -> Numbers:
    """Whole answers of 660 bytes, 32 connections in a closed loop."""
    group = await load.closed_loop(subject.port, _request(subject, traffic.WHOLE), CONNECTIONS)
    loop, before = machine.loop_cpu(subject.pid), group.tally.done
    wall, busy, done, _ = await _window(subject, group, seconds)
    loop = (machine.loop_cpu(subject.pid) - loop) / (group.tally.done - before)  # the warm-up is in it
    return {"req/s": done / wall, "CPU us/request": busy * 1e6 / done, "CPU us/request, loop only": loop * 1e6}


async def short(subject: Subject, seconds: float) -> Numbers:
    """Streams of 20 chunks that come at once, 32 connections in a closed loop."""
    group = await load.closed_loop(subject.port, _request(subject, traffic.SHORT), CONNECTIONS)
    _, busy, done, _ = await _window(subject, group, seconds)
    return {"CPU us/short stream": busy * 1e6 / done}


async def burst(subject: Subject, seconds: float) -> Numbers:
    """Streams of 1 000 chunks as fast as they come, 20 at a time."""
    group = await load.closed_loop(subject.port, _request(subject, traffic.BURST), BURST_STREAMS)
    wall, busy, _, chunks = await _window(subject, group, seconds)
    return {"CPU us/chunk burst": busy * 1e6 / chunks, "chunks/s burst": chunks / wall}


async def paced(subject: Subject, seconds: float) -> Numbers:
    """100 streams with a chunk each 10 ms, their phases spread, so that every chunk arrives alone."""
    request = _request(subject, traffic.PACED)
    group = await load.staggered(subject.port, request, PACED_STREAMS, WARM / 2)
    _, busy, _, chunks = await _window(subject, group, seconds)
    return {"CPU us/chunk paced": busy * 1e6 / chunks}


async def latency(subject: Subject, seconds: float) -> Numbers:
    """Whole answers at 100 a second as the client sees them: p50 and p99, not yet less the direct way's."""
    request = _request(subject, traffic.WHOLE)
    times, tally = await load.open_loop(subject.port, request, RATE, max(seconds, LATENCY_SECONDS))
    _checked(tally, subject.name)
    cuts = statistics.quantiles(times[len(times) // 10 :], n=100)  # the first ones open connections
    return {"p50 us": cuts[49] * 1e6, "p99 us": cuts[98] * 1e6}


async def idle_memory(subject: Subject, _: float) -> Numbers:
    """What the process keeps before its work, and what 1 000 open, silent streams add. For a fresh process."""
    fresh = machine.rss(subject.pid)
    await _few(subject)
    before = machine.rss(subject.pid)
    group = await load.staggered(subject.port, _request(subject, traffic.IDLE), IDLE_STREAMS, 1.0)
    await _until(lambda: group.tally.chunks >= 2 * IDLE_STREAMS, subject, f"{IDLE_STREAMS} streams open")
    during = machine.rss(subject.pid)
    _checked(group.tally, subject.name)
    group.close()
    await asyncio.sleep(CALM)  # the loop closes the connections
    return {"idle RSS MiB": fresh / 2**20, "KiB/idle stream": (during - before) / 1024 / IDLE_STREAMS}


async def _few(subject: Subject) -> None:
    """Some requests and streams, so that what is made on first use is made."""
    for model in (traffic.WHOLE, traffic.SHORT):
        group = await load.closed_loop(subject.port, _request(subject, model), CONNECTIONS)
        await _until(lambda tally=group.tally: tally.done >= 200 or tally.faults, subject, "200 answers")
        group.close()
        _checked(group.tally, subject.name)


async def _until(reached: Callable[[], object], subject: Subject, what: str) -> None:
    for _ in range(600):
        if reached():
            return
        await asyncio.sleep(0.05)
    raise Faulty(f"{subject.name}: not {what} after 30 s")


SCENARIOS: Final[dict[str, Callable[[Subject, float], Awaitable[Numbers]]]] = {
    "whole": whole,
    "short": short,
    "burst": burst,
    "paced": paced,
    "latency": latency,
}
