"""Processes under measurement: pinned to a core, read from /proc."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cores() -> tuple[int, int]:
    """The proxies' core and the core of everything else; one and the same where the machine has no second."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[1 % len(usable)]


def more_files() -> None:
    """Lets this process and its children open as many files as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))


def pin(pid: int, core: int) -> None:
    """Keeps every thread of a process on one core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def cpu(pid: int) -> float:
    """Seconds of CPU, user and system, of all threads: in nanoseconds where the kernel tells, else in clock ticks."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_bytes().split()[0])
    except OSError:
        total = 0
    if total:
        return total / 1e9
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def loop_cpu(pid: int) -> float:
    """The same of the main thread alone, which runs the event loop; the rest is the database's writer and the like."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_bytes().split()[0]) / 1e9


def rss(pid: int) -> int:
    """Bytes of memory that a process keeps."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE


def open_files(pid: int) -> int:
    """How many file descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def script(module: str, *arguments: str, core: int) -> subprocess.Popen[bytes]:
    """Starts `python -m module …` on a core and waits for its word that it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        process.kill()
        raise RuntimeError(f"{module} did not start")
    return process


def described() -> dict[str, str | int | list[float]]:
    """The machine a result comes from."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.machine(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": [round(number, 2) for number in os.getloadavg()],
    }
