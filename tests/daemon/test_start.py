"""How the process comes up, and how it says why it does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.daemon.talk import ECHO, UnixConnection, ask, get, serve
from tests.fakes.process import ROOT, Daemon

Start = Callable[..., Daemon]
MOST_RSS = 80 * 1024  # KiB, idle
ACTIVATE = shutil.which("systemd-socket-activate")


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_it_serves_and_says_so(daemon: Start) -> None:
    """A started daemon answers; the id that the client gets is the id in the log."""
    one = daemon(ECHO)
    status, headers, body = ask(one.url)
    assert status == 200
    assert orjson.loads(body)["choices"][0]["message"]["content"]
    line = one.wait(lambda line: line.get("request_id") == headers["x-request-id"])
    assert (line["event"], line["end"], line["token"], line["channel"]) == ("request", "ok", "demo", "echo")
    status, headers, _ = ask(one.url, headers={"X-Request-Id": "mine-1"})
    assert headers["x-request-id"] == "mine-1"
    status, headers, _ = ask(one.url, headers={"X-Request-Id": "mine-1"})
    assert (status, headers["x-request-id"].startswith("mine-1.")) == (200, True)
    assert get(one.url, "/readyz")[0] == 200
    assert one.stop() == 0


def test_metrics_have_their_own_listener(daemon: Start, free_port: int) -> None:
    """Metrics are on the private listener, and not on the public one."""
    one = daemon(f"metrics: {{listen: 127.0.0.1:{free_port}}}\n{ECHO}")
    ask(one.url)
    one.wait("request")
    status, text = get(f"http://127.0.0.1:{free_port}", "/metrics")
    assert status == 200
    assert b'newapi_requests_total{end="ok",route="/v1/chat/completions",status="200"} 1.0' in text
    assert b"newapi_bugs_total 0.0" in text
    assert get(one.url, "/metrics")[0] == 404


def test_unix_socket(daemon: Start, tmp_path: Path) -> None:
    """A unix socket serves, a stale one is replaced, and none is left behind."""
    path = tmp_path / "h.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    one = daemon(f"listen: unix:{path}\n{ECHO}")
    link = UnixConnection(path)
    try:
        assert ask(link)[0] == 200
    finally:
        link.close()
    assert one.stop() == 0
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_memory(daemon: Start) -> None:
    """An idle daemon stays within its memory, and has not loaded what it does not need."""
    one = daemon(ECHO)
    status = Path(f"/proc/{one.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) <= MOST_RSS
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    assert "_tiktoken" not in maps
    assert "cryptography" not in maps


def test_faults_end_the_start(tmp_path: Path) -> None:
    """A bad file: every fault with its place on stderr, exit 1, nothing listened."""
    done = serve(written(tmp_path, "listn: 1\n" + ECHO.replace("type: echo", "type: ehco")))
    assert done.returncode == 1
    faults = [line for line in done.stderr.splitlines() if "config.yaml:" in line]
    assert any(":1:1: listn: " in line for line in faults)
    assert any("ehco" in line for line in faults)
    assert done.stdout == ""


def test_no_file_ends_the_start(tmp_path: Path) -> None:
    """No file: exit 2."""
    assert serve(tmp_path / "nothing.yaml").returncode == 2


def test_taken_port_ends_the_start(tmp_path: Path) -> None:
    """A port that is taken: exit 3, and the address in the message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve(written(tmp_path, f"listen: {address}\n{ECHO}"))
    assert done.returncode == 3
    assert done.stderr == f"newapi-proxy: cannot listen on {address}: Address already in use\n"


def test_a_second_daemon_is_refused(daemon: Start, free_port: int) -> None:
    """Two daemons on one database file: the second does not start (D14)."""
    one = daemon(ECHO)
    other = one.config.parent / "other.yaml"
    other.write_text(f"listen: 127.0.0.1:{free_port}\n{ECHO}")
    other.chmod(0o600)
    done = serve(other)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert ask(one.url)[0] == 200


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_socket_activation(tmp_path: Path, free_port: int) -> None:
    """A listener that systemd hands over wins over `listen`, and outlives the daemon's restart."""
    config = written(tmp_path, f"listen: 127.0.0.1:1\n{ECHO}")
    address = f"127.0.0.1:{free_port}"
    process = subprocess.Popen(
        [str(ACTIVATE), "-l", address, "--fdname=relay", sys.executable, "-m", "newapi_proxy", "serve", "-c", config],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 20
        while True:  # systemd-socket-activate starts the daemon at the first connection, once it listens itself
            try:
                assert ask(f"http://{address}")[0] == 200
                break
            except ConnectionRefusedError:
                assert time.monotonic() < limit
                assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
