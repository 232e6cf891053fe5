"""What holds for every test: no network but the loopback, no blocking call on a running loop, nothing left running."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.fakes.drawn import mj, one, songs
from tests.fakes.engines import conn, database_url, mariadb, postgres, pytest_pyfunc_call, redis_server
from tests.fakes.process import Daemon
from tests.fakes.process import free_port as find_port

__all__ = [  # every test's
    "conn", "database_url", "mariadb", "mj", "one", "postgres", "pytest_pyfunc_call", "redis_server", "songs",
]  # fmt: skip
NO_SKIP = os.environ.get("NEWAPI_PROXY_NO_SKIP") == "1"

hypothesis.settings.register_profile("project")  # how long an example takes says how busy the machine is
hypothesis.settings.load_profile("project")

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo
_sleep = time.sleep


class NetworkForbidden(OSError):
    """A test wanted to leave the machine."""


def _allowed(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a unix socket, netlink
    try:
        return ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    except ValueError:
        return address[0] in ("localhost", "")


def _guard(self: socket.socket, address: Any) -> None:
    if not _allowed(address):
        raise NetworkForbidden(f"tests stay on the loopback, not {address!r}")
    if self.gettimeout() != 0 and asyncio._get_running_loop() is not None:
        raise RuntimeError(f"a blocking connect to {address!r} on a running event loop")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _guard(self, address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _guard(self, address)
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host: Any, *args: Any, **named: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name and name != "localhost":
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            raise socket.gaierror(socket.EAI_NONAME, f"tests resolve no names, not {name!r}") from None
    return _getaddrinfo(host, *args, **named)


def _guarded_sleep(seconds: float) -> None:
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("time.sleep on a running event loop")
    _sleep(seconds)


def pytest_configure() -> None:
    """The guards stand before the first test module is imported."""
    socket.socket.connect = _guarded_connect  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = _guarded_getaddrinfo
    time.sleep = _guarded_sleep


def _refused(report: Any) -> Any:
    """Under NEWAPI_PROXY_NO_SKIP=1 what would be skipped fails instead: there nothing may be missing."""
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Skips of single tests."""
    return _refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Skips of whole modules."""
    return _refused((yield))


@pytest.fixture
def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    return find_port()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a database that does not exist yet."""
    return tmp_path / "newapi.db"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts real daemons from YAML texts; each is stopped at the end.

    `@PORT@` in the text becomes a free port; `listen` with it is added where the text has none.
    """
    started: list[Daemon] = []

    def start(text: str, **named: Any) -> Daemon:
        port = find_port()
        folder = tmp_path / f"daemon-{len(started)}"
        folder.mkdir()
        config = folder / "config.yaml"
        text = text if "\nlisten:" in f"\n{text}" else f"listen: 127.0.0.1:@PORT@\n{text}"
        config.write_text(text.replace("@PORT@", str(port)))
        config.chmod(0o600)
        started.append(Daemon(config, f"http://127.0.0.1:{port}", **named))
        return started[-1].start()

    yield start
    for running in started:
        running.stop()
