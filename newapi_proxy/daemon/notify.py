"""What the supervisor says and hears: readiness, reloads, the watchdog, handed-over sockets. Nothing without systemd.

Sources: sd_notify(3), sd_listen_fds(3), systemd.service(5).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

FIRST_FD: Final = 3
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"


class Notifier:
    """The notification socket. A message that cannot be delivered is lost: the supervisor's time-outs do the rest."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket: socket.socket | None = None
        address = environment.get("NOTIFY_SOCKET", "")
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._address = "\0" + address[1:] if address[0] == "@" else address

    def send(self, *lines: str) -> bool:
        """Sends the assignments as one message; whether it went out."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def reloading(self) -> None:
        """A reload begins; READY ends it (systemd wants the moment, in its own clock, to order the two)."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Closes the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """How often to ping: half of what the supervisor allows, None where it does not watch this process."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2_000_000


def listen_fds(environment: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that were handed over, with their names; the variables are taken out, no child inherits them."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    environment.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for index in range(int(count)):
        fd = FIRST_FD + index
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        found.append((names[index] if index < len(names) else "", listener))
    return found
