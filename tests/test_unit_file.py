"""The unit files: systemd reads them without a complaint, and they are as hard as they are said to be."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from newapi_proxy.config.model import Relay
from tests import laws

UNITS = laws.ROOT / "systemd"
SERVICE = UNITS / "newapi-proxy.service"
SEVERAL = UNITS / "newapi-proxy@.service"
WORST_EXPOSURE = 1.5  # RF26
analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def values(key: str) -> list[str]:
    """Every value of a key in the service file, in order."""
    return re.findall(rf"^{key}=(.*)$", SERVICE.read_text(), re.MULTILINE)


@analyzed
def test_units_verify(tmp_path: Path) -> None:
    """systemd finds nothing to say about the units (with a command that exists here in the daemon's place)."""
    for unit in UNITS.iterdir():
        command = shutil.which("true") or "/bin/true"
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/newapi-proxy", command))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "newapi-proxy" in line]
    assert (done.returncode, ours) == (0, [])


@analyzed
@pytest.mark.parametrize("unit", [SERVICE, SEVERAL], ids=lambda unit: unit.stem)
def test_exposure(unit: Path) -> None:
    """The sandbox scores no worse than promised."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, timeout=60
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= WORST_EXPOSURE


def test_a_bad_file_fails_the_reload() -> None:
    """`systemctl reload` checks the file first, the same file that is served, and only then signals."""
    (start,) = values("ExecStart")
    check, signal = values("ExecReload")
    assert start == "/usr/bin/newapi-proxy serve -c /etc/newapi-proxy/config.yaml"
    assert check == start.replace(" serve ", " check ")
    assert signal == "/bin/kill -HUP $MAINPID"


def test_several_differ_in_what_they_cannot_share() -> None:
    """The template is the service, but for the name, the state directory and the socket."""
    one, several = (set(unit.read_text().partition("[Unit]")[2].splitlines()) for unit in (SERVICE, SEVERAL))
    shared = ("StateDirectory", "RuntimeDirectory", "WorkingDirectory", "Description", "After", "Also", "Environment")
    assert [line for line in sorted(one ^ several) if not line.startswith(shared)] == []


def test_a_start_is_tried_for_ever() -> None:
    """A database server that comes up late is waited for: systemd would give up after five starts in ten seconds."""
    assert (values("StartLimitIntervalSec"), values("Restart")) == (["0"], ["on-failure"])


def test_stopping_leaves_time_to_drain() -> None:
    """systemd waits longer for the stop than streams may take to end."""
    assert int(values("TimeoutStopSec")[0]) > Relay().drain_timeout + 10


def test_socket_unit_hands_over_the_relay_listener() -> None:
    """The socket unit listens where the default configuration does, under the name that the daemon knows."""
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((UNITS / "newapi-proxy.socket").read_text())
    assert unit["Socket"]["ListenStream"] == "127.0.0.1:3000"
    assert unit["Socket"]["FileDescriptorName"] == "relay"
    assert int(unit["Socket"]["Backlog"]) >= 1024
