"""What a chunk costs by format: `python -m tests.bench.formats`.

A chat stream to a chat client against the same daemon handing bytes on untouched, and translated streams against it.
Burst: chunks as fast as they come; paced: each arrives alone. Subjects take turns; CPU is the process's own.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import uvloop
import yaml

from tests.bench import load, machine, scenarios, traffic
from tests.fakes.process import Daemon, free_port

PROVIDERS: Final = {"": "openai", "-claude": "anthropic", "-gemini": "gemini"}
SPEEDS: Final = {"burst": (traffic.BURST, scenarios.BURST_STREAMS), "paced": (traffic.PACED, scenarios.PACED_STREAMS)}


class Way(NamedTuple):
    """One way through the daemon: who asks in which format, and the mark of the provider's."""

    name: str
    route: str
    mark: str
    untouched: bool = False


CHAT: Final = "/v1/chat/completions"
WAYS: Final = (
    Way("bytes untouched", CHAT, "", untouched=True),
    Way("chat to chat", CHAT, ""),
    Way("anthropic to chat", CHAT, "-claude"),
    Way("gemini to chat", CHAT, "-gemini"),
    Way("anthropic to anthropic", "/v1/messages", "-claude"),
    Way("chat to anthropic", "/v1/messages", ""),
)


class Subject:
    """A daemon on the proxies' core, in one of its two builds."""

    def __init__(self, upstream: int, module: str) -> None:
        self.name = module
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        self.port = free_port()
        config = folder / "config.yaml"
        config.write_text(_config(self.port, upstream))
        config.chmod(0o600)
        core, _ = machine.cores()
        command = ("taskset", "-c", str(core), sys.executable, "-m", module)
        self._daemon = Daemon(config, f"http://127.0.0.1:{self.port}", log=folder / "log.jsonl", command=command)
        self._daemon.start()
        self.pid = self._daemon.pid
        machine.pin(self.pid, core)

    def stop(self) -> None:
        """Ends it; its files go with it."""
        self._daemon.signal(signal.SIGTERM)
        self._daemon.stop()
        self._folder.cleanup()


def _config(port: int, upstream: int) -> str:
    channels = [
        {
            "name": type_,
            "type": type_,
            "base_url": f"http://127.0.0.1:{upstream}",
            "key": traffic.UPSTREAM_KEY,
            "models": [f"{model}{mark}" for model, _ in SPEEDS.values()],
        }
        for mark, type_ in PROVIDERS.items()
    ]
    return yaml.safe_dump(
        {
            "listen": f"127.0.0.1:{port}",
            "database": "sqlite:///bench.db",
            "relay": {"first_token_timeout": "10m", "streaming_timeout": "10m", "total_timeout": "1h"},
            "prices": {"bench-*": {"input": 2.5, "output": 10}},
            "channels": channels,
            "tokens": [{"name": "bench", "key": traffic.KEY, "quota": "$100000"}],
        }
    )


async def measured(subject: Subject, way: Way, speed: str, seconds: float) -> float:
    """CPU µs per chunk that reached the client."""
    model, streams = SPEEDS[speed]
    request = traffic.request(f"127.0.0.1:{subject.port}", f"{model}{way.mark}").replace(
        CHAT.encode(), way.route.encode()
    )
    group = await load.staggered(subject.port, request, streams, scenarios.WARM / 2)
    _, busy, _, chunks = await scenarios._window(subject, group, seconds)
    return busy * 1e6 / chunks


async def rounds(upstream: int, options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Every way at every speed, in turns."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    daemon, untouched = Subject(upstream, "newapi_proxy"), Subject(upstream, "tests.bench.untouched")
    try:
        for number in range(options.rounds):
            for speed in SPEEDS:
                for way in WAYS if number % 2 else WAYS[::-1]:
                    gc.collect()
                    subject = untouched if way.untouched else daemon
                    found[way.name, speed].append(await measured(subject, way, speed, options.seconds))
    finally:
        daemon.stop()
        untouched.stop()
    return found


def table(found: dict[tuple[str, str], list[float]]) -> str:
    """Medians, and medians of each round's ratios: to bytes untouched, and to chat passed on."""
    lines = [f"{'CPU us/chunk':24}" + "".join(f"{speed:>10}{'x bytes':>9}{'x chat':>8}" for speed in SPEEDS)]
    for way in WAYS:
        cells = ""
        for speed in SPEEDS:
            mine = found[way.name, speed]
            ratios = [
                statistics.median(one / base for one, base in zip(mine, found[other, speed], strict=True))
                for other in ("bytes untouched", "chat to chat")
            ]
            cells += f"{statistics.median(mine):10.2f}{ratios[0]:9.2f}{ratios[1]:8.2f}"
        lines.append(f"{way.name:24}{cells}")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.formats", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    options = parser.parse_args(given)
    machine.more_files()
    _, other = machine.cores()
    os.sched_setaffinity(0, {other})
    port = free_port()
    provider = machine.script("tests.bench.upstream", str(port), core=other)
    started = time.monotonic()
    try:
        print(table(uvloop.run(rounds(port, options))))
    finally:
        provider.kill()
        provider.wait()
    about = machine.described()
    print(f"{about['cpu']}, load {about['load']}, {options.rounds} rounds, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
