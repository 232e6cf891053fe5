"""What is measured: the bare proxy and the daemon with everything on, each a process on the same core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from tests.bench import machine, traffic
from tests.fakes.process import Daemon, free_port

DRAIN_SECONDS = 15.0
CONFIG = """\
listen: 127.0.0.1:{port}
database: sqlite:///bench.db
admin: {{keys: [bench-admin-key]}}
relay: {{first_token_timeout: 10m, streaming_timeout: 10m, total_timeout: 1h}}
prices:
  "bench-*": {{input: 2.5, output: 10, cache_read: 1.25}}
channels:
  - name: provider
    type: openai
    base_url: http://127.0.0.1:{upstream}
    key: {upstream_key}
    models: [{models}]
    {channel_limits}
  - name: other
    type: openai
    base_url: http://127.0.0.1:{upstream}
    key: {upstream_key}
    models: [{models}]
    priority: -1
tokens:
  - {{name: bench, key: {key}, quota: $100000{limits}}}
metrics: {{listen: "127.0.0.1:{metrics}"}}
log: {{level: info, format: json}}
{groups}
"""
MANY = "{concurrency: 100000, rpm: 10000000, tpm: 1000000000}"  # never reached
LIMITED = {  # as the documentation's own examples have them
    "limits": f", limits: {MANY}, budget: {{amount: $50000, every: day}}",
    "channel_limits": f"limits: {MANY}",
    "groups": "",
}


class Subject(Protocol):
    """A proxy under measurement."""

    @property
    def name(self) -> str:
        """Its column in the table."""
        ...

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def stop(self) -> None:
        """Ends it."""
        ...


class Bare:
    """The bare aiohttp proxy."""

    name = "bare"

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        core, _ = machine.cores()
        self._process = machine.script("tests.bench.bare", str(self.port), f"http://127.0.0.1:{upstream}", core=core)
        self.pid = self._process.pid

    def stop(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


class Gateway:
    """The daemon: SQLite ledger, keys, prices, request lines in a file, metrics. Its files go with it.

    `limited`: with limits on key and channel, and a budget.
    """

    def __init__(
        self, upstream: int, *, quiet: bool = False, profile: Path | None = None, limited: bool = False
    ) -> None:
        self.name = "limited" if limited else "daemon"
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        self.port = free_port()
        config = folder / "config.yaml"
        config.write_text(
            CONFIG.format(
                port=self.port,
                upstream=upstream,
                metrics=free_port(),
                key=traffic.KEY,
                upstream_key=traffic.UPSTREAM_KEY,
                models=", ".join(traffic.MODELS),
                **(LIMITED if limited else dict.fromkeys(LIMITED, "")),
            )
        )
        config.chmod(0o600)
        python = (sys.executable,) if profile is None else (sys.executable, "-m", "cProfile", "-o", str(profile))
        core, _ = machine.cores()
        self.daemon = Daemon(
            config,
            f"http://127.0.0.1:{self.port}",
            log=Path(os.devnull) if quiet else folder / "log.jsonl",
            command=("taskset", "-c", str(core), *python, "-m", "newapi_proxy"),
        )
        self.daemon.start()
        self.pid = self.daemon.pid
        machine.pin(self.pid, core)

    def stop(self) -> None:
        """Ends it, waiting for its drain; one that does not come is told with what the daemon says of its state."""
        self.daemon.signal(signal.SIGUSR1)
        try:
            self.daemon.stop(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            log = self.daemon.log.read_bytes() if self.daemon.log is not None and self.daemon.log.is_file() else b""
            lines = [line for line in log.splitlines() if b'"event":"request"' not in line]
            print("the daemon did not drain and was killed", *lines[-4:], sep="\n", file=sys.stderr)
        self._folder.cleanup()
