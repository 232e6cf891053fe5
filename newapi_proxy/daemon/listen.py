"""Addresses to listening sockets: TCP, unix, or what the supervisor handed over.

Knows sockets, no protocol. Raises OSError where an address cannot be had, ValueError where it is none.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

BACKLOG: Final = 4096  # new clients wait here while a successor starts (reliability §2.2)
UNIX_MODE: Final = 0o660  # for a reverse proxy of the same group
METRICS: Final = "metrics"  # the name of a handed-over socket that is the metrics listener; every other is the relay's


class Place(msgspec.Struct, frozen=True):
    """Where to listen: a unix socket's path, or host and port (host "" is every address)."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Place:
    """`127.0.0.1:3000`, `[::1]:3000`, `:3000`, `3000`, `unix:/run/x.sock`. Raises ValueError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith(("/", "@")):
            raise ValueError(f"{text!r}: a unix socket needs an absolute path")
        return Place(path=path)
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or (colon and ":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is no address such as 127.0.0.1:3000, [::1]:3000 or unix:/run/x.sock")
    return Place(host=host.strip("[]") if host != "*" else "", port=int(port))


def places(value: str | Sequence[str]) -> tuple[Place, ...]:
    """The configuration's `listen`: one address or several. Raises ValueError."""
    return tuple(parse(one) for one in ([value] if isinstance(value, str) else value))


def bind(place: Place, *, together: bool = False) -> list[socket.socket]:
    """The listening sockets of a place; a name may stand for several addresses. Raises OSError with the place.

    `together`: other processes of ours may listen there too, and the kernel spreads the clients.
    """
    try:
        if place.path:
            return [_unix(place.path)]
        found: list[socket.socket] = []
        try:
            for family, address in _addresses(place):
                found.append(_tcp(family, address, together))
        except OSError:
            for one in found:
                one.close()
            raise
        return found
    except OSError as error:
        raise OSError(f"cannot listen on {place}: {error.strerror or error}") from error


def _addresses(place: Place) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    rows = socket.getaddrinfo(place.host or None, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found: list[tuple[socket.AddressFamily, tuple[str, int]]] = []
    for family, _, _, _, address in rows:
        row = (family, (str(address[0]), int(address[1])))
        if family in (socket.AF_INET, socket.AF_INET6) and row not in found:
            found.append(row)
    return found


def _tcp(family: socket.AddressFamily, address: tuple[str, int], together: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if together:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if path.startswith("@"):
            listener.bind("\0" + path[1:])
        else:
            _clear(path)
            listener.bind(path)
            Path(path).chmod(UNIX_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _clear(path: str) -> None:
    """Takes away a socket that nobody listens on any more; a living one stays, and the bind fails."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()


def forget(place: Place) -> None:
    """Takes away a unix socket's file after its end."""
    if place.path and not place.path.startswith("@"):
        with contextlib.suppress(OSError):
            Path(place.path).unlink()
