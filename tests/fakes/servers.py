"""Real database servers on the loopback in temporary folders: PostgreSQL, MariaDB and Redis from the system's packages.

As root the servers run as the users that their packages made, as they refuse to run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes.process import free_port

START_SECONDS: Final = 60.0


def binary(name: str, *folders: str) -> str | None:
    """A program on the path or in folders where packages put it (globs, the newest last)."""
    places = [str(path) for pattern in folders for path in sorted(Path("/").glob(pattern.strip("/")))]
    return shutil.which(name, path=os.pathsep.join([*reversed(places), os.environ.get("PATH", ""), "/usr/sbin"]))


class Server:
    """One server process in a folder of its own; `start` again after `kill` finds its data."""

    def __init__(self, user: str, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.port = free_port()
        self.user = user if os.geteuid() == 0 else None
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *command: Any) -> None:
        """One of the server's tools, to its end. Raises with its words where it fails."""
        done = subprocess.run([*map(str, command)], cwd=self.folder, capture_output=True, **self._as())
        assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")

    def begin(self, command: Sequence[Any], ready: Callable[[], bool]) -> None:
        """Starts the server and waits until it is ready."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as()
            )
        limit = time.monotonic() + START_SECONDS
        while not ready():
            assert time.monotonic() < limit, "the server did not become ready"
            try:
                self.process.wait(0.03)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError((self.folder / "server.log").read_text()[-2000:])

    def end(self, how: signal.Signals) -> None:
        """Sends a signal and waits for the end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """The server dies at once."""
        self.end(signal.SIGKILL)

    def remove(self) -> None:
        """Ends it, and takes its folder away."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def listening(self) -> bool:
        """Whether somebody answers on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _as(self) -> dict[str, Any]:
        return {"user": self.user, "group": self.user, "extra_groups": []} if self.user is not None else {}


class Postgres(Server):
    """A PostgreSQL server. Its fsync is off: it survives its own death, not the machine's."""

    name = "postgresql"

    def __init__(self) -> None:
        self.initdb = _needed("initdb", "usr/lib/postgresql/*/bin")
        self.postgres = _needed("postgres", "usr/lib/postgresql/*/bin")
        self.ready = _needed("pg_isready", "usr/lib/postgresql/*/bin")
        super().__init__("postgres", "pg")
        data = self.folder / "data"
        self.run(self.initdb, "-D", data, "-U", "proxy", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it takes queries."""
        settings = {
            "fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder,
            "max_connections": 60, "shared_buffers": "32MB", "max_wal_size": "256MB",
        }  # fmt: skip
        given = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.begin([self.postgres, "-D", self.folder / "data", "-p", self.port, *given], self._answers)

    def stop(self) -> None:
        """The fast shutdown of a restart: clients are cut off."""
        self.end(signal.SIGINT)

    def kill(self) -> None:
        """As if it had crashed: the immediate shutdown, which keeps no promise but the log's."""
        self.end(signal.SIGQUIT)

    def url(self, name: str, port: int | None = None) -> str:
        """Where a database is, also behind another port."""
        return f"postgresql://proxy@127.0.0.1:{port or self.port}/{name}"

    def _answers(self) -> bool:
        asked = [self.ready, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0


class MariaDB(Server):
    """A MariaDB server."""

    name = "mysql"

    def __init__(self) -> None:
        self.install = _needed("mariadb-install-db")
        self.mariadbd = _needed("mariadbd", "usr/sbin")
        super().__init__("mysql", "maria")
        given = ["--no-defaults", f"--datadir={self.folder}/data"]
        self.run(self.install, *given, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-log-bin")
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it takes queries."""
        given = [
            "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/s", f"--port={self.port}",
            "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=2", "--skip-log-bin",
            "--innodb-buffer-pool-size=32M", "--performance-schema=off",
        ]  # fmt: skip
        self.begin([self.mariadbd, *given], self.listening)

    def stop(self) -> None:
        """An orderly shutdown."""
        self.end(signal.SIGTERM)

    def url(self, name: str, port: int | None = None) -> str:
        """Where a database is, also behind another port."""
        return f"mysql://root@127.0.0.1:{port or self.port}/{name}"


class Redis(Server):
    """A Redis server that keeps nothing on disk."""

    name = "redis"

    def __init__(self) -> None:
        self.server = _needed("redis-server")
        super().__init__("redis", "redis")
        self.start()

    def start(self) -> None:
        """Starts it empty, and waits until it listens."""
        given = ["--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.folder]
        self.begin([self.server, *given], self.listening)

    def stop(self) -> None:
        """An orderly shutdown."""
        self.end(signal.SIGTERM)

    def url(self, port: int | None = None) -> str:
        """Where it is, also behind another port."""
        return f"redis://127.0.0.1:{port or self.port}/0"


def _needed(name: str, *folders: str) -> str:
    found = binary(name, *folders)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
