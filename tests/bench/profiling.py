"""Where the daemon's time goes: py-spy where it is installed, else cProfile around the whole process."""

from __future__ import annotations

import asyncio
import io
import pstats
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench import scenarios
from tests.bench.subjects import Gateway


async def profiled(upstream: int, scenario: str, seconds: float, top: int) -> str:
    """The top functions while a scenario runs, as text."""
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as folder:
        output = Path(folder) / "profile"
        if shutil.which("py-spy"):
            return await _sampled(upstream, scenario, seconds, top, output)
        return await _counted(upstream, scenario, seconds, top, output)


async def _counted(upstream: int, scenario: str, seconds: float, top: int, output: Path) -> str:
    subject = Gateway(upstream, profile=output)
    try:
        numbers = await scenarios.SCENARIOS[scenario](subject, seconds)
    finally:
        subject.stop()
    text = io.StringIO()
    stats = pstats.Stats(str(output), stream=text)
    stats.sort_stats("tottime").print_stats(top)
    stats.sort_stats("cumulative").print_stats(top)
    return f"{numbers} (slowed by the profiler: read shares, not times; the loop's thread only)\n{text.getvalue()}"


async def _sampled(upstream: int, scenario: str, seconds: float, top: int, output: Path) -> str:
    subject = Gateway(upstream)
    try:
        sampler = await asyncio.create_subprocess_exec(
            "py-spy", "record", "--pid", str(subject.pid), "--format", "raw", "--output", str(output), "--nonblocking",
            "--duration", str(max(1, round(seconds))), "--rate", "200", stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        numbers = await scenarios.SCENARIOS[scenario](subject, seconds + 1.0)
        await sampler.wait()
    finally:
        subject.stop()
    own: Counter[str] = Counter()
    under: Counter[str] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in set(frames):
            under[frame] += int(count)
    whole = sum(own.values()) or 1
    parts = [f"{numbers}"]
    for title, counter in (("own time", own), ("with what it calls", under)):
        parts.append(f"\n{title}")
        parts += [f"{100 * count / whole:6.1f} %  {frame}" for frame, count in counter.most_common(top)]
    return "\n".join(parts)
