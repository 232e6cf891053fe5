"""The daemon as a real process: started with a configuration, waited for by its own notification, stopped by signal.

Knows systemd's notify protocol and the log's shape; nothing of the package's inside.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback that nobody listens on at this moment, another one at each call."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:  # the kernel may offer again what nobody has bound yet
            _given.add(port)
            return port


class Daemon:
    """One daemon of a configuration file, which can be started again after its end.

    With `log` its lines go to that file and are read from there afterwards; without, they are collected as they come,
    and `wait` waits for one. `wrapper` stands before the command line: `taskset -c 0`, `python -m cProfile`.
    """

    def __init__(
        self,
        config: Path,
        url: str,
        *,
        log: Path | None = None,
        command: tuple[str, ...] = (sys.executable, "-m", "newapi_proxy"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.url = url
        self.log = log
        self.command = command
        self.environment = dict(environment or {})
        self.lines: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._news = threading.Condition()
        self._readers: list[threading.Thread] = []
        self._errors: list[bytes] = []

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    @property
    def errors(self) -> str:
        """What was written on stderr so far."""
        return b"".join(self._errors).decode("utf-8", "replace")

    def start(self) -> Daemon:
        """Starts and waits until the daemon says that it serves. Raises RuntimeError with its words if it does not."""
        with Readiness(self.config.parent) as readiness:
            environment = os.environ | {"NOTIFY_SOCKET": readiness.path, "PYTHONUNBUFFERED": "1"} | self.environment
            environment["PYTHONPATH"] = str(ROOT)
            output = self.log.open("ab") if self.log is not None else subprocess.PIPE
            self.process = subprocess.Popen(
                [*self.command, "serve", "-c", str(self.config)],
                stdout=output,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=self.config.parent,
                preexec_fn=_more_files,
            )
            if self.log is not None:
                output.close()  # type: ignore[union-attr]
            self._follow(self.process)
            if not readiness.wait(self.process, START_SECONDS):
                self.kill()
                raise RuntimeError(f"the daemon did not become ready: {self.errors} {self.lines[-5:]}")
        return self

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        self._readers = []
        for pipe, take in ((process.stdout, self._line), (process.stderr, self._errors.append)):
            if pipe is not None:
                reader = threading.Thread(target=_drain, args=(pipe, take), daemon=True)
                reader.start()
                self._readers.append(reader)

    def _line(self, raw: bytes) -> None:
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            line = {"event": "not JSON", "text": raw.decode("utf-8", "replace")}
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def wait(self, wanted: Callable[[dict[str, Any]], bool] | str, seconds: float = 10.0) -> dict[str, Any]:
        """The first log line that is wanted (a predicate, or an event's name), now or within `seconds`."""
        fits = wanted if callable(wanted) else (lambda line: line.get("event") == wanted)
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.lines if fits(line)][:1]
            return bool(found)

        with self._news:
            if not self._news.wait_for(look, seconds):
                raise TimeoutError(f"no such line within {seconds} s; the last ones: {self.lines[-5:]}")
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and the exit status; SIGKILL when it takes longer than `seconds`."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self._reaped(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> int:
        """SIGKILL, and the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        return self._reaped(10.0)

    def _reaped(self, seconds: float) -> int:
        assert self.process is not None
        status = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(5.0)
        return status


class Readiness:
    """A notify socket as systemd has it: waits for READY=1."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / f"notify-{free_port()}")
        if len(self.path) > 100:  # longer than a socket's path may be: an abstract name then
            self.path = f"@newapi-proxy-{os.getpid()}-{free_port()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.bind(self.path.replace("@", "\0", 1) if self.path[0] == "@" else self.path)
        self._socket.settimeout(0.2)

    def __enter__(self) -> Readiness:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if self.path[0] != "@":
            Path(self.path).unlink(missing_ok=True)

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Whether the process said READY=1 before it died and before `seconds` were over."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            try:
                if b"READY=1" in self._socket.recv(4096).split(b"\n"):
                    return True
            except TimeoutError:
                continue
        return False


def _drain(pipe: BinaryIO, take: Callable[[bytes], object]) -> None:
    with pipe:
        for line in pipe:
            take(line)


def _more_files() -> None:
    """As many open files as the machine lets a process have, as the unit file asks for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
