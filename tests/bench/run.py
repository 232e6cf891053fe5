"""The benchmark: `python -m tests.bench`, or `python tests/bench/run.py`.

The proxies sit on one core, one of them busy at a time; the mock provider and the load generator on another. Rounds are
interleaved and medians taken; absolute numbers differ between machines, ratios of one run can be compared.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import orjson
import uvloop

from tests.bench import machine, profiling, report, scenarios
from tests.bench.subjects import Bare, Gateway, Subject
from tests.fakes.process import free_port

Rounds = dict[str, dict[str, list[float]]]


class Direct:
    """No proxy: the mock provider itself, for what the way there and back costs without one."""

    name = "direct"

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    def stop(self) -> None:
        """Nothing of its own."""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute: two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--only", default="", help=f"comma separated: memory, {', '.join(scenarios.SCENARIOS)}")
    parser.add_argument("--json", metavar="FILE", help="the numbers of every round too; - for stdout")
    parser.add_argument("--quiet", action="store_true", help="the daemon's log goes to /dev/null instead of a file")
    parser.add_argument("--limited", action="store_true", help="limits and budgets on, against the daemon without them")
    parser.add_argument("--daemon-only", action="store_true", help="no bare proxy: no ratios")
    parser.add_argument("--profile", choices=list(scenarios.SCENARIOS), help="the daemon's top functions in a scenario")
    parser.add_argument("--top", type=int, default=45, help="lines of the profile")
    options = parser.parse_args(given)
    if options.quick:
        options.rounds, options.seconds = 2, 1.2
    return options


async def memory(upstream: int, options: argparse.Namespace, rounds: Rounds) -> None:
    """Memory of fresh processes, one after the other."""
    makers: list[Callable[[], Subject]] = [lambda: Gateway(upstream, quiet=options.quiet)]
    if options.limited:
        makers.append(lambda: Gateway(upstream, quiet=options.quiet, limited=True))
    elif not options.daemon_only:
        makers.append(lambda: Bare(upstream))
    for make in makers:
        subject = make()
        try:
            keep(rounds, subject, await scenarios.idle_memory(subject, 0))
        finally:
            subject.stop()


def keep(rounds: Rounds, subject: Subject, numbers: dict[str, float]) -> None:
    """Adds one round's numbers."""
    for measure, number in numbers.items():
        rounds[subject.name][measure].append(number)


async def measure(upstream: int, pid: int, options: argparse.Namespace) -> Rounds:
    """All rounds of all scenarios."""
    rounds: Rounds = defaultdict(lambda: defaultdict(list))
    wanted = options.only.split(",") if options.only else ["memory", *scenarios.SCENARIOS]
    subjects: list[Subject] = [Gateway(upstream, quiet=options.quiet)]
    try:
        if options.limited:
            subjects.append(Gateway(upstream, quiet=options.quiet, limited=True))
        elif not options.daemon_only:
            subjects.append(Bare(upstream))
        direct = Direct(upstream, pid)
        for number in range(options.rounds):
            order = subjects if number % 2 else subjects[::-1]
            for name, scenario in scenarios.SCENARIOS.items():
                for subject in [*order, *([direct] if name == "latency" else [])] if name in wanted else ():
                    gc.collect()
                    keep(rounds, subject, await scenario(subject, options.seconds))
                    progress(f"round {number + 1}/{options.rounds} {name} {subject.name}")
    finally:
        for subject in subjects:
            subject.stop()
    if "memory" in wanted:
        progress("memory")
        await memory(upstream, options, rounds)
    progress("")
    return rounds


def progress(text: str) -> None:
    """One line that is overwritten, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and prints the table."""
    options = arguments(given)
    machine.more_files()
    core, other = machine.cores()
    os.sched_setaffinity(0, {other})
    port = free_port()
    provider = machine.script("tests.bench.upstream", str(port), core=other)
    started = time.monotonic()
    try:
        if options.profile:
            print(uvloop.run(profiling.profiled(port, options.profile, options.seconds, options.top)))
            return 0
        rounds = uvloop.run(measure(port, provider.pid, options))
    except scenarios.Faulty as fault:
        print(f"\nnot measured: {fault}", file=sys.stderr)
        return 1
    finally:
        provider.kill()
        provider.wait()
    report.added(rounds)
    pair = ("limited", "daemon") if options.limited else ("daemon", "bare")
    rows = report.result(rounds, *pair)
    found: dict[str, Any] = {
        "machine": machine.described(),
        "proxy core": core,
        "other core": other,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "took": round(time.monotonic() - started, 1),
        "rows": rows,
        "raw": rounds,
    }
    if options.json:
        data = orjson.dumps(found, option=orjson.OPT_INDENT_2)
        if options.json == "-":
            print(data.decode())
            return 0
        Path(options.json).write_bytes(data)
    about = found["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, Python {about['python']}")
    print(f"{options.rounds} rounds of {options.seconds} s, {found['took']} s in all")
    print(report.table(rows, rounds.get("direct", {}), *pair))
    return 0


if __name__ == "__main__":
    sys.exit(main())
